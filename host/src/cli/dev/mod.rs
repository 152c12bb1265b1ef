//! `dev`: an author's loop. Builds the plugin of a folder, serves it beside the offline model, reloads it whenever a
//! source changes, and passes what is typed on to the agent, so that a tool can be tried from the same terminal.
//!
//! ```text
//!   build ──▶ copy ──▶ serve ──▶ wait ──┬── a source changed ──▶ build ──ok──▶ copy, serve anew
//!     ▲                                 ├── a line was typed ──▶ one turn
//!     └────── failed: keep what runs ───┴── Ctrl-C ──▶ end
//! ```

mod keyboard;
mod project;
mod sources;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jackfield::{
    clock::{Clock, SystemClock},
    config::{ServerConfig, Sources},
    local::LocalServer,
    plugins::{PluginEntry, PluginReport},
    run_file::RunFileGuard,
    server::stop_requested,
};
use jackfield_plugin_api::{ToolProviderContext, testing::smallest_arguments};

use self::{keyboard::Keyboard, project::Plugin, sources::Watch};
use super::{
    Exit, Failure,
    args::DevArgs,
    chat,
    serve::{self, write_run_file},
    terminal::{Terminal, one_line},
};

/// How often the sources are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Characters of a reason why the plugin is not there.
const REASON_CHARS: usize = 1000;

/// Runs the loop until it is stopped.
pub(super) async fn dev(mut sources: Sources, args: &DevArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let plugin = project::find(&args.folder, args.package.as_deref(), args.release)?;
    sources.flags = args.settings.demo_flags();
    let stage = Stage::new()?;
    let mut watch = Watch::new(plugin.sources());
    let mut keyboard = Keyboard::new(terminal);
    let mut running = build_and_serve(&plugin, &stage, &sources, terminal, None).await?;
    loop {
        prompt(terminal);
        tokio::select! {
            () = stop_requested() => break,
            () = changed(&mut watch) => {
                terminal.message("\na source changed");
                running = build_and_serve(&plugin, &stage, &sources, terminal, running).await?;
            }
            line = keyboard.line() => try_it(&line, running.as_ref(), terminal).await,
        }
    }
    if let Some(running) = running {
        running.server.shutdown().await?;
    }
    Ok(None)
}

/// A server with the plugin in it.
struct Running {
    server: LocalServer,
    _run_file: Option<RunFileGuard>,
}

/// Builds, and on success puts the fresh library in the place of the one before. What does not build changes nothing.
async fn build_and_serve(
    plugin: &Plugin,
    stage: &Stage,
    sources: &Sources,
    terminal: &Terminal,
    running: Option<Running>,
) -> Result<Option<Running>, Failure> {
    if !plugin.build().await? {
        let left =
            if running.is_some() { "the plugin that ran goes on running" } else { "correct it, and it is built again" };
        terminal.message(&format!("it does not build; {left}"));
        return Ok(running);
    }
    stage.put(&plugin.library)?;
    let mut config = sources.load()?.config;
    // First, so that it wins over an installed plugin of the same id.
    config.plugins.folders.insert(0, stage.folder.clone());
    if let Some(running) = running {
        config.port = running.server.addr().port();
        running.server.shutdown().await?;
    }
    let patience = config.limits.plugin_create;
    let server = start(config, terminal).await?;
    server.plugins_settled(patience).await;
    // Who reads the announcement and calls at once finds the server.
    let run_file = write_run_file(sources, server.run_file());
    announce(&server, &stage.folder, terminal).await;
    Ok(Some(Running { server, _run_file: run_file }))
}

/// A port that another server has is not worth an end: whoever types finds this server by its run file.
async fn start(mut config: ServerConfig, terminal: &Terminal) -> Result<LocalServer, Failure> {
    let taken = config.addr();
    match serve::start(config.clone()).await {
        Err(_) if std::net::TcpListener::bind(taken).is_err() => {
            terminal.message(&format!("{taken} is taken; another port is used"));
            config.port = 0;
            serve::start(config).await
        }
        started => started,
    }
}

/// Says what became of the plugin, and how each of its tools is called.
async fn announce(server: &LocalServer, folder: &Path, terminal: &Terminal) {
    terminal.message(&format!("listening on {}", server.ws_url()));
    let snapshot = server.plugins().snapshot();
    for entry in snapshot.entries.iter().filter(|entry| entry.path.starts_with(folder)) {
        let PluginReport { id, version, state, reason, .. } = PluginReport::new(entry);
        let version = version.unwrap_or_default();
        match reason {
            Some(reason) => terminal.message(&format!("plugin {id} is {state}: {}", one_line(&reason, REASON_CHARS))),
            None => terminal
                .message(&format!("plugin {id} {version} is {state}; call its tools, here or with jackfield chat:")),
        }
        for call in example_calls(entry).await {
            terminal.message(&format!("  {}", terminal.strong(&call)));
        }
    }
}

/// What calls each of the plugin's tools with the smallest arguments that fit.
async fn example_calls(entry: &PluginEntry) -> Vec<String> {
    let Some(provider) = &entry.provider else { return Vec::new() };
    let tools = provider.list_tools(&ToolProviderContext::default()).await.unwrap_or_default();
    let schemas = tools.iter().map(|tool| tool.schema());
    schemas.map(|schema| format!("/tool {} {}", schema.name, smallest_arguments(&schema.parameters))).collect()
}

fn prompt(terminal: &Terminal) {
    if terminal.can_ask() {
        terminal.question("> ");
    }
}

/// One turn with what was typed; whatever comes of it, the loop goes on.
async fn try_it(line: &str, running: Option<&Running>, terminal: &Terminal) {
    let Some(running) = running else {
        terminal.message("there is nothing to talk to before the plugin builds");
        return;
    };
    if let Err(failure) = chat::say(&running.server.ws_url(), line, terminal).await {
        terminal.message(&format!("{} {}", terminal.strong("error:"), failure.message));
    }
}

async fn changed(watch: &mut Watch) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if watch.has_changed() {
            return;
        }
    }
}

/// The folder that the server loads the plugin from; removed at the end.
struct Stage {
    folder: PathBuf,
}

impl Stage {
    fn new() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("jackfield-dev-{}", SystemClock.new_id()));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", folder.display())))?;
        // The server reports files by their real paths.
        Ok(Self { folder: folder.canonicalize()? })
    }

    /// Copies beside and then moves, so that nobody ever sees half a library.
    fn put(&self, library: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(Exit::Failure, format!("{}: {error}", library.display()));
        let name = library.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let fresh = self.folder.join(".fresh");
        std::fs::copy(library, &fresh).map_err(failed)?;
        #[cfg(unix)]
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
        std::fs::rename(&fresh, self.folder.join(name)).map_err(failed)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "the folder of the plugin was not removed");
        }
    }
}
