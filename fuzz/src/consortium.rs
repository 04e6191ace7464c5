//! A small consortium for the fuzz targets to act upon.

use std::{collections::BTreeMap, sync::Arc};

use daybook_ledger::{
    BlockTime, Height, SigningKey,
    block::{Genesis, Validator},
    consortium::{
        Action, Batch, Body, Book, Card, DEPTH_MAX, Decision, Did, Documents, Endorser,
        EndorserRules, Entry, History, IndexKey, Keys, Policy, Profile, Propose, Prover, Request,
        Settings, export, sign_entry,
    },
    json::{Object, Value},
};

/// The time of everything, in milliseconds.
pub const NOW: u64 = 1_700_000_000_000;

/// Two members who share a ledger, and a proposal that is open.
pub struct Stage {
    /// Its state.
    pub book: Book,
    /// Proves requests for it.
    pub prover: Prover,
    /// Everything recorded.
    pub entries: Vec<Entry>,
    /// The ledger, exported.
    pub export: String,
    /// The keys to check it by.
    pub keys: Keys,
    /// Entries of ledgers.
    pub documents: Vec<String>,
}

#[derive(Default)]
struct Archive(BTreeMap<String, Entry>);

impl History for Archive {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        self.0.get(&format!("{key:?}")).cloned().map(Arc::new)
    }
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::new()
    }
}

impl Stage {
    /// Always the same.
    pub fn new() -> Stage {
        let [validator, alice, bob] = [9, 1, 2].map(|seed| SigningKey::from_seed([seed; 32]));
        let genesis = Genesis {
            chain: "fuzz".to_owned(),
            time: BlockTime(NOW),
            validators: vec![Validator {
                key: validator.public_key(),
                power: 1,
            }],
        };
        let card = |key: &SigningKey| {
            let profile = Profile {
                label: "member".to_owned(),
                ..Profile::default()
            };
            Card::first(profile, key)
        };
        let [a, b] = [&alice, &bob].map(|key| Did::of(&key.public_key()));
        let prover = Prover::new(&genesis);
        let mut book = Book::default();
        let mut archive = Archive::default();
        let mut entries = Vec::new();
        let mut submit = |book: &mut Book, request: Request, archive: &mut Archive| {
            let command = prover.clone().prove(request).expect("it is sound");
            let decision = book.decide(&command, BlockTime(NOW), archive);
            let Ok(Decision::Entry(entry)) = decision else {
                panic!("it is new and sound");
            };
            book.record(&entry, Height(1)).expect("it was decided");
            entry.index_keys(&mut |key| {
                archive.0.insert(format!("{key:?}"), entry.clone());
            });
            entries.push(entry.clone());
            entry
        };
        let network = genesis.hash();
        let founding = Body::Found {
            members: vec![card(&alice), card(&bob)],
            settings: Settings {
                documents: Documents::Any,
                ..Settings::default()
            },
        };
        let request = Request::sign(network, &founding, &validator);
        submit(&mut book, request, &mut archive);

        let batch = || {
            let value = r#"{"no":"1","cargo":"чай","z":[null,true,-3]}"#.parse();
            let Ok(Value::Object(entry)) = value else {
                panic!("it is JSON");
            };
            let signed = sign_entry(entry, NOW / 1_000, &alice, DEPTH_MAX);
            Batch::new(&[signed.expect("nothing was signed before")])
        };
        let ledgers = vec!["CONT-1".to_owned()];
        let actions = [
            Action::Create {
                ledgers: ledgers.clone(),
                participants: vec![a, b],
                policy: Policy::Unanimous,
                batch: batch(),
            },
            Action::Append {
                ledgers: ledgers.clone(),
                batch: batch(),
            },
        ];
        let endorser = Endorser::new(b, EndorserRules::default(), Prover::new(&genesis));
        for (number, action) in actions.iter().chain(&actions[1..]).enumerate() {
            let body = Body::Propose(Propose {
                member: a,
                request: number.to_string(),
                deadline: BlockTime(NOW + 20_000),
                action: action.clone(),
            });
            let request = Request::sign(network, &body, &alice);
            let proposal = submit(&mut book, request, &mut archive);
            if let (Some(asked), 0..2) = (book.asked(&proposal.id(), b), number) {
                submit(&mut book, endorser.endorse(&asked, &bob), &mut archive);
            }
        }
        if let Some(asked) = book.questions(b).first() {
            let refusal = endorser.refuse(asked, "no", &bob);
            submit(&mut book, refusal, &mut archive);
        }
        let body = Body::Propose(Propose {
            member: a,
            request: "open".to_owned(),
            deadline: BlockTime(NOW + 20_000),
            action: actions[1].clone(),
        });
        submit(
            &mut book,
            Request::sign(network, &body, &alice),
            &mut archive,
        );

        let mut file = String::new();
        let ledger = book.ledger(&ledgers[0]).expect("it was agreed on");
        export(network, ledger, entries.clone(), &archive, &mut |line| {
            file.push_str(&line);
        })
        .expect("all of it is in the archive");
        Stage {
            keys: Keys::of(&book),
            book,
            prover: Prover::new(&genesis),
            entries,
            export: file,
            documents: documents(),
        }
    }
}

fn documents() -> Vec<String> {
    let whole = r#"{"@type":"https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/issue-transaction",
"@id":"1","no":"WB-1","date":"01.03.26","cargo":"rod","departure_station":"a","arrival_station":"b",
"doc_type":"WayBill","ledger":{"name":["CONT-1"]},"waybill":{"no":"118-K"},"~attach":[{"@id":"d",
"mime_type":"a/b","filename":"f","data":{"json":{"url":"u","md5":"6a2f41a3c54c8a3b7dd9c6c0c2d8f3aa"}}}]}"#;
    vec![whole.to_owned(), "{}".to_owned()]
}

/// The object that a text is, if it is one.
pub fn object(text: &[u8]) -> Option<Object> {
    match Value::parse(text, DEPTH_MAX) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}
