//! The conformance kit: what a host, a model's provider and a user expect of every plugin, tried on this one.
//!
//! [`conformance!`](crate::conformance) runs it in `cargo test`; `jackfield plugins check FILE` runs the same on a
//! built file, in a process of its own.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jackfield_plugin_abi::guard::catch;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    Finding, Provider, Severity, TestCall, TestHost,
    fuzz::{self, Dice},
    lint,
};
use crate::{Effect, Plugin, PluginManifest, Tool, ToolError, ToolOutput, ToolProviderContext};

/// Calls that run at the same time.
const TOGETHER: usize = 16;
/// Places of a call at which it is cancelled.
const CANCELS: u32 = 4;
/// A host gives no call more time to tidy up than this.
const GRACE_MAX: Duration = Duration::from_secs(5);
/// What a call gets when its tool asks for nothing.
const GRACE_MS: u64 = 500;
/// On top of every grace: this machine may be busy.
const SLACK: Duration = Duration::from_millis(500);
/// Longest time on a thread without a wait.
const BLOCKING: Duration = Duration::from_secs(1);
/// Output beyond this is shown to the model with a gap.
const OUTPUT_BYTES_GOOD: usize = 64 * 1024;
/// A host fails a call with more.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much of arguments or of a panic a finding shows, in characters.
const QUOTE_CHARS: usize = 200;

/// What the kit tries, and for how long.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// Whose rules the tools' descriptions are held against. Default: all that are known.
    pub providers: Vec<Provider>,
    /// Argument sets that each tool is called with. Default 64.
    pub samples: u32,
    /// Call tools that may change something, too. Default: no, they are only looked at.
    pub call_all: bool,
    /// How long one call may take before it is cancelled. Default 2 s.
    pub patience: Duration,
    /// How long all calls of one tool may take together. Default 20 s.
    pub patience_per_tool: Duration,
}

impl Default for Conformance {
    fn default() -> Self {
        Self {
            providers: Provider::ALL.to_vec(),
            samples: 64,
            call_all: false,
            patience: Duration::from_secs(2),
            patience_per_tool: Duration::from_secs(20),
        }
    }
}

/// Runs the kit on a plugin in this process and panics with what failed; [`conformance!`](crate::conformance) calls
/// it.
///
/// # Panics
///
/// When anything fails; the text names each point with what to do.
pub fn assert_conformance<P: Plugin + PluginManifest>(config: Value) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let findings = runtime.block_on(Conformance::default().check_plugin::<P>(config));
    // A thread that a tool has blocked must not hold up the end.
    runtime.shutdown_background();
    let failed: Vec<String> =
        findings.iter().filter(|finding| finding.severity == Severity::Fail).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "the plugin does not conform:\n{}", failed.join("\n"));
}

impl Conformance {
    /// Starts a plugin in this process and tries all of it, from its manifest to its end.
    pub async fn check_plugin<P: Plugin + PluginManifest>(&self, config: Value) -> Vec<Finding> {
        let host = TestHost::new();
        let plugin = match host.provider::<P>(config).await {
            Ok(plugin) => plugin,
            Err(error) => {
                let text = format!("it does not start: {}; give the configuration it needs", error.message());
                return vec![Finding::new(Severity::Fail, "start", "", text)];
            }
        };
        let mut findings = vec![match plugin.check_manifest().await {
            Ok(()) => Finding::new(Severity::Pass, "manifest", "", "says what the plugin does"),
            Err(difference) => {
                Finding::new(Severity::Fail, "manifest", "", format!("{difference}; correct one of the two"))
            }
        }];
        let tools = plugin.tools_for(&ToolProviderContext::default()).await;
        let again = plugin.tools_for(&ToolProviderContext::default()).await;
        findings.extend(self.check_lists(&tools, &again));
        findings.extend(self.check_tools(&host, &tools, |_| {}).await);
        drop((tools, again));
        let began = Instant::now();
        plugin.shutdown().await;
        findings.push(ended(began.elapsed()));
        findings
    }

    /// Compares the lists that two equal turns were given; nothing when they are as they should be.
    pub fn check_lists(&self, first: &[Arc<dyn Tool>], second: &[Arc<dyn Tool>]) -> Option<Finding> {
        same_tools(first, second)
    }

    /// Tries tools, wherever they come from. `begin` is told what is tried next, so that a crash can be placed.
    pub async fn check_tools(
        &self,
        host: &TestHost,
        tools: &[Arc<dyn Tool>],
        mut begin: impl FnMut(&str),
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for tool in tools {
            begin("the description of a tool");
            let schema = match catch(|| tool.schema()) {
                Ok(schema) => schema,
                Err(panic) => {
                    let text = format!("a tool panics while it describes itself: {}", quote(&panic));
                    findings.push(Finding::new(Severity::Fail, "schema", "", text));
                    continue;
                }
            };
            findings.extend(lint::lint(&schema, &self.providers));
            if catch(|| tool.schema()).is_ok_and(|again| again != schema) {
                let text =
                    "it describes itself differently each time, which models' caches do not forgive; make it constant";
                findings.push(Finding::new(Severity::Fail, "schema", &schema.name, text));
            }
            begin(&format!("calls of {}", schema.name));
            let trial = Trial { kit: self, host, tool, name: &schema.name, parameters: &schema.parameters };
            findings.extend(trial.run().await);
        }
        findings
    }
}

fn same_tools(tools: &[Arc<dyn Tool>], again: &[Arc<dyn Tool>]) -> Option<Finding> {
    let names = |tools: &[Arc<dyn Tool>]| {
        let mut names: Vec<String> = tools.iter().filter_map(|tool| catch(|| tool.schema().name).ok()).collect();
        names.sort();
        names
    };
    let (first, second) = (names(tools), names(again));
    if let Some(twins) = first.windows(2).find(|pair| pair[0] == pair[1]) {
        let text = format!("two tools are called {}; a host offers the first only, rename one", twins[0]);
        return Some(Finding::new(Severity::Fail, "tools", "", text));
    }
    (first != second).then(|| {
        let text =
            "two equal turns are offered different tools, which models' caches do not forgive; depend on the turn only";
        Finding::new(Severity::Warn, "tools", "", text)
    })
}

fn ended(took: Duration) -> Finding {
    if took > GRACE_MAX {
        let text = format!("its end takes {took:?}, a host waits for {GRACE_MAX:?}; make `shutdown` quicker");
        return Finding::new(Severity::Fail, "shutdown", "", text);
    }
    Finding::new(Severity::Pass, "shutdown", "", "ends in time")
}

/// One tool under trial.
struct Trial<'a> {
    kit: &'a Conformance,
    host: &'a TestHost,
    tool: &'a Arc<dyn Tool>,
    name: &'a str,
    parameters: &'a Value,
}

/// How a call came out.
enum Ended {
    Answered(Result<ToolOutput, ToolError>),
    Panicked(String),
    /// It took longer than anybody waits.
    Late,
}

impl Trial<'_> {
    async fn run(&self) -> Vec<Finding> {
        let smallest = fuzz::smallest_arguments(self.parameters);
        let effect = match catch(|| self.tool.effect(&smallest)) {
            Ok(effect) => effect,
            Err(panic) => {
                let text = format!(
                    "it panics when it is asked for the effect of {}: {}; an effect is to be computed, not looked up",
                    quote(&smallest.to_string()),
                    quote(&panic)
                );
                return vec![self.finding(Severity::Fail, "effect", text)];
            }
        };
        let mut findings = Vec::new();
        if self.tool.declared_effect().is_none() && effect == Effect::Destructive {
            let text = "it declares no effect, so every call asks a human; declare what it can change";
            findings.push(self.finding(Severity::Warn, "effect", text));
        }
        if !self.may_call(&smallest) {
            let text = format!("not called, because a call {} (say so to try it all the same)", what(effect));
            findings.push(self.finding(Severity::Pass, "calls", text));
            return findings;
        }
        findings.push(self.samples().await);
        findings.push(self.spoilt().await);
        findings.push(self.cancelled(&smallest).await);
        findings.extend(self.together(&smallest).await);
        findings
    }

    fn finding(&self, severity: Severity, check: &str, text: impl Into<String>) -> Finding {
        Finding::new(severity, check, self.name, text)
    }

    /// A tool that changes something is not called by a test that nobody asked for.
    fn may_call(&self, arguments: &Value) -> bool {
        self.kit.call_all || catch(|| self.tool.effect(arguments)).is_ok_and(|effect| !effect.asks_by_default())
    }

    /// Many argument sets that fit the schema: none may panic, block or flood.
    async fn samples(&self) -> Finding {
        let mut dice = Dice::new(1);
        let began = Instant::now();
        let (mut tried, mut late, mut largest) = (0, 0, 0);
        for index in 0..self.kit.samples {
            let arguments = if index == 0 {
                fuzz::smallest_arguments(self.parameters)
            } else {
                fuzz::fitting(self.parameters, &mut dice)
            };
            if !self.may_call(&arguments) {
                continue;
            }
            if began.elapsed() > self.kit.patience_per_tool {
                break;
            }
            tried += 1;
            let (ended, longest) = self.call(arguments.clone(), None).await;
            let shown = quote(&arguments.to_string());
            if longest > BLOCKING {
                let text = format!(
                    "with {shown} it holds its thread for {longest:?}; wait asynchronously, or use spawn_blocking"
                );
                return self.finding(Severity::Fail, "blocking", text);
            }
            match ended {
                Ended::Panicked(text) | Ended::Answered(Err(ToolError::Panicked(text))) => {
                    let text = format!("with {shown} it panics: {}; return an error instead", quote(&text));
                    return self.finding(Severity::Fail, "panic", text);
                }
                Ended::Answered(Ok(output)) => {
                    largest = largest.max(serde_json::to_vec(&output).map_or(0, |bytes| bytes.len()))
                }
                Ended::Answered(Err(_)) => {}
                Ended::Late => late += 1,
            }
        }
        self.sampled(tried, late, largest)
    }

    fn sampled(&self, tried: u32, late: u32, largest: usize) -> Finding {
        if largest > OUTPUT_BYTES_MAX {
            let text = format!(
                "an output has {largest} bytes, and a host fails a call with more than {OUTPUT_BYTES_MAX}; return less"
            );
            return self.finding(Severity::Fail, "output", text);
        }
        if largest > OUTPUT_BYTES_GOOD {
            let text = format!(
                "an output has {largest} bytes, and a model is shown the beginning and the end of {OUTPUT_BYTES_GOOD}; return less, or let the caller page"
            );
            return self.finding(Severity::Warn, "output", text);
        }
        if tried > 0 && late == tried {
            let text = format!(
                "no call ended within {:?}; report progress, so that a host does not stop it for silence",
                self.kit.patience
            );
            return self.finding(Severity::Warn, "time", text);
        }
        let longer = if late == 0 {
            String::new()
        } else {
            format!(", {late} of them took longer than {:?} and were cancelled", self.kit.patience)
        };
        self.finding(Severity::Pass, "calls", format!("{tried} argument sets, no panic{longer}"))
    }

    /// Arguments that do not fit: a host keeps them from the tool, a program that links the plugin may not.
    async fn spoilt(&self) -> Finding {
        let mut dice = Dice::new(2);
        for _ in 0..self.kit.samples.div_ceil(4) {
            let arguments = fuzz::spoilt(self.parameters, &mut dice);
            if !self.may_call(&arguments) {
                continue;
            }
            if let (Ended::Panicked(text) | Ended::Answered(Err(ToolError::Panicked(text))), _) =
                self.call(arguments.clone(), None).await
            {
                let text = format!(
                    "with {}, which do not fit its schema, it panics: {}; use a typed tool, or check what you read",
                    quote(&arguments.to_string()),
                    quote(&text)
                );
                return self.finding(Severity::Warn, "arguments", text);
            }
        }
        self.finding(Severity::Pass, "arguments", "arguments that do not fit are answered")
    }

    /// A call that is cancelled while it waits ends within its grace, or can at least be dropped.
    async fn cancelled(&self, arguments: &Value) -> Finding {
        let grace = Duration::from_millis(self.tool.options().cancel_grace_ms.unwrap_or(GRACE_MS)).min(GRACE_MAX);
        for waits in 1..=CANCELS {
            let began = Instant::now();
            let (ended, longest) = self.call(arguments.clone(), Some((waits, grace + SLACK))).await;
            if longest > BLOCKING {
                let text =
                    format!("it holds its thread for {longest:?}, so that it cannot be cancelled; wait asynchronously");
                return self.finding(Severity::Fail, "cancel", text);
            }
            match ended {
                Ended::Panicked(text) | Ended::Answered(Err(ToolError::Panicked(text))) => {
                    let text =
                        format!("it panics when it is cancelled: {}; a dropped call must not panic", quote(&text));
                    return self.finding(Severity::Fail, "cancel", text);
                }
                Ended::Late => {
                    let text = format!(
                        "a cancelled call goes on for its whole grace of {grace:?} and is dropped then, after {:?}; listen to `call.cancelled()` if it has something to tidy up",
                        began.elapsed()
                    );
                    return self.finding(Severity::Warn, "cancel", text);
                }
                Ended::Answered(_) => {}
            }
        }
        self.finding(Severity::Pass, "cancel", "a cancelled call ends")
    }

    /// One object serves many calls at the same time.
    async fn together(&self, arguments: &Value) -> Option<Finding> {
        let calls = (0..TOGETHER).map(|_| Box::pin(Watched::new(self.host.call(self.tool, arguments.clone()))));
        let mut calls: Vec<_> = calls.collect();
        let all = async {
            for call in &mut calls {
                if let Err(panic) = call.as_mut().await {
                    return Some(panic);
                }
            }
            None
        };
        let panicked = timeout(self.kit.patience, all).await.ok().flatten();
        // Each is dropped for itself, because a panic in one drop must not meet another.
        let dropped = calls.into_iter().filter_map(|call| catch(move || drop(call)).err()).last();
        let panic = panicked.or(dropped)?;
        let text =
            format!("of {TOGETHER} calls at the same time one panics: {}; guard what calls share", quote(&panic));
        Some(self.finding(Severity::Fail, "together", text))
    }

    /// One call, and the longest time it held its thread. With `cancel_at` it is cancelled after this many waits, and
    /// given this long to end.
    async fn call(&self, arguments: Value, cancel_at: Option<(u32, Duration)>) -> (Ended, Duration) {
        let call = self.host.call(self.tool, arguments);
        let canceller = call.canceller();
        let mut watched = Box::pin(Watched::new(call));
        if let Some((waits, _)) = cancel_at {
            watched.cancel_at = Some(waits);
        }
        let patience = cancel_at.map_or(self.kit.patience, |(_, grace)| self.kit.patience.max(grace));
        let ended = match timeout(patience, watched.as_mut()).await {
            Ok(Ok(answer)) => Ended::Answered(answer),
            Ok(Err(panic)) => Ended::Panicked(panic),
            Err(_) => Ended::Late,
        };
        canceller.cancel();
        let longest = watched.longest;
        match catch(move || drop(watched)) {
            Ok(()) => (ended, longest),
            Err(panic) => (Ended::Panicked(panic), longest),
        }
    }
}

/// A call whose panics are caught and whose time on the thread is measured.
struct Watched {
    call: TestCall,
    longest: Duration,
    waits: u32,
    cancel_at: Option<u32>,
}

impl Watched {
    fn new(call: TestCall) -> Self {
        Self { call, longest: Duration::ZERO, waits: 0, cancel_at: None }
    }
}

impl Future for Watched {
    type Output = Result<Result<ToolOutput, ToolError>, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let began = Instant::now();
        let polled = catch(|| Pin::new(&mut self.call).poll(context));
        self.longest = self.longest.max(began.elapsed());
        match polled {
            Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
            Err(panic) => Poll::Ready(Err(panic)),
            Ok(Poll::Pending) => {
                self.waits += 1;
                if self.cancel_at == Some(self.waits) {
                    // It wakes the call if the call listens.
                    self.call.cancel();
                }
                Poll::Pending
            }
        }
    }
}

fn what(effect: Effect) -> &'static str {
    match effect {
        Effect::ReadOnly => "changes nothing",
        Effect::Confined => "changes only its own sandbox",
        Effect::Writes => "may change something",
        Effect::Destructive => "may destroy something",
    }
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A test that the plugin does what a host, a model's provider and a user expect of every plugin: its manifest agrees
/// with it, its tools' schemas are taken by every provider, no argument makes it panic, cancelled calls end, calls run
/// side by side, and it ends in time. Tools that may change something are looked at and not called.
///
/// ```
/// # use jackfield_plugin_api::prelude::*;
/// # struct Hello;
/// # #[async_trait]
/// # impl ToolProvider for Hello {
/// #     async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> { vec![] }
/// # }
/// # #[async_trait]
/// # impl Plugin for Hello {
/// #     async fn init(_: Host, _: Value) -> Result<Self, PluginError> { Ok(Hello) }
/// # }
/// # plugin_manifest!(Hello { id: "hello" });
/// mod tests {
///     # use super::Hello;
///     jackfield_plugin_api::conformance!(Hello);
///     // With a configuration that it needs:
///     // jackfield_plugin_api::conformance!(Hello, { "city": "Berlin" });
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($plugin:path) => {
        $crate::conformance!($plugin, {});
    };
    ($plugin:path, $config:tt) => {
        #[test]
        fn it_does_what_a_host_expects_of_every_plugin() {
            $crate::testing::assert_conformance::<$plugin>($crate::serde_json::json!($config));
        }
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::{CallContext, tool, typed::TypedTool};

    #[derive(Deserialize, JsonSchema)]
    struct Numbers {
        /// Any
        number: i64,
    }

    fn of(run: impl Fn(i64) -> String + Send + Sync + Clone + 'static) -> Arc<dyn Tool> {
        tool("try", "Tries something.", Effect::ReadOnly, move |numbers: Numbers, _: CallContext| {
            let run = run.clone();
            async move { Ok::<_, ToolError>(run(numbers.number)) }
        })
    }

    async fn found(tool: Arc<dyn Tool>) -> Vec<Finding> {
        let kit = Conformance {
            patience: Duration::from_millis(50),
            patience_per_tool: Duration::from_secs(1),
            ..Conformance::default()
        };
        kit.check_tools(&TestHost::new(), &[tool], |_| {}).await
    }

    fn worst(findings: &[Finding]) -> (Severity, String) {
        let worst = findings.iter().max_by_key(|finding| finding.severity).unwrap();
        (worst.severity, worst.to_string())
    }

    #[tokio::test]
    async fn a_tool_that_behaves_passes_in_every_point() {
        let findings = found(of(|number| format!("{number}"))).await;
        let checks: Vec<&str> = findings.iter().map(|finding| finding.check.as_str()).collect();
        assert_eq!(checks, ["schema", "calls", "arguments", "cancel"], "{findings:#?}");
        assert_eq!(worst(&findings).0, Severity::Pass, "{findings:#?}");
    }

    #[tokio::test]
    async fn a_panic_is_told_with_the_arguments_that_made_it() {
        let (severity, text) = worst(&found(of(|number| format!("{}", number.checked_mul(2).unwrap()))).await);
        assert_eq!(severity, Severity::Fail, "{text}");
        assert!(text.contains("panic") && text.contains(&i64::MAX.to_string()), "{text}");
    }

    #[tokio::test]
    async fn floods_and_endless_waits_are_told() {
        let (severity, text) = worst(&found(of(|_| "x".repeat(100_000))).await);
        assert!(severity == Severity::Warn && text.contains("100"), "{text}");
        let endless = tool("wait", "Waits.", Effect::ReadOnly, |_: Numbers, _: CallContext| async {
            std::future::pending::<Result<(), ToolError>>().await
        });
        let findings = found(endless).await;
        let has =
            |check: &str| findings.iter().any(|finding| finding.check == check && finding.severity == Severity::Warn);
        assert!(has("time") && has("cancel"), "{findings:#?}");
    }

    #[tokio::test]
    async fn a_tool_that_may_change_something_is_not_called() {
        struct Delete(Arc<AtomicU32>);
        impl TypedTool for Delete {
            type Args = Numbers;
            type Output = ();
            const NAME: &'static str = "delete";
            const DESCRIPTION: &'static str = "Deletes.";
            async fn call(&self, _: Numbers, _: CallContext) -> Result<(), ToolError> {
                self.0.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        }
        let calls = Arc::new(AtomicU32::new(0));
        let tools: [Arc<dyn Tool>; 1] = [Arc::new(Delete(calls.clone()))];
        let mut kit = Conformance::default();
        let findings = kit.check_tools(&TestHost::new(), &tools, |_| {}).await;
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        assert!(findings.iter().any(|finding| finding.text.contains("not called")), "{findings:#?}");
        kit.call_all = true;
        kit.check_tools(&TestHost::new(), &tools, |_| {}).await;
        assert!(calls.load(Ordering::SeqCst) > 16);
    }

    #[tokio::test]
    async fn a_panic_in_the_drop_of_a_cancelled_call_is_told() {
        struct Grenade;
        impl Drop for Grenade {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let tool = tool("wait", "Waits.", Effect::ReadOnly, |_: Numbers, _: CallContext| async {
            let _grenade = Grenade;
            std::future::pending::<Result<(), ToolError>>().await
        });
        let (severity, text) = worst(&found(tool).await);
        assert!(severity == Severity::Fail && text.contains("dropped"), "{text}");
    }

    #[test]
    fn two_tools_of_one_name_are_told() {
        let tools = [of(|_| String::new()), of(|_| String::new())];
        assert!(same_tools(&tools, &tools).is_some_and(|finding| finding.severity == Severity::Fail));
        assert_eq!(same_tools(&tools[..1], &tools[..1]), None);
        assert!(same_tools(&tools[..1], &[]).is_some_and(|finding| finding.severity == Severity::Warn));
    }
}
