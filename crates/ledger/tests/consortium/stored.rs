//! The bytes of entries and snapshots.

use super::*;

/// Golden bytes: a change here is a change of the format.
#[test]
fn the_bytes_of_entries_and_snapshots_do_not_change() {
    let mut network = Network::new();
    network.with_ledger("CONT-1", &[1, 2], UNANIMOUS);
    let action = network.append(2, &["CONT-1"], &[r#"{"no":"1"}"#]);
    let open = network.propose(2, action).unwrap();
    let action = network.append(1, &["CONT-1"], &[r#"{"no":"2"}"#]);
    network.propose(1, action).unwrap();
    let snapshot = daybook_ledger::canonical::sha3(&network.book.encode());
    assert_eq!(hex::encode(snapshot), GOLDEN_SNAPSHOT);
    network.wait(TTL);
    let ids: Vec<String> = network
        .archive
        .all
        .iter()
        .map(|entry| format!("{} {}", entry.kind(), entry.id()))
        .collect();
    assert_eq!(ids, GOLDEN);
    let text = std::str::from_utf8(open.text()).unwrap();
    assert!(
        text.starts_with(r#"{"at":1772356527004,"book":"consortium","command":{"action":{"do":"append","entries":[{"msg~sig":{"@type":"#),
        "{text}"
    );
    let expiry = network.archive.all.last().unwrap();
    assert_eq!(std::str::from_utf8(expiry.text()).unwrap(), GOLDEN_EXPIRY);
}

const GOLDEN: [&str; 6] = [
    "found 2fe36a174953b7b2792687438c15bfa7929a1ac06c34bc43244dadbc142c85e9",
    "propose bba188e8fcfc9bb6ab459e467b80b05593c04d9ba6a0024f6632741af745109d",
    "endorse d22aa1129d976a4fc3eb531f9bfb754fad9e50aca1e7daa1b4f09323934b0355",
    "propose facebdd316bec52a7270e70fc2e7313b617af7779b99207df411f3a2824f5c13",
    "propose 70198a87d68eef7747bf7ec7dbedd046b87e04663eb27607b26e46fca2f2be63",
    "expiry b276628d6976b8cccad0b309a6858f6338c4b4bdd56a38b0b7eacd9b92962813",
];
const GOLDEN_EXPIRY: &str = r#"{"at":1772356547005,"book":"consortium","effects":[{"effect":"expired","missing":["J7CUQvLhdTVhye2SHg6w9K"],"proposal":"facebdd316bec52a7270e70fc2e7313b617af7779b99207df411f3a2824f5c13","was_open":true},{"effect":"expired","missing":[],"proposal":"70198a87d68eef7747bf7ec7dbedd046b87e04663eb27607b26e46fca2f2be63","was_open":false}],"kind":"expiry"}"#;
const GOLDEN_SNAPSHOT: &str = "d543fd6b2c73303d41608c8cb28a2447cd480899cf40151be9f0385c57083b2b";

#[test]
fn a_snapshot_that_is_cut_lengthened_or_contradictory_is_refused() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let action = network.append(2, &["A"], &["{}"]);
    network.propose(2, action).unwrap();
    let bytes = network.book.encode();
    assert_eq!(Book::decode(&bytes), Ok(network.book.clone()));
    for length in (0..bytes.len()).step_by(11) {
        assert!(Book::decode(&bytes[..length]).is_err());
    }
    assert!(Book::decode(&[&bytes[..], &[0]].concat()).is_err());
    let mut changed = 0;
    for place in (0..bytes.len()).step_by(13) {
        let mut spoilt = bytes.clone();
        spoilt[place] ^= 1;
        // Nothing panics; where the change is taken it gives another book.
        match Book::decode(&spoilt) {
            Err(_) => changed += 1,
            Ok(book) => assert_ne!(book, network.book),
        }
    }
    assert!(changed > 0);
}

#[test]
fn changed_bytes_are_read_or_refused_and_never_more() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let action = network.append(2, &["A"], &[r#"{"no":"1"}"#]);
    let open = network.propose(2, action).unwrap();
    let request = open.request().unwrap().text;
    let (file, keys) = (network.export("A"), Keys::of(&network.book));
    let snapshot = network.book.encode();
    let entries: Vec<&Entry> = network.archive.all.iter().collect();
    for round in 0..3_000 {
        let mut spoil = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for _ in 0..random.random_range(1..4) {
                let place = random.random_range(0..bytes.len());
                match random.random_range(0..4) {
                    0 => bytes[place] ^= 1 << random.random_range(0..8),
                    1 => bytes[place] = b"0159\"{}[]:,\\-+.eE"[random.random_range(0..17)],
                    2 => drop(bytes.remove(place)),
                    _ => bytes.insert(place, random.random()),
                }
            }
            bytes
        };
        let text = Bytes::from(spoil(entries[round % entries.len()].text()));
        if let Ok(read) = Entry::read(text.clone()) {
            assert_eq!(*read.text(), text, "only the canonical text is read");
            read.index_keys(&mut |_| {});
        }
        let spoilt = spoil(&request);
        if let Ok(command) = network.prover.prove(Request {
            text: spoilt.into(),
        }) {
            assert_eq!(command.to_request().text, request, "only spaces were added");
        }
        let _ = Book::decode(&spoil(&snapshot));
        if round % 10 == 0 {
            let _ = verify_export(&spoil(file.as_bytes()), &keys);
        }
    }
}
