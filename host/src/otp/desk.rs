//! Sends codes through the embedding program's service and checks what users type.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use super::{
    OtpChannel, OtpDelivery, OtpDeliveryError, OtpService,
    codes::{Checked, Codes, Throttled},
};
use crate::{
    clock::SharedClock,
    config::Limits,
    ids::SessionId,
    protocol::event::{OtpDispatch, OtpError, OtpRejection},
    storage::{Contact, Session},
};

/// A million codes; with five tries each, guessing is hopeless.
const CODE_DIGITS: u32 = 6;

/// See the module.
pub(crate) struct OtpDesk {
    service: Arc<dyn OtpService>,
    clock: SharedClock,
    life: Duration,
    delivery: Duration,
    /// Held for a look-up or a change, never across an await.
    codes: Mutex<Codes>,
}

/// How sending a code ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendEnd {
    /// It is on its way.
    Sent(OtpDispatch),
    /// None was sent, because the last one is only just out and still counts.
    StillLive,
    /// It did not go out; the text is for the user.
    Failed(String),
}

impl OtpDesk {
    /// A desk in front of this service.
    pub(crate) fn new(service: Arc<dyn OtpService>, clock: SharedClock, limits: &Limits) -> Self {
        Self {
            service,
            clock,
            life: limits.otp_life,
            delivery: limits.otp_delivery,
            codes: Mutex::new(Codes::new(limits)),
        }
    }

    /// The ways by which a visitor can be reached, the one to use first.
    pub(crate) fn ways(&self, contact: &Contact) -> Vec<(OtpChannel, String)> {
        let channels = self.service.channels();
        let known = [(OtpChannel::Email, &contact.email), (OtpChannel::Sms, &contact.phone)];
        let reachable = known.into_iter().filter(|(channel, _)| channels.contains(channel));
        reachable.filter_map(|(channel, destination)| Some((channel, destination.clone()?))).collect()
    }

    /// Sends a fresh code, unless one was sent too lately.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the code may or may not arrive; it counts if it does.
    pub(crate) async fn send(&self, session: &Session, (channel, destination): &(OtpChannel, String)) -> SendEnd {
        let code = self.fresh_code();
        let issued = self.lock().issue(session.id, destination, &code, Instant::now());
        let number = match issued {
            Ok(number) => number,
            Err(Throttled::StillLive) => return SendEnd::StillLive,
            Err(Throttled::For(wait)) => {
                return SendEnd::Failed(format!("too many codes were sent; try again in {} s", wait.as_secs().max(1)));
            }
        };
        let delivery = OtpDelivery {
            channel: *channel,
            destination,
            code: &code,
            valid_for: self.life,
            org_id: &session.org_id,
            agent_id: &session.agent_id,
            session_id: &session.id.to_string(),
        };
        match self.deliver(delivery).await {
            Ok(()) => {
                SendEnd::Sent(OtpDispatch { channel: *channel, masked_destination: masked(*channel, destination) })
            }
            Err(error) => {
                tracing::warn!(session = %session.id, ?channel, %error, "a one-time code could not be sent");
                self.lock().withdraw(number);
                SendEnd::Failed("the verification code could not be sent; ask again later".to_owned())
            }
        }
    }

    /// The program's own code, which may hang or panic.
    async fn deliver(&self, delivery: OtpDelivery<'_>) -> Result<(), OtpDeliveryError> {
        let delivering = AssertUnwindSafe(self.service.deliver(delivery)).catch_unwind();
        match timeout(self.delivery, delivering).await {
            Ok(Ok(delivered)) => delivered,
            Ok(Err(_)) => Err(OtpDeliveryError("the service panicked".to_owned())),
            Err(_) => Err(OtpDeliveryError(format!("the service did not answer within {:?}", self.delivery))),
        }
    }

    /// Checks a typed code; blanks and dashes in it do not matter. The destination that is proven, or the refusal.
    /// A right code counts until [`forget`](Self::forget).
    pub(crate) fn check(&self, session: &Session, typed: &str) -> Result<String, OtpRejection> {
        let contact = session.contact();
        let is_present = |destination: &str| {
            [&contact.email, &contact.phone].iter().any(|known| known.as_deref() == Some(destination))
        };
        let typed: String = typed.chars().filter(|letter| !letter.is_whitespace() && *letter != '-').collect();
        let refused = |error, attempts_remaining, message: &'static str| {
            Err(OtpRejection { error, attempts_remaining, message: message.into() })
        };
        match self.lock().check(session.id, &typed, is_present, Instant::now()) {
            Checked::Right { destination } => Ok(destination),
            Checked::Wrong { attempts_left } => {
                refused(OtpError::InvalidCode, attempts_left, "That code did not match.")
            }
            Checked::Spent => {
                refused(OtpError::MaxAttempts, 0, "That was tried too often. Ask again to get a new code.")
            }
            Checked::Expired => refused(OtpError::Expired, 0, "That code is too old. Ask again to get a new one."),
            Checked::Nothing => Err(nothing_to_check()),
        }
    }

    /// The session is verified; its code does not count again.
    pub(crate) fn forget(&self, session: SessionId) {
        self.lock().forget(session);
    }

    /// The clock's ids come from the system's source of randomness; the six last digits of one are as good.
    fn fresh_code(&self) -> String {
        let number = self.clock.new_id().as_u128() % 10_u128.pow(CODE_DIGITS);
        format!("{number:0width$}", width = CODE_DIGITS as usize)
    }

    fn lock(&self) -> MutexGuard<'_, Codes> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer where no code was sent.
pub(crate) fn nothing_to_check() -> OtpRejection {
    OtpRejection {
        error: OtpError::NotFound,
        attempts_remaining: 0,
        message: "No code was sent, so there is none to check.".into(),
    }
}

/// The destination, recognisable for its owner only.
fn masked(channel: OtpChannel, destination: &str) -> String {
    match (channel, destination.split_once('@')) {
        (OtpChannel::Email, Some((local, domain))) => {
            format!("{}***@{domain}", local.chars().next().map(String::from).unwrap_or_default())
        }
        _ => {
            let end: Vec<char> = destination.chars().rev().take(2).collect();
            format!("***{}", end.into_iter().rev().collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_masked() {
        assert_eq!(masked(OtpChannel::Email, "alice@example.com"), "a***@example.com");
        assert_eq!(masked(OtpChannel::Email, "ä@ö.ü"), "ä***@ö.ü");
        assert_eq!(masked(OtpChannel::Email, "nonsense"), "***se");
        assert_eq!(masked(OtpChannel::Sms, "+15551234567"), "***67");
        assert_eq!(masked(OtpChannel::Sms, ""), "***");
    }
}
