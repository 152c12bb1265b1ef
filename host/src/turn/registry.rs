//! Which turns run: at most one per conversation and one per connection. A slot is a guard: it is free again when the
//! turn ends, however it ends, before anybody can read the turn's terminal event. A turn that has ended is remembered
//! for those who come back for its end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ended::{EndedTurn, EndedTurns},
    log::{Dialect, Subscriber, TurnLog},
    park::ParkSlot,
    stopwatch::Stopwatch,
};
use crate::{
    clock::SharedClock,
    config::Limits,
    ids::{ConnectionId, ConversationId, RequestId, SessionId, TurnId},
    protocol::{ErrorCode, Event, action::TurnChoice},
};

/// All running turns, and those that have ended lately.
#[derive(Clone)]
pub(crate) struct TurnRegistry {
    /// Held for a few lines, never across an await. Taken under a turn's log, never the other way round.
    slots: Arc<Mutex<Slots>>,
    log_bytes_max: usize,
}

struct Slots {
    by_conversation: HashMap<ConversationId, Arc<RunningTurn>>,
    by_connection: HashMap<ConnectionId, Arc<RunningTurn>>,
    ended: EndedTurns,
}

/// What identifies a turn.
#[derive(Clone, Debug)]
pub(crate) struct TurnIds {
    /// The turn itself.
    pub(crate) turn: TurnId,
    /// The conversation it belongs to.
    pub(crate) conversation: ConversationId,
    /// The session that started it.
    pub(crate) session: SessionId,
    /// The connection that started it.
    pub(crate) connection: ConnectionId,
    /// The frame that started it; all of its events carry this.
    pub(crate) request: RequestId,
}

impl TurnIds {
    /// Conversation and session as text.
    pub(crate) fn texts(&self) -> (String, String) {
        (self.conversation.to_string(), self.session.to_string())
    }
}

/// A running turn as everybody else sees it: through this, cancel and the answers of humans reach it.
pub(crate) struct RunningTurn {
    /// Who it is.
    pub(crate) ids: TurnIds,
    /// What the session that started it declared.
    pub(crate) dialect: Dialect,
    /// Fires when the turn has to stop.
    pub(crate) cancelled: CancellationToken,
    /// Its events.
    pub(crate) log: Arc<TurnLog>,
    /// Where it waits for a human.
    pub(crate) parks: ParkSlot,
    /// How long it takes.
    pub(super) stopwatch: Stopwatch,
    /// Set by whoever decides how the turn ends: its own task, or a cancel.
    ending: AtomicBool,
    registry: TurnRegistry,
}

/// Why a turn cannot start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The connection has a running turn.
    Connection,
    /// The conversation has one.
    Conversation,
}

/// A turn that a client wants to follow.
pub(crate) struct FoundTurn {
    /// Who it is.
    pub(crate) ids: TurnIds,
    /// Its events.
    pub(crate) log: Arc<TurnLog>,
    /// Present while it runs.
    pub(crate) running: Option<Arc<RunningTurn>>,
}

impl TurnRegistry {
    /// Of the limits it uses those on the events of turns.
    pub(crate) fn new(limits: &Limits) -> Self {
        let ended = EndedTurns::new(limits);
        let slots = Slots { by_conversation: HashMap::new(), by_connection: HashMap::new(), ended };
        Self { slots: Arc::new(Mutex::new(slots)), log_bytes_max: limits.turn_log_bytes }
    }

    /// Whether this connection has a running turn.
    pub(crate) fn connection_is_busy(&self, connection: ConnectionId) -> bool {
        self.lock().by_connection.contains_key(&connection)
    }

    /// The running turn that this connection started.
    pub(crate) fn of_connection(&self, connection: ConnectionId) -> Option<Arc<RunningTurn>> {
        self.lock().by_connection.get(&connection).cloned()
    }

    /// The running turn of a conversation.
    pub(crate) fn of_conversation(&self, conversation: ConversationId) -> Option<Arc<RunningTurn>> {
        self.lock().by_conversation.get(&conversation).cloned()
    }

    /// All running turns.
    pub(crate) fn all(&self) -> Vec<Arc<RunningTurn>> {
        self.lock().by_conversation.values().cloned().collect()
    }

    /// The turn of this conversation that is meant; by default the running one, otherwise the last one.
    pub(crate) fn find(&self, conversation: ConversationId, choice: TurnChoice) -> Option<FoundTurn> {
        let mut slots = self.lock();
        let due = slots.ended.expire(Instant::now());
        let running = slots.by_conversation.get(&conversation).filter(|turn| match choice {
            TurnChoice::Latest => true,
            TurnChoice::Named(id) => id == Some(turn.ids.turn),
        });
        let found = match running {
            Some(turn) => Some(FoundTurn { ids: turn.ids.clone(), log: turn.log.clone(), running: Some(turn.clone()) }),
            None => {
                let ended = slots.ended.find(conversation, choice).cloned();
                ended.map(|EndedTurn { ids, log }| FoundTurn { ids, log, running: None })
            }
        };
        drop(slots);
        due.now();
        found
    }

    /// Drops the events of turns that ended too long ago.
    pub(crate) fn expire(&self) {
        let due = self.lock().ended.expire(Instant::now());
        due.now();
    }

    /// Takes both slots and writes `first` as event 1.
    ///
    /// # Errors
    ///
    /// [`Busy`] when either slot is taken; nothing has happened then.
    pub(crate) fn begin(
        &self,
        ids: TurnIds,
        clock: SharedClock,
        subscriber: Subscriber,
        first: Event,
    ) -> Result<TurnGuard, Busy> {
        let dialect = subscriber.dialect;
        let log = Arc::new(TurnLog::new(ids.request.clone(), clock, self.log_bytes_max, subscriber));
        let turn = Arc::new(RunningTurn {
            dialect,
            cancelled: CancellationToken::new(),
            log,
            parks: ParkSlot::default(),
            stopwatch: Stopwatch::start(),
            ending: AtomicBool::new(false),
            registry: self.clone(),
            ids,
        });
        let replaced = {
            let mut slots = self.lock();
            if slots.by_connection.contains_key(&turn.ids.connection) {
                return Err(Busy::Connection);
            }
            if slots.by_conversation.contains_key(&turn.ids.conversation) {
                return Err(Busy::Conversation);
            }
            // Nobody else sees the log yet, so that nothing can come before the first event.
            turn.log.append(first);
            slots.by_connection.insert(turn.ids.connection, turn.clone());
            slots.by_conversation.insert(turn.ids.conversation, turn.clone());
            slots.ended.next_begins(turn.ids.conversation)
        };
        replaced.now();
        Ok(TurnGuard { turn })
    }

    /// Frees the slots that this turn holds; those of a later turn stay. From now on it is one of the ended.
    fn release(&self, turn: &RunningTurn) {
        let mut slots = self.lock();
        slots.ended.insert(EndedTurn { ids: turn.ids.clone(), log: turn.log.clone() });
        let id = turn.ids.turn;
        if slots.by_connection.get(&turn.ids.connection).is_some_and(|other| other.ids.turn == id) {
            slots.by_connection.remove(&turn.ids.connection);
        }
        if slots.by_conversation.get(&turn.ids.conversation).is_some_and(|other| other.ids.turn == id) {
            slots.by_conversation.remove(&turn.ids.conversation);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningTurn {
    /// Decides that the turn ends now. `true` for the one caller who may then say how, with
    /// [`finish`](RunningTurn::finish).
    pub(crate) fn claim_end(&self) -> bool {
        !self.ending.swap(true, Ordering::AcqRel)
    }

    /// Frees the slots and appends the terminal event; only after [`claim_end`](RunningTurn::claim_end).
    pub(crate) fn finish(&self, terminal: Event) {
        let mut ends_now = false;
        let bytes = self.log.finish(terminal, || {
            self.registry.release(self);
            ends_now = true;
        });
        if ends_now {
            let too_much = self.registry.lock().ended.settle(self.ids.turn, bytes, Instant::now());
            too_much.now();
        }
        self.cancelled.cancel();
    }

    /// Stops the turn: exactly one `cancelled`, nothing after it. Returns `false` when it was ending already.
    pub(crate) fn cancel(&self) -> bool {
        let mine = self.claim_end();
        if mine {
            self.finish(Event::Cancelled);
        }
        mine
    }
}

/// Held by the turn's own task. Dropping it ends a turn that nobody ended, so that a bug in the turn costs one error
/// and never a slot.
pub(crate) struct TurnGuard {
    turn: Arc<RunningTurn>,
}

impl TurnGuard {
    /// The turn.
    pub(crate) fn turn(&self) -> &Arc<RunningTurn> {
        &self.turn
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        self.turn.claim_end();
        self.turn.finish(Event::error(ErrorCode::AgentError, "the turn failed inside the server"));
    }
}
