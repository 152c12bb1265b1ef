//! Reading zones, times and dates as a model writes them, with errors it can act on.

use jackfield_plugin_api::ToolError;
use jiff::{Timestamp, Zoned, civil::DateTime, tz::TimeZone};

/// A zone by its IANA name, in any case.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        let hint = match similar_zones(name).as_slice() {
            [] => String::new(),
            names => format!("; did you mean {}?", names.join(" or ")),
        };
        format!("unknown time zone \"{name}\", expected an IANA name such as Europe/Berlin or UTC{hint}")
    })
}

/// Zones whose city is the last word of what was said: `berlin` and `Germany/Berlin` both mean `Europe/Berlin`.
fn similar_zones(name: &str) -> Vec<String> {
    let city = |name: &str| name.rsplit('/').next().unwrap_or_default().trim().replace(' ', "_").to_lowercase();
    let wanted = city(name);
    let names = jiff::tz::db().available();
    names.map(|name| name.to_string()).filter(|name| name.contains('/') && city(name) == wanted).take(3).collect()
}

/// A moment: `2026-03-01T09:30Z`, `…+01:00`, `…[Europe/Berlin]`, or a plain local time, which is meant in `zone`.
///
/// The second value says whether clocks were turned back or forward at that local time, so that it exists twice or
/// not at all; the earlier meaning is taken, or the time is moved forward by the gap.
pub(crate) fn moment(text: &str, zone: &TimeZone) -> Result<(Zoned, bool), ToolError> {
    if text.contains('[') {
        return text.parse::<Zoned>().map(|moment| (moment, false)).map_err(|error| unreadable(text, &error));
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok((timestamp.to_zoned(zone.clone()), false));
    }
    let ambiguous = zone.to_ambiguous_zoned(local(text)?);
    let turned = ambiguous.is_ambiguous();
    Ok((ambiguous.compatible()?, turned))
}

/// A date, or a date and a time, without a zone.
pub(crate) fn local(text: &str) -> Result<DateTime, ToolError> {
    text.parse::<DateTime>().map_err(|error| unreadable(text, &error))
}

fn unreadable(text: &str, error: &jiff::Error) -> ToolError {
    ToolError::InvalidArguments(format!(
        "\"{text}\" is no date or time that can be read ({error}); expected for example 2026-03-01, 2026-03-01T09:30, \
         2026-03-01T09:30:00Z or 2026-03-01T09:30+01:00"
    ))
}

/// The English name of a day.
pub(crate) fn weekday(day: jiff::civil::Weekday) -> &'static str {
    match day {
        jiff::civil::Weekday::Monday => "Monday",
        jiff::civil::Weekday::Tuesday => "Tuesday",
        jiff::civil::Weekday::Wednesday => "Wednesday",
        jiff::civil::Weekday::Thursday => "Thursday",
        jiff::civil::Weekday::Friday => "Friday",
        jiff::civil::Weekday::Saturday => "Saturday",
        jiff::civil::Weekday::Sunday => "Sunday",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_zone_comes_with_what_was_probably_meant() {
        assert!(zone("europe/berlin").is_ok());
        assert!(zone("berlin").unwrap_err().ends_with("did you mean Europe/Berlin?"));
        assert!(zone("USA/New York").unwrap_err().contains("America/New_York"));
        assert!(!zone("Nowhere").unwrap_err().contains("did you mean"));
    }

    #[test]
    fn every_form_of_a_moment_is_read() {
        let berlin = zone("Europe/Berlin").unwrap();
        let read = |text| moment(text, &berlin).unwrap().0.timestamp().to_string();
        assert_eq!(read("2026-01-10T12:00"), "2026-01-10T11:00:00Z");
        assert_eq!(read("2026-01-10T12:00:00Z"), "2026-01-10T12:00:00Z");
        assert_eq!(read("2026-01-10T12:00+05:00"), "2026-01-10T07:00:00Z");
        assert_eq!(read("2026-01-10T12:00[Asia/Tokyo]"), "2026-01-10T03:00:00Z");
        assert_eq!(read("2026-01-10"), "2026-01-09T23:00:00Z");
        let error = moment("tomorrow", &berlin).unwrap_err();
        assert!(error.message().starts_with("\"tomorrow\" is no date or time"), "{error:?}");
    }

    #[test]
    fn a_local_time_that_exists_twice_or_never_is_marked() {
        let berlin = zone("Europe/Berlin").unwrap();
        assert!(moment("2026-10-25T02:30", &berlin).unwrap().1, "exists twice");
        assert!(moment("2026-03-29T02:30", &berlin).unwrap().1, "does not exist");
        assert!(!moment("2026-03-29T04:30", &berlin).unwrap().1);
    }
}
