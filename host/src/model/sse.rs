//! Bytes of a server-sent event stream to its fields. Pure: however the network cuts the bytes, the fields are the
//! same. Every byte is looked at once, and only an unfinished line is ever copied.
//!
//! It never decodes text: a character cut in two between reads is whole again before anybody reads the line.

use memchr::{memchr, memchr2};

/// One line of the stream that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// A `data:` line, without the name and one leading space.
    Data(&'a [u8]),
    /// An `event:` line: the type of the event it belongs to.
    Event(&'a [u8]),
    /// The blank line that ends an event.
    End,
}

/// A line grew past the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineTooLong {
    /// The limit, in bytes.
    pub(super) bytes_max: usize,
}

/// Cuts bytes into lines and lines into fields. Lines end with LF, CRLF or CR.
#[derive(Debug)]
pub(super) struct SseDecoder {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Longest line, in bytes.
    line_bytes_max: usize,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// No line was seen yet; only there a byte order mark is skipped.
    at_start: bool,
}

impl SseDecoder {
    pub(super) fn new(line_bytes_max: usize) -> Self {
        Self { partial: Vec::new(), line_bytes_max, after_cr: false, at_start: true }
    }

    /// Takes the next bytes and hands out every field they complete.
    pub(super) fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Field<'_>)) -> Result<(), LineTooLong> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            self.end_line(&rest[..end], sink)?;
            let was_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if was_cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.check_length(rest)?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// The stream is over: a last line without a line end counts.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(Field<'_>)) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(&line, sink);
        }
        sink(Field::End);
    }

    fn end_line(&mut self, tail: &[u8], sink: &mut impl FnMut(Field<'_>)) -> Result<(), LineTooLong> {
        self.check_length(tail)?;
        if self.partial.is_empty() {
            self.line(tail, sink);
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(tail);
            self.line(&line, sink);
            line.clear();
            self.partial = line;
        }
        Ok(())
    }

    fn check_length(&self, tail: &[u8]) -> Result<(), LineTooLong> {
        if self.partial.len() + tail.len() > self.line_bytes_max {
            return Err(LineTooLong { bytes_max: self.line_bytes_max });
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], sink: &mut impl FnMut(Field<'_>)) {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let line = match std::mem::replace(&mut self.at_start, false) {
            true => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            return sink(Field::End);
        }
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => sink(Field::Data(value)),
            b"event" => sink(Field::Event(value)),
            // Comments (an empty name), ids, reconnection times and unknown fields mean nothing here.
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Owned {
        Data(Vec<u8>),
        Event(Vec<u8>),
        End,
    }

    fn collect(into: &mut Vec<Owned>) -> impl FnMut(Field<'_>) + '_ {
        |field| {
            into.push(match field {
                Field::Data(data) => Owned::Data(data.to_vec()),
                Field::Event(name) => Owned::Event(name.to_vec()),
                Field::End => Owned::End,
            });
        }
    }

    fn decode(pieces: &[&[u8]]) -> Vec<Owned> {
        let mut decoder = SseDecoder::new(1 << 20);
        let mut fields = Vec::new();
        for piece in pieces {
            decoder.push(piece, &mut collect(&mut fields)).unwrap();
        }
        decoder.finish(&mut collect(&mut fields));
        fields
    }

    fn data(fields: &[Owned]) -> Vec<String> {
        fields
            .iter()
            .filter_map(|field| match field {
                Owned::Data(data) => Some(String::from_utf8(data.clone()).unwrap()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn reads_every_line_end_and_both_spellings_of_data() {
        let stream = b"\xef\xbb\xbfdata: a\r\ndata:b\n\n: note\ndata:  c\rdata\nid: 7\nevent: error\ndata: last";
        let fields = decode(&[stream]);
        assert_eq!(data(&fields), ["a", "b", " c", "", "last"]);
        assert!(fields.contains(&Owned::Event(b"error".to_vec())));
    }

    #[test]
    fn a_character_cut_in_two_is_whole_again() {
        let stream = "data: né 🦀\n".as_bytes();
        for cut in 0..stream.len() {
            assert_eq!(data(&decode(&[&stream[..cut], &stream[cut..]])), ["né 🦀"]);
        }
    }

    #[test]
    fn a_line_past_the_limit_is_refused_whole_or_in_pieces() {
        let mut sink = |_: Field<'_>| {};
        assert!(SseDecoder::new(8).push(b"data: 12\n", &mut sink).is_ok());
        assert_eq!(SseDecoder::new(8).push(b"data: 123\n", &mut sink), Err(LineTooLong { bytes_max: 8 }));
        let mut decoder = SseDecoder::new(8);
        decoder.push(b"data: ", &mut sink).unwrap();
        assert!(decoder.push(b"123", &mut sink).is_err());
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_fields(
            lines in proptest::collection::vec(
                ("(data: ?|data|event: |: |id: |)", "[a-zé🦀 :]{0,12}", "(\n|\r\n|\r)"), 0..20),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let stream: Vec<u8> = lines.iter().flat_map(|(name, value, end)| format!("{name}{value}{end}").into_bytes()).collect();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            places.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for place in places {
                pieces.push(&stream[from..place]);
                from = place;
            }
            pieces.push(&stream[from..]);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            let whole = decode(&[&stream]);
            prop_assert_eq!(&whole, &decode(&pieces));
            prop_assert_eq!(&whole, &decode(&bytes));
        }
    }
}
