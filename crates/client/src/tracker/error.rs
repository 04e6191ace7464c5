//! What can go wrong between a peer and its tracker.

use std::{io, path::PathBuf};

use daybook_ledger::tracker::Stop;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tracker understood and refused. Nothing has changed.
    #[error("refused: {message} ({code})")]
    Refused {
        /// The stable code (wallet tracker, section 14); empty from a tracker that has none.
        code: String,
        /// The reason in words.
        message: String,
    },
    /// The node cannot be reached, or the connection to it cannot be trusted. Nothing has changed.
    #[error(transparent)]
    Connection(#[from] crate::Error),
    /// A request that may have changed something was sent, and its answer did not come in time.
    #[error("the request was sent, but its outcome is unknown: {0}")]
    Unknown(String),
    /// The other end is not the tracker that was known by this address before.
    #[error("this is not the tracker that was here before: {0}")]
    Impostor(String),
    /// An answer that this protocol does not know.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The channel goes no further; the last good receipt stays good.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// A contract that this payee does not take.
    #[error("this contract cannot be taken: {0}")]
    BadContract(String),
    /// What has to be on disk before the next step could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The caller asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The stable code of a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// True when the same call may succeed a little later without any change.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connection(error) => error.is_transient(),
            Error::Unknown(_) => true,
            Error::Refused { code, .. } => code == "rate_limited" || code == "internal",
            _ => false,
        }
    }
}
