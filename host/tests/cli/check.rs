//! A plugin file tried without a server: the conformance kit in a process of its own, and one call by hand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::run::{Ended, Place, built};

const BAD: &str = r#"match self.greeting.as_str() {
            "abort" => std::process::abort(),
            "panic" => panic!("it was asked for"),
            "stray" => {
                println!("printed");
                std::thread::spawn(|| loop { std::thread::park() });
            }
            _ => {}
        }
        Ok(format!("#;

/// A plugin that misbehaves as its configuration says.
fn plugin(place: &Place) -> PathBuf {
    place.jackfield(["plugins", "new", "check-about"]).ok();
    let project = place.path().join("check-about");
    let source = project.join("src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    assert!(text.contains("Ok(format!("));
    fs::write(&source, text.replace("Ok(format!(", BAD)).unwrap();
    place.cargo(&project, ["build", "--quiet"]).ok();
    place.plugins(&built("check_about")).join(built("check_about").file_name().unwrap())
}

fn configured(place: &Place, settings: &str) -> PathBuf {
    let path = place.path().join("settings.toml");
    fs::write(&path, settings).unwrap();
    path
}

fn check(place: &Place, file: &Path, greeting: &str, more: &[&str]) -> Ended {
    let settings = configured(place, &format!("[plugins.check-about.config]\ngreeting = \"{greeting}\"\n"));
    let words = ["plugins", "check", file.to_str().unwrap(), "--config", settings.to_str().unwrap(), "--json"];
    place.jackfield(words.iter().chain(more))
}

fn found(ended: &Ended, check: &str, severity: &str) -> String {
    let findings: Value = serde_json::from_str(&ended.output).unwrap_or_else(|_| panic!("{ended:?}"));
    let found = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["check"] == check && finding["severity"] == severity);
    found.unwrap_or_else(|| panic!("no {severity} of {check}: {findings:#}"))["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_plugin_is_checked_in_a_process_of_its_own() {
    let place = Place::new();
    let file = plugin(&place);

    let good = check(&place, &file, "hello", &["--strict"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    for point in ["start", "manifest", "schema", "calls", "arguments", "cancel", "shutdown", "output"] {
        found(&good, point, "pass");
    }

    let crashed = check(&place, &file, "abort", &[]);
    assert_eq!(crashed.code, Some(4));
    let text = found(&crashed, "crash", "fail");
    assert!(text.contains("calls of check_about_greet"), "{text}");

    let panics = check(&place, &file, "panic", &[]);
    assert_eq!(panics.code, Some(4));
    assert!(found(&panics, "panic", "fail").contains("it was asked for"));

    let stray = check(&place, &file, "stray", &[]);
    assert!(found(&stray, "output", "warn").contains("printed"));
    if cfg!(target_os = "linux") {
        assert_eq!(stray.code, Some(4));
        assert!(found(&stray, "threads", "fail").contains("go on after the end"));
    }

    let none = place.path().join("none.so");
    fs::write(&none, "this is no library").unwrap();
    assert!(found(&check(&place, &none, "hello", &[]), "file", "fail").contains("not a dynamic library"));
    let said = place.jackfield(["plugins", "check", "nobody"]).fails_with(2);
    assert!(said.contains("neither a file nor the id"), "{said}");
}

#[test]
fn a_tool_is_called_by_hand_by_the_rules_of_a_turn() {
    let place = Place::new();
    let file = plugin(&place);
    let call = |more: &[&str]| {
        let words = ["plugins", "call", file.to_str().unwrap(), "check_about_greet"];
        place.jackfield(words.iter().chain(more))
    };
    assert_eq!(call(&["--args", r#"{"name":"you"}"#]).ok(), "hello you\n");
    let arguments = place.path().join("arguments.json");
    fs::write(&arguments, r#"{"name":"all"}"#).unwrap();
    assert_eq!(call(&["--args", &format!("@{}", arguments.display())]).ok(), "hello all\n");

    let misfit = call(&["--args", r#"{"name":7}"#, "--json"]);
    assert_eq!(misfit.code, Some(1));
    let misfit: Value = serde_json::from_str(&misfit.output).unwrap();
    assert!(misfit["isError"] == true && misfit["text"].as_str().unwrap().contains("/name"), "{misfit}");

    let settings = configured(&place, "[plugins.check-about]\nask = \"always\"\n");
    let careful = ["--config", settings.to_str().unwrap(), "--args", r#"{"name":"you"}"#];
    assert!(call(&careful).fails_with(8).contains("--approve"));
    assert_eq!(call(&[&careful[..], &["--approve"]].concat()).ok(), "hello you\n");

    let folder = file.parent().unwrap().to_str().unwrap();
    let by_id =
        ["plugins", "call", "check-about", "check_about_greet", "--plugins", folder, "--args", r#"{"name":"id"}"#];
    assert_eq!(place.jackfield(by_id).ok(), "hello id\n");
}
