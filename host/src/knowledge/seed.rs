//! skeleton
pub(crate) fn demo_documents() {}
