#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SESSION: &str = "00000000-0000-4000-8000-000000000001";
const OTHER: &str = "00000000-0000-4000-8000-000000000002";

fn session_id() -> Option<SessionId> {
    SessionId::parse(SESSION)
}

fn parse(frame: &Value) -> Result<Action, ActionError> {
    Action::parse(&frame.to_string()).map(|frame| frame.action)
}

fn refusal(frame: &Value) -> ActionError {
    let error = parse(frame).unwrap_err();
    assert_eq!(error.request_id.as_ref().map(RequestId::as_str), frame["requestId"].as_str(), "{frame}");
    error
}

fn message(frame: Value) -> Result<SendMessage, ActionError> {
    match parse(&frame).unwrap() {
        Action::SendMessage(message) => message.validate(10),
        other => panic!("{other:?}"),
    }
}

/// A frame with one more key.
fn with(frame: &Value, key: &str, value: Value) -> Value {
    let mut frame = frame.clone();
    frame[key] = value;
    frame
}

#[test]
fn the_envelope_is_checked_in_order() {
    let cases = [
        ("{", ErrorCode::ValidationError, None),
        ("", ErrorCode::ValidationError, None),
        ("[]", ErrorCode::ValidationError, None),
        ("\"ping\"", ErrorCode::ValidationError, None),
        ("null", ErrorCode::ValidationError, None),
        (r#"{"requestId":"r1"}"#, ErrorCode::ValidationError, Some("r1")),
        (r#"{"requestId":"r1","action":5}"#, ErrorCode::ValidationError, Some("r1")),
        (r#"{"requestId":5,"action":null}"#, ErrorCode::ValidationError, None),
        (r#"{"requestId":"r1","action":"dance"}"#, ErrorCode::UnsupportedAction, Some("r1")),
        (r#"{"requestId":{},"action":"dance"}"#, ErrorCode::UnsupportedAction, None),
    ];
    for (text, code, request_id) in cases {
        let error = Action::parse(text).unwrap_err();
        assert_eq!((error.code, error.request_id.as_ref().map(RequestId::as_str)), (code, request_id), "{text}");
    }
    assert!(Action::parse(r#"{"action":"dance"}"#).unwrap_err().message.contains("dance"));
    let endless = json!({"action": "x".repeat(100_000)});
    assert!(refusal(&endless).message.len() < 200);
}

#[test]
fn a_refusal_becomes_an_error_frame() {
    let event = Action::parse(r#"{"action":5,"requestId":"r1"}"#).unwrap_err().into_event(7);
    let error = json!({"code": "VALIDATION_ERROR", "message": "field \"action\" must be a string, it is the number 5"});
    let expected = json!({
        "type": "error", "requestId": "r1", "error": error, "data": {"requestId": "r1", "error": error}, "timestamp": 7
    });
    assert_eq!(serde_json::from_str::<Value>(&event.to_json(false)).unwrap(), expected);
}

#[test]
fn ping_needs_nothing_and_echoes_only_strings() {
    let frame = Action::parse(r#"{"action":"ping","requestId":"p","extra":[1]}"#).unwrap();
    assert_eq!(frame, Frame { request_id: Some(RequestId::new("p")), action: Action::Ping });
    for text in [r#"{"action":"ping"}"#, r#"{"action":"ping","requestId":7}"#, r#"{"action":"ping","requestId":null}"#]
    {
        assert_eq!(Action::parse(text).unwrap(), Frame { request_id: None, action: Action::Ping });
    }
}

#[test]
fn a_session_needs_an_agent() {
    let base = json!({"action": "create_conversation_session", "requestId": "c"});
    for agent in [Value::Null, json!(""), json!("  "), json!(5), json!([])] {
        let error = refusal(&with(&base, "agentId", agent));
        assert_eq!(error.code, ErrorCode::ValidationError);
        assert!(error.message.contains("\"agentId\""), "{}", error.message);
    }
    let expected = CreateSession {
        agent_id: "a1".to_owned(),
        user_name: None,
        user_email: None,
        browser_fingerprint: None,
        metadata: Map::new(),
        supports: None,
        conversation_id: None,
        auth_context: None,
    };
    let minimal = with(&base, "agentId", json!(" a1 "));
    assert_eq!(parse(&minimal), Ok(Action::CreateSession(expected.clone())));
    let mut nulls = minimal;
    for key in ["userName", "userEmail", "metadata", "supports", "conversationId", "authContext"] {
        nulls = with(&nulls, key, Value::Null);
    }
    assert_eq!(parse(&nulls), Ok(Action::CreateSession(expected)));
}

#[test]
fn a_session_takes_everything_that_may_be_said() {
    let frame = json!({
        "action": "create_conversation_session", "agentId": "a1", "userName": "Bo", "userEmail": " bo@example.com ",
        "browserFingerprint": "f", "metadata": {"userPhone": " 1 ", "x": [1]}, "supports": ["choice_chips", 5, null, "resume"],
        "conversationId": OTHER, "authContext": {"userId": "u", "signature": "s", "timestamp": 12}
    });
    let Ok(Action::CreateSession(create)) = parse(&frame) else { panic!("not a create") };
    assert_eq!(create.user_phone(), Some("1"));
    assert_eq!(create.user_email.as_deref(), Some("bo@example.com"));
    assert_eq!(create.supports, Some(vec!["choice_chips".to_owned(), "resume".to_owned()]));
    assert_eq!(create.conversation_id, ConversationId::parse(OTHER));
    let auth = AuthContext { user_id: "u".into(), signature: "s".into(), timestamp: "12".into() };
    assert_eq!(create.auth_context, Some(auth));

    for (key, wrong) in [
        ("userName", json!(1)),
        ("metadata", json!([])),
        ("supports", json!("x")),
        ("conversationId", json!(1)),
        ("authContext", json!({"userId": "u"})),
    ] {
        let error = refusal(&with(&frame, key, wrong));
        assert_eq!(error.code, ErrorCode::ValidationError);
        assert!(error.message.contains(key), "{}", error.message);
    }
    let Ok(Action::CreateSession(create)) = parse(&with(&frame, "conversationId", json!("nonsense"))) else {
        panic!("an id that names nothing is not an error")
    };
    assert_eq!(create.conversation_id, None);
}

#[test]
fn a_session_id_must_be_there_and_may_name_nothing() {
    for action in [
        "get_session",
        "get_conversation_messages",
        "confirm_tool_action",
        "submit_interaction",
        "verify_otp",
        "resume_turn",
    ] {
        let base = json!({"action": action, "requestId": "g", "approved": true, "code": "1"});
        for frame in [base.clone(), with(&base, "sessionId", json!(5)), with(&base, "sessionId", Value::Null)] {
            let error = refusal(&frame);
            assert_eq!(error.code, ErrorCode::ValidationError, "{frame}");
            assert!(error.message.contains("\"sessionId\""), "{}", error.message);
        }
        assert!(parse(&with(&base, "sessionId", json!(SESSION))).is_ok(), "{action}");
    }
    let frame = json!({"action": "get_session", "sessionId": "nonsense"});
    assert_eq!(parse(&frame), Ok(Action::GetSession(GetSession { session_id: None })));
}

#[test]
fn a_history_page_has_1_to_100_rows() {
    let base = json!({"action": "get_conversation_messages", "sessionId": SESSION});
    let limit = |limit: Value| match parse(&with(&base, "limit", limit)) {
        Ok(Action::ListMessages(list)) => Ok(list.limit),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    };
    for (asked, given) in [(json!(1), 1), (json!(100), 100), (json!(101), 100), (json!(u64::MAX), 100), (json!(7.0), 7)]
    {
        assert_eq!(limit(asked), Ok(given));
    }
    for asked in [Value::Null, json!(0), json!(-3)] {
        assert_eq!(limit(asked), Ok(50));
    }
    for asked in [json!("10"), json!(1.5), json!([])] {
        assert_eq!(limit(asked), Err(ErrorCode::ValidationError));
    }
}

#[test]
fn a_history_page_begins_where_it_is_told() {
    let base = json!({"action": "get_conversation_messages", "sessionId": SESSION});
    let before = |key: &str, value: Value| match parse(&with(&base, key, value)) {
        Ok(Action::ListMessages(list)) => Ok(list.before),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    };
    let message = PageStart::Message(MessageId::parse(OTHER).unwrap());
    let instant = PageStart::Instant("2026-01-05T10:00:01.004Z".parse().unwrap());
    assert_eq!(before("cursor", Value::Null), Ok(PageStart::Newest));
    assert_eq!(before("cursor", json!("")), Ok(PageStart::Newest));
    assert_eq!(before("cursor", json!(OTHER)), Ok(message));
    assert_eq!(before("cursor", json!("2026-01-05T10:00:01Z")), Err(ErrorCode::ValidationError));
    assert_eq!(before("cursor", json!(5)), Err(ErrorCode::ValidationError));
    assert_eq!(before("before", json!(OTHER)), Ok(message));
    for text in ["2026-01-05T10:00:01.004Z", "2026-01-05T11:00:01.004+01:00", "2026-01-05T10:00:01.004000"] {
        assert_eq!(before("before", json!(text)), Ok(instant), "{text}");
    }
    assert_eq!(before("before", json!("yesterday")), Err(ErrorCode::ValidationError));
}

#[test]
fn a_conversation_page_takes_any_limit() {
    let base = json!({"action": "list_conversations"});
    let limit = |limit: Value| match parse(&with(&base, "limit", limit)) {
        Ok(Action::ListConversations(list)) => list.limit,
        other => panic!("{other:?}"),
    };
    for (asked, given) in [(json!(1), 1), (json!(200), 200), (json!(201), 200)] {
        assert_eq!(limit(asked), given);
    }
    for asked in [Value::Null, json!(0), json!(-1), json!("10"), json!(1.5), json!({})] {
        assert_eq!(limit(asked), 50);
    }
}

#[test]
fn a_conversation_page_takes_a_cursor_and_a_query() {
    let cursor = ConversationCursor {
        updated_at: "2026-01-05T10:00:01.004000001Z".parse().unwrap(),
        conversation_id: ConversationId::parse(OTHER).unwrap(),
    };
    let frame = json!({"action": "list_conversations", "cursor": cursor.to_string(), "query": "  ReTurn "});
    let expected = ListConversations { limit: 50, cursor: Some(cursor), query: Some("return".to_owned()) };
    assert_eq!(parse(&frame), Ok(Action::ListConversations(expected)));
    let frame = json!({"action": "list_conversations", "cursor": "", "query": "  "});
    let expected = ListConversations { limit: 50, cursor: None, query: None };
    assert_eq!(parse(&frame), Ok(Action::ListConversations(expected)));
    for wrong in [json!("b64"), json!(OTHER), json!(5)] {
        let error = refusal(&json!({"action": "list_conversations", "requestId": "l", "cursor": wrong}));
        assert_eq!(error.code, ErrorCode::ValidationError);
    }
}

#[test]
fn a_rename_needs_a_title_that_is_left_after_cleaning() {
    let base = json!({"action": "rename_conversation", "conversationId": OTHER, "requestId": "n"});
    let expected = RenameConversation { conversation_id: ConversationId::parse(OTHER), title: "A b".to_owned() };
    assert_eq!(parse(&with(&base, "title", json!(" \"A   b\" "))), Ok(Action::RenameConversation(expected)));
    for title in [Value::Null, json!("  "), json!("\"*\""), json!(5)] {
        assert_eq!(refusal(&with(&base, "title", title)).code, ErrorCode::ValidationError);
    }
    let nameless = json!({"action": "rename_conversation", "title": "A"});
    assert!(refusal(&nameless).message.contains("conversationId"));
}

#[test]
fn a_message_is_checked_in_the_order_of_the_protocol() {
    let mut frame = json!({"action": "send_message", "skill": "no/skill", "message": "  "});
    let code = |frame: &Value| message(frame.clone()).map_err(|error| (error.code, error.message));
    let assert_names = |frame: &Value, code_expected: ErrorCode, field: &str| {
        let (code, message) = code(frame).unwrap_err();
        assert_eq!(code, code_expected, "{message}");
        assert!(message.contains(field), "{message}");
    };
    assert_names(&frame, ErrorCode::ValidationError, "\"requestId\"");
    frame["requestId"] = json!(5);
    assert_names(&frame, ErrorCode::ValidationError, "\"requestId\"");
    frame["requestId"] = json!("m1");
    assert_names(&frame, ErrorCode::ValidationError, "\"sessionId\"");
    frame["sessionId"] = json!(SESSION);
    assert_names(&frame, ErrorCode::ValidationError, "\"message\"");
    frame["message"] = json!(7);
    assert_names(&frame, ErrorCode::ValidationError, "\"message\"");
    frame["message"] = json!("hello");
    assert_names(&frame, ErrorCode::SkillNotFound, "\"skill\"");
    frame["skill"] = json!("a-Skill_1");
    let expected = SendMessage {
        request_id: RequestId::new("m1"),
        session_id: session_id(),
        message: "hello".to_owned(),
        stream: true,
        model: None,
        skill: Some("a-Skill_1".to_owned()),
        images: vec![],
        files: vec![],
    };
    assert_eq!(message(frame), Ok(expected));
}

#[test]
fn a_messages_length_is_counted_in_characters() {
    let base = json!({"action": "send_message", "requestId": "m1", "sessionId": SESSION});
    assert!(message(with(&base, "message", json!("ü".repeat(10)))).is_ok());
    let error = message(with(&base, "message", json!("ü".repeat(11)))).unwrap_err();
    assert_eq!(error.code, ErrorCode::ValidationError);
    assert!(error.message.contains("at most 10 characters, it has 11"), "{}", error.message);
}

#[test]
fn a_message_may_be_blank_when_something_is_attached() {
    let base = json!({"action": "send_message", "requestId": "m1", "sessionId": SESSION});
    let image = json!([{"url": "data:image/png;base64,AA==", "detail": "low"}, {"url": "https://x/y", "detail": null}]);
    let sent = message(with(&base, "images", image.clone())).unwrap();
    assert_eq!(sent.message, "");
    assert_eq!(sent.images[0].detail.as_deref(), Some("low"));
    assert_eq!(sent.images[1], ImageAttachment { url: "https://x/y".into(), detail: None });
    assert!(message(with(&with(&base, "images", image), "message", json!(" "))).is_ok());
    let files =
        json!([{"name": "a.txt", "mimeType": "text/plain", "url": "https://x/a"}, {"name": "b", "url": "blob:1"}]);
    let sent = message(with(&base, "files", files)).unwrap();
    assert_eq!(sent.files[0].mime_type.as_deref(), Some("text/plain"));
    assert_eq!(sent.files[1].mime_type, None);
    assert_eq!(message(with(&base, "images", json!([]))).unwrap_err().code, ErrorCode::ValidationError);
}

#[test]
fn a_malformed_attachment_refuses_the_message() {
    let base = json!({"action": "send_message", "requestId": "m1", "sessionId": SESSION, "message": "hi"});
    for (key, wrong) in [
        ("images", json!({})),
        ("images", json!([5])),
        ("images", json!([{"url": 5}])),
        ("images", json!([{"url": "file:///etc/passwd"}])),
        ("images", json!([{"url": "https://x/y", "detail": "huge"}])),
        ("images", json!([{"url": "https://x/y"}, {}])),
        ("files", json!("x")),
        ("files", json!([{"name": "a"}])),
        ("files", json!([{"name": " ", "url": "u"}])),
        ("files", json!([{"name": "a", "url": "u", "mimeType": 5}])),
        ("stream", json!("no")),
        ("model", json!(5)),
        ("skill", json!(5)),
    ] {
        let error = message(with(&base, key, wrong.clone())).unwrap_err();
        assert_eq!(error.code, ErrorCode::ValidationError, "{wrong}");
        assert!(error.message.contains(key), "{}", error.message);
    }
    let sent = message(with(&with(&base, "stream", json!(false)), "model", json!(" m "))).unwrap();
    assert_eq!((sent.stream, sent.model.as_deref()), (false, Some("m")));
}

#[test]
fn a_cancel_needs_nothing() {
    let cancel = |frame: Value| parse(&frame);
    assert_eq!(cancel(json!({"action": "cancel"})), Ok(Action::Cancel(Cancel { session_id: None })));
    assert_eq!(
        cancel(json!({"action": "cancel", "sessionId": SESSION})),
        Ok(Action::Cancel(Cancel { session_id: session_id() }))
    );
}

#[test]
fn a_confirmation_is_a_boolean() {
    let base = json!({"action": "confirm_tool_action", "sessionId": SESSION});
    for wrong in [Value::Null, json!("true"), json!(1), json!({})] {
        let error = refusal(&with(&base, "approved", wrong));
        assert_eq!(error.code, ErrorCode::ValidationError);
        assert!(error.message.contains("\"approved\"") && error.message.contains("a boolean"), "{}", error.message);
    }
    let expected = ConfirmTool { session_id: session_id(), approved: false };
    assert_eq!(parse(&with(&base, "approved", json!(false))), Ok(Action::ConfirmTool(expected)));
}

#[test]
fn a_submission_is_declined_or_whatever_json_the_values_are() {
    let base = json!({"action": "submit_interaction", "requestId": "s", "sessionId": SESSION, "interactionId": "i"});
    let submission = |frame: &Value| match parse(frame) {
        Ok(Action::SubmitInteraction(submit)) => submit.submission,
        other => panic!("{other:?}"),
    };
    assert_eq!(submission(&base), Submission::Missing);
    assert_eq!(submission(&with(&base, "declined", json!(false))), Submission::Missing);
    let values = with(&base, "values", json!({"email": null}));
    assert_eq!(submission(&values), Submission::Values(json!({"email": null})));
    assert_eq!(submission(&with(&values, "declined", json!(true))), Submission::Declined);
    assert_eq!(submission(&with(&base, "values", json!([1]))), Submission::Values(json!([1])));
    assert_eq!(submission(&with(&base, "values", Value::Null)), Submission::Values(Value::Null));

    let nameless = json!({"action": "submit_interaction", "sessionId": SESSION});
    assert!(refusal(&nameless).message.contains("requestId"));
}

#[test]
fn a_code_is_checked_with_all_its_fields() {
    let frame = json!({"action": "verify_otp", "requestId": "v", "sessionId": SESSION, "code": "123456"});
    let expected = VerifyOtp { session_id: session_id(), code: "123456".to_owned() };
    assert_eq!(parse(&frame), Ok(Action::VerifyOtp(expected)));
    for key in ["requestId", "sessionId", "code"] {
        assert_eq!(refusal(&with(&frame, key, Value::Null)).code, ErrorCode::ValidationError);
    }
    assert_eq!(refusal(&with(&frame, "code", json!(123_456))).code, ErrorCode::ValidationError);
}

#[test]
fn a_resume_names_a_turn_or_means_the_latest() {
    let base = json!({"action": "resume_turn", "requestId": "r", "sessionId": SESSION});
    let resume = |frame: &Value| match parse(frame) {
        Ok(Action::ResumeTurn(resume)) => (resume.turn, resume.after_seq),
        other => panic!("{other:?}"),
    };
    assert_eq!(resume(&base), (TurnChoice::Latest, 0));
    let named = with(&with(&base, "turnId", json!(OTHER)), "afterSeq", json!(7));
    assert_eq!(resume(&named), (TurnChoice::Named(TurnId::parse(OTHER)), 7));
    assert_eq!(resume(&with(&base, "turnId", json!("x"))).0, TurnChoice::Named(None));
    for wrong in [json!(-1), json!(1.5), json!("1")] {
        assert_eq!(refusal(&with(&base, "afterSeq", wrong)).code, ErrorCode::ValidationError);
    }
    assert!(refusal(&with(&base, "requestId", Value::Null)).message.contains("requestId"));
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in "(?s).{0,200}") {
        let _ = Action::parse(&text);
    }

    #[test]
    fn no_field_is_too_odd(
        action in prop::sample::select(vec![
            "create_conversation_session", "get_session", "get_conversation_messages", "list_conversations",
            "rename_conversation", "send_message", "cancel", "confirm_tool_action", "submit_interaction", "verify_otp",
            "resume_turn",
        ]),
        key in prop::sample::select(vec![
            "requestId", "sessionId", "agentId", "message", "images", "files", "limit", "cursor", "before", "query",
            "title", "conversationId", "approved", "values", "declined", "code", "turnId", "afterSeq", "skill", "supports",
        ]),
        odd in prop::sample::select(vec![
            json!(null), json!(true), json!(-1), json!(1e300), json!(""), json!("ü"), json!([null, {}]), json!({"a": null}),
        ]),
    ) {
        let frame = json!({
            "action": action, "requestId": "r", "sessionId": SESSION, "agentId": "a", "message": "m", "title": "t",
            "conversationId": OTHER, "approved": true, "code": "1"
        });
        match Action::parse(&with(&frame, key, odd).to_string()) {
            Ok(Frame { action: Action::SendMessage(message), .. }) => {
                let _ = message.validate(10);
            }
            Ok(_) => {}
            Err(error) => prop_assert_eq!(error.code, ErrorCode::ValidationError),
        }
    }
}
