//! Sources and connectors together: what there is of them, and the runs that read them, one at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Connector, ConnectorError, Kept, NewConnector, NewSource, Run, RunReport, RunStatus, Source,
    indexing::{self, Job},
    kind,
    run::Runs,
    source::Sources,
    state::StateFile,
    store::{Store, Stored},
};
use crate::{
    clock::SharedClock,
    config::Limits,
    knowledge::{Files, KnowledgeBase, PlaceError},
};

/// The sources and connectors of a server. Clones share them.
#[derive(Clone)]
pub struct Connectors(Arc<Inner>);

struct Inner {
    knowledge: Arc<KnowledgeBase>,
    clock: SharedClock,
    limits: Limits,
    /// The folders that connectors may read.
    roots: Vec<PathBuf>,
    state_file: Option<StateFile>,
    /// Held for a few lines, never across an await.
    state: Mutex<State>,
    /// Held while the list of sources and its file change together; only threads that may block take it.
    changing: Mutex<()>,
    /// One run, or removal of what runs made, at a time.
    working: tokio::sync::Mutex<()>,
    /// Runs of the start that are not over; one before the start has begun.
    starting: watch::Sender<usize>,
    stopped: CancellationToken,
}

#[derive(Default)]
struct State {
    sources: Sources,
    connectors: Store,
    runs: Runs,
}

impl Connectors {
    /// None yet. Connectors may read below `roots`; sources that are added are kept in `state_folder`, if there is one.
    pub fn new(
        knowledge: Arc<KnowledgeBase>,
        clock: SharedClock,
        limits: &Limits,
        roots: Vec<PathBuf>,
        state_folder: Option<PathBuf>,
    ) -> Self {
        Self(Arc::new(Inner {
            knowledge,
            clock,
            limits: limits.clone(),
            roots,
            state_file: state_folder.map(StateFile::in_folder),
            state: Mutex::default(),
            changing: Mutex::default(),
            working: tokio::sync::Mutex::default(),
            starting: watch::Sender::new(1),
            stopped: CancellationToken::new(),
        }))
    }

    /// Takes the sources of the configuration and those of the state folder, and reads them in a task of its own. What
    /// is wrong with one of them is in the log and in its run, and keeps none of the others away. Relative paths start at
    /// the current folder. Needs a runtime; without one nothing is read.
    pub fn start(&self, org_id: &str, configured: Vec<NewSource>) {
        for mut new in configured {
            let path = new.path.clone();
            new.path = std::path::absolute(&path).unwrap_or(new.path);
            if let Err(error) = self.0.take(org_id, new, Kept::Configuration) {
                tracing::error!(path = %path.display(), %error, "a source of the configuration is not used");
            }
        }
        if let Some(file) = &self.0.state_file {
            match file.read() {
                Ok(sources) => sources.into_iter().for_each(|source| self.0.take_kept(source)),
                Err(error) => tracing::error!(%error, "the sources of the state folder are not used"),
            }
        }
        let sources = self.0.state().sources.all();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!("documents are read only when the server is made inside of a runtime");
            self.0.starting.send_replace(0);
            return;
        };
        self.0.starting.send_replace(sources.len());
        let connectors = self.clone();
        runtime.spawn(async move {
            for source in sources {
                connectors.run(connectors.0.job_of_source(&source)).await;
                connectors.0.starting.send_modify(|left| *left -= 1);
            }
        });
    }

    /// Ends the runs that go on; what they have indexed stays.
    pub fn stop(&self) {
        self.0.stopped.cancel();
    }

    /// Waits until the sources of the start were read, or the time is over.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing.
    pub async fn settled(&self, timeout: Duration) {
        let mut starting = self.0.starting.subscribe();
        let _ = tokio::time::timeout(timeout, starting.wait_for(|left| *left == 0)).await;
    }

    /// The sources of an organisation, each with its last run.
    pub fn sources(&self, org_id: &str) -> Vec<(Source, Option<RunReport>)> {
        let mut all = self.all_sources();
        all.retain(|(source, _)| source.org_id == org_id);
        all
    }

    /// The sources of all organisations, each with its last run.
    pub fn all_sources(&self) -> Vec<(Source, Option<RunReport>)> {
        let state = self.0.state();
        let with_run = |source: Source| {
            let last = state.runs.last_of(&source.org_id, &source.origin()).cloned();
            (source, last)
        };
        state.sources.all().into_iter().map(with_run).collect()
    }

    /// Adds a source, or says something new about one whose path is there already, and reads it. The path may be
    /// anywhere, so this is the operator's to ask for.
    ///
    /// # Errors
    ///
    /// When the path cannot be read or cannot be written down; then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// The run goes on when the future is dropped.
    pub async fn add_source(&self, org_id: &str, new: NewSource) -> Result<(Source, RunReport), ConnectorError> {
        let (inner, org_id) = (self.0.clone(), org_id.to_owned());
        let source = blocking(move || {
            new.check_path()?;
            Files::open(&new.path, None, &inner.limits)?;
            let _changing = inner.changing();
            let kept = if inner.state_file.is_some() { Kept::State } else { Kept::Process };
            let source = inner.state().sources.prepare(&org_id, new, kept, inner.limits.knowledge_sources)?;
            if let Some(file) = &inner.state_file {
                file.put(&source)?;
            }
            inner.state().sources.put(source.clone());
            Ok(source)
        })
        .await?;
        tracing::info!(source = source.name, path = %source.path.display(), org = source.org_id, "a source was added");
        let report = self.run(self.0.job_of_source(&source)).await;
        Ok((source, report))
    }

    /// Reads a source anew.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Unknown`].
    ///
    /// # Cancel safety
    ///
    /// The run goes on when the future is dropped.
    pub async fn index_source(&self, org_id: &str, name: &str) -> Result<RunReport, ConnectorError> {
        let source = self.0.state().sources.get(org_id, name).cloned().ok_or(ConnectorError::Unknown)?;
        Ok(self.run(self.0.job_of_source(&source)).await)
    }

    /// Removes a source and its documents. Returns how many there were.
    ///
    /// # Errors
    ///
    /// When there is none of this name, it is written down where this cannot strike it out, or the file cannot be
    /// written; then it stays.
    pub async fn remove_source(&self, org_id: &str, name: &str) -> Result<usize, ConnectorError> {
        let (inner, key) = (self.0.clone(), (org_id.to_owned(), name.to_owned()));
        let source = blocking(move || {
            let _changing = inner.changing();
            let source = inner.state().sources.get(&key.0, &key.1).cloned().ok_or(ConnectorError::Unknown)?;
            if source.kept == Kept::Configuration {
                let Source { name, path, .. } = source;
                let message =
                    format!("{name:?} is a source of the configuration ({path:?}); strike it out of knowledge.sources");
                return Err(ConnectorError::Invalid(message));
            }
            if let Some(file) = &inner.state_file {
                file.remove(&key.0, &key.1)?;
            }
            inner.state().sources.remove(&key.0, &key.1);
            Ok(source)
        })
        .await?;
        tracing::info!(source = name, org = org_id, "a source was removed");
        self.forget(org_id, source.origin()).await
    }

    /// The connectors of an organisation, oldest first.
    pub fn list(&self, org_id: &str) -> Vec<Connector> {
        self.0.state().connectors.of_org(org_id)
    }

    /// One connector.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Unknown`].
    pub fn get(&self, org_id: &str, id: &str) -> Result<Connector, ConnectorError> {
        Ok(self.0.state().connectors.get(org_id, id)?.connector.clone())
    }

    /// Makes a connector. Nothing is read before it is [indexed](Self::index).
    ///
    /// # Errors
    ///
    /// When its kind or configuration is refused, or there are too many.
    pub async fn create(&self, org_id: &str, new: NewConnector) -> Result<Connector, ConnectorError> {
        let now = self.0.clock.now();
        let id = self.0.clock.new_id().to_string();
        let stored = self.checked(new, id, now, now).await?;
        let connector = stored.connector.clone();
        self.0.state().connectors.insert(org_id, stored, self.0.limits.connectors)?;
        tracing::info!(connector = connector.id, org = org_id, "a connector was made");
        Ok(connector)
    }

    /// Replaces a connector, all but its id and when it was made. Its documents stay as they are until it is indexed.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create), and [`ConnectorError::Unknown`].
    pub async fn replace(&self, org_id: &str, id: &str, new: NewConnector) -> Result<Connector, ConnectorError> {
        let known = self.get(org_id, id)?;
        let stored = self.checked(new, known.id, known.created_at, self.0.clock.now()).await?;
        let connector = stored.connector.clone();
        let mut state = self.0.state();
        // It may have been removed meanwhile, and must not come back by this.
        state.connectors.get(org_id, id)?;
        state.connectors.insert(org_id, stored, self.0.limits.connectors)?;
        Ok(connector)
    }

    /// Removes a connector and its documents.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Unknown`].
    pub async fn remove(&self, org_id: &str, id: &str) -> Result<(), ConnectorError> {
        self.0.state().connectors.remove(org_id, id)?;
        tracing::info!(connector = id, org = org_id, "a connector was removed");
        self.forget(org_id, connector_origin(id)).await.map(drop)
    }

    /// Reads a connector's files.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Unknown`], or that it is not enabled. What goes wrong while reading is in the report.
    ///
    /// # Cancel safety
    ///
    /// The run goes on when the future is dropped.
    pub async fn index(&self, org_id: &str, id: &str) -> Result<RunReport, ConnectorError> {
        let stored = self.0.state().connectors.get(org_id, id)?.clone();
        if !stored.connector.enabled {
            let message = "this connector is not enabled; replace it with enabled: true first";
            return Err(ConnectorError::Invalid(message.to_owned()));
        }
        Ok(self.run(self.0.job_of_connector(org_id, &stored)).await)
    }

    /// The runs of an organisation, newest first.
    pub fn runs(&self, org_id: &str) -> Vec<Run> {
        self.0.state().runs.of_org(org_id).map(|report| report.run.clone()).collect()
    }

    /// One run with its details.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Unknown`].
    pub fn run_report(&self, org_id: &str, id: &str) -> Result<RunReport, ConnectorError> {
        let state = self.0.state();
        let found = state.runs.of_org(org_id).find(|report| report.run.id == id);
        found.cloned().ok_or(ConnectorError::Unknown)
    }

    /// How many documents each set of an organisation has.
    pub fn document_sets(&self, org_id: &str) -> BTreeMap<String, usize> {
        self.0.knowledge.document_sets(org_id)
    }

    async fn checked(
        &self,
        new: NewConnector,
        id: String,
        created_at: jiff::Timestamp,
        updated_at: jiff::Timestamp,
    ) -> Result<Stored, ConnectorError> {
        let name = new.checked_name()?;
        let (kind, path) = kind::place(&new.kind, &new.config)?;
        let (inner, place) = (self.0.clone(), path.clone());
        blocking(move || inner.check_place(&place)).await?;
        let NewConnector { config, enabled, .. } = new;
        Ok(Stored { connector: Connector { id, name, kind, config, enabled, created_at, updated_at }, path })
    }

    /// Does a job and records what it did. The work goes on when the future is dropped, so that no record stays open.
    async fn run(&self, job: Job) -> RunReport {
        let inner = self.0.clone();
        let started = RunReport::started(inner.clock.new_id().to_string(), job.name.clone(), inner.clock.now());
        let (reader, its_job, its_report) = (inner.clone(), job.clone(), started.clone());
        let work = tokio::spawn(async move {
            let _working = reader.working.lock().await;
            reader.record(&its_job, its_report.clone());
            let at_work = reader.clone();
            let reading = tokio::task::spawn_blocking(move || at_work.read(&its_job, its_report));
            reading.await.map_err(|error| error.to_string())
        });
        match work.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(source = job.name, error, "an indexing run ended in the middle");
                let mut report = started;
                report.finish(inner.clock.now(), Some(format!("the run ended in the middle: {error}")));
                inner.record(&job, report.clone());
                report
            }
        }
    }

    /// Removes the documents of what is gone, once no run can bring them back.
    async fn forget(&self, org_id: &str, origin: String) -> Result<usize, ConnectorError> {
        let (inner, org_id) = (self.0.clone(), org_id.to_owned());
        let removing = tokio::spawn(async move {
            let _working = inner.working.lock().await;
            inner.knowledge.remove_origin(&org_id, &origin, BTreeSet::new()).await
        });
        let removed = removing.await.unwrap_or_else(|error| {
            Err(crate::knowledge::KnowledgeError(format!("removing ended in the middle: {error}")))
        });
        Ok(removed?)
    }
}

impl std::fmt::Debug for Connectors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connectors").field("roots", &self.0.roots).finish_non_exhaustive()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a source in, with the name that it gets.
    fn take(&self, org_id: &str, new: NewSource, kept: Kept) -> Result<Source, ConnectorError> {
        let mut state = self.state();
        let source = state.sources.prepare(org_id, new, kept, self.limits.knowledge_sources)?;
        state.sources.put(source.clone());
        Ok(source)
    }

    /// Takes in a source of the state folder. The configuration has the first word on names and paths.
    fn take_kept(&self, source: Source) {
        let new = NewSource {
            path: source.path.clone(),
            name: Some(source.name.clone()),
            document_set: Some(source.document_set.clone()),
            acl: source.acl.clone(),
        };
        if let Err(error) = self.take(&source.org_id, new, Kept::State) {
            let file = self.state_file.as_ref().map(|file| file.folder().display().to_string());
            tracing::error!(source = source.name, folder = file, %error, "a source of the state folder is not used");
        }
    }

    /// Whether a connector may read here. What is not there yet may be there when it is indexed. Blocks.
    fn check_place(&self, place: &Path) -> Result<(), ConnectorError> {
        match Files::open(place, Some(&self.roots), &self.limits) {
            Err(PlaceError::Outside { path }) => {
                let hint = if self.roots.is_empty() {
                    "it opens none"
                } else {
                    "the operator can open another one, or add the path with `jackfield knowledge add`"
                };
                Err(ConnectorError::Outside { path, hint })
            }
            _ => Ok(()),
        }
    }

    fn job_of_source(&self, source: &Source) -> Job {
        Job {
            name: source.name.clone(),
            org_id: source.org_id.clone(),
            origin: source.origin(),
            id: source.name.clone(),
            place: source.path.clone(),
            roots: None,
            document_set: source.document_set.clone(),
            acl: source.acl.clone(),
        }
    }

    fn job_of_connector(&self, org_id: &str, stored: &Stored) -> Job {
        let Connector { id, name, .. } = &stored.connector;
        Job {
            name: name.clone(),
            org_id: org_id.to_owned(),
            origin: connector_origin(id),
            id: id.clone(),
            place: stored.path.clone(),
            roots: Some(self.roots.clone()),
            document_set: name.clone(),
            acl: None,
        }
    }

    /// Whether what is to be read is still there: it may have gone while the run waited for its turn.
    fn is_current(&self, job: &Job) -> bool {
        let state = self.state();
        let is_source = state.sources.get(&job.org_id, &job.name).is_some_and(|source| source.origin() == job.origin);
        is_source || state.connectors.get(&job.org_id, &job.id).is_ok()
    }

    /// Does a job, unless what is to be read is gone. Blocks.
    fn read(&self, job: &Job, mut report: RunReport) -> RunReport {
        let error = if self.is_current(job) {
            indexing::run(job, &self.knowledge, &self.limits, &self.stopped, &mut report)
        } else {
            Some("it was removed before it was read".to_owned())
        };
        report.finish(self.clock.now(), error);
        self.record(job, report.clone());
        log(job, &report);
        report
    }

    fn record(&self, job: &Job, report: RunReport) {
        self.state().runs.put(&job.org_id, &job.origin, report, self.limits.indexing_runs);
    }
}

fn connector_origin(id: &str) -> String {
    format!("connector {id}")
}

fn log(job: &Job, report: &RunReport) {
    let Run { status, documents_seen, chunks_indexed, documents_skipped, error, .. } = &report.run;
    let documents = documents_seen - documents_skipped;
    match (status, error) {
        (RunStatus::Failed, error) => {
            let error = error.as_deref().unwrap_or_default();
            tracing::warn!(source = job.name, path = %job.place.display(), error, documents, "reading documents failed");
        }
        _ => tracing::info!(
            source = job.name,
            documents,
            passages = chunks_indexed,
            skipped = documents_skipped,
            "documents were read"
        ),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ConnectorError::Invalid(format!("it ended in the middle: {error}"))))
}
