//! `knowledge add|ls|rm|reindex|query`: what a running server knows, and why it finds what it finds.

use std::path::Path;

use http::Method;
use jackfield::config::Sources;
use serde_json::{Map, Value, json};

use super::{
    Exit, Failure,
    admin::{AdminClient, path_part},
    args::{AddArgs, KnowledgeCommand, LsArgs, QueryArgs, ReindexArgs, RmArgs},
    terminal::{Terminal, one_line, table},
};

/// Characters of a name, a path or a reason in a table or a message; `--json` shows all.
const TEXT_CHARS: usize = 160;
/// Characters of a passage.
const PASSAGE_CHARS: usize = 300;
/// Skipped files that are named one by one; `--json` names more.
const SKIPPED_SHOWN: usize = 20;

/// Runs one of the commands.
pub(super) async fn run(
    sources: Sources,
    command: &KnowledgeCommand,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    match command {
        KnowledgeCommand::Add(args) => add(&AdminClient::find(&sources, &args.server).await?, args, terminal).await,
        KnowledgeCommand::Ls(args) => list(&AdminClient::find(&sources, &args.server).await?, args, terminal).await,
        KnowledgeCommand::Rm(args) => remove(&AdminClient::find(&sources, &args.server).await?, args, terminal).await,
        KnowledgeCommand::Reindex(args) => {
            reindex(&AdminClient::find(&sources, &args.server).await?, args, terminal).await
        }
        KnowledgeCommand::Query(args) => query(&AdminClient::find(&sources, &args.server).await?, args, terminal).await,
    }
}

async fn add(client: &AdminClient, args: &AddArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(Failure::new(Exit::Usage, "--name names one path, and several are given"));
    }
    let mut answers = Vec::new();
    let mut failed = false;
    for path in &args.paths {
        let body = source_body(path, args)?;
        let answer = client.request(Method::POST, "/admin/knowledge/sources", Some(&body)).await?;
        if !args.json {
            let source = &answer["source"];
            let kept = match text(&source["kept"]).as_str() {
                "state" => "it is read again at every start",
                _ => "it ends with the server, which has no state folder",
            };
            terminal.data(&format!(
                "{}: {} ({kept})\n",
                short(&source["name"]),
                outcome(&answer["report"], terminal)
            ))?;
        }
        failed |= has_failed(&answer["report"]);
        answers.push(answer);
    }
    if args.json {
        terminal.data(&format!("{:#}\n", json!(answers)))?;
    }
    Ok(failed.then_some(Exit::Failure))
}

fn source_body(path: &Path, args: &AddArgs) -> Result<Value, Failure> {
    let absolute = std::path::absolute(path)?;
    let Some(absolute) = absolute.to_str() else {
        return Err(Failure::new(Exit::Usage, format!("{}: a path has to be UTF-8 to be sent", path.display())));
    };
    let mut body = Map::new();
    body.insert("path".to_owned(), json!(absolute));
    body.extend(args.name.as_ref().map(|name| ("name".to_owned(), json!(name))));
    body.extend(args.set.as_ref().map(|set| ("documentSet".to_owned(), json!(set))));
    if !args.user.is_empty() || !args.group.is_empty() {
        body.insert("acl".to_owned(), json!({"users": args.user, "groups": args.group}));
    }
    Ok(Value::Object(body))
}

async fn list(client: &AdminClient, args: &LsArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    match &args.source {
        Some(source) => list_documents(client, source, args, terminal).await,
        None => list_sources(client, args, terminal).await,
    }
}

async fn list_sources(client: &AdminClient, args: &LsArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let state = client.request(Method::GET, "/admin/knowledge", None).await?;
    if args.json {
        terminal.data(&format!("{state:#}\n"))?;
        return Ok(None);
    }
    let mut rows = vec![["SOURCE", "DOCUMENTS", "SKIPPED", "KEPT", "PATH"].map(str::to_owned).to_vec()];
    for source in list_of(&state["sources"]) {
        let skipped = number(&source["lastRun"]["run"]["documentsSkipped"]);
        let cells = [short(&source["name"]), number(&source["documents"]), skipped, short(&source["kept"])];
        rows.push(cells.into_iter().chain([short(&source["path"])]).collect());
    }
    if rows.len() > 1 {
        terminal.data(&table(&rows))?;
    }
    for source in list_of(&state["sources"]).filter(|source| has_failed(&source["lastRun"])) {
        terminal.message(&format!("{}: {}", short(&source["name"]), short(&source["lastRun"]["run"]["error"])));
    }
    let (documents, passages) = (number(&state["documents"]), number(&state["passages"]));
    terminal.message(&format!("{documents} documents, {passages} passages; {}", vectors(&state["vectors"])));
    Ok(None)
}

fn vectors(state: &Value) -> String {
    if state.is_null() {
        return "found by words only (knowledge.embedding_model is not set)".to_owned();
    }
    let counts = format!(
        "vectors of {}: {} ready, {} waiting, {} without room",
        short(&state["model"]),
        number(&state["ready"]),
        number(&state["waiting"]),
        number(&state["leftOut"])
    );
    let reason = state["reason"].as_str().map(|reason| format!(": {}", one_line(reason, TEXT_CHARS)));
    format!("{counts}, {}{}", short(&state["state"]), reason.unwrap_or_default())
}

async fn list_documents(
    client: &AdminClient,
    source: &str,
    args: &LsArgs,
    terminal: &Terminal,
) -> Result<Option<Exit>, Failure> {
    let mut documents = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/admin/knowledge/documents?limit=200&source={}{cursor}", path_part(source));
        let mut page = client.request(Method::GET, &path, None).await?;
        if let Value::Array(rows) = page["documents"].take() {
            documents.extend(rows);
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", path_part(next)),
            None => break,
        }
    }
    if args.json {
        terminal.data(&format!("{:#}\n", json!({ "documents": documents })))?;
        return Ok(None);
    }
    let mut rows = vec![["PASSAGES", "DOCUMENT"].map(str::to_owned).to_vec()];
    rows.extend(documents.iter().map(|row| vec![number(&row["passages"]), short(&row["id"])]));
    terminal.data(&table(&rows))?;
    let state = client.request(Method::GET, "/admin/knowledge", None).await?;
    if let Some(found) = list_of(&state["sources"]).find(|row| row["name"] == source) {
        skipped(&found["lastRun"], terminal);
    }
    Ok(None)
}

async fn remove(client: &AdminClient, args: &RmArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let path = format!("/admin/knowledge/sources/{}", path_part(&args.source));
    let answer = client.request(Method::DELETE, &path, None).await?;
    let text = match args.json {
        true => format!("{answer:#}\n"),
        false => format!("{}: gone, with {} documents\n", args.source, number(&answer["removedDocuments"])),
    };
    terminal.data(&text)?;
    Ok(None)
}

async fn reindex(client: &AdminClient, args: &ReindexArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let names = if args.sources.is_empty() {
        let state = client.request(Method::GET, "/admin/knowledge", None).await?;
        list_of(&state["sources"]).map(|source| text(&source["name"])).collect()
    } else {
        args.sources.clone()
    };
    let mut answers = Map::new();
    let mut failed = false;
    for name in names {
        let path = format!("/admin/knowledge/sources/{}/index", path_part(&name));
        let answer = client.request(Method::POST, &path, None).await?;
        failed |= has_failed(&answer["report"]);
        if !args.json {
            terminal.data(&format!("{name}: {}\n", outcome(&answer["report"], terminal)))?;
        }
        answers.insert(name, answer);
    }
    if args.json {
        terminal.data(&format!("{:#}\n", Value::Object(answers)))?;
    }
    Ok(failed.then_some(Exit::Failure))
}

async fn query(client: &AdminClient, args: &QueryArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let mut body = json!({"query": args.query, "limit": args.limit});
    if args.user.is_some() || !args.group.is_empty() {
        body["groups"] = json!(args.group);
        if let Some(user) = &args.user {
            body["user"] = json!(user);
        }
    }
    let found = client.request(Method::POST, "/admin/knowledge/query", Some(&body)).await?;
    if args.json {
        terminal.data(&format!("{found:#}\n"))?;
        return Ok(None);
    }
    for passage in list_of(&found["passages"]).filter(|passage| args.explain || passage["cut"].is_null()) {
        terminal.data(&described(passage, args.explain))?;
    }
    if args.explain {
        explain(&found, terminal);
    }
    if !list_of(&found["passages"]).any(|passage| passage["cut"].is_null()) {
        terminal.message(nothing_found(&found));
    }
    Ok(None)
}

/// One passage: where it is from, and with `--explain` how it came to its place.
fn described(passage: &Value, explain: bool) -> String {
    let score = passage["score"].as_f64().unwrap_or_default();
    let mut text = format!("{score:.3}  {} (passage {})\n", short(&passage["source"]), number(&passage["passage"]));
    if explain {
        let words: Vec<String> = list_of(&passage["words"]).map(short).collect();
        let place = |place: &Value, what: &str| {
            let rank = place["rank"].as_u64()?;
            Some(format!("{what} {rank} ({:.3})", place["score"].as_f64().unwrap_or_default()))
        };
        let mut facts: Vec<String> = Vec::new();
        facts.extend((!words.is_empty()).then(|| format!("words: {}", words.join(", "))));
        facts.extend(place(&passage["byWords"], "place by words"));
        facts.extend(place(&passage["byMeaning"], "place by meaning"));
        facts.extend(passage["cut"].as_str().map(|cut| format!("not used: {}", one_line(cut, TEXT_CHARS))));
        text.push_str(&format!("       {}\n", facts.join("; ")));
    }
    let passage = passage["text"].as_str().unwrap_or_default();
    text.push_str(&format!("       {}\n", one_line(passage, PASSAGE_CHARS)));
    text
}

fn explain(found: &Value, terminal: &Terminal) {
    let words = |used: bool| {
        let words = list_of(&found["words"]).filter(|word| word["used"] == used);
        words.map(|word| short(&word["word"])).collect::<Vec<_>>().join(", ")
    };
    let (used, unused) = (words(true), words(false));
    if !used.is_empty() {
        terminal.message(&format!("looked for: {used}"));
    }
    if !unused.is_empty() {
        terminal.message(&format!("in no document, or too common in a long question: {unused}"));
    }
    let vectors = &found["vectors"];
    let meaning = match vectors["state"].as_str().unwrap_or_default() {
        "searched" => format!(
            "compared with {} passages by {}; a passage needs {:.2}",
            number(&vectors["compared"]),
            short(&vectors["model"]),
            vectors["floor"].as_f64().unwrap_or_default()
        ),
        "unavailable" => format!("not this time: {}", short(&vectors["reason"])),
        "not-asked" => "not asked, because there is nothing to look for or to compare with".to_owned(),
        _ => "off (knowledge.embedding_model is not set)".to_owned(),
    };
    terminal.message(&format!("by meaning: {meaning}"));
    if let Some(hidden @ 1..) = found["hiddenPassages"].as_u64() {
        terminal.message(&format!("{hidden} more passages share a word, and their access rules hide them here"));
    }
}

fn nothing_found(found: &Value) -> &'static str {
    if list_of(&found["words"]).next().is_none() {
        "nothing is looked for: the question has no word with a content of its own"
    } else if list_of(&found["passages"]).next().is_none() {
        "nothing fits: no document has one of the question's words"
    } else {
        "nothing fits well enough"
    }
}

/// What a run did, in one line; the skipped files are said one by one.
fn outcome(report: &Value, terminal: &Terminal) -> String {
    skipped(report, terminal);
    let run = &report["run"];
    let count = |key: &str| run[key].as_u64().unwrap_or_default();
    let documents = count("documentsSeen").saturating_sub(count("documentsSkipped"));
    let text =
        format!("{documents} documents, {} passages, {} skipped", count("chunksIndexed"), count("documentsSkipped"));
    match run["error"].as_str() {
        Some(error) => format!("failed: {}; {text}", one_line(error, 2 * TEXT_CHARS)),
        None => text,
    }
}

fn skipped(report: &Value, terminal: &Terminal) {
    for skip in list_of(&report["skipped"]).take(SKIPPED_SHOWN) {
        terminal.message(&format!("skipped {}: {}", short(&skip["document"]), short(&skip["reason"])));
    }
    let unnamed = list_of(&report["skipped"]).count().saturating_sub(SKIPPED_SHOWN) as u64
        + report["skippedUnnamed"].as_u64().unwrap_or_default();
    if unnamed > 0 {
        terminal.message(&format!("skipped {unnamed} more; --json names more of them"));
    }
}

fn has_failed(report: &Value) -> bool {
    report["run"]["status"] == "failed"
}

fn list_of(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn short(value: &Value) -> String {
    one_line(value.as_str().unwrap_or("-"), TEXT_CHARS)
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}
