//! Jackfield: a local agent server that is extended by dropping plugins into a folder.
//!
//! A frame comes in, becomes an action, starts a turn; the turn asks the model, the model asks for tools, plugins
//! answer; every event leaves through one bounded queue. Beside it a file in a folder is read, verified and loaded, and
//! offers tools to the next turn. `ARCHITECTURE.md` has the map.
//!
//! A program embeds the whole server:
//!
//! ```no_run
//! # async fn embed() -> Result<(), jackfield::server::StartError> {
//! use jackfield::local::LocalServer;
//!
//! let server = LocalServer::builder().addr(([127, 0, 0, 1], 0).into()).seed_kb(true).spawn().await?;
//! println!("connect to {}", server.ws_url());
//! server.shutdown().await
//! # }
//! ```

#![warn(missing_docs)]

mod actions;
pub mod auth;
pub mod clock;
pub mod config;
pub mod connectors;
mod http;
pub mod ids;
pub mod knowledge;
mod metrics;
pub mod model;
mod otp;
mod outbound;
mod outgoing;
pub mod plugins;
pub mod protocol;
pub mod run_file;
pub mod server;
mod socket;
mod state_folder;
pub mod storage;
mod tools;
mod turn;
pub mod workbench;
pub mod worker;

pub use config::{AgentConfig, ServerConfig, StorageBackend};
pub use otp::{OtpChannel, OtpDelivery, OtpDeliveryError, OtpService};
pub use server::AppState;
pub use turn::{
    AgentConfigResolver, AgentQuery, AgentUnavailable, HookedCall, KnowledgeChatRuntime, PersonaOrigin, PromptComposer,
    PromptContext, PromptPart, PromptSection, Skill, SkillResolver, ToolHook,
};

/// The local flavor: everything in memory, loopback only, in one process.
pub mod local {
    pub use crate::server::{DEFAULT_LOCAL_ADDR, LocalServer, LocalServerBuilder, local_config, serve_local};
}
