//! Why the ledger refuses a transaction.

/// The class of a refusal: the names that BigchainDB and Planetmint clients match on (asset ledger,
/// section 6.8). The names are a public promise: new ones may be added, none renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionClass {
    /// The text is not JSON, or not a JSON object.
    MalformedJson,
    /// A member is missing, unexpected or of the wrong type.
    SchemaValidationError,
    /// A rule beyond the schema: key names, language, conditions.
    ValidationError,
    /// `id` is missing or is not the hash of the body.
    InvalidHash,
    /// A fulfillment does not open its condition or cannot be decoded.
    InvalidSignature,
    /// An amount is out of range, or inputs and outputs differ.
    AmountError,
    /// Inputs of several assets, or of another asset than the transaction names.
    AssetIdMismatch,
    /// An input names an output that was never committed.
    InputDoesNotExist,
    /// An input names an output that is already spent.
    DoubleSpend,
    /// The transaction is already committed.
    DuplicateTransaction,
    /// Condition details are nested deeper than the limit.
    ThresholdTooDeep,
    /// The transaction is larger than the network's limit.
    TooLarge,
}

impl RejectionClass {
    /// The name that clients see. Stable across releases.
    pub const fn name(self) -> &'static str {
        match self {
            RejectionClass::MalformedJson => "MalformedJson",
            RejectionClass::SchemaValidationError => "SchemaValidationError",
            RejectionClass::ValidationError => "ValidationError",
            RejectionClass::InvalidHash => "InvalidHash",
            RejectionClass::InvalidSignature => "InvalidSignature",
            RejectionClass::AmountError => "AmountError",
            RejectionClass::AssetIdMismatch => "AssetIdMismatch",
            RejectionClass::InputDoesNotExist => "InputDoesNotExist",
            RejectionClass::DoubleSpend => "DoubleSpend",
            RejectionClass::DuplicateTransaction => "DuplicateTransaction",
            RejectionClass::ThresholdTooDeep => "ThresholdTooDeep",
            RejectionClass::TooLarge => "TooLarge",
        }
    }

    /// One byte that stands for the class in stored records. Stable across releases.
    pub const fn code(self) -> u8 {
        match self {
            RejectionClass::MalformedJson => 1,
            RejectionClass::SchemaValidationError => 2,
            RejectionClass::ValidationError => 3,
            RejectionClass::InvalidHash => 4,
            RejectionClass::InvalidSignature => 5,
            RejectionClass::AmountError => 6,
            RejectionClass::AssetIdMismatch => 7,
            RejectionClass::InputDoesNotExist => 8,
            RejectionClass::DoubleSpend => 9,
            RejectionClass::DuplicateTransaction => 10,
            RejectionClass::ThresholdTooDeep => 11,
            RejectionClass::TooLarge => 12,
        }
    }

    /// The class of a stored code.
    pub fn from_code(code: u8) -> Option<RejectionClass> {
        use RejectionClass::*;
        [
            MalformedJson,
            SchemaValidationError,
            ValidationError,
            InvalidHash,
            InvalidSignature,
            AmountError,
            AssetIdMismatch,
            InputDoesNotExist,
            DoubleSpend,
            DuplicateTransaction,
            ThresholdTooDeep,
            TooLarge,
        ]
        .into_iter()
        .find(|class| class.code() == code)
    }
}

/// Why a transaction was refused: a stable class and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}: {detail}")]
pub struct Rejection {
    /// The class that programs match on.
    pub class: RejectionClass,
    /// The reason in words.
    pub detail: String,
}

impl Rejection {
    /// A refusal of `class` because of `detail`.
    pub fn new(class: RejectionClass, detail: impl Into<String>) -> Rejection {
        Rejection {
            class,
            detail: detail.into(),
        }
    }

    /// The sentence that HTTP clients read (asset ledger, section 6).
    pub fn message(&self) -> String {
        match self.class {
            RejectionClass::MalformedJson => self.detail.clone(),
            RejectionClass::SchemaValidationError => {
                format!("Invalid transaction schema: {}", self.detail)
            }
            class => format!("Invalid transaction ({}): {}", class.name(), self.detail),
        }
    }
}
