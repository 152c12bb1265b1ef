#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::protocol::{Action, EventFrame};

/// Checks a frame as a session with these extensions gets it.
pub(in crate::protocol) fn check(frame: &EventFrame, extensions: Extensions) {
    let text = frame.to_json(extensions.resume);
    let name = extensions.name(frame.event.type_name());
    // What an extension does not change has one schema for everybody.
    let schema = named(&name).unwrap_or_else(|| named(frame.event.type_name()).unwrap());
    let problems = problems(schema, &serde_json::from_str(&text).unwrap());
    assert!(problems.is_empty(), "{name}: {problems:?}\n{text}");
}

fn named(name: &str) -> Option<&'static Value> {
    schemas().iter().find(|frame| frame.name == name).map(|frame| &frame.schema)
}

fn problems(schema: &Value, frame: &Value) -> Vec<String> {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    validator.iter_errors(frame).map(|error| error.to_string()).collect()
}

fn is_valid(name: &str, frame: &Value) -> bool {
    problems(named(name).unwrap(), frame).is_empty()
}

#[test]
fn every_schema_is_one_of_its_dialect_and_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for frame in schemas() {
        assert!(jsonschema::draft202012::meta::is_valid(&frame.schema), "{}", frame.name);
        assert!(names.insert(&frame.name), "{} is there twice", frame.name);
    }
    for extensions in Extensions::ALL {
        assert!(names.contains(&extensions.name("event")) && names.contains(&extensions.name("stream_chunk")));
    }
    assert!(!names.contains(&"pong.resume".to_owned()) && !names.contains(&"error.tool_progress".to_owned()));
}

#[test]
fn no_object_takes_what_is_not_listed_and_no_absent_key_is_null() {
    fn walk(schema: &Value, name: &str) {
        match schema {
            Value::Object(keys) => {
                if let Some(properties) = keys.get("properties").filter(|_| keys.get("type").is_some()) {
                    assert_eq!(keys.get("additionalProperties"), Some(&json!(false)), "{name}: {schema}");
                    let required: Vec<&str> = keys
                        .get("required")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    for (key, property) in properties.as_object().unwrap() {
                        let may_be_null = property.to_string().contains("\"null\"");
                        assert!(!may_be_null || required.contains(&key.as_str()), "{name}: {key}: {property}");
                    }
                }
                keys.values().for_each(|value| walk(value, name));
            }
            Value::Array(entries) => entries.iter().for_each(|entry| walk(entry, name)),
            _ => {}
        }
    }
    for frame in schemas() {
        walk(&frame.schema, &frame.name);
    }
}

const ID: &str = "00000000-0000-4000-8000-000000000001";

/// One frame of each action with every key it may have.
fn whole_actions() -> Vec<Value> {
    vec![
        json!({"action": "ping", "requestId": "r"}),
        json!({"action": "create_conversation_session", "requestId": "r", "agentId": ID, "userName": "Bo",
            "userEmail": "bo@example.org", "browserFingerprint": "f", "metadata": {"a": 1}, "supports": ["resume"],
            "conversationId": ID, "authContext": {"userId": "u", "signature": "s", "timestamp": 1}}),
        json!({"action": "get_session", "requestId": "r", "sessionId": ID}),
        json!({"action": "get_conversation_messages", "requestId": "r", "sessionId": ID, "limit": 100, "cursor": ID,
            "before": "2026-01-05T10:00:01Z"}),
        json!({"action": "list_conversations", "requestId": "r", "limit": 200, "cursor": format!("1_{ID}"), "query": "q"}),
        json!({"action": "rename_conversation", "requestId": "r", "conversationId": ID, "title": "T"}),
        json!({"action": "send_message", "requestId": "r", "sessionId": ID, "message": "hi", "stream": false,
            "model": "m", "skill": "s-1", "images": [{"url": "data:image/png;base64,AA", "detail": "low"}],
            "files": [{"name": "a.txt", "mimeType": "text/plain", "url": "https://example.org/a.txt"}]}),
        json!({"action": "cancel", "requestId": "r", "sessionId": ID}),
        json!({"action": "confirm_tool_action", "requestId": "r", "sessionId": ID, "approved": true}),
        json!({"action": "submit_interaction", "requestId": "r", "sessionId": ID, "interactionId": "i",
            "kind": "choices", "values": {}, "declined": true}),
        json!({"action": "verify_otp", "requestId": "r", "sessionId": ID, "code": "123456"}),
        json!({"action": "resume_turn", "requestId": "r", "sessionId": ID, "turnId": ID, "afterSeq": 3}),
    ]
}

/// Whether the server takes the frame, as far as that can be said without looking anything up.
fn is_read(frame: &Value) -> bool {
    match Action::parse(&frame.to_string()) {
        Ok(read) => match read.action {
            Action::SendMessage(message) => message.validate(10_000).is_ok(),
            _ => true,
        },
        Err(_) => false,
    }
}

#[test]
fn every_action_is_described_and_its_whole_frame_is_read() {
    let whole = whole_actions();
    let described: Vec<&str> = actions::all().into_iter().map(|(name, _)| name).collect();
    let sampled: Vec<&str> = whole.iter().filter_map(|frame| frame["action"].as_str()).collect();
    assert_eq!(described, sampled);
    for frame in whole {
        let name = frame["action"].as_str().unwrap();
        assert!(is_valid(name, &frame) && is_valid("action", &frame), "{:?}", problems(named(name).unwrap(), &frame));
        assert!(is_read(&frame), "{frame}");
        let all: BTreeSet<&String> = named(name).unwrap()["properties"].as_object().unwrap().keys().collect();
        assert_eq!(all, frame.as_object().unwrap().keys().collect(), "the sample has every key");
        let mut more = frame.clone();
        more["surplus"] = json!(1);
        assert!(!is_valid(name, &more));
    }
}

#[test]
fn what_a_schema_allows_is_read_whatever_is_left_out() {
    for frame in whole_actions() {
        let name = frame["action"].as_str().unwrap();
        let required = &named(name).unwrap()["required"];
        for key in frame.as_object().unwrap().keys() {
            let mut less = frame.clone();
            less.as_object_mut().unwrap().remove(key);
            let is_required = required.as_array().unwrap().contains(&json!(key));
            assert_eq!(is_valid(name, &less), !is_required, "{key} of {name}");
            if !is_required {
                assert!(is_read(&less), "{key} of {name}");
            }
        }
        for (key, wrong) in [
            ("agentId", json!("  ")),
            ("approved", json!("true")),
            ("skill", json!("../etc")),
            ("message", json!(7)),
            ("afterSeq", json!(-1)),
        ] {
            if frame.get(key).is_some() {
                let mut changed = frame.clone();
                changed[key] = wrong;
                assert!(!is_valid(name, &changed) && !is_read(&changed), "{key} of {name}");
            }
        }
    }
    let blank = json!({"action": "send_message", "requestId": "r", "sessionId": ID, "message": " "});
    assert!(!is_valid("send_message", &blank) && !is_read(&blank));
}
