//! What a client is told: one typed [`Event`] becomes one frame of text. This is the only place that writes frames, and
//! it writes exactly the keys of the protocol, because published clients drop a frame with one key too many.

use std::{borrow::Cow, fmt::Write as _, io, sync::Arc};

use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{
    error_code::ErrorCode,
    objects::{Answer, ConversationCursor, ConversationRow, MessageRow, shorten},
    schema::{object, opaque, text},
};
use crate::ids::{ConversationId, MessageId, ParkId, ParticipantId, RequestId, SessionId, ToolCallId, TurnId};

/// One event on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct EventFrame {
    /// Of the frame that caused it; absent when that had none. Every event of a turn has one.
    pub request_id: Option<RequestId>,
    /// Its number in its turn, from 1. Absent for `keepalive` and for replies to other frames.
    pub seq: Option<u64>,
    /// When it happened, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// What happened.
    pub event: Event,
}

/// Everything a client can be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Answers `ping`.
    Pong,
    /// Answers an action at once.
    ImmediateResponse(ResponseData),
    /// A piece of the visible answer; not empty, whole characters.
    StreamToken(String),
    /// A piece of the model's thinking; not empty, whole characters.
    StreamReasoning(String),
    /// One short line while the model thinks.
    StreamPreamble(String),
    /// What tools do.
    StreamChunk(StreamChunk),
    /// The turn's answer. Ends the turn.
    EventualResponse(Box<Answer>),
    /// A refusal or a failure. Ends the turn whose request id it carries.
    Error(ErrorEvent),
    /// The turn was stopped. Ends the turn.
    Cancelled,
    /// A tool call waits for a human's yes.
    WriteConfirmationRequired(WriteConfirmation),
    /// A form waits to be filled in.
    InteractionRequired(Interaction),
    /// A form was filled in wrongly and goes on waiting.
    InteractionInvalid(InvalidInteraction),
    /// The user has to prove who they are.
    OtpVerificationRequired(OtpOffer),
    /// A one-time code is on its way.
    OtpSent(OtpDispatch),
    /// The code was right.
    OtpVerified {
        /// For the user.
        message: String,
    },
    /// The code was wrong.
    OtpInvalid(OtpRejection),
    /// The turn still runs.
    Keepalive,
    /// The text of a whole frame, a JSON object that an admin published. It is sent exactly as it was given.
    Published(Arc<str>),
}

/// What an `immediate_response` carries; its status and its prose follow from it.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseData {
    /// A turn was accepted. The id is written only to a session that can resume turns.
    TurnStarted {
        /// Names the turn for `resume_turn`.
        turn_id: TurnId,
    },
    /// A session is open.
    SessionReady(SessionReady),
    /// A session, described.
    Session(SessionReady, SessionStatus),
    /// A page of the history, newest first.
    Messages {
        /// The rows.
        messages: Vec<MessageRow>,
        /// The last row's id when older messages exist.
        next_cursor: Option<MessageId>,
    },
    /// A page of the conversation list.
    Conversations {
        /// The rows.
        conversations: Vec<ConversationRow>,
        /// The last row's key when more conversations follow.
        next_cursor: Option<ConversationCursor>,
    },
    /// A conversation has a new title.
    Renamed {
        /// Which one.
        conversation_id: ConversationId,
        /// The title as stored.
        title: String,
    },
    /// A human's yes or no was taken.
    Confirmed {
        /// In which session.
        session_id: SessionId,
        /// What it was.
        approved: bool,
    },
    /// A form was closed without an answer.
    InteractionDeclined {
        /// In which session.
        session_id: SessionId,
        /// Which one.
        interaction_id: ParkId,
    },
    /// A form's values were taken.
    InteractionAccepted {
        /// In which session.
        session_id: SessionId,
        /// Which one.
        interaction_id: ParkId,
        /// Its kind.
        kind: Cow<'static, str>,
        /// The values as the server understood them.
        values: Value,
    },
    /// A turn is being replayed.
    Resuming(Resuming),
}

/// The ids of a session and of those who talk in it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SessionReady {
    /// The session.
    pub session_id: SessionId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// The agent, as the client named it.
    #[schemars(schema_with = "text")]
    pub agent_id: String,
    /// What the agent is called.
    #[schemars(schema_with = "text")]
    pub agent_name: String,
    /// The visitor.
    pub user_participant_id: ParticipantId,
    /// The agent as a participant.
    pub agent_participant_id: ParticipantId,
}

/// Whether a session is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// In use.
    Active,
    /// Open, and unused for some time.
    Idle,
    /// Over.
    Ended,
}

/// The reply to `resume_turn`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Resuming {
    /// The session that asked.
    pub session_id: SessionId,
    /// The turn.
    #[schemars(schema_with = "opaque")]
    pub turn_id: TurnId,
    /// The turn's own request id, which its events carry.
    pub request_id: RequestId,
    /// The highest number given so far.
    pub last_seq: u64,
    /// How the turn stands.
    pub state: ResumeState,
}

/// How a turn stands that is being resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResumeState {
    /// It works.
    Running,
    /// It waits for a human.
    Parked,
    /// It is over; the replay ends with its terminal event.
    Finished,
    /// It is remembered, but its events are gone: nothing follows.
    Unknown,
}

impl ResumeState {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ResumeState::Running => "running",
            ResumeState::Parked => "parked",
            ResumeState::Finished => "finished",
            ResumeState::Unknown => "unknown",
        }
    }
}

/// What a tool does.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StreamChunk {
    /// A tool is called.
    ToolCall {
        /// The tool's name.
        #[schemars(schema_with = "text")]
        name: String,
        /// The argument object as JSON text.
        arguments: String,
    },
    /// A tool has answered.
    #[serde(rename_all = "camelCase")]
    ToolResult {
        /// The tool's name.
        #[schemars(schema_with = "text")]
        name: String,
        /// Whether the call failed.
        is_error: bool,
        /// The beginning of the result, see [`StreamChunk::tool_result`].
        #[schemars(description = "The beginning of the result; when it was cut it ends in `…`.", length(max = RESULT_CHARS))]
        result: String,
    },
    /// A tool reports how far it is. Only for sessions that declared `tool_progress`.
    #[serde(rename_all = "camelCase")]
    ToolProgress {
        /// The tool's name.
        #[schemars(schema_with = "text")]
        name: String,
        /// The model's id of the call.
        #[schemars(schema_with = "text")]
        call_id: ToolCallId,
        /// From 0 to 1, see [`StreamChunk::tool_progress`].
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(description = "How much is done.", range(min = 0, max = 1))]
        fraction: Option<f32>,
        /// For the user.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// Longest result text of a chunk, in characters, the marker included.
const RESULT_CHARS: usize = 500;

impl StreamChunk {
    /// A tool's answer; its text is cut to 500 characters, the last of which is then `…`.
    pub fn tool_result(name: impl Into<String>, is_error: bool, text: &str) -> Self {
        let fits = text.char_indices().nth(RESULT_CHARS).is_none();
        let result = if fits { text.to_owned() } else { shorten(text, RESULT_CHARS - 1) };
        Self::ToolResult { name: name.into(), is_error, result }
    }

    /// A progress report; a fraction that is no number is left out, one outside 0 to 1 is moved to the nearer end.
    pub fn tool_progress(
        name: impl Into<String>,
        call_id: ToolCallId,
        fraction: Option<f32>,
        message: impl Into<String>,
    ) -> Self {
        let fraction = fraction.filter(|fraction| !fraction.is_nan()).map(|fraction| fraction.clamp(0.0, 1.0));
        let message = Some(message.into()).filter(|message| !message.is_empty());
        Self::ToolProgress { name: name.into(), call_id, fraction, message }
    }

    /// The name of the tool, which is the chunk's `node`.
    pub fn node(&self) -> &str {
        match self {
            Self::ToolCall { name, .. } | Self::ToolResult { name, .. } | Self::ToolProgress { name, .. } => name,
        }
    }
}

/// Why something was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorEvent {
    /// For the client's program.
    pub code: ErrorCode,
    /// For a person; holds nothing secret.
    #[schemars(schema_with = "text")]
    pub message: Cow<'static, str>,
}

/// A tool call that waits for a human's yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteConfirmation {
    /// The tool's name.
    #[serde(rename = "toolId")]
    #[schemars(schema_with = "text")]
    pub tool_name: String,
    /// What is about to happen, arguments included, for a human.
    #[schemars(schema_with = "text")]
    pub action_description: String,
}

/// A form that waits to be filled in.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interaction {
    /// A fresh one for each wait.
    #[schemars(schema_with = "opaque")]
    pub interaction_id: ParkId,
    /// Which form.
    #[schemars(schema_with = "text")]
    pub kind: Cow<'static, str>,
    /// The form, as its kind defines it.
    #[schemars(schema_with = "object")]
    pub spec: Value,
    /// Why it is asked, for a human.
    pub reason: String,
}

/// A form that was filled in wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvalidInteraction {
    /// Which one.
    #[schemars(schema_with = "opaque")]
    pub interaction_id: ParkId,
    /// Which form.
    #[schemars(schema_with = "text")]
    pub kind: Cow<'static, str>,
    /// What is wrong; never empty.
    #[schemars(length(min = 1))]
    pub errors: Vec<FieldError>,
    /// For a human.
    pub message: Cow<'static, str>,
}

/// What is wrong with one field of a form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// Which field.
    #[schemars(schema_with = "text")]
    pub field: String,
    /// What is wrong, for a human.
    #[schemars(schema_with = "text")]
    pub message: Cow<'static, str>,
}

/// Tells the user how they can prove who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtpOffer {
    /// The tool that needs it.
    #[serde(rename = "toolId")]
    #[schemars(schema_with = "text")]
    pub tool_name: String,
    /// For a human.
    #[schemars(schema_with = "text")]
    pub action_description: String,
    /// Where a code can be sent; never empty.
    #[schemars(length(min = 1))]
    pub available_channels: Vec<OtpChannel>,
    /// What the tool needs.
    pub auth_level: AuthLevel,
}

/// Where a one-time code is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtpChannel {
    /// An email address.
    Email,
    /// A telephone.
    Sms,
}

/// How well a tool has to know the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthLevel {
    /// Not at all.
    None,
    /// By a verified session.
    EndUser,
    /// As staff.
    Admin,
}

/// Tells the user where the one-time code went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtpDispatch {
    /// Which way.
    pub channel: OtpChannel,
    /// The address, mostly hidden.
    #[schemars(schema_with = "text")]
    pub masked_destination: String,
}

/// Why a one-time code was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtpRejection {
    /// For the client's program.
    pub error: OtpError,
    /// How many tries are left.
    pub attempts_remaining: u32,
    /// For the user.
    pub message: Cow<'static, str>,
}

/// Why a one-time code was refused, for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OtpError {
    /// Another code was sent.
    InvalidCode,
    /// Too many tries.
    MaxAttempts,
    /// No code was sent.
    NotFound,
    /// The code is too old.
    Expired,
}

impl EventFrame {
    /// An event without a number.
    pub fn new(request_id: Option<RequestId>, timestamp_ms: i64, event: Event) -> Self {
        Self { request_id, seq: None, timestamp_ms, event }
    }

    /// Appends the frame's text. `with_seq` says that the session declared `resume`: it then gets the event's number
    /// and, in the acknowledgement of a turn, the turn's id.
    pub fn write_json(&self, out: &mut String, with_seq: bool) {
        match (self.event.token(), &self.event) {
            (Some(token), _) => self.write_token(out, with_seq, token),
            (None, Event::Published(text)) => out.push_str(text),
            (None, _) => {
                let frame = Numbered { frame: self, with_seq };
                out.push_str(&serde_json::to_string(&frame).expect("events hold only what JSON can hold"));
            }
        }
    }

    /// The frame's text in a buffer of its own.
    pub fn to_json(&self, with_seq: bool) -> String {
        let mut text = String::with_capacity(self.event.token().map_or(0, |token| self.token_len(token)));
        self.write_json(&mut text, with_seq);
        text
    }

    /// How many bytes the frame's text has, about: a token's may grow by what has to be escaped.
    pub fn wire_len(&self) -> usize {
        match (self.event.token(), &self.event) {
            (Some(token), _) => self.token_len(token),
            (None, Event::Published(text)) => text.len(),
            (None, _) => {
                let mut counter = ByteCounter(0);
                let frame = Numbered { frame: self, with_seq: true };
                serde_json::to_writer(&mut counter, &frame).expect("events hold only what JSON can hold");
                counter.0
            }
        }
    }

    /// The token path by hand: most frames are tokens, and each is written once for every subscriber. The escaped
    /// request id and the escaped token stand twice in the frame, so they are made once and copied.
    fn write_token(&self, out: &mut String, with_seq: bool, token: &str) {
        out.reserve(self.token_len(token));
        out.push_str("{\"type\":\"");
        out.push_str(self.event.type_name());
        out.push('"');
        let id = out.len();
        if let Some(request_id) = &self.request_id {
            out.push_str(",\"requestId\":");
            push_quoted(out, request_id.as_str());
        }
        let id_end = out.len();
        if let Some(seq) = self.seq.filter(|_| with_seq) {
            out.push_str(",\"seq\":");
            push_number(out, seq);
        }
        out.push(',');
        let text = out.len();
        out.push_str("\"token\":");
        push_quoted(out, token);
        let text_end = out.len();
        out.push_str(",\"data\":{");
        if id < id_end {
            out.extend_from_within(id + 1..id_end);
            out.push(',');
        }
        out.extend_from_within(text..text_end);
        out.push_str("},\"timestamp\":");
        push_number(out, self.timestamp_ms);
        out.push('}');
    }

    fn token_len(&self, token: &str) -> usize {
        /// Keys, quotes, a time and a number of 20 digits.
        const FIXED: usize = 144;
        FIXED + 2 * (token.len() + self.request_id.as_ref().map_or(0, |id| id.as_str().len()))
    }
}

impl Event {
    /// The `type` on the wire; a published event's own `type` is inside its text.
    pub fn type_name(&self) -> &'static str {
        match self {
            Event::Pong => "pong",
            Event::ImmediateResponse(_) => "immediate_response",
            Event::StreamToken(_) => "stream_token",
            Event::StreamReasoning(_) => "stream_reasoning",
            Event::StreamPreamble(_) => "stream_preamble",
            Event::StreamChunk(_) => "stream_chunk",
            Event::EventualResponse(_) => "eventual_response",
            Event::Error(_) => "error",
            Event::Cancelled => "cancelled",
            Event::WriteConfirmationRequired(_) => "write_confirmation_required",
            Event::InteractionRequired(_) => "interaction_required",
            Event::InteractionInvalid(_) => "interaction_invalid",
            Event::OtpVerificationRequired(_) => "otp_verification_required",
            Event::OtpSent(_) => "otp_sent",
            Event::OtpVerified { .. } => "otp_verified",
            Event::OtpInvalid(_) => "otp_invalid",
            Event::Keepalive => "keepalive",
            Event::Published(_) => "published",
        }
    }

    /// Whether it ends the turn whose request id it carries.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Event::EventualResponse(_) | Event::Error(_) | Event::Cancelled)
    }

    /// Whether only sessions that declared `tool_progress` may see it.
    pub fn is_tool_progress(&self) -> bool {
        matches!(self, Event::StreamChunk(StreamChunk::ToolProgress { .. }))
    }

    /// An `error` event.
    pub fn error(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Event::Error(ErrorEvent { code, message: message.into() })
    }

    /// The text of the three events whose layout is that of a token.
    fn token(&self) -> Option<&str> {
        match self {
            Event::StreamToken(token) | Event::StreamReasoning(token) | Event::StreamPreamble(token) => Some(token),
            _ => None,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Event::ImmediateResponse(data) => Some(data.status()),
            Event::EventualResponse(_) => Some(DONE),
            Event::Cancelled => Some(CLIENT_CANCELLED),
            _ => None,
        }
    }
}

const DONE: u16 = 200;
const ACCEPTED: u16 = 202;
const CLIENT_CANCELLED: u16 = 499;

impl ResponseData {
    fn status(&self) -> u16 {
        if matches!(self, ResponseData::TurnStarted { .. }) { ACCEPTED } else { DONE }
    }

    fn message(&self) -> &'static str {
        match self {
            ResponseData::TurnStarted { .. } => "working on it",
            ResponseData::SessionReady(_) => "session ready",
            ResponseData::Session(..) => "session found",
            ResponseData::Messages { .. } => "messages listed",
            ResponseData::Conversations { .. } => "conversations listed",
            ResponseData::Renamed { .. } => "conversation renamed",
            ResponseData::Confirmed { approved: true, .. } => "tool call approved",
            ResponseData::Confirmed { approved: false, .. } => "tool call rejected",
            ResponseData::InteractionDeclined { .. } => "interaction declined",
            ResponseData::InteractionAccepted { .. } => "interaction accepted",
            ResponseData::Resuming(_) => "resuming",
        }
    }
}

/// A frame as one session gets it.
struct Numbered<'a> {
    frame: &'a EventFrame,
    with_seq: bool,
}

/// `data` of an event that repeats the request id beside one more key.
struct Repeated<'a, T> {
    request_id: Option<&'a RequestId>,
    status: Option<u16>,
    key: &'static str,
    value: &'a T,
}

impl Serialize for Numbered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let EventFrame { request_id, seq, timestamp_ms, event } = self.frame;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", event.type_name())?;
        if let Some(request_id) = request_id {
            map.serialize_entry("requestId", request_id)?;
        }
        if let Some(status) = event.status() {
            map.serialize_entry("status", &status)?;
        }
        if let Event::ImmediateResponse(data) = event {
            map.serialize_entry("message", data.message())?;
        }
        if let Some(seq) = seq.filter(|_| self.with_seq) {
            map.serialize_entry("seq", &seq)?;
        }
        self.serialize_body(&mut map)?;
        map.serialize_entry("timestamp", timestamp_ms)?;
        map.end()
    }
}

impl Numbered<'_> {
    /// The keys between the envelope and the time.
    fn serialize_body<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        #[derive(Serialize)]
        struct Pong {
            timestamp: i64,
        }

        match &self.frame.event {
            Event::Pong => map.serialize_entry("data", &Pong { timestamp: self.frame.timestamp_ms }),
            Event::ImmediateResponse(data) => map.serialize_entry("data", &Response { data, with_id: self.with_seq }),
            Event::StreamToken(token) | Event::StreamReasoning(token) | Event::StreamPreamble(token) => {
                map.serialize_entry("token", token)?;
                self.serialize_data(map, "token", token)
            }
            Event::StreamChunk(chunk) => {
                map.serialize_entry("node", chunk.node())?;
                map.serialize_entry("data", &ChunkData { request_id: self.frame.request_id.as_ref(), chunk })
            }
            Event::EventualResponse(answer) => self.serialize_data(map, "data", answer),
            Event::Error(error) => {
                map.serialize_entry("error", error)?;
                self.serialize_data(map, "error", error)
            }
            Event::Cancelled => self.serialize_data(map, "status", &CLIENT_CANCELLED),
            Event::WriteConfirmationRequired(data) => self.serialize_data(map, "data", data),
            Event::InteractionRequired(data) => self.serialize_data(map, "data", data),
            Event::InteractionInvalid(data) => self.serialize_data(map, "data", data),
            Event::OtpVerificationRequired(data) => self.serialize_data(map, "data", data),
            Event::OtpSent(data) => self.serialize_data(map, "data", data),
            Event::OtpVerified { message } => self.serialize_data(map, "data", &Message { message }),
            Event::OtpInvalid(data) => self.serialize_data(map, "data", data),
            Event::Keepalive => map.serialize_entry("data", &Keepalive { request_id: self.frame.request_id.as_ref() }),
            Event::Published(_) => unreachable!("a published event is a frame of its own and has no other body"),
        }
    }

    fn serialize_data<M: SerializeMap, T: Serialize>(
        &self,
        map: &mut M,
        key: &'static str,
        value: &T,
    ) -> Result<(), M::Error> {
        let EventFrame { request_id, event, .. } = self.frame;
        let status = matches!(event, Event::EventualResponse(_)).then_some(DONE);
        map.serialize_entry("data", &Repeated { request_id: request_id.as_ref(), status, key, value })
    }
}

impl<T: Serialize> Serialize for Repeated<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(request_id) = self.request_id {
            map.serialize_entry("requestId", request_id)?;
        }
        if let Some(status) = self.status {
            map.serialize_entry("status", &status)?;
        }
        map.serialize_entry(self.key, self.value)?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Keepalive<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RequestId>,
}

#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

struct ChunkData<'a> {
    request_id: Option<&'a RequestId>,
    chunk: &'a StreamChunk,
}

impl Serialize for ChunkData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct State<'a> {
            raw_response: &'a StreamChunk,
        }

        let mut map = serializer.serialize_map(None)?;
        if let Some(request_id) = self.request_id {
            map.serialize_entry("requestId", request_id)?;
        }
        map.serialize_entry("node", self.chunk.node())?;
        map.serialize_entry("state", &State { raw_response: self.chunk })?;
        map.end()
    }
}

/// `data` of an `immediate_response`.
struct Response<'a> {
    data: &'a ResponseData,
    with_id: bool,
}

impl Serialize for Response<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.data {
            ResponseData::TurnStarted { turn_id } if self.with_id => map.serialize_entry("turnId", turn_id)?,
            ResponseData::TurnStarted { .. } => {}
            ResponseData::SessionReady(session) => session.serialize_keys(&mut map)?,
            ResponseData::Session(session, status) => {
                session.serialize_keys(&mut map)?;
                map.serialize_entry("threadId", &session.conversation_id)?;
                map.serialize_entry("status", status)?;
            }
            ResponseData::Messages { messages, next_cursor } => {
                map.serialize_entry("messages", messages)?;
                map.serialize_entry("nextCursor", next_cursor)?;
                map.serialize_entry("hasMore", &next_cursor.is_some())?;
            }
            ResponseData::Conversations { conversations, next_cursor } => {
                map.serialize_entry("conversations", conversations)?;
                map.serialize_entry("nextCursor", &next_cursor.map(|cursor| cursor.to_string()))?;
                map.serialize_entry("hasMore", &next_cursor.is_some())?;
            }
            ResponseData::Renamed { conversation_id, title } => {
                map.serialize_entry("conversationId", conversation_id)?;
                map.serialize_entry("title", title)?;
            }
            ResponseData::Confirmed { session_id, approved } => {
                map.serialize_entry("sessionId", session_id)?;
                map.serialize_entry("approved", approved)?;
            }
            ResponseData::InteractionDeclined { session_id, interaction_id } => {
                map.serialize_entry("sessionId", session_id)?;
                map.serialize_entry("interactionId", interaction_id)?;
                map.serialize_entry("declined", &true)?;
            }
            ResponseData::InteractionAccepted { session_id, interaction_id, kind, values } => {
                map.serialize_entry("sessionId", session_id)?;
                map.serialize_entry("interactionId", interaction_id)?;
                map.serialize_entry("kind", kind)?;
                map.serialize_entry("values", values)?;
            }
            ResponseData::Resuming(resuming) => {
                let Resuming { session_id, turn_id, request_id, last_seq, state } = resuming;
                map.serialize_entry("sessionId", session_id)?;
                map.serialize_entry("turnId", turn_id)?;
                map.serialize_entry("requestId", request_id)?;
                map.serialize_entry("lastSeq", last_seq)?;
                map.serialize_entry("state", state)?;
            }
        }
        map.end()
    }
}

impl SessionReady {
    fn serialize_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("sessionId", &self.session_id)?;
        map.serialize_entry("conversationId", &self.conversation_id)?;
        map.serialize_entry("agentId", &self.agent_id)?;
        map.serialize_entry("agentName", &self.agent_name)?;
        map.serialize_entry("userParticipantId", &self.user_participant_id)?;
        map.serialize_entry("agentParticipantId", &self.agent_participant_id)
    }
}

/// Counts what is written to it.
struct ByteCounter(usize);

impl io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn push_number(out: &mut String, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("a string takes all that is written to it");
}

/// A JSON string with its quotes.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => write!(out, "\\u{control:04x}").expect("a string takes all that is written to it"),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests;
