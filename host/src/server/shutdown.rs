//! Stopping in two steps: say "stop", then wait for what still runs, with a deadline.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::socket::Live;

/// How often idle sessions are looked for, unless they expire sooner than that.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// And at most this often.
const EXPIRY_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// What a cancelled turn and a closed connection may still use to end.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Completes when the process is asked to stop: Ctrl-C, or `SIGTERM` where there is one.
pub async fn stop_requested() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be noticed");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be noticed");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}

/// Waits for the stop, then ends turns, connections and plugins in this order. Idle connections close themselves at
/// once; running turns, also those whose client has left, may use [`Limits::shutdown`](crate::config::Limits::shutdown).
pub(super) async fn drain(live: &Arc<Live>) {
    live.stop.cancelled().await;
    let services = &live.services;
    services.turn_tasks.close();
    live.sockets.close();
    if tokio::time::timeout(services.config().limits.shutdown, services.turn_tasks.wait()).await.is_err() {
        for turn in services.turns.all() {
            tracing::warn!(turn = %turn.ids.turn, "the turn did not end in time and is cancelled");
            turn.cancel();
        }
        let _ = tokio::time::timeout(AFTERMATH, services.turn_tasks.wait()).await;
    }
    if tokio::time::timeout(AFTERMATH, live.sockets.wait()).await.is_err() {
        tracing::warn!(connections = live.sockets.len(), "some connections did not close in time");
    }
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
