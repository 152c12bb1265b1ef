//! Search by words: a BM25 index in memory. A row is one passage; the texts themselves are in the catalog.
//!
//! The writer lives only while documents are written: a server without knowledge pays nothing, one with knowledge pays
//! for its documents. Search never waits for writing.

use std::{collections::BTreeSet, sync::Arc};

use tantivy::{
    Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term,
    collector::{Count, TopDocs},
    indexer::{IndexWriterOptions, LogMergePolicy},
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery},
    schema::{Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value},
    tokenizer::TextAnalyzer,
};

use super::{
    KnowledgeError, Requester,
    access::{audiences_for, document_key, whole_organisation},
    catalog::{Indexed, Key, PassageRef},
    words,
};

/// The smallest memory budget that tantivy's writer accepts; it flushes a segment when it is used up.
const WRITER_BYTES: usize = 15_000_000;
/// A longer question is read at its beginning and its end only, this much of each.
const QUESTION_PART_BYTES: usize = 2048;
/// Different words of a question that are looked up.
const QUESTION_WORDS_MAX: usize = 64;
/// Passages that one search may look at, summed over its words. The rarest words come first; the common rest of a long
/// question would cost much and change little.
const POSTINGS_MAX: u64 = 6_000;
/// Name under which the index knows how to split text.
const ANALYZER: &str = "words";

impl From<TantivyError> for KnowledgeError {
    fn from(error: TantivyError) -> Self {
        KnowledgeError(error.to_string())
    }
}

/// The tantivy index and its fields.
pub(super) struct Lexical {
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
    /// The version of the text and the number of the passage in it.
    version: Field,
    passage: Field,
    text: Field,
}

/// A content word of a question.
pub(super) struct Word {
    /// As it is compared: lower case, without its ending.
    pub(super) text: String,
    /// Passages that have it, of whomever they are.
    pub(super) passages: u64,
    /// Whether it takes part; the common rest of a long question does not.
    pub(super) is_used: bool,
}

impl Lexical {
    pub(super) fn new() -> Result<Self, TantivyError> {
        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
        let fields = Fields {
            key: schema.add_text_field("key", STRING),
            audience: schema.add_text_field("audience", STRING),
            version: schema.add_u64_field("version", STORED),
            passage: schema.add_u64_field("passage", STORED),
            text: schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing)),
        };
        let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let index = Index::builder().schema(schema.build()).settings(settings).create_in_ram()?;
        index.tokenizers().register(ANALYZER, words::document_analyzer());
        // Reloaded by hand after each commit, so that what was ingested can be found when `ingest` returns.
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { index, reader, question_analyzer: words::question_analyzer(), fields })
    }

    /// Indexes these texts, each in place of the document's one before. All become visible together or not at all.
    pub(super) fn replace(&self, documents: &[Arc<Indexed>]) -> Result<(), TantivyError> {
        self.write(|writer| documents.iter().try_for_each(|document| self.replace_one(writer, document)))
    }

    /// Removes documents, together or not at all.
    pub(super) fn remove(&self, keys: &[Key]) -> Result<(), TantivyError> {
        self.write(|writer| {
            for (org_id, id) in keys {
                writer.delete_term(Term::from_field_text(self.fields.key, &document_key(org_id, id)));
            }
            Ok(())
        })
    }

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

    fn replace_one(&self, writer: &IndexWriter, document: &Indexed) -> Result<(), TantivyError> {
        let (key, everyone) = (document.term(), whole_organisation(document.org_id()));
        writer.delete_term(Term::from_field_text(self.fields.key, &key));
        for (number, passage) in (0_u64..).zip(document.passages()) {
            let mut row = TantivyDocument::default();
            row.add_text(self.fields.key, &key);
            for audience in document.audiences.iter().chain([&everyone]) {
                row.add_text(self.fields.audience, audience);
            }
            row.add_u64(self.fields.version, document.version);
            row.add_u64(self.fields.passage, number);
            row.add_text(self.fields.text, passage);
            writer.add_document(row)?;
        }
        Ok(())
    }

    /// The best passages that have one of the words and that the requester may read.
    pub(super) fn search(
        &self,
        requester: &Requester,
        words: &[Word],
        limit: usize,
    ) -> Result<Vec<(PassageRef, f32)>, TantivyError> {
        let searcher = self.reader.searcher();
        let Some(query) = self.query(&searcher, audiences_for(requester), words)? else { return Ok(Vec::new()) };
        let found = searcher.search(&query, &TopDocs::with_limit(limit).order_by_score())?;
        found.into_iter().map(|(score, address)| Ok((self.row(&searcher.doc(address)?), score))).collect()
    }

    /// How many passages have one of the words and are of the requester's organisation, but not for the requester.
    pub(super) fn hidden(&self, requester: &Requester, words: &[Word]) -> Result<usize, TantivyError> {
        let searcher = self.reader.searcher();
        let count = |audiences| match self.query(&searcher, audiences, words)? {
            Some(query) => searcher.search(&query, &Count),
            None => Ok(0),
        };
        let all = count(BTreeSet::from([whole_organisation(&requester.org_id)]))?;
        Ok(all.saturating_sub(count(audiences_for(requester))?))
    }

    /// `None` when nothing can be found.
    fn query(
        &self,
        searcher: &Searcher,
        audiences: BTreeSet<String>,
        words: &[Word],
    ) -> Result<Option<BooleanQuery>, TantivyError> {
        let used = words.iter().filter(|word| word.is_used);
        let words: Vec<Term> = used.map(|word| Term::from_field_text(self.fields.text, &word.text)).collect();
        let audiences = self.present(searcher, audiences)?;
        if words.is_empty() || audiences.is_empty() {
            return Ok(None);
        }
        // The filter is part of the query, so that a limit counts only what the requester may read. It adds nothing to
        // the score.
        let filter = ConstScoreQuery::new(any_of(audiences, IndexRecordOption::Basic), 0.0);
        let content = any_of(words, IndexRecordOption::WithFreqs);
        Ok(Some(BooleanQuery::new(vec![(Occur::Must, Box::new(filter)), (Occur::Must, content)])))
    }

    /// The different content words of the question, rarest first; those that no passage has come last.
    pub(super) fn words(&self, question: &str) -> Result<Vec<Word>, TantivyError> {
        let searcher = self.reader.searcher();
        let mut words = Vec::new();
        for text in self.stems(question) {
            let passages = searcher.doc_freq(&Term::from_field_text(self.fields.text, &text))?;
            words.push(Word { text, passages, is_used: false });
        }
        words.sort_by_key(|word| (word.passages == 0, word.passages));
        let mut postings = 0;
        for (index, word) in words.iter_mut().enumerate() {
            postings += word.passages;
            // The rarest word always counts: without it nothing would be found.
            word.is_used = word.passages > 0 && (index == 0 || postings <= POSTINGS_MAX);
        }
        Ok(words)
    }

    fn stems(&self, question: &str) -> BTreeSet<String> {
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
        words
    }

    /// The terms of those audiences that there are.
    fn present(&self, searcher: &Searcher, audiences: BTreeSet<String>) -> Result<Vec<Term>, TantivyError> {
        let mut present = Vec::new();
        for audience in audiences {
            let term = Term::from_field_text(self.fields.audience, &audience);
            if searcher.doc_freq(&term)? > 0 {
                present.push(term);
            }
        }
        Ok(present)
    }

    fn row(&self, row: &TantivyDocument) -> PassageRef {
        let number = |field| row.get_first(field).and_then(|value| value.as_u64()).unwrap_or_default();
        // Documents have far fewer passages than that.
        let passage = u32::try_from(number(self.fields.passage)).unwrap_or(u32::MAX);
        PassageRef { version: number(self.fields.version), passage }
    }

    #[cfg(test)]
    pub(super) fn segments(&self) -> usize {
        self.reader.searcher().segment_readers().len()
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
    use super::*;

    #[test]
    fn the_ends_of_a_long_text_are_whole_words() {
        assert_eq!(ends("short", 10), ("short", ""));
        assert_eq!(ends("one two three four five six", 8), ("one two", "six"));
        let unspaced = "日".repeat(20);
        assert_eq!(ends(&unspaced, 10), ("日日日", "日日日日"));
    }
}
