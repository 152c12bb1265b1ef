//! The wire in one room: what a client may ask ([`Action`]) and what it is told ([`Event`]). Data only: nothing here
//! knows a socket, a session or a turn, and JSON stays inside: it is read by [`Action::parse`] and written by
//! [`EventFrame::write_json`]; [`schema`] describes both.

pub mod action;
pub mod capabilities;
pub mod error_code;
pub mod event;
pub mod objects;
pub mod schema;

pub use action::{Action, ActionError, Frame};
pub use error_code::ErrorCode;
pub use event::{Event, EventFrame, ResponseData};
