//! Which plugin files the operator trusts.

use std::path::PathBuf;

/// Trust in plugin files. The default takes every file that fits, and, where there is a state folder, remembers what it
/// took, so that a file that changes is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustConfig {
    /// Refuse files without a signature of one of [`keys`](Self::keys). Default: no.
    pub require_signed: bool,
    /// Minisign public keys whose signatures count, in their one-line form (`RW…`).
    pub keys: Vec<String>,
    /// SHA-256 of the files that may be loaded, in hex; when it holds any, no other file is.
    pub allow: Vec<String>,
    /// SHA-256 of files that are never loaded, in hex.
    pub deny: Vec<String>,
    /// Remember each file at its first use, and refuse one that has changed until somebody trusts it anew. Default: yes.
    pub pin: bool,
    /// Where that is remembered. Not a setting: whoever starts the server says it. Default: nowhere, so nothing is.
    pub state_folder: Option<PathBuf>,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            require_signed: false,
            keys: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            pin: true,
            state_folder: None,
        }
    }
}

/// Whether a text is the SHA-256 of something, in lower-case hex.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text has the form of a minisign public key.
pub(super) fn is_public_key(text: &str) -> bool {
    minisign_verify::PublicKey::from_base64(text).is_ok()
}
