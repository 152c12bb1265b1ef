//! Stopping turns, one turn at a time, and clients that go away.

use std::{sync::Arc, time::Duration};

use jackfield::config::OnDisconnect;
use jackfield_tests::{client::answer_text, model::script, server::TestServer};
use serde_json::json;

use crate::turns::Simple;

#[tokio::test]
async fn a_cancel_with_nothing_running_is_silent() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.send(json!({"action": "cancel", "requestId": "c", "sessionId": session.id})).await;
    client.send(json!({"action": "cancel", "sessionId": "nonsense"})).await;
    client.expect_silence(Duration::from_millis(100)).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_turn_says_so_once_drops_the_request_and_frees_its_slots() {
    let server = TestServer::with_model(script().hangs_after(["one", "two"]).says("Next.")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "stream_token").await;
    client.cancel().await;
    client.skip_to(&id, "cancelled").await;
    let frames = client.turn(&session, "at once").await;
    assert_eq!(answer_text(&frames), "Next.");
    server.model().wait_for_abort(0).await;
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    let texts: Vec<_> =
        page["data"]["messages"].as_array().unwrap().iter().map(|row| row["content"]["text"].clone()).collect();
    assert_eq!(texts, ["Next.", "at once", "go"], "a cancelled turn leaves only the question");
    server.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_tool_call_ends_at_once() {
    let server = TestServer::build(script().calls("hangs", json!({})), |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "stream_chunk").await;
    client.cancel().await;
    client.expect("cancelled").await;
    client.expect_silence(Duration::from_millis(100)).await;
    server.model().expect_no_more_requests();
    server.shutdown().await;
}

#[tokio::test]
async fn one_turn_runs_per_connection_and_per_conversation() {
    let server = TestServer::with_model(script().hangs()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let other_session = client.create_session().await;
    let id = client.send_message(&session, "first").await;
    client.expect("immediate_response").await;

    let second = client.send_message(&other_session, "same connection").await;
    let error = client.expect_error("TURN_IN_PROGRESS").await;
    assert_eq!(error["requestId"], second.as_str());
    let mut other = server.connect().await;
    other.send_message(&session, "same conversation").await;
    other.expect_error("TURN_IN_PROGRESS").await;

    // From the other connection it can be stopped, and both learn of it under the turn's id.
    other.send(json!({"action": "cancel", "requestId": "fresh", "sessionId": session.id})).await;
    assert_eq!(other.expect("cancelled").await["requestId"], id.as_str());
    client.skip_to(&id, "cancelled").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_late_stop_does_not_kill_the_next_turn() {
    let server = TestServer::with_model(script().says("One.").hangs()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let first = client.send_message(&session, "one").await;
    client.turn_to_end(&first).await;
    let second = client.send_message(&session, "two").await;
    client.expect("immediate_response").await;
    client.send(json!({"action": "cancel", "requestId": first, "sessionId": session.id})).await;
    client.expect_silence(Duration::from_millis(100)).await;
    client.send(json!({"action": "cancel", "requestId": second})).await;
    client.skip_to(&second, "cancelled").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_turn_outlives_its_connection_and_its_answer_waits() {
    let server = TestServer::with_model(script().says("Still here.").after(Duration::from_millis(200))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    client.close().await;

    let mut client = server.connect().await;
    client.send_message(&session, "meanwhile").await;
    client.expect_error("TURN_IN_PROGRESS").await;
    let answered = async {
        loop {
            let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
            if page["data"]["messages"].as_array().unwrap().len() == 2 {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert_eq!(page["data"]["messages"][0]["content"]["text"], "Still here.");
    server.shutdown().await;
}

#[tokio::test]
async fn the_policy_cancel_drops_a_turn_with_its_connection() {
    let server = TestServer::with_config(script().hangs().says("Next."), |config| {
        config.on_disconnect = OnDisconnect::Cancel;
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    server.model().wait_for_requests(1).await;
    client.close().await;
    server.model().wait_for_abort(0).await;
    let mut client = server.connect().await;
    let frames = client.turn(&session, "again").await;
    assert_eq!(answer_text(&frames), "Next.");
    server.shutdown().await;
}
