//! Random interleavings of everything that clients, clocks and the gateway can do, against a real server, and what must
//! hold whatever happens:
//!
//! - a turn that was accepted on a connection that stays open ends with exactly one terminal event there, and no event
//!   of it follows (the client itself checks the shape, the order and the place of every frame it reads);
//! - a tool behind a wait that was denied, timed out or was cancelled never runs, and no call runs twice;
//! - no model call is started for a turn that was cancelled;
//! - the turns of a conversation run one after the other, and none keeps its place when it is over.
//!
//! A case follows from its seed. A failing one prints it; `INTERLEAVING_SEED=n` runs that one alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jackfield::ServerConfig;
use jackfield_tests::{
    client::{TestClient, TestSession},
    model::{Script, script},
    server::TestServer,
};
use serde_json::{Value, json};

use crate::ledger::Ledger;

const STEPS: usize = 60;
/// How long the end of a case may take; every clock of the server is far shorter.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_turns_keep_their_promises() {
    run_cases(0..10).await;
}

#[tokio::test]
async fn whatever_happens_turns_keep_their_promises_on_one_thread() {
    run_cases(100..110).await;
}

async fn run_cases(seeds: std::ops::Range<u64>) {
    let only: Option<u64> = std::env::var("INTERLEAVING_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seeds {
        let seed = only.unwrap_or(seed);
        let announced = Announced(seed);
        let mut case = Case::start(seed).await;
        for _ in 0..STEPS {
            case.step().await;
        }
        case.finish().await;
        drop(announced);
        if only.is_some() {
            return;
        }
    }
}

/// Says which case it was that failed.
struct Announced(u64);

impl Drop for Announced {
    #[allow(clippy::print_stdout, reason = "the seed belongs to the failure's output")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the case of seed {0} failed; INTERLEAVING_SEED={0} runs it alone", self.0);
        }
    }
}

struct Case {
    random: fastrand::Rng,
    server: TestServer,
    ledger: Ledger,
    /// Two in one conversation, one in another.
    seats: Vec<Seat>,
    /// By its conversation.
    answers: BTreeMap<String, Answers>,
    last_id: u64,
}

/// A connection and its session.
struct Seat {
    client: TestClient,
    session: TestSession,
    turns: Vec<Turn>,
    /// Confirmations with a yes that were not answered yet, by request id.
    waiting: Vec<String>,
    /// The form that was shown last.
    form: Option<String>,
}

/// How often a conversation's calls were allowed.
#[derive(Default)]
struct Answers {
    sent: usize,
    /// Of those, what the server has dealt with, however.
    settled: usize,
}

/// A turn as its own connection sees it.
struct Turn {
    id: String,
    text: String,
    accepted: bool,
    ends: Vec<String>,
    stage: Stage,
    /// The call that is shown and has no result yet.
    open: Option<(String, u64)>,
    gated: Vec<u64>,
    denied: Vec<u64>,
    /// Answers that cannot have been meant for this turn, because they were dealt with before it began.
    settled_before: usize,
    /// Answers that may have been meant for it, known when it is over.
    yeses: Option<usize>,
    /// Model requests of this turn when its end was read.
    requests_at_end: usize,
}

/// What the last event of a turn says about the model: whether a request may be on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// It may be.
    MayAsk,
    /// It is not: its reply has begun, or a tool or a human is waited for.
    AsksNothing,
}

impl Case {
    async fn start(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let ledger = Ledger::default();
        let tools = Arc::new(ledger.clone());
        let change = |config: &mut ServerConfig| {
            config.confirm_tools = vec!["gated".to_owned()];
            config.limits.confirmation = Duration::from_millis(120);
            config.limits.confirmation_unattended = Duration::from_millis(60);
            config.limits.keepalive = Duration::from_millis(30);
            config.limits.model_idle = Duration::from_millis(100);
            config.limits.model_retry_base = Duration::from_millis(1);
            config.limits.model_retry_max = Duration::from_millis(4);
            config.limits.model_retry_jitter = Duration::from_millis(1);
        };
        let replies = random_replies(&mut random);
        let server = TestServer::build_with(replies, change, |builder| builder.tools(tools)).await;
        let mut case = Self { random, server, ledger, seats: Vec::new(), answers: BTreeMap::new(), last_id: 0 };
        let first = case.take_seat(None).await;
        let second = case.take_seat(Some(&first.session.conversation_id)).await;
        let third = case.take_seat(None).await;
        case.seats = vec![first, second, third];
        case
    }

    async fn take_seat(&mut self, conversation: Option<&str>) -> Seat {
        let mut client = self.server.connect().await.with_patience(PATIENCE);
        let mut fields = json!({"supports": ["identity_form", "choice_chips", "resume"]});
        if self.random.bool() {
            fields["supports"] = json!(["identity_form"]);
        }
        // Written at once, so that another connection finds the conversation.
        fields["userEmail"] = json!("somebody@example.org");
        fields["conversationId"] = json!(conversation);
        let session = client.create_session_with(fields).await;
        assert!(conversation.is_none_or(|wanted| wanted == session.conversation_id));
        Seat { client, session, turns: Vec::new(), waiting: Vec::new(), form: None }
    }

    fn id(&mut self, what: &str) -> String {
        self.last_id += 1;
        format!("{what}{}", self.last_id)
    }

    async fn step(&mut self) {
        let at = self.random.usize(..self.seats.len());
        match self.random.u8(..20) {
            0..=4 => self.send_message(at).await,
            5..=7 => self.cancel(at).await,
            8..=9 => self.confirm(at, true).await,
            10 => self.confirm(at, false).await,
            11..=12 => self.submit(at).await,
            13 => self.ask(at, json!({"action": "ping"})).await,
            14 => {
                let session = self.seats[at].session.id.clone();
                self.ask(at, json!({"action": "get_session", "sessionId": session})).await;
            }
            15 => self.come_back(at).await,
            _ => tokio::time::sleep(Duration::from_millis(self.random.u64(1..50))).await,
        }
        let patience = Duration::from_millis(self.random.u64(1..8));
        self.read_all(patience).await;
    }

    async fn send_message(&mut self, at: usize) {
        let id = self.id("turn");
        let text = format!("message {id}");
        let seat = &mut self.seats[at];
        let settled_before = self.answers.entry(seat.session.conversation_id.clone()).or_default().settled;
        let frame = json!({"action": "send_message", "requestId": id, "sessionId": seat.session.id, "message": text});
        seat.turns.push(Turn::new(id, text, settled_before));
        seat.client.send(frame).await;
    }

    /// From the turn's own connection or another one, by the turn's id or a fresh one, or by one that is over.
    async fn cancel(&mut self, at: usize) {
        let fresh = self.id("cancel");
        let by_session = self.random.bool();
        let pick = self.random.u8(..3);
        let seat = &mut self.seats[at];
        let mut frame = json!({"action": "cancel"});
        match pick {
            0 => frame["requestId"] = json!(fresh),
            1 => frame["requestId"] = json!(seat.turns.last().map(|turn| &turn.id)),
            _ => {}
        }
        if by_session {
            frame["sessionId"] = json!(seat.session.id);
        }
        seat.client.send(frame).await;
    }

    async fn confirm(&mut self, at: usize, approved: bool) {
        let id = self.id("confirm");
        let seat = &mut self.seats[at];
        if approved {
            self.answers.entry(seat.session.conversation_id.clone()).or_default().sent += 1;
            seat.waiting.push(id.clone());
        }
        seat.client.confirm(&seat.session, &id, approved).await;
    }

    async fn submit(&mut self, at: usize) {
        let id = self.id("submit");
        let form = self.seats.iter().rev().find_map(|seat| seat.form.clone()).unwrap_or_else(|| "none".to_owned());
        let fields = match self.random.u8(..5) {
            0 => json!({"interactionId": form, "declined": true}),
            1 => json!({"interactionId": form, "values": null}),
            2 => json!({"interactionId": "stale", "values": {"email": "a@b.c"}}),
            _ => json!({"interactionId": form, "values": {"email": "a@b.c"}}),
        };
        let seat = &mut self.seats[at];
        seat.client.submit(&seat.session, &id, fields).await;
    }

    async fn ask(&mut self, at: usize, mut frame: Value) {
        frame["requestId"] = json!(self.id("ask"));
        self.seats[at].client.send(frame).await;
    }

    /// The connection goes, with or without a word, and somebody comes back; sometimes they follow the turn that runs.
    async fn come_back(&mut self, at: usize) {
        let conversation = self.seats[at].session.conversation_id.clone();
        let fresh = self.take_seat(Some(&conversation)).await;
        let gone = std::mem::replace(&mut self.seats[at], fresh);
        if self.random.bool() {
            gone.client.close().await;
        } else {
            drop(gone.client);
        }
        if self.random.bool() {
            let session = self.seats[at].session.id.clone();
            self.ask(at, json!({"action": "resume_turn", "sessionId": session})).await;
        }
    }

    /// Reads what is there on every connection.
    async fn read_all(&mut self, patience: Duration) {
        for at in 0..self.seats.len() {
            while let Some(frame) = self.seats[at].client.frame_within(patience).await {
                self.note(at, &frame);
            }
        }
    }

    fn note(&mut self, at: usize, frame: &Value) {
        let seat = &mut self.seats[at];
        let answers = self.answers.entry(seat.session.conversation_id.clone()).or_default();
        let request_id = frame["requestId"].as_str().unwrap_or_default();
        if let Some(index) = seat.waiting.iter().position(|waiting| waiting == request_id) {
            seat.waiting.swap_remove(index);
            answers.settled += 1;
            return;
        }
        if frame["type"] == "interaction_required" {
            seat.form = frame["data"]["data"]["interactionId"].as_str().map(str::to_owned);
        }
        let Some(turn) = seat.turns.iter_mut().find(|turn| turn.id == request_id) else { return };
        turn.note(frame);
        if !turn.ends.is_empty() && turn.yeses.is_none() {
            turn.yeses = Some(answers.sent - turn.settled_before);
            turn.requests_at_end = requests_of(&self.server, &turn.text);
        }
    }

    /// Waits until every turn is over, then checks what must hold.
    async fn finish(mut self) {
        let over = async {
            while self.seats.iter().any(|seat| seat.turns.iter().any(|turn| turn.ends.is_empty())) {
                self.read_all(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, over).await.expect("every turn ends");
        self.check_places_are_free().await;
        self.read_all(Duration::from_millis(20)).await;
        self.check_turns();
        self.check_runs();
        self.check_histories().await;
        self.server.shutdown().await;
    }

    /// A turn whose connection went may still run; then its place is free, too.
    async fn check_places_are_free(&mut self) {
        self.server.model().replace(script().says("The end.").forever());
        for at in [0, 2] {
            let free = async {
                loop {
                    self.send_message(at).await;
                    loop {
                        let frame = self.seats[at].client.next_frame().await;
                        self.note(at, &frame);
                        if self.seats[at].turns.last().is_some_and(|turn| !turn.ends.is_empty()) {
                            break;
                        }
                    }
                    let end = &self.seats[at].turns.last().unwrap().ends[0];
                    match end.as_str() {
                        "eventual_response" => return,
                        "TURN_IN_PROGRESS" => tokio::time::sleep(Duration::from_millis(10)).await,
                        other => panic!("a turn on a free place ended with {other}"),
                    }
                }
            };
            tokio::time::timeout(PATIENCE, free).await.expect("every place is free at last");
        }
    }

    fn check_turns(&self) {
        let runs = self.ledger.runs("gated");
        for turn in self.seats.iter().flat_map(|seat| &seat.turns) {
            let Turn { id, ends, stage, gated, denied, .. } = turn;
            assert_eq!(ends.len(), 1, "{id} ends once: {ends:?}");
            let allowed = turn.yeses.expect("it is over");
            let ran = gated.iter().filter(|n| runs.contains(n)).count();
            assert!(ran <= allowed, "{id}: {ran} of the calls {gated:?} ran and {allowed} may have been allowed");
            let denied_and_run: Vec<&u64> = denied.iter().filter(|n| runs.contains(n)).collect();
            assert!(denied_and_run.is_empty(), "{id}: {denied_and_run:?} were denied and ran");
            if ends[0] == "cancelled" {
                let late = requests_of(&self.server, &turn.text) - turn.requests_at_end;
                let on_their_way = usize::from(*stage == Stage::MayAsk);
                assert!(late <= on_their_way, "{id}: {late} model calls began after the end ({stage:?})");
            }
        }
    }

    fn check_runs(&self) {
        for tool in ["gated", "free", "slow"] {
            let mut runs = self.ledger.runs(tool);
            runs.sort_unstable();
            let before = runs.len();
            runs.dedup();
            assert_eq!(runs.len(), before, "no call of {tool} runs twice");
        }
        let sent: usize = self.answers.values().map(|answers| answers.sent).sum();
        assert!(self.ledger.runs("gated").len() <= sent, "nothing runs that nobody allowed");
    }

    /// One turn after the other: between two replies there is a message.
    async fn check_histories(&mut self) {
        for at in [0, 2] {
            let id = self.id("history");
            let session = self.seats[at].session.id.clone();
            let frame =
                json!({"action": "get_conversation_messages", "requestId": id, "sessionId": session, "limit": 100});
            let page = self.seats[at].client.request(frame).await;
            let rows = page["data"]["messages"].as_array().unwrap();
            let directions: Vec<&str> = rows.iter().rev().map(|row| row["direction"].as_str().unwrap()).collect();
            let replies_meet = directions.windows(2).any(|pair| pair == ["outbound", "outbound"]);
            assert!(!replies_meet && directions.first() == Some(&"inbound"), "turns overlapped: {directions:?}");
        }
    }
}

impl Turn {
    fn new(id: String, text: String, settled_before: usize) -> Self {
        Self {
            id,
            text,
            accepted: false,
            ends: Vec::new(),
            stage: Stage::MayAsk,
            open: None,
            gated: Vec::new(),
            denied: Vec::new(),
            settled_before,
            yeses: None,
            requests_at_end: 0,
        }
    }

    fn note(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "immediate_response" => self.accepted = true,
            "stream_token" | "stream_reasoning" => self.stage = Stage::AsksNothing,
            "stream_chunk" => self.chunk(&frame["data"]["state"]["rawResponse"]),
            end @ ("eventual_response" | "cancelled") => {
                assert!(self.accepted, "{} ended before it was accepted", self.id);
                self.ends.push(end.to_owned());
            }
            "error" => self.ends.push(frame["error"]["code"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }

    fn chunk(&mut self, raw: &Value) {
        if let Some(call) = raw.get("toolCall") {
            let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
            let (name, n) = (call["name"].as_str().unwrap().to_owned(), arguments["n"].as_u64().unwrap_or(0));
            if name == "gated" {
                self.gated.push(n);
            }
            self.open = Some((name, n));
            self.stage = Stage::AsksNothing;
        } else if let Some(result) = raw.get("toolResult") {
            let (name, n) = self.open.take().expect("the client has checked the order");
            if name == "gated" && result["isError"] == true {
                self.denied.push(n);
            }
            self.stage = Stage::MayAsk;
        }
    }
}

/// How many model requests were made for the turn of this message. A message that was never answered is shown to later
/// turns as history; the last one counts.
fn requests_of(server: &TestServer, text: &str) -> usize {
    let asks = |request: &&jackfield_tests::model::CapturedRequest| {
        request.messages_of("user").last().is_some_and(|message| message["content"] == text)
    };
    server.model().requests().iter().filter(asks).count()
}

/// What the gateway does, reply by reply; at last it only talks.
fn random_replies(random: &mut fastrand::Rng) -> Script {
    let mut next = 0;
    let mut n = || {
        next += 1;
        json!({"n": next})
    };
    let mut replies = script();
    for index in 0..60 {
        replies = match random.u8(..16) {
            0..=1 => replies.says(&format!("reply {index}")),
            2 => replies.streams(["piece ", "by ", "piece"]).cut_every(7),
            3..=6 => replies.calls("gated", n()),
            7 => replies.calls_many([("gated", n()), ("gated", n()), ("free", n())]),
            8 => replies.calls("free", n()),
            9 => replies.calls("slow", n()),
            10..=11 => replies.calls("request_identity_intake", json!({"fields": ["email"]})),
            12 => replies.hangs_after(["and then "]),
            13 => replies.breaks_after(["broken "]),
            14 => replies.status(503, &[], "{}"),
            _ => replies.paced(4, Duration::from_millis(5)),
        };
    }
    replies.says("nothing more").forever()
}
