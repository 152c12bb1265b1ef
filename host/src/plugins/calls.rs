//! Which calls of a plugin run now, so that its progress reports find their call and only theirs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jackfield_plugin_api::CallContext;

/// The running calls of one plugin.
#[derive(Default)]
pub(super) struct CallTable {
    /// By the number the plugin knows the call by. Held for a few lines only.
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    calls: HashMap<u64, CallContext>,
    /// The last number given to a call that came without a usable one.
    last_own: u64,
}

/// Numbers given here have this bit, so that they never meet the host's.
const OWN: u64 = 1 << 63;

/// A call's place in the table; leaves it when dropped.
pub(super) struct RunningCall {
    table: Arc<CallTable>,
    call_id: u64,
}

impl CallTable {
    /// Enters a call under its own number, or under a fresh one when that is 0 or taken.
    pub(super) fn enter(self: &Arc<Self>, call: &CallContext) -> RunningCall {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut call_id = call.info().call_id;
        if call_id == 0 || running.calls.contains_key(&call_id) {
            running.last_own += 1;
            call_id = OWN | running.last_own;
        }
        running.calls.insert(call_id, call.clone());
        RunningCall { table: Arc::clone(self), call_id }
    }

    /// The running call of this number.
    pub(super) fn get(&self, call_id: u64) -> Option<CallContext> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).calls.get(&call_id).cloned()
    }
}

impl RunningCall {
    /// The number the plugin knows the call by.
    pub(super) fn id(&self) -> u64 {
        self.call_id
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        let left = self.table.running.lock().unwrap_or_else(PoisonError::into_inner).calls.remove(&self.call_id);
        // What the context holds is dropped outside of the lock.
        drop(left);
    }
}
