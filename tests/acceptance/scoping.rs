//! Who sees what: what is not the caller's does not exist for the caller, by whatever frame it is named.

use std::sync::Arc;

use async_trait::async_trait;
use jackfield::auth::{AuthError, AuthVerifier, Principal, Role};
use jackfield_tests::{
    client::{Connect, TestClient, TestSession, answer_text},
    model::{Script, script},
    server::TestServer,
};
use serde_json::{Value, json};

/// Takes `NAME@ORG` as the token of a user of that organisation; `nobody@ORG` has no address.
pub(crate) struct Tokens;

#[async_trait]
impl AuthVerifier for Tokens {
    async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let bad = || AuthError::InvalidToken("expected NAME@ORG".to_owned());
        let (name, org) = token.split_once('@').ok_or_else(bad)?;
        Ok(Principal {
            user_id: name.to_owned(),
            org_id: org.to_owned(),
            role: Role::Basic,
            display_name: None,
            email: (name != "nobody").then(|| format!("{}@example.org", name.to_uppercase())),
            groups: Vec::new(),
        })
    }

    fn mode(&self) -> &'static str {
        "test"
    }
}

async fn serving(replies: Script) -> TestServer {
    TestServer::build(replies, |builder| builder.auth(Arc::new(Tokens))).await
}

pub(crate) async fn client(server: &TestServer, token: &str) -> TestClient {
    Connect::to(server.ws_url()).token(token).open().await.unwrap()
}

/// Frames that name a session or its conversation, with the answer that says there is none.
fn probes(session: &TestSession) -> Vec<(Value, &'static str)> {
    let named = |action: &str, fields: Value| {
        let mut frame = json!({"action": action, "requestId": action, "sessionId": session.id});
        for (key, value) in fields.as_object().unwrap() {
            frame[key] = value.clone();
        }
        frame
    };
    vec![
        (named("get_session", json!({})), "SESSION_NOT_FOUND"),
        (named("get_conversation_messages", json!({})), "SESSION_NOT_FOUND"),
        (named("send_message", json!({"message": "hi"})), "SESSION_NOT_FOUND"),
        (named("verify_otp", json!({"code": "1"})), "SESSION_NOT_FOUND"),
        (named("resume_turn", json!({})), "SESSION_NOT_FOUND"),
        (named("confirm_tool_action", json!({"approved": true})), "NO_PENDING_CONFIRMATION"),
        (named("submit_interaction", json!({"interactionId": "x", "declined": true})), "NO_PENDING_INTERACTION"),
        (
            json!({"action": "rename_conversation", "requestId": "rename", "title": "Mine now",
                "conversationId": session.conversation_id}),
            "CONVERSATION_NOT_FOUND",
        ),
    ]
}

async fn titles(client: &mut TestClient) -> Vec<String> {
    let list = client.request(json!({"action": "list_conversations"})).await;
    let rows = list["data"]["conversations"].as_array().unwrap();
    rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_another_user_owns_does_not_exist() {
    let server = serving(script().says("For Alice.").hangs()).await;
    let mut alice = client(&server, "alice@acme").await;
    let session = alice.create_session_with(json!({"userEmail": "bob@example.org"})).await;
    alice.turn(&session, "Alice's matter").await;
    alice.send_message(&session, "and one that runs").await;
    alice.expect("immediate_response").await;

    for token in ["bob@acme", "nobody@acme", "alice@other"] {
        let mut other = client(&server, token).await;
        for (frame, code) in probes(&session) {
            let refused = other.request(frame.clone()).await;
            assert_eq!(refused["error"]["code"], code, "{token}: {frame}");
            // What is not theirs and what there is not at all are told in the same words.
            let mut unknown = frame.clone();
            for key in ["sessionId", "conversationId"].into_iter().filter(|key| frame.get(*key).is_some()) {
                unknown[key] = json!("00000000-0000-4000-8000-000000000000");
            }
            assert_eq!(other.request(unknown).await["error"], refused["error"], "{token}: {frame}");
        }
        let fresh = other.create_session_with(json!({"conversationId": session.conversation_id})).await;
        assert_ne!(fresh.conversation_id, session.conversation_id, "{token}");
        assert_eq!(titles(&mut other).await, [""; 0], "{token}");
        other.send(json!({"action": "cancel", "requestId": "stop", "sessionId": session.id})).await;
        other.expect_silence(std::time::Duration::from_millis(50)).await;
    }

    let mut again = client(&server, "alice@acme").await;
    assert_eq!(titles(&mut again).await, ["Alice's matter"]);
    let resumed = again.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_eq!(resumed.conversation_id, session.conversation_id);
    again.send(json!({"action": "cancel", "requestId": "stop", "sessionId": session.id})).await;
    again.expect("cancelled").await;
    server.shutdown().await;
}

#[tokio::test]
async fn the_verified_address_is_the_owner_whatever_the_frame_says() {
    let server = serving(script().says("one")).await;
    let mut alice = client(&server, "alice@acme").await;
    let session = alice.create_session_with(json!({"userEmail": "bob@example.org"})).await;
    alice.turn(&session, "hers").await;
    let mut bob = client(&server, "bob@acme").await;
    assert_eq!(titles(&mut bob).await, [""; 0]);
    assert_eq!(titles(&mut alice).await, ["hers"]);
    server.shutdown().await;
}

#[tokio::test]
async fn an_anonymous_visitor_reaches_what_it_can_name_and_lists_what_nobody_owns() {
    let server = serving(script().says("one").says("two").says("three")).await;
    let mut visitor = server.connect().await;
    let owned = visitor.create_session_with(json!({"userEmail": "carol@example.org"})).await;
    assert_eq!(answer_text(&visitor.turn(&owned, "with an address").await), "one");
    let ownerless = visitor.create_session().await;
    visitor.turn(&ownerless, "without one").await;
    let found = visitor.request(json!({"action": "get_session", "sessionId": owned.id})).await;
    assert_eq!(found["data"]["sessionId"], owned.id.as_str(), "the id is its capability");
    assert_eq!(titles(&mut visitor).await, ["without one"]);

    // A bad token makes an anonymous connection, not a refused one and not a mighty one.
    let mut bad = client(&server, "garbage").await;
    assert_eq!(titles(&mut bad).await, ["without one"]);
    // The organisation of a verified caller is another one than that of anonymous visitors.
    let mut alice = client(&server, "alice@acme").await;
    let refused = alice.request(json!({"action": "get_session", "sessionId": ownerless.id})).await;
    assert_eq!(refused["error"]["code"], "SESSION_NOT_FOUND");
    server.shutdown().await;
}

#[tokio::test]
async fn within_an_organisation_what_nobody_owns_is_reachable_and_becomes_owned_by_whoever_resumes_it() {
    let server = serving(script().says("one").says("two")).await;
    let mut nobody = client(&server, "nobody@acme").await;
    let session = nobody.create_session().await;
    nobody.turn(&session, "an ownerless matter").await;
    let mut alice = client(&server, "alice@acme").await;
    assert_eq!(titles(&mut alice).await, ["an ownerless matter"]);
    let hers = alice.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_eq!(hers.conversation_id, session.conversation_id);
    let refused = nobody.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(refused["error"]["code"], "SESSION_NOT_FOUND", "it is hers now");
    assert_eq!(answer_text(&alice.turn(&hers, "go on").await), "two");
    server.shutdown().await;
}

#[tokio::test]
async fn an_unused_create_of_another_organisation_does_not_exist_either() {
    let server = serving(script()).await;
    let mut nobody = client(&server, "nobody@acme").await;
    let session = nobody.create_session().await;
    let mut other = client(&server, "nobody@other").await;
    let refused = other.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(refused["error"]["code"], "SESSION_NOT_FOUND");
    let fresh = other.create_session_with(json!({"conversationId": session.conversation_id})).await;
    assert_ne!(fresh.conversation_id, session.conversation_id);
    let mut colleague = client(&server, "nobody@acme").await;
    let found = colleague.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(found["data"]["sessionId"], session.id.as_str());
    server.shutdown().await;
}
