//! The paid side of a transfer channel (wallet tracker, section 11).

use std::path::Path;

use daybook_ledger::tracker::{
    Act, Contract, KeyHash, Payload, Proven, Prover, Request, Settled, Suites, command,
};

use super::{ChannelFile, CoSigned, Error, HalfSigned, PeerKey, Role, channel_file::Receipt};

/// A payee. Whatever it gets is checked as the tracker will check it, and on disk before it gives more.
pub struct Payee {
    file: ChannelFile,
    prover: Prover,
}

/// Why a contract or a receipt is not taken (section 11, rule 3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadReceipt {
    /// The tracker would refuse it.
    #[error("the tracker would refuse it: {0}")]
    Unsound(String),
    /// Another contract or other keys than agreed.
    #[error("it is about another contract")]
    OtherContract,
    /// It pays less than the one before.
    #[error("it takes back what the receipt before it paid")]
    Less,
    /// It is about other bytes than were sent.
    #[error("it is about {said} bytes where {sent} were sent")]
    Volume {
        /// Bytes in the receipt.
        said: u64,
        /// Bytes that were sent.
        sent: u64,
    },
    /// A receipt for the bytes that were sent last is still missing.
    #[error("the receipt for the last segment is missing")]
    Outstanding,
    /// The contract has no room for the segment.
    #[error("the contract has no room for more")]
    Exhausted,
    /// The channel is closed.
    #[error("the channel is closed")]
    Closed,
}

impl std::fmt::Debug for Payee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payee").field("file", &self.file).finish()
    }
}

/// Proves what the payer signed as the tracker will: with the payee's signature under it.
fn prove(prover: &mut Prover, code: u64, signed: &CoSigned) -> Result<Act, BadReceipt> {
    let request = Request {
        command: code,
        correlation: String::new(),
        idempotent: false,
        payload: Payload::CoSigned {
            message: signed.message.clone(),
            from_pk: signed.from_pk.clone(),
            from_sign: signed.from_sign.clone(),
            to_pk: signed.to_pk.clone(),
            to_sign: signed.to_sign.clone(),
        },
    };
    match prover.prove(request) {
        Ok(Proven::Command(command)) => Ok(command.act().clone()),
        Ok(_) => Err(BadReceipt::OtherContract),
        Err(refusal) => Err(BadReceipt::Unsound(refusal.to_string())),
    }
}

impl Payee {
    /// Reads the terms of a contract that a payer has signed, without agreeing to it.
    ///
    /// # Errors
    /// [`BadReceipt::Unsound`] when the tracker with these ids would not take it, and
    /// [`BadReceipt::OtherContract`] when somebody else is to be paid.
    pub fn read(
        key: &PeerKey,
        trackers: &[KeyHash],
        open: &HalfSigned,
    ) -> Result<Contract, BadReceipt> {
        if open.to_pk != key.pem() {
            return Err(BadReceipt::OtherContract);
        }
        let mut prover = Prover::new(Suites::default(), trackers);
        match prove(&mut prover, command::OPEN_TRANSFER, &open.countersign(key))? {
            Act::OpenTransfer(signed) => Ok(signed.contract),
            _ => Err(BadReceipt::OtherContract),
        }
    }

    /// Agrees to a contract: signs it, and writes it with both signatures to the new file at `path`.
    /// Check its terms before.
    ///
    /// # Errors
    /// As [`Payee::read`]; `File`.
    pub fn accept(
        key: &PeerKey,
        trackers: &[KeyHash],
        open: &HalfSigned,
        path: &Path,
    ) -> Result<Payee, Error> {
        let contract = Payee::read(key, trackers, open)?;
        if path.exists() {
            let error = std::io::ErrorKind::AlreadyExists.into();
            return Err(Error::File {
                path: path.to_owned(),
                error,
            });
        }
        let version2 = is_version2(&open.message);
        let mut file = ChannelFile::new(
            path,
            Role::Payee,
            trackers,
            version2,
            &contract,
            open.clone(),
        );
        file.to_sign = Some(key.sign(&open.message));
        file.save()?;
        Ok(Payee::of(file))
    }

    /// Takes up a channel where its file left it.
    ///
    /// # Errors
    /// `File` when it cannot be read, `Usage` when it is a payer's.
    pub fn load(path: &Path) -> Result<Payee, Error> {
        let file = ChannelFile::load(path)?;
        match file.role {
            Role::Payee => Ok(Payee::of(file)),
            Role::Payer => Err(Error::Usage("this is the file of a payer".to_owned())),
        }
    }

    fn of(file: ChannelFile) -> Payee {
        let prover = Prover::new(Suites::default(), file.tracker_ids());
        Payee { file, prover }
    }

    /// The channel as it is on disk.
    pub fn file(&self) -> &ChannelFile {
        &self.file
    }

    /// The channel, to note something beside it. Save it afterwards.
    pub fn file_mut(&mut self) -> &mut ChannelFile {
        &mut self.file
    }

    /// The contract with both signatures, to be submitted.
    pub fn contract(&self) -> CoSigned {
        self.file
            .co_signed()
            .expect("a payee signs when it accepts")
    }

    /// Notes until when the tracker has opened the channel.
    ///
    /// # Errors
    /// `File`.
    pub fn opened(&mut self, timelock: u64) -> Result<(), Error> {
        self.file.timelock = Some(timelock);
        self.file.save()
    }

    /// Bytes that the contract still has room for.
    pub fn room(&self) -> u64 {
        let contract = self.file.contract();
        contract.bytes().saturating_sub(self.file.offered)
    }

    /// Notes, before they are sent, that `bytes` more are. At most one segment is ever without a receipt
    /// (rule 4).
    ///
    /// # Errors
    /// `BadReceipt` with `Outstanding`, `Exhausted` or `Closed`; `File`.
    pub fn offer(&mut self, bytes: u64) -> Result<(), Error> {
        if self.file.settled {
            return Err(BadReceipt::Closed.into());
        }
        if self.file.offered != self.file.paid().volume {
            return Err(BadReceipt::Outstanding.into());
        }
        if bytes > self.room() {
            return Err(BadReceipt::Exhausted.into());
        }
        self.file.offered += bytes;
        self.file.save()
    }

    /// Notes that the payer lacks what was offered last: it was cut off. The payee has lost nothing but
    /// traffic.
    ///
    /// # Errors
    /// `File`.
    pub fn withdraw(&mut self) -> Result<(), Error> {
        self.file.offered = self.file.paid().volume;
        self.file.save()
    }

    /// Takes a receipt, which is on disk when this returns (rule 3). One that is not better than the
    /// last good one changes nothing.
    ///
    /// # Errors
    /// `BadReceipt`: settle with the last good receipt. `File`.
    pub fn take(&mut self, key: &PeerKey, receipt: &HalfSigned) -> Result<Settled, Error> {
        let settled = self.check(key, receipt)?;
        self.file.receipt = Some(Receipt::new(
            receipt.message.clone(),
            receipt.from_sign.clone(),
            settled,
        ));
        self.file.save()?;
        Ok(settled)
    }

    fn check(&mut self, key: &PeerKey, receipt: &HalfSigned) -> Result<Settled, BadReceipt> {
        if self.file.settled {
            return Err(BadReceipt::Closed);
        }
        let open = &self.file.open;
        if receipt.from_pk != open.from_pk || receipt.to_pk != open.to_pk {
            return Err(BadReceipt::OtherContract);
        }
        let signed = receipt.countersign(key);
        let act = prove(&mut self.prover, command::CLOSE_TRANSFER, &signed)?;
        let Act::CloseTransfer(signed, settled) = act else {
            return Err(BadReceipt::OtherContract);
        };
        if signed.contract != self.file.contract() {
            return Err(BadReceipt::OtherContract);
        }
        let before = self.file.paid();
        if settled.count < before.count || settled.volume < before.volume {
            return Err(BadReceipt::Less);
        }
        if settled.volume != self.file.offered {
            return Err(BadReceipt::Volume {
                said: settled.volume,
                sent: self.file.offered,
            });
        }
        Ok(settled)
    }

    /// The newest receipt with both signatures, to be submitted or deposited; `None` before the first.
    /// Never hand it to the payer (rule 5).
    pub fn best(&self, key: &PeerKey) -> Option<CoSigned> {
        Some(self.file.newest_receipt()?.countersign(key))
    }

    /// Notes that the newest receipt was deposited with the tracker.
    ///
    /// # Errors
    /// `File`.
    pub fn parked(&mut self) -> Result<(), Error> {
        self.file.parked = Some(self.file.paid().count);
        self.file.save()
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

/// Whether a text names its version, as messages of version 2 do.
fn is_version2(message: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Versioned {
        v: Option<u64>,
    }
    serde_json::from_str::<Versioned>(message).is_ok_and(|named| named.v == Some(2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::tracker::{Address, AddressKind, Price, Suite};

    use super::{
        super::{Payer, Version, message},
        *,
    };

    /// A channel of eight quanta of 16 bytes at 5 tokens each, between a payer and a payee of any suites.
    struct Pair {
        folder: tempfile::TempDir,
        payer_key: PeerKey,
        payee_key: PeerKey,
        payer: Payer,
        payee: Payee,
    }

    const TRACKERS: [KeyHash; 2] = [KeyHash([1; 32]), KeyHash([2; 32])];

    fn terms() -> Contract {
        let end = |kind| Address::channel_end(kind, "T", "P", 1).to_string();
        Contract {
            channel: "c1".into(),
            from: end(AddressKind::Spend).into(),
            to: end(AddressKind::Income).into(),
            price: Price {
                amount: 5,
                power: 4,
            },
            planned: 8,
        }
    }

    fn pair(version: Version) -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let payer_key = PeerKey::generate(Suite::P256);
        let payee_key = PeerKey::generate(Suite::Ed25519);
        let path = |name: &str| folder.path().join(name);
        let pem = payee_key.pem();
        let mut payer = Payer::propose(
            &payer_key,
            &TRACKERS,
            version,
            &terms(),
            pem,
            &path("payer"),
        )
        .unwrap();
        let open = payer.file().half_signed();
        let mut payee = Payee::accept(&payee_key, &TRACKERS, open, &path("payee")).unwrap();
        payer.opened(&payee.contract().to_sign, 1000).unwrap();
        payee.opened(1000).unwrap();
        Pair {
            folder,
            payer_key,
            payee_key,
            payer,
            payee,
        }
    }

    impl Pair {
        /// The payee sends bytes and the payer gives a receipt for them.
        fn segment(&mut self, bytes: u64) -> Result<Settled, Error> {
            self.payee.offer(bytes)?;
            let volume = self.payee.file().offered();
            let receipt = self.payer.pay(&self.payer_key, volume)?;
            self.payee.take(&self.payee_key, &receipt)
        }
    }

    fn refusal(error: Error) -> BadReceipt {
        match error {
            Error::BadReceipt(bad) => bad,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn receipts_add_up_and_round_up_to_whole_quanta() {
        for version in [Version::V1, Version::V2] {
            let mut pair = pair(version);
            for (bytes, count, volume) in [(16, 1, 16), (1, 2, 17), (15, 2, 32), (80, 7, 112)] {
                let settled = pair.segment(bytes).unwrap();
                assert_eq!((settled.count, settled.volume), (count, volume));
                assert_eq!(settled.tokens, 5 * count);
            }
            assert_eq!((pair.payer.room(), pair.payee.room()), (16, 16));
            let exhausted = refusal(pair.segment(17).unwrap_err());
            assert_eq!(exhausted, BadReceipt::Exhausted);
            pair.segment(16).unwrap();
            let best = pair.payee.best(&pair.payee_key).unwrap();
            assert_eq!(best.half(), pair.payer.file().newest_receipt().unwrap());
        }
    }

    #[test]
    fn both_sides_know_after_a_restart_what_they_signed_and_what_they_got() {
        let mut pair = pair(Version::V2);
        pair.segment(20).unwrap();
        pair.payee.offer(30).unwrap();
        let payee = Payee::load(&pair.folder.path().join("payee")).unwrap();
        let payer = Payer::load(&pair.folder.path().join("payer")).unwrap();
        assert_eq!(payee.file(), pair.payee.file());
        assert_eq!(payer.file(), pair.payer.file());
        assert_eq!(payee.file().paid().volume, 20);
        assert_eq!(payee.file().offered(), 50);
        assert_eq!(payee.file().timelock, Some(1000));
        assert_eq!(payee.contract(), payer.file().co_signed().unwrap());
        Payee::load(&pair.folder.path().join("payer")).unwrap_err();
        Payer::load(&pair.folder.path().join("payee")).unwrap_err();
    }

    #[test]
    fn at_most_one_segment_is_without_a_receipt() {
        let mut pair = pair(Version::V2);
        pair.payee.offer(16).unwrap();
        assert_eq!(
            refusal(pair.payee.offer(16).unwrap_err()),
            BadReceipt::Outstanding
        );
        pair.payee.withdraw().unwrap();
        pair.segment(16).unwrap();
    }

    #[test]
    fn a_receipt_that_pays_less_or_for_other_bytes_or_by_another_contract_is_refused() {
        let mut pair = pair(Version::V2);
        pair.segment(40).unwrap();
        let good = pair.payee.file().clone();
        pair.payee.offer(10).unwrap();
        let id = Some(&TRACKERS[0]);
        let signed = |contract: &Contract, count: u64, tokens: u64, volume: u64| {
            let settled = Settled {
                count,
                tokens,
                volume,
            };
            let (from, to) = (pair.payer_key.pem(), pair.payee_key.pem());
            let text = message::contract(contract, from, to, id, Some(&settled));
            HalfSigned {
                from_pk: from.to_owned(),
                from_sign: pair.payer_key.sign(&text),
                to_pk: to.to_owned(),
                message: text,
            }
        };
        let with = |change: &dyn Fn(&mut Contract)| {
            let mut contract = terms();
            change(&mut contract);
            contract
        };
        let unsound = |code: &str| BadReceipt::Unsound(code.to_owned());
        let is = |receipt: HalfSigned, wanted: BadReceipt| {
            let mut payee = Payee::load(pair.payee.file().path()).unwrap();
            let bad = refusal(payee.take(&pair.payee_key, &receipt).unwrap_err());
            match (&bad, &wanted) {
                (BadReceipt::Unsound(_), BadReceipt::Unsound(_)) => {}
                _ => assert_eq!(bad, wanted),
            }
            assert_eq!(payee.file().paid(), good.paid(), "the last good one stays");
        };
        is(signed(&terms(), 2, 10, 32), BadReceipt::Less);
        let volume = BadReceipt::Volume { said: 49, sent: 50 };
        is(signed(&terms(), 4, 20, 49), volume);
        is(signed(&terms(), 9, 45, 50), unsound("bad_count"));
        is(signed(&terms(), 4, 19, 50), unsound("bad_amount"));
        is(signed(&terms(), 3, 15, 50), unsound("bad_volume"));
        let other = with(&|c| c.channel = "c2".into());
        is(signed(&other, 4, 20, 50), BadReceipt::OtherContract);
        let cheaper = with(&|c| c.price.amount = 1);
        is(signed(&cheaper, 4, 4, 50), BadReceipt::OtherContract);
        let longer = with(&|c| c.planned = 9);
        is(signed(&longer, 4, 20, 50), BadReceipt::OtherContract);
        let mut forged = signed(&terms(), 4, 20, 50);
        forged.from_sign = PeerKey::generate(Suite::P256).sign(&forged.message);
        is(forged, unsound("bad_signature"));
        let mut poisoned = signed(&terms(), 4, 20, 50);
        poisoned.message = poisoned.message.replacen('{', r#"{"x":1,"x":2,"#, 1);
        poisoned.from_sign = pair.payer_key.sign(&poisoned.message);
        is(poisoned, unsound("duplicate members"));
        let mut payee = Payee::load(pair.payee.file().path()).unwrap();
        payee
            .take(&pair.payee_key, &signed(&terms(), 4, 20, 50))
            .unwrap();
    }

    #[test]
    fn a_receipt_for_another_tracker_is_refused() {
        let mut pair = pair(Version::V2);
        pair.payee.offer(16).unwrap();
        let other = KeyHash([9; 32]);
        let settled = Settled {
            count: 1,
            tokens: 5,
            volume: 16,
        };
        let (from, to) = (pair.payer_key.pem(), pair.payee_key.pem());
        let text = message::contract(&terms(), from, to, Some(&other), Some(&settled));
        let receipt = HalfSigned {
            from_pk: from.to_owned(),
            from_sign: pair.payer_key.sign(&text),
            to_pk: to.to_owned(),
            message: text,
        };
        let bad = refusal(pair.payee.take(&pair.payee_key, &receipt).unwrap_err());
        assert!(matches!(bad, BadReceipt::Unsound(_)), "{bad}");
    }

    #[test]
    fn a_payer_never_signs_less_or_more_than_agreed() {
        let mut pair = pair(Version::V2);
        pair.payer.pay(&pair.payer_key, 100).unwrap();
        pair.payer.pay(&pair.payer_key, 99).unwrap_err();
        pair.payer.pay(&pair.payer_key, 129).unwrap_err();
        pair.payer.pay(&pair.payee_key, 110).unwrap_err();
        assert_eq!(pair.payer.file().paid().volume, 100);
        let to_sign = pair.payee_key.sign("something else");
        pair.payer.opened(&to_sign, 1).unwrap_err();
    }

    #[test]
    fn a_contract_for_another_payee_is_not_accepted() {
        let pair = pair(Version::V1);
        let other = PeerKey::generate(Suite::Ed25519);
        let bad = Payee::read(&other, &TRACKERS, pair.payer.file().half_signed()).unwrap_err();
        assert_eq!(bad, BadReceipt::OtherContract);
    }
}
