//! What happens at the limits that a client can reach.

use std::time::Duration;

use jackfield_tests::{
    client::{Connect, answer_text},
    model::script,
    server::TestServer,
};
use serde_json::json;

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_its_turn_goes_on() {
    let big = "x".repeat(200_000);
    let pieces: Vec<&str> = std::iter::repeat_n(big.as_str(), 40).collect();
    let server = TestServer::with_config(script().streams(pieces), |config| {
        config.limits.outgoing_bytes = 100_000;
        config.limits.model_reply_bytes = 64 * 1024 * 1024;
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.send_message(&session, "flood").await;

    // Nothing is read until the turn is over, which the history tells on another connection.
    let mut other = server.connect().await;
    let stored = async {
        loop {
            let page = json!({"action": "get_conversation_messages", "sessionId": session.id});
            if other.request(page).await["data"]["messages"].as_array().unwrap().len() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stored).await.expect("a slow client never stops a turn");
    // What the system had buffered can still be read; then the connection is over, without the turn's end. Whether the
    // close frame got through is up to the client's own buffers.
    let code = client.closed().await;
    assert!(matches!(code, None | Some(1013)), "{code:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_full_server_says_so_and_has_room_again_when_somebody_leaves() {
    let server = TestServer::with_config(script(), |config| config.limits.connections = 1).await;
    let client = server.connect().await;
    let refused = Connect::to(server.ws_url()).open().await.err().expect("there is no room");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("limits.connections"), "{}", refused.body);
    client.close().await;
    let again = async {
        while Connect::to(server.ws_url()).open().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the place is free again");
    server.shutdown().await;
}

#[tokio::test]
async fn history_shows_the_model_the_newest_messages() {
    let mut replies = script();
    for number in 0..4 {
        replies = replies.says(&format!("reply {number}"));
    }
    let server = TestServer::with_config(replies, |config| config.limits.history_messages = 4).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for number in 0..4 {
        let frames = client.turn(&session, &format!("message {number}")).await;
        assert_eq!(answer_text(&frames), format!("reply {number}"));
    }
    let last = &server.model().requests()[3];
    let said: Vec<&str> =
        last.messages().iter().filter(|m| m["role"] != "system").map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["message 1", "reply 1", "message 2", "reply 2", "message 3"]);
    server.shutdown().await;
}
