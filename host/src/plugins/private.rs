//! Private copies of plugin files. What was read and checked is written to a folder that only this user can enter,
//! under the hash of its content, and that copy is loaded: replacing or cutting the file in the plugin folder can
//! then neither crash a running server nor slip past the checks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::manifest::PluginBytes;

/// A folder of one [`Plugins`](super::Plugins), removed with it. Libraries that are loaded stay mapped.
///
/// Two servers in one process get two folders, so that the same plugin file is two libraries with a state of their
/// own.
pub(super) struct PrivateFolder {
    path: PathBuf,
    /// Its lock says that the folder is in use; without it the folder is left from a process that died.
    _lock: File,
    /// The user this process runs as.
    owner: Option<u32>,
    /// Numbers the copies: each load of a plugin is a library of its own, with statics of its own, and the dynamic
    /// linker takes one file for one library.
    copies: AtomicU64,
    /// Whether libraries can be loaded from the folder's file system.
    executable: bool,
}

/// Where a private copy can be opened from. A file of it is removed with the last handle; what is mapped stays.
#[derive(Clone, Debug)]
pub(super) struct PrivateCopy {
    pub(super) path: PathBuf,
    _file: Arc<RemovedOnDrop>,
}

#[cfg(unix)]
impl PrivateCopy {
    /// A copy that belongs to the host of this process, which removes it.
    pub(super) fn of_host(path: PathBuf) -> Self {
        Self { path, _file: Arc::new(RemovedOnDrop(None)) }
    }
}

#[derive(Debug)]
struct RemovedOnDrop(Option<PathBuf>);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "a private copy was not removed");
        }
    }
}

/// Why there is no private copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the private plugin folder {folder:?} cannot be used: {reason}; name another one with plugins.private_folder")]
pub struct PrivateFolderError {
    /// The folder, or where it should have been.
    pub folder: PathBuf,
    /// What the system said.
    pub reason: String,
}

const PREFIX: &str = "jackfield-plugins-";
const LOCK_FILE: &str = "in-use.lock";
/// Folders of dead processes that are removed at one start; the rest wait for the next.
const SWEEP_MAX: usize = 64;

impl PrivateFolder {
    /// Makes a fresh folder under `base` and removes those that dead processes left there.
    pub(super) fn create(base: &Path, id: Uuid) -> Result<Self, PrivateFolderError> {
        let path = base.join(format!("{PREFIX}{id}"));
        let create = || -> io::Result<Self> {
            fs::create_dir_all(base)?;
            sweep(base);
            make_folder(&path)?;
            let lock = File::create(path.join(LOCK_FILE))?;
            lock_exclusively(&lock)?;
            let (owner, executable) = (owner_of(&path)?, is_executable(&path));
            Ok(Self { path: path.clone(), _lock: lock, owner, copies: AtomicU64::new(0), executable })
        };
        create().map_err(|error| PrivateFolderError { folder: path.clone(), reason: error.to_string() })
    }

    /// The user this process runs as, where the system has such a number.
    pub(super) fn owner(&self) -> Option<u32> {
        self.owner
    }

    /// Puts the bytes where the dynamic linker can open them and nobody else can change them.
    pub(super) fn copy(&self, plugin: &PluginBytes) -> Result<PrivateCopy, PrivateFolderError> {
        let copy = if self.executable { self.copy_to_file(plugin) } else { copy_to_memory(plugin) };
        copy.map_err(|error| PrivateFolderError { folder: self.path.clone(), reason: error.to_string() })
    }

    fn copy_to_file(&self, plugin: &PluginBytes) -> io::Result<PrivateCopy> {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{}-{number}.{}", plugin.sha256, super::discover::OWN_SUFFIX));
        let mut file = new_file(&path)?;
        let copy = PrivateCopy { path: path.clone(), _file: Arc::new(RemovedOnDrop(Some(path))) };
        file.write_all(&plugin.bytes)?;
        Ok(copy)
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(folder = %self.path.display(), %error, "the private plugin folder was not removed");
        }
    }
}

/// Removes what dead processes left. Anything unexpected is left alone: this is tidiness, not correctness.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let left = entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for entry in left.take(SWEEP_MAX) {
        let is_dead = File::open(entry.path().join(LOCK_FILE)).is_ok_and(|lock| lock_exclusively(&lock).is_ok());
        if is_dead {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(unix)]
fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

#[cfg(unix)]
fn new_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create_new(true).mode(0o500).open(path)
}

#[cfg(not(unix))]
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn lock_exclusively(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
}

#[cfg(not(unix))]
fn lock_exclusively(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn owner_of(path: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt;
    Ok(Some(fs::metadata(path)?.uid()))
}

#[cfg(not(unix))]
fn owner_of(_: &Path) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(target_os = "linux")]
fn is_executable(path: &Path) -> bool {
    let flags = rustix::fs::statvfs(path).map(|stat| stat.f_flag);
    !flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

#[cfg(not(target_os = "linux"))]
fn is_executable(_: &Path) -> bool {
    true
}

/// Where the file system forbids execution, an anonymous sealed file does: its pages are not shared and no child can
/// open it, so it is the second choice.
#[cfg(target_os = "linux")]
fn copy_to_memory(plugin: &PluginBytes) -> io::Result<PrivateCopy> {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use rustix::fs::{MemfdFlags, SealFlags};

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know EXEC and allow execution anyway.
    let memory = rustix::fs::memfd_create("jackfield-plugin", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("jackfield-plugin", flags))?;
    let mut file = File::from(memory);
    file.write_all(&plugin.bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    // The descriptor stays open for good: the dynamic linker tells libraries apart by name, so a number that is
    // closed and used again would give it the earlier library.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    let _open_for_good = file.into_raw_fd();
    Ok(PrivateCopy { path, _file: Arc::new(RemovedOnDrop(None)) })
}

#[cfg(not(target_os = "linux"))]
fn copy_to_memory(_: &PluginBytes) -> io::Result<PrivateCopy> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "its file system does not allow execution"))
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn base(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("jackfield-private-{}-{name}", std::process::id()))
    }

    #[test]
    fn copies_are_private_each_for_itself_and_removed_when_nobody_needs_them() {
        let base = base("copies");
        let folder = PrivateFolder::create(&base, Uuid::from_u128(1)).unwrap();
        let plugin = PluginBytes::new(b"library".to_vec());
        let (copy, other) = (folder.copy(&plugin).unwrap(), folder.copy(&plugin).unwrap());
        assert_ne!(other.path, copy.path);
        assert_eq!(fs::read(&copy.path).unwrap(), b"library");
        assert!(copy.path.file_name().unwrap().to_str().unwrap().starts_with(&plugin.sha256));
        assert_eq!(fs::metadata(&copy.path).unwrap().permissions().mode() & 0o777, 0o500);
        assert_eq!(fs::metadata(&folder.path).unwrap().permissions().mode() & 0o777, 0o700);
        let (path, held) = (copy.path.clone(), copy.clone());
        drop(copy);
        assert!(path.exists());
        drop(held);
        assert!(!path.exists() && other.path.exists());
        drop(folder);
        assert!(!other.path.exists());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn one_content_may_be_copied_many_times_at_once() {
        let base = base("at-once");
        let folder = PrivateFolder::create(&base, Uuid::from_u128(1)).unwrap();
        let plugin = PluginBytes::new(vec![7; 100_000]);
        std::thread::scope(|scope| {
            let copies: Vec<_> = (0..8).map(|_| scope.spawn(|| folder.copy(&plugin).unwrap())).collect();
            let copies: Vec<_> = copies.into_iter().map(|copy| copy.join().unwrap()).collect();
            assert!(copies.iter().all(|copy| fs::read(&copy.path).unwrap() == plugin.bytes));
        });
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 1, "the lock file is left");
        drop(folder);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn folders_of_dead_processes_are_swept_and_live_ones_stay() {
        let base = base("sweep");
        let live = PrivateFolder::create(&base, Uuid::from_u128(1)).unwrap();
        let dead = base.join(format!("{PREFIX}dead"));
        fs::create_dir_all(&dead).unwrap();
        File::create(dead.join(LOCK_FILE)).unwrap();
        let other = base.join("somebody-elses");
        fs::create_dir_all(&other).unwrap();
        let _second = PrivateFolder::create(&base, Uuid::from_u128(2)).unwrap();
        assert!(live.path.exists() && other.exists() && !dead.exists());
        drop((live, _second));
        fs::remove_dir_all(base).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_copy_in_memory_holds_the_bytes_and_cannot_be_changed() {
        let copy = copy_to_memory(&PluginBytes::new(b"library".to_vec())).unwrap();
        assert_eq!(fs::read(&copy.path).unwrap(), b"library");
        let written = OpenOptions::new().write(true).open(&copy.path).and_then(|mut file| file.write_all(b"x"));
        assert!(written.is_err());
    }
}
