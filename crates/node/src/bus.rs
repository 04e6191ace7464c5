//! The service bus of a node: its keys, its listener, and `daybook bus`.

use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use daybook_bus::Pattern;
use daybook_bus_gateway::{
    AdminToken, Disk, Handle, Keyring, KeyringError, Listener, Mount, Redb, Running, ServiceKey,
    Settings, new_key,
};
use daybook_gateway::{Guest, GuestAnswer};
use daybook_pipeline::Node;
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::{
    cli::{BusService, ServiceAdd},
    config::Config,
    control::{self, Request},
    datadir::DataDir,
    failure::{Exit, Failure},
    keyfile,
    node::blocking,
    out::Out,
    settings::{Settings as Table, SettingsError},
};

/// Bytes of the file of services at most.
const SERVICES_BYTES_MAX: u64 = 16 << 20;
/// Services and keys in it at most.
const SERVICES_MAX: usize = 10_000;
/// Random characters in the name of a key.
const KEY_ID_CHARS: usize = 8;
/// Bytes of a key that is read from standard input or a file at most.
const KEY_BYTES_MAX: u64 = 1_024;
/// The file of durable subscriptions, in the bus's folder.
const STORE: &str = "store.redb";
/// The name of the key that `--dev` makes.
const DEV_ID: &str = "dev";

/// What the settings say about the bus.
#[derive(Clone, Debug)]
pub(crate) struct BusConfig {
    /// Where it listens; `None` for nowhere.
    pub(crate) listen: Option<SocketAddr>,
    /// The main listener answers its Socket.IO as well.
    pub(crate) on_main_listener: bool,
    /// A key for every name is made for this run.
    pub(crate) dev: bool,
    rules: daybook_bus::Settings,
    connections: usize,
    outbound_messages: usize,
    outbound_bytes: usize,
    admin_token_file: Option<PathBuf>,
}

impl BusConfig {
    pub(crate) fn from_settings(
        settings: &Table,
        listen: Option<SocketAddr>,
    ) -> Result<BusConfig, SettingsError> {
        let within = |name: &str, least: u64, most: u64| match settings.count(name) {
            count if (least..=most).contains(&count) => Ok(count),
            _ => Err(settings.bad(name, format!("must be {least} to {most}"))),
        };
        let small = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let subjects = settings
            .list("bus.subjects")
            .iter()
            .map(|item| {
                subject(item).ok_or_else(|| {
                    let what =
                        format!("`{item}` is not PATTERN=MODE, PATTERN=MODE:MS or PATTERN=:MS");
                    settings.bad("bus.subjects", what)
                })
            })
            .collect::<Result<_, _>>()?;
        let rules = daybook_bus::Settings {
            ready_ms: within("bus.ready_ms", 1, 3_600_000)?,
            strict: settings.switch("bus.strict"),
            legacy_broadcast: settings.switch("bus.legacy_broadcast"),
            code_dialect: settings.text("bus.error_dialect") == "code",
            subjects,
            timeout_ms: within("bus.timeout_ms", 1, 300_000)?,
            remember_ms: within("bus.remember_seconds", 0, 86_400)? * 1_000,
            remember_bytes_max: small(within("bus.remember_bytes", 0, 1 << 40)?),
            payload_bytes_max: small(within("bus.payload_bytes", 1 << 10, 64 << 20)?),
            requests_per_second: u32::try_from(within("bus.requests_per_second", 0, 1 << 20)?)
                .unwrap_or(u32::MAX),
            slow_ms: within("bus.slow_seconds", 1, 3_600)? * 1_000,
            durable_messages_max: small(within("bus.durable_messages", 0, 1 << 30)?),
            durable_bytes_max: small(within("bus.durable_bytes", 0, 1 << 40)?),
            ..daybook_bus::Settings::default()
        };
        let admin_token_file = Some(settings.text("bus.admin_token_file"))
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        Ok(BusConfig {
            listen,
            on_main_listener: settings.switch("bus.on_main_listener"),
            dev: settings.switch("dev"),
            rules,
            connections: small(within("bus.connections", 1, 1 << 20)?),
            outbound_messages: small(within("bus.outbound_messages", 16, 1 << 20)?),
            outbound_bytes: small(within("bus.outbound_bytes", 1 << 16, 1 << 40)?),
            admin_token_file,
        })
    }
}

/// Reads `grid.*=one`, `grid.*=one:2000` or `grid.*=:2000`.
fn subject(text: &str) -> Option<daybook_bus::Subject> {
    let (pattern, rest) = text.rsplit_once('=')?;
    let (mode, timeout) = match rest.split_once(':') {
        None => (rest, None),
        Some((mode, ms)) => (
            mode,
            Some(ms.parse().ok().filter(|ms| (1..=300_000).contains(ms))?),
        ),
    };
    let delivery = match mode {
        "" if timeout.is_some() => None,
        "auto" => Some(daybook_bus::Delivery::Auto),
        "one" => Some(daybook_bus::Delivery::One),
        "all" => Some(daybook_bus::Delivery::All),
        _ => return None,
    };
    Some(daybook_bus::Subject {
        pattern: Pattern::new(pattern).ok()?,
        delivery,
        timeout_ms: timeout,
    })
}

/// The bus of a running node.
pub(crate) struct LiveBus {
    pub(crate) address: SocketAddr,
    /// The text of the development key.
    pub(crate) dev_key: Option<String>,
    pub(crate) reloader: Reloader,
    running: Running,
}

/// The bus on the main listener, which is there before the bus is.
#[derive(Debug, Default)]
pub(crate) struct MountedBus(OnceLock<Mount>);

impl MountedBus {
    pub(crate) fn open(&self, bus: &LiveBus) {
        // A node starts one bus.
        let _ = self.0.set(bus.running.mount());
    }
}

impl Guest for MountedBus {
    fn takes(&self, path: &str) -> bool {
        Mount::takes(path)
    }

    fn answer(&self, request: http::Request<Incoming>, _: IpAddr, _: bool) -> GuestAnswer<'_> {
        Box::pin(async move {
            match self.0.get() {
                Some(mount) => mount.answer(request).await,
                None => Mount::unavailable(),
            }
        })
    }
}

/// Takes changed keys into a running bus.
#[derive(Clone)]
pub(crate) struct Reloader {
    handle: Handle,
    path: PathBuf,
    dev: Option<ServiceKey>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServicesFile {
    services: Vec<ServiceKey>,
}

impl LiveBus {
    /// Starts the bus on a socket that is bound already.
    pub(crate) async fn start(
        config: &Config,
        socket: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        node: &Node,
        metrics: PrometheusHandle,
    ) -> Result<LiveBus, Failure> {
        let address = socket
            .local_addr()
            .map_err(|e| Failure::system("the service bus", &e))?;
        let dir = DataDir::new(&config.data_dir);
        make_folder(&dir.bus())?;
        let path = dir.services_file();
        let mut keys = read_services(&path)?;
        let (dev_key, dev) = match config.bus.dev {
            true => {
                let (text, key) = blocking(development_key).await??;
                keys.push(key.clone());
                (Some(text), Some(key))
            }
            false => (None, None),
        };
        let keyring = Arc::new(Keyring::new(&keys).map_err(|e| bad_keys(&path, &e))?);
        let store = dir.bus().join(STORE);
        let disk = blocking(move || Redb::open(&store))
            .await?
            .map_err(|e| Failure::new(Exit::Damaged, e.to_string()))?;
        let mut settings = settings(config, metrics)?;
        settings.notes = Some(dir.bus());
        let (handle, running) = daybook_bus_gateway::start(
            vec![Listener { socket, tls }],
            Some(node.clone()),
            keyring,
            Box::new(disk),
            settings,
        )
        .map_err(|e| Failure::new(Exit::Damaged, e.to_string()))?;
        Ok(LiveBus {
            address,
            dev_key,
            reloader: Reloader { handle, path, dev },
            running,
        })
    }

    /// The running bus, for those who look at it.
    pub(crate) fn handle(&self) -> Handle {
        self.reloader.handle.clone()
    }

    pub(crate) async fn stop(self, within: Duration) {
        self.running.stop(within).await;
    }
}

impl Reloader {
    /// Copies what the running bus keeps into a new file.
    pub(crate) fn copy_store(&self, to: &Path) -> Result<(), Failure> {
        let failed = |e: daybook_bus_gateway::DiskError| Failure::new(Exit::System, e.to_string());
        self.handle.copy_store(to).map_err(failed)
    }

    /// Reads the keys anew; connections of those that are gone are closed.
    pub(crate) fn reload(&self) -> Result<serde_json::Value, Failure> {
        let mut keys = read_services(&self.path)?;
        keys.extend(self.dev.clone());
        let closed = self
            .handle
            .replace_keys(&keys)
            .map_err(|e| bad_keys(&self.path, &e))?;
        tracing::info!(closed, "the keys of the service bus were read anew");
        Ok(json!({"closed": closed}))
    }
}

fn settings(config: &Config, metrics: PrometheusHandle) -> Result<Settings, Failure> {
    let BusConfig {
        rules,
        connections,
        outbound_messages,
        outbound_bytes,
        admin_token_file,
        ..
    } = &config.bus;
    let admin_token = match admin_token_file {
        None => None,
        Some(path) => {
            daybook_client::Token::from_file(path)?;
            let text = fs::read_to_string(path)
                .map_err(|e| Failure::system(format!("token file {}", path.display()), &e))?;
            Some(AdminToken::new(Zeroizing::new(text).trim()))
        }
    };
    Ok(Settings {
        bus: rules.clone(),
        connections_max: *connections,
        sessions_max: *connections,
        outbound_messages_max: *outbound_messages,
        outbound_bytes_max: *outbound_bytes,
        allowed_hosts: config.allowed_hosts.clone(),
        allowed_origins: config.allowed_origins.clone(),
        admin_token,
        metrics: Some(metrics),
        ..Settings::default()
    })
}

/// A key for every name, for this run only.
fn development_key() -> Result<(String, ServiceKey), Failure> {
    let made = new_key(None).map_err(|e| Failure::new(Exit::System, e.to_string()))?;
    let key = ServiceKey {
        id: DEV_ID.to_owned(),
        name: ">".to_owned(),
        hash: made.hash,
        publish: vec![">".to_owned()],
        subscribe: vec![">".to_owned()],
        requests_per_second: None,
        max_in_flight: None,
        created: now_ms(),
    };
    Ok((made.text, key))
}

/// Copies what the bus keeps for good into a backup: keys, durable subscriptions with what waits in
/// them, dead letters. Notes of the last minutes are left out: nobody comes back to a restored node
/// within the time for which they hold.
pub(crate) fn back_up(
    dir: &DataDir,
    into: &DataDir,
    running: Option<&Reloader>,
) -> Result<(), Failure> {
    let store = dir.bus().join(STORE);
    if !store.exists() {
        return Ok(());
    }
    let to = into.bus().join(STORE);
    match running {
        Some(bus) => bus.copy_store(&to),
        // Nobody has it open: there is no node, or one without a bus.
        None => Redb::open(&store)
            .and_then(|disk| disk.copy(&to))
            .map_err(|e| Failure::new(Exit::Damaged, e.to_string())),
    }
}

/// `daybook bus service …`.
pub(crate) fn service(args: &BusService, dir: &DataDir, out: Out) -> Result<(), Failure> {
    dir.must_exist()?;
    make_folder(&dir.bus())?;
    let path = dir.services_file();
    match args {
        BusService::Add(args) => add(args, dir, &path, out),
        BusService::List { .. } => {
            list(&read_services(&path)?, out);
            Ok(())
        }
        BusService::Revoke { name, .. } => revoke(name, dir, &path, out),
    }
}

fn add(args: &ServiceAdd, dir: &DataDir, path: &Path, out: Out) -> Result<(), Failure> {
    Pattern::new(&args.name).map_err(|e| Failure::usage(format!("`{}`: {e}", args.name)))?;
    let given = match &args.key_file {
        None => None,
        Some(file) => Some(read_key(file)?),
    };
    let generated = given.is_none();
    let made =
        new_key(given.map(|key| key.to_string())).map_err(|e| Failure::usage(e.to_string()))?;
    let text = Zeroizing::new(made.text);
    let all = |list: &[String]| match list.is_empty() {
        true => vec![">".to_owned()],
        false => list.to_vec(),
    };
    let key = ServiceKey {
        id: key_id()?,
        name: args.name.clone(),
        hash: made.hash,
        publish: all(&args.publish),
        subscribe: all(&args.subscribe),
        requests_per_second: args.requests_per_second,
        max_in_flight: args.max_in_flight,
        created: now_ms(),
    };
    let id = key.id.clone();
    change(path, |services| {
        if services.len() >= SERVICES_MAX {
            return Err(Failure::refused(format!("{SERVICES_MAX} keys are enough")));
        }
        services.push(key);
        Keyring::new(services).map_err(|e| Failure::usage(e.to_string()))?;
        Ok(())
    })?;
    let told = tell(dir)?.is_some();
    let mut answer = json!({"id": id, "name": args.name, "taken": told});
    let mut words = format!("id    {id}\nname  {}", args.name);
    if generated {
        answer["key"] = text.as_str().into();
        words.push_str(&format!(
            "\nkey   {}\n\nThis is the only time that the key is shown.",
            *text
        ));
    }
    out.say(&answer, &words);
    Ok(())
}

fn revoke(name: &str, dir: &DataDir, path: &Path, out: Out) -> Result<(), Failure> {
    let mut revoked = Vec::new();
    change(path, |services| {
        services.retain(|key| {
            let goes = key.id == name || key.name == name;
            if goes {
                revoked.push(key.id.clone());
            }
            !goes
        });
        match revoked.is_empty() {
            true => Err(Failure::refused(format!(
                "no service or key is called {name}"
            ))),
            false => Ok(()),
        }
    })?;
    let closed = tell(dir)?.and_then(|answer| answer["closed"].as_u64());
    let words = match closed {
        None => "revoked; no node is running here".to_owned(),
        Some(closed) => format!("revoked; {closed} connections closed"),
    };
    out.say(&json!({"revoked": revoked, "closed": closed}), &words);
    Ok(())
}

fn list(services: &[ServiceKey], out: Out) {
    for key in services {
        // Without the hash: nobody needs it, and it is worth a guess to who gets hold of it.
        out.say(
            &json!({
                "id": key.id,
                "name": key.name,
                "publish": key.publish,
                "subscribe": key.subscribe,
                "requests_per_second": key.requests_per_second,
                "max_in_flight": key.max_in_flight,
                "created": key.created,
            }),
            &format!(
                "{}  {}  publish {}  subscribe {}",
                key.id,
                key.name,
                key.publish.join(","),
                key.subscribe.join(",")
            ),
        );
    }
}

/// Tells the node that runs on the directory, if one does.
fn tell(dir: &DataDir) -> Result<Option<serde_json::Value>, Failure> {
    control::ask(dir, &Request::BusReload, |_, _| {})
}

/// Changes the file of services under a lock, and replaces it as a whole.
fn change(
    path: &Path,
    change: impl FnOnce(&mut Vec<ServiceKey>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let system = |e: io::Error| Failure::system(path.display(), &e);
    let lock = fs::File::create(path.with_extension("lock")).map_err(system)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| system(e.into()))?;
    let mut services = read_services(path)?;
    change(&mut services)?;
    let text = serde_json::to_string_pretty(&ServicesFile { services })
        .expect("texts and numbers make JSON")
        + "\n";
    keyfile::replace(path, text.as_bytes(), 0o600).map_err(system)
}

fn read_services(path: &Path) -> Result<Vec<ServiceKey>, Failure> {
    let system = |e: io::Error| Failure::system(path.display(), &e);
    let bad = |what: String| Failure::new(Exit::Damaged, format!("{}: {what}", path.display()));
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(system(error)),
        Ok(data) if data.len() > SERVICES_BYTES_MAX => return Err(bad("too long".to_owned())),
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(system)?;
    let file: ServicesFile = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    Ok(file.services)
}

/// Reads a key from a file, or from standard input for `-`. White space around it is ignored.
pub(crate) fn read_key(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = |source: &mut dyn io::Read, text: &mut String| {
        source.take(KEY_BYTES_MAX + 1).read_to_string(text)
    };
    let read = match file == Path::new("-") {
        true => read(&mut io::stdin().lock(), &mut text),
        false => fs::File::open(file).and_then(|mut file| read(&mut file, &mut text)),
    };
    let name = file.display();
    read.map_err(|e| Failure::system(format!("key {name}"), &e))?;
    let key = Zeroizing::new(text.trim().to_owned());
    if key.is_empty() || key.len() as u64 > KEY_BYTES_MAX {
        return Err(Failure::usage(format!(
            "key {name}: it must be 1 to {KEY_BYTES_MAX} bytes"
        )));
    }
    Ok(key)
}

fn key_id() -> Result<String, Failure> {
    let mut bytes = [0; KEY_ID_CHARS / 2];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::new(Exit::System, "the system gives no random numbers"))?;
    Ok(hex::encode(bytes))
}

fn bad_keys(path: &Path, error: &KeyringError) -> Failure {
    Failure::new(Exit::Damaged, format!("{}: {error}", path.display()))
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    DataDir::new(path).make()
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
