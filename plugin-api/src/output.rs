//! What a call gives back: content for the model, or an error it can act on.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One piece of a tool's output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContentBlock {
    /// Plain text, shown to the model as it is.
    Text {
        /// The text.
        text: String,
    },
    /// A JSON value, shown to the model as compact JSON text.
    Json {
        /// The value.
        value: Value,
    },
    /// A picture. A model that cannot see gets a line that names its type and size.
    Image {
        /// For example `image/png`.
        mime_type: String,
        /// The bytes, base64 (standard alphabet, padded).
        data: String,
    },
    /// Something named by its address.
    Resource {
        /// The address.
        uri: String,
        /// Its media type, when known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// Its text, when it is text and short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
}

/// What a successful call returns.
///
/// Most tools return a `String` or a JSON value and call `.into()`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ToolOutput {
    /// What the model reads, in order.
    pub content: Vec<ContentBlock>,
    /// Details for a user interface; never sent to the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// An instruction for the client application ("navigate to …"); the last one of a turn reaches the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directive: Option<Map<String, Value>>,
}

impl ToolOutput {
    /// One block of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![ContentBlock::Text { text: text.into() }], ..Self::default() }
    }

    /// One JSON value.
    pub fn json(value: Value) -> Self {
        Self { content: vec![ContentBlock::Json { value }], ..Self::default() }
    }

    /// Adds details for a user interface.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds an instruction for the client application.
    #[must_use]
    pub fn with_directive(mut self, directive: Map<String, Value>) -> Self {
        self.directive = Some(directive);
        self
    }

    /// The content as the text a model without eyes reads; blocks are separated by a line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for block in &self.content {
            if !text.is_empty() {
                text.push('\n');
            }
            match block {
                ContentBlock::Text { text: block } => text.push_str(block),
                ContentBlock::Json { value } => text.push_str(&value.to_string()),
                ContentBlock::Image { mime_type, data } => {
                    text.push_str(&format!("[image {mime_type}, {} bytes]", data.len() / 4 * 3));
                }
                ContentBlock::Resource { text: Some(block), .. } => text.push_str(block),
                ContentBlock::Resource { uri, text: None, .. } => text.push_str(&format!("[resource {uri}]")),
            }
        }
        text
    }
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<Value> for ToolOutput {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            value => Self::json(value),
        }
    }
}

/// Why a call failed. The text is read by the model, so it should say what was expected and what to do next, and
/// hold nothing secret.
///
/// Any displayable error becomes [`ToolError::Failed`] with `?`, which is why this type is not an
/// [`std::error::Error`] itself; [`ToolError::message`] gives its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolError {
    /// The arguments make no sense; the model should call again with better ones.
    InvalidArguments(String),
    /// The tool tried and failed.
    Failed(String),
    /// The call was cancelled; nobody reads the text.
    Cancelled(String),
    /// The tool cannot run now; later it may.
    Unavailable(String),
    /// The tool refuses to do this, by policy.
    Denied(String),
    /// The tool did not answer in time. Made by the host.
    TimedOut(String),
    /// The tool panicked. Made by the host.
    Panicked(String),
}

impl ToolError {
    /// The text for the model.
    pub fn message(&self) -> &str {
        match self {
            ToolError::InvalidArguments(text)
            | ToolError::Failed(text)
            | ToolError::Cancelled(text)
            | ToolError::Unavailable(text)
            | ToolError::Denied(text)
            | ToolError::TimedOut(text)
            | ToolError::Panicked(text) => text,
        }
    }
}

impl<E: fmt::Display> From<E> for ToolError {
    fn from(error: E) -> Self {
        ToolError::Failed(format!("{error:#}"))
    }
}
