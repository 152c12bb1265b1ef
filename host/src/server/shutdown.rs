//! Stopping in two steps: say "stop", then wait for what still runs, with a deadline.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::accept::Requests;
use crate::socket::Live;

/// How often idle sessions are looked for, unless they expire sooner than that.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// And at most this often.
const EXPIRY_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// What a cancelled turn and a closed connection may still use to end.
const AFTERMATH: Duration = Duration::from_secs(2);

/// The two steps of stopping, as a handle says them and the server hears them.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Let what runs come to its end.
    pub(super) gently: CancellationToken,
    /// Wait for nothing any more.
    pub(super) now: CancellationToken,
}

/// Waits for the stop, then ends turns, connections, requests and plugins in this order. Idle connections close
/// themselves at once; running turns, also those whose client has left, may use
/// [`Limits::shutdown`](crate::config::Limits::shutdown), or less when somebody is in a hurry.
pub(super) async fn drain(live: &Arc<Live>, requests: &Requests, stop: &Stop) {
    stop.gently.cancelled().await;
    live.connectors.stop();
    let services = &live.services;
    services.turn_tasks.close();
    live.sockets.close();
    let in_time = tokio::select! {
        () = services.turn_tasks.wait() => true,
        () = tokio::time::sleep(services.config().limits.shutdown) => false,
        () = stop.now.cancelled() => false,
    };
    if !in_time {
        for turn in services.turns.all() {
            tracing::warn!(turn = %turn.ids.turn, "the turn did not end in time and is cancelled");
            turn.cancel();
        }
        let _ = tokio::time::timeout(AFTERMATH, services.turn_tasks.wait()).await;
    }
    if tokio::time::timeout(AFTERMATH, live.sockets.wait()).await.is_err() {
        tracing::warn!(connections = live.sockets.len(), "some connections did not close in time");
    }
    requests.finish(AFTERMATH).await;
    live.plugins.shutdown(services.config().limits.plugin_shutdown).await;
}

/// Forgets idle sessions, conversations and the events of turns that ended some time ago, and tells the plugins which
/// conversations are gone.
pub(super) async fn expire_idle(live: Arc<Live>) {
    let services = &live.services;
    let period = EXPIRY_INTERVAL.min(services.config().limits.session_idle / 2).max(EXPIRY_INTERVAL_MIN);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        services.turns.expire();
        let idle_since = services.clock().now() - services.config().limits.session_idle;
        match services.storage().expire(idle_since).await {
            Ok(gone) => {
                for conversation in gone {
                    live.plugins.notify_all(&json!({
                        "event": "conversation_ended",
                        "conversation_id": conversation.to_string(),
                    }));
                }
            }
            Err(error) => tracing::warn!(%error, "idle sessions could not be expired"),
        }
    }
}
