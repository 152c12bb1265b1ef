//! One turn: a user message until its terminal event.
//!
//! ```text
//!            send_message                     reply stored
//!   (idle) ──────────────▶ RUNNING ─────────────────────────▶ eventual_response
//!                           │   ▲ ─── failure ──────────────▶ error AGENT_ERROR
//!              gated call   ▼   │ verdict, deadline
//!                          PARKED ─── cancel (from anywhere) ▶ cancelled
//! ```
//!
//! A turn belongs to its conversation: it writes to a log of its own, and connections subscribe. It never sees a
//! socket.

mod agents;
mod aside;
mod attendance;
mod auth_gate;
mod character;
mod citations;
mod confirmation;
mod ended;
mod history;
mod hooks;
mod interaction;
mod kept;
mod log;
mod park;
mod preamble;
mod prompt;
mod reading;
mod registry;
mod reply;
mod run;
mod skills;
mod stopwatch;
mod title;
mod tool_calls;
mod transcript;
mod turn_tools;
mod verification;

pub(crate) use agents::Agents;
pub use agents::{AgentConfigResolver, AgentQuery, AgentUnavailable};
pub(crate) use attendance::{Attendance, AttendanceGuard};
pub use character::PersonaOrigin;
pub use hooks::{HookedCall, ToolHook};
pub(crate) use log::{Dialect, Standing, Subscriber};
pub(crate) use park::{FormAnswer, Verdict};
pub(crate) use prompt::base_persona;
pub use prompt::{PromptComposer, PromptContext, PromptPart, PromptSection};
pub(crate) use registry::{Busy, FoundTurn, RunningTurn, TurnIds, TurnRegistry};
pub use run::KnowledgeChatRuntime;
pub(crate) use run::TurnRequest;
pub(crate) use skills::SkillFolders;
pub use skills::{Skill, SkillResolver};
pub(crate) use turn_tools::TurnTools;
