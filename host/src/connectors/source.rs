//! Sources: the paths that the operator named. Pure, but for a look at the path.

use std::path::{Path, PathBuf};

use super::ConnectorError;
use crate::knowledge::DocumentAcl;

/// Longest name of a source, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Where a source is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the configuration, or in the program that embeds the server: it can be removed only there.
    Configuration,
    /// In the state folder: it is there again at the next start.
    State,
    /// Nowhere: it ends with the process, because there is no state folder.
    Process,
}

/// A path whose documents can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Names it within its organisation; the ids of its documents begin with it.
    pub name: String,
    /// The file or folder.
    pub path: PathBuf,
    /// Whose it is.
    pub org_id: String,
    /// The set of its documents.
    pub document_set: String,
    /// Who in the organisation may find its documents; `None` means everyone.
    pub acl: Option<DocumentAcl>,
    /// Where it is written down.
    pub kept: Kept,
}

/// What is said about a source when it is added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSource {
    /// The file or folder; absolute.
    pub path: PathBuf,
    /// Its name; by default the file's or folder's own.
    pub name: Option<String>,
    /// The set of its documents; by default its name.
    pub document_set: Option<String>,
    /// Who may find its documents.
    pub acl: Option<DocumentAcl>,
}

impl From<PathBuf> for NewSource {
    fn from(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }
}

impl NewSource {
    /// What a relative path would mean depends on the reader.
    pub(super) fn check_path(&self) -> Result<(), ConnectorError> {
        if self.path.is_absolute() {
            return Ok(());
        }
        Err(ConnectorError::Invalid(format!("the path of a source has to be absolute, got {:?}", self.path)))
    }
}

impl Source {
    /// What its documents have as their origin.
    pub fn origin(&self) -> String {
        format!("source {}", self.name)
    }

    /// The same file or folder, however the paths are written.
    fn is_at(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        real(&self.path) == real(path)
    }
}

/// The sources of all organisations, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Sources {
    list: Vec<Source>,
}

impl Sources {
    pub(super) fn all(&self) -> Vec<Source> {
        self.list.clone()
    }

    pub(super) fn get(&self, org_id: &str, name: &str) -> Option<&Source> {
        self.list.iter().find(|source| source.org_id == org_id && source.name == name)
    }

    /// The source that this would be, with its final name. A path that is there already keeps its name, and is read
    /// anew with what is said now.
    pub(super) fn prepare(
        &self,
        org_id: &str,
        new: NewSource,
        kept: Kept,
        max: usize,
    ) -> Result<Source, ConnectorError> {
        new.check_path()?;
        let known = self.list.iter().find(|source| source.org_id == org_id && source.is_at(&new.path));
        if known.is_none() && self.list.len() >= max {
            return Err(ConnectorError::Full { limit: "knowledge_sources", max });
        }
        if let Some(known) = known.filter(|known| known.kept == Kept::Configuration && kept != Kept::Configuration) {
            let message = format!("{:?} is a source of the configuration already, as {:?}", new.path, known.name);
            return Err(ConnectorError::Invalid(message));
        }
        let name = match (new.name, known) {
            (Some(name), known) => self.free_name(org_id, checked_name(&name)?, known)?,
            (None, Some(known)) => known.name.clone(),
            (None, None) => self.derived_name(org_id, &new.path),
        };
        let document_set = match new.document_set {
            Some(set) => checked_name(&set)?,
            None => name.clone(),
        };
        Ok(Source { name, path: new.path, org_id: org_id.to_owned(), document_set, acl: new.acl, kept })
    }

    fn free_name(&self, org_id: &str, name: String, known: Option<&Source>) -> Result<String, ConnectorError> {
        match (self.get(org_id, &name), known) {
            (None, None) => Ok(name),
            (Some(taken), Some(known)) if taken == known => Ok(name),
            (_, Some(known)) => {
                let message =
                    format!("{:?} is a source already, as {:?}; remove it to rename it", known.path, known.name);
                Err(ConnectorError::Invalid(message))
            }
            (Some(taken), None) => {
                let message = format!("the name {name:?} is taken by {:?}; choose another one", taken.path);
                Err(ConnectorError::Invalid(message))
            }
        }
    }

    /// The file's or folder's own name, with a number behind it when it is taken.
    fn derived_name(&self, org_id: &str, path: &Path) -> String {
        let name = path.file_name().map(|name| name.to_string_lossy().replace(char::is_control, " "));
        let name: String = name.unwrap_or_default().trim().chars().take(NAME_CHARS_MAX).collect();
        let name = if name.is_empty() { "files".to_owned() } else { name };
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(|name| self.get(org_id, name).is_none()).expect("there are more numbers than sources")
    }

    /// Takes a source in, in place of the one of the same name.
    pub(super) fn put(&mut self, source: Source) {
        self.list.retain(|known| (&known.org_id, &known.name) != (&source.org_id, &source.name));
        self.list.push(source);
    }

    pub(super) fn remove(&mut self, org_id: &str, name: &str) {
        self.list.retain(|known| known.org_id != org_id || known.name != name);
    }
}

fn checked_name(name: &str) -> Result<String, ConnectorError> {
    let name = name.trim();
    let is_bad = |letter: char| letter.is_control() || letter == '/';
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains(is_bad) {
        let expected = format!("a name has 1 to {NAME_CHARS_MAX} printable characters and no slash, got {name:?}");
        return Err(ConnectorError::Invalid(expected));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn new(path: &str, name: Option<&str>) -> NewSource {
        NewSource { path: path.into(), name: name.map(str::to_owned), ..NewSource::default() }
    }

    fn filled(paths: &[&str]) -> Sources {
        let mut sources = Sources::default();
        for path in paths {
            let source = sources.prepare("org", new(path, None), Kept::Process, 10).unwrap();
            sources.put(source);
        }
        sources
    }

    #[test]
    fn names_come_from_paths_and_are_told_apart() {
        let sources = filled(&["/a/docs", "/b/docs", "/", "/a/docs"]);
        let names: Vec<String> = sources.all().into_iter().map(|source| source.name).collect();
        assert_eq!(names, ["docs-2", "files", "docs"], "the path that was given twice is there once");
        let other = sources.prepare("other", new("/c/docs", None), Kept::Process, 10).unwrap();
        assert_eq!((other.name.as_str(), other.document_set.as_str()), ("docs", "docs"));
    }

    #[test]
    fn what_cannot_be_a_source_says_why() {
        let mut sources = filled(&["/a/docs"]);
        let mut configured = sources.prepare("org", new("/c/own", None), Kept::Configuration, 10).unwrap();
        configured.kept = Kept::Configuration;
        sources.put(configured);
        for (source, max, expected) in [
            (new("docs", None), 10, "has to be absolute"),
            (new("/b", Some("a/b")), 10, "no slash"),
            (new("/b", Some(" ")), 10, "1 to 100"),
            (new("/b", Some("docs")), 10, "taken by \"/a/docs\""),
            (new("/a/docs", Some("other")), 10, "remove it to rename it"),
            (new("/c/own", None), 10, "of the configuration already"),
            (new("/b", None), 2, "limit knowledge_sources of 2"),
        ] {
            let error = sources.prepare("org", source, Kept::State, max).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(sources.prepare("org", new("/a/docs", None), Kept::State, 2).unwrap().name, "docs");
        assert_eq!(sources.prepare("org", new("/a/docs", Some("docs")), Kept::State, 2).unwrap().name, "docs");
    }
}
