//! Vectors in the background, with a model that a test decides.

use std::{sync::atomic::AtomicU32, time::Duration};

use async_trait::async_trait;

use super::*;
use crate::{
    knowledge::{Document, Explanation, KnowledgeBase, Requester, explain::DenseReport},
    model::ModelError,
};

/// Answers with vectors that say how often a text names a sea, a mountain and a town.
struct Model {
    name: &'static str,
    behaviour: Mutex<Behaviour>,
    calls: AtomicU32,
}

#[derive(Clone, Copy)]
enum Behaviour {
    Answers,
    Fails,
    Hangs,
    /// Vectors with so many more numbers.
    Wider(usize),
}

impl Model {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, behaviour: Mutex::new(Behaviour::Answers), calls: AtomicU32::new(0) })
    }

    fn behaves(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Embedder for Model {
    fn model(&self) -> &str {
        self.name
    }

    async fn embed(&self, texts: Vec<String>, _: Effort) -> Result<Vec<Vec<f32>>, ModelError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let behaviour = *self.behaviour.lock().unwrap();
        let wider = match behaviour {
            Behaviour::Answers => 0,
            Behaviour::Wider(wider) => wider,
            Behaviour::Fails => return Err(ModelError::Unreachable("no route".to_owned())),
            Behaviour::Hangs => std::future::pending().await,
        };
        let subjects = [&["sea", "ocean", "water"][..], &["mountain", "alp"], &["town", "city"]];
        let vector = |text: &String| {
            let count = |words: &[&str]| words.iter().map(|word| text.matches(word).count() as f32).sum();
            let mut vector: Vec<f32> = subjects.iter().map(|words| count(words)).collect();
            vector.extend(std::iter::repeat_n(0.01, wider));
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }
}

fn document(id: &str, text: &str) -> Document {
    Document { org_id: "org".to_owned(), ..Document::new(id, text) }
}

async fn base(model: &Arc<Model>) -> KnowledgeBase {
    let base = KnowledgeBase::new(&Limits::default());
    base.set_embedder(Some(model.clone()), 0.5);
    let documents = [("ocean", "the ocean is deep"), ("alps", "mountain huts"), ("town", "a town hall")];
    base.ingest(documents.map(|(id, text)| document(id, text)).into()).await;
    base
}

async fn explained(base: &KnowledgeBase, question: &str) -> Explanation {
    let requester = Requester { org_id: "org".to_owned(), ..Requester::default() };
    base.explain(&requester, question, 2).await.unwrap()
}

async fn found(base: &KnowledgeBase, question: &str) -> Vec<String> {
    let requester = Requester { org_id: "org".to_owned(), ..Requester::default() };
    base.search(&requester, question, 2).await.unwrap().into_iter().map(|hit| hit.document_id).collect()
}

/// Waits until the vectors stand as expected; the clock is paused, so waiting takes no time.
async fn settled(base: &KnowledgeBase, is_met: impl Fn(&DenseStatus) -> bool) -> DenseStatus {
    for _ in 0..1_000 {
        let status = base.dense_status().unwrap();
        if is_met(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the vectors never came to stand as expected: {:?}", base.dense_status());
}

fn is_ready(status: &DenseStatus) -> bool {
    status.state == DenseState::Ready && status.waiting == 0
}

#[tokio::test(start_paused = true)]
async fn a_passage_is_found_by_its_meaning_and_small_talk_still_finds_nothing() {
    let model = Model::new("m");
    let base = base(&model).await;
    let status = settled(&base, is_ready).await;
    assert_eq!((status.model.as_str(), status.dimension, status.ready), ("m", Some(3), 3));
    assert_eq!(found(&base, "salt water").await, ["ocean"], "no word is shared");
    assert_eq!(found(&base, "a town at the sea").await, ["town", "ocean"]);
    let explanation = explained(&base, "water").await;
    let DenseReport::Searched { compared: 3, floor, .. } = explanation.dense else { panic!("{explanation:?}") };
    assert_eq!(floor, 0.5);
    assert!(explanation.passages[0].cut.is_none() && explanation.passages[0].lexical.is_none());
    assert!(explanation.passages[1..].iter().all(|passage| passage.cut.is_some()), "{explanation:?}");

    let calls = model.calls();
    assert_eq!(found(&base, "hello, how are you?").await, Vec::<String>::new());
    assert_eq!(explained(&base, "thanks!").await.dense, DenseReport::NotAsked);
    assert_eq!(model.calls(), calls, "the model is not asked about small talk");
}

#[tokio::test(start_paused = true)]
async fn access_rules_hold_among_vectors() {
    let model = Model::new("m");
    let base = base(&model).await;
    let nobody = Some(crate::knowledge::DocumentAcl::default());
    base.ingest(vec![
        Document { acl: nobody, ..document("secret", "water water water") },
        Document { org_id: "other".to_owned(), ..document("theirs", "water") },
    ])
    .await;
    settled(&base, |status| is_ready(status) && status.ready == 5).await;
    assert_eq!(found(&base, "salt seas").await, ["ocean"]);
    base.remove("org", "ocean").await.unwrap();
    assert_eq!(found(&base, "salt seas").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_failing_model_costs_its_ranking_and_its_pause_nothing_more() {
    let model = Model::new("m");
    let base = base(&model).await;
    settled(&base, is_ready).await;
    model.behaves(Behaviour::Fails);
    assert_eq!(found(&base, "a town at the sea").await, ["town"], "the words still decide");
    let DenseReport::Unavailable(reason) = explained(&base, "water").await.dense else { panic!("it failed") };
    assert!(reason.contains("no route"), "{reason}");
    assert!(matches!(base.dense_status().unwrap().state, DenseState::Failing(_)));
    let calls = model.calls();
    found(&base, "town").await;
    assert_eq!(model.calls(), calls, "nobody asks again before the pause is over");
    model.behaves(Behaviour::Answers);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(found(&base, "salt water").await, ["ocean"]);
    assert_eq!(base.dense_status().unwrap().state, DenseState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_silent_model_delays_a_search_by_its_budget_once() {
    let model = Model::new("m");
    let base = base(&model).await;
    settled(&base, is_ready).await;
    model.behaves(Behaviour::Hangs);
    let started = Instant::now();
    assert_eq!(found(&base, "town").await, ["town"]);
    assert_eq!(started.elapsed(), Limits::default().knowledge_question_vector);
    assert_eq!(found(&base, "town").await, ["town"]);
    assert_eq!(started.elapsed(), Limits::default().knowledge_question_vector);
}

#[tokio::test(start_paused = true)]
async fn vectors_that_could_not_be_made_are_made_later() {
    let model = Model::new("m");
    model.behaves(Behaviour::Fails);
    let base = base(&model).await;
    let status = settled(&base, |status| matches!(status.state, DenseState::Failing(_))).await;
    assert_eq!((status.ready, status.waiting), (0, 3));
    assert_eq!(found(&base, "town").await, ["town"]);
    model.behaves(Behaviour::Answers);
    tokio::time::sleep(Duration::from_secs(61)).await;
    settled(&base, is_ready).await;
    assert_eq!(found(&base, "salt water").await, ["ocean"]);
}

#[tokio::test(start_paused = true)]
async fn another_dimension_or_another_model_never_mixes_with_what_is_there() {
    let model = Model::new("m");
    let base = base(&model).await;
    settled(&base, is_ready).await;
    model.behaves(Behaviour::Wider(2));
    assert_eq!(found(&base, "town").await, ["town"], "words alone while everything is made anew");
    let status = settled(&base, is_ready).await;
    assert_eq!((status.dimension, status.ready), (Some(5), 3));
    assert_eq!(found(&base, "salt water").await, ["ocean"]);

    let other = Model::new("other");
    other.behaves(Behaviour::Hangs);
    base.set_embedder(Some(other.clone()), 0.5);
    let status = base.dense_status().unwrap();
    assert_eq!((status.model.as_str(), status.ready, status.waiting), ("other", 0, 3));
    assert_eq!(found(&base, "town").await, ["town"]);
    base.set_embedder(None, 0.5);
    assert_eq!((base.dense_status(), found(&base, "salt water").await), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_decide_is_given_up() {
    let model = Model::new("m");
    let base = base(&model).await;
    for wider in 1..=4 {
        settled(&base, is_ready).await;
        model.behaves(Behaviour::Wider(wider));
        found(&base, "town").await;
    }
    let status = settled(&base, |status| matches!(status.state, DenseState::Off(_))).await;
    assert_eq!(status.ready, 0);
    let calls = model.calls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(found(&base, "town").await, ["town"]);
    assert_eq!(model.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_knowledge_base() {
    let model = Model::new("m");
    model.behaves(Behaviour::Hangs);
    let base = base(&model).await;
    settled(&base, |_| model.calls() > 0).await;
    assert!(Arc::strong_count(&model) > 1);
    drop(base);
    for _ in 0..1_000 {
        if Arc::strong_count(&model) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the task still holds the model");
}
