//! What a tool's description must look like, for this host and for the providers of models. Pure.
//!
//! Rationale: a provider refuses a *whole request* for one name or schema it does not like, so what would be refused is
//! worth knowing before a user sees it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Finding, Severity};
use crate::ToolSchema;

/// Longest name that every provider takes.
const NAME_LEN_MAX: usize = 64;
/// Longest description that OpenAI takes, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Every request carries every tool, so this much of one is worth a word.
const SPEC_BYTES_GOOD: usize = 4 * 1024;
/// A host offers no larger one unless its limits say so.
const SPEC_BYTES_MAX: usize = 64 * 1024;
/// How deep a schema is followed.
const DEPTH_MAX: usize = 64;
/// How many places of one kind a finding names.
const PLACES_NAMED: usize = 3;
/// Keywords that no provider takes at the top level of a tool's parameters.
const TOP_LEVEL_REFUSED: [&str; 5] = ["oneOf", "anyOf", "allOf", "enum", "not"];
/// What Gemini's own form of schemas has fields for.
const GEMINI_KEYWORDS: [&str; 24] = [
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "default",
    "items",
    "minItems",
    "maxItems",
    "enum",
    "properties",
    "propertyOrdering",
    "required",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "$ref",
    "$defs",
];

/// Whose rules a tool is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provider {
    /// OpenAI, and most gateways that speak like it.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini, whose schemas are a subset.
    Gemini,
}

impl Provider {
    /// All of them.
    pub const ALL: [Provider; 3] = [Provider::OpenAi, Provider::Anthropic, Provider::Gemini];

    /// The name on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::OpenAi => "openai",
            Provider::Anthropic => "anthropic",
            Provider::Gemini => "gemini",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Provider::ALL.into_iter().find(|provider| provider.as_str().eq_ignore_ascii_case(text.trim()));
        found.ok_or_else(|| format!("expected one of openai, anthropic, gemini, got {text:?}"))
    }
}

/// Whether a character is invisible or steers how others are shown: such characters can hide words from the person who
/// reads a description and show them to the model.
pub fn is_hidden_character(character: char) -> bool {
    match character {
        '\n' | '\t' | '\r' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{e0000}'..='\u{e007f}' => true,
        character => character.is_control(),
    }
}

/// Everything that is wrong with one tool's description, or one line that nothing is.
pub fn lint(tool: &ToolSchema, providers: &[Provider]) -> Vec<Finding> {
    let mut lint = Lint { tool, findings: Vec::new() };
    lint.name(providers);
    lint.description(providers);
    lint.top_level();
    lint.size();
    let mut walk = Walk::default();
    walk.schema(&tool.parameters, "", 0);
    lint.walked(&walk, providers);
    if lint.findings.is_empty() {
        let names: Vec<&str> = providers.iter().map(|provider| provider.as_str()).collect();
        lint.add(Severity::Pass, "schema", format!("fits this host and {}", names.join(", ")));
    }
    lint.findings
}

struct Lint<'a> {
    tool: &'a ToolSchema,
    findings: Vec<Finding>,
}

impl Lint<'_> {
    fn add(&mut self, severity: Severity, check: &str, text: String) {
        self.findings.push(Finding::new(severity, check, &self.tool.name, text));
    }

    fn name(&mut self, providers: &[Provider]) {
        let name = &self.tool.name;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(fits) {
            let text = format!(
                "the name {name:?} is not offered to models, which take 1 to {NAME_LEN_MAX} of A-Z, a-z, 0-9, _ and -; rename it"
            );
            self.add(Severity::Fail, "name", text);
        } else if providers.contains(&Provider::Gemini)
            && !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        {
            let text = format!("gemini wants a letter or _ at the beginning of the name {name:?}; rename it");
            self.add(Severity::Warn, "name", text);
        }
    }

    fn description(&mut self, providers: &[Provider]) {
        let (description, chars) = (&self.tool.description, self.tool.description.chars().count());
        if description.trim().is_empty() {
            let text = "it has no description, so the model can only guess when to call it; say in a sentence or two what it does";
            self.add(Severity::Warn, "description", text.to_owned());
        }
        if chars > DESCRIPTION_CHARS_MAX && providers.contains(&Provider::OpenAi) {
            let text = format!(
                "openai refuses requests with a description of more than {DESCRIPTION_CHARS_MAX} characters, this one has {chars}; shorten it"
            );
            self.add(Severity::Fail, "description", text);
        }
    }

    fn top_level(&mut self) {
        let Some(map) = self.tool.parameters.as_object() else {
            let text = "the schema of the arguments is no object; give the arguments as a struct".to_owned();
            return self.add(Severity::Fail, "schema", text);
        };
        if map.get("type").and_then(Value::as_str) != Some("object") {
            let text = "the schema's top level is not of type \"object\"; give the arguments as a struct".to_owned();
            self.add(Severity::Fail, "schema", text);
        }
        if let Some(keyword) = TOP_LEVEL_REFUSED.iter().find(|keyword| map.contains_key(**keyword)) {
            let text = format!(
                "the schema has \"{keyword}\" at its top level, which providers refuse; put the enum into a field of a struct"
            );
            self.add(Severity::Fail, "schema", text);
        }
    }

    fn size(&mut self) {
        let parameters = self.tool.parameters.to_string().len();
        let bytes = self.tool.name.len() + self.tool.description.len() + parameters;
        if bytes > SPEC_BYTES_MAX {
            let text = format!(
                "name, description and schema have {bytes} bytes, a host offers at most {SPEC_BYTES_MAX}; shorten them"
            );
            self.add(Severity::Fail, "size", text);
        } else if bytes > SPEC_BYTES_GOOD {
            let text = format!(
                "name, description and schema have {bytes} bytes, and every request carries them; up to {SPEC_BYTES_GOOD} is good"
            );
            self.add(Severity::Warn, "size", text);
        }
    }

    fn walked(&mut self, walk: &Walk, providers: &[Provider]) {
        let description_hides = self.tool.description.contains(is_hidden_character);
        if description_hides || !walk.hidden.is_empty() {
            let place = if description_hides { "the description".to_owned() } else { places(&walk.hidden) };
            let text = format!("{place} holds invisible characters, which a host removes; remove them");
            self.add(Severity::Fail, "description", text);
        }
        if !walk.far_references.is_empty() {
            let text = format!(
                "{} refers to another document, which a host does not fetch; write it in place",
                places(&walk.far_references)
            );
            self.add(Severity::Fail, "schema", text);
        }
        if walk.too_deep {
            let text = format!("the schema is nested more than {DEPTH_MAX} deep; flatten it");
            self.add(Severity::Fail, "schema", text);
        }
        if providers.contains(&Provider::Anthropic) && !walk.odd_keys.is_empty() {
            let text = format!(
                "anthropic refuses requests with such a property name: {}; it takes 1 to 64 of A-Z, a-z, 0-9, _, . and -, rename the field",
                places(&walk.odd_keys)
            );
            self.add(Severity::Fail, "schema", text);
        }
        if providers.contains(&Provider::Gemini) {
            self.gemini(walk);
        }
    }

    /// Many gateways translate these for Gemini, hence no more than warnings.
    fn gemini(&mut self, walk: &Walk) {
        let of = [
            (
                &walk.type_lists,
                "has a list of types, which gemini's own form of schemas cannot say; an `Option` field with `#[schemars(with = \"T\")]` is of one type",
            ),
            (
                &walk.odd_keywords,
                "is a keyword that gemini's own form of schemas does not know, so that a gateway may drop it or refuse the request",
            ),
            (&walk.untyped_enums, "has choices that are no texts, and gemini takes texts only"),
            (
                &walk.arrays_without_items,
                "is an array that does not say what of, and gemini refuses it; give it a type of its own",
            ),
        ];
        for (found, text) in of {
            if !found.is_empty() {
                self.add(Severity::Warn, "schema", format!("{} {text}", places(found)));
            }
        }
    }
}

/// What a walk through a schema met, by place.
#[derive(Default)]
struct Walk {
    hidden: Vec<String>,
    far_references: Vec<String>,
    odd_keys: Vec<String>,
    type_lists: Vec<String>,
    odd_keywords: Vec<String>,
    untyped_enums: Vec<String>,
    arrays_without_items: Vec<String>,
    too_deep: bool,
}

impl Walk {
    fn schema(&mut self, schema: &Value, place: &str, depth: usize) {
        let Value::Object(map) = schema else { return };
        if depth > DEPTH_MAX {
            self.too_deep = true;
            return;
        }
        self.keywords(map, place);
        for (key, inner) in map {
            let here = format!("{place}/{key}");
            match key.as_str() {
                "properties" | "$defs" | "definitions" | "patternProperties" | "dependentSchemas" => {
                    for (name, inner) in inner.as_object().into_iter().flatten() {
                        let here = format!("{here}/{name}");
                        if key == "properties" && !is_plain_key(name) {
                            self.odd_keys.push(here.clone());
                        }
                        self.schema(inner, &here, depth + 1);
                    }
                }
                "items" | "additionalProperties" | "not" | "if" | "then" | "else" | "contains" | "propertyNames" => {
                    self.schema(inner, &here, depth + 1);
                }
                "oneOf" | "anyOf" | "allOf" | "prefixItems" => {
                    for (index, inner) in inner.as_array().into_iter().flatten().enumerate() {
                        self.schema(inner, &format!("{here}/{index}"), depth + 1);
                    }
                }
                _ => {}
            }
        }
    }

    fn keywords(&mut self, map: &Map<String, Value>, place: &str) {
        let shown = |key: &str| format!("{place}/{key}");
        for key in ["description", "title"] {
            if map.get(key).and_then(Value::as_str).is_some_and(|text| text.contains(is_hidden_character)) {
                self.hidden.push(shown(key));
            }
        }
        if map.get("$ref").and_then(Value::as_str).is_some_and(|reference| !reference.starts_with('#')) {
            self.far_references.push(shown("$ref"));
        }
        if map.get("type").is_some_and(Value::is_array) {
            self.type_lists.push(shown("type"));
        }
        let odd = map.keys().filter(|key| !GEMINI_KEYWORDS.contains(&key.as_str()) && *key != "additionalProperties");
        self.odd_keywords.extend(odd.map(|key| shown(key)));
        let choices = map.get("enum").and_then(Value::as_array);
        if choices.is_some_and(|choices| !choices.iter().all(Value::is_string)) {
            self.untyped_enums.push(shown("enum"));
        }
        if map.get("type").and_then(Value::as_str) == Some("array") && !map.contains_key("items") {
            self.arrays_without_items.push(if place.is_empty() { "/".to_owned() } else { place.to_owned() });
        }
    }
}

fn is_plain_key(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn places(found: &[String]) -> String {
    let named = found.iter().take(PLACES_NAMED).map(|place| place.chars().take(120).collect::<String>());
    let mut text = named.collect::<Vec<_>>().join(", ");
    if found.len() > PLACES_NAMED {
        text.push_str(&format!(" and {} more", found.len() - PLACES_NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(tool: &ToolSchema) -> Vec<(Severity, String)> {
        lint(tool, &Provider::ALL).into_iter().map(|finding| (finding.severity, finding.text)).collect()
    }

    fn parameters(parameters: Value) -> Vec<(Severity, String)> {
        found(&ToolSchema::new("tool", "Does something.", parameters))
    }

    #[test]
    fn a_plain_tool_passes() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "description": "What"}}, "required": ["a"], "additionalProperties": false});
        let passed = parameters(schema);
        assert_eq!(passed, [(Severity::Pass, "fits this host and openai, anthropic, gemini".to_owned())]);
    }

    #[test]
    fn what_every_provider_refuses_fails() {
        let cases = [
            (ToolSchema::new("fs.read", "Reads.", json!({"type": "object"})), "rename it"),
            (ToolSchema::new("a", "x".repeat(1025), json!({"type": "object"})), "1025"),
            (ToolSchema::new("a", "Reads\u{200b}.", json!({"type": "object"})), "invisible"),
            (ToolSchema::new("a", "Reads.", json!([])), "no object"),
            (ToolSchema::new("a", "Reads.", json!({"type": "string"})), "not of type"),
            (ToolSchema::new("a", "Reads.", json!({"type": "object", "oneOf": []})), "\"oneOf\""),
            (ToolSchema::new("a", "Reads.", json!({"type": "object", "description": "x".repeat(70_000)})), "at most"),
            (ToolSchema::new("a", "Reads.", json!({"type": "object", "properties": {"a b": {}}})), "/properties/a b"),
            (
                ToolSchema::new("a", "Reads.", json!({"type": "object", "properties": {"a": {"$ref": "x.json"}}})),
                "another document",
            ),
        ];
        for (tool, expected) in cases {
            let found = found(&tool);
            let fits = |(severity, text): &(Severity, String)| *severity == Severity::Fail && text.contains(expected);
            assert!(found.iter().any(fits), "{expected}: {found:?}");
        }
    }

    #[test]
    fn what_gemini_cannot_say_is_a_warning_with_its_place() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": ["string", "null"]}, "b": {"const": 1}, "c": {"enum": [1, 2]}, "d": {"type": "array"}
        }});
        let warned = parameters(schema.clone());
        assert!(warned.iter().all(|(severity, _)| *severity == Severity::Warn), "{warned:?}");
        for place in ["/properties/a/type", "/properties/b/const", "/properties/c/enum", "/properties/d"] {
            assert!(warned.iter().any(|(_, text)| text.contains(place)), "{place}: {warned:?}");
        }
        let others = lint(&ToolSchema::new("tool", "Does.", schema), &[Provider::OpenAi, Provider::Anthropic]);
        assert_eq!(others.len(), 1, "the others take all of it: {others:?}");
    }

    #[test]
    fn places_are_named_up_to_three() {
        let names: Vec<String> = (0..5).map(|index| format!("/{index}")).collect();
        assert_eq!(places(&names), "/0, /1, /2 and 2 more");
    }

    #[test]
    fn emoji_and_line_breaks_are_no_hidden_characters() {
        assert!(!"line\n\ttwo 🙂 é".contains(is_hidden_character));
        for hidden in ["\u{202e}", "\u{2066}", "\u{e0041}", "\u{feff}", "\u{1b}"] {
            assert!(hidden.contains(is_hidden_character), "{hidden:?}");
        }
    }

    #[test]
    fn providers_are_read_by_name() {
        assert_eq!("OpenAI".parse(), Ok(Provider::OpenAi));
        assert!("mistral".parse::<Provider>().is_err_and(|error| error.contains("anthropic")));
    }
}
