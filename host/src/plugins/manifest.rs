//! What a plugin file says about itself. The file is read once into memory and its link section is parsed; nothing of
//! it runs, and whatever the bytes are, the worst outcome is an error.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read},
    path::Path,
};

use jackfield_plugin_abi::manifest as place;
use object::{
    Architecture, Endianness, Object, ObjectKind, ObjectSection, ObjectSegment,
    read::elf::{ElfFile, FileHeader, ProgramHeader},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::discover::tampering_risk;
use crate::config::Limits;

/// The whole content of one plugin file, with its hash. What is loaded later is exactly these bytes.
pub(super) struct PluginBytes {
    /// The content.
    pub(super) bytes: Vec<u8>,
    /// SHA-256 of the content, in lower-case hex.
    pub(super) sha256: String,
}

/// What the file is, as far as its headers tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binary {
    /// `elf`, `mach-o` or `pe`.
    pub format: &'static str,
    /// The processor it is for, as Rust calls it (`x86_64`, `aarch64`, …).
    pub machine: String,
    /// The newest C library it asks for; absent when it asks for no particular one.
    pub glibc: Option<GlibcVersion>,
}

/// A version of the GNU C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlibcVersion {
    /// The 2 of 2.34.
    pub major: u32,
    /// The 34 of 2.34.
    pub minor: u32,
}

/// What the author wrote into the plugin: the literals of `export_plugin!` and what the compiler knew.
///
/// Keys that this host does not know are ignored, and only the first three must be there, so that the manifest can
/// grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Names the plugin in configuration, logs and reports.
    pub id: String,
    /// The author's version of it.
    pub version: String,
    /// The version of the binary interface it was built against.
    pub abi: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Who wrote it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// SPDX expression.
    #[serde(default)]
    pub license: Option<String>,
    /// Where to read more.
    #[serde(default)]
    pub homepage: Option<String>,
    /// The tools it is about, with their effects. What it really offers is known only once it runs.
    #[serde(default)]
    pub tools: Vec<ManifestTool>,
    /// What it asks to be allowed when it runs isolated.
    #[serde(default)]
    pub permissions: Value,
    /// JSON Schema of its configuration.
    #[serde(default)]
    pub config_schema: Option<Value>,
    /// The compiler it was built with.
    #[serde(default)]
    pub rustc: Option<String>,
    /// The target it was built for.
    #[serde(default)]
    pub target: Option<String>,
    /// `unwind` or `abort`.
    #[serde(default)]
    pub panic: Option<String>,
    /// The author says that it must run in a process of its own.
    #[serde(default)]
    pub isolated_only: bool,
}

/// A tool as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestTool {
    /// Its name.
    pub name: String,
    /// Its declared effect; absent when it depends on the arguments or is not declared.
    #[serde(default)]
    pub effect: Option<String>,
}

/// Why a file is not a readable plugin. The text leaves the file's name to whoever reports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The system does not let us read it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is a link, a folder, a pipe or the like.
    #[error("it is {0}, expected a regular file; copy the library itself into the folder")]
    NotAFile(&'static str),
    /// Others may change it.
    #[error("it is not safe to load: {0}")]
    Unsafe(String),
    /// It is larger than the limit.
    #[error(
        "it has {found} bytes, the limit plugin_file_bytes is {max}; strip it (`strip = true` in the release profile) or raise the limit"
    )]
    TooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The headers are not those of a library.
    #[error(
        "it is not a dynamic library that this host understands ({0}); put the built library here, whole and not compressed"
    )]
    NotALibrary(String),
    /// The headers point past the end.
    #[error("it is cut off: {part} ends at byte {end} and the file at {len}; copy the file again")]
    Truncated {
        /// What points past the end.
        part: String,
        /// Where that ends.
        end: u64,
        /// Where the file ends.
        len: u64,
    },
    /// It is a library, but not a plugin.
    #[error(
        "it is a library without a plugin manifest (section {section}); build it as a cdylib that calls export_plugin!"
    )]
    NoManifest {
        /// The section that was looked for.
        section: &'static str,
    },
    /// There is a manifest that cannot be understood.
    #[error("its plugin manifest is damaged: {0}; build it again with a current plugin-api")]
    Damaged(String),
}

impl PluginBytes {
    /// Reads a file once. No link is followed and no pipe is waited for.
    ///
    /// # Errors
    ///
    /// See [`ManifestError`]; `owner` is as in [`discover`](super::discover::discover).
    pub(super) fn read(path: &Path, owner: Option<u32>, limits: &Limits) -> Result<Self, ManifestError> {
        let unreadable = |error: io::Error| ManifestError::Unreadable(error.to_string());
        let mut file = open_without_following(path)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(ManifestError::NotAFile(if metadata.is_dir() { "a folder" } else { "a device or a pipe" }));
        }
        if let Some(risk) = tampering_risk(&metadata, owner) {
            return Err(ManifestError::Unsafe(risk));
        }
        let max = limits.plugin_file_bytes;
        if metadata.len() > max {
            return Err(ManifestError::TooLarge { found: metadata.len(), max });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        // The file may grow while it is read; one byte past the limit is enough to know.
        file.by_ref().take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > max {
            return Err(ManifestError::TooLarge { found: bytes.len() as u64, max });
        }
        Ok(Self::new(bytes))
    }

    /// Takes bytes that are in memory already.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes, sha256 }
    }

    /// Reads headers and manifest.
    ///
    /// # Errors
    ///
    /// See [`ManifestError`].
    pub(super) fn parse(&self) -> Result<(Binary, Manifest), ManifestError> {
        parse(&self.bytes)
    }
}

impl fmt::Debug for PluginBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PluginBytes").field("len", &self.bytes.len()).field("sha256", &self.sha256).finish()
    }
}

impl GlibcVersion {
    /// Reads `2.34` or `2.2.5`; the third number is left out.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for GlibcVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A library asks for a few dozen symbol versions; more than this is damage made to keep us busy.
const SYMBOL_VERSIONS_MAX: usize = 65_536;

#[cfg(unix)]
fn open_without_following(path: &Path) -> Result<File, ManifestError> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(|error| {
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP) => ManifestError::NotAFile("a link"),
            _ => ManifestError::Unreadable(error.to_string()),
        }
    })
}

#[cfg(not(unix))]
fn open_without_following(path: &Path) -> Result<File, ManifestError> {
    OpenOptions::new().read(true).open(path).map_err(|error| ManifestError::Unreadable(error.to_string()))
}

fn parse(bytes: &[u8]) -> Result<(Binary, Manifest), ManifestError> {
    if bytes.is_empty() {
        return Err(ManifestError::NotALibrary("the file is empty".to_owned()));
    }
    let file = object::File::parse(bytes).map_err(not_a_library)?;
    if file.kind() != ObjectKind::Dynamic {
        return Err(ManifestError::NotALibrary(format!("its kind is {:?}, expected Dynamic", file.kind())));
    }
    let (format, section) = format_and_section(&file)?;
    check_bounds(&file, bytes.len() as u64)?;
    let binary = Binary { format, machine: machine_name(&file), glibc: glibc_needed(&file)? };
    let text = manifest_text(&file, section)?;
    let manifest = serde_json::from_str(text).map_err(|error| ManifestError::Damaged(error.to_string()))?;
    Ok((binary, manifest))
}

fn not_a_library(error: object::Error) -> ManifestError {
    ManifestError::NotALibrary(error.to_string())
}

/// The format's name, and where files of this format keep the manifest.
fn format_and_section(file: &object::File<'_>) -> Result<(&'static str, &'static str), ManifestError> {
    match file {
        object::File::Elf32(_) | object::File::Elf64(_) => Ok(("elf", place::SECTION_ELF)),
        object::File::MachO32(_) | object::File::MachO64(_) => Ok(("mach-o", place::SECTION_MACHO)),
        object::File::Pe32(_) | object::File::Pe64(_) => Ok(("pe", place::SECTION_PE)),
        _ => Err(ManifestError::NotALibrary(format!("its format is {:?}", file.format()))),
    }
}

/// The processor as Rust's target names begin; an unknown one as the parser calls it.
fn machine_name(file: &object::File<'_>) -> String {
    match file.architecture() {
        Architecture::X86_64 => "x86_64".to_owned(),
        Architecture::X86_64_X32 => "x86_64-x32".to_owned(),
        Architecture::I386 => "x86".to_owned(),
        Architecture::Aarch64 => "aarch64".to_owned(),
        Architecture::Arm => "arm".to_owned(),
        Architecture::Riscv64 => "riscv64".to_owned(),
        Architecture::PowerPc64 => "powerpc64".to_owned(),
        Architecture::S390x => "s390x".to_owned(),
        Architecture::LoongArch64 => "loongarch64".to_owned(),
        other => format!("{other:?}").to_ascii_lowercase(),
    }
}

/// A mapping that reaches past the end of the file is a SIGBUS in the dynamic linker, so it must not get there.
fn check_bounds(file: &object::File<'_>, len: u64) -> Result<(), ManifestError> {
    let within = |part: String, (offset, size): (u64, u64)| match offset.checked_add(size) {
        Some(end) if end <= len => Ok(()),
        end => Err(ManifestError::Truncated { part, end: end.unwrap_or(u64::MAX), len }),
    };
    match file {
        object::File::Elf32(elf) => check_program_headers(elf, within)?,
        object::File::Elf64(elf) => check_program_headers(elf, within)?,
        _ => {}
    }
    for (index, segment) in file.segments().enumerate() {
        within(format!("segment {index}"), segment.file_range())?;
    }
    for section in file.sections() {
        if let Some(range) = section.file_range() {
            within(format!("section {}", section.name().unwrap_or("?")), range)?;
        }
    }
    Ok(())
}

fn check_program_headers<'data, Elf: FileHeader<Endian = Endianness>>(
    elf: &ElfFile<'data, Elf>,
    within: impl Fn(String, (u64, u64)) -> Result<(), ManifestError>,
) -> Result<(), ManifestError> {
    for (index, header) in elf.elf_program_headers().iter().enumerate() {
        within(format!("program header {index}"), header.file_range(elf.endian()))?;
    }
    Ok(())
}

fn glibc_needed(file: &object::File<'_>) -> Result<Option<GlibcVersion>, ManifestError> {
    match file {
        object::File::Elf32(elf) => newest_glibc(elf),
        object::File::Elf64(elf) => newest_glibc(elf),
        _ => Ok(None),
    }
    .map_err(not_a_library)
}

/// The highest `GLIBC_x` among the symbol versions that the library asks for.
fn newest_glibc<'data, Elf: FileHeader<Endian = Endianness>>(
    elf: &ElfFile<'data, Elf>,
) -> object::Result<Option<GlibcVersion>> {
    let (endian, sections) = (elf.endian(), elf.elf_section_table());
    let Some((mut needs, strings)) = sections.gnu_verneed(endian, elf.data())? else { return Ok(None) };
    let strings = sections.strings(endian, elf.data(), strings)?;
    let mut newest = None;
    let mut left = SYMBOL_VERSIONS_MAX;
    while let Some((_, mut versions)) = needs.next()? {
        while let Some(version) = versions.next()? {
            left = match left.checked_sub(1) {
                Some(left) => left,
                None => return Ok(newest),
            };
            let name = std::str::from_utf8(version.name(endian, strings)?).unwrap_or("");
            newest = newest.max(name.strip_prefix("GLIBC_").and_then(GlibcVersion::parse));
        }
    }
    Ok(newest)
}

/// The text of the manifest's section, of which there must be exactly one.
fn manifest_text<'data>(file: &object::File<'data>, section: &'static str) -> Result<&'data str, ManifestError> {
    let mut found = file.sections().filter(|candidate| candidate.name_bytes() == Ok(section.as_bytes()));
    let Some(only) = found.next() else { return Err(ManifestError::NoManifest { section }) };
    if found.next().is_some() {
        return Err(ManifestError::Damaged(format!("there are two sections {section}, expected one")));
    }
    let bytes = only.data().map_err(|error| ManifestError::Damaged(error.to_string()))?;
    place::text(bytes).map_err(|error| ManifestError::Damaged(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = r#"{"id":"clock","version":"0.2.0","abi":"1.0.0","panic":"unwind","newer":{"than":"us"}}"#;

    /// A library with nothing in it but a manifest and a demand for glibc 2.34, as bytes.
    fn library(manifest: &[u8]) -> Vec<u8> {
        let strings = b"\0libc.so.6\0GLIBC_2.2.5\0GLIBC_2.34\0OTHER_9\0";
        let at = |name: &[u8]| {
            u32::try_from(strings.windows(name.len()).position(|window| window == name).unwrap()).unwrap()
        };
        let versions = [b"GLIBC_2.2.5".as_slice(), b"GLIBC_2.34", b"OTHER_9"];
        let mut needs = Vec::new();
        needs.extend([1_u16, versions.len() as u16].map(u16::to_le_bytes).concat());
        needs.extend([at(b"libc.so.6"), 16, 0].map(u32::to_le_bytes).concat());
        for (index, version) in versions.iter().enumerate() {
            let next = if index + 1 == versions.len() { 0 } else { 16 };
            needs.extend([0, 0, at(version), next].map(u32::to_le_bytes).concat());
        }

        let names = b"\0.jackfield\0.gnu.version_r\0.dynstr\0.shstrtab\0";
        let parts: [(&str, u32, &[u8], u32, u32); 4] = [
            (".jackfield", 1, manifest, 0, 0),
            (".gnu.version_r", 0x6fff_fffe, &needs, 3, 1),
            (".dynstr", 3, strings, 0, 0),
            (".shstrtab", 3, names, 0, 0),
        ];
        let mut file = vec![0; 64];
        let mut headers = vec![0; 64];
        for (name, kind, bytes, link, info) in parts {
            let name = names.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
            headers.extend([u32::try_from(name).unwrap(), kind].map(u32::to_le_bytes).concat());
            headers.extend([0, 0, file.len() as u64, bytes.len() as u64].map(u64::to_le_bytes).concat());
            headers.extend([link, info].map(u32::to_le_bytes).concat());
            headers.extend([1_u64, 0].map(u64::to_le_bytes).concat());
            file.extend(bytes);
        }
        let sections_at = file.len() as u64;
        file.extend(headers);
        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file[16..24].copy_from_slice(&[3, 0, 62, 0, 1, 0, 0, 0]);
        file[40..48].copy_from_slice(&sections_at.to_le_bytes());
        file[52..64].copy_from_slice(&[64, 0, 56, 0, 0, 0, 64, 0, 5, 0, 4, 0]);
        file
    }

    fn section(text: &str) -> Vec<u8> {
        [place::MAGIC.as_slice(), &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes(), &[0; 9]].concat()
    }

    #[test]
    fn headers_and_manifest_are_read() {
        let (binary, manifest) = parse(&library(&section(JSON))).unwrap();
        assert_eq!(binary, Binary { format: "elf", machine: "x86_64".to_owned(), glibc: GlibcVersion::parse("2.34") });
        assert_eq!((manifest.id.as_str(), manifest.version.as_str()), ("clock", "0.2.0"));
        assert_eq!(manifest.panic.as_deref(), Some("unwind"));
    }

    #[test]
    fn what_is_no_plugin_is_said_to_be_none() {
        let said = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(said(b"").contains("the file is empty"));
        assert!(said(b"#!/bin/sh\n").contains("not a dynamic library"));
        assert!(said(&library(b"")).contains("at least"));
        assert!(said(&library(b"JACKFLD9\0\0\0\0")).contains("JACKFLD9"));
        assert!(said(&library(&section("{}"))).contains("missing field `id`"));
        assert!(said(&library(&section("[[["))).contains("damaged"));
        let mut huge = section(JSON);
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(said(&library(&huge)).contains("4294967295 bytes"));
    }

    #[test]
    fn a_library_without_or_with_two_manifests_is_refused() {
        let mut bytes = library(&section(JSON));
        let at = bytes.windows(11).position(|window| window == b"\0.jackfield").unwrap();
        bytes[at + 2] = b'J';
        assert_eq!(parse(&bytes).unwrap_err(), ManifestError::NoManifest { section: ".jackfield" });

        let mut bytes = library(&section(JSON));
        let headers = bytes.len() - 5 * 64;
        bytes.copy_within(headers + 64..headers + 68, headers + 128);
        assert!(parse(&bytes).unwrap_err().to_string().contains("two sections"));
    }

    #[test]
    fn every_cut_of_a_library_is_an_error() {
        let bytes = library(&section(JSON));
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_segment_past_the_end_is_a_cut_off_file() {
        let mut bytes = library(&section(JSON));
        let at = bytes.len() as u64;
        let mut segment = [1_u32, 5].map(u32::to_le_bytes).concat();
        segment.extend([0_u64, 0, 0, 1 << 40, 1 << 40, 0x1000].map(u64::to_le_bytes).concat());
        bytes.extend(segment);
        bytes[32..40].copy_from_slice(&at.to_le_bytes());
        bytes[56..58].copy_from_slice(&[1, 0]);
        assert!(matches!(parse(&bytes).unwrap_err(), ManifestError::Truncated { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn links_pipes_and_large_files_are_not_read() {
        let folder = std::env::temp_dir().join(format!("jackfield-manifest-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, link) = (folder.join("file"), folder.join("link"));
        std::fs::write(&file, b"12345").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let limits = Limits { plugin_file_bytes: 5, ..Limits::default() };
        assert_eq!(PluginBytes::read(&file, None, &limits).unwrap().bytes, b"12345");
        assert_eq!(PluginBytes::read(&link, None, &limits).unwrap_err(), ManifestError::NotAFile("a link"));
        assert_eq!(PluginBytes::read(&folder, None, &limits).unwrap_err(), ManifestError::NotAFile("a folder"));
        let limits = Limits { plugin_file_bytes: 4, ..limits };
        let error = PluginBytes::read(&file, None, &limits).unwrap_err();
        assert_eq!(error, ManifestError::TooLarge { found: 5, max: 4 });
        std::fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..24),
        ) {
            let mut bytes = library(&section(JSON));
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn changed_numbers_in_the_headers_never_panic(
            changes in proptest::collection::vec((0_usize..40, prop_oneof![any::<u64>(), 0_u64..2048]), 1..6),
        ) {
            let mut bytes = library(&section(JSON));
            let headers = bytes.len() - 5 * 64;
            for (word, number) in changes {
                let at = headers + word * 8;
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            let _ = parse(&bytes);
        }
    }
}
