//! Sessions, conversations, history and lists.

use jackfield_tests::{model::script, server::TestServer};
use serde_json::json;

#[tokio::test]
async fn a_session_can_be_described_and_an_unknown_one_does_not_exist() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    let session = client.create_session_with(json!({"userName": "Alice"})).await;
    let reply = client.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(reply["data"]["conversationId"], session.conversation_id.as_str());
    assert_eq!(reply["data"]["threadId"], session.conversation_id.as_str());
    assert_eq!(reply["data"]["status"], "active");

    for id in ["nonsense", "00000000-0000-4000-8000-000000000000"] {
        client.send(json!({"action": "get_session", "sessionId": id})).await;
        client.expect_error("SESSION_NOT_FOUND").await;
    }
    client.send(json!({"action": "create_conversation_session", "agentId": "  "})).await;
    client.expect_error("VALIDATION_ERROR").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_session_outlives_its_connection_and_a_conversation_can_be_resumed() {
    let server = TestServer::with_model(script().says("One.").says("Two.")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "first").await;
    client.close().await;

    let mut client = server.connect().await;
    client.turn(&session, "second").await;
    let resumed = client.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_eq!(resumed.conversation_id, session.conversation_id);
    assert_ne!(resumed.id, session.id);
    assert_eq!(resumed.user_participant_id, session.user_participant_id, "participants are used again");
    let fresh = client.create_session_with(json!({"conversationId": "00000000-0000-4000-8000-000000000000"})).await;
    assert_ne!(fresh.conversation_id, session.conversation_id);

    let second = &server.model().requests()[1];
    let said: Vec<&str> =
        second.messages().iter().filter(|m| m["role"] != "system").map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["first", "One.", "second"]);
    server.shutdown().await;
}

#[tokio::test]
async fn history_pages_give_each_message_once_newest_first() {
    let mut replies = script();
    for number in 0..4 {
        replies = replies.says(&format!("reply {number}"));
    }
    let server = TestServer::with_model(replies).await;
    let mut client = server.connect().await;
    let session = client.create_session_with(json!({"userName": "Alice"})).await;
    for number in 0..4 {
        client.turn(&session, &format!("message {number}")).await;
    }

    let mut texts = Vec::new();
    let mut cursor = None;
    loop {
        let mut frame = json!({"action": "get_conversation_messages", "sessionId": session.id, "limit": 4});
        if let Some(cursor) = &cursor {
            frame["cursor"] = json!(cursor);
        }
        let page = client.request(frame).await;
        let rows = page["data"]["messages"].as_array().unwrap().clone();
        assert_eq!(rows.len(), 4, "an exactly full page promises nothing that is not there");
        texts.extend(rows.iter().map(|row| row["content"]["text"].as_str().unwrap().to_owned()));
        assert_eq!(rows[3]["from"]["name"], "Alice");
        match page["data"]["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let expected: Vec<String> = (0..4).rev().flat_map(|n| [format!("reply {n}"), format!("message {n}")]).collect();
    assert_eq!(texts, expected);

    let before =
        json!({"action": "get_conversation_messages", "sessionId": session.id, "before": "2001-01-01T00:00:00Z"});
    assert_eq!(client.request(before).await["data"]["messages"], json!([]));
    let foreign = json!({"action": "get_conversation_messages", "sessionId": session.id,
        "cursor": "00000000-0000-4000-8000-000000000000"});
    client.send(foreign).await;
    client.expect_error("VALIDATION_ERROR").await;
    server.shutdown().await;
}

#[tokio::test]
async fn conversations_are_listed_by_their_last_message_and_renamed() {
    let server = TestServer::with_model(script().says("a").says("b").says("c")).await;
    let mut client = server.connect().await;
    let older = client.create_session().await;
    client.turn(&older, "About invoices").await;
    let newer = client.create_session().await;
    client.turn(&newer, "About parcels").await;
    client.create_session().await;

    let list = client.request(json!({"action": "list_conversations"})).await;
    let titles = |list: &serde_json::Value| -> Vec<String> {
        let rows = list["data"]["conversations"].as_array().unwrap();
        rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(titles(&list), ["About parcels", "About invoices"], "an empty conversation is left out");

    client.turn(&older, "more").await;
    let list = client.request(json!({"action": "list_conversations", "limit": 1})).await;
    assert_eq!(titles(&list), ["About invoices"], "a message moves its conversation up");
    assert_eq!(list["data"]["conversations"][0]["messageCount"], 4);
    assert_eq!(list["data"]["hasMore"], true);
    let next = json!({"action": "list_conversations", "limit": 1, "cursor": list["data"]["nextCursor"]});
    let list = client.request(next).await;
    assert_eq!(titles(&list), ["About parcels"]);
    assert_eq!(list["data"]["nextCursor"], json!(null));

    let rename = json!({"action": "rename_conversation", "conversationId": newer.conversation_id, "title": " \"My   parcels\" "});
    assert_eq!(client.request(rename).await["data"]["title"], "My parcels");
    let list = client.request(json!({"action": "list_conversations", "query": "PARCELS"})).await;
    assert_eq!(titles(&list), ["My parcels"]);
    client.send(json!({"action": "rename_conversation", "conversationId": "x", "title": "y"})).await;
    client.expect_error("CONVERSATION_NOT_FOUND").await;
    server.shutdown().await;
}

#[tokio::test]
async fn nothing_waits_for_an_interaction_or_a_code() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client
        .send(json!({"action": "submit_interaction", "requestId": "s", "sessionId": session.id, "interactionId": "x",
        "declined": true}))
        .await;
    client.expect_error("NO_PENDING_INTERACTION").await;
    let verify = json!({"action": "verify_otp", "requestId": "v", "sessionId": session.id, "code": "123456"});
    let invalid = client.request(verify).await;
    assert_eq!(invalid["data"]["data"]["error"], "NOT_FOUND");
    server.shutdown().await;
}
