//! The bytes of one record of the log. `docs/format.md` has the same, byte by byte.

use std::sync::Arc;

use bytes::Bytes;
use daybook_ledger::{
    Block, Header, Height, Parser, Rejection, RejectionClass, Transaction, TransactionId, Verified,
    block::{BlockHash, Entry, HEADER_BYTES},
    consortium, tracker,
};

use crate::{Rejected, StoredBlock, place::COUNT_MAX};

/// The first byte of every record.
pub(crate) const VERSION: u8 = 1;
/// Follows the version. No text holds the byte F5, so no transaction can look like a record.
const MAGIC: [u8; 3] = [0xF5, b'D', b'B'];
/// Bytes before a record's head.
pub(crate) const PREFIX_BYTES: usize = 40;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Bytes of one entry of the table: offset and checksum. There is one entry more than transactions.
pub(crate) const TABLE_ENTRY_BYTES: usize = 8;
/// Bytes of a block record's head: header and signature.
pub(crate) const BLOCK_HEAD_BYTES: usize = HEADER_BYTES + 64;
/// The byte before an asset transaction's text.
const KIND_ASSET_TRANSACTION: u8 = 1;
/// The byte before a tracker entry's text.
const KIND_TRACKER_ENTRY: u8 = 2;
/// The byte before the text of an entry of the consortium's book. Other books take other numbers.
const KIND_CONSORTIUM_ENTRY: u8 = 3;
/// The most bytes of a rejection's detail that are kept: more explains nothing.
pub(crate) const DETAIL_BYTES_MAX: usize = 1_024;
/// Bytes of a rejection before its detail: id, class, length of the detail.
const REJECTED_BYTES_MIN: usize = 32 + 1 + 2;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The genesis: the first record of the log.
    Genesis,
    /// A block.
    Block,
}

/// The text of an entry, by its book.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// The canonical text of an asset transaction.
    Asset(Bytes),
    /// The text of a tracker entry.
    Tracker(Bytes),
    /// The text of an entry of the consortium's book.
    Consortium(Bytes),
}

/// An entry read from its text.
pub(crate) enum ReadEntry {
    Asset(Transaction),
    Tracker(tracker::Entry),
    Consortium(consortium::Entry),
}

impl Text {
    /// Takes the kind byte off.
    fn of(bytes: Bytes) -> Option<Text> {
        match *bytes.first()? {
            KIND_ASSET_TRANSACTION => Some(Text::Asset(bytes.slice(1..))),
            KIND_TRACKER_ENTRY => Some(Text::Tracker(bytes.slice(1..))),
            KIND_CONSORTIUM_ENTRY => Some(Text::Consortium(bytes.slice(1..))),
            _ => None,
        }
    }

    /// Reads the entry; the words say what is wrong.
    pub(crate) fn read(self, parser: &mut Parser) -> Result<ReadEntry, String> {
        match self {
            Text::Asset(text) => parser
                .parse_stored(text)
                .map(ReadEntry::Asset)
                .map_err(|error| error.to_string()),
            Text::Tracker(text) => tracker::Entry::read(text)
                .map(ReadEntry::Tracker)
                .map_err(|error| error.to_string()),
            Text::Consortium(text) => consortium::Entry::read(text)
                .map(ReadEntry::Consortium)
                .map_err(|error| error.to_string()),
        }
    }
}

impl ReadEntry {
    /// The entry's name.
    pub(crate) fn id(&self) -> TransactionId {
        match self {
            ReadEntry::Asset(transaction) => transaction.id(),
            ReadEntry::Tracker(entry) => entry.id(),
            ReadEntry::Consortium(entry) => entry.id(),
        }
    }

    /// The entry as a durable block holds it.
    pub(crate) fn into_entry(self) -> Entry {
        match self {
            ReadEntry::Asset(transaction) => {
                Entry::Asset(Arc::new(Verified::from_stored(transaction)))
            }
            ReadEntry::Tracker(entry) => Entry::Tracker(Arc::new(entry)),
            ReadEntry::Consortium(entry) => Entry::Consortium(entry),
        }
    }
}

/// The fixed beginning of a record, its own checksum found right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    pub(crate) kind: Kind,
    /// Bytes of the record, this prefix included, padding not.
    pub(crate) length: u32,
    pub(crate) head_length: u32,
    pub(crate) height: Height,
    pub(crate) count: u32,
    body_crc: u32,
}

impl Prefix {
    /// Bytes from this record's start to the next one's.
    pub(crate) fn stride(&self) -> u64 {
        u64::from(self.length).next_multiple_of(ALIGN)
    }

    /// Reads a prefix; the words say what is wrong.
    pub(crate) fn read(bytes: &[u8; PREFIX_BYTES]) -> Result<Prefix, &'static str> {
        let u32_at =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[1..4] != MAGIC {
            return Err("no record begins here");
        }
        if bytes[0] != VERSION {
            return Err("a record of another format version");
        }
        if crc32c::crc32c(&bytes[..36]) != u32_at(36) {
            return Err("the checksum of the record's prefix is wrong");
        }
        let kind = match bytes[4] {
            1 => Kind::Genesis,
            2 => Kind::Block,
            _ => return Err("a record of an unknown kind"),
        };
        let prefix = Prefix {
            kind,
            length: u32_at(8),
            head_length: u32_at(12),
            height: Height(u64::from_le_bytes(
                bytes[16..24].try_into().expect("eight bytes"),
            )),
            count: u32_at(24),
            body_crc: u32_at(32),
        };
        let table = (u64::from(prefix.count) + 1) * TABLE_ENTRY_BYTES as u64;
        if u64::from(prefix.length) < PREFIX_BYTES as u64 + u64::from(prefix.head_length) + table {
            return Err("the lengths in the record's prefix contradict each other");
        }
        Ok(prefix)
    }

    /// Where the table is, from the record's start.
    pub(crate) fn table_start(&self) -> usize {
        PREFIX_BYTES + self.head_length as usize
    }

    fn texts_start(&self) -> usize {
        self.table_start() + (self.count as usize + 1) * TABLE_ENTRY_BYTES
    }
}

/// A record with every checksum found right.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) prefix: Prefix,
    bytes: Bytes,
}

/// What is wrong with a record, and where in it.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) offset: u64,
    pub(crate) what: String,
}

fn flaw(offset: usize, what: impl Into<String>) -> Flaw {
    Flaw {
        offset: offset as u64,
        what: what.into(),
    }
}

impl Record {
    /// Checks all checksums of a record; `bytes` are exactly as long as `prefix` says.
    pub(crate) fn check(prefix: Prefix, bytes: Bytes) -> Result<Record, Flaw> {
        if bytes.len() != prefix.length as usize {
            return Err(flaw(0, "the record ends early"));
        }
        if crc32c::crc32c(&bytes[PREFIX_BYTES..prefix.texts_start()]) != prefix.body_crc {
            return Err(flaw(
                PREFIX_BYTES,
                "the checksum of the header and the table is wrong",
            ));
        }
        let record = Record { prefix, bytes };
        let mut start = prefix.texts_start();
        if record.entry(0).offset as usize != start {
            return Err(flaw(
                prefix.table_start(),
                "the table of transactions is out of order",
            ));
        }
        for index in 0..prefix.count {
            let crc = record.entry(index).crc;
            let stop = record.entry(index + 1).offset as usize;
            if stop <= start || stop > record.bytes.len() {
                return Err(flaw(
                    prefix.table_start(),
                    "the table of transactions is out of order",
                ));
            }
            if crc32c::crc32c(&record.bytes[start..stop]) != crc {
                return Err(flaw(
                    start,
                    format!("the checksum of transaction {index} is wrong"),
                ));
            }
            if !matches!(
                record.bytes[start],
                KIND_ASSET_TRANSACTION | KIND_TRACKER_ENTRY | KIND_CONSORTIUM_ENTRY
            ) {
                return Err(flaw(
                    start,
                    format!("transaction {index} is of an unknown kind"),
                ));
            }
            start = stop;
        }
        if crc32c::crc32c(&record.bytes[start..]) != record.entry(prefix.count).crc {
            return Err(flaw(start, "the checksum of the rejections is wrong"));
        }
        Ok(record)
    }

    /// The table's entry of a transaction; the one after the last is that of the rejections.
    fn entry(&self, index: u32) -> TableEntry {
        let at = self.prefix.table_start() + index as usize * TABLE_ENTRY_BYTES;
        TableEntry::read(&self.bytes[at..at + TABLE_ENTRY_BYTES])
    }

    /// All bytes of the record, padding left out.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The genesis's or the block header's bytes, signature included.
    pub(crate) fn head(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES..self.prefix.table_start()]
    }

    /// The block's header.
    pub(crate) fn header(&self) -> Result<Header, Flaw> {
        let head = self.head();
        if self.prefix.kind != Kind::Block || head.len() != BLOCK_HEAD_BYTES {
            return Err(flaw(PREFIX_BYTES, "this record is no block"));
        }
        let bytes = head[..HEADER_BYTES]
            .try_into()
            .expect("the slice has the length asked for");
        let header =
            Header::from_bytes(bytes).map_err(|error| flaw(PREFIX_BYTES, error.to_string()))?;
        if header.height != self.prefix.height || header.count != self.prefix.count {
            return Err(flaw(
                PREFIX_BYTES,
                "the block's header contradicts its record",
            ));
        }
        Ok(header)
    }

    /// The block's hash, without reading the header apart.
    pub(crate) fn hash(&self) -> Result<BlockHash, Flaw> {
        Ok(self.header()?.hash())
    }

    /// The text of an entry.
    pub(crate) fn text(&self, index: u32) -> Text {
        let start = self.entry(index).offset as usize;
        let bytes = self
            .bytes
            .slice(start..self.entry(index + 1).offset as usize);
        Text::of(bytes).expect("check() let no other kind pass")
    }

    /// Reads an entry.
    pub(crate) fn read(&self, index: u32, parser: &mut Parser) -> Result<ReadEntry, Flaw> {
        self.text(index).read(parser).map_err(|error| {
            flaw(
                self.text_offset(index) as usize,
                format!("transaction {index} does not read: {error}"),
            )
        })
    }

    /// Where a transaction's text begins, from the record's start.
    pub(crate) fn text_offset(&self, index: u32) -> u64 {
        u64::from(self.entry(index).offset) + 1
    }

    /// The rejections.
    pub(crate) fn rejected(&self) -> Result<Vec<Rejected>, Flaw> {
        let start = self.entry(self.prefix.count).offset as usize;
        let wrong = || flaw(start, "the list of rejections is malformed");
        let mut rest = &self.bytes[start..];
        let mut list = Vec::new();
        while !rest.is_empty() {
            let (head, tail) = rest
                .split_at_checked(REJECTED_BYTES_MIN)
                .ok_or_else(wrong)?;
            let id = TransactionId(head[..32].try_into().expect("32 bytes"));
            let class = RejectionClass::from_code(head[32]).ok_or_else(wrong)?;
            let length = usize::from(u16::from_le_bytes([head[33], head[34]]));
            let (detail, tail) = tail.split_at_checked(length).ok_or_else(wrong)?;
            let detail = std::str::from_utf8(detail).map_err(|_| wrong())?;
            list.push(Rejected {
                id,
                rejection: Rejection::new(class, detail),
            });
            rest = tail;
        }
        Ok(list)
    }

    /// The block and its rejections.
    pub(crate) fn block(&self, parser: &mut Parser) -> Result<StoredBlock, Flaw> {
        let header = self.header()?;
        let signature = self.head()[HEADER_BYTES..]
            .try_into()
            .expect("header() checked the length");
        let entries = (0..self.prefix.count)
            .map(|index| self.read(index, parser).map(ReadEntry::into_entry))
            .collect::<Result<_, _>>()?;
        Ok(StoredBlock {
            block: Block::new(header, signature, entries),
            rejected: self.rejected()?,
        })
    }

    /// The genesis's bytes.
    pub(crate) fn genesis(&self) -> Result<&[u8], Flaw> {
        if self.prefix.kind != Kind::Genesis || self.prefix.height != Height(0) {
            return Err(flaw(PREFIX_BYTES, "the log does not begin with a genesis"));
        }
        Ok(self.head())
    }
}

/// One entry of a record's table.
#[derive(Clone, Copy)]
pub(crate) struct TableEntry {
    /// Where the transaction's kind byte is, or the list of rejections, from the record's start.
    pub(crate) offset: u32,
    /// CRC32C of the kind byte and the text, or of the list of rejections.
    pub(crate) crc: u32,
}

impl TableEntry {
    /// Reads an entry.
    pub(crate) fn read(bytes: &[u8]) -> TableEntry {
        TableEntry {
            offset: u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")),
            crc: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
        }
    }

    /// The text behind the kind byte, if `bytes` are what the entry was made for.
    pub(crate) fn open(&self, bytes: Bytes) -> Option<Text> {
        (crc32c::crc32c(&bytes) == self.crc).then(|| Text::of(bytes))?
    }
}

/// Writes the record of the genesis into `out`.
pub(crate) fn encode_genesis(genesis: &[u8], out: &mut Vec<u8>) {
    encode(Kind::Genesis, Height(0), genesis, &[], &[], out);
}

/// Writes the record of a block into `out`.
///
/// # Panics
/// When the block has more entries or bytes than a position or a record can name; the ledger's
/// limits keep blocks far below.
pub(crate) fn encode_block(stored: &StoredBlock, out: &mut Vec<u8>) {
    let block = &stored.block;
    assert!(
        block.entries.len() <= COUNT_MAX,
        "the index of a position has 24 bits"
    );
    assert_eq!(
        block.header.count as usize,
        block.entries.len(),
        "the header counts its entries"
    );
    let mut head = [0; BLOCK_HEAD_BYTES];
    head[..HEADER_BYTES].copy_from_slice(&block.header.to_bytes());
    head[HEADER_BYTES..].copy_from_slice(&block.signature);
    let texts: Vec<(u8, &[u8])> = block
        .entries
        .iter()
        .map(|entry| (kind_of(entry), &entry.text()[..]))
        .collect();
    encode(
        Kind::Block,
        block.header.height,
        &head,
        &texts,
        &stored.rejected,
        out,
    );
}

/// The byte before an entry's text.
fn kind_of(entry: &Entry) -> u8 {
    match entry {
        Entry::Asset(_) => KIND_ASSET_TRANSACTION,
        Entry::Tracker(_) => KIND_TRACKER_ENTRY,
        Entry::Consortium(_) => KIND_CONSORTIUM_ENTRY,
    }
}

fn encode(
    kind: Kind,
    height: Height,
    head: &[u8],
    texts: &[(u8, &[u8])],
    rejected: &[Rejected],
    out: &mut Vec<u8>,
) {
    out.clear();
    out.resize(PREFIX_BYTES, 0);
    out.extend_from_slice(head);
    let table = out.len();
    let table_end = table + (texts.len() + 1) * TABLE_ENTRY_BYTES;
    out.resize(table_end, 0);
    for (index, (kind, text)) in texts.iter().enumerate() {
        let start = out.len();
        out.push(*kind);
        out.extend_from_slice(text);
        put_entry(out, table + index * TABLE_ENTRY_BYTES, start);
    }
    let rejections = out.len();
    for lost in rejected {
        let detail = shortened(&lost.rejection.detail);
        out.extend_from_slice(&lost.id.0);
        out.push(lost.rejection.class.code());
        out.extend_from_slice(&(detail.len() as u16).to_le_bytes());
        out.extend_from_slice(detail.as_bytes());
    }
    put_entry(out, table_end - TABLE_ENTRY_BYTES, rejections);
    let length = u32::try_from(out.len()).expect("a block's bytes are bounded far below 2^32");
    let body_crc = crc32c::crc32c(&out[PREFIX_BYTES..table_end]);
    out[0] = VERSION;
    out[1..4].copy_from_slice(&MAGIC);
    out[4] = match kind {
        Kind::Genesis => 1,
        Kind::Block => 2,
    };
    out[8..12].copy_from_slice(&length.to_le_bytes());
    out[12..16].copy_from_slice(&(head.len() as u32).to_le_bytes());
    out[16..24].copy_from_slice(&height.0.to_le_bytes());
    out[24..28].copy_from_slice(&(texts.len() as u32).to_le_bytes());
    out[32..36].copy_from_slice(&body_crc.to_le_bytes());
    let crc = crc32c::crc32c(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN as usize), 0);
}

/// Writes the table's entry at `at` for what lies from `start` to the end.
fn put_entry(out: &mut [u8], at: usize, start: usize) {
    let crc = crc32c::crc32c(&out[start..]);
    let offset = u32::try_from(start).expect("a block's bytes are bounded far below 2^32");
    out[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// As much of a detail as is kept, cut between characters.
fn shortened(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)]
}

/// Bytes of the record of a genesis, padding included.
pub(crate) fn genesis_record_bytes(genesis: &[u8]) -> u64 {
    let mut record = Vec::new();
    encode_genesis(genesis, &mut record);
    record.len() as u64
}
