//! `list_conversations`: a page of the conversations that the caller may read, newest first.

use super::{Connection, Outcome, Services, done};
use crate::{
    protocol::{
        ResponseData,
        action::ListConversations,
        objects::{ConversationCursor, ConversationRow, display_title},
    },
    storage::{ConversationQuery, PLACEHOLDER_PREFIX},
};

pub(super) async fn run(services: &Services, connection: &mut Connection, list: ListConversations) -> Outcome {
    let query = ConversationQuery {
        org_id: services.org_of(connection),
        owner: connection.caller.scope.owner_filter(),
        after: list.cursor.map(|cursor| (cursor.updated_at, cursor.conversation_id)),
        contains: list.query,
        with_empty: false,
        skip: 0,
        limit: list.limit,
    };
    let page = services.storage().conversations(query).await?;
    let last = page.rows.last().filter(|_| page.has_more);
    let next_cursor = last.map(|last| ConversationCursor { updated_at: last.updated_at, conversation_id: last.id });
    let row = |row: crate::storage::ConversationSummary| ConversationRow {
        conversation_id: row.id,
        title: display_title(&row.name, row.name.starts_with(PLACEHOLDER_PREFIX), row.first_inbound_text.as_deref()),
        updated_at: row.updated_at,
        message_count: row.message_count,
    };
    done(ResponseData::Conversations { conversations: page.rows.into_iter().map(row).collect(), next_cursor })
}
