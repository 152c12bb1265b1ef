//! From a file in a folder to an active plugin, and every way to be refused before that.

use std::{fs, time::Duration};

use jackfield::{
    clock::SystemClock,
    config::{Limits, TrustConfig},
    ids::PluginId,
    plugins::{FolderError, PluginState, Plugins, PluginsConfig, PluginsError, inspect},
};
use jackfield_tests::plugins::{PluginFolder, library_name, misbehave, outside, patched};
use serde_json::json;

use crate::harness::{Setup, load, load_fixture, until};

#[tokio::test]
async fn a_plugin_in_a_folder_becomes_active_and_says_who_it_is() {
    let loaded = load_fixture(json!({})).await;
    let entry = loaded.entry("fixture_00");
    assert_eq!(entry.state, PluginState::Active);
    assert!(entry.tools.contains(&"echo".to_owned()));
    let report = serde_json::to_value(&loaded.plugins.reports()[0]).unwrap();
    assert_eq!(report["id"], "fixture_00");
    assert_eq!(report["version"], "0.3.0");
    assert_eq!(report["state"], "active");
    assert_eq!(report["generation"], 1);
    assert_eq!(report["sha256"].as_str().unwrap().len(), 64);
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn several_plugins_live_side_by_side_sorted_by_id() {
    let loaded = load(PluginFolder::new().with_fixture("fixture_zz").with_fixture("fixture_aa")).await;
    let ids: Vec<String> = loaded.plugins.reports().into_iter().map(|report| report.id).collect();
    assert_eq!(ids, ["fixture_aa", "fixture_zz"]);
    loaded.assert_answers("fixture_aa").await;
    loaded.assert_answers("fixture_zz").await;
}

#[test]
fn a_file_can_be_inspected_without_running_it() {
    let inspection = inspect(misbehave(), &TrustConfig::default(), &Limits::default()).unwrap();
    assert_eq!(inspection.refusal, None);
    let shown = serde_json::to_value(&inspection).unwrap();
    assert_eq!(shown["manifest"]["id"], "fixture_00");
    assert_eq!(shown["manifest"]["version"], "0.3.0");
    assert_eq!(shown["manifest"]["abi"], "1.0.0");
    assert_eq!(shown["manifest"]["authors"], json!(["A Tester <tester@example.com>"]));
    assert_eq!(shown["manifest"]["tools"][0], json!({ "name": "echo", "effect": "read_only" }));
    assert_eq!(shown["manifest"]["permissions"], json!({ "network": ["example.com:443"] }));
    assert_eq!(shown["manifest"]["panic"], "unwind");
    assert_eq!(shown["sha256"].as_str().unwrap().len(), 64);
    assert!(inspect(&misbehave().with_extension("nothing"), &TrustConfig::default(), &Limits::default()).is_err());
}

/// The beginning of the manifest's entry for the compiler, as it is in the built file.
fn compiler() -> String {
    let inspection = inspect(misbehave(), &TrustConfig::default(), &Limits::default()).unwrap();
    let rustc = inspection.manifest.rustc.expect("the manifest names the compiler");
    format!("\"rustc\":\"{}", rustc.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_a_reason_and_never_runs() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let library = fs::read(misbehave()).unwrap();
    let mut other_machine = library.clone();
    // The machine number of an ELF header, here that of a MIPS.
    other_machine[18..20].copy_from_slice(&[8, 0]);
    let compiler = compiler();
    let broken_compiler = format!("\"rustc\":\"rustc 1.98.0{}", " ".repeat(compiler.len() - 21));
    let change = |from: &str, to: &str| patched(misbehave(), &[("fixture_00", "fixture_ab"), (from, to)]);

    let folder = PluginFolder::new()
        .with_fixture("fixture_ok")
        .with_file(&library_name("empty"), b"")
        .with_file(&library_name("script"), b"#!/bin/sh\necho hello\n")
        .with_file(&library_name("truncated"), &library[..library.len() / 2])
        .with_file(&library_name("machine"), &other_machine)
        .with_file(&library_name("plain"), &patched(misbehave(), &[(".jackfield", ".jokefield")]))
        .with_file(&library_name("two"), &change(r#""abi":"1.0.0""#, r#""abi":"2.0.0""#))
        .with_file(&library_name("abort"), &change(r#""panic":"unwind""#, r#""panic":"abort" "#))
        .with_file(&library_name("compiler"), &change(&compiler, &broken_compiler))
        .with_file(&library_name("name"), &patched(misbehave(), &[("\"fixture_00\"", "\"Fixture_00\"")]))
        .with_file("windows.dll", b"MZ")
        .with_file("README.md", b"not a plugin");
    let config = json!({ "trace": trace.path() });
    let loaded = Setup::default()
        .config("fixture_ab", config.clone())
        .config("Fixture_00", config)
        .limits(|limits| limits.plugin_settle = Duration::from_millis(50))
        .load(folder)
        .await;

    let expected = [
        ("empty", vec!["the file is empty", "put the built library here"]),
        ("script", vec!["not a dynamic library"]),
        ("truncated", vec!["not a dynamic library"]),
        ("machine", vec!["is built for", "this host needs", "build the plugin for this target"]),
        ("plain", vec!["without a plugin manifest", "export_plugin!"]),
        ("two", vec!["speaks plugin abi 2.0.0", "this host speaks 1.", "newer host"]),
        ("abort", vec!["panic = \"abort\"", "\"unwind\"", "Cargo profile"]),
        ("compiler", vec!["rustc 1.98.0", "build it again"]),
        ("name", vec!["Fixture_00", "a-z, 0-9"]),
        ("windows", vec!["another system"]),
    ];
    let reports = loaded.plugins.reports();
    assert_eq!(reports.len(), expected.len() + 1, "{reports:#?}");
    for (stem, texts) in expected {
        let report = reports.iter().find(|report| report.path.file_stem().unwrap() == stem).unwrap();
        let reason = report.reason.as_deref().unwrap_or_default();
        assert_eq!(report.state, "rejected", "{report:?}");
        assert!(reason.contains(&*report.path.to_string_lossy()), "{reason} names the file");
        for text in texts {
            assert!(reason.contains(text), "{stem}: {text:?} is missing in: {reason}");
        }
    }
    assert_eq!(fs::read_to_string(trace.path()).unwrap(), "", "no code of a refused plugin ran");
    loaded.assert_answers("fixture_ok").await;
}

#[tokio::test]
async fn every_cut_of_a_real_library_is_refused_and_none_is_mapped() {
    let library = fs::read(misbehave()).unwrap();
    let mut folder = PluginFolder::new();
    for eighth in 1..8 {
        let cut = &library[..library.len() * eighth / 8];
        folder = folder.with_file(&library_name(&format!("cut{eighth}")), cut);
    }
    folder = folder.with_file(&library_name("cut8"), &library[..library.len() - 1]);
    let loaded = Setup::default().limits(|limits| limits.plugin_settle = Duration::from_millis(10)).load(folder).await;
    for report in loaded.plugins.reports() {
        assert_eq!(report.state, "rejected", "{report:?}");
    }
}

#[tokio::test]
async fn two_files_of_one_id_are_a_conflict_that_names_both() {
    let bytes = fs::read(misbehave()).unwrap();
    let folder =
        PluginFolder::new().with_file(&library_name("first"), &bytes).with_file(&library_name("second"), &bytes);
    let loaded = load(folder).await;
    let reports = loaded.plugins.reports();
    assert_eq!(reports.iter().map(|report| report.state).collect::<Vec<_>>(), ["active", "rejected"]);
    let reason = reports[1].reason.as_deref().unwrap();
    assert!(reason.contains("first") && reason.contains("second") && reason.contains("remove one"), "{reason}");
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn a_missing_folder_is_an_error_at_once() {
    let missing = std::path::PathBuf::from("/nowhere/plugins");
    let config = PluginsConfig::from(missing.clone());
    let error = Plugins::start(&config, &Limits::default(), std::sync::Arc::new(SystemClock)).await.unwrap_err();
    assert_eq!(error, PluginsError::Folder(FolderError::Missing(missing)));
    assert!(error.to_string().contains("--plugins"), "{error}");
}

#[tokio::test]
async fn no_folder_at_all_is_no_plugins() {
    let config = PluginsConfig::default();
    let plugins = Plugins::start(&config, &Limits::default(), std::sync::Arc::new(SystemClock)).await.unwrap();
    assert!(plugins.wait_settled(Duration::from_secs(5)).await);
    assert!(plugins.reports().is_empty() && plugins.required_pending().is_empty());
}

#[tokio::test]
async fn a_plugin_that_cannot_start_is_told_apart_from_one_that_is_slow() {
    let folder = ["fixture_p1", "fixture_f1", "fixture_s1", "fixture_b1", "fixture_ok"]
        .into_iter()
        .fold(PluginFolder::new(), PluginFolder::with_fixture);
    let loaded = Setup::default()
        .config("fixture_p1", json!({ "mode": "panic_in_create" }))
        .config("fixture_f1", json!({ "mode": "fail_in_create" }))
        .config("fixture_s1", json!({ "mode": "slow_create", "ms": 60_000 }))
        .config("fixture_b1", json!({ "mode": "block_in_create", "ms": 4000 }))
        .limits(|limits| limits.plugin_create = Duration::from_secs(2))
        .load(folder)
        .await;
    let said = |id: &str, texts: &[&str]| {
        assert!(matches!(loaded.entry(id).state, PluginState::Failed(_)));
        let reason = loaded.reason(id);
        assert!(texts.iter().all(|text| reason.contains(text)), "{id}: {reason}");
    };
    said("fixture_p1", &["did not start", "panicked", "created in anger"]);
    said("fixture_f1", &["the key `city` is missing", "[plugins.fixture_f1.config]"]);
    said("fixture_s1", &["within 2s", "plugin_create"]);
    said("fixture_b1", &["within 2s", "plugin_create"]);
    loaded.assert_answers("fixture_ok").await;
}

#[tokio::test]
async fn a_wrong_configuration_is_said_with_its_key() {
    let loaded = load_fixture(json!({ "mode": "sideways" })).await;
    let reason = loaded.reason("fixture_00");
    assert!(reason.contains("refused to start") && reason.contains("mode"), "{reason}");
}

#[tokio::test]
async fn a_slow_plugin_holds_up_neither_the_start_nor_the_others() {
    let folder = PluginFolder::new().with_fixture("fixture_s1").with_fixture("fixture_ok");
    let loaded = Setup::default()
        .config("fixture_s1", json!({ "mode": "slow_create", "ms": 3000 }))
        .settings("fixture_s1", |settings| settings.required = true)
        .settings("fixture_no", |settings| settings.required = true)
        .start(folder)
        .await;
    until("the quick plugin is active", || loaded.plugins.snapshot().active("fixture_ok").is_some()).await;
    assert!(loaded.plugins.snapshot().active("fixture_s1").is_none());
    assert_eq!(loaded.plugins.required_pending(), [PluginId::new("fixture_no"), PluginId::new("fixture_s1")]);
    loaded.assert_answers("fixture_ok").await;
    until("the slow plugin is active", || loaded.plugins.snapshot().active("fixture_s1").is_some()).await;
    assert_eq!(loaded.plugins.required_pending(), [PluginId::new("fixture_no")]);
}

#[tokio::test]
async fn a_disabled_plugin_stays_off_and_says_who_wants_that() {
    let folder = PluginFolder::new().with_fixture("fixture_00");
    let loaded = Setup::default().settings("fixture_00", |settings| settings.disabled = true).load(folder).await;
    assert!(matches!(loaded.entry("fixture_00").state, PluginState::Disabled(_)));
    assert!(loaded.reason("fixture_00").contains("[plugins.fixture_00]"));
}

#[tokio::test]
async fn a_file_that_is_still_being_copied_is_waited_for() {
    let library = fs::read(misbehave()).unwrap();
    let folder = PluginFolder::new().with_file(&library_name("late"), &library[..library.len() / 3]);
    let path = folder.path().join(library_name("late"));
    let loaded = Setup::default().start(folder).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(loaded.plugins.reports()[0].state, "discovered");
    fs::write(&path, &library).unwrap();
    until("the whole file is active", || loaded.plugins.snapshot().active("fixture_00").is_some()).await;
    loaded.assert_answers("fixture_00").await;
}

#[tokio::test]
async fn overwriting_the_file_does_not_touch_the_loaded_plugin() {
    let loaded = load_fixture(json!({})).await;
    let path = loaded.folder.path().join(library_name("fixture_00"));
    fs::write(&path, vec![0; 64]).unwrap();
    loaded.assert_answers("fixture_00").await;
    fs::remove_file(&path).unwrap();
    let output = loaded.call("fixture_00", "spawn_tasks", json!({})).await.unwrap();
    assert_eq!(output.to_text(), r#"{"sum":6}"#);
}

#[tokio::test]
async fn a_plugin_crate_outside_of_any_workspace_builds_and_loads() {
    let source = r#"
use jackfield_plugin_api::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Person { name: String }

async fn greet(person: Person, _: CallContext) -> Result<String, ToolError> {
    Ok(format!("hello {}", person.name))
}

struct Hello;

#[async_trait]
impl ToolProvider for Hello {
    async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        vec![tool("greet", "Greets a person by name.", Effect::ReadOnly, greet)]
    }
}

#[async_trait]
impl Plugin for Hello {
    async fn init(_: Host, _: Value) -> Result<Self, PluginError> { Ok(Hello) }
}

export_plugin!(Hello { id: "outside", description: "Greets people", tools: { "greet": read_only } });
"#;
    let library = outside("fixture_outside", source);
    let loaded = load(PluginFolder::new().with(&library)).await;
    let output = loaded.call("outside", "greet", json!({ "name": "Ada" })).await.unwrap();
    assert_eq!(output.to_text(), "hello Ada");
    let schema = loaded.tool("outside", "greet").await.schema();
    assert_eq!(schema.parameters["properties"]["name"]["type"], "string");
}
