//! One short line of a small model ("I'll look that up.") while the turn's own model thinks. Only when a model is
//! configured for it; shown before the first word of the answer or not at all, never stored, never part of the reply.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{
    aside::{self, Aside},
    registry::RunningTurn,
    run::{KnowledgeChatRuntime, TurnRequest},
};
use crate::protocol::{Event, objects::shorten};

/// Longest line that is shown, in characters.
const LINE_CHARS: usize = 200;

/// Ceiling of the reply, in tokens.
const MAX_TOKENS: u32 = 64;

const INSTRUCTIONS: &str = "\
A colleague is about to answer the user's message and needs a moment. Write one short, friendly sentence for the user \
that says what is being looked into, in the language of the message. Do not answer the message, promise nothing and \
ask nothing.";

impl KnowledgeChatRuntime {
    /// Starts to fetch the line. Dropping the handle gives up on it.
    pub(super) fn start_preamble(
        &self,
        turn: &Arc<RunningTurn>,
        request: &TurnRequest,
    ) -> Option<AbortOnDropHandle<()>> {
        let model = self.config.preamble_model.clone().filter(|_| !self.config.is_offline())?;
        if !request.stream || request.text.trim().is_empty() {
            return None;
        }
        let (client, turn, limit) = (self.model.clone()?, turn.clone(), self.config.limits.model_aside);
        let aside =
            Aside { model, instructions: INSTRUCTIONS.to_owned(), text: request.text.clone(), max_tokens: MAX_TOKENS };
        let task = tokio::spawn(async move {
            let line = turn.unless_cancelled(aside::ask(&*client, aside, limit)).await;
            let Ok(Some(line)) = line else { return };
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            turn.log.append_before_tokens(Event::StreamPreamble(shorten(&line, LINE_CHARS)));
        });
        Some(AbortOnDropHandle::new(task))
    }
}
