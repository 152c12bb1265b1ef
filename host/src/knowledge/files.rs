//! Reads the documents of a file or a folder, one after the other, and says for each file that gives none why.
//!
//! The rules: a folder is read with its sub-folders, in the order of names. Hidden files and folders (a dot in front)
//! are left out. Links are not followed, so that a folder never leads out of itself; the path that is given may itself
//! be a link. Only regular files are opened.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

use super::convert::file_text;
use crate::config::Limits;

/// A text that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDocument {
    /// The file's path within what was given, with `/` between its parts and the name of what was given in front:
    /// `docs/faq/returns.md`, or `returns.md` when a file was given.
    pub name: String,
    /// The text, HTML already taken apart.
    pub text: String,
}

/// A file that gives no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// As [`FileDocument::name`].
    pub name: String,
    /// Why, as a sentence that begins with "it".
    pub reason: String,
}

/// Why nothing can be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The path leads to nothing that can be read.
    #[error("{path:?} cannot be read: {reason}")]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The path is neither a file nor a folder.
    #[error("{path:?} is neither a file nor a folder")]
    Neither {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path is outside of what may be read.
    #[error("{path:?} is outside of the folders that may be read")]
    Outside {
        /// The path as it was given.
        path: PathBuf,
    },
}

/// The documents of one place, read when they are asked for. Blocks.
pub struct Files {
    walk: walkdir::IntoIter,
    /// Without links.
    root: PathBuf,
    /// What names begin with.
    name: String,
    files_left: usize,
    depth_max: usize,
    file_bytes: u64,
    document_bytes: usize,
    is_over: bool,
    hidden: usize,
}

impl Files {
    /// Looks at the place, and does not read anything of it yet. With `roots`, the place must be in one of these
    /// folders, once all links are followed.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when there is nothing to read.
    pub fn open(place: &Path, roots: Option<&[PathBuf]>, limits: &Limits) -> Result<Self, PlaceError> {
        let unreadable = |error: io::Error| PlaceError::Unreadable { path: place.into(), reason: error.to_string() };
        let root = place.canonicalize();
        if roots.is_some_and(|roots| !is_permitted(place, &root, roots)) {
            return Err(PlaceError::Outside { path: place.into() });
        }
        let root = root.map_err(unreadable)?;
        let metadata = fs::metadata(&root).map_err(unreadable)?;
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(PlaceError::Neither { path: place.into() });
        }
        if metadata.is_dir() {
            fs::read_dir(&root).map_err(unreadable)?;
        }
        let walk = WalkDir::new(&root).follow_links(false).sort_by_file_name();
        let name = root.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            walk: walk.into_iter(),
            root,
            name,
            files_left: limits.knowledge_files,
            depth_max: limits.knowledge_folder_depth,
            file_bytes: limits.knowledge_file_bytes as u64,
            document_bytes: limits.knowledge_document_bytes,
            is_over: false,
            hidden: 0,
        })
    }

    /// The name of the file or folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Hidden files and folders that were left out so far.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Whether there were more files than the limit `knowledge_files` allows; those beyond it were not looked at.
    pub fn is_over_the_limit(&self) -> bool {
        self.is_over
    }

    fn name_of(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        let parts = inside.components().map(|part| part.as_os_str().to_string_lossy());
        std::iter::once(self.name.as_str().into()).chain(parts).collect::<Vec<_>>().join("/")
    }

    /// What an entry gives; `None` for what is no file.
    fn outcome_of(&mut self, entry: &DirEntry) -> Option<Result<FileDocument, Skip>> {
        let name = self.name_of(entry.path());
        let kind = entry.file_type();
        if kind.is_dir() {
            if entry.depth() < self.depth_max {
                return None;
            }
            self.walk.skip_current_dir();
            let max = self.depth_max;
            return Some(Err(Skip {
                name,
                reason: format!("it is deeper than {max} folders (limit knowledge_folder_depth)"),
            }));
        }
        let read = match kind {
            kind if kind.is_symlink() => {
                Err("it is a link, and links are not followed; give its target as a source of its own".to_owned())
            }
            kind if kind.is_file() => self.read(entry.path()),
            _ => Err("it is no regular file".to_owned()),
        };
        Some(match read {
            Ok(text) => Ok(FileDocument { name, text }),
            Err(reason) => Err(Skip { name, reason }),
        })
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        let cannot = |error: io::Error| format!("it cannot be read: {error}");
        let file = open_regular(path).map_err(cannot)?;
        self.check_place(path, &file).map_err(cannot)?;
        let mut bytes = Vec::new();
        file.take(self.file_bytes + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > self.file_bytes {
            return Err(format!("it has more than {} bytes (limit knowledge_file_bytes)", self.file_bytes));
        }
        let text = file_text(path, bytes).map_err(|error| error.to_string())?;
        if text.len() > self.document_bytes {
            let (found, max) = (text.len(), self.document_bytes);
            return Err(format!(
                "its text has {found} bytes, the limit knowledge_document_bytes allows {max}; split it"
            ));
        }
        Ok(text)
    }

    /// A folder may have been replaced by a link since it was looked at: what is open must be what stands in the place.
    fn check_place(&self, path: &Path, file: &File) -> io::Result<()> {
        let found = path.canonicalize()?;
        if found.starts_with(&self.root) && is_same(&fs::metadata(&found)?, &file.metadata()?) {
            return Ok(());
        }
        Err(io::Error::other("it leads out of its folder"))
    }
}

impl Iterator for Files {
    type Item = Result<FileDocument, Skip>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.walk.next()? {
                Ok(entry) => entry,
                Err(error) => {
                    let name = self.name_of(error.path().unwrap_or(&self.root));
                    let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                    return Some(Err(Skip { name, reason: format!("it cannot be read: {reason}") }));
                }
            };
            if entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.hidden += 1;
                if entry.file_type().is_dir() {
                    self.walk.skip_current_dir();
                }
                continue;
            }
            if !entry.file_type().is_dir() {
                if self.files_left == 0 {
                    self.is_over = true;
                    return None;
                }
                self.files_left -= 1;
            }
            if let Some(taken) = self.outcome_of(&entry) {
                return Some(taken);
            }
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Files").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Whether the place is in one of the folders. Of what is outside, nobody is told whether it is there: so a place that
/// is not there is judged by the nearest folder that is.
fn is_permitted(place: &Path, root: &io::Result<PathBuf>, folders: &[PathBuf]) -> bool {
    let there = || place.ancestors().skip(1).find_map(|ancestor| ancestor.canonicalize().ok());
    let path = root.as_ref().ok().cloned().or_else(there);
    let is_below = |path: &PathBuf| {
        folders.iter().any(|folder| folder.canonicalize().is_ok_and(|folder| path.starts_with(folder)))
    };
    path.as_ref().is_some_and(is_below)
}

/// Opens a file that is no link, and never waits for the other end of a pipe.
#[cfg(unix)]
fn open_regular(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

#[cfg(not(unix))]
fn open_regular(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn is_same(left: &fs::Metadata, right: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (left.dev(), left.ino()) == (right.dev(), right.ino())
}

#[cfg(not(unix))]
fn is_same(left: &fs::Metadata, right: &fs::Metadata) -> bool {
    left.len() == right.len()
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of the test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
            let folder = base.join(format!("jackfield-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder.canonicalize().unwrap())
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        fn read(&self, place: &str, limits: &Limits) -> Vec<(String, String)> {
            let files = Files::open(&self.0.join(place), None, limits).unwrap();
            let outcome = |outcome| match outcome {
                Ok(FileDocument { name, text }) => (name, text),
                Err(Skip { name, reason }) => (name, format!("- {reason}")),
            };
            files.map(outcome).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_folder_is_read_by_its_rules_and_every_file_is_accounted_for() {
        let folder = Folder::new("rules");
        folder.write("docs/b.md", b"# B");
        folder.write("docs/a/page.html", b"<h1>A</h1>");
        folder.write("docs/a/logo.png", b"\x89PNG\0");
        folder.write("docs/latin.txt", b"caf\xe9");
        folder.write("docs/long.txt", &[b'x'; 101]);
        folder.write("docs/.hidden.md", b"secret");
        folder.write("docs/.git/config", b"secret");
        folder.write("outside.md", b"secret");
        symlink(folder.0.join("outside.md"), folder.0.join("docs/link.md")).unwrap();
        symlink(folder.0.join("docs"), folder.0.join("docs/loop")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.0.join("docs/pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let limits = Limits { knowledge_file_bytes: 100, ..Limits::default() };
        let link = "- it is a link, and links are not followed; give its target as a source of its own";
        let expected = pairs(&[
            ("docs/a/logo.png", "- it is a binary file"),
            ("docs/a/page.html", "# A"),
            ("docs/b.md", "# B"),
            (
                "docs/latin.txt",
                "- it is not UTF-8 (byte 0xe9 at 3), it may be Latin-1 or Windows-1252; save it as UTF-8",
            ),
            ("docs/link.md", link),
            ("docs/long.txt", "- it has more than 100 bytes (limit knowledge_file_bytes)"),
            ("docs/loop", link),
            ("docs/pipe", "- it is no regular file"),
        ]);
        assert_eq!(folder.read("docs", &limits), expected);
        // What is given itself may be a link, and hidden.
        assert_eq!(folder.read("docs/link.md", &limits), pairs(&[("outside.md", "secret")]));
        assert_eq!(folder.read("docs/.hidden.md", &limits), pairs(&[(".hidden.md", "secret")]));
        let mut files = Files::open(&folder.0.join("docs"), None, &limits).unwrap();
        assert_eq!((files.by_ref().count(), files.hidden(), files.is_over_the_limit()), (8, 2, false));
    }

    #[test]
    fn limits_hold_and_are_named() {
        let folder = Folder::new("limits");
        folder.write("d/1.txt", b"one");
        folder.write("d/2.html", b"<p>&nGg;&nGg;&nGg;");
        folder.write("d/e/f/3.txt", b"three");
        let limits = Limits { knowledge_files: 2, ..Limits::default() };
        let mut files = Files::open(&folder.0.join("d"), None, &limits).unwrap();
        assert_eq!((files.by_ref().count(), files.is_over_the_limit()), (2, true));
        let limits = Limits { knowledge_folder_depth: 2, knowledge_document_bytes: 5, ..Limits::default() };
        let expected = pairs(&[
            ("d/1.txt", "one"),
            ("d/2.html", "- its text has 15 bytes, the limit knowledge_document_bytes allows 5; split it"),
            ("d/e/f", "- it is deeper than 2 folders (limit knowledge_folder_depth)"),
        ]);
        assert_eq!(folder.read("d", &limits), expected);
    }

    #[test]
    fn a_place_outside_of_the_roots_is_refused_and_nobody_learns_whether_it_is_there() {
        let folder = Folder::new("roots");
        folder.write("open/a.md", b"a");
        folder.write("closed/b.md", b"b");
        symlink(folder.0.join("closed"), folder.0.join("open/escape")).unwrap();
        symlink(folder.0.join("open"), folder.0.join("alias")).unwrap();
        let open = |place: &str| {
            let roots = [folder.0.join("alias")];
            Files::open(&folder.0.join(place), Some(&roots), &Limits::default()).map(|files| files.name().to_owned())
        };
        assert_eq!(open("open").unwrap(), "open");
        assert_eq!(open("open/a.md").unwrap(), "a.md");
        assert_eq!(open("alias").unwrap(), "open");
        for place in ["closed", "closed/b.md", "closed/none.md", "open/escape", "open/escape/b.md", "open/../closed/x"]
        {
            assert!(matches!(open(place), Err(PlaceError::Outside { .. })), "{place}");
        }
        assert!(matches!(open("open/none/none.md"), Err(PlaceError::Unreadable { .. })));
        let none = Files::open(&folder.0.join("open"), Some(&[]), &Limits::default());
        assert!(matches!(none, Err(PlaceError::Outside { .. })));
    }

    #[test]
    fn what_is_swapped_for_a_link_while_it_is_read_is_refused() {
        let folder = Folder::new("swap");
        folder.write("open/sub/a.md", b"a");
        folder.write("closed/a.md", b"secret");
        let mut files = Files::open(&folder.0.join("open"), None, &Limits::default()).unwrap();
        let entry = WalkDir::new(folder.0.join("open")).into_iter().map(Result::unwrap).last().unwrap();
        fs::remove_dir_all(folder.0.join("open/sub")).unwrap();
        symlink(folder.0.join("closed"), folder.0.join("open/sub")).unwrap();
        let skip = files.outcome_of(&entry).unwrap().unwrap_err();
        assert_eq!(skip.reason, "it cannot be read: it leads out of its folder");
    }
}
