//! The admin API: JSON in and out, every request on behalf of one principal, everything within its organisation.
//!
//! ```text
//! guard (Host, Origin) ─▶ cors ─▶ answers ─▶ handler: caller ─▶ input ─▶ work
//!                                    ▲                                    │
//!                                    └──────── JSON, or AdminError ◀──────┘
//! ```
//!
//! A handler names who may call it by its first argument, `As<Curator>`, so that nothing of a request is read before
//! its caller is known. Each handler carries its own description, from which `/openapi.json` is made.

mod answers;
mod basics;
mod caller;
mod connectors;
mod conversations;
mod cors;
mod input;
mod knowledge;
mod plugins;
mod publish;
mod settings;

use std::sync::Arc;

use axum::{extract::DefaultBodyLimit, middleware, routing::any};
use utoipa_axum::{router::OpenApiRouter, routes};

use answers::AdminError;
pub(super) use answers::{ErrorBody, ErrorData, ErrorObject};

use crate::{config::WebOrigin, socket::Live};

/// All routes below `/admin`. Pages of `origins` may read the answers.
pub(super) fn routes(live: &Arc<Live>, origins: &[WebOrigin]) -> OpenApiRouter<Arc<Live>> {
    OpenApiRouter::new()
        .routes(routes!(basics::health))
        .routes(routes!(basics::model_costs))
        .routes(routes!(basics::me))
        .routes(routes!(conversations::list))
        .routes(routes!(conversations::messages))
        .routes(routes!(settings::read, settings::write))
        .routes(routes!(publish::publish))
        .routes(routes!(connectors::list, connectors::create))
        .routes(routes!(connectors::read, connectors::replace, connectors::delete))
        .routes(routes!(connectors::index))
        .routes(routes!(connectors::runs))
        .routes(routes!(connectors::run))
        .routes(routes!(connectors::document_sets))
        .routes(routes!(knowledge::state))
        .routes(routes!(knowledge::documents, knowledge::put_document, knowledge::delete_document))
        .routes(routes!(knowledge::add_source))
        .routes(routes!(knowledge::remove_source))
        .routes(routes!(knowledge::index_source))
        .routes(routes!(knowledge::query))
        .routes(routes!(plugins::list))
        .route("/admin/{*rest}", any(nowhere))
        .layer(DefaultBodyLimit::max(live.services.config().limits.admin_body_bytes))
        .layer(middleware::from_fn_with_state(live.clone(), answers::finish))
        .layer(cors::layer(origins))
}

/// An address below `/admin` where nothing is.
async fn nowhere() -> AdminError {
    AdminError::not_found("address; GET /openapi.json lists what there is")
}
