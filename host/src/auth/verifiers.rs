//! The verifiers that ship: none at all, and one shared secret. Neither asks anybody over the network.

use async_trait::async_trait;
use jackfield_plugin_api::GatewayKey;
use subtle::ConstantTimeEq;

use super::{AuthError, AuthVerifier, Principal, Role};
use crate::config::REFERENCE_ORG;

/// The label of [`NoAuthVerifier`].
pub(crate) const MODE_NONE: &str = "none";
/// The label of [`LocalTokenVerifier`].
pub(super) const MODE_LOCAL_TOKEN: &str = "local-token";
/// The labels of [`JwtVerifier`](super::JwtVerifier).
pub(super) const MODE_JWT: &str = "jwt";
pub(super) const MODE_SMOO: &str = "smoo";
/// The label of [`TrustedVerifier`](super::TrustedVerifier).
pub(super) const MODE_TRUSTED: &str = "trusted";
/// The label of [`DisabledAuth`].
pub(super) const MODE_DISABLED: &str = "disabled";

/// Takes any token for the development admin. The default of the local flavor, where everything listens on loopback.
#[derive(Clone, Debug)]
pub struct NoAuthVerifier {
    org_id: String,
}

impl NoAuthVerifier {
    /// For the organisation that anonymous conversations are in, too, so that both see the same things.
    pub fn new() -> Self {
        Self::in_org(REFERENCE_ORG)
    }

    /// For another organisation.
    pub fn in_org(org_id: impl Into<String>) -> Self {
        Self { org_id: org_id.into() }
    }
}

impl Default for NoAuthVerifier {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl AuthVerifier for NoAuthVerifier {
    async fn verify(&self, _bearer_token: &str) -> Result<Principal, AuthError> {
        Ok(admin("dev-admin", &self.org_id))
    }

    fn mode(&self) -> &'static str {
        MODE_NONE
    }
}

/// Takes no token at all: everybody chats anonymously, and nobody may use the admin API.
#[derive(Clone, Copy, Debug, Default)]
pub struct DisabledAuth;

#[async_trait]
impl AuthVerifier for DisabledAuth {
    async fn verify(&self, _bearer_token: &str) -> Result<Principal, AuthError> {
        Err(AuthError::InvalidToken("this server takes no tokens".into()))
    }

    fn mode(&self) -> &'static str {
        MODE_DISABLED
    }
}

/// One shared secret, compared in constant time. For a machine that several people use.
#[derive(Clone, Debug)]
pub struct LocalTokenVerifier {
    token: GatewayKey,
    org_id: String,
}

impl LocalTokenVerifier {
    /// For the organisation that anonymous conversations are in, too. A blank token, which everybody would know, lets
    /// nobody in.
    pub fn new(token: impl Into<String>) -> Self {
        let token: String = token.into();
        Self { token: GatewayKey::new(token.trim()), org_id: REFERENCE_ORG.to_owned() }
    }

    /// For another organisation.
    #[must_use]
    pub fn in_org(mut self, org_id: impl Into<String>) -> Self {
        self.org_id = org_id.into();
        self
    }
}

#[async_trait]
impl AuthVerifier for LocalTokenVerifier {
    async fn verify(&self, bearer_token: &str) -> Result<Principal, AuthError> {
        let token = self.token.reveal();
        if !token.is_empty() && bool::from(bearer_token.as_bytes().ct_eq(token.as_bytes())) {
            return Ok(admin("local", &self.org_id));
        }
        Err(AuthError::InvalidToken("it is not this server's token".into()))
    }

    fn mode(&self) -> &'static str {
        MODE_LOCAL_TOKEN
    }
}

fn admin(user_id: &str, org_id: &str) -> Principal {
    Principal {
        user_id: user_id.to_owned(),
        org_id: org_id.to_owned(),
        role: Role::Admin,
        display_name: None,
        email: None,
        groups: Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_verifier_any_token_is_the_development_admin() {
        let principal = NoAuthVerifier::new().verify("anything").await.unwrap();
        assert_eq!((principal.user_id.as_str(), principal.role), ("dev-admin", Role::Admin));
        assert_eq!(principal.org_id, "reference-org");
        assert_eq!(NoAuthVerifier::in_org("acme").verify("").await.unwrap().org_id, "acme");
    }

    #[tokio::test]
    async fn only_the_token_itself_is_the_token() {
        let verifier = LocalTokenVerifier::new(" s3cret-canary\n").in_org("acme");
        let principal = verifier.verify("s3cret-canary").await.unwrap();
        assert_eq!((principal.user_id.as_str(), principal.org_id.as_str()), ("local", "acme"));
        for wrong in ["", "s3cret", "s3cret-canary ", "S3CRET-CANARY", "s3cret-canary-and-more"] {
            let error = verifier.verify(wrong).await.unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert!(!format!("{verifier:?}").contains("canary"));
    }

    #[tokio::test]
    async fn a_blank_token_lets_nobody_in() {
        for token in ["", " \n"] {
            assert!(LocalTokenVerifier::new(token).verify("").await.is_err());
        }
    }
}
