//! Connectors, sources and what is known, through the admin API.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use jackfield::{
    auth::{AuthError, AuthVerifier, Principal, Role},
    local::LocalServer,
};
use jackfield_tests::{
    client::{TestClient, answer},
    http::Http,
    model::{ScriptedModel, script},
    server::TestServer,
};
use serde_json::{Value, json};

/// Takes tokens such as `admin acme`: a role and an organisation.
struct Names;

#[async_trait]
impl AuthVerifier for Names {
    async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let (role, org_id) = token.split_once(' ').ok_or(AuthError::MissingRole)?;
        let role = match role {
            "basic" => Role::Basic,
            "curator" => Role::Curator,
            _ => Role::Admin,
        };
        let (user_id, org_id) = ("u".to_owned(), org_id.to_owned());
        Ok(Principal { user_id, org_id, role, display_name: None, email: None, groups: Vec::new() })
    }

    fn mode(&self) -> &'static str {
        "names"
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A server whose connectors may read `open` below the folder.
async fn server(folder: &Path, auth: bool) -> (LocalServer, ScriptedModel) {
    let (roots, state) = (vec![folder.join("open")], folder.join("state"));
    let replies = script().says("Fine.").forever();
    let server = TestServer::build_with(
        replies,
        |config| config.knowledge.roots = roots,
        |builder| {
            let builder = builder.state_dir(state);
            if auth { builder.auth(Arc::new(Names)) } else { builder }
        },
    );
    server.await.into_parts()
}

fn http(server: &LocalServer, token: &str) -> Http {
    Http::to(server.addr()).token(token)
}

fn operator(server: &LocalServer) -> Http {
    http(server, server.run_file().admin_token.reveal())
}

#[tokio::test]
async fn a_connector_is_made_indexed_replaced_and_removed_with_its_documents() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "open/docs/parrots.md", b"# Parrots\n\nThey talk.");
    write(folder.path(), "open/docs/lions.html", b"<h1>Lions</h1>");
    write(folder.path(), "open/docs/logo.png", b"\x89PNG\0");
    let (server, _model) = server(folder.path(), false).await;
    let api = Http::to(server.addr());
    let body = |enabled: bool| json!({"name": "Docs", "kind": "file", "config": {"path": folder.path().join("open/docs")}, "enabled": enabled});
    let made = api.post("/admin/connectors", body(true)).await.json_of(201)["connector"].clone();
    let id = made["id"].as_str().unwrap();
    let keys: Vec<&str> = made.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["config", "createdAt", "enabled", "id", "kind", "name", "updatedAt"]);
    assert_eq!(api.get("/admin/connectors").await.json_of(200)["connectors"], json!([made]));
    assert_eq!(api.get("/admin/document-sets").await.json_of(200), json!({"documentSets": []}));

    let run = api.post(&format!("/admin/connectors/{id}/index"), json!({})).await.json_of(200)["run"].clone();
    assert_eq!((&run["status"], &run["connectorName"]), (&json!("succeeded"), &json!("Docs")), "{run}");
    let counts = ["documentsSeen", "chunksIndexed", "documentsSkipped"].map(|key| run[key].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1]);
    assert_eq!((&run["cursor"], &run["error"]), (&Value::Null, &Value::Null));
    assert!(run["finishedAt"].is_string());
    assert_eq!(api.get("/admin/indexing/runs").await.json_of(200)["runs"], json!([run]));
    let report = api.get(&format!("/admin/indexing/runs/{}", run["id"].as_str().unwrap())).await.json_of(200);
    assert_eq!(report["skipped"], json!([{"document": "docs/logo.png", "reason": "it is a binary file"}]));
    let sets = api.get("/admin/document-sets").await.json_of(200);
    assert_eq!(sets, json!({"documentSets": [{"name": "Docs", "documentCount": 2}]}));

    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "do parrots talk?").await;
    assert_eq!(answer(&frames)["citations"][0]["title"], "docs/parrots.md");

    std::fs::remove_file(folder.path().join("open/docs/parrots.md")).unwrap();
    api.post(&format!("/admin/connectors/{id}/index"), json!({})).await.json_of(200);
    let frames = client.turn(&session, "do parrots talk?").await;
    assert!(answer(&frames).get("citations").is_none(), "a file that is gone takes its document with it");

    let replaced = api.put(&format!("/admin/connectors/{id}"), body(false)).await.json_of(200)["connector"].clone();
    assert_eq!((&replaced["id"], &replaced["createdAt"]), (&made["id"], &made["createdAt"]));
    let refusal = api.post(&format!("/admin/connectors/{id}/index"), json!({})).await;
    assert!(refusal.refusal(400, "VALIDATION_ERROR").contains("not enabled"));
    assert_eq!(api.delete(&format!("/admin/connectors/{id}")).await.status, 204);
    api.delete(&format!("/admin/connectors/{id}")).await.refusal(404, "NOT_FOUND");
    assert_eq!(api.get("/admin/document-sets").await.json_of(200), json!({"documentSets": []}));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_connector_that_reads_elsewhere_or_is_of_another_kind_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "open/a.md", b"a");
    write(folder.path(), "closed/b.md", b"b");
    std::os::unix::fs::symlink(folder.path().join("closed"), folder.path().join("open/escape")).unwrap();
    let (server, _model) = server(folder.path(), false).await;
    let api = Http::to(server.addr());
    let path = |path: &str| json!({"path": folder.path().join(path)});
    for (kind, config, expected) in [
        ("file", path("closed"), "outside of the folders that the configuration opens"),
        ("file", path("open/escape"), "outside of the folders"),
        ("file", path("open/../closed"), "outside of the folders"),
        ("file", path("closed/not-there"), "outside of the folders"),
        ("file", json!({"path": "/etc/passwd"}), "outside of the folders"),
        ("file", json!({}), "needs config.path"),
        ("file", json!({"path": "open"}), "absolute"),
        ("file", json!({"path": "/x", "colour": "red"}), "unknown field `colour`"),
        ("web", json!({"url": "https://example.com"}), "fetches nothing from the network"),
        ("github", json!({"owner": "o", "repo": "r"}), "kind github"),
        ("ftp", json!({}), "one of the kinds"),
    ] {
        let refused = api.post("/admin/connectors", json!({"name": "x", "kind": kind, "config": config})).await;
        let message = refused.refusal(400, "VALIDATION_ERROR");
        assert!(message.contains(expected), "{kind} {config}: {message}");
    }
    assert_eq!(api.get("/admin/connectors").await.json_of(200), json!({"connectors": []}));

    // A place that becomes a way out after it was accepted is refused when it is read.
    let new = json!({"name": "later", "kind": "file", "config": path("open/later")});
    let id = api.post("/admin/connectors", new).await.json_of(201)["connector"]["id"].as_str().unwrap().to_owned();
    std::os::unix::fs::symlink(folder.path().join("closed"), folder.path().join("open/later")).unwrap();
    let run = api.post(&format!("/admin/connectors/{id}/index"), json!({})).await.json_of(200)["run"].clone();
    assert_eq!((&run["status"], &run["documentsSeen"]), (&json!("failed"), &json!(0)));
    assert!(run["error"].as_str().unwrap().contains("outside of the folders"), "{run}");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn organisations_do_not_see_each_others_connectors_runs_and_documents() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "open/a.md", b"parrots");
    let (server, _model) = server(folder.path(), true).await;
    let (acme, rival) = (http(&server, "admin acme"), http(&server, "admin rival"));
    let new = json!({"name": "docs", "kind": "file", "config": {"path": folder.path().join("open")}});
    let id =
        acme.post("/admin/connectors", new.clone()).await.json_of(201)["connector"]["id"].as_str().unwrap().to_owned();
    let run = acme.post(&format!("/admin/connectors/{id}/index"), json!({})).await.json_of(200)["run"].clone();
    let run_address = format!("/admin/indexing/runs/{}", run["id"].as_str().unwrap());
    for answer in [
        rival.get(&format!("/admin/connectors/{id}")).await,
        rival.put(&format!("/admin/connectors/{id}"), new.clone()).await,
        rival.delete(&format!("/admin/connectors/{id}")).await,
        rival.post(&format!("/admin/connectors/{id}/index"), json!({})).await,
        rival.get(&run_address).await,
        rival.delete("/admin/knowledge/documents?id=x").await,
    ] {
        answer.refusal(404, "NOT_FOUND");
    }
    for (path, key) in [
        ("/admin/connectors", "connectors"),
        ("/admin/indexing/runs", "runs"),
        ("/admin/document-sets", "documentSets"),
        ("/admin/knowledge/documents", "documents"),
    ] {
        assert_eq!(rival.get(path).await.json_of(200)[key], json!([]), "{path}");
        assert_eq!(acme.get(path).await.json_of(200)[key].as_array().unwrap().len(), 1, "{path}");
    }
    let query = json!({"query": "parrots"});
    assert_eq!(rival.post("/admin/knowledge/query", query.clone()).await.json_of(200)["passages"], json!([]));
    assert_eq!(acme.post("/admin/knowledge/query", query.clone()).await.json_of(200)["passages"][0]["text"], "parrots");

    for (caller, method, path) in [
        ("basic acme", "GET", "/admin/connectors"),
        ("basic acme", "GET", "/admin/knowledge"),
        ("curator acme", "POST", "/admin/connectors"),
        ("curator acme", "DELETE", "/admin/connectors/x"),
        ("admin acme", "POST", "/admin/knowledge/sources"),
        ("admin acme", "DELETE", "/admin/knowledge/sources/x"),
    ] {
        http(&server, caller).request(method, path, None).await.refusal(403, "FORBIDDEN");
    }
    let as_somebody = json!({"query": "parrots", "user": "ann"});
    http(&server, "curator acme").post("/admin/knowledge/query", as_somebody).await.refusal(403, "FORBIDDEN");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_source_is_added_by_the_operator_alone_and_is_there_again_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "anywhere/notes/parrots.md", b"Parrots talk.");
    write(folder.path(), "anywhere/notes/broken.txt", b"\xff\xfe");
    let (first, _model) = server(folder.path(), false).await;
    let new = json!({"path": folder.path().join("anywhere/notes")});
    Http::to(first.addr()).post("/admin/knowledge/sources", new.clone()).await.refusal(401, "UNAUTHENTICATED");
    let refused = http(&first, "guess").post("/admin/knowledge/sources", new.clone()).await;
    assert!(refused.refusal(403, "FORBIDDEN").contains("operator"));

    let added = operator(&first).post("/admin/knowledge/sources", new.clone()).await.json_of(201);
    assert_eq!((&added["source"]["name"], &added["source"]["kept"]), (&json!("notes"), &json!("state")));
    assert_eq!(added["source"]["documents"], 1);
    assert_eq!(added["report"]["run"]["documentsSkipped"], 1);
    assert!(added["report"]["skipped"][0]["reason"].as_str().unwrap().contains("UTF-16"), "{added}");
    let again = operator(&first).post("/admin/knowledge/sources", new).await.json_of(201);
    assert_eq!(again["source"]["name"], "notes", "the same path is the same source");
    for (body, expected) in [
        (json!({"path": "notes"}), "absolute"),
        (json!({"path": folder.path().join("missing")}), "cannot be read"),
        (json!({"path": folder.path().join("open"), "name": "a/b"}), "cannot be read"),
        (json!({"path": folder.path(), "name": "notes"}), "taken"),
    ] {
        let message =
            operator(&first).post("/admin/knowledge/sources", body.clone()).await.refusal(400, "VALIDATION_ERROR");
        assert!(message.contains(expected), "{body}: {message}");
    }
    first.shutdown().await.unwrap();

    let (second, _model) = server(folder.path(), false).await;
    second.sources_settled(std::time::Duration::from_secs(20)).await;
    let state = Http::to(second.addr()).get("/admin/knowledge").await.json_of(200);
    assert_eq!((&state["documents"], &state["passages"], &state["vectors"]), (&json!(1), &json!(1), &Value::Null));
    assert_eq!(state["sources"][0]["name"], "notes");
    assert_eq!(state["sources"][0]["lastRun"]["run"]["status"], "succeeded");
    let listed = Http::to(second.addr()).get("/admin/knowledge/documents?source=notes").await.json_of(200);
    assert_eq!(listed["documents"][0]["id"], "notes/parrots.md");
    assert_eq!(listed["documents"][0]["origin"], "source notes");
    let refused = Http::to(second.addr()).delete("/admin/knowledge/documents?id=notes/parrots.md").await;
    assert!(refused.refusal(400, "VALIDATION_ERROR").contains("source notes"));

    write(folder.path(), "anywhere/notes/lions.md", b"Lions roar.");
    let reread = Http::to(second.addr()).post("/admin/knowledge/sources/notes/index", json!({})).await.json_of(200);
    assert_eq!(reread["report"]["run"]["chunksIndexed"], 2);
    let removed = operator(&second).delete("/admin/knowledge/sources/notes").await.json_of(200);
    assert_eq!(removed, json!({"removedDocuments": 2}));
    operator(&second).delete("/admin/knowledge/sources/notes").await.refusal(404, "NOT_FOUND");
    let state = Http::to(second.addr()).get("/admin/knowledge").await.json_of(200);
    assert_eq!((&state["documents"], &state["sources"]), (&json!(0), &json!([])));
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_document_is_put_and_a_query_says_what_it_found_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _model) = server(folder.path(), false).await;
    let api = Http::to(server.addr());
    let put = async |body: Value| api.post("/admin/knowledge/documents", body).await;
    let page = json!({"id": "lions", "text": "<h1>Lions</h1><p>Lions and parrots.", "format": "html"});
    let made = put(page).await.json_of(201)["document"].clone();
    assert_eq!((&made["id"], &made["source"], &made["passages"]), (&json!("lions"), &json!("lions"), &json!(1)));
    put(json!({"id": "parrots", "text": "parrots", "source": "https://zoo.example"})).await.json_of(201);
    put(json!({"id": "secret", "text": "parrot secrets", "acl": {"users": ["ann"]}})).await.json_of(201);
    for (body, expected) in [
        (json!({"id": "", "text": "x"}), "needs an id"),
        (json!({"id": "x", "text": " "}), "no text"),
        (json!({"id": "x", "text": "y", "acl": {"user": []}}), "unknown field `user`"),
        (json!({"id": "x"}), "missing field `text`"),
    ] {
        let message = put(body.clone()).await.refusal(400, "VALIDATION_ERROR");
        assert!(message.contains(expected), "{body}: {message}");
    }

    let query = async |body: Value| api.post("/admin/knowledge/query", body).await.json_of(200);
    let found = query(json!({"query": "what about the parrot and unicorns?", "limit": 1})).await;
    assert_eq!(found["words"], json!([{"word": "parrot", "used": true}, {"word": "unicorn", "used": false}]));
    assert_eq!(found["vectors"]["state"], "off");
    let ids: Vec<&str> =
        found["passages"].as_array().unwrap().iter().map(|passage| passage["documentId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["parrots", "lions"]);
    assert_eq!((&found["passages"][0]["cut"], &found["passages"][0]["words"]), (&Value::Null, &json!(["parrot"])));
    assert_eq!(found["passages"][0]["byWords"]["rank"], 1);
    assert_eq!(found["passages"][1]["cut"], "it comes after the 1 that are used");
    assert_eq!(found["hiddenPassages"], 1);
    let anns = query(json!({"query": "parrot", "user": "ann", "limit": 5})).await;
    assert_eq!((anns["passages"].as_array().unwrap().len(), &anns["hiddenPassages"]), (3, &json!(0)));
    let nothing = query(json!({"query": "hello there"})).await;
    assert_eq!((&nothing["words"], &nothing["passages"]), (&json!([]), &json!([])));

    assert_eq!(api.delete("/admin/knowledge/documents?id=parrots").await.status, 204);
    api.delete("/admin/knowledge/documents?id=parrots").await.refusal(404, "NOT_FOUND");
    let first = api.get("/admin/knowledge/documents?limit=1").await.json_of(200);
    assert_eq!((&first["documents"][0]["id"], &first["nextCursor"]), (&json!("lions"), &json!("lions")));
    let last = api.get("/admin/knowledge/documents?limit=1&cursor=lions").await.json_of(200);
    assert_eq!((&last["documents"][0]["id"], &last["nextCursor"]), (&json!("secret"), &Value::Null));
    server.shutdown().await.unwrap();
}
