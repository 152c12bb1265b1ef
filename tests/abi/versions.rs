//! The interface grows; plugins and hosts of both sides of such a step still work together.

use std::process::Command;

use jackfield_tests::plugins::{PluginFolder, build, build_program, misbehave, newer, raw};
use serde_json::json;

use crate::harness::load;

#[tokio::test]
async fn a_plugin_of_a_newer_interface_loads_in_this_host() {
    let workspace = newer();
    let folder = PluginFolder::new().with(&build(&workspace, "fixture_misbehave", &[])).with(&build(
        &workspace,
        "fixture_raw",
        &["newer"],
    ));
    let loaded = load(folder).await;
    assert_eq!(loaded.entry("fixture_00").manifest.as_ref().unwrap().abi, "1.1.0");
    loaded.assert_answers("fixture_00").await;
    let answer = loaded.call("fixture_raw", "appended", json!({})).await.unwrap().to_text();
    assert_eq!(answer, "abi 1.1.0, the host's appended method gives 41", "this host lacks it, so its default ran");
}

#[test]
fn a_plugin_of_this_interface_loads_in_a_newer_host() {
    let loader = build_program(&newer(), "fixture_loader");
    for (library, tool, answer) in [(misbehave(), "echo", "over the gap"), (raw(), "plain", "plain text")] {
        let output = Command::new(&loader).arg(library).arg(tool).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}\n{complained}");
        let line = |beginning: &str| said.lines().find(|line| line.starts_with(beginning)).unwrap_or_default();
        assert_eq!(line("host"), "host 1.1.0 plugin Older", "{said}");
        assert_eq!(line("provider"), "provider 42", "the plugin lacks it, so its default ran");
        assert_eq!(line("tool"), "tool 43", "the plugin lacks it, so its default ran");
        assert!(line("answer").contains(answer), "{said}");
        assert_eq!(line("shutdown"), "shutdown 0");
    }
}
