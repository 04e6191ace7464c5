//! The mirror: a member's own copy of the consortium's book, and the lists that its users read.
//!
//! It is fed by the log alone, in the log's order, and takes nothing on trust: the request of every
//! entry is proven and decided again before it is recorded. Local ids and times follow from the log,
//! so that a mirror that is made anew is the same.

use std::{ops::RangeInclusive, path::Path, sync::Arc};

use daybook_ledger::{
    BlockTime, Height, Position, TransactionId,
    block::BlockHash,
    consortium::{
        Action, Asked, Book, Did, ENTRY_SIGNATURE, Effect, Entry, History, IndexKey, Member,
        Outcome, Prover, Violation, request_key, time_text,
    },
    json::Value,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::{
    disk::{DiskError, MirrorChange, MirrorFile},
    fetch::{Attached, attached},
    json::{self, object, own_object, write},
    network::Logged,
};

/// Entries between two snapshots of the book: so many are recorded again at a start, within a second.
const SNAPSHOT_ENTRIES: usize = 10_000;

/// The mirror's file in the member's folder. The log makes it anew.
pub(crate) const MIRROR_FILE: &str = "mirror.redb";

/// The names of the facts that a mirror remembers.
const NETWORK: &str = "network";
const BOOK: &str = "book";
const BOOK_AT: &str = "book_at";

/// The mirror cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The node's log does not follow from itself: the node is at fault, or somebody in between.
    #[error("the node's log is not sound: {0}")]
    Unsound(#[from] Violation),
    /// The folder belongs to another network.
    #[error("the mirror is of another network: remove {0} to begin anew")]
    OtherNetwork(String),
}

/// The mirror of one member.
///
/// It has the book twice. One runs ahead while entries are proven, with all that is read and written of the
/// file meanwhile; the other stands at what the file holds, and nobody who reads it waits for a disk.
#[derive(Debug)]
pub(crate) struct Mirror {
    me: Did,
    file: MirrorFile,
    /// Held by whoever records: entries come one batch after the other.
    ahead: Mutex<Ahead>,
    network: BlockHash,
    state: RwLock<State>,
    /// What the endorser has not looked at yet.
    turns: Mutex<Turns>,
    applied: watch::Sender<Option<Position>>,
}

/// What entries are proven against.
#[derive(Debug)]
struct Ahead {
    book: Book,
    prover: Prover,
    /// Entries recorded since the last snapshot.
    unsaved: usize,
}

/// What is read.
#[derive(Debug)]
struct State {
    book: Book,
    /// The time of the newest entry.
    time: BlockTime,
}

/// Proposals that came to their turn, and those that are decided, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) opened: Vec<TransactionId>,
    pub(crate) closed: Vec<TransactionId>,
}

/// A history that is read from a change under way.
struct Present<'c>(&'c MirrorChange);

impl History for Present<'_> {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        told(self.0.newest(key))
    }
}

fn told(found: Result<Option<Entry>, DiskError>) -> Option<Arc<Entry>> {
    found
        .inspect_err(|error| tracing::error!(%error, "the mirror cannot be read"))
        .ok()
        .flatten()
        .map(Arc::new)
}

/// A row of a list: its local number and what is stored of it.
pub(crate) type Row = (u64, String);

impl Mirror {
    /// Opens the mirror in `folder`, or makes an empty one.
    pub(crate) fn open(folder: &Path, me: Did, prover: Prover) -> Result<Mirror, MirrorError> {
        let path = folder.join(MIRROR_FILE);
        let file = MirrorFile::open(&path)?;
        let network = prover.network();
        match file.fact(NETWORK)? {
            Some(known) if known != network.0 => {
                return Err(MirrorError::OtherNetwork(path.display().to_string()));
            }
            Some(_) => {}
            None => {
                let change = file.change(true)?;
                change.set_fact(NETWORK, &network.0)?;
                change.commit()?;
            }
        }
        let (mut book, from) = snapshot(&file).unwrap_or_default();
        let mut unsaved = 0;
        // One entry after the other, from the snapshot on: there may be any number of them.
        file.entries(from, |position, entry| {
            book.record(&entry, position.height)
                .map_err(|violation| DiskError(violation.to_string()))?;
            book.forget(position.height);
            unsaved += 1;
            Ok(())
        })?;
        let last = file.last()?;
        let time = last.as_ref().map_or(BlockTime(0), |(_, entry)| entry.at());
        Ok(Mirror {
            me,
            file,
            network,
            state: RwLock::new(State {
                book: book.clone(),
                time,
            }),
            ahead: Mutex::new(Ahead {
                book,
                prover,
                unsaved,
            }),
            turns: Mutex::default(),
            applied: watch::Sender::new(last.map(|(position, _)| position)),
        })
    }

    /// The network that it mirrors.
    pub(crate) fn network(&self) -> BlockHash {
        self.network
    }

    /// How far it has come.
    pub(crate) fn applied(&self) -> watch::Receiver<Option<Position>> {
        self.applied.subscribe()
    }

    /// The place of the newest entry in it.
    pub(crate) fn last(&self) -> Option<Position> {
        *self.applied.borrow()
    }

    /// The block time of the newest entry in it.
    pub(crate) fn time(&self) -> BlockTime {
        self.state.read().time
    }

    /// The book.
    pub(crate) fn book(&self) -> impl std::ops::Deref<Target = Book> {
        RwLockReadGuard::map(self.state.read(), |state| &state.book)
    }

    /// What became of a proposal. Blocks on the disk.
    pub(crate) fn outcome(&self, proposal: &TransactionId) -> Option<Outcome> {
        let progress = self.book().progress(proposal);
        if let Some(progress) = progress {
            return Some(Outcome::Pending(progress));
        }
        // What is decided is in the file, and found there without the book's lock.
        let newest = self.file.newest(IndexKey::Proposal(*proposal));
        let newest = Entry::clone(&*told(newest)?);
        newest.outcome_of(proposal)?;
        Some(Outcome::Decided(newest))
    }

    /// The proposal that a member made under its own name for it. Blocks on the disk.
    pub(crate) fn proposed(&self, member: Did, request: &str) -> Option<Entry> {
        let newest = self
            .file
            .newest(IndexKey::Request(request_key(member, request)));
        told(newest).map(|entry| Entry::clone(&entry))
    }

    /// What a member said about a proposal. Blocks on the disk.
    pub(crate) fn vote(&self, proposal: TransactionId, member: Did) -> Option<Entry> {
        told(self.file.newest(IndexKey::Vote(proposal, member))).map(|entry| Entry::clone(&entry))
    }

    /// Everything that this member is asked now.
    pub(crate) fn questions(&self) -> Vec<Asked> {
        self.book().questions(self.me)
    }

    /// A member's label, or its DID.
    pub(crate) fn label(&self, did: Did) -> String {
        let label = |member: &Member| member.card.profile().label.clone();
        self.book()
            .member(did)
            .map_or_else(|| did.to_string(), label)
    }

    /// Takes entries that follow on what is there, all or none. Blocks on the disk.
    ///
    /// # Errors
    /// Whatever it is, the mirror is of no use afterwards and must be opened anew.
    pub(crate) fn apply(&self, logged: &[Logged]) -> Result<(), MirrorError> {
        let Some(newest) = logged.last() else {
            return Ok(());
        };
        let mut ahead = self.ahead.lock();
        let Ahead {
            book,
            prover,
            unsaved,
        } = &mut *ahead;
        let change = self.file.change(false)?;
        for Logged { position, entry } in logged {
            book.verify(entry, prover, &Present(&change))?;
            book.record(entry, position.height)?;
            change.add_entry(*position, entry)?;
            self.follow(&change, book, entry)?;
        }
        change.commit()?;
        book.forget(newest.position.height);
        *unsaved += logged.len();
        {
            // In memory alone, and only what the file has already.
            let mut state = self.state.write();
            for Logged { position, entry } in logged {
                state.book.record(entry, position.height)?;
            }
            state.book.forget(newest.position.height);
            state.time = newest.entry.at();
        }
        if ahead.unsaved >= SNAPSHOT_ENTRIES {
            self.save(&mut ahead, newest.position)?;
        }
        self.note_turns(logged);
        self.applied.send_replace(Some(newest.position));
        Ok(())
    }

    fn note_turns(&self, logged: &[Logged]) {
        let mut turns = self.turns.lock();
        for Logged { entry, .. } in logged {
            for effect in entry.effects() {
                let proposal = effect.proposal().unwrap_or(entry.id());
                match effect {
                    Effect::Opened { .. } => turns.opened.push(proposal),
                    effect if effect.is_final() => turns.closed.push(proposal),
                    _ => {}
                }
            }
        }
    }

    /// What happened to proposals since this was asked last.
    pub(crate) fn take_turns(&self) -> Turns {
        std::mem::take(&mut *self.turns.lock())
    }

    /// What this member is asked about a proposal; `None` when it need not answer (any more).
    pub(crate) fn asked(&self, proposal: &TransactionId) -> Option<Asked> {
        self.book().asked(proposal, self.me)
    }

    /// Makes everything durable, so that the next start has little to do. Blocks on the disk.
    pub(crate) fn close(&self) -> Result<(), MirrorError> {
        let mut ahead = self.ahead.lock();
        match self.last() {
            Some(last) if ahead.unsaved > 0 => self.save(&mut ahead, last),
            _ => Ok(()),
        }
    }

    fn save(&self, ahead: &mut Ahead, at: Position) -> Result<(), MirrorError> {
        let change = self.file.change(true)?;
        change.set_fact(BOOK, &ahead.book.encode())?;
        let place = [
            at.height.0.to_be_bytes().as_slice(),
            &at.index.to_be_bytes(),
        ]
        .concat();
        change.set_fact(BOOK_AT, &place)?;
        change.commit()?;
        ahead.unsaved = 0;
        Ok(())
    }

    /// Keeps the lists in step with an entry that was recorded.
    fn follow(&self, change: &MirrorChange, book: &Book, entry: &Entry) -> Result<(), MirrorError> {
        for effect in entry.effects() {
            let Effect::Committed {
                proposal,
                opened,
                states,
                ..
            } = effect
            else {
                continue;
            };
            let proposed = match proposal {
                None => Some(entry.clone()),
                Some(id) => change.newest(IndexKey::Proposed(*id))?,
            };
            let Some(propose) = proposed.as_ref().and_then(Entry::propose) else {
                return Err(DiskError("a proposal is missing".to_owned()).into());
            };
            for grown in states {
                let Some(ledger) = book.ledger(&grown.name) else {
                    continue;
                };
                if !ledger.participants.contains(&self.me) {
                    continue;
                }
                let known = change.ledger_named(&grown.name)?;
                if let Some((id, _)) = known
                    && let Action::Append { batch, .. } = &propose.action
                {
                    let time = time_text(*opened);
                    for (number, text) in (grown.size + 1..).zip(batch.entries()) {
                        self.put(
                            change,
                            book,
                            id,
                            number,
                            &text.committed(number, Some(&time)),
                        )?;
                    }
                    change.note_change(id, entry.at().0)?;
                    continue;
                }
                let creator = ledger.creator;
                let label = match book.member(creator) {
                    _ if creator == self.me => "SELF".to_owned(),
                    Some(member) => member.card.profile().label.clone(),
                    None => creator.to_string(),
                };
                let participants = ledger.participants.iter();
                let participants = participants.map(|did| did.to_string().into()).collect();
                let row = object([
                    ("name", grown.name.as_str().into()),
                    (
                        "metadata",
                        object([
                            (
                                "actor",
                                object([
                                    ("label", label.into()),
                                    ("did", creator.to_string().into()),
                                ]),
                            ),
                            ("local_timestamp_utc", time_text(ledger.created).into()),
                            ("participants", Value::Array(participants)),
                            ("policy", ledger.policy.to_string().into()),
                        ]),
                    ),
                ]);
                let id =
                    change.put_ledger(&grown.name, known.map(|known| known.0), &write(&row))?;
                change.note_change(id, entry.at().0)?;
                if let Action::Create { batch, .. } = &propose.action {
                    for (number, text) in (1..).zip(batch.entries()) {
                        self.put(change, book, id, number, &text.committed(number, None))?;
                    }
                } else {
                    // Who came later, or was away for a time, gets what was committed before, too.
                    let stored = change.size(id)?;
                    for number in stored + 1..=grown.uncommitted_size {
                        let found = book.committed(&grown.name, number, &Present(change));
                        let Some((text, _)) = found else {
                            return Err(DiskError("an entry is missing".to_owned()).into());
                        };
                        self.put(change, book, id, number, &text)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn put(
        &self,
        change: &MirrorChange,
        book: &Book,
        ledger: u64,
        number: u64,
        text: &str,
    ) -> Result<(), DiskError> {
        change.put_transaction(ledger, number, text)?;
        let entry = own_object(text);
        let signer = entry.get(ENTRY_SIGNATURE).and_then(|signature| {
            let key = json::text(signature, "signer").parse().ok()?;
            Some(book.owner(&key)?.card.did())
        });
        let Some(by) = signer else { return Ok(()) };
        for (uid, row) in attached(&entry, by) {
            change.add_attachment(&uid, by, ledger, &row)?;
        }
        Ok(())
    }

    /// What members said of documents of this name that they attached, one of each member.
    pub(crate) fn attachments(&self, uid: &str) -> Result<Vec<Attached>, DiskError> {
        let rows = self.file.attachments(uid)?;
        Ok(rows.iter().filter_map(|row| Attached::read(row)).collect())
    }

    /// Whether this member attached a document to an entry of a ledger in which another takes part.
    pub(crate) fn shares_attachment(&self, uid: &str, with: Did) -> Result<bool, DiskError> {
        for ledger in self.file.attached_to(uid, self.me)? {
            let Some(kept) = self.file.ledger(ledger)? else {
                continue;
            };
            let name = json::text(&json::own(&kept), "name").to_owned();
            let book = self.book();
            let ledger = book.ledger(&name);
            if ledger.is_some_and(|ledger| ledger.participants.contains(&with)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The lists of ledgers by their names and changes.
    pub(crate) fn lists(&self) -> &MirrorFile {
        &self.file
    }

    /// How many ledgers there are.
    pub(crate) fn ledger_count(&self) -> Result<u64, DiskError> {
        self.file.ledger_count()
    }

    /// A ledger by its local id.
    pub(crate) fn ledger(&self, id: u64) -> Result<Option<String>, DiskError> {
        self.file.ledger(id)
    }

    /// A ledger's local id.
    pub(crate) fn ledger_named(&self, name: &str) -> Result<Option<u64>, DiskError> {
        self.file.ledger_named(name)
    }

    /// How many entries a ledger has.
    pub(crate) fn size(&self, ledger: u64) -> Result<u64, DiskError> {
        self.file.size(ledger)
    }

    /// Entries of a ledger with sequence numbers in a range, the newest first.
    pub(crate) fn transactions(
        &self,
        ledger: u64,
        numbers: RangeInclusive<u64>,
    ) -> Result<Vec<Row>, DiskError> {
        self.file.transactions(ledger, numbers)
    }

    /// The root of a ledger and how many entries are under it.
    pub(crate) fn tree(&self, name: &str) -> Option<(String, u64)> {
        let book = self.book();
        let ledger = book.ledger(name)?;
        Some((ledger.frontier.root().to_string(), ledger.frontier.size()))
    }
}

fn snapshot(file: &MirrorFile) -> Option<(Book, Option<Position>)> {
    let bytes = file.fact(BOOK).ok()??;
    let at = file.fact(BOOK_AT).ok()??;
    let (height, index) = at.split_first_chunk()?;
    let at = Position {
        height: Height(u64::from_be_bytes(*height)),
        index: u32::from_be_bytes(index.try_into().ok()?),
    };
    match Book::decode(&bytes) {
        Ok(book) => Some((book, Some(at))),
        Err(error) => {
            tracing::warn!(%error, "the mirror's snapshot is not used; all entries are read again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::{
        SigningKey,
        block::{Genesis, Validator},
        consortium::{Body, Card, Decision, Profile, Request, Settings},
    };

    use super::*;

    struct Nothing;

    impl History for Nothing {
        fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
            None
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32])
    }

    fn prover() -> Prover {
        let validator = Validator {
            key: key(200).public_key(),
            power: 1,
        };
        Prover::new(&Genesis {
            chain: "test".to_owned(),
            time: BlockTime(1),
            validators: vec![validator],
        })
    }

    fn open(folder: &Path) -> Mirror {
        Mirror::open(folder, Did::of(&key(1).public_key()), prover()).unwrap()
    }

    /// The entry that founds a network of one member, at the place where a log begins.
    fn founding() -> Logged {
        let profile = Profile {
            label: "Member 1".to_owned(),
            ..Profile::default()
        };
        let body = Body::Found {
            members: vec![Card::first(profile, &key(1))],
            settings: Settings::default(),
        };
        let mut prover = prover();
        let request = Request::sign(prover.network(), &body, &key(200));
        let command = prover.prove(request).unwrap();
        let decided = Book::default().decide(&command, BlockTime(7), &Nothing);
        let Ok(Decision::Entry(entry)) = decided else {
            panic!("{decided:?}");
        };
        let position = Position {
            height: Height(1),
            index: 0,
        };
        Logged { position, entry }
    }

    #[test]
    fn a_mirror_that_is_opened_again_stands_where_it_stood() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = open(dir.path());
        assert_eq!((mirror.time(), mirror.last()), (BlockTime(0), None));
        let founding = founding();
        mirror.apply(std::slice::from_ref(&founding)).unwrap();
        mirror.close().unwrap();
        drop(mirror);
        let mirror = open(dir.path());
        assert_eq!(mirror.time(), BlockTime(7));
        assert_eq!(mirror.last(), Some(founding.position));
        assert_eq!(mirror.book().members().count(), 1);
        // The same again does not follow from what is there, and changes nothing that is read.
        assert!(mirror.apply(&[founding]).is_err());
        assert_eq!(mirror.book().members().count(), 1);
    }

    #[test]
    fn who_reads_the_book_waits_for_no_entry_that_is_being_proven() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = open(dir.path());
        mirror.apply(&[founding()]).unwrap();
        // As whoever proves entries holds it while the disk is read and written.
        let _proving = mirror.ahead.lock();
        assert_eq!(mirror.book().members().count(), 1);
        assert_eq!(mirror.time(), BlockTime(7));
        assert_eq!(mirror.label(Did::of(&key(1).public_key())), "Member 1");
        assert!(mirror.questions().is_empty());
        assert_eq!(mirror.outcome(&TransactionId([0; 32])), None);
        assert_eq!(mirror.ledger_count().unwrap(), 0);
    }
}
