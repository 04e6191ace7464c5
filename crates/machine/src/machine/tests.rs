//! Stories about the machine, on a ledger that is a list and a clock that is a number. The world that they
//! play in is here; they themselves are told by theme.

#![allow(clippy::unwrap_used)]

mod crash;
mod orders;
mod payments;
mod provider;
mod statuses;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use daybook_client::Cursor;
use daybook_ledger::{
    AssetId, Draft, Height, OutputRef, Parser, PublicKey, Rules, SigningKey, Transaction,
    TransactionId, condition::Condition, json::Object,
};

use super::*;
use crate::{order::RefundStep, terms::OnPayoutFailure, terms::Product, terms::SpendingLimits};

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
