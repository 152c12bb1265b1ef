//! Words that do not belong into the source: unfinished work, history, tickets, one machine's paths.

use crate::sources::{self, has_word};

/// Unfinished work lands finished or not at all.
const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];
/// Comments say what is true now.
const HISTORY: &[&str] = &["byte-for-byte unchanged", "used to be", "no longer needed"];
/// Paths of whoever wrote it.
const MACHINES: &[&str] = &["/work/", "/root/", "/home/runner"];
/// What looks like a ticket and is a standard.
const STANDARDS: &[&str] = &["UTF", "SHA", "ISO", "RFC", "HTTP", "TLS", "ED", "SO", "GPL", "BSD", "CC", "MIT", "BCP"];

#[test]
fn the_source_speaks_of_what_is_true_now() {
    let files = sources::all().into_iter().filter(|source| !source.path.starts_with("tests/tidy/"));
    let wrong: Vec<String> = files.flat_map(|source| banned(&source.path, &source.text)).collect();
    assert!(wrong.is_empty(), "words that do not belong here:\n{}", wrong.join("\n"));
}

fn banned(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let whole = UNFINISHED.iter().filter(|word| has_word(line, word));
        let parts = HISTORY.iter().chain(MACHINES).filter(|words| line.contains(**words));
        let found = whole.chain(parts).map(|word| (*word).to_owned()).chain(ticket(line));
        wrong.extend(found.map(|word| format!("{path}:{}: {word}", number + 1)));
    }
    wrong
}

/// `ABC-123` in a comment.
fn ticket(line: &str) -> Option<String> {
    let (_, comment) = line.split_once("//")?;
    let words = comment.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    let is_ticket = |word: &&str| {
        let Some((project, number)) = word.split_once('-') else { return false };
        let upper = project.len() >= 2 && project.chars().all(|letter| letter.is_ascii_uppercase());
        upper
            && !STANDARDS.contains(&project)
            && !number.is_empty()
            && number.chars().all(|letter| letter.is_ascii_digit())
    };
    words.into_iter().find(is_ticket).map(str::to_owned)
}

#[test]
fn each_kind_of_word_is_found() {
    for line in ["// TODO: later", "x(); // see ABC-123", "/// byte-for-byte unchanged", "let path = \"/work/x\";"] {
        assert_eq!(banned("f.rs", line).len(), 1, "{line}");
    }
    for line in ["// UTF-8 and SHA-256", "let mastodon = 1;", "let x = a-1;", "// an hour-1 shift"] {
        assert_eq!(banned("f.rs", line), Vec::<String>::new(), "{line}");
    }
}
