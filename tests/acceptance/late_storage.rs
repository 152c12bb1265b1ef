//! A create that nobody uses leaves nothing behind.

use std::time::Duration;

use jackfield_tests::{
    client::{TestClient, TestSession, answer_text},
    model::script,
    server::TestServer,
};
use serde_json::{Value, json};

fn rename(session: &TestSession) -> Value {
    json!({"action": "rename_conversation", "conversationId": session.conversation_id, "title": "Named"})
}

/// Whether the conversation is stored, which a rename tells.
async fn is_stored(client: &mut TestClient, session: &TestSession) -> bool {
    let reply = client.request(rename(session)).await;
    if reply["type"] == "error" {
        assert_eq!(reply["error"]["code"], "CONVERSATION_NOT_FOUND", "{reply}");
    }
    reply["type"] == "immediate_response"
}

/// Waits until the session is gone.
async fn gone(client: &mut TestClient, session: &TestSession) {
    let waiting = async {
        while client.request(json!({"action": "get_session", "sessionId": session.id})).await["type"] != "error" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the session goes with its connection");
}

#[tokio::test]
async fn an_unused_create_can_be_used_and_is_stored_with_the_first_message() {
    let server = TestServer::with_model(script().says("Hello.")).await;
    let mut client = server.connect().await;
    let session = client.create_session_with(json!({"userName": "Bo", "metadata": {"page": "/help"}})).await;
    let described = client.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(described["data"]["conversationId"], session.conversation_id.as_str());
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"], json!({"messages": [], "nextCursor": null, "hasMore": false}));
    assert!(!is_stored(&mut client, &session).await);

    assert_eq!(answer_text(&client.turn(&session, "hi").await), "Hello.");
    assert!(is_stored(&mut client, &session).await);
    client.close().await;
    let mut client = server.connect().await;
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 2, "what was used outlives its connection");
    server.shutdown().await;
}

#[tokio::test]
async fn an_unused_session_and_its_conversation_go_together_with_the_socket() {
    let server = TestServer::with_model(script()).await;
    let mut first = server.connect().await;
    let session = first.create_session().await;
    first.close().await;
    let mut client = server.connect().await;
    gone(&mut client, &session).await;
    client.send_message(&session, "anybody there?").await;
    client.expect_error("SESSION_NOT_FOUND").await;
    let fresh = client.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_ne!(fresh.conversation_id, session.conversation_id);
    server.shutdown().await;
}

#[tokio::test]
async fn an_unused_conversation_can_be_resumed_while_its_socket_is_open() {
    let server = TestServer::with_model(script().says("One.").says("Two.")).await;
    let mut first = server.connect().await;
    let session = first.create_session_with(json!({"supports": ["choice_chips"]})).await;
    let mut second = server.connect().await;
    let resumed = second.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_eq!(resumed.conversation_id, session.conversation_id);
    assert_ne!(resumed.id, session.id);
    assert!(is_stored(&mut second, &session).await, "a create that names it has used it");
    first.turn(&session, "from the first").await;
    first.close().await;
    assert_eq!(answer_text(&second.turn(&resumed, "from the second").await), "Two.");
    assert_eq!(
        answer_text_of_history(&mut second, &session).await,
        ["Two.", "from the second", "One.", "from the first"]
    );
    server.shutdown().await;
}

async fn answer_text_of_history(client: &mut TestClient, session: &TestSession) -> Vec<String> {
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    let rows = page["data"]["messages"].as_array().unwrap();
    rows.iter().map(|row| row["content"]["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_visitor_who_says_who_they_are_is_stored_at_once() {
    let server = TestServer::with_model(script()).await;
    let mut client = server.connect().await;
    for (fields, stored) in [
        (json!({"userEmail": "bo@example.org"}), true),
        (json!({"metadata": {"userPhone": "+49 30 1234567"}}), true),
        (json!({"userEmail": "  ", "metadata": {"userPhone": "  "}}), false),
        (json!({"userName": "Bo", "browserFingerprint": "f", "metadata": {"userPhone": 49}}), false),
    ] {
        let session = client.create_session_with(fields.clone()).await;
        assert_eq!(is_stored(&mut client, &session).await, stored, "{fields}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_refusal_before_the_slots_stores_nothing_and_one_after_them_has_stored() {
    let server = TestServer::with_model(script().hangs()).await;
    let mut client = server.connect().await;
    let busy = client.create_session().await;
    let unused = client.create_session().await;
    let turn = client.send_message(&busy, "go").await;
    client.expect("immediate_response").await;
    client.send_message(&unused, "one at a time").await;
    client.expect_error("TURN_IN_PROGRESS").await;
    client.send(json!({"action": "send_message", "requestId": "blank", "sessionId": unused.id, "message": " "})).await;
    client.expect_error("TURN_IN_PROGRESS").await;
    assert!(!is_stored(&mut client, &unused).await);
    client.cancel().await;
    client.skip_to(&turn, "cancelled").await;
    server.shutdown().await;

    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.send(json!({"action": "send_message", "requestId": "blank", "sessionId": session.id, "message": " "})).await;
    client.expect_error("VALIDATION_ERROR").await;
    assert!(!is_stored(&mut client, &session).await);
    client.send_message(&session, "hi").await;
    client.expect_error("LLM_UNAVAILABLE").await;
    assert!(is_stored(&mut client, &session).await);
    server.shutdown().await;
}

#[tokio::test]
async fn a_write_that_failed_is_continued_by_the_next_message() {
    let server = TestServer::with_config(script().hangs().says("Stored after all."), |config| {
        config.limits.conversations = 1;
    })
    .await;
    let mut first = server.connect().await;
    let session = first.create_session().await;
    let turn = first.send_message(&session, "go").await;
    first.expect("immediate_response").await;

    // The one conversation that there may be is being answered, so there is no room.
    let mut second = server.connect().await;
    let waiting = second.create_session().await;
    second.send_message(&waiting, "me too").await;
    let error = second.expect_error("STORAGE_ERROR").await;
    assert!(error["error"]["message"].as_str().unwrap().contains("conversations"), "{error}");
    let mut third = server.connect().await;
    third
        .send(json!({"action": "create_conversation_session", "requestId": "c", "userEmail": "a@example.org",
            "agentId": jackfield_tests::client::AGENT_ID}))
        .await;
    third.expect_error("INTERNAL_ERROR").await;

    first.cancel().await;
    first.skip_to(&turn, "cancelled").await;
    let answered = async {
        loop {
            let turn = second.send_message(&waiting, "me too").await;
            let frames = second.turn_to_end(&turn).await;
            // The turn that was stopped may hold its conversation a moment longer.
            if frames[0]["type"] == "immediate_response" {
                return frames;
            }
            assert_eq!(frames[0]["error"]["code"], "STORAGE_ERROR");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let frames = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert_eq!(answer_text(&frames), "Stored after all.");
    server.shutdown().await;
}

#[tokio::test]
async fn a_connection_that_creates_a_lot_loses_nothing() {
    let server = TestServer::with_config(script().says("Still here."), |config| {
        config.limits.unused_sessions = 2;
    })
    .await;
    let mut client = server.connect().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(client.create_session().await);
    }
    let stored = [is_stored(&mut client, &sessions[0]).await, is_stored(&mut client, &sessions[3]).await];
    assert_eq!(stored, [true, false]);
    assert_eq!(answer_text(&client.turn(&sessions[0], "hi").await), "Still here.");
    server.shutdown().await;
}
