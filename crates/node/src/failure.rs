//! How a command fails: a sentence for people and an exit code for programs.

use std::{fmt, io};

use daybook_client::Error as ClientError;
use daybook_store::StoreError;

use crate::settings::SettingsError;

/// Exit codes: a public promise, listed in `docs/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was refused, or a check failed.
    Refused = 1,
    /// The command line or the configuration makes no sense.
    Usage = 2,
    /// The node cannot be reached, or is busy.
    Unreachable = 3,
    /// Bytes on disk are not what was written.
    Damaged = 4,
    /// Another process uses the data directory.
    InUse = 5,
    /// Something was sent and its outcome could not be learned.
    Unknown = 6,
    /// The operating system refused: disk full, no permission, address in use.
    System = 7,
}

impl Exit {
    /// The exit of a code, as another process of ours reported it.
    pub(crate) fn from_code(code: i32) -> Option<Exit> {
        [
            Exit::Refused,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Damaged,
            Exit::InUse,
            Exit::Unknown,
            Exit::System,
        ]
        .into_iter()
        .find(|exit| *exit as i32 == code)
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, message)
    }

    pub(crate) fn system(about: impl fmt::Display, error: &io::Error) -> Failure {
        Failure::new(Exit::System, format!("{about}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let exit = match &error {
            ClientError::Unreachable { .. }
            | ClientError::Untrusted { .. }
            | ClientError::Busy { .. } => Exit::Unreachable,
            ClientError::Broken { .. } | ClientError::Unknown { .. } => Exit::Unknown,
            ClientError::Configuration(_) => Exit::Usage,
            _ => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let exit = match &error {
            StoreError::Io { .. } => Exit::System,
            StoreError::Damaged { .. } => Exit::Damaged,
            StoreError::Foreign(_) => Exit::Refused,
            StoreError::Locked(_) => Exit::InUse,
        };
        Failure::new(exit, error.to_string())
    }
}
