//! Stopping a server.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jackfield::{ServerConfig, local::LocalServer, server::StartError};
use jackfield_plugin_api::prelude::*;
use jackfield_tests::{
    client::{TestClient, answer_text},
    http::get,
    model::{ScriptedModel, script},
    server::TestServer,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

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

/// A tool that works for a while and then says that it is done.
struct Slow(Arc<AtomicBool>);

#[async_trait]
impl ToolProvider for Slow {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        let done = self.0.clone();
        vec![tool("slow", "Works.", Effect::ReadOnly, move |_: Nothing, _| {
            let done = done.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                done.store(true, Ordering::SeqCst);
                Ok::<_, ToolError>("worked")
            }
        })]
    }
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[tokio::test]
async fn a_turn_whose_client_has_left_is_waited_for() {
    let done = Arc::new(AtomicBool::new(false));
    let replies = script().calls("slow", json!({})).says("Done.");
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(Slow(done.clone())))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "stream_chunk").await;
    drop(client);
    server.shutdown().await;
    assert!(done.load(Ordering::SeqCst), "the tool came to its end");
}

#[tokio::test]
async fn whoever_gives_up_the_wait_ends_the_server_at_once() {
    let server = TestServer::with_model(script().hangs()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    let waiting = tokio::time::timeout(Duration::from_millis(100), server.into_handle().shutdown());
    assert!(waiting.await.is_err(), "the turn is waited for");
    client.skip_to(&id, "cancelled").await;
    assert_eq!(client.closed().await, Some(1001));
}

#[tokio::test]
async fn a_request_that_never_ends_holds_nobody_up() {
    let server = TestServer::without_key().await;
    let addr = server.addr();
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"GET /health HT").await.unwrap();
    let idle = TcpStream::connect(addr).await.unwrap();
    server.shutdown().await;
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest).await;
    drop(idle);
    // The port is free for the next server.
    let builder = LocalServer::builder().addr(addr).config(ServerConfig::default());
    builder.spawn().await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_come_closes_its_connection() {
    let server = TestServer::with_config(script(), |config| {
        config.limits.http_header = Duration::from_millis(100);
    })
    .await;
    let mut half = TcpStream::connect(server.addr()).await.unwrap();
    half.write_all(b"GET /health HT").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), half.read_to_end(&mut rest)).await;
    let _ = closed.expect("the server closes it");
    let mut client = server.connect().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.request(json!({"action": "ping"})).await["type"], "pong", "a WebSocket is not timed");
    server.shutdown().await;
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_their_turn() {
    let server = TestServer::with_config(script(), |config| {
        config.limits.http_connections = 1;
        config.limits.http_header = Duration::from_millis(200);
    })
    .await;
    let mut half = TcpStream::connect(server.addr()).await.unwrap();
    half.write_all(b"GET /health HT").await.unwrap();
    assert_eq!(get(server.addr(), "/health").await.status, 200, "answered once there is room");
    server.shutdown().await;
}

/// Runs `serve_local` in a process of its own when [`two_signals_end_a_served_program_at_once`] says so.
#[tokio::test]
async fn the_process_of_serve_local() {
    if std::env::var_os("JACKFIELD_TEST_SERVES").is_some() {
        let ended = jackfield::local::serve_local("127.0.0.1:0").await;
        assert!(matches!(ended, Err(StartError::StoppedAtOnce(_))), "{ended:?}");
        // As a program ends that is told this.
        std::process::exit(42);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn two_signals_end_a_served_program_at_once() {
    use rustix::process::{Pid, Signal, kill_process};
    let model = ScriptedModel::start(script().hangs()).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "shutdown::the_process_of_serve_local", "--nocapture"])
        .env("JACKFIELD_TEST_SERVES", "yes")
        .envs([("SMOOAI_GATEWAY_URL", model.base_url()), ("SMOOAI_GATEWAY_KEY", "k".to_owned())])
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = loop {
        let line = lines.next_line().await.unwrap().expect("it says where it listens");
        if let Some((_, url)) = line.split_once("listening on ") {
            break url.trim().to_owned();
        }
    };
    let mut client = TestClient::connect(&url).await;
    let session = client.create_session().await;
    client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    let signal = || kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    let mut idle = TestClient::connect(&url).await;
    signal();
    assert_eq!(idle.closed().await, Some(1001), "the first one is heard");
    signal();
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.expect("the second one ends it");
    assert_eq!(status.unwrap().code(), Some(42));
}
