//! The tracker's rules, one behaviour after the other. The numbers are those of the conformance
//! checklist (wallet tracker, section 18).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use daybook_ledger::{
    BlockTime, Height, SigningKey,
    tracker::{
        Address, AddressKind, Book, Cause, Code, Contract, Entry, Fact, Payload, Price, Proven,
        Request, Settled, command, draft,
    },
};

mod tracker_common;
use tracker_common::*;

const MIB_100: u64 = 100_000_000;
const QUANTUM: u64 = 1 << 25;

/// A payer with a spend address and a payee with an income address.
fn pair(world: &mut World) -> (Peer, Peer, Address, Address) {
    let (alice, bob) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = (world.spend(&alice), world.income(&bob));
    (alice, bob, spend, income)
}

/// 17
#[test]
fn the_worked_run_gives_every_number_of_its_table() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let row = |world: &World, expected: (u128, [u64; 3], Option<[u64; 2]>)| {
        let (wallet, [bal_s, lim_s, limq_s], income_row) = expected;
        assert_eq!(world.book.wallet(), wallet);
        let state = world.state(&spend).unwrap();
        assert_eq!(
            [state.amount, state.limit_amount, state.limit_quantum_volume],
            [bal_s, lim_s, limq_s]
        );
        if let Some(expected) = income_row {
            let state = world.state(&income).unwrap();
            assert_eq!([state.amount, state.limit_amount], expected);
        }
    };
    row(&world, (90_000, [10_000, 10_000, 0], Some([0, 0])));
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    row(
        &world,
        (90_000, [10_000, 6_000, 268_435_456], Some([0, 4_000])),
    );
    let c2 = contract("c2", &spend, &income, 13);
    let refusal = world.open_transfer(&c2, &alice, &bob).unwrap_err();
    assert_eq!(refusal.code, Code::InsufficientLimit);
    assert_eq!(refusal.to_string(), "planned cost 6500 exceeds limit 6000");
    row(
        &world,
        (90_000, [10_000, 6_000, 268_435_456], Some([0, 4_000])),
    );
    let c2 = contract("c2", &spend, &income, 12);
    world.open_transfer(&c2, &alice, &bob).unwrap();
    row(
        &world,
        (90_000, [10_000, 0, 671_088_640], Some([0, 10_000])),
    );
    let end = settled(3, MIB_100);
    world.close_transfer(&c1, end, &alice, &bob).unwrap();
    let after_close = (90_000, [8_500, 2_500, 503_316_480], Some([1_500, 7_500]));
    row(&world, after_close);
    let records = world.records();
    world.close_transfer(&c1, end, &alice, &bob).unwrap();
    assert_eq!(world.records(), records, "no record");
    row(&world, after_close);
    let more = settled(4, MIB_100);
    assert_eq!(
        code(world.close_transfer(&c1, more, &alice, &bob)),
        "already_closed"
    );
    assert_eq!(code(world.close(&spend, &alice)), "has_open_channels");
    row(&world, after_close);
    world.wait(300_001);
    row(
        &world,
        (90_000, [8_500, 8_500, 100_663_296], Some([1_500, 1_500])),
    );
    let state = world.close(&spend, &alice).unwrap();
    assert_eq!(text(&state, &["state", "amount"]), "8500");
    assert_eq!(number(&state, &["state", "quantumVolume"]), 100_663_296);
    assert_eq!(number(&state, &["state", "volume"]), MIB_100);
    assert_eq!(world.book.wallet(), 98_500);
    let state = world.close(&income, &bob).unwrap();
    assert_eq!(text(&state, &["state", "amount"]), "1500");
    assert_eq!(number(&state, &["state", "quantumVolume"]), 100_663_296);
    assert_eq!(number(&state, &["state", "volume"]), MIB_100);
    assert_eq!(world.book.wallet(), 100_000);
    assert_eq!(world.replay().encode(), world.book.encode(), "E11");
}

/// 10, 13 and 16
#[test]
fn an_income_address_opens_empty_at_the_least_price() {
    let mut world = World::new();
    let bob = Peer::ed25519(2);
    let answer = world
        .send(bob.request(command::OPEN_INCOME, &*bob.pem))
        .unwrap();
    let address = Address::parse(text(&answer, &["address"])).unwrap();
    assert_eq!(address.kind(), AddressKind::Income);
    assert_eq!(text(&answer, &["current", "amount"]), "0");
    assert_eq!(number(&answer, &["current", "quantumVolume"]), 0);
    assert_eq!(text(&answer, &["limit", "amount"]), "0");
    assert_eq!(text(&answer, &["price", "amount"]), "500");
    assert_eq!(number(&answer, &["price", "quantumPower"]), 25);
    assert_eq!(number(&answer, &["timelock"]), START + 1_800_000);
    assert_eq!(number(&answer, &["lifetime"]), 1_800_000);
    assert_eq!(text(&answer, &["pk"]), world.tracker.pem);
    // It is derived as clients can derive it.
    let derived = Address::channel_end(AddressKind::Income, &world.tracker.pem, &bob.pem, START);
    assert_eq!(address, derived);
    let state = daybook_ledger::tracker::reply::address_state(
        &world.state(&address).unwrap(),
        &world.tracker.pem,
    );
    assert!(!state.contains("lifetime") && state.contains("\"timelock\""));
}

/// 14
#[test]
fn a_spend_address_gets_the_grant_or_what_is_left_of_the_wallet() {
    let mut world = World::with(|settings| settings.spend_grant = 60_000);
    let alice = Peer::ed25519(1);
    let open = || alice.request(command::OPEN_SPEND, &*alice.pem);
    let first = world.send(open()).unwrap();
    assert_eq!(text(&first, &["current", "amount"]), "60000");
    assert_eq!(text(&first, &["limit", "amount"]), "60000");
    let second = world.send(open()).unwrap();
    assert_eq!(text(&second, &["current", "amount"]), "40000");
    let records = world.records();
    assert_eq!(world.refused(open()), "tracker_empty");
    assert_eq!(world.records(), records);
}

/// 15
#[test]
fn opens_of_one_key_in_one_millisecond_give_different_addresses() {
    let mut world = World::new();
    let alice = Peer::ed25519(1);
    let addresses: Vec<Address> = (0..4).map(|_| world.spend(&alice)).collect();
    for (i, address) in addresses.iter().enumerate() {
        assert!(!addresses[..i].contains(address));
    }
    let open = alice.request(command::OPEN_SPEND, &*alice.pem);
    assert_eq!(world.refused(open), "too_many_open");
    let bob = Peer::ed25519(2);
    for _ in 0..16 {
        world.income(&bob);
    }
    let open = bob.request(command::OPEN_INCOME, &*bob.pem);
    assert_eq!(world.refused(open), "too_many_open");
}

#[test]
fn a_key_cannot_open_and_close_addresses_faster_than_time_passes() {
    let mut world = World::new();
    let bob = Peer::ed25519(2);
    for _ in 0..=1_000 {
        let address = world.income(&bob);
        world.close(&address, &bob).unwrap();
    }
    let open = || bob.request(command::OPEN_INCOME, &*bob.pem);
    assert_eq!(world.refused(open()), "rate_limited");
    world.wait(1);
    world.send(open()).unwrap();
}

/// 18 and 19
#[test]
fn prices_are_bounded_by_both_addresses_in_lifted_comparison() {
    let mut world = World::with(|settings| {
        settings.income_price_min = 400;
        settings.spend_price_max = 600;
    });
    let (alice, bob, spend, income) = pair(&mut world);
    let mut opens = |id: &str, amount: u64, power: u8| {
        let price = Price { amount, power };
        let contract = Contract {
            price,
            ..contract(id, &spend, &income, 1)
        };
        match world.open_transfer(&contract, &alice, &bob) {
            Ok(_) => "ok",
            Err(refusal) => refusal.code.as_str(),
        }
    };
    assert_eq!(opens("a", 400, 25), "ok");
    assert_eq!(opens("b", 600, 25), "ok");
    assert_eq!(opens("c", 399, 25), "price_too_low");
    assert_eq!(opens("d", 601, 25), "price_too_high");
    assert_eq!(opens("e", 1_200, 26), "ok");
    assert_eq!(opens("f", 1_201, 26), "price_too_high");
    assert_eq!(opens("g", 799, 26), "price_too_low");
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    for (amount, expected) in [(16, "price_too_high"), (15, "price_too_low")] {
        let price = Price { amount, power: 20 };
        let contract = Contract {
            price,
            ..contract("h", &spend, &income, 1)
        };
        let refused = world.open_transfer(&contract, &alice, &bob);
        assert_eq!(code(refused), expected);
    }
}

/// 20
#[test]
fn a_channel_may_take_all_that_is_free_and_nothing_more() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let all = contract("all", &spend, &income, 20);
    let beyond = contract("beyond", &spend, &income, 21);
    assert_eq!(
        code(world.open_transfer(&beyond, &alice, &bob)),
        "insufficient_limit"
    );
    world.open_transfer(&all, &alice, &bob).unwrap();
    assert_eq!(world.state(&spend).unwrap().limit_amount, 0);
    let more = contract("more", &spend, &income, 1);
    assert_eq!(
        code(world.open_transfer(&more, &alice, &bob)),
        "insufficient_limit"
    );
}

/// 21 and 23
#[test]
fn an_identical_open_repeats_the_first_answer_also_after_the_close() {
    let mut world = World::with(|settings| settings.spend_lifetime_ms = 200_000);
    let (alice, bob, spend, income) = pair(&mut world);
    world.wait(1_000);
    let c1 = contract("c1", &spend, &income, 2);
    let first = world.open_transfer(&c1, &alice, &bob).unwrap();
    assert_eq!(
        number(&first, &["timelock"]),
        START + 200_000,
        "the nearest lock"
    );
    assert_eq!(number(&first, &["lifetime"]), 199_000);
    for _ in 0..4 {
        let records = world.records();
        assert_eq!(world.open_transfer(&c1, &alice, &bob).unwrap(), first);
        assert_eq!(world.records(), records);
        world.wait(10);
    }
    // A deposited receipt is a newer entry of the channel, and says the same.
    let close = draft::close_transfer(&c1, &settled(1, 5), &alice.pem, &bob.pem, None);
    world
        .send(cosigned(command::PARK, close, &alice, &bob))
        .unwrap();
    assert_eq!(world.open_transfer(&c1, &alice, &bob).unwrap(), first);
    world
        .close_transfer(&c1, settled(1, 5), &alice, &bob)
        .unwrap();
    for _ in 0..4 {
        assert_eq!(world.open_transfer(&c1, &alice, &bob).unwrap(), first);
        world.wait(10);
    }
    // Three channels that expire in one sweep are found in its one entry.
    let others: Vec<_> = (0..3)
        .map(|i| contract(&format!("o{i}"), &spend, &income, 1))
        .collect();
    let mut firsts = Vec::new();
    for other in &others {
        firsts.push(world.open_transfer(other, &alice, &bob).unwrap());
    }
    world.wait(200_001);
    world.sweep();
    for _ in 0..4 {
        for (other, first) in others.iter().zip(&firsts) {
            assert_eq!(&world.open_transfer(other, &alice, &bob).unwrap(), first);
        }
        world.wait(1);
    }
}

/// 22
#[test]
fn a_channel_id_names_one_contract_for_ever() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let carol = Peer::ed25519(3);
    let (other_spend, other_income) = (world.spend(&alice), world.income(&bob));
    let c1 = contract("c1", &spend, &income, 2);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let mut changed = vec![
        contract("c1", &other_spend, &income, 2),
        contract("c1", &spend, &other_income, 2),
        contract("c1", &spend, &Address::common("B"), 2),
        contract("c1", &spend, &income, 3),
    ];
    for price in [(501, 25), (500, 24)] {
        changed.push(Contract {
            price: Price {
                amount: price.0,
                power: price.1,
            },
            ..c1.clone()
        });
    }
    for closed in [false, true] {
        if closed {
            world
                .close_transfer(&c1, settled(0, 0), &alice, &bob)
                .unwrap();
            world.wait(1);
            world.wait(1);
            world.wait(1);
        }
        for other in &changed {
            assert_eq!(
                code(world.open_transfer(other, &alice, &bob)),
                "channel_conflict"
            );
        }
        assert_eq!(
            code(world.open_transfer(&c1, &alice, &carol)),
            "channel_conflict"
        );
        assert_eq!(
            code(world.open_transfer(&c1, &carol, &bob)),
            "channel_conflict"
        );
    }
}

/// 24 and 25
#[test]
fn a_close_pays_price_times_count_for_at_most_the_bytes_that_were_bought() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 4);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let before = world.state(&spend).unwrap();
    let wrong = [
        (settled(5, 0), "bad_count"),
        (settled(2, 2 * QUANTUM + 1), "bad_volume"),
        (
            Settled {
                tokens: 999,
                ..settled(2, 0)
            },
            "bad_amount",
        ),
    ];
    for (end, expected) in wrong {
        assert_eq!(code(world.close_transfer(&c1, end, &alice, &bob)), expected);
        assert_eq!(world.state(&spend).unwrap(), before);
    }
    world
        .close_transfer(&c1, settled(2, 2 * QUANTUM), &alice, &bob)
        .unwrap();
    let c2 = contract("c2", &spend, &income, 4);
    world.open_transfer(&c2, &alice, &bob).unwrap();
    world
        .close_transfer(&c2, settled(4, 1), &alice, &bob)
        .unwrap();
    let c3 = contract("c3", &spend, &income, 4);
    world.open_transfer(&c3, &alice, &bob).unwrap();
    world
        .close_transfer(&c3, settled(0, 0), &alice, &bob)
        .unwrap();
    let state = world.state(&spend).unwrap();
    assert_eq!((state.amount, state.limit_amount), (7_000, 7_000));
}

/// 27 and 28
#[test]
fn nobody_spends_or_closes_what_is_anothers() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let mallory = Peer::ed25519(66);
    let wallet = Address::common(&bob.pem);
    let theft = contract("t", &spend, &Address::common(&mallory.pem), 1);
    let accomplice = Peer::ed25519(67);
    assert_eq!(
        code(world.open_transfer(&theft, &mallory, &accomplice)),
        "not_owner"
    );
    let foreign_income = contract("f", &spend, &income, 1);
    assert_eq!(
        code(world.open_transfer(&foreign_income, &alice, &mallory)),
        "not_owner"
    );
    for (id, to) in [("c1", &income), ("c2", &wallet)] {
        let open = contract(id, &spend, to, 1);
        world.open_transfer(&open, &alice, &bob).unwrap();
        let cheap = settled(0, 0);
        assert_eq!(
            code(world.close_transfer(&open, cheap, &alice, &mallory)),
            "not_owner"
        );
        assert_eq!(
            code(world.close_transfer(&open, cheap, &mallory, &bob)),
            "not_owner"
        );
        let park = draft::close_transfer(&open, &cheap, &alice.pem, &mallory.pem, None);
        let park = cosigned(command::PARK, park, &alice, &mallory);
        assert_eq!(world.refused(park), "not_owner");
    }
}

/// 29
#[test]
fn no_product_wraps() {
    let mut world = World::new();
    let (alice, bob, spend, _) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    let minted = world.book.held();
    let mut opens = |amount: u64, power: u8, planned: u64| {
        let contract = Contract {
            price: Price { amount, power },
            ..contract("w", &spend, &wallet, planned)
        };
        code(world.open_transfer(&contract, &alice, &bob))
    };
    assert_eq!(opens(1 << 63, 0, 2), "overflow");
    assert_eq!(opens(1 << 63, 0, 1), "overflow");
    assert_eq!(opens(u64::MAX, 0, 1), "overflow");
    assert_eq!(opens((1 << 63) - 1, 0, 1), "price_too_high");
    assert_eq!(opens(0, 62, 2), "overflow");
    assert_eq!(opens(0, 63, 1), "bad_amount");
    assert_eq!(opens(0, 255, 1), "bad_amount");
    assert_eq!(opens(1, 0, 0), "bad_amount");
    assert_eq!(opens(1, 0, 1 << 53), "overflow");
    assert_eq!(world.book.held(), minted);
    assert_eq!(world.book.wallet(), 90_000);
}

#[test]
fn channels_for_nothing_cannot_wear_out_the_sums_of_an_address() {
    let mut world = World::new();
    let (alice, bob, spend, _) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    let free = |id: &str| Contract {
        price: Price {
            amount: 0,
            power: 62,
        },
        ..contract(id, &spend, &wallet, 1)
    };
    world.open_transfer(&free("a"), &alice, &bob).unwrap();
    assert_eq!(
        code(world.open_transfer(&free("b"), &alice, &bob)),
        "overflow"
    );
    let end = Settled {
        count: 1,
        ..Settled::default()
    };
    world.close_transfer(&free("a"), end, &alice, &bob).unwrap();
    assert_eq!(
        code(world.open_transfer(&free("b"), &alice, &bob)),
        "overflow"
    );
}

/// 30 and 31
#[test]
fn what_is_past_its_lock_is_over_at_once_and_pays_nothing() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 4);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let open_id = world.log.entries.last().unwrap().1.records()[0].id.clone();
    world.wait(300_000);
    assert_eq!(world.channel("c1"), 2, "usable up to the lock");
    assert_eq!(world.state(&spend).unwrap().limit_amount, 8_000);
    world.wait(1);
    assert_eq!(world.channel("c1"), 4);
    assert_eq!(world.state(&spend).unwrap().limit_amount, 10_000);
    assert_eq!(world.state(&income).unwrap().limit_amount, 0);
    assert_eq!(
        code(world.close_transfer(&c1, settled(1, 1), &alice, &bob)),
        "expired"
    );
    let (_, swept) = world.log.entries.last().unwrap();
    let [record] = swept.records() else { panic!() };
    let Fact::CloseTransfer {
        settled: end,
        cause,
        ..
    } = &record.fact
    else {
        panic!()
    };
    assert_eq!((*end, *cause), (Settled::default(), Cause::Expiry));
    assert_eq!(record.parent_id(), &*open_id);
    let records = world.records();
    world
        .close_transfer(&c1, settled(0, 0), &alice, &bob)
        .expect("a close that equals the expiry is a repetition of it");
    assert_eq!(world.records(), records);
    for _ in 0..3 {
        world.wait(1);
        assert_eq!(
            code(world.close_transfer(&c1, settled(1, 1), &alice, &bob)),
            "expired"
        );
        assert_eq!(world.channel("c1"), 4);
    }
}

#[test]
fn an_address_past_its_lock_is_swept_and_told_as_expired() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    world.wait(1_800_000);
    world.state(&spend).unwrap();
    world.wait(1);
    for _ in 0..4 {
        assert_eq!(code(world.state(&spend)), "expired");
        assert_eq!(code(world.close(&spend, &alice)), "expired");
        assert_eq!(code(world.close(&income, &bob)), "expired");
        let late = contract("late", &spend, &income, 1);
        assert_eq!(code(world.open_transfer(&late, &alice, &bob)), "expired");
        world.wait(1);
    }
    assert_eq!(world.book.wallet(), 100_000);
    let none = Address::channel_end(AddressKind::Spend, "T", "nobody", 1);
    assert_eq!(code(world.state(&none)), "not_found");
    assert_eq!(code(world.close(&none, &alice)), "not_found");
}

/// 32 and 33
#[test]
fn an_address_is_closed_once_by_its_owner_when_nothing_is_open_on_it() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let (c1, c2) = (
        contract("c1", &spend, &income, 1),
        contract("c2", &spend, &income, 1),
    );
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world.open_transfer(&c2, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(0, 0), &alice, &bob)
        .unwrap();
    assert_eq!(code(world.close(&spend, &alice)), "has_open_channels");
    assert_eq!(code(world.close(&income, &bob)), "has_open_channels");
    world
        .close_transfer(&c2, settled(1, 0), &alice, &bob)
        .unwrap();
    assert_eq!(code(world.close(&spend, &bob)), "not_owner");
    assert_eq!(code(world.close(&income, &alice)), "not_owner");
    world.close(&spend, &alice).unwrap();
    world.close(&income, &bob).unwrap();
    for _ in 0..4 {
        assert_eq!(code(world.close(&spend, &alice)), "already_closed");
        assert_eq!(code(world.state(&spend)), "already_closed");
        assert_eq!(code(world.state(&income)), "already_closed");
        world.wait(1);
    }
}

/// 10
#[test]
fn commands_and_record_types_number_the_closes_the_other_way_round() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    world.close(&spend, &alice).unwrap();
    world.close(&income, &bob).unwrap();
    let types: Vec<u8> = world
        .log
        .entries
        .iter()
        .flat_map(|(_, entry)| entry.records().to_vec())
        .map(|record| record.record_type().code())
        .collect();
    assert_eq!(types, [1, 4, 2, 32, 64]);
    let wrong = alice.request(
        command::CLOSE_INCOME,
        draft::about_address(command::CLOSE_INCOME, &spend, &alice.pem, None),
    );
    assert_eq!(world.refused(wrong), "bad_address");
}

/// 34
#[test]
fn a_channel_is_unknown_then_open_then_closed() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    assert_eq!(world.channel("c1"), 1);
    let c1 = contract("c1", &spend, &income, 1);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    for _ in 0..4 {
        assert_eq!(world.channel("c1"), 2);
        world.wait(1);
    }
    world
        .close_transfer(&c1, settled(0, 0), &alice, &bob)
        .unwrap();
    for _ in 0..4 {
        assert_eq!(world.channel("c1"), 4);
        world.wait(1);
    }
    assert_eq!(world.channel(spend.as_str()), 1, "an address is no channel");
    let odd = Contract {
        channel: spend.text().clone(),
        ..c1
    };
    assert_eq!(code(world.open_transfer(&odd, &alice, &bob)), "bad_message");
}

/// 35
#[test]
fn a_wallet_is_promised_the_plan_and_gets_the_fact() {
    let mut world = World::new();
    let (alice, bob, spend, _) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    let state = |world: &World| {
        let now = BlockTime(world.now);
        let state = world.book.common_state(&wallet, now, &world.log).unwrap();
        (state.fact, state.plan, state.profit)
    };
    assert_eq!(state(&world), (0, 0, 0));
    let c1 = contract("c1", &spend, &wallet, 12);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    assert_eq!(state(&world), (0, 6_000, 0));
    world
        .close_transfer(&c1, settled(3, MIB_100), &alice, &bob)
        .unwrap();
    assert_eq!(state(&world), (1_500, 0, 0));
    let c2 = contract("c2", &spend, &wallet, 2);
    world.open_transfer(&c2, &alice, &bob).unwrap();
    assert_eq!(state(&world), (1_500, 1_000, 0));
    world.wait(300_001);
    assert_eq!(state(&world), (1_500, 0, 0), "a plan ends with its lock");
}

/// 43
#[test]
fn the_trackers_own_wallet_is_never_paid() {
    let mut world = World::new();
    let (alice, bob, spend, _) = pair(&mut world);
    let pem = world.tracker.pem.clone();
    let own = Address::common(&pem);
    let old = Address::parse(&format!("0x0b{}", &own.as_str()[own.as_str().len() - 40..]));
    let with_newline = Address::common(&format!("{pem}\n"));
    for (i, address) in [own, old.unwrap(), with_newline].iter().enumerate() {
        let c = contract(&format!("c{i}"), &spend, address, 1);
        assert_eq!(code(world.open_transfer(&c, &alice, &bob)), "bad_address");
    }
    world.spend(&bob);
}

#[test]
fn an_address_carries_a_bounded_number_of_channels_but_a_wallet_any() {
    let mut world = World::with(|settings| settings.open_transfers_max = 2);
    let (alice, bob, spend, income) = pair(&mut world);
    let carol = Peer::ed25519(3);
    let other = world.spend(&carol);
    for id in ["a", "b"] {
        let open = contract(id, &spend, &income, 1);
        world.open_transfer(&open, &alice, &bob).unwrap();
    }
    let third = contract("c", &spend, &Address::common("B"), 1);
    assert_eq!(
        code(world.open_transfer(&third, &alice, &bob)),
        "too_many_open"
    );
    let third = contract("c", &other, &income, 1);
    assert_eq!(
        code(world.open_transfer(&third, &carol, &bob)),
        "too_many_open"
    );
    for id in ["d", "e"] {
        let open = contract(id, &other, &Address::common("B"), 1);
        world.open_transfer(&open, &carol, &bob).unwrap();
    }
}

/// 26
#[test]
fn the_first_close_wins() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 4);
    assert_eq!(
        code(world.close_transfer(&c1, settled(1, 1), &alice, &bob)),
        "not_found"
    );
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(1, 1), &alice, &bob)
        .unwrap();
    for _ in 0..4 {
        let records = world.records();
        world
            .close_transfer(&c1, settled(1, 1), &alice, &bob)
            .unwrap();
        for end in [settled(2, 1), settled(0, 0), settled(1, 0)] {
            assert_eq!(
                code(world.close_transfer(&c1, end, &alice, &bob)),
                "already_closed"
            );
        }
        assert_eq!(world.records(), records);
        world.wait(1);
    }
}

/// 17.7: both signed the older text as well, and whoever saw it may send it.
#[test]
fn a_close_below_the_deposited_receipt_is_refused_and_the_deposited_one_or_more_is_taken() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    for (id, end) in [("same", settled(5, 9)), ("more", settled(6, 9))] {
        let terms = contract(id, &spend, &income, 8);
        world.open_transfer(&terms, &alice, &bob).unwrap();
        for deposited in [settled(2, 9), settled(5, 9)] {
            let text = draft::close_transfer(&terms, &deposited, &alice.pem, &bob.pem, None);
            let park = cosigned(command::PARK, text, &alice, &bob);
            world.send(park).unwrap();
        }
        for older in [settled(0, 0), settled(2, 9), settled(5, 8)] {
            let close = world.close_transfer(&terms, older, &alice, &bob);
            assert_eq!(code(close), "bad_count");
        }
        world.close_transfer(&terms, end, &alice, &bob).unwrap();
    }
    assert_eq!(world.state(&income).unwrap().amount, 11 * 500);
}

/// 49
#[test]
fn the_best_deposited_receipt_is_executed_at_the_lock() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    let park = |end: Settled| {
        let text = draft::close_transfer(&c1, &end, &alice.pem, &bob.pem, None);
        cosigned(command::PARK, text, &alice, &bob)
    };
    assert_eq!(world.refused(park(settled(1, 1))), "not_found");
    world.open_transfer(&c1, &alice, &bob).unwrap();
    assert_eq!(world.refused(park(settled(0, 0))), "bad_count");
    assert_eq!(world.refused(park(settled(9, 0))), "bad_count");
    world.send(park(settled(3, MIB_100))).unwrap();
    let entries = world.log.entries.len();
    world.send(park(settled(3, MIB_100))).expect("a repetition");
    assert_eq!(world.log.entries.len(), entries);
    assert_eq!(world.refused(park(settled(2, 1))), "bad_count");
    world.send(park(settled(4, MIB_100))).unwrap();
    assert_eq!(world.refused(park(settled(3, MIB_100))), "bad_count");
    assert_eq!(world.state(&spend).unwrap().limit_amount, 6_000);
    world.wait(300_001);
    let state = world.state(&income).unwrap();
    assert_eq!((state.amount, state.volume), (2_000, MIB_100));
    assert_eq!(world.state(&spend).unwrap().limit_amount, 8_000);
    world.sweep();
    let (_, swept) = world.log.entries.last().unwrap();
    let Fact::CloseTransfer { cause, .. } = &swept.records()[0].fact else {
        panic!()
    };
    assert_eq!(*cause, Cause::Parked);
    assert_eq!(world.refused(park(settled(5, MIB_100))), "expired");
    world.send(park(settled(4, MIB_100))).expect("a repetition");
    assert_eq!(
        code(world.close_transfer(&c1, settled(5, MIB_100), &alice, &bob)),
        "expired"
    );
    // A close before the lock goes first.
    let c2 = contract("c2", &spend, &income, 8);
    world.open_transfer(&c2, &alice, &bob).unwrap();
    let text = draft::close_transfer(&c2, &settled(1, 1), &alice.pem, &bob.pem, None);
    world
        .send(cosigned(command::PARK, text, &alice, &bob))
        .unwrap();
    world
        .close_transfer(&c2, settled(2, 1), &alice, &bob)
        .unwrap();
    world.wait(300_001);
    world.sweep();
    assert_eq!(world.state(&income).unwrap().amount, 3_000);
}

/// 46
#[test]
fn a_version_2_message_counts_once_for_its_command_tracker_and_time() {
    let mut world = World::new();
    let (alice, _, spend, _) = pair(&mut world);
    let send_as = |message: String, code: u64, correlation: &str| Request {
        correlation: correlation.into(),
        ..alice.request(code, message)
    };
    let get = draft::about_address(
        command::SPEND_STATE,
        &spend,
        &alice.pem,
        Some(&world.version2("q", 1)),
    );
    let as_query = world
        .prover
        .prove(send_as(get.clone(), command::SPEND_STATE, "q"));
    assert!(matches!(as_query, Ok(Proven::Query(_))));
    let as_close = send_as(get, command::CLOSE_SPEND, "q");
    assert_eq!(world.refused(as_close), "bad_message");
    let close = |world: &World, correlation, nonce| {
        let version = world.version2(correlation, nonce);
        draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&version))
    };
    let text = close(&world, "x", 1);
    let other_token = send_as(text.clone(), command::CLOSE_SPEND, "y");
    assert_eq!(world.refused(other_token), "bad_message");
    let mut elsewhere = world.version2("x", 1);
    elsewhere.tracker.0[0] ^= 1;
    let elsewhere =
        draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&elsewhere));
    let elsewhere = send_as(elsewhere, command::CLOSE_SPEND, "x");
    assert_eq!(world.refused(elsewhere), "bad_message");
    // Six minutes old, and six minutes ahead.
    world.wait(360_000);
    let old = send_as(text, command::CLOSE_SPEND, "x");
    assert_eq!(world.refused(old), "stale");
    let mut ahead = world.version2("x", 1);
    ahead.time_ms += 300_001;
    let ahead = draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&ahead));
    assert_eq!(
        world.refused(send_as(ahead, command::CLOSE_SPEND, "x")),
        "stale"
    );
    // A nonce counts once, for ten minutes.
    let open = |world: &World, correlation, nonce| {
        let version = world.version2(correlation, nonce);
        let text = draft::bare(command::OPEN_INCOME, &alice.pem, Some(&version));
        send_as(text, command::OPEN_INCOME, correlation)
    };
    let request = open(&world, "n1", 7);
    world.send(request).unwrap();
    let request = open(&world, "n2", 7);
    assert_eq!(world.refused(request), "replayed");
    world.wait(600_001);
    let request = open(&world, "n2", 7);
    world.send(request).unwrap();
}

/// 47
#[test]
fn an_idempotent_request_gets_its_first_answer_for_a_day() {
    let mut world = World::new();
    let alice = Peer::ed25519(1);
    let request = Request {
        idempotent: true,
        correlation: "open-7".into(),
        ..alice.request(command::OPEN_SPEND, &*alice.pem)
    };
    let first = world.send(request.clone()).unwrap();
    for _ in 0..4 {
        assert_eq!(world.send(request.clone()).unwrap(), first);
        world.wait(10);
    }
    assert_eq!(world.book.wallet(), 90_000, "no second grant");
    let other = Request {
        command: command::OPEN_INCOME,
        ..request.clone()
    };
    assert_eq!(world.refused(other), "corr_token_reuse");
    let legacy = Request {
        idempotent: false,
        ..request.clone()
    };
    assert_ne!(
        world.send(legacy).unwrap(),
        first,
        "legacy tokens mean nothing"
    );
    let bob = Peer::ed25519(2);
    let of_bob = Request {
        correlation: "open-7".into(),
        idempotent: true,
        ..bob.request(command::OPEN_SPEND, &*bob.pem)
    };
    world.send(of_bob).expect("tokens are each key's own");
    world.wait(24 * 3_600_000 - 40);
    assert_eq!(world.send(request.clone()).unwrap(), first);
    world.wait(1);
    assert_ne!(world.send(request).unwrap(), first);
}

#[test]
fn a_version_2_command_sent_again_is_answered_again_even_when_it_is_old() {
    let mut world = World::new();
    let alice = Peer::ed25519(1);
    let spend = world.spend(&alice);
    let version = world.version2("close", 3);
    let text = draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&version));
    let request = Request {
        correlation: "close".into(),
        ..alice.request(command::CLOSE_SPEND, text)
    };
    let first = world.send(request.clone()).unwrap();
    world.wait(3_600_000);
    assert_eq!(world.send(request).unwrap(), first);
}

#[test]
fn a_strict_tracker_takes_replayable_commands_in_version_2_only() {
    let mut world = World::with(|settings| settings.strict_v2 = true);
    let alice = Peer::ed25519(1);
    let open = alice.request(command::OPEN_SPEND, &*alice.pem);
    assert_eq!(world.refused(open), "bad_message");
    let version = world.version2("1", 1);
    let text = draft::bare(command::OPEN_SPEND, &alice.pem, Some(&version));
    let answer = world
        .send(alice.request(command::OPEN_SPEND, text))
        .unwrap();
    let spend = Address::parse(text_of(&answer)).unwrap();
    let close = close_address(&spend, &alice);
    assert_eq!(world.refused(close), "bad_message");
}

fn text_of(answer: &daybook_ledger::json::Value) -> &str {
    text(answer, &["address"])
}

fn payout(world: &World, peer: &Peer, address: &Address, amount: u64, nonce: u8) -> Request {
    let correlation = format!("pay-{nonce}");
    let version = world.version2(&correlation, nonce);
    let pay_to = SigningKey::from_seed([77; 32]).public_key();
    let text = draft::pay_out(address, &pay_to, amount, &peer.pem, &version);
    Request {
        correlation: correlation.clone(),
        ..peer.request(command::PAY_OUT, text)
    }
}

#[test]
fn earnings_are_paid_out_once_to_whoever_the_wallets_owner_names() {
    let mut world = World::new();
    let (alice, bob, spend, _) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    let c1 = contract("c1", &spend, &wallet, 12);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(3, MIB_100), &alice, &bob)
        .unwrap();
    let theft = payout(&world, &alice, &wallet, 1, 1);
    assert_eq!(world.refused(theft), "not_owner");
    let too_much = payout(&world, &bob, &wallet, 1_501, 2);
    assert_eq!(world.refused(too_much), "insufficient_limit");
    let nothing = payout(&world, &bob, &wallet, 0, 3);
    assert_eq!(world.refused(nothing), "bad_amount");
    let request = payout(&world, &bob, &wallet, 1_000, 4);
    let answer = world.send(request.clone()).unwrap();
    assert_eq!(text(&answer, &["state", "fact"]), "500");
    assert_eq!(text(&answer, &["state", "profit"]), "1000");
    assert_eq!(world.book.held(), 99_000);
    assert_eq!(
        world.send(request).unwrap(),
        answer,
        "sent again: the same answer"
    );
    assert_eq!(world.book.held(), 99_000);
    let rest = payout(&world, &bob, &wallet, 500, 5);
    world.send(rest).unwrap();
    // Nothing is owed any more: what was paid is known from history.
    for _ in 0..4 {
        let now = BlockTime(world.now);
        let state = world.book.common_state(&wallet, now, &world.log).unwrap();
        assert_eq!((state.fact, state.plan, state.profit), (0, 0, 1_500));
        world.wait(1);
    }
    let c2 = contract("c2", &spend, &wallet, 1);
    world.open_transfer(&c2, &alice, &bob).unwrap();
    world
        .close_transfer(&c2, settled(1, 1), &alice, &bob)
        .unwrap();
    let now = BlockTime(world.now);
    let state = world.book.common_state(&wallet, now, &world.log).unwrap();
    assert_eq!((state.fact, state.plan, state.profit), (500, 0, 1_500));
    let v1 = bob.request(
        command::PAY_OUT,
        draft::about_address(command::PAY_OUT, &wallet, &bob.pem, None),
    );
    assert_eq!(world.refused(v1), "bad_message");
    assert_eq!(world.replay().encode(), world.book.encode());
}

#[test]
fn a_payout_gathers_old_small_outputs_and_is_not_stopped_by_them() {
    let mut world = World::new();
    let (alice, bob, spend, _) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    let c1 = contract("c1", &spend, &wallet, 20);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(20, 0), &alice, &bob)
        .unwrap();
    // The large output becomes the youngest: the change of a payout. Eighty units of dust are older.
    for _ in 0..80 {
        world.deposit(1);
    }
    let request = payout(&world, &bob, &wallet, 1, 1);
    world.send(request).unwrap();
    let outputs: Vec<u64> = world.book.holdings().map(|(_, amount)| amount).collect();
    assert_eq!(outputs.len(), 81);
    assert_eq!(outputs[80], 99_999);
    let request = payout(&world, &bob, &wallet, 5_000, 2);
    world.send(request).unwrap();
    let outputs: Vec<u64> = world.book.holdings().map(|(_, amount)| amount).collect();
    assert_eq!(outputs.len(), 80 - 63 + 1);
    assert_eq!(outputs.iter().sum::<u64>(), 100_080 - 5_001);
}

#[test]
fn only_the_token_under_the_holders_key_is_a_deposit() {
    use daybook_ledger::{Draft, json::Value, tracker::Meets};
    let mut world = World::new();
    let other = Draft::create(Value::Null)
        .output(5, &world.holder)
        .sign(&[&world.owner])
        .unwrap();
    assert_eq!(world.book.meets(&other), Meets::Nothing);
    let transfer = world.transfer(5);
    assert_eq!(world.book.meets(&transfer), Meets::Deposit { amount: 5 });
    assert_eq!(Book::default().meets(&transfer), Meets::Nothing);
    world.deposit(7);
    let (held, amount) = world.book.holdings().last().unwrap();
    assert_eq!(amount, 7);
    let theft = Draft::transfer(world.token)
        .spend(held, &world.holder)
        .output(7, &world.owner)
        .sign(&[&world.holder])
        .unwrap();
    assert_eq!(world.book.meets(&theft), Meets::Spends);
}

#[test]
fn settings_change_for_what_opens_later_and_never_who_the_tracker_is() {
    let mut world = World::new();
    let (_, bob, spend, _) = pair(&mut world);
    let mut settings = world.book.settings().unwrap().clone();
    let at = BlockTime(world.now);
    assert!(world.book.configure(settings.clone(), at).is_none());
    settings.spend_price_max = 700;
    let entry = world.book.configure(settings.clone(), at).unwrap();
    world.record(&entry);
    assert_eq!(world.state(&spend).unwrap().price.amount, 500);
    let later = world.spend(&bob);
    assert_eq!(world.state(&later).unwrap().price.amount, 700);
    let mut other = settings.clone();
    other.holder = bob_key();
    assert!(world.book.check_settings(&other).is_err());
    assert!(world.book.configure(other, at).is_none());
    settings.spend_grant = 0;
    assert!(world.book.check_settings(&settings).is_err());
}

fn bob_key() -> daybook_ledger::PublicKey {
    SigningKey::from_seed([9; 32]).public_key()
}

/// 45
#[test]
fn payers_and_payees_of_different_suites_trade_with_each_other() {
    let (rsa, ed25519, p256) = (Peer::rsa(), Peer::ed25519(1), Peer::p256());
    for (payer, payee) in [(&ed25519, &rsa), (&rsa, &p256), (&p256, &ed25519)] {
        let mut world = World::new();
        let (spend, income) = (world.spend(payer), world.income(payee));
        let c1 = contract("c1", &spend, &income, 2);
        world.open_transfer(&c1, payer, payee).unwrap();
        world
            .close_transfer(&c1, settled(1, 9), payer, payee)
            .unwrap();
        assert_eq!(world.state(&income).unwrap().amount, 500);
    }
}

#[test]
fn a_snapshot_goes_on_where_the_book_left_off() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    for (id, to) in [("c1", &income), ("c2", &wallet), ("c3", &income)] {
        world
            .open_transfer(&contract(id, &spend, to, 2), &alice, &bob)
            .unwrap();
    }
    let c1 = contract("c1", &spend, &income, 2);
    world
        .close_transfer(&c1, settled(1, 9), &alice, &bob)
        .unwrap();
    let bytes = world.book.encode();
    let book = Book::decode(&bytes).unwrap();
    assert_eq!(book.encode(), bytes);
    world.book = book;
    assert_eq!(
        code(world.close_transfer(&c1, settled(2, 9), &alice, &bob)),
        "already_closed"
    );
    world.wait(300_001);
    world.sweep();
    assert_eq!(world.replay().encode(), world.book.encode());
    for length in 0..bytes.len() {
        assert!(Book::decode(&bytes[..length]).is_err());
    }
    assert!(Book::decode(&[&bytes[..], &[0]].concat()).is_err());
    for place in (0..bytes.len()).step_by(3) {
        let mut spoilt = bytes.clone();
        spoilt[place] ^= 1;
        // It may be another sound book, but never a fault.
        let _ = Book::decode(&spoilt);
    }
}

#[test]
fn a_book_refuses_entries_that_break_an_invariant() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let before = world.book.clone();
    world
        .close_transfer(&c1, settled(3, MIB_100), &alice, &bob)
        .unwrap();
    let (_, entry) = world.log.entries.last().unwrap();
    let text = String::from_utf8(entry.text().to_vec()).unwrap();
    let breaks = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        let entry = Entry::read(bytes::Bytes::from(changed)).unwrap();
        let violation = before.clone().record(&entry, Height(9)).unwrap_err();
        violation.invariant
    };
    let tokens = "\"amount\":\"1500\"";
    assert_eq!(breaks(tokens, "\"amount\":\"1000\""), "E4");
    assert_eq!(breaks("\"volume\":100000000", "\"volume\":100663297"), "E5");
    assert_eq!(breaks("\"seq\":5", "\"seq\":6"), "E11");
    assert_eq!(breaks("\"cause\":\"peers\"", "\"cause\":\"expiry\""), "E11");
    assert_eq!(
        breaks("\"contract_id\":\"c1\"", "\"contract_id\":\"c2\""),
        "E10"
    );
    assert_eq!(
        breaks("\"planned_quantum_count\":8", "\"planned_quantum_count\":9"),
        "E10"
    );
    let mut again = world.book.clone();
    assert!(
        again.record(entry, Height(9)).is_err(),
        "no entry counts twice"
    );
}

#[test]
fn listing_items_have_the_members_that_their_signature_covers_in_order() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(3, MIB_100), &alice, &bob)
        .unwrap();
    let (_, entry) = world.log.entries.last().unwrap();
    let record = &entry.records()[0];
    let pem = world.tracker.pem.replace('\n', "\\n");
    let item = record.listing(world.book.settings().unwrap());
    assert_eq!(
        item,
        format!(
            "{{\"amount\":1500,\"contract_id\":\"c1\",\"from\":\"{spend}\",\"tx_id\":\"{}\",\
             \"parent_tx_id\":\"{}\",\"planned_quantum_count\":8,\"price_amount\":500,\
             \"price_quantum_power\":25,\"pk\":\"{pem}\",\"quantum_count\":3,\"status\":1,\
             \"timelock\":0,\"timestamp\":{START},\"to\":\"{income}\",\"tx_type\":16,\
             \"version\":\"\",\"volume\":100000000}}",
            record.id,
            record.parent_id(),
        )
    );
    let signed = record.listed(&item, "SIGN");
    assert!(
        signed
            .ends_with(",\"sign\":\"SIGN\",\"amount_str\":\"1500\",\"price_amount_str\":\"500\"}")
    );
    assert!(signed.parse::<daybook_ledger::json::Value>().is_ok());
    // Ids of one millisecond differ.
    let ids: std::collections::BTreeSet<Arc<str>> = world
        .log
        .entries
        .iter()
        .flat_map(|(_, entry)| entry.records().to_vec())
        .map(|record| record.id)
        .collect();
    assert_eq!(ids.len() as u64, world.records());
}

#[test]
fn a_stored_command_can_be_proven_and_decided_again() {
    let mut world = World::new();
    let before = world.book.clone();
    let alice = Peer::ed25519(1);
    world.spend(&alice);
    let (_, entry) = world.log.entries.last().unwrap().clone();
    let request = entry.request().unwrap().clone();
    let command = world.prove(request.clone()).unwrap();
    let again = before.decide(&command, entry.time(), &world.log).unwrap();
    let daybook_ledger::tracker::Decision::Entry(again) = again else {
        panic!()
    };
    assert_eq!(again, *entry);
    let Payload::Single { message, pk, .. } = request.payload else {
        panic!()
    };
    assert_eq!((message, pk), (alice.pem.clone(), alice.pem));
}

#[test]
fn a_key_finds_what_it_has_open_and_what_locks_soon() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 4);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let end = settled(1, 7);
    let text = draft::close_transfer(&c1, &end, &alice.pem, &bob.pem, None);
    world
        .send(cosigned(command::PARK, text, &alice, &bob))
        .unwrap();
    let at = |ms: u64| BlockTime(START + ms);
    let (of_alice, of_bob) = (alice.key().hash(), bob.key().hash());
    let owned = world.book.owned(of_alice, at(0));
    assert_eq!(owned.spends, [spend.text().clone()]);
    assert!(owned.incomes.is_empty());
    assert_eq!(owned.channels, [Arc::from("c1")]);
    let owned = world.book.owned(of_bob, at(300_001));
    assert_eq!(owned.incomes, [income.text().clone()]);
    assert!(owned.channels.is_empty(), "past its lock");
    assert_eq!(
        world.book.channels_on(spend.as_str(), at(0)),
        [Arc::from("c1")]
    );
    assert!(
        world
            .book
            .channels_on(spend.as_str(), at(300_001))
            .is_empty()
    );
    assert_eq!(world.book.parked("c1", at(0)).unwrap().settled, end);
    assert!(world.book.parked("c1", at(300_001)).is_none());
    assert_eq!(world.book.open_channel("c1", at(0)).unwrap().contract, c1);
    let locking = |after, until, max| world.book.locking(at(after), at(until), max);
    assert_eq!(locking(0, 299_999, 9), []);
    assert_eq!(locking(0, 300_000, 9), [(START + 300_000, Arc::from("c1"))]);
    assert_eq!(locking(300_000, 1_800_000, 9).len(), 2);
    assert_eq!(locking(0, 1_800_000, 1).len(), 1);
    assert_eq!(world.book.next_due(), Some(at(300_001)));
}

#[test]
fn answers_have_the_members_that_clients_read() {
    use daybook_ledger::tracker::{ChannelState, CommonState, Suites, reply};
    assert_eq!(reply::done("PEM"), "{\"pk\":\"PEM\"}");
    assert_eq!(
        reply::channel_state("c", ChannelState::Open, "PEM"),
        "{\"channelId\":\"c\",\"state\":2,\"pk\":\"PEM\"}"
    );
    let wallet = Address::common("B");
    let state = CommonState {
        fact: 1_500,
        plan: 6_000,
        profit: 7,
    };
    assert_eq!(
        reply::common_state(&wallet, &state, "PEM"),
        format!(
            "{{\"address\":\"{wallet}\",\"state\":{{\"profit\":\"7\",\
             \"own\":{{\"fact\":\"1500\",\"plan\":\"6000\"}},\
             \"foreign\":{{\"fact\":\"0\",\"plan\":\"0\"}}}},\"pk\":\"PEM\"}}"
        )
    );
    let world = World::new();
    let settings = world.book.settings().unwrap();
    let text = reply::capabilities(settings, &Suites::default(), 65_536, BlockTime(5));
    let value: daybook_ledger::json::Value = text.parse().unwrap();
    assert_eq!(number(&value, &["v"]), 2);
    assert_eq!(number(&value, &["limits", "frame"]), 65_536);
    assert_eq!(text_at(&value, &["prices", "incomeMin", "amount"]), "500");
    assert_eq!(member(&value, &["suites"]).as_array().unwrap().len(), 3);
    let own = world
        .book
        .common_state(&settings.wallet(), BlockTime(world.now), &world.log);
    assert_eq!(own.unwrap().fact, 100_000, "the tracker's own wallet");
}

fn text_at<'v>(value: &'v daybook_ledger::json::Value, path: &[&str]) -> &'v str {
    text(value, path)
}

/// Golden bytes: a change here is a change of the format on disk.
#[test]
fn entries_and_snapshots_keep_their_bytes() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let (_, entry) = world.log.entries.last().unwrap();
    let text = std::str::from_utf8(entry.text()).unwrap();
    assert!(text.starts_with(
        "{\"book\":\"tracker\",\"kind\":\"command\",\"records\":[{\"contract_id\":\"c1\""
    ));
    assert_eq!(
        entry.id().to_string(),
        "3ffe67084204acc4f283f90e0d60a2c7ddbd113d3f918447e83610de0f9ecb54"
    );
    let hash = daybook_ledger::canonical::sha3(&world.book.encode());
    assert_eq!(
        hex::encode(hash),
        "56cc7163746cb3a4e86af4a2ee0b966474e577cad15f0b0b2fa9b3fb899fa3d0"
    );
}
