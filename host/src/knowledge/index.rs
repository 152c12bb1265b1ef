//! The search index, in memory.
//!
//! Nothing is built before the first document arrives, and the writer lives only while documents are written: a server
//! without knowledge pays nothing, one with knowledge pays for its documents. Search never waits for writing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tantivy::{
    Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term,
    collector::TopDocs,
    indexer::{IndexWriterOptions, LogMergePolicy},
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery},
    schema::{Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value},
    tokenizer::TextAnalyzer,
};

use super::{Document, DocumentError, DocumentSummary, Hit, KnowledgeError, Requester, chunk, words};
use crate::config::Limits;

/// The smallest memory budget that tantivy's writer accepts; it flushes a segment when it is used up.
const WRITER_BYTES: usize = 15_000_000;
/// Longest id of a document or an organisation: longer terms would be dropped by the index.
const ID_BYTES_MAX: usize = 1024;
/// Groups of a requester that take part in a search; further ones give no access.
const GROUPS_MAX: usize = 256;
/// A longer question is read at its beginning and its end only, this much of each.
const QUESTION_PART_BYTES: usize = 2048;
/// Different words of a question that are looked up.
const QUESTION_WORDS_MAX: usize = 64;
/// Passages that one search may look at, summed over its words. The rarest words come first; the common rest of a long
/// question would cost much and change little.
const POSTINGS_MAX: u64 = 6_000;
/// Hits of one search.
const HITS_MAX: usize = 100;
/// Name under which the index knows how to split text.
const ANALYZER: &str = "words";

/// Documents that turns can search. Clones share the documents.
#[derive(Clone)]
pub struct KnowledgeBase {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    /// Built by the first write.
    engine: OnceLock<Engine>,
    /// One write at a time. Held while documents are indexed, so only threads that may block take it.
    writing: Mutex<()>,
    /// What is indexed, by organisation and id. Held for a few lines, never across an await.
    documents: Mutex<BTreeMap<(String, String), DocumentSummary>>,
    /// Length of `documents`, so that a turn without knowledge takes no lock.
    count: AtomicUsize,
}

impl KnowledgeBase {
    /// An empty knowledge base. Of the limits it uses those named `knowledge_…`.
    pub fn new(limits: &Limits) -> Self {
        let inner = Inner {
            limits: limits.clone(),
            engine: OnceLock::new(),
            writing: Mutex::default(),
            documents: Mutex::default(),
            count: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.inner.count.load(Ordering::Acquire) == 0
    }

    /// Indexes documents and replaces those that have the same organisation and id. Returns for each, in order, its id
    /// and how many passages it has, or why it was refused; a refused document does not stop the others. All accepted
    /// ones become searchable at once.
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
        let (base, key) = (self.clone(), (org_id.to_owned(), id.to_owned()));
        let done = tokio::task::spawn_blocking(move || {
            let _writing = base.inner.writing();
            base.inner.remove(&key)
        });
        done.await.unwrap_or_else(|error| Err(KnowledgeError(format!("removing did not finish: {error}"))))
    }

    /// The documents of an organisation, by id.
    pub fn documents(&self, org_id: &str) -> Vec<DocumentSummary> {
        let documents = self.inner.documents();
        let first = (org_id.to_owned(), String::new());
        let following = documents.range((Bound::Included(first), Bound::Unbounded));
        following.take_while(|((org, _), _)| org == org_id).map(|(_, summary)| summary.clone()).collect()
    }

    /// The passages that share a content word with the question and that the requester may read, best first, at most
    /// `limit`. Any text is a valid question.
    ///
    /// # Errors
    ///
    /// [`KnowledgeError`] when the index cannot be read, which is a bug.
    pub fn search(&self, requester: &Requester, question: &str, limit: usize) -> Result<Vec<Hit>, KnowledgeError> {
        let limit = limit.min(HITS_MAX);
        match self.inner.engine.get() {
            Some(engine) if limit > 0 && !self.is_empty() => Ok(engine.search(requester, question, limit)?),
            _ => Ok(Vec::new()),
        }
    }
}

impl fmt::Debug for KnowledgeBase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.inner.count.load(Ordering::Acquire);
        formatter.debug_struct("KnowledgeBase").field("documents", &count).finish_non_exhaustive()
    }
}

impl Inner {
    fn documents(&self) -> MutexGuard<'_, BTreeMap<(String, String), DocumentSummary>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ingest(&self, documents: Vec<Document>) -> Vec<Result<usize, DocumentError>> {
        let mut added = BTreeSet::new();
        let checked: Vec<_> = documents.iter().map(|document| self.check(document, &mut added)).collect();
        if let Err(error) = self.index(&documents, &checked) {
            return checked.into_iter().map(|result| result.and(Err(error.clone().into()))).collect();
        }
        let mut registered = self.documents();
        for (document, passages) in documents.into_iter().zip(&checked) {
            if let Ok(passages) = passages {
                let (id, source) = (document.id.clone(), document.source);
                let summary = DocumentSummary { id, source, document_set: document.document_set, passages: *passages };
                registered.insert((document.org_id, document.id), summary);
            }
        }
        self.count.store(registered.len(), Ordering::Release);
        checked
    }

    /// How many passages the document has, if it can be accepted; `added` holds the keys that are new in this batch.
    fn check(&self, document: &Document, added: &mut BTreeSet<(String, String)>) -> Result<usize, DocumentError> {
        let Limits { knowledge_documents, knowledge_document_bytes, knowledge_passages_per_document, .. } = self.limits;
        let is_bad = |text: &str| text.trim().is_empty() || text.len() > ID_BYTES_MAX;
        if is_bad(&document.id) {
            return Err(DocumentError::BadId { found: document.id.len(), max: ID_BYTES_MAX });
        }
        if is_bad(&document.org_id) {
            return Err(DocumentError::BadOrganisation { found: document.org_id.len(), max: ID_BYTES_MAX });
        }
        let too_large = |unit, found, limit, max| DocumentError::TooLarge { unit, found, limit, max };
        if document.text.len() > knowledge_document_bytes {
            let limit = "knowledge_document_bytes";
            return Err(too_large("bytes", document.text.len(), limit, knowledge_document_bytes));
        }
        let passages = chunk::passages(&document.text).len();
        if passages == 0 {
            return Err(DocumentError::NoText);
        }
        if passages > knowledge_passages_per_document {
            let limit = "knowledge_passages_per_document";
            return Err(too_large("passages", passages, limit, knowledge_passages_per_document));
        }
        let key = (document.org_id.clone(), document.id.clone());
        let is_new = !added.contains(&key) && !self.documents().contains_key(&key);
        if is_new && self.count.load(Ordering::Acquire) + added.len() >= knowledge_documents {
            return Err(DocumentError::Full { max: knowledge_documents });
        }
        if is_new {
            added.insert(key);
        }
        Ok(passages)
    }

    fn index(&self, documents: &[Document], checked: &[Result<usize, DocumentError>]) -> Result<(), KnowledgeError> {
        if checked.iter().all(Result::is_err) {
            return Ok(());
        }
        let engine = self.engine()?;
        let accepted = documents.iter().zip(checked).filter(|(_, passages)| passages.is_ok());
        engine.write(|writer| {
            for (document, _) in accepted {
                engine.replace(writer, document)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn remove(&self, key: &(String, String)) -> Result<bool, KnowledgeError> {
        if !self.documents().contains_key(key) {
            return Ok(false);
        }
        let engine = self.engine()?;
        engine.write(|writer| {
            writer.delete_term(engine.key_term(&key.0, &key.1));
            Ok(())
        })?;
        let mut documents = self.documents();
        documents.remove(key);
        self.count.store(documents.len(), Ordering::Release);
        Ok(true)
    }

    fn engine(&self) -> Result<&Engine, KnowledgeError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new()?;
        Ok(self.engine.get_or_init(|| engine))
    }
}

impl From<TantivyError> for KnowledgeError {
    fn from(error: TantivyError) -> Self {
        KnowledgeError(error.to_string())
    }
}

/// The tantivy index and its fields.
struct Engine {
    index: Index,
    reader: IndexReader,
    /// Copied for each search, because analyzing needs a buffer of its own.
    question_analyzer: TextAnalyzer,
    fields: Fields,
}

struct Fields {
    /// Organisation and id of the document, by which it is replaced and removed.
    key: Field,
    /// Organisation and reader, once for each who may find the passage: one filter for both.
    audience: Field,
    document_id: Field,
    source: Field,
    text: Field,
}

impl Engine {
    fn new() -> Result<Self, TantivyError> {
        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
        let fields = Fields {
            key: schema.add_text_field("key", STRING),
            audience: schema.add_text_field("audience", STRING),
            document_id: schema.add_text_field("document_id", STORED),
            source: schema.add_text_field("source", STORED),
            text: schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing).set_stored()),
        };
        let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let index = Index::builder().schema(schema.build()).settings(settings).create_in_ram()?;
        index.tokenizers().register(ANALYZER, words::document_analyzer());
        // Reloaded by hand after each commit, so that what was ingested can be found when `ingest` returns.
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { index, reader, question_analyzer: words::question_analyzer(), fields })
    }

    /// Opens a writer for some changes, which become visible together or not at all.
    fn write(&self, changes: impl FnOnce(&IndexWriter) -> Result<(), TantivyError>) -> Result<(), TantivyError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(WRITER_BYTES)
            .build();
        let mut writer: IndexWriter = self.index.writer_with_options(options)?;
        let mut merge_policy = LogMergePolicy::default();
        // Every word is looked up in every segment, so documents that arrive one by one must not leave many of them.
        merge_policy.set_min_num_segments(4);
        merge_policy.set_del_docs_ratio_before_merge(0.3);
        writer.set_merge_policy(Box::new(merge_policy));
        changes(&writer)?;
        writer.commit()?;
        writer.wait_merging_threads()?;
        self.reader.reload()
    }

    fn replace(&self, writer: &IndexWriter, document: &Document) -> Result<(), TantivyError> {
        writer.delete_term(self.key_term(&document.org_id, &document.id));
        let audiences = audiences_of(document);
        for passage in chunk::passages(&document.text) {
            let mut row = TantivyDocument::default();
            row.add_text(self.fields.key, key(&document.org_id, &document.id));
            for audience in &audiences {
                row.add_text(self.fields.audience, audience);
            }
            row.add_text(self.fields.document_id, &document.id);
            row.add_text(self.fields.source, &document.source);
            row.add_text(self.fields.text, passage);
            writer.add_document(row)?;
        }
        Ok(())
    }

    fn key_term(&self, org_id: &str, id: &str) -> Term {
        Term::from_field_text(self.fields.key, &key(org_id, id))
    }

    fn search(&self, requester: &Requester, question: &str, limit: usize) -> Result<Vec<Hit>, TantivyError> {
        let searcher = self.reader.searcher();
        let words = self.rarest(&searcher, self.question_words(question))?;
        let audiences = self.present_audiences(&searcher, requester)?;
        if words.is_empty() || audiences.is_empty() {
            return Ok(Vec::new());
        }
        // The filter is part of the query, so that the limit counts only what the requester may read. It adds nothing
        // to the score.
        let filter = ConstScoreQuery::new(any_of(audiences, IndexRecordOption::Basic), 0.0);
        let content = any_of(words, IndexRecordOption::WithFreqs);
        let query = BooleanQuery::new(vec![(Occur::Must, Box::new(filter) as Box<dyn Query>), (Occur::Must, content)]);
        let found = searcher.search(&query, &TopDocs::with_limit(limit).order_by_score())?;
        found
            .into_iter()
            .map(|(score, address)| Ok(self.hit(&searcher.doc::<TantivyDocument>(address)?, score)))
            .collect()
    }

    /// The different content words of the question.
    fn question_words(&self, question: &str) -> Vec<Term> {
        let (beginning, end) = ends(question, QUESTION_PART_BYTES);
        let mut analyzer = self.question_analyzer.clone();
        let mut words = BTreeSet::new();
        // The end has a share of its own: a long text is often pasted with the question under it.
        for (part, max) in [(beginning, QUESTION_WORDS_MAX / 2), (end, QUESTION_WORDS_MAX)] {
            let mut stream = analyzer.token_stream(part);
            while words.len() < max && stream.advance() {
                words.insert(stream.token().text.clone());
            }
        }
        words.iter().map(|word| Term::from_field_text(self.fields.text, word)).collect()
    }

    /// The words that occur at all, rarest first, as many as [`POSTINGS_MAX`] allows.
    fn rarest(&self, searcher: &Searcher, words: Vec<Term>) -> Result<Vec<Term>, TantivyError> {
        let mut counted = Vec::with_capacity(words.len());
        for word in words {
            counted.push((searcher.doc_freq(&word)?, word));
        }
        counted.retain(|(count, _)| *count > 0);
        counted.sort();
        let mut postings = 0;
        let within = |(index, (count, _)): &(usize, (u64, Term))| {
            postings += count;
            // The rarest word always counts: without it nothing would be found.
            *index == 0 || postings <= POSTINGS_MAX
        };
        Ok(counted.into_iter().enumerate().take_while(within).map(|(_, (_, word))| word).collect())
    }

    /// What the requester may read, as far as there is any of it.
    fn present_audiences(&self, searcher: &Searcher, requester: &Requester) -> Result<Vec<Term>, TantivyError> {
        let org = &requester.org_id;
        let user = requester.user_id.as_deref().map(|user| audience(org, Reader::User(user)));
        let groups = requester.groups.iter().take(GROUPS_MAX).map(|group| audience(org, Reader::Group(group)));
        let everything: BTreeSet<String> =
            [audience(org, Reader::Everyone)].into_iter().chain(user).chain(groups).collect();
        let mut present = Vec::new();
        for audience in everything {
            let term = Term::from_field_text(self.fields.audience, &audience);
            if searcher.doc_freq(&term)? > 0 {
                present.push(term);
            }
        }
        Ok(present)
    }

    fn hit(&self, row: &TantivyDocument, score: f32) -> Hit {
        let text = |field| row.get_first(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        Hit {
            document_id: text(self.fields.document_id),
            source: text(self.fields.source),
            text: text(self.fields.text),
            score,
        }
    }
}

/// A query for passages that have at least one of the terms; there is at least one.
fn any_of(terms: Vec<Term>, record: IndexRecordOption) -> Box<dyn Query> {
    let mut queries: Vec<Box<dyn Query>> =
        terms.into_iter().map(|term| Box::new(TermQuery::new(term, record)) as Box<dyn Query>).collect();
    match queries.pop() {
        Some(only) if queries.is_empty() => only,
        last => Box::new(BooleanQuery::union(queries.into_iter().chain(last).collect())),
    }
}

/// Who may find a passage.
enum Reader<'a> {
    Everyone,
    User(&'a str),
    Group(&'a str),
}

fn audiences_of(document: &Document) -> Vec<String> {
    let org = &document.org_id;
    match &document.acl {
        None => vec![audience(org, Reader::Everyone)],
        Some(acl) if acl.public => vec![audience(org, Reader::Everyone)],
        Some(acl) => {
            let users = acl.users.iter().map(|user| audience(org, Reader::User(user)));
            let groups = acl.groups.iter().map(|group| audience(org, Reader::Group(group)));
            users.chain(groups).collect()
        }
    }
}

/// The length in front keeps one organisation's names apart from another's, whatever characters they hold.
fn audience(org_id: &str, reader: Reader<'_>) -> String {
    let length = org_id.len();
    match reader {
        Reader::Everyone => format!("{length}:{org_id}*"),
        Reader::User(user) => format!("{length}:{org_id}u{user}"),
        Reader::Group(group) => format!("{length}:{org_id}g{group}"),
    }
}

/// As for [`audience`].
fn key(org_id: &str, id: &str) -> String {
    format!("{}:{org_id}{id}", org_id.len())
}

/// The beginning and the end of a text, about `part` bytes of each; a text that is not longer is all beginning.
fn ends(text: &str, part: usize) -> (&str, &str) {
    if text.len() <= 2 * part {
        return (text, "");
    }
    let boundary = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let beginning = &text[..boundary(part)];
    let end = &text[boundary(text.len() - part)..];
    // A word that was cut is no word of the text.
    let beginning = beginning.rsplit_once(char::is_whitespace).map_or(beginning, |(whole, _)| whole);
    let end = end.split_once(char::is_whitespace).map_or(end, |(_, whole)| whole);
    (beginning, end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::knowledge::{DEMO_DOCUMENT_SET, DocumentAcl, demo_documents};

    fn document(id: &str, text: &str) -> Document {
        Document {
            id: id.to_owned(),
            source: format!("{id}.md"),
            text: text.to_owned(),
            org_id: "org".to_owned(),
            acl: None,
            document_set: None,
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

    fn found(base: &KnowledgeBase, requester: &Requester, question: &str) -> Vec<String> {
        base.search(requester, question, 10).unwrap().into_iter().map(|hit| hit.document_id).collect()
    }

    #[tokio::test]
    async fn the_demo_answers_until_when() {
        let base = filled(demo_documents("org")).await;
        let hits = base.search(&anyone(), "until when can I send an item back for return?", 3).unwrap();
        assert_eq!(hits[0].source, "policies/returns.md");
        assert!(hits[0].text.chars().take(280).collect::<String>().contains("17 days"));
        assert_eq!(found(&base, &anyone(), "How long does expedited shipping take?")[0], "policies/shipping.md");
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
            assert_eq!(found(&base, &anyone(), text), Vec::<String>::new(), "{text}");
        }
        assert_eq!(found(&base, &anyone(), "quantum chromodynamics"), Vec::<String>::new());
    }

    #[tokio::test]
    async fn one_shared_word_is_enough_in_singular_and_plural() {
        let base =
            filled(vec![document("one", "(vouchers), \"gift-cards\"."), document("two", "A policy about parking.")])
                .await;
        assert_eq!(found(&base, &anyone(), "is there a voucher?"), ["one"]);
        assert_eq!(found(&base, &anyone(), "GIFT"), ["one"]);
        assert_eq!(found(&base, &anyone(), "which policies apply"), ["two"]);
    }

    #[tokio::test]
    async fn a_short_document_is_found_verbatim() {
        let base = filled(vec![document("one", "\n Parrots live\n\nup to 80 years. ")]).await;
        let hit = base.search(&anyone(), "parrot", 1).unwrap().remove(0);
        assert_eq!((hit.source.as_str(), hit.text.as_str()), ("one.md", "Parrots live\n\nup to 80 years."));
        assert!(hit.score > 0.0);
    }

    #[tokio::test]
    async fn other_organisations_find_nothing() {
        let mut other = document("one", "the parrot of others");
        other.org_id = "other".to_owned();
        let base = filled(vec![document("one", "our parrot"), other]).await;
        let texts = |org: &str| {
            let requester = Requester { org_id: org.to_owned(), ..Requester::default() };
            base.search(&requester, "parrot", 10).unwrap().into_iter().map(|hit| hit.text).collect::<Vec<_>>()
        };
        assert_eq!(texts("org"), ["our parrot"]);
        assert_eq!(texts("other"), ["the parrot of others"]);
        assert_eq!(texts(""), Vec::<String>::new());
        assert_eq!(texts("or"), Vec::<String>::new());
        assert_eq!(base.documents("other").len(), 1);
        assert!(base.remove("other", "one").await.unwrap());
        assert_eq!(texts("org"), ["our parrot"]);
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
        let find = |user: Option<&str>, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let requester = Requester { org_id: "org".to_owned(), user_id: user.map(str::to_owned), groups };
            let mut found = found(&base, &requester, "parrot");
            found.sort();
            found
        };
        assert_eq!(find(None, &[]), ["open", "public"]);
        assert_eq!(find(Some("ann"), &[]), ["anns", "open", "public"]);
        assert_eq!(find(Some("eve"), &["staff", "ann"]), ["open", "public", "staffs"]);
        assert_eq!(find(Some("staff"), &[]), ["open", "public"], "a user is not a group");
        let first = base.search(&anyone(), "parrot", 1).unwrap();
        assert_eq!(first[0].document_id, "public");
    }

    #[tokio::test]
    async fn documents_are_replaced_and_removed() {
        let base = filled(vec![document("one", "parrot"), document("one", "giraffe"), document("two", "parrot")]).await;
        assert_eq!(found(&base, &anyone(), "parrot giraffe"), ["one", "two"]);
        assert_eq!(found(&base, &anyone(), "parrot"), ["two"]);
        let results = base.ingest(vec![document("two", "elephant")]).await;
        assert_eq!(results, [("two".to_owned(), Ok(1))]);
        assert_eq!(found(&base, &anyone(), "parrot"), Vec::<String>::new());
        assert!(base.remove("org", "two").await.unwrap());
        assert!(!base.remove("org", "two").await.unwrap());
        assert_eq!(found(&base, &anyone(), "elephant"), Vec::<String>::new());
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
        assert_eq!(found(&base, &anyone(), "parrot").len(), 2);
    }

    #[tokio::test]
    async fn an_empty_base_answers_and_builds_nothing() {
        let base = KnowledgeBase::new(&Limits::default());
        assert!(base.is_empty());
        assert_eq!(base.search(&anyone(), "parrot", 3).unwrap(), []);
        assert_eq!(base.ingest(vec![]).await, []);
        assert!(!base.remove("org", "one").await.unwrap());
        assert!(base.inner.engine.get().is_none());
    }

    #[tokio::test]
    async fn any_text_is_a_question() {
        let base = filled(demo_documents("org")).await;
        let long = format!("{} what about a return?", "lorem ipsum dolor ".repeat(600));
        let questions =
            ["\"", "a:b AND (c OR", "+-!{}[]^~*?\\/", "org:*", "\0\u{7}", "日本語", &"x".repeat(10_000), &long];
        for question in questions {
            base.search(&anyone(), question, 3).unwrap();
        }
        assert_eq!(found(&base, &anyone(), &long)[0], "policies/returns.md");
        assert_eq!(base.search(&anyone(), "return", 0).unwrap(), []);
        assert!(base.search(&anyone(), "return", usize::MAX).unwrap().len() <= 2);
    }

    #[tokio::test]
    async fn other_scripts_are_found() {
        let base =
            filled(vec![document("ja", "返品は17日以内に可能です。"), document("el", "Επιστροφές προϊόντων")]).await;
        assert_eq!(found(&base, &anyone(), "返品の期限"), ["ja"]);
        assert_eq!(found(&base, &anyone(), "ΠΡΟΪΌΝΤΩΝ"), ["el"]);
    }

    #[tokio::test]
    async fn documents_that_arrive_one_by_one_do_not_leave_many_segments() {
        let base = KnowledgeBase::new(&Limits::default());
        for number in 0..20 {
            base.ingest(vec![document(&number.to_string(), "parrot")]).await;
        }
        assert_eq!(base.search(&anyone(), "parrots", 50).unwrap().len(), 20);
        assert!(base.inner.engine.get().unwrap().reader.searcher().segment_readers().len() <= 5);
    }

    #[test]
    fn the_ends_of_a_long_text_are_whole_words() {
        assert_eq!(ends("short", 10), ("short", ""));
        assert_eq!(ends("one two three four five six", 8), ("one two", "six"));
        let unspaced = "日".repeat(20);
        assert_eq!(ends(&unspaced, 10), ("日日日", "日日日日"));
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
                    assert_eq!(base.search(&anyone(), question, 3).unwrap().len(), 3);
                }
                println!(
                    "{count} documents: {:?} a search, {ingested:?} to ingest: {question}",
                    started.elapsed() / 1_000
                );
            }
        }
    }
}
