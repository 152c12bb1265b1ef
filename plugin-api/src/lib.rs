//! What a Jackfield plugin author needs, in one crate.
//!
//! A plugin is a Rust library that offers tools to a language model. It is built as a `cdylib`, dropped into a folder,
//! and loaded by a server that may have been built by another compiler, against an older or a newer version of this
//! crate. A complete one is in the documentation of [`export_plugin!`].
//!
//! # The life of a plugin
//!
//! ```text
//! file in a folder ─▶ its manifest is read, nothing of it runs ─▶ loaded ─▶ Plugin::init
//!      ─▶ at every turn: ToolProvider::tools_for ─▶ for every call: Tool::effect, Tool::execute
//!      ─▶ Plugin::shutdown ─▶ Drop. The library stays mapped until the server ends.
//! ```
//!
//! * [`Plugin::init`] gets the operator's `[plugins.ID.config]` and has 10 s by default.
//! * [`ToolProvider::tools_for`] is asked at every turn and has 250 ms by default: look things up in memory, open
//!   nothing. Who is late is offered as it was the last time.
//! * A call has two clocks, one for silence and one for its whole duration; [`ToolOptions`] asks for others. Progress
//!   restarts the first one.
//! * A cancelled call is told by [`CallContext::cancelled`], may tidy up for its grace time, and is then dropped.
//!
//! # Threads
//!
//! Everything of a plugin runs on a few threads that the server keeps for this plugin alone, several calls at the same
//! time. Waiting is free, blocking is not: a call that blocks its thread makes the plugin's other calls wait, and only
//! those. With the feature `tokio` (default) the plugin's own tokio is entered whenever the plugin's code runs, so that
//! timers, sockets and `tokio::spawn` work as usual. Long computations belong in `tokio::task::spawn_blocking`.
//!
//! # Who owns what
//!
//! All arguments and results are owned values. A [`Host`] and a [`CallContext`] may be cloned and kept; after its call
//! has ended, a context's reports are ignored.
//!
//! # Errors and panics
//!
//! A [`ToolError`] is read by the model, so it should say what was expected and what to do next. A panic fails the one
//! call it happened in, with its text, and is logged with its place; it never reaches the server. The profile must
//! not say `panic = "abort"`.
//!
//! # Logs
//!
//! With the feature `tracing` (default), `tracing::info!` and its sisters reach the server's log, with the call they
//! belong to.
//!
//! # Trust
//!
//! A plugin has all the rights of the server's process, unless the operator runs it isolated: then it is loaded by a
//! process of its own and has the permissions that its manifest asks for and the operator granted. It cannot tell the
//! difference but by what fails; a folder that only the operator knows is asked for as `read: ["/"]` or
//! `write: ["/"]`, of which the operator grants a part. The declared [`Effect`]s decide whether a human is asked before
//! a call; they are a promise of the author's, not a fence. The key of the model gateway is never handed to a plugin.
//!
//! # Tests
//!
//! [`testing::TestHost`] runs a plugin in `cargo test`, without a server and with a paused clock if the test wants.

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
