//! The built-in tools through which a model asks the user, as one session gets them.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolSchema};
use serde_json::{Value, json};

use super::{
    Accepted, Form, InteractionKind,
    submit::{SUBMIT_TOOL, SubmitTool},
};
use crate::{
    ids::{ConversationId, SessionId},
    storage::{OTP_VERIFIED, Session, SharedStorage, StorageError, contact_entries},
    tools::{BuiltIn, Origin, PreparedCall},
};

/// How one session is asked. Made anew for each turn, because what its client can show is read each time.
#[derive(Clone)]
pub(crate) struct Interactions {
    session: SessionId,
    conversation: ConversationId,
    /// The kinds that its client can show.
    shown: Vec<InteractionKind>,
    storage: SharedStorage,
    /// Longest text of the user's own in a form, in characters.
    pub(super) chars_max: usize,
}

impl Interactions {
    /// For this session as it is now. `chars_max` is `Limits::interaction_chars`.
    pub(crate) fn of(session: &Session, storage: SharedStorage, chars_max: usize) -> Self {
        let can_show = |kind: &InteractionKind| session.supports.iter().any(|flag| flag == kind.capability());
        let shown = InteractionKind::ALL.into_iter().filter(can_show).collect();
        Self { session: session.id, conversation: session.conversation_id, shown, storage, chars_max }
    }

    /// The tools: one for each kind, and where a kind has to be asked in prose the one that takes the answer.
    pub(crate) fn tools(&self) -> Vec<BuiltIn> {
        let raise = |kind| BuiltIn {
            schema: raise_schema(kind).clone(),
            tool: Arc::new(RaiseTool { kind, interactions: self.clone() }),
        };
        let mut tools: Vec<BuiltIn> = InteractionKind::ALL.map(raise).into();
        let in_prose: Vec<_> = InteractionKind::ALL.into_iter().filter(|kind| !self.shown.contains(kind)).collect();
        if !in_prose.is_empty() {
            tools.push(SubmitTool::offer(&in_prose, self.clone()));
        }
        tools
    }

    /// A list of allowed tools, and with each tool that asks in prose the one that takes the answer. An empty list
    /// restricts nothing and stays empty.
    pub(crate) fn with_answers<'a>(&self, allowed: &'a [String]) -> Cow<'a, [String]> {
        let asks_in_prose = |name: &String| {
            InteractionKind::ALL.iter().any(|kind| kind.raise_tool() == name && !self.shown.contains(kind))
        };
        if !allowed.iter().any(asks_in_prose) || allowed.iter().any(|name| name == SUBMIT_TOOL) {
            return Cow::Borrowed(allowed);
        }
        allowed.iter().cloned().chain([SUBMIT_TOOL.to_owned()]).collect()
    }

    /// The form that a call asks the client to show; `None` when the call is none of ours, or the client cannot.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments, for the model.
    pub(crate) fn form_of(&self, call: &PreparedCall) -> Option<Result<Form, String>> {
        let facts = &call.tool.facts;
        // A tool that took the place of ours is not ours.
        if facts.origin != Origin::BuiltIn {
            return None;
        }
        let kind = self.shown.iter().find(|kind| kind.raise_tool() == facts.wire_name)?;
        Some(Form::read(*kind, &call.arguments))
    }

    /// Writes accepted values into the session; only an identity leaves something there.
    pub(super) async fn remember_values(&self, accepted: &Accepted) -> Result<(), StorageError> {
        remember_identity(&self.storage, self.session, accepted).await
    }

    /// The form that was asked in prose last.
    pub(super) async fn asked_form(&self, kind: InteractionKind) -> Result<Option<Form>, StorageError> {
        let conversation = self.storage.conversation(self.conversation).await?;
        let asked = conversation.and_then(|mut conversation| conversation.metadata.remove(&asked_key(kind)));
        Ok(asked.and_then(|spec| Form::read(kind, spec.as_object()?).ok()))
    }

    /// Remembers what is asked in prose, or that nothing is any more. The answer comes with a later turn, and perhaps
    /// through another session.
    pub(super) async fn remember_form(&self, kind: InteractionKind, form: Option<&Form>) -> Result<(), StorageError> {
        self.storage.set_conversation_metadata(self.conversation, &asked_key(kind), form.map(Form::spec)).await
    }
}

/// Writes who the user is into a session's metadata. Another contact than before takes back that it was verified.
pub(crate) async fn remember_identity(
    storage: &SharedStorage,
    session: SessionId,
    accepted: &Accepted,
) -> Result<(), StorageError> {
    let Accepted::Identity(identity) = accepted else { return Ok(()) };
    let before = storage.session(session).await?.ok_or(StorageError::Gone { what: "session" })?.contact();
    let (name, email, phone) = (identity.name.as_deref(), identity.email.as_deref(), identity.phone.as_deref());
    let is_new = |given: Option<&str>, known: Option<&str>| given.is_some() && given != known;
    let mut entries = contact_entries(name, email, phone);
    if is_new(email, before.email.as_deref()) || is_new(phone, before.phone.as_deref()) {
        entries.insert(OTP_VERIFIED.to_owned(), false.into());
    }
    storage.merge_session_metadata(session, entries).await
}

/// Under this key a conversation's metadata holds the form that was asked in prose.
fn asked_key(kind: InteractionKind) -> String {
    format!("askedInProse:{}", kind.as_str())
}

/// Asks. What stands here is the way of a client that cannot show the form; the other one is the turn's.
struct RaiseTool {
    kind: InteractionKind,
    interactions: Interactions,
}

#[async_trait]
impl Tool for RaiseTool {
    fn schema(&self) -> ToolSchema {
        ToolSchema::clone(raise_schema(self.kind))
    }

    async fn execute(&self, arguments: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        let Value::Object(arguments) = arguments else {
            return Err(ToolError::InvalidArguments("the arguments must be an object".to_owned()));
        };
        let form = Form::read(self.kind, &arguments).map_err(ToolError::InvalidArguments)?;
        self.interactions.remember_form(self.kind, Some(&form)).await?;
        let kind = self.kind.as_str();
        let instructions = format!(
            "The user's client cannot show a form. Ask for this in your reply, in your own words and the user's language, \
             and end the turn. When the user has answered, call {SUBMIT_TOOL} with kind \"{kind}\" and {}. When the user \
             would rather not say, call it with declined true.",
            values_hint(self.kind)
        );
        Ok(json!({
            "mode": "conversational", "kind": kind, "spec": form.spec(), "reason": form.reason,
            "instructions": instructions,
        })
        .into())
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

/// The shape of a kind's values, in words.
pub(super) fn values_hint(kind: InteractionKind) -> &'static str {
    match kind {
        InteractionKind::IdentityIntake => "values {\"name\"?, \"email\"?, \"phone\"?}",
        InteractionKind::Choices => "values {\"answers\": [{\"header\", \"options\"?: [label], \"other\"?: text}]}",
    }
}

fn raise_schema(kind: InteractionKind) -> &'static Arc<ToolSchema> {
    static IDENTITY: LazyLock<Arc<ToolSchema>> = LazyLock::new(identity_schema);
    static CHOICES: LazyLock<Arc<ToolSchema>> = LazyLock::new(choices_schema);
    match kind {
        InteractionKind::IdentityIntake => &IDENTITY,
        InteractionKind::Choices => &CHOICES,
    }
}

const REASON: &str = "why you ask, in a few words, for the user to read";

fn identity_schema() -> Arc<ToolSchema> {
    let key = json!({"type": "string", "enum": ["name", "email", "phone"]});
    let field = json!({
        "type": "object",
        "properties": {
            "key": key,
            "required": {"type": ["boolean", "null"], "description": "default true"},
            "label": {"type": ["string", "null"], "description": "what to call the field, in the user's language"},
        },
        "required": ["key"],
    });
    let parameters = json!({
        "type": "object",
        "properties": {
            "fields": {
                "type": "array", "minItems": 1, "maxItems": 3, "items": {"anyOf": [key, field]},
                "description": "what to ask for; a key alone is required",
            },
            "reason": {"type": ["string", "null"], "description": REASON},
        },
        "required": ["fields"],
    });
    let description = "Asks the user for their name, email address or telephone number, and returns what they filled in. \
                       Use it when you need to know who they are or how to reach them, instead of asking in prose.";
    Arc::new(ToolSchema::new(InteractionKind::IdentityIntake.raise_tool(), description, parameters))
}

fn choices_schema() -> Arc<ToolSchema> {
    let option = json!({"anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"label": {"type": "string"}, "description": {"type": ["string", "null"]}},
            "required": ["label"],
        },
    ]});
    let question = json!({
        "type": "object",
        "properties": {
            "question": {"type": "string"},
            "header": {"type": "string", "description": "its short name, at most 12 characters, a different one for each"},
            "options": {"type": "array", "minItems": 2, "maxItems": 4, "items": option},
            "multiSelect": {"type": ["boolean", "null"], "description": "whether several may be chosen; default false"},
        },
        "required": ["question", "header", "options"],
    });
    let parameters = json!({
        "type": "object",
        "properties": {
            "questions": {"type": "array", "minItems": 1, "maxItems": 4, "items": question},
            "reason": {"type": ["string", "null"], "description": REASON},
        },
        "required": ["questions"],
    });
    let description = "Asks the user to choose between a few options, and returns what they chose; they may also write an \
                       answer of their own. Use it when the next step depends on a choice that is theirs.";
    Arc::new(ToolSchema::new(InteractionKind::Choices.raise_tool(), description, parameters))
}
