//! skeleton
/// skeleton
pub struct UserScope;
