//! A program that serves plugins to a host: this program itself, started again as a child.
//!
//! A plugin with `isolation = "process"` runs in a worker. The `jackfield` program is its own worker; a program that
//! embeds the server becomes one with a single line:
//!
//! ```no_run
//! // First thing in `main`:
//! jackfield::worker::run_if_requested();
//! // Then everything else: logging, the runtime, `LocalServer::builder()`.
//! ```
//!
//! A program that cannot have this line names the `jackfield` program instead, with
//! [`LocalServerBuilder::worker_program`](crate::local::LocalServerBuilder::worker_program).

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether this program's `main` begins as a worker's has to.
static OFFERED: AtomicBool = AtomicBool::new(false);

/// Serves a plugin and ends the process, when this process was started as a worker; returns at once otherwise.
///
/// To be called first thing in `main`, before the program opens files, starts threads or a runtime: what a worker
/// inherits is closed here, and its fences are put up while there is one thread.
pub fn run_if_requested() {
    OFFERED.store(true, Ordering::Relaxed);
    #[cfg(unix)]
    if is_requested() {
        std::process::exit(crate::plugins::serve_worker().into());
    }
}

/// Whether this process was started as a worker.
pub(crate) fn is_requested() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == crate::plugins::WORKER_REQUEST)
}

/// This program as a worker program, when it can be one.
pub(crate) fn own_program() -> Option<PathBuf> {
    if !OFFERED.load(Ordering::Relaxed) {
        return None;
    }
    // The link names the very file that runs here, also when it has been replaced on disk by another version.
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Some(running) } else { std::env::current_exe().ok() }
}
