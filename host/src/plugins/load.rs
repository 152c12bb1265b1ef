//! Opens a library and checks its types: the only `unsafe` of the host.
//!
//! 1. The file is a private copy of bytes that `verify` passed, so opening it maps a whole library of this system.
//! 2. It is opened with all symbols resolved (a missing one is an error here and not an exit at the first call), its
//!    symbols are kept to itself, and it is never closed: nothing it ever handed out can dangle.
//! 3. One symbol is read, and the interface checks both ways that its types are those of this host.
//!
//! From step 2 on, code of the plugin runs. Therefore this is called on the plugin's own threads only.

use std::error::Error;

use jackfield_plugin_abi::{CheckedModule, LOADER_SYMBOL, LoadError, check_plugin};

use super::{manifest::GlibcVersion, private::PrivateCopy};

/// Why a verified library could not be opened. The text leaves the file's name to whoever reports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    /// The dynamic linker refused.
    #[error("the system cannot open it: {0}; build it for this system, with all libraries it needs installed")]
    Linker(String),
    /// It does not export what every plugin exports.
    #[error("it does not export {LOADER_SYMBOL}; build it as a cdylib that calls export_plugin!")]
    NoSymbol,
    /// Its types are not those of this host.
    #[error("{0}")]
    Interface(LoadError),
}

/// Opens the copy for good.
///
/// # Errors
///
/// See [`OpenError`].
pub(super) fn open(copy: &PrivateCopy) -> Result<CheckedModule, OpenError> {
    let library = open_library(copy)?;
    // SAFETY: the symbol is only taken as an address; `check_plugin` decides what is behind it.
    let address: *const () = match unsafe { library.get::<*const ()>(LOADER_SYMBOL) } {
        Ok(symbol) => *symbol,
        Err(_) => return Err(OpenError::NoSymbol),
    };
    // SAFETY: the address is that of the symbol, and `open_library` never closes what it opened.
    unsafe { check_plugin(address) }.map_err(|error| {
        if let Some(details) = error.details() {
            tracing::debug!(path = %copy.path.display(), details, "the plugin's types differ from the host's");
        }
        OpenError::Interface(error)
    })
}

/// The version of the C library this process runs on, where it is the GNU one.
pub(super) fn host_glibc() -> Option<GlibcVersion> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::{CStr, c_char};

        let process = libloading::os::unix::Library::this();
        // SAFETY: glibc documents this function with exactly this signature, and it is only looked up by its name.
        let version = unsafe { process.get::<unsafe extern "C" fn() -> *const c_char>("gnu_get_libc_version") }.ok()?;
        // SAFETY: it takes nothing and returns a constant, terminated text that lives as long as the process.
        let text = unsafe { CStr::from_ptr(version()) };
        GlibcVersion::parse(text.to_str().ok()?)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

#[cfg(unix)]
fn open_library(copy: &PrivateCopy) -> Result<&'static libloading::os::unix::Library, OpenError> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

    /// Keeps the mapping even when somebody else closes the library.
    #[cfg(target_os = "linux")]
    const NO_DELETE: std::ffi::c_int = 0x1000;
    #[cfg(target_vendor = "apple")]
    const NO_DELETE: std::ffi::c_int = 0x80;
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    const NO_DELETE: std::ffi::c_int = 0;

    // SAFETY: the library's initialisers run here. The operator put the file into the plugin folder and so decided to
    // run its code in this process; the bytes are those that were verified, in a folder nobody else can write to.
    let library = unsafe { Library::open(Some(&copy.path), RTLD_NOW | RTLD_LOCAL | NO_DELETE) };
    library.map(|library| &*Box::leak(Box::new(library))).map_err(|error| OpenError::Linker(chain(&error)))
}

#[cfg(windows)]
fn open_library(copy: &PrivateCopy) -> Result<&'static libloading::os::windows::Library, OpenError> {
    use libloading::os::windows::Library;

    // SAFETY: as on Unix.
    let library = unsafe { Library::new(&copy.path) };
    library.map(|library| &*Box::leak(Box::new(library))).map_err(|error| OpenError::Linker(chain(&error)))
}

/// The linker's own words are in the source of the error.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
