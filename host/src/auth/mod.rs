//! Who is asking: tokens become principals, principals decide what is visible.

mod claims;
mod jwt;
mod scope;
mod trusted;
mod verifiers;
mod widget;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    clock::SharedClock,
    config::{AuthMode, ServerConfig},
};
pub use jwt::{AuthSettingsError, JwtVerifier};
pub use scope::{Caller, UserScope, normal_email};
pub use trusted::TrustedVerifier;
pub(crate) use verifiers::MODE_NONE;
pub use verifiers::{DisabledAuth, LocalTokenVerifier, NoAuthVerifier};
pub(crate) use widget::{Admission, WidgetRefusal, admit};
pub use widget::{HttpWidgetAuth, PermissiveWidgetAuth, WidgetAuth, WidgetAuthError, WidgetPolicy};

/// What a principal may do in the admin API; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees what is theirs.
    Basic,
    /// Manages content.
    Curator,
    /// Manages everything.
    Admin,
}

impl Role {
    /// The role of this name; `user` means basic.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "basic" | "user" => Some(Role::Basic),
            "curator" => Some(Role::Curator),
            "admin" => Some(Role::Admin),
            _ => None,
        }
    }

    /// The name in tokens and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Basic => "basic",
            Role::Curator => "curator",
            Role::Admin => "admin",
        }
    }
}

/// A verified caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// Stable id of the user.
    pub user_id: String,
    /// The organisation the user acts for.
    pub org_id: String,
    /// What the user may do.
    pub role: Role,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The verified address; decides which conversations are the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Groups that documents may be shared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// Why a token was not accepted. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The token is wrong, expired or not for this server.
    #[error("the token was not accepted: {0}")]
    InvalidToken(String),
    /// The token names no role this server knows.
    #[error("the token carries no usable role")]
    MissingRole,
    /// The verifier itself cannot work.
    #[error("authentication is misconfigured: {0}")]
    Misconfigured(String),
}

/// Turns a bearer token into a principal.
#[async_trait]
pub trait AuthVerifier: Send + Sync + 'static {
    /// Checks one token, without its `Bearer ` prefix.
    ///
    /// # Errors
    ///
    /// See [`AuthError`]; the caller stays anonymous then, or is refused in strict mode.
    async fn verify(&self, bearer_token: &str) -> Result<Principal, AuthError>;

    /// A short label of how tokens are checked, for logs and `Debug`: `none`, `local-token`, …
    fn mode(&self) -> &'static str;
}

/// The verifier of a configuration.
///
/// # Errors
///
/// A key that is none, or an address that must not be believed.
pub(crate) fn configured(
    config: &ServerConfig,
    clock: &SharedClock,
) -> Result<Arc<dyn AuthVerifier>, AuthSettingsError> {
    let org = &config.org_id;
    Ok(match &config.auth {
        AuthMode::None => Arc::new(NoAuthVerifier::in_org(org)),
        AuthMode::LocalToken(token) => Arc::new(LocalTokenVerifier::new(token.reveal()).in_org(org)),
        AuthMode::Jwt(settings) => Arc::new(JwtVerifier::new(settings, &config.limits)?),
        AuthMode::Trusted => Arc::new(TrustedVerifier::new(clock.clone())),
        AuthMode::Disabled => Arc::new(DisabledAuth),
    })
}

/// Whether a verifier of this mode keeps strangers out: neither one that takes everybody nor one that believes what it
/// is told does.
pub(crate) fn checks_tokens(mode: &str) -> bool {
    !matches!(mode, verifiers::MODE_NONE | verifiers::MODE_TRUSTED | verifiers::MODE_DISABLED)
}

/// The widget policies of a configuration.
///
/// # Errors
///
/// An address that must not be believed.
pub(crate) fn configured_widgets(config: &ServerConfig) -> Result<Arc<dyn WidgetAuth>, AuthSettingsError> {
    let settings = &config.widget;
    let Some(url) = &settings.policy_url else { return Ok(Arc::new(PermissiveWidgetAuth)) };
    let service = HttpWidgetAuth::new(url, settings.policy_bearer.clone(), settings.policy_ttl, &config.limits);
    Ok(Arc::new(service.map_err(|reason| AuthSettingsError { key: "widget.policy_url", reason })?))
}
