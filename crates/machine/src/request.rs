//! What a customer asks for, and why a customer is refused (machines, sections 3.2 and 3.6).

use daybook_ledger::PublicKey;
use serde_json::{Map, Value, json};

/// Bytes of the opaque `data` of an order (section 3.2).
const DATA_BYTES_MAX: usize = 16 << 10;
/// Bytes of a whole order: its data and what stands around it.
pub(crate) const ORDER_BYTES_MAX: usize = 32 << 10;
/// Units of a product in one order: beyond it, it is a mistake.
const QUANTITY_MAX: u64 = 1_000_000;
/// Characters of a product's name.
pub(crate) const PRODUCT_CHARS_MAX: usize = 128;
/// Characters of a customer's own reference.
const CLIENT_REF_CHARS_MAX: usize = 256;
/// Nesting of an order's JSON.
const DEPTH_MAX: usize = 32;

/// A sound order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OrderRequest {
    /// What is wanted; the machine's first product where nothing is said.
    pub(crate) product: Option<String>,
    /// How many of it.
    pub(crate) quantity: u64,
    /// The customer's own reference.
    pub(crate) client_ref: Option<String>,
    /// Where money goes back to, if it must; by default to whoever paid.
    pub(crate) refund_key: Option<PublicKey>,
    /// The whole request as JSON text; `{}` when empty.
    pub(crate) data: String,
    /// Names this request, so that the same one sent again gets the same order.
    pub(crate) repeat_key: Option<String>,
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderError {
    /// The code that programs match on.
    pub(crate) code: Code,
    /// The reason in words.
    pub(crate) message: String,
}

/// The codes of section 3.6, and two of ours for what went wrong after the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The order makes no sense.
    InvalidOrder,
    /// Too little was paid before the order expired.
    Underpaid,
    /// There is no such product.
    UnknownProduct,
    /// As many orders as this machine takes at once are open.
    Busy,
    /// The order expired without a payment.
    PaymentExpired,
    /// The order is too large.
    PayloadTooLarge,
    /// Too many orders from one address.
    RateLimited,
    /// The ledger cannot be reached.
    LedgerUnavailable,
    /// The provider could not be paid.
    PayoutFailed,
    /// The work hook failed.
    WorkFailed,
}

impl Code {
    /// Its name on the wire; stable.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Code::InvalidOrder => "invalid_order",
            Code::Underpaid => "underpaid",
            Code::UnknownProduct => "unknown_product",
            Code::Busy => "busy",
            Code::PaymentExpired => "payment_expired",
            Code::PayloadTooLarge => "payload_too_large",
            Code::RateLimited => "rate_limited",
            Code::LedgerUnavailable => "ledger_unavailable",
            Code::PayoutFailed => "payout_failed",
            Code::WorkFailed => "work_failed",
        }
    }

    /// The HTTP status that it has.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Code::InvalidOrder => 400,
            Code::Underpaid => 402,
            Code::UnknownProduct => 404,
            Code::Busy => 409,
            Code::PaymentExpired => 410,
            Code::PayloadTooLarge => 413,
            Code::RateLimited => 429,
            Code::LedgerUnavailable => 503,
            Code::PayoutFailed => 502,
            Code::WorkFailed => 500,
        }
    }
}

impl OrderError {
    /// An error with a reason.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> OrderError {
        OrderError {
            code,
            message: message.into(),
        }
    }

    /// The member `error` of section 3.6.
    pub(crate) fn json(&self) -> Value {
        json!({
            "message": self.message,
            "code": self.code.name(),
            "status": self.code.status(),
        })
    }
}

impl OrderRequest {
    /// The order of no payload: the default product.
    pub(crate) fn empty() -> OrderRequest {
        OrderRequest {
            product: None,
            quantity: 1,
            client_ref: None,
            refund_key: None,
            data: "{}".to_owned(),
            repeat_key: None,
        }
    }

    /// Reads an order. `null` is an order of the default product; unknown members are kept in `data`
    /// and otherwise ignored.
    ///
    /// # Errors
    /// `InvalidOrder` and `PayloadTooLarge`.
    pub(crate) fn from_json(value: &Value) -> Result<OrderRequest, OrderError> {
        let invalid = |message: &str| OrderError::new(Code::InvalidOrder, message);
        let members = match value {
            Value::Null => return Ok(OrderRequest::empty()),
            Value::Object(members) => members,
            _ => return Err(invalid("an order is a JSON object")),
        };
        if depth(value) > DEPTH_MAX {
            return Err(invalid("the order is nested too deeply"));
        }
        let large = |what: &str, max: usize| {
            OrderError::new(
                Code::PayloadTooLarge,
                format!("{what} has more than {max} bytes"),
            )
        };
        let data = value.to_string();
        if data.len() > ORDER_BYTES_MAX {
            return Err(large("the order", ORDER_BYTES_MAX));
        }
        if members
            .get("data")
            .is_some_and(|data| data.to_string().len() > DATA_BYTES_MAX)
        {
            return Err(large("`data`", DATA_BYTES_MAX));
        }
        let quantity = match members.get("quantity") {
            None | Some(Value::Null) => 1,
            // A form has texts only.
            Some(Value::String(text)) => text.parse().unwrap_or(0),
            Some(number) => number.as_u64().unwrap_or(0),
        };
        if !(1..=QUANTITY_MAX).contains(&quantity) {
            return Err(invalid("`quantity` is a whole number from 1 to 1000000"));
        }
        let refund_key = text(members, "refund_key", 64)?
            .map(|key| {
                key.parse()
                    .map_err(|_| invalid("`refund_key` is no public key of the ledger"))
            })
            .transpose()?;
        Ok(OrderRequest {
            product: text(members, "product", PRODUCT_CHARS_MAX)?.filter(|name| !name.is_empty()),
            quantity,
            client_ref: text(members, "client_ref", CLIENT_REF_CHARS_MAX)?,
            refund_key,
            data,
            repeat_key: None,
        })
    }

    /// Reads an order out of the fields of a form.
    ///
    /// # Errors
    /// As [`OrderRequest::from_json`].
    pub(crate) fn from_form(body: &str) -> Result<OrderRequest, OrderError> {
        let mut members = Map::new();
        for field in body.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            members.insert(form_text(name)?, Value::String(form_text(value)?));
        }
        OrderRequest::from_json(&Value::Object(members))
    }
}

fn text(
    members: &Map<String, Value>,
    name: &str,
    chars_max: usize,
) -> Result<Option<String>, OrderError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= chars_max => Ok(Some(text.clone())),
        Some(_) => Err(OrderError::new(
            Code::InvalidOrder,
            format!("`{name}` is a text of at most {chars_max} characters"),
        )),
    }
}

/// Text of a form: `+` is a blank, `%` and two digits are a byte.
fn form_text(text: &str) -> Result<String, OrderError> {
    let wrong = || {
        OrderError::new(
            Code::InvalidOrder,
            "the form is not encoded as it should be",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |c: Option<u8>| char::from(c?).to_digit(16);
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let value = high.zip(low).ok_or_else(wrong)?;
                u8::try_from(value.0 * 16 + value.1).map_err(|_| wrong())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code(value: Value) -> Code {
        OrderRequest::from_json(&value).unwrap_err().code
    }

    #[test]
    fn an_order_may_say_nothing_at_all() {
        for value in [Value::Null, json!({})] {
            assert_eq!(
                OrderRequest::from_json(&value).unwrap(),
                OrderRequest::empty()
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for value in [
            json!("headphone"),
            json!([1]),
            json!({"quantity": 0}),
            json!({"quantity": -1}),
            json!({"quantity": 1.5}),
            json!({"quantity": 1_000_001}),
            json!({"product": 3}),
            json!({"product": "x".repeat(129)}),
            json!({"client_ref": {}}),
            json!({"refund_key": "nobody"}),
        ] {
            assert_eq!(code(value), Code::InvalidOrder);
        }
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({ "x": deep });
        }
        assert_eq!(code(deep), Code::InvalidOrder);
        assert_eq!(
            code(json!({"data": "x".repeat(17_000)})),
            Code::PayloadTooLarge
        );
        assert_eq!(
            code(json!({"other": "x".repeat(40_000)})),
            Code::PayloadTooLarge
        );
        OrderRequest::from_json(&json!({"data": "x".repeat(16_000)})).unwrap();
    }

    #[test]
    fn a_form_is_an_order_too() {
        let order = OrderRequest::from_form("product=head+phone%21&quantity=2&x").unwrap();
        assert_eq!(order.product.as_deref(), Some("head phone!"));
        assert_eq!(order.quantity, 2);
        for body in ["product=%", "product=%zz", "product=%ff", "quantity=x"] {
            OrderRequest::from_form(body).unwrap_err();
        }
        assert_eq!(OrderRequest::from_form("").unwrap().data, "{}");
    }

    #[test]
    fn the_page_of_machines_lists_every_code_with_its_status() {
        const ALL: [Code; 10] = [
            Code::InvalidOrder,
            Code::Underpaid,
            Code::UnknownProduct,
            Code::Busy,
            Code::PaymentExpired,
            Code::PayloadTooLarge,
            Code::RateLimited,
            Code::LedgerUnavailable,
            Code::PayoutFailed,
            Code::WorkFailed,
        ];
        // A new code does not compile here until it stands above and on the page.
        let is_listed = |code: Code| match code {
            Code::InvalidOrder
            | Code::Underpaid
            | Code::UnknownProduct
            | Code::Busy
            | Code::PaymentExpired
            | Code::PayloadTooLarge
            | Code::RateLimited
            | Code::LedgerUnavailable
            | Code::PayoutFailed
            | Code::WorkFailed => true,
        };
        let page = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/protocols/machines.md"
        );
        let page = std::fs::read_to_string(page).unwrap();
        for code in ALL {
            assert!(is_listed(code));
            let row = format!("| `{}` | {} |", code.name(), code.status());
            assert!(page.contains(&row), "{row}");
        }
    }
}
