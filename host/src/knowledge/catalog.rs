//! What is indexed: the texts, by organisation and id and by version, and the rules for what may come in. Pure.
//!
//! Every text of a document has a version number of its own, which is all that the index stores of it. So a row of the
//! index either names a text that is here as it was indexed, or none.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use super::{
    Document, DocumentError, DocumentSummary, Hit,
    access::{audiences_of, document_key},
    chunk,
};
use crate::config::Limits;

/// Longest id of a document or an organisation: longer terms would be dropped by the index.
const ID_BYTES_MAX: usize = 1024;

/// Organisation and id.
pub(super) type Key = (String, String);

/// One passage of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PassageRef {
    /// The text's version.
    pub(super) version: u64,
    /// The passage's number in it, counted from 0.
    pub(super) passage: u32,
}

/// A document as it is indexed.
#[derive(Debug)]
pub(super) struct Indexed {
    /// Names this text among all that were ever indexed.
    pub(super) version: u64,
    /// Who may find it, as terms.
    pub(super) audiences: Vec<String>,
    document: Document,
    passages: Vec<Range<usize>>,
}

impl Indexed {
    pub(super) fn org_id(&self) -> &str {
        &self.document.org_id
    }

    fn key(&self) -> Key {
        (self.document.org_id.clone(), self.document.id.clone())
    }

    /// The key as a term of the index.
    pub(super) fn term(&self) -> String {
        document_key(&self.document.org_id, &self.document.id)
    }

    pub(super) fn passage_count(&self) -> usize {
        self.passages.len()
    }

    /// The passages in their order.
    pub(super) fn passages(&self) -> impl Iterator<Item = &str> {
        self.passages.iter().map(|range| &self.document.text[range.clone()])
    }

    pub(super) fn passage(&self, number: u32) -> Option<&str> {
        self.passages.get(number as usize).map(|range| &self.document.text[range.clone()])
    }

    pub(super) fn hit(&self, number: u32, score: f32) -> Option<Hit> {
        let text = self.passage(number)?.to_owned();
        Some(Hit { document_id: self.document.id.clone(), source: self.document.source.clone(), text, score })
    }

    fn summary(&self) -> DocumentSummary {
        let Document { id, source, document_set, origin, .. } = self.document.clone();
        DocumentSummary { id, source, document_set, origin, passages: self.passages.len() }
    }
}

/// Everything that is indexed, and what is just being indexed.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    by_key: BTreeMap<Key, Arc<Indexed>>,
    by_version: HashMap<u64, Arc<Indexed>>,
    last_version: u64,
}

impl Catalog {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, version: u64) -> Option<&Arc<Indexed>> {
        self.by_version.get(&version)
    }

    pub(super) fn by_key(&self, key: &Key) -> Option<&Arc<Indexed>> {
        self.by_key.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Indexed>> {
        self.by_key.values()
    }

    /// The documents of an organisation, by id.
    pub(super) fn of_org<'a>(&'a self, org_id: &'a str) -> impl Iterator<Item = &'a Arc<Indexed>> {
        let first = (org_id.to_owned(), String::new());
        self.by_key.range(first..).take_while(move |((org, _), _)| org == org_id).map(|(_, indexed)| indexed)
    }

    pub(super) fn summaries(&self, org_id: &str) -> Vec<DocumentSummary> {
        self.of_org(org_id).map(|indexed| indexed.summary()).collect()
    }

    /// The keys of the documents of an origin, without those that `keep` names.
    pub(super) fn of_origin(&self, org_id: &str, origin: &str, keep: &BTreeSet<String>) -> Vec<Key> {
        let is_left = |indexed: &&Arc<Indexed>| {
            indexed.document.origin.as_deref() == Some(origin) && !keep.contains(&indexed.document.id)
        };
        self.of_org(org_id).filter(is_left).map(|indexed| indexed.key()).collect()
    }

    /// Takes the documents that may come in: they can be looked up by version at once, and count when they are
    /// [settled](Self::settle).
    pub(super) fn admit(
        &mut self,
        documents: Vec<Document>,
        limits: &Limits,
    ) -> Vec<Result<Arc<Indexed>, DocumentError>> {
        let mut added = BTreeMap::new();
        documents.into_iter().map(|document| self.admit_one(document, limits, &mut added)).collect()
    }

    fn admit_one(
        &mut self,
        document: Document,
        limits: &Limits,
        added: &mut BTreeMap<Key, Option<String>>,
    ) -> Result<Arc<Indexed>, DocumentError> {
        let passages = checked_passages(&document, limits)?;
        let key = (document.org_id.clone(), document.id.clone());
        let known = self.by_key.get(&key).map(|known| &known.document.origin);
        match known.or_else(|| added.get(&key)) {
            Some(origin) if *origin != document.origin => {
                let owner = origin.clone().unwrap_or_else(|| "a program or the admin API".to_owned());
                return Err(DocumentError::Taken { owner });
            }
            Some(_) => {}
            None if self.by_key.len() + added.len() >= limits.knowledge_documents => {
                return Err(DocumentError::Full { max: limits.knowledge_documents });
            }
            None => drop(added.insert(key, document.origin.clone())),
        }
        self.last_version += 1;
        let audiences = audiences_of(&document);
        let indexed = Arc::new(Indexed { version: self.last_version, audiences, document, passages });
        self.by_version.insert(indexed.version, indexed.clone());
        Ok(indexed)
    }

    /// Makes what the index holds count: the last text of each document, which replaces the one before. Returns the
    /// versions that are gone.
    pub(super) fn settle(&mut self, written: impl IntoIterator<Item = Arc<Indexed>>) -> Vec<u64> {
        let mut gone = Vec::new();
        for indexed in written {
            if let Some(replaced) = self.by_key.insert(indexed.key(), indexed) {
                self.by_version.remove(&replaced.version);
                gone.push(replaced.version);
            }
        }
        gone
    }

    /// Forgets what the index refused.
    pub(super) fn forget(&mut self, refused: impl IntoIterator<Item = Arc<Indexed>>) {
        for indexed in refused {
            self.by_version.remove(&indexed.version);
        }
    }

    /// Removes documents. Returns the versions that are gone.
    pub(super) fn remove(&mut self, keys: &[Key]) -> Vec<u64> {
        let removed = keys.iter().filter_map(|key| self.by_key.remove(key));
        let gone: Vec<u64> = removed.map(|indexed| indexed.version).collect();
        for version in &gone {
            self.by_version.remove(version);
        }
        gone
    }
}

/// Where the passages of a document are, if it can be accepted for itself.
fn checked_passages(document: &Document, limits: &Limits) -> Result<Vec<Range<usize>>, DocumentError> {
    let is_bad = |text: &str| text.trim().is_empty() || text.len() > ID_BYTES_MAX;
    if is_bad(&document.id) {
        return Err(DocumentError::BadId { found: document.id.len(), max: ID_BYTES_MAX });
    }
    if is_bad(&document.org_id) {
        return Err(DocumentError::BadOrganisation { found: document.org_id.len(), max: ID_BYTES_MAX });
    }
    let too_large = |unit, found, limit, max| DocumentError::TooLarge { unit, found, limit, max };
    if document.text.len() > limits.knowledge_document_bytes {
        let limit = "knowledge_document_bytes";
        return Err(too_large("bytes", document.text.len(), limit, limits.knowledge_document_bytes));
    }
    let start = document.text.as_ptr() as usize;
    // A passage is a piece of the text itself, so its place follows from where it lies.
    let place = |passage: &str| {
        let from = passage.as_ptr() as usize - start;
        from..from + passage.len()
    };
    let passages: Vec<Range<usize>> = chunk::passages(&document.text).into_iter().map(place).collect();
    if passages.is_empty() {
        return Err(DocumentError::NoText);
    }
    if passages.len() > limits.knowledge_passages_per_document {
        let limit = "knowledge_passages_per_document";
        return Err(too_large("passages", passages.len(), limit, limits.knowledge_passages_per_document));
    }
    Ok(passages)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn document(id: &str, origin: Option<&str>) -> Document {
        Document {
            org_id: "org".to_owned(),
            origin: origin.map(str::to_owned),
            ..Document::new(id, format!("  {id}\n\nparrot "))
        }
    }

    fn settled(catalog: &mut Catalog, documents: Vec<Document>) -> Vec<u64> {
        let admitted = catalog.admit(documents, &Limits::default()).into_iter().map(Result::unwrap);
        let admitted: Vec<_> = admitted.collect();
        catalog.settle(admitted)
    }

    #[test]
    fn a_text_is_here_from_its_admission_to_its_replacement() {
        let mut catalog = Catalog::default();
        let first = catalog.admit(vec![document("a", None)], &Limits::default()).remove(0).unwrap();
        assert_eq!((catalog.len(), catalog.get(first.version).unwrap().passage(0)), (0, Some("a\n\nparrot")));
        assert!(catalog.settle([first.clone()]).is_empty());
        let gone = settled(&mut catalog, vec![document("a", None), document("a", None)]);
        assert_eq!((catalog.len(), gone.len(), gone[0]), (1, 2, first.version));
        assert!(catalog.get(first.version).is_none());
        let refused = catalog.admit(vec![document("b", None)], &Limits::default()).remove(0).unwrap();
        catalog.forget([refused.clone()]);
        assert!(catalog.get(refused.version).is_none() && catalog.len() == 1);
        assert_eq!(catalog.remove(&[("org".to_owned(), "a".to_owned())]).len(), 1);
        assert!(catalog.by_version.is_empty() && catalog.by_key.is_empty());
    }

    #[test]
    fn one_origin_never_replaces_a_document_of_another() {
        let mut catalog = Catalog::default();
        settled(&mut catalog, vec![document("a", Some("docs"))]);
        let refused = |catalog: &mut Catalog, document| {
            catalog.admit(vec![document], &Limits::default()).remove(0).unwrap_err().to_string()
        };
        assert!(refused(&mut catalog, document("a", None)).starts_with("docs already has"));
        assert!(refused(&mut catalog, document("a", Some("other"))).starts_with("docs already has"));
        let both = catalog.admit(vec![document("b", Some("x")), document("b", Some("y"))], &Limits::default());
        assert!(both[0].is_ok() && both[1].is_err());
        assert_eq!(settled(&mut catalog, vec![document("a", Some("docs"))]).len(), 1);
        let keep = BTreeSet::from(["a".to_owned()]);
        assert_eq!(catalog.of_origin("org", "docs", &keep), []);
        assert_eq!(catalog.of_origin("org", "docs", &BTreeSet::new()).len(), 1);
        assert_eq!(catalog.of_origin("other", "docs", &BTreeSet::new()), []);
    }
}
