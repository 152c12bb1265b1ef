//! One call of one tool, by the same rules as in a turn: arguments that fit, a yes where one is needed, two clocks, one
//! result.

use std::{path::Path, sync::Arc, time::Duration};

use jackfield_plugin_api::{Effect, ToolProviderContext};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::single;
use crate::{
    clock::SharedClock,
    config::ServerConfig,
    ids::ToolCallId,
    tools::{CallSetup, Offer, Origin, SourceRules, ToolCaller, ToolProgress, Toolbox, needs_confirmation},
};

/// What is to be called.
#[derive(Clone, Debug)]
pub struct CallRequest {
    /// The tool's name.
    pub tool: String,
    /// Its arguments, a JSON object as text.
    pub arguments: String,
    /// Longest duration and longest silence. Default: the limits of the configuration.
    pub timeout: Option<Duration>,
    /// Run the call also where a turn would ask a human.
    pub approve: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Called {
    /// The tool ran, or its arguments do not fit.
    Ended {
        /// What a model would read.
        text: String,
        /// Whether the call failed.
        is_error: bool,
        /// Details for a user interface.
        details: Option<Value>,
    },
    /// A human would have been asked, because of this effect or of a setting.
    NeedsApproval(Effect),
}

/// Loads the plugin, makes the call, and takes the plugin down. `progress` is told how far the tool is.
///
/// # Errors
///
/// Why the plugin is not active, or lists no tools.
pub async fn call(
    file: &Path,
    request: &CallRequest,
    config: &ServerConfig,
    clock: SharedClock,
    progress: impl Fn(Option<f32>, &str) + Send + Sync + 'static,
) -> Result<Called, String> {
    let mut limits = config.limits.clone();
    if let Some(timeout) = request.timeout {
        (limits.tool_idle, limits.tool_absolute) = (timeout, timeout);
    }
    let loaded = single::load(file, &config.plugins, &limits, clock.clone()).await?;
    let entry = &loaded.entry;
    let provider = entry.provider.as_ref().expect("an active plugin has a provider");
    let tools = provider.list_tools(&ToolProviderContext::default()).await.map_err(|fault| fault.to_string())?;
    let origin = Origin::Plugin(entry.id.clone());
    let offer = Offer {
        origin: origin.clone(),
        rules: SourceRules::from(&entry.settings),
        tools: tools.into(),
        lister: provider.clone(),
        fault: None,
    };
    let tools = Toolbox::new(config.plugins.name_conflict, &limits).assemble(&[], &[offer], None);
    let caller = ToolCaller::new(clock, &limits);
    let prepared = match caller.prepare(&tools, &request.tool, &request.arguments) {
        Ok(prepared) => prepared,
        Err(result) => return Ok(Called::Ended { text: result.text, is_error: true, details: None }),
    };
    let names = [request.tool.as_str()];
    let asks = needs_confirmation(&origin, prepared.effect, &names, &config.confirm_tools, entry.settings.ask);
    if asks.is_some() && !request.approve {
        return Ok(Called::NeedsApproval(prepared.effect));
    }
    let setup = CallSetup {
        tool_call_id: ToolCallId::new("call-by-hand"),
        conversation_id: None,
        session_id: None,
        turn_id: None,
        cancel: CancellationToken::new(),
        progress: Some(Arc::new(move |report: ToolProgress| progress(report.fraction, &report.message))),
    };
    let result = caller.run(prepared, setup).await;
    loaded.plugins.shutdown(limits.plugin_shutdown).await;
    Ok(Called::Ended { text: result.text, is_error: result.is_error, details: result.details })
}
