//! Asking a human before a tool runs: what the question says, and what each answer means for the call.
//!
//! The tool behind a rejected, expired or unattended confirmation never runs. The question shows what is about to
//! happen in a form that the arguments cannot forge, and never a value that looks like a secret.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::park::{ParkEnd, ParkLimits, Verdict};
use crate::{
    config::Limits,
    tools::{AskReason, PreparedCall, ToolCallResult},
};

/// Longest value in a question, in characters; the rest is counted.
const VALUE_CHARS: usize = 400;
/// How deep objects and lists are spread over lines; what is deeper is one line of JSON.
const DEPTH_MAX: usize = 4;
/// Parts of key names whose values are not shown.
const SECRET_KEYS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
    "cookie",
    "sessionid",
];
/// What stands in for a secret.
const MASK: &str = "***";

/// The question for one call: the tool, why it is asked, and the arguments as `key: value` lines.
pub(crate) fn question(call: &PreparedCall, reason: &AskReason, limits: &Limits) -> String {
    let facts = &call.tool.facts;
    let why = match reason {
        AskReason::NamePattern(pattern) => format!("its name contains \"{pattern}\""),
        AskReason::Effect(effect) => format!("effect: {}", effect.as_str()),
        AskReason::PluginSetting => "every call of this plugin is confirmed".to_owned(),
    };
    let head = format!("Allow the assistant to run {}? ({}, {why})", facts.wire_name, facts.origin);
    bounded(&head, &argument_lines(&call.arguments), limits.confirmation_chars)
}

/// How long a confirmation may take. `comes_back` is set for a session that declared that it resumes its turns.
pub(crate) fn confirmation_limits(limits: &Limits, comes_back: bool) -> ParkLimits {
    ParkLimits { total: limits.confirmation, unattended: (!comes_back).then_some(limits.confirmation_unattended) }
}

/// What the end of the wait means: `Ok` when the call may run, otherwise its result.
pub(crate) fn settle(tool: &str, end: ParkEnd<Verdict>) -> Result<(), ToolCallResult> {
    let text = match end {
        ParkEnd::Answered(Verdict::Approved) => return Ok(()),
        ParkEnd::Answered(Verdict::Rejected) => format!(
            "the user declined to let {tool} run; it did not run. Do not call it again for this; say what was not done, \
             or ask what to do instead"
        ),
        ParkEnd::Expired(after) => format!(
            "nobody confirmed {tool} within {} s, so the request timed out; it did not run. Say that it still waits for \
             the user's decision",
            after.as_secs()
        ),
        ParkEnd::Unattended(after) => format!(
            "no user was connected for {} s to confirm {tool}, so the request timed out; it did not run",
            after.as_secs()
        ),
    };
    Err(ToolCallResult::denied(text))
}

/// Every argument on a line of its own, nested ones with their path.
fn argument_lines(arguments: &Map<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in arguments {
        add_lines(&clean(key), key, value, 1, &mut lines);
    }
    lines
}

fn add_lines(path: &str, key: &str, value: &Value, depth: usize, lines: &mut Vec<String>) {
    if is_secret(key) {
        lines.push(format!("{path}: {MASK}"));
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() && depth < DEPTH_MAX => {
            for (key, value) in map {
                add_lines(&format!("{path}.{}", clean(key)), key, value, depth + 1, lines);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) && depth < DEPTH_MAX => {
            for (index, item) in items.iter().enumerate() {
                add_lines(&format!("{path}[{index}]"), "", item, depth + 1, lines);
            }
        }
        Value::String(text) => lines.push(format!("{path}: {}", shortened(&clean(text)))),
        other => lines.push(format!("{path}: {}", shortened(&clean(&masked(other).to_string())))),
    }
}

/// The value with everything under a secret-looking key replaced.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), if is_secret(key) { MASK.into() } else { masked(value) }))
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(items) => items.iter().map(masked).collect(),
        scalar => scalar.clone(),
    }
}

fn is_secret(key: &str) -> bool {
    let key: String =
        key.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    SECRET_KEYS.iter().any(|secret| key.contains(secret))
}

/// One line of visible text. A value must not be able to begin a line of its own, to turn the direction of reading
/// round, or to hide behind characters that take no room.
fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|character| match character {
            '\n' | '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => Some('⏎'),
            '\t' => Some(' '),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}' => None,
            other if other.is_control() => Some('\u{fffd}'),
            other => Some(other),
        })
        .collect()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} more characters)", &text[..end], text[end..].chars().count()),
    }
}

/// The head and as many lines as fit into `max` characters; what is missing is counted, so that nobody takes a part
/// for the whole.
fn bounded(head: &str, lines: &[String], max: usize) -> String {
    const NOTE_CHARS: usize = 40;
    let mut text = head.to_owned();
    let mut used = head.chars().count();
    for (index, line) in lines.iter().enumerate() {
        let is_last = index + 1 == lines.len();
        let needed = 1 + line.chars().count() + if is_last { 0 } else { NOTE_CHARS };
        if used + needed > max {
            write!(text, "\n… ({} more arguments are not shown)", lines.len() - index)
                .expect("writing to a string cannot fail");
            return text;
        }
        used += 1 + line.chars().count();
        text.push('\n');
        text.push_str(line);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use async_trait::async_trait;
    use jackfield_plugin_api::{CallContext, Effect, Tool, ToolError, ToolOutput, ToolSchema};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        clock::SystemClock,
        config::NameConflict,
        tools::{BuiltIn, CallOutcome, ToolCaller, Toolbox},
    };

    struct Anything;

    #[async_trait]
    impl Tool for Anything {
        fn schema(&self) -> ToolSchema {
            ToolSchema::new("close_account", "", json!({}))
        }
        async fn execute(&self, _: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
            Ok("closed".into())
        }
    }

    fn ask(arguments: &Value, reason: &AskReason) -> String {
        let limits = Limits::default();
        let built_in = BuiltIn { schema: Arc::new(Anything.schema()), tool: Arc::new(Anything) };
        let tools = Toolbox::new(NameConflict::Error, &limits).assemble(&[built_in], &[], None);
        let caller = ToolCaller::new(Arc::new(SystemClock), &limits);
        let call = caller.prepare(&tools, "close_account", &arguments.to_string()).ok().unwrap();
        question(&call, reason, &limits)
    }

    #[test]
    fn the_question_names_the_tool_the_reason_and_every_argument() {
        let arguments = json!({
            "account": 42, "notify": ["a@example.org", "b@example.org"], "options": {"now": true, "why": "moved\naway"},
            "steps": [{"do": "close"}, {"do": "delete", "token": "t0p"}], "empty": {},
        });
        assert_eq!(
            ask(&arguments, &AskReason::Effect(Effect::Destructive)),
            "Allow the assistant to run close_account? (built-in, effect: destructive)\n\
             account: 42\n\
             empty: {}\n\
             notify: [\"a@example.org\",\"b@example.org\"]\n\
             options.now: true\n\
             options.why: moved⏎away\n\
             steps[0].do: close\n\
             steps[1].do: delete\n\
             steps[1].token: ***"
        );
        let by_name = ask(&json!({}), &AskReason::NamePattern("close".to_owned()));
        assert_eq!(by_name, "Allow the assistant to run close_account? (built-in, its name contains \"close\")");
    }

    #[test]
    fn secrets_are_masked_at_every_depth() {
        let secret = "hunter2";
        let arguments = json!({
            "Password": secret, "api_key": secret, "headers": {"Authorization": secret, "X-Auth-Token": [secret]},
            "deep": {"a": {"b": {"c": {"client-secret": secret, "d": 1}}}}, "mixed": [[{"cookie": secret}]],
        });
        let text = ask(&arguments, &AskReason::PluginSetting);
        assert!(!text.contains(secret), "{text}");
        assert!(text.contains("deep.a.b.c: {\"client-secret\":\"***\",\"d\":1}"), "{text}");
    }

    #[test]
    fn a_value_cannot_forge_lines_or_hide() {
        let text = ask(&json!({"path": "a\u{202e}b\u{200b}c\r\npath: safe\u{1b}[2K"}), &AskReason::PluginSetting);
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("path: abc⏎⏎path: safe\u{fffd}[2K"), "{text}");
    }

    #[test]
    fn what_is_too_long_is_counted() {
        let text = ask(&json!({"command": format!("{}rm -rf", "x".repeat(500))}), &AskReason::PluginSetting);
        assert!(text.ends_with("x… (106 more characters)"), "{text}");
        let many: Map<String, Value> = (0..1000).map(|index| (format!("key_{index:04}"), json!(index))).collect();
        let text = ask(&many.into(), &AskReason::PluginSetting);
        assert!(text.chars().count() <= 2000, "{}", text.chars().count());
        let shown = text.lines().filter(|line| line.starts_with("key_")).count();
        assert!(text.ends_with(&format!("… ({} more arguments are not shown)", 1000 - shown)), "{text}");
    }

    #[test]
    fn only_an_approval_lets_the_call_run() {
        assert_eq!(settle("t", ParkEnd::Answered(Verdict::Approved)), Ok(()));
        let five_minutes = Duration::from_secs(300);
        for (end, word) in [
            (ParkEnd::Answered(Verdict::Rejected), "declined"),
            (ParkEnd::Expired(five_minutes), "within 300 s"),
            (ParkEnd::Unattended(five_minutes), "no user was connected"),
        ] {
            let result = settle("t", end).unwrap_err();
            assert!(result.is_error && result.text.contains(word), "{result:?}");
            assert!(result.text.contains("it did not run"), "{result:?}");
            assert_eq!(result.outcome, CallOutcome::Denied);
        }
    }

    #[test]
    fn a_session_that_comes_back_is_waited_for() {
        let limits = Limits::default();
        assert_eq!(confirmation_limits(&limits, false).unattended, Some(Duration::from_secs(60)));
        assert_eq!(confirmation_limits(&limits, true).unattended, None);
        assert_eq!(confirmation_limits(&limits, true).total, Duration::from_secs(300));
    }

    proptest! {
        #[test]
        fn a_question_is_bounded_whatever_the_arguments(lines in proptest::collection::vec(".{0,80}", 0..60), max in 100usize..900) {
            let lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
            let text = bounded("head", &lines, max);
            prop_assert!(text.chars().count() <= max);
            // Not `lines`, which does not count an empty last line.
            let shown = text.split('\n').count() - 1;
            prop_assert!(shown >= lines.len() || text.contains("are not shown"));
        }
    }
}
