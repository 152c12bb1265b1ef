//! Search by meaning: asks a model for the vectors of passages, in the background, and for that of each question,
//! within a budget. Whatever fails here costs a search its second ranking and nothing else, and says so.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    catalog::{Indexed, PassageRef},
    vectors::{Comparable, OtherDimension, Vectors},
};
use crate::{
    config::Limits,
    model::{Effort, Embedder},
};

/// How the vectors stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseStatus {
    /// The embedding model.
    pub model: String,
    /// Numbers in one vector; unknown before the first one came.
    pub dimension: Option<usize>,
    /// Documents whose vectors are there.
    pub ready: usize,
    /// Documents whose vectors are to be made.
    pub waiting: usize,
    /// Documents that are searched by their words only, because the limit `knowledge_vector_bytes` is reached.
    pub left_out: usize,
    /// What is going on.
    pub state: DenseState,
}

/// What the vectors' maker is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenseState {
    /// All vectors are there that can be.
    Ready,
    /// Some are being made.
    Building,
    /// The model failed; it is asked again after a pause. Until then words alone decide.
    Failing(String),
    /// The model's vectors changed their dimension too often; words alone decide until the server is started anew.
    Off(String),
}

/// Why there is no ranking by meaning.
pub(super) enum NoRanking {
    /// There is nothing to compare with.
    Nothing,
    /// Something does not work.
    Unavailable(String),
}

/// Vectors of the documents, and who makes them. One of these belongs to one model: another model gets another one.
pub(super) struct Dense {
    shared: Arc<Shared>,
    /// Stops the task that makes vectors.
    _stop: DropGuard,
}

struct Shared {
    embedder: Arc<dyn Embedder>,
    floor: f32,
    limits: Limits,
    /// Held for a few lines, never across an await.
    state: Mutex<State>,
    is_working: AtomicBool,
    stopped: CancellationToken,
}

struct State {
    vectors: Vectors,
    trouble: Option<Trouble>,
    rebuilds: u32,
    is_off: bool,
}

/// The last failure, and until when nobody asks again.
struct Trouble {
    reason: String,
    until: Instant,
}

impl Dense {
    /// Nothing yet. A passage needs a cosine of at least `floor`.
    pub(super) fn new(embedder: Arc<dyn Embedder>, floor: f32, limits: &Limits) -> Self {
        let stopped = CancellationToken::new();
        let state =
            State { vectors: Vectors::new(limits.knowledge_vector_bytes), trouble: None, rebuilds: 0, is_off: false };
        let shared = Shared {
            embedder,
            floor,
            limits: limits.clone(),
            state: Mutex::new(state),
            is_working: AtomicBool::new(false),
            stopped: stopped.clone(),
        };
        Self { shared: Arc::new(shared), _stop: stopped.drop_guard() }
    }

    pub(super) fn model(&self) -> &str {
        self.shared.embedder.model()
    }

    pub(super) fn floor(&self) -> f32 {
        self.shared.floor
    }

    /// Takes texts in and others out.
    pub(super) fn change(&self, added: impl IntoIterator<Item = Arc<Indexed>>, gone: &[u64]) {
        let mut state = self.shared.state();
        added.into_iter().for_each(|indexed| state.vectors.add(indexed));
        gone.iter().for_each(|version| state.vectors.remove(*version));
    }

    /// Makes the vectors that are missing, in a task of its own; needs a runtime, and without one does nothing.
    pub(super) fn work(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.shared.state().has_work() && !self.shared.is_working.swap(true, Ordering::AcqRel) {
            runtime.spawn(make_vectors(self.shared.clone()));
        }
    }

    pub(super) fn status(&self) -> DenseStatus {
        let state = self.shared.state();
        let vectors = &state.vectors;
        let reason = || state.trouble.as_ref().map(|trouble| trouble.reason.clone());
        DenseStatus {
            model: self.model().to_owned(),
            dimension: vectors.dimension(),
            ready: vectors.ready(),
            waiting: vectors.waiting(),
            left_out: vectors.left_out(),
            state: match reason() {
                Some(reason) if state.is_off => DenseState::Off(reason),
                Some(reason) => DenseState::Failing(reason),
                None if vectors.waiting() > 0 => DenseState::Building,
                None => DenseState::Ready,
            },
        }
    }

    /// The passages nearest to the question that these readers may find, with their cosines, nearest first; and how
    /// many it was compared with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request.
    pub(super) async fn nearest(
        &self,
        question: &str,
        audiences: &BTreeSet<String>,
        limit: usize,
    ) -> Result<(usize, Vec<(PassageRef, f32)>), NoRanking> {
        self.work();
        let comparable = self.shared.comparable(audiences)?;
        let vector = self.shared.vector_of(question).await.inspect_err(|_| self.work())?;
        let compared = comparable.passages();
        // Comparing takes some milliseconds for many passages, so it is no work for a thread that serves sockets.
        let nearest = tokio::task::spawn_blocking(move || comparable.nearest(vector, limit)).await;
        nearest.map(|nearest| (compared, nearest)).map_err(|error| NoRanking::Unavailable(error.to_string()))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn comparable(&self, audiences: &BTreeSet<String>) -> Result<Comparable, NoRanking> {
        let state = self.state();
        if let Some(trouble) = &state.trouble
            && (state.is_off || Instant::now() < trouble.until)
        {
            return Err(NoRanking::Unavailable(trouble.reason.clone()));
        }
        let comparable = state.vectors.comparable(audiences);
        match comparable.passages() {
            0 if state.vectors.waiting() > 0 => {
                Err(NoRanking::Unavailable("the documents' vectors are still being made".to_owned()))
            }
            0 => Err(NoRanking::Nothing),
            _ => Ok(comparable),
        }
    }

    /// The vector of a question. It may cost a turn no more than its budget, and after a failure nothing for a while.
    async fn vector_of(&self, question: &str) -> Result<Vec<f32>, NoRanking> {
        let budget = self.limits.knowledge_question_vector;
        let asked = self.embedder.embed(vec![question.to_owned()], Effort::Once);
        let answer = tokio::time::timeout(budget, asked).await;
        let reason = match answer {
            Ok(Ok(mut vectors)) => {
                let vector = vectors.pop().unwrap_or_default();
                let checked = self.state().vectors.check_dimension(vector.len());
                match checked {
                    Ok(_) => {
                        self.recovered();
                        return Ok(vector);
                    }
                    Err(changed) => return Err(NoRanking::Unavailable(self.start_anew(&changed))),
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the embedding model took longer than {} ms", budget.as_millis()),
        };
        self.note(reason.clone());
        Err(NoRanking::Unavailable(reason))
    }

    /// Remembers a failure; says it in the log when it is another one than before.
    fn note(&self, reason: String) {
        let until = Instant::now() + self.limits.knowledge_vector_retry;
        let mut state = self.state();
        let is_known = state.trouble.as_ref().is_some_and(|trouble| trouble.reason == reason);
        if !is_known {
            tracing::warn!(model = self.embedder.model(), reason, "no vectors; knowledge is searched by words only");
        }
        state.trouble = Some(Trouble { reason, until });
    }

    fn recovered(&self) {
        let mut state = self.state();
        if !state.is_off && state.trouble.take().is_some() {
            tracing::info!(model = self.embedder.model(), "the embedding model answers again");
        }
    }

    /// Another model answers under the same name: no vector of the old one may be compared with one of the new one.
    fn start_anew(&self, changed: &OtherDimension) -> String {
        let OtherDimension { known, came } = changed;
        let reason = format!("the embedding model's vectors changed from {known} to {came} numbers");
        let mut state = self.state();
        state.vectors.start_anew();
        state.rebuilds += 1;
        state.is_off = state.rebuilds > self.limits.knowledge_vector_rebuilds;
        tracing::warn!(model = self.embedder.model(), reason, is_off = state.is_off, "all vectors are made anew");
        let until = Instant::now();
        state.trouble = state.is_off.then(|| Trouble { reason: reason.clone(), until });
        reason
    }
}

impl State {
    fn next_batch(&mut self, max: usize) -> Vec<(PassageRef, String)> {
        if self.is_off { Vec::new() } else { self.vectors.next_batch(max) }
    }

    fn has_work(&self) -> bool {
        self.vectors.waiting() > 0 && !self.is_off
    }
}

/// Makes vectors batch by batch until none is missing, and ends; after a failure it pauses.
async fn make_vectors(shared: Arc<Shared>) {
    let stopped = shared.stopped.clone();
    tokio::select! {
        () = stopped.cancelled() => {}
        () = make_all(&shared) => {}
    }
}

async fn make_all(shared: &Shared) {
    loop {
        let batch = shared.state().next_batch(shared.limits.knowledge_vector_batch);
        let (passages, texts): (Vec<PassageRef>, Vec<String>) = batch.into_iter().unzip();
        if passages.is_empty() {
            shared.is_working.store(false, Ordering::Release);
            // Whoever brought work after that look saw a task at work and started none.
            if !shared.state().has_work() || shared.is_working.swap(true, Ordering::AcqRel) {
                return;
            }
            continue;
        }
        match shared.embedder.embed(texts, Effort::Retrying).await {
            Ok(made) => {
                let stored = shared.state().vectors.store(&passages, made);
                match stored {
                    Ok(()) => shared.recovered(),
                    Err(changed) => drop(shared.start_anew(&changed)),
                }
                if !shared.state().has_work() {
                    tracing::info!(model = shared.embedder.model(), "the vectors of all documents are there");
                }
            }
            Err(error) => {
                shared.note(error.to_string());
                tokio::time::sleep(shared.limits.knowledge_vector_retry).await;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
