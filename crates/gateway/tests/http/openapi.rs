//! The served description against the running node.

use std::collections::BTreeSet;

use daybook_gateway::{OPENAPI, Route, Settings};
use serde_json::Value;

use crate::support::{TestNode, alice, create};

const METHODS: [&str; 7] = ["get", "post", "put", "delete", "patch", "head", "options"];

/// What guests of the node answer: its own tests compare that.
const OF_GUESTS: [&str; 1] = ["/api/v1/consortium/notices"];

#[test]
fn every_route_is_described_with_its_methods_and_nothing_else_is() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let described: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(path, _)| !OF_GUESTS.contains(&path.as_str()))
        .flat_map(|(path, item)| {
            METHODS
                .iter()
                .filter(|method| item.get(**method).is_some())
                .map(|method| (path.clone(), (*method).to_owned()))
        })
        .collect();
    let mut served = BTreeSet::new();
    // What belongs to the console is no part of any protocol.
    for route in Route::ALL.into_iter().filter(|route| !route.is_console()) {
        if route.reads() {
            served.insert((route.template().to_owned(), "get".to_owned()));
        }
        if route.writes() {
            served.insert((route.template().to_owned(), "post".to_owned()));
        }
    }
    assert_eq!(described, served);
}

#[test]
fn every_described_operation_answers_as_declared() {
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new()
        .build_recorder()
        .handle();
    let node = TestNode::with(Settings {
        metrics: Some(metrics),
        ..Settings::default()
    });
    let lamp = node.committed(create("described", 1));
    let served = node.get("/api/v1/openapi.json");
    assert_eq!(served.header("content-type"), "application/json");
    let description = served.json();
    let id = lamp.id().to_string();
    let key = alice().public_key().to_string();
    let example = |name: &str| match name {
        "id" | "asset_id" | "transaction_id" | "asset_ids" => id.clone(),
        "height" => "1".to_owned(),
        "cid" => "bafkreinobody".to_owned(),
        "public_key" => key.clone(),
        "search" => "described".to_owned(),
        other => panic!("no example of {other}"),
    };
    for (path, item) in description["paths"].as_object().unwrap() {
        // There is no member, ledger or proposal before somebody founded the consortium's network; the book's
        // own tests do.
        let of_a_network = path.contains('{') || path.ends_with("/requests");
        let of_a_network = path.starts_with("/api/v1/consortium") && of_a_network;
        if of_a_network || OF_GUESTS.contains(&path.as_str()) {
            continue;
        }
        for method in METHODS {
            let Some(operation) = item.get(method) else {
                continue;
            };
            let declared: Vec<u16> = operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .map(|status| status.parse().unwrap())
                .collect();
            let (mut full, mut query, mut requires_query) = (path.clone(), Vec::new(), false);
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let parameter = resolve(&description, parameter);
                let name = parameter["name"].as_str().unwrap();
                match (
                    parameter["in"].as_str().unwrap(),
                    parameter["required"] == true,
                ) {
                    ("path", true) => full = full.replace(&format!("{{{name}}}"), &example(name)),
                    ("query", true) => {
                        requires_query = true;
                        query.push(format!("{name}={}", example(name)));
                    }
                    ("query" | "header", false) => {}
                    (place, required) => panic!("{path} {name}: {place} {required}"),
                }
            }
            // The first has no end, the next two are there where a tracker runs and on development nodes, the
            // last takes what machines say; their own tests read them.
            let elsewhere = [
                "/api/v1/streams/events",
                "/api/v1/tracker",
                "/send_tokens",
                "/api/v1/machines",
            ];
            if elsewhere.contains(&path.as_str()) {
                continue;
            }
            // `transactions` needs one of two, which a list of parameters cannot say.
            if path == "/api/v1/transactions" && method == "get" {
                requires_query = true;
                query.push(format!("asset_id={id}"));
            }
            let asked = match query.is_empty() {
                true => full.clone(),
                false => format!("{full}?{}", query.join("&")),
            };
            let fresh = create(&format!("described {path} {method}"), 1);
            let body: &[u8] = if method == "post" {
                fresh.canonical()
            } else {
                b""
            };
            let answer = node
                .client()
                .request(&method.to_uppercase(), &asked, &[], body);
            assert!(
                declared.contains(&answer.status),
                "{method} {asked}: {}",
                answer.status
            );
            let stream = declared.contains(&101);
            assert!(
                stream || answer.status < 300,
                "{method} {asked}: {}",
                answer.text()
            );
            let success = operation["responses"][answer.status.to_string()].clone();
            if let Some(content) = resolve(&description, &success)["content"].as_object() {
                let (declared, _) = content.iter().next().unwrap();
                assert!(
                    answer.header("content-type").starts_with(declared),
                    "{method} {asked}"
                );
            }
            if requires_query {
                let answer = node
                    .client()
                    .request(&method.to_uppercase(), &full, &[], body);
                assert_eq!(answer.status, 400, "{method} {full}");
                assert!(declared.contains(&400), "{method} {full}");
            }
        }
    }
}

fn resolve<'d>(description: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => description
            .pointer(reference.trim_start_matches('#'))
            .unwrap(),
        None => value,
    }
}
