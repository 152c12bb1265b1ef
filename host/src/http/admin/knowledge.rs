//! What the server knows: its documents and sources, and what a search finds and why.

use std::{path::PathBuf, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answers::{AdminError, Answer, CallerRefusals, Malformed, TooLong, Unknown},
    caller::{As, Curator, Operator},
    input::{Asked, Body, Named, page_size},
};
use crate::{
    auth::Role,
    connectors::{ConnectorError, Kept, NewSource, RunReport, Source},
    knowledge::{
        DenseReport, DenseState, DenseStatus, Document, DocumentAcl, DocumentError, DocumentSummary, ExplainedPassage,
        Explanation, Format, KnowledgeBase, KnowledgeError, Ranked, Requester,
    },
    protocol::ErrorCode,
    socket::Live,
};

/// Passages that a query shows when it does not say how many.
const QUERY_LIMIT: i64 = 3;
/// Longest question, in characters.
const QUERY_CHARS_MAX: usize = 10_000;

impl Live {
    fn knowledge(&self) -> &KnowledgeBase {
        &self.services.runtime.knowledge
    }
}

impl From<KnowledgeError> for AdminError {
    fn from(error: KnowledgeError) -> Self {
        tracing::error!(%error, "the knowledge base failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, error.to_string())
    }
}

fn of_source(error: ConnectorError) -> AdminError {
    AdminError::of_connector(error, "source")
}

/// What the server knows.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KnowledgeState {
    /// Documents of the organisation.
    documents: usize,
    /// Passages that they were cut into.
    passages: usize,
    /// How searching by meaning stands, for all organisations; null when no embedding model is configured.
    #[schema(required)]
    vectors: Option<VectorState>,
    /// The organisation's sources, in the order in which they were added.
    sources: Vec<SourceState>,
}

/// How the vectors of the documents stand.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VectorState {
    /// The embedding model.
    model: String,
    /// Numbers in one vector; null before the first one came.
    #[schema(required)]
    dimension: Option<usize>,
    /// Documents whose vectors are there.
    ready: usize,
    /// Documents whose vectors are to be made.
    waiting: usize,
    /// Documents that get none, because the limit `knowledge_vector_bytes` is reached.
    left_out: usize,
    /// `ready`, `building`, `failing` (it is tried again) or `off`.
    state: &'static str,
    /// What is wrong.
    #[schema(required)]
    reason: Option<String>,
}

impl From<DenseStatus> for VectorState {
    fn from(status: DenseStatus) -> Self {
        let (state, reason) = match status.state {
            DenseState::Ready => ("ready", None),
            DenseState::Building => ("building", None),
            DenseState::Failing(reason) => ("failing", Some(reason)),
            DenseState::Off(reason) => ("off", Some(reason)),
        };
        let DenseStatus { model, dimension, ready, waiting, left_out, .. } = status;
        Self { model, dimension, ready, waiting, left_out, state, reason }
    }
}

/// A source.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceState {
    /// Names it.
    name: String,
    /// The file or folder, on the server's machine.
    path: String,
    /// The set of its documents.
    document_set: String,
    /// `configuration`, `state` (it is there again at the next start) or `process` (it ends with the server).
    kept: &'static str,
    /// Who may find its documents; null for everyone.
    #[schema(required)]
    acl: Option<Acl>,
    /// Documents that it has now.
    documents: usize,
    /// Its last run; null before the first one.
    #[schema(required)]
    last_run: Option<RunReport>,
}

impl SourceState {
    fn new(source: Source, last_run: Option<RunReport>, documents: &[DocumentSummary]) -> Self {
        let origin = source.origin();
        Self {
            documents: documents.iter().filter(|document| document.origin.as_ref() == Some(&origin)).count(),
            name: source.name,
            path: source.path.display().to_string(),
            document_set: source.document_set,
            kept: match source.kept {
                Kept::Configuration => "configuration",
                Kept::State => "state",
                Kept::Process => "process",
            },
            acl: source.acl.map(Acl::from),
            last_run,
        }
    }
}

/// Who in the organisation may find a document. Without a rule everyone may; a rule that names nobody lets nobody.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccessRule)]
pub(super) struct Acl {
    /// Everyone.
    #[serde(default)]
    public: bool,
    /// These user ids.
    #[serde(default)]
    users: Vec<String>,
    /// Members of these groups.
    #[serde(default)]
    groups: Vec<String>,
}

impl From<DocumentAcl> for Acl {
    fn from(DocumentAcl { public, users, groups }: DocumentAcl) -> Self {
        Self { public, users, groups }
    }
}

impl From<Acl> for DocumentAcl {
    fn from(Acl { public, users, groups }: Acl) -> Self {
        Self { public, users, groups }
    }
}

/// What the server knows, and where it is from.
#[utoipa::path(
    get, path = "/admin/knowledge", operation_id = "readKnowledge", tag = "admin",
    responses((status = 200, body = KnowledgeState, description = "how it stands"), CallerRefusals)
)]
pub(super) async fn state(caller: As<Curator>, State(live): State<Arc<Live>>) -> Answer<KnowledgeState> {
    let org_id = &caller.principal.org_id;
    let documents = live.knowledge().documents(org_id);
    let sources = live.connectors.sources(org_id).into_iter();
    Ok(Json(KnowledgeState {
        passages: documents.iter().map(|document| document.passages).sum(),
        vectors: live.knowledge().dense_status().map(VectorState::from),
        sources: sources.map(|(source, run)| SourceState::new(source, run, &documents)).collect(),
        documents: documents.len(),
    }))
}

/// Which documents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DocumentPage {
    /// Only those of the source of this name.
    source: Option<String>,
    /// Page size, 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// A page of documents, by id.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DocumentList {
    documents: Vec<DocumentRow>,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A document.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KnowledgeDocument)]
pub(super) struct DocumentRow {
    id: String,
    /// What a citation shows.
    source: String,
    #[schema(required)]
    document_set: Option<String>,
    /// `source NAME`, `connector ID`, or null for what came through a program or this API.
    #[schema(required)]
    origin: Option<String>,
    passages: usize,
}

impl From<DocumentSummary> for DocumentRow {
    fn from(document: DocumentSummary) -> Self {
        let DocumentSummary { id, source, document_set, origin, passages } = document;
        Self { id, source, document_set, origin, passages }
    }
}

/// The documents of the caller's organisation, by id.
#[utoipa::path(
    get, path = "/admin/knowledge/documents", operation_id = "listDocuments", tag = "admin", params(DocumentPage),
    responses((status = 200, body = DocumentList, description = "a page of them"), Malformed, Unknown, CallerRefusals)
)]
pub(super) async fn documents(
    caller: As<Curator>,
    State(live): State<Arc<Live>>,
    Asked(page): Asked<DocumentPage>,
) -> Answer<DocumentList> {
    let limit = page_size(page.limit)?;
    let org_id = &caller.principal.org_id;
    let mut documents = live.knowledge().documents(org_id);
    if let Some(name) = page.source {
        let sources = live.connectors.sources(org_id);
        let found = sources.into_iter().find(|(source, _)| source.name == name);
        let origin = found.ok_or_else(|| AdminError::not_found("source"))?.0.origin();
        documents.retain(|document| document.origin.as_ref() == Some(&origin));
    }
    if let Some(last) = &page.cursor {
        documents.retain(|document| document.id > *last);
    }
    let has_more = documents.len() > limit;
    documents.truncate(limit);
    let next_cursor = documents.last().filter(|_| has_more).map(|last| last.id.clone());
    Ok(Json(DocumentList { documents: documents.into_iter().map(DocumentRow::from).collect(), next_cursor }))
}

/// A document to be indexed.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewKnowledgeDocument)]
pub(super) struct NewDocument {
    /// Names the document; one of the same id is replaced.
    id: String,
    /// Its text.
    text: String,
    /// How the text is written.
    #[serde(default)]
    format: TextFormat,
    /// What a citation shows: a path, a name or an address. By default the id.
    source: Option<String>,
    /// The set it belongs to.
    document_set: Option<String>,
    /// Who may find it; by default everyone in the organisation.
    acl: Option<Acl>,
}

/// How a text is written.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TextFormat {
    #[default]
    Text,
    Markdown,
    Html,
}

/// One document.
#[derive(Serialize, ToSchema)]
#[schema(as = KnowledgeDocumentAnswer)]
pub(super) struct DocumentAnswer {
    document: DocumentRow,
}

/// Indexes a document, in place of the one of the same id. It is not kept beyond the process.
#[utoipa::path(
    post, path = "/admin/knowledge/documents", operation_id = "putDocument", tag = "admin", request_body = NewDocument,
    responses(
        (status = 201, body = DocumentAnswer, description = "it can be found now"),
        Malformed, TooLong, CallerRefusals
    )
)]
pub(super) async fn put_document(
    caller: As<Curator>,
    State(live): State<Arc<Live>>,
    Body(new): Body<NewDocument>,
) -> Result<(StatusCode, Json<DocumentAnswer>), AdminError> {
    let format = match new.format {
        TextFormat::Text => Format::Text,
        TextFormat::Markdown => Format::Markdown,
        TextFormat::Html => Format::Html,
    };
    let document = Document {
        source: new.source.filter(|source| !source.trim().is_empty()).unwrap_or_else(|| new.id.clone()),
        id: new.id,
        text: format.to_text(&new.text),
        org_id: caller.principal.org_id,
        acl: new.acl.map(DocumentAcl::from),
        document_set: new.document_set,
        origin: None,
    };
    let Document { id, source, document_set, .. } = document.clone();
    let indexed = live.knowledge().ingest(vec![document]).await.pop();
    let (_, indexed) = indexed.expect("one document has one outcome");
    let passages = indexed.map_err(|error| match error {
        DocumentError::Index(error) => error.into(),
        error => AdminError::invalid(error.to_string()),
    })?;
    let document = DocumentRow { id, source, document_set, origin: None, passages };
    Ok((StatusCode::CREATED, Json(DocumentAnswer { document })))
}

/// Which document.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OneDocument {
    /// Its id.
    id: String,
}

/// Removes a document that came through a program or this API. One of a source or connector goes with it, or with its
/// file.
#[utoipa::path(
    delete, path = "/admin/knowledge/documents", operation_id = "deleteDocument", tag = "admin", params(OneDocument),
    responses((status = 204, description = "it is gone"), Malformed, Unknown, CallerRefusals)
)]
pub(super) async fn delete_document(
    caller: As<Curator>,
    State(live): State<Arc<Live>>,
    Asked(asked): Asked<OneDocument>,
) -> Result<StatusCode, AdminError> {
    let org_id = &caller.principal.org_id;
    let documents = live.knowledge().documents(org_id);
    let found = documents.into_iter().find(|document| document.id == asked.id);
    let document = found.ok_or_else(|| AdminError::not_found("document"))?;
    if let Some(origin) = document.origin {
        let message = format!("this document is of {origin}; remove that, or its file, and index it again");
        return Err(AdminError::invalid(message));
    }
    live.knowledge().remove(org_id, &asked.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A source to be added.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewKnowledgeSource)]
pub(super) struct SourceToAdd {
    /// The file or folder, as an absolute path on the server's machine.
    path: String,
    /// Its name; by default the file's or folder's own.
    name: Option<String>,
    /// The set of its documents; by default its name.
    document_set: Option<String>,
    /// Who may find its documents; by default everyone in the organisation.
    acl: Option<Acl>,
}

/// A source, and what reading it did.
#[derive(Serialize, ToSchema)]
#[schema(as = KnowledgeSourceAnswer)]
pub(super) struct SourceAnswer {
    source: SourceState,
    report: RunReport,
}

/// Adds a file or folder of the server's machine, reads it, and answers when that is done. A path that is there already is
/// read anew. Because the path may be anywhere, only the run file's admin token lets you; its sources are of the server's
/// own organisation.
#[utoipa::path(
    post, path = "/admin/knowledge/sources", operation_id = "addSource", tag = "admin", request_body = SourceToAdd,
    responses(
        (status = 201, body = SourceAnswer, description = "the source, and what reading it did"),
        Malformed, TooLong, CallerRefusals
    )
)]
pub(super) async fn add_source(
    _: Operator,
    State(live): State<Arc<Live>>,
    Body(new): Body<SourceToAdd>,
) -> Result<(StatusCode, Json<SourceAnswer>), AdminError> {
    let org_id = &live.services.config().org_id;
    let SourceToAdd { path, name, document_set, acl } = new;
    let new = NewSource { path: PathBuf::from(path), name, document_set, acl: acl.map(DocumentAcl::from) };
    let (source, report) = live.connectors.add_source(org_id, new).await.map_err(of_source)?;
    let documents = live.knowledge().documents(org_id);
    let source = SourceState::new(source, Some(report.clone()), &documents);
    Ok((StatusCode::CREATED, Json(SourceAnswer { source, report })))
}

/// A run with its details.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportAnswer {
    report: RunReport,
}

/// Reads a source anew, and answers when that is done.
#[utoipa::path(
    post, path = "/admin/knowledge/sources/{id}/index", operation_id = "indexSource", tag = "admin",
    params(("id" = String, Path, description = "the source's name")),
    responses(
        (status = 200, body = ReportAnswer, description = "what reading it did"),
        Malformed, Unknown, CallerRefusals
    )
)]
pub(super) async fn index_source(
    caller: As<Curator>,
    State(live): State<Arc<Live>>,
    Named(name): Named,
) -> Answer<ReportAnswer> {
    let report = live.connectors.index_source(&caller.principal.org_id, &name).await.map_err(of_source)?;
    Ok(Json(ReportAnswer { report }))
}

/// What went with a source.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Removed {
    /// Documents that are gone.
    removed_documents: usize,
}

/// Removes a source and its documents; its files stay. As for adding, only the run file's admin token lets you.
#[utoipa::path(
    delete, path = "/admin/knowledge/sources/{id}", operation_id = "removeSource", tag = "admin",
    params(("id" = String, Path, description = "the source's name")),
    responses((status = 200, body = Removed, description = "it is gone"), Malformed, Unknown, CallerRefusals)
)]
pub(super) async fn remove_source(_: Operator, State(live): State<Arc<Live>>, Named(name): Named) -> Answer<Removed> {
    let org_id = &live.services.config().org_id;
    let removed_documents = live.connectors.remove_source(org_id, &name).await.map_err(of_source)?;
    Ok(Json(Removed { removed_documents }))
}

/// A question, as a turn would ask it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = KnowledgeQuery)]
pub(super) struct Query {
    query: String,
    /// How many passages are used, 3 by default.
    #[schema(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// Ask with the rights of this user instead of the caller's own; needs the role admin.
    user: Option<String>,
    /// Ask with the rights of these groups; as for `user`.
    groups: Option<Vec<String>>,
}

/// What a search found, and why.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KnowledgeAnswer)]
pub(super) struct Explained {
    /// The content words of the question, as they are compared; without one nothing is looked for.
    words: Vec<WordRow>,
    /// What searching by meaning did.
    vectors: VectorSearch,
    /// The passages that were found, best first: those that are used, then those that were cut.
    passages: Vec<PassageRow>,
    /// Passages that share a word with the question, but are not for whoever asks.
    hidden_passages: usize,
}

/// A content word.
#[derive(Serialize, ToSchema)]
#[schema(as = KnowledgeWord)]
pub(super) struct WordRow {
    word: String,
    /// Whether it took part: one that nothing has did not, nor the most common of a long question.
    used: bool,
}

/// What searching by meaning did.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VectorSearch {
    /// `off`, `not-asked` (nothing to look for, or to compare with), `unavailable` or `searched`.
    state: &'static str,
    /// Why it was unavailable.
    #[schema(required)]
    reason: Option<String>,
    /// The embedding model.
    #[schema(required)]
    model: Option<String>,
    /// Passages that the question was compared with.
    compared: usize,
    /// The similarity that a passage needs (`knowledge.min_similarity`).
    #[schema(required)]
    floor: Option<f32>,
}

impl From<DenseReport> for VectorSearch {
    fn from(report: DenseReport) -> Self {
        let none = |state, reason| Self { state, reason, model: None, compared: 0, floor: None };
        match report {
            DenseReport::Off => none("off", None),
            DenseReport::NotAsked => none("not-asked", None),
            DenseReport::Unavailable(reason) => none("unavailable", Some(reason)),
            DenseReport::Searched { model, compared, floor } => {
                Self { state: "searched", reason: None, model: Some(model), compared, floor: Some(floor) }
            }
        }
    }
}

/// A passage that was found.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KnowledgePassage)]
pub(super) struct PassageRow {
    document_id: String,
    source: String,
    /// Its number in its document, counted from 0.
    passage: usize,
    text: String,
    score: f32,
    /// The question's words that it has.
    words: Vec<String>,
    /// Its place by words, counted from 1, and its BM25 score.
    #[schema(required)]
    by_words: Option<Place>,
    /// Its place by meaning, and its similarity.
    #[schema(required)]
    by_meaning: Option<Place>,
    /// Why it is not used; null when it is.
    #[schema(required)]
    cut: Option<String>,
}

/// A place in one ranking.
#[derive(Serialize, ToSchema)]
#[schema(as = KnowledgePlace)]
pub(super) struct Place {
    rank: usize,
    score: f32,
}

impl From<Ranked> for Place {
    fn from(Ranked { rank, score }: Ranked) -> Self {
        Self { rank, score }
    }
}

impl From<ExplainedPassage> for PassageRow {
    fn from(found: ExplainedPassage) -> Self {
        Self {
            document_id: found.hit.document_id,
            source: found.hit.source,
            passage: found.passage,
            text: found.hit.text,
            score: found.hit.score,
            words: found.words,
            by_words: found.lexical.map(Place::from),
            by_meaning: found.dense.map(Place::from),
            cut: found.cut.map(|cut| cut.to_string()),
        }
    }
}

/// Searches as a turn would, and says what was found and why.
#[utoipa::path(
    post, path = "/admin/knowledge/query", operation_id = "queryKnowledge", tag = "admin", request_body = Query,
    responses(
        (status = 200, body = Explained, description = "what was found, and why"),
        Malformed, TooLong, CallerRefusals
    )
)]
pub(super) async fn query(
    caller: As<Curator>,
    State(live): State<Arc<Live>>,
    Body(asked): Body<Query>,
) -> Answer<Explained> {
    if asked.query.trim().is_empty() || asked.query.chars().count() > QUERY_CHARS_MAX {
        return Err(AdminError::invalid(format!("query must have 1 to {QUERY_CHARS_MAX} characters")));
    }
    let limit = page_size(asked.limit.or(Some(QUERY_LIMIT)))?;
    let principal = caller.principal;
    let is_for_somebody = asked.user.is_some() || asked.groups.is_some();
    if is_for_somebody && principal.role < Role::Admin {
        return Err(AdminError::forbidden("asking with the rights of somebody else needs the role admin"));
    }
    let requester = if is_for_somebody {
        Requester { org_id: principal.org_id, user_id: asked.user, groups: asked.groups.unwrap_or_default() }
    } else {
        Requester { org_id: principal.org_id, user_id: Some(principal.user_id), groups: principal.groups }
    };
    let Explanation { words, dense, passages, hidden } =
        live.knowledge().explain(&requester, &asked.query, limit).await?;
    Ok(Json(Explained {
        words: words.into_iter().map(|word| WordRow { word: word.word, used: word.used }).collect(),
        vectors: dense.into(),
        passages: passages.into_iter().map(PassageRow::from).collect(),
        hidden_passages: hidden,
    }))
}
