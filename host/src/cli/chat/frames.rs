//! The frames that `chat` sends, and as much of the server's as it prints. Keys it does not know are ignored.

use serde::{Deserialize, Serialize};

/// The id of the one turn of a chat, and of its session's frame.
const TURN: &str = "turn";
const SESSION: &str = "session";
/// A chat talks to whatever agent the server has.
const AGENT_ID: &str = "00000000-0000-4000-8000-000000000000";

/// What is sent.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(super) enum Outgoing<'a> {
    CreateConversationSession { request_id: &'a str, agent_id: &'a str, user_name: &'a str, supports: &'a [&'a str] },
    SendMessage { request_id: &'a str, session_id: &'a str, message: &'a str },
    ConfirmToolAction { request_id: &'a str, session_id: &'a str, approved: bool },
    Cancel { session_id: &'a str },
}

impl<'a> Outgoing<'a> {
    pub(super) fn session() -> Self {
        let (request_id, agent_id) = (SESSION, AGENT_ID);
        Self::CreateConversationSession {
            request_id,
            agent_id,
            user_name: "jackfield chat",
            supports: &["tool_progress"],
        }
    }

    pub(super) fn message(session_id: &'a str, message: &'a str) -> Self {
        Self::SendMessage { request_id: TURN, session_id, message }
    }

    pub(super) fn confirmation(session_id: &'a str, approved: bool) -> Self {
        Self::ConfirmToolAction { request_id: TURN, session_id, approved }
    }

    pub(super) fn cancel(session_id: &'a str) -> Self {
        Self::Cancel { session_id }
    }
}

/// What comes.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Incoming {
    ImmediateResponse {
        data: Ready,
    },
    StreamToken {
        token: String,
    },
    StreamChunk {
        data: Chunk,
    },
    WriteConfirmationRequired {
        data: Nested<Confirmation>,
    },
    EventualResponse {
        data: Nested<Answer>,
    },
    Error {
        error: ErrorBody,
    },
    Cancelled {},
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct Nested<T> {
    pub(super) data: T,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ready {
    pub(super) session_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    pub(super) state: ChunkState,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChunkState {
    pub(super) raw_response: Option<ToolActivity>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub(super) enum ToolActivity {
    #[serde(rename = "toolCall")]
    Call { name: String, arguments: String },
    #[serde(rename = "toolResult")]
    Result { name: String, is_error: bool, result: String },
    #[serde(rename = "toolProgress")]
    Progress { name: String, fraction: Option<f32>, message: Option<String> },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Confirmation {
    pub(super) tool_id: String,
    pub(super) action_description: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) response: Response,
    #[serde(default)]
    pub(super) citations: Vec<Citation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    pub(super) response_parts: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Citation {
    pub(super) title: String,
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) snippet: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) code: String,
    pub(super) message: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent() {
        for (frame, expected) in [
            (
                Outgoing::message("s", "hi"),
                json!({"action": "send_message", "requestId": "turn", "sessionId": "s", "message": "hi"}),
            ),
            (
                Outgoing::confirmation("s", true),
                json!({"action": "confirm_tool_action", "requestId": "turn", "sessionId": "s", "approved": true}),
            ),
            (Outgoing::cancel("s"), json!({"action": "cancel", "sessionId": "s"})),
        ] {
            assert_eq!(json!(frame), expected);
        }
        let create = json!(Outgoing::session());
        assert_eq!(create["action"], "create_conversation_session");
        assert_eq!(create["agentId"], AGENT_ID);
    }

    #[test]
    fn what_comes() {
        let read = |value: serde_json::Value| serde_json::from_value::<Incoming>(value).unwrap();
        let token = json!({"type": "stream_token", "requestId": "turn", "token": "Hi", "data": {"token": "Hi"}, "timestamp": 1});
        assert!(matches!(read(token), Incoming::StreamToken { token } if token == "Hi"));
        let call = json!({"type": "stream_chunk", "node": "t", "data": {"requestId": "turn", "node": "t",
            "state": {"rawResponse": {"toolResult": {"name": "t", "isError": true, "result": "no"}}}}});
        let Incoming::StreamChunk { data } = read(call) else { panic!("not a chunk") };
        assert!(matches!(data.state.raw_response, Some(ToolActivity::Result { is_error: true, .. })));
        let answer = json!({"type": "eventual_response", "status": 200, "data": {"requestId": "turn", "status": 200,
            "data": {"messageId": "m", "response": {"responseParts": ["a"]}, "needsEscalation": false,
                "citations": [{"id": "1", "title": "t", "snippet": "s", "score": 0.5}]}}});
        let Incoming::EventualResponse { data } = read(answer) else { panic!("not an answer") };
        assert_eq!(data.data.citations[0].title, "t");
        assert!(matches!(read(json!({"type": "keepalive", "data": {}})), Incoming::Other));
        assert!(matches!(read(json!({"type": "cancelled", "status": 499})), Incoming::Cancelled {}));
    }
}
