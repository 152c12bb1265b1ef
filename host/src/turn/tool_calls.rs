//! The tool phase of a turn: each call the model asked for, one after the other, to exactly one result each.
//!
//! ```text
//! prepare ── fault ─▶ toolCall chunk ─▶ toolResult chunk (error)
//!    │
//!    ├─ hooks say no ─▶ toolCall chunk ─▶ toolResult chunk (denied)
//!    ├─ a human is asked ─▶ park event ─▶ toolCall chunk ─▶ verdict ── no ─▶ toolResult chunk (denied)
//!    └─ otherwise ─▶ toolCall chunk                            │ yes
//!                          └───────────────▶ run ◀─────────────┘ ─▶ toolResult chunk
//! ```

use std::sync::Arc;

use jackfield_plugin_api::{DirectiveSink, ToolProviderContext};

use super::{
    confirmation,
    hooks::HookedCall,
    park::ParkKind,
    registry::RunningTurn,
    run::{KnowledgeChatRuntime, TurnFailure},
    transcript::Transcript,
};
use crate::{
    ids::ParkId,
    model::ModelToolCall,
    protocol::{
        Event,
        event::{StreamChunk, WriteConfirmation},
    },
    tools::{
        AskReason, CallOutcome, CallSetup, LoopGuard, LoopVerdict, Origin, PreparedCall, ProgressSink, ToolCallResult,
        ToolProgress, ToolSet, needs_confirmation,
    },
};

/// The tool calls of one turn.
pub(super) struct ToolPhase<'a> {
    runtime: &'a KnowledgeChatRuntime,
    turn: &'a Arc<RunningTurn>,
    tools: &'a ToolSet,
    directive: DirectiveSink,
    loops: LoopGuard,
    stuck: bool,
}

impl<'a> ToolPhase<'a> {
    pub(super) fn new(
        runtime: &'a KnowledgeChatRuntime,
        turn: &'a Arc<RunningTurn>,
        tools: &'a ToolSet,
        context: &ToolProviderContext,
    ) -> Self {
        let loops = LoopGuard::new(&runtime.config.limits);
        Self { runtime, turn, tools, directive: context.directive_sink.clone(), loops, stuck: false }
    }

    /// Whether the model repeats the same call with the same result, so that the turn should end with what there is.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Runs the calls of one model reply in its order.
    ///
    /// # Errors
    ///
    /// Only when the turn was cancelled.
    pub(super) async fn run_all(
        &mut self,
        transcript: &mut Transcript,
        calls: Vec<ModelToolCall>,
    ) -> Result<(), TurnFailure> {
        let max = self.runtime.config.limits.tool_calls_per_reply;
        for (index, call) in calls.into_iter().enumerate() {
            let text = if self.stuck {
                "not run: an earlier call was repeated too often, so no further tool runs in this turn".to_owned()
            } else if index >= max {
                format!("not run: one reply may hold {max} tool calls; ask for the rest in the next one")
            } else {
                self.run(&call).await?
            };
            transcript.push_tool_result(&call, text);
        }
        Ok(())
    }

    /// Runs one call and returns what the model reads.
    async fn run(&mut self, call: &ModelToolCall) -> Result<String, TurnFailure> {
        let prepared = match self.turn.unless_cancelled(self.prepare(call)).await? {
            Ok(prepared) => prepared,
            Err(refused) => {
                self.announce(call, call.arguments.clone());
                let text = self.report(call, refused);
                return Ok(self.note(call, &call.arguments, text, false));
            }
        };
        let (arguments, is_polling) = (prepared.arguments_text(), prepared.is_polling());
        let result = match self.may_run(call, &prepared, &arguments).await? {
            Ok(()) => self.execute(call, prepared).await?,
            Err(denied) => denied,
        };
        let text = self.report(call, result);
        Ok(self.note(call, &arguments, text, is_polling))
    }

    /// Counts repetitions, and tells the model of them in what it reads.
    fn note(&mut self, call: &ModelToolCall, arguments: &str, text: String, is_polling: bool) -> String {
        match self.loops.note(&call.name, arguments, &text, is_polling) {
            LoopVerdict::Continue => text,
            LoopVerdict::Notice(notice) => format!("{text}\n\n{notice}"),
            LoopVerdict::Stop(reason) => {
                tracing::warn!(tool = call.name, %reason, "the model repeats itself");
                self.stuck = true;
                format!("{text}\n\n[stopped: {reason}]")
            }
        }
    }

    /// Finds the tool and checks the arguments. A plugin whose tool's effect depends on them is asked on a thread that
    /// may wait for it.
    async fn prepare(&self, call: &ModelToolCall) -> Result<PreparedCall, ToolCallResult> {
        let caller = &self.runtime.tools.caller;
        let asks_plugin = self.tools.get(&call.name).is_some_and(|offered| {
            matches!(offered.facts.origin, Origin::Plugin(_)) && offered.tool.declared_effect().is_none()
        });
        if !asks_plugin {
            return caller.prepare(self.tools, &call.name, &call.arguments);
        }
        let (caller, tools, call) = (caller.clone(), self.tools.clone(), call.clone());
        let prepared = tokio::task::spawn_blocking(move || caller.prepare(&tools, &call.name, &call.arguments)).await;
        prepared.unwrap_or_else(|error| Err(ToolCallResult::error(CallOutcome::Failed, error.to_string())))
    }

    /// Asks the hooks and, where the rules say so, a human. The toolCall chunk is out when this returns.
    async fn may_run(
        &self,
        call: &ModelToolCall,
        prepared: &PreparedCall,
        arguments: &str,
    ) -> Result<Result<(), ToolCallResult>, TurnFailure> {
        if let Err(reason) = self.turn.unless_cancelled(self.ask_hooks(prepared)).await? {
            self.announce(call, arguments.to_owned());
            return Ok(Err(ToolCallResult::denied(reason)));
        }
        let facts = &prepared.tool.facts;
        let names = [facts.wire_name.as_str(), facts.name.as_str()];
        let confirm_tools = &self.runtime.config.confirm_tools;
        match needs_confirmation(&facts.origin, prepared.effect, &names, confirm_tools, facts.ask) {
            None => {
                self.announce(call, arguments.to_owned());
                Ok(Ok(()))
            }
            Some(reason) => self.ask_human(call, prepared, arguments, &reason).await,
        }
    }

    /// Parks the turn until a human answers, a deadline passes or the turn is stopped.
    async fn ask_human(
        &self,
        call: &ModelToolCall,
        prepared: &PreparedCall,
        arguments: &str,
        reason: &AskReason,
    ) -> Result<Result<(), ToolCallResult>, TurnFailure> {
        let limits = &self.runtime.config.limits;
        let id = ParkId(self.runtime.clock.new_id());
        let park = match self.turn.parks.park(id, ParkKind::Confirmation, prepared.digest()) {
            Ok(park) => park,
            Err(error) => return Ok(Err(ToolCallResult::denied(error.to_string()))),
        };
        let question = WriteConfirmation {
            tool_name: call.name.clone(),
            action_description: confirmation::question(prepared, reason, limits),
        };
        // The question comes before the chunk, and nothing between the two, although an answer may come at once; a
        // client shows the chunk as what the question is about.
        let chunk = tool_call_chunk(call, arguments.to_owned());
        self.turn.log.append_all([Event::WriteConfirmationRequired(question), chunk]);
        let attended = self.runtime.attendance.watch(self.turn.ids.conversation);
        let limits = confirmation::confirmation_limits(limits, self.turn.dialect.resume);
        let end = self.turn.unless_cancelled(park.wait(limits, attended)).await?;
        Ok(confirmation::settle(&call.name, end))
    }

    async fn ask_hooks(&self, prepared: &PreparedCall) -> Result<(), String> {
        if self.runtime.hooks.is_empty() {
            return Ok(());
        }
        let arguments = serde_json::Value::Object(prepared.arguments.clone());
        let (conversation, session) = self.turn.ids.texts();
        for hook in &self.runtime.hooks {
            let tool = &prepared.tool.facts.wire_name;
            hook.before(HookedCall::new(tool, &arguments, &conversation, &session)).await?;
        }
        Ok(())
    }

    async fn execute(&self, call: &ModelToolCall, prepared: PreparedCall) -> Result<ToolCallResult, TurnFailure> {
        let ids = &self.turn.ids;
        let setup = CallSetup {
            tool_call_id: call.id.clone(),
            conversation_id: Some(ids.conversation),
            session_id: Some(ids.session),
            turn_id: Some(ids.turn),
            cancel: self.turn.cancelled.clone(),
            progress: self.progress_of(call),
        };
        let arguments = (!self.runtime.hooks.is_empty()).then(|| prepared.arguments.clone());
        let result = self.runtime.tools.caller.run(prepared, setup).await;
        if result.outcome == CallOutcome::Cancelled {
            return Err(TurnFailure::Cancelled);
        }
        if let Some(arguments) = arguments {
            let arguments = serde_json::Value::Object(arguments);
            let (conversation, session) = ids.texts();
            for hook in &self.runtime.hooks {
                let seen = HookedCall::new(&call.name, &arguments, &conversation, &session);
                self.turn.unless_cancelled(hook.after(seen, &result.text, result.is_error)).await?;
            }
        }
        Ok(result)
    }

    /// Shows how far the call is, when the session that started the turn wants to see it.
    fn progress_of(&self, call: &ModelToolCall) -> Option<ProgressSink> {
        self.turn.dialect.tool_progress.then(|| {
            let (log, name, id) = (self.turn.log.clone(), call.name.clone(), call.id.clone());
            let sink: ProgressSink = Arc::new(move |ToolProgress { fraction, message }| {
                let chunk = StreamChunk::tool_progress(name.clone(), id.clone(), fraction, message);
                log.append(Event::StreamChunk(chunk));
            });
            sink
        })
    }

    /// Says that the tool is called.
    fn announce(&self, call: &ModelToolCall, arguments: String) {
        self.turn.log.append(tool_call_chunk(call, arguments));
    }

    /// Says how the call ended, and returns what the model reads.
    fn report(&self, call: &ModelToolCall, result: ToolCallResult) -> String {
        if let Some(directive) = result.directive {
            self.directive.set(directive);
        }
        let chunk = StreamChunk::tool_result(&call.name, result.is_error, &result.text);
        self.turn.log.append(Event::StreamChunk(chunk));
        result.text
    }
}

fn tool_call_chunk(call: &ModelToolCall, arguments: String) -> Event {
    let arguments = if arguments.trim().is_empty() { "{}".to_owned() } else { arguments };
    Event::StreamChunk(StreamChunk::ToolCall { name: call.name.clone(), arguments })
}
