//! Who answers in one turn: the message's word, else the agent's, else the server's. Pure.

use super::prompt;
use crate::config::{AGENT_ITERATIONS, AgentConfig, ServerConfig};

/// Whose word the persona is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PersonaOrigin {
    /// The agent's own instructions.
    Agent,
    /// The server's configuration, or the embedding program's.
    Host,
    /// Nobody's: the demo's persona, or the built-in one.
    BuiltIn,
}

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Character<'a> {
    /// The agent.
    pub(super) agent: &'a AgentConfig,
    config: &'a ServerConfig,
    /// The model that the message names.
    named_model: Option<&'a str>,
}

impl<'a> Character<'a> {
    pub(super) fn new(agent: &'a AgentConfig, config: &'a ServerConfig, named_model: Option<&'a str>) -> Self {
        Self { agent, config, named_model }
    }

    /// The model's name.
    pub(super) fn model(&self) -> &'a str {
        // The offline model answers whatever is asked for, and no message can switch to it.
        if self.config.is_offline() {
            return &self.config.model;
        }
        let wishes = [self.named_model, self.agent.model.as_deref()];
        wishes.into_iter().flatten().find(|model| !model.trim().is_empty()).unwrap_or(&self.config.model)
    }

    /// Model calls that the turn may make.
    pub(super) fn max_iterations(&self) -> u32 {
        // An embedding program's number has been checked by nobody.
        let wanted =
            self.agent.max_iterations.map(|count| count.clamp(*AGENT_ITERATIONS.start(), *AGENT_ITERATIONS.end()));
        wanted.unwrap_or(self.config.max_iterations)
    }

    /// The only tools on offer; empty restricts nothing.
    pub(super) fn allowed_tools(&self) -> &'a [String] {
        &self.agent.enabled_tools
    }

    /// Who the agent is, in words, and whose words they are. The personality follows whichever it is.
    pub(super) fn persona(&self) -> (String, PersonaOrigin) {
        let (base, origin) = match (said(&self.agent.instructions), said(&self.config.persona)) {
            (Some(instructions), _) => (instructions, PersonaOrigin::Agent),
            (None, Some(persona)) => (persona, PersonaOrigin::Host),
            (None, None) => (prompt::built_in_persona(self.config.seed_kb), PersonaOrigin::BuiltIn),
        };
        let persona = match said(&self.agent.personality) {
            Some(personality) => format!("{base}\n\n{personality}"),
            None => base.to_owned(),
        };
        (persona, origin)
    }

    /// How to open a conversation that has no history yet; blank when nothing is said.
    pub(super) fn greeting(&self, has_history: bool) -> String {
        match said(&self.agent.greeting).filter(|_| !has_history) {
            Some(greeting) => format!(
                "This is the beginning of the conversation. Open your reply with this greeting, in the \
                user's language: {greeting}"
            ),
            None => String::new(),
        }
    }
}

/// A text that says something, trimmed.
fn said(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(instructions: &str, personality: &str, model: &str) -> AgentConfig {
        let text = |text: &str| Some(text.to_owned());
        AgentConfig {
            instructions: text(instructions),
            personality: text(personality),
            model: text(model),
            greeting: text("Ahoy!"),
            ..AgentConfig::default()
        }
    }

    #[test]
    fn the_agents_word_comes_first_and_blank_words_do_not_count() {
        let built_in = prompt::built_in_persona(false);
        for (instructions, personality, persona, expected, origin) in [
            ("Mine.", "", Some("Host."), "Mine.".to_owned(), PersonaOrigin::Agent),
            (" Mine. ", " Dry. ", Some("Host."), "Mine.\n\nDry.".to_owned(), PersonaOrigin::Agent),
            (" ", "", Some("Host."), "Host.".to_owned(), PersonaOrigin::Host),
            ("", "Dry.", Some("Host."), "Host.\n\nDry.".to_owned(), PersonaOrigin::Host),
            ("", "Dry.", Some(" "), format!("{built_in}\n\nDry."), PersonaOrigin::BuiltIn),
            ("", "", None, built_in.to_owned(), PersonaOrigin::BuiltIn),
        ] {
            let config = ServerConfig { persona: persona.map(str::to_owned), ..ServerConfig::default() };
            let agent = agent(instructions, personality, "");
            assert_eq!(Character::new(&agent, &config, None).persona(), (expected, origin));
        }
    }

    #[test]
    fn the_messages_model_wins_and_nothing_wins_over_the_offline_model() {
        for (message, of_agent, server, expected) in [
            (Some("message"), "agent", "server", "message"),
            (None, "agent", "server", "agent"),
            (None, " ", "server", "server"),
            (Some("message"), "agent", "offline", "offline"),
        ] {
            let config = ServerConfig { model: server.to_owned(), ..ServerConfig::default() };
            let agent = agent("", "", of_agent);
            assert_eq!(Character::new(&agent, &config, message).model(), expected);
        }
    }

    #[test]
    fn the_number_of_model_calls_stays_in_its_bounds() {
        let config = ServerConfig::default();
        for (wanted, expected) in [(None, 20), (Some(0), 1), (Some(3), 3), (Some(1000), 64)] {
            let agent = AgentConfig { max_iterations: wanted, ..AgentConfig::default() };
            assert_eq!(Character::new(&agent, &config, None).max_iterations(), expected);
        }
    }

    #[test]
    fn a_greeting_is_for_the_beginning() {
        let config = ServerConfig::default();
        let agent = agent("", "", "");
        let character = Character::new(&agent, &config, None);
        assert!(character.greeting(false).ends_with("Ahoy!"));
        assert_eq!(character.greeting(true), "");
    }
}
