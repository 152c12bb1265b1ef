//! `confirm_tool_action`: a human's yes or no to the tool call that waits.

use super::{Connection, Outcome, Refusal, Services, visible};
use crate::{
    ids::RequestId,
    protocol::{ErrorCode, Event, ResponseData, action::ConfirmTool},
    turn::Verdict,
};

pub(super) async fn run(
    services: &Services,
    connection: &mut Connection,
    request_id: Option<RequestId>,
    confirm: ConfirmTool,
) -> Outcome {
    let nothing = || Refusal::new(ErrorCode::NoPendingConfirmation, "no tool call waits for a confirmation here");
    let session = visible::find_session(services, connection, confirm.session_id).await?.ok_or_else(nothing)?;
    connection.attend(&services.runtime.attendance, session.conversation_id);
    let turn = services.turns.of_conversation(session.conversation_id).ok_or_else(nothing)?;
    let answerable = turn.parks.take_call().ok_or_else(nothing)?;
    // The acknowledgement is queued before the turn wakes, so that it precedes all that the turn does next.
    let data = ResponseData::Confirmed { session_id: session.id, approved: confirm.approved };
    let acknowledgement = services.frame(request_id, Event::ImmediateResponse(data));
    turn.log.between_events(|| connection.send(acknowledgement));
    answerable.wake(if confirm.approved { Verdict::Approved } else { Verdict::Rejected });
    Ok(None)
}
