//! What would be the end of the host in its own process is one failed call of an isolated plugin: segmentation fault,
//! abort, exit, stack overflow, endless loop, memory without end, garbage on the socket. The worker is started again,
//! and other plugins never notice.

use std::{fs, time::Duration};

use jackfield::{config::PluginPermissions, plugins::PluginState};
use jackfield_plugin_api::{Effect, ToolError};
use jackfield_tests::plugins::PluginFolder;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::harness::{Loaded, SOON, Setup, call, logged, turn, until, watch_log};

/// Two isolated plugins: one to be crashed and one to go on.
async fn two(setup: Setup) -> Loaded {
    // What is shown here is not the quarantine.
    let setup = setup.limits(|limits| limits.plugin_faults = 1000);
    setup.load(PluginFolder::new().with_fixture("fixture_cr").with_fixture("fixture_ok")).await
}

/// Crashes the plugin by a call, which fails and says how; then it works again, and the other one never stopped.
async fn crash(loaded: &Loaded, how: &str, texts: &[&str]) {
    let error = loaded.call("fixture_cr", "crash", json!({ "how": how })).await.unwrap_err();
    let ToolError::Unavailable(text) = &error else { panic!("{how}: {error:?}") };
    assert!(texts.iter().all(|expected| text.contains(expected)), "{how}: {text}");
    assert!(text.contains("fixture_cr") && text.contains("not repeated"), "{how}: {text}");
    loaded.assert_answers("fixture_ok").await;
    comes_back(loaded, "fixture_cr").await;
}

async fn comes_back(loaded: &Loaded, id: &str) {
    let provider = loaded.entry(id).provider.clone().unwrap();
    let answers = async {
        while provider.list_tools(&turn()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loaded.assert_answers(id).await;
    };
    timeout(SOON, answers).await.unwrap_or_else(|_| panic!("{id} works again"));
}

#[tokio::test]
async fn whatever_takes_the_process_down_is_one_failed_call() {
    let setup = Setup::isolated().limits(|limits| limits.plugin_worker_memory_bytes = 1 << 30);
    let loaded = two(setup).await;
    crash(&loaded, "segfault", &["SIGSEGV"]).await;
    crash(&loaded, "abort", &["SIGABRT"]).await;
    crash(&loaded, "exit", &["exited with code 3"]).await;
    crash(&loaded, "overflow", &["SIG", "stack overflow"]).await;
    crash(&loaded, "memory", &["SIGABRT", "memory allocation of"]).await;
}

#[tokio::test]
async fn garbage_and_floods_on_the_socket_end_the_worker() {
    let loaded = two(Setup::isolated()).await;
    crash(&loaded, "garbage", &["was killed because it sent a frame"]).await;
    crash(&loaded, "oversized", &["was killed because it sent a frame of 4294967295 bytes"]).await;
    crash(&loaded, "wrong_answer", &["question 4711, which was not asked"]).await;
    crash(&loaded, "flood", &["frames in a second"]).await;
    crash(&loaded, "hang_up", &[]).await;
}

#[tokio::test]
async fn an_endless_loop_is_killed_once_the_call_is_given_up() {
    watch_log();
    let setup = Setup::isolated().limits(|limits| limits.plugin_worker_let_go = Duration::from_millis(300));
    let loaded = two(setup).await;
    let tool = loaded.tool("fixture_cr", "crash").await;
    let spin = || timeout(Duration::from_millis(200), tool.execute(json!({ "how": "spin" }), call(0).0));
    // Three of them, which is more threads than the plugin has.
    let (one, two, three) = tokio::join!(spin(), spin(), spin());
    assert!(one.is_err() && two.is_err() && three.is_err());
    loaded.assert_answers("fixture_ok").await;
    comes_back(&loaded, "fixture_cr").await;
    assert!(!logged(&["fixture_cr", "did not let go of a call within 300ms"]).is_empty());
}

#[tokio::test]
async fn a_call_that_blocks_and_is_given_up_is_killed_too_and_an_effect_that_hangs() {
    let setup = Setup::isolated().limits(|limits| limits.plugin_worker_let_go = Duration::from_millis(200));
    let loaded = two(setup).await;
    let tool = loaded.tool("fixture_cr", "hang_blocking").await;
    let began = Instant::now();
    assert!(timeout(Duration::from_millis(100), tool.execute(json!({ "ms": 60_000 }), call(0).0)).await.is_err());
    comes_back(&loaded, "fixture_cr").await;
    assert!(began.elapsed() < Duration::from_secs(30));
    let tool = loaded.tool("fixture_cr", "effects").await;
    assert_eq!(tool.effect(&json!({ "effect": "hang" })), Effect::Destructive);
    comes_back(&loaded, "fixture_cr").await;
}

#[tokio::test]
async fn every_call_under_way_fails_at_once_and_none_is_repeated() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let permissions = PluginPermissions { write: vec![trace.path().to_owned()], ..PluginPermissions::default() };
    let setup =
        Setup::isolated().config("fixture_cr", json!({ "trace": trace.path() })).grant("fixture_cr", permissions);
    let loaded = two(setup).await;
    let tool = loaded.tool("fixture_cr", "hang_async").await;
    let hanging: Vec<_> = (0..8)
        .map(|number| {
            let tool = tool.clone();
            tokio::spawn(async move { tool.execute(json!({}), call(number).0).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    crash(&loaded, "abort", &["SIGABRT"]).await;
    for call in hanging {
        let error = timeout(SOON, call).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("SIGABRT")), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let starts = fs::read_to_string(trace.path()).unwrap().lines().filter(|line| *line == "init").count();
    assert_eq!(starts, 2, "it was started twice");
}

#[tokio::test]
async fn a_turn_goes_on_with_the_tools_it_began_with() {
    let loaded = two(Setup::isolated().limits(|limits| limits.plugin_worker_restart_wait = SOON)).await;
    let (crashing, echo, dump) = (
        loaded.tool("fixture_cr", "crash").await,
        loaded.tool("fixture_cr", "echo").await,
        loaded.tool("fixture_cr", "dump_context").await,
    );
    for _ in 0..3 {
        assert!(crashing.execute(json!({ "how": "segfault" }), call(0).0).await.is_err());
        let output = timeout(SOON, echo.execute(json!({ "n": 1 }), call(0).0)).await.unwrap().unwrap();
        assert_eq!(output.to_text(), r#"{"n":1}"#, "the call waits for the worker that is being started");
    }
    let context = dump.execute(json!({}), call(0).0).await.unwrap().to_text();
    assert!(context.contains("turn-1") && context.contains("hello"), "the list was made for the same turn: {context}");
}

#[tokio::test]
async fn death_while_starting_is_a_failure_with_the_signal() {
    let folder =
        ["fixture_s1", "fixture_e1", "fixture_ok"].into_iter().fold(PluginFolder::new(), PluginFolder::with_fixture);
    let loaded = Setup::isolated()
        .config("fixture_s1", json!({ "mode": "segfault_in_create" }))
        .config("fixture_e1", json!({ "mode": "exit_in_create" }))
        .load(folder)
        .await;
    for (id, text) in [("fixture_s1", "SIGSEGV"), ("fixture_e1", "exited with code 3")] {
        assert!(matches!(loaded.entry(id).state, PluginState::Failed(_)));
        let reason = loaded.reason(id);
        assert!(reason.contains(text) && reason.contains("while the plugin started"), "{id}: {reason}");
    }
    loaded.assert_answers("fixture_ok").await;
}

#[tokio::test]
async fn a_worker_that_cannot_be_started_again_is_tried_with_growing_pauses() {
    watch_log();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let permissions = PluginPermissions { write: vec![trace.path().to_owned()], ..PluginPermissions::default() };
    let loaded = Setup::isolated()
        .config("fixture_ag", json!({ "trace": trace.path(), "mode": "crash_at_restart" }))
        .grant("fixture_ag", permissions)
        .limits(|limits| {
            limits.plugin_worker_restart_base = Duration::from_millis(20);
            limits.plugin_worker_restart_max = Duration::from_millis(80);
            limits.plugin_worker_restart_wait = Duration::from_millis(100);
        })
        .load(PluginFolder::new().with_fixture("fixture_ag"))
        .await;
    let (crashing, echo) = (loaded.tool("fixture_ag", "crash").await, loaded.tool("fixture_ag", "echo").await);
    assert!(crashing.execute(json!({ "how": "exit" }), call(0).0).await.is_err());
    let error = echo.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("started again")), "{error:?}");
    assert!(loaded.entry("fixture_ag").provider.as_ref().unwrap().list_tools(&turn()).await.is_err());
    until("it was tried a few times", || {
        ["20ms", "40ms", "80ms"].iter().all(|pause| !logged(&["fixture_ag", &format!("pause={pause}")]).is_empty())
    })
    .await;
    // Whatever it is doing, it can be stopped.
    timeout(SOON, loaded.plugins.shutdown(Duration::from_secs(5))).await.unwrap();
    fs::write(trace.path(), "").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fs::read_to_string(trace.path()).unwrap(), "", "nothing is started any more");
}

#[tokio::test]
async fn what_a_worker_has_started_dies_with_it() {
    // Only a plugin with a sandbox of its own may start programs without further ado.
    let permissions =
        PluginPermissions { exec: jackfield::config::ExecPermission::Sandbox, ..PluginPermissions::default() };
    let loaded = two(Setup::isolated().grant("fixture_cr", permissions)).await;
    loaded.call("fixture_cr", "crash", json!({ "how": "leave_child" })).await.unwrap();
    let pid: Value =
        serde_json::from_str(&loaded.call("fixture_cr", "probe", json!({ "what": "pid" })).await.unwrap().to_text())
            .unwrap();
    let sleepers = || {
        let group = pid["ok"].as_u64().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            let fields: Vec<String> = stat.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect();
            (fields[2] == group.to_string() && fields[0] != "Z" && stat.contains("(sleep)")).then_some(())
        });
        processes.count()
    };
    assert_eq!(sleepers(), 1);
    crash(&loaded, "segfault", &["SIGSEGV"]).await;
    until("the sleeper is gone", || sleepers() == 0).await;
}

#[tokio::test]
async fn a_worker_is_really_gone_when_its_plugin_is() {
    let before = descriptors();
    for _ in 0..5 {
        let loaded = two(Setup::isolated()).await;
        loaded.assert_answers("fixture_cr").await;
        assert!(loaded.call("fixture_cr", "crash", json!({ "how": "exit" })).await.is_err());
        comes_back(&loaded, "fixture_cr").await;
        loaded.plugins.shutdown(Duration::from_secs(5)).await;
    }
    until("descriptors are given back", || descriptors() <= before + 2).await;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("fixture_"), "no library was mapped here");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
