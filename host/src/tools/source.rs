//! Who offers tools for a turn, and how they are asked: all at once, within a budget, so that no provider can hold up
//! a turn.
//!
//! ```text
//!   asked ──▶ list in time ──▶ offered, and kept as the last good list of this circle of access
//!     ├─────▶ late, failed, panicked ──▶ the last good list of this circle, or nothing; a fault is counted
//!     └─────▶ too many late ones still run ──▶ not asked; the same
//! ```
//!
//! The last good list is kept per circle of access (organisation, user, groups, agent): what one requester may use is
//! never offered to another because a provider was slow.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use jackfield_plugin_api::{Access, Tool, ToolProvider, ToolProviderContext};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    config::{AskPolicy, Limits, PluginSettings},
    ids::PluginId,
    plugins::{Misdeed, PluginFault, PluginProvider},
};

/// Who offers a tool. The order is the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    /// This server.
    BuiltIn,
    /// The program that embeds this server.
    Embedder,
    /// A plugin from a folder.
    Plugin(PluginId),
}

impl Origin {
    /// A short name, for counting.
    pub(crate) fn name(&self) -> &str {
        match self {
            Origin::BuiltIn => "built-in",
            Origin::Embedder => "embedder",
            Origin::Plugin(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => formatter.write_str("built-in"),
            Origin::Embedder => formatter.write_str("embedder"),
            Origin::Plugin(id) => write!(formatter, "plugin {id}"),
        }
    }
}

/// What the operator says about the tools of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SourceRules {
    /// Which of its tools ask a human; only asked for plugins.
    pub(crate) ask: AskPolicy,
    /// Built-in tools that a plugin may replace.
    pub(crate) replaces: Vec<String>,
}

impl From<&PluginSettings> for SourceRules {
    fn from(settings: &PluginSettings) -> Self {
        Self { ask: settings.ask, replaces: settings.replaces.clone() }
    }
}

/// Why a source has no fresh list for this turn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListFault {
    /// It did not answer within the budget.
    #[error("no tool list within {} ms", .0.as_millis())]
    Late(Duration),
    /// Earlier requests have not ended yet, so it was not asked again.
    #[error("{0} earlier requests for its tool list still run")]
    Busy(usize),
    /// It is not used for now.
    #[error("{0}")]
    Unavailable(String),
    /// It answered with an error.
    #[error("{0}")]
    Failed(String),
    /// It panicked; the text is the panic's.
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// Something that can be asked for tools. The embedder's provider and every active plugin are one.
#[async_trait]
pub(crate) trait ToolLister: Send + Sync + 'static {
    /// The tools for this turn.
    ///
    /// # Cancel safety
    ///
    /// Dropped when it is late.
    async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, ListFault>;

    /// Told of what went wrong where only the one who waits can see it: a late list, a call that ran out of time.
    fn note(&self, misdeed: &Misdeed) {
        let _ = misdeed;
    }
}

/// The embedder's provider as a lister.
struct EmbedderLister(Arc<dyn ToolProvider>);

#[async_trait]
impl ToolLister for EmbedderLister {
    async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, ListFault> {
        Ok(self.0.tools_for(context).await)
    }
}

#[async_trait]
impl ToolLister for PluginProvider {
    async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, ListFault> {
        // The inherent method of the same name; its faults say which of the plugin's promises was broken.
        PluginProvider::list_tools(self, context).await.map_err(|fault| match fault {
            PluginFault::Quarantined(reason) => ListFault::Unavailable(reason),
            fault => ListFault::Failed(fault.to_string()),
        })
    }

    fn note(&self, misdeed: &Misdeed) {
        PluginProvider::note(self, misdeed);
    }
}

/// What one source offers in one turn.
#[derive(Clone)]
pub(crate) struct Offer {
    /// Whose tools these are.
    pub(crate) origin: Origin,
    /// What the operator says about them.
    pub(crate) rules: SourceRules,
    /// The tools, in the provider's order.
    pub(crate) tools: ToolList,
    /// Who gave them; told when a call of one goes wrong.
    pub(crate) lister: Arc<dyn ToolLister>,
    /// Set when the list is not fresh, or is empty because of it.
    pub(crate) fault: Option<ListFault>,
}

/// A list as a provider gave it.
pub(crate) type ToolList = Arc<[Arc<dyn Tool>]>;

/// All sources beside the built-ins. Lives as long as the server, because the last good lists do.
pub(crate) struct ToolSources {
    limits: Limits,
    embedder: Option<Arc<ToolSource>>,
    /// Sorted by id. Held for a few lines, never across an `.await`.
    plugins: Mutex<Vec<(PluginId, Arc<ToolSource>)>>,
}

impl ToolSources {
    /// The sources of a server; plugins join with [`for_turn`](Self::for_turn).
    pub(crate) fn new(embedder: Option<Arc<dyn ToolProvider>>, limits: &Limits) -> Self {
        let embedder = embedder.map(|provider| {
            let lister = Arc::new(EmbedderLister(provider));
            Arc::new(ToolSource::new(Origin::Embedder, SourceRules::default(), lister, limits))
        });
        Self { limits: limits.clone(), embedder, plugins: Mutex::default() }
    }

    /// The sources of one turn: the embedder's, then the active plugins' by id. A plugin keeps its last good lists for
    /// as long as its lister and its rules stay the same; another generation starts with none.
    pub(crate) fn for_turn(
        &self,
        active: impl IntoIterator<Item = (PluginId, Arc<dyn ToolLister>, SourceRules)>,
    ) -> Vec<Arc<ToolSource>> {
        let mut known = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current: Vec<(PluginId, Arc<ToolSource>)> = Vec::with_capacity(known.len());
        for (id, lister, rules) in active {
            let kept = known.iter().find(|(other, source)| *other == id && source.is_for(&lister, &rules));
            let source = match kept {
                Some((_, source)) => source.clone(),
                None => Arc::new(ToolSource::new(Origin::Plugin(id.clone()), rules, lister, &self.limits)),
            };
            current.push((id, source));
        }
        current.sort_by(|(one, _), (other, _)| one.cmp(other));
        let sources = self.embedder.iter().chain(current.iter().map(|(_, source)| source)).cloned().collect();
        *known = current;
        sources
    }
}

/// Asks every source at the same time and comes back after `budget` at the latest. The offers have the order of the
/// sources.
///
/// # Cancel safety
///
/// Dropping the future leaves the requests running; their lists are dropped.
pub(crate) async fn ask_all(
    sources: &[Arc<ToolSource>],
    context: &Arc<ToolProviderContext>,
    budget: Duration,
) -> Vec<Offer> {
    let deadline = Instant::now() + budget;
    let requests: Vec<_> = sources.iter().map(|source| source.start(context)).collect();
    let mut offers = Vec::with_capacity(sources.len());
    for (source, request) in sources.iter().zip(requests) {
        let answer = match request {
            Ok(request) => request.answer(deadline, budget).await,
            Err(fault) => Err(fault),
        };
        let offer = source.offer(context, answer);
        if let Some(fault) = &offer.fault {
            source.count(fault, offer.tools.len());
        }
        offers.push(offer);
    }
    offers
}

/// One source: asks its lister and remembers what it said.
pub(crate) struct ToolSource {
    origin: Origin,
    rules: SourceRules,
    lister: Arc<dyn ToolLister>,
    lists_kept: usize,
    late_max: usize,
    /// How often it was late, failed or panicked.
    faults: AtomicU64,
    /// Held for a few lines, never across an `.await`.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The last used circle is at the end; the front goes first.
    last_good: Vec<(Circle, ToolList)>,
    /// One for each late request; it dies with the request's task.
    late: Vec<Weak<()>>,
}

/// Whose list it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Circle {
    org_id: Option<String>,
    access: Access,
}

impl ToolSource {
    fn new(origin: Origin, rules: SourceRules, lister: Arc<dyn ToolLister>, limits: &Limits) -> Self {
        Self {
            origin,
            rules,
            lister,
            lists_kept: limits.tool_lists_kept.max(1),
            late_max: limits.tool_lists_late.max(1),
            faults: AtomicU64::new(0),
            memory: Mutex::default(),
        }
    }

    fn is_for(&self, lister: &Arc<dyn ToolLister>, rules: &SourceRules) -> bool {
        Arc::ptr_eq(&self.lister, lister) && self.rules == *rules
    }

    /// Starts the request on a task of its own: a lister that blocks its thread must not block the turn.
    fn start(self: &Arc<Self>, context: &Arc<ToolProviderContext>) -> Result<Request, ListFault> {
        let still_late = self.count_late();
        if still_late >= self.late_max {
            return Err(ListFault::Busy(still_late));
        }
        let running = Arc::new(());
        let watch = Arc::downgrade(&running);
        let (lister, context) = (self.lister.clone(), context.clone());
        let task = tokio::spawn(async move {
            let _running = running;
            AssertUnwindSafe(lister.list_tools(&context)).catch_unwind().await
        });
        Ok(Request { source: self.clone(), task, watch })
    }

    fn count_late(&self) -> usize {
        let mut memory = self.lock();
        memory.late.retain(|running| running.strong_count() > 0);
        memory.late.len()
    }

    /// Remembers a good list, or falls back to the one remembered.
    fn offer(&self, context: &ToolProviderContext, answer: Result<Vec<Arc<dyn Tool>>, ListFault>) -> Offer {
        let circle = Circle { org_id: context.org_id.clone(), access: context.access.clone() };
        let (tools, fault) = match answer {
            Ok(tools) => (self.remember(circle, tools.into()), None),
            Err(fault) => (self.recall(&circle), Some(fault)),
        };
        Offer { origin: self.origin.clone(), rules: self.rules.clone(), tools, lister: self.lister.clone(), fault }
    }

    fn count(&self, fault: &ListFault, tools: usize) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        let origin = &self.origin;
        match fault {
            ListFault::Late(budget) => self.lister.note(&Misdeed::ListedLate(*budget)),
            // Said when the quarantine began.
            ListFault::Unavailable(_) => {
                tracing::debug!(%origin, %fault, tools, "no fresh tool list; the last good one holds for this turn");
                return;
            }
            _ => {}
        }
        tracing::warn!(%origin, %fault, faults, tools, "no fresh tool list; the last good one holds for this turn");
    }

    fn remember(&self, circle: Circle, tools: ToolList) -> ToolList {
        let mut memory = self.lock();
        memory.last_good.retain(|(other, _)| *other != circle);
        memory.last_good.push((circle, tools.clone()));
        let excess = memory.last_good.len().saturating_sub(self.lists_kept);
        memory.last_good.drain(..excess);
        tools
    }

    fn recall(&self, circle: &Circle) -> ToolList {
        let memory = self.lock();
        let found = memory.last_good.iter().find(|(other, _)| other == circle);
        found.map_or_else(|| Arc::from([]), |(_, tools)| tools.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ToolSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ToolSource").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What a lister came to: its answer, or the panic it ended with.
type Listed = Result<Result<Vec<Arc<dyn Tool>>, ListFault>, Box<dyn std::any::Any + Send>>;

/// A request that runs.
struct Request {
    source: Arc<ToolSource>,
    task: JoinHandle<Listed>,
    watch: Weak<()>,
}

impl Request {
    async fn answer(mut self, deadline: Instant, budget: Duration) -> Result<Vec<Arc<dyn Tool>>, ListFault> {
        match tokio::time::timeout_at(deadline, &mut self.task).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(panic))) => Err(ListFault::Panicked(panic_text(panic.as_ref()))),
            Ok(Err(broken)) => Err(ListFault::Failed(format!("its task ended early: {broken}"))),
            Err(_) => {
                // An asynchronous lister is dropped at its next step. One that blocks its thread goes on; the watch
                // counts those, so that they cannot pile up.
                self.task.abort();
                self.source.lock().late.push(self.watch);
                Err(ListFault::Late(budget))
            }
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;
    use crate::tools::toolset::tests::tool;

    const BUDGET: Duration = Duration::from_millis(250);

    /// Plays one step per request; the last step repeats.
    #[derive(Clone)]
    enum Step {
        List(&'static [&'static str]),
        Sleep(u64),
        Fail,
        Panic,
    }

    struct Scripted {
        steps: Vec<Step>,
        asked: AtomicUsize,
        dropped: Arc<Notify>,
    }

    impl Scripted {
        fn source(id: &str, steps: &[Step]) -> Arc<ToolSource> {
            let lister = Self { steps: steps.to_vec(), asked: AtomicUsize::new(0), dropped: Arc::default() };
            let origin = Origin::Plugin(PluginId::new(id));
            Arc::new(ToolSource::new(origin, SourceRules::default(), Arc::new(lister), &Limits::default()))
        }
    }

    struct NotifyOnDrop(Arc<Notify>);

    impl Drop for NotifyOnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[async_trait]
    impl ToolLister for Scripted {
        async fn list_tools(&self, _: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, ListFault> {
            let _dropped = NotifyOnDrop(self.dropped.clone());
            let step = self.asked.fetch_add(1, Ordering::Relaxed).min(self.steps.len() - 1);
            match self.steps[step] {
                Step::List(names) => Ok(names.iter().map(|name| tool(name)).collect()),
                Step::Sleep(millis) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    Ok(vec![tool("late")])
                }
                Step::Fail => Err(ListFault::Failed("no network".to_owned())),
                Step::Panic => panic!("list bug"),
            }
        }
    }

    fn context(user: &str) -> Arc<ToolProviderContext> {
        let mut context = ToolProviderContext::default();
        context.access.user_id = Some(user.to_owned());
        Arc::new(context)
    }

    async fn names(source: &Arc<ToolSource>, user: &str) -> (Vec<String>, Option<ListFault>) {
        let mut offers = ask_all(std::slice::from_ref(source), &context(user), BUDGET).await;
        let offer = offers.remove(0);
        (offer.tools.iter().map(|tool| tool.schema().name).collect(), offer.fault)
    }

    #[tokio::test(start_paused = true)]
    async fn late_failed_and_panicked_listers_keep_their_last_good_list() {
        let steps = [Step::List(&["a", "b"]), Step::Sleep(1000), Step::Fail, Step::Panic, Step::List(&["c"])];
        let source = Scripted::source("p", &steps);
        let kept = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(names(&source, "u").await, (kept.clone(), None));
        assert_eq!(names(&source, "u").await, (kept.clone(), Some(ListFault::Late(BUDGET))));
        assert_eq!(names(&source, "u").await, (kept.clone(), Some(ListFault::Failed("no network".to_owned()))));
        assert_eq!(names(&source, "u").await, (kept, Some(ListFault::Panicked("list bug".to_owned()))));
        assert_eq!(source.faults.load(Ordering::Relaxed), 3);
        assert_eq!(names(&source, "u").await, (vec!["c".to_owned()], None));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_good_list_nothing_is_offered() {
        let source = Scripted::source("p", &[Step::Fail]);
        assert_eq!(names(&source, "u").await.0, Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_of_one_requester_never_serves_another() {
        let source = Scripted::source("p", &[Step::List(&["admin_only"]), Step::Fail]);
        assert_eq!(names(&source, "admin").await.0, ["admin_only"]);
        assert_eq!(names(&source, "guest").await.0, Vec::<String>::new());
        assert_eq!(names(&source, "admin").await.0, ["admin_only"]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_asked_at_once_and_the_budget_holds_for_all_together() {
        let slow: Vec<_> = (0..4).map(|index| Scripted::source(&format!("p{index}"), &[Step::Sleep(10_000)])).collect();
        let quick = Scripted::source("q", &[Step::List(&["quick"])]);
        let sources: Vec<_> = slow.into_iter().chain([quick]).collect();
        let start = Instant::now();
        let offers = ask_all(&sources, &context("u"), BUDGET).await;
        assert_eq!(start.elapsed(), BUDGET);
        assert_eq!(offers[4].tools.len(), 1, "the quick one is in, although it was asked last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_request_is_dropped() {
        let lister = Arc::new(Scripted {
            steps: vec![Step::Sleep(10_000)],
            asked: AtomicUsize::new(0),
            dropped: Arc::default(),
        });
        let source =
            Arc::new(ToolSource::new(Origin::Embedder, SourceRules::default(), lister.clone(), &Limits::default()));
        assert_eq!(names(&source, "u").await.1, Some(ListFault::Late(BUDGET)));
        let dropped = tokio::time::timeout(Duration::from_secs(1), lister.dropped.notified()).await;
        assert!(dropped.is_ok());
        assert_eq!(source.count_late(), 0);
    }

    struct Blocking(Arc<Mutex<()>>);

    #[async_trait]
    impl ToolLister for Blocking {
        async fn list_tools(&self, _: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, ListFault> {
            drop(self.0.lock().unwrap());
            Ok(Vec::new())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_lister_that_blocks_its_thread_holds_up_no_turn_and_does_not_pile_up() {
        let gate = Arc::new(Mutex::new(()));
        let limits = Limits { tool_lists_late: 2, ..Limits::default() };
        let lister = Arc::new(Blocking(gate.clone()));
        let source = Arc::new(ToolSource::new(Origin::Embedder, SourceRules::default(), lister, &limits));
        let budget = Duration::from_millis(20);
        let faults = {
            let shut = gate.lock().unwrap();
            // The lock is this test's gate; the listers wait for it on their own threads.
            let ask = || ask_all(std::slice::from_ref(&source), &CONTEXT, budget);
            let faults = tokio::task::block_in_place(|| {
                let handle = tokio::runtime::Handle::current();
                (0..3).map(|_| handle.block_on(ask()).remove(0).fault.unwrap()).collect::<Vec<_>>()
            });
            drop(shut);
            faults
        };
        assert_eq!(faults, [ListFault::Late(budget), ListFault::Late(budget), ListFault::Busy(2)]);
        tokio::time::timeout(Duration::from_secs(10), async {
            while source.count_late() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(names(&source, "u").await.1, None);
    }

    static CONTEXT: std::sync::LazyLock<Arc<ToolProviderContext>> = std::sync::LazyLock::new(|| context("u"));

    #[tokio::test]
    async fn lists_are_bounded_per_source() {
        let limits = Limits { tool_lists_kept: 2, ..Limits::default() };
        let lister =
            Arc::new(Scripted { steps: vec![Step::List(&["t"])], asked: AtomicUsize::new(0), dropped: Arc::default() });
        let source = Arc::new(ToolSource::new(Origin::Embedder, SourceRules::default(), lister, &limits));
        for user in ["a", "b", "c"] {
            names(&source, user).await;
        }
        assert_eq!(source.lock().last_good.len(), 2);
    }

    #[tokio::test]
    async fn plugins_are_sorted_and_keep_their_lists_until_they_change() {
        let sources = ToolSources::new(None, &Limits::default());
        let lister = |steps: &[Step]| -> Arc<dyn ToolLister> {
            Arc::new(Scripted { steps: steps.to_vec(), asked: AtomicUsize::new(0), dropped: Arc::default() })
        };
        let (one, two) = (lister(&[Step::List(&["x"]), Step::Fail]), lister(&[Step::Fail]));
        let active = |one: &Arc<dyn ToolLister>| {
            [("b", two.clone()), ("a", one.clone())]
                .map(|(id, lister)| (PluginId::new(id), lister, SourceRules::default()))
        };
        let first = sources.for_turn(active(&one));
        assert_eq!(first.iter().map(|source| source.origin.to_string()).collect::<Vec<_>>(), ["plugin a", "plugin b"]);
        ask_all(&first, &context("u"), BUDGET).await;
        let second = sources.for_turn(active(&one));
        assert_eq!(ask_all(&second, &context("u"), BUDGET).await[0].tools.len(), 1, "the last good list holds");
        let reloaded = sources.for_turn(active(&lister(&[Step::Fail])));
        assert_eq!(ask_all(&reloaded, &context("u"), BUDGET).await[0].tools.len(), 0, "a new generation starts anew");
    }
}
