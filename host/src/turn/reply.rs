//! The model's reply on its way to the user: the trailer of suggested replies is taken off, everything else passes
//! unchanged. Pure and streaming.
//!
//! ```text
//!   PASSING ── could begin the marker ──▶ HOLDING ── it is the marker ──▶ SWALLOWING (to the end of the reply)
//!      ▲                                     │
//!      └───────── it is not: released ───────┘
//! ```
//!
//! It never loses, changes or delays visible text for longer than it might be the marker.

use serde_json::Value;

use crate::protocol::objects::SUGGESTIONS_MAX;

/// Opens the trailer. Only its first character is a `<`, which keeps the search for its beginning simple.
pub(crate) const MARKER: &str = "<suggested_replies>";
/// Closes it, if the model gets that far.
const CLOSING_MARKER: &str = "</suggested_replies>";
/// Trailer text that is kept to be read; what follows is swallowed all the same.
const TRAILER_BYTES_MAX: usize = 64 * 1024;
/// Opens a list of suggestions that a model wrote in its own way, without case and decoration.
const LIST_HEADING: &str = "suggested replies:";

/// Takes the trailer off one streamed reply. Make a new one for each model call.
#[derive(Debug, Default)]
pub(crate) struct TrailerFilter {
    /// Text that may be the beginning of the marker.
    held: String,
    /// What came behind the marker, once it did.
    trailer: Option<String>,
}

/// What is left when a reply ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplyEnd {
    /// Visible text that was held back and turned out not to be the marker.
    pub(crate) text: String,
    /// What the trailer suggests; empty without one.
    pub(crate) suggestions: Vec<String>,
}

impl TrailerFilter {
    /// At the beginning of a reply.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes in a piece of the reply and returns what of it, and of what was held back, is visible. May be empty.
    pub(crate) fn push(&mut self, delta: impl Into<String>) -> String {
        let mut text = delta.into();
        if let Some(trailer) = &mut self.trailer {
            keep(trailer, &text);
            return String::new();
        }
        if !self.held.is_empty() {
            self.held.push_str(&text);
            text = std::mem::take(&mut self.held);
        }
        if let Some(at) = text.find(MARKER) {
            let mut trailer = String::new();
            keep(&mut trailer, &text[at + MARKER.len()..]);
            self.trailer = Some(trailer);
            text.truncate(at);
        } else if let Some(at) = text.rfind('<').filter(|at| MARKER.starts_with(&text[*at..])) {
            self.held = text.split_off(at);
        }
        text
    }

    /// Ends the reply.
    pub(crate) fn finish(self) -> ReplyEnd {
        let suggestions = self.trailer.map(|trailer| parse_trailer(&trailer)).unwrap_or_default();
        ReplyEnd { text: self.held, suggestions }
    }
}

/// Appends as much as there is room for, in whole characters.
fn keep(trailer: &mut String, text: &str) {
    let room = TRAILER_BYTES_MAX.saturating_sub(trailer.len()).min(text.len());
    let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    trailer.push_str(&text[..end]);
}

/// A reply without its suggestions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanReply {
    /// What is shown and stored; has no white space at its end.
    pub(crate) text: String,
    /// What the user may want to say next, at most four.
    pub(crate) suggestions: Vec<String>,
}

/// Takes suggestions off a whole reply: the trailer, also one that was not closed, or else a list at the end under the
/// line "Suggested replies:".
pub(crate) fn clean(reply: &str) -> CleanReply {
    let (text, suggestions) = match reply.split_once(MARKER) {
        Some((text, trailer)) => (text, parse_trailer(trailer)),
        None => split_list(reply).unwrap_or((reply, Vec::new())),
    };
    CleanReply { text: text.trim_end().to_owned(), suggestions }
}

/// The first of the candidates that says anything once its suggestions are taken off; empty when none does.
pub(crate) fn first_non_empty<'a>(candidates: impl IntoIterator<Item = &'a str>) -> String {
    let texts = candidates.into_iter().map(|candidate| clean(candidate).text);
    texts.into_iter().find(|text| !text.trim().is_empty()).unwrap_or_default()
}

/// The suggestions of a trailer, given what stands behind the marker. What is not a JSON array of texts suggests
/// nothing.
fn parse_trailer(trailer: &str) -> Vec<String> {
    let body = trailer.split_once(CLOSING_MARKER).map_or(trailer, |(body, _)| body);
    // Models like to fence JSON, so the array is looked for.
    let array = body.find('[').zip(body.rfind(']')).and_then(|(from, to)| body.get(from..=to));
    match array.map(serde_json::from_str::<Vec<Value>>) {
        Some(Ok(items)) => suggestions(items.iter().filter_map(Value::as_str)),
        _ => Vec::new(),
    }
}

fn suggestions<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let texts = texts.map(str::trim).filter(|text| !text.is_empty());
    texts.take(SUGGESTIONS_MAX).map(str::to_owned).collect()
}

/// The text above a list of suggestions and the list's items, when the reply ends with one.
fn split_list(reply: &str) -> Option<(&str, Vec<String>)> {
    let mut items = Vec::new();
    let mut end = reply.len();
    for line in reply.split_inclusive('\n').rev() {
        end -= line.len();
        if line.trim().is_empty() {
            continue;
        }
        match list_item(line) {
            Some(item) => items.push(item),
            None if is_list_heading(line) && !items.is_empty() => {
                return Some((&reply[..end], suggestions(items.into_iter().rev())));
            }
            None => return None,
        }
    }
    None
}

/// The text of a line such as `- yes`, `* yes` or `1. yes`.
fn list_item(line: &str) -> Option<&str> {
    let line = line.trim();
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let text = match digits {
        0 => line.strip_prefix(['-', '*', '•', '+'])?,
        _ => line[digits..].strip_prefix(['.', ')'])?,
    };
    let text = text.strip_prefix([' ', '\t'])?.trim();
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Some(unquoted.unwrap_or(text))
}

fn is_list_heading(line: &str) -> bool {
    let is_decoration = |character: char| matches!(character, '*' | '_' | '#') || character.is_whitespace();
    let words = line.trim_matches(is_decoration).trim_end_matches(':').trim_end_matches(is_decoration);
    let ends_with_colon = line.trim_end_matches(is_decoration).ends_with(':');
    ends_with_colon && words.eq_ignore_ascii_case(LIST_HEADING.trim_end_matches(':'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The visible text, then what the end said.
    fn stream(deltas: &[&str]) -> (String, Vec<String>) {
        let mut filter = TrailerFilter::new();
        let mut visible: String = deltas.iter().map(|delta| filter.push(*delta)).collect();
        let end = filter.finish();
        visible.push_str(&end.text);
        (visible, end.suggestions)
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn text_passes_at_once_and_only_a_possible_marker_is_held() {
        let mut filter = TrailerFilter::new();
        assert_eq!(filter.push("Hello "), "Hello ");
        assert_eq!(filter.push("a < b "), "a < b ");
        assert_eq!(filter.push("x <sugg"), "x ");
        assert_eq!(filter.push("est> <"), "<suggest> ");
        assert_eq!(filter.push("<"), "<");
        assert_eq!(filter.push("suggested_replies"), "");
        assert_eq!(filter.finish(), ReplyEnd { text: "<suggested_replies".to_owned(), suggestions: vec![] });
    }

    #[test]
    fn the_trailer_is_swallowed_to_the_end() {
        let whole = "Yes.\n<suggested_replies>[\"More\", \" Stop \"]</suggested_replies> and text";
        let expected = ("Yes.\n".to_owned(), owned(&["More", "Stop"]));
        assert_eq!(stream(&[whole]), expected);
        let characters: Vec<String> = whole.chars().map(String::from).collect();
        assert_eq!(stream(&characters.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn identical_deltas_are_kept() {
        assert_eq!(stream(&["ha", "ha", "<", "<", ""]).0, "haha<<");
    }

    #[test]
    fn an_endless_trailer_is_not_kept() {
        let mut filter = TrailerFilter::new();
        filter.push(MARKER);
        for _ in 0..100 {
            assert_eq!(filter.push("é".repeat(1_000)), "");
        }
        let kept = filter.trailer.as_ref().map_or(0, String::len);
        assert!(kept <= TRAILER_BYTES_MAX && kept > TRAILER_BYTES_MAX - 4);
    }

    #[test]
    fn trailers_are_parsed_leniently_but_only_texts_count() {
        let suggested = |trailer: &str| clean(&format!("Hi. \n\n{MARKER}{trailer}"));
        let of = |texts: &[&str]| CleanReply { text: "Hi.".to_owned(), suggestions: owned(texts) };
        assert_eq!(suggested("[\"a\",\"b\"]</suggested_replies>\n"), of(&["a", "b"]));
        assert_eq!(suggested("```json\n[\"a\"]\n```</suggested_replies>"), of(&["a"]));
        assert_eq!(suggested("[\"a\"]"), of(&["a"]), "not closed");
        assert_eq!(suggested("[\"a\",\"b"), of(&[]), "cut off");
        assert_eq!(suggested("[1, null, {\"a\":1}, \"\", \" \", \"x\"]"), of(&["x"]));
        assert_eq!(suggested("[\"1\",\"2\",\"3\",\"4\",\"5\"]"), of(&["1", "2", "3", "4"]));
        assert_eq!(suggested("]["), of(&[]));
        assert_eq!(suggested(""), of(&[]));
    }

    #[test]
    fn a_list_under_its_heading_counts_too() {
        let expected = |text: &str, texts: &[&str]| CleanReply { text: text.to_owned(), suggestions: owned(texts) };
        let list = "Done.\n\n**Suggested replies:**\n\n- Yes\n* \"No\"\n1. Maybe\n2) Later\n- Never\n";
        assert_eq!(clean(list), expected("Done.", &["Yes", "No", "Maybe", "Later"]));
        assert_eq!(clean("Done.\n### suggested Replies:\n• ä"), expected("Done.", &["ä"]));
        for unchanged in [
            "Suggested replies:",
            "Suggested replies:\n- one\nand more text",
            "Here are suggested replies:\n- one",
            "Suggested replies\n- one",
            "A list:\n- one\n- two",
            "- one\n- two",
            "",
        ] {
            assert_eq!(clean(unchanged), expected(unchanged, &[]), "{unchanged}");
        }
    }

    #[test]
    fn the_first_candidate_with_text_is_the_reply() {
        assert_eq!(first_non_empty(["", " \n", "<suggested_replies>[]", "second ", "third"]), "second");
        assert_eq!(first_non_empty(["", "  "]), "");
    }

    fn pieces() -> impl Strategy<Value = Vec<String>> {
        let piece = prop_oneof![
            3 => "[a-zé日 \n]{0,6}",
            2 => (0..=MARKER.len()).prop_map(|end| MARKER[..end].to_owned()),
            1 => Just(MARKER.to_owned()),
            1 => "[<>_/]{1,3}",
            1 => Just("[\"one\",\"two\"]".to_owned()),
            1 => Just(CLOSING_MARKER.to_owned()),
        ];
        prop::collection::vec(piece, 0..12)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_result_of_the_unsplit_reply(pieces in pieces(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let whole = pieces.concat();
            let unsplit = stream(&[&whole]);
            prop_assert_eq!(&stream(&pieces.iter().map(String::as_str).collect::<Vec<_>>()), &unsplit);
            let boundaries: Vec<usize> = whole.char_indices().map(|(at, _)| at).chain([whole.len()]).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&boundaries)).chain([0, whole.len()]).collect();
            cuts.sort_unstable();
            let split: Vec<&str> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
            prop_assert_eq!(&stream(&split), &unsplit);
            // Exactly what stands before the marker is visible.
            let visible = whole.split_once(MARKER).map_or(whole.as_str(), |(text, _)| text);
            prop_assert_eq!(unsplit.0, visible);
        }

        #[test]
        fn what_was_streamed_is_what_is_stored(pieces in pieces()) {
            let whole = pieces.concat();
            let (visible, suggestions) = stream(&[&whole]);
            let cleaned = clean(&whole);
            prop_assert_eq!(cleaned.text, visible.trim_end());
            prop_assert_eq!(cleaned.suggestions, suggestions);
        }

        #[test]
        fn cleaning_never_panics(text in "\\PC{0,80}") {
            clean(&text);
        }
    }
}
