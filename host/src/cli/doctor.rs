//! `doctor`: looks at everything that a server needs before there is one, and says what to do about what is missing.
//! Changes nothing, runs no plugin code, and sends the model one short message.

mod checks;
mod report;

use jackfield::config::Sources;
use serde_json::json;

use super::{Exit, Failure, args::DoctorArgs, terminal::Terminal};
use report::{Finding, Status};

/// Looks at everything in turn; a configuration that cannot be read leaves nothing else to look at.
pub(super) async fn doctor(
    mut sources: Sources,
    args: &DoctorArgs,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    sources.flags = args.settings.flags();
    let mut findings = Vec::new();
    let exit = match sources.load() {
        Err(error) => {
            findings.push(Finding::fail("configuration", error.to_string(), "mend it, then ask again"));
            Some(Exit::Config)
        }
        Ok(loaded) => {
            findings.push(checks::configuration(&sources, &loaded));
            let config = loaded.config;
            findings.push(checks::exposure(&config));
            findings.push(checks::port(&sources, &config).await);
            findings.push(checks::state(&sources));
            findings.extend(checks::plugins(&config));
            findings.push(checks::python().await);
            let sound = !findings.iter().any(Finding::is_failure);
            let model = checks::model(&config).await;
            let answers = !model.is_failure();
            findings.push(model);
            match (sound, answers) {
                (true, true) => None,
                (true, false) => Some(Exit::NoModel),
                (false, _) => Some(Exit::CheckFailed),
            }
        }
    };
    if args.json {
        terminal.data(&format!("{:#}\n", json!({"ok": exit.is_none(), "checks": findings})))?;
    } else {
        for finding in &findings {
            let status = match finding.status() {
                Status::Ok => "ok".into(),
                Status::Warn | Status::Fail => terminal.heading(finding.status().word()),
            };
            terminal.data(&finding.line(&status))?;
        }
    }
    Ok(exit)
}
