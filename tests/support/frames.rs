//! The strict shape of every frame that a server may send, written from the protocol's text and not from the server's
//! code. It refuses a key too many and a key too few, as the published clients do.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use uuid::Uuid;

/// Which extensions of the protocol the sessions of a connection have declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `seq` and `turnId` may be there.
    pub resume: bool,
    /// Progress chunks may be there.
    pub tool_progress: bool,
}

/// Checks a frame for a connection whose sessions declared no extension.
pub fn check_frame(frame: &Value) -> Result<(), String> {
    check_frame_for(frame, Declared::default())
}

/// Checks a frame for a connection whose sessions declared these extensions.
pub fn check_frame_for(frame: &Value, declared: Declared) -> Result<(), String> {
    let mut keys = Keys::of(frame, "the frame")?;
    let kind = text(keys.must("type")?)?.to_owned();
    let request_id = keys.may("requestId").map(text).transpose()?.map(str::to_owned);
    integer(keys.must("timestamp")?)?;
    if declared.resume && !matches!(&*kind, "pong" | "keepalive") {
        keys.may("seq").map(|seq| at_least(seq, 1)).transpose()?;
    }
    let event = EventKeys { kind: &kind, request_id: request_id.as_deref(), declared };
    event.check(&mut keys).map_err(|problem| format!("{kind}: {problem}"))?;
    keys.end()
}

struct EventKeys<'a> {
    kind: &'a str,
    request_id: Option<&'a str>,
    declared: Declared,
}

type Checked = Result<(), String>;

impl EventKeys<'_> {
    fn check(&self, keys: &mut Keys) -> Checked {
        match self.kind {
            "pong" => {
                let mut data = keys.object("data")?;
                integer(data.must("timestamp")?)?;
                data.end()
            }
            "immediate_response" => self.immediate_response(keys),
            "stream_token" | "stream_reasoning" | "stream_preamble" => {
                let token = not_empty(keys.must("token")?)?;
                let mut data = self.turn_data(keys)?;
                same("data.token", data.must("token")?, token)?;
                data.end()
            }
            "stream_chunk" => self.stream_chunk(keys),
            "eventual_response" => {
                number_is(keys.must("status")?, 200)?;
                let mut data = self.turn_data(keys)?;
                number_is(data.must("status")?, 200)?;
                answer(data.object("data")?)?;
                data.end()
            }
            "error" => self.error(keys),
            "cancelled" => {
                number_is(keys.must("status")?, 499)?;
                let mut data = self.turn_data(keys)?;
                number_is(data.must("status")?, 499)?;
                data.end()
            }
            "keepalive" => self.turn_data(keys)?.end(),
            _ => self.wrapped(keys),
        }
    }

    /// The events whose `data` holds the request id and one more `data`.
    fn wrapped(&self, keys: &mut Keys) -> Checked {
        let mut outer = self.turn_data(keys)?;
        let mut data = outer.object("data")?;
        match self.kind {
            "write_confirmation_required" => {
                not_empty(data.must("toolId")?)?;
                not_empty(data.must("actionDescription")?)?;
            }
            "interaction_required" => {
                not_empty(data.must("interactionId")?)?;
                not_empty(data.must("kind")?)?;
                object(data.must("spec")?)?;
                text(data.must("reason")?)?;
            }
            "interaction_invalid" => {
                not_empty(data.must("interactionId")?)?;
                not_empty(data.must("kind")?)?;
                text(data.must("message")?)?;
                for error in not_empty_list(data.must("errors")?)? {
                    let mut error = Keys::of(error, "an entry of errors")?;
                    not_empty(error.must("field")?)?;
                    not_empty(error.must("message")?)?;
                    error.end()?;
                }
            }
            "otp_verification_required" => {
                not_empty(data.must("toolId")?)?;
                not_empty(data.must("actionDescription")?)?;
                for channel in not_empty_list(data.must("availableChannels")?)? {
                    one_of(channel, &["email", "sms"])?;
                }
                one_of(data.must("authLevel")?, &["none", "end_user", "admin"])?;
            }
            "otp_sent" => {
                one_of(data.must("channel")?, &["email", "sms"])?;
                not_empty(data.must("maskedDestination")?)?;
            }
            "otp_verified" => {
                text(data.must("message")?)?;
            }
            "otp_invalid" => {
                one_of(data.must("error")?, &["INVALID_CODE", "MAX_ATTEMPTS", "NOT_FOUND", "EXPIRED"])?;
                at_least(data.must("attemptsRemaining")?, 0)?;
                text(data.must("message")?)?;
            }
            unknown => return Err(format!("\"{unknown}\" is no type of event")),
        }
        data.end()?;
        outer.end()
    }

    /// `data` of an event of a turn, in which the request id stands again.
    fn turn_data<'v>(&self, keys: &mut Keys<'v>) -> Result<Keys<'v>, String> {
        let request_id = self.request_id.ok_or("an event of a turn needs a requestId")?;
        let mut data = keys.object("data")?;
        same("data.requestId", data.must("requestId")?, request_id)?;
        Ok(data)
    }

    fn error(&self, keys: &mut Keys) -> Checked {
        let error = keys.must("error")?;
        let mut copy = Keys::of(error, "error")?;
        let code = text(copy.must("code")?)?;
        if !ERROR_CODES.contains(&code) {
            return Err(format!("\"{code}\" is no error code"));
        }
        not_empty(copy.must("message")?)?;
        copy.end()?;

        let mut data = keys.object("data")?;
        match (self.request_id, data.may("requestId")) {
            (None, None) => {}
            (Some(request_id), Some(inner)) => same("data.requestId", inner, request_id)?,
            _ => return Err("requestId must stand in both places or in neither".to_owned()),
        }
        if data.must("error")? != error {
            return Err("the two copies of the error differ".to_owned());
        }
        data.may("details");
        data.end()
    }

    fn stream_chunk(&self, keys: &mut Keys) -> Checked {
        let node = not_empty(keys.must("node")?)?;
        let mut data = self.turn_data(keys)?;
        same("data.node", data.must("node")?, node)?;
        let mut state = data.object("state")?;
        let mut raw = state.object("rawResponse")?;
        if let Some(call) = raw.may("toolCall") {
            let mut call = Keys::of(call, "toolCall")?;
            same("toolCall.name", call.must("name")?, node)?;
            let arguments = text(call.must("arguments")?)?;
            serde_json::from_str::<Map<String, Value>>(arguments)
                .map_err(|error| format!("arguments must be an object as JSON text: {error}"))?;
            call.end()?;
        } else if raw.has("toolResult") || !self.declared.tool_progress {
            let mut result = raw.object("toolResult")?;
            same("toolResult.name", result.must("name")?, node)?;
            boolean(result.must("isError")?)?;
            let chars = text(result.must("result")?)?.chars().count();
            if chars > 500 {
                return Err(format!("a result has at most 500 characters, it has {chars}"));
            }
            result.end()?;
        } else {
            let mut progress = raw.object("toolProgress")?;
            same("toolProgress.name", progress.must("name")?, node)?;
            not_empty(progress.must("callId")?)?;
            if let Some(fraction) = progress.may("fraction") {
                let fraction = number(fraction)?;
                if !(0.0..=1.0).contains(&fraction) {
                    return Err(format!("a fraction is from 0 to 1, it is {fraction}"));
                }
            }
            progress.may("message").map(text).transpose()?;
            progress.end()?;
        }
        raw.end()?;
        state.end()?;
        data.end()
    }

    fn immediate_response(&self, keys: &mut Keys) -> Checked {
        let status = integer(keys.must("status")?)?;
        text(keys.must("message")?)?;
        let mut data = keys.object("data")?;
        match status {
            202 if self.declared.resume => {
                data.may("turnId").map(not_empty).transpose()?;
            }
            202 => {}
            200 => response(&mut data, self.declared)?,
            other => return Err(format!("an immediate_response has status 200 or 202, it has {other}")),
        }
        data.end()
    }
}

/// `data` of an `immediate_response` with status 200: one of the known replies, told apart by a key of its own.
fn response(data: &mut Keys, declared: Declared) -> Checked {
    if data.has("messages") {
        for row in list(data.must("messages")?)? {
            message_row(row)?;
        }
        page_end(data)
    } else if data.has("conversations") {
        for row in list(data.must("conversations")?)? {
            conversation_row(row)?;
        }
        page_end(data)
    } else if data.has("title") {
        uuid(data.must("conversationId")?)?;
        not_empty(data.must("title")?).map(drop)
    } else if data.has("approved") {
        uuid(data.must("sessionId")?)?;
        boolean(data.must("approved")?)
    } else if data.has("interactionId") {
        uuid(data.must("sessionId")?)?;
        not_empty(data.must("interactionId")?)?;
        match data.may("declined") {
            Some(Value::Bool(true)) => Ok(()),
            Some(other) => Err(format!("declined is true or absent, it is {other}")),
            None => {
                not_empty(data.must("kind")?)?;
                object(data.must("values")?)
            }
        }
    } else if data.has("lastSeq") && declared.resume {
        uuid(data.must("sessionId")?)?;
        not_empty(data.must("turnId")?)?;
        text(data.must("requestId")?)?;
        at_least(data.must("lastSeq")?, 0)?;
        one_of(data.must("state")?, &["running", "parked", "finished", "unknown"])
    } else {
        session(data)
    }
}

/// The six keys of a session that was opened; two more when it is described.
fn session(data: &mut Keys) -> Checked {
    let conversation = text(data.must("conversationId")?)?;
    for key in ["sessionId", "conversationId", "userParticipantId", "agentParticipantId"] {
        uuid(data.must(key)?)?;
    }
    not_empty(data.must("agentId")?)?;
    not_empty(data.must("agentName")?)?;
    if data.has("threadId") || data.has("status") {
        same("threadId", data.must("threadId")?, conversation)?;
        one_of(data.must("status")?, &["active", "idle", "ended"])?;
    }
    Ok(())
}

fn page_end(data: &mut Keys) -> Checked {
    let next = data.must("nextCursor")?;
    if !next.is_null() {
        not_empty(next)?;
    }
    match data.must("hasMore")? {
        Value::Bool(has_more) if *has_more != next.is_null() => Ok(()),
        other => Err(format!("hasMore must say whether nextCursor is there, it is {other} beside {next}")),
    }
}

fn message_row(row: &Value) -> Checked {
    let mut row = Keys::of(row, "a message")?;
    uuid(row.must("id")?)?;
    one_of(row.must("direction")?, &["inbound", "outbound"])?;
    instant(row.must("createdAt")?)?;
    let mut content = row.object("content")?;
    content.may("text").map(text).transpose()?;
    if let Some(structured) = content.may("structuredResponse")
        && !structured.is_null()
    {
        object(structured)?;
    }
    content.end()?;
    for key in ["from", "to"] {
        if let Some(participant) = row.may(key) {
            let mut participant = Keys::of(participant, key)?;
            uuid(participant.must("id")?)?;
            one_of(participant.must("type")?, &["user", "ai-agent", "human-agent"])?;
            participant.may("name").map(text).transpose()?;
            participant.end()?;
        }
    }
    row.end()
}

fn conversation_row(row: &Value) -> Checked {
    let mut row = Keys::of(row, "a conversation")?;
    uuid(row.must("conversationId")?)?;
    text(row.must("title")?)?;
    instant(row.must("updatedAt")?)?;
    at_least(row.must("messageCount")?, 1)?;
    row.end()
}

/// The inner `data` of an `eventual_response`.
fn answer(mut data: Keys) -> Checked {
    uuid(data.must("messageId")?)?;
    boolean(data.must("needsEscalation")?)?;
    data.may("escalationReason").map(text).transpose()?;
    let mut response = data.object("response")?;
    texts(response.must("responseParts")?)?;
    number(response.must("customerHappinessScore")?)?;
    number(response.must("needsSatisfactionScore")?)?;
    text(response.must("requestSummary")?)?;
    let statuses = ["resolved", "in_progress", "requires_escalation", "needs_more_info", "blocked"];
    one_of(response.must("resolutionStatus")?, &statuses)?;
    let suggestions = texts(response.must("suggestedNextActions")?)?;
    if suggestions > 4 {
        return Err(format!("at most 4 suggested next actions, there are {suggestions}"));
    }
    response.end()?;
    if let Some(usage) = data.may("usage") {
        let mut usage = Keys::of(usage, "usage")?;
        number(usage.must("costUsd")?)?;
        at_least(usage.must("promptTokens")?, 0)?;
        at_least(usage.must("completionTokens")?, 0)?;
        usage.end()?;
    }
    if let Some(citations) = data.may("citations") {
        for citation in not_empty_list(citations)? {
            let mut citation = Keys::of(citation, "a citation")?;
            not_empty(citation.must("id")?)?;
            text(citation.must("title")?)?;
            let chars = text(citation.must("snippet")?)?.chars().count();
            if chars > 281 {
                return Err(format!("a snippet has at most 280 characters and a marker, it has {chars}"));
            }
            number(citation.must("score")?)?;
            if let Some(url) = citation.may("url") {
                let url = text(url)?;
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    return Err(format!("a url is http or https, it is {url}"));
                }
            }
            citation.end()?;
        }
    }
    data.may("directive").map(object).transpose()?;
    data.end()
}

const ERROR_CODES: [&str; 18] = [
    "VALIDATION_ERROR",
    "UNSUPPORTED_ACTION",
    "SESSION_NOT_FOUND",
    "CONVERSATION_NOT_FOUND",
    "TURN_IN_PROGRESS",
    "TURN_NOT_FOUND",
    "LLM_UNAVAILABLE",
    "SKILL_NOT_FOUND",
    "AGENT_ERROR",
    "NO_PENDING_CONFIRMATION",
    "NO_PENDING_INTERACTION",
    "INTERACTION_MISMATCH",
    "OTP_SEND_FAILED",
    "AGENT_NOT_AUTHORIZED",
    "ORIGIN_NOT_ALLOWED",
    "AUTH_CONTEXT_INVALID",
    "STORAGE_ERROR",
    "INTERNAL_ERROR",
];

/// The keys of one object: each that is looked at counts as known, and [`Keys::end`] refuses the others.
struct Keys<'v> {
    place: &'static str,
    object: &'v Map<String, Value>,
    known: BTreeSet<&'static str>,
}

impl<'v> Keys<'v> {
    fn of(value: &'v Value, place: &'static str) -> Result<Self, String> {
        let object = value.as_object().ok_or_else(|| format!("{place} must be an object, it is {value}"))?;
        Ok(Self { place, object, known: BTreeSet::new() })
    }

    fn must(&mut self, key: &'static str) -> Result<&'v Value, String> {
        self.may(key).ok_or_else(|| format!("{} lacks the key {key}", self.place))
    }

    fn may(&mut self, key: &'static str) -> Option<&'v Value> {
        self.known.insert(key);
        self.object.get(key)
    }

    fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    fn object(&mut self, key: &'static str) -> Result<Keys<'v>, String> {
        Keys::of(self.must(key)?, key)
    }

    fn end(self) -> Checked {
        match self.object.keys().find(|key| !self.known.contains(key.as_str())) {
            None => Ok(()),
            Some(key) => Err(format!("{} must not have the key {key}", self.place)),
        }
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, found {value}"))
}

fn not_empty(value: &Value) -> Result<&str, String> {
    match text(value)? {
        "" => Err("expected a string that is not empty".to_owned()),
        text => Ok(text),
    }
}

fn same(place: &str, value: &Value, expected: &str) -> Checked {
    match text(value)? {
        found if found == expected => Ok(()),
        found => Err(format!("{place} must be \"{expected}\", it is \"{found}\"")),
    }
}

fn one_of(value: &Value, allowed: &[&str]) -> Checked {
    let found = text(value)?;
    if allowed.contains(&found) { Ok(()) } else { Err(format!("expected one of {allowed:?}, found \"{found}\"")) }
}

fn uuid(value: &Value) -> Checked {
    Uuid::try_parse(text(value)?).map(drop).map_err(|_| format!("expected a UUID, found {value}"))
}

fn integer(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("expected an integer, found {value}"))
}

fn number(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("expected a number, found {value}"))
}

fn number_is(value: &Value, expected: i64) -> Checked {
    if integer(value)? == expected { Ok(()) } else { Err(format!("expected {expected}, found {value}")) }
}

fn at_least(value: &Value, least: i64) -> Checked {
    if integer(value)? >= least { Ok(()) } else { Err(format!("expected at least {least}, found {value}")) }
}

fn boolean(value: &Value) -> Checked {
    value.as_bool().map(drop).ok_or_else(|| format!("expected a boolean, found {value}"))
}

fn object(value: &Value) -> Checked {
    value.as_object().map(drop).ok_or_else(|| format!("expected an object, found {value}"))
}

fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("expected an array, found {value}"))
}

fn not_empty_list(value: &Value) -> Result<&[Value], String> {
    match list(value)? {
        [] => Err("expected an array that is not empty".to_owned()),
        entries => Ok(entries),
    }
}

fn texts(value: &Value) -> Result<usize, String> {
    let entries = list(value)?;
    entries.iter().try_for_each(|entry| text(entry).map(drop))?;
    Ok(entries.len())
}

/// `2026-01-05T10:00:03.120Z`: a date, a time, and an offset or `Z`.
fn instant(value: &Value) -> Checked {
    let found = text(value)?;
    let digits_at = |at: &[usize]| at.iter().all(|&index| found.as_bytes().get(index).is_some_and(u8::is_ascii_digit));
    let is_at = |index: usize, byte: u8| found.as_bytes().get(index) == Some(&byte);
    let has_date_and_time = digits_at(&[0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
        && is_at(4, b'-')
        && is_at(7, b'-')
        && is_at(10, b'T')
        && is_at(13, b':')
        && is_at(16, b':');
    let rest = found.get(19..).unwrap_or_default().trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let has_offset = rest == "Z" || (rest.len() == 6 && rest.starts_with(['+', '-']) && rest.as_bytes()[3] == b':');
    if has_date_and_time && has_offset {
        Ok(())
    } else {
        Err(format!("expected an RFC 3339 instant with an offset, found \"{found}\""))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000001";

    fn wrapped(kind: &str, data: Value) -> Value {
        json!({"type": kind, "requestId": "m1", "data": {"requestId": "m1", "data": data}, "timestamp": 1})
    }

    fn reply(data: Value) -> Value {
        json!({"type": "immediate_response", "requestId": "r", "status": 200, "message": "x", "data": data, "timestamp": 1})
    }

    fn chunk(raw: Value) -> Value {
        let data = json!({"requestId": "m1", "node": "t", "state": {"rawResponse": raw}});
        json!({"type": "stream_chunk", "requestId": "m1", "node": "t", "data": data, "timestamp": 1})
    }

    fn session_keys() -> Value {
        json!({"sessionId": ID, "conversationId": ID, "agentId": "a", "agentName": "n", "userParticipantId": ID,
            "agentParticipantId": ID})
    }

    /// One frame of each shape, in the words of the protocol.
    fn samples() -> Vec<Value> {
        let mut described = session_keys();
        described["threadId"] = json!(ID);
        described["status"] = json!("idle");
        let error = json!({"code": "SESSION_NOT_FOUND", "message": "no such session"});
        vec![
            json!({"type": "pong", "requestId": "p1", "data": {"timestamp": 1}, "timestamp": 1}),
            json!({"type": "immediate_response", "requestId": "m1", "status": 202, "message": "x", "data": {},
                "timestamp": 1}),
            reply(session_keys()),
            reply(described),
            reply(json!({"messages": [{"id": ID, "direction": "outbound", "content": {"text": "Hi"},
                "from": {"id": ID, "type": "ai-agent", "name": "n"}, "createdAt": "2026-01-05T10:00:03.120Z"}],
                "nextCursor": null, "hasMore": false})),
            reply(json!({"conversations": [{"conversationId": ID, "title": "T",
                "updatedAt": "2026-01-05T10:00:03+01:00", "messageCount": 4}], "nextCursor": "x", "hasMore": true})),
            reply(json!({"conversationId": ID, "title": "T"})),
            reply(json!({"sessionId": ID, "approved": true})),
            reply(json!({"sessionId": ID, "interactionId": "i", "declined": true})),
            reply(json!({"sessionId": ID, "interactionId": "i", "kind": "choices", "values": {}})),
            json!({"type": "stream_token", "requestId": "m1", "token": "Hel",
                "data": {"requestId": "m1", "token": "Hel"}, "timestamp": 1}),
            chunk(json!({"toolCall": {"name": "t", "arguments": "{\"n\":1}"}})),
            chunk(json!({"toolResult": {"name": "t", "isError": false, "result": "ok"}})),
            json!({"type": "eventual_response", "requestId": "m1", "status": 200, "timestamp": 1,
                "data": {"requestId": "m1", "status": 200, "data": {"messageId": ID, "needsEscalation": false,
                    "response": {"responseParts": ["Done."], "customerHappinessScore": 0.5,
                        "needsSatisfactionScore": 0.5, "requestSummary": "", "resolutionStatus": "in_progress",
                        "suggestedNextActions": []},
                    "usage": {"costUsd": 0.1, "promptTokens": 8, "completionTokens": 3},
                    "citations": [{"id": "kb-1", "title": "t", "url": "https://x/y", "snippet": "…", "score": 0.4}],
                    "directive": {}}}}),
            json!({"type": "error", "requestId": "m1", "error": error.clone(),
                "data": {"requestId": "m1", "error": error}, "timestamp": 1}),
            json!({"type": "cancelled", "requestId": "m1", "status": 499,
                "data": {"requestId": "m1", "status": 499}, "timestamp": 1}),
            json!({"type": "keepalive", "requestId": "m1", "data": {"requestId": "m1"}, "timestamp": 1}),
            wrapped("write_confirmation_required", json!({"toolId": "t", "actionDescription": "d"})),
            wrapped(
                "interaction_required",
                json!({"interactionId": "i", "kind": "choices", "spec": {}, "reason": "r"}),
            ),
            wrapped(
                "interaction_invalid",
                json!({"interactionId": "i", "kind": "choices",
                "errors": [{"field": "f", "message": "m"}], "message": "m"}),
            ),
            wrapped(
                "otp_verification_required",
                json!({"toolId": "t", "actionDescription": "d",
                "availableChannels": ["email"], "authLevel": "end_user"}),
            ),
            wrapped("otp_sent", json!({"channel": "email", "maskedDestination": "a***"})),
            wrapped("otp_verified", json!({"message": "m"})),
            wrapped("otp_invalid", json!({"error": "EXPIRED", "attemptsRemaining": 0, "message": "m"})),
        ]
    }

    /// Keys that may be left out, and the objects that may hold anything.
    const OPTIONAL: [&str; 7] = ["requestId", "from", "name", "usage", "citations", "url", "directive"];
    const OPAQUE: [&str; 3] = ["directive", "spec", "values"];

    /// Every object of a value, as a path of keys and indices, with those that may hold anything left out.
    fn objects(value: &Value, path: String, found: &mut Vec<String>) {
        match value {
            Value::Object(keys) => {
                found.push(path.clone());
                for (key, value) in keys.iter().filter(|(key, _)| !OPAQUE.contains(&key.as_str())) {
                    objects(value, format!("{path}/{key}"), found);
                }
            }
            Value::Array(entries) => {
                for (index, value) in entries.iter().enumerate() {
                    objects(value, format!("{path}/{index}"), found);
                }
            }
            _ => {}
        }
    }

    fn changed(frame: &Value, path: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Value {
        let mut frame = frame.clone();
        change(frame.pointer_mut(path).and_then(Value::as_object_mut).expect("the path leads to an object"));
        frame
    }

    #[test]
    fn the_protocols_frames_pass() {
        for frame in samples() {
            assert_eq!(check_frame(&frame), Ok(()), "{frame}");
        }
    }

    #[test]
    fn no_object_may_have_a_key_more() {
        for frame in samples() {
            let mut paths = Vec::new();
            objects(&frame, String::new(), &mut paths);
            for path in paths {
                let more = changed(&frame, &path, |keys| drop(keys.insert("surplus".to_owned(), json!(1))));
                assert!(check_frame(&more).is_err(), "{path} of {frame}");
            }
        }
    }

    #[test]
    fn no_object_may_lack_a_key() {
        for frame in samples() {
            let mut paths = Vec::new();
            objects(&frame, String::new(), &mut paths);
            for path in paths {
                let keys: Vec<String> = match frame.pointer(&path) {
                    Some(Value::Object(keys)) => keys.keys().cloned().collect(),
                    _ => panic!("{path} leads to no object"),
                };
                let is_optional = |key: &str| OPTIONAL.contains(&key) || (path.ends_with("content") && key == "text");
                for key in keys.iter().filter(|key| !is_optional(key)) {
                    let less = changed(&frame, &path, |keys| drop(keys.remove(key)));
                    assert!(check_frame(&less).is_err(), "{path}/{key} of {frame}");
                }
            }
        }
    }

    #[test]
    fn nothing_may_be_null_or_of_another_type() {
        for frame in samples() {
            let mut paths = Vec::new();
            objects(&frame, String::new(), &mut paths);
            for path in paths {
                let keys: Vec<String> = match frame.pointer(&path) {
                    Some(Value::Object(keys)) => keys.keys().cloned().collect(),
                    _ => panic!("{path} leads to no object"),
                };
                for key in keys.iter().filter(|key| *key != "nextCursor") {
                    let null = changed(&frame, &path, |keys| drop(keys.insert(key.clone(), Value::Null)));
                    assert!(check_frame(&null).is_err(), "{path}/{key} of {frame}");
                }
            }
        }
    }

    #[test]
    fn extensions_pass_only_when_declared() {
        let numbered = changed(&samples()[10], "", |keys| drop(keys.insert("seq".to_owned(), json!(2))));
        let ack = changed(&samples()[1], "/data", |keys| drop(keys.insert("turnId".to_owned(), json!("t"))));
        let resuming =
            reply(json!({"sessionId": ID, "turnId": "t", "requestId": "m1", "lastSeq": 2, "state": "running"}));
        let progress = chunk(json!({"toolProgress": {"name": "t", "callId": "c", "fraction": 0.4, "message": "m"}}));
        let resume = Declared { resume: true, tool_progress: false };
        let tool_progress = Declared { resume: false, tool_progress: true };
        for frame in [numbered, ack, resuming] {
            assert!(check_frame(&frame).is_err() && check_frame_for(&frame, tool_progress).is_err(), "{frame}");
            assert_eq!(check_frame_for(&frame, resume), Ok(()), "{frame}");
        }
        assert!(check_frame(&progress).is_err() && check_frame_for(&progress, resume).is_err());
        assert_eq!(check_frame_for(&progress, tool_progress), Ok(()));
        let keepalive = changed(&samples()[16], "", |keys| drop(keys.insert("seq".to_owned(), json!(2))));
        assert!(check_frame_for(&keepalive, resume).is_err());
    }

    #[test]
    fn values_are_checked_too() {
        let wrong = [
            chunk(json!({"toolCall": {"name": "t", "arguments": "[1]"}})),
            chunk(json!({"toolCall": {"name": "other", "arguments": "{}"}})),
            chunk(json!({"toolResult": {"name": "t", "isError": false, "result": "x".repeat(501)}})),
            reply(json!({"messages": [], "nextCursor": null, "hasMore": true})),
            reply(json!({"sessionId": "s", "approved": true})),
            wrapped("otp_sent", json!({"channel": "pigeon", "maskedDestination": "a***"})),
            wrapped("surprise", json!({})),
            json!({"type": "stream_token", "requestId": "m1", "token": "", "data": {"requestId": "m1", "token": ""},
                "timestamp": 1}),
            json!({"type": "cancelled", "requestId": "m1", "status": 499, "data": {"requestId": "m2", "status": 499},
                "timestamp": 1}),
            json!({"type": "pong", "data": {"timestamp": 1.5}, "timestamp": 1}),
            json!([]),
        ];
        for frame in wrong {
            assert!(check_frame(&frame).is_err(), "{frame}");
        }
        for text in ["2026-01-05T10:00:03", "2026-01-05 10:00:03Z", "2026-01-05", "2026-01-05T10:00:03+0100"] {
            assert!(instant(&json!(text)).is_err(), "{text}");
        }
    }
}
