//! `rename_conversation`: gives a conversation a title.

use super::{Connection, Outcome, Refusal, Services, done, visible};
use crate::protocol::{ErrorCode, ResponseData, action::RenameConversation};

pub(super) async fn run(services: &Services, connection: &mut Connection, rename: RenameConversation) -> Outcome {
    let unknown = || Refusal::new(ErrorCode::ConversationNotFound, "no such conversation");
    let found = visible::find_conversation(services, connection, rename.conversation_id).await?;
    let conversation = found.ok_or_else(unknown)?;
    let now = services.clock().now();
    if !services.storage().rename_conversation(conversation.id, &rename.title, now).await? {
        return Err(unknown());
    }
    done(ResponseData::Renamed { conversation_id: conversation.id, title: rename.title })
}
