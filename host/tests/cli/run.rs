//! Runs the binary in a place of the test's own, where neither the user's settings nor a running server matter.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

/// Longest wait for something that a started program says; builds are part of it, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);

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

    /// Starts `jackfield` with these words; it is ended with its value.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Started {
        let mut command = self.command(env!("CARGO_BIN_EXE_jackfield"));
        command
            .args(words)
            .env("CARGO_TARGET_DIR", target())
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO", env!("CARGO"));
        Started::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
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

/// A program that runs.
pub(crate) struct Started {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Started {
    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line, on either stream, that holds this text. The patience is with each line.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("it did not say {text:?}: {:#?}", self.said),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before it said {text:?}: {:#?}", self.said),
            }
        }
    }

    /// Asks it to end, as a service manager does, and expects a good end.
    #[cfg(unix)]
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{:#?}", self.said);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
