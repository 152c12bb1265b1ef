//! Whether the user is known well enough for a tool. Pure.
//!
//! | level of the tool | public agent | internal agent |
//! |---|---|---|
//! | `none` | runs | runs |
//! | `end_user` | runs in a verified session | runs in a verified session |
//! | `admin` | refused | runs |
//!
//! The gate looks only at tools that the server's configuration names, whatever an agent says of others.

use crate::config::{AgentConfig, AgentVisibility, ToolAuthLevel};

/// What has to be true before a call may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Nothing.
    Open,
    /// The session is verified.
    NeedsVerification,
    /// It may not.
    Closed,
}

/// Decides by the table above. `names` are all names the tool goes by; the strictest level counts.
pub(super) fn gate(agent: &AgentConfig, auth_tools: &[String], names: &[&str]) -> Gate {
    let levels = names
        .iter()
        .filter(|name| auth_tools.iter().any(|tool| tool == *name))
        .filter_map(|name| agent.tool_auth.get(*name));
    let gates = levels.map(|level| match (level, agent.visibility) {
        (ToolAuthLevel::None, _) | (ToolAuthLevel::Admin, AgentVisibility::Internal) => Gate::Open,
        (ToolAuthLevel::EndUser, _) => Gate::NeedsVerification,
        (ToolAuthLevel::Admin, AgentVisibility::Public) => Gate::Closed,
    });
    gates.max_by_key(|gate| *gate as u8).unwrap_or(Gate::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table() {
        use {AgentVisibility as V, Gate as G, ToolAuthLevel as L};
        let auth_tools = ["pay".to_owned()];
        for (level, visibility, expected) in [
            (None, V::Public, G::Open),
            (Some(L::None), V::Public, G::Open),
            (Some(L::None), V::Internal, G::Open),
            (Some(L::EndUser), V::Public, G::NeedsVerification),
            (Some(L::EndUser), V::Internal, G::NeedsVerification),
            (Some(L::Admin), V::Public, G::Closed),
            (Some(L::Admin), V::Internal, G::Open),
        ] {
            let tool_auth = level.map(|level| ("pay".to_owned(), level)).into_iter().collect();
            let agent = AgentConfig { tool_auth, visibility, ..AgentConfig::default() };
            assert_eq!(gate(&agent, &auth_tools, &["pay"]), expected, "{level:?} {visibility:?}");
            assert_eq!(gate(&agent, &auth_tools, &["pay_12ab", "pay"]), expected, "by either name");
            assert_eq!(gate(&agent, &[], &["pay"]), G::Open, "only tools that are named are looked at");
            assert_eq!(gate(&agent, &auth_tools, &["payday"]), G::Open, "a name is a whole name");
        }
    }

    #[test]
    fn of_two_names_the_stricter_one_counts() {
        let auth_tools = ["a".to_owned(), "b".to_owned()];
        let levels = [("a".to_owned(), ToolAuthLevel::EndUser), ("b".to_owned(), ToolAuthLevel::Admin)];
        let agent = AgentConfig { tool_auth: levels.into(), ..AgentConfig::default() };
        assert_eq!(gate(&agent, &auth_tools, &["a", "b"]), Gate::Closed);
        assert_eq!(gate(&agent, &auth_tools, &["b", "a"]), Gate::Closed);
    }
}
