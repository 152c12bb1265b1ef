//! Which agent a turn is for, and what is known of it: the embedding program's word, else the configuration's.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::{
    config::{AgentConfig, ServerConfig},
    storage::Session,
};

/// Which agent is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentQuery<'a> {
    /// As the client gave it when it opened the session, trimmed.
    pub agent_id: &'a str,
    /// The organisation of the conversation.
    pub org_id: &'a str,
    /// The conversation.
    pub conversation_id: &'a str,
}

/// Knows agents, for an embedding program. Asked once at the beginning of each turn, so a change holds from the next
/// turn on.
#[async_trait]
pub trait AgentConfigResolver: Send + Sync + 'static {
    /// The agent, or `None` for one that it does not know: then the server's configuration decides, and an agent that
    /// is not in it either gets the defaults.
    ///
    /// # Errors
    ///
    /// What is known could not be read. The turn fails then, because the defaults could allow what the agent forbids;
    /// it fails, too, after [`Limits::agent_config`](crate::config::Limits::agent_config).
    async fn resolve(&self, query: AgentQuery<'_>) -> Result<Option<Arc<AgentConfig>>, AgentUnavailable>;
}

/// Why an agent's configuration could not be read. The text goes to the log; the client learns only that it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AgentUnavailable(pub String);

/// Every agent this server can find.
pub(crate) struct Agents {
    resolver: Option<Arc<dyn AgentConfigResolver>>,
    config: Arc<ServerConfig>,
    unknown: Arc<AgentConfig>,
}

impl Agents {
    pub(crate) fn new(config: Arc<ServerConfig>, resolver: Option<Arc<dyn AgentConfigResolver>>) -> Self {
        Self { resolver, config, unknown: Arc::default() }
    }

    /// The agent of this session.
    ///
    /// # Errors
    ///
    /// The embedding program could not say.
    pub(super) async fn of(&self, session: &Session) -> Result<Arc<AgentConfig>, AgentUnavailable> {
        let conversation_id = session.conversation_id.to_string();
        let query =
            AgentQuery { agent_id: &session.agent_id, org_id: &session.org_id, conversation_id: &conversation_id };
        if let Some(resolver) = &self.resolver {
            let limit = self.config.limits.agent_config;
            let asked = timeout(limit, resolver.resolve(query)).await;
            let found = asked.unwrap_or_else(|_| Err(AgentUnavailable(format!("no answer within {limit:?}"))))?;
            if let Some(agent) = found {
                return Ok(agent);
            }
        }
        Ok(match self.config.agent(&session.agent_id) {
            Some(agent) => Arc::new(agent.clone()),
            None => self.unknown.clone(),
        })
    }
}
