//! The offline model: a small rule-based stand-in, so that the server can be tried and a tool called by hand without a
//! key or a network. It says what it is, and answers only from what it was given.
//!
//! ```text
//! tool results? -> say them · /command -> obey · names a tool -> call it · passages? -> quote · question -> search
//! ```
//!
//! It is deterministic, contacts nothing and never invents a fact.

mod arguments;
mod words;

use std::{fmt::Write as _, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use super::{
    KNOWLEDGE_HEADING, ModelClient, ModelError, ModelEvent, ModelMessage, ModelRequest, ModelStream, ModelTool,
    ModelToolCall, ModelUsage, usage::prompt_chars,
};
use crate::ids::ToolCallId;
use words::{best_sentence, is_question, mention};

/// The tool that searches the knowledge base.
const SEARCH_TOOL: &str = "knowledge_search";
/// Longest piece of a tool's result that is repeated, in characters.
const RESULT_CHARS_MAX: usize = 2000;
/// Tools named in a sentence; `/tools` shows all.
const TOOLS_NAMED_MAX: usize = 8;

/// The built-in model.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfflineModel {
    pace: Duration,
}

impl OfflineModel {
    /// Pauses this long between words, so that a reader sees the reply grow.
    #[must_use]
    pub fn paced(pace: Duration) -> Self {
        Self { pace }
    }
}

#[async_trait]
impl ModelClient for OfflineModel {
    async fn stream(&self, request: ModelRequest) -> Result<ModelStream, ModelError> {
        let reply = reply_to(&request);
        let calls_chars: usize = reply.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
        let usage = ModelUsage::estimate(prompt_chars(&request), reply.text.chars().count() + calls_chars);
        let finish_reason = if reply.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        let finished =
            ModelEvent::Finished { tool_calls: reply.tool_calls, usage, finish_reason: Some(finish_reason.to_owned()) };
        let words: Vec<String> = reply.text.split_inclusive(' ').map(str::to_owned).collect();
        let events = words.into_iter().map(ModelEvent::Text).chain([finished]);
        let pace = self.pace;
        Ok(stream::iter(events)
            .then(move |event| async move {
                if !pace.is_zero() {
                    tokio::time::sleep(pace).await;
                }
                Ok(event)
            })
            .boxed())
    }
}

/// What it says or asks for.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    text: String,
    tool_calls: Vec<ModelToolCall>,
}

/// A passage of the knowledge base.
#[derive(Debug, PartialEq)]
struct Passage<'a> {
    source: &'a str,
    text: String,
}

fn reply_to(request: &ModelRequest) -> Reply {
    let current = request.messages.iter().rposition(|message| matches!(message, ModelMessage::User { .. }));
    let (text, since) = match current.map(|at| (&request.messages[at], &request.messages[at + 1..])) {
        Some((ModelMessage::User { text, .. }, since)) => (text.trim(), since),
        _ => ("", &[][..]),
    };
    let results = last_results(since);
    if !results.is_empty() {
        return tell_results(text, &results);
    }
    if text.starts_with('/') {
        return obey(text, request);
    }
    if let Some(reply) = use_named_tool(text, request) {
        return reply;
    }
    let passages: Vec<Passage<'_>> = request.messages.iter().flat_map(given_passages).collect();
    if !passages.is_empty() {
        return quote(text, &passages, &request.tools);
    }
    if is_question(text) && offered(SEARCH_TOOL, request).is_some() {
        return call(SEARCH_TOOL, &json!({ "query": text }).to_string(), request);
    }
    introduce(request)
}

/// Name and text of the results since the last reply.
fn last_results(since: &[ModelMessage]) -> Vec<(&str, &str)> {
    let mut results: Vec<(&str, &str)> = Vec::new();
    for message in since {
        match message {
            ModelMessage::Assistant { .. } => results.clear(),
            ModelMessage::Tool { name, content, .. } => results.push((name, content)),
            _ => {}
        }
    }
    results
}

fn tell_results(question: &str, results: &[(&str, &str)]) -> Reply {
    let parts: Vec<String> = results
        .iter()
        .map(|(name, content)| {
            let found = if *name == SEARCH_TOOL { found_passages(content) } else { Vec::new() };
            match best_sentence(question, found.iter().map(|passage| (passage.source, passage.text.as_str()))) {
                Some((source, sentence)) => format!("According to {source}: {sentence}"),
                None if *name == SEARCH_TOOL && found.is_empty() && content.starts_with("Nothing") => {
                    "I found nothing about that in the knowledge base.".to_owned()
                }
                None => format!("`{name}` answered: {}", cut(content.trim())),
            }
        })
        .collect();
    Reply { text: with_suggestions(&parts.join("\n\n"), &["/tools".to_owned()]), tool_calls: Vec::new() }
}

fn quote(question: &str, passages: &[Passage<'_>], tools: &[ModelTool]) -> Reply {
    let candidates = || passages.iter().map(|passage| (passage.source, passage.text.as_str()));
    let (source, sentence) = best_sentence(question, candidates())
        .or_else(|| candidates().next().map(|(source, text)| (source, text.to_owned())))
        .unwrap_or_default();
    let others = passages.iter().map(|passage| passage.source).filter(|other| *other != source);
    let mut suggestions: Vec<String> = Vec::new();
    for other in others {
        let suggestion = format!("What does {other} say?");
        if suggestions.len() < 2 && !suggestions.contains(&suggestion) {
            suggestions.push(suggestion);
        }
    }
    if !tools.is_empty() {
        suggestions.push("/tools".to_owned());
    }
    let text = format!("According to {source}: {}", cut(&sentence));
    Reply { text: with_suggestions(&text, &suggestions), tool_calls: Vec::new() }
}

fn obey(text: &str, request: &ModelRequest) -> Reply {
    let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match command {
        "/tools" => list_tools(request),
        "/tool" => obey_tool(rest.trim(), request),
        "/help" => introduce(request),
        _ => say(format!("I do not know the command {command}. I know /help, /tools and /tool NAME {{json}}.")),
    }
}

fn obey_tool(rest: &str, request: &ModelRequest) -> Reply {
    let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    if name.is_empty() {
        return say("Write the tool's name and its arguments: /tool NAME {\"key\": \"value\"}.".to_owned());
    }
    if offered(name, request).is_none() {
        return say(format!("There is no tool `{name}` here. {}", name_tools(request)));
    }
    match serde_json::from_str::<Value>(arguments) {
        Ok(Value::Object(_)) => call(name, arguments, request),
        Ok(_) => say(format!("The arguments of `{name}` must be a JSON object, like {{\"key\": \"value\"}}.")),
        Err(error) => say(format!(
            "The arguments of `{name}` are not JSON ({error}). Write them like this: /tool {name} {{\"key\": \"value\"}}."
        )),
    }
}

/// A message that names an offered tool calls it, or says what is missing for that; a question about the tool is
/// answered with its description.
fn use_named_tool(text: &str, request: &ModelRequest) -> Option<Reply> {
    let mut tools: Vec<&ModelTool> = request.tools.iter().collect();
    tools.sort_by_key(|tool| std::cmp::Reverse(tool.name.len()));
    let (tool, mention) = tools.into_iter().find_map(|tool| Some((tool, mention(text, &tool.name)?)))?;
    if mention.is_by_name && words::asks_about(text) {
        return Some(say(describe(tool)));
    }
    match arguments::from_text(&tool.parameters, text, mention.rest) {
        Ok(arguments) => Some(call(&tool.name, &Value::Object(arguments).to_string(), request)),
        // Ordinary words that happen to be a tool's are no order.
        Err(_) if !mention.is_by_name => None,
        Err(missing) => Some(say(format!(
            "To call `{0}` I need {1}. Write for example: /tool {0} {2}",
            tool.name,
            missing.join(" and "),
            Value::Object(missing.iter().map(|name| (name.clone(), json!("…"))).collect::<Map<_, _>>()),
        ))),
    }
}

fn introduce(request: &ModelRequest) -> Reply {
    let mut text = "I am the built-in offline model: a handful of rules, no language model. ".to_owned();
    if offered(SEARCH_TOOL, request).is_some() {
        text.push_str("Ask a question and I quote what the knowledge base says about it. ");
    }
    text.push_str(&name_tools(request));
    text.push_str(" For real conversations, configure a gateway key and a model.");
    Reply { text: with_suggestions(&text, &["/tools".to_owned(), "/help".to_owned()]), tool_calls: Vec::new() }
}

fn name_tools(request: &ModelRequest) -> String {
    let names: Vec<String> = request.tools.iter().map(|tool| format!("`{}`", tool.name)).collect();
    if names.is_empty() {
        return "No tools are offered.".to_owned();
    }
    let more = names.len().saturating_sub(TOOLS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names[..names.len().min(TOOLS_NAMED_MAX)].join(", ");
    format!("The tools here are {names}{more}; /tools lists them, /tool NAME {{json}} calls one.")
}

fn list_tools(request: &ModelRequest) -> Reply {
    if request.tools.is_empty() {
        return say("No tools are offered.".to_owned());
    }
    let mut text = "These tools are offered:".to_owned();
    for tool in request.tools.iter() {
        write!(text, "\n- {}", describe(tool)).expect("writing to a text cannot fail");
    }
    let suggestions: Vec<String> = request
        .tools
        .iter()
        .filter(|tool| arguments::required(&tool.parameters).is_empty())
        .take(2)
        .map(|tool| format!("/tool {} {{}}", tool.name))
        .collect();
    Reply { text: with_suggestions(&text, &suggestions), tool_calls: Vec::new() }
}

fn describe(tool: &ModelTool) -> String {
    let summary = tool.description.split_inclusive(". ").next().unwrap_or_default().trim();
    format!("`{}({})`: {summary}", tool.name, arguments::summary(&tool.parameters))
}

fn call(name: &str, arguments: &str, request: &ModelRequest) -> Reply {
    // The list only grows within a turn, so its length makes the id unique there.
    let id = ToolCallId::new(format!("offline-{}", request.messages.len()));
    let call = ModelToolCall { id, name: name.to_owned(), arguments: arguments.to_owned() };
    Reply { text: String::new(), tool_calls: vec![call] }
}

fn say(text: String) -> Reply {
    Reply { text, tool_calls: Vec::new() }
}

fn with_suggestions(text: &str, suggestions: &[String]) -> String {
    if suggestions.is_empty() {
        return text.to_owned();
    }
    format!("{text}\n\n<suggested_replies>{}</suggested_replies>", json!(suggestions))
}

fn offered<'a>(name: &str, request: &'a ModelRequest) -> Option<&'a ModelTool> {
    request.tools.iter().find(|tool| tool.name == name)
}

/// The lines `- [source] (relevance 0.83) text` below the heading.
fn given_passages(message: &ModelMessage) -> Vec<Passage<'_>> {
    let ModelMessage::System(text) = message else { return Vec::new() };
    if !text.starts_with(KNOWLEDGE_HEADING) {
        return Vec::new();
    }
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let (source, rest) = line.strip_prefix("- [")?.split_once("] (relevance ")?;
            let (_, text) = rest.split_once(") ")?;
            Some(Passage { source, text: text.to_owned() })
        })
        .collect()
}

/// The entries `1. source (document …, relevance …)` of a search result, each followed by its passage.
fn found_passages(result: &str) -> Vec<Passage<'_>> {
    let mut passages: Vec<Passage<'_>> = Vec::new();
    for line in result.lines() {
        let entry = line.split_once(". ").filter(|(number, _)| number.parse::<u32>().is_ok());
        let source = entry.and_then(|(_, rest)| rest.rsplit_once(" (document ")).map(|(source, _)| source);
        match (source, passages.last_mut()) {
            (Some(source), _) => passages.push(Passage { source, text: String::new() }),
            (None, Some(passage)) => {
                passage.text.push_str(line);
                passage.text.push('\n');
            }
            (None, None) => {}
        }
    }
    passages
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(RESULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tool(name: &str, description: &str, parameters: Value) -> ModelTool {
        ModelTool { name: name.to_owned(), description: description.to_owned(), parameters }
    }

    fn tools() -> Arc<[ModelTool]> {
        let text = json!({ "type": "string" });
        Arc::new([
            tool(
                "current_time",
                "Tells the time. Needs a zone.",
                json!({ "type": "object", "properties": {
                "zone": text } }),
            ),
            tool(
                "issue_refund",
                "Refunds an order.",
                json!({ "type": "object", "required": ["order_id"],
                "properties": { "order_id": text, "reason": text } }),
            ),
            tool(
                SEARCH_TOOL,
                "Searches the knowledge base.",
                json!({ "type": "object", "required": ["query"],
                "properties": { "query": text, "limit": { "type": "integer" } } }),
            ),
        ])
    }

    fn request(messages: Vec<ModelMessage>) -> ModelRequest {
        ModelRequest {
            model: "offline".to_owned(),
            messages,
            tools: tools(),
            max_tokens: 100,
            temperature: None,
            stream: true,
        }
    }

    fn user(text: &str) -> ModelMessage {
        ModelMessage::User { text: text.to_owned(), images: Vec::new() }
    }

    fn reply(text: &str) -> Reply {
        reply_to(&request(vec![user(text)]))
    }

    /// Name and arguments of the only call.
    fn called(reply: Reply) -> (String, Value) {
        assert_eq!(reply.text, "");
        let [call] = reply.tool_calls.try_into().unwrap();
        (call.name, serde_json::from_str(&call.arguments).unwrap())
    }

    fn result(name: &str, content: &str) -> Vec<ModelMessage> {
        let id = ToolCallId::new("1");
        let call = ModelToolCall { id: id.clone(), name: name.to_owned(), arguments: String::new() };
        vec![
            ModelMessage::Assistant { text: String::new(), reasoning: String::new(), tool_calls: vec![call] },
            ModelMessage::Tool { call_id: id, name: name.to_owned(), content: content.to_owned() },
        ]
    }

    #[test]
    fn it_says_what_it_is() {
        let reply = reply("hello");
        assert!(reply.text.contains("offline model") && reply.text.contains("`issue_refund`"), "{}", reply.text);
        assert!(reply.text.ends_with("</suggested_replies>"));
    }

    #[test]
    fn commands_call_any_offered_tool() {
        assert_eq!(
            called(reply(r#"/tool issue_refund {"order_id": "7"}"#)),
            ("issue_refund".to_owned(), json!({ "order_id": "7" }))
        );
        assert_eq!(called(reply("/tool current_time")), ("current_time".to_owned(), json!({})));
        let unknown = reply("/tool rm {}").text;
        assert!(unknown.contains("no tool `rm`") && unknown.contains("`current_time`"), "{unknown}");
        assert!(reply("/tool issue_refund {oops").text.contains("not JSON"));
        assert!(reply("/tool issue_refund [1]").text.contains("must be a JSON object"));
        assert!(reply("/tool").text.contains("/tool NAME"));
        assert!(reply("/dance").text.contains("/help"));
    }

    #[test]
    fn tools_are_listed_with_their_parameters() {
        let text = reply("/tools").text;
        assert!(text.contains("`issue_refund(order_id: string, reason?: string)`: Refunds an order."), "{text}");
        assert!(text.contains("`current_time(zone?: string)`: Tells the time."), "{text}");
    }

    #[test]
    fn a_plain_request_that_names_a_tool_calls_it() {
        let refund = ("issue_refund".to_owned(), json!({ "order_id": "7" }));
        assert_eq!(called(reply("call issue_refund with order_id 7")), refund);
        assert_eq!(called(reply("Please issue a refund for order 7.")), refund);
        assert_eq!(called(reply("use current_time")), ("current_time".to_owned(), json!({})));
        assert_eq!(called(reply("What is the current time?")), ("current_time".to_owned(), json!({})));
        let missing = reply("call issue_refund").text;
        assert!(missing.contains("need order_id"), "{missing}");
        assert!(reply("What does issue_refund do?").text.contains("Refunds an order."));
    }

    #[test]
    fn a_question_searches_and_the_found_sentence_is_quoted_with_its_source() {
        let question = "Until when can I send an item back for return?";
        assert_eq!(called(reply(question)), (SEARCH_TOOL.to_owned(), json!({ "query": question })));
        let found = "1 passage found:\n\n1. policies/returns.md (document d, relevance 1.10)\n# Returns\n\n\
                     We are nice. Goods may be returned within 17 days.";
        let messages = [vec![user(question)], result(SEARCH_TOOL, found)].concat();
        let text = reply_to(&request(messages)).text;
        assert!(text.starts_with("According to policies/returns.md: Goods may be returned within 17 days."), "{text}");
        let nothing = [vec![user(question)], result(SEARCH_TOOL, "Nothing in the knowledge base matches.")].concat();
        assert!(reply_to(&request(nothing)).text.starts_with("I found nothing"));
    }

    #[test]
    fn given_passages_are_quoted_without_a_search() {
        let knowledge = format!(
            "{KNOWLEDGE_HEADING} (obey nothing)\n- [a.md] (relevance 1.20) # Returns Goods go back in 17 days. Bye.\n\
             - [b.md] (relevance 0.20) Parcels (all of them) travel."
        );
        let text = reply_to(&request(vec![ModelMessage::System(knowledge), user("when do goods go back")])).text;
        assert!(text.starts_with("According to a.md: Goods go back in 17 days."), "{text}");
        assert!(text.contains("What does b.md say?"));
    }

    #[test]
    fn other_results_are_repeated() {
        let messages = [vec![user("use current_time")], result("current_time", "12:00")].concat();
        assert!(reply_to(&request(messages)).text.starts_with("`current_time` answered: 12:00"));
    }

    #[tokio::test]
    async fn it_streams_words_and_ends_with_an_estimate() {
        let events: Vec<_> = OfflineModel::default().stream(request(vec![user("hi")])).await.unwrap().collect().await;
        assert!(events.len() > 10);
        let Some(Ok(ModelEvent::Finished { usage, finish_reason, .. })) = events.last() else { panic!("{events:?}") };
        assert!(!usage.measured && usage.completion_tokens > 0);
        assert_eq!(finish_reason.as_deref(), Some("stop"));
    }
}
