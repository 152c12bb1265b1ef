//! What the server says over plain HTTP, and who may speak to it at all.

pub mod guard;
