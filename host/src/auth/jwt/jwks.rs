//! The key set of an issuer, fetched when it is needed and kept for a while. A key id that is not in it makes it be
//! fetched again, but not often, because anybody can make up a key id.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use crate::{
    auth::AuthError,
    config::Limits,
    outbound::{Fetcher, trusted_url},
};

/// Keys of one set that are considered for a token that names none.
const KEYS_TRIED: usize = 16;

pub(super) struct KeySet {
    url: Url,
    fetcher: Fetcher,
    limits: Limits,
    /// Held during a fetch, so that there is one at a time; every fetch ends in time.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Vec<Jwk>,
    fetched: Option<Instant>,
    failed: Option<(Instant, String)>,
}

impl KeySet {
    /// The set at this address.
    pub(super) fn new(url: &str, limits: &Limits) -> Result<Self, String> {
        let url = trusted_url(url)?;
        Ok(Self { url, fetcher: Fetcher::new(limits), limits: limits.clone(), state: Mutex::default() })
    }

    /// The keys that may have signed a token with this header.
    pub(super) async fn keys(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<DecodingKey>, AuthError> {
        let mut state = self.state.lock().await;
        if state.age().is_none_or(|age| age >= self.limits.auth_keys_kept) {
            self.refresh(&mut state).await?;
        }
        let found = state.fitting(kid, algorithm);
        let may_be_new = state.age().is_some_and(|age| age >= self.limits.auth_keys_refresh);
        if !found.is_empty() || kid.is_none() || !may_be_new {
            return Ok(found);
        }
        self.refresh(&mut state).await?;
        Ok(state.fitting(kid, algorithm))
    }

    async fn refresh(&self, state: &mut State) -> Result<(), AuthError> {
        let unusable = |reason: &str| AuthError::Misconfigured(format!("the key set could not be fetched: {reason}"));
        // An issuer that is down is not asked again by every request that waited for it.
        if let Some((at, reason)) = &state.failed
            && at.elapsed() < self.limits.auth_fetch
        {
            return Err(unusable(reason));
        }
        match self.fetch().await {
            Ok(keys) => {
                *state = State { keys, fetched: Some(Instant::now()), failed: None };
                Ok(())
            }
            Err(reason) => {
                tracing::warn!(url = %self.url, reason, "the key set could not be fetched");
                let error = unusable(&reason);
                state.failed = Some((Instant::now(), reason));
                Err(error)
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let (status, body) = self.fetcher.get(&self.url, None).await?;
        if !status.is_success() {
            return Err(format!("it answered {}", status.as_u16()));
        }
        let set: JwkSet = serde_json::from_slice(&body).map_err(|_| "it is no JSON Web Key Set".to_owned())?;
        Ok(set.keys)
    }
}

impl State {
    fn age(&self) -> Option<std::time::Duration> {
        self.fetched.map(|fetched| fetched.elapsed())
    }

    fn fitting(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        let named = self.keys.iter().filter(|key| kid.is_none() || key.common.key_id.as_deref() == kid);
        named.filter_map(|key| usable(key, algorithm)).take(KEYS_TRIED).collect()
    }
}

/// The key, when it is one for signatures with this algorithm. A shared secret never is.
fn usable(jwk: &Jwk, algorithm: Algorithm) -> Option<DecodingKey> {
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|wanted| *wanted == PublicKeyUse::Signature);
    let advertised = jwk.common.key_algorithm.as_ref();
    let fits = advertised.is_none_or(|name| name.to_string().parse::<Algorithm>().is_ok_and(|it| it == algorithm));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let family = key.family();
    (for_signatures && fits && family != AlgorithmFamily::Hmac && family == algorithm.family()).then_some(key)
}
