//! Runs one turn: history, knowledge, tools, prompt, model, reply. The parent function is the table of contents; what
//! each step does is in the file of its name.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, StreamExt};
use jackfield_plugin_api::{Access, FileAttachment, ImageAttachment, ToolProviderContext};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::Instrument;

use super::{
    agents::{AgentUnavailable, Agents},
    attendance::Attendance,
    character::Character,
    citations, history,
    hooks::ToolHook,
    prompt::{self, PromptComposer, PromptContext},
    reading::ReplyReading,
    registry::{RunningTurn, TurnGuard},
    skills::{Skill, SkillResolver},
    tool_calls::ToolPhase,
    transcript::{ModelReply, Transcript},
    turn_tools::TurnTools,
};
use crate::{
    auth::Principal,
    clock::SharedClock,
    config::ServerConfig,
    ids::MessageId,
    knowledge::{Hit, KnowledgeBase, Requester},
    metrics::{Metrics, Spent},
    model::{ModelClient, ModelError, ModelImage, ModelMessage, ModelRequest},
    otp::OtpDesk,
    protocol::{ErrorCode, Event, objects::Answer},
    storage::{
        ConversationPin, Direction, Message, MessagesBefore, OrgSettings, ParticipantKind, ParticipantRef, Session,
        SharedStorage, StorageError, StoredImage, TurnErrorMark, USER_NAME,
    },
    tools::{HitSink, Interactions, ToolSet},
};

/// What a turn is about: one accepted user message.
pub(crate) struct TurnRequest {
    /// The session it came through.
    pub(crate) session: Session,
    /// What the user wrote; may be empty when something is attached.
    pub(crate) text: String,
    /// Pictures, shown to the model.
    pub(crate) images: Vec<ImageAttachment>,
    /// Files, handed to tools only.
    pub(crate) files: Vec<FileAttachment>,
    /// The model for this turn only.
    pub(crate) model: Option<String>,
    /// Instructions that the message asks for by name.
    pub(crate) skill: Option<Skill>,
    /// Whether tokens are sent as they come.
    pub(crate) stream: bool,
    /// The verified caller.
    pub(crate) principal: Option<Principal>,
    /// What the session's organisation has set.
    pub(crate) org_settings: Option<Arc<OrgSettings>>,
}

/// What a turn came to.
struct Done {
    answer: Answer,
    /// The first thing the visitor said, when nothing of the conversation was answered before.
    opening: Option<String>,
}

/// Why a turn ended without a reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnFailure {
    /// Somebody stopped it, and has said so to whoever listens.
    #[error("the turn was cancelled")]
    Cancelled,
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The conversation could not be read or written.
    #[error("the conversation could not be read or written")]
    Storage(#[from] StorageError),
    /// The embedding program could not say what the agent is. Its reason is for the log.
    #[error("the agent's configuration could not be read")]
    Agent(#[source] AgentUnavailable),
}

/// How a turn ended, as it is counted.
#[derive(Clone, Copy)]
enum TurnOutcome {
    Completed,
    Cancelled,
    Failed,
}

impl TurnOutcome {
    fn as_str(self) -> &'static str {
        match self {
            TurnOutcome::Completed => "completed",
            TurnOutcome::Cancelled => "cancelled",
            TurnOutcome::Failed => "failed",
        }
    }
}

/// Model events that are passed on at a time; more than one read from the gateway usually holds.
const EVENTS_PER_BATCH: usize = 256;

/// What the record of a failed turn says in the history. The details go to the client and to the log.
const FAILED_TURN_TEXT: &str = "Sorry, something went wrong and I could not answer.";

/// Runs turns. One object serves all of them; it holds what a turn may use and nothing of any single turn.
pub struct KnowledgeChatRuntime {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) clock: SharedClock,
    pub(crate) storage: SharedStorage,
    pub(crate) knowledge: Arc<KnowledgeBase>,
    /// `None` without a gateway key: no turn can start then.
    pub(crate) model: Option<Arc<dyn ModelClient>>,
    pub(crate) tools: TurnTools,
    pub(crate) hooks: Vec<Arc<dyn ToolHook>>,
    pub(crate) skills: Arc<dyn SkillResolver>,
    pub(crate) composer: Option<Arc<dyn PromptComposer>>,
    pub(crate) agents: Agents,
    /// `None` when nobody delivers codes.
    pub(crate) otp: Option<OtpDesk>,
    pub(crate) attendance: Attendance,
    pub(crate) metrics: Metrics,
}

impl KnowledgeChatRuntime {
    /// Runs an accepted turn to its terminal event. Never fails: whatever happens inside becomes that event.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the turn with an error event and frees its slots.
    pub(crate) async fn run(&self, guard: TurnGuard, request: TurnRequest) {
        let turn = guard.turn();
        // However full the storage gets meanwhile, the conversation that is being answered stays.
        let _pin = ConversationPin::new(self.storage.clone(), turn.ids.conversation);
        let span = tracing::info_span!("turn", id = %turn.ids.turn, conversation = %turn.ids.conversation);
        async {
            let work = AssertUnwindSafe(self.answer(turn, &request)).catch_unwind();
            let outcome = match self.keeping_alive(turn, work).await {
                Ok(Ok(done)) => self.complete(turn, &request, done).await,
                Ok(Err(TurnFailure::Cancelled)) => TurnOutcome::Cancelled,
                Ok(Err(failure)) => {
                    if let TurnFailure::Agent(reason) = &failure {
                        tracing::error!(%reason, "the embedding program could not say what the agent is");
                    }
                    self.fail(turn, &request, failure.to_string()).await
                }
                Err(_) => self.fail(turn, &request, "the turn failed inside the server".to_owned()).await,
            };
            self.metrics.turn_ended(outcome.as_str(), turn.stopwatch.elapsed());
            if let Some(after) = turn.stopwatch.first_text() {
                self.metrics.first_token(after);
            }
        }
        .instrument(span)
        .await;
    }

    /// From the user's message to the reply, or to the reason why there is none.
    async fn answer(&self, turn: &Arc<RunningTurn>, request: &TurnRequest) -> Result<Done, TurnFailure> {
        let mut preamble = self.start_preamble(turn, request);
        let history = self.read_history(request).await?;
        self.store_message(request).await?;
        let opening = history::unanswered_opening(&history, &request.text);
        let agent = turn.unless_cancelled(self.agents.of(&request.session)).await?.map_err(TurnFailure::Agent)?;
        let character = Character {
            agent: &agent,
            org: request.org_settings.as_deref(),
            config: &self.config,
            named_model: request.model.as_deref(),
        };
        let context = Arc::new(self.provider_context(turn, request, character));
        let cited = HitSink::default();
        let interactions =
            Interactions::of(&request.session, self.storage.clone(), self.config.limits.interaction_chars);
        let mut built_in = self.tools.built_in(self.knowledge.clone(), self.requester(request), cited.clone());
        built_in.extend(interactions.tools());
        let allowed = interactions.with_answers(character.allowed_tools());
        // Plugins and an embedding model may each take their time, so they take it together.
        let prepared =
            async { tokio::join!(self.tools.for_turn(&context, &built_in, &allowed), self.retrieve(request)) };
        let ((tools, _leases), hits) = turn.unless_cancelled(prepared).await?;
        cited.add(&hits);
        let mut transcript = Transcript::new(self.opening(&context, request, character, history, &hits));
        let mut phase = ToolPhase::new(self, turn, &tools, &interactions, &agent, &context);

        let max_iterations = character.max_iterations();
        for iteration in 1..=max_iterations {
            let is_last = iteration == max_iterations || phase.is_stuck();
            let reply = self.ask(turn, request, character.model(), &transcript, &tools, is_last).await?;
            if iteration == 1 {
                // What the model does from now on is seen; a word of waiting would come too late.
                drop(preamble.take());
            }
            let calls = transcript.push_reply(reply);
            if calls.is_empty() || is_last {
                break;
            }
            phase.run_all(&mut transcript, calls).await?;
        }
        if let Some(tool) = phase.wants_verification() {
            self.offer_verification(turn, tool).await?;
        }
        let answer = Answer {
            suggested_next_actions: transcript.suggestions().to_vec(),
            usage: transcript.usage(),
            citations: citations::from_hits(&cited.take()),
            directive: context.directive_sink.take(),
            ..Answer::text(MessageId(self.clock.new_id()), transcript.reply_text())
        };
        Ok(Done { answer, opening })
    }

    async fn read_history(&self, request: &TurnRequest) -> Result<Vec<ModelMessage>, StorageError> {
        let newest = self.config.limits.history_messages;
        let page = self.storage.messages(request.session.conversation_id, MessagesBefore::Newest, newest).await?;
        Ok(history::to_model(page.map(|page| page.rows).unwrap_or_default()))
    }

    async fn store_message(&self, request: &TurnRequest) -> Result<(), StorageError> {
        let image = |image: &ImageAttachment| StoredImage { url: image.url.clone(), detail: image.detail.clone() };
        let sender = ParticipantRef {
            id: request.session.user_participant_id,
            kind: ParticipantKind::User,
            name: request.session.metadata.get(USER_NAME).and_then(|name| name.as_str()).map(str::to_owned),
        };
        let message = Message {
            id: MessageId(self.clock.new_id()),
            images: request.images.iter().map(image).collect(),
            turn_error: None,
            ..self.message(request, Direction::Inbound, request.text.clone(), sender)
        };
        self.storage.append_message(message).await
    }

    /// The passages that fit the message. A knowledge base that fails costs the citations, not the turn.
    async fn retrieve(&self, request: &TurnRequest) -> Vec<Hit> {
        let limit = self.config.limits.knowledge_hits;
        let began = Instant::now();
        let found = self.knowledge.search(&self.requester(request), &request.text, limit).await;
        self.metrics.retrieved(began.elapsed());
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "the knowledge base could not be searched");
            Vec::new()
        })
    }

    /// Whose documents the turn may find.
    pub(super) fn requester(&self, request: &TurnRequest) -> Requester {
        let principal = request.principal.as_ref();
        Requester {
            org_id: request.session.org_id.clone(),
            user_id: principal.map(|principal| principal.user_id.clone()),
            groups: principal.map(|principal| principal.groups.clone()).unwrap_or_default(),
        }
    }

    fn provider_context(
        &self,
        turn: &RunningTurn,
        request: &TurnRequest,
        character: Character<'_>,
    ) -> ToolProviderContext {
        let requester = self.requester(request);
        let mut access = Access::default();
        access.user_id = requester.user_id;
        access.groups = requester.groups;
        access.organization_id = Some(requester.org_id.clone());
        access.agent_id = Some(request.session.agent_id.clone());
        let mut context = ToolProviderContext::default();
        context.org_id = Some(requester.org_id);
        context.access = access;
        context.conversation_id = Some(turn.ids.conversation.to_string());
        context.session_id = Some(turn.ids.session.to_string());
        context.turn_id = Some(turn.ids.turn.to_string());
        context.model = Some(character.model().to_owned());
        context.user_message = request.text.clone();
        context.tool_specific_config = character.agent.tool_config.clone();
        context.images = request.images.clone();
        context.files = request.files.clone();
        context.gateway_key = self.config.gateway_key.clone();
        context
    }

    /// What the first model call is shown.
    fn opening(
        &self,
        context: &ToolProviderContext,
        request: &TurnRequest,
        character: Character<'_>,
        history: Vec<ModelMessage>,
        hits: &[Hit],
    ) -> Vec<ModelMessage> {
        let prompt = self.system_prompt(context, request, character, !history.is_empty());
        let mut messages = vec![ModelMessage::System(prompt)];
        messages.extend(prompt::knowledge(hits).map(ModelMessage::System));
        messages.extend(history);
        let image = |image: &ImageAttachment| ModelImage { url: image.url.clone(), detail: image.detail.clone() };
        messages.push(ModelMessage::User {
            text: prompt::user_text(&request.text, &request.images, &request.files),
            images: request.images.iter().map(image).collect(),
        });
        messages
    }

    /// One model call, counted however it ends.
    async fn ask(
        &self,
        turn: &RunningTurn,
        request: &TurnRequest,
        model_name: &str,
        transcript: &Transcript,
        tools: &ToolSet,
        is_last: bool,
    ) -> Result<ModelReply, TurnFailure> {
        let reply = self.stream(turn, request, model_name, transcript, tools, is_last).await;
        let (outcome, spent) = match &reply {
            Ok(reply) => ("completed", reply.usage.into()),
            Err(TurnFailure::Model(error)) => (error.kind(), Spent::default()),
            Err(TurnFailure::Cancelled | TurnFailure::Storage(_) | TurnFailure::Agent(_)) => {
                ("cancelled", Spent::default())
            }
        };
        let provider = if self.config.is_offline() { "offline" } else { "gateway" };
        self.metrics.model_call(provider, model_name, outcome, spent);
        reply
    }

    /// Streams the text of one model call to the client and returns the whole.
    async fn stream(
        &self,
        turn: &RunningTurn,
        request: &TurnRequest,
        model_name: &str,
        transcript: &Transcript,
        tools: &ToolSet,
        is_last: bool,
    ) -> Result<ModelReply, TurnFailure> {
        let model = self.model.as_ref().expect("a turn is accepted only when there is a model");
        let messages = if is_last {
            prompt::with_last_call_reminder(transcript.messages())
        } else {
            transcript.messages().to_vec()
        };
        let model_request = ModelRequest {
            model: model_name.to_owned(),
            messages,
            tools: tools.model_tools(),
            max_tokens: self.config.max_tokens,
            temperature: self.config.temperature,
            stream: true,
        };
        let stream = turn.unless_cancelled(model.stream(model_request)).await??;
        // What came in one read from the gateway leaves as one batch: one lock and one wake-up for all of it.
        let mut batches = stream.ready_chunks(EVENTS_PER_BATCH);
        let mut reading = ReplyReading::new(request.stream);
        let mut told = Vec::new();
        while let Some(batch) = turn.unless_cancelled(batches.next()).await? {
            let outcome = batch.into_iter().try_for_each(|event| {
                told.extend(reading.take(event?));
                Ok::<_, ModelError>(())
            });
            turn.log.append_all(told.drain(..));
            if reading.has_text() {
                turn.stopwatch.text();
            }
            outcome?;
        }
        let (reply, rest) = reading.finish();
        turn.log.append_all(rest);
        if !reply.text.is_empty() {
            turn.stopwatch.text();
        }
        Ok(reply)
    }

    fn system_prompt(
        &self,
        context: &ToolProviderContext,
        request: &TurnRequest,
        character: Character<'_>,
        has_history: bool,
    ) -> String {
        let (persona, persona_origin) = character.persona();
        let sections = prompt::sections(&prompt::Sections {
            persona: &persona,
            greeting: &character.greeting(has_history),
            skill: request.skill.as_ref().map(|skill| (skill.name.as_str(), skill.body.as_str())),
            ..prompt::Sections::default()
        });
        let Some(composer) = &self.composer else { return prompt::system(&sections) };
        let told = PromptContext {
            persona_origin,
            agent: character.agent,
            access: &context.access,
            session_is_verified: request.session.is_verified(),
            conversation_id: context.conversation_id.as_deref().unwrap_or_default(),
        };
        prompt::system(&composer.compose(sections, told))
    }

    /// Stores the reply and titles the conversation, then ends the turn with the reply.
    async fn complete(&self, turn: &RunningTurn, request: &TurnRequest, Done { answer, opening }: Done) -> TurnOutcome {
        if !turn.claim_end() {
            return TurnOutcome::Cancelled;
        }
        if !answer.text.is_empty() {
            let message = Message {
                id: answer.message_id,
                ..self.message(request, Direction::Outbound, answer.text.clone(), self.agent(request))
            };
            if let Err(error) = self.storage.append_message(message).await {
                tracing::error!(%error, "the reply could not be stored");
                turn.finish(Event::error(ErrorCode::StorageError, "the reply could not be stored"));
                return TurnOutcome::Failed;
            }
        }
        if let Some(opening) = opening {
            self.title(turn.ids.conversation, &opening, &answer.text).await;
        }
        turn.finish(Event::EventualResponse(Box::new(answer)));
        TurnOutcome::Completed
    }

    /// Leaves a record of the failure in the history, then ends the turn with an error.
    async fn fail(&self, turn: &RunningTurn, request: &TurnRequest, message: String) -> TurnOutcome {
        if !turn.claim_end() {
            return TurnOutcome::Cancelled;
        }
        tracing::warn!(error = %message, "the turn failed");
        let mark =
            TurnErrorMark { code: ErrorCode::AgentError.as_str().to_owned(), request_id: turn.ids.request.to_string() };
        let record = Message {
            turn_error: Some(mark),
            ..self.message(request, Direction::Outbound, FAILED_TURN_TEXT.to_owned(), self.agent(request))
        };
        if let Err(error) = self.storage.append_message(record).await {
            tracing::error!(%error, "the record of a failed turn could not be stored");
        }
        turn.finish(Event::error(ErrorCode::AgentError, message));
        TurnOutcome::Failed
    }

    fn message(&self, request: &TurnRequest, direction: Direction, text: String, from: ParticipantRef) -> Message {
        Message {
            id: MessageId(self.clock.new_id()),
            conversation_id: request.session.conversation_id,
            direction,
            text: text.into(),
            images: Vec::new(),
            from: Some(from),
            turn_error: None,
            created_at: self.clock.now(),
        }
    }

    fn agent(&self, request: &TurnRequest) -> ParticipantRef {
        ParticipantRef {
            id: request.session.agent_participant_id,
            kind: ParticipantKind::AiAgent,
            name: Some(request.session.agent_name.clone()),
        }
    }

    /// Sends `keepalive` while the work goes on, so that nothing on the way takes the connection for dead.
    async fn keeping_alive<T>(&self, turn: &RunningTurn, work: impl Future<Output = T>) -> T {
        let period = self.config.limits.keepalive;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                _ = ticks.tick() => turn.log.pass_on(Event::Keepalive),
            }
        }
    }
}

impl RunningTurn {
    /// Awaits the future unless the turn is stopped first; then the future is dropped.
    pub(super) async fn unless_cancelled<T>(&self, future: impl Future<Output = T>) -> Result<T, TurnFailure> {
        if self.cancelled.is_cancelled() {
            return Err(TurnFailure::Cancelled);
        }
        // The future comes first: a model that streams fast is ready at once, and waiting for a cancel has a price.
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.cancelled.cancelled() => Err(TurnFailure::Cancelled),
        }
    }
}
