//! What can be set about the gateway, and the defaults.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::{constant_time, digest};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{Faucet, Guest, Rate, TrackerSettings};

/// How the gateway runs. The defaults suit a node that only its own machine reaches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `software` of `GET /`: `"Planetmint"` or `"BigchainDB"` for suites that compare it.
    pub software: String,
    /// `version` of `GET /`.
    pub version: String,
    /// Where the documentation is.
    pub docs: String,
    /// `ws` or `wss` in announced stream addresses; by default what the stream listener speaks.
    pub advertised_scheme: Option<String>,
    /// The host in announced stream addresses; by default `localhost`, or the address that the stream
    /// listener is bound to.
    pub advertised_host: Option<String>,
    /// The port in announced stream addresses; by default that of the stream listener.
    pub advertised_port: Option<u16>,
    /// Host names, beside loopback names and `advertised_host`, that a request to a listener on loopback
    /// may name: for a reverse proxy that passes the public name on.
    pub allowed_hosts: Vec<String>,
    /// Which web pages may use the node.
    pub allowed_origins: Origins,
    /// Bytes of a posted transaction; announced as `max_transaction_size`, one value for a network.
    pub transaction_bytes_max: usize,
    /// Connections at once, on all listeners together; each may hold 128 KiB beside what `buffer_bytes_max`
    /// counts. Further ones are answered 503 and closed.
    pub connections_max: usize,
    /// Of these, those of one network, an address or an IPv6 /64; `None` for any number. This machine's own
    /// addresses are none.
    pub connections_per_network_max: Option<usize>,
    /// Bytes in memory, of all connections together, of request bodies that are being read, of long answers
    /// and of stream frames made for one subscriber alone. Beyond it bodies are answered 503, and
    /// subscribers that read from the store wait.
    pub buffer_bytes_max: usize,
    /// Requests that one address may make; `None` for any number.
    pub rate: Option<Rate>,
    /// Lists that are made at once for one address; further ones wait for their turn. All addresses
    /// together have 64.
    pub lists_per_address_max: usize,
    /// How long the node waits for the reader of a list, beside the time that `list_rate_min` gives for
    /// what was read.
    pub list_patience: Duration,
    /// Bytes per second that the reader of a long list takes at least in the long run; a slower one is
    /// cut off, because it would keep its turn from others.
    pub list_rate_min: usize,
    /// How long one list may take in whole; it is broken off then, and the client sees that.
    pub list_timeout: Duration,
    /// From the first byte of a request's head to its last: longer means a slow-writing attacker.
    pub header_timeout: Duration,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// From the head of a request to the end of its body; between two pieces of it in a batch.
    pub body_timeout: Duration,
    /// How long a reader may take nothing of what is sent to it.
    pub stall_timeout: Duration,
    /// Time between two Pings to a subscriber (section 9).
    pub ping_interval: Duration,
    /// How long a subscriber may send nothing at all, not even a Pong, before it is believed dead.
    pub silence_timeout: Duration,
    /// How long a stop waits for requests under way.
    pub shutdown_timeout: Duration,
    /// What writers must show as `Authorization: Bearer …`; `None` for no check, as stock clients expect.
    pub write_token: Option<Token>,
    /// The wallet tracker; `None` where no tracker runs.
    pub tracker: Option<TrackerSettings>,
    /// What answers further paths of the main listener, such as the gateways of a consortium's members and
    /// the service bus; the first that takes a path.
    pub guests: Vec<Arc<dyn Guest>>,
    /// Renders `/metrics`; without it that path is unknown.
    pub metrics: Option<PrometheusHandle>,
    /// Gives units of a development token away; without it that path is unknown.
    pub faucet: Option<Faucet>,
    /// What the service bus tells people who operate it; `None` where none runs beside the node.
    pub bus: Option<BusOverview>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            software: "Planetmint".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            docs: "https://github.com/daybook-ledger/daybook".to_owned(),
            advertised_scheme: None,
            advertised_host: None,
            advertised_port: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Origins::Any,
            transaction_bytes_max: 1 << 20,
            connections_max: 8_192,
            connections_per_network_max: Some(1_024),
            buffer_bytes_max: 256 << 20,
            rate: None,
            lists_per_address_max: 16,
            list_patience: Duration::from_secs(10),
            list_rate_min: 32 << 10,
            list_timeout: Duration::from_secs(15 * 60),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            silence_timeout: Duration::from_secs(180),
            shutdown_timeout: Duration::from_secs(10),
            write_token: None,
            tracker: None,
            guests: Vec::new(),
            metrics: None,
            faucet: None,
            bus: None,
        }
    }
}

/// Looks at the service bus that runs beside the node, of which this crate knows nothing else.
#[derive(Clone)]
pub struct BusOverview(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl BusOverview {
    /// `look` answers JSON, and `None` while the bus is not there.
    pub fn new(look: impl Fn() -> Option<String> + Send + Sync + 'static) -> BusOverview {
        BusOverview(Arc::new(look))
    }

    pub(crate) fn look(&self) -> Option<String> {
        (self.0)()
    }
}

impl fmt::Debug for BusOverview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusOverview")
    }
}

/// Which web pages may use the node. It concerns browsers only: they say where a page came from.
///
/// `Any` is what the protocol demands and what its browser clients need. It gives a page nothing that
/// belongs to the user: the API knows no cookies, transactions are signed by keys that the node does
/// not hold, and the ledger is public to everyone who reaches the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    #[default]
    Any,
    /// Pages of these origins (`https://app.example`, exactly as browsers send them). Other pages cannot
    /// read answers, and their writes and WebSockets are refused.
    List(Vec<String>),
}

impl Origins {
    pub(crate) fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Origins::Any => true,
            Origins::List(list) => list.iter().any(|allowed| allowed.as_bytes() == origin),
        }
    }
}

/// A secret that writers must show. Only its digest is kept, and neither is ever shown.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The token `secret`.
    pub fn new(secret: &str) -> Token {
        Token(sha256(secret.as_bytes()))
    }

    /// Whether `shown` is the secret, in a time that tells nothing about either.
    pub(crate) fn accepts(&self, shown: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&sha256(shown), &self.0).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
