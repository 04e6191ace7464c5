//! Stories about the provider: asked once, paid once, within limits.

use super::*;

// Item 18.
#[test]
fn the_provider_is_asked_once_and_paid_at_the_address_it_named() {
    let mut world = World::with_provider(|_| {});
    let order = world.order();
    let payment = world.pay(&order, 2);
    world.settle();
    assert_eq!(
        world.statuses(),
        [
            "waiting_for_order",
            "waiting_for_tx",
            "waiting_for_tx_confirm",
            "payout_provider",
            "working",
            "waiting_for_order"
        ]
    );
    assert_eq!((world.asked, world.payouts()), (1, 1));
    let provided = world.provider_orders.values().next().unwrap();
    assert_eq!(world.ledger.held(&provided.public_key), 1);
    // The metadata link order, payment and payout.
    let payout = world.ledger.log.last().unwrap();
    let metadata: Value = serde_json::from_str(payout.metadata().unwrap()).unwrap();
    assert_eq!(metadata["tag"], "AKITA9MACHINE");
    assert_eq!(metadata["order_id"], json!(order.id));
    assert_eq!(metadata["payments"], json!([payment.to_string()]));
    assert_eq!(metadata["provider_order"], "wind-1");
    assert_eq!(metadata["address"], json!(provided.address));
    world.check();
}

// Item 19.
#[test]
fn a_provider_that_answers_nonsense_moves_no_money_and_is_asked_again() {
    let mut world = World::with_provider(|_| {});
    world.provider_fails = Some("the provider's answer is no address".to_owned());
    let order = world.order();
    world.pay(&order, 2);
    world.settle();
    assert_eq!((world.asked, world.machine.balance()), (1, 2));
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let wake = world.machine.wake().unwrap();
        pauses.push(wake.0 - world.now.0);
        world.later(wake.0 - world.now.0);
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(world.asked, 5);
    world.provider_fails = None;
    world.later(16_000);
    assert_eq!((world.asked, world.payouts()), (6, 1));
    assert_eq!(world.find(&order).stage, Stage::Done);
    world.check();
}

#[test]
fn a_provider_that_fails_ten_times_fails_the_order_and_the_customer_is_refunded() {
    for policy in [OnPayoutFailure::Fail, OnPayoutFailure::Work] {
        let mut world = World::with_provider(|terms| terms.on_payout_failure = policy);
        world.provider_fails = Some("no".to_owned());
        let order = world.order();
        world.pay(&order, 3);
        world.settle();
        for _ in 0..20 {
            world.later(60_000);
        }
        assert_eq!(world.asked, 10);
        match policy {
            OnPayoutFailure::Fail => {
                assert_eq!(world.find(&order).stage, Stage::Failed);
                assert_eq!(world.complaints[0].code, Code::PayoutFailed);
                assert_eq!(world.ledger.held(&world.customer.public_key()), WEALTH);
                assert!(matches!(
                    world.find(&order).refunds[0].step,
                    RefundStep::Paid(_)
                ));
            }
            OnPayoutFailure::Work => {
                assert_eq!(world.find(&order).stage, Stage::Done);
                assert_eq!(world.machine.balance(), 3);
            }
        }
        assert_eq!(world.machine.status(), Status::WaitingForOrder);
        world.check();
    }
}

#[test]
fn a_provider_that_asks_for_more_than_its_cap_gets_nothing() {
    let mut world = World::with_provider(|_| {});
    world.provider_price = 6;
    let order = world.order();
    world.pay(&order, 50);
    world.settle();
    assert_eq!(world.payouts(), 0);
    world.provider_price = 5;
    world.provider_orders.clear();
    world.later(1_000);
    assert_eq!(world.payouts(), 1);
    world.check();
}

#[test]
fn a_provider_order_that_expired_while_the_machine_was_away_is_made_anew() {
    let mut world = World::with_provider(|terms| terms.limits.per_hour = Some(1));
    let first = world.order();
    world.pay(&first, 2);
    world.settle();
    let second = world.order();
    world.pay(&second, 2);
    world.settle();
    assert_eq!(world.payouts(), 1);
    world.crash();
    world.later(3_600_000);
    for _ in 0..5 {
        world.later(60_000);
    }
    assert_eq!(world.provider_orders.len(), 3);
    assert_eq!(world.find(&second).stage, Stage::Done);
    world.check();
}

/// Crumbs of one unit, and a coin as the last output of the same transaction.
fn crumbs(world: &mut World, key: PublicKey, count: u64, coin: Option<u64>) {
    let owner = world.customer.public_key();
    let mut draft = Draft::transfer(world.ledger.asset);
    let mut over = 0;
    for (output, (key, units)) in &world.ledger.unspent {
        if *key == owner {
            draft = draft.spend(*output, &world.customer);
            over += units;
        }
    }
    for units in (0..count).map(|_| 1).chain(coin) {
        draft = draft.output(units, key);
        over -= units;
    }
    let transfer = draft
        .output(over, &world.customer)
        .sign(&[&world.customer])
        .unwrap();
    let text = String::from_utf8(transfer.canonical().to_vec()).unwrap();
    assert_eq!(world.ledger.commit(&text), Fate::Committed);
    world.settle();
}

#[test]
fn crumbs_on_an_orders_own_key_hold_no_payout_up() {
    let mut world = World::with_provider(|terms| {
        terms.value = 500;
        terms.provider_value_max = 400;
    });
    world.provider_price = 400;
    let order = world.order();
    crumbs(&mut world, order.public_key, 250, Some(400));
    assert_eq!(world.find(&order).stage, Stage::Done);
    assert_eq!(world.payouts(), 1);
    world.check();
}

#[test]
fn crumbs_on_keys_of_old_orders_hold_no_payout_up() {
    for own_crumbs in [0, 250] {
        let mut world = World::with_provider(|terms| terms.provider_value_max = 300);
        let (old, rich) = (world.order(), world.order());
        world.pay(&old, 2);
        world.settle();
        world.pay(&rich, 401);
        world.settle();
        crumbs(&mut world, old.public_key, 250, None);
        world.provider_price = 300;
        let order = world.order();
        // Whether the order itself was paid with a coin or with crumbs.
        crumbs(
            &mut world,
            order.public_key,
            own_crumbs,
            (own_crumbs == 0).then_some(2),
        );
        assert_eq!(world.find(&order).stage, Stage::Done, "{own_crumbs}");
        assert_eq!(world.payouts(), 3);
        world.check();
    }
}

#[test]
fn the_limit_of_an_hour_counts_what_waits_for_the_ledger_however_long() {
    let mut world = World::with_provider(|terms| terms.limits.per_hour = Some(1));
    world.stalled = true;
    for _ in 0..3 {
        let order = world.order();
        world.pay(&order, 2);
        world.settle();
        // The ledger takes no transfer of the machine's for more than an hour.
        world.now = world.now.after_ms(3_700_000);
        world.feed(Event::Tick);
        world.settle();
    }
    let sent = |world: &World| {
        let sends = world.machine.state.sends.values();
        sends.filter(|send| send.fate == SendFate::Sent).count()
    };
    assert_eq!(sent(&world), 1);
    assert_eq!(world.machine.spent_last_hour(), 1);
    world.stalled = false;
    world.settle();
    assert_eq!((world.payouts(), world.machine.spent_last_hour()), (1, 1));
    // The hour begins when it left.
    world.now = world.now.after_ms(3_599_999);
    assert_eq!(payout::spent_last_hour(&world.machine.state, world.now), 1);
    world.now = world.now.after_ms(1);
    assert_eq!(payout::spent_last_hour(&world.machine.state, world.now), 0);
}

#[test]
fn spending_limits_are_kept_before_anything_is_signed() {
    let mut world = World::with_provider(|terms| {
        terms.limits = SpendingLimits {
            per_hour: None,
            payees: Some(vec!["http://solar:3004".to_owned()]),
        };
    });
    let order = world.order();
    world.pay(&order, 2);
    world.settle();
    let failed = world.find(&order);
    assert_eq!((failed.stage, world.payouts()), (Stage::Failed, 0));
    assert!(failed.error.as_ref().unwrap().contains("may pay"));

    let mut world = World::with_provider(|terms| terms.limits.per_hour = Some(2));
    for _ in 0..3 {
        let order = world.order();
        world.pay(&order, 2);
        world.settle();
    }
    assert_eq!((world.payouts(), world.machine.spent_last_hour()), (2, 2));
    world.check();
}
