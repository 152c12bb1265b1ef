//! Which pages may embed which agent, and what such a page's word about its visitor is worth.

mod http;

use async_trait::async_trait;
use jackfield_plugin_api::GatewayKey;
use ring::hmac;

pub use http::HttpWidgetAuth;

use crate::protocol::action::AuthContext;

/// How far the page's clock and ours may differ.
const CLOCK_SECONDS: i64 = 60;

/// Which pages may embed an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WidgetPolicy {
    /// Origins that may: exact, `*`, or `https://*.example.com`, which takes the domain itself, too. None when empty.
    pub allowed_origins: Vec<String>,
    /// The secret with which the page signs who its visitor is; without one no such word is believed.
    pub public_key: Option<GatewayKey>,
    /// The organisation that conversations of this agent belong to.
    pub organization_id: Option<String>,
}

impl WidgetPolicy {
    /// Whether a page of this origin may create a session. Without an origin the answer is no.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        origin.is_some_and(|origin| self.allowed_origins.iter().any(|pattern| matches_origin(pattern, origin)))
    }
}

fn matches_origin(pattern: &str, origin: &str) -> bool {
    if pattern == "*" || pattern == origin {
        return true;
    }
    let (Some((scheme, domain)), Some((origin_scheme, host))) = (pattern.split_once("://*."), origin.split_once("://"))
    else {
        return false;
    };
    scheme == origin_scheme && (host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

/// Why a policy is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the widget policy of this agent could not be read: {0}")]
pub struct WidgetAuthError(pub String);

/// Knows which pages may embed which agent.
#[async_trait]
pub trait WidgetAuth: Send + Sync + 'static {
    /// The policy of an agent; `None` when it has none, which leaves it open to every page that reaches the server,
    /// unless the server is strict.
    ///
    /// # Errors
    ///
    /// When it cannot be told now; nobody gets a session then.
    async fn policy(&self, agent_id: &str) -> Result<Option<WidgetPolicy>, WidgetAuthError>;
}

/// Has no policies.
#[derive(Clone, Copy, Debug, Default)]
pub struct PermissiveWidgetAuth;

#[async_trait]
impl WidgetAuth for PermissiveWidgetAuth {
    async fn policy(&self, _agent_id: &str) -> Result<Option<WidgetPolicy>, WidgetAuthError> {
        Ok(None)
    }
}

/// What a policy says about a session to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The organisation that the policy names.
    pub(crate) org_id: Option<String>,
    /// The visitor, as the page has signed it.
    pub(crate) visitor_id: Option<String>,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WidgetRefusal {
    #[error("this agent is not open to anybody: it has no widget policy, and this server demands one")]
    NoPolicy,
    #[error("this page may not embed this agent; its origin is not in the agent's widget policy")]
    Origin,
    #[error("authContext cannot be checked: this agent's widget policy has no key for it")]
    NoKey,
    #[error("authContext is too old or from the future; sign a fresh one for each session")]
    Stale,
    #[error("authContext is not signed with the key of this agent's widget policy")]
    Signature,
}

/// Decides on a session. `now` is in seconds since 1970.
pub(crate) fn admit(
    policy: Option<&WidgetPolicy>,
    strict: bool,
    origin: Option<&str>,
    context: Option<&AuthContext>,
    now: i64,
) -> Result<Admission, WidgetRefusal> {
    match policy {
        None if strict => return Err(WidgetRefusal::NoPolicy),
        Some(policy) if !policy.allows(origin) => return Err(WidgetRefusal::Origin),
        _ => {}
    }
    if let Some(context) = context {
        // Without a policy there is no key either: an unchecked word must not pass for a checked one.
        let key = policy.and_then(|policy| policy.public_key.as_ref()).ok_or(WidgetRefusal::NoKey)?;
        check(context, key, now)?;
    }
    Ok(Admission {
        org_id: policy.and_then(|policy| policy.organization_id.clone()),
        visitor_id: context.map(|context| context.user_id.clone()),
    })
}

fn check(context: &AuthContext, key: &GatewayKey, now: i64) -> Result<(), WidgetRefusal> {
    let signed_at: i64 = context.timestamp.parse().map_err(|_| WidgetRefusal::Stale)?;
    let signature = from_hex(&context.signature).ok_or(WidgetRefusal::Signature)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes());
    let text = format!("{}:{}", context.user_id, context.timestamp);
    // Compared in constant time, and before the time is, so that nobody learns which signatures were good once.
    hmac::verify(&key, text.as_bytes(), &signature).map_err(|_| WidgetRefusal::Signature)?;
    if now.abs_diff(signed_at) > CLOCK_SECONDS.unsigned_abs() { Err(WidgetRefusal::Stale) } else { Ok(()) }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    bytes.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_a_widget() {
        let policy =
            |pattern: &str| WidgetPolicy { allowed_origins: vec![pattern.to_owned()], ..WidgetPolicy::default() };
        for (pattern, origin, allowed) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("*", "null", true),
            ("https://*.a.example", "https://x.y.a.example", true),
            ("https://*.a.example", "https://a.example", true),
            ("https://*.a.example", "https://evila.example", false),
            ("https://*.a.example", "https://a.example.evil", false),
            ("https://*.a.example", "http://x.a.example", false),
        ] {
            assert_eq!(policy(pattern).allows(Some(origin)), allowed, "{pattern} {origin}");
        }
        assert!(!policy("*").allows(None));
        assert!(!WidgetPolicy::default().allows(Some("https://a.example")));
    }

    #[tokio::test]
    async fn the_default_has_no_policies() {
        assert_eq!(PermissiveWidgetAuth.policy("any").await, Ok(None));
    }

    fn signed(user: &str, timestamp: i64, key: &str) -> AuthContext {
        let text = format!("{user}:{timestamp}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes());
        let signature = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        AuthContext { user_id: user.to_owned(), signature, timestamp: timestamp.to_string() }
    }

    #[test]
    fn who_is_admitted() {
        let open = WidgetPolicy { allowed_origins: vec!["*".to_owned()], ..WidgetPolicy::default() };
        let keyed = WidgetPolicy { public_key: Some(GatewayKey::new("k")), ..open.clone() };
        let good = signed("ann", 1000, "k");
        let other = AuthContext { user_id: "bob".to_owned(), ..good.clone() };
        let odd = AuthContext { signature: "zz".to_owned(), ..good.clone() };
        for (policy, strict, origin, context, now, refused) in [
            (None, false, None, None, 0, None),
            (None, true, Some("https://a"), None, 0, Some(WidgetRefusal::NoPolicy)),
            (None, false, None, Some(&good), 1000, Some(WidgetRefusal::NoKey)),
            (Some(&open), true, Some("https://a"), None, 0, None),
            (Some(&open), false, None, None, 0, Some(WidgetRefusal::Origin)),
            (Some(&open), false, Some("https://a"), Some(&good), 1000, Some(WidgetRefusal::NoKey)),
            (Some(&keyed), false, Some("https://a"), Some(&good), 1060, None),
            (Some(&keyed), false, Some("https://a"), Some(&good), 940, None),
            (Some(&keyed), false, Some("https://a"), Some(&good), 1061, Some(WidgetRefusal::Stale)),
            (Some(&keyed), false, Some("https://a"), Some(&good), i64::MIN, Some(WidgetRefusal::Stale)),
            (Some(&keyed), false, Some("https://a"), Some(&other), 1000, Some(WidgetRefusal::Signature)),
            (Some(&keyed), false, Some("https://a"), Some(&odd), 1000, Some(WidgetRefusal::Signature)),
        ] {
            assert_eq!(admit(policy, strict, origin, context, now).err(), refused, "{policy:?} {context:?} {now}");
        }
        let admission = admit(Some(&keyed), true, Some("https://a"), Some(&good), 1000).unwrap();
        assert_eq!(admission.visitor_id.as_deref(), Some("ann"));
    }
}
