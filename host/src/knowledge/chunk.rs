//! Cuts a document into passages. Pure; a passage is always a verbatim, trimmed piece of the text.
//!
//! A short document is one passage. In a longer one every section between blank lines is a passage, a Markdown heading
//! stays with the section under it, and what is still too long is cut between words.

/// Longest passage, in characters; a single longer word is cut where it must be.
pub(super) const PASSAGE_CHARS: usize = 500;

/// The passages of a document, in order; none when there is only white space.
pub(super) fn passages(text: &str) -> Vec<&str> {
    let text = text.trim();
    if fits(text) {
        return if text.is_empty() { Vec::new() } else { vec![text] };
    }
    let mut passages = Vec::new();
    for section in sections(text) {
        cut(section, &mut passages);
    }
    passages
}

/// Whether the text is short enough for one passage.
fn fits(text: &str) -> bool {
    // Bytes are an upper bound of characters, so that most texts need not be counted.
    text.len() <= PASSAGE_CHARS || text.chars().nth(PASSAGE_CHARS).is_none()
}

/// The pieces between blank lines, each with the headings directly above it.
fn sections(text: &str) -> Vec<&str> {
    let mut sections = Vec::new();
    // Where the current section began, and whether it has more than headings.
    let mut start = None;
    let mut has_body = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if is_blank && has_body {
            sections.extend(start.take().map(|from| text[from..offset].trim()));
            has_body = false;
        } else if !is_blank {
            start.get_or_insert(offset);
            has_body = has_body || !is_heading(line);
        }
        offset += line.len();
    }
    sections.extend(start.map(|from| text[from..].trim()));
    sections
}

/// A line such as `## Returns`.
fn is_heading(line: &str) -> bool {
    let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
    (1..=6).contains(&hashes) && line[hashes..].starts_with([' ', '\t'])
}

/// Cuts a section into pieces of at most [`PASSAGE_CHARS`] characters, between words where there are any.
fn cut<'a>(section: &'a str, passages: &mut Vec<&'a str>) {
    let mut rest = section;
    while !fits(rest) {
        let limit = rest.char_indices().nth(PASSAGE_CHARS).map_or(rest.len(), |(index, _)| index);
        // The character after the piece may be the space, so it takes part in the search.
        let next = rest[limit..].chars().next().map_or(0, char::len_utf8);
        let at = rest[..limit + next].rfind(char::is_whitespace).filter(|at| *at > 0).unwrap_or(limit);
        passages.push(rest[..at].trim_end());
        rest = rest[at..].trim_start();
    }
    if !rest.is_empty() {
        passages.push(rest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_document_is_one_verbatim_passage() {
        assert_eq!(passages("  # Returns\n\nWithin 17 days.\n\n"), ["# Returns\n\nWithin 17 days."]);
        assert_eq!(passages(" \n \n"), Vec::<&str>::new());
        let umlauts = "ü".repeat(PASSAGE_CHARS);
        assert_eq!(passages(&umlauts), [umlauts.as_str()]);
    }

    #[test]
    fn sections_of_a_long_document_are_passages_and_headings_stay_with_them() {
        let filler = "word ".repeat(90);
        let text = format!("# Title\n\n## First\n\n{filler}\n \t\n\nsecond section\nof two lines\n\n## Empty end");
        let expected = [format!("# Title\n\n## First\n\n{}", filler.trim()), "second section\nof two lines".to_owned()];
        let found = passages(&text);
        assert_eq!(found[..2], expected);
        assert_eq!(found[2..], ["## Empty end"]);
    }

    #[test]
    fn a_hash_tag_is_no_heading() {
        assert!(is_heading("# Title\n") && is_heading("###### deep"));
        assert!(!is_heading("#tag") && !is_heading("####### too deep") && !is_heading("text # text"));
    }

    #[test]
    fn a_long_section_is_cut_between_words_and_a_long_word_anywhere() {
        let words = format!("{} {}", "a".repeat(300), "b".repeat(300));
        assert_eq!(passages(&words), ["a".repeat(300), "b".repeat(300)]);
        let exactly = format!("{} {}", "a".repeat(PASSAGE_CHARS), "b");
        assert_eq!(passages(&exactly), ["a".repeat(PASSAGE_CHARS), "b".to_owned()]);
        let word = "日".repeat(PASSAGE_CHARS + 1);
        assert_eq!(passages(&word), ["日".repeat(PASSAGE_CHARS), "日".to_owned()]);
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_is_lost(text in "([a-zé日#]{0,40}[ \n\u{a0}]{0,3}){0,60}") {
            let found = passages(&text);
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(found.iter().map(|passage| squeeze(passage)).collect::<String>(), squeeze(&text));
            for passage in found {
                prop_assert!(!passage.is_empty() && passage.trim() == passage);
                prop_assert!(passage.chars().count() <= PASSAGE_CHARS);
            }
        }
    }
}
