//! The run file: how the command line finds a server that is running on this machine. It holds the address, the
//! process and a token that is good until the server ends, so only its owner may read it.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jackfield_plugin_api::GatewayKey;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    state_folder::{read_file, replace_file},
};

/// The file's name in the state folder.
const NAME: &str = "run.json";
/// A longer file is not ours.
const BYTES_MAX: u64 = 64 * 1024;
/// How long a server on this machine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFile {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Lets whoever can read the file change plugins and trust.
    pub admin_token: GatewayKey,
}

/// The file's text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    url: String,
    address: SocketAddr,
    pid: u32,
    admin_token: String,
}

impl RunFile {
    /// The run file of a server in this process.
    pub fn of_this_process(address: SocketAddr, admin_token: GatewayKey) -> Self {
        Self { address, pid: std::process::id(), admin_token }
    }

    /// An admin token that nobody knows.
    pub fn fresh_token(clock: &dyn Clock) -> GatewayKey {
        GatewayKey::new(format!("{}{}", clock.new_id().simple(), clock.new_id().simple()))
    }

    /// Writes the file into the state folder; the guard removes it again. A server that started later replaces it.
    ///
    /// # Errors
    ///
    /// When the folder or the file cannot be written.
    pub fn write(self, state_folder: &Path) -> io::Result<RunFileGuard> {
        let path = state_folder.join(NAME);
        let text = Text {
            url: self.ws_url(),
            address: self.address,
            pid: self.pid,
            admin_token: self.admin_token.reveal().to_owned(),
        };
        replace_file(state_folder, NAME, &serde_json::to_vec_pretty(&text)?)?;
        Ok(RunFileGuard { path, written: self })
    }

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or does not hold what [`write`](Self::write) writes.
    pub fn read(state_folder: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = read_file(state_folder, NAME, BYTES_MAX)? else { return Ok(None) };
        let text: Text = serde_json::from_slice(&bytes)?;
        Ok(Some(Self { address: text.address, pid: text.pid, admin_token: GatewayKey::new(text.admin_token) }))
    }

    /// The server that the file speaks of, if it still answers. A file that a crashed server left behind names an
    /// address where nobody listens, and counts as none.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn find_running(state_folder: &Path) -> io::Result<Option<Self>> {
        let Some(found) = Self::read(state_folder)? else { return Ok(None) };
        let connect = tokio::net::TcpStream::connect(found.reachable());
        let answers = matches!(tokio::time::timeout(CONNECT_TIMEOUT, connect).await, Ok(Ok(_)));
        Ok(answers.then_some(found))
    }

    /// Where clients on this machine connect.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.reachable())
    }

    /// A server that listens everywhere is reached over loopback.
    fn reachable(&self) -> SocketAddr {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            address.set_ip(loopback);
        }
        address
    }
}

/// Removes the run file when the server ends, unless another server has written its own meanwhile.
#[derive(Debug)]
#[must_use = "the file is removed when this is dropped"]
pub struct RunFileGuard {
    path: PathBuf,
    written: RunFile,
}

impl Drop for RunFileGuard {
    fn drop(&mut self) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let ours = matches!(RunFile::read(folder), Ok(Some(found)) if found == self.written);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the run file could not be removed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A folder of the test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
            let folder = base.join(format!("jackfield-run-file-{name}-{}", std::process::id()));
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run_file(port: u16, token: &str) -> RunFile {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        RunFile { address, pid: 7, admin_token: GatewayKey::new(token) }
    }

    #[test]
    fn what_was_written_is_read_and_removed_at_the_end() {
        let folder = Folder::new("life");
        assert_eq!(RunFile::read(&folder.0).unwrap(), None);
        let guard = run_file(8787, "a").write(&folder.0).unwrap();
        let found = RunFile::read(&folder.0).unwrap().unwrap();
        assert_eq!(found, run_file(8787, "a"));
        assert_eq!(found.ws_url(), "ws://127.0.0.1:8787/ws");
        drop(guard);
        assert_eq!(RunFile::read(&folder.0).unwrap(), None);
    }

    #[test]
    fn a_later_servers_file_is_left_alone() {
        let folder = Folder::new("later");
        let first = run_file(1, "a").write(&folder.0).unwrap();
        let second = run_file(2, "b").write(&folder.0).unwrap();
        drop(first);
        assert_eq!(RunFile::read(&folder.0).unwrap(), Some(run_file(2, "b")));
        drop(second);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("mode");
        let _guard = run_file(1, "a").write(&folder.0).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.0.join(NAME)), 0o600);
        assert_eq!(mode(&folder.0), 0o700);
    }

    #[tokio::test]
    async fn a_file_whose_server_is_gone_counts_as_none() {
        let folder = Folder::new("stale");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let _guard = run_file(port, "a").write(&folder.0).unwrap();
        assert!(RunFile::find_running(&folder.0).await.unwrap().is_some());
        drop(listener);
        assert_eq!(RunFile::find_running(&folder.0).await.unwrap(), None);
    }

    #[test]
    fn nonsense_is_an_error_and_the_token_is_never_printed() {
        let folder = Folder::new("nonsense");
        fs::create_dir_all(&folder.0).unwrap();
        fs::write(folder.0.join(NAME), "{").unwrap();
        assert!(RunFile::read(&folder.0).is_err());
        assert!(!format!("{:?}", run_file(1, "canary")).contains("canary"));
    }
}
