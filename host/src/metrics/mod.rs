//! What the server counts about itself, and its text for Prometheus.
//!
//! Everything is counted once per turn, call or connection and never per token, and no label holds what only one
//! conversation, session or user has. What can be looked up (open connections, the plugins' states, the process) is
//! looked up when somebody asks.

mod counters;
mod labels;
mod process;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{encoding::prometheus_text, registry::Registry};

use counters::Counters;
use labels::{Decision, Found, ModelCall, OTHER, Outcome, Plugin, PluginState, Provenance, Tokens, ToolCall};

/// The content type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters of one server. Cheap to clone; clones count together.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    counters: Counters,
    /// Writes the text. Held for one text, so that two that ask at once do not mix what was looked up.
    registry: Mutex<Registry>,
}

/// What is looked up when somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now {
    /// Open WebSockets.
    pub(crate) connections: usize,
    /// Bytes that wait for all of them.
    pub(crate) queued_bytes: usize,
    /// Every plugin file.
    pub(crate) plugins: Vec<PluginNow>,
}

/// One plugin at the moment.
#[derive(Clone, Debug)]
pub(crate) struct PluginNow {
    /// Its id.
    pub(crate) id: String,
    /// The name of its state.
    pub(crate) state: &'static str,
    /// Which load of this id it is, from 1; 0 before the first.
    pub(crate) generation: u64,
}

/// Tokens and money of one model call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// Tokens of the request.
    pub(crate) prompt_tokens: u64,
    /// Tokens of the reply.
    pub(crate) completion_tokens: u64,
    /// US dollars.
    pub(crate) cost_usd: f64,
    /// Whether the gateway measured them.
    pub(crate) measured: bool,
}

impl Metrics {
    /// Counters at zero. `names_max` bounds the tools and the models, each, that are told apart.
    pub(crate) fn new(names_max: usize) -> Self {
        let (counters, registry) = Counters::new(names_max);
        Self(Arc::new(Inner { counters, registry: Mutex::new(registry) }))
    }

    /// The text for Prometheus.
    pub(crate) fn text(&self, now: &Now) -> String {
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &self.0.counters;
        inner.connections.set(count(now.connections));
        inner.queue_bytes.set(count(now.queued_bytes));
        inner.plugin_states.clear();
        inner.plugin_generations.clear();
        for PluginNow { id, state, generation } in &now.plugins {
            inner.plugin_states.get_or_create(&PluginState { plugin: id.clone(), state }).set(1);
            inner.plugin_generations.get_or_create(&Plugin { plugin: id.clone() }).set(count(*generation));
        }
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("a string takes all that is written to it");
        text
    }

    /// A connection was closed because its client did not read.
    pub(crate) fn slow_close(&self) {
        self.0.counters.slow_closes.inc();
    }

    /// A turn ended, this long after its message was accepted.
    pub(crate) fn turn_ended(&self, outcome: &'static str, took: Duration) {
        self.0.counters.turns.get_or_create(&Outcome { outcome }).inc();
        self.0.counters.turn_seconds.observe(took.as_secs_f64());
    }

    /// A turn said something for the first time.
    pub(crate) fn first_token(&self, after: Duration) {
        self.0.counters.first_token_seconds.observe(after.as_secs_f64());
    }

    /// A model call ended.
    pub(crate) fn model_call(&self, provider: &'static str, model: &str, outcome: &'static str, spent: Spent) {
        let inner = &self.0.counters;
        let model = inner.models.name(model);
        inner.model_calls.get_or_create(&ModelCall { provider, model: model.to_owned(), outcome }).inc();
        let provenance = if spent.measured { "measured" } else { "estimated" };
        for (direction, tokens) in [("input", spent.prompt_tokens), ("output", spent.completion_tokens)] {
            if tokens > 0 {
                inner.tokens.get_or_create(&Tokens { direction, provenance }).inc_by(tokens);
            }
        }
        if spent.cost_usd.is_finite() && spent.cost_usd > 0.0 {
            inner.cost_usd.get_or_create(&Provenance { provenance }).inc_by(spent.cost_usd);
        }
    }

    /// A tool call ended. `plugin` says whose tool it was, or `built-in` or `embedder`.
    pub(crate) fn tool_call(&self, plugin: &str, tool: &str, outcome: &'static str) {
        let inner = &self.0.counters;
        let known = inner.tools.name(&format!("{plugin} {tool}")) != OTHER;
        let tool = if known { tool } else { OTHER };
        let labels = ToolCall { plugin: plugin.to_owned(), tool: tool.to_owned(), outcome };
        inner.tool_calls.get_or_create(&labels).inc();
    }

    /// A tool has run, and this is what it cost.
    pub(crate) fn tool_ran(&self, took: Duration, output_bytes: usize, cut_bytes: usize) {
        self.0.counters.tool_seconds.observe(took.as_secs_f64());
        self.0.counters.tool_output_bytes.observe(output_bytes as f64);
        if cut_bytes > 0 {
            self.0.counters.tool_output_truncated.inc();
        }
    }

    /// A human was asked about a tool call.
    pub(crate) fn approval(&self, decision: &'static str, waited: Duration) {
        self.0.counters.approvals.get_or_create(&Decision { decision }).inc();
        self.0.counters.approval_wait_seconds.observe(waited.as_secs_f64());
    }

    /// A human was shown a form.
    pub(crate) fn interaction(&self, outcome: &'static str, waited: Duration) {
        self.0.counters.interactions.get_or_create(&Outcome { outcome }).inc();
        self.0.counters.interaction_wait_seconds.observe(waited.as_secs_f64());
    }

    /// A call ended with a panic of the plugin.
    pub(crate) fn plugin_panic(&self, plugin: &str) {
        self.0.counters.plugin_panics.get_or_create(&Plugin { plugin: plugin.to_owned() }).inc();
    }

    /// A client came back to a turn.
    pub(crate) fn resumed(&self, result: &'static str) {
        self.0.counters.resumes.get_or_create(&Found { result }).inc();
    }

    /// The knowledge base was searched.
    pub(crate) fn retrieved(&self, took: Duration) {
        self.0.counters.retrieval_seconds.observe(took.as_secs_f64());
    }
}

fn count(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new(10);
        metrics.turn_ended("completed", Duration::from_millis(300));
        metrics.first_token(Duration::from_millis(20));
        let spent = Spent { prompt_tokens: 12, completion_tokens: 3, cost_usd: 0.5, measured: true };
        metrics.model_call("gateway", "m", "completed", spent);
        metrics.model_call("gateway", "m", "completed", spent);
        metrics.tool_call("clock", "current_time", "answered");
        metrics.tool_ran(Duration::from_millis(2), 100, 7);
        metrics.approval("approved", Duration::from_secs(3));
        metrics.resumed("running");
        let plugins = vec![PluginNow { id: "clock".into(), state: "active", generation: 2 }];
        let text = metrics.text(&Now { connections: 3, queued_bytes: 40, plugins });
        for line in [
            concat!("jackfield_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "jackfield_ws_connections 3",
            "jackfield_ws_queue_bytes 40",
            "jackfield_turns_total{outcome=\"completed\"} 1",
            "jackfield_turn_duration_seconds_count 1",
            "jackfield_time_to_first_token_seconds_bucket{le=\"0.025\"} 1",
            "jackfield_llm_requests_total{provider=\"gateway\",model=\"m\",outcome=\"completed\"} 2",
            "jackfield_llm_tokens_total{direction=\"input\",provenance=\"measured\"} 24",
            "jackfield_cost_usd_total{provenance=\"measured\"} 1.0",
            "jackfield_tool_calls_total{plugin=\"clock\",tool=\"current_time\",outcome=\"answered\"} 1",
            "jackfield_tool_output_truncated_total 1",
            "jackfield_approval_wait_seconds_sum 3.0",
            "jackfield_plugin_state{plugin=\"clock\",state=\"active\"} 1",
            "jackfield_plugin_generations{plugin=\"clock\"} 2",
            "jackfield_resume_total{result=\"running\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_state_that_is_over_is_not_shown() {
        let metrics = Metrics::new(10);
        let plugin = |state| PluginNow { id: "clock".into(), state, generation: 1 };
        metrics.text(&Now { plugins: vec![plugin("verified")], ..Now::default() });
        let text = metrics.text(&Now { plugins: vec![plugin("active")], ..Now::default() });
        assert!(text.contains("state=\"active\"") && !text.contains("state=\"verified\""), "{text}");
    }

    #[test]
    fn names_that_clients_choose_do_not_pile_up() {
        let metrics = Metrics::new(2);
        for name in ["a", "b", "c", "d", "a"] {
            metrics.model_call("gateway", name, "completed", Spent::default());
            metrics.tool_call("embedder", name, "answered");
        }
        let text = metrics.text(&Now::default());
        for name in ["c", "d"] {
            assert!(!text.contains(&format!("\"{name}\"")), "{text}");
        }
        assert!(text.contains("model=\"other\",outcome=\"completed\"} 2"), "{text}");
        assert!(text.contains("tool=\"other\",outcome=\"answered\"} 2"), "{text}");
    }
}
