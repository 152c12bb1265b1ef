//! One reply while it streams: network bytes in, model events out, in the task that asks.
//!
//! ```text
//! Opening -> Streaming -> Over
//! ```
//!
//! Each poll reads at most what is there; events that came in one read are handed out one by one without touching the
//! network again. Dropping it drops the request. After an error or `Finished` it yields nothing.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep};

use super::{
    ModelError, ModelEvent, ModelInfo, ModelUsage,
    catalog::Models,
    delta::{Accumulator, BodyEnd, ReplyEnd, ReportedUsage},
    error_text::{readable_error, scrub},
    gateway::Gateway,
    sse::{Field, LineTooLong, SseDecoder},
    transport::ReplyBody,
};

/// What is known about a call besides its reply.
pub(super) struct CallFacts {
    /// Who asked, for the catalog, the limits and fresh ids.
    pub(super) gateway: std::sync::Arc<Gateway>,
    /// The model's id, for prices and logs.
    pub(super) model: String,
    /// Characters of the prompt, for the estimate.
    pub(super) prompt_chars: usize,
    /// The conversation as sent; nothing of it may be in an error.
    pub(super) conversation: Bytes,
    /// The price that the response headers told.
    pub(super) cost_usd: Option<f64>,
}

/// A reply that streams.
pub(super) struct Reply {
    /// Empty once nothing more is wanted of it.
    body: Option<ReplyBody>,
    framing: Framing,
    accumulator: Accumulator,
    /// Events that came and were not asked for yet.
    events: VecDeque<ModelEvent>,
    failure: Option<ModelError>,
    over: bool,
    /// Whether any byte of the body came; before that the call may be tried again.
    began: bool,
    silence: Silence,
    facts: CallFacts,
}

/// How the body is written; its first character tells.
enum Framing {
    Unknown(Vec<u8>),
    Events(SseDecoder),
    /// A whole JSON answer, or a page.
    Whole(Vec<u8>),
}

/// Watches for silence and for the end of all patience. The timer is only moved when it fires.
struct Silence {
    timer: Pin<Box<Sleep>>,
    last_bytes: Instant,
    idle: Duration,
    deadline: Instant,
}

impl Reply {
    /// Takes over a response whose status says that a reply follows.
    pub(super) fn new(body: ReplyBody, facts: CallFacts, deadline: Instant) -> Self {
        let limits = &facts.gateway.limits;
        let now = Instant::now();
        let first_look = deadline.min(now + limits.model_idle);
        Self {
            body: Some(body),
            framing: Framing::Unknown(Vec::new()),
            accumulator: Accumulator::new(limits.model_reply_bytes),
            events: VecDeque::new(),
            failure: None,
            over: false,
            began: false,
            silence: Silence {
                timer: Box::pin(tokio::time::sleep_until(first_look)),
                last_bytes: now,
                idle: limits.model_idle,
                deadline,
            },
            facts,
        }
    }

    /// Waits for the first event. An error that comes before it is returned, with whether a byte had come.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing; dropping the reply drops the request.
    pub(super) async fn first_event(&mut self) -> Result<(), (ModelError, bool)> {
        std::future::poll_fn(|context| {
            while self.events.is_empty() && self.failure.is_none() && !self.over {
                ready!(self.poll_body(context));
            }
            Poll::Ready(())
        })
        .await;
        match self.failure.take_if(|_| self.events.is_empty()) {
            Some(error) => Err((error, self.began)),
            None => Ok(()),
        }
    }

    /// Reads once, or notices the end or the silence.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Ready(()) };
        match body.poll_data(context) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.accept(&bytes, context);
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "the connection to the model gateway broke");
                self.end(BodyEnd::Broken);
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                self.end(BodyEnd::Closed);
                Poll::Ready(())
            }
            Poll::Pending => self.poll_silence(context),
        }
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.silence.timer.as_mut().poll(context));
            let now = Instant::now();
            let idle_end = self.silence.last_bytes + self.silence.idle;
            let limits = &self.facts.gateway.limits;
            if now < idle_end && now < self.silence.deadline {
                self.silence.timer.as_mut().reset(idle_end.min(self.silence.deadline));
                continue;
            }
            if self.accumulator.is_finished() {
                self.end(BodyEnd::Broken);
            } else if now >= self.silence.deadline {
                self.fail(ModelError::TooLong(whole_seconds(limits.model_total)));
            } else {
                self.fail(ModelError::Idle(whole_seconds(limits.model_idle)));
            }
            return Poll::Ready(());
        }
    }

    fn accept(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.began = true;
        self.silence.last_bytes = Instant::now();
        let was_finished = self.accumulator.is_finished();
        if let Err(error) = self.decode(bytes) {
            return self.fail(error);
        }
        if self.accumulator.is_done() {
            self.end(BodyEnd::Closed);
            self.release_connection(context);
        } else if !was_finished && self.accumulator.is_finished() {
            self.hurry();
        }
    }

    /// Only usage and the end mark are missing: nobody should wait long for them.
    fn hurry(&mut self) {
        let limits = &self.facts.gateway.limits;
        self.silence.idle = limits.model_after_finish.min(limits.model_idle);
        let end = (self.silence.last_bytes + self.silence.idle).min(self.silence.deadline);
        self.silence.timer.as_mut().reset(end);
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        if let Framing::Unknown(before) = &mut self.framing {
            before.extend_from_slice(bytes);
            let Some(first) = before.iter().find(|byte| !is_blank_or_mark(**byte)) else {
                return check_whole_size(before.len(), self.facts.gateway.limits.model_line_bytes);
            };
            let is_whole = matches!(first, b'{' | b'[' | b'<');
            let before = std::mem::take(before);
            if is_whole {
                self.framing = Framing::Whole(Vec::new());
            } else {
                self.framing = Framing::Events(SseDecoder::new(self.facts.gateway.limits.model_line_bytes));
            }
            return self.decode(&before);
        }
        let limits = &self.facts.gateway.limits;
        match &mut self.framing {
            Framing::Unknown(_) => Ok(()),
            Framing::Whole(whole) => {
                whole.extend_from_slice(bytes);
                check_whole_size(whole.len(), limits.model_reply_bytes)
            }
            Framing::Events(decoder) => {
                let mut outcome = Ok(());
                let mut sink = |field: Field<'_>| {
                    if outcome.is_ok() {
                        outcome = self.accumulator.field(field, &mut self.events);
                    }
                };
                let pushed = decoder.push(bytes, &mut sink);
                outcome?;
                pushed.map_err(|LineTooLong { bytes_max }| {
                    ModelError::Malformed(format!("a line of more than {bytes_max} bytes"))
                })
            }
        }
    }

    /// The body is over: the rest is decoded, and the reply is finished or failed.
    fn end(&mut self, how: BodyEnd) {
        if let Err(error) = self.decode_rest(how) {
            return self.fail(error);
        }
        let clock = &self.facts.gateway.clock;
        match self.accumulator.end(how, || format!("call_{}", clock.new_id().simple())) {
            Ok(end) => {
                let finished = self.finished(end);
                self.events.push_back(finished);
                self.over = true;
            }
            Err(ModelError::Truncated) if how == BodyEnd::Broken && !self.began => {
                self.fail(ModelError::Unreachable("the connection broke before the reply began".to_owned()));
            }
            Err(error) => self.fail(error),
        }
    }

    fn decode_rest(&mut self, how: BodyEnd) -> Result<(), ModelError> {
        match std::mem::replace(&mut self.framing, Framing::Unknown(Vec::new())) {
            Framing::Unknown(_) => Ok(()),
            Framing::Whole(_) if how == BodyEnd::Broken => Err(ModelError::Truncated),
            Framing::Whole(page) if page.trim_ascii_start().starts_with(b"<") => {
                let page = readable_error(&String::from_utf8_lossy(&page));
                Err(ModelError::Malformed(format!("{page} instead of a reply; check the gateway's address")))
            }
            Framing::Whole(whole) => self.accumulator.whole(&whole, &mut self.events),
            Framing::Events(mut decoder) => {
                let mut outcome = Ok(());
                decoder.finish(&mut |field| {
                    if outcome.is_ok() {
                        outcome = self.accumulator.field(field, &mut self.events);
                    }
                });
                outcome
            }
        }
    }

    fn finished(&self, end: ReplyEnd) -> ModelEvent {
        if end.malformed_chunks > 0 {
            let (model, chunks) = (&self.facts.model, end.malformed_chunks);
            tracing::warn!(model, chunks, "parts of the model's reply could not be read and were skipped");
        }
        let models = self.facts.gateway.catalog.peek();
        let usage = self.facts.usage(end.usage, end.chars, models.as_ref());
        ModelEvent::Finished { tool_calls: end.tool_calls, usage, finish_reason: end.finish_reason }
    }

    fn fail(&mut self, error: ModelError) {
        self.failure = Some(self.facts.safe(error));
        self.over = true;
        // Nothing more is wanted of the connection.
        self.body = None;
    }

    /// The end mark came, the end of the body may still be on its way: only a body that is read to its end gives the
    /// connection back, and the next call then starts without a handshake.
    fn release_connection(&mut self, context: &mut Context<'_>) {
        let Some(mut body) = self.body.take() else { return };
        let limits = &self.facts.gateway.limits;
        let (patience, mut bytes_left) = (limits.model_after_finish, limits.model_error_bytes);
        let mut drain = move |context: &mut Context<'_>| {
            while let Some(Ok(bytes)) = ready!(body.poll_data(context)) {
                let Some(left) = bytes_left.checked_sub(bytes.len()) else { break };
                bytes_left = left;
            }
            Poll::Ready(())
        };
        if drain(context).is_pending() {
            tokio::spawn(async move {
                // Past the patience the connection is closed, which costs only the next handshake.
                let _ = tokio::time::timeout(patience, std::future::poll_fn(drain)).await;
            });
        }
    }
}

impl Stream for Reply {
    type Item = Result<ModelEvent, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(error) = self.failure.take() {
                return Poll::Ready(Some(Err(error)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            ready!(self.poll_body(context));
        }
    }
}

impl CallFacts {
    /// Takes key and conversation out of an error's text.
    pub(super) fn safe(&self, error: ModelError) -> ModelError {
        let clean = |text: String| scrub(&text, self.gateway.key.reveal(), &self.conversation);
        match error {
            ModelError::Unreachable(text) => ModelError::Unreachable(clean(text)),
            ModelError::Status { status, message } => ModelError::Status { status, message: clean(message) },
            ModelError::ContextOverflow(text) => ModelError::ContextOverflow(clean(text)),
            ModelError::InStream(text) => ModelError::InStream(clean(text)),
            ModelError::Malformed(text) => ModelError::Malformed(clean(text)),
            error @ (ModelError::Truncated | ModelError::Idle(_) | ModelError::TooLong(_)) => error,
        }
    }

    /// Reported numbers go through untouched; only what is missing is estimated.
    fn usage(&self, reported: ReportedUsage, completion_chars: usize, models: Option<&Models>) -> ModelUsage {
        let estimate = ModelUsage::estimate(self.prompt_chars, completion_chars);
        let mut usage = ModelUsage {
            prompt_tokens: reported.prompt_tokens.unwrap_or(estimate.prompt_tokens),
            completion_tokens: reported.completion_tokens.unwrap_or(estimate.completion_tokens),
            cost_usd: 0.0,
            measured: reported.prompt_tokens.is_some() && reported.completion_tokens.is_some(),
        };
        let info: Option<&ModelInfo> = models.and_then(|models| models.get(&self.model));
        usage.cost_usd = self.cost_usd.or(reported.cost_usd).unwrap_or_else(|| usage.price(info));
        usage
    }
}

/// Durations in messages are whole seconds, rounded up so that a short limit does not read as none.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn is_blank_or_mark(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf)
}

fn check_whole_size(bytes: usize, bytes_max: usize) -> Result<(), ModelError> {
    if bytes > bytes_max {
        return Err(ModelError::Malformed(format!("a reply of more than {bytes_max} bytes")));
    }
    Ok(())
}
