//! The wishes to stop that a process gets from outside.

use std::io;

/// What asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopRequest {
    /// Ctrl-C.
    Interrupt,
    /// `SIGTERM`, where there is one.
    Terminate,
}

/// Hears every wish to stop from the moment it is made, so that none is missed between two waits.
#[derive(Debug)]
pub struct StopRequests {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl StopRequests {
    /// Starts to listen. From now on the signals do not end the process by themselves.
    ///
    /// # Errors
    ///
    /// When the system does not let this process listen.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(unix)]
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Starts to listen. From now on Ctrl-C does not end the process by itself.
    ///
    /// # Errors
    ///
    /// When the system does not let this process listen.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(windows)]
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    /// The next wish to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future misses none.
    #[cfg(unix)]
    pub async fn next(&mut self) -> StopRequest {
        tokio::select! {
            Some(()) = self.interrupt.recv() => StopRequest::Interrupt,
            Some(()) = self.terminate.recv() => StopRequest::Terminate,
            // The system has stopped delivering: then nobody asks any more.
            else => std::future::pending().await,
        }
    }

    /// The next wish to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future misses none.
    #[cfg(windows)]
    pub async fn next(&mut self) -> StopRequest {
        match self.interrupt.recv().await {
            Some(()) => StopRequest::Interrupt,
            None => std::future::pending().await,
        }
    }
}

/// Completes when the process is asked to stop once.
pub async fn stop_requested() {
    match StopRequests::listen() {
        Ok(mut requests) => {
            requests.next().await;
        }
        Err(error) => {
            tracing::warn!(%error, "wishes to stop cannot be noticed");
            std::future::pending::<()>().await;
        }
    }
}
