//! Runs a plugin without a server, for its author's tests.
//!
//! ```
//! use jackfield_plugin_api::{prelude::*, testing::TestHost};
//! # struct Hello;
//! # #[async_trait]
//! # impl ToolProvider for Hello {
//! #     async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
//! #         #[derive(Deserialize, JsonSchema)]
//! #         struct Person { name: String }
//! #         vec![tool("greet", "Greets.", Effect::ReadOnly, |person: Person, call: CallContext| async move {
//! #             call.progress(0.5, "half way");
//! #             Ok::<_, ToolError>(format!("hello {}", person.name))
//! #         })]
//! #     }
//! # }
//! # #[async_trait]
//! # impl Plugin for Hello {
//! #     async fn init(_: Host, _: Value) -> Result<Self, PluginError> { Ok(Hello) }
//! # }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let host = TestHost::new();
//! let hello = host.provider::<Hello>(json!({})).await.unwrap();
//! let output = hello.call("greet", json!({ "name": "Ann" })).await.unwrap();
//! assert_eq!(output.to_text(), "hello Ann");
//! assert_eq!(host.progress()[0].message, "half way");
//! # });
//! ```
//!
//! Tools run on the test's own runtime, so a paused tokio clock works. The host checks arguments against the schema
//! before a real call; here only the tool's own reading of them does.
//!
//! [`conformance!`](crate::conformance) is one more test, of all that is expected of every plugin.

#[cfg(feature = "tokio")]
mod conformance;
mod finding;
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "the conformance kit, which needs tokio, rolls the dice"))]
mod fuzz;
mod lint;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use schemars::JsonSchema;
use serde_json::Value;

#[cfg(feature = "tokio")]
pub use self::conformance::{Conformance, assert_conformance};
pub use self::{
    finding::{Finding, Severity},
    fuzz::smallest_arguments,
    lint::{Provider, is_hidden_character, lint},
};
use crate::{
    BoxFuture, CallContext, CallInfo, CallLink, Host, HostLink, LogLevel, Plugin, PluginError, PluginManifest, Tool,
    ToolError, ToolOutput, ToolProviderContext,
    schema::schema_of,
    scope::{Link, Scope},
    wire::{DeclaredEffect, ToolSpec},
};

/// A host that keeps what it is told. Clones are the same host.
#[derive(Clone, Default)]
pub struct TestHost {
    kept: Arc<Kept>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Its severity.
    pub level: LogLevel,
    /// Where it comes from, a module path for `tracing` events.
    pub target: String,
    /// Its text.
    pub message: String,
    /// Its fields, an object.
    pub fields: Value,
    /// The call it belongs to, 0 for none.
    pub call_id: u64,
}

/// A progress report.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The call that reported.
    pub call_id: u64,
    /// From 0 to 1, NaN when unknown.
    pub fraction: f32,
    /// Its text.
    pub message: String,
}

type Service = Arc<dyn Fn(Value) -> Result<Value, ToolError> + Send + Sync>;

/// All locks are held for a line, never across an await.
#[derive(Default)]
struct Kept {
    log: Mutex<Vec<LogLine>>,
    progress: Mutex<Vec<Progress>>,
    notices: Mutex<Vec<Value>>,
    services: Mutex<HashMap<String, Service>>,
    last_call_id: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestHost {
    /// A host with empty records and no services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a service, for example `secret/1`.
    #[must_use]
    pub fn with_service(
        self,
        name: &str,
        answer: impl Fn(Value) -> Result<Value, ToolError> + Send + Sync + 'static,
    ) -> Self {
        lock(&self.kept.services).insert(name.to_owned(), Arc::new(answer));
        self
    }

    /// This host, as a plugin sees it.
    pub fn host(&self) -> Host {
        Host::new(self.kept.clone())
    }

    /// Starts a plugin with its configuration.
    ///
    /// # Errors
    ///
    /// What [`Plugin::init`] says.
    pub async fn provider<P: Plugin>(&self, config: Value) -> Result<TestProvider<P>, PluginError> {
        let started = Inside { future: P::init(self.host(), config), surroundings: self.surroundings(0) };
        Ok(TestProvider { plugin: Arc::new(started.await?), host: self.clone() })
    }

    /// Calls a tool that needs no provider.
    pub fn call(&self, tool: &Arc<dyn Tool>, arguments: Value) -> TestCall {
        let call_id = self.kept.last_call_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut info = CallInfo { call_id, tool_call_id: format!("call-{call_id}"), ..CallInfo::default() };
        info.tool = tool.schema().name;
        info.cancel_grace_ms = tool.options().cancel_grace_ms.unwrap_or(500);
        let switch = Arc::new(Switch { kept: self.kept.clone(), call_id, state: Arc::default() });
        let context = CallContext::new(info, switch.clone(), self.host());
        let tool = tool.clone();
        let future: BoxFuture<_> = Box::pin(async move { tool.execute(arguments, context).await });
        TestCall { inside: Inside { future, surroundings: self.surroundings(call_id) }, switch }
    }

    /// The log so far: `Host::log`, and with the feature `tracing` the events of the code that ran here.
    pub fn log(&self) -> Vec<LogLine> {
        lock(&self.kept.log).clone()
    }

    /// The progress reports so far.
    pub fn progress(&self) -> Vec<Progress> {
        lock(&self.kept.progress).clone()
    }

    /// What [`Host::notify`] was told so far.
    pub fn notices(&self) -> Vec<Value> {
        lock(&self.kept.notices).clone()
    }

    fn surroundings(&self, call_id: u64) -> Surroundings {
        Surroundings {
            link: Arc::new(Link { host: self.kept.clone() }),
            call_id,
            #[cfg(feature = "tracing")]
            dispatch: crate::forward::dispatch(),
        }
    }
}

impl std::fmt::Debug for TestHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TestHost").field("log", &self.log()).field("progress", &self.progress()).finish()
    }
}

impl HostLink for Kept {
    fn log_enabled(&self, _: LogLevel) -> bool {
        true
    }

    fn log(&self, level: LogLevel, target: &str, message: &str, fields: &Value, call_id: u64) {
        let line =
            LogLine { level, target: target.to_owned(), message: message.to_owned(), fields: fields.clone(), call_id };
        lock(&self.log).push(line);
    }

    fn request(&self, service: &str, body: Vec<u8>) -> BoxFuture<Result<Vec<u8>, ToolError>> {
        let found = lock(&self.services).get(service).cloned();
        let service = service.to_owned();
        Box::pin(async move {
            let Some(answer) = found else {
                return Err(ToolError::Unavailable(format!("service {service} is not offered by this test host")));
            };
            Ok(serde_json::to_vec(&answer(serde_json::from_slice(&body)?)?)?)
        })
    }

    fn notify(&self, event: &Value) {
        lock(&self.notices).push(event.clone());
    }
}

/// A running plugin.
pub struct TestProvider<P> {
    plugin: Arc<P>,
    host: TestHost,
}

impl<P: Plugin> TestProvider<P> {
    /// The plugin itself.
    pub fn plugin(&self) -> &P {
        &self.plugin
    }

    /// The tools it offers to an empty turn, in its own order.
    pub async fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.tools_for(&ToolProviderContext::default()).await
    }

    /// The tools it offers to this turn.
    pub async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        Inside { future: self.plugin.tools_for(context), surroundings: self.host.surroundings(0) }.await
    }

    /// Calls a tool by name and waits for its result.
    ///
    /// # Errors
    ///
    /// What the tool says; [`ToolError::Unavailable`] when there is no such tool.
    pub async fn call(&self, name: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        self.start(name, arguments).await?.await
    }

    /// Makes a call that can be cancelled; await it, or spawn it, to run it.
    ///
    /// # Errors
    ///
    /// [`ToolError::Unavailable`] when there is no such tool.
    pub async fn start(&self, name: &str, arguments: Value) -> Result<TestCall, ToolError> {
        let tools = self.tools().await;
        match tools.iter().find(|tool| tool.schema().name == name) {
            Some(tool) => Ok(self.host.call(tool, arguments)),
            None => {
                let names: Vec<_> = tools.iter().map(|tool| tool.schema().name).collect();
                Err(ToolError::Unavailable(format!("no tool is named {name}; there are {}", names.join(", "))))
            }
        }
    }

    /// Ends the plugin as a host does.
    pub async fn shutdown(self) {
        Inside { future: self.plugin.shutdown(), surroundings: self.host.surroundings(0) }.await;
    }

    /// Compares the manifest with what the plugin offers to an empty turn: it must be JSON, name the same tools, and
    /// declare the same effects.
    ///
    /// # Errors
    ///
    /// The first difference, in a sentence.
    pub async fn check_manifest(&self) -> Result<(), String>
    where
        P: PluginManifest,
    {
        let manifest: Value = serde_json::from_str(&format!("{{{}}}", P::FIELDS))
            .map_err(|error| format!("the manifest is not JSON, probably because of config_schema: {error}"))?;
        let declared: HashMap<String, DeclaredEffect> =
            manifest["tools"].as_array().into_iter().flatten().map(declared_tool).collect();
        let offered = self.tools().await;
        for tool in &offered {
            let spec = ToolSpec::of(tool.as_ref());
            match declared.get(&spec.name) {
                None => return Err(format!("the manifest does not name the tool {}", spec.name)),
                Some(effect) if *effect != spec.effect => {
                    let name = spec.name;
                    return Err(format!("the manifest says {effect:?} for {name}, the tool says {:?}", spec.effect));
                }
                Some(_) => {}
            }
            if spec.parameters.get("type").is_none_or(|kind| kind != "object") {
                return Err(format!(
                    "the arguments of {} must be a struct, so that their schema is an object",
                    spec.name
                ));
            }
        }
        let missing = declared.keys().find(|name| !offered.iter().any(|tool| tool.schema().name == **name));
        match missing {
            Some(name) => Err(format!("the manifest names the tool {name}, which the plugin does not offer")),
            None => Ok(()),
        }
    }
}

fn declared_tool(tool: &Value) -> (String, DeclaredEffect) {
    let name = tool["name"].as_str().unwrap_or_default().to_owned();
    (name, serde_json::from_value(tool["effect"].clone()).unwrap_or_default())
}

/// The schema of a configuration type, to be written to the file that `config_schema` includes.
pub fn config_schema<C: JsonSchema + 'static>() -> Value {
    schema_of::<C>()
}

/// Compares the manifest's `config_schema` with that of the type.
///
/// # Errors
///
/// A sentence with the schema that should be there.
pub fn check_config_schema<P: PluginManifest, C: JsonSchema + 'static>() -> Result<(), String> {
    let manifest: Value = serde_json::from_str(&format!("{{{}}}", P::FIELDS))
        .map_err(|error| format!("the manifest is not JSON: {error}"))?;
    let expected = config_schema::<C>();
    if manifest["config_schema"] == expected {
        return Ok(());
    }
    Err(format!("the manifest's config_schema is not that of the type; expected {expected:#}"))
}

/// A call; a future of its result. Dropping it is what a host does when the time after a cancellation is over.
#[must_use = "a call runs only while it is awaited"]
pub struct TestCall {
    inside: Inside<BoxFuture<Result<ToolOutput, ToolError>>>,
    switch: Arc<Switch>,
}

impl TestCall {
    /// A way to cancel the call while something else awaits it.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.switch.clone())
    }

    /// Tells the call that nobody waits for it any more.
    pub fn cancel(&self) {
        self.switch.cancel();
    }
}

impl Future for TestCall {
    type Output = Result<ToolOutput, ToolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inside).poll(context)
    }
}

/// Cancels a [`TestCall`].
#[derive(Clone)]
pub struct Canceller(Arc<Switch>);

impl Canceller {
    /// Tells the call that nobody waits for it any more.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// The host's side of a test call.
struct Switch {
    kept: Arc<Kept>,
    call_id: u64,
    state: Arc<Mutex<SwitchState>>,
}

/// Whether a call is cancelled, and who waits for that.
#[derive(Default)]
struct SwitchState {
    cancelled: bool,
    waiting: Vec<Waker>,
}

impl Switch {
    fn cancel(&self) {
        let wakers = {
            let mut state = lock(&self.state);
            state.cancelled = true;
            std::mem::take(&mut state.waiting)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl CallLink for Switch {
    fn progress(&self, fraction: f32, message: &str) {
        lock(&self.kept.progress).push(Progress { call_id: self.call_id, fraction, message: message.to_owned() });
    }

    fn is_cancelled(&self) -> bool {
        lock(&self.state).cancelled
    }

    fn cancelled(&self) -> BoxFuture<()> {
        Box::pin(Cancelled(self.state.clone()))
    }
}

struct Cancelled(Arc<Mutex<SwitchState>>);

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.cancelled {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// What is in place while the plugin's code runs.
struct Surroundings {
    link: Arc<Link>,
    call_id: u64,
    #[cfg(feature = "tracing")]
    dispatch: tracing_core::Dispatch,
}

/// Polls a future with everything in place.
struct Inside<F> {
    future: F,
    surroundings: Surroundings,
}

impl<F: Future + Unpin> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, surroundings } = &mut *self;
        let _scope = Scope::enter(&surroundings.link, surroundings.call_id);
        #[cfg(feature = "tracing")]
        let _tracing = tracing_core::dispatcher::set_default(&surroundings.dispatch);
        Pin::new(future).poll(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::{Effect, ToolProvider, async_trait, plugin_manifest, tool};

    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}

    struct Keeper(Host);

    plugin_manifest!(Keeper { id: "keeper", tools: { "open": writes, "close": read_only } });

    #[async_trait]
    impl Plugin for Keeper {
        async fn init(host: Host, _: Value) -> Result<Self, PluginError> {
            Ok(Self(host))
        }
    }

    #[async_trait]
    impl ToolProvider for Keeper {
        async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
            let host = self.0.clone();
            let open = tool("open", "Opens.", Effect::Writes, move |_: Nothing, _| {
                let host = host.clone();
                async move {
                    #[cfg(feature = "tracing")]
                    tracing::info!(door = "front", "opening");
                    host.notify(&json!({"type": "opened"}));
                    host.request("secret/1", &json!("key")).await
                }
            });
            let close = tool("close", "Closes.", Effect::Writes, |_: Nothing, _| async { Ok::<_, ToolError>(()) });
            if context.user_message.is_empty() { vec![open, close] } else { vec![open] }
        }
    }

    #[tokio::test]
    async fn the_host_keeps_what_it_is_told() {
        let host = TestHost::new().with_service("secret/1", |name| Ok(json!({ "of": name })));
        let keeper = host.provider::<Keeper>(json!({})).await.unwrap();
        let output = keeper.call("open", json!({})).await.unwrap();
        assert_eq!(output.to_text(), r#"{"of":"key"}"#);
        assert_eq!(host.notices(), [json!({"type": "opened"})]);
        #[cfg(feature = "tracing")]
        {
            let line = host.log().pop().unwrap();
            assert_eq!((line.level, line.message.as_str(), line.call_id), (LogLevel::Info, "opening", 1));
            assert_eq!(line.fields, json!({"door": "front"}));
        }
        let error = TestHost::new().provider::<Keeper>(json!({})).await.unwrap().call("open", json!({})).await;
        assert!(matches!(error, Err(ToolError::Unavailable(text)) if text.contains("secret/1")));
        let error = keeper.call("paint", json!({})).await.unwrap_err();
        assert_eq!(error.message(), "no tool is named paint; there are open, close");
        keeper.shutdown().await;
    }

    #[tokio::test]
    async fn a_manifest_that_disagrees_is_told_how() {
        let keeper = TestHost::new().provider::<Keeper>(json!({})).await.unwrap();
        let difference = keeper.check_manifest().await.unwrap_err();
        assert_eq!(difference, "the manifest says ReadOnly for close, the tool says Writes");
        let difference = check_config_schema::<Keeper, Nothing>().unwrap_err();
        assert!(difference.contains("\"properties\": {}"), "{difference}");
    }
}
