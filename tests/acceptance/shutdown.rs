//! Stopping a server.

use std::time::Duration;

use jackfield_tests::{client::answer_text, model::script, server::TestServer};

#[tokio::test]
async fn idle_connections_are_closed_with_1001_at_once() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    client.create_session().await;
    let (code, ()) = tokio::join!(client.closed(), server.shutdown());
    assert_eq!(code, Some(1001));
}

#[tokio::test]
async fn a_running_turn_ends_before_its_connection_does() {
    let server = TestServer::with_model(script().says("Done.").after(Duration::from_millis(300))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    let reading = async {
        let frames = client.turn_to_end(&id).await;
        assert_eq!(answer_text(&frames), "Done.");
        assert_eq!(client.closed().await, Some(1001));
    };
    tokio::join!(reading, server.shutdown());
}

#[tokio::test]
async fn a_turn_that_does_not_end_is_cancelled_at_the_deadline() {
    let server = TestServer::with_config(script().hangs(), |config| {
        config.limits.shutdown = Duration::from_millis(100);
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    let reading = async {
        client.skip_to(&id, "cancelled").await;
        assert_eq!(client.closed().await, Some(1001));
    };
    tokio::join!(reading, server.shutdown());
}

#[tokio::test]
async fn dropping_the_handle_stops_the_server_without_waiting() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    client.create_session().await;
    drop(server.into_handle());
    assert_eq!(client.closed().await, Some(1001));
}
