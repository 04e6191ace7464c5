//! A chain of blocks made up from a seed, a naive ledger that follows it, and a store to put it into.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "each test file uses its part"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use daybook_ledger::{
    AssetId, BlockTime, Changes, Draft, Height, Operation, OutputRef, Overlay, Parser, Position,
    PublicKey, Rejection, RejectionClass, Rules, SigningKey, Transaction, TransactionId, Unspent,
    Verified, View,
    block::{Block, Genesis, Parent, Validator},
    json::{Object, Value},
};
use daybook_store::{
    Options, Recovery, Rejected, Store, StoreError, StoredBlock, Writer,
    disk::{Disk, simulated::SimulatedDisk},
};

pub(crate) const DIR: &str = "/data";

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

pub(crate) fn proposer() -> SigningKey {
    key(200)
}

pub(crate) fn genesis() -> Genesis {
    Genesis {
        chain: "test-chain".into(),
        time: BlockTime(1_700_000_000_000),
        validators: vec![Validator {
            key: proposer().public_key(),
            power: 10,
        }],
    }
}

pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 32 << 10,
        checkpoint_bytes: 24 << 10,
        run_entries: 60,
    }
}

pub(crate) fn json(text: &str) -> Value {
    Value::parse(text.as_bytes(), 100).unwrap()
}

/// The ledger in ordered maps: the judge.
#[derive(Clone, Default)]
pub(crate) struct Naive {
    pub(crate) unspent: BTreeMap<OutputRef, Unspent>,
    pub(crate) transactions: BTreeMap<TransactionId, (Position, Arc<Verified<Transaction>>)>,
    pub(crate) rejected: BTreeMap<TransactionId, (Height, Rejection)>,
}

impl View for Naive {
    fn unspent(&self, output: &OutputRef) -> Option<Unspent> {
        self.unspent.get(output).copied()
    }
    fn is_committed(&self, transaction: &TransactionId) -> bool {
        self.transactions.contains_key(transaction)
    }
    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
        Some(self.transactions.get(id)?.1.clone())
    }
}

impl Naive {
    pub(crate) fn follow(&mut self, stored: &StoredBlock, changes: &Changes) {
        let height = stored.block.header.height;
        for (index, transaction) in stored.block.assets() {
            self.transactions.insert(
                transaction.id(),
                (Position { height, index }, transaction.clone()),
            );
        }
        for (output, unspent) in &changes.outputs {
            match unspent {
                Some(unspent) => self.unspent.insert(*output, *unspent),
                None => self.unspent.remove(output),
            };
        }
        for lost in &stored.rejected {
            self.rejected
                .insert(lost.id, (height, lost.rejection.clone()));
        }
    }

    fn in_order(&self) -> Vec<(Position, &Verified<Transaction>)> {
        let mut all: Vec<_> = self
            .transactions
            .values()
            .map(|(at, transaction)| (*at, &**transaction))
            .collect();
        all.sort_by_key(|(position, _)| *position);
        all
    }

    pub(crate) fn outputs_of_key(&self, key: &PublicKey, spent: Option<bool>) -> Vec<OutputRef> {
        let mut found = Vec::new();
        for (_, transaction) in self.in_order() {
            for (index, output) in (0..).zip(transaction.outputs()) {
                let reference = OutputRef {
                    transaction: transaction.id(),
                    index,
                };
                let is_spent = !self.unspent.contains_key(&reference);
                if output.public_keys.contains(key) && spent.is_none_or(|spent| spent == is_spent) {
                    found.push(reference);
                }
            }
        }
        found
    }

    pub(crate) fn transactions_of_asset(
        &self,
        asset: &AssetId,
        operation: Option<Operation>,
    ) -> Vec<TransactionId> {
        let belongs = |transaction: &&Verified<Transaction>| {
            (transaction.id().as_asset() == *asset || transaction.consumed_assets().contains(asset))
                && operation.is_none_or(|operation| operation == transaction.operation())
        };
        self.in_order()
            .into_iter()
            .map(|(_, transaction)| transaction)
            .filter(belongs)
            .map(|t| t.id())
            .collect()
    }
}

/// Makes blocks.
pub(crate) struct Maker {
    pub(crate) parent: Parent,
    pub(crate) naive: Naive,
    parser: Parser,
    pub(crate) dice: Dice,
    serial: u64,
    /// What can be spent: the output, its asset, its units, its owner.
    purse: Vec<(OutputRef, AssetId, u64, u8)>,
}

/// A block with what it changes.
pub(crate) type Made = (Arc<StoredBlock>, Changes);

impl Maker {
    pub(crate) fn new(seed: u64) -> Maker {
        Maker {
            parent: Parent::of_genesis(&genesis()),
            naive: Naive::default(),
            parser: Parser::new(Rules::default()),
            dice: Dice(seed),
            serial: 0,
            purse: Vec::new(),
        }
    }

    /// A block of these transactions, which must all apply.
    pub(crate) fn block(
        &mut self,
        transactions: Vec<Transaction>,
        rejected: Vec<Rejected>,
    ) -> Made {
        let transactions: Vec<_> = transactions
            .into_iter()
            .map(|transaction| Arc::new(Verified::from_stored(transaction)))
            .collect();
        let mut overlay = Overlay::new(&self.naive);
        for transaction in &transactions {
            overlay.apply(transaction.clone()).unwrap();
        }
        let changes = overlay.into_changes();
        let time = BlockTime(self.parent.time.0 + 1_000);
        let entries = transactions.into_iter().map(Into::into).collect();
        let block = Block::seal(&self.parent, time, entries, &proposer());
        self.parent = block.as_parent();
        let stored = Arc::new(StoredBlock { block, rejected });
        self.naive.follow(&stored, &changes);
        (stored, changes)
    }

    /// A block of `count` random CREATEs and TRANSFERs, some of them children of others in it.
    pub(crate) fn random_block(&mut self, count: usize) -> Made {
        let transactions = (0..count).map(|_| self.random_transaction()).collect();
        let rejected = (0..self.dice.below(3))
            .map(|_| {
                self.serial += 1;
                let mut id = [0xEE; 32];
                id[..8].copy_from_slice(&self.serial.to_le_bytes());
                let rejection =
                    Rejection::new(RejectionClass::DoubleSpend, format!("lost {}", self.serial));
                Rejected {
                    id: TransactionId(id),
                    rejection,
                }
            })
            .collect();
        self.block(transactions, rejected)
    }

    fn random_transaction(&mut self) -> Transaction {
        self.serial += 1;
        let owner = self.dice.below(6) as u8 + 1;
        let transaction = if self.purse.is_empty() || self.dice.below(3) == 0 {
            let data = Object::from_iter([("serial", format!("lamp number{}", self.serial))]);
            let issuer = key(self.dice.below(6) as u8 + 1);
            Draft::create(data)
                .output(self.dice.below(100) as u64 + 1, &key(owner))
                .output(7, &key(9))
                .sign_with(&mut self.parser, &[&issuer])
                .unwrap()
        } else {
            let spent = self.dice.below(self.purse.len());
            let (output, asset, units, holder) = self.purse.swap_remove(spent);
            let mut draft = Draft::transfer(asset).spend(output, &key(holder));
            if self.dice.below(2) == 0 {
                draft = draft.metadata(Object::from_iter([(
                    "note",
                    format!("sale number{}", self.serial),
                )]));
            }
            let first = if units > 1 { units / 2 } else { units };
            draft = draft.output(first, &key(owner));
            if units > first {
                draft = draft.output(units - first, &key(holder));
            }
            draft.sign_with(&mut self.parser, &[&key(holder)]).unwrap()
        };
        for (index, output) in (0..).zip(transaction.outputs()) {
            let holder = (1..=9)
                .find(|number| output.public_keys.contains(&key(*number).public_key()))
                .unwrap();
            let reference = OutputRef {
                transaction: transaction.id(),
                index,
            };
            self.purse.push((
                reference,
                transaction.asset(),
                output.amount.units(),
                holder,
            ));
        }
        transaction
    }
}

/// A chain and the naive ledger after each of its heights, 0 included.
pub(crate) fn chain(seed: u64, blocks: usize, count: usize) -> (Vec<Made>, Vec<Naive>) {
    let mut maker = Maker::new(seed);
    let mut made = Vec::new();
    let mut after = vec![Naive::default()];
    for _ in 0..blocks {
        let count = 1 + maker.dice.below(count);
        made.push(maker.random_block(count));
        after.push(maker.naive.clone());
    }
    (made, after)
}

pub(crate) fn open(
    disk: &SimulatedDisk,
    options: Options,
) -> Result<(Store, Writer, Recovery), StoreError> {
    daybook_store::open(
        Path::new(DIR),
        Arc::new(disk.clone()) as Arc<dyn Disk>,
        &genesis(),
        options,
    )
}

pub(crate) fn put(writer: &mut Writer, (block, changes): &Made) -> Result<(), StoreError> {
    writer.append(block)?;
    writer.publish(block, changes)
}

/// Compares everything that a store answers with the naive ledger.
pub(crate) fn assert_same(store: &Store, naive: &Naive, height: u64) {
    assert_eq!(store.tip().height, Height(height));
    assert_eq!(store.tip().transactions, naive.transactions.len() as u64);
    assert_eq!(store.unspent_outputs().0, naive.unspent.len());
    {
        let view = store.view();
        for (output, unspent) in &naive.unspent {
            assert_eq!(view.unspent(output), Some(*unspent));
        }
    }
    let mut assets = BTreeSet::new();
    for (id, (position, transaction)) in &naive.transactions {
        let (found, text) = store.transaction(id).unwrap().unwrap();
        assert_eq!((found, &text), (*position, transaction.canonical()));
        assert_eq!(store.transaction_at(*position).unwrap().unwrap().0, *id);
        assets.insert(transaction.asset());
    }
    for asset in assets {
        for operation in [None, Some(Operation::Create), Some(Operation::Transfer)] {
            let wanted = naive.transactions_of_asset(&asset, operation);
            let mut found = Vec::new();
            let each = &mut |_, id, _| {
                found.push(id);
                true
            };
            store
                .transactions_of_asset(&asset, operation, false, each)
                .unwrap();
            assert_eq!(found, wanted);
            let mut last = Vec::new();
            let each = &mut |_, id, _| {
                last.push(id);
                true
            };
            store
                .transactions_of_asset(&asset, operation, true, each)
                .unwrap();
            assert_eq!(last.first(), wanted.last());
        }
    }
    for number in 1..=9 {
        let owner = key(number).public_key();
        for spent in [None, Some(true), Some(false)] {
            let mut found = Vec::new();
            let each = &mut |output| {
                found.push(output);
                true
            };
            store.outputs_of_key(&owner, spent, each).unwrap();
            assert_eq!(found, naive.outputs_of_key(&owner, spent));
        }
    }
    for (id, rejection) in &naive.rejected {
        assert_eq!(store.rejection(id).unwrap().as_ref(), Some(rejection));
    }
    for height in 1..=height {
        let block = store.block(Height(height)).unwrap().unwrap();
        block.block.check().unwrap();
    }
    assert!(store.block(Height(height + 1)).unwrap().is_none());
}
