//! Whether the operator trusts a plugin file: lists of hashes, signatures, and what was trusted before. Decided on the
//! bytes that will be loaded, before any of them runs.
//!
//! ```text
//!   deny list ─▶ allow list ─▶ signature (FILE.minisig) ─▶ pin: first use ─▶ remembered
//!                                                            ├─ the same ──▶ loaded
//!                                                            └─ changed ───▶ refused with what changed,
//!                                                                            until `plugins trust ID --update`
//! ```
//!
//! A changed file passes by itself only when the key that signed the trusted one has signed it, too, or when its hash is
//! on the allow list: both are the operator's word.

mod changes;
mod pins;
mod signature;

use std::{io, path::Path};

use serde::Serialize;

use self::pins::PinFile;
pub use self::{
    changes::changes,
    pins::{Pin, PinnedTool},
    signature::{KeyPairText, SignError, new_key_pair, sign},
};
use super::manifest::{Manifest, PluginBytes};
use crate::config::TrustConfig;

/// The file beside a plugin that holds its signature: the plugin's name with this added.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

/// Why a file is not trusted. The texts are stable; the file's name is left to whoever reports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// The operator has named it.
    #[error("it is on the operator's deny list (plugins.deny); remove the file, or the entry")]
    Denied,
    /// The operator has named others.
    #[error("its sha-256 {0} is not on the operator's allow list; add it to plugins.allow, or remove the file")]
    NotAllowed(String),
    /// The signature is of other bytes.
    #[error("it is not what was signed: its signature does not match its bytes; get the file and its .minisig again")]
    Modified,
    /// The signature cannot be read.
    #[error("its signature cannot be used: {0}; make it with `jackfield plugins sign` or minisign")]
    BadSignature(String),
    /// There is none.
    #[error(
        "it is not signed, and the operator wants every plugin signed (plugins.require_signed); put its .minisig beside it"
    )]
    Unsigned,
    /// Somebody else has signed it.
    #[error(
        "it is signed with a key that the operator does not trust; add the key to plugins.trusted_keys if you know whose it is"
    )]
    UnknownKey,
    /// It is another file than the one that was trusted.
    #[error(
        "it is not the file that was trusted: {}; run `jackfield plugins trust {id} --update` if that is as it should be",
        changes.join(", ")
    )]
    Changed {
        /// The plugin.
        id: String,
        /// What differs.
        changes: Vec<String>,
    },
    /// The operator took the trust away.
    #[error("the operator does not trust it any more; run `jackfield plugins trust {0}` to change that")]
    Untrusted(String),
    /// What was trusted is not known.
    #[error("what was trusted before cannot be read: {0}; correct that file, or remove it to trust anew")]
    State(String),
}

/// Where a file stands with the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Who signed it: the public key, `unknown key`, `does not match`, `unreadable` or `none`.
    pub signature: String,
    /// What is remembered of this id: `nothing`, `the same`, `changed`, `not trusted` or `not kept`.
    pub pin: &'static str,
    /// Why it would not be loaded.
    pub refusal: Option<String>,
}

/// A plugin file whose bytes and manifest have been read.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) path: &'a Path,
    pub(super) plugin: &'a PluginBytes,
    pub(super) manifest: &'a Manifest,
}

/// Decides about a file that is about to be loaded, and remembers it at its first use.
///
/// # Errors
///
/// Why it is not trusted.
pub(super) fn admit(candidate: Candidate<'_>, config: &TrustConfig) -> Result<(), Distrust> {
    let (signed, known) = (signature::of(candidate, config), known(candidate, config)?);
    let pin = Pin::of(candidate, &signed);
    match decide(&pin, &signed, known.as_ref(), config)? {
        Memory::Keep => {}
        Memory::Write(why) => remember(candidate, config, pin, why),
    }
    Ok(())
}

/// Where a file stands; remembers nothing.
pub(super) fn standing(candidate: Candidate<'_>, config: &TrustConfig) -> Standing {
    let signed = signature::of(candidate, config);
    let pin = Pin::of(candidate, &signed);
    let (known, refusal) = match known(candidate, config) {
        Ok(known) => {
            let refusal = decide(&pin, &signed, known.as_ref(), config).err();
            (known, refusal)
        }
        Err(distrust) => (None, Some(distrust)),
    };
    let remembered = match known {
        _ if pin_file(config).is_none() => "not kept",
        None => "nothing",
        Some(known) if known.untrusted => "not trusted",
        Some(known) if known.sha256 == pin.sha256 => "the same",
        Some(_) => "changed",
    };
    Standing { signature: signed.text(), pin: remembered, refusal: refusal.map(|refusal| refusal.to_string()) }
}

/// Trusts a file from now on, whatever was trusted under its id before. Returns what changed.
///
/// # Errors
///
/// When there is no state folder, or it cannot be written.
pub(super) fn trust(candidate: Candidate<'_>, config: &TrustConfig) -> io::Result<Option<Vec<String>>> {
    let pin = Pin::of(candidate, &signature::of(candidate, config));
    let file = pin_file(config).ok_or_else(no_folder)?;
    let mut changed = None;
    file.change(|pins| {
        changed = pins.get(&candidate.manifest.id).map(|before| changes(before, &pin));
        pins.insert(candidate.manifest.id.clone(), pin);
    })?;
    Ok(changed)
}

/// Takes the trust in a plugin away, whatever its file becomes. Returns whether it was trusted.
///
/// # Errors
///
/// When there is no state folder, or it cannot be written.
pub fn untrust(id: &str, config: &TrustConfig) -> io::Result<bool> {
    let mut was_trusted = false;
    pin_file(config).ok_or_else(no_folder)?.change(|pins| {
        let pin = pins.entry(id.to_owned()).or_default();
        was_trusted = !pin.untrusted && !pin.sha256.is_empty();
        pin.untrusted = true;
    })?;
    Ok(was_trusted)
}

fn no_folder() -> io::Error {
    io::Error::other("there is no state folder to remember it in; set HOME or XDG_STATE_HOME")
}

fn pin_file(config: &TrustConfig) -> Option<PinFile> {
    config.state_folder.as_deref().filter(|_| config.pin).map(PinFile::of)
}

fn known(candidate: Candidate<'_>, config: &TrustConfig) -> Result<Option<Pin>, Distrust> {
    let Some(file) = pin_file(config) else { return Ok(None) };
    let mut pins = file.read().map_err(|error| Distrust::State(error.to_string()))?;
    Ok(pins.remove(&candidate.manifest.id))
}

fn remember(candidate: Candidate<'_>, config: &TrustConfig, pin: Pin, why: &'static str) {
    let Some(file) = pin_file(config) else { return };
    let (id, sha256) = (candidate.manifest.id.clone(), pin.sha256.clone());
    match file.change(|pins| drop(pins.insert(id.clone(), pin))) {
        Ok(()) => tracing::info!(plugin = id, sha256, why, "the plugin is trusted from now on"),
        Err(error) => tracing::warn!(plugin = id, %error, "the plugin is trusted, which could not be remembered"),
    }
}

/// What to do about the memory when a file is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Keep,
    Write(&'static str),
}

/// Pure: the whole policy.
fn decide(
    pin: &Pin,
    signed: &signature::Signed,
    known: Option<&Pin>,
    config: &TrustConfig,
) -> Result<Memory, Distrust> {
    use signature::Signed;
    if config.deny.contains(&pin.sha256) {
        return Err(Distrust::Denied);
    }
    let is_allowed = config.allow.contains(&pin.sha256);
    if !config.allow.is_empty() && !is_allowed {
        return Err(Distrust::NotAllowed(pin.sha256.clone()));
    }
    match signed {
        Signed::By(_) => {}
        // A file that pretends is refused also where nobody asks for signatures.
        Signed::Modified => return Err(Distrust::Modified),
        Signed::Unreadable(reason) => return Err(Distrust::BadSignature(reason.clone())),
        Signed::UnknownKey if config.require_signed => return Err(Distrust::UnknownKey),
        Signed::No if config.require_signed => return Err(Distrust::Unsigned),
        Signed::UnknownKey | Signed::No => {}
    }
    match known {
        None => Ok(Memory::Write("its first use")),
        Some(known) if known.untrusted => Err(Distrust::Untrusted(pin.id.clone())),
        Some(known) if known.sha256 == pin.sha256 => Ok(Memory::Keep),
        Some(_) if is_allowed => Ok(Memory::Write("its hash is on the allow list")),
        Some(known) if pin.key.is_some() && pin.key == known.key => Ok(Memory::Write("the same key has signed it")),
        Some(known) => Err(Distrust::Changed { id: pin.id.clone(), changes: changes(known, pin) }),
    }
}

#[cfg(test)]
mod tests {
    use super::{signature::Signed, *};

    fn pin(sha256: &str, key: Option<&str>) -> Pin {
        Pin {
            id: "clock".into(),
            sha256: sha256.into(),
            version: "0.1.0".into(),
            key: key.map(str::to_owned),
            ..Pin::default()
        }
    }

    fn decided(
        signed: &Signed,
        known: Option<&Pin>,
        change: impl FnOnce(&mut TrustConfig),
    ) -> Result<Memory, Distrust> {
        let mut config = TrustConfig::default();
        change(&mut config);
        let key = if let Signed::By(key) = signed { Some(key.as_str()) } else { None };
        decide(&pin("a", key), signed, known, &config)
    }

    #[test]
    fn lists_of_hashes_are_the_operators_word() {
        let denied = decided(&Signed::No, None, |config| config.deny = vec!["a".into()]);
        assert_eq!(denied, Err(Distrust::Denied));
        let other = decided(&Signed::No, None, |config| config.allow = vec!["b".into()]);
        assert_eq!(other, Err(Distrust::NotAllowed("a".into())));
        let allowed = decided(&Signed::No, Some(&pin("b", None)), |config| config.allow = vec!["a".into()]);
        assert!(matches!(allowed, Ok(Memory::Write(_))), "it may change: {allowed:?}");
        let both =
            decided(&Signed::No, None, |config| (config.allow, config.deny) = (vec!["a".into()], vec!["a".into()]));
        assert_eq!(both, Err(Distrust::Denied));
    }

    #[test]
    fn signatures_count_as_the_operator_says_and_a_wrong_one_never_passes() {
        let required = |config: &mut TrustConfig| config.require_signed = true;
        assert!(decided(&Signed::By("k".into()), None, required).is_ok());
        assert_eq!(decided(&Signed::No, None, required), Err(Distrust::Unsigned));
        assert_eq!(decided(&Signed::UnknownKey, None, required), Err(Distrust::UnknownKey));
        assert!(decided(&Signed::No, None, |_| {}).is_ok() && decided(&Signed::UnknownKey, None, |_| {}).is_ok());
        assert_eq!(decided(&Signed::Modified, None, |_| {}), Err(Distrust::Modified));
        assert!(matches!(decided(&Signed::Unreadable("x".into()), None, |_| {}), Err(Distrust::BadSignature(_))));
    }

    #[test]
    fn what_was_trusted_once_must_stay_as_it_was() {
        assert_eq!(decided(&Signed::No, None, |_| {}), Ok(Memory::Write("its first use")));
        assert_eq!(decided(&Signed::No, Some(&pin("a", None)), |_| {}), Ok(Memory::Keep));
        let changed = decided(&Signed::No, Some(&pin("b", None)), |_| {}).expect_err("it has changed");
        assert!(changed.to_string().contains("plugins trust clock --update"), "{changed}");
        let by_key = decided(&Signed::By("k".into()), Some(&pin("b", Some("k"))), |_| {});
        assert!(matches!(by_key, Ok(Memory::Write(_))), "{by_key:?}");
        let by_other = decided(&Signed::By("k".into()), Some(&pin("b", Some("other"))), |_| {});
        assert!(matches!(by_other, Err(Distrust::Changed { .. })), "{by_other:?}");
        let gone = Pin { untrusted: true, ..pin("a", None) };
        assert_eq!(decided(&Signed::No, Some(&gone), |_| {}), Err(Distrust::Untrusted("clock".into())));
    }
}
