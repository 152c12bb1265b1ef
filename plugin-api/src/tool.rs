//! What a tool is: a name, a schema, and something to run.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BoxFuture, CallContext, ToolError, ToolOutput, schema};

/// How a tool is described to the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolSchema {
    /// The name the model calls, `[A-Za-z0-9_-]{1,64}`; unique within one provider.
    pub name: String,
    /// What the tool does and when to use it, in a sentence or two, for the model.
    pub description: String,
    /// JSON Schema (draft 2020-12) of the arguments; its top level is always an object schema.
    pub parameters: Value,
}

impl ToolSchema {
    /// A schema from its three parts. `parameters` is the JSON Schema of the arguments.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        Self { name: name.into(), description: description.into(), parameters }
    }
}

/// What running a tool can change, from harmless to dangerous. The order of the variants is the order of caution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Looks, and changes nothing.
    ReadOnly,
    /// Changes only a sandbox of its own.
    Confined,
    /// Changes something that can be changed back.
    Writes,
    /// May destroy something, or is not declared.
    Destructive,
}

impl Effect {
    /// Whether a human is asked before a plugin's tool with this effect runs, unless the configuration says otherwise.
    pub fn asks_by_default(self) -> bool {
        matches!(self, Effect::Writes | Effect::Destructive)
    }

    /// The name used on the wire and in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::ReadOnly => "read_only",
            Effect::Confined => "confined",
            Effect::Writes => "writes",
            Effect::Destructive => "destructive",
        }
    }
}

/// How the host should run a tool. Every field has a default; the operator's limits cap what is set here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ToolOptions {
    /// Longest silence of a call; a progress report starts it anew. Default: the host's (60 s).
    pub idle_timeout_ms: Option<u64>,
    /// Longest duration of a call, whatever it reports. Default: the host's (600 s).
    pub absolute_timeout_ms: Option<u64>,
    /// How long a cancelled call may tidy up before its future is dropped. Default 500 ms, at most 5 s.
    pub cancel_grace_ms: Option<u64>,
    /// The tool is meant to be called again with the same arguments (it polls something), so that a repeated call
    /// with a repeated result is not a loop.
    pub polling: bool,
}

impl ToolOptions {
    /// Sets the longest silence of a call.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout_ms = Some(millis(timeout));
        self
    }

    /// Sets the longest duration of a call.
    #[must_use]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.absolute_timeout_ms = Some(millis(timeout));
        self
    }

    /// Sets how long a cancelled call may tidy up.
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace_ms = Some(millis(grace));
        self
    }

    /// Says that repeated identical calls are how the tool is used.
    #[must_use]
    pub fn polling(mut self) -> Self {
        self.polling = true;
        self
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Something the model can call. Built-in tools, an embedder's tools and plugins' tools are all this trait.
///
/// One object serves many calls, also at the same time. The host calls every method; none may block a thread for
/// long, because a plugin's tools share the plugin's own small runtime.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// Name, description and argument schema. Called at every turn that offers the tool; must always return the same.
    fn schema(&self) -> ToolSchema;

    /// Runs one call.
    ///
    /// `arguments` has been checked against [`schema`](Tool::schema) by the host and is an object. An error is told
    /// to the model as a failed call; it never ends the turn.
    ///
    /// # Cancel safety
    ///
    /// On cancellation or time-out the host first fires [`CallContext::cancelled`], waits for the grace time of
    /// [`options`](Tool::options), and then drops the future. Whatever must be undone belongs in a `Drop`.
    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError>;

    /// [`execute`](Tool::execute) from the arguments' JSON text, which is what crosses the binary interface. A typed
    /// tool reads its type from it at once; the default goes over a value.
    #[doc(hidden)]
    fn execute_json(self: Arc<Self>, arguments: &[u8], call: CallContext) -> BoxFuture<Result<ToolOutput, ToolError>> {
        match schema::parse_value(arguments) {
            Ok(arguments) => Box::pin(async move { self.execute(arguments, call).await }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Whether the tool changes nothing, whatever its arguments. Default: `false`.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Whether calls may run at the same time as other calls of the same model reply. Default: `true`.
    fn is_concurrent_safe(&self) -> bool {
        true
    }

    /// What a call with these arguments can change. Default: [`Effect::ReadOnly`] for a read-only tool, otherwise
    /// [`Effect::Destructive`]. Must be quick and must not do I/O: it is asked before a human is.
    fn effect(&self, arguments: &Value) -> Effect {
        let _ = arguments;
        if self.is_read_only() { Effect::ReadOnly } else { Effect::Destructive }
    }

    /// The effect of every call, when it is the same whatever the arguments are; `None` when [`effect`](Tool::effect)
    /// has to be asked for each. Default: [`Effect::ReadOnly`] for a read-only tool, otherwise `None`.
    fn declared_effect(&self) -> Option<Effect> {
        self.is_read_only().then_some(Effect::ReadOnly)
    }

    /// Time limits and other wishes. Default: none, so that the host's defaults hold.
    fn options(&self) -> ToolOptions {
        ToolOptions::default()
    }
}
