//! The measuring client: one connection to a server, one turn at a time, and as little work per frame as can be.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use memchr::memmem;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    gateway::TOKEN,
    wire::{Wire, header, post, put_masked_text},
};

/// A turn that takes longer has failed.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// What a model is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    /// Tokens of the answer.
    pub(crate) tokens: u64,
    /// Time between two of them; zero for all at once.
    pub(crate) pace: Duration,
}

impl Question {
    /// A short turn.
    pub(crate) const ONE_TOKEN: Self = Self::at_once(1);

    /// That many tokens without a pause.
    pub(crate) const fn at_once(tokens: u64) -> Self {
        Self { tokens, pace: Duration::ZERO }
    }

    fn text(self) -> String {
        format!("tokens={} pace_ms={}", self.tokens, self.pace.as_millis())
    }
}

/// What one turn looked like from here.
#[derive(Clone, Copy)]
pub(crate) struct TurnFigures {
    /// From sending the message to having read the answer.
    pub(crate) total: Duration,
    /// From sending the message to having read the first token.
    pub(crate) first_token: Duration,
    /// Frames that carried tokens; fewer than tokens when the server merges.
    pub(crate) token_frames: u64,
}

/// A connection with a session.
pub(crate) struct Client {
    wire: Wire,
    session_id: String,
    requests: u64,
    out: Vec<u8>,
}

impl Client {
    /// Connects and creates a session.
    pub(crate) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(addr).await?;
        let ask = format!(
            "GET /ws HTTP/1.1\r\nhost: {addr}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        wire.write(ask.as_bytes()).await?;
        let head = wire.head().await?.context("the server closed instead of shaking hands")?;
        ensure!(head.starts_with("HTTP/1.1 101"), "expected a WebSocket handshake, found {head}");
        let mut client = Self { wire, session_id: String::new(), requests: 0, out: Vec::new() };
        client.new_session().await?;
        Ok(client)
    }

    /// Leaves the conversation and its history behind.
    pub(crate) async fn new_session(&mut self) -> anyhow::Result<()> {
        let frame = r#"{"action":"create_conversation_session","requestId":"create","agentId":"7d1c2a34-0000-4000-8000-000000000001"}"#;
        self.send(frame).await?;
        let answer: Value = serde_json::from_slice(&self.frame().await?)?;
        let id = answer["data"]["sessionId"].as_str().with_context(|| format!("expected a session, found {answer}"))?;
        self.session_id = id.to_owned();
        Ok(())
    }

    /// Runs one turn to its end and checks that every token came.
    pub(crate) async fn turn(&mut self, question: Question) -> anyhow::Result<TurnFigures> {
        timeout(TURN_LIMIT, self.unbounded_turn(question)).await.context("a turn did not end in time")?
    }

    async fn unbounded_turn(&mut self, question: Question) -> anyhow::Result<TurnFigures> {
        self.requests += 1;
        let frame = format!(
            r#"{{"action":"send_message","requestId":"r{}","sessionId":"{}","message":"{}"}}"#,
            self.requests,
            self.session_id,
            question.text()
        );
        let start = Instant::now();
        self.send(&frame).await?;
        let mut first_token = None;
        let (mut token_frames, mut token_bytes) = (0, 0);
        loop {
            let frame = self.frame().await?;
            match field(&frame, br#""type":""#) {
                Some(b"stream_token") => {
                    first_token.get_or_insert_with(|| start.elapsed());
                    token_frames += 1;
                    token_bytes += field(&frame, br#""token":""#).map_or(0, <[u8]>::len);
                }
                Some(b"eventual_response") => break,
                Some(b"immediate_response" | b"keepalive") => {}
                _ => bail!("expected a token or the answer, found {}", String::from_utf8_lossy(&frame)),
            }
        }
        let total = start.elapsed();
        let expected = usize::try_from(question.tokens)? * TOKEN.len();
        ensure!(token_bytes == expected, "expected {expected} bytes of tokens, found {token_bytes}");
        let first_token = first_token.context("the answer came without a token")?;
        Ok(TurnFigures { total, first_token, token_frames })
    }

    async fn send(&mut self, frame: &str) -> anyhow::Result<()> {
        self.out.clear();
        put_masked_text(&mut self.out, frame.as_bytes());
        self.wire.write(&self.out).await
    }

    async fn frame(&mut self) -> anyhow::Result<BytesMut> {
        self.wire.text().await?.context("the server closed the connection")
    }
}

/// The text of the first field of this name, up to the next quote; `key` is the name with its quotes and the opening one.
fn field<'a>(frame: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let start = memmem::find(frame, key)? + key.len();
    let length = memchr::memchr(b'"', &frame[start..])?;
    Some(&frame[start..start + length])
}

/// A kept connection straight to the gateway: what a turn would cost without a server.
pub(crate) struct DirectClient {
    wire: Wire,
}

impl DirectClient {
    /// Connects.
    pub(crate) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { wire: Wire::connect(addr).await? })
    }

    /// Asks and reads the answer to its end.
    pub(crate) async fn ask(&mut self, question: Question) -> anyhow::Result<Duration> {
        let body = format!(
            r#"{{"model":"bench","messages":[{{"role":"user","content":"{}"}}],"stream":true}}"#,
            question.text()
        );
        let start = Instant::now();
        self.wire.write(&post("/v1/chat/completions", &body)).await?;
        let head = self.wire.head().await?.context("the gateway closed the connection")?;
        ensure!(header(&head, "transfer-encoding").is_some(), "expected a stream, found {head}");
        let mut contents = Vec::new();
        while !timeout(TURN_LIMIT, self.wire.chunks(&mut contents)).await?? {
            contents.clear();
        }
        Ok(start.elapsed())
    }
}
