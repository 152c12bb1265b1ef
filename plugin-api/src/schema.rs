//! From an argument type to the schema a model reads, and from a model's arguments to a value of that type.

use std::{
    any::TypeId,
    collections::HashMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use serde_path_to_error::Segment;

use crate::ToolError;

/// The JSON Schema of `A`: draft 2020-12, sub-schemas written in place, nothing a model has no use for.
///
/// It is made once for each type, since tools are asked for it at every turn.
pub(crate) fn schema_of<A: JsonSchema + 'static>() -> Value {
    static MADE: Mutex<Option<HashMap<TypeId, Value>>> = Mutex::new(None);
    // Held for the making of one schema, which runs the author's `JsonSchema` only; a panic in it leaves the map whole.
    let known = MADE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .and_then(|map| map.get(&TypeId::of::<A>()).cloned());
    if let Some(schema) = known {
        return schema;
    }
    let schema = make_schema::<A>();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.get_or_insert_default().insert(TypeId::of::<A>(), schema.clone());
    schema
}

fn make_schema<A: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    drop_number_formats(&mut schema);
    if let Value::Object(top) = &mut schema {
        top.remove("title");
        complete_top_level(top);
    }
    schema
}

/// A model's provider wants an object schema with properties on top. An enum of structs has its alternatives there,
/// and a struct without fields nothing; both get what is missing.
fn complete_top_level(top: &mut Map<String, Value>) {
    let is_object = |schema: &Value| schema.get("type").is_some_and(|kind| kind == "object");
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| top.get(*key)?.as_array());
    if !top.contains_key("type") && alternatives.is_some_and(|schemas| schemas.iter().all(is_object)) {
        top.insert("type".into(), json!("object"));
    }
    if top.get("type").is_some_and(|kind| kind == "object") {
        top.entry("properties").or_insert_with(|| json!({}));
    }
}

/// Removes `"format": "uint8"` and its kin, which are no formats of JSON Schema and which some providers refuse.
fn drop_number_formats(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_number = |format: &Value| {
                format.as_str().is_some_and(|format| {
                    format == "float" || format == "double" || format.starts_with("int") || format.starts_with("uint")
                })
            };
            if map.get("format").is_some_and(is_number) {
                map.remove("format");
            }
            for (key, inner) in map {
                // Below these keys are the author's values, not schemas.
                if !matches!(key.as_str(), "const" | "default" | "enum" | "examples") {
                    drop_number_formats(inner);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(drop_number_formats),
        _ => {}
    }
}

/// Reads arguments; what does not fit is told with its place, what was expected and what came.
pub(crate) fn parse<A: DeserializeOwned>(arguments: Value) -> Result<A, ToolError> {
    deserialize(arguments).map_err(|(pointer, error)| {
        ToolError::InvalidArguments(match pointer.as_str() {
            "" => format!("invalid arguments: {error}"),
            pointer => format!("invalid argument at {pointer}: {error}"),
        })
    })
}

/// As [`parse`], from JSON text. The way over a value is taken only to say what is wrong.
pub(crate) fn parse_json<A: DeserializeOwned>(arguments: &[u8]) -> Result<A, ToolError> {
    match serde_json::from_slice(arguments) {
        Ok(arguments) => Ok(arguments),
        Err(_) => parse(parse_value(arguments)?),
    }
}

/// Reads JSON text.
pub(crate) fn parse_value(arguments: &[u8]) -> Result<Value, ToolError> {
    serde_json::from_slice(arguments)
        .map_err(|error| ToolError::InvalidArguments(format!("the arguments are not JSON: {error}")))
}

/// Reads a value; an error comes with the JSON pointer of its place.
pub(crate) fn deserialize<T: DeserializeOwned>(value: Value) -> Result<T, (String, serde_json::Error)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut pointer = String::new();
        for segment in error.path() {
            let _ = match segment {
                Segment::Seq { index } => write!(pointer, "/{index}"),
                Segment::Map { key } => write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1")),
                Segment::Enum { variant } => write!(pointer, "/{variant}"),
                Segment::Unknown => write!(pointer, "/?"),
            };
        }
        (pointer, error.into_inner())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, dead_code)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Inner {
        /// How many
        count: u8,
        format: Option<String>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Args {
        /// Who to greet
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}

    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "op", rename_all = "snake_case")]
    enum Choice {
        Add { left: f64 },
        Clear,
    }

    #[test]
    fn a_schema_is_flat_and_has_no_noise() {
        let schema = schema_of::<Args>();
        assert_eq!(
            schema,
            json!({
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "Who to greet"},
                    "inner": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "count": {"type": "integer", "minimum": 0, "maximum": 255, "description": "How many"},
                                "format": {"type": ["string", "null"]}
                            },
                            "required": ["count"]
                        }
                    }
                },
                "required": ["name"]
            })
        );
        assert_eq!(schema_of::<Args>(), schema, "the second time it comes from memory");
    }

    #[test]
    fn the_top_level_is_always_an_object_with_properties() {
        assert_eq!(schema_of::<Nothing>(), json!({"type": "object", "properties": {}}));
        let choice = schema_of::<Choice>();
        assert_eq!(choice["type"], "object");
        assert_eq!(choice["oneOf"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_wrong_argument_is_named_with_what_was_expected_and_what_came() {
        let message = |value| parse::<Args>(value).err().unwrap().message().to_owned();
        assert_eq!(message(json!({})), "invalid arguments: missing field `name`");
        assert_eq!(
            message(json!({"name": 3})),
            "invalid argument at /name: invalid type: integer `3`, expected a string"
        );
        assert_eq!(
            message(json!({"name": "a", "inner": [{"count": 1}, {"count": 300}]})),
            "invalid argument at /inner/1/count: invalid value: integer `300`, expected u8"
        );
        assert!(message(json!("text")).starts_with("invalid arguments: invalid type: string"));

        let from_text = |text: &str| parse_json::<Args>(text.as_bytes()).err().unwrap().message().to_owned();
        assert_eq!(from_text(r#"{"name":3}"#), message(json!({"name": 3})), "the same words whichever way it came");
        assert!(from_text("{").starts_with("the arguments are not JSON"));
        assert_eq!(parse_json::<Args>(br#"{"name":"Ann","inner":[{"count":1}]}"#).unwrap().inner.len(), 1);
    }
}
