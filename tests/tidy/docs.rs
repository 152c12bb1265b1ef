//! Every file says first what it is for, and the README shows code that compiles.

use std::fs;

use crate::sources::{self, root};

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

#[test]
fn the_readmes_plugin_is_one_that_is_compiled() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let export = fs::read_to_string(root().join("plugin-api/src/export.rs")).expect("there is the macro");
    let shown = first_rust_block(&readme);
    assert!(shown.contains("export_plugin!"), "the README's first Rust code is a plugin");
    assert!(
        documentation(&export).contains(&shown),
        "the README's plugin is not the documentation test of export_plugin!"
    );
}

fn first_rust_block(markdown: &str) -> String {
    let lines = markdown.lines().skip_while(|line| *line != "```rust").skip(1);
    lines.take_while(|line| *line != "```").collect::<Vec<_>>().join("\n")
}

/// The text of the doc comments.
fn documentation(source: &str) -> String {
    let lines = source.lines().filter_map(|line| line.trim().strip_prefix("///"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn code_of_readme_and_documentation_is_compared_as_text() {
    let block = first_rust_block("a\n```sh\nx\n```\n```rust\nlet a = 1;\n\nf();\n```\nb");
    assert!(documentation("/// Says:\n///\n/// ```\n/// let a = 1;\n///\n/// f();\n/// ```").contains(&block));
    assert!(!documentation("/// let a = 1;\n/// f();").contains(&block));
}
