//! The list of all counters: names, help texts and buckets.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Metric, Registry},
};

use super::{
    labels::{BoundedNames, Decision, Found, ModelCall, Outcome, Plugin, PluginState, Provenance, Tokens, ToolCall},
    process::Process,
};

/// Bounds of what a model or a tool may take, in seconds.
const WORK_SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0];
/// Bounds of what a human may take, in seconds.
const WAIT_SECONDS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
/// Bounds of a search, in seconds.
const SEARCH_SECONDS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Everything that is counted.
pub(super) struct Counters {
    pub(super) connections: Gauge,
    pub(super) queue_bytes: Gauge,
    pub(super) slow_closes: Counter,
    pub(super) turns: Family<Outcome, Counter>,
    pub(super) turn_seconds: Histogram,
    pub(super) first_token_seconds: Histogram,
    pub(super) model_calls: Family<ModelCall, Counter>,
    pub(super) tokens: Family<Tokens, Counter>,
    pub(super) cost_usd: Family<Provenance, Counter<f64, AtomicU64>>,
    pub(super) models: BoundedNames,
    pub(super) tool_calls: Family<ToolCall, Counter>,
    pub(super) tool_seconds: Histogram,
    pub(super) tool_output_bytes: Histogram,
    pub(super) tool_output_truncated: Counter,
    pub(super) tools: BoundedNames,
    pub(super) approvals: Family<Decision, Counter>,
    pub(super) approval_wait_seconds: Histogram,
    pub(super) interactions: Family<Outcome, Counter>,
    pub(super) interaction_wait_seconds: Histogram,
    pub(super) plugin_states: Family<PluginState, Gauge>,
    pub(super) plugin_generations: Family<Plugin, Gauge>,
    pub(super) plugin_panics: Family<Plugin, Counter>,
    pub(super) resumes: Family<Found, Counter>,
    pub(super) retrieval_seconds: Histogram,
}

impl Counters {
    /// Counters at zero, and the registry that writes them. The library adds `_total` to counters.
    pub(super) fn new(names_max: usize) -> (Self, Registry) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let ours = &mut List(registry.sub_registry_with_prefix("jackfield"));
        ours.0.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let counters = Self {
            connections: ours.register("ws_connections", "Open WebSockets"),
            queue_bytes: ours.register("ws_queue_bytes", "Bytes that wait to be sent on WebSockets"),
            slow_closes: ours.register("ws_slow_closes", "WebSockets closed because the client did not read"),
            turns: ours.register("turns", "Turns by how they ended"),
            turn_seconds: ours.seconds("turn_duration_seconds", "From the accepted message to the end", &WORK_SECONDS),
            first_token_seconds: ours.seconds(
                "time_to_first_token_seconds",
                "From the accepted message to the first visible text",
                &WORK_SECONDS,
            ),
            model_calls: ours.register("llm_requests", "Model calls by how they ended"),
            tokens: ours.register("llm_tokens", "Tokens of model calls, measured by the gateway or estimated"),
            cost_usd: ours.register("cost_usd", "US dollars of model calls whose tokens were measured or estimated"),
            models: BoundedNames::new(names_max),
            tool_calls: ours.register("tool_calls", "Tool calls by whose tool it was and how they ended"),
            tool_seconds: ours.seconds("tool_duration_seconds", "How long tools ran", &WORK_SECONDS),
            tool_output_bytes: ours.add(
                "tool_output_bytes",
                "Size of the output that the model was given",
                Histogram::new(exponential_buckets(64.0, 4.0, 10)),
            ),
            tool_output_truncated: ours
                .register("tool_output_truncated", "Outputs of which the model was given a part"),
            tools: BoundedNames::new(names_max),
            approvals: ours.register("approvals", "Tool calls that a human was asked about, by what came of it"),
            approval_wait_seconds: ours.seconds(
                "approval_wait_seconds",
                "How long tool calls waited for a human",
                &WAIT_SECONDS,
            ),
            interactions: ours.register("interactions", "Forms that were shown, by what came of it"),
            interaction_wait_seconds: ours.seconds(
                "interaction_wait_seconds",
                "How long forms waited for a human",
                &WAIT_SECONDS,
            ),
            plugin_states: ours.register("plugin_state", "The state that each plugin file is in"),
            plugin_generations: ours.register("plugin_generations", "How often each plugin was loaded"),
            plugin_panics: ours.register("plugin_panics", "Tool calls that ended with a panic of the plugin"),
            resumes: ours.register("resume", "Attempts to come back to a turn, by what they found"),
            retrieval_seconds: ours.seconds(
                "retrieval_duration_seconds",
                "How long the knowledge base was searched",
                &SEARCH_SECONDS,
            ),
        };
        (counters, registry)
    }
}

/// Where counters are listed; they share their values with what is listed.
struct List<'a>(&'a mut Registry);

impl List<'_> {
    fn register<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, M::default())
    }

    fn seconds(&mut self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.add(name, help, Histogram::new(bounds.iter().copied()))
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}
