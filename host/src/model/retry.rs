//! What is tried again, and after which pause. Pure: the caller brings the time and the dice.
//!
//! Only calls of which nothing was used yet come here; a reply that has begun is never asked for again.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Limits;

/// How often and how patiently.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// Attempts after the first.
    pub(super) retries: u32,
    /// The first pause; it doubles each time.
    base: Duration,
    /// Longest pause, also for what a gateway asks for.
    max: Duration,
    /// Largest random addition.
    jitter: Duration,
}

impl RetryPolicy {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            retries: limits.model_retries,
            base: limits.model_retry_base,
            max: limits.model_retry_max,
            jitter: limits.model_retry_jitter,
        }
    }

    /// The policy of somebody who waits: one attempt.
    pub(super) fn once(self) -> Self {
        Self { retries: 0, ..self }
    }

    /// The pause before retry number `retry` (the first is 0). What the gateway asked for wins, up to the longest
    /// pause; otherwise it grows. `dice` is in `0.0..1.0`.
    pub(super) fn pause(&self, retry: u32, asked: Option<Duration>, dice: f64) -> Duration {
        let computed = || {
            let doubled = self.base.saturating_mul(2_u32.saturating_pow(retry));
            doubled.saturating_add(self.jitter.mul_f64(dice))
        };
        asked.unwrap_or_else(computed).min(self.max)
    }
}

/// Whether a status is worth another attempt: overload and trouble between gateway and model, no judgement of ours.
pub(super) fn is_retryable(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504 | 520..=527)
}

/// Reads a `Retry-After` header: seconds, or an HTTP date.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy::new(&Limits::default())
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let pauses: Vec<u64> = (0..8).map(|retry| policy().pause(retry, None, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy().pause(0, None, 0.5), Duration::from_millis(1250));
        assert_eq!(policy().pause(u32::MAX, None, 0.5), Duration::from_secs(60));
    }

    #[test]
    fn what_the_gateway_asks_for_wins_up_to_the_cap() {
        assert_eq!(policy().pause(2, Some(Duration::from_secs(7)), 0.9), Duration::from_secs(7));
        assert_eq!(policy().pause(2, Some(Duration::ZERO), 0.9), Duration::ZERO);
        assert_eq!(policy().pause(0, Some(Duration::from_secs(3600)), 0.0), Duration::from_secs(60));
    }

    #[test]
    fn only_passing_trouble_is_retried() {
        let retried: Vec<u16> = (400..600).filter(|status| is_retryable(*status)).collect();
        assert_eq!(retried, [429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        assert_eq!(retry_after(" 3 ", now), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("0.5", now), Some(Duration::from_millis(500)));
        assert_eq!(retry_after("-3", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:48:37 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("nan", now), Some(Duration::ZERO));
        assert_eq!(retry_after("inf", now), None);
    }
}
