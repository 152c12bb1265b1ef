//! The conversations of an organisation, and what was said in them.

use std::sync::Arc;

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answers::{AdminError, Answer, CallerRefusals, Malformed, Unknown},
    caller::{As, Basic},
    input::{Asked, Named, page_size},
};
use crate::{
    auth::{Principal, Role},
    ids::{ConversationId, MessageId, ParticipantId},
    socket::Live,
    storage::{Conversation, ConversationQuery, ConversationSummary, Direction, Message, OwnerFilter, ParticipantKind},
};

/// The one way in that this server has.
const PLATFORM: &str = "web";

/// Which page of the conversations.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ConversationPage {
    /// Page size, 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `nextCursor` of the previous page.
    #[param(minimum = 0)]
    cursor: Option<i64>,
}

/// A page of conversations, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConversationList {
    conversations: Vec<ConversationRow>,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
    next_cursor: Option<usize>,
}

/// A conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminConversation)]
pub(super) struct ConversationRow {
    #[schema(value_type = String, format = "uuid")]
    id: ConversationId,
    name: String,
    /// Always `web`.
    platform: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<ConversationSummary> for ConversationRow {
    fn from(row: ConversationSummary) -> Self {
        Self { id: row.id, name: row.name, platform: PLATFORM, created_at: row.created_at, updated_at: row.updated_at }
    }
}

/// The conversations of the caller's organisation, newest first. Who has only the basic role sees their own.
#[utoipa::path(
    get, path = "/admin/conversations", operation_id = "listConversations", tag = "admin", params(ConversationPage),
    responses((status = 200, body = ConversationList, description = "a page of them"), Malformed, CallerRefusals)
)]
pub(super) async fn list(
    caller: As<Basic>,
    State(live): State<Arc<Live>>,
    Asked(page): Asked<ConversationPage>,
) -> Answer<ConversationList> {
    let limit = page_size(page.limit)?;
    let cursor = page.cursor.unwrap_or(0);
    let skip = usize::try_from(cursor)
        .map_err(|_| AdminError::invalid(format!("cursor must be the nextCursor of a page, it is {cursor}")))?;
    let Principal { user_id, org_id, role, .. } = caller.principal;
    let owner = if role == Role::Basic { OwnerFilter::Visitor(user_id) } else { OwnerFilter::Everyone };
    let query = ConversationQuery { org_id, owner, after: None, contains: None, with_empty: true, skip, limit };
    let page = live.services.storage().conversations(query).await?;
    let next_cursor = page.has_more.then(|| skip + page.rows.len());
    Ok(Json(ConversationList { conversations: page.rows.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Which page of the messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct MessagePage {
    /// Page size, 200 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// A page of a conversation's messages, oldest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageList {
    #[schema(value_type = String, format = "uuid")]
    conversation_id: ConversationId,
    messages: Vec<MessageRow>,
    /// Where the next page begins; null on the last one.
    #[schema(required, value_type = Option<String>)]
    next_cursor: Option<MessageId>,
}

/// A message as it is stored.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminMessage)]
pub(super) struct MessageRow {
    #[schema(value_type = String, format = "uuid")]
    id: MessageId,
    #[schema(value_type = String, format = "uuid")]
    conversation_id: ConversationId,
    organization_id: String,
    /// `inbound` is from the visitor, `outbound` from the agent.
    direction: &'static str,
    content: Content,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Sender>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_json: Option<MessageMetadata>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// What a message says.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageContent)]
pub(super) struct Content {
    text: String,
    /// The text, then the pictures.
    items: Vec<Item>,
}

/// A part of a message.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schema(as = MessageItem)]
pub(super) enum Item {
    Text { text: String },
    Image { url: String },
}

/// Who wrote a message.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageSender)]
pub(super) struct Sender {
    #[schema(value_type = String, format = "uuid")]
    id: ParticipantId,
    /// `user` or `ai-agent`.
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// What is known of a message beside its content.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageMetadata {
    turn_error: TurnError,
}

/// Marks the record of a failed turn.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TurnError {
    code: String,
    request_id: String,
}

/// The messages of a conversation, oldest first. One of another organisation does not exist; one of another user is
/// refused to who has only the basic role.
#[utoipa::path(
    get, path = "/admin/conversations/{id}/messages", operation_id = "listMessages", tag = "admin",
    params(("id" = String, Path, description = "the conversation"), MessagePage),
    responses(
        (status = 200, body = MessageList, description = "a page of them"),
        Malformed, Unknown, CallerRefusals
    )
)]
pub(super) async fn messages(
    caller: As<Basic>,
    State(live): State<Arc<Live>>,
    Named(id): Named,
    Asked(page): Asked<MessagePage>,
) -> Answer<MessageList> {
    let limit = page_size(page.limit.or(Some(200)))?;
    let conversation = readable(&live, &caller.principal, &id).await?;
    let after = match page.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(cursor) => Some(MessageId::parse(cursor).ok_or_else(unknown_cursor)?),
    };
    let storage = live.services.storage();
    let page = storage.messages_after(conversation.id, after, limit).await?.ok_or_else(unknown_cursor)?;
    let next_cursor = page.rows.last().filter(|_| page.has_more).map(|last| last.id);
    let messages = page.rows.into_iter().map(|message| row(message, &conversation.org_id)).collect();
    Ok(Json(MessageList { conversation_id: conversation.id, messages, next_cursor }))
}

fn unknown_cursor() -> AdminError {
    AdminError::invalid("cursor must be the nextCursor of a page of this conversation")
}

/// The conversation, if the caller may read it.
async fn readable(live: &Live, caller: &Principal, id: &str) -> Result<Conversation, AdminError> {
    let unknown = || AdminError::not_found("conversation");
    let id = ConversationId::parse(id).ok_or_else(unknown)?;
    let storage = live.services.storage();
    let found = storage.conversation(id).await?.filter(|conversation| conversation.org_id == caller.org_id);
    let conversation = found.ok_or_else(unknown)?;
    if caller.role == Role::Basic {
        let participants = storage.participants(id).await?;
        let mut visitors = participants.iter().filter(|participant| participant.kind == ParticipantKind::User);
        if !visitors.any(|visitor| visitor.external_id.as_ref() == Some(&caller.user_id)) {
            return Err(AdminError::forbidden("this conversation is not yours; reading it needs the role curator"));
        }
    }
    Ok(conversation)
}

fn row(message: Message, org_id: &str) -> MessageRow {
    let text = message.text.to_string();
    let images = message.images.into_iter().map(|image| Item::Image { url: image.url });
    MessageRow {
        id: message.id,
        conversation_id: message.conversation_id,
        organization_id: org_id.to_owned(),
        direction: match message.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        },
        content: Content { items: std::iter::once(Item::Text { text: text.clone() }).chain(images).collect(), text },
        from: message.from.map(|from| Sender { id: from.id, r#type: from.kind.as_str(), name: from.name }),
        metadata_json: message
            .turn_error
            .map(|mark| MessageMetadata { turn_error: TurnError { code: mark.code, request_id: mark.request_id } }),
        created_at: message.created_at,
    }
}
