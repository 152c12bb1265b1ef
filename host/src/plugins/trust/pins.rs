//! What was trusted, remembered in the state folder as TOML, one table for each plugin, so that a person can read it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Candidate, signature::Signed};
use crate::state_folder::{FolderLock, read_file, replace_file};

/// The file's name in the state folder.
const NAME: &str = "plugins.toml";
/// A longer file is not ours.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One plugin as it was trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Pin {
    /// The plugin's id; the name of its table.
    #[serde(skip)]
    pub id: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// The author's version.
    pub version: String,
    /// The key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The operator took the trust away.
    #[serde(skip_serializing_if = "is_false")]
    pub untrusted: bool,
    /// What it asks to be allowed, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub permissions: BTreeMap<String, Vec<String>>,
    /// The tools that its manifest names, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<PinnedTool>,
}

/// A tool as it was trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinnedTool {
    /// Its name.
    pub name: String,
    /// What it declares that a call can change; absent when that depends on the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Pin {
    /// What would be remembered of this file.
    pub(super) fn of(candidate: Candidate<'_>, signed: &Signed) -> Self {
        let manifest = candidate.manifest;
        let tool =
            |tool: &super::super::ManifestTool| PinnedTool { name: tool.name.clone(), effect: tool.effect.clone() };
        let mut tools: Vec<PinnedTool> = manifest.tools.iter().map(tool).collect();
        tools.sort();
        Self {
            id: manifest.id.clone(),
            sha256: candidate.plugin.sha256.clone(),
            version: manifest.version.clone(),
            key: if let Signed::By(key) = signed { Some(key.clone()) } else { None },
            untrusted: false,
            permissions: permissions(&manifest.permissions),
            tools,
        }
    }
}

fn permissions(asked: &Value) -> BTreeMap<String, Vec<String>> {
    let texts = |wanted: &Value| -> Vec<String> {
        wanted.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    asked.as_object().into_iter().flatten().map(|(kind, wanted)| (kind.clone(), texts(wanted))).collect()
}

/// All pins, by plugin id.
type Pins = BTreeMap<String, Pin>;

/// The file with the pins.
pub(super) struct PinFile {
    folder: PathBuf,
}

impl PinFile {
    pub(super) fn of(state_folder: &Path) -> Self {
        Self { folder: state_folder.to_owned() }
    }

    /// Everything that is remembered; nothing when there is no file.
    pub(super) fn read(&self) -> io::Result<Pins> {
        let path = self.folder.join(NAME);
        let at = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        let Some(bytes) = read_file(&self.folder, NAME, BYTES_MAX).map_err(|error| at(&error))? else {
            return Ok(Pins::new());
        };
        let text = String::from_utf8(bytes).map_err(|error| at(&error))?;
        let mut pins: Pins = toml::from_str(&text).map_err(|error| at(&error.message()))?;
        pins.iter_mut().for_each(|(id, pin)| pin.id.clone_from(id));
        Ok(pins)
    }

    /// Changes what is remembered; nobody else changes it meanwhile, and nobody ever reads half of it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Pins)) -> io::Result<()> {
        let _lock = FolderLock::take(&self.folder)?;
        let mut pins = self.read()?;
        change(&mut pins);
        let text = toml::to_string(&pins).map_err(io::Error::other)?;
        replace_file(&self.folder, NAME, format!("{HEAD}{text}").as_bytes())
    }
}

/// On top of the file.
const HEAD: &str = "# Plugin files as they were trusted; `jackfield plugins trust` and `untrust` change this.\n\n";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_nonsense_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = PinFile::of(&folder.path().join("state"));
        assert!(file.read().unwrap().is_empty());
        let pin = Pin {
            id: "clock".into(),
            sha256: "a".repeat(64),
            version: "0.1.0".into(),
            tools: vec![PinnedTool { name: "now".into(), effect: Some("read_only".into()) }],
            permissions: permissions(&serde_json::json!({"network": ["a:443"], "odd": 7})),
            ..Pin::default()
        };
        file.change(|pins| drop(pins.insert("clock".into(), pin.clone()))).unwrap();
        file.change(|pins| pins.entry("other".into()).or_default().untrusted = true).unwrap();
        let pins = file.read().unwrap();
        assert_eq!(pins["clock"], pin);
        assert!(pins["other"].untrusted);

        let path = folder.path().join("state").join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("[clock]") && text.contains("[[clock.tools]]"), "{text}");
        fs::write(&path, "[clock").unwrap();
        assert!(file.read().unwrap_err().to_string().contains("plugins.toml"));
        assert!(file.change(|_| {}).is_err(), "what cannot be read is not overwritten");
    }
}
