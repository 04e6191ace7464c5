//! Lists in pages (section 1.1).

use std::ops::RangeInclusive;

use daybook_ledger::json::Value;

use crate::json::{object, text_or_null};

/// Items of a page.
pub(crate) const PAGE_SIZE: u64 = 100;

/// A page of a list whose items are numbered from 1, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    number: u64,
    last: u64,
    count: u64,
}

impl Page {
    /// The page that a query asks for; `None` when there is no such page.
    pub(crate) fn new(query: &str, count: u64) -> Option<Page> {
        let last = count.div_ceil(PAGE_SIZE).max(1);
        let wanted = parameters(query).find(|(name, _)| *name == "page");
        let number = match wanted.map(|(_, value)| value) {
            None => 1,
            Some("last") => last,
            Some(number) => number.parse().ok()?,
        };
        let page = Page {
            number,
            last,
            count,
        };
        (1..=last).contains(&number).then_some(page)
    }

    /// The numbers of the items on it; an empty range for an empty list.
    pub(crate) fn numbers(&self) -> RangeInclusive<u64> {
        let newest = self.count - (self.number - 1) * PAGE_SIZE;
        let oldest = newest.saturating_sub(PAGE_SIZE - 1).max(1);
        oldest..=newest
    }

    /// The places of the items on it, from 0 for the first of the list, at most.
    pub(crate) fn places(&self) -> (usize, usize) {
        let before = (self.number - 1).saturating_mul(PAGE_SIZE);
        let from = usize::try_from(before).unwrap_or(usize::MAX);
        (from, PAGE_SIZE as usize)
    }

    /// The list around its items; `base` is the address of the list.
    pub(crate) fn envelope(&self, base: &str, query: &str, results: Vec<Value>) -> Value {
        let link = |number: u64| {
            let others = parameters(query).filter(|(name, _)| *name != "page");
            let mut parts: Vec<String> = others
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            // The first page is the list itself.
            if number > 1 {
                parts.push(format!("page={number}"));
            }
            match parts.is_empty() {
                true => base.to_owned(),
                false => format!("{base}?{}", parts.join("&")),
            }
        };
        let next = (self.number < self.last).then(|| link(self.number + 1));
        let previous = (self.number > 1).then(|| link(self.number - 1));
        object([
            ("count", self.count.into()),
            ("next", text_or_null(next.as_deref())),
            ("previous", text_or_null(previous.as_deref())),
            ("results", Value::Array(results)),
        ])
    }
}

/// The parameters of a query as they are written, without decoding.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::json::write;

    #[test]
    fn pages_have_a_hundred_items_and_link_to_each_other() {
        let base = "https://here/ledgers/";
        let page = |query: &str| Page::new(query, 213);
        assert_eq!(page("").unwrap().numbers(), 114..=213);
        assert_eq!(page("page=2").unwrap().numbers(), 14..=113);
        assert_eq!(page("page=last").unwrap().numbers(), 1..=13);
        assert_eq!(page("").unwrap().places(), (0, 100));
        assert_eq!(page("page=3").unwrap().places(), (200, 100));
        assert_eq!(
            write(&page("page=2").unwrap().envelope(base, "page=2", Vec::new())),
            r#"{"count":213,"next":"https://here/ledgers/?page=3","previous":"https://here/ledgers/","results":[]}"#
        );
        assert_eq!(
            write(
                &page("page=3")
                    .unwrap()
                    .envelope(base, "a=b&page=3", Vec::new())
            ),
            r#"{"count":213,"next":null,"previous":"https://here/ledgers/?a=b&page=2","results":[]}"#
        );
        for wrong in ["page=4", "page=0", "page=-1", "page=x", "page=", "page=1.0"] {
            assert_eq!(page(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_empty_list_has_one_page_with_nothing_on_it() {
        let page = Page::new("page=1", 0).unwrap();
        assert!(page.numbers().is_empty());
        assert_eq!(Page::new("page=2", 0), None);
        assert_eq!(
            Page::new("page_size=5&limit=3", 5).unwrap().numbers(),
            1..=5
        );
    }
}
