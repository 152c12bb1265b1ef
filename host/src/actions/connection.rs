//! What is known of the connection that a frame came on.

use std::collections::{HashMap, VecDeque};

use crate::{
    auth::Caller,
    ids::{ConnectionId, ConversationId, RequestId},
    outgoing::EventSender,
    protocol::EventFrame,
    turn::{Attendance, AttendanceGuard},
};

/// How many ended turns a connection remembers, to tell a late Stop from a new one.
const ENDED_TURNS_MAX: usize = 32;

/// One open WebSocket, as actions see it. Owned by its reader; dropped when the socket closes.
pub(crate) struct Connection {
    /// Its id.
    pub(crate) id: ConnectionId,
    /// Who speaks, and what they may see.
    pub(crate) caller: Caller,
    sender: EventSender,
    attending: HashMap<ConversationId, AttendanceGuard>,
    started: VecDeque<RequestId>,
}

impl Connection {
    /// A connection that has done nothing yet.
    pub(crate) fn new(id: ConnectionId, sender: EventSender, caller: Caller) -> Self {
        Self { id, caller, sender, attending: HashMap::new(), started: VecDeque::new() }
    }

    /// Queues a frame for the client.
    pub(crate) fn send(&self, frame: EventFrame) {
        self.sender.send(frame, false);
    }

    /// The connection's queue.
    pub(crate) fn sender(&self) -> &EventSender {
        &self.sender
    }

    /// Notes that this connection created or named a session of the conversation, and so can answer for it.
    pub(crate) fn attend(&mut self, attendance: &Attendance, conversation: ConversationId) {
        self.attending.entry(conversation).or_insert_with(|| attendance.attend(conversation));
    }

    /// Notes that a turn started under this id.
    pub(crate) fn remember_turn(&mut self, request_id: RequestId) {
        if self.started.len() == ENDED_TURNS_MAX {
            self.started.pop_front();
        }
        self.started.push_back(request_id);
    }

    /// Whether a turn of this connection was started under this id, lately.
    pub(crate) fn started_turn(&self, request_id: &RequestId) -> bool {
        self.started.contains(request_id)
    }
}
