//! The events of one turn: numbered from 1 without gaps, kept within a byte bound, and passed on to every connection
//! that follows the turn. After the terminal event nothing more is accepted, whoever tries.
//!
//! ```text
//! open ──append──▶ open ──finish(terminal)──▶ closed ──forget──▶ forgotten (the numbers stay, the events go)
//!
//! a follower:  behind ── has got every kept event ──▶ live ──▶ gone (turn over, connection closed)
//!                └── reads more slowly than events are dropped ──▶ its connection is closed, and it may come back
//! ```

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::kept::Kept;
use crate::{
    clock::SharedClock,
    ids::{ConnectionId, RequestId},
    outgoing::{CloseReason, EventSender, NotSent, SizedFrame},
    protocol::{Event, EventFrame, capabilities},
    storage::Session,
};

/// Which of the optional parts of a turn's events a session gets: what it declared itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Numbers, and the turn's id in its acknowledgement.
    pub(crate) resume: bool,
    /// Progress chunks of running tools.
    pub(crate) tool_progress: bool,
}

impl Dialect {
    /// What this session's own create frame asked for.
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            resume: session.declares(capabilities::RESUME),
            tool_progress: session.declares(capabilities::TOOL_PROGRESS),
        }
    }

    fn shows(self, event: &Event) -> bool {
        self.tool_progress || !event.is_tool_progress()
    }
}

/// Who gets a turn's events, and in which dialect.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    /// One connection follows a turn at most once.
    pub(crate) connection: ConnectionId,
    /// Its queue.
    pub(crate) sender: EventSender,
    /// What it gets to see.
    pub(crate) dialect: Dialect,
}

/// How a turn stands, as far as its events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It goes on.
    Open,
    /// It is over, and its end can be replayed.
    Finished,
    /// It is over, and its events are gone.
    Forgotten,
}

/// See the module.
pub(crate) struct TurnLog {
    request_id: RequestId,
    clock: SharedClock,
    /// Held for a few lines, never across an await. Events are passed on under it, so that all followers see one
    /// order.
    state: Mutex<State>,
}

struct State {
    kept: Kept,
    followers: Vec<Follower>,
    standing: Standing,
    /// Whether a word of the answer is out.
    has_token: bool,
}

/// One connection that follows the turn.
struct Follower {
    /// Tells two subscriptions of one connection apart.
    number: u64,
    subscriber: Subscriber,
    /// While it catches up: the number of the last event that it has got.
    behind: Option<u64>,
}

/// Numbers the subscriptions of this process.
static SUBSCRIPTIONS: AtomicU64 = AtomicU64::new(1);

impl TurnLog {
    /// An empty log. `bytes_max` bounds what is kept for those who come back; the oldest events go first.
    pub(crate) fn new(request_id: RequestId, clock: SharedClock, bytes_max: usize, first: Subscriber) -> Self {
        let followers = vec![Follower::new(first, None)];
        let state = State { kept: Kept::new(bytes_max), followers, standing: Standing::Open, has_token: false };
        Self { request_id, clock, state: Mutex::new(state) }
    }

    /// Numbers the event, keeps it and passes it on. Does nothing after the terminal event.
    pub(crate) fn append(&self, event: Event) {
        self.append_all([event]);
    }

    /// As [`append`](Self::append), with nothing of this turn between the events: neither another event nor an answer
    /// that is given [`between_events`](Self::between_events).
    pub(crate) fn append_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.lock();
        if state.standing == Standing::Open {
            state.append(events.into_iter().map(|event| self.frame(event)));
        }
    }

    /// As [`append`](Self::append), unless a word of the answer is out already.
    pub(crate) fn append_before_tokens(&self, event: Event) {
        let mut state = self.lock();
        if state.standing == Standing::Open && !state.has_token {
            state.append([self.frame(event)]);
        }
    }

    /// Runs `send`, which queues the answer to a frame about this turn. It must be quick and must not use this log.
    ///
    /// Rationale: the reply to a human's answer goes to one connection and is not an event of the turn, but it must not
    /// get in between the question and the chunk that belongs to it, however quickly the answer came.
    pub(crate) fn between_events(&self, send: impl FnOnce()) {
        let _state = self.lock();
        send();
    }

    /// Passes an event on without a number and without keeping it (`keepalive`). Does nothing after the end.
    pub(crate) fn pass_on(&self, event: Event) {
        let state = self.lock();
        if state.standing == Standing::Open {
            state.pass_on(&[SizedFrame::from(self.frame(event))]);
        }
    }

    /// As [`pass_on`](Self::pass_on), without the turn's id: for an error that must not end the turn in a client's eyes.
    pub(crate) fn pass_on_by_itself(&self, event: Event) {
        let state = self.lock();
        if state.standing == Standing::Open {
            state.pass_on(&[SizedFrame::from(EventFrame { request_id: None, ..self.frame(event) })]);
        }
    }

    /// Adds a receiver of what follows, unless its connection follows the turn already.
    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        let mut state = self.lock();
        let is_known = state.followers.iter().any(|other| other.subscriber.connection == subscriber.connection);
        if !is_known && state.standing == Standing::Open {
            state.followers.push(Follower::new(subscriber, None));
        }
    }

    /// Sends the events again that come after `after_seq`, then goes on with what follows, without a gap or a
    /// duplicate between the two. `reply`, which is told the highest number so far and how the turn stands, makes the
    /// frame that goes before them; it must not use this log. A subscription that the connection has already is
    /// replaced.
    ///
    /// A replay that is longer than the connection's queue goes on in a task of its own, as fast as the client reads.
    pub(crate) fn resume(
        self: &Arc<Self>,
        subscriber: Subscriber,
        after_seq: u64,
        reply: impl FnOnce(u64, Standing) -> EventFrame,
    ) {
        let mut state = self.lock();
        state.followers.retain(|other| other.subscriber.connection != subscriber.connection);
        let last_seq = state.kept.last_seq();
        subscriber.sender.send(reply(last_seq, state.standing), false);
        if state.standing == Standing::Forgotten {
            return;
        }
        // Events that were dropped before are not missed by a client that is only now told of the first kept one.
        let has = after_seq.clamp(state.kept.lost(), last_seq);
        let sender = subscriber.sender.clone();
        let follower = Follower::new(subscriber, Some(has));
        let number = follower.number;
        state.followers.push(follower);
        if let Some(bytes) = state.catch_up(number) {
            tokio::spawn(replay(self.clone(), number, sender, bytes));
        }
    }

    /// Ends the subscription of a connection, and says whether anybody follows the turn still.
    pub(crate) fn unsubscribe(&self, connection: ConnectionId) -> bool {
        let mut state = self.lock();
        state.followers.retain(|other| other.subscriber.connection != connection);
        !state.followers.is_empty()
    }

    /// Ends the turn: runs `release`, then appends the terminal event, so that whoever reads the event can already
    /// start the next turn. Later appends do nothing. Returns the bytes of what is kept.
    pub(crate) fn finish(&self, terminal: Event, release: impl FnOnce()) -> usize {
        let mut state = self.lock();
        if state.standing == Standing::Open {
            release();
            state.append([self.frame(terminal)]);
            state.standing = Standing::Finished;
            state.followers.retain(|follower| follower.behind.is_some());
            state.kept.shrink();
        }
        state.kept.bytes()
    }

    /// Drops the events of a turn that is over.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        if state.standing == Standing::Finished {
            state.kept.forget();
            state.standing = Standing::Forgotten;
        }
    }

    fn frame(&self, event: Event) -> EventFrame {
        EventFrame::new(Some(self.request_id.clone()), self.clock.now().as_millisecond(), event)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes on with a replay as fast as its client reads, until it has caught up or its connection is closed.
async fn replay(log: Arc<TurnLog>, number: u64, sender: EventSender, mut bytes: usize) {
    loop {
        sender.room(bytes).await;
        let needed = log.lock().catch_up(number);
        match needed {
            Some(needed) => bytes = needed,
            None => return,
        }
    }
}

impl Follower {
    fn new(subscriber: Subscriber, behind: Option<u64>) -> Self {
        Self { number: SUBSCRIPTIONS.fetch_add(1, Ordering::Relaxed), subscriber, behind }
    }
}

impl State {
    fn append(&mut self, frames: impl IntoIterator<Item = EventFrame>) {
        let numbered: Vec<SizedFrame> = frames.into_iter().map(|frame| self.kept.push(frame)).collect();
        self.has_token |= numbered.iter().any(|sized| matches!(sized.frame.event, Event::StreamToken(_)));
        self.pass_on(&numbered);
    }

    fn pass_on(&self, frames: &[SizedFrame]) {
        let live = self.followers.iter().filter(|follower| follower.behind.is_none());
        for Follower { subscriber: Subscriber { sender, dialect, .. }, .. } in live {
            let shown = frames.iter().filter(|sized| dialect.shows(&sized.frame.event));
            sender.send_all(shown.cloned(), dialect.resume);
        }
    }

    /// Sends a follower what it still lacks, as long as its connection has room, and makes it live when nothing is
    /// left. `Some` says how many bytes of room it needs to go on; `None` that there is nothing to go on with.
    fn catch_up(&mut self, number: u64) -> Option<usize> {
        let index = self.followers.iter().position(|follower| follower.number == number)?;
        let Follower { subscriber: Subscriber { sender, dialect, .. }, behind, .. } = &mut self.followers[index];
        let has = behind.as_mut()?;
        if *has < self.kept.lost() {
            // What it was promised is gone, and without it everything after would be wrong.
            sender.close(CloseReason::SlowClient);
            self.followers.swap_remove(index);
            return None;
        }
        for frame in self.kept.after(*has) {
            let sent = if dialect.shows(&frame.event) { sender.send_if_room(frame, dialect.resume) } else { Ok(()) };
            match sent {
                Ok(()) => *has += 1,
                Err(NotSent::NoRoom { bytes }) => return Some(bytes),
                Err(NotSent::Closed) => {
                    self.followers.swap_remove(index);
                    return None;
                }
            }
        }
        *behind = None;
        if self.standing != Standing::Open {
            self.followers.swap_remove(index);
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{thread, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::{Clock, SystemClock},
        config::Limits,
        ids::ToolCallId,
        outgoing::{self, EventReceiver, QueueLimits},
        protocol::event::StreamChunk,
    };

    const SHOWS_ALL: Dialect = Dialect { resume: true, tool_progress: true };

    fn subscriber(limits: QueueLimits, dialect: Dialect) -> (Subscriber, EventReceiver) {
        let (sender, receiver) = outgoing::channel(limits);
        (Subscriber { connection: ConnectionId(SystemClock.new_id()), sender, dialect }, receiver)
    }

    /// A log that nobody follows.
    fn log(bytes_max: usize) -> Arc<TurnLog> {
        let (nobody, _) = subscriber((&Limits::default()).into(), Dialect::default());
        let connection = nobody.connection;
        let log = TurnLog::new(RequestId::new("m1"), Arc::new(SystemClock), bytes_max, nobody);
        log.unsubscribe(connection);
        Arc::new(log)
    }

    fn token(text: &str) -> Event {
        Event::StreamToken(text.to_owned())
    }

    fn reply(last_seq: u64, standing: Standing) -> EventFrame {
        EventFrame::new(None, 0, Event::OtpVerified { message: format!("{last_seq} {standing:?}") })
    }

    /// The numbers of what waits, 0 for what has none.
    async fn read(receiver: &mut EventReceiver) -> Vec<u64> {
        let mut batch = Vec::new();
        receiver.recv_batch(&mut batch).await.unwrap();
        batch.iter().map(|outgoing| outgoing.frame.seq.unwrap_or(0)).collect()
    }

    #[tokio::test]
    async fn an_answer_does_not_get_between_events_that_are_appended_together() {
        let (subscriber, mut receiver) = subscriber((&Limits::default()).into(), Dialect::default());
        let sender = subscriber.sender.clone();
        let log = TurnLog::new(RequestId::new("m1"), Arc::new(SystemClock), 1024, subscriber);
        let answer = EventFrame::new(None, 0, Event::Pong);

        thread::scope(|scope| {
            // Between the two events the answer is given every chance to get in.
            let second = std::iter::once_with(|| {
                scope.spawn(|| {
                    log.between_events(|| {
                        sender.send(answer, false);
                    })
                });
                thread::sleep(Duration::from_millis(50));
                token("second")
            });
            log.append_all(std::iter::once(token("first")).chain(second));
        });

        let mut batch = Vec::new();
        receiver.recv_batch(&mut batch).await.unwrap();
        let events: Vec<Event> = batch.iter().map(|outgoing| outgoing.frame.event.clone()).collect();
        assert_eq!(events, [token("first"), token("second"), Event::Pong]);
    }

    #[tokio::test]
    async fn a_replay_begins_with_the_reply_and_goes_on_with_what_follows() {
        let log = log(1 << 20);
        log.append_all(["a", "b", "c"].map(token));
        let (follower, mut receiver) = subscriber((&Limits::default()).into(), SHOWS_ALL);
        log.resume(follower.clone(), 1, reply);
        log.append(token("d"));
        log.pass_on(Event::Keepalive);
        assert_eq!(read(&mut receiver).await, [0, 2, 3, 4, 0]);
        log.resume(follower.clone(), 99, reply);
        log.finish(Event::Cancelled, || {});
        log.append(token("late"));
        assert_eq!(read(&mut receiver).await, [0, 5], "the second subscription took the place of the first");
        log.resume(follower.clone(), 4, reply);
        log.forget();
        log.resume(follower, 0, reply);
        let mut batch = Vec::new();
        receiver.recv_batch(&mut batch).await.unwrap();
        let told: Vec<&Event> = batch.iter().map(|outgoing| &outgoing.frame.event).collect();
        let said = |text: &str| Event::OtpVerified { message: text.to_owned() };
        assert_eq!(told, [&said("5 Finished"), &Event::Cancelled, &said("5 Forgotten")]);
    }

    #[tokio::test]
    async fn progress_is_left_out_for_those_who_did_not_ask_for_it() {
        let log = log(1 << 20);
        let progress = || Event::StreamChunk(StreamChunk::tool_progress("t", ToolCallId::new("c"), None, "half"));
        log.append_all([token("a"), progress(), token("b")]);
        let (follower, mut receiver) =
            subscriber((&Limits::default()).into(), Dialect { tool_progress: false, ..SHOWS_ALL });
        log.resume(follower, 0, reply);
        log.append_all([progress(), token("c")]);
        assert_eq!(read(&mut receiver).await, [0, 1, 3, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_that_is_overtaken_by_the_bound_closes_its_connection() {
        let small = QueueLimits { bytes: 1 << 20, events: 8 };
        let log = log(40 * token_frame_len());
        (0..30).for_each(|_| log.append(token("x")));
        let (follower, receiver) = subscriber(small, SHOWS_ALL);
        let sender = follower.sender.clone();
        log.resume(follower, 0, reply);
        assert_eq!(sender.close_reason(), None);
        (0..100).for_each(|_| log.append(token("x")));
        assert_eq!(sender.close_reason(), None, "a replay never fills the queue");
        drop(receiver);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!log.unsubscribe(ConnectionId(SystemClock.new_id())), "its task has taken it off the log");

        let (follower, mut receiver) = subscriber(small, SHOWS_ALL);
        let sender = follower.sender.clone();
        log.resume(follower, 0, reply);
        (0..100).for_each(|_| log.append(token("x")));
        read(&mut receiver).await;
        assert_eq!(sender.closed().await, CloseReason::SlowClient);
    }

    fn token_frame_len() -> usize {
        EventFrame::new(Some(RequestId::new("m1")), 0, token("x")).wire_len()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However events, a resume and reads of a slow client fall, the client gets every number once and in order.
        #[test]
        fn there_is_no_gap_and_no_duplicate(
            before in 0u64..60, meanwhile in prop::collection::vec(0u8..4, 0..60), after_seq in 0u64..70, is_over: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build();
            runtime.expect("a runtime can be built").block_on(async {
                let log = log(1 << 20);
                (0..before).for_each(|_| log.append(token("x")));
                let (follower, mut receiver) = subscriber(QueueLimits { bytes: 1 << 20, events: 8 }, SHOWS_ALL);
                let sender = follower.sender.clone();
                log.resume(follower, after_seq, reply);
                let (mut got, mut last) = (Vec::new(), before);
                for step in meanwhile {
                    match step {
                        0 => {
                            log.append(token("x"));
                            last += 1;
                        }
                        _ => got.extend(read_now(&mut receiver).await),
                    }
                    tokio::task::yield_now().await;
                }
                if is_over {
                    log.finish(Event::Cancelled, || {});
                    last += 1;
                }
                loop {
                    let more = read_now(&mut receiver).await;
                    if more.is_empty() {
                        break;
                    }
                    got.extend(more);
                }
                let overflowed = sender.close_reason().is_some();
                let expected: Vec<u64> = std::iter::once(0).chain(after_seq.min(before) + 1..=last).collect();
                if overflowed {
                    assert!(expected.starts_with(&got), "{got:?}");
                } else {
                    assert_eq!(got, expected);
                }
            });
        }
    }

    /// What can be read without anything else happening.
    async fn read_now(receiver: &mut EventReceiver) -> Vec<u64> {
        let mut batch = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(1), receiver.recv_batch(&mut batch)).await;
        batch.iter().map(|outgoing| outgoing.frame.seq.unwrap_or(0)).collect()
    }
}
