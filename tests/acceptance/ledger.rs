//! Tools of an embedding program that write down every run, so that a test can tell what really happened.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use serde_json::{Value, json};

/// Offers `gated` and `free`, which run at once, and `slow`, which takes a moment. Clones share one book.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<(&'static str, u64)>>>);

impl Ledger {
    /// The `n` of every run of this tool, in the order of the runs.
    pub(crate) fn runs(&self, tool: &str) -> Vec<u64> {
        let book = self.0.lock().unwrap();
        book.iter().filter(|(name, _)| *name == tool).map(|(_, n)| *n).collect()
    }
}

struct Entry {
    name: &'static str,
    ledger: Ledger,
}

#[async_trait]
impl Tool for Entry {
    fn schema(&self) -> ToolSchema {
        let parameters = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        ToolSchema::new(self.name, "a tool of a test", parameters)
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        let n = arguments["n"].as_u64().unwrap();
        self.ledger.0.lock().unwrap().push((self.name, n));
        if self.name == "slow" {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(40)) => {}
                () = call.cancelled() => return Err(ToolError::Cancelled("stopped".to_owned())),
            }
        }
        Ok(format!("done {n}").into())
    }
}

#[async_trait]
impl ToolProvider for Ledger {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        let tool = |name| Arc::new(Entry { name, ledger: self.clone() }) as Arc<dyn Tool>;
        ["gated", "free", "slow"].map(tool).into()
    }
}
