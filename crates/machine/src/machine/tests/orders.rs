//! Stories about orders: how they are taken, kept, worked on and given up.

use super::*;

// Item 13.
#[test]
fn two_orders_never_share_an_address_even_across_a_crash() {
    let mut world = World::started(|terms| terms.open_orders_max = 100);
    let mut seen = BTreeSet::new();
    for round in 0..10 {
        assert!(seen.insert(world.order().address));
        if round % 3 == 0 {
            world.crash();
        }
    }
    assert_eq!(world.machine.index(), 10);
    assert_eq!(*seen.first().unwrap(), {
        let mut all: Vec<_> = (1..=10).map(|index| seed().address(index)).collect();
        all.sort();
        all[0].clone()
    });
}

#[test]
fn orders_are_refused_when_the_machine_cannot_take_them() {
    let mut world = World::started(|terms| {
        terms.open_orders_max = 2;
        terms.products = vec![
            Product {
                name: "headphone".to_owned(),
                value: 3,
            },
            Product {
                name: "laptop".to_owned(),
                value: 10,
            },
        ];
    });
    let named = |name: &str, quantity| OrderRequest {
        product: Some(name.to_owned()),
        quantity,
        ..OrderRequest::empty()
    };
    let code = |result: Result<Order, OrderError>| result.unwrap_err().code;
    assert_eq!(code(world.order_of(named("sofa", 1))), Code::UnknownProduct);
    let two = world.order_of(named("laptop", 2)).unwrap();
    assert_eq!(two.value, 20);
    assert_eq!(world.order().product.as_deref(), Some("headphone"));
    assert_eq!(code(world.order_of(named("laptop", 1))), Code::Busy);
    world.feed(Event::LedgerLost);
    assert_eq!(
        code(world.order_of(named("laptop", 1))),
        Code::LedgerUnavailable
    );
}

#[test]
fn the_same_request_again_is_the_same_order() {
    let mut world = World::started(|_| {});
    let request = OrderRequest {
        repeat_key: Some("cart-17".to_owned()),
        ..OrderRequest::empty()
    };
    let first = world.order_of(request.clone()).unwrap();
    world.crash();
    let again = world.order_of(request.clone()).unwrap();
    assert_eq!((first.id, first.address), (again.id, again.address));
    assert_eq!(world.machine.orders().count(), 1);
    let other = OrderRequest {
        data: r#"{"quantity":2}"#.to_owned(),
        quantity: 2,
        ..request
    };
    assert_eq!(world.order_of(other).unwrap_err().code, Code::InvalidOrder);
}

#[test]
fn one_machine_works_on_one_order_at_a_time() {
    let mut world = World::started(|_| {});
    world.hook = None;
    let (first, second) = (world.order(), world.order());
    for order in [&first, &second] {
        world.pay(order, 2);
        world.settle();
    }
    assert_eq!(world.works, [1]);
    world.feed(Event::Worked {
        number: 1,
        outcome: Ok(String::new()),
    });
    world.settle();
    assert_eq!(world.works, [1, 2]);
    assert_eq!(world.statuses().last(), Some(&"working"));
    world.crash();
    world.settle();
    assert_eq!(world.works, [1, 2, 2]);
    assert_eq!(world.find(&second).attempts, 2);
}

#[test]
fn an_order_that_nobody_pays_expires_and_late_money_is_booked() {
    for refund in [false, true] {
        let mut world = World::started(|terms| terms.refund_late = refund);
        let order = world.order();
        world.later(599_000);
        assert_eq!(world.find(&order).stage, Stage::Open);
        world.later(1_000);
        assert_eq!(world.find(&order).stage, Stage::Expired);
        assert_eq!(world.complaints[0].code, Code::PaymentExpired);
        assert_eq!(world.statuses().last(), Some(&"waiting_for_order"));
        world.crash();
        world.pay(&order, 2);
        world.settle();
        let late = world.find(&order);
        assert_eq!(
            (late.stage, late.late, late.received),
            (Stage::Expired, 2, 0)
        );
        assert_eq!(world.machine.balance(), if refund { 0 } else { 2 });
        world.check();
    }
}

#[test]
fn an_underpaid_order_expires_as_such_and_is_refunded() {
    let mut world = World::started(|_| {});
    let order = world.order();
    world.pay(&order, 1);
    world.settle();
    world.later(600_000);
    assert_eq!(world.complaints[0].code, Code::Underpaid);
    assert_eq!(world.find(&order).stage, Stage::Expired);
    assert_eq!(world.machine.balance(), 0);
    world.check();
}

#[test]
fn an_order_does_not_expire_over_a_payment_that_the_stream_has_not_told_yet() {
    let mut world = World::started(|_| {});
    let order = world.order();
    let payment = world.pay(&order, 2);
    world.now = world.now.after_ms(600_000);
    world.feed(Event::Tick);
    let Some(Effect::Check { number, .. }) = world.waiting.pop_front() else {
        panic!("the ledger is asked");
    };
    world.feed(Event::Checked {
        number,
        transactions: Some(vec![payment]),
    });
    assert_eq!(world.find(&order).stage, Stage::Open);
    // Nor when nobody can be asked.
    world.feed(Event::LedgerLost);
    world.later(60_000);
    assert_eq!(
        world.find(&order).stage,
        Stage::Done,
        "the stream told of it"
    );
    world.check();
}

#[test]
fn old_orders_make_room_by_their_bytes_and_lists_end_by_them() {
    let mut world = World::started(|_| {});
    let mut ids = Vec::new();
    for _ in 0..6 {
        let request = OrderRequest {
            data: "x".repeat(10_000),
            ..OrderRequest::empty()
        };
        let order = world.order_of(request).unwrap();
        world.pay(&order, 2);
        world.settle();
        ids.push(order.number);
    }
    let open = world.order();
    let numbers = |orders: Vec<&Order>| orders.iter().map(|order| order.number).collect::<Vec<_>>();
    let list = |world: &World, before, bytes| numbers(world.machine.list(before, None, 100, bytes));
    assert_eq!(list(&world, u64::MAX, usize::MAX), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(list(&world, u64::MAX, 30_000), [5, 6, 7]);
    assert_eq!(list(&world, 5, 30_000), [3, 4]);
    assert_eq!(list(&world, 3, 1), [2], "one at least");
    assert_eq!(list(&world, 1, 30_000), [0; 0]);
    assert_eq!(
        numbers(world.machine.list(u64::MAX, Some(3), 2, usize::MAX)),
        [5, 6]
    );

    world.machine.keep_orders(100, 40_000);
    assert_eq!(list(&world, u64::MAX, usize::MAX), [4, 5, 6, 7]);
    world.machine.keep_orders(2, usize::MAX);
    assert_eq!(list(&world, u64::MAX, usize::MAX), [6, 7]);
    world.machine.keep_orders(0, 0);
    assert_eq!(world.machine.state.orders_bytes, world.find(&open).weight());
}
