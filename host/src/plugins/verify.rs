//! Whether a plugin file may be loaded into this process, decided from what was read of it and before any of its code
//! runs. Pure: it asks neither the disk nor the clock.

use super::manifest::{Binary, GlibcVersion, Manifest};
use crate::config::Isolation;

/// What this process is, as far as a plugin has to fit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Version of the binary interface that this host speaks.
    pub(super) abi: (u32, u32),
    /// The target this host was built for, as manifests name it.
    pub(super) target: &'static str,
    /// File format of this system's libraries.
    pub(super) format: &'static str,
    /// Processor of this host.
    pub(super) machine: &'static str,
    /// The C library of this process, where it is the GNU one.
    pub(super) glibc: Option<GlibcVersion>,
}

/// Why a plugin is refused. The text leaves the file's name to whoever reports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Another processor or system.
    #[error("it is built for {found}, this host needs {expected}; build the plugin for this target")]
    Target {
        /// What the file is for.
        found: String,
        /// What it would have to be for.
        expected: String,
    },
    /// An id that cannot stand in configuration and file names.
    #[error(
        "its id {0:?} is not valid, expected 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit; change `id` in its export_plugin!"
    )]
    Id(String),
    /// A version text that says nothing.
    #[error(
        "its abi version {0:?} is not understood, expected numbers like 1.0.0; build it again with a current plugin-api"
    )]
    AbiText(String),
    /// An interface this host does not speak.
    #[error("it speaks plugin abi {found}, this host speaks {major}.{minor} and takes any {major}.x; {remedy}")]
    Abi {
        /// What the plugin speaks.
        found: String,
        /// What the host speaks.
        major: u32,
        /// What the host speaks.
        minor: u32,
        /// What to do.
        remedy: &'static str,
    },
    /// A panic would end the server.
    #[error(
        "it is built with panic = {0:?}, expected \"unwind\" because its panics would end the server; remove `panic = \"abort\"` from its Cargo profile and build it again, or run it isolated"
    )]
    Panic(String),
    /// Its author does not want it in anybody's process.
    #[error(
        "its author says that it must run isolated (isolated_only), and it is to run in this process; set `isolation = \"process\"` for it"
    )]
    IsolatedOnly,
    /// A compiler known to build broken vtables.
    #[error(
        "it is built with rustc {0}, which builds broken vtables; build it again with 1.98.1 or later, or with 1.97"
    )]
    Compiler(String),
    /// A newer C library than ours.
    #[error(
        "it needs glibc {found}, this system has {have}; build it on an older system or with `cargo zigbuild --target TARGET.{have}`"
    )]
    Glibc {
        /// What the file asks for.
        found: GlibcVersion,
        /// What this process runs on.
        have: GlibcVersion,
    },
}

/// Checks everything that headers and manifest can tell.
///
/// # Errors
///
/// The first [`Refusal`] met.
pub(super) fn verify(
    binary: &Binary,
    manifest: &Manifest,
    isolation: Isolation,
    host: &HostFacts,
) -> Result<(), Refusal> {
    check_binary(binary, host)?;
    check_id(&manifest.id)?;
    check_abi(&manifest.abi, host)?;
    check_target(manifest, host)?;
    if isolation == Isolation::InProcess {
        check_panic(manifest)?;
    }
    check_compiler(manifest)?;
    check_glibc(binary, host)
}

/// The form of plugin ids: `[a-z0-9][a-z0-9_-]{0,63}`.
pub fn is_plugin_id(id: &str) -> bool {
    let begins = id.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    begins && id.len() <= 64 && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// The first two numbers of `1.0.0`.
pub(super) fn version_numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn check_binary(binary: &Binary, host: &HostFacts) -> Result<(), Refusal> {
    if binary.format == host.format && binary.machine == host.machine {
        return Ok(());
    }
    Err(Refusal::Target {
        found: format!("{} ({})", binary.machine, binary.format),
        expected: format!("{} ({})", host.machine, host.format),
    })
}

fn check_id(id: &str) -> Result<(), Refusal> {
    if is_plugin_id(id) { Ok(()) } else { Err(Refusal::Id(shortened(id))) }
}

fn check_abi(abi: &str, host: &HostFacts) -> Result<(), Refusal> {
    let Some((major, _minor)) = version_numbers(abi) else { return Err(Refusal::AbiText(shortened(abi))) };
    if major == host.abi.0 {
        // A minor step only ever appends, and the layout check at loading knows both directions.
        return Ok(());
    }
    Err(Refusal::Abi {
        found: shortened(abi),
        major: host.abi.0,
        minor: host.abi.1,
        remedy: if major > host.abi.0 {
            "use a newer host, or build the plugin against the plugin-api of this host"
        } else {
            "build the plugin against a current plugin-api"
        },
    })
}

fn check_target(manifest: &Manifest, host: &HostFacts) -> Result<(), Refusal> {
    match &manifest.target {
        Some(target) if target != host.target => {
            Err(Refusal::Target { found: shortened(target), expected: host.target.to_owned() })
        }
        _ => Ok(()),
    }
}

fn check_panic(manifest: &Manifest) -> Result<(), Refusal> {
    if manifest.isolated_only {
        return Err(Refusal::IsolatedOnly);
    }
    match manifest.panic.as_deref() {
        Some("unwind") => Ok(()),
        other => Err(Refusal::Panic(shortened(other.unwrap_or("")))),
    }
}

/// rustc 1.98.0 gives wrong vtables to some generic traits; 1.98.1 does not.
fn check_compiler(manifest: &Manifest) -> Result<(), Refusal> {
    let Some(rustc) = &manifest.rustc else { return Ok(()) };
    match rustc.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit())) {
        Some("1.98.0") => Err(Refusal::Compiler(shortened(rustc))),
        _ => Ok(()),
    }
}

fn check_glibc(binary: &Binary, host: &HostFacts) -> Result<(), Refusal> {
    match (binary.glibc, host.glibc) {
        (Some(found), Some(have)) if found > have => Err(Refusal::Glibc { found, have }),
        _ => Ok(()),
    }
}

/// Text of a stranger, short enough for a log line.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOST: HostFacts = HostFacts {
        abi: (1, 2),
        target: "x86_64-unknown-linux-gnu",
        format: "elf",
        machine: "x86_64",
        glibc: Some(GlibcVersion { major: 2, minor: 36 }),
    };

    fn binary() -> Binary {
        Binary { format: "elf", machine: "x86_64".to_owned(), glibc: GlibcVersion::parse("2.34") }
    }

    fn manifest() -> Manifest {
        Manifest {
            id: "clock".to_owned(),
            version: "0.1.0".to_owned(),
            abi: "1.0.0".to_owned(),
            rustc: Some("rustc 1.95.0 (59807616e 2026-04-14)".to_owned()),
            target: Some(HOST.target.to_owned()),
            panic: Some("unwind".to_owned()),
            ..Manifest::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut Binary, &mut Manifest)) -> String {
        let (mut binary, mut manifest) = (binary(), manifest());
        change(&mut binary, &mut manifest);
        verify(&binary, &manifest, Isolation::InProcess, &HOST).unwrap_err().to_string()
    }

    #[test]
    fn a_fitting_plugin_passes_whatever_its_minor_version() {
        for abi in ["1.0.0", "1.2.0", "1.9.3", "1.3"] {
            let manifest = Manifest { abi: abi.to_owned(), ..manifest() };
            assert_eq!(verify(&binary(), &manifest, Isolation::InProcess, &HOST), Ok(()));
        }
    }

    #[test]
    fn each_misfit_says_found_expected_and_remedy() {
        let cases: [(String, [&str; 3]); 11] = [
            (refusal(|binary, _| binary.machine = "aarch64".to_owned()), ["aarch64", "x86_64", "build the plugin"]),
            (refusal(|binary, _| binary.format = "pe"), ["(pe)", "(elf)", "build the plugin"]),
            (refusal(|_, manifest| manifest.id = "Clock".to_owned()), ["\"Clock\"", "a-z", "change `id`"]),
            (refusal(|_, manifest| manifest.abi = "2.0.0".to_owned()), ["2.0.0", "1.2", "newer host"]),
            (refusal(|_, manifest| manifest.abi = "0.9.0".to_owned()), ["0.9.0", "1.2", "current plugin-api"]),
            (refusal(|_, manifest| manifest.abi = "new".to_owned()), ["\"new\"", "1.0.0", "build it again"]),
            (refusal(|_, manifest| manifest.panic = Some("abort".to_owned())), ["abort", "unwind", "remove"]),
            (
                refusal(|_, manifest| manifest.rustc = Some("rustc 1.98.0 (x)".to_owned())),
                ["1.98.0", "1.98.1", "again"],
            ),
            (
                refusal(|_, manifest| manifest.target = Some("x86_64-pc-windows-msvc".to_owned())),
                ["windows", "linux", "build"],
            ),
            (refusal(|_, manifest| manifest.isolated_only = true), ["isolated_only", "this process", "isolation ="]),
            (refusal(|binary, _| binary.glibc = GlibcVersion::parse("2.41")), ["2.41", "2.36", "older system"]),
        ];
        for (text, parts) in cases {
            for part in parts {
                assert!(text.contains(part), "{part:?} is missing in: {text}");
            }
        }
    }

    #[test]
    fn what_could_end_the_server_may_run_in_a_process_of_its_own() {
        let manifest = Manifest { panic: Some("abort".to_owned()), isolated_only: true, ..manifest() };
        assert_eq!(verify(&binary(), &manifest, Isolation::Process, &HOST), Ok(()));
        assert_eq!(verify(&binary(), &manifest, Isolation::InProcess, &HOST), Err(Refusal::IsolatedOnly));
    }

    #[test]
    fn a_plugin_that_does_not_say_how_it_panics_is_refused() {
        assert!(refusal(|_, manifest| manifest.panic = None).contains("unwind"));
    }

    #[test]
    fn ids_are_short_and_plain() {
        for good in ["a", "0", "web-search_2", &"x".repeat(64)] {
            assert!(is_plugin_id(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a.b", "a/b", "ä", " a", &"x".repeat(65)] {
            assert!(!is_plugin_id(bad), "{bad}");
        }
    }
}
