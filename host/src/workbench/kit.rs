//! The check of one plugin file, seen from inside the child that runs it: load, try, stop, and write down what was
//! found as it is found.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jackfield_plugin_api::{
    Tool, ToolProviderContext,
    testing::{Conformance, Finding, Severity, TestHost},
};
use tokio::time::Instant;

use super::{
    check::{CheckRequest, Line},
    single,
};
use crate::{
    clock::SharedClock,
    config::{Limits, PluginSettings, PluginsConfig, TrustConfig},
    ids::PluginId,
    plugins::{self, Manifest},
    tools::SchemaCache,
};

/// How long threads may take to end after the plugin has been stopped.
const THREADS_END_WITHIN: Duration = Duration::from_secs(3);

/// Runs the kit and writes the report. For a process of its own, which ends afterwards.
pub async fn run_kit(request: CheckRequest, report: File, clock: SharedClock) {
    let report = Report(Mutex::new(report));
    try_all(&request, &report, clock).await;
    report.write(&Line::Done);
}

struct Report(Mutex<File>);

impl Report {
    fn begin(&self, what: &str) {
        self.write(&Line::Begin(what.to_owned()));
    }

    fn found(&self, finding: Finding) {
        self.write(&Line::Found(finding));
    }

    fn write(&self, line: &Line) {
        let mut text = serde_json::to_string(line).expect("a line of the report is JSON");
        text.push('\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(%error, "the report cannot be written");
        }
    }
}

async fn try_all(request: &CheckRequest, report: &Report, clock: SharedClock) {
    let limits = Limits::default();
    let before = threads();
    report.begin("the start of the plugin");
    let loaded = match single::load(&request.file, &settings(request, &limits), &limits, clock).await {
        Ok(loaded) => loaded,
        Err(reason) => return report.found(Finding::new(Severity::Fail, "start", "", reason)),
    };
    report.found(Finding::new(Severity::Pass, "start", "", "it starts and lists its tools"));
    let provider = loaded.entry.provider.clone().expect("an active plugin has a provider");
    report.begin("the list of tools");
    let list = || async { provider.list_tools(&ToolProviderContext::default()).await };
    let (tools, again) = match (list().await, list().await) {
        (Ok(tools), Ok(again)) => (tools, again),
        (Err(fault), _) | (_, Err(fault)) => {
            return report.found(Finding::new(Severity::Fail, "tools", "", format!("it lists no tools: {fault}")));
        }
    };
    let kit =
        Conformance { providers: request.providers.clone(), call_all: request.call_all, ..Conformance::default() };
    let lists = kit.check_lists(&tools, &again);
    let manifest = loaded.entry.manifest.as_ref().map(|manifest| about_manifest(manifest, &tools));
    lists.into_iter().chain(manifest).chain(about_schemas(&tools, &limits)).for_each(|finding| report.found(finding));
    for tool in &tools {
        let findings = kit.check_tools(&TestHost::new(), std::slice::from_ref(tool), |what| report.begin(what)).await;
        findings.into_iter().for_each(|finding| report.found(finding));
    }
    drop((tools, again, provider));
    report.begin("the end of the plugin");
    let began = Instant::now();
    loaded.plugins.shutdown(limits.plugin_shutdown).await;
    report.found(about_end(began.elapsed(), limits.plugin_shutdown));
    drop(loaded);
    if let Some(before) = before {
        report.found(about_threads(&before).await);
    }
}

/// The operator's settings are not the plugin's business here, but for its own configuration.
fn settings(request: &CheckRequest, limits: &Limits) -> PluginsConfig {
    let id = plugins::inspect(&request.file, &TrustConfig::default(), limits)
        .map(|inspection| inspection.manifest.id)
        .unwrap_or_default();
    let settings = PluginSettings { config: request.config.clone(), ..PluginSettings::default() };
    PluginsConfig { by_id: BTreeMap::from([(PluginId::new(id), settings)]), ..PluginsConfig::default() }
}

/// Whoever reads the manifest before the plugin runs decides by it.
fn about_manifest(manifest: &Manifest, tools: &[Arc<dyn Tool>]) -> Finding {
    let wrong = |text: String| Finding::new(Severity::Fail, "manifest", "", text);
    for tool in tools {
        let name = tool.schema().name;
        let Some(named) = manifest.tools.iter().find(|named| named.name == name) else {
            return wrong(format!("the manifest does not name the tool {name}; add it to `tools`"));
        };
        let says = tool.declared_effect().map_or("by_arguments", |effect| effect.as_str());
        let declared = named.effect.as_deref().unwrap_or("by_arguments");
        if declared != says {
            return wrong(format!(
                "the manifest says {declared} for {name}, the tool says {says}; correct one of the two"
            ));
        }
    }
    let offered = |name: &str| tools.iter().any(|tool| tool.schema().name == name);
    match manifest.tools.iter().find(|named| !offered(&named.name)) {
        Some(named) => wrong(format!(
            "the manifest names the tool {}, which the plugin does not offer to an empty turn (or describes so that a host leaves it out); correct one of the two",
            named.name
        )),
        None => Finding::new(Severity::Pass, "manifest", "", "says what the plugin does"),
    }
}

/// What this host itself makes of the schemas.
fn about_schemas(tools: &[Arc<dyn Tool>], limits: &Limits) -> Vec<Finding> {
    let cache = SchemaCache::new(limits);
    let check = |tool: &Arc<dyn Tool>| {
        let schema = tool.schema();
        let name = schema.name.clone();
        let fault = cache.lint(schema).err()?;
        Some(Finding::new(Severity::Fail, "schema", &name, format!("this host does not offer it: {fault}")))
    };
    tools.iter().filter_map(check).collect()
}

fn about_end(took: Duration, limit: Duration) -> Finding {
    if took >= limit {
        let text = format!("it did not stop within {limit:?} and is abandoned; make `shutdown` and `Drop` quicker");
        return Finding::new(Severity::Fail, "shutdown", "", text);
    }
    Finding::new(Severity::Pass, "shutdown", "", "ends in time")
}

/// Threads that go on after the end are left behind at every reload.
async fn about_threads(before: &BTreeMap<u32, String>) -> Finding {
    let deadline = Instant::now() + THREADS_END_WITHIN;
    loop {
        let now = threads().unwrap_or_default();
        let stray: Vec<String> = now
            .into_iter()
            .filter(|(id, name)| !before.contains_key(id) && name != OWN_THREADS)
            .map(|(_, name)| name)
            .collect();
        if stray.is_empty() {
            return Finding::new(Severity::Pass, "threads", "", "no thread goes on after the end");
        }
        if Instant::now() >= deadline {
            let text = format!(
                "{} threads go on after the end: {}; end them in `shutdown` or `Drop`",
                stray.len(),
                stray.join(", ")
            );
            return Finding::new(Severity::Fail, "threads", "", text);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The name that the threads of the child's own runtime must have, to be told from the plugin's.
pub const OWN_THREADS: &str = "plugin-check";

/// The threads of this process by number, where the system tells.
fn threads() -> Option<BTreeMap<u32, String>> {
    let entries = fs::read_dir("/proc/self/task").ok()?.filter_map(Result::ok);
    let named = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        // A thread that has just ended has no name any more.
        Some((id, fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned()))
    });
    Some(named.collect())
}
