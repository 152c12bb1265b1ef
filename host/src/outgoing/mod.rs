//! The way out of the server: one bounded queue per connection. Turns and actions hold an [`EventSender`], the
//! connection's writer holds the [`EventReceiver`].
//!
//! ```text
//! turn ───┐
//! action ─┼─ EventSender::send ─▶ queue ─▶ EventReceiver::recv_batch ─▶ writer
//! turn ───┘       never waits
//! ```
//!
//! Sending never waits, so a client that does not read can never stop a turn: when its queue is full, its connection
//! is closed and the turn goes on. What was sent before [`EventSender::close`] is still delivered.
//!
//! What a client asked to be sent again is the exception: there may be much of it, and nobody waits for its sender, so
//! it goes out as fast as the client reads ([`EventSender::send_if_room`], [`EventSender::room`]).

mod open;
mod queue;
mod subscriptions;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

pub(crate) use open::OpenQueues;
use queue::Queue;
pub(crate) use queue::QueueLimits;
pub(crate) use subscriptions::{Subscription, Subscriptions, Target};

use crate::protocol::EventFrame;

/// One event on its way to one connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outgoing {
    /// The event; a turn's log and other connections may share it.
    pub(crate) frame: Arc<EventFrame>,
    /// Whether the session it goes to declared `resume` and so gets numbers.
    pub(crate) with_seq: bool,
}

impl Outgoing {
    /// The frame's text in a buffer of its own.
    pub(crate) fn to_json(&self) -> String {
        self.frame.to_json(self.with_seq)
    }
}

/// An event with its [`wire_len`](EventFrame::wire_len), so that it is measured once, and before a lock is taken.
#[derive(Clone, Debug)]
pub(crate) struct SizedFrame {
    /// The event.
    pub(crate) frame: Arc<EventFrame>,
    /// About how many bytes its frame has.
    pub(crate) bytes: usize,
}

impl From<EventFrame> for SizedFrame {
    fn from(frame: EventFrame) -> Self {
        Arc::new(frame).into()
    }
}

impl From<Arc<EventFrame>> for SizedFrame {
    fn from(frame: Arc<EventFrame>) -> Self {
        Self { bytes: frame.wire_len(), frame }
    }
}

/// Why nothing more can be sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// Its client does not read what it is sent; what waited is dropped.
    SlowClient,
    /// The server stops.
    ShuttingDown,
    /// The client sent a frame that is too large.
    FrameTooLarge,
    /// The client has gone, or its connection broke.
    ConnectionGone,
    /// All senders were dropped.
    Finished,
}

impl CloseReason {
    /// The code of the close frame; `None` when there is nobody to send one to.
    pub(crate) fn code(self) -> Option<u16> {
        match self {
            CloseReason::SlowClient => Some(1013),
            CloseReason::ShuttingDown => Some(1001),
            CloseReason::FrameTooLarge => Some(1009),
            CloseReason::Finished => Some(1000),
            CloseReason::ConnectionGone => None,
        }
    }

    /// The text of the close frame.
    pub(crate) fn text(self) -> &'static str {
        match self {
            CloseReason::SlowClient => "the client reads too slowly",
            CloseReason::ShuttingDown => "the server is shutting down",
            CloseReason::FrameTooLarge => "the frame is too large",
            CloseReason::ConnectionGone => "the connection is gone",
            CloseReason::Finished => "nothing is left to send",
        }
    }
}

/// Makes the queue of one connection.
pub(crate) fn channel(limits: QueueLimits) -> (EventSender, EventReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: Queue::new(limits),
            closed: None,
            is_receiver_waiting: false,
            is_room_awaited: false,
        }),
        senders: AtomicUsize::new(1),
        ready: Notify::new(),
        room: Notify::new(),
        closed: Notify::new(),
    });
    (EventSender { shared: shared.clone() }, EventReceiver { shared })
}

/// The handle through which events leave; cheap to clone, one per turn or action.
pub(crate) struct EventSender {
    shared: Arc<Shared>,
}

/// The writer's end of the queue. Dropping it closes the connection for all senders.
pub(crate) struct EventReceiver {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held for a few lines, never across an await.
    state: Mutex<State>,
    senders: AtomicUsize,
    /// Wakes the writer.
    ready: Notify,
    /// Wakes those who send something again.
    room: Notify,
    /// Wakes those who wait for the end.
    closed: Notify,
}

struct State {
    queue: Queue,
    closed: Option<CloseReason>,
    /// Set by a writer that found nothing, so that senders wake it only then.
    is_receiver_waiting: bool,
    /// Set by those who wait for room, so that the writer wakes them only then.
    is_room_awaited: bool,
}

/// Why [`EventSender::send_if_room`] did not queue an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// Too much waits; there will be [`room`](EventSender::room).
    NoRoom {
        /// What the event needs.
        bytes: usize,
    },
    /// The connection is closed.
    Closed,
}

/// Bytes of frames that the writer takes at a time. They no longer count as waiting, so this is kept small.
const BATCH_BYTES: usize = 64 * 1024;

impl EventSender {
    /// Queues an event and says whether the connection is still open. Never waits. `with_seq` says that the session it
    /// goes to declared `resume`.
    ///
    /// When the queue is full, the connection is closed with [`CloseReason::SlowClient`].
    pub(crate) fn send(&self, frame: impl Into<SizedFrame>, with_seq: bool) -> bool {
        self.send_all([frame.into()], with_seq)
    }

    /// As [`send`](Self::send), for several events: the writer wakes once for all of them.
    pub(crate) fn send_all(&self, frames: impl IntoIterator<Item = SizedFrame>, with_seq: bool) -> bool {
        let mut state = self.shared.lock();
        if state.closed.is_some() {
            return false;
        }
        for SizedFrame { frame, bytes } in frames {
            if state.queue.push(Outgoing { frame, with_seq }, bytes).is_err() {
                self.shared.close(state, CloseReason::SlowClient);
                return false;
            }
        }
        let is_waiting = !state.queue.is_empty() && std::mem::take(&mut state.is_receiver_waiting);
        drop(state);
        if is_waiting {
            self.shared.ready.notify_one();
        }
        true
    }

    /// As [`send`](Self::send), but never fills the queue by more than half, so that a long replay leaves room for what
    /// happens meanwhile. Refusing costs nothing: the connection stays as it was.
    pub(crate) fn send_if_room(&self, frame: &Arc<EventFrame>, with_seq: bool) -> Result<(), NotSent> {
        let bytes = frame.wire_len();
        {
            let state = self.shared.lock();
            if state.closed.is_some() {
                return Err(NotSent::Closed);
            }
            if !state.queue.has_room_for(bytes) {
                return Err(NotSent::NoRoom { bytes });
            }
        }
        // Meanwhile others may have sent; the other half of the queue is there for that.
        if self.send(frame.clone(), with_seq) { Ok(()) } else { Err(NotSent::Closed) }
    }

    /// Completes when [`send_if_room`](Self::send_if_room) would take an event of so many bytes, or when nothing more
    /// can be sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn room(&self, bytes: usize) {
        loop {
            // Made before the look, so that room made between the look and the wait is not missed.
            let notified = self.shared.room.notified();
            {
                let mut state = self.shared.lock();
                if state.closed.is_some() || state.queue.has_room_for(bytes) {
                    return;
                }
                state.is_room_awaited = true;
            }
            notified.await;
        }
    }

    /// Ends the connection for this reason, unless it has ended for another. What waits is delivered before, except
    /// for a slow client's.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.shared.close(self.shared.lock(), reason);
    }

    /// Why nothing more can be sent; `None` while it can.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.shared.lock().closed
    }

    /// Completes when nothing more can be sent, and says why.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn closed(&self) -> CloseReason {
        self.shared.closed(|_| true).await
    }

    /// Bytes of frames that wait for this connection.
    #[cfg(test)]
    fn queued_bytes(&self) -> usize {
        self.shared.lock().queue.bytes()
    }
}

impl Clone for EventSender {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone() }
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close(CloseReason::Finished);
        }
    }
}

impl EventReceiver {
    /// Waits for events and moves some to the end of `batch`, at least one and not more than the writer should hold at
    /// a time. An error says that nothing will ever come again, and why.
    ///
    /// # Cancel safety
    ///
    /// An event leaves the queue only in the call that returns it: dropping the future loses nothing.
    pub(crate) async fn recv_batch(&mut self, batch: &mut Vec<Outgoing>) -> Result<(), CloseReason> {
        loop {
            {
                let mut state = self.shared.lock();
                if !state.queue.is_empty() {
                    state.queue.pop_batch(batch, BATCH_BYTES);
                    if std::mem::take(&mut state.is_room_awaited) {
                        self.shared.room.notify_waiters();
                    }
                    return Ok(());
                }
                if let Some(reason) = state.closed {
                    return Err(reason);
                }
                state.is_receiver_waiting = true;
            }
            self.shared.ready.notified().await;
        }
    }

    /// Completes when the client has proved too slow: a writer that is stuck in a write gives up then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn overflowed(&self) {
        self.shared.closed(|reason| reason == CloseReason::SlowClient).await;
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.queue.clear();
        self.shared.close(state, CloseReason::ConnectionGone);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; were it so, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, mut state: MutexGuard<'_, State>, reason: CloseReason) {
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason);
        if reason == CloseReason::SlowClient {
            state.queue.clear();
        }
        drop(state);
        self.ready.notify_one();
        self.room.notify_waiters();
        self.closed.notify_waiters();
    }

    /// Waits until the connection is closed for a reason that counts.
    async fn closed(&self, counts: impl Fn(CloseReason) -> bool) -> CloseReason {
        loop {
            // Made before the look, so that a close between the look and the wait is not missed.
            let notified = self.closed.notified();
            if let Some(reason) = self.lock().closed.filter(|reason| counts(*reason)) {
                return reason;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventSender").field("closed", &self.close_reason()).finish_non_exhaustive()
    }
}

impl fmt::Debug for EventReceiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventReceiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
