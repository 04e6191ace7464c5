//! An order and what became of it (machines, section 4).

use daybook_ledger::{PublicKey, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Moment, Status, address::Address, text};

/// Bytes of an order without its texts and payments, about, in memory as in a list.
const BARE_BYTES: usize = 2_048;
/// Bytes of one payment or refund, about.
const PAYMENT_BYTES: usize = 512;

/// One order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Its place among all orders of this machine, from 1.
    pub(crate) number: u64,
    /// Its public name: a UUID.
    pub(crate) id: String,
    /// The index of its address and key.
    pub(crate) index: u64,
    /// Its address.
    pub(crate) address: Address,
    /// The ledger key that its payment goes to.
    #[serde(with = "text")]
    pub(crate) public_key: PublicKey,
    /// The price, in units of the token.
    pub(crate) value: u64,
    /// The product, where the machine has a list of them or the customer named one.
    pub(crate) product: Option<String>,
    /// How many.
    pub(crate) quantity: u64,
    /// The customer's own reference.
    pub(crate) client_ref: Option<String>,
    /// Where money goes back to; by default to whoever paid.
    #[serde(with = "text::option")]
    pub(crate) refund_key: Option<PublicKey>,
    /// The request as JSON text.
    pub(crate) data: String,
    /// Names the request, so that the same one gets the same order.
    pub(crate) repeat_key: Option<String>,
    /// When it was accepted.
    pub(crate) created: Moment,
    /// When it expires unless it is paid.
    pub(crate) expires: Moment,
    /// How far it is.
    pub(crate) stage: Stage,
    /// The transactions that pay it.
    pub(crate) payments: Vec<Payment>,
    /// Units received in time, overpayment included.
    pub(crate) received: u64,
    /// Units that came after its end.
    pub(crate) late: u64,
    /// Units of payments that `payments` has no room for.
    #[serde(default)]
    pub(crate) unlisted: u64,
    /// When it was paid.
    pub(crate) paid_at: Option<Moment>,
    /// When it ended.
    pub(crate) done_at: Option<Moment>,
    /// What the provider gets for it.
    pub(crate) payout: Option<Payout>,
    /// How often the work was begun.
    pub(crate) attempts: u32,
    /// What goes back.
    pub(crate) refunds: Vec<Refund>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// What the work hook gave back.
    pub(crate) result: Option<String>,
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Its payment is awaited.
    Open,
    /// It is paid, and the provider is being paid.
    Paid,
    /// The work goes on.
    Working,
    /// It ended well.
    Done,
    /// It was not paid in time.
    Expired,
    /// It was paid and could not be done.
    Failed,
}

/// One transaction that pays an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payment {
    /// The transaction.
    #[serde(with = "text")]
    pub(crate) transaction: TransactionId,
    /// Units of it for this order.
    pub(crate) units: u64,
    /// Who paid, if one key alone did.
    #[serde(with = "text::option")]
    pub(crate) payer: Option<PublicKey>,
    /// It is in the log. Until then its text is kept in `pending`.
    pub(crate) committed: bool,
    /// It came after the order's end.
    pub(crate) late: bool,
    /// The signed text of a payment that waits for its block.
    pub(crate) pending: Option<String>,
}

/// The payment of the provider for one order (section 7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payout {
    /// Attempts that failed since the last success.
    pub(crate) failures: u32,
    /// How often the provider's order expired and another one was made.
    pub(crate) round: u32,
    /// Not before this.
    pub(crate) next: Moment,
    /// How far it is.
    pub(crate) step: PayoutStep,
    /// Why the last attempt failed.
    pub(crate) error: Option<String>,
}

/// How far the payment of a provider is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PayoutStep {
    /// The provider is asked for an address.
    Asking,
    /// It answered; nothing is signed.
    Answered(Provided),
    /// A transfer is signed and stored, and on its way.
    Sending(Provided, #[serde(with = "text")] TransactionId),
    /// The transfer is in the log.
    Paid(Provided, #[serde(with = "text")] TransactionId),
    /// Given up.
    Failed,
}

/// A provider's answer to an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provided {
    /// The address it named.
    pub(crate) address: Address,
    /// The ledger key of that address.
    #[serde(with = "text")]
    pub(crate) public_key: PublicKey,
    /// Its price.
    pub(crate) value: u64,
    /// Its name of the order, if it told one.
    pub(crate) order_id: Option<String>,
    /// When its order expires, if it told that.
    pub(crate) expires: Option<Moment>,
}

/// Money that goes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refund {
    /// The payment that is given back; `None` for all those without a record of their own.
    #[serde(with = "text::option")]
    pub(crate) payment: Option<TransactionId>,
    /// To whom; nobody where more than one key had signed.
    #[serde(with = "text::option")]
    pub(crate) to: Option<PublicKey>,
    /// How much.
    pub(crate) units: u64,
    /// Not before this.
    pub(crate) next: Moment,
    /// How far it is.
    pub(crate) step: RefundStep,
}

/// How far a refund is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStep {
    /// Nothing is signed.
    Wanted,
    /// A transfer is signed and stored, and on its way.
    Sending(#[serde(with = "text")] TransactionId),
    /// The transfer is in the log.
    Paid(#[serde(with = "text")] TransactionId),
    /// A person must see to it, for this reason.
    Owed(String),
}

impl Stage {
    /// The number that it has on the wire.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Stage::Open => 0,
            Stage::Paid => 1,
            Stage::Working => 2,
            Stage::Done => 3,
            Stage::Expired => 4,
            Stage::Failed => 5,
        }
    }

    /// Whether nothing more happens to the order itself.
    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Stage::Done | Stage::Expired | Stage::Failed)
    }
}

impl Order {
    /// Whether a payment waits for its block.
    pub(crate) fn is_pending(&self) -> bool {
        self.payments.iter().any(|payment| !payment.committed)
    }

    /// The state of the machine as far as this order goes.
    pub(crate) fn status(&self) -> Status {
        match self.stage {
            Stage::Open if self.is_pending() => Status::WaitingForTxConfirm,
            Stage::Open => Status::WaitingForTx,
            Stage::Paid => Status::PayoutProvider,
            Stage::Working => Status::Working,
            Stage::Done | Stage::Expired | Stage::Failed => Status::WaitingForOrder,
        }
    }

    /// Whether something is still to be done.
    pub(crate) fn is_active(&self) -> bool {
        !self.stage.is_over()
            || self
                .refunds
                .iter()
                .any(|refund| matches!(refund.step, RefundStep::Wanted | RefundStep::Sending(_)))
    }

    /// Bytes that it takes, about, in memory as in a list.
    pub(crate) fn weight(&self) -> usize {
        let texts = [
            Some(&self.data),
            self.product.as_ref(),
            self.client_ref.as_ref(),
            self.repeat_key.as_ref(),
            self.error.as_ref(),
            self.result.as_ref(),
        ];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let pending = self
            .payments
            .iter()
            .filter_map(|payment| payment.pending.as_ref());
        let pending: usize = pending.map(String::len).sum();
        let moves = self.payments.len() + self.refunds.len();
        BARE_BYTES + texts + pending + moves * PAYMENT_BYTES
    }

    /// The order as `GET /orders` shows it.
    pub(crate) fn view(&self) -> Value {
        let moment = |moment: Option<Moment>| moment.map(|moment| moment.to_string());
        json!({
            "uuid": self.id,
            "address": self.address,
            "address_with_checksum": self.address.with_checksum(),
            "public_key": self.public_key.to_string(),
            "status": self.stage.number(),
            "stage": self.stage,
            "state": self.status(),
            "data": self.data,
            "created": self.created.to_string(),
            "expires_at": self.expires.to_string(),
            "value": self.value,
            "received": self.received,
            "late": self.late,
            "unlisted": self.unlisted,
            "paid_at": moment(self.paid_at),
            "done_at": moment(self.done_at),
            "product": self.product,
            "quantity": self.quantity,
            "client_ref": self.client_ref,
            "payments": self.payments.iter().map(|payment| json!({
                "transaction_id": payment.transaction.to_string(),
                "value": payment.units,
                "payer": payment.payer.map(|key| key.to_string()),
                "committed": payment.committed,
                "late": payment.late,
            })).collect::<Vec<_>>(),
            "provider_order": self.payout.as_ref().map(Payout::view),
            "refunds": self.refunds.iter().map(Refund::view).collect::<Vec<_>>(),
            "attempts": self.attempts,
            "error": self.error,
            "result": self.result,
        })
    }

    /// The answer to whoever ordered (section 3.3).
    pub(crate) fn ordered(&self, name: &str) -> Value {
        json!({
            "order_id": self.id,
            "uuid": self.id,
            "name": name,
            "status": self.status(),
            "product": self.product,
            "quantity": self.quantity,
            "value": self.value,
            "address": self.address,
            "address_with_checksum": self.address.with_checksum(),
            "public_key": self.public_key.to_string(),
            "payment_cda": {
                "address": self.address.with_checksum(),
                "timeoutAt": self.expires.0 / 1000,
                "expectedAmount": self.value,
                "multiUse": false,
                "security": crate::SECURITY,
            },
            "expires_at": self.expires.to_string(),
            "client_ref": self.client_ref,
            "message": format!("Send {} to the address shown.", self.value),
        })
    }
}

impl Payout {
    fn view(&self) -> Value {
        let (name, provided, transaction) = match &self.step {
            PayoutStep::Asking => ("asking", None, None),
            PayoutStep::Answered(provided) => ("answered", Some(provided), None),
            PayoutStep::Sending(provided, id) => ("sending", Some(provided), Some(id)),
            PayoutStep::Paid(provided, id) => ("paid", Some(provided), Some(id)),
            PayoutStep::Failed => ("failed", None, None),
        };
        json!({
            "step": name,
            "failures": self.failures,
            "error": self.error,
            "address": provided.map(|provided| &provided.address),
            "value": provided.map(|provided| provided.value),
            "order_id": provided.and_then(|provided| provided.order_id.as_ref()),
            "transaction_id": transaction.map(TransactionId::to_string),
        })
    }
}

impl Refund {
    fn view(&self) -> Value {
        let (name, transaction, reason) = match &self.step {
            RefundStep::Wanted => ("wanted", None, None),
            RefundStep::Sending(id) => ("sending", Some(id), None),
            RefundStep::Paid(id) => ("paid", Some(id), None),
            RefundStep::Owed(reason) => ("owed", None, Some(reason)),
        };
        json!({
            "step": name,
            "payment": self.payment.map(|payment| payment.to_string()),
            "to": self.to.map(|key| key.to_string()),
            "value": self.units,
            "transaction_id": transaction.map(TransactionId::to_string),
            "reason": reason,
        })
    }
}
