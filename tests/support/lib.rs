//! What the tests of several packages share: a client that checks what it reads, and the strict shape of every frame.

pub mod client;
pub mod frames;
pub mod ordering;
