//! Who hears what is published: connections by the names that an admin can aim at. A subscription is a guard, so that
//! a connection that goes is forgotten whatever ends it.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::EventSender;
use crate::{
    ids::{ConnectionId, SessionId},
    protocol::EventFrame,
};

/// Whom a published event is for, within one organisation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// One open connection.
    Connection(ConnectionId),
    /// The connections that have created this session or named it since.
    Session(SessionId),
    /// The connections of a verified user.
    User(String),
    /// Everybody of the organisation.
    Org,
    /// The connections that talk to this agent.
    Agent(String),
}

/// An organisation and whom of it.
type Address = (String, Target);

/// Every connection by what it listens to.
#[derive(Clone, Default)]
pub(crate) struct Subscriptions {
    /// Held for a few lines, never across an await.
    listeners: Arc<Mutex<HashMap<Address, HashMap<ConnectionId, EventSender>>>>,
}

impl Subscriptions {
    /// Lets a connection hear what is published to the target, until the guard is dropped.
    pub(crate) fn subscribe(
        &self,
        org_id: &str,
        target: Target,
        connection: ConnectionId,
        sender: EventSender,
    ) -> Subscription {
        let address = (org_id.to_owned(), target);
        self.lock().entry(address.clone()).or_default().insert(connection, sender);
        Subscription { all: self.clone(), address, connection }
    }

    /// Sends the event to everyone who listens to the target, and says to how many connections it went.
    pub(crate) fn publish(&self, org_id: &str, target: Target, frame: EventFrame) -> usize {
        let frame = Arc::new(frame);
        let listeners = self.lock();
        let Some(connections) = listeners.get(&(org_id.to_owned(), target)) else { return 0 };
        connections.values().filter(|sender| sender.send(frame.clone(), false)).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Address, HashMap<ConnectionId, EventSender>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subscriptions").field("targets", &self.lock().len()).finish_non_exhaustive()
    }
}

/// One connection's subscription to one target.
#[derive(Debug)]
pub(crate) struct Subscription {
    all: Subscriptions,
    address: Address,
    connection: ConnectionId,
}

impl Subscription {
    /// Whether this is what it listens to.
    pub(crate) fn is_to(&self, org_id: &str, target: &Target) -> bool {
        self.address.1 == *target && self.address.0 == org_id
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The last sender of a connection must not be dropped under the lock: it may wake others.
        let removed = match self.all.lock().entry(self.address.clone()) {
            Entry::Vacant(_) => None,
            Entry::Occupied(mut entry) => {
                let sender = entry.get_mut().remove(&self.connection);
                if entry.get().is_empty() {
                    entry.remove();
                }
                sender
            }
        };
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        outgoing::{QueueLimits, channel},
        protocol::Event,
    };

    fn frame() -> EventFrame {
        EventFrame::new(None, 0, Event::Published("{}".into()))
    }

    #[tokio::test]
    async fn an_event_reaches_those_who_listen_and_nobody_of_another_organisation() {
        let all = Subscriptions::default();
        let (sender, mut receiver) = channel(QueueLimits { bytes: 1000, events: 10 });
        let connection = ConnectionId(Uuid::nil());
        let agent = || Target::Agent("a".to_owned());
        let guard = all.subscribe("acme", agent(), connection, sender.clone());
        let twice = all.subscribe("acme", Target::Org, connection, sender);
        assert_eq!(all.publish("acme", agent(), frame()), 1);
        assert_eq!(all.publish("other", agent(), frame()), 0);
        assert_eq!(all.publish("acme", Target::Session(SessionId(Uuid::nil())), frame()), 0);
        let mut batch = Vec::new();
        receiver.recv_batch(&mut batch).await.expect("an event waits");
        assert_eq!(batch.len(), 1);
        drop(guard);
        assert_eq!(all.publish("acme", agent(), frame()), 0);
        drop(receiver);
        assert_eq!(all.publish("acme", Target::Org, frame()), 0, "nobody reads any more");
        drop(twice);
        assert!(all.lock().is_empty());
    }
}
