//! One tool call, from the model's text to exactly one result.
//!
//! ```text
//!   prepare:  find ─▶ parse ─▶ validate ─▶ effect                    ── fault ──▶ error result for the model
//!   run:      task of its own ─▶ answer ─▶ cap ─▶ result
//!               ├── silent too long, running too long ─▶ stopped     ──────────▶ error result naming both clocks
//!               ├── panic ─▶ contained                               ──────────▶ error result
//!               └── cancelled ─▶ stopped                             ──────────▶ cancelled, at once
//!   stopped:  the tool is told, may tidy up for its grace time on that task, and is then dropped
//! ```
//!
//! A call never fails the turn and never panics. Between `prepare` and `run` a human may be asked; that wait is on no
//! clock of the call. Log lines and spans carry the names of arguments, never their values.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use jackfield_plugin_api::{
    BoxFuture, CallContext, CallInfo, CallLink, Effect, Host, Tool, ToolError, ToolOptions, ToolOutput,
};
use serde_json::{Map, Value};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{CallDigest, OfferedTool, ToolSet, canonical_json, schema::type_name, source::panic_text};
use crate::{
    clock::SharedClock,
    config::Limits,
    ids::{ConversationId, SessionId, ToolCallId, TurnId},
    plugins::Misdeed,
};

/// Numbers every call of this process; plugins' log lines carry the number.
static CALLS: AtomicU64 = AtomicU64::new(1);

/// Longest quotation of a panic in a result, in characters.
const PANIC_CHARS: usize = 200;
/// Argument names that a span carries.
const NAMES_LOGGED: usize = 16;

/// Makes calls under the operator's limits.
pub(crate) struct ToolCaller {
    clock: SharedClock,
    limits: Limits,
}

/// A call that is ready to run: the tool exists and the arguments fit its schema.
pub(crate) struct PreparedCall {
    /// The tool.
    pub(crate) tool: OfferedTool,
    /// The checked arguments, always an object.
    pub(crate) arguments: Map<String, Value>,
    /// What this very call may change.
    pub(crate) effect: Effect,
    options: ToolOptions,
}

impl PreparedCall {
    /// What a human's yes is bound to: who offers the tool, its name, and the arguments.
    pub(crate) fn digest(&self) -> CallDigest {
        let facts = &self.tool.facts;
        CallDigest::of(&[&facts.origin.to_string(), &facts.wire_name, &self.arguments_text()])
    }

    /// The arguments as canonical JSON text.
    pub(crate) fn arguments_text(&self) -> String {
        canonical_json(&Value::Object(self.arguments.clone()))
    }

    /// Whether the tool is meant to be called again with the same arguments.
    pub(crate) fn is_polling(&self) -> bool {
        self.options.polling
    }
}

/// What surrounds one call.
pub(crate) struct CallSetup {
    /// The model's id of the call.
    pub(crate) tool_call_id: ToolCallId,
    /// Where it happens; absent when a tool is tried by hand.
    pub(crate) conversation_id: Option<ConversationId>,
    /// See `conversation_id`.
    pub(crate) session_id: Option<SessionId>,
    /// See `conversation_id`.
    pub(crate) turn_id: Option<TurnId>,
    /// Fires when the turn is cancelled.
    pub(crate) cancel: CancellationToken,
    /// Shown progress; absent when nobody watches.
    pub(crate) progress: Option<ProgressSink>,
}

/// Receives progress reports, throttled, never after the call's result.
pub(crate) type ProgressSink = Arc<dyn Fn(ToolProgress) + Send + Sync>;

/// How far a running call is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolProgress {
    /// From 0 to 1, when known.
    pub(crate) fraction: Option<f32>,
    /// What the tool says, shortened.
    pub(crate) message: String,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The tool answered.
    Answered,
    /// No such tool is offered.
    Unknown,
    /// The arguments were no JSON object, or do not fit the schema or the tool.
    InvalidArguments,
    /// The tool tried and failed.
    Failed,
    /// The tool cannot run now.
    Unavailable,
    /// The tool's policy, the operator or a human said no.
    Denied,
    /// One of the two clocks ran out.
    TimedOut,
    /// The tool panicked.
    Panicked,
    /// The turn was cancelled.
    Cancelled,
}

impl CallOutcome {
    /// In a word, for counting.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            CallOutcome::Answered => "answered",
            CallOutcome::Unknown => "unknown",
            CallOutcome::InvalidArguments => "invalid_arguments",
            CallOutcome::Failed => "failed",
            CallOutcome::Unavailable => "unavailable",
            CallOutcome::Denied => "denied",
            CallOutcome::TimedOut => "timed_out",
            CallOutcome::Panicked => "panicked",
            CallOutcome::Cancelled => "cancelled",
        }
    }
}

/// The one result of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolCallResult {
    /// What the model reads; never empty, at most `Limits::tool_output_bytes`.
    pub(crate) text: String,
    /// Whether the call failed.
    pub(crate) is_error: bool,
    /// How it ended.
    pub(crate) outcome: CallOutcome,
    /// An instruction for the client application.
    pub(crate) directive: Option<Map<String, Value>>,
    /// Details for a user interface; never sent to the model.
    pub(crate) details: Option<Value>,
    /// Bytes of the output that `text` leaves out.
    pub(crate) cut_bytes: usize,
}

impl ToolCallResult {
    /// A call that was answered with this text.
    pub(crate) fn answered(text: impl Into<String>) -> Self {
        let outcome = CallOutcome::Answered;
        Self { text: text.into(), is_error: false, outcome, directive: None, details: None, cut_bytes: 0 }
    }

    /// A failed call.
    pub(crate) fn error(outcome: CallOutcome, text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: true, outcome, directive: None, details: None, cut_bytes: 0 }
    }

    /// A call that a human or a policy did not let run.
    pub(crate) fn denied(text: impl Into<String>) -> Self {
        Self::error(CallOutcome::Denied, text)
    }
}

impl ToolCaller {
    /// A caller for the whole server.
    pub(crate) fn new(clock: SharedClock, limits: &Limits) -> Self {
        Self { clock, limits: limits.clone() }
    }

    /// Everything that must be right before a human is asked or the tool runs.
    ///
    /// # Errors
    ///
    /// The result for the model, when something is not.
    pub(crate) fn prepare(&self, tools: &ToolSet, name: &str, arguments: &str) -> Result<PreparedCall, ToolCallResult> {
        let tool = tools.get(name).ok_or_else(|| unknown_tool(tools, name))?;
        let invalid = |text: String| self.capped(ToolCallResult::error(CallOutcome::InvalidArguments, text));
        let arguments = parse_arguments(name, arguments).map_err(invalid)?;
        let arguments = Value::Object(arguments);
        validate(&tool, &arguments).map_err(invalid)?;
        // Undeclared counts as destructive, and so does a declaration that panics.
        let effect = contained(|| tool.tool.effect(&arguments)).unwrap_or(Effect::Destructive);
        let options = contained(|| tool.tool.options()).unwrap_or_default();
        let Value::Object(arguments) = arguments else { unreachable!("made from an object above") };
        Ok(PreparedCall { tool, arguments, effect, options })
    }

    /// Runs a prepared call to its one result.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call: the tool is told and gets its grace time on its own task.
    pub(crate) async fn run(&self, call: PreparedCall, setup: CallSetup) -> ToolCallResult {
        let clocks = Clocks::of(&call.options, &self.limits);
        let lister = call.tool.lister.clone();
        let running = self.start(call, &setup, &clocks);
        let name = running.name.clone();
        let started = Instant::now();
        let span = running.span.clone();
        let result = self.wait(running, setup, &clocks).instrument(span.clone()).await;
        let result = self.capped(result);
        if let (CallOutcome::TimedOut, Some(lister)) = (result.outcome, lister) {
            lister.note(&Misdeed::TimedOut);
        }
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        span.in_scope(|| {
            let ToolCallResult { outcome, cut_bytes, details, .. } = &result;
            let (bytes, has_details) = (result.text.len(), details.is_some());
            tracing::info!(tool = name, ?outcome, ms, bytes, cut_bytes, has_details, "a tool call ended");
        });
        result
    }

    /// Puts the tool on a task of its own: one that blocks its thread must not keep the turn from being cancelled.
    fn start(&self, call: PreparedCall, setup: &CallSetup, clocks: &Clocks) -> Running {
        let call_id = CALLS.fetch_add(1, Ordering::Relaxed);
        let facts = &call.tool.facts;
        let names: Vec<&str> = call.arguments.keys().take(NAMES_LOGGED).map(String::as_str).collect();
        let span = tracing::info_span!(
            "tool_call", tool = facts.wire_name, origin = %facts.origin, call_id, arguments = names.join(",")
        );
        let name = facts.wire_name.clone();
        let cancelled = setup.cancel.child_token();
        let (reports, heard) = watch::channel(Report { at: Instant::now(), progress: None });
        let link = Link { reports, cancelled: cancelled.clone(), message_chars: self.limits.tool_progress_chars };
        let info = self.call_info(&call, call_id, setup, clocks);
        // What is linked into the program logs through `tracing` itself; a plugin has its own link to the host.
        let context = CallContext::new(info, Arc::new(link), Host::detached());
        let attempt = attempt(call.tool.tool, Value::Object(call.arguments), context, cancelled.clone(), clocks.grace);
        let task = tokio::spawn(attempt.instrument(span.clone()));
        Running { name, span, task, heard, _stop: cancelled.drop_guard() }
    }

    fn call_info(&self, call: &PreparedCall, call_id: u64, setup: &CallSetup, clocks: &Clocks) -> CallInfo {
        let mut info = CallInfo::default();
        info.tool = call.tool.facts.name.clone();
        info.tool_call_id = setup.tool_call_id.to_string();
        info.conversation_id = setup.conversation_id.map(|id| id.to_string());
        info.session_id = setup.session_id.map(|id| id.to_string());
        info.turn_id = setup.turn_id.map(|id| id.to_string());
        info.cancel_grace_ms = millis(clocks.grace);
        let now = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        info.deadline_unix_ms = now.saturating_add(millis(clocks.absolute));
        info.call_id = call_id;
        info
    }

    /// Waits for whatever comes first: the answer, a clock, the turn's cancellation.
    async fn wait(&self, mut running: Running, setup: CallSetup, clocks: &Clocks) -> ToolCallResult {
        let end = Instant::now() + clocks.absolute;
        let mut shown = Throttle::new(self.limits.tool_progress_interval);
        let mut listening = true;
        loop {
            let silent_at = running.heard.borrow().at + clocks.idle;
            let wake_at = [Some(silent_at), Some(end), shown.due()].into_iter().flatten().min().unwrap_or(end);
            tokio::select! {
                biased;
                () = setup.cancel.cancelled() => {
                    return ToolCallResult::error(CallOutcome::Cancelled, format!("the call of {} was cancelled", running.name));
                }
                ended = &mut running.task => return result_of(&running.name, ended),
                heard = running.heard.changed(), if listening => match heard {
                    Ok(()) => shown.note(Instant::now()),
                    // The tool let go of its context; nothing more will be heard, and the clocks go on.
                    Err(_) => listening = false,
                },
                () = sleep_until(wake_at) => {}
            }
            // Looked at in every round: a flood of reports must not keep a clock from being heard.
            let now = Instant::now();
            let heard_at = running.heard.borrow().at;
            if let Some(clock) = clocks.run_out(now, heard_at, end) {
                return clocks.timed_out(&running.name, clock);
            }
            if shown.take(now) {
                let latest = running.heard.borrow().progress.clone();
                if let Some(progress) = latest {
                    let ToolProgress { fraction, message } = &progress;
                    tracing::debug!(?fraction, message, "progress");
                    if let Some(sink) = &setup.progress {
                        sink(progress);
                    }
                }
            }
        }
    }

    fn capped(&self, mut result: ToolCallResult) -> ToolCallResult {
        let (text, cut_bytes) = cap_text(std::mem::take(&mut result.text), self.limits.tool_output_bytes);
        result.text = text;
        result.cut_bytes = cut_bytes;
        result
    }
}

/// A call under way. Dropping it fires the call's cancellation; the task then ends within the grace time.
struct Running {
    name: String,
    span: tracing::Span,
    task: JoinHandle<Option<Attempt>>,
    heard: watch::Receiver<Report>,
    _stop: tokio_util::sync::DropGuard,
}

/// What a tool's future came to: its answer, or the panic it ended with.
type Attempt = Result<Result<ToolOutput, ToolError>, Box<dyn Any + Send>>;

/// Runs the tool; after a cancellation only for the grace time. `None` when it was dropped then.
async fn attempt(
    tool: Arc<dyn Tool>,
    arguments: Value,
    context: CallContext,
    cancelled: CancellationToken,
    grace: Duration,
) -> Option<Attempt> {
    let call = AssertUnwindSafe(async move { tool.execute(arguments, context).await }).catch_unwind();
    tokio::pin!(call);
    tokio::select! {
        biased;
        ended = &mut call => return Some(ended),
        () = cancelled.cancelled() => {}
    }
    let ended = timeout(grace, &mut call).await.ok();
    if ended.is_none() {
        let grace_ms = millis(grace);
        tracing::warn!(grace_ms, "a stopped tool did not end within its grace time and is dropped");
    }
    ended
}

/// The two clocks of a call, and the grace after it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clocks {
    idle: Duration,
    absolute: Duration,
    grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Idle,
    Absolute,
}

impl Clocks {
    /// What the tool asks for, capped by the operator. Zero would end every call at once and counts as not set.
    fn of(options: &ToolOptions, limits: &Limits) -> Self {
        let wish = |ms: Option<u64>| ms.filter(|&ms| ms > 0).map(Duration::from_millis);
        let absolute = wish(options.absolute_timeout_ms).unwrap_or(limits.tool_absolute).min(limits.tool_absolute);
        let idle = wish(options.idle_timeout_ms).unwrap_or(limits.tool_idle).min(absolute);
        let grace = options.cancel_grace_ms.map_or(limits.tool_grace, Duration::from_millis).min(limits.tool_grace_max);
        Self { idle, absolute, grace }
    }

    fn run_out(&self, now: Instant, heard_at: Instant, end: Instant) -> Option<Clock> {
        if now >= end {
            Some(Clock::Absolute)
        } else if now >= heard_at + self.idle {
            Some(Clock::Idle)
        } else {
            None
        }
    }

    fn timed_out(&self, name: &str, clock: Clock) -> ToolCallResult {
        let (idle, absolute) = (spell(self.idle), spell(self.absolute));
        let what = match clock {
            Clock::Idle => format!("reported nothing for {idle}"),
            Clock::Absolute => format!("did not finish within {absolute}"),
        };
        let text = format!(
            "the tool {name} {what} and was stopped (limits: {idle} of silence, {absolute} in all); part of its work \
             may be done"
        );
        ToolCallResult::error(CallOutcome::TimedOut, text)
    }
}

/// The last thing heard from a tool.
#[derive(Clone, Debug)]
struct Report {
    at: Instant,
    progress: Option<ToolProgress>,
}

/// The host's side of a call's context. Called from whatever thread the tool runs on.
struct Link {
    reports: watch::Sender<Report>,
    cancelled: CancellationToken,
    message_chars: usize,
}

impl CallLink for Link {
    fn progress(&self, fraction: f32, message: &str) {
        let fraction = (!fraction.is_nan()).then(|| fraction.clamp(0.0, 1.0));
        let message = message.chars().take(self.message_chars).collect();
        self.reports.send_replace(Report { at: Instant::now(), progress: Some(ToolProgress { fraction, message }) });
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    fn cancelled(&self) -> BoxFuture<()> {
        Box::pin(self.cancelled.clone().cancelled_owned())
    }
}

/// Lets one report through per interval, the latest. Pure.
#[derive(Debug)]
struct Throttle {
    interval: Duration,
    waiting_since: Option<Instant>,
    open_at: Option<Instant>,
}

impl Throttle {
    fn new(interval: Duration) -> Self {
        Self { interval, waiting_since: None, open_at: None }
    }

    /// Something new can be shown.
    fn note(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// When what waits may be shown; `None` when nothing waits.
    fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| self.open_at.map_or(since, |open_at| open_at.max(since)))
    }

    /// Whether to show the latest now.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| now >= due);
        if is_due {
            self.waiting_since = None;
            self.open_at = Some(now + self.interval);
        }
        is_due
    }
}

fn unknown_tool(tools: &ToolSet, name: &str) -> ToolCallResult {
    let close = tools.close_names(name);
    let name: String = name.chars().take(PANIC_CHARS).collect();
    let hint = if !close.is_empty() {
        format!("did you mean {}?", close.join(" or "))
    } else if tools.names().next().is_none() {
        "no tools are offered in this turn; answer without one".to_owned()
    } else {
        "call one of the offered tools, or answer without one".to_owned()
    };
    ToolCallResult::error(CallOutcome::Unknown, format!("there is no tool \"{name}\"; {hint}"))
}

/// The arguments as an object; the error is for the model.
fn parse_arguments(tool: &str, text: &str) -> Result<Map<String, Value>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(other) => {
            Err(format!("the arguments of {tool} must be one JSON object, but they are a JSON {}", type_name(&other)))
        }
        Err(error) => Err(format!(
            "the arguments of {tool} are not valid JSON: {error} (of {} characters); send one complete JSON object",
            text.chars().count()
        )),
    }
}

fn validate(tool: &OfferedTool, arguments: &Value) -> Result<(), String> {
    let facts = &tool.facts;
    let faults = match contained(|| facts.arguments.check(arguments)) {
        Some(Ok(())) => return Ok(()),
        Some(Err(faults)) => faults.to_string(),
        None => "they could not be checked".to_owned(),
    };
    let example =
        facts.arguments.example().map(|example| format!("; a minimal example: {example}")).unwrap_or_default();
    Err(format!("the arguments of {} do not fit its schema: {faults}{example}", facts.wire_name))
}

/// Calls into foreign code that must not panic but may.
fn contained<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .inspect_err(|panic| tracing::error!(panic = panic_text(panic.as_ref()), "a tool panicked before its call"))
        .ok()
}

fn result_of(name: &str, ended: Result<Option<Attempt>, JoinError>) -> ToolCallResult {
    match ended {
        Ok(Some(Ok(Ok(output)))) => answered(name, output),
        Ok(Some(Ok(Err(error)))) => refused(name, &error),
        Ok(Some(Err(panic))) => panicked(name, panic.as_ref()),
        Err(error) if error.is_panic() => panicked(name, error.into_panic().as_ref()),
        // Its cancellation fired or the runtime is going down; the turn's own cancellation is looked at first.
        Ok(None) | Err(_) => ToolCallResult::error(CallOutcome::Cancelled, format!("the call of {name} was cancelled")),
    }
}

fn answered(name: &str, output: ToolOutput) -> ToolCallResult {
    let mut text = output.to_text();
    if text.is_empty() {
        // Some gateways refuse an empty tool message, and models read silence as failure.
        text = format!("the tool {name} finished and returned nothing");
    }
    let ToolOutput { directive, details, .. } = output;
    ToolCallResult { directive, details, ..ToolCallResult::answered(text) }
}

fn refused(name: &str, error: &ToolError) -> ToolCallResult {
    let outcome = match error {
        ToolError::InvalidArguments(_) => CallOutcome::InvalidArguments,
        ToolError::Unavailable(_) => CallOutcome::Unavailable,
        ToolError::Denied(_) => CallOutcome::Denied,
        ToolError::TimedOut(_) => CallOutcome::TimedOut,
        ToolError::Panicked(_) => CallOutcome::Panicked,
        _ => CallOutcome::Failed,
    };
    match error.message().trim() {
        "" => ToolCallResult::error(outcome, format!("the tool {name} failed and did not say why")),
        message => ToolCallResult::error(outcome, message),
    }
}

fn panicked(name: &str, panic: &(dyn Any + Send)) -> ToolCallResult {
    let panic = panic_text(panic);
    tracing::error!(tool = name, panic, "a tool panicked");
    let panic: String = panic.chars().take(PANIC_CHARS).collect();
    let text = format!("the tool {name} stopped because of a bug in it: {panic}; part of its work may be done");
    ToolCallResult::error(CallOutcome::Panicked, text)
}

/// At most `max` bytes of the text: three quarters from its head, one from its tail, and between them a line that says
/// how much is missing. Returns the missing bytes too.
fn cap_text(text: String, max: usize) -> (String, usize) {
    if text.len() <= max {
        return (text, 0);
    }
    let marker = |cut: usize| {
        format!("\n[… {cut} of {} bytes are left out here; ask for less at a time to see them …]\n", text.len())
    };
    // The marker is longest when everything is cut, so that room is enough for the real one.
    let room = max.saturating_sub(marker(text.len()).len());
    if room == 0 {
        let head = text.floor_char_boundary_at(max);
        return (text[..head].to_owned(), text.len() - head);
    }
    let head = text.floor_char_boundary_at(room - room / 4);
    let tail = text.ceil_char_boundary_at(text.len() - room / 4);
    let cut = tail - head;
    (format!("{}{}{}", &text[..head], marker(cut), &text[tail..]), cut)
}

/// The nearest character boundaries. The standard library has them from Rust 1.91 on, which is newer than our minimum.
trait CharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
    fn ceil_char_boundary_at(&self, index: usize) -> usize;
}

impl CharBoundary for str {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        (0..=index.min(self.len())).rev().find(|&index| self.is_char_boundary(index)).unwrap_or(0)
    }

    fn ceil_char_boundary_at(&self, index: usize) -> usize {
        (index..self.len()).find(|&index| self.is_char_boundary(index)).unwrap_or(self.len())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds as such, anything finer in milliseconds.
fn spell(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        _ => format!("{} ms", duration.as_millis()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    };

    use async_trait::async_trait;
    use jackfield_plugin_api::ToolSchema;
    use proptest::prelude::*;
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;
    use crate::{
        clock::Clock as _,
        clock::SystemClock,
        config::NameConflict,
        tools::{BuiltIn, Toolbox},
    };

    /// A context for tools that are called without a caller.
    pub(in crate::tools) fn context() -> CallContext {
        let (reports, _) = watch::channel(Report { at: Instant::now(), progress: None });
        let link = Link { reports, cancelled: CancellationToken::new(), message_chars: 10 };
        CallContext::new(CallInfo::default(), Arc::new(link), Host::detached())
    }

    type Behaviour = Box<dyn Fn(Value, CallContext) -> BoxFuture<Result<ToolOutput, ToolError>> + Send + Sync>;

    struct Scripted {
        behaviour: Behaviour,
        options: ToolOptions,
    }

    #[async_trait]
    impl Tool for Scripted {
        fn schema(&self) -> ToolSchema {
            let parameters = json!({
                "properties": {"n": {"type": "integer"}, "password": {"type": "string"}}, "additionalProperties": false,
            });
            ToolSchema::new("scripted", "for tests", parameters)
        }
        async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
            (self.behaviour)(arguments, call).await
        }
        fn effect(&self, arguments: &Value) -> Effect {
            match arguments["n"].as_i64() {
                Some(0) => Effect::ReadOnly,
                Some(13) => panic!("effect bug"),
                _ => Effect::Writes,
            }
        }
        fn options(&self) -> ToolOptions {
            self.options.clone()
        }
    }

    /// One tool named `scripted`, and the ways to call it.
    struct Bench {
        tools: ToolSet,
        caller: ToolCaller,
        cancel: CancellationToken,
        shown: Arc<Mutex<Vec<ToolProgress>>>,
    }

    impl Bench {
        fn new<F>(behaviour: impl Fn(Value, CallContext) -> F + Send + Sync + 'static) -> Self
        where
            F: Future<Output = Result<ToolOutput, ToolError>> + Send + 'static,
        {
            Self::with(ToolOptions::default(), Limits::default(), behaviour)
        }

        fn with<F>(
            options: ToolOptions,
            limits: Limits,
            behaviour: impl Fn(Value, CallContext) -> F + Send + Sync + 'static,
        ) -> Self
        where
            F: Future<Output = Result<ToolOutput, ToolError>> + Send + 'static,
        {
            let behaviour: Behaviour = Box::new(move |arguments, call| Box::pin(behaviour(arguments, call)));
            let tool = Arc::new(Scripted { behaviour, options });
            let built_in = BuiltIn { schema: Arc::new(tool.schema()), tool };
            let tools = Toolbox::new(NameConflict::Error, &limits).assemble(&[built_in], &[], None);
            let caller = ToolCaller::new(Arc::new(SystemClock), &limits);
            Self { tools, caller, cancel: CancellationToken::new(), shown: Arc::default() }
        }

        fn prepare(&self, arguments: &str) -> Result<PreparedCall, ToolCallResult> {
            self.caller.prepare(&self.tools, "scripted", arguments)
        }

        async fn call(&self, arguments: &str) -> ToolCallResult {
            let shown = self.shown.clone();
            let setup = CallSetup {
                tool_call_id: ToolCallId::new("call_7"),
                conversation_id: None,
                session_id: None,
                turn_id: Some(TurnId(SystemClock.new_id())),
                cancel: self.cancel.clone(),
                progress: Some(Arc::new(move |progress| shown.lock().unwrap().push(progress))),
            };
            match self.prepare(arguments) {
                Ok(call) => self.caller.run(call, setup).await,
                Err(result) => result,
            }
        }
    }

    fn echo() -> Bench {
        Bench::new(|arguments, _| async move { Ok(arguments.into()) })
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn empty_and_null_arguments_are_an_empty_object() {
        for arguments in ["", "  ", "null", "{}"] {
            let result = echo().call(arguments).await;
            assert_eq!((result.text.as_str(), result.is_error), ("{}", false), "{arguments:?}");
            assert_eq!(result.outcome, CallOutcome::Answered);
        }
        assert_eq!(echo().call(r#"{"n":3}"#).await.text, r#"{"n":3}"#);
    }

    #[tokio::test]
    async fn broken_arguments_never_reach_the_tool_and_the_error_says_where() {
        let bench = Bench::new(|_, _| async { panic!("it was called") });
        let broken = bench.call(r#"{"n": 1, "password": "hunter2"#).await;
        assert_eq!(broken.outcome, CallOutcome::InvalidArguments);
        assert!(
            broken.is_error && broken.text.contains("not valid JSON") && broken.text.contains("column 29"),
            "{broken:?}"
        );
        let list = bench.call("[1]").await;
        assert!(list.text.contains("must be one JSON object, but they are a JSON array"), "{list:?}");
        let wrong = bench.call(r#"{"n": "hunter2"}"#).await;
        assert_eq!(
            wrong.text,
            "the arguments of scripted do not fit its schema: at /n: expected integer, got string; a minimal example: {}"
        );
        for result in [broken, list, wrong] {
            assert!(!result.text.contains("hunter2"), "{result:?}");
        }
    }

    #[tokio::test]
    async fn an_unknown_tool_names_close_ones() {
        let bench = echo();
        let result = bench.caller.prepare(&bench.tools, "Scriptd", "{}").err().unwrap();
        assert_eq!(result.text, "there is no tool \"Scriptd\"; did you mean scripted?");
        assert_eq!((result.outcome, result.is_error), (CallOutcome::Unknown, true));
        let result = bench.caller.prepare(&bench.tools, "weather", "{}").err().unwrap();
        assert!(result.text.ends_with("call one of the offered tools, or answer without one"));
    }

    #[test]
    fn effects_depend_on_the_arguments_and_a_panic_counts_as_destructive() {
        let effect = |arguments| echo().prepare(arguments).ok().unwrap().effect;
        assert_eq!(effect(r#"{"n":0}"#), Effect::ReadOnly);
        assert_eq!(effect("{}"), Effect::Writes);
        assert_eq!(effect(r#"{"n":13}"#), Effect::Destructive);
    }

    #[test]
    fn the_digest_is_of_tool_and_arguments() {
        let digest = |arguments| echo().prepare(arguments).ok().unwrap().digest();
        assert_eq!(digest(r#"{"n":1,"password":"x"}"#), digest(r#"{ "password":"x", "n":1 }"#));
        assert_ne!(digest(r#"{"n":1}"#), digest(r#"{"n":2}"#));
    }

    #[tokio::test]
    async fn errors_keep_their_kind_and_are_never_empty() {
        for (error, outcome, text) in [
            (ToolError::Failed("disk full".into()), CallOutcome::Failed, "disk full"),
            (ToolError::Failed(" ".into()), CallOutcome::Failed, "the tool scripted failed and did not say why"),
            (ToolError::Unavailable("later".into()), CallOutcome::Unavailable, "later"),
            (ToolError::Denied("no".into()), CallOutcome::Denied, "no"),
            (ToolError::InvalidArguments("n".into()), CallOutcome::InvalidArguments, "n"),
            (ToolError::Cancelled("oh".into()), CallOutcome::Failed, "oh"),
        ] {
            let failing = error.clone();
            let result = Bench::new(move |_, _| std::future::ready(Err(failing.clone()))).call("").await;
            assert_eq!((result.outcome, result.text.as_str(), result.is_error), (outcome, text, true));
        }
        let silent = Bench::new(|_, _| async { Ok(ToolOutput::default()) }).call("").await;
        assert_eq!((silent.is_error, silent.text.as_str()), (false, "the tool scripted finished and returned nothing"));
    }

    #[tokio::test]
    async fn details_and_directive_travel_beside_the_text() {
        let directive = json!({"go": "/home"}).as_object().unwrap().clone();
        let sent = directive.clone();
        let result = Bench::new(move |_, _| {
            let output = ToolOutput::text("ok").with_details(json!([1])).with_directive(sent.clone());
            std::future::ready(Ok(output))
        })
        .call("")
        .await;
        assert_eq!((result.directive, result.details, result.text.as_str()), (Some(directive), Some(json!([1])), "ok"));
    }

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("drop bug");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_contained_wherever_they_happen() {
        let at_once = Bench::new(|_, _| -> std::future::Ready<_> { panic!("first bug") }).call("").await;
        let later = Bench::new(|_, _| async {
            sleep(seconds(1)).await;
            panic!("second {}", "bug")
        })
        .call("")
        .await;
        for (result, text) in [(at_once, "first bug"), (later, "second bug")] {
            assert_eq!((result.outcome, result.is_error), (CallOutcome::Panicked, true));
            assert!(result.text.contains(text), "{result:?}");
        }
        // One that panics when it is dropped after a time-out costs nothing but a log line.
        let bench = Bench::new(|_, _| async {
            let _bomb = PanicsOnDrop;
            std::future::pending().await
        });
        assert_eq!(bench.call("").await.outcome, CallOutcome::TimedOut);
        sleep(seconds(10)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_call_and_progress_keeps_it_alive() {
        let silent = Bench::new(|_, _| std::future::pending());
        let start = Instant::now();
        let result = silent.call("").await;
        assert_eq!(start.elapsed(), seconds(60));
        assert_eq!(
            result.text,
            "the tool scripted reported nothing for 60 s and was stopped (limits: 60 s of silence, 600 s in all); part \
             of its work may be done"
        );

        let busy = Bench::new(|_, call| async move {
            for _ in 0..5 {
                sleep(seconds(50)).await;
                call.progress(0.5, "still here");
            }
            Ok("done".into())
        });
        assert_eq!(busy.call("").await.text, "done");

        let endless = Bench::new(|_, call| async move {
            loop {
                sleep(seconds(50)).await;
                call.progress(0.5, "still here");
            }
        });
        let start = Instant::now();
        let result = endless.call("").await;
        assert_eq!(start.elapsed(), seconds(600));
        assert!(result.text.contains("did not finish within 600 s"), "{result:?}");
        assert_eq!(result.outcome, CallOutcome::TimedOut);
    }

    #[test]
    fn a_tool_sets_its_clocks_and_the_operator_caps_them() {
        let limits = Limits::default();
        let clocks = |options: ToolOptions| {
            let Clocks { idle, absolute, grace } = Clocks::of(&options, &limits);
            (idle.as_millis(), absolute.as_millis(), grace.as_millis())
        };
        let options = ToolOptions::default;
        assert_eq!(clocks(options()), (60_000, 600_000, 500));
        assert_eq!(clocks(options().idle_timeout(seconds(300))), (300_000, 600_000, 500));
        assert_eq!(
            clocks(options().idle_timeout(seconds(9000)).absolute_timeout(seconds(9000))),
            (600_000, 600_000, 500)
        );
        assert_eq!(clocks(options().absolute_timeout(seconds(10))), (10_000, 10_000, 500));
        assert_eq!(clocks(options().cancel_grace(seconds(60))), (60_000, 600_000, 5_000));
        assert_eq!(clocks(options().cancel_grace(Duration::ZERO)), (60_000, 600_000, 0));
        assert_eq!(
            clocks(options().idle_timeout(Duration::ZERO).absolute_timeout(Duration::ZERO)),
            (60_000, 600_000, 500)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_returns_at_once_and_the_tool_may_tidy_up() {
        let tidied = Arc::new(AtomicBool::new(false));
        let flag = tidied.clone();
        let bench = Arc::new(Bench::new(move |_, call| {
            let flag = flag.clone();
            async move {
                call.cancelled().await;
                assert!(call.is_cancelled());
                sleep(Duration::from_millis(400)).await;
                flag.store(true, Ordering::Relaxed);
                Ok("too late".into())
            }
        }));
        let running = tokio::spawn({
            let bench = bench.clone();
            async move { bench.call("").await }
        });
        sleep(seconds(5)).await;
        bench.cancel.cancel();
        let cancelled_at = Instant::now();
        let result = running.await.unwrap();
        assert_eq!(cancelled_at.elapsed(), Duration::ZERO);
        assert_eq!((result.outcome, result.is_error), (CallOutcome::Cancelled, true));
        assert!(!tidied.load(Ordering::Relaxed));
        sleep(Duration::from_millis(450)).await;
        assert!(tidied.load(Ordering::Relaxed));
    }

    struct CountOnDrop(Arc<AtomicUsize>);

    impl Drop for CountOnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn stubborn(dropped: &Arc<AtomicUsize>) -> Bench {
        let dropped = dropped.clone();
        Bench::new(move |_, _| {
            let counter = CountOnDrop(dropped.clone());
            async move {
                let _counter = counter;
                std::future::pending().await
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_tool_that_ignores_its_cancellation_is_dropped_after_the_grace() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let bench = stubborn(&dropped);
        bench.cancel.cancel();
        assert_eq!(bench.call("").await.outcome, CallOutcome::Cancelled);
        sleep(Duration::from_millis(499)).await;
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        sleep(Duration::from_millis(2)).await;
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_caller_stops_the_tool() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let bench = stubborn(&dropped);
        assert!(timeout(seconds(1), bench.call("")).await.is_err());
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        sleep(Duration::from_millis(501)).await;
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_throttled_and_the_latest_wins() {
        let bench = Bench::new(|_, call| async move {
            for step in 0..100_u16 {
                call.progress(f32::from(step) / 100.0, format!("step {step}"));
                sleep(Duration::from_millis(10)).await;
            }
            call.progress(f32::NAN, "x".repeat(10_000));
            sleep(seconds(1)).await;
            Ok("done".into())
        });
        assert_eq!(bench.call("").await.text, "done");
        let shown = bench.shown.lock().unwrap().clone();
        assert!((10..=12).contains(&shown.len()), "{}", shown.len());
        assert_eq!(shown[0], ToolProgress { fraction: Some(0.0), message: "step 0".to_owned() });
        let last = shown.last().unwrap();
        assert_eq!((last.fraction, last.message.len()), (None, 500));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flood_of_progress_does_not_outrun_the_absolute_clock() {
        let limits = Limits { tool_absolute: Duration::from_millis(100), ..Limits::default() };
        let bench = Bench::with(ToolOptions::default(), limits, |_, call| async move {
            loop {
                call.progress(0.1, "again");
                tokio::task::yield_now().await;
            }
        });
        let result = timeout(seconds(20), bench.call("")).await.unwrap();
        assert!(result.text.contains("did not finish within 100 ms"), "{result:?}");
    }

    #[tokio::test]
    async fn a_call_knows_its_ids_and_its_deadline() {
        let bench = Bench::new(|_, call| async move {
            let info = call.info();
            assert!(info.turn_id.is_some() && info.conversation_id.is_none());
            assert_eq!(
                (info.tool.as_str(), info.tool_call_id.as_str(), info.cancel_grace_ms),
                ("scripted", "call_7", 500)
            );
            assert!(call.time_left().unwrap() > seconds(590));
            Ok(info.call_id.to_string().into())
        });
        let (one, other) = (bench.call("").await.text, bench.call("").await.text);
        assert_ne!(one, other);
    }

    #[tokio::test]
    async fn long_output_is_cut_in_the_middle() {
        let bench = Bench::new(|_, _| async { Ok(format!("head{}tail", "ä".repeat(100_000)).into()) });
        let result = bench.call("").await;
        assert!(result.text.len() <= 64 * 1024);
        assert!(result.text.starts_with("headä") && result.text.ends_with("ätail"));
        assert!(result.text.contains(&format!("{} of 200008 bytes are left out", result.cut_bytes)));
    }

    proptest! {
        #[test]
        fn a_cut_text_fits_and_keeps_both_ends(text in "[aäß漢\n]{0,400}", max in 0usize..600) {
            let (cut, missing) = cap_text(text.clone(), max);
            prop_assert!(cut.len() <= max);
            if text.len() <= max {
                prop_assert_eq!(&cut, &text);
                prop_assert_eq!(missing, 0);
            } else if let Some((head, rest)) = cut.split_once("\n[… ") {
                let (_, tail) = rest.split_once(" …]\n").unwrap();
                prop_assert!(text.starts_with(head) && text.ends_with(tail));
                prop_assert_eq!(head.len() + tail.len() + missing, text.len());
                prop_assert!(head.len() >= tail.len());
            } else {
                prop_assert!(text.starts_with(&cut));
                prop_assert_eq!(cut.len() + missing, text.len());
            }
        }
    }
}
