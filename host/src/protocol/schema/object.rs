//! Puts the schema of an object together, key by key.

use serde_json::{Map, Value, json};

/// An object whose keys are all listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl Object {
    /// The keys of a schema that a type has given, to add more.
    pub(super) fn of(schema: Value) -> Self {
        let list = |key: &str| schema.get(key).cloned().unwrap_or_default();
        let required =
            list("required").as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let Value::Object(properties) = list("properties") else {
            panic!("the type is no struct with fields: {schema}")
        };
        Self { properties, required }
    }

    /// A key that is always there.
    #[must_use]
    pub(super) fn with(mut self, key: &'static str, schema: impl Into<Value>) -> Self {
        self.required.push(key.to_owned());
        self.maybe(key, schema)
    }

    /// A key that may be absent.
    #[must_use]
    pub(super) fn maybe(mut self, key: &'static str, schema: impl Into<Value>) -> Self {
        self.properties.insert(key.to_owned(), schema.into());
        self
    }

    /// A key that is always there in one case, and never in the other.
    #[must_use]
    pub(super) fn with_if(self, condition: bool, key: &'static str, schema: impl Into<Value>) -> Self {
        if condition { self.with(key, schema) } else { self }
    }

    /// The schema, with a sentence for whoever reads it.
    pub(super) fn described(self, description: &str) -> Value {
        let mut schema = Value::from(self);
        schema["description"] = json!(description);
        schema
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        json!({
            "type": "object",
            "properties": object.properties,
            "required": object.required,
            "additionalProperties": false,
        })
    }
}
