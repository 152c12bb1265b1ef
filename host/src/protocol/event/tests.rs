#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::protocol::{
    objects::{Citation, MessageContent, MessageDirection, Usage},
    schema::{Extensions, tests::check},
};

fn uuid(last: u8) -> Uuid {
    Uuid::from_bytes([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, last])
}

/// The text form of [`uuid`].
fn id(last: u8) -> String {
    uuid(last).to_string()
}

fn frame(event: Event) -> EventFrame {
    EventFrame { request_id: Some(RequestId::new("m1")), seq: Some(2), timestamp_ms: 1_750_000_000_300, event }
}

/// The frame as a session without any extension gets it, without what all frames have.
fn value(event: Event) -> Value {
    let frame = frame(event);
    let resume = matches!(frame.event, Event::ImmediateResponse(ResponseData::Resuming(_)));
    let tool_progress = frame.event.is_tool_progress();
    check(&EventFrame { seq: None, ..frame.clone() }, Extensions { resume, tool_progress });
    let mut value: Value = serde_json::from_str(&frame.to_json(false)).unwrap();
    let keys = value.as_object_mut().unwrap();
    assert_eq!(keys.remove("timestamp"), Some(json!(1_750_000_000_300_i64)));
    assert_eq!(keys.remove("requestId"), Some(json!("m1")));
    assert_eq!(keys.get("type"), Some(&json!(frame.event.type_name())));
    value
}

fn session() -> SessionReady {
    SessionReady {
        session_id: SessionId(uuid(1)),
        conversation_id: ConversationId(uuid(2)),
        agent_id: "0e3c".to_owned(),
        agent_name: "smooth-agent".to_owned(),
        user_participant_id: ParticipantId(uuid(3)),
        agent_participant_id: ParticipantId(uuid(4)),
    }
}

#[test]
fn pong_repeats_its_time() {
    let frame = EventFrame::new(Some(RequestId::new("p1")), 1_750_000_000_123, Event::Pong);
    let expected = r#"{"type":"pong","requestId":"p1","data":{"timestamp":1750000000123},"timestamp":1750000000123}"#;
    assert_eq!(frame.to_json(false), expected);
}

#[test]
fn the_id_is_absent_when_the_frame_had_none() {
    let frame = EventFrame::new(None, 5, Event::error(ErrorCode::ValidationError, "no"));
    let expected = r#"{"type":"error","error":{"code":"VALIDATION_ERROR","message":"no"},"data":{"error":{"code":"VALIDATION_ERROR","message":"no"}},"timestamp":5}"#;
    assert_eq!(frame.to_json(true), expected);
    let frame = EventFrame::new(None, 5, Event::StreamToken("x".into()));
    assert_eq!(frame.to_json(true), r#"{"type":"stream_token","token":"x","data":{"token":"x"},"timestamp":5}"#);
}

#[test]
fn tokens_stand_twice() {
    let expected = r#"{"type":"stream_token","requestId":"m1","token":"Hel","data":{"requestId":"m1","token":"Hel"},"timestamp":1750000000300}"#;
    assert_eq!(frame(Event::StreamToken("Hel".into())).to_json(false), expected);
    for event in [Event::StreamReasoning("Hel".into()), Event::StreamPreamble("Hel".into())] {
        let expected = expected.replace("stream_token", event.type_name());
        assert_eq!(frame(event).to_json(false), expected);
    }
}

#[test]
fn numbers_and_the_turns_id_are_only_for_sessions_that_resume() {
    let expected = r#"{"type":"stream_token","requestId":"m1","seq":2,"token":"Hel","data":{"requestId":"m1","token":"Hel"},"timestamp":1750000000300}"#;
    assert_eq!(frame(Event::StreamToken("Hel".into())).to_json(true), expected);

    let ack = frame(Event::ImmediateResponse(ResponseData::TurnStarted { turn_id: TurnId(uuid(9)) }));
    let plain = r#"{"type":"immediate_response","requestId":"m1","status":202,"message":"working on it","data":{},"timestamp":1750000000300}"#;
    assert_eq!(ack.to_json(false), plain);
    let numbered = format!(
        r#"{{"type":"immediate_response","requestId":"m1","status":202,"message":"working on it","seq":2,"data":{{"turnId":"{}"}},"timestamp":1750000000300}}"#,
        id(9)
    );
    assert_eq!(ack.to_json(true), numbered);
    let resume = Extensions { resume: true, tool_progress: false };
    for event in [Event::StreamToken("Hel".into()), Event::Cancelled, Event::error(ErrorCode::AgentError, "no")] {
        check(&frame(event), resume);
    }
    check(&ack, resume);
    check(&ack, Extensions::default());

    let keepalive = EventFrame { seq: None, ..frame(Event::Keepalive) };
    assert_eq!(keepalive.to_json(true), keepalive.to_json(false));
}

#[test]
fn responses_have_their_exact_keys() {
    let ready = json!({
        "sessionId": id(1), "conversationId": id(2), "agentId": "0e3c", "agentName": "smooth-agent",
        "userParticipantId": id(3), "agentParticipantId": id(4)
    });
    let mut described = ready.clone();
    described["threadId"] = json!(id(2));
    described["status"] = json!("active");
    let row = MessageRow {
        id: MessageId(uuid(6)),
        direction: MessageDirection::Inbound,
        content: MessageContent { text: "hello".to_owned() },
        from: None,
        created_at: "2026-01-05T10:00:01.004Z".parse().unwrap(),
    };
    let row_json = json!({"id": id(6), "direction": "inbound", "content": {"text": "hello"}, "createdAt": "2026-01-05T10:00:01.004Z"});
    let cursor = ConversationCursor {
        updated_at: "2026-01-05T10:00:03.120Z".parse().unwrap(),
        conversation_id: ConversationId(uuid(2)),
    };
    let conversation = ConversationRow {
        conversation_id: ConversationId(uuid(2)),
        title: "Return of an order".to_owned(),
        updated_at: cursor.updated_at,
        message_count: 4,
    };
    let conversation_json = json!({
        "conversationId": id(2), "title": "Return of an order", "updatedAt": "2026-01-05T10:00:03.120Z", "messageCount": 4
    });
    let (session_id, interaction_id) = (SessionId(uuid(1)), ParkId(uuid(7)));
    let resuming = Resuming {
        session_id,
        turn_id: TurnId(uuid(9)),
        request_id: RequestId::new("m0"),
        last_seq: 2,
        state: ResumeState::Running,
    };
    let cases = [
        (ResponseData::SessionReady(session()), ready),
        (ResponseData::Session(session(), SessionStatus::Active), described),
        (
            ResponseData::Messages { messages: vec![row.clone()], next_cursor: None },
            json!({"messages": [row_json.clone()], "nextCursor": null, "hasMore": false}),
        ),
        (
            ResponseData::Messages { messages: vec![row], next_cursor: Some(MessageId(uuid(6))) },
            json!({"messages": [row_json], "nextCursor": id(6), "hasMore": true}),
        ),
        (
            ResponseData::Conversations { conversations: vec![], next_cursor: None },
            json!({"conversations": [], "nextCursor": null, "hasMore": false}),
        ),
        (
            ResponseData::Conversations { conversations: vec![conversation], next_cursor: Some(cursor) },
            json!({"conversations": [conversation_json], "nextCursor": cursor.to_string(), "hasMore": true}),
        ),
        (
            ResponseData::Renamed { conversation_id: ConversationId(uuid(2)), title: "T".to_owned() },
            json!({"conversationId": id(2), "title": "T"}),
        ),
        (ResponseData::Confirmed { session_id, approved: false }, json!({"sessionId": id(1), "approved": false})),
        (
            ResponseData::InteractionDeclined { session_id, interaction_id },
            json!({"sessionId": id(1), "interactionId": id(7), "declined": true}),
        ),
        (
            ResponseData::InteractionAccepted {
                session_id,
                interaction_id,
                kind: "choices".into(),
                values: json!({"answers": []}),
            },
            json!({"sessionId": id(1), "interactionId": id(7), "kind": "choices", "values": {"answers": []}}),
        ),
        (
            ResponseData::Resuming(resuming),
            json!({"sessionId": id(1), "turnId": id(9), "requestId": "m0", "lastSeq": 2, "state": "running"}),
        ),
    ];
    for (data, expected) in cases {
        let message = data.message();
        let expected = json!({"type": "immediate_response", "status": 200, "message": message, "data": expected});
        assert_eq!(value(Event::ImmediateResponse(data)), expected);
    }
}

#[test]
fn chunks_have_their_exact_keys() {
    let chunk = |node: &str, raw: Value| {
        let data = json!({"requestId": "m1", "node": node, "state": {"rawResponse": raw}});
        json!({"type": "stream_chunk", "node": node, "data": data})
    };
    let call = StreamChunk::ToolCall { name: "track_parcel".into(), arguments: r#"{"parcel":"Z7"}"#.into() };
    assert_eq!(
        value(Event::StreamChunk(call)),
        chunk("track_parcel", json!({"toolCall": {"name": "track_parcel", "arguments": "{\"parcel\":\"Z7\"}"}}))
    );
    let result = StreamChunk::tool_result("track_parcel", false, "in transit");
    assert_eq!(
        value(Event::StreamChunk(result)),
        chunk(
            "track_parcel",
            json!({"toolResult": {"name": "track_parcel", "isError": false, "result": "in transit"}})
        )
    );
    let progress = StreamChunk::tool_progress("build_index", ToolCallId::new("call_7"), Some(0.4), "2 of 5 files");
    let frame = frame(Event::StreamChunk(progress));
    assert!(frame.event.is_tool_progress());
    assert!(frame.to_json(true).contains(
        r#"{"toolProgress":{"name":"build_index","callId":"call_7","fraction":0.4,"message":"2 of 5 files"}}"#
    ));
    let bare = StreamChunk::tool_progress("x", ToolCallId::new("c"), Some(f32::NAN), "");
    assert_eq!(value(Event::StreamChunk(bare)), chunk("x", json!({"toolProgress": {"name": "x", "callId": "c"}})));
    let beyond = StreamChunk::tool_progress("x", ToolCallId::new("c"), Some(f32::INFINITY), "");
    assert!(matches!(beyond, StreamChunk::ToolProgress { fraction: Some(1.0), .. }));
}

#[test]
fn a_long_result_is_cut_at_500_characters_with_a_marker() {
    let cut = |text: &str| match StreamChunk::tool_result("x", true, text) {
        StreamChunk::ToolResult { result, .. } => result,
        other => panic!("{other:?}"),
    };
    let full = "ü".repeat(500);
    assert_eq!(cut(&full), full);
    assert_eq!(cut(&format!("{full}x")), format!("{}…", "ü".repeat(499)));
}

#[test]
fn the_answer_has_its_exact_keys() {
    let mut answer = Answer::text(MessageId(uuid(6)), "Your order shipped.");
    let mut inner = json!({
        "messageId": id(6), "needsEscalation": false,
        "response": {
            "responseParts": ["Your order shipped."], "customerHappinessScore": 0.5, "needsSatisfactionScore": 0.5,
            "requestSummary": "", "resolutionStatus": "in_progress", "suggestedNextActions": []
        }
    });
    let outer = |inner: &Value| {
        let data = json!({"requestId": "m1", "status": 200, "data": inner});
        json!({"type": "eventual_response", "status": 200, "data": data})
    };
    assert_eq!(value(Event::EventualResponse(Box::new(answer.clone()))), outer(&inner));

    answer.suggested_next_actions = vec!["Track it".to_owned()];
    answer.usage = Some(Usage { cost_usd: 0.0004, prompt_tokens: 812, completion_tokens: 39 });
    answer.directive = json!({"goTo": "/orders"}).as_object().cloned();
    answer.citations = ["https://example.com/r", ""]
        .into_iter()
        .map(|url| Citation {
            id: "kb-1".to_owned(),
            title: "returns.md".to_owned(),
            url: (!url.is_empty()).then(|| url.to_owned()),
            snippet: "…".to_owned(),
            score: 0.42,
        })
        .collect();
    inner["response"]["suggestedNextActions"] = json!(["Track it"]);
    inner["usage"] = json!({"costUsd": 0.0004, "promptTokens": 812, "completionTokens": 39});
    inner["directive"] = json!({"goTo": "/orders"});
    inner["citations"] = json!([
        {"id": "kb-1", "title": "returns.md", "url": "https://example.com/r", "snippet": "…", "score": 0.42},
        {"id": "kb-1", "title": "returns.md", "snippet": "…", "score": 0.42}
    ]);
    assert_eq!(value(Event::EventualResponse(Box::new(answer))), outer(&inner));
}

#[test]
fn the_other_events_have_their_exact_keys() {
    let wrapped = |kind: &str, data: Value| json!({"type": kind, "data": {"requestId": "m1", "data": data}});
    let kind = || Cow::Borrowed("identity_intake");
    let interaction_id = ParkId(uuid(7));
    let error = json!({"code": "SESSION_NOT_FOUND", "message": "no such session"});
    let spec = json!({"fields": [{"key": "phone", "label": "Mobile", "required": true}]});
    let cases = [
        (
            Event::error(ErrorCode::SessionNotFound, "no such session"),
            json!({"type": "error", "error": error, "data": {"requestId": "m1", "error": error}}),
        ),
        (Event::Cancelled, json!({"type": "cancelled", "status": 499, "data": {"requestId": "m1", "status": 499}})),
        (
            Event::WriteConfirmationRequired(WriteConfirmation {
                tool_name: "close_account".into(),
                action_description: "Allow the assistant to run close_account?".into(),
            }),
            wrapped(
                "write_confirmation_required",
                json!({"toolId": "close_account", "actionDescription": "Allow the assistant to run close_account?"}),
            ),
        ),
        (
            Event::InteractionRequired(Interaction {
                interaction_id,
                kind: kind(),
                spec: spec.clone(),
                reason: "so a colleague can ring you back".into(),
            }),
            wrapped(
                "interaction_required",
                json!({"interactionId": id(7), "kind": "identity_intake", "spec": spec,
                    "reason": "so a colleague can ring you back"}),
            ),
        ),
        (
            Event::InteractionInvalid(InvalidInteraction {
                interaction_id,
                kind: kind(),
                errors: vec![FieldError { field: "email".into(), message: "must be a valid email address".into() }],
                message: "Some fields need attention.".into(),
            }),
            wrapped(
                "interaction_invalid",
                json!({"interactionId": id(7), "kind": "identity_intake",
                    "errors": [{"field": "email", "message": "must be a valid email address"}],
                    "message": "Some fields need attention."}),
            ),
        ),
        (
            Event::OtpVerificationRequired(OtpOffer {
                tool_name: "pay_invoice".into(),
                action_description: "Please verify it is you before pay_invoice runs.".into(),
                available_channels: vec![OtpChannel::Email],
                auth_level: AuthLevel::EndUser,
            }),
            wrapped(
                "otp_verification_required",
                json!({"toolId": "pay_invoice", "actionDescription": "Please verify it is you before pay_invoice runs.",
                    "availableChannels": ["email"], "authLevel": "end_user"}),
            ),
        ),
        (
            Event::OtpSent(OtpDispatch { channel: OtpChannel::Sms, masked_destination: "a***@example.com".into() }),
            wrapped("otp_sent", json!({"channel": "sms", "maskedDestination": "a***@example.com"})),
        ),
        (
            Event::OtpVerified { message: "You are verified.".into() },
            wrapped("otp_verified", json!({"message": "You are verified."})),
        ),
        (
            Event::OtpInvalid(OtpRejection {
                error: OtpError::InvalidCode,
                attempts_remaining: 2,
                message: "That code did not match.".into(),
            }),
            wrapped(
                "otp_invalid",
                json!({"error": "INVALID_CODE", "attemptsRemaining": 2, "message": "That code did not match."}),
            ),
        ),
        (Event::Keepalive, json!({"type": "keepalive", "data": {"requestId": "m1"}})),
    ];
    for (event, expected) in cases {
        assert_eq!(value(event), expected);
    }
}

#[test]
fn the_measured_length_is_that_of_the_text() {
    let error = frame(Event::error(ErrorCode::AgentError, "the \"model\" failed"));
    assert_eq!(error.wire_len(), error.to_json(true).len());
    let token = frame(Event::StreamToken("Hel".into()));
    assert!((token.to_json(true).len()..token.to_json(true).len() + 64).contains(&token.wire_len()));
}

proptest! {
    #[test]
    fn a_token_frame_by_hand_is_the_frame_that_serde_writes(
        text in "(?s).{0,40}", request_id in proptest::option::of("(?s).{0,20}"), seq: Option<u64>,
        timestamp_ms: i64, with_seq: bool, kind in 0..3u8,
    ) {
        let event = match kind {
            0 => Event::StreamToken(text),
            1 => Event::StreamReasoning(text),
            _ => Event::StreamPreamble(text),
        };
        let frame = EventFrame { request_id: request_id.map(RequestId::new), seq, timestamp_ms, event };
        let by_hand: Value = serde_json::from_str(&frame.to_json(with_seq)).unwrap();
        let by_serde = serde_json::to_value(Numbered { frame: &frame, with_seq }).unwrap();
        prop_assert_eq!(by_hand, by_serde);
    }
}

#[test]
fn a_published_event_is_sent_as_it_was_given() {
    let text = "{ \"type\": \"tools_changed\",\n \"data\": {\"n\": 1.0} }";
    let frame = frame(Event::Published(text.into()));
    assert_eq!((frame.to_json(true).as_str(), frame.wire_len()), (text, text.len()));
    assert!(!frame.event.is_terminal());
}
