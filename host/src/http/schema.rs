//! `GET /schema/`: the JSON Schemas of every frame, for those who write clients.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

use crate::protocol::schema::{DIALECT, Direction, FrameSchema, schemas};

/// How a schema file's name ends.
const SUFFIX: &str = ".json";

#[derive(Serialize)]
struct Index {
    dialect: &'static str,
    schemas: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: &'static str,
    /// `action` or `event`.
    direction: &'static str,
    /// What a session has to declare in `supports` to see such frames.
    supports: Vec<&'static str>,
    url: String,
}

/// Texts by path below `/schema/`; the index under the empty one. Made at the first request and the same for ever.
static TEXTS: LazyLock<BTreeMap<String, Bytes>> = LazyLock::new(|| {
    let file = |frame: &FrameSchema| format!("{}{SUFFIX}", frame.name);
    let entry = |frame: &'static FrameSchema| Entry {
        name: &frame.name,
        direction: match frame.direction {
            Direction::Action => "action",
            Direction::Event => "event",
        },
        supports: frame.extensions.flags(),
        url: format!("/schema/{}", file(frame)),
    };
    let index = Index { dialect: DIALECT, schemas: schemas().iter().map(entry).collect() };
    let documents = schemas().iter().map(|frame| (file(frame), text(&frame.schema)));
    documents.chain([(String::new(), text(&index))]).collect()
});

fn text(value: &impl Serialize) -> Bytes {
    serde_json::to_vec_pretty(value).expect("a schema is JSON").into()
}

/// What there is, with the address of each.
#[utoipa::path(
    get, path = "/schema/", operation_id = "listSchemas", tag = "server", security(()),
    responses((status = 200, content_type = "application/json", body = Object, description = "the list"))
)]
pub(super) async fn index() -> Response {
    found("application/json", &TEXTS[""])
}

/// The JSON Schema of one frame.
#[utoipa::path(
    get, path = "/schema/{file}", operation_id = "readSchema", tag = "server", security(()),
    params(("file" = String, Path, description = "the last part of an address of the list")),
    responses(
        (status = 200, content_type = "application/schema+json", body = Object, description = "the schema"),
        (status = 404, content_type = "text/plain", body = String, description = "there is no such schema")
    )
)]
pub(super) async fn document(Path(file): Path<String>) -> Response {
    match TEXTS.get(&file).filter(|_| !file.is_empty()) {
        Some(text) => found("application/schema+json", text),
        None => (StatusCode::NOT_FOUND, "there is no such schema; /schema/ lists them\n").into_response(),
    }
}

fn found(content_type: &'static str, text: &Bytes) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text.clone()).into_response()
}
