//! The check between finding a plugin's symbol and calling anything behind it.
//!
//! 1. The symbol points to a header that `abi_stable` of this generation made.
//! 2. Host and plugin speak the same major version of this crate.
//! 3. Every type that crosses is compared, field by field. `abi_stable` compares one way only: the plugin must have
//!    all that the host knows. So a newer host would refuse every older plugin. The comparison is therefore made both
//!    ways, and one of them must hold: this interface only grows at its end, hence one side is always a beginning of
//!    the other. What the shorter side lacks is seen at run time, where the default body runs instead.
//! 4. Only then the module is taken.

use std::fmt;

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{AbiInstability, AbiInstabilityErrors, check_layout_compatibility},
    library::{AbiHeader, AbiHeaderRef, LibraryError, RootModule},
};

use crate::PluginRef;

/// A plugin whose types fit.
#[derive(Clone, Copy)]
pub struct CheckedModule {
    /// The plugin's functions.
    pub module: PluginRef,
    /// How the two sides relate.
    pub age: PluginAge,
}

impl fmt::Debug for CheckedModule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CheckedModule").field("age", &self.age).finish_non_exhaustive()
    }
}

/// Whether the plugin knows more or less of the interface than this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginAge {
    /// It has everything this host knows, or more.
    SameOrNewer,
    /// It was built against an older interface; what it lacks has default bodies.
    Older,
}

/// Why a library cannot be used. The text is one line; [`LoadError::details`] has the long one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The symbol does not lead to a header, or to one of another `abi_stable`.
    NotAHeader,
    /// The compilers disagree about how C functions are called.
    CallingConvention,
    /// Another major version of this interface.
    Version {
        /// What the plugin speaks.
        plugin: String,
        /// What this host speaks.
        host: String,
    },
    /// The plugin was built without the description of its types.
    NoLayout,
    /// A type that crosses differs.
    Layout {
        /// The first difference, in one line.
        difference: String,
        /// Everything, hundreds of lines.
        details: String,
    },
    /// The plugin did not give its module.
    Module(String),
}

impl LoadError {
    /// The long text for a debugging log, if there is one.
    pub fn details(&self) -> Option<&str> {
        match self {
            LoadError::Layout { details, .. } => Some(details),
            _ => None,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NotAHeader => formatter.write_str(
                "its exported symbol is not a plugin header that this host can read; rebuild the plugin with a current plugin-api",
            ),
            LoadError::CallingConvention => formatter.write_str(
                "it was built with a compiler whose C calling convention differs; rebuild it for this machine's target",
            ),
            LoadError::Version { plugin, host } => write!(
                formatter,
                "it speaks plugin interface {plugin}, this host speaks {host}; rebuild it against plugin interface {host}"
            ),
            LoadError::NoLayout => formatter.write_str(
                "it does not describe its types, so they cannot be checked; export it with export_plugin!",
            ),
            LoadError::Layout { difference, .. } => write!(
                formatter,
                "its types differ from this host's ({difference}); rebuild it against an unmodified plugin-api"
            ),
            LoadError::Module(reason) => write!(formatter, "it did not give its functions: {reason}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Checks what a loader found under [`LOADER_SYMBOL`](crate::LOADER_SYMBOL), and gives the plugin's functions.
///
/// Runs code of the library (it describes its types), so the library must have been verified before.
///
/// # Errors
///
/// When the library is not a plugin, or not one that fits this host.
///
/// # Safety
///
/// `symbol` must be the address of that symbol in a library that stays mapped until the process ends.
pub unsafe fn check_plugin(symbol: *const ()) -> Result<CheckedModule, LoadError> {
    if symbol.is_null() || !symbol.cast::<AbiHeader>().is_aligned() {
        return Err(LoadError::NotAHeader);
    }
    // SAFETY: the caller promises a mapped symbol for ever. `AbiHeaderRef` is a transparent wrapper of a reference to
    // the header; nothing but the header's plain numbers is read before `upgrade` has compared its magic text.
    let header = unsafe { std::mem::transmute::<&'static AbiHeader, AbiHeaderRef>(&*symbol.cast::<AbiHeader>()) };
    let library = header.upgrade().map_err(short)?;
    let plugin_layout = library.layout().ok_or(LoadError::NoLayout)?;
    check_major(library.version_strings().version.as_str())?;

    let host_layout = <PluginRef as StableAbi>::LAYOUT;
    let age = match check_layout_compatibility(host_layout, plugin_layout) {
        Ok(()) => PluginAge::SameOrNewer,
        Err(forward) => match check_layout_compatibility(plugin_layout, host_layout) {
            Ok(()) => PluginAge::Older,
            // Of the two lists of differences the one that says less about plain growth is the real one.
            Err(backward) => return Err(layout_error(&forward, &backward)),
        },
    };
    // SAFETY: one of the two comparisons held, so the module's fields are those of `PluginRef` up to the shorter one's
    // end, and `PluginRef` looks at the plugin's own count before it uses a field behind the prefix.
    let module = unsafe { library.init_root_module_with_unchecked_layout::<PluginRef>() }.map_err(short)?;
    Ok(CheckedModule { module, age })
}

/// Refuses another major version with a text of its own, before types are compared.
fn check_major(plugin: &str) -> Result<(), LoadError> {
    fn major(version: &str) -> Option<&str> {
        version.split('.').next()
    }
    let host = PluginRef::VERSION_STRINGS.version.as_str();
    if major(plugin) == major(host) {
        return Ok(());
    }
    Err(LoadError::Version { plugin: plugin.to_owned(), host: host.to_owned() })
}

fn short(error: LibraryError) -> LoadError {
    match error {
        LibraryError::InvalidAbiHeader(_) => LoadError::NotAHeader,
        LibraryError::InvalidCAbi { .. } => LoadError::CallingConvention,
        LibraryError::IncompatibleVersionNumber { expected_version, actual_version, .. } => {
            LoadError::Version { plugin: actual_version.to_string(), host: expected_version.to_string() }
        }
        other => LoadError::Module(first_line(&other.to_string())),
    }
}

fn layout_error(forward: &AbiInstabilityErrors, backward: &AbiInstabilityErrors) -> LoadError {
    let only_growth = |errors: &AbiInstabilityErrors| {
        errors
            .errors
            .iter()
            .flat_map(|error| &error.errs)
            .all(|error| matches!(error, AbiInstability::FieldCountMismatch(_)))
    };
    let telling = if only_growth(forward) { backward } else { forward };
    LoadError::Layout { difference: first_difference(telling), details: telling.to_string() }
}

/// The first difference in one line: where it is and what kind it is.
fn first_difference(errors: &AbiInstabilityErrors) -> String {
    let Some(error) = errors.errors.iter().find(|error| !error.errs.is_empty()) else {
        return "no particular difference was named".to_owned();
    };
    let place = match error.stack_trace.last() {
        Some(pair) => format!("in {}: ", first_line(&pair.expected.to_string())),
        None => String::new(),
    };
    format!("{place}{}", error.errs.first().map_or_else(String::new, describe))
}

fn describe(difference: &AbiInstability) -> String {
    match difference {
        AbiInstability::FieldCountMismatch(counts) => {
            format!("expected at most {} fields, found {}", counts.expected, counts.found)
        }
        AbiInstability::Size(sizes) => format!("expected {} bytes, found {}", sizes.expected, sizes.found),
        AbiInstability::Alignment(sizes) => format!("expected alignment {}, found {}", sizes.expected, sizes.found),
        AbiInstability::Name(names) => format!("expected type {}, found {}", names.expected, names.found),
        AbiInstability::Package(names) => format!("expected package {}, found {}", names.expected, names.found),
        AbiInstability::PackageVersion(versions) => {
            format!("expected version {}, found {}", versions.expected, versions.found)
        }
        AbiInstability::UnexpectedField(fields) => format!(
            "expected field {}, found {}",
            first_line(&fields.expected.to_string()),
            first_line(&fields.found.to_string())
        ),
        AbiInstability::TooManyVariants(counts) => {
            format!("expected at most {} variants, found {}", counts.expected, counts.found)
        }
        AbiInstability::UnexpectedVariant(names) => {
            format!("expected variant {}, found {}", names.expected, names.found)
        }
        other => {
            let text = format!("{other:?}");
            text.split(['(', '{']).next().unwrap_or_default().trim().to_owned()
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{AbiError, AbiFuture, CreateReply, HostObj, LibHeader, PluginEntry, RErr, RStr, kind, plugin_header};

    struct Refusing;

    impl PluginEntry for Refusing {
        extern "C" fn manifest() -> RStr<'static> {
            RStr::from_str("{}")
        }
        extern "C" fn create(_: HostObj, _: RStr<'_>) -> AbiFuture<CreateReply> {
            AbiFuture::ready(RErr(AbiError::new(kind::UNAVAILABLE, "never")))
        }
    }

    static HEADER: LibHeader = plugin_header::<Refusing>();

    #[test]
    fn a_plugin_of_this_very_build_passes() {
        // SAFETY: a static of this program stays mapped.
        let checked = unsafe { check_plugin((&raw const HEADER).cast()) }.unwrap();
        assert_eq!(checked.age, PluginAge::SameOrNewer);
        assert_eq!(checked.module.manifest()().as_str(), "{}");
    }

    #[test]
    fn something_else_under_the_symbol_is_refused() {
        static ZEROS: [u64; 64] = [0; 64];
        // SAFETY: a static of this program stays mapped, and is larger than a header.
        let error = unsafe { check_plugin(ZEROS.as_ptr().cast()) }.unwrap_err();
        assert_eq!(error, LoadError::NotAHeader);
        // SAFETY: null is refused before anything is read.
        assert_eq!(unsafe { check_plugin(std::ptr::null()) }.unwrap_err(), LoadError::NotAHeader);
    }

    #[test]
    fn another_major_version_is_named_with_the_way_out() {
        let error = check_major("2.3.0").unwrap_err();
        assert!(error.to_string().starts_with("it speaks plugin interface 2.3.0, this host speaks 1."), "{error}");
        assert!(check_major("1.99.0").is_ok());
    }
}
