//! What a client may declare in `supports`, and what this server answers to it.

use serde::Serialize;
use utoipa::ToSchema;

/// The session gets `seq` and `turnId`, and may send `resume_turn`. Counts only in the session's own create frame.
pub const RESUME: &str = "resume";

/// The session gets progress chunks of running tools. Counts only in the session's own create frame.
pub const TOOL_PROGRESS: &str = "tool_progress";

/// The client can show a form that asks who the visitor is.
pub const IDENTITY_FORM: &str = "identity_form";

/// The client can show questions with choices.
pub const CHOICE_CHIPS: &str = "choice_chips";

/// Whether a flag counts only for the session that declared it, and is neither stored on the conversation nor
/// inherited by a session that resumes it.
pub fn is_per_session(flag: &str) -> bool {
    matches!(flag, RESUME | TOOL_PROGRESS)
}

/// The protocol that this server speaks: behaves as this version of the reference, with the extensions in `supports`.
pub const PROTOCOL: &str = "1.66";

/// What a session may declare here to some effect.
const SUPPORTED: [&str; 4] = [RESUME, TOOL_PROGRESS, IDENTITY_FORM, CHOICE_CHIPS];

/// What this server can do, for clients that want to know before they declare anything: `GET /capabilities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Capabilities {
    /// Version of the protocol.
    pub protocol: &'static str,
    /// Who serves.
    pub server: ServerInfo,
    /// What `supports` may hold.
    pub supports: &'static [&'static str],
}

/// The program behind the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ServerInfo {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Capabilities {
    /// Those of this very server.
    pub fn of_this_server() -> Self {
        let server = ServerInfo { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") };
        Self { protocol: PROTOCOL, server, supports: &SUPPORTED }
    }
}
