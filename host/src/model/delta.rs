//! The JSON of a stream's chunks to model events. Pure: fields in, events and a verdict out.
//!
//! Text is handed on exactly as it came, identical pieces included. A chunk that cannot be read costs only itself, but
//! a stream of nothing else is an error. It never judges a finish reason, and never runs ahead of what was sent.

use std::{collections::VecDeque, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{
    ModelError, ModelEvent, ModelToolCall,
    error_text::{is_context_overflow, readable_error},
    sse::Field,
    tool_calls::{Fragment, ToolCallBuilder},
};

/// How the body of the reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// The body was over.
    Closed,
    /// The connection broke, or the rest did not come in time.
    Broken,
}

/// Tokens and money as the gateway reported them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ReportedUsage {
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) cost_usd: Option<f64>,
}

/// What is known when the reply is over.
#[derive(Debug, PartialEq)]
pub(super) struct ReplyEnd {
    pub(super) tool_calls: Vec<ModelToolCall>,
    pub(super) finish_reason: Option<String>,
    pub(super) usage: ReportedUsage,
    /// Characters of text, thinking and tool calls: the estimate's base when the gateway counts no tokens.
    pub(super) chars: usize,
    /// Chunks that could not be read.
    pub(super) malformed_chunks: u64,
}

/// Collects one reply.
#[derive(Debug)]
pub(super) struct Accumulator {
    tool_calls: ToolCallBuilder,
    finish_reason: Option<String>,
    usage: ReportedUsage,
    /// The end mark came.
    done: bool,
    /// The current event is announced as an error.
    in_error_event: bool,
    /// The beginning of a JSON text that goes on in the event's next `data:` line.
    partial: Vec<u8>,
    /// Chunks that had something of a completion in them.
    readable_chunks: u64,
    malformed_chunks: u64,
    saw_text: bool,
    reply_bytes: usize,
    reply_bytes_max: usize,
    chars: usize,
}

impl Accumulator {
    pub(super) fn new(reply_bytes_max: usize) -> Self {
        Self {
            tool_calls: ToolCallBuilder::default(),
            finish_reason: None,
            usage: ReportedUsage::default(),
            done: false,
            in_error_event: false,
            partial: Vec::new(),
            readable_chunks: 0,
            malformed_chunks: 0,
            saw_text: false,
            reply_bytes: 0,
            reply_bytes_max,
            chars: 0,
        }
    }

    /// Whether the end mark came; nothing after it counts.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the model said why it stopped; only usage and the end mark may follow.
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Takes one field of the stream and appends the events it causes.
    pub(super) fn field(&mut self, field: Field<'_>, events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        match field {
            _ if self.done => Ok(()),
            Field::Event(name) => {
                self.in_error_event = name == b"error";
                Ok(())
            }
            Field::End => {
                self.in_error_event = false;
                self.drop_partial();
                Ok(())
            }
            Field::Data(data) => self.data(data, events),
        }
    }

    /// Takes a whole completion that came in one piece instead of a stream.
    pub(super) fn whole(&mut self, body: &[u8], events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        match serde_json::from_slice::<Chunk>(body) {
            Ok(chunk) => self.chunk(chunk, events)?,
            Err(_) => self.malformed_chunks += 1,
        }
        self.done = self.readable_chunks > 0;
        Ok(())
    }

    /// The body is over: everything that was not yet handed out, or why the reply does not count.
    pub(super) fn end(&mut self, how: BodyEnd, new_id: impl FnMut() -> String) -> Result<ReplyEnd, ModelError> {
        self.drop_partial();
        if self.readable_chunks == 0 && self.malformed_chunks > 0 {
            let chunks = self.malformed_chunks;
            return Err(ModelError::Malformed(format!("none of its {chunks} chunks is a chat completion")));
        }
        if !self.done && self.finish_reason.is_none() {
            return Err(ModelError::Truncated);
        }
        if how == BodyEnd::Broken && !self.done {
            tracing::debug!("the model's reply ended without its end mark");
        }
        Ok(ReplyEnd {
            tool_calls: self.tool_calls.finish(new_id),
            finish_reason: self.finish_reason.take(),
            usage: self.usage,
            chars: self.chars,
            malformed_chunks: self.malformed_chunks,
        })
    }

    fn data(&mut self, data: &[u8], events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        let data = data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.drop_partial();
            self.done = true;
            return Ok(());
        }
        if self.in_error_event {
            return Err(in_stream_error(&String::from_utf8_lossy(data)));
        }
        if !self.partial.is_empty() {
            return self.continued_data(data, events);
        }
        match serde_json::from_slice::<Chunk>(data) {
            Ok(chunk) => self.chunk(chunk, events),
            Err(error) if error.is_eof() => {
                self.partial.extend_from_slice(data);
                Ok(())
            }
            Err(_) => self.damaged_data(data, events),
        }
    }

    /// An event's data may be spread over several lines, which belong together with a line end between.
    fn continued_data(&mut self, data: &[u8], events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        self.reply_bytes += data.len();
        self.check_size()?;
        self.partial.push(b'\n');
        self.partial.extend_from_slice(data);
        if data.last() != Some(&b'}') {
            return Ok(());
        }
        match serde_json::from_slice::<Chunk>(&self.partial) {
            Ok(chunk) => {
                self.partial.clear();
                self.chunk(chunk, events)
            }
            Err(error) if error.is_eof() => Ok(()),
            // The first line was damaged; this one may be sound by itself.
            Err(_) => {
                self.drop_partial();
                self.data(data, events)
            }
        }
    }

    /// Bytes that are no text become replacement characters, as long as the rest can be read.
    fn damaged_data(&mut self, data: &[u8], events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        if std::str::from_utf8(data).is_err()
            && let Ok(chunk) = serde_json::from_str::<Chunk>(&String::from_utf8_lossy(data))
        {
            return self.chunk(chunk, events);
        }
        self.malformed_chunks += 1;
        Ok(())
    }

    fn drop_partial(&mut self) {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.malformed_chunks += 1;
        }
    }

    fn chunk(&mut self, chunk: Chunk, events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        if let Some(error) = chunk.error.filter(is_an_error) {
            return Err(in_stream_error(&error.to_string()));
        }
        if !chunk.choices.present && chunk.usage.is_none() {
            self.malformed_chunks += 1;
            return Ok(());
        }
        self.readable_chunks += 1;
        if let Some(usage) = chunk.usage {
            self.usage.overwrite(&usage);
        }
        let Some(choice) = chunk.choices.first else { return Ok(()) };
        if !choice.finish_reason.0.is_empty() {
            self.finish_reason = Some(choice.finish_reason.0);
        }
        // A whole message counts only when nothing was streamed: some gateways repeat the reply in the last chunk.
        let whole = choice.message.filter(|_| !self.saw_text && self.tool_calls.is_empty());
        for delta in [choice.delta, whole].into_iter().flatten() {
            self.delta(delta, events)?;
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta, events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        let reasoning =
            if delta.reasoning_content.0.is_empty() { delta.reasoning.0 } else { delta.reasoning_content.0 };
        let text = if delta.content.0.is_empty() { delta.refusal.0 } else { delta.content.0 };
        if !reasoning.is_empty() {
            self.count(&reasoning)?;
            events.push_back(ModelEvent::Reasoning(reasoning));
        }
        if !text.is_empty() {
            self.count(&text)?;
            self.saw_text = true;
            events.push_back(ModelEvent::Text(text));
        }
        let legacy = delta.function_call.map(|function| ToolPiece { function: Some(function), ..ToolPiece::default() });
        let pieces = delta.tool_calls.unwrap_or_default();
        let several = pieces.len() > 1;
        for (position, piece) in pieces.into_iter().chain(legacy).enumerate() {
            self.tool_piece(piece, several.then_some(position as u64))?;
        }
        Ok(())
    }

    fn tool_piece(&mut self, piece: ToolPiece, position: Option<u64>) -> Result<(), ModelError> {
        let function = piece.function.unwrap_or_default();
        self.count(&function.name.0)?;
        self.count(&function.arguments.0)?;
        // An entry takes room even when its texts are empty.
        self.reply_bytes += piece.id.0.len() + size_of::<Fragment>();
        self.check_size()?;
        self.tool_calls.push(Fragment {
            index: piece.index.0,
            position,
            id: piece.id.0,
            name: function.name.0,
            arguments: function.arguments.0,
        });
        Ok(())
    }

    fn count(&mut self, text: &str) -> Result<(), ModelError> {
        self.reply_bytes += text.len();
        self.chars += text.chars().count();
        self.check_size()
    }

    fn check_size(&self) -> Result<(), ModelError> {
        if self.reply_bytes > self.reply_bytes_max {
            return Err(ModelError::Malformed(format!("a reply of more than {} bytes", self.reply_bytes_max)));
        }
        Ok(())
    }
}

impl ReportedUsage {
    fn overwrite(&mut self, usage: &Usage) {
        let prompt = usage.prompt_tokens.0.or(usage.input_tokens.0);
        let completion = usage.completion_tokens.0.or(usage.output_tokens.0);
        self.prompt_tokens = prompt.map(|tokens| tokens as u64).or(self.prompt_tokens);
        self.completion_tokens = completion.map(|tokens| tokens as u64).or(self.completion_tokens);
        self.cost_usd = usage.cost.0.filter(|cost| *cost > 0.0).or(self.cost_usd);
    }
}

/// Some gateways send an empty `error` with every chunk.
fn is_an_error(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn in_stream_error(json: &str) -> ModelError {
    let message = readable_error(json);
    if is_context_overflow(json) { ModelError::ContextOverflow(message) } else { ModelError::InStream(message) }
}

/// One chunk; everything that is not named here is skipped without being built.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Choices,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

/// The first choice; a server that asks for one reply has no use for others.
#[derive(Default)]
struct Choices {
    present: bool,
    first: Option<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: Index,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    message: Option<Delta>,
    #[serde(default)]
    finish_reason: Text,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Text,
    #[serde(default)]
    refusal: Text,
    #[serde(default)]
    reasoning_content: Text,
    #[serde(default)]
    reasoning: Text,
    #[serde(default)]
    tool_calls: Option<Vec<ToolPiece>>,
    #[serde(default)]
    function_call: Option<Function>,
}

#[derive(Default, Deserialize)]
struct ToolPiece {
    #[serde(default)]
    index: Index,
    #[serde(default)]
    id: Text,
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Default, Deserialize)]
struct Function {
    #[serde(default)]
    name: Text,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Number,
    #[serde(default)]
    completion_tokens: Number,
    #[serde(default)]
    input_tokens: Number,
    #[serde(default)]
    output_tokens: Number,
    #[serde(default)]
    cost: Number,
}

/// A text; absent, null and anything else that has no text in it is empty. A list of parts is their text.
#[derive(Default)]
struct Text(String);

/// Arguments as JSON text; an object instead of a text is written out.
#[derive(Default)]
struct Arguments(String);

/// A number; `None` when it is absent or something else.
#[derive(Default)]
struct Number(Option<f64>);

/// A whole number; `None` when it is absent or something else.
#[derive(Default)]
struct Index(Option<u64>);

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choosing;
        impl<'de> Visitor<'de> for Choosing {
            type Value = Choices;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<Choices, E> {
                Ok(Choices { present: true, first: None })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choices, A::Error> {
                let mut choices = Choices { present: true, first: None };
                while choices.first.is_none() {
                    let Some(choice) = items.next_element::<Choice>()? else { return Ok(choices) };
                    choices.first = (choice.index.0.unwrap_or(0) == 0).then_some(choice);
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(choices)
            }
        }
        deserializer.deserialize_any(Choosing)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Text;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
                Ok(Text::default())
            }

            fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
                let mut whole = String::new();
                while let Some(Text(part)) = parts.next_element()? {
                    whole.push_str(&part);
                }
                Ok(Text(whole))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
                #[derive(Deserialize)]
                struct Part {
                    #[serde(default)]
                    text: Text,
                }
                Ok(Part::deserialize(MapAccessDeserializer::new(map))?.text)
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Arguments;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("arguments as a JSON text or an object")
            }

            fn visit_str<E>(self, text: &str) -> Result<Arguments, E> {
                Ok(Arguments(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Arguments, E> {
                Ok(Arguments::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Arguments, A::Error> {
                Ok(Arguments(Value::deserialize(MapAccessDeserializer::new(map))?.to_string()))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Number;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(Some(number as f64)))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Number, E> {
                Ok(Number(None))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number((number.is_finite() && number >= 0.0).then_some(number)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)))
            }

            fn visit_unit<E>(self) -> Result<Number, E> {
                Ok(Number(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Number, E> {
                Ok(Number(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Number, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Number(None))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Number(number) = Number::deserialize(deserializer)?;
        Ok(Self(number.map(|number| number as u64)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Feeds data lines, each its own event, and ends the body.
    fn run(lines: &[&str]) -> (Vec<ModelEvent>, Result<ReplyEnd, ModelError>) {
        let mut accumulator = Accumulator::new(1 << 20);
        let mut events = VecDeque::new();
        for line in lines {
            for field in [Field::Data(line.as_bytes()), Field::End] {
                if let Err(error) = accumulator.field(field, &mut events) {
                    return (events.into(), Err(error));
                }
            }
        }
        let mut made_up = 0;
        let end = accumulator.end(BodyEnd::Closed, || {
            made_up += 1;
            format!("made-up-{made_up}")
        });
        (events.into(), end)
    }

    fn text(content: &str) -> String {
        json!({ "choices": [{ "index": 0, "delta": { "content": content }, "finish_reason": null }] }).to_string()
    }

    fn stop() -> String {
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }).to_string()
    }

    fn said(events: &[ModelEvent]) -> String {
        events.iter().map(|event| if let ModelEvent::Text(text) = event { text.as_str() } else { "" }).collect()
    }

    #[test]
    fn identical_deltas_are_all_kept() {
        let (events, end) = run(&[&text("ha"), &text("ha"), &text(""), &text("ha"), &stop(), "[DONE]"]);
        assert_eq!(events, vec![ModelEvent::Text("ha".to_owned()); 3]);
        assert_eq!(end.unwrap().finish_reason.as_deref(), Some("stop"));
    }

    #[test]
    fn thinking_comes_under_two_names_and_once_when_under_both() {
        let both = json!({ "choices": [{ "delta": { "reasoning": "a", "reasoning_content": "a" } }] }).to_string();
        let one = json!({ "choices": [{ "delta": { "reasoning": "b", "content": null } }] }).to_string();
        let (events, _) = run(&[&both, &one, "[DONE]"]);
        assert_eq!(events, [ModelEvent::Reasoning("a".to_owned()), ModelEvent::Reasoning("b".to_owned())]);
    }

    #[test]
    fn content_may_be_a_list_of_parts() {
        let parts = json!({ "choices": [{ "delta": { "content": [{ "type": "text", "text": "a" }, "b", null] } }] });
        assert_eq!(said(&run(&[&parts.to_string(), "[DONE]"]).0), "ab");
    }

    #[test]
    fn one_damaged_chunk_costs_only_itself_but_nothing_else_is_an_error() {
        let (events, end) = run(&[&text("a"), "{oops", "[1]", &text("b"), &stop()]);
        assert_eq!((said(&events).as_str(), end.unwrap().malformed_chunks), ("ab", 2));
        assert!(matches!(run(&["{oops", "what", r#"{"hello":1}"#, "[DONE]"]).1, Err(ModelError::Malformed(_))));
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let mut accumulator = Accumulator::new(1 << 20);
        let mut events = VecDeque::new();
        let line = b"{\"choices\":[{\"delta\":{\"content\":\"a\xff\"}}]}";
        accumulator.field(Field::Data(line), &mut events).unwrap();
        assert_eq!(events, [ModelEvent::Text("a\u{fffd}".to_owned())]);
    }

    #[test]
    fn errors_in_the_stream_fail_the_call_and_empty_ones_do_not() {
        let (events, end) = run(&[&text("a"), r#"{"error":{"message":"over capacity","code":503}}"#]);
        assert_eq!((events.len(), end), (1, Err(ModelError::InStream("over capacity".to_owned()))));
        assert!(matches!(run(&[r#"{"error":"quota"}"#]).1, Err(ModelError::InStream(text)) if text == "quota"));
        let quiet = r#"{"error":null,"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
        assert!(run(&[quiet]).1.is_ok());
        let overflow = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
        assert!(matches!(run(&[overflow]).1, Err(ModelError::ContextOverflow(_))));
    }

    #[test]
    fn an_event_of_type_error_is_one_whatever_its_shape() {
        let mut accumulator = Accumulator::new(1 << 20);
        let mut events = VecDeque::new();
        accumulator.field(Field::Event(b"error"), &mut events).unwrap();
        let outcome = accumulator.field(Field::Data(br#"{"message":"no"}"#), &mut events);
        assert_eq!(outcome, Err(ModelError::InStream("no".to_owned())));
    }

    #[test]
    fn usage_counts_on_any_chunk_and_the_last_one_wins() {
        let (_, end) = run(&[
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"length"}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":412,"completion_tokens":23,"total_tokens":435,"cost":0.5}}"#,
            "[DONE]",
        ]);
        let end = end.unwrap();
        let usage = ReportedUsage { prompt_tokens: Some(412), completion_tokens: Some(23), cost_usd: Some(0.5) };
        assert_eq!((end.usage, end.finish_reason.as_deref()), (usage, Some("length")));
    }

    #[test]
    fn the_end_mark_or_a_finish_reason_is_needed() {
        assert_eq!(run(&[&text("a")]).1, Err(ModelError::Truncated));
        assert_eq!(run(&[]).1, Err(ModelError::Truncated));
        assert!(run(&[&text("a"), &stop()]).1.is_ok());
        assert!(run(&[&text("a"), "[DONE]"]).1.is_ok());
        assert!(run(&["[DONE]"]).1.is_ok(), "an empty reply is a reply");
    }

    #[test]
    fn arguments_may_be_an_object_and_the_old_form_of_calls_counts() {
        let object = json!({ "choices": [{ "delta": { "tool_calls": [
            { "function": { "name": "f", "arguments": { "x": 1 } } }, { "function": { "name": "f", "arguments": null } },
        ] } }] });
        let end = run(&[&object.to_string(), "[DONE]"]).1.unwrap();
        assert_eq!(end.tool_calls.len(), 2);
        assert_eq!((end.tool_calls[0].id.as_str(), end.tool_calls[0].arguments.as_str()), ("made-up-1", r#"{"x":1}"#));
        let legacy = r#"{"choices":[{"delta":{"function_call":{"name":"g","arguments":"{}"}}}]}"#;
        let end = run(&[legacy, "[DONE]"]).1.unwrap();
        assert_eq!((end.tool_calls[0].name.as_str(), end.tool_calls[0].arguments.as_str()), ("g", "{}"));
    }

    #[test]
    fn a_whole_completion_counts_like_a_stream() {
        let mut accumulator = Accumulator::new(1 << 20);
        let mut events = VecDeque::new();
        let body = json!({
            "choices": [{ "index": 0, "finish_reason": "tool_calls", "message": { "role": "assistant", "content": "hi",
                "tool_calls": [{ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } }] } }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 2 },
        });
        accumulator.whole(&serde_json::to_vec_pretty(&body).unwrap(), &mut events).unwrap();
        let end = accumulator.end(BodyEnd::Closed, String::new).unwrap();
        assert_eq!(said(events.make_contiguous()), "hi");
        assert_eq!((end.tool_calls.len(), end.usage.completion_tokens), (1, Some(2)));
    }

    #[test]
    fn the_reply_repeated_whole_in_the_last_chunk_is_not_said_twice() {
        let last = json!({ "choices": [{ "delta": {}, "message": { "content": "ab" }, "finish_reason": "stop" }] });
        assert_eq!(said(&run(&[&text("a"), &text("b"), &last.to_string(), "[DONE]"]).0), "ab");
    }

    #[test]
    fn one_event_may_spread_its_json_over_several_lines() {
        let mut accumulator = Accumulator::new(1 << 20);
        let mut events = VecDeque::new();
        for line in [r#"{"choices":[{"#, r#""delta":{"content":"a"}}"#, "]}"] {
            accumulator.field(Field::Data(line.as_bytes()), &mut events).unwrap();
        }
        accumulator.field(Field::End, &mut events).unwrap();
        assert_eq!(events, [ModelEvent::Text("a".to_owned())]);
        assert_eq!(accumulator.malformed_chunks, 0);
    }

    #[test]
    fn other_choices_are_not_ours() {
        let other = r#"{"choices":[{"index":1,"delta":{"content":"x"}},{"index":0,"delta":{"content":"a"}}]}"#;
        assert_eq!(said(&run(&[other, "[DONE]"]).0), "a");
    }

    #[test]
    fn a_reply_past_the_limit_fails_the_call() {
        let mut accumulator = Accumulator::new(3);
        let mut events = VecDeque::new();
        let outcome = accumulator.field(Field::Data(text("four").as_bytes()), &mut events);
        assert!(matches!(outcome, Err(ModelError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn text_comes_out_as_it_went_in(pieces in proptest::collection::vec(".{0,8}", 0..20)) {
            let lines: Vec<String> = pieces.iter().map(|piece| text(piece)).chain([stop()]).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let (events, end) = run(&lines);
            prop_assert_eq!(said(&events), pieces.concat());
            prop_assert_eq!(end.unwrap().chars, pieces.concat().chars().count());
        }

        #[test]
        fn no_line_can_make_it_panic(lines in proptest::collection::vec(".{0,40}", 0..6)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let _ = run(&lines);
        }
    }
}
