//! `verify_otp`: checks a one-time code. This server sends none, so there is never one to check.

use super::{Connection, Outcome, Services, visible};
use crate::protocol::{
    Event,
    action::VerifyOtp,
    event::{OtpError, OtpRejection},
};

pub(super) async fn run(services: &Services, connection: &mut Connection, verify: VerifyOtp) -> Outcome {
    visible::session(services, connection, verify.session_id).await?;
    Ok(Some(Event::OtpInvalid(OtpRejection {
        error: OtpError::NotFound,
        attempts_remaining: 0,
        message: "No code was sent, so there is none to check.".into(),
    })))
}
