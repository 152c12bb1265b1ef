//! What turns know: documents of a program, of files and folders, who may find them, and what is cited.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use jackfield::{
    auth::{AuthError, AuthVerifier, Principal, Role},
    connectors::{NewSource, RunStatus},
    knowledge::{Document, DocumentAcl},
    local::LocalServer,
};
use jackfield_tests::{
    client::{Connect, TestClient, answer, tool_results},
    model::{Embeddings, Script, script},
    server::{CANARY_KEY, TestServer},
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn cited(frames: &[Value]) -> Vec<&str> {
    let citations = answer(frames)["citations"].as_array();
    citations.into_iter().flatten().map(|citation| citation["id"].as_str().unwrap()).collect()
}

fn replies(count: usize) -> Script {
    (0..count).fold(script(), |script, _| script.says("Fine."))
}

async fn with_documents(documents: Vec<Document>) -> (TestServer, TestClient) {
    let server = TestServer::build(script().says("Fine.").forever(), |builder| builder.documents(documents)).await;
    let client = server.connect().await;
    (server, client)
}

#[tokio::test]
async fn a_short_document_is_cited_whole_and_a_long_one_by_a_snippet() {
    let short = "Parrots live up to 80 years.\n\nThey eat seeds.";
    let long = format!("Giraffes are tall. {}", "é".repeat(300));
    let documents = vec![
        Document { source: "animals/parrots.md".to_owned(), ..Document::new("parrots", format!(" {short}\n")) },
        Document { source: "https://zoo.example/giraffes".to_owned(), ..Document::new("giraffes", long.clone()) },
    ];
    let (server, mut client) = with_documents(documents).await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "how old is a parrot?").await;
    let citations = answer(&frames)["citations"].as_array().unwrap().clone();
    assert_eq!(citations.len(), 1);
    assert_eq!(citations[0]["snippet"], short, "the stored document, trimmed, and nothing but it");
    assert_eq!((&citations[0]["id"], &citations[0]["title"]), (&json!("parrots"), &json!("animals/parrots.md")));
    assert!(citations[0].get("url").is_none() && citations[0]["score"].as_f64().unwrap() > 0.0);

    let frames = client.turn(&session, "giraffe").await;
    let citation = &answer(&frames)["citations"][0];
    assert_eq!(citation["url"], "https://zoo.example/giraffes");
    let snippet = citation["snippet"].as_str().unwrap();
    assert_eq!(snippet.chars().count(), 281);
    assert!(snippet.ends_with('…') && long.starts_with(snippet.trim_end_matches('…')));
    server.shutdown().await;
}

#[tokio::test]
async fn small_talk_cites_nothing_and_one_shared_word_is_enough_whatever_its_ending() {
    let documents = vec![
        Document::new("vouchers", "(vouchers), \"gift-cards\": how to hi-jack, thank-you notes, good mornings."),
        Document::new("policy", "Our policy about parking."),
    ];
    let (server, mut client) = with_documents(documents).await;
    let session = client.create_session().await;
    for small_talk in ["hi", "Hello there!", "thanks", "ok, thank you", "how are you?", "good morning", "what's up"] {
        let frames = client.turn(&session, small_talk).await;
        assert!(answer(&frames).get("citations").is_none(), "{small_talk}: {:?}", cited(&frames));
    }
    for (question, expected) in [
        ("is there a voucher?", "vouchers"),
        ("VOUCHERS!", "vouchers"),
        ("gift", "vouchers"),
        ("which policies apply", "policy"),
    ] {
        assert_eq!(cited(&client.turn(&session, question).await), [expected], "{question}");
    }
    assert_eq!(cited(&client.turn(&session, "quantum chromodynamics").await), Vec::<&str>::new());
    server.shutdown().await;
}

#[tokio::test]
async fn the_tools_hits_are_cited_too_each_document_once() {
    let documents = vec![Document::new("parrots", "Parrots talk."), Document::new("giraffes", "Giraffes are silent.")];
    let replies = script()
        .calls_many([
            ("knowledge_search", json!({"query": "giraffes and parrots"})),
            ("knowledge_search", json!({"query": "parrot", "limit": 1})),
            ("knowledge_search", json!({"query": "unicorns"})),
        ])
        .says("Done.");
    let server = TestServer::build(replies, |builder| builder.documents(documents)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "do parrots talk?").await;
    assert_eq!(cited(&frames), ["parrots", "giraffes"]);
    let results = tool_results(&frames);
    assert!(results[0].2.starts_with("2 passages found:") && results[0].2.contains("(document giraffes, relevance "));
    assert_eq!(results[2].2, "Nothing in the knowledge base matches this query.");
    server.shutdown().await;
}

/// Lets in whoever says who they are: `USER@ORG/GROUP`.
struct Trusting;

#[async_trait]
impl AuthVerifier for Trusting {
    async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let (user, rest) = token.split_once('@').ok_or(AuthError::MissingRole)?;
        let (org, group) = rest.split_once('/').unwrap_or((rest, ""));
        let groups = if group.is_empty() { Vec::new() } else { vec![group.to_owned()] };
        Ok(Principal {
            user_id: user.to_owned(),
            org_id: org.to_owned(),
            role: Role::Basic,
            display_name: None,
            email: Some(format!("{user}@example.com")),
            groups,
        })
    }

    fn mode(&self) -> &'static str {
        "trusting"
    }
}

#[tokio::test]
async fn what_somebody_may_not_read_is_never_found_cited_or_shown_to_the_model() {
    let acl = |users: &[&str], groups: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Some(DocumentAcl { public: false, users: own(users), groups: own(groups) })
    };
    let in_acme = |id: &str, text: &str, acl| Document { org_id: "acme".to_owned(), acl, ..Document::new(id, text) };
    let mut documents: Vec<Document> =
        (0..40).map(|number| in_acme(&format!("secret{number}"), "parrot secret", acl(&[], &[]))).collect();
    documents.push(in_acme("open", "a parrot among many other animals of the zoo", None));
    documents.push(in_acme("anns", "the parrot of ann", acl(&["ann"], &[])));
    documents.push(in_acme("keepers", "the parrot of the keepers", acl(&[], &["keepers"])));
    documents.push(Document { org_id: "rival".to_owned(), ..Document::new("rivals", "the parrot of rivals") });
    documents.push(Document::new("servers", "the parrot of the server's own organisation"));
    let all = (0..5).fold(script(), |all, _| {
        all.calls("knowledge_search", json!({"query": "parrot secret", "limit": 10})).says("Done.")
    });
    let server = TestServer::build(all, |builder| builder.documents(documents).auth(Arc::new(Trusting))).await;
    for (token, expected) in [
        (Some("ann@acme"), &["anns", "open"][..]),
        (Some("bob@acme/keepers"), &["keepers", "open"]),
        (Some("keepers@acme/ann"), &["open"]),
        (Some("ann@rival"), &["rivals"]),
        (None, &["servers"]),
    ] {
        let connect = Connect::to(server.ws_url());
        let connect = if let Some(token) = token { connect.token(token) } else { connect };
        let mut client = connect.open().await.unwrap();
        let session = client.create_session().await;
        let frames = client.turn(&session, "what about the parrot secret?").await;
        let mut found = cited(&frames);
        found.sort_unstable();
        assert_eq!(found, expected, "{token:?}");
        client.close().await;
    }
    for request in server.model().requests() {
        assert!(!request.body.to_string().contains("secret0"), "a hidden document reached the model");
    }
    server.shutdown().await;
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_folder_is_a_source_and_each_file_that_is_none_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let docs = folder.path().join("docs");
    write(&docs, "parrots.md", b"# Parrots\n\nThey talk.");
    write(&docs, "sub/giraffes.html", b"<h1>Giraffes</h1><script>x</script><p>They are tall.");
    write(&docs, "logo.png", b"\x89PNG\0");
    write(&docs, "latin.txt", b"caf\xe9");
    write(folder.path(), "one.txt", b"A lone lion.");
    let staff = DocumentAcl { groups: vec!["staff".to_owned()], ..DocumentAcl::default() };
    let secret = NewSource { path: folder.path().join("one.txt"), acl: Some(staff), ..NewSource::default() };
    let server = TestServer::build(replies(3), |builder| {
        builder.knowledge_source(docs.clone()).knowledge_source(secret).knowledge_source(folder.path().join("missing"))
    })
    .await;
    let (server, model) = server.into_parts();
    let settled = server.sources_settled(PATIENCE).await;
    let reports: Vec<_> =
        settled.iter().map(|(source, report)| (source.name.as_str(), report.clone().unwrap())).collect();
    let names: Vec<&str> = reports.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["docs", "one.txt", "missing"]);
    let (_, docs_report) = &reports[0];
    assert_eq!((docs_report.run.documents_seen, docs_report.run.documents_skipped), (4, 2));
    assert_eq!((docs_report.run.chunks_indexed, docs_report.run.status), (2, RunStatus::Succeeded));
    let skipped: Vec<(&str, &str)> =
        docs_report.skipped.iter().map(|skip| (skip.document.as_str(), skip.reason.as_str())).collect();
    assert_eq!(skipped[0].0, "docs/latin.txt");
    assert!(skipped[0].1.contains("not UTF-8 (byte 0xe9 at 3)"), "{skipped:?}");
    assert_eq!(skipped[1], ("docs/logo.png", "it is a binary file"));
    let (_, missing) = &reports[2];
    assert_eq!(missing.run.status, RunStatus::Failed);
    assert!(missing.run.error.as_ref().unwrap().contains("missing"), "{missing:?}");

    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "how tall is a giraffe?").await;
    assert_eq!(cited(&frames), ["docs/sub/giraffes.html"]);
    assert_eq!(answer(&frames)["citations"][0]["snippet"], "# Giraffes\n\nThey are tall.");
    assert_eq!(cited(&client.turn(&session, "do parrots talk").await), ["docs/parrots.md"]);
    assert_eq!(cited(&client.turn(&session, "where is the lion").await), Vec::<&str>::new(), "that is for staff");
    server.shutdown().await.unwrap();
    drop(model);
}

#[tokio::test]
async fn documents_can_be_added_replaced_and_removed_while_the_server_runs() {
    let server = TestServer::build(script().says("Fine.").forever(), |builder| builder).await;
    let (server, model) = server.into_parts();
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let document = |text: &str| Document { org_id: "reference-org".to_owned(), ..Document::new("a", text) };
    assert_eq!(cited(&client.turn(&session, "parrot").await), Vec::<&str>::new());
    server.knowledge().ingest(vec![document("a parrot")]).await;
    assert_eq!(cited(&client.turn(&session, "parrot").await), ["a"]);
    server.knowledge().ingest(vec![document("a giraffe")]).await;
    assert_eq!(cited(&client.turn(&session, "parrot").await), Vec::<&str>::new());
    assert_eq!(cited(&client.turn(&session, "giraffe").await), ["a"]);
    let homeless = server.knowledge().ingest(vec![Document::new("b", "an elephant")]).await;
    let refusal = homeless[0].1.as_ref().unwrap_err().to_string();
    assert!(refusal.contains("needs an organisation"), "nobody would ever find it, so it is not taken: {refusal}");
    assert!(server.knowledge().remove("reference-org", "a").await.unwrap());
    assert_eq!(cited(&client.turn(&session, "giraffe").await), Vec::<&str>::new());
    server.shutdown().await.unwrap();
    drop(model);
}

const SUBJECTS: Embeddings =
    Embeddings::Subjects { subjects: &[&["sea", "ocean", "water"], &["mountain", "alp"], &["town", "city"]], zeros: 0 };

/// A server with an embedding model and three documents.
async fn with_vectors(embeddings: Embeddings) -> (LocalServer, jackfield_tests::model::ScriptedModel) {
    let documents = [("ocean", "The ocean is deep."), ("alps", "Mountain huts."), ("town", "A town hall.")];
    let documents = documents.map(|(id, text)| Document::new(id, text));
    let configure = |config: &mut jackfield::ServerConfig| {
        config.knowledge.embedding_model = Some("vectors-1".to_owned());
        config.limits.knowledge_vector_retry = Duration::from_millis(200);
    };
    let replies = script().says("Fine.").forever();
    let server = TestServer::build_with(replies, configure, |builder| builder.documents(documents));
    let (server, model) = server.await.into_parts();
    model.embeds(embeddings);
    (server, model)
}

async fn until_vectors_are_there(server: &LocalServer) {
    let waiting = async {
        while server.knowledge().dense_status().unwrap().ready < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the vectors are made");
}

#[tokio::test]
async fn with_an_embedding_model_a_question_is_answered_by_its_meaning() {
    let (server, model) = with_vectors(SUBJECTS).await;
    until_vectors_are_there(&server).await;
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    assert_eq!(cited(&client.turn(&session, "is there salt in the seas?").await), ["ocean"]);
    let frames = client.turn(&session, "which town is at the sea?").await;
    assert_eq!(cited(&frames), ["town", "ocean"]);
    let score = |number: usize| answer(&frames)["citations"][number]["score"].as_f64().unwrap();
    assert!(score(0) > score(1) && score(0) <= 1.0);
    let asked = model.embedding_requests().len();
    assert_eq!(cited(&client.turn(&session, "hello!").await), Vec::<&str>::new());
    assert_eq!(model.embedding_requests().len(), asked, "small talk is not sent anywhere");
    assert!(model.embedding_requests().iter().all(|request| request["model"] == "vectors-1"));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_embedding_model_that_fails_costs_a_turn_nothing_but_its_ranking() {
    for embeddings in [
        Embeddings::Missing,
        Embeddings::Fails(500, "The ocean is deep, says canary-gateway-key-5f1d"),
        Embeddings::Hangs,
    ] {
        let (server, model) = with_vectors(embeddings.clone()).await;
        let mut client = TestClient::connect(&server.ws_url()).await;
        let session = client.create_session().await;
        assert_eq!(cited(&client.turn(&session, "which town is at the sea?").await), ["town"], "{embeddings:?}");
        let status = format!("{:?}", server.knowledge().dense_status().unwrap());
        assert!(!status.contains(CANARY_KEY) && !status.contains("ocean is deep"), "{status}");
        // What was wrong passes, and then everything comes.
        model.embeds(SUBJECTS);
        if !matches!(embeddings, Embeddings::Hangs) {
            until_vectors_are_there(&server).await;
            let found =
                async { while cited(&client.turn(&session, "is there salt in the seas?").await) != ["ocean"] {} };
            tokio::time::timeout(PATIENCE, found).await.expect("meaning counts again");
        }
        server.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn vectors_of_another_dimension_are_made_anew_and_words_decide_meanwhile() {
    let (server, model) = with_vectors(SUBJECTS).await;
    until_vectors_are_there(&server).await;
    let Embeddings::Subjects { subjects, .. } = SUBJECTS else { unreachable!() };
    model.embeds(Embeddings::Subjects { subjects, zeros: 5 });
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    assert_eq!(cited(&client.turn(&session, "which town is at the sea?").await), ["town"]);
    until_vectors_are_there(&server).await;
    assert_eq!(server.knowledge().dense_status().unwrap().dimension, Some(8));
    assert_eq!(cited(&client.turn(&session, "is there salt in the seas?").await), ["ocean"]);
    server.shutdown().await.unwrap();
}
