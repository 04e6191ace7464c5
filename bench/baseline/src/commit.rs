//! What needs state: inputs exist, are unspent, fit in asset, owner and sum. One durable batch of
//! fjall per block, with the same look-ups kept up that the node keeps: transaction by id, outputs
//! by owner, transactions by asset, spent outputs.

use std::{collections::HashMap, fs, path::Path};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{
    Outcome,
    verify::{Id, Verified},
};

/// Threads that fjall may use for flushing and compaction.
const WORKERS: usize = 2;

pub(crate) struct Ledger {
    database: Database,
    bodies: Keyspace,
    assets: Keyspace,
    outputs: Keyspace,
    owners: Keyspace,
    spent: Keyspace,
    sequence: u64,
}

/// Asset, owner and amount of one output, as stored.
struct Unspent {
    asset: Id,
    owner: [u8; 32],
    amount: u64,
}

impl Ledger {
    /// An empty ledger in a directory that is made for it, and emptied if it is there.
    pub(crate) fn create(directory: &Path) -> Outcome<Ledger> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        let database = Database::builder(directory)
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .open()?;
        let keyspace = |name: &str| database.keyspace(name, KeyspaceCreateOptions::default);
        Ok(Ledger {
            bodies: keyspace("bodies")?,
            assets: keyspace("assets")?,
            outputs: keyspace("outputs")?,
            owners: keyspace("owners")?,
            spent: keyspace("spent")?,
            database: database.clone(),
            sequence: 0,
        })
    }

    /// Decides the transactions of one block in order and makes them durable together.
    pub(crate) fn commit(&mut self, block: &[Verified], texts: &[&[u8]]) -> Outcome<()> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        // What earlier transactions of this block made (`Some`) and spent (`None`).
        let mut overlay: HashMap<[u8; 36], Option<Unspent>> = HashMap::new();
        for (transaction, text) in block.iter().zip(texts) {
            let mut into: u128 = 0;
            for input in &transaction.inputs {
                let reference = reference(&input.transaction, input.index);
                let unspent = match overlay.remove(&reference) {
                    Some(known) => known.ok_or("DoubleSpend")?,
                    None if self.spent.contains_key(reference)? => return Err("DoubleSpend".into()),
                    None => {
                        let stored = self.outputs.get(reference)?.ok_or("InputDoesNotExist")?;
                        Unspent::read(&stored).ok_or("a damaged output")?
                    }
                };
                if unspent.asset != transaction.asset {
                    return Err("AssetIdMismatch".into());
                }
                if unspent.owner != input.key.bytes {
                    return Err("InvalidSignature".into());
                }
                into += u128::from(unspent.amount);
                overlay.insert(reference, None);
                batch.insert(&self.spent, reference, &transaction.id[..]);
            }
            let out: u128 = transaction
                .outputs
                .iter()
                .map(|o| u128::from(o.amount))
                .sum();
            if !transaction.inputs.is_empty() && into != out {
                return Err("AmountError".into());
            }
            for (index, output) in transaction.outputs.iter().enumerate() {
                let reference = reference(&transaction.id, index.try_into()?);
                let unspent = Unspent {
                    asset: transaction.asset,
                    owner: output.key.bytes,
                    amount: output.amount,
                };
                batch.insert(&self.outputs, reference, &unspent.write()[..]);
                let owned = [&unspent.owner[..], &self.sequence.to_be_bytes(), &reference].concat();
                batch.insert(&self.owners, owned, &[][..]);
                overlay.insert(reference, Some(unspent));
            }
            batch.insert(&self.bodies, transaction.id, *text);
            let history = [&transaction.asset[..], &self.sequence.to_be_bytes()].concat();
            batch.insert(&self.assets, history, &transaction.id[..]);
            self.sequence += 1;
        }
        batch.commit()?;
        Ok(())
    }
}

impl Unspent {
    fn write(&self) -> [u8; 72] {
        let mut bytes = [0; 72];
        bytes[..32].copy_from_slice(&self.asset);
        bytes[32..64].copy_from_slice(&self.owner);
        bytes[64..].copy_from_slice(&self.amount.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Unspent> {
        Some(Unspent {
            asset: bytes.get(..32)?.try_into().ok()?,
            owner: bytes.get(32..64)?.try_into().ok()?,
            amount: u64::from_be_bytes(bytes.get(64..72)?.try_into().ok()?),
        })
    }
}

fn reference(transaction: &Id, index: u32) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..32].copy_from_slice(transaction);
    bytes[32..].copy_from_slice(&index.to_be_bytes());
    bytes
}
