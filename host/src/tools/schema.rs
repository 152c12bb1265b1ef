//! What a tool must look like before a model may see it, and the check of a call's arguments. Pure.
//!
//! Rationale: model gateways refuse a *whole request* for one odd name or schema, so a tool that would cause that is
//! refused here, alone and with its reason. Compiling a schema costs more than a turn may spend, so each distinct
//! schema is compiled once and kept.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use jackfield_plugin_api::ToolSchema;
use jsonschema::{
    PatternOptions, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value, json};

use super::canonical::CallDigest;
use crate::config::Limits;

/// Longest name a model gateway accepts.
const NAME_CHARS: usize = 64;
/// Bytes of the hash that a mapped name ends with.
const NAME_HASH_BYTES: usize = 4;
/// Longest quotation of a schema in an error text, in characters.
const QUOTE_CHARS: usize = 200;
/// Faults named in one error text; a model repairs a few at a time.
const FAULTS_NAMED: usize = 3;
/// How deep references and nested objects are followed when an example is made.
const EXAMPLE_DEPTH: usize = 8;
/// Steps a pattern may go back in one match; a plugin's pattern must not hold up the server.
const PATTERN_STEPS: usize = 100_000;
/// Keywords that gateways refuse at the top level of a tool's parameters.
const TOP_LEVEL_REFUSED: [&str; 5] = ["oneOf", "anyOf", "allOf", "enum", "not"];

/// The name a tool goes by on the wire: its own when that is `[A-Za-z0-9_-]{1,64}`, otherwise what remains of it with
/// a hash of the whole name. The result depends on nothing but the name, so it never changes because of other tools,
/// and two different names never meet.
pub(crate) fn wire_name(name: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.len() <= NAME_CHARS && name.bytes().all(allowed) {
        return Cow::Borrowed(name);
    }
    let hash = CallDigest::of(&[name]).short_hex(NAME_HASH_BYTES);
    let kept: String = name
        .chars()
        .map(|character| if character.is_ascii() && allowed(character as u8) { character } else { '_' })
        .take(NAME_CHARS - hash.len() - 1)
        .collect();
    Cow::Owned(format!("{kept}_{hash}"))
}

/// A tool's description that passed the lint.
#[derive(Clone, Debug)]
pub(crate) struct LintedSchema {
    /// The name as the tool says it.
    pub(crate) name: String,
    /// The name as the model sees it.
    pub(crate) wire_name: String,
    /// For the model.
    pub(crate) description: String,
    /// The completed argument schema and its check.
    pub(crate) arguments: Arc<ArgumentSchema>,
}

/// Why a tool is not offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaFault {
    /// There is no name to call it by.
    #[error("the tool has no name; give it one of [A-Za-z0-9_-], at most 64 characters")]
    NoName,
    /// The top level is something else than an object schema.
    #[error(
        "the argument schema must be an object schema ({{\"type\":\"object\"}}), but it is {0}; wrap the arguments in an object"
    )]
    NotAnObject(String),
    /// Gateways refuse this keyword there.
    #[error("the argument schema uses \"{0}\" at its top level, which model gateways refuse; move it into a property")]
    TopLevel(&'static str),
    /// A request would mostly consist of this tool.
    #[error("name, description and argument schema have {bytes} bytes, the limit is {max}; shorten them")]
    TooLarge {
        /// What they have.
        bytes: usize,
        /// `Limits::tool_schema_bytes`.
        max: usize,
    },
    /// It is no valid JSON Schema.
    #[error("the argument schema is not a valid JSON Schema: {0}")]
    Invalid(String),
}

/// Lints tools and keeps their compiled schemas, also the verdict on bad ones.
#[derive(Debug)]
pub(crate) struct SchemaCache {
    bytes_max: usize,
    entries_max: usize,
    /// Held for a look-up or an insertion, never while a schema is compiled.
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_hash: HashMap<u64, (Value, Compiled)>,
    /// In the order of insertion; the front goes first.
    order: VecDeque<u64>,
}

type Compiled = Result<Arc<ArgumentSchema>, SchemaFault>;

impl SchemaCache {
    /// An empty cache.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.tool_schema_bytes,
            entries_max: limits.tool_schemas_cached.max(1),
            entries: Mutex::default(),
        }
    }

    /// Checks one tool's description.
    pub(crate) fn lint(&self, schema: ToolSchema) -> Result<LintedSchema, SchemaFault> {
        let ToolSchema { name, description, parameters, .. } = schema;
        if name.trim().is_empty() {
            return Err(SchemaFault::NoName);
        }
        let arguments = self.compiled(&parameters)?;
        let bytes = name.len() + description.len() + arguments.bytes;
        if bytes > self.bytes_max {
            return Err(SchemaFault::TooLarge { bytes, max: self.bytes_max });
        }
        let wire_name = wire_name(&name).into_owned();
        Ok(LintedSchema { name, wire_name, description, arguments })
    }

    fn compiled(&self, parameters: &Value) -> Compiled {
        let mut hasher = DefaultHasher::new();
        parameters.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some((source, compiled)) = self.lock().by_hash.get(&hash)
            && source == parameters
        {
            return compiled.clone();
        }
        let compiled = ArgumentSchema::compile(parameters, self.bytes_max).map(Arc::new);
        self.insert(hash, parameters, &compiled);
        compiled
    }

    fn insert(&self, hash: u64, parameters: &Value, compiled: &Compiled) {
        // A schema beyond the limit is refused cheaply and would only fill the memory.
        if matches!(compiled, Err(SchemaFault::TooLarge { .. })) {
            return;
        }
        let mut entries = self.lock();
        if entries.by_hash.insert(hash, (parameters.clone(), compiled.clone())).is_none() {
            entries.order.push_back(hash);
        }
        while entries.order.len() > self.entries_max {
            if let Some(oldest) = entries.order.pop_front() {
                entries.by_hash.remove(&oldest);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The argument schema of one tool, completed and compiled.
pub(crate) struct ArgumentSchema {
    /// As the model is shown it.
    parameters: Value,
    /// Its length as JSON text.
    bytes: usize,
    validator: Validator,
    /// The smallest arguments that pass, as JSON text; absent when none could be made.
    example: Option<String>,
}

impl ArgumentSchema {
    fn compile(parameters: &Value, bytes_max: usize) -> Result<Self, SchemaFault> {
        let bytes = parameters.to_string().len();
        if bytes > bytes_max {
            return Err(SchemaFault::TooLarge { bytes, max: bytes_max });
        }
        let mut parameters = completed(parameters)?;
        let validator = build_validator(&parameters)?;
        if let Some(map) = parameters.as_object_mut() {
            // It says how to read the schema, which gateways know; some refuse it.
            map.remove("$schema");
        }
        let example = minimal_example(&parameters, &validator);
        Ok(Self { parameters, bytes, validator, example })
    }

    /// The schema as the model is shown it.
    pub(crate) fn parameters(&self) -> &Value {
        &self.parameters
    }

    /// The smallest arguments that pass, as JSON text.
    pub(crate) fn example(&self) -> Option<&str> {
        self.example.as_deref()
    }

    /// Checks the arguments of one call.
    pub(crate) fn check(&self, arguments: &Value) -> Result<(), ArgumentFaults> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        let faults: Vec<String> =
            self.validator.iter_errors(arguments).take(FAULTS_NAMED).map(|error| self.describe(&error)).collect();
        Err(ArgumentFaults { faults })
    }

    /// One fault: where, what was expected, which type came. Never the value itself, which may be a secret.
    fn describe(&self, error: &ValidationError<'_>) -> String {
        let pointer = error.instance_path().as_str();
        let place = if pointer.is_empty() { "at the top level".to_owned() } else { format!("at {pointer}") };
        let got = type_name(error.instance());
        let what = match error.kind() {
            ValidationErrorKind::Type { kind: TypeKind::Single(expected) } => format!("expected {expected}, got {got}"),
            ValidationErrorKind::Type { kind: TypeKind::Multiple(expected) } => {
                let names: Vec<&str> = expected.iter().map(|expected| expected.as_str()).collect();
                format!("expected {}, got {got}", names.join(" or "))
            }
            ValidationErrorKind::Required { property } => format!("the required property {property} is missing"),
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => self.describe_unknown(unexpected, pointer),
            ValidationErrorKind::Enum { options } => format!("expected one of {}, got another {got}", quote(options)),
            ValidationErrorKind::Constant { expected_value } => {
                format!("expected {}, got another {got}", quote(expected_value))
            }
            ValidationErrorKind::Minimum { limit } => format!("expected at least {limit}, got a smaller {got}"),
            ValidationErrorKind::Maximum { limit } => format!("expected at most {limit}, got a larger {got}"),
            ValidationErrorKind::ExclusiveMinimum { limit } => format!("expected more than {limit}"),
            ValidationErrorKind::ExclusiveMaximum { limit } => format!("expected less than {limit}"),
            ValidationErrorKind::MultipleOf { multiple_of } => format!("expected a multiple of {multiple_of}"),
            ValidationErrorKind::MinLength { limit } => format!("expected at least {limit} characters"),
            ValidationErrorKind::MaxLength { limit } => format!("expected at most {limit} characters"),
            ValidationErrorKind::MinItems { limit } => format!("expected at least {limit} items"),
            ValidationErrorKind::MaxItems { limit } => format!("expected at most {limit} items"),
            ValidationErrorKind::UniqueItems => "expected items that all differ".to_owned(),
            ValidationErrorKind::Pattern { pattern } => format!("expected text that matches {}", cut(pattern)),
            ValidationErrorKind::Format { format } => format!("expected text of the format {format}"),
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                format!("the {got} has none of the {} allowed shapes", context.len())
            }
            kind => format!("the rule \"{}\" of the schema is not met", kind.keyword()),
        };
        format!("{place}: {what}")
    }

    fn describe_unknown(&self, unexpected: &[String], pointer: &str) -> String {
        let unknown: Vec<String> = unexpected.iter().take(FAULTS_NAMED).map(|name| quote(&json!(name))).collect();
        let mut text = format!("unknown property {}", unknown.join(", "));
        if let (true, Some(known)) = (pointer.is_empty(), self.parameters["properties"].as_object()) {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            text.push_str(&format!("; the known ones are {}", cut(&known.join(", "))));
        }
        text
    }
}

impl fmt::Debug for ArgumentSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ArgumentSchema").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

/// What is wrong with the arguments of one call, in words for the model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", faults.join("; "))]
pub(crate) struct ArgumentFaults {
    faults: Vec<String>,
}

/// The JSON Schema name of a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Makes the top level what gateways expect: an object schema with `type` and `properties`.
fn completed(parameters: &Value) -> Result<Value, SchemaFault> {
    let Value::Object(map) = parameters else {
        return Err(SchemaFault::NotAnObject(format!("a JSON {}", type_name(parameters))));
    };
    let mut map = inline_top_reference(map);
    if let Some(&keyword) = TOP_LEVEL_REFUSED.iter().find(|&&keyword| map.contains_key(keyword)) {
        return Err(SchemaFault::TopLevel(keyword));
    }
    let is_object = match map.get("type") {
        None => true,
        Some(Value::String(name)) => name == "object",
        // `Option<T>` of a structure: the arguments are always an object, so the other types say nothing.
        Some(Value::Array(names)) => names.iter().any(|name| name == "object"),
        Some(_) => false,
    };
    if !is_object {
        return Err(SchemaFault::NotAnObject(format!("of type {}", quote(&map["type"]))));
    }
    map.insert("type".to_owned(), json!("object"));
    map.entry("properties").or_insert_with(|| json!({}));
    Ok(Value::Object(map))
}

/// Derived schemas of recursive types have their top level in a definition; it is brought up.
fn inline_top_reference(map: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = map.clone();
    let target = map.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    if let Some(Value::Object(target)) = target.and_then(|pointer| map_pointer(map, pointer)) {
        merged.remove("$ref");
        for (key, value) in target {
            merged.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    merged
}

fn map_pointer<'a>(map: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let mut tokens = pointer.strip_prefix('/')?.splitn(2, '/');
    let first = map.get(&tokens.next()?.replace("~1", "/").replace("~0", "~"))?;
    match tokens.next() {
        Some(rest) => first.pointer(&format!("/{rest}")),
        None => Some(first),
    }
}

fn build_validator(parameters: &Value) -> Result<Validator, SchemaFault> {
    let build = || {
        jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(PATTERN_STEPS))
            .build(parameters)
            .map_err(|error| SchemaFault::Invalid(cut(&error.to_string()).into_owned()))
    };
    // The schema is foreign input to a large library; a bug there must cost one tool, not the server.
    catch_unwind(AssertUnwindSafe(build))
        .unwrap_or_else(|_| Err(SchemaFault::Invalid("the validator cannot handle it".to_owned())))
}

/// The smallest arguments that pass: shows the model what a call looks like.
fn minimal_example(parameters: &Value, validator: &Validator) -> Option<String> {
    let example = example_of(parameters, parameters, 0)?;
    let text = example.to_string();
    (text.len() <= QUOTE_CHARS && validator.is_valid(&example)).then_some(text)
}

fn example_of(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    if depth > EXAMPLE_DEPTH {
        return None;
    }
    if let Some(pointer) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        return example_of(root.pointer(pointer)?, root, depth + 1);
    }
    let given = [&schema["const"], &schema["examples"][0], &schema["default"], &schema["enum"][0]];
    if let Some(given) = given.into_iter().find(|given| !given.is_null()) {
        return Some(given.clone());
    }
    if let Some(first) = [&schema["anyOf"][0], &schema["oneOf"][0]].into_iter().find(|first| first.is_object()) {
        return example_of(first, root, depth + 1);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
    match kind {
        "object" => {
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            let properties = required
                .iter()
                .filter_map(Value::as_str)
                .map(|name| Some((name.to_owned(), example_of(&schema["properties"][name], root, depth + 1)?)));
            properties.collect::<Option<Map<String, Value>>>().map(Value::Object)
        }
        "array" => {
            let items = usize::try_from(schema["minItems"].as_u64().unwrap_or(0)).ok()?;
            if items > EXAMPLE_DEPTH {
                return None;
            }
            (0..items)
                .map(|_| example_of(&schema["items"], root, depth + 1))
                .collect::<Option<Vec<_>>>()
                .map(Value::Array)
        }
        "string" => Some(json!("…")),
        "integer" | "number" => Some(schema.get("minimum").cloned().unwrap_or_else(|| json!(1))),
        "boolean" => Some(json!(false)),
        "null" => Some(Value::Null),
        _ => None,
    }
}

fn quote(value: &Value) -> String {
    cut(&value.to_string()).into_owned()
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTE_CHARS) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache() -> SchemaCache {
        SchemaCache::new(&Limits::default())
    }

    fn lint(parameters: Value) -> Result<LintedSchema, SchemaFault> {
        cache().lint(ToolSchema::new("tool", "does something", parameters))
    }

    fn check(parameters: Value, arguments: Value) -> String {
        match lint(parameters).unwrap().arguments.check(&arguments) {
            Ok(()) => String::new(),
            Err(faults) => faults.to_string(),
        }
    }

    #[test]
    fn good_names_stay_and_others_are_mapped() {
        for name in ["a", "knowledge_search", "A-b_9", &"x".repeat(64)] {
            assert_eq!(wire_name(name), name);
        }
        let dotted = wire_name("fs.read");
        assert!(dotted.starts_with("fs_read_") && dotted.len() == "fs_read_".len() + 8, "{dotted}");
        assert_eq!(wire_name("fs.read"), dotted, "the same every time");
        assert_ne!(wire_name("fs/read"), dotted);
        let long = wire_name(&"x".repeat(65)).into_owned();
        assert_eq!(long.len(), 64);
        assert_ne!(wire_name(&"x".repeat(66)), long);
    }

    proptest! {
        #[test]
        fn every_wire_name_is_accepted_by_gateways(name in ".{0,90}", other in ".{0,90}") {
            let mapped = wire_name(&name).into_owned();
            prop_assert!((1..=64).contains(&mapped.len()));
            prop_assert!(mapped.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
            prop_assert_eq!(wire_name(&mapped), mapped.as_str(), "mapping twice changes nothing");
            prop_assert_eq!(name == other, wire_name(&name) == wire_name(&other));
        }
    }

    #[test]
    fn schemas_are_completed() {
        for parameters in [json!({}), json!({"type": "object"}), json!({"type": ["object", "null"]})] {
            let linted = lint(parameters).unwrap();
            assert_eq!(*linted.arguments.parameters(), json!({"type": "object", "properties": {}}));
        }
        let derived = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": "#/$defs/Node",
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "v": {"type": "integer"}},
                "required": ["v"]}},
        });
        let linted = lint(derived).unwrap();
        assert_eq!(linted.arguments.parameters()["type"], "object");
        assert!(linted.arguments.parameters().get("$schema").is_none());
        assert!(linted.arguments.check(&json!({"v": 1, "next": {"v": 2}})).is_ok());
        assert!(linted.arguments.check(&json!({"v": 1, "next": {"v": "2"}})).is_err());
    }

    #[test]
    fn what_gateways_refuse_is_refused_with_its_reason() {
        let reason = |parameters| lint(parameters).unwrap_err().to_string();
        assert!(reason(json!(null)).contains("a JSON null"));
        assert!(reason(json!(true)).contains("a JSON boolean"));
        assert!(reason(json!([])).contains("a JSON array"));
        assert!(reason(json!({"type": "string"})).contains("of type \"string\""));
        assert!(reason(json!({"type": 3})).contains("of type 3"));
        assert!(reason(json!({"oneOf": [{"type": "object"}]})).contains("\"oneOf\""));
        assert!(reason(json!({"type": "object", "properties": []})).contains("not a valid JSON Schema"));
        assert!(reason(json!({"type": "object", "properties": {"a": {"type": "wat"}}})).contains("not a valid"));
        assert!(reason(json!({"properties": {"a": {"pattern": "("}}})).contains("not a valid"));
        assert!(reason(json!({"properties": {"a": {"$ref": "https://example.com/x.json"}}})).contains("not a valid"));
        assert!(reason(json!({"description": "x".repeat(70_000)})).contains("the limit is 65536"));
        let nameless = cache().lint(ToolSchema::new(" ", "", json!({})));
        assert_eq!(nameless.unwrap_err(), SchemaFault::NoName);
    }

    #[test]
    fn faults_name_place_and_types_and_never_the_value() {
        let parameters = json!({
            "properties": {
                "query": {"type": "string", "minLength": 2},
                "limit": {"type": "integer", "minimum": 1, "maximum": 10},
                "unit": {"enum": ["C", "F"]},
                "tags": {"type": "array", "items": {"type": ["string", "null"]}},
            },
            "required": ["query"], "additionalProperties": false,
        });
        let say = |arguments| check(parameters.clone(), arguments);
        assert_eq!(say(json!({"query": "ok", "limit": 3, "unit": "C", "tags": ["a", null]})), "");
        assert_eq!(say(json!({})), "at the top level: the required property \"query\" is missing");
        assert_eq!(say(json!({"query": 7})), "at /query: expected string, got integer");
        assert_eq!(say(json!({"query": "ok", "limit": "hunter2"})), "at /limit: expected integer, got string");
        assert_eq!(say(json!({"query": "ok", "limit": 0})), "at /limit: expected at least 1, got a smaller integer");
        assert_eq!(say(json!({"query": "x"})), "at /query: expected at least 2 characters");
        assert_eq!(
            say(json!({"query": "ok", "unit": "hunter2"})),
            "at /unit: expected one of [\"C\",\"F\"], got another string"
        );
        assert_eq!(say(json!({"query": "ok", "tags": ["a", 1.5]})), "at /tags/1: expected null or string, got number");
        let unknown = say(json!({"query": "ok", "limt": "hunter2"}));
        assert_eq!(unknown, "at the top level: unknown property \"limt\"; the known ones are limit, query, tags, unit");
    }

    #[test]
    fn the_example_is_minimal_and_valid() {
        let example = |parameters| lint(parameters).unwrap().arguments.example().map(str::to_owned);
        assert_eq!(example(json!({})).unwrap(), "{}");
        assert_eq!(
            example(json!({"properties": {"q": {"type": "string"}, "n": {"type": "integer", "minimum": 4}, "o": {}},
                "required": ["q", "n"]}))
            .unwrap(),
            r#"{"n":4,"q":"…"}"#
        );
        assert_eq!(
            example(
                json!({"properties": {"u": {"$ref": "#/$defs/U"}}, "required": ["u"], "$defs": {"U": {"enum": ["C"]}}})
            )
            .unwrap(),
            r#"{"u":"C"}"#
        );
        // What cannot be made is left out rather than made up.
        assert_eq!(
            example(json!({"properties": {"d": {"type": "string", "pattern": "^[0-9]{4}$"}}, "required": ["d"]})),
            None
        );
        let endless = json!({"properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"],
            "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}}});
        assert_eq!(example(endless), None);
    }

    #[test]
    fn a_schema_is_compiled_once_and_the_cache_is_bounded() {
        let limits = Limits { tool_schemas_cached: 2, ..Limits::default() };
        let cache = SchemaCache::new(&limits);
        let lint = |title: &str| {
            cache.lint(ToolSchema::new("tool", "", json!({"type": "object", "title": title}))).unwrap().arguments
        };
        let first = lint("a");
        assert!(Arc::ptr_eq(&first, &lint("a")), "the second look-up finds the first");
        lint("b");
        lint("c");
        assert_eq!(cache.lock().by_hash.len(), 2);
        assert!(!Arc::ptr_eq(&first, &lint("a")), "the oldest went first");
    }
}
