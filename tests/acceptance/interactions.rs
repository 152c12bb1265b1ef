//! Questions to the user in the middle of a turn: as a form where the client can show one, in prose where it cannot.

use std::{sync::Arc, time::Duration};

use jackfield::ServerConfig;
use jackfield_tests::{
    client::{TestClient, TestSession, answer_text, kinds, tool_results},
    model::{Script, script},
    server::TestServer,
};
use serde_json::{Value, json};

use crate::turns::Simple;

const INTAKE: &str = "request_identity_intake";
const CHOICES: &str = "request_choices";
const SUBMIT: &str = "submit_interaction";

/// A turn whose form waits.
struct Asked {
    server: TestServer,
    client: TestClient,
    session: TestSession,
    /// The turn's request id.
    turn: String,
    /// The form's own.
    form: String,
    required: Value,
}

/// A session that can show every form.
async fn form_session(client: &mut TestClient) -> TestSession {
    client.create_session_with(json!({"supports": ["identity_form", "choice_chips"]})).await
}

async fn ask(replies: Script) -> Asked {
    ask_with(replies, |_| {}).await
}

async fn ask_with(replies: Script, change: impl FnOnce(&mut ServerConfig)) -> Asked {
    let server = TestServer::with_config(replies, change).await;
    let mut client = server.connect().await;
    let session = form_session(&mut client).await;
    let turn = client.send_message(&session, "go").await;
    client.expect("immediate_response").await;
    let required = client.expect("interaction_required").await;
    let chunk = client.expect("stream_chunk").await;
    assert!(chunk.pointer("/data/state/rawResponse/toolCall").is_some(), "{chunk}");
    let form = required["data"]["data"]["interactionId"].as_str().unwrap().to_owned();
    Asked { server, client, session, turn, form, required }
}

impl Asked {
    /// Answers under the turn's id and gives the reply.
    async fn answer(&mut self, fields: Value) -> Value {
        let mut fields = fields;
        if fields.get("interactionId").is_none() {
            fields["interactionId"] = json!(self.form);
        }
        self.client.submit(&self.session, &self.turn, fields).await;
        self.client.next_of(&self.turn).await
    }

    async fn end(mut self) -> (Vec<Value>, TestServer) {
        let frames = self.client.turn_to_end(&self.turn).await;
        (frames, self.server)
    }
}

/// The payload that the model read as the result of its last tool call.
fn last_result(server: &TestServer) -> Value {
    let requests = server.model().requests();
    let text = requests.last().unwrap().tool_results().last().copied().unwrap().to_owned();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the result is no JSON ({error}): {text}"))
}

fn intake() -> Script {
    let fields = json!([{"key": "phone", "label": "Mobile"}, "email", {"key": "name", "required": false}]);
    script().calls(INTAKE, json!({"fields": fields, "reason": "so a colleague can ring you back"})).says("Thanks.")
}

#[tokio::test]
async fn a_form_is_shown_refused_until_it_fits_and_goes_on_with_its_normal_form() {
    let mut asked = ask(intake().says("Again.")).await;
    assert_eq!(
        asked.required["data"]["data"],
        json!({
            "interactionId": asked.form, "kind": "identity_intake", "reason": "so a colleague can ring you back",
            "spec": {"fields": [
                {"key": "phone", "required": true, "label": "Mobile"}, {"key": "email", "required": true},
                {"key": "name", "required": false},
            ]},
        })
    );
    let refused = asked.answer(json!({"values": {"phone": "+49 30 123456", "email": "nope"}})).await;
    assert_eq!(refused["type"], "interaction_invalid");
    assert_eq!(
        refused["data"]["data"],
        json!({
            "interactionId": asked.form, "kind": "identity_intake", "message": "Some fields need attention.",
            "errors": [{"field": "email", "message": "must be a valid email address"}],
        })
    );
    let refused = asked.answer(json!({"kind": "identity_intake", "values": {"phone": "12", "email": null}})).await;
    let fields: Vec<&str> = refused["data"]["data"]["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["phone", "email"]);
    asked.client.expect_silence(Duration::from_millis(50)).await;

    let values = json!({"phone": "+49 30 123456", "email": " Bo@Mail.Example.COM ", "name": "Bo"});
    let normal = json!({"phone": "+4930123456", "email": "Bo@mail.example.com", "name": "Bo"});
    let accepted = asked.answer(json!({"kind": "identity_intake", "values": values})).await;
    assert_eq!(accepted["status"], 200);
    assert_eq!(
        accepted["data"],
        json!({"sessionId": asked.session.id, "interactionId": asked.form, "kind": "identity_intake", "values": normal})
    );
    let frames = asked.client.turn_to_end(&asked.turn).await;
    assert_eq!(kinds(&frames), ["stream_chunk", "stream_token", "eventual_response"]);
    assert!(!tool_results(&frames)[0].1);
    assert_eq!(last_result(&asked.server), json!({"status": "submitted", "values": normal}));

    // Who the user is stays with the session: the next message is from them by name.
    asked.client.turn(&asked.session, "and now?").await;
    let page =
        asked.client.request(json!({"action": "get_conversation_messages", "sessionId": asked.session.id})).await;
    assert_eq!(page["data"]["messages"][1]["from"]["name"], "Bo");
    asked.server.shutdown().await;
}

#[tokio::test]
async fn a_choice_comes_back_by_its_labels() {
    let questions = json!([
        {"question": "Which size?", "header": "Size", "options": ["S", {"label": "L", "description": "large"}]},
        {"question": "Which extras?", "header": "Extras", "options": ["Bag", "Card"], "multiSelect": true},
    ]);
    let mut asked = ask(script().calls(CHOICES, json!({"questions": questions})).says("Good choice.")).await;
    let data = &asked.required["data"]["data"];
    assert_eq!(data["kind"], "choices");
    assert_eq!(
        data["spec"]["questions"][0],
        json!({"question": "Which size?", "header": "Size", "multiSelect": false,
            "options": [{"label": "S", "description": ""}, {"label": "L", "description": "large"}]})
    );
    assert!(!data["reason"].as_str().unwrap().is_empty());
    let two_sizes = json!({"answers": [{"header": "Size", "options": ["S", "L"]}]});
    let refused = asked.answer(json!({"values": two_sizes})).await;
    let errors = refused["data"]["data"]["errors"].as_array().unwrap();
    assert_eq!((&errors[0]["field"], &errors[1]["field"]), (&json!("Size"), &json!("Extras")));

    let answers =
        json!([{"header": "Extras", "options": ["Bag"], "other": "a bow"}, {"header": "Size", "options": ["L"]}]);
    let accepted = asked.answer(json!({"values": {"answers": answers}})).await;
    let normal = json!({"answers": [
        {"header": "Size", "options": ["L"]}, {"header": "Extras", "options": ["Bag"], "other": "a bow"},
    ]});
    assert_eq!(accepted["data"]["values"], normal);
    let (frames, server) = asked.end().await;
    assert_eq!(answer_text(&frames), "Good choice.");
    assert_eq!(last_result(&server), json!({"status": "submitted", "values": normal}));
    server.shutdown().await;
}

#[tokio::test]
async fn the_checks_come_in_their_order_and_leave_the_form_waiting() {
    let mut asked = ask(intake()).await;
    for fields in [
        json!({"interactionId": "stale", "declined": true}),
        json!({"interactionId": "stale", "values": null}),
        json!({"kind": "choices", "declined": true}),
        json!({"interactionId": null, "values": {"email": "a@b.c", "phone": "5551234567"}}),
    ] {
        let refused = asked.answer_as_it_is(fields).await;
        assert_eq!(refused["error"]["code"], "INTERACTION_MISMATCH", "{refused}");
    }
    let refused = asked.answer_as_it_is(json!({"interactionId": asked.form, "declined": false})).await;
    assert_eq!(refused["error"]["code"], "VALIDATION_ERROR");
    for frame in [
        json!({"action": "submit_interaction", "sessionId": asked.session.id, "declined": true}),
        json!({"action": "submit_interaction", "requestId": "x", "declined": true}),
    ] {
        asked.client.send(frame).await;
        asked.client.expect_error("VALIDATION_ERROR").await;
    }
    // What is none of the caller's business is not there.
    for session_id in ["00000000-0000-4000-8000-000000000000", "nonsense"] {
        let frame = json!({"action": "submit_interaction", "sessionId": session_id, "interactionId": asked.form, "declined": true});
        let refused = asked.client.request(frame).await;
        assert_eq!(refused["error"]["code"], "NO_PENDING_INTERACTION");
    }
    asked.client.confirm(&asked.session, "other", true).await;
    asked.client.expect_error("NO_PENDING_CONFIRMATION").await;

    let declined = asked.answer(json!({"declined": true, "values": {"email": 1}})).await;
    assert_eq!(declined["data"], json!({"sessionId": asked.session.id, "interactionId": asked.form, "declined": true}));
    let repeated = asked.client.request(
        json!({"action": "submit_interaction", "requestId": "again", "sessionId": asked.session.id, "interactionId": asked.form, "declined": true}),
    );
    assert_eq!(repeated.await["error"]["code"], "NO_PENDING_INTERACTION");
    let (frames, server) = asked.end().await;
    assert!(!tool_results(&frames)[0].1, "a user who says no is no failed call");
    assert_eq!(last_result(&server)["status"], "declined");
    server.shutdown().await;
}

impl Asked {
    /// As `answer`, under an id of its own, so that a refusal does not end the client's view of the turn.
    async fn answer_as_it_is(&mut self, fields: Value) -> Value {
        let id = self.client.fresh_id();
        self.client.submit(&self.session, &id, fields).await;
        self.client.next_of(&id).await
    }
}

#[tokio::test]
async fn no_values_crash_a_turn() {
    let mut asked = ask(intake()).await;
    let nothing_good = [
        json!(null),
        json!([]),
        json!("x"),
        json!(1.5),
        json!(true),
        json!({}),
        json!({"email": null, "phone": null, "name": null}),
        json!({"email": {}, "phone": [], "name": 3}),
        json!({"email": ["a@b.c"], "phone": 5551234567_u64}),
        json!({"email": "a@b.c\u{0}", "phone": "\u{202e}5551234567"}),
        json!({"email": "x".repeat(100_000), "phone": "1".repeat(100_000)}),
        json!({"answers": [{"header": null}]}),
    ];
    for values in nothing_good {
        let refused = asked.answer_as_it_is(json!({"interactionId": asked.form, "values": values})).await;
        assert_eq!(refused["type"], "interaction_invalid", "{refused}");
    }
    let accepted = asked.answer(json!({"values": {"email": "a@b.c", "phone": "5551234567"}})).await;
    assert_eq!(accepted["data"]["values"], json!({"email": "a@b.c", "phone": "+15551234567"}));
    let (frames, server) = asked.end().await;
    assert_eq!(answer_text(&frames), "Thanks.");
    server.shutdown().await;
}

#[tokio::test]
async fn silence_is_an_answer_and_a_refused_one_does_not_buy_time() {
    let patience = Duration::from_millis(400);
    let mut asked = ask_with(intake(), |config| config.limits.confirmation = patience).await;
    // Refused again and again, for longer than the form waits.
    let mut refusals = 0;
    let ended = loop {
        let reply = asked.answer_as_it_is(json!({"interactionId": asked.form, "values": {}})).await;
        match reply["type"].as_str().unwrap() {
            "interaction_invalid" => refusals += 1,
            _ => break reply,
        }
        assert!(refusals < 1000, "the form waits for ever");
        tokio::time::sleep(patience / 10).await;
    };
    assert!(refusals > 0);
    assert_eq!(ended["error"]["code"], "NO_PENDING_INTERACTION");
    let (frames, server) = asked.end().await;
    assert!(!tool_results(&frames)[0].1);
    assert_eq!(last_result(&server)["status"], "no_response");
    server.shutdown().await;
}

#[tokio::test]
async fn a_form_is_answered_from_any_connection_and_session_of_the_conversation() {
    let mut asked = ask(intake().says("Again.")).await;
    let mut other = asked.server.connect().await;
    let second = other.create_session_with(json!({"conversationId": asked.session.conversation_id})).await;
    assert_eq!(second.conversation_id, asked.session.conversation_id);
    let values = json!({"email": "a@b.c", "phone": "5551234567", "name": "Bo"});
    let frame =
        json!({"action": "submit_interaction", "sessionId": second.id, "interactionId": asked.form, "values": values});
    assert_eq!(other.request(frame).await["data"]["sessionId"], second.id.as_str());
    asked.client.turn_to_end(&asked.turn).await;
    // Both sessions know who it was.
    for (client, session) in [(&mut asked.client, &asked.session), (&mut other, &second)] {
        asked.server.model().append(script().says("Yes."));
        client.turn(session, "who am I?").await;
        let page =
            client.request(json!({"action": "get_conversation_messages", "sessionId": session.id, "limit": 2})).await;
        assert_eq!(page["data"]["messages"][1]["from"]["name"], "Bo");
    }
    asked.server.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_form_is_gone() {
    let mut asked = ask(intake()).await;
    asked.client.cancel().await;
    asked.client.expect("cancelled").await;
    let late = asked.answer_as_it_is(json!({"interactionId": asked.form, "declined": true})).await;
    assert_eq!(late["error"]["code"], "NO_PENDING_INTERACTION");
    asked.server.model().expect_no_more_requests();
    asked.server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_asked_fails_at_once_without_a_form() {
    let one_option = json!({"questions": [{"question": "Q?", "header": "H", "options": ["only"]}]});
    let replies = script()
        .calls_many([
            (INTAKE, json!({"fields": ["fax"]})),
            (INTAKE, json!({"fields": []})),
            (INTAKE, json!({"fields": ["email", {"key": "email"}]})),
            (INTAKE, json!("{")),
            (CHOICES, one_option),
        ])
        .says("Never mind.");
    let server = TestServer::with_model(replies).await;
    let mut client = server.connect().await;
    let session = form_session(&mut client).await;
    let frames = client.turn(&session, "go").await;
    assert_eq!(kinds(&frames), ["immediate_response", "stream_chunk", "stream_token", "eventual_response"]);
    let results = tool_results(&frames);
    assert_eq!(results.len(), 5);
    assert!(results.iter().all(|(_, is_error, text)| *is_error && !text.is_empty()), "{results:?}");
    assert!(results[2].2.contains("twice"), "{results:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn without_the_capability_the_model_asks_in_prose() {
    let wrong = json!({"kind": "identity_intake", "values": {"email": "nope", "phone": "5551234567"}});
    let right = json!({"kind": "identity_intake", "values": {"email": "a@b.c", "phone": "555 123 4567", "name": "Bo"}});
    let replies = intake().calls(SUBMIT, wrong).calls(SUBMIT, right).says("Noted.").says("Bye.");
    let server = TestServer::with_model(replies).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "call me back").await;
    assert_eq!(kinds(&frames), ["immediate_response", "stream_chunk", "stream_token", "eventual_response"]);
    assert!(server.model().requests()[0].tool_names().contains(&SUBMIT));
    let guide = last_result(&server);
    assert_eq!((&guide["mode"], &guide["kind"]), (&json!("conversational"), &json!("identity_intake")));
    assert_eq!(guide["spec"]["fields"][0], json!({"key": "phone", "required": true, "label": "Mobile"}));
    assert_eq!(guide["reason"], "so a colleague can ring you back");
    assert!(guide["instructions"].as_str().unwrap().contains(SUBMIT));

    // The answer comes with another turn, and is checked against what was asked.
    let frames = client.turn(&session, "a@b.c, 555 123 4567, Bo").await;
    let results = tool_results(&frames);
    assert!(results[0].1 && results[0].2.contains("email: must be a valid email address"), "{results:?}");
    assert_eq!(
        last_result(&server),
        json!({"status": "submitted", "values": {"email": "a@b.c", "phone": "+15551234567", "name": "Bo"}})
    );
    client.turn(&session, "bye").await;
    let page = client.request(json!({"action": "get_conversation_messages", "sessionId": session.id})).await;
    assert_eq!(page["data"]["messages"][1]["from"]["name"], "Bo");
    server.shutdown().await;
}

#[tokio::test]
async fn choices_in_prose_survive_a_reconnect_and_need_a_question() {
    let answer = json!({"kind": "choices", "values": {"answers": [{"header": "Size", "options": ["L"]}]}});
    let questions = json!([{"question": "Which size?", "header": "Size", "options": ["S", "L"]}]);
    let replies = script()
        .calls(SUBMIT, answer.clone())
        .calls(CHOICES, json!({"questions": questions}))
        .says("S or L?")
        .calls(SUBMIT, answer.clone())
        .calls(SUBMIT, answer)
        .calls(SUBMIT, json!({"kind": "choices", "declined": true}))
        .says("L it is.");
    let server = TestServer::with_model(replies).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "a shirt").await;
    let results = tool_results(&frames);
    assert!(results[0].1 && results[0].2.contains("call request_choices first"), "{results:?}");
    assert!(!results[1].1);
    client.close().await;

    let mut client = server.connect().await;
    let session = client.create_session_with(json!({"conversationId": session.conversation_id})).await;
    let frames = client.turn(&session, "L").await;
    let results = tool_results(&frames);
    assert!(!results[0].1 && results[0].2.contains("submitted"), "{results:?}");
    assert!(results[1].1, "a question is answered once: {results:?}");
    assert!(results[2].2.contains("declined"));
    server.shutdown().await;
}

#[tokio::test]
async fn what_a_session_can_show_decides_which_tools_it_gets() {
    let server = TestServer::with_model(script().says("Hi.").forever()).await;
    let mut client = server.connect().await;
    for (supports, kinds_in_prose) in [
        (json!(["identity_form", "choice_chips"]), json!(null)),
        (json!(["identity_form"]), json!(["choices"])),
        (json!(["choice_chips", "unknown"]), json!(["identity_intake"])),
        (json!([]), json!(["identity_intake", "choices"])),
    ] {
        let session = client.create_session_with(json!({"supports": supports})).await;
        client.turn(&session, "hi").await;
        let requests = server.model().requests();
        let request = requests.last().unwrap();
        assert!(request.tool_names().contains(&INTAKE) && request.tool_names().contains(&CHOICES));
        let tools = request.body["tools"].as_array().unwrap();
        let submit = tools.iter().find(|tool| tool["function"]["name"] == SUBMIT);
        let kinds = submit.map(|tool| tool["function"]["parameters"]["properties"]["kind"]["enum"].clone());
        assert_eq!(kinds.unwrap_or_default(), kinds_in_prose, "{supports}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_form_and_a_confirmation_of_one_reply_wait_one_after_the_other() {
    let one_reply = [("works", json!({"n": 1})), (INTAKE, json!({"fields": ["email"]})), ("works", json!({"n": 2}))];
    // The pattern matches the tool that asks, too: nobody is asked whether they may be asked.
    let change = |config: &mut ServerConfig| config.confirm_tools = ["works", "request_"].map(str::to_owned).into();
    let replies = script().calls_many(one_reply).says("Done.");
    let server = TestServer::build_with(replies, change, |builder| builder.tools(Arc::new(Simple))).await;
    let mut client = server.connect().await;
    let session = form_session(&mut client).await;
    let turn = client.send_message(&session, "go").await;
    client.skip_to(&turn, "write_confirmation_required").await;
    client.expect("stream_chunk").await;
    client.confirm(&session, &turn, true).await;
    let form = client.skip_to(&turn, "interaction_required").await;
    client.expect("stream_chunk").await;
    client.confirm(&session, "stray", true).await;
    client.expect_error("NO_PENDING_CONFIRMATION").await;
    let values = json!({"interactionId": form["data"]["data"]["interactionId"], "values": {"email": "a@b.c"}});
    client.submit(&session, &turn, values).await;
    client.skip_to(&turn, "write_confirmation_required").await;
    client.expect("stream_chunk").await;
    client.submit(&session, "stray", json!({"interactionId": "x", "declined": true})).await;
    client.expect_error("NO_PENDING_INTERACTION").await;
    client.confirm(&session, &turn, false).await;
    let frames = client.turn_to_end(&turn).await;
    assert!(tool_results(&frames)[0].1);
    assert_eq!(answer_text(&frames), "Done.");
    server.shutdown().await;
}
