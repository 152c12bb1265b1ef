//! What is told about plugins: which run, which do not and why; and what one file says about itself.

use std::path::{Path, PathBuf};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Confinement, Decision, Permitted, PluginCounters, PluginEntry, PluginState, host_facts,
    manifest::{Binary, Manifest, ManifestError, PluginBytes},
    permissions::decide,
    trust::{self, Candidate, Standing},
    verify::verify,
};
use crate::{
    config::{Isolation, Limits, PluginSettings, PluginsConfig, TrustConfig},
    ids::PluginId,
};

/// One plugin as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PluginReport {
    /// Its id, or the file's name where there is no readable manifest.
    pub id: String,
    /// The author's version of it.
    pub version: Option<String>,
    /// The file.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The state's name.
    pub state: &'static str,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Names of the tools it offered when it was loaded, sorted.
    pub tools: Vec<String>,
    /// The version of the interface it was built against.
    pub abi: Option<String>,
    /// SHA-256 of the file, in hex.
    pub sha256: Option<String>,
    /// Which load of this id it is, from 1; absent when it never was loaded.
    pub generation: Option<u64>,
    /// Whether the server is not ready before it is.
    pub required: bool,
    /// Where its code runs, or would.
    pub isolation: Isolation,
    /// What confines it while it runs isolated.
    pub confinement: Option<Confinement>,
    /// What it asks to be allowed in a process of its own and is not; empty when it runs in this process.
    pub missing_permissions: Vec<String>,
    /// Why what runs is not what the file holds.
    pub trouble: Option<String>,
    /// What is odd about it and does not keep it from running.
    pub warnings: Vec<String>,
    /// What has been counted of this load; absent when it never was loaded.
    pub counters: Option<PluginCounters>,
}

impl PluginReport {
    /// The report on one entry of a snapshot.
    pub fn new(entry: &PluginEntry) -> Self {
        let manifest = entry.manifest.as_ref();
        Self {
            id: entry.id.to_string(),
            version: manifest.map(|manifest| manifest.version.clone()),
            path: entry.path.clone(),
            state: entry.state.name(),
            reason: entry.state.reason().map(str::to_owned),
            tools: entry.tools.clone(),
            abi: manifest.map(|manifest| manifest.abi.clone()),
            sha256: entry.sha256.clone(),
            generation: entry.generation,
            required: entry.settings.required,
            isolation: entry.isolation,
            confinement: entry.provider.as_ref().and_then(|provider| provider.confinement()),
            missing_permissions: manifest
                .map(|manifest| missing_permissions(manifest, entry.isolation, &entry.settings))
                .unwrap_or_default(),
            trouble: entry.trouble.clone(),
            warnings: entry.warnings.clone(),
            counters: entry.provider.as_ref().map(|provider| provider.counters()),
        }
    }
}

/// What the manifest asks for in vain, where that matters.
pub(super) fn missing_permissions(manifest: &Manifest, isolation: Isolation, settings: &PluginSettings) -> Vec<String> {
    match isolation {
        Isolation::InProcess => Vec::new(),
        Isolation::Process => decide(&manifest.permissions, &settings.permissions).missing,
    }
}

impl PluginState {
    /// The state's name, as in logs and reports.
    pub fn name(&self) -> &'static str {
        match self {
            PluginState::Discovered => "discovered",
            PluginState::Verified => "verified",
            PluginState::Active => "active",
            PluginState::Draining => "draining",
            PluginState::Retired => "retired",
            PluginState::Rejected(_) => "rejected",
            PluginState::Failed(_) => "failed",
            PluginState::Disabled(_) => "disabled",
            PluginState::Quarantined(_) => "quarantined",
        }
    }

    /// Why the plugin does not run.
    pub fn reason(&self) -> Option<&str> {
        match self {
            PluginState::Rejected(reason)
            | PluginState::Failed(reason)
            | PluginState::Disabled(reason)
            | PluginState::Quarantined(reason) => Some(reason),
            _ => None,
        }
    }
}

/// What one file says about itself, read without running any of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// What its headers say.
    pub binary: Binary,
    /// What its author says.
    pub manifest: Manifest,
    /// Where its code would run.
    pub isolation: Isolation,
    /// What it would be allowed in a process of its own.
    pub permitted: Permitted,
    /// What it asks for and would not be allowed there.
    pub missing_permissions: Vec<String>,
    /// Why it does not fit this host; absent when it does.
    pub refusal: Option<String>,
    /// Where it stands with the operator.
    pub trust: Standing,
}

/// Why a file cannot be inspected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?}: {reason}")]
pub struct InspectError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: ManifestError,
}

/// Trusts a plugin file from now on, whatever was trusted under its id before. Runs none of it. Returns its id and, when
/// another file was trusted before, what changed.
///
/// # Errors
///
/// When it is not a readable plugin, or nothing can be remembered.
pub fn trust_file(
    path: &Path,
    trust: &TrustConfig,
    limits: &Limits,
) -> Result<(PluginId, Option<Vec<String>>), InspectError> {
    let at = |reason| InspectError { path: path.to_owned(), reason };
    let plugin = PluginBytes::read(path, None, limits).map_err(at)?;
    let (_, manifest) = plugin.parse().map_err(at)?;
    let candidate = Candidate { path, plugin: &plugin, manifest: &manifest };
    let changed = trust::trust(candidate, trust).map_err(|error| at(ManifestError::Unreadable(error.to_string())))?;
    Ok((PluginId::new(manifest.id), changed))
}

/// Reads what a plugin file says about itself. Never runs any of it.
///
/// # Errors
///
/// When it is not a readable plugin. One that is readable and would be refused is not an error: see
/// [`Inspection::refusal`].
pub fn inspect(path: &Path, trust: &TrustConfig, limits: &Limits) -> Result<Inspection, InspectError> {
    inspect_for(path, &PluginsConfig { trust: trust.clone(), ..PluginsConfig::default() }, limits)
}

/// As [`inspect`], with what the operator's settings make of the file.
///
/// # Errors
///
/// As [`inspect`].
pub fn inspect_for(path: &Path, config: &PluginsConfig, limits: &Limits) -> Result<Inspection, InspectError> {
    let read = || {
        let plugin = PluginBytes::read(path, None, limits)?;
        let (binary, manifest) = plugin.parse()?;
        Ok((plugin, binary, manifest))
    };
    let (plugin, binary, manifest) = read().map_err(|reason| InspectError { path: path.to_owned(), reason })?;
    let id = PluginId::new(manifest.id.as_str());
    let isolation = config.isolation(&id, manifest.isolated_only);
    let Decision { permitted, missing, .. } = decide(&manifest.permissions, &config.settings(&id).permissions);
    let refusal = verify(&binary, &manifest, isolation, host_facts()).err().map(|refusal| refusal.to_string());
    let trust = trust::standing(Candidate { path, plugin: &plugin, manifest: &manifest }, &config.trust);
    Ok(Inspection {
        trust,
        isolation,
        permitted,
        missing_permissions: missing,
        path: path.to_owned(),
        bytes: plugin.bytes.len() as u64,
        sha256: plugin.sha256,
        binary,
        manifest,
        refusal,
    })
}
