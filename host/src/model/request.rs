//! A model request to the bytes of a chat completion request. Pure, but for a small memory of serialised tool lists.
//!
//! What goes out is always acceptable to a strict provider: arguments are a JSON object in a text, names keep to the
//! allowed characters, optional fields are left out instead of sent empty.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::{ModelImage, ModelMessage, ModelRequest, ModelTool, ModelToolCall};

/// Longest tool name a provider takes.
const TOOL_NAME_CHARS_MAX: usize = 64;

/// What a model's gateway does not understand, found out by being refused once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// The ceiling of the reply goes by its newer name, `max_completion_tokens`.
    pub(super) newer_ceiling: bool,
    /// `stream_options` is refused; usage then has to be estimated.
    pub(super) no_stream_options: bool,
    /// `temperature` is refused.
    pub(super) no_temperature: bool,
}

impl Dialect {
    /// The dialect to try after this refusal; `None` when it is about something else.
    pub(super) fn adapted_to(self, refusal: &str) -> Option<Self> {
        let refusal = refusal.to_ascii_lowercase();
        let unwelcome =
            ["unsupported", "not support", "unrecognized", "unknown", "extra", "not permitted", "not allowed"]
                .iter()
                .any(|sign| refusal.contains(sign));
        let mut adapted = self;
        adapted.newer_ceiling |= refusal.contains("max_completion_tokens");
        adapted.no_stream_options |= unwelcome && refusal.contains("stream_options");
        adapted.no_temperature |= unwelcome && refusal.contains("temperature");
        (adapted != self).then_some(adapted)
    }
}

/// A serialised request.
#[derive(Clone, Debug)]
pub(super) struct RequestBody {
    /// What is sent.
    pub(super) bytes: Bytes,
    /// Where the conversation is in it; nothing of that may be shown in an error.
    messages: Range<usize>,
}

impl RequestBody {
    /// Writes the request. `max_tokens` is the ceiling that holds after asking the catalog.
    pub(super) fn new(request: &ModelRequest, max_tokens: u32, dialect: Dialect, tools: &ToolsMemory) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(b"{\"model\":");
        append(&mut bytes, &request.model);
        bytes.extend_from_slice(b",\"messages\":");
        let start = bytes.len();
        let echo_reasoning = takes_reasoning_back(&request.model);
        let messages: Vec<WireMessage<'_>> =
            request.messages.iter().map(|message| WireMessage::new(message, echo_reasoning)).collect();
        append(&mut bytes, &messages);
        let messages = start..bytes.len();
        bytes.extend_from_slice(if dialect.newer_ceiling {
            b",\"max_completion_tokens\":"
        } else {
            b",\"max_tokens\":"
        });
        append(&mut bytes, &max_tokens);
        if let Some(temperature) = request.temperature.filter(|_| !dialect.no_temperature) {
            bytes.extend_from_slice(b",\"temperature\":");
            append(&mut bytes, &temperature);
        }
        if !request.tools.is_empty() {
            bytes.extend_from_slice(b",\"tools\":");
            bytes.extend_from_slice(&tools.serialised(&request.tools));
            bytes.extend_from_slice(b",\"tool_choice\":\"auto\"");
        }
        bytes.extend_from_slice(if request.stream { b",\"stream\":true" } else { b",\"stream\":false" });
        if request.stream && !dialect.no_stream_options {
            bytes.extend_from_slice(b",\"stream_options\":{\"include_usage\":true}");
        }
        bytes.push(b'}');
        Self { bytes: bytes.into(), messages }
    }

    /// The conversation as it was sent.
    pub(super) fn conversation(&self) -> Bytes {
        self.bytes.slice(self.messages.clone())
    }
}

/// Remembers the last tool lists in their serialised form: every request of a turn, and most turns, share one.
#[derive(Debug, Default)]
pub(super) struct ToolsMemory {
    /// Newest last. The lock is held for a lookup only, never across an await.
    lists: Mutex<Vec<(Arc<[ModelTool]>, Bytes)>>,
}

impl ToolsMemory {
    const LISTS_MAX: usize = 8;

    fn serialised(&self, tools: &Arc<[ModelTool]>) -> Bytes {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lists
            .iter()
            .rposition(|(list, _)| Arc::ptr_eq(list, tools))
            .or_else(|| lists.iter().rposition(|(list, _)| list == tools));
        if let Some(at) = known {
            return lists[at].1.clone();
        }
        let mut bytes = Vec::with_capacity(256 * tools.len());
        append(&mut bytes, &tools.iter().map(WireTool::new).collect::<Vec<_>>());
        let bytes = Bytes::from(bytes);
        if lists.len() == Self::LISTS_MAX {
            lists.remove(0);
        }
        lists.push((Arc::clone(tools), bytes.clone()));
        bytes
    }
}

/// Groq's models refuse the thinking of earlier replies; others demand it.
fn takes_reasoning_back(model: &str) -> bool {
    !(model.starts_with("groq-") || model.starts_with("groq/"))
}

fn append(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).expect("texts, numbers and JSON values can always be written to memory");
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: WireContent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(&'a str),
    Parts(Vec<WirePart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: WireImage<'a> },
}

#[derive(Serialize)]
struct WireImage<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: Cow<'a, str>,
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: &'a ModelTool,
}

impl<'a> WireMessage<'a> {
    fn new(message: &'a ModelMessage, echo_reasoning: bool) -> Self {
        match message {
            ModelMessage::System(text) => Self::plain("system", WireContent::Text(text)),
            ModelMessage::User { text, images } => Self::plain("user", user_content(text, images)),
            ModelMessage::Assistant { text, reasoning, tool_calls } => Self {
                reasoning_content: Some(reasoning.as_str()).filter(|text| echo_reasoning && !text.is_empty()),
                tool_calls: tool_calls.iter().map(WireCall::new).collect(),
                ..Self::plain("assistant", WireContent::Text(text))
            },
            ModelMessage::Tool { call_id, name, content } => Self {
                tool_call_id: Some(call_id.as_str()),
                name: Some(acceptable_name(name)),
                ..Self::plain("tool", WireContent::Text(content))
            },
        }
    }

    fn plain(role: &'static str, content: WireContent<'a>) -> Self {
        Self { role, content, reasoning_content: None, tool_calls: Vec::new(), tool_call_id: None, name: None }
    }
}

impl<'a> WireCall<'a> {
    fn new(call: &'a ModelToolCall) -> Self {
        let name = acceptable_name(&call.name);
        let arguments = acceptable_arguments(&call.arguments);
        Self { id: call.id.as_str(), r#type: "function", function: WireFunction { name, arguments } }
    }
}

impl<'a> WireTool<'a> {
    fn new(tool: &'a ModelTool) -> Self {
        Self { r#type: "function", function: tool }
    }
}

fn user_content<'a>(text: &'a str, images: &'a [ModelImage]) -> WireContent<'a> {
    if images.is_empty() {
        return WireContent::Text(text);
    }
    // Some providers refuse a part that says nothing.
    let text = Some(WirePart::Text { text }).filter(|_| !text.trim().is_empty());
    let images = images
        .iter()
        .map(|image| WirePart::ImageUrl { image_url: WireImage { url: &image.url, detail: image.detail.as_deref() } });
    WireContent::Parts(text.into_iter().chain(images).collect())
}

/// Models make up names; a request that repeats a bad one is refused as a whole.
fn acceptable_name(name: &str) -> Cow<'_, str> {
    let is_good = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    if !name.is_empty() && name.len() <= TOOL_NAME_CHARS_MAX && name.chars().all(is_good) {
        return Cow::Borrowed(name);
    }
    let name: String = name
        .chars()
        .take(TOOL_NAME_CHARS_MAX)
        .map(|character| if is_good(character) { character } else { '_' })
        .collect();
    Cow::Owned(if name.is_empty() { "unnamed".to_owned() } else { name })
}

/// Several providers refuse a whole conversation over one text that is no JSON object, so a broken one is wrapped.
fn acceptable_arguments(arguments: &str) -> Cow<'_, str> {
    let trimmed = arguments.trim();
    if trimmed.is_empty() || trimmed == "null" {
        return Cow::Borrowed("{}");
    }
    let is_object = trimmed.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok();
    if is_object { Cow::Borrowed(arguments) } else { Cow::Owned(json!({ "invalid_arguments": arguments }).to_string()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::ids::ToolCallId;

    fn request(messages: Vec<ModelMessage>) -> ModelRequest {
        ModelRequest {
            model: "m-1".to_owned(),
            messages,
            tools: Arc::new([]),
            max_tokens: 512,
            temperature: None,
            stream: true,
        }
    }

    fn body(request: &ModelRequest) -> Value {
        body_in(request, Dialect::default())
    }

    fn body_in(request: &ModelRequest, dialect: Dialect) -> Value {
        let body = RequestBody::new(request, request.max_tokens, dialect, &ToolsMemory::default());
        serde_json::from_slice(&body.bytes).unwrap()
    }

    fn user(text: &str) -> ModelMessage {
        ModelMessage::User { text: text.to_owned(), images: Vec::new() }
    }

    fn called(name: &str, arguments: &str) -> ModelMessage {
        ModelMessage::Assistant {
            text: String::new(),
            reasoning: "because".to_owned(),
            tool_calls: vec![ModelToolCall {
                id: ToolCallId::new("call_1"),
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            }],
        }
    }

    #[test]
    fn the_least_request_holds_the_least() {
        let request = request(vec![ModelMessage::System("be \"kind\"".to_owned()), user("hi\n🦀")]);
        assert_eq!(
            body(&request),
            json!({
                "model": "m-1",
                "messages": [{ "role": "system", "content": "be \"kind\"" }, { "role": "user", "content": "hi\n🦀" }],
                "max_tokens": 512,
                "stream": true,
                "stream_options": { "include_usage": true },
            })
        );
    }

    #[test]
    fn tools_come_with_a_choice_and_temperature_when_set() {
        let parameters = json!({ "type": "object" });
        let mut request = request(vec![user("hi")]);
        request.temperature = Some(0.5);
        request.tools = Arc::new([ModelTool {
            name: "f".to_owned(),
            description: "does".to_owned(),
            parameters: parameters.clone(),
        }]);
        let body = body(&request);
        let function = json!({ "name": "f", "description": "does", "parameters": parameters });
        assert_eq!(body["tools"], json!([{ "type": "function", "function": function }]));
        assert_eq!((&body["tool_choice"], &body["temperature"]), (&json!("auto"), &json!(0.5)));
    }

    #[test]
    fn calls_and_results_are_acceptable_to_strict_providers() {
        let result = ModelMessage::Tool {
            call_id: ToolCallId::new("call_1"),
            name: "odd name".to_owned(),
            content: "ok".to_owned(),
        };
        let body = body(&request(vec![user("hi"), called("odd.name", ""), result]));
        assert_eq!(
            body["messages"][1],
            json!({ "role": "assistant", "content": "", "reasoning_content": "because", "tool_calls": [
                { "id": "call_1", "type": "function", "function": { "name": "odd_name", "arguments": "{}" } }] })
        );
        let result = json!({ "role": "tool", "content": "ok", "tool_call_id": "call_1", "name": "odd_name" });
        assert_eq!(body["messages"][2], result);
    }

    #[test]
    fn broken_arguments_are_wrapped_and_sound_ones_go_unchanged() {
        assert_eq!(acceptable_arguments(r#"{ "x": 1 }"#), r#"{ "x": 1 }"#);
        assert_eq!(acceptable_arguments("null"), "{}");
        assert_eq!(acceptable_arguments("{oops"), r#"{"invalid_arguments":"{oops"}"#);
        assert_eq!(acceptable_arguments("[1]"), r#"{"invalid_arguments":"[1]"}"#);
    }

    #[test]
    fn groq_gets_no_thinking_back() {
        for (model, expected) in [("groq-x", None), ("groq/x", None), ("qroq", Some("because"))] {
            let mut request = request(vec![called("f", "{}")]);
            request.model = model.to_owned();
            assert_eq!(body(&request)["messages"][0].get("reasoning_content").and_then(Value::as_str), expected);
        }
    }

    #[test]
    fn images_follow_the_text_and_an_empty_text_is_left_out() {
        let image = ModelImage { url: "data:image/png;base64,AA==".to_owned(), detail: Some("low".to_owned()) };
        let plain = ModelImage { url: "https://example.org/a.png".to_owned(), detail: None };
        let with_text = ModelMessage::User { text: "see".to_owned(), images: vec![image.clone()] };
        let alone = ModelMessage::User { text: String::new(), images: vec![plain] };
        let body = body(&request(vec![with_text, alone]));
        let shown = json!({ "type": "image_url", "image_url": { "url": image.url, "detail": "low" } });
        assert_eq!(body["messages"][0]["content"], json!([{ "type": "text", "text": "see" }, shown]));
        let shown = json!({ "type": "image_url", "image_url": { "url": "https://example.org/a.png" } });
        assert_eq!(body["messages"][1]["content"], json!([shown]));
    }

    #[test]
    fn a_refused_field_is_left_out_from_then_on() {
        let refusal = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
        let dialect = Dialect::default().adapted_to(refusal).unwrap();
        assert!(dialect.newer_ceiling && dialect.adapted_to(refusal).is_none());
        let dialect = dialect.adapted_to("stream_options: extra inputs are not permitted").unwrap();
        assert_eq!(Dialect::default().adapted_to("temperature must be below 2"), None);
        let body = body_in(&request(vec![user("hi")]), dialect);
        assert_eq!(body["max_completion_tokens"], json!(512));
        assert!(body.get("max_tokens").is_none() && body.get("stream_options").is_none());
    }

    #[test]
    fn the_memory_of_tool_lists_is_bounded_and_shared() {
        let memory = ToolsMemory::default();
        let list = |name: usize| -> Arc<[ModelTool]> {
            Arc::new([ModelTool { name: name.to_string(), description: String::new(), parameters: Value::Null }])
        };
        let first = memory.serialised(&list(0));
        assert_eq!(memory.serialised(&list(0)).as_ptr(), first.as_ptr(), "an equal list is not written again");
        for name in 0..20 {
            memory.serialised(&list(name));
        }
        assert_eq!(memory.lists.lock().unwrap().len(), ToolsMemory::LISTS_MAX);
    }

    #[test]
    fn the_conversation_is_what_lies_between() {
        let request = request(vec![user("secret")]);
        let body = RequestBody::new(&request, 1, Dialect::default(), &ToolsMemory::default());
        assert_eq!(body.conversation(), br#"[{"role":"user","content":"secret"}]"#[..]);
    }
}
