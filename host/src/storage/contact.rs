//! What a session's metadata says about its visitor: the name, how to reach them, and whether that was verified. The
//! keys are known to embedding programs.

use serde_json::{Map, Value};

use super::Session;

/// What to call the visitor.
pub const USER_NAME: &str = "userName";
/// The visitor's email address, as they or their client said it.
pub const CONTACT_EMAIL: &str = "contactEmail";
/// The visitor's telephone number, likewise.
pub const CONTACT_PHONE: &str = "contactPhone";
/// Whether the visitor has shown that a contact is theirs.
pub const OTP_VERIFIED: &str = "otpVerified";
/// Which contact that was.
pub const OTP_VERIFIED_CONTACT: &str = "otpVerifiedContact";

/// How a visitor can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// An email address; not blank.
    pub email: Option<String>,
    /// A telephone number; not blank.
    pub phone: Option<String>,
}

impl Session {
    /// How the visitor can be reached.
    pub fn contact(&self) -> Contact {
        Contact {
            email: text(&self.metadata, CONTACT_EMAIL).map(str::to_owned),
            phone: text(&self.metadata, CONTACT_PHONE).map(str::to_owned),
        }
    }

    /// Whether the visitor has shown that the present contact is theirs. A contact that was given after the proof takes
    /// the proof back: who owns one address says nothing about another.
    pub fn is_verified(&self) -> bool {
        if self.metadata.get(OTP_VERIFIED) != Some(&Value::Bool(true)) {
            return false;
        }
        match text(&self.metadata, OTP_VERIFIED_CONTACT) {
            None => true,
            Some(proven) => [CONTACT_EMAIL, CONTACT_PHONE].iter().any(|key| text(&self.metadata, key) == Some(proven)),
        }
    }
}

/// What to write into a session when its visitor has said who they are.
pub fn contact_entries(name: Option<&str>, email: Option<&str>, phone: Option<&str>) -> Map<String, Value> {
    let entries = [(USER_NAME, name), (CONTACT_EMAIL, email), (CONTACT_PHONE, phone)];
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect()
}

fn text<'a>(metadata: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}
