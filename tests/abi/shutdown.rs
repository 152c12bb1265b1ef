//! The end of plugins: told, waited for, dropped; and what happens to those who will not go.

use std::{fs, time::Duration};

use jackfield::plugins::{PluginFault, PluginState};
use jackfield_plugin_api::ToolError;
use jackfield_tests::plugins::PluginFolder;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Setup, call, turn, until};

fn life(trace: &tempfile::NamedTempFile) -> Vec<String> {
    fs::read_to_string(trace.path()).unwrap().lines().map(str::to_owned).collect()
}

fn config(trace: &tempfile::NamedTempFile, mode: &str, ms: u64) -> Value {
    json!({ "trace": trace.path(), "mode": mode, "ms": ms })
}

#[tokio::test]
async fn a_plugin_is_told_and_dropped_and_its_tools_say_so_afterwards() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let folder = PluginFolder::new().with_fixture("fixture_00");
    let loaded = Setup::default().config("fixture_00", config(&trace, "well", 0)).load(folder).await;
    let echo = loaded.tool("fixture_00", "echo").await;
    let provider = loaded.entry("fixture_00").provider.clone().unwrap();

    loaded.plugins.shutdown(Duration::from_secs(5)).await;
    assert_eq!(life(&trace), ["init", "shutdown", "drop"]);
    assert_eq!(loaded.entry("fixture_00").state, PluginState::Retired);
    let error = echo.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("stopped")), "{error:?}");
    assert_eq!(provider.list_tools(&turn()).await.err(), Some(PluginFault::Stopped));
    loaded.plugins.shutdown(Duration::from_secs(5)).await;
    assert_eq!(life(&trace).len(), 3, "a second stop does nothing");
}

#[tokio::test]
async fn panics_at_the_end_are_contained_and_a_thread_that_blocks_is_left_behind() {
    let traces = [(); 3].map(|()| tempfile::NamedTempFile::new().unwrap());
    let folder =
        ["fixture_p1", "fixture_p2", "fixture_b1"].into_iter().fold(PluginFolder::new(), PluginFolder::with_fixture);
    let loaded = Setup::default()
        .config("fixture_p1", config(&traces[0], "panic_in_shutdown", 0))
        .config("fixture_p2", config(&traces[1], "panic_in_drop", 0))
        .config("fixture_b1", config(&traces[2], "block_in_shutdown", 5000))
        .load(folder)
        .await;
    let began = Instant::now();
    loaded.plugins.shutdown(Duration::from_millis(500)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "the stop took {:?}", began.elapsed());
    assert_eq!(life(&traces[0]), ["init", "shutdown", "drop"]);
    assert_eq!(life(&traces[1]), ["init", "shutdown", "drop"]);
    assert_eq!(life(&traces[2]), ["init", "shutdown"]);
    for id in ["fixture_p1", "fixture_p2", "fixture_b1"] {
        assert_eq!(loaded.entry(id).state, PluginState::Retired);
    }
}

#[tokio::test]
async fn running_calls_end_when_their_plugin_is_stopped() {
    let loaded = Setup::default().load(PluginFolder::new().with_fixture("fixture_00")).await;
    let tool = loaded.tool("fixture_00", "hang_async").await;
    let running = tokio::spawn(async move { tool.execute(json!({}), call(0).0).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    loaded.plugins.shutdown(Duration::from_secs(1)).await;
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, ToolError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_host_that_goes_away_without_a_word_still_drops_its_plugins() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let folder = PluginFolder::new().with_fixture("fixture_00");
    let loaded = Setup::default().config("fixture_00", config(&trace, "well", 0)).load(folder).await;
    drop(loaded);
    until("the plugin is dropped", || life(&trace) == ["init", "drop"]).await;
}

#[tokio::test]
async fn stopping_while_plugins_start_leaves_nothing_running() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let folder = PluginFolder::new().with_fixture("fixture_00");
    let loaded = Setup::default().config("fixture_00", config(&trace, "slow_create", 2000)).start(folder).await;
    until("the plugin is being made", || life(&trace) == ["init"]).await;
    let began = Instant::now();
    loaded.plugins.shutdown(Duration::from_secs(5)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(loaded.plugins.snapshot().active("fixture_00").is_none());
}
