//! What cargo cannot say in one word: build the host and the workspace's plugins, put the plugins into a folder, show
//! them at work, and run every test. `cargo xtask` lists the commands.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal; it has no other output")]
#![allow(clippy::disallowed_methods, reason = "it measures how long builds and tests take")]

mod demo;
mod stage;
mod tests;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--once]   build host and plugins, start the demo with the plugins loaded, show one tool call;
                  --once ends after the call, with exit code 0 if all went well
  test [FILTER]   every test: unit, acceptance, ABI, tidy, documentation
  plugins         build the workspace's plugins and put them into target/plugins";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo"] => demo::run(demo::Length::UntilStopped),
        ["demo", "--once"] => demo::run(demo::Length::OneCall),
        ["test", filters @ ..] => tests::run(filters),
        ["plugins"] => stage::build_and_stage().map(|staged| println!("{}", staged.folder.display())),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("xtask is two folders below the workspace")
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The cargo that runs us, in the workspace's folder.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end; anything but success is an error.
fn finish(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} could not be started"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
