//! Standard output and standard error: who reads them, whether they take colour, and how text from outside is made
//! harmless for a terminal.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

/// What this process is connected to.
pub(crate) struct Terminal {
    can_ask: bool,
    colour_on_output: bool,
    colour_on_errors: bool,
    rust_log: Option<String>,
}

impl Terminal {
    /// Looks once at the streams and at `NO_COLOR`, `TERM` and `RUST_LOG`.
    pub(crate) fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let colour = variable("NO_COLOR").is_none() && variable("TERM").is_none_or(|term| term != "dumb");
        Self {
            can_ask: io::stdin().is_terminal() && io::stderr().is_terminal(),
            colour_on_output: colour && io::stdout().is_terminal(),
            colour_on_errors: colour && io::stderr().is_terminal(),
            rust_log: variable("RUST_LOG"),
        }
    }

    /// What `RUST_LOG` says.
    pub(crate) fn rust_log(&self) -> Option<&str> {
        self.rust_log.as_deref()
    }

    /// Whether log lines may be coloured.
    pub(crate) fn colour_on_errors(&self) -> bool {
        self.colour_on_errors
    }

    /// Whether somebody sits there who can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Writes data. A reader that went away (`| head`) is not an error of ours, so the command just ends quietly.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            result => result,
        }
    }

    /// Writes a line for the person who watches. Nobody listening is fine.
    pub(crate) fn message(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// As [`message`](Self::message), without the line break: a question.
    pub(crate) fn question(&self, text: &str) {
        let mut errors = io::stderr().lock();
        let _ = errors.write_all(text.as_bytes()).and_then(|()| errors.flush());
    }

    /// Text that stands back, on standard error.
    pub(crate) fn faint<'a>(&self, text: &'a str) -> Cow<'a, str> {
        painted(self.colour_on_errors, "2", text)
    }

    /// Text that stands out, on standard error.
    pub(crate) fn strong<'a>(&self, text: &'a str) -> Cow<'a, str> {
        painted(self.colour_on_errors, "1", text)
    }

    /// A heading, on standard output.
    pub(crate) fn heading<'a>(&self, text: &'a str) -> Cow<'a, str> {
        painted(self.colour_on_output, "1", text)
    }
}

fn painted<'a>(colour: bool, code: &str, text: &'a str) -> Cow<'a, str> {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m").into() } else { text.into() }
}

/// Text from a model, a tool or a file without what could steer a terminal: control characters other than line break
/// and tab, and the marks that reorder text.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |letter: char| {
        (letter.is_control() && letter != '\n' && letter != '\t')
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(steers) { text.replace(steers, "").into() } else { text.into() }
}

/// As [`harmless`], on one line and at most this many characters long.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let joined = harmless(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match joined.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None => joined,
    }
}

/// Rows as columns that line up, two spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_taken_out() {
        assert_eq!(harmless("plain\ttext\n"), "plain\ttext\n");
        assert_eq!(harmless("a\u{1b}[31mred\u{7}\u{9b}2J\r\u{202e}b"), "a[31mred2Jb");
        assert_eq!(one_line("a\n b\u{1b}  c", 10), "a b c");
        assert_eq!(one_line("ääääää", 3), "äää…");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["id".to_owned(), "tools".into()], vec!["clock".into(), String::new()]];
        assert_eq!(table(&rows), "id     tools\nclock\n");
    }
}
