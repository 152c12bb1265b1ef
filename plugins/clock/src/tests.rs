//! The plugin without a server.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jackfield_plugin_api::testing::{TestHost, TestProvider, check_config_schema};

use super::*;

async fn clock(host: &TestHost) -> TestProvider<Clock> {
    host.provider(json!({})).await.unwrap()
}

async fn text(name: &str, arguments: Value) -> Result<String, String> {
    let output = clock(&TestHost::new()).await.call(name, arguments).await;
    output.map(|output| output.to_text()).map_err(|error| error.message().to_owned())
}

#[tokio::test]
async fn the_manifest_says_what_the_plugin_does() {
    clock(&TestHost::new()).await.check_manifest().await.unwrap();
    check_config_schema::<Clock, Config>().unwrap();
}

#[tokio::test]
async fn a_moment_is_told_in_its_zone() {
    let now = text("current_time", json!({"zone": "Asia/Tokyo"})).await.unwrap();
    assert!(now.contains("+09:00") && now.contains("Asia/Tokyo"), "{now}");
    let winter = json!({"time": "2026-01-15T12:00", "from": "Europe/Berlin", "to": "America/New_York"});
    assert!(text("convert_time", winter).await.unwrap().contains("2026-01-15T06:00:00-05:00"));
    let summer = json!({"time": "2026-07-15T12:00:00Z", "to": "Europe/Berlin"});
    assert!(text("convert_time", summer).await.unwrap().contains("2026-07-15T14:00:00+02:00"));
}

#[tokio::test]
async fn dates_are_computed_as_people_do() {
    let leap = text("date_difference", json!({"from": "2024-02-01", "to": "2024-03-01"})).await.unwrap();
    assert!(leap.contains("\"days\":29"), "{leap}");
    let back = text("date_difference", json!({"from": "2026-03-01", "to": "2026-02-01"})).await.unwrap();
    assert!(back.contains("\"days\":-28"), "{back}");
    let zones = json!({"from": "2026-01-01T00:00[Asia/Tokyo]", "to": "2026-01-01T00:00Z"});
    assert!(text("date_difference", zones).await.unwrap().contains("\"seconds\":32400"));
    let end = text("date_add", json!({"date": "2026-01-31", "months": 1})).await.unwrap();
    assert!(end.contains("2026-02-28") && end.contains("Saturday"), "{end}");
}

#[tokio::test]
async fn what_makes_no_sense_is_explained() {
    let error = text("current_time", json!({"zone": "Mars/Olympus"})).await.unwrap_err();
    assert!(error.contains("Mars/Olympus") && error.contains("Europe/Berlin"), "{error}");
    let error = text("current_time", json!({"zone": "USA/New York"})).await.unwrap_err();
    assert!(error.contains("perhaps America/New_York is meant"), "{error}");
    let error = text("date_add", json!({"date": "tomorrow"})).await.unwrap_err();
    assert!(error.contains("tomorrow") && error.contains("2026-11-23"), "{error}");
    assert!(text("date_add", json!({"date": "2026-01-01", "years": 30_000})).await.is_err());
    assert!(text("wait", json!({"seconds": -1})).await.unwrap_err().contains("from 0 to 300"));
    assert!(text("wait", json!({"seconds": "soon"})).await.is_err());
}

#[tokio::test]
async fn a_wrong_configuration_is_refused() {
    let host = TestHost::new();
    let error = host.provider::<Clock>(json!({"zone": "Nowhere"})).await.err().unwrap();
    assert!(error.message().contains("Nowhere"), "{error:?}");
    assert!(host.provider::<Clock>(json!({"zoom": 1})).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn waiting_reports_progress_and_stops_when_told() {
    let host = TestHost::new();
    let clock = clock(&host).await;
    let output = clock.call("wait", json!({"seconds": 1})).await.unwrap();
    assert_eq!(output.to_text(), "waited 1 s");
    assert!(host.progress().len() >= 9, "{:?}", host.progress());

    let call = clock.start("wait", json!({"seconds": 200})).await.unwrap();
    let canceller = call.canceller();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        canceller.cancel();
    };
    let (ended, ()) = tokio::join!(call, stop);
    assert!(matches!(ended, Err(ToolError::Cancelled(_))), "{ended:?}");
}
