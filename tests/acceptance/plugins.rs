//! The main job: a model asks for a tool that lives in a library in a folder, and the answer streams back. And what it
//! costs when such a library misbehaves: one tool result, never another plugin's answer.

use std::time::Duration;

use jackfield::{ServerConfig, config::PluginsConfig, ids::PluginId, local::LocalServer};
use jackfield_tests::{
    client::{TestClient, TestSession, answer_text, tool_results},
    model::{Script, ScriptedModel, script},
    plugins::{PluginFolder, clock},
    server::{CANARY_KEY, any_port, config_for},
};
use serde_json::{Value, json};

/// A server with plugins, the model it asks, and a session whose turns see all of the plugins' tools.
struct Running {
    model: ScriptedModel,
    server: LocalServer,
    client: TestClient,
    session: TestSession,
    _folder: PluginFolder,
}

/// Starts a server on the folder and waits until `tool` is offered. The first reply of the model is for that.
async fn start(
    folder: PluginFolder,
    plugins: PluginsConfig,
    tool: &str,
    change: impl FnOnce(&mut ServerConfig),
) -> Running {
    let model = ScriptedModel::start(script().says("ready?").forever()).await;
    let mut config = config_for(&model);
    config.plugins = PluginsConfig { folders: vec![folder.path().to_owned()], ..plugins };
    change(&mut config);
    let server = LocalServer::builder().addr(any_port()).config(config).spawn().await.unwrap();
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    // The server answers before its plugins are there; they join at a later turn.
    let joined = async {
        loop {
            client.turn(&session, "are you there?").await;
            let requests = model.requests();
            if requests.last().unwrap().tool_names().contains(&tool) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), joined).await.expect("the plugins join");
    Running { model, server, client, session, _folder: folder }
}

impl Running {
    /// One turn that follows this script, in a new conversation.
    async fn turn(&mut self, replies: Script) -> Vec<Value> {
        self.model.replace(replies);
        self.session = self.client.create_session().await;
        self.client.turn(&self.session, "go").await
    }
}

fn settings(id: &str, ask: &str, config: Value) -> PluginsConfig {
    let mut plugins = PluginsConfig::default();
    add(&mut plugins, id, ask, config);
    plugins
}

fn add(plugins: &mut PluginsConfig, id: &str, ask: &str, config: Value) {
    let settings = jackfield::config::PluginSettings {
        ask: if ask == "never" { jackfield::config::AskPolicy::Never } else { jackfield::config::AskPolicy::ByEffect },
        config,
        ..Default::default()
    };
    plugins.by_id.insert(PluginId::new(id), settings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_calls_a_tool_in_a_library_from_a_folder() {
    let folder = PluginFolder::new().with(clock());
    let mut running = start(folder, PluginsConfig::default(), "current_time", |config| config.seed_kb = true).await;
    let frames = running
        .turn(script().calls("current_time", json!({"zone": "Europe/Berlin"})).streams(["It is ", "late."]))
        .await;
    let results = tool_results(&frames);
    assert_eq!((results[0].0, results[0].1), ("current_time", false), "{results:?}");
    assert!(results[0].2.contains("Europe/Berlin"), "{results:?}");
    assert_eq!(answer_text(&frames), "It is late.");
    let requests = running.model.requests();
    assert!(requests.last().unwrap().tool_results()[0].contains("Europe/Berlin"));
    running.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_one_plugin_cost_one_result_each_while_another_answers() {
    let folder = PluginFolder::new().with(clock()).with_fixture("fixture_aa");
    let plugins = settings("fixture_aa", "never", json!({}));
    let mut running = start(folder, plugins, "panic_async", |config| {
        config.limits.tool_idle = Duration::from_millis(600);
    })
    .await;
    let faults = [
        ("panic_sync", json!({})),
        ("panic_async", json!({})),
        ("hang_async", json!({})),
        ("hang_blocking", json!({"ms": 4000})),
        ("fail", json!({})),
        ("echo", json!({"ms": "not a number"})),
    ];
    let mut replies = script();
    for (tool, arguments) in &faults {
        replies = replies.calls_many([(*tool, arguments.clone()), ("current_time", json!({"zone": "UTC"}))]);
    }
    let frames = running.turn(replies.says("Survived.")).await;
    let results = tool_results(&frames);
    assert_eq!(results.len(), 2 * faults.len());
    for (pair, (tool, _)) in results.chunks(2).zip(&faults) {
        assert_eq!((pair[0].0, pair[0].1), (*tool, true), "{pair:?}");
        assert_eq!((pair[1].0, pair[1].1), ("current_time", false), "after {tool}: {pair:?}");
    }
    assert!(results[0].2.contains("panicked"), "{:?}", results[0]);
    assert_eq!(answer_text(&frames), "Survived.");
    running.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_tool_list_costs_the_fresh_list_and_not_the_turn() {
    let folder = PluginFolder::new().with(clock()).with_fixture("fixture_bb");
    let mut plugins = settings("fixture_bb", "never", json!({"mode": "slow_tools_for_later", "ms": 3000}));
    add(&mut plugins, "clock", "by_effect", json!({}));
    let mut running = start(folder, plugins, "current_time", |_| {}).await;
    let started = tokio::time::Instant::now();
    let frames = running.turn(script().calls("current_time", json!({})).says("Fine.")).await;
    assert!(!tool_results(&frames)[0].1);
    assert_eq!(answer_text(&frames), "Fine.");
    assert!(started.elapsed() < Duration::from_secs(3), "the turn does not wait for a slow provider");
    running.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_cannot_start_leaves_the_others_alone() {
    let folder = PluginFolder::new()
        .with(clock())
        .with_fixture("fixture_cc")
        .with_fixture("fixture_dd")
        .with_file("libgarbage.so", b"this is no library");
    let mut plugins = settings("fixture_cc", "never", json!({"mode": "panic_in_create"}));
    add(&mut plugins, "fixture_dd", "never", json!({"mode": "slow_create", "ms": 60_000}));
    let mut running = start(folder, plugins, "current_time", |_| {}).await;
    let frames = running.turn(script().calls("current_time", json!({})).says("Fine.")).await;
    assert!(!tool_results(&frames)[0].1);
    running.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_may_change_something_asks_and_one_that_only_looks_does_not() {
    let folder = PluginFolder::new().with_fixture("fixture_ee");
    let mut running = start(folder, settings("fixture_ee", "by_effect", json!({})), "effects", |_| {}).await;
    running.model.replace(
        script()
            .calls("effects", json!({"effect": "read_only"}))
            .calls("effects", json!({"effect": "writes"}))
            .says("Both."),
    );
    let session = running.client.create_session().await;
    let id = running.client.send_message(&session, "go").await;
    let park = running.client.skip_to(&id, "write_confirmation_required").await;
    assert!(park["data"]["data"]["actionDescription"].as_str().unwrap().contains("writes"), "{park}");
    running.client.confirm(&session, &id, true).await;
    let frames = running.client.turn_to_end(&id).await;
    assert_eq!(answer_text(&frames), "Both.");
    running.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_key_never_reaches_a_plugin() {
    let folder = PluginFolder::new().with_fixture("fixture_ff");
    let mut running = start(folder, settings("fixture_ff", "never", json!({})), "dump_context", |_| {}).await;
    let frames = running.turn(script().calls("dump_context", json!({})).says("Dumped.")).await;
    let requests = running.model.requests();
    let seen = requests.last().unwrap().tool_results()[0].to_owned();
    assert!(seen.contains("conversation_id"), "the dump is the context: {seen}");
    assert!(!seen.contains(CANARY_KEY) && !seen.contains("gateway_key"), "{seen}");
    assert!(!frames.iter().any(|frame| frame.to_string().contains(CANARY_KEY)));
    running.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_missing_plugin_folder_is_said_at_the_start() {
    let builder = LocalServer::builder().addr(any_port()).config(ServerConfig::default());
    let error = builder.plugins(std::path::Path::new("/nowhere/at/all")).spawn().await.expect_err("there is no folder");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_are_shown_with_their_state() {
    let folder = PluginFolder::new().with(clock());
    let builder = LocalServer::builder().addr(any_port()).config(ServerConfig::default()).plugins(folder.path());
    let server = builder.spawn().await.unwrap();
    crate::operating::metrics_with(
        server.addr(),
        &[
            "jackfield_plugin_state{plugin=\"clock\",state=\"active\"} 1",
            "jackfield_plugin_generations{plugin=\"clock\"} 1",
        ],
    )
    .await;
    server.shutdown().await.unwrap();
}
