//! What a member keeps on disk: the mirror, which the log can make again, and what only the member
//! knows.
//!
//! redb: one file each, crash-safe by copying pages on write, no threads of its own.

use std::{ops::RangeInclusive, path::Path};

use bytes::Bytes;
use daybook_ledger::{
    Height, Position,
    consortium::{Did, Entry, IndexKey},
};
use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, Value, WriteTransaction,
};

use crate::json::{own, text};

/// Bytes of pages of one file kept in memory: the lists that people look at fit.
const CACHE_BYTES: usize = 16 << 20;

/// Bytes of a DID.
const DID_BYTES: usize = 16;

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
/// Documents that are attached to entries of ledgers, by `uid`, who signed the entry, and local id.
const ATTACHMENTS: TableDefinition<'_, (&str, &[u8; DID_BYTES], u64), &str> =
    TableDefinition::new("attachments");
/// The ledgers by their last change, in the order of changes: local id, and the time of the log.
const CHANGES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("changes");
/// The number of the last change of each ledger, by local id.
const LAST_CHANGES: TableDefinition<'_, u64, u64> = TableDefinition::new("last-changes");
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
/// Documents by `uid` and the member who attached them; of those uploaded here, the empty text.
const DOCUMENTS: TableDefinition<'_, (&str, &str), &str> =
    TableDefinition::new("documents-by-member");
/// What [`DOCUMENTS`] was in format 1: by `uid` alone.
const DOCUMENTS_1: TableDefinition<'_, &str, &str> = TableDefinition::new("documents");

/// The name of the fact that tells how far the relay was read.
const NOTICES_READ: &str = "notices";
/// The local id under which it stands what the first entry of a member said of a document: no ledger has it.
const FIRST_SAID: u64 = 0;

/// The name of the fact that tells the format.
const FORMAT: &str = "format";
/// The format of the mirror that this program writes. One of format 1, which knew documents by their `uid`
/// alone and no changes, is emptied: the log makes it anew.
const MIRROR_FORMAT: &[u8] = b"2";
/// The format of what only the member knows. One of format 1 is brought to it.
const OWN_FORMAT: &[u8] = b"2";
/// The format before both.
const FORMAT_1: &[u8] = b"1";

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

/// Opens a file of a format, or makes it. `upgrade` brings one of format 1 to it: all or nothing, as one
/// change.
fn open(
    path: &Path,
    format: &[u8],
    upgrade: impl FnOnce(&WriteTransaction) -> Result<()>,
    tables: impl FnOnce(&WriteTransaction) -> Result<()>,
) -> Result<Database> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| DiskError(format!("{}: {error}", path.display())))?;
    let change = database.begin_write()?;
    let known = {
        let facts = change.open_table(FACTS)?;
        facts.get(FORMAT)?.map(|format| format.value().to_vec())
    };
    match known.as_deref() {
        None => {}
        Some(known) if known == format => {}
        Some(FORMAT_1) => {
            tracing::info!(path = %path.display(), "bringing a file of an earlier version up to date");
            upgrade(&change)?;
        }
        Some(_) => {
            return Err(DiskError(format!(
                "{}: written by another version of this program",
                path.display()
            )));
        }
    }
    change.open_table(FACTS)?.insert(FORMAT, format)?;
    tables(&change)?;
    change.commit()?;
    Ok(database)
}

/// Removes everything.
fn empty(change: &WriteTransaction) -> Result<()> {
    let tables: Vec<_> = change.list_tables()?.collect();
    for table in tables {
        change.delete_table(table)?;
    }
    Ok(())
}

/// Documents that others brought are told from those uploaded here by who kept them: a DID, or a user.
fn documents_by_member(change: &WriteTransaction) -> Result<()> {
    {
        let before = change.open_table(DOCUMENTS_1)?;
        let mut after = change.open_table(DOCUMENTS)?;
        for row in before.iter()? {
            let (uid, kept) = row?;
            let by = own(kept.value());
            let by = text(&by, "by");
            let member = if by.parse::<Did>().is_ok() { by } else { "" };
            after.insert((uid.value(), member), kept.value())?;
        }
    }
    change.delete_table(DOCUMENTS_1)?;
    Ok(())
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
        open(path, MIRROR_FORMAT, empty, |change| {
            change.open_table(LOG)?;
            change.open_table(NEWEST)?;
            change.open_table(LEDGERS)?;
            change.open_table(NAMES)?;
            change.open_table(TRANSACTIONS)?;
            change.open_table(ATTACHMENTS)?;
            change.open_table(CHANGES)?;
            change.open_table(LAST_CHANGES)?;
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

    /// The last entry and its place.
    pub(crate) fn last(&self) -> Result<Option<(Position, Entry)>> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        let last = table.last()?;
        last.map(|(place, text)| Ok((position(place.value()), entry(text.value())?)))
            .transpose()
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

    /// What the first entry of each member that attached a document of this name said of it.
    pub(crate) fn attachments(&self, uid: &str) -> Result<Vec<String>> {
        let table = self.0.begin_read()?.open_table(ATTACHMENTS)?;
        let all = (uid, &[0; DID_BYTES], 0)..=(uid, &[u8::MAX; DID_BYTES], u64::MAX);
        let mut found = Vec::new();
        for row in table.range(all)? {
            let (place, text) = row?;
            if place.value().2 == FIRST_SAID {
                found.push(text.value().to_owned());
            }
        }
        Ok(found)
    }

    /// The ledgers to whose entries a member attached a document of this name.
    pub(crate) fn attached_to(&self, uid: &str, by: Did) -> Result<Vec<u64>> {
        let table = self.0.begin_read()?.open_table(ATTACHMENTS)?;
        let rows = table.range((uid, &by.0, FIRST_SAID + 1)..=(uid, &by.0, u64::MAX))?;
        rows.map(|row| Ok(row?.0.value().2)).collect()
    }

    /// The number of a ledger's last change and its time; 0 of a ledger that there is not.
    pub(crate) fn last_change(&self, ledger: u64) -> Result<(u64, u64)> {
        let snapshot = self.0.begin_read()?;
        let number = snapshot.open_table(LAST_CHANGES)?.get(ledger)?;
        let Some(number) = number.map(|number| number.value()) else {
            return Ok((0, 0));
        };
        let change = snapshot.open_table(CHANGES)?.get(number)?;
        Ok((number, change.map_or(0, |change| change.value().1)))
    }

    /// The number of the last change of all.
    pub(crate) fn newest_change(&self) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(CHANGES)?;
        Ok(table.last()?.map_or(0, |(number, _)| number.value()))
    }

    /// How many ledgers changed after this change.
    pub(crate) fn changed_count(&self, after: u64) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(CHANGES)?;
        let mut count = 0;
        for row in table.range(after.saturating_add(1)..)? {
            row?;
            count += 1;
        }
        Ok(count)
    }

    /// Ledgers that changed after this change, the last change first, from place `from` on.
    pub(crate) fn changed(&self, after: u64, from: usize, count: usize) -> Result<Vec<u64>> {
        let table = self.0.begin_read()?.open_table(CHANGES)?;
        let rows = table.range(after.saturating_add(1)..)?.rev();
        rows.skip(from)
            .take(count)
            .map(|row| Ok(row?.1.value().0))
            .collect()
    }

    /// The last change before a moment of the log, in milliseconds since 1970.
    pub(crate) fn change_before(&self, ms: u64) -> Result<u64> {
        let table = self.0.begin_read()?.open_table(CHANGES)?;
        let newest = table.last()?.map_or(0, |(number, _)| number.value());
        // Times grow with numbers, of which some are gone: the first that is not before the moment.
        let (mut low, mut high) = (1, newest.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match table.range(middle..)?.next().transpose()? {
                Some((number, change)) if change.value().1 < ms => low = number.value() + 1,
                _ => high = middle,
            }
        }
        Ok(low - 1)
    }

    /// Local ids of the ledgers whose names begin so, in no order; `None` when there are more than `max`.
    pub(crate) fn ledgers_named(&self, prefix: &str, max: usize) -> Result<Option<Vec<u64>>> {
        let table = self.0.begin_read()?.open_table(NAMES)?;
        let mut found = Vec::new();
        for row in table.range(prefix..)? {
            let (name, id) = row?;
            if !name.value().starts_with(prefix) {
                break;
            }
            if found.len() >= max {
                return Ok(None);
            }
            found.push(id.value());
        }
        Ok(Some(found))
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

    /// Notes a document that an entry of a ledger has attached, and who signed the entry. What a member's
    /// very first entry said of it stands: it gives it no other address and no other digest later. What
    /// others say of a document of the same name is theirs.
    pub(crate) fn add_attachment(&self, uid: &str, by: Did, ledger: u64, text: &str) -> Result<()> {
        let mut attachments = self.0.open_table(ATTACHMENTS)?;
        for place in [FIRST_SAID, ledger] {
            let place = (uid, &by.0, place);
            if attachments.get(place)?.is_none() {
                attachments.insert(place, text)?;
            }
        }
        Ok(())
    }

    /// Notes that a ledger changed, at a time of the log.
    pub(crate) fn note_change(&self, ledger: u64, ms: u64) -> Result<()> {
        let mut changes = self.0.open_table(CHANGES)?;
        let mut last = self.0.open_table(LAST_CHANGES)?;
        let next = changes.last()?.map_or(1, |(number, _)| number.value() + 1);
        let before = last.insert(ledger, next)?.map(|number| number.value());
        if let Some(before) = before {
            changes.remove(before)?;
        }
        changes.insert(next, (ledger, ms))?;
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
        open(path, OWN_FORMAT, documents_by_member, |change| {
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

    /// Adds a plan document, unless one of this sender and `@id` is there, which is given back then.
    pub(crate) fn add_plan(
        &self,
        kind: PlanKind,
        name: &str,
        text: &str,
    ) -> Result<Option<String>> {
        let change = self.0.begin_write()?;
        {
            let mut ids = change.open_table(PLAN_IDS)?;
            let mut plans = change.open_table(PLANS)?;
            let kind = kind.number();
            let known = ids.get(name)?.map(|number| number.value());
            if let Some(number) = known {
                let first = plans.get((kind, number))?;
                return Ok(first.map(|first| first.value().to_owned()));
            }
            let last = plans.range((kind, 0)..=(kind, u64::MAX))?.next_back();
            let last = last.transpose()?.map_or(0, |(place, _)| place.value().1);
            plans.insert((kind, last + 1), text)?;
            ids.insert(name, last + 1)?;
        }
        change.commit()?;
        Ok(None)
    }

    /// The plan document of a sender and an `@id`.
    pub(crate) fn plan_named(&self, kind: PlanKind, name: &str) -> Result<Option<String>> {
        match get(&self.0, PLAN_IDS, name, |number| number)? {
            Some(number) => get(&self.0, PLANS, (kind.number(), number), str::to_owned),
            None => Ok(None),
        }
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

    /// The last kept notice of the relay that was read, and the epoch that its number is of; none of an
    /// earlier version, which did not know of epochs.
    pub(crate) fn notices_read(&self) -> Result<(u64, String)> {
        let read = get(&self.0, FACTS, NOTICES_READ, |bytes| {
            let (number, epoch) = bytes.split_first_chunk()?;
            let epoch = std::str::from_utf8(epoch).ok()?;
            Some((u64::from_be_bytes(*number), epoch.to_owned()))
        })?;
        Ok(read.flatten().unwrap_or_default())
    }

    pub(crate) fn set_notices_read(&self, number: u64, epoch: &str) -> Result<()> {
        let fact = [number.to_be_bytes().as_slice(), epoch.as_bytes()].concat();
        self.put(FACTS, NOTICES_READ, fact.as_slice())
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

    /// What is kept of a document that `member` attached; of one uploaded here, when that is empty.
    pub(crate) fn document(&self, uid: &str, member: &str) -> Result<Option<String>> {
        get(&self.0, DOCUMENTS, (uid, member), str::to_owned)
    }

    /// What is kept of all documents of a name, and who attached each.
    pub(crate) fn documents(&self, uid: &str) -> Result<Vec<(String, String)>> {
        let table = self.0.begin_read()?.open_table(DOCUMENTS)?;
        let mut found = Vec::new();
        for row in table.range((uid, "")..)? {
            let (place, kept) = row?;
            let (of, member) = place.value();
            if of != uid {
                break;
            }
            found.push((member.to_owned(), kept.value().to_owned()));
        }
        Ok(found)
    }

    pub(crate) fn put_document(&self, uid: &str, member: &str, text: &str) -> Result<()> {
        self.put(DOCUMENTS, (uid, member), text)
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
        let add = |kind, name, text| own.add_plan(kind, name, text).unwrap();
        assert_eq!(add(PlanKind::Gu11, "a/1", "first"), None);
        let first = Some("first".to_owned());
        assert_eq!(add(PlanKind::Gu11, "a/1", "again"), first);
        assert_eq!(own.plan_named(PlanKind::Gu11, "a/1").unwrap(), first);
        assert_eq!(add(PlanKind::Gu11, "b/1", "second"), None);
        assert_eq!(add(PlanKind::Gu12, "c/1", "other"), None);
        assert_eq!(
            own.plans(PlanKind::Gu11, 1..=2).unwrap(),
            ["second", "first"]
        );
        assert_eq!(own.plan_count(PlanKind::Gu12).unwrap(), 1);
    }

    #[test]
    fn how_far_the_relay_was_read_is_a_number_of_an_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnFile::open(&dir.path().join("own.redb")).unwrap();
        assert_eq!(own.notices_read().unwrap(), (0, String::new()));
        own.set_notices_read(7, "e1").unwrap();
        assert_eq!(own.notices_read().unwrap(), (7, "e1".to_owned()));
        // What an earlier version wrote is of no epoch.
        own.put(FACTS, NOTICES_READ, 9u64.to_be_bytes().as_slice())
            .unwrap();
        assert_eq!(own.notices_read().unwrap(), (9, String::new()));
    }

    const ALICE: Did = Did([1; DID_BYTES]);
    const BOB: Did = Did([2; DID_BYTES]);

    #[test]
    fn each_member_says_for_itself_what_a_document_of_a_name_is() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = MirrorFile::open(&dir.path().join("mirror.redb")).unwrap();
        let change = mirror.change(true).unwrap();
        // Bob is quicker: it names Alice's document before she does.
        change.add_attachment("0f.pdf", BOB, 3, "bob's").unwrap();
        change
            .add_attachment("0f.pdf", ALICE, 3, "alice's")
            .unwrap();
        change
            .add_attachment("0f.pdf", ALICE, 4, "alice's other")
            .unwrap();
        change.add_attachment("0f.pdfx", BOB, 5, "another").unwrap();
        change.commit().unwrap();
        assert_eq!(mirror.attachments("0f.pdf").unwrap(), ["alice's", "bob's"]);
        assert_eq!(mirror.attached_to("0f.pdf", ALICE).unwrap(), [3, 4]);
        assert_eq!(mirror.attached_to("0f.pdf", BOB).unwrap(), [3]);
        assert_eq!(mirror.attachments("0f.pd").unwrap(), [""; 0]);
    }

    #[test]
    fn changes_of_ledgers_are_counted_and_found_by_number_and_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = MirrorFile::open(&dir.path().join("mirror.redb")).unwrap();
        let change = mirror.change(true).unwrap();
        for (ledger, ms) in [(1, 100), (2, 200), (3, 200), (1, 300), (2, 400), (2, 400)] {
            change.note_change(ledger, ms).unwrap();
        }
        change.commit().unwrap();
        assert_eq!(mirror.last_change(1).unwrap(), (4, 300));
        assert_eq!(mirror.last_change(2).unwrap(), (6, 400));
        assert_eq!(mirror.last_change(9).unwrap(), (0, 0));
        assert_eq!(mirror.newest_change().unwrap(), 6);
        for (after, expected) in [
            (0, &[2, 1, 3][..]),
            (3, &[2, 1]),
            (4, &[2]),
            (6, &[]),
            (u64::MAX, &[]),
        ] {
            assert_eq!(mirror.changed(after, 0, 100).unwrap(), expected, "{after}");
            let count = mirror.changed_count(after).unwrap();
            assert_eq!(count, expected.len() as u64, "{after}");
        }
        assert_eq!(mirror.changed(0, 1, 1).unwrap(), [1]);
        for (ms, ledgers) in [
            (0, &[2, 1, 3][..]),
            (200, &[2, 1, 3]),
            (201, &[2, 1]),
            (300, &[2, 1]),
            (301, &[2]),
            (400, &[2]),
            (401, &[]),
        ] {
            let after = mirror.change_before(ms).unwrap();
            assert_eq!(mirror.changed(after, 0, 100).unwrap(), ledgers, "{ms}");
        }
    }

    #[test]
    fn a_mirror_of_an_earlier_version_is_emptied_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.redb");
        {
            const OLD: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("attachments");
            let old = Database::create(&path).unwrap();
            let change = old.begin_write().unwrap();
            change
                .open_table(FACTS)
                .unwrap()
                .insert(FORMAT, FORMAT_1)
                .unwrap();
            change
                .open_table(FACTS)
                .unwrap()
                .insert("book", &b"old"[..])
                .unwrap();
            change.open_table(LEDGERS).unwrap().insert(1, "{}").unwrap();
            change
                .open_table(OLD)
                .unwrap()
                .insert(("0f", 0), "{}")
                .unwrap();
            change.commit().unwrap();
        }
        for _ in 0..2 {
            let mirror = MirrorFile::open(&path).unwrap();
            assert_eq!(mirror.ledger_count().unwrap(), 0);
            assert_eq!(mirror.fact("book").unwrap(), None);
            assert_eq!(mirror.fact(FORMAT).unwrap().as_deref(), Some(MIRROR_FORMAT));
            assert_eq!(mirror.attachments("0f").unwrap(), [""; 0]);
        }
    }

    #[test]
    fn documents_of_an_earlier_version_stay_who_kept_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.redb");
        let brought = format!("{{\"by\":\"{ALICE}\"}}");
        {
            let old = Database::create(&path).unwrap();
            let change = old.begin_write().unwrap();
            change
                .open_table(FACTS)
                .unwrap()
                .insert(FORMAT, FORMAT_1)
                .unwrap();
            change
                .open_table(OPERATIONS)
                .unwrap()
                .insert("i", "kept")
                .unwrap();
            let mut documents = change.open_table(DOCUMENTS_1).unwrap();
            documents.insert("0a", r#"{"by":"warehouse"}"#).unwrap();
            documents.insert("0b", brought.as_str()).unwrap();
            drop(documents);
            change.commit().unwrap();
        }
        for _ in 0..2 {
            let own = OwnFile::open(&path).unwrap();
            assert!(own.document("0a", "").unwrap().is_some());
            assert_eq!(own.document("0b", "").unwrap(), None);
            let of_alice = (ALICE.to_string(), brought.clone());
            assert_eq!(own.documents("0b").unwrap(), [of_alice]);
            assert_eq!(own.operation("i").unwrap().as_deref(), Some("kept"));
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.redb");
        let own = OwnFile::open(&path).unwrap();
        own.put(FACTS, FORMAT, &b"3"[..]).unwrap();
        drop(own);
        let error = OwnFile::open(&path).unwrap_err();
        assert!(error.0.contains("another version"), "{error}");
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
