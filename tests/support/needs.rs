//! What a test needs from the machine and may not find there.
//!
//! On a user's machine a missing need skips the test and says why; where `CI=true` it fails, so that a test cannot
//! silently stop running. It never installs anything.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

/// What was found, or `None` after the reason for skipping has been printed.
///
/// `what` names the need as a reader would look for it (`python3 with the published client`); the error of `found`
/// says what is missing and how to get it.
///
/// # Panics
///
/// When it was not found and the environment says `CI=true`.
pub fn needs<T>(what: &str, found: Result<T, impl Display>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if is_ci() => panic!("this test needs {what}: {reason}"),
        Err(reason) => {
            skip(what, &reason);
            None
        }
    }
}

/// The interpreter of the virtual environment that `cargo xtask test` makes, with the published client in it.
///
/// # Errors
///
/// When it is not there; the text says what to run.
pub fn python_client() -> Result<PathBuf, String> {
    let python = workspace_root().join("target/venv/bin/python");
    if python.exists() {
        Ok(python)
    } else {
        Err(format!("{} does not exist; `cargo xtask test` makes it, given python3 3.11 or newer", python.display()))
    }
}

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

#[allow(clippy::print_stderr)]
fn skip(what: &str, reason: &dyn Display) {
    eprintln!("skipped: this test needs {what}: {reason}");
}
