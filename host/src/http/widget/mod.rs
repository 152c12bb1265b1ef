//! The page with the chat widget on it, and the widget's script. Both stand in this program; the page loads nothing from
//! anybody else, and its policy forbids it to.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, header},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jackfield_plugin_api::GatewayKey;
use sha2::{Digest, Sha256};

use crate::socket::Live;

const PAGE: &str = include_str!("page.html");
const INLINE: &str = include_str!("page.js");
const SCRIPT: &str = include_str!("widget.js");

/// The two routes, when the widget is served.
pub(super) fn routes(live: &Live) -> Router<Arc<Live>> {
    if live.widget.is_none() {
        return Router::new();
    }
    Router::new().route("/", get(page)).route("/chat-widget.iife.js", get(script))
}

/// The page. It holds the widget's token, so it is kept nowhere.
async fn page(State(live): State<Arc<Live>>, headers: HeaderMap) -> ([(HeaderName, String); 5], String) {
    let token = live.widget.as_ref().and_then(|page| page.token.as_ref()).map(GatewayKey::reveal);
    let inline = inline(token.unwrap_or_default(), &live.services.config().agent_name);
    // The guard has let only names of this server pass.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy(&inline, host)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, PAGE.replace("/*INLINE*/", &inline))
}

async fn script() -> ([(HeaderName, &'static str); 3], &'static str) {
    let headers = [
        (header::CONTENT_TYPE, "application/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, SCRIPT)
}

/// The page's own script with the token and the agent's name in it.
fn inline(token: &str, agent_name: &str) -> String {
    // The name first: the token could hold the other mark.
    INLINE.replace("/*NAME*/", &literal(agent_name)).replace("/*TOKEN*/", &literal(token))
}

/// A text as a script writes it. No `<` is left, so it cannot end the script element.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('<', "\\u003c")
}

/// What the page may do: run exactly these scripts, and talk to this server.
fn policy(inline: &str, host: &str) -> String {
    let hash = STANDARD.encode(Sha256::digest(inline.as_bytes()));
    let mut policy = format!("default-src 'none'; script-src 'self' 'sha256-{hash}'; connect-src 'self'");
    if !host.is_empty() {
        write!(policy, " ws://{host} wss://{host}").expect("a string takes all that is written to it");
    }
    policy
        .push_str("; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'");
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_break_out_of_its_literal() {
        let token = "\"</script><script>alert(1)//\\ /*NAME*/";
        let inline = inline(token, "it's \"me\"</script>");
        assert!(!inline.contains('<'), "{inline}");
        let line = inline.lines().find(|line| line.contains("const token")).unwrap_or_default();
        let text = line.trim().trim_start_matches("const token = ").trim_end_matches(';');
        assert_eq!(serde_json::from_str::<String>(text).ok().as_deref(), Some(token));
    }
}
