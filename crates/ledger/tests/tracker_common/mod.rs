//! A tracker with everything around it, as the tests drive it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods
)]

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use daybook_ledger::{
    AssetId, BlockTime, Draft, Height, OutputRef, SigningKey, Transaction,
    json::{Object, Value},
    tracker::{
        Address, AddressState, Book, Command, Contract, Decision, Entry, History, IndexKey, Key,
        Meets, Payload, Price, Proven, Prover, Refusal, Request, Settings, Settled, Suites,
        TrackerId, command, draft, pem_of, reply,
    },
};

/// The first block's time: the timestamp of vectors V1 to V3.
pub const START: u64 = 1_700_000_000_000;

/// Somebody with a key.
pub struct Peer {
    pub pem: String,
    secret: Secret,
}

enum Secret {
    Ed25519(Box<SigningKey>),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl Peer {
    pub fn ed25519(seed: u8) -> Peer {
        let key = SigningKey::from_seed([seed; 32]);
        Peer {
            pem: Key::ed25519_pem(&key.public_key()),
            secret: Secret::Ed25519(Box::new(key)),
        }
    }

    pub fn rsa() -> Peer {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Peer {
            pem: pem_of(pair.public_key().as_der().unwrap().as_ref()),
            secret: Secret::Rsa(pair),
        }
    }

    pub fn p256() -> Peer {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Peer {
            pem: pem_of(pair.public_key().as_der().unwrap().as_ref()),
            secret: Secret::P256(pair),
        }
    }

    pub fn key(&self) -> Key {
        Key::read(&self.pem).unwrap()
    }

    pub fn sign(&self, text: &str) -> String {
        let random = SystemRandom::new();
        let signature = match &self.secret {
            Secret::Ed25519(key) => key.sign(text.as_bytes()).to_vec(),
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            Secret::P256(pair) => pair
                .sign(&random, text.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        STANDARD.encode(signature)
    }

    /// A single-signed request.
    pub fn request(&self, code: u64, message: impl Into<String>) -> Request {
        let message = message.into();
        Request {
            command: code,
            correlation: "1".into(),
            idempotent: false,
            payload: Payload::Single {
                sign: self.sign(&message),
                pk: self.pem.clone(),
                message,
            },
        }
    }
}

/// A request that both sign.
pub fn cosigned(code: u64, message: impl Into<String>, from: &Peer, to: &Peer) -> Request {
    let message = message.into();
    Request {
        command: code,
        correlation: "1".into(),
        idempotent: false,
        payload: Payload::CoSigned {
            from_sign: from.sign(&message),
            to_sign: to.sign(&message),
            from_pk: from.pem.clone(),
            to_pk: to.pem.clone(),
            message,
        },
    }
}

/// The log, as readers of history see it: up to some height.
#[derive(Default)]
pub struct Log {
    pub entries: Vec<(Height, Arc<Entry>)>,
    names: BTreeMap<Vec<u8>, Vec<usize>>,
    pub visible: Height,
}

fn name_of(key: IndexKey<'_>) -> Vec<u8> {
    format!("{key:?}").into_bytes()
}

impl Log {
    pub fn push(&mut self, height: Height, entry: &Entry) {
        let place = self.entries.len();
        entry.index_keys(&mut |key| {
            let places = self.names.entry(name_of(key)).or_default();
            assert_ne!(places.last(), Some(&place), "every name comes once");
            places.push(place);
        });
        self.entries.push((height, Arc::new(entry.clone())));
    }
}

impl History for Log {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        let places = self.names.get(&name_of(key))?;
        let mut seen = places.iter().rev().map(|place| &self.entries[*place]);
        let (_, entry) = seen.find(|(height, _)| *height <= self.visible)?;
        Some(entry.clone())
    }
}

/// A tracker, its log, and the asset it is paid in.
pub struct World {
    pub book: Book,
    pub log: Log,
    pub height: Height,
    pub now: u64,
    pub prover: Prover,
    pub tracker: Peer,
    pub holder: SigningKey,
    pub owner: SigningKey,
    pub token: AssetId,
    /// What the token's owner still has.
    purse: (OutputRef, u64),
}

impl World {
    /// Open, with 100,000 tokens in the wallet.
    pub fn new() -> World {
        World::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> World {
        let (tracker, holder) = (Peer::ed25519(100), SigningKey::from_seed([101; 32]));
        let owner = SigningKey::from_seed([102; 32]);
        let token = Draft::create(Object::from_iter([("token", "traffic")]))
            .output(1_000_000_000, &owner)
            .sign(&[&owner])
            .unwrap();
        let id = token.id().as_asset();
        let mut settings = Settings::new(tracker.pem.clone(), id, holder.public_key());
        change(&mut settings);
        let mut world = World {
            book: Book::default(),
            log: Log::default(),
            height: Height(1),
            now: START,
            prover: Prover::new(Suites::default(), settings.ids()),
            tracker,
            holder,
            owner,
            token: id,
            purse: (token.output_ref(0), 1_000_000_000),
        };
        let entry = world.book.configure(settings, BlockTime(START)).unwrap();
        world.record(&entry);
        world.deposit(100_000);
        world
    }

    /// A TRANSFER of the token to the holder of the tracker's tokens, not yet met.
    pub fn transfer(&mut self, amount: u64) -> Transaction {
        let (output, purse) = self.purse;
        let transfer = Draft::transfer(self.token)
            .spend(output, &self.owner)
            .output(purse - amount, &self.owner)
            .output(amount, &self.holder)
            .sign(&[&self.owner])
            .unwrap();
        self.purse = (transfer.output_ref(0), purse - amount);
        transfer
    }

    pub fn deposit(&mut self, amount: u64) {
        let transfer = self.transfer(amount);
        let meets = self.book.meets(&transfer);
        assert_eq!(
            meets,
            Meets::Deposit {
                amount: amount.into()
            }
        );
        let entry = self.book.deposit(&transfer, BlockTime(self.now));
        self.record(&entry);
    }

    pub fn record(&mut self, entry: &Entry) {
        self.book.record(entry, self.height).unwrap();
        self.book.audit().unwrap();
        assert_eq!(
            &Entry::read(entry.text().clone()).unwrap(),
            entry,
            "an entry reads back as written"
        );
        self.log.push(self.height, entry);
    }

    /// Another block, `ms` later. History lags two blocks behind, as behind a node's.
    pub fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.height = self.height.next();
        self.log.visible = Height(self.height.0.saturating_sub(2));
        self.book.forget(self.log.visible);
    }

    pub fn sweep(&mut self) {
        while let Some(entry) = self.book.due(BlockTime(self.now), 1_000) {
            self.record(&entry);
        }
    }

    pub fn prove(&mut self, request: Request) -> Result<Command, Refusal> {
        match self.prover.prove(request)? {
            Proven::Command(command) => Ok(command),
            other => panic!("no command: {other:?}"),
        }
    }

    /// Does what a node does with a command.
    pub fn decide(&mut self, command: &Command) -> Result<Arc<Entry>, Refusal> {
        self.sweep();
        let at = BlockTime(self.now);
        match self.book.decide(command, at, &self.log)? {
            Decision::Entry(entry) => {
                self.record(&entry);
                Ok(Arc::new(entry))
            }
            Decision::Repeat(entry) => Ok(entry),
            Decision::Payout(plan) => {
                let mut draft = Draft::transfer(plan.token()).metadata(plan.metadata());
                for output in plan.inputs() {
                    draft = draft.spend(output, &self.holder);
                }
                draft = draft.output(
                    plan.amount(),
                    daybook_ledger::condition::Details::Key(plan.pay_to()),
                );
                if plan.change() > 0 {
                    draft = draft.output(plan.change(), &self.holder);
                }
                let transfer = draft.sign(&[&self.holder]).unwrap();
                assert_eq!(self.book.meets(&transfer), Meets::Spends);
                let entry = plan.entry(&transfer);
                self.record(&entry);
                Ok(Arc::new(entry))
            }
        }
    }

    /// The text of the answer to a command.
    pub fn send(&mut self, request: Request) -> Result<Value, Refusal> {
        let command = self.prove(request.clone())?;
        let entry = self.decide(&command)?;
        let text = reply::recorded(&request, &entry, &self.tracker.pem)?;
        Ok(text.parse().unwrap())
    }

    /// The code that a command is refused with.
    pub fn refused(&mut self, request: Request) -> &'static str {
        self.sweep();
        let before = self.book.encode();
        let code = self.send(request).expect_err("it must be refused").code;
        assert!(before == self.book.encode(), "nothing changes");
        code.as_str()
    }

    pub fn open(&mut self, code: u64, peer: &Peer) -> Address {
        let request = peer.request(code, &*peer.pem);
        let answer = self.send(request).unwrap();
        Address::parse(text(&answer, &["address"])).unwrap()
    }

    pub fn spend(&mut self, peer: &Peer) -> Address {
        self.open(command::OPEN_SPEND, peer)
    }

    pub fn income(&mut self, peer: &Peer) -> Address {
        self.open(command::OPEN_INCOME, peer)
    }

    pub fn open_transfer(
        &mut self,
        contract: &Contract,
        from: &Peer,
        to: &Peer,
    ) -> Result<Value, Refusal> {
        self.send(open_request(contract, from, to))
    }

    pub fn close_transfer(
        &mut self,
        contract: &Contract,
        settled: Settled,
        from: &Peer,
        to: &Peer,
    ) -> Result<Value, Refusal> {
        self.send(close_request(contract, settled, from, to))
    }

    pub fn close(&mut self, address: &Address, peer: &Peer) -> Result<Value, Refusal> {
        self.send(close_address(address, peer))
    }

    pub fn state(&self, address: &Address) -> Result<AddressState, Refusal> {
        let now = BlockTime(self.now);
        let state = self.book.address_state(address, now, &self.log)?;
        // Whatever was or was not swept, a question gets the same answer.
        let mut swept = self.book.clone();
        while let Some(entry) = swept.due(now, 3) {
            swept.record(&entry, self.height).unwrap();
        }
        assert_eq!(
            swept.address_state(address, now, &self.log).as_ref(),
            Ok(&state)
        );
        Ok(state)
    }

    pub fn channel(&self, id: &str) -> u8 {
        let now = BlockTime(self.now);
        self.book.channel_state(id, now, &self.log).code()
    }

    pub fn records(&self) -> u64 {
        self.book.sequence()
    }

    /// A book made of the log alone.
    pub fn replay(&self) -> Book {
        let mut book = Book::default();
        for (height, entry) in &self.log.entries {
            book.record(&Entry::read(entry.text().clone()).unwrap(), *height)
                .unwrap();
        }
        book.forget(self.log.visible);
        book
    }

    pub fn tracker_id(&self) -> TrackerId {
        self.tracker.key().hash()
    }

    pub fn version2<'a>(&self, correlation: &'a str, nonce: u8) -> draft::Version2<'a> {
        draft::Version2 {
            correlation,
            tracker: self.tracker_id(),
            time_ms: self.now,
            nonce: [nonce; 16],
        }
    }
}

pub fn open_request(contract: &Contract, from: &Peer, to: &Peer) -> Request {
    let text = draft::open_transfer(contract, &from.pem, &to.pem, None);
    cosigned(command::OPEN_TRANSFER, text, from, to)
}

pub fn close_request(contract: &Contract, settled: Settled, from: &Peer, to: &Peer) -> Request {
    let text = draft::close_transfer(contract, &settled, &from.pem, &to.pem, None);
    cosigned(command::CLOSE_TRANSFER, text, from, to)
}

pub fn close_address(address: &Address, peer: &Peer) -> Request {
    let code = if address.as_str().starts_with("0x0c") {
        command::CLOSE_SPEND
    } else {
        command::CLOSE_INCOME
    };
    peer.request(code, draft::about_address(code, address, &peer.pem, None))
}

/// A contract at the usual price: 500 for 2^25 bytes.
pub fn contract(id: &str, from: &Address, to: &Address, planned: u64) -> Contract {
    Contract {
        channel: id.into(),
        from: from.text().clone(),
        to: to.text().clone(),
        price: Price {
            amount: 500,
            power: 25,
        },
        planned,
    }
}

pub fn settled(count: u64, volume: u64) -> Settled {
    Settled {
        count,
        tokens: 500 * count,
        volume,
    }
}

pub fn member<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |value, name| {
        value
            .as_object()
            .and_then(|object| object.get(name))
            .unwrap_or_else(|| panic!("no {name}"))
    })
}

pub fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    member(value, path).as_str().unwrap()
}

pub fn number(value: &Value, path: &[&str]) -> u64 {
    member(value, path).as_u64().unwrap()
}

/// The code of a refusal.
pub fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("it must be refused").code.as_str()
}
