//! A client that speaks plain WebSocket frames and trusts nothing: every frame it reads is checked for its strict shape
//! and for its place in its turn, and a frame that breaks a rule fails the test with its text.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt, StreamExt};
use jackfield::protocol::schema::Extensions;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue},
    },
};

use crate::{frames::check_frame_for, numbering::Numbering, ordering::Ordering};

/// An agent id that every client can read back.
pub const AGENT_ID: &str = "7d1c2a34-0000-4000-8000-000000000001";

/// How long a test waits for a frame before it fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct TestClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    ordering: Ordering,
    numbering: Numbering,
    declared: Extensions,
    /// Frames that were read while waiting for another.
    put_aside: VecDeque<Value>,
    /// Everything that was read, for the message of a failure.
    seen: Vec<Value>,
    last_id: u64,
    patience: Duration,
}

/// A session as the create reply described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestSession {
    /// The session.
    pub id: String,
    /// Its conversation.
    pub conversation_id: String,
    /// The visitor.
    pub user_participant_id: String,
    /// The agent.
    pub agent_participant_id: String,
}

/// How to connect, beyond the address.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    url: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

/// The server's answer to a handshake that it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Connect {
    /// A connection to `ws://HOST:PORT/ws`.
    pub fn to(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Sends a token, as browsers do: in the query.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Pretends to be a page of this origin.
    #[must_use]
    pub fn origin(self, origin: &str) -> Self {
        self.header("origin", origin)
    }

    /// Sends a header; `host` replaces the one that the address gives.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Connects, or tells how the server refused.
    pub async fn open(self) -> Result<TestClient, Refused> {
        let mut url = self.url;
        if let Some(token) = &self.token {
            let separator = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{separator}token={}", percent_encoded(token));
        }
        let mut request = url.into_client_request().expect("the test gives a WebSocket address");
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("the test gives a header name");
            let value = HeaderValue::from_str(value).expect("the test gives a header value");
            request.headers_mut().insert(name, value);
        }
        let connecting = connect_async_with_config(request, None, true);
        match timeout(PATIENCE, connecting).await.expect("the server answers the handshake") {
            Ok((socket, _)) => Ok(TestClient::over(socket)),
            Err(Error::Http(response)) => {
                let status = response.status().as_u16();
                let body = response.into_body().unwrap_or_default();
                Err(Refused { status, body: String::from_utf8_lossy(&body).into_owned() })
            }
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }
}

impl TestClient {
    /// Connects to `ws://HOST:PORT/ws` without a token, as a program does.
    pub async fn connect(url: &str) -> Self {
        let connected = Connect::to(url).open().await;
        connected.unwrap_or_else(|refused| panic!("the server refused the connection: {refused:?}"))
    }

    fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self {
            socket,
            ordering: Ordering::default(),
            numbering: Numbering::default(),
            declared: Extensions::default(),
            put_aside: VecDeque::new(),
            seen: Vec::new(),
            last_id: 0,
            patience: PATIENCE,
        }
    }

    /// Waits longer, or less long, for frames.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A request id that this connection has not used yet.
    pub fn fresh_id(&mut self) -> String {
        self.last_id += 1;
        format!("r{}", self.last_id)
    }

    /// Sends a frame as it is.
    pub async fn send(&mut self, frame: Value) {
        self.ordering.sent(&frame);
        self.numbering.sent(&frame);
        if frame["action"] == "create_conversation_session" {
            let declares = |flag: &str| frame["supports"].as_array().is_some_and(|flags| flags.contains(&json!(flag)));
            self.declared.resume |= declares("resume");
            self.declared.tool_progress |= declares("tool_progress");
        }
        self.send_text(&frame.to_string()).await;
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the connection takes frames");
    }

    /// Sends bytes, which the protocol does not know.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).await.expect("the connection takes frames");
    }

    /// Sends a frame under a fresh request id, unless it has one, and gives the first frame that answers it.
    pub async fn request(&mut self, mut frame: Value) -> Value {
        if frame.get("requestId").is_none() {
            frame["requestId"] = json!(self.fresh_id());
        }
        let request_id = frame["requestId"].as_str().expect("a request id is a string").to_owned();
        self.send(frame).await;
        self.next_of(&request_id).await
    }

    /// Opens a session on a new conversation.
    pub async fn create_session(&mut self) -> TestSession {
        self.create_session_with(json!({})).await
    }

    /// Opens a session, with these fields in the create frame.
    pub async fn create_session_with(&mut self, fields: Value) -> TestSession {
        let mut frame = json!({"action": "create_conversation_session", "agentId": AGENT_ID});
        for (key, value) in fields.as_object().expect("the fields are an object") {
            frame[key] = value.clone();
        }
        let reply = self.request(frame).await;
        assert_eq!(reply["type"], "immediate_response", "the session was refused: {reply}");
        let key = |key: &str| reply["data"][key].as_str().expect("the shape was checked").to_owned();
        TestSession {
            id: key("sessionId"),
            conversation_id: key("conversationId"),
            user_participant_id: key("userParticipantId"),
            agent_participant_id: key("agentParticipantId"),
        }
    }

    /// Says something and gives the request id under which the turn's events come.
    pub async fn send_message(&mut self, session: &TestSession, message: &str) -> String {
        self.send_message_with(session, message, json!({})).await
    }

    /// Says something, with these fields in the frame.
    pub async fn send_message_with(&mut self, session: &TestSession, message: &str, fields: Value) -> String {
        let mut frame = json!({
            "action": "send_message", "requestId": self.fresh_id(), "sessionId": session.id, "message": message
        });
        for (key, value) in fields.as_object().expect("the fields are an object") {
            frame[key] = value.clone();
        }
        let request_id = frame["requestId"].as_str().expect("a turn needs a request id").to_owned();
        self.send(frame).await;
        request_id
    }

    /// Says something and gives all frames of the turn.
    pub async fn turn(&mut self, session: &TestSession, message: &str) -> Vec<Value> {
        let request_id = self.send_message(session, message).await;
        self.turn_to_end(&request_id).await
    }

    /// Answers a confirmation under the turn's id; the reply comes among the turn's frames.
    pub async fn confirm(&mut self, session: &TestSession, request_id: &str, approved: bool) {
        self.send(json!({
            "action": "confirm_tool_action", "requestId": request_id, "sessionId": session.id, "approved": approved
        }))
        .await;
    }

    /// Answers a form under the turn's id, with these fields in the frame; the reply comes among the turn's frames.
    pub async fn submit(&mut self, session: &TestSession, request_id: &str, fields: Value) {
        let mut frame = json!({"action": "submit_interaction", "requestId": request_id, "sessionId": session.id});
        for (key, value) in fields.as_object().expect("the fields are an object") {
            frame[key] = value.clone();
        }
        self.send(frame).await;
    }

    /// Stops the turn that this connection runs.
    pub async fn cancel(&mut self) {
        self.send(json!({"action": "cancel"})).await;
    }

    /// The next frame, except `keepalive`.
    pub async fn next_frame(&mut self) -> Value {
        match self.put_aside.pop_front() {
            Some(frame) => frame,
            None => self.read().await,
        }
    }

    /// The next frame, except `keepalive`, if one comes within this time.
    pub async fn frame_within(&mut self, duration: Duration) -> Option<Value> {
        match self.put_aside.pop_front() {
            Some(frame) => Some(frame),
            None => timeout(duration, self.read_unhurried()).await.ok().flatten(),
        }
    }

    /// The next frame of this request id, except `keepalive`. Other frames are put aside.
    pub async fn next_of(&mut self, request_id: &str) -> Value {
        if let Some(index) = self.put_aside.iter().position(|frame| frame["requestId"] == request_id) {
            return self.put_aside.remove(index).expect("the position was found");
        }
        loop {
            let frame = self.read().await;
            if frame["requestId"] == request_id {
                return frame;
            }
            self.put_aside.push_back(frame);
        }
    }

    /// The next frame, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next_frame().await;
        assert_eq!(frame["type"], kind, "expected {kind}, read {frame} after {}", self.history());
        frame
    }

    /// The next frame, which has to be an error of this code.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let frame = self.expect("error").await;
        assert_eq!(frame["error"]["code"], code, "expected {code}, read {frame}");
        frame
    }

    /// Skips frames of a turn up to the first of this type.
    pub async fn skip_to(&mut self, request_id: &str, kind: &str) -> Value {
        loop {
            let frame = self.next_of(request_id).await;
            if frame["type"] == kind {
                return frame;
            }
            let is_end = matches!(frame["type"].as_str(), Some("eventual_response" | "cancelled" | "error"));
            assert!(!is_end, "expected {kind}, the turn ended with {frame}");
        }
    }

    /// All frames of a turn that are still to come, up to and with the one that ends it.
    pub async fn turn_to_end(&mut self, request_id: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next_of(request_id).await;
            let is_end = match frame["type"].as_str() {
                Some("eventual_response" | "cancelled") => true,
                // An error may also answer another frame under the turn's id, which does not end the turn.
                Some("error") => self.ordering.is_over(request_id),
                _ => false,
            };
            frames.push(frame);
            if is_end {
                return frames;
            }
        }
    }

    /// Fails when a frame comes within this time; `keepalive` does not count.
    pub async fn expect_silence(&mut self, duration: Duration) {
        assert_eq!(self.put_aside.front(), None, "a frame was read that nobody asked for");
        if let Ok(frame) = timeout(duration, self.read_unhurried()).await {
            panic!("expected silence, read {frame:?}");
        }
    }

    /// Reads until the server closes, and gives the code of its close frame; `None` when it sent none.
    pub async fn closed(&mut self) -> Option<u16> {
        let patience = self.patience;
        let end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => {
                        // Sends the close frame that answers the server's, for which it may be waiting.
                        let _ = self.socket.flush().await;
                        return frame.map(|frame| frame.code.into());
                    }
                    Some(Ok(Message::Text(text))) => drop(self.check(&text)),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(patience, end).await.expect("the server closes the connection")
    }

    /// Closes as clients do.
    pub async fn close(mut self) {
        // The server may have closed before, which is as good.
        let _ = self.socket.close(None).await;
    }

    /// The connection itself, for what this client does not know. Frames read from it are not checked.
    pub fn socket(&mut self) -> &mut WebSocketStream<MaybeTlsStream<TcpStream>> {
        &mut self.socket
    }

    async fn read(&mut self) -> Value {
        match timeout(self.patience, self.read_unhurried()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the connection ended after {}", self.history()),
            Err(_) => panic!("no frame came for {:?} after {}", self.patience, self.history()),
        }
    }

    /// The next frame except `keepalive`; `None` when the connection has ended.
    async fn read_unhurried(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => {
                    let frame = self.check(&text);
                    if frame["type"] != "keepalive" {
                        return Some(frame);
                    }
                }
                Ok(Message::Binary(bytes)) => panic!("the server sent {} bytes that are no text", bytes.len()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn check(&mut self, text: &str) -> Value {
        let frame: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("the server sent no JSON ({error}): {text}"));
        let shape = check_frame_for(&frame, self.declared);
        shape.unwrap_or_else(|problem| panic!("a frame has the wrong shape: {problem}\n{text}"));
        let order = self.ordering.received(&frame);
        order.unwrap_or_else(|problem| {
            panic!("a frame is in the wrong place: {problem}\n{text}\nafter {}", self.history())
        });
        let number = self.numbering.received(&frame, self.declared.tool_progress);
        number.unwrap_or_else(|problem| {
            panic!("a frame has the wrong number: {problem}\n{text}\nafter {}", self.history())
        });
        self.seen.push(frame.clone());
        frame
    }

    /// The last frames that were read, for the message of a failure.
    fn history(&self) -> String {
        let last = self.seen.iter().rev().take(12).rev();
        last.map(|frame| format!("\n  {frame}")).collect()
    }
}

/// The text that a client shows: all `stream_token`s, one after the other.
pub fn streamed_text(frames: &[Value]) -> String {
    let tokens = frames.iter().filter(|frame| frame["type"] == "stream_token");
    tokens.filter_map(|frame| frame["token"].as_str()).collect()
}

/// The text of the turn's answer; fails when the turn ended otherwise.
pub fn answer_text(frames: &[Value]) -> String {
    let answer = answer(frames);
    let parts = answer["response"]["responseParts"].as_array().expect("the shape was checked");
    parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n\n")
}

/// The content of the turn's `eventual_response`; fails when the turn ended otherwise.
pub fn answer(frames: &[Value]) -> &Value {
    let last = frames.last().expect("the turn has frames");
    assert_eq!(last["type"], "eventual_response", "the turn ended otherwise: {last}");
    &last["data"]["data"]
}

/// The types of frames, in order, with neighbours of one type as one: what a test compares with a turn's plan.
pub fn kinds(frames: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = frames.iter().filter_map(|frame| frame["type"].as_str()).collect();
    kinds.dedup();
    kinds
}

/// The tool results of a turn: name, whether it failed, text.
pub fn tool_results(frames: &[Value]) -> Vec<(&str, bool, &str)> {
    let results = frames.iter().filter_map(|frame| frame.pointer("/data/state/rawResponse/toolResult"));
    let fields = |result| {
        let result: &Value = result;
        Some((result["name"].as_str()?, result["isError"].as_bool()?, result["result"].as_str()?))
    };
    results.filter_map(fields).collect()
}

/// Escapes everything that may mean something in a query.
fn percent_encoded(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, task::JoinHandle};
    use tokio_tungstenite::accept_async;

    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000001";

    /// A server for one connection: to each frame it reads it sends the next batch of frames, in which `REQUEST` is
    /// replaced by the id of the frame; then it closes.
    async fn scripted(batches: Vec<Vec<Value>>) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("it is bound"));
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("the client connects");
            let mut socket = accept_async(stream).await.expect("the client shakes hands");
            for batch in batches {
                let Some(Ok(Message::Text(text))) = socket.next().await else { return };
                let asked: Value = serde_json::from_str(&text).expect("the client sends JSON");
                let request_id = asked["requestId"].as_str().unwrap_or_default();
                for frame in batch {
                    let text = frame.to_string().replace("REQUEST", request_id);
                    socket.send(Message::text(text)).await.expect("the client reads");
                }
            }
            let _ = socket.close(None).await;
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        });
        (url, serving)
    }

    fn ready() -> Value {
        let data = json!({"sessionId": ID, "conversationId": ID, "agentId": AGENT_ID, "agentName": "n",
            "userParticipantId": ID, "agentParticipantId": ID});
        json!({"type": "immediate_response", "requestId": "REQUEST", "status": 200, "message": "m", "data": data,
            "timestamp": 1})
    }

    fn ack() -> Value {
        json!({"type": "immediate_response", "requestId": "REQUEST", "status": 202, "message": "m", "data": {},
            "timestamp": 1})
    }

    fn token(text: &str) -> Value {
        json!({"type": "stream_token", "requestId": "REQUEST", "token": text,
            "data": {"requestId": "REQUEST", "token": text}, "timestamp": 1})
    }

    fn cancelled() -> Value {
        json!({"type": "cancelled", "requestId": "REQUEST", "status": 499,
            "data": {"requestId": "REQUEST", "status": 499}, "timestamp": 1})
    }

    #[tokio::test]
    async fn it_reads_a_turn_to_its_end() {
        let turn = vec![ack(), token("Hel"), token("lo"), cancelled()];
        let (url, serving) = scripted(vec![vec![ready()], turn]).await;
        let mut client = TestClient::connect(&url).await;
        let session = client.create_session().await;
        assert_eq!(session.conversation_id, ID);
        let frames = client.turn(&session, "hi").await;
        assert_eq!(kinds(&frames), ["immediate_response", "stream_token", "cancelled"]);
        assert_eq!(streamed_text(&frames), "Hello");
        assert_eq!(client.closed().await, None);
        serving.await.expect("the server ended");
    }

    #[tokio::test]
    #[should_panic(expected = "a frame has the wrong shape")]
    async fn it_refuses_a_key_too_many() {
        let mut frame = ready();
        frame["data"]["extra"] = json!(1);
        let (url, _serving) = scripted(vec![vec![frame]]).await;
        TestClient::connect(&url).await.create_session().await;
    }

    #[tokio::test]
    #[should_panic(expected = "a frame is in the wrong place")]
    async fn it_refuses_what_follows_the_end_of_a_turn() {
        let turn = vec![ack(), cancelled(), token("late")];
        let (url, _serving) = scripted(vec![vec![ready()], turn]).await;
        let mut client = TestClient::connect(&url).await;
        let session = client.create_session().await;
        client.turn(&session, "hi").await;
        client.next_frame().await;
    }

    #[tokio::test]
    #[should_panic(expected = "seq")]
    async fn it_refuses_numbers_that_no_session_asked_for() {
        let mut numbered = ack();
        numbered["seq"] = json!(1);
        let (url, _serving) = scripted(vec![vec![ready()], vec![numbered]]).await;
        let mut client = TestClient::connect(&url).await;
        let session = client.create_session().await;
        client.turn(&session, "hi").await;
    }

    #[tokio::test]
    async fn it_takes_numbers_that_a_session_asked_for() {
        let mut numbered = ack();
        numbered["seq"] = json!(1);
        numbered["data"]["turnId"] = json!("t");
        let (url, _serving) = scripted(vec![vec![ready()], vec![numbered, cancelled()]]).await;
        let mut client = TestClient::connect(&url).await;
        let session = client.create_session_with(json!({"supports": ["resume"]})).await;
        assert_eq!(client.turn(&session, "hi").await.len(), 2);
    }

    #[test]
    fn a_token_may_hold_anything() {
        assert_eq!(percent_encoded("a+b &/ü"), "a%2Bb%20%26%2F%C3%BC");
    }
}
