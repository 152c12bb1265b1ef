//! The HTTP surface: a few routes behind the Host and Origin guard. The WebSocket itself is in `socket`.

mod admin;
mod guard;
mod metrics;
mod openapi;
mod schema;
mod standing;
mod widget;

use std::sync::Arc;

use axum::{Json, Router, middleware, routing::get};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use guard::BindRefusal;
pub(crate) use guard::{GuardPolicy, GuardPolicyError, bind_allowed};

use crate::{
    protocol::capabilities::Capabilities,
    socket::{self, Live},
};

/// All routes, behind the guard.
pub(crate) fn routes(live: Arc<Live>, policy: GuardPolicy) -> Router {
    let described = OpenApiRouter::with_openapi(openapi::preamble(&live))
        .routes(routes!(health))
        .routes(routes!(standing::ready))
        .routes(routes!(standing::version))
        .routes(routes!(metrics::scrape))
        .routes(routes!(capabilities))
        .routes(routes!(openapi::describe))
        .routes(routes!(schema::index))
        .routes(routes!(schema::document))
        .merge(admin::routes(&live, policy.listed_origins()));
    let (router, description) = described.split_for_parts();
    router
        .route("/ws", get(socket::upgrade))
        .route("/healthz", get(health))
        .route("/schema", get(schema::index))
        .merge(widget::routes(&live))
        .layer(openapi::layer(&description))
        .layer(middleware::from_fn_with_state(Arc::new(policy), guard::guard))
        .with_state(live)
}

/// Whether the server answers.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "server", security(()),
    responses((status = 200, content_type = "text/plain", body = String, description = "it does"))
)]
async fn health() -> &'static str {
    "ok"
}

/// What this server can do beyond the protocol that every client knows.
#[utoipa::path(
    get, path = "/capabilities", operation_id = "capabilities", tag = "server", security(()),
    responses((status = 200, body = Capabilities, description = "its capabilities"))
)]
async fn capabilities() -> Json<Capabilities> {
    Json(Capabilities::of_this_server())
}
