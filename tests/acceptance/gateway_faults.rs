//! What gateways do wrong, and what comes of it. The model client asks a scripted gateway over real HTTP; each test is
//! one fault.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use jackfield::{
    clock::SystemClock,
    config::Limits,
    ids::ToolCallId,
    model::{
        GatewayClient, ModelClient, ModelError, ModelEvent, ModelMessage, ModelRequest, ModelTool, ModelToolCall,
        ModelUsage,
    },
};
use jackfield_plugin_api::GatewayKey;
use jackfield_tests::model::{
    Script, ScriptedModel,
    script::{self, finish_chunk, text_chunk, tool_chunk},
};
use serde_json::{Value, json};
use tokio::time::Instant;

const KEY: &str = "canary-key-81c2";

/// A client and the gateway it asks.
struct Bench {
    gateway: ScriptedModel,
    client: GatewayClient,
}

/// What a whole call gave.
#[derive(Debug)]
struct Answer {
    events: Vec<ModelEvent>,
    error: Option<ModelError>,
}

impl Bench {
    async fn new(script: Script) -> Self {
        Self::with_limits(script, |_| {}).await
    }

    async fn with_limits(script: Script, change: impl FnOnce(&mut Limits)) -> Self {
        let gateway = ScriptedModel::start(script).await;
        let mut limits = Limits::default();
        limits.model_retry_base = Duration::from_millis(10);
        limits.model_retry_jitter = Duration::from_millis(1);
        limits.model_retry_max = Duration::from_secs(2);
        change(&mut limits);
        let client = GatewayClient::new(&gateway.base_url(), &GatewayKey::new(KEY), &limits, Arc::new(SystemClock));
        Self { gateway, client: client.expect("a loopback address is usable") }
    }

    async fn ask(&self) -> Answer {
        self.ask_for(request("hello")).await
    }

    async fn ask_for(&self, request: ModelRequest) -> Answer {
        let asking = async {
            let mut answer = Answer { events: Vec::new(), error: None };
            match self.client.stream(request).await {
                Err(error) => answer.error = Some(error),
                Ok(mut stream) => {
                    while let Some(event) = stream.next().await {
                        match event {
                            Ok(event) => answer.events.push(event),
                            Err(error) => answer.error = Some(error),
                        }
                    }
                }
            }
            answer
        };
        tokio::time::timeout(Duration::from_secs(20), asking).await.expect("a call ends in time")
    }
}

impl Answer {
    fn texts(&self) -> Vec<&str> {
        let text = |event: &'_ ModelEvent| matches!(event, ModelEvent::Text(_));
        self.events.iter().filter(|event| text(event)).map(text_of).collect()
    }

    fn text(&self) -> String {
        self.texts().concat()
    }

    /// Calls, usage and finish reason of a call that succeeded: `Finished` came once, and last.
    fn finished(&self) -> (&[ModelToolCall], ModelUsage, Option<&str>) {
        assert_eq!(self.error, None);
        let ends = self.events.iter().filter(|event| matches!(event, ModelEvent::Finished { .. })).count();
        assert_eq!(ends, 1, "{:?}", self.events);
        match self.events.last() {
            Some(ModelEvent::Finished { tool_calls, usage, finish_reason }) => {
                (tool_calls, *usage, finish_reason.as_deref())
            }
            other => panic!("the last event is {other:?}"),
        }
    }

    fn calls(&self) -> Vec<(&str, &str)> {
        self.finished().0.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect()
    }

    fn error(&self) -> &ModelError {
        assert!(!self.events.iter().any(|event| matches!(event, ModelEvent::Finished { .. })), "{:?}", self.events);
        self.error.as_ref().expect("the call fails")
    }
}

fn text_of(event: &ModelEvent) -> &str {
    match event {
        ModelEvent::Text(text) | ModelEvent::Reasoning(text) => text,
        ModelEvent::Finished { .. } => "",
    }
}

fn script() -> Script {
    script::script()
}

fn request(text: &str) -> ModelRequest {
    ModelRequest {
        model: "scripted".to_owned(),
        messages: vec![ModelMessage::System("be brief".to_owned()), user(text)],
        tools: Arc::new([]),
        max_tokens: 512,
        temperature: None,
        stream: true,
    }
}

fn user(text: &str) -> ModelMessage {
    ModelMessage::User { text: text.to_owned(), images: Vec::new() }
}

fn says(text: &str) -> ModelMessage {
    ModelMessage::Assistant { text: text.to_owned(), reasoning: String::new(), tool_calls: Vec::new() }
}

fn event(data: impl std::fmt::Display) -> String {
    format!("data: {data}\n\n")
}

#[tokio::test]
async fn a_plain_reply_streams_and_asks_as_the_protocol_says() {
    let bench = Bench::new(script().streams(["Hel", "lo"]).usage(412, 23)).await;
    let answer = bench.ask().await;
    assert_eq!(answer.texts(), ["Hel", "lo"]);
    let usage = ModelUsage { prompt_tokens: 412, completion_tokens: 23, cost_usd: 0.0, measured: true };
    assert_eq!(answer.finished(), (&[][..], usage, Some("stop")));
    let asked = &bench.gateway.requests()[0];
    assert_eq!(asked.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(asked.headers["content-type"], "application/json");
    assert!(asked.headers["user-agent"].starts_with("jackfield/"));
    assert_eq!(
        asked.body,
        json!({
            "model": "scripted",
            "messages": [{ "role": "system", "content": "be brief" }, { "role": "user", "content": "hello" }],
            "max_tokens": 512,
            "stream": true,
            "stream_options": { "include_usage": true },
        })
    );
    bench.gateway.finish();
}

#[tokio::test]
async fn bytes_cut_anywhere_give_the_same_reply() {
    let text = "naïve 🦀 日本語";
    for size in 1..9 {
        let script =
            script().thinks("hm… 🤔", text).cut_every(size).calls("f", json!({ "ä": "🦀" })).cut_every(size).crlf();
        let bench = Bench::new(script).await;
        let answer = bench.ask().await;
        assert_eq!(answer.text(), text, "in pieces of {size} bytes");
        assert_eq!(answer.events[0], ModelEvent::Reasoning("hm… 🤔".to_owned()));
        assert_eq!(bench.ask().await.calls(), [("f", r#"{"ä":"🦀"}"#)]);
        bench.gateway.finish();
    }
}

#[tokio::test]
async fn all_line_ends_comments_and_spellings_are_read() {
    let stop = finish_chunk("stop");
    let body = format!(
        "\u{feff}: hello\r\n\r\ndata:{}\r\n\r\nevent: message\nid: 3\nretry: 5\ndata: {}\n\n:\rdata: {stop}\r\rdata:[DONE]",
        text_chunk("a"),
        text_chunk("b"),
    );
    let bench = Bench::new(script().raw([body]).usage(1, 1)).await;
    assert_eq!(bench.ask().await.texts(), ["a", "b"]);
}

#[tokio::test]
async fn repeated_deltas_are_all_kept() {
    let bench = Bench::new(script().streams(["ha", "ha", "ha", " ", "ha"])).await;
    assert_eq!(bench.ask().await.texts(), ["ha", "ha", "ha", " ", "ha"]);
}

#[tokio::test]
async fn text_that_looks_like_markup_is_text() {
    let text = "<tool_call>{\"name\":\"rm\"}</tool_call><function=f>";
    let bench = Bench::new(script().streams([text])).await;
    let answer = bench.ask().await;
    assert_eq!((answer.text().as_str(), answer.calls().len()), (text, 0));
}

#[tokio::test]
async fn a_delta_of_200_kilobytes_arrives_whole() {
    let text = "é".repeat(100_000);
    let bench = Bench::new(script().streams([text.as_str(), "end"]).calls("f", json!({ "text": text }))).await;
    assert_eq!(bench.ask().await.texts(), [text.as_str(), "end"]);
    let answer = bench.ask().await;
    let arguments: Value = serde_json::from_str(answer.calls()[0].1).expect("the arguments are JSON");
    assert_eq!(arguments["text"], json!(text));
}

#[tokio::test]
async fn tool_calls_come_interleaved_repeated_and_without_ids() {
    let interleaved = [
        json!({ "index": 0, "id": "a", "function": { "name": "first", "arguments": "" } }),
        json!({ "index": 1, "id": "b", "function": { "name": "second", "arguments": "" } }),
        json!({ "index": 1, "function": { "name": "", "arguments": "{\"n\":" } }),
        json!({ "index": 0, "id": "a", "function": { "name": "first", "arguments": "{\"m\":" } }),
        json!({ "index": 1, "function": { "arguments": "2}" } }),
        json!({ "index": 0, "function": { "arguments": "1}" } }),
    ];
    let anonymous = [
        json!({ "function": { "name": "first", "arguments": "{\"m\":1}" } }),
        json!({ "function": { "name": "second", "arguments": { "n": 2 } } }),
    ];
    let expected = [("first", "{\"m\":1}"), ("second", "{\"n\":2}")];
    let all = json!({ "choices": [{ "delta": { "tool_calls": anonymous } }] });
    let script = script()
        .chunks(interleaved.map(tool_chunk).into_iter().chain([finish_chunk("tool_calls")]).collect())
        .chunks(anonymous.map(tool_chunk).into_iter().chain([finish_chunk("stop")]).collect())
        .chunks(vec![all, finish_chunk("tool_calls")]);
    let bench = Bench::new(script).await;
    for _ in 0..3 {
        let answer = bench.ask().await;
        assert_eq!(answer.calls(), expected);
        let calls = answer.finished().0;
        assert!(!calls[0].id.as_str().is_empty() && calls[0].id != calls[1].id, "{calls:?}");
    }
    bench.gateway.finish();
}

#[tokio::test]
async fn an_error_in_the_stream_fails_the_call_with_its_sentence() {
    let error = json!({ "error": { "message": "the model is over capacity", "code": 503 } });
    let first = event(&error);
    let later = event(text_chunk("par")) + &event(&error);
    let bench = Bench::new(script().raw([first]).raw([later])).await;
    let expected = ModelError::InStream("the model is over capacity".to_owned());
    assert_eq!(*bench.ask().await.error(), expected);
    let answer = bench.ask().await;
    assert_eq!((answer.text().as_str(), answer.error()), ("par", &expected));
    bench.gateway.finish();
}

#[tokio::test]
async fn one_damaged_chunk_costs_only_itself_but_a_stream_of_garbage_is_an_error() {
    let damaged = event(text_chunk("a")) + &event("{\"choices\":[{") + &event(text_chunk("b")) + &event("[DONE]");
    let garbage = event("garbage") + &event("{]") + &event("[DONE]");
    let page = "<html><head><title>Welcome</title></head></html>";
    let bench = Bench::new(script().raw([damaged]).raw([garbage]).raw([page])).await;
    assert_eq!(bench.ask().await.text(), "ab");
    assert!(matches!(bench.ask().await.error(), ModelError::Malformed(_)));
    let answer = bench.ask().await;
    assert!(answer.error().to_string().contains("Welcome"), "{answer:?}");
}

#[tokio::test]
async fn a_stream_without_its_end_is_cut_off_unless_the_model_had_finished() {
    let open = event(text_chunk("par"));
    let finished = event(text_chunk("whole")) + &event(finish_chunk("length"));
    let bench = Bench::new(script().raw([&open]).breaks_after(["par"]).raw([&finished]).raw([""])).await;
    for _ in 0..2 {
        let answer = bench.ask().await;
        assert_eq!((answer.text().as_str(), answer.error()), ("par", &ModelError::Truncated));
    }
    let answer = bench.ask().await;
    assert_eq!((answer.text().as_str(), answer.finished().2), ("whole", Some("length")));
    assert_eq!(*bench.ask().await.error(), ModelError::Truncated);
    bench.gateway.finish();
}

#[tokio::test]
async fn an_empty_reply_is_a_reply() {
    let bench = Bench::new(script().streams([]).raw([event("[DONE]")])).await;
    for _ in 0..2 {
        let answer = bench.ask().await;
        assert_eq!((answer.text().as_str(), answer.calls().len()), ("", 0));
    }
}

#[tokio::test]
async fn a_whole_completion_counts_like_a_stream() {
    let body = json!({
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "whole" } }],
        "usage": { "prompt_tokens": 5, "completion_tokens": 1 },
    });
    let bench = Bench::new(script().json(&body).json(&json!({ "error": { "message": "no" } }))).await;
    let answer = bench.ask().await;
    assert_eq!((answer.text().as_str(), answer.finished().1.prompt_tokens), ("whole", 5));
    assert_eq!(*bench.ask().await.error(), ModelError::InStream("no".to_owned()));
}

#[tokio::test]
async fn usage_that_is_missing_is_estimated_and_says_so() {
    let bench = Bench::new(script().says("12345678").no_usage()).await;
    let usage = bench.ask().await.finished().1;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.measured), (4, 2, false));
}

#[tokio::test]
async fn the_last_usage_of_a_stream_counts_wherever_it_stands() {
    let usage = |prompt: u64, completion: u64| json!({ "prompt_tokens": prompt, "completion_tokens": completion });
    let mut first = text_chunk("a");
    first["usage"] = usage(1, 1);
    let mut finish = finish_chunk("stop");
    finish["usage"] = usage(412, 23);
    let bench = Bench::new(script().chunks(vec![first, finish]).no_usage()).await;
    let counted = bench.ask().await.finished().1;
    assert_eq!((counted.prompt_tokens, counted.completion_tokens, counted.measured), (412, 23, true));
}

#[tokio::test]
async fn thinking_is_read_under_both_of_its_names() {
    let thought = |name: &str| json!({ "choices": [{ "index": 0, "delta": { name: "hm" } }] });
    for name in ["reasoning", "reasoning_content"] {
        let bench = Bench::new(script().chunks(vec![thought(name), text_chunk("a"), finish_chunk("stop")])).await;
        let answer = bench.ask().await;
        assert_eq!(answer.events[0], ModelEvent::Reasoning("hm".to_owned()), "{name}");
        assert_eq!(answer.text(), "a");
    }
}

#[tokio::test]
async fn the_price_comes_from_the_headers_else_from_the_catalog() {
    let script =
        script().says("a").header("x-cost-usd", "9").header("x-litellm-response-cost", "0.25").says("b").usage(100, 10);
    let bench = Bench::new(script).await;
    let info = json!({ "max_output_tokens": 64, "input_cost_per_token": 0.001, "output_cost_per_token": 0.01 });
    bench.gateway.knows_models(&[("scripted", info)]);
    assert_eq!(bench.ask().await.finished().1.cost_usd, 0.25);
    let catalog = bench.client.catalog().await;
    assert_eq!(catalog["scripted"].max_output_tokens, Some(64));
    assert!((bench.ask().await.finished().1.cost_usd - 0.2).abs() < 1e-9);
    let requests = bench.gateway.requests();
    assert_eq!(requests[1].body["max_tokens"], 64, "the ceiling of the catalog holds once it is known");
    assert_eq!(bench.gateway.catalog_requests(), 1);
}

#[tokio::test]
async fn a_failing_catalog_is_asked_once_in_a_while_and_never_waited_for() {
    let bench = Bench::with_limits(script().says("a").forever(), |limits| {
        limits.model_catalog_retry = Duration::from_millis(300);
    })
    .await;
    for _ in 0..3 {
        bench.ask().await.finished();
    }
    assert!(bench.client.catalog().await.is_empty());
    assert_eq!(bench.gateway.catalog_requests(), 1);
    tokio::time::sleep(Duration::from_millis(350)).await;
    bench.ask().await.finished();
    bench.gateway.wait_for_catalog_requests(2).await;
}

#[tokio::test]
async fn overload_is_retried_and_retry_after_wins() {
    let script = script().status(429, &[("retry-after", "0.3")], "{}").status(503, &[], "busy").says("at last");
    let bench = Bench::with_limits(script, |limits| limits.model_retry_base = Duration::ZERO).await;
    let started = Instant::now();
    assert_eq!(bench.ask().await.text(), "at last");
    assert!(started.elapsed() >= Duration::from_millis(300));
    bench.gateway.finish();
}

#[tokio::test]
async fn a_pause_that_a_gateway_asks_for_is_capped() {
    let script = script().status(429, &[("retry-after", "86400")], "{}").says("at last");
    let bench = Bench::with_limits(script, |limits| limits.model_retry_max = Duration::from_millis(50)).await;
    let started = Instant::now();
    assert_eq!(bench.ask().await.text(), "at last");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn retries_end_with_what_the_gateway_said() {
    let body = r#"{"error":{"message":"slow down"}}"#;
    let bench = Bench::new(script().status(429, &[], body).forever()).await;
    let expected = ModelError::Status { status: 429, message: "slow down".to_owned() };
    assert_eq!(*bench.ask().await.error(), expected);
    assert_eq!(bench.gateway.requests().len(), 4, "the first attempt and three retries");
}

#[tokio::test]
async fn every_status_that_may_pass_is_asked_again() {
    for status in [429, 500, 502, 503, 504, 520, 522, 527] {
        let bench = Bench::new(script().status(status, &[], "later").says("here")).await;
        assert_eq!(bench.ask().await.text(), "here", "{status}");
        bench.gateway.finish();
    }
}

#[tokio::test]
async fn a_judgement_is_not_asked_for_twice() {
    for status in [400, 401, 403, 404, 422, 501, 302] {
        let bench = Bench::new(script().status(status, &[("location", "http://127.0.0.1:1/")], "no").forever()).await;
        let answer = bench.ask().await;
        assert!(matches!(answer.error(), ModelError::Status { status: told, .. } if *told == status), "{answer:?}");
        assert_eq!(bench.gateway.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_reply_is_retried_and_after_it_is_not() {
    let bench = Bench::new(script().drops().breaks_after([]).says("here").breaks_after(["par"])).await;
    assert_eq!(bench.ask().await.text(), "here");
    assert_eq!(*bench.ask().await.error(), ModelError::Truncated);
    bench.gateway.finish();
}

#[tokio::test]
async fn nobody_listening_is_said_plainly() {
    let gone = ScriptedModel::start(script()).await.base_url();
    let mut limits = Limits::default();
    limits.model_retries = 1;
    limits.model_retry_base = Duration::from_millis(1);
    limits.model_retry_jitter = Duration::ZERO;
    let client = GatewayClient::new(&gone, &GatewayKey::new(KEY), &limits, Arc::new(SystemClock));
    let error = client.expect("the address is fine").stream(request("hello")).await.err();
    let Some(ModelError::Unreachable(reason)) = error else { panic!("{error:?}") };
    assert!(reason.to_lowercase().contains("refused"), "{reason}");
}

#[tokio::test]
async fn silence_ends_the_call_before_and_within_the_reply() {
    let bench = Bench::with_limits(script().hangs().hangs_after(["par"]), |limits| {
        limits.model_idle = Duration::from_millis(150);
    })
    .await;
    assert_eq!(*bench.ask().await.error(), ModelError::Idle(1));
    let answer = bench.ask().await;
    assert_eq!((answer.text().as_str(), answer.error()), ("par", &ModelError::Idle(1)));
    bench.gateway.wait_for_abort(1).await;
    assert_eq!(bench.gateway.requests().len(), 2, "silence is not retried");
}

#[tokio::test]
async fn a_slow_reply_is_not_silence_but_has_an_end() {
    let pause = Duration::from_millis(60);
    let bench = Bench::with_limits(script().paced(5, pause).paced(100, pause), |limits| {
        limits.model_idle = Duration::from_millis(200);
        limits.model_total = Duration::from_millis(900);
    })
    .await;
    assert_eq!(bench.ask().await.texts().len(), 5);
    let answer = bench.ask().await;
    assert_eq!(*answer.error(), ModelError::TooLong(1));
    assert!(answer.texts().len() > 3);
}

#[tokio::test]
async fn a_finished_reply_does_not_wait_for_an_end_mark_that_never_comes() {
    let hanging = script().chunks(vec![text_chunk("whole"), finish_chunk("stop")]).then_hangs();
    let bench = Bench::with_limits(hanging, |limits| limits.model_after_finish = Duration::from_millis(100)).await;
    let started = Instant::now();
    let answer = bench.ask().await;
    assert_eq!((answer.text().as_str(), answer.finished().2), ("whole", Some("stop")));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn dropping_the_stream_drops_the_request() {
    let bench = Bench::new(script().paced(10_000, Duration::from_millis(10))).await;
    let mut stream = bench.client.stream(request("hello")).await.expect("the reply begins");
    assert!(stream.next().await.is_some());
    drop(stream);
    bench.gateway.wait_for_abort(0).await;
}

#[tokio::test]
async fn connections_are_kept_from_call_to_call() {
    // The end of the body comes a moment after the end mark, and the reply does not wait for it.
    let bench = Bench::new(script().says("a").lingers(Duration::from_millis(20)).forever()).await;
    for _ in 0..6 {
        bench.ask().await.finished();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let used: std::collections::BTreeSet<usize> =
        bench.gateway.requests().iter().map(|request| request.connection).collect();
    assert!(used.len() <= 2, "one for the calls, and perhaps the one that asked for the catalog: {used:?}");
}

#[tokio::test]
async fn a_conversation_that_is_too_long_loses_its_oldest_part_once() {
    let refusal = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    let bench =
        Bench::new(script().status(400, &[], refusal).says("fits").status(400, &[], refusal).status(400, &[], refusal))
            .await;
    let long = |name: &str| format!("{name} {}", "x".repeat(400));
    let mut request = request("now");
    request.messages = vec![
        ModelMessage::System("rules".to_owned()),
        user(&long("oldest")),
        says(&long("old")),
        user(&long("new")),
        says("newest"),
        user("now"),
    ];
    assert_eq!(bench.ask_for(request.clone()).await.text(), "fits");
    let asked = bench.gateway.requests();
    let first_words = |at: usize| -> Vec<String> {
        let contents = asked[at].messages().iter().filter_map(|message| message["content"].as_str());
        contents.filter_map(|content| content.split(' ').next()).map(str::to_owned).collect()
    };
    assert_eq!(first_words(0), ["rules", "oldest", "old", "new", "newest", "now"]);
    assert_eq!(first_words(1), ["rules", "new", "newest", "now"]);
    assert!(matches!(bench.ask_for(request).await.error(), ModelError::ContextOverflow(_)));
    bench.gateway.finish();
}

#[tokio::test]
async fn broken_histories_are_repaired_before_they_are_sent() {
    let call =
        |id: &str| ModelToolCall { id: ToolCallId::new(id), name: "f.g".to_owned(), arguments: "{oops".to_owned() };
    let result = |id: &str| ModelMessage::Tool {
        call_id: ToolCallId::new(id),
        name: "f.g".to_owned(),
        content: "done".to_owned(),
    };
    let mut request = request("now");
    let calls = vec![call("1"), call("2")];
    request.messages.extend([
        result("0"),
        ModelMessage::Assistant { text: String::new(), reasoning: String::new(), tool_calls: calls },
        result("2"),
        user("go on"),
    ]);
    // The gateway itself checks the pairs and refuses the request otherwise.
    let bench = Bench::new(script().says("fine")).await;
    assert_eq!(bench.ask_for(request).await.text(), "fine");
    let results = bench.gateway.requests()[0].tool_results().join(" | ");
    assert!(results.contains("interrupted") && results.ends_with("| done"), "{results}");
}

#[tokio::test]
async fn the_gateway_refuses_orphans_so_that_every_test_checks_them() {
    let gateway = ScriptedModel::start(script().says("never")).await;
    let orphan = json!({ "model": "m", "messages": [{ "role": "tool", "tool_call_id": "1", "content": "x" }] });
    let body = orphan.to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = gateway.base_url();
    let address = address.trim_start_matches("http://").trim_end_matches("/v1");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the gateway listens");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("the gateway reads");
    let mut answer = vec![0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.expect("the gateway answers");
    assert_eq!(answer, b"HTTP/1.1 400");
    let violations = gateway.take_violations();
    assert!(violations.iter().any(|violation| violation.contains("was not called")), "{violations:?}");
}

#[tokio::test]
async fn a_refused_field_is_left_out_and_that_is_remembered() {
    let refusal = r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."}}"#;
    let bench = Bench::new(script().status(400, &[], refusal).says("a").says("b")).await;
    assert_eq!(bench.ask().await.text(), "a");
    assert_eq!(bench.ask().await.text(), "b");
    for request in &bench.gateway.requests()[1..] {
        assert_eq!((&request.body["max_completion_tokens"], request.body.get("max_tokens")), (&json!(512), None));
    }
}

#[tokio::test]
async fn neither_key_nor_prompt_is_in_an_error() {
    let prompt = "my card number is 4711 0815 4242, keep it secret";
    let echo = json!({ "error": { "message": format!("bad key {KEY} for input '{prompt}'") } });
    let script = script().status(401, &[], &echo.to_string()).raw([event(&echo)]);
    let bench = Bench::new(script).await;
    for _ in 0..2 {
        let answer = bench.ask_for(request(prompt)).await;
        let text = format!("{} {:?}", answer.error(), answer.error());
        assert!(!text.contains(KEY) && !text.contains("4711"), "{text}");
        assert!(text.contains("bad key"), "{text}");
    }
}

#[tokio::test]
async fn limits_on_lines_and_replies_hold() {
    let bench = Bench::with_limits(script().says(&"x".repeat(5000)).paced(100, Duration::ZERO), |limits| {
        limits.model_line_bytes = 4096;
        limits.model_reply_bytes = 300;
    })
    .await;
    for _ in 0..2 {
        let answer = bench.ask().await;
        assert!(matches!(answer.error(), ModelError::Malformed(reason) if reason.contains("more than")), "{answer:?}");
    }
}

#[tokio::test]
async fn tools_are_offered_as_they_are() {
    let bench = Bench::new(script().says("a")).await;
    let mut request = request("hello");
    request.tools = Arc::new([ModelTool {
        name: "f".to_owned(),
        description: "does f".to_owned(),
        parameters: json!({ "type": "object", "properties": {} }),
    }]);
    bench.ask_for(request).await.finished();
    let asked = &bench.gateway.requests()[0];
    assert_eq!((asked.tool_names(), &asked.body["tool_choice"]), (vec!["f"], &json!("auto")));
}
