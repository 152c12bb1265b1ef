//! What was said within one turn: the messages that the next model call is shown, and what is left for the reply.

use crate::{
    model::{ModelMessage, ModelToolCall, ModelUsage},
    protocol::objects::Usage,
    turn::reply,
};

/// One model call's result.
#[derive(Debug, Default)]
pub(crate) struct ModelReply {
    /// The visible text, without the trailer.
    pub(crate) text: String,
    /// The thinking channel.
    pub(crate) reasoning: String,
    /// The tools it asks for.
    pub(crate) tool_calls: Vec<ModelToolCall>,
    /// Replies that it suggests to the user.
    pub(crate) suggestions: Vec<String>,
    /// Tokens and money.
    pub(crate) usage: ModelUsage,
}

/// See the module. Pure: it is told what happened and says what to send next.
#[derive(Debug)]
pub(crate) struct Transcript {
    messages: Vec<ModelMessage>,
    /// How many of the messages were there before the turn.
    before: usize,
    streamed: String,
    reasoning: String,
    suggestions: Vec<String>,
    usage: ModelUsage,
}

impl Transcript {
    /// Begins with what the model is shown first: prompt, knowledge, history and the user's message.
    pub(crate) fn new(messages: Vec<ModelMessage>) -> Self {
        Self {
            before: messages.len(),
            messages,
            streamed: String::new(),
            reasoning: String::new(),
            suggestions: Vec::new(),
            usage: ModelUsage::default(),
        }
    }

    /// The messages of the next model call.
    pub(crate) fn messages(&self) -> &[ModelMessage] {
        &self.messages
    }

    /// Takes in a model call's result and returns the tools it asks for.
    pub(crate) fn push_reply(&mut self, reply: ModelReply) -> Vec<ModelToolCall> {
        self.usage = self.usage + reply.usage;
        self.streamed.push_str(&reply.text);
        self.reasoning.push_str(&reply.reasoning);
        self.suggestions = reply.suggestions;
        self.messages.push(ModelMessage::Assistant {
            text: reply.text,
            reasoning: reply.reasoning,
            tool_calls: reply.tool_calls.clone(),
        });
        reply.tool_calls
    }

    /// Takes in the result of one tool call.
    pub(crate) fn push_tool_result(&mut self, call: &ModelToolCall, content: String) {
        self.messages.push(ModelMessage::Tool { call_id: call.id.clone(), name: call.name.clone(), content });
    }

    /// The text of the reply: the last call's; when that is empty, an earlier one's, what was streamed, or what was
    /// thought.
    pub(crate) fn reply_text(&self) -> String {
        // What the agent said in earlier turns is in the messages, too, and is no answer to this one.
        let said = self.messages[self.before..].iter().rev().filter_map(|message| match message {
            ModelMessage::Assistant { text, .. } => Some(text.as_str()),
            _ => None,
        });
        reply::first_non_empty(said.chain([self.streamed.as_str(), self.reasoning.as_str()]))
    }

    /// Replies that the last call suggested to the user.
    pub(crate) fn suggestions(&self) -> &[String] {
        &self.suggestions
    }

    /// Tokens and money, summed over the calls; `None` unless the gateway has measured all of them. The wire has no
    /// way to say that a number is an estimate, so an estimate is not sent at all.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let ModelUsage { prompt_tokens, completion_tokens, cost_usd, measured } = self.usage;
        if !measured {
            tracing::info!(prompt_tokens, completion_tokens, "the gateway counted no tokens; these are estimates");
        }
        measured.then_some(Usage { cost_usd, prompt_tokens, completion_tokens })
    }
}
