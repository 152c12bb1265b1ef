//! Puts together what the settings of `[auth]` say. A mode that was chosen and cannot work, or a key that was given and
//! would not be used, does not become an open server.

use jackfield_plugin_api::GatewayKey;

use super::{AuthMode, JwtKey, JwtSettings, ServerConfig};

/// The settings of `[auth]` before they are joined.
#[derive(Default)]
pub(super) struct AuthDraft {
    pub(super) mode: Option<AuthModeName>,
    pub(super) token: Option<GatewayKey>,
    pub(super) jwt_secret: Option<GatewayKey>,
    pub(super) jwt_public_key: Option<String>,
    pub(super) jwt_jwks_url: Option<String>,
    pub(super) jwt_issuer: Option<String>,
    pub(super) jwt_audience: Option<String>,
}

/// The name of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthModeName {
    None,
    LocalToken,
    Jwt,
    Smoo,
    Trusted,
    Disabled,
}

impl AuthModeName {
    pub(super) const ALL: [(&str, AuthModeName); 6] = [
        ("none", AuthModeName::None),
        ("local-token", AuthModeName::LocalToken),
        ("jwt", AuthModeName::Jwt),
        ("smoo", AuthModeName::Smoo),
        ("trusted", AuthModeName::Trusted),
        ("disabled", AuthModeName::Disabled),
    ];
}

impl AuthDraft {
    /// The mode with what it needs, or what is missing or too much.
    pub(super) fn finish(self) -> Result<AuthMode, String> {
        let mode = match (self.mode, &self.token) {
            (Some(mode), _) => mode,
            (None, Some(_)) => AuthModeName::LocalToken,
            (None, None) => AuthModeName::None,
        };
        let name = AuthModeName::ALL.iter().find(|(_, other)| *other == mode).map_or("", |(name, _)| *name);
        if self.token.is_some() && mode != AuthModeName::LocalToken {
            return Err(format!(
                "auth.mode {name} checks no shared token, but auth.token is set; remove one of the two"
            ));
        }
        let is_jwt = matches!(mode, AuthModeName::Jwt | AuthModeName::Smoo);
        let has_key = self.jwt_secret.is_some() || self.jwt_public_key.is_some() || self.jwt_jwks_url.is_some();
        if has_key && !is_jwt {
            let keys = "auth.jwt_secret, auth.jwt_public_key or auth.jwt_jwks_url (AUTH_JWT_…)";
            return Err(format!("{keys} is set, but auth.mode is {name}; set auth.mode jwt, or remove the key"));
        }
        Ok(match mode {
            AuthModeName::None => AuthMode::None,
            AuthModeName::Trusted => AuthMode::Trusted,
            AuthModeName::Disabled => AuthMode::Disabled,
            AuthModeName::LocalToken => {
                let missing = "auth.mode local-token needs a token; say --token-file FILE or set auth.token";
                AuthMode::LocalToken(self.token.ok_or(missing)?)
            }
            AuthModeName::Jwt | AuthModeName::Smoo => AuthMode::Jwt(self.jwt(mode == AuthModeName::Smoo)?),
        })
    }

    fn jwt(self, smoo: bool) -> Result<JwtSettings, String> {
        let issuer = self.jwt_issuer;
        if smoo && issuer.is_none() {
            return Err("auth.mode smoo needs an issuer; set auth.jwt_issuer (AUTH_JWT_ISSUER)".into());
        }
        let key = match (self.jwt_public_key, self.jwt_secret, self.jwt_jwks_url, &issuer) {
            (Some(_), _, Some(_), _) | (_, Some(_), Some(_), _) => {
                return Err("auth.jwt_jwks_url and a key of your own are both set; remove one of the two".into());
            }
            (Some(pem), ..) => JwtKey::Rs256(pem),
            (None, Some(secret), ..) => JwtKey::Hs256(secret),
            (None, None, Some(url), _) => JwtKey::Jwks(url),
            (None, None, None, Some(issuer)) => {
                JwtKey::Jwks(format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')))
            }
            (None, None, None, None) => {
                let ways = "auth.jwt_secret, auth.jwt_public_key, auth.jwt_jwks_url or auth.jwt_issuer";
                return Err(format!("auth.mode jwt needs a key; set {ways} (AUTH_JWT_…)"));
            }
        };
        Ok(JwtSettings { key, issuer, audience: self.jwt_audience, smoo })
    }
}

/// The mode as it is written.
pub(super) fn mode_name(mode: &AuthMode) -> &'static str {
    match mode {
        AuthMode::None => "none",
        AuthMode::LocalToken(_) => "local-token",
        AuthMode::Jwt(settings) if settings.smoo => "smoo",
        AuthMode::Jwt(_) => "jwt",
        AuthMode::Trusted => "trusted",
        AuthMode::Disabled => "disabled",
    }
}

pub(super) fn jwt(config: &ServerConfig) -> Option<&JwtSettings> {
    if let AuthMode::Jwt(settings) = &config.auth { Some(settings) } else { None }
}

pub(super) fn jwt_key(config: &ServerConfig) -> Option<&JwtKey> {
    jwt(config).map(|settings| &settings.key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret() -> Option<GatewayKey> {
        Some(GatewayKey::new("secret"))
    }

    fn jwt(draft: AuthDraft) -> JwtKey {
        let draft = AuthDraft { mode: Some(AuthModeName::Jwt), ..draft };
        let AuthMode::Jwt(settings) = draft.finish().unwrap() else { panic!("the mode is jwt") };
        settings.key
    }

    #[test]
    fn a_mode_without_its_key_or_a_key_without_its_mode_is_refused() {
        let named = |mode| AuthDraft { mode: Some(mode), ..AuthDraft::default() };
        for (draft, says) in [
            (named(AuthModeName::LocalToken), "needs a token"),
            (named(AuthModeName::Jwt), "needs a key"),
            (named(AuthModeName::Smoo), "needs an issuer"),
            (AuthDraft { jwt_secret: secret(), ..named(AuthModeName::Smoo) }, "needs an issuer"),
            (AuthDraft { token: secret(), ..named(AuthModeName::None) }, "remove one of the two"),
            (AuthDraft { token: secret(), ..named(AuthModeName::Jwt) }, "remove one of the two"),
            (AuthDraft { jwt_secret: secret(), ..AuthDraft::default() }, "set auth.mode jwt"),
            (AuthDraft { jwt_jwks_url: Some("u".into()), ..named(AuthModeName::Trusted) }, "set auth.mode jwt"),
            (
                AuthDraft { jwt_secret: secret(), jwt_jwks_url: Some("u".into()), ..named(AuthModeName::Jwt) },
                "remove one of the two",
            ),
        ] {
            let refused = draft.finish().unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn which_key_counts() {
        let pem = || Some("pem".to_owned());
        let both = AuthDraft { jwt_secret: secret(), jwt_public_key: pem(), ..AuthDraft::default() };
        assert_eq!(jwt(both), JwtKey::Rs256("pem".into()));
        let issuer = AuthDraft { jwt_issuer: Some("https://id.example/".into()), ..AuthDraft::default() };
        assert_eq!(jwt(issuer), JwtKey::Jwks("https://id.example/.well-known/jwks.json".into()));
        let own = AuthDraft { jwt_secret: secret(), jwt_issuer: Some("me".into()), ..AuthDraft::default() };
        assert_eq!(jwt(own), JwtKey::Hs256(secret().unwrap()));
        assert_eq!(AuthDraft::default().finish(), Ok(AuthMode::None));
        assert!(matches!(AuthDraft { token: secret(), ..AuthDraft::default() }.finish(), Ok(AuthMode::LocalToken(_))));
    }
}
