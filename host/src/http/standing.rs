//! How the server stands, for whoever starts and watches it: `GET /readyz` and `GET /version`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{protocol::capabilities::PROTOCOL, socket::Live};

/// Whether messages are answered as the operator wants them answered.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// The server is on its way down.
    stopping: bool,
    /// What has to be there and is not.
    missing: Vec<Missing>,
}

/// A required plugin that is not there.
#[derive(Serialize, ToSchema)]
struct Missing {
    plugin: String,
    /// Where it is in its life; `absent` when no folder has it. The reason is in the log and in `plugins list`.
    state: &'static str,
}

/// 200 when the server is ready, 503 when it is not.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "server", security(()),
    responses(
        (status = 200, body = Readiness, description = "it is ready"),
        (status = 503, body = Readiness, description = "it is not, and why")
    )
)]
pub(super) async fn ready(State(live): State<Arc<Live>>) -> (StatusCode, Json<Readiness>) {
    let snapshot = live.plugins.snapshot();
    let missing = live.plugins.required_pending().into_iter().map(|id| {
        let entry = snapshot.entries.iter().find(|entry| entry.id == id);
        Missing { state: entry.map_or("absent", |entry| entry.state.name()), plugin: id.to_string() }
    });
    let missing: Vec<Missing> = missing.collect();
    let stopping = live.stop.is_cancelled();
    let ready = missing.is_empty() && !stopping;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, stopping, missing }))
}

/// What is running.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    name: &'static str,
    version: &'static str,
    /// Version of the protocol.
    protocol: &'static str,
    /// Version of the plugins' binary interface.
    #[serde(rename = "pluginAbi")]
    plugin_abi: &'static str,
}

/// What is running.
#[utoipa::path(
    get, path = "/version", operation_id = "version", tag = "server", security(()),
    responses((status = 200, body = Version, description = "program, protocol and plugin interface"))
)]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        protocol: PROTOCOL,
        plugin_abi: jackfield_plugin_abi::ABI_VERSION,
    })
}
