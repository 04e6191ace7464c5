//! The transaction log, page by page (wallet tracker, sections 8.13 to 8.15).

use daybook_ledger::tracker::command;
use serde_json::{Map, Value, json};

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
    fn members(&self, page: u64) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut field = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!({ "value": value }));
            }
        };
        field("tx_type", self.tx_type.map(Value::from));
        field("channel_id", self.channel.clone().map(Value::from));
        field("from", self.from.clone().map(Value::from));
        field("to", self.to.clone().map(Value::from));
        let mut members = Map::new();
        members.insert(
            "limits".to_owned(),
            json!({ "pageSize": self.page_size.unwrap_or_default(), "page": page }),
        );
        let order = match self.order {
            Order::OldestFirst => 1,
            Order::NewestFirst => 2,
        };
        members.insert("order".to_owned(), order.into());
        if !fields.is_empty() {
            members.insert("fields".to_owned(), fields.into());
        }
        members
    }
}

impl Tracker {
    /// Freezes a list and gives its page `page` (command 1024). Signatures of all records are checked.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Protocol`, and `Impostor` for a record that the tracker did not sign.
    pub async fn first_transactions(&self, listing: &Listing, page: u64) -> Result<Page, Error> {
        let members = listing.members(page);
        self.checked(self.question(command::FIRST_TRANSACTIONS, members).await?)
    }

    /// Another page of a frozen list (command 2048), from 1.
    ///
    /// # Errors
    /// As [`Tracker::first_transactions`]; `Refused` with `cursor_unknown` once the list is forgotten.
    pub async fn next_transactions(&self, cursor: &str, page: u64) -> Result<Page, Error> {
        let mut members = Map::new();
        members.insert("cursorId".to_owned(), cursor.into());
        members.insert("page".to_owned(), page.into());
        self.checked(self.question(command::NEXT_TRANSACTIONS, members).await?)
    }

    /// Keeps a frozen list alive for another five minutes (command 4096).
    ///
    /// # Errors
    /// As [`Tracker::next_transactions`].
    pub async fn keep_cursor(&self, cursor: &str) -> Result<(), Error> {
        let mut members = Map::new();
        members.insert("cursorId".to_owned(), cursor.into());
        self.question::<serde::de::IgnoredAny>(command::UPDATE_CURSOR, members)
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
