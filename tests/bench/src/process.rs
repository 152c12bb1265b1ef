//! The processes under measurement: started here, read through `/proc`, ended with the handle.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The kernel's unit of CPU time in `/proc/PID/stat`, fixed at a hundred per second for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process that has said where it listens. Dropping it ends the process without waiting.
pub(crate) struct Process {
    child: Child,
    addr: SocketAddr,
    /// Its working folder and home, so that no configuration of the machine reaches it and nothing of it stays.
    _home: TempDir,
}

impl Process {
    /// The scripted gateway.
    pub(crate) async fn gateway() -> anyhow::Result<Self> {
        Self::start(&std::env::current_exe()?, &["gateway"], &[]).await
    }

    /// The relay in front of a gateway.
    pub(crate) async fn relay(gateway: SocketAddr) -> anyhow::Result<Self> {
        Self::start(&std::env::current_exe()?, &["relay", "--gateway", &gateway.to_string()], &[]).await
    }

    /// A `jackfield` in front of a gateway.
    pub(crate) async fn jackfield(program: &Path, gateway: SocketAddr) -> anyhow::Result<Self> {
        let program = program.canonicalize().with_context(|| format!("{} is not there", program.display()))?;
        let url = format!("http://{gateway}/v1");
        let environment = [
            ("SMOOAI_GATEWAY_URL", url.as_str()),
            ("SMOOAI_GATEWAY_KEY", "x"),
            ("SMOOTH_AGENT_MODEL", "bench"),
            ("RUST_LOG", "warn"),
        ];
        Self::start(&program, &["serve", "--bind", "127.0.0.1", "--port", "0"], &environment).await
    }

    async fn start(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env("XDG_STATE_HOME", home.path())
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let addr = timeout(START_LIMIT, listening_address(&mut child))
            .await
            .with_context(|| format!("{} did not say where it listens", program.display()))??;
        Ok(Self { child, addr, _home: home })
    }

    /// Ends the process and waits until it is gone.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The CPU time that the process has used so far, in user and kernel mode, by all of its threads. Resolution 10 ms.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(self.proc("stat")?)?;
        // The name, in parentheses, may hold anything; after it come the state (field 3) and numbers.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
        let user = ticks.next().context("/proc/PID/stat ends before utime")??;
        let kernel = ticks.next().context("/proc/PID/stat ends before stime")??;
        Ok((user + kernel) / TICKS_PER_SECOND)
    }

    /// Memory that the process holds resident, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has ended")?;
        Ok(line.trim().trim_end_matches("kB").trim_end().parse()?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let pid = self.child.id().context("the process has ended")?;
        Ok(format!("/proc/{pid}/{file}"))
    }
}

/// Reads lines until one says `listening on SCHEME://ADDR/...`; the rest of the output is read and dropped, so that the
/// process never waits for us.
async fn listening_address(child: &mut Child) -> anyhow::Result<SocketAddr> {
    let stdout = child.stdout.take().context("the process has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(addr) = address_in(&line) {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(addr);
        }
    }
    let status = child.wait().await?;
    ensure!(status.success(), "it ended with {status}");
    anyhow::bail!("it ended without listening")
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, url) = line.split_once("listening on ")?;
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_start_up_line() {
        let expected = Some(SocketAddr::from(([127, 0, 0, 1], 4711)));
        assert_eq!(address_in("jackfield 0.1.0 listening on ws://127.0.0.1:4711/ws (no key)"), expected);
        assert_eq!(address_in("loading plugins"), None);
    }
}
