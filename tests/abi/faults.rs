//! Plugins that panic, hang or describe themselves badly: each costs one answer, and everything else goes on.

use std::time::Duration;

use jackfield::plugins::{PluginFault, PluginState};
use jackfield_plugin_api::ToolError;
use jackfield_tests::plugins::PluginFolder;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::harness::{SOON, Setup, call, load_fixture, logged, turn, watch_log};

#[tokio::test]
async fn a_panic_is_one_failed_call_with_its_text() {
    let loaded = load_fixture(json!({})).await;
    for (tool, text) in
        [("panic_sync", "panicked before there was a future"), ("panic_async", "panicked after an await")]
    {
        let error = loaded.call("fixture_00", tool, json!({})).await.unwrap_err();
        assert!(matches!(&error, ToolError::Panicked(said) if said.contains(text)), "{tool}: {error:?}");
        loaded.assert_answers("fixture_00").await;
    }
}

#[tokio::test]
async fn a_cancelled_call_that_panics_while_it_is_dropped_harms_nobody() {
    watch_log();
    let loaded = Setup::default().load(PluginFolder::new().with_fixture("fixture_gr")).await;
    let tool = loaded.tool("fixture_gr", "panic_in_drop").await;
    let dropped = timeout(Duration::from_millis(100), tool.execute(json!({}), call(0).0)).await;
    assert!(dropped.is_err(), "the call would run for ever");
    crate::harness::until("the grenade went off in the plugin", || {
        !logged(&["plugin=fixture_gr", "dropped a grenade"]).is_empty()
    })
    .await;
    loaded.assert_answers("fixture_gr").await;
}

#[tokio::test]
async fn calls_that_wait_for_ever_are_dropped_without_a_trace() {
    let loaded = load_fixture(json!({})).await;
    let tool = loaded.tool("fixture_00", "hang_async").await;
    let hanging = (0..100).map(|number| {
        let (tool, context) = (tool.clone(), call(number).0);
        async move { timeout(Duration::from_millis(100), tool.execute(json!({}), context)).await }
    });
    let results = futures_util::future::join_all(hanging).await;
    assert!(results.iter().all(Result::is_err));
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn a_plugin_that_blocks_its_threads_leaves_the_others_and_the_server_alone() {
    let folder = PluginFolder::new().with_fixture("fixture_bl").with_fixture("fixture_ok");
    let loaded = Setup::default().load(folder).await;
    let mut blocked = Vec::new();
    for tool in ["hang_blocking", "spin", "hang_blocking"] {
        let tool = loaded.tool("fixture_bl", tool).await;
        blocked.push(tokio::spawn(async move { tool.execute(json!({ "ms": 3000 }), call(0).0).await }));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    for _ in 0..20 {
        loaded.assert_answers("fixture_ok").await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the other plugin took {:?}", began.elapsed());
    assert!(blocked.iter().all(|call| !call.is_finished()), "the blocking calls still run");
    for call in blocked {
        assert!(timeout(SOON, call).await.unwrap().unwrap().is_ok());
    }
    loaded.assert_answers("fixture_bl").await;
}

#[tokio::test]
async fn a_blocked_call_can_be_given_up_at_once() {
    let loaded = load_fixture(json!({})).await;
    let tool = loaded.tool("fixture_00", "hang_blocking").await;
    let began = Instant::now();
    let given_up = timeout(Duration::from_millis(100), tool.execute(json!({ "ms": 3000 }), call(0).0)).await;
    assert!(given_up.is_err() && began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn a_plugin_that_cannot_list_its_tools_does_not_become_active() {
    let loaded = load_fixture(json!({ "mode": "panic_in_tools_for" })).await;
    let reason = loaded.reason("fixture_00");
    assert!(reason.contains("list its tools") && reason.contains("no tools today"), "{reason}");
}

#[tokio::test]
async fn a_panic_while_listing_later_is_one_fault() {
    let loaded = load_fixture(json!({ "mode": "panic_in_tools_for_later" })).await;
    let entry = loaded.entry("fixture_00");
    assert_eq!(entry.state, PluginState::Active);
    let provider = entry.provider.as_ref().unwrap();
    for _ in 0..3 {
        let fault = provider.list_tools(&turn()).await.err();
        assert_eq!(fault, Some(PluginFault::Panicked("no tools any more".to_owned())));
    }
    assert!(provider.list_tools(&Default::default()).await.is_ok());
}

#[tokio::test]
async fn a_slow_listing_can_be_given_up() {
    let loaded = load_fixture(json!({ "mode": "slow_tools_for_later", "ms": 1000 })).await;
    let entry = loaded.entry("fixture_00");
    let provider = entry.provider.as_ref().unwrap();
    let context = turn();
    assert!(timeout(Duration::from_millis(50), provider.list_tools(&context)).await.is_err());
    assert!(timeout(SOON, provider.list_tools(&context)).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_bad_description_costs_that_tool_only() {
    let loaded = load_fixture(json!({ "mode": "panic_in_schema" })).await;
    let names: Vec<String> = loaded.tools("fixture_00").await.iter().map(|tool| tool.schema().name).collect();
    assert_eq!(names.len(), 19, "all but the indescribable one: {names:?}");
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn of_two_tools_with_one_name_the_first_is_taken() {
    let loaded = load_fixture(json!({ "mode": "twins" })).await;
    let names = loaded.tools("fixture_00").await;
    assert_eq!(names.iter().filter(|tool| tool.schema().name == "echo").count(), 1);
    loaded.assert_answers("fixture_00").await;
}
