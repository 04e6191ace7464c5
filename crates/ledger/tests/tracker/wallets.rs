//! Common addresses, payouts and deposits.

use daybook_ledger::{
    BlockTime, SigningKey,
    tracker::{Address, Book, Request, command, draft},
};

use crate::{MIB_100, pair, tracker_common::*};

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
