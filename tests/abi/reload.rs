//! Plugins that come, change and go while the host runs.

use std::{fs, time::Duration};

use jackfield::{
    clock::{Clock, SystemClock},
    config::WatchMode,
    ids::PluginId,
    plugins::{PluginActionError, PluginReport, PluginState},
};
use jackfield_tests::plugins::{PluginFolder, fixture, library_name, patched};
use serde_json::{Value, json};

use crate::harness::{Loaded, Setup, call, load, until};

const ID: &str = "fixture_00";

fn file() -> String {
    library_name(ID)
}

fn id() -> PluginId {
    PluginId::new(ID)
}

async fn one() -> Loaded {
    load(PluginFolder::new().with_fixture(ID)).await
}

/// Which content answers now, and how often that very library has been asked.
async fn mark(loaded: &Loaded) -> (u64, u64) {
    let said: Value = serde_json::from_str(&loaded.call(ID, "mark", json!({})).await.unwrap().to_text()).unwrap();
    (said["mark"].as_str().unwrap().parse().unwrap(), said["calls"].as_u64().unwrap())
}

fn report(loaded: &Loaded) -> PluginReport {
    let active = |report: &PluginReport| report.id == ID && report.state != "draining";
    loaded.plugins.reports().into_iter().find(active).unwrap_or_else(|| panic!("{:#?}", loaded.plugins.reports()))
}

async fn generation(loaded: &Loaded, wanted: u64) {
    until(&format!("generation {wanted} is active"), || {
        let snapshot = loaded.plugins.snapshot();
        snapshot.active(ID).is_some_and(|entry| entry.generation == Some(wanted))
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_is_dropped_into_the_folder_joins_and_one_that_is_taken_out_goes() {
    let loaded = load(PluginFolder::new()).await;
    assert!(loaded.plugins.reports().is_empty());
    loaded.folder.put(&file(), &fixture(ID, 1));
    generation(&loaded, 1).await;
    assert_eq!(mark(&loaded).await.0, 1);
    loaded.folder.remove(&file());
    until("the plugin is gone", || loaded.plugins.reports().is_empty()).await;
}

#[tokio::test]
async fn another_content_takes_its_place_and_the_same_content_does_not() {
    let loaded = one().await;
    loaded.folder.put(&file(), &fixture(ID, 7));
    generation(&loaded, 2).await;
    assert_eq!(mark(&loaded).await, (7, 1), "a library of its own");

    let path = loaded.folder.path().join(file());
    fs::File::options().write(true).open(&path).unwrap().set_modified(SystemClock.now().into()).unwrap();
    loaded.folder.put(&file(), &fixture(ID, 7));
    loaded.plugins.rescan().await.unwrap();
    assert_eq!(report(&loaded).generation, Some(2), "touched, but nothing new in it");
    assert_eq!(mark(&loaded).await, (7, 2));
}

#[tokio::test]
async fn a_library_overwritten_in_place_while_a_call_runs_in_it_harms_neither() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let life = || fs::read_to_string(trace.path()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let loaded =
        Setup::default().config(ID, json!({ "trace": trace.path() })).load(PluginFolder::new().with_fixture(ID)).await;
    let before = loaded.entry(ID).provider.clone().unwrap();
    let lease = before.lease().unwrap();
    let cooperative = loaded.tool(ID, "cooperative").await;
    let (context, watched) = call(1);
    let running = tokio::spawn(async move { cooperative.execute(json!({}), context).await });

    loaded.folder.overwrite(&file(), &fixture(ID, 2));
    generation(&loaded, 2).await;
    assert_eq!(mark(&loaded).await.0, 2);
    assert!(loaded.plugins.reports().iter().any(|report| report.state == "draining" && report.generation == Some(1)));
    assert!(!running.is_finished(), "the call goes on in the code that is no longer in the folder");
    watched.cancel();
    assert!(running.await.unwrap().unwrap_err().message().contains("as told"));
    assert_eq!(life(), ["init", "init"], "the first one is kept for whoever holds it");

    drop(lease);
    until("the first one has been seen out", || life() == ["init", "init", "shutdown", "drop"]).await;
    assert!(before.lease().is_none());
    until("it is forgotten", || loaded.plugins.reports().len() == 1).await;
}

#[tokio::test]
async fn what_cannot_be_loaded_takes_nothing_away_and_says_so() {
    let stop_file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    fs::remove_file(&stop_file).unwrap();
    let folder = PluginFolder::new().with_fixture(ID);
    let loaded = Setup::default()
        .config(ID, json!({ "stop_file": stop_file.to_path_buf() }))
        .limits(|limits| limits.plugin_settle = Duration::from_millis(300))
        .load(folder)
        .await;
    let newer = patched(
        &loaded.folder.path().join(file()),
        &[(r#""abi":"1.0.0""#, r#""abi":"2.0.0""#), ("mark 0000 of", "mark 0003 of")],
    );
    let bad: [(&[u8], &str); 3] =
        [(b"this is no library", "not a dynamic library"), (&newer, "speaks plugin abi 2.0.0"), (b"", "empty")];
    for (bytes, reason) in bad {
        loaded.folder.overwrite(&file(), bytes);
        until(reason, || report(&loaded).trouble.is_some_and(|trouble| trouble.contains(reason))).await;
        let report = report(&loaded);
        assert_eq!((report.state, report.generation), ("active", Some(1)));
        assert!(report.trouble.unwrap().contains("generation 1 keeps running"));
        assert_eq!(mark(&loaded).await.0, 0);
    }

    fs::write(&stop_file, "").unwrap();
    loaded.folder.put(&file(), &fixture(ID, 4));
    until("the refusal to start is told", || {
        report(&loaded).trouble.is_some_and(|trouble| trouble.contains("the stop file is there"))
    })
    .await;
    assert_eq!((report(&loaded).state, mark(&loaded).await.0), ("active", 0));
    let error = loaded.plugins.reload(&id()).await.unwrap_err();
    assert!(error.to_string().contains("generation 1 keeps running"), "{error}");

    fs::remove_file(&stop_file).unwrap();
    let reloaded = loaded.plugins.reload(&id()).await.unwrap();
    assert_eq!((reloaded.trouble, mark(&loaded).await.0), (None, 4));
}

#[tokio::test]
async fn a_half_copied_file_is_waited_for_while_the_old_one_runs() {
    let loaded = one().await;
    let bytes = fixture(ID, 5);
    let path = loaded.folder.path().join(file());
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(mark(&loaded).await.0, 0);
    assert_eq!(report(&loaded).trouble, None, "nobody calls it broken yet");
    fs::write(&path, &bytes).unwrap();
    generation(&loaded, 2).await;
    assert_eq!(mark(&loaded).await.0, 5);
}

#[tokio::test]
async fn left_overs_of_editors_and_copies_are_nobodys_plugin() {
    let loaded = one().await;
    for name in [".fixture_00.so.swp", "fixture_00.so~", "#fixture_00.so#", "~fixture_00.so", "fixture_00.so.part"] {
        loaded.folder.overwrite(name, &fixture("fixture_aa", 1));
    }
    loaded.plugins.rescan().await.unwrap();
    assert_eq!(loaded.plugins.reports().len(), 1);
    assert_eq!(report(&loaded).generation, Some(1));
}

#[tokio::test]
async fn a_renamed_file_is_the_same_plugin() {
    let loaded = one().await;
    assert_eq!(mark(&loaded).await, (0, 1));
    let renamed = library_name("renamed");
    fs::rename(loaded.folder.path().join(file()), loaded.folder.path().join(&renamed)).unwrap();
    until("the new name is known", || report(&loaded).path.ends_with(&renamed)).await;
    assert_eq!((report(&loaded).generation, mark(&loaded).await), (Some(1), (0, 2)));
}

#[tokio::test]
async fn a_folder_of_its_own_can_come_later_too() {
    let loaded = load(PluginFolder::new()).await;
    let folder = loaded.folder.path().join("mine");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(file()), fixture(ID, 1)).unwrap();
    loaded.plugins.rescan().await.unwrap();
    assert!(loaded.plugins.reports().is_empty(), "without a plugin.toml it is not a plugin");
    fs::write(folder.join("plugin.toml"), "").unwrap();
    generation(&loaded, 1).await;
    fs::write(folder.join(file()), fixture(ID, 2)).unwrap();
    generation(&loaded, 2).await;
    assert_eq!(mark(&loaded).await.0, 2);
}

#[tokio::test]
async fn of_two_files_with_one_id_the_first_counts_whenever_it_comes() {
    let loaded = one().await;
    let first = library_name("a-first");
    loaded.folder.put(&first, &fixture(ID, 1));
    generation(&loaded, 2).await;
    assert_eq!(mark(&loaded).await.0, 1);
    until("the other one says why not", || {
        loaded.plugins.reports().iter().any(|report| report.state == "rejected" && report.path.ends_with(file()))
    })
    .await;
    loaded.folder.remove(&first);
    generation(&loaded, 3).await;
    assert_eq!(mark(&loaded).await.0, 0);
}

#[tokio::test]
async fn a_reload_can_be_asked_for_and_makes_everything_new() {
    let loaded = one().await;
    assert_eq!((mark(&loaded).await, mark(&loaded).await), ((0, 1), (0, 2)));
    let report = loaded.plugins.reload(&id()).await.unwrap();
    assert_eq!((report.state, report.generation), ("active", Some(2)));
    assert_eq!(mark(&loaded).await, (0, 1), "its statics are its own");
}

#[tokio::test]
async fn a_plugin_can_be_switched_off_and_on_again() {
    let loaded = one().await;
    let report = loaded.plugins.disable(&id(), "a test").await.unwrap();
    assert_eq!(report.state, "disabled");
    assert!(report.reason.unwrap().contains("disabled by a test"));
    assert!(loaded.plugins.snapshot().active(ID).is_none());
    let error = loaded.plugins.reload(&id()).await.unwrap_err();
    assert_eq!(error, PluginActionError::Disabled { id: id(), by: "a test".to_owned() });
    loaded.folder.put(&file(), &fixture(ID, 3));
    loaded.plugins.rescan().await.unwrap();
    assert_eq!(loaded.entry(ID).state.name(), "disabled", "a new file does not change that");
    let report = loaded.plugins.enable(&id()).await.unwrap();
    assert_eq!((report.state, report.generation), ("active", Some(2)));
    assert_eq!(mark(&loaded).await.0, 3);
}

#[tokio::test]
async fn what_the_configuration_disables_stays_off_and_who_is_unknown_is_named() {
    let folder = PluginFolder::new().with_fixture(ID);
    let loaded = Setup::default().settings(ID, |settings| settings.disabled = true).load(folder).await;
    for error in [loaded.plugins.enable(&id()).await, loaded.plugins.reload(&id()).await] {
        assert!(error.unwrap_err().to_string().contains("[plugins.fixture_00]"));
    }
    let nobody = PluginId::new("nobody");
    for error in [
        loaded.plugins.enable(&nobody).await,
        loaded.plugins.reload(&nobody).await,
        loaded.plugins.disable(&nobody, "a test").await,
    ] {
        let error = error.unwrap_err();
        assert_eq!(error, PluginActionError::Unknown { id: nobody.clone(), known: vec![id()] });
        assert!(error.to_string().contains("there is fixture_00"), "{error}");
    }
    loaded.plugins.shutdown(Duration::from_secs(1)).await;
    assert_eq!(loaded.plugins.reload(&id()).await.unwrap_err(), PluginActionError::Stopped);
}

#[tokio::test]
async fn without_notices_the_folders_are_looked_at_regularly() {
    let loaded = Setup::default()
        .watch(WatchMode::Poll)
        .limits(|limits| limits.plugin_rescan_alone = Duration::from_millis(50))
        .load(PluginFolder::new())
        .await;
    loaded.folder.put(&file(), &fixture(ID, 1));
    generation(&loaded, 1).await;
}

#[tokio::test]
async fn without_a_watch_nothing_changes_until_it_is_asked_for() {
    let loaded = Setup::default().watch(WatchMode::Off).load(PluginFolder::new().with_fixture(ID)).await;
    loaded.folder.put(&file(), &fixture(ID, 1));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(mark(&loaded).await.0, 0);
    loaded.plugins.rescan().await.unwrap();
    assert_eq!((report(&loaded).generation, mark(&loaded).await.0), (Some(2), 1));
    loaded.folder.put(&file(), &fixture(ID, 2));
    loaded.plugins.reload(&id()).await.unwrap();
    assert_eq!(mark(&loaded).await.0, 2);
}

#[tokio::test]
async fn a_folder_that_cannot_be_looked_at_takes_nothing_away() {
    let loaded = one().await;
    let path = loaded.folder.path().to_owned();
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    loaded.plugins.rescan().await.unwrap();
    assert_eq!((report(&loaded).state, mark(&loaded).await.0), ("active", 0));
    fs::rename(&aside, &path).unwrap();
    loaded.folder.put(&file(), &fixture(ID, 1));
    loaded.plugins.rescan().await.unwrap();
    assert_eq!(mark(&loaded).await.0, 1);
}

#[tokio::test]
async fn libraries_that_stay_mapped_have_a_limit() {
    let folder = PluginFolder::new().with_fixture(ID);
    let loaded = Setup::default().limits(|limits| limits.plugin_generations = 3).load(folder).await;
    for generation in [2, 3] {
        assert_eq!(loaded.plugins.reload(&id()).await.unwrap().generation, Some(generation));
    }
    let error = loaded.plugins.reload(&id()).await.unwrap_err().to_string();
    assert!(error.contains("plugin_generations") && error.contains("generation 3 keeps running"), "{error}");
    loaded.assert_answers(ID).await;
}

#[cfg(target_os = "linux")]
mod leaks {
    use super::*;

    fn count(folder: &str) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    /// Memory of this process that is in no file: what a generation costs beside the pages of its library, which the
    /// system can take back and which are many in a library that is built without optimisation.
    fn own_memory_kib() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_reloads_leak_neither_threads_nor_descriptors() {
        const RELOADS: u64 = 100;
        let loaded = one().await;
        let reload = async || {
            loaded.plugins.reload(&id()).await.unwrap();
            loaded.assert_answers(ID).await;
            assert_eq!(loaded.call(ID, "spawn_tasks", json!({})).await.unwrap().to_text(), r#"{"sum":6}"#);
        };
        let at_rest = async || until("only one is left", || loaded.plugins.reports().len() == 1).await;
        for _ in 0..5 {
            reload().await;
        }
        at_rest().await;
        let (threads, descriptors, memory) = (count("/proc/self/task"), count("/proc/self/fd"), own_memory_kib());
        for _ in 0..RELOADS {
            reload().await;
        }
        at_rest().await;
        // Threads end a moment after they were told to.
        until("the threads have ended", || count("/proc/self/task") <= threads + 2).await;
        until("the descriptors are closed", || count("/proc/self/fd") <= descriptors + 2).await;
        let growth = own_memory_kib().saturating_sub(memory) / RELOADS;
        assert!(growth <= 1024, "each generation holds {growth} KiB");
        assert_eq!(loaded.entry(ID).state, PluginState::Active);
    }
}
