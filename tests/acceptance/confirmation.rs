//! A human's yes or no to a tool call.

use std::{sync::Arc, time::Duration};

use jackfield::local::LocalServer;
use jackfield_tests::{
    client::{answer_text, kinds, tool_results},
    model::ScriptedModel,
    model::script,
    server::config_for,
};
use serde_json::json;

use crate::turns::Simple;

/// A server whose tool `works` asks first.
async fn asking(
    replies: jackfield_tests::model::Script,
    change: impl FnOnce(&mut jackfield::ServerConfig),
) -> (ScriptedModel, LocalServer) {
    let model = ScriptedModel::start(replies).await;
    let mut config = config_for(&model);
    config.confirm_tools = vec!["work".to_owned()];
    change(&mut config);
    let server = LocalServer::builder()
        .addr(jackfield_tests::server::any_port())
        .config(config)
        .tools(Arc::new(Simple))
        .spawn()
        .await
        .unwrap();
    (model, server)
}

#[tokio::test]
async fn an_approved_call_runs_and_the_order_is_kept() {
    let (_model, server) = asking(script().calls("works", json!({"n": 9})).says("Removed."), |_| {}).await;
    let mut client = jackfield_tests::client::TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "remove entry 9").await;
    client.expect("immediate_response").await;
    let park = client.expect("write_confirmation_required").await;
    assert_eq!(park["data"]["data"]["toolId"], "works");
    let description = park["data"]["data"]["actionDescription"].as_str().unwrap();
    assert!(description.contains("n: 9"), "the question shows the arguments: {description}");
    let chunk = client.expect("stream_chunk").await;
    assert!(chunk["data"]["state"]["rawResponse"].get("toolCall").is_some(), "{chunk}");
    client.confirm(&session, &id, true).await;
    let frames = client.turn_to_end(&id).await;
    assert_eq!(kinds(&frames)[..2], ["immediate_response", "stream_chunk"], "the ack comes first");
    assert!(!tool_results(&frames)[0].1);
    assert_eq!(answer_text(&frames), "Removed.");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_rejected_call_does_not_run_and_nothing_approves_twice() {
    let replies = script().calls("works", json!({"n": 1})).calls("works", json!({"n": 2})).says("Nothing was done.");
    let (_model, server) = asking(replies, |_| {}).await;
    let mut client = jackfield_tests::client::TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    client
        .send(json!({"action": "confirm_tool_action", "requestId": "early", "sessionId": session.id, "approved": true}))
        .await;
    client.expect_error("NO_PENDING_CONFIRMATION").await;

    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "write_confirmation_required").await;
    // From another connection, twice: the second finds nothing, and cannot answer for the next call.
    let mut other = jackfield_tests::client::TestClient::connect(&server.ws_url()).await;
    let reject = |id: &str| json!({"action": "confirm_tool_action", "requestId": id, "sessionId": session.id, "approved": false});
    assert_eq!(other.request(reject("a")).await["data"]["approved"], false);
    client.skip_to(&id, "write_confirmation_required").await;
    assert_eq!(other.request(reject("b")).await["data"]["approved"], false);
    let frames = client.turn_to_end(&id).await;
    assert!(tool_results(&frames).iter().all(|(_, is_error, _)| *is_error), "{frames:?}");
    assert_eq!(answer_text(&frames), "Nothing was done.");
    other
        .send(json!({"action": "confirm_tool_action", "requestId": "late", "sessionId": session.id, "approved": true}))
        .await;
    other.expect_error("NO_PENDING_CONFIRMATION").await;
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn silence_counts_as_no() {
    let (_model, server) = asking(script().calls("works", json!({})).says("It timed out."), |config| {
        config.limits.confirmation = Duration::from_millis(100);
    })
    .await;
    let mut client = jackfield_tests::client::TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "go").await;
    let results = tool_results(&frames);
    assert!(results[0].1 && results[0].2.contains("timed out"), "{results:?}");
    assert_eq!(answer_text(&frames), "It timed out.");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_wait_runs_nothing() {
    let (model, server) = asking(script().calls("works", json!({})), |_| {}).await;
    let mut client = jackfield_tests::client::TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "write_confirmation_required").await;
    client.expect("stream_chunk").await;
    client.cancel().await;
    client.expect("cancelled").await;
    client.confirm(&session, "too late", true).await;
    client.expect_error("NO_PENDING_CONFIRMATION").await;
    model.expect_no_more_requests();
    server.shutdown().await.unwrap();
}
