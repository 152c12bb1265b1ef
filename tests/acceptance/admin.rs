//! The admin API: who may do what, what a refusal looks like, and that what is set there holds in turns.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use jackfield::auth::{AuthError, AuthVerifier, Principal, Role};
use jackfield_tests::{
    client::{Connect, TestClient},
    http::Http,
    model::script,
    server::TestServer,
};
use serde_json::{Value, json};

use crate::turns::Simple;

/// Takes tokens such as `admin bo@acme`: a role, a user, an organisation.
struct Names;

#[async_trait]
impl AuthVerifier for Names {
    async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        if token == "broken" {
            return Err(AuthError::Misconfigured("the key is gone".into()));
        }
        let parts = token.split_once(' ').and_then(|(role, user)| Some((role, user.split_once('@')?)));
        let Some((role, (user, org))) = parts else { return Err(AuthError::InvalidToken("it is no name".into())) };
        let role = match role {
            "basic" => Role::Basic,
            "curator" => Role::Curator,
            "admin" => Role::Admin,
            _ => return Err(AuthError::MissingRole),
        };
        Ok(Principal {
            user_id: user.to_owned(),
            org_id: org.to_owned(),
            role,
            display_name: None,
            email: Some(format!("{user}@{org}.example")),
            groups: vec!["staff".to_owned()],
        })
    }

    fn mode(&self) -> &'static str {
        "names"
    }
}

async fn with_names(replies: jackfield_tests::model::Script) -> TestServer {
    TestServer::build(replies, |builder| builder.auth(Arc::new(Names)).tools(Arc::new(Simple))).await
}

fn http(server: &TestServer, token: &str) -> Http {
    Http::to(server.addr()).token(token)
}

async fn client(server: &TestServer, token: &str) -> TestClient {
    Connect::to(server.ws_url()).token(token).open().await.unwrap()
}

#[tokio::test]
async fn each_route_wants_its_role_and_says_what_is_missing() {
    let server = with_names(script()).await;
    let roles = ["basic bo@acme", "curator bo@acme", "admin bo@acme"];
    let unknown = "/admin/conversations/7d1c2a34-0000-4000-8000-000000000009/messages";
    let settings = json!({"systemPrompt": "x"});
    let event = json!({"target": {"type": "user", "id": "bo"}, "event": {}});
    for (method, path, body, lowest, then) in [
        ("GET", "/admin/me", None, 0, 200),
        ("GET", "/admin/conversations", None, 0, 200),
        ("GET", unknown, None, 0, 404),
        ("GET", "/admin/settings", None, 1, 200),
        ("PUT", "/admin/settings", Some(&settings), 2, 200),
        ("POST", "/admin/publish", Some(&event), 2, 200),
        ("GET", "/admin/plugins", None, 2, 200),
    ] {
        let send = async |http: Http| match body {
            Some(body) => {
                let http = http.header("Content-Type", "application/json");
                http.request(method, path, Some(&body.to_string())).await
            }
            None => http.request(method, path, None).await,
        };
        for (level, token) in roles.iter().enumerate() {
            let answer = send(http(&server, token)).await;
            if level < lowest {
                answer.refusal(403, "FORBIDDEN");
                // Who may not do it learns nothing of what is wrong with the request either.
                http(&server, token).request(method, path, Some("{")).await.refusal(403, "FORBIDDEN");
            } else {
                assert_eq!(answer.status, then, "{method} {path} as {token}: {answer:?}");
            }
        }
        send(Http::to(server.addr())).await.refusal(401, "UNAUTHENTICATED");
        send(Http::to(server.addr()).header("Authorization", "Basic xyz")).await.refusal(401, "UNAUTHENTICATED");
        send(http(&server, "nonsense")).await.refusal(401, "INVALID_TOKEN");
        send(http(&server, "emperor bo@acme")).await.refusal(401, "MISSING_ROLE");
        send(http(&server, "broken")).await.refusal(500, "AUTH_MISCONFIGURED");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn me_is_the_principal_and_a_lower_case_bearer_will_do() {
    let server = with_names(script()).await;
    let http = Http::to(server.addr()).header("Authorization", "bearer curator ann@acme");
    let answer = http.get("/admin/me").await;
    let expected = json!({
        "userId": "ann", "orgId": "acme", "role": "curator", "email": "ann@acme.example", "groups": ["staff"]
    });
    assert_eq!(answer.json_of(200), expected);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    server.shutdown().await;
}

#[tokio::test]
async fn where_nobody_checks_tokens_none_is_needed_and_all_share_one_organisation() {
    let server = TestServer::with_model(script().says("Hello.")).await;
    let anonymous = Http::to(server.addr());
    let me = anonymous.get("/admin/me").await.json_of(200);
    assert_eq!(me, json!({"userId": "dev-admin", "orgId": "reference-org", "role": "admin"}));
    assert_eq!(http(&server, "whatever").get("/admin/me").await.json_of(200), me);

    // An anonymous chat is found by the admin, and reachable for a connection that does send a token.
    let mut visitor = server.connect().await;
    let session = visitor.create_session().await;
    visitor.turn(&session, "hi").await;
    let listed = anonymous.get("/admin/conversations").await.json_of(200);
    assert_eq!(listed["conversations"][0]["id"], session.conversation_id.as_str());
    let mut with_token = client(&server, "whatever").await;
    let reply = with_token.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(reply["data"]["conversationId"], session.conversation_id.as_str());
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_open_needs_no_token() {
    let server = with_names(script()).await;
    server.model().knows_models(&[(
        "small",
        json!({"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 4096,
            "model_tier": "small", "use_cases": ["titles"]}),
    )]);
    let open = Http::to(server.addr());
    assert_eq!(open.get("/admin/health").await.json_of(200), json!({"status": "ok"}));
    let expected = json!({"small": {"inputCostPerToken": 1e-6, "outputCostPerToken": 2e-6, "tier": "small",
        "useCases": ["titles"], "maxOutputTokens": 4096}});
    assert_eq!(open.get("/admin/model-costs").await.json_of(200), expected);
    assert_eq!(open.get("/openapi.json").await.json_of(200)["info"]["title"], "Jackfield");
    server.shutdown().await;

    let keyless = TestServer::without_key().await;
    assert_eq!(Http::to(keyless.addr()).get("/admin/model-costs").await.json_of(200), json!({}));
    keyless.shutdown().await;
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_has_the_one_form() {
    let server = TestServer::with_config(script(), |config| config.limits.admin_body_bytes = 500).await;
    let http = Http::to(server.addr());
    let json = http.clone().header("Content-Type", "application/json");
    for body in ["{", "", "[]", "null", "{\"systemPrompt\": 7}", "{}", "{\"systemPrompt\": \"x\", \"model\": []}"] {
        json.request("PUT", "/admin/settings", Some(body)).await.refusal(400, "VALIDATION_ERROR");
    }
    http.request("PUT", "/admin/settings", Some("{\"systemPrompt\":\"x\"}")).await.refusal(400, "VALIDATION_ERROR");
    let long = json!({"systemPrompt": "x".repeat(600)});
    let said = json.put("/admin/settings", long).await.refusal(413, "VALIDATION_ERROR");
    assert!(said.contains("admin_body_bytes"), "{said}");
    for query in
        ["limit=0", "limit=201", "limit=-1", "limit=ten", "cursor=-1", "cursor=x", "limit=99999999999999999999"]
    {
        http.get(&format!("/admin/conversations?{query}")).await.refusal(400, "VALIDATION_ERROR");
    }
    for target in [json!({"type": "planet", "id": "x"}), json!({"type": "user"}), json!("user")] {
        let body = json!({"target": target, "event": {}});
        http.post("/admin/publish", body).await.refusal(400, "VALIDATION_ERROR");
    }
    for event in [json!("text"), json!([]), json!(1)] {
        let body = json!({"target": {"type": "user", "id": "x"}, "event": event});
        http.post("/admin/publish", body).await.refusal(400, "VALIDATION_ERROR");
    }
    for path in ["/admin/conversations/nonsense/messages", "/admin/nowhere", "/admin/settings/", "/admin/me/x"] {
        http.get(path).await.refusal(404, "NOT_FOUND");
    }
    let answer = http.request("DELETE", "/admin/settings", None).await;
    answer.refusal(405, "UNSUPPORTED_ACTION");
    assert_eq!(answer.header("allow"), Some("get,head,put"));
    server.shutdown().await;
}

#[tokio::test]
async fn conversations_are_paged_and_scoped() {
    let replies = script().says("One.").says("Two.").says("Three.").status(400, &[], "{}");
    let server = with_names(replies).await;
    let mut ids = Vec::new();
    for token in ["basic ann@acme", "basic ann@acme", "basic bob@acme", "basic eve@other"] {
        let mut client = client(&server, token).await;
        let session = client.create_session().await;
        client.turn(&session, &format!("hello from {token}")).await;
        ids.push(session.conversation_id);
    }
    let listed = async |token: &str, query: &str| {
        let page = http(&server, token).get(&format!("/admin/conversations{query}")).await.json_of(200);
        let row = |row: &Value| {
            assert_eq!(row["platform"], "web");
            assert!(row["name"].is_string() && row["createdAt"].is_string() && row["updatedAt"].is_string(), "{row}");
            assert_eq!(row.as_object().unwrap().len(), 5, "{row}");
            row["id"].as_str().unwrap().to_owned()
        };
        let rows: Vec<String> = page["conversations"].as_array().unwrap().iter().map(row).collect();
        (rows, page["nextCursor"].clone())
    };
    let [ann_1, ann_2, bob, eve] = [0, 1, 2, 3].map(|index| ids[index].clone());
    let all = vec![bob.clone(), ann_2.clone(), ann_1.clone()];
    assert_eq!(listed("curator cleo@acme", "").await, (all.clone(), Value::Null));
    assert_eq!(listed("admin cleo@acme", "?limit=2").await, (all[..2].to_vec(), json!(2)));
    assert_eq!(listed("admin cleo@acme", "?limit=2&cursor=2").await, (all[2..].to_vec(), Value::Null));
    assert_eq!(listed("admin cleo@acme", "?limit=1&cursor=2").await, (all[2..].to_vec(), Value::Null));
    assert_eq!(listed("basic ann@acme", "").await, (vec![ann_2, ann_1.clone()], Value::Null));
    assert_eq!(listed("basic nobody@acme", "").await, (vec![], Value::Null));
    assert_eq!(listed("admin cleo@other", "").await, (vec![eve.clone()], Value::Null));

    let path = |id: &str| format!("/admin/conversations/{id}/messages");
    http(&server, "admin cleo@acme").get(&path(&eve)).await.refusal(404, "NOT_FOUND");
    http(&server, "basic bob@acme").get(&path(&ann_1)).await.refusal(403, "FORBIDDEN");
    let read = http(&server, "basic ann@acme").get(&path(&ann_1)).await.json_of(200);
    assert_eq!((&read["conversationId"], &read["nextCursor"]), (&json!(ann_1), &Value::Null));
    let [question, reply] = &read["messages"].as_array().unwrap()[..] else { panic!("{read}") };
    assert_eq!((question["direction"].as_str(), reply["direction"].as_str()), (Some("inbound"), Some("outbound")));
    let text = "hello from basic ann@acme";
    assert_eq!(question["content"], json!({"text": text, "items": [{"type": "text", "text": text}]}));
    assert_eq!((&question["organizationId"], &question["from"]["type"]), (&json!("acme"), &json!("user")));
    assert_eq!((&reply["content"]["text"], &reply["from"]["type"]), (&json!("One."), &json!("ai-agent")));

    // Page by page the same messages, each once.
    let curator = http(&server, "curator cleo@acme");
    let first = curator.get(&format!("{}?limit=1", path(&ann_1))).await.json_of(200);
    assert_eq!(first["messages"], json!([question]));
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = curator.get(&format!("{}?limit=1&cursor={cursor}", path(&ann_1))).await.json_of(200);
    assert_eq!((&second["messages"], &second["nextCursor"]), (&json!([reply]), &Value::Null));
    curator.get(&format!("{}?cursor=nonsense", path(&ann_1))).await.refusal(400, "VALIDATION_ERROR");
    curator.get(&format!("{}?cursor={ann_1}", path(&bob))).await.refusal(400, "VALIDATION_ERROR");

    // The record of a failed turn is marked as one.
    let failed = http(&server, "admin cleo@other").get(&path(&eve)).await.json_of(200);
    assert_eq!(failed["messages"][1]["metadataJson"]["turnError"]["code"], "AGENT_ERROR", "{failed}");
    server.shutdown().await;
}

#[tokio::test]
async fn settings_hold_from_the_next_turn_on_and_only_for_their_organisation() {
    let replies = script().says("a").says("b").says("c").says("d").says("e");
    let server = with_names(replies).await;
    let admin = http(&server, "admin ann@acme");
    let before = admin.get("/admin/settings").await.json_of(200)["settings"].clone();
    assert_eq!((&before["orgId"], &before["model"], &before["persona"]), (&json!("acme"), &Value::Null, &Value::Null));
    assert_eq!((&before["defaultTools"], &before["updatedAt"]), (&json!([]), &Value::Null));
    let built_in = before["systemPrompt"].as_str().unwrap().to_owned();
    assert!(built_in.contains("knowledge_search"), "{built_in}");

    let mut chat = client(&server, "basic bob@acme").await;
    let session = chat.create_session().await;
    chat.turn(&session, "one").await;
    let changed = json!({"model": "tiny", "systemPrompt": "Answer in rhymes.", "persona": "You are a bard.",
        "defaultTools": ["works", "knowledge_search"]});
    let stored = admin.put("/admin/settings", changed.clone()).await.json_of(200)["settings"].clone();
    assert!(stored["updatedAt"].is_string(), "{stored}");
    assert_eq!(admin.get("/admin/settings").await.json_of(200)["settings"], stored);
    chat.turn(&session, "two").await;
    let id = chat.send_message_with(&session, "three", json!({"model": "named"})).await;
    chat.turn_to_end(&id).await;
    let mut other = client(&server, "basic eve@other").await;
    let other_session = other.create_session().await;
    other.turn(&other_session, "hi").await;
    // What a console has read and writes back changes nothing.
    let back = json!({"systemPrompt": built_in, "persona": null, "model": " ", "defaultTools": []});
    admin.put("/admin/settings", back).await.json_of(200);
    chat.turn(&session, "four").await;

    let requests = server.model().requests();
    let seen = requests.iter().map(|request| {
        let system = request.messages_of("system")[0]["content"].as_str().unwrap();
        let prompt = match (system.starts_with("You are a bard.\n\nAnswer in rhymes."), system.contains(&built_in)) {
            (true, false) => "theirs",
            (false, true) => "built-in",
            _ => panic!("{system}"),
        };
        (request.body["model"].as_str().unwrap(), prompt, request.tool_names().len())
    });
    let all = requests[0].tool_names().len();
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("scripted", "built-in", all),
            ("tiny", "theirs", 2),
            ("named", "theirs", 2),
            ("scripted", "built-in", all),
            ("scripted", "built-in", all),
        ]
    );
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_published_reaches_whom_it_is_for_as_it_was_given() {
    let server = with_names(script()).await;
    let mut ann = client(&server, "basic ann@acme").await;
    let session = ann.create_session_with(json!({"agentId": "7d1c2a34-0000-4000-8000-0000000000aa"})).await;
    let mut bob = client(&server, "basic bob@acme").await;
    let bobs = bob.create_session().await;
    let mut eve = client(&server, "basic eve@other").await;
    eve.create_session_with(json!({"agentId": "7d1c2a34-0000-4000-8000-0000000000aa"})).await;

    let admin = http(&server, "admin cleo@acme").header("Content-Type", "application/json");
    let event = "{ \"type\":\"pong\", \"data\":{\"timestamp\":7},\n \"timestamp\":7 }";
    let publish = async |kind: &str, id: &str| {
        let body = format!("{{\"target\":{{\"type\":\"{kind}\",\"id\":\"{id}\"}},\"event\":{event}}}");
        admin.request("POST", "/admin/publish", Some(&body)).await.json_of(200)["delivered"].as_u64().unwrap()
    };
    for (kind, id, hears) in [
        ("session", session.id.as_str(), "ann"),
        ("agent", "7d1c2a34-0000-4000-8000-0000000000aa", "ann"),
        ("user", "bob", "bob"),
        ("session", bobs.id.as_str(), "bob"),
    ] {
        assert_eq!(publish(kind, id).await, 1, "{kind} {id}");
        let client = if hears == "ann" { &mut ann } else { &mut bob };
        assert_eq!(client.expect("pong").await["timestamp"], 7);
    }
    assert_eq!(publish("org", "acme").await, 2);
    ann.expect("pong").await;
    bob.expect("pong").await;
    for (kind, id) in [("org", "other"), ("user", "eve"), ("session", "nonsense"), ("connection", "nonsense")] {
        assert_eq!(publish(kind, id).await, 0, "{kind} {id}");
    }
    // A session that was named on another connection is heard there, too.
    let mut again = client(&server, "basic ann@acme").await;
    again.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(publish("session", &session.id).await, 2);
    again.expect("pong").await;
    ann.expect("pong").await;
    // The text itself is what arrives.
    publish("user", "bob").await;
    let raw = bob.socket().next().await.unwrap().unwrap();
    assert_eq!(raw.to_text().unwrap(), event);
    // Nobody listens any more where the connection has gone.
    bob.close().await;
    for _ in 0..200 {
        if publish("user", "bob").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(publish("user", "bob").await, 0);
    eve.expect_silence(Duration::from_millis(50)).await;
    server.shutdown().await;
}

#[tokio::test]
async fn only_listed_pages_may_read_the_answers() {
    let server =
        TestServer::build(script(), |builder| builder.auth(Arc::new(Names)).allowed_origins(["http://localhost:5173"]))
            .await;
    let page = |origin: &str| Http::to(server.addr()).header("Origin", origin);
    let preflight = page("http://localhost:5173")
        .header("Access-Control-Request-Method", "PUT")
        .header("Access-Control-Request-Headers", "authorization,content-type")
        .request("OPTIONS", "/admin/settings", None)
        .await;
    assert_eq!(preflight.status, 200, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), Some("http://localhost:5173"));
    let methods = preflight.header("access-control-allow-methods").unwrap();
    assert!(["get", "post", "put", "delete"].iter().all(|method| methods.contains(method)), "{methods}");
    let headers = preflight.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("authorization") && headers.contains("content-type"), "{headers}");
    // A refusal can be read, too.
    let refused = page("http://localhost:5173").get("/admin/me").await;
    refused.refusal(401, "UNAUTHENTICATED");
    assert_eq!(refused.header("access-control-allow-origin"), Some("http://localhost:5173"));
    // Our own page needs no leave, and gets none; elsewhere there is none to get.
    let own = page(&format!("http://{}", server.addr())).token("basic ann@acme").get("/admin/me").await;
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, None));
    assert_eq!(page("http://localhost:5173").get("/health").await.header("access-control-allow-origin"), None);
    let stranger = page("https://evil.example").token("admin ann@acme").get("/admin/me").await;
    assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (403, None));
    server.shutdown().await;
}

#[tokio::test]
async fn the_token_of_the_run_file_is_an_admin_whoever_else_checks_tokens() {
    let server = with_names(script()).await;
    let addr = server.addr();
    let handle = server.into_handle();
    let token = handle.run_file().admin_token.reveal().to_owned();
    let me = Http::to(addr).token(&token).get("/admin/me").await.json_of(200);
    assert_eq!(me, json!({"userId": "operator", "orgId": "reference-org", "role": "admin"}));
    assert!(!format!("{handle:?}").contains(&token));
    // It opens the admin API and nothing else.
    let mut client = Connect::to(handle.ws_url()).token(&token).open().await.unwrap();
    let session = client.create_session().await;
    assert!(!session.id.is_empty());
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_answer_of_the_admin_api_does_not_wait_for_a_turn() {
    let server = with_names(script().hangs_after(["thinking"])).await;
    let mut chat = client(&server, "basic bob@acme").await;
    let session = chat.create_session().await;
    let id = chat.send_message(&session, "hi").await;
    chat.skip_to(&id, "stream_token").await;
    let path = format!("/admin/conversations/{}/messages", session.conversation_id);
    let read = http(&server, "curator cleo@acme").get(&path).await.json_of(200);
    assert_eq!(read["messages"].as_array().unwrap().len(), 1);
    chat.cancel().await;
    chat.skip_to(&id, "cancelled").await;
    server.shutdown().await;
}
