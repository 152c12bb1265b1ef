//! Tokens of every kind over real sockets: who is let in, whose conversations they see, and what is refused.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jackfield::{
    ServerConfig,
    config::{AuthMode, JwtKey, JwtSettings, Sources},
};
use jackfield_plugin_api::GatewayKey;
use jackfield_tests::{
    client::Connect,
    http::Http,
    model::script,
    server::TestServer,
    tokens::{EcKey, RSA_PUBLIC_KEY, Service, claims, hs256, now, rs256, token},
};
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn jwt(key: JwtKey) -> AuthMode {
    AuthMode::Jwt(JwtSettings { key, issuer: None, audience: None, smoo: false })
}

fn shared() -> AuthMode {
    jwt(JwtKey::Hs256(GatewayKey::new(SECRET)))
}

async fn server(auth: AuthMode, change: impl FnOnce(&mut ServerConfig)) -> TestServer {
    TestServer::with_config(script().says("Hello.").forever(), |config| {
        config.auth = auth;
        change(config);
    })
    .await
}

/// The code with which the admin API refuses a token, or the user that it belongs to.
async fn judged(server: &TestServer, token: &str) -> String {
    let answer = Http::to(server.addr()).token(token).get("/admin/me").await;
    let body = answer.json();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    text(&body["userId"]).or_else(|| text(&body["error"]["code"])).unwrap()
}

fn with(mut claims: Value, key: &str, value: Value) -> Value {
    claims[key] = value;
    claims
}

#[tokio::test]
async fn a_token_is_good_with_the_right_signature_and_every_claim() {
    let server = server(shared(), |_| ()).await;
    let ann = claims("ann", "acme", "admin");
    let without = |key: &str| {
        let mut claims = ann.clone();
        claims.as_object_mut().unwrap().remove(key);
        hs256(SECRET, &claims)
    };
    let me = Http::to(server.addr()).token(&hs256(SECRET, &ann)).get("/admin/me").await.json_of(200);
    assert_eq!(me, json!({"userId": "ann", "orgId": "acme", "role": "admin", "email": "ann@acme.example"}));
    assert_eq!(judged(&server, &hs256(SECRET, &with(ann.clone(), "role", json!("user")))).await, "ann");
    let other_name = hs256(SECRET, &json!({"sub": "ann", "org_id": "acme", "role": "basic", "exp": now() + 60}));
    assert_eq!(judged(&server, &other_name).await, "ann");

    let none = |alg: &str| token(&json!({"alg": alg, "typ": "JWT"}), &ann, |_| Vec::new());
    let tampered = {
        let good = hs256(SECRET, &claims("bob", "acme", "basic"));
        let parts: Vec<&str> = good.split('.').collect();
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(ann.to_string()), parts[2])
    };
    for (bad, code) in [
        (hs256("another secret", &ann), "INVALID_TOKEN"),
        (hs256("", &ann), "INVALID_TOKEN"),
        (none("none"), "INVALID_TOKEN"),
        (none("None"), "INVALID_TOKEN"),
        (none("HS256"), "INVALID_TOKEN"),
        (tampered, "INVALID_TOKEN"),
        (rs256(&ann), "INVALID_TOKEN"),
        (token(&json!({"alg": "HS512"}), &ann, |_| vec![0; 64]), "INVALID_TOKEN"),
        (without("sub"), "INVALID_TOKEN"),
        (without("exp"), "INVALID_TOKEN"),
        (without("org"), "INVALID_TOKEN"),
        (without("role"), "MISSING_ROLE"),
        (hs256(SECRET, &with(ann.clone(), "role", json!("emperor"))), "MISSING_ROLE"),
        (hs256(SECRET, &with(ann.clone(), "exp", json!(now() - 3600))), "INVALID_TOKEN"),
        (hs256(SECRET, &with(ann.clone(), "exp", json!("tomorrow"))), "INVALID_TOKEN"),
        (hs256(SECRET, &with(ann.clone(), "nbf", json!(now() + 3600))), "INVALID_TOKEN"),
        (hs256(SECRET, &with(ann.clone(), "sub", json!(" "))), "INVALID_TOKEN"),
        (hs256(SECRET, &with(ann.clone(), "groups", json!("staff"))), "INVALID_TOKEN"),
        ("nonsense".to_owned(), "INVALID_TOKEN"),
        ("a.b.c".to_owned(), "INVALID_TOKEN"),
    ] {
        assert_eq!(judged(&server, &bad).await, code, "{bad}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_public_key_takes_no_token_that_was_signed_with_itself_as_a_secret() {
    let server = server(jwt(JwtKey::Rs256(RSA_PUBLIC_KEY.to_owned())), |_| ()).await;
    let ann = claims("ann", "acme", "admin");
    assert_eq!(judged(&server, &rs256(&ann)).await, "ann");
    assert_eq!(judged(&server, &hs256(RSA_PUBLIC_KEY, &ann)).await, "INVALID_TOKEN");
    assert_eq!(judged(&server, &EcKey::new("k").sign(&ann)).await, "INVALID_TOKEN");
    server.shutdown().await;
}

#[tokio::test]
async fn issuer_and_audience_count_when_they_are_configured() {
    let settings = JwtSettings {
        key: JwtKey::Hs256(GatewayKey::new(SECRET)),
        issuer: Some("https://id.example".to_owned()),
        audience: Some("jackfield".to_owned()),
        smoo: true,
    };
    let server = server(AuthMode::Jwt(settings), |_| ()).await;
    let for_us = with(claims("ann", "acme", "admin"), "aud", json!(["other", "jackfield"]));
    let good = with(for_us.clone(), "iss", json!("https://id.example"));
    assert_eq!(judged(&server, &hs256(SECRET, &good)).await, "ann");
    for bad in [
        for_us.clone(),
        with(for_us, "iss", json!("https://evil.example")),
        with(good.clone(), "aud", json!("other")),
        with(claims("ann", "acme", "admin"), "iss", json!("https://id.example")),
    ] {
        assert_eq!(judged(&server, &hs256(SECRET, &bad)).await, "INVALID_TOKEN", "{bad}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_key_set_is_fetched_kept_and_fetched_again_for_a_key_that_is_new() {
    let (first, second) = (EcKey::new("one"), EcKey::new("two"));
    let service =
        Service::start(&json!({"keys": [first.jwk(), {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}]})).await;
    let server = server(jwt(JwtKey::Jwks(format!("{}/keys", service.url()))), |config| {
        config.limits.auth_keys_refresh = Duration::from_millis(300);
    })
    .await;
    let ann = claims("ann", "acme", "admin");
    assert_eq!(service.requests().len(), 0, "nothing is fetched before the first token");
    for _ in 0..3 {
        assert_eq!(judged(&server, &first.sign(&ann)).await, "ann");
    }
    assert_eq!(judged(&server, &hs256("secret", &ann)).await, "INVALID_TOKEN", "a shared secret of a set is none");
    assert_eq!(judged(&server, &second.sign(&ann)).await, "INVALID_TOKEN");
    assert_eq!(service.requests().len(), 1, "{:?}", service.requests());

    service.answers(200, &json!({"keys": [second.jwk()]}));
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(judged(&server, &second.sign(&ann)).await, "ann");
    assert_eq!(judged(&server, &first.sign(&ann)).await, "INVALID_TOKEN", "a key that has gone signs nothing");
    for _ in 0..5 {
        judged(&server, &EcKey::new("made up").sign(&ann)).await;
    }
    assert!(service.requests().len() <= 3, "{:?}", service.requests());
    server.shutdown().await;
}

#[tokio::test]
async fn without_a_key_set_nobody_is_anybody_and_the_issuer_is_not_flooded() {
    let service = Service::start(&json!("no set")).await;
    service.answers(500, &json!({}));
    let server = server(jwt(JwtKey::Jwks(format!("{}/keys", service.url()))), |_| ()).await;
    let token = EcKey::new("one").sign(&claims("ann", "acme", "admin"));
    for _ in 0..4 {
        assert_eq!(judged(&server, &token).await, "AUTH_MISCONFIGURED");
    }
    assert_eq!(service.requests().len(), 1);
    server.shutdown().await;
}

#[tokio::test]
async fn strict_mode_refuses_before_the_upgrade_and_lenient_mode_makes_visitors() {
    let strict = server(shared(), |config| config.strict_auth = true).await;
    let good = hs256(SECRET, &claims("ann", "acme", "basic"));
    Connect::to(strict.ws_url()).token(&good).open().await.expect("the token is good");
    let expired = hs256(SECRET, &with(claims("ann", "acme", "basic"), "exp", json!(now() - 3600)));
    for connect in [Connect::to(strict.ws_url()), Connect::to(strict.ws_url()).token(&expired)] {
        let refused = connect.open().await.err().expect("strict");
        assert_eq!((refused.status, refused.body.as_str()), (401, "unauthorized"));
    }
    strict.shutdown().await;

    let lenient = server(shared(), |_| ()).await;
    let mut visitor = Connect::to(lenient.ws_url()).token(&expired).open().await.expect("a visitor");
    let session = visitor.create_session().await;
    visitor.turn(&session, "hi").await;
    lenient.shutdown().await;
}

#[tokio::test]
async fn people_see_their_own_conversations_and_their_own_organisation_only() {
    let server = server(shared(), |_| ()).await;
    let connect = async |user: &str, org: &str| {
        let token = hs256(SECRET, &claims(user, org, "basic"));
        Connect::to(server.ws_url()).token(&token).open().await.unwrap()
    };
    let mut ann = connect("ann", "acme").await;
    let anns = ann.create_session_with(json!({"userEmail": "bob@acme.example"})).await;
    ann.turn(&anns, "hi").await;

    // What the frame says about an address gives bob nothing: the token's address owns the conversation.
    for (user, org) in [("bob", "acme"), ("ann", "other")] {
        let mut stranger = connect(user, org).await;
        for frame in [
            json!({"action": "get_session", "sessionId": anns.id}),
            json!({"action": "get_conversation_messages", "sessionId": anns.id}),
            json!({"action": "send_message", "sessionId": anns.id, "message": "hi"}),
        ] {
            let error = stranger.request(frame).await;
            assert_eq!(error["error"]["code"], "SESSION_NOT_FOUND", "{user}@{org}");
        }
        let rename = json!({"action": "rename_conversation", "conversationId": anns.conversation_id, "title": "x"});
        assert_eq!(stranger.request(rename).await["error"]["code"], "CONVERSATION_NOT_FOUND");
        let listed = stranger.request(json!({"action": "list_conversations"})).await;
        assert_eq!(listed["data"]["conversations"], json!([]));
        let resumed = stranger.create_session_with(json!({"conversationId": anns.conversation_id})).await;
        assert_ne!(resumed.conversation_id, anns.conversation_id);
    }

    let mut again = connect("ann", "acme").await;
    let resumed = again.create_session_with(json!({"conversationId": anns.conversation_id})).await;
    assert_eq!(resumed.conversation_id, anns.conversation_id);
    let listed = again.request(json!({"action": "list_conversations"})).await;
    assert_eq!(listed["data"]["conversations"][0]["conversationId"], anns.conversation_id.as_str());
    server.shutdown().await;
}

#[tokio::test]
async fn an_address_that_its_issuer_has_not_verified_owns_nothing() {
    let server = server(shared(), |_| ()).await;
    let me = with(claims("ann", "acme", "basic"), "email_verified", json!(false));
    let me = Http::to(server.addr()).token(&hs256(SECRET, &me)).get("/admin/me").await.json_of(200);
    assert_eq!(me.get("email"), None);
    server.shutdown().await;
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_a_disabled_server_takes_no_token() {
    let trusted = server(AuthMode::Trusted, |_| ()).await;
    let ann = claims("ann", "acme", "curator");
    let plain = |claims: &Value| URL_SAFE_NO_PAD.encode(claims.to_string());
    assert_eq!(judged(&trusted, &plain(&ann)).await, "ann");
    assert_eq!(judged(&trusted, &plain(&with(ann.clone(), "exp", json!(1)))).await, "INVALID_TOKEN");
    assert_eq!(judged(&trusted, &hs256(SECRET, &ann)).await, "INVALID_TOKEN");
    trusted.shutdown().await;

    let disabled = server(AuthMode::Disabled, |_| ()).await;
    Http::to(disabled.addr()).get("/admin/me").await.refusal(401, "UNAUTHENTICATED");
    assert_eq!(judged(&disabled, "anything").await, "INVALID_TOKEN");
    let mut visitor = disabled.connect().await;
    let session = visitor.create_session().await;
    visitor.turn(&session, "hi").await;
    disabled.shutdown().await;
}

#[tokio::test]
async fn neither_a_proxys_word_nor_no_tokens_at_all_let_a_server_listen_beyond_this_machine() {
    for auth in [AuthMode::Trusted, AuthMode::Disabled] {
        let mut config = ServerConfig::default();
        config.auth = auth;
        let open = jackfield::local::LocalServer::builder().addr(([0, 0, 0, 0], 0).into()).config(config);
        assert!(open.spawn().await.expect_err("anybody could connect").to_string().contains("--allow-unauthenticated"));
    }
}

#[tokio::test]
async fn a_mode_that_cannot_work_does_not_boot() {
    let load = |env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sources { env, ..Sources::default() }.load().map(|loaded| loaded.config)
    };
    for (env, says) in [
        (&[("AUTH_MODE", "jwt")][..], "needs a key"),
        (&[("SMOOTH_AGENT_AUTH_MODE", "smoo"), ("AUTH_JWT_HS256_SECRET", SECRET)], "needs an issuer"),
        (&[("AUTH_MODE", "kerberos")], "one of none"),
        (&[("AUTH_MODE", "local-token")], "needs a token"),
        (&[("AUTH_JWT_HS256_SECRET", SECRET)], "set auth.mode jwt"),
    ] {
        let error = load(env).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains(SECRET), "{error}");
    }
    // The first of the two names wins.
    let config = load(&[("SMOOTH_AGENT_AUTH_MODE", "trusted"), ("AUTH_MODE", "none")]).unwrap();
    assert_eq!(config.auth, AuthMode::Trusted);

    for key in [JwtKey::Rs256("no key".to_owned()), JwtKey::Jwks("http://id.example/keys".to_owned())] {
        let mut config = ServerConfig::default();
        config.auth = jwt(key);
        let builder = jackfield::local::LocalServer::builder().addr(jackfield_tests::server::any_port());
        let error = builder.config(config).spawn().await.expect_err("it could never check a token");
        assert!(error.to_string().starts_with("auth.jwt_"), "{error}");
    }
}
