//! Rich interactions: what a model can ask the user in the middle of a turn, and what counts as an answer.
//!
//! ```text
//!   model's arguments ──▶ Form (its spec is what a client shows) ──▶ user's values ──▶ Accepted, in normal form
//!          └── fault, for the model                                        └── errors, field by field
//! ```
//!
//! A session whose client can show a kind of form waits with it; that is the turn's business. For any other session the
//! tools of `raise` and `submit` lead the model through the same questions in prose. Both ways end in the same check.

mod choices;
mod identity;
mod raise;
mod submit;

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use self::{
    choices::{ChoicesForm, ChoicesValues},
    identity::{IdentityForm, IdentityValues},
};
use super::schema::type_name;
use crate::protocol::{capabilities, event::FieldError};

pub(crate) use raise::{Interactions, remember_identity};
pub(crate) use submit::SUBMIT_TOOL;

/// Faults of one answer that are told; nobody repairs more at once.
const ERRORS_MAX: usize = 16;

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum InteractionKind {
    /// Who are you?
    IdentityIntake,
    /// Which of these?
    Choices,
}

impl InteractionKind {
    /// All of them.
    pub(crate) const ALL: [InteractionKind; 2] = [InteractionKind::IdentityIntake, InteractionKind::Choices];

    /// The name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            InteractionKind::IdentityIntake => "identity_intake",
            InteractionKind::Choices => "choices",
        }
    }

    /// What a client that can show this form declares.
    pub(crate) fn capability(self) -> &'static str {
        match self {
            InteractionKind::IdentityIntake => capabilities::IDENTITY_FORM,
            InteractionKind::Choices => capabilities::CHOICE_CHIPS,
        }
    }

    /// The tool through which a model asks.
    pub(crate) fn raise_tool(self) -> &'static str {
        match self {
            InteractionKind::IdentityIntake => "request_identity_intake",
            InteractionKind::Choices => "request_choices",
        }
    }

    fn reason_by_default(self) -> &'static str {
        match self {
            InteractionKind::IdentityIntake => "so that we can help you better",
            InteractionKind::Choices => "so that we go on with what you want",
        }
    }
}

/// A form as a user is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Why it is asked, for the user.
    pub(crate) reason: String,
    questions: Questions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Questions {
    Identity(IdentityForm),
    Choices(ChoicesForm),
}

impl Form {
    /// Reads the arguments of a raise tool.
    ///
    /// # Errors
    ///
    /// What is wrong, for the model.
    pub(crate) fn read(kind: InteractionKind, arguments: &Map<String, Value>) -> Result<Self, String> {
        let reason = match arguments.get("reason") {
            Some(Value::String(reason)) if !reason.trim().is_empty() => reason.trim(),
            _ => kind.reason_by_default(),
        };
        let questions = match kind {
            InteractionKind::IdentityIntake => Questions::Identity(IdentityForm::read(arguments)?),
            InteractionKind::Choices => Questions::Choices(ChoicesForm::read(arguments)?),
        };
        Ok(Self { reason: reason.to_owned(), questions })
    }

    /// The form that answers are checked against when the model reports them without having asked; `None` for a kind
    /// that means nothing without its questions.
    fn open(kind: InteractionKind) -> Option<Self> {
        let questions = match kind {
            InteractionKind::IdentityIntake => Questions::Identity(IdentityForm::open()),
            InteractionKind::Choices => return None,
        };
        Some(Self { reason: String::new(), questions })
    }

    /// Which form it is.
    pub(crate) fn kind(&self) -> InteractionKind {
        match self.questions {
            Questions::Identity(_) => InteractionKind::IdentityIntake,
            Questions::Choices(_) => InteractionKind::Choices,
        }
    }

    /// What a client shows, in its normal form; [`read`](Self::read) takes it back.
    pub(crate) fn spec(&self) -> Value {
        match &self.questions {
            Questions::Identity(form) => json!(form),
            Questions::Choices(form) => json!(form),
        }
    }

    /// Checks what a user filled in, whatever JSON it is. `chars_max` bounds each text of their own.
    ///
    /// # Errors
    ///
    /// What is wrong, at least one entry.
    pub(crate) fn check(&self, values: &Value, chars_max: usize) -> Result<Accepted, Vec<FieldError>> {
        let mut wrong = Complaints::default();
        let accepted = match &self.questions {
            Questions::Identity(form) => Accepted::Identity(form.check(values, chars_max, &mut wrong)),
            Questions::Choices(form) => Accepted::Choices(form.check(values, chars_max, &mut wrong)),
        };
        wrong.into_errors().map_or(Ok(accepted), Err)
    }
}

/// Values that passed the check, in their normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Who the user is.
    Identity(IdentityValues),
    /// What the user chose.
    Choices(ChoicesValues),
}

impl Accepted {
    /// As JSON, for the client and the model.
    pub(crate) fn values(&self) -> Value {
        match self {
            Accepted::Identity(values) => json!(values),
            Accepted::Choices(values) => json!(values),
        }
    }
}

/// What the model reads of an interaction that ended.
pub(crate) enum InteractionOutcome {
    /// The user answered.
    Submitted(Accepted),
    /// The user would rather not say.
    Declined,
    /// Nobody answered in time.
    NoResponse,
}

impl InteractionOutcome {
    /// As the text of the tool's result.
    pub(crate) fn to_text(&self) -> String {
        let ended = |status: &str, message: &str| json!({ "status": status, "message": message });
        let outcome = match self {
            Self::Submitted(accepted) => json!({ "status": "submitted", "values": accepted.values() }),
            Self::Declined => ended(
                "declined",
                "The user does not want to answer. Accept that, go on without it as far as you can, and do not ask for it \
                 again unless the user brings it up.",
            ),
            Self::NoResponse => ended(
                "no_response",
                "The user did not answer in time. Go on without it, and say in a sentence what you still need.",
            ),
        };
        outcome.to_string()
    }
}

/// What is wrong with an answer.
#[derive(Debug, Default)]
struct Complaints(Vec<FieldError>);

impl Complaints {
    fn add(&mut self, field: impl Into<String>, message: impl Into<Cow<'static, str>>) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(FieldError { field: field.into(), message: message.into() });
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_errors(self) -> Option<Vec<FieldError>> {
        (!self.is_empty()).then_some(self.0)
    }
}

/// A text of the user's own, if it is not too long.
fn text_in(text: &str, chars_max: usize) -> Result<String, String> {
    match text.chars().count() {
        chars if chars > chars_max => Err(format!("must have at most {chars_max} characters, it has {chars}")),
        _ => Ok(text.to_owned()),
    }
}

fn type_of(value: &Value) -> String {
    format!("a JSON {}", type_name(value))
}

fn not_an_object(values: &Value) -> String {
    format!("must be an object with the answers, it is {}", type_of(values))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(kind: InteractionKind, arguments: Value) -> Form {
        Form::read(kind, arguments.as_object().unwrap()).unwrap()
    }

    #[test]
    fn a_reason_is_there_in_any_case() {
        let kind = InteractionKind::IdentityIntake;
        assert_eq!(read(kind, json!({"fields": ["email"], "reason": " to reply "})).reason, "to reply");
        for reason in [json!(null), json!(" "), json!(3)] {
            assert!(!read(kind, json!({"fields": ["email"], "reason": reason})).reason.is_empty());
        }
    }

    #[test]
    fn a_form_reads_back_from_its_spec() {
        let asked = [
            (InteractionKind::IdentityIntake, json!({"fields": ["email", {"key": "name", "required": false}]})),
            (
                InteractionKind::Choices,
                json!({"questions": [{"question": "Q?", "header": "H", "options": ["a", "b"]}]}),
            ),
        ];
        for (kind, arguments) in asked {
            let form = read(kind, arguments);
            assert_eq!(form.kind(), kind);
            assert_eq!(read(kind, form.spec()), form);
        }
    }

    #[test]
    fn a_flood_of_faults_is_cut() {
        let form = read(
            InteractionKind::Choices,
            json!({"questions": [{"question": "Q?", "header": "H", "options": ["a", "b"]}]}),
        );
        let answers: Vec<Value> = (0..1000).map(|index| json!({"header": format!("x{index}")})).collect();
        assert_eq!(form.check(&json!({ "answers": answers }), 10).unwrap_err().len(), ERRORS_MAX);
    }

    #[test]
    fn what_the_model_reads() {
        let form = Form::open(InteractionKind::IdentityIntake).unwrap();
        let accepted = form.check(&json!({"name": "Bo"}), 10).unwrap();
        let text = InteractionOutcome::Submitted(accepted).to_text();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"status": "submitted", "values": {"name": "Bo"}})
        );
        for (outcome, status) in
            [(InteractionOutcome::Declined, "declined"), (InteractionOutcome::NoResponse, "no_response")]
        {
            let payload: Value = serde_json::from_str(&outcome.to_text()).unwrap();
            assert_eq!(payload["status"], status);
            assert!(payload["message"].as_str().is_some_and(|message| !message.is_empty()));
        }
    }
}
