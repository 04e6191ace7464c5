//! What can go wrong between a client and a node.

use std::{fmt, time::Duration};

use daybook_ledger::TransactionId;

/// A node's considered "no": sending the same again will be refused again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, or the one that the same refusal has over HTTP.
    pub status: u16,
    /// The class that programs match on (asset ledger, section 6.8); `None` for refusals that have
    /// none, such as a malformed parameter.
    pub class: Option<String>,
    /// The reason in words.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(class) if !self.message.contains(class.as_str()) => {
                write!(f, "{class}: {}", self.message)
            }
            _ => f.write_str(&self.message),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node understood and refused. Nothing has changed.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// There is no such transaction, block or path.
    #[error("not found: {0}")]
    NotFound(String),
    /// The node wants a bearer token, or another one.
    #[error("the node refuses the token: {0}")]
    Unauthorised(String),
    /// The node is full or not ready: the same call may succeed later. Nothing has changed.
    #[error("the node is busy: {message}")]
    Busy {
        /// What it said.
        message: String,
        /// When it suggests to ask again.
        retry_after: Option<Duration>,
    },
    /// No connection could be made. Nothing has changed.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The node's address.
        endpoint: String,
        /// What the operating system or the TLS library said.
        reason: String,
    },
    /// The other end is not who its address says, as far as the trusted certificates tell. Nothing was
    /// sent.
    #[error("no trusted connection to {endpoint}: {reason}")]
    Untrusted {
        /// The node's address.
        endpoint: String,
        /// What is wrong with its certificate, or with its TLS.
        reason: String,
    },
    /// The connection broke, or the answer did not come in time, after the request may have arrived.
    #[error("the connection to {endpoint} broke: {reason}")]
    Broken {
        /// The node's address.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// A transaction was sent and its fate could not be learned in time. Ask again by its id, or send
    /// it again: a node takes each transaction at most once.
    #[error("transaction {id} was sent, but its outcome is unknown: {reason}")]
    Unknown {
        /// The transaction.
        id: TransactionId,
        /// Why its outcome is unknown.
        reason: String,
    },
    /// The node had an internal fault (a 5xx status that is not "busy").
    #[error("the node failed with status {status}: {message}")]
    Node {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The answer is not what this protocol says, or is larger than any answer may be.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The client's own settings make no sense.
    #[error("{0}")]
    Configuration(String),
}

impl Error {
    /// True when the same call may succeed a little later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Busy { .. }
                | Error::Unreachable { .. }
                | Error::Broken { .. }
                | Error::Unknown { .. }
        )
    }

    /// The error of a connection that could not be made.
    pub(crate) fn no_connection(
        endpoint: &crate::Endpoint,
        error: &(dyn std::error::Error + 'static),
    ) -> Error {
        let endpoint = endpoint.to_string();
        let mut cause = error;
        loop {
            let inside = cause
                .downcast_ref::<std::io::Error>()
                .and_then(|error| error.get_ref());
            if cause.is::<rustls::Error>()
                || inside.is_some_and(|inside| inside.is::<rustls::Error>())
            {
                return Error::Untrusted {
                    endpoint,
                    reason: cause.to_string(),
                };
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                // The last cause is what the operating system said, without the layers between.
                None => {
                    return Error::Unreachable {
                        endpoint,
                        reason: cause.to_string(),
                    };
                }
            }
        }
    }

    pub(crate) fn protocol(what: impl fmt::Display) -> Error {
        Error::Protocol(what.to_string())
    }
}
