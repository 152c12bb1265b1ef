//! `plugins trust`, `untrust`, `keygen`, `sign` and `verify`: whose plugins are loaded. None of them runs any plugin code.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use jackfield::{
    config::Sources,
    plugins::{self, Inspection},
};
use serde_json::json;

use super::{
    Exit, Failure,
    args::{KeygenArgs, SignArgs, TrustArgs, UntrustArgs, VerifyArgs},
    terminal::{Terminal, one_line},
    which::{find, load},
};

/// Characters of a difference.
const CHANGE_CHARS: usize = 300;
/// A key is two lines; a longer file is something else.
const KEY_BYTES_MAX: u64 = 16 * 1024;

/// Trusts a file from now on. One that differs from what was trusted needs `--update`.
pub(super) fn trust(sources: Sources, args: &TrustArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let config = load(sources, &args.plugins)?;
    let file = find(&args.plugin, &config)?;
    let trust = &config.plugins.trust;
    let found = plugins::inspect(&file, trust, &config.limits).map_err(anyhow::Error::from)?;
    let id = found.manifest.id.clone();
    if found.trust.pin == "changed" && !args.update {
        let reason = found.trust.refusal.unwrap_or_default();
        return Err(Failure::new(Exit::Untrusted, format!("{}: {reason}", file.display())));
    }
    let (id, changed) = match plugins::trust_file(&file, trust, &config.limits) {
        Ok(trusted) => trusted,
        Err(error) => return Err(Failure::new(Exit::Failure, format!("{id}: {error}"))),
    };
    let changes = changed.unwrap_or_default();
    if args.json {
        terminal.data(&format!("{:#}\n", json!({ "id": id, "sha256": found.sha256, "changes": changes })))?;
        return Ok(None);
    }
    for change in &changes {
        terminal.data(&format!("  {}\n", one_line(change, CHANGE_CHARS)))?;
    }
    terminal.data(&format!("{id} is trusted as it is in {}\n", file.display()))?;
    if let Some(refusal) = still_refused(&file, &config)? {
        terminal.message(&format!("it is not loaded all the same: {refusal}"));
    }
    Ok(None)
}

/// Trust is not all: a list or a wanted signature may still be against the file.
fn still_refused(file: &Path, config: &jackfield::ServerConfig) -> Result<Option<String>, Failure> {
    let found = plugins::inspect(file, &config.plugins.trust, &config.limits).map_err(anyhow::Error::from)?;
    Ok(found.refusal.or(found.trust.refusal))
}

/// Takes the trust in a plugin away.
pub(super) fn untrust(sources: Sources, args: &UntrustArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    if !plugins::is_plugin_id(&args.id) {
        return Err(Failure::new(Exit::Usage, format!("expected the id of a plugin, got {:?}", args.id)));
    }
    let config = load(sources, &[])?;
    let was_trusted = plugins::untrust(&args.id, &config.plugins.trust)?;
    let before =
        if was_trusted { "is not trusted any more" } else { "was not trusted, and will not be at its first use" };
    terminal.data(&format!("{} {before}; a running server keeps what it has loaded\n", args.id))?;
    Ok(None)
}

/// Makes a pair of keys for signing.
pub(super) fn keygen(args: &KeygenArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let keys = plugins::new_key_pair().map_err(anyhow::Error::from)?;
    let public = with_suffix(&args.file, ".pub");
    write_new(&args.file, &keys.secret, true)?;
    write_new(&public, &keys.public, false)?;
    terminal.data(&format!("{}\n", keys.public_line))?;
    terminal.message(&format!(
        "the secret key is in {}, readable by you alone and not protected by a password; give away the line above (or {})",
        args.file.display(),
        public.display()
    ));
    terminal.message(&format!("whoever trusts it writes, under [plugins]:  trusted_keys = [{:?}]", keys.public_line));
    Ok(None)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A key that is there is never overwritten.
fn write_new(path: &Path, text: &str, is_secret: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failure, format!("{}: {error}", path.display()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if is_secret { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = is_secret;
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

/// Signs a plugin file, so that the signature says which plugin and version it is of.
pub(super) fn sign(args: &SignArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let found = inspect(&args.file)?;
    let secret = read_key(&args.key)?;
    let comment = format!("{} {} for {}", found.manifest.id, found.manifest.version, found.binary.machine);
    let (path, key) =
        plugins::sign(&args.file, &secret, &comment).map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    terminal.data(&format!("{}\n", path.display()))?;
    terminal.message(&format!("signed with {key}; keep the two files beside each other"));
    Ok(None)
}

fn inspect(file: &Path) -> Result<Inspection, Failure> {
    let (trust, limits) = (Default::default(), Default::default());
    Ok(plugins::inspect(file, &trust, &limits).map_err(anyhow::Error::from)?)
}

fn read_key(path: &Path) -> Result<String, Failure> {
    let failed = |reason: String| Failure::new(Exit::Usage, format!("--key {}: {reason}", path.display()));
    let length = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > KEY_BYTES_MAX {
        return Err(failed("it is too long for a key".to_owned()));
    }
    fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

/// Says whether a trusted key has signed a file.
pub(super) fn verify(sources: Sources, args: &VerifyArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let mut config = load(sources, &[])?;
    let trust = &mut config.plugins.trust;
    if !args.key.is_empty() {
        trust.keys.clone_from(&args.key);
    }
    // Only the signature is asked for here.
    (trust.pin, trust.require_signed) = (false, true);
    trust.allow.clear();
    let found = plugins::inspect(&args.file, trust, &config.limits).map_err(anyhow::Error::from)?;
    match found.trust.refusal {
        None => {
            terminal.data(&format!(
                "{} {} is signed with {}\n",
                found.manifest.id, found.manifest.version, found.trust.signature
            ))?;
            Ok(None)
        }
        Some(refusal) => Err(Failure::new(Exit::Untrusted, format!("{}: {refusal}", args.file.display()))),
    }
}
