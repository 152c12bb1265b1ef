//! What a worker is told before anything else: which plugin it is, how much it may use, what it may touch.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{config::Limits, plugins::permissions::Permitted};

/// The content of the host's first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    /// The plugin's id.
    pub(super) plugin: String,
    /// The private copy of the library.
    pub(super) library: PathBuf,
    /// The plugin's own configuration, as the JSON text that it is handed.
    pub(super) config: String,
    /// What the plugin asks for and the operator granted.
    pub(super) permitted: Permitted,
    /// The least severe log level that the host keeps, 1 to 5.
    pub(super) log_level: u8,
    pub(super) limits: WorkerLimits,
}

/// The limits that a worker keeps by itself, so that an honest plugin never meets the host's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WorkerLimits {
    pub(super) memory_bytes: u64,
    pub(super) cpu_seconds: u64,
    pub(super) files: u64,
    pub(super) answer_bytes: usize,
    pub(super) spec_bytes: usize,
    pub(super) tools: usize,
    pub(super) requests: usize,
    pub(super) log_lines: u32,
    pub(super) log_bytes: usize,
    pub(super) reports: u32,
    pub(super) queue_bytes: usize,
    pub(super) frame_bytes: usize,
    pub(super) end_ms: u64,
}

/// What a frame may have beside an answer's or a request's own bytes: names, ids, a call's description.
const FRAME_EXTRA_BYTES: usize = 1 << 20;

/// The longest frame of either side.
pub(super) fn frame_bytes(limits: &Limits) -> usize {
    limits.plugin_answer_bytes.saturating_add(FRAME_EXTRA_BYTES).min(u32::MAX as usize)
}

impl WorkerLimits {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.plugin_worker_memory_bytes,
            cpu_seconds: limits.plugin_worker_cpu.as_secs().max(1),
            files: limits.plugin_worker_files as u64,
            answer_bytes: limits.plugin_answer_bytes,
            spec_bytes: limits.plugin_spec_bytes,
            tools: limits.tools_per_turn,
            requests: limits.plugin_requests,
            log_lines: limits.plugin_log_lines,
            log_bytes: limits.plugin_log_bytes,
            reports: limits.plugin_worker_frames / 2,
            queue_bytes: limits.plugin_worker_queue_bytes,
            frame_bytes: frame_bytes(limits),
            end_ms: u64::try_from(limits.plugin_shutdown.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
