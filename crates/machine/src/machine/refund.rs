//! Money that goes back: each payment to the key it came from.

use daybook_ledger::{TransactionId, json::Value};

use super::Machine;
use crate::{
    order::{Refund, RefundStep},
    state::Purpose,
};

/// Before a refund that could not be made is tried again: a limit of the hour or coins bound in other
/// transfers need minutes, not seconds.
const RETRY_MS: u64 = 60_000;

impl Machine {
    /// Everything that was paid for an order and not given back shall go back.
    pub(super) fn refund_all(&mut self, number: u64) {
        let order = &self.state.orders[&number];
        let payments: Vec<TransactionId> = order
            .payments
            .iter()
            .filter(|payment| payment.committed)
            .map(|payment| payment.transaction)
            .collect();
        let unlisted = order.unlisted;
        for payment in payments {
            self.want_refund(number, payment);
        }
        self.owe_unlisted(number, unlisted);
    }

    /// Payments without a record of their own shall go back. To whom is in the ledger and not here, so a
    /// person must see to it; they are one sum, however many they are.
    pub(super) fn owe_unlisted(&mut self, number: u64, units: u64) {
        if units == 0 {
            return;
        }
        let now = self.now;
        self.edit(number, |order| {
            let owed = order.refunds.iter_mut().find(|owed| owed.payment.is_none());
            match owed {
                Some(owed) => owed.units = owed.units.saturating_add(units),
                None => order.refunds.push(Refund {
                    payment: None,
                    to: order.refund_key,
                    units,
                    next: now,
                    step: RefundStep::Owed(
                        "more payments came than are listed one by one".to_owned(),
                    ),
                }),
            }
        });
    }

    /// One payment shall go back.
    pub(super) fn want_refund(&mut self, number: u64, transaction: TransactionId) {
        let order = &self.state.orders[&number];
        let known = order
            .refunds
            .iter()
            .any(|refund| refund.payment == Some(transaction));
        let payment = order
            .payments
            .iter()
            .find(|payment| payment.transaction == transaction && payment.units > 0);
        let (Some(payment), false) = (payment, known) else {
            return;
        };
        let to = order.refund_key.or(payment.payer);
        let refund = Refund {
            payment: Some(transaction),
            to,
            units: payment.units,
            next: self.now,
            step: match to {
                Some(_) => RefundStep::Wanted,
                None => RefundStep::Owed("several keys paid, and none was named".to_owned()),
            },
        };
        self.edit(number, |order| order.refunds.push(refund));
    }

    pub(super) fn run_refunds(&mut self, number: u64) {
        let watch = self.watches.get(&number).copied().unwrap_or_default();
        let mut waits = false;
        for place in 0..self.state.orders[&number].refunds.len() {
            let order = &self.state.orders[&number];
            let refund = &order.refunds[place];
            let (RefundStep::Wanted, Some(to)) = (&refund.step, refund.to) else {
                continue;
            };
            // Change that came back may be what was missing.
            let next = refund.next.max(watch.refund_at);
            if self.now < next && !self.coins_came {
                self.wake_at(next);
                continue;
            }
            let payment = refund.payment.map(|payment| payment.to_string());
            let links = [
                ("kind", Value::from("refund")),
                ("order_id", Value::from(order.id.clone())),
                ("payment", payment.map_or(Value::Null, Value::from)),
            ];
            let units = refund.units;
            match self.make_transfer(Purpose::Refund(number, place), to, units, None, links) {
                Ok(id) => self.edit(number, |order| {
                    order.refunds[place].step = RefundStep::Sending(id);
                }),
                Err(later) => {
                    tracing::debug!(order = number, reason = later.reason(), "a refund waits");
                    waits = true;
                }
            }
        }
        if waits {
            let next = self.now.after_ms(RETRY_MS);
            self.watches.entry(number).or_default().refund_at = next;
            self.wake_at(next);
        }
    }

    pub(super) fn refund_paid(&mut self, number: u64, place: usize, id: TransactionId) {
        self.edit_refund(number, place, |refund| {
            if refund.step == RefundStep::Sending(id) {
                refund.step = RefundStep::Paid(id);
            }
        });
    }

    pub(super) fn refund_refused(
        &mut self,
        number: u64,
        place: usize,
        dead: bool,
        message: String,
    ) {
        let next = self.now.after_ms(RETRY_MS);
        self.edit_refund(number, place, |refund| {
            refund.next = next;
            refund.step = if dead {
                RefundStep::Wanted
            } else {
                RefundStep::Owed(message)
            };
        });
    }

    fn edit_refund(&mut self, number: u64, place: usize, edit: impl FnOnce(&mut Refund)) {
        let known = self.state.orders.get(&number);
        if known.is_some_and(|order| place < order.refunds.len()) {
            self.edit(number, |order| edit(&mut order.refunds[place]));
        }
    }
}
