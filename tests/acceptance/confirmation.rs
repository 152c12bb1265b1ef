//! A human's yes or no to a tool call.

use std::{sync::Arc, time::Duration};

use jackfield::local::LocalServer;
use jackfield_tests::{
    client::{answer_text, kinds, tool_results},
    model::ScriptedModel,
    model::script,
    server::{TestServer, config_for},
};
use serde_json::json;

use crate::{
    ledger::Ledger,
    scoping::{Tokens, client},
    turns::Simple,
};

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

#[tokio::test]
async fn a_yes_counts_for_the_call_that_was_shown_and_for_no_other() {
    let three = [("gated", json!({"n": 1})), ("gated", json!({"n": 2})), ("gated", json!({"n": 3}))];
    let replies = script().calls_many(three).says("Done.");
    let ledger = Ledger::default();
    let tools = Arc::new(ledger.clone());
    let change = |config: &mut jackfield::ServerConfig| config.confirm_tools = vec!["gated".to_owned()];
    let server = TestServer::build_with(replies, change, |builder| builder.tools(tools)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    // They wait one after the other; each question shows the arguments that its own answer is about.
    for (n, approved) in [(1, true), (2, false), (3, true)] {
        let park = client.skip_to(&id, "write_confirmation_required").await;
        let question = park["data"]["data"]["actionDescription"].as_str().unwrap();
        assert!(question.contains(&format!("n: {n}")), "{question}");
        client.expect("stream_chunk").await;
        assert!(!ledger.runs("gated").contains(&n), "nothing runs before the answer");
        client.confirm(&session, &id, approved).await;
    }
    let frames = client.turn_to_end(&id).await;
    assert_eq!(answer_text(&frames), "Done.");
    assert_eq!(ledger.runs("gated"), [1, 3]);
    // A duplicate after the end approves nothing, and nothing is left over for the next turn.
    client.confirm(&session, "duplicate", true).await;
    client.expect_error("NO_PENDING_CONFIRMATION").await;
    server.model().append(script().calls("gated", json!({"n": 4})).says("No."));
    let id = client.send_message(&session, "again").await;
    client.skip_to(&id, "write_confirmation_required").await;
    client.expect("stream_chunk").await;
    client.confirm(&session, &id, false).await;
    client.turn_to_end(&id).await;
    assert_eq!(ledger.runs("gated"), [1, 3]);
    server.shutdown().await;
}

#[tokio::test]
async fn of_two_answers_at_once_one_counts() {
    let ledger = Ledger::default();
    let tools = Arc::new(ledger.clone());
    let replies = script().calls("gated", json!({"n": 1})).says("Done.");
    let change = |config: &mut jackfield::ServerConfig| config.confirm_tools = vec!["gated".to_owned()];
    let server = TestServer::build_with(replies, change, |builder| builder.tools(tools)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "write_confirmation_required").await;
    client.expect("stream_chunk").await;
    for answer in ["first", "second"] {
        client.confirm(&session, answer, true).await;
    }
    assert_eq!(client.next_of("first").await["data"]["approved"], true);
    assert_eq!(client.next_of("second").await["error"]["code"], "NO_PENDING_CONFIRMATION");
    client.turn_to_end(&id).await;
    assert_eq!(ledger.runs("gated"), [1]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_stranger_finds_nothing_to_confirm_while_the_call_waits() {
    let ledger = Ledger::default();
    let tools = Arc::new(ledger.clone());
    let replies = script().calls("gated", json!({"n": 1})).says("Not done.");
    let change = |config: &mut jackfield::ServerConfig| config.confirm_tools = vec!["gated".to_owned()];
    let server = TestServer::build_with(replies, change, |builder| builder.tools(tools).auth(Arc::new(Tokens))).await;
    let mut alice = client(&server, "alice@acme").await;
    let session = alice.create_session().await;
    let id = alice.send_message(&session, "go").await;
    alice.skip_to(&id, "write_confirmation_required").await;
    alice.expect("stream_chunk").await;
    for token in ["bob@acme", "nobody@acme", "alice@other"] {
        let mut stranger = client(&server, token).await;
        stranger.confirm(&session, "stray", true).await;
        stranger.expect_error("NO_PENDING_CONFIRMATION").await;
    }
    assert!(ledger.runs("gated").is_empty());
    alice.confirm(&session, &id, false).await;
    alice.turn_to_end(&id).await;
    assert!(ledger.runs("gated").is_empty());
    server.shutdown().await;
}
