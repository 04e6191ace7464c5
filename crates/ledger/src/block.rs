//! Blocks: transactions agreed at one height, and the bytes they are stored and signed as.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest::{SHA3_256, SHA256, digest};

use bytes::Bytes;

use crate::{
    PublicKey, SigningKey, Transaction, TransactionId, Verified, consortium, merkle, tracker,
};

/// The first byte of every encoded genesis and header.
pub const FORMAT: u8 = 1;

/// Bytes of an encoded [`Header`].
pub const HEADER_BYTES: usize = 182;

/// What a proposer's signature begins with, so that it can never be taken for one over anything else.
const SIGNATURE_DOMAIN: &[u8] = b"daybook/block/1\0";

/// The place of a block in the log: 1 for the first, 0 for the empty beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u64);

/// Milliseconds since 1970-01-01 UTC; strictly increasing from block to block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockTime(pub u64);

/// The place of a transaction in the log: the cursor of every stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The block.
    pub height: Height,
    /// The transaction in the block, from 0.
    pub index: u32,
}

/// SHA-256 of a header: what the next block names as its parent and what the proposer signs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

/// The chained commitment to everything that was ever applied, as 64 hexadecimal digits on the wire
/// (`app_hash`; asset ledger, section 10). `None` before the first transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(pub Option<[u8; 32]>);

/// How a chain begins: the same for all nodes of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The network's name.
    pub chain: String,
    /// When it began.
    pub time: BlockTime,
    /// Who may propose blocks, with voting powers.
    pub validators: Vec<Validator>,
}

/// One of those who decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The key it signs blocks with.
    pub key: PublicKey,
    /// Its weight.
    pub power: u64,
}

/// What a block says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`Genesis::hash`] of its chain.
    pub chain: BlockHash,
    /// Its place.
    pub height: Height,
    /// Its time.
    pub time: BlockTime,
    /// The block before it; the genesis for the first.
    pub parent: BlockHash,
    /// Who made it.
    pub proposer: PublicKey,
    /// Merkle root (RFC 6962) over the entries' ids.
    pub transactions_root: [u8; 32],
    /// The state before this block.
    pub parent_state: StateHash,
    /// How many entries it holds.
    pub count: u32,
}

/// A transaction of any book, as a block holds it.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Of the asset ledger.
    Asset(Arc<Verified<Transaction>>),
    /// Of the wallet tracker.
    Tracker(Arc<tracker::Entry>),
    /// Of the consortium's book.
    Consortium(consortium::Entry),
}

/// A block. Every entry in it applies cleanly in order; losers are not part of blocks.
#[derive(Clone, Debug)]
pub struct Block {
    /// What it says about itself.
    pub header: Header,
    /// The proposer's Ed25519 signature over [`Header::hash`].
    pub signature: [u8; 64],
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// The state after it, once somebody asked.
    state: OnceLock<StateHash>,
}

/// The bytes are no block header, or a block contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Too short, too long or of an unknown format version.
    #[error("not a block header of format {FORMAT}")]
    Format,
    /// The header's count is not the number of transactions.
    #[error("the header counts other transactions than the block holds")]
    Count,
    /// The Merkle root is another one.
    #[error("the transactions do not have the header's Merkle root")]
    Root,
    /// The proposer did not sign this header.
    #[error("the proposer's signature is not over this header")]
    Signature,
}

impl Genesis {
    /// The bytes that [`Genesis::hash`] is taken over and that the log begins with.
    ///
    /// Format byte, chain name (u16 length, UTF-8), time (u64), number of validators (u16), and for each
    /// its key (32 bytes) and power (u64); integers little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        let name = &self.chain.as_bytes()[..self.chain.len().min(usize::from(u16::MAX))];
        bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&self.time.0.to_le_bytes());
        bytes.extend_from_slice(&(self.validators.len() as u16).to_le_bytes());
        for validator in &self.validators {
            bytes.extend_from_slice(&validator.key.0);
            bytes.extend_from_slice(&validator.power.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Genesis::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`BlockError::Format`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Genesis, BlockError> {
        let mut reader = Reader(bytes);
        if reader.take::<1>()? != [FORMAT] {
            return Err(BlockError::Format);
        }
        let name = usize::from(u16::from_le_bytes(reader.take()?));
        let chain = reader.slice(name)?;
        let chain = std::str::from_utf8(chain)
            .map_err(|_| BlockError::Format)?
            .to_owned();
        let time = BlockTime(u64::from_le_bytes(reader.take()?));
        let count = u16::from_le_bytes(reader.take()?);
        let validators = (0..count)
            .map(|_| {
                let key = PublicKey(reader.take()?);
                Ok(Validator {
                    key,
                    power: u64::from_le_bytes(reader.take()?),
                })
            })
            .collect::<Result<_, BlockError>>()?;
        if reader.0.is_empty() {
            Ok(Genesis {
                chain,
                time,
                validators,
            })
        } else {
            Err(BlockError::Format)
        }
    }

    /// What the first block names as its parent, and every block as its chain.
    pub fn hash(&self) -> BlockHash {
        BlockHash(sha256(&self.to_bytes()))
    }
}

impl Header {
    /// The header's bytes: format, chain, height, time, parent, proposer, transactions root, parent state
    /// (a flag byte, then 32 bytes), count; integers little-endian.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.chain.0);
        bytes.extend_from_slice(&self.height.0.to_le_bytes());
        bytes.extend_from_slice(&self.time.0.to_le_bytes());
        bytes.extend_from_slice(&self.parent.0);
        bytes.extend_from_slice(&self.proposer.0);
        bytes.extend_from_slice(&self.transactions_root);
        bytes.push(u8::from(self.parent_state.0.is_some()));
        bytes.extend_from_slice(&self.parent_state.0.unwrap_or_default());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes
            .try_into()
            .expect("the members above add up to HEADER_BYTES")
    }

    /// Reads what [`Header::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`BlockError::Format`] for an unknown format or a state flag that is neither 0 nor 1.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Header, BlockError> {
        let mut reader = Reader(bytes);
        if reader.take::<1>()? != [FORMAT] {
            return Err(BlockError::Format);
        }
        Ok(Header {
            chain: BlockHash(reader.take()?),
            height: Height(u64::from_le_bytes(reader.take()?)),
            time: BlockTime(u64::from_le_bytes(reader.take()?)),
            parent: BlockHash(reader.take()?),
            proposer: PublicKey(reader.take()?),
            transactions_root: reader.take()?,
            parent_state: match (reader.take()?, reader.take()?) {
                ([0], state) if state == [0; 32] => StateHash(None),
                ([1], state) => StateHash(Some(state)),
                _ => return Err(BlockError::Format),
            },
            count: u32::from_le_bytes(reader.take()?),
        })
    }

    /// SHA-256 of the header's bytes.
    pub fn hash(&self) -> BlockHash {
        BlockHash(sha256(&self.to_bytes()))
    }
}

impl Block {
    /// A block of these parts, which may contradict each other until [`Block::check`] says otherwise.
    pub fn new(header: Header, signature: [u8; 64], entries: Vec<Entry>) -> Block {
        Block {
            header,
            signature,
            entries,
            state: OnceLock::new(),
        }
    }

    /// Makes the block that follows `parent`, signed by `proposer`.
    pub fn seal(
        after: &Parent,
        time: BlockTime,
        entries: Vec<Entry>,
        proposer: &SigningKey,
    ) -> Block {
        let header = Header {
            chain: after.chain,
            height: after.height.next(),
            time: after.time_of_next(time),
            parent: after.hash,
            proposer: proposer.public_key(),
            transactions_root: merkle::root(entries.iter().map(|entry| entry.id().0)),
            parent_state: after.state,
            count: u32::try_from(entries.len()).expect("a block's size is bounded far below 2^32"),
        };
        let signature = proposer.sign(&signed_bytes(&header.hash()));
        Block::new(header, signature, entries)
    }

    /// The transactions of the asset ledger in it, each with its place in the block.
    pub fn assets(&self) -> impl Iterator<Item = (u32, &Arc<Verified<Transaction>>)> {
        let numbered = (0..).zip(&self.entries);
        numbered.filter_map(|(index, entry)| Some((index, entry.as_asset()?)))
    }

    /// The state after this block.
    pub fn state(&self) -> StateHash {
        *self.state.get_or_init(|| {
            let ids = self.entries.iter().map(Entry::id);
            self.header.parent_state.next(ids)
        })
    }

    /// What the next block follows.
    pub fn as_parent(&self) -> Parent {
        Parent {
            chain: self.header.chain,
            height: self.header.height,
            time: self.header.time,
            hash: self.header.hash(),
            state: self.state(),
        }
    }

    /// Whether header, transactions and signature belong together.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), BlockError> {
        if u32::try_from(self.entries.len()) != Ok(self.header.count) {
            return Err(BlockError::Count);
        }
        if merkle::root(self.entries.iter().map(|entry| entry.id().0))
            != self.header.transactions_root
        {
            return Err(BlockError::Root);
        }
        let signature = ed25519_zebra::Signature::from(self.signature);
        ed25519_zebra::VerificationKey::try_from(self.header.proposer.0)
            .and_then(|key| key.verify(&signature, &signed_bytes(&self.header.hash())))
            .map_err(|_| BlockError::Signature)
    }
}

/// What a block must know of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// [`Genesis::hash`] of the chain.
    pub chain: BlockHash,
    /// The parent's height.
    pub height: Height,
    /// The parent's time.
    pub time: BlockTime,
    /// The parent's hash.
    pub hash: BlockHash,
    /// The state after the parent.
    pub state: StateHash,
}

impl Entry {
    /// Its name.
    pub fn id(&self) -> TransactionId {
        match self {
            Entry::Asset(transaction) => transaction.id(),
            Entry::Tracker(entry) => entry.id(),
            Entry::Consortium(entry) => entry.id(),
        }
    }

    /// The text that is stored.
    pub fn text(&self) -> &Bytes {
        match self {
            Entry::Asset(transaction) => transaction.canonical(),
            Entry::Tracker(entry) => entry.text(),
            Entry::Consortium(entry) => entry.text(),
        }
    }

    /// The transaction, if it is one of the asset ledger.
    pub fn as_asset(&self) -> Option<&Arc<Verified<Transaction>>> {
        match self {
            Entry::Asset(transaction) => Some(transaction),
            Entry::Tracker(_) | Entry::Consortium(_) => None,
        }
    }
}

impl From<Arc<Verified<Transaction>>> for Entry {
    fn from(transaction: Arc<Verified<Transaction>>) -> Entry {
        Entry::Asset(transaction)
    }
}

impl From<Arc<tracker::Entry>> for Entry {
    fn from(entry: Arc<tracker::Entry>) -> Entry {
        Entry::Tracker(entry)
    }
}

impl From<consortium::Entry> for Entry {
    fn from(entry: consortium::Entry) -> Entry {
        Entry::Consortium(entry)
    }
}

impl Parent {
    /// The time of a block that follows when the clock says `now`: time never stands still.
    pub fn time_of_next(&self, now: BlockTime) -> BlockTime {
        now.max(BlockTime(self.time.0.saturating_add(1)))
    }

    /// The beginning of the chain.
    pub fn of_genesis(genesis: &Genesis) -> Parent {
        let hash = genesis.hash();
        Parent {
            chain: hash,
            height: Height(0),
            time: genesis.time,
            hash,
            state: StateHash(None),
        }
    }
}

impl Height {
    /// The height after this one.
    pub const fn next(self) -> Height {
        Height(
            self.0
                .checked_add(1)
                .expect("a block a nanosecond fills 64 bits in 584 years"),
        )
    }
}

impl StateHash {
    /// The state after a block with these transactions: `hex(SHA3(state ‖ hex(SHA3(id₁ ‖ id₂ ‖ …))))`, all
    /// as text; unchanged by a block without transactions (asset ledger, section 10).
    pub fn next(self, ids: impl IntoIterator<Item = TransactionId>) -> StateHash {
        let mut text = Vec::new();
        for id in ids {
            let start = text.len();
            text.resize(start.saturating_add(64), 0);
            hex::encode_to_slice(id.0, &mut text[start..]).expect("64 digits hold 32 bytes");
        }
        if text.is_empty() {
            return self;
        }
        let block = hex::encode(digest(&SHA3_256, &text));
        let chained = digest(&SHA3_256, format!("{self}{block}").as_bytes());
        StateHash(Some(
            chained.as_ref().try_into().expect("SHA3-256 has 32 bytes"),
        ))
    }
}

impl fmt::Display for StateHash {
    /// 64 hexadecimal digits; nothing before the first transaction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(state) => f.write_str(&hex::encode(state)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.height, self.index)
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        Ok(self
            .slice(N)?
            .try_into()
            .expect("the slice has the length asked for"))
    }

    fn slice(&mut self, length: usize) -> Result<&'b [u8], BlockError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BlockError::Format)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn signed_bytes(hash: &BlockHash) -> Vec<u8> {
    [SIGNATURE_DOMAIN, &hash.0].concat()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TransactionId {
        text.parse().expect("the id is well formed")
    }

    /// The check values of section 10: vectors 01 then 08, one block each.
    #[test]
    fn the_state_is_chained_as_the_reference_chains_it() {
        let first = StateHash(None).next([id(
            "0c8be0e51ddd671a5b32da2e5ecd65c4ba0d68fef13d8c0de5df8fd2fba4bd47",
        )]);
        assert_eq!(
            first.to_string(),
            "5033ab4e3a80a9d911e2a16d3c4c4f7426ed613241eeb9348eac380b399ba755"
        );
        let second = first.next([id(
            "8aa200c71fc3f05a69f30ae2f0633c8b069e0af70c8ff47df4d5a0c0464a9c0d",
        )]);
        assert_eq!(
            second.to_string(),
            "9f0f6289dc6fde37b1596beed31302bae5cbd4b3eecbe7a831ead9604b71cac1"
        );
        assert_eq!(second.next([]), second);
    }

    fn genesis() -> Genesis {
        let key = SigningKey::from_seed([7; 32]).public_key();
        Genesis {
            chain: "test".into(),
            time: BlockTime(1_000),
            validators: vec![Validator { key, power: 10 }],
        }
    }

    #[test]
    fn a_genesis_reads_back_as_written_and_nothing_else_reads_as_one() {
        let bytes = genesis().to_bytes();
        assert_eq!(Genesis::from_bytes(&bytes), Ok(genesis()));
        for length in 0..bytes.len() {
            assert_eq!(
                Genesis::from_bytes(&bytes[..length]),
                Err(BlockError::Format)
            );
        }
        assert_eq!(
            Genesis::from_bytes(&[&bytes[..], &[0]].concat()),
            Err(BlockError::Format)
        );
    }

    #[test]
    fn a_sealed_block_follows_its_parent_and_proves_its_proposer() {
        let parent = Parent::of_genesis(&genesis());
        let mut block = Block::seal(
            &parent,
            BlockTime(5),
            vec![],
            &SigningKey::from_seed([7; 32]),
        );
        assert_eq!(block.header.height, Height(1));
        assert_eq!(block.header.parent, genesis().hash());
        assert_eq!(
            block.header.time,
            BlockTime(1_001),
            "time never stands still"
        );
        assert_eq!(block.check(), Ok(()));
        assert_eq!(
            Header::from_bytes(&block.header.to_bytes()),
            Ok(block.header.clone())
        );
        block.header.time = BlockTime(1_002);
        assert_eq!(block.check(), Err(BlockError::Signature));
        block.header.count = 1;
        assert_eq!(block.check(), Err(BlockError::Count));
    }

    /// Golden bytes: a change here is a change of the format.
    #[test]
    fn header_bytes_do_not_change() {
        let block = Block::seal(
            &Parent::of_genesis(&genesis()),
            BlockTime(2_000),
            vec![],
            &SigningKey::from_seed([7; 32]),
        );
        assert_eq!(
            block.header.hash().to_string(),
            "bbb183667672b1748613d8226f86bcebb83a125360a897b1c97cf387ee50bf07"
        );
    }
}
