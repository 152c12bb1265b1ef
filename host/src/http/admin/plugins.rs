//! Which plugins there are, which run, and why the others do not. Reading only.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answers::{Answer, CallerRefusals},
    caller::{Admin, As},
};
use crate::{plugins::PluginReport, socket::Live};

/// Every plugin, by id.
#[derive(Serialize, ToSchema)]
pub(super) struct PluginList {
    plugins: Vec<PluginReport>,
}

/// The state of every plugin of the server, whatever the caller's organisation.
#[utoipa::path(
    get, path = "/admin/plugins", operation_id = "listPlugins", tag = "admin",
    responses((status = 200, body = PluginList, description = "every plugin"), CallerRefusals)
)]
pub(super) async fn list(_: As<Admin>, State(live): State<Arc<Live>>) -> Answer<PluginList> {
    Ok(Json(PluginList { plugins: live.plugins.reports() }))
}
