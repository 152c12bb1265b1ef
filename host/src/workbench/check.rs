//! The check of one plugin file, seen from outside: it runs in a child of this program, so that whatever the plugin does
//! ends the child and not the report.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use jackfield_plugin_api::testing::{Finding, Provider, Severity};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    clock::SharedClock,
    config::{Limits, PluginsConfig, TrustConfig},
    plugins,
};

/// How often the child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of what the child printed is shown.
const PRINTED_BYTES_SHOWN: usize = 400;
/// A report is a few lines for each tool.
const REPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What is to be checked, as the child reads it from its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckRequest {
    /// The plugin's file.
    pub file: PathBuf,
    /// The plugin's own configuration.
    pub config: Value,
    /// Whose rules its tools are held against.
    pub providers: Vec<Provider>,
    /// Call tools that may change something, too.
    pub call_all: bool,
}

/// One line of the child's report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// What is tried next.
    Begin(String),
    /// What was found.
    Found(Finding),
    /// All was tried.
    Done,
}

/// Checks one file. `program` and `words` run [`run_kit`](super::run_kit) with the report's path as the last word;
/// `longest` is how long all of it may take.
///
/// # Errors
///
/// When the child cannot be started, or there is no room for its report.
pub async fn check(
    program: &Path,
    words: &[&str],
    request: &CheckRequest,
    longest: Duration,
    clock: SharedClock,
) -> io::Result<Vec<Finding>> {
    match plugins::inspect(&request.file, &TrustConfig::default(), &Limits::default()) {
        Err(error) => return Ok(vec![Finding::new(Severity::Fail, "file", "", error.reason.to_string())]),
        Ok(inspection) => {
            if let Some(refusal) = inspection.refusal {
                return Ok(vec![Finding::new(Severity::Fail, "file", "", refusal)]);
            }
        }
    }
    let folder = PluginsConfig::default().private_base().join(format!("jackfield-check-{}", clock.new_id()));
    let child =
        Child { program: program.to_owned(), words: words.iter().map(|word| (*word).to_owned()).collect(), folder };
    let request = serde_json::to_vec(request)?;
    let ran = tokio::task::spawn_blocking(move || child.run(&request, longest));
    ran.await.expect("waiting for a child does not panic and is not aborted")
}

struct Child {
    program: PathBuf,
    words: Vec<String>,
    /// For the report and for what is printed; removed at the end.
    folder: PathBuf,
}

impl Child {
    fn run(&self, request: &[u8], longest: Duration) -> io::Result<Vec<Finding>> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.folder)?;
        let findings = self.run_in_folder(request, longest);
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "the folder of a check was not removed");
        }
        findings
    }

    fn run_in_folder(&self, request: &[u8], longest: Duration) -> io::Result<Vec<Finding>> {
        let (report, printed) = (self.folder.join("report"), self.folder.join("printed"));
        File::create(&report)?;
        let mut child = Command::new(&self.program)
            .args(&self.words)
            .arg(&report)
            .stdin(Stdio::piped())
            .stdout(File::create(&printed)?)
            .stderr(File::create(self.folder.join("errors"))?)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // A child that is gone already is told by how it ended.
            let _ = input.write_all(request);
        }
        let ended = wait(&mut child, longest)?;
        let report = read_report(&report)?;
        let mut findings = report.findings;
        findings.extend(end_of(ended, longest, report.last_begun.as_deref(), report.is_done));
        findings.push(about_printing(&printed)?);
        Ok(findings)
    }
}

/// Waits for the end; `None` when it had to be made.
fn wait(child: &mut std::process::Child, longest: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    last_begun: Option<String>,
    is_done: bool,
}

/// Half a line at the end belongs to a child that was ended in the middle of it, and is left out.
fn read_report(path: &Path) -> io::Result<Report> {
    let mut text = String::new();
    File::open(path)?.take(REPORT_BYTES_MAX).read_to_string(&mut text)?;
    let mut report = Report::default();
    for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match line {
            Line::Begin(what) => report.last_begun = Some(what),
            Line::Found(finding) => report.findings.push(finding),
            Line::Done => report.is_done = true,
        }
    }
    Ok(report)
}

/// What the child's end says about the plugin; nothing when it came to the end of the kit.
fn end_of(ended: Option<ExitStatus>, longest: Duration, during: Option<&str>, is_done: bool) -> Option<Finding> {
    let during = during.unwrap_or("the start");
    let text = match ended {
        None => format!(
            "the check did not end within {longest:?}, during {during}; a plugin must not block its threads for ever"
        ),
        Some(_) if is_done => return None,
        Some(status) => {
            format!("it ended the process during {during} ({status}); in a server this would be the server's end")
        }
    };
    Some(Finding::new(Severity::Fail, "crash", "", text))
}

fn about_printing(path: &Path) -> io::Result<Finding> {
    let mut printed = Vec::new();
    File::open(path)?.take(PRINTED_BYTES_SHOWN as u64).read_to_end(&mut printed)?;
    if printed.is_empty() {
        return Ok(Finding::new(Severity::Pass, "output", "", "prints nothing to standard output"));
    }
    let text = format!(
        "it prints to standard output, which is the server's: {:?}; use `tracing`",
        String::from_utf8_lossy(&printed)
    );
    Ok(Finding::new(Severity::Warn, "output", "", text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_a_report_says_what_was_tried_last() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = [
            serde_json::to_string(&Line::Begin("calls of greet".into())).unwrap(),
            serde_json::to_string(&Line::Found(Finding::new(Severity::Pass, "schema", "greet", "fits"))).unwrap(),
            "{\"found".to_owned(),
        ];
        fs::write(file.path(), lines.join("\n")).unwrap();
        let report = read_report(file.path()).unwrap();
        assert_eq!(
            (report.findings.len(), report.last_begun.as_deref(), report.is_done),
            (1, Some("calls of greet"), false)
        );
        let hung = end_of(None, Duration::from_secs(3), report.last_begun.as_deref(), false).unwrap();
        assert!(hung.text.contains("3s") && hung.text.contains("calls of greet"), "{hung}");
    }

    #[test]
    fn what_is_printed_is_a_warning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(about_printing(file.path()).unwrap().severity, Severity::Pass);
        fs::write(file.path(), "debug 1").unwrap();
        let finding = about_printing(file.path()).unwrap();
        assert!(finding.severity == Severity::Warn && finding.text.contains("debug 1"), "{finding}");
    }
}
