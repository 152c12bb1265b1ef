//! The runtime of one plugin. Everything a plugin does in this process is polled and dropped here, never on the
//! server's threads, so that a plugin that blocks holds up nobody but itself.

use std::{future::Future, io, panic::AssertUnwindSafe, sync::Arc};

use async_task::FallibleTask;
use futures_util::FutureExt as _;

use super::workers::{Rules, Work, Workers};
use crate::{config::Limits, ids::PluginId};

/// Runs the futures of one plugin until it is stopped. A stopped runtime runs nothing any more but destructors; a
/// thread that is stuck in the plugin is left behind.
pub(super) struct PluginRuntime {
    workers: Arc<Workers>,
}

impl PluginRuntime {
    /// Starts to serve; `on_stuck` is told how many threads the plugin blocks, whenever that changes.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, which keeps the watchdog and the timers.
    pub(super) fn start(
        id: &PluginId,
        limits: &Limits,
        on_stuck: impl Fn(usize) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let rules = Rules { stuck_after: limits.plugin_stuck, stuck_max: limits.plugin_stuck_threads };
        Ok(Self { workers: Workers::start(id, rules, on_stuck)? })
    }

    /// Runs a future on the plugin's threads and forgets it. After [`stop`](Self::stop) it is dropped unpolled.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(task) = self.spawn_owned(future).0.take() {
            task.detach();
        }
    }

    /// Like [`spawn`](Self::spawn), but with a result; dropping the returned guard drops the future, on the plugin's
    /// threads.
    pub(super) fn spawn_owned<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> OwnedTask<T> {
        self.spawn_for(Work::Other, future)
    }

    /// Like [`spawn_owned`](Self::spawn_owned), for work that the log can name.
    pub(super) fn spawn_for<T: Send + 'static>(
        &self,
        work: Work,
        future: impl Future<Output = T> + Send + 'static,
    ) -> OwnedTask<T> {
        if self.workers.is_closed() {
            return OwnedTask(None);
        }
        OwnedTask(Some(self.start_task(work, future)))
    }

    /// Drops something of the plugin's on the plugin's threads, because its `Drop` is plugin code. Also after the
    /// stop; then a thread is started for it.
    pub(super) fn discard<T: Send + 'static>(&self, object: T) {
        // Taken out at the first poll, which also a closed runtime makes, so that the drop happens there.
        let mut object = Some(object);
        let dropping = std::future::poll_fn(move |_| {
            drop(object.take());
            std::task::Poll::Ready(())
        });
        self.start_task(Work::Other, dropping).detach();
    }

    /// Stops without waiting: a thread that is stuck in the plugin cannot hold anybody up.
    pub(super) fn stop(&self) {
        self.workers.close();
    }

    fn start_task<T: Send + 'static>(
        &self,
        work: Work,
        future: impl Future<Output = T> + Send + 'static,
    ) -> FallibleTask<Option<T>, Work> {
        let live = self.workers.enter();
        let closing = self.workers.closing().clone();
        let guarded = async move {
            let _live = live;
            // The future comes first: a destructor that is queued here runs also when all is over.
            let ended = tokio::select! {
                biased;
                ended = AssertUnwindSafe(future).catch_unwind() => Some(ended),
                () = closing.cancelled() => None,
            };
            match ended {
                Some(Ok(output)) => Some(output),
                Some(Err(_)) => {
                    // Panics of plugins are caught by the interface, so this one is ours.
                    tracing::error!("the host failed on a plugin's thread");
                    None
                }
                None => None,
            }
        };
        let workers = Arc::clone(&self.workers);
        let schedule = move |job| workers.push(job);
        let (job, task) = async_task::Builder::new().metadata(work).spawn(move |_| guarded, schedule);
        job.schedule();
        task.fallible()
    }
}

impl Drop for PluginRuntime {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A task that ends with its owner. Empty when the runtime had been stopped before.
pub(super) struct OwnedTask<T>(Option<FallibleTask<Option<T>, Work>>);

impl<T> OwnedTask<T> {
    /// Waits for the result; `None` when the plugin was stopped meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait keeps the task; dropping the `OwnedTask` ends it.
    pub(super) async fn result(&mut self) -> Option<T> {
        match &mut self.0 {
            Some(task) => task.await.flatten(),
            None => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    struct SaysWhere(mpsc::Sender<String>);

    impl Drop for SaysWhere {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().name().unwrap_or("").to_owned());
        }
    }

    fn runtime() -> PluginRuntime {
        runtime_with(Duration::from_secs(60), |_| {})
    }

    fn runtime_with(poll: Duration, on_stuck: impl Fn(usize) + Send + Sync + 'static) -> PluginRuntime {
        let limits = Limits { plugin_stuck: poll, plugin_stuck_threads: 2, ..Limits::default() };
        PluginRuntime::start(&PluginId::new("p"), &limits, on_stuck).unwrap()
    }

    fn dropped(receiver: &mpsc::Receiver<String>) -> String {
        receiver.recv_timeout(SOON).unwrap()
    }

    #[tokio::test]
    async fn an_abandoned_task_is_dropped_on_the_plugins_threads() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        let object = SaysWhere(sender);
        let (began, begun) = tokio::sync::oneshot::channel();
        let task = runtime.spawn_owned(async move {
            let _object = object;
            began.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        begun.await.unwrap();
        drop(task);
        assert_eq!(dropped(&receiver), "plugin-p");
    }

    #[tokio::test]
    async fn objects_are_discarded_on_the_plugins_threads_also_after_the_stop() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        runtime.discard(SaysWhere(sender.clone()));
        assert_eq!(dropped(&receiver), "plugin-p");
        runtime.stop();
        runtime.discard(SaysWhere(sender));
        assert_eq!(dropped(&receiver), "plugin-p");
    }

    #[tokio::test]
    async fn the_stop_drops_what_waits_and_says_so() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        let object = SaysWhere(sender);
        let (began, begun) = tokio::sync::oneshot::channel();
        let mut task = runtime.spawn_owned(async move {
            let _object = object;
            began.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        begun.await.unwrap();
        runtime.stop();
        assert_eq!(task.result().await, None);
        assert_eq!(dropped(&receiver), "plugin-p");
        assert_eq!(runtime.spawn_owned(async { 7 }).result().await, None);
    }

    #[tokio::test]
    async fn timers_work_and_a_panic_is_one_lost_result() {
        let runtime = runtime();
        let slept = runtime.spawn_owned(async { tokio::time::sleep(Duration::from_millis(5)).await }).result().await;
        assert_eq!(slept, Some(()));
        assert_eq!(runtime.spawn_owned(async { panic!("ours") }).result().await, None::<()>);
        assert_eq!(runtime.spawn_owned(async { 7 }).result().await, Some(7));
    }

    #[tokio::test]
    async fn stuck_threads_are_replaced_and_hold_up_neither_the_others_nor_the_stop() {
        let stuck = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&stuck);
        let runtime = runtime_with(Duration::from_millis(40), move |count| seen.store(count, Ordering::Relaxed));
        let mut free = Vec::new();
        for expected in 1..=3 {
            let (let_go, held) = mpsc::channel::<()>();
            free.push(let_go);
            runtime.spawn(async move {
                let _ = held.recv();
            });
            while stuck.load(Ordering::Relaxed) < expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(runtime.spawn_owned(async { 7 }).result().await, Some(7), "{expected} threads are stuck");
        }
        drop(free);
        while stuck.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (_hold, held) = mpsc::channel::<()>();
        runtime.spawn(async move {
            let _ = held.recv();
        });
        let begin = tokio::time::Instant::now();
        runtime.stop();
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(runtime.spawn_owned(async { 7 }).result().await, None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_tasks_at_once_all_end() {
        let runtime = Arc::new(runtime());
        let tasks: Vec<_> = (0..500_u64)
            .map(|number| {
                runtime.spawn_owned(async move {
                    for _ in 0..number % 7 {
                        tokio::task::yield_now().await;
                    }
                    number
                })
            })
            .collect();
        let mut sum = 0;
        for mut task in tasks {
            sum += task.result().await.unwrap();
        }
        assert_eq!(sum, 499 * 500 / 2);
    }
}
