//! Why a request gets an error for an answer.

/// The stable token of a refusal (wallet tracker, section 14). Clients match on it: new ones may be
/// added, none renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The frame or the signed message is not JSON.
    BadJson,
    /// No such command.
    BadCommand,
    /// The container lacks a field.
    BadPayload,
    /// The signed message has not the form that its command asks for.
    BadMessage,
    /// A key does not parse, or its suite is not allowed.
    BadKey,
    /// A signature is not over this message by this key.
    BadSignature,
    /// The key inside the message is another one than the container's.
    KeyMismatch,
    /// Not an address, or of the wrong kind.
    BadAddress,
    /// Not an amount, or not the one that follows from price and count.
    BadAmount,
    /// More quanta than were agreed, or fewer than a receipt that is already deposited.
    BadCount,
    /// More bytes than the paid quanta hold.
    BadVolume,
    /// A product or a sum leaves 63 bits.
    Overflow,
    /// No such address or channel.
    NotFound,
    /// Closed by those who opened it.
    AlreadyClosed,
    /// Past its time lock.
    Expired,
    /// Another key's.
    NotOwner,
    /// Transfer channels on the address are still open.
    HasOpenChannels,
    /// Above the most that the spend address may offer.
    PriceTooHigh,
    /// Below the least that the income address may take.
    PriceTooLow,
    /// Not enough tokens that are free to promise.
    InsufficientLimit,
    /// The channel id names another contract.
    ChannelConflict,
    /// The tracker's wallet is empty.
    TrackerEmpty,
    /// No such cursor, or it has died.
    CursorUnknown,
    /// Too much at once.
    RateLimited,
    /// More open addresses or channels than are allowed.
    TooManyOpen,
    /// The node failed; the outcome is unknown.
    Internal,
    /// The nonce was used before.
    Replayed,
    /// The message's time is too far from the ledger's.
    Stale,
    /// The token names another request of this key.
    CorrTokenReuse,
    /// The subscriber fell behind.
    Lagged,
}

/// A request that is answered with an error; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// What programs match on.
    pub code: Code,
    /// What people read: the legacy text where there is one.
    pub detail: String,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 30] = [
        Code::BadJson,
        Code::BadCommand,
        Code::BadPayload,
        Code::BadMessage,
        Code::BadKey,
        Code::BadSignature,
        Code::KeyMismatch,
        Code::BadAddress,
        Code::BadAmount,
        Code::BadCount,
        Code::BadVolume,
        Code::Overflow,
        Code::NotFound,
        Code::AlreadyClosed,
        Code::Expired,
        Code::NotOwner,
        Code::HasOpenChannels,
        Code::PriceTooHigh,
        Code::PriceTooLow,
        Code::InsufficientLimit,
        Code::ChannelConflict,
        Code::TrackerEmpty,
        Code::CursorUnknown,
        Code::RateLimited,
        Code::TooManyOpen,
        Code::Internal,
        Code::Replayed,
        Code::Stale,
        Code::CorrTokenReuse,
        Code::Lagged,
    ];

    /// The token on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::BadJson => "bad_json",
            Code::BadCommand => "bad_command",
            Code::BadPayload => "bad_payload",
            Code::BadMessage => "bad_message",
            Code::BadKey => "bad_key",
            Code::BadSignature => "bad_signature",
            Code::KeyMismatch => "key_mismatch",
            Code::BadAddress => "bad_address",
            Code::BadAmount => "bad_amount",
            Code::BadCount => "bad_count",
            Code::BadVolume => "bad_volume",
            Code::Overflow => "overflow",
            Code::NotFound => "not_found",
            Code::AlreadyClosed => "already_closed",
            Code::Expired => "expired",
            Code::NotOwner => "not_owner",
            Code::HasOpenChannels => "has_open_channels",
            Code::PriceTooHigh => "price_too_high",
            Code::PriceTooLow => "price_too_low",
            Code::InsufficientLimit => "insufficient_limit",
            Code::ChannelConflict => "channel_conflict",
            Code::TrackerEmpty => "tracker_empty",
            Code::CursorUnknown => "cursor_unknown",
            Code::RateLimited => "rate_limited",
            Code::TooManyOpen => "too_many_open",
            Code::Internal => "internal",
            Code::Replayed => "replayed",
            Code::Stale => "stale",
            Code::CorrTokenReuse => "corr_token_reuse",
            Code::Lagged => "lagged",
        }
    }

    /// The code of a token.
    pub fn from_token(token: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == token)
    }
}

impl Refusal {
    /// A refusal with `code` because of `detail`.
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal {
            code,
            detail: detail.into(),
        }
    }

    /// Nobody's fault but ours.
    pub fn internal(detail: impl Into<String>) -> Refusal {
        Refusal::new(Code::Internal, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_token_of_its_own() {
        for code in Code::ALL {
            assert_eq!(Code::from_token(code.as_str()), Some(code));
        }
        assert_eq!(Code::from_token("transaction not synced"), None);
    }
}
