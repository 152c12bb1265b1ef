//! Calls of small models beside the turn: a line while the user waits, a title afterwards. They are tried once, within a
//! time of their own, and nothing depends on them: when one fails, the log says so and the turn goes on.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;

use crate::model::{ModelClient, ModelError, ModelEvent, ModelMessage, ModelRequest};

/// What is asked of a small model.
pub(super) struct Aside {
    /// The model id.
    pub(super) model: String,
    /// What it shall do.
    pub(super) instructions: String,
    /// What with.
    pub(super) text: String,
    /// Ceiling of its reply, in tokens.
    pub(super) max_tokens: u32,
}

/// The model's reply in one piece; `None` when it failed, said nothing or took longer than `limit`.
///
/// # Cancel safety
///
/// Dropping the future drops the request.
pub(super) async fn ask(client: &dyn ModelClient, aside: Aside, limit: Duration) -> Option<String> {
    let model = aside.model.clone();
    match tokio::time::timeout(limit, whole_reply(client, aside)).await {
        Ok(Ok(text)) => Some(text).filter(|text| !text.trim().is_empty()),
        Ok(Err(error)) => {
            tracing::warn!(model, %error, "a call beside the turn failed");
            None
        }
        Err(_) => {
            tracing::warn!(model, ?limit, "a call beside the turn took too long");
            None
        }
    }
}

async fn whole_reply(client: &dyn ModelClient, aside: Aside) -> Result<String, ModelError> {
    let user = ModelMessage::User { text: aside.text, images: Vec::new() };
    let request = ModelRequest {
        model: aside.model,
        messages: vec![ModelMessage::System(aside.instructions), user],
        tools: Arc::new([]),
        max_tokens: aside.max_tokens,
        temperature: None,
        stream: false,
    };
    let mut events = client.stream(request).await?;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let ModelEvent::Text(delta) = event? {
            text.push_str(&delta);
        }
    }
    Ok(text)
}
