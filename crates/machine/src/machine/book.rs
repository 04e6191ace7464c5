//! Incoming money: seen, booked once, and enough or not.

use std::collections::{BTreeMap, BTreeSet};

use daybook_ledger::{PublicKey, TransactionId};
use serde_json::json;

use super::{Announcement, Fate, Machine, Transfer};
use crate::{
    Status,
    order::{Payment, Payout, PayoutStep, Stage},
    request::{Code, OrderError},
    state::{Coin, Record, SendFate},
};

/// Payments of one order that may wait for their block at once: more is no customer.
const PENDING_MAX: usize = 8;
/// Transactions that pay one order: an order is not a savings box, and its record is written whole.
const PAYMENTS_MAX: usize = 256;

impl Machine {
    /// A customer hands in the transaction that pays an order.
    pub(super) fn announced(&mut self, id: &str, payment: Announcement) -> Result<u64, OrderError> {
        let number = *self
            .state
            .by_id
            .get(id)
            .ok_or_else(|| OrderError::new(Code::InvalidOrder, "there is no such order"))?;
        let order = &self.state.orders[&number];
        if order
            .payments
            .iter()
            .any(|known| known.transaction == payment.transaction)
        {
            return Ok(number);
        }
        match order.stage {
            Stage::Open => {}
            Stage::Expired | Stage::Failed => {
                return Err(OrderError::new(
                    Code::PaymentExpired,
                    "the order is over; nothing was sent on",
                ));
            }
            Stage::Paid | Stage::Working | Stage::Done => {
                return Err(OrderError::new(
                    Code::InvalidOrder,
                    "the order is paid already; nothing was sent on",
                ));
            }
        }
        let pending = order.payments.iter().filter(|known| !known.committed);
        if pending.count() >= PENDING_MAX || order.payments.len() >= PAYMENTS_MAX {
            return Err(OrderError::new(
                Code::Busy,
                "too many payments of this order wait already",
            ));
        }
        self.edit(number, |order| {
            order.payments.push(Payment {
                transaction: payment.transaction,
                units: payment.units,
                payer: payment.payer,
                committed: false,
                late: false,
                pending: Some(payment.text),
            });
        });
        self.say_seen(number);
        Ok(number)
    }

    /// A transaction with the token is in the log.
    pub(super) fn transfer(&mut self, transfer: &Transfer) {
        // A part of the ledger that was read already: its coins may be spent by now.
        if self.state.meta.cursor >= Some(transfer.cursor) {
            return;
        }
        self.state.meta.cursor = Some(transfer.cursor);
        let before = self.balance();
        for output in &transfer.spends {
            if self.state.coins.contains_key(output) {
                self.change(Record::Spent(*output));
            }
        }
        let mut paid: BTreeMap<u64, u64> = BTreeMap::new();
        for (place, key, units) in &transfer.outputs {
            let Some(index) = self.keys.get(key).copied() else {
                continue;
            };
            self.coins_came = true;
            self.change(Record::Coin(Coin {
                output: daybook_ledger::OutputRef {
                    transaction: transfer.id,
                    index: *place,
                },
                units: *units,
                index,
            }));
            if let Some(number) = self.state.by_index.get(&index) {
                let sum = paid.entry(*number).or_default();
                *sum = sum.saturating_add(*units);
            }
        }
        if let Some(address) = &transfer.names {
            // Only an order without a price can be paid by being named.
            let free: Vec<u64> = self
                .state
                .active
                .iter()
                .copied()
                .filter(|number| {
                    let order = &self.state.orders[number];
                    order.value == 0
                        && (order.address.as_str() == address
                            || order.address.with_checksum() == *address)
                })
                .collect();
            for number in free {
                paid.entry(number).or_default();
            }
        }
        for (number, units) in paid {
            self.book(number, transfer.id, units, transfer.payer);
        }
        // Our own transfer is also told by its submission; whichever comes first counts.
        if self
            .state
            .sends
            .get(&transfer.id)
            .is_some_and(|send| send.fate == SendFate::Sent)
        {
            self.settled(transfer.id, Fate::Committed);
        }
        if self.balance() != before {
            let balance = self.balance();
            self.say("new_balance", json!({ "balance": balance }));
        }
    }

    /// Books a committed payment. The same transaction is booked once, however often it is told.
    fn book(
        &mut self,
        number: u64,
        transaction: TransactionId,
        units: u64,
        payer: Option<PublicKey>,
    ) {
        self.submissions.remove(&transaction);
        let order = &self.state.orders[&number];
        let known = order
            .payments
            .iter()
            .position(|payment| payment.transaction == transaction);
        if known.is_some_and(|place| order.payments[place].committed) {
            return;
        }
        let late = order.stage.is_over();
        let open = order.stage == Stage::Open;
        let payment = Payment {
            transaction,
            units,
            payer,
            committed: true,
            late,
            pending: None,
        };
        if known.is_none() && open {
            // Pending or not, every payment is seen before it is final.
            self.edit(number, |order| {
                order.payments.push(Payment {
                    committed: false,
                    ..payment.clone()
                });
            });
            self.say_seen(number);
        }
        self.edit(number, |order| {
            order
                .payments
                .retain(|known| known.transaction != transaction);
            // What comes on top of very many payments is counted, and its own record left out.
            if order.payments.len() < PAYMENTS_MAX {
                order.payments.push(payment);
            } else {
                order.unlisted = order.unlisted.saturating_add(units);
            }
            let sum = if late {
                &mut order.late
            } else {
                &mut order.received
            };
            *sum = sum.saturating_add(units);
        });
        let order = &self.state.orders[&number];
        if late && self.terms.refund_late {
            let listed = |payment: &Payment| payment.transaction == transaction;
            if order.payments.iter().any(listed) {
                self.want_refund(number, transaction);
            } else {
                self.owe_unlisted(number, units);
            }
        } else if open && order.received >= order.value {
            self.paid(number);
        } else if open && !order.is_pending() {
            let (received, value) = (order.received, order.value);
            self.say_status(
                number,
                Status::WaitingForTx,
                format!(
                    "{received} of {value} received; send the missing {}",
                    value - received
                ),
            );
        }
    }

    /// The one way from open to paid.
    fn paid(&mut self, number: u64) {
        let now = self.now;
        let provider = self.terms.provider.is_some();
        self.edit(number, |order| {
            debug_assert_eq!(order.stage, Stage::Open);
            order.paid_at = Some(now);
            // Whatever else was announced shows up in the log, or it was never sent.
            order.payments.retain(|payment| payment.committed);
            if provider {
                order.stage = Stage::Paid;
                order.payout = Some(Payout {
                    failures: 0,
                    round: 0,
                    next: now,
                    step: PayoutStep::Asking,
                    error: None,
                });
            } else {
                order.stage = Stage::Working;
            }
        });
        let status = self.state.orders[&number].status();
        self.say_status(number, status, format!("paid; {}", status.message()));
        self.say(
            "tx_confirmed",
            json!({"status": status, "message": "The payment is final."}),
        );
    }

    fn say_seen(&mut self, number: u64) {
        self.say_status(
            number,
            Status::WaitingForTxConfirm,
            Status::WaitingForTxConfirm.message().to_owned(),
        );
        self.say(
            "tx_income",
            json!("A payment was seen. Please wait until it is final."),
        );
    }

    /// What became of a transaction that was submitted: a payment that was handed in, or our own.
    pub(super) fn settled(&mut self, transaction: TransactionId, fate: Fate) {
        if self.state.sends.contains_key(&transaction) {
            return self.own_settled(transaction, fate);
        }
        let waits = |number: &&u64| {
            let payments = &self.state.orders[number].payments;
            payments
                .iter()
                .any(|payment| payment.transaction == transaction && !payment.committed)
        };
        let Some(number) = self.state.active.iter().find(waits).copied() else {
            self.submissions.remove(&transaction);
            return;
        };
        match fate {
            // It is booked when the ledger's own stream tells of it.
            Fate::Committed => {}
            Fate::Refused { message, .. } => {
                self.submissions.remove(&transaction);
                self.edit(number, |order| {
                    order
                        .payments
                        .retain(|payment| payment.transaction != transaction);
                });
                let status = self.state.orders[&number].status();
                self.say_status(
                    number,
                    status,
                    format!("the payment was refused by the ledger: {message}"),
                );
            }
            Fate::Unknown => self.submit_later(transaction),
        }
    }

    /// What the ledger lists for the key of an order whose time is over.
    pub(super) fn checked(&mut self, number: u64, transactions: Option<Vec<TransactionId>>) {
        let again = self.now.after_ms(self.terms.confirm_poll_ms);
        if let Some(watch) = self.watches.get_mut(&number) {
            watch.checking = false;
            watch.check_at = again;
        }
        let Some(order) = self.state.orders.get(&number) else {
            return;
        };
        let Some(listed) = transactions else {
            return;
        };
        let booked: BTreeSet<TransactionId> = order
            .payments
            .iter()
            .map(|payment| payment.transaction)
            .collect();
        // A payment that the stream has not told yet: it will. Where payments have no record of their own
        // any more, nobody can tell which are missing.
        let missing = booked.len() < PAYMENTS_MAX && listed.iter().any(|id| !booked.contains(id));
        if order.stage != Stage::Open || order.is_pending() || missing {
            return;
        }
        let (received, value) = (order.received, order.value);
        let error = if received == 0 {
            OrderError::new(Code::PaymentExpired, "the order expired without a payment")
        } else {
            OrderError::new(
                Code::Underpaid,
                format!("the order expired with {received} of {value} paid"),
            )
        };
        let now = self.now;
        self.edit(number, |order| {
            order.stage = Stage::Expired;
            order.done_at = Some(now);
            order.error = Some(error.message.clone());
        });
        if received > 0 && self.terms.refund_underpaid {
            self.refund_all(number);
        }
        self.say_machine_status(Some(number));
        self.complain(number, error);
        self.forget_old_orders();
    }
}
