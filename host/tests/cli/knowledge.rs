//! `knowledge` against a server that the binary itself runs.

use std::fs;

use serde_json::Value;

use crate::run::{Place, Started};

fn serve(place: &Place) -> Started {
    let mut server = place.start(["serve", "--port", "0", "--model", "offline"]);
    server.says("listening on ws://");
    server
}

fn json(place: &Place, words: &[&str]) -> Value {
    serde_json::from_str(&place.jackfield(words).ok()).unwrap()
}

#[test]
fn without_a_server_it_says_what_it_needs() {
    let place = Place::new();
    for words in [&["ls"][..], &["add", "x"], &["rm", "x"], &["reindex"], &["query", "x"]] {
        let errors = place.jackfield([&["knowledge"], words].concat()).fails_with(1);
        assert!(errors.contains("needs a running server") && errors.contains("run.json"), "{errors}");
    }
    let errors = place.jackfield(["knowledge", "ls", "--server", "https://h"]).fails_with(2);
    assert!(errors.contains("does not encrypt"), "{errors}");
    let errors = place.jackfield(["knowledge", "ls", "--server", "http://127.0.0.1:9"]).fails_with(1);
    assert!(errors.contains("127.0.0.1:9: ") && errors.contains("jackfield serve"), "{errors}");
    place.jackfield(["knowledge", "query", "x", "--limit", "0"]).fails_with(2);
}

#[cfg(unix)]
#[test]
fn a_folder_is_added_asked_about_kept_and_forgotten() {
    let place = Place::new();
    let docs = place.path().join("docs");
    fs::create_dir_all(docs.join("sub")).unwrap();
    fs::write(docs.join("parrots.md"), "# Parrots\n\nParrots live up to 80 years.").unwrap();
    fs::write(docs.join("sub/zoo.html"), "<title>Zoo</title><p>Lions, giraffes and parrots.").unwrap();
    fs::write(docs.join("logo.png"), b"\x89PNG\0").unwrap();
    let server = serve(&place);

    let added = place.jackfield(["knowledge", "add", "docs"]);
    assert!(added.errors.contains("skipped docs/logo.png: it is a binary file"), "{}", added.errors);
    assert_eq!(added.ok(), "docs: 2 documents, 2 passages, 1 skipped (it is read again at every start)\n");
    let errors = place.jackfield(["knowledge", "add", "missing"]).fails_with(1);
    assert!(errors.contains("missing") && errors.contains("VALIDATION_ERROR"), "{errors}");
    place.jackfield(["knowledge", "add", "a", "b", "--name", "both"]).fails_with(2);

    let listed = place.jackfield(["knowledge", "ls"]);
    assert!(listed.errors.contains("2 documents, 2 passages; found by words only"), "{}", listed.errors);
    assert!(listed.ok().lines().nth(1).unwrap().starts_with("docs"), "a table with the source");
    let documents = json(&place, &["knowledge", "ls", "docs", "--json"]);
    assert_eq!(documents["documents"][1]["id"], "docs/sub/zoo.html");

    let found = place.jackfield(["knowledge", "query", "how old do parrots get?", "--limit", "1", "--explain"]);
    assert!(
        found.errors.contains("looked for: parrot\n") && found.errors.contains("by meaning: off"),
        "{}",
        found.errors
    );
    let output = found.ok();
    assert!(output.contains("docs/parrots.md (passage 0)") && output.contains("words: parrot"), "{output}");
    assert!(output.contains("not used: it comes after the 1 that are used"), "{output}");
    let short = place.jackfield(["knowledge", "query", "parrots", "--limit", "1"]).ok();
    assert!(!short.contains("zoo.html"), "{short}");
    assert_eq!(json(&place, &["knowledge", "query", "parrots", "--json"])["passages"].as_array().unwrap().len(), 2);
    let nothing = place.jackfield(["knowledge", "query", "hello there"]);
    assert!(nothing.errors.contains("no word with a content of its own"), "{}", nothing.errors);
    assert_eq!(nothing.ok(), "");

    // The answer of a turn comes from there, too, also after a restart.
    let answer = place.jackfield(["chat", "How old do parrots get?"]).ok();
    assert!(answer.contains("80 years"), "{answer}");
    server.stop();
    let server = serve(&place);
    let kept = fs::read_to_string(place.path().join("state/jackfield/knowledge.toml")).unwrap();
    assert!(kept.contains("name = \"docs\""), "{kept}");
    fs::write(docs.join("lions.txt"), "Lions roar.").unwrap();
    let reread = place.jackfield(["knowledge", "reindex"]).ok();
    assert_eq!(reread, "docs: 3 documents, 3 passages, 1 skipped\n");
    assert_eq!(place.jackfield(["knowledge", "rm", "docs"]).ok(), "docs: gone, with 3 documents\n");
    assert!(place.jackfield(["knowledge", "rm", "docs"]).fails_with(1).contains("no such source"));
    assert!(!fs::read_to_string(place.path().join("state/jackfield/knowledge.toml")).unwrap().contains("docs"));
    server.stop();
}
