//! Runs every test. Beside cargo it makes what some of them need: the staged plugins, and the published Python client
//! in an environment of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cargo, finish, root, stage};

/// What the interoperability test drives a server with.
const PYTHON_CLIENT: &str = "smooai-smooth-operator[websockets]==1.66.0";
/// The oldest Python that the client supports.
const PYTHON_MIN: (u32, u32) = (3, 11);

/// Runs every test, or those whose names contain one of the filters. The runner's own closing lines come last.
pub(crate) fn run(filters: &[&str]) -> Result<()> {
    let mut phases = Phases::default();
    phases.run("python client", python_client)?;
    phases.run("build plugins", || stage::build_and_stage().map(|_| ()))?;
    let nextest = has_nextest();
    let build: &[&str] = if nextest { &["nextest", "run", "--no-run"] } else { &["test", "--no-run"] };
    phases.run("build tests", || finish(cargo().args(build).args(["--workspace", "--locked"])))?;
    if filters.is_empty() {
        phases.run("documentation tests", || finish(cargo().args(["test", "--workspace", "--doc", "--locked"])))?;
    }
    phases.print();
    if nextest { with_nextest(filters) } else { with_cargo_test(filters) }
}

fn has_nextest() -> bool {
    let version = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn with_nextest(filters: &[&str]) -> Result<()> {
    finish(cargo().args(["nextest", "run", "--workspace", "--locked"]).args(filters))
}

/// `cargo test` closes each binary with a line of its own, so the sum of them is printed last.
fn with_cargo_test(filters: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--locked", "--"]);
    let mut child = command.args(filters).stdout(Stdio::piped()).spawn().context("cargo could not be started")?;
    let output = child.stdout.take().context("its output was piped")?;
    let mut sum = [0_u64; 3];
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        for (total, count) in sum.iter_mut().zip(closing_counts(&line).unwrap_or_default()) {
            *total += count;
        }
    }
    let status = child.wait()?;
    println!("\n{} passed, {} failed, {} skipped", sum[0], sum[1], sum[2]);
    if !status.success() {
        bail!("some tests failed");
    }
    Ok(())
}

/// Passed, failed and ignored of a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn closing_counts(line: &str) -> Option<[u64; 3]> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |name: &str| {
        let word = counts.split("; ").find_map(|part| part.strip_suffix(name))?;
        word.trim().parse().ok()
    };
    Some([count(" passed")?, count(" failed")?, count(" ignored")?])
}

/// How long each step took.
#[derive(Default)]
struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    fn run(&mut self, name: &'static str, phase: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("── {name}");
        let began = Instant::now();
        phase()?;
        self.0.push((name, began.elapsed()));
        Ok(())
    }

    fn print(&self) {
        println!("── time");
        for (name, duration) in &self.0 {
            println!("{:8.1} s  {name}", duration.as_secs_f64());
        }
        println!("── tests");
    }
}

/// Makes `target/venv`. Without a Python that will do, the tests that need it say so and are skipped, except where
/// `CI=true`, where they fail.
fn python_client() -> Result<()> {
    let folder = root().join("target/venv");
    let (python, marker) = (folder.join("bin/python"), folder.join("client.txt"));
    if python.exists() && fs::read_to_string(&marker).is_ok_and(|made_for| made_for == PYTHON_CLIENT) {
        return Ok(());
    }
    let Some(system) = system_python() else {
        println!("no python3 {}.{} or newer: the tests that need it are skipped", PYTHON_MIN.0, PYTHON_MIN.1);
        return Ok(());
    };
    match make_environment(system, &folder, &python) {
        Ok(()) => Ok(fs::write(marker, PYTHON_CLIENT)?),
        Err(error) => {
            // Half an environment would look like a whole one.
            let _ = fs::remove_dir_all(&folder);
            println!("the Python client could not be installed: {error:#}");
            Ok(())
        }
    }
}

fn make_environment(system: &str, folder: &Path, python: &Path) -> Result<()> {
    finish(Command::new(system).args(["-m", "venv", "--clear"]).arg(folder))?;
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    finish(Command::new(python).args(quiet).arg(PYTHON_CLIENT))
}

fn system_python() -> Option<&'static str> {
    let check = format!("import sys; sys.exit(sys.version_info < ({}, {}))", PYTHON_MIN.0, PYTHON_MIN.1);
    let fits = |name: &&str| {
        let status = Command::new(name).args(["-c", &check]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    ["python3", "python"].into_iter().find(fits)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn closing_lines_are_summed() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.1s";
        assert_eq!(closing_counts(line), Some([3, 2, 1]));
        assert_eq!(closing_counts("running 3 tests"), None);
    }
}
