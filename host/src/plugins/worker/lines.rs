//! Cuts what a worker prints into lines of bounded length. Pure.

/// Bytes that have not ended in a line yet.
pub(super) struct Lines {
    unfinished: Vec<u8>,
    max: usize,
    /// The rest of a line that was too long.
    skipping: bool,
}

impl Lines {
    /// Lines of at most `max` bytes; the rest of a longer one is left out.
    pub(super) fn new(max: usize) -> Self {
        Self { unfinished: Vec::new(), max, skipping: false }
    }

    /// The lines that are whole with these bytes, without blank ones; `ended` makes a line of what is left.
    pub(super) fn cut(&mut self, bytes: &[u8], ended: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = part.ends_with(b"\n");
            if !self.skipping {
                let room = self.max.saturating_sub(self.unfinished.len());
                self.unfinished.extend_from_slice(&part[..part.len().min(room)]);
                self.skipping = part.len() > room;
            }
            if is_whole || self.skipping {
                self.take(&mut lines);
            }
            if is_whole {
                self.skipping = false;
            }
        }
        if ended {
            self.take(&mut lines);
        }
        lines
    }

    fn take(&mut self, lines: &mut Vec<String>) {
        let bytes = std::mem::take(&mut self.unfinished);
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        lines.extend(Some(text).filter(|text| !text.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_cut_and_long_ones_shortened() {
        let mut lines = Lines::new(5);
        assert_eq!(lines.cut(b"one\n\ntwo\nthr", false), ["one", "two"]);
        assert_eq!(lines.cut(b"ee and more", false), ["three"]);
        assert_eq!(lines.cut(b" of it\nnext", false), Vec::<String>::new());
        assert_eq!(lines.cut(b"", true), ["next"]);
    }

    proptest! {
        #[test]
        fn nothing_is_kept_beyond_the_limit(pieces in proptest::collection::vec("[ab\n]{0,12}", 0..12), max in 1_usize..6) {
            let mut lines = Lines::new(max);
            for piece in &pieces {
                for line in lines.cut(piece.as_bytes(), false) {
                    prop_assert!(line.len() <= max);
                }
                prop_assert!(lines.unfinished.len() <= max);
            }
        }
    }
}
