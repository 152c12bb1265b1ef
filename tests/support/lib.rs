//! What the tests share: a server and a gateway on real ports, a client that checks what it reads, the strict shape of
//! every frame, and plugins that are built as an author would.

pub mod client;
pub mod frames;
pub mod http;
pub mod model;
pub mod needs;
pub mod numbering;
pub mod ordering;
pub mod plugins;
pub mod scenario;
pub mod server;
pub mod tokens;
