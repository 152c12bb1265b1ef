//! The threads that talk to one worker. None of the plugin's code runs here.

use std::{
    future::Future,
    io,
    sync::{Mutex, PoisonError},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use crate::ids::PluginId;

/// One thread for frames, and one that waits for the end of the process.
pub(super) struct LinkRuntime {
    handle: Handle,
    /// Empty once stopped. Held for a few lines only.
    runtime: Mutex<Option<Runtime>>,
}

impl LinkRuntime {
    pub(super) fn start(id: &PluginId) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name(format!("worker-{id}"))
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) })
    }

    pub(super) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(future)
    }

    /// Runs something that blocks, on the one thread for that.
    pub(super) fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn_blocking(work)
    }

    /// Stops without waiting.
    pub(super) fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for LinkRuntime {
    fn drop(&mut self) {
        self.stop();
    }
}
