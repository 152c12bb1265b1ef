//! Tools: what this turn may call, and one call from the model's text to exactly one result.
//!
//! ```text
//!  built-ins ─────────────┐
//!  embedder's provider ───┤ source: ask all at once, within a budget ──▶ toolset: merge by name ──▶ ToolSet
//!  active plugins ────────┘                                     schema: lint, compile once ──┘        │
//!                                                                                                     ▼
//!  model's call ──▶ call::prepare (find, parse, validate) ──▶ gate (ask a human?) ──▶ call::run ──▶ ToolCallResult
//!                                                                                                     │
//!                                                              loops: the same again and again? ◀─────┘
//! ```
//!
//! What never happens here: a tool list that changes within a turn; arguments that reach a tool unchecked; a call
//! without a result, or with two; a panic of a tool that leaves this module; an argument's value in a log line. This
//! module never sees a turn or a socket: it receives what it needs as values.

mod call;
mod canonical;
mod gate;
mod interaction;
mod issue_refund;
mod knowledge_search;
mod loops;
mod schema;
mod source;
mod toolset;

pub(crate) use call::{CallOutcome, CallSetup, PreparedCall, ProgressSink, ToolCallResult, ToolCaller, ToolProgress};
pub(crate) use canonical::{CallDigest, canonical_json};
pub(crate) use gate::{AskReason, needs_confirmation};
#[cfg(test)]
pub(crate) use interaction::InteractionKind;
pub(crate) use interaction::{Accepted, Form, InteractionOutcome, Interactions, remember_identity};
pub(crate) use issue_refund::issue_refund;
pub(crate) use knowledge_search::{HitSink, knowledge_search};
pub(crate) use loops::{LoopGuard, LoopVerdict};
pub(crate) use schema::SchemaCache;
pub(crate) use source::{Offer, Origin, SourceRules, ToolLister, ToolSources, ask_all};
pub(crate) use toolset::{BuiltIn, OfferedTool, ToolSet, Toolbox};
