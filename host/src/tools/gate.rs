//! Whether a human is asked before a call runs. Pure.
//!
//! | who offers the tool | name matches `confirm_tools` | `ask` of the plugin | `read_only`, `confined` | `writes`, `destructive` |
//! |---|---|---|---|---|
//! | built-in, embedder | no | – | runs | runs |
//! | built-in, embedder | yes | – | asks | asks |
//! | plugin | no | `by_effect` | runs | asks |
//! | plugin | no | `always` | asks | asks |
//! | plugin | no | `never` | runs | runs |
//! | plugin | yes | any | asks | asks |
//!
//! Rationale: what is linked into the program was chosen by whoever wrote the program; what lies in a folder was not.
//! A name pattern is the operator's own word for these very tools and is stronger than a setting for a whole plugin.

use jackfield_plugin_api::Effect;

use super::Origin;
use crate::config::AskPolicy;

/// Why a human is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskReason {
    /// The tool's name contains this configured part.
    NamePattern(String),
    /// The tool is a plugin's and declares this effect, or nothing (which counts as the last).
    Effect(Effect),
    /// The operator wants every call of this plugin confirmed.
    PluginSetting,
}

/// Decides by the table above; `None` means that the call runs. `names` are all names the tool goes by.
pub(crate) fn needs_confirmation(
    origin: &Origin,
    effect: Effect,
    names: &[&str],
    confirm_tools: &[String],
    ask: AskPolicy,
) -> Option<AskReason> {
    // An empty pattern would match every name; it is the left-over of a trailing comma, not a wish.
    let matching = |pattern: &&String| !pattern.is_empty() && names.iter().any(|name| name.contains(pattern.as_str()));
    if let Some(pattern) = confirm_tools.iter().find(matching) {
        return Some(AskReason::NamePattern(pattern.clone()));
    }
    match (origin, ask) {
        (Origin::BuiltIn | Origin::Embedder, _) | (Origin::Plugin(_), AskPolicy::Never) => None,
        (Origin::Plugin(_), AskPolicy::Always) => Some(AskReason::PluginSetting),
        (Origin::Plugin(_), AskPolicy::ByEffect) => effect.asks_by_default().then_some(AskReason::Effect(effect)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PluginId;

    /// Asks for every effect in the order of caution and spells the answers: `a` asks, `r` runs.
    fn row(origin: &Origin, confirm_tools: &[&str], ask: AskPolicy) -> String {
        let confirm_tools: Vec<String> = confirm_tools.iter().map(|&part| part.to_owned()).collect();
        [Effect::ReadOnly, Effect::Confined, Effect::Writes, Effect::Destructive]
            .into_iter()
            .map(|effect| match needs_confirmation(origin, effect, &["close_account"], &confirm_tools, ask) {
                Some(_) => 'a',
                None => 'r',
            })
            .collect()
    }

    #[test]
    fn every_cell_of_the_table() {
        let plugin = Origin::Plugin(PluginId::new("bank"));
        let policies = [AskPolicy::ByEffect, AskPolicy::Always, AskPolicy::Never];
        for ask in policies {
            for origin in [Origin::BuiltIn, Origin::Embedder] {
                assert_eq!(row(&origin, &[], ask), "rrrr", "{origin:?} {ask:?}");
                assert_eq!(row(&origin, &["delete"], ask), "rrrr", "{origin:?} {ask:?}, other pattern");
                assert_eq!(row(&origin, &["delete", "close"], ask), "aaaa", "{origin:?} {ask:?}, pattern");
            }
            assert_eq!(row(&plugin, &["account"], ask), "aaaa", "plugin {ask:?}, pattern");
            assert_eq!(row(&plugin, &["close_account"], ask), "aaaa", "plugin {ask:?}, whole name");
        }
        assert_eq!(row(&plugin, &[], AskPolicy::ByEffect), "rraa");
        assert_eq!(row(&plugin, &["delete"], AskPolicy::ByEffect), "rraa");
        assert_eq!(row(&plugin, &[], AskPolicy::Always), "aaaa");
        assert_eq!(row(&plugin, &[], AskPolicy::Never), "rrrr");
    }

    #[test]
    fn an_empty_pattern_matches_nothing() {
        assert_eq!(row(&Origin::BuiltIn, &[""], AskPolicy::ByEffect), "rrrr");
    }

    #[test]
    fn the_reason_is_said_and_any_name_counts() {
        let plugin = Origin::Plugin(PluginId::new("bank"));
        let ask = |names: &[&str], patterns: &[String], policy| {
            needs_confirmation(&plugin, Effect::Writes, names, patterns, policy)
        };
        let patterns = ["fs.".to_owned()];
        assert_eq!(
            ask(&["fs_write_12ab", "fs.write"], &patterns, AskPolicy::Never),
            Some(AskReason::NamePattern("fs.".to_owned()))
        );
        assert_eq!(ask(&["write"], &[], AskPolicy::ByEffect), Some(AskReason::Effect(Effect::Writes)));
        assert_eq!(ask(&["write"], &[], AskPolicy::Always), Some(AskReason::PluginSetting));
    }
}
