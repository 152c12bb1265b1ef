//! What crosses the binary interface as JSON or as numbers, and the way there and back. Both sides use it: the shim
//! around a plugin, and the host's adapters. Authors need none of it.
//!
//! Every struct here may gain optional fields; what one side does not know it ignores.

use jackfield_plugin_abi::{AbiError, kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::export::TARGET;
use crate::{Effect, Tool, ToolError, ToolOptions, ToolSchema};

/// A tool as it describes itself to the host, once per turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolSpec {
    /// See [`ToolSchema::name`].
    pub name: String,
    /// See [`ToolSchema::description`].
    #[serde(default)]
    pub description: String,
    /// See [`ToolSchema::parameters`].
    pub parameters: Value,
    /// See [`Tool::options`].
    #[serde(default)]
    pub options: ToolOptions,
    /// See [`Tool::is_read_only`].
    #[serde(default)]
    pub read_only: bool,
    /// See [`Tool::is_concurrent_safe`].
    #[serde(default = "yes")]
    pub concurrent_safe: bool,
    /// What is known about the effect before the arguments are.
    #[serde(default)]
    pub effect: DeclaredEffect,
}

fn yes() -> bool {
    true
}

/// An effect as it is declared before a call: one for all calls, or to be asked for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredEffect {
    /// Always [`Effect::ReadOnly`].
    ReadOnly,
    /// Always [`Effect::Confined`].
    Confined,
    /// Always [`Effect::Writes`].
    Writes,
    /// Always [`Effect::Destructive`].
    Destructive,
    /// Depends on the arguments, or is named by a word this side does not know: ask [`Tool::effect`] for each call.
    #[default]
    #[serde(other)]
    ByArguments,
}

impl From<Effect> for DeclaredEffect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::ReadOnly => DeclaredEffect::ReadOnly,
            Effect::Confined => DeclaredEffect::Confined,
            Effect::Writes => DeclaredEffect::Writes,
            Effect::Destructive => DeclaredEffect::Destructive,
        }
    }
}

impl DeclaredEffect {
    /// The effect of every call, when it is the same for all.
    pub fn fixed(self) -> Option<Effect> {
        match self {
            DeclaredEffect::ReadOnly => Some(Effect::ReadOnly),
            DeclaredEffect::Confined => Some(Effect::Confined),
            DeclaredEffect::Writes => Some(Effect::Writes),
            DeclaredEffect::Destructive => Some(Effect::Destructive),
            DeclaredEffect::ByArguments => None,
        }
    }
}

impl ToolSpec {
    /// Asks a tool for all that it says about itself.
    pub fn of(tool: &dyn Tool) -> Self {
        let schema = tool.schema();
        Self {
            name: schema.name,
            description: schema.description,
            parameters: schema.parameters,
            options: tool.options(),
            read_only: tool.is_read_only(),
            concurrent_safe: tool.is_concurrent_safe(),
            effect: tool.declared_effect().map_or(DeclaredEffect::ByArguments, Into::into),
        }
    }

    /// The part that the model sees.
    pub fn schema(&self) -> ToolSchema {
        ToolSchema::new(&self.name, &self.description, self.parameters.clone())
    }
}

/// The number of an effect.
pub fn effect_to_abi(effect: Effect) -> u8 {
    match effect {
        Effect::ReadOnly => 0,
        Effect::Confined => 1,
        Effect::Writes => 2,
        Effect::Destructive => 3,
    }
}

/// The effect of a number; an unknown one is the most dangerous.
pub fn effect_from_abi(number: u8) -> Effect {
    match number {
        0 => Effect::ReadOnly,
        1 => Effect::Confined,
        2 => Effect::Writes,
        _ => Effect::Destructive,
    }
}

/// An error on its way across.
pub fn error_to_abi(error: ToolError) -> AbiError {
    let (kind, message) = match error {
        ToolError::InvalidArguments(text) => (kind::INVALID_ARGUMENTS, text),
        ToolError::Failed(text) => (kind::FAILED, text),
        ToolError::Cancelled(text) => (kind::CANCELLED, text),
        ToolError::Unavailable(text) => (kind::UNAVAILABLE, text),
        ToolError::Denied(text) => (kind::DENIED, text),
        ToolError::TimedOut(text) => (kind::TIMED_OUT, text),
        ToolError::Panicked(text) => (kind::PANICKED, text),
    };
    AbiError::new(kind, message)
}

/// An error that came across; an unknown kind is a failure.
pub fn error_from_abi(error: AbiError) -> ToolError {
    let text = error.message.into_string();
    match error.kind {
        kind::INVALID_ARGUMENTS => ToolError::InvalidArguments(text),
        kind::CANCELLED => ToolError::Cancelled(text),
        kind::UNAVAILABLE => ToolError::Unavailable(text),
        kind::DENIED => ToolError::Denied(text),
        kind::TIMED_OUT => ToolError::TimedOut(text),
        kind::PANICKED => ToolError::Panicked(text),
        _ => ToolError::Failed(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_come_back_as_they_went() {
        let all = [
            ToolError::InvalidArguments("a".into()),
            ToolError::Failed("b".into()),
            ToolError::Cancelled("c".into()),
            ToolError::Unavailable("d".into()),
            ToolError::Denied("e".into()),
            ToolError::TimedOut("f".into()),
            ToolError::Panicked("g".into()),
        ];
        for error in all {
            assert_eq!(error_from_abi(error_to_abi(error.clone())), error);
        }
        assert_eq!(error_from_abi(AbiError::new(99, "from the future")), ToolError::Failed("from the future".into()));
    }

    #[test]
    fn effects_come_back_as_they_went_and_unknown_ones_are_dangerous() {
        for effect in [Effect::ReadOnly, Effect::Confined, Effect::Writes, Effect::Destructive] {
            assert_eq!(effect_from_abi(effect_to_abi(effect)), effect);
            assert_eq!(DeclaredEffect::from(effect).fixed(), Some(effect));
        }
        assert_eq!(effect_from_abi(4), Effect::Destructive);
        assert_eq!(effect_from_abi(u8::MAX), Effect::Destructive);
        assert_eq!(serde_json::from_value::<DeclaredEffect>(json!("explosive")).unwrap(), DeclaredEffect::ByArguments);
    }

    #[test]
    fn an_older_sides_spec_is_read_with_cautious_defaults() {
        let spec: ToolSpec = serde_json::from_value(json!({"name": "x", "parameters": {"type": "object"}})).unwrap();
        assert!(!spec.read_only);
        assert_eq!(spec.effect.fixed(), None);
        let newer = json!({"name": "x", "parameters": {}, "colour": "green", "options": {"mood": 1, "polling": true}});
        assert!(serde_json::from_value::<ToolSpec>(newer).unwrap().options.polling);
    }
}
