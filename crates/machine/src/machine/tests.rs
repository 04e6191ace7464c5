//! Stories about the machine, on a ledger that is a list and a clock that is a number.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use daybook_client::Cursor;
use daybook_ledger::{
    AssetId, Draft, Height, OutputRef, Parser, PublicKey, Rules, SigningKey, Transaction,
    TransactionId, condition::Condition, json::Object,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::{order::RefundStep, terms::OnPayoutFailure, terms::Product, terms::SpendingLimits};

/// Stories of the crash test: each with a few hundred steps and some dozen crashes.
const ROUNDS: usize = 40;
/// Units that the customer begins with.
const WEALTH: u64 = 1_000;

/// A ledger: what is unspent, and all transfers in order.
struct Ledger {
    asset: AssetId,
    unspent: BTreeMap<OutputRef, (PublicKey, u64)>,
    log: Vec<Transaction>,
}

impl Ledger {
    fn commit(&mut self, text: &str) -> Fate {
        let transaction = Parser::new(Rules::default())
            .parse(text.to_owned().into())
            .unwrap();
        if self.log.iter().any(|known| known.id() == transaction.id()) {
            return Fate::Committed;
        }
        let spends: Vec<OutputRef> = transaction
            .inputs()
            .iter()
            .filter_map(|input| input.spends)
            .collect();
        if !spends
            .iter()
            .all(|output| self.unspent.contains_key(output))
        {
            return Fate::Refused {
                class: Some("DoubleSpend".to_owned()),
                message: "spent".to_owned(),
            };
        }
        for output in spends {
            self.unspent.remove(&output);
        }
        self.add(transaction);
        Fate::Committed
    }

    fn add(&mut self, transaction: Transaction) {
        for (index, output) in transaction.outputs().iter().enumerate() {
            let place = transaction.output_ref(u32::try_from(index).unwrap());
            let key = output.public_keys[0];
            self.unspent.insert(place, (key, output.amount.units()));
        }
        self.log.push(transaction);
    }

    fn held(&self, key: &PublicKey) -> u64 {
        let held = self.unspent.values().filter(|(owner, _)| owner == key);
        held.map(|(_, units)| units).sum()
    }

    /// The event of the transaction at a place of the log.
    fn event(&self, place: usize) -> Transfer {
        let transaction = &self.log[place];
        let mut keys: BTreeSet<PublicKey> = BTreeSet::new();
        for input in transaction.inputs() {
            keys.extend(&input.owners_before);
        }
        let metadata: Value =
            serde_json::from_str(transaction.metadata().unwrap_or("null")).unwrap();
        Transfer {
            id: transaction.id(),
            cursor: Cursor {
                height: Height(place as u64 + 1),
                index: 1,
            },
            spends: transaction
                .inputs()
                .iter()
                .filter_map(|input| input.spends)
                .collect(),
            outputs: transaction
                .outputs()
                .iter()
                .zip(0..)
                .filter(|(output, _)| output.condition == Condition::of_key(&output.public_keys[0]))
                .map(|(output, index)| (index, output.public_keys[0], output.amount.units()))
                .collect(),
            payer: (keys.len() == 1).then(|| *keys.first().unwrap()),
            names: metadata["address"].as_str().map(str::to_owned),
        }
    }
}

/// A machine, its disk, its ledger, its provider and its one customer.
struct World {
    terms: Terms,
    machine: Machine,
    disk: State,
    ledger: Ledger,
    now: Moment,
    said: Vec<(&'static str, Value)>,
    complaints: Vec<OrderError>,
    answers: BTreeMap<u64, Result<Box<Order>, OrderError>>,
    waiting: VecDeque<Effect>,
    /// Transactions of the log that the machine was told of.
    told: usize,
    tickets: u64,
    customer: SigningKey,
    provider_seed: Seed,
    provider_price: u64,
    /// Orders at the provider, by the name of the request.
    provider_orders: BTreeMap<String, Provided>,
    asked: usize,
    provider_fails: Option<String>,
    /// What the hook does: nothing yet, or an outcome at once.
    hook: Option<Result<String, String>>,
    works: Vec<u64>,
    /// Submissions are held back.
    stalled: bool,
}

fn seed() -> Seed {
    Seed::from_secret(b"the machine of the stories")
}

fn terms(asset: AssetId) -> Terms {
    Terms {
        name: "Robot1".to_owned(),
        role: "robot".to_owned(),
        asset,
        value: 2,
        products: Vec::new(),
        provider: None,
        provider_value_max: 5,
        order_ttl_ms: 600_000,
        confirm_poll_ms: 3_000,
        status_repeat_ms: 15_000,
        open_orders_max: 5,
        on_payout_failure: OnPayoutFailure::Fail,
        refund_failed: true,
        refund_underpaid: true,
        refund_late: false,
        works: true,
        limits: SpendingLimits::default(),
    }
}

impl World {
    fn new(change: impl FnOnce(&mut Terms)) -> World {
        let customer = SigningKey::from_seed([3; 32]);
        let issue = Draft::create(Object::from_iter([("kind", "token")]))
            .output(WEALTH, &customer)
            .sign(&[&customer])
            .unwrap();
        let mut terms = terms(issue.asset());
        change(&mut terms);
        let mut ledger = Ledger {
            asset: issue.asset(),
            unspent: BTreeMap::new(),
            log: Vec::new(),
        };
        ledger.add(issue);
        let machine = Machine::new(terms.clone(), seed(), State::default()).unwrap();
        World {
            terms,
            machine,
            disk: State::default(),
            ledger,
            now: Moment(1_000_000_000_000),
            said: Vec::new(),
            complaints: Vec::new(),
            answers: BTreeMap::new(),
            waiting: VecDeque::new(),
            told: 1,
            tickets: 0,
            customer,
            provider_seed: Seed::from_secret(b"the provider of the stories"),
            provider_price: 1,
            provider_orders: BTreeMap::new(),
            asked: 0,
            provider_fails: None,
            hook: Some(Ok("done".to_owned())),
            works: Vec::new(),
            stalled: false,
        }
    }

    fn started(change: impl FnOnce(&mut Terms)) -> World {
        let mut world = World::new(change);
        world.feed(Event::Ready(Some(Survey {
            index: 0,
            coins: Vec::new(),
            cursor: Cursor {
                height: Height(1),
                index: 2,
            },
        })));
        world
    }

    fn with_provider(change: impl FnOnce(&mut Terms)) -> World {
        World::started(|terms| {
            terms.provider = Some("http://wind:3002".to_owned());
            change(terms);
        })
    }

    /// An event in; what changed is on disk before anything is done.
    fn feed(&mut self, event: Event) {
        self.machine.handle(event, self.now);
        let (records, effects) = self.machine.step();
        for record in &records {
            // Through the text that the journal keeps.
            let text = serde_json::to_string(record).unwrap();
            self.disk.apply(&serde_json::from_str(&text).unwrap());
        }
        for effect in effects {
            match effect {
                Effect::Say { event, body } => self.said.push((event, body)),
                Effect::Reply { ticket, answer } => {
                    self.answers.insert(ticket, answer);
                }
                Effect::Complain { error, .. } => self.complaints.push(error),
                other => self.waiting.push_back(other),
            }
        }
    }

    /// kill -9 and another start: what was not on disk is gone, what was under way may have happened.
    fn crash(&mut self) {
        self.waiting.clear();
        self.machine = Machine::new(self.terms.clone(), seed(), self.disk.clone()).unwrap();
        self.told = self
            .disk
            .meta
            .cursor
            .map_or(1, |cursor| usize::try_from(cursor.height.0).unwrap());
        let survey = self.disk.meta.cursor.is_none().then(|| Survey {
            index: 0,
            coins: Vec::new(),
            cursor: Cursor {
                height: Height(1),
                index: 2,
            },
        });
        self.feed(Event::Ready(survey));
    }

    /// Does one thing that is wanted, or tells one thing that committed. False when there is nothing.
    fn one(&mut self) -> bool {
        if self.told < self.ledger.log.len() {
            let transfer = self.ledger.event(self.told);
            self.told += 1;
            self.feed(Event::Transfer(transfer));
            return true;
        }
        let place = self
            .waiting
            .iter()
            .position(|effect| !(self.stalled && matches!(effect, Effect::Submit { .. })));
        let Some(effect) = place.and_then(|place| self.waiting.remove(place)) else {
            return false;
        };
        match effect {
            Effect::Submit { transaction, text } => {
                let fate = self.ledger.commit(&text);
                self.feed(Event::Settled { transaction, fate });
            }
            Effect::Ask { number, repeat_key } => {
                self.asked += 1;
                let answer = match &self.provider_fails {
                    Some(reason) => Err(reason.clone()),
                    None => {
                        let index = self.provider_orders.len() as u64 + 1;
                        let provided = Provided {
                            address: self.provider_seed.address(index),
                            public_key: self.provider_seed.key(index).public_key(),
                            value: self.provider_price,
                            order_id: Some(format!("wind-{index}")),
                            expires: Some(self.now.after_ms(600_000)),
                        };
                        let known = self.provider_orders.entry(repeat_key);
                        Ok(known.or_insert(provided).clone())
                    }
                };
                self.feed(Event::Provided { number, answer });
            }
            Effect::Check { number, key } => {
                let listed = self.ledger.log.iter().filter(|transaction| {
                    let outputs = transaction.outputs();
                    outputs.iter().any(|output| output.public_keys[0] == key)
                });
                let transactions = Some(listed.map(Transaction::id).collect());
                self.feed(Event::Checked {
                    number,
                    transactions,
                });
            }
            Effect::Work { number, .. } => {
                self.works.push(number);
                if let Some(outcome) = self.hook.clone() {
                    self.feed(Event::Worked { number, outcome });
                }
            }
            _ => unreachable!("taken at once"),
        }
        true
    }

    fn settle(&mut self) {
        while self.one() {}
    }

    fn later(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.feed(Event::Tick);
        self.settle();
    }

    fn order_of(&mut self, request: OrderRequest) -> Result<Order, OrderError> {
        self.tickets += 1;
        let ticket = self.tickets;
        self.feed(Event::Order {
            ticket,
            id: format!("order-{ticket}"),
            request,
        });
        let answer = self.answers.remove(&ticket).expect("an answer");
        answer.map(|order| *order)
    }

    fn order(&mut self) -> Order {
        self.order_of(OrderRequest::empty()).unwrap()
    }

    /// A transfer of the customer's, signed.
    fn payment(&self, key: PublicKey, units: u64) -> Transaction {
        let owner = self.customer.public_key();
        let mut draft = Draft::transfer(self.ledger.asset);
        let mut held = 0;
        for (output, (key, units)) in &self.ledger.unspent {
            if *key == owner {
                draft = draft.spend(*output, &self.customer);
                held += units;
            }
        }
        draft = draft.output(units, key);
        if held > units {
            draft = draft.output(held - units, &self.customer);
        }
        draft.sign(&[&self.customer]).unwrap()
    }

    fn pay(&mut self, order: &Order, units: u64) -> TransactionId {
        let payment = self.payment(order.public_key, units);
        let text = String::from_utf8(payment.canonical().to_vec()).unwrap();
        assert_eq!(self.ledger.commit(&text), Fate::Committed);
        payment.id()
    }

    fn announce(&mut self, order: &Order, payment: &Transaction) -> Result<(), OrderError> {
        self.tickets += 1;
        let ticket = self.tickets;
        self.feed(Event::Announced {
            ticket,
            order: order.id.clone(),
            payment: Announcement {
                transaction: payment.id(),
                text: String::from_utf8(payment.canonical().to_vec()).unwrap(),
                units: payment.outputs()[0].amount.units(),
                payer: Some(self.customer.public_key()),
            },
        });
        self.answers.remove(&ticket).unwrap().map(|_| ())
    }

    fn find(&self, order: &Order) -> &Order {
        self.machine.order_by_id(&order.id).unwrap()
    }

    /// The names of the statuses told so far.
    fn statuses(&self) -> Vec<&str> {
        self.events("status")
            .map(|body| body["status"].as_str().unwrap())
            .collect()
    }

    fn events(&self, name: &'static str) -> impl Iterator<Item = &Value> {
        let said = self.said.iter().filter(move |(event, _)| *event == name);
        said.map(|(_, body)| body)
    }

    /// Everything adds up: the machine's sum is the ledger's, nobody lost or made a unit, and seq is
    /// without gaps.
    fn check(&self) {
        let keys = (0..=self.machine.index()).map(|index| self.machine.key(index));
        let held: u64 = keys.map(|key| self.ledger.held(&key)).sum();
        assert_eq!(self.machine.balance(), held);
        let all: u64 = self.ledger.unspent.values().map(|(_, units)| units).sum();
        assert_eq!(all, WEALTH);
        if let Some(balance) = self.events("new_balance").last() {
            assert_eq!(balance["balance"], held);
        }
    }

    /// Transfers to the provider.
    fn payouts(&self) -> usize {
        let keys: BTreeSet<PublicKey> = self
            .provider_orders
            .values()
            .map(|provided| provided.public_key)
            .collect();
        let outputs = self
            .ledger
            .log
            .iter()
            .flat_map(|transaction| transaction.outputs());
        outputs
            .filter(|output| keys.contains(&output.public_keys[0]))
            .count()
    }
}

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
