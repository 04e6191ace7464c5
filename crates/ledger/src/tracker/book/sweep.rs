//! What is due: locks that passed, and tokens that came (wallet tracker, section 9).

use std::sync::Arc;

use super::{Book, Rank, is_past};
use crate::{
    Transaction,
    block::BlockTime,
    tracker::{Cause, Channel, Entry, Fact, Record, entry::Body},
};

impl Book {
    /// The entry that closes what is past its lock at `at`, at most `records_max` things (at
    /// least one): transfers
    /// first, then income, then spend addresses. `None`: nothing is due.
    pub fn due(&self, at: BlockTime, records_max: usize) -> Option<Entry> {
        let terms = self.terms.as_ref()?;
        let records_max = records_max.max(1);
        let mut records: Vec<Record> = Vec::new();
        for rank in [Rank::Transfer, Rank::Income, Rank::Spend] {
            let from = (rank, 0, Arc::from(""));
            let due = self
                .locks
                .range(from..)
                .take_while(|(other, lock, _)| *other == rank && is_past(*lock, at));
            for (_, _, name) in due {
                // Its transfers come first, and this entry has no room for all of them.
                if records.len() >= records_max {
                    break;
                }
                let Some((ends, fact)) = self.expired(rank, name, &terms.wallet) else {
                    continue;
                };
                let ahead = records.len() as u64;
                records.push(self.next_record(terms, ends, |_| fact, at, ahead));
            }
            // Addresses wait until all transfers are through.
            if records.len() >= records_max || (rank == Rank::Transfer && !records.is_empty()) {
                break;
            }
        }
        (!records.is_empty()).then(|| Entry::new(at, Body::Expiry, records))
    }

    /// The end of one expired thing.
    #[expect(clippy::type_complexity, reason = "from and to, and what happened")]
    fn expired(
        &self,
        rank: Rank,
        name: &Arc<str>,
        wallet: &Arc<str>,
    ) -> Option<((Arc<str>, Arc<str>), Fact)> {
        if rank != Rank::Transfer {
            let account = self.accounts.get(name)?;
            let closing = account.closing(rank == Rank::Spend, Cause::Expiry);
            return Some(((name.clone(), wallet.clone()), Fact::CloseAddress(closing)));
        }
        let open = self.channels.get(name)?;
        let contract = &open.channel.contract;
        let profit = self.commons.get(&contract.to).map(|common| common.profit);
        let fact = Fact::CloseTransfer {
            channel: Channel {
                profit: open.channel.profit.and(profit),
                ..open.channel.clone()
            },
            settled: open.parked.unwrap_or_default(),
            cause: match open.parked {
                Some(_) => Cause::Parked,
                None => Cause::Expiry,
            },
        };
        Some(((contract.from.clone(), contract.to.clone()), fact))
    }

    /// The entry that follows an asset transaction that brings tokens ([`Book::meets`]).
    pub fn deposit(&self, transaction: &Transaction, at: BlockTime) -> Entry {
        let mut outputs = Vec::new();
        let mut records = Vec::new();
        if let Some(terms) = &self.terms {
            outputs.extend(terms.backing(transaction));
            let mut record = |amount: u64| {
                let ends = (Arc::from(""), terms.wallet.clone());
                let ahead = records.len() as u64;
                let fact = Fact::Init { amount };
                records.push(self.next_record(terms, ends, |_| fact, at, ahead));
            };
            // One record, unless the sum exceeds what its amount can say.
            let mut sum = 0u64;
            for (_, amount) in &outputs {
                sum = sum.checked_add(*amount).unwrap_or_else(|| {
                    record(sum);
                    *amount
                });
            }
            if sum > 0 {
                record(sum);
            }
        }
        let body = Body::Deposit {
            transaction: transaction.id(),
            outputs,
        };
        Entry::new(at, body, records)
    }
}
