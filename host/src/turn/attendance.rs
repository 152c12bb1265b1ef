//! Whether somebody is there to answer: which conversations have an open connection that created one of their sessions
//! or has named one since. A wait for a human reads it, a connection writes it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::ids::ConversationId;

/// Counts the connections that attend each conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attendance {
    /// Held for a few lines, never across an await.
    counts: Arc<Mutex<HashMap<ConversationId, Attended>>>,
}

#[derive(Debug)]
struct Attended {
    connections: usize,
    present: watch::Sender<bool>,
}

impl Attendance {
    /// Notes that a connection attends the conversation, until the guard is dropped.
    pub(crate) fn attend(&self, conversation: ConversationId) -> AttendanceGuard {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let attended = counts.entry(conversation).or_insert_with(Attended::nobody);
        attended.connections += 1;
        attended.present.send_replace(true);
        AttendanceGuard { attendance: self.clone(), conversation }
    }

    /// Follows whether anybody attends the conversation.
    pub(crate) fn watch(&self, conversation: ConversationId) -> watch::Receiver<bool> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = counts.entry(conversation).or_insert_with(Attended::nobody).present.subscribe();
        // A watcher of an empty room leaves an entry behind; drop those that nobody looks at any more.
        counts.retain(|_, attended| attended.connections > 0 || attended.present.receiver_count() > 0);
        receiver
    }
}

impl Attended {
    fn nobody() -> Self {
        Self { connections: 0, present: watch::Sender::new(false) }
    }
}

/// One connection's attendance of one conversation.
#[derive(Debug)]
pub(crate) struct AttendanceGuard {
    attendance: Attendance,
    conversation: ConversationId,
}

impl Drop for AttendanceGuard {
    fn drop(&mut self) {
        let mut counts = self.attendance.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.conversation) {
            let attended = entry.get_mut();
            attended.connections -= 1;
            if attended.connections == 0 {
                attended.present.send_replace(false);
                if attended.present.receiver_count() == 0 {
                    entry.remove();
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_attended_while_any_connection_is() {
        let attendance = Attendance::default();
        let conversation = ConversationId(uuid::Uuid::nil());
        let watcher = attendance.watch(conversation);
        assert!(!*watcher.borrow());
        let first = attendance.attend(conversation);
        let second = attendance.attend(conversation);
        drop(first);
        assert!(*watcher.borrow());
        drop(second);
        assert!(!*watcher.borrow());
    }

    #[test]
    fn nothing_is_kept_of_a_conversation_nobody_attends() {
        let attendance = Attendance::default();
        let conversation = ConversationId(uuid::Uuid::nil());
        drop(attendance.attend(conversation));
        assert!(attendance.counts.lock().unwrap().is_empty());
    }
}
