//! Starts one plugin where the operator wants its code to run, and tries it out before anybody else gets it.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
};

use jackfield_plugin_api::{Tool, ToolProviderContext};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    guarded::contradictions,
    health::Health,
    host_link::Peers,
    in_process::{self, Libraries},
    manifest::Manifest,
    own_config,
    private::PrivateCopy,
    provider::{Carrier, PluginProvider},
};
#[cfg(unix)]
use super::{permissions::decide, worker};
use crate::{
    config::{Isolation, Limits, PluginPermissions, SecretReferences},
    ids::PluginId,
};

/// What it takes to start a plugin.
#[derive(Clone)]
pub(super) struct Launch {
    pub(super) id: PluginId,
    pub(super) manifest: Manifest,
    /// The verified bytes.
    pub(super) copy: PrivateCopy,
    /// The plugin's own configuration, an object.
    pub(super) config: Value,
    /// What secret fields of it stand for.
    pub(super) references: SecretReferences,
    pub(super) limits: Arc<Limits>,
    /// Where its code runs.
    pub(super) isolation: Isolation,
    /// What it may touch in a process of its own, as far as it asks for it.
    pub(super) permissions: PluginPermissions,
    /// The program that such a process runs.
    pub(super) worker_program: Option<PathBuf>,
    /// The other plugins, whose services it may ask; gone when the server is.
    pub(super) peers: Weak<dyn Peers>,
    /// Where its faults are counted.
    pub(super) health: Arc<Health>,
    /// Counts what is opened in this process.
    pub(super) libraries: Arc<Libraries>,
}

/// A plugin that works.
pub(super) struct Started {
    pub(super) provider: PluginProvider,
    /// Names of the tools it offers for an empty turn, sorted.
    pub(super) tools: Vec<String>,
    /// What is odd about it and does not keep it from running.
    pub(super) warnings: Vec<String>,
}

/// Starts the plugin and asks it once for its tools, all within one budget.
///
/// # Errors
///
/// Why it does not work, for the operator; the file's name is left to whoever reports it.
///
/// # Cancel safety
///
/// Dropping the future abandons the plugin.
pub(super) async fn start(mut launch: Launch) -> Result<Started, String> {
    let schema = launch.manifest.config_schema.as_ref();
    let prepared = own_config::prepare(launch.id.as_str(), &launch.config, schema, &launch.references)?;
    launch.config = prepared.config;
    if let Some(peers) = launch.peers.upgrade() {
        peers.services().configured(&launch.id, launch.config.clone());
    }
    let deadline = Instant::now() + launch.limits.plugin_create;
    let carrier = carry(&launch, deadline).await?;
    let tools = try_tools(&*carrier, deadline).await.map_err(|reason| format!("it started, but {reason}"))?;
    let declared = launch.manifest.tools;
    let warnings = contradictions(&declared, &tools);
    let provider = PluginProvider::new(launch.id, carrier, launch.health, declared);
    Ok(Started { provider, tools: names(&tools), warnings })
}

/// Decides where the plugin's code runs.
async fn carry(launch: &Launch, deadline: Instant) -> Result<Arc<dyn Carrier>, String> {
    match launch.isolation {
        Isolation::InProcess => Ok(Arc::new(in_process::create(launch, deadline).await?)),
        Isolation::Process => carry_in_worker(launch, deadline).await,
    }
}

#[cfg(unix)]
async fn carry_in_worker(launch: &Launch, deadline: Instant) -> Result<Arc<dyn Carrier>, String> {
    let decision = decide(&launch.manifest.permissions, &launch.permissions);
    Ok(Arc::new(worker::create(launch, &decision, deadline).await?))
}

#[cfg(not(unix))]
async fn carry_in_worker(launch: &Launch, _: Instant) -> Result<Arc<dyn Carrier>, String> {
    Err(format!(
        "it is to run isolated (isolation = \"process\"), which this system cannot do yet; set [plugins.{}] isolation = \
         \"in-process\"",
        launch.id
    ))
}

/// A plugin that cannot list its tools for an empty turn will not do so for a real one.
async fn try_tools(carrier: &dyn Carrier, deadline: Instant) -> Result<Vec<Arc<dyn Tool>>, String> {
    let context = ToolProviderContext::default();
    match tokio::time::timeout_at(deadline, carrier.list_tools(&context)).await {
        Ok(Ok(tools)) => Ok(tools),
        Ok(Err(fault)) => Err(format!("it cannot list its tools for an empty turn: {fault}; repair its `tools_for`")),
        Err(_) => {
            Err("it did not list its tools in the time left (limit plugin_create); make its `tools_for` quicker"
                .to_owned())
        }
    }
}

fn names(tools: &[Arc<dyn Tool>]) -> Vec<String> {
    let mut names: Vec<String> = tools.iter().map(|tool| tool.schema().name).collect();
    names.sort();
    names
}
