//! Plugins tried by hand, without a server: one call of one tool, and the whole conformance kit.
//!
//! ```text
//!   check:  read, verify ──▶ a child of this program ──▶ load, kit, stop ──▶ report, line by line
//!                                  └── crashed, hung ──▶ one more line: during what
//!   call:   read, verify ──▶ load here ──▶ validate ──▶ may it? ──▶ one result
//! ```
//!
//! What never happens: a file that `verify` refuses is run; a plugin's crash or hang ends the check itself.

mod call;
mod check;
mod kit;
mod single;

pub use call::{CallRequest, Called, call};
pub use check::{CheckRequest, check};
pub use kit::{OWN_THREADS, run_kit};
