//! What members promise each other, whatever happens in between: a request is one operation, a notice reaches
//! everybody, and a key that was replaced speaks no more.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::atomic::Ordering;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::*;
use daybook_ledger::consortium::{Body, Card, Profile};
use daybook_member::Ended;
use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const TYPES: &str = "https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/";

/// An IT system of a member, with a token.
struct Desk {
    url: String,
    token: String,
}

impl Desk {
    async fn of(member: &Running) -> Desk {
        let mut desk = Desk {
            url: member.url.clone(),
            token: String::new(),
        };
        let pair = STANDARD.encode(format!("user{}:{PASSWORD}", member.seed));
        let login = format!("Basic {pair}");
        let made = desk.ask("/maintenance/allocate_token/", &login).await;
        desk.token = made["token"].as_str().unwrap().to_owned();
        desk
    }

    async fn ask(&self, path: &str, authorization: &str) -> Value {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let host = self.url.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        timeout(PATIENCE, read).await.unwrap().unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(path, &format!("Bearer {}", self.token)).await
    }

    /// Sends a request; gives the last event.
    async fn command(&self, message: &Value) -> Value {
        let url = self.url.replace("http://", "ws://");
        let url = format!("{url}/transactions?token={}", self.token);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let text = Message::text(message.to_string());
        socket.send(text).await.unwrap();
        let mut last = Value::Null;
        while let Some(Ok(frame)) = timeout(PATIENCE, socket.next()).await.unwrap() {
            if let Message::Text(text) = frame {
                last = serde_json::from_str(&text).unwrap();
            }
        }
        last
    }

    async fn plans(&self) -> u64 {
        self.get("/gu-11/").await["count"].as_u64().unwrap()
    }
}

fn plan(id: &str, no: &str) -> Value {
    json!({"@type": format!("{TYPES}gu-11"), "@id": id, "no": no, "date": "02/03/2026",
        "cargo_name": "Groupage", "depart_station": "Almaty-1", "arrival_station": "Poti",
        "month": "March", "year": "2026", "tonnage": "22", "shipper": "Steppe", "decade": "2"})
}

fn entry(id: &str, ledger: &str, no: &str) -> Value {
    json!({
        "@type": format!("{TYPES}issue-transaction"), "@id": id, "no": no, "date": "01.03.26",
        "cargo": "Copper rod", "departure_station": "Balkhash", "arrival_station": "Aktau-Port",
        "doc_type": "WayBill", "ledger": {"name": ledger}, "waybill": {"no": "118-K"},
    })
}

fn creation(id: &str, name: &str) -> Value {
    json!({
        "@type": format!("{TYPES}create-ledger"), "@id": id, "name": name, "time_to_live": 600,
        "genesis": [entry(&format!("{id}-genesis"), name, "1")],
    })
}

fn is_done(last: &Value) -> bool {
    last["done"] == json!(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_stands_for_one_request_of_whatever_kind() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    let two = start(&node, 2, dir.path()).await;
    let desk = Desk::of(&one).await;
    assert!(is_done(&desk.command(&plan("p", "1")).await));
    assert!(is_done(&desk.command(&creation("c", "CONT-1")).await));
    assert!(is_done(&desk.command(&entry("i", "CONT-1", "2")).await));
    let known = desk.get("/operations/p/").await;
    assert_eq!(
        (&known["kind"], &known["status"]),
        (&json!("gu-11"), &json!("done"))
    );
    let mut other_kind = plan("p", "1");
    other_kind["@type"] = json!(format!("{TYPES}gu-12"));
    let mut other_policy = creation("c", "CONT-1");
    other_policy["policy"] = json!({"at_least": 2});
    for other in [
        plan("p", "2"),
        other_kind,
        plan("i", "1"),
        creation("c", "CONT-2"),
        other_policy,
        creation("p", "CONT-2"),
        entry("i", "CONT-1", "3"),
        entry("p", "CONT-1", "3"),
    ] {
        let refused = desk.command(&other).await;
        assert_eq!(refused["problem-code"], "request_error", "{refused}");
        let explain = refused["explain"].as_str().unwrap();
        assert!(explain.contains("used for something else"), "{explain}");
    }
    // The same again is what it was.
    for same in [
        plan("p", "1"),
        creation("c", "CONT-1"),
        entry("i", "CONT-1", "2"),
    ] {
        assert!(is_done(&desk.command(&same).await), "{same}");
    }
    let there = Desk::of(&two).await;
    until("the document is there", async || there.plans().await == 1).await;
    assert_eq!(there.get("/gu-12/").await["count"], 0);
    assert_eq!(desk.plans().await, 1);
    assert_eq!(node.tree("CONT-1").unwrap().1, 2);
    assert_eq!(node.entries_of("propose"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_lost_lets_no_second_document_through_under_a_used_id() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    assert!(is_done(
        &Desk::of(&one).await.command(&plan("p", "1")).await
    ));
    let folder = one.folder.clone();
    one.stop().await;
    std::fs::remove_file(folder.join("member.redb")).unwrap();
    // The relay knows of it: whatever comes first, the document itself or its sender's second one.
    let one = start(&node, 1, dir.path()).await;
    let desk = Desk::of(&one).await;
    let refused = desk.command(&plan("p", "2")).await;
    assert_eq!(refused["problem-code"], "request_error", "{refused}");
    until("it is back", async || desk.plans().await == 1).await;
    assert_eq!(desk.get("/gu-11/1/").await["no"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_while_its_first_one_ends_is_not_begun_again() {
    /// Sockets that say the same at the same moment, and how often.
    const SOCKETS: usize = 8;
    const ROUNDS: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    let _two = start(&node, 2, dir.path()).await;
    let desk = Desk::of(&one).await;
    assert!(is_done(&desk.command(&creation("c", "CONT-1")).await));
    for round in 0..ROUNDS {
        let message = entry(&format!("i{round}"), "CONT-1", "2");
        let before = node.submissions_by(1);
        let ends = (0..SOCKETS).map(|_| async {
            // One after the other, so that some come when the first is about to end.
            let first = desk.command(&message).await;
            let again = desk.command(&message).await;
            is_done(&first) && is_done(&again)
        });
        assert!(join_all(ends).await.into_iter().all(|done| done));
        assert_eq!(node.submissions_by(1), before + 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_restored_hides_nothing_from_a_member_that_was_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    let two = start(&node, 2, dir.path()).await;
    let (here, there) = (Desk::of(&one).await, Desk::of(&two).await);
    assert!(is_done(&here.command(&plan("a", "1")).await));
    until("the first is there", async || there.plans().await == 1).await;
    node.back_up_relay();
    assert!(is_done(&here.command(&plan("b", "2")).await));
    until("the second is there", async || there.plans().await == 2).await;
    node.restore_relay();
    // It gets the number that the second one had.
    assert!(is_done(&here.command(&plan("c", "3")).await));
    until("the third is there", async || there.plans().await == 3).await;
    // A member that was away meanwhile gets it, too, and what it has it does not get twice.
    two.stop().await;
    node.restore_relay();
    assert!(is_done(&here.command(&plan("d", "4")).await));
    let two = start(&node, 2, dir.path()).await;
    let there = Desk::of(&two).await;
    until("the fourth is there", async || there.plans().await == 4).await;
    assert!(two.listens.load(Ordering::SeqCst));
    assert_eq!(there.plans().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_key_was_replaced_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    let profile = Profile {
        label: "Member 1".to_owned(),
        ..Profile::default()
    };
    let card: Card = card(1).next(profile, &key(101));
    node.ask(&Body::Announce { card }, 1).unwrap();
    let ended = timeout(PATIENCE, one.member().failed()).await.unwrap();
    assert_eq!(ended, Ended::KeyReplaced(key(101).public_key()));
}
