//! Makes a plugin's provider in this process, on threads of the plugin's own.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use jackfield_plugin_abi::{ProviderObj, host_object};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    foreign::{ForeignToolProvider, InPlugin, Loaded},
    host_link::FfiHost,
    load,
    provider::PluginFault,
    runtime::PluginRuntime,
    start::Launch,
    workers::Work,
};

/// Counts the libraries that one server has opened in this process. None of them is ever closed, so their number only
/// grows.
pub(super) struct Libraries {
    opened: AtomicUsize,
    max: usize,
}

impl Libraries {
    pub(super) fn new(max: usize) -> Self {
        Self { opened: AtomicUsize::new(0), max }
    }

    /// Counts one more, and warns in time.
    fn admit(&self) -> Result<(), String> {
        let max = self.max;
        let count = |opened| (opened < max).then_some(opened + 1);
        let Ok(before) = self.opened.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) else {
            return Err(format!(
                "this process has opened {max} plugin libraries and cannot close any of them (limit \
                 plugin_generations); restart the server, or raise the limit"
            ));
        };
        let opened = before + 1;
        if opened * 8 >= max * 7 {
            tracing::warn!(
                opened,
                max,
                "nearly as many plugin libraries have been opened as this process may hold; no plugin is loaded past that until a restart (limit plugin_generations)"
            );
        }
        Ok(())
    }
}

/// Opens the library and makes its provider, before the deadline.
///
/// # Errors
///
/// Why it did not start.
pub(super) async fn create(launch: &Launch, deadline: Instant) -> Result<ForeignToolProvider, String> {
    launch.libraries.admit()?;
    let health = Arc::clone(&launch.health);
    let runtime = PluginRuntime::start(&launch.id, &launch.limits, move |stuck| health.stuck(stuck))
        .map_err(|error| format!("its threads cannot be started: {error}"))?;
    let plugin = Arc::new(Loaded {
        id: launch.id.clone(),
        runtime: Arc::new(runtime),
        calls: Arc::default(),
        limits: Arc::clone(&launch.limits),
        health: Arc::clone(&launch.health),
        notices: Arc::new(Semaphore::new(launch.limits.plugin_requests)),
    });
    match create_in_time(launch, &plugin, deadline).await {
        Ok(provider) => Ok(ForeignToolProvider::new(plugin, provider)),
        Err(reason) => {
            plugin.runtime.stop();
            Err(reason)
        }
    }
}

async fn create_in_time(
    launch: &Launch,
    plugin: &Arc<Loaded>,
    deadline: Instant,
) -> Result<InPlugin<ProviderObj>, String> {
    let mut task = plugin.runtime.spawn_for(Work::Start, open_and_create(launch.clone(), Arc::clone(plugin)));
    let Ok(created) = tokio::time::timeout_at(deadline, task.result()).await else {
        let budget = launch.limits.plugin_create;
        return Err(format!(
            "it did not start within {budget:?} (limit plugin_create); make its `init` quicker or raise the limit"
        ));
    };
    created.unwrap_or_else(|| Err("it was stopped while it started".to_owned()))
}

/// Runs on the plugin's threads.
async fn open_and_create(launch: Launch, plugin: Arc<Loaded>) -> Result<InPlugin<ProviderObj>, String> {
    let checked = load::open(&launch.copy).map_err(|error| error.to_string())?;
    let config = launch.config.to_string();
    let host = FfiHost::new(
        plugin.id.clone(),
        Arc::clone(&plugin.runtime),
        Arc::clone(&plugin.calls),
        Weak::clone(&launch.peers),
        Arc::clone(&plugin.limits),
    );
    let created = checked.module.create()(host_object(host), config.as_str().into());
    let provider = created.await.map_err(PluginFault::from).map_err(|fault| format!("it did not start: {fault}"))?;
    let provider = provider.into_result().map_err(|error| {
        format!("it refused to start: {}; check its configuration, [plugins.{}.config]", error.message, plugin.id)
    })?;
    Ok(InPlugin::new(provider, Arc::clone(&plugin.runtime)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_counted_up_to_the_limit() {
        let libraries = Libraries::new(2);
        libraries.admit().unwrap();
        libraries.admit().unwrap();
        for _ in 0..2 {
            let refusal = libraries.admit().unwrap_err();
            assert!(refusal.contains("opened 2") && refusal.contains("plugin_generations"), "{refusal}");
        }
    }
}
