//! How long a turn has been running, and when it first said something.

use std::{sync::OnceLock, time::Duration};

use tokio::time::Instant;

/// Started when the message is accepted.
#[derive(Debug)]
pub(super) struct Stopwatch {
    started: Instant,
    first_text: OnceLock<Duration>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), first_text: OnceLock::new() }
    }

    /// Notes that there is visible text; only the first time counts.
    pub(super) fn text(&self) {
        // A turn may have very many pieces of text, and the clock is looked at for one of them.
        self.first_text.get_or_init(|| self.started.elapsed());
    }

    /// When the first text came, if any did.
    pub(super) fn first_text(&self) -> Option<Duration> {
        self.first_text.get().copied()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
