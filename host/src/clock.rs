//! Wall-clock time and random ids behind one trait, so that a test decides them. Durations and deadlines come from
//! tokio's clock, which a test can pause.

use std::{fmt::Debug, sync::Arc};

use jiff::Timestamp;
use uuid::Uuid;

/// Where the time and fresh ids come from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> Timestamp;
    /// A fresh random id.
    fn new_id(&self) -> Uuid;
}

/// The clock everything shares.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock and random ids.
#[derive(Debug, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods, reason = "this is where they belong")]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}
