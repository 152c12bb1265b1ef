//! What confines a plugin that runs isolated, as its worker reports it. Pure.

use std::fmt;

use jackfield_plugin_api::Effect;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::permissions::{Permitted, PermittedExec};

/// What really confines a plugin that runs isolated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Confinement {
    /// The version of Landlock that guards files, ports and signals; absent when it does not.
    pub landlock: Option<u32>,
    /// System calls are filtered.
    pub seccomp: bool,
    /// No program that it starts can gain privileges.
    pub no_new_privileges: bool,
    /// It was granted a sandbox of its own and is not fenced in by the host.
    pub own_sandbox: bool,
    /// What it may touch.
    pub permitted: Permitted,
    /// What was wanted and could not be had, in sentences.
    pub lacking: Vec<String>,
}

impl Confinement {
    /// Whether files, sockets and programs beyond what is permitted are really out of reach.
    pub fn is_enforced(&self) -> bool {
        self.landlock.is_some() && self.seccomp
    }

    /// What the effect of any of its tools counts as at least: a declaration is believed as far as the fences make it
    /// true. A plugin that cannot change anything outside is believed to change nothing. One that builds a sandbox of
    /// its own has all rights, as if it were in this process, and is believed as there.
    pub(super) fn least_effect(&self) -> Effect {
        let Permitted { network, write, exec, .. } = &self.permitted;
        match exec {
            PermittedExec::Sandbox => Effect::ReadOnly,
            _ if !self.is_enforced() => Effect::Destructive,
            _ if !network.is_empty() || !write.is_empty() => Effect::Writes,
            _ => Effect::ReadOnly,
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match (self.own_sandbox, self.landlock, self.seccomp) {
            (true, ..) => "not fenced in, because it builds a sandbox of its own",
            (false, Some(_), true) => "files and ports by Landlock, system calls by seccomp",
            (false, Some(_), false) => "files and ports by Landlock",
            (false, None, true) => "system calls by seccomp",
            (false, None, false) => "limits only",
        })?;
        write!(formatter, "; permitted: {}", self.permitted)?;
        for lacking in &self.lacking {
            write!(formatter, "; {lacking}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_effect_is_believed_as_far_as_the_fences_go() {
        let fenced = |permitted: Permitted| Confinement {
            landlock: Some(7),
            seccomp: true,
            permitted,
            ..Confinement::default()
        };
        let reads = Permitted { read: ["/data".into()].into(), ..Permitted::default() };
        let writes = Permitted { write: ["/data".into()].into(), ..Permitted::default() };
        let network = Permitted { network: ["a.example:443".into()].into(), ..Permitted::default() };
        let sandbox = Permitted { exec: PermittedExec::Sandbox, ..writes.clone() };
        assert_eq!(fenced(reads.clone()).least_effect(), Effect::ReadOnly);
        assert_eq!(fenced(writes).least_effect(), Effect::Writes);
        assert_eq!(fenced(network).least_effect(), Effect::Writes);
        assert_eq!(Confinement { permitted: sandbox, ..Confinement::default() }.least_effect(), Effect::ReadOnly);
        let unfenced = Confinement { landlock: None, ..fenced(reads) };
        assert_eq!(unfenced.least_effect(), Effect::Destructive);
    }
}
