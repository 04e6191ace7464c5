//! Requests as they arrive, and what they ask for once they are proven (wallet tracker, sections 3,
//! 7 and 8).

use std::{fmt, sync::Arc};

use super::{Address, Contract, Key, KeyHash, Settled};
use crate::{PublicKey, block::BlockTime};

/// Command codes (section 7).
pub mod command {
    /// Says who the tracker is.
    pub const HANDSHAKE: u64 = 1;
    /// Opens an income address.
    pub const OPEN_INCOME: u64 = 2;
    /// Opens a spend address.
    pub const OPEN_SPEND: u64 = 4;
    /// Opens a transfer channel; co-signed.
    pub const OPEN_TRANSFER: u64 = 8;
    /// Closes a transfer channel; co-signed.
    pub const CLOSE_TRANSFER: u64 = 16;
    /// Closes an income address.
    pub const CLOSE_INCOME: u64 = 32;
    /// Closes a spend address.
    pub const CLOSE_SPEND: u64 = 64;
    /// Asks for an income address.
    pub const INCOME_STATE: u64 = 128;
    /// Asks for a spend address.
    pub const SPEND_STATE: u64 = 256;
    /// Asks for a transfer channel.
    pub const TRANSFER_STATE: u64 = 512;
    /// Lists transactions and makes a cursor.
    pub const FIRST_TRANSACTIONS: u64 = 1024;
    /// Another page of a cursor's list.
    pub const NEXT_TRANSACTIONS: u64 = 2048;
    /// Keeps a cursor alive.
    pub const UPDATE_CURSOR: u64 = 4096;
    /// Asks for a common address.
    pub const COMMON_STATE: u64 = 8192;
    /// Says what this tracker can do; unsigned (section 17.1).
    pub const CAPABILITIES: u64 = 65_536;
    /// Asks for events (section 17.4).
    pub const SUBSCRIBE: u64 = 131_072;
    /// Asks for no more events.
    pub const UNSUBSCRIBE: u64 = 131_073;
    /// Deposits a co-signed close, to be executed at the lock (section 17.7).
    pub const PARK: u64 = 524_288;
    /// Pays what a common address has earned to an Ed25519 key.
    pub const PAY_OUT: u64 = 2_097_152;
}

/// A request as it arrived, only split into its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `cmd`.
    pub command: u64,
    /// `corrToken`; empty where it was missing.
    pub correlation: String,
    /// The envelope says `"idem":true` (section 17.5).
    pub idempotent: bool,
    /// What was signed, by whom.
    pub payload: Payload,
}

/// A signed container (section 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Signed by one key.
    Single {
        /// The text that was signed.
        message: String,
        /// The signer's PEM.
        pk: String,
        /// The signature in base64.
        sign: String,
    },
    /// Signed by payer and payee.
    CoSigned {
        /// The text that both signed.
        message: String,
        /// The payer's PEM.
        from_pk: String,
        /// The payer's signature in base64.
        from_sign: String,
        /// The payee's PEM.
        to_pk: String,
        /// The payee's signature in base64.
        to_sign: String,
    },
}

/// Which of the two containers a command comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// [`Payload::Single`].
    Single,
    /// [`Payload::CoSigned`].
    CoSigned,
}

/// The container that a command comes in; `None` for codes that are no signed command.
pub fn container_of(code: u64) -> Option<Container> {
    match code {
        command::OPEN_TRANSFER | command::CLOSE_TRANSFER | command::PARK => {
            Some(Container::CoSigned)
        }
        command::HANDSHAKE
        | command::OPEN_INCOME
        | command::OPEN_SPEND
        | command::CLOSE_INCOME
        | command::CLOSE_SPEND
        | command::INCOME_STATE
        | command::SPEND_STATE
        | command::TRANSFER_STATE
        | command::FIRST_TRANSACTIONS
        | command::NEXT_TRANSACTIONS
        | command::UPDATE_CURSOR
        | command::COMMON_STATE
        | command::SUBSCRIBE
        | command::UNSUBSCRIBE
        | command::PAY_OUT => Some(Container::Single),
        _ => None,
    }
}

impl Payload {
    /// The text that was signed.
    pub fn message(&self) -> &str {
        match self {
            Payload::Single { message, .. } | Payload::CoSigned { message, .. } => message,
        }
    }
}

/// A request whose signatures verify and whose message has the form of its command.
#[expect(
    clippy::large_enum_variant,
    reason = "most are commands, and boxing them is their keepers' choice"
)]
#[derive(Clone, Debug)]
pub enum Proven {
    /// Answered with the tracker's key.
    Handshake(Handshake),
    /// Changes nothing.
    Query(Query),
    /// Changes the ledger if the book agrees.
    Command(Command),
}

/// A handshake.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// `corrToken`.
    pub correlation: String,
    /// Who asks: the answer comes from the tracker's key of the same suite, if it has one.
    pub signer: Arc<Key>,
    /// Of version 2 messages.
    pub fresh: Option<Fresh>,
}

/// A question that changes nothing.
#[derive(Clone, Debug)]
pub struct Query {
    /// `cmd`.
    pub command: u64,
    /// `corrToken`.
    pub correlation: String,
    /// Who asks.
    pub signer: Arc<Key>,
    /// What is asked.
    pub ask: Ask,
    /// Of version 2 messages: see [`super::Book::admit`] and [`super::Nonces`].
    pub fresh: Option<Fresh>,
}

/// What a query asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The state of an income or spend address (128, 256); of the kind that the command names.
    Address(Address),
    /// The state of a transfer channel (512).
    Channel(String),
    /// The state of a common address (8192).
    Common(Address),
    /// A list of transactions (1024).
    First(Listing),
    /// A page of a cursor's list (2048).
    Next {
        /// The cursor.
        cursor: String,
        /// From 1.
        page: u64,
    },
    /// A longer life for a cursor (4096).
    Touch {
        /// The cursor.
        cursor: String,
    },
    /// Events (131072).
    Subscribe {
        /// What about; at most [`TOPICS_MAX`].
        topics: Vec<Topic>,
        /// The last sequence number that the subscriber has; `None`: from now on.
        from: Option<u64>,
    },
    /// No more events (131073).
    Unsubscribe {
        /// The subscription.
        subscription: String,
    },
}

/// Topics of one subscription: as many as a peer has addresses and channels in ordinary use.
pub const TOPICS_MAX: usize = 256;

/// What a subscription is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Everything on one address.
    Address(String),
    /// Everything about one channel.
    Channel(String),
    /// Everything of one key.
    Owner(KeyHash),
}

/// Rows on a page unless the client says otherwise (section 8.13).
pub const PAGE_SIZE: u64 = 20;

/// The most rows on a page: what a negative size gives too.
pub const PAGE_SIZE_MAX: u64 = 1_000;

/// Which transactions to list, and how (section 8.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// From 1.
    pub page: u64,
    /// 1 to [`PAGE_SIZE_MAX`].
    pub page_size: u64,
    /// Oldest first.
    pub ascending: bool,
    /// Only of this `tx_type`.
    pub tx_type: Option<u64>,
    /// Only of this channel.
    pub channel: Option<String>,
    /// Only from this address.
    pub from: Option<String>,
    /// Only to this address.
    pub to: Option<String>,
    /// Only of this status; every record has 1.
    pub status: Option<u64>,
}

/// What makes a version 2 message unique (section 17.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// When it was signed, in milliseconds since 1970.
    pub time: BlockTime,
    /// Sixteen bytes that its signer never used before.
    pub nonce: [u8; 16],
}

/// A proven wish to change the ledger.
#[derive(Clone, Debug)]
pub struct Command {
    pub(super) request: Request,
    pub(super) act: Act,
    pub(super) fresh: Option<Fresh>,
}

/// What a command wishes. Everything that can be checked without state was checked.
#[derive(Clone, Debug)]
pub enum Act {
    /// A new income address.
    OpenIncome(Arc<Key>),
    /// A new spend address.
    OpenSpend(Arc<Key>),
    /// A new transfer channel.
    OpenTransfer(CoSigned),
    /// The end of a transfer channel.
    CloseTransfer(CoSigned, Settled),
    /// The end of a transfer channel, should nobody close it before its lock.
    Park(CoSigned, Settled),
    /// The end of an income address.
    CloseIncome(Address, Arc<Key>),
    /// The end of a spend address.
    CloseSpend(Address, Arc<Key>),
    /// Earnings paid to an Ed25519 key.
    PayOut {
        /// The common address; derived from the signer's text.
        address: Address,
        /// Who signed.
        signer: Arc<Key>,
        /// Who is paid.
        pay_to: PublicKey,
        /// Tokens, at least 1.
        amount: u64,
    },
}

/// A contract and the two who signed it.
#[derive(Clone, Debug)]
pub struct CoSigned {
    /// What both signed.
    pub contract: Contract,
    /// Where it is paid from.
    pub from: Address,
    /// Where it is paid to.
    pub to: Address,
    /// Who pays.
    pub payer: Arc<Key>,
    /// Who is paid.
    pub payee: Arc<Key>,
}

impl Command {
    /// The request as it came.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What it wishes.
    pub fn act(&self) -> &Act {
        &self.act
    }

    /// Of version 2 messages with time and nonce.
    pub fn fresh(&self) -> Option<&Fresh> {
        self.fresh.as_ref()
    }

    /// The key that signed alone; `None` for what two keys sign.
    pub fn signer(&self) -> Option<&Arc<Key>> {
        match &self.act {
            Act::OpenIncome(key)
            | Act::OpenSpend(key)
            | Act::CloseIncome(_, key)
            | Act::CloseSpend(_, key)
            | Act::PayOut { signer: key, .. } => Some(key),
            Act::OpenTransfer(_) | Act::CloseTransfer(..) | Act::Park(..) => None,
        }
    }

    /// The key whose suite the answer is signed with, if the tracker has one of it: the signer, or the
    /// payee, who submits by convention.
    pub fn answered_to(&self) -> &Arc<Key> {
        match &self.act {
            Act::OpenIncome(key)
            | Act::OpenSpend(key)
            | Act::CloseIncome(_, key)
            | Act::CloseSpend(_, key)
            | Act::PayOut { signer: key, .. } => key,
            Act::OpenTransfer(signed) | Act::CloseTransfer(signed, _) | Act::Park(signed, _) => {
                &signed.payee
            }
        }
    }

    /// Whether a repetition is answered as the first time (section 17.5). What two keys sign is named
    /// by its channel and repeats anyway, so the token counts for single signers only.
    pub fn is_idempotent(&self) -> bool {
        self.signer().is_some() && (self.request.idempotent || self.fresh.is_some())
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Container::Single => "single-signed",
            Container::CoSigned => "co-signed",
        })
    }
}
