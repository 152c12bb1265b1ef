//! `GET /metrics`, for Prometheus.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, header},
};

use crate::{
    metrics::{CONTENT_TYPE, Now, PluginNow},
    plugins::Plugins,
    socket::Live,
};

/// Everything that is counted, and what can be looked up at the moment.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "server", security(()),
    responses((status = 200, content_type = CONTENT_TYPE, body = String, description = "the metrics"))
)]
pub(super) async fn scrape(State(live): State<Arc<Live>>) -> ([(HeaderName, &'static str); 1], String) {
    let totals = live.queues.totals();
    let now = Now { connections: totals.connections, queued_bytes: totals.bytes, plugins: plugins_now(&live.plugins) };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], live.services.runtime.metrics.text(&now))
}

fn plugins_now(plugins: &Plugins) -> Vec<PluginNow> {
    let entries = &plugins.snapshot().entries;
    let now = entries.iter().map(|entry| PluginNow {
        id: entry.id.to_string(),
        state: entry.state.name(),
        generation: entry.generation.unwrap_or(0),
    });
    now.collect()
}
