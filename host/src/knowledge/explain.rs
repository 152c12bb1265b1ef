//! What a search did, for the one who asks why a document was used or not.

use super::Hit;

/// A search, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The content words of the question, as they are compared. Without one nothing is looked for.
    pub words: Vec<QuestionWord>,
    /// What searching by vectors did.
    pub dense: DenseReport,
    /// The passages that were found, best first: those that a turn would be given, then those that were cut.
    pub passages: Vec<ExplainedPassage>,
    /// Passages of the organisation that share a word with the question, but that the requester may not read.
    pub hidden: usize,
}

/// A content word of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionWord {
    /// In lower case and without its ending.
    pub word: String,
    /// Passages that have it, those of other organisations included.
    pub passages: u64,
    /// Whether it took part. A word that no passage has did not, nor did the most common ones of a long question.
    pub used: bool,
}

/// What searching by vectors did.
#[derive(Clone, Debug, PartialEq)]
pub enum DenseReport {
    /// No embedding model is configured.
    Off,
    /// The question has no content word, or there is nothing to compare it with, so the model was not asked.
    NotAsked,
    /// It did not work this time, so the words alone decided.
    Unavailable(String),
    /// It took part.
    Searched {
        /// The embedding model.
        model: String,
        /// How many passages the question was compared with.
        compared: usize,
        /// The cosine that a passage needs.
        floor: f32,
    },
}

/// A passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedPassage {
    /// The passage, and its final score.
    pub hit: Hit,
    /// Its number in its document, counted from 0.
    pub passage: usize,
    /// The question's words that it has.
    pub words: Vec<String>,
    /// Its place by words, and its BM25 score.
    pub lexical: Option<Ranked>,
    /// Its place by meaning, and its cosine.
    pub dense: Option<Ranked>,
    /// Why a turn would not be given it.
    pub cut: Option<Cut>,
}

/// A place in one of the two rankings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Counted from 1.
    pub rank: usize,
    /// In the ranking's own measure.
    pub score: f32,
}

/// Why a passage that was found is not used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Cut {
    /// Others are better.
    #[error("it comes after the {limit} that are used")]
    PastLimit {
        /// How many are used.
        limit: usize,
    },
    /// It shares no word with the question, and its meaning is not near enough.
    #[error("it shares no word with the question, and its similarity {similarity:.2} is below {floor:.2}")]
    NotSimilar {
        /// Its cosine.
        similarity: f32,
        /// The cosine that it would need.
        floor: f32,
    },
}
