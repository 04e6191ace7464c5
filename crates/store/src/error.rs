//! Why the store cannot go on.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The data directory was written by another version or for another network.
    #[error("{0}")]
    Foreign(String),
    /// Another process uses the data directory.
    #[error("another process uses {0}")]
    Locked(PathBuf),
}

impl StoreError {
    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }

    /// Whether it may go another time: the operating system refused, and nothing is known to be wrong
    /// with what is on disk.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Io { .. })
    }

    /// The same finding once more, for a reader that comes after the one who made it.
    pub(crate) fn again(&self) -> StoreError {
        match self {
            StoreError::Io { path, source } => StoreError::Io {
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            StoreError::Damaged { path, offset, what } => StoreError::Damaged {
                path: path.clone(),
                offset: *offset,
                what: what.clone(),
            },
            StoreError::Foreign(what) => StoreError::Foreign(what.clone()),
            StoreError::Locked(path) => StoreError::Locked(path.clone()),
        }
    }
}

/// Names the file that an operation failed on.
pub(crate) trait At<T> {
    /// The operation was on `path`.
    fn at(self, path: &Path) -> Result<T, StoreError>;

    /// The operation read `path` at `offset`, where bytes ought to be.
    fn reading(self, path: &Path, offset: u64) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })
    }

    fn reading(self, path: &Path, offset: u64) -> Result<T, StoreError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                StoreError::damaged(path, offset, "the file ends early")
            }
            _ => StoreError::Io {
                path: path.to_owned(),
                source,
            },
        })
    }
}
