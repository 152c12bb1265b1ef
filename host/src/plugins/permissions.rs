//! What an isolated plugin may touch: what its manifest asks for, as far as the operator granted it. Pure.
//!
//! ```text
//!   manifest: asked ──┐
//!                     ├──▶ permitted ──▶ the worker's fences, and how far its effects are believed
//!   operator: granted ┘──▶ missing: asked and not granted; idle: granted and not asked
//! ```

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::config::{ExecPermission, PluginPermissions};

/// What a manifest asks for. Kinds this host does not know are kept by name, so that they can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    network: Vec<String>,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    exec: Vec<String>,
    env: Vec<String>,
}

/// What a plugin may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Permitted {
    /// `HOST:PORT` or `HOST`. The kernel can hold a worker to the ports, not to the hosts.
    pub network: BTreeSet<String>,
    /// Files and folders to read, with all that is in them.
    #[schema(value_type = Vec<String>)]
    pub read: BTreeSet<PathBuf>,
    /// Files and folders to change, with all that is in them; they may be read, too.
    #[schema(value_type = Vec<String>)]
    pub write: BTreeSet<PathBuf>,
    /// Programs to start.
    #[schema(value_type = Value)]
    pub exec: PermittedExec,
    /// Variables of the host's environment.
    pub env: BTreeSet<String>,
}

/// Which programs a plugin may start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermittedExec {
    /// None.
    #[default]
    Nothing,
    /// These, within the same fences.
    Programs(BTreeSet<PathBuf>),
    /// Any, in a sandbox that the plugin builds itself, for which it needs to be without fences.
    Sandbox,
}

/// The outcome of comparing what is asked with what is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What counts.
    pub permitted: Permitted,
    /// Asked for and not granted, or granted in part only, as texts such as `read /data`.
    pub missing: Vec<String>,
    /// Granted and not asked for, so without effect.
    pub idle: Vec<String>,
}

/// The word for a sandbox of the plugin's own.
const SANDBOX: &str = "sandbox";
/// Stands for any host.
const ANY: &str = "*";

/// Decides what an isolated plugin may touch.
pub(super) fn decide(asked: &Value, granted: &PluginPermissions) -> Decision {
    let unreadable =
        || Decision { missing: vec![format!("permissions that are not understood: {asked}")], ..Decision::default() };
    let asked: Asked = match asked {
        Value::Null => Asked::default(),
        asked => match serde_json::from_value(asked.clone()) {
            Ok(asked) => asked,
            Err(_) => return unreadable(),
        },
    };
    let mut decision = Decision::default();
    let (network, read, write) = (
        join("network", &asked.network, &granted.network, |asked, granted| overlap(asked, granted), &mut decision),
        join("read", &asked.read, &granted.read, |asked, granted| common_path(asked, granted), &mut decision),
        join("write", &asked.write, &granted.write, |asked, granted| common_path(asked, granted), &mut decision),
    );
    let granted_env: Vec<String> = granted.env.keys().cloned().collect();
    let env = join("env", &asked.env, &granted_env, |asked, granted| same(asked, granted), &mut decision);
    let exec = decide_exec(&asked.exec, &granted.exec, &mut decision);
    decision.permitted = Permitted { network, read, write, exec, env };
    decision
}

/// What is asked for, as texts: for lists and questions.
pub fn asked_texts(asked: &Value) -> Vec<String> {
    let Value::Object(kinds) = asked else { return Vec::new() };
    let texts = |(kind, wanted): (&String, &Value)| -> Vec<String> {
        let wanted = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
        wanted.map(|wanted| format!("{kind} {wanted}")).collect()
    };
    kinds.iter().flat_map(texts).collect()
}

/// Everything that some asked and some granted thing have in common.
fn join<T: Clone + Ord + Shown>(
    kind: &str,
    asked: &[T],
    granted: &[T],
    common: impl Fn(&T, &T) -> Option<T>,
    decision: &mut Decision,
) -> BTreeSet<T> {
    let mut joined = BTreeSet::new();
    for wanted in asked {
        let parts: Vec<T> = granted.iter().filter_map(|granted| common(wanted, granted)).collect();
        if !parts.contains(wanted) {
            let only: Vec<String> = parts.iter().map(Shown::shown).collect();
            let only = if only.is_empty() { String::new() } else { format!(" (only {})", only.join(", ")) };
            decision.missing.push(format!("{kind} {}{only}", wanted.shown()));
        }
        joined.extend(parts);
    }
    let is_idle = |granted: &&T| !asked.iter().any(|asked| common(asked, granted).is_some());
    decision.idle.extend(granted.iter().filter(is_idle).map(|granted| format!("{kind} {}", granted.shown())));
    joined
}

fn decide_exec(asked: &[String], granted: &ExecPermission, decision: &mut Decision) -> PermittedExec {
    let (programs, sandbox): (Vec<&String>, Vec<&String>) = asked.iter().partition(|asked| *asked != SANDBOX);
    let programs: Vec<PathBuf> = programs.into_iter().map(PathBuf::from).collect();
    match granted {
        ExecPermission::Sandbox if !sandbox.is_empty() => PermittedExec::Sandbox,
        ExecPermission::Sandbox => {
            decision.idle.push(format!("exec {SANDBOX}"));
            decision.missing.extend(programs.iter().map(|program| format!("exec {}", program.display())));
            PermittedExec::Nothing
        }
        ExecPermission::Programs(granted) => {
            if !sandbox.is_empty() {
                decision.missing.push(format!("exec {SANDBOX}"));
            }
            let granted: Vec<PathBuf> = granted.clone();
            let joined = join("exec", &programs, &granted, |asked, granted| common_path(asked, granted), decision);
            if joined.is_empty() { PermittedExec::Nothing } else { PermittedExec::Programs(joined) }
        }
    }
}

/// The narrower of two paths, when one holds the other.
fn common_path(asked: &Path, granted: &Path) -> Option<PathBuf> {
    if asked.starts_with(granted) {
        Some(asked.to_owned())
    } else if granted.starts_with(asked) {
        Some(granted.to_owned())
    } else {
        None
    }
}

fn same(asked: &str, granted: &str) -> Option<String> {
    (asked == granted).then(|| asked.to_owned())
}

/// What two destinations have in common: the narrower host and the port that is named.
fn overlap(asked: &str, granted: &str) -> Option<String> {
    let ((asked_host, asked_port), (granted_host, granted_port)) = (split(asked), split(granted));
    let host = if host_within(asked_host, granted_host) {
        asked_host
    } else if host_within(granted_host, asked_host) {
        granted_host
    } else {
        return None;
    };
    let port = match (asked_port, granted_port) {
        (Some(asked), Some(granted)) if asked != granted => return None,
        (asked, granted) => asked.or(granted),
    };
    Some(port.map_or_else(|| host.to_ascii_lowercase(), |port| format!("{}:{port}", host.to_ascii_lowercase())))
}

fn split(destination: &str) -> (&str, Option<u16>) {
    match destination.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (destination, None),
        },
        _ => (destination, None),
    }
}

/// Whether every host of the first pattern is one of the second: equal, below `*.suffix`, or `*`.
fn host_within(narrow: &str, wide: &str) -> bool {
    let is_below = |suffix: &str| {
        let (narrow, suffix) = (narrow.to_ascii_lowercase(), suffix.to_ascii_lowercase());
        narrow.strip_suffix(&suffix).is_some_and(|front| front.ends_with('.'))
    };
    wide == ANY || narrow.eq_ignore_ascii_case(wide) || wide.strip_prefix("*.").is_some_and(is_below)
}

impl Permitted {
    /// The ports that TCP connections may go to: `None` for any port, an empty set for no network at all.
    pub(super) fn ports(&self) -> Option<BTreeSet<u16>> {
        self.network.iter().map(|destination| split(destination).1).collect()
    }

    /// One text for each thing.
    pub(super) fn texts(&self) -> Vec<String> {
        let paths = |kind: &str, paths: &BTreeSet<PathBuf>| -> Vec<String> {
            paths.iter().map(|path| format!("{kind} {}", path.display())).collect()
        };
        let mut texts: Vec<String> = self.network.iter().map(|host| format!("network {host}")).collect();
        texts.extend(paths("read", &self.read));
        texts.extend(paths("write", &self.write));
        match &self.exec {
            PermittedExec::Nothing => {}
            PermittedExec::Programs(programs) => texts.extend(paths("exec", programs)),
            PermittedExec::Sandbox => texts.push(format!("exec {SANDBOX}")),
        }
        texts.extend(self.env.iter().map(|name| format!("env {name}")));
        texts
    }
}

/// How a thing is written in a report.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl fmt::Display for Permitted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.texts();
        formatter.write_str(if texts.is_empty() { "nothing" } else { "" })?;
        formatter.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    fn texts(decision: &Decision) -> Vec<String> {
        decision.permitted.texts()
    }

    #[test]
    fn nothing_is_permitted_that_is_not_both_asked_and_granted() {
        let asked = json!({ "read": ["/data", "/etc/hosts"], "write": ["/var/out"], "env": ["TZ", "LANG"] });
        let granted = PluginPermissions {
            read: paths(&["/data", "/home"]),
            env: [("TZ".to_owned(), None), ("HOME".to_owned(), None)].into(),
            ..PluginPermissions::default()
        };
        let decision = decide(&asked, &granted);
        assert_eq!(texts(&decision), ["read /data", "env TZ"]);
        assert_eq!(decision.missing, ["read /etc/hosts", "write /var/out", "env LANG"]);
        assert_eq!(decision.idle, ["read /home", "env HOME"]);
        assert_eq!(decide(&Value::Null, &granted).permitted, Permitted::default());
        assert_eq!(decide(&asked, &PluginPermissions::default()).permitted, Permitted::default());
    }

    #[test]
    fn the_narrower_of_two_paths_counts() {
        let asked = json!({ "read": ["/"], "write": ["/srv/notes/mine"] });
        let granted = PluginPermissions {
            read: paths(&["/data/public", "/opt"]),
            write: paths(&["/srv/notes"]),
            ..PluginPermissions::default()
        };
        let decision = decide(&asked, &granted);
        assert_eq!(texts(&decision), ["read /data/public", "read /opt", "write /srv/notes/mine"]);
        assert_eq!(decision.missing, ["read / (only /data/public, /opt)"]);
        assert!(decision.idle.is_empty());
        let beside = PluginPermissions { write: paths(&["/srv/notes/mine2"]), ..PluginPermissions::default() };
        assert!(decide(&asked, &beside).permitted.write.is_empty(), "a common beginning of the name is not a folder");
    }

    #[test]
    fn destinations_meet_at_the_narrower_host_and_the_named_port() {
        let meet = overlap;
        assert_eq!(meet("a.example:443", "a.example").unwrap(), "a.example:443");
        assert_eq!(meet("*", "A.example:80").unwrap(), "a.example:80");
        assert_eq!(meet("*.example:443", "*").unwrap(), "*.example:443");
        assert_eq!(meet("api.a.example", "*.a.example:443").unwrap(), "api.a.example:443");
        assert_eq!(meet("a.example:443", "a.example:80"), None);
        assert_eq!(meet("evil-a.example", "*.a.example"), None);
        assert_eq!(meet("[::1]:80", "[::1]:80").unwrap(), "[::1]:80");
        let ports = |network: &[&str]| {
            let network = network.iter().map(|host| (*host).to_owned()).collect();
            Permitted { network, ..Permitted::default() }.ports()
        };
        assert_eq!(ports(&[]), Some(BTreeSet::new()));
        assert_eq!(ports(&["a:443", "b:80"]), Some(BTreeSet::from([80, 443])));
        assert_eq!(ports(&["a:443", "b"]), None);
    }

    #[test]
    fn a_sandbox_of_its_own_is_asked_for_and_granted_by_name() {
        let sandbox = PluginPermissions { exec: ExecPermission::Sandbox, ..PluginPermissions::default() };
        let git = PluginPermissions {
            exec: ExecPermission::Programs(paths(&["/usr/bin/git"])),
            ..PluginPermissions::default()
        };
        assert_eq!(decide(&json!({ "exec": ["sandbox"] }), &sandbox).permitted.exec, PermittedExec::Sandbox);
        let decision = decide(&json!({ "exec": ["/usr/bin/git"] }), &sandbox);
        assert_eq!(decision.permitted.exec, PermittedExec::Nothing);
        assert_eq!(
            (decision.missing.join(","), decision.idle.join(",")),
            ("exec /usr/bin/git".into(), "exec sandbox".into())
        );
        let decision = decide(&json!({ "exec": ["sandbox", "/usr/bin/git"] }), &git);
        assert_eq!(texts(&decision), ["exec /usr/bin/git"]);
        assert_eq!(decision.missing, ["exec sandbox"]);
    }

    #[test]
    fn permissions_that_are_not_understood_permit_nothing() {
        let everything = PluginPermissions { read: paths(&["/"]), ..PluginPermissions::default() };
        let decision = decide(&json!({ "read": "/" }), &everything);
        assert_eq!(decision.permitted, Permitted::default());
        assert!(decision.missing[0].contains("not understood"));
        assert_eq!(asked_texts(&json!({ "read": ["/a"], "network": ["b"] })), ["network b", "read /a"]);
    }

    proptest! {
        #[test]
        fn what_is_permitted_lies_within_both(
            asked in proptest::collection::vec("(/[ab]){0,3}", 0..4), granted in proptest::collection::vec("(/[ab]){0,3}", 0..4),
        ) {
            let full = |paths: Vec<String>| paths.into_iter().map(|path| if path.is_empty() { "/".into() } else { path });
            let (asked, granted): (Vec<String>, Vec<String>) = (full(asked).collect(), full(granted).collect());
            let grants = PluginPermissions { read: granted.iter().map(PathBuf::from).collect(), ..PluginPermissions::default() };
            let decision = decide(&json!({ "read": asked }), &grants);
            for path in &decision.permitted.read {
                prop_assert!(asked.iter().any(|asked| path.starts_with(asked)));
                prop_assert!(granted.iter().any(|granted| path.starts_with(granted)));
            }
        }
    }
}
