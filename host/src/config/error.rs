//! What can be wrong with a configuration, each said with the place, what was expected and what came.

use std::{fmt, path::PathBuf};

/// Where a value comes from, from the weakest to the strongest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The user's own file.
    UserFile(PathBuf),
    /// `jackfield.toml` in the current folder.
    ProjectFile(PathBuf),
    /// The file named by `--config`.
    ConfigFile(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => formatter.write_str("default"),
            Origin::UserFile(path) | Origin::ProjectFile(path) | Origin::ConfigFile(path) => {
                write!(formatter, "{}", path.display())
            }
            Origin::Env(name) | Origin::Flag(name) => formatter.write_str(name),
        }
    }
}

/// Why the configuration cannot be used. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file is not TOML.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// A key or variable that is not a setting.
    #[error("{origin}: unknown setting {key}{}", suggestion_text(suggestion.as_deref()))]
    UnknownKey {
        /// Where it is written.
        origin: Origin,
        /// The key as written.
        key: String,
        /// The nearest setting, when one is near.
        suggestion: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("{}: expected {expected}, got {found}", key_at(origin, key))]
    BadValue {
        /// Where it is written.
        origin: Origin,
        /// The key.
        key: String,
        /// What would have fitted.
        expected: String,
        /// What is there; never a secret.
        found: String,
    },
    /// A project file sets what only its operator may.
    #[error(
        "{}: a project file may not set {key}; {}", path.display(),
        elsewhere(flag.as_deref())
    )]
    NotForProjects {
        /// The project file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The flag that sets it, when there is one.
        flag: Option<String>,
    },
    /// A project file loosens a limit.
    #[error(
        "{}: a project file may only tighten {key}: {wanted} is more than {allowed}; {}", path.display(),
        elsewhere(flag.as_deref())
    )]
    NotTighter {
        /// The project file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it asks for.
        wanted: String,
        /// What holds without it.
        allowed: String,
        /// The flag that sets it, when there is one.
        flag: Option<String>,
    },
    /// A project file points at something outside of its folder.
    #[error(
        "{}: a project file may only set {key} to paths below its own folder, got {outside:?}; {}", path.display(),
        elsewhere(flag.as_deref())
    )]
    OutsideProject {
        /// The project file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The path that leads elsewhere.
        outside: PathBuf,
        /// The flag that sets it, when there is one.
        flag: Option<String>,
    },
    /// Settings that are fine alone and wrong together.
    #[error("{0}")]
    Contradiction(String),
}

fn suggestion_text(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// A variable or a flag is its own name; a file needs the key beside it.
fn key_at(origin: &Origin, key: &str) -> String {
    match origin {
        Origin::Env(name) | Origin::Flag(name) => name.clone(),
        origin => format!("{origin}: {key}"),
    }
}

fn elsewhere(flag: Option<&str>) -> String {
    let files = "set it in your user file or in a file given by --config";
    match flag {
        Some(flag) => format!("say {flag}, or {files}"),
        None => files.to_owned(),
    }
}

/// The candidate nearest to `word`, when it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let allowed = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Edit distance (insert, remove, replace), ignoring case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_suggested_and_a_stranger_is_not() {
        let names = ["server.port", "server.bind", "model.name"];
        assert_eq!(nearest("server.prot", names).as_deref(), Some("server.port"));
        assert_eq!(nearest("Server.Bnd", names).as_deref(), Some("server.bind"));
        assert_eq!(nearest("colour", names), None);
    }

    #[test]
    fn distances() {
        for (left, right, expected) in [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3)] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }
}
