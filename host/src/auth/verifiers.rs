//! skeleton
/// skeleton
pub struct LocalTokenVerifier;
/// skeleton
pub struct NoAuthVerifier;
/// skeleton
pub struct PermissiveWidgetAuth;
