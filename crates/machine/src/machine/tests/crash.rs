//! Stories about a machine that is killed, and what it goes on with.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// Stories of the crash test: each with a few hundred steps and some dozen crashes.
const ROUNDS: usize = 40;

// Item 22, and more: at every single step of the story the machine is killed, before or after what it
// wanted was done.
#[test]
fn killed_anywhere_and_any_number_of_times_everybody_is_paid_exactly_once() {
    let seed = std::env::var("MACHINE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    println!("MACHINE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let fails = round % 4 == 3;
        let mut world = World::with_provider(|_| {});
        world.hook = Some(if fails {
            Err("out of paint".to_owned())
        } else {
            Ok("done".to_owned())
        });
        let mut orders = Vec::new();
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 10_000, "the story ends");
            if orders.len() < 3 && random.random_bool(0.3) {
                let order = world.order();
                let payment = world.payment(order.public_key, 2);
                if random.random_bool(0.5) {
                    world.announce(&order, &payment).unwrap();
                } else {
                    world.pay(&order, 2);
                }
                orders.push(order);
                // Whoever pays waits for it before paying something else.
                while world.find(orders.last().unwrap()).stage == Stage::Open {
                    if random.random_bool(0.1) {
                        world.crash();
                    } else if !world.one() {
                        world.later(1_000);
                    }
                }
            } else if random.random_bool(0.25) {
                world.crash();
            } else if random.random_bool(0.1) && !world.waiting.is_empty() {
                // It happened, and the machine died before it heard of it.
                if let Some(Effect::Submit { text, .. }) = world.waiting.front() {
                    let text = text.clone();
                    world.ledger.commit(&text);
                }
                world.crash();
            } else if !world.one() {
                if orders.len() == 3 {
                    break;
                }
                world.later(1_000);
            }
        }
        for _ in 0..3 {
            world.later(120_000);
        }
        for order in &orders {
            let order = world.find(order);
            let wanted = if fails { Stage::Failed } else { Stage::Done };
            assert_eq!((order.stage, order.received), (wanted, 2), "round {round}");
        }
        assert_eq!((world.payouts(), world.provider_orders.len()), (3, 3));
        if fails {
            // Three orders of two units, each with one unit gone to the provider: what is there goes
            // back, in whole refunds, and nothing twice.
            let paid: Vec<_> = orders
                .iter()
                .flat_map(|order| &world.find(order).refunds)
                .collect();
            assert_eq!(paid.len(), 3);
            let back = paid
                .iter()
                .filter(|refund| matches!(refund.step, RefundStep::Paid(_)));
            assert_eq!(world.machine.balance(), 3 - 2 * back.count() as u64);
        }
        world.check();
    }
}

#[test]
fn a_memory_of_another_seed_or_token_is_not_gone_on_with() {
    let world = World::started(|_| {});
    let other = Machine::new(
        world.terms.clone(),
        Seed::from_secret(b"x"),
        world.disk.clone(),
    );
    assert_eq!(other.unwrap_err(), NotMine::Seed);
    let terms = terms("ab".repeat(32).parse().unwrap());
    assert!(matches!(
        Machine::new(terms, seed(), world.disk).unwrap_err(),
        NotMine::Asset(_)
    ));
}
