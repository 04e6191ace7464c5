//! How a machine does business.

use daybook_ledger::AssetId;

/// Prices, times and limits of one machine.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Shown to people.
    pub name: String,
    /// `robot` or `provider`.
    pub role: String,
    /// The token that it is paid in and pays in.
    pub asset: AssetId,
    /// The price of one order, in units of the token.
    pub value: u64,
    /// What may be ordered; the first one is meant where an order names none. Without any, every name
    /// is taken.
    pub products: Vec<Product>,
    /// The address of the machine that is paid for each order; `None` for no supplier.
    pub provider: Option<String>,
    /// What the provider may ask for at most.
    pub provider_value_max: u64,
    /// How long an order may stay unpaid.
    pub order_ttl_ms: u64,
    /// Between two looks at the ledger for something that is not there yet.
    pub confirm_poll_ms: u64,
    /// Between two statuses that say that a payment is still not final.
    pub status_repeat_ms: u64,
    /// Orders with something left to do at once.
    pub open_orders_max: usize,
    /// What happens when the provider cannot be paid.
    pub on_payout_failure: OnPayoutFailure,
    /// Whether the customer gets back what was paid for work that failed.
    pub refund_failed: bool,
    /// Whether the customer gets back what was paid for an order that expired underpaid.
    pub refund_underpaid: bool,
    /// Whether what comes after an order's end goes back by itself.
    pub refund_late: bool,
    /// Whether there is a work hook.
    pub works: bool,
    /// What it may spend.
    pub limits: SpendingLimits,
}

/// Something that may be ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name.
    pub name: String,
    /// The price of one, in units of the token.
    pub value: u64,
}

/// What happens to a paid order whose provider cannot be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPayoutFailure {
    /// The work is done all the same.
    Work,
    /// The order fails, and the customer is refunded.
    Fail,
}

/// What a machine may spend; checked before anything is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpendingLimits {
    /// Units within any hour, refunds included; `None` for any number.
    pub per_hour: Option<u64>,
    /// Whom it may pay, as machine addresses (`http://host:port`) or public keys; `None` for anybody.
    /// Refunds go back to who paid and need no entry.
    pub payees: Option<Vec<String>>,
}
