//! From the bytes of a file to the text of a document, or to the reason why there is none. Pure.

use std::path::Path;

use super::html;

/// Endings of files with names of their own kind, in lower case.
const HTML: &[&str] = &["html", "htm", "xhtml"];
const MARKDOWN: &[&str] = &["md", "markdown", "mdown", "mkd"];
/// What a file that cannot be read would need, for kinds that people often have.
const NEEDS_EXPORT: &[&str] = &["pdf", "doc", "docx", "odt", "rtf", "ppt", "pptx", "xls", "xlsx", "ods", "epub"];
/// Control characters are searched in this much of a file; a text has hardly any.
const LOOKED_AT_BYTES: usize = 8 * 1024;

/// How a text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    #[default]
    Text,
    /// Markdown, which is kept as it is: its headings stay with their sections.
    Markdown,
    /// HTML, of which the text is taken.
    Html,
}

/// Why a file is no text that can be searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// Not a text at all.
    #[error("it is a binary file{}", .0.map(|hint| format!("; {hint}")).unwrap_or_default())]
    Binary(Option<&'static str>),
    /// A text in another encoding.
    #[error("it is not UTF-8 (byte {byte:#04x} at {offset}){}; save it as UTF-8", .hint.map(|hint| format!(", {hint}")).unwrap_or_default())]
    NotUtf8 {
        /// Where the first byte is that does not fit, counted from 0.
        offset: usize,
        /// That byte.
        byte: u8,
        /// What it probably is instead.
        hint: Option<&'static str>,
    },
    /// Nothing to search in.
    #[error("it has no text")]
    Empty,
}

impl Format {
    /// What a file's name says; a name that says nothing is plain text.
    pub fn of_path(path: &Path) -> Self {
        let ending = ending_of(path);
        let is_one_of = |endings: &[&str]| endings.contains(&ending.as_str());
        if is_one_of(HTML) {
            Format::Html
        } else if is_one_of(MARKDOWN) {
            Format::Markdown
        } else {
            Format::Text
        }
    }

    /// The text that is searched.
    pub fn to_text(self, text: &str) -> String {
        match self {
            Format::Text | Format::Markdown => text.to_owned(),
            Format::Html => html::to_text(text),
        }
    }
}

/// The text of a file.
pub(super) fn file_text(path: &Path, bytes: Vec<u8>) -> Result<String, Unreadable> {
    let text = match String::from_utf8(bytes) {
        Ok(text) if is_binary(text.as_bytes()) => return Err(binary(path)),
        Ok(text) => text,
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            return Err(not_utf8(path, error.as_bytes(), offset));
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = Format::of_path(path).to_text(text);
    if text.trim().is_empty() { Err(Unreadable::Empty) } else { Ok(text) }
}

fn not_utf8(path: &Path, bytes: &[u8], offset: usize) -> Unreadable {
    let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    if !wide && is_binary(bytes) {
        return binary(path);
    }
    let hint = if wide { "it looks like UTF-16" } else { "it may be Latin-1 or Windows-1252" };
    Unreadable::NotUtf8 { offset, byte: bytes.get(offset).copied().unwrap_or_default(), hint: Some(hint) }
}

fn binary(path: &Path) -> Unreadable {
    let is_document = NEEDS_EXPORT.contains(&ending_of(path).as_str());
    Unreadable::Binary(is_document.then_some("export it as text, Markdown or HTML"))
}

/// A zero byte, or more than a few control characters, are in no text.
fn is_binary(bytes: &[u8]) -> bool {
    let part = &bytes[..bytes.len().min(LOOKED_AT_BYTES)];
    let is_odd = |byte: &&u8| matches!(byte, 0x01..=0x08 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f);
    part.starts_with(b"%PDF-") || part.contains(&0) || part.iter().filter(is_odd).count() * 32 > part.len()
}

fn ending_of(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, bytes: &[u8]) -> Result<String, String> {
        file_text(Path::new(name), bytes.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_name_says_how_a_text_is_written() {
        assert_eq!(text("a.HTML", b"<p>x</p>"), Ok("x".to_owned()));
        assert_eq!(text("a.md", b"# <b>"), Ok("# <b>".to_owned()));
        assert_eq!(text("NOTES", b"<p>x</p>"), Ok("<p>x</p>".to_owned()));
        assert_eq!(Format::of_path(Path::new("x.Markdown")), Format::Markdown);
        assert_eq!(text("bom.txt", "\u{feff}text".as_bytes()), Ok("text".to_owned()));
    }

    #[test]
    fn what_is_no_text_says_why() {
        for (name, bytes, expected) in [
            ("a.png", &b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "it is a binary file"),
            ("a.pdf", b"%PDF-1.7\n%\xe2\xe3", "it is a binary file; export it as text, Markdown or HTML"),
            ("a.docx", b"PK\x03\x04\x14\0", "it is a binary file; export it as text, Markdown or HTML"),
            ("a.bin", b"\x01\x02\x03\x04text", "it is a binary file"),
            (
                "a.txt",
                b"caf\xe9",
                "it is not UTF-8 (byte 0xe9 at 3), it may be Latin-1 or Windows-1252; save it as UTF-8",
            ),
            ("a.txt", b"\xff\xfea\0b\0", "it is not UTF-8 (byte 0xff at 0), it looks like UTF-16; save it as UTF-8"),
            ("a.txt", b" \n", "it has no text"),
            ("a.html", b"<p></p><script>x</script>", "it has no text"),
            ("a.txt", b"", "it has no text"),
        ] {
            assert_eq!(text(name, bytes), Err(expected.to_owned()), "{name}");
        }
        assert!(text("log.txt", b"a line with \x1b[31mcolour\x1b[0m").is_ok());
    }
}
