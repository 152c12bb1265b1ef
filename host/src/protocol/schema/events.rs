//! The frames of the server. What an event carries is described by its type; the envelope around it, which is written by
//! hand in `event`, is described here.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::{Extensions, object::Object};
use crate::{
    ids::{ConversationId, SessionId},
    protocol::{
        event::{
            ErrorEvent, Interaction, InvalidInteraction, OtpDispatch, OtpOffer, OtpRejection, Resuming, SessionReady,
            SessionStatus, StreamChunk, WriteConfirmation,
        },
        objects::{Answer, ConversationRow, MessageRow},
    },
};

/// One kind of event.
struct Kind {
    name: &'static str,
    description: &'static str,
    shape: Shape,
}

/// How its frames are put together.
#[derive(Clone, Copy)]
enum Shape {
    Pong,
    Response,
    Token,
    Chunk,
    Answer,
    Error,
    Cancelled,
    /// An event of a turn; its `data.data` is described by a type.
    OfTurn(Describe),
    /// The same for the answer to a frame that was sent under a turn's id. It is not numbered.
    Answering(Describe),
    Keepalive,
}

type Describe = fn(&mut SchemaGenerator) -> Value;

/// Every kind of event, in the order of the protocol.
const KINDS: &[Kind] = &[
    kind("pong", "Answers `ping`.", Shape::Pong),
    kind("immediate_response", "Answers an action at once.", Shape::Response),
    kind("stream_token", "A piece of the visible answer.", Shape::Token),
    kind("stream_reasoning", "A piece of the model's thinking.", Shape::Token),
    kind("stream_preamble", "One short line while the model thinks.", Shape::Token),
    kind("stream_chunk", "What tools do.", Shape::Chunk),
    kind("eventual_response", "The turn's answer. Ends the turn.", Shape::Answer),
    kind("error", "A refusal or a failure. Ends the turn whose request id it carries.", Shape::Error),
    kind("cancelled", "The turn was stopped. Ends the turn.", Shape::Cancelled),
    kind("write_confirmation_required", "A tool call waits for a human's yes.", Shape::OfTurn(of::<WriteConfirmation>)),
    kind("interaction_required", "A form waits to be filled in.", Shape::OfTurn(of::<Interaction>)),
    kind(
        "interaction_invalid",
        "A form was filled in wrongly and goes on waiting.",
        Shape::Answering(of::<InvalidInteraction>),
    ),
    kind("otp_verification_required", "The user has to prove who they are.", Shape::OfTurn(of::<OtpOffer>)),
    kind("otp_sent", "A one-time code is on its way.", Shape::OfTurn(of::<OtpDispatch>)),
    kind("otp_verified", "The code was right.", Shape::Answering(verified)),
    kind("otp_invalid", "The code was wrong.", Shape::Answering(of::<OtpRejection>)),
    kind("keepalive", "The turn still runs.", Shape::Keepalive),
];

const fn kind(name: &'static str, description: &'static str, shape: Shape) -> Kind {
    Kind { name, description, shape }
}

/// Every event as a session with these extensions sees it.
pub(super) fn all(extensions: Extensions, generator: &mut SchemaGenerator) -> Vec<(&'static str, Value)> {
    KINDS.iter().map(|kind| (kind.name, kind.schema(extensions, generator))).collect()
}

/// The events that each of these extensions changes.
pub(super) fn changed_by(extensions: Extensions, generator: &mut SchemaGenerator) -> Vec<(&'static str, Value)> {
    let kinds = KINDS.iter().filter(|kind| kind.is_changed_by(extensions));
    kinds.map(|kind| (kind.name, kind.schema(extensions, generator))).collect()
}

impl Kind {
    fn is_changed_by(&self, extensions: Extensions) -> bool {
        let is_numbered = !matches!(self.shape, Shape::Pong | Shape::Answering(_) | Shape::Keepalive);
        let has_progress = matches!(self.shape, Shape::Chunk);
        (is_numbered || !extensions.resume) && (has_progress || !extensions.tool_progress)
    }

    fn schema(&self, extensions: Extensions, generator: &mut SchemaGenerator) -> Value {
        let of_turn = || {
            let seq = json!({"type": "integer", "minimum": 1, "description": "The event's number in its turn."});
            self.envelope().with("requestId", id()).with_if(extensions.resume, "seq", seq)
        };
        // An answer to a frame repeats its id, if that had one.
        let reply = || self.envelope().maybe("requestId", id());
        let cases = match self.shape {
            Shape::Pong => vec![reply().with("data", Object::default().with("timestamp", time()))],
            Shape::Response => vec![acknowledgement(of_turn(), extensions), response(reply(), extensions, generator)],
            Shape::Token => {
                let token = json!({"type": "string", "minLength": 1});
                vec![of_turn().with("token", token.clone()).with("data", turn_data().with("token", token))]
            }
            Shape::Chunk => vec![chunk(of_turn(), extensions, generator)],
            Shape::Answer => {
                let data = turn_data().with("status", only(200)).with("data", of::<Answer>(generator));
                vec![of_turn().with("status", only(200)).with("data", data)]
            }
            Shape::Error => {
                let error = of::<ErrorEvent>(generator);
                let case = |envelope: Object, data: Object| {
                    envelope.with("error", error.clone()).with("data", data.with("error", error.clone()))
                };
                let refusal = case(reply(), Object::default().maybe("requestId", id()));
                let failure = extensions.resume.then(|| case(of_turn(), turn_data()));
                failure.into_iter().chain([refusal]).collect()
            }
            Shape::Cancelled => {
                vec![of_turn().with("status", only(499)).with("data", turn_data().with("status", only(499)))]
            }
            Shape::OfTurn(data) => vec![of_turn().with("data", turn_data().with("data", data(generator)))],
            Shape::Answering(data) => {
                let data = turn_data().with("data", data(generator));
                vec![self.envelope().with("requestId", id()).with("data", data)]
            }
            Shape::Keepalive => vec![self.envelope().with("requestId", id()).with("data", turn_data())],
        };
        let cases: Vec<Value> = cases.into_iter().map(|case| case.with("timestamp", time()).into()).collect();
        match <[Value; 1]>::try_from(cases) {
            Ok([mut only]) => {
                only["description"] = json!(self.description);
                only
            }
            Err(cases) => json!({"description": self.description, "oneOf": cases}),
        }
    }

    fn envelope(&self) -> Object {
        Object::default().with("type", json!({"const": self.name}))
    }
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn only(status: u16) -> Value {
    json!({"const": status})
}

fn id() -> Value {
    json!({"type": "string", "description": "Of the frame that caused the event."})
}

fn time() -> Value {
    json!({"type": "integer", "description": "Milliseconds since 1970."})
}

/// `data` of an event of a turn repeats the request id.
fn turn_data() -> Object {
    Object::default().with("requestId", id())
}

fn verified(_: &mut SchemaGenerator) -> Value {
    Object::default().with("message", json!({"type": "string", "description": "For the user."})).into()
}

/// The chunks of the types; progress only where it was asked for.
fn chunk(envelope: Object, extensions: Extensions, generator: &mut SchemaGenerator) -> Object {
    let node = json!({"type": "string", "minLength": 1, "description": "The tool's name."});
    let mut raw = of::<StreamChunk>(generator);
    if let Some(Value::Array(variants)) = raw.get_mut("oneOf") {
        variants.retain(|variant| extensions.tool_progress || variant["properties"].get("toolProgress").is_none());
    }
    let state = Object::default().with("rawResponse", raw);
    envelope.with("node", node.clone()).with("data", turn_data().with("node", node).with("state", state))
}

/// The first event of a turn.
fn acknowledgement(envelope: Object, extensions: Extensions) -> Object {
    let turn_id = json!({"type": "string", "minLength": 1, "description": "Names the turn for `resume_turn`."});
    let data = Object::default().with_if(extensions.resume, "turnId", turn_id);
    envelope.with("status", only(202)).with("message", prose()).with("data", data)
}

/// Every other reply.
fn response(envelope: Object, extensions: Extensions, generator: &mut SchemaGenerator) -> Object {
    let data = json!({"anyOf": replies(extensions, generator)});
    envelope.with("status", only(200)).with("message", prose()).with("data", data)
}

fn prose() -> Value {
    json!({"type": "string", "description": "For a person; programs look at the status."})
}

/// What `ResponseData` writes, case by case.
fn replies(extensions: Extensions, generator: &mut SchemaGenerator) -> Vec<Value> {
    let (session_id, conversation_id) = (of::<SessionId>(generator), of::<ConversationId>(generator));
    let opaque = || json!({"type": "string", "minLength": 1});
    let ready = of::<SessionReady>(generator);
    let session = Object::of(ready.clone())
        .with("threadId", conversation_id.clone())
        .with("status", of::<SessionStatus>(generator));
    let renamed = Object::default().with("conversationId", conversation_id).with("title", opaque());
    let confirmed =
        Object::default().with("sessionId", session_id.clone()).with("approved", json!({"type": "boolean"}));
    let interaction = Object::default().with("sessionId", session_id).with("interactionId", opaque());
    let mut replies = vec![
        ready,
        session.described("A session, described."),
        renamed.described("A conversation has a new title."),
        confirmed.described("A human's yes or no was taken."),
        interaction.clone().with("declined", only_true()).described("A form was closed without an answer."),
        interaction
            .with("kind", opaque())
            .with("values", json!({"type": "object", "description": "As the server understood them."}))
            .described("A form's values were taken."),
    ];
    replies.extend(page("messages", "A page of the history, newest first.", of::<Vec<MessageRow>>(generator)));
    replies.extend(page("conversations", "A page of the conversations.", of::<Vec<ConversationRow>>(generator)));
    replies.extend(extensions.resume.then(|| of::<Resuming>(generator)));
    replies
}

fn only_true() -> Value {
    json!({"const": true})
}

/// A page with another behind it, and the last one.
fn page(key: &'static str, description: &str, rows: Value) -> [Value; 2] {
    let page = |next: Value, has_more: bool| {
        let page = Object::default().with(key, rows.clone()).with("nextCursor", next);
        page.with("hasMore", json!({"const": has_more})).described(description)
    };
    let cursor =
        json!({"type": "string", "minLength": 1, "description": "Names the next page; only the server reads it."});
    [page(cursor, true), page(json!({"type": "null"}), false)]
}
