//! A plugin's own configuration, `[plugins.ID.config]`: held against the schema in its manifest before the plugin is
//! made, so that a slip of the finger is told with the key it is in and not found out at the first call. Fields that
//! the schema calls secret are given as references, and get their values here. Pure.
//!
//! A field is secret when its schema says `"secret": true` or `"writeOnly": true`. Keys that the schema does not know
//! are errors, unless it says `"additionalProperties": true`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jackfield_plugin_api::GatewayKey;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::config::{SecretReferences, nearest};

/// Steps a pattern may go back in one match; a plugin's pattern must not hold up the server.
const PATTERN_STEPS: usize = 100_000;
/// How deep a schema is followed.
const DEPTH_MAX: usize = 32;
/// Faults named in one reason.
const FAULTS_NAMED: usize = 3;

/// A configuration that fits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepared {
    /// What the plugin is handed.
    pub(super) config: Value,
    /// The secrets in it.
    pub(super) secrets: Vec<GatewayKey>,
}

/// Checks a configuration and puts the secrets in. Without a schema it is handed on as it is.
///
/// # Errors
///
/// Which key is wrong, what was expected and what came; never a secret's value.
pub(super) fn prepare(
    id: &str,
    config: &Value,
    schema: Option<&Value>,
    references: &SecretReferences,
) -> Result<Prepared, String> {
    let mut config = if config.is_null() { Value::Object(Map::new()) } else { config.clone() };
    let Some(schema) = schema else { return Ok(Prepared { config, secrets: Vec::new() }) };
    let place = format!("plugins.{id}.config");
    let mut walk = Walk { root: schema, references, secrets: Vec::new() };
    walk.object(schema, &mut config, &place, 0)?;
    let secrets = walk.secrets;
    let validator = validator(schema).map_err(|error| {
        format!("the schema of its configuration (config_schema) is not valid: {error}; its author has to correct it")
    })?;
    let faults: Vec<String> = validator
        .iter_errors(&config)
        .take(FAULTS_NAMED)
        // A value may be a secret, so it is never shown.
        .map(|error| format!("{}: {}", key(&place, error.instance_path().as_str()), error.masked()))
        .collect();
    if faults.is_empty() { Ok(Prepared { config, secrets }) } else { Err(faults.join("; ")) }
}

fn validator(schema: &Value) -> Result<Validator, String> {
    let build = || {
        jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(PATTERN_STEPS))
            .build(schema)
            .map_err(|error| error.to_string())
    };
    // The schema is foreign input to a large library.
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err("the validator cannot handle it".to_owned()))
}

/// The key of a JSON pointer, as a configuration file writes it.
fn key(place: &str, pointer: &str) -> String {
    format!("{place}{}", pointer.replace('/', "."))
}

/// Goes through schema and configuration side by side.
struct Walk<'a> {
    root: &'a Value,
    references: &'a SecretReferences,
    secrets: Vec<GatewayKey>,
}

impl<'a> Walk<'a> {
    fn object(&mut self, schema: &'a Value, config: &mut Value, place: &str, depth: usize) -> Result<(), String> {
        let schema = self.followed(schema);
        let (Some(properties), Value::Object(map)) = (schema["properties"].as_object(), config) else { return Ok(()) };
        let is_open = !matches!(schema.get("additionalProperties"), None | Some(Value::Bool(false)));
        for (name, value) in map {
            let here = format!("{place}.{name}");
            match properties.get(name) {
                Some(property) if is_secret(self.followed(property)) => self.secret(value, &here)?,
                Some(property) if depth < DEPTH_MAX => self.object(property, value, &here, depth + 1)?,
                Some(_) => {}
                None if is_open => {}
                None => return Err(unknown(&here, name, properties)),
            }
        }
        Ok(())
    }

    /// What a local reference stands for.
    fn followed(&self, schema: &'a Value) -> &'a Value {
        let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    fn secret(&mut self, value: &mut Value, place: &str) -> Result<(), String> {
        let expected = format!("{place}: expected a reference env:NAME or file:PATH, because it is a secret");
        let reference = value.as_str().ok_or_else(|| format!("{expected}, got something else (not shown)"))?;
        match self.references.get(reference) {
            Some(Ok(secret)) => {
                self.secrets.push(secret.clone());
                *value = secret.reveal().into();
                Ok(())
            }
            Some(Err(reason)) => Err(format!("{place}: {reason}")),
            None => Err(format!("{expected}, got the secret itself (not shown)")),
        }
    }
}

fn is_secret(schema: &Value) -> bool {
    schema["secret"] == true || schema["writeOnly"] == true
}

fn unknown(place: &str, name: &str, properties: &Map<String, Value>) -> String {
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("unknown setting {place}; did you mean {near}?"),
        None => format!("unknown setting {place}; there are {}", names.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "zone": {"type": "string"},
                "limit": {"type": "integer", "minimum": 1},
                "key": {"type": "string", "secret": true},
                "server": {"$ref": "#/$defs/Server"},
            },
            "additionalProperties": false,
            "$defs": {"Server": {"type": "object", "properties": {"token": {"type": "string", "writeOnly": true}}}},
        })
    }

    fn prepared(config: Value) -> Result<Prepared, String> {
        let references = SecretReferences::from([
            ("env:KEY".to_owned(), Ok(GatewayKey::new("s3cret"))),
            ("env:NONE".to_owned(), Err("expected a variable that is set, got env:NONE".to_owned())),
        ]);
        prepare("clock", &config, Some(&schema()), &references)
    }

    #[test]
    fn what_fits_is_handed_on_with_its_secrets() {
        assert_eq!(prepared(Value::Null).unwrap().config, json!({}));
        let given = json!({"zone": "env:KEY", "key": "env:KEY", "server": {"token": "env:KEY"}});
        let found = prepared(given).unwrap();
        // Only where the schema says so: elsewhere the same text is a text.
        assert_eq!(found.config, json!({"zone": "env:KEY", "key": "s3cret", "server": {"token": "s3cret"}}));
        assert_eq!(found.secrets.len(), 2);
        let any = json!({"whatever": 1});
        assert_eq!(prepare("x", &any, None, &SecretReferences::new()).unwrap().config, any);
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_key_and_never_its_value() {
        let reason = |config| prepared(config).unwrap_err();
        assert_eq!(reason(json!({"zonne": "UTC"})), "unknown setting plugins.clock.config.zonne; did you mean zone?");
        assert!(reason(json!({"colour": 1})).contains("there are key, limit, server, zone"));
        assert!(reason(json!({"server": {"tokn": "x"}})).contains("config.server.tokn; did you mean token?"));
        let text = reason(json!({"limit": "hunter2"}));
        assert!(text.starts_with("plugins.clock.config.limit: ") && !text.contains("hunter2"), "{text}");
        assert!(reason(json!({"limit": 0})).contains("config.limit"));
        let text = reason(json!({"key": "hunter2"}));
        assert!(text.contains("env:NAME or file:PATH") && !text.contains("hunter2"), "{text}");
        assert!(reason(json!({"key": "env:NONE"})).contains("env:NONE"));
        assert!(reason(json!({"key": 7})).contains("not shown"));
    }

    #[test]
    fn a_schema_that_is_none_is_its_authors_fault() {
        let error = prepare("x", &json!({}), Some(&json!({"type": "wat"})), &SecretReferences::new()).unwrap_err();
        assert!(error.contains("its author has to correct it"), "{error}");
    }
}
