//! How much may be said in a second. Pure: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

/// Counts what happens in the current second, and what was left out since it was last told.
#[derive(Debug, Default)]
pub(super) struct PerSecond {
    began: Option<Instant>,
    taken: u32,
    left_out: u64,
}

impl PerSecond {
    /// Whether one more may happen: `Some` with how many before it may not have, or `None`.
    pub(super) fn take(&mut self, now: Instant, max: u32) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            self.began = Some(now);
            self.taken = 0;
        }
        if self.taken >= max {
            self.left_out += 1;
            return None;
        }
        self.taken += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_second_is_left_out_and_counted() {
        let mut budget = PerSecond::default();
        let now = Instant::now();
        let taken: Vec<_> = (0..4).map(|_| budget.take(now, 2)).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None]);
        let later = now + Duration::from_secs(1);
        assert_eq!(budget.take(later, 2), Some(2));
        assert_eq!(budget.take(later, 2), Some(0));
        assert_eq!(budget.take(later, 2), None);
    }
}
