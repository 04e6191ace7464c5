//! Merkle trees of RFC 6962, section 2.1: SHA-256, leaves prefixed with 0, nodes with 1.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The root over `leaves`, each given as its data. The root of no leaves is the hash of nothing.
pub fn root<L: AsRef<[u8]>>(leaves: impl IntoIterator<Item = L>) -> Hash {
    let mut level: Vec<Hash> = leaves
        .into_iter()
        .map(|leaf| hash_leaf(leaf.as_ref()))
        .collect();
    if level.is_empty() {
        return bytes(digest(&SHA256, b""));
    }
    // Pairing from the left and carrying an odd last node up unchanged is the RFC's split at the
    // largest power of two.
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash_node(left, right),
                single => single[0],
            })
            .collect();
    }
    level[0]
}

/// The hash of one leaf.
pub fn hash_leaf(data: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(data);
    bytes(context.finish())
}

/// The hash of a node over its two children.
pub fn hash_node(left: &Hash, right: &Hash) -> Hash {
    let mut data = [1; 65];
    data[1..33].copy_from_slice(left);
    data[33..].copy_from_slice(right);
    bytes(digest(&SHA256, &data))
}

fn bytes(digest: aws_lc_rs::digest::Digest) -> Hash {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962's definition, word for word: split at the largest power of two below the length.
    fn judge(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => bytes(digest(&SHA256, b"")),
            [leaf] => hash_leaf(leaf),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                hash_node(&judge(&leaves[..split]), &judge(&leaves[split..]))
            }
        }
    }

    #[test]
    fn the_root_is_the_one_that_rfc_6962_defines() {
        for count in 0..70_u8 {
            let leaves: Vec<Vec<u8>> = (0..count).map(|leaf| vec![leaf; 32]).collect();
            assert_eq!(root(&leaves), judge(&leaves), "{count} leaves");
        }
    }

    #[test]
    fn the_empty_root_is_the_hash_of_nothing() {
        assert_eq!(
            hex::encode(root(Vec::<Vec<u8>>::new())),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
