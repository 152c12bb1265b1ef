//! Look-ups that only find what the caller may see: what is not theirs does not exist.

use std::sync::Arc;

use super::{Connection, Refusal, Services, drafts::Draft};
use crate::{
    auth::UserScope,
    ids::{ConversationId, SessionId},
    protocol::ErrorCode,
    storage::{Conversation, Participant, ParticipantKind, Session, StorageError},
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
    if let Some(draft) = services.drafts.of_session(id) {
        return Ok(sees(connection, &draft.session.org_id, &draft.participants).then(|| draft.session.clone()));
    }
    let Some(session) = services.storage().session(id).await? else { return Ok(None) };
    let reachable = may_reach(services, connection, session.conversation_id, &session.org_id).await?;
    Ok(reachable.then_some(session))
}

/// The conversation, if the caller may read it. One that is not stored yet does not exist.
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

/// The conversation that is not stored yet, if the caller may read it.
pub(super) fn find_draft(
    services: &Services,
    connection: &Connection,
    id: Option<ConversationId>,
) -> Option<Arc<Draft>> {
    let draft = services.drafts.of_conversation(id?)?;
    sees(connection, &draft.conversation.org_id, &draft.participants).then_some(draft)
}

async fn may_reach(
    services: &Services,
    connection: &Connection,
    conversation: ConversationId,
    org_id: &str,
) -> Result<bool, StorageError> {
    if connection.caller.scope == UserScope::Unscoped {
        return Ok(connection.caller.sees_by_id(org_id, []));
    }
    Ok(sees(connection, org_id, &services.storage().participants(conversation).await?))
}

fn sees(connection: &Connection, org_id: &str, participants: &[Participant]) -> bool {
    let visitors = participants.iter().filter(|participant| participant.kind == ParticipantKind::User);
    connection.caller.sees_by_id(org_id, visitors.filter_map(|visitor| visitor.email.as_deref()))
}
