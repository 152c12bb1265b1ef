//! The one task that owns the plugins of a server: it looks into the folders, has files read and plugins loaded, puts
//! the working ones in place of their predecessors, and sees those out.
//!
//! ```text
//!   notice, clock, command ──▶ scan ──▶ files ──▶ read ──▶ steps ──▶ load ──▶ running ──▶ snapshot
//!                                                            │                   │ replaced, removed, disabled
//!                                                            └─ retire ──────────┴──▶ draining ──▶ stopped
//! ```
//!
//! Everything that takes time is a task beside it whose result comes back as an event. What to do is decided in
//! `files` and `roster`; here it is done.

use std::{collections::BTreeSet, panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use serde_json::{Map, Value};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    PluginReport,
    admit::{Admission, Admitted, NotAdmitted},
    discover::{FolderError, discover},
    files::{Condition, Files, Sighting},
    health::Health,
    host_link::Peers,
    registry::{PluginActionError, Shared},
    roster::{Failure, Load, Loading, Roster, Step},
    snapshot::{PluginEntry, PluginSnapshot, PluginState},
    start::{Launch, Started, start},
    watch::FolderWatch,
};
use crate::ids::PluginId;

/// What the supervisor is asked for.
pub(super) enum Command {
    Rescan { reply: oneshot::Sender<()> },
    Reload { id: PluginId, reply: Reply },
    Disable { id: PluginId, by: String, reply: Reply },
    Enable { id: PluginId, reply: Reply },
    Stop { deadline: Duration, reply: oneshot::Sender<()> },
}

/// How a request for one plugin is answered.
type Reply = oneshot::Sender<Result<PluginReport, PluginActionError>>;

/// See the module.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    roster: Roster,
    commands: mpsc::Receiver<Command>,
    /// Told when the system says that something in the folders changed.
    changed: Arc<Notify>,
    /// With the scan while that runs.
    watch: Option<FolderWatch>,
    scans: JoinSet<Scanned>,
    /// A scan is due, whatever the clock says.
    scan_wanted: bool,
    last_scan: Instant,
    /// What is wrong with the folders as a whole; said once.
    folders_broken: Option<FolderError>,
    reads: JoinSet<(PathBuf, Result<Admitted, NotAdmitted>)>,
    /// Files that wait to be read.
    to_read: Vec<PathBuf>,
    loads: JoinSet<Loaded>,
    /// Loads to be seen out after the next snapshot.
    to_drain: Vec<Arc<Load>>,
    /// Loads that turns may still use, by id and generation.
    drains: JoinSet<(PluginId, u64)>,
    /// Ends the wait for those turns.
    hurry: CancellationToken,
    /// Requests that wait for a plugin to come to rest.
    waiting: Vec<(PluginId, Reply)>,
    /// Requests that wait for everything to come to rest.
    waiting_for_all: Vec<oneshot::Sender<()>>,
    was_settled: bool,
}

/// The result of one look into the folders.
struct Scanned {
    watch: FolderWatch,
    found: Result<Sighting, FolderError>,
}

/// The result of one load.
struct Loaded {
    id: PluginId,
    generation: u64,
    began: Instant,
    result: Result<Box<Load>, String>,
}

/// Files read at the same time; reading is work for the disk.
const READERS: usize = 4;
/// Shortest time between two looks into the folders, however many notices come.
const SCAN_PAUSE: Duration = Duration::from_millis(50);

impl Supervisor {
    /// Takes in what was found at the start.
    pub(super) fn new(shared: Arc<Shared>, commands: mpsc::Receiver<Command>, first: Sighting) -> Self {
        let limits = &shared.limits;
        let mut files = Files::new(limits.plugin_debounce, limits.plugin_settle);
        files.see(first, true, Instant::now());
        let changed = Arc::new(Notify::new());
        let watch = FolderWatch::start(shared.config.watch, Arc::clone(&changed));
        let disabled = shared.config.disabled.clone();
        let mut supervisor = Self {
            roster: Roster::new(files, disabled),
            commands,
            changed,
            watch: Some(watch),
            scans: JoinSet::new(),
            // The watch begins with a look: what came between the first one and now must not be missed.
            scan_wanted: shared.config.is_watched(),
            last_scan: Instant::now(),
            folders_broken: None,
            reads: JoinSet::new(),
            to_read: Vec::new(),
            loads: JoinSet::new(),
            to_drain: Vec::new(),
            drains: JoinSet::new(),
            hurry: CancellationToken::new(),
            waiting: Vec::new(),
            waiting_for_all: Vec::new(),
            was_settled: false,
            shared,
        };
        supervisor.proceed();
        supervisor
    }

    /// Lives until it is told to stop, or until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let look_at = self.next_look();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Stop { deadline, reply }) => {
                        self.stop(deadline).await;
                        // Nobody may be waiting any more.
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = self.changed.notified() => self.scan_wanted = true,
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => self.scan(),
                Some(scanned) = self.scans.join_next() => self.scanned(scanned.expect("a scan does not panic")),
                Some(read) = self.reads.join_next() => {
                    let (path, result) = read.expect("reading a plugin file does not panic");
                    self.read(path, result);
                }
                Some(loaded) = self.loads.join_next() => self.loaded(loaded.expect("its panics are caught")),
                Some(drained) = self.drains.join_next() => self.drained(drained.expect("stopping does not panic")),
                () = self.shared.health_changed.notified() => {}
            }
            self.proceed();
        }
    }

    /// Does what is to be done now, and tells everybody.
    fn proceed(&mut self) {
        self.to_read.extend(self.roster.files.take_ready());
        self.start_reads();
        // While files are being read it is not known which of two with one id counts.
        if self.roster.files.are_read() {
            for step in self.roster.steps(&self.shared.config) {
                self.take(step);
            }
            self.to_read.extend(self.roster.files.take_ready());
            self.start_reads();
        }
        self.publish();
        for load in std::mem::take(&mut self.to_drain) {
            self.start_drain(load);
        }
        self.answer();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Rescan { reply } => {
                self.scan_wanted = true;
                self.waiting_for_all.push(reply);
            }
            Command::Reload { id, reply } => match self.roster.disabled_by(&self.shared.config, &id) {
                Some(by) => refuse(reply, PluginActionError::Disabled { id, by }),
                None => {
                    self.force(&id);
                    self.waiting.push((id, reply));
                }
            },
            Command::Disable { id, by, reply } => {
                if !self.is_known(&id) {
                    return refuse(reply, self.unknown(id));
                }
                tracing::info!(plugin = %id, by, "plugin disabled");
                self.roster.disabled.insert(id.clone(), by);
                self.waiting.push((id, reply));
            }
            Command::Enable { id, reply } => {
                self.roster.disabled.remove(&id);
                if let Some(by) = self.roster.disabled_by(&self.shared.config, &id) {
                    return refuse(reply, PluginActionError::Disabled { id, by });
                }
                if let Some(plugin) = self.roster.plugins.get_mut(&id) {
                    // What failed before deserves another try.
                    plugin.failed = None;
                }
                self.scan_wanted = true;
                self.waiting.push((id, reply));
            }
            Command::Stop { .. } => unreachable!("the loop ends with it"),
        }
    }

    fn force(&mut self, id: &PluginId) {
        let plugin = self.roster.plugins.entry(id.clone()).or_default();
        plugin.forced = true;
        plugin.failed = None;
        self.scan_wanted = true;
    }

    fn is_known(&self, id: &PluginId) -> bool {
        let runs = self.roster.plugins.get(id).is_some_and(|plugin| plugin.running.is_some());
        runs || self.roster.wanted().contains_key(id)
    }

    fn unknown(&self, id: PluginId) -> PluginActionError {
        let running = self.roster.plugins.iter().filter(|(_, plugin)| plugin.running.is_some()).map(|(id, _)| id);
        let known: BTreeSet<&PluginId> = self.roster.wanted().into_keys().chain(running).collect();
        PluginActionError::Unknown { id, known: known.into_iter().cloned().collect() }
    }

    /// When to look into the folders next; `None` while a look is under way, or when there is no need for one.
    fn next_look(&self) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        if self.shared.config.folders.is_empty() {
            return None;
        }
        let wanted = self.scan_wanted.then_some(self.last_scan + SCAN_PAUSE);
        let interval = watch.interval(self.shared.config.watch, &self.shared.limits);
        let regular = interval.map(|interval| self.last_scan + interval);
        [wanted, regular, self.roster.files.next_look()].into_iter().flatten().min()
    }

    fn scan(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        self.scan_wanted = false;
        let shared = Arc::clone(&self.shared);
        self.scans.spawn_blocking(move || {
            let found = discover(&shared.config.folders, shared.owner(), &shared.limits);
            let found = found.map(|discovery| {
                // Watched before the files are looked at, so that a change after the look is noticed.
                watch.follow(&discovery.folders);
                Sighting::of(discovery)
            });
            Scanned { watch, found }
        });
    }

    fn scanned(&mut self, scanned: Scanned) {
        self.watch = Some(scanned.watch);
        self.last_scan = Instant::now();
        match scanned.found {
            Ok(sighting) => {
                if self.folders_broken.take().is_some() {
                    tracing::info!("the plugin folders can be used again");
                }
                self.roster.files.see(sighting, false, self.last_scan);
            }
            Err(error) if self.folders_broken.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!(%error, "the plugin folders cannot be looked at; what runs keeps running");
                self.folders_broken = Some(error);
            }
        }
    }

    fn start_reads(&mut self) {
        while self.reads.len() < READERS && !self.to_read.is_empty() {
            let path = self.to_read.remove(0);
            let (shared, not_loaded) = (Arc::clone(&self.shared), self.not_loaded());
            self.reads.spawn_blocking(move || {
                let admission = Admission {
                    limits: &shared.limits,
                    clock: &shared.clock,
                    private: shared.private(),
                    trust: &shared.config.trust,
                    not_loaded: &not_loaded,
                };
                let result = admission.examine(&path);
                (path, result)
            });
        }
    }

    /// Contents that run or have failed, unless somebody wants them loaded afresh.
    fn not_loaded(&self) -> BTreeSet<String> {
        let plugins = self.roster.plugins.values().filter(|plugin| !plugin.forced);
        let hashes = plugins.flat_map(|plugin| {
            let running = plugin.running.as_ref().map(|load| load.sha256.clone());
            running.into_iter().chain(plugin.failed.as_ref().map(|failed| failed.sha256.clone()))
        });
        hashes.collect()
    }

    fn read(&mut self, path: PathBuf, result: Result<Admitted, NotAdmitted>) {
        match result {
            Ok(Admitted { known, copy }) => self.roster.files.was_read(&path, Condition::Usable { known, copy }),
            Err(NotAdmitted::Unsettled) => self.roster.files.not_whole(&path, Instant::now()),
            Err(NotAdmitted::Refused { reason, known }) => {
                self.roster.files.was_read(&path, Condition::Refused { reason, known: known.map(|known| *known) });
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read { path } => self.roster.files.read_again(&path),
            Step::Load { id, path } => self.load(id, path),
            Step::Moved { id, path } => {
                let plugin = self.roster.plugins.entry(id).or_default();
                plugin.running = plugin.running.take().map(|load| Arc::new(Load { path, ..Load::clone(&load) }));
            }
            Step::Retire { id } => {
                let load = self.roster.plugins.get_mut(&id).and_then(|plugin| plugin.running.take());
                if let Some(load) = load {
                    tracing::info!(plugin = %id, generation = load.generation, "plugin taken out");
                    self.drain(load);
                }
            }
        }
    }

    fn load(&mut self, id: PluginId, path: PathBuf) {
        let Some((known, copy)) = self.roster.files.take_copy(&path) else { return };
        let plugin = self.roster.plugins.entry(id.clone()).or_default();
        plugin.last_generation += 1;
        plugin.forced = false;
        plugin.loading = Some(Loading { path: path.clone(), sha256: known.sha256.clone() });
        let generation = plugin.last_generation;
        let launch = Launch {
            config: own_config(self.shared.config.settings(&id).config),
            limits: Arc::clone(&self.shared.limits),
            peers: Arc::downgrade(&(Arc::clone(&self.shared) as Arc<dyn Peers>)),
            health: Arc::new(Health::new(id.clone(), &self.shared.limits, Arc::clone(&self.shared.health_changed))),
            libraries: Arc::clone(&self.shared.libraries),
            manifest: known.manifest,
            copy: copy.clone(),
            id: id.clone(),
        };
        let (sha256, manifest, began) = (known.sha256, launch.manifest.clone(), Instant::now());
        self.loads.spawn(async move {
            let started = AssertUnwindSafe(start(launch)).catch_unwind().await;
            let started = started.unwrap_or_else(|_| Err("the host failed while it loaded it".to_owned()));
            let result = started.map(|Started { provider, tools, warnings }| {
                let (id, provider, _copy) = (id.clone(), Arc::new(provider), copy);
                Box::new(Load { id, generation, path, sha256, manifest, provider, tools, warnings, _copy })
            });
            Loaded { id, generation, began, result }
        });
    }

    fn loaded(&mut self, loaded: Loaded) {
        let Loaded { id, generation, began, result } = loaded;
        let took = began.elapsed();
        let plugin = self.roster.plugins.entry(id.clone()).or_default();
        let Some(loading) = plugin.loading.take() else { return };
        match result {
            Ok(load) => {
                let tools = load.tools.len();
                tracing::info!(plugin = %id, generation, tools, ?took, "plugin active");
                for warning in &load.warnings {
                    tracing::warn!(plugin = %id, "{warning}");
                }
                plugin.failed = None;
                if let Some(before) = plugin.running.replace(Arc::from(load)) {
                    self.drain(before);
                }
            }
            Err(reason) => {
                let kept = plugin.running.as_ref().map(|load| load.generation);
                let path = loading.path.display();
                tracing::warn!(plugin = %id, %path, reason, generation, ?kept, "plugin not loaded");
                plugin.failed = Some(Failure { sha256: loading.sha256, reason });
            }
        }
    }

    /// Sees the load out, once everybody can see that it is replaced.
    fn drain(&mut self, load: Arc<Load>) {
        self.roster.draining.push(Arc::clone(&load));
        self.to_drain.push(load);
    }

    /// Waits until no turn uses the load any more, then stops it.
    fn start_drain(&mut self, load: Arc<Load>) {
        let (limits, hurry) = (Arc::clone(&self.shared.limits), self.hurry.clone());
        self.drains.spawn(async move {
            let Load { id, generation, provider, .. } = &*load;
            tokio::select! {
                () = provider.idle() => {}
                () = hurry.cancelled() => {}
                () = sleep(limits.plugin_drain) => {
                    let waited = limits.plugin_drain;
                    tracing::warn!(plugin = %id, generation, ?waited, "a turn still uses a replaced plugin; it is stopped all the same");
                }
            }
            provider.stop(limits.plugin_shutdown).await;
            (id.clone(), *generation)
        });
    }

    fn drained(&mut self, (id, generation): (PluginId, u64)) {
        self.roster.draining.retain(|load| (&load.id, load.generation) != (&id, generation));
        tracing::info!(plugin = %id, generation, "plugin retired");
    }

    /// Puts the state of things where everybody reads it, when it has changed.
    fn publish(&mut self) {
        let before = self.shared.snapshot.load_full();
        let mut snapshot = PluginSnapshot { id: before.id + 1, entries: Vec::new() };
        snapshot.entries = self.roster.entries(&self.shared.config).into_iter().map(Arc::new).collect();
        snapshot.sort();
        if before.id == 0 || !snapshot.shows_the_same_as(&before) {
            tell_differences(&before, &snapshot);
            self.shared.snapshot.store(Arc::new(snapshot));
        }
        let is_settled = self.is_settled();
        if is_settled && !self.was_settled {
            self.warn_about_unknown_ids();
        }
        self.was_settled |= is_settled;
        self.shared.settled.send_if_modified(|settled| std::mem::replace(settled, is_settled) != is_settled);
    }

    fn is_settled(&self) -> bool {
        let is_loading = self.roster.plugins.values().any(|plugin| plugin.loading.is_some() || plugin.forced);
        self.roster.files.are_settled() && !is_loading
    }

    /// Answers the requests whose plugin has come to rest.
    fn answer(&mut self) {
        if self.scan_wanted || self.watch.is_none() {
            return;
        }
        if self.is_settled() {
            for reply in self.waiting_for_all.drain(..) {
                let _ = reply.send(());
            }
        }
        let (ready, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(id, _)| self.is_at_rest(id));
        self.waiting = waiting;
        for (id, reply) in ready {
            let _ = reply.send(self.outcome(id));
        }
    }

    fn is_at_rest(&self, id: &PluginId) -> bool {
        let plugin = self.roster.plugins.get(id);
        let is_wanted = || self.roster.wanted().contains_key(id);
        let is_loading = plugin.is_some_and(|plugin| plugin.loading.is_some() || plugin.forced && is_wanted());
        let runs_from = plugin.and_then(|plugin| plugin.running.as_ref()).map(|load| &load.path);
        let is_changing = match runs_from {
            Some(path) => self.roster.files.is_changing(path),
            None => !self.roster.files.are_settled(),
        };
        !is_loading && !is_changing
    }

    fn outcome(&mut self, id: PluginId) -> Result<PluginReport, PluginActionError> {
        if let Some(plugin) = self.roster.plugins.get_mut(&id) {
            // What could not be loaded now, because its file is gone or cannot be used, is not loaded later.
            plugin.forced = false;
            if plugin.last_generation == 0 {
                self.roster.plugins.remove(&id);
            }
        }
        let snapshot = self.shared.snapshot.load();
        let mut entries =
            snapshot.entries.iter().filter(|entry| entry.id == id && entry.state != PluginState::Draining);
        let Some(entry) = entries.next() else { return Err(self.unknown(id)) };
        let reason = entry.trouble.as_deref().or(match &entry.state {
            PluginState::Rejected(reason) | PluginState::Failed(reason) => Some(reason),
            _ => None,
        });
        match reason {
            None => Ok(PluginReport::new(entry)),
            Some(reason) => Err(PluginActionError::Failed { id, reason: reason.to_owned() }),
        }
    }

    fn warn_about_unknown_ids(&self) {
        let snapshot = self.shared.snapshot.load();
        for id in self.shared.config.by_id.keys() {
            if !snapshot.entries.iter().any(|entry| entry.id == *id) {
                tracing::warn!(plugin = %id, "the configuration has [plugins.{id}], but no file in the plugin folders has that id");
            }
        }
    }

    /// Takes everything down.
    async fn stop(&mut self, deadline: Duration) {
        // Once these have ended, nothing becomes active behind our back.
        self.loads.shutdown().await;
        let deadline = deadline.min(self.shared.limits.plugin_shutdown);
        let running: Vec<Arc<Load>> =
            self.roster.plugins.values_mut().filter_map(|plugin| plugin.running.take()).collect();
        self.publish_all(PluginState::Draining);
        self.hurry.cancel();
        let stops = join_all(running.iter().map(|load| async move {
            load.provider.stop(deadline).await;
            tracing::info!(plugin = %load.id, generation = load.generation, "plugin retired");
        }));
        let drains = async { while self.drains.join_next().await.is_some() {} };
        // What is already being seen out began earlier and has the same limit.
        tokio::join!(stops, async { drop(tokio::time::timeout(deadline, drains).await) });
        self.publish_all(PluginState::Retired);
        self.shared.settled.send_replace(true);
    }

    /// Publishes the last snapshot with another state for all that ran.
    fn publish_all(&self, state: PluginState) {
        let before = self.shared.snapshot.load_full();
        let entries = before.entries.iter().map(|entry| {
            if entry.provider.is_none() {
                return Arc::clone(entry);
            }
            let provider = entry.provider.clone().filter(|_| state != PluginState::Retired);
            Arc::new(PluginEntry { state: state.clone(), provider, ..PluginEntry::clone(entry) })
        });
        self.shared.snapshot.store(Arc::new(PluginSnapshot { id: before.id + 1, entries: entries.collect() }));
    }
}

fn refuse(reply: Reply, error: PluginActionError) {
    // Whoever asked may have gone away.
    let _ = reply.send(Err(error));
}

/// No configuration is an empty one.
fn own_config(config: Value) -> Value {
    match config {
        Value::Null => Value::Object(Map::new()),
        config => config,
    }
}

/// Logs every plugin that is newly kept out, and every running one whose file is newly bad.
fn tell_differences(before: &PluginSnapshot, now: &PluginSnapshot) {
    for entry in &now.entries {
        let known =
            before.entries.iter().find(|known| known.path == entry.path && known.generation == entry.generation);
        let is_news = known.is_none_or(|known| known.state != entry.state || known.trouble != entry.trouble);
        let (plugin, state) = (&entry.id, entry.state.name());
        match (&entry.state, &entry.trouble) {
            _ if !is_news => {}
            (_, Some(trouble)) => tracing::warn!(%plugin, trouble, "the plugin's file cannot be used"),
            (PluginState::Rejected(reason) | PluginState::Disabled(reason), _) => {
                tracing::warn!(%plugin, state, reason, "plugin not loaded");
            }
            _ => {}
        }
    }
}
