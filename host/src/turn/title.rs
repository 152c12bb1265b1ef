//! A conversation's title, given once, after the first turn that answered something. A title that somebody chose is
//! never replaced.
//!
//! Without a model for it, the title is the first sentence of the first message that says something, if it is short.
//! A conversation without a title is listed with the beginning of its first message, which is as good for a long one.

use super::{
    aside::{self, Aside},
    run::KnowledgeChatRuntime,
};
use crate::{
    ids::ConversationId,
    protocol::objects::{TITLE_CHARS, clean_title, shorten},
};

/// Characters of message and reply that the model is shown.
const EXCERPT_CHARS: usize = 500;

/// Ceiling of the reply, in tokens; enough for models that think first.
const MAX_TOKENS: u32 = 512;

const INSTRUCTIONS: &str = "\
You are given the beginning of a conversation. Write a title for it: at most six words, in the language of the \
conversation, without quotes and without a full stop. Write nothing but the title.";

/// First words of sentences that only say hello.
const GREETINGS: [&str; 20] = [
    "hi",
    "hello",
    "hey",
    "hiya",
    "howdy",
    "greetings",
    "good",
    "dear",
    "hallo",
    "guten",
    "moin",
    "servus",
    "liebe",
    "bonjour",
    "salut",
    "bonsoir",
    "hola",
    "buenos",
    "ciao",
    "olá",
];

/// Words of a greeting at most ("good morning everybody").
const GREETING_WORDS: usize = 3;

/// A sentence with fewer words is taken together with the next one: it may have ended at an abbreviation.
const SENTENCE_WORDS: usize = 3;

impl KnowledgeChatRuntime {
    /// Titles the conversation from the first thing its visitor said: at once, or, when a model is configured for it,
    /// a little later.
    pub(super) async fn title(&self, conversation: ConversationId, opening: &str, reply: &str) {
        let model = self.config.title_model.clone().filter(|_| !self.config.is_offline());
        let (Some(model), Some(client)) = (model, self.model.clone()) else {
            return give(&*self.storage, conversation, from_text(opening)).await;
        };
        let (opening, excerpts) = (opening.to_owned(), excerpts(opening, reply));
        let (storage, limit) = (self.storage.clone(), self.config.limits.model_aside);
        tokio::spawn(async move {
            let aside = Aside { model, instructions: INSTRUCTIONS.to_owned(), text: excerpts, max_tokens: MAX_TOKENS };
            let told = aside::ask(&*client, aside, limit).await.as_deref().and_then(from_model);
            give(&*storage, conversation, told.or_else(|| from_text(&opening))).await;
        });
    }
}

/// Stores the title, unless the conversation has one by now or is gone.
async fn give(storage: &dyn crate::storage::StorageAdapter, conversation: ConversationId, title: Option<String>) {
    let Some(title) = title else { return };
    if let Err(error) = storage.title_conversation(conversation, &title).await {
        tracing::warn!(%error, %conversation, "a title could not be stored");
    }
}

fn excerpts(opening: &str, reply: &str) -> String {
    format!("User: {}\n\nAgent: {}", shorten(opening, EXCERPT_CHARS), shorten(reply, EXCERPT_CHARS))
}

/// The title in a model's reply.
fn from_model(reply: &str) -> Option<String> {
    let line = reply.lines().map(clean_title).find(|line| !line.is_empty())?;
    Some(line)
}

/// The title in the first message; `None` when no short sentence of it says something.
fn from_text(text: &str) -> Option<String> {
    let sentences = sentences(text);
    let first = sentences.iter().position(|sentence| !is_greeting(sentence))?;
    let mut title = String::new();
    for sentence in &sentences[first..] {
        title = if title.is_empty() { (*sentence).to_owned() } else { format!("{title} {sentence}") };
        if title.split_whitespace().count() >= SENTENCE_WORDS {
            break;
        }
    }
    let words = title.split_whitespace().collect::<Vec<_>>().join(" ");
    let cleaned = clean_title(&words);
    (words.chars().count() <= TITLE_CHARS && !cleaned.is_empty()).then_some(cleaned)
}

/// Sentences end with a line, or with a mark that white space follows.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut begin = 0;
        let mut after_mark = false;
        for (at, character) in line.char_indices() {
            if after_mark && character.is_whitespace() {
                found.push(&line[begin..at]);
                begin = at;
            }
            after_mark = matches!(character, '.' | '!' | '?' | '…' | '。' | '！' | '？');
        }
        found.push(&line[begin..]);
    }
    found.iter().map(|sentence| sentence.trim()).filter(|sentence| !sentence.is_empty()).collect()
}

fn is_greeting(sentence: &str) -> bool {
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let first = words.first().map(|word| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase());
    words.len() <= GREETING_WORDS && first.is_some_and(|word| GREETINGS.contains(&&*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_sentence_that_says_something_is_the_title() {
        for (text, title) in [
            ("Return of an order", Some("Return of an order")),
            ("Until when can I send it back? I bought it last week, and…", Some("Until when can I send it back?")),
            ("Hello!\n\nMy parcel is late. Where is it?", Some("My parcel is late.")),
            ("Guten Tag. Wo ist mein Paket?", Some("Wo ist mein Paket?")),
            ("Dr. Smith's appointment was moved. Why?", Some("Dr. Smith's appointment was moved.")),
            ("  \"Quoted   words\"  ", Some("Quoted words")),
            ("Refund", Some("Refund")),
            ("配達はいつですか？ 急いでいます。", Some("配達はいつですか？ 急いでいます。")),
            ("hi", None),
            ("Good morning everybody!", None),
            (" \n ", None),
            ("***", None),
        ] {
            assert_eq!(from_text(text).as_deref(), title, "{text}");
        }
        assert_eq!(from_text(&"word ".repeat(30)), None, "the list shows its beginning anyway");
    }

    #[test]
    fn a_models_title_is_its_first_line_cleaned() {
        assert_eq!(from_model("\n**\"Late parcel\"**\nbecause …").as_deref(), Some("Late parcel"));
        assert_eq!(from_model(" \n\"\" "), None);
    }

    #[test]
    fn excerpts_are_short() {
        let text = excerpts(&"é".repeat(9000), "ok");
        assert!(text.chars().count() < 600 && text.ends_with("…\n\nAgent: ok"), "{text}");
    }

    proptest! {
        #[test]
        fn a_title_is_short_clean_and_taken_from_the_text(text in "(?s).{0,200}") {
            if let Some(title) = from_text(&text) {
                prop_assert!(!title.is_empty() && title.chars().count() <= TITLE_CHARS);
                prop_assert_eq!(&clean_title(&title), &title);
                let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                prop_assert!(words(&text).contains(&title));
            }
        }
    }
}
