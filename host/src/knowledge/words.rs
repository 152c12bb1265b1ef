//! Turns text into the words that are compared: lower case, without accents and endings, singular.
//!
//! Documents keep every word. A question loses the words that any text has and those of small talk, so that what is
//! left are its content words. Scripts that are written without spaces are compared by pairs of characters.

use std::collections::BTreeSet;

use tantivy::tokenizer::{AsciiFoldingFilter, Language, Stemmer, TextAnalyzer, Token, TokenStream, Tokenizer};

/// Longer words are serial numbers and the like at best; they are skipped.
const WORD_BYTES_MAX: usize = 128;

/// For the text of documents.
pub(super) fn document_analyzer() -> TextAnalyzer {
    analyzer(Words { keep_common: true, token: Token::default() })
}

/// For questions.
pub(super) fn question_analyzer() -> TextAnalyzer {
    analyzer(Words { keep_common: false, token: Token::default() })
}

/// The different words of a document's text.
pub(super) fn stems_of_document(text: &str) -> BTreeSet<String> {
    let mut stems = BTreeSet::new();
    document_analyzer().token_stream(text).process(&mut |token| {
        stems.insert(token.text.clone());
    });
    stems
}

fn analyzer(words: Words) -> TextAnalyzer {
    TextAnalyzer::builder(words).filter(AsciiFoldingFilter).filter(Stemmer::new(Language::English)).build()
}

/// Words that say nothing about the subject: those of grammar, and those of greetings, thanks and other small talk.
/// Compared as written, in lower case, before endings are removed: `good` is one of them, `goods` is not.
#[rustfmt::skip]
const COMMON: &[&str] = &[
    "a", "about", "actually", "after", "again", "ah", "all", "already", "also", "always", "am", "an", "and", "any",
    "anybody", "anyone", "anything", "are", "aren", "as", "at", "awesome", "back", "be", "because", "been", "before",
    "being", "between", "both", "but", "by", "bye", "can", "cannot", "cheers", "come", "cool", "could", "couldn", "day",
    "dear", "did", "didn", "do", "does", "doesn", "doing", "don", "done", "each", "either", "else", "etc", "evening",
    "afternoon", "ever", "every", "everything", "excellent", "few", "fine", "for", "from", "get", "getting", "give",
    "glad", "go", "going", "good", "goodbye", "got", "great", "had", "hadn", "haha", "happy", "has", "hasn", "have",
    "haven", "having", "he", "hello", "help", "her", "here", "hey", "hi", "him", "his", "hiya", "how", "however", "i",
    "if", "im", "in", "instead", "into", "is", "isn", "it", "its", "just", "kind", "know", "later", "let", "like",
    "lol", "lot", "lots", "many", "may", "maybe", "me", "meet", "might", "mine", "more", "morning", "most", "much",
    "must", "my", "myself", "need", "never", "nice", "night", "no", "nope", "nor", "not", "nothing", "now", "of", "off",
    "oh", "ok", "okay", "on", "once", "one", "only", "or", "other", "our", "out", "over", "per", "perfect", "please",
    "pls", "quite", "really", "right", "said", "same", "say", "see", "shall", "she", "should", "shouldn", "so", "some",
    "somebody", "someone", "something", "soon", "sorry", "still", "such", "sup", "sure", "take", "talk", "tell", "than",
    "thank", "thanks", "that", "the", "their", "them", "then", "there", "these", "they", "thing", "things", "think",
    "this", "those", "thx", "till", "to", "today", "too", "under", "understand", "until", "up", "us", "very", "want",
    "was", "wasn", "we", "welcome", "well", "were", "weren", "what", "whatever", "when", "where", "whether", "which",
    "while", "who", "whom", "whose", "why", "will", "with", "without", "won", "wonderful", "would", "wouldn", "wow",
    "yeah", "yep", "yes", "yet", "yo", "you", "your", "yours", "yourself",
];

/// Plurals that the stemmer does not bring together with their singular.
#[rustfmt::skip]
const SINGULARS: &[(&str, &str)] = &[
    ("analyses", "analysis"), ("bases", "base"), ("buses", "bus"), ("calves", "calf"), ("children", "child"),
    ("criteria", "criterion"), ("crises", "crisis"), ("feet", "foot"), ("gases", "gas"), ("geese", "goose"),
    ("halves", "half"), ("indices", "index"), ("knives", "knife"), ("leaves", "leaf"), ("lenses", "lens"),
    ("lives", "life"), ("loaves", "loaf"), ("matrices", "matrix"), ("men", "man"), ("mice", "mouse"),
    ("people", "person"), ("shelves", "shelf"), ("teeth", "tooth"), ("theses", "thesis"), ("thieves", "thief"),
    ("vertices", "vertex"), ("wives", "wife"), ("wolves", "wolf"), ("women", "woman"),
];

/// What an apostrophe may be followed by at the end of a word without beginning a new one.
const CLITICS: &[&str] = &["s", "t", "d", "m", "ll", "re", "ve"];

fn is_common(word: &str) -> bool {
    // The list is for readers, so it is not sorted to the letter; some two hundred short comparisons are nothing
    // beside a search.
    COMMON.contains(&word)
}

/// Whether the script is written without spaces: Han, kana, Hangul and the scripts from Thai to Lao.
fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0eff}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Splits text into words.
#[derive(Clone)]
struct Words {
    /// Documents keep common words, so that a rare use of one can still be found by its other forms.
    keep_common: bool,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, at: 0, in_unspaced: false, keep_common: self.keep_common, token: &mut self.token }
    }
}

struct WordStream<'a> {
    text: &'a str,
    /// Where the part begins that was not looked at.
    at: usize,
    /// Whether the character at `at` was already the second one of a pair.
    in_unspaced: bool,
    keep_common: bool,
    token: &'a mut Token,
}

impl WordStream<'_> {
    /// Emits the pair that begins at `at`, or a character that stands alone. Returns whether there was one.
    fn pair(&mut self, first: char) -> bool {
        let from = self.at;
        self.at += first.len_utf8();
        let second = self.text[self.at..].chars().next().filter(|second| is_unspaced(*second));
        let is_last_of_run = second.is_none();
        let was_in_run = std::mem::replace(&mut self.in_unspaced, !is_last_of_run);
        if is_last_of_run && was_in_run {
            return false;
        }
        self.emit(from, self.at + second.map_or(0, char::len_utf8));
        true
    }

    /// Emits the word that begins at `at`. Returns whether it counts.
    fn word(&mut self) -> bool {
        let from = self.at;
        let is_end = |character: char| !character.is_alphanumeric() || is_unspaced(character);
        let length = self.text[from..].find(is_end).unwrap_or(self.text.len() - from);
        self.at = from + length;
        self.in_unspaced = false;
        self.skip_clitic();
        if length > WORD_BYTES_MAX {
            return false;
        }
        self.emit(from, from + length);
        let word = &mut self.token.text;
        if !self.keep_common && is_common(word) {
            return false;
        }
        if let Some((_, singular)) = SINGULARS.iter().find(|(plural, _)| plural == word) {
            word.replace_range(.., singular);
        }
        true
    }

    /// Steps over the `'s` of `what's` and the like.
    fn skip_clitic(&mut self) {
        let rest = &self.text[self.at..];
        let Some(rest) = rest.strip_prefix(['\'', '’']) else { return };
        let length = rest.find(|character: char| !character.is_alphanumeric()).unwrap_or(rest.len());
        if CLITICS.iter().any(|clitic| clitic.eq_ignore_ascii_case(&rest[..length])) {
            self.at = self.text.len() - rest.len() + length;
        }
    }

    fn emit(&mut self, from: usize, to: usize) {
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.text.clear();
        self.token.text.extend(self.text[from..to].chars().flat_map(char::to_lowercase));
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.token.position = self.token.position.wrapping_add(1);
        while let Some(character) = self.text[self.at..].chars().next() {
            if is_unspaced(character) {
                if self.pair(character) {
                    return true;
                }
            } else if character.is_alphanumeric() {
                if self.word() {
                    return true;
                }
            } else {
                self.in_unspaced = false;
                self.at += character.len_utf8();
            }
        }
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn analyze(mut analyzer: TextAnalyzer, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        analyzer.token_stream(text).process(&mut |token| words.push(token.text.clone()));
        words
    }

    fn question(text: &str) -> Vec<String> {
        analyze(question_analyzer(), text)
    }

    #[test]
    fn small_talk_has_no_content() {
        for text in [
            "hi",
            "Hello there!",
            "thanks",
            "Thank you very much :)",
            "how are you",
            "What's up?",
            "ok, got it",
            "good morning",
            "Who are you and what can you do?",
            "can you help me please",
            "Don’t",
            "nice to meet you",
            "see you later, bye",
            "",
            "?!",
        ] {
            assert_eq!(question(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_word_meets_its_plural() {
        for (singular, plural) in [
            ("refund", "refunds"),
            ("policy", "Policies"),
            ("box", "boxes"),
            ("day", "days"),
            ("child", "children"),
            ("bus", "buses"),
            ("class", "classes"),
            ("knife", "knives"),
            ("leaf", "leaves"),
            ("tax", "taxes"),
            ("status", "statuses"),
            ("delivery", "deliveries"),
            ("café", "cafes"),
            ("customer's", "customers"),
        ] {
            let document = |text| analyze(document_analyzer(), text);
            assert_eq!(document(singular), document(plural));
        }
    }

    #[test]
    fn punctuation_and_case_do_not_matter() {
        assert_eq!(question("(RETURN): \"item\", items..."), ["return", "item", "item"]);
        assert_eq!(question("O'Brien’s 17-inch e_mail"), ["o", "brien", "17", "inch", "e", "mail"]);
        assert_eq!(question("the goods"), ["good"]);
        assert_eq!(analyze(document_analyzer(), "The good day"), ["the", "good", "day"]);
    }

    #[test]
    fn scripts_without_spaces_are_compared_by_pairs() {
        assert_eq!(question("返品期限は17日"), ["返品", "品期", "期限", "限は", "17", "日"]);
        assert_eq!(question("東 京都x"), ["東", "京都", "x"]);
    }

    #[test]
    fn an_endless_word_is_skipped() {
        assert_eq!(question(&format!("return {}", "x".repeat(10_000))), ["return"]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_analyzed(text in "\\PC{0,200}") {
            question(&text);
            analyze(document_analyzer(), &text);
        }
    }
}
