//! What outlives a connection: conversations, participants, sessions and messages, and the promises every storage
//! keeps (order, limits, look-ups). Memory is the only one that ships.

mod contact;
#[cfg(test)]
pub(crate) mod contract;
mod memory;
mod message_log;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};

pub use contact::{
    CONTACT_EMAIL, CONTACT_PHONE, Contact, OTP_VERIFIED, OTP_VERIFIED_CONTACT, USER_NAME, contact_entries,
};
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

impl Session {
    /// Whether this session's own create frame declared the flag.
    pub fn declares(&self, flag: &str) -> bool {
        self.declared.iter().any(|declared| declared == flag)
    }
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
    /// The text; shared, so that reading a page of history copies none of it.
    pub text: Arc<str>,
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
    /// Text of the first inbound message that has any.
    pub first_inbound_text: Option<Arc<str>>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its last message or rename was.
    pub updated_at: Timestamp,
    /// How many messages it has.
    pub message_count: u64,
}

/// Which conversations to list; newest `updated_at` first, ties by id descending.
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
    /// Whether those without messages are listed, too.
    pub with_empty: bool,
    /// How many fitting rows to pass over first.
    pub skip: usize,
    /// Page size.
    pub limit: usize,
}

/// Which conversations a caller may list, by their visitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerFilter {
    /// All.
    Everyone,
    /// Ownerless ones and those owned by this address (trimmed, lower case).
    OwnedByOrOwnerless(String),
    /// Ownerless ones only.
    OwnerlessOnly,
    /// Those in which a visitor has this external id.
    Visitor(String),
}

/// What an organisation's admins set for its turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgSettings {
    /// The model of turns that name none.
    pub model: Option<String>,
    /// Instructions for the model, in place of the server's own.
    pub system_prompt: String,
    /// Who the agent is.
    pub persona: Option<String>,
    /// The only tools on offer, by name; empty restricts nothing.
    pub default_tools: Vec<String>,
    /// When they were set.
    pub updated_at: Timestamp,
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
    /// What was to be changed was never written, was evicted or has expired.
    #[error("the {what} is not stored (any more)")]
    Gone {
        /// `conversation` or `session`.
        what: &'static str,
    },
    /// The backend failed.
    #[error("the storage failed: {0}")]
    Backend(String),
}

/// The storage everything shares.
pub type SharedStorage = Arc<dyn StorageAdapter>;

/// Keeps a conversation and its sessions from being evicted or expired for as long as it lives. A running turn holds one.
pub struct ConversationPin {
    storage: SharedStorage,
    id: ConversationId,
}

impl ConversationPin {
    /// Pins the conversation, which need not be written yet.
    #[must_use = "the conversation is pinned only while this value lives"]
    pub fn new(storage: SharedStorage, id: ConversationId) -> Self {
        storage.pin(id);
        Self { storage, id }
    }
}

impl Drop for ConversationPin {
    fn drop(&mut self) {
        self.storage.unpin(self.id);
    }
}

impl fmt::Debug for ConversationPin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ConversationPin").field(&self.id).finish()
    }
}

/// Keeps conversations. Every method is atomic, with the two exceptions that say so; rows are returned by value.
///
/// A storage is bounded: at a limit the longest idle session or conversation goes, its sessions with it, but never a
/// pinned one. A session counts as use of its conversation, so a conversation is never idle for longer than its
/// sessions are.
#[async_trait]
pub trait StorageAdapter: Send + Sync + 'static {
    /// Writes a new conversation, its participants and a session on it, all or nothing.
    ///
    /// # Errors
    ///
    /// [`StorageError::Full`] when every row that could make room is pinned.
    async fn create_conversation(
        &self,
        conversation: Conversation,
        participants: Vec<Participant>,
        session: Session,
    ) -> Result<(), StorageError>;

    /// Writes a session on an existing conversation, with participants that are new to it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Gone`] when there is no such conversation, [`StorageError::Full`] as for a new one.
    async fn add_session(&self, session: Session, new_participants: Vec<Participant>) -> Result<(), StorageError>;

    /// The session, if it exists and has not expired.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, StorageError>;

    /// Notes that the session was used now. Nothing happens when it is gone.
    async fn touch_session(&self, id: SessionId, now: Timestamp) -> Result<(), StorageError>;

    /// Merges keys into the session's metadata.
    ///
    /// # Errors
    ///
    /// [`StorageError::Gone`] when there is no such session.
    async fn merge_session_metadata(&self, id: SessionId, entries: Map<String, Value>) -> Result<(), StorageError>;

    /// The conversation.
    async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StorageError>;

    /// Those who take part, oldest first.
    async fn participants(&self, id: ConversationId) -> Result<Vec<Participant>, StorageError>;

    /// Sets the name and `updated_at`. Returns whether the conversation exists.
    async fn rename_conversation(&self, id: ConversationId, name: &str, now: Timestamp) -> Result<bool, StorageError>;

    /// Gives a name to a conversation that still has a placeholder; one that was chosen stays. Returns whether it was
    /// given. The conversation keeps its place in the list: nothing was said.
    async fn title_conversation(&self, id: ConversationId, name: &str) -> Result<bool, StorageError>;

    /// Replaces one key of the conversation's metadata; `None` removes it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Gone`] when there is no such conversation.
    async fn set_conversation_metadata(
        &self,
        id: ConversationId,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), StorageError>;

    /// Appends a message, bumps `updated_at` and the count. `created_at` is raised to that of the newest message when
    /// the clock went backwards. Past the limit the oldest message goes.
    ///
    /// # Errors
    ///
    /// [`StorageError::Gone`] when there is no such conversation.
    async fn append_message(&self, message: Message) -> Result<(), StorageError>;

    /// A page of messages, newest first; empty for an unknown conversation read from the newest. `None` when `before`
    /// names a message that is not in the conversation.
    async fn messages(
        &self,
        id: ConversationId,
        before: MessagesBefore,
        limit: usize,
    ) -> Result<Option<Page<Message>>, StorageError>;

    /// A page of messages, oldest first, strictly after `after`; empty for an unknown conversation read from its
    /// beginning. `None` when `after` names a message that is not in the conversation.
    async fn messages_after(
        &self,
        id: ConversationId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Option<Page<Message>>, StorageError>;

    /// A page of the conversation list. Not atomic: a conversation that is touched meanwhile may be missing from the
    /// page, because it moved above it; none appears twice.
    async fn conversations(&self, query: ConversationQuery) -> Result<Page<ConversationSummary>, StorageError>;

    /// What the organisation's admins have set; `None` when they have set nothing.
    async fn org_settings(&self, org_id: &str) -> Result<Option<Arc<OrgSettings>>, StorageError>;

    /// Sets it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Full`] when as many organisations as may be have settings.
    async fn set_org_settings(&self, org_id: &str, settings: OrgSettings) -> Result<(), StorageError>;

    /// Removes what was last used before `idle_since`: sessions, and conversations with no younger session. Returns the
    /// conversations that are gone, those that were evicted since the last call included. Not atomic: it works in
    /// portions, so that others wait only briefly.
    async fn expire(&self, idle_since: Timestamp) -> Result<Vec<ConversationId>, StorageError>;

    /// Keeps the conversation and its sessions until [`unpin`](Self::unpin) was called as often. Use
    /// [`ConversationPin`].
    fn pin(&self, id: ConversationId);

    /// Takes one [`pin`](Self::pin) back.
    fn unpin(&self, id: ConversationId);
}
