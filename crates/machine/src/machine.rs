//! The machine itself: events in, effects out, time as input. Nothing here opens a file or a socket.
//!
//! ```text
//! event + now ─► Machine::handle ─► records ─► on disk ─► effects ─► sockets, ledger, provider, hook
//! ```
//!
//! The order of the last two is what keeps money safe: a transfer is signed, its text is stored, and
//! only then it is sent. After a crash the stored text is sent again; the ledger takes each
//! transaction at most once, so nobody is paid twice. Whatever was under way and left no record is
//! begun again by [`Machine::handle`] when the machine is [ready](Event::Ready).

mod book;
mod payout;
mod refund;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use daybook_client::Cursor;
use daybook_ledger::{OutputRef, PublicKey, TransactionId};
use serde_json::{Value, json};

use crate::{
    Moment, Status,
    order::{Order, PayoutStep, Provided, Stage},
    request::{Code, OrderError, OrderRequest},
    seed::Seed,
    state::{Coin, Meta, Record, Send, SendFate, State},
    terms::Terms,
};

/// Orders that are kept, the newest ones and all that are not over: a look at the list goes through them.
const ORDERS_KEPT_MAX: usize = 100_000;
/// Bytes of the orders that are kept, about: what customers write into their orders is kept with them.
const ORDERS_KEPT_BYTES_MAX: usize = 64 << 20;
/// How long a cursor that nothing else changed with may wait for the disk.
const CURSOR_SAVE_MS: u64 = 5_000;
/// First pause before a transaction of unknown fate is sent again; doubled each time.
const RESEND_MS_MIN: u64 = 1_000;
/// Longest such pause.
const RESEND_MS_MAX: u64 = 30_000;

/// What happens to a machine.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The ledger is reachable and the port is open. With what a first look at the ledger found, if
    /// this was one.
    Ready(Option<Survey>),
    /// The ledger cannot be reached.
    LedgerLost,
    /// The ledger can be reached again.
    LedgerBack,
    /// Somebody orders.
    Order {
        /// Names the answer.
        ticket: u64,
        /// A fresh UUID for the order.
        id: String,
        /// What is ordered.
        request: OrderRequest,
    },
    /// A customer hands in the signed transaction that pays an order. It was checked to be sound and to
    /// pay the order's key.
    Announced {
        /// Names the answer.
        ticket: u64,
        /// The order.
        order: String,
        /// The transaction.
        payment: Announcement,
    },
    /// A transaction with the token was committed, or a stretch of the ledger had nothing of interest.
    Transfer(Transfer),
    /// Nothing of interest up to here.
    Passed(Cursor),
    /// The provider answered, or did not.
    Provided {
        /// The order that it is for, by its number.
        number: u64,
        /// The answer, or why there is none.
        answer: Result<Provided, String>,
    },
    /// A submitted transaction's fate.
    Settled {
        /// The transaction.
        transaction: TransactionId,
        /// What became of it.
        fate: Fate,
    },
    /// The work hook says how far it is.
    Progress {
        /// The order, by its number.
        number: u64,
        /// What it said.
        text: String,
    },
    /// The work hook ended.
    Worked {
        /// The order, by its number.
        number: u64,
        /// Its result, or why it failed.
        outcome: Result<String, String>,
    },
    /// The transactions of the token that the ledger lists for an order's key.
    Checked {
        /// The order, by its number.
        number: u64,
        /// The transactions; `None` when the ledger could not be asked.
        transactions: Option<Vec<TransactionId>>,
    },
    /// Time went on.
    Tick,
}

/// What a first look at the ledger found of this machine's keys.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// The newest index in use.
    pub(crate) index: u64,
    /// Unspent outputs: place, units, index.
    pub(crate) coins: Vec<(OutputRef, u64, u64)>,
    /// What comes next.
    pub(crate) cursor: Cursor,
}

/// A signed transaction that is not committed yet, as far as it concerns an order.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    /// The transaction.
    pub(crate) transaction: TransactionId,
    /// Its text.
    pub(crate) text: String,
    /// What it pays to the order's key.
    pub(crate) units: u64,
    /// The one key that signed it, if one alone did.
    pub(crate) payer: Option<PublicKey>,
}

/// A committed transaction of the token.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// The transaction.
    pub(crate) id: TransactionId,
    /// What comes after it.
    pub(crate) cursor: Cursor,
    /// What it spends.
    pub(crate) spends: Vec<OutputRef>,
    /// Outputs that one key alone can spend: place, key, units.
    pub(crate) outputs: Vec<(u32, PublicKey, u64)>,
    /// The one key that signed it, if one alone did.
    pub(crate) payer: Option<PublicKey>,
    /// The address that its metadata name.
    pub(crate) names: Option<String>,
}

/// What became of a submitted transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the log.
    Committed,
    /// It changes nothing, for this class of reason.
    Refused {
        /// The ledger's name of the reason.
        class: Option<String>,
        /// The reason in words.
        message: String,
    },
    /// Nobody knows; it will be sent again.
    Unknown,
}

/// What a machine wants done. The shell does it in this order, after the records are on disk.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Tell every client.
    Say {
        /// The event.
        event: &'static str,
        /// Its argument.
        body: Value,
    },
    /// Answer an order or an announcement.
    Reply {
        /// Which.
        ticket: u64,
        /// The order, or why there is none.
        answer: Result<Box<Order>, OrderError>,
    },
    /// Tell whoever placed this order over a socket what went wrong.
    Complain {
        /// The order.
        order: String,
        /// The customer's own reference.
        client_ref: Option<String>,
        /// What went wrong.
        error: OrderError,
    },
    /// Order at the provider.
    Ask {
        /// The order that it is for, by its number.
        number: u64,
        /// Names the request, so that the provider makes one order of it however often it comes.
        repeat_key: String,
    },
    /// Submit a transaction and learn its fate.
    Submit {
        /// The transaction.
        transaction: TransactionId,
        /// Its signed text.
        text: String,
    },
    /// Begin the work.
    Work {
        /// The order, by its number.
        number: u64,
        /// What the hook reads.
        order: Value,
    },
    /// Ask the ledger what it lists for an order's key.
    Check {
        /// The order, by its number.
        number: u64,
        /// The key.
        key: PublicKey,
    },
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) terms: Terms,
    seed: Seed,
    pub(crate) state: State,
    /// Indexes of the keys that were given away.
    keys: BTreeMap<PublicKey, u64>,
    ready: bool,
    up: bool,
    now: Moment,
    /// What is under way for an order. Begins empty after every start.
    watches: BTreeMap<u64, Watch>,
    submissions: BTreeMap<TransactionId, Submission>,
    /// The order that the hook works on: one machine does one thing at a time.
    running: Option<u64>,
    /// Coins came in since the last look at what is due.
    coins_came: bool,
    /// When something is due next.
    wake: Option<Moment>,
    meta_saved: Meta,
    cursor_saved_at: Moment,
    records: Vec<Record>,
    effects: Vec<Effect>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    repeat_at: Option<Moment>,
    check_at: Moment,
    checking: bool,
    asking: bool,
    /// Refunds that could not be made are not tried again before.
    refund_at: Moment,
}

#[derive(Clone, Copy, Debug, Default)]
struct Submission {
    under_way: bool,
    failures: u32,
    next: Moment,
}

/// Why a memory cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMine {
    /// It belongs to another seed.
    #[error("the data belong to a machine with another seed")]
    Seed,
    /// It counts another token.
    #[error("the data are about the token {0}, and another one is configured")]
    Asset(String),
}

impl Machine {
    /// A machine with what it remembers.
    ///
    /// # Errors
    /// [`NotMine`] when the memory is that of another machine.
    pub(crate) fn new(terms: Terms, seed: Seed, mut state: State) -> Result<Machine, NotMine> {
        let (owner, asset) = (seed.address(0).to_string(), terms.asset.to_string());
        if state.meta.owner.is_empty() {
            state.meta.owner = owner;
            state.meta.asset = asset;
        } else if state.meta.owner != owner {
            return Err(NotMine::Seed);
        } else if state.meta.asset != asset {
            return Err(NotMine::Asset(state.meta.asset));
        }
        let mut keys = BTreeMap::new();
        for index in 0..=state.meta.index {
            let known = state
                .by_index
                .get(&index)
                .map(|number| state.orders[number].public_key);
            keys.insert(known.unwrap_or_else(|| seed.key(index).public_key()), index);
        }
        Ok(Machine {
            terms,
            seed,
            state,
            keys,
            ready: false,
            up: false,
            now: Moment(0),
            watches: BTreeMap::new(),
            submissions: BTreeMap::new(),
            running: None,
            coins_came: false,
            wake: None,
            meta_saved: Meta::default(),
            cursor_saved_at: Moment(0),
            records: Vec::new(),
            effects: Vec::new(),
        })
    }

    /// Takes an event in. What must be on disk and what is to be done then is taken out by
    /// [`Machine::step`].
    pub(crate) fn handle(&mut self, event: Event, now: Moment) {
        self.now = self.now.max(now);
        match event {
            Event::Ready(survey) => self.start(survey),
            Event::LedgerLost => self.up = false,
            Event::LedgerBack => self.up = true,
            Event::Order {
                ticket,
                id,
                request,
            } => {
                let answer = self.order(id, request);
                self.reply(ticket, answer);
            }
            Event::Announced {
                ticket,
                order,
                payment,
            } => {
                let answer = self.announced(&order, payment);
                self.reply(ticket, answer);
            }
            Event::Transfer(transfer) => self.transfer(&transfer),
            Event::Passed(cursor) => self.state.meta.cursor = Some(cursor),
            Event::Provided { number, answer } => self.provided(number, answer),
            Event::Settled { transaction, fate } => self.settled(transaction, fate),
            Event::Progress { number, text } => self.progress(number, &text),
            Event::Worked { number, outcome } => self.worked(number, outcome),
            Event::Checked {
                number,
                transactions,
            } => self.checked(number, transactions),
            Event::Tick => {}
        }
        if self.ready {
            self.run();
        }
        self.save_meta();
    }

    /// What is to be stored, and what is to be done once it is.
    pub(crate) fn step(&mut self) -> (Vec<Record>, Vec<Effect>) {
        (
            std::mem::take(&mut self.records),
            std::mem::take(&mut self.effects),
        )
    }

    /// When [`Event::Tick`] is due.
    pub(crate) fn wake(&self) -> Option<Moment> {
        self.wake
    }

    /// What it does.
    pub(crate) fn status(&self) -> Status {
        if !self.ready {
            return Status::Booting;
        }
        let active = self.state.active.iter();
        active
            .map(|number| self.state.orders[number].status())
            .max()
            .unwrap_or(Status::WaitingForOrder)
    }

    /// What the ledger holds for it.
    pub(crate) fn balance(&self) -> u64 {
        self.state.balance()
    }

    /// What a new client is told (section 3.1).
    pub(crate) fn greeting(&self) -> Value {
        let status = self.status();
        let message = if self.ready && !self.up {
            "the ledger cannot be reached"
        } else {
            status.message()
        };
        json!({
            "name": self.terms.name,
            "status": status,
            "message": message,
            "role": self.terms.role,
            "value": self.terms.value,
            "balance": self.balance(),
            "asset": self.terms.asset.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": "1.0",
        })
    }

    /// Units that left within the last hour.
    pub(crate) fn spent_last_hour(&self) -> u64 {
        payout::spent_last_hour(&self.state, self.now)
    }

    /// The order of this name.
    pub(crate) fn order_by_id(&self, id: &str) -> Option<&Order> {
        self.state.orders.get(self.state.by_id.get(id)?)
    }

    /// The newest orders before the one of this number, oldest first: as many as `limit` says, and no more
    /// than `bytes_max` of them, yet one at least.
    pub(crate) fn list(
        &self,
        before: u64,
        stage: Option<u8>,
        limit: usize,
        bytes_max: usize,
    ) -> Vec<&Order> {
        let mut bytes = 0;
        let newest = self.state.orders.range(..before).rev();
        let mut found: Vec<&Order> = newest
            .map(|(_, order)| order)
            .filter(|order| stage.is_none_or(|stage| order.stage.number() == stage))
            .take(limit)
            .take_while(|order| {
                let first = bytes == 0;
                bytes += order.weight();
                first || bytes <= bytes_max
            })
            .collect();
        found.reverse();
        found
    }

    /// All orders that are kept, oldest first.
    pub(crate) fn orders(&self) -> impl DoubleEndedIterator<Item = &Order> {
        self.state.orders.values()
    }

    /// Place, units and key index of every unspent output.
    pub(crate) fn coins(&self) -> impl Iterator<Item = (OutputRef, u64, u64)> {
        let coins = self.state.coins.values();
        coins.map(|coin| (coin.output, coin.units, coin.index))
    }

    /// The newest index that was given away.
    pub(crate) fn index(&self) -> u64 {
        self.state.meta.index
    }

    /// The address of an index.
    pub(crate) fn address(&self, index: u64) -> crate::Address {
        match self.state.by_index.get(&index) {
            Some(number) => self.state.orders[number].address.clone(),
            None => self.seed.address(index),
        }
    }

    /// The key of an index.
    pub(crate) fn key(&self, index: u64) -> PublicKey {
        self.seed.key(index).public_key()
    }

    /// Its terms.
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether orders are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.ready && self.up
    }

    // --- what happens ---------------------------------------------------------------------------

    fn start(&mut self, survey: Option<Survey>) {
        if let Some(survey) = survey {
            while self.state.meta.index < survey.index {
                self.next_index();
            }
            for (output, units, index) in survey.coins {
                self.change(Record::Coin(Coin {
                    output,
                    units,
                    index,
                }));
            }
            self.state.meta.cursor = Some(survey.cursor);
        }
        self.ready = true;
        self.up = true;
        self.forget_old_orders();
        let newest = self.state.active.last().copied();
        self.say_machine_status(newest);
    }

    fn order(&mut self, id: String, request: OrderRequest) -> Result<u64, OrderError> {
        if let Some(number) = request
            .repeat_key
            .as_ref()
            .and_then(|key| self.state.by_repeat_key.get(key))
        {
            if self.state.orders[number].data != request.data {
                return Err(OrderError::new(
                    Code::InvalidOrder,
                    "this Idempotency-Key named another order before",
                ));
            }
            return Ok(*number);
        }
        if !self.is_open() {
            return Err(OrderError::new(
                Code::LedgerUnavailable,
                "the ledger cannot be reached at the moment",
            ));
        }
        if self.state.active.len() >= self.terms.open_orders_max {
            return Err(OrderError::new(
                Code::Busy,
                format!("{} orders are open already", self.state.active.len()),
            ));
        }
        let (product, price) = self.price(request.product)?;
        let value = price
            .checked_mul(request.quantity)
            .filter(|value| *value <= daybook_ledger::AMOUNT_MAX)
            .ok_or_else(|| OrderError::new(Code::InvalidOrder, "nobody could pay for that many"))?;
        let index = self.next_index();
        self.state.meta.number += 1;
        let number = self.state.meta.number;
        self.change_order(Order {
            number,
            id,
            index,
            address: self.seed.address(index),
            public_key: self.seed.key(index).public_key(),
            value,
            product,
            quantity: request.quantity,
            client_ref: request.client_ref,
            refund_key: request.refund_key,
            data: request.data,
            repeat_key: request.repeat_key,
            created: self.now,
            expires: self.now.after_ms(self.terms.order_ttl_ms),
            stage: Stage::Open,
            payments: Vec::new(),
            received: 0,
            late: 0,
            unlisted: 0,
            paid_at: None,
            done_at: None,
            payout: None,
            attempts: 0,
            refunds: Vec::new(),
            error: None,
            result: None,
        });
        self.say_status(
            number,
            Status::WaitingForTx,
            format!("send {value} to the address shown"),
        );
        Ok(number)
    }

    fn price(&self, wanted: Option<String>) -> Result<(Option<String>, u64), OrderError> {
        let products = &self.terms.products;
        match (wanted, products.first()) {
            (wanted, None) => Ok((wanted, self.terms.value)),
            (None, Some(first)) => Ok((Some(first.name.clone()), first.value)),
            (Some(wanted), Some(_)) => products
                .iter()
                .find(|product| product.name == wanted)
                .map(|product| (Some(wanted.clone()), product.value))
                .ok_or_else(|| {
                    OrderError::new(
                        Code::UnknownProduct,
                        format!("there is no product `{wanted}`"),
                    )
                }),
        }
    }

    fn progress(&mut self, number: u64, text: &str) {
        if self.running == Some(number) {
            self.say_status(number, Status::Working, text.to_owned());
        }
    }

    fn worked(&mut self, number: u64, outcome: Result<String, String>) {
        if self.running == Some(number) {
            self.running = None;
        }
        if self.state.orders.get(&number).map(|order| order.stage) != Some(Stage::Working) {
            return;
        }
        match outcome {
            Ok(result) => {
                let now = self.now;
                self.edit(number, |order| {
                    order.stage = Stage::Done;
                    order.done_at = Some(now);
                    order.result = Some(result).filter(|result| !result.is_empty());
                });
                self.say_machine_status(Some(number));
                self.forget_old_orders();
            }
            Err(reason) => self.fail(
                number,
                OrderError::new(Code::WorkFailed, format!("the work failed: {reason}")),
                self.terms.refund_failed,
            ),
        }
    }

    /// An order ends badly after it was paid.
    fn fail(&mut self, number: u64, error: OrderError, refund: bool) {
        let now = self.now;
        self.edit(number, |order| {
            order.stage = Stage::Failed;
            order.done_at = Some(now);
            order.error = Some(error.message.clone());
        });
        if refund {
            self.refund_all(number);
        }
        self.complain(number, error);
        self.say_machine_status(Some(number));
        self.forget_old_orders();
    }

    // --- what is due ----------------------------------------------------------------------------

    /// Begins what is due and not under way. Called after every event; doing nothing is the usual case.
    fn run(&mut self) {
        self.wake = None;
        for number in self.state.active.iter().copied().collect::<Vec<_>>() {
            match self.state.orders[&number].stage {
                Stage::Open => self.run_open(number),
                Stage::Paid => self.run_payout(number),
                Stage::Working => self.run_work(number),
                Stage::Done | Stage::Expired | Stage::Failed => {}
            }
            self.run_refunds(number);
        }
        // The hook that ended above leaves the place to the next order.
        if self.running.is_none() {
            for number in self.state.active.iter().copied().collect::<Vec<_>>() {
                if self.state.orders[&number].stage == Stage::Working {
                    self.run_work(number);
                }
            }
        }
        let sent: Vec<(TransactionId, String)> = self
            .state
            .sends
            .values()
            .filter(|send| send.fate == SendFate::Sent)
            .map(|send| (send.id, send.text.clone()))
            .collect();
        for (id, text) in sent {
            self.submit(id, text);
        }
        self.coins_came = false;
        self.drop_old_sends();
        let active = &self.state.active;
        self.watches.retain(|number, _| active.contains(number));
    }

    fn run_open(&mut self, number: u64) {
        let order = &self.state.orders[&number];
        let (expires, key) = (order.expires, order.public_key);
        let pending: Vec<(TransactionId, String)> = order
            .payments
            .iter()
            .filter_map(|payment| Some((payment.transaction, payment.pending.clone()?)))
            .collect();
        let mut watch = self.watches.get(&number).copied().unwrap_or_default();
        if pending.is_empty() {
            watch.repeat_at = None;
            if self.now < expires {
                self.wake_at(expires);
            } else if self.up && !watch.checking {
                if self.now >= watch.check_at {
                    watch.checking = true;
                    self.effects.push(Effect::Check { number, key });
                } else {
                    self.wake_at(watch.check_at);
                }
            }
        } else {
            let at = watch
                .repeat_at
                .unwrap_or(self.now.after_ms(self.terms.status_repeat_ms));
            watch.repeat_at = Some(at);
            if self.now >= at {
                watch.repeat_at = Some(self.now.after_ms(self.terms.status_repeat_ms));
                self.say_status(
                    number,
                    Status::WaitingForTxConfirm,
                    "still waiting for the payment to become final".to_owned(),
                );
            }
            if let Some(at) = watch.repeat_at {
                self.wake_at(at);
            }
        }
        self.watches.insert(number, watch);
        for (id, text) in pending {
            self.submit(id, text);
        }
    }

    fn run_work(&mut self, number: u64) {
        if !self.terms.works {
            return self.worked(number, Ok(String::new()));
        }
        if self.running.is_some() {
            return;
        }
        self.running = Some(number);
        self.edit(number, |order| order.attempts += 1);
        let order = &self.state.orders[&number];
        let mut view = order.view();
        view["order_id"] = json!(order.id);
        view["machine"] = json!(self.terms.name);
        view["request"] = serde_json::from_str(&order.data).unwrap_or(Value::Null);
        self.effects.push(Effect::Work {
            number,
            order: view,
        });
    }

    /// Sends a stored transaction, unless it is on its way or was so a moment ago.
    fn submit(&mut self, transaction: TransactionId, text: String) {
        let submission = self.submissions.entry(transaction).or_default();
        if submission.under_way {
            return;
        }
        if self.now < submission.next {
            let next = submission.next;
            return self.wake_at(next);
        }
        submission.under_way = true;
        self.effects.push(Effect::Submit { transaction, text });
    }

    fn submit_later(&mut self, transaction: TransactionId) {
        let submission = self.submissions.entry(transaction).or_default();
        let pause = backed_off(RESEND_MS_MIN, submission.failures, RESEND_MS_MAX);
        submission.under_way = false;
        submission.failures = submission.failures.saturating_add(1);
        submission.next = self.now.after_ms(pause);
    }

    fn wake_at(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    // --- the memory -----------------------------------------------------------------------------

    fn next_index(&mut self) -> u64 {
        self.state.meta.index += 1;
        let index = self.state.meta.index;
        self.keys.insert(self.seed.key(index).public_key(), index);
        index
    }

    fn change(&mut self, record: Record) {
        self.state.apply(&record);
        self.records.push(record);
    }

    fn change_order(&mut self, order: Order) {
        self.change(Record::Order(Box::new(order)));
    }

    fn edit(&mut self, number: u64, edit: impl FnOnce(&mut Order)) {
        let mut order = self.state.orders[&number].clone();
        edit(&mut order);
        self.change_order(order);
    }

    fn edit_send(&mut self, id: &TransactionId, fate: SendFate) {
        if let Some(send) = self.state.sends.get(id) {
            let send = Send {
                fate,
                // It left now: the window of the spending limit begins here.
                at: match fate {
                    SendFate::Committed => self.now,
                    SendFate::Sent | SendFate::Refused => send.at,
                },
                ..send.clone()
            };
            self.change(Record::Send(send));
        }
    }

    /// Counters go to disk with whatever changed with them; a cursor alone may wait.
    fn save_meta(&mut self) {
        let meta = &self.state.meta;
        let counted = Meta {
            cursor: self.meta_saved.cursor,
            ..meta.clone()
        } != self.meta_saved;
        let moved = meta.cursor != self.meta_saved.cursor
            && self.now >= self.cursor_saved_at.after_ms(CURSOR_SAVE_MS);
        if self.ready && (counted || moved || !self.records.is_empty()) {
            self.meta_saved = meta.clone();
            self.cursor_saved_at = self.now;
            self.records.push(Record::Meta(meta.clone()));
        }
    }

    fn forget_old_orders(&mut self) {
        self.keep_orders(ORDERS_KEPT_MAX, ORDERS_KEPT_BYTES_MAX);
    }

    /// Forgets the oldest orders that are over, until the others are within these bounds.
    fn keep_orders(&mut self, count_max: usize, bytes_max: usize) {
        while self.state.orders.len() > count_max || self.state.orders_bytes > bytes_max {
            let over = self
                .state
                .orders
                .keys()
                .find(|number| !self.state.active.contains(number));
            match over.copied() {
                Some(number) => self.change(Record::Forget(number)),
                None => return,
            }
        }
    }

    fn drop_old_sends(&mut self) {
        let now = self.now;
        let old: Vec<TransactionId> = self
            .state
            .sends
            .values()
            .filter(|send| {
                send.fate != SendFate::Sent
                    && now >= send.at.after_ms(payout::HOUR_MS)
                    && !send
                        .spends
                        .iter()
                        .any(|output| self.state.coins.contains_key(output))
            })
            .map(|send| send.id)
            .collect();
        for id in old {
            self.submissions.remove(&id);
            self.change(Record::Drop(id));
        }
    }

    // --- what is said ---------------------------------------------------------------------------

    fn reply(&mut self, ticket: u64, answer: Result<u64, OrderError>) {
        let answer = answer.map(|number| Box::new(self.state.orders[&number].clone()));
        // Statuses of the same step come after the answer, as the customer expects them.
        let reply = Effect::Reply { ticket, answer };
        self.effects.insert(0, reply);
    }

    fn say(&mut self, event: &'static str, body: Value) {
        self.effects.push(Effect::Say { event, body });
    }

    fn say_status(&mut self, number: u64, status: Status, message: String) {
        self.state.meta.seq += 1;
        let order = &self.state.orders[&number];
        let body = json!({
            "status": status,
            "message": message,
            "name": self.terms.name,
            "order_id": order.id,
            "address": order.address,
            "at": self.now.to_string(),
            "seq": self.state.meta.seq,
        });
        self.say("status", body);
    }

    /// What the machine as a whole does now, because of what happened to this order.
    fn say_machine_status(&mut self, about: Option<u64>) {
        self.state.meta.seq += 1;
        let status = self.status();
        let mut body = json!({
            "status": status,
            "message": status.message(),
            "name": self.terms.name,
            "at": self.now.to_string(),
            "seq": self.state.meta.seq,
        });
        if let Some(order) = about.and_then(|number| self.state.orders.get(&number)) {
            body["order_id"] = json!(order.id);
            if let Some(error) = &order.error {
                body["message"] = json!(error);
            }
        }
        self.say("status", body);
    }

    fn complain(&mut self, number: u64, error: OrderError) {
        let order = &self.state.orders[&number];
        let complaint = Effect::Complain {
            order: order.id.clone(),
            client_ref: order.client_ref.clone(),
            error,
        };
        self.effects.push(complaint);
    }
}

/// Pauses that double from `first` up to `last`.
fn backed_off(first: u64, failures: u32, last: u64) -> u64 {
    first
        .checked_shl(failures)
        .filter(|pause| *pause >= first)
        .map_or(last, |pause| pause.min(last))
}

/// Whether an order's provider is being paid with this transfer.
fn pays(order: &Order, id: &TransactionId) -> Option<Provided> {
    match order.payout.as_ref().map(|payout| &payout.step) {
        Some(PayoutStep::Sending(provided, sent)) if sent == id => Some(provided.clone()),
        _ => None,
    }
}
