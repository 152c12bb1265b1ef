//! The knowledge base: documents go in, passages that answer a question come out.
//!
//! ```text
//!   document ──chunk──▶ passages ──words──▶ index ◀──words── question
//!                                             │ organisation and access rules are part of the query
//!                                             ▼
//!                                        hits, best first
//! ```
//!
//! A passage is found when it shares at least one content word with the question, whatever the word's ending, and the
//! one who asks may read its document. It never returns a passage of another organisation, and small talk finds nothing.

mod chunk;
mod index;
mod seed;
mod words;

pub use index::KnowledgeBase;
pub use seed::{DEMO_DOCUMENT_SET, DEMO_PERSONA, demo_documents};

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
    /// The organisation whose turns may find it; a document without one is refused, because no turn could find it.
    pub org_id: String,
    /// Who in the organisation may find it; `None` means everyone.
    pub acl: Option<DocumentAcl>,
    /// The set it belongs to, for the admin listing.
    pub document_set: Option<String>,
}

/// What is known about an indexed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSummary {
    /// Its id.
    pub id: String,
    /// What a citation shows.
    pub source: String,
    /// The set it belongs to.
    pub document_set: Option<String>,
    /// How many passages it was cut into.
    pub passages: usize,
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

/// The index itself failed; a bug, not something a question or a document can cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the knowledge base failed: {0}")]
pub struct KnowledgeError(pub String);

/// Why a document was not indexed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The document cannot be told from others.
    #[error("a document needs an id of 1 to {max} bytes, this one has {found}")]
    BadId {
        /// Length of the id, in bytes.
        found: usize,
        /// The longest one that is accepted.
        max: usize,
    },
    /// The document belongs to nobody.
    #[error(
        "a document needs an organisation of 1 to {max} bytes, this one has {found}; without it no turn could find it"
    )]
    BadOrganisation {
        /// Length of the organisation's id, in bytes.
        found: usize,
        /// The longest one that is accepted.
        max: usize,
    },
    /// The document has nothing to find.
    #[error("the document has no text")]
    NoText,
    /// The document is longer than is accepted.
    #[error("the document has {found} {unit}, the limit {limit} allows {max}; split it")]
    TooLarge {
        /// What was counted.
        unit: &'static str,
        /// How many there are.
        found: usize,
        /// Name of the limit in the configuration.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// There are as many documents as may be.
    #[error("the limit knowledge_documents of {max} is reached; remove documents or raise it")]
    Full {
        /// The limit's value.
        max: usize,
    },
    /// The index failed, so none of the documents given with this one was indexed.
    #[error(transparent)]
    Index(#[from] KnowledgeError),
}
