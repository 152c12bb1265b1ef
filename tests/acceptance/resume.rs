//! Coming back to a turn: numbers, replay, and the answers of humans from another socket.

use std::{sync::Arc, time::Duration};

use jackfield::{config::OnDisconnect, local::LocalServer};
use jackfield_tests::{
    client::{TestClient, TestSession, answer_text, kinds, streamed_text, tool_results},
    model::{ScriptedModel, script},
    server::{TestServer, any_port, config_for},
};
use serde_json::{Value, json};

use crate::turns::Simple;

/// A session that can resume turns.
async fn resumable(client: &mut TestClient) -> TestSession {
    client.create_session_with(json!({"supports": ["resume", "tool_progress"]})).await
}

/// Asks for the turn's events after this number, and gives the reply.
async fn resume(client: &mut TestClient, session: &TestSession, fields: Value) -> Value {
    let mut frame = json!({"action": "resume_turn", "sessionId": session.id});
    for (key, value) in fields.as_object().unwrap() {
        frame[key] = value.clone();
    }
    client.request(frame).await
}

fn seqs(frames: &[Value]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame["seq"].as_u64()).collect()
}

#[tokio::test]
async fn a_turn_is_numbered_only_for_the_session_that_declared_it() {
    let server = TestServer::with_model(script().streams(["one", "two"]).says("plain").says("inherited")).await;
    let mut client = server.connect().await;
    let session = resumable(&mut client).await;
    let frames = client.turn(&session, "go").await;
    assert_eq!(seqs(&frames), (1..=frames.len() as u64).collect::<Vec<_>>());
    assert!(frames[0]["data"]["turnId"].is_string(), "{}", frames[0]);

    // Neither a plain session nor one that resumes the conversation without the flag sees numbers: the client of the
    // test fails on a `seq` or a `turnId` that its sessions did not declare.
    let mut plain = server.connect().await;
    let other = plain.create_session().await;
    assert_eq!(answer_text(&plain.turn(&other, "go").await), "plain");
    let mut published = server.connect().await;
    let inherited = published.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_eq!(inherited.conversation_id, session.conversation_id);
    assert_eq!(answer_text(&published.turn(&inherited, "go").await), "inherited");
    server.shutdown().await;
}

#[tokio::test]
async fn a_lost_connection_is_made_up_for_without_gap_or_duplicate() {
    let server = TestServer::with_model(script().paced(40, Duration::from_millis(10))).await;
    let mut client = server.connect().await;
    let session = resumable(&mut client).await;
    client.send_message_with(&session, "go", json!({"requestId": "the-turn"})).await;
    let ack = client.expect("immediate_response").await;
    let turn_id = ack["data"]["turnId"].clone();
    let mut seen = vec![ack];
    for _ in 0..5 {
        seen.push(client.next_of("the-turn").await);
    }
    client.close().await;

    let mut client = server.connect().await;
    let session =
        client.create_session_with(json!({"supports": ["resume"], "conversationId": session.conversation_id})).await;
    let reply = resume(&mut client, &session, json!({"turnId": turn_id, "afterSeq": 6})).await;
    assert_eq!(reply["status"], 200);
    assert_eq!(reply["data"]["requestId"], "the-turn");
    assert_eq!(reply["data"]["turnId"], turn_id);
    assert_eq!(reply["data"]["state"], "running");
    assert!(reply.get("seq").is_none(), "a reply is no event of the turn");
    seen.extend(client.turn_to_end("the-turn").await);
    assert_eq!(seqs(&seen), (1..=seen.len() as u64).collect::<Vec<_>>());
    assert_eq!(streamed_text(&seen), "word ".repeat(40));
    assert_eq!(answer_text(&seen), "word ".repeat(40).trim_end());
    server.shutdown().await;
}

#[tokio::test]
async fn a_finished_turn_is_replayed_until_the_next_one_or_for_some_time() {
    let server = TestServer::with_config(script().says("one").says("two"), |config| {
        config.limits.turn_log_retention = Duration::from_millis(600);
    })
    .await;
    let mut client = server.connect().await;
    let session = resumable(&mut client).await;
    let first = client.send_message(&session, "go").await;
    let whole = client.turn_to_end(&first).await;
    let first_turn = whole[0]["data"]["turnId"].clone();

    let reply = resume(&mut client, &session, json!({})).await;
    assert_eq!((&reply["data"]["state"], &reply["data"]["turnId"]), (&json!("finished"), &first_turn));
    assert_eq!(reply["data"]["lastSeq"], whole.len());
    assert_eq!(client.turn_to_end(&first).await, whole, "the very same frames");

    // Nothing is sent again to those who have everything.
    let reply = resume(&mut client, &session, json!({"afterSeq": whole.len()})).await;
    assert_eq!(reply["data"]["state"], "finished");
    client.expect_silence(Duration::from_millis(50)).await;

    let second = client.send_message(&session, "again").await;
    let frames = client.turn_to_end(&second).await;
    let reply = resume(&mut client, &session, json!({"turnId": first_turn})).await;
    assert_eq!(reply["data"]["state"], "unknown", "the next turn took its place");
    assert_eq!(reply["data"]["lastSeq"], whole.len());
    client.expect_silence(Duration::from_millis(50)).await;

    let reply = resume(&mut client, &session, json!({"turnId": frames[0]["data"]["turnId"]})).await;
    assert_eq!(reply["data"]["state"], "finished");
    client.turn_to_end(&second).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let reply = resume(&mut client, &session, json!({})).await;
    assert_eq!(reply["data"]["state"], "unknown", "its time is over");
    client.expect_silence(Duration::from_millis(50)).await;
    server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_resumed_is_refused_in_the_order_of_the_protocol() {
    let server = TestServer::with_model(script().says("one").says("two")).await;
    let mut client = server.connect().await;
    let session = resumable(&mut client).await;
    let frame = |fields: Value| {
        let mut frame = json!({"action": "resume_turn", "requestId": "r", "sessionId": session.id});
        for (key, value) in fields.as_object().unwrap() {
            frame[key] = value.clone();
        }
        frame
    };
    for (fields, code) in [
        (json!({"requestId": null}), "VALIDATION_ERROR"),
        (json!({"sessionId": null}), "VALIDATION_ERROR"),
        (json!({"afterSeq": -1}), "VALIDATION_ERROR"),
        (json!({"afterSeq": "1"}), "VALIDATION_ERROR"),
        (json!({"turnId": 7}), "VALIDATION_ERROR"),
        (json!({"sessionId": "00000000-0000-4000-8000-000000000000"}), "SESSION_NOT_FOUND"),
        (json!({}), "TURN_NOT_FOUND"),
        (json!({"turnId": "nonsense"}), "TURN_NOT_FOUND"),
    ] {
        client.send(frame(fields.clone())).await;
        let error = client.expect_error(code).await;
        assert_eq!(error.get("requestId").is_some(), fields.get("requestId").is_none(), "{error}");
    }

    let frames = client.turn(&session, "go").await;
    let turn_id = frames[0]["data"]["turnId"].clone();
    let elsewhere = resumable(&mut client).await;
    client.send(frame(json!({"sessionId": elsewhere.id, "turnId": turn_id}))).await;
    client.expect_error("TURN_NOT_FOUND").await;
    let plain = client.create_session_with(json!({"conversationId": session.conversation_id})).await;
    client.send(frame(json!({"sessionId": plain.id, "turnId": turn_id}))).await;
    let error = client.expect_error("VALIDATION_ERROR").await;
    assert!(error["error"]["message"].as_str().unwrap().contains("\"resume\""), "{error}");
    server.shutdown().await;
}

/// A server whose tool `works` asks first.
async fn asking(
    replies: jackfield_tests::model::Script,
    change: impl FnOnce(&mut jackfield::ServerConfig),
) -> (ScriptedModel, LocalServer) {
    let model = ScriptedModel::start(replies).await;
    let mut config = config_for(&model);
    config.confirm_tools = vec!["work".to_owned()];
    change(&mut config);
    let builder = LocalServer::builder().addr(any_port()).config(config).tools(Arc::new(Simple));
    (model, builder.spawn().await.unwrap())
}

#[tokio::test]
async fn a_question_is_answered_after_coming_back_on_another_socket() {
    let (_model, server) = asking(script().calls("works", json!({"n": 9})).says("Removed."), |config| {
        // A session that said it will come back is waited for, also when nobody is there meanwhile.
        config.limits.confirmation_unattended = Duration::from_millis(50);
    })
    .await;
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = resumable(&mut client).await;
    client.send_message_with(&session, "remove entry 9", json!({"requestId": "the-turn"})).await;
    client.skip_to("the-turn", "write_confirmation_required").await;
    client.close().await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    let mut client = TestClient::connect(&server.ws_url()).await;
    let fields = json!({"supports": ["resume", "tool_progress"], "conversationId": session.conversation_id});
    let again = client.create_session_with(fields).await;
    let reply = resume(&mut client, &again, json!({"afterSeq": 1})).await;
    assert_eq!(reply["data"]["state"], "parked");
    assert_eq!(client.expect("write_confirmation_required").await["seq"], 2);
    assert_eq!(client.expect("stream_chunk").await["seq"], 3);
    client.confirm(&again, "the-turn", true).await;
    let frames = client.turn_to_end("the-turn").await;
    assert_eq!(kinds(&frames)[0], "immediate_response", "the ack comes first");
    assert!(frames[0].get("seq").is_none(), "and is not numbered: {}", frames[0]);
    assert!(!tool_results(&frames)[0].1, "{frames:?}");
    assert_eq!(answer_text(&frames), "Removed.");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_question_that_nobody_can_answer_is_denied_for_a_session_that_will_not_come_back() {
    let (_model, server) = asking(script().calls("works", json!({})).says("Nobody was there."), |config| {
        config.limits.confirmation_unattended = Duration::from_millis(50);
    })
    .await;
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let id = client.send_message(&session, "go").await;
    client.skip_to(&id, "write_confirmation_required").await;
    client.close().await;
    let mut client = TestClient::connect(&server.ws_url()).await;
    let page = history_of(&mut client, &session, 2).await;
    assert_eq!(page[0]["content"]["text"], "Nobody was there.");
    server.shutdown().await.unwrap();
}

/// Waits, naming no session but through another one, until the conversation has so many messages; newest first.
async fn history_of(client: &mut TestClient, session: &TestSession, count: usize) -> Vec<Value> {
    let waiting = async {
        loop {
            let list = client.request(json!({"action": "list_conversations"})).await;
            let rows = list["data"]["conversations"].as_array().unwrap().clone();
            if rows.iter().any(|row| row["messageCount"] == count && row["conversationId"] == session.conversation_id) {
                let page = json!({"action": "get_conversation_messages", "sessionId": session.id});
                return client.request(page).await["data"]["messages"].as_array().unwrap().clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the turn ends")
}

#[tokio::test]
async fn a_replay_longer_than_the_queue_arrives_whole() {
    let pieces: Vec<String> = (0..2000).map(|number| format!("{number} ")).collect();
    let server = TestServer::with_config(script().streams(pieces.iter().map(String::as_str)), |config| {
        config.limits.outgoing_events = 64;
        config.limits.outgoing_bytes = 16 * 1024;
    })
    .await;
    let mut starter = server.connect().await;
    let session = starter.create_session().await;
    let frames = starter.turn(&session, "go").await;
    assert_eq!(answer_text(&frames), pieces.concat().trim_end());

    let mut client = server.connect().await;
    let fields = json!({"supports": ["resume", "tool_progress"], "conversationId": session.conversation_id});
    let session = client.create_session_with(fields).await;
    let reply = resume(&mut client, &session, json!({})).await;
    let turn = reply["data"]["requestId"].as_str().unwrap().to_owned();
    // The client may be busy with something else meanwhile; what it asks is answered in between.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let pong = client.request(json!({"action": "ping", "requestId": "p"})).await;
    assert_eq!(pong["type"], "pong");
    let frames = client.turn_to_end(&turn).await;
    assert_eq!(streamed_text(&frames), pieces.concat());
    assert_eq!(frames.last().unwrap()["seq"], reply["data"]["lastSeq"]);
    server.shutdown().await;
}

#[tokio::test]
async fn under_pressure_a_session_with_numbers_gets_every_one_of_them() {
    let pieces: Vec<String> = (0..3000).map(|number| format!("{number} ")).collect();
    let server = TestServer::with_model(script().streams(pieces.iter().map(String::as_str)).forever()).await;
    let mut plain = server.connect().await;
    let mut numbered = server.connect().await;
    let (first, second) = (plain.create_session().await, resumable(&mut numbered).await);
    let (plain_turn, numbered_turn) =
        (plain.send_message(&first, "go").await, numbered.send_message(&second, "go").await);
    // Nobody reads while the whole answer comes: tokens of the plain one may be merged, those of the other may not.
    server.model().wait_for_requests(2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(streamed_text(&plain.turn_to_end(&plain_turn).await), pieces.concat());
    let frames = numbered.turn_to_end(&numbered_turn).await;
    assert_eq!(streamed_text(&frames), pieces.concat());
    assert_eq!(seqs(&frames), (1..=frames.len() as u64).collect::<Vec<_>>());
    server.shutdown().await;
}

#[tokio::test]
async fn events_that_were_dropped_show_as_a_higher_first_number() {
    let pieces: Vec<String> = (0..200).map(|number| format!("{number} ")).collect();
    let server = TestServer::with_config(script().streams(pieces.iter().map(String::as_str)), |config| {
        config.limits.turn_log_bytes = 8 * 1024;
    })
    .await;
    let mut client = server.connect().await;
    let session = resumable(&mut client).await;
    let turn = client.send_message(&session, "go").await;
    let whole = client.turn_to_end(&turn).await;
    resume(&mut client, &session, json!({"afterSeq": 3})).await;
    let kept = client.turn_to_end(&turn).await;
    assert!(kept[0]["seq"].as_u64().unwrap() > 4, "{}", kept[0]);
    assert_eq!(kept, whole[whole.len() - kept.len()..]);
    server.shutdown().await;
}

#[tokio::test]
async fn stopping_a_turn_that_was_resumed_tells_both_connections_once() {
    let server = TestServer::with_model(script().hangs_after(["one"]).says("Next.")).await;
    let mut first = server.connect().await;
    let session = resumable(&mut first).await;
    first.send_message_with(&session, "go", json!({"requestId": "the-turn"})).await;
    first.skip_to("the-turn", "stream_token").await;
    let mut second = server.connect().await;
    let fields = json!({"supports": ["resume"], "conversationId": session.conversation_id});
    let again = second.create_session_with(fields).await;
    resume(&mut second, &again, json!({"afterSeq": 0})).await;
    assert_eq!(second.expect("immediate_response").await["seq"], 1);
    assert_eq!(second.expect("stream_token").await["token"], "one");
    second.send(json!({"action": "cancel", "requestId": "stop", "sessionId": again.id})).await;
    assert_eq!(second.expect("cancelled").await["seq"], 3);
    assert_eq!(first.expect("cancelled").await["seq"], 3);

    // The turn that was resumed here is over: a Stop for it that comes late is not for the next one.
    second.send_message_with(&again, "at once", json!({"requestId": "next-turn"})).await;
    second.send(json!({"action": "cancel", "requestId": "the-turn", "sessionId": again.id})).await;
    assert_eq!(answer_text(&second.turn_to_end("next-turn").await), "Next.");
    first.expect_silence(Duration::from_millis(50)).await;
    server.shutdown().await;
}

#[tokio::test]
async fn with_the_policy_cancel_a_turn_lives_as_long_as_somebody_follows_it() {
    let server = TestServer::with_config(script().hangs_after(["one"]), |config| {
        config.on_disconnect = OnDisconnect::Cancel;
    })
    .await;
    let mut first = server.connect().await;
    let session = resumable(&mut first).await;
    first.send_message_with(&session, "go", json!({"requestId": "the-turn"})).await;
    first.skip_to("the-turn", "stream_token").await;
    let mut second = server.connect().await;
    let again = session_on(&mut second, &session).await;
    resume(&mut second, &again, json!({"afterSeq": 2})).await;
    first.close().await;
    second.expect_silence(Duration::from_millis(100)).await;
    second.close().await;
    server.model().wait_for_abort(0).await;

    let mut third = server.connect().await;
    let again = session_on(&mut third, &session).await;
    let reply = resume(&mut third, &again, json!({"afterSeq": 2})).await;
    assert_eq!(reply["data"]["state"], "finished");
    assert_eq!(third.expect("cancelled").await["seq"], 3);
    server.shutdown().await;
}

/// A session of this connection on the other one's conversation.
async fn session_on(client: &mut TestClient, other: &TestSession) -> TestSession {
    let fields = json!({"supports": ["resume", "tool_progress"], "conversationId": other.conversation_id});
    client.create_session_with(fields).await
}

#[tokio::test]
async fn a_connection_that_follows_a_turn_is_not_idle_when_the_server_stops() {
    let server = TestServer::with_model(script().says("Done.").after(Duration::from_millis(300))).await;
    let mut first = server.connect().await;
    let session = resumable(&mut first).await;
    first.send_message_with(&session, "go", json!({"requestId": "the-turn"})).await;
    first.expect("immediate_response").await;
    let mut second = server.connect().await;
    let again = session_on(&mut second, &session).await;
    resume(&mut second, &again, json!({"afterSeq": 1})).await;
    first.close().await;
    let reading = async {
        assert_eq!(answer_text(&second.turn_to_end("the-turn").await), "Done.");
        assert_eq!(second.closed().await, Some(1001));
    };
    tokio::join!(reading, server.shutdown());
}
