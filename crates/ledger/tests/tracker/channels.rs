//! Channels: opened, settled, expired, and what they may not do.

use daybook_ledger::tracker::{
    Address, Cause, Code, Contract, Fact, Price, Settled, command, draft,
};

use crate::{MIB_100, QUANTUM, pair, tracker_common::*};

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

/// 23
#[test]
fn a_channel_locks_with_the_nearest_of_three_locks() {
    const MINUTE: u64 = 60_000;
    let lock = |spend: u64, income: u64, transfer: u64| {
        let mut world = World::with(|settings| {
            settings.spend_lifetime_ms = spend * MINUTE;
            settings.income_lifetime_ms = income * MINUTE;
            settings.transfer_lifetime_ms = transfer * MINUTE;
        });
        let (alice, bob, spend, income) = pair(&mut world);
        world.wait(MINUTE);
        let c1 = contract("c1", &spend, &income, 1);
        let opened = world.open_transfer(&c1, &alice, &bob).unwrap();
        (number(&opened, &["timelock"]) - START) / MINUTE
    };
    assert_eq!(lock(30, 30, 5), 6, "its own, from its opening on");
    assert_eq!(lock(4, 30, 5), 4, "the payer's");
    assert_eq!(lock(30, 3, 5), 3, "the payee's");
    assert_eq!(lock(6, 6, 5), 6, "all at once");
}
