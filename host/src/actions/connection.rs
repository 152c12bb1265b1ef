//! What is known of the connection that a frame came on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use crate::{
    auth::Caller,
    ids::{ConnectionId, ConversationId, RequestId},
    outgoing::{EventSender, Subscription, Subscriptions, Target},
    protocol::EventFrame,
    storage::Session,
    turn::{Attendance, AttendanceGuard, RunningTurn},
};

/// How many ended turns a connection remembers, to tell a late Stop from a new one.
const ENDED_TURNS_MAX: usize = 32;

/// One open WebSocket, as actions see it. Owned by its reader; dropped when the socket closes.
pub(crate) struct Connection {
    /// Its id.
    pub(crate) id: ConnectionId,
    /// Who speaks, and what they may see.
    pub(crate) caller: Caller,
    /// The page it comes from; absent for a program.
    pub(crate) origin: Option<String>,
    sender: EventSender,
    attending: HashMap<ConversationId, AttendanceGuard>,
    started: VecDeque<RequestId>,
    following: Vec<Weak<RunningTurn>>,
    /// What the connection itself stands for: its id, its user, its organisation.
    identity: Vec<Subscription>,
    /// What its sessions stand for; the oldest go first.
    subscribed: VecDeque<Subscription>,
}

impl Connection {
    /// A connection that has done nothing yet.
    pub(crate) fn new(id: ConnectionId, sender: EventSender, caller: Caller) -> Self {
        Self {
            id,
            caller,
            origin: None,
            sender,
            attending: HashMap::new(),
            started: VecDeque::new(),
            following: Vec::new(),
            identity: Vec::new(),
            subscribed: VecDeque::new(),
        }
    }

    /// Lets the connection hear what is published to it, to its user and to the organisation it acts for.
    pub(crate) fn listen(&mut self, subscriptions: &Subscriptions, org_id: &str) {
        let user = self.caller.principal.as_ref().map(|principal| Target::User(principal.user_id.clone()));
        let targets = [Target::Connection(self.id), Target::Org].into_iter().chain(user);
        let subscribe = |target| subscriptions.subscribe(org_id, target, self.id, self.sender.clone());
        self.identity = targets.map(subscribe).collect();
    }

    /// Lets the connection hear what is published to a session that it has created or named, and to its agent. Of more
    /// than `limit` such subscriptions the oldest go.
    pub(crate) fn listen_to_session(&mut self, subscriptions: &Subscriptions, session: &Session, limit: usize) {
        let org_id = &session.org_id;
        let of_session = Target::Session(session.id);
        if self.subscribed.iter().any(|subscription| subscription.is_to(org_id, &of_session)) {
            return;
        }
        let own = [of_session, Target::Agent(session.agent_id.clone())];
        // A widget's sessions may belong to another organisation than the anonymous connection that opened them.
        let identity = [Target::Connection(self.id), Target::Org];
        for target in own.into_iter().chain(identity) {
            let mut known = self.identity.iter().chain(&self.subscribed);
            if known.any(|subscription| subscription.is_to(org_id, &target)) {
                continue;
            }
            let subscription = subscriptions.subscribe(org_id, target, self.id, self.sender.clone());
            self.subscribed.push_back(subscription);
            if self.subscribed.len() > limit {
                self.subscribed.pop_front();
            }
        }
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

    /// Notes that the turn's events come to this connection.
    pub(crate) fn follow(&mut self, turn: &Arc<RunningTurn>) {
        self.following.retain(|other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, turn)));
        self.following.push(Arc::downgrade(turn));
    }

    /// The running turns whose events come to this connection: those that it started, resumed or stopped.
    pub(crate) fn following(&self) -> Vec<Arc<RunningTurn>> {
        let turns = self.following.iter().filter_map(Weak::upgrade);
        turns.filter(|turn| !turn.cancelled.is_cancelled()).collect()
    }

    /// Notes that a turn started under this id, or was resumed.
    pub(crate) fn remember_turn(&mut self, request_id: RequestId) {
        self.started.retain(|other| *other != request_id);
        if self.started.len() == ENDED_TURNS_MAX {
            self.started.pop_front();
        }
        self.started.push_back(request_id);
    }

    /// Whether a turn was started or resumed on this connection under this id, lately.
    pub(crate) fn started_turn(&self, request_id: &RequestId) -> bool {
        self.started.contains(request_id)
    }
}
