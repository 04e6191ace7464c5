//! The paying side of a transfer channel (wallet tracker, section 11): the rules are the ledger's, the
//! file and the signatures are here.

use std::{io, path::Path};

use daybook_ledger::tracker::{self as rules, Agreement, Key, Stop, Suites};

use super::{ChannelFile, Error, HalfSigned, PeerKey, Role, channel_file::Receipt};

/// A payer. What it has signed is on disk before anybody else sees it, so that it knows after a crash
/// what it may owe.
#[derive(Debug)]
pub struct Payer {
    file: ChannelFile,
    rules: rules::Payer,
}

impl Payer {
    /// Signs a contract, and writes it to the new file at `path`.
    ///
    /// # Errors
    /// `Usage` for terms that no tracker takes and for another payer's, `File` when it cannot be
    /// written.
    pub fn propose(key: &PeerKey, agreement: Agreement, path: &Path) -> Result<Payer, Error> {
        let terms = agreement.contract.check();
        terms.map_err(|refusal| Error::Usage(refusal.to_string()))?;
        if key.pem() != agreement.from_pk {
            return Err(another_key());
        }
        must_be_new(path)?;
        let text = agreement.open_text();
        let open = HalfSigned {
            from_pk: agreement.from_pk.clone(),
            from_sign: key.sign(&text),
            to_pk: agreement.to_pk.clone(),
            message: text,
        };
        let rules = rules::Payer::new(agreement.clone());
        let file = ChannelFile::new(path, Role::Payer, 0, agreement, open);
        file.save()?;
        Ok(Payer { file, rules })
    }

    /// Takes up a channel where its file left it.
    ///
    /// # Errors
    /// `File` when it cannot be read, `Usage` when it is a payee's.
    pub fn load(path: &Path) -> Result<Payer, Error> {
        let file = ChannelFile::load(path)?;
        if file.role != Role::Payer {
            return Err(Error::Usage("this is the file of a payee".to_owned()));
        }
        let rules = rules::Payer::resume(file.agreement().clone(), file.paid());
        Ok(Payer { file, rules })
    }

    /// The channel as it is on disk.
    pub fn file(&self) -> &ChannelFile {
        &self.file
    }

    /// The channel, to note something beside it. Save it afterwards.
    pub fn file_mut(&mut self) -> &mut ChannelFile {
        &mut self.file
    }

    /// Notes that the payee has signed and that the tracker has opened the channel until `timelock`.
    ///
    /// # Errors
    /// `Protocol` when the signature is not the payee's, `File`.
    pub fn opened(&mut self, to_sign: &str, timelock: u64) -> Result<(), Error> {
        let open = &self.file.open;
        let payee = Key::read(&open.to_pk).map_err(|e| Error::Protocol(e.to_string()))?;
        if !payee.verify(&Suites::default(), open.message.as_bytes(), to_sign) {
            return Err(Error::Protocol(
                "the payee's signature under the contract does not verify".to_owned(),
            ));
        }
        self.file.to_sign = Some(to_sign.to_owned());
        self.file.timelock = Some(timelock);
        self.file.save()
    }

    /// Signs a receipt over all `volume` bytes that came through this channel. It is on disk when this
    /// returns.
    ///
    /// # Errors
    /// `Stop` for fewer bytes than before and for more than were agreed, `Usage` for another key,
    /// `File`.
    pub fn pay(&mut self, key: &PeerKey, volume: u64) -> Result<HalfSigned, Error> {
        if key.pem() != self.file.open.from_pk {
            return Err(another_key());
        }
        let (settled, text) = self.rules.receipt(volume)?;
        let from_sign = key.sign(&text);
        self.file.receipt = Some(Receipt::new(text, from_sign, settled));
        self.file.save()?;
        Ok(self.file.newest_receipt().expect("it was set just now"))
    }

    /// Bytes that the contract still has room for.
    pub fn room(&self) -> u64 {
        let bytes = self.file.contract().bytes();
        bytes.saturating_sub(self.rules.last().volume)
    }

    /// Whether `bytes` more could be paid for.
    ///
    /// # Errors
    /// [`Stop::Full`] at the end of the plan.
    pub fn may_take(&self, bytes: u64) -> Result<(), Stop> {
        let volume = self.rules.last().volume.saturating_add(bytes);
        let settled = self.rules.agreement().settled(volume);
        settled.map(|_| ()).ok_or(Stop::Full)
    }

    /// Notes that the channel is closed.
    ///
    /// # Errors
    /// `File`.
    pub fn settled(&mut self) -> Result<(), Error> {
        self.file.settled = true;
        self.file.save()
    }
}

fn another_key() -> Error {
    Error::Usage("the contract is with another payer".to_owned())
}

/// Refuses a path that is taken: no channel's file is ever overwritten by another one's.
pub(super) fn must_be_new(path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::File {
            path: path.to_owned(),
            error: io::ErrorKind::AlreadyExists.into(),
        });
    }
    Ok(())
}
