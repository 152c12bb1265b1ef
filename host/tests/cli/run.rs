//! Runs the binary in a place of the test's own, where neither the user's settings nor a running server matter.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A folder of one test; removed with its value. The binary keeps its state and looks for settings below it.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("jackfield-cli-").tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs `jackfield` with these words to its end.
    pub(crate) fn jackfield<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Ended {
        Ended::of(self.command(env!("CARGO_BIN_EXE_jackfield")).args(words))
    }

    /// Runs cargo on a project below this place, with what was fetched for this repository and nothing else.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, project: &Path, words: impl IntoIterator<Item = S>) -> Ended {
        let mut cargo = self.command(env!("CARGO"));
        cargo.args(words).current_dir(project).env("CARGO_TARGET_DIR", target()).env("CARGO_NET_OFFLINE", "true");
        // What the outer build was told is not for this one.
        for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(name);
        }
        Ended::of(&mut cargo)
    }

    /// A folder of plugins with this library in it.
    pub(crate) fn plugins(&self, library: &Path) -> PathBuf {
        let folder = self.path().join("plugins");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(library, folder.join(library.file_name().unwrap())).unwrap();
        folder
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JACKFIELD_")) {
            command.env_remove(name);
        }
        for (name, folder) in [("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config")] {
            command.env(name, self.path().join(folder));
        }
        command
    }
}

/// Where plugins are built for tests, all in one folder, so that what they depend on is built once.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/fixtures")
}

/// A library that [`Place::cargo`] has built.
pub(crate) fn built(library: &str) -> PathBuf {
    let name = format!("{}{library}.{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_EXTENSION);
    target().join("debug").join(name)
}

/// How a program ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Ended {
    fn of(command: &mut Command) -> Self {
        let ended: io::Result<Output> = command.output();
        let Output { status, stdout, stderr } = ended.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code(), output: text(stdout), errors: text(stderr) }
    }

    /// Expects a good end, and gives what was printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.output, self.errors);
        self.output
    }

    /// Expects this exit code, and gives what was said about it.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.output, self.errors);
        self.errors
    }
}
