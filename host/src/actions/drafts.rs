//! Creates that nobody has used yet. A visitor who opens a chat window and leaves again should leave nothing behind, so
//! a create without the visitor's identity is kept here and written only when it is used.
//!
//! ```text
//! kept ── first send_message, or a create that names the conversation ──▶ written (to the storage)
//!   ├── its connection creates too many ──▶ the oldest is written
//!   └── its connection closes ──▶ gone, session and conversation together
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    ids::{ConnectionId, ConversationId, SessionId},
    storage::{Conversation, Participant, Session, StorageAdapter, StorageError},
};

/// All drafts, by what they are named by.
pub(crate) struct Drafts {
    /// Held for a few lines, never across an await.
    state: Mutex<State>,
    per_connection_max: usize,
}

#[derive(Default)]
struct State {
    by_session: HashMap<SessionId, Arc<Draft>>,
    by_conversation: HashMap<ConversationId, SessionId>,
    /// Oldest first.
    by_connection: HashMap<ConnectionId, VecDeque<SessionId>>,
}

/// A conversation with one session that is not in the storage.
pub(crate) struct Draft {
    /// The conversation.
    pub(crate) conversation: Conversation,
    /// Visitor and agent.
    pub(crate) participants: Vec<Participant>,
    /// The session.
    pub(crate) session: Session,
    /// The connection that created it.
    connection: ConnectionId,
    /// Held while it is being written, so that it is written once.
    stage: AsyncMutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// The storage failed, which may have been before or after the rows were there.
    Tried,
    Written,
}

impl Draft {
    pub(super) fn new(
        conversation: Conversation,
        participants: Vec<Participant>,
        session: Session,
        connection: ConnectionId,
    ) -> Self {
        Self { conversation, participants, session, connection, stage: AsyncMutex::new(Stage::New) }
    }
}

impl Drafts {
    /// None yet; `per_connection_max` is `Limits::unused_sessions`.
    pub(super) fn new(per_connection_max: usize) -> Self {
        Self { state: Mutex::default(), per_connection_max }
    }

    /// The draft of this session.
    pub(super) fn of_session(&self, id: SessionId) -> Option<Arc<Draft>> {
        self.lock().by_session.get(&id).cloned()
    }

    /// The draft of this conversation.
    pub(super) fn of_conversation(&self, id: ConversationId) -> Option<Arc<Draft>> {
        let state = self.lock();
        state.by_session.get(state.by_conversation.get(&id)?).cloned()
    }

    /// Keeps a draft until it is written or its connection closes. One that is too many for its connection pushes the
    /// connection's oldest into the storage.
    ///
    /// # Errors
    ///
    /// The oldest could not be written; nothing is kept then.
    pub(super) async fn keep(
        &self,
        draft: Draft,
        storage: &dyn StorageAdapter,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        while let Some(oldest) = self.one_too_many(draft.connection) {
            self.write(&oldest, storage, now).await?;
        }
        let mut state = self.lock();
        let id = draft.session.id;
        state.by_conversation.insert(draft.conversation.id, id);
        state.by_connection.entry(draft.connection).or_default().push_back(id);
        state.by_session.insert(id, Arc::new(draft));
        Ok(())
    }

    /// Writes a draft to the storage, unless that has been done. A write that failed can be tried again: it goes on
    /// from where it was, and never writes a row twice.
    ///
    /// # Errors
    ///
    /// The storage failed; the draft is kept.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future counts as a failed write.
    pub(super) async fn write(
        &self,
        draft: &Draft,
        storage: &dyn StorageAdapter,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut stage = draft.stage.lock().await;
        let is_there = match *stage {
            Stage::New => false,
            Stage::Tried => storage.session(draft.session.id).await?.is_some(),
            Stage::Written => true,
        };
        if !is_there {
            *stage = Stage::Tried;
            let session = Session { last_activity_at: now, ..draft.session.clone() };
            storage.create_conversation(draft.conversation.clone(), draft.participants.clone(), session).await?;
        }
        *stage = Stage::Written;
        self.lock().remove(draft);
        Ok(())
    }

    /// Forgets what this connection created and nobody used.
    pub(crate) fn discard(&self, connection: ConnectionId) {
        let mut state = self.lock();
        for id in state.by_connection.remove(&connection).into_iter().flatten() {
            if let Some(draft) = state.by_session.remove(&id) {
                state.by_conversation.remove(&draft.conversation.id);
            }
        }
    }

    fn one_too_many(&self, connection: ConnectionId) -> Option<Arc<Draft>> {
        let state = self.lock();
        let ids = state.by_connection.get(&connection).filter(|ids| ids.len() >= self.per_connection_max)?;
        ids.front().and_then(|oldest| state.by_session.get(oldest)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, draft: &Draft) {
        self.by_session.remove(&draft.session.id);
        self.by_conversation.remove(&draft.conversation.id);
        if let Some(ids) = self.by_connection.get_mut(&draft.connection) {
            ids.retain(|id| *id != draft.session.id);
            if ids.is_empty() {
                self.by_connection.remove(&draft.connection);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Map;
    use uuid::Uuid;

    use super::*;
    use crate::{
        config::Limits,
        ids::ParticipantId,
        storage::{ConversationPin, InMemoryStorageAdapter},
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn draft(number: u128, connection: u128) -> Draft {
        let conversation = Conversation {
            id: ConversationId(Uuid::from_u128(100 + number)),
            name: String::new(),
            org_id: "org".to_owned(),
            idempotency_key: String::new(),
            metadata: Map::new(),
            created_at: NOW,
            updated_at: NOW,
        };
        let session = Session {
            id: SessionId(Uuid::from_u128(number)),
            conversation_id: conversation.id,
            org_id: "org".to_owned(),
            agent_id: "agent".to_owned(),
            agent_name: "agent".to_owned(),
            user_participant_id: ParticipantId(Uuid::nil()),
            agent_participant_id: ParticipantId(Uuid::nil()),
            supports: Vec::new(),
            declared: Vec::new(),
            metadata: Map::new(),
            created_at: NOW,
            last_activity_at: NOW,
        };
        Draft::new(conversation, Vec::new(), session, ConnectionId(Uuid::from_u128(connection)))
    }

    fn id(number: u128) -> SessionId {
        SessionId(Uuid::from_u128(number))
    }

    fn is_empty(drafts: &Drafts) -> bool {
        let state = drafts.lock();
        state.by_session.is_empty() && state.by_conversation.is_empty() && state.by_connection.is_empty()
    }

    #[tokio::test]
    async fn a_failed_write_is_continued_and_not_repeated() {
        let limits = Limits { conversations: 1, ..Limits::default() };
        let storage: Arc<dyn StorageAdapter> = Arc::new(InMemoryStorageAdapter::new(&limits));
        let drafts = Drafts::new(8);
        for number in 1..=2 {
            drafts.keep(draft(number, 1), &*storage, NOW).await.unwrap();
        }
        let (first, second) = (drafts.of_session(id(1)).unwrap(), drafts.of_session(id(2)).unwrap());
        drafts.write(&first, &*storage, NOW).await.unwrap();
        let pin = ConversationPin::new(storage.clone(), first.conversation.id);
        let full = drafts.write(&second, &*storage, NOW).await;
        assert_eq!(full, Err(StorageError::Full { limit: "conversations", max: 1 }));
        assert!(drafts.of_session(id(2)).is_some(), "it can be tried again");

        // The storage has written the rows, although it said that it had failed.
        drop(pin);
        let rows = draft(2, 1);
        storage.create_conversation(rows.conversation, rows.participants, rows.session).await.unwrap();
        drafts.write(&second, &*storage, NOW).await.unwrap();
        drafts.write(&second, &*storage, NOW).await.unwrap();
        assert!(storage.session(id(2)).await.unwrap().is_some());
        assert!(is_empty(&drafts));
    }

    #[tokio::test]
    async fn a_closed_connection_takes_its_own_drafts_with_it() {
        let storage = InMemoryStorageAdapter::new(&Limits::default());
        let drafts = Drafts::new(8);
        for (number, connection) in [(1, 1), (2, 1), (3, 2)] {
            drafts.keep(draft(number, connection), &storage, NOW).await.unwrap();
        }
        let used = drafts.of_session(id(1)).unwrap();
        drafts.write(&used, &storage, NOW).await.unwrap();
        drafts.discard(used.connection);
        assert!(drafts.of_session(id(2)).is_none() && drafts.of_conversation(draft(2, 1).conversation.id).is_none());
        assert!(drafts.of_session(id(3)).is_some());
        assert!(storage.session(id(1)).await.unwrap().is_some(), "what was used stays");
        drafts.discard(draft(3, 2).connection);
        assert!(is_empty(&drafts));
    }

    #[tokio::test]
    async fn a_connection_that_creates_too_many_has_its_oldest_written() {
        let storage = InMemoryStorageAdapter::new(&Limits::default());
        let drafts = Drafts::new(2);
        for number in 1..=3 {
            drafts.keep(draft(number, 1), &storage, NOW).await.unwrap();
        }
        assert!(drafts.of_session(id(1)).is_none() && storage.session(id(1)).await.unwrap().is_some());
        assert!(drafts.of_session(id(2)).is_some() && drafts.of_session(id(3)).is_some());
    }
}
