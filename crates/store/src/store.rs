//! The reading side.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::BinaryHeap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use daybook_ledger::{
    AssetId, Height, Operation, OutputRef, Parser, Position, PublicKey, Rejection, Rules,
    Transaction, TransactionId, Unspent, Verified, View,
    block::{BlockHash, Genesis},
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::{
    SearchField, StoreError, StoredBlock, Tip,
    blocks::BlockTable,
    checkpoint::State,
    disk::Disk,
    index::{self, Values, key::Family},
    log::{Log, SEGMENT_HEADER_BYTES, record::Text},
    place::{COUNT_MAX, Place, pack, unpack},
    text::{exact_strings, id_of},
};

/// Parsers kept for readers; more threads than that make their own and drop them.
const PARSERS_MAX: usize = 64;

/// The reading side: a handle on the committed state, cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    wanted: Option<Wanted>,
}

/// Whether anybody waits for what is being looked for.
type Wanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the reading and the writing side share.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) genesis: Genesis,
    pub(crate) chain: BlockHash,
    pub(crate) log: Arc<Log>,
    pub(crate) blocks: BlockTable,
    pub(crate) state: RwLock<State>,
    pub(crate) index: Arc<index::Shared>,
    /// What readers see; set last when a block is published.
    pub(crate) tip: RwLock<Tip>,
    pub(crate) parsers: Mutex<Vec<Parser>>,
    pub(crate) fault: Fault,
}

/// Damage that was found where no error could be returned.
#[derive(Default)]
pub(crate) struct Fault {
    found: AtomicBool,
    error: Mutex<Option<StoreError>>,
}

/// What stands at a position that the index names for a key of an asset transaction.
///
/// Keys are hashes of 48 bits, so that in a long log a key of one family is now and then that of another
/// family's: the position may be an entry's of another book, or count the rejections beside a block, of
/// which there may be more than entries. The checksums of the index's pages tell what is damage.
enum Indexed {
    /// An asset transaction: it still has to be compared with what was looked for.
    Text(Bytes),
    /// Something else, which is not what was looked for.
    Other,
    /// Readers do not see it yet.
    Later,
}

impl Shared {
    /// The damage that a view came upon, if any.
    pub(crate) fn check_fault(&self) -> Result<(), StoreError> {
        if !self.fault.found.load(Ordering::Acquire) {
            return Ok(());
        }
        self.fault
            .error
            .lock()
            .as_ref()
            .map_or(Ok(()), |error| Err(error.again()))
    }

    pub(crate) fn note_fault(&self, error: StoreError) {
        tracing::error!(%error, "the store is damaged");
        self.fault.error.lock().get_or_insert(error);
        self.fault.found.store(true, Ordering::Release);
    }

    pub(crate) fn with_parser<T>(&self, work: impl FnOnce(&mut Parser) -> T) -> T {
        let parser = self.parsers.lock().pop();
        let mut parser = parser.unwrap_or_else(|| Parser::new(Rules::WIDEST));
        let done = work(&mut parser);
        let mut parsers = self.parsers.lock();
        if parsers.len() < PARSERS_MAX {
            parsers.push(parser);
        }
        done
    }

    /// The asset transaction's text at a position; `None` beyond the tip, beyond the block and for
    /// entries of other books.
    pub(crate) fn text_at(&self, position: Position) -> Result<Option<Bytes>, StoreError> {
        Ok(match self.entry_text_at(position)? {
            Some(Text::Asset(text)) => Some(text),
            _ => None,
        })
    }

    /// The entry's text at a position; `None` beyond the tip and beyond the block.
    pub(crate) fn entry_text_at(&self, position: Position) -> Result<Option<Text>, StoreError> {
        if position.height.0 == 0 || position.height > self.tip.read().height {
            return Ok(None);
        }
        let place = self.blocks.place(position.height)?;
        if position.index >= place.count {
            return Ok(None);
        }
        self.log.text(place, position.index).map(Some)
    }

    /// What stands at a position that the index names.
    fn indexed(&self, position: Position) -> Result<Indexed, StoreError> {
        if position.height > self.tip.read().height {
            return Ok(Indexed::Later);
        }
        Ok(match self.text_at(position)? {
            Some(text) => Indexed::Text(text),
            None => Indexed::Other,
        })
    }

    pub(crate) fn read_id(
        &self,
        position: Position,
        text: &[u8],
    ) -> Result<TransactionId, StoreError> {
        id_of(text).ok_or_else(|| self.text_damaged(position, "it has no id"))
    }

    pub(crate) fn text_damaged(&self, position: Position, what: &str) -> StoreError {
        let place = self.blocks.place(position.height).unwrap_or(Place {
            segment: 0,
            offset: 0,
            length: 0,
            count: 0,
        });
        let path = self
            .dir
            .join("log")
            .join(format!("{:08}.seg", place.segment));
        StoreError::damaged(
            &path,
            place.offset,
            format!("transaction {position} does not read: {what}"),
        )
    }

    pub(crate) fn parse(&self, position: Position, text: Bytes) -> Result<Transaction, StoreError> {
        self.with_parser(|parser| parser.parse_stored(text))
            .map_err(|error| self.text_damaged(position, &error.to_string()))
    }

    /// Walks the transactions that the index names for a key, in commit order, until `each` returns
    /// false. They still have to be compared with what was looked for.
    pub(crate) fn candidates(
        &self,
        family: Family,
        key: &[u8],
        mut each: impl FnMut(Position, Bytes) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let key = self.index.secret.key(family, key);
        self.index.oldest_first(key, |value| {
            let position = unpack(value);
            match self.indexed(position)? {
                Indexed::Text(text) => each(position, text),
                Indexed::Other => Ok(true),
                Indexed::Later => Ok(false),
            }
        })
    }

    /// A transaction by its id.
    pub(crate) fn find(&self, id: &TransactionId) -> Result<Option<(Position, Bytes)>, StoreError> {
        let mut found = None;
        self.candidates(Family::Transaction, &id.0, |position, text| {
            if self.read_id(position, &text)? == *id {
                found = Some((position, text));
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>) -> Store {
        Store {
            shared,
            wanted: None,
        }
    }

    /// The same, for one who may lose patience: before each place that a list or a search looks at, be
    /// it one that does not belong to the answer, it asks `wanted`, and ends there when that is false.
    /// What was found until then was handed over or is dropped; whoever set `wanted` knows that it is not
    /// all.
    pub fn while_wanted(&self, wanted: impl Fn() -> bool + Send + Sync + 'static) -> Store {
        Store {
            shared: self.shared.clone(),
            wanted: Some(Arc::new(wanted)),
        }
    }

    /// Whether there is still somebody to look for.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted())
    }

    /// Walks candidates as [`Shared::candidates`] does, for as long as they are wanted.
    fn wanted_candidates(
        &self,
        family: Family,
        key: &[u8],
        mut each: impl FnMut(Position, Bytes) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.shared.candidates(family, key, |position, text| {
            Ok(self.is_wanted() && each(position, text)?)
        })
    }

    /// The newest block that readers see.
    pub fn tip(&self) -> Tip {
        *self.shared.tip.read()
    }

    /// How the chain began.
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The committed state as the rules read it. It holds a lock that the publishing of the next block
    /// waits for: hold it for a bounded number of transactions, and ask the store nothing else
    /// meanwhile on the same thread.
    pub fn view(&self) -> CommittedView<'_> {
        CommittedView {
            state: self.shared.state.read(),
            shared: &self.shared,
            allowance: None,
            withheld: Cell::new(None),
        }
    }

    /// The same, reading history within an allowance.
    pub fn view_within<'s>(&'s self, allowance: &'s Allowance) -> CommittedView<'s> {
        CommittedView {
            allowance: Some(allowance),
            ..self.view()
        }
    }

    /// Where a transaction stands.
    ///
    /// # Errors
    /// When the disk refuses or the store is damaged; so with all that follow.
    pub fn position(&self, id: &TransactionId) -> Result<Option<Position>, StoreError> {
        match self.shared.find(id)? {
            Some((position, _)) => Ok(Some(position)),
            None => match self.tracker_entry(id)? {
                Some((position, _)) => Ok(Some(position)),
                None => Ok(self.consortium_entry(id)?.map(|(position, _)| position)),
            },
        }
    }

    /// A transaction's canonical text and place.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn transaction(&self, id: &TransactionId) -> Result<Option<(Position, Bytes)>, StoreError> {
        self.shared.find(id)
    }

    /// The canonical text of the transaction at a place.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn transaction_at(
        &self,
        position: Position,
    ) -> Result<Option<(TransactionId, Bytes)>, StoreError> {
        if position.index as usize >= COUNT_MAX {
            return Ok(None);
        }
        match self.shared.text_at(position)? {
            Some(text) => Ok(Some((self.shared.read_id(position, &text)?, text))),
            None => Ok(None),
        }
    }

    /// A whole block. `None` beyond the tip and for height 0.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn block(&self, height: Height) -> Result<Option<Arc<StoredBlock>>, StoreError> {
        if height.0 == 0 || height > self.tip().height {
            return Ok(None);
        }
        let place = self.shared.blocks.place(height)?;
        let (segment, record) = self.shared.log.record(place)?;
        let block = self.shared.with_parser(|parser| record.block(parser));
        block
            .map(|block| Some(Arc::new(block)))
            .map_err(|flaw| segment.damaged(place.offset, flaw))
    }

    /// The newest rejection on record for a transaction that was taken and lost.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn rejection(&self, id: &TransactionId) -> Result<Option<(Height, Rejection)>, StoreError> {
        let shared = &self.shared;
        let tip = self.tip().height;
        let mut found = None;
        shared
            .index
            .newest_first(shared.index.secret.key(Family::Rejected, &id.0), |value| {
                let position = unpack(value);
                if position.height > tip {
                    return Ok(true);
                }
                let place = shared.blocks.place(position.height)?;
                let (segment, record) = shared.log.record(place)?;
                let rejected = record
                    .rejected()
                    .map_err(|flaw| segment.damaged(place.offset, flaw))?;
                found = rejected
                    .into_iter()
                    .nth(position.index as usize)
                    .filter(|lost| lost.id == *id)
                    .map(|lost| (position.height, lost.rejection));
                Ok(found.is_none())
            })?;
        Ok(found)
    }

    /// Transactions of an asset with their places, in commit order: the one that made it and all that
    /// move or consume it. `last_only` keeps the last. `each` returns false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn transactions_of_asset(
        &self,
        asset: &AssetId,
        operation: Option<Operation>,
        last_only: bool,
        each: &mut dyn FnMut(Position, TransactionId, Bytes) -> bool,
    ) -> Result<(), StoreError> {
        self.transactions_of_assets(&[*asset], operation, last_only, each)
    }

    /// Transactions of any of these assets, each once, as [`Store::transactions_of_asset`] lists them.
    /// Takes a few kilobytes of memory for each asset, however long their histories are.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn transactions_of_assets(
        &self,
        assets: &[AssetId],
        operation: Option<Operation>,
        last_only: bool,
        each: &mut dyn FnMut(Position, TransactionId, Bytes) -> bool,
    ) -> Result<(), StoreError> {
        if last_only {
            let mut newest: Option<(Position, TransactionId, Bytes)> = None;
            for asset in assets {
                let last = self.last_of_asset(asset, operation)?;
                let place = |found: &Option<(Position, _, _)>| found.as_ref().map(|found| found.0);
                if place(&last) > place(&newest) {
                    newest = last;
                }
            }
            if let Some((position, id, text)) = newest
                && self.is_wanted()
            {
                each(position, id, text);
            }
            return Ok(());
        }
        // Each asset is a walk in commit order; the walk that is furthest behind goes next.
        let mut walks = Vec::with_capacity(assets.len());
        let mut heads = BinaryHeap::with_capacity(assets.len());
        for asset in assets {
            let mut walk = AssetWalk::new(self, *asset)?;
            if let Some(place) = walk.next(self)? {
                heads.push(Reverse((place, walks.len())));
            }
            walks.push(walk);
        }
        while let Some(Reverse((place, first))) = heads.pop() {
            let mut belonging = vec![first];
            while let Some(Reverse((same, other))) = heads.peek()
                && *same == place
            {
                belonging.push(*other);
                heads.pop();
            }
            if !self.is_wanted() {
                return Ok(());
            }
            let position = unpack(place);
            match self.shared.indexed(position)? {
                Indexed::Text(text) => {
                    let transaction = self.shared.parse(position, text.clone())?;
                    let wanted = operation
                        .is_none_or(|operation| transaction.operation() == operation)
                        && belonging
                            .iter()
                            .any(|walk| is_of_asset(&transaction, &assets[*walk]));
                    if wanted && !each(position, transaction.id(), text) {
                        return Ok(());
                    }
                }
                Indexed::Other => {}
                // The rest is newer.
                Indexed::Later => return Ok(()),
            }
            for walk in belonging {
                if let Some(place) = walks[walk].next(self)? {
                    heads.push(Reverse((place, walk)));
                }
            }
        }
        Ok(())
    }

    /// The newest transaction of an asset.
    fn last_of_asset(
        &self,
        asset: &AssetId,
        operation: Option<Operation>,
    ) -> Result<Option<(Position, TransactionId, Bytes)>, StoreError> {
        let shared = &self.shared;
        let belongs = |position: Position, text: Bytes| -> Result<Option<_>, StoreError> {
            let transaction = shared.parse(position, text.clone())?;
            let wanted = operation.is_none_or(|operation| transaction.operation() == operation)
                && is_of_asset(&transaction, asset);
            Ok(wanted.then(|| (position, transaction.id(), text)))
        };
        let mut last = None;
        let key = shared.index.secret.key(Family::Asset, &asset.0);
        shared.index.newest_first(key, |value| {
            if !self.is_wanted() {
                return Ok(false);
            }
            let position = unpack(value);
            if let Indexed::Text(text) = shared.indexed(position)? {
                last = belongs(position, text)?;
            }
            Ok(last.is_none())
        })?;
        match last {
            Some(last) => Ok(Some(last)),
            None => match shared.find(&asset.as_transaction())? {
                Some((position, text)) => belongs(position, text),
                None => Ok(None),
            },
        }
    }

    /// Outputs whose condition names `key`, in commit order; `spent` filters. `each` returns false to
    /// stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn outputs_of_key(
        &self,
        key: &PublicKey,
        spent: Option<bool>,
        each: &mut dyn FnMut(OutputRef) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut theirs = Vec::new();
        self.wanted_candidates(Family::Owner, &key.0, |position, text| {
            let transaction = shared.parse(position, text)?;
            theirs.clear();
            for (index, output) in (0..).zip(transaction.outputs()) {
                if output.public_keys.contains(key) {
                    theirs.push(OutputRef {
                        transaction: transaction.id(),
                        index,
                    });
                }
            }
            if let Some(spent) = spent {
                let state = shared.state.read();
                theirs.retain(|output| state.table.get(output).is_none() == spent);
            }
            Ok(theirs.iter().all(|output| each(*output)))
        })
    }

    /// Transactions whose asset data or metadata is, or has as an item, exactly the string `cid`
    /// (section 3.11), in commit order. `each` returns false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn holding(
        &self,
        field: SearchField,
        cid: &str,
        each: &mut dyn FnMut(TransactionId, Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let family = match field {
            SearchField::Asset => Family::AssetString,
            SearchField::Metadata => Family::MetadataString,
        };
        self.wanted_candidates(family, cid.as_bytes(), |position, text| {
            let transaction = shared.parse(position, text.clone())?;
            let holds = |text: &str| exact_strings(text).any(|string| string == cid);
            let held = match field {
                SearchField::Asset => transaction.asset_data().any(holds),
                SearchField::Metadata => transaction.metadata().is_some_and(holds),
            };
            Ok(!held || each(transaction.id(), text))
        })
    }

    /// Unspent outputs, and the bytes of memory that their table takes.
    pub fn unspent_outputs(&self) -> (usize, usize) {
        let state = self.shared.state.read();
        (state.table.len(), state.table.memory_bytes())
    }

    /// Bytes of all segments of the log, the part made ahead included.
    pub fn log_bytes(&self) -> u64 {
        let segments = self.shared.log.segments();
        debug_assert!(
            segments
                .iter()
                .all(|segment| segment.bytes >= SEGMENT_HEADER_BYTES as u64)
        );
        segments.iter().map(|segment| segment.bytes).sum()
    }
}

/// Whether a transaction made the asset, or moves or consumes it. A TRANSFER's own id is no asset, and a
/// DECOMPOSE leaves parts without one.
fn is_of_asset(transaction: &Transaction, asset: &AssetId) -> bool {
    let makes = transaction.id() == asset.as_transaction()
        && transaction.asset() == *asset
        && transaction.operation() != Operation::Decompose;
    makes || transaction.consumed_assets().contains(asset)
}

/// The places that the index names for an asset, in commit order: candidates, which still have to be
/// compared.
struct AssetWalk {
    /// Where the transaction of its name stands.
    made: Option<u64>,
    moves: Values,
    next_move: Option<u64>,
}

impl AssetWalk {
    fn new(store: &Store, asset: AssetId) -> Result<AssetWalk, StoreError> {
        let shared = &store.shared;
        let made = shared.find(&asset.as_transaction())?;
        let key = shared.index.secret.key(Family::Asset, &asset.0);
        let mut moves = shared.index.values(key);
        Ok(AssetWalk {
            made: made.map(|(position, _)| pack(position.height, position.index)),
            next_move: moves.next()?,
            moves,
        })
    }

    fn next(&mut self, store: &Store) -> Result<Option<u64>, StoreError> {
        if !store.is_wanted() {
            return Ok(None);
        }
        let made_is_next = match (self.made, self.next_move) {
            (Some(made), Some(moved)) => made <= moved,
            (made, _) => made.is_some(),
        };
        if !made_is_next {
            let place = self.next_move;
            if place.is_some() {
                self.next_move = self.moves.next()?;
            }
            return Ok(place);
        }
        let place = self.made.take();
        if self.next_move == place {
            self.next_move = self.moves.next()?;
        }
        Ok(place)
    }
}

/// How much history decisions may read. The path of nearly all transactions reads none: history is read
/// to name why one is refused, and by a DECOMPOSE. A parent may be as long as a transaction may be, so
/// reading many of them would hold up everybody else.
#[derive(Debug)]
pub struct Allowance {
    bytes: u64,
    left: Cell<u64>,
    /// Nothing had been read when the present decision began.
    begun_whole: Cell<bool>,
    /// The present decision may read whatever it needs.
    lifted: Cell<bool>,
}

/// What a read counts at least: finding a short text costs more than reading it.
const READ_BYTES_MIN: u64 = 4 << 10;

impl Allowance {
    /// `bytes` of history may be read.
    pub fn new(bytes: u64) -> Allowance {
        Allowance {
            bytes,
            left: Cell::new(bytes),
            begun_whole: Cell::new(true),
            lifted: Cell::new(false),
        }
    }

    /// A decision begins. One that depends on history may read what it needs if it is the first to read
    /// any, so that it is possible however much that is.
    pub fn begin(&self, depends_on_history: bool) {
        let whole = self.left.get() == self.bytes;
        self.begun_whole.set(whole);
        self.lifted.set(whole && depends_on_history);
    }

    /// Nothing is left of it.
    pub fn is_used_up(&self) -> bool {
        self.left.get() == 0
    }

    fn is_spent(&self) -> bool {
        self.left.get() == 0 && !self.lifted.get()
    }

    pub(crate) fn spend(&self, bytes: usize) {
        let bytes = READ_BYTES_MIN.max(bytes as u64);
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    fn withheld(&self) -> Withheld {
        if self.begun_whole.get() {
            Withheld::TooMuch
        } else {
            Withheld::Spent
        }
    }
}

/// Why a view could not tell how things are.
#[derive(Debug, thiserror::Error)]
pub enum Withheld {
    /// The store could not be read. Damage is noted: nothing is committed any more. What the operating
    /// system refused may go another time.
    #[error(transparent)]
    Unreadable(StoreError),
    /// Decisions before this one read as much history as may be: it may go another time.
    #[error("too much history was asked for at once")]
    Spent,
    /// This decision alone asked for more history than may be read.
    #[error("one decision asked for too much history")]
    TooMuch,
}

/// The committed state as the rules read it.
///
/// What it cannot read it gives as committed already or as never seen, neither of which any rule lets
/// pass. Such a decision is no refusal, though: ask [`CommittedView::withheld`] after each.
pub struct CommittedView<'s> {
    state: RwLockReadGuard<'s, State>,
    shared: &'s Shared,
    allowance: Option<&'s Allowance>,
    withheld: Cell<Option<Withheld>>,
}

impl CommittedView<'_> {
    /// Why, since the last call, the view said other than what is so; `None` when all it said is true.
    pub fn withheld(&self) -> Option<Withheld> {
        self.withheld.take()
    }

    /// Says which outputs will be asked for next, so that they are near by then; of more than 256, the first
    /// ones. It changes how long the answers take and nothing else.
    pub fn prefetch<'o>(&self, outputs: impl Iterator<Item = &'o OutputRef>) {
        self.state.table.prefetch(outputs);
    }

    fn withhold(&self, error: StoreError) {
        if !error.is_transient() {
            self.shared.note_fault(error.again());
        }
        self.withheld.set(Some(Withheld::Unreadable(error)));
    }
}

impl View for CommittedView<'_> {
    fn unspent(&self, output: &OutputRef) -> Option<Unspent> {
        self.state.table.get(output)
    }

    fn is_committed(&self, transaction: &TransactionId) -> bool {
        match self.shared.find(transaction) {
            Ok(found) => found.is_some(),
            Err(error) => {
                self.withhold(error);
                true
            }
        }
    }

    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
        if let Some(allowance) = self.allowance
            && allowance.is_spent()
        {
            self.withheld.set(Some(allowance.withheld()));
            return None;
        }
        let found = self.shared.find(id).and_then(|found| {
            if let Some(allowance) = self.allowance {
                allowance.spend(found.as_ref().map_or(0, |(_, text)| text.len()));
            }
            found
                .map(|(position, text)| self.shared.parse(position, text))
                .transpose()
        });
        match found {
            Ok(transaction) => Some(Arc::new(Verified::from_stored(transaction?))),
            Err(error) => {
                self.withhold(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use daybook_ledger::{SigningKey, tracker::IndexKey};

    use super::*;
    use crate::{
        Name, Order,
        disk::simulated::SimulatedDisk,
        golden::tests::{block, genesis, options},
        open,
    };

    /// A place beyond the entries of the only block, as rejections beside a block may have.
    const PLANTED: Position = Position {
        height: Height(1),
        index: 7,
    };

    #[test]
    fn what_has_the_same_hash_by_accident_is_passed_over_and_is_no_damage() {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, mut writer, _) = open(Path::new("/data"), disk, &genesis(), options()).unwrap();
        let (block, changes) = block();
        writer.append(&block).unwrap();
        writer.publish(&block, &changes).unwrap();
        let transactions: Vec<_> = block
            .block
            .assets()
            .map(|(_, asset)| asset.clone())
            .collect();
        let asset = transactions[0].asset();
        let bob = SigningKey::from_seed([2; 32]).public_key();
        let unknown = TransactionId([0x5a; 32]);

        let index = &store.shared.index;
        let planted = pack(PLANTED.height, PLANTED.index);
        for (family, key) in [
            (Family::Transaction, &unknown.0[..]),
            (Family::Owner, &bob.0),
            (Family::Asset, &asset.0),
            (Family::TrackerEntry, &unknown.0),
            (Family::TrackerObject, b"lost"),
            (Family::ConsortiumEntry, &unknown.0),
        ] {
            index.plant(index.secret.key(family, key), planted);
        }

        assert_eq!(store.position(&unknown).unwrap(), None);
        let view = store.view();
        assert!(!view.is_committed(&unknown));
        assert!(view.withheld().is_none(), "the view told all there is");
        drop(view);

        let mut outputs = 0;
        store
            .outputs_of_key(&bob, None, &mut |_| {
                outputs += 1;
                true
            })
            .unwrap();
        assert_eq!(outputs, 1);
        for (last_only, wanted) in [(false, 2), (true, 1)] {
            let mut moves = 0;
            let mut count = |_, _, _| {
                moves += 1;
                true
            };
            store
                .transactions_of_asset(&asset, None, last_only, &mut count)
                .unwrap();
            assert_eq!(moves, wanted);
        }
        for (name, wanted) in [(Name::Owner(&bob), 1), (Name::Asset(&asset), 2)] {
            let mut found = 0;
            let mut count = |_, _| {
                found += 1;
                true
            };
            store.entries_before(name, None, &mut count).unwrap();
            assert_eq!(found, wanted, "{name:?}");
        }
        let lost = IndexKey::Object("lost");
        let nothing = &mut |_, _| panic!("nothing is there");
        store
            .tracker_entries(lost, Order::OldestFirst, nothing)
            .unwrap();
        writer.close().unwrap();
    }
}
