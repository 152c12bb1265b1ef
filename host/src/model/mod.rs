//! The model: what a turn asks of it and what streams back. The gateway client and the offline model stand behind
//! one trait; a turn cannot tell which one answers.
//!
//! ```text
//! ModelRequest -> repair -> request -> gateway (retry) -> sse -> delta (tool_calls) -> reply -> ModelEvent
//! ```
//!
//! Bytes become events in the task that asks for them: no task, no channel and no lock stands between the network and
//! the turn. Keys and prompts never reach an error text or a log.

mod catalog;
mod delta;
mod embeddings;
mod error_text;
mod gateway;
mod offline;
mod repair;
mod reply;
mod request;
mod retry;
mod sse;
mod tool_calls;
mod transport;
mod usage;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;

pub use embeddings::GatewayEmbedder;
pub use gateway::{GatewayClient, GatewaySettingsError};
pub use offline::OfflineModel;

use crate::ids::ToolCallId;

/// The line under which a system message holds retrieved passages; the offline model recognises it.
pub const KNOWLEDGE_HEADING: &str = "Knowledge that may help:";

/// One picture in a user message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelImage {
    /// A `data:image/...` or https address.
    pub url: String,
    /// `low`, `high` or `auto`.
    pub detail: Option<String>,
}

/// One tool call as the model asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelToolCall {
    /// The model's id, or one made up when it sent none.
    pub id: ToolCallId,
    /// The name as the model wrote it.
    pub name: String,
    /// The arguments exactly as streamed: JSON text, possibly empty or broken.
    pub arguments: String,
}

/// One message of a request, in the order the model reads them.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelMessage {
    /// Instructions.
    System(String),
    /// What the user said. Text may be empty when there are images.
    User {
        /// The text.
        text: String,
        /// The pictures that came with it.
        images: Vec<ModelImage>,
    },
    /// What the model said before.
    Assistant {
        /// Visible text, may be empty.
        text: String,
        /// The thinking channel of the same turn, echoed back where a provider demands it.
        reasoning: String,
        /// The tools it asked for.
        tool_calls: Vec<ModelToolCall>,
    },
    /// The result of one tool call.
    Tool {
        /// Which call.
        call_id: ToolCallId,
        /// The tool's name.
        name: String,
        /// The text of the result.
        content: String,
    },
}

/// A tool as the model sees it; `name` is the wire name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelTool {
    /// `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// For the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
}

/// One request to the model.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// The model id.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<ModelMessage>,
    /// The tools on offer, sorted by name; shared by every request of a turn.
    pub tools: Arc<[ModelTool]>,
    /// Ceiling of the reply, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature; absent lets the gateway decide.
    pub temperature: Option<f64>,
    /// Whether the reply is wanted piece by piece. One that is not still comes as events, all at once.
    pub stream: bool,
}

/// Tokens and money of one model call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModelUsage {
    /// Tokens of the request.
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    pub completion_tokens: u64,
    /// Price in US dollars; 0 when nothing says it.
    pub cost_usd: f64,
    /// Whether the gateway measured the tokens; otherwise they are estimated from characters.
    pub measured: bool,
}

/// What streams back from a model call. After `Finished` nothing follows.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelEvent {
    /// A piece of visible text; never empty, always whole characters.
    Text(String),
    /// A piece of the thinking channel; never empty.
    Reasoning(String),
    /// The call is over.
    Finished {
        /// The tools the model asks for, in its order.
        tool_calls: Vec<ModelToolCall>,
        /// Tokens and money.
        usage: ModelUsage,
        /// What the gateway gave as reason (`stop`, `length`, `tool_calls`, …).
        finish_reason: Option<String>,
    },
}

/// Why a model call failed. `Display` is safe to show to a client: no key, no prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The gateway could not be reached, or the connection broke before the reply began.
    #[error("the model gateway could not be reached: {0}")]
    Unreachable(String),
    /// The gateway answered with an error status.
    #[error("the model gateway answered {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What its body said, shortened.
        message: String,
    },
    /// The conversation is too long for the model.
    #[error("the conversation is too long for the model: {0}")]
    ContextOverflow(String),
    /// An error object came inside the stream.
    #[error("the model gateway reported an error: {0}")]
    InStream(String),
    /// The stream ended before the reply did.
    #[error("the model's reply was cut off")]
    Truncated,
    /// The reply is not what an OpenAI-compatible gateway sends.
    #[error("the model gateway sent something unexpected: {0}")]
    Malformed(String),
    /// Nothing came for too long.
    #[error("the model gateway was silent for {0} s")]
    Idle(u64),
    /// The whole call took too long.
    #[error("the model call took longer than {0} s")]
    TooLong(u64),
}

impl ModelError {
    /// The kind in a word, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            ModelError::Unreachable(_) => "unreachable",
            ModelError::Status { .. } => "status",
            ModelError::ContextOverflow(_) => "context_overflow",
            ModelError::InStream(_) => "in_stream",
            ModelError::Truncated => "truncated",
            ModelError::Malformed(_) => "malformed",
            ModelError::Idle(_) => "idle",
            ModelError::TooLong(_) => "too_long",
        }
    }
}

/// A stream of one call's events. Dropping it drops the request.
pub type ModelStream = BoxStream<'static, Result<ModelEvent, ModelError>>;

/// Where replies come from.
#[async_trait]
pub trait ModelClient: Send + Sync + 'static {
    /// Starts one call. Retries before the first byte happen inside; an error here or in the stream is final.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future or the stream drops the request.
    async fn stream(&self, request: ModelRequest) -> Result<ModelStream, ModelError>;

    /// What the gateway says about its models, by id; empty when it says nothing. May wait for the gateway's answer
    /// (`Limits::model_catalog`), so a turn does not ask.
    async fn catalog(&self) -> Arc<BTreeMap<String, ModelInfo>> {
        Arc::default()
    }
}

/// Where vectors come from that stand for the meaning of texts.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// The model's id. Vectors of different models are never compared.
    fn model(&self) -> &str;

    /// One vector for each text, in order; all of the same length, with finite numbers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request.
    async fn embed(&self, texts: Vec<String>, effort: Effort) -> Result<Vec<Vec<f32>>, ModelError>;
}

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Somebody waits: one attempt.
    Once,
    /// Nobody waits: passing trouble is tried again, as for a model call.
    Retrying,
}

/// What a gateway says about one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// Ceiling of a reply, in tokens.
    pub max_output_tokens: Option<u32>,
    /// US dollars a token of the request.
    pub input_cost_per_token: Option<f64>,
    /// US dollars a token of the reply.
    pub output_cost_per_token: Option<f64>,
    /// The gateway's class of the model.
    pub tier: Option<String>,
    /// What the gateway recommends it for.
    pub use_cases: Vec<String>,
}
