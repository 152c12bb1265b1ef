//! All plugins of one server: brings them up in the background, keeps the one snapshot that everybody reads, and
//! takes them down.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Map, Value};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    PluginReport, PluginsConfig,
    admit::{Admission, Admitted, NotAdmitted},
    discover::{Discovery, FolderError, discover},
    host_link::Peers,
    private::{PrivateFolder, PrivateFolderError},
    provider::PluginProvider,
    snapshot::{PluginEntry, PluginSnapshot, PluginState},
    start::{Launch, Started, start},
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
        snapshot.sort();
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
    fn active(&self, id: &str) -> Option<Arc<PluginProvider>> {
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
    let entries = found.chain(refused).map(|(path, state)| Arc::new(PluginEntry::new(config, path, state))).collect();
    let mut snapshot = PluginSnapshot { id: 1, entries };
    snapshot.sort();
    snapshot
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

enum Examined {
    Passed(Admitted),
    /// The snapshot says why.
    Refused,
    /// It looks broken, but somebody may still be writing it.
    Unsettled,
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

fn examine_file(shared: &Shared, path: &Path) -> Result<Admitted, NotAdmitted> {
    let admission =
        Admission { config: &shared.config, limits: &shared.limits, clock: &shared.clock, private: shared.private() };
    admission.examine(path, |known| {
        let settings = shared.config.settings(&known.id);
        shared.change(path, |entry| {
            entry.id = known.id;
            entry.sha256 = Some(known.sha256);
            entry.isolation = shared.config.isolation(&entry.id, known.manifest.isolated_only);
            entry.manifest = Some(known.manifest);
            entry.settings = settings;
        });
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
    let path = admitted.path.clone();
    match start(launch(&shared, &admitted)).await {
        Ok(Started { provider, tools }) => {
            tracing::info!(plugin = %admitted.id, tools = tools.len(), took = ?began.elapsed(), "plugin active");
            shared.change(&path, |entry| {
                entry.state = PluginState::Active;
                entry.provider = Some(Arc::new(provider));
                entry.tools = tools;
                entry.generation = Some(1);
            });
        }
        Err(reason) => {
            let reason = format!("{}: {reason}", path.display());
            shared.give_up(&path, PluginState::Failed(reason));
        }
    }
}

fn launch(shared: &Arc<Shared>, admitted: &Admitted) -> Launch {
    let peers: Weak<dyn Peers> = Arc::downgrade(&(Arc::clone(shared) as Arc<dyn Peers>));
    let settings = shared.config.settings(&admitted.id);
    let config = match settings.config {
        Value::Null => Value::Object(Map::new()),
        config => config,
    };
    Launch {
        id: admitted.id.clone(),
        manifest: admitted.manifest.clone(),
        copy: admitted.copy.clone(),
        config,
        limits: Arc::clone(&shared.limits),
        isolation: shared.config.isolation(&admitted.id, admitted.manifest.isolated_only),
        permissions: settings.permissions,
        worker_program: shared.config.worker_program.clone(),
        peers,
    }
}

fn warn_about_unknown_ids(shared: &Shared) {
    let snapshot = shared.snapshot.load();
    for id in shared.config.by_id.keys() {
        if !snapshot.entries.iter().any(|entry| entry.id == *id) {
            tracing::warn!(plugin = %id, "the configuration has [plugins.{id}], but no file in the plugin folders has that id");
        }
    }
}
