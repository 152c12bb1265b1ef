//! The binary interface between Jackfield's host and its plugins.
//!
//! ```text
//!   host                                             plugin (its own standard library, allocator, tokio)
//!   read section .jackfield  ── manifest ──▶ verify
//!   dlopen, symbol LOADER_SYMBOL ─▶ check_plugin ─▶ PluginRef
//!   create(HostObj, config) ───────────────────────▶ ProviderObj
//!     tools_for(context) ──────────────────────────▶ [ToolObj]
//!     execute(arguments, call, CancelObj) ─────────▶ output
//!     ◀── log, progress, request, notify ── HostObj
//!   shutdown(deadline), drop ──────────────────────▶ gone; the file stays mapped
//! ```
//!
//! **The promise**: a plugin built against 1.x of this crate loads in every host built against 1.y, whichever is
//! newer, whatever compiler, optimisation and allocator either side used. That is why this crate is small, why all
//! that changes travels as JSON, and why it only ever grows at the marked places (see [`objects`]).
//!
//! **Panics** never cross. Each object and each future is wrapped, in the library that owns its code, by a guard that
//! catches: while it is made, called, polled, woken and dropped. A panic fails that one operation; the object stays
//! in use, since one bad call of one tool should not take the plugin's other tools away. The host counts such faults
//! and stops using a plugin that has too many.
//!
//! **Trust**: nothing here protects the host from a hostile plugin. Whatever is loaded has all the rights of the
//! process.
//!
//! This is the only crate that names `abi_stable`; the types of it that others need are re-exported here.

#![warn(missing_docs)]

mod check;
mod error;
mod future;
pub mod guard;
mod layout;
pub mod manifest;
mod module;
pub mod objects;
mod waker;

pub use abi_stable::{
    library::LibHeader,
    std_types::{RBox, RErr, ROk, RResult, RSlice, RStr, RString, RVec},
};
pub use check::{CheckedModule, LoadError, PluginAge, check_plugin};
pub use error::{AbiCallInfo, AbiError, kind};
pub use future::{AbiFuture, AbiPoll, PluginPanicked, Surroundings};
pub use layout::layout_dump;
pub use module::{CreateReply, LOADER_SYMBOL, PluginEntry, PluginModule, PluginRef, plugin_header};
pub use objects::{
    CancelAbi, CancelObj, HostAbi, HostObj, ProviderAbi, ProviderObj, ServiceReply, ToolAbi, ToolObj, cancel_object,
    host_object, provider_object, tool_object,
};

/// The version of this interface, for manifests.
pub const ABI_VERSION: &str = env!("CARGO_PKG_VERSION");
