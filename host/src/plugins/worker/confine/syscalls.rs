//! The fence around system calls: everything is allowed that a library needs, and nothing that reaches other processes,
//! the kernel's own doors, the network or another program, unless it was granted.
//!
//! Three programs, each asked for every call: calls by numbers of another kind or newer than this list do not exist;
//! `clone3`, whose flags cannot be looked at, does not exist either, so that `clone` is used; and the rest below is
//! not permitted.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

use crate::{
    config::MACHINE,
    plugins::permissions::{Permitted, PermittedExec},
};

/// Filters the system calls of this thread and of all that it starts.
pub(super) fn filter(permitted: &Permitted) -> Result<(), String> {
    let programs = [unknown_numbers(), absent()?, denied(permitted)?];
    for program in programs {
        apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The newest call that this list has been made for; later ones are asked for and replaced by older ones when absent.
const NEWEST_KNOWN: u32 = 470;
/// Numbers from here on are those of another binary interface on the same processor.
const FOREIGN_NUMBERS: u32 = 0x4000_0000;

fn unknown_numbers() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_GREATER: u16 = 0x25;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let does_not_exist = ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 1, jf: 0, k: FOREIGN_NUMBERS },
        sock_filter { code: JUMP_IF_GREATER, jt: 0, jf: 1, k: NEWEST_KNOWN },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: does_not_exist },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW },
    ]
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn absent() -> Result<BpfProgram, String> {
    compile([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

fn denied(permitted: &Permitted) -> Result<BpfProgram, String> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let starts_programs = matches!(permitted.exec, PermittedExec::Programs(_));
    if !starts_programs {
        rules.extend(PROGRAMS.iter().map(|call| (*call, Vec::new())));
        // A thread is fine, a process is not.
        rules.insert(libc::SYS_clone, vec![rule([bits(0, libc::CLONE_THREAD as u64, 0)])?]);
        rules.insert(libc::SYS_pidfd_send_signal, Vec::new());
        let own = u64::from(std::process::id());
        for call in SIGNALS {
            rules.insert(*call, vec![rule([not(0, own)])?]);
        }
    }
    let namespaces = NAMESPACES.iter().map(|flag| rule([bits(0, *flag as u64, *flag as u64)]));
    let clone = rules.entry(libc::SYS_clone).or_default();
    clone.extend(namespaces.collect::<Result<Vec<_>, _>>()?);
    if permitted.write.is_empty() {
        rules.extend(OPEN_FILES_METADATA.iter().map(|call| (*call, Vec::new())));
    }
    // With a path it reaches files that were never opened, and so were never checked.
    rules.insert(libc::SYS_utimensat, vec![rule([not_null(1)])?]);
    let requests = TERMINAL_REQUESTS.iter().map(|request| rule([equal(1, *request)]));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    let pairs = rule([not(0, libc::AF_UNIX as u64)])?;
    rules.insert(libc::SYS_socketpair, vec![pairs]);
    rules.insert(libc::SYS_socket, sockets(permitted)?);
    compile(rules, libc::EPERM)
}

/// Which sockets are refused: all, or all but those of the internet and the list of network interfaces. Sockets by
/// path or name are never given: what listens there (a container engine, a key agent) acts with the user's rights.
fn sockets(permitted: &Permitted) -> Result<Vec<SeccompRule>, String> {
    if permitted.network.is_empty() {
        return Ok(Vec::new());
    }
    let (internet, kernel) = ([libc::AF_INET, libc::AF_INET6], libc::AF_NETLINK as u64);
    let others = internet.iter().map(|family| not(0, *family as u64)).chain([not(0, kernel)]);
    Ok(vec![rule(others)?, rule([equal(0, kernel), not(2, libc::NETLINK_ROUTE as u64)])?])
}

fn compile(rules: Rules, errno: i32) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(MACHINE).map_err(|error| error.to_string())?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
    filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())
}

struct Condition(u8, SeccompCmpArgLen, SeccompCmpOp, u64);

// The kernel takes numbers and flags as 32 bits, whatever the rest of the register holds.
fn equal(argument: u8, value: u64) -> Condition {
    Condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn not(argument: u8, value: u64) -> Condition {
    Condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn bits(argument: u8, mask: u64, value: u64) -> Condition {
    Condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn not_null(argument: u8) -> Condition {
    Condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)
}

/// Matches when all conditions do.
fn rule(conditions: impl IntoIterator<Item = Condition>) -> Result<SeccompRule, String> {
    let conditions = conditions.into_iter().map(|Condition(argument, width, operator, value)| {
        SeccompCondition::new(argument, width, operator, value).map_err(|error| error.to_string())
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?).map_err(|error| error.to_string())
}

/// Namespaces hand out rights inside of them, and with those more of the kernel.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Type into, or read from, a terminal that is not the plugin's: TIOCSTI, TIOCLINUX.
const TERMINAL_REQUESTS: &[u64] = &[0x5412, 0x541c];
/// Start a program or a process.
#[cfg(target_arch = "x86_64")]
const PROGRAMS: &[i64] = &[libc::SYS_execve, libc::SYS_execveat, libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const PROGRAMS: &[i64] = &[libc::SYS_execve, libc::SYS_execveat];
/// Send a signal to a process, which may only be this one.
const SIGNALS: &[i64] = &[libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];
/// Change owner, rights and attributes of an open file. Landlock does not guard them.
const OPEN_FILES_METADATA: &[i64] = &[libc::SYS_fchmod, libc::SYS_fchown, libc::SYS_fsetxattr, libc::SYS_fremovexattr];

/// What no plugin needs.
const ALWAYS: &[i64] = &[
    // Other processes: their memory, their descriptors, their state.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_tkill,
    // Owner, rights and attributes of files by their path, which Landlock does not guard.
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    // Calls by a queue, which no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Programs inside the kernel, and its own memory handling.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_memfd_secret,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_set_mempolicy,
    // Keys of the user's login.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other views of the system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Files by a handle, past every path.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // The machine as a whole.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
];

/// Numbers that are the same on every processor and younger than some versions of the list they are taken from.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const OPEN_TREE_ATTR: i64 = 467;
const FILE_SETATTR: i64 = 469;
