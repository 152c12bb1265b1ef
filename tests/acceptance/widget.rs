//! The page with the chat on it, and which pages may embed an agent.

use jackfield::ServerConfig;
use jackfield_plugin_api::GatewayKey;
use jackfield_tests::{
    client::{AGENT_ID, Connect},
    http::Http,
    model::script,
    server::TestServer,
    tokens::{Service, now},
};
use ring::{digest, hmac};
use serde_json::{Value, json};

const PAGE: &str = "https://shop.example";

#[tokio::test]
async fn the_page_holds_the_token_as_data_and_may_run_nothing_else() {
    let token = "a\"b</script><script>alert(1)</script>";
    let server = TestServer::build(script(), |builder| builder.serve_widget(Some(token.to_owned()))).await;
    let http = Http::to(server.addr());
    let page = http.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(!page.body.contains("alert(1)<"), "{}", page.body);
    assert_eq!(page.body.matches("</script>").count(), 2, "{}", page.body);
    let inline = page.body.rsplit_once("<script>").and_then(|(_, rest)| rest.split_once("</script>")).unwrap().0;
    let literal = inline.lines().find_map(|line| line.trim().strip_prefix("const token = ")).unwrap();
    assert_eq!(serde_json::from_str::<String>(literal.trim_end_matches(';')).unwrap(), token);
    for part in ["smooth-agent-chat", "endpoint", "agent-id", "agent-name", "fullpage", "start-open", "/ws"] {
        assert!(inline.contains(part), "{part}");
    }
    // Only the script that is there, by its hash. The test client reads headers in lower case, so the hash, too.
    let hash = digest::digest(&digest::SHA256, inline.as_bytes());
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash).to_ascii_lowercase();
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && policy.contains(&format!("'sha256-{hash}'")), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains(&format!("ws://{}", server.addr())), "{policy}");

    let widget = http.get("/chat-widget.iife.js").await;
    assert_eq!((widget.status, widget.header("content-type")), (200, Some("application/javascript; charset=utf-8")));
    assert!(widget.body.contains("customElements.define(\"smooth-agent-chat\""));
    for forbidden in ["innerHTML", "fetch(", "localStorage", "eval", "http://", "https://"] {
        assert!(!widget.body.contains(forbidden), "{forbidden}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn without_the_switch_there_is_no_page() {
    let server = TestServer::without_key().await;
    let http = Http::to(server.addr());
    assert_eq!((http.get("/").await.status, http.get("/chat-widget.iife.js").await.status), (404, 404));
    server.shutdown().await;
    let open = TestServer::with_config(script(), |config| config.widget.serve = true).await;
    assert!(Http::to(open.addr()).get("/").await.body.contains("const token = \"\";"));
    open.shutdown().await;
}

fn with_policies(config: &mut ServerConfig, service: &Service) {
    config.widget.policy_url = Some(format!("{}/policies", service.url()));
    config.widget.policy_bearer = Some(GatewayKey::new("policy-canary"));
    config.allowed_origins = vec![PAGE.to_owned(), "https://other.example".to_owned()];
}

async fn create(server: &TestServer, origin: Option<&str>, fields: Value) -> Value {
    let connect = Connect::to(server.ws_url());
    let connect = if let Some(origin) = origin { connect.origin(origin) } else { connect };
    let mut client = connect.open().await.unwrap();
    let mut frame = json!({"action": "create_conversation_session", "agentId": AGENT_ID});
    frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    client.request(frame).await
}

fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("created")
}

#[tokio::test]
async fn only_the_pages_of_a_policy_get_a_session_and_its_organisation() {
    let policy = json!({"allowedOrigins": [PAGE], "organizationId": "acme"});
    let service = Service::start(&policy).await;
    let server = TestServer::with_config(script(), |config| with_policies(config, &service)).await;
    for (origin, expected) in
        [(Some(PAGE), "created"), (Some("https://other.example"), "ORIGIN_NOT_ALLOWED"), (None, "ORIGIN_NOT_ALLOWED")]
    {
        assert_eq!(code(&create(&server, origin, json!({})).await), expected, "{origin:?}");
    }
    let requests = service.requests();
    assert_eq!(requests.len(), 1, "a policy is kept");
    assert!(requests[0].starts_with(&format!("GET /policies/{AGENT_ID} ")), "{requests:?}");
    assert!(requests[0].to_lowercase().contains("authorization: bearer policy-canary"), "{requests:?}");
    // Another organisation's: what the server's own admin lists does not hold it.
    create(&server, Some(PAGE), json!({"userEmail": "ann@shop.example"})).await;
    let listed = Http::to(server.addr()).get("/admin/conversations").await.json_of(200);
    assert_eq!(listed["conversations"], json!([]));
    server.shutdown().await;
}

#[tokio::test]
async fn an_agent_without_a_policy_is_open_unless_the_server_is_strict() {
    for (strict, expected) in [(false, "created"), (true, "AGENT_NOT_AUTHORIZED")] {
        let service = Service::start(&json!({})).await;
        service.answers(404, &json!({}));
        let server = TestServer::with_config(script(), |config| {
            with_policies(config, &service);
            config.widget.strict = strict;
        })
        .await;
        for _ in 0..2 {
            assert_eq!(code(&create(&server, None, json!({})).await), expected);
        }
        assert_eq!(service.requests().len(), 1, "that there is none is kept, too");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn while_the_policies_cannot_be_read_nobody_gets_a_session_and_the_failure_is_not_kept() {
    let service = Service::start(&json!({})).await;
    service.answers(500, &json!({}));
    let server = TestServer::with_config(script(), |config| with_policies(config, &service)).await;
    assert_eq!(code(&create(&server, Some(PAGE), json!({})).await), "INTERNAL_ERROR");
    service.answers(200, &json!({"allowed_origins": ["*"]}));
    assert_eq!(code(&create(&server, Some(PAGE), json!({})).await), "created");
    server.shutdown().await;
}

#[tokio::test]
async fn a_visitor_that_the_page_has_signed_is_who_owns_the_conversation() {
    let service = Service::start(&json!({"allowedOrigins": ["https://*.example"], "publicKey": "page-key"})).await;
    let server = TestServer::with_config(script(), |config| with_policies(config, &service)).await;
    let signed = |user: &str, timestamp: u64, key: &str| {
        let text = format!("{user}:{timestamp}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes());
        let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"authContext": {"userId": user, "signature": signature, "timestamp": timestamp}})
    };
    assert_eq!(code(&create(&server, Some(PAGE), signed("ann", now(), "page-key")).await), "created");
    let mut forged = signed("ann", now(), "page-key");
    forged["authContext"]["userId"] = json!("bob");
    for wrong in [forged, signed("ann", now(), "other-key"), signed("ann", now() - 120, "page-key")] {
        assert_eq!(code(&create(&server, Some(PAGE), wrong).await), "AUTH_CONTEXT_INVALID");
    }
    server.shutdown().await;

    // Without a policy nothing could be checked, so it does not pass for checked.
    let plain = TestServer::without_key().await;
    assert_eq!(code(&create(&plain, None, signed("ann", now(), "page-key")).await), "AUTH_CONTEXT_INVALID");
    plain.shutdown().await;
}
