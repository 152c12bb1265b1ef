//! The description of the HTTP API, made from what stands at the handlers, so that the two cannot differ.

use std::sync::Arc;

use axum::{
    Extension,
    http::{HeaderName, header},
};
use utoipa::{
    OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::admin::{ErrorBody, ErrorData, ErrorObject};
use crate::{auth::MODE_NONE, socket::Live};

/// What the description says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Jackfield",
        description = "The HTTP side of a Jackfield server. Conversations are held over the WebSocket at /ws, whose \
                       frames are not described here.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "server", description = "What anybody may ask"),
        (name = "admin", description = "On behalf of a caller, within the caller's organisation")
    ),
    components(schemas(ErrorBody, ErrorData, ErrorObject))
)]
struct Preamble;

/// The name of the way in which a token is sent.
const BEARER: &str = "bearer";

/// The description before any route is in it. A route needs a token unless it says otherwise, and no route does where
/// nobody checks tokens.
pub(super) fn preamble(live: &Live) -> utoipa::openapi::OpenApi {
    let mut description = Preamble::openapi();
    let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    description.components.get_or_insert_default().add_security_scheme(BEARER, scheme);
    let mut ways = vec![SecurityRequirement::new(BEARER, [] as [&str; 0])];
    if live.services.auth().mode() == MODE_NONE {
        ways.push(SecurityRequirement::default());
    }
    description.security = Some(ways);
    description
}

/// The finished description, for [`describe`].
pub(super) fn layer(description: &utoipa::openapi::OpenApi) -> Extension<Description> {
    Extension(Description(description.to_json().expect("a description is plain data").into()))
}

/// The description as text.
#[derive(Clone)]
pub(super) struct Description(Arc<str>);

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "describe", tag = "server", security(()),
    responses((status = 200, content_type = "application/json", body = Object, description = "this"))
)]
pub(super) async fn describe(
    Extension(Description(text)): Extension<Description>,
) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string())
}
