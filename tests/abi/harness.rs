//! Loads plugins into this process and calls their tools, without a server around them.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jackfield::{
    clock::SystemClock,
    config::{Isolation, Limits, PluginPermissions, WatchMode},
    ids::PluginId,
    plugins::{PluginEntry, PluginSettings, PluginState, Plugins, PluginsConfig},
};
use jackfield_plugin_api::{
    BoxFuture, CallContext, CallInfo, CallLink, Host, Tool, ToolError, ToolOutput, ToolProviderContext,
};
use jackfield_tests::plugins::PluginFolder;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longest wait for something that should happen soon; generous, because the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A folder of plugins, and the host that loaded them.
pub(crate) struct Loaded {
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) folder: PluginFolder,
}

/// What a test says about a host before it starts.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) settings: BTreeMap<PluginId, PluginSettings>,
    pub(crate) limits: Limits,
    pub(crate) isolation: Isolation,
    pub(crate) worker_program: Option<PathBuf>,
    pub(crate) watch: WatchMode,
}

impl Setup {
    /// Gives a plugin its configuration.
    pub(crate) fn config(mut self, id: &str, config: Value) -> Self {
        self.settings.entry(PluginId::new(id)).or_default().config = config;
        self
    }

    /// Changes the operator's settings of a plugin.
    pub(crate) fn settings(mut self, id: &str, change: impl FnOnce(&mut PluginSettings)) -> Self {
        change(self.settings.entry(PluginId::new(id)).or_default());
        self
    }

    /// Runs plugins in processes of their own, of a program that embeds the server.
    pub(crate) fn isolated() -> Self {
        let program = Some(env!("CARGO_BIN_EXE_fixture_embedder").into());
        Self { isolation: Isolation::Process, worker_program: program, ..Self::default() }
    }

    /// Grants a plugin permissions.
    pub(crate) fn grant(self, id: &str, permissions: PluginPermissions) -> Self {
        self.settings(id, |settings| settings.permissions = permissions)
    }

    /// Changes limits.
    pub(crate) fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// How changes in the folder are noticed.
    pub(crate) fn watch(mut self, watch: WatchMode) -> Self {
        self.watch = watch;
        self
    }

    /// Starts to load, and does not wait.
    pub(crate) async fn start(self, folder: PluginFolder) -> Loaded {
        let mut config = PluginsConfig::from(folder.path());
        config.by_id = self.settings;
        config.default_isolation = self.isolation;
        config.worker_program = self.worker_program;
        config.watch = self.watch;
        let plugins = Plugins::start(&config, &self.limits, Arc::new(SystemClock)).await;
        Loaded { plugins: plugins.expect("the folder can be used"), folder }
    }

    /// Loads everything in the folder.
    pub(crate) async fn load(self, folder: PluginFolder) -> Loaded {
        let loaded = self.start(folder).await;
        assert!(loaded.plugins.wait_settled(SOON).await, "the plugins are settled: {:#?}", loaded.plugins.reports());
        loaded
    }
}

/// Loads everything in the folder, as it comes.
pub(crate) async fn load(folder: PluginFolder) -> Loaded {
    Setup::default().load(folder).await
}

/// Loads the misbehaving fixture as `fixture_00` with this configuration.
pub(crate) async fn load_fixture(config: Value) -> Loaded {
    Setup::default().config("fixture_00", config).load(PluginFolder::new().with_fixture("fixture_00")).await
}

impl Loaded {
    pub(crate) fn entry(&self, id: &str) -> Arc<PluginEntry> {
        let snapshot = self.plugins.snapshot();
        // The one that counts comes before those that are being seen out.
        let entry = snapshot.entries.iter().find(|entry| entry.id.as_str() == id);
        entry.unwrap_or_else(|| panic!("{id} is among {:#?}", self.plugins.reports())).clone()
    }

    /// Why a plugin does not run.
    pub(crate) fn reason(&self, id: &str) -> String {
        match &self.entry(id).state {
            PluginState::Rejected(reason) | PluginState::Failed(reason) | PluginState::Disabled(reason) => {
                reason.clone()
            }
            other => panic!("{id} is {other:?}, expected a reason"),
        }
    }

    /// The tools of an active plugin, for a turn with an id.
    pub(crate) async fn tools(&self, id: &str) -> Vec<Arc<dyn Tool>> {
        let entry = self.entry(id);
        let provider = entry.provider.as_ref().unwrap_or_else(|| panic!("{id} is active: {:?}", entry.state));
        provider.list_tools(&turn()).await.expect("the plugin lists its tools")
    }

    pub(crate) async fn tool(&self, id: &str, name: &str) -> Arc<dyn Tool> {
        let tools = self.tools(id).await;
        tools.into_iter().find(|tool| tool.schema().name == name).unwrap_or_else(|| panic!("{id} offers {name}"))
    }

    /// Calls a tool and waits for its end.
    pub(crate) async fn call(&self, id: &str, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        let tool = self.tool(id, tool).await;
        let (call, _watched) = call(0);
        tokio::time::timeout(SOON, tool.execute(arguments, call)).await.expect("the call ends")
    }

    /// Fails unless the plugin still answers.
    pub(crate) async fn assert_answers(&self, id: &str) {
        let output = self.call(id, "echo", json!({ "still": "there" })).await;
        assert_eq!(output, Ok(ToolOutput::json(json!({ "still": "there" }))), "{id} still answers");
    }
}

/// The context of a turn.
pub(crate) fn turn() -> ToolProviderContext {
    let mut context = ToolProviderContext::default();
    context.turn_id = Some("turn-1".to_owned());
    context.user_message = "hello".to_owned();
    context
}

/// What a call told the host, and the way to cancel it.
pub(crate) struct Watched {
    progress: Mutex<Vec<(String, String)>>,
    cancelled: watch::Sender<bool>,
}

impl Watched {
    pub(crate) fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    pub(crate) fn progress(&self) -> Vec<(String, String)> {
        self.progress.lock().unwrap().clone()
    }
}

impl CallLink for Watched {
    fn progress(&self, fraction: f32, message: &str) {
        self.progress.lock().unwrap().push((fraction.to_string(), message.to_owned()));
    }

    fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    fn cancelled(&self) -> BoxFuture<()> {
        let mut cancelled = self.cancelled.subscribe();
        Box::pin(async move {
            if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// A call with this number, and what is seen of it.
pub(crate) fn call(call_id: u64) -> (CallContext, Arc<Watched>) {
    let watched = Arc::new(Watched { progress: Mutex::default(), cancelled: watch::Sender::new(false) });
    let mut info = CallInfo::default();
    info.tool = "tool".to_owned();
    info.tool_call_id = format!("call-{call_id}");
    info.conversation_id = Some("conversation-1".to_owned());
    info.call_id = call_id;
    (CallContext::new(info, Arc::clone(&watched) as Arc<dyn CallLink>, Host::detached()), watched)
}

/// The text of an error, whatever kind.
pub(crate) fn error_text(result: Result<ToolOutput, ToolError>) -> String {
    match result {
        Err(error) => error.message().to_owned(),
        Ok(output) => panic!("expected an error, got {output:?}"),
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("it did not happen that {what}"));
}

/// The lines this program has logged that contain all of these texts. Call [`watch_log`] first.
pub(crate) fn logged(texts: &[&str]) -> Vec<String> {
    let log = String::from_utf8_lossy(&log().lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned).collect()
}

/// Keeps the log of this program from now on; tests of one process share it.
pub(crate) fn watch_log() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        tracing_subscriber::fmt().with_ansi(false).with_env_filter("info").with_writer(|| LogWriter).init();
    });
}

fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    &LOG
}

struct LogWriter;

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        log().lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
