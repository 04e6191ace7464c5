//! What is looked up, folded to 64 bits.

use std::hash::{BuildHasher, RandomState};

use daybook_ledger::{consortium, tracker::IndexKey};

/// What a look-up starts from. The numbers are part of stored hashes: add, never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Family {
    /// A transaction's id.
    Transaction = 1,
    /// A key that an output's condition names.
    Owner = 2,
    /// An asset that a transaction moves or consumes.
    Asset = 3,
    /// A string that is an asset's data, or an item of it.
    AssetString = 4,
    /// A string that is the metadata, or an item of it.
    MetadataString = 5,
    /// A search term of an asset's data.
    AssetTerm = 6,
    /// A search term of the metadata.
    MetadataTerm = 7,
    /// The id of a transaction that was taken and lost.
    Rejected = 8,
    /// A tracker entry's id.
    TrackerEntry = 9,
    /// An address or a channel that a tracker entry touches.
    TrackerObject = 10,
    /// A key that a tracker entry concerns.
    TrackerOwner = 11,
    /// The type of a tracker record.
    TrackerType = 12,
    /// The sequence number of a tracker record.
    TrackerSequence = 13,
    /// A request to the tracker that may be repeated.
    TrackerRequest = 14,
    /// An entry's id of the consortium's book.
    ConsortiumEntry = 15,
    /// A proposal of the consortium, with all that concerns it.
    ConsortiumProposal = 16,
    /// A proposal alone.
    ConsortiumProposed = 17,
    /// What a member said about a proposal.
    ConsortiumVote = 18,
    /// A ledger of the consortium.
    ConsortiumLedger = 19,
    /// A ledger and a sequence number in it.
    ConsortiumSequence = 20,
    /// A member of the consortium.
    ConsortiumMember = 21,
    /// A request to the consortium's book that may be repeated.
    ConsortiumRequest = 22,
    /// Every entry of the consortium's book, under one key.
    ConsortiumBook = 23,
}

/// The bits of a hash that are kept. What is found under a key is compared with what was asked, and with
/// a thousand million entries one look-up in 280,000 finds something else first: two bytes of each
/// entry are worth more than that.
pub(crate) const KEY_MASK: u64 = !0xffff;

/// The secret with which keys are hashed: one for each data directory, so that nobody can make keys
/// that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u64; 2]);

impl Secret {
    /// A new secret, from the operating system's randomness.
    pub(crate) fn new() -> Secret {
        Secret([0, 1].map(|word: u64| RandomState::new().hash_one(word)))
    }

    /// The hash of what a tracker entry is looked up by.
    pub(crate) fn tracker_key(&self, key: IndexKey<'_>) -> u64 {
        match key {
            IndexKey::Object(name) => self.key(Family::TrackerObject, name.as_bytes()),
            IndexKey::Owner(owner) => self.key(Family::TrackerOwner, &owner),
            IndexKey::Type(number) => self.key(Family::TrackerType, &[number]),
            IndexKey::Sequence(number) => self.key(Family::TrackerSequence, &number.to_le_bytes()),
            IndexKey::Request(digest) => self.key(Family::TrackerRequest, &digest),
        }
    }

    /// The hash of what an entry of the consortium's book is looked up by.
    pub(crate) fn consortium_key(&self, key: consortium::IndexKey<'_>) -> u64 {
        use consortium::IndexKey;
        match key {
            IndexKey::Proposal(id) => self.key(Family::ConsortiumProposal, &id.0),
            IndexKey::Proposed(id) => self.key(Family::ConsortiumProposed, &id.0),
            IndexKey::Vote(id, did) => {
                let mut bytes = [0; 48];
                bytes[..32].copy_from_slice(&id.0);
                bytes[32..].copy_from_slice(&did.0);
                self.key(Family::ConsortiumVote, &bytes)
            }
            IndexKey::Ledger(name) => self.key(Family::ConsortiumLedger, name.as_bytes()),
            IndexKey::Sequence(name, number) => {
                let bytes = [name.as_bytes(), &number.to_le_bytes()].concat();
                self.key(Family::ConsortiumSequence, &bytes)
            }
            IndexKey::Member(did) => self.key(Family::ConsortiumMember, &did.0),
            IndexKey::Request(digest) => self.key(Family::ConsortiumRequest, &digest),
        }
    }

    /// The hash under which every entry of the consortium's book is found.
    pub(crate) fn consortium_book(&self) -> u64 {
        self.key(Family::ConsortiumBook, &[])
    }

    /// The hash of a key of a family.
    pub(crate) fn key(&self, family: Family, bytes: &[u8]) -> u64 {
        siphash::<1, 3>(self.0, family as u64, bytes) & KEY_MASK
    }
}

/// SipHash (Aumasson, Bernstein 2012) with `C` and `D` rounds, over a first word and bytes.
fn siphash<const C: usize, const D: usize>(secret: [u64; 2], first: u64, bytes: &[u8]) -> u64 {
    let mut state = [
        secret[0] ^ 0x736f_6d65_7073_6575,
        secret[1] ^ 0x646f_7261_6e64_6f6d,
        secret[0] ^ 0x6c79_6765_6e65_7261,
        secret[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        state[3] ^= word;
        (0..C).for_each(|_| round(&mut state));
        state[0] ^= word;
    };
    absorb(first);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        absorb(u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    last[7] = (bytes.len() as u8).wrapping_add(8);
    absorb(u64::from_le_bytes(last));
    state[2] ^= 0xff;
    (0..D).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    /// The standard library keeps SipHash-2-4 under a deprecated name: a judge for the rounds.
    #[test]
    #[allow(deprecated)]
    fn the_hash_is_siphash() {
        let bytes: Vec<u8> = (0..100).collect();
        for length in 0..bytes.len() {
            let mut judge = std::hash::SipHasher::new_with_keys(11, 22);
            judge.write_u64(7);
            judge.write(&bytes[..length]);
            assert_eq!(
                siphash::<2, 4>([11, 22], 7, &bytes[..length]),
                judge.finish(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn the_same_bytes_in_another_family_are_another_key() {
        let secret = Secret([1, 2]);
        assert_ne!(
            secret.key(Family::Owner, &[9; 32]),
            secret.key(Family::Asset, &[9; 32])
        );
        assert_ne!(Secret::new(), Secret::new());
    }
}
