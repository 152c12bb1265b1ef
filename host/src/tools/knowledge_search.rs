//! The built-in tool that searches the knowledge base, with the rights of whoever asks. Every hit it shows the model
//! also goes to the turn's citations.

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolSchema};
use serde_json::{Value, json};

use super::BuiltIn;
use crate::knowledge::{Hit, KnowledgeBase, KnowledgeError, Requester};

/// Hits per search when the model does not say.
const LIMIT_DEFAULT: u64 = 3;
/// Most hits per search.
const LIMIT_MAX: u64 = 10;
/// Hits that one turn can cite; more are shown to the model, but not kept.
const HITS_KEPT: usize = 256;

/// The tool for one turn. `hits` receives what it finds.
pub(crate) fn knowledge_search(knowledge: Arc<dyn PassageSearch>, requester: Requester, hits: HitSink) -> BuiltIn {
    BuiltIn { schema: SCHEMA.clone(), tool: Arc::new(KnowledgeSearch { knowledge, requester, hits }) }
}

/// What can be searched for passages. The knowledge base is the one that ships.
#[async_trait]
pub(crate) trait PassageSearch: Send + Sync + 'static {
    /// The best passages for the question that the requester may see, best first.
    async fn search(&self, requester: &Requester, query: &str, limit: usize) -> Result<Vec<Hit>, KnowledgeError>;
}

#[async_trait]
impl PassageSearch for KnowledgeBase {
    async fn search(&self, requester: &Requester, query: &str, limit: usize) -> Result<Vec<Hit>, KnowledgeError> {
        KnowledgeBase::search(self, requester, query, limit).await
    }
}

/// Collects the hits of a turn for its citations. Clones share one collection.
#[derive(Clone, Debug, Default)]
pub(crate) struct HitSink(Arc<Mutex<Vec<Hit>>>);

impl HitSink {
    /// Adds hits at the end; past the bound they are dropped.
    pub(crate) fn add(&self, hits: &[Hit]) {
        let mut kept = self.lock();
        let room = HITS_KEPT.saturating_sub(kept.len());
        kept.extend(hits.iter().take(room).cloned());
    }

    /// Takes everything out, in the order it came.
    pub(crate) fn take(&self) -> Vec<Hit> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Hit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static SCHEMA: LazyLock<Arc<ToolSchema>> = LazyLock::new(|| {
    let parameters = json!({
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what to look for"},
            "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
        },
        "required": ["query"],
    });
    let description = "Searches the knowledge base and returns the passages that fit best, with their sources. \
                       Use it before answering anything that the documents may decide.";
    Arc::new(ToolSchema::new("knowledge_search", description, parameters))
});

struct KnowledgeSearch {
    knowledge: Arc<dyn PassageSearch>,
    requester: Requester,
    hits: HitSink,
}

#[async_trait]
impl Tool for KnowledgeSearch {
    fn schema(&self) -> ToolSchema {
        ToolSchema::clone(&SCHEMA)
    }

    async fn execute(&self, arguments: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        let query = arguments["query"].as_str().unwrap_or_default().trim();
        if query.is_empty() {
            return Err(ToolError::InvalidArguments("the query is blank; say what to look for".to_owned()));
        }
        let limit = arguments["limit"].as_u64().unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let hits = self.knowledge.search(&self.requester, query, usize::try_from(limit)?).await?;
        self.hits.add(&hits);
        Ok(result_text(&hits).into())
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

fn result_text(hits: &[Hit]) -> String {
    if hits.is_empty() {
        return "Nothing in the knowledge base matches this query.".to_owned();
    }
    let mut text = format!("{} {} found:", hits.len(), if hits.len() == 1 { "passage" } else { "passages" });
    for (index, hit) in hits.iter().enumerate() {
        let Hit { document_id, source, text: passage, score } = hit;
        write!(text, "\n\n{}. {source} (document {document_id}, relevance {score:.2})\n{passage}", index + 1)
            .expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tools::call::tests::context;

    struct Fixed(Result<Vec<Hit>, String>);

    #[async_trait]
    impl PassageSearch for Fixed {
        async fn search(&self, requester: &Requester, query: &str, limit: usize) -> Result<Vec<Hit>, KnowledgeError> {
            assert_eq!((requester.org_id.as_str(), query), ("org", "returns"));
            self.0.clone().map(|hits| hits.into_iter().take(limit).collect()).map_err(KnowledgeError)
        }
    }

    fn hit(number: usize) -> Hit {
        Hit {
            document_id: format!("doc-{number}"),
            source: format!("policies/{number}.md"),
            text: format!("Passage {number}."),
            score: 1.0 / (number as f32 + 2.0),
        }
    }

    async fn run(found: Result<Vec<Hit>, String>, arguments: Value) -> (Result<String, ToolError>, Vec<Hit>) {
        let requester = Requester { org_id: "org".to_owned(), ..Requester::default() };
        let sink = HitSink::default();
        let search = knowledge_search(Arc::new(Fixed(found)), requester, sink.clone());
        assert_eq!(*search.schema, search.tool.schema());
        let output = search.tool.execute(arguments, context()).await;
        (output.map(|output| output.to_text()), sink.take())
    }

    #[tokio::test]
    async fn hits_are_numbered_and_feed_the_citations() {
        let (text, cited) = run(Ok((0..5).map(hit).collect()), json!({"query": " returns "})).await;
        assert_eq!(
            text.unwrap(),
            "3 passages found:\n\n\
             1. policies/0.md (document doc-0, relevance 0.50)\nPassage 0.\n\n\
             2. policies/1.md (document doc-1, relevance 0.33)\nPassage 1.\n\n\
             3. policies/2.md (document doc-2, relevance 0.25)\nPassage 2."
        );
        assert_eq!(cited, [hit(0), hit(1), hit(2)]);
        let (text, cited) = run(Ok((0..5).map(hit).collect()), json!({"query": "returns", "limit": 1})).await;
        assert!(text.unwrap().starts_with("1 passage found:"));
        assert_eq!(cited.len(), 1);
    }

    #[tokio::test]
    async fn nothing_found_is_a_sentence_and_a_blank_query_an_error() {
        let (text, cited) = run(Ok(Vec::new()), json!({"query": "returns"})).await;
        assert_eq!(text.unwrap(), "Nothing in the knowledge base matches this query.");
        assert!(cited.is_empty());
        let (error, _) = run(Ok(Vec::new()), json!({"query": "  "})).await;
        assert!(matches!(error, Err(ToolError::InvalidArguments(_))), "{error:?}");
        let (error, _) = run(Err("index gone".to_owned()), json!({"query": "returns"})).await;
        assert_eq!(error.unwrap_err().message(), "the knowledge base failed: index gone");
    }

    #[test]
    fn the_sink_is_bounded_and_emptied_once() {
        let sink = HitSink::default();
        let many: Vec<Hit> = (0..HITS_KEPT + 5).map(hit).collect();
        sink.clone().add(&many);
        assert_eq!(sink.take().len(), HITS_KEPT);
        assert!(sink.take().is_empty());
    }
}
