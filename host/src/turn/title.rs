//! The title that a conversation gets without asking a model. Pure.

use crate::{
    protocol::objects::{clean_title, shorten},
    storage::PLACEHOLDER_PREFIX,
};

/// Characters of a title, without the `…` that says it was cut.
const TITLE_CHARS: usize = 60;

/// The title to store after a turn: the beginning of the first user text. `None` when the conversation has a title
/// already, or when the text says nothing.
pub(crate) fn from_first_message(name: &str, first_text: &str) -> Option<String> {
    if !name.starts_with(PLACEHOLDER_PREFIX) {
        return None;
    }
    // Cleaning cuts as well but does not say so, so it is given no more than white space and decoration around a line.
    let line = first_text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = shorten(line.trim_matches(['"', '\'', '*', '`', '#', ' ']), TITLE_CHARS);
    let title = if cut.ends_with('…') { cut } else { clean_title(&cut) };
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEHOLDER: &str = "Session 8d0f2c1e";

    #[test]
    fn the_first_message_names_the_conversation() {
        let title = from_first_message(PLACEHOLDER, "  # \"Where\n is  my *parcel*?\"  ");
        assert_eq!(title.as_deref(), Some("Where is my *parcel*?"));
    }

    #[test]
    fn a_long_message_is_cut() {
        let exactly = "ä".repeat(TITLE_CHARS);
        assert_eq!(from_first_message(PLACEHOLDER, &exactly), Some(exactly.clone()));
        assert_eq!(from_first_message(PLACEHOLDER, &format!("{exactly}b")), Some(format!("{exactly}…")));
    }

    #[test]
    fn a_title_stays_and_nothing_gives_none() {
        assert_eq!(from_first_message("My parcel", "text"), None);
        assert_eq!(from_first_message(PLACEHOLDER, " \n "), None);
        assert_eq!(from_first_message(PLACEHOLDER, "**\"\"**"), None);
    }
}
