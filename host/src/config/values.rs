//! Reads single values: numbers, durations, sizes, lists, choices and references to secrets. Pure, except that a
//! `file:` secret is read from disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use jackfield_plugin_api::GatewayKey;
use toml::Value;

/// The longest duration a setting may hold; far beyond use, and far below where clocks overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A secret file larger than this is not a secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Characters of a wrong value that an error repeats.
const FOUND_CHARS_MAX: usize = 80;

/// A value as it was given, with what is needed to understand it.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// The value; an environment variable is always text.
    pub(super) value: &'a Value,
    /// Whether numbers, booleans and lists may be written as text.
    pub(super) from_text: bool,
    /// Relative paths of a file start at the file's own folder.
    pub(super) folder: Option<&'a Path>,
    /// Where `env:NAME` is looked up.
    pub(super) env: &'a BTreeMap<String, String>,
}

/// Why a value does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Given<'_> {
    pub(super) fn misfit(&self, expected: impl Into<String>) -> Misfit {
        let text = match self.value {
            Value::String(text) => format!("{text:?}"),
            Value::Table(_) => "a table".to_owned(),
            value => value.to_string(),
        };
        let mut found: String = text.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < text.len() {
            found.push('…');
        }
        Misfit { expected: expected.into(), found }
    }

    /// Text, trimmed.
    pub(super) fn text(&self) -> Result<String, Misfit> {
        match self.value {
            Value::String(text) => Ok(text.trim().to_owned()),
            _ => Err(self.misfit("text")),
        }
    }

    /// A whole number within bounds, both included.
    pub(super) fn whole(&self, min: u64, max: u64) -> Result<u64, Misfit> {
        let number = match self.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) if self.from_text => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| {
            let up_to = if max >= i64::MAX as u64 { "upwards".to_owned() } else { format!("to {max}") };
            self.misfit(format!("a whole number from {min} {up_to}"))
        })
    }

    /// A whole number that fits 32 bits.
    pub(super) fn whole_u32(&self, min: u32) -> Result<u32, Misfit> {
        let number = self.whole(min.into(), u32::MAX.into())?;
        Ok(u32::try_from(number).expect("the bound is that of the type"))
    }

    /// A number within bounds, both included.
    pub(super) fn number(&self, min: f64, max: f64) -> Result<f64, Misfit> {
        let number = match self.value {
            Value::Float(number) => Some(*number),
            #[allow(clippy::cast_precision_loss, reason = "bounds of real settings are far below 2^53")]
            Value::Integer(number) => Some(*number as f64),
            Value::String(text) if self.from_text => text.trim().parse().ok(),
            _ => None,
        };
        let fitting = number.filter(|number| (min..=max).contains(number));
        fitting.ok_or_else(|| self.misfit(format!("a number from {min} to {max}")))
    }

    /// Yes or no.
    pub(super) fn yes_or_no(&self) -> Result<bool, Misfit> {
        match self.value {
            Value::Boolean(value) => Ok(*value),
            Value::String(text) if self.from_text => match text.trim().to_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Ok(true),
                "0" | "false" | "no" | "off" => Ok(false),
                _ => Err(self.misfit("true or false")),
            },
            _ => Err(self.misfit("true or false")),
        }
    }

    /// One of some words, in any case.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Misfit> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of {}", names.join(", "));
        let Value::String(text) = self.value else { return Err(self.misfit(expected)) };
        let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, value)| *value).ok_or_else(|| self.misfit(expected))
    }

    /// A list of texts; as text, separated by commas. Blank entries are left out.
    pub(super) fn list(&self) -> Result<Vec<String>, Misfit> {
        let clean = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        match self.value {
            Value::String(text) if self.from_text => Ok(text.split(',').filter_map(clean).collect()),
            Value::Array(items) => {
                let texts = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
                let texts = texts.ok_or_else(|| self.misfit("a list of texts"))?;
                Ok(texts.into_iter().filter_map(clean).collect())
            }
            _ => Err(self.misfit("a list of texts")),
        }
    }

    /// A path; relative ones start at the folder of the file they are written in.
    pub(super) fn path(&self) -> Result<PathBuf, Misfit> {
        Ok(self.in_folder(&self.text()?))
    }

    /// A list of paths; as text, separated as in `PATH`.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, Misfit> {
        match self.value {
            Value::String(text) if self.from_text => {
                Ok(std::env::split_paths(text.trim()).filter(|path| !path.as_os_str().is_empty()).collect())
            }
            _ => Ok(self.list()?.iter().map(|text| self.in_folder(text)).collect()),
        }
    }

    fn in_folder(&self, text: &str) -> PathBuf {
        match self.folder {
            Some(folder) => folder.join(text),
            None => PathBuf::from(text),
        }
    }

    /// A table, as JSON. It cannot be written as text.
    pub(super) fn table(&self) -> Result<serde_json::Value, Misfit> {
        match self.value {
            Value::Table(_) => Ok(to_json(self.value)),
            _ => Err(self.misfit("a table")),
        }
    }

    /// The entries of a table, each to be read by itself.
    pub(super) fn entries(&self) -> Result<Vec<(&str, Given<'_>)>, Misfit> {
        let Value::Table(entries) = self.value else { return Err(self.misfit("a table")) };
        Ok(entries.iter().map(|(key, value)| (key.as_str(), Given { value, ..*self })).collect())
    }

    /// Whatever it is, as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        to_json(self.value)
    }

    /// A duration such as `30s`, at least one millisecond.
    pub(super) fn duration(&self) -> Result<Duration, Misfit> {
        const EXPECTED: &str = "a duration such as 250ms, 30s, 5m or 24h (at most 365d)";
        let parsed = match self.value {
            Value::String(text) => parse_duration(text.trim()),
            _ => None,
        };
        let fitting = parsed.filter(|duration| *duration >= Duration::from_millis(1) && *duration <= DURATION_MAX);
        fitting.ok_or_else(|| self.misfit(EXPECTED))
    }

    /// A size such as `64KiB`, or bytes as a number, at least 1.
    pub(super) fn size(&self) -> Result<u64, Misfit> {
        let size = match self.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => parse_size(text.trim()),
            _ => None,
        };
        let fits = |size: &u64| *size >= 1 && i64::try_from(*size).is_ok() && usize::try_from(*size).is_ok();
        size.filter(fits).ok_or_else(|| self.misfit("a size such as 512, 64KiB or 1MiB"))
    }

    /// A public key in PEM form, as it is or as `file:PATH`. An environment variable may write its line breaks as `\n`.
    pub(super) fn public_key(&self) -> Result<String, Misfit> {
        let text = self.text()?;
        let Some(path) = text.strip_prefix("file:") else { return Ok(text.replace("\\n", "\n")) };
        let read = read_secret(&self.in_folder(path));
        let misfit = |found| Misfit { expected: "a readable file with a public key".into(), found };
        read.map(|key| key.reveal().to_owned()).map_err(misfit)
    }

    /// A secret: `env:NAME` or `file:PATH`, or, in an environment variable only, the secret itself.
    pub(super) fn secret(&self) -> Result<GatewayKey, Misfit> {
        let misfit = |expected: &str, found: &str| Misfit { expected: expected.into(), found: found.into() };
        let text = match self.value {
            Value::String(text) => text.trim(),
            _ => return Err(misfit("a reference env:NAME or file:PATH", "something else (not shown)")),
        };
        if let Some(name) = text.strip_prefix("env:") {
            let value = self.env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
            return match value {
                Some(value) => Ok(GatewayKey::new(value)),
                None => Err(misfit("env:NAME with a variable that is set", &format!("env:{name}, which is not set"))),
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            return read_secret(&self.in_folder(path)).map_err(|found| misfit("a readable file with a secret", &found));
        }
        if self.from_text {
            return Ok(GatewayKey::new(text));
        }
        Err(misfit("a reference env:NAME or file:PATH, because files are shared by accident", "the secret itself"))
    }
}

/// TOML as JSON; dates become text, and numbers that JSON has no form for become null.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Datetime(date) => date.to_string().into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Table(entries) => entries.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
    }
}

fn read_secret(path: &Path) -> Result<GatewayKey, String> {
    let trouble = |reason: &str| format!("{}: {reason}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| trouble(&error.to_string()))?;
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(trouble("larger than 64 KiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| trouble(&error.to_string()))?;
    match text.trim() {
        "" => Err(trouble("empty")),
        secret => Ok(GatewayKey::new(secret)),
    }
}

/// Numbers with units, largest first by custom though any order is taken: `1h30m`, `250ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, unit, tail) = split_number(rest)?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(60 * 60),
            "d" => Duration::from_secs(24 * 60 * 60),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = tail.trim_start();
    }
    Some(total).filter(|_| !text.is_empty())
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, tail) = split_number(text)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).filter(|_| tail.is_empty())
}

/// A number, the letters after it, and what follows.
fn split_number(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let letters = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..letters], &rest[letters..]))
}

/// The shortest text that reads back as the same duration.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, name) in [(24 * 60 * 60 * 1000, "d"), (60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s")] {
        if millis >= unit && millis.is_multiple_of(unit) {
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}

/// The shortest text that reads back as the same size.
pub(super) fn size_text(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given<'a>(value: &'a Value, from_text: bool, env: &'a BTreeMap<String, String>) -> Given<'a> {
        Given { value, from_text, folder: None, env }
    }

    fn with_text<T>(text: &str, read: impl Fn(Given<'_>) -> Result<T, Misfit>) -> Result<T, Misfit> {
        read(given(&Value::String(text.to_owned()), true, &BTreeMap::new()))
    }

    #[test]
    fn durations_and_sizes() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h 30min", 5_400_000), ("1d", 86_400_000)]
        {
            let duration = with_text(text, |given| given.duration()).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "30", "s", "30x", "-1s", "0s", "1.5s", "400d", "99999999999999999999s", "9999999999h"] {
            assert!(with_text(text, |given| given.duration()).is_err(), "{text}");
        }
        for (text, bytes) in [("512", 512), ("512 B", 512), ("64KiB", 65_536), ("1mb", 1_000_000), ("2GiB", 2 << 30)] {
            assert_eq!(with_text(text, |given| given.size()).unwrap(), bytes, "{text}");
        }
        for text in ["", "0", "KiB", "64Kib!", "64XB", "99999999999GiB", "1KiB1"] {
            assert!(with_text(text, |given| given.size()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_in_a_file_is_not_written_as_text() {
        let env = BTreeMap::new();
        let text = Value::String("8787".into());
        assert!(given(&text, false, &env).whole(0, 65_535).is_err());
        assert_eq!(given(&text, true, &env).whole(0, 65_535), Ok(8787));
        let misfit = with_text("eighty", |given| given.whole(0, 65_535)).unwrap_err();
        assert_eq!(misfit, Misfit { expected: "a whole number from 0 to 65535".into(), found: "\"eighty\"".into() });
    }

    #[test]
    fn a_secret_is_referenced_and_never_shown() {
        let env = BTreeMap::from([("KEY".to_owned(), " s3cret ".to_owned()), ("BLANK".to_owned(), " ".to_owned())]);
        let read = |text: &str, from_text| {
            let value = Value::String(text.into());
            given(&value, from_text, &env).secret()
        };
        assert_eq!(read("env:KEY", false).unwrap().reveal(), "s3cret");
        assert_eq!(read("s3cret", true).unwrap().reveal(), "s3cret");
        assert!(read("env:BLANK", false).unwrap_err().found.contains("not set"));
        assert!(read("file:/nonexistent/token", false).unwrap_err().found.contains("/nonexistent/token"));
        let misfit = read("s3cret", false).unwrap_err();
        assert!(!format!("{misfit:?}").contains("s3cret"));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(millis in 1_u64..1_000_000_000, bytes in 1_u64..1_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Some(duration));
            prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = with_text(&text, |given| given.duration());
            let _ = with_text(&text, |given| given.size());
            let _ = with_text(&text, |given| given.list());
        }
    }
}
