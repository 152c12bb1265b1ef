//! The keys of `[agents.ID]`: how each is read and how it is shown.

use serde_json::{Value, json};

use super::{
    agents::{AGENT_ITERATIONS, AgentConfig, AgentVisibility, ToolAuthLevel},
    keys::ProjectRule,
    values::{Given, Misfit},
};

/// A key of `[agents.ID]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AgentKey {
    Id,
    Name,
    Instructions,
    Personality,
    Greeting,
    EnabledTools,
    ToolAuth,
    Visibility,
    Model,
    MaxIterations,
    ToolConfig,
}

impl AgentKey {
    pub(super) const ALL: [AgentKey; 11] = [
        AgentKey::Id,
        AgentKey::Name,
        AgentKey::Instructions,
        AgentKey::Personality,
        AgentKey::Greeting,
        AgentKey::EnabledTools,
        AgentKey::ToolAuth,
        AgentKey::Visibility,
        AgentKey::Model,
        AgentKey::MaxIterations,
        AgentKey::ToolConfig,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            AgentKey::Id => "id",
            AgentKey::Name => "name",
            AgentKey::Instructions => "instructions",
            AgentKey::Personality => "personality",
            AgentKey::Greeting => "greeting",
            AgentKey::EnabledTools => "enabled_tools",
            AgentKey::ToolAuth => "tool_auth",
            AgentKey::Visibility => "visibility",
            AgentKey::Model => "model",
            AgentKey::MaxIterations => "max_iterations",
            AgentKey::ToolConfig => "tool_config",
        }
    }

    /// A project file may say how an agent speaks, and nothing about what it may do.
    pub(super) fn project(self) -> ProjectRule {
        match self {
            AgentKey::Instructions | AgentKey::Personality | AgentKey::Greeting | AgentKey::Model => {
                ProjectRule::Always
            }
            AgentKey::Id
            | AgentKey::Name
            | AgentKey::EnabledTools
            | AgentKey::ToolAuth
            | AgentKey::Visibility
            | AgentKey::MaxIterations
            | AgentKey::ToolConfig => ProjectRule::Never,
        }
    }

    pub(super) fn set(self, agent: &mut AgentConfig, given: &Given<'_>) -> Result<(), Misfit> {
        match self {
            AgentKey::Id => agent.id = Some(given.text()?),
            AgentKey::Name => agent.name = Some(given.text()?),
            AgentKey::Instructions => agent.instructions = Some(given.text()?),
            AgentKey::Personality => agent.personality = Some(given.text()?),
            AgentKey::Greeting => agent.greeting = Some(given.text()?),
            AgentKey::EnabledTools => agent.enabled_tools = given.list()?,
            AgentKey::ToolAuth => {
                let levels = given.entries()?.into_iter();
                agent.tool_auth = levels
                    .map(|(tool, level)| Ok((tool.to_owned(), level.choice(&ToolAuthLevel::NAMES)?)))
                    .collect::<Result<_, Misfit>>()?;
            }
            AgentKey::Visibility => agent.visibility = given.choice(&AgentVisibility::NAMES)?,
            AgentKey::Model => agent.model = Some(given.text()?),
            AgentKey::MaxIterations => {
                let (least, most) = (*AGENT_ITERATIONS.start(), *AGENT_ITERATIONS.end());
                let number = given.whole(least.into(), most.into())?;
                agent.max_iterations = Some(u32::try_from(number).expect("the bound fits"));
            }
            AgentKey::ToolConfig => {
                let tools = given.entries()?.into_iter();
                agent.tool_config = tools.map(|(tool, config)| (tool.to_owned(), config.json())).collect();
            }
        }
        Ok(())
    }

    pub(super) fn show(self, agent: &AgentConfig) -> Value {
        match self {
            AgentKey::Id => json!(agent.id),
            AgentKey::Name => json!(agent.name),
            AgentKey::Instructions => json!(agent.instructions),
            AgentKey::Personality => json!(agent.personality),
            AgentKey::Greeting => json!(agent.greeting),
            AgentKey::EnabledTools => json!(agent.enabled_tools),
            AgentKey::ToolAuth => {
                let levels =
                    agent.tool_auth.iter().map(|(tool, level)| (tool.clone(), name_of(&ToolAuthLevel::NAMES, level)));
                levels.collect()
            }
            AgentKey::Visibility => name_of(&AgentVisibility::NAMES, &agent.visibility),
            AgentKey::Model => json!(agent.model),
            AgentKey::MaxIterations => json!(agent.max_iterations),
            // It may hold what only the tool knows to be secret.
            AgentKey::ToolConfig => json!(agent.tool_config.keys().map(|tool| (tool, "…")).collect::<Vec<_>>()),
        }
    }
}

fn name_of<T: PartialEq>(names: &[(&str, T)], value: &T) -> Value {
    json!(names.iter().find(|(_, other)| other == value).map(|(name, _)| *name))
}
