//! The HTTP surface: a few routes behind the Host and Origin guard. The WebSocket itself is in `socket`.

mod guard;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use guard::BindRefusal;
pub(crate) use guard::{GuardPolicy, GuardPolicyError, bind_allowed};

use crate::{actions::Services, plugins::Plugins, socket};

/// A server that serves: what the routes need.
pub(crate) struct Live {
    /// What actions need.
    pub(crate) services: Arc<Services>,
    /// The plugins, to be told and stopped.
    pub(crate) plugins: Arc<Plugins>,
    /// Fires when the server has to stop.
    pub(crate) stop: CancellationToken,
    /// The tasks of open connections.
    pub(crate) sockets: TaskTracker,
    /// One permit per connection that may be open.
    pub(crate) connection_slots: Arc<Semaphore>,
}

impl Live {
    pub(crate) fn new(services: Arc<Services>, plugins: Arc<Plugins>, stop: CancellationToken) -> Arc<Self> {
        let connection_slots = Arc::new(Semaphore::new(services.config().limits.connections));
        Arc::new(Self { services, plugins, stop, sockets: TaskTracker::new(), connection_slots })
    }
}

/// All routes, behind the guard.
pub(crate) fn routes(live: Arc<Live>, policy: GuardPolicy) -> Router {
    Router::new()
        .route("/ws", get(socket::upgrade))
        .route("/health", get(|| async { "ok" }))
        .layer(middleware::from_fn_with_state(Arc::new(policy), guard::guard))
        .with_state(live)
}
