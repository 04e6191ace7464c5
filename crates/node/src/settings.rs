//! The settings of a node: one table that flags, environment, `daybook.toml`, `daybook config show`
//! and the documentation are made from.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Bytes of a configuration file at most: a wrong path to a large file is refused, not read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What the environment variables of a node begin with.
pub(crate) const ENVIRONMENT_PREFIX: &str = "DAYBOOK_";
/// The configuration file in a data directory.
pub(crate) const FILE_NAME: &str = "daybook.toml";

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in `daybook.toml`, with its section.
    pub(crate) name: &'static str,
    /// What values it takes.
    pub(crate) kind: Kind,
    /// Its default, as it is written in TOML.
    pub(crate) default: &'static str,
    /// What it does, in one or two sentences.
    pub(crate) doc: &'static str,
    /// Shown by `-h` as well as by `--help`.
    pub(crate) common: bool,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Path,
    Address,
    Switch,
    Count,
    List,
    Choice(&'static [&'static str]),
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Switch(bool),
    Count(u64),
    List(Vec<String>),
}

/// Where a value comes from; later ones win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

macro_rules! setting {
    ($name:literal, $kind:expr, $default:literal, $doc:literal) => {
        Setting {
            name: $name,
            kind: $kind,
            default: $default,
            doc: $doc,
            common: false,
        }
    };
    ($name:literal, $kind:expr, $default:literal, $doc:literal, common) => {
        Setting {
            name: $name,
            kind: $kind,
            default: $default,
            doc: $doc,
            common: true,
        }
    };
}

/// Every setting, in the order in which they are shown. A section's settings stand together.
pub(crate) static TABLE: &[Setting] = &[
    setting!(
        "data_dir",
        Kind::Path,
        r#""./daybook-data""#,
        "Where the node keeps everything. Made on the first start. Not for the daybook.toml inside it.",
        common
    ),
    setting!(
        "listen",
        Kind::Address,
        r#""127.0.0.1:9984""#,
        "Address of the HTTP API and the streams. Port 0 takes a free one.",
        common
    ),
    setting!(
        "dialect",
        Kind::Choice(&["classic", "v2"]),
        r#""classic""#,
        "Answer shapes of the main listener: `classic` for BigchainDB 2.x and Planetmint up to 2.1, `v2` for Planetmint from 2.2."
    ),
    setting!(
        "also_listen",
        Kind::List,
        "[]",
        "More addresses of the HTTP API, each with its dialect: \"ADDRESS=DIALECT\"."
    ),
    setting!(
        "streams_listen",
        Kind::Address,
        r#""127.0.0.1:9985""#,
        "Address of the event streams by themselves, where old clients look for them; \"off\" for none.",
        common
    ),
    setting!(
        "bus_listen",
        Kind::Address,
        r#""127.0.0.1:9001""#,
        "Address of the service bus; \"off\" for none.",
        common
    ),
    setting!(
        "chain",
        Kind::Text,
        r#""daybook""#,
        "Name of the network. Read on the first start only; afterwards genesis.json holds it."
    ),
    setting!(
        "dev",
        Kind::Switch,
        "false",
        "A node to try things with: it prints a key for the service bus that is for every name until it stops, and POST /send_tokens?address=PUBLIC_KEY gives units of the tracker's token, or of one of its own where no tracker runs. For nobody else's reach.",
        common
    ),
    setting!(
        "verify_threads",
        Kind::Count,
        "0",
        "Threads that check signatures; 0 takes one per core.",
        common
    ),
    setting!(
        "token_file",
        Kind::Path,
        r#""""#,
        "File with the bearer token that writes must carry; empty lets everyone write. Loopback or TLS is for you to see to.",
        common
    ),
    setting!(
        "key_passphrase_file",
        Kind::Path,
        r#""""#,
        "File whose first line is the passphrase of the node's key files. With it, or with the variable DAYBOOK_KEY_PASSPHRASE, keys made on the first start are encrypted."
    ),
    setting!(
        "allowed_origins",
        Kind::List,
        r#"["*"]"#,
        "Origins whose web pages may use this node, such as \"https://shop.example\"; \"*\" stands for all, which the protocol's browser clients expect. Pages of other origins are refused."
    ),
    setting!(
        "allowed_hosts",
        Kind::List,
        "[]",
        "Host names, beside loopback names, by which requests may call a listener on loopback: the public name, behind a proxy."
    ),
    setting!(
        "stop_seconds",
        Kind::Count,
        "20",
        "How long a stop may take: connections drain and waiting transactions commit within it."
    ),
    setting!(
        "advertised.software",
        Kind::Text,
        r#""Planetmint""#,
        "The name in `GET /`. Test suites of old clients ask for \"BigchainDB\" or \"Planetmint\"."
    ),
    setting!(
        "advertised.version",
        Kind::Text,
        r#""""#,
        "The version in `GET /`; empty for the node's own."
    ),
    setting!(
        "advertised.scheme",
        Kind::Choice(&["", "ws", "wss"]),
        r#""""#,
        "Scheme of the stream addresses that `GET /api/v1` names; empty follows the TLS settings."
    ),
    setting!(
        "advertised.host",
        Kind::Text,
        r#""""#,
        "Host of those addresses: the public one, behind a proxy; empty for the listener's."
    ),
    setting!(
        "advertised.port",
        Kind::Count,
        "0",
        "Port of those addresses; 0 for the streams listener's."
    ),
    setting!(
        "tls.certificate_file",
        Kind::Path,
        r#""""#,
        "PEM file with the certificate chain; with tls.key_file it makes every listener speak TLS."
    ),
    setting!(
        "tls.key_file",
        Kind::Path,
        r#""""#,
        "PEM file with the certificate's private key."
    ),
    setting!(
        "limits.body_bytes",
        Kind::Count,
        "1048576",
        "Bytes of one transaction. One value for all nodes of a network."
    ),
    setting!(
        "limits.json_depth",
        Kind::Count,
        "512",
        "Nesting of JSON arrays and objects. One value for all nodes of a network."
    ),
    setting!(
        "limits.condition_depth",
        Kind::Count,
        "100",
        "Nesting of threshold conditions. One value for all nodes of a network."
    ),
    setting!(
        "limits.connections",
        Kind::Count,
        "8192",
        "Open connections of all listeners together; further ones are answered 503."
    ),
    setting!(
        "limits.connections_per_network",
        Kind::Count,
        "1024",
        "Of these, those of one address of the internet, or of one IPv6 /64; 0 for any number, as behind a proxy on another machine. This machine's own are not counted."
    ),
    setting!(
        "limits.requests_per_second",
        Kind::Count,
        "0",
        "Requests per second from one address, in the long run, before it is told to wait; 0 for any number. A transaction of a bulk door counts as one."
    ),
    setting!(
        "limits.requests_burst",
        Kind::Count,
        "0",
        "Requests at once from one address after a pause; 0 for five seconds' worth."
    ),
    setting!(
        "limits.idle_seconds",
        Kind::Count,
        "75",
        "Seconds for which a connection without a request is kept."
    ),
    setting!(
        "limits.buffer_bytes",
        Kind::Count,
        "268435456",
        "Bytes of request bodies that are being read, of long answers, and of stream frames made for one reader alone, of all connections together; beyond it bodies are answered 503 and such readers wait."
    ),
    setting!(
        "limits.pool_bytes",
        Kind::Count,
        "67108864",
        "Bytes of transactions that wait for their block; beyond it submitters are told to try again."
    ),
    setting!(
        "limits.pool_transactions",
        Kind::Count,
        "32768",
        "Transactions that wait for their block; beyond it submitters are told to try again."
    ),
    setting!(
        "bus.admin_token_file",
        Kind::Path,
        r#""""#,
        "File with the bearer token that readers of the bus's pages must show, `/`, `/healthz` and `/readyz` aside; empty lets everyone read."
    ),
    setting!(
        "bus.connections",
        Kind::Count,
        "4096",
        "Connections and sessions of the service bus at once; further ones are closed."
    ),
    setting!(
        "bus.on_main_listener",
        Kind::Switch,
        "true",
        "Answer the service bus's Socket.IO on the main listener too, under `/socket.io/`, with its TLS."
    ),
    setting!(
        "bus.ready_ms",
        Kind::Count,
        "2000",
        "Milliseconds that a service may take between `shake_id` and `shake_ready`."
    ),
    setting!(
        "bus.strict",
        Kind::Switch,
        "true",
        "Refuse wrong ids and answers to unknown requests; otherwise correct or drop them without a word."
    ),
    setting!(
        "bus.legacy_broadcast",
        Kind::Switch,
        "true",
        "A service that never subscribes hears every request, as clients of 2015 expect."
    ),
    setting!(
        "bus.error_dialect",
        Kind::Choice(&["note", "code"]),
        r#""note""#,
        "The word for a wrong key: `invalid_key` as in the protocol note, or `invalid_secret_key` as in the code."
    ),
    setting!(
        "bus.subjects",
        Kind::List,
        "[]",
        "Mode and deadline that are fixed for names: \"PATTERN=one:2000\" (auto, one or all; milliseconds), either part optional."
    ),
    setting!(
        "bus.timeout_ms",
        Kind::Count,
        "30000",
        "Milliseconds after which a request that names no deadline is answered with `timeout`."
    ),
    setting!(
        "bus.requests_per_second",
        Kind::Count,
        "0",
        "Requests per second of one service instance, in the long run; 0 for any number."
    ),
    setting!(
        "bus.payload_bytes",
        Kind::Count,
        "1048576",
        "Bytes of one event's payload."
    ),
    setting!(
        "bus.outbound_messages",
        Kind::Count,
        "1024",
        "Messages that wait for one connection to read them; a full queue is skipped, and closed after bus.slow_seconds."
    ),
    setting!(
        "bus.outbound_bytes",
        Kind::Count,
        "8388608",
        "Bytes that wait for one connection to read them."
    ),
    setting!(
        "bus.slow_seconds",
        Kind::Count,
        "10",
        "Seconds after which a connection whose queue stays full is closed."
    ),
    setting!(
        "bus.remember_seconds",
        Kind::Count,
        "120",
        "Seconds for which a request's answer is kept for a repetition of the same request id, also over a restart; 0 for none."
    ),
    setting!(
        "bus.remember_bytes",
        Kind::Count,
        "67108864",
        "Bytes of answers that are kept; the oldest of the asking instance give way."
    ),
    setting!(
        "bus.durable_messages",
        Kind::Count,
        "100000",
        "Messages that wait in durable subscriptions, of all together; beyond it senders are told `overloaded`."
    ),
    setting!(
        "bus.durable_bytes",
        Kind::Count,
        "67108864",
        "Bytes of them, and as much again of dead letters."
    ),
    setting!(
        "rules.key_names",
        Kind::Switch,
        "true",
        "Refuse keys with `.`, a leading `$` or NUL in asset data and metadata. One value for all nodes of a network."
    ),
    setting!(
        "rules.language",
        Kind::Switch,
        "true",
        "Refuse unknown values of `language` in asset data and metadata. One value for all nodes of a network."
    ),
    setting!(
        "rules.all_owners_sign",
        Kind::Switch,
        "false",
        "Every key in owners_before must sign a CREATE. One value for all nodes of a network."
    ),
    setting!(
        "tracker.enabled",
        Kind::Switch,
        "true",
        "Run the wallet tracker: payment channels for traffic, over a WebSocket on the main listener."
    ),
    setting!(
        "tracker.token_name",
        Kind::Text,
        r#""daybook token""#,
        "Name of the asset whose units are the tracker's tokens. Read on the first start only, as the two that follow."
    ),
    setting!(
        "tracker.token_amount",
        Kind::Count,
        "1000000000000",
        "Units of that asset."
    ),
    setting!(
        "tracker.token_owner",
        Kind::Text,
        r#""""#,
        "Ed25519 key, in base58, that gets all of them and makes deposits by itself; empty for the key in token.key, from which the first deposit is made."
    ),
    setting!(
        "tracker.mint",
        Kind::Count,
        "100000",
        "Tokens of the first deposit: what the tracker's wallet begins with."
    ),
    setting!(
        "tracker.income_price",
        Kind::Count,
        "500",
        "The least that an income address takes for a quantum, in tokens."
    ),
    setting!(
        "tracker.spend_price",
        Kind::Count,
        "500",
        "The most that a spend address offers for a quantum, in tokens."
    ),
    setting!(
        "tracker.quantum_power",
        Kind::Count,
        "25",
        "The quantum of both prices: 2 to this power, in bytes."
    ),
    setting!(
        "tracker.spend_grant",
        Kind::Count,
        "10000",
        "Tokens moved onto a new spend address, as far as the wallet has them."
    ),
    setting!(
        "tracker.income_lifetime_seconds",
        Kind::Count,
        "1800",
        "How long an income address lives."
    ),
    setting!(
        "tracker.spend_lifetime_seconds",
        Kind::Count,
        "1800",
        "How long a spend address lives."
    ),
    setting!(
        "tracker.transfer_lifetime_seconds",
        Kind::Count,
        "300",
        "How long a transfer channel lives at most."
    ),
    setting!(
        "tracker.open_spends_per_key",
        Kind::Count,
        "4",
        "Spend addresses that one key may have open."
    ),
    setting!(
        "tracker.open_incomes_per_key",
        Kind::Count,
        "16",
        "Income addresses that one key may have open."
    ),
    setting!(
        "tracker.open_transfers_per_address",
        Kind::Count,
        "64",
        "Transfer channels that may be open on one address."
    ),
    setting!(
        "tracker.open_spends_per_network",
        Kind::Count,
        "16",
        "Spend addresses that one address of the internet, or one IPv6 /64, may have open. This machine's own are not counted."
    ),
    setting!(
        "tracker.grants_per_network_per_day",
        Kind::Count,
        "8",
        "Grants that one such network may get in a day and not give back; 0 for any number. Whoever opens a spend address can keep what is on it."
    ),
    setting!(
        "tracker.opens_per_minute",
        Kind::Count,
        "60",
        "Addresses that one such network may open in a minute; 0 for any number."
    ),
    setting!(
        "tracker.frames_per_second",
        Kind::Count,
        "5000",
        "Requests per second over one connection, in the long run; 0 for any number."
    ),
    setting!(
        "tracker.strict_v2",
        Kind::Switch,
        "false",
        "Refuse messages of version 1 where a copy of one could be used again: opening and closing addresses."
    ),
    setting!(
        "tracker.legacy_ec_md5",
        Kind::Switch,
        "false",
        "Take P-256 signatures over MD5, as the first clients made them. MD5 is broken."
    ),
    setting!(
        "tracker.public_log",
        Kind::Switch,
        "false",
        "Let everyone list everybody's transactions; otherwise each key sees its own."
    ),
    setting!(
        "consortium.enabled",
        Kind::Switch,
        "true",
        "Serve the ledgers that organisations share: their members propose, endorse and read through this node."
    ),
    setting!(
        "consortium.members",
        Kind::List,
        "[]",
        "Files with members' cards. At a start a validator's node founds the network with them, and later admits those that are new."
    ),
    setting!(
        "consortium.admission",
        Kind::Choice(&["validators", "members"]),
        r#""validators""#,
        "Who lets further members in: the validators, or more than half of the members. Written when the network is founded, as the two that follow."
    ),
    setting!(
        "consortium.deadline_seconds",
        Kind::Count,
        "600",
        "The longest time that a proposal may stay open."
    ),
    setting!(
        "consortium.documents",
        Kind::Choice(&["any", "compatible", "strict"]),
        r#""strict""#,
        "What entries of ledgers must be: documents of containers, checked strictly or as the original service did, or anything."
    ),
    setting!(
        "log.format",
        Kind::Choice(&["auto", "pretty", "json"]),
        r#""auto""#,
        "Form of the log on standard error; `auto` is pretty on a terminal and JSON otherwise."
    ),
    setting!(
        "log.level",
        Kind::Text,
        r#""info""#,
        "What is logged: error, warn, info, debug or trace, also per module: \"info,daybook_pipeline=debug\".",
        common
    ),
];

/// Environment variables that begin like settings and mean something else.
const OTHER_VARIABLES: &[&str] = &[
    "CONFIG",
    "URL",
    "CA_FILE",
    "BUS_URL",
    "BUS_NAME",
    "BUS_KEY_FILE",
    "KEY_PASSPHRASE",
    "KNOWN_TRACKERS",
];

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{place}: unknown setting `{name}`{hint}")]
    UnknownName {
        place: String,
        name: String,
        hint: String,
    },
    #[error("{place}: `{name}` {problem}")]
    BadValue {
        place: String,
        name: String,
        problem: String,
    },
    #[error("{path}: {problem}")]
    BadFile { path: PathBuf, problem: String },
}

/// All settings with their values and where each comes from.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    values: Vec<(Value, Origin)>,
}

impl Setting {
    /// The name of its flag, without the dashes in front.
    pub(crate) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// Its environment variable.
    pub(crate) fn variable(&self) -> String {
        format!(
            "{ENVIRONMENT_PREFIX}{}",
            self.name.replace('.', "_").to_uppercase()
        )
    }

    /// Reads a value from a flag or a variable.
    fn read_text(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Kind::Switch => match text {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                _ => Err("must be true or false".to_owned()),
            },
            Kind::Count => text
                .replace('_', "")
                .parse()
                .map(Value::Count)
                .map_err(|_| "must be a whole number, not negative".to_owned()),
            Kind::List => Ok(Value::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )),
            Kind::Text | Kind::Path | Kind::Address => Ok(Value::Text(text.to_owned())),
            Kind::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(choices) => Err(wants_one_of(choices)),
        }
    }

    /// Reads a value from TOML.
    fn read_toml(&self, value: &toml::Value) -> Result<Value, String> {
        let wrong = |wanted: &str| Err(format!("must be {wanted}, not {}", value.type_str()));
        match (self.kind, value) {
            (Kind::Switch, toml::Value::Boolean(on)) => Ok(Value::Switch(*on)),
            (Kind::Switch, _) => wrong("true or false"),
            (Kind::Count, toml::Value::Integer(count)) => u64::try_from(*count)
                .map(Value::Count)
                .map_err(|_| "must not be negative".to_owned()),
            (Kind::Count, _) => wrong("a whole number"),
            (Kind::List, toml::Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map(Value::List)
                .ok_or_else(|| "must be a list of texts".to_owned()),
            (Kind::List, _) => wrong("a list of texts"),
            (_, toml::Value::String(text)) => self.read_text(text),
            _ => wrong("a text"),
        }
    }

    fn default_value(&self) -> Value {
        let document: toml::Table = format!("value = {}", self.default)
            .parse()
            .expect("defaults in the table are TOML");
        self.read_toml(&document["value"])
            .expect("defaults in the table fit their kinds")
    }
}

impl Settings {
    /// Puts the layers together: flags over environment over file over defaults. `flags` are pairs of
    /// setting name and text. The file is `config_file`, or `daybook.toml` in the data directory if
    /// there is one.
    pub(crate) fn load(
        flags: &[(String, String)],
        environment: impl IntoIterator<Item = (String, String)>,
        config_file: Option<&Path>,
    ) -> Result<Settings, SettingsError> {
        let mut settings = Settings {
            values: TABLE
                .iter()
                .map(|setting| (setting.default_value(), Origin::Default))
                .collect(),
        };
        let environment = from_environment(environment)?;
        if let Some(path) = config_file {
            settings.read_file(path)?;
            settings.lay(&environment, flags)?;
            return Ok(settings);
        }
        // The data directory decides which file is read, so the layers above are needed first.
        settings.lay(&environment, flags)?;
        let path = Path::new(settings.text("data_dir")).join(FILE_NAME);
        if path.exists() {
            let (data_dir, origin) = settings.values[0].clone();
            settings.read_file(&path)?;
            if matches!(settings.values[0].1, Origin::File(_)) {
                return Err(SettingsError::BadValue {
                    place: path.display().to_string(),
                    name: "data_dir".to_owned(),
                    problem: "cannot be set in the data directory itself".to_owned(),
                });
            }
            settings.values[0] = (data_dir, origin);
            settings.lay(&environment, flags)?;
        }
        Ok(settings)
    }

    fn lay(
        &mut self,
        environment: &[(usize, Value, String)],
        flags: &[(String, String)],
    ) -> Result<(), SettingsError> {
        for (place, value, variable) in environment {
            self.values[*place] = (value.clone(), Origin::Environment(variable.clone()));
        }
        for (name, text) in flags {
            let place = place_of(name).expect("flags are made from the table");
            let flag = format!("--{}", TABLE[place].flag());
            let value =
                TABLE[place]
                    .read_text(text)
                    .map_err(|problem| SettingsError::BadValue {
                        place: "command line".to_owned(),
                        name: flag.clone(),
                        problem,
                    })?;
            self.values[place] = (value, Origin::Flag(flag));
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let bad = |problem: String| SettingsError::BadFile {
            path: path.to_owned(),
            problem,
        };
        let size = std::fs::metadata(path)
            .map_err(|e| bad(e.to_string()))?
            .len();
        if size > FILE_BYTES_MAX {
            return Err(bad(format!("{size} bytes is too much for a configuration")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| bad(e.to_string()))?;
        let mut found = BTreeMap::new();
        flatten("", &table, &mut found);
        for (name, value) in found {
            let place = path.display().to_string();
            let Some(index) = place_of(&name) else {
                return Err(SettingsError::UnknownName {
                    place,
                    hint: hint(&name),
                    name,
                });
            };
            let value =
                TABLE[index]
                    .read_toml(value)
                    .map_err(|problem| SettingsError::BadValue {
                        place,
                        name,
                        problem,
                    })?;
            self.values[index] = (value, Origin::File(path.to_owned()));
        }
        Ok(())
    }

    /// Every setting with its value and origin, in the table's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Value, &Origin)> {
        TABLE
            .iter()
            .zip(&self.values)
            .map(|(setting, (value, origin))| (setting, value, origin))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            _ => unreachable!("{name} is not a text in the table"),
        }
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Count(count) => *count,
            _ => unreachable!("{name} is not a count in the table"),
        }
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Switch(on) => *on,
            _ => unreachable!("{name} is not a switch in the table"),
        }
    }

    pub(crate) fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(items) => items,
            _ => unreachable!("{name} is not a list in the table"),
        }
    }

    /// Refuses the value of a setting, naming where it comes from.
    pub(crate) fn bad(&self, name: &str, problem: impl Into<String>) -> SettingsError {
        let place = place_of(name).expect("callers name settings of the table");
        SettingsError::BadValue {
            place: self.values[place].1.to_string(),
            name: name.to_owned(),
            problem: problem.into(),
        }
    }

    fn value(&self, name: &str) -> &Value {
        &self.values[place_of(name).expect("callers name settings of the table")].0
    }
}

/// A commented `daybook.toml` in which everything has its default.
pub(crate) fn template() -> String {
    let mut text = String::from(
        "# Settings of this Daybook node. Every line shows a default; remove the # to change it.\n\
         # Flags and DAYBOOK_… variables go before this file: `daybook config show` tells what holds.\n",
    );
    let mut section = "";
    for setting in TABLE.iter().filter(|setting| setting.name != "data_dir") {
        let (its_section, key) = setting.name.rsplit_once('.').unwrap_or(("", setting.name));
        if its_section != section {
            section = its_section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&format!("\n# {}\n", setting.doc));
        if let Kind::Choice(choices) = setting.kind {
            text.push_str(&format!("# {}\n", capitalised(&wants_one_of(choices))));
        }
        text.push_str(&format!("#{key} = {}\n", setting.default));
    }
    text
}

/// The settings as a Markdown table, for the documentation.
#[cfg(test)]
pub(crate) fn markdown() -> String {
    let mut text =
        String::from("| setting | flag | variable | default | |\n|---|---|---|---|---|\n");
    for setting in TABLE {
        text.push_str(&format!(
            "| `{}` | `--{}` | `{}` | `{}` | {} |\n",
            setting.name,
            setting.flag(),
            setting.variable(),
            setting.default,
            setting.doc
        ));
    }
    text
}

fn from_environment(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(usize, Value, String)>, SettingsError> {
    let mut found = Vec::new();
    for (variable, text) in environment {
        let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else {
            continue;
        };
        // Kubernetes tells every container of the services beside it; one called "daybook" makes
        // these.
        let service = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
        if service || OTHER_VARIABLES.contains(&rest) {
            continue;
        }
        let place = "environment".to_owned();
        let Some(index) = TABLE
            .iter()
            .position(|setting| setting.variable() == variable)
        else {
            let name = rest.to_lowercase();
            return Err(SettingsError::UnknownName {
                place,
                hint: hint(&name),
                name: variable,
            });
        };
        let value = TABLE[index]
            .read_text(&text)
            .map_err(|problem| SettingsError::BadValue {
                place,
                name: variable.clone(),
                problem,
            })?;
        found.push((index, value, variable));
    }
    Ok(found)
}

fn place_of(name: &str) -> Option<usize> {
    TABLE.iter().position(|setting| setting.name == name)
}

fn flatten<'t>(prefix: &str, table: &'t toml::Table, into: &mut BTreeMap<String, &'t toml::Value>) {
    for (key, value) in table {
        let name = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => flatten(&name, inner, into),
            // An empty section says nothing, but a misspelt one shall not pass.
            toml::Value::Table(_)
                if TABLE
                    .iter()
                    .any(|setting| setting.name.starts_with(&format!("{name}."))) => {}
            _ => {
                into.insert(name, value);
            }
        }
    }
}

/// The setting that was probably meant.
fn hint(name: &str) -> String {
    let plain = |name: &str| name.replace('.', "_");
    TABLE
        .iter()
        .map(|setting| {
            let last = setting.name.rsplit('.').next().unwrap_or(setting.name);
            let distance = edits(&plain(name), &plain(setting.name)).min(edits(name, last));
            (distance, setting.name)
        })
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// How many letters have to be put in, taken out or changed to make one word of the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn wants_one_of(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices
        .iter()
        .map(|choice| format!("\"{choice}\""))
        .collect();
    format!("must be one of {}", quoted.join(", "))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Value::Switch(on) => write!(f, "{on}"),
            Value::Count(count) => write!(f, "{count}"),
            Value::List(items) => {
                let items = items.iter().cloned().map(toml::Value::String).collect();
                write!(f, "{}", toml::Value::Array(items))
            }
        }
    }
}

impl Value {
    /// The value as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::Switch(on) => (*on).into(),
            Value::Count(count) => (*count).into(),
            Value::List(items) => items.clone().into(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Loads a file with `toml`, variables and flags; answers value and origin of `name`.
    fn check(
        name: &str,
        toml: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), toml).unwrap();
        let mut flags: Vec<(String, String)> = flags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        flags.push(("data_dir".to_owned(), dir.path().display().to_string()));
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let plain = |text: String| text.replace(&dir.path().display().to_string(), "DIR");
        let settings =
            Settings::load(&flags, environment, None).map_err(|e| plain(e.to_string()))?;
        let (_, value, origin) = settings.iter().find(|(s, _, _)| s.name == name).unwrap();
        Ok(plain(format!("{value} from {origin}")))
    }

    #[test]
    fn every_default_fits_its_kind_and_every_name_is_unique() {
        let settings = Settings::load(&[], [], Some(Path::new("/dev/null"))).unwrap();
        assert_eq!(settings.iter().count(), TABLE.len());
        for name in [Setting::flag, Setting::variable] {
            let names: std::collections::BTreeSet<String> = TABLE.iter().map(name).collect();
            assert_eq!(names.len(), TABLE.len());
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = "listen = \"1.1.1.1:1\"";
        let env = [("DAYBOOK_LISTEN", "2.2.2.2:2")];
        let flag = [("listen", "3.3.3.3:3")];
        let check = |toml, env: &[_], flag: &[_]| check("listen", toml, env, flag).unwrap();
        assert_eq!(check("", &[], &[]), r#""127.0.0.1:9984" from default"#);
        assert_eq!(
            check(file, &[], &[]),
            r#""1.1.1.1:1" from DIR/daybook.toml"#
        );
        assert_eq!(
            check(file, &env, &[]),
            r#""2.2.2.2:2" from environment DAYBOOK_LISTEN"#
        );
        assert_eq!(
            check(file, &env, &flag),
            r#""3.3.3.3:3" from flag --listen"#
        );
    }

    #[test]
    fn sections_nest_in_the_file_and_are_spelt_out_elsewhere() {
        let check = |toml, env: &[_]| check("limits.body_bytes", toml, env, &[]).unwrap();
        assert_eq!(
            check("[limits]\nbody_bytes = 5", &[]),
            "5 from DIR/daybook.toml"
        );
        assert_eq!(
            check("", &[("DAYBOOK_LIMITS_BODY_BYTES", "2_000")]),
            "2000 from environment DAYBOOK_LIMITS_BODY_BYTES"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_name_wherever_it_stands() {
        let refusal = |toml, env: &[_]| check("listen", toml, env, &[]).unwrap_err();
        assert_eq!(
            refusal("[limits]\nbody_byte = 5", &[]),
            "DIR/daybook.toml: unknown setting `limits.body_byte`; did you mean `limits.body_bytes`?"
        );
        assert_eq!(
            refusal("[zzzzzzzz]\n", &[]),
            "DIR/daybook.toml: unknown setting `zzzzzzzz`"
        );
        assert_eq!(
            refusal("", &[("DAYBOOK_LISTN", "x")]),
            "environment: unknown setting `DAYBOOK_LISTN`; did you mean `listen`?"
        );
    }

    #[test]
    fn variables_of_a_neighbouring_service_are_not_taken_for_settings() {
        let env = [
            ("DAYBOOK_PORT_9984_TCP", "tcp://10.0.0.1:9984"),
            ("DAYBOOK_SERVICE_HOST", "x"),
        ];
        assert!(check("listen", "", &env, &[]).is_ok());
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_by_name() {
        let refusal = |toml| check("listen", toml, &[], &[]).unwrap_err();
        assert_eq!(
            refusal("[rules]\nlanguage = 1"),
            "DIR/daybook.toml: `rules.language` must be true or false, not integer"
        );
        assert_eq!(
            refusal("dialect = \"v3\""),
            "DIR/daybook.toml: `dialect` must be one of \"classic\", \"v2\""
        );
        assert_eq!(
            refusal("verify_threads = -1"),
            "DIR/daybook.toml: `verify_threads` must not be negative"
        );
        assert_eq!(
            refusal("data_dir = \"/x\""),
            "DIR/daybook.toml: `data_dir` cannot be set in the data directory itself"
        );
    }

    #[test]
    fn the_template_is_valid_and_changes_nothing_also_with_every_line_switched_on() {
        let on: String = template()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        for text in [template(), on] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.toml");
            std::fs::write(&path, &text).unwrap();
            let settings = Settings::load(&[], [], Some(&path)).unwrap();
            for (setting, value, _) in settings.iter() {
                assert_eq!(*value, setting.default_value(), "{}", setting.name);
            }
        }
    }

    #[test]
    fn the_operations_page_lists_every_setting_as_it_is() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains(&markdown()),
            "docs/operations.md shall contain:\n{}",
            markdown()
        );
    }
}
