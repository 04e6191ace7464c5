//! An organisation's program: it asks over HTTP, and sends its requests over sockets.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use daybook_member::{
    Hosted, Identity, Member, Settings, UsersError, change_users, new_user, serve, users_file,
    users_text,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::common::*;

pub const TYPES: &str = "https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/";

/// An answer: status, headers in lower case, body.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

pub fn basic(name: &str, password: &str) -> String {
    let pair = STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

pub async fn ask(url: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
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

pub fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
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
    pub fn login(&self) -> String {
        basic(&format!("user{}", self.seed), PASSWORD)
    }

    pub async fn get(&self, path: &str) -> Reply {
        ask(&self.url, "GET", path, &self.login(), b"").await
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> Reply {
        let headers = format!("{}Content-Type: application/json\r\n", self.login());
        ask(&self.url, "POST", path, &headers, body).await
    }

    pub async fn token(&self) -> String {
        let reply = self.get("/maintenance/allocate_token/").await;
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// Sends one request over a socket of its own; gives all events, after the close with 1000.
    pub async fn command(&self, message: &Value) -> Vec<Value> {
        command(&self.url, &self.login(), message).await
    }

    pub async fn socket(
        &self,
        token: &str,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let url = self.url.replace("http://", "ws://");
        let url = format!("{url}/transactions?token={token}");
        Ok(tokio_tungstenite::connect_async(url).await?.0)
    }

    pub async fn upload(&self, name: &str, content: &[u8]) -> Reply {
        upload(&self.url, &self.login(), name, content).await
    }
}

/// Sends one request over a socket of its own; gives all events, after the close with 1000.
pub async fn command(url: &str, login: &str, message: &Value) -> Vec<Value> {
    let token = ask(url, "GET", "/maintenance/allocate_token/", login, b"").await;
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let url = url.replace("http://", "ws://");
    let url = format!("{url}/transactions?token={token}");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let text = Message::text(message.to_string());
    socket.send(text).await.unwrap();
    events(&mut socket).await
}

pub async fn upload(url: &str, login: &str, name: &str, content: &[u8]) -> Reply {
    let mut body = format!(
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--B--\r\n");
    let headers = format!("{login}Content-Type: multipart/form-data; boundary=B\r\n");
    ask(url, "POST", "/upload", &headers, &body).await
}

pub type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

/// A message of a plan document.
pub fn plan(kind: &str, id: &str) -> Value {
    json!({"@type": format!("{TYPES}{kind}"), "@id": id, "no": "GU-1", "date": "02/03/2026",
        "cargo_name": "Groupage", "depart_station": "Almaty-1", "arrival_station": "Poti",
        "month": "March", "year": "2026", "tonnage": "22", "shipper": "Steppe", "decade": "2",
        "~attach": [{"filename": "p.pdf", "mime_type": "application/pdf", "data": {"json": {"url": "u", "md5": "m"}}}]})
}

/// An entry with one attachment.
pub fn attaching(id: &str, ledger: &str, url: &str, md5: &str) -> Value {
    let mut message = entry(id, json!(ledger));
    message["~attach"] = json!([{"@id": "document-0", "mime_type": "application/pdf", "filename": "a.pdf",
        "data": {"json": {"url": url, "md5": md5}}}]);
    message
}

/// Everything up to the close, which must be 1000.
pub async fn events(socket: &mut Socket) -> Vec<Value> {
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

pub fn entry(id: &str, ledger: Value) -> Value {
    json!({
        "@type": format!("{TYPES}issue-transaction"), "@id": id, "no": "WB-1", "date": "01.03.26",
        "cargo": "Арбузы", "departure_station": "Balkhash", "arrival_station": "Aktau-Port",
        "doc_type": "WayBill", "ledger": {"name": ledger}, "waybill": {"no": "118-K"},
    })
}

pub fn creation(id: &str, name: &str) -> Value {
    json!({
        "@type": format!("{TYPES}create-ledger"), "@id": id, "name": name, "time_to_live": 60,
        "genesis": [entry(&format!("{id}-genesis"), json!(name))],
    })
}

pub fn code(events: &[Value]) -> &str {
    let last = events.last().unwrap();
    last["problem-code"].as_str().unwrap_or("")
}

pub fn is_done(events: &[Value]) -> bool {
    let last = events.last().unwrap();
    last["done"] == json!(true)
}

/// The values of all `progress` events.
pub fn values(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| event["progress"].as_u64())
        .collect()
}

pub async fn network(members: u8) -> (Arc<Node>, Vec<Running>, tempfile::TempDir) {
    let node = Node::new(members);
    let (members, dir) = members_of(&node, members, |_| {}).await;
    (node, members, dir)
}

/// The members of a network, all with the same settings.
pub async fn members_of(
    node: &Arc<Node>,
    members: u8,
    change: impl Fn(&mut Settings),
) -> (Vec<Running>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    for seed in 1..=members {
        running.push(start_with(node, seed, dir.path(), &change).await);
    }
    (running, dir)
}

/// Members that one process serves at one address; each has the user of its number.
pub async fn house(node: &Arc<Node>, seeds: &[u8], folder: &Path) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let mut members = Vec::new();
    for seed in seeds {
        let folder = folder.join(format!("hosted-{seed}"));
        std::fs::create_dir_all(&folder).unwrap();
        let user = new_user(&format!("user{seed}"), PASSWORD, true, 1).unwrap();
        std::fs::write(users_file(&folder), users_text(vec![user])).unwrap();
        let identity = Identity {
            did: did(*seed),
            key: key(*seed),
        };
        let wire = Wire {
            seed: *seed,
            node: node.clone(),
            down: Arc::default(),
            listens: Arc::default(),
        };
        let settings = Settings::new(folder, url.clone());
        let member = Member::start(identity, &genesis(), Arc::new(wire), settings);
        members.push(member.unwrap());
    }
    let hosted = Arc::new(Hosted::new(members, None));
    tokio::spawn(serve(socket, None, hosted, std::future::pending()));
    url
}

/// Adds a user to a member that runs.
pub fn add_user(member: &Running, name: &str, password: &str) {
    let user = new_user(name, password, false, 1).unwrap();
    change_users(&users_file(&member.folder), |users| {
        users.push(user);
        Ok::<(), UsersError>(())
    })
    .unwrap();
}
