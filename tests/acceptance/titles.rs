//! How conversations get their names, and the line that a small model says first.

use std::time::Duration;

use jackfield_tests::{
    client::{TestClient, TestSession, answer, answer_text, kinds},
    model::script,
    server::TestServer,
};
use serde_json::{Value, json};

async fn title(client: &mut TestClient, session: &TestSession) -> String {
    let list = client.request(json!({"action": "list_conversations"})).await;
    let rows = list["data"]["conversations"].as_array().unwrap();
    let row = rows.iter().find(|row| row["conversationId"] == session.conversation_id).expect("it is listed");
    row["title"].as_str().unwrap().to_owned()
}

async fn title_becomes(client: &mut TestClient, session: &TestSession, expected: &str) {
    let waiting = async {
        while title(client, session).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("no title {expected:?}"));
}

#[tokio::test]
async fn without_a_model_for_it_the_first_message_gives_the_title_and_the_gateway_is_not_asked() {
    let server = TestServer::with_model(script().says("a").says("b").says("c")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "Hello! My parcel is late. I ordered it a week ago.").await;
    assert_eq!(title(&mut client, &session).await, "My parcel is late.");
    client.turn(&session, "Something else now").await;
    assert_eq!(title(&mut client, &session).await, "My parcel is late.");

    let long = client.create_session().await;
    let text = "Nobody can make a short title of a sentence that goes on and on like this one does";
    client.turn(&long, text).await;
    let shown: String = text.chars().take(60).collect();
    assert_eq!(title(&mut client, &long).await, format!("{shown}…"), "the beginning of the first message");
    server.model().expect_no_more_requests();
    server.shutdown().await;
}

#[tokio::test]
async fn a_model_titles_once_and_a_failure_is_not_tried_again() {
    let replies = script().says("It comes tomorrow.").says("\"Late parcel\"\n").says("Yes.");
    let server = TestServer::with_config(replies, |config| config.title_model = Some("small".to_owned())).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "My parcel is late.").await;
    title_becomes(&mut client, &session, "Late parcel").await;
    let asked = &server.model().requests()[1];
    assert_eq!((&asked.body["model"], &asked.body["stream"]), (&json!("small"), &json!(false)));
    assert!(asked.body.get("tools").is_none(), "{}", asked.body);
    let shown = asked.messages_of("user")[0]["content"].as_str().unwrap();
    assert!(shown.contains("My parcel is late.") && shown.contains("It comes tomorrow."), "{shown}");

    client.turn(&session, "Sure?").await;
    server.model().expect_no_more_requests();
    assert_eq!(title(&mut client, &session).await, "Late parcel");
    server.shutdown().await;

    let replies = script().says("one").status(400, &[], "no such model").says("two");
    let server = TestServer::with_config(replies, |config| config.title_model = Some("small".to_owned())).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "Where is it? I wait.").await;
    title_becomes(&mut client, &session, "Where is it?").await;
    client.turn(&session, "And now?").await;
    server.model().expect_no_more_requests();
    server.shutdown().await;
}

#[tokio::test]
async fn a_rename_in_the_meantime_wins() {
    let replies = script().says("one").says("The model's title").after(Duration::from_millis(300));
    let server = TestServer::with_config(replies, |config| config.title_model = Some("small".to_owned())).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "My parcel is late.").await;
    server.model().wait_for_requests(2).await;
    let rename = json!({"action": "rename_conversation", "conversationId": session.conversation_id, "title": "Chosen"});
    assert_eq!(client.request(rename).await["data"]["title"], "Chosen");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(title(&mut client, &session).await, "Chosen");
    server.shutdown().await;
}

/// A server with a model for preambles whose gateway tells the two apart by what they ask for, since they ask at the
/// same time.
async fn with_preamble(replies: jackfield_tests::model::Script) -> TestServer {
    TestServer::with_config(replies, |config| {
        config.preamble_model = Some("small".to_owned());
        config.limits.model_aside = Duration::from_secs(5);
    })
    .await
}

#[tokio::test]
async fn a_preamble_comes_before_the_first_word_and_is_no_part_of_the_answer() {
    let replies = script()
        .for_model("small")
        .says("Let me look.\nAnd more")
        .for_model("scripted")
        .says("Found it.")
        .after(Duration::from_millis(400));
    let server = with_preamble(replies).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "Where is my parcel?").await;
    assert_eq!(kinds(&frames), ["immediate_response", "stream_preamble", "stream_token", "eventual_response"]);
    assert_eq!(frames[1]["token"], "Let me look. And more");
    assert_eq!(answer_text(&frames), "Found it.");
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 2);
    let requests = server.model().requests();
    let small = requests.iter().find(|request| request.body["model"] == "small").unwrap();
    assert_eq!((&small.body["max_tokens"], &small.body["stream"]), (&json!(64), &json!(false)));
    let usage = &answer(&frames)["usage"];
    assert_eq!(usage["promptTokens"], 11, "the usage is that of the answer: {usage}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_preamble_that_is_late_fails_or_is_unwanted_is_left_out() {
    let quick = || script().for_model("scripted").says("Quick.");
    for replies in [
        quick().for_model("small").says("Too late.").after(Duration::from_millis(300)),
        quick().for_model("small").status(500, &[], "no").forever(),
        quick().for_model("small").hangs(),
        quick().for_model("small").says("  "),
    ] {
        let server = with_preamble(replies).await;
        let mut client = server.connect().await;
        let session = client.create_session().await;
        let frames = client.turn(&session, "Where is my parcel?").await;
        assert!(!kinds(&frames).contains(&"stream_preamble"), "{frames:?}");
        assert_eq!(answer_text(&frames), "Quick.");
        client.expect_silence(Duration::from_millis(50)).await;
        server.shutdown().await;
    }

    let server = with_preamble(quick()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let turn = client.send_message_with(&session, "hush", json!({"stream": false})).await;
    let frames: Vec<Value> = client.turn_to_end(&turn).await;
    assert_eq!(kinds(&frames), ["immediate_response", "eventual_response"]);
    server.model().expect_no_more_requests();
    server.shutdown().await;
}
