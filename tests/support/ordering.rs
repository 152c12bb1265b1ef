//! What a client may rely on about the order of frames inside a turn: the acknowledgement first, the wait for a human
//! before the call it is about, exactly one end, and nothing after it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Watches the frames of one connection, as its client sends and reads them.
#[derive(Debug, Default)]
pub struct Ordering {
    turns: BTreeMap<String, Turn>,
    /// Replies that frames other than a turn's own may still get, by request id.
    replies_due: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
struct Turn {
    is_acknowledged: bool,
    is_over: bool,
    has_token: bool,
    has_preamble: bool,
    /// Tool calls without a result, by name.
    open_calls: BTreeMap<String, usize>,
    /// A wait for a human whose tool call has not been shown yet; the name, when the event says it.
    announced: Option<Option<String>>,
}

impl Ordering {
    /// Takes note of a frame that the client sends.
    pub fn sent(&mut self, frame: &Value) {
        let Some(request_id) = frame["requestId"].as_str() else { return };
        let is_turn = frame["action"] == "send_message";
        let is_running = self.turns.get(request_id).is_some_and(|turn| !turn.is_over);
        if is_turn && !is_running {
            self.turns.insert(request_id.to_owned(), Turn::default());
        } else if frame["action"] != "cancel" {
            *self.replies_due.entry(request_id.to_owned()).or_default() += 1;
        }
    }

    /// Checks a frame that the client reads.
    pub fn received(&mut self, frame: &Value) -> Result<(), String> {
        let Some(request_id) = frame["requestId"].as_str() else { return Ok(()) };
        if is_reply(frame) && self.replies_due.get(request_id).is_some_and(|due| *due > 0) {
            *self.replies_due.entry(request_id.to_owned()).or_default() -= 1;
            if let Some(resumed) =
                frame["data"]["requestId"].as_str().filter(|_| frame["data"].get("lastSeq").is_some())
            {
                // What follows may begin anywhere in that turn, and may be its end a second time.
                self.turns.remove(resumed);
                return Ok(());
            }
            return self.turns.get_mut(request_id).map_or(Ok(()), |turn| turn.replied(frame));
        }
        match self.turns.get_mut(request_id) {
            Some(turn) => turn.received(frame),
            // A turn that another connection started: seen by cancelling or resuming it.
            None if is_of_turn(frame) => Ok(()),
            None => Err("nobody asked for this reply".to_owned()),
        }
    }

    /// Whether the turn has ended.
    pub fn is_over(&self, request_id: &str) -> bool {
        self.turns.get(request_id).is_none_or(|turn| turn.is_over)
    }
}

/// Whether a frame may answer a frame other than the one that started the turn. An `AGENT_ERROR` never does.
fn is_reply(frame: &Value) -> bool {
    match frame["type"].as_str() {
        Some("immediate_response") => frame["status"] == 200,
        Some("error") => frame["error"]["code"] != "AGENT_ERROR",
        Some("pong" | "interaction_invalid" | "otp_verified" | "otp_invalid") => true,
        _ => false,
    }
}

fn is_of_turn(frame: &Value) -> bool {
    match frame["type"].as_str() {
        // A resumed turn's acknowledgement is replayed with its number.
        Some("immediate_response") => frame["status"] == 202 && frame.get("seq").is_some(),
        Some("pong" | "interaction_invalid" | "otp_verified" | "otp_invalid") => false,
        _ => true,
    }
}

impl Turn {
    fn received(&mut self, frame: &Value) -> Result<(), String> {
        let kind = frame["type"].as_str().unwrap_or_default();
        if self.is_over {
            return Err("the turn had ended".to_owned());
        }
        match kind {
            "immediate_response" if frame["status"] != 202 => return Err("nobody asked for this reply".to_owned()),
            "immediate_response" if self.is_acknowledged => return Err("the turn was acknowledged before".to_owned()),
            "immediate_response" => self.is_acknowledged = true,
            // A refusal, or a failure: either ends the turn.
            "error" => self.is_over = true,
            _ if !self.is_acknowledged => return Err("the turn was not acknowledged before".to_owned()),
            "cancelled" => self.is_over = true,
            "eventual_response" => self.end()?,
            "stream_preamble" if self.has_token => return Err("a preamble comes before the first token".to_owned()),
            "stream_preamble" if self.has_preamble => return Err("a turn has one preamble".to_owned()),
            "stream_preamble" => self.has_preamble = true,
            "stream_token" => self.has_token = true,
            "write_confirmation_required" => self.park(frame["data"]["data"]["toolId"].as_str())?,
            "interaction_required" => self.park(None)?,
            "stream_chunk" => self.chunk(frame)?,
            _ => {}
        }
        Ok(())
    }

    /// A reply to another frame under the turn's id. A human's answer was asked for, so the call has been shown.
    fn replied(&mut self, frame: &Value) -> Result<(), String> {
        let answers_human = frame["data"].get("approved").is_some() || frame["data"].get("interactionId").is_some();
        if answers_human && self.announced.is_some() {
            return Err("the wait is over before its tool call was shown".to_owned());
        }
        Ok(())
    }

    fn park(&mut self, tool: Option<&str>) -> Result<(), String> {
        if self.announced.is_some() {
            return Err("the tool call of the wait before was not shown yet".to_owned());
        }
        self.announced = Some(tool.map(str::to_owned));
        Ok(())
    }

    fn chunk(&mut self, frame: &Value) -> Result<(), String> {
        let node = frame["node"].as_str().unwrap_or_default();
        let raw = &frame["data"]["state"]["rawResponse"];
        if raw.get("toolCall").is_some() {
            match self.announced.take() {
                Some(Some(expected)) if expected != node => {
                    return Err(format!("the call of {expected} must follow its wait"));
                }
                _ => *self.open_calls.entry(node.to_owned()).or_default() += 1,
            }
            return Ok(());
        }
        let open = self.open_calls.entry(node.to_owned()).or_default();
        if *open == 0 {
            return Err(format!("{node} has no call that is running"));
        }
        if raw.get("toolResult").is_some() {
            *open -= 1;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.is_over = true;
        if let Some((name, _)) = self.open_calls.iter().find(|(_, open)| **open > 0) {
            return Err(format!("the call of {name} has no result"));
        }
        if self.announced.is_some() {
            return Err("the tool call of a wait was never shown".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(frames: &[Value]) -> Ordering {
        let mut ordering = Ordering::default();
        frames.iter().for_each(|frame| ordering.sent(frame));
        ordering
    }

    fn message() -> Value {
        json!({"action": "send_message", "requestId": "m"})
    }

    fn event(kind: &str) -> Value {
        json!({"type": kind, "requestId": "m"})
    }

    fn ack() -> Value {
        json!({"type": "immediate_response", "requestId": "m", "status": 202, "data": {}})
    }

    fn confirmed() -> Value {
        json!({"type": "immediate_response", "requestId": "m", "status": 200, "data": {"approved": true}})
    }

    fn park(tool: &str) -> Value {
        json!({"type": "write_confirmation_required", "requestId": "m", "data": {"data": {"toolId": tool}}})
    }

    fn chunk(tool: &str, what: &str) -> Value {
        json!({"type": "stream_chunk", "requestId": "m", "node": tool, "data": {"state": {"rawResponse": {what: {}}}}})
    }

    fn error(code: &str) -> Value {
        json!({"type": "error", "requestId": "m", "error": {"code": code}})
    }

    /// Reads the frames and gives the first complaint.
    fn read(mut ordering: Ordering, frames: &[Value]) -> Result<(), String> {
        frames.iter().try_for_each(|frame| ordering.received(frame))
    }

    #[test]
    fn a_whole_turn_with_a_confirmation_passes() {
        let ordering = sent(&[message(), json!({"action": "confirm_tool_action", "requestId": "m"})]);
        let frames = [
            ack(),
            event("stream_preamble"),
            event("stream_token"),
            park("t"),
            chunk("t", "toolCall"),
            event("keepalive"),
            confirmed(),
            chunk("t", "toolProgress"),
            chunk("t", "toolResult"),
            event("stream_token"),
            event("eventual_response"),
        ];
        assert_eq!(read(ordering, &frames), Ok(()));
    }

    #[test]
    fn what_breaks_the_order_is_found() {
        let cases: [&[Value]; 13] = [
            &[event("stream_token")],
            &[event("cancelled")],
            &[ack(), ack()],
            &[ack(), event("eventual_response"), event("keepalive")],
            &[ack(), event("cancelled"), event("eventual_response")],
            &[error("LLM_UNAVAILABLE"), ack()],
            &[ack(), event("stream_token"), event("stream_preamble")],
            &[ack(), event("stream_preamble"), event("stream_preamble")],
            &[ack(), chunk("t", "toolResult")],
            &[ack(), chunk("t", "toolCall"), event("eventual_response")],
            &[ack(), park("t"), chunk("u", "toolCall")],
            &[ack(), park("t"), event("eventual_response")],
            &[ack(), confirmed()],
        ];
        for frames in cases {
            assert!(read(sent(&[message()]), frames).is_err(), "{frames:?}");
        }
        let early = sent(&[message(), json!({"action": "confirm_tool_action", "requestId": "m"})]);
        assert!(read(early, &[ack(), park("t"), confirmed()]).is_err());
    }

    #[test]
    fn replies_to_later_frames_may_follow_the_end() {
        let ordering = sent(&[message(), json!({"action": "confirm_tool_action", "requestId": "m"})]);
        let late = error("NO_PENDING_CONFIRMATION");
        assert_eq!(read(ordering, &[ack(), event("cancelled"), late.clone()]), Ok(()));
        assert!(read(sent(&[message()]), &[ack(), event("cancelled"), late]).is_err());
    }

    #[test]
    fn a_second_message_under_a_running_turns_id_is_refused_without_ending_it() {
        let ordering = sent(&[message(), message()]);
        let frames = [ack(), error("TURN_IN_PROGRESS"), event("stream_token"), event("eventual_response")];
        assert_eq!(read(ordering, &frames), Ok(()));
    }

    #[test]
    fn an_unasked_reply_is_found() {
        assert!(read(sent(&[]), &[event("pong")]).is_err());
        assert!(read(sent(&[]), &[confirmed()]).is_err());
        assert_eq!(read(sent(&[]), &[event("cancelled")]), Ok(()), "another connection's turn");
        assert_eq!(read(sent(&[json!({"action": "ping", "requestId": "m"})]), &[event("pong")]), Ok(()));
    }
}
