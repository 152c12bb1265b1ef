//! The tools of one turn: merged from all sources by fixed rules, sorted by name, and the same for the whole turn.
//!
//! Precedence: a built-in tool; over it the embedder's tool of the same name; over it a plugin's, but only when the
//! operator's `replaces` for that plugin lists the name. No plugin ever takes the place of an embedder's tool or of
//! `submit_interaction`, through which a human's answers come. Two plugins with one name are settled by
//! [`NameConflict`]. What is not offered is reported with its reason.
//!
//! Rationale for the order by name: gateways cache the beginning of a prompt, which holds the tools, so the same tools
//! must always make the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use jackfield_plugin_api::{Tool, ToolSchema};

use super::{
    interaction::SUBMIT_TOOL,
    schema::{ArgumentSchema, LintedSchema, SchemaCache, wire_name},
    source::{Offer, Origin, SourceRules, ToolLister, panic_text},
};
use crate::{
    config::{AskPolicy, Limits, NameConflict},
    ids::PluginId,
    model::ModelTool,
};

/// Merges that are kept. Turns differ by what their agent may use and what their client can show, which makes a few.
const PLANS_KEPT: usize = 8;
/// Names that are proposed for one that is not found.
const NAMES_PROPOSED: usize = 3;

/// A tool of this server.
#[derive(Clone)]
pub(crate) struct BuiltIn {
    /// What [`Tool::schema`] says, shared so that a turn does not build it anew.
    pub(crate) schema: Arc<ToolSchema>,
    /// The tool.
    pub(crate) tool: Arc<dyn Tool>,
}

/// What is known about an offered tool before it is called.
#[derive(Debug)]
pub(crate) struct ToolFacts {
    /// The name the model calls; see [`wire_name`].
    pub(crate) wire_name: String,
    /// The name the tool gives itself.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) origin: Origin,
    /// The operator's setting for the plugin it is from.
    pub(crate) ask: AskPolicy,
    /// What its arguments must be.
    pub(crate) arguments: Arc<ArgumentSchema>,
}

/// A tool that this turn may call.
#[derive(Clone)]
pub(crate) struct OfferedTool {
    /// What is known about it.
    pub(crate) facts: Arc<ToolFacts>,
    /// The tool itself. Every method may be foreign code and may panic.
    pub(crate) tool: Arc<dyn Tool>,
    /// Who offers it, when that is not this server; told when a call goes wrong.
    pub(crate) lister: Option<Arc<dyn ToolLister>>,
}

/// A tool that was offered and is not in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Who offered it.
    pub(crate) origin: Origin,
    /// Its name; empty when it could not even say that.
    pub(crate) tool: String,
    /// What is wrong and what to do.
    pub(crate) reason: String,
}

/// The tools of one turn. Never changes.
#[derive(Clone)]
pub(crate) struct ToolSet {
    plan: Arc<Plan>,
    /// In the order of the plan.
    tools: Vec<(Arc<dyn Tool>, Lister)>,
}

/// Who offered a tool; nobody did a built-in one.
type Lister = Option<Arc<dyn ToolLister>>;

impl ToolSet {
    /// The tools as the model sees them, sorted by name.
    pub(crate) fn model_tools(&self) -> Arc<[ModelTool]> {
        self.plan.model_tools.clone()
    }

    /// The tool with this wire name.
    pub(crate) fn get(&self, wire_name: &str) -> Option<OfferedTool> {
        let index = self.plan.picks.binary_search_by(|pick| pick.facts.wire_name.as_str().cmp(wire_name)).ok()?;
        let (tool, lister) = self.tools[index].clone();
        Some(OfferedTool { facts: self.plan.picks[index].facts.clone(), tool, lister })
    }

    /// The wire names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.plan.picks.iter().map(|pick| pick.facts.wire_name.as_str())
    }

    /// The names that a model may have meant by one that is not there, best first.
    pub(crate) fn close_names(&self, wanted: &str) -> Vec<&str> {
        let folded = fold(wanted);
        let mut close: Vec<(usize, &str)> =
            self.names().filter_map(|name| Some((closeness(&folded, &fold(name))?, name))).collect();
        close.sort_unstable();
        close.into_iter().take(NAMES_PROPOSED).map(|(_, name)| name).collect()
    }
}

/// Puts the tools of every turn together. What was merged lately is not merged again.
pub(crate) struct Toolbox {
    name_conflict: NameConflict,
    tools_per_turn: usize,
    schemas: SchemaCache,
    /// Held for a look-up or a swap, never while tools are merged.
    memos: Mutex<VecDeque<Memo>>,
}

impl Toolbox {
    /// A toolbox with the operator's rules.
    pub(crate) fn new(name_conflict: NameConflict, limits: &Limits) -> Self {
        Self {
            name_conflict,
            tools_per_turn: limits.tools_per_turn,
            schemas: SchemaCache::new(limits),
            memos: Mutex::default(),
        }
    }

    /// The tools of one turn. `allowed` keeps only the named ones; absent or empty it restricts nothing.
    pub(crate) fn assemble(&self, built_ins: &[BuiltIn], offers: &[Offer], allowed: Option<&[String]>) -> ToolSet {
        let allowed = allowed.unwrap_or_default();
        let plan = self.known_plan(built_ins, offers, allowed).unwrap_or_else(|| {
            let plan = Arc::new(self.merge(built_ins, offers, allowed));
            self.remember(built_ins, offers, allowed, &plan);
            plan
        });
        let tools = plan.picks.iter().map(|pick| pick.place.tool(built_ins, offers)).collect();
        ToolSet { plan, tools }
    }

    fn known_plan(&self, built_ins: &[BuiltIn], offers: &[Offer], allowed: &[String]) -> Option<Arc<Plan>> {
        let memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        memos.iter().find(|memo| memo.is_for(built_ins, offers, allowed)).map(|memo| memo.plan.clone())
    }

    fn remember(&self, built_ins: &[BuiltIn], offers: &[Offer], allowed: &[String], plan: &Arc<Plan>) {
        let memo = Memo::new(built_ins, offers, allowed, plan.clone());
        let mut memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        // A provider that makes its tools anew for every turn must not fill the log with the same lines.
        let was_said = memos.iter().any(|before| before.plan.refusals == plan.refusals);
        memos.push_front(memo);
        memos.truncate(PLANS_KEPT);
        drop(memos);
        if !was_said {
            for Refusal { origin, tool, reason } in &plan.refusals {
                tracing::warn!(%origin, tool, reason, "a tool is not offered");
            }
        }
    }

    fn merge(&self, built_ins: &[BuiltIn], offers: &[Offer], allowed: &[String]) -> Plan {
        let mut merge = Merge { schemas: &self.schemas, slots: BTreeMap::new(), refusals: Vec::new() };
        merge.add_built_ins(built_ins);
        merge.add_embedder(offers);
        merge.add_plugins(offers, self.name_conflict);
        merge.retain(allowed);
        merge.limit(self.tools_per_turn);
        merge.finish()
    }
}

/// The outcome of a merge, which depends on descriptions only, not on the tool objects.
struct Plan {
    /// Sorted by wire name.
    picks: Vec<Pick>,
    model_tools: Arc<[ModelTool]>,
    refusals: Vec<Refusal>,
}

struct Pick {
    facts: Arc<ToolFacts>,
    place: Place,
}

/// Where a tool is found among what was offered.
#[derive(Clone, Copy, Debug)]
enum Place {
    BuiltIn(usize),
    Offer(usize, usize),
}

impl Place {
    fn tool(self, built_ins: &[BuiltIn], offers: &[Offer]) -> (Arc<dyn Tool>, Lister) {
        match self {
            Place::BuiltIn(index) => (built_ins[index].tool.clone(), None),
            Place::Offer(offer, index) => (offers[offer].tools[index].clone(), Some(offers[offer].lister.clone())),
        }
    }
}

/// What the last plan was made from. Built-ins are new objects each turn with a shared schema; the other tools are
/// compared by address, and the weak references keep those addresses from being used again.
struct Memo {
    built_ins: Vec<Arc<ToolSchema>>,
    offers: Vec<KnownOffer>,
    allowed: Vec<String>,
    plan: Arc<Plan>,
}

/// Whose tools, by which rules, and which objects.
type KnownOffer = (Origin, SourceRules, Vec<Weak<dyn Tool>>);

impl Memo {
    fn new(built_ins: &[BuiltIn], offers: &[Offer], allowed: &[String], plan: Arc<Plan>) -> Self {
        let offers = offers
            .iter()
            .map(|offer| (offer.origin.clone(), offer.rules.clone(), offer.tools.iter().map(Arc::downgrade).collect()));
        Self {
            built_ins: built_ins.iter().map(|built_in| built_in.schema.clone()).collect(),
            offers: offers.collect(),
            allowed: allowed.to_vec(),
            plan,
        }
    }

    fn is_for(&self, built_ins: &[BuiltIn], offers: &[Offer], allowed: &[String]) -> bool {
        let same_tools = |known: &[Weak<dyn Tool>], tools: &[Arc<dyn Tool>]| {
            let addresses = known.iter().map(|tool| tool.as_ptr().cast::<()>());
            addresses.eq(tools.iter().map(|tool| Arc::as_ptr(tool).cast::<()>()))
        };
        self.allowed == allowed
            && self.built_ins.len() == built_ins.len()
            && self.built_ins.iter().zip(built_ins).all(|(known, new)| Arc::ptr_eq(known, &new.schema))
            && self.offers.len() == offers.len()
            && self.offers.iter().zip(offers).all(|((origin, rules, tools), offer)| {
                *origin == offer.origin && *rules == offer.rules && same_tools(tools, &offer.tools)
            })
    }
}

/// A tool on its way into the set.
struct Candidate {
    schema: LintedSchema,
    origin: Origin,
    ask: AskPolicy,
    place: Place,
}

/// A merge under way.
struct Merge<'a> {
    schemas: &'a SchemaCache,
    slots: BTreeMap<String, Candidate>,
    refusals: Vec<Refusal>,
}

impl Merge<'_> {
    fn add_built_ins(&mut self, built_ins: &[BuiltIn]) {
        for (index, built_in) in built_ins.iter().enumerate() {
            let schema = ToolSchema::clone(&built_in.schema);
            let rules = SourceRules::default();
            if let Some(candidate) = self.lint(schema, &Origin::BuiltIn, &rules, Place::BuiltIn(index)) {
                self.slots.insert(candidate.schema.wire_name.clone(), candidate);
            }
        }
    }

    fn add_embedder(&mut self, offers: &[Offer]) {
        for (index, offer) in offers.iter().enumerate().filter(|(_, offer)| offer.origin == Origin::Embedder) {
            for candidate in self.candidates(index, offer) {
                self.slots.insert(candidate.schema.wire_name.clone(), candidate);
            }
        }
    }

    fn add_plugins(&mut self, offers: &[Offer], policy: NameConflict) {
        let mut plugins: Vec<(&PluginId, usize, &Offer)> = offers
            .iter()
            .enumerate()
            .filter_map(|(index, offer)| match &offer.origin {
                Origin::Plugin(id) => Some((id, index, offer)),
                Origin::BuiltIn | Origin::Embedder => None,
            })
            .collect();
        plugins.sort_by_key(|&(id, index, _)| (id, index));
        let mut candidates = Vec::new();
        for (id, index, offer) in plugins {
            for candidate in self.candidates(index, offer) {
                if self.may_take_its_place(&candidate, id, &offer.rules) {
                    candidates.push((id, candidate));
                }
            }
        }
        for (id, candidate) in settle_conflicts(candidates, policy, &mut self.refusals) {
            let name = candidate.schema.wire_name.clone();
            match self.slots.get(&name).map(|holder| &holder.origin) {
                Some(holder @ (Origin::Embedder | Origin::Plugin(_))) => {
                    let reason =
                        format!("the name {name} is already used by {holder}; rename the tool or disable {id}");
                    self.refuse(&candidate.origin, &candidate.schema.name, reason);
                }
                Some(Origin::BuiltIn) | None => {
                    self.slots.insert(name, candidate);
                }
            }
        }
    }

    /// The tools of one offer that pass the lint; a name that comes twice counts once.
    fn candidates(&mut self, index: usize, offer: &Offer) -> Vec<Candidate> {
        let mut seen = BTreeSet::new();
        let mut candidates = Vec::with_capacity(offer.tools.len());
        for (place, tool) in offer.tools.iter().enumerate() {
            let schema = match catch_unwind(AssertUnwindSafe(|| tool.schema())) {
                Ok(schema) => schema,
                Err(panic) => {
                    let reason = format!("it panicked when asked for its schema: {}", panic_text(panic.as_ref()));
                    self.refuse(&offer.origin, "", reason);
                    continue;
                }
            };
            let Some(candidate) = self.lint(schema, &offer.origin, &offer.rules, Place::Offer(index, place)) else {
                continue;
            };
            if seen.insert(candidate.schema.wire_name.clone()) {
                candidates.push(candidate);
            } else {
                let reason = "the same provider offers another tool of this name; the first one counts".to_owned();
                self.refuse(&offer.origin, &candidate.schema.name, reason);
            }
        }
        candidates
    }

    fn lint(&mut self, schema: ToolSchema, origin: &Origin, rules: &SourceRules, place: Place) -> Option<Candidate> {
        let name = schema.name.clone();
        match self.schemas.lint(schema) {
            Ok(schema) => Some(Candidate { schema, origin: origin.clone(), ask: rules.ask, place }),
            Err(fault) => {
                self.refuse(origin, &name, fault.to_string());
                None
            }
        }
    }

    /// Whether a plugin may offer this name beside what the program itself offers.
    fn may_take_its_place(&mut self, candidate: &Candidate, id: &PluginId, rules: &SourceRules) -> bool {
        let name = &candidate.schema.wire_name;
        let reason = match self.slots.get(name).map(|holder| &holder.origin) {
            // Also where the session needs no such tool: it carries a human's answers.
            None | Some(Origin::BuiltIn) if name == SUBMIT_TOOL => {
                format!("{name} can never be replaced; rename the tool")
            }
            None => return true,
            Some(Origin::BuiltIn) if rules.replaces.contains(&candidate.schema.name) => return true,
            Some(Origin::BuiltIn) => format!(
                "{name} is a built-in tool; rename the tool, or write replaces = [\"{name}\"] under [plugins.{id}]"
            ),
            Some(_) => format!("{name} is offered by the embedding program; rename the tool"),
        };
        self.refuse(&candidate.origin, &candidate.schema.name, reason);
        false
    }

    fn retain(&mut self, allowed: &[String]) {
        if !allowed.is_empty() {
            self.slots.retain(|wire_name, candidate| {
                allowed.iter().any(|name| name == wire_name || *name == candidate.schema.name)
            });
        }
    }

    /// Leaves out what is too much: plugins' tools first, then the embedder's, from the end of the alphabet.
    fn limit(&mut self, max: usize) {
        let excess = self.slots.len().saturating_sub(max);
        let mut ranked: Vec<(u8, String)> =
            self.slots.iter().map(|(name, candidate)| (rank(&candidate.origin), name.clone())).collect();
        ranked.sort_unstable();
        for (_, name) in ranked.into_iter().rev().take(excess) {
            if let Some(candidate) = self.slots.remove(&name) {
                let reason = format!("more than {max} tools are offered; disable some, or narrow the allowed tools");
                self.refuse(&candidate.origin, &candidate.schema.name, reason);
            }
        }
    }

    fn refuse(&mut self, origin: &Origin, tool: &str, reason: String) {
        self.refusals.push(Refusal { origin: origin.clone(), tool: tool.to_owned(), reason });
    }

    fn finish(self) -> Plan {
        let mut model_tools = Vec::with_capacity(self.slots.len());
        let mut picks = Vec::with_capacity(self.slots.len());
        for (wire_name, Candidate { schema, origin, ask, place }) in self.slots {
            model_tools.push(ModelTool {
                name: wire_name.clone(),
                description: schema.description,
                parameters: schema.arguments.parameters().clone(),
            });
            let facts = ToolFacts { wire_name, name: schema.name, origin, ask, arguments: schema.arguments };
            picks.push(Pick { facts: Arc::new(facts), place });
        }
        Plan { picks, model_tools: model_tools.into(), refusals: self.refusals }
    }
}

/// Settles names that several plugins offer. `candidates` are in the order of the plugins' ids.
fn settle_conflicts<'a>(
    candidates: Vec<(&'a PluginId, Candidate)>,
    policy: NameConflict,
    refusals: &mut Vec<Refusal>,
) -> Vec<(&'a PluginId, Candidate)> {
    let mut owners: BTreeMap<String, Vec<&PluginId>> = BTreeMap::new();
    for (id, candidate) in &candidates {
        owners.entry(candidate.schema.wire_name.clone()).or_default().push(id);
    }
    let mut settled = Vec::with_capacity(candidates.len());
    for (id, mut candidate) in candidates {
        let owners = &owners[&candidate.schema.wire_name];
        let is_first = owners.first() == Some(&id);
        match policy {
            _ if owners.len() == 1 => {}
            NameConflict::Prefix => {
                candidate.schema.wire_name = wire_name(&format!("{id}_{}", candidate.schema.name)).into_owned();
            }
            NameConflict::Error | NameConflict::First if is_first => {}
            NameConflict::First => continue,
            NameConflict::Error => {
                refusals.push(Refusal {
                    origin: candidate.origin,
                    tool: candidate.schema.name,
                    reason: format!(
                        "plugin {} offers a tool of the same name; disable one of them, or set name_conflict to \
                         \"prefix\" or \"first\"",
                        owners[0]
                    ),
                });
                continue;
            }
        }
        settled.push((id, candidate));
    }
    settled
}

fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::BuiltIn => 0,
        Origin::Embedder => 1,
        Origin::Plugin(_) => 2,
    }
}

/// A name without what models get wrong most: case and separators.
fn fold(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// How far two folded names are apart; `None` when they have nothing to do with each other.
fn closeness(wanted: &str, name: &str) -> Option<usize> {
    // A model's invention can be of any length; the distance costs the product of both lengths.
    if wanted.is_empty() || wanted.len() > 128 {
        return None;
    }
    if name.contains(wanted) || wanted.contains(name) {
        return Some(name.len().abs_diff(wanted.len()).min(2));
    }
    let distance = edit_distance(wanted, name);
    (distance <= wanted.len().max(name.len()) / 3).then_some(distance)
}

/// Insertions, deletions and replacements of characters from one text to the other.
fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, character) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, &candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(candidate != character);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use async_trait::async_trait;
    use jackfield_plugin_api::{CallContext, ToolError, ToolOutput, ToolProviderContext};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::tools::source::ListFault;

    struct Named {
        name: String,
        parameters: Value,
    }

    #[async_trait]
    impl Tool for Named {
        fn schema(&self) -> ToolSchema {
            assert!(self.name != "panics", "schema bug");
            ToolSchema::new(self.name.as_str(), format!("does {}", self.name), self.parameters.clone())
        }
        async fn execute(&self, _: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
            Ok(self.name.as_str().into())
        }
    }

    pub(in crate::tools) fn tool(name: &str) -> Arc<dyn Tool> {
        Arc::new(Named { name: name.to_owned(), parameters: json!({"type": "object"}) })
    }

    pub(in crate::tools) fn built_in(name: &str) -> BuiltIn {
        let tool = tool(name);
        BuiltIn { schema: Arc::new(tool.schema()), tool }
    }

    pub(in crate::tools) fn offer(origin: Origin, names: &[&str], replaces: &[&str]) -> Offer {
        let rules =
            SourceRules { ask: AskPolicy::ByEffect, replaces: replaces.iter().map(|&name| name.to_owned()).collect() };
        let tools = names.iter().map(|name| tool(name)).collect();
        Offer { origin, rules, tools, lister: Arc::new(Silent), fault: None }
    }

    struct Silent;

    #[async_trait]
    impl ToolLister for Silent {
        async fn list_tools(&self, _: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, ListFault> {
            Ok(Vec::new())
        }
    }

    fn plugin(id: &str, names: &[&str]) -> Offer {
        offer(Origin::Plugin(PluginId::new(id)), names, &[])
    }

    fn toolbox(policy: NameConflict) -> Toolbox {
        Toolbox::new(policy, &Limits::default())
    }

    /// Every tool as `name: origin`.
    fn listing(set: &ToolSet) -> Vec<String> {
        set.plan.picks.iter().map(|pick| format!("{}: {}", pick.facts.wire_name, pick.facts.origin)).collect()
    }

    fn refused(set: &ToolSet) -> Vec<String> {
        set.plan.refusals.iter().map(|refusal| format!("{} of {}", refusal.tool, refusal.origin)).collect()
    }

    #[test]
    fn sorted_by_name_and_found_by_it() {
        let offers = [plugin("z", &["b", "fs.read"]), offer(Origin::Embedder, &["c"], &[])];
        let set = toolbox(NameConflict::Error).assemble(&[built_in("d"), built_in("a")], &offers, None);
        let fs_read = wire_name("fs.read");
        let names: Vec<&str> = set.names().collect();
        assert_eq!(names, ["a", "b", "c", "d", &fs_read]);
        assert_eq!(set.model_tools().iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(set.get(&fs_read).unwrap().facts.name, "fs.read");
        assert_eq!(set.get(&fs_read).unwrap().tool.schema().name, "fs.read", "the object belongs to the description");
        assert_eq!(set.get("c").unwrap().facts.origin, Origin::Embedder);
        assert!(set.get("fs.read").is_none());
        assert!(set.plan.refusals.is_empty());
    }

    #[test]
    fn who_may_replace_a_built_in() {
        let built_ins = [built_in("search"), built_in("submit_interaction")];
        let both = ["search", "submit_interaction"];
        let embedder = offer(Origin::Embedder, &both, &[]);
        let set = toolbox(NameConflict::Error).assemble(&built_ins, &[embedder], None);
        assert_eq!(listing(&set), ["search: embedder", "submit_interaction: embedder"]);

        let set = toolbox(NameConflict::Error).assemble(&built_ins, &[plugin("p", &both)], None);
        assert_eq!(listing(&set), ["search: built-in", "submit_interaction: built-in"]);
        assert_eq!(refused(&set), ["search of plugin p", "submit_interaction of plugin p"]);
        assert!(set.plan.refusals[0].reason.contains("replaces = [\"search\"] under [plugins.p]"));

        let allowed = offer(Origin::Plugin(PluginId::new("p")), &both, &both);
        let set = toolbox(NameConflict::Error).assemble(&built_ins, std::slice::from_ref(&allowed), None);
        assert_eq!(listing(&set), ["search: plugin p", "submit_interaction: built-in"]);

        let without = toolbox(NameConflict::Error).assemble(&[], &[plugin("p", &["submit_interaction"])], None);
        assert_eq!(refused(&without), ["submit_interaction of plugin p"], "nor where there is none to replace");

        // An embedder's tool is out of reach, also where it stands in a built-in's place.
        let offers = [allowed, offer(Origin::Embedder, &["search"], &[])];
        let set = toolbox(NameConflict::Error).assemble(&built_ins, &offers, None);
        assert_eq!(listing(&set), ["search: embedder", "submit_interaction: built-in"]);
    }

    #[test]
    fn two_plugins_with_one_name() {
        // The order in which plugins were found does not matter; ids decide.
        let offers = [plugin("bravo", &["t", "own"]), plugin("alpha", &["t"])];
        let set = |policy| toolbox(policy).assemble(&[], &offers, None);

        let by_error = set(NameConflict::Error);
        assert_eq!(listing(&by_error), ["own: plugin bravo", "t: plugin alpha"]);
        assert_eq!(refused(&by_error), ["t of plugin bravo"]);
        assert!(by_error.plan.refusals[0].reason.contains("plugin alpha offers"));

        let by_first = set(NameConflict::First);
        assert_eq!(listing(&by_first), ["own: plugin bravo", "t: plugin alpha"]);
        assert!(by_first.plan.refusals.is_empty());

        let by_prefix = set(NameConflict::Prefix);
        assert_eq!(listing(&by_prefix), ["alpha_t: plugin alpha", "bravo_t: plugin bravo", "own: plugin bravo"]);
        assert!(by_prefix.plan.refusals.is_empty());
    }

    #[test]
    fn a_prefixed_name_that_is_taken_is_refused() {
        let offers = [plugin("a", &["t"]), plugin("b", &["t", "a_t"])];
        let set = toolbox(NameConflict::Prefix).assemble(&[built_in("x")], &offers, None);
        assert_eq!(listing(&set), ["a_t: plugin a", "b_t: plugin b", "x: built-in"]);
        assert_eq!(refused(&set), ["a_t of plugin b"]);
    }

    #[test]
    fn a_plugin_that_may_not_offer_a_name_does_not_take_it_from_one_that_may() {
        let replacing = offer(Origin::Plugin(PluginId::new("b")), &["search"], &["search"]);
        let offers = [plugin("a", &["search"]), replacing];
        let set = toolbox(NameConflict::Error).assemble(&[built_in("search")], &offers, None);
        assert_eq!(listing(&set), ["search: plugin b"]);
        assert_eq!(refused(&set), ["search of plugin a"]);
    }

    #[test]
    fn bad_tools_are_left_out_alone() {
        let mut offer = plugin("p", &["good", "good", " "]);
        let bad = Arc::new(Named { name: "bad".to_owned(), parameters: json!({"type": "string"}) });
        let panics = Arc::new(Named { name: "panics".to_owned(), parameters: json!({}) });
        offer.tools = offer.tools.iter().cloned().chain([bad as Arc<dyn Tool>, panics]).collect();
        let set = toolbox(NameConflict::Error).assemble(&[], &[offer], None);
        assert_eq!(listing(&set), ["good: plugin p"]);
        assert_eq!(refused(&set), ["good of plugin p", "  of plugin p", "bad of plugin p", " of plugin p"]);
        assert!(set.plan.refusals[3].reason.contains("schema bug"));
    }

    #[test]
    fn an_allow_list_retains_by_either_name() {
        let offers = [plugin("p", &["fs.read", "b"])];
        let allow = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            toolbox(NameConflict::Error).assemble(&[built_in("a")], &offers, Some(&names)).names().count()
        };
        assert_eq!(allow(&[]), 3, "an empty list restricts nothing");
        assert_eq!(allow(&["fs.read"]), 1);
        assert_eq!(allow(&[&wire_name("fs.read"), "a"]), 2);
        assert_eq!(allow(&["nothing"]), 0);
    }

    #[test]
    fn too_many_tools_leave_plugins_out_first() {
        let limits = Limits { tools_per_turn: 3, ..Limits::default() };
        let offers = [plugin("p", &["a", "b", "c"]), offer(Origin::Embedder, &["x"], &[])];
        let set = Toolbox::new(NameConflict::Error, &limits).assemble(&[built_in("z")], &offers, None);
        assert_eq!(listing(&set), ["a: plugin p", "x: embedder", "z: built-in"]);
        assert_eq!(refused(&set), ["c of plugin p", "b of plugin p"]);
    }

    #[test]
    fn the_same_offers_are_not_merged_again_and_changed_ones_are() {
        let toolbox = toolbox(NameConflict::Error);
        let schema = built_in("a").schema;
        let built_ins = || [BuiltIn { schema: schema.clone(), tool: tool("a") }];
        let mut offers = vec![plugin("p", &["b"])];
        let first = toolbox.assemble(&built_ins(), &offers, None);
        let fresh = built_ins();
        let second = toolbox.assemble(&fresh, &offers, None);
        assert!(Arc::ptr_eq(&first.plan, &second.plan));
        assert!(Arc::ptr_eq(&second.get("a").unwrap().tool, &fresh[0].tool), "the object is this turn's");

        offers[0].rules.ask = AskPolicy::Always;
        let third = toolbox.assemble(&built_ins(), &offers, None);
        assert_eq!(third.get("b").unwrap().facts.ask, AskPolicy::Always);
        offers[0].tools = [tool("c")].into();
        assert_eq!(toolbox.assemble(&built_ins(), &offers, None).names().collect::<Vec<_>>(), ["a", "c"]);
        let allowed = ["a".to_owned()];
        assert_eq!(toolbox.assemble(&built_ins(), &offers, Some(&allowed)).names().collect::<Vec<_>>(), ["a"]);

        // Turns of several kinds do not push each other out, and what is kept is bounded.
        let all = toolbox.assemble(&built_ins(), &offers, None);
        assert!(Arc::ptr_eq(&all.plan, &toolbox.assemble(&built_ins(), &offers, None).plan));
        for index in 0..2 * PLANS_KEPT {
            toolbox.assemble(&built_ins(), &offers, Some(&[format!("t{index}")]));
        }
        assert_eq!(toolbox.memos.lock().unwrap().len(), PLANS_KEPT);
    }

    #[test]
    fn close_names_are_proposed() {
        let names = ["knowledge_search", "issue_refund", "fetch_url", "current_time"];
        let built_ins: Vec<BuiltIn> = names.iter().map(|name| built_in(name)).collect();
        let set = toolbox(NameConflict::Error).assemble(&built_ins, &[], None);
        assert_eq!(set.close_names("knowledgeSearch"), ["knowledge_search"]);
        assert_eq!(set.close_names("search"), ["knowledge_search"]);
        assert_eq!(set.close_names("fetch_ulr"), ["fetch_url"]);
        assert_eq!(set.close_names("issue_refnd"), ["issue_refund"]);
        assert_eq!(set.close_names("weather"), Vec::<&str>::new());
        assert_eq!(set.close_names(""), Vec::<&str>::new());
        assert_eq!(set.close_names(&"x".repeat(100_000)), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn the_set_is_the_same_whatever_the_order_of_the_offers(
            names in proptest::collection::vec(proptest::collection::vec("[a-d]", 0..5), 1..4), shift in 0usize..4,
        ) {
            let mut offers: Vec<Offer> = names.iter().enumerate().map(|(index, names)| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                plugin(&format!("p{index}"), &names)
            }).collect();
            let before = toolbox(NameConflict::Prefix).assemble(&[built_in("a")], &offers, None);
            let shift = shift % offers.len();
            offers.rotate_left(shift);
            let after = toolbox(NameConflict::Prefix).assemble(&[built_in("a")], &offers, None);
            prop_assert_eq!(listing(&before), listing(&after));
            prop_assert_eq!(before.model_tools(), after.model_tools());
        }
    }
}
