//! The threads of one plugin, and the watchdog that replaces those which the plugin blocks.
//!
//! ```text
//!   a task is ready ──▶ queue ──▶ idle worker, or a new one while there are fewer than two free ones
//!                                    │ polls
//!                                    ├── comes back ──▶ next task, or idle
//!                                    └── a poll lasts too long ──▶ stuck: named in the log, and replaced, up to a cap
//!                                                                    └── comes back after all ──▶ goes on, or ends
//!                                                                                                 as one too many
//!   closed ──▶ every task is told and dropped here ──▶ the workers end; a stuck one is left behind
//! ```
//!
//! Rationale for threads of our own instead of another tokio: a worker of tokio that is stuck cannot be replaced, and
//! tasks that wait behind it may wait for ever.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_task::Runnable;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::ids::PluginId;

/// What a plugin's thread is asked to do; the log names it when it does not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Opening the library and making its provider.
    Start,
    /// Listing its tools.
    List,
    /// A call of this tool.
    Call(Arc<str>),
    /// Anything else: a service, a notice, a destructor, the end.
    Other,
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Start => formatter.write_str("its start"),
            Work::List => formatter.write_str("listing its tools"),
            Work::Call(tool) => write!(formatter, "a call of {tool}"),
            Work::Other => formatter.write_str("something beside its tools"),
        }
    }
}

/// How many threads a plugin gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A poll that lasts longer counts as stuck.
    pub(super) stuck_after: Duration,
    /// Stuck threads that are replaced.
    pub(super) stuck_max: usize,
}

/// A plugin that blocks one thread still answers with the other.
const WORKERS: usize = 2;

type Job = Runnable<Work>;

/// See the module.
pub(super) struct Workers {
    id: PluginId,
    rules: Rules,
    /// Held for a few lines, never while a task is polled or dropped.
    state: Mutex<State>,
    /// There is work, or the end.
    work: Condvar,
    /// Tells every task that it is over.
    closing: CancellationToken,
    /// Wakes the watchdog.
    watch: Notify,
    /// Told how many threads are stuck, whenever that changes.
    on_stuck: Box<dyn Fn(usize) + Send + Sync>,
    /// Timers of the host's own futures.
    tokio: tokio::runtime::Handle,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Tasks that have not ended, wherever they are.
    live: usize,
    /// Every thread, with what it polls.
    workers: BTreeMap<u64, Option<Poll>>,
    last_worker: u64,
    /// Threads that wait for work.
    idle: usize,
    closed: bool,
    /// Whether the watchdog is looking.
    watched: bool,
}

#[derive(Clone, Debug)]
struct Poll {
    since: Instant,
    work: Work,
    stuck: bool,
}

/// What the watchdog found.
#[derive(Debug, Default)]
struct Look {
    newly_stuck: Vec<Work>,
    stuck: usize,
    new_workers: Vec<u64>,
    next: Next,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Next {
    /// Look again.
    #[default]
    Again,
    /// Nothing runs; sleep until something does.
    Sleep,
    /// There is nothing to look at any more.
    End,
}

impl State {
    fn stuck(&self) -> usize {
        self.workers.values().flatten().filter(|poll| poll.stuck).count()
    }

    fn polling(&self) -> usize {
        self.workers.values().flatten().count()
    }

    /// A number for a new thread, when one is needed and allowed.
    fn hire(&mut self, rules: &Rules) -> Option<u64> {
        let free = self.workers.len() - self.stuck();
        let wanted = !self.queue.is_empty() && self.idle == 0 && free < WORKERS;
        if !wanted || self.workers.len() >= WORKERS + rules.stuck_max {
            return None;
        }
        self.last_worker += 1;
        self.workers.insert(self.last_worker, None);
        Some(self.last_worker)
    }

    /// Whether a thread that has nothing to do can go: what is left is in the hands of others.
    fn is_over(&self) -> bool {
        self.closed && self.queue.is_empty() && self.live == self.polling()
    }

    /// Whether there is one thread too many, because a stuck one came back.
    fn is_crowded(&self) -> bool {
        self.workers.len() - self.stuck() > WORKERS
    }

    fn look(&mut self, now: Instant, rules: &Rules) -> Look {
        let mut look = Look::default();
        for poll in self.workers.values_mut().flatten() {
            if !poll.stuck && now.saturating_duration_since(poll.since) >= rules.stuck_after {
                poll.stuck = true;
                look.newly_stuck.push(poll.work.clone());
            }
        }
        look.new_workers.extend(self.hire(rules));
        look.stuck = self.stuck();
        look.next = match self.polling() {
            _ if self.closed && self.workers.len() == look.stuck => Next::End,
            0 => Next::Sleep,
            _ => Next::Again,
        };
        self.watched = look.next == Next::Again;
        look
    }
}

impl Workers {
    /// Starts the first thread, and the watchdog on the runtime of the caller.
    pub(super) fn start(
        id: &PluginId,
        rules: Rules,
        on_stuck: impl Fn(usize) + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let workers = Arc::new(Self {
            id: id.clone(),
            rules,
            state: Mutex::default(),
            work: Condvar::new(),
            closing: CancellationToken::new(),
            watch: Notify::new(),
            on_stuck: Box::new(on_stuck),
            tokio: tokio::runtime::Handle::current(),
        });
        let first = {
            let mut state = workers.lock();
            state.last_worker = 1;
            state.workers.insert(1, None);
            1
        };
        workers.start_worker(first)?;
        tokio::spawn(watch(Arc::downgrade(&workers)));
        Ok(workers)
    }

    /// Fires when every task has to end.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Whether [`close`](Self::close) was called.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Counts a task as alive until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> LiveTask {
        self.lock().live += 1;
        LiveTask(Arc::clone(self))
    }

    /// A task is ready to be polled, or to be dropped.
    pub(super) fn push(self: &Arc<Self>, job: Job) {
        let new_worker = {
            let mut state = self.lock();
            state.queue.push_back(job);
            if state.idle > 0 {
                self.work.notify_one();
            }
            state.hire(&self.rules)
        };
        self.add_worker(new_worker);
    }

    /// Ends every task and then every thread, without waiting.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.closing.cancel();
        self.work.notify_all();
        self.watch.notify_one();
    }

    fn add_worker(self: &Arc<Self>, number: Option<u64>) {
        let Some(number) = number else { return };
        if let Err(error) = self.start_worker(number) {
            tracing::error!(plugin = %self.id, %error, "a thread of the plugin cannot be started");
        }
    }

    fn start_worker(self: &Arc<Self>, number: u64) -> io::Result<()> {
        let workers = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("plugin-{}", self.id));
        let started = thread.spawn(move || workers.run(number));
        if started.is_err() {
            self.lock().workers.remove(&number);
        }
        started.map(drop)
    }

    /// The life of one thread.
    fn run(self: &Arc<Self>, number: u64) {
        let _timers = self.tokio.enter();
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                self.begin(&mut state, number, job.metadata().clone());
                let new_worker = state.hire(&self.rules);
                drop(state);
                self.add_worker(new_worker);
                // Tasks catch what plugins do wrong; what arrives here is a bug of ours and must not cost the thread.
                if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                    tracing::error!(plugin = %self.id, "the host failed on a plugin's thread");
                }
                state = self.end(number);
                if state.is_crowded() {
                    break;
                }
            } else if state.is_over() {
                break;
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        state.workers.remove(&number);
        drop(state);
        self.work.notify_all();
        self.watch.notify_one();
    }

    fn begin(&self, state: &mut State, number: u64, work: Work) {
        state.workers.insert(number, Some(Poll { since: Instant::now(), work, stuck: false }));
        if !std::mem::replace(&mut state.watched, true) {
            self.watch.notify_one();
        }
    }

    fn end(&self, number: u64) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let ended = state.workers.insert(number, None).flatten();
        let Some(poll) = ended.filter(|poll| poll.stuck) else { return state };
        let stuck = state.stuck();
        drop(state);
        let took = poll.since.elapsed();
        tracing::warn!(plugin = %self.id, work = %poll.work, ?took, stuck, "a blocked thread of the plugin came back");
        (self.on_stuck)(stuck);
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after the threads as long as there are any.
async fn watch(workers: Weak<Workers>) {
    let Some(rules) = workers.upgrade().map(|workers| workers.rules) else { return };
    loop {
        tokio::time::sleep(rules.stuck_after / 4).await;
        let Some(workers) = workers.upgrade() else { return };
        let look = workers.lock().look(Instant::now(), &rules);
        for work in &look.newly_stuck {
            let Look { stuck, .. } = look;
            let max = rules.stuck_max;
            tracing::warn!(plugin = %workers.id, %work, stuck, max, "the plugin blocks a thread; another one takes its place as long as there are not too many");
        }
        if !look.newly_stuck.is_empty() {
            (workers.on_stuck)(look.stuck);
        }
        look.new_workers.into_iter().for_each(|number| workers.add_worker(Some(number)));
        match look.next {
            Next::Again => {}
            Next::Sleep => workers.watch.notified().await,
            Next::End => return,
        }
    }
}

/// A task that has not ended.
pub(super) struct LiveTask(Arc<Workers>);

impl Drop for LiveTask {
    fn drop(&mut self) {
        let is_closed = {
            let mut state = self.0.lock();
            state.live -= 1;
            state.closed
        };
        if is_closed {
            self.0.work.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { stuck_after: Duration::from_secs(1), stuck_max: 2 };

    fn polling(state: &mut State, number: u64, since: Instant) {
        state.last_worker = state.last_worker.max(number);
        state.workers.insert(number, Some(Poll { since, work: Work::Call("t".into()), stuck: false }));
    }

    fn job() -> Job {
        let schedule = |_: Job| {};
        let (job, task) = async_task::Builder::new().metadata(Work::Other).spawn(|_| async {}, schedule);
        task.detach();
        job
    }

    #[test]
    fn two_threads_are_enough_until_one_is_stuck() {
        let now = Instant::now();
        let mut state = State::default();
        assert_eq!(state.hire(&RULES), None, "there is nothing to do");
        state.queue.push_back(job());
        assert_eq!(state.hire(&RULES), Some(1));
        polling(&mut state, 1, now);
        assert_eq!(state.hire(&RULES), Some(2));
        polling(&mut state, 2, now);
        assert_eq!(state.hire(&RULES), None);
        assert!(state.look(now + Duration::from_millis(900), &RULES).newly_stuck.is_empty());

        let look = state.look(now + Duration::from_secs(1), &RULES);
        assert_eq!((look.newly_stuck.len(), look.stuck, look.new_workers), (2, 2, vec![3]));
        assert_eq!(look.next, Next::Again);
        assert!(state.look(now + Duration::from_secs(9), &RULES).newly_stuck.is_empty(), "each is said once");
    }

    #[test]
    fn stuck_threads_are_replaced_up_to_the_cap() {
        let now = Instant::now();
        let mut state = State::default();
        state.queue.push_back(job());
        let mut started = 0;
        for second in 0..10 {
            let now = now + Duration::from_secs(2 * second);
            while let Some(number) = state.hire(&RULES) {
                started += 1;
                polling(&mut state, number, now);
            }
            for number in state.look(now + Duration::from_secs(1), &RULES).new_workers {
                started += 1;
                polling(&mut state, number, now + Duration::from_secs(1));
            }
        }
        assert_eq!((started, state.stuck()), (4, 4));
    }

    #[test]
    fn an_idle_thread_is_used_before_a_new_one() {
        let mut state = State { idle: 1, ..State::default() };
        state.queue.push_back(job());
        assert_eq!(state.hire(&RULES), None);
    }

    #[test]
    fn the_end_is_when_all_that_is_left_is_in_other_hands() {
        let mut state = State { live: 2, ..State::default() };
        assert!(!state.is_over());
        state.closed = true;
        assert!(!state.is_over(), "two tasks have to be told");
        polling(&mut state, 1, Instant::now());
        state.live = 1;
        assert!(state.is_over(), "the one that is left is polled");
        let look = state.look(Instant::now() + Duration::from_secs(2), &RULES);
        assert_eq!((look.stuck, look.next), (1, Next::End), "nobody waits for a stuck one");
    }
}
