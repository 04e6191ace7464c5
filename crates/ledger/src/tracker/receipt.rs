//! Receipts: what payer and payee do between the opening and the close of a channel (wallet tracker,
//! section 11). Pure: who moves bytes, signs and stores asks here what comes next.
//!
//! A receipt is a close that only the payer has signed, with cumulative totals. The payee could submit
//! it by adding its own signature, and never shows that signature to the payer before.

use std::{fmt, sync::Arc};

use super::{
    Code, Contract, Key, Refusal, Settled, Suites, TrackerId, command, draft,
    prove::{CoSignedText, read_text},
};

/// The least time before the lock at which a payee submits: 10 seconds (section 11, rule 6).
pub const SETTLE_MARGIN_MS: u64 = 10_000;

/// A contract with the texts of both keys: what an opening says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The terms.
    pub contract: Contract,
    /// The payer's key, as its text stands in every message.
    pub from_pk: String,
    /// The payee's key.
    pub to_pk: String,
    /// The tracker that messages name; `None`: messages of version 1.
    pub tracker: Option<TrackerId>,
}

/// A receipt as it went over the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What it says.
    pub settled: Settled,
    /// The text that the payer signed.
    pub text: String,
    /// The payer's signature in base64.
    pub sign: String,
}

/// The paying side of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payer {
    agreement: Agreement,
    last: Settled,
}

/// The paid side of one channel.
#[derive(Clone, Debug)]
pub struct Payee {
    agreement: Agreement,
    payer: Arc<Key>,
    suites: Suites,
    /// Bytes of one segment: the credit that the payer has.
    segment_bytes: u64,
    /// Bytes served.
    served: u64,
    last: Option<Receipt>,
}

/// Why the channel goes no further. The last good receipt stays good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Everything that was planned is paid: open another channel.
    Full,
    /// A segment is served and not receipted yet.
    Unpaid,
    /// Totals went down.
    Backwards,
    /// The text is no close, or not of this contract.
    OtherContract,
    /// Count, tokens and volume do not fit each other.
    Inconsistent,
    /// The receipt counts other bytes than were served.
    OtherVolume,
    /// The payer's signature is wrong.
    Unsigned,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Full => "the planned quanta are used up",
            Stop::Unpaid => "a segment is not receipted yet",
            Stop::Backwards => "the receipt says less than the one before",
            Stop::OtherContract => "the receipt is for another contract",
            Stop::Inconsistent => "count, tokens and volume of the receipt do not fit",
            Stop::OtherVolume => "the receipt counts other bytes than were served",
            Stop::Unsigned => "the receipt is not signed by the payer",
        })
    }
}

impl Agreement {
    /// Reads the opening that a payer signed. Whether price, addresses and count are to the payee's
    /// liking is for the payee to say.
    ///
    /// # Errors
    /// As the tracker would refuse it: `bad_message`, `bad_amount`, `overflow` or `bad_address`.
    pub fn read(open_text: &str) -> Result<Agreement, Refusal> {
        let read = read_text(open_text, command::OPEN_TRANSFER)?;
        Ok(read.agreement())
    }

    /// The text of the opening.
    pub fn open_text(&self) -> String {
        draft::open_transfer(
            &self.contract,
            &self.from_pk,
            &self.to_pk,
            self.tracker.as_ref(),
        )
    }

    /// The text of a close with these totals.
    pub fn close_text(&self, settled: &Settled) -> String {
        draft::close_transfer(
            &self.contract,
            settled,
            &self.from_pk,
            &self.to_pk,
            self.tracker.as_ref(),
        )
    }

    /// The totals for so many bytes: quanta are paid whole (section 6.1). `None` beyond what was
    /// planned.
    pub fn settled(&self, volume: u64) -> Option<Settled> {
        let count = self.contract.price.quanta(volume);
        let tokens = self.contract.price.cost(count)?;
        (count <= self.contract.planned).then_some(Settled {
            count,
            tokens,
            volume,
        })
    }

    /// When a payee submits its last receipt at the latest, in milliseconds since 1970: before the lock
    /// by 10 seconds, three round trips or the tracker's worst latency, whichever is most.
    pub fn settle_by(timelock: u64, round_trip_ms: u64, latency_ms: u64) -> u64 {
        let margin = SETTLE_MARGIN_MS
            .max(round_trip_ms.saturating_mul(3))
            .max(latency_ms);
        timelock.saturating_sub(margin)
    }
}

impl Payer {
    /// Nothing received yet.
    pub fn new(agreement: Agreement) -> Payer {
        Payer::resume(agreement, Settled::default())
    }

    /// Goes on after a restart: `last` is the newest receipt that left.
    pub fn resume(agreement: Agreement, last: Settled) -> Payer {
        Payer { agreement, last }
    }

    /// The contract.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// What the newest receipt says.
    pub fn last(&self) -> Settled {
        self.last
    }

    /// The receipt for `volume` bytes received in all: sign its text, store it, send it.
    ///
    /// # Errors
    /// [`Stop::Full`] or [`Stop::Backwards`].
    pub fn receipt(&mut self, volume: u64) -> Result<(Settled, String), Stop> {
        if volume < self.last.volume {
            return Err(Stop::Backwards);
        }
        let settled = self.agreement.settled(volume).ok_or(Stop::Full)?;
        self.last = settled;
        Ok((settled, self.agreement.close_text(&settled)))
    }
}

impl Payee {
    /// Nothing served yet. `segment_bytes` is what may be served without a receipt: the payee's risk.
    ///
    /// # Errors
    /// `bad_key` when the payer's key does not parse or is of a suite that is not allowed.
    pub fn new(agreement: Agreement, suites: Suites, segment_bytes: u64) -> Result<Payee, Refusal> {
        let payer = Key::read(&agreement.from_pk)?;
        if !suites.allow(payer.suite()) {
            return Err(Refusal::new(
                Code::BadKey,
                "the payer's key is of a suite that is not allowed",
            ));
        }
        Ok(Payee {
            payer: Arc::new(payer),
            agreement,
            suites,
            segment_bytes,
            served: 0,
            last: None,
        })
    }

    /// Goes on after a restart: what was served, and the newest receipt, which is checked again.
    ///
    /// # Errors
    /// What is wrong with the stored receipt.
    pub fn resume(mut self, served: u64, last: Option<(String, String)>) -> Result<Payee, Stop> {
        if let Some((text, sign)) = last {
            let receipt = self.check(&text, &sign)?;
            if receipt.settled.volume > served {
                return Err(Stop::OtherVolume);
            }
            self.last = Some(receipt);
        }
        self.served = served;
        Ok(self)
    }

    /// The contract.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The newest good receipt: what to sign and submit. `None`: nothing was paid; there is nothing to
    /// settle.
    pub fn last(&self) -> Option<&Receipt> {
        self.last.as_ref()
    }

    /// Bytes served in all.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Whether another `bytes` may be served.
    ///
    /// # Errors
    /// [`Stop::Unpaid`] while a receipt is missing, [`Stop::Full`] at the end of the plan.
    pub fn may_serve(&self, bytes: u64) -> Result<(), Stop> {
        let served = self.served.checked_add(bytes).ok_or(Stop::Full)?;
        self.agreement.settled(served).ok_or(Stop::Full)?;
        let paid = self.last.as_ref().map_or(0, |last| last.settled.volume);
        let unpaid = served.saturating_sub(paid);
        if unpaid > self.segment_bytes {
            return Err(Stop::Unpaid);
        }
        Ok(())
    }

    /// Counts bytes that were served.
    pub fn serve(&mut self, bytes: u64) {
        self.served = self.served.saturating_add(bytes);
    }

    /// Takes a receipt (section 11, rule 3). Store it before serving more. After an error the payee
    /// stops and settles with [`Payee::last`].
    ///
    /// # Errors
    /// What is wrong with it; the newest good one stays.
    pub fn accept(&mut self, text: &str, sign: &str) -> Result<Settled, Stop> {
        let receipt = self.check(text, sign)?;
        if receipt.settled.volume != self.served {
            return Err(Stop::OtherVolume);
        }
        let settled = receipt.settled;
        self.last = Some(receipt);
        Ok(settled)
    }

    fn check(&self, text: &str, sign: &str) -> Result<Receipt, Stop> {
        let read: CoSignedText =
            read_text(text, command::CLOSE_TRANSFER).map_err(|refusal| match refusal.code {
                Code::BadCount | Code::BadVolume | Code::BadAmount | Code::Overflow => {
                    Stop::Inconsistent
                }
                _ => Stop::OtherContract,
            })?;
        let settled = read.settled.ok_or(Stop::OtherContract)?;
        if read.agreement() != self.agreement {
            return Err(Stop::OtherContract);
        }
        if let Some(last) = &self.last
            && (settled.count < last.settled.count || settled.volume < last.settled.volume)
        {
            return Err(Stop::Backwards);
        }
        if !self.payer.verify(&self.suites, text.as_bytes(), sign) {
            return Err(Stop::Unsigned);
        }
        Ok(Receipt {
            settled,
            text: text.to_owned(),
            sign: sign.to_owned(),
        })
    }
}
