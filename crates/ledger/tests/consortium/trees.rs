//! Trees and hashes (items 23 and 24).

use super::*;

const ROOTS: [&str; 6] = [
    "GKot5hBsd81kMupNCXHaqbhv3huEbxAFMLnpcX2hniwn",
    "Byo1oUXK1M1obtusivLXd86qWqoy2Daxuotz7DnkyG6p",
    "8TgJeZ18GzTrGo4atWkQBj9nVTYuGRgmtstHZEtzrRx",
    "A786ZXiUmYFA1FAbwXhDYWboKf4czFYmoKWujBoHArJb",
    "HQCmLF73yFqhhDUNu2ba9dVvYLnygsYZLPZjNhDVnZcM",
    "BzXfLnRypAHZdTc9pA53eBbXrwAp8f7Sz3utEKRsu4p3",
];

#[test]
fn canonical_bytes_leaves_roots_and_paths_are_the_published_ones() {
    let leaves = [
        "Byo1oUXK1M1obtusivLXd86qWqoy2Daxuotz7DnkyG6p",
        "5Zagxtd4tjC5BtnRRverCb6C4qAm8MngMZMd7i7JQhEy",
        "5JhHJg7bLgtwKWS6tyLAUvQxQFUv1nDaSURm4RcPhmG9",
        "GJvaGCsRDYNTzVK3aYF65dZvxy4GANxry3fPs4BTRV24",
        "CwBtJZoPAZZgYyLAeStnCyZSiF2YfEcpLgagLUXLSPYX",
    ];
    let mut frontier = Frontier::new();
    assert_eq!(frontier.root(), hash(ROOTS[0]));
    for ((text, leaf), root) in five().iter().zip(leaves).zip(&ROOTS[1..]) {
        assert_eq!(canon(&parse(text)), *text);
        let metadata = parse(text)
            .as_object()
            .unwrap()
            .get(METADATA)
            .unwrap()
            .clone();
        let time = metadata.as_object().unwrap().get("txnTime").cloned();
        let entry = EntryText::new(parse(text).as_object().unwrap());
        let committed = entry.committed(frontier.size() + 1, time.as_ref().and_then(Value::as_str));
        assert_eq!(committed, *text);
        assert_eq!(TreeHash::leaf(text), hash(leaf));
        frontier.push(hash(leaf));
        assert_eq!(frontier.root(), hash(root));
    }
    assert_eq!(five()[0].len(), 69);

    let all: Vec<TreeHash> = leaves.iter().map(|leaf| hash(leaf)).collect();
    let path = inclusion_proof(&all, 2).unwrap();
    assert_eq!(path, [hash(leaves[3]), hash(ROOTS[2]), hash(leaves[4])]);
    assert!(verify_inclusion(all[2], 3, 5, &path, hash(ROOTS[5])));
    assert_eq!(inclusion_proof(&all, 4).unwrap(), [hash(ROOTS[4])]);
    assert_eq!(inclusion_proof(&all[..3], 2).unwrap(), [hash(ROOTS[2])]);
    let grown = consistency_proof(&all, 3).unwrap();
    assert!(verify_consistency(
        3,
        hash(ROOTS[3]),
        5,
        hash(ROOTS[5]),
        &grown
    ));
}

#[test]
fn the_roots_that_the_original_publishes_are_reached() {
    let who = [
        "5rArie7XKukPCaEwq5XGQJnM9Fc5aZE3M9HAPVfMU2xC",
        "2btLJAAb1S3x6hZYdVyAePjqtQYi2ZBSRGy4569RZu8h",
        "CECeGXDi6EHuhpwz19uyjjEnsRGNXodFYqCRgdLmLRkt",
    ];
    let mut frontier = Frontier::new();
    let mut roots = BTreeMap::new();
    for (number, who) in (1u64..).zip([0, 1, 2, 1, 2, 2, 1, 2, 2].map(|place: usize| who[place])) {
        let entry = Object::from_iter([
            ("reqId", Value::from(number)),
            ("identifier", Value::from(who)),
            ("op", Value::from(format!("op{number}"))),
        ]);
        frontier.push(TreeHash::leaf(
            EntryText::new(&entry).committed(number, None),
        ));
        roots.insert(number, frontier.root().to_string());
    }
    assert_eq!(roots[&3], "3u8ZCezSXJq72H5CdEryyTuwAKzeZnCZyfftJVFr7y8U");
    assert_eq!(roots[&6], "3eDS4j8HgpAyRnuvfFG624KKvQBuNXKBenhqHmHtUgeq");
    assert_eq!(roots[&9], "Dkoca8Af15uMLBHAqbddwqmpiqsaDEtKDoFVfNRXt44g");
}

#[test]
fn state_parallel_and_ledger_hashes_are_the_published_ones() {
    let state = |name: &str| State {
        name: name.to_owned(),
        root: hash(ROOTS[3]),
        size: 3,
        uncommitted_root: hash(ROOTS[5]),
        uncommitted_size: 5,
    };
    let (seven, eight) = (state("CONT-7"), state("CONT-8"));
    assert_eq!(
        State::read(&Value::Object(seven.to_object())),
        Some(seven.clone())
    );
    assert_eq!(seven.legacy_hash(), "674aaa87c64f92cd7809056036d21ca7");
    assert_eq!(eight.legacy_hash(), "4266897e49ded9018c77d1bf39014d18");
    assert_eq!(
        legacy_parallel_hash(&[eight, seven]),
        "3a18f20983a9e57774ad2288342a2fba2bb41a3023692a763ae6e67b875b67b5"
    );
    let genesis = five()[..3].iter().map(|text| parse(text)).collect();
    assert_eq!(
        dumps(&ledger_hash("CONT-7", hash(ROOTS[3]), genesis)),
        r#"{"func": "sha256", "base58": "21G44EuLeo5BUc1SJt9UvbHNzsQ3Z1SwZpYmpKj3U2JS"}"#
    );
}
