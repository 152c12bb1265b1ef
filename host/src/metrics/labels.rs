//! What tells one count from another. Every label has a bounded number of values.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use prometheus_client::encoding::EncodeLabelSet;

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) outcome: &'static str,
}

/// What a human said, or what stood for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Decision {
    pub(super) decision: &'static str,
}

/// What somebody found who came back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Found {
    pub(super) result: &'static str,
}

/// A model call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelCall {
    pub(super) provider: &'static str,
    pub(super) model: String,
    pub(super) outcome: &'static str,
}

/// Tokens by direction and by who counted them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Tokens {
    pub(super) direction: &'static str,
    pub(super) provenance: &'static str,
}

/// Who counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Provenance {
    pub(super) provenance: &'static str,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ToolCall {
    pub(super) plugin: String,
    pub(super) tool: String,
    pub(super) outcome: &'static str,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Plugin {
    pub(super) plugin: String,
}

/// A plugin and the state that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PluginState {
    pub(super) plugin: String,
    pub(super) state: &'static str,
}

/// What a name is replaced by when there are too many.
pub(super) const OTHER: &str = "other";

/// Names that clients, models or providers choose, as far as they are told apart.
pub(super) struct BoundedNames {
    /// Held for a look only.
    known: Mutex<BTreeSet<String>>,
    max: usize,
}

impl BoundedNames {
    /// The first `max` names keep theirs.
    pub(super) fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max }
    }

    /// The name, or [`OTHER`].
    pub(super) fn name<'a>(&self, name: &'a str) -> &'a str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(name) {
            return name;
        }
        if known.len() >= self.max {
            return OTHER;
        }
        known.insert(name.to_owned());
        name
    }
}
