//! Reading for people: entries of any book by place and by name, newest first, page by page.

use daybook_ledger::{
    AssetId, Operation, Position, PublicKey, Transaction,
    block::{BlockHash, Entry, Header, Height},
    consortium,
    tracker::IndexKey,
};

use crate::{
    Store, StoreError,
    index::key::Family,
    place::{COUNT_MAX, HEIGHT_MAX, pack, unpack},
    store::Shared,
};

/// What entries are looked for by.
#[derive(Clone, Copy, Debug)]
pub enum Name<'n> {
    /// A key that an output's condition names.
    Owner(&'n PublicKey),
    /// An asset that a transaction makes, moves or consumes.
    Asset(&'n AssetId),
    /// What a tracker entry is known by.
    Tracker(IndexKey<'n>),
    /// What an entry of the consortium's book is known by.
    Consortium(consortium::IndexKey<'n>),
}

/// A block without its entries.
#[derive(Clone, Debug)]
pub struct Heading {
    /// What it says about itself.
    pub header: Header,
    /// [`Header::hash`].
    pub hash: BlockHash,
    /// Bytes that it takes in the log.
    pub bytes: u64,
}

impl Store {
    /// A block's heading; `None` for height 0 and beyond the newest block. Reads the whole block, but
    /// takes no transaction of it apart.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn heading(&self, height: Height) -> Result<Option<Heading>, StoreError> {
        if height.0 == 0 || height > self.tip().height {
            return Ok(None);
        }
        let place = self.shared.blocks.place(height)?;
        let (segment, record) = self.shared.log.record(place)?;
        let header = record
            .header()
            .map_err(|flaw| segment.damaged(place.offset, flaw))?;
        Ok(Some(Heading {
            hash: header.hash(),
            header,
            bytes: place.length.into(),
        }))
    }

    /// The entry at a position, whatever its book; `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn entry_at(&self, position: Position) -> Result<Option<Entry>, StoreError> {
        self.shared.entry_at(position)
    }

    /// The entries that have `name`, newest first, each once, from the newest one before `before` on, or
    /// from the newest of all. What a page costs does not depend on how many there are. `each` returns
    /// false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn entries_before(
        &self,
        name: Name<'_>,
        before: Option<Position>,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let (tip, key) = (self.tip().height, shared.name_key(name));
        let (mut going_on, mut last) = (true, None);
        shared
            .index
            .newest_below(key, before.map_or(u64::MAX, packed), |value| {
                if !self.is_wanted() {
                    going_on = false;
                    return Ok(false);
                }
                let position = unpack(value);
                if position.height > tip || last.replace(value) == Some(value) {
                    return Ok(true);
                }
                // What is there under the same hash by accident has not the name.
                if let Some(entry) = shared.entry_at(position)?
                    && has(&entry, name)
                {
                    going_on = each(position, entry);
                }
                Ok(going_on)
            })?;
        // The transaction that made an asset is found by its id, not under the asset.
        if going_on
            && let Name::Asset(asset) = name
            && let Some((position, _)) = self.transaction(&asset.as_transaction())?
            && before.is_none_or(|before| position < before)
            && last.map(unpack) != Some(position)
            && let Some(entry) = self.entry_at(position)?
            && has(&entry, name)
        {
            each(position, entry);
        }
        Ok(())
    }

    /// The entries that move or consume an asset, oldest first, from the first one behind `after` on.
    /// `each` returns false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn moves_of_asset_after(
        &self,
        asset: &AssetId,
        after: Position,
        each: &mut dyn FnMut(Position, &Transaction) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let name = Name::Asset(asset);
        let (tip, key) = (self.tip().height, shared.name_key(name));
        shared.index.oldest_above(key, packed(after), |value| {
            let position = unpack(value);
            if position.height > tip || !self.is_wanted() {
                return Ok(false);
            }
            match shared.entry_at(position)? {
                Some(Entry::Asset(transaction)) if is_of_asset(&transaction, asset) => {
                    Ok(each(position, &transaction))
                }
                _ => Ok(true),
            }
        })
    }
}

impl Shared {
    fn name_key(&self, name: Name<'_>) -> u64 {
        match name {
            Name::Owner(key) => self.index.secret.key(Family::Owner, &key.0),
            Name::Asset(asset) => self.index.secret.key(Family::Asset, &asset.0),
            Name::Tracker(key) => self.index.secret.tracker_key(key),
            Name::Consortium(key) => self.index.secret.consortium_key(key),
        }
    }

    fn entry_at(&self, position: Position) -> Result<Option<Entry>, StoreError> {
        let Some(text) = self.entry_text_at(position)? else {
            return Ok(None);
        };
        let read = self.with_parser(|parser| text.read(parser));
        match read {
            Ok(entry) => Ok(Some(entry.into_entry())),
            Err(error) => Err(self.text_damaged(position, &error)),
        }
    }
}

/// A position that may come from outside: beyond what packs, it stands for the end.
pub(crate) fn packed(position: Position) -> u64 {
    const INDEX_MAX: u32 = COUNT_MAX as u32 - 1;
    if position.height.0 > HEIGHT_MAX {
        u64::MAX
    } else {
        pack(position.height, position.index.min(INDEX_MAX))
    }
}

/// Whether an entry has the name: the index knows hashes only.
fn has(entry: &Entry, name: Name<'_>) -> bool {
    match (name, entry) {
        (Name::Owner(key), Entry::Asset(transaction)) => transaction
            .outputs()
            .iter()
            .any(|output| output.public_keys.contains(key)),
        (Name::Asset(asset), Entry::Asset(transaction)) => is_of_asset(transaction, asset),
        (Name::Tracker(key), Entry::Tracker(entry)) => {
            let mut found = false;
            entry.index_keys(&mut |other| found |= other == key);
            found
        }
        (Name::Consortium(key), Entry::Consortium(entry)) => {
            let mut found = false;
            entry.index_keys(&mut |other| found |= other == key);
            found
        }
        _ => false,
    }
}

/// Whether a transaction makes, moves or consumes an asset.
fn is_of_asset(transaction: &Transaction, asset: &AssetId) -> bool {
    let makes = transaction.id() == asset.as_transaction()
        && transaction.asset() == *asset
        && transaction.operation() != Operation::Decompose;
    makes || transaction.consumed_assets().contains(asset)
}
