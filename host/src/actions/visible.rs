//! Look-ups that only find what the caller may see: what is not theirs does not exist.

use super::{Connection, Refusal, Services};
use crate::{
    auth::UserScope,
    ids::{ConversationId, SessionId},
    protocol::ErrorCode,
    storage::{Conversation, ParticipantKind, Session, StorageError},
};

/// The session, if the caller may use it. Naming it counts as use, and as being there to answer.
pub(super) async fn session(
    services: &Services,
    connection: &mut Connection,
    id: Option<SessionId>,
) -> Result<Session, Refusal> {
    let found = find_session(services, connection, id).await?;
    let unknown =
        || Refusal::new(ErrorCode::SessionNotFound, "no such session; create one, or resume by conversationId");
    let session = found.ok_or_else(unknown)?;
    services.storage().touch_session(session.id, services.clock().now()).await?;
    connection.attend(&services.runtime.attendance, session.conversation_id);
    connection.listen_to_session(&services.subscriptions, &session, services.config().limits.subscriptions);
    Ok(session)
}

/// As [`session`], without a word when there is none.
pub(super) async fn find_session(
    services: &Services,
    connection: &Connection,
    id: Option<SessionId>,
) -> Result<Option<Session>, StorageError> {
    let Some(id) = id else { return Ok(None) };
    let Some(session) = services.storage().session(id).await? else { return Ok(None) };
    let reachable = may_reach(services, connection, session.conversation_id, &session.org_id).await?;
    Ok(reachable.then_some(session))
}

/// The conversation, if the caller may read it.
pub(super) async fn find_conversation(
    services: &Services,
    connection: &Connection,
    id: Option<ConversationId>,
) -> Result<Option<Conversation>, StorageError> {
    let Some(id) = id else { return Ok(None) };
    let Some(conversation) = services.storage().conversation(id).await? else { return Ok(None) };
    let reachable = may_reach(services, connection, id, &conversation.org_id).await?;
    Ok(reachable.then_some(conversation))
}

async fn may_reach(
    services: &Services,
    connection: &Connection,
    conversation: ConversationId,
    org_id: &str,
) -> Result<bool, StorageError> {
    let caller = &connection.caller;
    if caller.scope == UserScope::Unscoped {
        return Ok(caller.sees_by_id(org_id, []));
    }
    let participants = services.storage().participants(conversation).await?;
    let visitors = participants.iter().filter(|participant| participant.kind == ParticipantKind::User);
    Ok(caller.sees_by_id(org_id, visitors.filter_map(|visitor| visitor.email.as_deref())))
}
