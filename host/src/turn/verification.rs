//! What follows when a tool was refused because the user is not verified: the model is told why, and at the end of the
//! turn the user is sent a code. Nothing waits for it; the user asks again once they have entered it.

use super::{
    registry::RunningTurn,
    run::{KnowledgeChatRuntime, TurnFailure},
};
use crate::{
    otp::SendEnd,
    protocol::{
        ErrorCode, Event,
        event::{AuthLevel, OtpOffer},
    },
    storage::Session,
    tools::ToolCallResult,
};

/// The result of a call that the agent's rules forbid.
pub(super) fn forbidden(tool: &str) -> ToolCallResult {
    ToolCallResult::denied(format!(
        "{tool} is not for the users of this agent; it did not run. Say that it cannot be done here"
    ))
}

impl KnowledgeChatRuntime {
    /// The refusal of a call that needs a verified session; `None` when the session is verified. Says what will happen,
    /// so that the model can tell the user.
    pub(super) async fn unverified(&self, turn: &RunningTurn, tool: &str) -> Option<ToolCallResult> {
        let session = self.session_now(turn).await;
        if session.as_ref().is_some_and(Session::is_verified) {
            return None;
        }
        let next = match (&self.otp, session) {
            (None, _) | (_, None) => "This server has no way to verify them; say that it cannot be done here.",
            (Some(desk), Some(session)) if desk.ways(&session.contact()).is_empty() => {
                "They can be sent a code, but how to reach them is not known; ask for their email address or telephone \
                 number first."
            }
            (Some(_), Some(_)) => {
                "They are offered a code at the end of this reply; say so, and ask them to repeat their request once they \
                 have entered it."
            }
        };
        Some(ToolCallResult::denied(format!(
            "{tool} needs a verified user, and this one is not; it did not run. {next}"
        )))
    }

    /// Offers the user to verify themselves for this tool, and sends the code.
    ///
    /// # Errors
    ///
    /// Only when the turn was cancelled.
    pub(super) async fn offer_verification(&self, turn: &RunningTurn, tool: &str) -> Result<(), TurnFailure> {
        let Some(desk) = &self.otp else { return Ok(()) };
        let session = turn.unless_cancelled(self.session_now(turn)).await?;
        let Some(session) = session.filter(|session| !session.is_verified()) else { return Ok(()) };
        let ways = desk.ways(&session.contact());
        let Some(first) = ways.first() else { return Ok(()) };
        turn.log.append(Event::OtpVerificationRequired(OtpOffer {
            tool_name: tool.to_owned(),
            action_description: format!("Please verify that it is you before {tool} runs."),
            available_channels: ways.iter().map(|(channel, _)| *channel).collect(),
            auth_level: AuthLevel::EndUser,
        }));
        match turn.unless_cancelled(desk.send(&session, first)).await? {
            SendEnd::Sent(dispatch) => turn.log.append(Event::OtpSent(dispatch)),
            SendEnd::StillLive => {}
            // Under the turn's id it would end the turn for the client, and the reply would be lost.
            SendEnd::Failed(text) => turn.log.pass_on_by_itself(Event::error(ErrorCode::OtpSendFailed, text)),
        }
        Ok(())
    }

    /// The session as it is now: its contact may have been given in this turn, and a code been entered meanwhile. What
    /// cannot be read counts as not verified.
    async fn session_now(&self, turn: &RunningTurn) -> Option<Session> {
        let session = self.storage.session(turn.ids.session).await;
        session.unwrap_or_else(|error| {
            tracing::error!(%error, "the session of a turn could not be read");
            None
        })
    }
}
