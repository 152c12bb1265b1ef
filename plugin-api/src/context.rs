//! What a call is told while it runs, and how it talks back.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::Host;

/// A future that owns all it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Which call this is. All ids are opaque strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CallInfo {
    /// The tool that is called, by the name the model used.
    pub tool: String,
    /// The model's id of the call.
    pub tool_call_id: String,
    /// The conversation, the session and the turn that the call belongs to; absent when a tool is tried by hand.
    pub conversation_id: Option<String>,
    /// See `conversation_id`.
    pub session_id: Option<String>,
    /// See `conversation_id`.
    pub turn_id: Option<String>,
    /// A folder of the conversation's own, when the host grants one.
    pub workspace: Option<String>,
    /// How long a cancelled call may tidy up, in milliseconds.
    pub cancel_grace_ms: u64,
    /// When the call will be ended whatever it does, in milliseconds since 1970; 0 means no such limit.
    pub deadline_unix_ms: u64,
    /// A number that is unique in this host while the call runs; log lines carry it.
    pub call_id: u64,
}

/// The host's side of a running call. An author uses [`CallContext`]; a test may implement this to watch a tool.
pub trait CallLink: Send + Sync + 'static {
    /// A progress report; `fraction` is from 0 to 1, NaN when unknown. It also restarts the idle clock.
    fn progress(&self, fraction: f32, message: &str);
    /// Whether the call has been cancelled.
    fn is_cancelled(&self) -> bool;
    /// Completes when the call is cancelled.
    fn cancelled(&self) -> BoxFuture<()>;
}

/// Handed to [`Tool::execute`](crate::Tool::execute): who called, how long it may take, and the way back.
#[derive(Clone)]
pub struct CallContext {
    info: Arc<CallInfo>,
    link: Arc<dyn CallLink>,
    host: Host,
}

impl CallContext {
    /// Puts a context together; the host and the test kit do this.
    pub fn new(info: CallInfo, link: Arc<dyn CallLink>, host: Host) -> Self {
        Self { info: Arc::new(info), link, host }
    }

    /// Which call this is.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }

    /// Reports progress and restarts the idle clock. `fraction` is from 0 to 1. Cheap; the host throttles what it
    /// shows.
    pub fn progress(&self, fraction: f32, message: impl AsRef<str>) {
        self.link.progress(fraction, message.as_ref());
    }

    /// Whether the call has been cancelled or has run out of time.
    pub fn is_cancelled(&self) -> bool {
        self.link.is_cancelled()
    }

    /// Completes when the call is cancelled; for `tokio::select!`.
    pub fn cancelled(&self) -> BoxFuture<()> {
        self.link.cancelled()
    }

    /// Time left until the call is ended whatever it does; `None` without such a limit.
    #[allow(clippy::disallowed_methods, reason = "the deadline is a wall-clock time that another process may have set")]
    pub fn time_left(&self) -> Option<Duration> {
        if self.info.deadline_unix_ms == 0 {
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Duration::from_millis(self.info.deadline_unix_ms).saturating_sub(now))
    }

    /// The services of the host.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl std::fmt::Debug for CallContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CallContext").field("info", &self.info).finish_non_exhaustive()
    }
}
