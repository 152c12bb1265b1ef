//! From the passages that a turn found to the sources that its answer names. Pure.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    knowledge::Hit,
    protocol::objects::{Citation, shorten},
};

/// Characters of a passage that a citation shows.
const SNIPPET_CHARS: usize = 280;

/// One citation for each document, of its best passage, in the order in which the documents were first found.
pub(crate) fn from_hits(hits: &[Hit]) -> Vec<Citation> {
    let mut citations: Vec<Citation> = Vec::new();
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for hit in hits {
        match positions.entry(&hit.document_id) {
            Entry::Vacant(entry) => {
                entry.insert(citations.len());
                citations.push(citation(hit));
            }
            Entry::Occupied(entry) => {
                let known = &mut citations[*entry.get()];
                if f64::from(hit.score) > known.score {
                    *known = citation(hit);
                }
            }
        }
    }
    citations
}

fn citation(hit: &Hit) -> Citation {
    let is_address = ["http://", "https://"].iter().any(|scheme| hit.source.starts_with(scheme));
    Citation {
        id: hit.document_id.clone(),
        title: hit.source.clone(),
        url: is_address.then(|| hit.source.clone()),
        snippet: shorten(&hit.text, SNIPPET_CHARS),
        score: f64::from(hit.score),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: &str, source: &str, text: &str, score: f32) -> Hit {
        Hit { document_id: id.to_owned(), source: source.to_owned(), text: text.to_owned(), score }
    }

    #[test]
    fn a_document_is_cited_once_with_its_best_passage() {
        let hits = [hit("a", "a.md", "first", 1.0), hit("b", "b.md", "other", 0.5), hit("a", "a.md", "better", 2.0)];
        let cited: Vec<_> =
            from_hits(&hits).into_iter().map(|citation| (citation.id, citation.snippet, citation.score)).collect();
        assert_eq!(cited, [("a".to_owned(), "better".to_owned(), 2.0), ("b".to_owned(), "other".to_owned(), 0.5)]);
        assert_eq!(from_hits(&[]), []);
    }

    #[test]
    fn only_web_addresses_become_links() {
        let urls: Vec<_> = ["https://example.com/a", "http://example.com", "file:///etc/passwd", "policies/returns.md"]
            .iter()
            .map(|source| from_hits(&[hit("a", source, "text", 1.0)]).remove(0).url)
            .collect();
        assert_eq!(urls, [Some("https://example.com/a".to_owned()), Some("http://example.com".to_owned()), None, None]);
    }

    #[test]
    fn a_long_passage_is_cut_at_a_character() {
        let exactly = "é".repeat(SNIPPET_CHARS);
        assert_eq!(from_hits(&[hit("a", "a", &exactly, 1.0)])[0].snippet, exactly);
        let longer = format!("{exactly}x");
        assert_eq!(from_hits(&[hit("a", "a", &longer, 1.0)])[0].snippet, format!("{exactly}…"));
    }
}
