//! Turns that are over and can still be asked about. Pure, except that it tells logs to forget; it is told the time.
//!
//! ```text
//! ended ── its events can be replayed ──▶ forgotten ── its ids and its last number are known ──▶ gone
//!             until the next turn of the conversation,         until there are too many
//!             some minutes later, or when too much is kept
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{log::TurnLog, registry::TurnIds};
use crate::{
    config::Limits,
    ids::{ConversationId, TurnId},
    protocol::action::TurnChoice,
};

/// A turn that is over.
#[derive(Clone)]
pub(super) struct EndedTurn {
    /// Who it was.
    pub(super) ids: TurnIds,
    /// Its events, as long as they are kept.
    pub(super) log: Arc<TurnLog>,
}

/// See the module.
pub(super) struct EndedTurns {
    /// `Limits::turn_log_retention`.
    retention: Duration,
    /// `Limits::turn_logs_bytes`.
    bytes_max: usize,
    /// `Limits::turns_remembered`.
    turns_max: usize,
    turns: HashMap<TurnId, EndedTurn>,
    last_of: HashMap<ConversationId, TurnId>,
    /// All of `turns`, in the order they ended.
    order: VecDeque<TurnId>,
    /// Those whose events are kept, in the order they ended; some may have been forgotten since.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
}

struct Kept {
    turn: TurnId,
    ended_at: Instant,
    bytes: usize,
}

/// Logs to be told to forget, once no lock is held that a log's own might wait for.
#[must_use = "the events stay in memory until the logs are told"]
pub(super) struct ToForget(Vec<Arc<TurnLog>>);

impl ToForget {
    /// Drops the events.
    pub(super) fn now(self) {
        self.0.iter().for_each(|log| log.forget());
    }
}

impl EndedTurns {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            retention: limits.turn_log_retention,
            bytes_max: limits.turn_logs_bytes,
            turns_max: limits.turns_remembered,
            turns: HashMap::new(),
            last_of: HashMap::new(),
            order: VecDeque::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// Takes in a turn that ends now. What its log keeps is told with [`settle`](Self::settle), after the last event.
    pub(super) fn insert(&mut self, turn: EndedTurn) {
        let id = turn.ids.turn;
        self.last_of.insert(turn.ids.conversation, id);
        self.turns.insert(id, turn);
        self.order.push_back(id);
        while self.order.len() > self.turns_max.max(1) {
            let Some(gone) = self.order.pop_front().and_then(|oldest| self.turns.remove(&oldest)) else { continue };
            if self.last_of.get(&gone.ids.conversation) == Some(&gone.ids.turn) {
                self.last_of.remove(&gone.ids.conversation);
            }
        }
    }

    /// Notes how many bytes of events are kept of a turn that has just ended.
    pub(super) fn settle(&mut self, turn: TurnId, bytes: usize, now: Instant) -> ToForget {
        self.kept.push_back(Kept { turn, ended_at: now, bytes });
        self.kept_bytes += bytes;
        self.expire(now)
    }

    /// Picks the logs whose time is over, and the oldest of those that are too much together.
    pub(super) fn expire(&mut self, now: Instant) -> ToForget {
        let mut logs = Vec::new();
        while let Some(oldest) = self.kept.front() {
            let is_due = now >= oldest.ended_at + self.retention || self.kept_bytes > self.bytes_max;
            if !is_due {
                break;
            }
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.bytes;
            logs.extend(self.turns.get(&oldest.turn).map(|turn| turn.log.clone()));
        }
        ToForget(logs)
    }

    /// Picks the log of the conversation's last turn, because its next one starts.
    pub(super) fn next_begins(&mut self, conversation: ConversationId) -> ToForget {
        let last = self.last_of.get(&conversation).and_then(|last| self.turns.get(last));
        let Some(EndedTurn { ids, log }) = last else { return ToForget(Vec::new()) };
        // Conversations go on soon or not at all, so the entry is near the end.
        if let Some(kept) = self.kept.iter_mut().rfind(|kept| kept.turn == ids.turn) {
            self.kept_bytes -= std::mem::take(&mut kept.bytes);
        }
        ToForget(vec![log.clone()])
    }

    /// The turn of this conversation that is meant.
    pub(super) fn find(&self, conversation: ConversationId, choice: TurnChoice) -> Option<&EndedTurn> {
        let id = match choice {
            TurnChoice::Latest => *self.last_of.get(&conversation)?,
            TurnChoice::Named(id) => id?,
        };
        self.turns.get(&id).filter(|turn| turn.ids.conversation == conversation)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::{SharedClock, SystemClock},
        ids::{ConnectionId, RequestId, SessionId},
        outgoing,
        protocol::Event,
        turn::log::{Dialect, Standing, Subscriber},
    };

    fn limits() -> Limits {
        Limits {
            turn_log_retention: Duration::from_secs(300),
            turn_logs_bytes: 1000,
            turns_remembered: 3,
            ..Limits::default()
        }
    }

    fn conversation(number: u128) -> ConversationId {
        ConversationId(Uuid::from_u128(number))
    }

    /// A turn of a conversation that has ended, with some events.
    fn ended(turn: u128, of: u128) -> EndedTurn {
        let ids = TurnIds {
            turn: TurnId(Uuid::from_u128(turn)),
            conversation: conversation(of),
            session: SessionId(Uuid::nil()),
            connection: ConnectionId(Uuid::nil()),
            request: RequestId::new("m1"),
        };
        let (sender, _) = outgoing::channel((&Limits::default()).into());
        let subscriber = Subscriber { connection: ids.connection, sender, dialect: Dialect::default() };
        let clock: SharedClock = Arc::new(SystemClock);
        let log = Arc::new(TurnLog::new(ids.request.clone(), clock, 1000, subscriber));
        log.finish(Event::Cancelled, || {});
        EndedTurn { ids, log }
    }

    fn standing(turn: &EndedTurn) -> Standing {
        let (sender, _receiver) = outgoing::channel((&Limits::default()).into());
        let subscriber = Subscriber { connection: turn.ids.connection, sender, dialect: Dialect::default() };
        let mut seen = Standing::Open;
        turn.log.resume(subscriber, 0, |_, standing| {
            seen = standing;
            crate::protocol::EventFrame::new(None, 0, Event::Pong)
        });
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_kept_for_a_time_and_the_ids_for_longer() {
        let mut turns = EndedTurns::new(&limits());
        let first = ended(1, 1);
        turns.insert(first.clone());
        turns.settle(first.ids.turn, 100, Instant::now()).now();
        tokio::time::advance(Duration::from_secs(299)).await;
        turns.expire(Instant::now()).now();
        assert_eq!(standing(&first), Standing::Finished);
        tokio::time::advance(Duration::from_secs(1)).await;
        turns.expire(Instant::now()).now();
        assert_eq!(standing(&first), Standing::Forgotten);
        assert_eq!(turns.kept_bytes, 0);
        assert!(turns.find(conversation(1), TurnChoice::Latest).is_some());
    }

    #[tokio::test]
    async fn the_next_turn_takes_the_place_of_the_last() {
        let mut turns = EndedTurns::new(&limits());
        let [first, second] = [ended(1, 1), ended(2, 1)];
        for turn in [&first, &second] {
            turns.next_begins(conversation(1)).now();
            turns.insert(turn.clone());
            turns.settle(turn.ids.turn, 100, Instant::now()).now();
        }
        assert_eq!((standing(&first), standing(&second)), (Standing::Forgotten, Standing::Finished));
        assert_eq!(turns.kept_bytes, 100);
        let found = |choice| turns.find(conversation(1), choice).map(|turn| turn.ids.turn);
        assert_eq!(found(TurnChoice::Latest), Some(second.ids.turn));
        assert_eq!(found(TurnChoice::Named(Some(first.ids.turn))), Some(first.ids.turn));
        assert_eq!(found(TurnChoice::Named(None)), None);
        assert!(turns.find(conversation(2), TurnChoice::Named(Some(first.ids.turn))).is_none(), "not of that one");
    }

    #[tokio::test]
    async fn too_much_and_too_many_cost_the_oldest() {
        let mut turns = EndedTurns::new(&limits());
        let all: Vec<EndedTurn> = (1..=4).map(|number| ended(number, number)).collect();
        for turn in &all {
            turns.insert(turn.clone());
            turns.settle(turn.ids.turn, 400, Instant::now()).now();
        }
        let standings: Vec<Standing> = all.iter().map(standing).collect();
        assert_eq!(standings[2..], [Standing::Finished, Standing::Finished], "two times 400 bytes fit into 1000");
        assert_eq!(turns.kept_bytes, 800);
        assert!(turns.find(conversation(1), TurnChoice::Latest).is_none(), "three turns are remembered");
        assert!(turns.find(conversation(2), TurnChoice::Latest).is_some());
        assert_eq!((turns.turns.len(), turns.last_of.len(), turns.order.len()), (3, 3, 3));
    }
}
