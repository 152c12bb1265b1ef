//! Time and dates for the agent. Also the example to copy: a typed configuration, tools with typed arguments, one
//! that takes its time, and tests without a server.
//!
//! | tool | what it does |
//! |---|---|
//! | `current_time` | the time now in a zone |
//! | `convert_time` | a time of one zone in another |
//! | `date_add` | a date some years, months, days, hours later or earlier |
//! | `date_difference` | how far two dates are apart |
//! | `wait` | lets time pass, with progress |
//!
//! All of them only look, so no human is asked. Time zones come with the plugin; nothing is read from the machine but
//! its clock. Configuration: `zone`, the zone that is meant when none is said; UTC by default.

use jackfield_plugin_api::prelude::*;

mod dates;
mod moment;
mod now;
mod wait;

/// The plugin.
pub struct Clock {
    /// The zone that is meant when none is said.
    zone: jiff::tz::TimeZone,
    /// Where the time comes from; a test has its own.
    now: fn() -> jiff::Timestamp,
}

/// What the operator may write under `[plugins.clock.config]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClockConfig {
    /// The time zone that is meant when none is said, an IANA name; UTC if absent
    pub zone: Option<String>,
}

plugin_manifest!(Clock {
    id: "clock",
    description: "Time and dates: the current time in a zone, date arithmetic, waiting",
    tools: {
        "current_time": read_only,
        "convert_time": read_only,
        "date_add": read_only,
        "date_difference": read_only,
        "wait": read_only,
    },
    config_schema: include_str!("../config.schema.json"),
});

#[async_trait]
impl Plugin for Clock {
    async fn init(_: Host, config: Value) -> Result<Self, PluginError> {
        let config: ClockConfig = parse_config(config)?;
        let zone = match config.zone {
            Some(name) => moment::zone(&name).map_err(|error| format!("invalid configuration at zone: {error}"))?,
            None => jiff::tz::TimeZone::UTC,
        };
        Ok(Self { zone, now: jiff::Timestamp::now })
    }
}

#[async_trait]
impl ToolProvider for Clock {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        tools![
            now::CurrentTime { zone: self.zone.clone(), now: self.now },
            now::ConvertTime { zone: self.zone.clone() },
            dates::DateAdd,
            dates::DateDifference,
            wait::Wait,
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jackfield_plugin_api::testing::{self, TestHost};

    use super::*;

    #[tokio::test]
    async fn the_manifest_agrees_with_the_code() {
        let clock = TestHost::new().provider::<Clock>(json!({})).await.unwrap();
        clock.check_manifest().await.unwrap();
        testing::check_config_schema::<Clock, ClockConfig>().unwrap();
    }

    #[tokio::test]
    async fn a_wrong_configuration_says_what_is_wrong() {
        let host = TestHost::new();
        let message = |error: PluginError| error.message().to_owned();
        let error = host.provider::<Clock>(json!({"zone": "Mars/Olympus"})).await.err().map(message).unwrap();
        assert!(error.starts_with("invalid configuration at zone: unknown time zone \"Mars/Olympus\""), "{error}");
        let error = host.provider::<Clock>(json!({"zome": "UTC"})).await.err().map(message).unwrap();
        assert!(error.contains("unknown field `zome`, expected `zone`"), "{error}");
    }

    #[tokio::test]
    async fn the_configured_zone_is_meant_when_none_is_said() {
        let clock = TestHost::new().provider::<Clock>(json!({"zone": "Asia/Tokyo"})).await.unwrap();
        let output = clock.call("current_time", json!({})).await.unwrap();
        assert!(output.to_text().contains("[Asia/Tokyo]"), "{}", output.to_text());
    }
}
