//! The manifest's place in a plugin's file: a link section that can be read without running anything.
//!
//! The section starts with [`MAGIC`], then the length of the text as a little-endian `u32`, then the text: one JSON
//! object. Whatever follows (padding) is ignored.

use std::fmt;

/// The section's name in an ELF file (Linux and most Unix systems).
pub const SECTION_ELF: &str = ".jackfield";
/// The section's name in a Mach-O file (macOS), in the segment `__DATA`.
pub const SECTION_MACHO: &str = "jackfield";
/// The section's name in a PE file (Windows), which has room for eight characters.
pub const SECTION_PE: &str = ".jackfld";
/// The first bytes of the section.
pub const MAGIC: [u8; 8] = *b"JACKFLD1";
/// Magic and length.
pub const HEADER_LEN: usize = MAGIC.len() + 4;
/// The longest manifest a host reads; `export_plugin!` refuses to make a longer one.
pub const TEXT_LEN_MAX: usize = 1 << 20;

/// How many bytes the section of a text of this length has.
pub const fn section_len(text: &str) -> usize {
    HEADER_LEN + text.len()
}

/// The section of `text`; `N` must be [`section_len`]. For use in constants: what is wrong is a compile error.
///
/// # Panics
///
/// When `N` is not the right length or the text is longer than [`TEXT_LEN_MAX`].
pub const fn section<const N: usize>(text: &str) -> [u8; N] {
    assert!(N == section_len(text), "the section's length must be section_len of its text");
    assert!(text.len() <= TEXT_LEN_MAX, "the manifest is longer than 1 MiB");
    let mut bytes = [0; N];
    put(&mut bytes, 0, &MAGIC);
    put(&mut bytes, MAGIC.len(), &(text.len() as u32).to_le_bytes());
    put(&mut bytes, HEADER_LEN, text.as_bytes());
    bytes
}

/// `copy_from_slice`, which cannot be used in constants by the oldest supported compiler.
const fn put(bytes: &mut [u8], at: usize, from: &[u8]) {
    let mut index = 0;
    while index < from.len() {
        bytes[at + index] = from[index];
        index += 1;
    }
}

/// Why a section holds no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionError {
    /// Too short for magic and length.
    TooShort {
        /// How long it is.
        found: usize,
    },
    /// It does not start with [`MAGIC`].
    WrongMagic {
        /// What it starts with.
        found: [u8; 8],
    },
    /// It ends before its text does, or the text is longer than [`TEXT_LEN_MAX`].
    WrongLength {
        /// What the section says.
        announced: usize,
        /// What there is.
        found: usize,
    },
    /// The text is not UTF-8.
    NotUtf8,
}

impl fmt::Display for SectionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionError::TooShort { found } => {
                write!(formatter, "the manifest section has {found} bytes, expected at least {HEADER_LEN}")
            }
            SectionError::WrongMagic { found } => write!(
                formatter,
                "the manifest section starts with \"{}\", expected \"{}\"",
                found.escape_ascii(),
                MAGIC.escape_ascii()
            ),
            SectionError::WrongLength { announced, found } => write!(
                formatter,
                "the manifest section announces {announced} bytes of text and holds {found}, expected at most {TEXT_LEN_MAX} and all of them there"
            ),
            SectionError::NotUtf8 => formatter.write_str("the manifest is not UTF-8 text"),
        }
    }
}

impl std::error::Error for SectionError {}

/// The manifest's text in the bytes of the section.
///
/// # Errors
///
/// When the bytes are not such a section. Never reads beyond them.
pub const fn text(section: &[u8]) -> Result<&str, SectionError> {
    let Some((magic, rest)) = section.split_first_chunk::<8>() else {
        return Err(SectionError::TooShort { found: section.len() });
    };
    let Some((length, body)) = rest.split_first_chunk::<4>() else {
        return Err(SectionError::TooShort { found: section.len() });
    };
    if u64::from_le_bytes(*magic) != u64::from_le_bytes(MAGIC) {
        return Err(SectionError::WrongMagic { found: *magic });
    }
    let announced = u32::from_le_bytes(*length) as usize;
    if announced > TEXT_LEN_MAX || announced > body.len() {
        return Err(SectionError::WrongLength { announced, found: body.len() });
    }
    match std::str::from_utf8(body.split_at(announced).0) {
        Ok(text) => Ok(text),
        Err(_) => Err(SectionError::NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"id":"clock"}"#;
    static SECTION: [u8; section_len(TEXT)] = section(TEXT);

    #[test]
    fn reads_back_what_was_written_also_with_padding_behind() {
        assert_eq!(text(&SECTION), Ok(TEXT));
        let mut padded = SECTION.to_vec();
        padded.extend([0; 17]);
        assert_eq!(text(&padded), Ok(TEXT));
    }

    #[test]
    fn refuses_each_kind_of_damage() {
        assert_eq!(text(&SECTION[..11]), Err(SectionError::TooShort { found: 11 }));
        assert_eq!(text(b""), Err(SectionError::TooShort { found: 0 }));
        let mut other = SECTION;
        other[7] = b'2';
        assert_eq!(text(&other), Err(SectionError::WrongMagic { found: *b"JACKFLD2" }));
        let cut = &SECTION[..SECTION.len() - 1];
        assert_eq!(text(cut), Err(SectionError::WrongLength { announced: 14, found: 13 }));
        let mut huge = SECTION;
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(text(&huge), Err(SectionError::WrongLength { .. })));
        let mut binary = SECTION;
        binary[HEADER_LEN] = 0xff;
        assert_eq!(text(&binary), Err(SectionError::NotUtf8));
    }
}
