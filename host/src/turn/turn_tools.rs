//! Which tools a turn may call: the built-in ones, the embedder's and the active plugins', merged once per turn.

use std::sync::Arc;

use jackfield_plugin_api::{ToolProvider, ToolProviderContext};

use crate::{
    clock::SharedClock,
    config::ServerConfig,
    knowledge::{KnowledgeBase, Requester},
    plugins::{PluginState, Plugins},
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
    /// named there. The result stays the same for the whole turn.
    pub(super) async fn for_turn(
        &self,
        context: &Arc<ToolProviderContext>,
        built_in: &[BuiltIn],
        allowed: &[String],
    ) -> ToolSet {
        let snapshot = self.plugins.snapshot();
        let active = snapshot.entries.iter().filter_map(|entry| {
            let lister: Arc<dyn ToolLister> = entry.provider.clone()?;
            (entry.state == PluginState::Active).then(|| (entry.id.clone(), lister, SourceRules::from(&entry.settings)))
        });
        let sources = self.sources.for_turn(active);
        let offers = ask_all(&sources, context, self.config.limits.tools_for).await;
        self.toolbox.assemble(built_in, &offers, Some(allowed))
    }
}
