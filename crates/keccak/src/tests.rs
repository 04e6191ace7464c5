//! Every way of hashing against the published digests and against the library.
#![allow(clippy::unwrap_used)]

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

#[cfg(target_arch = "x86_64")]
use crate::lanes;
use crate::{DIGEST_BYTES, one_by_one, sha3_256, sha3_256_many};

type Hash = Box<dyn Fn(&[&[u8]], &mut [[u8; DIGEST_BYTES]])>;

/// Every backend that this machine can run, and the choice among them.
fn backends() -> Vec<(&'static str, Hash)> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut all: Vec<(&'static str, Hash)> = vec![
        ("one by one", Box::new(one_by_one)),
        (
            "chosen",
            Box::new(|messages, digests| {
                // What is left from before must not show.
                let mut fresh = vec![[0xAA; DIGEST_BYTES]; 3];
                sha3_256_many(messages, &mut fresh);
                assert_eq!(fresh.len(), digests.len());
                digests.copy_from_slice(&fresh);
            }),
        ),
    ];
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(permute) = crate::x86::permute_8() {
            all.push((
                "AVX-512",
                Box::new(move |messages, digests| lanes::hash(permute, messages, digests)),
            ));
        }
        if let Some(permute) = crate::x86::permute_4() {
            all.push((
                "AVX2",
                Box::new(move |messages, digests| lanes::hash(permute, messages, digests)),
            ));
        }
    }
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    println!("backends: {}", names.join(", "));
    all
}

fn check(messages: &[Vec<u8>]) {
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let expected: Vec<_> = messages.iter().map(|message| sha3_256(message)).collect();
    for (name, hash) in backends() {
        let mut found = vec![[0; DIGEST_BYTES]; messages.len()];
        hash(&messages, &mut found);
        for (at, message) in messages.iter().enumerate() {
            assert_eq!(
                found[at],
                expected[at],
                "{name}: message {at}, {} bytes",
                message.len()
            );
        }
    }
}

fn random_message(random: &mut StdRng, length: usize) -> Vec<u8> {
    let mut message = vec![0; length];
    random.fill_bytes(&mut message);
    message
}

#[test]
fn published_digests_are_reproduced() {
    // Examples of FIPS 202, by NIST.
    let two_blocks = [0xA3; 200];
    let known: [(&[u8], &str); 4] = [
        (
            b"",
            "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a",
        ),
        (
            b"abc",
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
        ),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "41c0dba2a9d6240849100376a8235e2c82e1b9998a999e21db32dd97496d3376",
        ),
        (
            &two_blocks,
            "79f38adec5c20307a98ef76e8324afbfd46cfd81b22e3973c65fa1bd9de31787",
        ),
    ];
    let messages: Vec<&[u8]> = known.iter().map(|(message, _)| *message).collect();
    for (name, hash) in backends() {
        let mut found = [[0; DIGEST_BYTES]; 4];
        hash(&messages, &mut found);
        for ((_, expected), found) in known.iter().zip(found) {
            assert_eq!(hex::encode(found), *expected, "{name}");
        }
    }
}

#[test]
fn every_length_gives_the_librarys_digest_in_any_order() {
    let seed = 0x5EED_0001;
    println!("seed {seed:#x}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut messages: Vec<Vec<u8>> = (0..600)
        .map(|length| random_message(&mut random, length))
        .collect();
    check(&messages);
    messages.reverse();
    check(&messages);
    for _ in 0..5 {
        messages.shuffle(&mut random);
        check(&messages);
    }
}

#[test]
fn messages_around_the_ends_of_blocks_are_padded_in_every_lane() {
    let seed = 0x5EED_0002;
    println!("seed {seed:#x}");
    let mut random = StdRng::seed_from_u64(seed);
    for length in [0, 1, 134, 135, 136, 137, 271, 272, 273, 407, 408] {
        let messages: Vec<Vec<u8>> = (0..19)
            .map(|_| random_message(&mut random, length))
            .collect();
        check(&messages);
    }
}

#[test]
fn batches_of_any_size_and_mixture_give_the_librarys_digests() {
    let seed = 0x5EED_0003;
    println!("seed {seed:#x}");
    let mut random = StdRng::seed_from_u64(seed);
    for size in (0..40).chain([255, 256, 257, 512]) {
        let messages: Vec<Vec<u8>> = (0..size)
            .map(|_| {
                // Mostly of the size of transactions; some much longer.
                let longest = if random.random_bool(0.02) {
                    50_000
                } else {
                    1_500
                };
                let length = random.random_range(0..longest);
                random_message(&mut random, length)
            })
            .collect();
        check(&messages);
    }
}
