//! The settings, given meaning: what a node is started with.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use daybook_ledger::Rules;

use crate::{
    bus::BusConfig,
    consortium::ConsortiumConfig,
    passphrase::Source,
    settings::{Settings, SettingsError},
    tracker::TrackerConfig,
};

/// Answer shapes of a listener (asset ledger, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Classic,
    V2,
}

/// What the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Auto,
    Pretty,
    Json,
}

/// Everything a node is started with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) dialect: Dialect,
    pub(crate) also_listen: Vec<(SocketAddr, Dialect)>,
    pub(crate) streams_listen: Option<SocketAddr>,
    pub(crate) chain: String,
    pub(crate) verify_threads: usize,
    pub(crate) token_file: Option<PathBuf>,
    /// Where the passphrase of the node's key files comes from.
    pub(crate) key_passphrase: Source,
    /// `None` for all.
    pub(crate) allowed_origins: Option<Vec<String>>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) stop_within: Duration,
    pub(crate) advertised: Advertised,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    /// Whether there is a faucet.
    pub(crate) dev: bool,
    pub(crate) bus: BusConfig,
    /// `None` where no tracker runs.
    pub(crate) tracker: Option<TrackerConfig>,
    /// `None` where the consortium's book is not served.
    pub(crate) consortium: Option<ConsortiumConfig>,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
}

/// What the node says of itself; `None` where it shall find out.
#[derive(Clone, Debug)]
pub(crate) struct Advertised {
    pub(crate) software: String,
    pub(crate) version: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
}

/// Where the certificate is.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Bounds on clients.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) connections_per_network: Option<usize>,
    pub(crate) requests: Option<Requests>,
    pub(crate) idle: Duration,
    pub(crate) buffer_bytes: usize,
    pub(crate) pool_bytes: usize,
    pub(crate) pool_transactions: usize,
}

/// How often one address may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Requests {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
}

/// Seconds' worth of requests that may come at once, unless the settings say otherwise.
const BURST_SECONDS: f64 = 5.0;
/// Characters of a chain name at most: it stands in headers of logs and in addresses.
const CHAIN_NAME_MAX: usize = 50;
/// The largest transaction that may be allowed: what a block holds is read again within it.
const BODY_BYTES_MAX: u64 = Rules::WIDEST.limits.transaction_bytes_max as u64;
/// The deepest nesting that may be allowed, for the same reason.
const DEPTH_MAX: u64 = Rules::WIDEST.limits.json_depth_max as u64;

impl Config {
    /// Gives the settings meaning.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Config, SettingsError> {
        let path = |name: &str| {
            Some(settings.text(name))
                .filter(|t| !t.is_empty())
                .map(PathBuf::from)
        };
        let text = |name: &str| {
            Some(settings.text(name))
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        let within = |name: &str, least: u64, most: u64| match settings.count(name) {
            count if (least..=most).contains(&count) => usize::try_from(count)
                .map_err(|_| settings.bad(name, "is more than this machine can count")),
            _ => Err(settings.bad(name, format!("must be {least} to {most}"))),
        };
        let data_dir =
            path("data_dir").ok_or_else(|| settings.bad("data_dir", "must not be empty"))?;
        let listen = address(settings, "listen", settings.text("listen"))?
            .ok_or_else(|| settings.bad("listen", "cannot be off"))?;
        let mut also_listen = Vec::new();
        for item in settings.list("also_listen") {
            let wrong = || settings.bad("also_listen", format!("`{item}` is not ADDRESS=DIALECT"));
            let (place, spoken) = item.rsplit_once('=').ok_or_else(wrong)?;
            let place = address(settings, "also_listen", place)?.ok_or_else(wrong)?;
            also_listen.push((place, dialect(spoken).ok_or_else(wrong)?));
        }
        let bus_listen = address(settings, "bus_listen", settings.text("bus_listen"))?;
        let tls = match (path("tls.certificate_file"), path("tls.key_file")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, Some(_)) => {
                return Err(settings.bad("tls.key_file", "needs tls.certificate_file beside it"));
            }
            (Some(_), None) => {
                return Err(settings.bad("tls.certificate_file", "needs tls.key_file beside it"));
            }
        };
        let chain = settings.text("chain").to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if chain.is_empty() || chain.len() > CHAIN_NAME_MAX || !chain.chars().all(plain) {
            let problem = format!("must be 1 to {CHAIN_NAME_MAX} letters, digits, `-`, `_` or `.`");
            return Err(settings.bad("chain", problem));
        }
        let port = settings.count("advertised.port");
        Ok(Config {
            data_dir,
            listen,
            dialect: dialect(settings.text("dialect")).expect("the table lists the dialects"),
            also_listen,
            streams_listen: address(settings, "streams_listen", settings.text("streams_listen"))?,
            chain,
            verify_threads: within("verify_threads", 0, 1024)?,
            token_file: path("token_file"),
            key_passphrase: Source::new(path("key_passphrase_file").as_deref()),
            allowed_origins: match settings.list("allowed_origins") {
                origins if origins.iter().any(|origin| origin == "*") => None,
                origins => Some(origins.to_vec()),
            },
            allowed_hosts: settings.list("allowed_hosts").to_vec(),
            stop_within: Duration::from_secs(settings.count("stop_seconds")),
            advertised: Advertised {
                software: settings.text("advertised.software").to_owned(),
                version: text("advertised.version"),
                scheme: text("advertised.scheme"),
                host: text("advertised.host"),
                port: match u16::try_from(port) {
                    Ok(0) => None,
                    Ok(port) => Some(port),
                    Err(_) => return Err(settings.bad("advertised.port", "must be 0 to 65535")),
                },
            },
            tls,
            limits: Limits {
                connections: within("limits.connections", 1, 1 << 20)?,
                connections_per_network: match within("limits.connections_per_network", 0, 1 << 20)?
                {
                    0 => None,
                    count => Some(count),
                },
                requests: match within("limits.requests_per_second", 0, 1 << 30)? {
                    0 => None,
                    rate => {
                        let per_second = rate as f64;
                        let burst = match within("limits.requests_burst", 0, 1 << 30)? {
                            0 => per_second * BURST_SECONDS,
                            burst => burst as f64,
                        };
                        Some(Requests { per_second, burst })
                    }
                },
                idle: Duration::from_secs(within("limits.idle_seconds", 1, 86_400)? as u64),
                buffer_bytes: within("limits.buffer_bytes", 1 << 20, 1 << 40)?,
                pool_bytes: within("limits.pool_bytes", 1 << 20, 1 << 40)?,
                pool_transactions: within("limits.pool_transactions", 1, 1 << 30)?,
            },
            dev: settings.switch("dev"),
            rules: Rules {
                key_names: settings.switch("rules.key_names"),
                language: settings.switch("rules.language"),
                all_owners_sign: settings.switch("rules.all_owners_sign"),
                limits: daybook_ledger::Limits {
                    transaction_bytes_max: within("limits.body_bytes", 1024, BODY_BYTES_MAX)?,
                    json_depth_max: within("limits.json_depth", 8, DEPTH_MAX)?,
                    condition_depth_max: within("limits.condition_depth", 1, DEPTH_MAX)?,
                    ..daybook_ledger::Limits::default()
                },
            },
            tracker: TrackerConfig::from_settings(settings)?,
            consortium: ConsortiumConfig::from_settings(settings)?,
            bus: BusConfig::from_settings(settings, bus_listen)?,
            log_format: match settings.text("log.format") {
                "pretty" => LogFormat::Pretty,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
            log_level: settings.text("log.level").to_owned(),
        })
    }
}

fn dialect(text: &str) -> Option<Dialect> {
    match text {
        "classic" => Some(Dialect::Classic),
        "v2" => Some(Dialect::V2),
        _ => None,
    }
}

/// An address to listen on, or `None` for "off". Names are looked up.
fn address(
    settings: &Settings,
    name: &str,
    text: &str,
) -> Result<Option<SocketAddr>, SettingsError> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = |why: &dyn std::fmt::Display| {
        settings.bad(
            name,
            format!("`{text}` is not HOST:PORT, such as 127.0.0.1:9984 ({why})"),
        )
    };
    let mut found = text.to_socket_addrs().map_err(|e| wrong(&e))?;
    found.next().map(Some).ok_or_else(|| wrong(&"no such host"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    fn load(flags: &[(&str, &str)]) -> Result<Config, String> {
        let flags: Vec<(String, String)> = flags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let settings = Settings::load(&flags, [], Some(Path::new("/dev/null"))).unwrap();
        Config::from_settings(&settings).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_make_a_node_that_listens_on_loopback_only() {
        let config = load(&[]).unwrap();
        assert!(config.listen.ip().is_loopback());
        assert!(config.streams_listen.unwrap().ip().is_loopback());
        assert_eq!(config.rules, Rules::default());
        assert!(config.tls.is_none() && config.token_file.is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_the_name_of_its_setting() {
        for (name, value, words) in [
            (
                "listen",
                "nowhere",
                "flag --listen: `listen` `nowhere` is not HOST:PORT",
            ),
            ("listen", "off", "`listen` cannot be off"),
            (
                "bus_listen",
                "127.0.0.1:99999",
                "`bus_listen` `127.0.0.1:99999` is not HOST:PORT",
            ),
            (
                "tls.key_file",
                "k.pem",
                "`tls.key_file` needs tls.certificate_file beside it",
            ),
            (
                "also_listen",
                "127.0.0.1:1",
                "`127.0.0.1:1` is not ADDRESS=DIALECT",
            ),
            ("also_listen", "127.0.0.1:1=v9", "is not ADDRESS=DIALECT"),
            ("chain", "a b", "`chain` must be 1 to 50 letters"),
            (
                "advertised.port",
                "70000",
                "`advertised.port` must be 0 to 65535",
            ),
            (
                "limits.connections",
                "0",
                "`limits.connections` must be 1 to",
            ),
        ] {
            let refusal = load(&[(name, value)]).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn one_node_can_speak_both_dialects() {
        let config = load(&[("also_listen", "127.0.0.1:0=v2, [::1]:0=classic")]).unwrap();
        let spoken: Vec<Dialect> = config.also_listen.iter().map(|(_, d)| *d).collect();
        assert_eq!(spoken, [Dialect::V2, Dialect::Classic]);
    }
}
