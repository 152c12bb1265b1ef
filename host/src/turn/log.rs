//! The events of one turn: numbered from 1 without gaps, kept within a byte bound, and passed on to every connection
//! that subscribes. After the terminal event nothing more is accepted, whoever tries.
//!
//! ```text
//! open ──append──▶ open ──finish(terminal)──▶ closed
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    clock::SharedClock,
    ids::{ConnectionId, RequestId},
    outgoing::EventSender,
    protocol::{Event, EventFrame},
};

/// Who gets a turn's events, and in which dialect.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    /// One connection subscribes at most once.
    pub(crate) connection: ConnectionId,
    /// Its queue.
    pub(crate) sender: EventSender,
    /// Whether its session declared `resume`, so that it sees `seq`.
    pub(crate) with_seq: bool,
}

impl Subscriber {
    /// A subscriber that sees what published clients know.
    pub(crate) fn new(connection: ConnectionId, sender: EventSender) -> Self {
        Self { connection, sender, with_seq: false }
    }
}

/// See the module.
pub(crate) struct TurnLog {
    request_id: RequestId,
    clock: SharedClock,
    bytes_max: usize,
    /// Held for a few lines, never across an await. Events are passed on under it, so that all subscribers see one
    /// order.
    state: Mutex<State>,
}

/// A frame with its [`wire_len`](EventFrame::wire_len), so that it is measured once.
type SizedFrame = (Arc<EventFrame>, usize);

struct State {
    kept: VecDeque<SizedFrame>,
    kept_bytes: usize,
    last_seq: u64,
    subscribers: Vec<Subscriber>,
    closed: bool,
}

impl TurnLog {
    /// An empty log. `bytes_max` bounds what is kept for those who come back; the oldest events go first.
    pub(crate) fn new(request_id: RequestId, clock: SharedClock, bytes_max: usize, first: Subscriber) -> Self {
        let state =
            State { kept: VecDeque::new(), kept_bytes: 0, last_seq: 0, subscribers: vec![first], closed: false };
        Self { request_id, clock, bytes_max, state: Mutex::new(state) }
    }

    /// Numbers the event, keeps it and passes it on. Does nothing after the terminal event.
    pub(crate) fn append(&self, event: Event) {
        self.append_all([event]);
    }

    /// As [`append`](Self::append), with nothing of this turn between the events: neither another event nor an answer
    /// that is given [`between_events`](Self::between_events).
    pub(crate) fn append_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.lock();
        if !state.closed {
            let frames: Vec<EventFrame> = events.into_iter().map(|event| self.frame(event)).collect();
            state.append(frames, self.bytes_max);
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
        if !state.closed {
            let frame = Arc::new(self.frame(event));
            let bytes = frame.wire_len();
            state.pass_on(&[(frame, bytes)]);
        }
    }

    /// Adds a receiver of what follows; one that is there already is replaced.
    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        let mut state = self.lock();
        state.subscribers.retain(|other| other.connection != subscriber.connection);
        state.subscribers.push(subscriber);
    }

    /// Ends the turn: runs `release`, then appends the terminal event, so that whoever reads the event can already
    /// start the next turn. `None` ends it without a word. Later appends do nothing.
    pub(crate) fn finish(&self, terminal: Option<Event>, release: impl FnOnce()) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        release();
        if let Some(event) = terminal {
            state.append(vec![self.frame(event)], self.bytes_max);
        }
        state.closed = true;
        state.subscribers.clear();
    }

    fn frame(&self, event: Event) -> EventFrame {
        EventFrame::new(Some(self.request_id.clone()), self.clock.now().as_millisecond(), event)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, frames: Vec<EventFrame>, bytes_max: usize) {
        let numbered = frames.into_iter().map(|mut frame| {
            self.last_seq += 1;
            frame.seq = Some(self.last_seq);
            let bytes = frame.wire_len();
            (Arc::new(frame), bytes)
        });
        let numbered: Vec<_> = numbered.collect();
        self.pass_on(&numbered);
        self.kept_bytes += numbered.iter().map(|(_, bytes)| bytes).sum::<usize>();
        self.kept.extend(numbered);
        while self.kept_bytes > bytes_max {
            let Some((_, bytes)) = self.kept.pop_front() else { break };
            self.kept_bytes -= bytes;
        }
    }

    fn pass_on(&self, frames: &[SizedFrame]) {
        for subscriber in &self.subscribers {
            subscriber.sender.send_all(frames.iter().cloned(), subscriber.with_seq);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::{clock::SystemClock, config::Limits, outgoing};

    #[tokio::test]
    async fn an_answer_does_not_get_between_events_that_are_appended_together() {
        let (sender, mut receiver) = outgoing::channel((&Limits::default()).into());
        let clock: SharedClock = Arc::new(SystemClock);
        let subscriber = Subscriber::new(ConnectionId(clock.new_id()), sender.clone());
        let log = TurnLog::new(RequestId::new("m1"), clock.clone(), 1024, subscriber);
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
                Event::StreamToken("second".to_owned())
            });
            log.append_all(std::iter::once(Event::StreamToken("first".to_owned())).chain(second));
        });

        let mut batch = Vec::new();
        receiver.recv_batch(&mut batch).await.unwrap();
        let events: Vec<Event> = batch.iter().map(|outgoing| outgoing.frame.event.clone()).collect();
        let token = |text: &str| Event::StreamToken(text.to_owned());
        assert_eq!(events, [token("first"), token("second"), Event::Pong]);
    }
}
