//! What a peer keeps of a transfer channel on disk (wallet tracker, section 11, rule 8): the contract
//! with its signatures, and the newest receipt.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use daybook_ledger::tracker::{Agreement, Contract, Settled};
use serde::{Deserialize, Serialize};

use super::{Error, HalfSigned, trust::read_bounded};

/// Bytes of a channel file at most: two signed texts with RSA keys of 4096 bits take about 10,000.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// The version of the form.
const VERSION: u32 = 1;

/// On which side of a channel a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pays and downloads.
    Payer,
    /// Is paid and uploads.
    Payee,
}

/// A channel as it stands on disk. Every change is durable before [`ChannelFile::save`] returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChannelFile {
    version: u32,
    /// Whose file it is.
    pub role: Role,
    /// Bytes that the payee sends without a receipt at most.
    pub(super) segment_bytes: u64,
    /// The contract with the payer's signature.
    pub(super) open: HalfSigned,
    /// The payee's signature under the contract, once it is known.
    pub(super) to_sign: Option<String>,
    /// When the channel locks, in milliseconds since 1970, once the tracker has said so.
    pub timelock: Option<u64>,
    /// Bytes that the payee has sent or is about to send, the unreceipted ones included.
    pub(super) offered: u64,
    /// The newest receipt.
    pub(super) receipt: Option<Receipt>,
    /// Quanta of the receipt that was deposited with the tracker.
    pub(super) parked: Option<u64>,
    /// The channel is closed; the file is history.
    pub settled: bool,
    /// What the program that uses the channel wants to remember beside it.
    #[serde(default)]
    pub note: serde_json::Value,
    /// What the contract's text says; there once the file was read.
    #[serde(skip)]
    agreement: Option<Agreement>,
    #[serde(skip)]
    path: PathBuf,
}

/// A receipt with the payer's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Receipt {
    pub(super) message: String,
    pub(super) from_sign: String,
    count: u64,
    tokens: u64,
    volume: u64,
}

impl Receipt {
    pub(super) fn new(message: String, from_sign: String, settled: Settled) -> Receipt {
        Receipt {
            message,
            from_sign,
            count: settled.count,
            tokens: settled.tokens,
            volume: settled.volume,
        }
    }

    pub(super) fn settled(&self) -> Settled {
        Settled {
            count: self.count,
            tokens: self.tokens,
            volume: self.volume,
        }
    }
}

impl ChannelFile {
    pub(super) fn new(
        path: &Path,
        role: Role,
        segment_bytes: u64,
        agreement: Agreement,
        open: HalfSigned,
    ) -> ChannelFile {
        ChannelFile {
            version: VERSION,
            role,
            segment_bytes,
            open,
            to_sign: None,
            timelock: None,
            offered: 0,
            receipt: None,
            parked: None,
            settled: false,
            note: serde_json::Value::Null,
            agreement: Some(agreement),
            path: path.to_owned(),
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `File` when it cannot be read or is none.
    pub fn load(path: &Path) -> Result<ChannelFile, Error> {
        let wrong = |error: io::Error| Error::File {
            path: path.to_owned(),
            error,
        };
        let text = read_bounded(path, FILE_BYTES_MAX).map_err(wrong)?;
        let mut file: ChannelFile =
            serde_json::from_str(&text).map_err(|error| wrong(error.into()))?;
        let bad = |what: String| wrong(io::Error::new(io::ErrorKind::InvalidData, what));
        if file.version != VERSION {
            return Err(bad("a channel file of another version".to_owned()));
        }
        let agreement = Agreement::read(&file.open.message);
        file.agreement = Some(agreement.map_err(|refusal| bad(refusal.to_string()))?);
        file.path = path.to_owned();
        Ok(file)
    }

    /// Writes the file, whole and durable: after a crash it is this one or the one before.
    ///
    /// # Errors
    /// `File` when that fails.
    pub fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).expect("texts and numbers make JSON") + "\n";
        replace(&self.path, text.as_bytes()).map_err(|error| Error::File {
            path: self.path.clone(),
            error,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What both agreed on.
    pub fn agreement(&self) -> &Agreement {
        self.agreement
            .as_ref()
            .expect("every file was read or made with it")
    }

    /// The terms.
    pub fn contract(&self) -> &Contract {
        &self.agreement().contract
    }

    /// What the newest receipt pays; nothing before the first.
    pub fn paid(&self) -> Settled {
        let receipt = self.receipt.as_ref();
        receipt.map_or_else(Settled::default, Receipt::settled)
    }

    /// The contract as the payer signed it.
    pub fn half_signed(&self) -> &HalfSigned {
        &self.open
    }

    /// The contract with both signatures, once the payee has signed.
    pub fn co_signed(&self) -> Option<super::CoSigned> {
        let to_sign = self.to_sign.clone()?;
        let HalfSigned {
            message,
            from_pk,
            from_sign,
            to_pk,
        } = self.open.clone();
        Some(super::CoSigned {
            message,
            from_pk,
            from_sign,
            to_pk,
            to_sign,
        })
    }

    /// The newest receipt as the payer signed it.
    pub fn newest_receipt(&self) -> Option<HalfSigned> {
        self.receipt.as_ref().map(|receipt| HalfSigned {
            message: receipt.message.clone(),
            from_pk: self.open.from_pk.clone(),
            from_sign: receipt.from_sign.clone(),
            to_pk: self.open.to_pk.clone(),
        })
    }

    /// Bytes that the payee sends without a receipt at most.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes that the payee has sent or was about to send.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Quanta of the receipt that was deposited with the tracker.
    pub fn parked(&self) -> Option<u64> {
        self.parked
    }
}

/// Writes a file in place of the one that may be there, readable by its owner only: after a crash it is
/// the old one or the new one, whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = name.to_string_lossy();
    let beside = folder.join(format!(".{name}.{}.new", std::process::id()));
    // What a process of the same number left behind when it was killed.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}
