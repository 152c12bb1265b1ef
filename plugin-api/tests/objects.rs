//! A plugin driven through the objects of the binary interface, as a host does it, but linked into this program.
//!
//! The host here has no tokio at all: what works here works on the plugin's own.

#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use jackfield_plugin_abi::{
    AbiCallInfo, AbiError, AbiFuture, CancelAbi, CreateReply, HostAbi, PluginAge, PluginPanicked, ProviderObj, RErr,
    ROk, RResult, RSlice, RStr, RVec, ServiceReply, ToolObj, cancel_object, check_plugin, host_object, kind,
};
use jackfield_plugin_api::{GatewayKey, ToolSchema, prelude::*, serde_json, wire::ToolSpec};

// ---- the plugin

struct Probe {
    host: Host,
    config: Config,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Config {
    fail: bool,
    panic_in_init: bool,
    panic_in_shutdown: bool,
    panic_in_drop: bool,
    slow_shutdown: bool,
}

#[async_trait]
impl Plugin for Probe {
    async fn init(host: Host, config: Value) -> Result<Self, PluginError> {
        let config: Config = parse_config(config)?;
        assert!(!config.panic_in_init, "no init today");
        if config.fail {
            return Err(PluginError::new("no key is configured"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        life(&host, "init");
        Ok(Self { host, config })
    }

    async fn shutdown(&self) {
        life(&self.host, "shutdown");
        assert!(!self.config.panic_in_shutdown, "no shutdown today");
        if self.config.slow_shutdown {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    async fn request(&self, service: &str, body: Value) -> Result<Value, ToolError> {
        match service {
            "double/1" => Ok(json!(body.as_i64().ok_or("expected a number")? * 2)),
            "relay/1" => self.host.request("twice/1", &body).await,
            _ => Err(ToolError::Unavailable(format!("service {service} is not offered"))),
        }
    }

    fn notify(&self, event: &Value) {
        assert_ne!(event["type"], "explode", "a bad notice");
        life(&self.host, &format!("noticed {}", event["type"]));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        life(&self.host, "drop");
        assert!(!self.config.panic_in_drop, "no drop today");
    }
}

/// Tells the host what happened, and whether tokio was missing.
fn life(host: &Host, what: &str) {
    let tokio = if tokio::runtime::Handle::try_current().is_ok() { "" } else { " without tokio" };
    host.notify(&json!({"type": "life", "what": format!("{what}{tokio}")}));
}

#[async_trait]
impl ToolProvider for Probe {
    async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        assert_ne!(context.model.as_deref(), Some("explode"), "no tools today");
        let seen = serde_json::to_string(context).unwrap();
        let scripted = |name| Arc::new(Scripted { name, seen: seen.clone(), host: self.host.clone() });
        vec![
            scripted("bad_schema"),
            scripted("bad_effect"),
            scripted("early"),
            scripted("body"),
            scripted("context"),
            tool("threads", "", Effect::ReadOnly, threads),
            tool("bomb", "", Effect::Writes, bomb),
            tool("logs", "", Effect::Confined, logs),
            tool("patient", "", Effect::ReadOnly, patient),
            tool("failing", "", Effect::ReadOnly, |_: Nothing, _| async {
                Err::<u8, _>(ToolError::Denied("no".into()))
            }),
        ]
    }
}

plugin_manifest!(Probe { id: "probe", tools: { "threads": read_only } });
export_plugin!(Probe);

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

/// A tool written against the plain trait, so that it can go wrong before there is a future.
struct Scripted {
    name: &'static str,
    seen: String,
    host: Host,
}

impl Tool for Scripted {
    fn schema(&self) -> ToolSchema {
        assert_ne!(self.name, "bad_schema", "no schema today");
        ToolSchema::new(self.name, "", json!({"type": "object", "properties": {}}))
    }

    fn effect(&self, _: &Value) -> Effect {
        assert_ne!(self.name, "bad_effect", "no effect today");
        Effect::ReadOnly
    }

    fn execute<'a, 'b>(
        &'a self,
        _: Value,
        _: CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        assert_ne!(self.name, "early", "before the future");
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert_ne!(self.name, "body", "in the body");
            Ok(ToolOutput::text(self.seen.clone()))
        })
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if self.name == "context" {
            life(&self.host, "tool dropped");
        }
    }
}

async fn threads(_: Nothing, call: CallContext) -> Result<Value, ToolError> {
    call.progress(0.25, "starting");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let spawned = tokio::spawn(async { thread::current().name().map(str::to_owned) }).await?;
    Ok(json!({"here": thread::current().name(), "spawned": spawned, "call": call.info()}))
}

/// Waits for ever, holding something that panics when it is dropped.
async fn bomb(_: Nothing, call: CallContext) -> Result<(), ToolError> {
    struct Bomb(Host);
    impl Drop for Bomb {
        fn drop(&mut self) {
            life(&self.0, "bomb dropped");
            std::panic::panic_any(Shrapnel);
        }
    }
    struct Shrapnel;
    impl Drop for Shrapnel {
        fn drop(&mut self) {
            panic!("even the payload panics");
        }
    }
    let _bomb = Bomb(call.host().clone());
    std::future::pending::<()>().await;
    Ok(())
}

async fn logs(_: Nothing, _: CallContext) -> Result<(), ToolError> {
    use tracing::Instrument;
    tracing::info!(city = "Ulm", count = 3, "in the call");
    let span = tracing::info_span!("job", number = 7, city = "Bonn");
    let task = async {
        tokio::task::yield_now().await;
        tracing::warn!(city = "Köln", "in a task");
    };
    tokio::spawn(task.instrument(span)).await?;
    tokio::spawn(async { tracing::error!("a task of nobody") }).await?;
    tracing::trace!("too quiet to be kept");
    Ok(())
}

async fn patient(_: Nothing, call: CallContext) -> Result<(), ToolError> {
    assert!(!call.is_cancelled());
    call.cancelled().await;
    assert!(call.is_cancelled());
    tokio::time::sleep(Duration::from_millis(1)).await;
    Err(ToolError::Cancelled("tidied up".into()))
}

// ---- the host

#[derive(Clone, Default)]
struct FfiHost(Arc<Kept>);

#[derive(Default)]
struct Kept {
    log: Mutex<Vec<LogLine>>,
    progress: Mutex<Vec<(u64, f32, String)>>,
    life: Mutex<Vec<String>>,
}

#[derive(Clone, Debug)]
struct LogLine {
    level: u8,
    target: String,
    message: String,
    fields: Value,
    call_id: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FfiHost {
    fn life(&self) -> Vec<String> {
        lock(&self.0.life).clone()
    }

    /// The log line that contains `text`.
    fn logged(&self, text: &str) -> LogLine {
        let log = lock(&self.0.log).clone();
        let found = log.iter().find(|line| line.message.contains(text));
        found.unwrap_or_else(|| panic!("no line with {text}: {log:?}")).clone()
    }
}

impl HostAbi for FfiHost {
    fn log_enabled(&self, level: u8) -> bool {
        level <= 4
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields_json: RStr<'_>, call_id: u64) {
        let fields = serde_json::from_str(fields_json.as_str()).unwrap();
        let line = LogLine { level, target: target.to_string(), message: message.to_string(), fields, call_id };
        lock(&self.0.log).push(line);
    }

    fn progress(&self, call_id: u64, fraction: f32, message: RStr<'_>) {
        lock(&self.0.progress).push((call_id, fraction, message.to_string()));
    }

    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        if service.as_str() == "twice/1" {
            let body = body.to_vec();
            return AbiFuture::new(async move { ROk([body.clone(), body].concat().into()) });
        }
        panic!("this host is broken");
    }

    fn notify(&self, event_json: RStr<'_>) {
        let event: Value = serde_json::from_str(event_json.as_str()).unwrap();
        lock(&self.0.life).push(event["what"].as_str().unwrap().to_owned());
    }
}

#[derive(Clone, Default)]
struct FfiCancel(Arc<(AtomicBool, Mutex<Vec<Waker>>)>);

impl FfiCancel {
    fn cancel(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        let waiting: Vec<_> = lock(&self.0.1).drain(..).collect();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl CancelAbi for FfiCancel {
    fn is_cancelled(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    fn cancelled(&self) -> AbiFuture<u8> {
        let state = self.0.clone();
        AbiFuture::new(std::future::poll_fn(move |context| {
            lock(&state.1).push(context.waker().clone());
            if state.0.load(Ordering::SeqCst) { Poll::Ready(0) } else { Poll::Pending }
        }))
    }
}

/// Waits on a plain thread.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

type Reply = RResult<RVec<u8>, AbiError>;

/// One plugin at a time, since the tests count its threads.
static TURN: Mutex<()> = Mutex::new(());

struct Running {
    host: FfiHost,
    provider: Option<ProviderObj>,
    _turn: MutexGuard<'static, ()>,
}

fn create(host: &FfiHost, config: &Value) -> Result<CreateReply, PluginPanicked> {
    unsafe extern "C" {
        // What `export_plugin!` exported from this very program.
        #[link_name = "_1as_0lib_1header_0root_bmodule_bloader"]
        static HEADER: u8;
    }
    // SAFETY: the program's own static is mapped until it ends.
    let checked = unsafe { check_plugin((&raw const HEADER).cast()) }.unwrap();
    assert_eq!(checked.age, PluginAge::SameOrNewer);
    assert!(checked.module.manifest()().starts_with("{\"id\":\"probe\""));
    let config = config.to_string();
    let created = checked.module.create()(host_object(host.clone()), config.as_str().into());
    drop(config);
    wait(created)
}

fn start(config: &Value) -> Running {
    let turn = lock(&TURN);
    let host = FfiHost::default();
    let ROk(provider) = create(&host, config).unwrap() else { panic!("the plugin must start") };
    Running { host, provider: Some(provider), _turn: turn }
}

impl Running {
    fn provider(&self) -> &ProviderObj {
        self.provider.as_ref().unwrap()
    }

    fn tools(&self, context: &ToolProviderContext) -> Vec<ToolObj> {
        let context = serde_json::to_string(context).unwrap();
        let reply = wait(self.provider().tools_for(context.as_str().into())).unwrap();
        let RResult::ROk(tools) = reply else { panic!("the plugin must list its tools") };
        tools.into_vec()
    }

    fn tool(&self, name: &str) -> ToolObj {
        let spec = |tool: &ToolObj| serde_json::from_str::<ToolSpec>(&tool.spec());
        let tools = self.tools(&ToolProviderContext::default());
        let found = tools.into_iter().find(|tool| spec(tool).is_ok_and(|spec| spec.name == name));
        found.unwrap_or_else(|| panic!("there is no tool {name}"))
    }

    fn begin(&self, name: &str, call_id: u64, cancel: &FfiCancel) -> AbiFuture<Reply> {
        let info = AbiCallInfo { call_id, deadline_unix_ms: 12 };
        let info_json = r#"{"tool_call_id": "t1", "conversation_id": "c1", "a_newer_host": [1]}"#;
        self.tool(name).execute(b"{}".as_slice().into(), info, info_json.into(), cancel_object(cancel.clone()))
    }

    fn call(&self, name: &str) -> Result<Result<Value, AbiError>, PluginPanicked> {
        let reply = wait(self.begin(name, 5, &FfiCancel::default()))?;
        Ok(reply.into_result().map(|output| serde_json::from_slice(&output).unwrap()))
    }
}

/// Whether the plugin's tokio is gone, or goes soon. Threads can be counted on Linux only.
fn threads_end() -> bool {
    let alive = || {
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "plugin-probe").count()
    };
    (0..300).any(|_| {
        thread::sleep(Duration::from_millis(10));
        alive() == 0
    })
}

// ---- the tests

#[test]
fn timers_and_tasks_run_on_the_plugins_own_tokio() {
    let running = start(&json!({}));
    let output = running.call("threads").unwrap().unwrap();
    let value = &output["content"][0]["value"];
    assert_eq!(value["spawned"], "plugin-probe");
    assert_ne!(value["here"], "plugin-probe", "the future itself is polled by the host's thread");
    let call = &value["call"];
    assert_eq!((&call["call_id"], &call["deadline_unix_ms"]), (&json!(5), &json!(12)));
    assert_eq!((&call["tool_call_id"], &call["conversation_id"]), (&json!("t1"), &json!("c1")));
    assert_eq!(*lock(&running.host.0.progress), [(5, 0.25, "starting".to_owned())]);
}

#[test]
fn each_error_keeps_its_kind() {
    let running = start(&json!({}));
    let error = running.call("failing").unwrap().unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (kind::DENIED, "no"));
    let tool = running.tool("threads");
    let info = AbiCallInfo { call_id: 6, deadline_unix_ms: 0 };
    let cancel = cancel_object(FfiCancel::default());
    let reply = wait(tool.execute(b"not json".as_slice().into(), info, "".into(), cancel)).unwrap();
    assert_eq!(reply.into_result().unwrap_err().kind, kind::INVALID_ARGUMENTS);
    assert_eq!(tool.effect(b"not json".as_slice().into()), u8::MAX);
    assert_eq!(tool.effect(b"{}".as_slice().into()), 0);
}

#[test]
fn a_panic_anywhere_in_a_call_is_that_calls_answer() {
    let running = start(&json!({}));
    assert!(running.call("early").unwrap_err().message.contains("before the future"));
    assert!(running.call("body").unwrap_err().message.contains("in the body"));
    let tools = running.tools(&ToolProviderContext::default());
    assert_eq!(tools.iter().filter(|tool| tool.spec().is_empty()).count(), 1, "the one without a schema");
    assert_eq!(running.tool("bad_effect").effect(b"{}".as_slice().into()), u8::MAX);

    let line = running.host.logged("in the body");
    assert_eq!((line.level, line.target.as_str(), line.call_id), (1, "panic", 5));
    assert!(line.fields["location"].as_str().unwrap().contains("objects.rs:"), "{line:?}");
    assert!(running.call("threads").unwrap().is_ok(), "the plugin goes on");
}

#[test]
fn a_cancelled_future_may_panic_in_its_destructor() {
    let running = start(&json!({}));
    let mut future = running.begin("bomb", 9, &FfiCancel::default());
    assert!(Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(future);
    let life = running.host.life();
    assert!(life.contains(&"bomb dropped".to_owned()), "tokio is at hand in a destructor: {life:?}");
    assert_eq!(running.host.logged("whose payload is not text").call_id, 9, "the log knows the call");
    assert!(running.call("threads").unwrap().is_ok());
}

#[test]
fn a_call_hears_of_its_cancellation() {
    let running = start(&json!({}));
    let cancel = FfiCancel::default();
    let call = running.begin("patient", 11, &cancel);
    let canceller = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        cancel.cancel();
    });
    let error = wait(call).unwrap().into_result().unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (kind::CANCELLED, "tidied up"));
    canceller.join().unwrap();
}

#[test]
fn panics_around_the_calls_are_contained_too() {
    let running = start(&json!({"panic_in_shutdown": true, "panic_in_drop": true}));
    let provider = running.provider();
    let panic = wait(provider.tools_for(r#"{"model": "explode"}"#.into())).err().unwrap();
    assert!(panic.message.contains("no tools today"), "{panic}");
    let RErr(error) = wait(provider.tools_for("17".into())).unwrap() else { panic!("17 is no context") };
    assert_eq!(error.kind, kind::INVALID_ARGUMENTS);
    provider.notify(r#"{"type": "explode"}"#.into());
    provider.notify("not json".into());
    assert!(wait(provider.shutdown(100)).unwrap_err().message.contains("no shutdown today"));

    let Running { host, provider, _turn } = running;
    drop(provider);
    assert_eq!(host.life(), ["init", "shutdown", "drop"]);
    assert_eq!(host.logged("no drop today").target, "panic");
    assert!(threads_end(), "the plugin's tokio stops although the destructor panicked");
}

#[test]
fn what_cannot_start_says_why_and_leaves_no_thread() {
    let _turn = lock(&TURN);
    let host = FfiHost::default();
    let refused = |config: Value| create(&host, &config).unwrap().err().unwrap().message.into_string();
    assert_eq!(refused(json!({"fail": true})), "no key is configured");
    assert!(refused(json!({"fail": "maybe"})).contains("invalid configuration at fail"));
    let panicked = create(&host, &json!({"panic_in_init": true})).err().unwrap();
    assert!(panicked.message.contains("no init today"));
    assert!(threads_end());
}

#[test]
fn the_end_is_in_order_and_in_time() {
    let running = start(&json!({"slow_shutdown": true}));
    running.provider().notify(r#"{"type": "conversation_ended"}"#.into());
    let tool = running.tool("context");
    assert_eq!(wait(running.provider().shutdown(20)).unwrap(), 1, "out of time");
    let Running { host, provider, _turn } = running;
    drop(provider);
    drop(tool);
    let life = host.life();
    let expected = ["init", "noticed \"conversation_ended\"", "shutdown", "drop", "tool dropped"];
    assert_eq!(life, expected, "in this order, and always with tokio at hand");
    assert!(threads_end());
}

#[test]
fn events_reach_the_hosts_log_with_their_call() {
    let running = start(&json!({}));
    running.call("logs").unwrap().unwrap();
    let line = running.host.logged("in the call");
    assert_eq!((line.level, line.target.as_str(), line.call_id), (3, "objects", 5));
    assert_eq!(line.fields, json!({"city": "Ulm", "count": 3}));
    let line = running.host.logged("in a task");
    assert_eq!((line.level, line.call_id), (2, 5), "the span carries the call to the task");
    assert_eq!(line.fields, json!({"city": "Köln", "number": 7, "span": "job"}), "inner fields win");
    assert_eq!(running.host.logged("a task of nobody").call_id, 0);
    assert!(lock(&running.host.0.log).iter().all(|line| !line.message.contains("too quiet")));
}

#[test]
fn services_go_both_ways_and_a_broken_host_harms_nobody() {
    let running = start(&json!({}));
    let ask = |service: &str, body: &str| {
        let reply = wait(running.provider().request(service.into(), body.as_bytes().into())).unwrap();
        reply.into_result().map(|bytes| String::from_utf8(bytes.into_vec()).unwrap())
    };
    assert_eq!(ask("double/1", "21").unwrap(), "42");
    assert_eq!(ask("relay/1", "1").unwrap(), "11");
    assert_eq!(ask("other/1", "1").unwrap_err().kind, kind::UNAVAILABLE);
    assert_eq!(ask("double/1", "{").unwrap_err().kind, kind::INVALID_ARGUMENTS);
    assert_eq!(ask("double/1", "\"x\"").unwrap_err().message.as_str(), "expected a number");
    let host = host_object(running.host.clone());
    let panicked = wait(host.request("nothing/1".into(), b"".as_slice().into())).unwrap_err();
    assert!(panicked.message.contains("this host is broken"));
}

#[test]
fn the_gateways_key_never_reaches_a_plugin() {
    const CANARY: &str = "sk-canary-4711";
    let running = start(&json!({}));
    let mut context = ToolProviderContext::default();
    context.gateway_key = Some(GatewayKey::new(CANARY));
    context.user_message = "visible".into();
    context.directive_sink.set(serde_json::Map::from_iter([("secret".to_owned(), json!(CANARY))]));
    let tools = running.tools(&context);
    let tool = tools.iter().find(|tool| tool.spec().contains("\"context\"")).unwrap();
    let info = AbiCallInfo { call_id: 1, deadline_unix_ms: 0 };
    let call = tool.execute(b"{}".as_slice().into(), info, "".into(), cancel_object(FfiCancel::default()));
    let seen = String::from_utf8(wait(call).unwrap().into_result().unwrap().into_vec()).unwrap();
    assert!(seen.contains("visible"), "{seen}");
    assert!(!seen.contains(CANARY), "{seen}");
    let forged: ToolProviderContext = serde_json::from_value(json!({"gateway_key": CANARY})).unwrap();
    assert_eq!(forged.gateway_key, None, "not even a host that sends it hands it over as a key");
}
