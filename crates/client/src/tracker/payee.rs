//! The paid side of a transfer channel (wallet tracker, section 11): the rules are the ledger's, the
//! file and the signatures are here.

use std::path::Path;

use daybook_ledger::tracker::{self as rules, Agreement, Key, KeyHash, Settled, Suites};

use super::{
    ChannelFile, CoSigned, Error, HalfSigned, PeerKey, Role, channel_file::Receipt,
    payer::must_be_new,
};

/// A payee. Whatever it gets is checked as the tracker will check it, and on disk before it gives more.
#[derive(Debug)]
pub struct Payee {
    file: ChannelFile,
    rules: rules::Payee,
}

impl Payee {
    /// Reads the terms of a contract that a payer has signed, without agreeing to it. Whether price,
    /// addresses and count are to the payee's liking is for the caller to say.
    ///
    /// # Errors
    /// `BadContract` when the tracker with these ids would not take it, or when another key is to be
    /// paid.
    pub fn read(
        key: &PeerKey,
        trackers: &[KeyHash],
        open: &HalfSigned,
    ) -> Result<Agreement, Error> {
        let bad = |what: &dyn std::fmt::Display| Error::BadContract(what.to_string());
        let agreement = Agreement::read(&open.message).map_err(|refusal| bad(&refusal))?;
        if agreement.to_pk != key.pem() || open.to_pk != agreement.to_pk {
            return Err(bad(&"another key is to be paid"));
        }
        if agreement.from_pk != open.from_pk {
            return Err(bad(&"another key is to pay"));
        }
        if agreement.tracker.is_some_and(|id| !trackers.contains(&id)) {
            return Err(bad(&"it is for another tracker"));
        }
        let payer = Key::read(&open.from_pk).map_err(|refusal| bad(&refusal))?;
        let text = open.message.as_bytes();
        if !payer.verify(&Suites::default(), text, &open.from_sign) {
            return Err(bad(&"the payer's signature does not verify"));
        }
        Ok(agreement)
    }

    /// Agrees to a contract: signs it, and writes it with both signatures to the new file at `path`.
    /// Check its terms before. `segment_bytes` is what may be served without a receipt.
    ///
    /// # Errors
    /// As [`Payee::read`]; `File`.
    pub fn accept(
        key: &PeerKey,
        trackers: &[KeyHash],
        open: &HalfSigned,
        segment_bytes: u64,
        path: &Path,
    ) -> Result<Payee, Error> {
        let agreement = Payee::read(key, trackers, open)?;
        must_be_new(path)?;
        let mut file = ChannelFile::new(path, Role::Payee, segment_bytes, agreement, open.clone());
        let rules = rules_of(&file)?;
        file.to_sign = Some(key.sign(&open.message));
        file.save()?;
        Ok(Payee { file, rules })
    }

    /// Takes up a channel where its file left it.
    ///
    /// # Errors
    /// `File` when it cannot be read, `Usage` when it is a payer's, `Stop` when what it holds cannot be
    /// settled.
    pub fn load(path: &Path) -> Result<Payee, Error> {
        let file = ChannelFile::load(path)?;
        if file.role != Role::Payee {
            return Err(Error::Usage("this is the file of a payer".to_owned()));
        }
        let rules = rules_of(&file)?;
        Ok(Payee { file, rules })
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
        let bytes = self.file.contract().bytes();
        bytes.saturating_sub(self.rules.served())
    }

    /// Notes, before they are sent, that `bytes` more are. At most one segment is ever without a receipt
    /// (rule 4).
    ///
    /// # Errors
    /// `Stop` with `Unpaid` or `Full`; `Usage` once the channel is closed; `File`.
    pub fn offer(&mut self, bytes: u64) -> Result<(), Error> {
        if self.file.settled {
            return Err(closed());
        }
        self.rules.may_serve(bytes)?;
        self.rules.serve(bytes);
        self.file.offered = self.rules.served();
        self.file.save()
    }

    /// Notes that what was offered last never arrived. The payee has lost nothing but traffic.
    ///
    /// # Errors
    /// `File`.
    pub fn withdraw(&mut self) -> Result<(), Error> {
        self.file.offered = self.file.paid().volume;
        self.rules = rules_of(&self.file)?;
        self.file.save()
    }

    /// Takes a receipt, which is on disk when this returns (rule 3). One that is not as it should be
    /// changes nothing.
    ///
    /// # Errors
    /// `Stop`: settle with the last good receipt. `Usage` once the channel is closed; `File`.
    pub fn take(&mut self, receipt: &HalfSigned) -> Result<Settled, Error> {
        if self.file.settled {
            return Err(closed());
        }
        let settled = self.rules.accept(&receipt.message, &receipt.from_sign)?;
        self.file.receipt = Some(Receipt::new(
            receipt.message.clone(),
            receipt.from_sign.clone(),
            settled,
        ));
        self.file.save()?;
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

fn rules_of(file: &ChannelFile) -> Result<rules::Payee, Error> {
    let agreement = file.agreement().clone();
    let rules = rules::Payee::new(agreement, Suites::default(), file.segment_bytes)
        .map_err(|refusal| Error::BadContract(refusal.to_string()))?;
    let newest = file.newest_receipt();
    let newest = newest.map(|receipt| (receipt.message, receipt.from_sign));
    Ok(rules.resume(file.offered, newest)?)
}

fn closed() -> Error {
    Error::Usage("the channel is closed".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::tracker::{Address, AddressKind, Contract, Price, Stop, Suite};

    use super::{super::Payer, *};

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

    fn pair(tracker: Option<KeyHash>) -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let payer_key = PeerKey::generate(Suite::P256);
        let payee_key = PeerKey::generate(Suite::Ed25519);
        let path = |name: &str| folder.path().join(name);
        let agreement = Agreement {
            contract: terms(),
            from_pk: payer_key.pem().to_owned(),
            to_pk: payee_key.pem().to_owned(),
            tracker,
        };
        let mut payer = Payer::propose(&payer_key, agreement, &path("payer")).unwrap();
        let open = payer.file().half_signed();
        let mut payee = Payee::accept(&payee_key, &TRACKERS, open, 80, &path("payee")).unwrap();
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
            self.payee.take(&receipt)
        }
    }

    impl Pair {
        /// A receipt that the payer might sign.
        fn receipt(&self, agreement: &Agreement, settled: &Settled) -> HalfSigned {
            let text = agreement.close_text(settled);
            HalfSigned {
                from_pk: agreement.from_pk.clone(),
                from_sign: self.payer_key.sign(&text),
                to_pk: agreement.to_pk.clone(),
                message: text,
            }
        }
    }

    fn stop(error: Error) -> Stop {
        match error {
            Error::Stop(stop) => stop,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn receipts_add_up_and_round_up_to_whole_quanta() {
        for tracker in [None, Some(TRACKERS[1])] {
            let mut pair = pair(tracker);
            for (bytes, count, volume) in [(16, 1, 16), (1, 2, 17), (15, 2, 32), (80, 7, 112)] {
                let settled = pair.segment(bytes).unwrap();
                assert_eq!((settled.count, settled.volume), (count, volume));
                assert_eq!(settled.tokens, 5 * count);
            }
            assert_eq!((pair.payer.room(), pair.payee.room()), (16, 16));
            assert_eq!(stop(pair.segment(17).unwrap_err()), Stop::Full);
            pair.segment(16).unwrap();
            let best = pair.payee.best(&pair.payee_key).unwrap();
            assert_eq!(best.half(), pair.payer.file().newest_receipt().unwrap());
        }
    }

    #[test]
    fn both_sides_know_after_a_restart_what_they_signed_and_what_they_got() {
        let mut pair = pair(Some(TRACKERS[0]));
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
        let mut pair = pair(Some(TRACKERS[0]));
        pair.payee.offer(80).unwrap();
        assert_eq!(stop(pair.payee.offer(1).unwrap_err()), Stop::Unpaid);
        pair.payee.withdraw().unwrap();
        pair.segment(16).unwrap();
    }

    #[test]
    fn a_receipt_that_pays_less_or_for_other_bytes_or_by_another_contract_is_refused() {
        let mut pair = pair(Some(TRACKERS[0]));
        pair.segment(40).unwrap();
        let good = pair.payee.file().clone();
        pair.payee.offer(10).unwrap();
        let agreed = pair.payer.file().agreement().clone();
        let signed = |contract: &Contract, count: u64, tokens: u64, volume: u64| {
            let settled = Settled {
                count,
                tokens,
                volume,
            };
            let agreement = Agreement {
                contract: contract.clone(),
                ..agreed.clone()
            };
            pair.receipt(&agreement, &settled)
        };
        let with = |change: &dyn Fn(&mut Contract)| {
            let mut contract = terms();
            change(&mut contract);
            contract
        };
        let is = |receipt: HalfSigned, wanted: Stop| {
            let mut payee = Payee::load(pair.payee.file().path()).unwrap();
            assert_eq!(stop(payee.take(&receipt).unwrap_err()), wanted);
            assert_eq!(payee.file().paid(), good.paid(), "the last good one stays");
        };
        is(signed(&terms(), 2, 10, 32), Stop::Backwards);
        is(signed(&terms(), 4, 20, 49), Stop::OtherVolume);
        is(signed(&terms(), 9, 45, 50), Stop::Inconsistent);
        is(signed(&terms(), 4, 19, 50), Stop::Inconsistent);
        is(signed(&terms(), 3, 15, 50), Stop::Inconsistent);
        let other = with(&|c| c.channel = "c2".into());
        is(signed(&other, 4, 20, 50), Stop::OtherContract);
        let cheaper = with(&|c| c.price.amount = 1);
        is(signed(&cheaper, 4, 4, 50), Stop::OtherContract);
        let longer = with(&|c| c.planned = 9);
        is(signed(&longer, 4, 20, 50), Stop::OtherContract);
        let mut forged = signed(&terms(), 4, 20, 50);
        forged.from_sign = PeerKey::generate(Suite::P256).sign(&forged.message);
        is(forged, Stop::Unsigned);
        let mut poisoned = signed(&terms(), 4, 20, 50);
        poisoned.message = poisoned.message.replacen('{', r#"{"x":1,"x":2,"#, 1);
        poisoned.from_sign = pair.payer_key.sign(&poisoned.message);
        is(poisoned, Stop::OtherContract);
        let mut payee = Payee::load(pair.payee.file().path()).unwrap();
        payee.take(&signed(&terms(), 4, 20, 50)).unwrap();
    }

    #[test]
    fn a_receipt_for_another_tracker_is_refused() {
        let mut pair = pair(Some(TRACKERS[0]));
        pair.payee.offer(16).unwrap();
        let agreement = Agreement {
            tracker: Some(KeyHash([9; 32])),
            ..pair.payer.file().agreement().clone()
        };
        let settled = agreement.settled(16).unwrap();
        let receipt = pair.receipt(&agreement, &settled);
        assert_eq!(
            stop(pair.payee.take(&receipt).unwrap_err()),
            Stop::OtherContract
        );
    }

    #[test]
    fn a_payer_never_signs_less_or_more_than_agreed() {
        let mut pair = pair(Some(TRACKERS[0]));
        pair.payer.pay(&pair.payer_key, 100).unwrap();
        pair.payer.pay(&pair.payer_key, 99).unwrap_err();
        pair.payer.pay(&pair.payer_key, 129).unwrap_err();
        pair.payer.pay(&pair.payee_key, 110).unwrap_err();
        assert_eq!(pair.payer.file().paid().volume, 100);
        let to_sign = pair.payee_key.sign("something else");
        pair.payer.opened(&to_sign, 1).unwrap_err();
    }

    #[test]
    fn a_contract_with_somebody_else_or_for_another_tracker_is_not_accepted() {
        let pair = pair(Some(TRACKERS[0]));
        let open = pair.payer.file().half_signed();
        let other = PeerKey::generate(Suite::Ed25519);
        Payee::read(&pair.payee_key, &TRACKERS, open).unwrap();
        Payee::read(&other, &TRACKERS, open).unwrap_err();
        Payee::read(&pair.payee_key, &TRACKERS[1..], open).unwrap_err();
        let mut forged = open.clone();
        forged.from_sign = other.sign(&forged.message);
        Payee::read(&pair.payee_key, &TRACKERS, &forged).unwrap_err();
        let mut forged = open.clone();
        forged.from_pk = other.pem().to_owned();
        forged.from_sign = other.sign(&forged.message);
        Payee::read(&pair.payee_key, &TRACKERS, &forged).unwrap_err();
    }
}
