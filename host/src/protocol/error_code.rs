//! Every error code that can stand in an `error` frame or in a refusal of the admin API, which has the same form, in one
//! list. Clients branch on these and never on prose.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why something was refused or a turn failed, as the client sees it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// All codes, in the order of the protocol's table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                }
            }
        }
    };
}

error_codes! {
    /// The frame is malformed, or a field is missing or invalid.
    ValidationError = "VALIDATION_ERROR",
    /// The action is unknown.
    UnsupportedAction = "UNSUPPORTED_ACTION",
    /// The session is unknown or not visible to this caller; which of the two is not said.
    SessionNotFound = "SESSION_NOT_FOUND",
    /// The conversation is unknown or not visible to this caller; which of the two is not said.
    ConversationNotFound = "CONVERSATION_NOT_FOUND",
    /// A turn already runs on this connection or in this conversation.
    TurnInProgress = "TURN_IN_PROGRESS",
    /// `resume_turn` names no turn of the conversation, or there is none to speak of.
    TurnNotFound = "TURN_NOT_FOUND",
    /// No gateway key is configured, so that no model can answer.
    LlmUnavailable = "LLM_UNAVAILABLE",
    /// The skill that the message names cannot be resolved.
    SkillNotFound = "SKILL_NOT_FOUND",
    /// The turn failed.
    AgentError = "AGENT_ERROR",
    /// No confirmation is awaited in that session.
    NoPendingConfirmation = "NO_PENDING_CONFIRMATION",
    /// No interaction is awaited in that session.
    NoPendingInteraction = "NO_PENDING_INTERACTION",
    /// The interaction that is awaited has another id or kind; it goes on waiting.
    InteractionMismatch = "INTERACTION_MISMATCH",
    /// A one-time code could not be sent.
    OtpSendFailed = "OTP_SEND_FAILED",
    /// The widget policy knows no such agent.
    AgentNotAuthorized = "AGENT_NOT_AUTHORIZED",
    /// The widget policy does not allow the page's origin.
    OriginNotAllowed = "ORIGIN_NOT_ALLOWED",
    /// The visitor's signed identity does not check out.
    AuthContextInvalid = "AUTH_CONTEXT_INVALID",
    /// The storage failed; the same frame may be sent again.
    StorageError = "STORAGE_ERROR",
    /// The server failed; the same frame may be sent again.
    InternalError = "INTERNAL_ERROR",
    /// Admin API: no token came with the request.
    Unauthenticated = "UNAUTHENTICATED",
    /// Admin API: the token is wrong, expired or not for this server.
    InvalidToken = "INVALID_TOKEN",
    /// Admin API: the token carries no role that this server knows.
    MissingRole = "MISSING_ROLE",
    /// Admin API: the caller may not do this.
    Forbidden = "FORBIDDEN",
    /// Admin API: tokens cannot be checked.
    AuthMisconfigured = "AUTH_MISCONFIGURED",
    /// Admin API: there is no such thing, or not for this caller; which of the two is not said.
    NotFound = "NOT_FOUND",
}

impl ErrorCode {
    /// Whether only refusals of the admin API have it, and no frame.
    pub fn is_admin_only(self) -> bool {
        use ErrorCode::*;
        matches!(self, Unauthenticated | InvalidToken | MissingRole | Forbidden | AuthMisconfigured | NotFound)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl JsonSchema for ErrorCode {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let of_frames = Self::ALL.iter().filter(|code| !code.is_admin_only());
        let codes: Vec<&str> = of_frames.map(|code| code.as_str()).collect();
        json_schema!({"type": "string", "enum": codes})
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_shouted() {
        let texts: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        assert!(texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')));
    }
}
