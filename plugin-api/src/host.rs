//! The host as a plugin sees it: named services, notices, and a log.

use std::sync::Arc;

use serde_json::Value;

use crate::{BoxFuture, ToolError};

/// Severity of a log line, from `Error` (1) to `Trace` (5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// Something worth knowing happened.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// What stands behind [`Host`]: the real host through the binary interface, or a test's.
pub trait HostLink: Send + Sync + 'static {
    /// Whether a line of this level would be kept; asked before the line is made.
    fn log_enabled(&self, level: LogLevel) -> bool;
    /// Writes a log line. `fields` is a JSON object; `call_id` is 0 outside a call.
    fn log(&self, level: LogLevel, target: &str, message: &str, fields: &Value, call_id: u64);
    /// Asks a named service, `name/version`. An unknown one answers [`ToolError::Unavailable`].
    fn request(&self, service: &str, body: Vec<u8>) -> BoxFuture<Result<Vec<u8>, ToolError>>;
    /// Tells the host that something happened; unknown notices are ignored.
    fn notify(&self, event: &Value);
}

/// A cloneable handle to the host. It stays valid for as long as the plugin does.
#[derive(Clone)]
pub struct Host {
    link: Arc<dyn HostLink>,
}

impl Host {
    /// Wraps a link; the host and the test kit do this.
    pub fn new(link: Arc<dyn HostLink>) -> Self {
        Self { link }
    }

    /// A host that keeps no log and offers no service, for tools that run inside the program itself.
    pub fn detached() -> Self {
        Self::new(Arc::new(Detached))
    }

    /// The program that a plugin is linked into: no services, and with the feature `tracing` the program's own log.
    pub(crate) fn in_program() -> Self {
        Self::new(Arc::new(InProgram))
    }

    /// Asks a service of the host, or of another plugin (`PLUGIN.service/1`), in JSON.
    ///
    /// # Errors
    ///
    /// [`ToolError::Unavailable`] when this host does not offer the service; otherwise what the service answers.
    pub async fn request(&self, service: &str, body: &Value) -> Result<Value, ToolError> {
        let body = serde_json::to_vec(body)?;
        let reply = self.link.request(service, body).await?;
        Ok(serde_json::from_slice(&reply)?)
    }

    /// Tells the host that something happened. Unknown notices are ignored, so this cannot fail.
    pub fn notify(&self, event: &Value) {
        self.link.notify(event);
    }

    /// Whether a log line of this level would be kept.
    pub fn log_enabled(&self, level: LogLevel) -> bool {
        self.link.log_enabled(level)
    }

    /// Writes a line to the host's log. With the feature `tracing` (default) `tracing::info!` and friends do this,
    /// and add the call they belong to.
    pub fn log(&self, level: LogLevel, target: &str, message: &str) {
        if self.link.log_enabled(level) {
            self.link.log(level, target, message, &Value::Object(serde_json::Map::new()), 0);
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Host")
    }
}

struct Detached;

impl HostLink for Detached {
    fn log_enabled(&self, _: LogLevel) -> bool {
        false
    }
    fn log(&self, _: LogLevel, _: &str, _: &str, _: &Value, _: u64) {}
    fn request(&self, service: &str, _: Vec<u8>) -> BoxFuture<Result<Vec<u8>, ToolError>> {
        let message = format!("service {service} is not offered here");
        Box::pin(async move { Err(ToolError::Unavailable(message)) })
    }
    fn notify(&self, _: &Value) {}
}

struct InProgram;

impl HostLink for InProgram {
    fn log_enabled(&self, _: LogLevel) -> bool {
        cfg!(feature = "tracing")
    }

    #[cfg(not(feature = "tracing"))]
    fn log(&self, _: LogLevel, _: &str, _: &str, _: &Value, _: u64) {}

    #[cfg(feature = "tracing")]
    fn log(&self, level: LogLevel, target: &str, message: &str, fields: &Value, _: u64) {
        // A level is part of what the compiler knows about an event, hence one line for each.
        match level {
            LogLevel::Error => tracing::error!(plugin_target = target, %fields, "{message}"),
            LogLevel::Warn => tracing::warn!(plugin_target = target, %fields, "{message}"),
            LogLevel::Info => tracing::info!(plugin_target = target, %fields, "{message}"),
            LogLevel::Debug => tracing::debug!(plugin_target = target, %fields, "{message}"),
            LogLevel::Trace => tracing::trace!(plugin_target = target, %fields, "{message}"),
        }
    }

    fn request(&self, service: &str, body: Vec<u8>) -> BoxFuture<Result<Vec<u8>, ToolError>> {
        Detached.request(service, body)
    }

    fn notify(&self, _: &Value) {}
}
