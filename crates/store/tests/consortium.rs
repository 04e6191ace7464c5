//! The consortium's book in the log: what is kept of it, and what happens when the log says something
//! that does not follow.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use daybook_ledger::{
    Block, BlockTime, Changes, Height, SigningKey,
    block::{Genesis, Parent, Validator},
    consortium::{
        Action, Batch, Body, Book, Card, DEPTH_MAX, Decision, Did, Documents, Entry, History,
        IndexKey, Policy, Profile, Propose, Prover, Request, Settings, sign_entry,
    },
    json::Object,
};
use daybook_store::{
    CheckOptions, Options, StoreError, StoredBlock, check,
    disk::{Disk, simulated::SimulatedDisk},
    open,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn did(seed: u8) -> Did {
    Did::of(&key(seed).public_key())
}

fn genesis() -> Genesis {
    Genesis {
        chain: "consortium".into(),
        time: BlockTime(1_000),
        validators: vec![Validator {
            key: key(9).public_key(),
            power: 10,
        }],
    }
}

fn options() -> Options {
    Options {
        segment_bytes: 65_536,
        ..Options::default()
    }
}

struct Nothing;

impl History for Nothing {
    fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
        None
    }
}

/// A chain with one entry a block.
struct Chain {
    disk: SimulatedDisk,
    book: Book,
    prover: Prover,
    parent: Parent,
    /// Block time of the newest decision.
    now: u64,
    height: Height,
}

impl Chain {
    fn new() -> Chain {
        Chain {
            disk: SimulatedDisk::new(),
            book: Book::default(),
            prover: Prover::new(&genesis()),
            parent: Parent::of_genesis(&genesis()),
            now: 1_000,
            height: Height(0),
        }
    }

    /// Decides and records a request, for a block of its own.
    fn decide(&mut self, body: &Body, by: &SigningKey) -> Entry {
        let request = Request::sign(self.prover.network(), body, by);
        let command = self.prover.prove(request).unwrap();
        self.now += 1_000;
        let decision = self.book.decide(&command, BlockTime(self.now), &Nothing);
        let Ok(Decision::Entry(entry)) = decision else {
            panic!("{decision:?}");
        };
        self.height = self.height.next();
        self.book.record(&entry, self.height).unwrap();
        entry
    }

    fn seal(&mut self, entry: Entry) -> StoredBlock {
        let block = Block::seal(&self.parent, entry.at(), vec![entry.into()], &key(9));
        self.parent = block.as_parent();
        StoredBlock {
            block,
            rejected: vec![],
        }
    }

    fn found(&mut self) -> Entry {
        let card = |seed: u8| {
            let profile = Profile {
                label: format!("Member {seed}"),
                ..Profile::default()
            };
            Card::first(profile, &key(seed))
        };
        let body = Body::Found {
            members: vec![card(1), card(2)],
            settings: Settings {
                documents: Documents::Any,
                ..Settings::default()
            },
        };
        self.decide(&body, &key(9))
    }

    fn propose(&mut self) -> Entry {
        let entry = Object::from_iter([("no", "A-1")]);
        let seconds = self.now / 1_000;
        let signed = sign_entry(entry, seconds, &key(1), DEPTH_MAX).unwrap();
        let body = Body::Propose(Propose {
            member: did(1),
            request: "first".to_owned(),
            deadline: BlockTime(self.now + 20_000),
            action: Action::Create {
                ledgers: vec!["CONT-1".to_owned()],
                participants: vec![did(1), did(2)],
                policy: Policy::Unanimous,
                batch: Batch::new(&[signed]),
            },
        });
        self.decide(&body, &key(1))
    }

    /// Writes blocks with these entries, the last of which readers need not have seen.
    fn write(&mut self, entries: Vec<Entry>, publish_last: bool) {
        let disk = Arc::new(self.disk.clone());
        let (_, mut writer, _) = open(Path::new("/data"), disk, &genesis(), options()).unwrap();
        let count = entries.len();
        for (place, entry) in entries.into_iter().enumerate() {
            let block = Arc::new(self.seal(entry));
            writer.append(&block).unwrap();
            if publish_last || place + 1 < count {
                writer.publish(&block, &Changes::default()).unwrap();
            }
        }
        if publish_last {
            writer.close().unwrap();
        }
    }

    fn findings(&self) -> Vec<String> {
        let options = CheckOptions {
            store: options(),
            ..CheckOptions::default()
        };
        let disk = Arc::new(self.disk.clone());
        let report = check(Path::new("/data"), disk, &options, &mut |_, _| {}).unwrap();
        report
            .findings
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }
}

/// A chain whose network is founded, with an open proposal.
fn open_proposal() -> Chain {
    let mut chain = Chain::new();
    let entries = vec![chain.found(), chain.propose()];
    chain.write(entries, true);
    chain
}

/// The bytes of the log and of a checkpoint with the book; a change here is a change of the format.
#[test]
fn a_log_and_a_checkpoint_with_the_book_have_the_bytes_that_the_format_says() {
    let chain = open_proposal();
    let files = chain.disk.files();
    for (name, path) in [
        ("consortium_segment", "log/00000001.seg"),
        (
            "consortium_checkpoint",
            "checkpoint/0000000000000002-0000000000000002.checkpoint",
        ),
    ] {
        let wanted = Path::new("/data").join(path);
        let (_, bytes) = files.iter().find(|(file, _)| *file == wanted).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let dumped: String = bytes[..end]
            .chunks(32)
            .map(|line| {
                let digits = line.iter().map(|byte| format!("{byte:02x}"));
                digits.collect::<String>() + "\n"
            })
            .collect();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
        if std::env::var_os("DAYBOOK_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(&kept, &dumped).unwrap();
        }
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert_eq!(dumped, kept, "{name} is not what is written now");
    }
}

#[test]
fn a_checkpoint_holds_the_book_and_the_log_alone_gives_the_same() {
    let chain = open_proposal();
    let read = || {
        let disk = Arc::new(chain.disk.clone());
        let (store, _writer, recovery) =
            open(Path::new("/data"), disk, &genesis(), options()).unwrap();
        (store.consortium(Book::encode), recovery.replayed_blocks)
    };
    let (kept, replayed) = read();
    assert_eq!(replayed, 0);
    assert_eq!(Book::decode(&kept).unwrap().pending_count(), 1);
    for (path, _) in chain.disk.files() {
        if !path.starts_with("/data/log") {
            chain.disk.remove(&path).unwrap();
        }
    }
    assert_eq!(read(), (kept, 2));
    assert_eq!(chain.findings(), Vec::<String>::new());
}

#[test]
fn an_entry_that_does_not_follow_stops_the_start_and_names_the_rule() {
    let mut chain = Chain::new();
    let (found, proposed) = (chain.found(), chain.propose());
    // The signatures are right, and the block's; what is said to follow is not what does.
    let text = String::from_utf8(proposed.text().to_vec()).unwrap();
    let queued = r#"[{"behind":1,"effect":"queued"}]"#;
    let (before, rest) = text.split_once("\"effects\":").unwrap();
    let after = &rest[rest.find("],").unwrap() + 1..];
    let forged = Entry::read(Bytes::from(format!("{before}\"effects\":{queued}{after}"))).unwrap();
    chain.write(vec![found, forged], false);

    let disk = Arc::new(chain.disk.clone());
    let opened = open(Path::new("/data"), disk, &genesis(), options());
    let Err(StoreError::Damaged { what, .. }) = opened else {
        panic!("a forged entry was taken");
    };
    assert!(
        what.contains("the consortium's book is broken: effects"),
        "{what}"
    );
    let findings = chain.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        findings[0].contains("another entry of the consortium follows here"),
        "{findings:?}"
    );
}
