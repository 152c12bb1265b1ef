//! Every file says first what it is for.

use crate::sources;

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<String> = sources::all()
        .into_iter()
        // The tests of one module, in a file of their own, are for that module.
        .filter(|source| !source.path.ends_with("/tests.rs"))
        .filter(|source| !says_what_it_is_for(&source.text))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "files without a `//!` sentence on top:\n{}", silent.join("\n"));
}

fn says_what_it_is_for(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    first.strip_prefix("//!").is_some_and(|sentence| sentence.trim().len() > 10)
}

#[test]
fn a_silent_file_is_found() {
    assert!(says_what_it_is_for("//! Reads what a plugin says.\n"));
    for text in ["", "fn main() {}", "use x;\n//! Late.", "//!", "//! skeleton", "// Not a module's comment at all."] {
        assert!(!says_what_it_is_for(text), "{text}");
    }
}
