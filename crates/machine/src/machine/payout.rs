//! Outgoing money: the provider's share (machines, section 7), and every transfer's making.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use daybook_ledger::{
    Draft, OutputRef, PublicKey, TransactionId,
    json::{Object, Value},
};

use super::{Effect, Fate, Machine, backed_off, pays};
use crate::{
    Moment, Status,
    order::{PayoutStep, Provided, Stage},
    request::{Code, OrderError},
    state::{Coin, Purpose, Record, Send, SendFate, State},
    terms::OnPayoutFailure,
};

/// The window of the spending limit.
pub(super) const HOUR_MS: u64 = 3_600_000;
/// First pause after a failed attempt to pay the provider (section 7).
const RETRY_MS_MIN: u64 = 1_000;
/// Longest such pause.
const RETRY_MS_MAX: u64 = 60_000;
/// Attempts before it is given up.
const ATTEMPTS_MAX: u32 = 10;
/// A provider's order that expires sooner than this is ordered anew: the transfer must commit in time.
const PROVIDER_MARGIN_MS: u64 = 5_000;
/// Outputs that one transfer spends at most: each costs a signature, and a node bounds transactions.
const SPENDS_MAX: usize = 200;
/// The tag that transfers of the field carry (section 7).
pub(crate) const TAG: &str = "AKITA9MACHINE";

/// Why a transfer cannot be made now.
pub(super) enum NoTransfer {
    /// The wallet does not hold that much, or it is bound in transfers under way.
    Short(String),
    /// It would pass the limit of the hour.
    Limit(String),
    /// This payee is not on the list.
    Payee(String),
}

impl NoTransfer {
    pub(super) fn reason(&self) -> &str {
        match self {
            NoTransfer::Short(reason) | NoTransfer::Limit(reason) | NoTransfer::Payee(reason) => {
                reason
            }
        }
    }
}

/// Units that left within the hour before `now`, or are on their way, however long ago they were signed:
/// what waits for the ledger's return leaves all at once.
pub(super) fn spent_last_hour(state: &State, now: Moment) -> u64 {
    let sends = state.sends.values();
    sends
        .filter(|send| match send.fate {
            SendFate::Sent => true,
            SendFate::Committed => now < send.at.after_ms(HOUR_MS),
            SendFate::Refused => false,
        })
        .fold(0, |sum, send| sum.saturating_add(send.units))
}

impl Machine {
    pub(super) fn run_payout(&mut self, number: u64) {
        let order = &self.state.orders[&number];
        let payout = order.payout.as_ref().expect("a paid order has a payout");
        let (next, due) = (payout.next, self.now >= payout.next);
        match (&payout.step, due) {
            (PayoutStep::Asking | PayoutStep::Answered(_), false) => self.wake_at(next),
            (PayoutStep::Asking, true) => {
                let repeat_key = format!("{}-{}", order.id, payout.round);
                let watch = self.watches.entry(number).or_default();
                if !watch.asking {
                    watch.asking = true;
                    self.effects.push(Effect::Ask { number, repeat_key });
                }
            }
            (PayoutStep::Answered(provided), true) => {
                let provided = provided.clone();
                self.pay_provider(number, provided);
            }
            // Its transfer is looked after with all others.
            (PayoutStep::Sending(..) | PayoutStep::Paid(..) | PayoutStep::Failed, _) => {}
        }
    }

    /// The provider answered, or did not.
    pub(super) fn provided(&mut self, number: u64, answer: Result<Provided, String>) {
        if let Some(watch) = self.watches.get_mut(&number) {
            watch.asking = false;
        }
        let asked = self
            .state
            .orders
            .get(&number)
            .and_then(|order| order.payout.as_ref())
            .is_some_and(|payout| payout.step == PayoutStep::Asking);
        if !asked {
            return;
        }
        let answer = answer.and_then(|provided| {
            let most = self.terms.provider_value_max;
            if provided.value > most {
                Err(format!(
                    "the provider asks for {}, and {most} is the most it may have",
                    provided.value
                ))
            } else if self.keys.contains_key(&provided.public_key) {
                Err("the provider names a key of this machine".to_owned())
            } else {
                Ok(provided)
            }
        });
        match answer {
            Ok(provided) => self.edit(number, |order| {
                if let Some(payout) = &mut order.payout {
                    payout.step = PayoutStep::Answered(provided);
                }
            }),
            Err(reason) => self.payout_failed(number, reason, PayoutStep::Asking),
        }
    }

    fn pay_provider(&mut self, number: u64, provided: Provided) {
        if provided
            .expires
            .is_some_and(|expires| expires <= self.now.after_ms(PROVIDER_MARGIN_MS))
        {
            let reason = "the provider's order expired before it was paid".to_owned();
            // The same request would get the same order again.
            self.edit(number, |order| {
                if let Some(payout) = &mut order.payout {
                    payout.round += 1;
                }
            });
            return self.payout_failed(number, reason, PayoutStep::Asking);
        }
        let order = &self.state.orders[&number];
        let links = [
            ("kind", Value::from("payout")),
            ("order_id", Value::from(order.id.clone())),
            ("address", Value::from(provided.address.to_string())),
            (
                "payments",
                order
                    .payments
                    .iter()
                    .map(|payment| Value::from(payment.transaction.to_string()))
                    .collect::<Vec<_>>()
                    .into(),
            ),
            (
                "provider_order",
                provided.order_id.clone().map_or(Value::Null, Value::from),
            ),
        ];
        let payee = self.terms.provider.clone();
        let made = self.make_transfer(
            Purpose::Payout(number),
            provided.public_key,
            provided.value,
            payee.as_deref(),
            links,
        );
        match made {
            Ok(id) => self.edit(number, |order| {
                if let Some(payout) = &mut order.payout {
                    payout.step = PayoutStep::Sending(provided, id);
                    payout.error = None;
                }
            }),
            Err(NoTransfer::Payee(reason)) => self.give_payout_up(number, &reason),
            Err(later) => {
                let reason = later.reason().to_owned();
                self.payout_failed(number, reason, PayoutStep::Answered(provided));
            }
        }
    }

    /// An attempt failed: another one later, or the end.
    fn payout_failed(&mut self, number: u64, reason: String, step: PayoutStep) {
        let now = self.now;
        let order = &self.state.orders[&number];
        let failures = order.payout.as_ref().map_or(0, |payout| payout.failures) + 1;
        if failures >= ATTEMPTS_MAX {
            return self.give_payout_up(number, &reason);
        }
        let next = now.after_ms(backed_off(RETRY_MS_MIN, failures - 1, RETRY_MS_MAX));
        self.edit(number, |order| {
            if let Some(payout) = &mut order.payout {
                payout.failures = failures;
                payout.next = next;
                payout.step = step;
                payout.error = Some(reason);
            }
        });
    }

    fn give_payout_up(&mut self, number: u64, reason: &str) {
        let message = format!("the provider could not be paid: {reason}");
        self.edit(number, |order| {
            if let Some(payout) = &mut order.payout {
                payout.step = PayoutStep::Failed;
                payout.error = Some(reason.to_owned());
            }
        });
        match self.terms.on_payout_failure {
            OnPayoutFailure::Work => {
                self.edit(number, |order| order.stage = Stage::Working);
                self.say_status(number, Status::Working, message);
            }
            OnPayoutFailure::Fail => {
                let refund = self.terms.refund_failed;
                self.fail(number, OrderError::new(Code::PayoutFailed, message), refund);
            }
        }
    }

    /// What became of a transfer of ours.
    pub(super) fn own_settled(&mut self, id: TransactionId, fate: Fate) {
        let send = &self.state.sends[&id];
        if send.fate != SendFate::Sent {
            return;
        }
        let purpose = send.purpose;
        let (class, message) = match fate {
            Fate::Unknown => return self.submit_later(id),
            Fate::Committed => {
                self.submissions.remove(&id);
                self.edit_send(&id, SendFate::Committed);
                match purpose {
                    Purpose::Payout(number) => self.provider_paid(number, id),
                    Purpose::Refund(number, place) => self.refund_paid(number, place, id),
                }
                return;
            }
            Fate::Refused { class, message } => (class, message),
        };
        self.submissions.remove(&id);
        self.edit_send(&id, SendFate::Refused);
        // What an input of it was spent by is in the log, so it can never commit, and another transfer
        // may take its place. After any other refusal nobody can be sure of that.
        let dead = class.as_deref() == Some("DoubleSpend");
        match purpose {
            Purpose::Payout(number) => {
                let Some(provided) = self
                    .state
                    .orders
                    .get(&number)
                    .and_then(|order| pays(order, &id))
                else {
                    return;
                };
                if dead {
                    self.payout_failed(number, message, PayoutStep::Answered(provided));
                } else {
                    self.give_payout_up(number, &message);
                }
            }
            Purpose::Refund(number, place) => self.refund_refused(number, place, dead, message),
        }
    }

    fn provider_paid(&mut self, number: u64, id: TransactionId) {
        let Some(provided) = self
            .state
            .orders
            .get(&number)
            .and_then(|order| pays(order, &id))
        else {
            return;
        };
        self.edit(number, |order| {
            order.stage = Stage::Working;
            if let Some(payout) = &mut order.payout {
                payout.step = PayoutStep::Paid(provided, id);
                payout.error = None;
            }
        });
        self.say_status(
            number,
            Status::Working,
            "the provider is paid; working".to_owned(),
        );
    }

    /// Signs a transfer and puts it on record, within the limits; it is sent when the record is on
    /// disk. Coins of the order go first; what is over goes to a fresh key of our own. A refund leaves the
    /// order's other coins to the refunds beside it.
    pub(super) fn make_transfer(
        &mut self,
        purpose: Purpose,
        to: PublicKey,
        units: u64,
        payee: Option<&str>,
        links: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<TransactionId, NoTransfer> {
        self.check_limits(to, units, payee)?;
        let (number, refund) = match purpose {
            Purpose::Payout(number) => (number, false),
            Purpose::Refund(number, _) => (number, true),
        };
        let chosen = self.choose_coins(self.state.orders[&number].index, units, !refund)?;
        let sum: u128 = chosen.values().map(|(units, _)| u128::from(*units)).sum();
        let mut keys: BTreeMap<u64, daybook_ledger::SigningKey> = BTreeMap::new();
        let mut draft = Draft::transfer(self.terms.asset);
        for (output, (_, index)) in &chosen {
            let key = keys.entry(*index).or_insert_with(|| self.seed.key(*index));
            draft = draft.spend(*output, &*key);
        }
        if units > 0 {
            draft = draft.output(units, to);
        }
        let mut over = sum - u128::from(units);
        if over > 0 {
            let index = self.next_index();
            let own = self.seed.key(index).public_key();
            while over > 0 {
                let part = over.min(u128::from(daybook_ledger::AMOUNT_MAX));
                draft = draft.output(u64::try_from(part).expect("within an amount"), own);
                over -= part;
            }
        }
        let links = [("tag", Value::from(TAG))].into_iter().chain(links);
        draft = draft.metadata(Object::from_iter(
            links.filter(|(_, value)| *value != Value::Null),
        ));
        let signers: Vec<&daybook_ledger::SigningKey> = keys.values().collect();
        let transaction = draft
            .sign(&signers)
            .map_err(|error| NoTransfer::Short(format!("no transfer can be made: {error}")))?;
        let id = transaction.id();
        tracing::info!(%id, units, refund, order = number, "a transfer is signed");
        self.change(Record::Send(Send {
            id,
            text: String::from_utf8_lossy(transaction.canonical()).into_owned(),
            purpose,
            units,
            spends: chosen.keys().copied().collect(),
            at: self.now,
            fate: SendFate::Sent,
        }));
        Ok(id)
    }

    fn check_limits(
        &self,
        to: PublicKey,
        units: u64,
        payee: Option<&str>,
    ) -> Result<(), NoTransfer> {
        let limits = &self.terms.limits;
        if let (Some(payee), Some(payees)) = (payee, &limits.payees) {
            let key = to.to_string();
            if !payees.iter().any(|known| known == payee || *known == key) {
                return Err(NoTransfer::Payee(format!(
                    "{payee} is not among those whom this machine may pay"
                )));
            }
        }
        if let Some(most) = limits.per_hour {
            let spent = spent_last_hour(&self.state, self.now);
            if spent.saturating_add(units) > most {
                return Err(NoTransfer::Limit(format!(
                    "{spent} of the {most} that may leave within an hour are spent"
                )));
            }
        }
        Ok(())
    }

    /// Coins for at least `units`, with their units and key indexes; at least one coin, those of the key
    /// `first` before others. `sweeping` takes crumbs along.
    fn choose_coins(
        &self,
        first: u64,
        units: u64,
        sweeping: bool,
    ) -> Result<BTreeMap<OutputRef, (u64, u64)>, NoTransfer> {
        let bound: BTreeSet<OutputRef> = self
            .state
            .sends
            .values()
            .filter(|send| send.fate != SendFate::Refused)
            .flat_map(|send| send.spends.iter().copied())
            .collect();
        // What was paid for an order that is not over is not spent on another one.
        let others: BTreeSet<u64> = self
            .state
            .active
            .iter()
            .map(|number| self.state.orders[number].index)
            .filter(|index| *index != first)
            .collect();
        // Keys of orders are public, so anybody can fill them with crumbs: the largest coins come first.
        let mut free: Vec<&Coin> = self
            .state
            .coins
            .values()
            .filter(|coin| !bound.contains(&coin.output) && !others.contains(&coin.index))
            .collect();
        free.sort_by_key(|coin| (Reverse(coin.units), coin.output));
        let (own, foreign): (Vec<&Coin>, Vec<&Coin>) =
            free.iter().partition(|coin| coin.index == first);
        let (mut chosen, mut sum) = enough(own.into_iter().chain(foreign), units);
        if sum < u128::from(units) {
            // The order's own coins are too many for too little: only the largest of all are left.
            (chosen, sum) = enough(free.iter().copied(), units);
        }
        if sum < u128::from(units) || chosen.is_empty() {
            return Err(NoTransfer::Short(format!(
                "{sum} can be spent at the moment, and {units} are wanted"
            )));
        }
        if sweeping {
            // What lies on the same keys comes along while there is room, so that crumbs do not pile up.
            let keys: BTreeSet<u64> = chosen.values().map(|(_, index)| *index).collect();
            for coin in free.iter().filter(|coin| keys.contains(&coin.index)) {
                if chosen.len() >= SPENDS_MAX {
                    break;
                }
                chosen.insert(coin.output, (coin.units, coin.index));
            }
        }
        Ok(chosen)
    }
}

/// The first coins that make up `units`, by their outputs: units and key index. With their sum, which is
/// less when there are too few.
fn enough<'c>(
    coins: impl Iterator<Item = &'c Coin>,
    units: u64,
) -> (BTreeMap<OutputRef, (u64, u64)>, u128) {
    let mut chosen = BTreeMap::new();
    let mut sum = 0_u128;
    for coin in coins.take(SPENDS_MAX) {
        chosen.insert(coin.output, (coin.units, coin.index));
        sum += u128::from(coin.units);
        if sum >= u128::from(units) {
            break;
        }
    }
    (chosen, sum)
}
