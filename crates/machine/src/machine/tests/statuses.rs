//! Stories about what a machine says of itself, and in which order.

use super::*;

// Item 5.
#[test]
fn before_it_is_ready_the_status_is_booting_and_afterwards_waiting_for_order() {
    let mut world = World::new(|_| {});
    assert_eq!(world.machine.greeting()["status"], "booting");
    let error = world.order_of(OrderRequest::empty()).unwrap_err();
    assert_eq!(error.code, Code::LedgerUnavailable);
    assert!(world.said.is_empty());
    world.crash();
    assert_eq!(world.machine.greeting()["status"], "waiting_for_order");
    assert_eq!(world.statuses(), ["waiting_for_order"]);
}

// Item 6.
#[test]
fn a_greeting_tells_the_live_status_and_always_a_message() {
    let mut world = World::started(|_| {});
    let order = world.order();
    for status in ["waiting_for_tx", "waiting_for_tx_confirm", "working"] {
        let greeting = world.machine.greeting();
        assert_eq!(greeting["status"], status);
        assert!(!greeting["message"].as_str().unwrap().is_empty());
        match status {
            "waiting_for_tx" => {
                world.stalled = true;
                world.hook = None;
                let payment = world.payment(order.public_key, 2);
                world.announce(&order, &payment).unwrap();
            }
            _ => {
                world.stalled = false;
                world.settle();
            }
        }
    }
}

// Items 9, 14, 20 and 21.
#[test]
fn a_paid_order_goes_through_every_state_and_back_to_waiting() {
    let mut world = World::started(|_| {});
    let order = world.order();
    let told = world.events("status").last().unwrap();
    assert_eq!(told["address"], json!(order.address));
    world.pay(&order, 2);
    world.settle();
    assert_eq!(
        world.statuses(),
        [
            "waiting_for_order",
            "waiting_for_tx",
            "waiting_for_tx_confirm",
            "working",
            "waiting_for_order"
        ]
    );
    assert_eq!(world.events("tx_income").count(), 1);
    assert_eq!(world.events("tx_confirmed").count(), 1);
    assert_eq!(world.events("new_balance").last().unwrap()["balance"], 2);
    assert!(world.events("tx_income").all(Value::is_string));
    let seqs: Vec<u64> = world
        .events("status")
        .map(|body| body["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    let done = world.find(&order);
    assert_eq!((done.stage, done.received), (Stage::Done, 2));
    assert_eq!(done.result.as_deref(), Some("done"));
    world.check();
}

#[test]
fn the_answer_comes_before_the_status_and_after_the_disk() {
    let mut world = World::started(|_| {});
    world.machine.handle(
        Event::Order {
            ticket: 7,
            id: "x".to_owned(),
            request: OrderRequest::empty(),
        },
        world.now,
    );
    let (records, effects) = world.machine.step();
    assert!(matches!(effects[0], Effect::Reply { ticket: 7, .. }));
    assert!(matches!(
        effects[1],
        Effect::Say {
            event: "status",
            ..
        }
    ));
    assert!(
        records
            .iter()
            .any(|record| matches!(record, Record::Order(_)))
    );
}

// Item 15.
#[test]
fn while_finality_is_withheld_a_status_repeats_every_fifteen_seconds() {
    let mut world = World::started(|_| {});
    let order = world.order();
    world.stalled = true;
    let payment = world.payment(order.public_key, 2);
    world.announce(&order, &payment).unwrap();
    // However often it is announced, it is one payment.
    world.announce(&order, &payment).unwrap();
    assert_eq!(world.events("tx_income").count(), 1);
    let before = world.statuses().len();
    for _ in 0..60 {
        world.later(1_000);
    }
    assert_eq!(world.statuses().len() - before, 4);
    assert!(
        world.statuses()[before..]
            .iter()
            .all(|status| *status == "waiting_for_tx_confirm")
    );
    // As long as it may still become final, the order does not expire.
    world.later(700_000);
    assert_eq!(world.find(&order).stage, Stage::Open);
    world.stalled = false;
    world.settle();
    assert_eq!(world.find(&order).stage, Stage::Done);
    world.check();
}
