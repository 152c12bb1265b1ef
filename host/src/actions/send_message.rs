//! `send_message`: checks everything in the protocol's order, then starts a turn. No message is stored and no
//! acknowledgement is sent before every check has passed; the conversation itself is stored a little earlier.

use std::sync::Arc;

use super::{Connection, Outcome, Refusal, Services, visible};
use crate::{
    ids::TurnId,
    protocol::{ActionError, ErrorCode, Event, ResponseData, action::UncheckedMessage},
    turn::{Busy, Dialect, Subscriber, TurnIds, TurnRequest},
};

pub(super) async fn run(services: &Arc<Services>, connection: &mut Connection, message: UncheckedMessage) -> Outcome {
    if services.turns.connection_is_busy(connection.id) {
        return Err(busy(Busy::Connection));
    }
    let message = message.validate(services.config().limits.message_chars)?;
    let skill = match &message.skill {
        None => None,
        Some(name) => Some(services.runtime.skills.resolve(name).await.ok_or_else(|| unknown_skill(name))?),
    };
    let session = visible::session(services, connection, message.session_id).await?;
    if services.turns.of_conversation(session.conversation_id).is_some() {
        return Err(busy(Busy::Conversation));
    }
    if let Some(unused) = services.drafts.of_session(session.id) {
        services.write(&unused).await?;
    }
    if services.runtime.model.is_none() {
        let text = "no model gateway is configured: set SMOOAI_GATEWAY_KEY, or start with --model offline";
        return Err(Refusal::new(ErrorCode::LlmUnavailable, text));
    }
    if services.turn_tasks.is_closed() {
        return Err(Refusal::new(ErrorCode::InternalError, "the server is shutting down; try again when it is back"));
    }

    let org_settings = services.storage().org_settings(&session.org_id).await?;

    let ids = TurnIds {
        turn: TurnId(services.clock().new_id()),
        conversation: session.conversation_id,
        session: session.id,
        connection: connection.id,
        request: message.request_id.clone(),
    };
    let dialect = Dialect::of(&session);
    let subscriber = Subscriber { connection: connection.id, sender: connection.sender().clone(), dialect };
    let accepted = Event::ImmediateResponse(ResponseData::TurnStarted { turn_id: ids.turn });
    let turn = services.turns.begin(ids, services.clock().clone(), subscriber, accepted).map_err(busy)?;
    connection.remember_turn(message.request_id);
    connection.follow(turn.turn());

    let request = TurnRequest {
        session,
        text: message.message,
        images: message.images,
        files: message.files,
        model: message.model,
        skill,
        stream: message.stream,
        principal: connection.caller.principal.clone(),
        org_settings,
    };
    let runtime = services.runtime.clone();
    services.turn_tasks.spawn(async move { runtime.run(turn, request).await });
    Ok(None)
}

fn busy(busy: Busy) -> Refusal {
    let message = match busy {
        Busy::Connection => "a turn is already running on this connection; wait for it to end, or cancel it",
        Busy::Conversation => "a turn is already running in this conversation; wait for it to end, or cancel it",
    };
    Refusal::new(ErrorCode::TurnInProgress, message)
}

fn unknown_skill(name: &str) -> Refusal {
    Refusal::new(ErrorCode::SkillNotFound, format!("no skill is called \"{name}\" here"))
}

impl From<ActionError> for Refusal {
    fn from(error: ActionError) -> Self {
        Self::new(error.code, error.message)
    }
}
