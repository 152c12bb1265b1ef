//! Plugins that do wrong again and again: they are kept out for a while, tried again, and forgiven.

use std::time::Duration;

use jackfield::plugins::{Misdeed, PluginFault, PluginState};
use jackfield_plugin_api::{Effect, ToolError};
use jackfield_tests::plugins::{PluginFolder, library_name, misbehave, patched, raw};
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Loaded, Setup, call, load, logged, turn, until, watch_log};

const ID: &str = "fixture_00";

/// A short quarantine, and no replacement but two.
fn impatient() -> Setup {
    Setup::default().limits(|limits| {
        limits.plugin_faults = 3;
        limits.plugin_quarantine = Duration::from_millis(400);
        limits.plugin_stuck = Duration::from_millis(100);
        limits.plugin_stuck_threads = 2;
    })
}

async fn impatient_fixture() -> Loaded {
    impatient().load(PluginFolder::new().with_fixture(ID)).await
}

async fn panic_times(loaded: &Loaded, times: usize) {
    for _ in 0..times {
        let error = loaded.call(ID, "panic_sync", json!({})).await.unwrap_err();
        assert!(matches!(error, ToolError::Panicked(_)), "{error:?}");
    }
}

#[tokio::test]
async fn repeated_panics_are_a_quarantine_and_one_good_call_ends_it() {
    let loaded = impatient_fixture().await;
    let echo = loaded.tool(ID, "echo").await;
    panic_times(&loaded, 3).await;
    until("the snapshot says so", || matches!(loaded.entry(ID).state, PluginState::Quarantined(_))).await;
    let entry = loaded.entry(ID);
    assert!(entry.state.offers_tools(), "its tools stay on offer");
    let reason = entry.state.reason().unwrap().to_owned();
    assert!(reason.contains("3 faults within 60 s") && reason.contains("panic"), "{reason}");
    let counters = loaded.plugins.reports()[0].counters.unwrap();
    assert_eq!((counters.faults, counters.panics, counters.quarantines), (3, 3, 1));

    let refused = echo.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(&refused, ToolError::Unavailable(text) if text.contains("quarantine")), "{refused:?}");
    let listed = entry.provider.as_ref().unwrap().list_tools(&turn()).await.err();
    assert!(matches!(listed, Some(PluginFault::Quarantined(_))), "{listed:?}");

    tokio::time::sleep(Duration::from_millis(450)).await;
    assert!(echo.execute(json!({}), call(0).0).await.is_ok(), "the trial");
    until("it is forgiven", || loaded.entry(ID).state == PluginState::Active).await;
    loaded.assert_answers(ID).await;
}

#[tokio::test]
async fn a_bad_trial_means_a_longer_quarantine() {
    let loaded = impatient_fixture().await;
    let panicking = loaded.tool(ID, "panic_sync").await;
    panic_times(&loaded, 3).await;
    tokio::time::sleep(Duration::from_millis(450)).await;
    let trial = panicking.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(trial, ToolError::Panicked(_)), "{trial:?}");
    until("the reason names the longer pause", || {
        loaded.entry(ID).state.reason().is_some_and(|reason| reason.contains("0.8 s"))
    })
    .await;
}

#[tokio::test]
async fn a_reload_ends_a_quarantine() {
    let loaded = impatient_fixture().await;
    panic_times(&loaded, 3).await;
    let report = loaded.plugins.reload(&jackfield::ids::PluginId::new(ID)).await.unwrap();
    assert_eq!((report.state, report.generation), ("active", Some(2)));
    loaded.assert_answers(ID).await;
}

#[tokio::test]
async fn bad_answers_and_what_is_seen_from_outside_count_too() {
    let loaded = impatient().load(PluginFolder::new().with(raw())).await;
    let provider = loaded.entry("fixture_raw").provider.clone().unwrap();
    for _ in 0..2 {
        let error = loaded.call("fixture_raw", "garbage", json!({})).await.unwrap_err();
        assert!(matches!(error, ToolError::Failed(_)), "{error:?}");
    }
    assert_eq!(loaded.entry("fixture_raw").state, PluginState::Active);
    provider.note(&Misdeed::TimedOut);
    until("the third one was too much", || loaded.entry("fixture_raw").state.name() == "quarantined").await;
    let reason = loaded.entry("fixture_raw").state.reason().unwrap().to_owned();
    assert!(reason.contains("ran out of time"), "{reason}");
}

#[tokio::test]
async fn a_plugin_that_fails_and_says_so_does_nothing_wrong() {
    let loaded = impatient_fixture().await;
    for _ in 0..10 {
        assert!(loaded.call(ID, "fail", json!({})).await.is_err());
    }
    assert_eq!(loaded.plugins.reports()[0].counters.unwrap().faults, 0);
    loaded.assert_answers(ID).await;
}

#[tokio::test]
async fn blocked_threads_are_named_and_replaced_and_too_many_of_them_are_a_quarantine() {
    watch_log();
    let folder = PluginFolder::new().with_fixture("fixture_bl").with_fixture("fixture_ok");
    let loaded = impatient().load(folder).await;
    let blocking = loaded.tool("fixture_bl", "hang_blocking").await;
    let block = |ms: u64| {
        let tool = blocking.clone();
        tokio::spawn(async move { tool.execute(json!({ "ms": ms }), call(0).0).await })
    };
    let first = block(4000);
    until("the first one is named", || {
        !logged(&["plugin=fixture_bl", "a call of hang_blocking", "stuck=1"]).is_empty()
    })
    .await;
    assert_eq!(loaded.entry("fixture_bl").state, PluginState::Active);
    loaded.assert_answers("fixture_bl").await;

    let second = block(4000);
    until("two are too many", || loaded.entry("fixture_bl").state.name() == "quarantined").await;
    let reason = loaded.entry("fixture_bl").state.reason().unwrap().to_owned();
    assert!(reason.contains("blocks 2 threads") && reason.contains("plugin_stuck_threads"), "{reason}");
    let began = Instant::now();
    let refused = blocking.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(refused, ToolError::Unavailable(_)) && began.elapsed() < Duration::from_secs(1), "{refused:?}");
    loaded.assert_answers("fixture_ok").await;

    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok(), "they come back in the end");
    until("it is used again", || loaded.entry("fixture_bl").state == PluginState::Active).await;
    loaded.assert_answers("fixture_bl").await;
}

#[tokio::test]
async fn a_manifest_that_hides_a_tool_makes_that_tool_ask() {
    let library = patched(misbehave(), &[(r#""name":"mark""#, r#""name":"mork""#)]);
    let loaded = load(PluginFolder::new().with_file(&library_name("lying"), &library)).await;
    let mark = loaded.tool(ID, "mark").await;
    assert_eq!((mark.declared_effect(), mark.effect(&json!({}))), (Some(Effect::Destructive), Effect::Destructive));
    let warnings = loaded.plugins.reports()[0].warnings.join("\n");
    assert!(warnings.contains("offers \"mark\"") && warnings.contains("names \"mork\""), "{warnings}");
    assert_eq!(loaded.tool(ID, "echo").await.declared_effect(), Some(Effect::ReadOnly));
}

#[tokio::test]
async fn a_manifest_that_says_less_than_the_plugin_does_is_told_and_the_worse_counts() {
    let library =
        patched(misbehave(), &[(r#"{"name":"echo","effect":"read_only"}"#, r#"{"name":"echo","effect":"writes"}   "#)]);
    let loaded = load(PluginFolder::new().with_file(&library_name("lying"), &library)).await;
    let echo = loaded.tool(ID, "echo").await;
    assert_eq!(echo.declared_effect(), Some(Effect::Writes));
    assert!(!echo.is_read_only());
    let warnings = loaded.plugins.reports()[0].warnings.join("\n");
    assert!(warnings.contains("\"echo\" is writes") && warnings.contains("says read_only"), "{warnings}");
}
