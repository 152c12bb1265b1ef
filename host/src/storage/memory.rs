//! skeleton
/// skeleton
pub struct InMemoryStorageAdapter;
