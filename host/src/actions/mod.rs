//! What a client can ask, one file per action, and the one list of them all. An action checks, looks up, answers; what
//! takes long (a turn) runs in a task of its own.

mod cancel;
mod confirm_tool;
mod connection;
mod create_session;
mod drafts;
mod get_session;
mod list_conversations;
mod list_messages;
mod rename_conversation;
mod resume_turn;
mod send_message;
mod submit_interaction;
mod verify_otp;
mod visible;
mod widget;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

pub(crate) use connection::Connection;
use drafts::{Draft, Drafts};

use crate::{
    auth::{AuthVerifier, WidgetAuth},
    clock::SharedClock,
    config::ServerConfig,
    ids::RequestId,
    outgoing::Subscriptions,
    protocol::{Action, ActionError, ErrorCode, Event, EventFrame, Frame, ResponseData},
    storage::{SharedStorage, StorageError},
    turn::{KnowledgeChatRuntime, TurnRegistry},
};

/// What actions may use.
pub(crate) struct Services {
    /// Runs turns.
    pub(crate) runtime: Arc<KnowledgeChatRuntime>,
    /// Knows which run.
    pub(crate) turns: TurnRegistry,
    /// Their tasks; closed when the server stops, so that no new one starts.
    pub(crate) turn_tasks: TaskTracker,
    /// Creates that nobody has used yet.
    pub(crate) drafts: Drafts,
    /// Who hears what is published.
    pub(crate) subscriptions: Subscriptions,
    /// Which pages may embed which agent.
    pub(crate) widgets: Arc<dyn WidgetAuth>,
    auth: Arc<dyn AuthVerifier>,
}

impl Services {
    pub(crate) fn new(
        runtime: Arc<KnowledgeChatRuntime>,
        auth: Arc<dyn AuthVerifier>,
        widgets: Arc<dyn WidgetAuth>,
    ) -> Arc<Self> {
        let limits = &runtime.config.limits;
        let (turns, drafts) = (TurnRegistry::new(limits), Drafts::new(limits.unused_sessions));
        let (turn_tasks, subscriptions) = (TaskTracker::new(), Subscriptions::default());
        Arc::new(Self { runtime, turns, turn_tasks, drafts, subscriptions, widgets, auth })
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.runtime.config
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.runtime.clock
    }

    pub(crate) fn storage(&self) -> &SharedStorage {
        &self.runtime.storage
    }

    pub(crate) fn auth(&self) -> &Arc<dyn AuthVerifier> {
        &self.auth
    }

    /// The organisation that the caller acts for.
    pub(crate) fn org_of(&self, connection: &Connection) -> String {
        connection.caller.org_id(&self.config().org_id).to_owned()
    }

    /// Stores a create that is used now.
    async fn write(&self, draft: &Draft) -> Result<(), StorageError> {
        self.drafts.write(draft, &**self.storage(), self.clock().now()).await
    }

    /// An event with the current time.
    pub(crate) fn frame(&self, request_id: Option<RequestId>, event: Event) -> EventFrame {
        EventFrame::new(request_id, self.clock().now().as_millisecond(), event)
    }
}

/// Why an action was not done: a code for the client's program, a sentence for its author.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        tracing::error!(%error, "the storage failed");
        Self::new(ErrorCode::StorageError, error.to_string())
    }
}

/// What an action answers when it has not answered already.
type Outcome = Result<Option<Event>, Refusal>;

/// Handles one text frame to its direct answer. A turn that it starts goes on in its own task.
pub(crate) async fn handle(services: &Arc<Services>, connection: &mut Connection, text: &str) {
    let frame = match Action::parse(text) {
        Ok(frame) => frame,
        Err(error) => return refuse(services, connection, error),
    };
    let Frame { request_id, action } = frame;
    match dispatch(services, connection, request_id.clone(), action).await {
        Ok(Some(event)) => connection.send(services.frame(request_id, event)),
        Ok(None) => {}
        Err(Refusal { code, message }) => refuse(services, connection, ActionError { code, message, request_id }),
    }
}

/// Refuses a frame that is not text.
pub(crate) fn refuse_binary(services: &Services, connection: &Connection) {
    let message = "binary frames are not part of this protocol; send one JSON object per text frame".to_owned();
    refuse(services, connection, ActionError { code: ErrorCode::ValidationError, message, request_id: None });
}

fn refuse(services: &Services, connection: &Connection, error: ActionError) {
    connection.send(error.into_event(services.clock().now().as_millisecond()));
}

async fn dispatch(
    services: &Arc<Services>,
    connection: &mut Connection,
    request_id: Option<RequestId>,
    action: Action,
) -> Outcome {
    match action {
        Action::Ping => Ok(Some(Event::Pong)),
        Action::CreateSession(create) => create_session::run(services, connection, create).await,
        Action::GetSession(get) => get_session::run(services, connection, get).await,
        Action::ListMessages(list) => list_messages::run(services, connection, list).await,
        Action::ListConversations(list) => list_conversations::run(services, connection, list).await,
        Action::RenameConversation(rename) => rename_conversation::run(services, connection, rename).await,
        Action::SendMessage(message) => send_message::run(services, connection, message).await,
        Action::Cancel(cancel) => cancel::run(services, connection, request_id, cancel).await,
        Action::ConfirmTool(confirm) => confirm_tool::run(services, connection, request_id, confirm).await,
        Action::SubmitInteraction(submit) => submit_interaction::run(services, connection, request_id, submit).await,
        Action::VerifyOtp(verify) => verify_otp::run(services, connection, verify).await,
        Action::ResumeTurn(resume) => resume_turn::run(services, connection, request_id, resume).await,
    }
}

/// An `immediate_response`.
fn done(data: ResponseData) -> Outcome {
    Ok(Some(Event::ImmediateResponse(data)))
}
