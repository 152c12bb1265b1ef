//! What an operator asks a running server: is it there, is it ready, what is it, and what has it done.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jackfield::{
    ServerConfig,
    config::{PluginSettings, PluginsConfig},
    ids::PluginId,
    local::LocalServer,
};
use jackfield_tests::{
    client::TestClient,
    http::{get, request},
    model::{ScriptedModel, script},
    plugins::PluginFolder,
    server::{TestServer, any_port, config_for},
};
use serde_json::json;

use crate::turns::Simple;

/// Asks for the metrics until every line is there: a turn is counted a moment after its client has read its end.
pub(crate) async fn metrics_with(addr: SocketAddr, lines: &[&str]) -> String {
    let looked = async {
        loop {
            let text = get(addr, "/metrics").await.body;
            if lines.iter().all(|line| text.lines().any(|found| found == *line)) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), looked).await {
        Ok(text) => text,
        Err(_) => panic!("not all of {lines:?} are in\n{}", get(addr, "/metrics").await.body),
    }
}

#[tokio::test]
async fn a_server_says_that_it_lives_and_what_it_is() {
    let server = TestServer::without_key().await;
    let alive = get(server.addr(), "/healthz").await;
    assert_eq!((alive.status, alive.body.as_str()), (200, "ok"));
    let version = get(server.addr(), "/version").await.json();
    assert_eq!((&version["name"], &version["version"]), (&json!("jackfield"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(version["protocol"], "1.66");
    let ready = get(server.addr(), "/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "stopping": false, "missing": []})));
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_is_not_ready_before_a_required_plugin_is_and_says_which() {
    let folder = PluginFolder::new().with_file("libgarbage.so", b"this is no library");
    let required = PluginSettings { required: true, ..Default::default() };
    let mut plugins = PluginsConfig { folders: vec![folder.path().to_owned()], ..Default::default() };
    plugins.by_id.insert(PluginId::new("weather"), required);
    let builder = LocalServer::builder().addr(any_port()).config(ServerConfig::default()).plugins(plugins);
    let server = builder.spawn().await.unwrap();
    server.plugins_settled(Duration::from_secs(20)).await;
    let answer = get(server.addr(), "/readyz").await;
    assert_eq!(answer.status, 503);
    let missing = json!([{"plugin": "weather", "state": "absent"}]);
    assert_eq!(answer.json(), json!({"ready": false, "stopping": false, "missing": missing}));
    assert_eq!(get(server.addr(), "/healthz").await.status, 200, "it lives all the same");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn turns_models_tools_and_humans_are_counted() {
    let replies = script()
        .calls("works", json!({}))
        .calls("works", json!({}))
        .calls("made_up", json!({}))
        .streams(["All ", "done."]);
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "go").await;
    let text = metrics_with(
        server.addr(),
        &[
            "jackfield_ws_connections 1",
            "jackfield_turns_total{outcome=\"completed\"} 1",
            "jackfield_turn_duration_seconds_count 1",
            "jackfield_time_to_first_token_seconds_count 1",
            "jackfield_llm_requests_total{provider=\"gateway\",model=\"scripted\",outcome=\"completed\"} 4",
            "jackfield_tool_calls_total{plugin=\"embedder\",tool=\"works\",outcome=\"answered\"} 2",
            "jackfield_tool_calls_total{plugin=\"none\",tool=\"unknown\",outcome=\"unknown\"} 1",
            "jackfield_tool_duration_seconds_count 2",
            "jackfield_retrieval_duration_seconds_count 1",
        ],
    )
    .await;
    assert!(text.contains("process_open_fds ") || !cfg!(target_os = "linux"), "{text}");
    for secret in [&session.id, &session.conversation_id] {
        assert!(!text.contains(secret.as_str()), "ids of one conversation are no labels");
    }
    client.close().await;
    metrics_with(server.addr(), &["jackfield_ws_connections 0"]).await;
    server.shutdown().await;
}

#[tokio::test]
async fn confirmations_cancels_and_failures_are_counted_by_what_came_of_them() {
    let replies = script().calls("works", json!({})).says("Then not.").hangs();
    let model = ScriptedModel::start(replies).await;
    let mut config = config_for(&model);
    config.confirm_tools = vec!["works".to_owned()];
    let builder = LocalServer::builder().addr(any_port()).config(config).tools(Arc::new(Simple));
    let server = builder.spawn().await.unwrap();
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "write_confirmation_required").await;
    client.confirm(&session, &id, false).await;
    client.turn_to_end(&id).await;
    let id = client.send_message(&session, "think for ever").await;
    client.expect("immediate_response").await;
    client.cancel().await;
    client.skip_to(&id, "cancelled").await;
    metrics_with(
        server.addr(),
        &[
            "jackfield_approvals_total{decision=\"rejected\"} 1",
            "jackfield_approval_wait_seconds_count 1",
            "jackfield_tool_calls_total{plugin=\"embedder\",tool=\"works\",outcome=\"denied\"} 1",
            "jackfield_turns_total{outcome=\"completed\"} 1",
            "jackfield_turns_total{outcome=\"cancelled\"} 1",
            "jackfield_llm_requests_total{provider=\"gateway\",model=\"scripted\",outcome=\"cancelled\"} 1",
        ],
    )
    .await;
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_page_of_somebody_else_gets_none_of_it() {
    let server = TestServer::without_key().await;
    for path in ["/metrics", "/readyz", "/healthz", "/version"] {
        let rebound = request(server.addr(), "GET", path, &[("host", "evil.example")], "").await;
        assert_eq!(rebound.status, 403, "{path}");
    }
    server.shutdown().await;
}
