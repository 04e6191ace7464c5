//! A node with its gateway on ports of its own, and clients that show every byte of an answer.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use daybook_gateway::{Listener, Serves, Settings, serve};
use daybook_ledger::{
    AssetId, BlockTime, Draft, OutputRef, SigningKey, Transaction, TransactionId,
    block::{Genesis, Validator},
    json::{Object, Value as LedgerValue},
};
use daybook_pipeline::{Node, Running, StartOptions};
use daybook_store::{Options, disk::RealDisk};
use daybook_wire::assets::Dialect;
use rustls::ServerConfig;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// No answer takes this long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running node.
pub struct TestNode {
    pub node: Node,
    /// The whole API.
    pub api: SocketAddr,
    /// The same ledger in the shapes of Planetmint 2.2 and later.
    pub v2: SocketAddr,
    /// The streams alone.
    pub streams: SocketAddr,
    running: Option<Running>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    runtime: Option<Runtime>,
    _folder: TempDir,
}

impl TestNode {
    pub fn start() -> TestNode {
        TestNode::with(Settings::default())
    }

    pub fn with(settings: Settings) -> TestNode {
        TestNode::with_tls(settings, None)
    }

    pub fn with_tls(settings: Settings, tls: Option<Arc<ServerConfig>>) -> TestNode {
        TestNode::with_options(settings, tls, |_| {})
    }

    pub fn with_options(
        settings: Settings,
        tls: Option<Arc<ServerConfig>>,
        change: impl FnOnce(&mut StartOptions),
    ) -> TestNode {
        let folder = tempfile::tempdir().unwrap();
        let proposer = SigningKey::from_seed([9; 32]);
        let genesis = Genesis {
            chain: "gateway-test".into(),
            time: BlockTime(1),
            validators: vec![Validator {
                key: proposer.public_key(),
                power: 10,
            }],
        };
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::default()
        };
        let (store, writer, _) =
            daybook_store::open(folder.path(), Arc::new(RealDisk), &genesis, options).unwrap();
        let mut options = StartOptions::new(proposer);
        change(&mut options);
        let (node, running) = daybook_pipeline::start(store, writer, options).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let bind = |serves, dialect, tls| {
            let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            (
                socket.local_addr().unwrap(),
                Listener {
                    socket,
                    serves,
                    dialect,
                    tls,
                },
            )
        };
        let (api, first) = bind(Serves::Api, Dialect::Classic, tls);
        let (v2, second) = bind(Serves::Api, Dialect::V2, None);
        let (streams, third) = bind(Serves::Streams, Dialect::Classic, None);
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn(serve(
            vec![first, second, third],
            node.clone(),
            settings,
            async {
                let _ = stopped.await;
            },
        ));
        TestNode {
            node,
            api,
            v2,
            streams,
            running: Some(running),
            stop: Some(stop),
            serving: Some(serving),
            runtime: Some(runtime),
            _folder: folder,
        }
    }

    /// A new connection to the whole API.
    pub fn client(&self) -> Client {
        Client::to(self.api)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    /// Posts a transaction and waits until it is committed.
    pub fn commit(&self, transaction: &Transaction) -> Answer {
        self.post("commit", transaction.canonical())
    }

    pub fn post(&self, mode: &str, body: &[u8]) -> Answer {
        let path = format!("/api/v1/transactions?mode={mode}");
        self.client().request("POST", &path, &[], body)
    }

    /// Commits a transaction that must be fine.
    pub fn committed(&self, transaction: Transaction) -> Transaction {
        let answer = self.commit(&transaction);
        assert_eq!(answer.status, 202, "{}", answer.text());
        transaction
    }

    pub fn subscribe(&self, path_and_query: &str) -> Subscriber {
        Subscriber::open(self.streams, path_and_query).unwrap()
    }

    /// Stops the node behind the gateway, which goes on.
    pub fn stop_behind(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().unwrap();
        }
    }

    /// Stops the gateway as a node does, and waits for it.
    pub fn stop_gateway(&mut self) {
        drop(self.stop.take());
        if let (Some(serving), Some(runtime)) = (self.serving.take(), &self.runtime) {
            runtime.block_on(serving).unwrap().unwrap();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop_gateway();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Some(running) = self.running.take() {
            let stopped = running.stop();
            if !thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

/// A kept-alive connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    pub host: String,
}

/// An answer, down to its reason phrase.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap(), address)
    }

    /// A client that has hardly room for what it does not read.
    pub fn with_small_buffer(address: SocketAddr) -> Client {
        Client::over(with_small_buffer(address), address)
    }

    fn over(stream: TcpStream, address: SocketAddr) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream: BufReader::new(stream),
            host: format!("localhost:{}", address.port()),
        }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(method, path, headers, body);
        self.answer(method == "HEAD")
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head += &format!("Host: {}\r\n", self.host);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.raw(&[head.as_bytes(), body].concat());
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub fn answer(&mut self, head_only: bool) -> Answer {
        let mut answer = self.head();
        if head_only || answer.status == 101 {
            return answer;
        }
        if answer
            .headers
            .get("transfer-encoding")
            .is_some_and(|coding| coding == "chunked")
        {
            while let Some(chunk) = self.chunk() {
                answer.body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = answer.headers.get("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    pub fn head(&mut self) -> Answer {
        let status_line = self.line();
        let mut parts = status_line.splitn(3, ' ');
        assert_eq!(parts.next(), Some("HTTP/1.1"), "{status_line:?}");
        let status = parts.next().unwrap().parse().unwrap();
        let reason = parts.next().unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Answer {
            status,
            reason,
            headers,
            body: Vec::new(),
        }
    }

    /// One chunk of a chunked body; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).unwrap();
        assert_eq!(self.line(), "");
        (length > 0).then_some(chunk)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether the node closed the connection, having nothing more to say.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The message of an error body of the first shape, checked to be that and nothing else.
    pub fn message(&self) -> String {
        let json = self.json();
        assert_eq!(json["status"], self.status, "{}", self.text());
        assert!(self.text().starts_with("{\"message\""), "{}", self.text());
        json["message"].as_str().unwrap().to_owned()
    }
}

/// A subscriber to a stream, or a submitting socket.
pub struct Subscriber(pub WebSocket<TcpStream>);

impl Subscriber {
    /// # Errors
    /// The status with which the handshake was refused.
    pub fn open(address: SocketAddr, path_and_query: &str) -> Result<Subscriber, Answer> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Subscriber::over(stream, address, path_and_query)
    }

    /// A subscriber that has hardly room for what it does not read.
    pub fn with_small_buffer(address: SocketAddr, path_and_query: &str) -> Subscriber {
        let stream = with_small_buffer(address);
        Subscriber::over(stream, address, path_and_query).unwrap()
    }

    fn over(
        stream: TcpStream,
        address: SocketAddr,
        path_and_query: &str,
    ) -> Result<Subscriber, Answer> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://localhost:{}{path_and_query}", address.port());
        match tungstenite::client(url, stream) {
            Ok((socket, _)) => Ok(Subscriber(socket)),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(Answer {
                    status: response.status().as_u16(),
                    reason: String::new(),
                    headers: BTreeMap::new(),
                    body: response.into_body().unwrap_or_default(),
                })
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The text of the next frame.
    pub fn text(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a text: {other:?}"),
            }
        }
    }

    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    pub fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The code with which the node closes.
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(Message::Close(None)) => return 1005,
                Ok(_) => {}
                Err(error) => panic!("closed without a word: {error}"),
            }
        }
    }
}

fn with_small_buffer(address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

/// The made-up people of the tests.
pub fn alice() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

pub fn bob() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

/// A CREATE by Alice of `amount` units; `name` makes it another one.
pub fn create(name: &str, amount: u64) -> Transaction {
    Draft::create(Object::from_iter([("name", name)]))
        .output(amount, &alice())
        .sign(&[&alice()])
        .unwrap()
}

/// A TRANSFER of a whole output from one owner to another.
pub fn transfer(
    asset: AssetId,
    output: OutputRef,
    amount: u64,
    from: &SigningKey,
    to: &SigningKey,
) -> Transaction {
    Draft::transfer(asset)
        .spend(output, from)
        .output(amount, to)
        .sign(&[from])
        .unwrap()
}

/// The first output of a transaction moved on.
pub fn sale(of: &Transaction, amount: u64, from: &SigningKey, to: &SigningKey) -> Transaction {
    transfer(of.asset(), of.output_ref(0), amount, from, to)
}

/// A transaction's text as a value that can be changed, for what a draft does not make.
pub fn value(transaction: &Transaction) -> Value {
    serde_json::from_slice(transaction.canonical()).unwrap()
}

/// Gives a changed transaction its true id again, signatures left as they are.
pub fn rehash(value: &mut Value) -> Vec<u8> {
    let text = value.to_string();
    let read = LedgerValue::parse(text.as_bytes(), 1_000).unwrap();
    let unnamed = daybook_ledger::canonical::text_for_id(read.as_object().unwrap());
    let id = TransactionId(daybook_ledger::canonical::sha3(unnamed.as_bytes()));
    value["id"] = id.to_string().into();
    value.to_string().into_bytes()
}

/// One node for all tests that only add to it and look at what they added.
pub fn shared() -> &'static TestNode {
    static NODE: std::sync::OnceLock<TestNode> = std::sync::OnceLock::new();
    NODE.get_or_init(TestNode::start)
}

/// Tests that count connections or threads of the process take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
