//! Progress of running tools on the wire, and what a client can know before it declares anything.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use jackfield_tests::{
    client::{TestClient, answer_text},
    model::script,
    server::TestServer,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::connection::http;

/// Reports a lot, then waits until the test lets it go, then reports once more.
struct Reporting(Arc<Semaphore>);

#[async_trait]
impl Tool for Reporting {
    fn schema(&self) -> ToolSchema {
        ToolSchema::new("build_index", "a tool that takes its time", json!({"type": "object"}))
    }

    async fn execute(&self, _: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        for step in 0..1000 {
            call.progress(step as f32 / 1000.0, format!("{step} of 1000"));
        }
        let go = self.0.acquire().await.map_err(|error| ToolError::Failed(error.to_string()))?;
        go.forget();
        call.progress(f32::NAN, "nearly there");
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok("built".into())
    }
}

struct Offers(Arc<Semaphore>);

#[async_trait]
impl ToolProvider for Offers {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        vec![Arc::new(Reporting(self.0.clone()))]
    }
}

fn progress(frame: &Value) -> Option<&Value> {
    frame.pointer("/data/state/rawResponse/toolProgress")
}

async fn serving() -> (TestServer, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let offers = Arc::new(Offers(gate.clone()));
    let replies = script().calls("build_index", json!({})).says("Built.");
    (TestServer::build(replies, |builder| builder.tools(offers)).await, gate)
}

/// Reads the turn's frames up to the first progress chunk.
async fn first_progress(client: &mut TestClient, turn: &str) -> Value {
    loop {
        let frame = client.skip_to(turn, "stream_chunk").await;
        if progress(&frame).is_some() {
            return frame;
        }
    }
}

#[tokio::test]
async fn progress_is_shown_throttled_and_the_latest_wins() {
    let (server, gate) = serving().await;
    let mut client = server.connect().await;
    let session = client.create_session_with(json!({"supports": ["tool_progress"]})).await;
    let turn = client.send_message(&session, "build").await;
    let shown = first_progress(&mut client, &turn).await;
    let mut latest = progress(&shown).unwrap().clone();
    // A thousand reports at once are one or two frames; the last one is what stays on the screen.
    let mut count = 1;
    while latest["message"] != "999 of 1000" {
        latest = progress(&client.next_of(&turn).await).expect("another report").clone();
        count += 1;
    }
    assert!(count <= 3, "{count} frames");
    let fraction = latest["fraction"].as_f64().unwrap();
    assert!((fraction - 0.999).abs() < 1e-5, "{latest}");
    assert_eq!((&latest["name"], &latest["callId"]), (&json!("build_index"), &json!("call_1")));

    gate.add_permits(1);
    let last = first_progress(&mut client, &turn).await;
    let last = progress(&last).unwrap();
    assert_eq!(last["message"], "nearly there");
    assert!(last.get("fraction").is_none(), "unknown is left out: {last}");
    let frames = client.turn_to_end(&turn).await;
    assert!(!frames.iter().any(|frame| progress(frame).is_some()), "nothing after the result: {frames:?}");
    assert_eq!(answer_text(&frames), "Built.");
    server.shutdown().await;
}

#[tokio::test]
async fn progress_is_neither_made_for_nor_shown_to_a_session_that_did_not_ask() {
    let (server, gate) = serving().await;
    server.model().append(script().calls("build_index", json!({})).says("Built again."));
    let mut client = server.connect().await;
    let asked = client.create_session_with(json!({"supports": ["resume", "tool_progress"]})).await;
    client.send_message_with(&asked, "build", json!({"requestId": "shown"})).await;
    first_progress(&mut client, "shown").await;

    // The client of the test fails on a progress chunk that no session of its connection declared.
    let mut other = server.connect().await;
    let fields = json!({"supports": ["resume"], "conversationId": asked.conversation_id});
    let without = other.create_session_with(fields).await;
    other.request(json!({"action": "resume_turn", "sessionId": without.id})).await;
    gate.add_permits(1);
    let frames = other.turn_to_end("shown").await;
    assert_eq!(answer_text(&frames), "Built.");
    let numbers: Vec<u64> = frames.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
    assert!(numbers.windows(2).any(|pair| pair[1] > pair[0] + 1), "the hole means nothing: {numbers:?}");
    client.turn_to_end("shown").await;

    // A turn of a session that did not ask makes none, so one that asked has nothing to see in it.
    other.send_message_with(&without, "build", json!({"requestId": "quiet"})).await;
    other.skip_to("quiet", "stream_chunk").await;
    client.request(json!({"action": "resume_turn", "sessionId": asked.id})).await;
    gate.add_permits(1);
    let frames = client.turn_to_end("quiet").await;
    assert!(!frames.iter().any(|frame| progress(frame).is_some()), "{frames:?}");
    let numbers: Vec<u64> = frames.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=frames.len() as u64).collect::<Vec<_>>());
    server.shutdown().await;
}

#[tokio::test]
async fn what_the_server_can_do_is_told_before_anything_is_declared() {
    let server = TestServer::without_key().await;
    let answer = http(&server, "GET /capabilities HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json"), "{head}");
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["protocol"], "1.66");
    assert_eq!(told["server"], json!({"name": "jackfield", "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(told["supports"], json!(["resume", "tool_progress", "identity_form", "choice_chips"]));
    server.shutdown().await;
}
