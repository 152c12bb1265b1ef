//! Where documents come from, beside those that a program gives: files and folders.
//!
//! ```text
//!  configuration, command line ──▶ source ────┐
//!                                             ├─▶ indexing run ──▶ knowledge base
//!  admin API ────────────────────▶ connector ─┘        │
//!                                                      └──▶ record: what was seen, what was skipped and why
//! ```
//!
//! A **source** is a path that the operator named; it may be anywhere, and one that was added while the server ran is
//! kept in the state folder. A **connector** is what the protocol's admin API manages; it lives as long as the process
//! and reads only below the folders that the configuration opens to it. Both are read by the same kind of run, one run at
//! a time, and take their documents with them when they go.

mod indexing;
mod kind;
mod run;
mod service;
mod source;
mod state;
mod store;

use std::path::PathBuf;

pub use kind::{ConnectorConfig, ConnectorKind};
pub use run::{Run, RunReport, RunStatus, SkippedDocument};
pub use service::Connectors;
pub use source::{Kept, NewSource, Source};
pub use store::{Connector, NewConnector};

use crate::knowledge::{KnowledgeError, PlaceError};

/// Why something about sources and connectors was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    /// What was asked for is wrong; says what was expected.
    #[error("{0}")]
    Invalid(String),
    /// There is none of this name or id in the organisation.
    #[error("there is none")]
    Unknown,
    /// There are as many as may be.
    #[error("the limit {limit} of {max} is reached; remove some or raise it")]
    Full {
        /// Name of the limit in the configuration.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// Nothing can be read at the path.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The path is not for this caller.
    #[error("{path:?} is outside of the folders that the configuration opens with knowledge.roots; {hint}")]
    Outside {
        /// The path.
        path: PathBuf,
        /// What would help.
        hint: &'static str,
    },
    /// The file of the state folder cannot be read or written; nothing was changed.
    #[error("the sources in {path:?} cannot be kept: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index failed.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
}
