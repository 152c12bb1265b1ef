//! Policies of a service: `GET {address}/{agentId}`, asked once for each agent and kept for a while.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jackfield_plugin_api::GatewayKey;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{WidgetAuth, WidgetAuthError, WidgetPolicy};
use crate::{
    config::Limits,
    outbound::{Fetcher, trusted_url},
};

/// Asks a service for policies. A policy, and that there is none, is kept; a failure of the service is not.
#[derive(Debug)]
pub struct HttpWidgetAuth {
    url: Url,
    bearer: Option<GatewayKey>,
    kept_for: Duration,
    kept_max: usize,
    fetcher: Fetcher,
    /// Held for a few lines, never across an await.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_agent: HashMap<String, (Option<WidgetPolicy>, Instant)>,
    /// Oldest first.
    order: VecDeque<String>,
}

/// A policy as the service writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default, alias = "allowed_origins")]
    allowed_origins: Vec<String>,
    #[serde(alias = "public_key")]
    public_key: Option<String>,
    #[serde(alias = "organization_id")]
    organization_id: Option<String>,
}

impl HttpWidgetAuth {
    /// A provider for the service at `url`, to which `bearer` is shown. Nothing is contacted before the first session.
    ///
    /// # Errors
    ///
    /// What is wrong with the address.
    pub fn new(url: &str, bearer: Option<GatewayKey>, kept_for: Duration, limits: &Limits) -> Result<Self, String> {
        let url = trusted_url(url)?;
        let (kept_max, fetcher) = (limits.widget_policies, Fetcher::new(limits));
        Ok(Self { url, bearer, kept_for, kept_max, fetcher, kept: Mutex::default() })
    }

    fn known(&self, agent_id: &str) -> Option<Option<WidgetPolicy>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (policy, since) = kept.by_agent.get(agent_id)?;
        (since.elapsed() < self.kept_for).then(|| policy.clone())
    }

    fn keep(&self, agent_id: &str, policy: &Option<WidgetPolicy>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.by_agent.insert(agent_id.to_owned(), (policy.clone(), Instant::now())).is_none() {
            kept.order.push_back(agent_id.to_owned());
        }
        while kept.order.len() > self.kept_max {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_agent.remove(&oldest);
            }
        }
    }

    async fn ask(&self, agent_id: &str) -> Result<Option<WidgetPolicy>, String> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(agent_id);
        }
        let (status, body) = self.fetcher.get(&url, self.bearer.as_ref()).await?;
        match status.as_u16() {
            200..=299 => {
                let written: Written = serde_json::from_slice(&body)
                    .map_err(|_| "the service answered something that is no policy".to_owned())?;
                Ok(Some(WidgetPolicy {
                    allowed_origins: written.allowed_origins,
                    public_key: written.public_key.filter(|key| !key.trim().is_empty()).map(GatewayKey::new),
                    organization_id: written.organization_id.filter(|org| !org.trim().is_empty()),
                }))
            }
            404 => Ok(None),
            other => Err(format!("the service answered {other}")),
        }
    }
}

#[async_trait]
impl WidgetAuth for HttpWidgetAuth {
    async fn policy(&self, agent_id: &str) -> Result<Option<WidgetPolicy>, WidgetAuthError> {
        // These would name another address of the service.
        if agent_id == "." || agent_id == ".." {
            return Ok(None);
        }
        if let Some(policy) = self.known(agent_id) {
            return Ok(policy);
        }
        let policy = self.ask(agent_id).await.map_err(|reason| {
            tracing::warn!(agent = agent_id, reason, "a widget policy could not be read");
            WidgetAuthError(reason)
        })?;
        self.keep(agent_id, &policy);
        Ok(policy)
    }
}
