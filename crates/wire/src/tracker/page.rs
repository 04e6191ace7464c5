//! Pages of the transaction log (wallet tracker, sections 8.13 and 8.14).

use std::fmt::Write as _;

/// What the first page says about its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMeta<'t> {
    /// Names the frozen list in later requests: a UUID.
    pub cursor: &'t str,
    /// Rows of the list.
    pub total: u64,
    /// Pages of the list.
    pub pages: u64,
    /// The page that this is, from 1.
    pub page: u64,
    /// Rows of a page.
    pub per_page: u64,
}

/// The text of a page under way.
#[derive(Clone, Debug)]
pub struct Page {
    text: String,
    is_empty: bool,
}

impl Page {
    /// Begins a page; `meta` stands on the first one of a cursor only.
    pub fn new(meta: Option<PageMeta<'_>>) -> Page {
        let mut text = String::from("{");
        if let Some(meta) = meta {
            // Nothing in a UUID needs an escape.
            let _ = write!(
                text,
                "\"_meta\":{{\"cursorId\":\"{}\",\"totalCount\":{},\"pageCount\":{},\
                 \"currentPage\":{},\"perPage\":{}}},",
                meta.cursor, meta.total, meta.pages, meta.page, meta.per_page
            );
        }
        text.push_str("\"items\":[");
        Page {
            text,
            is_empty: true,
        }
    }

    /// Appends an item: the JSON text of a signed record.
    pub fn push(&mut self, item: &str) {
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        self.text.push_str(item);
    }

    /// Ends it.
    pub fn finish(mut self) -> String {
        self.text.push_str("]}");
        self.text
    }
}
