//! What a message may carry beside its text: pictures, files, a model, a skill.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jackfield_plugin_api::{Tool, ToolProvider, ToolProviderContext};
use jackfield_tests::{
    client::{TestClient, TestSession, answer_text},
    model::script,
    server::TestServer,
};
use serde_json::{Value, json};

/// A picture of one pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgo=";

fn image(url: &str) -> Value {
    json!({"url": url})
}

async fn say(client: &mut TestClient, session: &TestSession, message: &str, fields: Value) -> Vec<Value> {
    let turn = client.send_message_with(session, message, fields).await;
    client.turn_to_end(&turn).await
}

/// The messages of the user in a request, oldest first.
fn user_contents(request: &jackfield_tests::model::CapturedRequest) -> Vec<Value> {
    request.messages_of("user").into_iter().map(|message| message["content"].clone()).collect()
}

#[tokio::test]
async fn a_blank_message_with_a_picture_is_a_message() {
    let server = TestServer::with_model(script().says("A pixel.").says("Still a pixel.")).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let fields = json!({"images": [{"url": PIXEL, "detail": "low"}, {"url": "https://example.org/a.png"}]});
    let frames = say(&mut client, &session, " ", fields).await;
    assert_eq!(answer_text(&frames), "A pixel.");
    let parts = &user_contents(&server.model().requests()[0])[0];
    let expected = json!([
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]);
    assert_eq!(*parts, expected, "an empty text part is left out");

    say(&mut client, &session, "What was it?", json!({"images": [image(PIXEL)]})).await;
    let contents = user_contents(&server.model().requests()[1]);
    assert_eq!(contents[0], expected, "pictures are shown again");
    assert_eq!(contents[1][0], json!({"type": "text", "text": "What was it?"}));
    assert_eq!(contents[1][1], json!({"type": "image_url", "image_url": {"url": PIXEL}}));

    // The history shows text only, in the strict shape.
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"]["messages"][3]["content"], json!({"text": " "}));
    server.shutdown().await;
}

#[tokio::test]
async fn pictures_are_replayed_in_the_three_newest_messages_that_have_any() {
    let server = TestServer::with_model(script().says("ok").forever()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for number in 0..4 {
        let text = if number == 1 { String::new() } else { format!("picture {number}") };
        say(&mut client, &session, &text, json!({"images": [image(PIXEL)]})).await;
    }
    say(&mut client, &session, "no picture", json!({})).await;
    let requests = server.model().requests();
    let contents = user_contents(requests.last().unwrap());
    assert_eq!(contents[0], "picture 0\n[image omitted]");
    assert!(contents[1..4].iter().all(Value::is_array), "{contents:?}");
    assert_eq!(contents[4], "no picture");
    server.shutdown().await;
}

/// Notes what a tool provider is told of the message.
#[derive(Default)]
struct Notes(Mutex<Vec<(usize, Vec<String>)>>);

#[async_trait]
impl ToolProvider for Notes {
    async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        let files = context.files.iter().map(|file| format!("{} {:?} {}", file.name, file.mime_type, file.url));
        self.0.lock().unwrap().push((context.images.len(), files.collect()));
        Vec::new()
    }
}

#[tokio::test]
async fn files_reach_tools_only_and_are_named_when_nothing_else_was_sent() {
    let notes = Arc::new(Notes::default());
    let server = TestServer::build(script().says("ok").forever(), |builder| builder.tools(notes.clone())).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let file = json!({"name": "a.pdf", "mimeType": "application/pdf", "url": "https://example.org/secret-a.pdf"});
    say(&mut client, &session, "", json!({"files": [file, {"name": "b.txt", "url": "https://example.org/b"}]})).await;
    say(&mut client, &session, "Read it", json!({"files": [{"name": "c", "url": "x"}], "images": [image(PIXEL)]}))
        .await;

    let requests = server.model().requests();
    assert_eq!(user_contents(&requests[0]), ["[attached files: a.pdf, b.txt]"]);
    assert!(!requests.iter().any(|request| request.body.to_string().contains("secret-a")), "files are never sent");
    let seen = notes.0.lock().unwrap().clone();
    let expected =
        ["a.pdf Some(\"application/pdf\") https://example.org/secret-a.pdf", "b.txt None https://example.org/b"];
    assert_eq!(seen[0], (0, expected.map(str::to_owned).to_vec()));
    assert_eq!(seen[1], (1, vec!["c None x".to_owned()]));
    server.shutdown().await;
}

#[tokio::test]
async fn malformed_attachments_are_refused_and_nothing_is_stored() {
    let server = TestServer::with_model(script()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for fields in [
        json!({"images": "x"}),
        json!({"images": [PIXEL]}),
        json!({"images": [{"detail": "low"}]}),
        json!({"images": [{"url": "ftp://example.org/a.png"}]}),
        json!({"images": [{"url": "data:text/html,x"}]}),
        json!({"images": [image(PIXEL), {"url": PIXEL, "detail": "tiny"}]}),
        json!({"images": []}),
        json!({"files": [{"name": "a"}]}),
        json!({"files": [{"name": " ", "url": "x"}]}),
        json!({"files": [{"name": "a", "url": "x", "mimeType": 7}]}),
        json!({"files": {"name": "a", "url": "x"}}),
        json!({"stream": "yes"}),
        json!({"model": 7}),
    ] {
        let turn = client.send_message_with(&session, "", fields.clone()).await;
        let error = client.expect_error("VALIDATION_ERROR").await;
        assert_eq!(error["requestId"], turn.as_str(), "{fields}");
    }
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"]["messages"], json!([]));
    server.model().expect_no_more_requests();
    server.shutdown().await;
}

#[tokio::test]
async fn a_model_is_for_one_turn_and_a_blank_one_is_none() {
    let server = TestServer::with_model(script().says("ok").forever()).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    say(&mut client, &session, "a", json!({"model": " other "})).await;
    say(&mut client, &session, "b", json!({"model": "  "})).await;
    say(&mut client, &session, "c", json!({"model": null})).await;
    // The offline model is never reachable by name.
    say(&mut client, &session, "d", json!({"model": "offline"})).await;
    let models: Vec<Value> = server.model().requests().iter().map(|request| request.body["model"].clone()).collect();
    assert_eq!(models, ["other", "scripted", "scripted", "offline"]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_skill_is_found_in_its_folder_and_no_name_leads_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    for (root, name, body) in [
        (&first, "audit", "---\nname: audit\n---\nCheck every number."),
        (&second, "audit", "never read"),
        (&second, "poet", "Answer in verse."),
    ] {
        std::fs::create_dir_all(root.join(name)).unwrap();
        std::fs::write(root.join(name).join("SKILL.md"), body).unwrap();
    }
    std::fs::write(folder.path().join("SKILL.md"), "outside").unwrap();
    let server = TestServer::with_config(script().says("ok").forever(), |config| {
        config.skill_folders = vec![first, second];
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    for skill in ["..", "../first/audit", "audit/", "nobody", "a b", "ä", &"x".repeat(129)] {
        client.send_message_with(&session, "hi", json!({"skill": skill})).await;
        client.expect_error("SKILL_NOT_FOUND").await;
    }
    say(&mut client, &session, "hi", json!({"skill": "audit"})).await;
    say(&mut client, &session, "hi", json!({"skill": "poet"})).await;
    say(&mut client, &session, "hi", json!({"skill": ""})).await;
    let requests = server.model().requests();
    let system = |at: usize| requests[at].messages_of("system")[0]["content"].as_str().unwrap().to_owned();
    assert!(system(0).contains("# Skill: audit\n\nCheck every number.") && !system(0).contains("name: audit"));
    assert!(system(1).contains("Answer in verse."));
    assert!(!system(2).contains("# Skill"), "a skill is for one turn");
    server.shutdown().await;
}
