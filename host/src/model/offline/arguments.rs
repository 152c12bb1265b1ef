//! Arguments for a tool from a plain text, as far as they are obvious. Pure; it fills only what the text says.

use serde_json::{Map, Value, json};

/// The required parameters of a schema, in its order.
pub(super) fn required(schema: &Value) -> Vec<&str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The parameters in one line: `order_id: string, reason?: string`.
pub(super) fn summary(schema: &Value) -> String {
    let required = required(schema);
    let all = schema["properties"].as_object().into_iter().flatten();
    let (mut needed, mut optional) = (Vec::new(), Vec::new());
    for (name, property) in all {
        let kind = type_of(property);
        match required.contains(&name.as_str()) {
            true => needed.push(format!("{name}: {kind}")),
            false => optional.push(format!("{name}?: {kind}")),
        }
    }
    needed.append(&mut optional);
    needed.join(", ")
}

/// The arguments that the text gives; `rest` is what follows the tool's name. `Err` lists what is required and missing.
pub(super) fn from_text(schema: &Value, text: &str, rest: &str) -> Result<Map<String, Value>, Vec<String>> {
    if let Some(given) = json_object(text) {
        return Ok(given);
    }
    let no_properties = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&no_properties);
    let mut arguments: Map<String, Value> = properties
        .iter()
        .filter_map(|(name, property)| Some((name.clone(), named_value(name, property, text)?)))
        .collect();
    let required = required(schema);
    let is_missing = |name: &&str| !arguments.contains_key(*name);
    let missing: Vec<&str> = required.iter().copied().filter(is_missing).collect();
    // One parameter and one thing said: they belong together.
    let only = match missing[..] {
        [only] => Some(only),
        [] if properties.len() == 1 && arguments.is_empty() => properties.keys().next().map(String::as_str),
        _ => None,
    };
    if let Some(only) = only
        && let Some(value) = properties.get(only).and_then(|property| unnamed_value(property, rest))
    {
        arguments.insert(only.to_owned(), value);
    }
    let missing: Vec<String> =
        required.iter().filter(|name| !arguments.contains_key(**name)).map(|name| (*name).to_owned()).collect();
    if missing.is_empty() { Ok(arguments) } else { Err(missing) }
}

/// The first JSON object in the text.
fn json_object(text: &str) -> Option<Map<String, Value>> {
    let from = text.find('{')?;
    match serde_json::Deserializer::from_str(&text[from..]).into_iter::<Value>().next()? {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}

/// The value that stands behind a parameter's name: `order_id=7`, `order id: 7`, `order 7`, `reason "too late"`.
fn named_value(name: &str, property: &Value, text: &str) -> Option<Value> {
    let spaced = name.replace(['_', '-'], " ");
    let short = spaced.strip_suffix(" id").unwrap_or(&spaced).to_owned();
    let after = [name, &spaced, &short].into_iter().find_map(|spelling| after_word(text, spelling))?;
    let after = skip_any(after.trim_start(), &["=", ":", "#", "is ", "number ", "no. ", "to "]);
    value_of(property, first_value(after)?)
}

/// The value of the only parameter, from what follows the tool's name.
fn unnamed_value(property: &Value, rest: &str) -> Option<Value> {
    if let Some(options) = property["enum"].as_array() {
        return options
            .iter()
            .find(|option| option.as_str().is_some_and(|option| after_word(rest, option).is_some()))
            .cloned();
    }
    match type_of(property) {
        "string" => {
            let quoted = rest.find(['"', '\'', '`']).and_then(|from| first_value(&rest[from..]));
            let said =
                skip_any(rest.trim_start(), &["tool ", "with ", "for ", "about ", "on ", "in ", "of ", "to ", ": "]);
            let said = said.trim().trim_end_matches(['.', '?', '!', ',']);
            quoted.or(Some(said)).filter(|said| !said.is_empty()).map(|said| json!(said))
        }
        "integer" | "number" => rest.split_whitespace().find_map(|word| value_of(property, word)),
        _ => None,
    }
}

/// What follows a word that stands alone in the text, whatever its case.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.char_indices().find_map(|(at, _)| {
        let found = text.get(at..at + word.len())?;
        let rest = &text[at + word.len()..];
        let stands_alone = !text[..at].ends_with(is_part) && !rest.starts_with(is_part);
        (found.eq_ignore_ascii_case(word) && stands_alone).then_some(rest)
    })
}

fn skip_any<'a>(text: &'a str, openers: &[&str]) -> &'a str {
    openers
        .iter()
        .find_map(|opener| text.strip_prefix(opener))
        .map_or(text, |rest| skip_any(rest.trim_start(), openers))
}

/// A quoted text, or the first word without the punctuation around it.
fn first_value(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'));
    let value = match quote {
        Some(quote) => text[1..].split(quote).next(),
        None => text.split([' ', '\n', '\t', ',', ';']).next().map(|word| word.trim_end_matches(['.', '?', '!', ')'])),
    };
    value.filter(|value| !value.is_empty())
}

fn value_of(property: &Value, text: &str) -> Option<Value> {
    match type_of(property) {
        "string" => Some(json!(text)),
        "integer" => text.trim_end_matches(['.', ',', '?', '!']).parse::<i64>().ok().map(|number| json!(number)),
        "number" => text.trim_end_matches(['.', ',', '?', '!']).parse::<f64>().ok().map(|number| json!(number)),
        "boolean" => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" => Some(json!(true)),
            "false" | "no" | "off" => Some(json!(false)),
            _ => None,
        },
        _ => None,
    }
}

/// The type of a property; of several, the first that is not null.
fn type_of(property: &Value) -> &str {
    match &property["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("any"),
        _ if property["enum"].is_array() => "string",
        _ => "any",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({ "type": "object", "required": ["order_id"], "properties": {
            "order_id": { "type": "string" },
            "count": { "type": ["integer", "null"] },
            "urgent": { "type": "boolean" },
        } })
    }

    fn filled(text: &str) -> Value {
        Value::Object(from_text(&schema(), text, "").unwrap())
    }

    #[test]
    fn values_follow_their_names() {
        assert_eq!(filled("order_id=7"), json!({ "order_id": "7" }));
        assert_eq!(filled("the order id is A-7, count: 3."), json!({ "order_id": "A-7", "count": 3 }));
        assert_eq!(filled("Order number \"7 b\" urgent yes"), json!({ "order_id": "7 b", "urgent": true }));
        assert_eq!(filled("do it {\"order_id\": \"9\"} now"), json!({ "order_id": "9" }));
    }

    #[test]
    fn one_parameter_takes_what_was_said() {
        let text = json!({ "required": ["query"], "properties": { "query": { "type": "string" }, "limit": {} } });
        let from = |rest| from_text(&text, rest, rest).map(Value::Object);
        assert_eq!(from(" for late parcels?").unwrap(), json!({ "query": "late parcels" }));
        assert_eq!(from(" with \"late parcels\" please").unwrap(), json!({ "query": "late parcels" }));
        assert_eq!(from(" "), Err(vec!["query".to_owned()]));
        let optional = json!({ "properties": { "zone": { "type": "string" } } });
        let from = |rest| from_text(&optional, rest, rest).map(Value::Object);
        assert_eq!(from(" in Europe/Vienna").unwrap(), json!({ "zone": "Europe/Vienna" }));
        assert_eq!(from("").unwrap(), json!({}));
        let number = json!({ "required": ["n"], "properties": { "n": { "type": "integer" } } });
        assert_eq!(from_text(&number, "", " with 12.").unwrap()["n"], json!(12));
        let option = json!({ "required": ["unit"], "properties": { "unit": { "enum": ["km", "mile"] } } });
        assert_eq!(from_text(&option, "", " in Mile").unwrap()["unit"], json!("mile"));
    }

    #[test]
    fn the_summary_names_what_is_needed_first() {
        assert_eq!(summary(&schema()), "order_id: string, count?: integer, urgent?: boolean");
        assert_eq!(summary(&Value::Null), "");
    }
}
