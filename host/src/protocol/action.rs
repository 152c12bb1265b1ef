//! What a client can ask: one frame of text becomes one typed [`Action`]. Here everything is checked that can be
//! checked without knowing sessions or turns; behind [`Action::parse`] nobody looks at JSON again. Unknown keys are
//! ignored, and a null stands for an absent optional field.

use jackfield_plugin_api::{FileAttachment, ImageAttachment};
use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::{Map, Value};

use super::{
    error_code::ErrorCode,
    event::{ErrorEvent, Event, EventFrame},
    objects::{ConversationCursor, clean_title, shorten},
};
use crate::ids::{ConversationId, MessageId, RequestId, SessionId, TurnId};

/// One frame of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Echoed on everything the frame causes. Absent when the client sent none, or something that is not a string.
    pub request_id: Option<RequestId>,
    /// What is asked.
    pub action: Action,
}

/// Everything a client can ask.
///
/// A session, conversation or turn id that is no UUID names nothing, and is kept as `None`: it is answered like an id
/// that is unknown.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Are you there?
    Ping,
    /// Open a session on a new or an existing conversation.
    CreateSession(CreateSession),
    /// Describe a session.
    GetSession(GetSession),
    /// Read a page of the history.
    ListMessages(ListMessages),
    /// Read a page of the conversation list.
    ListConversations(ListConversations),
    /// Give a conversation a title.
    RenameConversation(RenameConversation),
    /// Say something; starts a turn. Its fields are checked by [`UncheckedMessage::validate`], because whether the
    /// connection is busy is asked before.
    SendMessage(UncheckedMessage),
    /// Stop a running turn.
    Cancel(Cancel),
    /// Allow or forbid the tool call that waits.
    ConfirmTool(ConfirmTool),
    /// Fill in the form that waits.
    SubmitInteraction(SubmitInteraction),
    /// Check a one-time code.
    VerifyOtp(VerifyOtp),
    /// Replay and follow the events of a turn.
    ResumeTurn(ResumeTurn),
}

/// `create_conversation_session`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSession {
    /// The agent to talk to; trimmed, not empty.
    pub agent_id: String,
    /// What to call the visitor; not blank.
    pub user_name: Option<String>,
    /// The visitor's address, as the client says; trimmed, not empty.
    pub user_email: Option<String>,
    /// Identifies the visitor's browser.
    pub browser_fingerprint: Option<String>,
    /// Kept with the conversation.
    pub metadata: Map<String, Value>,
    /// What the client can render; absent is not the same as empty.
    pub supports: Option<Vec<String>>,
    /// The conversation to go on with. `None` also when the text names nothing: then a fresh one is made.
    pub conversation_id: Option<ConversationId>,
    /// The page's word for who the visitor is.
    pub auth_context: Option<AuthContext>,
}

impl CreateSession {
    /// The telephone number that the widget puts into the metadata.
    pub fn user_phone(&self) -> Option<&str> {
        self.metadata.get("userPhone").and_then(Value::as_str).map(str::trim).filter(|phone| !phone.is_empty())
    }
}

/// A visitor's identity, signed by the page that embeds the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthContext {
    /// Who the visitor is.
    pub user_id: String,
    /// HMAC-SHA256 in hex.
    pub signature: String,
    /// When it was signed, in seconds since 1970, exactly as sent: the signature covers the text.
    pub timestamp: String,
}

/// `get_session`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetSession {
    /// Which one.
    pub session_id: Option<SessionId>,
}

/// `get_conversation_messages`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListMessages {
    /// Whose conversation.
    pub session_id: Option<SessionId>,
    /// Page size, 1 to 100.
    pub limit: usize,
    /// Where the page begins.
    pub before: PageStart,
}

/// Where a page of the history begins; it goes from there to older messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart {
    /// At the newest message.
    Newest,
    /// Strictly before this message.
    Message(MessageId),
    /// Strictly before this instant.
    Instant(Timestamp),
}

/// `list_conversations`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListConversations {
    /// Page size, 1 to 200.
    pub limit: usize,
    /// The last row of the previous page.
    pub cursor: Option<ConversationCursor>,
    /// Only rows that contain this; trimmed, lower case, not empty.
    pub query: Option<String>,
}

/// `rename_conversation`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenameConversation {
    /// Which one.
    pub conversation_id: Option<ConversationId>,
    /// The new title, cleaned; not empty.
    pub title: String,
}

/// `cancel`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Used when no turn runs on this connection.
    pub session_id: Option<SessionId>,
}

/// `confirm_tool_action`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmTool {
    /// In which session a call waits.
    pub session_id: Option<SessionId>,
    /// Yes or no.
    pub approved: bool,
}

/// `submit_interaction`
#[derive(Clone, Debug, PartialEq)]
pub struct SubmitInteraction {
    /// In which session an interaction waits.
    pub session_id: Option<SessionId>,
    /// Must be that of the waiting interaction; an absent one is never that.
    pub interaction_id: Option<String>,
    /// When present, must be that of the waiting interaction.
    pub kind: Option<String>,
    /// What the user did.
    pub submission: Submission,
}

/// What the user did with a form.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// Closed it.
    Declined,
    /// Filled it in; checked by the interaction's kind, whatever JSON it is.
    Values(Value),
    /// The frame says neither, which is an error once it is known that an interaction waits.
    Missing,
}

/// `verify_otp`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOtp {
    /// Which session is to be verified.
    pub session_id: Option<SessionId>,
    /// What the user typed.
    pub code: String,
}

/// `resume_turn`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeTurn {
    /// A session of the turn's conversation.
    pub session_id: Option<SessionId>,
    /// Which turn.
    pub turn: TurnChoice,
    /// The last number the client has seen; 0 for none.
    pub after_seq: u64,
}

/// Which turn of a conversation is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnChoice {
    /// The running one, otherwise the last one.
    Latest,
    /// This one; `None` when the text names nothing.
    Named(Option<TurnId>),
}

/// `send_message` before its fields are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct UncheckedMessage(Fields);

/// `send_message`
#[derive(Clone, Debug, PartialEq)]
pub struct SendMessage {
    /// Every event of the turn carries it.
    pub request_id: RequestId,
    /// Who speaks.
    pub session_id: Option<SessionId>,
    /// What is said; blank only when something is attached.
    pub message: String,
    /// Whether tokens are wanted as they come. Default: yes.
    pub stream: bool,
    /// Model for this turn only; not blank.
    pub model: Option<String>,
    /// A named skill, `[A-Za-z0-9_-]{1,128}`.
    pub skill: Option<String>,
    /// Pictures for the model.
    pub images: Vec<ImageAttachment>,
    /// Files for tools.
    pub files: Vec<FileAttachment>,
}

/// Why a frame is refused before anything is looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ActionError {
    /// For the client's program.
    pub code: ErrorCode,
    /// For the person who writes it.
    pub message: String,
    /// Of the refused frame.
    pub request_id: Option<RequestId>,
}

impl ActionError {
    /// The `error` frame that answers it.
    pub fn into_event(self, timestamp_ms: i64) -> EventFrame {
        let event = Event::Error(ErrorEvent { code: self.code, message: self.message.into() });
        EventFrame { request_id: self.request_id, seq: None, timestamp_ms, event }
    }
}

impl Action {
    /// Reads one text frame. The checks come in the protocol's order: JSON, `action`, then the action's own fields.
    pub fn parse(text: &str) -> Result<Frame, ActionError> {
        let fields = Fields::read(text)?;
        let action = match fields.action_name()? {
            "ping" => Action::Ping,
            "create_conversation_session" => Action::CreateSession(CreateSession::read(&fields)?),
            "get_session" => Action::GetSession(GetSession { session_id: fields.session_id()? }),
            "get_conversation_messages" => Action::ListMessages(ListMessages::read(&fields)?),
            "list_conversations" => Action::ListConversations(ListConversations::read(&fields)?),
            "rename_conversation" => Action::RenameConversation(RenameConversation::read(&fields)?),
            "send_message" => {
                return Ok(Frame {
                    request_id: fields.request_id.clone(),
                    action: Action::SendMessage(UncheckedMessage(fields)),
                });
            }
            "cancel" => Action::Cancel(Cancel { session_id: fields.optional_id("sessionId", SessionId::parse)? }),
            "confirm_tool_action" => Action::ConfirmTool(ConfirmTool {
                session_id: fields.session_id()?,
                approved: fields.required("approved", BOOLEAN, Value::as_bool)?,
            }),
            "submit_interaction" => Action::SubmitInteraction(SubmitInteraction::read(&fields)?),
            "verify_otp" => {
                fields.required_request_id()?;
                let session_id = fields.session_id()?;
                Action::VerifyOtp(VerifyOtp { session_id, code: fields.required_text("code")?.to_owned() })
            }
            "resume_turn" => Action::ResumeTurn(ResumeTurn::read(&fields)?),
            unknown => return Err(fields.unsupported(unknown)),
        };
        Ok(Frame { request_id: fields.request_id, action })
    }
}

impl CreateSession {
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        let agent_id = fields.required_text("agentId")?.trim();
        if agent_id.is_empty() {
            return Err(fields.invalid("field \"agentId\" must name an agent, it is blank"));
        }
        Ok(Self {
            agent_id: agent_id.to_owned(),
            user_name: fields.not_blank("userName")?,
            user_email: fields.not_blank("userEmail")?,
            browser_fingerprint: fields.not_blank("browserFingerprint")?,
            metadata: fields.optional("metadata", OBJECT, Value::as_object)?.cloned().unwrap_or_default(),
            supports: fields.optional("supports", ARRAY, Value::as_array)?.map(|flags| strings(flags)),
            conversation_id: fields.optional_id("conversationId", ConversationId::parse)?,
            auth_context: AuthContext::read(fields)?,
        })
    }
}

impl AuthContext {
    fn read(fields: &Fields) -> Result<Option<Self>, ActionError> {
        let Some(object) = fields.optional("authContext", OBJECT, Value::as_object)? else { return Ok(None) };
        let text = |key: &str| match object.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if key == "timestamp" => Some(number.to_string()),
            _ => None,
        };
        match (text("userId"), text("signature"), text("timestamp")) {
            (Some(user_id), Some(signature), Some(timestamp)) => Ok(Some(Self { user_id, signature, timestamp })),
            _ => Err(fields.invalid("field \"authContext\" must hold userId, signature and timestamp")),
        }
    }
}

/// Page size when a frame names none.
const DEFAULT_LIMIT: usize = 50;
/// Largest page of a history.
pub(super) const MESSAGES_LIMIT_MAX: usize = 100;
/// Largest page of the conversation list.
pub(super) const CONVERSATIONS_LIMIT_MAX: usize = 200;

/// The name of a skill.
pub(super) const SKILL_PATTERN: &str = "^[A-Za-z0-9_-]{1,128}$";

impl ListMessages {
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        let session_id = fields.session_id()?;
        let limit = fields.optional("limit", "an integer", integer)?;
        Ok(Self { session_id, limit: page_size(limit, MESSAGES_LIMIT_MAX), before: PageStart::read(fields)? })
    }
}

impl PageStart {
    /// `cursor` wins over `before`, which older clients send.
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        if let Some(cursor) = fields.not_blank("cursor")? {
            return MessageId::parse(&cursor).map(Self::Message).ok_or_else(|| {
                fields.invalid("field \"cursor\" must be the nextCursor of the previous page of this conversation")
            });
        }
        let Some(before) = fields.not_blank("before")? else { return Ok(Self::Newest) };
        let message = MessageId::parse(&before).map(Self::Message);
        message.or_else(|| instant(&before).map(Self::Instant)).ok_or_else(|| {
            fields.invalid("field \"before\" must be an RFC 3339 instant (2026-01-05T10:00:01Z) or a message id")
        })
    }
}

impl ListConversations {
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        let cursor = fields.not_blank("cursor")?.map(|cursor| cursor.parse()).transpose();
        Ok(Self {
            limit: page_size(fields.get("limit").and_then(integer), CONVERSATIONS_LIMIT_MAX),
            cursor: cursor.map_err(|error| fields.invalid(format!("field \"cursor\" is {error}")))?,
            query: fields.not_blank("query")?.map(|query| query.to_lowercase()),
        })
    }
}

impl RenameConversation {
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        let conversation_id = ConversationId::parse(fields.required_text("conversationId")?);
        let title = clean_title(fields.required_text("title")?);
        if title.is_empty() {
            return Err(fields.invalid("field \"title\" must hold more than blanks and quotes"));
        }
        Ok(Self { conversation_id, title })
    }
}

impl SubmitInteraction {
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        fields.required_request_id()?;
        let submission = match (fields.get("declined"), fields.fields.get("values")) {
            (Some(Value::Bool(true)), _) => Submission::Declined,
            // An explicit null is an answer that the interaction's kind refuses field by field, not a missing one.
            (_, Some(values)) => Submission::Values(values.clone()),
            (_, None) => Submission::Missing,
        };
        Ok(Self {
            session_id: fields.session_id()?,
            interaction_id: fields.optional_text("interactionId")?.map(str::to_owned),
            kind: fields.optional_text("kind")?.map(str::to_owned),
            submission,
        })
    }
}

impl ResumeTurn {
    fn read(fields: &Fields) -> Result<Self, ActionError> {
        fields.required_request_id()?;
        Ok(Self {
            session_id: fields.session_id()?,
            turn: match fields.optional_text("turnId")? {
                None => TurnChoice::Latest,
                Some(id) => TurnChoice::Named(TurnId::parse(id)),
            },
            after_seq: fields.optional("afterSeq", "an integer of at least 0", Value::as_u64)?.unwrap_or(0),
        })
    }
}

impl UncheckedMessage {
    /// Checks the fields in the protocol's order: `requestId`, `sessionId`, the message and what is attached, `skill`.
    /// `message_chars` is the longest message in characters.
    pub fn validate(&self, message_chars: usize) -> Result<SendMessage, ActionError> {
        let fields = &self.0;
        let request_id = fields.required_request_id()?;
        let session_id = fields.session_id()?;
        let message = fields.optional_text("message")?.unwrap_or_default();
        let images = fields.list("images", "url (data:image/… or https) and detail (low, high or auto)", image)?;
        let files = fields.list("files", "name, url and mimeType as text", file)?;
        if message.trim().is_empty() && images.is_empty() && files.is_empty() {
            return Err(fields.invalid("field \"message\" must not be blank when nothing is attached"));
        }
        let chars = message.chars().count();
        if chars > message_chars {
            let text = format!("field \"message\" must have at most {message_chars} characters, it has {chars}");
            return Err(fields.invalid(text));
        }
        Ok(SendMessage {
            request_id,
            session_id,
            message: message.to_owned(),
            stream: fields.optional("stream", BOOLEAN, Value::as_bool)?.unwrap_or(true),
            model: fields.not_blank("model")?,
            skill: fields.skill()?,
            images,
            files,
        })
    }
}

fn image(entry: &Map<String, Value>) -> Option<ImageAttachment> {
    let url = entry.get("url")?.as_str()?;
    let is_known = ["data:image/", "https://", "http://"].iter().any(|start| url.starts_with(start));
    let detail = match entry.get("detail") {
        None | Some(Value::Null) => None,
        Some(Value::String(detail)) if matches!(&**detail, "low" | "high" | "auto") => Some(detail.clone()),
        Some(_) => return None,
    };
    is_known.then(|| ImageAttachment { url: url.to_owned(), detail })
}

fn file(entry: &Map<String, Value>) -> Option<FileAttachment> {
    let mime_type = match entry.get("mimeType") {
        None | Some(Value::Null) => None,
        Some(mime_type) => Some(mime_type.as_str()?.to_owned()),
    };
    let text = |key: &str| entry.get(key)?.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
    Some(FileAttachment { name: text("name")?, mime_type, url: text("url")? })
}

fn strings(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// A whole number; `10.0` is one too, because some languages have no other.
fn integer(value: &Value) -> Option<i64> {
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

fn page_size(limit: Option<i64>, max: usize) -> usize {
    match limit {
        Some(limit) if limit > 0 => usize::try_from(limit).unwrap_or(max).min(max),
        _ => DEFAULT_LIMIT,
    }
}

/// An RFC 3339 instant; without an offset it is taken as UTC, because Python's `isoformat` of a naive time has none.
fn instant(text: &str) -> Option<Timestamp> {
    let naive = || text.parse::<civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(naive)
}

const BOOLEAN: &str = "a boolean";
const OBJECT: &str = "an object";
const ARRAY: &str = "an array";
const STRING: &str = "a string";

/// The keys of one frame, and the id that its refusals echo.
#[derive(Clone, Debug, PartialEq)]
struct Fields {
    request_id: Option<RequestId>,
    fields: Map<String, Value>,
}

impl Fields {
    fn read(text: &str) -> Result<Self, ActionError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => {
                let request_id = fields.get("requestId").and_then(Value::as_str).map(RequestId::new);
                Ok(Self { request_id, fields })
            }
            Ok(_) => Ok(Self { request_id: None, fields: Map::new() }),
            Err(error) => Err(ActionError {
                code: ErrorCode::ValidationError,
                message: format!("the frame is not JSON: {error}"),
                request_id: None,
            }),
        }
    }

    fn action_name(&self) -> Result<&str, ActionError> {
        self.required_text("action")
    }

    /// The value of a key, with null as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ActionError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.invalid(format!("field \"{key}\" must be {expected}, it is {}", describe(value)));
        read(value).map(Some).ok_or_else(wrong)
    }

    fn required<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, ActionError> {
        let missing = || self.invalid(format!("field \"{key}\" is missing; it must be {expected}"));
        self.optional(key, expected, read)?.ok_or_else(missing)
    }

    fn required_text(&self, key: &str) -> Result<&str, ActionError> {
        self.required(key, STRING, Value::as_str)
    }

    fn optional_text(&self, key: &str) -> Result<Option<&str>, ActionError> {
        self.optional(key, STRING, Value::as_str)
    }

    /// A trimmed text; a blank one counts as absent.
    fn not_blank(&self, key: &str) -> Result<Option<String>, ActionError> {
        let text = self.optional_text(key)?.map(str::trim);
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    fn session_id(&self) -> Result<Option<SessionId>, ActionError> {
        self.required_text("sessionId").map(SessionId::parse)
    }

    fn optional_id<T>(&self, key: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, ActionError> {
        self.optional_text(key).map(|text| text.and_then(parse))
    }

    fn required_request_id(&self) -> Result<RequestId, ActionError> {
        let missing = || match self.get("requestId") {
            None => self.invalid("field \"requestId\" is missing; this action needs a string to answer under"),
            Some(other) => self.invalid(format!("field \"requestId\" must be a string, it is {}", describe(other))),
        };
        self.request_id.clone().ok_or_else(missing)
    }

    /// A list of objects, refused as a whole when one entry is malformed.
    fn list<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&Map<String, Value>) -> Option<T>,
    ) -> Result<Vec<T>, ActionError> {
        let entries = self.optional(key, ARRAY, Value::as_array)?.map(Vec::as_slice).unwrap_or_default();
        let entry = |(index, entry): (usize, &Value)| {
            let malformed =
                || self.invalid(format!("entry {index} of field \"{key}\" must be an object with {expected}"));
            entry.as_object().and_then(&read).ok_or_else(malformed)
        };
        entries.iter().enumerate().map(entry).collect()
    }

    /// As [`SKILL_PATTERN`] says.
    fn skill(&self) -> Result<Option<String>, ActionError> {
        let Some(skill) = self.not_blank("skill")? else { return Ok(None) };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if skill.len() <= 128 && skill.bytes().all(is_name) {
            return Ok(Some(skill));
        }
        let message = "field \"skill\" must be 1 to 128 letters, digits, _ or -, so it names no skill";
        Err(self.error(ErrorCode::SkillNotFound, message))
    }

    fn unsupported(&self, action: &str) -> ActionError {
        let message = format!("the action \"{}\" is unknown to this server", shorten(action, 64));
        self.error(ErrorCode::UnsupportedAction, message)
    }

    fn invalid(&self, message: impl Into<String>) -> ActionError {
        self.error(ErrorCode::ValidationError, message)
    }

    fn error(&self, code: ErrorCode, message: impl Into<String>) -> ActionError {
        ActionError { code, message: message.into(), request_id: self.request_id.clone() }
    }
}

/// What a client sent, in a few words.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {:?}", shorten(text, 40)),
        Value::Array(_) => ARRAY.to_owned(),
        Value::Object(_) => OBJECT.to_owned(),
    }
}

#[cfg(test)]
mod tests;
