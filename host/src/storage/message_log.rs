//! The messages of one conversation, oldest first, packed so that a turn costs its text and little else. Pure: it
//! knows neither locks nor other conversations.
//!
//! It never holds more than it was told to, and its times never go backwards.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;

use super::{Direction, Message, MessagesBefore, Page, ParticipantRef, StoredImage, TurnErrorMark};
use crate::ids::{ConversationId, MessageId};

/// A bounded log of messages.
#[derive(Debug, Default)]
pub(super) struct MessageLog {
    /// Ids beside the rows and in the same order. A cursor is found by walking over them: 16 bytes a message, so that
    /// even the longest log is some microseconds, where an index would cost more memory than a short message does.
    ids: VecDeque<MessageId>,
    rows: VecDeque<Row>,
    /// Everyone who ever spoke here, once each.
    senders: Vec<ParticipantRef>,
    /// Kept when its message has been dropped, because the conversation's title depends on it.
    first_inbound_text: Option<Arc<str>>,
}

/// One message without what the log or the conversation already knows.
#[derive(Debug)]
struct Row {
    created_at: Timestamp,
    text: Arc<str>,
    /// Index into `senders`.
    sender: Option<u32>,
    direction: Direction,
    /// Behind a pointer, because nearly every message has none of it.
    extra: Option<Box<Extra>>,
}

#[derive(Debug)]
struct Extra {
    images: Vec<StoredImage>,
    turn_error: Option<TurnErrorMark>,
}

impl MessageLog {
    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Text of the first inbound message that had any.
    pub(super) fn first_inbound_text(&self) -> Option<&Arc<str>> {
        self.first_inbound_text.as_ref()
    }

    /// Appends a message and drops the oldest ones past `max`. Returns the time it is stored under.
    pub(super) fn push(&mut self, message: Message, max: usize) -> Timestamp {
        let newest = self.rows.back().map_or(Timestamp::MIN, |row| row.created_at);
        let created_at = message.created_at.max(newest);
        let is_opening = self.first_inbound_text.is_none() && message.direction == Direction::Inbound;
        if is_opening && !message.text.trim().is_empty() {
            self.first_inbound_text = Some(Arc::clone(&message.text));
        }
        let sender = message.from.map(|from| self.sender_index(from));
        let has_extra = !message.images.is_empty() || message.turn_error.is_some();
        let extra = has_extra.then(|| Box::new(Extra { images: message.images, turn_error: message.turn_error }));
        self.ids.push_back(message.id);
        self.rows.push_back(Row { created_at, text: message.text, sender, direction: message.direction, extra });
        while self.rows.len() > max {
            self.ids.pop_front();
            self.rows.pop_front();
        }
        created_at
    }

    /// At most `limit` messages older than `before`, newest first; `None` when `before` names no message of the log.
    pub(super) fn page(
        &self,
        conversation_id: ConversationId,
        before: &MessagesBefore,
        limit: usize,
    ) -> Option<Page<Message>> {
        let end = match before {
            MessagesBefore::Newest => self.rows.len(),
            MessagesBefore::Message(id) => self.ids.iter().rposition(|known| known == id)?,
            MessagesBefore::Instant(instant) => self.rows.partition_point(|row| row.created_at < *instant),
        };
        let start = end.saturating_sub(limit);
        let rows = (start..end).rev().map(|index| self.message(conversation_id, index)).collect();
        Some(Page { rows, has_more: start > 0 })
    }

    /// At most `limit` messages newer than `after`, oldest first; `None` when `after` names no message of the log.
    pub(super) fn page_after(
        &self,
        conversation_id: ConversationId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Option<Page<Message>> {
        let start = match after {
            None => 0,
            Some(id) => self.ids.iter().position(|known| *known == id)? + 1,
        };
        let end = start.saturating_add(limit).min(self.rows.len());
        let rows = (start..end).map(|index| self.message(conversation_id, index)).collect();
        Some(Page { rows, has_more: end < self.rows.len() })
    }

    fn message(&self, conversation_id: ConversationId, index: usize) -> Message {
        let row = &self.rows[index];
        Message {
            id: self.ids[index],
            conversation_id,
            direction: row.direction,
            text: Arc::clone(&row.text),
            images: row.extra.as_ref().map(|extra| extra.images.clone()).unwrap_or_default(),
            from: row.sender.map(|sender| self.senders[sender as usize].clone()),
            turn_error: row.extra.as_ref().and_then(|extra| extra.turn_error.clone()),
            created_at: row.created_at,
        }
    }

    /// Searched from the end: whoever speaks now nearly always spoke a moment ago.
    fn sender_index(&mut self, from: ParticipantRef) -> u32 {
        let known = self.senders.iter().rposition(|sender| *sender == from);
        let index = known.unwrap_or_else(|| {
            self.senders.push(from);
            self.senders.len() - 1
        });
        u32::try_from(index).expect("a conversation has fewer than four thousand million senders")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stays_small() {
        // The text itself is behind the Arc; id, row and the Arc's two counters are all a message costs beside it.
        assert!(size_of::<Row>() <= 56, "{}", size_of::<Row>());
    }
}
