//! What is known about all plugins at one instant: the one truth that turns, reports and the command line read.

use std::{path::PathBuf, sync::Arc};

use super::{PluginSettings, manifest::Manifest, provider::PluginProvider};
use crate::{config::Isolation, ids::PluginId};

/// All plugins at one instant. Immutable: whoever holds it sees the same plugins until it is let go.
#[derive(Clone, Debug, Default)]
pub struct PluginSnapshot {
    /// Grows with every change.
    pub id: u64,
    /// Sorted by id, then by path; those that are being seen out come after the one that replaced them.
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
    /// Why what runs is not what the file holds: the newest content cannot be used.
    pub trouble: Option<String>,
    /// What is odd about it and does not keep it from running.
    pub warnings: Vec<String>,
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
    /// It did too much wrong and is not used for now. Its tools stay on offer and answer that they are unavailable.
    Quarantined(String),
}

impl PluginState {
    /// Whether turns are offered the plugin's tools. In quarantine they are, too, so that tool lists do not flap.
    pub fn offers_tools(&self) -> bool {
        matches!(self, PluginState::Active | PluginState::Quarantined(_))
    }
}

impl PluginSnapshot {
    /// The active plugin of this id.
    pub fn active(&self, id: &str) -> Option<&Arc<PluginEntry>> {
        self.entries.iter().find(|entry| entry.id.as_str() == id && entry.state == PluginState::Active)
    }

    /// Puts the entries into their order.
    pub(super) fn sort(&mut self) {
        let is_old = |entry: &PluginEntry| entry.state == PluginState::Draining;
        self.entries
            .sort_by(|a, b| (&a.id, is_old(a), &a.path, a.generation).cmp(&(&b.id, is_old(b), &b.path, b.generation)));
    }

    /// Whether somebody who reads both would see a difference beside the number.
    pub(super) fn shows_the_same_as(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(one, other)| one.shows_the_same_as(other))
    }
}

impl PluginEntry {
    fn shows_the_same_as(&self, other: &Self) -> bool {
        let provider = |entry: &Self| entry.provider.as_ref().map(Arc::as_ptr);
        self.id == other.id
            && self.path == other.path
            && self.state == other.state
            && self.sha256 == other.sha256
            && self.generation == other.generation
            && self.trouble == other.trouble
            && provider(self) == provider(other)
    }
}
