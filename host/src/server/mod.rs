//! How the parts are put together. Nothing else knows all of them.

mod accept;
mod local;
mod shutdown;
mod signals;

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use jackfield_plugin_api::{GatewayKey, ToolProvider};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use accept::Requests;
pub use local::{DEFAULT_LOCAL_ADDR, LocalServer, LocalServerBuilder, local_config, serve_local};
use shutdown::Stop;
pub use signals::{StopRequest, StopRequests, stop_requested};

use crate::{
    actions::Services,
    auth::{self, AuthSettingsError, AuthVerifier, WidgetAuth},
    clock::{SharedClock, SystemClock},
    config::{ConfigError, ServerConfig},
    connectors::{Connectors, NewSource},
    http::{self, BindRefusal, GuardPolicy, GuardPolicyError},
    knowledge::{KnowledgeBase, demo_documents},
    metrics::Metrics,
    model::{GatewayClient, GatewaySettingsError, ModelClient, OfflineModel},
    otp::{OtpDesk, OtpService},
    plugins::{Plugins, PluginsError},
    run_file::RunFile,
    socket::{Live, WidgetPage},
    storage::{InMemoryStorageAdapter, SharedStorage},
    turn::{
        AgentConfigResolver, Agents, KnowledgeChatRuntime, PromptComposer, SkillFolders, SkillResolver, ToolHook,
        TurnTools,
    },
};

/// Why a server could not start, or why it ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is not `host:port`.
    #[error("`{given}` is not an address to listen on; expected IP:PORT, for example {DEFAULT_LOCAL_ADDR}")]
    BadAddress {
        /// What was given.
        given: String,
    },
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {addr}: {source}; choose another port, or 0 to let the system choose")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Listening beyond loopback without anybody who checks tokens.
    #[error(transparent)]
    Unprotected(#[from] BindRefusal),
    /// A list of hosts or origins holds something that is none.
    #[error("{0}")]
    Guard(String),
    /// A plugin folder cannot be read.
    #[error(transparent)]
    Plugins(#[from] PluginsError),
    /// Tokens could never be checked as configured.
    #[error(transparent)]
    Auth(#[from] AuthSettingsError),
    /// The model gateway cannot be used as configured.
    #[error(transparent)]
    Gateway(#[from] GatewaySettingsError),
    /// The run file cannot be written.
    #[error("the state folder {folder:?} cannot be used: {source}; name another one")]
    StateDir {
        /// The folder.
        folder: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A host started this program to be the worker of a plugin, and it starts a server instead.
    #[error(
        "this process was started as the worker of a plugin; call jackfield::worker::run_if_requested() first thing in `main`"
    )]
    IsWorker,
    /// Serving failed.
    #[error("serving failed: {0}")]
    Serve(String),
    /// Somebody asked twice to stop.
    #[error("stopped at once; turns that ran are lost")]
    StoppedAtOnce(StopRequest),
    /// The system does not say when to stop.
    #[error("wishes to stop cannot be noticed: {0}")]
    Signals(std::io::Error),
}

/// Everything a server is made of, before it serves. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    config: Arc<ServerConfig>,
    clock: SharedClock,
    storage: SharedStorage,
    knowledge: Arc<KnowledgeBase>,
    connectors: Connectors,
    sources: Vec<NewSource>,
    model: Option<Arc<dyn ModelClient>>,
    plugins: Arc<Plugins>,
    auth: Arc<dyn AuthVerifier>,
    widgets: Arc<dyn WidgetAuth>,
    tools: Option<Arc<dyn ToolProvider>>,
    hooks: Vec<Arc<dyn ToolHook>>,
    skills: Arc<dyn SkillResolver>,
    composer: Option<Arc<dyn PromptComposer>>,
    agents: Option<Arc<dyn AgentConfigResolver>>,
    otp: Option<Arc<dyn OtpService>>,
    admin_token: GatewayKey,
    widget: Option<WidgetPage>,
    metrics: Metrics,
}

/// Builds the parts that the configuration asks for and starts to load the plugins, which goes on in the background.
///
/// # Errors
///
/// An unusable gateway address, a missing plugin folder, a storage this server does not have.
pub async fn build_state(config: ServerConfig) -> Result<AppState, StartError> {
    config.require_memory()?;
    guard_policy(&config, false).map_err(|error| StartError::Guard(error.to_string()))?;
    let clock: SharedClock = Arc::new(SystemClock);
    let knowledge = Arc::new(KnowledgeBase::new(&config.limits));
    if config.seed_kb {
        for (id, outcome) in knowledge.ingest(demo_documents(&config.org_id)).await {
            if let Err(error) = outcome {
                tracing::warn!(document = %id, %error, "a demo document could not be indexed");
            }
        }
    }
    let gateway = gateway_client(&config, &clock)?;
    search_by_meaning(&knowledge, &config, gateway.as_ref());
    let connectors = Connectors::new(
        knowledge.clone(),
        clock.clone(),
        &config.limits,
        config.knowledge.roots.clone(),
        config.state_folder.clone(),
    );
    let sources = config.knowledge.sources.iter().cloned().map(NewSource::from).collect();
    let plugins = Plugins::start(&config.plugins, &config.limits, clock.clone()).await?;
    let auth = auth::configured(&config, &clock)?;
    let widgets = auth::configured_widgets(&config)?;
    let skills = Arc::new(SkillFolders(config.skill_folders.clone()));
    Ok(AppState {
        storage: Arc::new(InMemoryStorageAdapter::new(&config.limits)),
        model: model_client(&config, gateway),
        metrics: Metrics::new(config.limits.metric_names),
        widget: config.widget.serve.then(|| WidgetPage { token: config.widget.token.clone() }),
        config: Arc::new(config),
        admin_token: RunFile::fresh_token(&*clock),
        clock,
        knowledge,
        connectors,
        sources,
        plugins,
        auth,
        widgets,
        tools: None,
        hooks: Vec::new(),
        skills,
        composer: None,
        agents: None,
        otp: None,
    })
}

/// The client of the gateway, when there is a key for it.
fn gateway_client(config: &ServerConfig, clock: &SharedClock) -> Result<Option<GatewayClient>, StartError> {
    match &config.gateway_key {
        Some(key) if !config.is_offline() => {
            Ok(Some(GatewayClient::new(&config.gateway_url, key, &config.limits, clock.clone())?))
        }
        _ => Ok(None),
    }
}

fn model_client(config: &ServerConfig, gateway: Option<GatewayClient>) -> Option<Arc<dyn ModelClient>> {
    if config.is_offline() {
        return Some(Arc::new(OfflineModel::default()));
    }
    gateway.map(|gateway| Arc::new(gateway) as Arc<dyn ModelClient>)
}

/// Gives the knowledge base the embedding model that the configuration names.
fn search_by_meaning(knowledge: &KnowledgeBase, config: &ServerConfig, gateway: Option<&GatewayClient>) {
    let Some(model) = &config.knowledge.embedding_model else { return };
    let Some(gateway) = gateway else {
        tracing::warn!(
            model,
            "knowledge.embedding_model needs a gateway with a key; documents are found by words only"
        );
        return;
    };
    let min_similarity = config.knowledge.min_similarity as f32;
    knowledge.set_embedder(Some(Arc::new(gateway.embedder(model))), min_similarity);
}

impl AppState {
    /// Checks tokens with this verifier.
    #[must_use]
    pub fn with_auth(mut self, auth: Arc<dyn AuthVerifier>) -> Self {
        self.auth = auth;
        self
    }

    /// Knows which pages may embed which agent.
    #[must_use]
    pub fn with_widget_auth(mut self, widgets: Arc<dyn WidgetAuth>) -> Self {
        self.widgets = widgets;
        self
    }

    /// Serves a page with the chat widget at `/`. Everybody who opens it gets the token.
    #[must_use]
    pub fn with_widget(mut self, token: Option<String>) -> Self {
        self.widget = Some(WidgetPage { token: token.map(GatewayKey::new) });
        self
    }

    /// Calls these around every tool call, in this order.
    #[must_use]
    pub fn with_tool_hooks(mut self, hooks: Vec<Arc<dyn ToolHook>>) -> Self {
        self.hooks = hooks;
        self
    }

    /// Finds skills here instead of in the configured folders.
    #[must_use]
    pub fn with_skill_resolver(mut self, skills: Arc<dyn SkillResolver>) -> Self {
        self.skills = skills;
        self
    }

    /// Rearranges the sections of the system prompt of every turn.
    #[must_use]
    pub fn with_prompt_composer(mut self, composer: Arc<dyn PromptComposer>) -> Self {
        self.composer = Some(composer);
        self
    }

    /// Asks this program for agents, before its configuration.
    #[must_use]
    pub fn with_agents(mut self, agents: Arc<dyn AgentConfigResolver>) -> Self {
        self.agents = Some(agents);
        self
    }

    /// Verifies visitors with codes that this service delivers.
    #[must_use]
    pub fn with_otp_service(mut self, service: Arc<dyn OtpService>) -> Self {
        self.otp = Some(service);
        self
    }

    /// Offers the tools of this provider in every turn.
    #[must_use]
    pub fn with_tools(mut self, tools: Arc<dyn ToolProvider>) -> Self {
        self.tools = Some(tools);
        self
    }

    /// Reads these at the start, too, as if the configuration named them.
    #[must_use]
    pub fn with_sources(mut self, sources: impl IntoIterator<Item = NewSource>) -> Self {
        self.sources.extend(sources);
        self
    }

    fn go_live(self, stop: CancellationToken) -> Arc<Live> {
        self.connectors.start(&self.config.org_id, self.sources);
        let runtime = KnowledgeChatRuntime {
            tools: TurnTools::new(self.config.clone(), self.clock.clone(), self.tools, self.plugins.clone()),
            hooks: self.hooks,
            skills: self.skills,
            composer: self.composer,
            agents: Agents::new(self.config.clone(), self.agents),
            otp: self.otp.map(|service| OtpDesk::new(service, self.clock.clone(), &self.config.limits)),
            config: self.config.clone(),
            clock: self.clock.clone(),
            storage: self.storage.clone(),
            knowledge: self.knowledge,
            model: self.model,
            attendance: Default::default(),
            metrics: self.metrics,
        };
        let services = Services::new(Arc::new(runtime), self.auth, self.widgets);
        Live::new(services, self.plugins, self.connectors, self.admin_token, self.widget, stop)
    }
}

/// The routes of a server, to be mounted in a larger one. Its connections end when the program does; a
/// [`LocalServer`] ends them in order.
pub fn router(state: AppState) -> Router {
    routes(&state.go_live(CancellationToken::new()))
}

fn routes(live: &Arc<Live>) -> Router {
    let checks_tokens = auth::checks_tokens(live.services.auth().mode());
    let policy = guard_policy(live.services.config(), checks_tokens);
    http::routes(live.clone(), policy.expect("`build_state` has read the same lists"))
}

fn guard_policy(config: &ServerConfig, checks_tokens: bool) -> Result<GuardPolicy, GuardPolicyError> {
    GuardPolicy::new(config.addr(), checks_tokens, &config.allowed_hosts, &config.allowed_origins)
}

/// Serves until it has to stop, then drains.
async fn serve(listener: TcpListener, state: AppState, stop: Stop) {
    let live = state.go_live(stop.gently.clone());
    let expiry = tokio::spawn(shutdown::expire_idle(live.clone()));
    let requests = Requests::new(&live.services.config().limits);
    let accepting = requests.accept(listener, routes(&live), stop.gently.clone());
    tokio::join!(accepting, shutdown::drain(&live, &requests, &stop));
    expiry.abort();
}
