//! The time now, and the same moment elsewhere.

use jackfield_plugin_api::prelude::*;
use jiff::{Timestamp, Zoned, tz::TimeZone};

use crate::moment::{moment, weekday, zone};

pub(crate) struct CurrentTime {
    pub(crate) zone: TimeZone,
    pub(crate) now: fn() -> Timestamp,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CurrentTimeArgs {
    /// IANA name of the time zone, for example Europe/Berlin; the configured zone if absent
    zone: Option<String>,
}

/// A moment as the model reads it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Moment {
    /// With offset and zone, for example `2026-01-10T12:00:00+01:00[Europe/Berlin]`.
    time: String,
    weekday: &'static str,
    unix_seconds: i64,
    /// Only when it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

impl Moment {
    fn of(moment: &Zoned) -> Self {
        Self {
            time: moment.round(jiff::Unit::Second).as_ref().unwrap_or(moment).to_string(),
            weekday: weekday(moment.weekday()),
            unix_seconds: moment.timestamp().as_second(),
            note: None,
        }
    }
}

impl TypedTool for CurrentTime {
    type Args = CurrentTimeArgs;
    type Output = Moment;
    const NAME: &'static str = "current_time";
    const DESCRIPTION: &'static str = "Gives the current date, time and weekday in a time zone. Use it whenever the \
        answer depends on today's date or on the time of day.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: CurrentTimeArgs, _: CallContext) -> Result<Moment, ToolError> {
        let zone = zone_or(args.zone.as_deref(), &self.zone)?;
        Ok(Moment::of(&(self.now)().to_zoned(zone)))
    }

    fn options(&self) -> ToolOptions {
        // The answer changes by itself, so asking again is not a loop.
        ToolOptions::default().polling()
    }
}

pub(crate) struct ConvertTime {
    pub(crate) zone: TimeZone,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConvertTimeArgs {
    /// The time, for example 2026-03-01T09:30, or with an offset 2026-03-01T09:30+01:00
    time: String,
    /// IANA name of the zone the time is in, when it has no offset of its own; the configured zone if absent
    from_zone: Option<String>,
    /// IANA name of the zone to convert to
    to_zone: String,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Converted {
    from: Moment,
    to: Moment,
}

impl TypedTool for ConvertTime {
    type Args = ConvertTimeArgs;
    type Output = Converted;
    const NAME: &'static str = "convert_time";
    const DESCRIPTION: &'static str = "Converts a time from one time zone to another, with daylight saving time.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: ConvertTimeArgs, _: CallContext) -> Result<Converted, ToolError> {
        let from_zone = zone_or(args.from_zone.as_deref(), &self.zone)?;
        let to_zone = zone_or(Some(&args.to_zone), &self.zone)?;
        let (from, turned) = moment(&args.time, &from_zone)?;
        let mut converted = Converted { from: Moment::of(&from), to: Moment::of(&from.with_time_zone(to_zone)) };
        if turned {
            converted.from.note = Some("the clocks are changed at this local time: it exists twice, or not at all");
        }
        Ok(converted)
    }
}

fn zone_or(name: Option<&str>, default: &TimeZone) -> Result<TimeZone, ToolError> {
    name.map_or_else(|| Ok(default.clone()), |name| zone(name).map_err(ToolError::InvalidArguments))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jackfield_plugin_api::testing::TestHost;

    use super::*;

    fn at_new_year() -> Timestamp {
        "2026-01-01T00:00:00.4Z".parse().unwrap()
    }

    async fn call(tool: impl TypedTool, arguments: Value) -> Result<Value, ToolError> {
        let tool: Arc<dyn Tool> = Arc::new(tool);
        let output = TestHost::new().call(&tool, arguments).await?;
        Ok(serde_json::from_str(&output.to_text()).unwrap())
    }

    use jackfield_plugin_api::serde_json;

    #[tokio::test]
    async fn the_same_moment_has_another_date_elsewhere() {
        let clock = || CurrentTime { zone: TimeZone::UTC, now: at_new_year };
        let here = call(clock(), json!({})).await.unwrap();
        assert_eq!(
            here,
            json!({"time": "2026-01-01T00:00:00+00:00[UTC]", "weekday": "Thursday", "unix_seconds": 1_767_225_600})
        );
        let there = call(clock(), json!({"zone": "America/New_York"})).await.unwrap();
        assert_eq!(there["time"], "2025-12-31T19:00:00-05:00[America/New_York]");
        assert_eq!(there["weekday"], "Wednesday");
        let error = call(clock(), json!({"zone": "Atlantis"})).await.unwrap_err();
        assert!(matches!(error, ToolError::InvalidArguments(text) if text.contains("\"Atlantis\"")));
    }

    #[tokio::test]
    async fn conversion_knows_summer_time() {
        let convert = || ConvertTime { zone: TimeZone::UTC };
        let arguments = json!({"time": "2026-07-01T09:30", "from_zone": "Europe/Berlin", "to_zone": "Asia/Tokyo"});
        let output = call(convert(), arguments).await.unwrap();
        assert_eq!(output["from"]["time"], "2026-07-01T09:30:00+02:00[Europe/Berlin]");
        assert_eq!(output["to"]["time"], "2026-07-01T16:30:00+09:00[Asia/Tokyo]");
        let gap = json!({"time": "2026-03-29T02:30", "from_zone": "Europe/Berlin", "to_zone": "UTC"});
        assert!(call(convert(), gap).await.unwrap()["from"]["note"].is_string());
        let error = call(convert(), json!({"time": "noon", "to_zone": "UTC"})).await.unwrap_err();
        assert!(matches!(error, ToolError::InvalidArguments(text) if text.contains("\"noon\"")));
    }
}
