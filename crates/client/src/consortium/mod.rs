//! The consortium's book over a node's API (docs/protocols/consortium-node.md): submit signed requests,
//! read what was committed, and follow it across broken connections and restarts of the node.
//!
//! ```no_run
//! # async fn example(request: daybook_ledger::consortium::Request) -> Result<(), Box<dyn std::error::Error>> {
//! use daybook_client::{Client, consortium::{ConsortiumClient, SubmitError}};
//!
//! let client = ConsortiumClient::new(Client::new("http://127.0.0.1:9984".parse()?)?);
//! match client.submit(&request).await {
//!     Ok(outcome) => println!("{} at {}", outcome.entry.id(), outcome.position),
//!     Err(SubmitError::Refused(refusal)) => println!("{}: {refusal}", refusal.code),
//!     Err(SubmitError::Unknown(error)) => println!("send the same again: {error}"),
//!     Err(SubmitError::Failed(error)) => println!("nothing changed: {error}"),
//! }
//! let mut followed = client.follow(ConsortiumClient::BEGINNING);
//! let (position, time, entry) = followed.next().await?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod follow;
mod notices;

use std::time::Instant;

use bytes::Bytes;
use daybook_ledger::{
    BlockTime, Height, Position, TransactionId,
    block::{BlockHash, Genesis},
    consortium::{Did, Entry, Refusal, Request, Settings},
};
use http::{Method, StatusCode};

pub use follow::FollowedEntries;
pub use notices::{NoticeRefused, NoticesAfter};

use crate::{
    Client, Error,
    client::{BackOff, percent_encoded},
};

/// Entries of one page, unless the caller wants fewer: as many as the node gives at most.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// A client of the consortium's book on one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConsortiumClient {
    client: Client,
}

/// What became of a request that was taken.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The place of its entry in the log.
    pub position: Position,
    /// Its entry: id, block time, and the effects that followed at once.
    pub entry: Entry,
    /// The same was taken before: this is the outcome of the first time.
    pub repeated: bool,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The book refuses it, for good or until something else changes; its code says which. Nothing has
    /// changed. After an `Unknown`, the codes `already_endorsed` and `already_refused` say that it was
    /// taken the first time.
    #[error(transparent)]
    Refused(Refusal),
    /// It may have been taken or not. Sending the same again is harmless.
    #[error("sent, but the outcome is unknown: {0}")]
    Unknown(Error),
    /// It was not taken, because the node could not be reached or takes nothing now.
    #[error(transparent)]
    Failed(Error),
}

/// Entries in the order of the log.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries with their places.
    pub entries: Vec<(Position, Entry)>,
    /// Where the next page begins.
    pub next: Position,
    /// There was nothing more when this was read.
    pub is_last: bool,
}

/// Entries of one ledger, by sequence number.
#[derive(Clone, Debug)]
pub struct LedgerPage {
    /// How many entries the ledger has.
    pub size: u64,
    /// The entries.
    pub entries: Vec<LedgerEntry>,
    /// The sequence number at which the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// An entry of a ledger.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    /// Its sequence number.
    pub sequence: u64,
    /// Its canonical text, metadata included: what its leaf is the hash of.
    pub text: String,
    /// When it was committed.
    pub time: BlockTime,
    /// The entry of the log that committed it.
    pub committed_by: TransactionId,
}

/// What a node tells about its network.
#[derive(Clone, Debug)]
pub struct Network {
    /// What requests name it by: the hash of its genesis.
    pub network: BlockHash,
    /// How its chain began, which has that hash. Its validators found the network.
    pub genesis: Genesis,
    /// The network's rules; `None` until it has members.
    pub settings: Option<Settings>,
    /// Height of the newest block.
    pub height: Height,
    /// Time of the newest block.
    pub block_time: BlockTime,
    /// What the node's clock says, which the next block's time follows.
    pub now: BlockTime,
}

impl ConsortiumClient {
    /// Where a reader begins that knows nothing.
    pub const BEGINNING: Position = Position {
        height: Height(1),
        index: 0,
    };

    /// A client that uses the connections of another.
    pub fn new(client: Client) -> ConsortiumClient {
        ConsortiumClient { client }
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Submits a signed request and waits until its block is on disk. When the connection breaks or the
    /// node is busy, the same is sent again for as long as the client settles submissions; a proposal that
    /// is sent twice is taken once.
    ///
    /// # Errors
    /// [`SubmitError`]: see its variants.
    pub async fn submit(&self, request: &Request) -> Result<Outcome, SubmitError> {
        let began = Instant::now();
        let mut back_off = BackOff::default();
        let mut sent = false;
        loop {
            let error = match self.submit_once(request).await {
                Err(SubmitError::Unknown(error)) => {
                    sent = true;
                    error
                }
                Err(SubmitError::Failed(error)) if error.is_transient() => error,
                Err(SubmitError::Failed(error)) if sent => {
                    return Err(SubmitError::Unknown(error));
                }
                settled => return settled,
            };
            if began.elapsed() >= self.client.settle() {
                return Err(if sent {
                    SubmitError::Unknown(error)
                } else {
                    SubmitError::Failed(error)
                });
            }
            tracing::debug!(%error, "submitting a request to the consortium's book again");
            back_off.pause().await;
        }
    }

    /// Submits a signed request with one HTTP request.
    ///
    /// # Errors
    /// [`SubmitError`]: see its variants.
    pub async fn submit_once(&self, request: &Request) -> Result<Outcome, SubmitError> {
        const PATH: &str = "/api/v1/consortium/requests";
        let sent = self
            .client
            .http
            .send(Method::POST, PATH, request.text.clone())
            .await;
        let whole = match sent {
            Ok(whole) => whole,
            Err(error @ Error::Broken { .. }) => return Err(SubmitError::Unknown(error)),
            Err(error) => return Err(SubmitError::Failed(error)),
        };
        if whole.status == StatusCode::OK {
            // Whatever the answer is, the request was taken.
            return answer::outcome(&whole.body).map_err(SubmitError::Unknown);
        }
        match answer::refusal(&whole.body) {
            Some(refusal) => Err(SubmitError::Refused(refusal)),
            None => Err(match whole.error(PATH) {
                error @ Error::Node { .. } => SubmitError::Unknown(error),
                error => SubmitError::Failed(error),
            }),
        }
    }

    /// What the node tells about its network: its name in requests, its rules, its time.
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when the node serves no consortium.
    pub async fn network(&self) -> Result<Network, Error> {
        answer::network(&self.get("/api/v1/consortium".to_owned()).await?)
    }

    /// Entries of the book in the order of the log, from `from` on, at most `limit`.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn entries(&self, from: Position, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let path = format!("/api/v1/consortium/entries?from={from}&limit={limit}");
        answer::page(&self.get(path).await?)
    }

    /// Follows the book from a place on: what is committed already, then what commits. Nothing is sent
    /// before [`FollowedEntries::next`].
    pub fn follow(&self, from: Position) -> FollowedEntries {
        FollowedEntries::new(self.clone(), from)
    }

    /// A member as the node answers it; `None` when there is none with this DID.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn member(&self, did: Did) -> Result<Option<serde_json::Value>, Error> {
        self.find(format!("/api/v1/consortium/members/{did}")).await
    }

    /// A page of the members, by DID, from behind `after` on.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn members(&self, after: Option<Did>) -> Result<serde_json::Value, Error> {
        let after = after.map_or(String::new(), |did| format!("?after={did}"));
        let body = self
            .get(format!("/api/v1/consortium/members{after}"))
            .await?;
        crate::http::json(&body)
    }

    /// A page of the ledgers, newest first, from before the number `before` on.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn ledgers(
        &self,
        member: Option<Did>,
        before: Option<u64>,
    ) -> Result<serde_json::Value, Error> {
        let mut path = "/api/v1/consortium/ledgers?limit=100".to_owned();
        if let Some(member) = member {
            path.push_str(&format!("&member={member}"));
        }
        if let Some(before) = before {
            path.push_str(&format!("&before={before}"));
        }
        crate::http::json(&self.get(path).await?)
    }

    /// A ledger as the node answers it; `None` when there is none with this name.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn ledger(&self, name: &str) -> Result<Option<serde_json::Value>, Error> {
        let name = percent_encoded(name);
        self.find(format!("/api/v1/consortium/ledgers/{name}"))
            .await
    }

    /// A page of a ledger's entries, by sequence number from `from` on.
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when there is no such ledger.
    pub async fn ledger_entries(
        &self,
        name: &str,
        from: u64,
        limit: usize,
    ) -> Result<LedgerPage, Error> {
        let name = percent_encoded(name);
        let path = format!("/api/v1/consortium/ledgers/{name}/entries?from={from}&limit={limit}");
        answer::ledger_page(&self.get(path).await?)
    }

    /// The inclusion proof of a ledger's entry in the tree of its first `size` entries, or of all.
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when there is no such ledger or entry.
    pub async fn inclusion_proof(
        &self,
        name: &str,
        sequence: u64,
        size: Option<u64>,
    ) -> Result<serde_json::Value, Error> {
        let mut path = format!(
            "/api/v1/consortium/ledgers/{}/proof?seq_no={sequence}",
            percent_encoded(name)
        );
        if let Some(size) = size {
            path.push_str(&format!("&size={size}"));
        }
        crate::http::json(&self.get(path).await?)
    }

    /// The proof that a ledger of `size` entries begins with what it was at `first` entries.
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when there is no such ledger or it is smaller.
    pub async fn consistency_proof(
        &self,
        name: &str,
        first: u64,
        size: Option<u64>,
    ) -> Result<serde_json::Value, Error> {
        let mut path = format!(
            "/api/v1/consortium/ledgers/{}/proof?first={first}",
            percent_encoded(name)
        );
        if let Some(size) = size {
            path.push_str(&format!("&size={size}"));
        }
        crate::http::json(&self.get(path).await?)
    }

    /// A ledger as a file that proves itself ([`daybook_ledger::consortium::export`]).
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when there is no such ledger.
    pub async fn export(&self, name: &str) -> Result<Bytes, Error> {
        let name = percent_encoded(name);
        self.get(format!("/api/v1/consortium/ledgers/{name}/export"))
            .await
    }

    /// What became of a proposal, or how far it has come; `None` when there was none.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn proposal(
        &self,
        proposal: &TransactionId,
    ) -> Result<Option<serde_json::Value>, Error> {
        self.find(format!("/api/v1/consortium/proposals/{proposal}"))
            .await
    }

    async fn get(&self, path: String) -> Result<Bytes, Error> {
        let body = self.client.http.find(&path).await?;
        body.ok_or(Error::NotFound(path))
    }

    async fn find(&self, path: String) -> Result<Option<serde_json::Value>, Error> {
        match self.client.http.find(&path).await? {
            Some(body) => crate::http::json(&body).map(Some),
            None => Ok(None),
        }
    }
}
