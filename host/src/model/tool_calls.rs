//! Puts streamed pieces of tool calls together. Pure.
//!
//! Gateways disagree about how a piece says which call it belongs to: by index, by id, by both, by a new id each time,
//! or not at all. The order of trust here: the id, then the index, then the call that was last written to, unless its
//! arguments are already a whole JSON object and the piece starts another one. A name that is repeated or empty never
//! starts a call anew, and a call that the gateway gave no id gets one.
//!
//! It never looks into arguments beyond finding where a JSON object ends, and never repairs them.

use crate::{ids::ToolCallId, model::ModelToolCall};

/// One piece of a tool call as the gateway sent it; empty texts mean absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Fragment {
    /// The call's number in the reply, when the gateway says it.
    pub(super) index: Option<u64>,
    /// Where the piece stood among several in one delta; counts when there is neither index nor id.
    pub(super) position: Option<u64>,
    /// The call's id.
    pub(super) id: String,
    /// The tool's name, or a piece of it.
    pub(super) name: String,
    /// A piece of the arguments.
    pub(super) arguments: String,
}

/// The calls of one reply, as far as they came.
#[derive(Debug, Default)]
pub(super) struct ToolCallBuilder {
    entries: Vec<Entry>,
    /// The entry that was last written to.
    last: Option<usize>,
}

#[derive(Debug, Default)]
struct Entry {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    shape: JsonShape,
}

/// Where a piece goes.
enum Place {
    /// It starts a call; without a name of its own it takes that of the given entry.
    New { named_after: Option<usize> },
    /// It continues this call.
    Append(usize),
    /// It takes the place of this call's arguments, which were only a placeholder.
    Replace(usize),
    /// It says again what this call has said.
    Repeat(usize),
}

impl ToolCallBuilder {
    /// Whether no call has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, fragment: Fragment) {
        let at = match self.place(&fragment) {
            Place::New { named_after } => self.start(fragment, named_after),
            Place::Append(at) => {
                self.entries[at].append(fragment);
                at
            }
            Place::Replace(at) => {
                self.entries[at].arguments.clear();
                self.entries[at].shape = JsonShape::default();
                self.entries[at].append(fragment);
                at
            }
            Place::Repeat(at) => {
                self.entries[at].adopt_id(fragment.id);
                at
            }
        };
        self.last = Some(at);
    }

    /// The calls, in the order they began. Calls that never got a name are left out: nothing could answer them.
    pub(super) fn finish(&mut self, mut new_id: impl FnMut() -> String) -> Vec<ModelToolCall> {
        let mut calls: Vec<ModelToolCall> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..).filter(|entry| !entry.name.is_empty()) {
            let taken = entry.id.is_empty() || calls.iter().any(|call| call.id.as_str() == entry.id);
            let id = if taken { new_id() } else { entry.id };
            calls.push(ModelToolCall { id: ToolCallId::new(id), name: entry.name, arguments: entry.arguments });
        }
        self.last = None;
        calls
    }

    fn place(&self, fragment: &Fragment) -> Place {
        let Some(at) = self.candidate(fragment) else { return Place::New { named_after: None } };
        let entry = &self.entries[at];
        let new = Place::New { named_after: Some(at) };
        let same_id = !fragment.id.is_empty() && fragment.id == entry.id;
        let other_id = !fragment.id.is_empty() && !entry.id.is_empty() && fragment.id != entry.id;
        let same_name = fragment.name.is_empty() || fragment.name == entry.name;
        let opens_object = fragment.arguments.trim_start().starts_with('{');
        if other_id {
            // Some gateways make up a new id for every piece; only the first piece of a call carries its name.
            let continues = !entry.shape.is_whole()
                && (fragment.name.is_empty() || same_name && !fragment.arguments.is_empty() && !opens_object);
            return if continues { Place::Append(at) } else { new };
        }
        let addressed = same_id || fragment.index.is_some();
        if entry.shape.is_whole() {
            if addressed && fragment.arguments == entry.arguments {
                return Place::Repeat(at);
            }
            if fragment.arguments.is_empty() {
                // Only another name can begin a call here; the same one again is the habit of some gateways.
                return if same_name || same_id { Place::Repeat(at) } else { new };
            }
            if !opens_object || same_id && !entry.is_placeholder() {
                return Place::Append(at);
            }
            let replaces = entry.is_placeholder() && (same_id || addressed && fragment.name.is_empty());
            return if replaces { Place::Replace(at) } else { new };
        }
        let continues = match (same_name, addressed) {
            (true, _) => true,
            (false, false) => false,
            // Another name at the same index: a piece of the name while there are no arguments, another call after.
            (false, true) => same_id || entry.arguments.is_empty() || !opens_object && !fragment.arguments.is_empty(),
        };
        if continues { Place::Append(at) } else { new }
    }

    /// The call that a piece most likely belongs to.
    fn candidate(&self, fragment: &Fragment) -> Option<usize> {
        if !fragment.id.is_empty() {
            let by_id = self.entries.iter().rposition(|entry| entry.id == fragment.id);
            let another_call =
                |entry: &Entry| !fragment.name.is_empty() && fragment.index.is_some() && entry.index != fragment.index;
            if let Some(at) = by_id.filter(|at| !another_call(&self.entries[*at])) {
                return Some(at);
            }
        }
        let Some(index) = fragment.index.or(fragment.position) else { return self.last };
        let by_index = self.entries.iter().rposition(|entry| entry.index == Some(index));
        let anonymous = fragment.id.is_empty() && fragment.name.is_empty();
        by_index.or_else(|| self.last.filter(|at| anonymous && !self.entries[*at].shape.is_whole()))
    }

    fn start(&mut self, mut fragment: Fragment, named_after: Option<usize>) -> usize {
        if fragment.name.is_empty()
            && let Some(at) = named_after
        {
            fragment.name.clone_from(&self.entries[at].name);
        }
        let is_free = |index: u64| !self.entries.iter().any(|entry| entry.index == Some(index));
        let index = fragment.index.or(fragment.position).or_else(|| is_free(0).then_some(0));
        let mut entry = Entry { index, ..Entry::default() };
        entry.append(fragment);
        self.entries.push(entry);
        self.entries.len() - 1
    }
}

impl Entry {
    fn append(&mut self, fragment: Fragment) {
        self.adopt_id(fragment.id);
        if self.arguments.is_empty() {
            self.append_name(&fragment.name);
        }
        self.shape.feed(fragment.arguments.as_bytes());
        if self.arguments.is_empty() {
            self.arguments = fragment.arguments;
        } else {
            self.arguments.push_str(&fragment.arguments);
        }
    }

    fn adopt_id(&mut self, id: String) {
        if self.id.is_empty() {
            self.id = id;
        }
    }

    /// A name comes whole, again and again, in pieces, or longer each time.
    fn append_name(&mut self, piece: &str) {
        if piece.starts_with(&self.name) {
            self.name = piece.to_owned();
        } else {
            self.name.push_str(piece);
        }
    }

    /// Whether the arguments are the `{}` that some gateways send before the real ones.
    fn is_placeholder(&self) -> bool {
        self.arguments.trim() == "{}"
    }
}

/// Finds where a JSON object or array ends, piece by piece, looking at every byte once.
#[derive(Debug, Default)]
struct JsonShape {
    depth: u32,
    in_string: bool,
    escaped: bool,
    whole: bool,
}

impl JsonShape {
    /// Whether the text so far is a whole object or array.
    fn is_whole(&self) -> bool {
        self.whole
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.whole |= self.depth == 1;
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(index: impl Into<Option<u64>>, id: &str, name: &str, arguments: &str) -> Fragment {
        Fragment {
            index: index.into(),
            position: None,
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    fn build(fragments: impl IntoIterator<Item = Fragment>) -> Vec<(String, String, String)> {
        let mut builder = ToolCallBuilder::default();
        fragments.into_iter().for_each(|fragment| builder.push(fragment));
        let mut made_up = 0;
        let calls = builder.finish(|| {
            made_up += 1;
            format!("made-up-{made_up}")
        });
        calls.into_iter().map(|call| (call.id.as_str().to_owned(), call.name, call.arguments)).collect()
    }

    fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
        (id.to_owned(), name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn interleaved_pieces_go_to_their_index() {
        let calls = build([
            piece(0, "a", "first", ""),
            piece(1, "b", "second", ""),
            piece(1, "", "", r#"{"n""#),
            piece(0, "", "", r#"{"m""#),
            piece(1, "", "", ":2}"),
            piece(0, "", "", ":1}"),
        ]);
        assert_eq!(calls, [call("a", "first", r#"{"m":1}"#), call("b", "second", r#"{"n":2}"#)]);
    }

    #[test]
    fn a_repeated_or_empty_name_never_starts_anew() {
        let calls = build([
            piece(0, "a", "search", ""),
            piece(0, "a", "search", r#"{"q":"#),
            piece(0, "", "", r#""x""#),
            piece(0, "a", "", "}"),
            piece(0, "a", "search", ""),
        ]);
        assert_eq!(calls, [call("a", "search", r#"{"q":"x"}"#)]);
    }

    #[test]
    fn names_come_in_pieces_or_longer_each_time() {
        assert_eq!(
            build([piece(0, "a", "get_", ""), piece(0, "", "weather", ""), piece(0, "", "", "{}")]),
            [call("a", "get_weather", "{}")]
        );
        assert_eq!(
            build([piece(0, "a", "get_", ""), piece(0, "", "get_weather", "{}")]),
            [call("a", "get_weather", "{}")]
        );
    }

    #[test]
    fn calls_that_share_an_index_are_told_apart_by_their_ids() {
        let calls = build([piece(0, "a", "f", r#"{"x":1}"#), piece(0, "b", "f", r#"{"x":1}"#)]);
        assert_eq!(calls, [call("a", "f", r#"{"x":1}"#), call("b", "f", r#"{"x":1}"#)]);
    }

    #[test]
    fn without_index_and_id_a_whole_object_ends_a_call() {
        let calls = build([
            piece(None, "", "f", r#"{"x":"#),
            piece(None, "", "", r#"{"deep":"}"}}"#),
            piece(None, "", "f", r#"{"x":2}"#),
            piece(None, "", "g", ""),
            piece(None, "", "", r#"{"y":3}"#),
            piece(None, "", "", r#"{"y":4}"#),
        ]);
        assert_eq!(
            calls,
            [
                call("made-up-1", "f", r#"{"x":{"deep":"}"}}"#),
                call("made-up-2", "f", r#"{"x":2}"#),
                call("made-up-3", "g", r#"{"y":3}"#),
                call("made-up-4", "g", r#"{"y":4}"#),
            ]
        );
    }

    #[test]
    fn several_in_one_delta_are_several_calls_even_without_arguments() {
        let at = |position, name: &str| Fragment { position: Some(position), ..piece(None, "", name, "") };
        assert_eq!(build([at(0, "f"), at(1, "f")]), [call("made-up-1", "f", ""), call("made-up-2", "f", "")]);
    }

    #[test]
    fn a_new_id_for_every_piece_is_still_one_call() {
        let calls = build([piece(0, "a", "f", ""), piece(0, "b", "", r#"{"x""#), piece(0, "c", "", ":1}")]);
        assert_eq!(calls, [call("a", "f", r#"{"x":1}"#)]);
    }

    #[test]
    fn a_whole_call_said_twice_is_one_call() {
        let calls = build([piece(0, "a", "f", r#"{"x":"#), piece(0, "", "", "1}"), piece(0, "a", "f", r#"{"x":1}"#)]);
        assert_eq!(calls, [call("a", "f", r#"{"x":1}"#)]);
    }

    #[test]
    fn an_empty_object_in_front_of_the_arguments_is_a_placeholder() {
        assert_eq!(
            build([piece(0, "a", "f", "{}"), piece(0, "", "", r#"{"x":"#), piece(0, "", "", "1}")]),
            [call("a", "f", r#"{"x":1}"#)]
        );
    }

    #[test]
    fn ids_are_unique_and_nameless_calls_are_left_out() {
        let calls = build([piece(0, "a", "f", "{}"), piece(1, "a", "g", "{}"), piece(2, "c", "", "{}")]);
        assert_eq!(calls, [call("a", "f", "{}"), call("made-up-1", "g", "{}")]);
    }

    fn cut(text: &str, places: &[prop::sample::Index]) -> Vec<String> {
        let mut ends: Vec<usize> = places
            .iter()
            .map(|place| place.index(text.len() + 1))
            .filter(|end| text.is_char_boundary(*end))
            .chain([text.len()])
            .collect();
        ends.sort_unstable();
        let mut from = 0;
        ends.into_iter()
            .map(|end| {
                let piece = text[from..end].to_owned();
                from = end;
                piece
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_cut_of_a_call_gives_the_same_call(
            value in "[a-zA-Z0-9{}\\[\\]\"\\\\ é🦀]{0,40}",
            places in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
            repeat_name in any::<bool>(),
            repeat_id in any::<bool>(),
            with_index in any::<bool>(),
        ) {
            let arguments = serde_json::json!({ "value": value, "list": [{ "deep": value }] }).to_string();
            let index = with_index.then_some(0);
            let first = piece(index, "id-1", "tool", "");
            let rest = cut(&arguments, &places).into_iter().map(|text| piece(
                index,
                if repeat_id { "id-1" } else { "" },
                if repeat_name { "tool" } else { "" },
                &text,
            ));
            prop_assert_eq!(build([first].into_iter().chain(rest)), [call("id-1", "tool", &arguments)]);
        }

        #[test]
        fn any_mix_of_two_calls_gives_both(
            order in proptest::collection::vec(any::<bool>(), 0..40),
            places in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let texts = [r#"{"a":"x{y}","b":[1,2]}"#, r#"{"c":{"d":"}"}}"#];
            let mut queues = texts.map(|text| cut(text, &places).into_iter());
            let mut fragments = vec![piece(0, "a", "f", ""), piece(1, "b", "g", "")];
            for second in order.into_iter().chain([false; 20]).chain([true; 20]) {
                let which = usize::from(second);
                if let Some(text) = queues[which].next() {
                    fragments.push(piece(which as u64, "", "", &text));
                }
            }
            prop_assert_eq!(build(fragments), [call("a", "f", texts[0]), call("b", "g", texts[1])]);
        }
    }
}
