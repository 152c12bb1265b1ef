//! Notices that something changed in the plugin folders: by the system's notices where there are any, and by looking
//! again every now and then, because notices get lost (network file systems, containers, overflowing queues).

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

use crate::config::{Limits, WatchMode};

/// Watches folders. What changed is not told, only that something did: content decides.
pub(super) struct FolderWatch {
    /// Absent without notices of the system.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl FolderWatch {
    /// Starts to listen; `changed` is told. Where the system gives no notices this is said once.
    pub(super) fn start(mode: WatchMode, changed: Arc<Notify>) -> Self {
        let watcher = match mode {
            WatchMode::Off | WatchMode::Poll => None,
            WatchMode::Events => listen(changed)
                .inspect_err(|error| {
                    tracing::warn!(%error, "the system does not tell when plugin folders change; they are looked at regularly instead");
                })
                .ok(),
        };
        Self { watcher, watched: BTreeSet::new() }
    }

    /// Watches these folders and no others. May block for the file system.
    pub(super) fn follow(&mut self, folders: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = folders.iter().cloned().collect();
        for gone in self.watched.difference(&wanted) {
            // A folder that was removed is not watched any more anyway.
            let _ = watcher.unwatch(gone);
        }
        let mut watched = BTreeSet::new();
        for folder in wanted {
            // Said again at every look: a folder that was replaced by another of its name has to be watched anew.
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(folder)),
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "a plugin folder cannot be watched; it is looked at regularly");
                }
            }
        }
        self.watched = watched;
    }

    /// How long to wait before looking again without a notice; `None` for ever.
    pub(super) fn interval(&self, mode: WatchMode, limits: &Limits) -> Option<Duration> {
        match mode {
            WatchMode::Off => None,
            WatchMode::Events if self.watcher.is_some() => Some(limits.plugin_rescan),
            WatchMode::Events | WatchMode::Poll => Some(limits.plugin_rescan_alone),
        }
    }
}

fn listen(changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error means that notices may have been lost, which is a reason to look.
        if event.map_or(true, |event| is_change(&event.kind)) {
            changed.notify_one();
        }
    })
}

/// Our own reading of the files must not look like a change.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
