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
        for payment in payments {
            self.want_refund(number, payment);
        }
    }

    /// One payment shall go back.
    pub(super) fn want_refund(&mut self, number: u64, transaction: TransactionId) {
        let order = &self.state.orders[&number];
        let known = order
            .refunds
            .iter()
            .any(|refund| refund.payment == transaction);
        let payment = order
            .payments
            .iter()
            .find(|payment| payment.transaction == transaction && payment.units > 0);
        let (Some(payment), false) = (payment, known) else {
            return;
        };
        let to = order.refund_key.or(payment.payer);
        let refund = Refund {
            payment: transaction,
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
        for place in 0..self.state.orders[&number].refunds.len() {
            let order = &self.state.orders[&number];
            let refund = &order.refunds[place];
            let (RefundStep::Wanted, Some(to)) = (&refund.step, refund.to) else {
                continue;
            };
            // Change that came back may be what was missing.
            if self.now < refund.next && !self.coins_came {
                let next = refund.next;
                self.wake_at(next);
                continue;
            }
            let links = [
                ("kind", Value::from("refund")),
                ("order_id", Value::from(order.id.clone())),
                ("payment", Value::from(refund.payment.to_string())),
            ];
            let units = refund.units;
            let step =
                match self.make_transfer(Purpose::Refund(number, place), to, units, None, links) {
                    Ok(id) => RefundStep::Sending(id),
                    Err(later) => {
                        tracing::warn!(order = number, reason = later.reason(), "a refund waits");
                        RefundStep::Wanted
                    }
                };
            let next = self.now.after_ms(RETRY_MS);
            self.edit(number, |order| {
                order.refunds[place].step = step;
                order.refunds[place].next = next;
            });
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
