//! All plugins of one server, as everybody else uses them: the snapshot to read, and what can be asked for. The work
//! is done by the supervisor, a task of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    PluginReport, PluginsConfig,
    discover::{FolderError, discover},
    files::Sighting,
    host_link::Peers,
    in_process::Libraries,
    private::{PrivateFolder, PrivateFolderError},
    provider::PluginProvider,
    snapshot::{PluginSnapshot, PluginState},
    supervisor::{Command, Supervisor},
};
use crate::{clock::SharedClock, config::Limits, ids::PluginId};

/// The plugins of one server.
///
/// Dropping it abandons them without waiting; [`shutdown`](Plugins::shutdown) lets them finish.
pub struct Plugins {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    /// Empty once taken down. Held for a few lines only.
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// What may wait for the supervisor; whoever asks beyond it waits, too.
const COMMANDS_WAITING: usize = 64;

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

/// Why something that was asked for did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginActionError {
    /// There is no plugin of this id.
    #[error("there is no plugin {id}; {}", known_text(known))]
    Unknown {
        /// The id that was given.
        id: PluginId,
        /// Those that there are.
        known: Vec<PluginId>,
    },
    /// Somebody wants it off.
    #[error("the plugin {id} is disabled by {by}; enable it there first")]
    Disabled {
        /// The plugin.
        id: PluginId,
        /// Who wants it off.
        by: String,
    },
    /// It could not be loaded.
    #[error("{reason}")]
    Failed {
        /// The plugin.
        id: PluginId,
        /// What went wrong, what to do, and what keeps running.
        reason: String,
    },
    /// The server is stopping.
    #[error("the plugins of this server have been stopped")]
    Stopped,
}

fn known_text(known: &[PluginId]) -> String {
    match known {
        [] => "no plugin was found".to_owned(),
        known => {
            format!("there is {}", known.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", "))
        }
    }
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
        let (private, sighting) = scan.await.expect("scanning folders does not panic and is not aborted")?;
        let shared = Arc::new(Shared {
            private,
            snapshot: ArcSwap::default(),
            settled: watch::Sender::new(false),
            health_changed: Arc::default(),
            libraries: Arc::new(Libraries::new(limits.plugin_generations)),
            config,
            limits,
            clock,
        });
        let (commands, received) = mpsc::channel(COMMANDS_WAITING);
        let supervisor = Supervisor::new(Arc::clone(&shared), received, sighting);
        let supervisor = Mutex::new(Some(tokio::spawn(supervisor.run())));
        Ok(Arc::new(Self { shared, commands, supervisor }))
    }

    /// All plugins at this instant.
    pub fn snapshot(&self) -> Arc<PluginSnapshot> {
        self.shared.snapshot.load_full()
    }

    /// One report for each plugin file, in the order of the snapshot.
    pub fn reports(&self) -> Vec<PluginReport> {
        self.snapshot().entries.iter().map(|entry| PluginReport::new(entry)).collect()
    }

    /// Waits until nothing is being read or loaded: every plugin is active or has a reason not to be. Returns whether
    /// that was so within the time.
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

    /// Looks into the folders now, and comes back when what was found is loaded or has a reason not to be.
    ///
    /// # Errors
    ///
    /// [`PluginActionError::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait changes nothing: the folders are looked at all the same. So it is with the other requests.
    pub async fn rescan(&self) -> Result<Vec<PluginReport>, PluginActionError> {
        self.ask(|reply| Command::Rescan { reply }).await?;
        Ok(self.reports())
    }

    /// Loads a plugin anew from its file, also when the file has not changed, and comes back when turns get the new
    /// generation. A quarantine ends with it.
    ///
    /// # Errors
    ///
    /// Why not; whatever ran before keeps running.
    pub async fn reload(&self, id: &PluginId) -> Result<PluginReport, PluginActionError> {
        self.ask(|reply| Command::Reload { id: id.clone(), reply }).await?
    }

    /// Takes a plugin out until it is enabled again or the server ends; `by` says who wants that, for reports. The
    /// next turn does without it.
    ///
    /// # Errors
    ///
    /// When there is no such plugin.
    pub async fn disable(&self, id: &PluginId, by: &str) -> Result<PluginReport, PluginActionError> {
        self.ask(|reply| Command::Disable { id: id.clone(), by: by.to_owned(), reply }).await?
    }

    /// Loads a plugin that was disabled while the server ran, and comes back when turns get it.
    ///
    /// # Errors
    ///
    /// When there is no such plugin, the configuration disables it, or it cannot be loaded.
    pub async fn enable(&self, id: &PluginId) -> Result<PluginReport, PluginActionError> {
        self.ask(|reply| Command::Enable { id: id.clone(), reply }).await?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, PluginActionError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| PluginActionError::Stopped)?;
        answer.await.map_err(|_| PluginActionError::Stopped)
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
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(supervisor) = supervisor else { return };
        let (reply, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { deadline, reply }).await.is_ok() {
            // An error means that the supervisor is gone, and with it what it would have stopped.
            let _ = stopped.await;
        }
        supervisor.abort();
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            supervisor.abort();
        }
    }
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugins").field("snapshot", &self.snapshot().id).finish_non_exhaustive()
    }
}

/// What the handle and the supervisor share.
pub(super) struct Shared {
    pub(super) config: Arc<PluginsConfig>,
    pub(super) limits: Arc<Limits>,
    pub(super) clock: SharedClock,
    /// Absent when there is no plugin folder and so nothing to copy.
    private: Option<PrivateFolder>,
    /// Swapped whole, by the supervisor only.
    pub(super) snapshot: ArcSwap<PluginSnapshot>,
    /// Whether nothing is being read or loaded.
    pub(super) settled: watch::Sender<bool>,
    /// Told when a plugin's quarantine begins or ends.
    pub(super) health_changed: Arc<Notify>,
    /// Counts what has been opened in this process.
    pub(super) libraries: Arc<Libraries>,
}

impl Shared {
    pub(super) fn private(&self) -> &PrivateFolder {
        self.private.as_ref().expect("where files were found, there is a folder for their copies")
    }

    /// The user this process runs as, where the system has such a number.
    pub(super) fn owner(&self) -> Option<u32> {
        self.private.as_ref().and_then(PrivateFolder::owner)
    }
}

impl Peers for Shared {
    fn active(&self, id: &str) -> Option<Arc<PluginProvider>> {
        self.snapshot.load().active(id)?.provider.clone()
    }
}

type Scanned = (Option<PrivateFolder>, Sighting);

fn scan(config: &PluginsConfig, limits: &Limits, clock: &SharedClock) -> Result<Scanned, PluginsError> {
    if config.folders.is_empty() {
        return Ok((None, Sighting::default()));
    }
    let private = PrivateFolder::create(&config.private_base(), clock.new_id())?;
    let discovery = discover(&config.folders, private.owner(), limits)?;
    Ok((Some(private), Sighting::of(discovery)))
}
