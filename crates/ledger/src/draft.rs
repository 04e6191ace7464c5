//! Transactions in the making: what clients fill in and sign.

use bytes::Bytes;

use crate::{
    AssetId, Operation, OutputRef, Parser, PublicKey, Rejection, Rules, SigningKey, Transaction,
    Version, canonical,
    condition::Details,
    json::{Object, Value},
};

/// A transaction that is not signed yet.
///
/// ```
/// use daybook_ledger::{Draft, SigningKey, json::Object};
///
/// let (alice, bob) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
/// let lamp = Draft::create(Object::from_iter([("kind", "lamp")]))
///     .output(1, &alice)
///     .sign(&[&alice])?;
/// let sale = Draft::transfer(lamp.asset())
///     .spend(lamp.output_ref(0), &alice)
///     .output(1, &bob)
///     .sign(&[&alice])?;
/// assert_eq!(sale.asset(), lamp.id().as_asset());
/// # Ok::<(), daybook_ledger::DraftError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Draft {
    version: Version,
    operation: Operation,
    data: Vec<Value>,
    consumed: Vec<AssetId>,
    metadata: Value,
    issuers: Option<Details>,
    spends: Vec<(OutputRef, Details)>,
    outputs: Vec<(u64, Details, Vec<PublicKey>)>,
}

/// Why a draft cannot become a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// The keys at hand do not open the condition of an input.
    #[error("the keys at hand do not open the condition of input {input}")]
    MissingKeys {
        /// The input, from 0.
        input: usize,
    },
    /// The transaction would be refused.
    #[error(transparent)]
    Refused(#[from] Rejection),
}

impl Draft {
    /// Brings an asset with `data` into being: in version 2.0 an object, a string or null, in version
    /// 3.0 a string or null. Issued by those who sign, unless [`Draft::issued_by`] says otherwise.
    pub fn create(data: impl Into<Value>) -> Draft {
        Draft::new(Operation::Create, vec![data.into()], Vec::new())
    }

    /// Moves units of `asset`.
    pub fn transfer(asset: AssetId) -> Draft {
        Draft::new(Operation::Transfer, Vec::new(), vec![asset])
    }

    /// Makes one asset with `data` of several (version 3.0).
    pub fn compose(data: impl Into<String>, of: impl IntoIterator<Item = AssetId>) -> Draft {
        let data = vec![Value::String(data.into())];
        Draft::new(Operation::Compose, data, of.into_iter().collect()).version(Version::V3)
    }

    /// Takes an asset apart into one part for each of `data` (version 3.0). Needs as many outputs.
    pub fn decompose(asset: AssetId, data: impl IntoIterator<Item = String>) -> Draft {
        let data = data.into_iter().map(Value::String).collect();
        Draft::new(Operation::Decompose, data, vec![asset]).version(Version::V3)
    }

    fn new(operation: Operation, data: Vec<Value>, consumed: Vec<AssetId>) -> Draft {
        Draft {
            version: Version::V2,
            operation,
            data,
            consumed,
            metadata: Value::Null,
            issuers: None,
            spends: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// The version of the format; 2.0 unless said otherwise.
    #[must_use]
    pub fn version(mut self, version: Version) -> Draft {
        self.version = version;
        self
    }

    /// Whose issue a CREATE is: all keys of the condition are named as owners, enough of them sign.
    #[must_use]
    pub fn issued_by(mut self, issuers: impl Into<Details>) -> Draft {
        self.issuers = Some(issuers.into());
        self
    }

    /// Adds an input that spends `output`, which is locked by `condition`.
    #[must_use]
    pub fn spend(mut self, output: OutputRef, condition: impl Into<Details>) -> Draft {
        self.spends.push((output, condition.into()));
        self
    }

    /// Adds an output of `amount` units for `owner`: a key or a tree of keys. It is listed under all
    /// of them.
    #[must_use]
    pub fn output(self, amount: u64, owner: impl Into<Details>) -> Draft {
        let owner = owner.into();
        let keys = owner.keys();
        self.output_listed(amount, owner, keys)
    }

    /// Like [`Draft::output`], listing the keys in another order. They must be the condition's keys.
    #[must_use]
    pub fn output_listed(
        mut self,
        amount: u64,
        owner: impl Into<Details>,
        public_keys: Vec<PublicKey>,
    ) -> Draft {
        self.outputs.push((amount, owner.into(), public_keys));
        self
    }

    /// Sets the metadata: in version 2.0 an object that is not empty, a string or null, in version 3.0
    /// a string or null.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Value>) -> Draft {
        self.metadata = metadata.into();
        self
    }

    /// Signs every input with those of `keys` that its condition names.
    ///
    /// # Errors
    /// [`DraftError`] when the keys do not suffice or the transaction would not pass a node's
    /// stateless checks.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Transaction, DraftError> {
        self.sign_with(&mut Parser::new(Rules::default()), keys)
    }

    /// Like [`Draft::sign`], with a parser that is kept: for those who sign many.
    ///
    /// # Errors
    /// As [`Draft::sign`].
    pub fn sign_with(
        &self,
        parser: &mut Parser,
        keys: &[&SigningKey],
    ) -> Result<Transaction, DraftError> {
        Ok(parser.parse(Bytes::from(self.signed_text(keys)?))?)
    }

    /// The canonical text, signed and with its id, whether or not a node would take it.
    ///
    /// # Errors
    /// [`DraftError::MissingKeys`].
    pub fn signed_text(&self, keys: &[&SigningKey]) -> Result<String, DraftError> {
        let conditions: Vec<Details> = match self.operation {
            Operation::Create => vec![self.issuers.clone().unwrap_or_else(|| {
                let signers: Vec<PublicKey> = keys.iter().map(|key| key.public_key()).collect();
                Details::all_of(&signers)
            })],
            _ => self
                .spends
                .iter()
                .map(|(_, condition)| condition.clone())
                .collect(),
        };
        let links: Vec<Option<OutputRef>> = match self.operation {
            Operation::Create => vec![None],
            _ => self
                .spends
                .iter()
                .map(|(output, _)| Some(*output))
                .collect(),
        };
        let unsigned: Vec<Value> = conditions.iter().map(|_| Value::Null).collect();
        let base = canonical::canon(&self.value(Value::Null, &links, &conditions, unsigned));
        let mut fulfillments = Vec::with_capacity(conditions.len());
        for (input, (condition, link)) in conditions.iter().zip(&links).enumerate() {
            let mut text = base.clone();
            if let Some(output) = link {
                text.push_str(&format!("{}{}", output.transaction, output.index));
            }
            let fulfillment = condition
                .fulfill(keys, &canonical::sha3(text.as_bytes()))
                .ok_or(DraftError::MissingKeys { input })?;
            fulfillments.push(Value::String(fulfillment));
        }
        let mut signed = self.value(Value::Null, &links, &conditions, fulfillments);
        let id = hex::encode(canonical::sha3(canonical::canon(&signed).as_bytes()));
        if let Value::Object(signed) = &mut signed {
            signed.insert("id", Value::String(id));
        }
        Ok(canonical::canon(&signed))
    }

    fn value(
        &self,
        id: Value,
        links: &[Option<OutputRef>],
        conditions: &[Details],
        fulfillments: Vec<Value>,
    ) -> Value {
        let texts = |keys: &[PublicKey]| -> Value {
            keys.iter()
                .map(|key| Value::from(key.to_string()))
                .collect::<Vec<_>>()
                .into()
        };
        let inputs: Vec<Value> = links
            .iter()
            .zip(conditions)
            .zip(fulfillments)
            .map(|((link, condition), fulfillment)| {
                let fulfills = link.map_or(Value::Null, |output| {
                    Value::Object(Object::from_iter([
                        ("output_index", Value::from(u64::from(output.index))),
                        (
                            "transaction_id",
                            Value::from(output.transaction.to_string()),
                        ),
                    ]))
                });
                Value::Object(Object::from_iter([
                    ("fulfillment", fulfillment),
                    ("fulfills", fulfills),
                    ("owners_before", texts(&condition.keys())),
                ]))
            })
            .collect();
        let outputs: Vec<Value> = self
            .outputs
            .iter()
            .map(|(amount, owner, public_keys)| {
                let condition = Object::from_iter([
                    ("details", owner.to_value()),
                    ("uri", Value::from(owner.condition().uri())),
                ]);
                Value::Object(Object::from_iter([
                    ("amount", Value::from(amount.to_string())),
                    ("condition", Value::Object(condition)),
                    ("public_keys", texts(public_keys)),
                ]))
            })
            .collect();
        let (name, asset) = self.asset();
        Value::Object(Object::from_iter([
            (name, asset),
            ("id", id),
            ("inputs", inputs.into()),
            ("metadata", self.metadata.clone()),
            ("operation", self.operation.name().into()),
            ("outputs", outputs.into()),
            ("version", self.version.name().into()),
        ]))
    }

    /// The `asset` or `assets` member.
    fn asset(&self) -> (&'static str, Value) {
        let entry = |name: &str, value: Value| Value::Object(Object::from_iter([(name, value)]));
        let data = self.data.iter().map(|data| entry("data", data.clone()));
        let ids = self
            .consumed
            .iter()
            .map(|id| entry("id", Value::from(id.to_string())));
        let mut entries: Vec<Value> = data.chain(ids).collect();
        match self.version {
            Version::V2 => ("asset", entries.pop().unwrap_or(Value::Null)),
            // As planetmint-driver writes a CREATE without data.
            Version::V3 if self.data == [Value::Null] => ("assets", Value::Null),
            Version::V3 => ("assets", Value::Array(entries)),
        }
    }
}
