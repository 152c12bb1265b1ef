//! Signatures of plugin files in the form of minisign: `FILE.minisig` beside the file, over all of its bytes.

use std::{
    fs::File,
    io::{Cursor, Read},
    path::{Path, PathBuf},
};

use minisign_verify::{Error, PublicKey, Signature};

use super::{Candidate, SIGNATURE_SUFFIX};
use crate::config::TrustConfig;

/// A signature is four lines; a longer file is something else.
const BYTES_MAX: u64 = 16 * 1024;

/// Who has signed a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// This trusted key.
    By(String),
    /// Somebody else.
    UnknownKey,
    /// A trusted key has signed other bytes.
    Modified,
    /// There is something that is no signature.
    Unreadable(String),
    /// Nobody.
    No,
}

impl Signed {
    /// The word in reports.
    pub(super) fn text(&self) -> String {
        match self {
            Signed::By(key) => key.clone(),
            Signed::UnknownKey => "unknown key".to_owned(),
            Signed::Modified => "does not match".to_owned(),
            Signed::Unreadable(_) => "unreadable".to_owned(),
            Signed::No => "none".to_owned(),
        }
    }
}

/// Reads the signature beside the file and holds it against the trusted keys.
pub(super) fn of(candidate: Candidate<'_>, config: &TrustConfig) -> Signed {
    match read(candidate.path) {
        Ok(None) => Signed::No,
        Ok(Some(text)) => check(&text, &candidate.plugin.bytes, &config.keys),
        Err(reason) => Signed::Unreadable(reason),
    }
}

fn read(plugin: &Path) -> Result<Option<String>, String> {
    let file = match File::open(signature_path(plugin)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(Some(text))
}

fn signature_path(plugin: &Path) -> PathBuf {
    let mut name = plugin.as_os_str().to_owned();
    name.push(SIGNATURE_SUFFIX);
    name.into()
}

fn check(text: &str, bytes: &[u8], keys: &[String]) -> Signed {
    let signature = match Signature::decode(text) {
        Ok(signature) => signature,
        Err(error) => return Signed::Unreadable(error.to_string()),
    };
    let trusted = keys.iter().filter_map(|key| Some((key, PublicKey::from_base64(key).ok()?)));
    for (key, public) in trusted {
        match public.verify(bytes, &signature, false) {
            Ok(()) => return Signed::By(key.clone()),
            // Another key's signature; a later key may be the one.
            Err(Error::UnexpectedKeyId) => {}
            Err(Error::UnsupportedLegacyMode) => {
                return Signed::Unreadable("it is of an old kind; sign the file anew".to_owned());
            }
            Err(_) => return Signed::Modified,
        }
    }
    Signed::UnknownKey
}

/// Why a file could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The secret key cannot be used.
    #[error("the secret key cannot be used: {0}")]
    Key(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A fresh pair of keys, as their files hold them.
pub struct KeyPairText {
    /// For whoever signs, and nobody else.
    pub secret: String,
    /// The public key's file.
    pub public: String,
    /// The public key's one line, as `plugins.trusted_keys` takes it.
    pub public_line: String,
}

/// Makes a pair of keys. The secret one is not protected by a password, so its file must be.
///
/// # Errors
///
/// When the system has no randomness.
pub fn new_key_pair() -> Result<KeyPairText, SignError> {
    let failed = |error: minisign::PError| SignError::Key(error.to_string());
    let pair = minisign::KeyPair::generate_unencrypted_keypair().map_err(failed)?;
    let comment = Some("jackfield plugin signing key: keep it secret");
    Ok(KeyPairText {
        secret: pair.sk.to_box(comment).map_err(failed)?.into_string(),
        public: pair.pk.to_box().map_err(failed)?.into_string(),
        public_line: pair.pk.to_base64(),
    })
}

/// Signs a file and puts the signature beside it. `secret` is the text of the secret key's file; when it is protected by
/// a password, that is asked for on the terminal. Returns where the signature is and the public key's one line.
///
/// # Errors
///
/// A key that is none, a wrong password, a file that cannot be read or written.
pub fn sign(file: &Path, secret: &str, comment: &str) -> Result<(PathBuf, String), SignError> {
    let key_failed = |error: minisign::PError| SignError::Key(error.to_string());
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SignError::File { path, source }
    };
    let key_box = || minisign::SecretKeyBox::from_string(secret).map_err(key_failed);
    let key = match key_box()?.into_unencrypted_secret_key() {
        Ok(key) => key,
        Err(_) => key_box()?.into_secret_key(None).map_err(key_failed)?,
    };
    let public = minisign::PublicKey::from_secret_key(&key).map_err(key_failed)?;
    let bytes = std::fs::read(file).map_err(at(file))?;
    let signature = minisign::sign(Some(&public), &key, Cursor::new(bytes), Some(comment), None).map_err(key_failed)?;
    let path = signature_path(file);
    std::fs::write(&path, signature.into_string()).map_err(at(&path))?;
    Ok((path, public.to_base64()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_these_bytes_and_of_a_trusted_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plugin.so");
        std::fs::write(&file, b"bytes").unwrap();
        assert_eq!(read(&file), Ok(None));
        let (ours, others) = (new_key_pair().unwrap(), new_key_pair().unwrap());
        let (path, line) = sign(&file, &ours.secret, "plugin 0.1.0").unwrap();
        assert_eq!((path, &line), (folder.path().join("plugin.so.minisig"), &ours.public_line));

        let text = read(&file).unwrap().unwrap();
        let keys = [others.public_line.clone(), ours.public_line.clone()];
        assert_eq!(check(&text, b"bytes", &keys), Signed::By(ours.public_line));
        assert_eq!(check(&text, b"other bytes", &keys), Signed::Modified);
        assert_eq!(check(&text, b"bytes", &keys[..1]), Signed::UnknownKey);
        assert_eq!(check(&text, b"bytes", &[]), Signed::UnknownKey);
        assert!(matches!(check("nonsense", b"bytes", &keys), Signed::Unreadable(_)));
        assert!(matches!(sign(&file, "nonsense", ""), Err(SignError::Key(_))));
    }
}
