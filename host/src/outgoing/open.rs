//! All open queues of a server, to be looked at from outside. A queue is not kept open by being looked at.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{EventSender, Shared};
use crate::ids::ConnectionId;

/// The queues of all open connections.
#[derive(Clone, Default)]
pub(crate) struct OpenQueues {
    /// Held for a few lines; a queue's own lock may be taken under it, never the other way round.
    queues: Arc<Mutex<HashMap<ConnectionId, Weak<Shared>>>>,
}

/// All queues at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueTotals {
    /// How many there are.
    pub(crate) connections: usize,
    /// Bytes that wait in them.
    pub(crate) bytes: usize,
}

impl OpenQueues {
    /// Counts this queue until the guard is dropped.
    pub(crate) fn add(&self, connection: ConnectionId, sender: &EventSender) -> OpenQueue {
        self.lock().insert(connection, Arc::downgrade(&sender.shared));
        OpenQueue { all: self.clone(), connection }
    }

    /// Adds them up.
    pub(crate) fn totals(&self) -> QueueTotals {
        let queues = self.lock();
        let open = queues.values().filter_map(Weak::upgrade);
        QueueTotals { connections: queues.len(), bytes: open.map(|shared| shared.lock().queue.bytes()).sum() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ConnectionId, Weak<Shared>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One queue's place among the open ones.
#[must_use = "the queue is counted until this is dropped"]
pub(crate) struct OpenQueue {
    all: OpenQueues,
    connection: ConnectionId,
}

impl Drop for OpenQueue {
    fn drop(&mut self) {
        self.all.lock().remove(&self.connection);
    }
}
