//! One model call's reply while it is read: model events in, what the client is told and the whole reply out. Pure.

use super::{
    reply::{TrailerFilter, clean},
    transcript::ModelReply,
};
use crate::{model::ModelEvent, protocol::Event};

/// Reads one reply. Make a new one for each model call.
pub(crate) struct ReplyReading {
    /// Whether the client wants tokens.
    stream: bool,
    filter: TrailerFilter,
    reply: ModelReply,
}

impl ReplyReading {
    /// At the beginning of a reply.
    pub(crate) fn new(stream: bool) -> Self {
        Self { stream, filter: TrailerFilter::new(), reply: ModelReply::default() }
    }

    /// Takes in what the model sent and returns what the client is told of it.
    pub(crate) fn take(&mut self, event: ModelEvent) -> Option<Event> {
        match event {
            ModelEvent::Text(delta) => {
                let visible = self.filter.push(delta);
                self.say(visible)
            }
            ModelEvent::Reasoning(delta) => {
                self.reply.reasoning.push_str(&delta);
                self.stream.then_some(Event::StreamReasoning(delta))
            }
            ModelEvent::Finished { tool_calls, usage, finish_reason } => {
                if finish_reason.as_deref() == Some("length") {
                    tracing::warn!("the model's reply was cut at its ceiling of tokens");
                }
                self.reply.tool_calls = tool_calls;
                self.reply.usage = usage;
                None
            }
        }
    }

    /// Whether there is anything for the user to read.
    pub(crate) fn has_text(&self) -> bool {
        !self.reply.text.is_empty()
    }

    /// Ends the reply: the whole of it, and what the client is still to be told.
    pub(crate) fn finish(mut self) -> (ModelReply, Option<Event>) {
        let end = std::mem::take(&mut self.filter).finish();
        let rest = self.say(end.text);
        let suggestions =
            if end.suggestions.is_empty() { clean(&self.reply.text).suggestions } else { end.suggestions };
        (ModelReply { suggestions, ..self.reply }, rest)
    }

    fn say(&mut self, text: String) -> Option<Event> {
        self.reply.text.push_str(&text);
        (self.stream && !text.is_empty()).then_some(Event::StreamToken(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: bool, deltas: &[&str]) -> (Vec<Event>, ModelReply) {
        let mut reading = ReplyReading::new(stream);
        let mut told: Vec<Event> =
            deltas.iter().filter_map(|delta| reading.take(ModelEvent::Text((*delta).to_owned()))).collect();
        told.extend(reading.take(ModelEvent::Reasoning("hm".to_owned())));
        let (reply, rest) = reading.finish();
        told.extend(rest);
        (told, reply)
    }

    #[test]
    fn each_delta_is_told_by_itself_and_the_trailer_never() {
        let (told, reply) = read(true, &["ha", "ha", " <sugg", "ested_replies>[\"More\"]"]);
        let token = |text: &str| Event::StreamToken(text.to_owned());
        assert_eq!(told, [token("ha"), token("ha"), token(" "), Event::StreamReasoning("hm".to_owned())]);
        assert_eq!((reply.text.as_str(), reply.reasoning.as_str()), ("haha ", "hm"));
        assert_eq!(reply.suggestions, ["More"]);
    }

    #[test]
    fn what_could_have_been_a_marker_is_told_at_the_end() {
        let (told, reply) = read(true, &["a <sugg"]);
        assert_eq!(told.last(), Some(&Event::StreamToken("<sugg".to_owned())));
        assert_eq!(reply.text, "a <sugg");
    }

    #[test]
    fn a_client_that_wants_no_tokens_is_told_nothing() {
        let (told, reply) = read(false, &["a ", "<b"]);
        assert_eq!(told, []);
        assert_eq!(reply.text, "a <b");
    }
}
