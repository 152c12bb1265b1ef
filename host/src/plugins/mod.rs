//! Plugins: native libraries in folders, read, checked, loaded, and offered as tool providers.
//!
//! ```text
//!   folder ──discover──▶ files ──admit──▶ bytes, headers, manifest, private copy          nothing of the file has run
//!                          │                 │ verify
//!                          ▼                 ▼
//!                       Rejected ◀───── Verified ──start──▶ tried out ──▶ Active ◀──▶ Quarantined
//!                                            ▲                 │             │ replaced, removed, disabled
//!                            changed file ───┘                 ▼             ▼
//!                                                            Failed       Draining ── no turn uses it ──▶ Retired
//! ```
//!
//! The [`Plugins`] handle asks; the supervisor, one task, does, and keeps one immutable [`PluginSnapshot`] that turns,
//! reports and the command line all read. What to do is decided in `files` and `roster`, which are pure. Where a plugin's
//! code runs is decided in `start`; [`PluginProvider`] looks the same wherever that is. In this process each plugin has
//! threads of its own (`workers`, `runtime`) on which everything of it runs, and the adapters in `foreign` make its
//! objects look like everybody else's.
//!
//! What never happens: plugin code runs before `verify` said yes; a library is closed; plugin code runs on a thread
//! of the server; a plugin's panic, hang or garbage costs more than the one answer that was waited for.

mod admit;
mod calls;
mod confinement;
mod discover;
mod files;
mod foreign;
mod guarded;
mod health;
mod host_link;
mod in_process;
mod lease;
mod load;
mod manifest;
mod own_config;
mod permissions;
mod private;
mod provider;
mod registry;
mod report;
mod roster;
mod runtime;
mod sanitise;
mod services;
mod snapshot;
mod start;
mod supervisor;
mod survey;
mod trust;
mod verify;
mod watch;
#[cfg(unix)]
mod worker;
mod workers;

pub use confinement::Confinement;
pub use discover::FolderError;
pub(crate) use discover::OWN_SUFFIX;
pub use health::{Misdeed, PluginCounters};
pub use lease::PluginLease;
pub use manifest::{Binary, GlibcVersion, Manifest, ManifestError, ManifestTool};
pub use permissions::{Decision, Permitted, PermittedExec, asked_texts};
pub use private::PrivateFolderError;
pub use provider::{PluginFault, PluginProvider};
pub use registry::{PluginActionError, Plugins, PluginsError};
pub use report::{InspectError, Inspection, PluginReport, inspect, inspect_for, trust_file};
pub use snapshot::{PluginEntry, PluginSnapshot, PluginState};
pub use survey::survey;
pub use trust::{
    Distrust, KeyPairText, Pin, PinnedTool, SIGNATURE_SUFFIX, SignError, Standing, changes, new_key_pair, sign, untrust,
};
pub use verify::is_plugin_id;
#[cfg(unix)]
pub(crate) use worker::{REQUEST as WORKER_REQUEST, serve as serve_worker};

pub use crate::config::{PluginSettings, PluginsConfig};

use verify::HostFacts;

/// What a plugin has to fit.
fn host_facts() -> &'static HostFacts {
    static FACTS: std::sync::OnceLock<HostFacts> = std::sync::OnceLock::new();
    FACTS.get_or_init(|| HostFacts {
        abi: verify::version_numbers(jackfield_plugin_abi::ABI_VERSION)
            .expect("our own version is two numbers or more"),
        target: jackfield_plugin_api::wire::TARGET,
        format: if cfg!(windows) {
            "pe"
        } else if cfg!(target_vendor = "apple") {
            "mach-o"
        } else {
            "elf"
        },
        machine: crate::config::MACHINE,
        glibc: load::host_glibc(),
    })
}
