//! The host as one plugin sees it: its log lines reach our log, its progress reports reach the call they belong to,
//! its service requests are answered or routed to another plugin. Whatever it sends is bounded.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use jackfield_plugin_abi::{
    ABI_VERSION, AbiError, AbiFuture, CancelAbi, HostAbi, RErr, ROk, RSlice, RStr, ServiceReply, kind,
};
use jackfield_plugin_api::CallContext;
use serde_json::json;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    calls::CallTable,
    provider::{PluginFault, PluginProvider},
    runtime::PluginRuntime,
    services::{self, HostServices},
};
use crate::{config::Limits, ids::PluginId};

/// Where a plugin's requests to other plugins find them.
pub(super) trait Peers: Send + Sync + 'static {
    /// The provider of an active plugin.
    fn active(&self, id: &str) -> Option<Arc<PluginProvider>>;
    /// What the host itself does for plugins.
    fn services(&self) -> &HostServices;
}

/// What is handed to one plugin as its host.
#[derive(Clone)]
pub(super) struct FfiHost(Arc<Inner>);

struct Inner {
    id: PluginId,
    runtime: Arc<PluginRuntime>,
    calls: Arc<CallTable>,
    /// The registry; gone when the server is.
    peers: Weak<dyn Peers>,
    limits: Arc<Limits>,
    /// One permit a service request that waits.
    requests: Arc<Semaphore>,
    /// Held for a few lines only.
    log_budget: Mutex<LogBudget>,
}

impl FfiHost {
    pub(super) fn new(
        id: PluginId,
        runtime: Arc<PluginRuntime>,
        calls: Arc<CallTable>,
        peers: Weak<dyn Peers>,
        limits: Arc<Limits>,
    ) -> Self {
        let requests = Arc::new(Semaphore::new(limits.plugin_requests));
        Self(Arc::new(Inner { id, runtime, calls, peers, limits, requests, log_budget: Mutex::default() }))
    }
}

impl HostAbi for FfiHost {
    fn log_enabled(&self, level: u8) -> bool {
        is_kept(level)
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields_json: RStr<'_>, call_id: u64) {
        let Inner { id, limits, log_budget, .. } = &*self.0;
        let verdict = log_budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), limits);
        match verdict {
            Verdict::Drop => return,
            Verdict::Keep => {}
            Verdict::KeepAfter(dropped) => {
                tracing::warn!(target: LOG_TARGET, plugin = %id, dropped, "the plugin logged more than {} lines in a second; the rest was dropped", limits.plugin_log_lines);
            }
        }
        let call = self.0.calls.get(call_id);
        write_line(&Line {
            level,
            plugin: id,
            target: &clean(&target, LOG_NAME_BYTES),
            message: &clean(&message, limits.plugin_log_bytes),
            fields: Some(clean(&fields_json, limits.plugin_log_bytes)).filter(|fields| !matches!(&**fields, "" | "{}")),
            call_id: Some(call_id).filter(|id| *id != 0),
            tool_call_id: call.as_ref().map(|call| call.info().tool_call_id.as_str()),
        });
    }

    fn progress(&self, call_id: u64, fraction: f32, message: RStr<'_>) {
        if let Some(call) = self.0.calls.get(call_id) {
            let fraction = if fraction.is_nan() { f32::NAN } else { fraction.clamp(0.0, 1.0) };
            call.progress(fraction, clean(&message, self.0.limits.plugin_log_bytes));
        }
    }

    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        let host = &self.0;
        if body.len() > host.limits.plugin_answer_bytes {
            let max = host.limits.plugin_answer_bytes;
            return refused(
                kind::INVALID_ARGUMENTS,
                format!("the request has {} bytes, the limit is {max}", body.len()),
            );
        }
        let Ok(permit) = Arc::clone(&host.requests).try_acquire_owned() else {
            let max = host.limits.plugin_requests;
            return refused(kind::UNAVAILABLE, format!("{max} requests of this plugin wait already; try again later"));
        };
        let (service, body) = (clean(&service, LOG_NAME_BYTES), body.to_vec());
        let (id, peers, longest) = (host.id.clone(), Weak::clone(&host.peers), host.limits.tool_absolute);
        // On the plugin's own runtime, because the plugin may poll the answer on threads that have no timer of ours.
        let mut task = host.runtime.spawn_owned(async move {
            let _permit = permit;
            within(longest, &service, answer(peers, &id, &service, body)).await
        });
        AbiFuture::new(async move {
            let stopped = || RErr(AbiError::new(kind::UNAVAILABLE, "the plugin is being stopped"));
            task.result().await.unwrap_or_else(stopped)
        })
    }

    fn notify(&self, event_json: RStr<'_>) {
        let event = clean(&event_json, self.0.limits.plugin_log_bytes);
        tracing::debug!(target: LOG_TARGET, plugin = %self.0.id, event, "the plugin sent a notice that nobody here waits for");
    }
}

/// The least severe level of plugins' lines that are kept: 1 for errors, up to 5.
#[cfg(unix)]
pub(super) fn log_level() -> u8 {
    (1..=5).rev().find(|level| is_kept(*level)).unwrap_or(1)
}

fn is_kept(level: u8) -> bool {
    match level {
        1 => tracing::enabled!(target: LOG_TARGET, tracing::Level::ERROR),
        2 => tracing::enabled!(target: LOG_TARGET, tracing::Level::WARN),
        3 => tracing::enabled!(target: LOG_TARGET, tracing::Level::INFO),
        4 => tracing::enabled!(target: LOG_TARGET, tracing::Level::DEBUG),
        _ => tracing::enabled!(target: LOG_TARGET, tracing::Level::TRACE),
    }
}

/// The cancellation of one call, as the plugin sees it.
#[derive(Clone)]
pub(super) struct FfiCancel(pub(super) CallContext);

impl CancelAbi for FfiCancel {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn cancelled(&self) -> AbiFuture<u8> {
        let cancelled = self.0.cancelled();
        AbiFuture::new(async move {
            cancelled.await;
            0
        })
    }
}

/// The target under which all lines of plugins are logged; the plugin's own target is a field, because targets of
/// our log are fixed when we are compiled.
const LOG_TARGET: &str = "jackfield::plugin";
/// Longest name (of a target or a service) that is kept.
const LOG_NAME_BYTES: usize = 256;
/// Services of the host itself are named without a plugin in front.
const HOST_SERVICE: &str = "host/1";

async fn answer(peers: Weak<dyn Peers>, id: &PluginId, service: &str, body: Vec<u8>) -> ServiceReply {
    if service == HOST_SERVICE {
        let facts = json!({ "name": "jackfield", "version": env!("CARGO_PKG_VERSION"), "abi": ABI_VERSION });
        return ROk(facts.to_string().into_bytes().into());
    }
    if services::OFFERED.contains(&service) {
        return host_service(peers, id.clone(), service.to_owned(), body).await;
    }
    let peer = service.split_once('.').and_then(|(plugin, name)| Some((peers.upgrade()?.active(plugin)?, name)));
    let Some((peer, name)) = peer else { return RErr(not_offered(service)) };
    match peer.request(name.to_owned(), body).await {
        Ok(reply) => reply,
        Err(PluginFault::Panicked(text)) => RErr(AbiError::new(kind::PANICKED, text)),
        Err(fault) => RErr(AbiError::new(kind::UNAVAILABLE, fault.to_string())),
    }
}

/// The host's own services may look at the disk, so they are kept off the threads that plugins wait on.
async fn host_service(peers: Weak<dyn Peers>, id: PluginId, service: String, body: Vec<u8>) -> ServiceReply {
    let answered = tokio::task::spawn_blocking(move || peers.upgrade()?.services().answer(&id, &service, &body));
    match answered.await {
        Ok(Some(Ok(reply))) => ROk(reply.to_string().into_bytes().into()),
        Ok(Some(Err(error))) => RErr(error),
        Ok(None) | Err(_) => RErr(AbiError::new(kind::UNAVAILABLE, "the server is being stopped")),
    }
}

fn not_offered(service: &str) -> AbiError {
    let version = env!("CARGO_PKG_VERSION");
    let message = if service.contains('.') {
        format!("service {service} is not offered: no plugin of that id is active in this host (jackfield {version})")
    } else {
        format!(
            "service {service} is not offered by this host (jackfield {version}); it offers {HOST_SERVICE}, {}",
            services::OFFERED.join(", ")
        )
    };
    AbiError::new(kind::UNAVAILABLE, message)
}

async fn within(longest: Duration, service: &str, reply: impl Future<Output = ServiceReply>) -> ServiceReply {
    match tokio::time::timeout(longest, reply).await {
        Ok(reply) => reply,
        Err(_) => {
            RErr(AbiError::new(kind::TIMED_OUT, format!("service {service} did not answer in {} s", longest.as_secs())))
        }
    }
}

fn refused(kind: u32, message: String) -> AbiFuture<ServiceReply> {
    AbiFuture::ready(RErr(AbiError::new(kind, message)))
}

/// How many lines a plugin may still write in the current second.
#[derive(Default)]
struct LogBudget {
    second_began: Option<Instant>,
    written: u32,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Keep it, and say that so many before it were not kept.
    KeepAfter(u64),
    Drop,
}

impl LogBudget {
    fn take(&mut self, now: Instant, limits: &Limits) -> Verdict {
        let is_new_second = self.second_began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1));
        if is_new_second {
            self.second_began = Some(now);
            self.written = 0;
        }
        if self.written >= limits.plugin_log_lines {
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.written += 1;
        match std::mem::take(&mut self.dropped) {
            0 => Verdict::Keep,
            dropped => Verdict::KeepAfter(dropped),
        }
    }
}

struct Line<'a> {
    level: u8,
    plugin: &'a PluginId,
    target: &'a str,
    message: &'a str,
    fields: Option<String>,
    call_id: Option<u64>,
    tool_call_id: Option<&'a str>,
}

fn write_line(line: &Line<'_>) {
    macro_rules! write_at {
        ($level:ident) => {
            tracing::event!(
                target: LOG_TARGET,
                tracing::Level::$level,
                plugin = %line.plugin,
                from = line.target,
                call_id = line.call_id,
                tool_call_id = line.tool_call_id,
                fields = line.fields.as_deref(),
                "{}",
                line.message
            )
        };
    }
    match line.level {
        1 => write_at!(ERROR),
        2 => write_at!(WARN),
        3 => write_at!(INFO),
        4 => write_at!(DEBUG),
        _ => write_at!(TRACE),
    }
}

/// A plugin's text in at most `max` bytes, with control characters spelled out, so that it can neither forge a line
/// of the log nor drive a terminal.
fn clean(text: &str, max: usize) -> String {
    let end = boundary(text, max);
    let mut cleaned = String::with_capacity(end);
    for character in text[..end].chars() {
        if character.is_control() && character != '\t' {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    if end < text.len() {
        cleaned.push_str(" … (cut)");
    }
    cleaned
}

/// The last place at or before `max` where a character ends.
fn boundary(text: &str, max: usize) -> usize {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character_and_cannot_forge_lines() {
        assert_eq!(clean("plain\ttext", 100), "plain\ttext");
        assert_eq!(clean("one\ntwo\u{1b}[31m", 100), "one\\ntwo\\u{1b}[31m");
        assert_eq!(clean("äöü", 3), "ä … (cut)");
        assert_eq!(clean("äöü", 6), "äöü");
    }

    #[test]
    fn a_flood_is_cut_for_the_rest_of_the_second_and_counted() {
        let limits = Limits { plugin_log_lines: 2, ..Limits::default() };
        let mut budget = LogBudget::default();
        let now = Instant::now();
        let taken: Vec<_> = (0..4).map(|_| budget.take(now, &limits)).collect();
        assert_eq!(taken, [Verdict::Keep, Verdict::Keep, Verdict::Drop, Verdict::Drop]);
        let later = now + Duration::from_secs(1);
        assert_eq!(budget.take(later, &limits), Verdict::KeepAfter(2));
        assert_eq!(budget.take(later, &limits), Verdict::Keep);
    }
}
