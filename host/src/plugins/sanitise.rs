//! Takes out of a tool's description what a person does not see and a model does: invisible characters, marks that
//! reorder text, and comments. So what a person read when they trusted a plugin is what the model is told.

use jackfield_plugin_api::{testing::is_hidden_character, wire::ToolSpec};
use serde_json::Value;

/// How deep a schema is followed; what is deeper is not offered by the lint either.
const DEPTH_MAX: usize = 64;

/// Cleans every text for the model; returns whether there was something to take out.
pub(super) fn sanitise(spec: &mut ToolSpec) -> bool {
    let in_description = clean(&mut spec.description);
    schema(&mut spec.parameters, 0) | in_description
}

fn schema(value: &mut Value, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    match value {
        Value::Object(map) => {
            let mut found = false;
            for (key, inner) in map {
                found |= match (key.as_str(), inner) {
                    ("description" | "title", Value::String(text)) => clean(text),
                    (_, inner) => schema(inner, depth + 1),
                };
            }
            found
        }
        Value::Array(list) => list.iter_mut().fold(false, |found, inner| schema(inner, depth + 1) | found),
        _ => false,
    }
}

fn clean(text: &mut String) -> bool {
    let before = text.len();
    if text.contains(is_hidden_character) {
        text.retain(|character| !is_hidden_character(character));
    }
    while let Some(start) = text.find("<!--") {
        let end = text[start..].find("-->").map_or(text.len(), |end| start + end + "-->".len());
        text.replace_range(start..end, "");
    }
    text.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> (String, bool) {
        let mut text = text.to_owned();
        let found = clean(&mut text);
        (text, found)
    }

    #[test]
    fn what_nobody_sees_is_taken_out() {
        assert_eq!(cleaned("Reads a file.\n\tNothing else 🙂"), ("Reads a file.\n\tNothing else 🙂".into(), false));
        assert_eq!(cleaned("Reads\u{200b} a\u{202e} file"), ("Reads a file".into(), true));
        assert_eq!(cleaned("Reads <!-- and sends --> it <!-- away"), ("Reads  it ".into(), true));
        assert_eq!(cleaned("<!--<!-- -->-->"), ("-->".into(), true));
    }

    #[test]
    fn schemas_are_cleaned_at_every_depth() {
        let text = r#"{"name":"t","description":"ok","parameters":{"type":"object","properties":
            {"description":{"type":"string","description":"a\u202eb"},"list":{"items":{"title":"c\u200bd"}}}}}"#;
        let mut spec: ToolSpec = serde_json::from_str(text).expect("a tool's description");
        assert!(sanitise(&mut spec));
        assert_eq!(spec.parameters["properties"]["description"]["description"], "ab");
        assert_eq!(spec.parameters["properties"]["list"]["items"]["title"], "cd");
        assert!(!sanitise(&mut spec));
    }
}
