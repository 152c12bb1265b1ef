//! What host and worker say to each other: frames on one socket, each an answerable question or a notice. Pure.
//!
//! ```text
//!   u32 length of what follows │ u64 id │ u8 kind │ body          (numbers are little-endian)
//! ```
//!
//! An id joins a question to its answer; each side numbers its own questions, and notices carry 0. Whatever arrives is
//! read with bounds checked: the worst that garbage can do is [`FrameError`].

use bytes::{Buf, Bytes, BytesMut};
use jackfield_plugin_abi::AbiError;

/// Raised with every change of what is said. Both sides must be of the same version, since a worker is the host's own
/// program or one that the operator named.
pub(super) const PROTOCOL: u32 = 1;

/// Length, id and kind.
pub(super) const HEADER_BYTES: usize = 4 + 8 + 1;

/// What the host says to the worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ToWorker {
    /// How to start: JSON, see [`Setup`](super::setup::Setup). The answer says what confines the worker.
    Hello(Bytes),
    /// The tools for a turn, whose context is JSON.
    ToolsFor(Bytes),
    /// Run a tool of a list that was given before.
    Execute { list: u64, tool: u32, call_id: u64, deadline_unix_ms: u64, info: Bytes, arguments: Bytes },
    /// What a call with these arguments can change.
    Effect { list: u64, tool: u32, arguments: Bytes },
    /// A service that the plugin offers.
    Request { service: String, body: Bytes },
    /// The answer to a question of the worker's.
    Reply(Result<Bytes, AbiError>),
    /// The call with this frame's id has been cancelled; it may still answer.
    Cancel,
    /// Nobody waits for the question with this frame's id: let go of it, and answer when that is done.
    Drop,
    /// Something happened.
    Notify(Bytes),
    /// A list is not used any more.
    Forget { list: u64 },
    /// Finish within this time and answer; then the process ends.
    Shutdown { deadline_ms: u64 },
}

/// What the worker says to the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ToHost {
    /// The first frame: which version of this protocol and which program speaks.
    Hello { protocol: u32, version: String },
    /// The answer to a question.
    Answer(Result<Bytes, AbiError>),
    /// A service of the host or of another plugin.
    Request { service: String, body: Bytes },
    /// Nobody waits for the request with this frame's id any more.
    Cancel,
    /// A line for the log.
    Log { level: u8, call_id: u64, target: String, message: String, fields: String },
    /// Progress of a call.
    Progress { call_id: u64, fraction: f32, message: String },
    /// Something happened.
    Notify(Bytes),
}

/// The kinds of both directions, in one numbering, so that a frame that went the wrong way is noticed.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const TOOLS_FOR: u8 = 2;
    pub(super) const EXECUTE: u8 = 3;
    pub(super) const EFFECT: u8 = 4;
    pub(super) const RESULT: u8 = 5;
    pub(super) const ERROR: u8 = 6;
    pub(super) const CANCEL: u8 = 7;
    pub(super) const DROP: u8 = 8;
    pub(super) const LOG: u8 = 9;
    pub(super) const PROGRESS: u8 = 10;
    pub(super) const NOTIFY: u8 = 11;
    pub(super) const REQUEST: u8 = 12;
    pub(super) const FORGET: u8 = 13;
    pub(super) const SHUTDOWN: u8 = 14;
    pub(super) const WORKER_HELLO: u8 = 15;
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {found} bytes, at most {max} are allowed")]
    TooLong { found: usize, max: usize },
    #[error("a frame of {found} bytes, at least 9 are expected")]
    TooShort { found: usize },
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    #[error("a frame of kind {kind} whose content is not as expected")]
    Content { kind: u8 },
}

/// A message that can be read from a frame of its direction.
pub(super) trait Message: Sized {
    fn read(kind: u8, body: Bytes) -> Result<Self, FrameError>;
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Bytes that have arrived and are not read yet. The caller appends to it.
    pub(super) buffer: BytesMut,
    /// Longest frame behind its length.
    max: usize,
}

impl Decoder {
    /// A decoder that refuses frames with more than `max` bytes behind the length.
    pub(super) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), max }
    }

    /// Refuses longer or allows longer frames from now on.
    pub(super) fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// The next whole message with its id; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the stream cannot be read any further then.
    pub(super) fn next<M: Message>(&mut self) -> Result<Option<(u64, M)>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.max {
            return Err(FrameError::TooLong { found: length, max: self.max });
        }
        if length < HEADER_BYTES - 4 {
            return Err(FrameError::TooShort { found: length });
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        let (id, kind) = (frame.get_u64_le(), frame.get_u8());
        Ok(Some((id, M::read(kind, frame)?)))
    }
}

impl ToWorker {
    /// The bytes of this message.
    pub(super) fn encode(&self, id: u64) -> Vec<u8> {
        match self {
            ToWorker::Hello(setup) => Writer::new(id, kind::HELLO, setup.len()).rest(setup),
            ToWorker::ToolsFor(context) => Writer::new(id, kind::TOOLS_FOR, context.len()).rest(context),
            ToWorker::Execute { list, tool, call_id, deadline_unix_ms, info, arguments } => {
                let writer = Writer::new(id, kind::EXECUTE, 32 + info.len() + arguments.len());
                let writer = writer.u64(*list).u32(*tool).u64(*call_id).u64(*deadline_unix_ms);
                writer.part(info).rest(arguments)
            }
            ToWorker::Effect { list, tool, arguments } => {
                Writer::new(id, kind::EFFECT, 12 + arguments.len()).u64(*list).u32(*tool).rest(arguments)
            }
            ToWorker::Request { service, body } => request(id, service, body),
            ToWorker::Reply(answer) => self::answer(id, answer),
            ToWorker::Cancel => Writer::new(id, kind::CANCEL, 0).done(),
            ToWorker::Drop => Writer::new(id, kind::DROP, 0).done(),
            ToWorker::Notify(event) => Writer::new(id, kind::NOTIFY, event.len()).rest(event),
            ToWorker::Forget { list } => Writer::new(id, kind::FORGET, 8).u64(*list).done(),
            ToWorker::Shutdown { deadline_ms } => Writer::new(id, kind::SHUTDOWN, 8).u64(*deadline_ms).done(),
        }
    }
}

impl Message for ToWorker {
    fn read(kind: u8, body: Bytes) -> Result<Self, FrameError> {
        let mut body = Reader { kind, body };
        Ok(match kind {
            kind::HELLO => ToWorker::Hello(body.rest()),
            kind::TOOLS_FOR => ToWorker::ToolsFor(body.rest()),
            kind::EXECUTE => ToWorker::Execute {
                list: body.u64()?,
                tool: body.u32()?,
                call_id: body.u64()?,
                deadline_unix_ms: body.u64()?,
                info: body.part()?,
                arguments: body.rest(),
            },
            kind::EFFECT => ToWorker::Effect { list: body.u64()?, tool: body.u32()?, arguments: body.rest() },
            kind::REQUEST => ToWorker::Request { service: body.text()?, body: body.rest() },
            kind::RESULT => ToWorker::Reply(Ok(body.rest())),
            kind::ERROR => ToWorker::Reply(Err(body.error()?)),
            kind::CANCEL => body.end(ToWorker::Cancel)?,
            kind::DROP => body.end(ToWorker::Drop)?,
            kind::NOTIFY => ToWorker::Notify(body.rest()),
            kind::FORGET => {
                let list = body.u64()?;
                body.end(ToWorker::Forget { list })?
            }
            kind::SHUTDOWN => {
                let deadline_ms = body.u64()?;
                body.end(ToWorker::Shutdown { deadline_ms })?
            }
            other => return Err(FrameError::UnknownKind(other)),
        })
    }
}

impl ToHost {
    /// The bytes of this message.
    pub(super) fn encode(&self, id: u64) -> Vec<u8> {
        match self {
            ToHost::Hello { protocol, version } => {
                Writer::new(id, kind::WORKER_HELLO, 4 + version.len()).u32(*protocol).rest(version.as_bytes())
            }
            ToHost::Answer(answer) => self::answer(id, answer),
            ToHost::Request { service, body } => request(id, service, body),
            ToHost::Cancel => Writer::new(id, kind::CANCEL, 0).done(),
            ToHost::Log { level, call_id, target, message, fields } => {
                let writer = Writer::new(id, kind::LOG, 17 + target.len() + message.len() + fields.len());
                let writer = writer.u8(*level).u64(*call_id).part(target.as_bytes()).part(message.as_bytes());
                writer.rest(fields.as_bytes())
            }
            ToHost::Progress { call_id, fraction, message } => {
                let writer = Writer::new(id, kind::PROGRESS, 12 + message.len()).u64(*call_id).u32(fraction.to_bits());
                writer.rest(message.as_bytes())
            }
            ToHost::Notify(event) => Writer::new(id, kind::NOTIFY, event.len()).rest(event),
        }
    }
}

impl Message for ToHost {
    fn read(kind: u8, body: Bytes) -> Result<Self, FrameError> {
        let mut body = Reader { kind, body };
        Ok(match kind {
            kind::WORKER_HELLO => ToHost::Hello { protocol: body.u32()?, version: body.last_text()? },
            kind::RESULT => ToHost::Answer(Ok(body.rest())),
            kind::ERROR => ToHost::Answer(Err(body.error()?)),
            kind::REQUEST => ToHost::Request { service: body.text()?, body: body.rest() },
            kind::CANCEL => body.end(ToHost::Cancel)?,
            kind::LOG => ToHost::Log {
                level: body.u8()?,
                call_id: body.u64()?,
                target: body.text()?,
                message: body.text()?,
                fields: body.last_text()?,
            },
            kind::PROGRESS => ToHost::Progress {
                call_id: body.u64()?,
                fraction: f32::from_bits(body.u32()?),
                message: body.last_text()?,
            },
            kind::NOTIFY => ToHost::Notify(body.rest()),
            other => return Err(FrameError::UnknownKind(other)),
        })
    }
}

/// The list of a plugin's tools as the answer to `tools_for`: its number and what each tool says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolList {
    pub(super) list: u64,
    pub(super) specs: Vec<Bytes>,
}

impl ToolList {
    pub(super) fn encode(&self) -> Vec<u8> {
        let length = self.specs.iter().map(|spec| 4 + spec.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(8 + length);
        bytes.extend_from_slice(&self.list.to_le_bytes());
        for spec in &self.specs {
            bytes.extend_from_slice(&length_of(spec).to_le_bytes());
            bytes.extend_from_slice(spec);
        }
        bytes
    }

    /// # Errors
    ///
    /// When the bytes are not a list.
    pub(super) fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let mut body = Reader { kind: kind::RESULT, body: bytes };
        let mut list = Self { list: body.u64()?, specs: Vec::new() };
        while !body.body.is_empty() {
            list.specs.push(body.part()?);
        }
        Ok(list)
    }
}

fn request(id: u64, service: &str, body: &[u8]) -> Vec<u8> {
    Writer::new(id, kind::REQUEST, 4 + service.len() + body.len()).part(service.as_bytes()).rest(body)
}

fn answer(id: u64, answer: &Result<Bytes, AbiError>) -> Vec<u8> {
    match answer {
        Ok(bytes) => Writer::new(id, kind::RESULT, bytes.len()).rest(bytes),
        Err(AbiError { kind, message, data_json }) => {
            let writer = Writer::new(id, kind::ERROR, 8 + message.len() + data_json.len());
            writer.u32(*kind).part(message.as_bytes()).rest(data_json.as_bytes())
        }
    }
}

/// Bodies are far below 4 GiB: what goes into them has limits of its own, and the other side refuses longer ones.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Puts a frame together; its length is filled in at the end.
struct Writer(Vec<u8>);

impl Writer {
    fn new(id: u64, kind: u8, body_len: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body_len);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.push(kind);
        Self(bytes)
    }

    fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    /// Bytes with their length in front.
    fn part(self, bytes: &[u8]) -> Self {
        let mut writer = self.u32(length_of(bytes));
        writer.0.extend_from_slice(bytes);
        writer
    }

    /// The last bytes of the frame.
    fn rest(mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        self.done()
    }

    fn done(mut self) -> Vec<u8> {
        let length = length_of(&self.0[4..]);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

/// Takes a body apart.
struct Reader {
    kind: u8,
    body: Bytes,
}

impl Reader {
    fn wrong(&self) -> FrameError {
        FrameError::Content { kind: self.kind }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, FrameError> {
        if self.body.len() < length {
            return Err(self.wrong());
        }
        Ok(self.body.split_to(length))
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.take(1)?.get_u8())
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(self.take(8)?.get_u64_le())
    }

    /// Bytes with their length in front.
    fn part(&mut self) -> Result<Bytes, FrameError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let part = self.part()?;
        self.utf8(&part)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.body)
    }

    fn last_text(&mut self) -> Result<String, FrameError> {
        let rest = self.rest();
        self.utf8(&rest)
    }

    fn error(&mut self) -> Result<AbiError, FrameError> {
        let (kind, message, data) = (self.u32()?, self.text()?, self.last_text()?);
        Ok(AbiError { kind, message: message.into(), data_json: data.into() })
    }

    fn end<M>(&self, message: M) -> Result<M, FrameError> {
        if self.body.is_empty() { Ok(message) } else { Err(self.wrong()) }
    }

    fn utf8(&self, bytes: &[u8]) -> Result<String, FrameError> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.wrong())
    }
}

#[cfg(test)]
mod tests;
