//! A plugin's provider and tools as the `ToolProvider` and `Tool` that everybody else uses.
//!
//! Every touch of a plugin's object, down to its destructor, happens on the plugin's own threads; the caller only
//! waits, and stops waiting whenever it likes. Whatever comes back is bounded and checked: a plugin that panics,
//! hangs or answers garbage costs its caller one error.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use async_trait::async_trait;
use jackfield_plugin_abi::{
    AbiCallInfo, AbiError, AbiFuture, PluginPanicked, ProviderObj, RResult, RVec, ServiceReply, ToolObj, cancel_object,
    kind,
};
use jackfield_plugin_api::{
    CallContext, Effect, Tool, ToolError, ToolOptions, ToolOutput, ToolProviderContext, ToolSchema,
    wire::{ToolSpec, effect_from_abi, error_from_abi},
};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    calls::CallTable,
    health::{Health, Misdeed},
    host_link::FfiCancel,
    provider::{Carrier, PluginFault},
    runtime::{OwnedTask, PluginRuntime},
    sanitise::sanitise,
    workers::Work,
};
use crate::{config::Limits, ids::PluginId};

/// The provider of one plugin that runs in this process.
///
/// Dropping it drops the plugin's provider on the plugin's threads and then stops them, without waiting.
pub(super) struct ForeignToolProvider {
    plugin: Arc<Loaded>,
    /// Empty once stopped. Held for a few lines only.
    provider: Mutex<Option<Arc<InPlugin<ProviderObj>>>>,
}

/// What the provider and its tools share.
pub(super) struct Loaded {
    pub(super) id: PluginId,
    pub(super) runtime: Arc<PluginRuntime>,
    pub(super) calls: Arc<CallTable>,
    pub(super) limits: Arc<Limits>,
    pub(super) health: Arc<Health>,
    /// One permit a notice that waits for the plugin.
    pub(super) notices: Arc<Semaphore>,
}

impl ForeignToolProvider {
    pub(super) fn new(plugin: Arc<Loaded>, provider: InPlugin<ProviderObj>) -> Self {
        Self { plugin, provider: Mutex::new(Some(Arc::new(provider))) }
    }

    fn provider(&self) -> Result<Arc<InPlugin<ProviderObj>>, PluginFault> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(PluginFault::Stopped)
    }
}

#[async_trait]
impl Carrier for ForeignToolProvider {
    async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, PluginFault> {
        let provider = self.provider()?;
        let plugin = Arc::clone(&self.plugin);
        let context = serde_json::to_string(context).map_err(|error| PluginFault::Failed(error.to_string()))?;
        let mut task = self.plugin.runtime.spawn_for(Work::List, async move {
            let listed = provider.get().tools_for(context.as_str().into()).await?;
            let objects = listed.into_result().map_err(|error| PluginFault::Failed(error.message.into()))?;
            Ok(usable_tools(&plugin, objects))
        });
        task.result().await.unwrap_or(Err(PluginFault::Stopped))
    }

    /// Asks a service that the plugin offers; the inner result is the plugin's own answer.
    ///
    /// # Errors
    ///
    /// [`PluginFault`].
    async fn request(&self, service: String, body: Vec<u8>) -> Result<ServiceReply, PluginFault> {
        let provider = self.provider()?;
        let max = self.plugin.limits.plugin_answer_bytes;
        let mut task = self.plugin.runtime.spawn_owned(async move {
            let reply = provider.get().request(service.as_str().into(), body.as_slice().into()).await?;
            Ok(match reply {
                RResult::ROk(bytes) if bytes.len() > max => {
                    let text = format!("service {service} answered {} bytes, the limit is {max}", bytes.len());
                    RResult::RErr(AbiError::new(kind::FAILED, text))
                }
                reply => reply,
            })
        });
        task.result().await.unwrap_or(Err(PluginFault::Stopped))
    }

    /// Tells the plugin that something happened, without waiting for it. A plugin that is too far behind misses it.
    fn notify(&self, event: &Value) {
        let Ok(provider) = self.provider() else { return };
        let Ok(permit) = Arc::clone(&self.plugin.notices).try_acquire_owned() else {
            tracing::warn!(plugin = %self.plugin.id, "the plugin is behind with its notices and misses one");
            return;
        };
        let event = event.to_string();
        self.plugin.runtime.spawn(async move {
            let _permit = permit;
            provider.get().notify(event.as_str().into());
        });
    }

    /// Lets the plugin finish and drops its provider, both within the deadline; then its threads are stopped. What
    /// the plugin has not finished by then is abandoned.
    async fn stop(&self, deadline: Duration) {
        let taken = self.provider.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(provider) = taken else { return };
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let mut task = self.plugin.runtime.spawn_owned(async move {
            let finished = provider.get().shutdown(deadline_ms).await;
            // Dropped in place, and not handed to another task that the stop below would overtake.
            InPlugin::drop_here(provider);
            finished
        });
        let id = &self.plugin.id;
        match tokio::time::timeout(deadline, task.result()).await {
            Ok(Some(Ok(0)) | None) => {}
            Ok(Some(Ok(_))) => tracing::warn!(plugin = %id, "the plugin says it could not finish in time"),
            Ok(Some(Err(fault))) => tracing::warn!(plugin = %id, %fault, "the plugin failed while it was stopped"),
            Err(_) => tracing::warn!(plugin = %id, ?deadline, "the plugin did not stop in time and is abandoned"),
        }
        self.plugin.runtime.stop();
    }
}

impl Drop for ForeignToolProvider {
    fn drop(&mut self) {
        let taken = self.provider.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let runtime = Arc::clone(&self.plugin.runtime);
        if let Some(provider) = taken {
            self.plugin.runtime.spawn(async move {
                InPlugin::drop_here(provider);
                runtime.stop();
            });
        }
    }
}

impl std::fmt::Debug for ForeignToolProvider {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ForeignToolProvider").field("id", &self.plugin.id).finish_non_exhaustive()
    }
}

/// An object of a plugin. It may be used and dropped anywhere in the host: its destructor, which is plugin code, runs
/// on the plugin's threads.
pub(super) struct InPlugin<T: Send + 'static> {
    /// Empty only while it is being dropped.
    object: Option<T>,
    runtime: Arc<PluginRuntime>,
}

impl<T: Send + 'static> InPlugin<T> {
    pub(super) fn new(object: T, runtime: Arc<PluginRuntime>) -> Self {
        Self { object: Some(object), runtime }
    }

    pub(super) fn get(&self) -> &T {
        self.object.as_ref().expect("the object is there until it is dropped")
    }

    /// Drops the object on this very thread, when this is the last handle to it. For the plugin's threads only.
    pub(super) fn drop_here(this: Arc<Self>) {
        if let Ok(mut this) = Arc::try_unwrap(this) {
            drop(this.object.take());
        }
    }
}

impl<T: Send + 'static> Drop for InPlugin<T> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.runtime.discard(object);
        }
    }
}

/// One tool of a plugin, for as long as a turn offers it.
struct ForeignTool {
    plugin: Arc<Loaded>,
    /// What it says about itself, read once when it was listed.
    spec: ToolSpec,
    object: Arc<InPlugin<ToolObj>>,
}

#[async_trait]
impl Tool for ForeignTool {
    fn schema(&self) -> ToolSchema {
        self.spec.schema()
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        let stopped = || ToolError::Unavailable(format!("the plugin {} has been stopped", self.plugin.id));
        let mut task = self.start(&arguments, call)?;
        task.result().await.unwrap_or_else(|| Err(stopped()))
    }

    fn is_read_only(&self) -> bool {
        self.spec.read_only
    }

    fn is_concurrent_safe(&self) -> bool {
        self.spec.concurrent_safe
    }

    /// Asks the plugin on its own threads and waits for a short time; whatever goes wrong counts as destructive.
    fn effect(&self, arguments: &Value) -> Effect {
        if let Some(effect) = self.spec.effect.fixed() {
            return effect;
        }
        let Ok(arguments) = serde_json::to_vec(arguments) else { return Effect::Destructive };
        let object = Arc::clone(&self.object);
        let (sender, receiver) = mpsc::sync_channel(1);
        let _task = self.plugin.runtime.spawn_owned(async move {
            // The receiver is gone when the answer is late; then nobody wants it.
            let _ = sender.send(object.get().effect(arguments.as_slice().into()));
        });
        receiver.recv_timeout(self.plugin.limits.plugin_effect).map_or(Effect::Destructive, effect_from_abi)
    }

    fn declared_effect(&self) -> Option<Effect> {
        self.spec.effect.fixed()
    }

    fn options(&self) -> ToolOptions {
        self.spec.options.clone()
    }
}

impl ForeignTool {
    /// Starts the call on the plugin's threads. Progress, log lines and cancellation find it while it runs.
    fn start(
        &self,
        arguments: &Value,
        call: CallContext,
    ) -> Result<OwnedTask<Result<ToolOutput, ToolError>>, ToolError> {
        let arguments = serde_json::to_vec(arguments)?;
        let running = self.plugin.calls.enter(&call);
        let mut info = call.info().clone();
        info.call_id = running.id();
        let info_json = serde_json::to_string(&info)?;
        let numbers = AbiCallInfo { call_id: info.call_id, deadline_unix_ms: info.deadline_unix_ms };
        let (object, name) = (Arc::clone(&self.object), self.spec.name.clone());
        let (plugin, max) = (Arc::clone(&self.plugin), self.plugin.limits.plugin_answer_bytes);
        Ok(self.plugin.runtime.spawn_for(Work::Call(name.as_str().into()), async move {
            let _running = running;
            let cancel = cancel_object(FfiCancel(call));
            let answer = object.get().execute(arguments.as_slice().into(), numbers, info_json.as_str().into(), cancel);
            read_answer(answer, max).await.map_err(|fault| fault.told(&name, &plugin))
        }))
    }
}

/// What a call can come back with besides its output.
enum AnswerFault {
    Refused(AbiError),
    Panicked(String),
    TooLarge { found: usize, max: usize },
    Garbage(serde_json::Error),
}

async fn read_answer(answer: AbiFuture<RResult<RVec<u8>, AbiError>>, max: usize) -> Result<ToolOutput, AnswerFault> {
    let answer = answer.await.map_err(|panic| AnswerFault::Panicked(panic.message))?;
    let bytes = answer.into_result().map_err(AnswerFault::Refused)?;
    if bytes.len() > max {
        return Err(AnswerFault::TooLarge { found: bytes.len(), max });
    }
    serde_json::from_slice(&bytes).map_err(AnswerFault::Garbage)
}

impl AnswerFault {
    /// The error for the model. A panic is counted by whoever made the call, the others here, where they are known.
    fn told(self, tool: &str, plugin: &Loaded) -> ToolError {
        let bad_answer = |text: String| {
            plugin.health.note(&Misdeed::BadAnswer(text.clone()));
            ToolError::Failed(text)
        };
        match self {
            AnswerFault::Refused(error) => error_from_abi(error),
            AnswerFault::Panicked(text) => ToolError::Panicked(format!("the tool {tool} panicked: {text}")),
            AnswerFault::TooLarge { found, max } => {
                bad_answer(format!("the tool {tool} answered {found} bytes, the limit is {max}; ask it for less"))
            }
            AnswerFault::Garbage(error) => bad_answer(format!(
                "the tool {tool} of plugin {} answered something that is not a tool output ({error}); the plugin is faulty",
                plugin.id
            )),
        }
    }
}

impl From<PluginPanicked> for PluginFault {
    fn from(panic: PluginPanicked) -> Self {
        PluginFault::Panicked(panic.message)
    }
}

/// The tools whose descriptions can be used. Runs on the plugin's threads.
fn usable_tools(plugin: &Arc<Loaded>, objects: RVec<ToolObj>) -> Vec<Arc<dyn Tool>> {
    let (id, max) = (&plugin.id, plugin.limits.tools_per_turn);
    if objects.len() > max {
        tracing::warn!(plugin = %id, offered = objects.len(), max, "the plugin offers more tools than a turn takes; the rest is left out");
    }
    let mut names = BTreeSet::new();
    let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
    for object in objects.into_iter().take(max) {
        match parse_spec(&object.spec(), plugin.limits.plugin_spec_bytes) {
            Ok(spec) if !names.insert(spec.name.clone()) => {
                tracing::warn!(plugin = %id, tool = spec.name, "the plugin offers two tools of this name; only the first is taken");
            }
            Ok(spec) => {
                let object = Arc::new(InPlugin::new(object, Arc::clone(&plugin.runtime)));
                tools.push(Arc::new(ForeignTool { plugin: Arc::clone(plugin), spec, object }));
            }
            Err(reason) => tracing::warn!(plugin = %id, reason, "a tool of the plugin is left out"),
        }
    }
    tools
}

/// Reads what a tool says about itself.
pub(super) fn parse_spec(text: &str, max: usize) -> Result<ToolSpec, String> {
    if text.is_empty() {
        return Err("it panicked while it described itself".to_owned());
    }
    if text.len() > max {
        return Err(format!("its description has {} bytes, the limit is {max}", text.len()));
    }
    let mut spec: ToolSpec = serde_json::from_str(text).map_err(|error| {
        format!("its description is not understood ({error}): {}", text.chars().take(120).collect::<String>())
    })?;
    if sanitise(&mut spec) {
        tracing::warn!(tool = spec.name, "the description of a plugin's tool holds invisible text, which is taken out");
    }
    Ok(spec)
}
