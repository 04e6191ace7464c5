//! `daybook channel`: payer and payee of the tracker's payment channels (wallet tracker, section 11).

mod args;
mod fetch;
mod hand;
mod link;
mod look;
mod serve;

use std::{path::PathBuf, time::Duration};

use daybook_client::tracker::{
    AddressState, Error, KnownTrackers, PeerKey, Price, Settled, Tracker,
};
use serde_json::{Value, json};

pub(crate) use args::Channel;
use args::PeerFlags;

use crate::{
    failure::{Exit, Failure},
    keyfile::{self, Kind},
    out::Out,
    passphrase::Source,
    remote,
};

pub(crate) async fn run(args: &Channel, out: Out) -> Result<(), Failure> {
    match args {
        Channel::OpenSpend(peer) => {
            let state = connect(peer).await?.open_spend().await?;
            say_address(&state, out);
        }
        Channel::OpenIncome(peer) => {
            let state = connect(peer).await?.open_income().await?;
            say_address(&state, out);
        }
        Channel::Open(args) => hand::open(args, out).await?,
        Channel::Accept(args) => hand::accept(args, out).await?,
        Channel::Confirm(args) => hand::confirm(args, out)?,
        Channel::Pay(args) => hand::pay(args, out)?,
        Channel::Take(args) => hand::take(args, out)?,
        Channel::Settle(args) => hand::settle(args, out).await?,
        Channel::Park(args) => hand::park(args, out).await?,
        Channel::Close { address, peer } => {
            let closed = connect(peer).await?.close_address(address).await?;
            out.say(
                &json!({"event": "closed", "address": address.as_str(), "state": closed.state}),
                &format!("{} tokens went back to the tracker", closed.state.amount),
            );
        }
        Channel::Status(args) => look::status(args, out).await?,
        Channel::Payout(args) => look::payout(args, out).await?,
        Channel::List(args) => look::list(args, out).await?,
        Channel::Watch(args) => look::watch(args, out).await?,
        Channel::Serve(args) => serve::run(args, out).await?,
        Channel::Fetch(args) => fetch::run(args, out).await?,
    }
    Ok(())
}

/// A connection to the tracker as the peer of the key file.
async fn connect(peer: &PeerFlags) -> Result<Tracker, Failure> {
    connect_as(peer, read_key(peer)?).await
}

async fn connect_as(peer: &PeerFlags, key: PeerKey) -> Result<Tracker, Failure> {
    let trust = &peer.node.trust;
    let mut builder = Tracker::builder(peer.node.url.clone(), key).timeout(peer.node.timeout);
    if let Some(token) = remote::token(trust)? {
        builder = builder.token(token);
    }
    if let Some(path) = &trust.authorities.ca_file {
        builder = builder.ca_file(path);
    }
    if let Some(path) = peer.known_trackers.clone().or_else(known_trackers) {
        builder = builder.known_trackers(KnownTrackers::new(path));
    }
    Ok(builder.connect().await?)
}

/// Where trackers that were met before are remembered, unless told otherwise.
fn known_trackers() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = match set("XDG_CONFIG_HOME") {
        Some(config) => PathBuf::from(config),
        None => PathBuf::from(set("HOME")?).join(".config"),
    };
    Some(config.join("daybook/trackers.json"))
}

/// The peer's key, of any suite.
fn read_key(peer: &PeerFlags) -> Result<PeerKey, Failure> {
    let source = Source::new(peer.key.passphrase_file.as_deref());
    let secret = keyfile::load_secret(&peer.key.key, &source)?;
    peer_key(&peer.key.key, &secret)
}

fn peer_key(path: &std::path::Path, secret: &keyfile::Secret) -> Result<PeerKey, Failure> {
    let made = match secret.kind {
        Kind::Ed25519 => Ok(PeerKey::ed25519(
            secret.ed25519().expect("its kind says that it is one"),
        )),
        Kind::Rsa => PeerKey::rsa(&secret.bytes),
        Kind::P256 => PeerKey::p256(&secret.bytes),
    };
    made.map_err(|error| Failure::refused(format!("key file {}: {error}", path.display())))
}

/// The PEM in a file: a key file of ours, or a public key as PEM.
fn read_pem(path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::system(path.display(), &e))?;
    if text.starts_with("-----BEGIN PUBLIC KEY-----") {
        // With and without a final newline a key has two wallets; peers here write it without.
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    let (kind, public, _) = keyfile::look(path)?;
    match kind {
        Kind::Rsa | Kind::P256 => Ok(public),
        Kind::Ed25519 => {
            let key = public.parse().map_err(|_| {
                Failure::refused(format!("key file {}: no public key", path.display()))
            })?;
            Ok(daybook_ledger::tracker::Key::ed25519_pem(&key))
        }
    }
}

/// Does what waits for the disk, without holding up the connections of this thread.
fn durably<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

fn say_address(state: &AddressState, out: Out) {
    out.say(
        &address_json(state),
        &format!(
            "address   {}\ntokens    {} ({} free)\nprice     {}\nlocks in  {} s",
            state.address,
            state.current.amount,
            state.limit.amount,
            price_text(&state.price),
            Duration::from_millis(state.lifetime.unwrap_or_default()).as_secs(),
        ),
    );
}

fn address_json(state: &AddressState) -> Value {
    let mut json = json!({
        "address": state.address,
        "current": state.current,
        "limit": state.limit,
        "price": price_text(&state.price),
        "timelock": state.timelock,
    });
    if let Some(lifetime) = state.lifetime {
        json["lifetime"] = lifetime.into();
    }
    json
}

fn settled_json(event: &str, channel: &str, settled: &Settled) -> Value {
    json!({
        "event": event,
        "channel": channel,
        "quanta": settled.count,
        "tokens": settled.tokens,
        "volume": settled.volume,
    })
}

/// A price as the command line writes it: tokens, an `@`, and the power of the quantum.
fn price_text(price: &Price) -> String {
    format!("{}@{}", price.amount, price.power)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let error = match error {
            Error::Connection(error) => return Failure::from(error),
            other => other,
        };
        let exit = match &error {
            Error::Unknown(_) => Exit::Unknown,
            Error::File { error, .. } => match error.kind() {
                std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::InvalidData => {
                    Exit::Refused
                }
                _ => Exit::System,
            },
            Error::Usage(_) => Exit::Usage,
            _ => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
    }
}
