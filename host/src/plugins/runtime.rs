//! The runtime of one plugin. Everything a plugin does in this process is polled and dropped here, never on the
//! server's threads, so that a plugin that blocks holds up nobody but itself.

use std::{
    future::Future,
    io,
    sync::{Mutex, PoisonError},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use crate::ids::PluginId;

/// Two threads that serve one plugin, until it is stopped. A stopped runtime runs nothing any more; a thread that is
/// stuck in the plugin is left behind.
pub(super) struct PluginRuntime {
    handle: tokio::runtime::Handle,
    /// Empty once stopped. Held for a few lines only.
    runtime: Mutex<Option<Runtime>>,
}

/// A plugin that blocks one thread still answers with the other.
const WORKERS: usize = 2;

impl PluginRuntime {
    pub(super) fn start(id: &PluginId) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(1)
            .thread_name(format!("plugin-{id}"))
            .enable_time()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) })
    }

    /// One thread that talks to the process of an isolated plugin, and one that waits for its end. None of the
    /// plugin's code runs here.
    #[cfg(unix)]
    pub(super) fn start_for_worker(id: &PluginId) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name(format!("worker-{id}"))
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) })
    }

    /// Runs something that blocks, on the one thread for that.
    #[cfg(unix)]
    pub(super) fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn_blocking(work)
    }

    /// Runs a future on the plugin's threads. After [`stop`](Self::stop) it is dropped unpolled, and the handle says
    /// that it was cancelled.
    pub(super) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(future)
    }

    /// Like [`spawn`](Self::spawn), but dropping the returned guard drops the future, on the plugin's threads.
    pub(super) fn spawn_owned<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> OwnedTask<T> {
        OwnedTask(self.spawn(future))
    }

    /// Drops something of the plugin's on the plugin's threads, because its `Drop` is plugin code. Once stopped it is
    /// leaked: there is no thread left that may run that code.
    pub(super) fn discard<T: Send + 'static>(&self, object: T) {
        let running = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            drop(self.spawn(async move { drop(object) }));
        } else {
            std::mem::forget(object);
        }
    }

    /// Stops without waiting: a thread that is stuck in the plugin cannot hold anybody up.
    pub(super) fn stop(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for PluginRuntime {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A task that ends with its owner.
pub(super) struct OwnedTask<T>(JoinHandle<T>);

impl<T> OwnedTask<T> {
    /// Waits for the result; `None` when the plugin was stopped meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait keeps the task; dropping the `OwnedTask` aborts it.
    pub(super) async fn result(&mut self) -> Option<T> {
        (&mut self.0)
            .await
            .inspect_err(|error| {
                // Panics of plugins are caught by the interface, so this one is ours.
                if error.is_panic() {
                    tracing::error!(%error, "the host failed on a plugin's thread");
                }
            })
            .ok()
    }
}

impl<T> Drop for OwnedTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    struct SaysWhere(mpsc::Sender<String>);

    impl Drop for SaysWhere {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().name().unwrap_or("").to_owned());
        }
    }

    fn runtime() -> PluginRuntime {
        PluginRuntime::start(&PluginId::new("p")).unwrap()
    }

    #[tokio::test]
    async fn an_abandoned_task_is_dropped_on_the_plugins_threads() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        let object = SaysWhere(sender);
        let task = runtime.spawn_owned(async move {
            let _object = object;
            std::future::pending::<()>().await;
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(task);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)).unwrap(), "plugin-p");
    }

    #[tokio::test]
    async fn objects_are_discarded_on_the_plugins_threads_and_leaked_after_the_stop() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        runtime.discard(SaysWhere(sender.clone()));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)).unwrap(), "plugin-p");
        runtime.stop();
        runtime.discard(SaysWhere(sender));
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[tokio::test]
    async fn a_stuck_thread_holds_up_neither_the_other_nor_the_stop() {
        let runtime = runtime();
        let (free, stuck) = mpsc::channel::<()>();
        drop(runtime.spawn(async move { stuck.recv().is_ok() }));
        assert_eq!(runtime.spawn_owned(async { 7 }).result().await, Some(7));
        let begin = tokio::time::Instant::now();
        runtime.stop();
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(runtime.spawn_owned(async { 7 }).result().await, None);
        drop(free);
    }
}
