//! The list of settings: for each its key in a file, its names in the environment, its flag, whether a project file
//! may set it, how it is read and how it is shown. Everything that names a setting comes from here.

use std::{net::IpAddr, path::PathBuf};

use serde_json::{Value, json};

use super::{
    AgentConfig, AskPolicy, AuthMode, Authority, ConfigError, Isolation, JwtKey, NameConflict, OnDisconnect,
    PluginSettings, ServerConfig, StorageBackend, WatchMode, WebOrigin,
    agent_keys::AgentKey,
    agents,
    auth::{AuthDraft, AuthModeName, jwt, jwt_key, mode_name},
    limits::{LIMIT_FIELDS, LimitField, LimitKind},
    permissions, trust,
    values::{Given, Misfit, duration_text, size_text},
};
use crate::ids::PluginId;

/// A configuration in the making; what two settings decide together is kept apart until both are known.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) config: ServerConfig,
    auth: AuthDraft,
}

impl Draft {
    /// Joins what belongs together. A mode without its secret does not become an open server.
    pub(super) fn finish(mut self) -> Result<ServerConfig, ConfigError> {
        self.config.auth = self.auth.finish().map_err(ConfigError::Contradiction)?;
        if self.config.strict_auth && matches!(self.config.auth, AuthMode::None | AuthMode::Disabled) {
            return Err(ConfigError::Contradiction(
                "auth.strict needs a token to check; say --token-file FILE or set auth.token".into(),
            ));
        }
        if let Some(wrong) = agents::contradiction(&self.config.agents, &self.config.auth_tools) {
            return Err(ConfigError::Contradiction(wrong));
        }
        Ok(self.config)
    }
}

/// Whether a project file, which may come with a cloned repository, may set a key.
#[derive(Clone, Copy)]
pub(super) enum ProjectRule {
    Never,
    Always,
    /// Only to a number that is not greater.
    Tighter,
    /// Only to paths below the project's own folder.
    Inside,
}

/// One setting.
pub(super) struct Setting {
    /// Section and key in a file.
    pub(super) name: &'static str,
    /// Names in the environment beside `JACKFIELD_SECTION__KEY`, strongest first.
    pub(super) env: &'static [&'static str],
    /// The flag with its argument, as an error suggests it.
    pub(super) flag: Option<&'static str>,
    pub(super) project: ProjectRule,
    set: fn(&mut Draft, &Given<'_>) -> Result<(), Misfit>,
    show: fn(&ServerConfig) -> Value,
}

/// Every setting beside the limits and the plugins' own.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "server.bind",
        env: &["SMOOTH_AGENT_BIND"],
        flag: Some("--bind ADDRESS"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.bind = address(given)?;
            Ok(())
        },
        show: |config| json!(config.bind),
    },
    Setting {
        name: "server.port",
        env: &["SMOOTH_AGENT_PORT"],
        flag: Some("--port PORT"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.port = given.whole(0, 65_535)? as u16;
            Ok(())
        },
        show: |config| json!(config.port),
    },
    Setting {
        name: "server.allowed_hosts",
        env: &[],
        flag: Some("--allow-host NAME"),
        project: ProjectRule::Never,
        set: |draft, given| {
            let reads = |text: &str| Authority::parse(text).is_some();
            draft.config.allowed_hosts =
                checked(given, reads, "host names such as agent.example or agent.example:8787")?;
            Ok(())
        },
        show: |config| json!(config.allowed_hosts),
    },
    Setting {
        name: "server.allowed_origins",
        env: &[],
        flag: Some("--allow-origin ORIGIN"),
        project: ProjectRule::Never,
        set: |draft, given| {
            let reads = |text: &str| WebOrigin::parse(text).is_some();
            draft.config.allowed_origins =
                checked(given, reads, "origins such as http://localhost:5173, without a path")?;
            Ok(())
        },
        show: |config| json!(config.allowed_origins),
    },
    Setting {
        name: "server.allow_unauthenticated",
        env: &[],
        flag: Some("--allow-unauthenticated"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.allow_unauthenticated = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.allow_unauthenticated),
    },
    Setting {
        name: "server.agent_name",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.agent_name = given.text()?;
            Ok(())
        },
        show: |config| json!(config.agent_name),
    },
    Setting {
        name: "auth.mode",
        env: &["SMOOTH_AGENT_AUTH_MODE", "AUTH_MODE"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.mode = Some(given.choice(&AuthModeName::ALL)?);
            Ok(())
        },
        show: |config| json!(mode_name(&config.auth)),
    },
    Setting {
        name: "auth.jwt_secret",
        env: &["AUTH_JWT_HS256_SECRET"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.jwt_secret = Some(given.secret()?);
            Ok(())
        },
        show: |config| secret_shown(matches!(jwt_key(config), Some(JwtKey::Hs256(_)))),
    },
    Setting {
        name: "auth.jwt_public_key",
        env: &["AUTH_JWT_RS256_PUBLIC_KEY"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.jwt_public_key = Some(given.public_key()?);
            Ok(())
        },
        show: |config| match jwt_key(config) {
            Some(JwtKey::Rs256(pem)) => json!(pem),
            _ => Value::Null,
        },
    },
    Setting {
        name: "auth.jwt_jwks_url",
        env: &["AUTH_JWT_JWKS_URL"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.jwt_jwks_url = Some(given.text()?);
            Ok(())
        },
        show: |config| match jwt_key(config) {
            Some(JwtKey::Jwks(url)) => json!(url),
            _ => Value::Null,
        },
    },
    Setting {
        name: "auth.jwt_issuer",
        env: &["AUTH_JWT_ISSUER"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.jwt_issuer = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(jwt(config).and_then(|jwt| jwt.issuer.as_ref())),
    },
    Setting {
        name: "auth.jwt_audience",
        env: &["AUTH_JWT_AUDIENCE"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.jwt_audience = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(jwt(config).and_then(|jwt| jwt.audience.as_ref())),
    },
    Setting {
        name: "auth.token",
        env: &[],
        flag: Some("--token-file FILE"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.auth.token = Some(given.secret()?);
            Ok(())
        },
        show: |config| secret_shown(matches!(config.auth, AuthMode::LocalToken(_))),
    },
    Setting {
        name: "auth.strict",
        env: &[],
        flag: Some("--strict-auth"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.strict_auth = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.strict_auth),
    },
    Setting {
        name: "widget.serve",
        env: &[],
        flag: Some("--widget"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.widget.serve = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.widget.serve),
    },
    Setting {
        name: "widget.token",
        env: &[],
        flag: Some("--widget-token-file FILE"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.widget.token = Some(given.secret()?);
            Ok(())
        },
        show: |config| secret_shown(config.widget.token.is_some()),
    },
    Setting {
        name: "widget.strict",
        env: &["WIDGET_AUTH_STRICT"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.widget.strict = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.widget.strict),
    },
    Setting {
        name: "widget.policy_url",
        env: &["WIDGET_AUTH_URL"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.widget.policy_url = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(config.widget.policy_url),
    },
    Setting {
        name: "widget.policy_bearer",
        env: &["WIDGET_AUTH_BEARER"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.widget.policy_bearer = Some(given.secret()?);
            Ok(())
        },
        show: |config| secret_shown(config.widget.policy_bearer.is_some()),
    },
    Setting {
        name: "widget.policy_ttl_seconds",
        env: &["WIDGET_AUTH_TTL_SECS"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.widget.policy_ttl = std::time::Duration::from_secs(given.whole(0, 86_400)?);
            Ok(())
        },
        show: |config| json!(config.widget.policy_ttl.as_secs()),
    },
    Setting {
        name: "auth.org",
        env: &["AUTH_DEV_ORG_ID"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.org_id = given.text()?;
            Ok(())
        },
        show: |config| json!(config.org_id),
    },
    Setting {
        name: "gateway.url",
        env: &["SMOOAI_GATEWAY_URL"],
        flag: Some("--gateway-url URL"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.gateway_url = gateway_url(given)?;
            Ok(())
        },
        show: |config| json!(config.gateway_url),
    },
    Setting {
        name: "gateway.key",
        env: &["SMOOAI_GATEWAY_KEY"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.gateway_key = Some(given.secret()?);
            Ok(())
        },
        show: |config| secret_shown(config.gateway_key.is_some()),
    },
    Setting {
        name: "model.name",
        env: &["SMOOTH_AGENT_MODEL"],
        flag: Some("--model NAME"),
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.model = given.text()?;
            Ok(())
        },
        show: |config| json!(config.model),
    },
    Setting {
        name: "model.preamble",
        env: &["SMOOTH_AGENT_PREAMBLE_MODEL"],
        flag: None,
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.preamble_model = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(config.preamble_model),
    },
    Setting {
        name: "model.title",
        env: &[],
        flag: None,
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.title_model = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(config.title_model),
    },
    Setting {
        name: "model.temperature",
        env: &[],
        flag: None,
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.temperature = Some(given.number(0.0, 2.0)?);
            Ok(())
        },
        show: |config| json!(config.temperature),
    },
    Setting {
        name: "model.max_tokens",
        env: &["SMOOTH_AGENT_MAX_TOKENS"],
        flag: None,
        project: ProjectRule::Tighter,
        set: |draft, given| {
            draft.config.max_tokens = given.whole_u32(1)?;
            Ok(())
        },
        show: |config| json!(config.max_tokens),
    },
    Setting {
        name: "model.max_iterations",
        env: &["SMOOTH_AGENT_MAX_ITERATIONS"],
        flag: None,
        project: ProjectRule::Tighter,
        set: |draft, given| {
            draft.config.max_iterations = given.whole_u32(1)?;
            Ok(())
        },
        show: |config| json!(config.max_iterations),
    },
    Setting {
        name: "prompt.persona",
        env: &[],
        flag: None,
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.persona = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(config.persona),
    },
    Setting {
        name: "prompt.skill_folders",
        env: &["SMOOTH_SKILLS_DIR"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.skill_folders = given.paths()?;
            Ok(())
        },
        show: |config| json!(config.skill_folders),
    },
    Setting {
        name: "knowledge.seed",
        env: &["SMOOTH_AGENT_SEED_KB"],
        flag: Some("--seed-kb"),
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.seed_kb = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.seed_kb),
    },
    Setting {
        name: "knowledge.sources",
        env: &[],
        flag: Some("--knowledge PATH"),
        project: ProjectRule::Inside,
        set: |draft, given| {
            draft.config.knowledge.sources = given.paths()?;
            Ok(())
        },
        show: |config| json!(config.knowledge.sources),
    },
    Setting {
        name: "knowledge.roots",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.knowledge.roots = given.paths()?;
            Ok(())
        },
        show: |config| json!(config.knowledge.roots),
    },
    Setting {
        name: "knowledge.embedding_model",
        env: &[],
        flag: None,
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.knowledge.embedding_model = Some(given.text()?);
            Ok(())
        },
        show: |config| json!(config.knowledge.embedding_model),
    },
    Setting {
        name: "knowledge.min_similarity",
        env: &[],
        flag: None,
        project: ProjectRule::Always,
        set: |draft, given| {
            draft.config.knowledge.min_similarity = given.number(0.0, 1.0)?;
            Ok(())
        },
        show: |config| json!(config.knowledge.min_similarity),
    },
    Setting {
        name: "storage.backend",
        env: &["SMOOTH_AGENT_STORAGE"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            let backends = StorageBackend::ALL.map(|backend| (backend.as_str(), backend));
            draft.config.storage = given.choice(&backends)?;
            Ok(())
        },
        show: |config| json!(config.storage.as_str()),
    },
    Setting {
        name: "turn.on_disconnect",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            let policies = [("finish", OnDisconnect::Finish), ("cancel", OnDisconnect::Cancel)];
            draft.config.on_disconnect = given.choice(&policies)?;
            Ok(())
        },
        show: |config| match config.on_disconnect {
            OnDisconnect::Finish => json!("finish"),
            OnDisconnect::Cancel => json!("cancel"),
        },
    },
    Setting {
        name: "tools.confirm",
        env: &["SMOOTH_AGENT_CONFIRM_TOOLS"],
        flag: Some("--confirm-tools PART,…"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.confirm_tools = given.list()?;
            Ok(())
        },
        show: |config| json!(config.confirm_tools),
    },
    Setting {
        name: "tools.auth",
        env: &["SMOOTH_AGENT_AUTH_TOOLS"],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.auth_tools = given.list()?;
            Ok(())
        },
        show: |config| json!(config.auth_tools),
    },
    Setting {
        name: "plugins.folders",
        env: &[],
        flag: Some("--plugins DIR"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.plugins.folders = given.paths()?;
            Ok(())
        },
        show: |config| json!(config.plugins.folders),
    },
    Setting {
        name: "plugins.private_folder",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.plugins.private_folder = Some(given.path()?);
            Ok(())
        },
        show: |config| json!(config.plugins.private_folder),
    },
    Setting {
        name: "plugins.default_isolation",
        env: &[],
        flag: Some("--isolate"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.plugins.default_isolation = given.choice(&ISOLATIONS)?;
            Ok(())
        },
        show: |config| json!(config.plugins.default_isolation),
    },
    Setting {
        name: "plugins.require_signed",
        env: &[],
        flag: Some("--require-signed"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.plugins.trust.require_signed = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.plugins.trust.require_signed),
    },
    Setting {
        name: "plugins.trusted_keys",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            let expected = "minisign public keys in one line each (RW…)";
            draft.config.plugins.trust.keys = checked(given, trust::is_public_key, expected)?;
            Ok(())
        },
        show: |config| json!(config.plugins.trust.keys),
    },
    Setting {
        name: "plugins.allow",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            let expected = "sha-256 hashes, 64 of 0-9 and a-f each";
            draft.config.plugins.trust.allow = checked(given, trust::is_sha256, expected)?;
            Ok(())
        },
        show: |config| json!(config.plugins.trust.allow),
    },
    Setting {
        name: "plugins.deny",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            let expected = "sha-256 hashes, 64 of 0-9 and a-f each";
            draft.config.plugins.trust.deny = checked(given, trust::is_sha256, expected)?;
            Ok(())
        },
        show: |config| json!(config.plugins.trust.deny),
    },
    Setting {
        name: "plugins.pin",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.plugins.trust.pin = given.yes_or_no()?;
            Ok(())
        },
        show: |config| json!(config.plugins.trust.pin),
    },
    Setting {
        name: "plugins.watch",
        env: &[],
        flag: Some("--no-watch"),
        project: ProjectRule::Never,
        set: |draft, given| {
            draft.config.plugins.watch = given.choice(&WATCH_MODES)?;
            Ok(())
        },
        show: |config| {
            let name = WATCH_MODES.iter().find(|(_, mode)| *mode == config.plugins.watch).map(|(name, _)| *name);
            json!(name)
        },
    },
    Setting {
        name: "plugins.name_conflict",
        env: &[],
        flag: None,
        project: ProjectRule::Never,
        set: |draft, given| {
            let policies =
                [("error", NameConflict::Error), ("prefix", NameConflict::Prefix), ("first", NameConflict::First)];
            draft.config.plugins.name_conflict = given.choice(&policies)?;
            Ok(())
        },
        show: |config| match config.plugins.name_conflict {
            NameConflict::Error => json!("error"),
            NameConflict::Prefix => json!("prefix"),
            NameConflict::First => json!("first"),
        },
    },
];

const WATCH_MODES: [(&str, WatchMode); 3] =
    [("events", WatchMode::Events), ("poll", WatchMode::Poll), ("off", WatchMode::Off)];

/// A key of `[plugins.ID]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PluginKey {
    Required,
    Disabled,
    Isolation,
    Permissions,
    Ask,
    Replaces,
    Config,
    Secrets,
}

impl PluginKey {
    pub(super) const ALL: [PluginKey; 8] = [
        PluginKey::Required,
        PluginKey::Disabled,
        PluginKey::Isolation,
        PluginKey::Permissions,
        PluginKey::Ask,
        PluginKey::Replaces,
        PluginKey::Config,
        PluginKey::Secrets,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            PluginKey::Required => "required",
            PluginKey::Disabled => "disabled",
            PluginKey::Isolation => "isolation",
            PluginKey::Permissions => "permissions",
            PluginKey::Ask => "ask",
            PluginKey::Replaces => "replaces",
            PluginKey::Config => "config",
            PluginKey::Secrets => "secrets",
        }
    }

    fn set(self, settings: &mut PluginSettings, given: &Given<'_>) -> Result<(), Misfit> {
        match self {
            PluginKey::Required => settings.required = given.yes_or_no()?,
            PluginKey::Disabled => settings.disabled = given.yes_or_no()?,
            PluginKey::Isolation => settings.isolation = Some(given.choice(&ISOLATIONS)?),
            PluginKey::Permissions => settings.permissions = permissions::read(given)?,
            PluginKey::Ask => settings.ask = given.choice(&ASK_POLICIES)?,
            PluginKey::Replaces => settings.replaces = given.list()?,
            PluginKey::Config => {
                settings.config = given.table()?;
                settings.references = given.references();
            }
            PluginKey::Secrets => settings.secrets = given.secrets()?,
        }
        Ok(())
    }

    fn show(self, settings: &PluginSettings) -> Value {
        match self {
            PluginKey::Required => json!(settings.required),
            PluginKey::Disabled => json!(settings.disabled),
            PluginKey::Isolation => json!(settings.isolation),
            PluginKey::Permissions => permissions::show(&settings.permissions),
            PluginKey::Ask => {
                let name = ASK_POLICIES.iter().find(|(_, policy)| *policy == settings.ask).map(|(name, _)| *name);
                json!(name)
            }
            PluginKey::Replaces => json!(settings.replaces),
            PluginKey::Secrets => json!(settings.secrets.keys().map(|name| (name, "***")).collect::<Vec<_>>()),
            // A plugin's own table may hold what only the plugin knows to be secret.
            PluginKey::Config => match &settings.config {
                Value::Object(entries) => json!(entries.keys().map(|key| (key, "…")).collect::<Vec<_>>()),
                _ => Value::Null,
            },
        }
    }
}

const ISOLATIONS: [(&str, Isolation); 2] = [("in-process", Isolation::InProcess), ("process", Isolation::Process)];
const ASK_POLICIES: [(&str, AskPolicy); 3] =
    [("by-effect", AskPolicy::ByEffect), ("always", AskPolicy::Always), ("never", AskPolicy::Never)];

/// Whatever can be set.
#[derive(Clone)]
pub(super) enum Target {
    Setting(&'static Setting),
    Limit(&'static LimitField),
    Plugin(PluginId, PluginKey),
    Agent(String, AgentKey),
}

impl Target {
    /// Every target that exists whatever the plugins are.
    pub(super) fn fixed() -> impl Iterator<Item = Target> {
        SETTINGS.iter().map(Target::Setting).chain(LIMIT_FIELDS.iter().map(Target::Limit))
    }

    /// The key as a file writes it, with its section.
    pub(super) fn name(&self) -> String {
        match self {
            Target::Setting(setting) => setting.name.to_owned(),
            Target::Limit(limit) => format!("limits.{}", limit.name),
            Target::Plugin(id, key) => format!("plugins.{id}.{}", key.name()),
            Target::Agent(name, key) => format!("agents.{name}.{}", key.name()),
        }
    }

    /// Its own name in the environment.
    pub(super) fn env_name(&self) -> String {
        format!("JACKFIELD_{}", self.name().replace('.', "__").to_uppercase())
    }

    /// All its names in the environment, strongest first.
    pub(super) fn env_names(&self) -> Vec<String> {
        let known: &[&str] = if let Target::Setting(setting) = self { setting.env } else { &[] };
        std::iter::once(self.env_name()).chain(known.iter().map(|name| (*name).to_owned())).collect()
    }

    pub(super) fn flag(&self) -> Option<String> {
        if let Target::Setting(setting) = self { setting.flag.map(str::to_owned) } else { None }
    }

    pub(super) fn project(&self) -> ProjectRule {
        match self {
            Target::Setting(setting) => setting.project,
            Target::Limit(_) => ProjectRule::Tighter,
            Target::Plugin(..) => ProjectRule::Never,
            Target::Agent(_, key) => key.project(),
        }
    }

    /// The paths that a setting names.
    pub(super) fn paths<'a>(&self, config: &'a ServerConfig) -> &'a [PathBuf] {
        // The one setting that a project file may point at files with.
        if self.name() == "knowledge.sources" { &config.knowledge.sources } else { &[] }
    }

    /// The number that a project file may not raise; 0 for what is not a number.
    pub(super) fn tightness(&self, config: &ServerConfig) -> u64 {
        match self {
            Target::Limit(limit) => limit.get(&config.limits),
            target => target.show(config).as_u64().unwrap_or(0),
        }
    }

    pub(super) fn set(&self, draft: &mut Draft, given: &Given<'_>) -> Result<(), Misfit> {
        match self {
            Target::Setting(setting) => (setting.set)(draft, given),
            Target::Limit(limit) => {
                let value = match limit.kind {
                    LimitKind::Duration => u64::try_from(given.duration()?.as_millis()).unwrap_or(u64::MAX),
                    LimitKind::Size => given.size()?,
                    LimitKind::Count(min) => given.whole(min, u32::MAX.into())?,
                };
                limit.set(&mut draft.config.limits, value);
                Ok(())
            }
            Target::Plugin(id, key) => key.set(draft.config.plugins.by_id.entry(id.clone()).or_default(), given),
            Target::Agent(name, key) => key.set(draft.config.agents.entry(name.clone()).or_default(), given),
        }
    }

    /// The value as `config show` prints it; secrets are not in it.
    pub(super) fn show(&self, config: &ServerConfig) -> Value {
        match self {
            Target::Setting(setting) => (setting.show)(config),
            Target::Limit(limit) => {
                let value = limit.get(&config.limits);
                match limit.kind {
                    LimitKind::Duration => json!(duration_text(std::time::Duration::from_millis(value))),
                    LimitKind::Size => json!(size_text(value)),
                    LimitKind::Count(_) => json!(value),
                }
            }
            Target::Plugin(id, key) => key.show(&config.plugins.settings(id)),
            Target::Agent(name, key) => key.show(config.agents.get(name).unwrap_or(&AgentConfig::default())),
        }
    }
}

fn address(given: &Given<'_>) -> Result<IpAddr, Misfit> {
    let text = given.text()?;
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| given.misfit("an IP address such as 127.0.0.1, ::1 or 0.0.0.0"))
}

fn gateway_url(given: &Given<'_>) -> Result<String, Misfit> {
    let text = given.text()?;
    let url = text.trim_end_matches('/');
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let fits = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace));
    if !fits || url.ends_with("/chat/completions") {
        let expected = "a base address such as https://api.openai.com/v1, ending before /chat/completions";
        return Err(Misfit { expected: expected.into(), found: without_credentials(&text) });
    }
    Ok(url.to_owned())
}

/// An address may carry a password before `@`; an error must not repeat it.
fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("\"…@{host}\""),
        None => format!("{url:?}"),
    }
}

fn checked(given: &Given<'_>, fits: impl Fn(&str) -> bool, expected: &str) -> Result<Vec<String>, Misfit> {
    let list: Vec<String> = given.list()?.into_iter().map(|text| text.trim_end_matches('/').to_owned()).collect();
    match list.iter().find(|text| !fits(text)) {
        Some(wrong) => Err(Misfit { expected: expected.into(), found: format!("{wrong:?}") }),
        None => Ok(list),
    }
}

fn secret_shown(set: bool) -> Value {
    if set { json!("***") } else { Value::Null }
}
