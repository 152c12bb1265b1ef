//! What a Jackfield plugin author needs, in one crate.

#![warn(missing_docs)]
#![deny(unsafe_code)]

mod context;
mod host;
mod output;
mod provider;
mod tool;
pub mod wire;

pub use async_trait::async_trait;
pub use context::{BoxFuture, CallContext, CallInfo, CallLink};
pub use host::{Host, HostLink, LogLevel};
pub use output::{ContentBlock, ToolError, ToolOutput};
pub use provider::{
    Access, DirectiveSink, FileAttachment, GatewayKey, ImageAttachment, ToolProvider, ToolProviderContext,
};
pub use schemars;
pub use serde;
pub use serde_json;
pub use tool::{Effect, Tool, ToolOptions, ToolSchema};
