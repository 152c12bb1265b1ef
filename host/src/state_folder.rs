//! Files that outlive the process or speak of it: private to their owner, and replaced whole, so that nobody reads half
//! of one.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Writes the file `name` of the folder anew, readable by its owner only; the folder is made when it is not there.
///
/// # Errors
///
/// When the folder or the file cannot be written; an old file then stays as it is.
pub(crate) fn replace_file(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    private_folder(folder)?;
    // Written beside and then moved.
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    write_private(&fresh, bytes)?;
    fs::rename(&fresh, folder.join(name))
}

/// Reads the file `name` of the folder; `None` when there is none.
///
/// # Errors
///
/// When it cannot be read, or is longer than `bytes_max` and so not ours.
pub(crate) fn read_file(folder: &Path, name: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(metadata) if metadata.len() > bytes_max => {
            Err(io::Error::other(format!("it has more than {bytes_max} bytes, so it is none of ours")))
        }
        Ok(_) => fs::read(path).map(Some),
    }
}

/// Keeps other processes from changing the folder's files until the lock is dropped. Blocks.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct FolderLock {
    _file: fs::File,
}

impl FolderLock {
    /// Waits for whoever holds it; each of our processes holds it for a few file operations.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        private_folder(folder)?;
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        #[cfg(unix)]
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(Self { _file: file })
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Made anew, because an existing file would keep its own permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
