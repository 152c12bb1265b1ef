//! The single checks.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use jackfield::{
    clock::SystemClock,
    config::{AuthMode, Loaded, ServerConfig, Sources, state_folder},
    model::{GatewayClient, ModelClient, ModelEvent, ModelMessage, ModelRequest},
    plugins::{self, PluginReport},
    run_file::RunFile,
};
use tokio::net::TcpListener;

use super::report::Finding;

/// How long the model may take to answer.
const MODEL_PATIENCE: Duration = Duration::from_secs(30);
/// How long another program may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn configuration(sources: &Sources, loaded: &Loaded) -> Finding {
    let files: Vec<String> = sources.files.iter().map(|file| file.path.display().to_string()).collect();
    let read = if files.is_empty() { "no file, only the environment".to_owned() } else { files.join(", ") };
    if let Err(error) = loaded.config.require_memory() {
        return Finding::fail("configuration", error.to_string(), "set storage.backend to memory");
    }
    match loaded.warnings.as_slice() {
        [] => Finding::ok("configuration", format!("it can be used (read: {read})")),
        warnings => Finding::warn("configuration", warnings.join("; "), "unset what has no effect"),
    }
}

/// Who can reach the server.
pub(super) fn exposure(config: &ServerConfig) -> Finding {
    let address = config.addr();
    let checks_tokens = config.auth != AuthMode::None;
    let pages = match config.allowed_origins.as_slice() {
        [] => "and no web page but its own".to_owned(),
        pages => format!("and the pages of {}", pages.join(", ")),
    };
    if address.ip().to_canonical().is_loopback() {
        let who =
            if checks_tokens { "programs of this machine that have a token" } else { "any program of this machine" };
        return Finding::ok("exposure", format!("{address}: {who}, {pages}"));
    }
    match (checks_tokens, config.strict_auth, config.allow_unauthenticated) {
        (true, true, _) => Finding::ok("exposure", format!("{address}: whoever has a token, {pages}")),
        (true, false, _) => Finding::warn(
            "exposure",
            format!("{address}: the network; who has no token is anonymous"),
            "say --strict-auth to refuse those without a token",
        ),
        (false, _, true) => Finding::warn(
            "exposure",
            format!("{address}: anybody in the network may drive the agent"),
            "say --token-file FILE, or listen on 127.0.0.1",
        ),
        (false, _, false) => Finding::fail(
            "exposure",
            format!("{address} is beyond this machine and nothing checks tokens, so the server will not start"),
            "say --token-file FILE, or --allow-unauthenticated if you mean it",
        ),
    }
}

/// Whether the port is free, or who has it.
pub(super) async fn port(sources: &Sources, config: &ServerConfig) -> Finding {
    let address = config.addr();
    let error = match TcpListener::bind(address).await {
        Ok(_) if address.port() == 0 => return Finding::ok("port", "the system chooses one"),
        Ok(_) => return Finding::ok("port", format!("{address} is free")),
        Err(error) => error,
    };
    let folder = state_folder(&sources.env);
    let running = match &folder {
        Some(folder) => RunFile::find_running(folder).await.ok().flatten(),
        None => None,
    };
    match running.filter(|running| running.address.port() == address.port()) {
        Some(running) => Finding::warn(
            "port",
            format!("{address} is taken by a server of yours (process {})", running.pid),
            "use it with `jackfield chat`, or stop it",
        ),
        None => Finding::fail("port", format!("{address}: {error}"), "choose another one with --port, or 0 for any"),
    }
}

/// Whether the run file can be written.
pub(super) fn state(sources: &Sources) -> Finding {
    let Some(folder) = state_folder(&sources.env) else {
        return Finding::warn(
            "state folder",
            "there is none",
            "set HOME or XDG_STATE_HOME, so that `chat` finds the server",
        );
    };
    let shown = folder.display();
    // The nearest folder that is there decides whether the rest can be made.
    let mut nearest: &Path = &folder;
    while !nearest.exists() {
        let Some(parent) = nearest.parent() else { break };
        nearest = parent;
    }
    if !nearest.is_dir() {
        return Finding::fail("state folder", format!("{shown}: {} is no folder", nearest.display()), "remove it");
    }
    if !may_write(nearest) {
        return Finding::fail(
            "state folder",
            format!("{} cannot be written", nearest.display()),
            "mend its permissions",
        );
    }
    match others_may_look(&folder) {
        true => Finding::warn("state folder", format!("{shown} can be read by others"), format!("chmod 700 {shown}")),
        false => Finding::ok("state folder", format!("{shown}")),
    }
}

#[cfg(unix)]
fn may_write(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn may_write(folder: &Path) -> bool {
    !folder.metadata().is_ok_and(|metadata| metadata.permissions().readonly())
}

#[cfg(unix)]
fn others_may_look(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    folder.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_may_look(_: &Path) -> bool {
    false
}

/// Each plugin folder's plugins, and those that have to be there and are not.
pub(super) fn plugins(config: &ServerConfig) -> Vec<Finding> {
    let settings = &config.plugins;
    let found = match plugins::survey(settings, &config.limits) {
        Ok(found) => found,
        Err(error) => return vec![Finding::fail("plugins", error.to_string(), "make the folder, or do not name it")],
    };
    let mut findings: Vec<Finding> = found.iter().map(plugin).collect();
    let required = settings.by_id.iter().filter(|(_, settings)| settings.required);
    for (id, _) in required.filter(|(id, _)| !found.iter().any(|plugin| plugin.id == id.as_str())) {
        let text = format!("{id} is required and in no folder; the server is never ready");
        findings.push(Finding::fail("plugin", text, "copy its file into a plugin folder"));
    }
    if findings.is_empty() {
        let text = match settings.folders.as_slice() {
            [] => "no folder is configured".to_owned(),
            folders => format!("none in {} folder(s)", folders.len()),
        };
        findings.push(Finding::ok("plugins", text));
    }
    findings
}

fn plugin(report: &PluginReport) -> Finding {
    let name = format!("{} {}", report.id, report.version.as_deref().unwrap_or_default());
    let reason = report.reason.as_deref().unwrap_or_default();
    match report.state {
        "verified" => Finding::ok("plugin", format!("{} loads here: {}", name.trim(), report.tools.join(", "))),
        "disabled" => {
            Finding::warn("plugin", format!("{} is disabled {reason}", name.trim()), "enable it if you want it")
        }
        _ => Finding::fail(
            "plugin",
            format!("{}: {reason}", name.trim()),
            format!("`jackfield plugins inspect {}` shows the file", report.path.display()),
        ),
    }
}

/// The published client runs on it; the server does not.
pub(super) async fn python() -> Finding {
    let version = tokio::process::Command::new("python3").arg("--version").kill_on_drop(true).output();
    match tokio::time::timeout(VERSION_PATIENCE, version).await {
        Ok(Ok(said)) if said.status.success() => {
            Finding::ok("python", format!("{} (only clients need it)", String::from_utf8_lossy(&said.stdout).trim()))
        }
        _ => Finding::ok("python", "none (only clients need it)"),
    }
}

/// Whether the model answers a short message.
pub(super) async fn model(config: &ServerConfig) -> Finding {
    if config.is_offline() {
        return Finding::ok("model", "the built-in offline model");
    }
    let Some(key) = &config.gateway_key else {
        return Finding::fail(
            "model",
            "no gateway key",
            "set SMOOAI_GATEWAY_KEY, or say --model offline to try without",
        );
    };
    let mut limits = config.limits.clone();
    limits.model_retries = 0;
    limits.model_total = limits.model_total.min(MODEL_PATIENCE);
    let client = match GatewayClient::new(&config.gateway_url, key, &limits, Arc::new(SystemClock)) {
        Ok(client) => client,
        Err(error) => return Finding::fail("model", error.to_string(), "mend gateway.url or gateway.key"),
    };
    let request = ModelRequest {
        model: config.model.clone(),
        messages: vec![ModelMessage::User { text: "Reply with the word ok.".to_owned(), images: Vec::new() }],
        tools: Arc::from([]),
        max_tokens: config.max_tokens,
        temperature: config.temperature,
        stream: true,
    };
    let began = tokio::time::Instant::now();
    let asked = async {
        let mut reply = client.stream(request).await?;
        while let Some(event) = reply.next().await {
            if matches!(event?, ModelEvent::Finished { .. }) {
                break;
            }
        }
        Ok::<_, jackfield::model::ModelError>(())
    };
    let place = format!("{} at {}", config.model, without_credentials(&config.gateway_url));
    match asked.await {
        Ok(()) => Finding::ok("model", format!("{place} answered in {} ms", began.elapsed().as_millis())),
        Err(error) => Finding::fail(
            "model",
            format!("{place}: {error}"),
            "check gateway.url, gateway.key and model.name: `jackfield config show --origin`",
        ),
    }
}

/// An address may carry a password before `@`.
fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}
