//! Time and dates for the agent: what time it is somewhere, what a moment is elsewhere, how far two moments are apart,
//! what date something falls on, and waiting.
//!
//! It shows an author's path: typed arguments, declared effects, a tool that takes its time and reports progress, a
//! configuration, and tests without a server. Time zones come with the library, so that every machine answers the
//! same. It never touches the network or a file.

mod dates;
mod wait;

use jackfield_plugin_api::prelude::*;

use dates::{ConvertTime, CurrentTime, DateAdd, DateDifference};
use wait::Wait;

/// The plugin.
pub struct Clock {
    config: Config,
}

/// `[plugins.clock.config]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time zone of answers to calls that name none, for example `Europe/Berlin`. Default `UTC`.
    pub zone: String,
    /// Longest wait, in seconds. Default 300.
    pub wait_seconds_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { zone: "UTC".to_owned(), wait_seconds_max: 300 }
    }
}

plugin_manifest!(Clock {
    id: "clock",
    tools: {
        "current_time": read_only,
        "convert_time": read_only,
        "date_difference": read_only,
        "date_add": read_only,
        "wait": read_only,
    },
    config_schema: include_str!("config.schema.json"),
});

#[async_trait]
impl Plugin for Clock {
    async fn init(_host: Host, config: Value) -> Result<Self, PluginError> {
        let config: Config = parse_config(config)?;
        dates::zone(&config.zone).map_err(PluginError::new)?;
        Ok(Self { config })
    }
}

#[async_trait]
impl ToolProvider for Clock {
    async fn tools_for(&self, _context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        let default_zone = self.config.zone.clone();
        tools![
            CurrentTime { default_zone },
            ConvertTime,
            DateDifference,
            DateAdd,
            Wait { seconds_max: self.config.wait_seconds_max },
        ]
    }
}

#[cfg(test)]
mod tests;
