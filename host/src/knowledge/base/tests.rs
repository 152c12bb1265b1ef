//! The knowledge base as a whole.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::knowledge::{DEMO_DOCUMENT_SET, DocumentAcl, demo_documents};

fn document(id: &str, text: &str) -> Document {
    Document {
        id: id.to_owned(),
        source: format!("{id}.md"),
        text: text.to_owned(),
        org_id: "org".to_owned(),
        ..Document::default()
    }
}

fn anyone() -> Requester {
    Requester { org_id: "org".to_owned(), ..Requester::default() }
}

async fn filled(documents: Vec<Document>) -> KnowledgeBase {
    let base = KnowledgeBase::new(&Limits::default());
    for (id, result) in base.ingest(documents).await {
        assert!(result.is_ok(), "{id}: {result:?}");
    }
    base
}

async fn found(base: &KnowledgeBase, requester: &Requester, question: &str) -> Vec<String> {
    base.search(requester, question, 10).await.unwrap().into_iter().map(|hit| hit.document_id).collect()
}

#[tokio::test]
async fn the_demo_answers_until_when() {
    let base = filled(demo_documents("org")).await;
    let hits = base.search(&anyone(), "until when can I send an item back for return?", 3).await.unwrap();
    assert_eq!(hits[0].source, "policies/returns.md");
    assert!(hits[0].text.chars().take(280).collect::<String>().contains("17 days"));
    assert_eq!(found(&base, &anyone(), "How long does expedited shipping take?").await[0], "policies/shipping.md");
    let listed = base.documents("org");
    assert_eq!(
        listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(),
        ["policies/returns.md", "policies/shipping.md"]
    );
    assert!(listed.iter().all(|row| row.document_set.as_deref() == Some(DEMO_DOCUMENT_SET) && row.passages == 1));
}

#[tokio::test]
async fn small_talk_finds_nothing() {
    let base = filled(demo_documents("org")).await;
    for text in ["hi", "Hello!", "thanks a lot", "how are you?", "good morning", "", "???"] {
        assert_eq!(found(&base, &anyone(), text).await, Vec::<String>::new(), "{text}");
    }
    assert_eq!(found(&base, &anyone(), "quantum chromodynamics").await, Vec::<String>::new());
}

#[tokio::test]
async fn one_shared_word_is_enough_in_singular_and_plural() {
    let base =
        filled(vec![document("one", "(vouchers), \"gift-cards\"."), document("two", "A policy about parking.")]).await;
    assert_eq!(found(&base, &anyone(), "is there a voucher?").await, ["one"]);
    assert_eq!(found(&base, &anyone(), "GIFT").await, ["one"]);
    assert_eq!(found(&base, &anyone(), "which policies apply").await, ["two"]);
}

#[tokio::test]
async fn a_short_document_is_found_verbatim() {
    let base = filled(vec![document("one", "\n Parrots live\n\nup to 80 years. ")]).await;
    let hit = base.search(&anyone(), "parrot", 1).await.unwrap().remove(0);
    assert_eq!((hit.source.as_str(), hit.text.as_str()), ("one.md", "Parrots live\n\nup to 80 years."));
    assert!(hit.score > 0.0);
}

#[tokio::test]
async fn other_organisations_find_nothing() {
    let mut other = document("one", "the parrot of others");
    other.org_id = "other".to_owned();
    let base = filled(vec![document("one", "our parrot"), other]).await;
    let texts = async |org: &str| {
        let requester = Requester { org_id: org.to_owned(), ..Requester::default() };
        base.search(&requester, "parrot", 10).await.unwrap().into_iter().map(|hit| hit.text).collect::<Vec<_>>()
    };
    assert_eq!(texts("org").await, ["our parrot"]);
    assert_eq!(texts("other").await, ["the parrot of others"]);
    assert_eq!(texts("").await, Vec::<String>::new());
    assert_eq!(texts("or").await, Vec::<String>::new());
    assert_eq!(base.documents("other").len(), 1);
    assert!(base.remove("other", "one").await.unwrap());
    assert_eq!(texts("org").await, ["our parrot"]);
}

#[tokio::test]
async fn access_rules_are_applied_before_the_limit() {
    let acl = |public, users: &[&str], groups: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Some(DocumentAcl { public, users: own(users), groups: own(groups) })
    };
    // The forbidden ones match better, so a filter after the limit would leave nothing.
    let mut documents: Vec<Document> = (0..30)
        .map(|number| Document { acl: acl(false, &[], &[]), ..document(&format!("secret{number}"), "parrot") })
        .collect();
    documents.push(document("open", "a parrot among other animals of the zoo"));
    documents.push(Document { acl: acl(true, &[], &[]), ..document("public", "a parrot") });
    documents.push(Document { acl: acl(false, &["ann"], &[]), ..document("anns", "a parrot") });
    documents.push(Document { acl: acl(false, &["bob"], &["staff"]), ..document("staffs", "a parrot") });
    let base = filled(documents).await;
    let find = async |user: Option<&str>, groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let requester = Requester { org_id: "org".to_owned(), user_id: user.map(str::to_owned), groups };
        let mut found = found(&base, &requester, "parrot").await;
        found.sort();
        found
    };
    assert_eq!(find(None, &[]).await, ["open", "public"]);
    assert_eq!(find(Some("ann"), &[]).await, ["anns", "open", "public"]);
    assert_eq!(find(Some("eve"), &["staff", "ann"]).await, ["open", "public", "staffs"]);
    assert_eq!(find(Some("staff"), &[]).await, ["open", "public"], "a user is not a group");
    let first = base.search(&anyone(), "parrot", 1).await.unwrap();
    assert_eq!(first[0].document_id, "public");
}

#[tokio::test]
async fn documents_are_replaced_and_removed() {
    let base = filled(vec![document("one", "parrot"), document("one", "giraffe"), document("two", "parrot")]).await;
    assert_eq!(found(&base, &anyone(), "parrot giraffe").await, ["one", "two"]);
    assert_eq!(found(&base, &anyone(), "parrot").await, ["two"]);
    let results = base.ingest(vec![document("two", "elephant")]).await;
    assert_eq!(results, [("two".to_owned(), Ok(1))]);
    assert_eq!(found(&base, &anyone(), "parrot").await, Vec::<String>::new());
    assert!(base.remove("org", "two").await.unwrap());
    assert!(!base.remove("org", "two").await.unwrap());
    assert_eq!(found(&base, &anyone(), "elephant").await, Vec::<String>::new());
    assert!(!base.is_empty());
    assert!(base.remove("org", "one").await.unwrap());
    assert!(base.is_empty());
    assert_eq!(base.documents("org"), []);
}

#[tokio::test]
async fn refused_documents_say_why_and_do_not_stop_the_others() {
    let limits = Limits {
        knowledge_documents: 2,
        knowledge_document_bytes: 2_000,
        knowledge_passages_per_document: 3,
        ..Limits::default()
    };
    let base = KnowledgeBase::new(&limits);
    let section = "word ".repeat(60);
    let results = base
        .ingest(vec![
            document(" ", "parrot"),
            Document { org_id: String::new(), ..document("homeless", "parrot") },
            document("blank", " \n\n "),
            document("long", &"x".repeat(2_001)),
            document("many", &format!("{section}\n\n{section}\n\n{section}\n\n{section}")),
            document("good", "parrot"),
            document("second", "parrot"),
            document("third", "parrot"),
            document("good", "a new parrot"),
        ])
        .await;
    let errors: Vec<_> =
        results.iter().map(|(_, result)| result.clone().err().map(|error| error.to_string())).collect();
    for (error, expected) in errors.iter().zip([
        "needs an id",
        "needs an organisation",
        "no text",
        "2001 bytes, the limit knowledge_document_bytes allows 2000",
        "4 passages, the limit knowledge_passages_per_document allows 3",
    ]) {
        assert!(error.as_deref().unwrap().contains(expected), "{error:?}");
    }
    assert_eq!(results[5..7], [("good".to_owned(), Ok(1)), ("second".to_owned(), Ok(1))]);
    assert_eq!(results[7].1, Err(DocumentError::Full { max: 2 }));
    assert_eq!(results[8].1, Ok(1));
    assert_eq!(found(&base, &anyone(), "parrot").await.len(), 2);
}

#[tokio::test]
async fn an_empty_base_answers_and_builds_nothing() {
    let base = KnowledgeBase::new(&Limits::default());
    assert!(base.is_empty());
    assert_eq!(base.search(&anyone(), "parrot", 3).await.unwrap(), []);
    assert_eq!(base.ingest(vec![]).await, []);
    assert!(!base.remove("org", "one").await.unwrap());
    assert!(base.inner.lexical.get().is_none());
}

#[tokio::test]
async fn any_text_is_a_question() {
    let base = filled(demo_documents("org")).await;
    let long = format!("{} what about a return?", "lorem ipsum dolor ".repeat(600));
    let questions = ["\"", "a:b AND (c OR", "+-!{}[]^~*?\\/", "org:*", "\0\u{7}", "日本語", &"x".repeat(10_000), &long];
    for question in questions {
        base.search(&anyone(), question, 3).await.unwrap();
    }
    assert_eq!(found(&base, &anyone(), &long).await[0], "policies/returns.md");
    assert_eq!(base.search(&anyone(), "return", 0).await.unwrap(), []);
    assert!(base.search(&anyone(), "return", usize::MAX).await.unwrap().len() <= 2);
}

#[tokio::test]
async fn other_scripts_are_found() {
    let base = filled(vec![document("ja", "返品は17日以内に可能です。"), document("el", "Επιστροφές προϊόντων")]).await;
    assert_eq!(found(&base, &anyone(), "返品の期限").await, ["ja"]);
    assert_eq!(found(&base, &anyone(), "ΠΡΟΪΌΝΤΩΝ").await, ["el"]);
}

#[tokio::test]
async fn documents_that_arrive_one_by_one_do_not_leave_many_segments() {
    let base = KnowledgeBase::new(&Limits::default());
    for number in 0..20 {
        base.ingest(vec![document(&number.to_string(), "parrot")]).await;
    }
    assert_eq!(base.search(&anyone(), "parrots", 50).await.unwrap().len(), 20);
    assert!(base.inner.lexical.get().unwrap().segments() <= 5);
}

/// Prints the time of a search; run it in release mode with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a check"]
#[allow(clippy::print_stdout)]
async fn search_time_by_number_of_documents() {
    let vocabulary: Vec<String> = (0..400).map(|number| format!("word{number}")).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for count in [100, 1_000, 5_000] {
        let mut text = || (0..60).map(|_| vocabulary[random.usize(0..400)].as_str()).collect::<Vec<_>>().join(" ");
        let documents =
            (0..count).map(|number| document(&number.to_string(), &format!("shared policy {}", text()))).collect();
        let started = tokio::time::Instant::now();
        let base = filled(documents).await;
        let ingested = started.elapsed();
        for question in [
            "what is the shared policy about word17 and word3",
            "word5",
            "word1 word2 word3 word4 word5 word6 word7 word8",
        ] {
            let started = tokio::time::Instant::now();
            for _ in 0..1_000 {
                assert_eq!(base.search(&anyone(), question, 3).await.unwrap().len(), 3);
            }
            println!("{count} documents: {:?} a search, {ingested:?} to ingest: {question}", started.elapsed() / 1_000);
        }
    }
}
