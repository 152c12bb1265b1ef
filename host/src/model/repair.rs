//! Keeps the message list acceptable. Pure.
//!
//! Every provider refuses a tool result without its call and a call without its result. Trimming, a crash or a cancel
//! can leave either, so the list is put right before every request; and when the model says that the conversation is
//! too long, the oldest part goes. Instructions, the current user message and what follows it are never dropped.

use std::collections::HashMap;

use super::{ModelMessage, ModelToolCall};
use crate::ids::ToolCallId;

/// What the model reads in place of a result that never came.
const INTERRUPTED: &str = "The tool call was interrupted before it gave a result.";

/// Pairs calls and results: results move right behind their calls, in the order of the calls; results without a call
/// go, calls without a result get one that says so, and assistant messages without any content go.
pub(super) fn pair_tool_results(messages: &mut Vec<ModelMessage>) {
    if is_paired(messages) {
        return;
    }
    let mut results = ResultsByCall::default();
    for (position, message) in messages.iter().enumerate() {
        if let ModelMessage::Tool { call_id, .. } = message {
            results.0.entry(call_id.clone()).or_default().push(position);
        }
    }
    let mut old: Vec<Option<ModelMessage>> = std::mem::take(messages).into_iter().map(Some).collect();
    for position in 0..old.len() {
        match old[position].take() {
            None | Some(ModelMessage::Tool { .. }) => {}
            Some(message) if is_blank(&message) => {}
            Some(message) => {
                let calls = calls_of(&message).to_vec();
                messages.push(message);
                for call in calls {
                    let found = results.take_after(&call.id, position, &old).and_then(|at| old[at].take());
                    messages.push(found.unwrap_or_else(|| interrupted(&call)));
                }
            }
        }
        // A result that no call before it has taken stays out: it is an orphan, or a duplicate.
    }
}

/// Drops the oldest messages before the current user message until at most `keep_share` of the conversation's bytes
/// remains; at least one goes. `false` when there is nothing that may be dropped.
pub(super) fn drop_oldest(messages: &mut Vec<ModelMessage>, keep_share: f64) -> bool {
    let current = messages.iter().rposition(|message| matches!(message, ModelMessage::User { .. }));
    let is_history = |(position, message): (usize, &ModelMessage)| {
        current.is_some_and(|current| position < current) && !matches!(message, ModelMessage::System(_))
    };
    let total: usize = messages.iter().map(bytes_of).sum();
    let target = (total as f64 * keep_share.clamp(0.0, 1.0)) as usize;
    let mut remaining = total;
    let mut drop = vec![false; messages.len()];
    for (position, message) in messages.iter().enumerate().filter(|item| is_history(*item)) {
        let first = remaining == total;
        let after_call = matches!(message, ModelMessage::Tool { .. });
        if !first && remaining <= target && !after_call {
            break;
        }
        drop[position] = true;
        remaining -= bytes_of(message);
    }
    if !drop.contains(&true) {
        return false;
    }
    let mut dropped = drop.into_iter();
    messages.retain(|_| !dropped.next().unwrap_or(false));
    pair_tool_results(messages);
    true
}

/// Positions of the results of each call id, in order.
#[derive(Default)]
struct ResultsByCall(HashMap<ToolCallId, Vec<usize>>);

impl ResultsByCall {
    /// The first result of this call behind `position`, unless a later message makes a call of the same id before it.
    fn take_after(&mut self, id: &ToolCallId, position: usize, messages: &[Option<ModelMessage>]) -> Option<usize> {
        let positions = self.0.get_mut(id)?;
        let which = positions.iter().position(|at| *at > position && messages[*at].is_some())?;
        let at = positions[which];
        let called_again = messages[position + 1..at]
            .iter()
            .flatten()
            .any(|message| calls_of(message).iter().any(|call| call.id == *id));
        (!called_again).then(|| positions.remove(which))
    }
}

/// The common case costs one look: every call is followed by exactly its results.
fn is_paired(messages: &[ModelMessage]) -> bool {
    let mut open: Vec<&ToolCallId> = Vec::new();
    for message in messages {
        match message {
            ModelMessage::Tool { call_id, .. } => match open.iter().position(|id| *id == call_id) {
                Some(at) => {
                    open.swap_remove(at);
                }
                None => return false,
            },
            _ if !open.is_empty() || is_blank(message) => return false,
            message => open.extend(calls_of(message).iter().map(|call| &call.id)),
        }
    }
    open.is_empty()
}

fn calls_of(message: &ModelMessage) -> &[ModelToolCall] {
    match message {
        ModelMessage::Assistant { tool_calls, .. } => tool_calls,
        _ => &[],
    }
}

/// Providers refuse an assistant message that says and does nothing.
fn is_blank(message: &ModelMessage) -> bool {
    matches!(message, ModelMessage::Assistant { text, tool_calls, .. } if text.is_empty() && tool_calls.is_empty())
}

fn interrupted(call: &ModelToolCall) -> ModelMessage {
    ModelMessage::Tool { call_id: call.id.clone(), name: call.name.clone(), content: INTERRUPTED.to_owned() }
}

fn bytes_of(message: &ModelMessage) -> usize {
    match message {
        ModelMessage::System(text) => text.len(),
        ModelMessage::User { text, images } => text.len() + images.iter().map(|image| image.url.len()).sum::<usize>(),
        ModelMessage::Assistant { text, reasoning, tool_calls } => {
            let calls = tool_calls.iter().map(|call| call.name.len() + call.arguments.len());
            text.len() + reasoning.len() + calls.sum::<usize>()
        }
        ModelMessage::Tool { content, .. } => content.len(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(text: &str) -> ModelMessage {
        ModelMessage::User { text: text.to_owned(), images: Vec::new() }
    }

    fn calls(ids: &[&str]) -> ModelMessage {
        let tool_calls = ids.iter().map(|id| ModelToolCall {
            id: ToolCallId::new(*id),
            name: "tool".to_owned(),
            arguments: "{}".to_owned(),
        });
        ModelMessage::Assistant { text: String::new(), reasoning: String::new(), tool_calls: tool_calls.collect() }
    }

    fn says(text: &str) -> ModelMessage {
        ModelMessage::Assistant { text: text.to_owned(), reasoning: String::new(), tool_calls: Vec::new() }
    }

    fn result(id: &str) -> ModelMessage {
        ModelMessage::Tool { call_id: ToolCallId::new(id), name: "tool".to_owned(), content: format!("result {id}") }
    }

    fn lost(id: &str) -> ModelMessage {
        ModelMessage::Tool { call_id: ToolCallId::new(id), name: "tool".to_owned(), content: INTERRUPTED.to_owned() }
    }

    fn repaired(mut messages: Vec<ModelMessage>) -> Vec<ModelMessage> {
        pair_tool_results(&mut messages);
        messages
    }

    #[test]
    fn a_sound_list_is_left_alone() {
        let sound = vec![user("a"), calls(&["1", "2"]), result("2"), result("1"), says("b"), user("c")];
        assert_eq!(repaired(sound.clone()), sound);
    }

    #[test]
    fn orphans_go_and_missing_results_are_made_up() {
        let broken = vec![result("0"), user("a"), calls(&["1", "2"]), result("2"), result("2"), user("b"), says("")];
        assert_eq!(repaired(broken), [user("a"), calls(&["1", "2"]), lost("1"), result("2"), user("b")]);
    }

    #[test]
    fn a_late_result_moves_to_its_call_and_never_to_an_earlier_one_of_the_same_id() {
        let late = vec![calls(&["1"]), user("a"), result("1")];
        assert_eq!(repaired(late), [calls(&["1"]), result("1"), user("a")]);
        let again = vec![calls(&["1"]), user("a"), calls(&["1"]), result("1")];
        assert_eq!(repaired(again), [calls(&["1"]), lost("1"), user("a"), calls(&["1"]), result("1")]);
    }

    #[test]
    fn the_oldest_goes_but_never_instructions_nor_the_current_message() {
        let mut messages = vec![
            ModelMessage::System("rules".repeat(10)),
            user(&"a".repeat(100)),
            says(&"b".repeat(100)),
            user(&"c".repeat(100)),
            says("d"),
            user("now"),
            calls(&["1"]),
            result("1"),
        ];
        assert!(drop_oldest(&mut messages, 0.5));
        let rest = [user(&"c".repeat(100)), says("d"), user("now"), calls(&["1"]), result("1")];
        assert_eq!(messages[1..], rest);
        assert!(drop_oldest(&mut messages, 0.0));
        assert_eq!(messages[1..], rest[2..]);
        assert!(!drop_oldest(&mut messages, 0.0));
    }

    #[test]
    fn a_call_is_dropped_with_its_results() {
        let mut messages = vec![calls(&["1"]), result("1"), user("now")];
        assert!(drop_oldest(&mut messages, 0.99));
        assert_eq!(messages, [user("now")]);
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_paired_afterwards(kinds in proptest::collection::vec((0_u8..4, 0_u8..3), 0..24), share in 0.0..1.0) {
            let mut messages: Vec<ModelMessage> = kinds.into_iter().map(|(kind, id)| {
                let id = id.to_string();
                match kind {
                    0 => user("u"),
                    1 => says(if id == "0" { "" } else { "s" }),
                    2 => calls(&[&id, "x"]),
                    _ => result(&id),
                }
            }).collect();
            pair_tool_results(&mut messages);
            prop_assert!(is_paired(&messages));
            drop_oldest(&mut messages, share);
            prop_assert!(is_paired(&messages));
        }
    }
}
