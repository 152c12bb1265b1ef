//! What the model is shown of the conversation so far. Pure.
//!
//! It is shown what was said, oldest first: never old tool calls, never the record of a failed turn, and pictures only
//! of the newest messages that have any.

use crate::{
    model::{ModelImage, ModelMessage},
    storage::{Direction, Message, StoredImage},
};

/// Messages whose pictures are shown again. Pictures are dear, and older ones rarely matter.
const MESSAGES_WITH_IMAGES: usize = 3;

/// Stands in older messages for their pictures.
const IMAGE_OMITTED: &str = "[image omitted]";

/// Turns stored rows, newest first as the storage returns them, into model messages, oldest first.
pub(crate) fn to_model(newest_first: Vec<Message>) -> Vec<ModelMessage> {
    let mut messages_with_images = 0;
    let mut messages: Vec<ModelMessage> = newest_first
        .into_iter()
        .filter(|row| row.turn_error.is_none())
        .filter_map(|row| match row.direction {
            Direction::Outbound => assistant(&row.text),
            Direction::Inbound => {
                let is_shown = messages_with_images < MESSAGES_WITH_IMAGES;
                messages_with_images += usize::from(!row.images.is_empty());
                user(&row.text, row.images, is_shown)
            }
        })
        .collect();
    messages.reverse();
    messages
}

/// The first thing the visitor said, with `now` as the newest; `None` once the agent has said anything, and when the
/// visitor never said anything.
pub(crate) fn unanswered_opening(history: &[ModelMessage], now: &str) -> Option<String> {
    if history.iter().any(|message| matches!(message, ModelMessage::Assistant { .. })) {
        return None;
    }
    let said = history.iter().filter_map(|message| match message {
        ModelMessage::User { text, .. } => Some(text.as_str()),
        _ => None,
    });
    said.chain([now]).find(|text| !text.trim().is_empty()).map(str::to_owned)
}

/// A blank reply says nothing, and some gateways refuse it.
fn assistant(text: &str) -> Option<ModelMessage> {
    let is_blank = text.trim().is_empty();
    (!is_blank).then(|| ModelMessage::Assistant {
        text: text.to_owned(),
        reasoning: String::new(),
        tool_calls: Vec::new(),
    })
}

fn user(text: &str, images: Vec<StoredImage>, is_shown: bool) -> Option<ModelMessage> {
    let is_blank = text.trim().is_empty();
    if images.is_empty() {
        return (!is_blank).then(|| ModelMessage::User { text: text.to_owned(), images: Vec::new() });
    }
    if is_shown {
        let images = images.into_iter().map(|image| ModelImage { url: image.url, detail: image.detail }).collect();
        return Some(ModelMessage::User { text: text.to_owned(), images });
    }
    let text = if is_blank { IMAGE_OMITTED.to_owned() } else { format!("{text}\n{IMAGE_OMITTED}") };
    Some(ModelMessage::User { text, images: Vec::new() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        ids::{ConversationId, MessageId},
        storage::TurnErrorMark,
    };

    fn row(direction: Direction, text: &str) -> Message {
        Message {
            id: MessageId(Uuid::nil()),
            conversation_id: ConversationId(Uuid::nil()),
            direction,
            text: text.into(),
            images: vec![],
            from: None,
            turn_error: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn with_images(text: &str, urls: &[&str]) -> Message {
        let image = |url: &&str| StoredImage { url: (*url).to_owned(), detail: Some("low".to_owned()) };
        Message { images: urls.iter().map(image).collect(), ..row(Direction::Inbound, text) }
    }

    fn said(text: &str) -> ModelMessage {
        ModelMessage::User { text: text.to_owned(), images: vec![] }
    }

    fn answered(text: &str) -> ModelMessage {
        ModelMessage::Assistant { text: text.to_owned(), reasoning: String::new(), tool_calls: vec![] }
    }

    #[test]
    fn the_opening_is_what_was_said_first_until_it_is_answered() {
        assert_eq!(unanswered_opening(&[], "hi").as_deref(), Some("hi"));
        assert_eq!(unanswered_opening(&[said(" "), said("first")], "second").as_deref(), Some("first"));
        assert_eq!(unanswered_opening(&[], "  "), None);
        assert_eq!(unanswered_opening(&[said("first"), answered("hello")], "second"), None);
    }

    #[test]
    fn the_oldest_message_comes_first() {
        let rows = vec![row(Direction::Outbound, "hello"), row(Direction::Inbound, "hi")];
        assert_eq!(to_model(rows), [said("hi"), answered("hello")]);
    }

    #[test]
    fn failed_turns_and_blank_rows_are_not_replayed() {
        let mark = TurnErrorMark { code: "AGENT_ERROR".to_owned(), request_id: "r".to_owned() };
        let failed = Message { turn_error: Some(mark), ..row(Direction::Outbound, "it failed") };
        let rows =
            vec![failed, row(Direction::Inbound, "hi"), row(Direction::Outbound, " "), row(Direction::Inbound, "")];
        assert_eq!(to_model(rows), [said("hi")]);
    }

    #[test]
    fn pictures_are_kept_in_the_three_newest_messages_that_have_any() {
        let rows = vec![
            with_images("five", &["5a", "5b"]),
            row(Direction::Inbound, "between"),
            with_images("", &["4"]),
            with_images("three", &["3"]),
            with_images("two", &["2a", "2b"]),
            with_images("", &["1"]),
        ];
        let shown: Vec<(String, Vec<String>)> = to_model(rows)
            .into_iter()
            .map(|message| match message {
                ModelMessage::User { text, images } => (text, images.into_iter().map(|image| image.url).collect()),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected: [(&str, &[&str]); 6] = [
            ("[image omitted]", &[]),
            ("two\n[image omitted]", &[]),
            ("three", &["3"]),
            ("", &["4"]),
            ("between", &[]),
            ("five", &["5a", "5b"]),
        ];
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(text, urls)| ((*text).to_owned(), urls.iter().map(|url| (*url).to_owned()).collect()))
            .collect();
        assert_eq!(shown, expected);
    }

    proptest! {
        #[test]
        fn what_was_said_is_kept_in_order(rows in prop::collection::vec((any::<bool>(), any::<bool>(), 0..4usize), 0..40)) {
            let newest_first: Vec<Message> = rows.iter().enumerate().map(|(index, (is_inbound, is_failed, images))| {
                let direction = if *is_inbound { Direction::Inbound } else { Direction::Outbound };
                let mark = TurnErrorMark { code: String::new(), request_id: String::new() };
                Message {
                    turn_error: is_failed.then_some(mark),
                    images: if *is_inbound { with_images("", &vec!["u"; *images]).images } else { vec![] },
                    ..row(direction, &format!("{index};"))
                }
            }).collect();
            let messages = to_model(newest_first);
            let kept: Vec<usize> = (0..rows.len()).rev().filter(|index| !rows[*index].1).collect();
            prop_assert_eq!(messages.len(), kept.len());
            let mut with_images = 0;
            for (message, index) in messages.iter().zip(kept) {
                let (text, is_user, images) = match message {
                    ModelMessage::User { text, images } => (text, true, images.len()),
                    ModelMessage::Assistant { text, .. } => (text, false, 0),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                let prefix = format!("{index};");
                prop_assert!(text.starts_with(&prefix));
                prop_assert_eq!(is_user, rows[index].0);
                with_images += usize::from(images > 0);
            }
            prop_assert!(with_images <= MESSAGES_WITH_IMAGES);
        }
    }
}
