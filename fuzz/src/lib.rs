//! What fuzz targets share: transactions with their true ids, and a small tracker to act upon.

pub mod consortium;

use std::sync::Arc;

use daybook_ledger::{
    BlockTime, Draft, Height, SigningKey, canonical,
    json::Value,
    tracker::{
        Address, AddressKind, Book, Contract, Decision, Entry, History, IndexKey, Key, Payload,
        Price, Proven, Prover, Request, Settings, Settled, Suites, command, draft,
    },
};

/// The time of everything.
pub const NOW: BlockTime = BlockTime(1_700_000_000_000);

/// Command codes by the letter that stands for them in an input.
const COMMANDS: [(u8, u64); 16] = [
    (b'a', command::HANDSHAKE),
    (b'b', command::OPEN_INCOME),
    (b'c', command::OPEN_SPEND),
    (b'd', command::OPEN_TRANSFER),
    (b'e', command::CLOSE_TRANSFER),
    (b'f', command::CLOSE_INCOME),
    (b'g', command::CLOSE_SPEND),
    (b'h', command::INCOME_STATE),
    (b'i', command::TRANSFER_STATE),
    (b'j', command::FIRST_TRANSACTIONS),
    (b'k', command::NEXT_TRANSACTIONS),
    (b'l', command::COMMON_STATE),
    (b'm', command::SUBSCRIBE),
    (b'n', command::UNSUBSCRIBE),
    (b'o', command::PARK),
    (b'p', command::PAY_OUT),
];

/// The letter of a command.
pub fn letter(code: u64) -> u8 {
    let found = COMMANDS.iter().find(|(_, other)| *other == code);
    found.map_or(b'a', |(letter, _)| *letter)
}

/// The command of a letter.
pub fn code(letter: u8) -> Option<u64> {
    let found = COMMANDS.iter().find(|(other, _)| *other == letter);
    found.map(|(_, code)| *code)
}

/// A log that shows nothing: all of it is still in the book's short memory.
pub struct Nothing;

impl History for Nothing {
    fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
        None
    }
}

/// A tracker with a spend address, an income address, and a channel that is open.
pub struct Stage {
    /// Its state.
    pub book: Book,
    /// Everything recorded.
    pub entries: Vec<Entry>,
    /// A message of each kind, with its command.
    pub messages: Vec<(u64, String)>,
    /// Texts of the keys of payer and payee.
    pub peers: [String; 2],
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::new()
    }
}

impl Stage {
    /// Always the same.
    pub fn new() -> Stage {
        let [holder, tracker, alice, bob] = [1, 2, 3, 4].map(|i| SigningKey::from_seed([i; 32]));
        let [tracker, alice, bob] =
            [tracker, alice, bob].map(|key| Key::ed25519_pem(&key.public_key()));
        let token = Draft::create(Value::Null)
            .output(100_000, &holder)
            .sign(&[&holder])
            .expect("the draft is sound");
        let settings = Settings::new(tracker.clone(), token.id().as_asset(), holder.public_key());
        let id = Key::read(&tracker).expect("the key is sound").hash();
        let mut stage = Stage {
            book: Book::default(),
            entries: Vec::new(),
            messages: Vec::new(),
            peers: [alice.clone(), bob.clone()],
        };
        let entry = stage.book.configure(settings, NOW);
        stage.record(entry.expect("the settings are sound"));
        let entry = stage.book.deposit(&token, NOW);
        stage.record(entry);

        let spend = Address::channel_end(AddressKind::Spend, &tracker, &alice, NOW.0);
        let income = Address::channel_end(AddressKind::Income, &tracker, &bob, NOW.0);
        let contract = Contract {
            channel: "c1".into(),
            from: spend.text().clone(),
            to: income.text().clone(),
            price: Price {
                amount: 500,
                power: 25,
            },
            planned: 8,
        };
        let wallet = Address::common(&bob);
        let earning = Contract {
            channel: "c2".into(),
            to: wallet.text().clone(),
            ..contract.clone()
        };
        let end = Settled {
            count: 3,
            tokens: 1_500,
            volume: 100_000_000,
        };
        let version = draft::Version2 {
            correlation: "1",
            tracker: id,
            time_ms: NOW.0,
            nonce: [7; 16],
        };
        let pay_to = holder.public_key();
        let close = |contract: &Contract| draft::close_transfer(contract, &end, &alice, &bob, None);
        stage.messages = vec![
            (command::OPEN_SPEND, alice.clone()),
            (command::OPEN_INCOME, bob.clone()),
            (
                command::OPEN_TRANSFER,
                draft::open_transfer(&contract, &alice, &bob, None),
            ),
            (command::PARK, close(&contract)),
            (
                command::OPEN_TRANSFER,
                draft::open_transfer(&earning, &alice, &bob, Some(&id)),
            ),
            (command::CLOSE_TRANSFER, close(&earning)),
        ];
        for (code, message) in stage.messages.clone() {
            stage.act(code, message);
        }
        stage.messages.extend([
            (command::HANDSHAKE, alice.clone()),
            (
                command::CLOSE_SPEND,
                draft::about_address(command::CLOSE_SPEND, &spend, &alice, None),
            ),
            (
                command::CLOSE_INCOME,
                draft::about_address(command::CLOSE_INCOME, &income, &bob, Some(&version)),
            ),
            (
                command::PAY_OUT,
                draft::pay_out(&wallet, &pay_to, 7, &bob, &version),
            ),
            (
                command::TRANSFER_STATE,
                draft::channel_state("c1", &alice, None),
            ),
            (
                command::NEXT_TRANSACTIONS,
                draft::next_transactions("cursor", 2, &alice, None),
            ),
            (
                command::SUBSCRIBE,
                draft::subscribe(&[], &[&alice], Some(1), &alice, None),
            ),
            (
                command::FIRST_TRANSACTIONS,
                format!(
                    "{{\"limits\":{{\"page\":2,\"pageSize\":-1}},\"order\":1,\
                     \"fields\":{{\"tx_type\":{{\"value\":16}}}},\"pk\":\"{}\"}}",
                    alice.replace('\n', "\\n")
                ),
            ),
        ]);
        let expiry = stage.book.due(BlockTime(NOW.0 + 300_001), 100);
        stage.entries.extend(expiry);
        stage
    }

    fn record(&mut self, entry: Entry) {
        self.book
            .record(&entry, Height(1))
            .expect("the entry follows the book");
        self.entries.push(entry);
    }

    fn act(&mut self, code: u64, message: String) {
        let mut prover = Prover::new(Suites::default(), Vec::new());
        if let Some(id) = self.book.settings().map(Settings::ids) {
            prover = Prover::new(Suites::default(), id);
        }
        let Ok(Proven::Command(command)) = prover.restore(self.request(code, message)) else {
            panic!("the message is sound");
        };
        match self.book.decide(&command, NOW, &Nothing) {
            Ok(Decision::Entry(entry)) => self.record(entry),
            other => panic!("the command passes: {other:?}"),
        }
    }

    /// A request with this message, as the peers would send it but for the signatures.
    pub fn request(&self, code: u64, message: String) -> Request {
        let [alice, bob] = self.peers.clone();
        let cosigned = matches!(
            code,
            command::OPEN_TRANSFER | command::CLOSE_TRANSFER | command::PARK
        );
        let of_bob = matches!(
            code,
            command::OPEN_INCOME | command::CLOSE_INCOME | command::PAY_OUT
        );
        let payload = if cosigned {
            Payload::CoSigned {
                message,
                from_pk: alice,
                from_sign: String::new(),
                to_pk: bob,
                to_sign: String::new(),
            }
        } else {
            Payload::Single {
                message,
                pk: if of_bob { bob } else { alice },
                sign: String::new(),
            }
        };
        Request {
            command: code,
            correlation: "1".into(),
            idempotent: false,
            payload,
        }
    }
}

/// A transaction's text with the id that goes with it; `None` when it is no object.
pub fn with_its_id(bytes: &[u8]) -> Option<String> {
    let mut value = Value::parse(bytes, 512).ok()?;
    let Value::Object(transaction) = &mut value else {
        return None;
    };
    let text = canonical::text_for_id(transaction);
    transaction.insert("id", Value::Null);
    let id: String = canonical::sha3(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    transaction.insert("id", Value::from(id));
    Some(canonical::canon(&value))
}
