//! What the tests of several packages share: a server and a gateway on real ports, a client that checks what it reads,
//! and the strict shape of every frame.

pub mod client;
pub mod frames;
pub mod model;
pub mod needs;
pub mod ordering;
pub mod server;
