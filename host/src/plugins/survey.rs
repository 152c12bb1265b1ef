//! What is in the plugin folders, as far as files tell without being run: for `plugins list`.

use std::{collections::BTreeMap, path::Path};

use super::{
    FolderError, PluginReport,
    discover::discover,
    host_facts,
    manifest::{Manifest, PluginBytes},
    report::missing_permissions,
    trust::{self, Candidate},
    verify::verify,
};
use crate::{
    config::{Isolation, Limits, PluginsConfig},
    ids::PluginId,
};

/// Reads every plugin file of the folders and says whether it would be loaded. Never runs any of it, so the tools are
/// those of the manifest. Ordered by id.
///
/// # Errors
///
/// When a folder cannot be used. What is wrong with single files is in the reports.
pub fn survey(config: &PluginsConfig, limits: &Limits) -> Result<Vec<PluginReport>, FolderError> {
    let owner = process_owner();
    let discovery = discover(&config.folders, owner, limits)?;
    let mut reports: Vec<PluginReport> = Vec::new();
    let mut first_of = BTreeMap::new();
    for path in &discovery.candidates {
        let mut report = read(path, owner, config, limits);
        if report.state == VERIFIED
            && let Some(first) = first_of.insert(report.id.clone(), path.clone())
        {
            report.state = REJECTED;
            report.reason = Some(format!("its id is that of {}, which comes first", first.display()));
            first_of.insert(report.id.clone(), first);
        }
        reports.push(report);
    }
    for refused in discovery.refused {
        reports.push(PluginReport { reason: Some(refused.reason), ..rejected(&refused.path) });
    }
    reports.sort_by(|left, right| (&left.id, &left.path).cmp(&(&right.id, &right.path)));
    Ok(reports)
}

const VERIFIED: &str = "verified";
const REJECTED: &str = "rejected";
const DISABLED: &str = "disabled";

fn read(path: &Path, owner: Option<u32>, config: &PluginsConfig, limits: &Limits) -> PluginReport {
    let read = PluginBytes::read(path, owner, limits).and_then(|plugin| Ok((plugin.parse()?, plugin)));
    let ((binary, manifest), plugin) = match read {
        Ok(read) => read,
        Err(error) => return PluginReport { reason: Some(error.to_string()), ..rejected(path) },
    };
    let id = PluginId::new(manifest.id.as_str());
    let (settings, isolation) = (config.settings(&id), config.isolation(&id, manifest.isolated_only));
    let missing_permissions = missing_permissions(&manifest, isolation, &settings);
    let (state, reason) = match verify(&binary, &manifest, isolation, host_facts()) {
        Err(refusal) => (REJECTED, Some(refusal.to_string())),
        Ok(()) if settings.disabled => (DISABLED, Some(format!("by [plugins.{}]", manifest.id))),
        Ok(()) => {
            let candidate = Candidate { path, plugin: &plugin, manifest: &manifest };
            match trust::standing(candidate, &config.trust).refusal {
                Some(refusal) => (REJECTED, Some(refusal)),
                None => (VERIFIED, None),
            }
        }
    };
    let Manifest { id, version, abi, tools, .. } = manifest;
    let mut tools: Vec<String> = tools.into_iter().map(|tool| tool.name).collect();
    tools.sort();
    PluginReport {
        id,
        version: Some(version),
        path: path.to_owned(),
        state,
        reason,
        tools,
        abi: Some(abi),
        sha256: Some(plugin.sha256),
        generation: None,
        required: settings.required,
        isolation,
        confinement: None,
        missing_permissions,
        trouble: None,
        warnings: Vec::new(),
        counters: None,
    }
}

/// A file that says nothing about itself is listed under its name.
fn rejected(path: &Path) -> PluginReport {
    PluginReport {
        id: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        version: None,
        path: path.to_owned(),
        state: REJECTED,
        reason: None,
        tools: Vec::new(),
        abi: None,
        sha256: None,
        generation: None,
        required: false,
        isolation: Isolation::default(),
        confinement: None,
        missing_permissions: Vec::new(),
        trouble: None,
        warnings: Vec::new(),
        counters: None,
    }
}

#[cfg(unix)]
fn process_owner() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn process_owner() -> Option<u32> {
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_plugin_is_listed_with_the_reason() {
        let folder = std::env::temp_dir().join(format!("jackfield-survey-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = format!("broken.{}", std::env::consts::DLL_EXTENSION);
        std::fs::write(folder.join(&name), b"not a library").unwrap();
        let reports = survey(&folder.clone().into(), &Limits::default()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(reports.len(), 1);
        assert_eq!((reports[0].id.as_str(), reports[0].state), (name.as_str(), REJECTED));
        assert!(reports[0].reason.is_some());
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let missing = std::path::PathBuf::from("/nonexistent/plugins");
        assert!(matches!(survey(&missing.into(), &Limits::default()), Err(FolderError::Missing(_))));
    }
}
