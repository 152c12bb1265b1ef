//! The way of somebody who writes a plugin: from `plugins new` to a tool that is called in a chat, outside of this
//! repository and without a network.

use serde_json::Value;

use crate::run::{Place, built};

#[test]
fn a_fresh_plugin_builds_tests_loads_and_is_called_in_a_chat() {
    let place = Place::new();
    let said = place.jackfield(["plugins", "new", "walk-about"]).ok();
    assert!(said.contains("cd walk-about") && said.contains("walk_about_greet"), "{said}");

    let project = place.path().join("walk-about");
    place.cargo(&project, ["build", "--quiet"]).ok();
    let tests = place.cargo(&project, ["test", "--quiet"]).ok();
    assert!(tests.contains("4 passed"), "{tests}");

    let folder = place.plugins(&built("walk_about"));
    let list = place.jackfield(["plugins", "list", "--json", "--plugins", folder.to_str().unwrap()]).ok();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["state"]), (&"walk-about".into(), &"verified".into()), "{list}");

    let words = ["chat", "--model", "offline", "--plugins", folder.to_str().unwrap()];
    let chat = place.jackfield(words.iter().chain(&[r#"/tool walk_about_greet {"name":"stranger"}"#]));
    let said = format!("{}{}", chat.output, chat.errors);
    assert!(chat.code == Some(0) && said.contains("hello stranger"), "{said}");
}

#[test]
fn what_is_there_is_never_overwritten_and_bad_names_are_explained() {
    let place = Place::new();
    let folder = place.path().join("mine");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("notes.txt"), "precious").unwrap();
    let said = place.jackfield(["plugins", "new", "mine"]).fails_with(1);
    assert!(said.contains("not empty"), "{said}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    let said = place.jackfield(["plugins", "new", "My Plugin"]).fails_with(2);
    assert!(said.contains("a-z, 0-9"), "{said}");
    let said = place.jackfield(["plugins", "new", "fine", "--api", "newest"]).fails_with(2);
    assert!(said.contains("--api") && !place.path().join("fine").exists(), "{said}");
}

#[test]
fn the_interface_can_come_from_elsewhere() {
    let place = Place::new();
    let made = place.jackfield(["plugins", "new", "pinned", "--api", "0.1", "--json"]).ok();
    let made: Value = serde_json::from_str(&made).unwrap();
    assert!(
        made["files"].as_array().unwrap().iter().all(|file| !file.as_str().unwrap().starts_with("vendor")),
        "{made}"
    );
    let manifest = std::fs::read_to_string(place.path().join("pinned/Cargo.toml")).unwrap();
    assert!(manifest.contains("jackfield-plugin-api = \"0.1\""), "{manifest}");
}
