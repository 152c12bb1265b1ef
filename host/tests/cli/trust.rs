//! Whose plugins are loaded: the first use is remembered, a change is refused until somebody looks, signatures count.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::run::{Ended, Place, built};

/// A place with one plugin in its folder.
struct Trusting {
    place: Place,
    file: PathBuf,
}

impl Trusting {
    fn new() -> Self {
        let place = Place::new();
        place.jackfield(["plugins", "new", "trust-about"]).ok();
        place.cargo(&place.path().join("trust-about"), ["build", "--quiet"]).ok();
        let library = built("trust_about");
        let file = place.plugins(&library).join(library.file_name().unwrap());
        Self { place, file }
    }

    fn run(&self, words: &[&str]) -> Ended {
        let folder = self.file.parent().unwrap().to_str().unwrap();
        self.place.jackfield(words.iter().chain(&["--plugins", folder]))
    }

    /// Loads the plugin by its id, as a server would, and calls its tool.
    fn call(&self, more: &[&str]) -> Ended {
        let words = ["plugins", "call", "trust-about", "trust_about_greet", "--args", r#"{"name":"you"}"#];
        self.run(&[&words[..], more].concat())
    }

    /// Other bytes that do the same.
    fn change(&self) {
        OpenOptions::new().append(true).open(&self.file).unwrap().write_all(b"more").unwrap();
    }

    fn settings(&self, text: &str) -> String {
        let path = self.place.path().join("settings.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn a_file_is_trusted_at_its_first_use_and_a_change_is_refused_until_somebody_looks() {
    let trusting = Trusting::new();
    assert_eq!(trusting.call(&[]).ok(), "hello you\n");
    let inspected: Value =
        serde_json::from_str(&trusting.run(&["plugins", "inspect", "trust-about", "--json"]).ok()).unwrap();
    assert_eq!(inspected["trust"]["pin"], "the same", "{inspected}");

    trusting.change();
    let said = trusting.call(&[]).fails_with(1);
    assert!(said.contains("not the file that was trusted") && said.contains("sha-256"), "{said}");
    let list: Value = serde_json::from_str(&trusting.run(&["plugins", "list", "--json"]).ok()).unwrap();
    assert_eq!(list[0]["state"], "rejected", "{list}");
    assert!(list[0]["reason"].as_str().unwrap().contains("plugins trust trust-about --update"), "{list}");
    trusting.run(&["plugins", "inspect", "trust-about"]).fails_with(5);
    trusting.run(&["plugins", "trust", "trust-about"]).fails_with(5);

    let changes = trusting.run(&["plugins", "trust", "trust-about", "--update"]).ok();
    assert!(changes.contains("sha-256") && changes.contains("is trusted"), "{changes}");
    trusting.call(&[]).ok();

    trusting.place.jackfield(["plugins", "untrust", "trust-about"]).ok();
    assert!(trusting.call(&[]).fails_with(1).contains("does not trust it any more"));
    trusting.run(&["plugins", "trust", "trust-about"]).ok();
    trusting.call(&[]).ok();
}

#[test]
fn signatures_and_lists_are_the_operators_word() {
    let trusting = Trusting::new();
    let key = trusting.place.path().join("key");
    let line = trusting.place.jackfield(["plugins", "keygen", key.to_str().unwrap()]).ok();
    let line = line.trim();
    assert!(line.starts_with("RW"), "{line}");
    assert!(key.with_extension("pub").is_file());
    trusting.place.jackfield(["plugins", "keygen", key.to_str().unwrap()]).fails_with(1);

    let signed = format!("[plugins]\nrequire_signed = true\ntrusted_keys = [{line:?}]\n");
    let settings = trusting.settings(&signed);
    let only_signed = ["--config", settings.as_str()];
    assert!(trusting.call(&only_signed).fails_with(1).contains("it is not signed"));

    let file = trusting.file.to_str().unwrap();
    let sign = || trusting.place.jackfield(["plugins", "sign", file, "--key", key.to_str().unwrap()]).ok();
    assert!(Path::new(sign().trim()).is_file());
    let verified = trusting.place.jackfield(["plugins", "verify", file, "--key", line]).ok();
    assert!(verified.contains("trust-about 0.1.0") && verified.contains(line), "{verified}");
    trusting.call(&only_signed).ok();

    trusting.change();
    assert!(trusting.call(&only_signed).fails_with(1).contains("does not match its bytes"));
    trusting.place.jackfield(["plugins", "verify", file, "--key", line]).fails_with(5);
    // The key that signed what was trusted speaks for its successor.
    sign();
    trusting.call(&only_signed).ok();

    let found: Value = serde_json::from_str(&trusting.run(&["plugins", "inspect", file, "--json"]).output).unwrap();
    let denied = trusting.settings(&format!("[plugins]\ndeny = [{}]\n", found["sha256"]));
    assert!(trusting.call(&["--config", &denied]).fails_with(1).contains("deny list"));
    let wrong = trusting.settings("[plugins]\ndeny = [\"abc\"]\n");
    assert!(trusting.call(&["--config", &wrong]).fails_with(3).contains("sha-256"));
}
