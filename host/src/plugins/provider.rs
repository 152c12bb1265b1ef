//! A loaded plugin as the rest of the host uses it, wherever its code runs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jackfield_plugin_abi::ServiceReply;
use jackfield_plugin_api::{Tool, ToolProvider, ToolProviderContext};
use serde_json::Value;

use super::{
    confinement::Confinement,
    guarded::{GuardedTool, least_effect},
    health::{Health, Misdeed, PluginCounters},
    lease::{Leases, PluginLease},
    manifest::ManifestTool,
};
use crate::ids::PluginId;

/// Why a plugin did not do what it was asked for as a whole (a failed tool call is a
/// [`ToolError`](jackfield_plugin_api::ToolError) instead).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginFault {
    /// It panicked; the text is the panic's.
    #[error("the plugin panicked: {0}")]
    Panicked(String),
    /// It answered with an error.
    #[error("the plugin failed: {0}")]
    Failed(String),
    /// The process it ran in ended, and is being started again; the text says how it ended.
    #[error("its worker {0}")]
    Died(String),
    /// It has been stopped and answers nothing any more.
    #[error("the plugin has been stopped")]
    Stopped,
    /// It did too much wrong and is not used for now; the text says what and for how long.
    #[error("{0}")]
    Quarantined(String),
}

/// Where a plugin's code runs. Dropping it abandons the plugin without waiting.
#[async_trait]
pub(super) trait Carrier: Send + Sync + 'static {
    /// Asks the plugin for its tools of this turn. A tool whose description is unusable is left out with a warning.
    /// There is no time limit in here.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the answer.
    async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, PluginFault>;

    /// Asks a service that the plugin offers; the inner result is the plugin's own answer.
    async fn request(&self, service: String, body: Vec<u8>) -> Result<ServiceReply, PluginFault>;

    /// Tells the plugin that something happened, without waiting for it. A plugin that is too far behind misses it.
    fn notify(&self, event: &Value);

    /// Lets the plugin finish within the deadline; what it has not finished by then is abandoned. A second stop does
    /// nothing.
    async fn stop(&self, deadline: Duration);

    /// What confines the plugin; absent when it runs in this process, where nothing does.
    fn confinement(&self) -> Option<Confinement> {
        None
    }
}

/// The provider of one loaded plugin.
pub struct PluginProvider {
    id: PluginId,
    carrier: Arc<dyn Carrier>,
    health: Arc<Health>,
    leases: Arc<Leases>,
    /// What the manifest says about its tools.
    declared: Vec<ManifestTool>,
}

impl PluginProvider {
    pub(super) fn new(
        id: PluginId,
        carrier: Arc<dyn Carrier>,
        health: Arc<Health>,
        declared: Vec<ManifestTool>,
    ) -> Self {
        Self { id, carrier, health, leases: Arc::default(), declared }
    }

    /// The plugin this provider belongs to.
    pub fn id(&self) -> &PluginId {
        &self.id
    }

    /// What confines the plugin; absent when it runs in this process, where nothing does.
    pub fn confinement(&self) -> Option<Confinement> {
        self.carrier.confinement()
    }

    /// Keeps this load of the plugin from being stopped until the lease is dropped. `None` once it is being stopped;
    /// a newer snapshot has its successor.
    pub fn lease(&self) -> Option<PluginLease> {
        self.leases.take()
    }

    /// What has been counted of this load.
    pub fn counters(&self) -> PluginCounters {
        self.health.counters()
    }

    /// Notes that the plugin did something wrong that was seen from outside.
    pub fn note(&self, misdeed: &Misdeed) {
        self.health.note(misdeed);
    }

    /// Asks the plugin for its tools of this turn. A tool whose description is unusable is left out with a warning.
    ///
    /// # Errors
    ///
    /// [`PluginFault`]; the caller decides what the turn is offered then. There is no time limit in here.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the answer.
    pub async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, PluginFault> {
        self.health.permit_listing().map_err(PluginFault::Quarantined)?;
        let listed = self.carrier.list_tools(context).await.inspect_err(|fault| {
            if let PluginFault::Panicked(text) | PluginFault::Failed(text) = fault {
                self.health.note(&Misdeed::ListingFailed(text.clone()));
            }
        })?;
        self.health.listed();
        Ok(listed.into_iter().map(|tool| self.guarded(tool)).collect())
    }

    fn guarded(&self, tool: Arc<dyn Tool>) -> Arc<dyn Tool> {
        let name = tool.schema().name;
        let floor = least_effect(&self.declared, &name);
        Arc::new(GuardedTool { tool, floor, health: Arc::clone(&self.health) })
    }

    /// Why the plugin is in quarantine; `None` when it is not.
    pub(super) fn quarantine(&self) -> Option<String> {
        self.health.reason()
    }

    /// Asks a service that the plugin offers; the inner result is the plugin's own answer.
    pub(super) async fn request(&self, service: String, body: Vec<u8>) -> Result<ServiceReply, PluginFault> {
        self.carrier.request(service, body).await
    }

    /// Tells the plugin that something happened, without waiting for it.
    pub(super) fn notify(&self, event: &Value) {
        self.carrier.notify(event);
    }

    /// Waits until nobody holds a lease; there are no more from then on.
    pub(super) async fn idle(&self) {
        self.leases.close_when_idle().await;
    }

    /// Lets the plugin finish within the deadline. Nobody gets a lease any more.
    pub(super) async fn stop(&self, deadline: Duration) {
        self.leases.close();
        self.carrier.stop(deadline).await;
    }
}

#[async_trait]
impl ToolProvider for PluginProvider {
    async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        self.list_tools(context).await.unwrap_or_else(|fault| {
            tracing::warn!(plugin = %self.id, %fault, "the plugin offers no tools");
            Vec::new()
        })
    }
}

impl std::fmt::Debug for PluginProvider {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PluginProvider").field("id", &self.id).finish_non_exhaustive()
    }
}
