//! What a member keeps on disk: the mirror, which the log can make again, and what only the member
//! knows.
//!
//! redb: one file each, crash-safe by copying pages on write, no threads of its own.

use std::{ops::RangeInclusive, path::Path};

use bytes::Bytes;
use daybook_ledger::{
    Height, Position,
    consortium::{Entry, IndexKey},
};
use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, Value, WriteTransaction,
};

/// Bytes of pages of one file kept in memory: the lists that people look at fit.
const CACHE_BYTES: usize = 16 << 20;

/// What one file remembers of itself.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
/// The consortium's entries by height and index.
const LOG: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("log");
/// The newest entry of every index key.
const NEWEST: TableDefinition<'_, &[u8], (u64, u32)> = TableDefinition::new("newest");
/// The ledgers in which the member takes part, by their local ids.
const LEDGERS: TableDefinition<'_, u64, &str> = TableDefinition::new("ledgers");
/// Local ids by name.
const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
/// Committed entries of ledgers, by local id and sequence number.
const TRANSACTIONS: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("transactions");
/// Documents that are attached to entries of ledgers, by `uid` and local id.
const ATTACHMENTS: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("attachments");
/// Operations of the member's users, by `@id`.
const OPERATIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("operations");
/// What the member decided about proposals.
const VOTES: TableDefinition<'_, &[u8], &str> = TableDefinition::new("votes");
/// Plan documents by kind and number.
const PLANS: TableDefinition<'_, (u8, u64), &str> = TableDefinition::new("plans");
/// Plan documents that are known already, by sender and `@id`.
const PLAN_IDS: TableDefinition<'_, &str, u64> = TableDefinition::new("plan-ids");
/// Tokens by their hash.
const TOKENS: TableDefinition<'_, &[u8], &str> = TableDefinition::new("tokens");
/// Uploaded documents by `uid`.
const DOCUMENTS: TableDefinition<'_, &str, &str> = TableDefinition::new("documents");

/// The name of the fact that tells the format.
const FORMAT: &str = "format";
/// The format that this program writes.
const FORMAT_NOW: &[u8] = b"1";

/// The disk did not do what was asked, or holds what this program did not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the member's store: {0}")]
pub struct DiskError(pub String);

macro_rules! from_redb {
    ($($error:ty),+) => { $(impl From<$error> for DiskError {
        fn from(error: $error) -> DiskError {
            DiskError(error.to_string())
        }
    })+ };
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

type Result<T> = std::result::Result<T, DiskError>;

fn open(path: &Path, tables: impl FnOnce(&WriteTransaction) -> Result<()>) -> Result<Database> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| DiskError(format!("{}: {error}", path.display())))?;
    let change = database.begin_write()?;
    {
        let mut facts = change.open_table(FACTS)?;
        let known = facts.get(FORMAT)?.map(|format| format.value().to_vec());
        match known.as_deref() {
            None => drop(facts.insert(FORMAT, FORMAT_NOW)?),
            Some(FORMAT_NOW) => {}
            Some(_) => {
                return Err(DiskError(format!(
                    "{}: written by another version of this program",
                    path.display()
                )));
            }
        }
    }
    tables(&change)?;
    change.commit()?;
    Ok(database)
}

fn get<K: Key + 'static, V: Value + 'static, T>(
    database: &Database,
    table: TableDefinition<'_, K, V>,
    key: K::SelfType<'_>,
    read: impl FnOnce(V::SelfType<'_>) -> T,
) -> Result<Option<T>> {
    let table = database.begin_read()?.open_table(table)?;
    Ok(table.get(key)?.map(|found| read(found.value())))
}

/// Copies a table whole, as it was when `from` began.
pub(crate) fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    into: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<()> {
    let rows = from.open_table(table)?;
    let mut copies = into.open_table(table)?;
    for row in rows.iter()? {
        let (key, value) = row?;
        copies.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// The mirror's file.
#[derive(Debug)]
pub(crate) struct MirrorFile(Database);

/// A change of the mirror.
pub(crate) struct MirrorChange(WriteTransaction);

/// The bytes of an index key; the first tells the kind.
fn key_bytes(key: IndexKey<'_>) -> Vec<u8> {
    let of = |kind: u8, parts: &[&[u8]]| {
        let mut bytes = vec![kind];
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    };
    match key {
        IndexKey::Proposal(id) => of(1, &[&id.0]),
        IndexKey::Proposed(id) => of(2, &[&id.0]),
        IndexKey::Vote(id, did) => of(3, &[&id.0, &did.0]),
        IndexKey::Ledger(name) => of(4, &[name.as_bytes()]),
        // The number last and of fixed length, so that no two keys are the same bytes.
        IndexKey::Sequence(name, number) => of(5, &[name.as_bytes(), &number.to_be_bytes()]),
        IndexKey::Member(did) => of(6, &[&did.0]),
        IndexKey::Request(key) => of(7, &[&key]),
    }
}

impl MirrorFile {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<MirrorFile> {
        open(path, |change| {
            change.open_table(LOG)?;
            change.open_table(NEWEST)?;
            change.open_table(LEDGERS)?;
            change.open_table(NAMES)?;
            change.open_table(TRANSACTIONS)?;
            change.open_table(ATTACHMENTS)?;
            Ok(())
        })
        .map(MirrorFile)
    }

    pub(crate) fn fact(&self, name: &str) -> Result<Option<Vec<u8>>> {
        get(&self.0, FACTS, name, <[u8]>::to_vec)
    }

    /// The entry with `key` that was recorded last.
    pub(crate) fn newest(&self, key: IndexKey<'_>) -> Result<Option<Entry>> {
        let key = key_bytes(key);
        match get(&self.0, NEWEST, key.as_slice(), |place| place)? {
            None => Ok(None),
            Some(place) => get(&self.0, LOG, place, entry)?.transpose(),
        }
    }

    /// The place of the last entry.
    pub(crate) fn last(&self) -> Result<Option<Position>> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        Ok(table.last()?.map(|(place, _)| position(place.value())))
    }

    /// Entries behind `after`, in order.
    pub(crate) fn entries(
        &self,
        after: Option<Position>,
        mut each: impl FnMut(Position, Entry) -> Result<()>,
    ) -> Result<()> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        let first = after.map_or((0, 0), |after| {
            (after.height.0, after.index.saturating_add(1))
        });
        for row in table.range(first..)? {
            let (place, text) = row?;
            each(position(place.value()), entry(text.value())?)?;
        }
        Ok(())
    }

    pub(crate) fn ledger_count(&self) -> Result<u64> {
        Ok(self.0.begin_read()?.open_table(LEDGERS)?.len()?)
    }

    pub(crate) fn ledger(&self, id: u64) -> Result<Option<String>> {
        get(&self.0, LEDGERS, id, str::to_owned)
    }

    pub(crate) fn ledger_named(&self, name: &str) -> Result<Option<u64>> {
        get(&self.0, NAMES, name, |id| id)
    }

    /// Ledgers with local ids in a range, the newest first.
    pub(crate) fn ledgers(&self, ids: RangeInclusive<u64>) -> Result<Vec<(u64, String)>> {
        let table = self.0.begin_read()?.open_table(LEDGERS)?;
        let rows = table.range(ids)?.rev();
        rows.map(|row| {
            let (id, text) = row?;
            Ok((id.value(), text.value().to_owned()))
        })
        .collect()
    }

    /// The sequence number of the last entry of a ledger.
    pub(crate) fn size(&self, ledger: u64) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(TRANSACTIONS)?;
        let last = table.range((ledger, 0)..=(ledger, u64::MAX))?.next_back();
        Ok(last.transpose()?.map_or(0, |(place, _)| place.value().1))
    }

    /// Entries of a ledger with sequence numbers in a range, the newest first.
    pub(crate) fn transactions(
        &self,
        ledger: u64,
        numbers: RangeInclusive<u64>,
    ) -> Result<Vec<(u64, String)>> {
        let table = self.0.begin_read()?.open_table(TRANSACTIONS)?;
        let rows = table.range((ledger, *numbers.start())..=(ledger, *numbers.end()))?;
        rows.rev()
            .map(|row| {
                let (place, text) = row?;
                Ok((place.value().1, text.value().to_owned()))
            })
            .collect()
    }

    /// The ledgers that a document is attached to, and what is kept of it for each.
    pub(crate) fn attachments(&self, uid: &str) -> Result<Vec<(u64, String)>> {
        let table = self.0.begin_read()?.open_table(ATTACHMENTS)?;
        let rows = table.range((uid, 0)..=(uid, u64::MAX))?;
        rows.map(|row| {
            let (place, text) = row?;
            Ok((place.value().1, text.value().to_owned()))
        })
        .collect()
    }

    /// Begins a change. One that is not `durable` is lost in a crash unless a durable one follows; the
    /// log gives it again.
    pub(crate) fn change(&self, durable: bool) -> Result<MirrorChange> {
        let mut change = self.0.begin_write()?;
        if !durable {
            change.set_durability(Durability::None)?;
        }
        Ok(MirrorChange(change))
    }
}

impl MirrorChange {
    pub(crate) fn set_fact(&self, name: &str, value: &[u8]) -> Result<()> {
        self.0.open_table(FACTS)?.insert(name, value)?;
        Ok(())
    }

    pub(crate) fn add_entry(&self, at: Position, entry: &Entry) -> Result<()> {
        let place = (at.height.0, at.index);
        self.0
            .open_table(LOG)?
            .insert(place, entry.text().as_ref())?;
        let mut newest = self.0.open_table(NEWEST)?;
        let mut result = Ok(());
        entry.index_keys(&mut |key| {
            if result.is_ok()
                && let Err(error) = newest.insert(key_bytes(key).as_slice(), place)
            {
                result = Err(error.into());
            }
        });
        result
    }

    /// The entry with `key` that was recorded last, this change included.
    pub(crate) fn newest(&self, key: IndexKey<'_>) -> Result<Option<Entry>> {
        let newest = self.0.open_table(NEWEST)?;
        let Some(place) = newest
            .get(key_bytes(key).as_slice())?
            .map(|row| row.value())
        else {
            return Ok(None);
        };
        let log = self.0.open_table(LOG)?;
        let row = log.get(place)?;
        row.map(|row| entry(row.value())).transpose()
    }

    pub(crate) fn ledger_named(&self, name: &str) -> Result<Option<(u64, String)>> {
        let names = self.0.open_table(NAMES)?;
        let Some(id) = names.get(name)?.map(|id| id.value()) else {
            return Ok(None);
        };
        let ledgers = self.0.open_table(LEDGERS)?;
        let text = ledgers.get(id)?.map(|text| text.value().to_owned());
        Ok(text.map(|text| (id, text)))
    }

    /// The sequence number of the last entry of a ledger.
    pub(crate) fn size(&self, ledger: u64) -> Result<u64> {
        let table = self.0.open_table(TRANSACTIONS)?;
        let last = table.range((ledger, 0)..=(ledger, u64::MAX))?.next_back();
        Ok(last.transpose()?.map_or(0, |(place, _)| place.value().1))
    }

    /// Adds a ledger under the next local id, or replaces what is known of it.
    pub(crate) fn put_ledger(&self, name: &str, id: Option<u64>, text: &str) -> Result<u64> {
        let mut ledgers = self.0.open_table(LEDGERS)?;
        let id = match id {
            Some(id) => id,
            None => ledgers.last()?.map_or(1, |(id, _)| id.value() + 1),
        };
        ledgers.insert(id, text)?;
        self.0.open_table(NAMES)?.insert(name, id)?;
        Ok(id)
    }

    pub(crate) fn put_transaction(&self, ledger: u64, number: u64, text: &str) -> Result<()> {
        self.0
            .open_table(TRANSACTIONS)?
            .insert((ledger, number), text)?;
        Ok(())
    }

    /// Notes a document that an entry of a ledger has attached. What the very first entry said of it is
    /// kept as of ledger 0, which is none, and so comes first: whoever names a document of others later
    /// gives it no other address and no other digest.
    pub(crate) fn add_attachment(&self, uid: &str, ledger: u64, text: &str) -> Result<()> {
        let mut attachments = self.0.open_table(ATTACHMENTS)?;
        for place in [0, ledger] {
            if attachments.get((uid, place))?.is_none() {
                attachments.insert((uid, place), text)?;
            }
        }
        Ok(())
    }

    pub(crate) fn commit(self) -> Result<()> {
        Ok(self.0.commit()?)
    }
}

fn position((height, index): (u64, u32)) -> Position {
    Position {
        height: Height(height),
        index,
    }
}

fn entry(text: &[u8]) -> Result<Entry> {
    Entry::read(Bytes::copy_from_slice(text)).map_err(|error| DiskError(error.to_string()))
}

/// The file of what only the member knows. Every change is on disk when the call returns.
#[derive(Debug)]
pub(crate) struct OwnFile(Database);

/// The two kinds of plan documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlanKind {
    Gu11,
    Gu12,
}

impl PlanKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            PlanKind::Gu11 => "gu-11",
            PlanKind::Gu12 => "gu-12",
        }
    }

    const fn number(self) -> u8 {
        match self {
            PlanKind::Gu11 => 11,
            PlanKind::Gu12 => 12,
        }
    }
}

impl OwnFile {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<OwnFile> {
        open(path, |change| {
            change.open_table(OPERATIONS)?;
            change.open_table(VOTES)?;
            change.open_table(PLANS)?;
            change.open_table(PLAN_IDS)?;
            change.open_table(TOKENS)?;
            change.open_table(DOCUMENTS)?;
            Ok(())
        })
        .map(OwnFile)
    }

    /// Writes what it holds at this moment into a new file: whole, whatever is being written meanwhile.
    pub(crate) fn copy(&self, to: &Path) -> Result<()> {
        let copy = OwnFile::open(to)?;
        let (from, into) = (self.0.begin_read()?, copy.0.begin_write()?);
        copy_table(&from, &into, FACTS)?;
        copy_table(&from, &into, OPERATIONS)?;
        copy_table(&from, &into, VOTES)?;
        copy_table(&from, &into, PLANS)?;
        copy_table(&from, &into, PLAN_IDS)?;
        copy_table(&from, &into, TOKENS)?;
        copy_table(&from, &into, DOCUMENTS)?;
        Ok(into.commit()?)
    }

    fn put<'k, K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
        key: K::SelfType<'k>,
        value: V::SelfType<'_>,
    ) -> Result<()> {
        let change = self.0.begin_write()?;
        change.open_table(table)?.insert(key, value)?;
        Ok(change.commit()?)
    }

    fn all<K: Key + 'static, T>(
        &self,
        table: TableDefinition<'_, K, &'static str>,
        mut each: impl FnMut(K::SelfType<'_>, &str) -> Option<T>,
    ) -> Result<Vec<T>> {
        let table = self.0.begin_read()?.open_table(table)?;
        let mut found = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            found.extend(each(key.value(), value.value()));
        }
        Ok(found)
    }

    pub(crate) fn operation(&self, id: &str) -> Result<Option<String>> {
        get(&self.0, OPERATIONS, id, str::to_owned)
    }

    pub(crate) fn put_operation(&self, id: &str, text: &str) -> Result<()> {
        self.put(OPERATIONS, id, text)
    }

    /// Operations of which `wanted` says so.
    pub(crate) fn operations(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        self.all(OPERATIONS, |_, text| wanted(text).then(|| text.to_owned()))
    }

    pub(crate) fn vote(&self, proposal: &[u8; 32]) -> Result<Option<String>> {
        get(&self.0, VOTES, proposal.as_slice(), str::to_owned)
    }

    /// Records what was decided about a proposal, unless something was: the first decision stands and
    /// is given back.
    pub(crate) fn decide_vote(&self, proposal: &[u8; 32], text: &str) -> Result<String> {
        let change = self.0.begin_write()?;
        let stands = {
            let mut votes = change.open_table(VOTES)?;
            let known = votes
                .get(proposal.as_slice())?
                .map(|text| text.value().to_owned());
            match known {
                Some(known) => known,
                None => {
                    votes.insert(proposal.as_slice(), text)?;
                    text.to_owned()
                }
            }
        };
        change.commit()?;
        Ok(stands)
    }

    /// Adds a plan document, unless one of this sender and `@id` is there.
    pub(crate) fn add_plan(&self, kind: PlanKind, name: &str, text: &str) -> Result<bool> {
        let change = self.0.begin_write()?;
        let new = {
            let mut ids = change.open_table(PLAN_IDS)?;
            let known = ids.get(name)?.is_some();
            if !known {
                let mut plans = change.open_table(PLANS)?;
                let kind = kind.number();
                let last = plans.range((kind, 0)..=(kind, u64::MAX))?.next_back();
                let last = last.transpose()?.map_or(0, |(place, _)| place.value().1);
                plans.insert((kind, last + 1), text)?;
                ids.insert(name, last + 1)?;
            }
            !known
        };
        change.commit()?;
        Ok(new)
    }

    pub(crate) fn plan_count(&self, kind: PlanKind) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(PLANS)?;
        let kind = kind.number();
        let last = table.range((kind, 0)..=(kind, u64::MAX))?.next_back();
        Ok(last.transpose()?.map_or(0, |(place, _)| place.value().1))
    }

    /// Plan documents with numbers in a range, the newest first.
    pub(crate) fn plans(
        &self,
        kind: PlanKind,
        numbers: RangeInclusive<u64>,
    ) -> Result<Vec<String>> {
        let table = self.0.begin_read()?.open_table(PLANS)?;
        let kind = kind.number();
        let rows = table.range((kind, *numbers.start())..=(kind, *numbers.end()))?;
        rows.rev()
            .map(|row| Ok(row?.1.value().to_owned()))
            .collect()
    }

    /// The last kept notice of the relay that was read.
    pub(crate) fn notices_read(&self) -> Result<u64> {
        let read = get(&self.0, FACTS, "notices", |bytes| {
            bytes.try_into().map(u64::from_be_bytes)
        })?;
        Ok(read.and_then(std::result::Result::ok).unwrap_or(0))
    }

    pub(crate) fn set_notices_read(&self, number: u64) -> Result<()> {
        self.put(FACTS, "notices", number.to_be_bytes().as_slice())
    }

    pub(crate) fn token(&self, hash: &[u8; 32]) -> Result<Option<String>> {
        get(&self.0, TOKENS, hash.as_slice(), str::to_owned)
    }

    /// Adds a token and drops those of which `over` says that their time is over.
    pub(crate) fn add_token(
        &self,
        hash: &[u8; 32],
        text: &str,
        over: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let change = self.0.begin_write()?;
        {
            let mut tokens = change.open_table(TOKENS)?;
            tokens.retain(|_, text| !over(text))?;
            tokens.insert(hash.as_slice(), text)?;
        }
        Ok(change.commit()?)
    }

    pub(crate) fn document(&self, uid: &str) -> Result<Option<String>> {
        get(&self.0, DOCUMENTS, uid, str::to_owned)
    }

    pub(crate) fn put_document(&self, uid: &str, text: &str) -> Result<()> {
        self.put(DOCUMENTS, uid, text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_decision_about_a_proposal_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.redb");
        let own = OwnFile::open(&path).unwrap();
        assert_eq!(own.decide_vote(&[1; 32], "yes").unwrap(), "yes");
        assert_eq!(own.decide_vote(&[1; 32], "no").unwrap(), "yes");
        drop(own);
        let own = OwnFile::open(&path).unwrap();
        assert_eq!(own.vote(&[1; 32]).unwrap().as_deref(), Some("yes"));
        assert_eq!(own.vote(&[2; 32]).unwrap(), None);
    }

    #[test]
    fn a_plan_document_that_comes_again_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnFile::open(&dir.path().join("own.redb")).unwrap();
        assert!(own.add_plan(PlanKind::Gu11, "a/1", "first").unwrap());
        assert!(!own.add_plan(PlanKind::Gu11, "a/1", "again").unwrap());
        assert!(own.add_plan(PlanKind::Gu11, "b/1", "second").unwrap());
        assert!(own.add_plan(PlanKind::Gu12, "c/1", "other").unwrap());
        assert_eq!(
            own.plans(PlanKind::Gu11, 1..=2).unwrap(),
            ["second", "first"]
        );
        assert_eq!(own.plan_count(PlanKind::Gu12).unwrap(), 1);
    }

    #[test]
    fn tokens_whose_time_is_over_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnFile::open(&dir.path().join("own.redb")).unwrap();
        own.add_token(&[1; 32], "old", |_| false).unwrap();
        own.add_token(&[2; 32], "new", |text| text == "old")
            .unwrap();
        assert_eq!(own.token(&[1; 32]).unwrap(), None);
        assert_eq!(own.token(&[2; 32]).unwrap().as_deref(), Some("new"));
    }
}
