//! Every setting and every limit, in one typed value. It is read once, from the command line, the environment, files
//! and defaults (`sources`); nothing below `main` reads the environment again.

mod agent_keys;
mod agents;
mod auth;
mod error;
mod keys;
mod limits;
mod permissions;
mod sources;
mod template;
mod trust;
mod values;
mod web;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use jackfield_plugin_api::GatewayKey;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub use agents::{AGENT_ITERATIONS, AgentConfig, AgentVisibility, ToolAuthLevel};
pub(crate) use error::nearest;
pub use error::{ConfigError, Origin};
pub use limits::Limits;
pub use permissions::{ExecPermission, PluginPermissions};
pub use sources::{FileKind, FlagValue, Loaded, Row, SourceFile, Sources, state_folder, user_file};
pub use template::{file_schema, template};
pub use trust::TrustConfig;
pub use web::{Authority, WebOrigin, default_port};

use crate::ids::PluginId;

/// The model name that selects the built-in offline model.
pub const OFFLINE_MODEL: &str = "offline";

/// The processor of this program, as Rust calls it.
pub const MACHINE: &str = std::env::consts::ARCH;

/// The organisation that everything belongs to unless somebody says otherwise.
pub const REFERENCE_ORG: &str = "reference-org";

/// Where conversations are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageBackend {
    /// In this process; gone when it ends.
    #[default]
    Memory,
    /// Named for compatibility; this server refuses it, and the local flavor replaces it by memory.
    Postgres,
    /// As `Postgres`.
    DynamoDb,
}

impl StorageBackend {
    pub(crate) const ALL: [StorageBackend; 3] =
        [StorageBackend::Memory, StorageBackend::Postgres, StorageBackend::DynamoDb];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            StorageBackend::Memory => "memory",
            StorageBackend::Postgres => "postgres",
            StorageBackend::DynamoDb => "dynamodb",
        }
    }
}

/// How tokens are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthMode {
    /// Any token is the development admin, and none is needed. The default of the local flavor.
    #[default]
    None,
    /// One shared secret.
    LocalToken(GatewayKey),
    /// Signed JSON Web Tokens.
    Jwt(JwtSettings),
    /// Unsigned claims of a proxy in front, which nobody else may reach the server without.
    Trusted,
    /// No token is taken: everybody is anonymous, and nobody may use the admin API.
    Disabled,
}

/// How JSON Web Tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// What has signed them.
    pub key: JwtKey,
    /// Who has to have issued them.
    pub issuer: Option<String>,
    /// Whom they have to be for.
    pub audience: Option<String>,
    /// The mode is called `smoo`, which demands an issuer.
    pub smoo: bool,
}

/// What signs JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKey {
    /// A shared secret; the algorithm is HS256.
    Hs256(GatewayKey),
    /// The private half of this RSA key, in PEM form; the algorithm is RS256.
    Rs256(String),
    /// A key of the set at this address; the algorithm is what the set says, never one with a shared secret.
    Jwks(String),
}

/// Which pages may embed the agent, and whether this server has such a page itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidgetSettings {
    /// Agents without a policy are open to nobody.
    pub strict: bool,
    /// The service that knows the policies: `GET {policy_url}/{agentId}`. Without one there are none.
    pub policy_url: Option<String>,
    /// Shown to the service.
    pub policy_bearer: Option<GatewayKey>,
    /// How long a policy is used before it is asked for again. Default 60 s.
    pub policy_ttl: std::time::Duration,
    /// Whether `/` is a page with the widget on it.
    pub serve: bool,
    /// Given to everybody who opens that page.
    pub token: Option<GatewayKey>,
}

impl Default for WidgetSettings {
    fn default() -> Self {
        Self {
            strict: false,
            policy_url: None,
            policy_bearer: None,
            policy_ttl: std::time::Duration::from_secs(60),
            serve: false,
            token: None,
        }
    }
}

/// What happens to a running turn when the connection that started it goes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It runs to its end and its answer waits in the history.
    #[default]
    Finish,
    /// It is dropped; only the user's message stays.
    Cancel,
}

/// What happens when two plugins offer a tool of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameConflict {
    /// The later one is not offered, and that is reported.
    #[default]
    Error,
    /// Both get their plugin's id in front.
    Prefix,
    /// The first one (by plugin id) wins silently.
    First,
}

/// How changes in the plugin folders are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchMode {
    /// By the system's notices, and by a look every now and then because notices get lost.
    #[default]
    Events,
    /// By regular looks alone: for network folders and containers whose notices do not arrive.
    Poll,
    /// Not at all; a reload has to be asked for.
    Off,
}

/// Which tools of a plugin ask a human first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskPolicy {
    /// By declared effect: `read_only` and `confined` run, the others ask.
    #[default]
    ByEffect,
    /// Every call asks.
    Always,
    /// No call asks.
    Never,
}

/// Secrets by the reference that stands for them, or why there is none.
pub type SecretReferences = BTreeMap<String, Result<GatewayKey, String>>;

/// Where a plugin's code runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In this process, with all of its rights: the quickest.
    #[default]
    InProcess,
    /// In a process of its own, with the permissions that it asks for and was granted. Its crash is a failed call.
    Process,
}

/// The operator's settings for one plugin, `[plugins.ID]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginSettings {
    /// The server is not ready before this plugin is.
    pub required: bool,
    /// Never load it.
    pub disabled: bool,
    /// Where its code runs; absent for what its author asks for or [`PluginsConfig::default_isolation`] says.
    pub isolation: Option<Isolation>,
    /// What it may touch when it runs isolated, as far as it asks for it.
    pub permissions: PluginPermissions,
    /// Which of its tools ask.
    pub ask: AskPolicy,
    /// Built-in tools that it may replace by tools of the same name.
    pub replaces: Vec<String>,
    /// The plugin's own configuration, `[plugins.ID.config]`, handed to it as JSON.
    pub config: Value,
    /// What the references `env:NAME` and `file:PATH` in that configuration stand for. Used where the plugin's schema
    /// calls a field secret.
    pub references: SecretReferences,
    /// Secrets that the plugin may ask for by name, `[plugins.ID.secrets]`.
    pub secrets: BTreeMap<String, GatewayKey>,
}

/// Which plugins are loaded, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginsConfig {
    /// Folders that are scanned, in this order.
    pub folders: Vec<PathBuf>,
    /// Where private copies of libraries are kept; must be on a file system that allows execution. Default: a folder
    /// of this process under the system's temporary folder.
    pub private_folder: Option<PathBuf>,
    /// Where plugins run for which nothing else is said. Default: in this process.
    pub default_isolation: Isolation,
    /// The program that is started for plugins in processes of their own: `jackfield`, or one that calls
    /// [`run_if_requested`](crate::worker::run_if_requested). Default: this program, if it does that.
    pub worker_program: Option<PathBuf>,
    /// Same-name policy.
    pub name_conflict: NameConflict,
    /// Which files are trusted.
    pub trust: TrustConfig,
    /// How changes in the folders are noticed while the server runs.
    pub watch: WatchMode,
    /// Plugins that somebody has disabled outside of the configuration, and who. Not a setting: whoever remembers it
    /// between runs puts it here.
    pub disabled: BTreeMap<PluginId, String>,
    /// Settings by plugin id.
    pub by_id: BTreeMap<PluginId, PluginSettings>,
}

impl PluginsConfig {
    /// The settings of one plugin; the defaults when none are written.
    pub fn settings(&self, id: &PluginId) -> PluginSettings {
        self.by_id.get(id).cloned().unwrap_or_default()
    }

    /// Where a plugin's code runs: as the operator says for it, else isolated if its author asks for that, else as the
    /// operator says for all.
    pub fn isolation(&self, id: &PluginId, isolated_only: bool) -> Isolation {
        let said = self.by_id.get(id).and_then(|settings| settings.isolation);
        said.or(isolated_only.then_some(Isolation::Process)).unwrap_or(self.default_isolation)
    }

    /// Whether changes in the folders are noticed without being told.
    pub fn is_watched(&self) -> bool {
        !self.folders.is_empty() && self.watch != WatchMode::Off
    }

    /// Where the folder of private copies is made.
    pub fn private_base(&self) -> PathBuf {
        self.private_folder.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl From<PathBuf> for PluginsConfig {
    fn from(folder: PathBuf) -> Self {
        Self { folders: vec![folder], ..Self::default() }
    }
}

impl From<&std::path::Path> for PluginsConfig {
    fn from(folder: &std::path::Path) -> Self {
        folder.to_path_buf().into()
    }
}

/// Where knowledge comes from and how it is searched.
#[derive(Clone, Debug, PartialEq)]
pub struct KnowledgeConfig {
    /// Files and folders that are read at the start, for the configured organisation.
    pub sources: Vec<PathBuf>,
    /// Folders that the admin API's connectors may read. Default: none.
    pub roots: Vec<PathBuf>,
    /// A model of the gateway that makes vectors; without one documents are found by their words alone.
    pub embedding_model: Option<String>,
    /// The cosine from which a passage that shares no word with a question counts as fitting. Models differ; `jackfield
    /// knowledge query --explain` shows what they say. Default 0.4.
    pub min_similarity: f64,
}

impl Default for KnowledgeConfig {
    fn default() -> Self {
        Self { sources: Vec::new(), roots: Vec::new(), embedding_model: None, min_similarity: 0.4 }
    }
}

/// All settings of a server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Address to listen on. Default `127.0.0.1`.
    pub bind: IpAddr,
    /// Port to listen on; 0 lets the system choose. Default 8787.
    pub port: u16,
    /// Base URL of the gateway, without `/chat/completions`. Default `https://llm.smoo.ai/v1`.
    pub gateway_url: String,
    /// The gateway's key; without one `send_message` answers `LLM_UNAVAILABLE`.
    pub gateway_key: Option<GatewayKey>,
    /// Default model; [`OFFLINE_MODEL`] selects the built-in one. Default `gpt-6-luna`.
    pub model: String,
    /// Model that writes one short line while the turn's model thinks; absent switches such lines off.
    pub preamble_model: Option<String>,
    /// Model that titles conversations after their first answer; absent takes the title from the first message.
    pub title_model: Option<String>,
    /// Sampling temperature; absent lets the gateway decide.
    pub temperature: Option<f64>,
    /// Ceiling of one reply, in tokens. Default 8192.
    pub max_tokens: u32,
    /// Model calls per turn. Default 20.
    pub max_iterations: u32,
    /// Seeds the demo documents, persona and tool.
    pub seed_kb: bool,
    /// What else is known.
    pub knowledge: KnowledgeConfig,
    /// Where conversations are kept.
    pub storage: StorageBackend,
    /// How tokens are checked.
    pub auth: AuthMode,
    /// Refuse the upgrade without a good token.
    pub strict_auth: bool,
    /// Pages with the widget.
    pub widget: WidgetSettings,
    /// The organisation of everything that no verified caller brings its own for: anonymous conversations, what the
    /// built-in verifiers let in, and the demo documents. Default [`REFERENCE_ORG`].
    pub org_id: String,
    /// Parts of tool names that need a human's yes.
    pub confirm_tools: Vec<String>,
    /// Names of tools for which an agent may say how well they have to know the user; for any other tool such a rule
    /// does not hold.
    pub auth_tools: Vec<String>,
    /// The agents, by id or by a name that clients know; one that is not here gets the defaults.
    pub agents: BTreeMap<String, AgentConfig>,
    /// Extra `Host` names that are accepted.
    pub allowed_hosts: Vec<String>,
    /// Pages that may connect, as origins (`http://localhost:5173`).
    pub allowed_origins: Vec<String>,
    /// Listen beyond loopback although nothing checks tokens.
    pub allow_unauthenticated: bool,
    /// What the agent is called on the wire. Default `smooth-agent`.
    pub agent_name: String,
    /// Replaces the built-in system prompt.
    pub persona: Option<String>,
    /// Where named skills are looked for, `FOLDER/NAME/SKILL.md`; the first folder that has one wins.
    pub skill_folders: Vec<PathBuf>,
    /// What a disconnect does to a running turn.
    pub on_disconnect: OnDisconnect,
    /// The plugins.
    pub plugins: PluginsConfig,
    /// Where what outlives the process is kept, such as the sources of documents that are added while it runs. No file
    /// can set it: the command line uses the user's own state folder, an embedding program says `.state_dir(path)`.
    /// Default: nothing is kept.
    pub state_folder: Option<PathBuf>,
    /// Every limit.
    pub limits: Limits,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8787,
            gateway_url: "https://llm.smoo.ai/v1".to_owned(),
            gateway_key: None,
            model: "gpt-6-luna".to_owned(),
            preamble_model: None,
            title_model: None,
            temperature: None,
            max_tokens: 8192,
            max_iterations: 20,
            seed_kb: false,
            knowledge: KnowledgeConfig::default(),
            storage: StorageBackend::Memory,
            auth: AuthMode::None,
            strict_auth: false,
            widget: WidgetSettings::default(),
            org_id: REFERENCE_ORG.to_owned(),
            confirm_tools: Vec::new(),
            auth_tools: Vec::new(),
            agents: BTreeMap::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            allow_unauthenticated: false,
            agent_name: "smooth-agent".to_owned(),
            persona: None,
            skill_folders: Vec::new(),
            on_disconnect: OnDisconnect::Finish,
            plugins: PluginsConfig::default(),
            state_folder: None,
            limits: Limits::default(),
        }
    }
}

impl ServerConfig {
    /// Where to listen.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }

    /// What is written about this agent.
    pub fn agent(&self, agent_id: &str) -> Option<&AgentConfig> {
        agents::find(&self.agents, agent_id)
    }

    /// The settings of the environment alone, over the defaults; what has no effect here is logged as one warning.
    ///
    /// # Errors
    ///
    /// A variable that does not fit its setting, named with what was expected and what came.
    pub fn from_env() -> Result<Self, ConfigError> {
        let loaded = Sources { env: sources::process_env(), ..Sources::default() }.load()?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(loaded.config)
    }

    /// Refuses a storage that this server does not have. The local flavor replaces it by memory instead.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Contradiction`] for anything but memory.
    pub fn require_memory(&self) -> Result<(), ConfigError> {
        if self.storage == StorageBackend::Memory {
            return Ok(());
        }
        Err(ConfigError::Contradiction(format!(
            "storage.backend (SMOOTH_AGENT_STORAGE) is {}, but this server keeps conversations in memory only; \
             set it to memory or remove it",
            self.storage.as_str()
        )))
    }

    /// Whether the built-in offline model answers.
    pub fn is_offline(&self) -> bool {
        self.model == OFFLINE_MODEL
    }
}
