//! One indexing run: reads files, indexes them batch by batch, and removes what is no longer there. Blocks.

use std::{collections::BTreeSet, path::PathBuf};

use tokio_util::sync::CancellationToken;

use super::run::RunReport;
use crate::{
    config::Limits,
    knowledge::{Document, DocumentAcl, FileDocument, Files, KnowledgeBase, PlaceError, Skip},
};

/// Documents that are indexed at once: enough that the cost of each write is shared.
const BATCH_DOCUMENTS: usize = 256;
/// Text that is indexed at once.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What to read, and what its documents are.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// For people.
    pub(super) name: String,
    pub(super) org_id: String,
    /// Marks the documents as this source's or connector's.
    pub(super) origin: String,
    /// What the documents' ids begin with.
    pub(super) id: String,
    pub(super) place: PathBuf,
    /// The folders in which the place must be; `None` for anywhere.
    pub(super) roots: Option<Vec<PathBuf>>,
    pub(super) document_set: String,
    pub(super) acl: Option<DocumentAcl>,
}

/// Does the job; what it did is added to the report. Returns why it failed, if it did.
pub(super) fn run(
    job: &Job,
    knowledge: &KnowledgeBase,
    limits: &Limits,
    stopped: &CancellationToken,
    report: &mut RunReport,
) -> Option<String> {
    let mut files = match Files::open(&job.place, job.roots.as_deref(), limits) {
        Ok(files) => files,
        Err(error) => return Some(unopened(&error)),
    };
    let root_name = files.name().to_owned();
    let mut work = Work { job, knowledge, limits, report, batch: Vec::new(), kept: BTreeSet::new() };
    for found in files.by_ref() {
        if stopped.is_cancelled() {
            return Some("the server stopped before everything was read".to_owned());
        }
        work.report.run.documents_seen += 1;
        match found {
            Ok(file) => work.add(&root_name, file),
            Err(Skip { name, reason }) => work.skip(name, reason),
        }
    }
    work.index_batch();
    let kept = std::mem::take(&mut work.kept);
    report.hidden = files.hidden();
    if files.is_over_the_limit() {
        let max = limits.knowledge_files;
        return Some(format!("there are more than {max} files (limit knowledge_files); the rest was not looked at"));
    }
    match knowledge.remove_origin_blocking(&job.org_id, &job.origin, &kept) {
        Ok(removed) => {
            report.removed = removed;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

fn unopened(error: &PlaceError) -> String {
    match error {
        PlaceError::Outside { .. } => {
            format!("{error}; the configuration opens folders with knowledge.roots")
        }
        error => error.to_string(),
    }
}

struct Work<'a> {
    job: &'a Job,
    knowledge: &'a KnowledgeBase,
    limits: &'a Limits,
    report: &'a mut RunReport,
    batch: Vec<Document>,
    /// Ids of what was indexed.
    kept: BTreeSet<String>,
}

impl Work<'_> {
    fn add(&mut self, root_name: &str, FileDocument { name, text }: FileDocument) {
        let inside = name.strip_prefix(root_name).unwrap_or(&name);
        self.batch.push(Document {
            id: format!("{}{inside}", self.job.id),
            source: name,
            text,
            org_id: self.job.org_id.clone(),
            acl: self.job.acl.clone(),
            document_set: Some(self.job.document_set.clone()),
            origin: Some(self.job.origin.clone()),
        });
        let bytes: usize = self.batch.iter().map(|document| document.text.len()).sum();
        if self.batch.len() >= BATCH_DOCUMENTS || bytes >= BATCH_BYTES {
            self.index_batch();
        }
    }

    fn index_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let names: Vec<String> = batch.iter().map(|document| document.source.clone()).collect();
        for (name, (id, indexed)) in names.into_iter().zip(self.knowledge.ingest_blocking(batch)) {
            match indexed {
                Ok(passages) => {
                    self.report.run.chunks_indexed += passages;
                    self.kept.insert(id);
                }
                Err(error) => self.skip(name, error.to_string()),
            }
        }
    }

    fn skip(&mut self, name: String, reason: String) {
        tracing::warn!(source = self.job.name, file = name, reason, "a file gives no document");
        self.report.skip(name, reason, self.limits.indexing_skips_named);
    }
}
