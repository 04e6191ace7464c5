//! What a member needs of the network: the shared log, and the relay that carries what is not in it.

use std::{fmt, future::Future, pin::Pin};

use bytes::Bytes;
use daybook_ledger::{
    Position,
    consortium::{Entry, Request},
};

/// A future that the network answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A node, in this process or elsewhere.
pub trait Network: Send + Sync + fmt::Debug + 'static {
    /// Hands in a signed request and waits until its entry is on disk. The same request again gives the
    /// same answer.
    fn submit(&self, request: Request) -> Answer<'_, Result<Committed, NotTaken>>;

    /// Entries of the consortium's book behind `after`, in order, at most `limit`; none when there are
    /// none yet.
    fn entries(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Logged>, Unavailable>>;

    /// Waits until there may be entries behind `after`. May return early.
    fn grown(&self, after: Option<Position>) -> Answer<'_, ()>;

    /// Puts a signed notice on the relay.
    fn post(&self, notice: Bytes) -> Answer<'_, Result<(), NotTaken>>;

    /// Waits for notices behind `after`, and gives none when there are none for a while. `shown` is the
    /// member's own signed wish to read.
    fn notices(
        &self,
        after: NoticeCursor,
        shown: Bytes,
    ) -> Answer<'_, Result<Notices, Unavailable>>;
}

/// An entry and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The place.
    pub position: Position,
    /// The entry.
    pub entry: Entry,
}

/// A request that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where its entry stands.
    pub position: Position,
    /// The entry; of the first time, for a request that came again.
    pub entry: Entry,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It may not be.
    #[error("{detail}")]
    Refused {
        /// The stable name of the reason.
        code: String,
        /// The reason, in words.
        detail: String,
    },
    /// The node cannot be reached or is busy. The request may have been taken all the same.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The node cannot be reached, or cannot answer now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node does not answer: {0}")]
pub struct Unavailable(pub String);

/// How far a member has read the relay. The kept notices are numbered in the relay's file, the passing ones
/// since the relay was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoticeCursor {
    /// The last kept notice.
    pub kept: u64,
    /// The file that counts the kept ones: another one since it was restored from a backup.
    pub epoch: String,
    /// The last passing notice.
    pub passing: u64,
    /// The relay that counts the passing ones.
    pub relay: String,
}

/// What the relay had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// Where to go on.
    pub next: NoticeCursor,
    /// The notices, in order.
    pub notices: Vec<Bytes>,
}
