//! `daybook start`.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, Dialect},
    control::{self, Request},
    datadir::DataDir,
    failure::{Exit, Failure},
    log,
    node::LiveNode,
    out::Out,
};

/// The signal of a write beyond the limit of file sizes, the same number on every Linux.
const SIGXFSZ: i32 = 25;
/// A second Ctrl-C this long after the first ends the program at once.
const INSIST_AFTER: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop or cannot go on.
pub(crate) async fn run(config: &Config, out: Out) -> Result<(), Failure> {
    log::start(config.log_format, &config.log_level)?;
    // Before anything is opened, so that no signal finds the program's default of dying at once.
    let system = |e: std::io::Error| Failure::system("signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    // A file that may not grow is an error of that write, which says more than dying of a signal.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).map_err(system)?;
    let mut live = match LiveNode::start(config).await {
        Err(failure) if failure.exit == Exit::InUse => return Err(in_use(config, failure)),
        other => other?,
    };
    announce(&live, out);
    let failure = tokio::select! {
        failure = live.failed() => Some(failure),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match &failure {
        None => tracing::info!("stopping"),
        Some(failure) => tracing::error!(%failure, "stopping"),
    }
    let begun = Instant::now();
    let mut stopping = std::pin::pin!(live.stop());
    let stopped = loop {
        tokio::select! {
            stopped = &mut stopping => break stopped,
            // Supervisors often send the same signal twice; only a person who insists is obeyed.
            _ = interrupt.recv() => if begun.elapsed() >= INSIST_AFTER {
                return Err(Failure::new(Exit::System, "stopped at once by a second Ctrl-C"));
            },
            _ = terminate.recv() => {}
        }
    };
    match failure {
        // The first failure tells more than what followed from it.
        Some(failure) => Err(failure),
        None => stopped,
    }
}

fn announce(live: &LiveNode, out: Out) {
    let (listening, store) = (&live.listening, live.node.store());
    let (chain, height) = (&store.genesis().chain, store.tip().height.0);
    let http = listening.http_url(listening.http);
    let also: Vec<_> = listening
        .also
        .iter()
        .map(|(address, dialect)| {
            let dialect = match dialect {
                Dialect::Classic => "classic",
                Dialect::V2 => "v2",
            };
            (listening.http_url(*address), dialect)
        })
        .collect();
    let mut text = format!("chain    {chain}, height {height}\nhttp     {http}");
    for (url, dialect) in &also {
        text.push_str(&format!("\nhttp     {url} ({dialect})"));
    }
    text.push_str(&format!("\nstreams  {}", listening.streams_url()));
    text.push_str(&format!("\nconsole  {http}/console"));
    if let Some(url) = listening.bus_url() {
        text.push_str(&format!("\nbus      {url}"));
    }
    if let Some(key) = &listening.bus_key {
        text.push_str(&format!(
            "\nbus key  {key} (for every name, until this node stops)"
        ));
    }
    let also: Vec<_> = also
        .iter()
        .map(|(url, dialect)| json!({"http": url, "dialect": dialect}))
        .collect();
    out.say(
        &json!({
            "event": "listening",
            "http": http,
            "streams": listening.streams_url(),
            "bus": listening.bus_url(),
            "bus_key": listening.bus_key,
            "also": also,
            "chain": chain,
            "height": height,
            "pid": std::process::id(),
        }),
        &text,
    );
}

/// Says where the other node listens, if it can be asked.
fn in_use(config: &Config, failure: Failure) -> Failure {
    let dir = DataDir::new(&config.data_dir);
    match control::ask(&dir, &Request::Listening, |_, _| {}) {
        Ok(Some(answer)) => Failure::new(
            Exit::InUse,
            format!(
                "{failure}; it listens on {}",
                answer["http"].as_str().unwrap_or("no address")
            ),
        ),
        _ => failure,
    }
}
