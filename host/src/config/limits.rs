//! Every limit of the server, with its default. What happens at each is said at the field.

use std::time::Duration;

/// All limits. Durations are wall-clock time, sizes are bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq)]
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
    /// Sessions; the longest idle one goes first. Default 100 000.
    pub sessions: usize,
    /// Conversations; the longest idle one goes first. Default 100 000.
    pub conversations: usize,
    /// Messages of one conversation; the oldest go first. Default 10 000.
    pub messages_per_conversation: usize,
    /// A session unused for this long expires. Default 24 h.
    pub session_idle: Duration,
    /// Messages of the history that the model is shown. Default 50.
    pub history_messages: usize,
    /// Bytes of a turn's events that are kept for those who come back; the oldest go first. Default 4 MiB.
    pub turn_log_bytes: usize,
    /// How long a finished turn's events are kept. Default 5 min.
    pub turn_log_retention: Duration,
    /// Cadence of `keepalive` while a turn runs. Default 25 s.
    pub keepalive: Duration,
    /// Longest wait for a human. Default 300 s.
    pub confirmation: Duration,
    /// Longest wait for a human when no connected client can answer. Default 60 s.
    pub confirmation_unattended: Duration,
    /// Model call: time to connect. Default 30 s.
    pub model_connect: Duration,
    /// Model call: longest silence. Default 60 s.
    pub model_idle: Duration,
    /// Model call: longest duration. Default 600 s.
    pub model_total: Duration,
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
    /// Tool output that reaches the model. Default 64 KiB.
    pub tool_output_bytes: usize,
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
    /// Knowledge passages given to the model with each message. Default 3.
    pub knowledge_hits: usize,
    /// Running turns may use this long after a stop was asked for. Default 30 s.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Self {
            inbound_frame_bytes: MIB,
            message_chars: 10_000,
            outgoing_bytes: MIB,
            outgoing_events: 4096,
            connections: 10_000,
            sessions: 100_000,
            conversations: 100_000,
            messages_per_conversation: 10_000,
            session_idle: Duration::from_secs(24 * 60 * 60),
            history_messages: 50,
            turn_log_bytes: 4 * MIB,
            turn_log_retention: Duration::from_secs(5 * 60),
            keepalive: Duration::from_secs(25),
            confirmation: Duration::from_secs(300),
            confirmation_unattended: Duration::from_secs(60),
            model_connect: Duration::from_secs(30),
            model_idle: Duration::from_secs(60),
            model_total: Duration::from_secs(600),
            model_retries: 3,
            model_retry_base: Duration::from_secs(1),
            model_retry_max: Duration::from_secs(60),
            model_retry_jitter: Duration::from_millis(500),
            model_after_finish: Duration::from_secs(5),
            model_pool_idle: Duration::from_secs(30),
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
            tool_output_bytes: 64 * KIB,
            tools_for: Duration::from_millis(250),
            tools_per_turn: 128,
            plugin_create: Duration::from_secs(10),
            plugin_file_bytes: 256 * MIB as u64,
            plugin_files: 256,
            plugin_shutdown: Duration::from_secs(5),
            knowledge_hits: 3,
            shutdown: Duration::from_secs(30),
        }
    }
}
