//! One-time codes: how a visitor shows that a contact is theirs.
//!
//! ```text
//!            issue                      right code
//!   (none) ────────▶ live ───────────────────────────▶ verified (the session's metadata says so)
//!                     │ ├── wrong code, one try less ──▶ live, or spent when no try is left
//!                     │ └── its time is over ──────────▶ expired
//!                     └── not delivered ───────────────▶ (none)
//! ```
//!
//! The server makes the codes, counts the tries and the deliveries, and forgets; the embedding program's
//! [`OtpService`] only delivers. No code is in a log, in a `Debug` text or on the wire.

mod codes;
mod desk;

use std::{fmt, time::Duration};

use async_trait::async_trait;

pub use crate::protocol::event::OtpChannel;
pub(crate) use desk::{OtpDesk, SendEnd, nothing_to_check};

/// Delivers one-time codes. Without one, no session can be verified.
#[async_trait]
pub trait OtpService: Send + Sync + 'static {
    /// The ways by which it can deliver. Default: both.
    fn channels(&self) -> Vec<OtpChannel> {
        vec![OtpChannel::Email, OtpChannel::Sms]
    }

    /// Delivers a code. Called by a turn at its end; the turn waits, at most
    /// [`Limits::otp_delivery`](crate::config::Limits::otp_delivery).
    ///
    /// # Errors
    ///
    /// Why the code did not go out. The text goes to the log; the user is told only that it failed. The code is void
    /// then.
    ///
    /// # Cancel safety
    ///
    /// Dropped when the turn is cancelled or the time is over.
    async fn deliver(&self, delivery: OtpDelivery<'_>) -> Result<(), OtpDeliveryError>;
}

/// A code and where it goes. Its `Debug` text shows neither.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct OtpDelivery<'a> {
    /// Which way.
    pub channel: OtpChannel,
    /// The email address or telephone number.
    pub destination: &'a str,
    /// Six digits. Whoever has it counts as the owner of the destination.
    pub code: &'a str,
    /// How long it counts.
    pub valid_for: Duration,
    /// The organisation of the conversation.
    pub org_id: &'a str,
    /// The agent that is talked to.
    pub agent_id: &'a str,
    /// The session that will be verified.
    pub session_id: &'a str,
}

impl fmt::Debug for OtpDelivery<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OtpDelivery").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// Why a code was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OtpDeliveryError(pub String);
