//! Hooks of an embedding program around every tool call.

use async_trait::async_trait;
use serde_json::Value;

/// A tool call as a hook sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HookedCall<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// The arguments, checked against the tool's schema.
    pub arguments: &'a Value,
    /// The conversation the call belongs to.
    pub conversation_id: &'a str,
    /// The session that started the turn.
    pub session_id: &'a str,
}

impl<'a> HookedCall<'a> {
    pub(crate) fn new(tool: &'a str, arguments: &'a Value, conversation_id: &'a str, session_id: &'a str) -> Self {
        Self { tool, arguments, conversation_id, session_id }
    }
}

/// Looks at every tool call of every turn, before and after it runs.
///
/// Hooks run in the order they were given, before a human is asked; the first refusal counts.
#[async_trait]
pub trait ToolHook: Send + Sync + 'static {
    /// Called before the tool runs.
    ///
    /// # Errors
    ///
    /// A refusal: the tool does not run, and the model reads the text.
    async fn before(&self, call: HookedCall<'_>) -> Result<(), String> {
        let _ = call;
        Ok(())
    }

    /// Called with the result that the model will read. Not called for a call that was refused or cancelled.
    async fn after(&self, call: HookedCall<'_>, result: &str, is_error: bool) {
        let _ = (call, result, is_error);
    }
}
