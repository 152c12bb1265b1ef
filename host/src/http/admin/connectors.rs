//! Connectors, their indexing runs and the sets of documents.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answers::{AdminError, Answer, CallerRefusals, Malformed, TooLong, Unknown},
    caller::{Admin, As, Curator},
    input::{Body, Named},
};
use crate::{
    connectors::{Connector, ConnectorError, NewConnector, Run, RunReport},
    protocol::ErrorCode,
    socket::Live,
};

impl AdminError {
    /// What the error of a connector or source is for a client; `what` is what was named.
    pub(super) fn of_connector(error: ConnectorError, what: &str) -> Self {
        match error {
            ConnectorError::Unknown => Self::not_found(what),
            ConnectorError::State { .. } | ConnectorError::Knowledge(_) => {
                tracing::error!(%error, "a source or connector could not be changed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, error.to_string())
            }
            error => Self::invalid(error.to_string()),
        }
    }
}

fn of_connector(error: ConnectorError) -> AdminError {
    AdminError::of_connector(error, "connector")
}

/// The connectors of an organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectorList {
    connectors: Vec<Connector>,
}

/// One connector.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectorAnswer {
    connector: Connector,
}

/// The connectors of the caller's organisation, oldest first.
#[utoipa::path(
    get, path = "/admin/connectors", operation_id = "listConnectors", tag = "admin",
    responses((status = 200, body = ConnectorList, description = "all of them"), CallerRefusals)
)]
pub(super) async fn list(caller: As<Curator>, State(live): State<Arc<Live>>) -> Answer<ConnectorList> {
    Ok(Json(ConnectorList { connectors: live.connectors.list(&caller.principal.org_id) }))
}

/// Makes a connector. Of the kinds only `file` exists here, and it reads only below the folders that the configuration
/// opens with `knowledge.roots`. Nothing is read before it is indexed.
#[utoipa::path(
    post, path = "/admin/connectors", operation_id = "createConnector", tag = "admin", request_body = NewConnector,
    responses(
        (status = 201, body = ConnectorAnswer, description = "the connector"),
        Malformed, TooLong, CallerRefusals
    )
)]
pub(super) async fn create(
    caller: As<Admin>,
    State(live): State<Arc<Live>>,
    Body(new): Body<NewConnector>,
) -> Result<(StatusCode, Json<ConnectorAnswer>), AdminError> {
    let connector = live.connectors.create(&caller.principal.org_id, new).await.map_err(of_connector)?;
    Ok((StatusCode::CREATED, Json(ConnectorAnswer { connector })))
}

/// One connector.
#[utoipa::path(
    get, path = "/admin/connectors/{id}", operation_id = "readConnector", tag = "admin",
    params(("id" = String, Path, description = "the connector")),
    responses(
        (status = 200, body = ConnectorAnswer, description = "the connector"),
        Malformed, Unknown, CallerRefusals
    )
)]
pub(super) async fn read(
    caller: As<Curator>,
    State(live): State<Arc<Live>>,
    Named(id): Named,
) -> Answer<ConnectorAnswer> {
    let connector = live.connectors.get(&caller.principal.org_id, &id).map_err(of_connector)?;
    Ok(Json(ConnectorAnswer { connector }))
}

/// Replaces a connector, all but its id and when it was made. What was indexed stays until it is indexed again.
#[utoipa::path(
    put, path = "/admin/connectors/{id}", operation_id = "replaceConnector", tag = "admin",
    params(("id" = String, Path, description = "the connector")), request_body = NewConnector,
    responses(
        (status = 200, body = ConnectorAnswer, description = "the connector as it is now"),
        Malformed, TooLong, Unknown, CallerRefusals
    )
)]
pub(super) async fn replace(
    caller: As<Admin>,
    State(live): State<Arc<Live>>,
    Named(id): Named,
    Body(new): Body<NewConnector>,
) -> Answer<ConnectorAnswer> {
    let connector = live.connectors.replace(&caller.principal.org_id, &id, new).await.map_err(of_connector)?;
    Ok(Json(ConnectorAnswer { connector }))
}

/// Removes a connector and its documents.
#[utoipa::path(
    delete, path = "/admin/connectors/{id}", operation_id = "deleteConnector", tag = "admin",
    params(("id" = String, Path, description = "the connector")),
    responses((status = 204, description = "it is gone"), Malformed, Unknown, CallerRefusals)
)]
pub(super) async fn delete(
    caller: As<Admin>,
    State(live): State<Arc<Live>>,
    Named(id): Named,
) -> Result<StatusCode, AdminError> {
    live.connectors.remove(&caller.principal.org_id, &id).await.map_err(of_connector)?;
    Ok(StatusCode::NO_CONTENT)
}

/// One run.
#[derive(Serialize, ToSchema)]
pub(super) struct RunAnswer {
    run: Run,
}

/// Reads a connector's files, and answers when it is done. Files that cannot be used are counted as skipped; the run's own
/// address names them.
#[utoipa::path(
    post, path = "/admin/connectors/{id}/index", operation_id = "indexConnector", tag = "admin",
    params(("id" = String, Path, description = "the connector")),
    responses(
        (status = 200, body = RunAnswer, description = "the run, which may have failed"),
        Malformed, Unknown, CallerRefusals
    )
)]
pub(super) async fn index(caller: As<Curator>, State(live): State<Arc<Live>>, Named(id): Named) -> Answer<RunAnswer> {
    let report = live.connectors.index(&caller.principal.org_id, &id).await.map_err(of_connector)?;
    Ok(Json(RunAnswer { run: report.run }))
}

/// The runs of an organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct RunList {
    runs: Vec<Run>,
}

/// The indexing runs of the caller's organisation that are remembered, newest first; those of sources, too.
#[utoipa::path(
    get, path = "/admin/indexing/runs", operation_id = "listRuns", tag = "admin",
    responses((status = 200, body = RunList, description = "the runs"), CallerRefusals)
)]
pub(super) async fn runs(caller: As<Curator>, State(live): State<Arc<Live>>) -> Answer<RunList> {
    Ok(Json(RunList { runs: live.connectors.runs(&caller.principal.org_id) }))
}

/// One run, with the files that gave no document and why.
#[utoipa::path(
    get, path = "/admin/indexing/runs/{id}", operation_id = "readRun", tag = "admin",
    params(("id" = String, Path, description = "the run")),
    responses(
        (status = 200, body = RunReport, description = "the run and its details"),
        Malformed, Unknown, CallerRefusals
    )
)]
pub(super) async fn run(caller: As<Curator>, State(live): State<Arc<Live>>, Named(id): Named) -> Answer<RunReport> {
    let report = live.connectors.run_report(&caller.principal.org_id, &id);
    report.map(Json).map_err(|error| AdminError::of_connector(error, "run"))
}

/// The sets of an organisation's documents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DocumentSetList {
    document_sets: Vec<DocumentSet>,
}

/// A set of documents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DocumentSet {
    name: String,
    document_count: usize,
}

/// The sets of documents of the caller's organisation, by name.
#[utoipa::path(
    get, path = "/admin/document-sets", operation_id = "listDocumentSets", tag = "admin",
    responses((status = 200, body = DocumentSetList, description = "all of them"), CallerRefusals)
)]
pub(super) async fn document_sets(caller: As<Curator>, State(live): State<Arc<Live>>) -> Answer<DocumentSetList> {
    let sets = live.connectors.document_sets(&caller.principal.org_id).into_iter();
    let document_sets = sets.map(|(name, document_count)| DocumentSet { name, document_count }).collect();
    Ok(Json(DocumentSetList { document_sets }))
}
