//! The fences that a worker puts around itself before it opens the plugin's library, and the report of what they are.
//!
//! ```text
//!   limits (memory, CPU, files, no cores) ─▶ no new privileges ─▶ capabilities given up
//!       ─▶ Landlock: files, TCP ports, signals, sockets ─▶ seccomp: system calls ─▶ the library is opened
//! ```
//!
//! What a fence cannot be built of is said, and everything else is built all the same; nothing here makes a worker
//! less confined than it was. A plugin that was granted a sandbox of its own keeps capabilities and gets no Landlock
//! and no seccomp, because both would forbid what its sandbox is made of.

#[cfg(target_os = "linux")]
mod landlocked;
#[cfg(target_os = "linux")]
mod syscalls;

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::setup::WorkerLimits;
use crate::plugins::{
    confinement::Confinement,
    permissions::{Permitted, PermittedExec},
};

/// Confines this process for good. To be called while it has one thread, because Landlock and seccomp hold for the
/// calling thread and those it starts.
pub(super) fn confine(permitted: &Permitted, library: &Path, limits: &WorkerLimits) -> Confinement {
    let mut confinement = Confinement {
        own_sandbox: permitted.exec == PermittedExec::Sandbox,
        permitted: permitted.clone(),
        ..Confinement::default()
    };
    limit_resources(limits, &mut confinement);
    fence_in(library, &mut confinement);
    confinement
}

/// A sandbox's programs inherit these, so a plugin that builds one keeps the memory and CPU time it had: what it runs
/// has limits of its own.
fn limit_resources(limits: &WorkerLimits, confinement: &mut Confinement) {
    let mut set = |what: &str, resource: Resource, value: u64| {
        let before = getrlimit(resource);
        let value = before.maximum.map_or(value, |maximum| maximum.min(value));
        if let Err(error) = setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }) {
            confinement.lacking.push(format!("{what} cannot be limited: {error}"));
        }
    };
    set("the size of a core file", Resource::Core, 0);
    if confinement.own_sandbox {
        return;
    }
    set("the number of open files", Resource::Nofile, limits.files);
    set("CPU time", Resource::Cpu, limits.cpu_seconds);
    // Apple's systems accept a limit of the address space and do not keep it.
    #[cfg(not(target_vendor = "apple"))]
    set("memory", Resource::As, limits.memory_bytes);
}

#[cfg(target_os = "linux")]
fn fence_in(library: &Path, confinement: &mut Confinement) {
    match rustix::thread::set_no_new_privs(true) {
        Ok(()) => confinement.no_new_privileges = true,
        Err(error) => confinement.lacking.push(format!("privileges may be gained: {error}")),
    }
    if confinement.own_sandbox {
        return;
    }
    if let Err(error) = give_up_capabilities(&confinement.permitted) {
        confinement.lacking.push(format!("capabilities are kept: {error}"));
    }
    match landlocked::restrict(&confinement.permitted, library) {
        Ok(restricted) => {
            confinement.landlock = Some(restricted.abi);
            confinement.lacking.extend(restricted.lacking);
        }
        Err(reason) => confinement.lacking.push(format!("no Landlock, so files are not guarded: {reason}")),
    }
    match syscalls::filter(&confinement.permitted) {
        Ok(()) => confinement.seccomp = true,
        Err(reason) => confinement.lacking.push(format!("no seccomp, so system calls are not filtered: {reason}")),
    }
}

#[cfg(not(target_os = "linux"))]
fn fence_in(_: &Path, confinement: &mut Confinement) {
    if !confinement.own_sandbox {
        confinement.lacking.push("no Landlock and no seccomp on this system, so nothing is enforced".to_owned());
    }
}

/// A worker of root's gives up what makes root powerful, except reaching files of other users where the operator
/// granted files at all.
#[cfg(target_os = "linux")]
fn give_up_capabilities(permitted: &Permitted) -> rustix::io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

    let mut wanted = CapabilitySet::empty();
    if !permitted.read.is_empty() || !permitted.write.is_empty() {
        wanted |= CapabilitySet::DAC_READ_SEARCH;
    }
    if !permitted.write.is_empty() {
        wanted |= CapabilitySet::DAC_OVERRIDE;
    }
    let kept = capabilities(None)?.permitted & wanted;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
}
