//! `verify_otp`: checks a one-time code, and notes in the session that its visitor is who they say. The turn that asked for
//! it is over; the user asks again.

use serde_json::{Map, Value};

use super::{Connection, Outcome, Services, visible};
use crate::{
    otp::nothing_to_check,
    protocol::{Event, action::VerifyOtp},
    storage::{OTP_VERIFIED, OTP_VERIFIED_CONTACT},
};

pub(super) async fn run(services: &Services, connection: &mut Connection, verify: VerifyOtp) -> Outcome {
    let session = visible::session(services, connection, verify.session_id).await?;
    let Some(desk) = &services.runtime.otp else { return Ok(Some(Event::OtpInvalid(nothing_to_check()))) };
    let proven = match desk.check(&session, &verify.code) {
        Ok(proven) => proven,
        Err(refused) => return Ok(Some(Event::OtpInvalid(refused))),
    };
    let entries = [(OTP_VERIFIED, Value::Bool(true)), (OTP_VERIFIED_CONTACT, proven.into())];
    let entries = Map::from_iter(entries.map(|(key, value)| (key.to_owned(), value)));
    // A storage that fails here leaves the code as it is, so that the user can send it again.
    services.storage().merge_session_metadata(session.id, entries).await?;
    desk.forget(session.id);
    Ok(Some(Event::OtpVerified { message: "You are verified. Please ask again.".to_owned() }))
}
