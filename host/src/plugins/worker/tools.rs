//! The tools of a plugin in a worker, as everybody else uses tools.
//!
//! A tool is a place in a list that one run of the worker gave. When that run is over, the list is asked for again
//! with the same context the next time one of its tools is called, so that a turn goes on with the tools it began with.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use jackfield_plugin_abi::{AbiError, kind};
use jackfield_plugin_api::{
    CallContext, Effect, Tool, ToolError, ToolOptions, ToolOutput, ToolSchema,
    wire::{ToolSpec, effect_from_abi, error_from_abi},
};
use serde_json::Value;

use super::{
    frames::{ToWorker, ToolList},
    link::Shared,
    session::{Died, NotAsked, Session},
};
use crate::{
    ids::PluginId,
    plugins::{foreign::parse_spec, health::Misdeed, provider::PluginFault},
};

/// Asks for the tools of a turn.
pub(super) async fn list(
    link: &Arc<Shared>,
    context: Bytes,
    least_effect: Effect,
) -> Result<Vec<Arc<dyn Tool>>, PluginFault> {
    let session = link.session().await?;
    let (listing, specs) = Listing::ask(&session, &context, link).await?;
    let list = Arc::new(List { link: Arc::clone(link), context, latest: Mutex::new(Arc::new(listing)) });
    let tool = |spec| -> Arc<dyn Tool> { Arc::new(WorkerTool { list: Arc::clone(&list), spec, least_effect }) };
    Ok(specs.into_iter().map(tool).collect())
}

/// The tools of one turn.
struct List {
    link: Arc<Shared>,
    context: Bytes,
    /// As the latest run of the worker that was asked knows it. Held for a few lines only.
    latest: Mutex<Arc<Listing>>,
}

/// A list as one run of the worker knows it.
struct Listing {
    session: Arc<Session>,
    number: u64,
    /// The place of each usable tool, by its name.
    places: Vec<(String, u32)>,
}

impl Listing {
    async fn ask(session: &Arc<Session>, context: &Bytes, link: &Shared) -> Result<(Self, Vec<ToolSpec>), PluginFault> {
        let mut question = session.ask(&ToWorker::ToolsFor(context.clone()))?;
        let bytes = question.answer().await?.map_err(|error| match error.kind {
            kind::PANICKED => PluginFault::Panicked(error.message.into()),
            _ => PluginFault::Failed(error.message.into()),
        })?;
        let Ok(ToolList { list, specs }) = ToolList::decode(bytes) else {
            session.kill("was killed because its tool list is not one");
            return Err(PluginFault::Failed("its worker sent a tool list that is not one".to_owned()));
        };
        // From here on the list is forgotten in the worker when it is dropped here.
        let mut listing = Self { session: Arc::clone(session), number: list, places: Vec::new() };
        let specs = usable(specs, link);
        listing.places = specs.iter().map(|(place, spec)| (spec.name.clone(), *place)).collect();
        Ok((listing, specs.into_iter().map(|(_, spec)| spec).collect()))
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.session.forget(self.number);
    }
}

/// The tools whose descriptions can be used, with their places.
fn usable(specs: Vec<Bytes>, link: &Shared) -> Vec<(u32, ToolSpec)> {
    let (id, limits) = (&link.id, &link.limits);
    let mut names = BTreeSet::new();
    let mut usable = Vec::new();
    for (place, text) in (0..).zip(specs).take(limits.tools_per_turn) {
        let spec = std::str::from_utf8(&text).map_err(|error| format!("its description is not text: {error}"));
        match spec.and_then(|text| parse_spec(text, limits.plugin_spec_bytes)) {
            Ok(spec) if !names.insert(spec.name.clone()) => {
                tracing::warn!(plugin = %id, tool = spec.name, "the plugin offers two tools of this name; only the first is taken");
            }
            Ok(spec) => usable.push((place, spec)),
            Err(reason) => tracing::warn!(plugin = %id, reason, "a tool of the plugin is left out"),
        }
    }
    usable
}

impl List {
    fn latest(&self) -> Arc<Listing> {
        Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The list as the worker that runs knows it.
    async fn current(&self) -> Result<Arc<Listing>, PluginFault> {
        let session = self.link.session().await?;
        let latest = self.latest();
        if latest.session.number == session.number {
            return Ok(latest);
        }
        let (listing, _) = Listing::ask(&session, &self.context, &self.link).await?;
        let listing = Arc::new(listing);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&listing);
        Ok(listing)
    }
}

struct WorkerTool {
    list: Arc<List>,
    spec: ToolSpec,
    least_effect: Effect,
}

impl WorkerTool {
    fn id(&self) -> &PluginId {
        &self.list.link.id
    }

    /// Where the tool is in a list.
    fn place(&self, listing: &Listing) -> Option<u32> {
        listing.places.iter().find(|(name, _)| *name == self.spec.name).map(|(_, place)| *place)
    }

    fn no_worker(&self, fault: PluginFault) -> ToolError {
        match fault {
            PluginFault::Died(how) => ToolError::Unavailable(format!(
                "the plugin {} cannot run now: its worker {how}, and is being started again; try again later",
                self.id()
            )),
            PluginFault::Stopped => ToolError::Unavailable(format!("the plugin {} has been stopped", self.id())),
            fault => ToolError::Unavailable(format!("the plugin {} cannot run now: {fault}", self.id())),
        }
    }

    fn died(&self, Died(how): &Died) -> ToolError {
        if self.list.link.is_stopped() {
            return self.no_worker(PluginFault::Stopped);
        }
        ToolError::Unavailable(format!(
            "the worker of plugin {} {how} during this call of {}; it is started again. The call was not repeated, and \
             part of its work may be done",
            self.id(),
            self.spec.name
        ))
    }

    fn read_answer(&self, answer: Result<Bytes, AbiError>) -> Result<ToolOutput, ToolError> {
        let (tool, plugin) = (&self.spec.name, self.id());
        match answer {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let text = format!(
                    "the tool {tool} of plugin {plugin} answered something that is not a tool output ({error}); the \
                     plugin is faulty"
                );
                self.list.link.health.note(&Misdeed::BadAnswer(text.clone()));
                ToolError::Failed(text)
            }),
            Err(AbiError { kind: kind::PANICKED, message, .. }) => {
                Err(ToolError::Panicked(format!("the tool {tool} panicked: {message}")))
            }
            Err(error) => Err(error_from_abi(error)),
        }
    }
}

#[async_trait]
impl Tool for WorkerTool {
    fn schema(&self) -> ToolSchema {
        self.spec.schema()
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        let arguments: Bytes = serde_json::to_vec(&arguments)?.into();
        // Progress and log lines find the call while it runs.
        let running = self.list.link.calls.enter(&call);
        let mut info = call.info().clone();
        info.call_id = running.id();
        let listing = self.list.current().await.map_err(|fault| self.no_worker(fault))?;
        let Some(tool) = self.place(&listing) else {
            let text = format!("the plugin {} does not offer {} any more", self.id(), self.spec.name);
            return Err(ToolError::Unavailable(text));
        };
        let asked = listing.session.ask(&ToWorker::Execute {
            list: listing.number,
            tool,
            call_id: info.call_id,
            deadline_unix_ms: info.deadline_unix_ms,
            info: serde_json::to_vec(&info)?.into(),
            arguments,
        });
        let mut question = match asked {
            Ok(question) => question,
            Err(NotAsked::Died(died)) => return Err(self.no_worker(died.into())),
            Err(busy) => return Err(self.no_worker(busy.into())),
        };
        let outcome = tokio::select! {
            outcome = question.answer() => outcome,
            () = call.cancelled() => {
                question.cancel();
                question.answer().await
            }
        };
        match outcome {
            Ok(answer) => self.read_answer(answer),
            Err(died) => Err(self.died(&died)),
        }
    }

    fn is_read_only(&self) -> bool {
        self.spec.read_only && self.least_effect == Effect::ReadOnly
    }

    fn is_concurrent_safe(&self) -> bool {
        self.spec.concurrent_safe
    }

    /// Asks the worker and waits for a short time; whatever goes wrong counts as destructive.
    fn effect(&self, arguments: &Value) -> Effect {
        if let Some(effect) = self.declared_effect() {
            return effect;
        }
        let listing = self.list.latest();
        let (Some(tool), Ok(arguments)) = (self.place(&listing), serde_json::to_vec(arguments)) else {
            return Effect::Destructive;
        };
        let question = ToWorker::Effect { list: listing.number, tool, arguments: arguments.into() };
        let answer = listing.session.ask_blocking(&question, self.list.link.limits.plugin_effect);
        let effect = answer.and_then(|answer| answer.first().copied()).map_or(Effect::Destructive, effect_from_abi);
        effect.max(self.least_effect)
    }

    fn declared_effect(&self) -> Option<Effect> {
        self.spec.effect.fixed().map(|effect| effect.max(self.least_effect))
    }

    fn options(&self) -> ToolOptions {
        self.spec.options.clone()
    }
}
