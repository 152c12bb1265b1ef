//! The scripted gateway: an OpenAI-compatible stream of as many tokens as the last user message asks for, at once or
//! paced. Its work is to be quick, so that what is measured is the server in front of it.
//!
//! Each token is an event of its own in a chunk of its own, as gateways that flush per token send them.

use std::{io::Write as _, time::Duration};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    time::MissedTickBehavior,
};

use crate::wire::{Wire, header};

/// The text of every token.
pub(crate) const TOKEN: &str = "tok ";

/// Unpaced tokens are written in pieces of about this size.
const WRITE_BYTES: usize = 64 * 1024;

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// Serves until the process ends.
pub(crate) async fn run(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}/v1", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that leaves in the middle of an answer has cancelled; there is nobody to tell.
            let _ = serve(stream).await;
        });
    }
}

/// Answers the requests of one kept connection, one after the other.
async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let mut wire = Wire::new(stream)?;
    while let Some(head) = wire.head().await? {
        let length = header(&head, "content-length").map_or(Ok(0), str::parse)?;
        let body = wire.body(length).await?;
        if head.starts_with("POST ") && head.contains("/chat/completions ") {
            answer(&mut wire, Script::of(&body)?).await?;
        } else {
            wire.write(NOT_FOUND).await?;
        }
    }
    Ok(())
}

async fn answer(wire: &mut Wire, script: Script) -> anyhow::Result<()> {
    let mut out = STREAM_HEAD.to_vec();
    put_event(&mut out, &delta(r#"{"role":"assistant","content":""}"#, "null"));
    let token = token_event();
    if script.pace.is_zero() {
        write_at_once(wire, &mut out, &token, script.tokens).await?;
    } else {
        write_paced(wire, &mut out, &token, script).await?;
    }
    put_event(&mut out, &delta("{}", r#""stop""#));
    put_event(&mut out, &usage(script.tokens));
    put_event(&mut out, "[DONE]");
    out.extend_from_slice(b"0\r\n\r\n");
    wire.write(&out).await
}

async fn write_at_once(wire: &mut Wire, out: &mut Vec<u8>, token: &[u8], tokens: u64) -> anyhow::Result<()> {
    for _ in 0..tokens {
        out.extend_from_slice(token);
        if out.len() >= WRITE_BYTES {
            wire.write(out).await?;
            out.clear();
        }
    }
    Ok(())
}

async fn write_paced(wire: &mut Wire, out: &mut Vec<u8>, token: &[u8], script: Script) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(script.pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..script.tokens {
        ticks.tick().await;
        out.extend_from_slice(token);
        wire.write(out).await?;
        out.clear();
    }
    Ok(())
}

/// What one request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Script {
    tokens: u64,
    pace: Duration,
}

impl Script {
    /// Reads `tokens=N` and `pace_ms=M` out of the last user message of a request.
    fn of(body: &[u8]) -> anyhow::Result<Self> {
        let request: Request = serde_json::from_slice(body).context("the request is not a chat completion")?;
        let last = request.messages.iter().rfind(|message| message.role == "user");
        let text = last.and_then(|message| message.content.as_str()).unwrap_or_default();
        Ok(Self {
            tokens: number(text, "tokens=").unwrap_or(1),
            pace: Duration::from_millis(number(text, "pace_ms=").unwrap_or(0)),
        })
    }
}

fn number(text: &str, field: &str) -> Option<u64> {
    text.split_whitespace().find_map(|word| word.strip_prefix(field))?.parse().ok()
}

#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

fn token_event() -> Vec<u8> {
    let mut event = Vec::new();
    put_event(&mut event, &delta(&format!(r#"{{"content":"{TOKEN}"}}"#), "null"));
    event
}

fn delta(delta: &str, finish_reason: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1750000000,"model":"bench","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish_reason}}}]}}"#
    )
}

fn usage(tokens: u64) -> String {
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1750000000,"model":"bench","choices":[],"usage":{{"prompt_tokens":7,"completion_tokens":{tokens},"total_tokens":{}}}}}"#,
        tokens + 7
    )
}

/// Adds one event in a chunk of its own.
fn put_event(out: &mut Vec<u8>, data: &str) {
    let length = "data: \n\n".len() + data.len();
    write!(out, "{length:x}\r\ndata: {data}\n\n\r\n").expect("a vector takes every write");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_user_message_is_the_script() {
        let body = br#"{"model":"m","messages":[
            {"role":"system","content":"tokens=5"},
            {"role":"user","content":"tokens=3"},
            {"role":"assistant","content":null},
            {"role":"user","content":"please tokens=2000 pace_ms=20"}]}"#;
        let script = Script::of(body).unwrap();
        assert_eq!(script, Script { tokens: 2000, pace: Duration::from_millis(20) });
    }

    #[test]
    fn a_message_that_asks_for_nothing_gets_one_token() {
        let script = Script::of(br#"{"messages":[{"role":"user","content":"hello"}]}"#).unwrap();
        assert_eq!(script, Script { tokens: 1, pace: Duration::ZERO });
    }
}
