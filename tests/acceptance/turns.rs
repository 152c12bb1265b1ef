//! Turns: streaming, citations, usage, tools of the embedding program, and what happens when something fails.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use jackfield_tests::{
    client::{answer, answer_text, kinds, streamed_text, tool_results},
    model::script,
    server::TestServer,
};
use serde_json::{Value, json};

/// Offers tools that each do one simple thing.
pub(crate) struct Simple;

struct SimpleTool(&'static str);

#[async_trait]
impl Tool for SimpleTool {
    fn schema(&self) -> ToolSchema {
        let parameters = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": []});
        ToolSchema::new(self.0, "a tool of a test", parameters)
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        match self.0 {
            "panics" => panic!("a bug in the tool"),
            "fails" => Err(ToolError::Failed("it did not work".into())),
            "hangs" => {
                call.cancelled().await;
                std::future::pending().await
            }
            "long" => Ok("x".repeat(200_000).into()),
            "knowledge_search" => Ok("the embedder's own search".into()),
            _ => Ok(format!("done with {arguments}").into()),
        }
    }
}

#[async_trait]
impl ToolProvider for Simple {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        ["panics", "fails", "hangs", "long", "works", "knowledge_search"]
            .into_iter()
            .map(|name| Arc::new(SimpleTool(name)) as Arc<dyn Tool>)
            .collect()
    }
}

#[tokio::test]
async fn a_turn_streams_and_ends_with_what_it_streamed() {
    let server =
        TestServer::with_model(script().streams(["Hé", "llo ", "there", "there"]).usage(11, 7).cut_every(1)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "hi").await;
    assert_eq!(kinds(&frames).first(), Some(&"immediate_response"));
    assert_eq!(frames[0]["status"], 202);
    assert_eq!(streamed_text(&frames), "Héllo therethere");
    assert_eq!(answer_text(&frames), "Héllo therethere");
    assert_eq!(answer(&frames)["usage"]["promptTokens"], 11);
    assert_eq!(answer(&frames)["usage"]["completionTokens"], 7);
    assert!(answer(&frames).get("citations").is_none(), "small talk cites nothing");
    let request = &server.model().requests()[0];
    assert_eq!(request.body["stream"], true);
    server.shutdown().await;
}

#[tokio::test]
async fn a_question_about_the_demo_is_cited_and_a_greeting_is_not() {
    let server = TestServer::build(script().says("17 days.").says("Hello!"), |builder| builder.seed_kb(true)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "until when can I send an item back for return?").await;
    let citation = &answer(&frames)["citations"][0];
    assert_eq!(citation["title"], "policies/returns.md");
    assert!(citation["snippet"].as_str().unwrap().contains("17"));
    assert!(citation.get("url").is_none());
    let frames = client.turn(&session, "hi").await;
    assert!(answer(&frames).get("citations").is_none());
    let request = &server.model().requests()[0];
    let system = request.messages_of("system");
    assert!(system.iter().any(|message| message["content"].as_str().unwrap().contains("17 days")));
    server.shutdown().await;
}

#[tokio::test]
async fn suggested_replies_never_reach_the_stream() {
    let trailer = ["Sure", ".", " <sugg", "ested_replies>[\"Yes\",", "\"No\"]</suggested", "_replies>"];
    let server = TestServer::with_model(script().streams(trailer)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "ok?").await;
    assert_eq!(streamed_text(&frames).trim_end(), "Sure.");
    assert_eq!(answer_text(&frames), "Sure.");
    assert_eq!(answer(&frames)["response"]["suggestedNextActions"], json!(["Yes", "No"]));
    server.shutdown().await;
}

#[tokio::test]
async fn tools_answer_each_call_once_and_a_failure_never_ends_the_turn() {
    let replies = script()
        .calls_many([
            ("works", json!({"n": 3})),
            ("fails", json!({})),
            ("panics", json!({})),
            ("missing", json!({})),
            ("works", json!({"n": "three"})),
        ])
        .says("All tried.");
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "try them").await;
    let results = tool_results(&frames);
    let failed: Vec<(&str, bool)> = results.iter().map(|(name, is_error, _)| (*name, *is_error)).collect();
    assert_eq!(failed, [("works", false), ("fails", true), ("panics", true), ("missing", true), ("works", true)]);
    assert!(results[0].2.contains("done with"), "{results:?}");
    assert_eq!(answer_text(&frames), "All tried.");
    let second = &server.model().requests()[1];
    assert_eq!(second.tool_results().len(), 5, "the model reads one result for each call");
    server.shutdown().await;
}

#[tokio::test]
async fn the_model_gets_a_sorted_list_and_the_embedder_replaces_a_built_in() {
    let replies = script().calls("knowledge_search", json!({"n": 1})).says("Fine.");
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(Simple)).seed_kb(true)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "search").await;
    assert_eq!(tool_results(&frames)[0].2, "the embedder's own search");
    for request in server.model().requests() {
        assert!(request.tool_names().is_sorted());
        let interactions = ["request_choices", "request_identity_intake", "submit_interaction"];
        let others: Vec<&str> = request.tool_names().into_iter().filter(|name| !interactions.contains(name)).collect();
        assert_eq!(others, ["fails", "hangs", "issue_refund", "knowledge_search", "long", "panics", "works"]);
        assert_eq!(request.tool_names().len(), others.len() + interactions.len());
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_long_output_is_cut_with_a_marker_for_the_model() {
    let server =
        TestServer::build(script().calls("long", json!({})).says("Long."), |builder| builder.tools(Arc::new(Simple)))
            .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "go").await;
    let requests = server.model().requests();
    let seen = requests[1].tool_results()[0];
    assert!(seen.len() <= 64 * 1024, "{} bytes", seen.len());
    assert!(seen.contains("200000") || seen.contains("cut") || seen.contains("omitted"), "a marker says so");
    server.shutdown().await;
}

#[tokio::test]
async fn a_failing_gateway_is_one_error_and_a_record_that_the_model_never_sees() {
    let server =
        TestServer::with_model(script().status(400, &[], "{\"error\":{\"message\":\"no\"}}").says("Better.")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "first").await;
    let error = frames.last().unwrap();
    assert_eq!(error["error"]["code"], "AGENT_ERROR");
    assert!(!error.to_string().contains(jackfield_tests::server::CANARY_KEY));

    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 2, "the failure is in the history");
    client.turn(&session, "second").await;
    let roles: Vec<&str> = server.model().requests()[1]
        .messages()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .filter(|role| *role != "system")
        .map(|role| if role == "user" { "user" } else { "other" })
        .collect();
    assert_eq!(roles, ["user", "user"], "the record is not replayed");
    server.shutdown().await;
}

#[tokio::test]
async fn the_checks_of_a_message_come_in_their_order() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    client.send(json!({"action": "send_message", "requestId": "1", "sessionId": "00000000-0000-4000-8000-000000000000", "message": "x"})).await;
    client.expect_error("SESSION_NOT_FOUND").await;
    let session = client.create_session().await;
    client.send(json!({"action": "send_message", "requestId": "2", "sessionId": session.id, "message": "  "})).await;
    client.expect_error("VALIDATION_ERROR").await;
    client
        .send(
            json!({"action": "send_message", "requestId": "3", "sessionId": session.id, "message": "é".repeat(10_001)}),
        )
        .await;
    client.expect_error("VALIDATION_ERROR").await;
    client.send(json!({"action": "send_message", "requestId": "4", "sessionId": session.id, "message": "x", "skill": "../x"})).await;
    client.expect_error("SKILL_NOT_FOUND").await;
    client.send(json!({"action": "send_message", "requestId": "5", "sessionId": session.id, "message": "x"})).await;
    let error = client.expect_error("LLM_UNAVAILABLE").await;
    assert!(error["error"]["message"].as_str().unwrap().contains("SMOOAI_GATEWAY_KEY"));
    server.shutdown().await;
}

#[tokio::test]
async fn the_iteration_cap_ends_the_turn_with_what_there_is_and_with_usage() {
    let replies = script().calls("works", json!({})).usage(5, 1).calls("works", json!({"n": 1})).usage(6, 1);
    let server = TestServer::with_config(replies, |config| config.max_iterations = 2).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "loop").await;
    assert_eq!(frames.last().unwrap()["type"], "eventual_response");
    assert_eq!(answer(&frames)["usage"]["promptTokens"], 11);
    server.model().expect_no_more_requests();
    server.shutdown().await;
}

#[tokio::test]
async fn a_model_that_repeats_itself_is_stopped() {
    let mut replies = script();
    for _ in 0..5 {
        replies = replies.calls("works", json!({"n": 1}));
    }
    let server = TestServer::build(replies.says("I give up."), |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "again").await;
    assert_eq!(answer_text(&frames), "I give up.");
    assert_eq!(tool_results(&frames).len(), 5);
    server.shutdown().await;
}

#[tokio::test]
async fn tokens_are_left_out_when_the_client_does_not_want_them() {
    let server = TestServer::with_model(script().says("Quiet.")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message_with(&session, "hush", json!({"stream": false})).await;
    let frames = client.turn_to_end(&id).await;
    assert_eq!(kinds(&frames), ["immediate_response", "eventual_response"]);
    assert_eq!(answer_text(&frames), "Quiet.");
    server.shutdown().await;
}

#[tokio::test]
async fn a_keepalive_goes_out_while_a_turn_runs() {
    let server =
        TestServer::with_config(script().hangs(), |config| config.limits.keepalive = Duration::from_millis(50)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "wait").await;
    client.expect("immediate_response").await;
    let text = loop {
        use futures_util::StreamExt;
        let message = client.socket().next().await.unwrap().unwrap();
        if let Ok(text) = message.to_text() {
            break text.to_owned();
        }
    };
    let frame: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(frame["type"], "keepalive");
    assert_eq!(frame["data"]["requestId"], id.as_str());
    client.cancel().await;
    client.skip_to(&id, "cancelled").await;
    server.shutdown().await;
}
