//! A plugin: a tool provider with a beginning and an end.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Host, ToolError, ToolProvider, schema::deserialize};

/// What `export_plugin!` exports. The host makes one, asks it for tools at every turn, and ends it when the plugin is
/// reloaded or the host stops.
///
/// All methods are called on threads of the host, with the plugin's own tokio at hand, also several at the same time.
/// A panic in one fails that call and keeps the plugin: memory is safe, standard locks that were held are poisoned,
/// and the host stops asking a plugin that panics often.
#[async_trait]
pub trait Plugin: ToolProvider + Sized {
    /// Makes the plugin. `config` is what the operator wrote under `[plugins.ID.config]`, an object; see
    /// [`parse_config`]. The host waits 10 s by default and goes on without the plugin then.
    async fn init(host: Host, config: Value) -> Result<Self, PluginError>;

    /// Called once, after the last call has ended, before the plugin is dropped. The host waits for a short time.
    /// Default: nothing.
    async fn shutdown(&self) {}

    /// Answers a service that this plugin offers to the host and to other plugins, named `name/version`. Default: not
    /// offered.
    async fn request(&self, service: &str, body: Value) -> Result<Value, ToolError> {
        let _ = body;
        Err(ToolError::Unavailable(format!("service {service} is not offered by this plugin")))
    }

    /// Something happened, for example `{"type": "conversation_ended", "conversation_id": "…"}`. New types may come
    /// at any time. Default: ignored.
    fn notify(&self, event: &Value) {
        let _ = event;
    }
}

/// Why a plugin cannot start: one text, for the operator, that says what to change.
///
/// Any displayable error becomes one with `?`, which is why this type is not an [`std::error::Error`] itself; it turns
/// into a boxed one.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginError {
    message: String,
}

impl PluginError {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// The text for the operator.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Debug for PluginError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PluginError({})", self.message)
    }
}

impl<E: fmt::Display> From<E> for PluginError {
    fn from(error: E) -> Self {
        Self::new(format!("{error:#}"))
    }
}

impl From<PluginError> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: PluginError) -> Self {
        error.message.into()
    }
}

/// Reads the plugin's configuration into a type of its own; no configuration at all is an empty object.
///
/// # Errors
///
/// Says which key is wrong, what was expected and what came.
pub fn parse_config<C: DeserializeOwned>(config: Value) -> Result<C, PluginError> {
    let config = if config.is_null() { Value::Object(Map::new()) } else { config };
    deserialize(config).map_err(|(pointer, error)| {
        let key = pointer.trim_start_matches('/').replace('/', ".");
        PluginError::new(match key.as_str() {
            "" => format!("invalid configuration: {error}"),
            key => format!("invalid configuration at {key}: {error}"),
        })
    })
}

/// Starts a plugin that is linked into the program, for the `tools` of a server's builder. It runs on the program's
/// own tokio and logs where the program logs; several such plugins can live in one program, because only a dynamic
/// library needs `export_plugin!`.
///
/// The host's services are not there; use [`linked_with`] to offer some.
///
/// # Errors
///
/// What [`Plugin::init`] says.
pub async fn linked<P: Plugin>(config: Value) -> Result<Arc<P>, PluginError> {
    linked_with(Host::in_program(), config).await
}

/// Like [`linked`], with a host of the program's own.
///
/// # Errors
///
/// What [`Plugin::init`] says.
pub async fn linked_with<P: Plugin>(host: Host, config: Value) -> Result<Arc<P>, PluginError> {
    P::init(host, config).await.map(Arc::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        limits: Limits,
    }

    #[derive(Debug, Default, Deserialize)]
    struct Limits {
        rows: u32,
    }

    #[test]
    fn a_wrong_key_is_named() {
        let error = parse_config::<Config>(json!({"limits": {"rows": "many"}})).unwrap_err();
        assert_eq!(
            error.message(),
            "invalid configuration at limits.rows: invalid type: string \"many\", expected u32"
        );
        let error = parse_config::<Config>(json!({"limts": {}})).unwrap_err();
        assert!(error.message().contains("unknown field `limts`, expected `limits`"), "{error:?}");
        assert_eq!(parse_config::<Config>(Value::Null).unwrap().limits.rows, 0);
        let boxed: Box<dyn std::error::Error + Send + Sync> = error.into();
        assert!(boxed.to_string().contains("limts"));
    }
}
