//! Prints a turn: the answer and its sources as data, what the tools do as messages beside it.

use super::{
    super::{
        Failure,
        terminal::{Terminal, harmless, one_line},
    },
    frames::{Answer, Incoming, ToolActivity},
};

/// Characters of arguments, results and snippets that are shown.
const DETAIL_CHARS: usize = 120;

pub(super) struct Screen<'a> {
    terminal: &'a Terminal,
    json: bool,
    /// Whether something of the answer was printed, and whether its last line still goes on.
    answer_began: bool,
    line_goes_on: bool,
    /// Line breaks that are printed only when something follows them.
    held_breaks: usize,
}

impl<'a> Screen<'a> {
    pub(super) fn new(terminal: &'a Terminal, json: bool) -> Self {
        Self { terminal, json, answer_began: false, line_goes_on: false, held_breaks: 0 }
    }

    /// Prints one frame.
    pub(super) fn show(&mut self, text: &str, frame: &Incoming) -> Result<(), Failure> {
        if self.json {
            return Ok(self.terminal.data(&format!("{text}\n"))?);
        }
        match frame {
            Incoming::StreamToken { token } => self.answer(token)?,
            Incoming::StreamChunk { data } => {
                if let Some(activity) = &data.state.raw_response {
                    self.end_line()?;
                    self.terminal.message(&self.terminal.faint(&described(activity)));
                }
            }
            Incoming::EventualResponse { data } => self.finish(&data.data)?,
            Incoming::WriteConfirmationRequired { .. } | Incoming::Error { .. } | Incoming::Cancelled {} => {
                self.end_line()?;
            }
            Incoming::ImmediateResponse { .. } | Incoming::Other => {}
        }
        Ok(())
    }

    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        let text = harmless(text);
        let shown = text.trim_end_matches('\n');
        if !shown.is_empty() {
            self.terminal.data(&format!("{}{shown}", "\n".repeat(std::mem::take(&mut self.held_breaks))))?;
            (self.answer_began, self.line_goes_on) = (true, true);
        }
        if self.answer_began {
            self.held_breaks += text.len() - shown.len();
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        self.held_breaks = 0;
        if std::mem::take(&mut self.line_goes_on) {
            self.terminal.data("\n")?;
        }
        Ok(())
    }

    /// The sources, after an answer that may have come in one piece.
    fn finish(&mut self, answer: &Answer) -> Result<(), Failure> {
        if !self.answer_began {
            self.answer(&answer.response.response_parts.join("\n\n"))?;
        }
        self.end_line()?;
        if answer.citations.is_empty() {
            return Ok(());
        }
        self.terminal.data(&format!("\n{}\n", self.terminal.heading("Sources")))?;
        for (index, citation) in answer.citations.iter().enumerate() {
            let place = citation.url.as_deref().filter(|url| *url != citation.title);
            let title = one_line(&format!("{} {}", citation.title, place.unwrap_or_default()), DETAIL_CHARS);
            let snippet = one_line(&citation.snippet, DETAIL_CHARS);
            self.terminal.data(&format!("  [{}] {title}\n      {snippet}\n", index + 1))?;
        }
        Ok(())
    }
}

fn described(activity: &ToolActivity) -> String {
    match activity {
        ToolActivity::Call { name, arguments } => {
            format!("→ {} {}", one_line(name, DETAIL_CHARS), one_line(arguments, DETAIL_CHARS))
        }
        ToolActivity::Result { name, is_error, result } => {
            let mark = if *is_error { "✗" } else { "✓" };
            format!("{mark} {}: {}", one_line(name, DETAIL_CHARS), one_line(result, DETAIL_CHARS))
        }
        ToolActivity::Progress { name, fraction, message } => {
            let percent = fraction.map(|fraction| format!("{:.0} % ", fraction * 100.0)).unwrap_or_default();
            let message = one_line(message.as_deref().unwrap_or_default(), DETAIL_CHARS);
            format!("… {} {percent}{message}", one_line(name, DETAIL_CHARS))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_activity_is_one_harmless_line() {
        let call = ToolActivity::Call { name: "t".into(), arguments: "{\"a\":\n1}".into() };
        assert_eq!(described(&call), "→ t {\"a\": 1}");
        let result = ToolActivity::Result { name: "t".into(), is_error: true, result: "\u{1b}[2Jno".into() };
        assert_eq!(described(&result), "✗ t: [2Jno");
        let progress = ToolActivity::Progress { name: "t".into(), fraction: Some(0.4), message: None };
        assert_eq!(described(&progress), "… t 40 % ");
    }
}
