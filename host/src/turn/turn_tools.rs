//! Which tools a turn may call: the built-in ones, the embedder's and the active plugins', merged once per turn.

use std::sync::Arc;

use jackfield_plugin_api::{ToolProvider, ToolProviderContext};

use crate::{
    clock::SharedClock,
    config::ServerConfig,
    ids::PluginId,
    knowledge::{KnowledgeBase, Requester},
    plugins::{PluginLease, Plugins},
    tools::{
        BuiltIn, HitSink, SourceRules, ToolCaller, ToolLister, ToolSet, ToolSources, Toolbox, ask_all, issue_refund,
        knowledge_search,
    },
};

/// Everything about tools that outlives a turn.
pub(crate) struct TurnTools {
    /// Runs calls.
    pub(super) caller: Arc<ToolCaller>,
    sources: ToolSources,
    toolbox: Toolbox,
    plugins: Arc<Plugins>,
    config: Arc<ServerConfig>,
}

impl TurnTools {
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        clock: SharedClock,
        embedder: Option<Arc<dyn ToolProvider>>,
        plugins: Arc<Plugins>,
    ) -> Self {
        Self {
            caller: Arc::new(ToolCaller::new(clock, &config.limits)),
            sources: ToolSources::new(embedder, &config.limits),
            toolbox: Toolbox::new(config.plugins.name_conflict, &config.limits),
            plugins,
            config,
        }
    }

    /// The tools of this server for one turn; what `knowledge_search` finds is added to `cited`.
    pub(super) fn built_in(&self, knowledge: Arc<KnowledgeBase>, requester: Requester, cited: HitSink) -> Vec<BuiltIn> {
        let mut tools = vec![knowledge_search(knowledge, requester, cited)];
        if self.config.seed_kb {
            tools.push(issue_refund());
        }
        tools
    }

    /// Asks every source, within the budget, and merges what they offer; of that only what is `allowed`, unless nothing is
    /// named there. The result stays the same for the whole turn, and so do the plugins behind it: one that is replaced
    /// meanwhile goes on until the leases are dropped.
    pub(super) async fn for_turn(
        &self,
        context: &Arc<ToolProviderContext>,
        built_in: &[BuiltIn],
        allowed: &[String],
    ) -> (ToolSet, Vec<PluginLease>) {
        let (active, leases) = self.lease_plugins();
        let sources = self.sources.for_turn(active);
        let offers = ask_all(&sources, context, self.config.limits.tools_for).await;
        (self.toolbox.assemble(built_in, &offers, Some(allowed)), leases)
    }

    /// The plugins of one snapshot, each held. One that was replaced between the look and the lease has its successor
    /// in the next snapshot.
    fn lease_plugins(&self) -> (Vec<Active>, Vec<PluginLease>) {
        loop {
            let snapshot = self.plugins.snapshot();
            let offering = snapshot.entries.iter().filter(|entry| entry.state.offers_tools());
            let held = offering.map(|entry| {
                let provider = entry.provider.clone()?;
                let lease = provider.lease()?;
                let lister: Arc<dyn ToolLister> = provider;
                Some(((entry.id.clone(), lister, SourceRules::from(&entry.settings)), lease))
            });
            if let Some(held) = held.collect::<Option<Vec<_>>>() {
                return held.into_iter().unzip();
            }
            if self.plugins.snapshot().id == snapshot.id {
                // The server is going down; its plugins are stopped while their last snapshot still shows them.
                return (Vec::new(), Vec::new());
            }
        }
    }
}

/// A plugin that may be asked for tools.
type Active = (PluginId, Arc<dyn ToolLister>, SourceRules);
