//! `serve` and `demo`: start the server, say where it listens, run until somebody stops it.

use std::net::SocketAddr;

use anyhow::Context;
use jackfield::{
    auth::verifier_from,
    clock::{Clock, SystemClock},
    config::{ServerConfig, Sources, state_folder},
    local::LocalServer,
    run_file::{RunFile, RunFileGuard},
};
use jackfield_plugin_api::GatewayKey;

use super::{Exit, Failure, args::SettingsArgs, terminal::Terminal};

/// Runs the server of the configuration.
pub(super) async fn serve(
    mut sources: Sources,
    settings: &SettingsArgs,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    sources.flags = settings.flags();
    run(&sources, terminal, None).await
}

/// Runs the server with the offline model and demo knowledge.
pub(super) async fn demo(
    mut sources: Sources,
    settings: &SettingsArgs,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    sources.flags = settings.demo_flags();
    let hint = "try it in another terminal:  jackfield chat \"Until when can I send an item back?\"";
    run(&sources, terminal, Some(hint)).await
}

async fn run(sources: &Sources, terminal: &Terminal, hint: Option<&str>) -> Result<Option<Exit>, Failure> {
    let loaded = sources.load()?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.config.require_memory()?;
    if loaded.config.gateway_key.is_none() && !loaded.config.is_offline() {
        terminal.message("no gateway key: messages are refused until SMOOAI_GATEWAY_KEY is set; --model offline needs none");
    }
    let stop = Stop::listen()?;
    let server = start(loaded.config).await?;
    let run_file = write_run_file(sources, server.addr());
    terminal.data(&format!("jackfield {} listening on {}\n", env!("CARGO_PKG_VERSION"), server.ws_url()))?;
    if let Some(hint) = hint {
        terminal.message(hint);
    }
    stop.wait(server, terminal).await?;
    drop(run_file);
    Ok(None)
}

/// Starts the server of a configuration, whoever uses it.
pub(super) async fn start(config: ServerConfig) -> Result<LocalServer, Failure> {
    let address = config.addr();
    let server = LocalServer::builder()
        .addr(address)
        .seed_kb(config.seed_kb)
        .auth(verifier_from(&config))
        .plugins(config.plugins.clone())
        .config(config);
    Ok(server.spawn().await.with_context(|| format!("the server could not start on {address}"))?)
}

/// Without a run file the server still serves; only `chat` has to be told its address.
fn write_run_file(sources: &Sources, address: SocketAddr) -> Option<RunFileGuard> {
    let folder = state_folder(&sources.env)?;
    let token = format!("{}{}", SystemClock.new_id().simple(), SystemClock.new_id().simple());
    let file = RunFile { address, pid: std::process::id(), admin_token: GatewayKey::new(token) };
    match file.write(&folder) {
        Ok(guard) => Some(guard),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the run file could not be written");
            None
        }
    }
}

/// The wish to stop: Ctrl-C, or the system's.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// Listens from now on, so that nothing is missed while the server starts.
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    /// The first wish stops gracefully, the second at once.
    async fn wait(mut self, server: LocalServer, terminal: &Terminal) -> Result<(), Failure> {
        self.next().await?;
        terminal.message("stopping; once more stops at once");
        tokio::select! {
            result = server.shutdown() => Ok(result.context("the server did not stop cleanly")?),
            second = self.next() => {
                second?;
                Err(Failure::new(Exit::Interrupted, "stopped at once; turns that ran are lost"))
            }
        }
    }

    async fn next(&mut self) -> Result<(), Failure> {
        #[cfg(unix)]
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await?;
        Ok(())
    }
}
