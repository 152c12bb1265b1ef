//! Takes connections and speaks HTTP on them, until the server stops. A request that becomes a WebSocket leaves here.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::Limits;

/// The pause after the system had no room for a connection.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The connections that speak HTTP.
pub(super) struct Requests {
    tasks: TaskTracker,
    /// One permit each; without one the next connection waits in the system's queue.
    slots: Arc<Semaphore>,
    header_time: Duration,
    /// Fires when those that are still there have to go.
    end: CancellationToken,
}

impl Requests {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tasks: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(limits.http_connections)),
            header_time: limits.http_header,
            end: CancellationToken::new(),
        }
    }

    /// Takes connections until `stop` fires. The listener is gone when this returns, and its port is free.
    pub(super) async fn accept(&self, listener: TcpListener, router: Router, stop: CancellationToken) {
        loop {
            let taken = tokio::select! {
                taken = self.next(&listener) => taken,
                () = stop.cancelled() => break,
            };
            let Some((stream, slot)) = taken else { continue };
            let serving = serve(stream, router.clone(), self.header_time, stop.clone());
            let end = self.end.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = serving => {}
                    () = end.cancelled() => {}
                }
                drop(slot);
            });
        }
        self.tasks.close();
    }

    /// The next connection and its slot. `None` when there was none this time.
    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let slot = self.slots.clone().acquire_owned().await.expect("the slots are never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small frames must not wait for the acknowledgement of the one before.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                Some((stream, slot))
            }
            Err(error) if is_the_clients(&error) => None,
            Err(error) => {
                tracing::error!(%error, "no connection can be taken; are too many files open?");
                tokio::time::sleep(NO_ROOM_PAUSE).await;
                None
            }
        }
    }

    /// Waits for requests that are being answered, and ends what is left after the time.
    pub(super) async fn finish(&self, within: Duration) {
        if tokio::time::timeout(within, self.tasks.wait()).await.is_err() {
            tracing::info!(connections = self.tasks.len(), "unfinished requests are dropped");
        }
        self.end.cancel();
        self.tasks.wait().await;
    }
}

/// Speaks HTTP on one connection. Once the server stops, the request that is being answered is the last one.
async fn serve(stream: TcpStream, router: Router, header_time: Duration, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Whether only this one connection is concerned.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
