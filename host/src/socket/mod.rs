//! One open WebSocket.
//!
//! ```text
//! GET /ws ─▶ upgrade ─▶ reader: frame ─▶ Action ─▶ actions::dispatch
//!                       writer: outgoing queue ─▶ frames
//! ```
//!
//! The reader handles frames one after the other, so that a frame sees what the one before it did; a turn runs in a
//! task of its own. A connection knows nothing of turns but whether it has one.

mod connection;
mod live;
mod upgrade;

pub(crate) use live::{Live, WidgetPage};
pub(crate) use upgrade::{bearer_header, upgrade};
