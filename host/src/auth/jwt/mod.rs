//! JSON Web Tokens: signed by a shared secret, by a key that is configured, or by a key of a set that is fetched.
//!
//! The configured key decides which algorithms count; a token cannot choose one of its own, least of all `none`.

mod crypto;
mod jwks;

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::Value;

use self::jwks::KeySet;
use super::{AuthError, AuthVerifier, Principal, claims::Claims, verifiers};
use crate::config::{JwtKey, JwtSettings, Limits};

/// How far the clocks of issuer and server may differ, in seconds.
const LEEWAY_SECONDS: u64 = 60;

/// Why tokens could never be checked with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct AuthSettingsError {
    /// The setting.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// Checks JSON Web Tokens.
pub struct JwtVerifier {
    key: Key,
    issuer: Option<String>,
    audience: Option<String>,
    mode: &'static str,
}

enum Key {
    /// One key and the one algorithm it is for.
    One(DecodingKey, Algorithm),
    Set(Box<KeySet>),
}

impl JwtVerifier {
    /// A verifier with these settings. Nothing is contacted before the first token.
    ///
    /// # Errors
    ///
    /// A key that is none, or an address that must not be believed.
    pub fn new(settings: &JwtSettings, limits: &Limits) -> Result<Self, AuthSettingsError> {
        crypto::install();
        let key = match &settings.key {
            JwtKey::Hs256(secret) => Key::One(DecodingKey::from_secret(secret.reveal().as_bytes()), Algorithm::HS256),
            JwtKey::Rs256(pem) => {
                let key = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|error| AuthSettingsError {
                    key: "auth.jwt_public_key",
                    reason: format!("expected an RSA public key in PEM form ({error})"),
                })?;
                Key::One(key, Algorithm::RS256)
            }
            JwtKey::Jwks(url) => {
                let reason = |reason| AuthSettingsError { key: "auth.jwt_jwks_url", reason };
                Key::Set(Box::new(KeySet::new(url, limits).map_err(reason)?))
            }
        };
        let mode = if settings.smoo { verifiers::MODE_SMOO } else { verifiers::MODE_JWT };
        Ok(Self { key, issuer: settings.issuer.clone(), audience: settings.audience.clone(), mode })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// The claims, when one of the keys has signed them.
    fn claims(&self, token: &str, keys: &[DecodingKey], algorithm: Algorithm) -> Result<Claims, AuthError> {
        let mut reason = "no key fits it".to_owned();
        for key in keys {
            // Decoded as any JSON first: of a claim of the wrong type only its name is told.
            match decode::<Value>(token, key, &self.validation(algorithm)) {
                Ok(token) => {
                    let wrong = |_| AuthError::InvalidToken("a claim has the wrong type".into());
                    return serde_json::from_value(token.claims).map_err(wrong);
                }
                Err(error) => reason = explain(error.kind()),
            }
        }
        Err(AuthError::InvalidToken(reason))
    }
}

#[async_trait]
impl AuthVerifier for JwtVerifier {
    async fn verify(&self, bearer_token: &str) -> Result<Principal, AuthError> {
        let header = decode_header(bearer_token).map_err(|error| AuthError::InvalidToken(explain(error.kind())))?;
        let claims = match &self.key {
            Key::One(_, algorithm) if header.alg != *algorithm => {
                return Err(AuthError::InvalidToken("its algorithm is not the one of the configured key".into()));
            }
            Key::One(key, algorithm) => self.claims(bearer_token, std::slice::from_ref(key), *algorithm)?,
            // A shared secret is never part of a published set.
            Key::Set(_) if header.alg.family() == AlgorithmFamily::Hmac => {
                return Err(AuthError::InvalidToken("its algorithm is not one of the key set".into()));
            }
            Key::Set(set) => {
                let keys = set.keys(header.kid.as_deref(), header.alg).await?;
                self.claims(bearer_token, &keys, header.alg)?
            }
        };
        claims.into_principal()
    }

    fn mode(&self) -> &'static str {
        self.mode
    }
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("JwtVerifier").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What is wrong with a token, without any part of it.
fn explain(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "it is from another issuer".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::InvalidSignature => "its signature is not that of the configured key".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no claim `{claim}`"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its claim `{claim}` has the wrong type"),
        ErrorKind::InvalidAlgorithm => "its algorithm is not the one of the configured key".to_owned(),
        _ => "it is no signed JSON Web Token".to_owned(),
    }
}
