//! Tools that have to know the user, and the codes by which a user shows who they are.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jackfield::{
    AgentConfig, OtpChannel, OtpDelivery, OtpDeliveryError, OtpService, ServerConfig,
    config::{AgentVisibility, ToolAuthLevel},
};
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use jackfield_tests::{
    client::{AGENT_ID, TestClient, TestSession, answer_text, kinds, tool_results},
    model::{Script, script},
    server::TestServer,
};
use serde_json::{Value, json};

/// Keeps what it should have delivered.
#[derive(Default)]
struct Mailbox {
    delivered: Mutex<Vec<(OtpChannel, String, String)>>,
    behaviour: Mutex<Behaviour>,
    only_sms: bool,
}

#[derive(Clone, Copy, Default)]
enum Behaviour {
    #[default]
    Delivers,
    Fails,
    Hangs,
    Panics,
}

#[async_trait]
impl OtpService for Mailbox {
    fn channels(&self) -> Vec<OtpChannel> {
        if self.only_sms { vec![OtpChannel::Sms] } else { vec![OtpChannel::Email, OtpChannel::Sms] }
    }

    async fn deliver(&self, delivery: OtpDelivery<'_>) -> Result<(), OtpDeliveryError> {
        assert!(delivery.code.len() == 6 && delivery.code.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(!format!("{delivery:?}").contains(delivery.code));
        assert_eq!(delivery.agent_id, AGENT_ID);
        let behaviour = *self.behaviour.lock().unwrap();
        match behaviour {
            Behaviour::Delivers => {}
            Behaviour::Fails => return Err(OtpDeliveryError("the mail server says hunter2".to_owned())),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Panics => panic!("a bug in the program"),
        }
        let (destination, code) = (delivery.destination.to_owned(), delivery.code.to_owned());
        self.delivered.lock().unwrap().push((delivery.channel, destination, code));
        Ok(())
    }
}

impl Mailbox {
    fn last_code(&self) -> String {
        self.delivered.lock().unwrap().last().expect("a code was delivered").2.clone()
    }

    fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

/// Tools that count how often they ran: `pay` is for verified users, `wipe` for admins, `look` for everybody.
#[derive(Clone, Default)]
struct Bank(Arc<AtomicUsize>);

struct Counted(&'static str, Arc<AtomicUsize>);

#[async_trait]
impl Tool for Counted {
    fn schema(&self) -> ToolSchema {
        ToolSchema::new(self.0, "a tool of a test", json!({"type": "object"}))
    }

    async fn execute(&self, _: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok("it ran".into())
    }
}

#[async_trait]
impl ToolProvider for Bank {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        let tool = |name| Arc::new(Counted(name, self.0.clone())) as Arc<dyn Tool>;
        ["pay", "wipe", "look"].map(tool).into()
    }
}

impl Bank {
    fn runs(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn rules(visibility: AgentVisibility) -> impl FnOnce(&mut ServerConfig) {
    move |config| {
        config.auth_tools = ["pay", "wipe"].map(str::to_owned).into();
        let mut agent = AgentConfig::default();
        agent.visibility = visibility;
        let levels = [("pay", ToolAuthLevel::EndUser), ("wipe", ToolAuthLevel::Admin), ("look", ToolAuthLevel::Admin)];
        agent.tool_auth = levels.map(|(tool, level)| (tool.to_owned(), level)).into();
        config.agents.insert(AGENT_ID.to_owned(), agent);
        config.limits.otp_delivery = Duration::from_millis(100);
    }
}

struct Running {
    server: TestServer,
    client: TestClient,
    mailbox: Arc<Mailbox>,
    bank: Bank,
}

async fn start(replies: Script) -> Running {
    start_with(replies, rules(AgentVisibility::Public), Mailbox::default()).await
}

async fn start_with(replies: Script, change: impl FnOnce(&mut ServerConfig), mailbox: Mailbox) -> Running {
    let (mailbox, bank) = (Arc::new(mailbox), Bank::default());
    let (service, tools) = (mailbox.clone(), Arc::new(bank.clone()));
    let server = TestServer::build_with(replies, change, |builder| builder.tools(tools).otp_service(service)).await;
    let client = server.connect().await;
    Running { server, client, mailbox, bank }
}

impl Running {
    async fn verify(&mut self, session: &TestSession, code: &str) -> Value {
        self.client.request(json!({"action": "verify_otp", "sessionId": session.id, "code": code})).await
    }

    async fn alice(&mut self) -> TestSession {
        let fields =
            json!({"userName": "Alice", "userEmail": "alice@example.com", "metadata": {"userPhone": "+15551234567"}});
        self.client.create_session_with(fields).await
    }
}

fn pay() -> Script {
    script().calls("pay", json!({})).says("Please verify yourself.")
}

#[tokio::test]
async fn an_unverified_user_is_sent_a_code_and_then_may() {
    let mut running = start(pay().calls("pay", json!({})).says("Paid.")).await;
    let session = running.alice().await;
    let frames = running.client.turn(&session, "pay the invoice").await;
    assert_eq!(
        kinds(&frames),
        [
            "immediate_response",
            "stream_chunk",
            "stream_token",
            "otp_verification_required",
            "otp_sent",
            "eventual_response"
        ]
    );
    let results = tool_results(&frames);
    assert!(results[0].1 && results[0].2.contains("it did not run"), "{results:?}");
    assert_eq!(running.bank.runs(), 0);
    let offer = &frames[frames.len() - 3]["data"]["data"];
    assert_eq!(offer["toolId"], "pay");
    assert_eq!(offer["availableChannels"], json!(["email", "sms"]));
    assert_eq!(offer["authLevel"], "end_user");
    let sent = &frames[frames.len() - 2]["data"]["data"];
    assert_eq!(*sent, json!({"channel": "email", "maskedDestination": "a***@example.com"}));
    let code = running.mailbox.last_code();
    assert!(!frames.iter().any(|frame| frame.to_string().contains(&code)), "the code is for the mailbox only");

    let typed = format!(" {}-{} ", &code[..3], &code[3..]);
    let verified = running.verify(&session, &typed).await;
    assert_eq!(verified["type"], "otp_verified");
    let frames = running.client.turn(&session, "pay the invoice").await;
    assert_eq!(answer_text(&frames), "Paid.");
    assert_eq!(kinds(&frames), ["immediate_response", "stream_chunk", "stream_token", "eventual_response"]);
    assert_eq!(running.bank.runs(), 1);
    // A code counts once.
    assert_eq!(running.verify(&session, &code).await["data"]["data"]["error"], "NOT_FOUND");

    // Another session on the same conversation has shown nothing.
    running.server.model().append(pay());
    let fields = json!({"conversationId": session.conversation_id, "userEmail": "alice@example.com"});
    let second = running.client.create_session_with(fields).await;
    running.client.turn(&second, "pay again").await;
    assert_eq!(running.bank.runs(), 1);
    running.server.shutdown().await;
}

#[tokio::test]
async fn wrong_codes_are_counted_and_then_refused() {
    let mut running = start_with(
        pay(),
        |config| {
            rules(AgentVisibility::Public)(config);
            config.limits.otp_attempts = 3;
        },
        Mailbox::default(),
    )
    .await;
    let session = running.alice().await;
    let refused = |reply: Value| {
        assert_eq!(reply["type"], "otp_invalid", "{reply}");
        let data = &reply["data"]["data"];
        (data["error"].as_str().unwrap().to_owned(), data["attemptsRemaining"].as_u64().unwrap())
    };
    assert_eq!(refused(running.verify(&session, "000000").await), ("NOT_FOUND".to_owned(), 0));
    running.client.turn(&session, "pay").await;
    let code = running.mailbox.last_code();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    assert_eq!(refused(running.verify(&session, wrong).await), ("INVALID_CODE".to_owned(), 2));
    assert_eq!(refused(running.verify(&session, "").await), ("INVALID_CODE".to_owned(), 1));
    assert_eq!(refused(running.verify(&session, &format!("{code}0")).await), ("MAX_ATTEMPTS".to_owned(), 0));
    assert_eq!(refused(running.verify(&session, &code).await), ("MAX_ATTEMPTS".to_owned(), 0));
    for frame in [
        json!({"action": "verify_otp", "sessionId": session.id, "code": 123456}),
        json!({"action": "verify_otp", "sessionId": session.id}),
        json!({"action": "verify_otp", "code": "1"}),
    ] {
        let refused = running.client.request(frame).await;
        assert_eq!(refused["error"]["code"], "VALIDATION_ERROR", "{refused}");
    }
    let frame = json!({"action": "verify_otp", "sessionId": "00000000-0000-4000-8000-000000000000", "code": "1"});
    assert_eq!(running.client.request(frame).await["error"]["code"], "SESSION_NOT_FOUND");
    running.server.shutdown().await;
}

#[tokio::test]
async fn codes_expire() {
    let mut running = start_with(
        pay(),
        |config| {
            rules(AgentVisibility::Public)(config);
            config.limits.otp_life = Duration::from_millis(1);
        },
        Mailbox::default(),
    )
    .await;
    let session = running.alice().await;
    running.client.turn(&session, "pay").await;
    let code = running.mailbox.last_code();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(running.verify(&session, &code).await["data"]["data"]["error"], "EXPIRED");
    running.server.shutdown().await;
}

#[tokio::test]
async fn a_second_request_sends_no_second_code_while_the_first_one_counts() {
    let mut running = start(pay().calls("pay", json!({})).says("Still not.")).await;
    let session = running.alice().await;
    running.client.turn(&session, "pay").await;
    let code = running.mailbox.last_code();
    let frames = running.client.turn(&session, "pay!").await;
    let tail = kinds(&frames);
    assert_eq!(tail[tail.len() - 2..], ["otp_verification_required", "eventual_response"]);
    assert_eq!(running.mailbox.delivered.lock().unwrap().len(), 1);
    assert_eq!(running.verify(&session, &code).await["type"], "otp_verified");

    // Another session cannot be used to flood the same address.
    running.server.model().append(pay());
    let other = running.alice().await;
    let id = running.client.send_message(&other, "pay").await;
    let failed = loop {
        let frame = running.client.next_frame().await;
        if frame["type"] == "error" {
            break frame;
        }
    };
    assert_eq!(failed["error"]["code"], "OTP_SEND_FAILED");
    assert!(failed.get("requestId").is_none());
    assert!(failed["error"]["message"].as_str().unwrap().contains("try again in"));
    running.client.skip_to(&id, "eventual_response").await;
    running.server.shutdown().await;
}

#[tokio::test]
async fn a_code_that_cannot_be_sent_costs_neither_the_reply_nor_the_next_code() {
    let replies =
        pay().calls("pay", json!({})).says("b").calls("pay", json!({})).says("c").calls("pay", json!({})).says("d");
    let mut running = start(replies).await;
    let session = running.alice().await;
    for behaviour in [Behaviour::Fails, Behaviour::Hangs, Behaviour::Panics] {
        running.mailbox.set(behaviour);
        let id = running.client.send_message(&session, "pay").await;
        running.client.skip_to(&id, "otp_verification_required").await;
        let failed = running.client.expect_error("OTP_SEND_FAILED").await;
        assert!(failed.get("requestId").is_none(), "under the turn's id it would end the turn: {failed}");
        assert!(!failed.to_string().contains("hunter2"));
        let end = running.client.next_of(&id).await;
        assert_eq!(end["type"], "eventual_response");
    }
    running.mailbox.set(Behaviour::Delivers);
    let frames = running.client.turn(&session, "pay").await;
    assert!(kinds(&frames).contains(&"otp_sent"));
    running.server.shutdown().await;
}

#[tokio::test]
async fn without_a_contact_there_is_no_offer_and_one_given_in_the_turn_counts() {
    let intake = json!({"fields": ["phone"]});
    let replies = pay().calls_many([("pay", json!({})), ("request_identity_intake", intake)]).says("Sent you a code.");
    let mut running =
        start_with(replies, rules(AgentVisibility::Public), Mailbox { only_sms: true, ..Mailbox::default() }).await;
    let fields = json!({"userEmail": "alice@example.com", "supports": ["identity_form"]});
    let session = running.client.create_session_with(fields).await;
    let frames = running.client.turn(&session, "pay").await;
    assert_eq!(kinds(&frames), ["immediate_response", "stream_chunk", "stream_token", "eventual_response"]);
    assert!(tool_results(&frames)[0].2.contains("ask for their email address or telephone"));

    let id = running.client.send_message(&session, "pay").await;
    let form = running.client.skip_to(&id, "interaction_required").await;
    let answer = json!({"interactionId": form["data"]["data"]["interactionId"], "values": {"phone": "5551234567"}});
    running.client.submit(&session, &id, answer).await;
    let sent = running.client.skip_to(&id, "otp_sent").await;
    assert_eq!(sent["data"]["data"], json!({"channel": "sms", "maskedDestination": "***67"}));
    running.client.skip_to(&id, "eventual_response").await;
    assert_eq!(running.mailbox.delivered.lock().unwrap()[0].1, "+15551234567");
    running.server.shutdown().await;
}

#[tokio::test]
async fn another_contact_takes_the_proof_back() {
    let intake = |email: &str| (json!({"fields": ["email"]}), json!({"email": email}));
    let (fields, victim) = intake("victim@example.com");
    let replies = pay()
        .calls("request_identity_intake", fields.clone())
        .says("Noted.")
        .calls("pay", json!({}))
        .says("No.")
        .calls("request_identity_intake", fields)
        .says("Noted again.");
    let mut running = start(replies).await;
    let session = running
        .client
        .create_session_with(json!({"userEmail": "own@example.com", "supports": ["identity_form"]}))
        .await;
    running.client.turn(&session, "pay").await;
    let code = running.mailbox.last_code();
    assert_eq!(running.verify(&session, &code).await["type"], "otp_verified");
    let submit = async |running: &mut Running, values: &Value| {
        let id = running.client.send_message(&session, "I am somebody else").await;
        let form = running.client.skip_to(&id, "interaction_required").await;
        let answer = json!({"interactionId": form["data"]["data"]["interactionId"], "values": values});
        running.client.submit(&session, &id, answer).await;
        running.client.skip_to(&id, "eventual_response").await;
    };
    submit(&mut running, &victim).await;
    let frames = running.client.turn(&session, "pay").await;
    assert!(tool_results(&frames)[0].1, "who owns one address says nothing about another");
    assert_eq!(running.bank.runs(), 0);

    // A code that went to one address proves nothing once another one is given.
    running.server.model().replace(pay());
    let late = running
        .client
        .create_session_with(json!({"userEmail": "late@example.com", "supports": ["identity_form"]}))
        .await;
    running.client.turn(&late, "pay").await;
    let code = running.mailbox.last_code();
    running
        .server
        .model()
        .replace(script().calls("request_identity_intake", json!({"fields": ["email"]})).says("Noted."));
    let id = running.client.send_message(&late, "I am somebody else").await;
    let form = running.client.skip_to(&id, "interaction_required").await;
    let answer = json!({"interactionId": form["data"]["data"]["interactionId"], "values": victim});
    running.client.submit(&late, &id, answer).await;
    running.client.skip_to(&id, "eventual_response").await;
    assert_eq!(running.verify(&late, &code).await["data"]["data"]["error"], "NOT_FOUND");
    running.server.shutdown().await;
}

#[tokio::test]
async fn tools_for_admins_are_refused_on_public_agents_only() {
    for (visibility, wipes) in [(AgentVisibility::Public, 0), (AgentVisibility::Internal, 1)] {
        // `look` is for admins by the agent's word, too, but the server's list does not name it.
        let replies = script().calls_many([("wipe", json!({})), ("look", json!({}))]).says("Done.");
        let mut running = start_with(replies, rules(visibility), Mailbox::default()).await;
        let session = running.alice().await;
        let frames = running.client.turn(&session, "wipe").await;
        let results = tool_results(&frames);
        assert_eq!((results[0].1, results[1].1), (wipes == 0, false), "{results:?}");
        assert_eq!(running.bank.runs(), 1 + wipes);
        assert!(!kinds(&frames).contains(&"otp_verification_required"), "no code makes an admin");
        running.server.shutdown().await;
    }
}

#[tokio::test]
async fn without_a_service_nothing_is_offered_and_no_code_is_right() {
    let bank = Bank::default();
    let tools = Arc::new(bank.clone());
    let server = TestServer::build_with(pay(), rules(AgentVisibility::Public), |builder| builder.tools(tools)).await;
    let mut client = server.connect().await;
    let session = client.create_session_with(json!({"userEmail": "alice@example.com"})).await;
    let frames = client.turn(&session, "pay").await;
    assert_eq!(kinds(&frames), ["immediate_response", "stream_chunk", "stream_token", "eventual_response"]);
    let reply = client.request(json!({"action": "verify_otp", "sessionId": session.id, "code": "123456"})).await;
    assert_eq!(reply["data"]["data"]["error"], "NOT_FOUND");
    assert_eq!(reply["data"]["data"]["attemptsRemaining"], 0);
    assert_eq!(bank.runs(), 0);
    server.shutdown().await;
}

#[tokio::test]
async fn a_turn_that_is_cancelled_while_a_code_is_sent_ends_as_cancelled() {
    let mut running = start_with(
        pay(),
        |config| {
            rules(AgentVisibility::Public)(config);
            config.limits.otp_delivery = Duration::from_secs(60);
        },
        Mailbox::default(),
    )
    .await;
    running.mailbox.set(Behaviour::Hangs);
    let session = running.alice().await;
    let id = running.client.send_message(&session, "pay").await;
    running.client.skip_to(&id, "otp_verification_required").await;
    running.client.cancel().await;
    running.client.expect("cancelled").await;
    running.client.expect_silence(Duration::from_millis(50)).await;
    running.server.shutdown().await;
}
