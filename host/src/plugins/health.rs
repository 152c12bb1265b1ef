//! Whether a plugin may be used. Faults are counted; a plugin with too many of them is kept out for a while and then
//! tried again with one call.
//!
//! ```text
//!   healthy ── too many faults in the window ──▶ quarantined ── the pause is over ──▶ on trial
//!      ▲                                              ▲                                 │  │
//!      │                                              └── a fault: a longer pause ──────┘  │
//!      └───────────────────────────── what failed before works ───────────────────────────┘
//!   any of them ── too many threads are stuck in it ──▶ blocked ── they come back ──▶ as before
//! ```

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};
use utoipa::ToSchema;

use crate::{config::Limits, ids::PluginId};

/// What a plugin did wrong. A tool that fails and says so does nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misdeed {
    /// A call panicked; the text is the panic's.
    Panicked(String),
    /// A call answered neither in time nor with progress.
    TimedOut,
    /// A call answered something that is no output, or too much.
    BadAnswer(String),
    /// Its process ended.
    Crashed(String),
    /// It did not list its tools in time.
    ListedLate(Duration),
    /// It failed to list its tools.
    ListingFailed(String),
}

impl Misdeed {
    fn part(&self) -> Part {
        match self {
            Misdeed::ListedLate(_) | Misdeed::ListingFailed(_) => Part::Listing,
            _ => Part::Calling,
        }
    }
}

impl fmt::Display for Misdeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misdeed::Panicked(text) => write!(formatter, "a panic ({})", cut(text)),
            Misdeed::TimedOut => formatter.write_str("a call that ran out of time"),
            Misdeed::BadAnswer(text) => write!(formatter, "a bad answer ({})", cut(text)),
            Misdeed::Crashed(text) => write!(formatter, "a crash ({})", cut(text)),
            Misdeed::ListedLate(budget) => write!(formatter, "no tool list within {} ms", budget.as_millis()),
            Misdeed::ListingFailed(text) => write!(formatter, "no tool list ({})", cut(text)),
        }
    }
}

/// What has been counted of one load of a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[non_exhaustive]
pub struct PluginCounters {
    /// Calls that were let through.
    pub calls: u64,
    /// Calls that were refused because of a quarantine.
    pub refused: u64,
    /// Everything it did wrong.
    pub faults: u64,
    /// The panics among them.
    pub panics: u64,
    /// How often it was put into quarantine.
    pub quarantines: u64,
    /// Threads that it blocks now.
    pub stuck_threads: usize,
}

/// The health of one load of a plugin.
pub(super) struct Health {
    id: PluginId,
    stuck_max: usize,
    /// Held for a few lines only.
    breaker: Mutex<Breaker>,
    counts: Counts,
    /// Told when a quarantine begins or ends.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    refused: AtomicU64,
    faults: AtomicU64,
    panics: AtomicU64,
    quarantines: AtomicU64,
    stuck: AtomicUsize,
}

/// Longest quotation of a plugin's own words in a reason, in characters.
const QUOTE_CHARS: usize = 200;

fn cut(text: &str) -> &str {
    text.char_indices().nth(QUOTE_CHARS).map_or(text, |(end, _)| &text[..end])
}

impl Health {
    pub(super) fn new(id: PluginId, limits: &Limits, changed: Arc<Notify>) -> Self {
        Self {
            id,
            stuck_max: limits.plugin_stuck_threads,
            breaker: Mutex::new(Breaker::new(limits)),
            counts: Counts::default(),
            changed,
        }
    }

    /// Asks whether a call may begin. The permit is to be told how the call ended.
    ///
    /// # Errors
    ///
    /// Why not, for the model.
    pub(super) fn permit_call(self: &Arc<Self>) -> Result<Permit, String> {
        let entry = self.check(Part::Calling).inspect_err(|_| {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { health: Arc::clone(self), is_trial: entry == Entry::Trial })
    }

    /// Asks whether the plugin may be asked for its tools.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn permit_listing(&self) -> Result<(), String> {
        self.check(Part::Listing).map(drop)
    }

    /// Something went well.
    pub(super) fn listed(&self) {
        self.did_well(Part::Listing);
    }

    /// Something went wrong.
    pub(super) fn note(&self, misdeed: &Misdeed) {
        let faults = self.counts.faults.fetch_add(1, Ordering::Relaxed) + 1;
        if matches!(misdeed, Misdeed::Panicked(_)) {
            self.counts.panics.fetch_add(1, Ordering::Relaxed);
        }
        tracing::warn!(plugin = %self.id, %misdeed, faults, "a fault of the plugin");
        let quarantine = self.breaker().fault(misdeed, Instant::now());
        if let Some(pause) = quarantine {
            self.counts.quarantines.fetch_add(1, Ordering::Relaxed);
            let reason = self.reason().unwrap_or_default();
            tracing::error!(plugin = %self.id, ?pause, reason, "the plugin is in quarantine");
            self.changed.notify_one();
        }
    }

    /// So many threads are stuck in the plugin's code now.
    pub(super) fn stuck(&self, threads: usize) {
        let before = self.counts.stuck.swap(threads, Ordering::Relaxed);
        let was_blocked = before >= self.stuck_max;
        if self.is_blocked() == was_blocked {
            return;
        }
        if was_blocked {
            tracing::info!(plugin = %self.id, "the plugin blocks fewer threads and is used again");
        } else {
            self.counts.quarantines.fetch_add(1, Ordering::Relaxed);
            tracing::error!(plugin = %self.id, threads, "the plugin blocks too many threads and is in quarantine");
        }
        self.changed.notify_one();
    }

    /// Why the plugin is in quarantine, for an operator; `None` when it is not.
    pub(super) fn reason(&self) -> Option<String> {
        if self.is_blocked() {
            let threads = self.counts.stuck.load(Ordering::Relaxed);
            return Some(format!(
                "it blocks {threads} threads (limit plugin_stuck_threads is {}) and is not used until some come back; \
                 reload it, and repair what blocks, or run it isolated",
                self.stuck_max
            ));
        }
        self.breaker().reason()
    }

    pub(super) fn counters(&self) -> PluginCounters {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { calls, refused, faults, panics, quarantines, stuck } = &self.counts;
        PluginCounters {
            calls: load(calls),
            refused: load(refused),
            faults: load(faults),
            panics: load(panics),
            quarantines: load(quarantines),
            stuck_threads: stuck.load(Ordering::Relaxed),
        }
    }

    fn check(&self, part: Part) -> Result<Entry, String> {
        let entry = if self.is_blocked() { Entry::Refused } else { self.breaker().enter(part, Instant::now()) };
        if entry != Entry::Refused {
            return Ok(entry);
        }
        let reason = self.reason().unwrap_or_else(|| "it was just put there".to_owned());
        Err(format!("the plugin {} is in quarantine: {reason}", self.id))
    }

    fn did_well(&self, part: Part) {
        if self.breaker().success(part, Instant::now()) {
            tracing::info!(plugin = %self.id, "the plugin works again; its quarantine is over");
            self.changed.notify_one();
        }
    }

    fn is_blocked(&self) -> bool {
        self.counts.stuck.load(Ordering::Relaxed) >= self.stuck_max
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that was let through. One that is dropped without a word (its caller went away) says nothing about the
/// plugin.
pub(super) struct Permit {
    health: Arc<Health>,
    is_trial: bool,
}

impl Permit {
    /// The call ended as calls should.
    pub(super) fn went_well(self) {
        self.health.did_well(Part::Calling);
    }

    /// The call ended as calls should not.
    pub(super) fn went_wrong(self, misdeed: &Misdeed) {
        self.health.note(misdeed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_trial {
            self.health.breaker().end_trial();
        }
    }
}

/// What of a plugin is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Listing,
    Calling,
}

/// The answer to whoever wants to use the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Granted,
    /// Granted to this one, to see how it goes.
    Trial,
    Refused,
}

/// The states of the drawing, but for the blocked one. Pure: it is told the time.
#[derive(Debug)]
struct Breaker {
    faults_max: usize,
    window: Duration,
    pause: Duration,
    pause_max: Duration,
    /// When the faults within the window happened, oldest first.
    recent: VecDeque<Instant>,
    phase: Phase,
    /// Quarantines in a row; each doubles the pause.
    rounds: u32,
    /// When the last quarantine ended.
    healed: Option<Instant>,
    /// Parts that failed and have not worked since.
    bad: Vec<Part>,
    /// The last thing that went wrong.
    last: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Healthy,
    Quarantined { until: Instant, pause: Duration },
    OnTrial { calling: bool, pause: Duration },
}

impl Breaker {
    fn new(limits: &Limits) -> Self {
        Self {
            faults_max: limits.plugin_faults,
            window: limits.plugin_fault_window,
            pause: limits.plugin_quarantine,
            pause_max: limits.plugin_quarantine_max,
            recent: VecDeque::new(),
            phase: Phase::Healthy,
            rounds: 0,
            healed: None,
            bad: Vec::new(),
            last: String::new(),
        }
    }

    fn enter(&mut self, part: Part, now: Instant) -> Entry {
        if let Phase::Quarantined { until, pause } = self.phase
            && now >= until
        {
            self.phase = Phase::OnTrial { calling: false, pause };
        }
        match &mut self.phase {
            Phase::Healthy => Entry::Granted,
            Phase::Quarantined { .. } => Entry::Refused,
            // A list harms nobody.
            Phase::OnTrial { .. } if part == Part::Listing => Entry::Granted,
            // One call at a time.
            Phase::OnTrial { calling: true, .. } => Entry::Refused,
            Phase::OnTrial { calling, .. } => {
                *calling = true;
                Entry::Trial
            }
        }
    }

    /// Returns the pause when this fault begins a quarantine.
    fn fault(&mut self, misdeed: &Misdeed, now: Instant) -> Option<Duration> {
        match self.phase {
            // What was under way when the quarantine began.
            Phase::Quarantined { .. } => return None,
            Phase::OnTrial { .. } => {}
            Phase::Healthy => {
                if self.healed.is_some_and(|healed| now.saturating_duration_since(healed) > self.pause_max) {
                    self.rounds = 0;
                }
                self.recent.push_back(now);
                while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) > self.window) {
                    self.recent.pop_front();
                }
                if self.recent.len() < self.faults_max {
                    self.remember(misdeed);
                    return None;
                }
            }
        }
        self.remember(misdeed);
        self.recent.clear();
        let pause = self.pause.saturating_mul(1 << self.rounds.min(16)).min(self.pause_max);
        self.rounds += 1;
        self.phase = Phase::Quarantined { until: now + pause, pause };
        Some(pause)
    }

    /// Returns whether this ends the quarantine.
    fn success(&mut self, part: Part, now: Instant) -> bool {
        let Phase::OnTrial { .. } = self.phase else { return false };
        self.bad.retain(|bad| *bad != part);
        if !self.bad.is_empty() {
            return false;
        }
        self.phase = Phase::Healthy;
        self.healed = Some(now);
        true
    }

    fn end_trial(&mut self) {
        if let Phase::OnTrial { calling, .. } = &mut self.phase {
            *calling = false;
        }
    }

    fn reason(&self) -> Option<String> {
        let (Phase::Quarantined { pause, .. } | Phase::OnTrial { pause, .. }) = self.phase else { return None };
        Some(format!(
            "{} faults within {} s, the last one {}; it is not used for {} s, then one call tries it again; repair or \
             reload it",
            self.faults_max,
            self.window.as_secs(),
            self.last,
            pause.as_secs_f32(),
        ))
    }

    fn remember(&mut self, misdeed: &Misdeed) {
        self.last = misdeed.to_string();
        let part = misdeed.part();
        if !self.bad.contains(&part) {
            self.bad.push(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker() -> Breaker {
        let limits = Limits {
            plugin_faults: 3,
            plugin_fault_window: seconds(60),
            plugin_quarantine: seconds(30),
            plugin_quarantine_max: seconds(100),
            ..Limits::default()
        };
        Breaker::new(&limits)
    }

    fn admits(breaker: &mut Breaker, part: Part, now: Instant) -> bool {
        breaker.enter(part, now) != Entry::Refused
    }

    fn panic() -> Misdeed {
        Misdeed::Panicked("boom".to_owned())
    }

    fn quarantined(now: Instant) -> Breaker {
        let mut breaker = breaker();
        assert_eq!(breaker.fault(&panic(), now), None);
        assert_eq!(breaker.fault(&panic(), now), None);
        assert_eq!(breaker.fault(&panic(), now), Some(seconds(30)));
        breaker
    }

    #[tokio::test]
    async fn faults_far_apart_do_no_harm() {
        let now = Instant::now();
        let mut breaker = breaker();
        for minute in 0..20 {
            assert_eq!(breaker.fault(&panic(), now + seconds(31 * minute)), None);
            assert!(admits(&mut breaker, Part::Calling, now + seconds(31 * minute)));
        }
        assert_eq!(breaker.reason(), None);
    }

    #[tokio::test]
    async fn a_quarantine_ends_with_one_good_call() {
        let now = Instant::now();
        let mut breaker = quarantined(now);
        assert!(!admits(&mut breaker, Part::Calling, now + seconds(29)));
        assert_eq!(breaker.fault(&panic(), now + seconds(1)), None, "a call that was under way");
        let reason = breaker.reason().unwrap_or_default();
        assert!(
            reason.contains("3 faults within 60 s") && reason.contains("boom") && reason.contains("30 s"),
            "{reason}"
        );

        let later = now + seconds(30);
        assert!(admits(&mut breaker, Part::Calling, later));
        assert!(!admits(&mut breaker, Part::Calling, later), "one at a time");
        assert!(admits(&mut breaker, Part::Listing, later));
        assert!(!breaker.success(Part::Listing, later), "listing was never the problem");
        assert!(breaker.success(Part::Calling, later));
        assert!(admits(&mut breaker, Part::Calling, later) && admits(&mut breaker, Part::Calling, later));
        assert_eq!(breaker.reason(), None);
    }

    #[tokio::test]
    async fn a_bad_trial_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = quarantined(now);
        for pause in [60, 100, 100] {
            now += seconds(100);
            assert!(admits(&mut breaker, Part::Calling, now));
            assert_eq!(breaker.fault(&panic(), now), Some(seconds(pause)));
            assert!(!admits(&mut breaker, Part::Calling, now + seconds(pause - 1)));
        }
    }

    #[tokio::test]
    async fn a_trial_that_is_given_up_can_be_made_again() {
        let now = Instant::now();
        let mut breaker = quarantined(now);
        assert!(admits(&mut breaker, Part::Calling, now + seconds(30)));
        breaker.end_trial();
        assert!(admits(&mut breaker, Part::Calling, now + seconds(31)));
    }

    #[tokio::test]
    async fn a_long_good_time_forgives() {
        let mut now = Instant::now();
        let mut breaker = quarantined(now);
        for (rest, pause) in [(1, 60), (101, 30)] {
            now += seconds(100);
            assert!(admits(&mut breaker, Part::Calling, now) && breaker.success(Part::Calling, now));
            now += seconds(rest);
            let pauses: Vec<_> = (0..3).filter_map(|_| breaker.fault(&panic(), now)).collect();
            assert_eq!(pauses, [seconds(pause)]);
        }
    }

    #[tokio::test]
    async fn late_lists_are_healed_by_a_list() {
        let now = Instant::now();
        let mut breaker = breaker();
        let late = Misdeed::ListedLate(Duration::from_millis(250));
        assert_eq!((0..3).filter_map(|_| breaker.fault(&late, now)).count(), 1);
        assert!(!admits(&mut breaker, Part::Listing, now));
        assert!(admits(&mut breaker, Part::Listing, now + seconds(30)));
        assert!(breaker.success(Part::Listing, now + seconds(30)));
    }

    #[tokio::test]
    async fn too_many_stuck_threads_are_a_quarantine_until_they_come_back() {
        let changed = Arc::new(Notify::new());
        let limits = Limits { plugin_stuck_threads: 2, ..Limits::default() };
        let health = Arc::new(Health::new(PluginId::new("p"), &limits, Arc::clone(&changed)));
        health.stuck(1);
        assert!(health.permit_call().is_ok());
        health.stuck(2);
        changed.notified().await;
        let refusal = health.permit_call().err().unwrap_or_default();
        assert!(refusal.contains("blocks 2 threads") && refusal.contains("plugin p"), "{refusal}");
        health.stuck(1);
        changed.notified().await;
        assert!(health.permit_call().is_ok());
        let counters = health.counters();
        assert_eq!((counters.calls, counters.refused, counters.quarantines, counters.stuck_threads), (2, 1, 1, 1));
    }
}
