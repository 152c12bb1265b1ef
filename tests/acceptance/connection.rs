//! Frames that are no actions, `ping`, and the HTTP routes beside the socket.

use jackfield_tests::server::TestServer;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One plain HTTP request; the whole answer.
pub(crate) async fn http(server: &TestServer, request: &str) -> String {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn ping_is_answered_with_its_id_and_without_one() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    let pong = client.request(json!({"action": "ping", "requestId": "p1"})).await;
    assert_eq!(pong["type"], "pong");
    client.send(json!({"action": "ping"})).await;
    assert!(client.expect("pong").await.get("requestId").is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_no_action_is_refused_and_the_connection_stays_open() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    for (frame, code) in [
        ("{not json", "VALIDATION_ERROR"),
        ("[1, 2]", "VALIDATION_ERROR"),
        ("{\"action\": 7}", "VALIDATION_ERROR"),
        ("{\"action\": \"fly\"}", "UNSUPPORTED_ACTION"),
        ("{\"action\": \"send_message\"}", "VALIDATION_ERROR"),
        ("{\"action\": \"get_session\"}", "VALIDATION_ERROR"),
    ] {
        client.send_text(frame).await;
        let error = client.expect_error(code).await;
        assert!(error.get("requestId").is_none(), "nothing to echo: {error}");
    }
    client.send_binary(b"{}".to_vec()).await;
    client.expect_error("VALIDATION_ERROR").await;
    let pong = client.request(json!({"action": "ping"})).await;
    assert_eq!(pong["type"], "pong");
    server.shutdown().await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_closes_the_connection_with_1009() {
    let server = TestServer::with_config(jackfield_tests::model::script(), |config| {
        config.limits.inbound_frame_bytes = 1000;
    })
    .await;
    for size in [1100, 5000] {
        let mut client = server.connect().await;
        client.send_text(&format!("{{\"action\":\"ping\",\"x\":\"{}\"}}", "x".repeat(size))).await;
        assert_eq!(client.closed().await, Some(1009), "{size} bytes");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn health_is_plain_and_ws_without_an_upgrade_is_a_client_error_but_not_404() {
    let server = TestServer::without_key().await;
    let answer = http(&server, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("text/plain") && answer.ends_with("\r\n\r\nok"), "{answer}");
    let answer = http(&server, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 426"), "{answer}");
    server.shutdown().await;
}
