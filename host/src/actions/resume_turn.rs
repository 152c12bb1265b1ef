//! `resume_turn`: replays what a client has missed of a turn, and goes on with what follows.

use super::{Connection, Outcome, Refusal, Services, visible};
use crate::{
    ids::RequestId,
    protocol::{
        ErrorCode, Event, ResponseData,
        action::ResumeTurn,
        capabilities,
        event::{ResumeState, Resuming},
    },
    turn::{Dialect, FoundTurn, Standing, Subscriber},
};

pub(super) async fn run(
    services: &Services,
    connection: &mut Connection,
    request_id: Option<RequestId>,
    resume: ResumeTurn,
) -> Outcome {
    let outcome = replay(services, connection, request_id, resume).await;
    services.runtime.metrics.resumed(outcome.as_ref().map_or("refused", |state| state.as_str()));
    outcome.map(|_| None)
}

/// Replies, queues what is replayed, and says how the turn stands.
async fn replay(
    services: &Services,
    connection: &mut Connection,
    request_id: Option<RequestId>,
    resume: ResumeTurn,
) -> Result<ResumeState, Refusal> {
    let session = visible::session(services, connection, resume.session_id).await?;
    let dialect = Dialect::of(&session);
    if !dialect.resume {
        return Err(Refusal::new(ErrorCode::ValidationError, not_declared()));
    }
    let unknown = || Refusal::new(ErrorCode::TurnNotFound, "no such turn in this conversation; read the history");
    let FoundTurn { ids, log, running } =
        services.turns.find(session.conversation_id, resume.turn).ok_or_else(unknown)?;
    let is_parked = running.as_ref().is_some_and(|turn| turn.parks.is_parked());

    let mut found = ResumeState::Unknown;
    let subscriber = Subscriber { connection: connection.id, sender: connection.sender().clone(), dialect };
    log.resume(subscriber, resume.after_seq, |last_seq, standing| {
        let state = match standing {
            Standing::Open if is_parked => ResumeState::Parked,
            Standing::Open => ResumeState::Running,
            Standing::Finished => ResumeState::Finished,
            Standing::Forgotten => ResumeState::Unknown,
        };
        found = state;
        let reply =
            Resuming { session_id: session.id, turn_id: ids.turn, request_id: ids.request.clone(), last_seq, state };
        services.frame(request_id, Event::ImmediateResponse(ResponseData::Resuming(reply)))
    });
    // A Stop that is meant for this turn and comes after its end must not kill the next one.
    connection.remember_turn(ids.request);
    if let Some(turn) = running {
        connection.follow(&turn);
    }
    Ok(found)
}

fn not_declared() -> String {
    let flag = capabilities::RESUME;
    format!(
        "this session did not declare \"{flag}\"; create one with \"supports\": [\"{flag}\"] and this conversationId"
    )
}
