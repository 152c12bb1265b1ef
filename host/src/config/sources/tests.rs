//! The layers, the project rule, and every message a person may meet.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::{AgentVisibility, AskPolicy, AuthMode, NameConflict, OnDisconnect, StorageBackend, ToolAuthLevel};

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    Sources { env: env(pairs), ..Sources::default() }.load()
}

fn file(kind: FileKind, text: &str) -> SourceFile {
    let path = match kind {
        FileKind::User => "/home/u/.config/jackfield/config.toml",
        FileKind::Project => "/src/app/jackfield.toml",
        FileKind::Explicit => "/etc/agent.toml",
    };
    SourceFile { kind, path: path.into(), text: text.to_owned() }
}

fn from_files(files: &[(FileKind, &str)]) -> Result<Loaded, ConfigError> {
    Sources { files: files.iter().map(|(kind, text)| file(*kind, text)).collect(), ..Sources::default() }.load()
}

fn message(result: Result<Loaded, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn nothing_said_means_the_defaults() {
    let loaded = Sources::default().load().unwrap();
    assert_eq!(loaded.config, ServerConfig::default());
    assert!(loaded.warnings.is_empty());
    assert!(loaded.rows.iter().all(|row| row.origin == Origin::Default));
}

#[test]
fn the_known_variables_are_read() {
    let config = from_env(&[
        ("SMOOTH_AGENT_BIND", "0.0.0.0"),
        ("SMOOTH_AGENT_PORT", " 0 "),
        ("SMOOAI_GATEWAY_URL", "http://127.0.0.1:11434/v1/"),
        ("SMOOAI_GATEWAY_KEY", "k3y"),
        ("SMOOTH_AGENT_MODEL", "llama"),
        ("SMOOTH_AGENT_SEED_KB", "1"),
        ("SMOOTH_AGENT_MAX_ITERATIONS", "6"),
        ("SMOOTH_AGENT_MAX_TOKENS", "512"),
        ("SMOOTH_AGENT_STORAGE", "MEMORY"),
        ("SMOOTH_AGENT_CONFIRM_TOOLS", "delete, ,write"),
        ("AUTH_DEV_ORG_ID", "acme"),
        ("JACKFIELD_LIMITS__TOOL_IDLE", "5s"),
        ("JACKFIELD_SERVER__ALLOWED_ORIGINS", "http://localhost:5173,https://app.example/"),
        ("JACKFIELD_TURN__ON_DISCONNECT", "cancel"),
    ])
    .unwrap()
    .config;
    assert_eq!(config.addr().to_string(), "0.0.0.0:0");
    assert_eq!(config.gateway_url, "http://127.0.0.1:11434/v1");
    assert_eq!(config.gateway_key.unwrap().reveal(), "k3y");
    assert_eq!((config.model.as_str(), config.seed_kb), ("llama", true));
    assert_eq!((config.max_iterations, config.max_tokens), (6, 512));
    assert_eq!(config.confirm_tools, ["delete", "write"]);
    assert_eq!(config.org_id, "acme");
    assert_eq!(config.limits.tool_idle, Duration::from_secs(5));
    assert_eq!(config.allowed_origins, ["http://localhost:5173", "https://app.example"]);
    assert_eq!(config.on_disconnect, OnDisconnect::Cancel);
}

#[test]
fn empty_counts_as_unset_and_seeding_wants_exactly_one() {
    let config = from_env(&[("SMOOTH_AGENT_PORT", "  "), ("SMOOTH_AGENT_SEED_KB", "true")]).unwrap().config;
    assert_eq!((config.port, config.seed_kb), (8787, false));
    let loaded = from_files(&[(FileKind::User, "[model]\nname = ''")]).unwrap();
    assert_eq!(loaded.config.model, ServerConfig::default().model);
}

#[test]
fn a_bad_variable_is_named_with_what_was_expected_and_what_came() {
    for (name, value, expected) in [
        ("SMOOTH_AGENT_PORT", "http", "SMOOTH_AGENT_PORT: expected a whole number from 0 to 65535, got \"http\""),
        ("SMOOTH_AGENT_PORT", "70000", "SMOOTH_AGENT_PORT: expected a whole number from 0 to 65535, got \"70000\""),
        (
            "SMOOTH_AGENT_MAX_TOKENS",
            "0",
            "SMOOTH_AGENT_MAX_TOKENS: expected a whole number from 1 to 4294967295, got \"0\"",
        ),
        (
            "SMOOTH_AGENT_BIND",
            "example.com",
            "SMOOTH_AGENT_BIND: expected an IP address such as 127.0.0.1, ::1 or 0.0.0.0, got \"example.com\"",
        ),
        (
            "SMOOAI_GATEWAY_URL",
            "https://me:pw@api.example/v1/chat/completions",
            "SMOOAI_GATEWAY_URL: expected a base address such as https://api.openai.com/v1, ending before \
             /chat/completions, got \"…@api.example/v1/chat/completions\"",
        ),
        (
            "AUTH_MODE",
            "kerberos",
            "AUTH_MODE: expected one of none, local-token, jwt, smoo, trusted, disabled, got \"kerberos\"",
        ),
        (
            "SMOOTH_AGENT_STORAGE",
            "disk",
            "SMOOTH_AGENT_STORAGE: expected one of memory, postgres, dynamodb, got \"disk\"",
        ),
        (
            "JACKFIELD_SERVER__PROT",
            "1",
            "the environment: unknown setting JACKFIELD_SERVER__PROT; did you mean JACKFIELD_SERVER__PORT?",
        ),
    ] {
        assert_eq!(message(from_env(&[(name, value)])), expected);
    }
}

#[test]
fn each_layer_covers_the_one_below_and_its_origin_is_kept() {
    let all = Sources {
        env: env(&[("SMOOTH_AGENT_MODEL", "env")]),
        files: vec![
            file(FileKind::Explicit, "model.name = 'explicit'"),
            file(FileKind::Project, "model.name = 'project'"),
            file(FileKind::User, "model.name = 'user'"),
        ],
        flags: vec![FlagValue { key: "model.name", flag: "--model", value: Value::String("flag".into()) }],
    };
    let mut sources = all.clone();
    let mut seen = Vec::new();
    let mut note = |sources: &Sources| {
        let loaded = sources.load().unwrap();
        let row = loaded.rows.into_iter().find(|row| row.key == "model.name").unwrap();
        assert_eq!(row.value, json!(loaded.config.model));
        seen.push((loaded.config.model, row.origin.to_string()));
    };
    note(&sources);
    sources.flags.clear();
    note(&sources);
    sources.env.clear();
    note(&sources);
    for _ in 0..3 {
        sources.files.remove(0);
        note(&sources);
    }
    let expected = [
        ("flag", "--model"),
        ("env", "SMOOTH_AGENT_MODEL"),
        ("explicit", "/etc/agent.toml"),
        ("project", "/src/app/jackfield.toml"),
        ("user", "/home/u/.config/jackfield/config.toml"),
        ("gpt-6-luna", "default"),
    ];
    let seen: Vec<(&str, &str)> = seen.iter().map(|(model, origin)| (model.as_str(), origin.as_str())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn our_own_name_covers_the_known_one() {
    let loaded = from_env(&[("JACKFIELD_MODEL__NAME", "ours"), ("SMOOTH_AGENT_MODEL", "theirs")]).unwrap();
    assert_eq!(loaded.config.model, "ours");
    let loaded = from_env(&[("SMOOTH_AGENT_AUTH_MODE", "none"), ("AUTH_MODE", "local-token")]).unwrap();
    assert_eq!(loaded.config.auth, AuthMode::None);
}

#[test]
fn a_wrong_value_that_is_covered_does_no_harm() {
    let sources = Sources {
        files: vec![file(FileKind::User, "gateway.key = 'env:NOT_SET'")],
        env: env(&[("SMOOAI_GATEWAY_KEY", "k")]),
        ..Sources::default()
    };
    assert_eq!(sources.load().unwrap().config.gateway_key.unwrap().reveal(), "k");
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    for (text, expected) in [
        ("[server]\nprot = 1", "unknown setting server.prot; did you mean server.port?"),
        ("[limits]\ntool_idel = '1s'", "unknown setting limits.tool_idel; did you mean limits.tool_idle?"),
        (
            "[plugins.clock]\nrequird = true",
            "unknown setting plugins.clock.requird; did you mean plugins.clock.required?",
        ),
        ("[plugins.clock]\nwavelengths = [700]", "unknown setting plugins.clock.wavelengths"),
        ("[plugins]\nfolder = ['x']", "unknown setting plugins.folder; did you mean plugins.folders?"),
        ("colour = 'red'", "unknown setting colour"),
    ] {
        let message = message(from_files(&[(FileKind::User, text)]));
        assert_eq!(message, format!("/home/u/.config/jackfield/config.toml: {expected}"));
    }
}

#[test]
fn a_project_file_may_set_the_model_the_prompt_the_knowledge_and_tighter_limits() {
    let text = "[model]\nname = 'm'\ntemperature = 0.5\nmax_tokens = 100\n[prompt]\npersona = 'You are terse.'\n\
                [knowledge]\nseed = true\n[limits]\ntool_idle = '10s'\ntool_output_bytes = '1KiB'\nknowledge_hits = 3";
    let config = from_files(&[(FileKind::Project, text)]).unwrap().config;
    assert_eq!((config.temperature, config.max_tokens, config.seed_kb), (Some(0.5), 100, true));
    assert_eq!(config.limits.tool_idle, Duration::from_secs(10));
    assert_eq!(config.limits.tool_output_bytes, 1024);
}

#[test]
fn a_project_file_may_set_nothing_else() {
    for (text, expected) in [
        ("plugins.folders = ['p']", "plugins.folders; say --plugins DIR, or"),
        ("plugins.clock.ask = 'never'", "plugins.clock.ask; set it in your user file"),
        ("server.allowed_origins = ['http://evil.example']", "server.allowed_origins; say --allow-origin ORIGIN, or"),
        ("gateway.url = 'http://evil.example/v1'", "gateway.url; say --gateway-url URL, or"),
        ("gateway.key = 'file:/etc/passwd'", "gateway.key; set it in your user file"),
        ("knowledge.roots = ['/']", "knowledge.roots; set it in your user file"),
        ("tools.confirm = []", "tools.confirm; say --confirm-tools PART,…, or"),
    ] {
        let message = message(from_files(&[(FileKind::Project, text)]));
        assert!(message.starts_with("/src/app/jackfield.toml: a project file may not set "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn a_project_file_may_name_knowledge_of_its_own_folder_only() {
    let folder = std::env::temp_dir().join(format!("jackfield-project-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("project/docs")).unwrap();
    std::fs::create_dir_all(folder.join("private")).unwrap();
    std::os::unix::fs::symlink(folder.join("private"), folder.join("project/link")).unwrap();
    let load = |path: &str| {
        let text = format!("knowledge.sources = ['docs', '{path}']");
        let path = folder.join("project/jackfield.toml");
        Sources { files: vec![SourceFile { kind: FileKind::Project, path, text }], ..Sources::default() }.load()
    };
    for inside in ["docs", "not/there/yet", ".", "docs/../docs"] {
        let sources = load(inside).unwrap().config.knowledge.sources;
        assert_eq!(sources, [folder.join("project/docs"), folder.join("project").join(inside)], "{inside}");
    }
    for outside in ["..", "../private", "link", "link/not/there", "/etc/passwd", "none/../../private", "/"] {
        let message = message(load(outside));
        assert!(message.contains("may only set knowledge.sources to paths below its own folder"), "{message}");
        assert!(message.contains("say --knowledge PATH, or"), "{message}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_setting_has_a_rule_for_projects_and_only_the_harmless_are_free() {
    let free: Vec<String> = Target::fixed()
        .filter(|target| matches!(target.project(), ProjectRule::Always))
        .map(|target| target.name())
        .collect();
    let harmless = [
        "model.name",
        "model.preamble",
        "model.title",
        "model.temperature",
        "prompt.persona",
        "knowledge.seed",
        "knowledge.embedding_model",
        "knowledge.min_similarity",
    ];
    assert_eq!(free, harmless);
}

#[test]
fn a_project_file_may_not_loosen_a_limit() {
    let user = (FileKind::User, "limits.tool_idle = '20s'\nmodel.max_tokens = 50");
    let message_of = |text| message(from_files(&[user, (FileKind::Project, text)]));
    assert_eq!(
        message_of("limits.tool_idle = '30s'"),
        "/src/app/jackfield.toml: a project file may only tighten limits.tool_idle: 30s is more than 20s; \
         set it in your user file or in a file given by --config"
    );
    assert!(message_of("model.max_tokens = 51").contains("51 is more than 50"));
    assert!(from_files(&[user, (FileKind::Project, "limits.tool_idle = '20s'")]).is_ok());
}

#[test]
fn agents_have_tables_by_id_or_name() {
    let text = "[tools]\nauth = ['pay']\n\
                [agents.support]\nid = '7d1c2a34-0000-4000-8000-000000000001'\nname = 'Support'\ninstructions = 'Help.'\n\
                personality = 'Dry.'\ngreeting = 'Say hello.'\nenabled_tools = ['pay', 'knowledge_search']\n\
                tool_auth = { pay = 'end_user' }\nvisibility = 'internal'\nmodel = 'big'\nmax_iterations = 64\n\
                [agents.support.tool_config.pay]\ncurrency = 'EUR'\nsecret = 's3cret'";
    let loaded = from_files(&[(FileKind::Explicit, text)]).unwrap();
    let agent = loaded.config.agent("7D1C2A34-0000-4000-8000-000000000001").unwrap();
    assert_eq!(Some(agent), loaded.config.agent("support"));
    assert_eq!((agent.name.as_deref(), agent.instructions.as_deref()), (Some("Support"), Some("Help.")));
    assert_eq!((agent.personality.as_deref(), agent.greeting.as_deref()), (Some("Dry."), Some("Say hello.")));
    assert_eq!(agent.enabled_tools, ["pay", "knowledge_search"]);
    assert_eq!(agent.tool_auth["pay"], ToolAuthLevel::EndUser);
    assert_eq!((agent.visibility, agent.max_iterations), (AgentVisibility::Internal, Some(64)));
    assert_eq!(agent.model.as_deref(), Some("big"));
    assert_eq!(agent.tool_config["pay"]["currency"], "EUR");
    assert_eq!(loaded.config.agent("unknown"), None);
    let shown = json!(loaded.rows.iter().map(|row| (&row.key, &row.value)).collect::<Vec<_>>()).to_string();
    assert!(shown.contains("agents.support.tool_auth") && !shown.contains("s3cret"), "{shown}");

    for (text, expected) in [
        ("[agents.a]\nmax_iterations = 65", "agents.a.max_iterations: expected a whole number from 1 to 64, got 65"),
        ("[agents.a]\nvisibility = 'secret'", "expected one of public, internal"),
        ("[agents.a.tool_auth]\npay = 'root'", "expected one of none, end_user, admin"),
        ("[agents.a]\ntool_auth = 'admin'", "expected a table"),
        ("[agents.a]\ninstruction = 'x'", "did you mean agents.a.instructions?"),
        ("agents.a = 'x'", "unknown setting agents.a"),
        ("[agents.a.tool_auth]\npay = 'admin'", "add \"pay\" to tools.auth"),
        ("[agents.a]\nid = 'x'\n[agents.b]\nid = 'X'", "agents.a and agents.b are both for the agent X"),
    ] {
        let said = message(from_files(&[(FileKind::Explicit, text)]));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_project_says_how_an_agent_speaks_and_not_what_it_may_do() {
    let user = "[agents.a]\ninstructions = 'Mine.'\nenabled_tools = ['x']";
    let project = "[agents.a]\ninstructions = 'Theirs.'\nmodel = 'small'";
    let config = from_files(&[(FileKind::User, user), (FileKind::Project, project)]).unwrap().config;
    let agent = config.agent("a").unwrap();
    assert_eq!((agent.instructions.as_deref(), agent.enabled_tools.len()), (Some("Theirs."), 1));
    for key in ["enabled_tools = []", "visibility = 'internal'", "tool_config = {}", "max_iterations = 64", "id = 'b'"]
    {
        let said = message(from_files(&[(FileKind::Project, &format!("[agents.a]\n{key}"))]));
        assert!(said.contains("a project file may not set agents.a."), "{said}");
    }
}

#[test]
fn plugins_have_host_keys_and_a_table_of_their_own() {
    let text = "[plugins]\nfolders = ['plugins', '/opt/p']\nname_conflict = 'prefix'\n\
                [plugins.weather]\nrequired = true\nask = 'always'\nreplaces = ['fetch_url']\n\
                [plugins.weather.config]\ncity = 'Turin'\nlimits = { days = 3, since = 2024-01-02 }\n\
                [plugins.other]\ndisabled = true";
    let config = from_files(&[(FileKind::Explicit, text)]).unwrap().config;
    assert_eq!(config.plugins.folders, [PathBuf::from("/etc/plugins"), PathBuf::from("/opt/p")]);
    assert_eq!(config.plugins.name_conflict, NameConflict::Prefix);
    let weather = config.plugins.settings(&PluginId::new("weather"));
    assert_eq!((weather.required, weather.disabled, weather.ask), (true, false, AskPolicy::Always));
    assert_eq!(weather.replaces, ["fetch_url"]);
    assert_eq!(weather.config, json!({"city": "Turin", "limits": {"days": 3, "since": "2024-01-02"}}));
    assert!(config.plugins.settings(&PluginId::new("other")).disabled);
}

#[test]
fn a_token_makes_the_mode_and_a_mode_without_its_token_is_refused() {
    let token = ("JACKFIELD_AUTH__TOKEN", "t0ken");
    assert!(matches!(from_env(&[token]).unwrap().config.auth, AuthMode::LocalToken(_)));
    assert!(message(from_env(&[("AUTH_MODE", "local-token")])).contains("needs a token"));
    assert!(message(from_env(&[("AUTH_MODE", "none"), token])).contains("checks no shared token"));
    assert!(message(from_env(&[("JACKFIELD_AUTH__STRICT", "1")])).contains("needs a token to check"));
}

#[test]
fn secrets_are_never_printed() {
    let secrets = [("SMOOAI_GATEWAY_KEY", "canary-key"), ("JACKFIELD_AUTH__TOKEN", "canary-token")];
    let loaded = from_env(&secrets).unwrap();
    assert!(!format!("{loaded:?}").contains("canary"));
    let shown: Vec<&Row> = loaded.rows.iter().filter(|row| row.value == json!("***")).collect();
    assert_eq!(shown.len(), 2);
    let in_file = message(from_files(&[(FileKind::User, "gateway.key = 'canary-key'")]));
    assert!(!in_file.contains("canary") && in_file.contains("env:NAME or file:PATH"), "{in_file}");
    let broken = message(from_files(&[(FileKind::User, "[gateway]\nkey = canary-key")]));
    assert!(!broken.contains("canary") && broken.contains("config.toml:2:"), "{broken}");
}

#[test]
fn variables_of_other_backends_give_one_warning() {
    let loaded = from_env(&[
        ("DATABASE_URL", "postgres://u:pw@h/d"),
        ("SMOOTH_AGENT_REDIS_URL", "redis://h"),
        ("SMOOTH_AGENT_BACKPLANE", "memory"),
        ("SMOOTH_AGENT_DURABLE_EXECUTOR", ""),
    ])
    .unwrap();
    assert_eq!(
        loaded.warnings,
        ["these variables have no effect in this server: DATABASE_URL, SMOOTH_AGENT_REDIS_URL"]
    );
}

#[test]
fn another_storage_is_named_and_refused() {
    let config = from_env(&[("SMOOTH_AGENT_STORAGE", "Postgres")]).unwrap().config;
    assert_eq!(config.storage, StorageBackend::Postgres);
    assert!(config.require_memory().unwrap_err().to_string().contains("is postgres"));
    assert_eq!(ServerConfig::default().require_memory(), Ok(()));
}

#[test]
fn files_are_found_where_they_belong() {
    let folder = std::env::temp_dir().join(format!("jackfield-sources-{}", std::process::id()));
    let (home, project) = (folder.join("home"), folder.join("project"));
    std::fs::create_dir_all(home.join(".config/jackfield")).unwrap();
    std::fs::create_dir_all(&project).unwrap();
    std::fs::write(home.join(".config/jackfield/config.toml"), "model.name = 'user'").unwrap();
    std::fs::write(project.join("jackfield.toml"), "model.name = 'project'").unwrap();
    std::fs::write(project.join("token"), "  t0ken\n").unwrap();
    std::fs::write(project.join("named.toml"), "auth.token = 'file:token'").unwrap();
    let environment = env(&[("HOME", &home.to_string_lossy())]);
    let kinds = |named: Option<&str>| {
        let found = Sources::find(environment.clone(), &project, named.map(Path::new)).unwrap();
        found.files.into_iter().map(|file| file.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(None), [FileKind::User, FileKind::Project]);
    assert_eq!(kinds(Some("jackfield.toml")), [FileKind::User, FileKind::Explicit]);
    let named = project.join("named.toml");
    let loaded = Sources::find(environment.clone(), &project, Some(&named)).unwrap().load().unwrap();
    assert!(matches!(loaded.config.auth, AuthMode::LocalToken(token) if token.reveal() == "t0ken"));
    let missing = Sources::find(environment, &project, Some(Path::new("missing.toml"))).unwrap_err();
    assert!(missing.to_string().starts_with("missing.toml: "), "{missing}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn state_has_a_place_of_its_own() {
    assert_eq!(state_folder(&env(&[("HOME", "/h")])), Some("/h/.local/state/jackfield".into()));
    assert_eq!(state_folder(&env(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")])), Some("/s/jackfield".into()));
    assert_eq!(state_folder(&env(&[])), None);
}
