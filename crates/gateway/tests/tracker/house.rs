//! A node with a tracker behind a real socket, its clock set by hand, and peers that sign.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair as RsaKey, KeySize},
    signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use daybook_client::tracker::PeerKey;
use daybook_gateway::{
    Listener, Serves, Settings, TrackerKeys, TrackerLimits, TrackerSettings, serve,
};
use daybook_ledger::{
    BlockTime, Draft, SigningKey, Transaction,
    block::{Genesis, Validator},
    json::Object,
    tracker::{self, Key, Suite, Suites},
};
use daybook_pipeline::{
    Acknowledge, Clock, Door, Node, Outcome, Running, StartOptions, TrackerOptions, start,
};
use daybook_store::{Options, disk::simulated::SimulatedDisk};
use daybook_wire::assets::Dialect;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket, client::IntoClientRequest};

pub const START_MS: u64 = 1_700_000_000_000;

/// No answer takes this long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> BlockTime {
        BlockTime(self.0.load(Ordering::SeqCst))
    }
}

/// What a test changes about its tracker.
#[derive(Clone)]
pub struct Change {
    pub node: fn(&mut Settings),
    pub gateway: fn(&mut TrackerSettings),
    pub book: fn(&mut tracker::Settings),
}

impl Default for Change {
    fn default() -> Change {
        Change {
            node: |_| {},
            gateway: |_| {},
            book: |_| {},
        }
    }
}

/// A node with an open tracker, 100,000 tokens in its wallet.
pub struct House {
    pub node: Node,
    pub address: SocketAddr,
    clock: Arc<SetClock>,
    disk: SimulatedDisk,
    change: Change,
    running: Option<Running>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    runtime: Option<Runtime>,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub fn holder() -> SigningKey {
    key(101)
}

/// Who has the tokens that are not deposited.
pub fn owner() -> SigningKey {
    key(102)
}

fn rsa_pkcs8() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| {
        let pair = RsaKey::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        der.as_ref().to_vec()
    })
}

pub fn token() -> Transaction {
    Draft::create(Object::from_iter([("token", "traffic")]))
        .output(1_000_000, &owner())
        .sign(&[&owner()])
        .unwrap()
}

impl House {
    pub fn open() -> House {
        House::with(Change::default())
    }

    pub fn with(change: Change) -> House {
        House::on(SimulatedDisk::new(), START_MS, change)
    }

    fn on(disk: SimulatedDisk, now: u64, change: Change) -> House {
        let proposer = key(9);
        let genesis = Genesis {
            chain: "tracker".into(),
            time: BlockTime(1_000),
            validators: vec![Validator {
                key: proposer.public_key(),
                power: 10,
            }],
        };
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::default()
        };
        let shared = Arc::new(disk.clone());
        let (store, writer, _) =
            daybook_store::open(Path::new("/data"), shared, &genesis, options).unwrap();
        let clock = Arc::new(SetClock(AtomicU64::new(now)));
        let keys = Arc::new(TrackerKeys::new(rsa_pkcs8(), key(100)).unwrap());
        let mut options = StartOptions::new(proposer);
        options.clock = clock.clone();
        options.tracker = Some(TrackerOptions {
            suites: Suites::default(),
            ids: keys.ids(),
            holder: holder(),
        });
        let (node, running) = start(store, writer, options).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (pems, token) = (keys.pems(), token());
        let mut book =
            tracker::Settings::new(&*pems[0], token.id().as_asset(), holder().public_key());
        book.keys = pems;
        (change.book)(&mut book);
        runtime.block_on(async {
            commit(&node, &token).await;
            assert!(node.configure_tracker(book).await);
            let deposit = Draft::transfer(token.id().as_asset())
                .spend(token.output_ref(0), &owner())
                .output(100_000, &holder())
                .output(900_000, &owner())
                .sign(&[&owner()])
                .unwrap();
            commit(&node, &deposit).await;
        });
        let mut tracker = TrackerSettings {
            keys,
            suites: Suites::default(),
            public_log: false,
            limits: TrackerLimits::default(),
        };
        (change.gateway)(&mut tracker);
        let mut settings = Settings {
            tracker: Some(tracker),
            ..Settings::default()
        };
        (change.node)(&mut settings);
        let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener {
            socket,
            serves: Serves::Api,
            dialect: Dialect::Classic,
            tls: None,
        };
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn(serve(vec![listener], node.clone(), settings, async {
            let _ = stopped.await;
        }));
        House {
            node,
            address,
            clock,
            disk,
            change,
            running: Some(running),
            stop: Some(stop),
            serving: Some(serving),
            runtime: Some(runtime),
        }
    }

    /// Stops the node and starts it again on the same disk.
    pub fn restart(mut self) -> House {
        self.end();
        House::on(self.disk.clone(), self.now(), self.change.clone())
    }

    pub fn now(&self) -> u64 {
        self.clock.now().0
    }

    /// Lets time pass, and everything happen that is due by then.
    pub fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
        self.node.tick();
    }

    /// Waits until the log has at least so many records.
    pub fn recorded(&self, count: u64) {
        let mut follower = self.node.follow(self.node.head());
        let runtime = self.runtime.as_ref().unwrap();
        while self.sequence() < count {
            runtime.block_on(follower.next()).unwrap();
        }
    }

    /// From now on the disk refuses to read, or gives again.
    pub fn fail_reads(&self, fail: bool) {
        self.disk.fail_reads(fail);
    }

    pub fn sequence(&self) -> u64 {
        self.node.store().tracker(|book| book.sequence())
    }

    pub fn wallet(&self) -> u128 {
        self.node.store().tracker(|book| book.wallet())
    }

    pub fn connect(&self) -> Client {
        self.connect_to("/")
    }

    pub fn connect_to(&self, path: &str) -> Client {
        self.connect_as(path, &[])
    }

    /// A connection whose upgrade carries headers of its own.
    pub fn connect_as(&self, path: &str, headers: &[(&'static str, &str)]) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://localhost:{}{path}", self.address.port());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Client {
            socket,
            tokens: 0,
            events: Vec::new(),
        }
    }

    /// The body of a plain GET.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.get_as(path, &[])
    }

    /// The body of a GET with headers of its own.
    pub fn get_as(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, Value) {
        use std::io::{Read, Write};
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines: String = lines.collect();
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    /// The beginning of an answer that may have no end, as text, up to where it is enough.
    pub fn begin_get(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        is_enough: &dyn Fn(&str) -> bool,
    ) -> String {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines: String = lines.collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if is_enough(&text) {
                return text.into_owned();
            }
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "it ended: {text}");
            bytes.extend_from_slice(&piece[..count]);
        }
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            if let Some(serving) = self.serving.take() {
                runtime.block_on(serving).unwrap().unwrap();
            }
            runtime.shutdown_background();
        }
        if let Some(running) = self.running.take() {
            running.stop().unwrap();
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(runtime) = self.runtime.take() {
                runtime.shutdown_background();
            }
        } else {
            self.end();
        }
    }
}

async fn commit(node: &Node, transaction: &Transaction) {
    let text = transaction.canonical().clone();
    let outcome = node.submit(text, Acknowledge::Durable, Door::Bulk).await;
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
}

/// Who signs requests. A test may spoil the text of its key.
pub struct Peer {
    pub pem: String,
    key: PeerKey,
}

impl Peer {
    fn new(key: PeerKey) -> Peer {
        Peer {
            pem: key.pem().to_owned(),
            key,
        }
    }

    pub fn ed25519(seed: u8) -> Peer {
        Peer::new(PeerKey::ed25519(key(seed)))
    }

    pub fn rsa() -> Peer {
        Peer::new(PeerKey::generate(Suite::Rsa))
    }

    pub fn sign(&self, message: &str) -> String {
        self.key.sign(message)
    }

    /// A single-signed container.
    pub fn payload(&self, message: &str) -> Value {
        json!({"message": message, "pk": self.pem, "sign": self.sign(message)})
    }

    /// The container of a JSON message, to which the key is added.
    pub fn about(&self, mut message: Value) -> Value {
        message["pk"] = self.pem.as_str().into();
        self.payload(&message.to_string())
    }

    /// The key's own text, signed: commands 1, 2 and 4.
    pub fn bare(&self) -> Value {
        self.payload(&self.pem)
    }
}

/// A container that payer and payee signed.
pub fn cosigned(from: &Peer, to: &Peer, mut message: Value) -> Value {
    message["fromPK"] = from.pem.as_str().into();
    message["toPK"] = to.pem.as_str().into();
    let message = message.to_string();
    json!({"fromPK": from.pem, "fromSign": from.sign(&message),
        "toPK": to.pem, "toSign": to.sign(&message), "message": message})
}

/// The terms of a channel, as both texts carry them.
pub fn contract(id: &str, from: &str, to: &str, count: u64) -> Value {
    json!({"channelId": id, "fromAddress": from, "toAddress": to, "priceTokens": "500",
        "priceQuantumPower": 25, "plannedQuantumCount": count})
}

/// A contract with what was paid in the end.
pub fn settled(mut contract: Value, count: u64, volume: u64) -> Value {
    contract["quantumCount"] = count.into();
    contract["tokens"] = (count * 500).to_string().into();
    contract["volume"] = volume.into();
    contract
}

/// A connection.
pub struct Client {
    pub socket: WebSocket<TcpStream>,
    tokens: u64,
    /// Events that came while a reply was waited for.
    events: Vec<Value>,
}

impl Client {
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The text of the next frame.
    pub fn text(&mut self) -> String {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a text: {other:?}"),
            }
        }
    }

    /// The next reply.
    pub fn reply(&mut self) -> Value {
        loop {
            let frame: Value = serde_json::from_str(&self.text()).unwrap();
            if frame.get("event").is_none() {
                return frame;
            }
            self.events.push(frame);
        }
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        let frame: Value = serde_json::from_str(&self.text()).unwrap();
        assert!(frame.get("event").is_some(), "{frame}");
        frame
    }

    /// Whether no event came while replies were waited for.
    pub fn has_no_event(&self) -> bool {
        self.events.is_empty()
    }

    /// Asks and waits for the reply.
    pub fn ask(&mut self, command: u64, payload: &Value) -> Value {
        self.tokens += 1;
        let token = format!("t{}", self.tokens);
        let frame = json!({"cmd": command, "corrToken": token, "payload": payload});
        self.send(&frame.to_string());
        let reply = self.reply();
        assert_eq!(reply["corrToken"], token, "{reply}");
        reply
    }

    /// Asks and reads the message that is signed, which must be.
    pub fn told(&mut self, command: u64, payload: &Value) -> Value {
        let reply = self.ask(command, payload);
        assert!(reply.get("error").is_none(), "{reply}");
        let message = reply["data"]["message"].as_str().unwrap();
        serde_json::from_str(message).unwrap_or_else(|_| message.into())
    }

    /// Asks, and reads the code of the error.
    pub fn refused(&mut self, command: u64, payload: &Value) -> String {
        let reply = self.ask(command, payload);
        assert_eq!(reply["data"], reply["corrToken"], "{reply}");
        reply["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{reply}"))
            .to_owned()
    }

    /// The code with which the node closes.
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(Message::Close(None)) => return 1005,
                Ok(_) => {}
                Err(error) => panic!("closed without a word: {error}"),
            }
        }
    }
}

/// Checks the signature of `data` by the key in `pem`.
pub fn verify(pem: &str, data: &Value) {
    let message = data["message"].as_str().unwrap();
    check(pem, message, data["sign"].as_str().unwrap());
}

/// Checks a signature, RSA with another reader of keys than the node's.
pub fn check(pem: &str, message: &str, sign: &str) {
    let signature = BASE64_STANDARD.decode(sign).unwrap();
    let key = Key::read(pem).unwrap();
    if key.suite() == Suite::Rsa {
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let spki = BASE64_STANDARD.decode(base64).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &spki[24..])
            .verify(message.as_bytes(), &signature)
            .unwrap();
    } else {
        assert!(key.verify(&Suites::default(), message.as_bytes(), sign));
    }
}
