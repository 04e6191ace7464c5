//! The node's wallet tracker: its keys, its token, and how it is set.
//!
//! ```text
//! daybook-data/
//!   tracker-rsa.key       0600, the tracker's primary key: addresses are derived from it
//!   tracker-ed25519.key   0600, signs answers to clients with Ed25519 keys
//!   tracker-holder.key    0600, the Ed25519 key that holds the outputs behind all balances
//!   token.key             0600, issues the token; holds what was not deposited
//!   tracker.json          what came of them and is public; a copy for readers without the node
//! ```
//!
//! The first start makes them, then the token, then opens the tracker, then deposits the first tokens.
//! Each step is looked for before it is taken, so a crash between two of them leaves nothing half done.

use std::{fs, io, path::PathBuf, sync::Arc};

use daybook_gateway::{Faucet, Rate, TrackerKeys, TrackerLimits, TrackerSettings};
use daybook_ledger::{
    AMOUNT_MAX, AssetId, Draft, Operation, OutputRef, PublicKey, SigningKey, Transaction, View,
    json::Object,
    tracker::{Settings as BookSettings, SettingsError as BookError, Suites},
};
use daybook_pipeline::{Acknowledge, Door, Node, Outcome, TrackerOptions};
use daybook_store::Store;
use serde::{Deserialize, Serialize};

use crate::{
    datadir::DataDir,
    failure::{Exit, Failure},
    keyfile::{self, Kind},
    node::blocking,
    passphrase::Source,
    settings::{Settings, SettingsError},
};

/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;
/// Seconds of the longest lifetime: ten years, as the book allows.
const LIFETIME_SECONDS_MAX: u64 = 10 * 365 * 86_400;
/// Bytes of `tracker.json` at most: three keys and two ids of some hundred bytes each.
const MADE_BYTES_MAX: u64 = 1 << 16;
/// Seconds' worth of frames that may come at once from one connection.
const FRAMES_BURST_SECONDS: f64 = 2.0;

/// How the tracker is set.
#[derive(Clone, Debug)]
pub(crate) struct TrackerConfig {
    token_name: String,
    token_amount: u64,
    token_owner: Option<PublicKey>,
    mint: u64,
    income_price: u64,
    spend_price: u64,
    quantum_power: u8,
    spend_grant: u64,
    income_lifetime_ms: u64,
    spend_lifetime_ms: u64,
    transfer_lifetime_ms: u64,
    open_spends: u32,
    open_incomes: u32,
    open_transfers: u32,
    strict_v2: bool,
    public_log: bool,
    suites: Suites,
    limits: TrackerLimits,
}

impl TrackerConfig {
    /// `None` where no tracker shall run.
    pub(crate) fn from_settings(
        settings: &Settings,
    ) -> Result<Option<TrackerConfig>, SettingsError> {
        if !settings.switch("tracker.enabled") {
            return Ok(None);
        }
        let within = |name: &str, least: u64, most: u64| match settings.count(name) {
            count if (least..=most).contains(&count) => Ok(count),
            _ => Err(settings.bad(name, format!("must be {least} to {most}"))),
        };
        let small = |name: &str, most: u32| {
            let count = within(name, 1, most.into())?;
            Ok::<u32, SettingsError>(u32::try_from(count).unwrap_or(most))
        };
        let lifetime = |name: &str| Ok(within(name, 1, LIFETIME_SECONDS_MAX)? * 1_000);
        let token_name = settings.text("tracker.token_name").to_owned();
        if token_name.is_empty() || token_name.len() > NAME_BYTES_MAX {
            let problem = format!("must be 1 to {NAME_BYTES_MAX} bytes");
            return Err(settings.bad("tracker.token_name", problem));
        }
        let token_owner = match settings.text("tracker.token_owner") {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                settings.bad("tracker.token_owner", "is not an Ed25519 key in base58")
            })?),
        };
        let token_amount = within("tracker.token_amount", 1, AMOUNT_MAX)?;
        let mint = within("tracker.mint", 0, token_amount)?;
        let rate = |name: &str, seconds: f64, burst: f64| {
            let rate = |count: u64| Rate {
                per_second: count as f64 / seconds,
                burst: (count as f64 * burst).max(1.0),
            };
            Ok::<_, SettingsError>(match within(name, 0, 1 << 30)? {
                0 => None,
                count => Some(rate(count)),
            })
        };
        Ok(Some(TrackerConfig {
            token_name,
            token_amount,
            token_owner,
            mint,
            income_price: within("tracker.income_price", 0, i64::MAX as u64)?,
            spend_price: within("tracker.spend_price", 0, i64::MAX as u64)?,
            quantum_power: u8::try_from(within("tracker.quantum_power", 0, 62)?).unwrap_or(62),
            spend_grant: within("tracker.spend_grant", 1, i64::MAX as u64)?,
            income_lifetime_ms: lifetime("tracker.income_lifetime_seconds")?,
            spend_lifetime_ms: lifetime("tracker.spend_lifetime_seconds")?,
            transfer_lifetime_ms: lifetime("tracker.transfer_lifetime_seconds")?,
            open_spends: small("tracker.open_spends_per_key", 1 << 20)?,
            open_incomes: small("tracker.open_incomes_per_key", 1 << 20)?,
            open_transfers: small("tracker.open_transfers_per_address", 1 << 20)?,
            strict_v2: settings.switch("tracker.strict_v2"),
            public_log: settings.switch("tracker.public_log"),
            suites: Suites {
                legacy_md5: settings.switch("tracker.legacy_ec_md5"),
                ..Suites::default()
            },
            limits: TrackerLimits {
                frames: rate("tracker.frames_per_second", 1.0, FRAMES_BURST_SECONDS)?,
                opens: rate("tracker.opens_per_minute", 60.0, 1.0)?,
                open_spends_per_network: within("tracker.open_spends_per_network", 1, 1 << 20)?
                    as usize,
                grants_per_network: match within("tracker.grants_per_network_per_day", 0, 1 << 30)?
                {
                    0 => None,
                    grants => Some(grants),
                },
                ..TrackerLimits::default()
            },
        }))
    }

    /// The book's settings.
    fn of_book(&self, keys: &Keys, token: AssetId) -> BookSettings {
        let pems = keys.answers.pems();
        BookSettings {
            keys: pems.clone(),
            income_price_min: self.income_price,
            spend_price_max: self.spend_price,
            quantum_power: self.quantum_power,
            spend_grant: self.spend_grant,
            income_lifetime_ms: self.income_lifetime_ms,
            spend_lifetime_ms: self.spend_lifetime_ms,
            transfer_lifetime_ms: self.transfer_lifetime_ms,
            open_spends_max: self.open_spends,
            open_incomes_max: self.open_incomes,
            open_transfers_max: self.open_transfers,
            strict_v2: self.strict_v2,
            ..BookSettings::new(&*pems[0], token, keys.holder.public_key())
        }
    }
}

/// What the first start made, as far as it is public. The log says the same; this is for whoever asks
/// without a node.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The asset whose units all balances are in.
    token: String,
    /// The key that holds the outputs behind them: deposits are TRANSFERs to it.
    holder: String,
    /// What version 2 messages call the tracker.
    id: String,
    /// The tracker's wallet.
    address: String,
    /// The texts of the keys that sign answers, the primary one first.
    keys: Vec<String>,
}

impl Made {
    fn file(dir: &DataDir) -> PathBuf {
        dir.path().join("tracker.json")
    }

    /// What a data directory tells; `None` before the tracker's first start.
    pub(crate) fn read(dir: &DataDir) -> Result<Option<Made>, Failure> {
        let path = Made::file(dir);
        let system = |error: io::Error| Failure::system(path.display(), &error);
        let bytes = match fs::metadata(&path) {
            Ok(about) if about.len() <= MADE_BYTES_MAX => fs::read(&path).map_err(system)?,
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| {
            Failure::new(
                Exit::Damaged,
                format!(
                    "{}: the node writes it anew at its next start",
                    path.display()
                ),
            )
        })
    }

    /// Writes the file unless it says this already.
    fn write(&self, dir: &DataDir) -> Result<(), Failure> {
        if Made::read(dir).is_ok_and(|made| made.as_ref() == Some(self)) {
            return Ok(());
        }
        let path = Made::file(dir);
        let text = serde_json::to_string_pretty(self).expect("texts make JSON") + "\n";
        keyfile::replace(&path, text.as_bytes(), 0o644)
            .map_err(|error| Failure::system(path.display(), &error))
    }

    /// Each fact under its name, and the file that tells them.
    pub(crate) fn facts(&self, dir: &DataDir) -> (Vec<(String, &str)>, PathBuf) {
        let facts = [
            ("token", &self.token),
            ("holder", &self.holder),
            ("id", &self.id),
            ("address", &self.address),
        ];
        let facts = facts.map(|(name, value)| (format!("tracker.{name}"), value.as_str()));
        let keys = (1..).zip(&self.keys);
        let keys = keys.map(|(place, key)| (format!("tracker.key_{place}"), key.as_str()));
        (facts.into_iter().chain(keys).collect(), Made::file(dir))
    }
}

/// The tracker's keys.
pub(crate) struct Keys {
    dir: DataDir,
    answers: Arc<TrackerKeys>,
    holder: SigningKey,
    token: SigningKey,
}

/// The files of the tracker's keys.
struct Files {
    rsa: PathBuf,
    ed25519: PathBuf,
    holder: PathBuf,
    token: PathBuf,
}

impl Files {
    fn of(dir: &DataDir) -> Files {
        Files {
            rsa: dir.path().join("tracker-rsa.key"),
            ed25519: dir.path().join("tracker-ed25519.key"),
            holder: dir.path().join("tracker-holder.key"),
            token: dir.path().join("token.key"),
        }
    }
}

impl Keys {
    /// Reads the keys; makes those that are missing as long as the ledger knows no tracker.
    pub(crate) fn open(dir: &DataDir, passphrase: &Source, store: &Store) -> Result<Keys, Failure> {
        let files = Files::of(dir);
        let settings = store.tracker(|book| book.settings().cloned());
        let open = |path: &PathBuf, kind: Kind| {
            if !path.exists() {
                if settings.is_some() {
                    return Err(Failure::refused(format!(
                        "{} is missing, but the tracker in the ledger has begun with it; without it \
                         start with --tracker-enabled=false",
                        path.display()
                    )));
                }
                let secret = keyfile::generate_secret(kind);
                let given = passphrase.given()?;
                let (public, bytes) = (&secret.public, &secret.bytes);
                keyfile::store_secret(path, kind, public, bytes, given.as_ref())?;
            }
            keyfile::load_secret(path, passphrase)
        };
        let ed25519 = |path: &PathBuf| {
            let wrong = || Failure::refused(format!("{}: not an ed25519 key", path.display()));
            open(path, Kind::Ed25519)?.ed25519().ok_or_else(wrong)
        };
        let rsa = open(&files.rsa, Kind::Rsa)?;
        let answers = TrackerKeys::new(&rsa.bytes, ed25519(&files.ed25519)?)
            .map_err(|error| Failure::refused(format!("{}: {error}", files.rsa.display())))?;
        let keys = Keys {
            dir: dir.clone(),
            answers: Arc::new(answers),
            holder: ed25519(&files.holder)?,
            token: ed25519(&files.token)?,
        };
        if let Some(settings) = settings {
            let differs = |path: &PathBuf| {
                Failure::refused(format!(
                    "{} is not the key that the tracker in the ledger has begun with",
                    path.display()
                ))
            };
            if keys.answers.pems()[0] != settings.pem {
                return Err(differs(&files.rsa));
            }
            if keys.holder.public_key() != settings.holder {
                return Err(differs(&files.holder));
            }
        }
        Ok(keys)
    }

    /// What the pipeline needs.
    pub(crate) fn options(&self, config: &TrackerConfig) -> TrackerOptions {
        TrackerOptions {
            suites: config.suites,
            ids: self.answers.ids(),
            holder: self.holder.clone(),
        }
    }

    /// What the gateway needs.
    pub(crate) fn gateway(&self, config: &TrackerConfig) -> TrackerSettings {
        TrackerSettings {
            keys: self.answers.clone(),
            suites: config.suites,
            public_log: config.public_log,
            limits: config.limits,
        }
    }

    /// A faucet that gives away tokens that were not deposited. Where `token_owner` has got them all it is
    /// empty until somebody fills it.
    pub(crate) fn faucet(&self, node: &Node) -> Option<Faucet> {
        let settings = node.store().tracker(|book| book.settings().cloned())?;
        Some(Faucet::of(settings.token, self.token.clone()))
    }

    /// Makes the token, opens the tracker with the present settings, and deposits the first tokens:
    /// whatever of it was not done before.
    pub(crate) async fn set_up(&self, node: &Node, config: &TrackerConfig) -> Result<(), Failure> {
        let present = node.store().tracker(|book| book.settings().cloned());
        let token = match &present {
            Some(settings) => settings.token,
            None => self.make_token(node, config).await?.asset(),
        };
        let settings = config.of_book(self, token);
        let checked = node.store().tracker(|book| book.check_settings(&settings));
        checked.map_err(|error| match error {
            BookError::Value(_) => Failure::usage(format!("the tracker's settings: {error}")),
            BookError::Fixed(_) => Failure::refused(error.to_string()),
        })?;
        let made = Made {
            token: token.to_string(),
            holder: self.holder.public_key().to_string(),
            id: self.answers.ids()[0].to_string(),
            address: settings.wallet().to_string(),
            keys: self.answers.pems(),
        };
        if !node.configure_tracker(settings).await {
            return Err(stopped());
        }
        self.deposit(node, config, token).await?;
        let dir = self.dir.clone();
        blocking(move || made.write(&dir)).await??;
        tracing::info!(
            token = %token,
            holder = %self.holder.public_key(),
            id = %self.answers.ids()[0],
            "tracker open"
        );
        Ok(())
    }

    /// The token's CREATE, which is the same whenever it is made from the same keys and settings.
    async fn make_token(
        &self,
        node: &Node,
        config: &TrackerConfig,
    ) -> Result<Transaction, Failure> {
        let data = Object::from_iter([
            ("kind", "tracker token"),
            ("name", config.token_name.as_str()),
            ("chain", node.store().genesis().chain.as_str()),
        ]);
        let draft = Draft::create(data);
        let draft = match &config.token_owner {
            None => draft.output(config.token_amount, &self.token),
            Some(owner) => draft.output(config.token_amount, owner),
        };
        let create = draft
            .sign(&[&self.token])
            .map_err(|error| not_made(&error))?;
        commit(node, &create).await?;
        Ok(create)
    }

    /// The first deposit: from what the token's key holds since the token was made. What it was given
    /// to another key's owner is theirs to deposit.
    async fn deposit(
        &self,
        node: &Node,
        config: &TrackerConfig,
        token: AssetId,
    ) -> Result<(), Failure> {
        let made = OutputRef {
            transaction: token.as_transaction(),
            index: 0,
        };
        let own = self.token.public_key();
        let store = node.store().clone();
        let unspent = blocking(move || {
            let view = store.view();
            view.unspent(&made)
                .and_then(|_| view.transaction(&made.transaction))
        })
        .await?;
        let Some(create) = unspent.filter(|create| create.operation() == Operation::Create) else {
            // It moved before: the first deposit was made, or its owner does as they like.
            return Ok(());
        };
        let Some(output) = create.outputs().first() else {
            return Ok(());
        };
        let amount = output.amount.units();
        let mint = config.mint.min(amount);
        if mint == 0 || output.public_keys[..] != [own] {
            return Ok(());
        }
        let mut draft = Draft::transfer(token)
            .spend(made, &self.token)
            .metadata(Object::from_iter([("tracker", "first deposit")]))
            .output(mint, &self.holder);
        if amount > mint {
            draft = draft.output(amount - mint, &self.token);
        }
        let transfer = draft
            .sign(&[&self.token])
            .map_err(|error| not_made(&error))?;
        commit(node, &transfer).await
    }
}

/// Commits a transaction of ours, unless it is committed.
async fn commit(node: &Node, transaction: &Transaction) -> Result<(), Failure> {
    let text = transaction.canonical().clone();
    committed(node.submit(text, Acknowledge::Durable, Door::Bulk).await)
}

fn committed(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Committed { .. } | Outcome::Accepted { .. } => Ok(()),
        Outcome::Rejected { rejection, .. } => Err(not_made(&rejection)),
        Outcome::Busy => Err(not_made(&"the node is busy; start it again")),
        Outcome::Stopped => Err(stopped()),
    }
}

fn not_made(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::System,
        format!("the tracker's token could not be made: {why}"),
    )
}

fn stopped() -> Failure {
    Failure::new(
        Exit::System,
        "the node stopped while the tracker was opened",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_node_is_not_called_a_stopped_one() {
        let why = |outcome| committed(outcome).err().map(|failure| failure.to_string());
        let busy = why(Outcome::Busy).unwrap_or_default();
        assert!(busy.contains("is busy; start it again"), "{busy}");
        let stopped = why(Outcome::Stopped).unwrap_or_default();
        assert!(stopped.contains("the node stopped"), "{stopped}");
    }
}
