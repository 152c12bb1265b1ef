//! The published Python client, as it comes from the package index, holds a whole session with this server.
//!
//! What it does and what it checks is in `tests/python/session.py`, which also says which replies it expects of the
//! model; here are the server, those replies, and a tool that counts how often it really ran.

use std::{
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jackfield::{
    auth::LocalTokenVerifier,
    local::{LocalServer, LocalServerBuilder},
};
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use jackfield_tests::{
    model::{Script, ScriptedModel, script},
    needs::{needs, python_client, workspace_root},
    server::{any_port, config_for},
};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

/// The script bounds each of its steps; this is for an interpreter that does not even start.
const SCRIPT_LIMIT: Duration = Duration::from_secs(120);
/// Which of the model's replies is the one that hangs, counted from 0.
const HANGING_REPLY: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_python_client_holds_a_whole_session() {
    hold_session(|builder| builder, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_python_client_passes_a_token_that_needs_encoding() {
    let token = "a token/with + and & and % in it";
    let gate = |builder: LocalServerBuilder| builder.auth(Arc::new(LocalTokenVerifier::new(token))).strict_auth(true);
    hold_session(gate, &["--token", token]).await;
}

/// Starts a server, lets the script talk to it, and checks what the script cannot see.
async fn hold_session(change: impl FnOnce(LocalServerBuilder) -> LocalServerBuilder, arguments: &[&str]) {
    let Some(python) = needs("python3 with the published client", python_client()) else { return };
    let model = ScriptedModel::start(replies()).await;
    let mut config = config_for(&model);
    config.confirm_tools = vec!["risky".to_owned()];
    let tools = Arc::new(RiskyTools::default());
    let builder = LocalServer::builder().addr(any_port()).config(config).tools(tools.clone());
    let server = change(builder).spawn().await.expect("the server starts");

    let mut command = Command::new(python);
    command.arg("-B").arg(workspace_root().join("tests/python/session.py")).arg(server.ws_url()).args(arguments);
    let output = timeout(SCRIPT_LIMIT, command.stdin(Stdio::null()).kill_on_drop(true).output())
        .await
        .expect("the script ends in time")
        .expect("the interpreter starts");
    assert!(output.status.success(), "the client's session failed:\n{}", text_of(&output));

    assert_eq!(tools.runs.load(Ordering::SeqCst), 1, "only the approved call may run");
    model.wait_for_abort(HANGING_REPLY).await;
    server.shutdown().await.expect("the server stops without an error");
    model.finish();
}

/// What `session.py` expects of the model, reply by reply.
fn replies() -> Script {
    let risky_arguments = || json!({ "entry": 9 });
    script()
        .streams(["Hello from ", "the scripted ", "model: ", "one, two, three."])
        .says("This one was awaited.")
        .calls("risky", risky_arguments())
        .says("Entry 9 is gone.")
        .calls("risky", risky_arguments())
        .says("Then entry 9 stays.")
        .hangs_after(["Let me ", "think"])
        .says("Back again.")
        .says("Zebras have stripes.")
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An embedding program's provider with one tool, which counts its runs.
#[derive(Default)]
struct RiskyTools {
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl ToolProvider for RiskyTools {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        vec![Arc::new(Risky { runs: Arc::clone(&self.runs) })]
    }
}

struct Risky {
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl Tool for Risky {
    fn schema(&self) -> ToolSchema {
        let parameters = json!({
            "type": "object",
            "properties": { "entry": { "type": "integer", "description": "which entry" } },
            "required": ["entry"],
        });
        ToolSchema::new("risky", "Removes an entry for good.", parameters)
    }

    async fn execute(&self, arguments: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        Ok(ToolOutput::text(format!("removed entry {}", arguments["entry"])))
    }
}
