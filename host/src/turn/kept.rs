//! The newest events of one turn, numbered from 1 without gaps, within a byte bound. Pure.

use std::{collections::VecDeque, sync::Arc};

use crate::{outgoing::SizedFrame, protocol::EventFrame};

/// See the module.
#[derive(Debug)]
pub(super) struct Kept {
    frames: VecDeque<Arc<EventFrame>>,
    bytes: usize,
    bytes_max: usize,
    last_seq: u64,
}

impl Kept {
    /// Nothing yet. The oldest events go when more than `bytes_max` are kept; the newest one always stays, so that a
    /// turn's end can be told.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, bytes_max, last_seq: 0 }
    }

    /// Gives the event the next number and keeps it.
    pub(super) fn push(&mut self, mut frame: EventFrame) -> SizedFrame {
        self.last_seq += 1;
        frame.seq = Some(self.last_seq);
        let sized = SizedFrame::from(frame);
        self.bytes += sized.bytes;
        self.frames.push_back(sized.frame.clone());
        while self.bytes > self.bytes_max && self.frames.len() > 1 {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.wire_len();
        }
        sized
    }

    /// The kept events with a higher number, oldest first.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &Arc<EventFrame>> {
        let skipped = seq.saturating_sub(self.lost());
        self.frames.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX))
    }

    /// How many of the events, counted from the first, are no longer kept.
    pub(super) fn lost(&self) -> u64 {
        self.last_seq - self.frames.len() as u64
    }

    /// The highest number given so far; 0 before the first event.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what was reserved for more events.
    pub(super) fn shrink(&mut self) {
        self.frames.shrink_to_fit();
    }

    /// Drops all events; the numbers stay.
    pub(super) fn forget(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Event;

    fn token(text: &str) -> EventFrame {
        EventFrame::new(None, 1, Event::StreamToken(text.to_owned()))
    }

    fn numbers(kept: &Kept, after: u64) -> Vec<u64> {
        kept.after(after).filter_map(|frame| frame.seq).collect()
    }

    #[test]
    fn the_oldest_go_and_the_numbers_go_on() {
        let mut kept = Kept::new(3 * token("x").wire_len());
        for _ in 0..5 {
            kept.push(token("x"));
        }
        assert_eq!((numbers(&kept, 0), kept.lost(), kept.last_seq()), (vec![3, 4, 5], 2, 5));
        assert_eq!(numbers(&kept, 4), [5]);
        assert_eq!(numbers(&kept, 5), [0; 0]);
        assert_eq!(numbers(&kept, u64::MAX), [0; 0]);
        kept.forget();
        assert_eq!((numbers(&kept, 0), kept.lost(), kept.last_seq(), kept.bytes()), (vec![], 5, 5, 0));
    }

    #[test]
    fn an_event_that_is_larger_than_the_bound_is_kept_alone() {
        let mut kept = Kept::new(100);
        kept.push(token("x"));
        kept.push(token(&"x".repeat(1000)));
        assert_eq!(numbers(&kept, 0), [2]);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_a_run_that_ends_with_the_newest(lengths in prop::collection::vec(0usize..400, 1..40), after in 0u64..50) {
            let mut kept = Kept::new(2000);
            for length in &lengths {
                kept.push(token(&"x".repeat(*length)));
            }
            let last = lengths.len() as u64;
            prop_assert_eq!(kept.last_seq(), last);
            let expected: Vec<u64> = (kept.lost().max(after) + 1..=last).collect();
            prop_assert_eq!(numbers(&kept, after), expected);
            prop_assert_eq!(kept.bytes(), kept.after(0).map(|frame| frame.wire_len()).sum::<usize>());
            prop_assert!(kept.bytes() <= 2000 || kept.after(0).count() == 1);
        }
    }
}
