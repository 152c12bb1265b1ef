//! A gateway that follows a script: a real HTTP server on a loopback port, written on bare TCP so that bytes can be cut
//! anywhere and connections can hang or break.
//!
//! It checks every request as a strict provider would: a tool result without its call, or a call without its result,
//! is answered with 400 and fails the test when the gateway is dropped.

pub mod embeddings;
pub mod script;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinHandle,
};

pub use embeddings::Embeddings;
use script::{Body, Ending, Reply};
pub use script::{Script, script};

/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running gateway.
pub struct ScriptedModel {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct CapturedRequest {
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, parsed.
    pub body: Value,
    /// The connection it came over, counted from 0.
    pub connection: usize,
    /// The client went away before the reply was over.
    pub aborted: bool,
}

impl CapturedRequest {
    /// The messages of the request.
    pub fn messages(&self) -> &[Value] {
        self.body["messages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The messages of one role.
    pub fn messages_of(&self, role: &str) -> Vec<&Value> {
        self.messages().iter().filter(|message| message["role"] == role).collect()
    }

    /// The names of the tools on offer.
    pub fn tool_names(&self) -> Vec<&str> {
        let tools = self.body["tools"].as_array().into_iter().flatten();
        tools.filter_map(|tool| tool["function"]["name"].as_str()).collect()
    }

    /// The contents of the tool results, oldest first.
    pub fn tool_results(&self) -> Vec<&str> {
        self.messages_of("tool").into_iter().filter_map(|message| message["content"].as_str()).collect()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever the state changes.
    changed: Notify,
}

#[derive(Default)]
struct State {
    script: Script,
    requests: Vec<CapturedRequest>,
    /// What `/model/info` answers; 404 while there is nothing.
    catalog: Option<Value>,
    catalog_requests: usize,
    embeddings: Embeddings,
    /// Bodies of the requests for vectors.
    embedding_requests: Vec<Value>,
    connections: usize,
    /// A request from now on is one too many.
    is_closed: bool,
    violations: Vec<String>,
}

impl ScriptedModel {
    /// Starts a gateway that follows this script.
    pub async fn start(script: impl Into<Script>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        shared.state().script = script.into();
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, task }
    }

    /// What a configuration names as the gateway's address.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Answers `/model/info` with these models, each with what is known about it.
    pub fn knows_models(&self, models: &[(&str, Value)]) {
        let entries: Vec<Value> =
            models.iter().map(|(name, info)| json!({ "model_name": name, "model_info": info })).collect();
        self.shared.state().catalog = Some(json!({ "data": entries }));
    }

    /// Makes vectors like this from now on.
    pub fn embeds(&self, embeddings: Embeddings) {
        self.shared.state().embeddings = embeddings;
    }

    /// The bodies of the requests for vectors so far.
    pub fn embedding_requests(&self) -> Vec<Value> {
        self.shared.state().embedding_requests.clone()
    }

    /// Adds replies behind those that are left.
    pub fn append(&self, script: impl Into<Script>) {
        let script = script.into();
        let mut state = self.shared.state();
        state.script.repeats |= script.repeats;
        state.script.replies.extend(script.replies);
    }

    /// Forgets the replies that were not given yet and goes on with these.
    pub fn replace(&self, script: impl Into<Script>) {
        self.shared.state().script = script.into();
    }

    /// How many replies meant for this model were not asked for yet.
    pub fn left_for(&self, model: &str) -> usize {
        let state = self.shared.state();
        state.script.replies.iter().filter(|reply| reply.model.as_deref() == Some(model)).count()
    }

    /// The chat completions asked for so far.
    pub fn requests(&self) -> Vec<CapturedRequest> {
        self.shared.state().requests.clone()
    }

    /// How often `/model/info` was asked for.
    pub fn catalog_requests(&self) -> usize {
        self.shared.state().catalog_requests
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Waits until so many chat completions were asked for.
    pub async fn wait_for_requests(&self, count: usize) -> Vec<CapturedRequest> {
        self.wait_until("requests", |state| state.requests.len() >= count).await;
        self.requests()
    }

    /// Waits until the client has gone away from this request (counted from 0) before its reply was over.
    pub async fn wait_for_abort(&self, request: usize) {
        self.wait_until("an abort", |state| state.requests.get(request).is_some_and(|request| request.aborted)).await;
    }

    /// Waits until `/model/info` was asked for so often.
    pub async fn wait_for_catalog_requests(&self, count: usize) {
        self.wait_until("catalog requests", |state| state.catalog_requests >= count).await;
    }

    /// From now on every request is one too many; dropping the gateway fails the test if one comes.
    pub fn expect_no_more_requests(&self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        assert!(state.violations.is_empty(), "the gateway complains: {:#?}", state.violations);
    }

    /// What was wrong with requests so far; taking it keeps it from failing the test.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().violations)
    }

    /// Ends the gateway; everything in the script must have been asked for, and nothing been wrong.
    pub fn finish(self) {
        let state = self.shared.state();
        let left = if state.script.repeats { 0 } else { state.script.replies.len() };
        assert_eq!(left, 0, "replies of the script that nobody asked for");
        drop(state);
        drop(self);
    }

    async fn wait_until(&self, what: &str, is_met: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                if is_met(&self.shared.state()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("the gateway waited in vain for {what}"));
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            let violations = self.take_violations();
            assert!(violations.is_empty(), "the gateway complains: {violations:#?}");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.state());
        self.changed.notify_waiters();
        outcome
    }
}

/// One parsed HTTP request.
struct HttpRequest {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// How a reply went.
#[derive(PartialEq)]
enum Outcome {
    KeepAlive,
    Close,
    Aborted,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // The connections end with the gateway: aborting this task drops the set.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = shared.change(|state| {
            state.connections += 1;
            state.connections - 1
        });
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, number, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    // Small writes must arrive as they are made.
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut reader, &mut buffer).await {
        let outcome = if request.path.ends_with("/model/info") {
            answer_catalog(&mut writer, &shared).await
        } else if request.path.ends_with("/embeddings") {
            answer_embeddings(&mut reader, &mut writer, &mut buffer, &request, &shared).await
        } else {
            answer_chat(&mut reader, &mut writer, &mut buffer, request, number, &shared).await
        };
        if outcome != Outcome::KeepAlive {
            return;
        }
    }
}

async fn read_request(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<HttpRequest> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < head_end + length {
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head_end..head_end + length].to_vec();
    buffer.drain(..head_end + length);
    Some(HttpRequest { method, path, headers, body })
}

async fn answer_catalog(writer: &mut OwnedWriteHalf, shared: &Shared) -> Outcome {
    let catalog = shared.change(|state| {
        state.catalog_requests += 1;
        state.catalog.clone()
    });
    let (status, body) = match catalog {
        Some(catalog) => (200, catalog.to_string()),
        None => (404, json!({ "detail": "Not Found" }).to_string()),
    };
    let head = head(status, &[], &format!("content-length: {}", body.len()));
    match writer.write_all(format!("{head}{body}").as_bytes()).await {
        Ok(()) => Outcome::KeepAlive,
        Err(_) => Outcome::Aborted,
    }
}

async fn answer_embeddings(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    buffer: &mut Vec<u8>,
    request: &HttpRequest,
    shared: &Shared,
) -> Outcome {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let answer = shared.change(|state| {
        let faults = embeddings::faults_of(&body);
        state.violations.extend(faults);
        let answer = state.embeddings.answer(&body);
        state.embedding_requests.push(body);
        answer
    });
    let Some((status, body)) = answer else {
        // Until the client goes away.
        let _ = reader.read_buf(buffer).await;
        return Outcome::Aborted;
    };
    let head = head(status, &[], &format!("content-length: {}", body.len()));
    match writer.write_all(format!("{head}{body}").as_bytes()).await {
        Ok(()) => Outcome::KeepAlive,
        Err(_) => Outcome::Aborted,
    }
}

async fn answer_chat(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    buffer: &mut Vec<u8>,
    request: HttpRequest,
    connection: usize,
    shared: &Shared,
) -> Outcome {
    let (index, reply) = shared.change(|state| state.take_request(request, connection));
    let outcome = tokio::select! {
        outcome = write_reply(writer, &reply) => outcome,
        // Nothing is sent ahead of a reply, so the next bytes are either the client's end or a mistake of ours.
        read = reader.read_buf(buffer) => match read {
            Ok(1..) => panic!("the client sent something before the reply was over"),
            _ => Outcome::Aborted,
        },
    };
    if outcome == Outcome::Aborted {
        shared.change(|state| state.requests[index].aborted = true);
    }
    outcome
}

impl State {
    /// Keeps the request and decides what it is answered.
    fn take_request(&mut self, request: HttpRequest, connection: usize) -> (usize, Reply) {
        let index = self.requests.len();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let mut faults = faults_of(&request, &body);
        if self.is_closed {
            faults.push("nothing more was to be asked".to_owned());
        }
        let reply = self.script.next_for(body["model"].as_str());
        if reply.is_none() {
            faults.push("the script is over".to_owned());
        }
        let refusal = (!faults.is_empty()).then(|| refusal(&faults));
        self.violations.extend(faults.into_iter().map(|fault| format!("request {index}: {fault}")));
        self.requests.push(CapturedRequest { headers: request.headers, body, connection, aborted: false });
        let reply = refusal.or(reply).expect("a missing reply is a fault, and a fault is a refusal");
        (index, reply)
    }
}

fn refusal(faults: &[String]) -> Reply {
    let body = json!({ "error": { "message": faults.join("; "), "type": "invalid_request_error" } });
    let mut refusal = script().status(400, &[], &body.to_string()).replies;
    refusal.pop_front().expect("the script has one reply")
}

async fn write_reply(writer: &mut OwnedWriteHalf, reply: &Reply) -> Outcome {
    tokio::time::sleep(reply.delay).await;
    let written = match &reply.body {
        Body::Nothing => Ok(()),
        Body::Whole(bytes) => write_whole(writer, reply, bytes).await,
        Body::Chunks { .. } | Body::Raw(_) => write_stream(writer, reply).await,
    };
    match reply.ending {
        _ if written.is_err() => Outcome::Aborted,
        Ending::Clean => Outcome::KeepAlive,
        Ending::Broken => Outcome::Close,
        Ending::Hang => std::future::pending().await,
    }
}

async fn write_whole(writer: &mut OwnedWriteHalf, reply: &Reply, bytes: &[u8]) -> std::io::Result<()> {
    let head = head(reply.status, &reply.headers, &format!("content-length: {}", bytes.len()));
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(bytes).await
}

async fn write_stream(writer: &mut OwnedWriteHalf, reply: &Reply) -> std::io::Result<()> {
    let head = head(reply.status, &reply.headers, "transfer-encoding: chunked");
    writer.write_all(head.as_bytes()).await?;
    for (pause, piece) in reply.pieces() {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if piece.is_empty() {
            continue;
        }
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(&piece);
        chunk.extend_from_slice(b"\r\n");
        writer.write_all(&chunk).await?;
        if reply.cut.is_some() {
            // Lets the client read each piece by itself.
            tokio::task::yield_now().await;
        }
    }
    if reply.ending == Ending::Clean {
        tokio::time::sleep(reply.linger).await;
        writer.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

fn head(status: u16, headers: &[(String, String)], framing: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Scripted\r\n{headers}{framing}\r\n\r\n")
}

/// What a strict provider would refuse.
fn faults_of(request: &HttpRequest, body: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if request.method != "POST" || !request.path.ends_with("/chat/completions") {
        faults.push(format!("{} {} is not served here", request.method, request.path));
    }
    let Some(messages) = body["messages"].as_array().filter(|messages| !messages.is_empty()) else {
        faults.push("there are no messages".to_owned());
        return faults;
    };
    if body["tools"].as_array().is_some_and(Vec::is_empty) {
        faults.push("the list of tools is empty".to_owned());
    }
    let mut open: Vec<&str> = Vec::new();
    for (position, message) in messages.iter().enumerate() {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            match open.iter().position(|open| *open == id) {
                Some(at) => drop(open.remove(at)),
                None => faults.push(format!("message {position} is the result of {id:?}, which was not called")),
            }
            continue;
        }
        for id in open.drain(..) {
            faults.push(format!("the call {id:?} has no result before message {position}"));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            open.push(call["id"].as_str().unwrap_or_default());
            faults.extend(faults_of_call(call).map(|fault| format!("message {position}: {fault}")));
        }
    }
    faults.extend(open.iter().map(|id| format!("the call {id:?} has no result")));
    faults
}

fn faults_of_call(call: &Value) -> Option<String> {
    let name = call["function"]["name"].as_str().unwrap_or_default();
    let is_good = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_good) {
        return Some(format!("{name:?} is no name of a function"));
    }
    let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
    match serde_json::from_str::<Value>(arguments) {
        Ok(Value::Object(_)) => None,
        _ => Some(format!("the arguments of {name} are no JSON object in a text: {arguments:?}")),
    }
}
