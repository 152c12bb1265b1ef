//! One call of a tool in a plugin: what goes in, what comes back, and what is heard meanwhile.

use std::{collections::BTreeSet, time::Duration};

use jackfield_plugin_api::{Effect, GatewayKey, ToolError};
use jackfield_tests::plugins::PluginFolder;
use serde_json::json;

use crate::harness::{Setup, call, error_text, load, load_fixture, logged, turn, until, watch_log};

#[tokio::test]
async fn arguments_go_in_and_output_comes_back() {
    let loaded = load_fixture(json!({})).await;
    let arguments = json!({ "text": "käse \u{1f9c0}", "list": [1, 2.5, null], "deep": { "a": { "b": true } } });
    let output = loaded.call("fixture_00", "echo", arguments.clone()).await.unwrap();
    assert_eq!(output.to_text(), arguments.to_string());
}

#[tokio::test]
async fn a_tool_uses_the_plugins_own_tokio() {
    let loaded = load_fixture(json!({})).await;
    let output = loaded.call("fixture_00", "spawn_tasks", json!({})).await.unwrap();
    assert_eq!(output.to_text(), r#"{"sum":6}"#);
}

#[tokio::test]
async fn errors_keep_their_kind() {
    let loaded = load_fixture(json!({})).await;
    let error = loaded.call("fixture_00", "fail", json!({})).await.unwrap_err();
    assert_eq!(error, ToolError::Failed("it did not work out".to_owned()));
}

#[tokio::test]
async fn a_call_knows_which_call_it_is_and_its_progress_is_heard() {
    let loaded = load_fixture(json!({})).await;
    let tool = loaded.tool("fixture_00", "progress").await;
    let (first, first_watched) = call(7);
    let (second, second_watched) = call(8);
    let info = tool.execute(json!({}), first).await.unwrap().to_text();
    assert!(info.contains(r#""call_id":7"#) && info.contains(r#""tool_call_id":"call-7""#), "{info}");
    assert!(info.contains(r#""conversation_id":"conversation-1""#), "{info}");
    let expected = [("0.5".to_owned(), "half way".to_owned()), ("NaN".to_owned(), "no idea".to_owned())];
    assert_eq!(first_watched.progress(), expected);
    assert!(second_watched.progress().is_empty());
    drop(second);
}

#[tokio::test]
async fn two_calls_of_one_number_are_kept_apart() {
    let loaded = load_fixture(json!({})).await;
    let tool = loaded.tool("fixture_00", "cooperative").await;
    let (first, first_watched) = call(0);
    let (second, second_watched) = call(0);
    first_watched.cancel();
    let first = tool.execute(json!({}), first);
    let second = tokio::spawn({
        let tool = tool.clone();
        async move { tool.execute(json!({}), second).await }
    });
    assert_eq!(first.await, Err(ToolError::Cancelled("as told".to_owned())));
    assert_eq!(first_watched.progress().len(), 1);
    assert!(second_watched.progress().is_empty());
    second_watched.cancel();
    assert!(second.await.unwrap().is_err());
    assert_eq!(second_watched.progress().len(), 1);
}

#[tokio::test]
async fn a_cancelled_call_is_told_and_may_tidy_up() {
    let loaded = load_fixture(json!({})).await;
    let tool = loaded.tool("fixture_00", "cooperative").await;
    let (context, watched) = call(1);
    let running = tokio::spawn(async move { tool.execute(json!({}), context).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished());
    watched.cancel();
    assert_eq!(running.await.unwrap(), Err(ToolError::Cancelled("as told".to_owned())));
    assert_eq!(watched.progress(), [("1".to_owned(), "tidied up".to_owned())]);
}

#[tokio::test]
async fn log_lines_reach_our_log_with_plugin_and_call() {
    watch_log();
    let loaded = Setup::default().load(PluginFolder::new().with_fixture("fixture_lg")).await;
    let tool = loaded.tool("fixture_lg", "progress").await;
    tool.execute(json!({}), call(4242).0).await.unwrap();
    until("the plugin's line is logged", || {
        !logged(&["plugin=fixture_lg", "progress begins", "call_id=4242", "call-4242", "INFO"]).is_empty()
    })
    .await;
    assert!(!logged(&["plugin=fixture_lg", "fixture starts", "mode"]).is_empty());
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_counted() {
    watch_log();
    let loaded = Setup::default()
        .limits(|limits| (limits.plugin_log_lines, limits.plugin_log_bytes) = (50, 100))
        .load(PluginFolder::new().with_fixture("fixture_fl"))
        .await;
    let flood = json!({ "lines": 20_000, "bytes": 4000 });
    loaded.call("fixture_fl", "flood_log", flood).await.unwrap();
    let kept = logged(&["plugin=fixture_fl", "yyyy"]);
    assert!(!kept.is_empty() && kept.len() < 5000, "{} lines were kept", kept.len());
    assert!(kept.iter().all(|line| line.len() < 1000), "lines are cut");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    loaded.call("fixture_fl", "flood_log", json!({ "lines": 1, "bytes": 4 })).await.unwrap();
    assert!(!logged(&["plugin=fixture_fl", "dropped=", "the rest was dropped"]).is_empty());
}

#[tokio::test]
async fn effects_may_depend_on_the_arguments_and_whatever_is_odd_is_destructive() {
    let loaded = load_fixture(json!({})).await;
    let echo = loaded.tool("fixture_00", "echo").await;
    assert!(echo.is_read_only());
    assert_eq!(echo.effect(&json!({})), Effect::ReadOnly);

    let tool = loaded.tool("fixture_00", "effects").await;
    assert_eq!(tool.declared_effect(), None);
    let effect = |name: &str| tool.effect(&json!({ "effect": name }));
    assert_eq!(effect("read_only"), Effect::ReadOnly);
    assert_eq!(effect("confined"), Effect::Confined);
    assert_eq!(effect("writes"), Effect::Writes);
    assert_eq!(effect("panic"), Effect::Destructive);
    let began = tokio::time::Instant::now();
    assert_eq!(effect("hang"), Effect::Destructive);
    assert!(began.elapsed() < Duration::from_millis(1500), "a hanging effect is not waited for");
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn a_plugin_sees_its_turn_and_never_the_gateways_key() {
    const CANARY: &str = "sk-canary-never-to-be-seen";
    let loaded = load_fixture(json!({})).await;
    let mut context = turn();
    context.gateway_key = Some(GatewayKey::new(CANARY));
    context.org_id = Some("org-1".to_owned());
    context.access.groups = vec!["staff".to_owned()];
    let entry = loaded.entry("fixture_00");
    let tools = entry.provider.as_ref().unwrap().list_tools(&context).await.unwrap();
    let dump = tools.iter().find(|tool| tool.schema().name == "dump_context").unwrap();
    let seen = dump.execute(json!({}), call(0).0).await.unwrap().to_text();
    assert!(seen.contains("org-1") && seen.contains("staff") && seen.contains("hello"), "{seen}");
    assert!(!seen.contains(CANARY) && !seen.contains("gateway"), "{seen}");
}

#[tokio::test]
async fn an_output_within_the_limit_arrives_whole_and_a_larger_one_is_an_error() {
    let folder = PluginFolder::new().with_fixture("fixture_00");
    let loaded = Setup::default().limits(|limits| limits.plugin_answer_bytes = 3_000_000).load(folder).await;
    let output = loaded.call("fixture_00", "flood_output", json!({ "bytes": 2_900_000 })).await.unwrap();
    assert_eq!(output.to_text().len(), 2_900_000);
    let error = error_text(loaded.call("fixture_00", "flood_output", json!({ "bytes": 40_000_000 })).await);
    assert!(error.contains("the limit is 3000000") && error.contains("flood_output"), "{error}");
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn below_the_authors_crate_garbage_is_one_failed_call() {
    let loaded = load(PluginFolder::new().with(jackfield_tests::plugins::raw())).await;
    let names: BTreeSet<String> = loaded.tools("fixture_raw").await.iter().map(|tool| tool.schema().name).collect();
    // What a model may be shown is decided where the tools of all plugins come together.
    let expected = ["appended", "garbage", "no_object", "plain", "wrong_kind"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected), "tools that cannot be understood are left out");

    let garbage = loaded.tool("fixture_raw", "garbage").await;
    assert_eq!(garbage.effect(&json!({})), Effect::Destructive, "77 is no effect");
    let error = garbage.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(&error, ToolError::Failed(text) if text.contains("not a tool output")), "{error:?}");
    let error = loaded.call("fixture_raw", "wrong_kind", json!({})).await.unwrap_err();
    assert_eq!(error, ToolError::Failed("an error kind from the future".to_owned()));
    assert_eq!(loaded.call("fixture_raw", "plain", json!({})).await.unwrap().to_text(), "plain text");
}
