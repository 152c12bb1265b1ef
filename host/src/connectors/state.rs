//! The sources that outlive the process: a TOML file in the state folder, which people may read and edit.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ConnectorError, Kept, Source};
use crate::{
    knowledge::DocumentAcl,
    state_folder::{FolderLock, read_file, replace_file},
};

/// The file's name in the state folder.
const NAME: &str = "knowledge.toml";
/// A longer file is not ours.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
const HEADER: &str = "# The sources that `jackfield knowledge add` added; they are read again at every start.\n\n";

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    source: Vec<StoredSource>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSource {
    name: String,
    path: PathBuf,
    org: String,
    document_set: String,
    /// Without these two everyone in the organisation may find the documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    users: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<String>>,
}

impl From<&Source> for StoredSource {
    fn from(source: &Source) -> Self {
        let acl = source.acl.as_ref().filter(|acl| !acl.public);
        Self {
            name: source.name.clone(),
            path: source.path.clone(),
            org: source.org_id.clone(),
            document_set: source.document_set.clone(),
            users: acl.map(|acl| acl.users.clone()),
            groups: acl.map(|acl| acl.groups.clone()),
        }
    }
}

impl From<StoredSource> for Source {
    fn from(stored: StoredSource) -> Self {
        let is_for_everyone = stored.users.is_none() && stored.groups.is_none();
        let acl = DocumentAcl {
            public: false,
            users: stored.users.unwrap_or_default(),
            groups: stored.groups.unwrap_or_default(),
        };
        Self {
            name: stored.name,
            path: stored.path,
            org_id: stored.org,
            document_set: stored.document_set,
            acl: (!is_for_everyone).then_some(acl),
            kept: Kept::State,
        }
    }
}

/// The file of one state folder.
#[derive(Debug)]
pub(super) struct StateFile {
    folder: PathBuf,
}

impl StateFile {
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The sources that are written down.
    pub(super) fn read(&self) -> Result<Vec<Source>, ConnectorError> {
        Ok(self.text()?.source.into_iter().map(Source::from).collect())
    }

    /// Writes a source down, in place of the one of the same name. Blocks while another process writes.
    pub(super) fn put(&self, source: &Source) -> Result<(), ConnectorError> {
        self.change(|list| {
            list.retain(|known| (&known.org, &known.name) != (&source.org_id, &source.name));
            list.push(source.into());
        })
    }

    /// Strikes a source out. Blocks while another process writes.
    pub(super) fn remove(&self, org_id: &str, name: &str) -> Result<(), ConnectorError> {
        self.change(|list| list.retain(|known| known.org != org_id || known.name != name))
    }

    /// The file is read again under the lock, so that what another server or a person wrote is not lost; and a file that
    /// cannot be read is left alone.
    fn change(&self, change: impl FnOnce(&mut Vec<StoredSource>)) -> Result<(), ConnectorError> {
        let _lock = FolderLock::take(&self.folder).map_err(|error| self.trouble(&error.to_string()))?;
        let mut text = self.text()?;
        change(&mut text.source);
        let toml = toml::to_string(&text).map_err(|error| self.trouble(&error.to_string()))?;
        let written = replace_file(&self.folder, NAME, format!("{HEADER}{toml}").as_bytes());
        written.map_err(|error| self.trouble(&error.to_string()))
    }

    fn text(&self) -> Result<Text, ConnectorError> {
        let bytes = read_file(&self.folder, NAME, BYTES_MAX).map_err(|error| self.trouble(&error.to_string()))?;
        let Some(bytes) = bytes else { return Ok(Text::default()) };
        let text = String::from_utf8(bytes).map_err(|_| self.trouble("it is not UTF-8"))?;
        toml::from_str(&text).map_err(|error| self.trouble(error.message()))
    }

    fn trouble(&self, reason: &str) -> ConnectorError {
        ConnectorError::State { path: self.folder.join(NAME), reason: reason.to_owned() }
    }

    /// The folder that holds the file.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A folder of the test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
            Self(base.join(format!("jackfield-sources-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn source(name: &str, acl: Option<DocumentAcl>) -> Source {
        Source {
            name: name.to_owned(),
            path: format!("/docs/{name}").into(),
            org_id: "org".to_owned(),
            document_set: "set \"x\"".to_owned(),
            acl,
            kept: Kept::State,
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_replaced_by_name() {
        let folder = Folder::new("life");
        let file = StateFile::in_folder(folder.0.clone());
        assert_eq!(file.read().unwrap(), []);
        let nobody = source("nobody", Some(DocumentAcl::default()));
        let staff = source("staff", Some(DocumentAcl { groups: vec!["staff".to_owned()], ..DocumentAcl::default() }));
        for source in [&source("all", None), &staff, &nobody] {
            file.put(source).unwrap();
        }
        assert_eq!(file.read().unwrap(), [source("all", None), staff.clone(), nobody.clone()]);
        let moved = Source { path: "/elsewhere".into(), ..source("all", None) };
        file.put(&moved).unwrap();
        file.remove("org", "staff").unwrap();
        file.remove("other", "nobody").unwrap();
        assert_eq!(StateFile::in_folder(folder.0.clone()).read().unwrap(), [nobody, moved]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_as_it_is() {
        let folder = Folder::new("broken");
        std::fs::create_dir_all(&folder.0).unwrap();
        for broken in ["[[source]]\nname = 1", "colour = \"red\"", "\u{0}"] {
            std::fs::write(folder.0.join(NAME), broken).unwrap();
            let file = StateFile::in_folder(folder.0.clone());
            let error = file.put(&source("all", None)).unwrap_err().to_string();
            assert!(error.contains(NAME), "{error}");
            assert_eq!(std::fs::read_to_string(folder.0.join(NAME)).unwrap(), broken);
        }
    }
}
