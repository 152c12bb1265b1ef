//! Notices a model that makes the same call again and again and gets the same result each time. Pure.
//!
//! A repetition is counted by signature: tool, canonical arguments and result. The same call with a *new* result is
//! progress, and so is a new call. Tools that declare themselves as polling are exempt; the ceiling on model calls
//! holds for them too.

use std::collections::HashMap;

use serde_json::Value;

use super::canonical::{CallDigest, canonical_json};
use crate::config::Limits;

/// What to do after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoopVerdict {
    /// Go on.
    Continue,
    /// Append this sentence to the result, for the model.
    Notice(String),
    /// Call no further tool in this turn; the sentence says why.
    Stop(String),
}

/// Counts the calls of one turn. Its size is bounded by the calls a turn can make.
#[derive(Debug)]
pub(crate) struct LoopGuard {
    notice_at: u32,
    stop_at: u32,
    seen: HashMap<CallDigest, u32>,
}

impl LoopGuard {
    /// A guard for one turn.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { notice_at: limits.tool_repeats_notice, stop_at: limits.tool_repeats_stop, seen: HashMap::new() }
    }

    /// Notes one call with its result. `arguments` is the text the model sent, which need not be valid JSON: a model
    /// that repeats broken arguments is looping too.
    pub(crate) fn note(&mut self, tool: &str, arguments: &str, result: &str, polling: bool) -> LoopVerdict {
        if polling {
            return LoopVerdict::Continue;
        }
        let arguments = match serde_json::from_str::<Value>(arguments) {
            Ok(value) => canonical_json(&value),
            Err(_) => arguments.to_owned(),
        };
        let count = self.seen.entry(CallDigest::of(&[tool, &arguments, result])).or_default();
        *count += 1;
        if *count >= self.stop_at {
            return LoopVerdict::Stop(format!(
                "the tool {tool} was called {count} times with the same arguments and gave the same result each time"
            ));
        }
        if *count >= self.notice_at {
            return LoopVerdict::Notice(format!(
                "[notice: this is call {count} of {tool} with the same arguments and the same result; calling it again \
                 will not change that. Use what is known, try something else, or answer. After {} such calls no further \
                 tool runs.]",
                self.stop_at
            ));
        }
        LoopVerdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> LoopGuard {
        LoopGuard::new(&Limits::default())
    }

    fn spell(verdict: &LoopVerdict) -> char {
        match verdict {
            LoopVerdict::Continue => '.',
            LoopVerdict::Notice(_) => 'n',
            LoopVerdict::Stop(_) => 's',
        }
    }

    #[test]
    fn three_times_is_said_and_five_times_is_the_end() {
        let mut guard = guard();
        // The order of keys and the spacing are not a difference.
        let spellings = [r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#];
        let verdicts: String =
            (0..6).map(|round| spell(&guard.note("read", spellings[round % 2], "same", false))).collect();
        assert_eq!(verdicts, "..nnss");
    }

    #[test]
    fn a_new_result_new_arguments_or_another_tool_is_progress() {
        let mut guard = guard();
        for round in 0..10 {
            assert_eq!(guard.note("poll", "{}", &format!("{round} %"), false), LoopVerdict::Continue);
            assert_eq!(guard.note("read", &format!("{{\"page\":{round}}}"), "", false), LoopVerdict::Continue);
            assert_eq!(guard.note(&format!("tool_{round}"), "{}", "", false), LoopVerdict::Continue);
        }
    }

    #[test]
    fn calls_in_between_do_not_hide_a_loop() {
        let mut guard = guard();
        let mut verdicts = String::new();
        for _ in 0..5 {
            verdicts.push(spell(&guard.note("a", "{}", "x", false)));
            verdicts.push(spell(&guard.note("b", "{}", "y", false)));
        }
        assert_eq!(verdicts, "....nnnnss");
    }

    #[test]
    fn broken_arguments_count_by_their_text_and_polling_never() {
        let mut guard = guard();
        let broken: String = (0..5).map(|_| spell(&guard.note("read", "{\"a\":", "not JSON", false))).collect();
        assert_eq!(broken, "..nns");
        let polling: String = (0..9).map(|_| spell(&guard.note("wait", "{}", "not yet", true))).collect();
        assert_eq!(polling, ".........");
    }

    #[test]
    fn the_sentences_name_the_tool_and_the_numbers() {
        let mut guard = guard();
        let verdicts: Vec<LoopVerdict> = (0..5).map(|_| guard.note("read", "{}", "same", false)).collect();
        let LoopVerdict::Notice(notice) = &verdicts[2] else { panic!("{verdicts:?}") };
        assert!(notice.contains("call 3 of read") && notice.contains("After 5"), "{notice}");
        let LoopVerdict::Stop(reason) = &verdicts[4] else { panic!("{verdicts:?}") };
        assert!(reason.contains("read was called 5 times"), "{reason}");
    }
}
