//! What a Jackfield plugin author needs, in one crate.
#![warn(missing_docs)]
#![deny(unsafe_code)]

mod context;
mod export;
mod forward;
mod host;
mod manifest;
mod output;
mod plugin;
mod provider;
mod schema;
mod scope;
mod shim;
pub mod testing;
mod tool;
mod typed;
pub mod wire;

pub use async_trait::async_trait;
pub use context::{BoxFuture, CallContext, CallInfo, CallLink};
pub use host::{Host, HostLink, LogLevel};
pub use manifest::PluginManifest;
pub use output::{ContentBlock, ToolError, ToolOutput};
pub use plugin::{Plugin, PluginError, linked, linked_with, parse_config};
pub use provider::{
    Access, DirectiveSink, FileAttachment, GatewayKey, ImageAttachment, ToolProvider, ToolProviderContext,
};
pub use schemars;
pub use serde;
pub use serde_json;
#[cfg(feature = "tokio")]
pub use tokio;
pub use tool::{Effect, Tool, ToolOptions, ToolSchema};
#[cfg(feature = "tracing")]
pub use tracing;
pub use typed::{TypedTool, tool};

/// Everything a plugin's source usually names: `use jackfield_plugin_api::prelude::*;`.
pub mod prelude {
    pub use std::sync::Arc;

    pub use schemars::{self, JsonSchema};
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};

    #[cfg(feature = "tokio")]
    pub use crate::tokio;
    #[cfg(feature = "tracing")]
    pub use crate::tracing;
    pub use crate::{
        CallContext, Effect, Host, Plugin, PluginError, Tool, ToolError, ToolOptions, ToolOutput, ToolProvider,
        ToolProviderContext, TypedTool, async_trait, export_plugin, parse_config, plugin_manifest, tool, tools,
    };
}

/// What the macros expand to; not for use by hand, and free to change.
#[doc(hidden)]
pub mod __private {
    pub use jackfield_plugin_abi::{
        LibHeader,
        manifest::{section, section_len},
    };

    pub use crate::{
        export::{Entry, Exported, first_of, header, manifest_fields},
        manifest::{Field, as_text, fields_len, fields_text, is_id, object_len, object_text},
    };
}
