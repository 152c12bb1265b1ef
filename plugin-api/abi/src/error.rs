//! The two plain structs that cross. Their layout is frozen: a field can never be added.

use std::fmt;

use abi_stable::{StableAbi, std_types::RString};

/// An expected failure. What grows goes into `data_json`.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, StableAbi)]
pub struct AbiError {
    /// One of [`kind`]; an unknown number is read as [`kind::FAILED`].
    pub kind: u32,
    /// The text for the model or the log: what was expected, what came, what to do.
    pub message: RString,
    /// Details as a JSON object, or empty.
    pub data_json: RString,
}

/// The numbers of [`AbiError::kind`].
pub mod kind {
    /// It was tried and failed.
    pub const FAILED: u32 = 0;
    /// The arguments make no sense.
    pub const INVALID_ARGUMENTS: u32 = 1;
    /// It was cancelled.
    pub const CANCELLED: u32 = 2;
    /// It is not offered, or not now.
    pub const UNAVAILABLE: u32 = 3;
    /// It is refused by policy.
    pub const DENIED: u32 = 4;
    /// It took too long.
    pub const TIMED_OUT: u32 = 5;
    /// It panicked.
    pub const PANICKED: u32 = 6;
}

impl AbiError {
    /// An error without details.
    pub fn new(kind: u32, message: impl Into<RString>) -> Self {
        Self { kind, message: message.into(), data_json: RString::new() }
    }

    /// The answer to a service that does not exist on this side; `who` is "host" or "plugin".
    pub fn not_offered(service: &str, who: &str) -> Self {
        Self::new(kind::UNAVAILABLE, format!("service {service} is not offered by this {who}"))
    }
}

impl fmt::Display for AbiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for AbiError {}

/// What every call is told as numbers; the rest travels as JSON beside it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, StableAbi)]
pub struct AbiCallInfo {
    /// Unique in the host while the call runs; log lines and progress reports carry it. Never 0.
    pub call_id: u64,
    /// When the call will be ended whatever it does, in milliseconds since 1970; 0 means no such limit.
    pub deadline_unix_ms: u64,
}
