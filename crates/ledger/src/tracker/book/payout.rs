//! The outputs that back all balances, and paying with them.

use std::collections::{BTreeMap, BTreeSet};

use super::Entry;
use crate::{
    AMOUNT_MAX, AssetId, Lock, Output, OutputRef, PublicKey, Transaction, TransactionId,
    block::BlockTime,
    condition::Condition,
    json::{Object, Value},
    tracker::{
        Fact, Paid, Record,
        entry::{Body, Mark},
        request::Request,
    },
};

/// Outputs that one payout spends: enough to gather small ones, few enough for a small TRANSFER.
pub(super) const PAYOUT_INPUTS_MAX: usize = 64;

/// The tracker's unspent outputs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// By the order in which they came.
    by_age: BTreeMap<u64, (OutputRef, u64)>,
    ages: BTreeMap<OutputRef, u64>,
    by_amount: BTreeSet<(u64, u64)>,
    next: u64,
    total: u128,
}

/// A payout that was decided: make the TRANSFER, sign it with the holder's key, put it into the block,
/// and [`PayoutPlan::entry`] right behind it.
#[derive(Clone, Debug)]
pub struct PayoutPlan {
    pub(super) token: AssetId,
    /// Who holds the tracker's tokens, and gets what is left over.
    pub(super) holder: PublicKey,
    pub(super) inputs: Vec<(OutputRef, u64)>,
    pub(super) change: u64,
    pub(super) time: BlockTime,
    pub(super) request: Request,
    pub(super) mark: Option<Mark>,
    /// The record; its TRANSFER is not known yet.
    pub(super) record: Record,
    pub(super) paid: Paid,
}

impl Holdings {
    pub(super) fn total(&self) -> u128 {
        self.total
    }

    pub(super) fn contains(&self, output: &OutputRef) -> bool {
        self.ages.contains_key(output)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (OutputRef, u64)> {
        self.by_age.values().copied()
    }

    /// Adds an output; false if it is there already.
    pub(super) fn add(&mut self, output: OutputRef, amount: u64) -> bool {
        if self.ages.contains_key(&output) {
            return false;
        }
        let age = self.next;
        self.next = self.next.saturating_add(1);
        self.by_age.insert(age, (output, amount));
        self.ages.insert(output, age);
        self.by_amount.insert((amount, age));
        self.total = self.total.saturating_add(amount.into());
        true
    }

    /// Takes an output away, and says what it held.
    pub(super) fn spend(&mut self, output: &OutputRef) -> Option<u64> {
        let age = self.ages.remove(output)?;
        let (_, amount) = self.by_age.remove(&age)?;
        self.by_amount.remove(&(amount, age));
        self.total = self.total.saturating_sub(amount.into());
        Some(amount)
    }

    /// Outputs that hold at least `amount`: the oldest, which gathers what is small; or if that takes
    /// too many, the largest, with the oldest beside them. None if the largest do not suffice.
    pub(super) fn select(&self, amount: u64) -> Option<Vec<(OutputRef, u64)>> {
        let mut sum = 0u128;
        let mut chosen = Vec::new();
        for (output, held) in self.by_age.values().take(PAYOUT_INPUTS_MAX) {
            chosen.push((*output, *held));
            sum = sum.saturating_add(u128::from(*held));
            if sum >= u128::from(amount) {
                return Some(chosen);
            }
        }
        let mut ages = BTreeSet::new();
        sum = 0;
        for (held, age) in self.by_amount.iter().rev().take(PAYOUT_INPUTS_MAX) {
            ages.insert(*age);
            sum = sum.saturating_add(u128::from(*held));
            if sum >= u128::from(amount) {
                break;
            }
        }
        let mut change = sum.checked_sub(u128::from(amount))?;
        for (age, (_, held)) in &self.by_age {
            let more = change.saturating_add(u128::from(*held));
            // What comes back must fit one output.
            if ages.len() >= PAYOUT_INPUTS_MAX || more > u128::from(AMOUNT_MAX) {
                break;
            }
            if ages.insert(*age) {
                change = more;
            }
        }
        let chosen = ages.iter().filter_map(|age| self.by_age.get(age).copied());
        Some(chosen.collect())
    }
}

impl PayoutPlan {
    /// The asset to move.
    pub fn token(&self) -> AssetId {
        self.token
    }

    /// The outputs to spend, all of them locked by the holder's key.
    pub fn inputs(&self) -> impl Iterator<Item = OutputRef> {
        self.inputs.iter().map(|(output, _)| *output)
    }

    /// Units for the first output, which goes to [`PayoutPlan::pay_to`].
    pub fn amount(&self) -> u64 {
        self.paid.amount
    }

    /// Units for the second output, which goes back to the holder; 0: there is none.
    pub fn change(&self) -> u64 {
        self.change
    }

    /// Who is paid.
    pub fn pay_to(&self) -> PublicKey {
        self.paid.pay_to
    }

    /// The TRANSFER's metadata: says which record of the tracker it belongs to. Not which address was paid
    /// out of: the asset ledger is read by everybody, the tracker's log is not.
    pub fn metadata(&self) -> Value {
        Value::Object(Object::from_iter([
            ("book", Value::from("tracker")),
            ("kind", Value::from("payout")),
            ("seq", Value::from(self.record.seq)),
            ("tx_id", Value::from(&*self.record.id)),
        ]))
    }

    /// Checks that a TRANSFER is the one that was planned: what it spends, whom it pays, and how much.
    ///
    /// # Errors
    /// What is different, in words.
    pub fn check(&self, transfer: &Transaction) -> Result<(), String> {
        let spent = transfer.inputs().iter().filter_map(|input| input.spends);
        let mut planned = vec![(self.paid.pay_to, self.paid.amount)];
        if self.change > 0 {
            planned.push((self.holder, self.change));
        }
        let paid = transfer.outputs();
        let amounts = paid.iter().map(|output| output.amount.units());
        let lock = |key: &PublicKey| Lock::new(&self.token, &Condition::of_key(key).fingerprint);
        let mut pairs = paid.iter().zip(&planned);
        let astray = |(output, (key, _)): &(&Output, &(PublicKey, u64))| {
            output.lock != lock(key) || output.public_keys[..] != [*key]
        };
        if transfer.asset() != self.token {
            Err("the payout moves another asset than the tracker's token".into())
        } else if !spent.eq(self.inputs()) {
            Err("the payout spends other outputs than those chosen for it".into())
        } else if !amounts.eq(planned.iter().map(|(_, units)| *units)) {
            Err("the payout moves other amounts than those asked for".into())
        } else if let Some((_, (key, units))) = pairs.find(astray) {
            let what = format!("the payout's {units} units for {key} go to somebody else");
            Err(what)
        } else {
            Ok(())
        }
    }

    /// The entry that follows the TRANSFER in the block.
    ///
    /// # Panics
    /// When the TRANSFER is not the one that was planned ([`PayoutPlan::check`]).
    pub fn entry(self, transfer: &Transaction) -> Entry {
        if let Err(why) = self.check(transfer) {
            panic!("the TRANSFER of a payout is the one that was planned: {why}");
        }
        self.entry_for(transfer.id())
    }

    /// The entry for a TRANSFER that is known to be the one that was planned.
    pub(super) fn entry_for(self, transfer: TransactionId) -> Entry {
        let mut record = self.record;
        record.fact = Fact::Payout(Paid {
            transfer,
            ..self.paid
        });
        let body = Body::Payout {
            request: self.request,
            mark: self.mark,
            spent: self.inputs.iter().map(|(output, _)| *output).collect(),
            change: (self.change > 0).then_some((1, self.change)),
        };
        Entry::new(self.time, body, vec![record])
    }
}
