//! What is known about all plugins at one instant: the one truth that turns, reports and the command line read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{PluginSettings, PluginsConfig, manifest::Manifest, provider::PluginProvider};
use crate::{config::Isolation, ids::PluginId};

/// All plugins at one instant. Immutable: whoever holds it sees the same plugins until it is let go.
#[derive(Clone, Debug, Default)]
pub struct PluginSnapshot {
    /// Grows with every change.
    pub id: u64,
    /// Sorted by id, then by path.
    pub entries: Vec<Arc<PluginEntry>>,
}

/// One plugin file at one instant.
#[derive(Clone, Debug)]
pub struct PluginEntry {
    /// The id its manifest declares, or the file's name where there is no readable manifest.
    pub id: PluginId,
    /// The file.
    pub path: PathBuf,
    /// Where it is in its life.
    pub state: PluginState,
    /// What its author says about it, once it has been read.
    pub manifest: Option<Manifest>,
    /// SHA-256 of the file, once it has been read.
    pub sha256: Option<String>,
    /// Offers its tools while it is active.
    pub provider: Option<Arc<PluginProvider>>,
    /// Names of the tools it offered when it was loaded, sorted.
    pub tools: Vec<String>,
    /// Which load of this id it is, from 1.
    pub generation: Option<u64>,
    /// What the operator set for it.
    pub settings: PluginSettings,
    /// Where its code runs, or would.
    pub isolation: Isolation,
}

/// The life of a plugin; the drawing is in the module's documentation. Reasons name the file, what was found, what
/// was expected and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// The file was found; nothing is known of it.
    Discovered,
    /// It may be loaded, and is being loaded.
    Verified,
    /// Its tools are offered.
    Active,
    /// No turn gets its tools any more; it finishes.
    Draining,
    /// It has finished. Its code stays mapped.
    Retired,
    /// Refused before any of its code ran.
    Rejected(String),
    /// Its code ran and failed.
    Failed(String),
    /// Somebody wants it off; says who.
    Disabled(String),
}

impl PluginSnapshot {
    /// The active plugin of this id.
    pub fn active(&self, id: &str) -> Option<&Arc<PluginEntry>> {
        self.entries.iter().find(|entry| entry.id.as_str() == id && entry.state == PluginState::Active)
    }

    /// Puts the entries into their order.
    pub(super) fn sort(&mut self) {
        self.entries.sort_by(|a, b| (&a.id, &a.path).cmp(&(&b.id, &b.path)));
    }
}

impl PluginEntry {
    /// What is known of a file before it is read.
    pub(super) fn new(config: &PluginsConfig, path: &Path, state: PluginState) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let id = PluginId::new(&*name);
        Self {
            settings: config.settings(&id),
            isolation: config.isolation(&id, false),
            id,
            path: path.to_owned(),
            state,
            manifest: None,
            sha256: None,
            provider: None,
            tools: Vec::new(),
            generation: None,
        }
    }
}
