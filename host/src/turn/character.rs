//! Who answers in one turn: the message's word, else the agent's, else its organisation's, else the server's. Pure.

use std::borrow::Cow;

use super::prompt;
use crate::{
    config::{AGENT_ITERATIONS, AgentConfig, ServerConfig},
    storage::OrgSettings,
};

/// Whose word the persona is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PersonaOrigin {
    /// The agent's own instructions.
    Agent,
    /// The organisation's settings.
    Org,
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
    /// What its organisation has set.
    pub(super) org: Option<&'a OrgSettings>,
    /// What the server was told.
    pub(super) config: &'a ServerConfig,
    /// The model that the message names.
    pub(super) named_model: Option<&'a str>,
}

impl<'a> Character<'a> {
    /// The model's name.
    pub(super) fn model(&self) -> &'a str {
        // The offline model answers whatever is asked for, and no message can switch to it.
        if self.config.is_offline() {
            return &self.config.model;
        }
        let wishes = [self.named_model, self.agent.model.as_deref(), self.org.and_then(|org| org.model.as_deref())];
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
        match (&*self.agent.enabled_tools, self.org) {
            ([], Some(org)) => &org.default_tools,
            (tools, _) => tools,
        }
    }

    /// Who the agent is, in words, and whose words they are. The personality follows whichever it is.
    pub(super) fn persona(&self) -> (String, PersonaOrigin) {
        let (base, origin) = self.base_persona();
        let persona = match said(&self.agent.personality) {
            Some(personality) => format!("{base}\n\n{personality}"),
            None => base.into_owned(),
        };
        (persona, origin)
    }

    fn base_persona(&self) -> (Cow<'a, str>, PersonaOrigin) {
        if let Some(instructions) = said(&self.agent.instructions) {
            return (instructions.into(), PersonaOrigin::Agent);
        }
        let host = prompt::base_persona(self.config.persona.as_deref(), self.config.seed_kb);
        match self.org.and_then(|org| prompt::org_persona(org, host)) {
            Some(persona) => (persona.into(), PersonaOrigin::Org),
            None if said(&self.config.persona).is_some() => (host.trim().into(), PersonaOrigin::Host),
            None => (host.into(), PersonaOrigin::BuiltIn),
        }
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

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn org(persona: &str, model: &str, tools: &[&str]) -> OrgSettings {
        OrgSettings {
            model: text(model),
            system_prompt: String::new(),
            persona: text(persona),
            default_tools: tools.iter().map(|&tool| tool.to_owned()).collect(),
            updated_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_agents_word_comes_first_and_blank_words_do_not_count() {
        let built_in = prompt::base_persona(None, false);
        let no_org = || org("", "", &[]);
        for (instructions, personality, org, persona, expected, origin) in [
            ("Mine.", "", org("Org.", "", &[]), Some("Host."), "Mine.".to_owned(), PersonaOrigin::Agent),
            (" Mine. ", " Dry. ", no_org(), Some("Host."), "Mine.\n\nDry.".to_owned(), PersonaOrigin::Agent),
            (" ", "Dry.", org("Org.", "", &[]), Some("Host."), "Org.\n\nDry.".to_owned(), PersonaOrigin::Org),
            ("", "", no_org(), Some(" Host. "), "Host.".to_owned(), PersonaOrigin::Host),
            ("", "Dry.", no_org(), Some(" "), format!("{built_in}\n\nDry."), PersonaOrigin::BuiltIn),
            ("", "", no_org(), None, built_in.to_owned(), PersonaOrigin::BuiltIn),
        ] {
            let config = ServerConfig { persona: persona.map(str::to_owned), ..ServerConfig::default() };
            let agent = AgentConfig {
                instructions: text(instructions),
                personality: text(personality),
                ..AgentConfig::default()
            };
            let character = Character { agent: &agent, org: Some(&org), config: &config, named_model: None };
            assert_eq!(character.persona(), (expected, origin));
        }
    }

    #[test]
    fn the_messages_model_wins_and_nothing_wins_over_the_offline_model() {
        for (named_model, of_agent, of_org, server, expected) in [
            (Some("message"), "agent", "org", "server", "message"),
            (None, "agent", "org", "server", "agent"),
            (None, " ", "org", "server", "org"),
            (None, "", "", "server", "server"),
            (Some("message"), "agent", "org", "offline", "offline"),
        ] {
            let config = ServerConfig { model: server.to_owned(), ..ServerConfig::default() };
            let agent = AgentConfig { model: text(of_agent), ..AgentConfig::default() };
            let org = org("", of_org, &[]);
            let character = Character { agent: &agent, org: Some(&org), config: &config, named_model };
            assert_eq!(character.model(), expected);
        }
    }

    #[test]
    fn the_agents_tools_come_before_its_organisations() {
        let config = ServerConfig::default();
        let org = org("", "", &["search"]);
        let mut agent = AgentConfig::default();
        let tools = |agent: &AgentConfig, org| {
            Character { agent, org, config: &config, named_model: None }.allowed_tools().to_vec()
        };
        assert!(tools(&agent, None).is_empty());
        assert_eq!(tools(&agent, Some(&org)), ["search"]);
        agent.enabled_tools = vec!["pay".to_owned()];
        assert_eq!(tools(&agent, Some(&org)), ["pay"]);
    }

    #[test]
    fn the_number_of_model_calls_stays_in_its_bounds() {
        let config = ServerConfig::default();
        for (wanted, expected) in [(None, 20), (Some(0), 1), (Some(3), 3), (Some(1000), 64)] {
            let agent = AgentConfig { max_iterations: wanted, ..AgentConfig::default() };
            let character = Character { agent: &agent, org: None, config: &config, named_model: None };
            assert_eq!(character.max_iterations(), expected);
        }
    }

    #[test]
    fn a_greeting_is_for_the_beginning() {
        let config = ServerConfig::default();
        let agent = AgentConfig { greeting: text("Ahoy!"), ..AgentConfig::default() };
        let character = Character { agent: &agent, org: None, config: &config, named_model: None };
        assert!(character.greeting(false).ends_with("Ahoy!"));
        assert_eq!(character.greeting(true), "");
    }
}
