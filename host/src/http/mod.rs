//! The HTTP surface: a few routes behind the Host and Origin guard. The WebSocket itself is in `socket`.

mod guard;

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
        .route("/capabilities", get(|| async { Json(Capabilities::of_this_server()) }))
        .layer(middleware::from_fn_with_state(Arc::new(policy), guard::guard))
        .with_state(live)
}
