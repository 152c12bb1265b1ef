//! One plugin file, loaded alone: from a folder of its own, so that its neighbours are not loaded with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    clock::SharedClock,
    config::{Limits, PluginsConfig, WatchMode},
    plugins::{OWN_SUFFIX, PluginEntry, PluginReport, PluginState, Plugins, SIGNATURE_SUFFIX},
};

/// A plugin that is active, and the folder it was loaded from.
pub(super) struct Single {
    pub(super) plugins: Arc<Plugins>,
    pub(super) entry: Arc<PluginEntry>,
    _folder: Folder,
}

/// Loads one file under the operator's settings for its id.
///
/// # Errors
///
/// Why it is not active.
pub(super) async fn load(
    file: &Path,
    settings: &PluginsConfig,
    limits: &Limits,
    clock: SharedClock,
) -> Result<Single, String> {
    let folder = Folder::with_copy(file, &settings.private_base().join(format!("jackfield-single-{}", clock.new_id())))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let config = PluginsConfig { folders: vec![folder.0.clone()], watch: WatchMode::Off, ..settings.clone() };
    let plugins = Plugins::start(&config, limits, clock).await.map_err(|error| error.to_string())?;
    // A file that keeps changing is settled after a while, too; nothing else takes longer than its start may.
    plugins.wait_settled(limits.plugin_create * 2).await;
    let entry = plugins.snapshot().entries.first().cloned();
    match entry {
        Some(entry) if entry.state == PluginState::Active => Ok(Single { plugins, entry, _folder: folder }),
        Some(entry) => {
            let reason = PluginReport::new(&entry).reason.unwrap_or_else(|| "it did not start in time".to_owned());
            // Reasons name the copy, and whoever asked knows the file.
            Err(reason.replace(&entry.path.display().to_string(), &file.display().to_string()))
        }
        None => Err(format!("{} is no plugin", file.display())),
    }
}

/// A folder that only this user can enter; removed with its value.
struct Folder(PathBuf);

impl Folder {
    fn with_copy(file: &Path, folder: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        let made = Self(folder.to_owned());
        let copy = folder.join(format!("plugin.{}", OWN_SUFFIX));
        fs::copy(file, &copy)?;
        let signature = |of: &Path| {
            PathBuf::from({
                let mut name = of.as_os_str().to_owned();
                name.push(SIGNATURE_SUFFIX);
                name
            })
        };
        if signature(file).is_file() {
            fs::copy(signature(file), signature(&copy))?;
        }
        // The copy is ours, whoever may write to the original.
        #[cfg(unix)]
        fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(made)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(folder = %self.0.display(), %error, "the folder of one plugin was not removed");
        }
    }
}
