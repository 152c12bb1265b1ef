//! Whether the page that a connection comes from may open a session with an agent; asked before anything is stored.

use super::{Connection, Refusal, Services};
use crate::{
    auth::{Admission, WidgetRefusal, admit},
    protocol::{ErrorCode, action::CreateSession},
};

pub(super) async fn admission(
    services: &Services,
    connection: &Connection,
    create: &CreateSession,
) -> Result<Admission, Refusal> {
    let policy = services.widgets.policy(&create.agent_id).await;
    let policy = policy.map_err(|error| Refusal::new(ErrorCode::InternalError, error.to_string()))?;
    let strict = services.config().widget.strict;
    let now = services.clock().now().as_second();
    let (origin, context) = (connection.origin.as_deref(), create.auth_context.as_ref());
    let admission = admit(policy.as_ref(), strict, origin, context, now)
        .map_err(|refusal| Refusal::new(code(refusal), refusal.to_string()))?;
    let principal = connection.caller.principal.as_ref();
    if let (Some(org_id), Some(principal)) = (&admission.org_id, principal)
        && *org_id != principal.org_id
    {
        // A session that its own connection could not reach helps nobody.
        let message = "this agent belongs to another organisation than your token";
        return Err(Refusal::new(ErrorCode::AgentNotAuthorized, message));
    }
    Ok(admission)
}

fn code(refusal: WidgetRefusal) -> ErrorCode {
    match refusal {
        WidgetRefusal::NoPolicy => ErrorCode::AgentNotAuthorized,
        WidgetRefusal::Origin => ErrorCode::OriginNotAllowed,
        WidgetRefusal::NoKey | WidgetRefusal::Stale | WidgetRefusal::Signature => ErrorCode::AuthContextInvalid,
    }
}
