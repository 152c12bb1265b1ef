//! `serve` and `demo`: start the server, say where it listens, run until somebody stops it.

use jackfield::{
    config::{ServerConfig, Sources, state_folder},
    local::LocalServer,
    plugins::PluginReport,
    run_file::{RunFile, RunFileGuard},
    server::{StartError, StopRequest, StopRequests},
};

use super::{
    Exit, Failure,
    args::SettingsArgs,
    terminal::{Terminal, one_line},
};

/// Characters of a plugin's tools or of the reason why it is not there.
const DETAIL_CHARS: usize = 400;

/// Runs the server of the configuration.
pub(super) async fn serve(
    mut sources: Sources,
    settings: &SettingsArgs,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    sources.flags = settings.flags();
    run(&sources, terminal, Kind::Serve).await
}

/// Runs the server with the offline model and demo knowledge.
pub(super) async fn demo(
    mut sources: Sources,
    settings: &SettingsArgs,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    sources.flags = settings.demo_flags();
    run(&sources, terminal, Kind::Demo).await
}

/// What a person sees of the two commands that differ in settings otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Serve,
    Demo,
}

async fn run(sources: &Sources, terminal: &Terminal, kind: Kind) -> Result<Option<Exit>, Failure> {
    let mut loaded = sources.load()?;
    loaded.config.state_folder = state_folder(&sources.env);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.config.require_memory()?;
    let without_key = loaded.config.gateway_key.is_none() && !loaded.config.is_offline();
    let plugin_time = loaded.config.limits.plugin_create;
    // Heard from here on, so that no wish to stop ends the process between two steps.
    let mut requests = StopRequests::listen()?;
    let server = start(remembering(loaded.config, sources)).await?;
    if kind == Kind::Demo {
        // The first thing that people try is a plugin's tool, so it has to be there when the address is.
        announce_plugins(&server.plugins_settled(plugin_time).await, terminal);
    }
    let run_file = write_run_file(sources, server.run_file());
    terminal.data(&format!("jackfield {} listening on {}\n", env!("CARGO_PKG_VERSION"), server.ws_url()))?;
    if without_key {
        terminal.message(
            "no gateway key: messages are refused until SMOOAI_GATEWAY_KEY is set; --model offline needs none",
        );
    }
    if kind == Kind::Demo {
        terminal.message("try it in another terminal:  jackfield chat \"Until when can I send an item back?\"");
    }
    let told = |_| terminal.message("stopping; once more stops at once");
    let ended = server.shutdown_when_asked(&mut requests, told).await;
    drop(run_file);
    ended?;
    Ok(None)
}

fn announce_plugins(reports: &[PluginReport], terminal: &Terminal) {
    for report in reports {
        let detail = report.reason.clone().unwrap_or_else(|| report.tools.join(", "));
        terminal.message(&format!("plugin {} is {}: {}", report.id, report.state, one_line(&detail, DETAIL_CHARS)));
    }
}

/// What is remembered between two runs: which plugins were trusted.
pub(super) fn remembering(mut config: ServerConfig, sources: &Sources) -> ServerConfig {
    config.plugins.trust.state_folder = state_folder(&sources.env);
    config
}

/// Starts the server of a configuration, whoever uses it.
pub(super) async fn start(config: ServerConfig) -> Result<LocalServer, Failure> {
    let address = config.addr();
    let server = LocalServer::builder().addr(address).seed_kb(config.seed_kb).config(config);
    Ok(server.spawn().await?)
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match error {
            StartError::StoppedAtOnce(StopRequest::Terminate) => Exit::Terminated,
            StartError::StoppedAtOnce(_) => Exit::Interrupted,
            StartError::Config(_)
            | StartError::Guard(_)
            | StartError::Gateway(_)
            | StartError::Auth(_)
            | StartError::Unprotected(_) => Exit::Config,
            _ => Exit::Failure,
        };
        Self::new(exit, error.to_string())
    }
}

/// Without a run file the server still serves; only `chat` has to be told its address.
pub(super) fn write_run_file(sources: &Sources, run_file: &RunFile) -> Option<RunFileGuard> {
    let folder = state_folder(&sources.env)?;
    match run_file.clone().write(&folder) {
        Ok(guard) => Some(guard),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the run file could not be written");
            None
        }
    }
}
