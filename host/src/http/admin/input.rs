//! What a request brings: its path, its query, its body. Whatever is wrong with one of them becomes `VALIDATION_ERROR`
//! with the reason, never the framework's own text.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answers::AdminError;
use crate::{protocol::ErrorCode, socket::Live};

/// The body, as JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Live>> for Body<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, live: &Arc<Live>) -> Result<Self, AdminError> {
        let limits = &live.services.config().limits;
        let Ok(read) = timeout(limits.admin_body, Json::from_request(request, &())).await else {
            let seconds = limits.admin_body.as_secs_f32();
            return Err(AdminError::invalid(format!("the body did not arrive within {seconds} s")));
        };
        let rejection = match read {
            Ok(Json(body)) => return Ok(Self(body)),
            Err(rejection) => rejection,
        };
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message =
                format!("the body is longer than the {} bytes of limits.admin_body_bytes", limits.admin_body_bytes);
            return Err(AdminError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ValidationError, message));
        }
        Err(AdminError::invalid(rejection.body_text()))
    }
}

/// The query.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Live>> for Asked<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Live>) -> Result<Self, AdminError> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|rejection| AdminError::invalid(rejection.body_text()))
    }
}

/// The one variable part of the path.
pub(super) struct Named(pub(super) String);

impl FromRequestParts<Arc<Live>> for Named {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, live: &Arc<Live>) -> Result<Self, AdminError> {
        let path = Path::from_request_parts(parts, live).await;
        path.map(|Path(name)| Self(name)).map_err(|rejection| AdminError::invalid(rejection.body_text()))
    }
}

/// A page size from 1 to 200, 50 when none is asked for.
pub(super) fn page_size(limit: Option<i64>) -> Result<usize, AdminError> {
    let limit = limit.unwrap_or(50);
    usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=200).contains(limit))
        .ok_or_else(|| AdminError::invalid(format!("limit must be from 1 to 200, it is {limit}")))
}
