//! Every limit of the server, with its default. What happens at each is said at the field.

use std::{sync::LazyLock, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// All limits. Durations are wall-clock time; what ends in `_bytes` is a size, everything else a count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Largest inbound frame; a larger one closes the connection with 1009. Default 1 MiB.
    pub inbound_frame_bytes: usize,
    /// Longest `message`, in characters; a longer one is `VALIDATION_ERROR`. Default 10 000.
    pub message_chars: usize,
    /// Bytes that may wait for one connection; tokens are merged first, past it the connection is closed with 1013.
    /// Default 1 MiB.
    pub outgoing_bytes: usize,
    /// Events that may wait for one connection. Default 4096.
    pub outgoing_events: usize,
    /// Open connections; a further one is answered 503. Default 10 000.
    pub connections: usize,
    /// Open connections that speak HTTP, or are about to become WebSockets; a further one waits. Default 1024.
    pub http_connections: usize,
    /// Longest wait for a request on a connection, and for its whole head; then the connection is closed. Default 30 s.
    pub http_header: Duration,
    /// Sessions; the longest idle one goes first. Default 100 000.
    pub sessions: usize,
    /// Sessions of one connection that nobody has used yet and that are therefore not stored; one more, and the oldest is
    /// stored. Default 16.
    pub unused_sessions: usize,
    /// Conversations; the longest idle one goes first. Default 100 000.
    pub conversations: usize,
    /// Messages of one conversation; the oldest go first. Default 10 000.
    pub messages_per_conversation: usize,
    /// Organisations that have settings of their own; a further one is refused. Default 10 000.
    pub org_settings: usize,
    /// Targets that one connection listens to for published events; the oldest sessions' go first. Default 256.
    pub subscriptions: usize,
    /// Body of one request to the admin API; a larger one is answered 413. Default 1 MiB.
    pub admin_body_bytes: usize,
    /// How long the body of a request to the admin API may take to arrive. Default 30 s.
    pub admin_body: Duration,
    /// Asking for a key set or a widget policy: longest duration; also the pause after a failure. Default 5 s.
    pub auth_fetch: Duration,
    /// Asking for a key set or a widget policy: largest answer; a larger one counts as a failure. Default 1 MiB.
    pub auth_fetch_bytes: usize,
    /// Widget policies that are kept, of agents that have none, too; the oldest go first. Default 1024.
    pub widget_policies: usize,
    /// How long a key set is used before it is fetched again. Default 300 s.
    pub auth_keys_kept: Duration,
    /// A key id that is not in the set makes it be fetched again when it is older than this. Default 30 s.
    pub auth_keys_refresh: Duration,
    /// A session unused for this long expires. Default 24 h.
    pub session_idle: Duration,
    /// Messages of the history that the model is shown. Default 50.
    pub history_messages: usize,
    /// Bytes of a turn's events that are kept for those who come back; the oldest go first. Default 4 MiB.
    pub turn_log_bytes: usize,
    /// How long a finished turn's events are kept, unless the conversation's next turn starts sooner. Default 5 min.
    pub turn_log_retention: Duration,
    /// Bytes of the events of all finished turns; those of the turns that ended first go first. Default 32 MiB.
    pub turn_logs_bytes: usize,
    /// Finished turns that can be asked about, with or without their events; the oldest are forgotten. Default 10 000.
    pub turns_remembered: usize,
    /// Cadence of `keepalive` while a turn runs. Default 25 s.
    pub keepalive: Duration,
    /// Longest wait for a human. Default 300 s.
    pub confirmation: Duration,
    /// Longest wait for a human when no connected client can answer. Default 60 s.
    pub confirmation_unattended: Duration,
    /// Characters of the question that a human is asked; the rest of the arguments is counted. Default 2000.
    pub confirmation_chars: usize,
    /// Longest text of their own that a user writes into a form, in characters; a longer one is refused. Default 1000.
    pub interaction_chars: usize,
    /// How long a one-time code counts. Default 10 min.
    pub otp_life: Duration,
    /// Tries that one code allows; past it the code is void. Default 5.
    pub otp_attempts: u32,
    /// Shortest time between two codes for one session or one contact; sooner none is sent. Default 60 s.
    pub otp_resend: Duration,
    /// Codes for one contact in an hour; a further one is not sent. Default 5.
    pub otp_sends_per_contact: usize,
    /// Codes for all contacts in an hour; a further one is not sent. Default 10 000.
    pub otp_sends: usize,
    /// How long the embedding program may take to deliver a code; past it the code is void. Default 10 s.
    pub otp_delivery: Duration,
    /// How long the embedding program may take to say what an agent is; past it the turn fails. Default 5 s.
    pub agent_config: Duration,
    /// Model call: time to connect. Default 30 s.
    pub model_connect: Duration,
    /// Model call: longest silence. Default 60 s.
    pub model_idle: Duration,
    /// Model call: longest duration. Default 600 s.
    pub model_total: Duration,
    /// A call of a small model beside the turn (preamble, title): longest duration; then the turn does without.
    /// Default 30 s.
    pub model_aside: Duration,
    /// Model call: retries before the first byte. Default 3.
    pub model_retries: u32,
    /// Model call: first pause before a retry; doubles each time. Default 1 s.
    pub model_retry_base: Duration,
    /// Model call: longest pause before a retry. Default 60 s.
    pub model_retry_max: Duration,
    /// Model call: largest random addition to a computed pause, so that many turns do not retry at once. Default 0.5 s.
    pub model_retry_jitter: Duration,
    /// Model call: how long the rest of a reply (usage, end mark) may take once the model said why it stopped; then the
    /// reply counts as complete. Default 5 s.
    pub model_after_finish: Duration,
    /// A connection to the gateway unused for this long is not used again, because gateways close them silently.
    /// Default 30 s.
    pub model_pool_idle: Duration,
    /// Connections to the gateway that wait for the next model call; further ones are closed after use. Default 256.
    pub model_pool_connections: usize,
    /// Asking the gateway about its models: longest duration. Default 2 s.
    pub model_catalog: Duration,
    /// Asking the gateway about its models: pause after a failure. Default 60 s.
    pub model_catalog_retry: Duration,
    /// Asking the gateway about its models: largest answer; a larger one counts as a failure. Default 4 MiB.
    pub model_catalog_bytes: usize,
    /// The part of an error answer that is read. Default 64 KiB.
    pub model_error_bytes: usize,
    /// One line of the model's stream; a longer one fails the call. Default 4 MiB.
    pub model_line_bytes: usize,
    /// Text of one reply; a longer one fails the call. Default 8 MiB.
    pub model_reply_bytes: usize,
    /// Tool calls in one model reply; the rest are answered with an error. Default 64.
    pub tool_calls_per_reply: usize,
    /// Tool call: longest silence. Default 60 s.
    pub tool_idle: Duration,
    /// Tool call: longest duration; also the cap of what a tool asks for itself. Default 600 s.
    pub tool_absolute: Duration,
    /// Tool call: cap of the grace time after a cancel. Default 5 s.
    pub tool_grace_max: Duration,
    /// Tool call: grace time after a cancel for a tool that asks for none. Default 500 ms.
    pub tool_grace: Duration,
    /// Tool output that reaches the model; head and tail stay. Default 64 KiB.
    pub tool_output_bytes: usize,
    /// Shortest time between two progress reports of one call that are shown; the latest wins. Default 100 ms.
    pub tool_progress_interval: Duration,
    /// Characters of a progress message that are shown. Default 500.
    pub tool_progress_chars: usize,
    /// Name, description and argument schema of one tool; a larger one is not offered. Default 64 KiB.
    pub tool_schema_bytes: usize,
    /// Compiled argument schemas that are kept for later turns; the oldest go first. Default 1024.
    pub tool_schemas_cached: usize,
    /// Last good tool lists that one provider keeps, one per circle of access; the oldest go first. Default 64.
    pub tool_lists_kept: usize,
    /// Late `tools_for` calls of one provider that may still run; past it the last good list holds. Default 4.
    pub tool_lists_late: usize,
    /// The same call with the same result this often in one turn: the model is told. Default 3.
    pub tool_repeats_notice: u32,
    /// The same call with the same result this often in one turn: the turn stops calling tools. Default 5.
    pub tool_repeats_stop: u32,
    /// Budget of one provider's `tools_for`; past it the last good list holds. Default 250 ms.
    pub tools_for: Duration,
    /// Tools offered in one turn; the rest are left out and reported. Default 128.
    pub tools_per_turn: usize,
    /// Budget of a plugin's `create`. Default 10 s.
    pub plugin_create: Duration,
    /// Largest plugin file. Default 256 MiB.
    pub plugin_file_bytes: u64,
    /// Plugin files considered in one folder. Default 256.
    pub plugin_files: usize,
    /// Time a plugin gets to stop. Default 5 s.
    pub plugin_shutdown: Duration,
    /// How long a broken plugin file must be unchanged before it counts as broken and not as half copied. Default 1 s.
    pub plugin_settle: Duration,
    /// How long a new, changed or removed plugin file must stay as it is before that is acted upon. Default 200 ms.
    pub plugin_debounce: Duration,
    /// How often plugin folders are looked at beside the system's notices of changes, which may get lost. Default 10 s.
    pub plugin_rescan: Duration,
    /// How often plugin folders are looked at where there are no such notices. Default 1 s.
    pub plugin_rescan_alone: Duration,
    /// Plugin libraries that are opened in one process, reloads included, because none can be closed; past it a plugin
    /// is not loaded and what runs keeps running. Default 256.
    pub plugin_generations: usize,
    /// How long turns may go on to use a plugin that has been replaced or removed; then it is stopped and answers that
    /// it is unavailable. Default 30 min.
    pub plugin_drain: Duration,
    /// Longest time a plugin may hold a thread at a stretch; past it the thread counts as stuck and another one takes
    /// its place. Default 1 s.
    pub plugin_stuck: Duration,
    /// Stuck threads of one plugin that are replaced; with this many it is in quarantine until some come back.
    /// Default 4.
    pub plugin_stuck_threads: usize,
    /// Faults of one plugin within `plugin_fault_window` that put it into quarantine: panics, bad answers, calls that
    /// run out of time, late or failed tool lists. Default 5.
    pub plugin_faults: usize,
    /// See `plugin_faults`. Default 60 s.
    pub plugin_fault_window: Duration,
    /// How long a plugin in quarantine is not used before one call tries it again; doubles each time. Default 30 s.
    pub plugin_quarantine: Duration,
    /// Longest quarantine before a try. Default 10 min.
    pub plugin_quarantine_max: Duration,
    /// Bytes of one answer of a plugin (a tool's output, a service's reply); a larger one fails the call. Default
    /// 16 MiB.
    pub plugin_answer_bytes: usize,
    /// Bytes of one tool's description and schema; a larger one is not offered. Default 256 KiB.
    pub plugin_spec_bytes: usize,
    /// Time a tool gets to say what a call with certain arguments can change; past it the call counts as
    /// destructive. Default 250 ms.
    pub plugin_effect: Duration,
    /// Service requests and notices of one plugin that may wait at the same time; further ones are refused. Default
    /// 64.
    pub plugin_requests: usize,
    /// Bytes of the keys and values that one plugin may have remembered; a value beyond it is refused. Default 1 MiB.
    pub plugin_kv_bytes: usize,
    /// Conversations that have a folder for plugins; a further one is refused. Default 1000.
    pub plugin_workspaces: usize,
    /// Log lines of one plugin in one second; the rest are counted and dropped. Default 1000.
    pub plugin_log_lines: u32,
    /// Bytes of one log line or progress message of a plugin; the rest is cut off. Default 8 KiB.
    pub plugin_log_bytes: usize,
    /// Address space of the process of an isolated plugin; an allocation past it fails, which ends most plugins. Default
    /// 4 GiB.
    pub plugin_worker_memory_bytes: u64,
    /// CPU time of the process of an isolated plugin, counted in whole seconds; past it the process is killed and
    /// started again. Default 365 d, which is none.
    pub plugin_worker_cpu: Duration,
    /// Files that the process of an isolated plugin may have open. Default 256.
    pub plugin_worker_files: usize,
    /// Questions that may wait for the process of an isolated plugin; further ones are refused. Default 256.
    pub plugin_worker_calls: usize,
    /// Bytes that may wait to be written to the process of an isolated plugin, and by it; past it, calls are refused and
    /// log lines left out. One larger frame may wait alone. Default 8 MiB.
    pub plugin_worker_queue_bytes: usize,
    /// Log lines, progress reports, notices and requests of an isolated plugin in one second; past it its process is
    /// killed and started again. An honest one stays below by itself. Default 20 000.
    pub plugin_worker_frames: u32,
    /// Time that an isolated plugin has to drop a call that was given up; past it its process is killed and started
    /// again. Default 2 s.
    pub plugin_worker_let_go: Duration,
    /// Pause before the process of an isolated plugin is started again; doubles with each death. Default 100 ms.
    pub plugin_worker_restart_base: Duration,
    /// Longest such pause. Default 5 s.
    pub plugin_worker_restart_max: Duration,
    /// How long a call waits for a process that is being started again; past it the call fails. Default 1 s.
    pub plugin_worker_restart_wait: Duration,
    /// How long a process must have run for its deaths to be forgotten, so that the next pause is the first again.
    /// Default 30 s.
    pub plugin_worker_steady: Duration,
    /// Knowledge passages given to the model with each message. Default 3.
    pub knowledge_hits: usize,
    /// Documents in the knowledge base; a further one is refused. Default 100 000.
    pub knowledge_documents: usize,
    /// Text of one document; a longer one is refused. Default 4 MiB.
    pub knowledge_document_bytes: usize,
    /// Passages of one document; one that would have more is refused. Default 20 000.
    pub knowledge_passages_per_document: usize,
    /// Largest file that is read as a document; a larger one is skipped with this reason. Default 16 MiB.
    pub knowledge_file_bytes: usize,
    /// Files of one folder that are looked at; the rest is left out, and the indexing run says so. Default 20 000.
    pub knowledge_files: usize,
    /// How deep a folder is read; what is deeper is skipped with this reason. Default 32.
    pub knowledge_folder_depth: usize,
    /// Sources of documents; a further one is refused. Default 256.
    pub knowledge_sources: usize,
    /// Connectors of all organisations; a further one is refused. Default 1000.
    pub connectors: usize,
    /// Indexing runs that are remembered; the oldest go first. Default 1000.
    pub indexing_runs: usize,
    /// Skipped files that one run names; the rest is counted. Default 100.
    pub indexing_skips_named: usize,
    /// Passages whose vectors are asked for at once. Default 64.
    pub knowledge_vector_batch: usize,
    /// How long a search waits for the vector of its question; then the words alone decide. Default 400 ms.
    pub knowledge_question_vector: Duration,
    /// Pause before an embedding model that failed is asked again; until then the words alone decide. Default 60 s.
    pub knowledge_vector_retry: Duration,
    /// How often all vectors are made anew because their dimension changed; after that the words alone decide.
    /// Default 3.
    pub knowledge_vector_rebuilds: u32,
    /// Memory for vectors; documents beyond it are found by their words only. Default 1 GiB.
    pub knowledge_vector_bytes: usize,
    /// Answer to one request for vectors; a larger one counts as a failure. Default 64 MiB.
    pub embedding_answer_bytes: usize,
    /// Tools, and models, that the metrics tell apart by name; further ones are counted as `other`. Default 500.
    pub metric_names: usize,
    /// Running turns may use this long after a stop was asked for. Default 30 s.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        const GIB: u64 = 1 << 30;
        Self {
            inbound_frame_bytes: MIB,
            message_chars: 10_000,
            outgoing_bytes: MIB,
            outgoing_events: 4096,
            connections: 10_000,
            http_connections: 1024,
            http_header: Duration::from_secs(30),
            sessions: 100_000,
            unused_sessions: 16,
            conversations: 100_000,
            messages_per_conversation: 10_000,
            org_settings: 10_000,
            subscriptions: 256,
            admin_body_bytes: MIB,
            admin_body: Duration::from_secs(30),
            auth_fetch: Duration::from_secs(5),
            auth_fetch_bytes: MIB,
            widget_policies: 1024,
            auth_keys_kept: Duration::from_secs(300),
            auth_keys_refresh: Duration::from_secs(30),
            session_idle: Duration::from_secs(24 * 60 * 60),
            history_messages: 50,
            turn_log_bytes: 4 * MIB,
            turn_log_retention: Duration::from_secs(5 * 60),
            turn_logs_bytes: 32 * MIB,
            turns_remembered: 10_000,
            keepalive: Duration::from_secs(25),
            confirmation: Duration::from_secs(300),
            confirmation_unattended: Duration::from_secs(60),
            confirmation_chars: 2000,
            interaction_chars: 1000,
            otp_life: Duration::from_secs(10 * 60),
            otp_attempts: 5,
            otp_resend: Duration::from_secs(60),
            otp_sends_per_contact: 5,
            otp_sends: 10_000,
            otp_delivery: Duration::from_secs(10),
            agent_config: Duration::from_secs(5),
            model_connect: Duration::from_secs(30),
            model_idle: Duration::from_secs(60),
            model_total: Duration::from_secs(600),
            model_aside: Duration::from_secs(30),
            model_retries: 3,
            model_retry_base: Duration::from_secs(1),
            model_retry_max: Duration::from_secs(60),
            model_retry_jitter: Duration::from_millis(500),
            model_after_finish: Duration::from_secs(5),
            model_pool_idle: Duration::from_secs(30),
            model_pool_connections: 256,
            model_catalog: Duration::from_secs(2),
            model_catalog_retry: Duration::from_secs(60),
            model_catalog_bytes: 4 * MIB,
            model_error_bytes: 64 * KIB,
            model_line_bytes: 4 * MIB,
            model_reply_bytes: 8 * MIB,
            tool_calls_per_reply: 64,
            tool_idle: Duration::from_secs(60),
            tool_absolute: Duration::from_secs(600),
            tool_grace_max: Duration::from_secs(5),
            tool_grace: Duration::from_millis(500),
            tool_output_bytes: 64 * KIB,
            tool_progress_interval: Duration::from_millis(100),
            tool_progress_chars: 500,
            tool_schema_bytes: 64 * KIB,
            tool_schemas_cached: 1024,
            tool_lists_kept: 64,
            tool_lists_late: 4,
            tool_repeats_notice: 3,
            tool_repeats_stop: 5,
            tools_for: Duration::from_millis(250),
            tools_per_turn: 128,
            plugin_create: Duration::from_secs(10),
            plugin_file_bytes: 256 * MIB as u64,
            plugin_files: 256,
            plugin_shutdown: Duration::from_secs(5),
            plugin_settle: Duration::from_secs(1),
            plugin_debounce: Duration::from_millis(200),
            plugin_rescan: Duration::from_secs(10),
            plugin_rescan_alone: Duration::from_secs(1),
            plugin_generations: 256,
            plugin_drain: Duration::from_secs(30 * 60),
            plugin_stuck: Duration::from_secs(1),
            plugin_stuck_threads: 4,
            plugin_faults: 5,
            plugin_fault_window: Duration::from_secs(60),
            plugin_quarantine: Duration::from_secs(30),
            plugin_quarantine_max: Duration::from_secs(10 * 60),
            plugin_answer_bytes: 16 * MIB,
            plugin_spec_bytes: 256 * KIB,
            plugin_effect: Duration::from_millis(250),
            plugin_requests: 64,
            plugin_kv_bytes: MIB,
            plugin_workspaces: 1000,
            plugin_log_lines: 1000,
            plugin_log_bytes: 8 * KIB,
            plugin_worker_memory_bytes: 4 * GIB,
            plugin_worker_cpu: Duration::from_secs(365 * 24 * 60 * 60),
            plugin_worker_files: 256,
            plugin_worker_calls: 256,
            plugin_worker_queue_bytes: 8 * MIB,
            plugin_worker_frames: 20_000,
            plugin_worker_let_go: Duration::from_secs(2),
            plugin_worker_restart_base: Duration::from_millis(100),
            plugin_worker_restart_max: Duration::from_secs(5),
            plugin_worker_restart_wait: Duration::from_secs(1),
            plugin_worker_steady: Duration::from_secs(30),
            knowledge_hits: 3,
            knowledge_documents: 100_000,
            knowledge_document_bytes: 4 * MIB,
            knowledge_passages_per_document: 20_000,
            knowledge_file_bytes: 16 * MIB,
            knowledge_files: 20_000,
            knowledge_folder_depth: 32,
            knowledge_sources: 256,
            connectors: 1000,
            indexing_runs: 1000,
            indexing_skips_named: 100,
            knowledge_vector_batch: 64,
            knowledge_question_vector: Duration::from_millis(400),
            knowledge_vector_retry: Duration::from_secs(60),
            knowledge_vector_rebuilds: 3,
            knowledge_vector_bytes: 1024 * MIB,
            embedding_answer_bytes: 64 * MIB,
            metric_names: 500,
            shutdown: Duration::from_secs(30),
        }
    }
}

/// How a limit is written in `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitKind {
    /// `"30s"`; counted in milliseconds.
    Duration,
    /// `"64KiB"`; counted in bytes.
    Size,
    /// A whole number, at least this.
    Count(u64),
}

/// One limit as the configuration sees it: a name and a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LimitField {
    /// The field's name.
    pub(super) name: String,
    /// How it is written.
    pub(super) kind: LimitKind,
}

/// Every limit. The struct itself is the list: a field that is added to it can be configured at once.
pub(super) static LIMIT_FIELDS: LazyLock<Vec<LimitField>> = LazyLock::new(|| {
    let kind = |name: &str, value: &Value| match value {
        Value::Object(_) => LimitKind::Duration,
        _ if name.ends_with("_bytes") => LimitKind::Size,
        _ if MAY_BE_ZERO.contains(&name) => LimitKind::Count(0),
        _ => LimitKind::Count(1),
    };
    let fields = as_map(&Limits::default());
    fields.into_iter().map(|(name, value)| LimitField { kind: kind(&name, &value), name }).collect()
});

/// Counts of things that a server can do without.
const MAY_BE_ZERO: &[&str] = &[
    "model_retries",
    "model_pool_connections",
    "tools_per_turn",
    "plugin_files",
    "knowledge_hits",
    "knowledge_vector_rebuilds",
];

impl LimitField {
    /// The limit's number: milliseconds, bytes or a count.
    pub(super) fn get(&self, limits: &Limits) -> u64 {
        let value = as_map(limits).remove(&self.name).unwrap_or_default();
        match value {
            Value::Object(_) => {
                let duration: Duration = serde_json::from_value(value).expect("a duration reads back");
                u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
            }
            number => number.as_u64().expect("a limit is a duration or a whole number"),
        }
    }

    /// Sets the limit to a number that fits its kind.
    pub(super) fn set(&self, limits: &mut Limits, number: u64) {
        let value = match self.kind {
            LimitKind::Duration => json!(Duration::from_millis(number)),
            LimitKind::Size | LimitKind::Count(_) => json!(number),
        };
        let mut map = as_map(limits);
        map.insert(self.name.clone(), value);
        *limits = serde_json::from_value(Value::Object(map)).expect("the number fits its kind");
    }
}

fn as_map(limits: &Limits) -> Map<String, Value> {
    match json!(limits) {
        Value::Object(map) => map,
        other => unreachable!("a struct is written as an object, not as {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> &'static LimitField {
        LIMIT_FIELDS.iter().find(|field| field.name == name).expect("the limit exists")
    }

    #[test]
    fn every_limit_reads_what_was_written_and_nothing_else_changes() {
        for field in LIMIT_FIELDS.iter() {
            let mut limits = Limits::default();
            field.set(&mut limits, 12_345);
            assert_eq!(field.get(&limits), 12_345, "{}", field.name);
            let others = LIMIT_FIELDS.iter().filter(|other| other.name != field.name);
            for other in others {
                assert_eq!(other.get(&limits), other.get(&Limits::default()), "{}", other.name);
            }
        }
    }

    #[test]
    fn the_kind_follows_from_type_and_name() {
        assert_eq!(field("tool_idle").kind, LimitKind::Duration);
        assert_eq!(field("plugin_file_bytes").kind, LimitKind::Size);
        assert_eq!(field("connections").kind, LimitKind::Count(1));
        assert!(MAY_BE_ZERO.iter().all(|name| field(name).kind == LimitKind::Count(0)));
    }
}
