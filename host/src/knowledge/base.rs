//! The knowledge base: one catalog of texts, searched by words and, where a model makes vectors, by meaning.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use super::{
    Cut, DenseReport, DenseStatus, Document, DocumentError, DocumentSummary, ExplainedPassage, Explanation, Hit,
    KnowledgeError, QuestionWord, Ranked, Requester,
    access::audiences_for,
    catalog::{Catalog, Indexed, Key, PassageRef},
    dense::{Dense, NoRanking},
    fuse,
    lexical::{Lexical, Word},
    words,
};
use crate::{config::Limits, model::Embedder};

/// Hits of one search.
const HITS_MAX: usize = 100;
/// Each ranking is this many times longer than what is asked for, before two are joined: what is first in one may be far
/// down in the other.
const CANDIDATES_FACTOR: usize = 4;
/// And at least this long.
const CANDIDATES_MIN: usize = 20;

/// Documents that turns can search. Clones share the documents.
#[derive(Clone)]
pub struct KnowledgeBase {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    /// Built by the first write.
    lexical: OnceLock<Lexical>,
    /// Vectors, where a model makes them.
    dense: ArcSwapOption<Dense>,
    /// One write at a time. Held while documents are indexed, so only threads that may block take it.
    writing: Mutex<()>,
    /// Held for a few lines, never across an await.
    catalog: Mutex<Catalog>,
    /// How many documents there are, so that a turn without knowledge takes no lock.
    count: AtomicUsize,
}

/// What one search found, before anything is cut.
struct Found {
    words: Vec<Word>,
    lexical: Vec<(PassageRef, f32)>,
    /// Nearest first, those below the floor included.
    dense: Vec<(PassageRef, f32)>,
    report: DenseReport,
}

impl KnowledgeBase {
    /// An empty knowledge base. Of the limits it uses those named `knowledge_…`.
    pub fn new(limits: &Limits) -> Self {
        let inner = Inner {
            limits: limits.clone(),
            lexical: OnceLock::new(),
            dense: ArcSwapOption::empty(),
            writing: Mutex::default(),
            catalog: Mutex::default(),
            count: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Searches by meaning, too, with the vectors of this model; with `None` by words only, which is the default. What
    /// is there is given to the new model in the background, and none of its vectors is ever compared with those of
    /// another model. A passage that shares no word with a question needs a cosine of at least `min_similarity`.
    pub fn set_embedder(&self, embedder: Option<Arc<dyn Embedder>>, min_similarity: f32) {
        // No document may slip in between.
        let _writing = self.inner.writing();
        let dense = embedder.map(|embedder| Dense::new(embedder, min_similarity, &self.inner.limits));
        if let Some(dense) = &dense {
            let known: Vec<Arc<Indexed>> = self.inner.catalog().all().cloned().collect();
            dense.change(known, &[]);
            dense.work();
        }
        self.inner.dense.store(dense.map(Arc::new));
    }

    /// How the vectors stand; `None` without a model that makes them.
    pub fn dense_status(&self) -> Option<DenseStatus> {
        self.inner.dense.load().as_ref().map(|dense| dense.status())
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.inner.count.load(Ordering::Acquire) == 0
    }

    /// Indexes documents and replaces those that have the same organisation, id and origin. Returns for each, in order,
    /// its id and how many passages it has, or why it was refused; a refused document does not stop the others. All
    /// accepted ones become searchable at once.
    ///
    /// # Cancel safety
    ///
    /// The work is done on a thread that may block, and is finished also when the future is dropped.
    pub async fn ingest(&self, documents: Vec<Document>) -> Vec<(String, Result<usize, DocumentError>)> {
        let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
        let base = self.clone();
        let done = tokio::task::spawn_blocking(move || base.ingest_blocking(documents)).await;
        done.unwrap_or_else(|error| {
            let error = KnowledgeError(format!("indexing did not finish: {error}"));
            ids.into_iter().map(|id| (id, Err(error.clone().into()))).collect()
        })
    }

    /// [`ingest`](Self::ingest) for callers without a runtime. Blocks until all is done: some milliseconds, and for many
    /// documents longer. Searches go on meanwhile.
    pub fn ingest_blocking(&self, documents: Vec<Document>) -> Vec<(String, Result<usize, DocumentError>)> {
        let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
        let _writing = self.inner.writing();
        ids.into_iter().zip(self.inner.ingest(documents)).collect()
    }

    /// Removes a document. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`KnowledgeError`] when the index cannot be written; the document then stays.
    ///
    /// # Cancel safety
    ///
    /// As for [`ingest`](Self::ingest).
    pub async fn remove(&self, org_id: &str, id: &str) -> Result<bool, KnowledgeError> {
        let key = (org_id.to_owned(), id.to_owned());
        let removed = self.blocking(move |inner| {
            let is_known = inner.catalog().by_key(&key).is_some();
            inner.remove(if is_known { vec![key] } else { Vec::new() })
        });
        Ok(removed.await? > 0)
    }

    /// [`remove_origin`](Self::remove_origin) for a thread that may block.
    pub(crate) fn remove_origin_blocking(
        &self,
        org_id: &str,
        origin: &str,
        keep: &BTreeSet<String>,
    ) -> Result<usize, KnowledgeError> {
        let _writing = self.inner.writing();
        self.inner.remove_origin(org_id, origin, keep)
    }

    /// Removes the documents of an origin, except those whose ids are to be kept. Returns how many there were.
    ///
    /// # Errors
    ///
    /// [`KnowledgeError`] when the index cannot be written; the documents then stay.
    ///
    /// # Cancel safety
    ///
    /// As for [`ingest`](Self::ingest).
    pub async fn remove_origin(
        &self,
        org_id: &str,
        origin: &str,
        keep: BTreeSet<String>,
    ) -> Result<usize, KnowledgeError> {
        let (org_id, origin) = (org_id.to_owned(), origin.to_owned());
        self.blocking(move |inner| inner.remove_origin(&org_id, &origin, &keep)).await
    }

    async fn blocking(
        &self,
        change: impl FnOnce(&Inner) -> Result<usize, KnowledgeError> + Send + 'static,
    ) -> Result<usize, KnowledgeError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _writing = inner.writing();
            change(&inner)
        });
        done.await.unwrap_or_else(|error| Err(KnowledgeError(format!("removing did not finish: {error}"))))
    }

    /// The documents of an organisation, by id.
    pub fn documents(&self, org_id: &str) -> Vec<DocumentSummary> {
        self.inner.catalog().summaries(org_id)
    }

    /// How many documents each set of an organisation has, by name.
    pub fn document_sets(&self, org_id: &str) -> BTreeMap<String, usize> {
        let mut sets = BTreeMap::new();
        for set in self.documents(org_id).into_iter().filter_map(|document| document.document_set) {
            *sets.entry(set).or_default() += 1;
        }
        sets
    }

    /// The passages that fit the question and that the requester may read, best first, at most `limit`. Any text is a
    /// valid question. Waits for the embedding model, if there is one, no longer than
    /// [`Limits::knowledge_question_vector`].
    ///
    /// # Errors
    ///
    /// [`KnowledgeError`] when the index cannot be read, which is a bug.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn search(
        &self,
        requester: &Requester,
        question: &str,
        limit: usize,
    ) -> Result<Vec<Hit>, KnowledgeError> {
        let limit = limit.min(HITS_MAX);
        if limit == 0 || self.is_empty() {
            return Ok(Vec::new());
        }
        let mut hits = Vec::new();
        // A text that is replaced during a search is found as what is gone; then the new one is there to be found.
        for _ in 0..2 {
            let found = self.inner.find(requester, question, limit).await?;
            let ranking = found.ranking(limit);
            let wanted = ranking.len();
            let catalog = self.inner.catalog();
            let hit = |(place, score): (PassageRef, f32)| catalog.get(place.version)?.hit(place.passage, score);
            hits = ranking.into_iter().filter_map(hit).collect();
            if hits.len() == wanted {
                break;
            }
        }
        Ok(hits)
    }

    /// What [`search`](Self::search) does with this question, and why. Also names what is cut, up to some dozens.
    ///
    /// # Errors
    ///
    /// As for [`search`](Self::search).
    pub async fn explain(
        &self,
        requester: &Requester,
        question: &str,
        limit: usize,
    ) -> Result<Explanation, KnowledgeError> {
        let limit = limit.min(HITS_MAX);
        let found = self.inner.find(requester, question, limit.max(1) * CANDIDATES_FACTOR).await?;
        let hidden = match self.inner.lexical.get() {
            Some(lexical) => lexical.hidden(requester, &found.words)?,
            None => 0,
        };
        let passages = self.inner.explained(&found, limit);
        let word = |word: Word| QuestionWord { word: word.text, passages: word.passages, used: word.is_used };
        Ok(Explanation { words: found.words.into_iter().map(word).collect(), dense: found.report, passages, hidden })
    }
}

impl fmt::Debug for KnowledgeBase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.inner.count.load(Ordering::Acquire);
        formatter.debug_struct("KnowledgeBase").field("documents", &count).finish_non_exhaustive()
    }
}

impl Inner {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lexical(&self) -> Result<&Lexical, KnowledgeError> {
        if let Some(lexical) = self.lexical.get() {
            return Ok(lexical);
        }
        let lexical = Lexical::new()?;
        Ok(self.lexical.get_or_init(|| lexical))
    }

    fn ingest(&self, documents: Vec<Document>) -> Vec<Result<usize, DocumentError>> {
        let admitted = self.catalog().admit(documents, &self.limits);
        let accepted: Vec<Arc<Indexed>> = admitted.iter().flatten().cloned().collect();
        if accepted.is_empty() {
            return admitted.into_iter().map(|result| result.map(|indexed| indexed.passage_count())).collect();
        }
        let written = self.lexical().and_then(|lexical| Ok(lexical.replace(&accepted)?));
        if let Err(error) = written {
            self.catalog().forget(accepted);
            return admitted.into_iter().map(|result| result.and(Err(error.clone().into()))).collect();
        }
        let mut catalog = self.catalog();
        let gone = catalog.settle(accepted.iter().cloned());
        self.count.store(catalog.len(), Ordering::Release);
        drop(catalog);
        if let Some(dense) = &*self.dense.load() {
            dense.change(accepted, &gone);
            dense.work();
        }
        admitted.into_iter().map(|result| result.map(|indexed| indexed.passage_count())).collect()
    }

    fn remove_origin(&self, org_id: &str, origin: &str, keep: &BTreeSet<String>) -> Result<usize, KnowledgeError> {
        let keys = self.catalog().of_origin(org_id, origin, keep);
        self.remove(keys)
    }

    fn remove(&self, keys: Vec<Key>) -> Result<usize, KnowledgeError> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.lexical()?.remove(&keys)?;
        let mut catalog = self.catalog();
        let gone = catalog.remove(&keys);
        self.count.store(catalog.len(), Ordering::Release);
        drop(catalog);
        if let Some(dense) = &*self.dense.load() {
            dense.change([], &gone);
        }
        Ok(gone.len())
    }

    /// Looks in both ways, `limit` deep and deeper where two rankings are joined.
    async fn find(&self, requester: &Requester, question: &str, limit: usize) -> Result<Found, KnowledgeError> {
        let dense = self.dense.load_full();
        let mut found = Found {
            words: Vec::new(),
            lexical: Vec::new(),
            dense: Vec::new(),
            report: if dense.is_some() { DenseReport::NotAsked } else { DenseReport::Off },
        };
        let Some(lexical) = self.lexical.get() else { return Ok(found) };
        let depth = if dense.is_some() { (limit * CANDIDATES_FACTOR).max(CANDIDATES_MIN) } else { limit };
        found.words = lexical.words(question)?;
        found.lexical = lexical.search(requester, &found.words, depth)?;
        // Small talk has no content, so nothing can be near to it.
        let (Some(dense), false) = (dense, found.words.is_empty()) else { return Ok(found) };
        found.report = match dense.nearest(question, &audiences_for(requester), depth).await {
            Ok((compared, nearest)) => {
                found.dense = nearest;
                DenseReport::Searched { model: dense.model().to_owned(), compared, floor: dense.floor() }
            }
            Err(NoRanking::Nothing) => DenseReport::NotAsked,
            Err(NoRanking::Unavailable(reason)) => DenseReport::Unavailable(reason),
        };
        Ok(found)
    }

    fn explained(&self, found: &Found, limit: usize) -> Vec<ExplainedPassage> {
        let used = found.ranking(usize::MAX);
        let floor = found.floor();
        let is_used: BTreeSet<PassageRef> = used.iter().map(|(place, _)| *place).collect();
        let too_far = found.dense.iter().filter(|(place, _)| !is_used.contains(place));
        let cut = |rank: usize| (rank >= limit).then_some(Cut::PastLimit { limit });
        let kept = used.iter().enumerate().map(|(rank, (place, score))| (*place, *score, cut(rank)));
        let far =
            too_far.map(|(place, similarity)| (*place, 0.0, Some(Cut::NotSimilar { similarity: *similarity, floor })));
        let catalog = self.catalog();
        let explain = |(place, score, cut): (PassageRef, f32, Option<Cut>)| {
            let hit = catalog.get(place.version)?.hit(place.passage, score)?;
            let own = words::stems_of_document(&hit.text);
            let shared = found.words.iter().filter(|word| word.is_used && own.contains(&word.text));
            Some(ExplainedPassage {
                passage: place.passage as usize,
                words: shared.map(|word| word.text.clone()).collect(),
                lexical: ranked(&found.lexical, place),
                dense: ranked(&found.dense, place),
                cut,
                hit,
            })
        };
        kept.chain(far).filter_map(explain).collect()
    }
}

fn ranked(ranking: &[(PassageRef, f32)], place: PassageRef) -> Option<Ranked> {
    let at = ranking.iter().position(|(other, _)| *other == place)?;
    Some(Ranked { rank: at + 1, score: ranking[at].1 })
}

impl Found {
    fn floor(&self) -> f32 {
        if let DenseReport::Searched { floor, .. } = self.report { floor } else { 0.0 }
    }

    /// What is found, best first. Words alone keep their own scores.
    fn ranking(&self, limit: usize) -> Vec<(PassageRef, f32)> {
        let DenseReport::Searched { floor, .. } = self.report else {
            return self.lexical.iter().take(limit).copied().collect();
        };
        let places = |ranking: &[(PassageRef, f32)]| ranking.iter().map(|(place, _)| *place).collect::<Vec<_>>();
        let near = self.dense.partition_point(|(_, cosine)| *cosine >= floor);
        let mut fused = fuse::by_reciprocal_rank([&places(&self.lexical), &places(&self.dense[..near])]);
        fused.truncate(limit);
        fused
    }
}

#[cfg(test)]
mod tests;
