//! A key: the outputs that name it, and what it holds.

use std::{collections::BTreeMap, io::Write as _};

use daybook_ledger::{AssetId, BlockTime, Position, PublicKey, Transaction, View, block::Entry};
use daybook_store::Name;
use daybook_wire::assets::{Query, append_id};

use super::{
    Asker, Found, PARTS_MAX,
    list::{List, Times},
    parameter::{limit, position, public_key},
};

/// Transactions of a key that are looked at to tell what it holds.
const HELD_MAX: usize = 20_000;

/// Assets that a key's page lists as held.
const HOLDINGS_MAX: usize = 100;

impl Asker<'_> {
    /// Outputs that name a key, newest first.
    pub(super) fn outputs(&self, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["key", "before", "limit"])?;
        let key = public_key("key", query.required("key")?)?;
        let before = position(query, "before")?;
        let mut list = List::new("outputs", limit(query)?);
        let mut times = Times::default();
        let (mut last, mut full, mut taken) = (before, false, 0);
        let mut failed = None;
        // Written as they come: a page of large transactions would be a hundred megabytes to hold.
        let each = &mut |position: Position, entry| {
            let Entry::Asset(transaction) = entry else {
                return true;
            };
            full = taken >= list.limit || list.is_heavy();
            if full {
                return false;
            }
            match times.of(&self.store, position.height) {
                Ok(time) => self.append_outputs(&mut list, &key, position, time, &transaction),
                Err(error) => failed = Some(error),
            }
            taken += 1;
            last = Some(position);
            failed.is_none()
        };
        self.store.entries_before(Name::Owner(&key), before, each)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let going_on = full || self.is_late();
        let next = last.filter(|_| going_on);
        list.end(next.map(|position| position.to_string()))
    }

    /// The outputs of one transaction that name a key.
    fn append_outputs(
        &self,
        list: &mut List,
        key: &PublicKey,
        position: Position,
        time: BlockTime,
        transaction: &Transaction,
    ) {
        let theirs = (0..)
            .zip(transaction.outputs())
            .filter(|(_, output)| output.public_keys.contains(key))
            .take(PARTS_MAX);
        let view = self.store.view();
        for (index, output) in theirs {
            let out = list.element();
            out.extend_from_slice(b"{\"transaction\":");
            append_id(out, &transaction.id());
            let _ = write!(
                out,
                ",\"index\":{index},\"position\":\"{position}\",\"time\":{},\"asset\":\"{}\",\
                 \"amount\":\"{}\",\"keys\":{},\"spent\":{}}}",
                time.0,
                transaction.asset(),
                output.amount.units(),
                output.public_keys.len(),
                view.unspent(&transaction.output_ref(index)).is_none(),
            );
        }
    }

    /// What a key holds, as far as that can be told in the time of one answer.
    pub(super) fn key(&self, text: &str) -> Found {
        let Ok(key) = text.parse::<PublicKey>() else {
            return Ok(None);
        };
        let mut held: BTreeMap<AssetId, (u128, u64)> = BTreeMap::new();
        let (mut looked, mut complete) = (0, true);
        let each = &mut |_, entry| {
            if let Entry::Asset(transaction) = entry {
                let transaction: &Transaction = &transaction;
                let view = self.store.view();
                for (index, output) in (0..).zip(transaction.outputs()) {
                    if output.public_keys.contains(&key)
                        && view.unspent(&transaction.output_ref(index)).is_some()
                    {
                        let (sum, count) = held.entry(transaction.asset()).or_default();
                        *sum = sum.saturating_add(output.amount.units().into());
                        *count += 1;
                    }
                }
            }
            looked += 1;
            complete = looked < HELD_MAX && held.len() <= HOLDINGS_MAX && !self.is_late();
            complete
        };
        self.store.entries_before(Name::Owner(&key), None, each)?;
        let complete = complete && !self.is_late();
        let mut out = Vec::new();
        let _ = write!(
            out,
            "{{\"key\":\"{key}\",\"transactions\":{looked},\"complete\":{complete},"
        );
        let mut list = List::continuing(out, "holdings", HOLDINGS_MAX);
        for (asset, (sum, count)) in held.into_iter().take(HOLDINGS_MAX) {
            let _ = write!(
                list.element(),
                "{{\"asset\":\"{asset}\",\"amount\":\"{sum}\",\"outputs\":{count}}}"
            );
        }
        list.end(None)
    }
}
