//! Which pages may read the answers of the admin API: those that the operator listed, and no others. Our own page needs
//! no leave, and a page that is not listed has been refused before this.

use axum::http::{HeaderName, HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::WebOrigin;

pub(super) fn layer(origins: &[WebOrigin]) -> CorsLayer {
    let origins = origins.to_vec();
    let is_listed = move |origin: &HeaderValue, _: &Parts| {
        let page = origin.to_str().ok().and_then(WebOrigin::parse);
        page.is_some_and(|page| origins.contains(&page))
    };
    let headers: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_listed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers(headers)
}
