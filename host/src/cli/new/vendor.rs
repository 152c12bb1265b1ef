//! The author's crates as this binary carries them, put beside a plugin: their sources as they are, and a workspace
//! around them that holds what their own `Cargo.toml` files inherit.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// Paths below our workspace, with what is there.
const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/author_sources.rs"));
/// Our workspace's own `Cargo.toml`.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");
/// The folders of the crates.
const MEMBERS: [&str; 2] = ["plugin-api", "plugin-api/abi"];
/// On top of the workspace's file.
const HEAD: &str = "# The crates that a Jackfield plugin is written against, as they came with `jackfield plugins new`.\n\
                    # They need no change; a newer `jackfield` brings newer ones, and old ones go on working.\n\n";

/// One file to be written, with its path below the folder of vendored crates.
pub(super) struct Vendored {
    pub(super) path: &'static str,
    pub(super) text: String,
}

/// Everything that goes into the folder of vendored crates.
pub(super) fn files() -> Vec<Vendored> {
    let sources = SOURCES.iter().map(|(path, text)| Vendored { path, text: (*text).to_owned() });
    sources.chain([Vendored { path: "Cargo.toml", text: workspace() }]).collect()
}

/// The names of a crate's dependencies, without those of its tests.
pub(super) fn dependencies_of(member: &str) -> Vec<String> {
    let manifest = manifest_of(member);
    let names = manifest.get("dependencies").and_then(Value::as_table).map(|table| table.keys().cloned().collect());
    names.unwrap_or_default()
}

fn manifest_of(member: &str) -> Table {
    let path = format!("{member}/Cargo.toml");
    let text = SOURCES.iter().find(|(found, _)| *found == path).map(|(_, text)| *text);
    let text = text.expect("each of the author's crates has a Cargo.toml");
    text.parse().expect("cargo has read the same file")
}

/// Our workspace's settings around the author's crates alone.
fn workspace() -> String {
    let mut manifest: Table = WORKSPACE.parse().expect("cargo has read the same file");
    let mut workspace = match manifest.remove("workspace") {
        Some(Value::Table(workspace)) => workspace,
        _ => unreachable!("our Cargo.toml is a workspace's"),
    };
    workspace.insert("members".to_owned(), MEMBERS.map(Value::from).to_vec().into());
    workspace.remove("default-members");
    workspace.remove("exclude");
    if let Some(Value::Table(dependencies)) = workspace.get_mut("dependencies") {
        let inherited = inherited_names();
        dependencies.retain(|name, _| inherited.contains(name));
    }
    let kept: Table = [("workspace".to_owned(), Value::Table(workspace))].into_iter().collect();
    format!("{HEAD}{}", toml::to_string_pretty(&kept).expect("what was TOML is TOML"))
}

/// The dependencies that the crates take from their workspace.
fn inherited_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for manifest in MEMBERS.map(manifest_of) {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(Value::Table(dependencies)) = manifest.get(section) else { continue };
            let is_inherited = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
            names.extend(dependencies.iter().filter(|(_, value)| is_inherited(value)).map(|(name, _)| name.clone()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_crates_are_there_whole() {
        let files = files();
        let has = |path: &str| files.iter().any(|file| file.path == path && !file.text.is_empty());
        for path in
            ["plugin-api/Cargo.toml", "plugin-api/build.rs", "plugin-api/src/lib.rs", "plugin-api/abi/src/lib.rs"]
        {
            assert!(has(path), "{path}");
        }
        assert!(!files.iter().any(|file| file.path.starts_with("plugin-api/tests/")));
    }

    #[test]
    fn the_workspace_holds_what_is_inherited_and_nothing_else() {
        let text = workspace();
        let manifest: Table = text.parse().expect("TOML");
        let workspace = &manifest["workspace"];
        assert_eq!(workspace["members"].as_array().map(Vec::len), Some(2));
        let dependencies = workspace["dependencies"].as_table().expect("a table");
        assert!(dependencies.contains_key("serde") && dependencies.contains_key("jackfield-plugin-abi"), "{text}");
        assert!(!dependencies.contains_key("jackfield") && !dependencies.contains_key("uuid"), "{text}");
        assert!(workspace["lints"].get("rust").is_some() && workspace["package"].get("edition").is_some());
        assert!(manifest.get("profile").is_none(), "profiles are the plugin's own");
    }
}
