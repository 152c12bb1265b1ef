//! What a check found: one line of a report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a finding is. The order is that of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// All is well.
    Pass,
    /// It works, and could be better.
    Warn,
    /// A host, a model's provider or a user will run into it.
    Fail,
}

impl Severity {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Pass => "pass",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was checked, in one word: `schema`, `cancel`, `panic`, …
    pub check: String,
    /// The tool it is about; empty for the plugin as a whole.
    #[serde(default)]
    pub tool: String,
    /// What was found and, unless it passed, what to do.
    pub text: String,
}

impl Finding {
    /// A finding about one tool, or about the plugin as a whole when `tool` is empty.
    pub fn new(severity: Severity, check: &str, tool: &str, text: impl Into<String>) -> Self {
        Self { severity, check: check.to_owned(), tool: tool.to_owned(), text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}  {}", self.severity.as_str(), self.check)?;
        if !self.tool.is_empty() {
            write!(formatter, "  {}", self.tool)?;
        }
        write!(formatter, ": {}", self.text)
    }
}
