//! The tool phase of a turn: each call the model asked for, one after the other, to exactly one result each.
//!
//! ```text
//! prepare ── fault ─▶ toolCall chunk ─▶ toolResult chunk (error)
//!    │
//!    ├─ hooks or the agent's rules say no ─▶ toolCall chunk ─▶ toolResult chunk (denied)
//!    ├─ it shows a form ─▶ park event ─▶ toolCall chunk ─▶ answer ─▶ toolResult chunk
//!    ├─ a human is asked ─▶ park event ─▶ toolCall chunk ─▶ verdict ── no ─▶ toolResult chunk (denied)
//!    └─ otherwise ─▶ toolCall chunk                            │ yes
//!                          └───────────────▶ run ◀─────────────┘ ─▶ toolResult chunk
//! ```

use std::{sync::Arc, time::Duration};

use jackfield_plugin_api::{DirectiveSink, ToolProviderContext};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    auth_gate::{Gate, gate},
    confirmation,
    hooks::HookedCall,
    interaction,
    park::{Decision, Park, ParkEnd},
    registry::RunningTurn,
    run::{KnowledgeChatRuntime, TurnFailure},
    transcript::Transcript,
    verification,
};
use crate::{
    config::AgentConfig,
    ids::ParkId,
    model::ModelToolCall,
    protocol::{
        Event,
        event::{StreamChunk, WriteConfirmation},
    },
    tools::{
        AskReason, CallOutcome, CallSetup, Form, Interactions, LoopGuard, LoopVerdict, Origin, PreparedCall,
        ProgressSink, ToolCallResult, ToolProgress, ToolSet, needs_confirmation,
    },
};

/// The tool calls of one turn.
pub(super) struct ToolPhase<'a> {
    runtime: &'a KnowledgeChatRuntime,
    turn: &'a Arc<RunningTurn>,
    tools: &'a ToolSet,
    interactions: &'a Interactions,
    agent: &'a AgentConfig,
    directive: DirectiveSink,
    loops: LoopGuard,
    stuck: bool,
    /// The first tool that was refused because the user is not verified.
    unverified: Option<String>,
}

impl<'a> ToolPhase<'a> {
    pub(super) fn new(
        runtime: &'a KnowledgeChatRuntime,
        turn: &'a Arc<RunningTurn>,
        tools: &'a ToolSet,
        interactions: &'a Interactions,
        agent: &'a AgentConfig,
        context: &ToolProviderContext,
    ) -> Self {
        let loops = LoopGuard::new(&runtime.config.limits);
        let directive = context.directive_sink.clone();
        Self { runtime, turn, tools, interactions, agent, directive, loops, stuck: false, unverified: None }
    }

    /// Whether the model repeats the same call with the same result, so that the turn should end with what there is.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The tool for which the user should be offered to verify themselves, if there is one.
    pub(super) fn wants_verification(&self) -> Option<&str> {
        self.unverified.as_deref()
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
                self.count(call, refused.outcome);
                self.announce(call, object_text(&call.arguments));
                let text = self.report(call, refused);
                return Ok(self.note(call, &call.arguments, text, false));
            }
        };
        let (arguments, is_polling) = (prepared.arguments_text(), prepared.is_polling());
        let result = self.carry_out(call, prepared, &arguments).await;
        self.count(call, result.as_ref().map_or(CallOutcome::Cancelled, |result| result.outcome));
        let result = result?;
        let text = self.report(call, result);
        Ok(self.note(call, &arguments, text, is_polling))
    }

    /// Counts the call for whoever watches the server.
    fn count(&self, call: &ModelToolCall, outcome: CallOutcome) {
        let metrics = &self.runtime.metrics;
        match self.tools.get(&call.name) {
            Some(offered) => {
                let origin = &offered.facts.origin;
                metrics.tool_call(origin.name(), &offered.facts.name, outcome.as_str());
                if let (Origin::Plugin(id), CallOutcome::Panicked) = (origin, outcome) {
                    metrics.plugin_panic(id.as_str());
                }
            }
            // The name is whatever the model made up.
            None => metrics.tool_call("none", "unknown", outcome.as_str()),
        }
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

    /// Lets the hooks and the agent's rules look at the call, asks whoever has to be asked, and runs what may run.
    async fn carry_out(
        &mut self,
        call: &ModelToolCall,
        prepared: PreparedCall,
        arguments: &str,
    ) -> Result<ToolCallResult, TurnFailure> {
        if let Err(reason) = self.turn.unless_cancelled(self.ask_hooks(&prepared)).await? {
            self.announce(call, arguments.to_owned());
            return Ok(ToolCallResult::denied(reason));
        }
        if let Some(refused) = self.refused_by_auth(&prepared).await? {
            self.announce(call, arguments.to_owned());
            return Ok(refused);
        }
        if let Some(form) = self.interactions.form_of(&prepared) {
            return self.show_form(call, &prepared, arguments, form).await;
        }
        match self.confirmation_reason(&prepared) {
            None => self.announce(call, arguments.to_owned()),
            Some(reason) => {
                if let Err(denied) = self.ask_human(call, &prepared, arguments, &reason).await? {
                    return Ok(denied);
                }
            }
        }
        self.execute(call, prepared).await
    }

    /// The refusal of a call for which the user is not known well enough.
    async fn refused_by_auth(&mut self, prepared: &PreparedCall) -> Result<Option<ToolCallResult>, TurnFailure> {
        let tool = &prepared.tool.facts.wire_name;
        match gate(self.agent, &self.runtime.config.auth_tools, &names(prepared)) {
            Gate::Open => Ok(None),
            Gate::Closed => Ok(Some(verification::forbidden(tool))),
            Gate::NeedsVerification => {
                let refused = self.turn.unless_cancelled(self.runtime.unverified(self.turn, tool)).await?;
                if refused.is_some() {
                    self.unverified.get_or_insert_with(|| tool.clone());
                }
                Ok(refused)
            }
        }
    }

    /// Why a human has to be asked before the call runs, if one has to be.
    fn confirmation_reason(&self, prepared: &PreparedCall) -> Option<AskReason> {
        let facts = &prepared.tool.facts;
        let confirm_tools = &self.runtime.config.confirm_tools;
        needs_confirmation(&facts.origin, prepared.effect, &names(prepared), confirm_tools, facts.ask)
    }

    /// Shows the form that the call asks for and waits for it. The wait is itself a question to a human, so nobody is
    /// asked whether it may be asked.
    async fn show_form(
        &self,
        call: &ModelToolCall,
        prepared: &PreparedCall,
        arguments: &str,
        form: Result<Form, String>,
    ) -> Result<ToolCallResult, TurnFailure> {
        let id = ParkId(self.runtime.clock.new_id());
        let parked = form.map(Arc::new).map_err(interaction::misasked).and_then(|form| {
            let park = self.turn.parks.park_form(id, form.clone());
            park.map(|park| (park, form)).map_err(|error| ToolCallResult::denied(error.to_string()))
        });
        let (park, form) = match parked {
            Ok(parked) => parked,
            Err(fault) => {
                self.announce(call, arguments.to_owned());
                return Ok(fault);
            }
        };
        let chunk = tool_call_chunk(call, arguments.to_owned());
        let count = |decision, waited| self.runtime.metrics.interaction(decision, waited);
        let end = self.wait_for(park, [interaction::required(id, &form), chunk], count).await?;
        let result = interaction::settle(end);
        self.tell_hooks(call, &prepared.arguments, &result).await?;
        Ok(result)
    }

    /// Parks the turn until a human answers, a deadline passes or the turn is stopped.
    async fn ask_human(
        &self,
        call: &ModelToolCall,
        prepared: &PreparedCall,
        arguments: &str,
        reason: &AskReason,
    ) -> Result<Result<(), ToolCallResult>, TurnFailure> {
        let id = ParkId(self.runtime.clock.new_id());
        let park = match self.turn.parks.park_call(id, prepared.digest()) {
            Ok(park) => park,
            Err(error) => {
                self.announce(call, arguments.to_owned());
                return Ok(Err(ToolCallResult::denied(error.to_string())));
            }
        };
        let question = WriteConfirmation {
            tool_name: call.name.clone(),
            action_description: confirmation::question(prepared, reason, &self.runtime.config.limits),
        };
        let chunk = tool_call_chunk(call, arguments.to_owned());
        let count = |decision, waited| self.runtime.metrics.approval(decision, waited);
        let end = self.wait_for(park, [Event::WriteConfirmationRequired(question), chunk], count).await?;
        Ok(confirmation::settle(&call.name, end))
    }

    /// Asks, and waits for the answer. The question comes before the chunk, and nothing between the two, although an
    /// answer may come at once; a client shows the chunk as what the question is about.
    async fn wait_for<A: Decision>(
        &self,
        park: Park<A>,
        question_and_chunk: [Event; 2],
        count: impl FnOnce(&'static str, Duration),
    ) -> Result<ParkEnd<A>, TurnFailure> {
        let asked = Instant::now();
        self.turn.log.append_all(question_and_chunk);
        let attended = self.runtime.attendance.watch(self.turn.ids.conversation);
        let limits = confirmation::confirmation_limits(&self.runtime.config.limits, self.turn.dialect.resume);
        let end = self.turn.unless_cancelled(park.wait(limits, attended)).await;
        count(end.as_ref().map_or("cancelled", ParkEnd::decision), asked.elapsed());
        end
    }

    async fn ask_hooks(&self, prepared: &PreparedCall) -> Result<(), String> {
        if self.runtime.hooks.is_empty() {
            return Ok(());
        }
        let arguments = Value::Object(prepared.arguments.clone());
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
        let arguments = if self.runtime.hooks.is_empty() { Map::new() } else { prepared.arguments.clone() };
        let began = Instant::now();
        let result = self.runtime.tools.caller.run(prepared, setup).await;
        self.runtime.metrics.tool_ran(began.elapsed(), result.text.len(), result.cut_bytes);
        if result.outcome == CallOutcome::Cancelled {
            return Err(TurnFailure::Cancelled);
        }
        self.tell_hooks(call, &arguments, &result).await?;
        Ok(result)
    }

    async fn tell_hooks(
        &self,
        call: &ModelToolCall,
        arguments: &Map<String, Value>,
        result: &ToolCallResult,
    ) -> Result<(), TurnFailure> {
        if self.runtime.hooks.is_empty() {
            return Ok(());
        }
        let arguments = Value::Object(arguments.clone());
        let (conversation, session) = self.turn.ids.texts();
        for hook in &self.runtime.hooks {
            let seen = HookedCall::new(&call.name, &arguments, &conversation, &session);
            self.turn.unless_cancelled(hook.after(seen, &result.text, result.is_error)).await?;
        }
        Ok(())
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

/// All names that the tool of a call goes by.
fn names(prepared: &PreparedCall) -> [&str; 2] {
    let facts = &prepared.tool.facts;
    [&facts.wire_name, &facts.name]
}

fn tool_call_chunk(call: &ModelToolCall, arguments: String) -> Event {
    Event::StreamChunk(StreamChunk::ToolCall { name: call.name.clone(), arguments })
}

/// The model's argument text where it is an object; clients parse what they are shown, and the result of a call whose
/// arguments are broken says so anyway.
fn object_text(arguments: &str) -> String {
    let is_object = serde_json::from_str::<Map<String, Value>>(arguments).is_ok();
    if is_object { arguments.to_owned() } else { "{}".to_owned() }
}
