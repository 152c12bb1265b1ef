//! A tool of a plugin between its plugin and the turn: refuses calls while the plugin is in quarantine, tells its
//! health how calls end, and holds it to what its manifest says.

use std::sync::Arc;

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Effect, Tool, ToolError, ToolOptions, ToolOutput, ToolSchema};
use serde_json::Value;

use super::{
    health::{Health, Misdeed},
    manifest::ManifestTool,
};

/// See the module.
pub(super) struct GuardedTool {
    pub(super) tool: Arc<dyn Tool>,
    /// The least that a call counts as, whatever the running plugin says.
    pub(super) floor: Effect,
    pub(super) health: Arc<Health>,
}

#[async_trait]
impl Tool for GuardedTool {
    fn schema(&self) -> ToolSchema {
        self.tool.schema()
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        let permit = self.health.permit_call().map_err(ToolError::Unavailable)?;
        let result = self.tool.execute(arguments, call).await;
        match &result {
            Err(ToolError::Panicked(text)) => permit.went_wrong(&Misdeed::Panicked(text.clone())),
            // The plugin was stopped or its process is gone, which says nothing about this call.
            Err(ToolError::Unavailable(_)) => drop(permit),
            _ => permit.went_well(),
        }
        result
    }

    fn is_read_only(&self) -> bool {
        self.floor == Effect::ReadOnly && self.tool.is_read_only()
    }

    fn is_concurrent_safe(&self) -> bool {
        self.tool.is_concurrent_safe()
    }

    fn effect(&self, arguments: &Value) -> Effect {
        if self.floor == Effect::Destructive { self.floor } else { self.tool.effect(arguments).max(self.floor) }
    }

    fn declared_effect(&self) -> Option<Effect> {
        if self.floor == Effect::Destructive {
            return Some(self.floor);
        }
        self.tool.declared_effect().map(|effect| effect.max(self.floor))
    }

    fn options(&self) -> ToolOptions {
        self.tool.options()
    }
}

/// The least that a call of this tool counts as by the manifest, which is what the operator could read. A manifest that
/// names tools and leaves one out is silent about that one, and undeclared counts as destructive; one that names none
/// leaves it to the running plugin.
pub(super) fn least_effect(declared: &[ManifestTool], name: &str) -> Effect {
    match declared.iter().find(|tool| tool.name == name) {
        None if declared.is_empty() => Effect::ReadOnly,
        None => Effect::Destructive,
        // Without an effect, or with one that depends on the arguments, each call says it.
        Some(tool) => tool.effect.as_deref().map_or(Effect::ReadOnly, effect_named),
    }
}

/// What the plugin offers and its manifest tells otherwise, in words for the operator.
pub(super) fn contradictions(declared: &[ManifestTool], offered: &[Arc<dyn Tool>]) -> Vec<String> {
    let warnings = offered.iter().filter_map(|tool| {
        let name = tool.schema().name;
        let Some(named) = declared.iter().find(|named| named.name == name) else {
            return (!declared.is_empty()).then(|| {
                format!("it offers {name:?}, which its manifest does not name; calls of it count as destructive")
            });
        };
        let (says, does) = (named.effect.as_deref()?, tool.declared_effect()?);
        let counts_as = does.max(effect_named(says));
        (says != does.as_str() && says != BY_ARGUMENTS).then(|| {
            format!(
                "its manifest says that {name:?} is {says}, the running plugin says {}; calls of it count as {}",
                does.as_str(),
                counts_as.as_str()
            )
        })
    });
    let missing = declared.iter().filter(|named| !offered.iter().any(|tool| tool.schema().name == named.name));
    let missing = missing.map(|named| format!("its manifest names {:?}, which it does not offer", named.name));
    warnings.chain(missing).collect()
}

/// What a manifest writes for an effect that depends on the arguments.
const BY_ARGUMENTS: &str = "by_arguments";

fn effect_named(name: &str) -> Effect {
    match name {
        "read_only" | BY_ARGUMENTS => Effect::ReadOnly,
        "confined" => Effect::Confined,
        "writes" => Effect::Writes,
        // Destructive, or a word that this host does not know.
        _ => Effect::Destructive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, effect: Option<&str>) -> ManifestTool {
        ManifestTool { name: name.to_owned(), effect: effect.map(str::to_owned) }
    }

    struct Plain(&'static str, Option<Effect>);

    #[async_trait]
    impl Tool for Plain {
        fn schema(&self) -> ToolSchema {
            ToolSchema::new(self.0, "", serde_json::json!({ "type": "object" }))
        }

        async fn execute(&self, _: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
            Ok("done".into())
        }

        fn effect(&self, _: &Value) -> Effect {
            self.1.unwrap_or(Effect::Confined)
        }

        fn declared_effect(&self) -> Option<Effect> {
            self.1
        }
    }

    fn plain(name: &'static str, effect: Option<Effect>) -> Arc<dyn Tool> {
        Arc::new(Plain(name, effect))
    }

    #[test]
    fn the_more_cautious_of_manifest_and_plugin_counts() {
        let declared =
            [named("look", Some("read_only")), named("set", Some("writes")), named("any", Some("by_arguments"))];
        for (name, says, counts) in [
            ("look", Effect::ReadOnly, Effect::ReadOnly),
            ("look", Effect::Destructive, Effect::Destructive),
            ("set", Effect::ReadOnly, Effect::Writes),
            ("any", Effect::Confined, Effect::Confined),
            ("hidden", Effect::ReadOnly, Effect::Destructive),
        ] {
            let health = Arc::new(Health::new(
                crate::ids::PluginId::new("p"),
                &crate::config::Limits::default(),
                Arc::default(),
            ));
            let tool = GuardedTool { tool: plain(name, Some(says)), floor: least_effect(&declared, name), health };
            assert_eq!((tool.declared_effect(), tool.effect(&Value::Null)), (Some(counts), counts), "{name} {says:?}");
            assert!(!tool.is_read_only(), "it does not say so itself");
        }
        assert_eq!(least_effect(&[], "whatever"), Effect::ReadOnly, "who names no tool hides none");
        assert_eq!(least_effect(&[named("odd", Some("explosive"))], "odd"), Effect::Destructive);
    }

    #[test]
    fn contradictions_are_told() {
        let declared = [
            named("look", Some("read_only")),
            named("gone", Some("writes")),
            named("set", Some("read_only")),
            named("any", None),
        ];
        let offered = [
            plain("look", Some(Effect::ReadOnly)),
            plain("set", Some(Effect::Writes)),
            plain("extra", None),
            plain("any", Some(Effect::Writes)),
        ];
        let warnings = contradictions(&declared, &offered);
        assert_eq!(warnings.len(), 3, "{warnings:#?}");
        assert!(
            warnings[0].contains("\"set\" is read_only") && warnings[0].contains("count as writes"),
            "{warnings:#?}"
        );
        assert!(warnings[1].contains("\"extra\"") && warnings[1].contains("destructive"), "{warnings:#?}");
        assert!(warnings[2].contains("\"gone\""), "{warnings:#?}");
        assert!(contradictions(&[], &offered).is_empty());
    }
}
