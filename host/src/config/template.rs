//! A configuration file to begin with, and the JSON Schema of such files for editors. Both are made from the list of
//! settings, so that neither can miss one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    ServerConfig,
    agent_keys::AgentKey,
    keys::{PluginKey, Target},
    limits::LimitKind,
};

const HEAD: &str = "\
# Settings of Jackfield. What is commented out is the default; `jackfield config show --origin` tells what holds and why.
# For editors: `jackfield config schema > jackfield.schema.json`, and then as the first line of this file
#:schema ./jackfield.schema.json
# A secret is never written here: say env:NAME or file:PATH.
";

const PLUGIN: &str = "
# Settings of one plugin, by its id.
# [plugins.hello]
# ask = \"by-effect\"
# [plugins.hello.config]
# greeting = \"hello\"
";

/// A file in which every setting stands with its default, commented out.
pub fn template() -> String {
    let defaults = ServerConfig::default();
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut order = Vec::new();
    for target in Target::fixed() {
        let name = target.name();
        let (section, key) = name.split_once('.').expect("a setting is in a section");
        let text = sections.entry(section.to_owned()).or_insert_with(|| {
            order.push(section.to_owned());
            String::new()
        });
        if let Some(flag) = target.flag() {
            text.push_str(&format!("# {flag}\n"));
        }
        match target.show(&defaults) {
            Value::Null => text.push_str(&format!("# {key} =\n")),
            value => text.push_str(&format!("# {key} = {}\n", toml_text(&value))),
        }
    }
    let mut whole = HEAD.to_owned();
    for section in order {
        whole.push_str(&format!("\n[{section}]\n{}", sections[&section]));
    }
    whole + PLUGIN
}

/// Strings, numbers, booleans and lists of them are written the same way in both languages.
fn toml_text(value: &Value) -> String {
    value.to_string()
}

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn file_schema() -> Value {
    let defaults = ServerConfig::default();
    let mut sections: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for target in Target::fixed() {
        let name = target.name();
        let (section, key) = name.split_once('.').expect("a setting is in a section");
        sections.entry(section.to_owned()).or_default().insert(key.to_owned(), schema_of(&target, &defaults));
    }
    let named = |keys: Vec<&str>| {
        let properties: Map<String, Value> = keys.into_iter().map(|key| (key.to_owned(), json!({}))).collect();
        json!({"type": "object", "properties": properties, "additionalProperties": false})
    };
    let mut properties: Map<String, Value> = Map::new();
    for (section, keys) in sections {
        let others = match section.as_str() {
            "plugins" => named(PluginKey::ALL.map(PluginKey::name).into()),
            _ => json!(false),
        };
        properties.insert(section, json!({"type": "object", "properties": keys, "additionalProperties": others}));
    }
    let agent = named(AgentKey::ALL.map(AgentKey::name).into());
    properties.insert("agents".to_owned(), json!({"type": "object", "additionalProperties": agent}));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of Jackfield",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn schema_of(target: &Target, defaults: &ServerConfig) -> Value {
    let default = target.show(defaults);
    let mut schema = match target {
        Target::Limit(limit) => match limit.kind {
            LimitKind::Duration => json!({"type": "string", "pattern": "^[0-9.]+ *[a-z]+$", "examples": ["30s"]}),
            LimitKind::Size => json!({"type": ["string", "integer"], "examples": ["64KiB"]}),
            LimitKind::Count(min) => json!({"type": "integer", "minimum": min}),
        },
        _ => match &default {
            Value::String(_) => json!({"type": "string"}),
            Value::Bool(_) => json!({"type": "boolean"}),
            Value::Number(_) => json!({"type": "number"}),
            // A list of one may be written without brackets.
            Value::Array(_) => json!({"type": ["array", "string"], "items": {"type": "string"}}),
            // Absent by default, so that the default does not tell what it is.
            Value::Null | Value::Object(_) => json!({}),
        },
    };
    let names: Vec<String> = target.flag().into_iter().chain(target.env_names()).collect();
    schema["description"] = json!(format!("Also {}.", names.join(", ")));
    if !default.is_null() {
        schema["default"] = default;
    }
    schema
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{FileKind, SourceFile, Sources};

    fn load(text: String) -> ServerConfig {
        let file = SourceFile { kind: FileKind::User, path: "/etc/jackfield.toml".into(), text };
        Sources { files: vec![file], ..Sources::default() }.load().unwrap().config
    }

    /// The template with every default written out.
    fn uncommented() -> String {
        let is_setting = |line: &str| line.starts_with("# ") && line.contains(" = ") && !line.contains("hello");
        let lines = template()
            .lines()
            .take_while(|line| !line.contains("Settings of one plugin"))
            .map(|line| if is_setting(line) { line.trim_start_matches("# ").to_owned() } else { line.to_owned() })
            .collect::<Vec<_>>();
        lines.join("\n")
    }

    #[test]
    fn the_template_changes_nothing_commented_out_or_not() {
        assert_eq!(load(template()), ServerConfig::default());
        let text = uncommented();
        assert!(text.contains("\nport = 8787") && text.contains("\nshutdown = \"30s\""), "{text}");
        assert_eq!(load(text), ServerConfig::default());
    }

    #[test]
    fn the_schema_takes_the_template_and_refuses_what_is_unknown() {
        let schema = file_schema();
        let validator = jsonschema::options().build(&schema).unwrap();
        let document: toml::Table = uncommented().parse().unwrap();
        let document = serde_json::to_value(document).unwrap();
        let problems: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{problems:?}");
        for wrong in [
            json!({"server": {"prot": 1}}),
            json!({"limits": {"shutdown": 30}}),
            json!({"plugins": {"hello": {"asks": "always"}}}),
            json!({"sever": {}}),
        ] {
            assert!(!validator.is_valid(&wrong), "{wrong}");
        }
        assert!(validator.is_valid(&json!({"plugins": {"hello": {"ask": "always", "config": {"a": 1}}}})));
    }
}
