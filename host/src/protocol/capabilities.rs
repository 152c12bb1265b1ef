//! What a client may declare in `supports`, and what this server answers to it.

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
