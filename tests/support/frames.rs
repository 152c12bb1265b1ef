//! The strict shape of every frame that a server may send: the schemas that the server publishes, and what a schema
//! cannot say. The tests below hold the schemas against frames written from the protocol's text and not from the
//! server's code: they refuse a key too many and a key too few, as the published clients do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jackfield::protocol::schema::{Extensions, schemas};
use jsonschema::Validator;
use serde_json::{Map, Value};

/// Checks a frame for a connection whose sessions declared no extension.
pub fn check_frame(frame: &Value) -> Result<(), String> {
    check_frame_for(frame, Extensions::default())
}

/// Checks a frame for a connection whose sessions declared these extensions. A connection may also hold sessions that
/// declared none, so the plain frames pass, too.
pub fn check_frame_for(frame: &Value, declared: Extensions) -> Result<(), String> {
    let kind = frame["type"].as_str().ok_or("a frame has a type")?;
    check_schema(kind, frame, declared)?;
    check_repetitions(kind, frame).map_err(|problem| format!("{kind}: {problem}"))
}

fn check_schema(kind: &str, frame: &Value, declared: Extensions) -> Result<(), String> {
    let may_be = Extensions::ALL.into_iter().filter(|extensions| {
        (declared.resume || !extensions.resume) && (declared.tool_progress || !extensions.tool_progress)
    });
    let mut problem = format!("\"{kind}\" is no type of event");
    for extensions in may_be {
        let Some(validator) = validator(&extensions.name(kind)) else { continue };
        let problems: Vec<String> =
            validator.iter_errors(frame).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if problems.is_empty() {
            return Ok(());
        }
        problem = format!("{} does not allow it: {}", extensions.name(kind), problems.join("; "));
    }
    Err(problem)
}

/// The validator of one schema; made once.
fn validator(name: &str) -> Option<Arc<Validator>> {
    static MADE: Mutex<Option<HashMap<String, Arc<Validator>>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(validator) = made.get(name) {
        return Some(Arc::clone(validator));
    }
    let schema = &schemas().iter().find(|frame| frame.name == name)?.schema;
    let validator = jsonschema::options().should_validate_formats(true).build(schema);
    let validator = Arc::new(validator.expect("a published schema is one"));
    made.insert(name.to_owned(), Arc::clone(&validator));
    Some(validator)
}

/// What stands twice in a frame is the same both times.
fn check_repetitions(kind: &str, frame: &Value) -> Result<(), String> {
    let data = &frame["data"];
    if !matches!(kind, "pong" | "immediate_response") {
        same("the request id", &data["requestId"], &frame["requestId"])?;
    }
    match kind {
        "stream_token" | "stream_reasoning" | "stream_preamble" => same("the token", &data["token"], &frame["token"]),
        "error" => same("the error", &data["error"], &frame["error"]),
        "stream_chunk" => {
            same("the node", &data["node"], &frame["node"])?;
            let raw = data["state"]["rawResponse"].as_object().into_iter().flatten();
            raw.into_iter().try_for_each(|(what, of)| {
                same("the tool's name", &of["name"], &frame["node"])?;
                if what == "toolCall" { object_as_text(&of["arguments"]) } else { Ok(()) }
            })
        }
        "immediate_response" if data.get("threadId").is_some() => {
            same("the thread's id", &data["threadId"], &data["conversationId"])
        }
        _ => Ok(()),
    }
}

fn same(what: &str, inner: &Value, outer: &Value) -> Result<(), String> {
    if inner == outer { Ok(()) } else { Err(format!("{what} is {outer} in one place and {inner} in another")) }
}

fn object_as_text(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let read = serde_json::from_str::<Map<String, Value>>(text);
    read.map(drop).map_err(|error| format!("arguments must be an object as JSON text: {error}: {text}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jackfield::protocol::schema::Direction;
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
                for key in keys.iter().filter(|key| !OPTIONAL.contains(&key.as_str())) {
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

    const RESUME: Extensions = Extensions { resume: true, tool_progress: false };
    const TOOL_PROGRESS: Extensions = Extensions { resume: false, tool_progress: true };

    /// What the extensions add: frames that only a session sees that declared `resume`, and one for `tool_progress`.
    fn extension_samples() -> (Vec<Value>, Value) {
        let numbered = changed(&samples()[10], "", |keys| drop(keys.insert("seq".to_owned(), json!(2))));
        let ack = changed(&samples()[1], "", |keys| drop(keys.insert("seq".to_owned(), json!(1))));
        let ack = changed(&ack, "/data", |keys| drop(keys.insert("turnId".to_owned(), json!("t"))));
        let resuming =
            reply(json!({"sessionId": ID, "turnId": "t", "requestId": "m1", "lastSeq": 2, "state": "running"}));
        let progress = chunk(json!({"toolProgress": {"name": "t", "callId": "c", "fraction": 0.4, "message": "m"}}));
        (vec![numbered, ack, resuming], progress)
    }

    #[test]
    fn extensions_pass_only_when_declared() {
        let (resuming, progress) = extension_samples();
        for frame in resuming {
            assert!(check_frame(&frame).is_err() && check_frame_for(&frame, TOOL_PROGRESS).is_err(), "{frame}");
            assert_eq!(check_frame_for(&frame, RESUME), Ok(()), "{frame}");
        }
        assert!(check_frame(&progress).is_err() && check_frame_for(&progress, RESUME).is_err());
        assert_eq!(check_frame_for(&progress, TOOL_PROGRESS), Ok(()));
        let keepalive = changed(&samples()[16], "", |keys| drop(keys.insert("seq".to_owned(), json!(2))));
        assert!(check_frame_for(&keepalive, RESUME).is_err());
    }

    /// The keys of a frame or of a schema, each with the key it stands under.
    fn keys(value: &Value, parent: &str, found: &mut BTreeSet<(String, String)>) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    found.insert((parent.to_owned(), key.clone()));
                    keys(value, key, found);
                }
            }
            Value::Array(entries) => entries.iter().for_each(|entry| keys(entry, parent, found)),
            _ => {}
        }
    }

    fn keys_of_schema(schema: &Value, parent: &str, found: &mut BTreeSet<(String, String)>) {
        match schema {
            Value::Object(entries) => {
                for (keyword, value) in entries {
                    match (keyword.as_str(), value) {
                        ("properties", Value::Object(properties)) => {
                            for (key, property) in properties {
                                found.insert((parent.to_owned(), key.clone()));
                                keys_of_schema(property, key, found);
                            }
                        }
                        _ => keys_of_schema(value, parent, found),
                    }
                }
            }
            Value::Array(entries) => entries.iter().for_each(|entry| keys_of_schema(entry, parent, found)),
            _ => {}
        }
    }

    /// A key that a type got and the protocol does not have would be refused by published clients, although its schema,
    /// which is made from the type, allows it.
    #[test]
    fn the_schemas_allow_no_key_that_the_protocol_does_not_have() {
        let (mut frames, progress) = extension_samples();
        frames.extend(samples());
        frames.push(progress);
        let (mut known, mut allowed) = (BTreeSet::new(), BTreeSet::new());
        frames.iter().for_each(|frame| keys(frame, "", &mut known));
        let events = schemas().iter().filter(|frame| frame.direction == Direction::Event);
        events.for_each(|frame| keys_of_schema(&frame.schema, "", &mut allowed));
        let unknown: Vec<_> = allowed.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(allowed.len() > 60, "the schemas were looked through: {}", allowed.len());
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
            let wrong =
                changed(&samples()[4], "/data/messages/0", |row| drop(row.insert("createdAt".into(), json!(text))));
            assert!(check_frame(&wrong).is_err(), "{text}");
        }
    }
}
