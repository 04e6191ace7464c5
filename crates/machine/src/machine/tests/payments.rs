//! Stories about payments: too little, too much, too late, and what goes back.

use super::*;

#[test]
fn a_payment_that_the_ledger_refuses_leaves_the_order_open() {
    let mut world = World::started(|_| {});
    let order = world.order();
    world.stalled = true;
    let refused = world.payment(order.public_key, 2);
    world.announce(&order, &refused).unwrap();
    // The customer spends the same elsewhere.
    let elsewhere = world.payment(world.customer.public_key(), 5);
    world
        .ledger
        .commit(std::str::from_utf8(elsewhere.canonical()).unwrap());
    world.stalled = false;
    world.settle();
    assert_eq!(world.find(&order).status(), Status::WaitingForTx);
    assert_eq!(world.find(&order).payments, []);
    world.pay(&order, 2);
    world.settle();
    assert_eq!(world.find(&order).stage, Stage::Done);
    world.check();
}

// Item 16.
#[test]
fn one_too_few_does_not_complete_an_order_and_the_missing_one_does() {
    let mut world = World::started(|_| {});
    let order = world.order();
    world.pay(&order, 1);
    world.settle();
    assert_eq!(world.find(&order).stage, Stage::Open);
    assert_eq!(world.statuses().last(), Some(&"waiting_for_tx"));
    world.pay(&order, 1);
    world.settle();
    assert_eq!(world.find(&order).stage, Stage::Done);
    assert_eq!(world.works.len(), 1);
    world.check();
}

// Item 17.
#[test]
fn the_same_transaction_announced_three_times_is_one_payment_and_one_payout() {
    let mut world = World::with_provider(|_| {});
    let order = world.order();
    world.pay(&order, 2);
    world.settle();
    let transfer = world.ledger.event(1);
    for _ in 0..2 {
        world.feed(Event::Transfer(transfer.clone()));
        world.settle();
    }
    assert_eq!(world.events("tx_confirmed").count(), 1);
    assert_eq!((world.asked, world.payouts()), (1, 1));
    world.check();
}

#[test]
fn without_a_price_the_first_transaction_that_names_the_address_counts() {
    let mut world = World::started(|terms| terms.value = 0);
    let order = world.order();
    let note = Draft::transfer(world.ledger.asset)
        .spend(
            *world.ledger.unspent.keys().next().unwrap(),
            &world.customer,
        )
        .output(WEALTH, &world.customer)
        .metadata(Object::from_iter([(
            "address",
            daybook_ledger::json::Value::from(order.address.to_string()),
        )]))
        .sign(&[&world.customer])
        .unwrap();
    let text = String::from_utf8(note.canonical().to_vec()).unwrap();
    world.ledger.commit(&text);
    world.settle();
    assert_eq!(world.find(&order).stage, Stage::Done);
    world.check();
}

#[test]
fn overpayment_is_kept_and_recorded() {
    let mut world = World::started(|_| {});
    let order = world.order();
    world.pay(&order, 9);
    world.settle();
    assert_eq!(world.find(&order).received, 9);
    world.pay(&order, 1);
    world.settle();
    let done = world.find(&order);
    assert_eq!(
        (done.received, done.late, done.stage),
        (9, 1, Stage::Done),
        "what comes after the end is late"
    );
    assert_eq!(world.works.len(), 1);
    assert_eq!(world.machine.balance(), 10);
    world.check();
}

#[test]
fn what_comes_after_an_order_is_done_goes_back_where_late_payments_do() {
    let mut world = World::started(|terms| terms.refund_late = true);
    let order = world.order();
    world.pay(&order, 2);
    world.settle();
    world.pay(&order, 7);
    world.settle();
    let done = world.find(&order);
    assert_eq!((done.received, done.late, done.stage), (2, 7, Stage::Done));
    assert!(matches!(done.refunds[0].step, RefundStep::Paid(_)));
    assert_eq!(world.machine.balance(), 2);
    world.check();
}

#[test]
fn an_order_paid_in_more_parts_than_are_listed_expires_and_owes_what_is_not_listed() {
    let mut world = World::started(|terms| {
        terms.value = 900;
        terms.refund_late = true;
    });
    let order = world.order();
    for _ in 0..260 {
        world.pay(&order, 1);
        world.settle();
    }
    let open = world.find(&order);
    assert_eq!((open.received, open.payments.len()), (260, 256));
    world.later(600_000);
    world.settle();
    let over = world.find(&order);
    assert_eq!((over.stage, over.unlisted), (Stage::Expired, 4));
    let paid = over
        .refunds
        .iter()
        .filter(|refund| matches!(refund.step, RefundStep::Paid(_)));
    assert_eq!(paid.count(), 256);
    let owed = over.refunds.last().unwrap();
    assert_eq!((owed.payment, owed.units), (None, 4));
    assert!(matches!(owed.step, RefundStep::Owed(_)));
    // What comes later still is added up, and makes no list longer.
    world.pay(&order, 3);
    world.settle();
    let over = world.find(&order);
    assert_eq!((over.late, over.refunds.len()), (3, 257));
    assert_eq!(over.refunds.last().unwrap().units, 7);
    assert_eq!(world.machine.balance(), 7);
    world.crash();
    assert_eq!(world.find(&order).refunds.last().unwrap().units, 7);
    world.check();
}

#[test]
fn a_failing_hook_is_refunded_to_whoever_paid() {
    let mut world = World::started(|_| {});
    world.hook = Some(Err("out of paint".to_owned()));
    let order = world.order();
    world.pay(&order, 1);
    world.settle();
    world.pay(&order, 4);
    world.settle();
    let failed = world.find(&order);
    assert_eq!((failed.stage, failed.received), (Stage::Failed, 5));
    assert_eq!(failed.refunds.len(), 2);
    assert_eq!(world.ledger.held(&world.customer.public_key()), WEALTH);
    assert_eq!(world.complaints[0].code, Code::WorkFailed);
    assert_eq!(world.statuses().last(), Some(&"waiting_for_order"));
    world.check();
}
