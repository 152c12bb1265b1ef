//! skeleton
/// skeleton
pub struct KnowledgeBase;
