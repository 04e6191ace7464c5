//! Cursors: lists of transactions that were frozen for paging (wallet tracker, sections 8.13 to 8.15).

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use daybook_ledger::{
    BlockTime,
    tracker::{Code, KeyHash, Refusal},
};
use parking_lot::Mutex;

/// How long a cursor lives unused (section 8.15).
const IDLE_MS_MAX: u64 = 5 * 60_000;

/// Cursors at once: about 300 bytes each beside their rows.
const CURSORS_MAX: usize = 1 << 14;

/// Bytes of all cursors' rows together.
const ROWS_BYTES_MAX: usize = 64 << 20;

/// Cursors of one key; a further one takes the place of the one that was not used for longest.
const CURSORS_PER_KEY_MAX: usize = 16;

/// Rows of one list that is not the whole log: 8 bytes each.
pub(super) const ROWS_MAX: usize = 1 << 20;

/// A frozen list. The log only grows, so its records' numbers freeze it.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) rows: Rows,
    pub(super) ascending: bool,
    pub(super) page_size: u64,
}

/// The records of a list, oldest first.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    /// All up to this one.
    All(u64),
    /// These.
    Some(Arc<[u64]>),
}

impl Rows {
    pub(super) fn count(&self) -> u64 {
        match self {
            Rows::All(last) => *last,
            Rows::Some(rows) => rows.len() as u64,
        }
    }

    fn get(&self, index: u64) -> Option<u64> {
        match self {
            Rows::All(last) => Some(index + 1).filter(|number| number <= last),
            Rows::Some(rows) => rows.get(usize::try_from(index).ok()?).copied(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Rows::All(_) => 0,
            Rows::Some(rows) => size_of_val(&**rows),
        }
    }
}

impl Frozen {
    pub(super) fn pages(&self) -> u64 {
        self.rows.count().div_ceil(self.page_size)
    }

    /// The records of a page, from 1, in the order of the list; empty beyond the end.
    pub(super) fn page(&self, page: u64) -> impl Iterator<Item = u64> {
        let count = self.rows.count();
        let from = page
            .saturating_sub(1)
            .saturating_mul(self.page_size)
            .min(count);
        let to = from.saturating_add(self.page_size).min(count);
        (from..to).filter_map(move |index| {
            let index = if self.ascending {
                index
            } else {
                count - 1 - index
            };
            self.rows.get(index)
        })
    }
}

/// All cursors. They live in memory: a restart forgets them, and clients begin again.
#[derive(Default)]
pub(super) struct Cursors(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    cursors: HashMap<String, Cursor>,
    /// By the time of last use.
    by_use: BTreeSet<(BlockTime, String)>,
    by_owner: HashMap<KeyHash, BTreeSet<String>>,
    by_network: HashMap<IpAddr, OfNetwork>,
    rows_bytes: usize,
}

/// The cursors of one network.
#[derive(Default)]
struct OfNetwork {
    /// By the time of last use.
    by_use: BTreeSet<(BlockTime, String)>,
    rows_bytes: usize,
}

struct Cursor {
    owner: KeyHash,
    network: IpAddr,
    used: BlockTime,
    frozen: Frozen,
}

impl Cursors {
    /// Keeps a list under a new name. When there is no room, the network that has most gives the cursor that
    /// it did not use for longest: keys cost nothing, so whoever makes many must not shut others out.
    ///
    /// # Errors
    /// `rate_limited` for a list that is longer than all that may be kept.
    pub(super) fn keep(
        &self,
        owner: KeyHash,
        network: IpAddr,
        frozen: Frozen,
        now: BlockTime,
    ) -> Result<String, Refusal> {
        let mut inner = self.0.lock();
        inner.sweep(now);
        while let Some(oldest) = inner.surplus_of(&owner) {
            inner.remove(&oldest);
        }
        let bytes = frozen.rows.bytes();
        while let Some(size) = inner.lacks(bytes) {
            let Some(oldest) = inner.surplus_by(size) else {
                return Err(Refusal::new(
                    Code::RateLimited,
                    "the list is too long: ask for less with `fields`",
                ));
            };
            inner.remove(&oldest);
        }
        let name = uuid();
        inner.rows_bytes += bytes;
        inner.by_use.insert((now, name.clone()));
        inner
            .by_owner
            .entry(owner)
            .or_default()
            .insert(name.clone());
        let own = inner.by_network.entry(network).or_default();
        own.by_use.insert((now, name.clone()));
        own.rows_bytes += bytes;
        let cursor = Cursor {
            owner,
            network,
            used: now,
            frozen,
        };
        inner.cursors.insert(name.clone(), cursor);
        Ok(name)
    }

    /// The list of a cursor; its idle time begins anew. Cursors belong to the key that made them.
    ///
    /// # Errors
    /// `cursor_unknown` when there is none, or it is another key's.
    pub(super) fn touch(
        &self,
        name: &str,
        owner: &KeyHash,
        now: BlockTime,
    ) -> Result<Frozen, Refusal> {
        let mut inner = self.0.lock();
        inner.sweep(now);
        let unknown = || Refusal::new(Code::CursorUnknown, "query not find");
        let cursor = inner.cursors.get_mut(name).ok_or_else(unknown)?;
        if cursor.owner != *owner {
            return Err(unknown());
        }
        let before = std::mem::replace(&mut cursor.used, now);
        let (frozen, network) = (cursor.frozen.clone(), cursor.network);
        let (before, after) = ((before, name.to_owned()), (now, name.to_owned()));
        if let Some(own) = inner.by_network.get_mut(&network) {
            own.by_use.remove(&before);
            own.by_use.insert(after.clone());
        }
        inner.by_use.remove(&before);
        inner.by_use.insert(after);
        Ok(frozen)
    }
}

impl Inner {
    fn sweep(&mut self, now: BlockTime) {
        while let Some((used, name)) = self.by_use.first()
            && now.0.saturating_sub(used.0) > IDLE_MS_MAX
        {
            let name = name.clone();
            self.remove(&name);
        }
    }

    /// The cursor of a key that makes room for another one.
    fn surplus_of(&self, owner: &KeyHash) -> Option<String> {
        let own = self.by_owner.get(owner)?;
        if own.len() < CURSORS_PER_KEY_MAX {
            return None;
        }
        let used = |name: &&String| self.cursors.get(*name).map(|cursor| cursor.used);
        own.iter().min_by_key(used).cloned()
    }

    /// What there is too little of for one more cursor with so many bytes of rows: how a network's part of it
    /// is measured.
    fn lacks(&self, bytes: usize) -> Option<fn(&OfNetwork) -> usize> {
        if self.cursors.len() >= CURSORS_MAX {
            return Some(|own| own.by_use.len());
        }
        (self.rows_bytes + bytes > ROWS_BYTES_MAX).then_some(|own| own.rows_bytes)
    }

    /// The cursor that was not used for longest, of the network that has most.
    fn surplus_by(&self, size: fn(&OfNetwork) -> usize) -> Option<String> {
        let most = self.by_network.values().max_by_key(|own| size(own))?;
        most.by_use.first().map(|(_, name)| name.clone())
    }

    fn remove(&mut self, name: &str) {
        let Some(cursor) = self.cursors.remove(name) else {
            return;
        };
        let bytes = cursor.frozen.rows.bytes();
        let place = (cursor.used, name.to_owned());
        self.rows_bytes -= bytes;
        if let Some(own) = self.by_network.get_mut(&cursor.network) {
            own.by_use.remove(&place);
            own.rows_bytes -= bytes;
            if own.by_use.is_empty() {
                self.by_network.remove(&cursor.network);
            }
        }
        self.by_use.remove(&place);
        if let Some(own) = self.by_owner.get_mut(&cursor.owner) {
            own.remove(name);
            if own.is_empty() {
                self.by_owner.remove(&cursor.owner);
            }
        }
    }
}

/// A random UUID (RFC 9562, version 4).
pub(super) fn uuid() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let part = |shift: u32, bits: u32| (number >> shift) & ((1 << bits) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 32),
        part(80, 16),
        part(64, 16),
        part(48, 16),
        part(0, 48)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OWNER: KeyHash = KeyHash([1; 32]);

    fn net(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn frozen(rows: Rows, ascending: bool) -> Frozen {
        Frozen {
            rows,
            ascending,
            page_size: 3,
        }
    }

    fn at(ms: u64) -> BlockTime {
        BlockTime(1_700_000_000_000 + ms)
    }

    #[test]
    fn pages_concatenate_to_the_list_in_both_orders_and_end() {
        for rows in [Rows::All(7), Rows::Some(Arc::from([1, 2, 3, 4, 5, 6, 7]))] {
            let pages = |ascending| {
                let list = frozen(rows.clone(), ascending);
                assert_eq!((list.pages(), list.rows.count()), (3, 7));
                (1..=4)
                    .map(|page| list.page(page).collect::<Vec<_>>())
                    .collect::<Vec<_>>()
            };
            assert_eq!(pages(true), [vec![1, 2, 3], vec![4, 5, 6], vec![7], vec![]]);
            assert_eq!(
                pages(false),
                [vec![7, 6, 5], vec![4, 3, 2], vec![1], vec![]]
            );
        }
        assert_eq!(frozen(Rows::All(0), false).page(1).count(), 0);
        assert_eq!(frozen(Rows::All(7), false).page(u64::MAX).count(), 0);
    }

    #[test]
    fn a_cursor_dies_when_it_is_not_used_and_lives_on_when_it_is() {
        let cursors = Cursors::default();
        let name = cursors
            .keep(OWNER, net(1), frozen(Rows::All(7), true), at(0))
            .unwrap();
        assert!(cursors.touch(&name, &OWNER, at(240_000)).is_ok());
        assert!(cursors.touch(&name, &OWNER, at(540_000)).is_ok());
        let gone = cursors.touch(&name, &OWNER, at(540_000 + IDLE_MS_MAX + 1));
        assert_eq!(gone.unwrap_err().code, Code::CursorUnknown);
        assert!(cursors.0.lock().by_use.is_empty() && cursors.0.lock().by_owner.is_empty());
    }

    #[test]
    fn a_cursor_is_its_owners_alone() {
        let cursors = Cursors::default();
        let name = cursors
            .keep(OWNER, net(1), frozen(Rows::All(7), true), at(0))
            .unwrap();
        let refused = cursors.touch(&name, &KeyHash([2; 32]), at(0)).unwrap_err();
        assert_eq!(
            (refused.code, &*refused.detail),
            (Code::CursorUnknown, "query not find")
        );
    }

    #[test]
    fn a_further_cursor_of_one_key_takes_the_place_of_its_oldest() {
        let cursors = Cursors::default();
        let keep = |ms| {
            cursors
                .keep(OWNER, net(1), frozen(Rows::All(7), true), at(ms))
                .unwrap()
        };
        let names: Vec<String> = (0..CURSORS_PER_KEY_MAX as u64).map(keep).collect();
        assert!(cursors.touch(&names[0], &OWNER, at(100)).is_ok());
        keep(101);
        assert!(cursors.touch(&names[0], &OWNER, at(102)).is_ok());
        assert!(cursors.touch(&names[1], &OWNER, at(102)).is_err());
        assert_eq!(cursors.0.lock().cursors.len(), CURSORS_PER_KEY_MAX);
    }

    #[test]
    fn rows_are_bounded_and_those_of_the_network_that_has_most_make_room() {
        let cursors = Cursors::default();
        let rows: Arc<[u64]> = vec![1; ROWS_MAX].into();
        let list = frozen(Rows::Some(rows), true);
        let owner = |number: u8| KeyHash([number; 32]);
        let keep = |number: u8, network, ms| {
            cursors.keep(owner(number), net(network), list.clone(), at(ms))
        };
        let first = keep(0, 2, 0).unwrap();
        let greedy: Vec<String> = (1..8).map(|n| keep(n, 1, n.into()).unwrap()).collect();
        let newest = keep(9, 3, 9).unwrap();
        assert!(cursors.touch(&first, &owner(0), at(10)).is_ok());
        assert!(cursors.touch(&newest, &owner(9), at(10)).is_ok());
        assert!(cursors.touch(&greedy[0], &owner(1), at(10)).is_err());
        assert!(cursors.touch(&greedy[1], &owner(2), at(10)).is_ok());
        assert_eq!(cursors.0.lock().rows_bytes, ROWS_BYTES_MAX);
        let all = at(11 + IDLE_MS_MAX);
        cursors
            .keep(OWNER, net(1), frozen(Rows::All(1), true), all)
            .unwrap();
        let inner = cursors.0.lock();
        assert_eq!((inner.rows_bytes, inner.by_network.len()), (0, 1));
    }

    #[test]
    fn one_network_with_many_keys_shuts_nobody_out() {
        let cursors = Cursors::default();
        let list = || frozen(Rows::All(7), true);
        let owner = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
            KeyHash(hash)
        };
        let name = cursors.keep(OWNER, net(2), list(), at(0)).unwrap();
        let flood: Vec<String> = (0..CURSORS_MAX + 10)
            .map(|number| cursors.keep(owner(number), net(1), list(), at(1)).unwrap())
            .collect();
        assert_eq!(cursors.0.lock().cursors.len(), CURSORS_MAX);
        assert!(cursors.touch(&name, &OWNER, at(2)).is_ok());
        assert!(cursors.keep(OWNER, net(2), list(), at(2)).is_ok());
        let left = flood.iter().enumerate();
        let left =
            left.filter(|(number, name)| cursors.touch(name, &owner(*number), at(3)).is_ok());
        assert_eq!(left.count(), CURSORS_MAX - 2);
    }

    #[test]
    fn a_uuid_has_its_version_and_is_never_the_same() {
        let (one, two) = (uuid(), uuid());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]));
    }
}
