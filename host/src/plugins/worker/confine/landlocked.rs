//! The fence around files, TCP ports, signals and sockets.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::plugins::permissions::{Permitted, PermittedExec};

/// What was put in force.
pub(super) struct Restricted {
    pub(super) abi: u32,
    pub(super) lacking: Vec<String>,
}

/// What this program knows how to restrict; an older kernel restricts less, which is reported.
const KNOWN: ABI = ABI::V10;

/// Files that any library may need: the libraries it is linked to, the time zones, sources of randomness. All of them
/// are readable by everybody and tell nothing about anybody.
const LIBRARIES: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
];
/// What is needed besides to find a host by its name and to check its certificate.
const NAMES_AND_CERTIFICATES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
/// Where names are asked for when an answer does not fit a datagram.
const NAME_SERVICE: u16 = 53;

/// Restricts this thread and all that it starts.
pub(super) fn restrict(permitted: &Permitted, library: &Path) -> Result<Restricted, String> {
    let mut lacking = Vec::new();
    let (rules, ports) = (rules(permitted, library), permitted.ports());
    let ruleset = build(&rules, ports.as_ref().map(|ports| ports.iter().copied().collect()), &mut lacking);
    let status = ruleset.and_then(RulesetCreated::restrict_self).map_err(|error| error.to_string())?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Err("this kernel has none, or it is switched off".to_owned());
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("it is not enforced".to_owned());
    }
    lacking.extend(missing(effective_abi));
    Ok(Restricted { abi: effective_abi as u32, lacking })
}

struct Rule {
    path: PathBuf,
    access: BitFlags<AccessFs>,
    /// Whether somebody asked for it, who should hear that it is not there.
    wanted: bool,
}

fn rules(permitted: &Permitted, library: &Path) -> Vec<Rule> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = read | (AccessFs::from_write(KNOWN) & !devices);
    let run = AccessFs::ReadFile | AccessFs::Execute;
    let own = |path: &Path, access| Rule { path: path.to_owned(), access, wanted: false };
    let wanted = |path: &PathBuf, access| Rule { path: path.clone(), access, wanted: true };

    let mut rules: Vec<Rule> = LIBRARIES.iter().map(|path| own(Path::new(path), read)).collect();
    rules.push(own(library, read));
    rules.push(own(Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile));
    if !permitted.network.is_empty() {
        rules.extend(NAMES_AND_CERTIFICATES.iter().map(|path| own(Path::new(path), read)));
    }
    rules.extend(permitted.read.iter().map(|path| wanted(path, read)));
    rules.extend(permitted.write.iter().map(|path| wanted(path, write)));
    if let PermittedExec::Programs(programs) = &permitted.exec {
        rules.extend(programs.iter().map(|path| wanted(path, run | AccessFs::ReadDir)));
        // Programs are started by the dynamic linker, which is a program among the libraries.
        rules.extend(["/lib", "/lib64", "/usr/lib", "/usr/lib64"].map(|path| own(Path::new(path), read | run)));
    }
    rules
}

/// `ports` is `None` for any.
fn build(rules: &[Rule], ports: Option<Vec<u16>>, lacking: &mut Vec<String>) -> Result<RulesetCreated, RulesetError> {
    let mut handled = BitFlags::from_flag(AccessNet::BindTcp);
    if ports.is_some() {
        handled |= AccessNet::ConnectTcp;
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(handled)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for rule in rules {
        match PathFd::new(&rule.path) {
            Ok(path) => {
                let access = if rule.path.is_dir() { rule.access } else { rule.access & AccessFs::from_file(KNOWN) };
                ruleset = ruleset.add_rule(PathBeneath::new(path, access))?;
            }
            Err(error) if rule.wanted => {
                lacking.push(format!("{} cannot be reached: {error}", rule.path.display()));
            }
            Err(_) => {}
        }
    }
    let name_service = ports.as_ref().filter(|ports| !ports.is_empty()).map(|_| NAME_SERVICE);
    for port in ports.into_iter().flatten().chain(name_service) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset)
}

/// What an older version does not guard.
fn missing(abi: ABI) -> Option<String> {
    let unguarded: Vec<&str> = [(ABI::V3, "truncating files"), (ABI::V4, "TCP ports"), (ABI::V6, "signals")]
        .into_iter()
        .filter(|(since, _)| abi < *since)
        .map(|(_, what)| what)
        .collect();
    (!unguarded.is_empty()).then(|| format!("this kernel's Landlock does not guard {}", unguarded.join(", ")))
}
