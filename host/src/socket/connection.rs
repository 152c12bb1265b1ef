//! The reader and the writer of one connection.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};

use super::{Live, upgrade::describe};
use crate::{
    actions::{self, Connection},
    auth::Principal,
    config::OnDisconnect,
    outgoing::{self, CloseReason, EventReceiver, EventSender, QueueLimits},
};

/// How long a closing connection may take to send what waits and its close frame.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// Runs the connection until either side ends it.
pub(super) async fn run(socket: WebSocket, live: Arc<Live>, principal: Option<Principal>, origin: Option<String>) {
    let limits = &live.services.config().limits;
    let (sender, receiver) =
        outgoing::channel(QueueLimits { bytes: limits.outgoing_bytes, events: limits.outgoing_events });
    let (sink, stream) = socket.split();
    let mut writer = tokio::spawn(write(sink, receiver));
    let mut connection = describe(&live, principal, origin, sender.clone());
    let _open = live.queues.add(connection.id, &sender);

    let reason = read(stream, &live, &mut connection, &sender).await;

    if reason == CloseReason::SlowClient {
        live.services.runtime.metrics.slow_close();
    }
    leave(&live, &connection);
    drop(connection);
    sender.close(reason);
    drop(sender);
    if tokio::time::timeout(2 * CLOSING_TIME, &mut writer).await.is_err() {
        writer.abort();
    }
}

/// Handles frames one after the other until the connection ends, and says why it does.
async fn read(
    mut frames: SplitStream<WebSocket>,
    live: &Arc<Live>,
    connection: &mut Connection,
    sender: &EventSender,
) -> CloseReason {
    loop {
        let id = connection.id;
        let frame = tokio::select! {
            frame = frames.next() => frame,
            reason = sender.closed() => return reason,
            () = stopped_and_quiet(live, connection) => return CloseReason::ShuttingDown,
        };
        match frame {
            Some(Ok(Message::Text(text))) => {
                if text.len() > live.services.config().limits.inbound_frame_bytes {
                    return CloseReason::FrameTooLarge;
                }
                // Boxed, because what an action needs while it runs is most of a connection's memory.
                Box::pin(actions::handle(&live.services, connection, &text)).await;
            }
            Some(Ok(Message::Binary(_))) => actions::refuse_binary(&live.services, connection),
            // The library answers a ping itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return CloseReason::ConnectionGone,
            Some(Err(error)) => {
                tracing::debug!(connection = %id, %error, "the connection broke");
                return reason_of(&error);
            }
        }
    }
}

/// Completes when the server stops and no turn whose events come to this connection runs any more.
async fn stopped_and_quiet(live: &Live, connection: &Connection) {
    live.stop.cancelled().await;
    while let Some(turn) = connection.following().pop() {
        turn.cancelled.cancelled().await;
    }
}

/// What was created and never used goes with the connection. A turn belongs to its conversation: that its connection
/// goes matters only when the configuration says so, and then only when no other connection follows the turn.
fn leave(live: &Live, connection: &Connection) {
    live.services.drafts.discard(connection.id);
    let policy = live.services.config().on_disconnect;
    for turn in connection.following() {
        let is_followed = turn.log.unsubscribe(connection.id);
        if policy == OnDisconnect::Cancel && !is_followed {
            // Nobody is told; whoever comes back finds that it was stopped.
            turn.cancel();
        }
    }
}

/// A frame far above the limit is refused by the library before it is read; one a little above it is read whole.
fn reason_of(error: &axum::Error) -> CloseReason {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        // The library's error type is not axum's to name, but its text is stable: "Space limit exceeded: Message too long".
        if error.to_string().contains("too long") {
            return CloseReason::FrameTooLarge;
        }
        source = error.source();
    }
    CloseReason::ConnectionGone
}

/// Sends what the queue holds, in batches that end with one flush, and at the end the close frame.
async fn write(mut frames: SplitSink<WebSocket, Message>, mut receiver: EventReceiver) {
    let mut batch = Vec::new();
    let reason = loop {
        if let Err(reason) = receiver.recv_batch(&mut batch).await {
            break reason;
        }
        let sending = async {
            for outgoing in batch.drain(..) {
                frames.feed(Message::text(outgoing.to_json())).await?;
            }
            frames.flush().await
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = receiver.overflowed() => break CloseReason::SlowClient,
        };
        if sent.is_err() {
            return;
        }
    };
    let Some(code) = reason.code() else { return };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.text().into() }));
    let closing = async {
        frames.send(close).await?;
        frames.close().await
    };
    let closed = tokio::time::timeout(CLOSING_TIME, closing).await;
    if reason == CloseReason::FrameTooLarge && matches!(closed, Ok(Ok(()))) {
        // Closing while the client still sends would reset the connection, and the client might never read why.
        tokio::time::sleep(CLOSING_TIME / 2).await;
    }
}
