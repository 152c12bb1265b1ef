//! Who offers tools, and what a provider is told about the turn it offers them to.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Tool;

/// Offers tools for a turn. The host asks once per turn, with a budget (250 ms by default): a provider that is late
/// or panics keeps its last good list for that turn.
///
/// The same trait serves an embedding program (`LocalServer::builder().tools(...)`) and a plugin.
#[async_trait]
pub trait ToolProvider: Send + Sync + 'static {
    /// The tools for this turn. Must be quick: look things up in memory, open nothing.
    async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>>;
}

/// What the requester of a turn may see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Access {
    /// The verified user, if there is one.
    pub user_id: Option<String>,
    /// The user's groups.
    pub groups: Vec<String>,
    /// The organisation the turn belongs to.
    pub organization_id: Option<String>,
    /// The agent that is talked to.
    pub agent_id: Option<String>,
}

/// A picture that came with the message of this turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageAttachment {
    /// A `data:image/...` or https address.
    pub url: String,
    /// `low`, `high` or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A file that came with the message of this turn. Never sent to the model and never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAttachment {
    /// Its name.
    pub name: String,
    /// Its media type, when the client said one.
    #[serde(default, rename = "mimeType", skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Where its bytes are.
    pub url: String,
}

/// A key that must not be printed: its `Debug` shows nothing, and it is never serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct GatewayKey(String);

impl GatewayKey {
    /// Wraps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key itself. Whoever calls this owes it the same care.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GatewayKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GatewayKey(***)")
    }
}

/// The slot that holds the last directive of a turn, shared by everything that may set one.
#[derive(Clone, Debug, Default)]
pub struct DirectiveSink(Arc<Mutex<Option<Map<String, Value>>>>);

impl DirectiveSink {
    /// Replaces the directive.
    pub fn set(&self, directive: Map<String, Value>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(directive);
    }

    /// Takes the directive out, leaving the slot empty.
    pub fn take(&self) -> Option<Map<String, Value>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// What a provider is told about the turn.
///
/// `gateway_key` and `directive_sink` exist only for providers linked into the program: they are never serialised, so
/// that a plugin, which gets this as JSON, never sees them. Fields may be added; unknown ones are kept in `extra`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ToolProviderContext {
    /// The organisation that owns the turn.
    pub org_id: Option<String>,
    /// What the requester may see.
    pub access: Access,
    /// The conversation the turn belongs to.
    pub conversation_id: Option<String>,
    /// The session that started the turn.
    pub session_id: Option<String>,
    /// The turn itself.
    pub turn_id: Option<String>,
    /// The model this turn will ask.
    pub model: Option<String>,
    /// What the user wrote.
    pub user_message: String,
    /// Configuration of single tools, by tool name.
    pub tool_specific_config: BTreeMap<String, Value>,
    /// Pictures that came with the message.
    pub images: Vec<ImageAttachment>,
    /// Files that came with the message.
    pub files: Vec<FileAttachment>,
    /// The key of the model gateway, for providers linked into the program only.
    #[serde(skip)]
    pub gateway_key: Option<GatewayKey>,
    /// The shared directive slot, for providers linked into the program only.
    #[serde(skip)]
    pub directive_sink: DirectiveSink,
    /// What a newer host says and this version of the crate does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
