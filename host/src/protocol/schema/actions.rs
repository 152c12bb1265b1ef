//! The frames of clients. [`Action`](crate::protocol::Action) is read key by key, more kindly than is said here: unknown
//! keys are ignored, and a null stands for an absent key. What these schemas allow is read as it is meant.

use serde_json::{Value, json};

use super::object::Object;
use crate::protocol::action::{CONVERSATIONS_LIMIT_MAX, MESSAGES_LIMIT_MAX, SKILL_PATTERN};

/// Every action, in the order of the protocol.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    let actions = [
        action("ping", "Are you there?", id_may_be_missing()),
        create_session(),
        action("get_session", "Describe a session.", of_session()),
        list_messages(),
        list_conversations(),
        action(
            "rename_conversation",
            "Give a conversation a title.",
            id_may_be_missing().with("conversationId", uuid()).with("title", text()),
        ),
        send_message(),
        action(
            "cancel",
            "Stop a running turn; answered by nothing when none runs.",
            id_may_be_missing().maybe("sessionId", uuid()),
        ),
        action(
            "confirm_tool_action",
            "Allow or forbid the tool call that waits.",
            of_session().with("approved", json!({"type": "boolean"})),
        ),
        submit_interaction(),
        action("verify_otp", "Check a one-time code.", with_id().with("sessionId", uuid()).with("code", any_text())),
        action(
            "resume_turn",
            "Replay and follow the events of a turn.",
            with_id()
                .with("sessionId", uuid())
                .maybe("turnId", text())
                .maybe("afterSeq", json!({"type": "integer", "minimum": 0})),
        ),
    ];
    actions.into()
}

fn create_session() -> (&'static str, Value) {
    let auth_context = Object::default()
        .with("userId", any_text())
        .with("signature", any_text())
        .with("timestamp", json!({"type": ["string", "number"]}));
    let fields = id_may_be_missing()
        .with("agentId", json!({"type": "string", "pattern": "\\S"}))
        .maybe("userName", any_text())
        .maybe("userEmail", any_text())
        .maybe("browserFingerprint", any_text())
        .maybe("metadata", json!({"type": "object"}))
        .maybe("supports", json!({"type": "array", "items": {"type": "string"}}))
        .maybe("conversationId", any_text())
        .maybe("authContext", auth_context.described("The page's word for who the visitor is, signed."));
    action("create_conversation_session", "Open a session on a new or an existing conversation.", fields)
}

fn list_messages() -> (&'static str, Value) {
    let fields = of_session()
        .maybe("limit", json!({"type": "integer", "minimum": 1, "maximum": MESSAGES_LIMIT_MAX}))
        .maybe("cursor", json!({"type": "string", "description": "`nextCursor` of the page before."}))
        .maybe("before", json!({"type": "string", "description": "An instant or a message id; only what is older."}));
    action("get_conversation_messages", "Read a page of the history.", fields)
}

fn list_conversations() -> (&'static str, Value) {
    let fields = id_may_be_missing()
        .maybe("limit", json!({"type": "integer", "minimum": 1, "maximum": CONVERSATIONS_LIMIT_MAX}))
        .maybe("cursor", json!({"type": "string", "description": "`nextCursor` of the page before."}))
        .maybe("query", any_text());
    action("list_conversations", "Read a page of the conversation list.", fields)
}

fn send_message() -> (&'static str, Value) {
    let image = Object::default()
        .with("url", json!({"type": "string", "pattern": "^(data:image/|https?://)"}))
        .maybe("detail", json!({"enum": ["low", "high", "auto"]}));
    let file = Object::default().with("name", not_blank()).with("url", not_blank()).maybe("mimeType", any_text());
    let some = |items: Object| json!({"type": "array", "items": Value::from(items)});
    let fields = with_id()
        .with("sessionId", uuid())
        .with("message", json!({"type": "string", "description": "Blank only when something is attached."}))
        .maybe("stream", json!({"type": "boolean", "default": true}))
        .maybe("model", any_text())
        .maybe("skill", json!({"type": "string", "pattern": SKILL_PATTERN}))
        .maybe("images", some(image))
        .maybe("files", some(file));
    let (name, mut schema) = action("send_message", "Say something; starts a turn.", fields);
    let attached = |key: &str| json!({"required": [key], "properties": {key: {"minItems": 1}}});
    let says_something = json!({"properties": {"message": {"pattern": "\\S"}}});
    schema["anyOf"] = json!([says_something, attached("images"), attached("files")]);
    (name, schema)
}

fn submit_interaction() -> (&'static str, Value) {
    let fields = with_id()
        .with("sessionId", uuid())
        .with("interactionId", text())
        .maybe("kind", text())
        .maybe("values", json!({"type": "object"}))
        .maybe("declined", json!({"const": true}));
    let (name, mut schema) = action("submit_interaction", "Fill in the form that waits, or close it.", fields);
    schema["anyOf"] = json!([{"required": ["values"]}, {"required": ["declined"]}]);
    (name, schema)
}

fn action(name: &'static str, description: &str, fields: Object) -> (&'static str, Value) {
    (name, fields.with("action", json!({"const": name})).described(description))
}

/// An action that is answered without an id when it has none.
fn id_may_be_missing() -> Object {
    Object::default().maybe("requestId", id())
}

/// An action whose answers need an id.
fn with_id() -> Object {
    Object::default().with("requestId", id())
}

fn of_session() -> Object {
    id_may_be_missing().with("sessionId", uuid())
}

fn id() -> Value {
    json!({"type": "string", "description": "Repeated on everything that the frame causes."})
}

fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn not_blank() -> Value {
    json!({"type": "string", "pattern": "\\S"})
}

fn any_text() -> Value {
    json!({"type": "string"})
}
