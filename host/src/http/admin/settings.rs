//! What an organisation's admins set for its turns.

use std::sync::Arc;

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    answers::{Answer, CallerRefusals, Malformed, TooLong},
    caller::{Admin, As, Curator},
    input::Body,
};
use crate::{socket::Live, storage::OrgSettings, turn::base_persona};

/// Settings in an envelope.
#[derive(Serialize, ToSchema)]
pub(super) struct SettingsAnswer {
    settings: Settings,
}

/// What holds for the turns of one organisation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Settings {
    org_id: String,
    /// The model of turns that name none; null leaves it to the server.
    #[schema(required)]
    model: Option<String>,
    /// Instructions for the model. Without settings: the server's own, which are then in force.
    system_prompt: String,
    /// Who the agent is; stands before the instructions.
    #[schema(required)]
    persona: Option<String>,
    /// The only tools on offer, by name; empty restricts nothing.
    default_tools: Vec<String>,
    /// When they were set; null when they never were.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
}

/// Settings to be.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewSettings {
    /// Absent, null or blank clears it.
    model: Option<String>,
    /// Replaces the server's own instructions; blank, or a copy of them, leaves them in force.
    system_prompt: String,
    /// Absent, null or blank clears it.
    persona: Option<String>,
    /// Absent or null restricts nothing.
    default_tools: Option<Vec<String>>,
}

/// The settings of the caller's organisation.
#[utoipa::path(
    get, path = "/admin/settings", operation_id = "readSettings", tag = "admin",
    responses((status = 200, body = SettingsAnswer, description = "the settings"), CallerRefusals)
)]
pub(super) async fn read(caller: As<Curator>, State(live): State<Arc<Live>>) -> Answer<SettingsAnswer> {
    let org_id = caller.principal.org_id;
    let stored = live.services.storage().org_settings(&org_id).await?;
    Ok(Json(answer(org_id, stored.as_deref(), &live)))
}

/// Replaces the settings of the caller's organisation. They hold from the next turn on.
#[utoipa::path(
    put, path = "/admin/settings", operation_id = "writeSettings", tag = "admin", request_body = NewSettings,
    responses(
        (status = 200, body = SettingsAnswer, description = "the settings as they hold now"),
        Malformed, TooLong, CallerRefusals
    )
)]
pub(super) async fn write(
    caller: As<Admin>,
    State(live): State<Arc<Live>>,
    Body(new): Body<NewSettings>,
) -> Answer<SettingsAnswer> {
    let org_id = caller.principal.org_id;
    let settings = OrgSettings {
        model: not_blank(new.model),
        system_prompt: new.system_prompt,
        persona: not_blank(new.persona),
        default_tools: new.default_tools.unwrap_or_default(),
        updated_at: live.services.clock().now(),
    };
    live.services.storage().set_org_settings(&org_id, settings.clone()).await?;
    tracing::info!(org = org_id, by = caller.principal.user_id, "the settings were changed");
    Ok(Json(answer(org_id, Some(&settings), &live)))
}

fn answer(org_id: String, stored: Option<&OrgSettings>, live: &Live) -> SettingsAnswer {
    let config = live.services.config();
    let in_force = || base_persona(config.persona.as_deref(), config.seed_kb).to_owned();
    let settings = match stored {
        None => Settings {
            org_id,
            model: None,
            system_prompt: in_force(),
            persona: None,
            default_tools: Vec::new(),
            updated_at: None,
        },
        Some(stored) => Settings {
            org_id,
            model: stored.model.clone(),
            system_prompt: stored.system_prompt.clone(),
            persona: stored.persona.clone(),
            default_tools: stored.default_tools.clone(),
            updated_at: Some(stored.updated_at),
        },
    };
    SettingsAnswer { settings }
}

fn not_blank(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
