//! As much HTTP/1.1 and WebSocket as the benchmark speaks, on one buffer per connection.
//!
//! It trusts its peers, which are processes of the same run: no continuation frames, no trailers, no length limits of
//! its own. It answers nothing by itself.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Room for the first read of a connection; an idle one should hold next to nothing.
const FIRST_READ_BYTES: usize = 1024;
/// Room for a read once reads come back full.
const LARGEST_READ_BYTES: usize = 64 * 1024;

/// The mask of all frames that the driver sends. A mask protects proxies, of which there are none here; any will do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;

/// A connection and the bytes that it has brought and nobody has taken yet.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
    read_bytes: usize,
}

impl Wire {
    /// Connects.
    pub(crate) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("nobody listens on {addr}"))?;
        Self::new(stream)
    }

    /// Wraps a connection; small writes leave at once.
    pub(crate) fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new(), read_bytes: FIRST_READ_BYTES })
    }

    /// Writes all of it.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads once; `false` at the end of the stream.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<bool> {
        self.buffer.reserve(self.read_bytes);
        let room = self.buffer.capacity() - self.buffer.len();
        let count = self.stream.read_buf(&mut self.buffer).await?;
        if count == room {
            self.read_bytes = (self.read_bytes * 2).min(LARGEST_READ_BYTES);
        }
        self.acknowledge_quickly();
        Ok(count > 0)
    }

    /// Without this a peer that waits for an acknowledgement is measured as slow by the 40 ms the kernel delays it.
    /// The kernel forgets the wish after a while, so it is renewed with each read; a failure costs only speed.
    fn acknowledge_quickly(&self) {
        #[cfg(target_os = "linux")]
        let _ = self.stream.set_quickack(true);
    }

    async fn fill_or_fail(&mut self) -> anyhow::Result<()> {
        ensure!(self.fill().await?, "the peer closed the connection in the middle of a message");
        Ok(())
    }
}

// === HTTP ===

impl Wire {
    /// The next head, without its empty line; `None` when the peer has closed instead.
    pub(crate) async fn head(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                return Ok(Some(String::from_utf8_lossy(&head[..end]).into_owned()));
            }
            if !self.fill().await? {
                ensure!(self.buffer.is_empty(), "the peer closed the connection in the middle of a head");
                return Ok(None);
            }
        }
    }

    /// The next `length` bytes.
    pub(crate) async fn body(&mut self, length: usize) -> anyhow::Result<BytesMut> {
        while self.buffer.len() < length {
            self.fill_or_fail().await?;
        }
        Ok(self.buffer.split_to(length))
    }

    /// Adds the contents of all chunks that have arrived to `contents`, reading once if none has; `true` after the last.
    pub(crate) async fn chunks(&mut self, contents: &mut Vec<u8>) -> anyhow::Result<bool> {
        loop {
            let before = self.buffer.len();
            while let Some(last) = self.take_chunk(contents)? {
                if last {
                    return Ok(true);
                }
            }
            if self.buffer.len() < before {
                return Ok(false);
            }
            self.fill_or_fail().await?;
        }
    }

    /// Takes one whole chunk, if there is one; `true` when it was the empty last one.
    fn take_chunk(&mut self, contents: &mut Vec<u8>) -> anyhow::Result<Option<bool>> {
        let Some(line_end) = memchr::memchr(b'\n', &self.buffer) else { return Ok(None) };
        let digits = std::str::from_utf8(&self.buffer[..line_end])?.trim_end();
        let length = usize::from_str_radix(digits, 16).with_context(|| format!("{digits:?} is not a chunk length"))?;
        let start = line_end + 1;
        let end = start + length + 2;
        if self.buffer.len() < end {
            return Ok(None);
        }
        contents.extend_from_slice(&self.buffer[start..start + length]);
        self.buffer.advance(end);
        Ok(Some(length == 0))
    }
}

/// The value of a header in a head; names are compared without regard to case.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// A request that carries JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

// === WebSocket ===

impl Wire {
    /// The next text; `None` when the peer has closed. Other frames are skipped: nobody here waits for a pong.
    pub(crate) async fn text(&mut self) -> anyhow::Result<Option<BytesMut>> {
        loop {
            while let Some((opcode, payload)) = self.take_frame()? {
                match opcode {
                    TEXT => return Ok(Some(payload)),
                    CLOSE => return Ok(None),
                    _ => {}
                }
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Takes one whole frame, if there is one, and takes its mask off.
    fn take_frame(&mut self) -> anyhow::Result<Option<(u8, BytesMut)>> {
        let Some((opcode, masked, header, length)) = frame_header(&self.buffer)? else { return Ok(None) };
        let mask_bytes = if masked { 4 } else { 0 };
        if self.buffer.len() < header + mask_bytes + length {
            return Ok(None);
        }
        self.buffer.advance(header);
        let mask: Option<[u8; 4]> = masked.then(|| {
            let mask = [self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]];
            self.buffer.advance(4);
            mask
        });
        let mut payload = self.buffer.split_to(length);
        if let Some(mask) = mask {
            apply_mask(&mut payload, mask);
        }
        Ok(Some((opcode, payload)))
    }
}

/// Opcode, whether it is masked, length of the header without the mask, length of the payload.
fn frame_header(buffer: &[u8]) -> anyhow::Result<Option<(u8, bool, usize, usize)>> {
    let [first, second, rest @ ..] = buffer else { return Ok(None) };
    if first & 0x80 == 0 {
        bail!("the peer splits messages into several frames, which this benchmark cannot read");
    }
    let (header, length) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))?)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (2, usize::from(length)),
    };
    Ok(Some((first & 0x0f, second & 0x80 != 0, header, length)))
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

/// Adds one text frame as a server writes it.
pub(crate) fn put_text(out: &mut Vec<u8>, payload: &[u8]) {
    put_header(out, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Adds one text frame as a client writes it.
pub(crate) fn put_masked_text(out: &mut Vec<u8>, payload: &[u8]) {
    put_header(out, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], MASK);
}

#[allow(clippy::cast_possible_truncation)] // Each arm has just compared the length with the type's range.
fn put_header(out: &mut Vec<u8>, length: usize, mask_bit: u8) {
    out.push(0x80 | TEXT);
    match length {
        0..126 => out.push(mask_bit | length as u8),
        126..=0xffff => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_length_that_its_header_says_in_all_three_forms() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            put_text(&mut out, &vec![b'x'; length]);
            let (opcode, masked, header, found) = frame_header(&out).unwrap().unwrap();
            assert_eq!((opcode, masked, found, header + found), (TEXT, false, length, out.len()));
        }
    }

    #[test]
    fn a_header_that_has_not_arrived_whole_is_not_read() {
        let mut out = Vec::new();
        put_masked_text(&mut out, &[b'x'; 70_000]);
        assert!((0..10).all(|length| frame_header(&out[..length]).unwrap().is_none()));
    }

    #[test]
    fn a_mask_comes_off_as_it_went_on() {
        let mut text = *b"a text of some length";
        apply_mask(&mut text, MASK);
        assert_ne!(&text, b"a text of some length");
        apply_mask(&mut text, MASK);
        assert_eq!(&text, b"a text of some length");
    }

    #[test]
    fn a_header_is_found_whatever_its_case() {
        assert_eq!(header("POST / HTTP/1.1\r\nContent-Length: 12", "content-length"), Some("12"));
        assert_eq!(header("POST / HTTP/1.1\r\nhost: here", "content-length"), None);
    }
}
