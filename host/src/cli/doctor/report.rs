//! What was found, and how it is told.

use serde::Serialize;

use super::super::terminal::one_line;

/// Characters of what was found that a line shows; `--json` shows all.
const FOUND_CHARS: usize = 400;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// It works, and may not be what was meant.
    Warn,
    /// It does not work.
    Fail,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    check: String,
    status: Status,
    found: String,
    /// What to do about it; absent when all is well.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status: Status::Ok, found: found.into(), advice: None }
    }

    pub(super) fn warn(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status: Status::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status: Status::Fail, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    pub(super) fn is_failure(&self) -> bool {
        self.status == Status::Fail
    }

    /// One line, and a second one for what to do.
    pub(super) fn line(&self, status: &str) -> String {
        let pad = 4_usize.saturating_sub(self.status.word().len());
        let head = format!("{status}{:pad$}  {:14}  {}\n", "", self.check, one_line(&self.found, FOUND_CHARS));
        match &self.advice {
            None => head,
            Some(advice) => format!("{head}{:22}{}\n", "→ ", one_line(advice, FOUND_CHARS)),
        }
    }
}
