//! A book as bytes, for checkpoints. Every list is sorted, integers are little-endian, texts have a
//! length of 32 bits before them; one state has one encoding.

use std::{collections::BTreeMap, sync::Arc};

use super::{Account, Book, Common, Mirror, OpenChannel, Rank, Sums, Terms};
use crate::{
    OutputRef, TransactionId,
    block::Height,
    json::Value,
    tracker::{Channel, Contract, Entry, KeyHash, Price, Settings, Settled},
};

/// The first byte.
const FORMAT: u8 = 1;

/// Nesting of the settings' JSON.
const DEPTH_MAX: usize = 4;

/// The bytes are not a book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tracker's book of format {FORMAT}: {0}")]
pub struct MalformedBook(String);

type Read<T> = Result<T, MalformedBook>;

impl Book {
    /// The whole state: what [`Book::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![FORMAT]);
        match &self.terms {
            None => out.byte(0),
            Some(terms) => {
                out.byte(1);
                out.text(&terms.settings.to_json());
            }
        }
        out.number(self.revision);
        out.number(self.sequence);
        out.number(self.time);
        out.sums(&self.sums);
        out.number(self.accounts.len() as u64);
        for (address, account) in &self.accounts {
            out.text(address);
            out.hash(&account.owner.0);
            out.price(&account.price);
            out.number(account.timelock);
            out.text(&account.open_id);
            for number in [account.balance, account.paid, account.volume] {
                out.number(number);
            }
        }
        out.number(self.commons.len() as u64);
        for (address, common) in &self.commons {
            out.text(address);
            out.number(common.fact);
            out.number(common.profit);
        }
        out.number(self.channels.len() as u64);
        for open in self.channels.values() {
            out.channel(&open.channel);
            match &open.parked {
                None => out.byte(0),
                Some(settled) => {
                    out.byte(1);
                    for number in [settled.count, settled.tokens, settled.volume] {
                        out.number(number);
                    }
                }
            }
        }
        out.number(self.derived.len() as u64);
        for ((owner, rank), time) in &self.derived {
            out.hash(&owner.0);
            out.byte(u8::from(*rank == Rank::Spend));
            out.number(*time);
        }
        out.number(self.nonces.iter().len() as u64);
        for (time, mark) in self.nonces.iter() {
            out.number(time);
            out.0.extend_from_slice(&mark);
        }
        out.number(self.holdings.iter().len() as u64);
        for (output, amount) in self.holdings.iter() {
            out.hash(&output.transaction.0);
            out.number(output.index.into());
            out.number(amount);
        }
        let recent: Vec<_> = self.recent.iter().collect();
        out.number(recent.len() as u64);
        for (height, entry) in recent {
            out.number(height.0);
            out.bytes(entry.text());
        }
        out.0
    }

    /// Reads the bytes of [`Book::encode`], and audits what they say.
    ///
    /// # Errors
    /// [`MalformedBook`] for other bytes, and for a book that breaks an invariant.
    pub fn decode(bytes: &[u8]) -> Result<Book, MalformedBook> {
        let mut input = Reader(bytes);
        if input.byte()? != FORMAT {
            return Err(wrong("another format"));
        }
        let mut book = Book::default();
        if input.flag()? {
            let text = input.text()?;
            let value = Value::parse(text.as_bytes(), DEPTH_MAX)
                .map_err(|error| wrong(format!("settings: {error}")))?;
            let settings = Settings::from_json(&value).map_err(|error| wrong(error.to_string()))?;
            settings.check().map_err(|error| wrong(error.to_string()))?;
            if settings.to_json() != text {
                return Err(wrong("settings in another writing"));
            }
            book.terms = Some(Terms::new(settings));
        }
        book.revision = input.number()?;
        book.sequence = input.number()?;
        book.time = input.number()?;
        book.sums = input.sums()?;
        for _ in 0..input.number()? {
            let address = input.shared()?;
            let account = Account {
                owner: KeyHash(input.hash()?),
                price: input.price()?,
                timelock: input.number()?,
                open_id: input.shared()?,
                balance: input.number()?,
                promised: 0,
                paid: input.number()?,
                promised_bytes: 0,
                volume: input.number()?,
                channels: Default::default(),
            };
            let rank = Rank::of_account(&address);
            book.owned.insert((account.owner, rank, address.clone()));
            book.locks.insert((rank, account.timelock, address.clone()));
            insert(&mut book.accounts, address, account)?;
        }
        for _ in 0..input.number()? {
            let address = input.shared()?;
            let common = Common {
                fact: input.number()?,
                profit: input.number()?,
                ..Common::default()
            };
            insert(&mut book.commons, address, common)?;
        }
        for _ in 0..input.number()? {
            let channel = input.channel()?;
            let parked = if input.flag()? {
                Some(Settled {
                    count: input.number()?,
                    tokens: input.number()?,
                    volume: input.number()?,
                })
            } else {
                None
            };
            book.restore_channel(channel, parked)?;
        }
        for _ in 0..input.number()? {
            let owner = KeyHash(input.hash()?);
            let rank = if input.flag()? {
                Rank::Spend
            } else {
                Rank::Income
            };
            let time = input.number()?;
            insert(&mut book.derived, (owner, rank), time)?;
        }
        for _ in 0..input.number()? {
            let time = input.number()?;
            book.nonces.insert(input.array()?, time);
        }
        for _ in 0..input.number()? {
            let transaction = TransactionId(input.hash()?);
            let index = u32::try_from(input.number()?).map_err(|_| wrong("an output's index"))?;
            let amount = input.number()?;
            if !book.holdings.add(OutputRef { transaction, index }, amount) {
                return Err(wrong("an output twice"));
            }
        }
        for _ in 0..input.number()? {
            let height = Height(input.number()?);
            let text = bytes::Bytes::copy_from_slice(input.bytes()?);
            let entry = Entry::read(text).map_err(|error| wrong(error.to_string()))?;
            book.recent.restore(&entry, height);
        }
        if !input.0.is_empty() {
            return Err(wrong("bytes behind the end"));
        }
        if book.encode() != bytes {
            return Err(wrong("another order"));
        }
        book.audit()
            .map_err(|violation| wrong(violation.to_string()))?;
        Ok(book)
    }

    /// Puts an open channel onto its addresses again.
    fn restore_channel(&mut self, channel: Channel, parked: Option<Settled>) -> Read<()> {
        let contract = &channel.contract;
        let id = contract.channel.clone();
        let (cost, bytes) = (contract.cost(), contract.bytes());
        let beyond = || wrong("sums beyond 64 bits");
        let mut ends = vec![&contract.from];
        match channel.profit {
            None => ends.push(&contract.to),
            Some(_) => {
                let common = self
                    .commons
                    .get_mut(&contract.to)
                    .ok_or_else(|| wrong("a channel to an unknown wallet"))?;
                common.plan = common.plan.checked_add(cost).ok_or_else(beyond)?;
                common.channels = common.channels.saturating_add(1);
            }
        }
        for end in ends {
            let account = self
                .accounts
                .get_mut(end)
                .ok_or_else(|| wrong("a channel on an unknown address"))?;
            account.promised = account.promised.checked_add(cost).ok_or_else(beyond)?;
            account.promised_bytes = account
                .promised_bytes
                .checked_add(bytes)
                .ok_or_else(beyond)?;
            account.channels.insert(id.clone());
        }
        for key in [channel.payer, channel.payee] {
            self.owned.insert((key, Rank::Transfer, id.clone()));
        }
        self.locks
            .insert((Rank::Transfer, channel.timelock, id.clone()));
        insert(&mut self.channels, id, OpenChannel { channel, parked })
    }
}

fn wrong(what: impl Into<String>) -> MalformedBook {
    MalformedBook(what.into())
}

fn insert<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Read<()> {
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(wrong("a name twice")),
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn wide(&mut self, number: u128) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn hash(&mut self, hash: &[u8; 32]) {
        self.0.extend_from_slice(hash);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("an entry is far below 4 GB");
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn price(&mut self, price: &Price) {
        self.number(price.amount);
        self.byte(price.power);
    }

    fn channel(&mut self, channel: &Channel) {
        let contract = &channel.contract;
        self.text(&contract.channel);
        self.text(&contract.from);
        self.text(&contract.to);
        self.price(&contract.price);
        self.number(contract.planned);
        self.hash(&channel.payer.0);
        self.hash(&channel.payee.0);
        self.number(channel.opened);
        self.number(channel.timelock);
        self.text(&channel.open_id);
        match channel.profit {
            None => self.byte(0),
            Some(profit) => {
                self.byte(1);
                self.number(profit);
            }
        }
    }

    fn mirror(&mut self, mirror: &Mirror) {
        for number in [mirror.spend, mirror.income, mirror.common] {
            self.wide(number);
        }
    }

    fn sums(&mut self, sums: &Sums) {
        for number in [
            sums.wallet,
            sums.spend,
            sums.income,
            sums.fact,
            sums.profit,
            sums.minted,
        ] {
            self.wide(number);
        }
        for mirror in [
            &sums.paid,
            &sums.volume,
            &sums.closed_paid,
            &sums.closed_volume,
        ] {
            self.mirror(mirror);
        }
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Read<&'b [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| wrong("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken
            .try_into()
            .expect("the slice has the length asked for"))
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong("neither yes nor no")),
        }
    }

    fn number(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn wide(&mut self) -> Read<u128> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    fn hash(&mut self) -> Read<[u8; 32]> {
        self.array()
    }

    fn bytes(&mut self) -> Read<&'b [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(length as usize)
    }

    fn text(&mut self) -> Read<&'b str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| wrong("text is not UTF-8"))
    }

    fn shared(&mut self) -> Read<Arc<str>> {
        self.text().map(Arc::from)
    }

    fn price(&mut self) -> Read<Price> {
        Ok(Price {
            amount: self.number()?,
            power: self.byte()?,
        })
    }

    fn channel(&mut self) -> Read<Channel> {
        Ok(Channel {
            contract: Contract {
                channel: self.shared()?,
                from: self.shared()?,
                to: self.shared()?,
                price: self.price()?,
                planned: self.number()?,
            },
            payer: KeyHash(self.hash()?),
            payee: KeyHash(self.hash()?),
            opened: self.number()?,
            timelock: self.number()?,
            open_id: self.shared()?,
            profit: if self.flag()? {
                Some(self.number()?)
            } else {
                None
            },
        })
    }

    fn mirror(&mut self) -> Read<Mirror> {
        Ok(Mirror {
            spend: self.wide()?,
            income: self.wide()?,
            common: self.wide()?,
        })
    }

    fn sums(&mut self) -> Read<Sums> {
        Ok(Sums {
            wallet: self.wide()?,
            spend: self.wide()?,
            income: self.wide()?,
            fact: self.wide()?,
            profit: self.wide()?,
            minted: self.wide()?,
            paid: self.mirror()?,
            volume: self.mirror()?,
            closed_paid: self.mirror()?,
            closed_volume: self.mirror()?,
        })
    }
}
