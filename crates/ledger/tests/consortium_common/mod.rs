//! A small network in memory: a book, a history that is a plain map, and members with keys.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use daybook_ledger::{
    BlockTime, Height, SigningKey, TransactionId,
    block::{BlockHash, Genesis, Validator},
    consortium::*,
    json::{Object, Value},
};

/// Block time of the first block: 2026-03-01 09:15:27.
pub const START: u64 = 1_772_356_527_000;

/// How long proposals of these tests stay open, in milliseconds.
pub const TTL: u64 = 20_000;

/// Everything that was recorded, by every name it has.
#[derive(Clone, Default)]
pub struct Archive {
    newest: BTreeMap<Vec<u8>, Entry>,
    by_ledger: BTreeMap<String, Vec<Entry>>,
    pub all: Vec<Entry>,
}

fn key_bytes(key: IndexKey<'_>) -> Vec<u8> {
    format!("{key:?}").into_bytes()
}

impl Archive {
    pub fn add(&mut self, entry: &Entry) {
        entry.index_keys(&mut |key| {
            self.newest.insert(key_bytes(key), entry.clone());
            if let IndexKey::Ledger(name) = key {
                let entries = self.by_ledger.entry(name.to_owned()).or_default();
                if entries.last() != Some(entry) {
                    entries.push(entry.clone());
                }
            }
        });
        self.all.push(entry.clone());
    }

    pub fn of_ledger(&self, name: &str) -> Vec<Entry> {
        self.by_ledger.get(name).cloned().unwrap_or_default()
    }
}

impl History for Archive {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        self.newest.get(&key_bytes(key)).cloned().map(Arc::new)
    }
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

/// The name of a member; deriving keys is slow and tests ask often.
pub fn did(seed: u8) -> Did {
    static DIDS: LazyLock<Vec<Did>> = LazyLock::new(|| {
        let dids = (0..=u8::MAX).map(|seed| Did::of(&key(seed).public_key()));
        dids.collect()
    });
    DIDS[usize::from(seed)]
}

pub fn validator() -> SigningKey {
    key(200)
}

pub fn genesis() -> Genesis {
    Genesis {
        chain: "test".to_owned(),
        time: BlockTime(START - 1),
        validators: vec![Validator {
            key: validator().public_key(),
            power: 1,
        }],
    }
}

pub fn card(seed: u8) -> Card {
    let profile = Profile {
        label: format!("Member {seed}"),
        ..Profile::default()
    };
    Card::first(profile, &key(seed))
}

/// A network with members 1 to 5.
pub struct Network {
    pub book: Book,
    pub prover: Prover,
    pub archive: Archive,
    pub now: u64,
    pub height: u64,
    requests: u64,
    /// A second book that takes nothing on trust.
    follower: Book,
}

/// What became of a request: the entry that was recorded, or the code.
pub type Said = Result<Entry, Code>;

impl Network {
    pub fn unfounded() -> Network {
        Network {
            book: Book::default(),
            prover: Prover::new(&genesis()),
            archive: Archive::default(),
            now: START,
            height: 0,
            requests: 0,
            follower: Book::default(),
        }
    }

    pub fn new() -> Network {
        Network::with(Settings {
            documents: Documents::Any,
            ..Settings::default()
        })
    }

    pub fn with(settings: Settings) -> Network {
        let mut network = Network::unfounded();
        let members = (1..=5).map(card).collect();
        let body = Body::Found { members, settings };
        network.ask(&body, &validator()).unwrap();
        network
    }

    pub fn id(&self) -> BlockHash {
        self.prover.network()
    }

    pub fn ask(&mut self, body: &Body, by: &SigningKey) -> Said {
        self.submit(Request::sign(self.id(), body, by))
    }

    /// Proves, decides and records in a block of its own; a refusal must leave no trace.
    pub fn submit(&mut self, request: Request) -> Said {
        self.now += 1;
        while let Some(expiry) = self.book.due(BlockTime(self.now), 3) {
            self.record(&expiry);
        }
        let before = self.book.clone();
        let command = match self.prover.prove(request) {
            Ok(command) => command,
            Err(refusal) => return Err(self.told(&refusal)),
        };
        let decision = self
            .book
            .decide(&command, BlockTime(self.now), &self.archive);
        assert_eq!(self.book, before, "deciding changes nothing");
        match decision {
            Ok(Decision::Entry(entry)) => {
                self.record(&entry);
                Ok(entry)
            }
            Ok(Decision::Repeat(entry)) => Ok(Entry::clone(&entry)),
            Err(refusal) => Err(self.told(&refusal)),
        }
    }

    fn told(&self, refusal: &Refusal) -> Code {
        assert!(!refusal.detail.is_empty(), "every refusal has a reason");
        refusal.code
    }

    pub fn record(&mut self, entry: &Entry) {
        self.height += 1;
        let height = Height(self.height);
        assert_eq!(Entry::read(entry.text().clone()).as_ref(), Ok(entry));
        self.follower
            .verify(entry, &mut self.prover, &self.archive)
            .unwrap();
        self.follower.record(entry, height).unwrap();
        self.book.record(entry, height).unwrap();
        self.book.audit().unwrap();
        assert_eq!(Book::decode(&self.book.encode()), Ok(self.book.clone()));
        self.archive.add(entry);
        // The follower forgets at once, the book later.
        self.follower.forget(height);
        if let Some(seen) = self.height.checked_sub(3) {
            self.book.forget(Height(seen));
        }
    }

    /// Lets time pass, in milliseconds, and what is due expire; gives the expiries.
    pub fn wait(&mut self, ms: u64) -> Vec<Entry> {
        self.now += ms;
        let mut expiries = Vec::new();
        while let Some(expiry) = self.book.due(BlockTime(self.now), 3) {
            self.record(&expiry);
            expiries.push(expiry);
        }
        expiries
    }

    /// An entry signed by a member.
    pub fn entry(&self, seed: u8, text: &str) -> Object {
        let value: Value = text.parse().unwrap();
        let object = value.as_object().unwrap().clone();
        sign_entry(object, self.now / 1_000, &key(seed), DEPTH_MAX).unwrap()
    }

    pub fn batch(&self, seed: u8, entries: &[&str]) -> Batch {
        let entries: Vec<Object> = entries.iter().map(|text| self.entry(seed, text)).collect();
        Batch::new(&entries)
    }

    pub fn create(&self, seed: u8, name: &str, members: &[u8], policy: Policy) -> Action {
        Action::Create {
            ledgers: vec![name.to_owned()],
            participants: members.iter().map(|seed| did(*seed)).collect(),
            policy,
            batch: self.batch(seed, &[r#"{"no":"genesis"}"#]),
        }
    }

    pub fn append(&self, seed: u8, names: &[&str], entries: &[&str]) -> Action {
        Action::Append {
            ledgers: names.iter().map(|name| (*name).to_owned()).collect(),
            batch: self.batch(seed, entries),
        }
    }

    /// Proposes under a name of its own.
    pub fn propose(&mut self, seed: u8, action: Action) -> Said {
        self.requests += 1;
        let request = format!("request-{}", self.requests);
        self.propose_as(seed, &request, action)
    }

    pub fn propose_as(&mut self, seed: u8, request: &str, action: Action) -> Said {
        let body = Body::Propose(Propose {
            member: did(seed),
            request: request.to_owned(),
            deadline: BlockTime(self.now + TTL),
            action,
        });
        self.ask(&body, &key(seed))
    }

    pub fn endorse(&mut self, seed: u8, proposal: &Entry) -> Said {
        let agreed = match self.book.asked(&proposal.id(), did(seed)) {
            Some(asked) => asked.agreed,
            None => self.agreed(proposal),
        };
        self.endorse_as(seed, proposal.id(), agreed)
    }

    pub fn endorse_as(&mut self, seed: u8, proposal: TransactionId, agreed: TreeHash) -> Said {
        let body = Body::Endorse {
            member: did(seed),
            proposal,
            agreed,
        };
        self.ask(&body, &key(seed))
    }

    /// The outcome of a proposal that was opened by now, for who is not asked.
    pub fn agreed(&self, proposal: &Entry) -> TreeHash {
        let opened = self.archive.all.iter().flat_map(|entry| {
            let effects = entry.effects().iter();
            effects.filter_map(|effect| match effect {
                Effect::Opened {
                    proposal: id,
                    agreed,
                } if id.unwrap_or(entry.id()) == proposal.id() => Some(*agreed),
                _ => None,
            })
        });
        opened.last().unwrap_or(TreeHash([0; 32]))
    }

    pub fn refuse(&mut self, seed: u8, proposal: &Entry, reason: &str) -> Said {
        let body = Body::Refuse {
            member: did(seed),
            proposal: proposal.id(),
            reason: reason.to_owned(),
        };
        self.ask(&body, &key(seed))
    }

    pub fn withdraw(&mut self, seed: u8, proposal: &Entry) -> Said {
        let body = Body::Withdraw {
            member: did(seed),
            proposal: proposal.id(),
        };
        self.ask(&body, &key(seed))
    }

    /// A ledger with one entry, shared by members 1 to 5 or by those named.
    pub fn with_ledger(&mut self, name: &str, members: &[u8], policy: Policy) {
        let action = self.create(members[0], name, members, policy);
        let proposal = self.propose(members[0], action).unwrap();
        for member in &members[1..] {
            if self.book.ledger(name).is_none() {
                self.endorse(*member, &proposal).unwrap();
            }
        }
        assert!(self.book.ledger(name).is_some());
    }

    /// What became of a proposal: `open`, `waiting`, or the word of its outcome.
    pub fn fate(&self, proposal: &Entry) -> &'static str {
        match self.book.outcome(&proposal.id(), &self.archive) {
            None => "unknown",
            Some(Outcome::Pending(progress)) => match progress.status {
                ProposalStatus::Open { .. } => "open",
                ProposalStatus::Waiting { .. } => "waiting",
            },
            Some(Outcome::Decided(entry)) => entry.outcome_of(&proposal.id()).unwrap().kind(),
        }
    }

    pub fn size(&self, ledger: &str) -> u64 {
        self.book
            .ledger(ledger)
            .map_or(0, |ledger| ledger.frontier.size())
    }

    /// The texts of a ledger, its metadata included.
    pub fn texts(&self, ledger: &str) -> Vec<String> {
        let committed = |number| {
            self.book
                .committed(ledger, number, &self.archive)
                .unwrap()
                .0
        };
        (1..=self.size(ledger)).map(committed).collect()
    }

    pub fn export(&self, ledger: &str) -> String {
        let mut file = String::new();
        export(
            self.id(),
            self.book.ledger(ledger).unwrap(),
            self.archive.of_ledger(ledger),
            &self.archive,
            &mut |line| file.push_str(&line),
        )
        .unwrap();
        file
    }
}
