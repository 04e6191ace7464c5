//! `daybook machine`: one machine or several, from flags, environment and a file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Arg, ArgMatches, Args, Command, value_parser};
use daybook_client::{Client, Endpoint, Token};
use daybook_ledger::AssetId;
use daybook_machine::{
    Agent, Hook, MachineError, OnPayoutFailure, Product, Seed, SpendingLimits, Terms, Url, Web,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::{
    config::LogFormat,
    failure::{Exit, Failure},
    keyfile, log,
    out::Out,
    passphrase::Source,
};

/// The environment variable with the seed. It is read once, at the very beginning, and removed.
const SEED: &str = "SEED";
/// Bytes of a configuration or seed file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Machines of one process at most: each has a thread and a port.
const MACHINES_MAX: usize = 64;
/// How long a node is waited for that shall tell which token it deals in.
const TOKEN_WITHIN: Duration = Duration::from_secs(10);
/// Between two questions to it.
const TOKEN_PAUSE: Duration = Duration::from_millis(300);
/// Units of the token that an order costs unless a price is set.
const VALUE_DEFAULT: u64 = 1;

/// One setting: a flag, a variable and a name in the file.
struct Setting {
    name: &'static str,
    /// Its environment variable; the names of the protocol's section 9 have no prefix.
    variable: &'static str,
    default: &'static str,
    doc: &'static str,
}

const fn setting(
    name: &'static str,
    variable: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting {
        name,
        variable,
        default,
        doc,
    }
}

#[rustfmt::skip]
const TABLE: &[Setting] = &[
    setting("port", "PORT", "3000", "HTTP and sockets; 0 for any free port"),
    setting("host", "MACHINE_HOST", "127.0.0.1", "Address to listen on"),
    setting("public_url", "PUBLIC_URL", "", "The address that browsers reach it at, where it is another one; the node's console shows it"),
    setting("name", "NAME", "Machine", "Shown to people"),
    setting("seed_file", "SEED_FILE", "", "File with the seed (81 characters of 9 and A to Z), in place of the variable SEED"),
    setting("key_file", "KEY_FILE", "", "Key file, made on the first start where there is no seed [default: machine.key in the data directory]"),
    setting("passphrase_file", "DAYBOOK_KEY_PASSPHRASE_FILE", "", "File whose first line is the passphrase of the key file"),
    setting("data_dir", "DATA_DIR", "", "Where the machine's memory is kept [default: ./daybook-machine-NAME]"),
    setting("provider_url", "PROVIDER_URL", "false", "The machine that is paid for each order; `false` or empty for none"),
    setting("provider_max_value", "PROVIDER_MAX_VALUE", "", "What the provider may ask for at most [default: the price of an order]"),
    setting("is_provider", "IS_PROVIDER", "false", "Whether it is a provider; sets the role that clients are told"),
    setting("value", "VALUE", "1", "Price of one order, in units of the token"),
    setting("products", "PRODUCTS", "", "What may be ordered, as NAME[:PRICE],…; anything at the same price where empty"),
    setting("ledger_url", "LEDGER_URL", "http://127.0.0.1:9984", "The node"),
    setting("token_file", "DAYBOOK_TOKEN_FILE", "", "File with the bearer token for the node"),
    setting("ca_file", "DAYBOOK_CA_FILE", "", "PEM file with the certificates to trust instead of the public roots"),
    setting("asset", "ASSET", "", "Id of the token [default: the one of the node's faucet]"),
    setting("order_ttl", "ORDER_TTL", "600", "Seconds that an order may stay unpaid"),
    setting("confirm_poll_ms", "CONFIRM_POLL_MS", "3000", "Milliseconds between two looks for something that is not there yet"),
    setting("status_repeat_ms", "STATUS_REPEAT_MS", "15000", "Milliseconds between two statuses about a payment that is not final"),
    setting("max_open_orders", "MAX_OPEN_ORDERS", "100", "Orders with something left to do at once"),
    setting("orders_per_minute", "ORDERS_PER_MINUTE", "600", "Orders that one address may place in a minute"),
    setting("work_cmd", "WORK_CMD", "", "What does the work: a program and its arguments, or an http:// address"),
    setting("work_timeout_ms", "WORK_TIMEOUT_MS", "60000", "Milliseconds that the work of one order may take"),
    setting("custom_script", "CUSTOM_SCRIPT", "", "Whether the work command is used; by default if there is one"),
    setting("on_payout_failure", "ON_PAYOUT_FAILURE", "fail", "When the provider cannot be paid: `fail` and refund, or `work` all the same"),
    setting("on_work_failure", "ON_WORK_FAILURE", "refund", "When a paid order fails: `refund` or `keep`"),
    setting("on_underpaid", "ON_UNDERPAID", "refund", "When an order expires underpaid: `refund` or `keep`"),
    setting("on_late_payment", "ON_LATE_PAYMENT", "keep", "What comes after an order's end: `keep` it on its books, or `refund`"),
    setting("limit_per_hour", "LIMIT_PER_HOUR", "", "Units that may leave within an hour; any number where empty"),
    setting("payees", "PAYEES", "", "Whom it may pay: machine addresses or public keys with commas between; its provider where empty"),
    setting("allowed_origins", "ALLOWED_ORIGINS", "http://localhost:*,http://127.0.0.1:*,https://machineeconomy.github.io:*", "Web pages that may use its sockets; `:*` for any port"),
    setting("tls_cert", "TLS_CERT", "", "PEM file with the certificate chain"),
    setting("tls_key", "TLS_KEY", "", "PEM file with the certificate's key"),
    setting("development", "DEVELOPMENT", "false", "Taken for the sake of old configurations; changes nothing"),
    setting("ledger_zmq", "LEDGER_ZMQ", "", "Taken for the sake of old configurations; changes nothing"),
];

/// The settings as the table of docs/protocols/machines.md.
#[cfg(test)]
pub(crate) fn markdown() -> String {
    let mut text =
        String::from("| setting | flag | variable | default | |\n|---|---|---|---|---|\n");
    for setting in TABLE {
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}` "),
        };
        text.push_str(&format!(
            "| `{}` | `--{}` | `{}` | {default}| {} |\n",
            setting.name,
            setting.name.replace('_', "-"),
            setting.variable,
            setting.doc
        ));
    }
    text
}

/// `daybook machine`.
#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook machine --name Robot1 --port 3001 --value 2 --provider-url http://127.0.0.1:3002
  SEED=… PORT=3002 NAME=EnergyWind IS_PROVIDER=true daybook machine
  daybook machine --work-cmd './paint.sh --slowly'     # the order is on its standard input
  daybook machine --config fleet.toml                  # several: one [[machine]] table each

Flags come before environment variables, and those before the file. The seed is never a flag: it is
the variable SEED, or in a file. Without a seed a key file is made in the data directory, encrypted
when there is a passphrase.")]
pub(crate) struct MachineArgs {
    #[command(flatten)]
    given: Given,
}

/// A flag for every setting.
#[derive(Debug)]
struct Given {
    file: Option<PathBuf>,
    flags: BTreeMap<String, String>,
}

/// The settings of one machine, as texts.
struct Raw {
    values: BTreeMap<&'static str, String>,
}

/// The seed out of the environment, which it is removed from. Must be called before any thread is
/// started.
pub(crate) fn take_seed() -> Option<Zeroizing<String>> {
    let seed = std::env::var_os(SEED)?;
    // SAFETY: `main` calls this first of all, when there is one thread only.
    #[allow(unsafe_code)]
    unsafe {
        std::env::remove_var(SEED);
    }
    Some(Zeroizing::new(
        seed.into_string()
            .unwrap_or_else(|_| "not Unicode".to_owned()),
    ))
}

pub(crate) async fn run(
    args: &MachineArgs,
    seed: Option<Zeroizing<String>>,
    out: Out,
) -> Result<(), Failure> {
    log::start(LogFormat::Auto, "info")?;
    let system = |error: std::io::Error| Failure::system("signals", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let machines = args.given.machines()?;
    if seed.is_some() && machines.len() > 1 {
        return Err(Failure::usage(
            "SEED is the seed of one machine; name a seed_file for each",
        ));
    }
    let mut seeds = Vec::new();
    for raw in &machines {
        seeds.push(raw.seed(seed.as_ref().map(|seed| seed.as_str()))?);
    }
    drop(seed);
    Seed::check_apart(&seeds.iter().collect::<Vec<_>>())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut agents = Vec::new();
    for (raw, seed) in machines.iter().zip(seeds) {
        let config = raw.config(seed).await?;
        let (name, asset, data) = (
            config.terms.name.clone(),
            config.terms.asset,
            config.data_dir.clone(),
        );
        let scheme = if config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let agent = Agent::start(config).await?;
        let url = format!("{scheme}://{}", agent.address());
        out.say(
            &json!({
                "event": "listening",
                "name": name,
                "http": url,
                "asset_id": asset.to_string(),
                "data_dir": data.display().to_string(),
                "pid": std::process::id(),
            }),
            &format!("{name}  {url}\ntoken  {asset}\ndata   {}", data.display()),
        );
        agents.push(agent);
    }
    let ended = {
        let failing: Vec<_> = agents
            .iter_mut()
            .map(|agent| Box::pin(agent.failed()))
            .collect();
        tokio::select! {
            (error, _, _) = futures_util::future::select_all(failing) => Some(error),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        }
    };
    let mut stopped = Ok(());
    for agent in agents {
        stopped = stopped.and(agent.stop().await);
    }
    match ended {
        Some(error) => Err(error.into()),
        None => Ok(stopped?),
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Failure {
        use daybook_machine::JournalError;
        let exit = match &error {
            MachineError::Journal(JournalError::InUse(_)) => Exit::InUse,
            MachineError::Journal(JournalError::Damaged { .. }) => Exit::Damaged,
            MachineError::Journal(JournalError::Io { .. })
            | MachineError::Listen { .. }
            | MachineError::Thread(_) => Exit::System,
            MachineError::NotMine(_) => Exit::Refused,
            MachineError::Provider(_) | MachineError::Tls(_) | MachineError::Web(_) => Exit::Usage,
        };
        Failure::new(exit, error.to_string())
    }
}

impl Given {
    /// The machines that are meant: one, or those of the file.
    fn machines(&self) -> Result<Vec<Raw>, Failure> {
        let mut common = BTreeMap::new();
        let mut tables = Vec::new();
        if let Some(path) = &self.file {
            let text = read_text(path)?;
            let wrong = |what: String| Failure::usage(format!("{}: {what}", path.display()));
            let mut table: toml::Table = text.parse().map_err(|e| wrong(format!("{e}")))?;
            if let Some(list) = table.remove("machine") {
                let toml::Value::Array(list) = list else {
                    return Err(wrong("write [[machine]] for each machine".to_owned()));
                };
                for each in list {
                    let toml::Value::Table(each) = each else {
                        return Err(wrong("a machine is a table".to_owned()));
                    };
                    tables.push(texts(each).map_err(wrong)?);
                }
            }
            common = texts(table).map_err(wrong)?;
        }
        if tables.len() > MACHINES_MAX {
            return Err(Failure::usage(format!(
                "{} machines; one process runs {MACHINES_MAX} at most",
                tables.len()
            )));
        }
        let several = tables.len() > 1;
        if tables.is_empty() {
            tables.push(BTreeMap::new());
        }
        Ok(tables
            .into_iter()
            .map(|own| {
                let value = |setting: &Setting| {
                    let outside = self
                        .flags
                        .get(setting.name)
                        .cloned()
                        .or_else(|| std::env::var(setting.variable).ok());
                    let inside = own
                        .get(setting.name)
                        .or_else(|| common.get(setting.name))
                        .cloned();
                    // What is said of one machine of several is not meant for all of them.
                    let chosen = match several && own.contains_key(setting.name) {
                        true => inside,
                        false => outside.or(inside),
                    };
                    (
                        setting.name,
                        chosen.unwrap_or_else(|| setting.default.to_owned()),
                    )
                };
                Raw {
                    values: TABLE.iter().map(value).collect(),
                }
            })
            .collect())
    }
}

/// The settings of a table of the file.
fn texts(table: toml::Table) -> Result<BTreeMap<String, String>, String> {
    table
        .into_iter()
        .map(|(name, value)| {
            if !TABLE.iter().any(|setting| setting.name == name) {
                return Err(format!("there is no setting `{name}`"));
            }
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(switch) => switch.to_string(),
                toml::Value::Array(items) => {
                    let items: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
                    items
                        .ok_or_else(|| format!("`{name}` is a list of texts"))?
                        .join(",")
                }
                _ => return Err(format!("`{name}` is no single value")),
            };
            Ok((name, text))
        })
        .collect()
}

impl Raw {
    fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", |text| text.trim())
    }

    fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    fn wrong(&self, name: &str, what: &str) -> Failure {
        Failure::usage(format!("{name}: `{}` is {what}", self.text(name)))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, Failure> {
        self.text(name)
            .parse()
            .map_err(|_| self.wrong(name, "not such a number"))
    }

    /// A switch; empty is `None`. Any other text than the known ones is an error, where old programs
    /// took every text for yes.
    fn switch(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.text(name).to_lowercase().as_str() {
            "" => Ok(None),
            "1" | "true" | "yes" | "on" => Ok(Some(true)),
            "0" | "false" | "no" | "off" => Ok(Some(false)),
            _ => Err(self.wrong(name, "neither true nor false")),
        }
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, Failure> {
        let chosen = choices.iter().find(|(text, _)| *text == self.text(name));
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
            self.wrong(name, &format!("none of {}", known.join(", ")))
        })
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.text(name)
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    }

    fn data_dir(&self) -> PathBuf {
        match self.given("data_dir") {
            Some(path) => path.into(),
            None => {
                let name: String = self
                    .text("name")
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
                    .collect();
                format!("daybook-machine-{name}").into()
            }
        }
    }

    /// The secret: out of the environment, of a file, or of the machine's own key file.
    fn seed(&self, from_environment: Option<&str>) -> Result<Seed, Failure> {
        let parse = |text: &str| Seed::parse(text).map_err(|e| Failure::usage(e.to_string()));
        match (from_environment, self.given("seed_file")) {
            (Some(_), Some(_)) => Err(Failure::usage("give SEED or a seed file, not both")),
            (Some(text), None) => parse(text),
            (None, Some(path)) => {
                let text = Zeroizing::new(read_text(Path::new(path))?);
                parse(text.trim())
            }
            (None, None) => {
                let path = match self.given("key_file") {
                    Some(path) => PathBuf::from(path),
                    None => self.data_dir().join("machine.key"),
                };
                let source = Source::new(self.given("passphrase_file").map(Path::new));
                if !path.exists() {
                    if let Some(dir) = path.parent() {
                        make_dir(dir)?;
                    }
                    let passphrase = source.given()?;
                    keyfile::write(&path, &keyfile::generate(), passphrase.as_ref())?;
                }
                Ok(Seed::from_secret(
                    &keyfile::load_secret(&path, &source)?.bytes,
                ))
            }
        }
    }

    async fn config(&self, seed: Seed) -> Result<daybook_machine::Config, Failure> {
        self.switch("development")?;
        let host = self.text("host");
        let port: u16 = self.number("port")?;
        let listen: SocketAddr = (host, port)
            .to_owned_address()
            .ok_or_else(|| self.wrong("host", "no address of this computer, such as 127.0.0.1"))?;
        let name = self.text("name").to_owned();
        if name.is_empty() {
            return Err(Failure::usage("name: a machine has a name"));
        }
        let ca_file = self.given("ca_file").map(PathBuf::from);
        let endpoint: Endpoint = self
            .text("ledger_url")
            .parse()
            .map_err(|e| Failure::usage(format!("ledger_url: {e}")))?;
        let mut client = Client::builder(endpoint);
        if let Some(path) = self.given("token_file") {
            client = client.token(Token::from_file(Path::new(path))?);
        }
        if let Some(path) = &ca_file {
            client = client.ca_file(path);
        }
        if let Some(zmq) = self.given("ledger_zmq") {
            tracing::warn!(
                zmq,
                "LEDGER_ZMQ belongs to the legacy network and is not used"
            );
        }
        let asset = match self.given("asset") {
            Some(text) => text
                .parse()
                .map_err(|_| self.wrong("asset", "not the id of an asset"))?,
            None => self.token_of_node(ca_file.as_deref()).await?,
        };
        let value: u64 = self.number("value")?;
        let products = self.products(value)?;
        let highest = products
            .iter()
            .map(|product| product.value)
            .fold(value, u64::max);
        let provider = match self.text("provider_url") {
            "" | "false" => None,
            text => Some(
                text.parse::<Url>()
                    .map_err(|e| Failure::usage(format!("provider_url: {e}")))?
                    .to_string(),
            ),
        };
        let hook = match (self.switch("custom_script")?, self.given("work_cmd")) {
            (Some(false), _) | (None, None) => None,
            (Some(true), None) => {
                return Err(Failure::usage(
                    "custom_script is on and there is no work_cmd",
                ));
            }
            (_, Some(text)) => Some(
                Hook::parse(text)
                    .ok_or_else(|| self.wrong("work_cmd", "neither a program nor an address"))?,
            ),
        };
        let refund = [("refund", true), ("keep", false)];
        let terms = Terms {
            name,
            role: match self.switch("is_provider")? {
                Some(true) => "provider".to_owned(),
                _ => "robot".to_owned(),
            },
            asset,
            value,
            products,
            provider,
            provider_value_max: match self.given("provider_max_value") {
                Some(_) => self.number("provider_max_value")?,
                None => highest.max(VALUE_DEFAULT),
            },
            order_ttl_ms: self.number::<u64>("order_ttl")?.saturating_mul(1000),
            confirm_poll_ms: self.positive("confirm_poll_ms")?,
            status_repeat_ms: self.positive("status_repeat_ms")?,
            open_orders_max: self.number("max_open_orders")?,
            on_payout_failure: self.choice(
                "on_payout_failure",
                &[
                    ("fail", OnPayoutFailure::Fail),
                    ("work", OnPayoutFailure::Work),
                ],
            )?,
            refund_failed: self.choice("on_work_failure", &refund)?,
            refund_underpaid: self.choice("on_underpaid", &refund)?,
            refund_late: self.choice("on_late_payment", &refund)?,
            works: hook.is_some(),
            limits: SpendingLimits {
                per_hour: match self.given("limit_per_hour") {
                    Some(_) => Some(self.number("limit_per_hour")?),
                    None => None,
                },
                payees: self.payees(),
            },
        };
        let tls = match (self.given("tls_cert"), self.given("tls_key")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let read = |path: &str| {
                    std::fs::read(path).map_err(|e| Failure::system(format!("TLS file {path}"), &e))
                };
                Some((read(certificate)?, Zeroizing::new(read(key)?)))
            }
            _ => {
                return Err(Failure::usage("TLS needs both the certificate and its key"));
            }
        };
        let public_url = match self.given("public_url") {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|e| Failure::usage(format!("public_url: {e}")))?,
            ),
        };
        Ok(daybook_machine::Config {
            listen,
            public_url,
            tls,
            data_dir: self.data_dir(),
            seed,
            ledger: client.build()?,
            ca_file,
            terms,
            hook,
            work_within: Duration::from_millis(self.positive("work_timeout_ms")?),
            allowed_origins: self.list("allowed_origins"),
            orders_per_minute: self.number("orders_per_minute")?,
        })
    }

    fn positive(&self, name: &str) -> Result<u64, Failure> {
        match self.number(name)? {
            0 => Err(self.wrong(name, "not more than nothing")),
            number => Ok(number),
        }
    }

    fn payees(&self) -> Option<Vec<String>> {
        // Written as the provider's own address is.
        let written = |text: String| match text.parse::<Url>() {
            Ok(url) => url.to_string(),
            Err(_) => text,
        };
        Some(self.list("payees"))
            .filter(|list| !list.is_empty())
            .map(|list| list.into_iter().map(written).collect())
    }

    fn products(&self, value: u64) -> Result<Vec<Product>, Failure> {
        self.list("products")
            .into_iter()
            .map(|text| match text.rsplit_once(':') {
                None => Ok(Product { name: text, value }),
                Some((name, price)) => Ok(Product {
                    name: name.to_owned(),
                    value: price
                        .parse()
                        .map_err(|_| self.wrong("products", "no list of NAME[:PRICE]"))?,
                }),
            })
            .collect()
    }

    /// The token that a development node gives away.
    async fn token_of_node(&self, ca_file: Option<&Path>) -> Result<AssetId, Failure> {
        let url: Url = self
            .text("ledger_url")
            .parse()
            .map_err(|e| Failure::usage(format!("ledger_url: {e}")))?;
        let web = Web::new(ca_file).map_err(|e| Failure::usage(e.to_string()))?;
        let deadline = tokio::time::Instant::now() + TOKEN_WITHIN;
        loop {
            let asked = web
                .send(
                    http::Method::GET,
                    &url.join("/send_tokens"),
                    &[],
                    "",
                    TOKEN_WITHIN,
                )
                .await;
            match asked {
                Ok(answer) => {
                    let told = answer.json();
                    let asset = told.as_ref().and_then(|told| told["asset_id"].as_str());
                    return asset.and_then(|text| text.parse().ok()).ok_or_else(|| {
                        Failure::usage(
                            "asset: name the token; this node has no faucet that tells one",
                        )
                    });
                }
                Err(error) if tokio::time::Instant::now() >= deadline => {
                    return Err(Failure::new(Exit::Unreachable, error.to_string()));
                }
                Err(_) => tokio::time::sleep(TOKEN_PAUSE).await,
            }
        }
    }
}

/// An address out of a host and a port.
trait ToAddress {
    fn to_owned_address(self) -> Option<SocketAddr>;
}

impl ToAddress for (&str, u16) {
    fn to_owned_address(self) -> Option<SocketAddr> {
        let host = self.0.trim_start_matches('[').trim_end_matches(']');
        match host {
            "localhost" => Some(SocketAddr::from(([127, 0, 0, 1], self.1))),
            host => Some(SocketAddr::new(host.parse().ok()?, self.1)),
        }
    }
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::system(dir.display(), &e))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let system = |e: std::io::Error| Failure::system(path.display(), &e);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(system)?;
    let read = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(system)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is too large", path.display())));
    }
    Ok(text)
}

const CONFIG_FLAG: &str = "config";

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Given, clap::Error> {
        let flags = TABLE
            .iter()
            .filter_map(|setting| {
                let text = matches.get_one::<String>(setting.name)?;
                Some((setting.name.to_owned(), text.clone()))
            })
            .collect();
        let file = matches.get_one::<OsString>(CONFIG_FLAG).map(PathBuf::from);
        Ok(Given { file, flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .value_parser(value_parser!(OsString))
            .help(
                "Read settings from this TOML file; several machines stand in [[machine]] tables",
            );
        TABLE.iter().fold(command.arg(config), |command, setting| {
            let default = match setting.default {
                "" => String::new(),
                text => format!(" [default: {text}]"),
            };
            command.arg(
                Arg::new(setting.name)
                    .long(setting.name.replace('_', "-"))
                    .value_name("VALUE")
                    .value_parser(value_parser!(String))
                    .help(format!(
                        "{}{default} [env: {}]",
                        setting.doc, setting.variable
                    )),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args(command)
    }
}
