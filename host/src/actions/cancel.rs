//! `cancel`: stops a running turn. Says nothing when there is nothing to stop.

use std::sync::Arc;

use super::{Connection, Outcome, Services, visible};
use crate::{
    ids::RequestId,
    protocol::action::Cancel,
    turn::{Dialect, RunningTurn, Subscriber},
};

pub(super) async fn run(
    services: &Services,
    connection: &mut Connection,
    request_id: Option<RequestId>,
    cancel: Cancel,
) -> Outcome {
    let Some((turn, dialect)) = meant(services, connection, &cancel).await else { return Ok(None) };
    let is_stale = |id: &RequestId| *id != turn.ids.request && connection.started_turn(id);
    if request_id.as_ref().is_some_and(is_stale) {
        // A Stop click that raced the natural end of its turn must not kill the next one.
        return Ok(None);
    }
    if turn.ids.connection != connection.id {
        // The canceller learns of it too, under the turn's id.
        turn.log.subscribe(Subscriber { connection: connection.id, sender: connection.sender().clone(), dialect });
    }
    turn.cancel();
    Ok(None)
}

/// The turn that the frame means, and how the one who means it sees events: the turn of the named session's
/// conversation, otherwise the connection's own.
async fn meant(
    services: &Services,
    connection: &mut Connection,
    cancel: &Cancel,
) -> Option<(Arc<RunningTurn>, Dialect)> {
    let named = match visible::find_session(services, connection, cancel.session_id).await {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "the session of a cancel could not be looked up");
            None
        }
    };
    match named {
        Some(session) => {
            let turn = services.turns.of_conversation(session.conversation_id)?;
            Some((turn, Dialect::of(&session)))
        }
        None => services.turns.of_connection(connection.id).map(|turn| (turn, Dialect::default())),
    }
}
