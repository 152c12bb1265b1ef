//! Whether a source of the plugin has changed. It looks at names, sizes and times of files, because that works on every
//! system and costs nothing for a project's few files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Files that are looked at; a folder with more is not a plugin's project.
const FILES_MAX: usize = 10_000;
/// What changes without being a source.
const NOT_SOURCES: [&str; 2] = ["target", "Cargo.lock"];

/// What is known of one file: its size, and when it was written.
type Seen = (u64, Option<std::time::Duration>);

/// Remembers what the files looked like.
pub(super) struct Watch {
    folder: PathBuf,
    seen: BTreeMap<PathBuf, Seen>,
}

impl Watch {
    /// Looks for the first time.
    pub(super) fn new(folder: PathBuf) -> Self {
        let seen = look(&folder);
        Self { folder, seen }
    }

    /// Looks again; whether anything differs from the last time.
    pub(super) fn has_changed(&mut self) -> bool {
        let seen = look(&self.folder);
        let changed = seen != self.seen;
        self.seen = seen;
        changed
    }
}

fn look(folder: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        // A folder that has just gone holds nothing.
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name.ends_with('~') || NOT_SOURCES.contains(&name.as_str()) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if seen.len() < FILES_MAX {
                let written = metadata.modified().ok();
                let written = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
                seen.insert(entry.path(), (metadata.len(), written));
            }
        }
    }
    seen
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_noticed_and_what_is_built_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "a");
        let mut watch = Watch::new(folder.path().to_owned());
        assert!(!watch.has_changed());
        write("src/lib.rs", "ab");
        assert!(watch.has_changed() && !watch.has_changed());
        write("target/debug/x", "b");
        write("src/.lib.rs.swp", "b");
        write("Cargo.lock", "b");
        assert!(!watch.has_changed());
        write("src/more.rs", "c");
        assert!(watch.has_changed());
        fs::remove_file(folder.path().join("src/more.rs")).unwrap();
        assert!(watch.has_changed());
    }
}
