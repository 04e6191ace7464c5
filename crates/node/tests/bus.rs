//! The service bus at both addresses of a node: its own listener and the main one.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use common::{Node, get};
use daybook_client::bus::{Bus, BusBuilder, BusKey, Call, Subscribe};
use serde_json::json;
use tokio::time::timeout;

/// How long something is waited for before a test counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where Socket.IO begins.
const OPEN: &str = "/socket.io/?EIO=4&transport=polling";

fn start(folder: &Path, flags: &[&str]) -> Node {
    Node::start_with(&folder.join("data"), &[&["--dev"], flags].concat())
}

fn service(node: &Node, url: &str, name: &str) -> BusBuilder {
    let key = BusKey::new(node.listening["bus_key"].as_str().unwrap());
    Bus::builder(url.parse().unwrap(), name, key)
}

/// A service at each address calls the one at the other.
async fn both_ways(inner: Bus, outer: Bus) {
    for (worker, caller, name) in [(&inner, &outer, "inwards"), (&outer, &inner, "outwards")] {
        let mut work = worker.subscribe(name, Subscribe::default()).await.unwrap();
        let caller = caller.clone();
        let asked = json!({"text": "häß", "n": 1.5});
        let call = tokio::spawn(async move { caller.call(name, &asked, Call::default()).await });
        let request = timeout(PATIENCE, work.next()).await.unwrap().unwrap();
        request.answer(&json!({"got": request.data()})).await;
        let answer = call.await.unwrap().unwrap();
        assert_eq!(answer, json!({"got": {"text": "häß", "n": 1.5}}));
    }
    let head = outer.call("ledger.head", &json!({}), Call::default()).await;
    assert!(head.unwrap()["height"].is_u64());
}

/// The status of the answer to one request.
fn status(node: &Node, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "GET {OPEN} HTTP/1.1\r\n{headers}connection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn services_at_both_addresses_call_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &[]);
    let own = node.listening["bus"].as_str().unwrap();
    let inner = service(&node, own, "inner").connect().await.unwrap();
    let outer = service(&node, node.url(), "outer").connect().await.unwrap();
    both_ways(inner, outer).await;
}

#[tokio::test]
async fn the_main_listeners_tls_is_the_buss_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(path("cert.pem"), certificate.cert.pem()).unwrap();
    fs::write(path("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let flags = ["--tls-certificate-file", &cert, "--tls-key-file", &key];
    let node = start(folder.path(), &flags);
    assert!(node.url().starts_with("https://"));
    let own = node.listening["bus"].as_str().unwrap();
    let join = |url: &str, name| service(&node, url, name).ca_file(&cert).connect();
    let inner = join(own, "inner").await.unwrap();
    let outer = join(node.url(), "outer").await.unwrap();
    both_ways(inner, outer).await;
}

#[tokio::test]
async fn the_main_listener_answers_without_the_bus_if_it_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &["--bus-on-main-listener", "false"]);
    assert_eq!(get(&format!("{}{OPEN}", node.url()))["status"], 404);
    let own = node.listening["bus"].as_str().unwrap();
    service(&node, own, "inner").connect().await.unwrap();
}

#[test]
fn a_page_of_another_site_reaches_no_bus_on_the_main_listener() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &["--allowed-origins", "https://a.example"]);
    let host = format!("host: {}\r\n", node.address());
    assert_eq!(status(&node, &host), 200);
    let from = |origin: &str| status(&node, &format!("{host}origin: {origin}\r\n"));
    assert_eq!(from("https://a.example"), 200);
    assert_eq!(from("https://evil.example"), 403);
    assert_eq!(status(&node, "host: evil.example\r\n"), 421);
}

#[tokio::test]
async fn connections_to_both_addresses_are_bounded_together() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &["--bus-connections", "2"]);
    let own = node.listening["bus"].as_str().unwrap();
    let join = |url: &str| service(&node, url, "crowd").connect();
    let first = join(node.url()).await.unwrap();
    let _second = join(own).await.unwrap();
    assert!(join(node.url()).await.is_err());
    assert!(join(own).await.is_err());
    // A place is free again when its connection has ended.
    first.close().await.unwrap();
    let third = timeout(PATIENCE, async {
        loop {
            if let Ok(bus) = join(node.url()).await {
                return bus;
            }
        }
    });
    third.await.unwrap();
}

#[tokio::test]
async fn a_service_on_the_main_listener_is_one_of_its_connections() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &["--limits-connections", "1"]);
    let bus = service(&node, node.url(), "outer").connect().await.unwrap();
    let host = format!("host: {}\r\n", node.address());
    assert_eq!(status(&node, &host), 503);
    bus.close().await.unwrap();
    let free = timeout(PATIENCE, async {
        while status(&node, &host) != 200 {
            tokio::task::yield_now().await;
        }
    });
    free.await.unwrap();
}

#[tokio::test]
async fn a_node_stops_in_good_order_while_services_are_on_its_main_listener() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &[]);
    let bus = service(&node, node.url(), "outer").connect().await.unwrap();
    let mut work = bus.subscribe("work", Subscribe::default()).await.unwrap();
    let caller = bus.clone();
    let call = tokio::spawn(async move { caller.call("work", &json!(1), Call::default()).await });
    let request = timeout(PATIENCE, work.next()).await.unwrap().unwrap();
    let stopped = tokio::task::spawn_blocking(|| node.stop());
    // What is under way is finished.
    request.answer(&json!(2)).await;
    assert_eq!(call.await.unwrap().unwrap(), json!(2));
    assert!(stopped.await.unwrap().success());
}
