//! The bounded queue of one connection: push, merge, pop, full. Pure: no lock, no task, no clock.
//!
//! Order is kept, nothing is dropped and nothing is altered, except that under pressure adjacent tokens of one turn
//! become one token with the same text. When even that does not fit, the queue refuses, and the connection is closed:
//! a client that misses one event would be wrong about everything after it.

use std::{collections::VecDeque, sync::Arc};

use super::Outgoing;
use crate::protocol::{Event, EventFrame};

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Bytes of frames. One frame that is larger is taken when nothing else waits. Default 1 MiB.
    pub(crate) bytes: usize,
    /// Events. Default 4096.
    pub(crate) events: usize,
}

impl From<&crate::config::Limits> for QueueLimits {
    fn from(limits: &crate::config::Limits) -> Self {
        Self { bytes: limits.outgoing_bytes, events: limits.outgoing_events }
    }
}

/// What waits for one connection, oldest first.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// One event with the size of its frame, so that it is measured once.
#[derive(Debug)]
struct Waiting {
    outgoing: Outgoing,
    bytes: usize,
}

/// The queue has no room for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{events} events of {bytes} bytes wait for this connection, which is all it may have")]
pub(crate) struct Overflow {
    /// Events that wait.
    pub(crate) events: usize,
    /// Bytes that wait.
    pub(crate) bytes: usize,
}

/// From this part of either limit on, adjacent tokens are merged. A client that reads as fast as tokens come never
/// gets there, and so sees each token as the model sent it.
const PRESSURE_PART: usize = 16;

impl Queue {
    /// An empty queue.
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), bytes: 0 }
    }

    /// Appends an event whose frame has about `bytes` bytes ([`EventFrame::wire_len`], asked before a lock is taken).
    pub(crate) fn push(&mut self, outgoing: Outgoing, bytes: usize) -> Result<(), Overflow> {
        if self.is_under_pressure() && self.merge(&outgoing)? {
            return Ok(());
        }
        let fits = self.waiting.len() < self.limits.events && self.bytes.saturating_add(bytes) <= self.limits.bytes;
        if !fits && !self.waiting.is_empty() {
            return Err(self.overflow());
        }
        self.bytes += bytes;
        self.waiting.push_back(Waiting { outgoing, bytes });
        Ok(())
    }

    /// Moves the oldest events to the end of `batch`: at least one if any waits, and then as many as fit into `bytes`.
    pub(crate) fn pop_batch(&mut self, batch: &mut Vec<Outgoing>, bytes: usize) {
        let mut popped = 0;
        while let Some(next) = self.waiting.front() {
            if popped > 0 && popped + next.bytes > bytes {
                return;
            }
            popped += next.bytes;
            self.bytes -= next.bytes;
            batch.extend(self.waiting.pop_front().map(|next| next.outgoing));
        }
    }

    /// Forgets everything and gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
    }

    /// Whether an event of so many bytes would fill the queue by no more than half of either limit. An empty queue has
    /// room for anything.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let fits =
            self.waiting.len() < self.limits.events / 2 && self.bytes.saturating_add(bytes) <= self.limits.bytes / 2;
        self.is_empty() || fits
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Events that wait.
    pub(crate) fn events(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of frames that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_under_pressure(&self) -> bool {
        self.waiting.len() >= self.limits.events.div_ceil(PRESSURE_PART)
            || self.bytes >= self.limits.bytes.div_ceil(PRESSURE_PART)
    }

    /// Appends a token to the last event's, if both are of one kind and one turn. Says whether it did.
    fn merge(&mut self, outgoing: &Outgoing) -> Result<bool, Overflow> {
        let (free, overflow) = (self.limits.bytes.saturating_sub(self.bytes), self.overflow());
        let Some(last) = self.waiting.back_mut() else { return Ok(false) };
        let Some(token) = mergeable(&last.outgoing, outgoing) else { return Ok(false) };
        // Written out, a token stands twice in its frame.
        let added = 2 * token.len();
        if added > free {
            return Err(overflow);
        }
        append(&mut last.outgoing.frame, token, outgoing.frame.timestamp_ms);
        last.bytes += added;
        self.bytes += added;
        Ok(true)
    }

    fn overflow(&self) -> Overflow {
        Overflow { events: self.events(), bytes: self.bytes() }
    }
}

/// The token to append to `last`; `None` when the two must stay apart. Numbered frames of a session that sees the
/// numbers always do: a merged one would leave a hole in them.
fn mergeable<'a>(last: &Outgoing, next: &'a Outgoing) -> Option<&'a str> {
    let shows_seq = |outgoing: &Outgoing| outgoing.with_seq && outgoing.frame.seq.is_some();
    if shows_seq(last) || shows_seq(next) || last.frame.request_id != next.frame.request_id {
        return None;
    }
    match (&last.frame.event, &next.frame.event) {
        (Event::StreamToken(_), Event::StreamToken(token)) => Some(token),
        (Event::StreamReasoning(_), Event::StreamReasoning(token)) => Some(token),
        _ => None,
    }
}

/// Appends to a token event. The frame is copied when a turn's log shares it, which is so only the first time: a long
/// run of merges costs its text once.
fn append(frame: &mut Arc<EventFrame>, token: &str, timestamp_ms: i64) {
    let frame = Arc::make_mut(frame);
    frame.timestamp_ms = timestamp_ms;
    if let Event::StreamToken(text) | Event::StreamReasoning(text) = &mut frame.event {
        text.push_str(token);
    }
}

#[cfg(test)]
mod tests;
