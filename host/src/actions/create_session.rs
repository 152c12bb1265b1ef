//! `create_conversation_session`: opens a session on a new conversation, or on one that exists.

use serde_json::{Map, Value};

use super::{Connection, Outcome, Refusal, Services, done, drafts::Draft, visible, widget};
use crate::{
    auth::Admission,
    ids::{ConversationId, ParticipantId, SessionId},
    protocol::{ErrorCode, ResponseData, action::CreateSession, capabilities, event::SessionReady},
    storage::{Conversation, PLACEHOLDER_PREFIX, Participant, ParticipantKind, Session, StorageError, contact_entries},
};

/// Under this key a conversation remembers what its clients can render.
const CLIENT_SUPPORTS: &str = "clientSupports";

/// What a visitor without a name is called.
const DEFAULT_VISITOR: &str = "Visitor";

pub(super) async fn run(services: &Services, connection: &mut Connection, create: CreateSession) -> Outcome {
    let admission = widget::admission(services, connection, &create).await?;
    let session = session_for(services, connection, &create, &admission).await.map_err(not_created)?;
    connection.attend(&services.runtime.attendance, session.conversation_id);
    connection.listen_to_session(&services.subscriptions, &session, services.config().limits.subscriptions);
    done(ResponseData::SessionReady(session_ready(&session)))
}

async fn session_for(
    services: &Services,
    connection: &Connection,
    create: &CreateSession,
    admission: &Admission,
) -> Result<Session, StorageError> {
    if let Some(unused) = visible::find_draft(services, connection, create.conversation_id) {
        // Two sessions use it from now on, so it outlives the connection that created it.
        services.write(&unused).await?;
    }
    let existing = visible::find_conversation(services, connection, create.conversation_id).await?;
    // An agent of one organisation goes on with no conversation of another.
    let of_agent =
        |conversation: &Conversation| admission.org_id.as_ref().is_none_or(|org_id| *org_id == conversation.org_id);
    match existing.filter(of_agent) {
        Some(conversation) => resume(services, connection, conversation, create, admission).await,
        None => open(services, connection, create, admission).await,
    }
}

fn not_created(error: StorageError) -> Refusal {
    tracing::error!(%error, "a session could not be created");
    Refusal::new(ErrorCode::InternalError, format!("the session could not be created: {error}"))
}

/// The ids of a session as the wire shows them.
pub(super) fn session_ready(session: &Session) -> SessionReady {
    SessionReady {
        session_id: session.id,
        conversation_id: session.conversation_id,
        agent_id: session.agent_id.clone(),
        agent_name: session.agent_name.clone(),
        user_participant_id: session.user_participant_id,
        agent_participant_id: session.agent_participant_id,
    }
}

/// A new conversation, its two participants and a session on it. Without anything that says who the visitor is, they
/// are stored only when they are used.
async fn open(
    services: &Services,
    connection: &Connection,
    create: &CreateSession,
    admission: &Admission,
) -> Result<Session, StorageError> {
    let clock = services.clock();
    let now = clock.now();
    let session_id = SessionId(clock.new_id());
    let supports = remembered(create.supports.as_deref().unwrap_or_default());
    let mut metadata = create.metadata.clone();
    if !supports.is_empty() {
        metadata.insert(CLIENT_SUPPORTS.to_owned(), supports.clone().into());
    }
    let conversation = Conversation {
        id: ConversationId(clock.new_id()),
        name: format!("{PLACEHOLDER_PREFIX}{session_id}"),
        org_id: admission.org_id.clone().unwrap_or_else(|| services.org_of(connection)),
        idempotency_key: session_id.to_string(),
        metadata,
        created_at: now,
        updated_at: now,
    };
    let visitor = visitor(services, connection, create, admission, conversation.id);
    let agent = agent(services, create, conversation.id);
    let session = session(services, session_id, &conversation, create, supports, [visitor.id, agent.id]);
    if visitor.email.is_some() || visitor.phone.is_some() {
        services.storage().create_conversation(conversation, vec![visitor, agent], session.clone()).await?;
    } else {
        let draft = Draft::new(conversation, vec![visitor, agent], session.clone(), connection.id);
        services.drafts.keep(draft, &**services.storage(), now).await?;
    }
    Ok(session)
}

/// A new session on an existing conversation. Participants that fit are used again, so that coming back often does not
/// make the list of them grow.
async fn resume(
    services: &Services,
    connection: &Connection,
    conversation: Conversation,
    create: &CreateSession,
    admission: &Admission,
) -> Result<Session, StorageError> {
    let storage = services.storage();
    let present = storage.participants(conversation.id).await?;
    let mut joining = Vec::new();
    let mut seat = |wanted: Participant| {
        let fits = |other: &&Participant| {
            (other.kind, &other.name, &other.email, &other.external_id)
                == (wanted.kind, &wanted.name, &wanted.email, &wanted.external_id)
        };
        match present.iter().find(fits) {
            Some(participant) => participant.id,
            None => {
                let id = wanted.id;
                joining.push(wanted);
                id
            }
        }
    };
    let visitor = seat(visitor(services, connection, create, admission, conversation.id));
    let agent = seat(agent(services, create, conversation.id));

    let supports = match &create.supports {
        None => stored_supports(&conversation.metadata),
        Some(declared) => {
            let supports = remembered(declared);
            let value = (!supports.is_empty()).then(|| supports.clone().into());
            storage.set_conversation_metadata(conversation.id, CLIENT_SUPPORTS, value).await?;
            supports
        }
    };
    let id = SessionId(services.clock().new_id());
    let session = session(services, id, &conversation, create, supports, [visitor, agent]);
    storage.add_session(session.clone(), joining).await?;
    Ok(session)
}

fn session(
    services: &Services,
    id: SessionId,
    conversation: &Conversation,
    create: &CreateSession,
    supports: Vec<String>,
    [user_participant_id, agent_participant_id]: [ParticipantId; 2],
) -> Session {
    let now = services.clock().now();
    let declared = create.supports.iter().flatten().filter(|flag| capabilities::is_per_session(flag));
    Session {
        id,
        conversation_id: conversation.id,
        org_id: conversation.org_id.clone(),
        agent_id: create.agent_id.clone(),
        agent_name: services.config().agent_name.clone(),
        user_participant_id,
        agent_participant_id,
        supports,
        declared: declared.cloned().collect(),
        metadata: contact(create),
        created_at: now,
        last_activity_at: now,
    }
}

fn visitor(
    services: &Services,
    connection: &Connection,
    create: &CreateSession,
    admission: &Admission,
    conversation: ConversationId,
) -> Participant {
    let principal = connection.caller.principal.as_ref();
    // A verified address wins over what the client says.
    let verified = principal.and_then(|principal| principal.email.clone()).filter(|email| !email.trim().is_empty());
    let email = verified.or_else(|| create.user_email.clone());
    Participant {
        id: ParticipantId(services.clock().new_id()),
        conversation_id: conversation,
        kind: ParticipantKind::User,
        external_id: admission.visitor_id.clone().or_else(|| principal.map(|principal| principal.user_id.clone())),
        email,
        phone: create.user_phone().map(str::to_owned),
        browser_fingerprint: create.browser_fingerprint.clone(),
        name: create.user_name.clone().unwrap_or_else(|| DEFAULT_VISITOR.to_owned()),
        created_at: services.clock().now(),
    }
}

fn agent(services: &Services, create: &CreateSession, conversation: ConversationId) -> Participant {
    Participant {
        id: ParticipantId(services.clock().new_id()),
        conversation_id: conversation,
        kind: ParticipantKind::AiAgent,
        external_id: Some(create.agent_id.clone()),
        email: None,
        phone: None,
        browser_fingerprint: None,
        name: services.config().agent_name.clone(),
        created_at: services.clock().now(),
    }
}

/// What the session knows of the visitor.
fn contact(create: &CreateSession) -> Map<String, Value> {
    contact_entries(create.user_name.as_deref(), create.user_email.as_deref(), create.user_phone())
}

/// The flags that a conversation remembers for those who come back.
fn remembered(declared: &[String]) -> Vec<String> {
    declared.iter().filter(|flag| !capabilities::is_per_session(flag)).cloned().collect()
}

fn stored_supports(metadata: &Map<String, Value>) -> Vec<String> {
    let stored = metadata.get(CLIENT_SUPPORTS).and_then(Value::as_array);
    stored.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
