//! What one agent is: how it speaks, what it may use, and how well it has to know whom it talks to.

use std::collections::BTreeMap;

use serde_json::Value;

/// Model calls that one agent may be given per turn.
pub const AGENT_ITERATIONS: std::ops::RangeInclusive<u32> = 1..=64;

/// One agent, from `[agents.ID]` or from an embedding program. What is not set is as for an agent that nobody
/// described.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AgentConfig {
    /// The agent's id where its table is named otherwise.
    pub id: Option<String>,
    /// What the agent is called on the wire. Default: the server's `agent_name`.
    pub name: Option<String>,
    /// Who the agent is and what it is to do; takes the place of every other persona.
    pub instructions: Option<String>,
    /// How it speaks; follows the instructions, or the persona in their place.
    pub personality: Option<String>,
    /// How it is to open a conversation; told to the model while there is no history.
    pub greeting: Option<String>,
    /// The only tools that its turns are offered, by name; empty restricts nothing.
    pub enabled_tools: Vec<String>,
    /// How well single tools have to know the user, by name. Counts only for tools that `auth_tools` of the server's
    /// configuration names, too.
    pub tool_auth: BTreeMap<String, ToolAuthLevel>,
    /// Whom the agent is for.
    pub visibility: AgentVisibility,
    /// Its model. A message that names one wins.
    pub model: Option<String>,
    /// Model calls per turn, [`AGENT_ITERATIONS`]. Default: the server's.
    pub max_iterations: Option<u32>,
    /// What single tools are told, by name; reaches tool providers as `tool_specific_config`.
    pub tool_config: BTreeMap<String, Value>,
}

/// How well a tool has to know the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolAuthLevel {
    /// Not at all.
    #[default]
    None,
    /// The session is verified: the user has shown that their contact is theirs.
    EndUser,
    /// The agent is not public.
    Admin,
}

impl ToolAuthLevel {
    pub(super) const NAMES: [(&str, ToolAuthLevel); 3] =
        [("none", ToolAuthLevel::None), ("end_user", ToolAuthLevel::EndUser), ("admin", ToolAuthLevel::Admin)];
}

/// Whom an agent is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentVisibility {
    /// Anybody who finds it; tools for admins are refused.
    #[default]
    Public,
    /// The operator's own people.
    Internal,
}

impl AgentVisibility {
    pub(super) const NAMES: [(&str, AgentVisibility); 2] =
        [("public", AgentVisibility::Public), ("internal", AgentVisibility::Internal)];
}

/// The agent with this id among the tables: by the table's own name, else by the `id` in it. Case does not matter,
/// because it does not in the ids that clients send.
pub(super) fn find<'a>(agents: &'a BTreeMap<String, AgentConfig>, agent_id: &str) -> Option<&'a AgentConfig> {
    let by_name = agents.iter().find(|(name, _)| name.eq_ignore_ascii_case(agent_id)).map(|(_, agent)| agent);
    let has_id = |agent: &&AgentConfig| agent.id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(agent_id));
    by_name.or_else(|| agents.values().find(has_id))
}

/// What is wrong with the tables together: two for one agent, or a rule that would silently not hold.
pub(super) fn contradiction(agents: &BTreeMap<String, AgentConfig>, auth_tools: &[String]) -> Option<String> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (name, agent) in agents {
        for id in std::iter::once(name.as_str()).chain(agent.id.as_deref()) {
            match seen.iter().find(|(other, _)| other.eq_ignore_ascii_case(id)) {
                Some((_, owner)) if owner != name => {
                    return Some(format!("agents.{owner} and agents.{name} are both for the agent {id}; join them"));
                }
                _ => seen.push((id, name)),
            }
        }
        let gated = agent.tool_auth.iter().filter(|(_, level)| **level != ToolAuthLevel::None);
        if let Some((tool, _)) = gated.into_iter().find(|(tool, _)| !auth_tools.contains(tool)) {
            return Some(format!(
                "agents.{name}.tool_auth says how well {tool} has to know the user, but only tools that tools.auth names \
                 are checked; add \"{tool}\" to tools.auth"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(tables: &[(&str, Option<&str>)]) -> BTreeMap<String, AgentConfig> {
        let agent = |id: Option<&str>| AgentConfig { id: id.map(str::to_owned), ..AgentConfig::default() };
        tables.iter().map(|(name, id)| ((*name).to_owned(), agent(*id))).collect()
    }

    #[test]
    fn an_agent_is_found_by_its_tables_name_or_its_id() {
        let agents = agents(&[("support", Some("7D1C")), ("sales", None)]);
        for (id, found) in [("support", true), ("SALES", true), ("7d1c", true), ("other", false), ("", false)] {
            assert_eq!(find(&agents, id).is_some(), found, "{id}");
        }
    }

    #[test]
    fn two_tables_for_one_agent_and_a_rule_that_would_not_hold_are_said() {
        assert_eq!(contradiction(&agents(&[("a", Some("A")), ("b", Some("c"))]), &[]), None);
        for tables in [[("a", Some("x")), ("b", Some("X"))], [("a", None), ("b", Some("A"))]] {
            let said = contradiction(&agents(&tables), &[]).unwrap_or_default();
            assert!(said.contains("agents.a and agents.b"), "{said}");
        }
        let mut gated = agents(&[("a", None)]);
        let levels = [("pay".to_owned(), ToolAuthLevel::EndUser), ("look".to_owned(), ToolAuthLevel::None)];
        gated.get_mut("a").expect("it was made above").tool_auth = levels.into();
        let said = contradiction(&gated, &[]).unwrap_or_default();
        assert!(said.contains("add \"pay\" to tools.auth"), "{said}");
        assert_eq!(contradiction(&gated, &["pay".to_owned()]), None);
    }
}
