//! What a tracker is set to: an entry of the log like all else, so that a replay gives the same.

use super::{
    Address, Key, KeyHash, MalformedEntry, PRODUCT_MAX, Price, QUANTUM_POWER_MAX,
    text::{Fields, Writer},
};
use crate::{AssetId, Lock, PublicKey, canonical::write_string, condition::Condition, json::Value};

/// Keys of one tracker: one for each suite, and room for another.
pub const TRACKER_KEYS_MAX: usize = 4;

/// The longest lifetime: ten years, far above any sensible one and far below where sums overflow.
pub const LIFETIME_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

/// The settings of a tracker. Key, token and holder stay for ever; the rest counts for what is opened
/// from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The text of the primary key, as the handshake gives it: addresses are derived from it.
    pub pem: String,
    /// The texts of all keys that sign answers, the primary one first.
    pub keys: Vec<String>,
    /// The asset that tokens are units of.
    pub token: AssetId,
    /// The Ed25519 key that holds the outputs which back the wallet.
    pub holder: PublicKey,
    /// The least that an income address takes for a quantum, in tokens.
    pub income_price_min: u64,
    /// The most that a spend address offers for a quantum, in tokens.
    pub spend_price_max: u64,
    /// The quantum of both prices: 2 to this power, in bytes.
    pub quantum_power: u8,
    /// Tokens moved onto a new spend address, if the wallet has them.
    pub spend_grant: u64,
    /// How long an income address lives, in milliseconds.
    pub income_lifetime_ms: u64,
    /// How long a spend address lives, in milliseconds.
    pub spend_lifetime_ms: u64,
    /// How long a transfer channel lives at most, in milliseconds.
    pub transfer_lifetime_ms: u64,
    /// Open spend addresses of one key.
    pub open_spends_max: u32,
    /// Open income addresses of one key.
    pub open_incomes_max: u32,
    /// Open transfer channels on one spend or income address.
    pub open_transfers_max: u32,
    /// Refuses messages of version 1 where they could be replayed: commands 2, 4, 32 and 64.
    pub strict_v2: bool,
}

/// These settings cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The tracker runs with another identity already: its addresses and its money hang on it.
    #[error("the tracker's {0} cannot change")]
    Fixed(&'static str),
    /// A value is out of its range.
    #[error("{0}")]
    Value(&'static str),
}

impl Settings {
    /// The defaults of the first generation (section 13) for a tracker with this identity. `pem` is its
    /// only key; add others to `keys`.
    pub fn new(pem: impl Into<String>, token: AssetId, holder: PublicKey) -> Settings {
        let pem = pem.into();
        Settings {
            keys: vec![pem.clone()],
            pem,
            token,
            holder,
            income_price_min: 500,
            spend_price_max: 500,
            quantum_power: 25,
            spend_grant: 10_000,
            income_lifetime_ms: 30 * 60_000,
            spend_lifetime_ms: 30 * 60_000,
            transfer_lifetime_ms: 5 * 60_000,
            open_spends_max: 4,
            open_incomes_max: 16,
            open_transfers_max: 64,
            strict_v2: false,
        }
    }

    /// # Errors
    /// [`SettingsError::Value`] for the first value that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let lifetimes = [
            self.income_lifetime_ms,
            self.spend_lifetime_ms,
            self.transfer_lifetime_ms,
        ];
        let wrong = if self.keys.is_empty() || self.keys.len() > TRACKER_KEYS_MAX {
            "a tracker has 1 to 4 keys"
        } else if self.keys[0] != self.pem {
            "the first key is the primary one"
        } else if self.keys.iter().any(|pem| Key::read(pem).is_err()) {
            "a key of the tracker does not parse"
        } else if self.quantum_power > QUANTUM_POWER_MAX {
            "the quantum power is 0 to 62"
        } else if self.income_price_min > PRODUCT_MAX || self.spend_price_max > PRODUCT_MAX {
            "a price is at most 63 bits"
        } else if self.spend_grant == 0 || self.spend_grant > PRODUCT_MAX {
            "the grant of a spend address is at least 1 and at most 63 bits"
        } else if lifetimes.iter().any(|&ms| ms == 0 || ms > LIFETIME_MS_MAX) {
            "a lifetime is at least a millisecond and at most ten years"
        } else if self.open_spends_max == 0
            || self.open_incomes_max == 0
            || self.open_transfers_max == 0
        {
            "at least one address and one channel may be open"
        } else {
            return Ok(());
        };
        Err(SettingsError::Value(wrong))
    }

    /// What may follow these settings.
    pub(super) fn check_change(&self, next: &Settings) -> Result<(), SettingsError> {
        let fixed = if self.pem != next.pem {
            "primary key"
        } else if self.token != next.token {
            "token"
        } else if self.holder != next.holder {
            "holder"
        } else {
            return Ok(());
        };
        Err(SettingsError::Fixed(fixed))
    }

    /// The tracker's own common address: its wallet.
    pub fn wallet(&self) -> Address {
        Address::common(&self.pem)
    }

    /// The hash of the primary key: what version 2 messages name.
    ///
    /// # Errors
    /// [`SettingsError::Value`] when the primary key does not parse.
    pub fn id(&self) -> Result<KeyHash, SettingsError> {
        Key::read(&self.pem)
            .map(|key| key.hash())
            .map_err(|_| SettingsError::Value("a key of the tracker does not parse"))
    }

    /// The hashes of all keys, for [`super::Prover::new`]; those that do not parse are left out.
    pub fn ids(&self) -> Vec<KeyHash> {
        self.keys
            .iter()
            .filter_map(|pem| Key::read(pem).ok())
            .map(|key| key.hash())
            .collect()
    }

    /// The lock of an output that backs the wallet.
    pub(super) fn lock(&self) -> Lock {
        Lock::new(&self.token, &Condition::of_key(&self.holder).fingerprint)
    }

    /// The price of a new income address.
    pub fn income_price(&self) -> Price {
        Price {
            amount: self.income_price_min,
            power: self.quantum_power,
        }
    }

    /// The price of a new spend address.
    pub fn spend_price(&self) -> Price {
        Price {
            amount: self.spend_price_max,
            power: self.quantum_power,
        }
    }

    pub(super) fn to_json(&self) -> String {
        let mut out = Writer::new();
        out.string("holder", &self.holder.to_string());
        out.number("income_lifetime_ms", self.income_lifetime_ms);
        out.amount("income_price_min", self.income_price_min);
        out.array("keys", &self.keys, |out, pem| write_string(out, pem));
        out.number("open_incomes_max", u64::from(self.open_incomes_max));
        out.number("open_spends_max", u64::from(self.open_spends_max));
        out.number("open_transfers_max", u64::from(self.open_transfers_max));
        out.string("pem", &self.pem);
        out.number("quantum_power", u64::from(self.quantum_power));
        out.amount("spend_grant", self.spend_grant);
        out.number("spend_lifetime_ms", self.spend_lifetime_ms);
        out.amount("spend_price_max", self.spend_price_max);
        out.boolean("strict_v2", self.strict_v2);
        out.string("token", &self.token.to_string());
        out.number("transfer_lifetime_ms", self.transfer_lifetime_ms);
        out.finish()
    }

    pub(super) fn from_json(value: &Value) -> Result<Settings, MalformedEntry> {
        let fields = Fields::of(value)?;
        let count = |name| u32::try_from(fields.number(name)?).map_err(|_| MalformedEntry(name));
        let keys = fields.array("keys")?;
        let keys = keys
            .iter()
            .map(|pem| pem.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .ok_or(MalformedEntry("keys"))?;
        Ok(Settings {
            pem: fields.string("pem")?.to_owned(),
            keys,
            token: AssetId(fields.hash("token")?),
            holder: fields
                .string("holder")?
                .parse()
                .map_err(|_| MalformedEntry("holder"))?,
            income_price_min: fields.amount("income_price_min")?,
            spend_price_max: fields.amount("spend_price_max")?,
            quantum_power: fields.small("quantum_power")?,
            spend_grant: fields.amount("spend_grant")?,
            income_lifetime_ms: fields.number("income_lifetime_ms")?,
            spend_lifetime_ms: fields.number("spend_lifetime_ms")?,
            transfer_lifetime_ms: fields.number("transfer_lifetime_ms")?,
            open_spends_max: count("open_spends_max")?,
            open_incomes_max: count("open_incomes_max")?,
            open_transfers_max: count("open_transfers_max")?,
            strict_v2: fields.boolean("strict_v2")?,
        })
    }
}
