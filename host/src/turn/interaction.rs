//! Showing the user a form and waiting for it, and what each end of the wait means for the model.

use super::park::{FormAnswer, ParkEnd};
use crate::{
    ids::ParkId,
    protocol::{Event, event::Interaction},
    tools::{CallOutcome, Form, InteractionOutcome, ToolCallResult},
};

/// The event that shows the form.
pub(super) fn required(id: ParkId, form: &Form) -> Event {
    Event::InteractionRequired(Interaction {
        interaction_id: id,
        kind: form.kind().as_str().into(),
        spec: form.spec(),
        reason: form.reason.clone(),
    })
}

/// What the end of the wait means. A user who says nothing, or no, is an answer to the model and not a failed call.
pub(super) fn settle(end: ParkEnd<FormAnswer>) -> ToolCallResult {
    let outcome = match end {
        ParkEnd::Answered(FormAnswer::Submitted(accepted)) => InteractionOutcome::Submitted(accepted),
        ParkEnd::Answered(FormAnswer::Declined) => InteractionOutcome::Declined,
        ParkEnd::Expired(_) | ParkEnd::Unattended(_) => InteractionOutcome::NoResponse,
    };
    ToolCallResult::answered(outcome.to_text())
}

/// A form that cannot be shown as the model asked for it.
pub(super) fn misasked(fault: String) -> ToolCallResult {
    ToolCallResult::error(CallOutcome::InvalidArguments, fault)
}
