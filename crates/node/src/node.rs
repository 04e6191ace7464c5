//! A node from its first byte to its last: opening, wiring, and stopping in good order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use daybook_bus_gateway::Handle;
use daybook_gateway::{
    BusOverview, Guest, Listener, Origins, Rate, Serves, Settings, Token, tls_config,
};
use daybook_pipeline::{Node, Running, StartOptions};
use daybook_store::disk::RealDisk;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::{
    bus::{LiveBus, MountedBus},
    config::{Config, Dialect, TlsFiles},
    control::Control,
    datadir::{DataDir, Lock},
    failure::{Exit, Failure},
    faucet,
    member::House,
    tracker,
};

/// How often what the metrics recorder gathered is put in order, so that it does not grow between
/// two readings of `/metrics`.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// The part of the time for a stop that connections may take; the rest is for the ledger.
const STOP_SHARE_OF_CONNECTIONS: u32 = 2;
/// The part of it that open requests of the service bus may take.
const STOP_SHARE_OF_BUS: u32 = 4;
/// Open files that are kept from connections, or half of all where there are few: 256 segments of the
/// log, some hundred index runs and checkpoints, listeners, and the sockets of other services.
const OPEN_FILES_RESERVED: u64 = 1_024;
/// What a stop takes at least, in whole: an ordinary disk closes the ledger within it.
const STOP_WITHIN_MIN: Duration = Duration::from_secs(2);

/// A node that runs.
pub(crate) struct LiveNode {
    pub(crate) node: Node,
    pub(crate) listening: Listening,
    running: Running,
    gateway: JoinHandle<std::io::Result<()>>,
    stop_gateway: oneshot::Sender<()>,
    bus: Option<LiveBus>,
    house: Option<Arc<House>>,
    control: Option<Control>,
    upkeep: JoinHandle<()>,
    stop_within: Duration,
    _lock: Lock,
}

/// Where a node listens, after port 0 became a real one.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) secure: bool,
    pub(crate) http: SocketAddr,
    pub(crate) also: Vec<(SocketAddr, Dialect)>,
    pub(crate) streams: Option<SocketAddr>,
    pub(crate) bus: Option<SocketAddr>,
    /// The text of the development key of the service bus.
    pub(crate) bus_key: Option<String>,
}

impl Listening {
    pub(crate) fn http_url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.secure { "https" } else { "http" })
    }

    pub(crate) fn bus_url(&self) -> Option<String> {
        self.bus.map(|address| self.http_url(address))
    }

    pub(crate) fn streams_url(&self) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}", self.streams.unwrap_or(self.http))
    }
}

impl LiveNode {
    /// Starts a node and serves it.
    ///
    /// # Errors
    /// `InUse`, `Damaged`, `System` or `Usage`, each with a sentence that says what to do.
    pub(crate) async fn start(config: &Config) -> Result<LiveNode, Failure> {
        allow_open_files();
        let dir = DataDir::new(&config.data_dir);
        dir.make()?;
        let lock = dir.lock()?;
        let (key, genesis) = dir.open(&config.chain, &config.key_passphrase)?;
        let tls = config.tls.as_ref().map(read_tls).transpose()?;
        let write_token = config.token_file.as_deref().map(read_token).transpose()?;
        let metrics = recorder();

        // Before the ledger is opened: an address in use is then told at once.
        let mut listeners = Vec::new();
        let mut listen = async |address, serves, dialect| {
            let socket = TcpListener::bind(address)
                .await
                .map_err(|e| Failure::system(format!("cannot listen on {address}"), &e))?;
            let bound = socket
                .local_addr()
                .map_err(|e| Failure::system(address, &e))?;
            let dialect = match dialect {
                Dialect::Classic => daybook_wire::assets::Dialect::Classic,
                Dialect::V2 => daybook_wire::assets::Dialect::V2,
            };
            listeners.push(Listener {
                socket,
                serves,
                dialect,
                tls: tls.clone(),
            });
            Ok::<SocketAddr, Failure>(bound)
        };
        let http = listen(config.listen, Serves::Api, config.dialect).await?;
        let mut also = Vec::new();
        for (address, dialect) in &config.also_listen {
            also.push((listen(*address, Serves::Api, *dialect).await?, *dialect));
        }
        let streams = match config.streams_listen {
            Some(address) => Some(listen(address, Serves::Streams, config.dialect).await?),
            None => None,
        };
        let bus_socket = match config.bus.listen {
            Some(address) => {
                let failed =
                    |e: std::io::Error| Failure::system(format!("cannot listen on {address}"), &e);
                Some(TcpListener::bind(address).await.map_err(failed)?)
            }
            None => None,
        };
        let mut listening = Listening {
            secure: tls.is_some(),
            http,
            also,
            streams,
            bus: None,
            bus_key: None,
        };

        tracing::info!(data_dir = %config.data_dir.display(), "opening the ledger");
        let began = Instant::now();
        let (store, writer, recovery) = {
            let (dir, options) = (dir.ledger(), daybook_store::Options::default());
            blocking(move || daybook_store::open(&dir, Arc::new(RealDisk), &genesis, options))
                .await??
        };
        tracing::info!(
            height = store.tip().height.0,
            transactions = store.tip().transactions,
            checkpoint = recovery.checkpoint.0,
            replayed_blocks = recovery.replayed_blocks,
            replayed_transactions = recovery.replayed_transactions,
            torn_bytes = recovery.torn_bytes,
            seconds = began.elapsed().as_secs_f64(),
            "ledger open"
        );

        let tracker = match &config.tracker {
            None => None,
            Some(settings) => {
                let keys = tracker::Keys::open(&dir, &config.key_passphrase, &store)?;
                Some((keys, settings))
            }
        };
        let mut options = StartOptions::new(key.clone());
        options.consortium = config.consortium.is_some();
        options.tracker = tracker
            .as_ref()
            .map(|(keys, settings)| keys.options(settings));
        options.rules = config.rules.clone();
        options.pool_bytes_max = config.limits.pool_bytes;
        options.pool_transactions_max = config.limits.pool_transactions;
        if config.verify_threads > 0 {
            options.verify_threads = config.verify_threads;
        }
        let (node, running) = daybook_pipeline::start(store, writer, options)
            .map_err(|e| Failure::system("starting threads", &e))?;

        if let Some((keys, settings)) = &tracker
            && let Err(failure) = keys.set_up(&node, settings).await
        {
            // What is wrong with the tracker is told, not that the ledger was left open.
            if let Ok(Err(error)) = blocking(move || running.stop()).await {
                tracing::error!(%error, "the ledger did not close in order");
            }
            return Err(failure);
        }

        if let Some(consortium) = &config.consortium
            && let Err(failure) = consortium.set_up(&node, &key).await
        {
            if let Ok(Err(error)) = blocking(move || running.stop()).await {
                tracing::error!(%error, "the ledger did not close in order");
            }
            return Err(failure);
        }

        let stop_within = config.stop_within.max(STOP_WITHIN_MIN);
        let mut settings = gateway_settings(config, metrics.clone(), write_token, stop_within);
        let keys = tracker.as_ref().map(|(keys, _)| keys);
        settings.faucet = match faucet::open(config, &dir, &node, keys).await {
            Ok(faucet) => faucet,
            Err(failure) => {
                if let Ok(Err(error)) = blocking(move || running.stop()).await {
                    tracing::error!(%error, "the ledger did not close in order");
                }
                return Err(failure);
            }
        };
        settings.tracker = tracker
            .as_ref()
            .map(|(keys, settings)| keys.gateway(settings));
        let house = match config.consortium.is_some() {
            true => {
                let origin = listening.http_url(listening.http);
                let source = &config.key_passphrase;
                match House::open(&config.data_dir, &node, &origin, source).await {
                    Ok(house) => Some(Arc::new(house)),
                    Err(failure) => {
                        if let Ok(Err(error)) = blocking(move || running.stop()).await {
                            tracing::error!(%error, "the ledger did not close in order");
                        }
                        return Err(failure);
                    }
                }
            }
            false => None,
        };
        let house_guest = house.clone().map(|house| house as Arc<dyn Guest>);
        settings.guests.extend(house_guest);
        // The bus is started after the gateway, which looks at it and lets it answer.
        let mounted = Arc::new(MountedBus::default());
        if bus_socket.is_some() && config.bus.on_main_listener {
            settings.guests.push(mounted.clone());
        }
        let broker = Arc::new(OnceLock::<Handle>::new());
        if bus_socket.is_some() {
            let broker = broker.clone();
            settings.bus = Some(BusOverview::new(move || {
                Some(broker.get()?.overview().to_string())
            }));
        }
        let (stop_gateway, stopping) = oneshot::channel::<()>();
        let gateway = tokio::spawn(daybook_gateway::serve(
            listeners,
            node.clone(),
            settings,
            async {
                // Dropped or sent, it means the same.
                let _ = stopping.await;
            },
        ));
        let bus = match bus_socket {
            Some(socket) => {
                match LiveBus::start(config, socket, tls, &node, metrics.clone()).await {
                    Ok(bus) => Some(bus),
                    Err(failure) => {
                        let _ = stop_gateway.send(());
                        if let Ok(Err(error)) = blocking(move || running.stop()).await {
                            tracing::error!(%error, "the ledger did not close in order");
                        }
                        return Err(failure);
                    }
                }
            }
            None => None,
        };
        if let Some(bus) = &bus {
            // It is set once, here.
            let _ = broker.set(bus.handle());
            mounted.open(bus);
            listening.bus = Some(bus.address);
            listening.bus_key.clone_from(&bus.dev_key);
        }
        let reloader = bus.as_ref().map(|bus| bus.reloader.clone());
        let control = match Control::start(&dir, node.clone(), &listening, reloader, house.clone())
        {
            Ok(control) => Some(control),
            Err(failure) => {
                tracing::warn!(%failure, "no control socket: an online backup is not possible");
                None
            }
        };
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP).await;
                metrics.run_upkeep();
            }
        });
        Ok(LiveNode {
            node,
            listening,
            running,
            gateway,
            stop_gateway,
            bus,
            house,
            control,
            upkeep,
            stop_within,
            _lock: lock,
        })
    }

    /// Waits until the node ends by itself: its writer failed, or a listener did.
    pub(crate) async fn failed(&mut self) -> Failure {
        tokio::select! {
            () = self.node.failed() => {
                let why = self.node.failure().unwrap_or("the ledger could not be written");
                Failure::new(Exit::System, format!("the node stops: {why}"))
            }
            ended = &mut self.gateway => match ended {
                Ok(Ok(())) => Failure::new(Exit::System, "the listeners ended by themselves"),
                Ok(Err(error)) => Failure::system("the listeners ended", &error),
                Err(error) => Failure::new(Exit::System, format!("the listeners ended: {error}")),
            },
        }
    }

    /// Stops in good order, within the bound of the settings: connections end, waiting transactions
    /// are committed, the ledger is closed.
    ///
    /// # Errors
    /// When the bound was too short or the ledger could not be closed. What was acknowledged is
    /// durable even then.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.stop_within;
        drop(self.control);
        self.upkeep.abort();
        let left = || deadline.saturating_duration_since(Instant::now());
        // The bus first: what it still has to answer may need the ledger.
        if let Some(bus) = self.bus {
            bus.stop(left() / STOP_SHARE_OF_BUS).await;
        }
        if let Some(house) = &self.house {
            house.stop().await;
        }
        let _ = self.stop_gateway.send(());
        if !self.gateway.is_finished() && timeout(left(), self.gateway).await.is_err() {
            tracing::warn!("connections did not end in time");
        }
        let running = self.running;
        match timeout(
            left().max(Duration::from_secs(1)),
            blocking(move || running.stop()),
        )
        .await
        {
            Ok(stopped) => Ok(stopped??),
            Err(_) => Err(Failure::new(
                Exit::System,
                format!(
                    "the ledger did not close within {} s; what was acknowledged is on disk",
                    self.stop_within.as_secs()
                ),
            )),
        }
    }
}

/// Runs something that blocks, away from the sockets.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work)
        .await
        .map_err(|e| Failure::new(Exit::System, format!("an internal error: {e}")))
}

/// Takes as many open files as the system allows: the soft limit that most systems begin with is for
/// programs that use `select`, and far below the limit of connections.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// As many connections as are wanted, if the process may open so many files beside those of the ledger:
/// a connection that is accepted must not keep the ledger from opening its log.
fn affordable_connections(wanted: usize) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let connections = connections_within(wanted, files);
    if connections < wanted {
        tracing::warn!(
            connections,
            wanted,
            open_files = files,
            "fewer connections than set: the system allows too few open files"
        );
    }
    connections
}

fn connections_within(wanted: usize, open_files: Option<u64>) -> usize {
    let Some(files) = open_files else {
        return wanted;
    };
    let left = files - OPEN_FILES_RESERVED.min(files / 2);
    usize::try_from(left).map_or(wanted, |left| wanted.min(left.max(1)))
}

fn gateway_settings(
    config: &Config,
    metrics: PrometheusHandle,
    write_token: Option<Token>,
    stop_within: Duration,
) -> Settings {
    let defaults = Settings::default();
    Settings {
        software: config.advertised.software.clone(),
        version: config
            .advertised
            .version
            .clone()
            .unwrap_or(defaults.version.clone()),
        advertised_scheme: config.advertised.scheme.clone(),
        advertised_host: config.advertised.host.clone(),
        advertised_port: config.advertised.port,
        allowed_hosts: config.allowed_hosts.clone(),
        allowed_origins: match &config.allowed_origins {
            None => Origins::Any,
            Some(origins) => Origins::List(origins.clone()),
        },
        transaction_bytes_max: config.rules.limits.transaction_bytes_max,
        connections_max: affordable_connections(config.limits.connections),
        connections_per_network_max: config.limits.connections_per_network,
        buffer_bytes_max: config.limits.buffer_bytes,
        rate: config.limits.requests.map(|rate| Rate {
            per_second: rate.per_second,
            burst: rate.burst,
        }),
        idle_timeout: config.limits.idle,
        shutdown_timeout: stop_within / STOP_SHARE_OF_CONNECTIONS,
        write_token,
        metrics: Some(metrics),
        ..defaults
    }
}

fn recorder() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // One process runs one node; a second one in a test goes without numbers of its own.
    let _ = metrics::set_global_recorder(recorder);
    handle
}

fn read_tls(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| Failure::system(format!("TLS file {}", path.display()), &e))
    };
    let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
    let key = zeroize::Zeroizing::new(key);
    tls_config(&certificate, &key).map_err(|e| Failure::usage(format!("TLS: {e}")))
}

fn read_token(path: &Path) -> Result<Token, Failure> {
    // Read by the client library too, so both sides agree on what a token file looks like.
    daybook_client::Token::from_file(path)?;
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::system(format!("token file {}", path.display()), &e))?;
    Ok(Token::new(zeroize::Zeroizing::new(text).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_ledger_its_open_files() {
        assert_eq!(connections_within(8_192, None), 8_192);
        assert_eq!(connections_within(8_192, Some(1 << 20)), 8_192);
        assert_eq!(connections_within(8_192, Some(4_096)), 3_072);
        assert_eq!(connections_within(8_192, Some(1_024)), 512);
        assert_eq!(connections_within(8_192, Some(0)), 1);
        assert_eq!(connections_within(16, Some(1_024)), 16);
    }
}
