//! `submit_interaction`: what a user filled into the form that waits. A wrong answer leaves the form waiting, as often
//! as it takes; only its own deadline ends it.

use super::{Connection, Outcome, Refusal, Services, visible};
use crate::{
    ids::{ParkId, RequestId},
    protocol::{
        ErrorCode, Event, ResponseData,
        action::{Submission, SubmitInteraction},
        event::InvalidInteraction,
    },
    storage::{Session, StorageError},
    tools::{Accepted, Form, remember_identity},
    turn::{FormAnswer, RunningTurn},
};

pub(super) async fn run(
    services: &Services,
    connection: &mut Connection,
    request_id: Option<RequestId>,
    submit: SubmitInteraction,
) -> Outcome {
    let session = visible::find_session(services, connection, submit.session_id).await?.ok_or_else(nothing_waits)?;
    connection.attend(&services.runtime.attendance, session.conversation_id);
    let turn = services.turns.of_conversation(session.conversation_id).ok_or_else(nothing_waits)?;
    let (id, form) = turn.parks.waiting_form().ok_or_else(nothing_waits)?;
    check_meant(&submit, id, &form)?;
    let answer = match submit.submission {
        Submission::Missing => return Err(neither()),
        Submission::Declined => FormAnswer::Declined,
        Submission::Values(values) => match form.check(&values, services.config().limits.interaction_chars) {
            Ok(accepted) => FormAnswer::Submitted(accepted),
            Err(errors) => {
                let kind = form.kind().as_str().into();
                let message = "Some fields need attention.".into();
                let invalid = InvalidInteraction { interaction_id: id, kind, errors, message };
                let frame = services.frame(request_id, Event::InteractionInvalid(invalid));
                turn.log.between_events(|| connection.send(frame));
                return Ok(None);
            }
        },
    };

    // From here on nobody else can answer. Whatever goes wrong before the turn wakes leaves the form waiting.
    let answerable = turn.parks.take_form(id).ok_or_else(nothing_waits)?;
    if let FormAnswer::Submitted(accepted) = &answer {
        remember(services, &turn, &session, accepted).await?;
    }
    // The acknowledgement is queued before the turn wakes, so that it precedes all that the turn does next.
    let acknowledgement =
        services.frame(request_id, Event::ImmediateResponse(acknowledged(&session, id, &answer, &form)));
    turn.log.between_events(|| connection.send(acknowledgement));
    answerable.wake(answer);
    Ok(None)
}

/// Whether the frame is about the form that waits.
fn check_meant(submit: &SubmitInteraction, id: ParkId, form: &Form) -> Result<(), Refusal> {
    let waiting = form.kind().as_str();
    let wrong_kind = submit.kind.as_deref().is_some_and(|kind| kind != waiting);
    if submit.interaction_id.as_deref() == Some(id.to_string().as_str()) && !wrong_kind {
        return Ok(());
    }
    let text = if wrong_kind {
        format!("an interaction of the kind {waiting} waits; send its kind, or none")
    } else {
        "another interaction waits; send the interactionId of the last interaction_required".to_owned()
    };
    Err(Refusal::new(ErrorCode::InteractionMismatch, text))
}

fn acknowledged(session: &Session, interaction_id: ParkId, answer: &FormAnswer, form: &Form) -> ResponseData {
    let session_id = session.id;
    match answer {
        FormAnswer::Declined => ResponseData::InteractionDeclined { session_id, interaction_id },
        FormAnswer::Submitted(accepted) => ResponseData::InteractionAccepted {
            session_id,
            interaction_id,
            kind: form.kind().as_str().into(),
            values: accepted.values(),
        },
    }
}

/// Notes who the user is in the session that asked, and in the one that answered.
async fn remember(
    services: &Services,
    turn: &RunningTurn,
    session: &Session,
    accepted: &Accepted,
) -> Result<(), StorageError> {
    if turn.ids.session != session.id {
        // It may have expired while its turn went on; the one that answers is there.
        match remember_identity(services.storage(), turn.ids.session, accepted).await {
            Err(StorageError::Gone { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    remember_identity(services.storage(), session.id, accepted).await
}

fn nothing_waits() -> Refusal {
    Refusal::new(ErrorCode::NoPendingInteraction, "no interaction waits for an answer here")
}

fn neither() -> Refusal {
    Refusal::new(ErrorCode::ValidationError, "field \"values\" is missing; send the answers, or declined true")
}
