//! Whether the API answers, who is asking, and what the gateway's models cost.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answers::{Answer, CallerRefusals},
    caller::{As, Basic},
};
use crate::{auth::Principal, model::ModelInfo, socket::Live};

/// Says that the API answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the admin API answers.
#[utoipa::path(
    get, path = "/admin/health", operation_id = "adminHealth", tag = "admin", security(()),
    responses((status = 200, body = Health, description = "it does"))
)]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Who the token belongs to.
#[utoipa::path(
    get, path = "/admin/me", operation_id = "me", tag = "admin",
    responses((status = 200, body = Principal, description = "the principal"), CallerRefusals)
)]
pub(super) async fn me(caller: As<Basic>) -> Answer<Principal> {
    Ok(Json(caller.principal))
}

/// What a model costs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ModelCost)]
pub(super) struct Cost {
    /// US dollars a token of the request.
    #[schema(required)]
    input_cost_per_token: Option<f64>,
    /// US dollars a token of the reply.
    #[schema(required)]
    output_cost_per_token: Option<f64>,
    /// The gateway's class of the model.
    #[schema(required)]
    tier: Option<String>,
    /// What the gateway recommends it for.
    use_cases: Vec<String>,
    /// Ceiling of a reply, in tokens.
    #[schema(required)]
    max_output_tokens: Option<u32>,
}

impl From<&ModelInfo> for Cost {
    fn from(info: &ModelInfo) -> Self {
        Self {
            input_cost_per_token: info.input_cost_per_token,
            output_cost_per_token: info.output_cost_per_token,
            tier: info.tier.clone(),
            use_cases: info.use_cases.clone(),
            max_output_tokens: info.max_output_tokens,
        }
    }
}

/// What the gateway's models cost, by name; empty when the gateway does not say.
#[utoipa::path(
    get, path = "/admin/model-costs", operation_id = "modelCosts", tag = "admin", security(()),
    responses((status = 200, body = BTreeMap<String, Cost>, description = "the costs by model"))
)]
pub(super) async fn model_costs(State(live): State<Arc<Live>>) -> Json<BTreeMap<String, Cost>> {
    let Some(model) = &live.services.runtime.model else { return Json(BTreeMap::new()) };
    let catalog = model.catalog().await;
    Json(catalog.iter().map(|(name, info)| (name.clone(), Cost::from(info))).collect())
}
