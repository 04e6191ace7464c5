//! The six states of a machine (machines, section 5).

use serde::{Deserialize, Serialize};

/// What a machine does. Ordered by what is shown when several orders are open: the greatest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The process is up, not yet able to take orders.
    Booting,
    /// Idle.
    WaitingForOrder,
    /// An address is out, no payment seen.
    WaitingForTx,
    /// A payment is seen on the ledger, not final.
    WaitingForTxConfirm,
    /// Paid; the machine is paying its own supplier.
    PayoutProvider,
    /// The work hook runs.
    Working,
}

impl Status {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Booting => "booting",
            Status::WaitingForOrder => "waiting_for_order",
            Status::WaitingForTx => "waiting_for_tx",
            Status::WaitingForTxConfirm => "waiting_for_tx_confirm",
            Status::PayoutProvider => "payout_provider",
            Status::Working => "working",
        }
    }

    /// What people are told where there is nothing more to say.
    pub const fn message(self) -> &'static str {
        match self {
            Status::Booting => "starting",
            Status::WaitingForOrder => "ready",
            Status::WaitingForTx => "waiting for a payment",
            Status::WaitingForTxConfirm => "payment seen, not final yet",
            Status::PayoutProvider => "paying the provider",
            Status::Working => "working",
        }
    }
}
