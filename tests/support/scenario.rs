//! A conversation as a file: what the gateway says, what clients send, and what they read.
//!
//! ```json
//! {
//!   "about": "what this shows",
//!   "server": {"confirm": ["works"]},
//!   "gateway": [{"calls": [["works", {"n": 1}]]}, {"says": ["Done", "."], "usage": [11, 7]}],
//!   "steps": [
//!     {"send": {"action": "send_message", "requestId": "m1", "sessionId": "$session", "message": "go"}},
//!     {"expect": {"type": "immediate_response", "status": 202}},
//!     {"tokens": "Done.", "of": "m1"},
//!     {"expect": {"type": "eventual_response"}}
//!   ]
//! }
//! ```
//!
//! Frames are read in the order they come. An expected object names the keys that matter; the client checks the strict
//! shape of every frame anyway. A text `"$name"` stands for what was kept under the name, and keeps it the first time;
//! `"$any"` for anything. `{"$contains": "…"}` is a part of a text, `{"$absent": true}` a key that is not there.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    client::TestClient,
    model::{Script, script},
};

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub about: String,
    /// How the server differs from the usual one.
    #[serde(default)]
    pub server: ServerSetup,
    #[serde(default)]
    gateway: VecDeque<GatewayReply>,
    steps: Vec<Step>,
}

/// How a scenario's server differs from the usual one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSetup {
    /// Whether there is a gateway.
    pub key: bool,
    /// Whether the demo documents are there.
    pub seed: bool,
    /// Parts of names of tools that ask first.
    pub confirm: Vec<String>,
}

impl Default for ServerSetup {
    fn default() -> Self {
        Self { key: true, seed: false, confirm: Vec::new() }
    }
}

/// One reply of the gateway.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GatewayReply {
    says: Option<Vec<String>>,
    calls: Option<Vec<(String, Value)>>,
    /// Says this, then falls silent.
    hangs_after: Option<Vec<String>>,
    usage: Option<(u64, u64)>,
    after_ms: u64,
}

/// One thing that happens: exactly one of the optional parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Which connection; opened when it is first used.
    #[serde(default = "first_connection")]
    on: String,
    /// A frame that the client sends.
    send: Option<Value>,
    /// The next frame that it reads.
    expect: Option<Value>,
    /// The tokens of a turn up to exactly this text, however it is cut.
    tokens: Option<String>,
    /// The request id of the turn whose tokens they are.
    #[serde(default)]
    of: String,
    /// Nothing may come within this time.
    silence_ms: Option<u64>,
    /// The client goes away.
    #[serde(default)]
    close: bool,
}

fn first_connection() -> String {
    "first".to_owned()
}

impl Scenario {
    /// Reads a file; a mistake in it fails the test with its place.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What the gateway says in one run, to requests for this model only.
    pub fn script_for(&self, model: &str) -> Script {
        let mut replies = script().for_model(model);
        for reply in &self.gateway {
            replies = match reply {
                GatewayReply { says: Some(says), .. } => replies.streams(says.iter().map(String::as_str)),
                GatewayReply { calls: Some(calls), .. } => {
                    replies.calls_many(calls.iter().map(|(name, arguments)| (name.as_str(), arguments.clone())))
                }
                GatewayReply { hangs_after: Some(said), .. } => replies.hangs_after(said.iter().map(String::as_str)),
                other => panic!("a reply says, calls or hangs: {other:?}"),
            };
            if let Some((prompt, completion)) = reply.usage {
                replies = replies.usage(prompt, completion);
            }
            replies = replies.after(Duration::from_millis(reply.after_ms));
        }
        replies
    }

    /// Plays the scenario once against the server at `url`. Messages ask for `model`, so that many runs can share a
    /// gateway.
    ///
    /// # Panics
    ///
    /// When a frame is not what was expected; the text names the step.
    pub async fn play(&self, url: &str, model: &str) {
        let mut run = Run { url, model, connections: BTreeMap::new(), kept: Map::new() };
        for (number, step) in self.steps.iter().enumerate() {
            let step_name = || format!("{model}, step {}", number + 1);
            run.step(step).await.unwrap_or_else(|problem| panic!("{}: {problem}", step_name()));
        }
    }
}

struct Run<'a> {
    url: &'a str,
    model: &'a str,
    connections: BTreeMap<String, TestClient>,
    kept: Map<String, Value>,
}

impl Run<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        if !self.connections.contains_key(&step.on) {
            let client = TestClient::connect(self.url).await.with_patience(Duration::from_secs(60));
            self.connections.insert(step.on.clone(), client);
        }
        if let Some(send) = &step.send {
            let mut frame = self.filled(send);
            if frame["action"] == "send_message" && frame.get("model").is_none() {
                frame["model"] = json!(self.model);
            }
            self.client(step).send(frame).await;
        } else if let Some(expect) = &step.expect {
            let frame = self.client(step).next_frame().await;
            matches(expect, Some(&frame), &mut self.kept, "the frame").map_err(|why| format!("{why}\n{frame}"))?;
        } else if let Some(tokens) = &step.tokens {
            self.tokens(step, tokens).await?;
        } else if let Some(silence_ms) = step.silence_ms {
            self.client(step).expect_silence(Duration::from_millis(silence_ms)).await;
        } else if step.close {
            let client = self.connections.remove(&step.on).expect("it was opened before the step");
            client.close().await;
        } else {
            return Err("a step sends, expects, reads tokens, is silent or closes".to_owned());
        }
        Ok(())
    }

    fn client(&mut self, step: &Step) -> &mut TestClient {
        self.connections.get_mut(&step.on).expect("it was opened before the step")
    }

    async fn tokens(&mut self, step: &Step, expected: &str) -> Result<(), String> {
        let mut said = String::new();
        while said != expected {
            let frame = self.client(step).next_frame().await;
            if frame["type"] != "stream_token" || frame["requestId"] != step.of.as_str() {
                return Err(format!("expected more tokens after {said:?}, read {frame}"));
            }
            said.push_str(frame["token"].as_str().unwrap_or_default());
            if !expected.starts_with(&said) {
                return Err(format!("expected the tokens of {expected:?}, read {said:?}"));
            }
        }
        Ok(())
    }

    /// The value with names replaced by what is kept under them.
    fn filled(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix('$') {
                Some(name) => self.kept.get(name).unwrap_or_else(|| panic!("nothing is kept as {text}")).clone(),
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.clone(), self.filled(value))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }
}

/// Compares a value with what is expected there, and keeps what has a name.
fn matches(expected: &Value, found: Option<&Value>, kept: &mut Map<String, Value>, place: &str) -> Result<(), String> {
    if *expected == json!({"$absent": true}) {
        return match found {
            None => Ok(()),
            Some(found) => Err(format!("{place} must not be there, it is {found}")),
        };
    }
    let found = found.ok_or_else(|| format!("{place} is missing"))?;
    match expected {
        Value::String(text) if text == "$any" => Ok(()),
        Value::String(text) if text.starts_with('$') => {
            let known = kept.entry(&text[1..]).or_insert_with(|| found.clone());
            if known == found { Ok(()) } else { Err(format!("{place} is not the {text} of before, which was {known}")) }
        }
        Value::Object(fields) => {
            if let Some(part) = fields.get("$contains").and_then(Value::as_str) {
                let has_it = found.as_str().is_some_and(|text| text.contains(part));
                return if has_it { Ok(()) } else { Err(format!("{place} does not contain {part:?}, it is {found}")) };
            }
            fields.iter().try_for_each(|(key, value)| matches(value, found.get(key), kept, &format!("{place}.{key}")))
        }
        Value::Array(items) => {
            let found = found.as_array().ok_or_else(|| format!("{place} must be a list, it is {found}"))?;
            if items.len() != found.len() {
                return Err(format!("{place} must have {} entries, it has {}", items.len(), found.len()));
            }
            let pairs = items.iter().zip(found).enumerate();
            pairs
                .into_iter()
                .try_for_each(|(at, (item, found))| matches(item, Some(found), kept, &format!("{place}[{at}]")))
        }
        scalar if scalar == found => Ok(()),
        scalar => Err(format!("{place} must be {scalar}, it is {found}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: Value, found: Value) -> Result<(), String> {
        matches(&expected, Some(&found), &mut Map::new(), "it")
    }

    #[test]
    fn an_object_names_what_matters_and_everything_else_is_exact() {
        assert_eq!(check(json!({"a": 1}), json!({"a": 1, "b": 2})), Ok(()));
        for (expected, found) in [
            (json!({"a": 1}), json!({"a": 2})),
            (json!({"a": 1}), json!({})),
            (json!({"a": {"$absent": true}}), json!({"a": null})),
            (json!([1]), json!([1, 2])),
            (json!("x"), json!("y")),
            (json!({"$contains": "x"}), json!("y")),
            (json!(["$same", "$same"]), json!([1, 2])),
        ] {
            assert!(check(expected.clone(), found.clone()).is_err(), "{expected} {found}");
        }
        for (expected, found) in [
            (json!({"a": {"$absent": true}}), json!({"b": 1})),
            (json!({"$contains": "x"}), json!("axb")),
            (json!(["$same", "$same", "$any"]), json!([1, 1, 2])),
        ] {
            assert_eq!(check(expected, found), Ok(()));
        }
    }
}
