//! What a scripted gateway says, reply by reply, in the words of a test:
//! `script().calls("slow", json!({})).says("done")`.

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};

/// An empty script.
pub fn script() -> Script {
    Script::default()
}

/// The replies of a gateway, in the order the requests come.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(super) replies: VecDeque<Reply>,
    /// The last reply is given again and again.
    pub(super) repeats: bool,
    calls_made: usize,
    /// Whose replies are being written.
    model: Option<String>,
}

/// One reply.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// Given only to requests for this model.
    pub(super) model: Option<String>,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    /// Waits this long before the status line.
    pub(super) delay: Duration,
    /// What the last chunk reports; `None` reports nothing.
    pub(super) usage: Option<(u64, u64)>,
    pub(super) line_end: &'static str,
    /// Writes the body in pieces of so many bytes.
    pub(super) cut: Option<usize>,
    /// Waits this long between the last byte of the body and its end.
    pub(super) linger: Duration,
    /// How the reply ends.
    pub(super) ending: Ending,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Chunks of a stream, with a pause before each; usage and the end mark follow by themselves.
    Chunks { chunks: Vec<Value>, pause: Duration },
    /// Bytes, each element in a write of its own.
    Raw(Vec<Vec<u8>>),
    /// A body with its length told in advance.
    Whole(Vec<u8>),
    /// Not even a status line.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As HTTP wants it; the connection stays open.
    Clean,
    /// The connection closes in the middle.
    Broken,
    /// Nothing more comes, and the connection stays open.
    Hang,
}

impl Script {
    /// The model says this in one piece.
    #[must_use]
    pub fn says(self, text: &str) -> Self {
        self.streams([text])
    }

    /// The model says this piece by piece.
    #[must_use]
    pub fn streams<'a>(self, pieces: impl IntoIterator<Item = &'a str>) -> Self {
        let mut chunks: Vec<Value> = pieces.into_iter().map(text_chunk).collect();
        chunks.push(finish_chunk("stop"));
        self.chunks(chunks)
    }

    /// The model thinks, then says.
    #[must_use]
    pub fn thinks(self, thought: &str, text: &str) -> Self {
        let thought = json!({ "choices": [{ "index": 0, "delta": { "reasoning_content": thought } }] });
        self.chunks(vec![thought, text_chunk(text), finish_chunk("stop")])
    }

    /// The model asks for one tool.
    #[must_use]
    pub fn calls(self, name: &str, arguments: Value) -> Self {
        self.calls_many([(name, arguments)])
    }

    /// The model asks for several tools in one reply.
    #[must_use]
    pub fn calls_many<'a>(mut self, calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut chunks = Vec::new();
        for (index, (name, arguments)) in calls.into_iter().enumerate() {
            self.calls_made += 1;
            let id = format!("call_{}", self.calls_made);
            // A text stands for itself, so that broken JSON can be sent too.
            let arguments = arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned);
            let half = (0..=arguments.len() / 2).rev().find(|at| arguments.is_char_boundary(*at)).unwrap_or(0);
            let (first, second) = arguments.split_at(half);
            let start = json!({ "index": index, "id": id, "type": "function",
                "function": { "name": name, "arguments": "" } });
            chunks.push(tool_chunk(start));
            chunks.push(tool_chunk(json!({ "index": index, "function": { "arguments": first } })));
            chunks.push(tool_chunk(json!({ "index": index, "function": { "arguments": second } })));
        }
        chunks.push(finish_chunk("tool_calls"));
        self.chunks(chunks)
    }

    /// The model says so many one-word tokens, each after this pause.
    #[must_use]
    pub fn paced(self, tokens: usize, interval: Duration) -> Self {
        let mut chunks: Vec<Value> = (0..tokens).map(|_| text_chunk("word ")).collect();
        chunks.push(finish_chunk("stop"));
        self.reply(Body::Chunks { chunks, pause: interval }).usage(7, tokens as u64)
    }

    /// Exactly these chunks; usage and the end mark follow by themselves.
    #[must_use]
    pub fn chunks(self, chunks: Vec<Value>) -> Self {
        self.reply(Body::Chunks { chunks, pause: Duration::ZERO })
    }

    /// Exactly these bytes as body, each element in a write of its own.
    #[must_use]
    pub fn raw(self, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.reply(Body::Raw(pieces.into_iter().map(|piece| piece.as_ref().to_vec()).collect()))
    }

    /// A status with a body and headers, such as `("retry-after", "1")`.
    #[must_use]
    pub fn status(self, status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut script = self.reply(Body::Whole(body.as_bytes().to_vec()));
        let reply = script.last();
        reply.status = status;
        reply.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        script
    }

    /// A whole JSON answer instead of a stream.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        let mut script = self.reply(Body::Whole(body.to_string().into_bytes()));
        script.last().headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        script
    }

    /// The gateway takes the request and never answers.
    #[must_use]
    pub fn hangs(self) -> Self {
        self.reply(Body::Nothing).ends(Ending::Hang)
    }

    /// The gateway says this and then falls silent, with the connection open.
    #[must_use]
    pub fn hangs_after<'a>(self, pieces: impl IntoIterator<Item = &'a str>) -> Self {
        let chunks = pieces.into_iter().map(text_chunk).collect();
        self.chunks(chunks).ends(Ending::Hang)
    }

    /// The last reply stops where its chunks end, with neither usage nor end mark, and the connection stays open.
    #[must_use]
    pub fn then_hangs(self) -> Self {
        self.ends(Ending::Hang)
    }

    /// The gateway closes the connection without an answer.
    #[must_use]
    pub fn drops(self) -> Self {
        self.reply(Body::Nothing).ends(Ending::Broken)
    }

    /// The gateway says this and then the connection breaks.
    #[must_use]
    pub fn breaks_after<'a>(self, pieces: impl IntoIterator<Item = &'a str>) -> Self {
        let chunks = pieces.into_iter().map(text_chunk).collect();
        self.chunks(chunks).ends(Ending::Broken)
    }

    /// The last reply reports these tokens.
    #[must_use]
    pub fn usage(mut self, prompt_tokens: u64, completion_tokens: u64) -> Self {
        self.last().usage = Some((prompt_tokens, completion_tokens));
        self
    }

    /// The last reply reports no tokens.
    #[must_use]
    pub fn no_usage(mut self) -> Self {
        self.last().usage = None;
        self
    }

    /// The last reply carries this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.last().headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The last reply's body is written in pieces of so many bytes, wherever that cuts.
    #[must_use]
    pub fn cut_every(mut self, bytes: usize) -> Self {
        self.last().cut = Some(bytes.max(1));
        self
    }

    /// The last reply's lines end with CRLF.
    #[must_use]
    pub fn crlf(mut self) -> Self {
        self.last().line_end = "\r\n";
        self
    }

    /// The last reply's end mark comes this long before the end of its body.
    #[must_use]
    pub fn lingers(mut self, time: Duration) -> Self {
        self.last().linger = time;
        self
    }

    /// The last reply begins only after this time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.last().delay = delay;
        self
    }

    /// The replies that follow are given only to requests for this model; for servers that ask several at a time.
    #[must_use]
    pub fn for_model(mut self, model: &str) -> Self {
        self.model = Some(model.to_owned());
        self
    }

    /// The last reply is given to every further request.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.repeats = true;
        self
    }

    /// The next reply for a request; the last one stays when it is given again and again.
    pub(super) fn next_for(&mut self, model: Option<&str>) -> Option<Reply> {
        let is_meant = |reply: &Reply| reply.model.is_none() || reply.model.as_deref() == model;
        let at = self.replies.iter().position(is_meant)?;
        if self.repeats && at + 1 == self.replies.len() {
            self.replies.get(at).cloned()
        } else {
            self.replies.remove(at)
        }
    }

    fn reply(mut self, body: Body) -> Self {
        self.replies.push_back(Reply {
            model: self.model.clone(),
            status: 200,
            headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
            body,
            delay: Duration::ZERO,
            usage: Some((11, 3)),
            line_end: "\n",
            cut: None,
            linger: Duration::ZERO,
            ending: Ending::Clean,
        });
        self
    }

    fn ends(mut self, ending: Ending) -> Self {
        self.last().ending = ending;
        self
    }

    fn last(&mut self) -> &mut Reply {
        self.replies.back_mut().expect("a script says something before it says how")
    }
}

impl Reply {
    /// The body as the writes it is sent in, each after a pause.
    pub(super) fn pieces(&self) -> Vec<(Duration, Vec<u8>)> {
        let pieces = match &self.body {
            Body::Nothing => Vec::new(),
            Body::Whole(bytes) => vec![(Duration::ZERO, bytes.clone())],
            Body::Raw(pieces) => pieces.iter().map(|piece| (Duration::ZERO, piece.clone())).collect(),
            Body::Chunks { chunks, pause } => self.event_pieces(chunks, *pause),
        };
        let Some(size) = self.cut else { return pieces };
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|(_, piece)| piece).collect();
        bytes.chunks(size).map(|piece| (Duration::ZERO, piece.to_vec())).collect()
    }

    fn event_pieces(&self, chunks: &[Value], pause: Duration) -> Vec<(Duration, Vec<u8>)> {
        let event = |data: &str| format!("data: {data}{0}{0}", self.line_end).into_bytes();
        let mut pieces: Vec<(Duration, Vec<u8>)> =
            chunks.iter().map(|chunk| (pause, event(&chunk.to_string()))).collect();
        if self.ending == Ending::Clean {
            if let Some((prompt, completion)) = self.usage {
                let usage = json!({ "choices": [], "usage": { "prompt_tokens": prompt,
                    "completion_tokens": completion, "total_tokens": prompt + completion } });
                pieces.push((Duration::ZERO, event(&usage.to_string())));
            }
            pieces.push((Duration::ZERO, event("[DONE]")));
        }
        pieces
    }
}

/// A chunk with a piece of text.
pub fn text_chunk(text: &str) -> Value {
    json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] })
}

/// A chunk with a piece of a tool call.
pub fn tool_chunk(call: Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] }, "finish_reason": null }] })
}

/// A chunk that says why the model stopped.
pub fn finish_chunk(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}
