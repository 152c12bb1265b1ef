//! What a token says about its holder, whoever vouches for it.

use serde::Deserialize;

use super::{AuthError, Principal, Role};

/// The claims that make a principal; others are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    org: Option<String>,
    org_id: Option<String>,
    role: Option<String>,
    name: Option<String>,
    email: Option<String>,
    /// An address that its issuer has not verified decides nothing.
    email_verified: Option<bool>,
    groups: Option<Vec<String>>,
    /// Seconds since 1970.
    pub(super) exp: Option<f64>,
}

impl Claims {
    /// The holder of the token.
    pub(super) fn into_principal(self) -> Result<Principal, AuthError> {
        let needed = |claim: Option<String>, name: &str| {
            let claim = claim.filter(|text| !text.trim().is_empty());
            claim.ok_or_else(|| AuthError::InvalidToken(format!("it has no claim `{name}`")))
        };
        Ok(Principal {
            user_id: needed(self.sub, "sub")?,
            org_id: needed(self.org.or(self.org_id), "org")?,
            role: self.role.as_deref().and_then(Role::parse).ok_or(AuthError::MissingRole)?,
            display_name: self.name,
            email: self.email.filter(|_| self.email_verified != Some(false)),
            groups: self.groups.unwrap_or_default(),
        })
    }
}
