//! Keeps web pages from driving the agent. Every browser may be told by any page to connect to loopback; what a page
//! cannot do is forge `Host` and `Origin`. So `Host` must be a name that only this machine's own people use, and
//! `Origin`, which programs do not send, must be our own page or one that the operator listed. Decides on headers
//! alone; it never looks at tokens.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::config::{Authority, WebOrigin, default_port};

/// Characters of a refused header that the answer repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// What may connect. Made once, when the address is bound.
#[derive(Clone, Debug)]
pub(crate) struct GuardPolicy {
    bound: IpAddr,
    any_address: bool,
    hosts: Vec<Authority>,
    origins: Vec<WebOrigin>,
}

/// An entry of a list that is not a host name, or not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GuardPolicyError {
    /// Not a host name.
    #[error("allowed host {0:?}: expected a name such as agent.example or agent.example:8787")]
    Host(String),
    /// Not an origin.
    #[error("allowed origin {0:?}: expected an origin such as http://localhost:5173, without a path")]
    Origin(String),
}

impl GuardPolicy {
    /// The policy of a server bound to `bound`. `checks_tokens` says whether a verifier other than `none` is set: then
    /// any numeric address will do as `Host`, because a page can point a name of its own at us, but not a number.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be read.
    pub(crate) fn new(
        bound: SocketAddr,
        checks_tokens: bool,
        allowed_hosts: &[String],
        allowed_origins: &[String],
    ) -> Result<Self, GuardPolicyError> {
        let host = |text: &String| Authority::parse(text).ok_or_else(|| GuardPolicyError::Host(text.clone()));
        let origin = |text: &String| {
            WebOrigin::parse(text.trim_end_matches('/')).ok_or_else(|| GuardPolicyError::Origin(text.clone()))
        };
        Ok(Self {
            bound: bound.ip(),
            any_address: checks_tokens,
            hosts: allowed_hosts.iter().map(host).collect::<Result<_, _>>()?,
            origins: allowed_origins.iter().map(origin).collect::<Result<_, _>>()?,
        })
    }

    /// The pages that the operator listed.
    pub(crate) fn listed_origins(&self) -> &[WebOrigin] {
        &self.origins
    }

    /// Decides on one request. A header that is there but is not text is passed as unreadable text.
    ///
    /// # Errors
    ///
    /// Why the request is refused; its text names the flag that would let it in.
    pub(crate) fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let host = host.ok_or(Refusal::NoHost)?;
        let host = Authority::parse(host)
            .filter(|authority| self.allows_host(authority))
            .ok_or_else(|| Refusal::Host(shown(host)))?;
        let Some(origin) = origin else { return Ok(()) };
        match WebOrigin::parse(origin) {
            Some(page) if self.origins.contains(&page) || is_own_page(&page, &host) => Ok(()),
            _ => Err(Refusal::Origin(shown(origin))),
        }
    }

    fn allows_host(&self, authority: &Authority) -> bool {
        let address: Option<IpAddr> = authority.host.parse().ok();
        let own = match address {
            Some(address) => self.any_address || address.is_loopback() || address == self.bound,
            None => authority.host == "localhost",
        };
        own || self.hosts.iter().any(|allowed| {
            allowed.host == authority.host && allowed.port.is_none_or(|port| Some(port) == authority.port)
        })
    }
}

/// A page that came from this very host and port. The scheme tells which port an unwritten one is.
fn is_own_page(page: &WebOrigin, host: &Authority) -> bool {
    let WebOrigin::Page { scheme, authority } = page else { return false };
    let Some(usual_port @ (80 | 443)) = default_port(scheme) else { return false };
    authority.host == host.host && authority.port == host.port.or(Some(usual_port))
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Without `Host` nothing tells a page's request from a program's.
    #[error("refused: the request has no Host header")]
    NoHost,
    /// A name that is not ours; a page may have pointed it at us.
    #[error("refused: this server does not answer to the name {0}; if it should, start it with --allow-host {0}")]
    Host(String),
    /// A page that nobody listed.
    #[error("refused: pages from {0} may not connect to this server; if they should, start it with --allow-origin {0}")]
    Origin(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (StatusCode::FORBIDDEN, plain, format!("{self}\n")).into_response()
    }
}

/// The guard as a layer: `axum::middleware::from_fn_with_state(policy, guard)`.
pub(super) async fn guard(State(policy): State<Arc<GuardPolicy>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let (host, origin) = (only(headers, &header::HOST), only(headers, &header::ORIGIN));
    match policy.check(host, origin) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::warn!(%refusal, "request refused");
            refusal.into_response()
        }
    }
}

/// The one value of a header. Two of them, or one that is not text, read as text that nothing allows.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    match values.next() {
        None => Some(first.to_str().unwrap_or("")),
        Some(_) => Some(""),
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SHOWN_CHARS_MAX).collect()
}

/// Whether a server may listen here: beyond loopback only when tokens are checked, or when the operator said that
/// nobody needs one.
///
/// # Errors
///
/// The refusal, which names both ways out.
pub(crate) fn bind_allowed(
    address: SocketAddr,
    checks_tokens: bool,
    allow_unauthenticated: bool,
) -> Result<(), BindRefusal> {
    if address.ip().to_canonical().is_loopback() || checks_tokens || allow_unauthenticated {
        return Ok(());
    }
    Err(BindRefusal(address))
}

/// Listening there would let anyone on the network drive the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "listening on {0} without checking tokens would let anyone on the network drive the agent; \
     set a token (--token-file FILE), or say --allow-unauthenticated"
)]
pub struct BindRefusal(pub SocketAddr);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn policy(bound: &str, checks_tokens: bool, hosts: &[&str], origins: &[&str]) -> GuardPolicy {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        GuardPolicy::new(bound.parse().unwrap(), checks_tokens, &owned(hosts), &owned(origins)).unwrap()
    }

    fn outcome(policy: &GuardPolicy, host: Option<&str>, origin: Option<&str>) -> &'static str {
        match policy.check(host, origin) {
            Ok(()) => "passes",
            Err(Refusal::NoHost) => "no host",
            Err(Refusal::Host(_)) => "host",
            Err(Refusal::Origin(_)) => "origin",
        }
    }

    #[test]
    fn who_may_connect_to_a_loopback_server() {
        let policy = policy("127.0.0.1:8787", false, &[], &[]);
        let local = Some("127.0.0.1:8787");
        for (host, origin, expected) in [
            // A program.
            (local, None, "passes"),
            (Some("localhost:8787"), None, "passes"),
            (Some("LOCALHOST"), None, "passes"),
            (Some("[::1]:8787"), None, "passes"),
            (Some("localhost.:9000"), None, "passes"),
            // Our own page, under the name it was opened by.
            (local, Some("http://127.0.0.1:8787"), "passes"),
            (Some("localhost:8787"), Some("http://LocalHost:8787"), "passes"),
            (Some("[::1]:8787"), Some("http://[::1]:8787"), "passes"),
            (Some("localhost"), Some("http://localhost"), "passes"),
            (Some("localhost"), Some("https://localhost"), "passes"),
            (Some("localhost:80"), Some("http://localhost"), "passes"),
            // A hostile page.
            (local, Some("http://evil.example"), "origin"),
            (local, Some("https://evil.example:8787"), "origin"),
            (local, Some("http://127.0.0.1.evil.example:8787"), "origin"),
            // A page of another program on this machine.
            (local, Some("http://127.0.0.1:3000"), "origin"),
            (local, Some("http://localhost:8787"), "origin"),
            (Some("localhost"), Some("http://localhost:8080"), "origin"),
            // A page without an address, and things that are no origin.
            (local, Some("null"), "origin"),
            (local, Some(""), "origin"),
            (local, Some("*"), "origin"),
            (local, Some("http://127.0.0.1:8787/"), "origin"),
            (local, Some("http://127.0.0.1:8787 http://evil.example"), "origin"),
            (local, Some("file://127.0.0.1:8787"), "origin"),
            // A name that a page pointed at us.
            (Some("evil.example:8787"), Some("http://evil.example:8787"), "host"),
            (Some("evil.example"), None, "host"),
            (Some("localhost.evil.example"), None, "host"),
            (Some("evil.localhost"), None, "host"),
            (Some("localhost@evil.example"), None, "host"),
            (Some("0.0.0.0:8787"), None, "host"),
            (Some("192.168.1.5:8787"), None, "host"),
            (Some("127.1"), None, "host"),
            (Some("::1"), None, "host"),
            (Some(""), None, "host"),
            (None, None, "no host"),
            (None, Some("http://127.0.0.1:8787"), "no host"),
        ] {
            assert_eq!(outcome(&policy, host, origin), expected, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn what_the_operator_lists_passes() {
        let policy = policy(
            "127.0.0.1:8787",
            false,
            &["Agent.Example", "other.example:443"],
            &["http://localhost:5173/", "null", "vscode-webview://abc"],
        );
        for (host, origin, expected) in [
            (Some("127.0.0.1:8787"), Some("http://localhost:5173"), "passes"),
            (Some("127.0.0.1:8787"), Some("http://localhost:5174"), "origin"),
            (Some("127.0.0.1:8787"), Some("https://localhost:5173"), "origin"),
            (Some("127.0.0.1:8787"), Some("null"), "passes"),
            (Some("127.0.0.1:8787"), Some("vscode-webview://abc"), "passes"),
            (Some("agent.example:1234"), None, "passes"),
            (Some("agent.example"), Some("https://agent.example"), "passes"),
            (Some("other.example:443"), None, "passes"),
            (Some("other.example:444"), None, "host"),
            (Some("other.example"), None, "host"),
        ] {
            assert_eq!(outcome(&policy, host, origin), expected, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn beyond_loopback() {
        let open = policy("192.168.1.5:8787", false, &[], &[]);
        assert_eq!(outcome(&open, Some("192.168.1.5:8787"), None), "passes");
        assert_eq!(outcome(&open, Some("192.168.1.6:8787"), None), "host");
        // A token holder on a tailnet address.
        let with_token = policy("0.0.0.0:8787", true, &[], &[]);
        assert_eq!(outcome(&with_token, Some("100.101.102.103:8787"), None), "passes");
        assert_eq!(outcome(&with_token, Some("[fd7a:115c:a1e0::1]:8787"), None), "passes");
        let own_page = Some("http://100.101.102.103:8787");
        assert_eq!(outcome(&with_token, Some("100.101.102.103:8787"), own_page), "passes");
        assert_eq!(outcome(&with_token, Some("100.101.102.103:8787"), Some("http://evil.example")), "origin");
        assert_eq!(outcome(&with_token, Some("evil.example:8787"), None), "host");
    }

    #[test]
    fn a_refusal_names_the_flag_and_repeats_no_control_characters() {
        let policy = policy("127.0.0.1:8787", false, &[], &[]);
        let refusal = policy.check(Some("localhost"), Some("http://evil.example\r\nx")).unwrap_err();
        assert!(refusal.to_string().ends_with("--allow-origin http://evil.examplex"), "{refusal}");
        let refusal = policy.check(Some("evil.example"), None).unwrap_err();
        assert!(refusal.to_string().ends_with("--allow-host evil.example"), "{refusal}");
        assert_eq!(refusal.into_response().status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn two_values_of_a_header_are_none_that_passes() {
        let mut headers = HeaderMap::new();
        assert_eq!(only(&headers, &header::HOST), None);
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(only(&headers, &header::HOST), Some("localhost"));
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(only(&headers, &header::HOST), Some(""));
        headers.insert(header::ORIGIN, header::HeaderValue::from_bytes(b"http://\xff").unwrap());
        assert_eq!(only(&headers, &header::ORIGIN), Some(""));
    }

    #[test]
    fn lists_are_read_when_the_policy_is_made() {
        let make = |hosts: &[String], origins: &[String]| {
            GuardPolicy::new("127.0.0.1:1".parse().unwrap(), false, hosts, origins).map(|_| ())
        };
        assert_eq!(make(&["a b".into()], &[]), Err(GuardPolicyError::Host("a b".into())));
        assert_eq!(make(&[], &["*".into()]), Err(GuardPolicyError::Origin("*".into())));
    }

    #[test]
    fn where_a_server_may_listen() {
        for (address, checks_tokens, unauthenticated, allowed) in [
            ("127.0.0.1:0", false, false, true),
            ("[::1]:0", false, false, true),
            ("[::ffff:127.0.0.1]:0", false, false, true),
            ("0.0.0.0:0", false, false, false),
            ("[::]:0", false, false, false),
            ("192.168.1.5:0", false, false, false),
            ("0.0.0.0:0", true, false, true),
            ("0.0.0.0:0", false, true, true),
        ] {
            let result = bind_allowed(address.parse().unwrap(), checks_tokens, unauthenticated);
            assert_eq!(result.is_ok(), allowed, "{address}");
            if let Err(refusal) = result {
                assert!(refusal.to_string().contains("--allow-unauthenticated"));
            }
        }
    }
}
