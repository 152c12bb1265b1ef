//! The host as the plugin in a worker sees it: everything becomes a frame. What a plugin sends too much of is left
//! out here already, as the host would leave it out.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use jackfield_plugin_abi::{AbiError, AbiFuture, HostAbi, RErr, ROk, RSlice, RStr, ServiceReply, kind};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use crate::plugins::worker::{budget::PerSecond, frames::ToHost, outbox::Outbox, setup::WorkerLimits};

/// Cloned into the plugin.
#[derive(Clone)]
pub(super) struct ProxyHost(Arc<Proxy>);

struct Proxy {
    outbox: Arc<Outbox>,
    limits: WorkerLimits,
    log_level: u8,
    /// One permit a request that waits.
    requests: Arc<Semaphore>,
    last_id: AtomicU64,
    /// Requests that wait for the host, by id. Held for a few lines only.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, AbiError>>>>,
    /// Held for a few lines only.
    lines: Mutex<PerSecond>,
    /// Progress and notices. Held for a few lines only.
    reports: Mutex<PerSecond>,
}

/// Longest name of a target or a service.
const NAME_BYTES: usize = 256;
/// Levels of log lines.
const WARN: u8 = 2;

impl ProxyHost {
    pub(super) fn new(outbox: Arc<Outbox>, limits: WorkerLimits, log_level: u8) -> Self {
        let requests = Arc::new(Semaphore::new(limits.requests));
        Self(Arc::new(Proxy {
            outbox,
            limits,
            log_level,
            requests,
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
            lines: Mutex::default(),
            reports: Mutex::default(),
        }))
    }

    /// The host has answered a request.
    pub(super) fn answered(&self, id: u64, answer: Result<Bytes, AbiError>) {
        if let Some(waiting) = lock(&self.0.waiting).remove(&id) {
            // The plugin may have stopped waiting just then.
            let _ = waiting.send(answer);
        }
    }

    /// A line of the worker's own about its plugin.
    pub(super) fn warn(&self, message: &str) {
        self.line(WARN, "worker", message, "", 0);
    }

    fn line(&self, level: u8, target: &str, message: &str, fields: &str, call_id: u64) {
        let proxy = &self.0;
        let max = proxy.limits.log_lines;
        let Some(left_out) = lock(&proxy.lines).take(Instant::now(), max) else { return };
        if left_out > 0 {
            let message = format!("the plugin logged more than {max} lines in a second; the rest was dropped");
            self.say(&ToHost::Log {
                level: WARN,
                call_id: 0,
                target: "worker".to_owned(),
                message,
                fields: format!(r#"{{"dropped":{left_out}}}"#),
            });
        }
        let bytes = proxy.limits.log_bytes;
        self.say(&ToHost::Log {
            level,
            call_id,
            target: cut(target, NAME_BYTES),
            message: cut(message, bytes),
            fields: cut(fields, bytes),
        });
    }

    /// Says something that may be lost when the host does not keep up.
    fn say(&self, message: &ToHost) {
        let _ = self.0.outbox.offer(message.encode(0));
    }

    fn may_report(&self) -> bool {
        lock(&self.0.reports).take(Instant::now(), self.0.limits.reports).is_some()
    }
}

impl HostAbi for ProxyHost {
    fn log_enabled(&self, level: u8) -> bool {
        level <= self.0.log_level
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields_json: RStr<'_>, call_id: u64) {
        if self.log_enabled(level) {
            self.line(level, &target, &message, &fields_json, call_id);
        }
    }

    fn progress(&self, call_id: u64, fraction: f32, message: RStr<'_>) {
        if self.may_report() {
            self.say(&ToHost::Progress { call_id, fraction, message: cut(&message, self.0.limits.log_bytes) });
        }
    }

    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        let proxy = &self.0;
        let max = proxy.limits.answer_bytes;
        if body.len() > max {
            let message = format!("the request has {} bytes, the limit is {max}", body.len());
            return refused(kind::INVALID_ARGUMENTS, message);
        }
        let Ok(permit) = Arc::clone(&proxy.requests).try_acquire_owned() else {
            let max = proxy.limits.requests;
            return refused(kind::UNAVAILABLE, format!("{max} requests of this plugin wait already; try again later"));
        };
        let id = proxy.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        lock(&proxy.waiting).insert(id, sender);
        let waiting = WaitingRequest { proxy: Arc::clone(proxy), id };
        let message =
            ToHost::Request { service: cut(&service, NAME_BYTES), body: Bytes::copy_from_slice(body.as_slice()) };
        let frame = message.encode(id);
        AbiFuture::new(async move {
            let (_permit, waiting) = (permit, waiting);
            if waiting.proxy.outbox.send(frame).await.is_err() {
                return RErr(AbiError::new(kind::UNAVAILABLE, "the plugin is being stopped"));
            }
            match answer.await {
                Ok(Ok(bytes)) => ROk(Vec::from(bytes).into()),
                Ok(Err(error)) => RErr(error),
                Err(_) => RErr(AbiError::new(kind::UNAVAILABLE, "the plugin is being stopped")),
            }
        })
    }

    fn notify(&self, event_json: RStr<'_>) {
        if self.may_report() && event_json.len() <= self.0.limits.log_bytes {
            self.say(&ToHost::Notify(Bytes::copy_from_slice(event_json.as_bytes())));
        }
    }
}

/// A request under way. When the plugin stops waiting, the host is told.
struct WaitingRequest {
    proxy: Arc<Proxy>,
    id: u64,
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        if lock(&self.proxy.waiting).remove(&self.id).is_some() {
            self.proxy.outbox.insist(ToHost::Cancel.encode(self.id));
        }
    }
}

fn refused(kind: u32, message: String) -> AbiFuture<ServiceReply> {
    AbiFuture::ready(RErr(AbiError::new(kind, message)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The beginning of a text, at most `max` bytes and a mark.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} … (cut)", &text[..end])
}
