//! Arguments made from a schema: the smallest that fit, many that fit and stretch it, and some that do not. Pure, and
//! the same for the same seed.

use serde_json::{Map, Value, json};

/// How deep references and nested values are followed.
const DEPTH_MAX: usize = 6;
/// Texts at the edges of what code expects.
const TEXTS: [&str; 9] = ["", " ", "a", "…", "line\nbreak", "0", "null", "../../etc/passwd", "🙂 é \u{301}"];
/// Length of the long text.
const LONG_TEXT: usize = 8 * 1024;
/// Numbers at the edges of what code expects.
const NUMBERS: [i64; 9] = [0, 1, -1, 2, 255, 256, -40_000, i32::MAX as i64 + 1, i64::MAX];

/// A source of numbers that always gives the same ones for the same seed (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() { None } else { choices.get(self.below(choices.len())) }
    }
}

/// The smallest arguments that fit the schema, as far as can be told; what cannot be made up is left out.
pub fn smallest_arguments(schema: &Value) -> Value {
    Maker { root: schema, dice: None }.value(schema, 0).unwrap_or_else(|| json!({}))
}

/// Arguments that fit the schema, as far as can be told, and stretch it.
pub(crate) fn fitting(schema: &Value, dice: &mut Dice) -> Value {
    Maker { root: schema, dice: Some(dice) }.value(schema, 0).unwrap_or_else(|| json!({}))
}

/// Arguments with one thing wrong: a property missing, of another type, or unknown.
pub(crate) fn spoilt(schema: &Value, dice: &mut Dice) -> Value {
    let mut arguments = smallest_arguments(schema);
    let Some(map) = arguments.as_object_mut() else { return Value::Null };
    let names: Vec<String> =
        schema["properties"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    match (dice.below(3), dice.one_of(&names)) {
        (0, Some(name)) => {
            map.remove(name);
        }
        (1, Some(name)) => {
            let kind = schema["properties"][name]["type"].as_str().unwrap_or_default();
            let wrong = if matches!(kind, "object" | "array") { json!(7) } else { json!([{ "not": ["expected"] }]) };
            map.insert(name.clone(), wrong);
        }
        _ => {
            map.insert("nobody_knows_this".to_owned(), json!({ "deep": [null] }));
        }
    }
    arguments
}

struct Maker<'a> {
    root: &'a Value,
    /// Without dice the smallest value is made.
    dice: Option<&'a mut Dice>,
}

impl Maker<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        if let Some(pointer) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            let root = self.root;
            return self.value(root.pointer(pointer)?, depth + 1);
        }
        if let Some(value) = schema.get("const") {
            return Some(value.clone());
        }
        if let Some(choices) = schema["enum"].as_array() {
            return self.choice(choices).cloned();
        }
        let alternatives = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
        if let Some(alternatives) = alternatives.filter(|_| schema["properties"].is_null()) {
            let chosen = self.choice(alternatives)?;
            return self.value(chosen, depth + 1);
        }
        let kind = match &schema["type"] {
            Value::String(kind) => kind.clone(),
            Value::Array(kinds) => self.choice(kinds)?.as_str()?.to_owned(),
            _ if schema["properties"].is_object() => "object".to_owned(),
            _ => "string".to_owned(),
        };
        match kind.as_str() {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "string" => Some(Value::String(self.text(schema)?)),
            "integer" => Some(self.integer(schema)),
            "number" => Some(self.number(schema)),
            "boolean" => Some(Value::Bool(self.chance(2))),
            _ => Some(Value::Null),
        }
    }

    fn choice<'c>(&mut self, choices: &'c [Value]) -> Option<&'c Value> {
        match &mut self.dice {
            Some(dice) => dice.one_of(choices),
            None => choices.first(),
        }
    }

    /// True once in so many times; never for the smallest value.
    fn chance(&mut self, once_in: usize) -> bool {
        self.dice.as_mut().is_some_and(|dice| dice.below(once_in) == 0)
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Option<Value> {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut map = Map::new();
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.contains(&name.as_str());
            if !is_required && !self.chance(2) {
                continue;
            }
            match self.value(inner, depth + 1) {
                Some(value) => {
                    map.insert(name.clone(), value);
                }
                None if is_required => return None,
                None => {}
            }
        }
        Some(Value::Object(map))
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Option<Value> {
        let least = usize::try_from(schema["minItems"].as_u64().unwrap_or(0)).ok()?.min(64);
        let most = schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(least + 3);
        let count = match &mut self.dice {
            Some(dice) => least + dice.below(most.saturating_sub(least).min(3) + 1),
            None => least,
        };
        (0..count).map(|_| self.value(&schema["items"], depth + 1)).collect::<Option<Vec<_>>>().map(Value::Array)
    }

    /// `None` where a pattern asks for a text of its own and gives no example.
    fn text(&mut self, schema: &Value) -> Option<String> {
        let example = [&schema["examples"][0], &schema["default"]].into_iter().find_map(Value::as_str);
        if let Some(example) = example.filter(|_| !self.chance(3) || schema.get("pattern").is_some()) {
            return Some(example.to_owned());
        }
        if schema.get("pattern").is_some() {
            return None;
        }
        if let Some(example) = schema["format"].as_str().and_then(of_format) {
            return Some(example.to_owned());
        }
        let long = self.chance(12);
        let text = match &mut self.dice {
            _ if long => "x".repeat(LONG_TEXT),
            Some(dice) => (*dice.one_of(&TEXTS)?).to_owned(),
            None => "text".to_owned(),
        };
        let least = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).ok()?.min(LONG_TEXT);
        let most = schema["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let padded = text.chars().chain(std::iter::repeat('x')).take(text.chars().count().max(least).min(most));
        Some(padded.collect())
    }

    fn integer(&mut self, schema: &Value) -> Value {
        let bound = |key: &str, whole: i64| {
            schema[key].as_i64().or_else(|| schema[key].as_f64().map(|bound| bound as i64)).unwrap_or(whole)
        };
        let least = bound("minimum", i64::MIN);
        let most = bound("maximum", i64::MAX);
        let wished = match &mut self.dice {
            Some(dice) => *dice.one_of(&NUMBERS).unwrap_or(&1),
            None => 1,
        };
        json!(wished.min(most).max(least))
    }

    fn number(&mut self, schema: &Value) -> Value {
        let (least, most) =
            (schema["minimum"].as_f64().unwrap_or(f64::MIN), schema["maximum"].as_f64().unwrap_or(f64::MAX));
        let wished: f64 = match &mut self.dice {
            Some(dice) => [0.0, 1.0, -1.5, 0.1, 1e9, -1e300][dice.below(6)],
            None => 1.0,
        };
        json!(wished.min(most).max(least))
    }
}

fn of_format(format: &str) -> Option<&'static str> {
    Some(match format {
        "date-time" => "2026-01-31T12:00:00Z",
        "date" => "2026-01-31",
        "time" => "12:00:00Z",
        "duration" => "PT1H",
        "email" => "ann@example.com",
        "uri" | "url" => "https://example.com/",
        "uuid" => "00000000-0000-4000-8000-000000000000",
        "ipv4" => "127.0.0.1",
        "ipv6" => "::1",
        "hostname" => "example.com",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 3},
                "count": {"type": "integer", "minimum": 2, "maximum": 9},
                "unit": {"enum": ["C", "F"]},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "when": {"type": ["string", "null"], "format": "date"},
                "next": {"$ref": "#/$defs/Node"},
            },
            "required": ["name", "count", "unit", "tags"],
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
        })
    }

    #[test]
    fn the_smallest_has_what_is_required() {
        assert_eq!(smallest_arguments(&schema()), json!({"name": "text", "count": 2, "unit": "C", "tags": ["text"]}));
        assert_eq!(smallest_arguments(&json!({"type": "object"})), json!({}));
        let patterned = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^x$"}}});
        assert_eq!(smallest_arguments(&patterned), json!({}));
    }

    #[test]
    fn what_fits_stays_within_its_bounds_and_comes_again() {
        let (schema, mut dice) = (schema(), Dice::new(1));
        let made: Vec<Value> = (0..200).map(|_| fitting(&schema, &mut dice)).collect();
        for arguments in &made {
            let count = arguments["count"].as_i64().expect("a number");
            assert!((2..=9).contains(&count), "{arguments}");
            assert!(arguments["name"].as_str().expect("a text").chars().count() >= 3, "{arguments}");
            assert!(!arguments["tags"].as_array().expect("a list").is_empty());
        }
        assert!(made.iter().any(|arguments| arguments.get("when").is_some()));
        assert!(made.iter().any(|arguments| arguments["name"].as_str().is_some_and(|name| name.len() > 1000)));
        let mut again = Dice::new(1);
        assert!(made.iter().all(|arguments| *arguments == fitting(&schema, &mut again)));
    }

    #[test]
    fn what_is_spoilt_differs_from_the_smallest_arguments() {
        let (schema, mut dice) = (schema(), Dice::new(7));
        let kinds = (0..50).map(|_| spoilt(&schema, &mut dice));
        assert!(kinds.filter(|arguments| *arguments != smallest_arguments(&schema)).count() > 20);
    }

    #[test]
    fn an_endless_schema_ends() {
        let endless = json!({"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]});
        assert_eq!(smallest_arguments(&endless), json!({}));
        fitting(&endless, &mut Dice::new(3));
    }
}
