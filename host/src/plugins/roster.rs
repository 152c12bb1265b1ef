//! What is to be done about the plugins, and how all of it looks from outside. Pure: it is told what happened.
//!
//! The files decide. For each id the first usable file counts, in the order of the folders and then of the names. What
//! runs is kept until something better has been tried out: a file that has become unusable, or that fails to load,
//! takes nothing away. Only a file that is gone does.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    PluginsConfig,
    admit::Known,
    files::{Condition, Files},
    manifest::Manifest,
    private::PrivateCopy,
    provider::PluginProvider,
    snapshot::{PluginEntry, PluginState},
};
use crate::ids::PluginId;

/// Files and plugins of one server.
pub(super) struct Roster {
    pub(super) files: Files,
    pub(super) plugins: BTreeMap<PluginId, Plugin>,
    /// Loads that were replaced or removed and that turns may still use.
    pub(super) draining: Vec<Arc<Load>>,
    /// Plugins that somebody wants off while the server runs, and who. The configuration's are not among them.
    pub(super) disabled: BTreeMap<PluginId, String>,
}

/// What is known of one id.
#[derive(Default)]
pub(super) struct Plugin {
    pub(super) running: Option<Arc<Load>>,
    /// The load under way.
    pub(super) loading: Option<Loading>,
    /// The content that could not be loaded; it is not tried again.
    pub(super) failed: Option<Failure>,
    /// Somebody asked for a fresh load, whatever the content is.
    pub(super) forced: bool,
    pub(super) last_generation: u64,
}

/// One load of a plugin that works, or did.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) id: PluginId,
    pub(super) generation: u64,
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    pub(super) manifest: Manifest,
    pub(super) provider: Arc<PluginProvider>,
    pub(super) tools: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// The file that is mapped; removed when the load is forgotten.
    pub(super) _copy: PrivateCopy,
}

pub(super) struct Loading {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
}

pub(super) struct Failure {
    pub(super) sha256: String,
    pub(super) reason: String,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Load the file that counts for this id.
    Load { id: PluginId, path: PathBuf },
    /// Read the file once more, because a load needs a copy of its own.
    Read { path: PathBuf },
    /// The same content lies elsewhere now.
    Moved { id: PluginId, path: PathBuf },
    /// Take it out.
    Retire { id: PluginId },
}

impl Roster {
    pub(super) fn new(files: Files, disabled: BTreeMap<PluginId, String>) -> Self {
        Self { files, plugins: BTreeMap::new(), draining: Vec::new(), disabled }
    }

    /// Who wants this plugin off.
    pub(super) fn disabled_by(&self, config: &PluginsConfig, id: &PluginId) -> Option<String> {
        if config.settings(id).disabled {
            return Some(format!("the configuration ([plugins.{id}])"));
        }
        self.disabled.get(id).cloned()
    }

    /// The file that counts for each id.
    pub(super) fn wanted(&self) -> BTreeMap<&PluginId, (&Path, &Known)> {
        let mut wanted: BTreeMap<&PluginId, (usize, &Path, &Known)> = BTreeMap::new();
        for (path, file) in &self.files.by_path {
            let Condition::Usable { known, .. } = &file.condition else { continue };
            let this = (file.rank, path.as_path(), known);
            let first = wanted.entry(&known.id).or_insert(this);
            if this.0 < first.0 {
                *first = this;
            }
        }
        wanted.into_iter().map(|(id, (_, path, known))| (id, (path, known))).collect()
    }

    /// What to do now, by id.
    pub(super) fn steps(&self, config: &PluginsConfig) -> Vec<Step> {
        let wanted = self.wanted();
        let ids: BTreeSet<&PluginId> = wanted.keys().copied().chain(self.plugins.keys()).collect();
        ids.into_iter().filter_map(|id| self.step(config, id, wanted.get(id).copied())).collect()
    }

    fn step(&self, config: &PluginsConfig, id: &PluginId, wanted: Option<(&Path, &Known)>) -> Option<Step> {
        let none = Plugin::default();
        let plugin = self.plugins.get(id).unwrap_or(&none);
        if plugin.loading.is_some() {
            return None;
        }
        let id = id.clone();
        let Some((path, known)) = wanted.filter(|_| self.disabled_by(config, &id).is_none()) else {
            let running = plugin.running.as_ref()?;
            let is_kept = wanted.is_none() && self.is_undecided(&running.path);
            return (!is_kept).then_some(Step::Retire { id });
        };
        if !plugin.forced {
            if plugin.failed.as_ref().is_some_and(|failed| failed.sha256 == known.sha256) {
                return None;
            }
            if let Some(running) = plugin.running.as_ref().filter(|running| running.sha256 == known.sha256) {
                return (running.path != path).then(|| Step::Moved { id, path: path.to_owned() });
            }
        }
        let has_copy = matches!(&self.files.by_path[path].condition, Condition::Usable { copy: Some(_), .. });
        let path = path.to_owned();
        Some(if has_copy { Step::Load { id, path } } else { Step::Read { path } })
    }

    /// Whether a file is there and says nothing clear: it is being written or read, or it cannot be used.
    pub(super) fn is_undecided(&self, path: &Path) -> bool {
        let file = self.files.by_path.get(path);
        file.is_some_and(|file| !matches!(file.condition, Condition::Usable { .. }))
    }

    /// Everything as others see it, in no order.
    pub(super) fn entries(&self, config: &PluginsConfig) -> Vec<PluginEntry> {
        let running = self.plugins.values().filter_map(|plugin| Some((plugin, plugin.running.as_ref()?)));
        let running = running.map(|(plugin, load)| {
            let state = load.provider.quarantine().map_or(PluginState::Active, PluginState::Quarantined);
            PluginEntry { trouble: self.trouble(plugin, load), ..loaded(config, load, state) }
        });
        let draining = self.draining.iter().map(|load| loaded(config, load, PluginState::Draining));
        let wanted = self.wanted();
        let files = self.files.by_path.iter().filter_map(|(path, file)| {
            let state = self.state_of_file(config, &wanted, path, &file.condition)?;
            let known = match &file.condition {
                Condition::Usable { known, .. } => Some(known),
                Condition::Refused { known, .. } => known.as_ref(),
                _ => None,
            };
            Some(of_file(config, path, known, state))
        });
        running.chain(draining).chain(files).collect()
    }

    /// The state of a file from which nothing runs; `None` when something does.
    fn state_of_file(
        &self,
        config: &PluginsConfig,
        wanted: &BTreeMap<&PluginId, (&Path, &Known)>,
        path: &Path,
        condition: &Condition,
    ) -> Option<PluginState> {
        let shown = path.display();
        let known = match condition {
            _ if self.runs_from(path, condition) => return None,
            Condition::Settling { .. } | Condition::Ready { .. } | Condition::Reading { .. } => {
                return Some(PluginState::Discovered);
            }
            Condition::Refused { reason, .. } => return Some(PluginState::Rejected(format!("{shown}: {reason}"))),
            Condition::Usable { known, .. } => known,
        };
        let first = wanted.get(&known.id).map_or(path, |(first, _)| first);
        if first != path {
            let (id, first) = (&known.id, first.display());
            return Some(PluginState::Rejected(format!(
                "{shown}: its id {id} is that of {first}, which was found first; remove one of the two files"
            )));
        }
        if let Some(by) = self.disabled_by(config, &known.id) {
            return Some(PluginState::Disabled(format!("{shown}: disabled by {by}")));
        }
        let failed = self.plugins.get(&known.id).and_then(|plugin| plugin.failed.as_ref());
        match failed.filter(|failed| failed.sha256 == known.sha256) {
            Some(failed) => Some(PluginState::Failed(format!("{shown}: {}", failed.reason))),
            None => Some(PluginState::Verified),
        }
    }

    /// Whether a running plugin stands for this file. One whose id the file does not have any more does not.
    fn runs_from(&self, path: &Path, condition: &Condition) -> bool {
        let is_its = |load: &Load| match condition {
            Condition::Usable { known, .. } => known.id == load.id,
            _ => true,
        };
        let mut running = self.plugins.values().filter_map(|plugin| plugin.running.as_deref());
        running.any(|load| load.path == path && is_its(load))
    }

    /// Why a running plugin is not what its file says.
    fn trouble(&self, plugin: &Plugin, load: &Load) -> Option<String> {
        let shown = load.path.display();
        let reason = match self.files.by_path.get(&load.path).map(|file| &file.condition) {
            Some(Condition::Refused { reason, .. }) => reason,
            Some(Condition::Usable { known, .. }) => {
                &plugin.failed.as_ref().filter(|failed| failed.sha256 == known.sha256)?.reason
            }
            _ => return None,
        };
        Some(format!("{shown}: {reason}; generation {} keeps running", load.generation))
    }
}

fn loaded(config: &PluginsConfig, load: &Load, state: PluginState) -> PluginEntry {
    PluginEntry {
        id: load.id.clone(),
        path: load.path.clone(),
        state,
        manifest: Some(load.manifest.clone()),
        sha256: Some(load.sha256.clone()),
        provider: Some(Arc::clone(&load.provider)),
        tools: load.tools.clone(),
        generation: Some(load.generation),
        settings: config.settings(&load.id),
        isolation: config.isolation(&load.id, load.manifest.isolated_only),
        trouble: None,
        warnings: load.warnings.clone(),
    }
}

fn of_file(config: &PluginsConfig, path: &Path, known: Option<&Known>, state: PluginState) -> PluginEntry {
    let name = || PluginId::new(&*path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    let id = known.map_or_else(name, |known| known.id.clone());
    PluginEntry {
        isolation: config.isolation(&id, known.is_some_and(|known| known.manifest.isolated_only)),
        settings: config.settings(&id),
        id,
        path: path.to_owned(),
        state,
        manifest: known.map(|known| known.manifest.clone()),
        sha256: known.map(|known| known.sha256.clone()),
        provider: None,
        tools: Vec::new(),
        generation: None,
        trouble: None,
        warnings: Vec::new(),
    }
}
