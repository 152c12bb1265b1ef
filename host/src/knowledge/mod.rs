//! The knowledge base: documents go in, passages that answer a question come out.

mod chunk;
mod index;
mod seed;

pub use index::KnowledgeBase;
pub(crate) use seed::demo_documents;

/// Who may find a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentAcl {
    /// Everyone in the organisation.
    pub public: bool,
    /// These user ids.
    pub users: Vec<String>,
    /// Members of these groups.
    pub groups: Vec<String>,
}

/// A document to be indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Identifies the document within its organisation; a document with the same id is replaced.
    pub id: String,
    /// What a citation shows: a path, a name or an address.
    pub source: String,
    /// Plain text or Markdown.
    pub text: String,
    /// The organisation whose turns may find it.
    pub org_id: String,
    /// Who in the organisation may find it; `None` means everyone.
    pub acl: Option<DocumentAcl>,
    /// The set it belongs to, for the admin listing.
    pub document_set: Option<String>,
}

/// Who asks: decides which documents can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// The organisation of the turn.
    pub org_id: String,
    /// The verified user, if any.
    pub user_id: Option<String>,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// One passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document it is from.
    pub document_id: String,
    /// What a citation shows.
    pub source: String,
    /// The passage.
    pub text: String,
    /// Relevance; higher is better, comparable only within one search.
    pub score: f32,
}

/// Why documents could not be indexed or searched.
#[derive(Debug, thiserror::Error)]
#[error("the knowledge base failed: {0}")]
pub struct KnowledgeError(pub String);
