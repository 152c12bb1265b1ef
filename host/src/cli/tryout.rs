//! `plugins check` and `plugins call`: a plugin file tried without a server.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    sync::Arc,
    time::Duration,
};

use jackfield::{
    clock::SystemClock,
    config::{ServerConfig, Sources},
    ids::PluginId,
    plugins,
    workbench::{self, CallRequest, Called, CheckRequest, OWN_THREADS},
};
use jackfield_plugin_api::testing::{Finding, Severity};
use serde_json::{Value, json};

use super::{
    Exit, Failure,
    args::{CHECK_CHILD, CallArgs, CheckArgs},
    terminal::{Terminal, harmless, one_line, table},
    which::{find, load},
};

/// Characters of a finding.
const FINDING_CHARS: usize = 600;
/// Longest arguments that are read.
const ARGUMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Tries all of a plugin in a process of its own and prints one line for each point.
pub(super) async fn check(sources: Sources, args: &CheckArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let config = load(sources, &args.plugins)?;
    let file = find(&args.plugin, &config)?;
    let program = std::env::current_exe()?;
    let request = CheckRequest {
        config: own_config(&file, &config),
        file,
        providers: args.provider.clone(),
        call_all: args.call_all,
    };
    terminal.message(&format!("checking {}", request.file.display()));
    let longest = Duration::from_secs(args.timeout);
    let findings = workbench::check(&program, &[CHECK_CHILD], &request, longest, Arc::new(SystemClock)).await?;
    let text = if args.json { format!("{:#}\n", json!(findings)) } else { rows(&findings) };
    terminal.data(&text)?;
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Pass);
    let bad = if args.strict { Severity::Warn } else { Severity::Fail };
    Ok((worst >= bad).then_some(Exit::CheckFailed))
}

/// The same, seen from inside the child: reads the request from standard input and writes the report.
pub(super) fn check_child(report: &Path) -> Result<Option<Exit>, Failure> {
    let mut request = String::new();
    std::io::stdin().take(ARGUMENT_BYTES_MAX).read_to_string(&mut request)?;
    let request: CheckRequest = serde_json::from_str(&request).map_err(anyhow::Error::from)?;
    let report = File::options().append(true).open(report)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(OWN_THREADS).enable_all().build()?;
    runtime.block_on(workbench::run_kit(request, report, Arc::new(SystemClock)));
    runtime.shutdown_background();
    Ok(None)
}

fn rows(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let tool = if finding.tool.is_empty() { "-" } else { &finding.tool };
        [finding.severity.as_str(), &finding.check, tool, &finding.text]
            .map(|cell| one_line(cell, FINDING_CHARS))
            .to_vec()
    };
    table(&findings.iter().map(row).collect::<Vec<_>>())
}

/// Calls one tool and prints what a model would read.
pub(super) async fn call(sources: Sources, args: &CallArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let mut config = load(sources, &args.plugins)?;
    let file = find(&args.plugin, &config)?;
    if file == Path::new(&args.plugin) {
        // Whoever names a file means it as it is now; its author builds it anew all the time.
        config.plugins.trust.pin = false;
    }
    let request = CallRequest {
        tool: args.tool.clone(),
        arguments: arguments(&args.args)?,
        timeout: args.timeout.map(Duration::from_secs),
        approve: args.approve,
    };
    let progress = |fraction: Option<f32>, message: &str| {
        let percent = fraction.map_or_else(String::new, |fraction| format!("{:3.0} % ", fraction * 100.0));
        // Whoever reads standard error may be gone.
        let _ =
            std::io::Write::write_all(&mut std::io::stderr(), format!("{percent}{}\n", harmless(message)).as_bytes());
    };
    let called = workbench::call(&file, &request, &config, Arc::new(SystemClock), progress).await;
    match called.map_err(|reason| Failure::new(Exit::Failure, reason))? {
        Called::NeedsApproval(effect) => {
            let effect = effect.as_str();
            let message = format!("this call is {effect}, so in a chat a human is asked; --approve runs it");
            Err(Failure::new(Exit::NeedsApproval, message))
        }
        Called::Ended { text, is_error, details } => {
            let shown = match args.json {
                true => format!("{:#}\n", json!({ "text": text, "isError": is_error, "details": details })),
                false => format!("{}\n", harmless(&text)),
            };
            terminal.data(&shown)?;
            Ok(is_error.then_some(Exit::Failure))
        }
    }
}

/// What the operator has written for the plugin in this file.
fn own_config(file: &Path, config: &ServerConfig) -> Value {
    let inspected = plugins::inspect(file, &config.plugins.trust, &config.limits);
    inspected.map(|found| config.plugins.settings(&PluginId::new(found.manifest.id)).config).unwrap_or_default()
}

fn arguments(given: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Usage, format!("--args {given}: {error}"));
    let mut text = String::new();
    match given.strip_prefix('@') {
        Some(path) => fs::File::open(path)
            .and_then(|file| file.take(ARGUMENT_BYTES_MAX).read_to_string(&mut text))
            .map_err(failed)?,
        None if given == "-" => std::io::stdin().take(ARGUMENT_BYTES_MAX).read_to_string(&mut text).map_err(failed)?,
        None => {
            text.push_str(given);
            text.len()
        }
    };
    Ok(text)
}
