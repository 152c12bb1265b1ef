//! The in-memory storage: everything is gone when the process ends.
//!
//! ```text
//!   sessions ──▶ conversations ──▶ messages (message_log)
//!      │               │
//!   idle order      idle order, list order per organisation
//! ```
//!
//! Beside each map stands an ordered index, so that creating, touching, listing, evicting and expiring cost the same
//! whatever the number of rows. It never scans all messages, never blocks for longer than one portion of work and
//! never evicts a pinned conversation.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt, mem,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Conversation, ConversationQuery, ConversationSummary, Message, MessagesBefore, OrgSettings, OwnerFilter,
    PLACEHOLDER_PREFIX, Page, Participant, ParticipantKind, Session, StorageAdapter, StorageError,
    message_log::MessageLog,
};
use crate::{
    config::Limits,
    ids::{ConversationId, MessageId, SessionId},
};

/// Rows that one lock of the list or of expiry may look at.
const PORTION: usize = 256;

/// Keeps everything in this process, bounded by [`Limits`].
pub struct InMemoryStorageAdapter {
    /// Held for a few lines or one portion, never across an await.
    state: Mutex<State>,
    sessions_max: usize,
    conversations_max: usize,
    messages_max: usize,
    orgs_max: usize,
}

impl InMemoryStorageAdapter {
    /// An empty storage. Of the limits it uses `sessions`, `conversations`, `messages_per_conversation` and
    /// `org_settings`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            state: Mutex::default(),
            sessions_max: limits.sessions,
            conversations_max: limits.conversations,
            messages_max: limits.messages_per_conversation,
            orgs_max: limits.org_settings,
        }
    }

    /// A panic while the lock was held is a bug of ours; going on with the rows beats refusing everyone from then on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InMemoryStorageAdapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        formatter
            .debug_struct("InMemoryStorageAdapter")
            .field("sessions", &state.sessions.len())
            .field("conversations", &state.conversations.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageAdapter for InMemoryStorageAdapter {
    async fn create_conversation(
        &self,
        conversation: Conversation,
        participants: Vec<Participant>,
        session: Session,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.conversations.contains_key(&conversation.id) {
            return Err(StorageError::Backend(format!("conversation {} exists already", conversation.id)));
        }
        state.make_room_for_conversation(self.conversations_max)?;
        state.make_room_for_session(self.sessions_max)?;
        state.insert_conversation(conversation, participants);
        state.insert_session(session);
        Ok(())
    }

    async fn add_session(&self, session: Session, new_participants: Vec<Participant>) -> Result<(), StorageError> {
        let mut state = self.state();
        let conversation_id = session.conversation_id;
        state.row_mut(conversation_id)?;
        // The conversation comes into use now, so it cannot be what goes; its other sessions can.
        state.touch_conversation(conversation_id, session.last_activity_at);
        state.make_room_for_session(self.sessions_max)?;
        state.row_mut(conversation_id)?.add_participants(new_participants);
        state.insert_session(session);
        Ok(())
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, StorageError> {
        Ok(self.state().sessions.get(&id).cloned())
    }

    async fn touch_session(&self, id: SessionId, now: Timestamp) -> Result<(), StorageError> {
        self.state().touch_session(id, now);
        Ok(())
    }

    async fn merge_session_metadata(&self, id: SessionId, entries: Map<String, Value>) -> Result<(), StorageError> {
        let mut state = self.state();
        let session = state.sessions.get_mut(&id).ok_or(StorageError::Gone { what: "session" })?;
        session.metadata.extend(entries);
        Ok(())
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StorageError> {
        Ok(self.state().conversations.get(&id).map(|row| row.conversation.clone()))
    }

    async fn participants(&self, id: ConversationId) -> Result<Vec<Participant>, StorageError> {
        Ok(self.state().conversations.get(&id).map(|row| row.participants.clone()).unwrap_or_default())
    }

    async fn rename_conversation(&self, id: ConversationId, name: &str, now: Timestamp) -> Result<bool, StorageError> {
        let mut state = self.state();
        let Ok(row) = state.row_mut(id) else { return Ok(false) };
        row.conversation.name = name.to_owned();
        state.update_conversation(id, now);
        Ok(true)
    }

    async fn title_conversation(&self, id: ConversationId, name: &str) -> Result<bool, StorageError> {
        let mut state = self.state();
        let Ok(row) = state.row_mut(id) else { return Ok(false) };
        let is_untitled = row.conversation.name.starts_with(PLACEHOLDER_PREFIX);
        if is_untitled {
            row.conversation.name = name.to_owned();
        }
        Ok(is_untitled)
    }

    async fn set_conversation_metadata(
        &self,
        id: ConversationId,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        let metadata = &mut state.row_mut(id)?.conversation.metadata;
        match value {
            Some(value) => metadata.insert(key.to_owned(), value),
            None => metadata.remove(key),
        };
        Ok(())
    }

    async fn append_message(&self, message: Message) -> Result<(), StorageError> {
        let mut state = self.state();
        let id = message.conversation_id;
        let stored_at = state.row_mut(id)?.log.push(message, self.messages_max);
        state.update_conversation(id, stored_at);
        Ok(())
    }

    async fn messages(
        &self,
        id: ConversationId,
        before: MessagesBefore,
        limit: usize,
    ) -> Result<Option<Page<Message>>, StorageError> {
        let state = self.state();
        Ok(match state.conversations.get(&id) {
            Some(row) => row.log.page(id, &before, limit),
            None => MessageLog::default().page(id, &before, limit),
        })
    }

    async fn messages_after(
        &self,
        id: ConversationId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Option<Page<Message>>, StorageError> {
        let state = self.state();
        Ok(match state.conversations.get(&id) {
            Some(row) => row.log.page_after(id, after, limit),
            None => MessageLog::default().page_after(id, after, limit),
        })
    }

    async fn conversations(&self, mut query: ConversationQuery) -> Result<Page<ConversationSummary>, StorageError> {
        let mut rows = Vec::new();
        loop {
            let finished = self.state().list_portion(&mut query, &mut rows);
            if finished || rows.len() > query.limit {
                break;
            }
            // A narrow filter may walk over many rows; whoever waits for the lock or for this thread goes first.
            tokio::task::yield_now().await;
        }
        let has_more = rows.len() > query.limit;
        rows.truncate(query.limit);
        Ok(Page { rows, has_more })
    }

    async fn org_settings(&self, org_id: &str) -> Result<Option<Arc<OrgSettings>>, StorageError> {
        Ok(self.state().org_settings.get(org_id).cloned())
    }

    async fn set_org_settings(&self, org_id: &str, settings: OrgSettings) -> Result<(), StorageError> {
        let mut state = self.state();
        let all = &mut state.org_settings;
        if all.len() >= self.orgs_max && !all.contains_key(org_id) {
            return Err(StorageError::Full { limit: "org_settings", max: self.orgs_max });
        }
        all.insert(org_id.to_owned(), Arc::new(settings));
        Ok(())
    }

    async fn expire(&self, idle_since: Timestamp) -> Result<Vec<ConversationId>, StorageError> {
        while !self.state().expire_sessions(idle_since) {
            tokio::task::yield_now().await;
        }
        while !self.state().expire_conversations(idle_since) {
            tokio::task::yield_now().await;
        }
        Ok(mem::take(&mut self.state().gone).into())
    }

    fn pin(&self, id: ConversationId) {
        *self.state().pins.entry(id).or_insert(0) += 1;
    }

    fn unpin(&self, id: ConversationId) {
        let mut state = self.state();
        if let Some(pins) = state.pins.get_mut(&id) {
            *pins -= 1;
            if *pins == 0 {
                state.pins.remove(&id);
            }
        }
    }
}

/// Rows and their orders. What changes a row changes its keys in the same method.
#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    /// Every session by `last_activity_at`.
    idle_sessions: BTreeSet<(Timestamp, SessionId)>,
    /// Every session by its conversation.
    handles: BTreeSet<(ConversationId, SessionId)>,
    conversations: HashMap<ConversationId, ConversationRow>,
    /// Every conversation by `touched_at`.
    idle_conversations: BTreeSet<(Timestamp, ConversationId)>,
    /// Every conversation, by organisation and `updated_at`.
    listed: HashMap<String, BTreeSet<(Timestamp, ConversationId)>>,
    org_settings: HashMap<String, Arc<OrgSettings>>,
    /// How many pins hold a conversation; absent means none.
    pins: HashMap<ConversationId, usize>,
    /// Conversations that went since they were last asked for; the oldest are forgotten past [`GONE_MAX`].
    gone: VecDeque<ConversationId>,
}

/// Conversations that are remembered as gone until the next expiry asks for them: 1 MiB of ids.
const GONE_MAX: usize = 65_536;

struct ConversationRow {
    conversation: Conversation,
    participants: Vec<Participant>,
    /// Addresses of its visitors, trimmed and in lower case, once each.
    owners: Vec<String>,
    /// Its last use: the latest of creation, message, rename and use of one of its sessions.
    touched_at: Timestamp,
    log: MessageLog,
}

impl ConversationRow {
    fn add_participants(&mut self, participants: Vec<Participant>) {
        for participant in participants {
            if let Some(owner) = owner_address(&participant)
                && !self.owners.contains(&owner)
            {
                self.owners.push(owner);
            }
            self.participants.push(participant);
        }
    }

    fn is_visible_to(&self, filter: &OwnerFilter) -> bool {
        match filter {
            OwnerFilter::Everyone => true,
            OwnerFilter::OwnedByOrOwnerless(address) => self.owners.is_empty() || self.owners.contains(address),
            OwnerFilter::OwnerlessOnly => self.owners.is_empty(),
            OwnerFilter::Visitor(id) => self.participants.iter().any(|participant| {
                participant.kind == ParticipantKind::User && participant.external_id.as_ref() == Some(id)
            }),
        }
    }

    fn fits(&self, query: &ConversationQuery) -> bool {
        (query.with_empty || !self.log.is_empty())
            && self.is_visible_to(&query.owner)
            && query.contains.as_deref().is_none_or(|needle| self.contains(needle))
    }

    fn contains(&self, needle: &str) -> bool {
        let name = &self.conversation.name;
        let is_titled = !name.starts_with(PLACEHOLDER_PREFIX);
        is_titled && name.to_lowercase().contains(needle)
            || self.log.first_inbound_text().is_some_and(|text| text.to_lowercase().contains(needle))
    }

    fn summary(&self) -> ConversationSummary {
        ConversationSummary {
            id: self.conversation.id,
            name: self.conversation.name.clone(),
            first_inbound_text: self.log.first_inbound_text().cloned(),
            created_at: self.conversation.created_at,
            updated_at: self.conversation.updated_at,
            message_count: self.log.len() as u64,
        }
    }
}

fn owner_address(participant: &Participant) -> Option<String> {
    let address = participant.email.as_deref()?.trim().to_lowercase();
    (participant.kind == ParticipantKind::User && !address.is_empty()).then_some(address)
}

impl State {
    fn row_mut(&mut self, id: ConversationId) -> Result<&mut ConversationRow, StorageError> {
        self.conversations.get_mut(&id).ok_or(StorageError::Gone { what: "conversation" })
    }

    fn insert_conversation(&mut self, conversation: Conversation, participants: Vec<Participant>) {
        let id = conversation.id;
        let touched_at = conversation.updated_at;
        let log = MessageLog::default();
        let mut row = ConversationRow { conversation, participants: Vec::new(), owners: Vec::new(), touched_at, log };
        row.add_participants(participants);
        self.idle_conversations.insert((touched_at, id));
        self.listed.entry(row.conversation.org_id.clone()).or_default().insert((touched_at, id));
        self.conversations.insert(id, row);
    }

    fn insert_session(&mut self, session: Session) {
        self.touch_conversation(session.conversation_id, session.last_activity_at);
        // An id that is written again replaces its row, so its old keys go first.
        self.remove_session(session.id);
        self.idle_sessions.insert((session.last_activity_at, session.id));
        self.handles.insert((session.conversation_id, session.id));
        self.sessions.insert(session.id, session);
    }

    fn touch_session(&mut self, id: SessionId, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let conversation_id = session.conversation_id;
        if session.last_activity_at < now {
            self.idle_sessions.remove(&(session.last_activity_at, id));
            session.last_activity_at = now;
            self.idle_sessions.insert((now, id));
        }
        self.touch_conversation(conversation_id, now);
    }

    fn touch_conversation(&mut self, id: ConversationId, now: Timestamp) {
        let Some(row) = self.conversations.get_mut(&id) else { return };
        if row.touched_at < now {
            self.idle_conversations.remove(&(row.touched_at, id));
            row.touched_at = now;
            self.idle_conversations.insert((now, id));
        }
    }

    /// Raises `updated_at` and moves the conversation in the list.
    fn update_conversation(&mut self, id: ConversationId, now: Timestamp) {
        self.touch_conversation(id, now);
        let Some(row) = self.conversations.get_mut(&id) else { return };
        let previous = row.conversation.updated_at;
        row.conversation.updated_at = previous.max(now);
        if let Some(list) = self.listed.get_mut(&row.conversation.org_id) {
            list.remove(&(previous, id));
            list.insert((row.conversation.updated_at, id));
        }
    }

    fn make_room_for_conversation(&mut self, max: usize) -> Result<(), StorageError> {
        while self.conversations.len() >= max {
            let longest_idle = self.idle_conversations.iter().find(|(_, id)| !self.pins.contains_key(id));
            let &(_, id) = longest_idle.ok_or(StorageError::Full { limit: "conversations", max })?;
            self.remove_conversation(id);
        }
        Ok(())
    }

    fn make_room_for_session(&mut self, max: usize) -> Result<(), StorageError> {
        while self.sessions.len() >= max {
            let longest_idle = self.idle_sessions.iter().find(|(_, id)| !self.is_session_pinned(*id));
            let &(_, id) = longest_idle.ok_or(StorageError::Full { limit: "sessions", max })?;
            self.remove_session(id);
        }
        Ok(())
    }

    fn is_session_pinned(&self, id: SessionId) -> bool {
        !self.pins.is_empty()
            && self.sessions.get(&id).is_some_and(|session| self.pins.contains_key(&session.conversation_id))
    }

    fn remove_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.idle_sessions.remove(&(session.last_activity_at, id));
            self.handles.remove(&(session.conversation_id, id));
        }
    }

    fn remove_conversation(&mut self, id: ConversationId) {
        let handles = (id, SessionId(Uuid::nil()))..=(id, SessionId(Uuid::max()));
        let sessions: Vec<SessionId> = self.handles.range(handles).map(|&(_, session)| session).collect();
        for session in sessions {
            self.remove_session(session);
        }
        let Some(row) = self.conversations.remove(&id) else { return };
        self.idle_conversations.remove(&(row.touched_at, id));
        if let Some(list) = self.listed.get_mut(&row.conversation.org_id) {
            list.remove(&(row.conversation.updated_at, id));
            if list.is_empty() {
                self.listed.remove(&row.conversation.org_id);
            }
        }
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(id);
    }

    /// Looks at one portion of the list, from `query.after` downwards, and moves `after` and `skip`. Returns whether the
    /// list is at its end. Stops one row past the limit, which tells that there is more.
    fn list_portion(&self, query: &mut ConversationQuery, rows: &mut Vec<ConversationSummary>) -> bool {
        let Some(list) = self.listed.get(&query.org_id) else { return true };
        let upper = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut keys = list.range((Bound::Unbounded, upper)).rev();
        for _ in 0..PORTION {
            let Some(key) = keys.next() else { return true };
            query.after = Some(*key);
            let Some(row) = self.conversations.get(&key.1).filter(|row| row.fits(query)) else { continue };
            if query.skip > 0 {
                query.skip -= 1;
                continue;
            }
            rows.push(row.summary());
            if rows.len() > query.limit {
                return true;
            }
        }
        false
    }

    /// Removes one portion of the sessions that were last used before `idle_since`. Returns whether none is left.
    fn expire_sessions(&mut self, idle_since: Timestamp) -> bool {
        let idle = self.idle_sessions.iter().take_while(|(last_used, _)| *last_used < idle_since);
        let idle = idle.map(|&(_, id)| id).filter(|id| !self.is_session_pinned(*id));
        let portion: Vec<SessionId> = idle.take(PORTION).collect();
        for id in &portion {
            self.remove_session(*id);
        }
        portion.len() < PORTION
    }

    /// The same for conversations; no session is left on them, because using one touches its conversation.
    fn expire_conversations(&mut self, idle_since: Timestamp) -> bool {
        let idle = self.idle_conversations.iter().take_while(|(last_used, _)| *last_used < idle_since);
        let idle = idle.map(|&(_, id)| id).filter(|id| !self.pins.contains_key(id));
        let portion: Vec<ConversationId> = idle.take(PORTION).collect();
        for id in &portion {
            self.remove_conversation(*id);
        }
        portion.len() < PORTION
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::storage::{
        SharedStorage, contract,
        contract::{at, conversation_id, create, message, session_id},
    };

    fn make(limits: &Limits) -> SharedStorage {
        Arc::new(InMemoryStorageAdapter::new(limits))
    }

    contract::storage_contract!(make);

    /// Every index holds exactly the keys of its rows.
    fn check_indexes(state: &State) {
        assert_eq!(state.idle_sessions.len(), state.sessions.len());
        assert_eq!(state.handles.len(), state.sessions.len());
        assert_eq!(state.idle_conversations.len(), state.conversations.len());
        let listed: usize = state.listed.values().map(BTreeSet::len).sum();
        assert_eq!(listed, state.conversations.len());
        for session in state.sessions.values() {
            assert!(state.idle_sessions.contains(&(session.last_activity_at, session.id)));
            assert!(state.handles.contains(&(session.conversation_id, session.id)));
            let row = &state.conversations[&session.conversation_id];
            assert!(row.touched_at >= session.last_activity_at);
        }
        for row in state.conversations.values() {
            assert!(state.idle_conversations.contains(&(row.touched_at, row.conversation.id)));
            let key = (row.conversation.updated_at, row.conversation.id);
            assert!(state.listed[&row.conversation.org_id].contains(&key));
        }
        assert!(state.listed.values().all(|list| !list.is_empty()));
    }

    #[tokio::test]
    async fn indexes_follow_every_change() {
        let limits = Limits { sessions: 20, conversations: 12, messages_per_conversation: 3, ..Limits::default() };
        let storage = InMemoryStorageAdapter::new(&limits);
        let mut random = fastrand::Rng::with_seed(7);
        for step in 0..4_000 {
            let now = at(step / 3);
            let number = random.u128(0..30);
            let id = conversation_id(number);
            match random.u8(0..7) {
                0 => drop(storage.create_conversation(create(number, now).0, vec![], create(number, now).1).await),
                1 => {
                    let session = Session { id: session_id(random.u128(0..60)), ..create(number, now).1 };
                    drop(storage.add_session(session, vec![]).await);
                }
                2 => storage.touch_session(session_id(random.u128(0..60)), now).await.unwrap(),
                3 => drop(storage.rename_conversation(id, "a name", now).await),
                4 => drop(storage.append_message(message(id, "text", now)).await),
                5 => drop(storage.expire(at((step / 3).saturating_sub(40))).await),
                _ if random.bool() => storage.pin(id),
                _ => storage.unpin(id),
            }
            let state = storage.state();
            check_indexes(&state);
            assert!(state.sessions.len() <= limits.sessions && state.conversations.len() <= limits.conversations);
        }
    }

    #[tokio::test]
    async fn a_filter_that_matches_late_is_found_past_the_first_portion() {
        let storage = InMemoryStorageAdapter::new(&Limits::default());
        for number in 0..(3 * PORTION as u128) {
            let (conversation, session) = create(number, at(number as i64));
            let id = conversation.id;
            storage.create_conversation(conversation, vec![], session).await.unwrap();
            let text = if number == 0 { "a Needle" } else { "hay" };
            storage.append_message(message(id, text, at(number as i64))).await.unwrap();
        }
        let query = ConversationQuery {
            org_id: "org".to_owned(),
            owner: OwnerFilter::Everyone,
            after: None,
            contains: Some("needle".to_owned()),
            with_empty: false,
            skip: 0,
            limit: 5,
        };
        let page = storage.conversations(query).await.unwrap();
        assert_eq!(page.rows.len(), 1);
        assert!(!page.has_more);
    }

    #[tokio::test]
    async fn expiry_and_eviction_report_each_conversation_once() {
        let limits = Limits { conversations: 2, ..Limits::default() };
        let storage = InMemoryStorageAdapter::new(&limits);
        for number in 0..3 {
            let (conversation, session) = create(number, at(number as i64));
            storage.create_conversation(conversation, vec![], session).await.unwrap();
        }
        assert_eq!(storage.expire(at(2)).await.unwrap(), vec![conversation_id(0), conversation_id(1)]);
        assert_eq!(storage.expire(at(2)).await.unwrap(), vec![]);
    }
}
