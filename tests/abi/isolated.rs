//! A plugin in a process of its own does all that one in ours does: calls, errors, progress, logs, cancellation,
//! services both ways, notices, the end.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use jackfield::{
    config::Isolation,
    plugins::{PluginFault, PluginState},
};
use jackfield_plugin_api::{Effect, ToolError};
use jackfield_tests::plugins::{PluginFolder, clock, jackfield, raw};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::harness::{Loaded, SOON, Setup, call, error_text, logged, turn, until, watch_log};

async fn load_isolated(config: Value) -> Loaded {
    Setup::isolated().config("fixture_00", config).load(PluginFolder::new().with_fixture("fixture_00")).await
}

#[tokio::test]
async fn the_same_file_runs_in_a_process_of_its_own() {
    let loaded = load_isolated(json!({})).await;
    let report = serde_json::to_value(&loaded.plugins.reports()[0]).unwrap();
    assert_eq!((&report["state"], &report["isolation"]), (&json!("active"), &json!("process")), "{report}");
    assert!(!report["tools"].as_array().unwrap().is_empty());
    let output = loaded.call("fixture_00", "probe", json!({ "what": "pid" })).await.unwrap().to_text();
    assert_ne!(output, json!({ "ok": std::process::id() }).to_string(), "it is another process");
    let arguments = json!({ "text": "käse \u{1f9c0}", "list": [1, 2.5, null], "deep": { "a": { "b": true } } });
    let output = loaded.call("fixture_00", "echo", arguments.clone()).await.unwrap();
    assert_eq!(output.to_text(), arguments.to_string());
    let output = loaded.call("fixture_00", "spawn_tasks", json!({})).await.unwrap();
    assert_eq!(output.to_text(), r#"{"sum":6}"#);
}

#[tokio::test]
async fn one_plugin_may_be_isolated_and_another_not() {
    let loaded = Setup::isolated()
        .settings("fixture_in", |settings| settings.isolation = Some(Isolation::InProcess))
        .load(PluginFolder::new().with_fixture("fixture_in").with_fixture("fixture_ex"))
        .await;
    let pid = async |id: &str| loaded.call(id, "probe", json!({ "what": "pid" })).await.unwrap().to_text();
    let own = json!({ "ok": std::process::id() }).to_string();
    assert_eq!(pid("fixture_in").await, own);
    assert_ne!(pid("fixture_ex").await, own);
}

#[tokio::test]
async fn errors_and_panics_keep_their_kind_and_text() {
    let loaded = load_isolated(json!({})).await;
    let error = loaded.call("fixture_00", "fail", json!({})).await.unwrap_err();
    assert_eq!(error, ToolError::Failed("it did not work out".to_owned()));
    for (tool, text) in [("panic_sync", "before there was a future"), ("panic_async", "panicked after an await")] {
        let error = loaded.call("fixture_00", tool, json!({})).await.unwrap_err();
        assert!(matches!(&error, ToolError::Panicked(said) if said.contains(text) && said.contains(tool)), "{error:?}");
    }
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn progress_and_cancellation_find_their_call() {
    let loaded = load_isolated(json!({})).await;
    let tool = loaded.tool("fixture_00", "progress").await;
    let (first, first_watched) = call(7);
    let (second, second_watched) = call(8);
    let info = tool.execute(json!({}), first).await.unwrap().to_text();
    assert!(info.contains(r#""call_id":7"#) && info.contains(r#""tool_call_id":"call-7""#), "{info}");
    let expected = [("0.5".to_owned(), "half way".to_owned()), ("NaN".to_owned(), "no idea".to_owned())];
    assert_eq!(first_watched.progress(), expected);
    assert!(second_watched.progress().is_empty());
    drop(second);

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
async fn log_lines_and_output_reach_our_log() {
    watch_log();
    let loaded = Setup::isolated().load(PluginFolder::new().with_fixture("fixture_il")).await;
    let tool = loaded.tool("fixture_il", "progress").await;
    tool.execute(json!({}), call(4343).0).await.unwrap();
    until("the plugin's line is logged", || {
        !logged(&["plugin=fixture_il", "progress begins", "call_id=4343", "call-4343", "INFO"]).is_empty()
    })
    .await;
    loaded.call("fixture_il", "probe", json!({ "what": "print", "text": "printed by hand" })).await.unwrap();
    until("what it prints is logged", || {
        !logged(&["plugin=fixture_il", "printed by hand", "from=\"output\""]).is_empty()
    })
    .await;
    assert!(!logged(&["plugin=fixture_il", "runs in a process of its own", "seccomp"]).is_empty());
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_before_it_is_sent() {
    watch_log();
    let loaded = Setup::isolated()
        .limits(|limits| (limits.plugin_log_lines, limits.plugin_log_bytes) = (50, 100))
        .load(PluginFolder::new().with_fixture("fixture_if"))
        .await;
    loaded.call("fixture_if", "flood_log", json!({ "lines": 50_000, "bytes": 4000 })).await.unwrap();
    loaded.assert_answers("fixture_if").await;
    let kept = logged(&["plugin=fixture_if", "yyyy"]);
    assert!(!kept.is_empty() && kept.len() < 5000, "{} lines were kept", kept.len());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    loaded.call("fixture_if", "flood_log", json!({ "lines": 1, "bytes": 4 })).await.unwrap();
    until("the rest is counted", || !logged(&["plugin=fixture_if", "dropped", "the rest was dropped"]).is_empty())
        .await;
}

#[tokio::test]
async fn services_go_both_ways_also_between_isolated_plugins() {
    let loaded = Setup::isolated()
        .settings("fixture_in", |settings| settings.isolation = Some(Isolation::InProcess))
        .load(PluginFolder::new().with_fixture("fixture_aa").with_fixture("fixture_bb").with_fixture("fixture_in"))
        .await;
    let ask = async |id: &str, service: &str| -> Result<Value, ToolError> {
        let arguments = json!({ "service": service, "body": { "n": 1 } });
        let output = loaded.call(id, "ask_host", arguments).await?;
        Ok(serde_json::from_str(&output.to_text()).unwrap())
    };
    assert_eq!(ask("fixture_aa", "host/1").await.unwrap()["name"], "jackfield");
    for (from, to) in [("fixture_aa", "fixture_bb"), ("fixture_aa", "fixture_in"), ("fixture_in", "fixture_aa")] {
        let reply = ask(from, &format!("{to}.echo/1")).await.unwrap();
        assert_eq!(reply, json!({ "echoed": { "n": 1 } }), "{from} asks {to}");
        let error = ask(from, &format!("{to}.panic/1")).await.unwrap_err();
        assert!(matches!(&error, ToolError::Panicked(text) if text.contains("asked for it")), "{error:?}");
        let error = ask(from, &format!("{to}.other/1")).await.unwrap_err();
        assert!(matches!(&error, ToolError::Unavailable(_)), "{error:?}");
    }
    let error = ask("fixture_aa", "weather/1").await.unwrap_err();
    assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("not offered")), "{error:?}");
    loaded.assert_answers("fixture_bb").await;
}

#[tokio::test]
async fn requests_that_are_not_answered_have_a_limit_in_number_and_in_time() {
    let loaded = Setup::isolated()
        .limits(|limits| {
            limits.plugin_requests = 2;
            limits.tool_absolute = Duration::from_millis(700);
        })
        .load(PluginFolder::new().with_fixture("fixture_aa").with_fixture("fixture_bb"))
        .await;
    let ask = async |service: &str| {
        loaded.call("fixture_aa", "ask_host", json!({ "service": service, "body": {} })).await.map(drop)
    };
    let errors = futures_util::future::join_all((0..3).map(|_| ask("fixture_bb.hang/1"))).await;
    let count =
        |wanted: fn(&ToolError) -> bool| errors.iter().filter(|error| wanted(error.as_ref().unwrap_err())).count();
    assert_eq!(count(|error| matches!(error, ToolError::TimedOut(_))), 2, "{errors:?}");
    assert_eq!(count(|error| matches!(error, ToolError::Unavailable(_))), 1, "{errors:?}");
    assert_eq!(ask("host/1").await, Ok(()), "the places are free again");
}

#[tokio::test]
async fn effects_are_asked_in_the_worker_and_whatever_is_odd_is_destructive() {
    let loaded = load_isolated(json!({})).await;
    assert_eq!(loaded.tool("fixture_00", "echo").await.effect(&json!({})), Effect::ReadOnly);
    let tool = loaded.tool("fixture_00", "effects").await;
    assert_eq!(tool.declared_effect(), None);
    let effect = |name: &str| tool.effect(&json!({ "effect": name }));
    assert_eq!(effect("read_only"), Effect::ReadOnly);
    assert_eq!(effect("confined"), Effect::Confined);
    assert_eq!(effect("writes"), Effect::Writes);
    assert_eq!(effect("panic"), Effect::Destructive);
    assert_eq!(effect("hang"), Effect::Destructive);
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn outputs_have_the_same_limit_as_in_our_process() {
    let folder = PluginFolder::new().with_fixture("fixture_00");
    let loaded = Setup::isolated().limits(|limits| limits.plugin_answer_bytes = 3_000_000).load(folder).await;
    let output = loaded.call("fixture_00", "flood_output", json!({ "bytes": 2_900_000 })).await.unwrap();
    assert_eq!(output.to_text().len(), 2_900_000);
    let error = error_text(loaded.call("fixture_00", "flood_output", json!({ "bytes": 40_000_000 })).await);
    assert!(error.contains("the limit is 3000000") && error.contains("flood_output"), "{error}");
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn below_the_authors_crate_garbage_is_one_failed_call() {
    let loaded = Setup::isolated().load(PluginFolder::new().with(raw())).await;
    let mut names: Vec<String> = loaded.tools("fixture_raw").await.iter().map(|tool| tool.schema().name).collect();
    names.sort();
    // What a tool says of itself is judged where tools become a turn's, whoever offers them.
    assert_eq!(names, ["appended", "garbage", "no_object", "plain", "wrong_kind"]);
    let garbage = loaded.tool("fixture_raw", "garbage").await;
    assert_eq!(garbage.effect(&json!({})), Effect::Destructive, "77 is no effect");
    let error = garbage.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(&error, ToolError::Failed(text) if text.contains("not a tool output")), "{error:?}");
    assert_eq!(loaded.call("fixture_raw", "plain", json!({})).await.unwrap().to_text(), "plain text");
}

#[tokio::test]
async fn calls_that_are_given_up_are_dropped_and_nobody_is_harmed() {
    watch_log();
    let loaded = Setup::isolated().load(PluginFolder::new().with_fixture("fixture_ig")).await;
    let tool = loaded.tool("fixture_ig", "hang_async").await;
    let hanging = (0..100).map(|number| {
        let (tool, context) = (tool.clone(), call(number).0);
        async move { timeout(Duration::from_millis(100), tool.execute(json!({}), context)).await }
    });
    assert!(futures_util::future::join_all(hanging).await.iter().all(Result::is_err));
    let tool = loaded.tool("fixture_ig", "panic_in_drop").await;
    assert!(timeout(Duration::from_millis(100), tool.execute(json!({}), call(0).0)).await.is_err());
    until("the grenade went off", || !logged(&["plugin=fixture_ig", "dropped a grenade"]).is_empty()).await;
    loaded.assert_answers("fixture_ig").await;
    assert!(logged(&["plugin=fixture_ig", "started again"]).is_empty(), "nothing was killed for it");
}

#[tokio::test]
async fn a_plugin_that_does_not_start_says_why_as_in_our_process() {
    let folder = ["fixture_p1", "fixture_f1", "fixture_s1", "fixture_t1", "fixture_ok"]
        .into_iter()
        .fold(PluginFolder::new(), PluginFolder::with_fixture);
    let loaded = Setup::isolated()
        .config("fixture_p1", json!({ "mode": "panic_in_create" }))
        .config("fixture_f1", json!({ "mode": "fail_in_create" }))
        .config("fixture_s1", json!({ "mode": "slow_create", "ms": 60_000 }))
        .config("fixture_t1", json!({ "mode": "panic_in_tools_for" }))
        .limits(|limits| limits.plugin_create = Duration::from_secs(3))
        .load(folder)
        .await;
    for (id, texts) in [
        ("fixture_p1", &["did not start", "panicked", "created in anger"][..]),
        ("fixture_f1", &["the key `city` is missing", "[plugins.fixture_f1.config]"]),
        ("fixture_s1", &["within 3s", "plugin_create"]),
        ("fixture_t1", &["list its tools", "no tools today"]),
    ] {
        assert!(matches!(loaded.entry(id).state, PluginState::Failed(_)));
        let reason = loaded.reason(id);
        assert!(texts.iter().all(|text| reason.contains(text)), "{id}: {reason}");
    }
    loaded.assert_answers("fixture_ok").await;
}

fn life(trace: &tempfile::NamedTempFile) -> Vec<String> {
    fs::read_to_string(trace.path()).unwrap().lines().map(str::to_owned).collect()
}

/// A plugin that may write its trace.
fn traced(trace: &tempfile::NamedTempFile, mode: &str, ms: u64) -> Setup {
    let permissions =
        jackfield::config::PluginPermissions { write: vec![trace.path().to_owned()], ..Default::default() };
    Setup::isolated()
        .config("fixture_00", json!({ "trace": trace.path(), "mode": mode, "ms": ms }))
        .grant("fixture_00", permissions)
}

#[tokio::test]
async fn notices_arrive_and_a_stopped_plugin_has_been_told_and_dropped() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let loaded = traced(&trace, "well", 0).load(PluginFolder::new().with_fixture("fixture_00")).await;
    loaded.plugins.notify_all(&json!({ "type": "conversation_ended", "conversation_id": "c-1" }));
    until("it was told", || life(&trace).iter().any(|line| line.contains("conversation_ended"))).await;
    let echo = loaded.tool("fixture_00", "echo").await;
    let provider = loaded.entry("fixture_00").provider.clone().unwrap();
    let hanging = loaded.tool("fixture_00", "hang_async").await;
    let running = tokio::spawn(async move { hanging.execute(json!({}), call(0).0).await });
    tokio::time::sleep(Duration::from_millis(50)).await;

    loaded.plugins.shutdown(Duration::from_secs(5)).await;
    let steps: Vec<String> = life(&trace).into_iter().filter(|line| !line.starts_with("notify")).collect();
    assert_eq!(steps, ["init", "shutdown", "drop"]);
    assert_eq!(loaded.entry("fixture_00").state, PluginState::Retired);
    let error = echo.execute(json!({}), call(0).0).await.unwrap_err();
    assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("stopped")), "{error:?}");
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("stopped")), "{error:?}");
    assert_eq!(provider.list_tools(&turn()).await.err(), Some(PluginFault::Stopped));
}

#[tokio::test]
async fn a_plugin_that_does_not_stop_is_ended() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let loaded = traced(&trace, "block_in_shutdown", 60_000).load(PluginFolder::new().with_fixture("fixture_00")).await;
    let pid = pid_of(&loaded, "fixture_00").await;
    let began = Instant::now();
    loaded.plugins.shutdown(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the stop took {:?}", began.elapsed());
    assert_eq!(life(&trace), ["init", "shutdown"]);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_host_that_goes_away_without_a_word_takes_its_workers_along() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let loaded = traced(&trace, "well", 0).load(PluginFolder::new().with_fixture("fixture_00")).await;
    let pid = pid_of(&loaded, "fixture_00").await;
    drop(loaded);
    until("the plugin is dropped", || life(&trace) == ["init", "drop"]).await;
    until("the worker is gone", || !is_alive(pid)).await;
}

async fn pid_of(loaded: &Loaded, id: &str) -> u64 {
    let output = loaded.call(id, "probe", json!({ "what": "pid" })).await.unwrap().to_text();
    serde_json::from_str::<Value>(&output).unwrap()["ok"].as_u64().unwrap()
}

/// A dead process that nobody has waited for is not alive.
fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn without_a_worker_program_the_reason_says_what_to_do() {
    let setup = Setup { worker_program: None, ..Setup::isolated() };
    let loaded = setup.load(PluginFolder::new().with_fixture("fixture_00")).await;
    let reason = loaded.reason("fixture_00");
    for text in ["run_if_requested()", ".worker_program(", "[plugins.fixture_00]"] {
        assert!(reason.contains(text), "{text:?} is missing in: {reason}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_named() {
    for (program, texts) in [
        ("/bin/true", &["exited with code 0 before it said what it is", "run_if_requested()"][..]),
        ("/nowhere/at/all", &["cannot be started", "/nowhere/at/all"]),
    ] {
        let setup = Setup { worker_program: Some(PathBuf::from(program)), ..Setup::isolated() };
        let loaded = setup.load(PluginFolder::new().with_fixture("fixture_00")).await;
        let reason = loaded.reason("fixture_00");
        assert!(texts.iter().all(|text| reason.contains(text)), "{program}: {reason}");
    }
}

/// A running `fixture_embedder`, ended with its input.
struct Embedder(Child);

impl Embedder {
    /// Starts it and reads the reports on its plugins.
    fn start(program: &Path, folder: &PluginFolder, worker: Option<&Path>) -> (Self, Vec<Value>) {
        let mut command = Command::new(program);
        command.arg(folder.path()).args(worker).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The embedder under a name that makes it forget to be a worker.
fn forgetful(folder: &Path) -> PathBuf {
    let program = folder.join("forgetful");
    fs::copy(env!("CARGO_BIN_EXE_fixture_embedder"), &program).unwrap();
    program
}

#[test]
fn an_embedding_program_with_the_one_line_is_its_own_worker() {
    let folder = PluginFolder::new().with(clock());
    let (_embedder, reports) = Embedder::start(Path::new(env!("CARGO_BIN_EXE_fixture_embedder")), &folder, None);
    assert_eq!((&reports[0]["state"], &reports[0]["isolation"]), (&json!("active"), &json!("process")), "{reports:?}");
}

#[test]
fn an_embedding_program_without_it_names_the_jackfield_program() {
    let (folder, programs) = (PluginFolder::new().with(clock()), tempfile::tempdir().unwrap());
    let program = forgetful(programs.path());
    let (_embedder, reports) = Embedder::start(&program, &folder, None);
    assert_eq!(reports[0]["state"], "failed");
    assert!(reports[0]["reason"].as_str().unwrap().contains("run_if_requested()"), "{reports:?}");

    let (_embedder, reports) = Embedder::start(&program, &folder, Some(jackfield()));
    assert_eq!((&reports[0]["state"], &reports[0]["isolation"]), (&json!("active"), &json!("process")), "{reports:?}");
}

#[test]
fn a_program_that_names_itself_and_forgot_the_line_does_not_start_servers_without_end() {
    let (folder, programs) = (PluginFolder::new().with(clock()), tempfile::tempdir().unwrap());
    let program = forgetful(programs.path());
    let (_embedder, reports) = Embedder::start(&program, &folder, Some(&program));
    let reason = reports[0]["reason"].as_str().unwrap();
    assert!(reason.contains("was started as the worker of a plugin"), "{reason}");
}

#[test]
fn the_jackfield_program_is_its_own_worker() {
    let folder = PluginFolder::new().with(clock()).with_fixture("fixture_00");
    let (home, messages) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut child = Command::new(jackfield())
        .args(["demo", "--port", "0", "--isolate", "--plugins"])
        .arg(folder.path())
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(messages.reopen().unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().last().unwrap().to_owned();
    let said = Command::new(jackfield())
        .args(["chat", "--server", &url, "--approve", "/tool probe {\"what\":\"pid\"}"])
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap();
    let workers = children_of(child.id());
    // Its lifeline is a socket, so the end of the server, however sudden, is the end of its workers.
    child.kill().unwrap();
    child.wait().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(workers.len(), 2, "one worker a plugin: {workers:?}");
    assert!(workers.iter().any(|pid| said.contains(&pid.to_string())), "{said}");
    let pause = Duration::from_millis(20);
    let looks = SOON.as_millis() / pause.as_millis();
    let gone = (0..looks).any(|_| {
        std::thread::sleep(pause);
        !workers.iter().any(|pid| is_alive(*pid))
    });
    assert!(gone, "the workers are gone");
    let mut log = String::new();
    messages.reopen().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("runs in a process of its own"), "{log}");
}

fn children_of(parent: u32) -> Vec<u64> {
    let children = fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten().filter_map(|task| {
        let children = fs::read_to_string(task.path().join("children")).ok()?;
        Some(children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u64>>())
    });
    children.flatten().collect()
}
