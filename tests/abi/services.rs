//! What a plugin asks of the host and, through the host, of other plugins.

use jackfield_plugin_api::ToolError;
use jackfield_tests::plugins::PluginFolder;
use serde_json::{Value, json};

use crate::harness::{Loaded, Setup, load, load_fixture, until};

async fn ask(loaded: &Loaded, id: &str, service: &str) -> Result<Value, ToolError> {
    let arguments = json!({ "service": service, "body": { "n": 1 } });
    let output = loaded.call(id, "ask_host", arguments).await?;
    Ok(serde_json::from_str(&output.to_text()).unwrap())
}

#[tokio::test]
async fn the_host_says_who_it_is() {
    let loaded = load_fixture(json!({})).await;
    let host = ask(&loaded, "fixture_00", "host/1").await.unwrap();
    assert_eq!(host["name"], "jackfield");
    assert!(host["abi"].as_str().unwrap().starts_with("1."), "{host}");
}

#[tokio::test]
async fn an_unknown_service_is_unavailable_and_says_what_there_is() {
    let loaded = load_fixture(json!({})).await;
    for service in ["weather/1", "nobody.echo/1", "", "fixture_00"] {
        let error = ask(&loaded, "fixture_00", service).await.unwrap_err();
        assert!(matches!(&error, ToolError::Unavailable(text) if text.contains("not offered")), "{error:?}");
    }
}

#[tokio::test]
async fn one_plugin_asks_another() {
    let loaded = load(PluginFolder::new().with_fixture("fixture_aa").with_fixture("fixture_bb")).await;
    let reply = ask(&loaded, "fixture_aa", "fixture_bb.echo/1").await.unwrap();
    assert_eq!(reply, json!({ "echoed": { "n": 1 } }));

    let error = ask(&loaded, "fixture_aa", "fixture_bb.panic/1").await.unwrap_err();
    assert!(matches!(&error, ToolError::Panicked(text) if text.contains("asked for it")), "{error:?}");
    let error = ask(&loaded, "fixture_aa", "fixture_bb.other/1").await.unwrap_err();
    assert!(matches!(&error, ToolError::Unavailable(_)), "{error:?}");
    loaded.assert_answers("fixture_bb").await;
}

#[tokio::test]
async fn requests_that_are_not_answered_have_a_limit_in_number_and_in_time() {
    let loaded = Setup::default()
        .limits(|limits| {
            limits.plugin_requests = 2;
            limits.tool_absolute = std::time::Duration::from_millis(500);
        })
        .load(PluginFolder::new().with_fixture("fixture_00"))
        .await;
    let calls = (0..3).map(|_| ask(&loaded, "fixture_00", "fixture_00.hang/1"));
    let errors = futures_util::future::join_all(calls).await;
    let count =
        |wanted: fn(&ToolError) -> bool| errors.iter().filter(|error| wanted(error.as_ref().unwrap_err())).count();
    assert_eq!(count(|error| matches!(error, ToolError::TimedOut(_))), 2, "{errors:?}");
    assert_eq!(count(|error| matches!(error, ToolError::Unavailable(_))), 1, "{errors:?}");
    assert!(ask(&loaded, "fixture_00", "host/1").await.is_ok(), "the places are free again");
}

#[tokio::test]
async fn notices_reach_every_plugin_and_a_panic_over_one_stays_there() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let config = |mode: &str| json!({ "trace": trace.path(), "mode": mode });
    let loaded = Setup::default()
        .config("fixture_aa", config("panic_in_notify"))
        .config("fixture_bb", config("well"))
        .load(PluginFolder::new().with_fixture("fixture_aa").with_fixture("fixture_bb"))
        .await;
    loaded.plugins.notify_all(&json!({ "type": "conversation_ended", "conversation_id": "c-1" }));
    until("both were told", || {
        std::fs::read_to_string(trace.path()).unwrap().matches("conversation_ended").count() == 2
    })
    .await;
    loaded.assert_answers("fixture_aa").await;
}
