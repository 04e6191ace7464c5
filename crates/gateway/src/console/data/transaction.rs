//! One transaction: what it moved, where that came from, and who spent it.

use std::{collections::BTreeMap, io::Write as _};

use daybook_ledger::{
    OutputRef, Position, PublicKey, Transaction, TransactionId, View, block::Entry,
};
use daybook_pipeline::Status;
use daybook_store::StoreError;
use daybook_wire::assets::{Query, append_id, append_text};

use super::{
    Asker, Found, PARTS_MAX,
    list::{List, append_event},
    parameter::position,
    tracker::{append_tracker_parts, tracker_of},
};

impl Asker<'_> {
    pub(super) fn transaction(&self, id: &str) -> Found {
        let Ok(id) = id.parse::<TransactionId>() else {
            return Ok(None);
        };
        let found = match self.store.position(&id)? {
            Some(position) => Some(position),
            None => self.store.tracker_entry(&id)?.map(|(position, _)| position),
        };
        if let Some(position) = found
            && let Some(entry) = self.store.entry_at(position)?
            && let Some(heading) = self.store.heading(position.height)?
        {
            let mut out = b"{\"status\":\"committed\",\"event\":".to_vec();
            append_event(&mut out, position, heading.header.time, &entry, self.sight);
            let _ = write!(
                out,
                ",\"block\":{{\"height\":{},\"hash\":\"{}\",\"time\":{},\"count\":{}}}",
                position.height.0, heading.hash, heading.header.time.0, heading.header.count,
            );
            match &entry {
                Entry::Asset(transaction) => self.append_parts(&mut out, transaction)?,
                other => {
                    if let Some(records) = tracker_of(other)
                        && !self.sight.veils(other)
                    {
                        append_tracker_parts(&mut out, records);
                    }
                }
            }
            out.push(b'}');
            return Ok(Some(out));
        }
        let mut out = b"{\"status\":".to_vec();
        match self.node.status(&id)? {
            Status::Unknown => return Ok(None),
            Status::Rejected(height, rejection) => {
                let _ = write!(
                    out,
                    "\"rejected\",\"height\":{},\"class\":\"{}\",\"message\":",
                    height.0,
                    rejection.class.name()
                );
                append_text(&mut out, &rejection.to_string());
            }
            // Committed since it was looked for: the page asks again.
            Status::Pending | Status::Committed(_) => out.extend_from_slice(b"\"pending\""),
        }
        out.push(b'}');
        Ok(Some(out))
    }

    /// Where the units came from, and which of them went on.
    fn append_parts(&self, out: &mut Vec<u8>, transaction: &Transaction) -> Result<(), StoreError> {
        let _ = write!(
            out,
            ",\"version\":\"{}\",\"bytes\":{},\"inputs_count\":{},\"outputs_count\":{},\"inputs\":[",
            transaction.version().name(),
            transaction.canonical().len(),
            transaction.inputs().len(),
            transaction.outputs().len(),
        );
        // Inputs of one transaction mostly stand together: it is read once.
        let mut source: Option<Transaction> = None;
        for (place, input) in transaction.inputs().iter().take(PARTS_MAX).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"owners\":");
            append_keys(out, &input.owners_before);
            if let Some(spent) = &input.spends {
                out.extend_from_slice(b",\"transaction\":");
                append_id(out, &spent.transaction);
                let _ = write!(out, ",\"index\":{}", spent.index);
                if source.as_ref().map(Transaction::id) != Some(spent.transaction)
                    && !self.is_late()
                {
                    source = self.transaction_of(&spent.transaction)?;
                }
                let made = source
                    .as_ref()
                    .filter(|source| source.id() == spent.transaction);
                if let Some(made) = made
                    && let Some(output) = made.outputs().get(spent.index as usize)
                {
                    let (amount, asset) = (output.amount.units(), made.asset());
                    let _ = write!(out, ",\"amount\":\"{amount}\",\"asset\":\"{asset}\"");
                }
            }
            out.push(b'}');
        }
        let spent: Vec<bool> = {
            let view = self.store.view();
            (0..)
                .zip(transaction.outputs().iter().take(PARTS_MAX))
                .map(|(index, _)| view.unspent(&transaction.output_ref(index)).is_none())
                .collect()
        };
        out.extend_from_slice(b"],\"outputs\":[");
        for (place, (output, spent)) in transaction.outputs().iter().zip(spent).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"owners\":");
            append_keys(out, &output.public_keys);
            let amount = output.amount.units();
            let _ = write!(out, ",\"amount\":\"{amount}\",\"spent\":{spent}}}");
        }
        out.push(b']');
        Ok(())
    }

    fn transaction_of(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        let Some(position) = self.store.position(id)? else {
            return Ok(None);
        };
        Ok(match self.store.entry_at(position)? {
            Some(Entry::Asset(transaction)) => Some(Transaction::clone(&transaction)),
            _ => None,
        })
    }

    /// Who spent a transaction's outputs. No index leads there: the asset's later transactions are looked
    /// through, for as long as one answer may take, and `next` says where to go on.
    pub(super) fn spenders(&self, id: &str, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["after"])?;
        let Ok(id) = id.parse::<TransactionId>() else {
            return Ok(None);
        };
        let after = position(query, "after")?;
        let (Some(made), Some(at)) = (self.transaction_of(&id)?, self.store.position(&id)?) else {
            return Ok(None);
        };
        let mut wanted: BTreeMap<OutputRef, u32> = {
            let view = self.store.view();
            (0..)
                .zip(made.outputs().iter().take(PARTS_MAX))
                .map(|(index, _)| (made.output_ref(index), index))
                .filter(|(output, _)| view.unspent(output).is_none())
                .collect()
        };
        let mut list = List::new("spenders", usize::MAX);
        let (mut last, mut broken_off) = (after.unwrap_or(at), false);
        if !wanted.is_empty() {
            let each = &mut |position: Position, transaction: &Transaction| {
                for spent in transaction.inputs().iter().filter_map(|input| input.spends) {
                    if let Some(index) = wanted.remove(&spent) {
                        let out = list.element();
                        let _ = write!(
                            out,
                            "{{\"index\":{index},\"position\":\"{position}\",\"id\":"
                        );
                        append_id(out, &transaction.id());
                        out.push(b'}');
                    }
                }
                last = position;
                broken_off = self.is_late();
                !wanted.is_empty() && !broken_off
            };
            self.store
                .moves_of_asset_after(&made.asset(), after.unwrap_or(at).max(at), each)?;
        }
        let going_on = !wanted.is_empty() && (broken_off || self.is_late());
        list.end(going_on.then(|| last.to_string()))
    }
}

fn append_keys(out: &mut Vec<u8>, keys: &[PublicKey]) {
    out.push(b'[');
    for (place, key) in keys.iter().take(PARTS_MAX).enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{key}\"");
    }
    out.push(b']');
}
