//! What readers find.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use daybook_ledger::{
    AssetId, Draft, Operation, Parser, Rules, Transaction, Version,
    json::{Object, Value},
};
use daybook_store::{SearchField, Store, Writer, disk::simulated::SimulatedDisk};
use support::*;

/// A store with one CREATE for each asset text, each in its own block.
struct Shelf {
    store: Store,
    writer: Writer,
    maker: Maker,
    names: Vec<(String, Transaction)>,
}

impl Shelf {
    fn new() -> Shelf {
        let (store, writer, _) = open(&SimulatedDisk::new(), small()).unwrap();
        Shelf {
            store,
            writer,
            maker: Maker::new(0),
            names: Vec::new(),
        }
    }

    fn put(&mut self, name: &str, draft: Draft) -> Transaction {
        let transaction = draft.sign(&[&key(1)]).unwrap();
        let made = self.maker.block(vec![transaction.clone()], Vec::new());
        put(&mut self.writer, &made).unwrap();
        self.names.push((name.to_owned(), transaction.clone()));
        transaction
    }

    fn asset(&mut self, name: &str, data: &str) -> Transaction {
        self.put(name, Draft::create(json(data)).output(1, &key(1)))
    }

    fn found(&self, field: SearchField, query: &str, limit: Option<usize>) -> String {
        let mut hits = Vec::new();
        let mut take = |id, text| {
            hits.push((id, text));
            true
        };
        self.store.search(field, query, limit, &mut take).unwrap();
        let name = |id| {
            &self
                .names
                .iter()
                .find(|(_, transaction)| transaction.id() == id)
                .unwrap()
                .0
        };
        for (id, text) in &hits {
            let transaction = Parser::new(Rules::default())
                .parse_stored(text.clone())
                .unwrap();
            assert_eq!(transaction.id(), *id);
        }
        hits.iter()
            .map(|(id, _)| name(*id).as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn check(&self, query: &str, wanted: &str) {
        assert_eq!(
            self.found(SearchField::Asset, query, None),
            wanted,
            "search for {query}"
        );
    }
}

#[test]
fn a_search_finds_words_and_ranks_by_terms_then_hits_then_age() {
    let mut shelf = Shelf::new();
    shelf.asset("hello", r#"{"msg":"Hello BigchainDB 1!"}"#);
    shelf.asset("twice", r#"{"msg":"bigchaindb, BIGCHAINDB"}"#);
    shelf.asset(
        "deep",
        r#"{"a":[{"b":["x",{"c":"the word bigchaindb is here"}]}]}"#,
    );
    shelf.asset("named", r#"{"bigchaindb":"only the name of the member"}"#);
    shelf.asset("call", r#"{"song":"Call me, maybe!"}"#);
    shelf.asset("maybe", r#"{"song":"maybe you call. maybe me"}"#);
    let last = shelf.asset("accents", r#"{"word":"Crème BRÛLÉE 日本"}"#);

    shelf.check("bigchaindb", "twice hello deep");
    shelf.check("BigChainDB!", "twice hello deep");
    shelf.check("hello bigchaindb", "hello twice deep");
    shelf.check("call me maybe", "maybe call");
    shelf.check("\"call me maybe\"", "call");
    shelf.check("maybe -song", "maybe call");
    shelf.check("maybe -you", "call");
    shelf.check("maybe -\"me maybe\"", "maybe");
    shelf.check("-maybe", "");
    shelf.check("creme", "accents");
    shelf.check("BRULEE 1", "hello accents");
    shelf.check("日本", "accents");
    shelf.check("nothing", "");
    shelf.check("...", "");
    shelf.check("", "");
    shelf.check(&last.id().to_string(), "accents");
    shelf.check(&format!("{} hello", last.id()), "hello accents");

    assert_eq!(
        shelf.found(SearchField::Asset, "bigchaindb", Some(2)),
        "twice hello"
    );
    assert_eq!(
        shelf.found(SearchField::Asset, "call me maybe", Some(1)),
        "maybe"
    );
    assert_eq!(shelf.found(SearchField::Metadata, "bigchaindb", None), "");
}

#[test]
fn a_search_keeps_places_and_reads_each_text_when_its_turn_comes() {
    let disk = SimulatedDisk::new();
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    let mut maker = Maker::new(0);
    for number in 0..3 {
        let lamp = Draft::create(Object::from_iter([("name", format!("lamp {number}"))]));
        let lamp = lamp.output(1, &key(1)).sign(&[&key(1)]).unwrap();
        put(&mut writer, &maker.block(vec![lamp], Vec::new())).unwrap();
    }
    let mut heard = 0;
    let found = store.search(SearchField::Asset, "lamp", None, &mut |_, _| {
        heard += 1;
        disk.fail_reads(true);
        true
    });
    disk.fail_reads(false);
    assert!(found.is_err() && heard == 1, "the second text was not kept");
    let mut heard = 0;
    let mut first_only = |_, _| {
        heard += 1;
        false
    };
    store
        .search(SearchField::Asset, "lamp", None, &mut first_only)
        .unwrap();
    assert_eq!(heard, 1);
    writer.close().unwrap();
}

#[test]
fn metadata_is_searched_apart_from_assets() {
    let mut shelf = Shelf::new();
    let lamp = shelf.asset("lamp", r#"{"kind":"lamp"}"#);
    let sale = Draft::transfer(lamp.asset())
        .spend(lamp.output_ref(0), &key(1))
        .output(1, &key(1))
        .metadata(json(r#"{"note":"lamp sold","to":["Bob"]}"#));
    shelf.put("sale", sale);
    assert_eq!(shelf.found(SearchField::Asset, "lamp", None), "lamp");
    assert_eq!(shelf.found(SearchField::Metadata, "lamp", None), "sale");
    assert_eq!(shelf.found(SearchField::Metadata, "bob", None), "sale");
    assert_eq!(shelf.found(SearchField::Asset, "bob", None), "");
}

#[test]
fn exact_strings_are_found_whole_and_only_whole() {
    let mut shelf = Shelf::new();
    let cid = "bafkreiignwcoye67vn6edp23mj4llhpzzkgyuefu7xesjzjxcv2bz3p4nq";
    let v3 = |data: &str| Draft::create(data).version(Version::V3).output(1, &key(1));
    shelf.put("first", v3(cid));
    shelf.put("other", v3("another"));
    shelf.put("second", v3(cid).metadata("kept"));
    shelf.asset("inside", &format!(r#"{{"cid":"{cid}"}}"#));
    let found = |field, cid: &str| {
        let mut names = Vec::new();
        let each = &mut |id, _| {
            names.push(
                shelf
                    .names
                    .iter()
                    .find(|(_, t)| t.id() == id)
                    .unwrap()
                    .0
                    .as_str(),
            );
            true
        };
        shelf.store.holding(field, cid, each).unwrap();
        names.join(" ")
    };
    assert_eq!(found(SearchField::Asset, cid), "first second");
    assert_eq!(found(SearchField::Asset, &cid[1..]), "");
    assert_eq!(found(SearchField::Metadata, "kept"), "second");
    assert_eq!(found(SearchField::Metadata, cid), "");
    let mut seen = 0;
    let each = &mut |_, _| {
        seen += 1;
        false
    };
    shelf.store.holding(SearchField::Asset, cid, each).unwrap();
    assert_eq!(seen, 1, "a reader that has enough is not read to further");
}

#[test]
fn an_asset_s_history_names_what_made_it_and_what_took_it_up() {
    let mut shelf = Shelf::new();
    let v3 = |data: &str| Draft::create(data).version(Version::V3).output(1, &key(1));
    let wheel = shelf.put("wheel", v3("wheel"));
    let frame = shelf.put("frame", v3("frame"));
    let bicycle = Draft::compose("bicycle", [wheel.asset(), frame.asset()])
        .spend(wheel.output_ref(0), &key(1))
        .spend(frame.output_ref(0), &key(1))
        .output(1, &key(1));
    let bicycle = shelf.put("bicycle", bicycle);
    let sale = Draft::transfer(bicycle.asset())
        .version(Version::V3)
        .spend(bicycle.output_ref(0), &key(1))
        .output(1, &key(1));
    let sale = shelf.put("sale", sale);
    let history = |asset: AssetId, operation, last_only| {
        let mut names = Vec::new();
        let each = &mut |_, id, _| {
            names.push(
                shelf
                    .names
                    .iter()
                    .find(|(_, t)| t.id() == id)
                    .unwrap()
                    .0
                    .as_str(),
            );
            true
        };
        shelf
            .store
            .transactions_of_asset(&asset, operation, last_only, each)
            .unwrap();
        names.join(" ")
    };
    assert_eq!(history(wheel.asset(), None, false), "wheel bicycle");
    assert_eq!(
        history(frame.asset(), Some(Operation::Create), false),
        "frame"
    );
    assert_eq!(history(bicycle.asset(), None, false), "bicycle sale");
    assert_eq!(history(bicycle.asset(), None, true), "sale");
    assert_eq!(history(bicycle.asset(), Some(Operation::Create), true), "");
    assert_eq!(
        history(sale.id().as_asset(), None, false),
        "",
        "a transfer makes no asset"
    );
    assert_eq!(history(AssetId([9; 32]), None, false), "");
}

#[test]
fn a_key_with_many_outputs_is_listed_in_commit_order_through_runs_and_memory() {
    let (store, mut writer, _) = open(&SimulatedDisk::new(), small()).unwrap();
    let mut maker = Maker::new(5);
    for block in 0..40 {
        let drafts = (0..20).map(|number| {
            let data = Value::from(Object::from_iter([("n", format!("{block} {number}"))]));
            Draft::create(data)
                .output(3, &key(2))
                .sign(&[&key(1)])
                .unwrap()
        });
        let made = maker.block(drafts.collect(), Vec::new());
        put(&mut writer, &made).unwrap();
    }
    let owner = key(2).public_key();
    let mut found = Vec::new();
    let each = &mut |output| {
        found.push(output);
        true
    };
    store.outputs_of_key(&owner, Some(false), each).unwrap();
    assert_eq!(found.len(), 800);
    assert_eq!(found, maker.naive.outputs_of_key(&owner, None));
    let mut first = Vec::new();
    let each = &mut |output| {
        first.push(output);
        first.len() < 10
    };
    store.outputs_of_key(&owner, None, each).unwrap();
    assert_eq!(first, found[..10]);
}

/// A store with one asset, `moves` TRANSFERs of it between keys 1 and 2, all with the same words in
/// their metadata, each in its own block.
fn well_travelled(moves: usize) -> (Store, Writer, Transaction) {
    let mut shelf = Shelf::new();
    let lamp = shelf.put("lamp", Draft::create("lamp").output(1, &key(1)));
    let mut last = lamp.clone();
    for number in 0..moves {
        let (from, to) = (key(1 + number as u8 % 2), key(2 - number as u8 % 2));
        let sale = Draft::transfer(lamp.asset())
            .spend(last.output_ref(0), &from)
            .output(1, &to)
            .metadata("sold");
        let transaction = sale.sign(&[&from]).unwrap();
        let made = shelf.maker.block(vec![transaction.clone()], Vec::new());
        put(&mut shelf.writer, &made).unwrap();
        last = transaction;
    }
    (shelf.store, shelf.writer, lamp)
}

#[test]
fn a_list_that_nobody_waits_for_is_left_at_the_next_candidate_even_if_none_belongs_to_it() {
    let (store, _writer, lamp) = well_travelled(100);
    let asset = lamp.asset();
    type Walk<'w> = (&'w str, Box<dyn Fn(&Store) + 'w>);
    let compose = Some(Operation::Compose);
    let both = [asset, AssetId([7; 32])];
    let owner = key(2).public_key();
    let walks: [Walk<'_>; 6] = [
        (
            "an asset's history, of which no move is a COMPOSE",
            Box::new(|store| {
                let each = &mut |_, _, _| true;
                store
                    .transactions_of_asset(&asset, compose, false, each)
                    .unwrap();
            }),
        ),
        (
            "its newest COMPOSE",
            Box::new(|store| {
                let each = &mut |_, _, _| true;
                store
                    .transactions_of_asset(&asset, compose, true, each)
                    .unwrap();
            }),
        ),
        (
            "the histories of two assets",
            Box::new(|store| {
                let each = &mut |_, _, _| true;
                store
                    .transactions_of_assets(&both, compose, false, each)
                    .unwrap();
            }),
        ),
        (
            "a key's unspent outputs, of which nearly all are spent",
            Box::new(|store| {
                store
                    .outputs_of_key(&owner, Some(false), &mut |_| true)
                    .unwrap();
            }),
        ),
        (
            "exact strings",
            Box::new(|store| {
                store
                    .holding(SearchField::Metadata, "sold", &mut |_, _| true)
                    .unwrap();
            }),
        ),
        (
            "words that exclude each other",
            Box::new(|store| {
                let nobody = &mut |_, _| panic!("nothing matches");
                store
                    .search(SearchField::Metadata, "sold -sold", None, nobody)
                    .unwrap();
            }),
        ),
    ];
    for (name, walk) in walks {
        let asked = Arc::new(AtomicUsize::new(0));
        let patient = store.while_wanted({
            let asked = asked.clone();
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                true
            }
        });
        walk(&patient);
        assert!(
            asked.load(Ordering::Relaxed) >= 50,
            "{name}: every candidate is asked for"
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let impatient = store.while_wanted({
            let asked = asked.clone();
            move || asked.fetch_add(1, Ordering::Relaxed) < 3
        });
        walk(&impatient);
        let asked = asked.load(Ordering::Relaxed);
        assert!(
            asked <= 8,
            "{name}: asked {asked} times, though nobody waited after 3"
        );
    }
}

#[test]
fn histories_of_several_assets_are_one_list_in_commit_order() {
    let seed = 11;
    let (store, mut writer, _) = open(&SimulatedDisk::new(), small()).unwrap();
    let mut maker = Maker::new(seed);
    for _ in 0..60 {
        let made = maker.random_block(8);
        put(&mut writer, &made).unwrap();
    }
    let naive = &maker.naive;
    let all: BTreeSet<AssetId> = naive
        .transactions
        .values()
        .map(|(_, t)| t.asset())
        .collect();
    let all: Vec<AssetId> = all.into_iter().collect();
    let mut dice = Dice(seed);
    for round in 0..60 {
        let assets: BTreeSet<AssetId> = (0..dice.below(9))
            .map(|_| all[dice.below(all.len())])
            .chain((round % 7 == 0).then_some(AssetId([round as u8; 32])))
            .collect();
        let assets: Vec<AssetId> = assets.into_iter().collect();
        for operation in [None, Some(Operation::Create), Some(Operation::Transfer)] {
            let mut wanted: Vec<_> = assets
                .iter()
                .flat_map(|asset| naive.transactions_of_asset(asset, operation))
                .map(|id| (naive.transactions[&id].0, id))
                .collect();
            wanted.sort_unstable();
            wanted.dedup();
            let list = |last_only| {
                let mut found = Vec::new();
                let each = &mut |position, id, _| {
                    found.push((position, id));
                    true
                };
                store
                    .transactions_of_assets(&assets, operation, last_only, each)
                    .unwrap();
                found
            };
            assert_eq!(list(false), wanted, "seed {seed}, round {round}");
            assert_eq!(
                list(true).first(),
                wanted.last(),
                "seed {seed}, round {round}"
            );
        }
    }
}
