//! What other servers of this protocol got wrong, one test for each bug, named by what went wrong. Each would fail on a
//! server that has the bug.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jackfield::local::LocalServer;
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use jackfield_tests::{
    client::{TestClient, TestSession, answer, answer_text, kinds, streamed_text, tool_results},
    model::{ScriptedModel, script, script::text_chunk},
    server::{CANARY_KEY, TestServer, any_port, config_for},
};
use serde_json::{Value, json};

use crate::turns::Simple;

async fn history(client: &mut TestClient, session: &TestSession, fields: Value) -> Value {
    let mut frame = json!({"action": "get_conversation_messages", "sessionId": session.id});
    for (key, value) in fields.as_object().unwrap() {
        frame[key] = value.clone();
    }
    client.request(frame).await["data"].clone()
}

#[tokio::test]
async fn broken_tool_arguments_silently_became_an_empty_object() {
    let replies =
        script().calls("works", json!("{\"n\": 1")).calls("works", json!("[1]")).calls("works", json!("")).says("ok");
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "go").await;
    let results = tool_results(&frames);
    let failed: Vec<bool> = results.iter().map(|(_, is_error, _)| *is_error).collect();
    assert_eq!(failed, [true, true, false], "{results:?}");
    assert!(results[0].2.contains("JSON") && results[1].2.contains("object"), "{results:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_yes_that_came_after_the_deadline_approved_the_next_call() {
    let replies = script()
        .calls("works", json!({"n": 1}))
        .calls("works", json!({"n": 2}))
        .after(Duration::from_millis(500))
        .says("Nothing was done.");
    let model = ScriptedModel::start(replies).await;
    let mut config = config_for(&model);
    config.confirm_tools = vec!["works".to_owned()];
    config.limits.confirmation = Duration::from_millis(150);
    let builder = LocalServer::builder().addr(any_port()).config(config);
    let server = builder.tools(Arc::new(Simple)).spawn().await.unwrap();
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let turn = client.send_message(&session, "go").await;
    loop {
        let chunk = client.skip_to(&turn, "stream_chunk").await;
        if chunk.pointer("/data/state/rawResponse/toolResult").is_some() {
            break;
        }
    }
    // The first question has expired and the second is not asked yet.
    let yes = json!({"action": "confirm_tool_action", "requestId": "late", "sessionId": session.id, "approved": true});
    assert_eq!(client.request(yes).await["error"]["code"], "NO_PENDING_CONFIRMATION");
    let frames = client.turn_to_end(&turn).await;
    assert!(kinds(&frames).contains(&"write_confirmation_required"), "{frames:?}");
    let results = tool_results(&frames);
    assert!(results[0].1 && results[0].2.contains("timed out"), "{results:?}");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn frames_of_the_turn_came_after_cancelled() {
    let server = TestServer::with_model(script().paced(5000, Duration::from_millis(1)).forever()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for _ in 0..10 {
        let turn = client.send_message(&session, "go").await;
        client.skip_to(&turn, "stream_token").await;
        client.cancel().await;
        // The client of the test fails on any frame of the turn behind its end, and on one that was not announced.
        client.skip_to(&turn, "cancelled").await;
        client.expect_silence(Duration::from_millis(20)).await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_stop_in_one_conversation_killed_the_turn_of_another_on_the_same_socket() {
    let server = TestServer::with_model(script().says("Whole.").after(Duration::from_millis(200))).await;
    let mut client = server.connect().await;
    let (running, idle) = (client.create_session().await, client.create_session().await);
    let turn = client.send_message(&running, "go").await;
    client.expect("immediate_response").await;
    client.send(json!({"action": "cancel", "requestId": "stop", "sessionId": idle.id})).await;
    assert_eq!(answer_text(&client.turn_to_end(&turn).await), "Whole.");
    server.shutdown().await;
}

#[tokio::test]
async fn history_limits_and_cursors_were_taken_as_they_came() {
    let mut replies = script();
    for _ in 0..55 {
        replies = replies.says("ok");
    }
    let server = TestServer::with_model(replies).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for number in 0..55 {
        client.turn(&session, &number.to_string()).await;
    }
    let count = |page: &Value| page["messages"].as_array().unwrap().len();
    assert_eq!(count(&history(&mut client, &session, json!({"limit": 5000})).await), 100, "capped");
    for default in [json!({}), json!({"limit": 0}), json!({"limit": -3}), json!({"limit": null})] {
        assert_eq!(count(&history(&mut client, &session, default.clone()).await), 50, "{default}");
    }
    // An old client pages by time; the same rows come once each.
    let newest = history(&mut client, &session, json!({"limit": 100})).await;
    let last = newest["messages"][99]["createdAt"].clone();
    let older = history(&mut client, &session, json!({"before": last, "limit": 100})).await;
    assert!(count(&older) <= 10, "{older}");
    for cursor in ["garbage", "00000000-0000-4000-8000-000000000000"] {
        let frame = json!({"action": "get_conversation_messages", "sessionId": session.id, "cursor": cursor});
        assert_eq!(client.request(frame).await["error"]["code"], "VALIDATION_ERROR", "{cursor}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn more_than_200_messages_were_counted_as_200() {
    let server = TestServer::with_model(script().says("ok").forever()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for number in 0..101 {
        client.turn(&session, &number.to_string()).await;
    }
    let list = client.request(json!({"action": "list_conversations"})).await;
    assert_eq!(list["data"]["conversations"][0]["messageCount"], 202);
    server.shutdown().await;
}

#[tokio::test]
async fn estimated_tokens_were_shown_as_if_they_had_been_measured() {
    let replies = script()
        .says("no numbers")
        .no_usage()
        .calls("works", json!({}))
        .usage(5, 2)
        .says("half the numbers")
        .no_usage()
        .calls("works", json!({}))
        .usage(5, 2)
        .says("all the numbers")
        .usage(7, 3);
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for text in ["no numbers", "half the numbers"] {
        let frames = client.turn(&session, "go").await;
        assert_eq!(answer_text(&frames), text);
        assert!(answer(&frames).get("usage").is_none(), "{}", answer(&frames));
    }
    let frames = client.turn(&session, "go").await;
    let usage = &answer(&frames)["usage"];
    assert_eq!((&usage["promptTokens"], &usage["completionTokens"]), (&json!(12), &json!(5)));
    server.shutdown().await;
}

#[tokio::test]
async fn a_request_id_that_is_no_string_was_dropped_without_a_hint() {
    let server = TestServer::without_key().await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for action in ["send_message", "verify_otp", "submit_interaction", "resume_turn"] {
        let frame = json!({"action": action, "requestId": 7, "sessionId": session.id, "message": "x", "code": "1"});
        client.send(frame).await;
        let error = client.expect_error("VALIDATION_ERROR").await;
        let text = error["error"]["message"].as_str().unwrap();
        assert!(text.contains("must be a string") && text.contains("number 7"), "{text}");
        assert!(error.get("requestId").is_none(), "{error}");
    }
    client.send(json!({"action": "ping", "requestId": {"a": 1}})).await;
    assert!(client.expect("pong").await.get("requestId").is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn sessions_piled_up_for_ever() {
    let server = TestServer::with_config(script().says("ok").forever(), |config| {
        config.limits.session_idle = Duration::from_millis(300);
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "hi").await;
    let gone = async {
        // Looking at it through a list does not count as using it.
        loop {
            let list = client.request(json!({"action": "list_conversations"})).await;
            if list["data"]["conversations"] == json!([]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("what is idle expires");
    let refused = client.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(refused["error"]["code"], "SESSION_NOT_FOUND");
    server.shutdown().await;

    let server = TestServer::with_config(script().says("ok").forever(), |config| config.limits.sessions = 3).await;
    let mut client = server.connect().await;
    let mut sessions = Vec::new();
    for number in 0..4 {
        let session = client.create_session().await;
        client.turn(&session, &number.to_string()).await;
        sessions.push(session);
    }
    let oldest = client.request(json!({"action": "get_session", "sessionId": sessions[0].id})).await;
    assert_eq!(oldest["error"]["code"], "SESSION_NOT_FOUND", "the longest idle one made room");
    for session in &sessions[1..] {
        let found = client.request(json!({"action": "get_session", "sessionId": session.id})).await;
        assert_eq!(found["data"]["sessionId"], session.id.as_str());
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_cut_tool_result_looked_like_a_whole_one() {
    let server =
        TestServer::build(script().calls("long", json!({})).says("ok"), |builder| builder.tools(Arc::new(Simple)))
            .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "go").await;
    let shown = tool_results(&frames)[0].2;
    assert_eq!(shown.chars().count(), 500);
    assert!(shown.ends_with('…'), "{shown}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_turn_whose_client_had_left_was_not_waited_for_at_shutdown() {
    let model = ScriptedModel::start(script().says("Done.").after(Duration::from_millis(400))).await;
    let server = LocalServer::builder().addr(any_port()).config(config_for(&model)).spawn().await.unwrap();
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    model.wait_for_requests(1).await;
    client.close().await;
    server.shutdown().await.unwrap();
    // A reply that was cut off would be noticed by now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!model.requests()[0].aborted, "the turn was cut off");
}

#[tokio::test]
async fn a_reply_of_thoughts_alone_was_empty() {
    let thought =
        json!({ "choices": [{ "index": 0, "delta": { "reasoning": "It is 17 days." }, "finish_reason": "stop" }] });
    let server = TestServer::with_model(script().chunks(vec![thought]).streams([])).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "how long?").await;
    assert_eq!(kinds(&frames), ["immediate_response", "stream_reasoning", "eventual_response"]);
    assert_eq!(answer_text(&frames), "It is 17 days.");

    // A reply of nothing at all is told as such and not stored.
    let frames = client.turn(&session, "and now?").await;
    assert_eq!(answer(&frames)["response"]["responseParts"], json!([""]));
    let page = history(&mut client, &session, json!({})).await;
    let texts: Vec<&str> =
        page["messages"].as_array().unwrap().iter().filter_map(|row| row["content"]["text"].as_str()).collect();
    assert_eq!(texts, ["and now?", "It is 17 days.", "how long?"]);
    server.shutdown().await;
}

#[tokio::test]
async fn thinking_was_streamed_to_a_client_that_wanted_no_stream() {
    let server = TestServer::with_model(script().thinks("hm", "Yes.")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let turn = client.send_message_with(&session, "?", json!({"stream": false})).await;
    let frames = client.turn_to_end(&turn).await;
    assert_eq!(kinds(&frames), ["immediate_response", "eventual_response"]);
    assert_eq!(answer_text(&frames), "Yes.");
    server.shutdown().await;
}

/// Two tools that tell the client application where to go.
struct Guides(&'static str, Option<Value>);

#[async_trait]
impl Tool for Guides {
    fn schema(&self) -> ToolSchema {
        ToolSchema::new(self.0, "guides the client", json!({"type": "object"}))
    }

    async fn execute(&self, _: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        let mut output = ToolOutput::from("guided".to_owned());
        if let Some(Value::Object(directive)) = self.1.clone() {
            output = output.with_directive(directive);
        }
        Ok(output)
    }
}

struct OffersGuides;

#[async_trait]
impl ToolProvider for OffersGuides {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        vec![
            Arc::new(Guides("to_cart", Some(json!({"navigate": "/cart"})))),
            Arc::new(Guides("to_help", Some(json!({"navigate": "/help", "tab": 2})))),
            Arc::new(Guides("nowhere", None)),
        ]
    }
}

#[tokio::test]
async fn a_directive_leaked_into_turns_that_set_none() {
    let replies = script()
        .calls_many([("to_cart", json!({})), ("to_help", json!({})), ("nowhere", json!({}))])
        .says("There.")
        .calls("nowhere", json!({}))
        .says("Here.");
    let server = TestServer::build(replies, |builder| builder.tools(Arc::new(OffersGuides))).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "guide me").await;
    assert_eq!(answer(&frames)["directive"], json!({"navigate": "/help", "tab": 2}), "the last one wins");
    let frames = client.turn(&session, "stay").await;
    assert!(answer(&frames).get("directive").is_none(), "{}", answer(&frames));
    server.shutdown().await;
}

/// Every way a gateway can fail a turn, seen from the client: what it said before, one error, the slot free again.
#[tokio::test]
async fn a_failing_gateway_left_turns_without_an_end_or_ended_them_as_if_nothing_had_happened() {
    let in_stream = format!("data: {}\n\ndata: {{\"error\":{{\"message\":\"over capacity\"}}}}\n\n", text_chunk("par"));
    let faults = [
        ("an error in the stream", script().raw([in_stream]), "par", "over capacity"),
        ("a stream cut off", script().breaks_after(["par"]), "par", "cut off"),
        ("an end without a reason", script().raw([format!("data: {}\n\n", text_chunk("par"))]), "par", "cut off"),
        ("nothing at all", script().raw([""]), "", "cut off"),
        ("a page", script().raw(["<html><title>Login</title></html>"]), "", "Login"),
        ("garbage", script().raw(["data: {]\n\ndata: [DONE]\n\n"]), "", "unexpected"),
        ("a refusal", script().status(401, &[], r#"{"error":{"message":"bad key"}}"#), "", "bad key"),
        ("overload", script().status(503, &[], "busy").status(503, &[], "busy"), "", "503"),
        ("a connection that drops", script().drops().drops(), "", "could not be reached"),
        ("silence", script().hangs(), "", "silent"),
        ("silence in the middle", script().hangs_after(["par"]), "par", "silent"),
    ];
    for (name, replies, said, reason) in faults {
        let server = TestServer::with_config(replies, |config| {
            config.limits.model_idle = Duration::from_millis(200);
            config.limits.model_retries = 1;
            config.limits.model_retry_jitter = Duration::ZERO;
        })
        .await;
        let mut client = server.connect().await;
        let session = client.create_session().await;
        let frames = client.turn(&session, "go").await;
        assert_eq!(streamed_text(&frames), said, "{name}");
        let end = frames.last().unwrap();
        assert_eq!(end["error"]["code"], "AGENT_ERROR", "{name}: {end}");
        let text = end["error"]["message"].as_str().unwrap();
        assert!(text.contains(reason) && !text.contains(CANARY_KEY), "{name}: {text}");

        server.model().replace(script().says("Better."));
        assert_eq!(answer_text(&client.turn(&session, "again").await), "Better.", "{name}");
        let page = history(&mut client, &session, json!({})).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), 4, "{name}: the failure is in the history");
        assert!(!page["messages"][2].to_string().contains(reason), "{name}: its text is not");
        server.shutdown().await;
    }
}
