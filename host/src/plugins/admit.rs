//! From a file to bytes that may be loaded: read once, checked, copied to a private place. No code of it runs.

use std::{collections::BTreeSet, fmt, io, path::Path};

use super::{
    files::Stamp,
    host_facts,
    manifest::{Manifest, ManifestError, PluginBytes},
    private::{PrivateCopy, PrivateFolder},
    trust::{self, Candidate},
    verify::verify,
};
use crate::{
    clock::SharedClock,
    config::{Limits, TrustConfig},
    ids::PluginId,
};

/// What it takes to decide about a file.
pub(super) struct Admission<'a> {
    pub(super) limits: &'a Limits,
    pub(super) clock: &'a SharedClock,
    pub(super) private: &'a PrivateFolder,
    pub(super) trust: &'a TrustConfig,
    /// Hashes of contents that nobody is going to load (again); they need no copy.
    pub(super) not_loaded: &'a BTreeSet<String>,
}

/// A file that may be loaded.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) known: Known,
    /// Absent when nobody is going to load it.
    pub(super) copy: Option<PrivateCopy>,
}

/// What a file says about itself.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: PluginId,
    pub(super) sha256: String,
    pub(super) manifest: Manifest,
}

/// Why a file is not loaded.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// It looks broken, but somebody may still be writing it.
    Unsettled,
    /// It cannot be used.
    Refused {
        /// What was found, what was expected and what to do.
        reason: String,
        /// What could be learnt about it.
        known: Option<Box<Known>>,
    },
}

impl Admission<'_> {
    /// Reads the file, decides, and copies what was read.
    pub(super) fn examine(&self, path: &Path) -> Result<Admitted, NotAdmitted> {
        let before = Stamp::of(path);
        let (plugin, (binary, manifest)) = self.read(path).map_err(|error| match error {
            _ if self.is_half_copied(path, &error) => NotAdmitted::Unsettled,
            error => refused(&error, None),
        })?;
        if before.ok() != Stamp::of(path).ok() {
            return Err(NotAdmitted::Unsettled);
        }
        let id = PluginId::new(manifest.id.as_str());
        let known = Known { id, sha256: plugin.sha256.clone(), manifest };
        if let Err(refusal) = verify(&binary, &known.manifest, host_facts()) {
            return Err(refused(&refusal, Some(known)));
        }
        let candidate = Candidate { path, plugin: &plugin, manifest: &known.manifest };
        if let Err(distrust) = trust::admit(candidate, self.trust) {
            return Err(refused(&distrust, Some(known)));
        }
        if self.not_loaded.contains(&known.sha256) {
            return Ok(Admitted { known, copy: None });
        }
        match self.private.copy(&plugin) {
            Ok(copy) => Ok(Admitted { known, copy: Some(copy) }),
            Err(error) => Err(refused(&error, Some(known))),
        }
    }

    fn read(&self, path: &Path) -> Result<(PluginBytes, (super::Binary, Manifest)), ManifestError> {
        let plugin = PluginBytes::read(path, self.private.owner(), self.limits)?;
        let parsed = plugin.parse()?;
        Ok((plugin, parsed))
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

fn refused(reason: &dyn fmt::Display, known: Option<Known>) -> NotAdmitted {
    NotAdmitted::Refused { reason: reason.to_string(), known: known.map(Box::new) }
}
