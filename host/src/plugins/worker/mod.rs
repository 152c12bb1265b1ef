//! Plugins that run isolated: the same library, loaded by a child process of the host and served to it over a socket.
//!
//! ```text
//!   link ──spawn──▶ child: closes what it inherited, says hello, is told what it is, fences itself in,
//!    │                     opens the library, makes the provider
//!    ├──session: frames──▶ jobs on the plugin's threads
//!    └──died──▶ the calls under way fail, a pause, spawn
//! ```
//!
//! | file | what |
//! |---|---|
//! | `frames`, `setup`, `budget`, `lines`, `backoff` | pure: what is said, and how much of it |
//! | `outbox` | the frames that wait to be written |
//! | `link`, `session`, `tools`, `spawn` | the host's side |
//! | `child`, `confine`, `descriptors` | the worker's side |
//!
//! What never happens: the host believes what a worker sends without checking it; the plugin's code runs in the worker
//! before its fences stand; a worker outlives its host's end of the socket for longer than the limit
//! `plugin_shutdown`, unless the plugin is hostile and was granted to be.

mod backoff;
mod budget;
mod child;
mod confine;
mod descriptors;
mod frames;
mod lines;
mod link;
mod outbox;
mod runtime;
mod session;
mod setup;
mod spawn;
mod tools;

pub(crate) use child::serve;
pub(super) use link::create;
pub(crate) use spawn::REQUEST;

/// Both sides have to be of this version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
