//! The transaction log, page by page (wallet tracker, sections 8.13 to 8.15).

use daybook_ledger::tracker::{self as rules, PAGE_SIZE, command, draft};

use super::{Error, Item, Meta, Page, Tracker};

/// In which order records are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    #[default]
    NewestFirst,
    /// The oldest first.
    OldestFirst,
}

/// Which records to list. Members that are `None` let everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Rows of a page; the tracker's default without it.
    pub page_size: Option<u64>,
    /// In which order.
    pub order: Order,
    /// Only of this `tx_type` (section 12).
    pub tx_type: Option<u64>,
    /// Only of this channel.
    pub channel: Option<String>,
    /// Only from this address.
    pub from: Option<String>,
    /// Only to this address.
    pub to: Option<String>,
}

/// A list as it was when it was asked for, read page by page.
#[derive(Debug)]
pub struct Pages<'t> {
    tracker: &'t Tracker,
    meta: Meta,
    first: Option<Vec<Item>>,
    next: u64,
}

impl Listing {
    fn page(&self, page: u64) -> rules::Listing {
        rules::Listing {
            page,
            page_size: self.page_size.unwrap_or(PAGE_SIZE),
            ascending: self.order == Order::OldestFirst,
            tx_type: self.tx_type,
            channel: self.channel.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            status: None,
        }
    }
}

impl Tracker {
    /// Freezes a list and gives its page `page` (command 1024). Signatures of all records are checked.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Protocol`, and `Impostor` for a record that the tracker did not sign.
    pub async fn first_transactions(&self, listing: &Listing, page: u64) -> Result<Page, Error> {
        let listing = listing.page(page);
        let asked = self.question(command::FIRST_TRANSACTIONS, |pk, version| {
            draft::first_transactions(&listing, pk, version)
        });
        self.checked(asked.await?)
    }

    /// Another page of a frozen list (command 2048), from 1.
    ///
    /// # Errors
    /// As [`Tracker::first_transactions`]; `Refused` with `cursor_unknown` once the list is forgotten.
    pub async fn next_transactions(&self, cursor: &str, page: u64) -> Result<Page, Error> {
        let asked = self.question(command::NEXT_TRANSACTIONS, |pk, version| {
            draft::next_transactions(cursor, page, pk, version)
        });
        self.checked(asked.await?)
    }

    /// Keeps a frozen list alive for another five minutes (command 4096).
    ///
    /// # Errors
    /// As [`Tracker::next_transactions`].
    pub async fn keep_cursor(&self, cursor: &str) -> Result<(), Error> {
        self.question::<serde::de::IgnoredAny>(command::UPDATE_CURSOR, |pk, version| {
            draft::update_cursor(cursor, pk, version)
        })
        .await?;
        Ok(())
    }

    /// Freezes a list, to be read page by page.
    ///
    /// # Errors
    /// As [`Tracker::first_transactions`].
    pub async fn list(&self, listing: &Listing) -> Result<Pages<'_>, Error> {
        let page = self.first_transactions(listing, 1).await?;
        let meta = page
            .meta
            .ok_or_else(|| Error::Protocol("a first page without _meta".to_owned()))?;
        Ok(Pages {
            tracker: self,
            meta,
            first: Some(page.items),
            next: 1,
        })
    }

    fn checked(&self, page: Page) -> Result<Page, Error> {
        for item in &page.items {
            if !self.keys().has(&item.pk) || !item.is_signed() {
                return Err(Error::Impostor(format!(
                    "record {} is not signed by the tracker",
                    item.tx_id
                )));
            }
        }
        Ok(page)
    }
}

impl Pages<'_> {
    /// About the list.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The records of the next page; `None` behind the last one.
    ///
    /// # Errors
    /// As [`Tracker::next_transactions`].
    pub async fn next(&mut self) -> Result<Option<Vec<Item>>, Error> {
        if self.next > self.meta.page_count {
            return Ok(None);
        }
        let items = match self.first.take() {
            Some(items) => items,
            None => {
                let page = self
                    .tracker
                    .next_transactions(&self.meta.cursor_id, self.next)
                    .await?;
                page.items
            }
        };
        self.next += 1;
        Ok(Some(items))
    }
}
