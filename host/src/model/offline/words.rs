//! Words and sentences, as far as rules can tell. Pure.

/// Where a text mentions a tool.
#[derive(Debug, PartialEq)]
pub(super) struct Mention<'a> {
    /// What follows it.
    pub(super) rest: &'a str,
    /// The name itself stood there, not only its words.
    pub(super) is_by_name: bool,
}

/// Finds a tool in a text: by its name (one that is an ordinary word only after a verb like "use"), or by the words of
/// its name in their order.
pub(super) fn mention<'a>(text: &'a str, name: &str) -> Option<Mention<'a>> {
    let words = words_with_ends(text);
    let is_plain_word = name.chars().all(char::is_alphabetic);
    let by_name = words.iter().enumerate().find(|(position, (word, _))| {
        word.eq_ignore_ascii_case(name) && (!is_plain_word || follows_order(&words[..*position]))
    });
    if let Some((_, (_, end))) = by_name {
        return Some(Mention { rest: &text[*end..], is_by_name: true });
    }
    let parts: Vec<&str> = name.split(['_', '-']).filter(|part| !part.is_empty()).collect();
    if parts.len() < 2 {
        return None;
    }
    (0..words.len())
        .find_map(|start| end_of_parts(&words[start..], &parts))
        .map(|end| Mention { rest: &text[end..], is_by_name: false })
}

/// Whether somebody wants to know something.
pub(super) fn is_question(text: &str) -> bool {
    const OPENERS: [&str; 31] = [
        "who", "what", "when", "where", "which", "why", "how", "can", "could", "do", "does", "did", "is", "are", "was",
        "may", "might", "must", "should", "will", "would", "until", "tell", "show", "find", "explain", "search",
        "look", "describe", "whats", "i'd",
    ];
    let first = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    text.contains('?') || OPENERS.contains(&first.trim_end_matches([',', ':']))
}

/// Whether a text that names something asks about it instead of wanting it done.
pub(super) fn asks_about(text: &str) -> bool {
    const OPENERS: [&str; 7] = ["what", "whats", "how", "why", "describe", "explain", "which"];
    let first = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    OPENERS.contains(&first.replace('\'', "").as_str())
}

/// The sentence that shares most words with the question, and where it is from.
pub(super) fn best_sentence<'a>(
    question: &str,
    passages: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<(&'a str, String)> {
    let wanted = stems(question);
    let mut best: Option<(usize, &str, &str)> = None;
    for (source, text) in passages {
        for sentence in sentences(text) {
            let has = stems(sentence);
            let shared = wanted.iter().filter(|stem| has.contains(stem)).count();
            if best.is_none_or(|(most, _, _)| shared > most) {
                best = Some((shared, source, sentence));
            }
        }
    }
    best.map(|(_, source, sentence)| (source, sentence.to_owned()))
}

/// Words and where they end; a word keeps its inner `_`, `-` and `/`.
fn words_with_ends(text: &str) -> Vec<(&str, usize)> {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '/');
    let mut words = Vec::new();
    let mut start = None;
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, is_part(character)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                words.push((&text[from..at], at));
                start = None;
            }
            _ => {}
        }
    }
    words
}

fn follows_order(before: &[(&str, usize)]) -> bool {
    const VERBS: [&str; 6] = ["use", "call", "run", "try", "invoke", "execute"];
    const FILLERS: [&str; 3] = ["the", "tool", "a"];
    let last = before.iter().rev().map(|(word, _)| word.to_lowercase()).find(|word| !FILLERS.contains(&word.as_str()));
    last.is_some_and(|word| VERBS.contains(&word.as_str()))
}

/// Where the parts end when the words begin with them, small words between them allowed.
fn end_of_parts(words: &[(&str, usize)], parts: &[&str]) -> Option<usize> {
    const FILLERS: [&str; 6] = ["a", "an", "the", "my", "our", "this"];
    let mut left = parts.iter();
    let mut wanted = left.next()?;
    for (position, (word, end)) in words.iter().enumerate() {
        if word.eq_ignore_ascii_case(wanted) {
            match left.next() {
                Some(next) => wanted = next,
                None => return Some(*end),
            }
        } else if position == 0 || !FILLERS.contains(&word.to_lowercase().as_str()) {
            return None;
        }
    }
    None
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(sentences_of_line).map(str::trim).filter(|sentence| !sentence.is_empty())
}

fn sentences_of_line(line: &str) -> Vec<&str> {
    let mut line = line.trim();
    let mut found = Vec::new();
    if line.starts_with('#') {
        line = after_heading(line);
    }
    let mut start = 0;
    for (at, mark) in line.match_indices(['.', '!', '?']) {
        let end = at + mark.len();
        if line[end..].starts_with(' ') {
            found.push(&line[start..end]);
            start = end;
        }
    }
    found.push(&line[start..]);
    found
}

/// A heading that was joined with its text ends where the next sentence begins: at a capital after its first word.
/// A heading alone has nothing to quote.
fn after_heading(line: &str) -> &str {
    let heading = line.trim_start_matches(['#', ' ']);
    let starts = heading.match_indices(' ').map(|(at, _)| at + 1);
    starts
        .map(|start| &heading[start..])
        .find(|rest| rest.chars().next().is_some_and(char::is_uppercase) && rest.contains(['.', '!', '?']))
        .unwrap_or_default()
}

/// The words that carry meaning, without their commonest endings.
fn stems(text: &str) -> Vec<String> {
    const SMALL: [&str; 32] = [
        "the", "and", "for", "with", "that", "this", "what", "when", "where", "which", "who", "why", "how", "can",
        "could", "may", "you", "your", "are", "was", "were", "has", "have", "does", "did", "will", "would", "should",
        "not", "from", "until", "about",
    ];
    let mut stems: Vec<String> = text
        .split(|character: char| !character.is_alphanumeric())
        .map(str::to_lowercase)
        .filter(|word| word.chars().count() >= 2 && !SMALL.contains(&word.as_str()))
        .map(|word| stem(&word).to_owned())
        .collect();
    stems.sort_unstable();
    stems.dedup();
    stems
}

fn stem(word: &str) -> &str {
    ["ing", "ed", "es", "s"]
        .iter()
        .find_map(|ending| word.strip_suffix(ending).filter(|stem| stem.len() >= 3))
        .unwrap_or(word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_mention_and_an_ordinary_word_only_after_an_order() {
        assert_eq!(mention("call issue_refund now", "issue_refund").unwrap().rest, " now");
        assert!(mention("please Issue_Refund!", "issue_refund").unwrap().is_by_name);
        assert!(mention("add 2 and 3", "add").is_none());
        assert_eq!(mention("use the tool add 2 3", "add").unwrap().rest, " 2 3");
        assert!(mention("reissue_refund", "issue_refund").is_none());
    }

    #[test]
    fn the_words_of_a_name_are_a_mention_in_their_order() {
        let found = mention("please issue a refund for order 7", "issue_refund").unwrap();
        assert_eq!(found, Mention { rest: " for order 7", is_by_name: false });
        assert!(mention("refund the issue", "issue_refund").is_none());
        assert!(mention("what time is current", "current_time").is_none());
    }

    #[test]
    fn questions_are_known_by_mark_or_first_word() {
        assert!(is_question("returns?") && is_question("How long") && is_question("tell me about returns"));
        assert!(!is_question("hello there") && !is_question(""));
    }

    #[test]
    fn the_best_sentence_shares_most_with_the_question() {
        let passages = [("a", "# Shipping Standard delivery takes a week. Expedited takes 1.5 days."), ("b", "Other.")];
        let best = |question| best_sentence(question, passages).unwrap();
        assert_eq!(best("how long does a delivery take"), ("a", "Standard delivery takes a week.".to_owned()));
        assert_eq!(best("is expedited quick"), ("a", "Expedited takes 1.5 days.".to_owned()));
        assert_eq!(best_sentence("x", []), None);
    }
}
