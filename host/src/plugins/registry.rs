//! All plugins of one server: brings them up in the background, keeps the one snapshot that everybody reads, and
//! takes them down.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, future::join_all, stream};
use jackfield_plugin_abi::{ProviderObj, host_object};
use jackfield_plugin_api::{Tool, ToolProviderContext};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    PluginReport, PluginSettings, PluginsConfig,
    discover::{Discovery, FolderError, discover},
    foreign::{ForeignToolProvider, InPlugin, Loaded, PluginFault},
    host_facts,
    host_link::{FfiHost, Peers},
    load,
    manifest::{Manifest, ManifestError, PluginBytes},
    private::{PrivateCopy, PrivateFolder, PrivateFolderError},
    runtime::PluginRuntime,
    verify::verify,
};
use crate::{clock::SharedClock, config::Limits, ids::PluginId};

/// The plugins of one server.
///
/// Dropping it abandons them without waiting; [`shutdown`](Plugins::shutdown) lets them finish.
pub struct Plugins {
    shared: Arc<Shared>,
    /// Brings the plugins up; empty once taken down. Held for a few lines only.
    starter: Mutex<Option<JoinHandle<()>>>,
}

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
    pub provider: Option<Arc<ForeignToolProvider>>,
    /// Names of the tools it offered when it was loaded, sorted.
    pub tools: Vec<String>,
    /// Which load of this id it is, from 1.
    pub generation: Option<u64>,
    /// What the operator set for it.
    pub settings: PluginSettings,
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

/// Why plugins cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginsError {
    /// A folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no room for private copies.
    #[error(transparent)]
    Private(#[from] PrivateFolderError),
}

impl Plugins {
    /// Looks into the folders and starts to bring the plugins up. Returns before any of them has been read: each
    /// joins the snapshot when it is ready.
    ///
    /// # Errors
    ///
    /// When a folder cannot be used. What is wrong with single files is in the snapshot.
    pub async fn start(config: &PluginsConfig, limits: &Limits, clock: SharedClock) -> Result<Arc<Self>, PluginsError> {
        let (config, limits) = (Arc::new(config.clone()), Arc::new(limits.clone()));
        let scan = {
            let (config, limits, clock) = (Arc::clone(&config), Arc::clone(&limits), Arc::clone(&clock));
            tokio::task::spawn_blocking(move || scan(&config, &limits, &clock))
        };
        let (private, discovery) = scan.await.expect("scanning folders does not panic and is not aborted")?;
        let shared = Arc::new(Shared {
            private,
            snapshot: ArcSwap::from_pointee(first_snapshot(&config, &discovery)),
            changes: Mutex::new(()),
            settled: watch::Sender::new(false),
            config,
            limits,
            clock,
        });
        let starter = tokio::spawn(bring_up(Arc::clone(&shared), discovery.candidates));
        Ok(Arc::new(Self { shared, starter: Mutex::new(Some(starter)) }))
    }

    /// All plugins at this instant.
    pub fn snapshot(&self) -> Arc<PluginSnapshot> {
        self.shared.snapshot.load_full()
    }

    /// One report for each plugin file, in the order of the snapshot.
    pub fn reports(&self) -> Vec<PluginReport> {
        self.snapshot().entries.iter().map(|entry| PluginReport::new(entry)).collect()
    }

    /// Waits until every plugin found at the start is active or has a reason not to be. Returns whether that was so
    /// within the time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait changes nothing.
    pub async fn wait_settled(&self, timeout: Duration) -> bool {
        let mut settled = self.shared.settled.subscribe();
        let result = tokio::time::timeout(timeout, settled.wait_for(|settled| *settled)).await;
        matches!(result, Ok(Ok(_)))
    }

    /// Plugins that the configuration requires and that are not active, by id. The server is ready when it is empty.
    pub fn required_pending(&self) -> Vec<PluginId> {
        let snapshot = self.snapshot();
        let required = self.shared.config.by_id.iter().filter(|(_, settings)| settings.required);
        required.filter(|(id, _)| snapshot.active(id.as_str()).is_none()).map(|(id, _)| id.clone()).collect()
    }

    /// Tells every active plugin that something happened, without waiting for them.
    pub fn notify_all(&self, event: &Value) {
        for entry in &self.snapshot().entries {
            if let (PluginState::Active, Some(provider)) = (&entry.state, &entry.provider) {
                provider.notify(event);
            }
        }
    }

    /// Takes all plugins down, side by side, each within the deadline and the limit `plugin_shutdown`. Calling it
    /// again does nothing.
    pub async fn shutdown(&self, deadline: Duration) {
        let starter = self.starter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(starter) = starter {
            starter.abort();
            // Once it has ended, nothing becomes active behind our back; its result is that it was aborted.
            let _ = starter.await;
        }
        let deadline = deadline.min(self.shared.limits.plugin_shutdown);
        let active: Vec<_> =
            self.snapshot().entries.iter().filter(|entry| entry.state == PluginState::Active).cloned().collect();
        join_all(active.iter().map(|entry| self.retire(entry, deadline))).await;
        self.shared.settled.send_replace(true);
    }

    async fn retire(&self, entry: &PluginEntry, deadline: Duration) {
        self.shared.change(&entry.path, |entry| entry.state = PluginState::Draining);
        if let Some(provider) = &entry.provider {
            provider.stop(deadline).await;
        }
        self.shared.change(&entry.path, |entry| {
            entry.state = PluginState::Retired;
            entry.provider = None;
        });
        tracing::info!(plugin = %entry.id, "plugin retired");
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        if let Some(starter) = self.starter.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            starter.abort();
        }
    }
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugins").field("snapshot", &self.snapshot().id).finish_non_exhaustive()
    }
}

impl PluginSnapshot {
    /// The active plugin of this id.
    pub fn active(&self, id: &str) -> Option<&Arc<PluginEntry>> {
        self.entries.iter().find(|entry| entry.id.as_str() == id && entry.state == PluginState::Active)
    }
}

/// What the handle and the background share.
struct Shared {
    config: Arc<PluginsConfig>,
    limits: Arc<Limits>,
    clock: SharedClock,
    /// Absent when there is no plugin folder and so nothing to copy.
    private: Option<PrivateFolder>,
    snapshot: ArcSwap<PluginSnapshot>,
    /// One change at a time. Held for a few lines only.
    changes: Mutex<()>,
    settled: watch::Sender<bool>,
}

impl Shared {
    /// Publishes a new snapshot in which the entry of this file is changed.
    fn change(&self, path: &Path, change: impl FnOnce(&mut PluginEntry)) {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = PluginSnapshot::clone(&self.snapshot.load());
        let entry = snapshot.entries.iter_mut().find(|entry| entry.path == path);
        let entry = entry.expect("every file has had its entry since the scan");
        change(Arc::make_mut(entry));
        snapshot.id += 1;
        sort(&mut snapshot.entries);
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Publishes why a file is not running, and logs it.
    fn give_up(&self, path: &Path, state: PluginState) {
        tracing::warn!(path = %path.display(), state = state.name(), reason = state.reason(), "plugin not loaded");
        self.change(path, |entry| entry.state = state);
    }

    fn private(&self) -> &PrivateFolder {
        self.private.as_ref().expect("where files were found, there is a folder for their copies")
    }
}

impl Peers for Shared {
    fn active(&self, id: &str) -> Option<Arc<ForeignToolProvider>> {
        self.snapshot.load().active(id)?.provider.clone()
    }
}

type Scanned = (Option<PrivateFolder>, Discovery);

fn scan(config: &PluginsConfig, limits: &Limits, clock: &SharedClock) -> Result<Scanned, PluginsError> {
    if config.folders.is_empty() {
        return Ok((None, Discovery::default()));
    }
    let private = PrivateFolder::create(&config.private_base(), clock.new_id())?;
    let discovery = discover(&config.folders, private.owner(), limits)?;
    Ok((Some(private), discovery))
}

fn first_snapshot(config: &PluginsConfig, discovery: &Discovery) -> PluginSnapshot {
    let found = discovery.candidates.iter().map(|path| (path, PluginState::Discovered));
    let refused = discovery.refused.iter().map(|refused| {
        let reason = format!("{}: {}", refused.path.display(), refused.reason);
        tracing::warn!(reason, "plugin not loaded");
        (&refused.path, PluginState::Rejected(reason))
    });
    let mut entries: Vec<_> =
        found.chain(refused).map(|(path, state)| Arc::new(new_entry(config, path, state))).collect();
    sort(&mut entries);
    PluginSnapshot { id: 1, entries }
}

fn new_entry(config: &PluginsConfig, path: &Path, state: PluginState) -> PluginEntry {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let id = PluginId::new(&*name);
    PluginEntry {
        settings: config.settings(&id),
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

fn sort(entries: &mut [Arc<PluginEntry>]) {
    entries.sort_by(|a, b| (&a.id, &a.path).cmp(&(&b.id, &b.path)));
}

/// Files read at the same time; reading is work for the disk.
const READERS: usize = 4;
/// How often a file that is being copied is looked at again before it counts as broken.
const SETTLE_LOOKS_MAX: u32 = 60;

/// Reads every file, decides which may be loaded, and loads those side by side. Files that are still being copied
/// come last and hold up nobody.
async fn bring_up(shared: Arc<Shared>, candidates: Vec<PathBuf>) {
    let reads: Vec<_> = candidates.iter().map(|path| examine(Arc::clone(&shared), path.clone())).collect();
    let examined: Vec<Examined> = stream::iter(reads).buffered(READERS).collect().await;

    let (mut ids, mut loads, mut unsettled) = (BTreeMap::new(), JoinSet::new(), Vec::new());
    for (path, examined) in candidates.into_iter().zip(examined) {
        match examined {
            Examined::Passed(admitted) => start_load(&shared, &mut ids, &mut loads, admitted),
            Examined::Refused => {}
            Examined::Unsettled => unsettled.push(path),
        }
    }
    let settling = join_all(unsettled.into_iter().map(|path| wait_until_settled(Arc::clone(&shared), path)));
    for admitted in settling.await.into_iter().flatten() {
        start_load(&shared, &mut ids, &mut loads, admitted);
    }
    while loads.join_next().await.is_some() {}
    warn_about_unknown_ids(&shared);
    shared.settled.send_replace(true);
}

/// A file that may be loaded.
struct Admitted {
    path: PathBuf,
    id: PluginId,
    copy: PrivateCopy,
}

enum Examined {
    Passed(Admitted),
    /// The snapshot says why.
    Refused,
    /// It looks broken, but somebody may still be writing it.
    Unsettled,
}

/// Why a file is not loaded, before its name is put in front.
enum NotAdmitted {
    Unsettled,
    Because(PluginState),
}

async fn examine(shared: Arc<Shared>, path: PathBuf) -> Examined {
    let task = tokio::task::spawn_blocking(move || match examine_file(&shared, &path) {
        Ok(admitted) => Examined::Passed(admitted),
        Err(NotAdmitted::Unsettled) => Examined::Unsettled,
        Err(NotAdmitted::Because(state)) => {
            shared.give_up(&path, state);
            Examined::Refused
        }
    });
    task.await.expect("reading a plugin file does not panic and is not aborted")
}

/// Reads the file once, checks it, and copies what was checked. No code of it runs.
fn examine_file(shared: &Shared, path: &Path) -> Result<Admitted, NotAdmitted> {
    let rejected = |reason: &dyn std::fmt::Display| {
        NotAdmitted::Because(PluginState::Rejected(format!("{}: {reason}", path.display())))
    };
    let (plugin, (binary, manifest)) = read(shared, path).map_err(|error| match error {
        _ if is_half_copied(shared, path, &error) => NotAdmitted::Unsettled,
        error => rejected(&error),
    })?;
    verify(&binary, &manifest, host_facts()).map_err(|refusal| rejected(&refusal))?;
    let id = PluginId::new(manifest.id.as_str());
    let settings = shared.config.settings(&id);
    let disabled = settings.disabled;
    shared.change(path, |entry| {
        entry.id = id.clone();
        entry.sha256 = Some(plugin.sha256.clone());
        entry.manifest = Some(manifest);
        entry.settings = settings;
    });
    if disabled {
        let by = format!("{}: disabled by the configuration ([plugins.{id}])", path.display());
        return Err(NotAdmitted::Because(PluginState::Disabled(by)));
    }
    let copy = shared.private().copy(&plugin).map_err(|error| rejected(&error))?;
    Ok(Admitted { path: path.to_owned(), id, copy })
}

type Read = (PluginBytes, (super::Binary, Manifest));

fn read(shared: &Shared, path: &Path) -> Result<Read, ManifestError> {
    let plugin = PluginBytes::read(path, shared.private().owner(), &shared.limits)?;
    let parsed = plugin.parse()?;
    Ok((plugin, parsed))
}

/// A file that does not parse and was written a moment ago is probably still being written.
fn is_half_copied(shared: &Shared, path: &Path, error: &ManifestError) -> bool {
    use ManifestError::{Damaged, NoManifest, NotALibrary, Truncated};
    if !matches!(error, Truncated { .. } | NotALibrary(_) | Damaged(_) | NoManifest { .. }) {
        return false;
    }
    let modified = || -> io::Result<jiff::Timestamp> {
        let modified = std::fs::metadata(path)?.modified()?;
        jiff::Timestamp::try_from(modified).map_err(io::Error::other)
    };
    modified().is_ok_and(|modified| {
        let age = shared.clock.now().duration_since(modified);
        age.is_positive() && age.unsigned_abs() < shared.limits.plugin_settle
    })
}

async fn wait_until_settled(shared: Arc<Shared>, path: PathBuf) -> Option<Admitted> {
    for _ in 0..SETTLE_LOOKS_MAX {
        tokio::time::sleep(shared.limits.plugin_settle).await;
        match examine(Arc::clone(&shared), path.clone()).await {
            Examined::Passed(admitted) => return Some(admitted),
            Examined::Refused => return None,
            Examined::Unsettled => {}
        }
    }
    let reason = format!("{}: it is not whole and keeps changing; finish the copy and restart", path.display());
    shared.give_up(&path, PluginState::Rejected(reason));
    None
}

/// Two files of one id cannot both run: the first found does.
fn start_load(
    shared: &Arc<Shared>,
    ids: &mut BTreeMap<PluginId, PathBuf>,
    loads: &mut JoinSet<()>,
    admitted: Admitted,
) {
    if let Some(first) = ids.get(&admitted.id) {
        let reason = format!(
            "{}: its id {} is that of {}, which was found first; remove one of the two files",
            admitted.path.display(),
            admitted.id,
            first.display()
        );
        shared.give_up(&admitted.path, PluginState::Rejected(reason));
        return;
    }
    ids.insert(admitted.id.clone(), admitted.path.clone());
    shared.change(&admitted.path, |entry| entry.state = PluginState::Verified);
    loads.spawn(load_and_publish(Arc::clone(shared), admitted));
}

async fn load_and_publish(shared: Arc<Shared>, admitted: Admitted) {
    let began = Instant::now();
    match load_plugin(&shared, &admitted).await {
        Ok((provider, tools)) => {
            tracing::info!(plugin = %admitted.id, tools = tools.len(), took = ?began.elapsed(), "plugin active");
            shared.change(&admitted.path, |entry| {
                entry.state = PluginState::Active;
                entry.provider = Some(Arc::new(provider));
                entry.tools = tools;
                entry.generation = Some(1);
            });
        }
        Err(reason) => {
            let reason = format!("{}: {reason}", admitted.path.display());
            shared.give_up(&admitted.path, PluginState::Failed(reason));
        }
    }
}

/// Opens the library, makes its provider and asks it once for its tools: all on threads of the plugin's own, and
/// within one budget.
async fn load_plugin(shared: &Arc<Shared>, admitted: &Admitted) -> Result<(ForeignToolProvider, Vec<String>), String> {
    let deadline = Instant::now() + shared.limits.plugin_create;
    let runtime =
        PluginRuntime::start(&admitted.id).map_err(|error| format!("its threads cannot be started: {error}"))?;
    let plugin = Arc::new(Loaded {
        id: admitted.id.clone(),
        runtime: Arc::new(runtime),
        calls: Arc::default(),
        limits: Arc::clone(&shared.limits),
        notices: Arc::new(Semaphore::new(shared.limits.plugin_requests)),
    });
    let provider = match create_in_time(shared, admitted, &plugin, deadline).await {
        Ok(provider) => ForeignToolProvider::new(Arc::clone(&plugin), provider),
        Err(reason) => {
            plugin.runtime.stop();
            return Err(reason);
        }
    };
    let tools = try_tools(&provider, deadline).await.map_err(|reason| format!("it started, but {reason}"))?;
    Ok((provider, tools))
}

async fn create_in_time(
    shared: &Arc<Shared>,
    admitted: &Admitted,
    plugin: &Arc<Loaded>,
    deadline: Instant,
) -> Result<InPlugin<ProviderObj>, String> {
    let mut task = plugin.runtime.spawn_owned(create(Arc::clone(shared), admitted.copy.clone(), Arc::clone(plugin)));
    let Ok(created) = tokio::time::timeout_at(deadline, task.result()).await else {
        let budget = shared.limits.plugin_create;
        return Err(format!(
            "it did not start within {budget:?} (limit plugin_create); make its `init` quicker or raise the limit"
        ));
    };
    created.unwrap_or_else(|| Err("it was stopped while it started".to_owned()))
}

/// A plugin that cannot list its tools for an empty turn will not do so for a real one.
async fn try_tools(provider: &ForeignToolProvider, deadline: Instant) -> Result<Vec<String>, String> {
    let context = ToolProviderContext::default();
    match tokio::time::timeout_at(deadline, provider.list_tools(&context)).await {
        Ok(Ok(tools)) => Ok(names(&tools)),
        Ok(Err(fault)) => Err(format!("it cannot list its tools for an empty turn: {fault}; repair its `tools_for`")),
        Err(_) => {
            Err("it did not list its tools in the time left (limit plugin_create); make its `tools_for` quicker"
                .to_owned())
        }
    }
}

/// Runs on the plugin's threads.
async fn create(shared: Arc<Shared>, copy: PrivateCopy, plugin: Arc<Loaded>) -> Result<InPlugin<ProviderObj>, String> {
    let checked = load::open(&copy).map_err(|error| error.to_string())?;
    let config = match shared.config.settings(&plugin.id).config {
        Value::Null => "{}".to_owned(),
        config => config.to_string(),
    };
    let peers: Weak<dyn Peers> = Arc::downgrade(&(Arc::clone(&shared) as Arc<dyn Peers>));
    let host = FfiHost::new(
        plugin.id.clone(),
        Arc::clone(&plugin.runtime),
        Arc::clone(&plugin.calls),
        peers,
        Arc::clone(&plugin.limits),
    );
    // From here on nothing but the library's own code may keep the server's state alive.
    drop(shared);
    let created = checked.module.create()(host_object(host), config.as_str().into());
    let provider = created.await.map_err(PluginFault::from).map_err(|fault| format!("it did not start: {fault}"))?;
    let provider = provider.into_result().map_err(|error| {
        format!("it refused to start: {}; check its configuration, [plugins.{}.config]", error.message, plugin.id)
    })?;
    Ok(InPlugin::new(provider, Arc::clone(&plugin.runtime)))
}

fn names(tools: &[Arc<dyn Tool>]) -> Vec<String> {
    let mut names: Vec<String> = tools.iter().map(|tool| tool.schema().name).collect();
    names.sort();
    names
}

fn warn_about_unknown_ids(shared: &Shared) {
    let snapshot = shared.snapshot.load();
    for id in shared.config.by_id.keys() {
        if !snapshot.entries.iter().any(|entry| entry.id == *id) {
            tracing::warn!(plugin = %id, "the configuration has [plugins.{id}], but no file in the plugin folders has that id");
        }
    }
}
