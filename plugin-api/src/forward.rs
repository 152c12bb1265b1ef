//! What a plugin would print goes to the host's log instead: panics, and with the feature `tracing` its events.
//!
//! Each dynamic library has its own panic hook and its own tracing dispatcher, so both are set once per library, and
//! neither touches the host's.

use std::{
    panic::PanicHookInfo,
    sync::{Arc, Once},
};

use serde_json::json;

use crate::{
    LogLevel,
    scope::{self, Link},
};

/// The longest text of one log line or one of its fields, in bytes; the rest is cut off.
const TEXT_LEN_MAX: usize = 16 * 1024;

/// Sets both up for this library, and makes `link` the plugin of threads that nobody told.
pub(crate) fn install(link: &Arc<Link>) {
    static ONCE: Once = Once::new();
    scope::set_latest(link);
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !report_panic(panic) {
                previous(panic);
            }
        }));
        #[cfg(feature = "tracing")]
        events::install();
    });
}

/// Tells the host; `false` when it is not known whose panic this is, so that the usual hook should tell it too.
fn report_panic(panic: &PanicHookInfo<'_>) -> bool {
    let known = scope::known();
    let is_known = known.is_some();
    let Some((link, call_id)) = known.or_else(scope::latest) else { return false };
    let payload = panic.payload();
    let text = payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic whose payload is not text");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current().name().map(str::to_owned);
    let fields = json!({ "location": location, "thread": thread });
    link.host.log(LogLevel::Error, "panic", &format!("panicked: {}", cut(text)), &fields, call_id);
    is_known
}

/// The beginning of a text, at most [`TEXT_LEN_MAX`] bytes.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(feature = "tracing")]
pub(crate) use events::dispatch;

#[cfg(feature = "tracing")]
mod events {
    use std::{
        cell::RefCell,
        collections::HashMap,
        fmt,
        sync::{
            Mutex, MutexGuard, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
    };

    use serde_json::{Map, Value};
    use tracing_core::{
        Dispatch, Event, Level, Metadata, Subscriber, dispatcher,
        field::{Field, Visit},
        span::{Attributes, Current, Id, Record},
        subscriber::Interest,
    };

    use super::{Arc, LogLevel, cut, scope};

    /// The most spans that are remembered at a time. Further ones open and close, but add nothing to the events in
    /// them.
    const SPANS_MAX: usize = 16 * 1024;

    /// Makes the forwarder this library's default, unless the author set one.
    pub(super) fn install() {
        let _ = dispatcher::set_global_default(dispatch());
    }

    /// A dispatcher that forwards to whichever host is in place.
    pub(crate) fn dispatch() -> Dispatch {
        Dispatch::new(Forwarder::default())
    }

    thread_local! {
        /// The spans that are entered on this thread, the innermost last.
        static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }

    #[derive(Default)]
    struct Forwarder {
        last_id: AtomicU64,
        /// Held for a few lines, never while the host is called.
        spans: Mutex<HashMap<u64, Span>>,
    }

    /// A span: its fields go into every event inside it, and its call into events on threads that know none.
    struct Span {
        metadata: &'static Metadata<'static>,
        parent: Option<u64>,
        call_id: u64,
        fields: Map<String, Value>,
        handles: usize,
    }

    impl Forwarder {
        fn spans(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
            self.spans.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// The call and the fields of a span and those around it; inner fields win.
        fn around(&self, innermost: Option<u64>, fields: &mut Map<String, Value>) -> u64 {
            let spans = self.spans();
            let mut next = innermost;
            let mut call_id = 0;
            let mut names = Vec::new();
            while let Some(span) = next.and_then(|id| spans.get(&id)) {
                names.push(span.metadata.name());
                if call_id == 0 {
                    call_id = span.call_id;
                }
                for (name, value) in &span.fields {
                    fields.entry(name).or_insert_with(|| value.clone());
                }
                next = span.parent;
            }
            if !names.is_empty() {
                names.reverse();
                fields.entry("span").or_insert_with(|| names.join(":").into());
            }
            call_id
        }
    }

    /// The host to tell and the call, as far as this thread knows.
    fn whose() -> Option<(Arc<scope::Link>, u64)> {
        scope::known().or_else(scope::latest)
    }

    fn innermost() -> Option<u64> {
        ENTERED.try_with(|entered| entered.try_borrow().ok()?.last().copied()).ok().flatten()
    }

    fn level_of(level: &Level) -> LogLevel {
        match *level {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        }
    }

    impl Subscriber for Forwarder {
        /// The host's level can change at any time, so no answer is kept.
        fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
            Interest::sometimes()
        }

        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            whose().is_some_and(|(link, _)| link.host.log_enabled(level_of(metadata.level())))
        }

        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
            let parent = match attributes.parent() {
                Some(parent) => Some(parent.into_u64()),
                None if attributes.is_contextual() => innermost(),
                None => None,
            };
            let mut fields = Map::new();
            attributes.record(&mut Collect(&mut fields));
            let call_id = whose().map_or(0, |(_, call_id)| call_id);
            let mut spans = self.spans();
            let call_id = match (call_id, parent.and_then(|id| spans.get(&id))) {
                (0, Some(parent)) => parent.call_id,
                (call_id, _) => call_id,
            };
            if spans.len() < SPANS_MAX {
                spans.insert(id, Span { metadata: attributes.metadata(), parent, call_id, fields, handles: 1 });
            }
            Id::from_u64(id)
        }

        fn record(&self, id: &Id, values: &Record<'_>) {
            // The values' own formatting is the author's code and may log; it runs before the lock is taken.
            let mut fields = Map::new();
            values.record(&mut Collect(&mut fields));
            if let Some(span) = self.spans().get_mut(&id.into_u64()) {
                span.fields.extend(fields);
            }
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let Some((link, call_id)) = whose() else { return };
            let mut fields = Map::new();
            event.record(&mut Collect(&mut fields));
            let message = match fields.remove("message") {
                Some(Value::String(message)) => message,
                Some(other) => other.to_string(),
                None => String::new(),
            };
            let inside = match event.parent() {
                Some(parent) => Some(parent.into_u64()),
                None if event.is_contextual() => innermost(),
                None => None,
            };
            let span_call_id = self.around(inside, &mut fields);
            let call_id = if call_id == 0 { span_call_id } else { call_id };
            let metadata = event.metadata();
            link.host.log(level_of(metadata.level()), metadata.target(), &message, &Value::Object(fields), call_id);
        }

        fn enter(&self, id: &Id) {
            let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(id.into_u64()));
        }

        fn exit(&self, id: &Id) {
            let _ = ENTERED.try_with(|entered| {
                let mut entered = entered.borrow_mut();
                if let Some(index) = entered.iter().rposition(|entered| *entered == id.into_u64()) {
                    entered.remove(index);
                }
            });
        }

        fn clone_span(&self, id: &Id) -> Id {
            if let Some(span) = self.spans().get_mut(&id.into_u64()) {
                span.handles += 1;
            }
            id.clone()
        }

        fn try_close(&self, id: Id) -> bool {
            let mut spans = self.spans();
            let Some(span) = spans.get_mut(&id.into_u64()) else { return true };
            span.handles -= 1;
            if span.handles > 0 {
                return false;
            }
            let closed = spans.remove(&id.into_u64());
            drop(spans);
            drop(closed);
            true
        }

        fn current_span(&self) -> Current {
            let Some(id) = innermost() else { return Current::none() };
            match self.spans().get(&id) {
                Some(span) => Current::new(Id::from_u64(id), span.metadata),
                None => Current::none(),
            }
        }
    }

    /// Gathers fields as JSON.
    struct Collect<'a>(&'a mut Map<String, Value>);

    impl Collect<'_> {
        fn put(&mut self, field: &Field, value: impl Into<Value>) {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }

    impl Visit for Collect<'_> {
        fn record_f64(&mut self, field: &Field, value: f64) {
            self.put(field, value);
        }
        fn record_i64(&mut self, field: &Field, value: i64) {
            self.put(field, value);
        }
        fn record_u64(&mut self, field: &Field, value: u64) {
            self.put(field, value);
        }
        fn record_bool(&mut self, field: &Field, value: bool) {
            self.put(field, value);
        }
        fn record_str(&mut self, field: &Field, value: &str) {
            self.put(field, cut(value));
        }
        fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
            self.put(field, cut(&value.to_string()));
        }
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.put(field, cut(&format!("{value:?}")));
        }
    }
}
