//! A member's gateway as an organisation's program uses it: HTTP and the command channel.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::*;
use daybook_ledger::consortium::{Action, Answer, Body, Outcome, Policy, ProposalStatus, Propose};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

const TYPES: &str = "https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/";

/// An answer: status, headers in lower case, body.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

fn basic(name: &str, password: &str) -> String {
    let pair = STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

async fn ask(url: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = answer[end + 4..].to_vec();
    if headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked")
    {
        body = unchunked(&body);
    }
    Reply {
        status,
        headers,
        body,
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
}

impl Running {
    fn login(&self) -> String {
        basic(&format!("user{}", self.seed), PASSWORD)
    }

    async fn get(&self, path: &str) -> Reply {
        ask(&self.url, "GET", path, &self.login(), b"").await
    }

    async fn post(&self, path: &str, body: &[u8]) -> Reply {
        let headers = format!("{}Content-Type: application/json\r\n", self.login());
        ask(&self.url, "POST", path, &headers, body).await
    }

    async fn token(&self) -> String {
        let reply = self.get("/maintenance/allocate_token/").await;
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// Sends one request over a socket of its own; gives all events, after the close with 1000.
    async fn command(&self, message: &Value) -> Vec<Value> {
        let mut socket = self.socket(&self.token().await).await.unwrap();
        let text = Message::text(message.to_string());
        socket.send(text).await.unwrap();
        events(&mut socket).await
    }

    async fn socket(&self, token: &str) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let url = self.url.replace("http://", "ws://");
        let url = format!("{url}/transactions?token={token}");
        Ok(tokio_tungstenite::connect_async(url).await?.0)
    }

    async fn upload(&self, name: &str, content: &[u8]) -> Reply {
        let mut body = format!(
            "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--B--\r\n");
        let headers = format!(
            "{}Content-Type: multipart/form-data; boundary=B\r\n",
            self.login()
        );
        ask(&self.url, "POST", "/upload", &headers, &body).await
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

/// Everything up to the close, which must be 1000.
async fn events(socket: &mut Socket) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => events.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!(frame.code, CloseCode::Normal, "{events:?}");
                return events;
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {events:?}"),
        }
    }
}

fn entry(id: &str, ledger: Value) -> Value {
    json!({
        "@type": format!("{TYPES}issue-transaction"), "@id": id, "no": "WB-1", "date": "01.03.26",
        "cargo": "Арбузы", "departure_station": "Balkhash", "arrival_station": "Aktau-Port",
        "doc_type": "WayBill", "ledger": {"name": ledger}, "waybill": {"no": "118-K"},
    })
}

fn creation(id: &str, name: &str) -> Value {
    json!({
        "@type": format!("{TYPES}create-ledger"), "@id": id, "name": name, "time_to_live": 60,
        "genesis": [entry(&format!("{id}-genesis"), json!(name))],
    })
}

fn code(events: &[Value]) -> &str {
    let last = events.last().unwrap();
    last["problem-code"].as_str().unwrap_or("")
}

fn is_done(events: &[Value]) -> bool {
    let last = events.last().unwrap();
    last["done"] == json!(true)
}

/// The values of all `progress` events.
fn values(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| event["progress"].as_u64())
        .collect()
}

async fn network(members: u8) -> (std::sync::Arc<Node>, Vec<Running>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(members);
    let mut running = Vec::new();
    for seed in 1..=members {
        running.push(start(&node, seed, dir.path()).await);
    }
    (node, running, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_from_its_creation_to_every_members_list() {
    let (_, members, _dir) = network(3).await;
    let created = members[0].command(&creation("c1", "CONT-1")).await;
    assert!(is_done(&created), "{created:?}");
    let last = created.last().unwrap();
    assert_eq!(last["ledger"], json!({"name": "CONT-1", "id": 1}));
    assert!(last.get("progress").is_none() && last.get("message").is_none());
    let progress = values(&created);
    assert!(progress.is_sorted() && progress[0] == 0 && progress.last() == Some(&100));
    for event in &created {
        assert_eq!(event["@id"].as_str().unwrap().len(), 32);
        assert_eq!(event["~thread"]["thid"], "c1");
    }
    let words: Vec<&str> = created
        .iter()
        .filter_map(|event| event["message"].as_str())
        .collect();
    for label in ["Member 1", "Member 2", "Member 3"] {
        assert!(
            words
                .iter()
                .any(|words| words.contains("endorsed by") && words.contains(label))
        );
    }
    // It is there at once, on the member that made it.
    let ledger = members[0].get("/ledgers/1/").await;
    assert_eq!(ledger.status, 200);
    assert_eq!(ledger.json()["metadata"]["actor"]["label"], "SELF");
    let issued = members[1].command(&entry("i1", json!("CONT-1"))).await;
    assert!(is_done(&issued), "{issued:?}");
    assert_eq!(issued.last().unwrap()["ledger"], json!({"name": "CONT-1"}));
    let mut roots = Vec::new();
    for member in &members {
        until("both entries are here", async || {
            member.get("/ledgers/1/transactions").await.json()["count"] == 2
        })
        .await;
        let list = member.get("/ledgers/1/transactions/").await.json();
        let newest = &list["results"][0];
        assert_eq!(newest["seq_no"], 2);
        assert_eq!(newest["metadata"]["seqNo"], 2);
        assert!(newest["metadata"]["txnTime"].is_string());
        assert!(newest["txn"].get("txnMetadata").is_none());
        assert_eq!(newest["txn"]["cargo"], "Арбузы");
        assert_eq!(newest["attachments"], json!([]));
        assert_eq!(newest["signer_label"], "Organisation 2");
        assert_eq!(newest["signer_icon"], "/icons/2.png");
        assert_eq!(newest["status"], "in_way");
        assert_eq!(newest["date"], "01.03.26");
        assert_eq!(list["results"][1]["status"], "started");
        roots.push(member.get("/ledgers/1").await.json()["root_hash"].clone());
        let meta = member.get("/ledgers/1/transactions/list_with_meta").await;
        assert_eq!(meta.status, 200);
        assert_eq!(meta.json()["results"].as_array().unwrap().len(), 2);
        assert!(meta.json()["days_in_way"].is_i64());
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{roots:?}");
    let other = members[1].get("/ledgers/1/").await.json();
    assert_eq!(other["metadata"]["actor"]["label"], "Member 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_credentials_or_wrong_ones_gets_nothing() {
    let (_, members, _dir) = network(2).await;
    let url = &members[0].url;
    let none = ask(url, "GET", "/ledgers/", "", b"").await;
    assert_eq!(none.status, 401);
    assert_eq!(none.header("www-authenticate"), Some("Basic realm=\"api\""));
    assert_eq!(
        none.detail(),
        "Authentication credentials were not provided."
    );
    for login in [
        basic("user1", "wrong horse"),
        // A user of another member.
        basic("user2", PASSWORD),
        "Authorization: Basic !!!\r\n".to_owned(),
        "Authorization: Bearer 00000000000000000000000000000000\r\n".to_owned(),
    ] {
        let denied = ask(url, "GET", "/ledgers/", &login, b"").await;
        assert_eq!(denied.status, 401, "{login}");
        assert_eq!(denied.detail(), "Invalid username/password.");
        let denied = ask(url, "POST", "/upload", &login, b"").await;
        assert_eq!(denied.status, 403);
        assert_eq!(denied.header("www-authenticate"), None);
    }
    assert_eq!(ask(url, "POST", "/upload/", "", b"").await.status, 403);
    for (method, path, status) in [
        ("GET", "/ledgers", 200),
        ("GET", "/ledgers.json", 200),
        ("HEAD", "/ledgers/", 200),
        ("OPTIONS", "/ledgers/", 200),
        ("POST", "/ledgers/", 405),
        ("GET", "/upload", 405),
        ("GET", "/ledgers/abc/", 404),
        ("GET", "/ledgers/7/", 404),
        ("GET", "/ledgers/abc/transactions/", 404),
        ("GET", "/ledgers/7/transactions/", 404),
        ("GET", "/ledgers/7/transactions/1/", 404),
        ("GET", "/ledgers/7/transactions/list_with_meta/", 404),
        ("GET", "/ledgers/?page=9", 404),
        ("GET", "/ledgers/?page=x", 404),
        ("GET", "/nothing/", 404),
        ("GET", "/uploads", 404),
        ("GET", "/operations/unknown/", 404),
        ("GET", "/gu-11/", 200),
        ("GET", "/gu-12/1/", 404),
        ("GET", "/transactions/", 404),
    ] {
        let reply = ask(url, method, path, &members[0].login(), b"").await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        if method == "HEAD" {
            assert!(reply.body.is_empty());
        } else {
            reply.json();
        }
    }
    let invalid = members[0].get("/ledgers/?page=9").await;
    assert_eq!(invalid.detail(), "Invalid page.");
    let options = ask(url, "OPTIONS", "/ledgers/", &members[0].login(), b"").await;
    for name in ["name", "description", "renders", "parses"] {
        assert!(options.json().get(name).is_some());
    }
    let refused = ask(url, "POST", "/ledgers/", &members[0].login(), b"").await;
    assert_eq!(refused.detail(), "Method \"POST\" not allowed.");
    assert!(refused.header("allow").unwrap().contains("GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_needs_its_token_for_what_changes_something() {
    let (_, members, _dir) = network(2).await;
    let url = &members[0].url;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let wrong = ask(url, "POST", "/auth/", form, b"login=user1&password=x").await;
    assert_eq!(
        (wrong.status, wrong.json()["success"].clone()),
        (400, json!(false))
    );
    let right = ask(
        url,
        "POST",
        "/auth/",
        form,
        b"login=user1&password=correct+horse",
    )
    .await;
    assert_eq!(right.status, 200, "{}", right.json());
    let value = |name: &str| {
        let cookies = right
            .headers
            .iter()
            .filter(|(header, _)| header == "set-cookie");
        let found = cookies.filter_map(|(_, cookie)| cookie.split(';').next()?.split_once('='));
        found
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1
            .to_owned()
    };
    let cookies = format!(
        "Cookie: sessionid={}; csrftoken={}\r\n",
        value("sessionid"),
        value("csrftoken")
    );
    let read = ask(url, "GET", "/ledgers/", &cookies, b"").await;
    assert_eq!(read.status, 200);
    let refused = ask(url, "POST", "/maintenance/allocate_token/", &cookies, b"").await;
    assert_eq!(refused.status, 403);
    assert!(refused.detail().starts_with("CSRF Failed: "));
    let with = format!("{cookies}X-CSRFToken: {}\r\n", value("csrftoken"));
    let taken = ask(url, "POST", "/maintenance/allocate_token/", &with, b"").await;
    assert_eq!(taken.json()["token"].as_str().unwrap().len(), 32);
    let elsewhere = format!("{form}Origin: https://elsewhere.example\r\n");
    let refused = ask(
        url,
        "POST",
        "/auth/",
        &elsewhere,
        b"login=user1&password=correct+horse",
    )
    .await;
    assert_eq!(refused.status, 403);
    ask(url, "POST", "/auth/logout/", &with, b"").await;
    assert_eq!(
        ask(url, "GET", "/ledgers/", &cookies, b"").await.status,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_at_the_handshake_and_is_good_for_a_second_socket() {
    let (_, members, _dir) = network(2).await;
    let token = members[0].token().await;
    for wrong in ["", "0", "==", "%20", "00000000000000000000000000000000"] {
        match members[0].socket(wrong).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => {
                assert_eq!(reply.status(), 403, "{wrong}");
            }
            other => panic!("{other:?}"),
        }
    }
    let foreign = members[1].token().await;
    assert!(members[0].socket(&foreign).await.is_err());
    for _ in 0..2 {
        let mut socket = members[0].socket(&token).await.unwrap();
        socket.send(Message::text("{}")).await.unwrap();
        assert_eq!(code(&events(&mut socket).await), "request_error");
    }
    let url = members[0].url.replace("http://", "ws://");
    let url = format!("{url}/transactions?TOKEN=wrong&other=1&Token={token}");
    assert!(tokio_tungstenite::connect_async(url).await.is_ok());
    let elsewhere = format!(
        "{}/elsewhere?token={token}",
        members[0].url.replace("http://", "ws://")
    );
    match tokio_tungstenite::connect_async(elsewhere).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => assert_eq!(reply.status(), 404),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_gets_one_report_and_a_close() {
    let (node, members, _dir) = network(2).await;
    let before = node.entries_of("propose");
    let mut messages: Vec<Message> = ["{", "5", "null", "[]", "true", "\"x\"", "{}"]
        .into_iter()
        .map(Message::text)
        .collect();
    messages.push(Message::binary(vec![0xff, 0xfe]));
    for kind in ["progress", "problem_report", "unknown"] {
        messages.push(Message::text(
            json!({"@type": format!("{TYPES}{kind}")}).to_string(),
        ));
    }
    for (name, value) in [
        ("name", json!("")),
        ("@id", json!(0)),
        ("time_to_live", json!(0)),
        ("time_to_live", json!("20")),
        ("genesis", json!([])),
        ("genesis", json!("x")),
        ("genesis", json!([1])),
    ] {
        let mut message = creation("bad", "CONT-BAD");
        message[name] = value;
        messages.push(Message::text(message.to_string()));
    }
    for name in [
        "no",
        "date",
        "cargo",
        "departure_station",
        "arrival_station",
        "doc_type",
        "ledger",
        "@id",
    ] {
        let mut message = entry("bad", json!("CONT-BAD"));
        message[name] = json!("");
        messages.push(Message::text(message.to_string()));
    }
    for (name, value) in [
        ("waybill", json!({"no": "", "wagon_no": ""})),
        ("doc_type", json!("Wish")),
        ("txnMetadata", json!({"seqNo": 1})),
        ("ledger", json!("CONT-BAD")),
        (
            "~attach",
            json!([{"@id": "d", "mime_type": "a/b", "filename": "f", "data": {"json": {"url": "u"}}}]),
        ),
    ] {
        let mut message = entry("bad", json!("CONT-BAD"));
        message[name] = value;
        messages.push(Message::text(message.to_string()));
    }
    let token = members[0].token().await;
    for message in messages {
        let mut socket = members[0].socket(&token).await.unwrap();
        let shown = format!("{message:?}");
        socket.send(message).await.unwrap();
        let events = events(&mut socket).await;
        assert_eq!(events.len(), 1, "{shown}: {events:?}");
        assert_eq!(code(&events), "request_error", "{shown}");
        assert!(!events[0]["explain"].as_str().unwrap().is_empty());
    }
    assert_eq!(node.entries_of("propose"), before);
    // Both spellings of one type are taken, and an unknown ledger is a later fault.
    for letter in ["\u{421}", "C"] {
        let mut message = entry(&format!("unknown-{letter}"), json!("CONT-BAD"));
        message["doc_type"] = json!(format!("{letter}onnaissement"));
        let events = members[0].command(&message).await;
        assert_eq!(code(&events), "request_processing_error", "{events:?}");
        assert_eq!(values(&events)[0], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_one_transaction_however_often_it_is_sent() {
    let (node, members, _dir) = network(2).await;
    assert!(is_done(&members[0].command(&creation("c", "CONT-1")).await));
    // The node takes it, and its answer is lost.
    node.lose_answers.store(1, Ordering::SeqCst);
    assert!(is_done(
        &members[0].command(&entry("i", json!("CONT-1"))).await
    ));
    let message = entry("j", json!("CONT-1"));
    let (one, two) = tokio::join!(members[0].command(&message), members[0].command(&message));
    assert!(is_done(&one) && is_done(&two), "{one:?} {two:?}");
    let again = members[0].command(&entry("i", json!("CONT-1"))).await;
    assert!(is_done(&again));
    assert_eq!(node.tree("CONT-1").unwrap().1, 3);
    // Two requests with one name are not one request.
    let (mut first, mut second) = (entry("k", json!("CONT-1")), entry("k", json!("CONT-1")));
    first["no"] = json!("first");
    second["no"] = json!("second");
    let (first, second) = tokio::join!(members[0].command(&first), members[0].command(&second));
    assert!(is_done(&first) != is_done(&second), "{first:?} {second:?}");
    assert_eq!(node.tree("CONT-1").unwrap().1, 4);
    let mut other = entry("i", json!("CONT-1"));
    other["no"] = json!("another");
    assert_eq!(code(&members[0].command(&other).await), "request_error");
    let known = members[0].get("/operations/i/").await.json();
    assert_eq!(known["status"], "done");
    // The name is taken, and the ledger stays as it is.
    let root = node.tree("CONT-1");
    let events = members[1].command(&creation("c2", "CONT-1")).await;
    assert_eq!(code(&events), "request_processing_error");
    assert_eq!(node.tree("CONT-1"), root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_nothing() {
    let (node, members, _dir) = network(2).await;
    members[1].down.store(true, Ordering::SeqCst);
    let mut socket = members[0].socket(&members[0].token().await).await.unwrap();
    let message = creation("c", "CONT-1").to_string();
    socket.send(Message::text(message)).await.unwrap();
    until("it is proposed", async || node.entries_of("propose") == 1).await;
    drop(socket);
    members[1].down.store(false, Ordering::SeqCst);
    until("it is committed", async || node.tree("CONT-1").is_some()).await;
    until("its outcome is remembered", async || {
        members[0].get("/operations/c/").await.json()["status"] == "done"
    })
    .await;
    assert!(is_done(&members[0].command(&creation("c", "CONT-1")).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn unanimity_names_who_is_missing_and_a_quorum_goes_on_without() {
    let (node, members, _dir) = network(3).await;
    let mut quorum = creation("q", "QUORUM");
    quorum["policy"] = json!({"at_least": 2});
    assert!(is_done(&members[0].command(&quorum).await));
    assert!(is_done(&members[0].command(&creation("u", "ALL")).await));
    members[2].down.store(true, Ordering::SeqCst);
    assert!(is_done(
        &members[0].command(&entry("q1", json!("QUORUM"))).await
    ));
    let expired = async |id: &str, ledger: Value| {
        let mut message = entry(id, ledger);
        message["time_to_live"] = json!(600);
        let passing = async {
            until("all but one have endorsed it", async || {
                matches!(node.outcome(id), Some(Outcome::Pending(progress))
                    if progress.endorsed.len() == 2 && progress.missing == [did(3)])
            })
            .await;
            node.pass(Duration::from_secs(601));
        };
        tokio::join!(members[0].command(&message), passing).0
    };
    let events = expired("u1", json!("ALL")).await;
    assert_eq!(code(&events), "request_processing_error", "{events:?}");
    let report = events.last().unwrap();
    assert_eq!(report["participants"], json!([did(3).to_string()]));
    assert_eq!(report["stage"], "endorsing");
    let explain = report["explain"].as_str().unwrap();
    assert!(
        explain.contains("Member 3") && explain.contains("expired"),
        "{explain}"
    );
    assert_eq!(values(&events).last(), Some(&100));
    // Several ledgers at once: all or none.
    let both = expired("both", json!(["ALL", "QUORUM"])).await;
    assert!(!is_done(&both));
    assert_eq!(node.tree("QUORUM").unwrap().1, 2);
    assert_eq!(node.pending(), 0);
    members[2].down.store(false, Ordering::SeqCst);
    let both = entry("both-again", json!(["ALL", "QUORUM"]));
    let events = members[0].command(&both).await;
    assert!(is_done(&events), "{events:?}");
    assert_eq!(
        events.last().unwrap()["ledger"]["name"],
        json!(["ALL", "QUORUM"])
    );
    for name in ["ALL", "QUORUM"] {
        let id = match name {
            "QUORUM" => 1,
            _ => 2,
        };
        until("the member has caught up", async || {
            let mirrored = members[2].get(&format!("/ledgers/{id}/")).await.json();
            mirrored["root_hash"] == json!(node.tree(name).unwrap().0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_reported_in_time_and_the_operation_goes_on() {
    let (node, members, _dir) = network(2).await;
    let socket_token = members[0].token().await;
    node.down.store(true, Ordering::SeqCst);
    let mut socket = members[0].socket(&socket_token).await.unwrap();
    let mut message = creation("c", "CONT-1");
    message["time_to_live"] = json!(1);
    socket
        .send(Message::text(message.to_string()))
        .await
        .unwrap();
    let events = events(&mut socket).await;
    assert_eq!(code(&events), "request_processing_error");
    assert_eq!(events.last().unwrap()["stage"], "proposing");
    assert!(
        events.last().unwrap()["explain"]
            .as_str()
            .unwrap()
            .contains("/operations/c/")
    );
    assert_eq!(
        members[0].get("/operations/c/").await.json()["status"],
        "running"
    );
    node.down.store(false, Ordering::SeqCst);
    until("its outcome is known", async || {
        members[0].get("/operations/c/").await.json()["status"] == "failed"
    })
    .await;
    assert_eq!(node.tree("CONT-1"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_come_back_as_they_were_sent_and_attachments_must_match_them() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let reply = one.upload("Акт 7.PDF", b"hello world").await;
    assert_eq!(reply.status, 200);
    let document = reply.json();
    assert_eq!(document["md5"], "5eb63bbbe01eeed093cb22bb8f5acdc3");
    assert_eq!(document["filename"], "Акт 7.PDF");
    let url = document["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&one.url).unwrap().to_owned();
    assert!(path.starts_with("/content/") && path.ends_with(".pdf"));
    let back = one.get(&path).await;
    assert_eq!(
        (back.status, back.body.as_slice()),
        (200, &b"hello world"[..])
    );
    assert_eq!(back.header("x-content-type-options"), Some("nosniff"));
    assert!(
        back.header("content-disposition")
            .unwrap()
            .starts_with("attachment")
    );
    assert!(
        back.header("content-security-policy")
            .unwrap()
            .contains("sandbox")
    );
    let tag = back.header("etag").unwrap();
    let ranged = format!("{}Range: bytes=6-\r\n", one.login());
    let part = ask(&one.url, "GET", &path, &ranged, b"").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &b"world"[..]));
    assert_eq!(part.header("content-range"), Some("bytes 6-10/11"));
    let known = format!("{}If-None-Match: {tag}\r\n", one.login());
    assert_eq!(ask(&one.url, "GET", &path, &known, b"").await.status, 304);
    assert_eq!(ask(&one.url, "GET", &path, "", b"").await.status, 401);
    let missing = one.get("/content/00.pdf").await;
    assert_eq!((missing.status, missing.json()), (404, json!("Not Found")));
    let headers = format!(
        "{}Content-Type: multipart/form-data; boundary=B\r\n",
        one.login()
    );
    let none = ask(&one.url, "POST", "/upload", &headers, b"--B--\r\n").await;
    assert_eq!(
        (none.status, none.json()),
        (400, json!("Expected file value"))
    );
    let cut = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf";
    assert_eq!(
        ask(&one.url, "POST", "/upload", &headers, cut).await.status,
        400
    );

    assert!(is_done(&one.command(&creation("c", "CONT-1")).await));
    let with = |id: &str, url: &str, md5: &str| {
        let mut message = entry(id, json!("CONT-1"));
        message["~attach"] = json!([{"@id": "document-0", "mime_type": "application/pdf", "filename": "a.pdf",
            "data": {"json": {"url": url, "md5": md5}}}]);
        message
    };
    let md5 = document["md5"].as_str().unwrap();
    let wrong = one
        .command(&with("w", &url, "00000000000000000000000000000000"))
        .await;
    assert_eq!(code(&wrong), "request_error");
    let unknown = one
        .command(&with("v", &format!("{}/content/11.pdf", one.url), md5))
        .await;
    assert_eq!(code(&unknown), "request_error");
    let right = one.command(&with("r", &url, md5)).await;
    assert!(is_done(&right), "{right:?}");
    let newest = one.get("/ledgers/1/transactions/2").await.json();
    assert_eq!(
        newest["attachments"][0]["data"]["json"]["sha256"],
        document["sha256"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_ledger_reads_its_documents_and_nobody_else_does() {
    let (node, members, _dir) = network(3).await;
    let (one, two, three) = (&members[0], &members[1], &members[2]);
    let mut creating = creation("c", "CONT-1");
    creating["group"] = json!([did(1).to_string(), did(2).to_string()]);
    assert!(is_done(&one.command(&creating).await));
    let document = one.upload("a.pdf", b"a document").await.json();
    let url = document["url"].as_str().unwrap();
    let path = url.strip_prefix(&one.url).unwrap();
    let mut message = entry("i", json!("CONT-1"));
    message["~attach"] = json!([{"@id": "document-0", "mime_type": "application/pdf", "filename": "a.pdf",
        "data": {"json": {"url": url, "md5": document["md5"]}}}]);
    assert!(is_done(&one.command(&message).await));
    until("the other has the entry", async || {
        two.get("/ledgers/1/").await.json()["size"] == 2
    })
    .await;
    // An address that its signer does not vouch for is not asked.
    let unknown = two.get(path).await;
    assert_eq!(unknown.status, 502);
    assert!(
        unknown.detail().contains("endpoint"),
        "{}",
        unknown.detail()
    );
    announce(&node, 1, &one.url);
    until("the document is brought", async || {
        two.get(path).await.status == 200
    })
    .await;
    assert_eq!(two.get(path).await.body, b"a document");
    assert_eq!(three.get(path).await.status, 404);
    // A copy is kept: it is there when its owner is not.
    let kept = two.get(path).await;
    assert_eq!(
        kept.header("etag").unwrap(),
        format!("\"{}\"", document["sha256"].as_str().unwrap())
    );
    for wrong in [
        "Authorization: Member AAAA\r\n",
        "Authorization: Member \r\n",
    ] {
        assert_eq!(ask(&one.url, "GET", path, wrong, b"").await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_documents_reach_every_member_and_the_socket_closes() {
    let (_, members, _dir) = network(3).await;
    let plan = |kind: &str, id: &str| {
        json!({"@type": format!("{TYPES}{kind}"), "@id": id, "no": "GU-1", "date": "02/03/2026",
            "cargo_name": "Groupage", "depart_station": "Almaty-1", "arrival_station": "Poti",
            "month": "March", "year": "2026", "tonnage": "22", "shipper": "Steppe", "decade": "2",
            "~attach": [{"filename": "p.pdf", "mime_type": "application/pdf", "data": {"json": {"url": "u", "md5": "m"}}}]})
    };
    let sent = members[0].command(&plan("gu-11", "g")).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0]["progress"].clone(), sent[0]["done"].clone()),
        (json!(100), json!(true))
    );
    assert!(is_done(&members[0].command(&plan("gu-11", "g")).await));
    assert!(is_done(&members[1].command(&plan("gu-12", "g")).await));
    for member in &members {
        until("both have arrived", async || {
            let count = |list: Reply| list.json()["count"].as_u64().unwrap();
            count(member.get("/gu-11/").await) == 1 && count(member.get("/gu-12/").await) == 1
        })
        .await;
        let listed = member.get("/gu-11/").await.json()["results"][0].clone();
        assert_eq!(listed["decade"], "2");
        assert_eq!(listed["attachments"][0]["filename"], "p.pdf");
        assert!(member.get("/gu-12/1/").await.json().get("decade").is_none());
    }
    let mut long = plan("gu-11", "h");
    long["shipper"] = json!("x".repeat(129));
    assert_eq!(code(&members[0].command(&long).await), "request_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_send_plan_documents_and_make_users_for_those_who_may() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let plan = json!({"no": "1", "date": "d", "cargo_name": "c", "depart_station": "a", "arrival_station": "b",
        "month": "March", "year": "2026", "tonnage": "22", "shipper": "s", "decade": "2",
        "attachments": r#"[{"url":"u","md5":"m","filename":"f","mime_type":"t"}]"#});
    assert_eq!(
        ask(&one.url, "POST", "/create-gu11/", "", b"{}")
            .await
            .status,
        401
    );
    let sent = one.post("/create-gu12/", plan.to_string().as_bytes()).await;
    assert_eq!(sent.json(), json!({"success": true, "errors": null}));
    until("the other has it", async || {
        members[1].get("/gu-12/").await.json()["count"] == 1
    })
    .await;
    let listed = members[1].get("/gu-12/1").await.json();
    assert_eq!(
        listed["attachments"],
        json!([{"url": "u", "md5": "m", "filename": "f", "mime_type": "t"}])
    );
    let mut lacking = plan.clone();
    lacking["decade"] = json!("");
    lacking["shipper"] = json!("x".repeat(129));
    let refused = one
        .post("/create-gu12", lacking.to_string().as_bytes())
        .await
        .json();
    assert_eq!(refused["success"], false);
    assert!(refused["errors"]["decade"].is_string() && refused["errors"]["shipper"].is_string());

    let user = json!({"username": "new", "password": "quite long", "first_name": "New"});
    let made = one
        .post("/user-create/", user.to_string().as_bytes())
        .await
        .json();
    assert_eq!(
        made["account"],
        json!({"username": "new", "first_name": "New", "last_name": ""})
    );
    let again = one
        .post("/user-create/", user.to_string().as_bytes())
        .await
        .json();
    assert!(again["errors"]["username"].is_string(), "{again}");
    let headers = format!(
        "{}Content-Type: application/json\r\n",
        basic("new", "quite long")
    );
    let denied = ask(&one.url, "POST", "/user-create/", &headers, b"{}").await;
    assert_eq!(denied.status, 403);
    let short = json!({"username": "other", "password": "x", "first_name": "O"});
    let short = one
        .post("/user-create/", short.to_string().as_bytes())
        .await
        .json();
    assert!(short["errors"]["password"].is_string(), "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_names_who_does_not_answer() {
    let (_, members, _dir) = network(3).await;
    for member in &members {
        until("it knows the members and hears them", async || {
            let known = member.get("/members/").await.json();
            known["results"].as_array().unwrap().len() == 3 && member.listens.load(Ordering::SeqCst)
        })
        .await;
    }
    let mut well = json!(null);
    until("all answer", async || {
        let reply = members[0].get("/maintenance/check_health/").await;
        well = reply.json();
        reply.status == 200
    })
    .await;
    assert_eq!(well["message"], "OK");
    assert_eq!(well["participants"].as_object().unwrap().len(), 2);
    until("the second has heard the third, too", async || {
        let known = members[1].get("/members/").await.json();
        let mut known = known["results"].as_array().unwrap().iter();
        known.any(|member| member["did"] == did(3).to_string() && member["last_heard"].is_string())
    })
    .await;
    members[2].down.store(true, Ordering::SeqCst);
    let ill = members[1].get("/maintenance/check_health").await;
    assert_eq!(ill.status, 503);
    let answer = ill.json();
    assert_eq!(answer["success"], false);
    assert!(answer["message"].as_str().unwrap().contains("Member 3"));
    let missing = &answer["participants"][did(3).to_string()];
    assert_eq!(missing["ok"], false);
    assert!(missing["last_heard"].is_string(), "{missing}");
    let probe = ask(
        &members[1].url,
        "GET",
        "/maintenance/check_health/",
        "",
        b"",
    )
    .await;
    assert_eq!(probe.status, 503);
    assert!(probe.json().get("participants").is_none());
    assert!(!probe.json()["message"].as_str().unwrap().contains("Member"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_fails_before_the_member_has_read_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    node.down.store(true, Ordering::SeqCst);
    let one = start(&node, 1, dir.path()).await;
    let early = one.get("/maintenance/check_health/").await;
    assert_eq!(early.status, 503);
    let message = early.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("read of itself"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_no_token_and_no_user_and_decides_nothing() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let bearer = format!("Authorization: Bearer {}\r\n", one.token().await);
    for (method, path, status) in [
        ("GET", "/ledgers/", 200),
        ("GET", "/proposals/", 200),
        ("GET", "/maintenance/allocate_token/", 403),
        ("POST", "/maintenance/allocate_token/", 403),
        ("POST", "/user-create/", 403),
        ("POST", "/proposals/00/endorse/", 403),
        ("POST", "/proposals/00/refuse/", 403),
    ] {
        let reply = ask(&one.url, method, path, &bearer, b"").await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_a_ledger_gets_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(3);
    let mut members = Vec::new();
    for seed in 1..=3 {
        let willing = |settings: &mut daybook_member::Settings| {
            settings.rules.members = Answer::Endorse;
        };
        members.push(start_with(&node, seed, dir.path(), willing).await);
    }
    assert!(is_done(&members[0].command(&creation("c", "CONT-1")).await));
    let regroup = async |request: &str, seeds: &[u8]| {
        let body = Body::Propose(Propose {
            member: did(1),
            request: request.to_owned(),
            deadline: daybook_ledger::BlockTime(daybook_member::system_clock() + 300_000),
            action: Action::Regroup {
                ledger: "CONT-1".to_owned(),
                participants: seeds.iter().map(|seed| did(*seed)).collect(),
                policy: Policy::Unanimous,
            },
        });
        node.ask(&body, 1).unwrap();
        until("it is agreed", async || {
            matches!(node.outcome(request), Some(Outcome::Decided(_)))
        })
        .await;
    };
    regroup("without", &[1, 2]).await;
    for id in ["missed-1", "missed-2"] {
        assert!(is_done(
            &members[0].command(&entry(id, json!("CONT-1"))).await
        ));
    }
    regroup("with", &[1, 2, 3]).await;
    assert!(is_done(
        &members[0].command(&entry("seen", json!("CONT-1"))).await
    ));
    until("everything is there", async || {
        let list = members[2].get("/ledgers/1/transactions/").await.json();
        let rows = list["results"].as_array().unwrap().iter();
        rows.map(|row| row["seq_no"].as_u64().unwrap())
            .eq([4, 3, 2, 1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_or_a_program_may_refuse_with_a_reason_that_the_proposer_reads() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(3);
    let one = start(&node, 1, dir.path()).await;
    let by_hand = start_with(&node, 2, dir.path(), |settings| {
        settings.rules.entries = Answer::Ask;
    })
    .await;
    let _program = start_with(&node, 3, dir.path(), |settings| {
        settings.check = Some(daybook_member::Check {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".to_owned(),
                "grep -q Dynamite || exit 0; echo no explosives; exit 1".to_owned(),
            ],
            within: Duration::from_secs(60),
        });
    })
    .await;
    let mut creating = creation("c", "CONT-1");
    creating["genesis"][0]["cargo"] = json!("Dynamite");
    creating["time_to_live"] = json!(600);
    let refused = one.command(&creating).await;
    let report = refused.last().unwrap();
    assert_eq!(report["problem-code"], "request_processing_error");
    assert!(
        report["explain"]
            .as_str()
            .unwrap()
            .contains("no explosives"),
        "{report}"
    );
    assert_eq!(report["participants"], json!([did(3).to_string()]));
    // What is sound waits for a person.
    let asking = async { one.command(&creation("d", "CONT-2")).await };
    let deciding = async {
        let mut id = String::new();
        until("a person is asked", async || {
            let waiting = by_hand.get("/proposals/").await.json();
            match waiting["results"].get(0) {
                Some(first) if first["ledgers"] == json!(["CONT-2"]) => {
                    id = first["proposal"].as_str().unwrap().to_owned();
                    assert_eq!(first["entries"][0]["cargo"], "Арбузы");
                    true
                }
                _ => false,
            }
        })
        .await;
        let no_reason = by_hand
            .post(&format!("/proposals/{id}/refuse"), b"{}")
            .await;
        assert_eq!(no_reason.status, 400);
        let said = by_hand
            .post(&format!("/proposals/{id}/endorse/"), b"")
            .await;
        assert_eq!(
            (said.status, said.json()["decision"].clone()),
            (200, json!("endorsed"))
        );
    };
    let (done, ()) = tokio::join!(asking, deciding);
    assert!(is_done(&done), "{done:?}");
    assert_eq!(by_hand.post("/proposals/00/endorse", b"").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_starts_again_takes_up_what_it_had_begun_and_says_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    let two = start(&node, 2, dir.path()).await;
    two.down.store(true, Ordering::SeqCst);
    let mut socket = one.socket(&one.token().await).await.unwrap();
    let mut message = creation("c", "CONT-1");
    message["time_to_live"] = json!(300);
    socket
        .send(Message::text(message.to_string()))
        .await
        .unwrap();
    until("it is proposed", async || node.entries_of("propose") == 1).await;
    drop(socket);
    one.stop().await;
    two.down.store(false, Ordering::SeqCst);
    until("it is committed", async || node.tree("CONT-1").is_some()).await;
    let one = start(&node, 1, dir.path()).await;
    until("its outcome is known", async || {
        one.get("/operations/c/").await.json()["status"] == "done"
    })
    .await;
    assert_eq!(node.entries_of("propose"), 1);
    // A mirror that is gone is made again from the log, the same as before.
    let before = one.get("/ledgers/1/").await.json();
    let transactions = one.get("/ledgers/1/transactions/").await.json()["results"].clone();
    let folder = one.folder.clone();
    one.stop().await;
    std::fs::remove_file(folder.join("mirror.redb")).unwrap();
    let one = start(&node, 1, dir.path()).await;
    until("the mirror is made again", async || {
        one.get("/ledgers/1/").await.status == 200
    })
    .await;
    assert_eq!(one.get("/ledgers/1/").await.json(), before);
    assert_eq!(
        one.get("/ledgers/1/transactions/").await.json()["results"],
        transactions
    );
    assert!(is_done(&one.command(&message).await));
    assert_eq!(node.entries_of("propose"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_of_a_hundred() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    for number in 0..213 {
        let events = one
            .command(&creation(&format!("c{number}"), &format!("test_{number}")))
            .await;
        assert!(is_done(&events), "{events:?}");
    }
    let two = one.get("/ledgers/?page=2").await.json();
    assert_eq!(two["results"].as_array().unwrap().len(), 100);
    assert_eq!(two["count"], 213);
    assert_eq!(two["next"], format!("{}/ledgers/?page=3", one.url));
    assert_eq!(two["previous"], format!("{}/ledgers/", one.url));
    assert_eq!(two["results"][0]["name"], "test_112");
    let last = one.get("/ledgers/?page=last").await.json();
    assert_eq!(last["results"].as_array().unwrap().len(), 13);
    assert_eq!(last["next"], Value::Null);
    assert_eq!(one.get("/ledgers/?page=9").await.status, 404);
    let meta = one.get("/ledgers/list_with_meta/").await.json();
    assert_eq!(meta["results"][0]["status"], "started");
    assert_eq!(meta["results"][0]["size"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_for_a_hundred_ledgers_changes_none_when_one_of_them_is_busy() {
    let (node, members, _dir) = network(2).await;
    let names: Vec<String> = (0..100).map(|number| format!("CONT-{number}")).collect();
    for name in &names {
        assert!(is_done(&members[0].command(&creation(name, name)).await));
    }
    let proposed = node.entries_of("propose");
    members[1].down.store(true, Ordering::SeqCst);
    // One of them waits for an answer that does not come.
    let mut socket = members[0].socket(&members[0].token().await).await.unwrap();
    let mut busy = entry("busy", json!("CONT-57"));
    busy["time_to_live"] = json!(600);
    socket.send(Message::text(busy.to_string())).await.unwrap();
    until("it is proposed", async || {
        node.entries_of("propose") == proposed + 1
    })
    .await;
    let mut all = entry("all", json!(names));
    all["time_to_live"] = json!(300);
    let passing = async {
        until("it waits for the other", async || {
            matches!(node.outcome("all"), Some(Outcome::Pending(progress))
                if matches!(progress.status, ProposalStatus::Waiting { .. }))
        })
        .await;
        node.pass(Duration::from_secs(301));
    };
    let (events, ()) = tokio::join!(members[0].command(&all), passing);
    assert_eq!(code(&events), "request_processing_error");
    assert_eq!(events.last().unwrap()["stage"], "waiting");
    for name in &names {
        assert_eq!(node.tree(name).unwrap().1, 1, "{name}");
    }
    members[1].down.store(false, Ordering::SeqCst);
    assert!(is_done(&crate::events(&mut socket).await));
    let mut again = entry("again", json!(names));
    again["time_to_live"] = json!(600);
    assert!(is_done(&members[0].command(&again).await));
    for name in &names {
        assert_eq!(
            node.tree(name).unwrap().1,
            if name == "CONT-57" { 3 } else { 2 }
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_ledgers_may_be_anything_and_do_nothing() {
    let (_, members, _dir) = network(2).await;
    for (number, name) in [
        "'; DROP TABLE ledgers; --".to_owned(),
        "$(touch never) `id` a/b, \"c\" ..".to_owned(),
        "контейнер-№1".to_owned(),
        "я".repeat(512),
    ]
    .into_iter()
    .enumerate()
    {
        let events = members[0]
            .command(&creation(&format!("c{number}"), &name))
            .await;
        assert!(is_done(&events), "{events:?}");
        let id = events.last().unwrap()["ledger"]["id"].as_u64().unwrap();
        assert_eq!(
            members[0].get(&format!("/ledgers/{id}")).await.json()["name"],
            json!(name)
        );
    }
    let long = members[0]
        .command(&creation("long", &"я".repeat(513)))
        .await;
    assert_eq!(code(&long), "request_error");
}
