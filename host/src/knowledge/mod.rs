//! The knowledge base: documents go in, passages that answer a question come out.
//!
//! ```text
//!   file ──convert──▶ document ──chunk──▶ passages ─┬─words──▶ lexical ◀──words─── question
//!                                                   │             │ organisation and access rules
//!                                                   │             ▼ are part of each search
//!                                                   │           fuse ──▶ hits, best first
//!                                                   │             ▲
//!                                                   └─vectors─▶ dense ◀──vector─── question
//! ```
//!
//! A passage is found when it shares at least one content word with the question, whatever the word's ending, and the
//! one who asks may read its document. Where a model makes vectors, a passage is also found when its meaning is near
//! enough; the vectors are made in the background, and searching by words goes on without them. Nothing finds a passage
//! of another organisation, and small talk finds nothing.

mod access;
mod base;
mod catalog;
mod chunk;
mod convert;
mod dense;
mod explain;
mod files;
mod fuse;
mod html;
mod lexical;
mod seed;
mod vectors;
mod words;

pub use access::{AclError, DocumentAcl, Requester};
pub use base::KnowledgeBase;
pub use convert::{Format, Unreadable};
pub use dense::{DenseState, DenseStatus};
pub use explain::{Cut, DenseReport, ExplainedPassage, Explanation, QuestionWord, Ranked};
pub use files::{FileDocument, Files, PlaceError, Skip};
pub use seed::{DEMO_DOCUMENT_SET, DEMO_PERSONA, demo_documents};

/// A document to be indexed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The source or connector it comes from; `None` for what a program gave. A document never replaces one of another
    /// origin.
    pub origin: Option<String>,
}

impl Document {
    /// A document that everyone may find and that is cited by its id. It has no organisation: a
    /// [`LocalServerBuilder`](crate::local::LocalServerBuilder) gives it the server's own, the knowledge base itself
    /// refuses it.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        let id = id.into();
        Self { source: id.clone(), id, text: text.into(), ..Self::default() }
    }
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
    /// The source or connector it comes from.
    pub origin: Option<String>,
    /// How many passages it was cut into.
    pub passages: usize,
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
    /// Another source has a document of this id.
    #[error("{owner} already has a document with this id; give this one another id or remove the other")]
    Taken {
        /// The origin of the other document.
        owner: String,
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
