//! What outlives a connection: conversations, participants, sessions and messages, and the promises every storage
//! keeps (order, limits, look-ups). Memory is the only one that ships.

mod memory;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};

pub use memory::InMemoryStorageAdapter;

use crate::ids::{ConversationId, MessageId, ParticipantId, SessionId};

/// A conversation's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// The title; begins with [`PLACEHOLDER_PREFIX`] until one is given.
    pub name: String,
    /// The organisation it belongs to.
    pub org_id: String,
    /// The session that created it.
    pub idempotency_key: String,
    /// What the client attached, plus `clientSupports`.
    pub metadata: Map<String, Value>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its last message or rename was.
    pub updated_at: Timestamp,
}

/// A conversation whose name begins with this has no title yet.
pub const PLACEHOLDER_PREFIX: &str = "Session ";

/// What kind of participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParticipantKind {
    /// A visitor.
    User,
    /// The agent.
    AiAgent,
}

impl ParticipantKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ParticipantKind::User => "user",
            ParticipantKind::AiAgent => "ai-agent",
        }
    }
}

/// Who takes part in a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Participant {
    /// Its id.
    pub id: ParticipantId,
    /// Where it takes part.
    pub conversation_id: ConversationId,
    /// Visitor or agent.
    pub kind: ParticipantKind,
    /// The host's user id, or the agent id on the agent's row.
    pub external_id: Option<String>,
    /// The address that owns the conversation, for a visitor.
    pub email: Option<String>,
    /// Telephone number, when the visitor gave one.
    pub phone: Option<String>,
    /// The visitor's browser.
    pub browser_fingerprint: Option<String>,
    /// What to call them.
    pub name: String,
    /// When it joined.
    pub created_at: Timestamp,
}

/// A session's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The conversation it is a handle on.
    pub conversation_id: ConversationId,
    /// The organisation of the conversation.
    pub org_id: String,
    /// As the client gave it, trimmed.
    pub agent_id: String,
    /// What the agent is called.
    pub agent_name: String,
    /// The visitor's participant.
    pub user_participant_id: ParticipantId,
    /// The agent's participant.
    pub agent_participant_id: ParticipantId,
    /// What the client can render, as it declared for this session or the conversation remembers.
    pub supports: Vec<String>,
    /// Flags that count only when this session's own create frame declared them (`resume`, `tool_progress`).
    pub declared: Vec<String>,
    /// Contact data and the like.
    pub metadata: Map<String, Value>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_activity_at: Timestamp,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the visitor.
    Inbound,
    /// From the agent.
    Outbound,
}

/// A message's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Where it was said.
    pub conversation_id: ConversationId,
    /// Who said it.
    pub direction: Direction,
    /// The text.
    pub text: String,
    /// Addresses of the pictures that came with it.
    pub images: Vec<StoredImage>,
    /// Who sent it.
    pub from: Option<ParticipantRef>,
    /// Set on the record of a failed turn, which is shown but never replayed to the model.
    pub turn_error: Option<TurnErrorMark>,
    /// When it was stored; never before that of an earlier message of the conversation.
    pub created_at: Timestamp,
}

/// A picture of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Its address.
    pub url: String,
    /// `low`, `high` or `auto`.
    pub detail: Option<String>,
}

/// A participant as a message names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParticipantRef {
    /// Its id.
    pub id: ParticipantId,
    /// Visitor or agent.
    pub kind: ParticipantKind,
    /// What it was called then.
    pub name: Option<String>,
}

/// Marks the record of a failed turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnErrorMark {
    /// The wire code.
    pub code: String,
    /// The turn's request id.
    pub request_id: String,
}

/// Which messages of a conversation to read, newest first.
#[derive(Clone, Debug, PartialEq)]
pub enum MessagesBefore {
    /// From the newest.
    Newest,
    /// Strictly older than this message.
    Message(MessageId),
    /// Strictly older than this instant.
    Instant(Timestamp),
}

/// A page of something, with the knowledge whether more follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether at least one more row follows.
    pub has_more: bool,
}

/// A row of the conversation list.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationSummary {
    /// Its id.
    pub id: ConversationId,
    /// Its stored name.
    pub name: String,
    /// Text of the first inbound message.
    pub first_inbound_text: Option<String>,
    /// When its last message or rename was.
    pub updated_at: Timestamp,
    /// How many messages it has.
    pub message_count: u64,
}

/// Which conversations to list. Only those with messages are listed; newest `updated_at` first, ties by id descending.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationQuery {
    /// Only of this organisation.
    pub org_id: String,
    /// Whose: see [`OwnerFilter`].
    pub owner: OwnerFilter,
    /// Strictly after this key.
    pub after: Option<(Timestamp, ConversationId)>,
    /// Lower-case needle for the title (unless placeholder) or the first inbound text.
    pub contains: Option<String>,
    /// Page size.
    pub limit: usize,
}

/// Which conversations a caller may list, by the addresses of their visitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerFilter {
    /// All.
    Everyone,
    /// Ownerless ones and those owned by this address (trimmed, lower case).
    OwnedByOrOwnerless(String),
    /// Ownerless ones only.
    OwnerlessOnly,
}

/// Why the storage could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A configured maximum is reached; names the limit.
    #[error("the limit {limit} of {max} is reached")]
    Full {
        /// Name of the limit in the configuration.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// The backend failed.
    #[error("the storage failed: {0}")]
    Backend(String),
}

/// The storage everything shares.
pub type SharedStorage = Arc<dyn StorageAdapter>;

/// Keeps conversations. Every method is atomic; rows are returned by value.
#[async_trait]
pub trait StorageAdapter: Send + Sync + 'static {
    /// Writes a new conversation, its participants and a session on it, all or nothing.
    async fn create_conversation(
        &self,
        conversation: Conversation,
        participants: Vec<Participant>,
        session: Session,
    ) -> Result<(), StorageError>;

    /// Writes a session on an existing conversation, with participants that are new to it.
    async fn add_session(&self, session: Session, new_participants: Vec<Participant>) -> Result<(), StorageError>;

    /// The session, if it exists and has not expired.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, StorageError>;

    /// Notes that the session was used now.
    async fn touch_session(&self, id: SessionId, now: Timestamp) -> Result<(), StorageError>;

    /// Merges keys into the session's metadata.
    async fn merge_session_metadata(&self, id: SessionId, entries: Map<String, Value>) -> Result<(), StorageError>;

    /// The conversation.
    async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StorageError>;

    /// Those who take part, oldest first.
    async fn participants(&self, id: ConversationId) -> Result<Vec<Participant>, StorageError>;

    /// Sets the name and `updated_at`. Returns whether the conversation exists.
    async fn rename_conversation(&self, id: ConversationId, name: &str, now: Timestamp) -> Result<bool, StorageError>;

    /// Replaces one key of the conversation's metadata; `None` removes it.
    async fn set_conversation_metadata(
        &self,
        id: ConversationId,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), StorageError>;

    /// Appends a message, bumps `updated_at` and the count. `created_at` is raised to that of the newest message when
    /// the clock went backwards.
    async fn append_message(&self, message: Message) -> Result<(), StorageError>;

    /// A page of messages, newest first. `None` when `before` names a message that is not in the conversation.
    async fn messages(
        &self,
        id: ConversationId,
        before: MessagesBefore,
        limit: usize,
    ) -> Result<Option<Page<Message>>, StorageError>;

    /// A page of the conversation list.
    async fn conversations(&self, query: ConversationQuery) -> Result<Page<ConversationSummary>, StorageError>;

    /// Removes sessions idle since before `idle_since`, and conversations that no session is a handle on and that
    /// were not touched since then. Returns the conversations that are gone.
    async fn expire(&self, idle_since: Timestamp) -> Result<Vec<ConversationId>, StorageError>;
}
