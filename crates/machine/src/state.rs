//! What a machine remembers, and the records it is kept in.

use std::collections::{BTreeMap, BTreeSet};

use daybook_client::Cursor;
use daybook_ledger::{OutputRef, TransactionId};
use serde::{Deserialize, Serialize};

use crate::{Moment, order::Order, text};

/// Everything that survives a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) meta: Meta,
    /// By number.
    pub(crate) orders: BTreeMap<u64, Order>,
    pub(crate) coins: BTreeMap<OutputRef, Coin>,
    pub(crate) sends: BTreeMap<TransactionId, Send>,
    /// Numbers by id. Follows from `orders`.
    pub(crate) by_id: BTreeMap<String, u64>,
    /// Numbers by the name of the request. Follows from `orders`.
    pub(crate) by_repeat_key: BTreeMap<String, u64>,
    /// Numbers by index. Follows from `orders`.
    pub(crate) by_index: BTreeMap<u64, u64>,
    /// Orders with something left to do. Follows from `orders`.
    pub(crate) active: BTreeSet<u64>,
    /// Bytes that all orders take, about. Follows from `orders`.
    pub(crate) orders_bytes: usize,
}

/// Counters that only grow, and the place in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The address of index 0: says whose memory this is.
    pub(crate) owner: String,
    /// The token's id.
    pub(crate) asset: String,
    /// The newest index that was given away.
    pub(crate) index: u64,
    /// The newest order.
    pub(crate) number: u64,
    /// Statuses told so far.
    pub(crate) seq: u64,
    /// What of the ledger comes next; `None` before the first look at it.
    #[serde(with = "text::option")]
    pub(crate) cursor: Option<Cursor>,
}

/// An unspent output that this machine can spend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Coin {
    #[serde(with = "text::output")]
    pub(crate) output: OutputRef,
    pub(crate) units: u64,
    /// The index of its key.
    pub(crate) index: u64,
}

/// A transfer that this machine signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Send {
    #[serde(with = "text")]
    pub(crate) id: TransactionId,
    /// The signed text: exactly this is sent, however often.
    pub(crate) text: String,
    pub(crate) purpose: Purpose,
    /// What leaves this machine; change is not in it.
    pub(crate) units: u64,
    #[serde(with = "text::output::list")]
    pub(crate) spends: Vec<OutputRef>,
    pub(crate) at: Moment,
    pub(crate) fate: SendFate,
}

/// What a transfer is for: an order by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    Payout(u64),
    /// The order, and the place of the refund in it.
    Refund(u64, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SendFate {
    /// Not known yet.
    Sent,
    Committed,
    /// It can never commit.
    Refused,
}

/// One change of the state. A step is a list of them, kept or lost as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    Meta(Meta),
    Order(Box<Order>),
    /// An old order is forgotten.
    Forget(u64),
    Coin(Coin),
    /// A coin is spent.
    Spent(#[serde(with = "text::output")] OutputRef),
    Send(Send),
    /// A transfer is of no further interest.
    Drop(#[serde(with = "text")] TransactionId),
}

impl State {
    /// Makes a change.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Meta(meta) => self.meta = meta.clone(),
            Record::Order(order) => {
                self.by_id.insert(order.id.clone(), order.number);
                self.by_index.insert(order.index, order.number);
                if let Some(key) = &order.repeat_key {
                    self.by_repeat_key.insert(key.clone(), order.number);
                }
                if order.is_active() {
                    self.active.insert(order.number);
                } else {
                    self.active.remove(&order.number);
                }
                self.orders_bytes += order.weight();
                let before = self.orders.insert(order.number, (**order).clone());
                self.orders_bytes -= before.map_or(0, |before| before.weight());
            }
            Record::Forget(number) => {
                if let Some(order) = self.orders.remove(number) {
                    self.orders_bytes -= order.weight();
                    self.by_id.remove(&order.id);
                    self.by_index.remove(&order.index);
                    if let Some(key) = &order.repeat_key {
                        self.by_repeat_key.remove(key);
                    }
                    self.active.remove(number);
                }
            }
            Record::Coin(coin) => {
                self.coins.insert(coin.output, coin.clone());
            }
            Record::Spent(output) => {
                self.coins.remove(output);
            }
            Record::Send(send) => {
                self.sends.insert(send.id, send.clone());
            }
            Record::Drop(id) => {
                self.sends.remove(id);
            }
        }
    }

    /// The records that make this state out of nothing.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::Meta(self.meta.clone())];
        records.extend(
            self.orders
                .values()
                .map(|order| Record::Order(Box::new(order.clone()))),
        );
        records.extend(self.coins.values().cloned().map(Record::Coin));
        records.extend(self.sends.values().cloned().map(Record::Send));
        records
    }

    /// The sum of all coins: what the ledger holds for this machine.
    pub(crate) fn balance(&self) -> u64 {
        let sum: u128 = self.coins.values().map(|coin| u128::from(coin.units)).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }
}
