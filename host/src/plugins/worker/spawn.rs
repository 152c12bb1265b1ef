//! Starts a worker process and ends it: a child of this process with an empty environment, one socket, and a pipe for
//! what it prints.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

/// What the host asks its own program, or another one, to be.
pub(crate) const REQUEST: &str = "__plugin-worker";

/// A worker that was started, and the host's ends of what joins it to the host.
pub(super) struct Spawned {
    pub(super) process: Process,
    pub(super) socket: UnixStream,
    /// What it prints.
    pub(super) output: OwnedFd,
}

/// Starts the program as a worker. The calling thread is held up until the program runs, which takes about a
/// millisecond.
///
/// The child inherits nothing but its end of the socket and of the pipe: what has to be done before the plugin's code
/// runs, the child does to itself, so that nothing runs between fork and exec in a process with threads.
///
/// # Errors
///
/// What the system said.
pub(super) fn spawn(program: &Path, id: &str, environment: &[(String, String)]) -> io::Result<Spawned> {
    let (socket, theirs) = UnixStream::pair()?;
    let (output, errors) = io::pipe()?;
    let mut command = Command::new(program);
    command.arg0("jackfield").arg(REQUEST).arg(id).env_clear();
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::from(errors));
    let child = command.spawn()?;
    // The command holds copies of the child's ends, without which a dead child would not be noticed.
    drop(command);
    Ok(Spawned { process: Process::new(child)?, socket, output: output.into() })
}

/// A running child. Dropping it ends the child; whoever wants its exit status waits first.
pub(super) struct Process {
    pid: Pid,
    /// Gone once the child has been waited for: from then on the number may be somebody else's.
    child: Mutex<Option<Child>>,
}

impl Process {
    fn new(child: Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the child has no number"))?;
        Ok(Self { pid, child: Mutex::new(Some(child)) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends the child and what it has started.
    pub(super) fn kill(&self) {
        if self.lock().is_some() {
            // The group is there once the child has made a session of its own; before that it has started nothing.
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Waits until the child has ended, ends what it has left behind, and gives its exit status. Blocks.
    ///
    /// # Errors
    ///
    /// When it has been waited for already.
    pub(super) fn wait(&self) -> io::Result<ExitStatus> {
        // Without taking it off the system's list, so that its number stays its own until the group is ended, too.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(self.pid), options) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        self.kill();
        let child = self.lock().take();
        child.ok_or_else(|| io::Error::other("it has been waited for"))?.wait()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(child) = self.lock().as_mut() {
            // It is dead or dying; without this it would stay on the system's list.
            let _ = child.wait();
        }
    }
}

/// How a process ended, in words.
pub(super) fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(number), _) => format!("was killed by {}", signal_name(number)),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(number: i32) -> String {
    let name = NAMES.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| name);
    name.map_or_else(|| format!("signal {number}"), |name| format!("signal {number} ({name})"))
}

const NAMES: &[(Signal, &str)] = &[
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ILL, "SIGILL"),
    (Signal::TRAP, "SIGTRAP"),
    (Signal::ABORT, "SIGABRT"),
    (Signal::BUS, "SIGBUS"),
    (Signal::FPE, "SIGFPE"),
    (Signal::KILL, "SIGKILL"),
    (Signal::SEGV, "SIGSEGV"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::ALARM, "SIGALRM"),
    (Signal::TERM, "SIGTERM"),
    (Signal::XCPU, "SIGXCPU"),
    (Signal::XFSZ, "SIGXFSZ"),
    (Signal::SYS, "SIGSYS"),
];

/// The path of a library as another process of the same user finds it: a copy in memory is known by a descriptor of
/// this process only.
pub(super) fn library_for_child(path: &Path) -> PathBuf {
    match path.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc").join(std::process::id().to_string()).join(rest),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_names_its_signal() {
        assert_eq!(ending(ExitStatus::from_raw(11)), "was killed by signal 11 (SIGSEGV)");
        assert_eq!(ending(ExitStatus::from_raw(3 << 8)), "exited with code 3");
        assert_eq!(ending(ExitStatus::from_raw(60)), "was killed by signal 60");
    }

    #[test]
    fn a_library_in_memory_is_named_by_its_process() {
        let own = format!("/proc/{}/fd/7", std::process::id());
        assert_eq!(library_for_child(Path::new("/proc/self/fd/7")), PathBuf::from(own));
        assert_eq!(library_for_child(Path::new("/tmp/a.plugin")), PathBuf::from("/tmp/a.plugin"));
    }
}
