//! Full-text search over asset data and metadata (asset ledger, section 3.10).
//!
//! The index says which transactions may hold a term; their texts are then read, which settles what
//! they hold and how often. Work is bounded: so many terms of a query count, so many places are
//! looked at, so many texts and bytes are read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use daybook_ledger::{Position, Transaction, TransactionId};

use crate::{
    Store, StoreError,
    index::key::Family,
    place::{pack, unpack},
    text::{strings, terms},
};

/// Different terms of a query that count, phrases' words included; the rest is not looked at.
pub const QUERY_TERMS_MAX: usize = 32;
/// Places taken from the index for one query, shared evenly among its terms, oldest first.
pub const CANDIDATES_MAX: usize = 131_072;
/// Transactions that one query reads at most. Those that may hold most terms come first.
pub const SCORED_MAX: usize = 8_192;
/// Bytes of text that one query reads at most.
pub const SCORED_BYTES_MAX: usize = 64 << 20;

/// What a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchField {
    /// `asset.data`, or `data` of `assets`.
    Asset,
    /// `metadata`.
    Metadata,
}

/// A query, read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    /// Terms of which a hit has at least one.
    any: Vec<String>,
    /// Runs of terms of which a hit has every one, each within one string.
    phrases: Vec<Vec<String>>,
    /// Runs of terms of which a hit has none.
    without: Vec<Vec<String>>,
}

/// How well a text matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    terms: usize,
    hits: usize,
}

impl Store {
    /// Full-text search (section 3.10): best first, that is by the number of different terms found, then
    /// by their number of occurrences, then in commit order. `each` hears of a hit's id and its canonical
    /// text, and returns false to stop. Between hits only their places are in memory: a text is read again
    /// when its turn comes, however long `each` takes with those before.
    ///
    /// A query is words, of which one must occur; `"…"` is a phrase, which must occur; `-` before either
    /// excludes it. The id of a transaction is found as if it were a word of it.
    ///
    /// # Errors
    /// When the disk refuses or the store is damaged.
    pub fn search(
        &self,
        field: SearchField,
        query: &str,
        limit: Option<usize>,
        each: &mut dyn FnMut(TransactionId, Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let query = Query::read(query);
        let limit = limit.unwrap_or(usize::MAX);
        let mut groups: BTreeMap<usize, Vec<Position>> = BTreeMap::new();
        for (position, terms) in candidates(self, field, &query)? {
            groups
                .entry(terms.count_ones() as usize)
                .or_default()
                .push(position);
        }
        let mut hits: Vec<(Score, Position)> = Vec::new();
        let mut scored = 0;
        let mut scored_bytes = 0;
        // From those that may hold most terms down: once enough hits hold more terms than the rest can,
        // the rest is not read.
        'groups: for (terms, positions) in groups.into_iter().rev() {
            let better = hits.iter().filter(|(score, _)| score.terms > terms);
            if better.count() >= limit {
                break;
            }
            for position in positions {
                if !self.is_wanted() {
                    return Ok(());
                }
                let Some(text) = self.shared.text_at(position)? else {
                    continue;
                };
                if scored == SCORED_MAX || scored_bytes + text.len() > SCORED_BYTES_MAX {
                    break 'groups;
                }
                scored += 1;
                scored_bytes += text.len();
                let transaction = self.shared.parse(position, text)?;
                if let Some(score) = query.score(field, &transaction) {
                    hits.push((score, position));
                }
            }
        }
        hits.sort_by(|left, right| (right.0, left.1).cmp(&(left.0, right.1)));
        hits.truncate(limit);
        for (_, position) in hits {
            if !self.is_wanted() {
                break;
            }
            let found = self.transaction_at(position)?;
            let (id, text) = found.expect("it was there when it was scored");
            if !each(id, text) {
                break;
            }
        }
        Ok(())
    }
}

/// The places that may hold a term, each with the terms it may hold, one bit each.
fn candidates(
    store: &Store,
    field: SearchField,
    query: &Query,
) -> Result<Vec<(Position, u64)>, StoreError> {
    let family = match field {
        SearchField::Asset => Family::AssetTerm,
        SearchField::Metadata => Family::MetadataTerm,
    };
    let shared = &store.shared;
    let tip = shared.tip.read().height;
    let share = CANDIDATES_MAX / query.any.len().max(1);
    let mut found = Vec::new();
    for (bit, term) in query.any.iter().enumerate() {
        let mut taken = 0;
        shared
            .index
            .oldest_first(shared.index.secret.key(family, term.as_bytes()), |value| {
                taken += 1;
                let visible = unpack(value).height <= tip;
                if visible {
                    found.push((value, 1_u64 << bit));
                }
                Ok(visible && taken < share && store.is_wanted())
            })?;
        if let Ok(id) = term.parse()
            && let Some((position, _)) = shared.find(&id)?
        {
            found.push((pack(position.height, position.index), 1 << bit));
        }
    }
    found.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(found.len());
    for (value, bits) in found {
        match merged.last_mut() {
            Some(last) if last.0 == value => last.1 |= bits,
            _ => merged.push((value, bits)),
        }
    }
    Ok(merged
        .into_iter()
        .map(|(value, bits)| (unpack(value), bits))
        .collect())
}

impl Query {
    fn read(text: &str) -> Query {
        let mut query = Query::default();
        let mut any = BTreeSet::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first.is_whitespace() {
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (excluded, body) = match rest.strip_prefix('-') {
                Some(body) => (true, body),
                None => (false, rest),
            };
            let (words, is_phrase, tail) = match body.strip_prefix('"') {
                Some(quoted) => match quoted.split_once('"') {
                    Some((phrase, tail)) => (phrase, true, tail),
                    None => (quoted, true, ""),
                },
                None => {
                    let end = body
                        .find(|c: char| c.is_whitespace() || c == '"')
                        .unwrap_or(body.len());
                    (&body[..end], false, &body[end..])
                }
            };
            rest = tail;
            let mut run = Vec::new();
            terms(words, |term| run.push(term.to_owned()));
            if run.is_empty() {
                continue;
            }
            if is_phrase || excluded {
                run.truncate(QUERY_TERMS_MAX);
            }
            if excluded {
                query.without.push(run);
                continue;
            }
            for term in &run {
                if query.any.len() < QUERY_TERMS_MAX && any.insert(term.clone()) {
                    query.any.push(term.clone());
                }
            }
            if is_phrase {
                query.phrases.push(run);
            }
        }
        query.phrases.truncate(QUERY_TERMS_MAX);
        query.without.truncate(QUERY_TERMS_MAX);
        query
    }

    /// How well a transaction matches; `None` when it does not.
    fn score(&self, field: SearchField, transaction: &Transaction) -> Option<Score> {
        let mut runs: Vec<Vec<String>> = Vec::new();
        let mut read = |text: &str| {
            for string in strings(text) {
                let mut run = Vec::new();
                terms(&string, |term| run.push(term.to_owned()));
                runs.push(run);
            }
        };
        match field {
            SearchField::Asset => transaction.asset_data().for_each(&mut read),
            SearchField::Metadata => transaction.metadata().into_iter().for_each(&mut read),
        }
        runs.push(vec![transaction.id().to_string()]);
        let holds = |phrase: &Vec<String>| {
            runs.iter().any(|run| {
                run.windows(phrase.len())
                    .any(|window| window == &phrase[..])
            })
        };
        if !self.phrases.iter().all(holds) || self.without.iter().any(holds) {
            return None;
        }
        let counts = self
            .any
            .iter()
            .map(|term| runs.iter().flatten().filter(|word| *word == term).count());
        let (mut terms, mut hits) = (0, 0);
        for count in counts {
            terms += usize::from(count > 0);
            hits += count;
        }
        (terms > 0).then_some(Score { terms, hits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_words_phrases_and_exclusions() {
        let words = |list: &[&str]| {
            list.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let query = Query::read(r#"Call  "me Maybe"-now -"not, ever" - "" call"#);
        assert_eq!(query.any, words(&["call", "me", "maybe"]));
        assert_eq!(query.phrases, [words(&["me", "maybe"])]);
        assert_eq!(query.without, [words(&["now"]), words(&["not", "ever"])]);
        assert_eq!(
            Query::read("mother-in-law").any,
            words(&["mother", "in", "law"])
        );
        assert_eq!(
            Query::read(r#""left open"#).phrases,
            [words(&["left", "open"])]
        );
        assert_eq!(Query::read("  "), Query::default());
    }

    #[test]
    fn a_query_counts_a_bounded_number_of_terms() {
        let text: Vec<_> = (0..1_000)
            .map(|number| format!("w{number} -x{number} \"p{number}\""))
            .collect();
        let query = Query::read(&text.join(" "));
        assert_eq!(
            (query.any.len(), query.phrases.len(), query.without.len()),
            (QUERY_TERMS_MAX, QUERY_TERMS_MAX, QUERY_TERMS_MAX)
        );
    }
}
