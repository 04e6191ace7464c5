//! The town: who lives in it, on which ports, and how they are started and stopped.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use daybook_client::{
    Client,
    bus::{Bus, BusKey, ServiceError, Subscribe},
};
use daybook_ledger::{AssetId, PublicKey};
use daybook_machine::{Url, Web};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    children::{Children, Said},
    council::{self, ASKS, CLERK, CONTAINER, Council},
    text_of, until,
    witness::Witness,
};
use crate::{
    config::Config,
    failure::{Exit, Failure},
    keyfile::{self, Kind},
    node::LiveNode,
    out::Out,
    settings::Settings,
};

/// Ports of a node, and of machines in the field (machines, section 9): taken when they are free.
const PORT_HTTP: u16 = 9984;
const PORT_STREAMS: u16 = 9985;
const PORT_BUS: u16 = 9001;
const PORT_SHOP: u16 = 9700;
/// How long anybody may take to answer a small question.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a machine may take until it takes orders: it asks the ledger about its keys first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The quantum of traffic, as a power of two, and its price: small files take several.
const QUANTUM_POWER: u32 = 16;
pub(super) const QUANTUM_BYTES: u64 = 1 << QUANTUM_POWER;
pub(super) const QUANTUM_PRICE: u64 = 5;
/// Bytes of the file that the shop sells: five quanta and a bit of a sixth.
pub(super) const FILM_BYTES: u64 = 5 * QUANTUM_BYTES + 1;
/// The name that the service on the bus answers to.
pub(super) const QUOTE: &str = "energy.quote";
/// Units that a robot may pay within an hour: a few orders' worth of energy.
const ROBOT_LIMIT: u64 = 200;

/// A machine of the town.
pub(super) struct Role {
    pub(super) name: &'static str,
    port: u16,
    /// Price of an order, in units of the token.
    pub(super) value: u64,
    /// What it makes; a provider sells energy.
    pub(super) product: Option<&'static str>,
    /// The machine that is paid for each order, by its place in the table.
    pub(super) provider: Option<usize>,
}

/// Providers stand before those who pay them, which must know where they are.
pub(super) const ROLES: [Role; 4] = [
    Role {
        name: "EnergyWind",
        port: 3002,
        value: 5,
        product: None,
        provider: None,
    },
    Role {
        name: "EnergySolar",
        port: 3004,
        value: 8,
        product: None,
        provider: None,
    },
    Role {
        name: "Robot1",
        port: 3001,
        value: 15,
        product: Some("headphone"),
        provider: Some(0),
    },
    Role {
        name: "Robot2",
        port: 3003,
        value: 25,
        product: Some("laptop"),
        provider: Some(1),
    },
];

/// A town that runs.
pub(super) struct Town {
    pub(super) out: Out,
    pub(super) folder: PathBuf,
    pub(super) url: String,
    pub(super) client: Client,
    pub(super) web: Web,
    pub(super) children: Children,
    pub(super) witness: Option<Witness>,
    /// The organisations that share a ledger.
    pub(super) council: Council,
    /// Where each of [`ROLES`] listens.
    pub(super) machines: Vec<Url>,
    pub(super) customer: PublicKey,
    /// The owner of the shop, who is paid what it earned.
    pub(super) owner: PublicKey,
    /// The token that machines and the customer deal in.
    pub(super) asset: Option<AssetId>,
    /// Units that the customer was given.
    pub(super) gift: u64,
    /// Where the shop serves its file, and what it says.
    pub(super) shop: Option<(String, Said)>,
    pub(super) bus_url: String,
    live: LiveNode,
    market: Option<JoinHandle<()>>,
    free_ports: bool,
}

impl Town {
    /// Starts the node; nobody else lives here yet.
    pub(super) async fn new(folder: &Path, free_ports: bool, out: Out) -> Result<Town, Failure> {
        let children = Children::new(folder)?;
        let prepared = council::prepare(&children, folder, &folder.join("node")).await?;
        let flags = [
            ("data_dir", text_of(&folder.join("node"))),
            ("listen", address(PORT_HTTP, free_ports)),
            ("streams_listen", address(PORT_STREAMS, free_ports)),
            ("bus_listen", address(PORT_BUS, free_ports)),
            ("chain", "demo".to_owned()),
            ("dev", "true".to_owned()),
            ("tracker.quantum_power", QUANTUM_POWER.to_string()),
            ("tracker.income_price", QUANTUM_PRICE.to_string()),
            ("tracker.spend_price", QUANTUM_PRICE.to_string()),
            ("consortium.members", prepared.cards.clone()),
            ("consortium.documents", "any".to_owned()),
        ];
        let flags = flags.map(|(name, value)| (name.to_owned(), value));
        let config = Config::from_settings(&Settings::load(&flags, [], None)?)?;
        let [customer, owner] = ["customer.key", "owner.key"].map(|name| {
            let key = keyfile::generate();
            keyfile::write(&folder.join(name), &key, None).map(|()| key.public_key())
        });
        let (customer, owner) = (customer?, owner?);
        for name in ["shop.key", "reader.key"] {
            let key = keyfile::generate_secret(Kind::P256);
            keyfile::store_secret(&folder.join(name), key.kind, &key.public, &key.bytes, None)?;
        }
        let web = Web::new(None).map_err(|e| Failure::usage(e.to_string()))?;
        let live = LiveNode::start(&config).await?;
        let url = live.listening.http_url(live.listening.http);
        let bus_url = live.listening.bus_url().unwrap_or_default();
        let key = live.listening.bus_key.clone().unwrap_or_default();
        let path = folder.join("bus.key");
        keyfile::write_new(&path, format!("{key}\n").as_bytes(), 0o600)
            .map_err(|e| Failure::system(path.display(), &e))?;
        let client = Client::new(url.parse().expect("the node's own address is an address"))?;
        let council = Council::new(&client, prepared);
        Ok(Town {
            out,
            folder: folder.to_owned(),
            url,
            client,
            web,
            children,
            witness: None,
            council,
            machines: Vec::new(),
            customer,
            owner,
            asset: None,
            gift: 0,
            shop: None,
            bus_url,
            live,
            market: None,
            free_ports,
        })
    }

    /// Everybody else moves in.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        self.witness = Some(Witness::new(&self.client).await?);
        for role in &ROLES {
            self.start_machine(role).await?;
        }
        for (role, machine) in ROLES.iter().zip(&self.machines) {
            let (web, ready) = (&self.web, machine.join("/readyz"));
            until(role.name, READY_WITHIN, async || {
                let answer = web.send(Method::GET, &ready, &[], "", ANSWER_WITHIN).await;
                answer.ok().filter(|answer| answer.status.is_success())
            })
            .await?;
        }
        self.fund_the_customer().await?;
        self.open_the_shop().await?;
        self.open_the_market().await
    }

    async fn start_machine(&mut self, role: &Role) -> Result<(), Failure> {
        let listen = address(role.port, self.free_ports);
        let port = listen.rsplit_once(':').map_or("0", |(_, port)| port);
        let products = role
            .product
            .map(|product| format!("{product}:{}", role.value));
        let provider = role.provider.map(|place| self.machines[place].to_string());
        let value = role.value.to_string();
        let data = text_of(&self.folder.join(role.name));
        let limit = ROBOT_LIMIT.to_string();
        let mut args = vec![
            "machine",
            "--name",
            role.name,
            "--port",
            port,
            "--value",
            &value,
            "--data-dir",
            &data,
            "--ledger-url",
            &self.url,
            "--work-cmd",
            "daybook demo --work",
        ];
        match &provider {
            None => args.extend(["--is-provider", "true"]),
            Some(provider) => {
                args.extend(["--provider-url", provider, "--limit-per-hour", &limit]);
            }
        }
        if let Some(products) = &products {
            args.extend(["--products", products]);
        }
        let (told, _) = self.children.start(role.name, &args, "listening").await?;
        let url = told["http"].as_str().and_then(|text| text.parse().ok());
        self.machines
            .push(url.ok_or_else(|| Failure::refused(format!("{} has no address", role.name)))?);
        Ok(())
    }

    /// The development faucet gives the customer some units of its token.
    async fn fund_the_customer(&mut self) -> Result<(), Failure> {
        let url = self.node(&format!("/send_tokens?address={}", self.customer))?;
        let given = self.ask(Method::POST, &url).await?;
        let told = |name: &str| {
            Failure::refused(format!(
                "the faucet gives nothing ({name}): {}",
                given["message"].as_str().unwrap_or("without a reason")
            ))
        };
        let asset = given["asset_id"].as_str().and_then(|id| id.parse().ok());
        self.asset = Some(asset.ok_or_else(|| told("asset_id"))?);
        self.gift = given["units"].as_u64().ok_or_else(|| told("units"))?;
        if given["status"] != "ok" {
            return Err(told("status"));
        }
        Ok(())
    }

    /// The shop serves a file, and is paid by the segment.
    async fn open_the_shop(&mut self) -> Result<(), Failure> {
        let film = self.folder.join("film");
        // No byte is like its neighbours, so that a segment in the wrong place is seen.
        let bytes: Vec<u8> = (0..FILM_BYTES).map(|i| (i * i % 251) as u8).collect();
        std::fs::write(&film, bytes).map_err(|e| Failure::system(film.display(), &e))?;
        let listen = address(PORT_SHOP, self.free_ports);
        let (film, state) = (text_of(&film), text_of(&self.folder.join("channels")));
        let segment = QUANTUM_BYTES.to_string();
        let args = [
            "channel",
            "serve",
            &film,
            "--listen",
            &listen,
            "--state",
            &state,
            "--segment-bytes",
            &segment,
        ];
        let peer = self.peer("shop.key");
        let args = [&args[..], &peer.each()].concat();
        let (told, said) = self.children.start("Shop", &args, "serving").await?;
        let url = told["url"].as_str().unwrap_or_default().to_owned();
        self.shop = Some((url, said));
        Ok(())
    }

    /// A service on the bus: it asks the providers for their price and names the cheaper one.
    async fn open_the_market(&mut self) -> Result<(), Failure> {
        let key = self.live.listening.bus_key.clone().unwrap_or_default();
        let endpoint = self
            .bus_url
            .parse()
            .map_err(|e| Failure::usage(format!("{e}")))?;
        let bus = Bus::builder(endpoint, "energy-market", BusKey::new(&key))
            .connect()
            .await?;
        let mut requests = bus.subscribe(QUOTE, Subscribe::queue("market")).await?;
        let providers: Vec<(&str, Url)> = ROLES
            .iter()
            .zip(&self.machines)
            .filter(|(role, _)| role.provider.is_none())
            .map(|(role, url)| (role.name, url.join("/info")))
            .collect();
        let web = self.web.clone();
        self.market = Some(tokio::spawn(async move {
            // The connection lasts as long as its handle.
            let _bus = bus;
            while let Some(request) = requests.next().await {
                let mut offers = Vec::new();
                for (name, url) in &providers {
                    let answer = web.send(Method::GET, url, &[], "", ANSWER_WITHIN).await;
                    let price = answer
                        .ok()
                        .and_then(|answer| answer.json()?["value"].as_u64());
                    offers.extend(price.map(|price| (price, *name)));
                }
                match offers.iter().min() {
                    Some((price, name)) => {
                        let answer =
                            json!({"provider": name, "price": price, "offers": offers.len()});
                        request.answer(&answer).await;
                    }
                    None => {
                        let error = ServiceError::new("closed", 503, "no provider sells energy");
                        request.refuse(&error).await;
                    }
                }
            }
        }));
        Ok(())
    }

    /// An address of the node.
    pub(super) fn node(&self, path: &str) -> Result<Url, Failure> {
        let url: Url = self
            .url
            .parse()
            .map_err(|e| Failure::usage(format!("{e}")))?;
        Ok(url.join(path))
    }

    /// The JSON of a sound answer.
    pub(super) async fn ask(&self, method: Method, url: &Url) -> Result<Value, Failure> {
        let answer = self
            .web
            .send(method, url, &[], "", ANSWER_WITHIN)
            .await
            .map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?;
        match answer.json() {
            Some(value) if answer.status.is_success() => Ok(value),
            _ => Err(Failure::refused(format!(
                "{url} answered with status {}",
                answer.status.as_u16()
            ))),
        }
    }

    /// The flags of a peer of the tracker.
    pub(super) fn peer(&self, key: &str) -> Peer {
        Peer([
            "--key".to_owned(),
            text_of(&self.folder.join(key)),
            "--known-trackers".to_owned(),
            text_of(&self.folder.join("trackers.json")),
            "--url".to_owned(),
            self.url.clone(),
        ])
    }

    pub(super) fn witness(&mut self) -> &mut Witness {
        self.witness
            .as_mut()
            .expect("somebody watches until the town runs on by itself")
    }

    /// Says where everything is.
    pub(super) fn show(&self, after: Duration) {
        let shop = self.shop.as_ref().map_or("", |(url, _)| url);
        let streams = self.live.listening.streams_url();
        let machines: Vec<_> = ROLES
            .iter()
            .zip(&self.machines)
            .map(|(role, url)| json!({"name": role.name, "url": url.to_string(), "value": role.value}))
            .collect();
        let mut text = format!(
            "A town, {:.1} s after the start:\n\n  {:<12} {}\n  {:<12} {}/console",
            after.as_secs_f64(),
            "node",
            self.url,
            "console",
            self.url
        );
        for (role, url) in ROLES.iter().zip(&self.machines) {
            let what = match (role.product, role.provider) {
                (Some(product), Some(place)) => format!(
                    "a {product} for {}, with energy from {}",
                    role.value, ROLES[place].name
                ),
                _ => format!("energy for {}", role.value),
            };
            text.push_str(&format!("\n  {:<12} {url}   {what}", role.name));
        }
        text.push_str(&format!(
            "\n  {:<12} {shop}   a film of {FILM_BYTES} bytes, {QUANTUM_PRICE} tokens for each {QUANTUM_BYTES}\
             \n  {:<12} {}   answers {QUOTE}\
             \n  {:<12} {}   holds {} units, key in {}",
            "shop",
            "bus",
            self.bus_url,
            "customer",
            self.customer,
            self.gift,
            self.folder.join("customer.key").display(),
        ));
        self.out.say(
            &json!({
                "event": "town",
                "http": self.url,
                "console": format!("{}/console", self.url),
                "streams": streams,
                "bus": self.bus_url,
                "shop": shop,
                "machines": machines,
                "customer": self.customer.to_string(),
                "asset_id": self.asset.map(|asset| asset.to_string()),
                "folder": text_of(&self.folder),
                "seconds": after.as_secs_f64(),
            }),
            &text,
        );
    }

    pub(super) fn say_what_to_try(&self) {
        if self.out.json {
            return;
        }
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "daybook".to_owned());
        let place = self.folder.display();
        let robot = &self.machines[ROLES
            .iter()
            .position(|role| role.product.is_some())
            .unwrap_or(0)];
        let shop = self.shop.as_ref().map_or("", |(url, _)| url);
        let (url, bus) = (&self.url, &self.bus_url);
        let (acme, entry) = (self.council.key_path(0).display(), r#"{"no":"WB-8"}"#);
        let (customs, password) = (self.council.name(ASKS), self.council.password());
        self.out.line(&format!(
            "\nTry, in a second terminal or on the page {url}/console:\n\
             \n  {program} order {robot} --key {place}/customer.key --url {url}\
             \n  {program} events --from 0 --url {url}\
             \n  {program} channel fetch {shop} --key {place}/reader.key --known-trackers {place}/trackers.json --out film-2 --url {url}\
             \n  {program} ledger append {CONTAINER} --key {acme} --deadline-seconds 300 --entry '{entry}' --url {url}\
             \n      … and agree to it as {customs}: log in as {CLERK} with {password} on {url}/console#/ledgers\
             \n  {program} bus call {QUOTE} --key-file {place}/bus.key --url {bus}\
             \n  curl -X POST '{url}/send_tokens?address={}'\
             \n\nCtrl-C stops everything.",
            self.customer
        ));
    }

    /// Runs on until somebody of the town ends.
    pub(super) async fn run_on(&mut self) -> Result<(), Failure> {
        // Nobody asks any more what was seen.
        self.witness = None;
        tokio::select! {
            name = self.children.ended() => {
                let log = self.folder.join("logs").join(format!("{name}.log"));
                Err(Failure::refused(format!("{name} has ended; see {}", log.display())))
            }
            failure = self.live.failed() => Err(failure),
        }
    }

    /// Stops everybody, the node last.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        if let Some(market) = self.market {
            market.abort();
        }
        drop(self.witness);
        self.children.stop().await;
        self.live.stop().await
    }
}

/// Flags of a peer.
pub(super) struct Peer([String; 6]);

impl Peer {
    pub(super) fn each(&self) -> [&str; 6] {
        self.0.each_ref().map(String::as_str)
    }
}

/// The usual port if it is free and wanted, any other one if not.
fn address(port: u16, free_ports: bool) -> String {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    let free = !free_ports && TcpListener::bind(usual).is_ok();
    SocketAddr::from(([127, 0, 0, 1], if free { port } else { 0 })).to_string()
}
