//! What an operator does before and around a server: looks whether all is there, writes a configuration, stops it.

use std::{fs, net::TcpListener};

use serde_json::Value;

use crate::run::Place;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}

#[test]
fn the_version_is_a_line_for_people_and_an_object_for_programs() {
    let place = Place::new();
    assert_eq!(place.jackfield(["version"]).ok(), format!("jackfield {}\n", env!("CARGO_PKG_VERSION")));
    let version = json(&place.jackfield(["version", "--json"]).ok());
    assert_eq!((&version["version"], &version["protocol"]), (&Value::from(env!("CARGO_PKG_VERSION")), &"1.66".into()));
}

#[test]
fn a_configuration_to_begin_with_can_be_used_and_is_never_overwritten() {
    let place = Place::new();
    let path = place.jackfield(["config", "init"]).ok();
    let path = std::path::Path::new(path.trim());
    assert!(path.ends_with("config/jackfield/config.toml"), "{path:?}");
    assert!(fs::read_to_string(path).unwrap().contains("# port = 8787"));
    place.jackfield(["config", "check"]).ok();
    fs::write(path, "[server]\nport = 1234\n").unwrap();
    assert!(place.jackfield(["config", "init"]).fails_with(1).contains("is left as it is"));
    assert_eq!(fs::read_to_string(path).unwrap(), "[server]\nport = 1234\n");
    let shown = place.jackfield(["config", "show", "--origin"]).ok();
    let port = shown.lines().find(|line| line.starts_with("server.port ")).unwrap();
    assert!(port.contains("1234") && port.contains("config.toml"), "{port}");
    let schema = json(&place.jackfield(["config", "schema"]).ok());
    assert_eq!(schema["properties"]["server"]["properties"]["port"]["default"], 8787);
}

#[test]
fn the_doctor_finds_nothing_wrong_where_nothing_is() {
    let place = Place::new();
    let said = place.jackfield(["doctor", "--model", "offline", "--port", "0"]).ok();
    for check in ["configuration", "exposure", "port", "state folder", "plugins", "python", "model"] {
        assert!(said.lines().any(|line| line.starts_with("ok") && line.contains(check)), "{check} is not in\n{said}");
    }
}

#[test]
fn the_doctor_says_what_is_missing_and_its_exit_code_says_what_kind_of_thing() {
    let place = Place::new();
    let without_key = place.jackfield(["doctor", "--port", "0"]);
    assert_eq!(without_key.code, Some(7), "{without_key:?}");
    assert!(without_key.output.contains("SMOOAI_GATEWAY_KEY"), "{without_key:?}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let busy = place.jackfield(["doctor", "--json", "--model", "offline", "--port", &port]);
    assert_eq!(busy.code, Some(4), "{busy:?}");
    let report = json(&busy.output);
    assert_eq!(report["ok"], false);
    let finding = report["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == "port").unwrap();
    assert_eq!(finding["status"], "fail");
    assert!(finding["do"].as_str().unwrap().contains("--port"), "{finding}");

    let open = place.jackfield(["doctor", "--model", "offline", "--bind", "0.0.0.0", "--port", "0"]);
    assert_eq!(open.code, Some(4), "{open:?}");
    assert!(open.output.contains("--allow-unauthenticated"), "{open:?}");

    let folder = place.path().join("plugins");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("libbroken.so"), "no library").unwrap();
    let broken =
        place.jackfield(["doctor", "--model", "offline", "--port", "0", "--plugins", folder.to_str().unwrap()]);
    assert_eq!(broken.code, Some(4), "{broken:?}");
    assert!(broken.output.contains("libbroken"), "{broken:?}");

    fs::write(place.path().join("jackfield.toml"), "[sever]\nport = 1\n").unwrap();
    let unreadable = place.jackfield(["doctor"]);
    assert_eq!(unreadable.code, Some(3), "{unreadable:?}");
    assert!(unreadable.output.contains("sever"), "{unreadable:?}");
}

#[test]
fn the_doctor_finds_a_server_of_ours_on_the_port() {
    let place = Place::new();
    let mut server = place.start(["demo", "--port", "0"]);
    let line = server.says("listening on");
    let port = line.trim_end_matches("/ws").rsplit(':').next().unwrap().to_owned();
    let said = place.jackfield(["doctor", "--model", "offline", "--port", &port]).ok();
    assert!(said.contains("taken by a server of yours"), "{said}");
    #[cfg(unix)]
    server.stop();
}
