//! Merkle trees that grow: the frontier that a book keeps of each, and proofs about them (section
//! 4.4 and 4.5, RFC 6962).

use std::{fmt, str::FromStr};

use crate::merkle::{self, Hash, hash_node};

/// A hash of a tree. Its text is base58 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash(pub Hash);

/// The text is not base58 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tree's hash is the base58 text of 32 bytes")]
pub struct NotATreeHash;

impl TreeHash {
    /// The hash of a leaf with this data.
    pub fn leaf(data: impl AsRef<[u8]>) -> TreeHash {
        TreeHash(merkle::hash_leaf(data.as_ref()))
    }

    /// The root over leaves with this data.
    pub fn root<L: AsRef<[u8]>>(leaves: impl IntoIterator<Item = L>) -> TreeHash {
        TreeHash(merkle::root(leaves))
    }
}

impl FromStr for TreeHash {
    type Err = NotATreeHash;
    fn from_str(text: &str) -> Result<TreeHash, NotATreeHash> {
        crate::key::decode_base58(text.as_bytes())
            .map(TreeHash)
            .ok_or(NotATreeHash)
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Leaves of a tree that is read from bytes. A leaf a nanosecond for a century makes fewer, and from here
/// on a tree can grow as long again without overflow.
const SIZE_MAX: u64 = 1 << 62;

/// What must be known of a tree to let it grow: the roots of its perfect subtrees, largest first, one
/// for each bit of its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the empty tree.
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: TreeHash) {
        let mut node = leaf.0;
        // Every trailing one of the size is a subtree that the new leaf completes to twice its size.
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("there is a root for each bit");
            node = hash_node(&left, &node);
        }
        self.roots.push(node);
        self.size = self.size.checked_add(1).expect("nobody adds 2^64 leaves");
    }

    /// The root.
    pub fn root(&self) -> TreeHash {
        let Some((last, others)) = self.roots.split_last() else {
            return TreeHash::root::<&[u8]>([]);
        };
        TreeHash(
            others
                .iter()
                .rfold(*last, |right, left| hash_node(left, &right)),
        )
    }

    /// The roots of the perfect subtrees, largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// The frontier with these parts; `None` when their number does not fit the size, or the size is
    /// beyond `SIZE_MAX`.
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Frontier> {
        let fits = size <= SIZE_MAX && size.count_ones() as usize == roots.len();
        fits.then_some(Frontier { size, roots })
    }
}

/// Leaves `first..` of a tree as their hashes: what proofs are made of.
fn subtree(leaves: &[TreeHash]) -> Hash {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root().0
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

/// The audit path of leaf `index` (from 0) in the tree of all `leaves`: siblings, the one nearest the
/// leaf first. `None` when there is no such leaf.
pub fn inclusion_proof(leaves: &[TreeHash], index: usize) -> Option<Vec<TreeHash>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut leaves, mut index) = (leaves, index);
    let mut path = Vec::new();
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            path.push(TreeHash(subtree(right)));
            leaves = left;
        } else {
            path.push(TreeHash(subtree(left)));
            index -= left.len();
            leaves = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Whether `path` leads from leaf number `sequence` (from 1) to the `root` of a tree with `size`
/// leaves (section 4.5).
pub fn verify_inclusion(
    leaf: TreeHash,
    sequence: u64,
    size: u64,
    path: &[TreeHash],
    root: TreeHash,
) -> bool {
    if sequence == 0 || sequence > size {
        return false;
    }
    let (mut index, mut last) = (sequence - 1, size - 1);
    let mut hash = leaf.0;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            hash = hash_node(&sibling.0, &hash);
            while index % 2 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            hash = hash_node(&hash, &sibling.0);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root.0
}

/// The proof that the tree of all `leaves` begins with its first `old` ones (RFC 6962, section
/// 2.1.2). Empty when `old` is 0 or all; `None` when it is more.
pub fn consistency_proof(leaves: &[TreeHash], old: usize) -> Option<Vec<TreeHash>> {
    if old > leaves.len() {
        return None;
    }
    let (mut leaves, mut old) = (leaves, old);
    let mut path = Vec::new();
    if old == 0 || old == leaves.len() {
        return Some(path);
    }
    // Whether the part at hand is one whose root the verifier knows: the old tree as a whole.
    let mut known = true;
    while old != leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            path.push(TreeHash(subtree(right)));
            leaves = left;
        } else {
            path.push(TreeHash(subtree(left)));
            leaves = right;
            old -= left.len();
            known = false;
        }
    }
    if !known {
        path.push(TreeHash(subtree(leaves)));
    }
    path.reverse();
    Some(path)
}

/// Whether `path` proves that the tree with `new_size` leaves and `new_root` begins with the one with
/// `old_size` leaves and `old_root` (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(
    old_size: u64,
    old_root: TreeHash,
    new_size: u64,
    new_root: TreeHash,
    path: &[TreeHash],
) -> bool {
    if old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return path.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return path.is_empty() && old_root == Frontier::new().root();
    }
    let (mut index, mut last) = (old_size - 1, new_size - 1);
    while index % 2 == 1 {
        index >>= 1;
        last >>= 1;
    }
    // An old tree that is perfect is the first node itself.
    let (start, rest) = if old_size.is_power_of_two() {
        (old_root, path)
    } else {
        match path.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return false,
        }
    };
    let (mut old, mut new) = (start.0, start.0);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            old = hash_node(&sibling.0, &old);
            new = hash_node(&sibling.0, &new);
            while index % 2 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            new = hash_node(&new, &sibling.0);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && old == old_root.0 && new == new_root.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SIZES: usize = 69;

    fn leaves(count: usize) -> Vec<TreeHash> {
        (0..count)
            .map(|leaf| TreeHash::leaf((leaf as u64).to_be_bytes()))
            .collect()
    }

    fn root(count: usize) -> TreeHash {
        TreeHash::root((0..count).map(|leaf| (leaf as u64).to_be_bytes()))
    }

    #[test]
    fn a_growing_tree_has_the_root_of_the_whole_one_and_remembers_a_hash_per_bit() {
        let mut frontier = Frontier::new();
        for (count, leaf) in leaves(SIZES).into_iter().enumerate() {
            assert_eq!(frontier.root(), root(count));
            assert_eq!(frontier.roots().len(), count.count_ones() as usize);
            frontier.push(leaf);
        }
    }

    #[test]
    fn every_leaf_of_every_tree_is_proven_and_nothing_else_is() {
        for size in 1..=SIZES {
            let all = leaves(size);
            for index in 0..size {
                let path = inclusion_proof(&all, index).unwrap();
                let holds = |leaf, sequence, size, path: &[TreeHash]| {
                    verify_inclusion(leaf, sequence, size, path, root(all.len()))
                };
                let (sequence, whole) = (index as u64 + 1, size as u64);
                assert!(holds(all[index], sequence, whole, &path));
                let other = TreeHash::leaf("other");
                assert!(!holds(other, sequence, whole, &path));
                for elsewhere in (0..=whole + 1).filter(|place| *place != sequence) {
                    assert!(!holds(all[index], elsewhere, whole, &path));
                }
                assert!(!holds(
                    all[index],
                    sequence,
                    whole,
                    &[&path[..], &[other]].concat()
                ));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!holds(all[index], sequence, whole, shorter));
                }
            }
            assert_eq!(inclusion_proof(&all, size), None);
        }
        assert_eq!(inclusion_proof(&[], 0), None);
    }

    #[test]
    fn every_tree_proves_every_one_that_it_grew_from_and_no_other() {
        for new in 0..=SIZES {
            let all = leaves(new);
            for old in 0..=new {
                let path = consistency_proof(&all, old).unwrap();
                let holds = |old_root, path: &[TreeHash]| {
                    verify_consistency(old as u64, old_root, new as u64, root(new), path)
                };
                assert!(holds(root(old), &path), "{old} in {new}");
                assert!(!holds(TreeHash([7; 32]), &path));
                assert!(!holds(
                    root(old),
                    &[&path[..], &[TreeHash([7; 32])]].concat()
                ));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!holds(root(old), shorter));
                }
                assert!(!verify_consistency(
                    new as u64 + 1,
                    root(old),
                    new as u64,
                    root(new),
                    &path
                ));
            }
            assert_eq!(consistency_proof(&all, new + 1), None);
        }
    }
}
