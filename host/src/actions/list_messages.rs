//! `get_conversation_messages`: a page of the history, newest first.

use super::{Connection, Outcome, Refusal, Services, done, visible};
use crate::{
    protocol::{
        ErrorCode, ResponseData,
        action::{ListMessages, PageStart},
        objects::{MessageContent, MessageDirection, MessageRow, ParticipantRow, ParticipantType},
    },
    storage::{Direction, Message, MessagesBefore, ParticipantKind},
};

pub(super) async fn run(services: &Services, connection: &mut Connection, list: ListMessages) -> Outcome {
    let session = visible::session(services, connection, list.session_id).await?;
    let before = match list.before {
        PageStart::Newest => MessagesBefore::Newest,
        PageStart::Message(id) => MessagesBefore::Message(id),
        PageStart::Instant(instant) => MessagesBefore::Instant(instant),
    };
    let Some(page) = services.storage().messages(session.conversation_id, before, list.limit).await? else {
        let message = "the cursor names no message of this conversation; send the nextCursor of the previous page";
        return Err(Refusal::new(ErrorCode::ValidationError, message));
    };
    let next_cursor = page.rows.last().filter(|_| page.has_more).map(|last| last.id);
    let messages = page.rows.into_iter().map(row).collect();
    done(ResponseData::Messages { messages, next_cursor })
}

fn row(message: Message) -> MessageRow {
    MessageRow {
        id: message.id,
        direction: match message.direction {
            Direction::Inbound => MessageDirection::Inbound,
            Direction::Outbound => MessageDirection::Outbound,
        },
        content: MessageContent { text: message.text.to_string() },
        from: message.from.map(|from| ParticipantRow {
            id: from.id,
            kind: match from.kind {
                ParticipantKind::User => ParticipantType::User,
                ParticipantKind::AiAgent => ParticipantType::AiAgent,
            },
            name: from.name,
        }),
        created_at: message.created_at,
    }
}
