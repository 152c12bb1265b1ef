//! The schemas that the server publishes. Every test of this program reads its frames by them; here is that they are the
//! ones that a stranger gets.

use jackfield::protocol::schema::schemas;
use jackfield_tests::{
    http::{get, request},
    server::TestServer,
};

#[tokio::test]
async fn a_stranger_gets_the_schemas_that_the_tests_read_frames_by() {
    let server = TestServer::without_key().await;
    let index = get(server.addr(), "/schema/").await;
    assert_eq!((index.status, index.header("content-type")), (200, Some("application/json")));
    let index = index.json();
    let listed = index["schemas"].as_array().unwrap();
    assert_eq!(listed.len(), schemas().len());
    for (entry, known) in listed.iter().zip(schemas()) {
        assert_eq!(entry["name"], known.name);
        let served = get(server.addr(), entry["url"].as_str().unwrap()).await;
        assert_eq!((served.status, served.header("content-type")), (200, Some("application/schema+json")));
        assert_eq!(served.json(), known.schema, "{}", known.name);
        assert_eq!(served.json()["$schema"], index["dialect"]);
    }
    let names: Vec<&str> = listed.iter().filter_map(|entry| entry["name"].as_str()).collect();
    for name in ["event", "event.resume", "action", "stream_token", "stream_chunk.tool_progress", "send_message"] {
        assert!(names.contains(&name), "{name}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_the_guard_holds_here_too() {
    let server = TestServer::without_key().await;
    for path in ["/schema/nothing.json", "/schema/stream_token", "/schema/../etc/passwd"] {
        assert_eq!(get(server.addr(), path).await.status, 404, "{path}");
    }
    let rebound = request(server.addr(), "GET", "/schema/event.json", &[("host", "evil.example")], "").await;
    assert_eq!(rebound.status, 403);
    server.shutdown().await;
}
