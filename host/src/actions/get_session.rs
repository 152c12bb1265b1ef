//! `get_session`: describes a session.

use super::{Connection, Outcome, Services, create_session::session_ready, done, visible};
use crate::protocol::{ResponseData, action::GetSession, event::SessionStatus};

pub(super) async fn run(services: &Services, connection: &mut Connection, get: GetSession) -> Outcome {
    let session = visible::session(services, connection, get.session_id).await?;
    done(ResponseData::Session(session_ready(&session), SessionStatus::Active))
}
