//! Starts the demo with the workspace's plugins and shows one tool call through a real client.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    finish,
    stage::{self, Staged},
    target,
};

/// The question that the demo knowledge answers, and what the answer must hold.
const QUESTION: (&str, &str) = ("Until when can I send an item back?", "17");
/// The call of a plugin's tool, and what must be printed of it.
const CALL: (&str, &str) = (r#"/tool current_time {"zone":"Europe/Berlin"}"#, "✓ current_time");

/// How long the demo runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Until somebody stops it.
    UntilStopped,
    /// For one question and one call; then it is stopped.
    OneCall,
}

/// Builds, starts, shows.
pub(crate) fn run(length: Length) -> Result<()> {
    let staged = stage::build_and_stage()?;
    let mut server = Server::start(&staged, length)?;
    println!("\nThe server is ready: {}", server.url);
    if length == Length::OneCall {
        chat(&staged, &server.url, QUESTION)?;
    }
    println!("\nOne call of a tool that lives in {}:", staged.folder.display());
    chat(&staged, &server.url, CALL)?;
    if length == Length::OneCall {
        return server.stop();
    }
    println!(
        "\nNow you, in another terminal:\n\n  {} chat --server {} \"{}\"\n",
        staged.program.display(),
        server.url,
        QUESTION.0
    );
    println!("Ctrl-C stops the server.");
    let status = server.child.wait()?;
    if !status.success() {
        bail!("the server ended with {status}");
    }
    Ok(())
}

/// The demo's process; killed when it is dropped, so that a failed step leaves nothing behind.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(staged: &Staged, length: Length) -> Result<Self> {
        let mut command = Command::new(&staged.program);
        command.arg("demo").arg("--plugins").arg(&staged.folder).stdout(Stdio::piped());
        // Plugins that were built a moment ago may differ from those that were trusted the last time.
        command.env("JACKFIELD_PLUGINS__PIN", "false");
        if length == Length::OneCall {
            // Neither a running server nor the user's own settings may matter, and it must not be found by others.
            let folder = target().join("xtask-demo");
            command.args(["--port", "0"]).env("XDG_STATE_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
        }
        let child = command.spawn().with_context(|| format!("{} could not be started", staged.program.display()))?;
        let mut server = Self { child, url: String::new() };
        let output = server.child.stdout.take().context("its output was piped")?;
        server.url = read_url(BufReader::new(output))?;
        Ok(server)
    }

    /// Asks it to stop, as a service manager would, and expects a clean end.
    fn stop(mut self) -> Result<()> {
        if cfg!(unix) {
            finish(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
            let status = self.child.wait()?;
            if !status.success() {
                bail!("the server ended with {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_url(mut output: impl BufRead + Send + 'static) -> Result<String> {
    let mut line = String::new();
    loop {
        line.clear();
        if output.read_line(&mut line)? == 0 {
            bail!("the server ended before it listened; what it said is above");
        }
        print!("{line}");
        if let Some((_, url)) = line.split_once("listening on ") {
            // Whatever it prints later is passed on, so that it never waits for us.
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::stdout()));
            return Ok(url.trim().to_owned());
        }
    }
}

fn chat(staged: &Staged, url: &str, (message, expected): (&str, &str)) -> Result<()> {
    println!("\n$ jackfield chat --server {url} '{message}'");
    let mut command = Command::new(&staged.program);
    command.args(["chat", "--server", url, message]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut messages = child.stderr.take().context("its messages were piped")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        messages.read_to_string(&mut text).map(|_| text)
    });
    let mut printed = String::new();
    child.stdout.take().context("its output was piped")?.read_to_string(&mut printed)?;
    let messages = reader.join().expect("reading does not panic")?;
    let status = child.wait()?;
    print!("{messages}{printed}");
    if !status.success() {
        bail!("chat ended with {status}");
    }
    if !printed.contains(expected) && !messages.contains(expected) {
        bail!("chat should have printed {expected:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_start_up_line() {
        let output = std::io::Cursor::new("starting\njackfield 0.1.0 listening on ws://127.0.0.1:1/ws\nmore\n");
        assert_eq!(read_url(output).expect("an address"), "ws://127.0.0.1:1/ws");
        assert!(read_url(std::io::Cursor::new("starting\n")).is_err());
    }
}
