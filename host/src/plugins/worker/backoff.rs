//! How long to wait before a worker that died is started again. Pure.

use std::time::Duration;

/// Doubles with every death, from a first pause to a longest one.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first.min(longest) }
    }

    /// The pause before the next start.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// It has run well for a while.
    pub(super) fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(5000));
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000].map(millis));
        backoff.reset();
        assert_eq!(backoff.pause(), millis(100));
        assert_eq!(Backoff::new(millis(100), millis(50)).pause(), millis(50));
    }
}
