//! Which plugin file a command is about, and under which settings.

use std::path::PathBuf;

use jackfield::{
    config::{FlagValue, ServerConfig, Sources, state_folder},
    plugins,
};

use super::{Exit, Failure};

/// The configuration, with these plugin folders instead of its own if there are any, and with the state folder.
pub(super) fn load(mut sources: Sources, folders: &[PathBuf]) -> Result<ServerConfig, Failure> {
    if !folders.is_empty() {
        let folders: Vec<String> = folders.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        sources.flags.push(FlagValue { key: "plugins.folders", flag: "--plugins", value: folders.into() });
    }
    let mut config = sources.load()?.config;
    config.plugins.trust.state_folder = state_folder(&sources.env);
    Ok(config)
}

/// A file of this name, or the file of the plugin with this id in the configured folders.
pub(super) fn find(plugin: &str, config: &ServerConfig) -> Result<PathBuf, Failure> {
    let file = PathBuf::from(plugin);
    if file.is_file() {
        return Ok(file);
    }
    let found = plugins::survey(&config.plugins, &config.limits).map_err(anyhow::Error::from)?;
    match found.iter().find(|report| report.id == plugin) {
        Some(report) => Ok(report.path.clone()),
        None => {
            let message = format!(
                "{plugin:?} is neither a file nor the id of a plugin in the plugin folders; `jackfield plugins list` shows those"
            );
            Err(Failure::new(Exit::Usage, message))
        }
    }
}
