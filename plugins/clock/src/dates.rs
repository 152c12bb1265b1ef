//! The tools that compute. All are pure but for reading the clock.

use jackfield_plugin_api::prelude::*;
use jiff::{Span, Timestamp, Unit, Zoned, civil, tz::TimeZone};

/// The zone of this name.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    let name = name.trim();
    TimeZone::get(name).map_err(|_| {
        let advice = "use an IANA name such as Europe/Berlin, America/New_York or UTC";
        match zones_of_city(name).as_slice() {
            [] => format!("there is no time zone {name:?}; {advice}"),
            names => format!("there is no time zone {name:?}, perhaps {} is meant; {advice}", names.join(" or ")),
        }
    })
}

/// Zones named after the city that was said: `berlin` and `Germany/Berlin` are about `Europe/Berlin`.
fn zones_of_city(name: &str) -> Vec<String> {
    let city = |name: &str| name.rsplit('/').next().unwrap_or_default().trim().replace(' ', "_").to_lowercase();
    let wanted = city(name);
    let known = jiff::tz::db().available().map(|name| name.to_string());
    known.filter(|name| name.contains('/') && city(name) == wanted).take(3).collect()
}

/// A moment: `2026-11-23`, `2026-11-23T14:30`, or with an offset or zone. Without one it is local time in `zone`.
fn moment(text: &str, zone: &TimeZone) -> Result<Zoned, ToolError> {
    let text = text.trim();
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned);
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant.to_zoned(zone.clone()));
    }
    let local = text.parse::<civil::DateTime>().ok();
    let local = local.and_then(|local| local.to_zoned(zone.clone()).ok());
    local.ok_or_else(|| {
        ToolError::InvalidArguments(format!(
            "{text:?} is no date or time; write it like 2026-11-23, 2026-11-23T14:30 or 2026-11-23T14:30:00Z"
        ))
    })
}

fn named_zone(name: Option<&str>, default: &str) -> Result<TimeZone, ToolError> {
    zone(name.unwrap_or(default)).map_err(ToolError::InvalidArguments)
}

/// A moment as an answer.
#[derive(Serialize)]
pub(crate) struct Moment {
    /// RFC 3339.
    time: String,
    /// The zone it is in.
    zone: String,
    weekday: String,
    /// Seconds since 1970.
    unix: i64,
}

impl From<Zoned> for Moment {
    fn from(zoned: Zoned) -> Self {
        Self {
            time: zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            zone: zoned.time_zone().iana_name().unwrap_or("local").to_owned(),
            weekday: zoned.strftime("%A").to_string(),
            unix: zoned.timestamp().as_second(),
        }
    }
}

/// What time it is.
pub(crate) struct CurrentTime {
    pub(crate) default_zone: String,
}

/// Arguments of `current_time`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct CurrentTimeArgs {
    /// IANA time zone, for example Europe/Berlin; absent for the configured one.
    zone: Option<String>,
}

impl TypedTool for CurrentTime {
    type Args = CurrentTimeArgs;
    type Output = Moment;
    const NAME: &'static str = "current_time";
    const DESCRIPTION: &'static str = "Says what time and date it is now, in a time zone.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: CurrentTimeArgs, _: CallContext) -> Result<Moment, ToolError> {
        let zone = named_zone(args.zone.as_deref(), &self.default_zone)?;
        // The one place that reads the clock; a plugin has no clock of the host's.
        #[allow(clippy::disallowed_methods, reason = "telling the time is what this tool is for")]
        let now = Timestamp::now();
        Ok(now.to_zoned(zone).into())
    }
}

/// What a moment is in another zone.
pub(crate) struct ConvertTime;

/// Arguments of `convert_time`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ConvertTimeArgs {
    /// The moment, for example 2026-11-23T14:30.
    time: String,
    /// The zone the moment is in, unless it says so itself; absent for UTC.
    from: Option<String>,
    /// The zone to tell it in.
    to: String,
}

impl TypedTool for ConvertTime {
    type Args = ConvertTimeArgs;
    type Output = Moment;
    const NAME: &'static str = "convert_time";
    const DESCRIPTION: &'static str = "Converts a moment from one time zone to another.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: ConvertTimeArgs, _: CallContext) -> Result<Moment, ToolError> {
        let from = named_zone(args.from.as_deref(), "UTC")?;
        let to = named_zone(Some(&args.to), "UTC")?;
        Ok(moment(&args.time, &from)?.with_time_zone(to).into())
    }
}

/// How far two moments are apart.
pub(crate) struct DateDifference;

/// Arguments of `date_difference`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct DateDifferenceArgs {
    /// The first date or moment, for example 2026-11-23.
    from: String,
    /// The second one; an earlier one gives a negative difference.
    to: String,
}

/// The answer of `date_difference`.
#[derive(Serialize)]
pub(crate) struct Difference {
    /// Whole days.
    days: i64,
    /// The same in years, months and days, as people say it.
    text: String,
    /// The exact number of seconds.
    seconds: i64,
}

impl TypedTool for DateDifference {
    type Args = DateDifferenceArgs;
    type Output = Difference;
    const NAME: &'static str = "date_difference";
    const DESCRIPTION: &'static str = "Says how much time lies between two dates or moments.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: DateDifferenceArgs, _: CallContext) -> Result<Difference, ToolError> {
        let (from, to) = (moment(&args.from, &TimeZone::UTC)?, moment(&args.to, &TimeZone::UTC)?);
        // Years and months are counted in one zone, that of the first moment.
        let to = to.with_time_zone(from.time_zone().clone());
        let span = from.until((Unit::Year, &to))?;
        let seconds = to.timestamp().as_second() - from.timestamp().as_second();
        Ok(Difference { days: seconds / 86_400, text: format!("{span:#}"), seconds })
    }
}

/// A moment some time before or after another.
pub(crate) struct DateAdd;

/// Arguments of `date_add`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct DateAddArgs {
    /// The date or moment to start from, for example 2026-01-31.
    date: String,
    /// Years to add; negative to go back.
    #[serde(default)]
    years: i32,
    /// Months to add; the last day of a shorter month is the end.
    #[serde(default)]
    months: i32,
    /// Days to add.
    #[serde(default)]
    days: i32,
    /// Hours to add.
    #[serde(default)]
    hours: i32,
}

impl TypedTool for DateAdd {
    type Args = DateAddArgs;
    type Output = Moment;
    const NAME: &'static str = "date_add";
    const DESCRIPTION: &'static str = "Computes the date some years, months, days or hours after another one.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: DateAddArgs, _: CallContext) -> Result<Moment, ToolError> {
        let start = moment(&args.date, &TimeZone::UTC)?;
        let out_of_range = |_| ToolError::InvalidArguments("the result is outside the years -9999 to 9999".to_owned());
        let span = Span::new()
            .try_years(args.years)
            .and_then(|span| span.try_months(args.months))
            .and_then(|span| span.try_days(args.days))
            .and_then(|span| span.try_hours(args.hours))
            .map_err(out_of_range)?;
        Ok(start.checked_add(span).map_err(out_of_range)?.into())
    }
}
