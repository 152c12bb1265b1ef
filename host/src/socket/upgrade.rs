//! `GET /ws`: who is asking, is there room, then the upgrade.

use std::sync::Arc;

use axum::{
    extract::{Query, State, WebSocketUpgrade, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Live, connection};
use crate::{
    actions::Connection,
    auth::{AuthError, Caller, Principal},
};

/// A connection reads little and rarely: the library's default of 128 KiB would be most of its memory.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// A batch of small frames leaves in writes of about this size.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// The library reads frames up to this many times the limit, so that one that is a little too large can be answered
/// with a close frame; a larger one is not read at all.
const OVERSIZE_FACTOR: usize = 2;

#[derive(Deserialize)]
pub(crate) struct UpgradeQuery {
    token: Option<String>,
}

/// Upgrades the request, or says why not: 401 in strict mode without a good token, 503 when the server is full or
/// stopping.
pub(crate) async fn upgrade(
    State(live): State<Arc<Live>>,
    query: Result<Query<UpgradeQuery>, QueryRejection>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let token = query.ok().and_then(|Query(query)| query.token);
    let principal = match identify(&live, token.as_deref(), &headers).await {
        Ok(principal) => principal,
        Err(response) => return response,
    };
    if live.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down").into_response();
    }
    let Ok(slot) = live.connection_slots.clone().try_acquire_owned() else {
        let limit = live.services.config().limits.connections;
        let text = format!("this server has {limit} open connections, which is its limit (limits.connections)");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let inbound_max = live.services.config().limits.inbound_frame_bytes.saturating_mul(OVERSIZE_FACTOR);
    let tracker = live.sockets.clone();
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(inbound_max)
        .max_frame_size(inbound_max)
        .on_upgrade(move |socket| {
            tracker.track_future(async move {
                connection::run(socket, live, principal, origin).await;
                drop(slot);
            })
        })
}

/// The caller behind the token. A bad token makes an anonymous connection, unless the server is strict.
async fn identify(live: &Live, query_token: Option<&str>, headers: &HeaderMap) -> Result<Option<Principal>, Response> {
    let strict = live.services.config().strict_auth;
    let unauthorized = || (StatusCode::UNAUTHORIZED, "unauthorized").into_response();
    let Some(token) = bearer(query_token, headers) else {
        return if strict { Err(unauthorized()) } else { Ok(None) };
    };
    match live.services.auth().verify(&token).await {
        Ok(principal) => Ok(Some(principal)),
        Err(AuthError::Misconfigured(reason)) => {
            tracing::error!(%reason, "tokens cannot be checked");
            Err((StatusCode::INTERNAL_SERVER_ERROR, "authentication is misconfigured").into_response())
        }
        Err(error) if strict => {
            tracing::info!(%error, "a connection was refused");
            Err(unauthorized())
        }
        Err(error) => {
            tracing::info!(%error, "a connection stays anonymous");
            Ok(None)
        }
    }
}

/// The token of the query, which browsers can send, or of the header, which programs prefer. Empty counts as absent.
fn bearer(query_token: Option<&str>, headers: &HeaderMap) -> Option<String> {
    let token = query_token.map(str::trim).filter(|token| !token.is_empty());
    token.or_else(|| bearer_header(headers)).map(str::to_owned)
}

/// The token of the `Authorization` header. Empty counts as absent.
pub(crate) fn bearer_header(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer "))?;
    Some(token.trim()).filter(|token| !token.is_empty())
}

/// What an action needs to know about the connection it came on.
pub(super) fn describe(
    live: &Live,
    principal: Option<Principal>,
    origin: Option<String>,
    sender: crate::outgoing::EventSender,
) -> Connection {
    let services = &live.services;
    let id = crate::ids::ConnectionId(services.clock().new_id());
    let mut connection = Connection::new(id, sender, Caller::new(principal, Some(services.auth().mode())));
    connection.origin = origin;
    let org_id = services.org_of(&connection);
    connection.listen(&services.subscriptions, &org_id);
    connection
}
