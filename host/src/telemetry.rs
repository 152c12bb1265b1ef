//! Sets up the log: lines on standard error, so that standard output stays data. Events of this code base carry names
//! and sizes, never the values of tool arguments, prompts or keys.

use tracing_subscriber::{EnvFilter, fmt};

/// What is logged when `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "warn,jackfield=info";

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One line an event, for people.
    #[default]
    Compact,
    /// Several lines an event, with every field, for people who look for a fault.
    Pretty,
    /// One JSON object an event, for programs.
    Json,
}

/// Starts logging. `filter` is what `RUST_LOG` says, if anything.
///
/// # Errors
///
/// A filter that cannot be read, with what is wrong with it.
pub(crate) fn start(format: LogFormat, filter: Option<&str>, colour: bool) -> Result<(), String> {
    let filter = match filter.map(str::trim).filter(|filter| !filter.is_empty()) {
        Some(filter) => EnvFilter::try_new(filter).map_err(|error| {
            format!("RUST_LOG: expected directives such as info or jackfield=debug, got {filter:?} ({error})")
        })?,
        None => EnvFilter::new(DEFAULT_FILTER),
    };
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let started = match format {
        LogFormat::Compact => builder.compact().try_init(),
        LogFormat::Pretty => builder.pretty().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("the log could not be started: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_shown() {
        let error = start(LogFormat::Compact, Some("jackfield=loud=very"), false).unwrap_err();
        assert!(error.starts_with("RUST_LOG: expected directives"), "{error}");
        assert!(EnvFilter::try_new(DEFAULT_FILTER).is_ok());
    }
}
