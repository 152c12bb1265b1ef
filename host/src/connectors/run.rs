//! Records of indexing runs: what was seen, what was skipped and why. The newest are kept. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// It reads and indexes.
    Running,
    /// Everything was looked at; what could not be used is among the skipped.
    Succeeded,
    /// Nothing could be read, or not everything was looked at; says why in `error`.
    Failed,
}

/// One indexing run, as the protocol shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Names the run.
    pub id: String,
    /// The connector or source that was read.
    pub connector_name: String,
    /// How it stands.
    pub status: RunStatus,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Files that were looked at.
    pub documents_seen: usize,
    /// Passages that were indexed.
    pub chunks_indexed: usize,
    /// Files that gave no document.
    pub documents_skipped: usize,
    /// Where an incremental run would go on; always null, because files are read anew each time.
    #[schema(required)]
    pub cursor: Option<String>,
    /// Why it failed.
    #[schema(required)]
    pub error: Option<String>,
}

/// A file that gave no document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedDocument {
    /// The file, named from what was read.
    pub document: String,
    /// Why, as a sentence that begins with "it" or "the document".
    pub reason: String,
}

/// A run with its details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// The run.
    pub run: Run,
    /// The files that gave no document, as many as the limit `indexing_skips_named` allows.
    pub skipped: Vec<SkippedDocument>,
    /// Further skipped files, which are not named.
    pub skipped_unnamed: usize,
    /// Hidden files and folders that were left out.
    pub hidden: usize,
    /// Documents of an earlier run that are gone.
    pub removed: usize,
}

impl RunReport {
    pub(super) fn started(id: String, connector_name: String, started_at: Timestamp) -> Self {
        let run = Run {
            id,
            connector_name,
            status: RunStatus::Running,
            started_at,
            finished_at: None,
            documents_seen: 0,
            chunks_indexed: 0,
            documents_skipped: 0,
            cursor: None,
            error: None,
        };
        Self { run, skipped: Vec::new(), skipped_unnamed: 0, hidden: 0, removed: 0 }
    }

    pub(super) fn skip(&mut self, document: String, reason: String, named_max: usize) {
        self.run.documents_skipped += 1;
        if self.skipped.len() < named_max {
            self.skipped.push(SkippedDocument { document, reason });
        } else {
            self.skipped_unnamed += 1;
        }
    }

    pub(super) fn finish(&mut self, at: Timestamp, error: Option<String>) {
        self.run.finished_at = Some(at);
        self.run.status = if error.is_none() { RunStatus::Succeeded } else { RunStatus::Failed };
        self.run.error = error;
    }
}

/// The newest runs of all organisations.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// With organisation and origin; the newest last.
    records: VecDeque<(String, String, RunReport)>,
}

impl Runs {
    /// Keeps a run, in place of its earlier state; beyond `max` the oldest goes.
    pub(super) fn put(&mut self, org_id: &str, origin: &str, report: RunReport, max: usize) {
        let known = self.records.iter_mut().find(|(_, _, known)| known.run.id == report.run.id);
        match known {
            Some((_, _, known)) => *known = report,
            None => {
                self.records.push_back((org_id.to_owned(), origin.to_owned(), report));
                if self.records.len() > max {
                    self.records.pop_front();
                }
            }
        }
    }

    /// The runs of an organisation, newest first.
    pub(super) fn of_org<'a>(&'a self, org_id: &'a str) -> impl Iterator<Item = &'a RunReport> {
        let own = self.records.iter().rev().filter(move |(org, _, _)| org == org_id);
        own.map(|(_, _, report)| report)
    }

    /// The last run of a source or connector.
    pub(super) fn last_of(&self, org_id: &str, origin: &str) -> Option<&RunReport> {
        let mut own = self.records.iter().rev();
        own.find(|(org, of, _)| org == org_id && of == origin).map(|(_, _, report)| report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_runs_are_kept_and_every_skip_is_counted() {
        let mut runs = Runs::default();
        for number in 0..5 {
            let mut report = RunReport::started(number.to_string(), "docs".to_owned(), Timestamp::UNIX_EPOCH);
            runs.put("org", "docs", report.clone(), 3);
            (0..4).for_each(|file| report.skip(file.to_string(), "it is odd".to_owned(), 3));
            report.finish(Timestamp::UNIX_EPOCH, (number == 4).then(|| "no".to_owned()));
            runs.put("org", "docs", report, 3);
        }
        let ids: Vec<&str> = runs.of_org("org").map(|report| report.run.id.as_str()).collect();
        assert_eq!(ids, ["4", "3", "2"]);
        assert_eq!(runs.of_org("other").count(), 0);
        let last = runs.last_of("org", "docs");
        assert_eq!(last.map(|report| (report.run.documents_skipped, report.skipped.len())), Some((4, 3)));
        assert_eq!(last.map(|report| (report.skipped_unnamed, report.run.status)), Some((1, RunStatus::Failed)));
        assert!(runs.last_of("org", "other").is_none());
    }
}
