//! The local flavor: one process, everything in memory, loopback unless told otherwise, and a handle that an embedding
//! program holds.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jackfield_plugin_api::{GatewayKey, ToolProvider};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{StartError, StopRequest, StopRequests, build_state, serve, shutdown::Stop};
use crate::{
    auth::{AuthVerifier, WidgetAuth, checks_tokens},
    config::{AuthMode, PluginsConfig, ServerConfig, StorageBackend},
    connectors::{Connectors, NewSource, RunReport, Source},
    http::bind_allowed,
    knowledge::{Document, KnowledgeBase},
    otp::OtpService,
    plugins::{PluginReport, Plugins},
    run_file::{RunFile, RunFileGuard},
    turn::{AgentConfigResolver, PromptComposer, SkillResolver, ToolHook},
    worker,
};

/// Where the local flavor listens unless told otherwise.
pub const DEFAULT_LOCAL_ADDR: &str = "127.0.0.1:8787";

/// The configuration from the environment, with what the local flavor forces: memory for storage.
///
/// # Errors
///
/// A [`StartError::Config`] that names the variable, what was expected and what came.
pub fn local_config() -> Result<ServerConfig, StartError> {
    let config = ServerConfig::from_env()?;
    Ok(ServerConfig { storage: StorageBackend::Memory, ..config })
}

/// Starts the local flavor on `addr` (`host:port`), prints the start-up line and serves until the process is killed or
/// told to stop (Ctrl-C, `SIGTERM`). Told a second time, it ends at once.
///
/// # Errors
///
/// A bad address, a taken port, a refused bind address, a missing plugin folder, what ended the serving task, or
/// [`StartError::StoppedAtOnce`].
pub async fn serve_local(addr: &str) -> Result<(), StartError> {
    let addr: SocketAddr = addr.parse().map_err(|_| StartError::BadAddress { given: addr.to_owned() })?;
    let mut requests = StopRequests::listen().map_err(StartError::Signals)?;
    let server = LocalServer::builder().addr(addr).config(local_config()?).spawn().await?;
    announce(&server);
    server.shutdown_when_asked(&mut requests, |_| ()).await
}

/// Prints the start-up line, which scripts read the port from.
fn announce(server: &LocalServer) {
    use std::io::Write;
    // Nobody may read standard output; the server serves all the same.
    let _ = writeln!(std::io::stdout(), "jackfield is listening on {}", server.ws_url());
}

/// Puts a [`LocalServer`] together. Every setter has a default, and a later call replaces an earlier one.
#[must_use = "nothing listens before `spawn`"]
pub struct LocalServerBuilder {
    addr: SocketAddr,
    seed_kb: bool,
    config: Option<ServerConfig>,
    auth: Option<Arc<dyn AuthVerifier>>,
    tools: Option<Arc<dyn ToolProvider>>,
    hooks: Vec<Arc<dyn ToolHook>>,
    skills: Option<Arc<dyn SkillResolver>>,
    plugins: Option<PluginsConfig>,
    persona: Option<String>,
    strict_auth: Option<bool>,
    allowed_origins: Vec<String>,
    allowed_hosts: Vec<String>,
    widget: Option<Option<GatewayKey>>,
    widget_auth: Option<Arc<dyn WidgetAuth>>,
    state_dir: Option<PathBuf>,
    sources: Vec<NewSource>,
    documents: Vec<Document>,
    worker_program: Option<PathBuf>,
    prompt_composer: Option<Arc<dyn PromptComposer>>,
    agents: Option<Arc<dyn AgentConfigResolver>>,
    otp_service: Option<Arc<dyn OtpService>>,
}

impl Default for LocalServerBuilder {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 8787)),
            seed_kb: false,
            config: None,
            auth: None,
            tools: None,
            hooks: Vec::new(),
            skills: None,
            plugins: None,
            persona: None,
            strict_auth: None,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            widget: None,
            widget_auth: None,
            state_dir: None,
            sources: Vec::new(),
            documents: Vec::new(),
            worker_program: None,
            prompt_composer: None,
            agents: None,
            otp_service: None,
        }
    }
}

impl LocalServerBuilder {
    /// Where to listen. Default [`DEFAULT_LOCAL_ADDR`]; port 0 lets the system choose. Wins over the configuration.
    pub fn addr(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Whether the demo documents, persona and tool are there. Default off. Wins over the configuration.
    pub fn seed_kb(mut self, seed: bool) -> Self {
        self.seed_kb = seed;
        self
    }

    /// Gateway, model and limits. Default: [`local_config`]. Its storage, address and `seed_kb` are overridden.
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Who checks tokens. Default: as the configuration says, which is nobody unless it says otherwise.
    pub fn auth(mut self, verifier: Arc<dyn AuthVerifier>) -> Self {
        self.auth = Some(verifier);
        self
    }

    /// Tools of the embedding program, asked for once per turn. One that has the name of a built-in replaces it.
    pub fn tools(mut self, provider: Arc<dyn ToolProvider>) -> Self {
        self.tools = Some(provider);
        self
    }

    /// Called around every tool call, in this order. Default: none.
    pub fn tool_hooks(mut self, hooks: Vec<Arc<dyn ToolHook>>) -> Self {
        self.hooks = hooks;
        self
    }

    /// Finds the skills that messages name. Default: the configured folders.
    pub fn skill_resolver(mut self, skills: Arc<dyn SkillResolver>) -> Self {
        self.skills = Some(skills);
        self
    }

    /// Plugin folders and settings, or just the path of one folder. Wins over the configuration.
    pub fn plugins(mut self, plugins: impl Into<PluginsConfig>) -> Self {
        self.plugins = Some(plugins.into());
        self
    }

    /// Replaces the built-in system prompt.
    pub fn persona(mut self, persona: impl Into<String>) -> Self {
        self.persona = Some(persona.into());
        self
    }

    /// Refuse a connection without a good token. Default off.
    pub fn strict_auth(mut self, strict: bool) -> Self {
        self.strict_auth = Some(strict);
        self
    }

    /// Pages that may connect, as origins (`http://localhost:5173`), beside those of the configuration.
    pub fn allowed_origins<S: Into<String>>(mut self, origins: impl IntoIterator<Item = S>) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// `Host` names that are accepted, beside those of the configuration, loopback and the bound address.
    pub fn allowed_hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.allowed_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Serves a page with the chat widget at `/`. Everybody who opens it gets the token. Default: as the configuration
    /// says, which is not to.
    pub fn serve_widget(mut self, token: Option<String>) -> Self {
        self.widget = Some(token.map(GatewayKey::new));
        self
    }

    /// Knows which pages may embed which agent. Default: as the configuration says, which is all of them.
    pub fn widget_auth(mut self, widgets: Arc<dyn WidgetAuth>) -> Self {
        self.widget_auth = Some(widgets);
        self
    }

    /// Rearranges the sections of the system prompt of every turn. Default: the standard order.
    pub fn prompt_composer(mut self, composer: Arc<dyn PromptComposer>) -> Self {
        self.prompt_composer = Some(composer);
        self
    }

    /// Says what single agents are: instructions, tools, model and the like. Asked before the configuration's own agents.
    /// Default: only those.
    pub fn agents(mut self, agents: Arc<dyn AgentConfigResolver>) -> Self {
        self.agents = Some(agents);
        self
    }

    /// Delivers the one-time codes with which visitors are verified. Default: none, so that no visitor ever is and tools
    /// that need it are refused.
    pub fn otp_service(mut self, service: Arc<dyn OtpService>) -> Self {
        self.otp_service = Some(service);
        self
    }

    /// Documents that turns can search from the start; a later call adds more. One without an organisation gets the
    /// server's own. What cannot be indexed is in the log with its reason; [`LocalServer::knowledge`] takes documents,
    /// too, and returns the reason of each.
    pub fn documents(mut self, documents: impl IntoIterator<Item = Document>) -> Self {
        self.documents.extend(documents);
        self
    }

    /// A file or folder whose text, Markdown and HTML turns can search, or a [`NewSource`] that says more about it; a
    /// later call adds another one. It is read in the background once the server listens;
    /// [`LocalServer::sources_settled`] waits for that. Relative paths start at the current folder.
    pub fn knowledge_source(mut self, source: impl Into<NewSource>) -> Self {
        self.sources.push(source.into());
        self
    }

    /// Writes the run file (address, per-run admin token, readable by this user only) into this folder while the server
    /// runs, so that the command line finds it, and keeps there what outlives the process: which plugins were trusted,
    /// and the sources of documents that are added while it runs. Default: nothing is written.
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(folder.into());
        self
    }

    /// The program that is started for plugins with `isolation = "process"`: `jackfield` of this version, or a program
    /// that calls [`run_if_requested`](crate::worker::run_if_requested). Default: this program, if it does that;
    /// otherwise such plugins are refused with the reason.
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_program = Some(program.into());
        self
    }

    /// Binds, then serves in the background. Plugins load meanwhile; the server answers first.
    ///
    /// # Errors
    ///
    /// A taken port, a bind address beyond loopback that nothing protects, a missing plugin folder, an unusable
    /// gateway address.
    pub async fn spawn(self) -> Result<LocalServer, StartError> {
        let auth = self.auth.clone();
        let tools = self.tools.clone();
        let (hooks, skills) = (self.hooks.clone(), self.skills.clone());
        let (composer, state_dir) = (self.prompt_composer.clone(), self.state_dir.clone());
        let (agents, otp_service) = (self.agents.clone(), self.otp_service.clone());
        let (widget, widget_auth) = (self.widget.clone(), self.widget_auth.clone());
        let (sources, mut documents) = (self.sources.clone(), self.documents.clone());
        let addr = self.addr;
        // Its own server would start workers, and those theirs.
        if worker::is_requested() {
            return Err(StartError::IsWorker);
        }
        let mut config = self.into_config()?;
        for document in documents.iter_mut().filter(|document| document.org_id.is_empty()) {
            document.org_id.clone_from(&config.org_id);
        }
        if let Some(folder) = &state_dir {
            config.plugins.trust.state_folder.get_or_insert_with(|| folder.clone());
        }
        let is_guarded = match &auth {
            Some(verifier) => checks_tokens(verifier.mode()),
            None => matches!(config.auth, AuthMode::LocalToken(_) | AuthMode::Jwt(_)),
        };
        bind_allowed(addr, is_guarded, config.allow_unauthenticated)?;
        let listener = TcpListener::bind(addr).await.map_err(|source| StartError::Bind { addr, source })?;
        let addr = listener.local_addr().map_err(|source| StartError::Bind { addr, source })?;
        // The guard compares `Host` with the address that is really bound.
        config.port = addr.port();

        let mut state = build_state(config).await?;
        if let Some(auth) = auth {
            state = state.with_auth(auth);
        }
        if let Some(tools) = tools {
            state = state.with_tools(tools);
        }
        if let Some(token) = widget {
            state = state.with_widget(token.map(|token| token.reveal().to_owned()));
        }
        if let Some(widgets) = widget_auth {
            state = state.with_widget_auth(widgets);
        }
        if let Some(skills) = skills {
            state = state.with_skill_resolver(skills);
        }
        if let Some(composer) = composer {
            state = state.with_prompt_composer(composer);
        }
        if let Some(agents) = agents {
            state = state.with_agents(agents);
        }
        if let Some(service) = otp_service {
            state = state.with_otp_service(service);
        }
        state = state.with_tool_hooks(hooks).with_sources(sources);
        for (id, indexed) in state.knowledge.ingest(documents).await {
            if let Err(error) = indexed {
                tracing::warn!(document = id, %error, "a document of the program is not indexed");
            }
        }
        let run_file = RunFile::of_this_process(addr, state.admin_token.clone());
        let written = match state_dir {
            None => None,
            Some(folder) => {
                let written = run_file.clone().write(&folder);
                Some(written.map_err(|source| StartError::StateDir { folder, source })?)
            }
        };
        let stop = Stop::default();
        let (plugins, connectors) = (state.plugins.clone(), state.connectors.clone());
        let knowledge = state.knowledge.clone();
        let task = tokio::spawn(serve(listener, state, stop.clone()));
        Ok(LocalServer { addr, plugins, knowledge, connectors, run_file, stop, task: Some(task), _written: written })
    }

    fn into_config(self) -> Result<ServerConfig, StartError> {
        let mut config = match self.config {
            Some(config) => config,
            None => local_config()?,
        };
        config.storage = StorageBackend::Memory;
        config.bind = self.addr.ip();
        config.port = self.addr.port();
        config.seed_kb = self.seed_kb;
        if let Some(plugins) = self.plugins {
            config.plugins = plugins;
        }
        if self.state_dir.is_some() {
            config.state_folder = self.state_dir;
        }
        let program = self.worker_program.or(config.plugins.worker_program).or_else(worker::own_program);
        config.plugins.worker_program = program;
        if self.persona.is_some() {
            config.persona = self.persona;
        }
        if let Some(strict) = self.strict_auth {
            config.strict_auth = strict;
        }
        config.allowed_origins.extend(self.allowed_origins);
        config.allowed_hosts.extend(self.allowed_hosts);
        Ok(config)
    }
}

impl fmt::Debug for LocalServerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LocalServerBuilder")
            .field("addr", &self.addr)
            .field("seed_kb", &self.seed_kb)
            .field("auth", &self.auth.as_ref().map_or("none", |verifier| verifier.mode()))
            .field("tools", &self.tools.is_some())
            .field("widget", &self.widget.is_some())
            .field("agents", &self.agents.is_some())
            .field("otp_service", &self.otp_service.is_some())
            .field("sources", &self.sources.len())
            .field("documents", &self.documents.len())
            .field("plugins", &self.plugins.as_ref().map(|plugins| &plugins.folders))
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it tells the server to stop without waiting; [`shutdown`](LocalServer::shutdown) waits.
#[must_use = "dropping the handle stops the server"]
pub struct LocalServer {
    addr: SocketAddr,
    plugins: Arc<Plugins>,
    knowledge: Arc<KnowledgeBase>,
    connectors: Connectors,
    run_file: RunFile,
    stop: Stop,
    task: Option<JoinHandle<()>>,
    /// Removes the run file when the handle goes.
    _written: Option<RunFileGuard>,
}

impl LocalServer {
    /// Starts to put a server together.
    pub fn builder() -> LocalServerBuilder {
        LocalServerBuilder::default()
    }

    /// Where the server listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a client connects to.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    /// What the run file of this server says, the per-run admin token included. Whether it is written is up to
    /// [`state_dir`](LocalServerBuilder::state_dir) and to whoever holds this.
    pub fn run_file(&self) -> &RunFile {
        &self.run_file
    }

    /// Waits until every plugin that was found at the start either offers its tools or has a reason not to, and
    /// returns the state of each. Turns need not wait: a late plugin joins the next one.
    pub async fn plugins_settled(&self, timeout: Duration) -> Vec<PluginReport> {
        self.plugins.wait_settled(timeout).await;
        self.plugins.reports()
    }

    /// The documents that turns can search. More can be added while the server runs.
    pub fn knowledge(&self) -> &KnowledgeBase {
        &self.knowledge
    }

    /// Waits until the sources of the start were read, or the time is over, and returns each with what its last run did.
    /// Turns need not wait: a document can be found as soon as it is read.
    pub async fn sources_settled(&self, timeout: Duration) -> Vec<(Source, Option<RunReport>)> {
        self.connectors.settled(timeout).await;
        self.connectors.all_sources()
    }

    /// The plugins: what each is, and what state it is in.
    pub fn plugins(&self) -> &Arc<Plugins> {
        &self.plugins
    }

    /// Stops gracefully: idle connections are closed at once, running turns may use
    /// [`Limits::shutdown`](crate::config::Limits::shutdown), then they are cancelled.
    ///
    /// # Errors
    ///
    /// What ended the serving task, if that was not this call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the server at once: running turns are cancelled and connections closed, and nobody
    /// waits for that.
    pub async fn shutdown(mut self) -> Result<(), StartError> {
        self.stop.gently.cancel();
        let in_a_hurry = self.stop.now.clone().drop_guard();
        let ended = match self.task.take() {
            Some(task) => task.await.map_err(|error| StartError::Serve(error.to_string())),
            None => Ok(()),
        };
        in_a_hurry.disarm();
        ended
    }

    /// Serves until the process is asked to stop, then stops gracefully; asked once more, at once. `told` hears the
    /// first request.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown), and [`StartError::StoppedAtOnce`] with the second request.
    pub async fn shutdown_when_asked(
        self,
        requests: &mut StopRequests,
        told: impl FnOnce(StopRequest),
    ) -> Result<(), StartError> {
        told(requests.next().await);
        tokio::select! {
            ended = self.shutdown() => ended,
            again = requests.next() => Err(StartError::StoppedAtOnce(again)),
        }
    }
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LocalServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.stop.gently.cancel();
    }
}
