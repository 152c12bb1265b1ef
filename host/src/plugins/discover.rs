//! Which files of the plugin folders may be plugins. It looks at names, kinds and permissions only: it never opens a
//! file, and nothing it returns has been trusted yet.

use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::config::Limits;

/// What a scan of the folders found, in the order of the folders and then of the file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Discovery {
    /// Files that may be plugins of this system.
    pub(super) candidates: Vec<PathBuf>,
    /// Files that look like plugins and are refused, with the reason.
    pub(super) refused: Vec<Refused>,
    /// The folders that were looked into: a change in one of them is a reason to look again.
    pub(super) folders: Vec<PathBuf>,
}

/// A file that is not considered further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The file or sub-folder.
    pub(super) path: PathBuf,
    /// What was found, what was expected and what to do next.
    pub(super) reason: String,
}

/// Why a plugin folder as a whole cannot be used. The operator named it, so this ends the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// There is nothing of that name.
    #[error("the plugin folder {0:?} does not exist; create it or name another one with --plugins")]
    Missing(PathBuf),
    /// It is a file or something else.
    #[error("the plugin folder {0:?} is not a folder; name the folder that holds the plugin files with --plugins")]
    NotAFolder(PathBuf),
    /// Others may put files into it.
    #[error("the plugin folder {folder:?} is not safe to load from: {reason}")]
    Unsafe {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The system does not let us read it.
    #[error("the plugin folder {folder:?} cannot be read: {reason}")]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// Scans the folders. `owner` is the user this process runs as, where the system has such a number.
///
/// # Errors
///
/// [`FolderError`] when a folder itself cannot be used; a bad file in a good folder is a [`Refused`] entry.
pub(super) fn discover(folders: &[PathBuf], owner: Option<u32>, limits: &Limits) -> Result<Discovery, FolderError> {
    let mut discovery = Discovery::default();
    let mut seen = BTreeSet::new();
    for folder in folders {
        let folder = usable_folder(folder, owner)?;
        discovery.folders.push(folder.clone());
        let mut scan = Scan { root: &folder, owner, discovery: &mut discovery, seen: &mut seen };
        scan.folder(limits.plugin_files)?;
    }
    Ok(discovery)
}

/// Why a file or folder with this metadata could have been put there by somebody else, with the remedy; `None` when
/// it is safe.
pub(super) fn tampering_risk(metadata: &Metadata, owner: Option<u32>) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if metadata.mode() & 0o002 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Some(format!(
                "every user may change it (mode {mode:04o}, expected no write for others); run chmod o-w on it"
            ));
        }
        if owner == Some(0) && metadata.uid() != 0 {
            let uid = metadata.uid();
            return Some(format!(
                "it belongs to user {uid} while the server runs as root, which loads only root's files; run chown root on it or run the server as that user"
            ));
        }
    }
    #[cfg(not(unix))]
    let _ = (metadata, owner);
    None
}

/// What beside a library in a folder of its own says which file is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FolderFile {
    /// Name of the library; needed only when there are several.
    library: Option<String>,
}

/// Name of the file that makes a sub-folder count.
const FOLDER_FILE: &str = "plugin.toml";
/// A `plugin.toml` holds one line; more than this is something else.
const FOLDER_FILE_BYTES: u64 = 64 * 1024;
/// Suffix of this system's dynamic libraries.
pub(crate) const OWN_SUFFIX: &str = if cfg!(windows) {
    "dll"
} else if cfg!(target_vendor = "apple") {
    "dylib"
} else {
    "so"
};
/// Suffixes of dynamic libraries on the systems we know.
const LIBRARY_SUFFIXES: [&str; 3] = ["so", "dylib", "dll"];

fn usable_folder(folder: &Path, owner: Option<u32>) -> Result<PathBuf, FolderError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FolderError::Missing(folder.to_owned()),
        _ => FolderError::Unreadable { folder: folder.to_owned(), reason: error.to_string() },
    };
    let real = fs::canonicalize(folder).map_err(unreadable)?;
    let metadata = fs::metadata(&real).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Err(FolderError::NotAFolder(folder.to_owned()));
    }
    if let Some(reason) = tampering_risk(&metadata, owner) {
        return Err(FolderError::Unsafe { folder: folder.to_owned(), reason });
    }
    Ok(real)
}

/// One folder being scanned.
struct Scan<'a> {
    /// The folder with all links resolved; nothing outside of it is taken.
    root: &'a Path,
    owner: Option<u32>,
    discovery: &'a mut Discovery,
    /// Real paths taken so far, so that a link beside its target is not a second plugin.
    seen: &'a mut BTreeSet<PathBuf>,
}

impl Scan<'_> {
    fn folder(&mut self, files_max: usize) -> Result<(), FolderError> {
        let entries = sorted_entries(self.root)
            .map_err(|error| FolderError::Unreadable { folder: self.root.to_owned(), reason: error.to_string() })?;
        for (taken, path) in entries.into_iter().filter(|path| is_considered(path)).enumerate() {
            if taken == files_max {
                self.refuse(path, format!("the folder holds more than {files_max} plugin files (limit plugin_files); remove some or raise the limit"));
                break;
            }
            self.entry(path);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf) {
        if path.is_dir() {
            self.discovery.folders.push(path.clone());
        }
        match self.library_behind(&path) {
            Ok(Some(library)) => {
                if self.seen.insert(library.clone()) {
                    self.discovery.candidates.push(library);
                }
            }
            Ok(None) => {}
            Err(reason) => self.refuse(path, reason),
        }
    }

    /// The real library that an entry of the folder stands for; `None` when it stands for none.
    fn library_behind(&self, path: &Path) -> Result<Option<PathBuf>, String> {
        let real = self.resolve(path)?;
        let metadata = fs::metadata(&real).map_err(|error| format!("it cannot be looked at: {error}"))?;
        if metadata.is_dir() {
            return self.library_in(&real, &metadata);
        }
        let Some(suffix) = library_suffix(path) else { return Ok(None) };
        if suffix != OWN_SUFFIX {
            return Err(format!(
                "it is a .{suffix} file for another system, this one loads .{} files; build the plugin for this system",
                OWN_SUFFIX
            ));
        }
        self.check_file(&metadata)?;
        Ok(Some(real))
    }

    /// The library of a sub-folder; `None` when the sub-folder has no `plugin.toml` and so is not a plugin.
    fn library_in(&self, folder: &Path, metadata: &Metadata) -> Result<Option<PathBuf>, String> {
        if !folder.join(FOLDER_FILE).exists() {
            return Ok(None);
        }
        if let Some(risk) = tampering_risk(metadata, self.owner) {
            return Err(risk);
        }
        let wanted = self.read_folder_file(&folder.join(FOLDER_FILE))?.library;
        let libraries: Vec<PathBuf> = sorted_entries(folder)
            .map_err(|error| format!("it cannot be read: {error}"))?
            .into_iter()
            .filter(|path| !is_hidden(path) && library_suffix(path) == Some(OWN_SUFFIX))
            .filter(|path| wanted.is_none() || path.file_name().and_then(|name| name.to_str()) == wanted.as_deref())
            .collect();
        let [library] = libraries.as_slice() else {
            let expected = wanted.unwrap_or_else(|| format!("exactly one *.{}", OWN_SUFFIX));
            return Err(format!(
                "it has a {FOLDER_FILE} and {} fitting libraries, expected {expected}; name the file with `library = \"FILE\"` in its {FOLDER_FILE}",
                libraries.len()
            ));
        };
        let real = self.resolve(library)?;
        let metadata = fs::metadata(&real).map_err(|error| format!("{real:?} cannot be looked at: {error}"))?;
        self.check_file(&metadata)?;
        Ok(Some(real))
    }

    fn read_folder_file(&self, path: &Path) -> Result<FolderFile, String> {
        let real = self.resolve(path)?;
        let metadata =
            fs::metadata(&real).map_err(|error| format!("its {FOLDER_FILE} cannot be looked at: {error}"))?;
        self.check_file(&metadata).map_err(|reason| format!("its {FOLDER_FILE}: {reason}"))?;
        if metadata.len() > FOLDER_FILE_BYTES {
            return Err(format!(
                "its {FOLDER_FILE} is larger than {FOLDER_FILE_BYTES} bytes; it needs at most one line"
            ));
        }
        let text = fs::read_to_string(&real).map_err(|error| format!("its {FOLDER_FILE} cannot be read: {error}"))?;
        toml::from_str(&text).map_err(|error| {
            format!("its {FOLDER_FILE} is not understood: {}; it may hold `library = \"FILE\"`", error.message())
        })
    }

    /// Follows links, as long as they stay in the folder.
    fn resolve(&self, path: &Path) -> Result<PathBuf, String> {
        let real = fs::canonicalize(path).map_err(|error| format!("it cannot be resolved: {error}"))?;
        if real.starts_with(self.root) {
            return Ok(real);
        }
        Err(format!("it is a link to {real:?}, outside of the plugin folder; copy the file into the folder"))
    }

    fn check_file(&self, metadata: &Metadata) -> Result<(), String> {
        if !metadata.is_file() {
            return Err("it is not a regular file; copy the library itself into the folder".to_owned());
        }
        tampering_risk(metadata, self.owner).map_or(Ok(()), Err)
    }

    fn refuse(&mut self, path: PathBuf, reason: String) {
        self.discovery.refused.push(Refused { path, reason });
    }
}

fn sorted_entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Libraries of any system, and whatever could be a sub-folder. Temporary and hidden files are somebody's unfinished
/// copy; read-me files and the like are nobody's plugin.
fn is_considered(path: &Path) -> bool {
    !is_hidden(path) && (library_suffix(path).is_some() || path.is_dir())
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    name.is_empty() || name.starts_with('.') || name.ends_with('~') || name.starts_with(['#', '~'])
}

fn library_suffix(path: &Path) -> Option<&str> {
    let suffix = path.extension()?.to_str()?;
    LIBRARY_SUFFIXES.into_iter().find(|known| suffix.eq_ignore_ascii_case(known))
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("jackfield-discover-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Self(fs::canonicalize(path).unwrap())
        }

        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn scan(&self) -> Discovery {
            self.scan_with(&Limits::default())
        }

        fn scan_with(&self, limits: &Limits) -> Discovery {
            discover(std::slice::from_ref(&self.0), Some(fs::metadata(&self.0).unwrap().uid()), limits).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn own_name(stem: &str) -> String {
        format!("{stem}.{}", OWN_SUFFIX)
    }

    #[test]
    fn libraries_are_found_in_the_order_of_their_names() {
        let folder = Folder::new("order");
        let second = folder.file(&own_name("b"), 0o644);
        let first = folder.file(&own_name("a"), 0o755);
        folder.file("README.md", 0o644);
        folder.file(&own_name(".hidden"), 0o644);
        folder.file(&format!("{}.tmp", own_name("c")), 0o644);
        let folders = vec![folder.0.clone()];
        assert_eq!(folder.scan(), Discovery { candidates: vec![first, second], refused: vec![], folders });
    }

    #[test]
    fn a_sub_folder_counts_with_its_plugin_toml() {
        let folder = Folder::new("sub");
        let library = folder.file(&format!("clock/{}", own_name("clock")), 0o644);
        folder.file(&format!("other/{}", own_name("other")), 0o644);
        fs::write(folder.0.join("clock/plugin.toml"), "").unwrap();
        let folders = vec![folder.0.clone(), folder.0.join("clock"), folder.0.join("other")];
        assert_eq!(folder.scan(), Discovery { candidates: vec![library], refused: vec![], folders });
    }

    #[test]
    fn plugin_toml_names_one_of_several_libraries() {
        let folder = Folder::new("several");
        folder.file(&format!("p/{}", own_name("a")), 0o644);
        let wanted = folder.file(&format!("p/{}", own_name("b")), 0o644);
        fs::write(folder.0.join("p/plugin.toml"), "").unwrap();
        let refused = folder.scan().refused;
        assert!(refused[0].reason.contains("2 fitting libraries"), "{}", refused[0].reason);

        fs::write(folder.0.join("p/plugin.toml"), format!("library = \"{}\"", own_name("b"))).unwrap();
        assert_eq!(folder.scan().candidates, [wanted]);

        fs::write(folder.0.join("p/plugin.toml"), "libary = 1").unwrap();
        assert!(folder.scan().refused[0].reason.contains("not understood"));
    }

    #[test]
    fn files_others_may_change_are_refused() {
        let folder = Folder::new("writable");
        folder.file(&own_name("a"), 0o666);
        let refused = folder.scan().refused;
        assert!(refused[0].reason.contains("chmod o-w"), "{}", refused[0].reason);

        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
        let error = discover(std::slice::from_ref(&folder.0), None, &Limits::default()).unwrap_err();
        assert!(matches!(error, FolderError::Unsafe { .. }), "{error}");
    }

    #[test]
    fn root_takes_only_files_of_root() {
        let folder = Folder::new("owner");
        let path = folder.file(&own_name("a"), 0o644);
        let metadata = fs::metadata(&path).unwrap();
        let risk = tampering_risk(&metadata, Some(0));
        assert_eq!(risk.is_some(), metadata.uid() != 0);
        assert_eq!(tampering_risk(&metadata, Some(1234)), None);
    }

    #[test]
    fn links_stay_inside_the_folder() {
        let folder = Folder::new("links");
        let outside = Folder::new("links-outside");
        let target = folder.file(&own_name("a"), 0o644);
        symlink(&target, folder.0.join(own_name("b"))).unwrap();
        symlink(outside.file(&own_name("x"), 0o644), folder.0.join(own_name("c"))).unwrap();
        symlink("/nowhere/at/all", folder.0.join(own_name("d"))).unwrap();
        let discovery = folder.scan();
        assert_eq!(discovery.candidates, [target]);
        assert_eq!(discovery.refused.len(), 2);
        assert!(discovery.refused[0].reason.contains("outside of the plugin folder"));
    }

    #[test]
    fn files_of_other_systems_are_reported() {
        let folder = Folder::new("system");
        let foreign = if cfg!(windows) { "a.so" } else { "a.dll" };
        folder.file(foreign, 0o644);
        assert!(folder.scan().refused[0].reason.contains("another system"));
    }

    #[test]
    fn a_folder_of_too_many_files_is_cut_and_said() {
        let folder = Folder::new("many");
        for name in ["a", "b", "c"] {
            folder.file(&own_name(name), 0o644);
        }
        let limits = Limits { plugin_files: 2, ..Limits::default() };
        let discovery = folder.scan_with(&limits);
        assert_eq!(discovery.candidates.len(), 2);
        assert!(discovery.refused[0].reason.contains("plugin_files"));
    }

    #[test]
    fn a_missing_folder_or_a_file_is_an_error() {
        let folder = Folder::new("missing");
        let missing = folder.0.join("nothing");
        let error = discover(std::slice::from_ref(&missing), None, &Limits::default()).unwrap_err();
        assert_eq!(error, FolderError::Missing(missing));
        let file = folder.file("file", 0o644);
        let error = discover(std::slice::from_ref(&file), None, &Limits::default()).unwrap_err();
        assert_eq!(error, FolderError::NotAFolder(file));
    }
}
