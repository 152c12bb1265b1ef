//! The built-in tool that takes an answer which the user gave in prose. It stands where a client's form would be, and
//! checks as strictly; no plugin may take its place.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Effect, Tool, ToolError, ToolOutput, ToolSchema};
use serde_json::{Value, json};

use super::{
    Form, InteractionKind, InteractionOutcome,
    raise::{Interactions, values_hint},
};
use crate::tools::BuiltIn;

/// Its name.
pub(crate) const SUBMIT_TOOL: &str = "submit_interaction";

pub(super) struct SubmitTool {
    schema: Arc<ToolSchema>,
    interactions: Interactions,
}

impl SubmitTool {
    /// The tool for a session in which these kinds are asked in prose.
    pub(super) fn offer(in_prose: &[InteractionKind], interactions: Interactions) -> BuiltIn {
        let schema = schema(in_prose);
        BuiltIn { tool: Arc::new(Self { schema: schema.clone(), interactions }), schema }
    }

    /// Checks the values against what was asked, and remembers them.
    async fn take(&self, kind: InteractionKind, values: &Value) -> Result<InteractionOutcome, ToolError> {
        let asked = self.interactions.asked_form(kind).await?;
        let form = asked.or_else(|| Form::open(kind)).ok_or_else(|| {
            let ask = kind.raise_tool();
            ToolError::InvalidArguments(format!("nothing was asked, so there is nothing to answer; call {ask} first"))
        })?;
        let accepted = form.check(values, self.interactions.chars_max).map_err(|errors| {
            let faults: Vec<String> =
                errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
            ToolError::InvalidArguments(format!(
                "the answer does not fit: {}; correct it if you misread the user, otherwise ask again",
                faults.join("; ")
            ))
        })?;
        self.interactions.remember_values(&accepted).await?;
        Ok(InteractionOutcome::Submitted(accepted))
    }
}

#[async_trait]
impl Tool for SubmitTool {
    fn schema(&self) -> ToolSchema {
        ToolSchema::clone(&self.schema)
    }

    async fn execute(&self, arguments: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        let kind = InteractionKind::ALL.into_iter().find(|kind| arguments["kind"] == kind.as_str());
        let kind = kind.ok_or_else(|| ToolError::InvalidArguments("kind names no interaction".to_owned()))?;
        let outcome = match (&arguments["declined"], &arguments["values"]) {
            (Value::Bool(true), _) => InteractionOutcome::Declined,
            (_, Value::Null) => {
                let text = format!("say what the user answered as {}, or declined true", values_hint(kind));
                return Err(ToolError::InvalidArguments(text));
            }
            (_, values) => self.take(kind, values).await?,
        };
        self.interactions.remember_form(kind, None).await?;
        Ok(outcome.to_text().into())
    }

    fn effect(&self, _: &Value) -> Effect {
        Effect::Confined
    }

    fn declared_effect(&self) -> Option<Effect> {
        Some(Effect::Confined)
    }
}

/// Shared for each set of kinds, so that a turn does not build it anew.
fn schema(in_prose: &[InteractionKind]) -> Arc<ToolSchema> {
    static BOTH: LazyLock<Arc<ToolSchema>> = LazyLock::new(|| build(&InteractionKind::ALL));
    static IDENTITY: LazyLock<Arc<ToolSchema>> = LazyLock::new(|| build(&[InteractionKind::IdentityIntake]));
    static CHOICES: LazyLock<Arc<ToolSchema>> = LazyLock::new(|| build(&[InteractionKind::Choices]));
    match in_prose {
        [InteractionKind::IdentityIntake] => IDENTITY.clone(),
        [InteractionKind::Choices] => CHOICES.clone(),
        _ => BOTH.clone(),
    }
}

fn build(kinds: &[InteractionKind]) -> Arc<ToolSchema> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let hints: Vec<String> = kinds.iter().map(|kind| format!("{}: {}", kind.as_str(), values_hint(*kind))).collect();
    let parameters = json!({
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": names},
            "values": {"type": ["object", "null"], "description": hints.join("; ")},
            "declined": {"type": ["boolean", "null"], "description": "true when the user would rather not say"},
        },
        "required": ["kind"],
    });
    let description = "Reports what the user answered in prose to a request_… tool. Only for answers that the user really \
                       gave.";
    Arc::new(ToolSchema::new(SUBMIT_TOOL, description, parameters))
}
