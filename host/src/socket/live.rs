//! What a serving server keeps for its connections.

use std::sync::Arc;

use jackfield_plugin_api::GatewayKey;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{actions::Services, connectors::Connectors, outgoing::OpenQueues, plugins::Plugins};

/// The page with the chat widget.
#[derive(Clone, Debug, Default)]
pub(crate) struct WidgetPage {
    /// Given to everybody who opens the page.
    pub(crate) token: Option<GatewayKey>,
}

/// A server that serves: what its connections share.
pub(crate) struct Live {
    /// What actions need.
    pub(crate) services: Arc<Services>,
    /// The plugins, to be told and stopped.
    pub(crate) plugins: Arc<Plugins>,
    /// Where documents come from.
    pub(crate) connectors: Connectors,
    /// Lets its holder change which code the server runs; good until the server ends.
    pub(crate) admin_token: GatewayKey,
    /// Served when there is one.
    pub(crate) widget: Option<WidgetPage>,
    /// Fires when the server has to stop.
    pub(crate) stop: CancellationToken,
    /// The tasks of open connections.
    pub(crate) sockets: TaskTracker,
    /// What waits for them.
    pub(crate) queues: OpenQueues,
    /// One permit per connection that may be open.
    pub(crate) connection_slots: Arc<Semaphore>,
}

impl Live {
    pub(crate) fn new(
        services: Arc<Services>,
        plugins: Arc<Plugins>,
        connectors: Connectors,
        admin_token: GatewayKey,
        widget: Option<WidgetPage>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let connection_slots = Arc::new(Semaphore::new(services.config().limits.connections));
        Arc::new(Self {
            services,
            plugins,
            connectors,
            admin_token,
            widget,
            stop,
            sockets: TaskTracker::new(),
            queues: OpenQueues::default(),
            connection_slots,
        })
    }
}
