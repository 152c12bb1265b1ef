//! What is in place on a thread while a plugin's code runs there: which host to tell, which call it is, and the
//! plugin's own tokio.
//!
//! A plugin's code runs on threads of the host, which know nothing of the plugin's tokio (each library has its own
//! copy), so everything is put in place at every poll and every drop, and taken away after it. Threads of the
//! plugin's own runtime know their plugin for good.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::HostLink;

/// The way from a plugin to its host.
pub(crate) struct Link {
    pub(crate) host: Arc<dyn HostLink>,
}

thread_local! {
    /// The plugin and the call whose code runs here now.
    static CURRENT: RefCell<Option<(Arc<Link>, u64)>> = const { RefCell::new(None) };
    /// The plugin that this thread belongs to.
    static HOME: RefCell<Weak<Link>> = const { RefCell::new(Weak::new()) };
}

/// The plugin that was made last: the best guess for a thread that the author started by hand.
static LATEST: Mutex<Weak<Link>> = Mutex::new(Weak::new());

/// Puts a plugin and a call in place until it is dropped.
pub(crate) struct Scope {
    before: Option<(Arc<Link>, u64)>,
}

impl Scope {
    pub(crate) fn enter(link: &Arc<Link>, call_id: u64) -> Self {
        let now = Some((Arc::clone(link), call_id));
        // A thread that ends has no such variable any more; its code then runs without one.
        Self { before: CURRENT.try_with(|current| current.replace(now)).unwrap_or_default() }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let before = self.before.take();
        // The replaced value is dropped outside the borrow: it may be the last handle to a host.
        drop(CURRENT.try_with(|current| current.replace(before)));
    }
}

/// The host to tell, and the call (0 outside one), when it is known whose code runs on this thread.
pub(crate) fn known() -> Option<(Arc<Link>, u64)> {
    let current = CURRENT.try_with(|current| current.try_borrow().ok()?.clone()).ok().flatten();
    current.or_else(|| {
        let home = HOME.try_with(|home| home.try_borrow().ok()?.upgrade()).ok().flatten();
        home.map(|link| (link, 0))
    })
}

/// The host of the plugin that was made last.
pub(crate) fn latest() -> Option<(Arc<Link>, u64)> {
    LATEST.lock().unwrap_or_else(PoisonError::into_inner).upgrade().map(|link| (link, 0))
}

/// Remembers the plugin for threads that nobody told.
pub(crate) fn set_latest(link: &Arc<Link>) {
    *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(link);
}

#[cfg(feature = "tokio")]
pub(crate) use with_tokio::PluginRuntime;
#[cfg(not(feature = "tokio"))]
pub(crate) use without_tokio::PluginRuntime;

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::*;

    /// Two, so that one blocked worker does not also stop the timers.
    const WORKERS: usize = 2;

    /// A plugin's own tokio.
    pub(crate) struct PluginRuntime {
        handle: tokio::runtime::Handle,
        /// Held for a moment, by `stop` only.
        runtime: Mutex<Option<tokio::runtime::Runtime>>,
    }

    impl PluginRuntime {
        /// Starts the workers; they know `link` as their plugin and carry `id` in their names.
        pub(crate) fn start(id: &str, link: &Arc<Link>) -> std::io::Result<Self> {
            let home = Arc::downgrade(link);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .thread_name(format!("plugin-{id}"))
                .enable_all()
                .on_thread_start(move || HOME.with(|cell| *cell.borrow_mut() = home.clone()))
                .build()?;
            Ok(Self { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) })
        }

        /// Runs `code` with this tokio at hand.
        pub(crate) fn within<R>(&self, code: impl FnOnce() -> R) -> R {
            let _entered = self.handle.enter();
            code()
        }

        /// `future`, or `None` when the time is over first.
        pub(crate) async fn timeout<T>(
            &self,
            limit: std::time::Duration,
            future: impl Future<Output = T>,
        ) -> Option<T> {
            tokio::time::timeout(limit, future).await.ok()
        }

        /// Stops the workers without waiting for them. Tasks that still run are dropped at their next wait.
        pub(crate) fn stop(&self) {
            if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
                runtime.shutdown_background();
            }
        }
    }

    impl Drop for PluginRuntime {
        fn drop(&mut self) {
            self.stop();
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod without_tokio {
    use super::*;

    /// Stands where tokio would be.
    pub(crate) struct PluginRuntime;

    impl PluginRuntime {
        pub(crate) fn start(_: &str, _: &Arc<Link>) -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn within<R>(&self, code: impl FnOnce() -> R) -> R {
            code()
        }

        /// Without timers here, the host's own clock is the limit.
        pub(crate) async fn timeout<T>(&self, _: std::time::Duration, future: impl Future<Output = T>) -> Option<T> {
            Some(future.await)
        }

        pub(crate) fn stop(&self) {}
    }
}
