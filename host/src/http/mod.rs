//! The HTTP surface: a few routes behind the Host and Origin guard. The WebSocket itself is in `socket`.

mod guard;
mod metrics;
mod schema;
mod standing;

use std::sync::Arc;

use axum::{Json, Router, middleware, routing::get};

pub(crate) use guard::BindRefusal;
pub(crate) use guard::{GuardPolicy, GuardPolicyError, bind_allowed};

use crate::{
    protocol::capabilities::Capabilities,
    socket::{self, Live},
};

/// All routes, behind the guard.
pub(crate) fn routes(live: Arc<Live>, policy: GuardPolicy) -> Router {
    Router::new()
        .route("/ws", get(socket::upgrade))
        .route("/health", get(|| async { "ok" }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(standing::ready))
        .route("/version", get(standing::version))
        .route("/metrics", get(metrics::scrape))
        .route("/schema", get(schema::index))
        .route("/schema/", get(schema::index))
        .route("/schema/{file}", get(schema::document))
        .route("/capabilities", get(|| async { Json(Capabilities::of_this_server()) }))
        .layer(middleware::from_fn_with_state(Arc::new(policy), guard::guard))
        .with_state(live)
}
