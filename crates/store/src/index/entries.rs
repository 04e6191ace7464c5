//! What a block brings into the index.

use daybook_ledger::{Block, Height, Transaction, block::Entry, consortium, tracker};

use super::key::{Family, Secret};
use crate::{
    Rejected,
    place::pack,
    text::{exact_strings, strings, terms},
};

/// Makes the entries of blocks. Keeps its scratch space between calls.
pub(crate) struct EntryMaker {
    secret: Secret,
    keys: Vec<u64>,
}

impl EntryMaker {
    pub(crate) fn new(secret: Secret) -> EntryMaker {
        EntryMaker {
            secret,
            keys: Vec::new(),
        }
    }

    /// Appends the entries of a block to `into`.
    pub(crate) fn block(&mut self, block: &Block, into: &mut Vec<(u64, u64)>) {
        for (index, entry) in (0..).zip(&block.entries) {
            match entry {
                Entry::Asset(transaction) => {
                    self.transaction(transaction, block.header.height, index, into);
                }
                Entry::Tracker(entry) => self.tracker(entry, block.header.height, index, into),
                Entry::Consortium(entry) => {
                    self.consortium(entry, block.header.height, index, into);
                }
            }
        }
    }

    /// Appends the entries of a tracker entry to `into`: each key once.
    pub(crate) fn tracker(
        &mut self,
        entry: &tracker::Entry,
        height: Height,
        index: u32,
        into: &mut Vec<(u64, u64)>,
    ) {
        let EntryMaker { secret, keys } = self;
        keys.clear();
        keys.push(secret.key(Family::TrackerEntry, &entry.id().0));
        entry.index_keys(&mut |key| keys.push(secret.tracker_key(key)));
        keys.sort_unstable();
        keys.dedup();
        let value = pack(height, index);
        into.extend(keys.iter().map(|key| (*key, value)));
    }

    /// Appends the entries of an entry of the consortium's book to `into`: each key once.
    pub(crate) fn consortium(
        &mut self,
        entry: &consortium::Entry,
        height: Height,
        index: u32,
        into: &mut Vec<(u64, u64)>,
    ) {
        let EntryMaker { secret, keys } = self;
        keys.clear();
        keys.push(secret.key(Family::ConsortiumEntry, &entry.id().0));
        keys.push(secret.consortium_book());
        entry.index_keys(&mut |key| keys.push(secret.consortium_key(key)));
        keys.sort_unstable();
        keys.dedup();
        let value = pack(height, index);
        into.extend(keys.iter().map(|key| (*key, value)));
    }

    /// Appends the entries of a transaction to `into`: each key once.
    pub(crate) fn transaction(
        &mut self,
        transaction: &Transaction,
        height: Height,
        index: u32,
        into: &mut Vec<(u64, u64)>,
    ) {
        let EntryMaker { secret, keys } = self;
        keys.clear();
        keys.push(secret.key(Family::Transaction, &transaction.id().0));
        for owner in transaction
            .outputs()
            .iter()
            .flat_map(|output| &output.public_keys)
        {
            keys.push(secret.key(Family::Owner, &owner.0));
        }
        for asset in transaction.consumed_assets() {
            keys.push(secret.key(Family::Asset, &asset.0));
        }
        let mut index_text = |text: &str, exact: Family, term_family: Family| {
            for string in exact_strings(text) {
                keys.push(secret.key(exact, string.as_bytes()));
            }
            for string in strings(text) {
                terms(&string, |term| {
                    keys.push(secret.key(term_family, term.as_bytes()))
                });
            }
        };
        for data in transaction.asset_data() {
            index_text(data, Family::AssetString, Family::AssetTerm);
        }
        if let Some(metadata) = transaction.metadata() {
            index_text(metadata, Family::MetadataString, Family::MetadataTerm);
        }
        if keys.len() > 2 {
            keys.sort_unstable();
            keys.dedup();
        }
        let value = pack(height, index);
        into.extend(keys.iter().map(|key| (*key, value)));
    }

    /// Appends the entries of rejections to `into`.
    pub(crate) fn rejected(
        &self,
        rejected: &[Rejected],
        height: Height,
        into: &mut Vec<(u64, u64)>,
    ) {
        for (index, lost) in (0..).zip(rejected) {
            into.push((
                self.secret.key(Family::Rejected, &lost.id.0),
                pack(height, index),
            ));
        }
    }
}
