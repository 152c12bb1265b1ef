//! Calendar arithmetic on local dates and times; zones play no part in it.

use jackfield_plugin_api::prelude::*;
use jiff::{
    Span, Unit,
    civil::{DateTime, DateTimeDifference},
};

use crate::moment::{local, weekday};

pub(crate) struct DateAdd;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DateAddArgs {
    /// The date or date and time to start from, for example 2026-03-01 or 2026-03-01T09:30
    start: String,
    /// Years to add; negative to go back
    #[serde(default)]
    years: i32,
    /// Months to add; negative to go back
    #[serde(default)]
    months: i32,
    /// Weeks to add; negative to go back
    #[serde(default)]
    weeks: i32,
    /// Days to add; negative to go back
    #[serde(default)]
    days: i32,
    /// Hours to add; negative to go back
    #[serde(default)]
    hours: i32,
    /// Minutes to add; negative to go back
    #[serde(default)]
    minutes: i32,
}

#[derive(Serialize)]
pub(crate) struct Day {
    date: String,
    weekday: &'static str,
    /// Only when a time was given or added.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
}

impl TypedTool for DateAdd {
    type Args = DateAddArgs;
    type Output = Day;
    const NAME: &'static str = "date_add";
    const DESCRIPTION: &'static str = "Adds years, months, weeks, days, hours and minutes to a date, or subtracts them \
        when negative. The last day of a month stays the last day when the target month is shorter.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: DateAddArgs, _: CallContext) -> Result<Day, ToolError> {
        let start = local(&args.start)?;
        let end = args.span().and_then(|span| start.checked_add(span)).map_err(|error| {
            ToolError::InvalidArguments(format!("the result is out of range, years -9999 to 9999 are known: {error}"))
        })?;
        let has_time = args.start.contains(['T', ' ', ':']) || args.hours != 0 || args.minutes != 0;
        Ok(Day {
            date: end.date().to_string(),
            weekday: weekday(end.weekday()),
            time: has_time.then(|| end.time().to_string()),
        })
    }
}

impl DateAddArgs {
    fn span(&self) -> Result<Span, jiff::Error> {
        Span::new()
            .try_years(self.years)?
            .try_months(self.months)?
            .try_weeks(self.weeks)?
            .try_days(self.days)?
            .try_hours(self.hours)?
            .try_minutes(self.minutes)
    }
}

pub(crate) struct DateDifference;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DateDifferenceArgs {
    /// The first date or date and time, for example 2026-03-01
    from: String,
    /// The second date or date and time; earlier than the first gives negative numbers
    to: String,
}

#[derive(Serialize)]
pub(crate) struct Difference {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    /// The same distance in whole days.
    total_days: i64,
    /// The days from Monday to Friday from the first date, which counts, to the second, which does not.
    weekdays: i64,
}

impl TypedTool for DateDifference {
    type Args = DateDifferenceArgs;
    type Output = Difference;
    const NAME: &'static str = "date_difference";
    const DESCRIPTION: &'static str = "Tells how far two dates are apart: in years, months and days, in days alone, \
        and in days from Monday to Friday.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: DateDifferenceArgs, _: CallContext) -> Result<Difference, ToolError> {
        let (from, to) = (local(&args.from)?, local(&args.to)?);
        let parts = from.until(DateTimeDifference::new(to).largest(Unit::Year))?;
        let days = from.until(DateTimeDifference::new(to).largest(Unit::Day))?;
        Ok(Difference {
            years: parts.get_years().into(),
            months: parts.get_months().into(),
            days: parts.get_days().into(),
            hours: parts.get_hours().into(),
            minutes: parts.get_minutes(),
            seconds: parts.get_seconds(),
            total_days: days.get_days().into(),
            weekdays: weekdays(from, to),
        })
    }
}

/// Counted in whole weeks and a rest of at most six days, so that a long distance costs no more than a short one.
fn weekdays(from: DateTime, to: DateTime) -> i64 {
    let distance = from.date().until(to.date()).map_or(0, |span| i64::from(span.get_days()));
    let (first, length) = if distance < 0 { (to, -distance) } else { (from, distance) };
    let start = i64::from(first.weekday().to_monday_zero_offset());
    let rest = (0..length % 7).filter(|day| (start + day) % 7 < 5).count();
    let count = length / 7 * 5 + i64::try_from(rest).unwrap_or(0);
    if distance < 0 { -count } else { count }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jackfield_plugin_api::{serde_json, testing::TestHost};

    use super::*;

    async fn call(tool: impl TypedTool, arguments: Value) -> Result<Value, ToolError> {
        let tool: Arc<dyn Tool> = Arc::new(tool);
        let output = TestHost::new().call(&tool, arguments).await?;
        Ok(serde_json::from_str(&output.to_text()).unwrap())
    }

    #[tokio::test]
    async fn adding_respects_the_calendar() {
        let leap = call(DateAdd, json!({"start": "2024-01-31", "months": 1})).await.unwrap();
        assert_eq!(leap, json!({"date": "2024-02-29", "weekday": "Thursday"}));
        let back = call(DateAdd, json!({"start": "2026-03-01T00:30", "hours": -1})).await.unwrap();
        assert_eq!(back, json!({"date": "2026-02-28", "weekday": "Saturday", "time": "23:30:00"}));
        let far = call(DateAdd, json!({"start": "2026-03-01", "years": 20000})).await.unwrap_err();
        assert!(matches!(far, ToolError::InvalidArguments(text) if text.contains("out of range")));
        let typo = call(DateAdd, json!({"start": "2026-02-30"})).await.unwrap_err();
        assert!(matches!(typo, ToolError::InvalidArguments(text) if text.contains("2026-02-30")));
    }

    #[tokio::test]
    async fn differences_come_in_several_units() {
        let output = call(DateDifference, json!({"from": "2026-01-15", "to": "2027-03-01"})).await.unwrap();
        assert_eq!((&output["years"], &output["months"], &output["days"]), (&json!(1), &json!(1), &json!(14)));
        assert_eq!(output["total_days"], 410);
        let back = call(DateDifference, json!({"from": "2027-03-01", "to": "2026-01-15"})).await.unwrap();
        assert_eq!(back["total_days"], -410);
    }

    #[test]
    fn weekdays_are_counted_like_one_counts_on_a_calendar() {
        let date = |text: &str| local(text).unwrap();
        let slowly = |from: &str, to: &str| {
            let days = std::iter::successors(Some(date(from)), |day| day.checked_add(Span::new().days(1)).ok());
            days.take_while(|day| *day < date(to)).filter(|day| day.weekday().to_monday_zero_offset() < 5).count()
        };
        for (from, to) in [("2026-01-02", "2026-01-05"), ("2026-01-03", "2026-03-01"), ("2026-01-01", "2026-01-01")] {
            let expected = i64::try_from(slowly(from, to)).unwrap();
            assert_eq!(weekdays(date(from), date(to)), expected, "{from} to {to}");
            assert_eq!(weekdays(date(to), date(from)), -expected);
        }
    }
}
