//! The description of the HTTP API holds together, and every route does what it says.

use std::collections::BTreeSet;

use jackfield_tests::{http::Http, server::TestServer};
use serde_json::Value;

/// Every operation as path, method and description.
fn operations<'a>(description: &'a Value) -> Vec<(&'a str, &'a str, &'a Value)> {
    let paths = description["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&'a String, &'a Value)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(keys) => {
            found.extend(keys.get("$ref").and_then(Value::as_str));
            keys.values().for_each(|value| references(value, found));
        }
        Value::Array(entries) => entries.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_description_holds_together() {
    let server = TestServer::without_key().await;
    let description = Http::to(server.addr()).get("/openapi.json").await.json_of(200);
    assert_eq!(description["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&description) {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().expect(&place)), "{place}: its id is not its own");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}: says nothing");
        for (status, answer) in operation["responses"].as_object().unwrap() {
            assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{place} {status}");
        }
        let needs_token = operation.get("security").is_none();
        assert_eq!(needs_token, operation["responses"].get("401").is_some(), "{place}: 401 and security");
    }
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("everything is described here");
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn every_described_operation_is_there_and_no_other_method() {
    let server = TestServer::without_key().await;
    let http = Http::to(server.addr());
    let description = http.get("/openapi.json").await.json_of(200);
    let operations = operations(&description);
    for method in ["get", "post", "put", "delete", "patch"] {
        for path in operations.iter().map(|(path, ..)| *path).collect::<BTreeSet<_>>() {
            let described = operations.iter().find(|(other, named, _)| *other == path && *named == method);
            let address = path.replace("{id}", "7d1c2a34-0000-4000-8000-000000000009").replace("{file}", "x");
            let answer = http.request(&method.to_uppercase(), &address, None).await;
            match described {
                None => assert_eq!(answer.status, 405, "{method} {path} is there and not described"),
                Some((.., operation)) => {
                    let status = answer.status.to_string();
                    assert!(
                        operation["responses"].get(&status).is_some(),
                        "{method} {path}: {status} is not described"
                    );
                }
            }
        }
    }
    server.shutdown().await;
}
