//! From a file to bytes that may be loaded: read once, checked, copied to a private place. No code of it runs.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    PluginsConfig, host_facts,
    manifest::{Manifest, ManifestError, PluginBytes},
    private::{PrivateCopy, PrivateFolder},
    snapshot::PluginState,
    trust::{self, Candidate},
    verify::verify,
};
use crate::{clock::SharedClock, config::Limits, ids::PluginId};

/// What it takes to decide about a file.
pub(super) struct Admission<'a> {
    pub(super) config: &'a PluginsConfig,
    pub(super) limits: &'a Limits,
    pub(super) clock: &'a SharedClock,
    pub(super) private: &'a PrivateFolder,
}

/// A file that may be loaded.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) path: PathBuf,
    pub(super) id: PluginId,
    pub(super) manifest: Manifest,
    pub(super) copy: PrivateCopy,
}

/// What is known about a file whatever becomes of it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: PluginId,
    pub(super) sha256: String,
    pub(super) manifest: Manifest,
}

/// Why a file is not loaded.
pub(super) enum NotAdmitted {
    /// It looks broken, but somebody may still be writing it.
    Unsettled,
    /// The state it is in, with the reason.
    Because(PluginState),
}

impl Admission<'_> {
    /// Reads the file, decides, and copies what was read. What is known once it has been read goes to `known`.
    pub(super) fn examine(&self, path: &Path, known: impl FnOnce(Known)) -> Result<Admitted, NotAdmitted> {
        let rejected = |reason: &dyn fmt::Display| {
            NotAdmitted::Because(PluginState::Rejected(format!("{}: {reason}", path.display())))
        };
        let read = || -> Result<_, ManifestError> {
            let plugin = PluginBytes::read(path, self.private.owner(), self.limits)?;
            let parsed = plugin.parse()?;
            Ok((plugin, parsed))
        };
        let (plugin, (binary, manifest)) = read().map_err(|error| match error {
            _ if self.is_half_copied(path, &error) => NotAdmitted::Unsettled,
            error => rejected(&error),
        })?;
        let id = PluginId::new(manifest.id.as_str());
        let isolation = self.config.isolation(&id, manifest.isolated_only);
        verify(&binary, &manifest, isolation, host_facts()).map_err(|refusal| rejected(&refusal))?;
        known(Known { id: id.clone(), sha256: plugin.sha256.clone(), manifest: manifest.clone() });
        if self.config.settings(&id).disabled {
            let by = format!("{}: disabled by the configuration ([plugins.{id}])", path.display());
            return Err(NotAdmitted::Because(PluginState::Disabled(by)));
        }
        let candidate = Candidate { path, plugin: &plugin, manifest: &manifest };
        trust::admit(candidate, &self.config.trust).map_err(|distrust| rejected(&distrust))?;
        let copy = self.private.copy(&plugin).map_err(|error| rejected(&error))?;
        Ok(Admitted { path: path.to_owned(), id, manifest, copy })
    }

    /// A file that does not parse and was written a moment ago is probably still being written.
    fn is_half_copied(&self, path: &Path, error: &ManifestError) -> bool {
        use ManifestError::{Damaged, NoManifest, NotALibrary, Truncated};
        if !matches!(error, Truncated { .. } | NotALibrary(_) | Damaged(_) | NoManifest { .. }) {
            return false;
        }
        let modified = || -> io::Result<jiff::Timestamp> {
            let modified = std::fs::metadata(path)?.modified()?;
            jiff::Timestamp::try_from(modified).map_err(io::Error::other)
        };
        modified().is_ok_and(|modified| {
            let age = self.clock.now().duration_since(modified);
            age.is_positive() && age.unsigned_abs() < self.limits.plugin_settle
        })
    }
}
