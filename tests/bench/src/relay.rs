//! The bare relay: the protocol without an agent, the least a server can do.
//!
//! One upstream request on a kept connection per turn; each model delta is copied, still escaped, into one
//! `stream_token` frame; everything that one upstream read brought leaves in one write. It has no history, no tools and
//! no limits, answers one frame of a connection at a time, and holds nothing between turns but the two sockets.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use memchr::memmem;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::wire::{Wire, header, post, put_text};

/// Serves until the process ends.
pub(crate) async fn run(port: u16, gateway: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on ws://{}/ws", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A connection that breaks ends its task; the driver notices at its own end.
            let _ = serve(stream, gateway).await;
        });
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    action: String,
    request_id: String,
    #[serde(default)]
    message: String,
}

async fn serve(stream: TcpStream, gateway: SocketAddr) -> anyhow::Result<()> {
    let mut client = Wire::new(stream)?;
    shake_hands(&mut client).await?;
    let mut upstream = None;
    while let Some(frame) = client.text().await? {
        let action: Action = serde_json::from_slice(&frame)?;
        match action.action.as_str() {
            "create_conversation_session" => reply(&mut client, &session_ready(&action.request_id)).await?,
            "send_message" => {
                if upstream.is_none() {
                    upstream = Some(Wire::connect(gateway).await?);
                }
                turn(&mut client, upstream.as_mut().context("the gateway was connected above")?, &action).await?;
            }
            _ => reply(&mut client, &pong(&action.request_id)).await?,
        }
    }
    Ok(())
}

async fn shake_hands(client: &mut Wire) -> anyhow::Result<()> {
    let head = client.head().await?.context("the client left before its handshake")?;
    let key = header(&head, "sec-websocket-key").context("the request is not a WebSocket handshake")?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    client.write(answer.as_bytes()).await
}

async fn reply(client: &mut Wire, payload: &str) -> anyhow::Result<()> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    put_text(&mut out, payload.as_bytes());
    client.write(&out).await
}

/// Acknowledges, asks, copies, answers.
async fn turn(client: &mut Wire, upstream: &mut Wire, action: &Action) -> anyhow::Result<()> {
    reply(client, &accepted(&action.request_id)).await?;
    upstream.write(&post("/v1/chat/completions", &question(&action.message))).await?;
    let head = upstream.head().await?.context("the gateway closed the connection")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "the gateway answered {head}");

    let mut frames = Frames::new(&action.request_id);
    let mut lines = Vec::new();
    loop {
        let ended = upstream.chunks(&mut lines).await?;
        frames.take_lines(&mut lines);
        if ended {
            frames.finish();
        }
        client.write(&frames.out).await?;
        frames.out.clear();
        if ended {
            return Ok(());
        }
    }
}

/// Turns the lines of one answer into frames.
struct Frames<'a> {
    request_id: &'a str,
    /// The answer so far, escaped as the model sent it.
    reply: Vec<u8>,
    frame: Vec<u8>,
    /// Frames that wait to be written.
    out: Vec<u8>,
}

impl<'a> Frames<'a> {
    fn new(request_id: &'a str) -> Self {
        Self { request_id, reply: Vec::new(), frame: Vec::new(), out: Vec::new() }
    }

    /// Takes all whole lines out of `lines`.
    fn take_lines(&mut self, lines: &mut Vec<u8>) {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', &lines[start..]) {
            if let Some(token) = content(&lines[start..start + length]) {
                self.token(token);
            }
            start += length + 1;
        }
        lines.drain(..start);
    }

    fn token(&mut self, token: &[u8]) {
        self.reply.extend_from_slice(token);
        let id = self.request_id.as_bytes();
        self.frame.clear();
        for part in [
            br#"{"type":"stream_token","requestId":""#.as_slice(),
            id,
            br#"","token":""#,
            token,
            br#"","data":{"requestId":""#,
            id,
            br#"","token":""#,
            token,
            br#""},"timestamp":"#,
        ] {
            self.frame.extend_from_slice(part);
        }
        write!(self.frame, "{}}}", now_ms()).expect("a vector takes every write");
        put_text(&mut self.out, &self.frame);
    }

    fn finish(&mut self) {
        let (id, now, message_id) = (self.request_id, now_ms(), new_id());
        let reply = String::from_utf8_lossy(&self.reply);
        let payload = format!(
            r#"{{"type":"eventual_response","requestId":"{id}","status":200,"data":{{"requestId":"{id}","status":200,"data":{{"messageId":"{message_id}","response":{{"responseParts":["{}"],"customerHappinessScore":0.5,"needsSatisfactionScore":0.5,"requestSummary":"","resolutionStatus":"in_progress","suggestedNextActions":[]}},"needsEscalation":false}}}},"timestamp":{now}}}"#,
            reply.trim_end()
        );
        put_text(&mut self.out, payload.as_bytes());
    }
}

/// The text of a delta as it stands between its quotes; `None` for an empty one and for every other line.
fn content(line: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = br#""content":""#;
    let start = memmem::find(line, KEY)? + KEY.len();
    let text = &line[start..];
    let mut end = 0;
    loop {
        end += memchr::memchr2(b'"', b'\\', text.get(end..)?)?;
        if text[end] == b'"' {
            return (end > 0).then(|| &text[..end]);
        }
        end += 2;
    }
}

fn question(message: &str) -> String {
    serde_json::json!({
        "model": "bench",
        "messages": [{"role": "user", "content": message}],
        "stream": true,
        "stream_options": {"include_usage": true},
    })
    .to_string()
}

fn accepted(id: &str) -> String {
    let now = now_ms();
    format!(
        r#"{{"type":"immediate_response","requestId":"{id}","status":202,"message":"working on it","data":{{}},"timestamp":{now}}}"#
    )
}

fn pong(id: &str) -> String {
    let now = now_ms();
    format!(r#"{{"type":"pong","requestId":"{id}","data":{{"timestamp":{now}}},"timestamp":{now}}}"#)
}

fn session_ready(id: &str) -> String {
    let (session, conversation, agent, user, other) = (new_id(), new_id(), new_id(), new_id(), new_id());
    let now = now_ms();
    format!(
        r#"{{"type":"immediate_response","requestId":"{id}","status":200,"message":"session ready","data":{{"sessionId":"{session}","conversationId":"{conversation}","agentId":"{agent}","agentName":"relay","userParticipantId":"{user}","agentParticipantId":"{other}"}},"timestamp":{now}}}"#
    )
}

/// Unique in this process, and of the right shape.
fn new_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("00000000-0000-4000-8000-{:012x}", LAST.fetch_add(1, Ordering::Relaxed))
}

#[allow(clippy::disallowed_methods)] // The relay is a program of its own; nobody decides the time for it.
fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_copied_with_its_escapes() {
        let line = br#"data: {"choices":[{"delta":{"content":"say \"hi\" \\"},"finish_reason":null}]}"#;
        assert_eq!(content(line), Some(br#"say \"hi\" \\"#.as_slice()));
    }

    #[test]
    fn a_line_without_text_makes_no_frame() {
        assert_eq!(content(br#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#), None);
        assert_eq!(content(b"data: [DONE]"), None);
    }

    #[test]
    fn lines_that_are_cut_anywhere_make_the_same_frames() {
        let stream = b"data: {\"delta\":{\"content\":\"one\"}}\n\ndata: {\"delta\":{\"content\":\"two\"}}\n\n";
        for cut in 0..stream.len() {
            let mut frames = Frames::new("r1");
            let mut lines = stream[..cut].to_vec();
            frames.take_lines(&mut lines);
            lines.extend_from_slice(&stream[cut..]);
            frames.take_lines(&mut lines);
            assert_eq!((frames.reply.as_slice(), lines.len()), (b"onetwo".as_slice(), 0), "cut at {cut}");
        }
    }

    #[test]
    fn every_frame_is_json() {
        let mut frames = Frames::new("r1");
        frames.token(br#"say \"hi\" "#);
        let payloads =
            [accepted("r1"), pong("r1"), session_ready("r1"), String::from_utf8(frames.frame.clone()).unwrap()];
        for payload in payloads {
            serde_json::from_str::<serde_json::Value>(&payload).unwrap();
        }
        frames.out.clear();
        frames.finish();
        let payload = frames.out.iter().position(|byte| *byte == b'{').unwrap();
        serde_json::from_slice::<serde_json::Value>(&frames.out[payload..]).unwrap();
    }
}
