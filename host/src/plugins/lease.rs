//! Who still uses a load of a plugin. A turn takes a lease before its first use and gives it back at its end; a
//! load that has been replaced is stopped only when nobody holds one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The leases of one load.
#[derive(Default)]
pub(super) struct Leases {
    /// Held for a few lines only.
    state: Mutex<State>,
    /// Told when the last lease is given back.
    idle: Notify,
}

#[derive(Default)]
struct State {
    held: usize,
    closed: bool,
}

/// The right to use a load of a plugin until it is dropped.
pub struct PluginLease(Arc<Leases>);

impl Leases {
    /// A new lease; `None` once the load is being stopped, so that the caller looks for its successor.
    pub(super) fn take(self: &Arc<Self>) -> Option<PluginLease> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.held += 1;
        Some(PluginLease(Arc::clone(self)))
    }

    /// Waits until nobody holds a lease, and gives out none from then on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait changes nothing.
    pub(super) async fn close_when_idle(&self) {
        loop {
            let idle = self.idle.notified();
            {
                let mut state = self.lock();
                if state.held == 0 {
                    state.closed = true;
                    return;
                }
            }
            idle.await;
        }
    }

    /// Gives out no more leases, whoever holds some.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PluginLease {
    fn drop(&mut self) {
        let is_last = {
            let mut state = self.0.lock();
            state.held -= 1;
            state.held == 0
        };
        if is_last {
            self.0.idle.notify_waiters();
        }
    }
}

impl std::fmt::Debug for PluginLease {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PluginLease")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_the_last_lease() {
        let leases = Arc::new(Leases::default());
        let (one, other) = (leases.take().unwrap(), leases.take().unwrap());
        let ending = tokio::spawn({
            let leases = Arc::clone(&leases);
            async move { leases.close_when_idle().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(one);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!ending.is_finished());
        assert!(leases.take().is_some(), "until then it can be used");
        drop(other);
        ending.await.unwrap();
        assert!(leases.take().is_none());
    }

    #[tokio::test]
    async fn nobody_is_waited_for_when_there_is_nobody() {
        let leases = Arc::new(Leases::default());
        leases.close_when_idle().await;
        assert!(leases.take().is_none());
    }
}
