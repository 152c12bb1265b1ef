//! Who may drive the agent: one test for each person.

use std::sync::Arc;

use jackfield::auth::LocalTokenVerifier;
use jackfield_tests::{client::Connect, model::script, server::TestServer};

use crate::connection::http;

#[tokio::test]
async fn a_hostile_page_is_refused_and_told_nothing_but_the_flag() {
    let server = TestServer::without_key().await;
    for origin in ["https://evil.example", "null", "http://localhost:5173", "http://127.0.0.1:1"] {
        let refused = Connect::to(server.ws_url()).origin(origin).open().await.err().expect(origin);
        assert_eq!(refused.status, 403, "{origin}");
        assert!(refused.body.contains("--allow-origin"), "{}", refused.body);
    }
    // A page that points a name of its own at us.
    let rebound = http(&server, "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert!(rebound.starts_with("HTTP/1.1 403") && rebound.contains("--allow-host"), "{rebound}");
    server.shutdown().await;
}

#[tokio::test]
async fn the_listed_page_of_a_front_end_developer_passes_and_so_does_our_own() {
    let server = TestServer::build(script(), |builder| builder.allowed_origins(["http://localhost:5173"])).await;
    let own = format!("http://{}", server.addr());
    for origin in ["http://localhost:5173", own.as_str()] {
        let mut client = Connect::to(server.ws_url()).origin(origin).open().await.expect(origin);
        client.create_session().await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_program_passes() {
    let server = TestServer::without_key().await;
    server.connect().await.create_session().await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_token_holder_reaches_the_server_under_an_address_of_a_private_network() {
    let server = TestServer::build(script(), |builder| {
        builder.auth(Arc::new(LocalTokenVerifier::new("open sesame"))).strict_auth(true)
    })
    .await;
    let tailnet = |connect: Connect| connect.header("Host", "100.101.102.103:8787");
    let mut client =
        tailnet(Connect::to(server.ws_url()).token("open sesame")).open().await.expect("the token is good");
    client.create_session().await;
    let mut client = Connect::to(server.ws_url())
        .header("Authorization", "Bearer open sesame")
        .open()
        .await
        .expect("a header will do");
    client.create_session().await;
    for connect in [Connect::to(server.ws_url()), Connect::to(server.ws_url()).token("wrong")] {
        let refused = connect.open().await.err().expect("strict");
        assert_eq!((refused.status, refused.body.as_str()), (401, "unauthorized"));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn without_strictness_a_bad_token_makes_an_anonymous_visitor() {
    let server =
        TestServer::build(script(), |builder| builder.auth(Arc::new(LocalTokenVerifier::new("open sesame")))).await;
    let mut client = Connect::to(server.ws_url()).token("wrong").open().await.expect("anonymous");
    client.create_session().await;
    server.shutdown().await;
}
