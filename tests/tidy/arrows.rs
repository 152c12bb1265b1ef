//! Which module of the host may use which: only what stands left of it, so that the life of a frame can be followed in
//! one direction.

use crate::sources::{self, Source};

/// The layers, from data to wiring. A module may use every layer to its left.
const LAYERS: &[&[&str]] = &[
    &["ids", "clock", "config", "outbound", "state_folder"],
    &["metrics"],
    &["protocol"],
    &["outgoing"],
    &["storage", "knowledge", "model", "auth", "otp", "run_file"],
    &["plugins", "connectors"],
    &["tools", "worker"],
    &["turn", "workbench"],
    &["actions"],
    &["socket", "http"],
    &["server"],
];

/// Uses inside one layer, each in one direction only.
const INSIDE: &[(&str, &str)] = &[
    ("config", "ids"),
    ("outbound", "config"),
    ("auth", "storage"),
    ("otp", "storage"),
    ("knowledge", "model"),
    ("http", "socket"),
];

#[test]
fn modules_use_only_what_stands_left_of_them() {
    let host: Vec<Source> = sources::product().into_iter().filter(|source| is_library(&source.path)).collect();
    assert!(host.len() > 20, "the host's files were not found");
    let wrong: Vec<String> = host.iter().flat_map(|source| wrong_arrows(&source.path, &source.shipped())).collect();
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

/// The library's modules; the crate's root wires them, and the binary stands outside.
fn is_library(path: &str) -> bool {
    let binary = ["main.rs", "telemetry.rs", "lib.rs"].map(|file| format!("host/src/{file}"));
    path.starts_with("host/src/") && !path.starts_with("host/src/cli/") && !binary.iter().any(|file| path == file)
}

fn wrong_arrows(path: &str, code: &str) -> Vec<String> {
    let module = module_path(path);
    let from = module.first().cloned().unwrap_or_default();
    let mut used = names_after(code, "crate::");
    used.extend(names_after(code, &"super::".repeat(module.len())));
    used.sort();
    used.dedup();
    let wrong = used.into_iter().filter(|to| !allowed(&from, to));
    wrong.map(|to| format!("{path}: {from} may not use {to}")).collect()
}

fn allowed(from: &str, to: &str) -> bool {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    match (layer(from), layer(to)) {
        (Some(left), Some(right)) => from == to || right < left || INSIDE.contains(&(from, to)),
        // The root re-exports for embedders; inside, everything is named by its place.
        _ => false,
    }
}

/// `host/src/turn/run.rs` is `turn::run`, and so is `host/src/turn/run/mod.rs`.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("host/src/").trim_end_matches(".rs");
    inside.split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
}

/// The first names of the paths that start with this prefix, groups taken apart.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if prefix.is_empty()
            || before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':' || letter == '$')
        {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(heads_of_group(group)),
            None => names.extend(head(rest)),
        }
    }
    names.retain(|name| name != "super" && name != "self");
    names
}

fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut begins, mut names) = (0_usize, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if begins && !letter.is_whitespace() => {
                names.extend(head(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn head(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn an_arrow_to_the_right_is_found_however_it_is_written() {
    for code in [
        "use crate::turn::Turn;",
        "use crate::{ids::TurnId, turn::{run::Run, Turn}};",
        "fn f() -> crate::turn::Turn {}",
        "use super::super::turn::Turn;",
        "use crate::{\n    config::Limits,\n    turn,\n};",
    ] {
        assert_eq!(
            wrong_arrows("host/src/storage/memory.rs", code),
            ["host/src/storage/memory.rs: storage may not use turn"]
        );
    }
    for code in [
        "use crate::{ids::TurnId, config::{Limits, ServerConfig}};",
        "use super::Row;",
        "use crate::storage::Row;",
        "$crate::turn::x!()",
        "other_crate::turn::x()",
    ] {
        assert_eq!(wrong_arrows("host/src/storage/memory.rs", code), Vec::<String>::new(), "{code}");
    }
    assert_eq!(wrong_arrows("host/src/ids.rs", "use crate::config::Limits;").len(), 1);
    assert_eq!(wrong_arrows("host/src/new_module.rs", "use crate::ids::TurnId;").len(), 1);
}
