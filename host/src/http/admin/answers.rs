//! What the admin API answers: JSON, and for every refusal the `error` object of the protocol. A handler only says what
//! is wrong; the one layer here gives it its form and its time.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use utoipa::{IntoResponses, ToSchema};

use crate::{
    protocol::{ErrorCode, Event, EventFrame},
    socket::Live,
    storage::StorageError,
};

/// What a handler gives back.
pub(super) type Answer<T> = Result<Json<T>, AdminError>;

/// Why a request was not done: a status and a code for the client's program, a sentence for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdminError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl AdminError {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The request itself is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::ValidationError, message)
    }

    /// There is no such thing, or not for this caller.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, format!("no such {what}"))
    }

    /// The address is right and the method is not.
    fn method(method: &Method) -> Self {
        let message = format!("{method} is not possible here; the header Allow says what is");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::UnsupportedAction, message)
    }

    /// The caller may not do this.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }
}

impl From<StorageError> for AdminError {
    fn from(error: StorageError) -> Self {
        tracing::error!(%error, "the storage failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, error.to_string())
    }
}

impl IntoResponse for AdminError {
    /// Carries the error to [`finish`], which knows the time.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every answer its last form: a refusal its body, and all of them the headers that keep them out of caches and
/// from being taken for something else.
pub(super) async fn finish(State(live): State<Arc<Live>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let mut response = next.run(request).await;
    let refusal = response.extensions_mut().remove().or_else(|| {
        let is_refused = response.status() == StatusCode::METHOD_NOT_ALLOWED;
        is_refused.then(|| AdminError::method(&method))
    });
    if let Some(AdminError { status, code, message }) = refusal {
        let now = live.services.clock().now().as_millisecond();
        let body = EventFrame::new(None, now, Event::error(code, message)).to_json(false);
        // Set on the response that is there, because it may hold headers already (`Allow`).
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = body.into();
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The body of every refusal: the `error` object of the protocol.
#[derive(ToSchema)]
#[schema(as = Error)]
#[allow(dead_code, reason = "describes what EventFrame writes")]
pub(in crate::http) struct ErrorBody {
    /// Always `error`.
    #[schema(pattern = "^error$")]
    r#type: String,
    error: ErrorObject,
    data: ErrorData,
    /// When it was said, in milliseconds since 1970.
    timestamp: i64,
}

/// What is wrong.
#[derive(ToSchema)]
#[schema(as = ErrorObject)]
#[allow(dead_code, reason = "describes what EventFrame writes")]
pub(in crate::http) struct ErrorObject {
    /// For the client's program.
    #[schema(pattern = "^[A-Z_]+$")]
    code: String,
    /// For a person.
    message: String,
}

/// The same once more.
#[derive(ToSchema)]
#[schema(as = ErrorData)]
#[allow(dead_code, reason = "describes what EventFrame writes")]
pub(in crate::http) struct ErrorData {
    error: ErrorObject,
}

/// The refusals that every route with a caller has.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes what the caller's check answers")]
pub(super) enum CallerRefusals {
    /// No token, a wrong one, or one without a role.
    #[response(status = UNAUTHORIZED)]
    Unauthorized(ErrorBody),
    /// The caller's role is too low, or it is not theirs.
    #[response(status = FORBIDDEN)]
    Forbidden(ErrorBody),
    /// The server failed, or tokens cannot be checked.
    #[response(status = INTERNAL_SERVER_ERROR)]
    Failed(ErrorBody),
}

/// Something in the request is missing or wrong; says what was expected.
#[derive(IntoResponses)]
#[response(status = BAD_REQUEST)]
#[allow(dead_code, reason = "describes what the input's check answers")]
pub(super) struct Malformed(ErrorBody);

/// The body is longer than is accepted.
#[derive(IntoResponses)]
#[response(status = PAYLOAD_TOO_LARGE)]
#[allow(dead_code, reason = "describes what the input's check answers")]
pub(super) struct TooLong(ErrorBody);

/// There is no such thing, or not for this caller.
#[derive(IntoResponses)]
#[response(status = NOT_FOUND)]
#[allow(dead_code, reason = "describes what AdminError::not_found answers")]
pub(super) struct Unknown(ErrorBody);
