//! The rules that hold for every object of every frame, laid over the schemas that the types give.

use serde_json::{Map, Value};

/// Formats that a validator knows; the others say how a number is kept in memory.
const FORMATS: &[&str] = &["uuid", "date-time"];

/// Refuses keys that are not listed and nulls for keys that may be absent, everywhere in the schema.
pub(super) fn make_strict(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if keys.get("format").is_some_and(|format| !FORMATS.iter().any(|known| format == known)) {
                keys.remove("format");
            }
            close(keys);
            keys.values_mut().for_each(make_strict);
        }
        Value::Array(entries) => entries.iter_mut().for_each(make_strict),
        _ => {}
    }
}

/// A condition on single keys is no object of its own and stays open.
fn close(schema: &mut Map<String, Value>) {
    if schema.get("type").is_none_or(|kind| kind != "object") {
        return;
    }
    let required = schema.get("required").cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (key, property) in properties {
        let is_required = required.as_array().is_some_and(|required| required.iter().any(|name| name == key));
        if !is_required {
            refuse_null(property);
        }
    }
    schema.insert("additionalProperties".to_owned(), false.into());
}

/// The types say null for what may be absent; on the wire it is left out.
fn refuse_null(schema: &mut Value) {
    let Some(keys) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = keys.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            keys.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = keys.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            keys.remove("anyOf");
            // What is said at the key is closer than what is said of the type.
            for (key, value) in only {
                keys.entry(key).or_insert(value);
            }
        }
    }
}
