//! The paying side of a transfer channel (wallet tracker, section 11).

use std::path::Path;

use daybook_ledger::tracker::{Contract, Key, KeyHash, Settled, Suites};

use super::{
    ChannelFile, Error, HalfSigned, PeerKey, Role, Version, channel_file::Receipt, message,
};

/// A payer. What it has signed is on disk before anybody else sees it, so that it knows after a crash
/// what it may owe.
#[derive(Debug)]
pub struct Payer {
    file: ChannelFile,
}

impl Payer {
    /// Makes and signs a contract for the tracker with these ids, and writes it to the new file at
    /// `path`.
    ///
    /// # Errors
    /// `Usage` for terms that no tracker takes, `File` when it cannot be written.
    pub fn propose(
        key: &PeerKey,
        trackers: &[KeyHash],
        version: Version,
        contract: &Contract,
        payee_pem: &str,
        path: &Path,
    ) -> Result<Payer, Error> {
        contract
            .check()
            .map_err(|refusal| Error::Usage(refusal.to_string()))?;
        if path.exists() {
            let error = std::io::ErrorKind::AlreadyExists.into();
            return Err(Error::File {
                path: path.to_owned(),
                error,
            });
        }
        let version2 = version == Version::V2;
        // Messages name one of the tracker's keys; receipts will name the same.
        let tracker = trackers.first().filter(|_| version2);
        let text = message::contract(contract, key.pem(), payee_pem, tracker, None);
        let open = HalfSigned {
            from_pk: key.pem().to_owned(),
            from_sign: key.sign(&text),
            to_pk: payee_pem.to_owned(),
            message: text,
        };
        let file = ChannelFile::new(path, Role::Payer, trackers, version2, contract, open);
        file.save()?;
        Ok(Payer { file })
    }

    /// Takes up a channel where its file left it.
    ///
    /// # Errors
    /// `File` when it cannot be read, `Usage` when it is a payee's.
    pub fn load(path: &Path) -> Result<Payer, Error> {
        let file = ChannelFile::load(path)?;
        match file.role {
            Role::Payer => Ok(Payer { file }),
            Role::Payee => Err(Error::Usage("this is the file of a payee".to_owned())),
        }
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
    /// `Usage` for fewer bytes than before and for more than were agreed, `File`.
    pub fn pay(&mut self, key: &PeerKey, volume: u64) -> Result<HalfSigned, Error> {
        let contract = self.file.contract();
        if key.pem() != self.file.open.from_pk {
            return Err(Error::Usage("another key signed the contract".to_owned()));
        }
        if volume < self.file.paid().volume {
            return Err(Error::Usage("a receipt never takes back".to_owned()));
        }
        let count = contract.price.quanta(volume);
        let tokens = contract.price.cost(count).unwrap_or(u64::MAX);
        let settled = Settled {
            count,
            tokens,
            volume,
        };
        contract
            .check_settled(&settled)
            .map_err(|refusal| Error::Usage(refusal.to_string()))?;
        let ids = self.file.tracker_ids();
        let open = &self.file.open;
        let tracker = ids.first().filter(|_| self.file.version2);
        let text = message::contract(
            &contract,
            &open.from_pk,
            &open.to_pk,
            tracker,
            Some(&settled),
        );
        let from_sign = key.sign(&text);
        self.file.receipt = Some(Receipt::new(text, from_sign, settled));
        self.file.save()?;
        Ok(self.file.newest_receipt().expect("it was set just now"))
    }

    /// Bytes that the contract still has room for.
    pub fn room(&self) -> u64 {
        let contract = self.file.contract();
        contract.bytes().saturating_sub(self.file.paid().volume)
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
