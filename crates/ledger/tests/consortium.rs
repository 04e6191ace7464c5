//! The consortium's book, told in stories: each follows the protocol's checklist (section 11), whose
//! numbers stand beside the tests.

#![allow(clippy::unwrap_used, missing_docs)]

mod consortium_common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consortium_common::*;
use daybook_ledger::{
    BlockTime, Height, TransactionId,
    consortium::*,
    json::{Object, Value},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const ALL: [u8; 5] = [1, 2, 3, 4, 5];
const UNANIMOUS: Policy = Policy::Unanimous;

// --- Trees and hashes: 23, 24 ---------------------------------------------------------------------

fn parse(text: &str) -> Value {
    text.parse().unwrap()
}

fn five() -> [&'static str; 5] {
    [
        r#"{"cargo":"Арбузы","no":"A-1","qty":3,"txnMetadata":{"seqNo":1}}"#,
        r#"{"cargo":"steel \"coil\"","no":"A-2","qty":1.5,"txnMetadata":{"seqNo":2}}"#,
        r#"{"cargo":"tea/чай","hazard":null,"no":"A-3","txnMetadata":{"seqNo":3}}"#,
        r#"{"list":[{"a":2,"b":1}],"no":"A-4","txnMetadata":{"seqNo":4,"txnTime":"2026-03-01 09:15:27.004210"}}"#,
        r#"{"empty":{},"no":"A-5","txnMetadata":{"seqNo":5,"txnTime":"2026-03-01 09:15:27.004210"}}"#,
    ]
}

fn hash(text: &str) -> TreeHash {
    text.parse().unwrap()
}

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

// --- Members ----------------------------------------------------------------------------------------

#[test]
fn a_network_is_founded_once_and_by_a_validator_of_its_genesis() {
    let mut network = Network::unfounded();
    let founding = Body::Found {
        members: vec![card(1), card(2)],
        settings: Settings::default(),
    };
    let early = network.create(1, "A", &[1, 2], UNANIMOUS);
    assert_eq!(network.propose(1, early), Err(Code::NotFounded));
    assert_eq!(network.ask(&founding, &key(1)), Err(Code::NotAFounder));
    let doubled = Body::Found {
        members: vec![card(1), card(1)],
        settings: Settings::default(),
    };
    assert_eq!(network.ask(&doubled, &validator()), Err(Code::MemberExists));
    let nobody = Body::Found {
        members: Vec::new(),
        settings: Settings::default(),
    };
    assert_eq!(network.ask(&nobody, &validator()), Err(Code::TooFewMembers));
    assert_eq!(
        network.ask(&founding, &validator()).unwrap().kind(),
        "found"
    );
    assert_eq!(
        network.ask(&founding, &validator()),
        Err(Code::AlreadyFounded)
    );
    assert_eq!(network.book.members().count(), 2);
}

#[test]
fn a_validator_admits_members_where_the_network_has_it_so() {
    let mut network = Network::new();
    let admission = Body::Admit { card: card(6) };
    assert_eq!(network.ask(&admission, &key(1)), Err(Code::NotAFounder));
    network.ask(&admission, &validator()).unwrap();
    assert_eq!(
        network.ask(&admission, &validator()),
        Err(Code::MemberExists)
    );
    let vote = Action::Admit { card: card(7) };
    assert_eq!(network.propose(1, vote), Err(Code::NotAdmittedSo));
    network.with_ledger("A", &[6, 1], UNANIMOUS);
}

#[test]
fn more_than_half_of_the_members_admit_where_the_network_has_it_so() {
    let mut network = Network::with(Settings {
        admission: Admission::Members,
        documents: Documents::Any,
        ..Settings::default()
    });
    let admission = Body::Admit { card: card(6) };
    assert_eq!(
        network.ask(&admission, &validator()),
        Err(Code::NotAdmittedSo)
    );
    let proposal = network.propose(1, Action::Admit { card: card(6) }).unwrap();
    let second = network.propose(2, Action::Admit { card: card(6) }).unwrap();
    assert_eq!(network.fate(&second), "waiting");
    network.endorse(2, &proposal).unwrap();
    assert!(network.book.member(did(6)).is_none());
    let commit = network.endorse(3, &proposal).unwrap();
    assert!(network.book.member(did(6)).unwrap().active);
    // The second has nothing left to admit.
    assert_eq!(network.fate(&second), "dropped");
    assert!(matches!(
        commit.outcome_of(&second.id()),
        Some(Effect::Dropped {
            code: Code::MemberExists,
            ..
        })
    ));
}

#[test]
fn a_member_changes_its_card_and_its_key_with_its_present_key_only() {
    let mut network = Network::new();
    let first = card(1);
    let moved = first.next(first.profile().clone(), &key(101));
    let announce = |card: &Card| Body::Announce { card: card.clone() };
    assert_eq!(
        network.ask(&announce(&first), &key(1)),
        Err(Code::NothingToDo)
    );
    assert_eq!(
        network.ask(&announce(&moved), &key(101)),
        Err(Code::ForeignKey)
    );
    assert_eq!(
        network.ask(&announce(&moved), &key(2)),
        Err(Code::ForeignKey)
    );
    let skipping = moved.next(first.profile().clone(), &key(101));
    assert_eq!(
        network.ask(&announce(&skipping), &key(1)),
        Err(Code::WrongRevision)
    );
    let stolen = first.next(first.profile().clone(), &key(2));
    assert_eq!(
        network.ask(&announce(&stolen), &key(1)),
        Err(Code::KeyInUse)
    );
    network.ask(&announce(&moved), &key(1)).unwrap();
    // The old key says nothing any more, but is still known as the member's.
    let action = network.create(1, "A", &[1, 2], UNANIMOUS);
    assert_eq!(network.propose(1, action), Err(Code::ForeignKey));
    assert_eq!(
        network.book.owner(&key(1).public_key()).unwrap().card.did(),
        did(1)
    );
    assert_eq!(
        network
            .book
            .owner(&key(101).public_key())
            .unwrap()
            .card
            .did(),
        did(1)
    );
    let back = moved.next(first.profile().clone(), &key(1));
    assert_eq!(
        network.ask(&announce(&back), &key(101)),
        Err(Code::KeyInUse)
    );
}

#[test]
fn all_others_remove_a_member_who_then_says_nothing_and_is_asked_nothing() {
    let mut network = Network::new();
    network.with_ledger("A", &ALL, UNANIMOUS);
    network.with_ledger("B", &[4, 5], UNANIMOUS);
    assert_eq!(
        network.propose(1, Action::Remove { subject: did(1) }),
        Err(Code::BadGroup)
    );
    let proposal = network
        .propose(1, Action::Remove { subject: did(5) })
        .unwrap();
    assert_eq!(network.endorse(5, &proposal), Err(Code::ForeignEndorser));
    for seed in [2, 3, 4] {
        network.endorse(seed, &proposal).unwrap();
    }
    assert!(!network.book.member(did(5)).unwrap().active);
    let silent = network.append(5, &["A"], &["{}"]);
    assert_eq!(network.propose(5, silent), Err(Code::UnknownMember));
    // The four who are left are all there are.
    let entries = network.append(1, &["A"], &["{}"]);
    let proposal = network.propose(1, entries).unwrap();
    for seed in [2, 3, 4] {
        network.endorse(seed, &proposal).unwrap();
    }
    assert_eq!(network.fate(&proposal), "committed");
    // One alone agrees with nobody, until it shares the ledger anew.
    let alone = network.append(4, &["B"], &["{}"]);
    assert_eq!(network.propose(4, alone), Err(Code::TooFewMembers));
    let regroup = Action::Regroup {
        ledger: "B".to_owned(),
        participants: vec![did(4), did(1)],
        policy: UNANIMOUS,
    };
    let proposal = network.propose(4, regroup).unwrap();
    network.endorse(1, &proposal).unwrap();
    let together = network.append(4, &["B"], &["{}"]);
    let proposal = network.propose(4, together).unwrap();
    network.endorse(1, &proposal).unwrap();
    assert_eq!(network.size("B"), 2);
}

// --- Creating and appending -------------------------------------------------------------------------

#[test]
fn a_ledger_is_created_with_the_last_endorsement_and_by_that_same_entry() {
    let mut network = Network::new();
    let action = network.create(1, "CONT-1", &ALL, UNANIMOUS);
    let proposal = network.propose(1, action).unwrap();
    assert!(matches!(
        proposal.effects(),
        [Effect::Opened { proposal: None, .. }]
    ));
    for seed in [2, 3, 4] {
        let entry = network.endorse(seed, &proposal).unwrap();
        assert_eq!(entry.effects(), []);
        assert!(network.book.ledger("CONT-1").is_none());
    }
    let progress = network.book.progress(&proposal.id()).unwrap();
    assert_eq!(progress.endorsed.len(), 4);
    assert_eq!(progress.endorsed[0], did(1));
    assert_eq!(progress.missing, [did(5)]);
    let commit = network.endorse(5, &proposal).unwrap();
    let Some(Effect::Committed {
        states, endorsers, ..
    }) = commit.outcome_of(&proposal.id())
    else {
        panic!("{commit:?}");
    };
    assert_eq!(endorsers.len(), 5);
    assert_eq!((states[0].size, states[0].uncommitted_size), (0, 1));
    let ledger = network.book.ledger("CONT-1").unwrap();
    assert_eq!(ledger.number, 1);
    assert_eq!(ledger.frontier.root(), states[0].uncommitted_root);
    // Genesis entries have a number and no time.
    let text = &network.texts("CONT-1")[0];
    assert!(text.ends_with(r#""txnMetadata":{"seqNo":1}}"#), "{text}");
    assert_eq!(TreeHash::root([text]), ledger.frontier.root());
}

#[test]
fn appended_entries_have_the_time_at_which_they_were_opened() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let entries = network.append(2, &["A"], &[r#"{"no":"1"}"#, r#"{"no":"2"}"#]);
    let proposal = network.propose(2, entries).unwrap();
    let time = time_text(proposal.at());
    network.wait(1_000);
    network.endorse(1, &proposal).unwrap();
    let texts = network.texts("A");
    for (number, text) in (1..).zip(&texts).skip(1) {
        let metadata = format!("\"txnMetadata\":{{\"seqNo\":{number},\"txnTime\":\"{time}\"}}}}");
        assert!(text.ends_with(&metadata), "{text}");
    }
    assert_eq!(
        network.book.ledger("A").unwrap().frontier.root(),
        TreeHash::root(&texts)
    );
}

#[test]
fn a_quorum_goes_on_without_the_missing_and_unanimity_does_not() {
    let mut network = Network::new();
    network.with_ledger("all", &ALL, UNANIMOUS);
    let quorum = network.create(1, "three", &ALL, Policy::AtLeast(3));
    let quorum = network.propose(1, quorum).unwrap();
    network.endorse(2, &quorum).unwrap();
    network.endorse(3, &quorum).unwrap();
    assert_eq!(network.fate(&quorum), "committed");
    assert_eq!(network.endorse(4, &quorum), Err(Code::Closed));

    let stuck = network.append(1, &["all"], &["{}"]);
    let stuck = network.propose(1, stuck).unwrap();
    network.endorse(2, &stuck).unwrap();
    network.endorse(4, &stuck).unwrap();
    let expiries = network.wait(TTL);
    assert_eq!(network.fate(&stuck), "expired");
    assert_eq!(
        expiries[0].outcome_of(&stuck.id()),
        Some(&Effect::Expired {
            proposal: stuck.id(),
            was_open: true,
            missing: {
                let mut missing = vec![did(3), did(5)];
                missing.sort();
                missing
            },
        })
    );
    assert_eq!(network.size("all"), 1);
}

#[test]
fn at_the_deadline_nothing_can_be_agreed_to_even_before_the_expiry() {
    let mut network = Network::new();
    let action = network.create(1, "A", &[1, 2], UNANIMOUS);
    let proposal = network.propose(1, action).unwrap();
    let agreed = network.agreed(&proposal);
    let deadline = proposal.propose().unwrap().deadline;
    let command = |body: &Body| {
        let request = Request::sign(network.id(), body, &key(2));
        network.prover.clone().prove(request).unwrap()
    };
    let endorsement = command(&Body::Endorse {
        member: did(2),
        proposal: proposal.id(),
        agreed,
    });
    let code = |at: BlockTime| {
        let decision = network.book.decide(&endorsement, at, &network.archive);
        decision.map(drop).map_err(|refusal| refusal.code)
    };
    assert_eq!(code(BlockTime(deadline.0 - 1)), Ok(()));
    assert_eq!(code(deadline), Err(Code::Expired));
    assert!(network.book.due(BlockTime(deadline.0 - 1), 1).is_none());
    assert_eq!(network.book.next_due(), Some(deadline));
    assert!(network.book.due(deadline, 1).is_some());
    assert!(network.book.due(deadline, 0).is_none());
}

/// 33
#[test]
fn a_name_that_is_taken_is_refused_and_the_ledger_stays_as_it_is() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let before = network.book.ledger("A").cloned();
    let again = network.create(3, "A", &[3, 4], UNANIMOUS);
    assert_eq!(network.propose(3, again), Err(Code::LedgerExists));
    // Nor by the same group, nor when another proposal is about to take it.
    let again = network.create(1, "A", &[1, 2], UNANIMOUS);
    assert_eq!(network.propose(1, again), Err(Code::LedgerExists));
    let first = network.create(1, "B", &[1, 2], UNANIMOUS);
    let first = network.propose(1, first).unwrap();
    let second = network.create(3, "B", &[3, 4], UNANIMOUS);
    assert_eq!(network.propose(3, second), Err(Code::LedgerExists));
    assert_eq!(network.book.ledger("A").cloned(), before);
    // A name is free again when the proposal for it came to nothing.
    network.withdraw(1, &first).unwrap();
    network.with_ledger("B", &[3, 4], UNANIMOUS);
}

/// 34
#[test]
fn other_genesis_entries_under_the_same_root_are_refused() {
    let mut network = Network::new();
    let shown = network.create(1, "A", &[1, 2], UNANIMOUS);
    let body = Body::Propose(Propose {
        member: did(1),
        request: "r".to_owned(),
        deadline: BlockTime(network.now + TTL),
        action: shown,
    });
    // The same root over something else, properly signed.
    let other = sign_entry(
        parse(r#"{"no":"other"}"#).as_object().unwrap().clone(),
        network.now / 1_000,
        &key(1),
        DEPTH_MAX,
    );
    let request = Request::sign(network.id(), &body, &key(1));
    let mut value = Value::parse(&request.text, DEPTH_MAX).unwrap();
    let Value::Object(outer) = &mut value else {
        panic!()
    };
    let Some(Value::Object(command)) = outer.get_mut("command") else {
        panic!()
    };
    let Some(Value::Object(action)) = command.get_mut("action") else {
        panic!()
    };
    action.insert("entries", Value::Array(vec![Value::Object(other.unwrap())]));
    let command = canon(outer.get("command").unwrap());
    let signed = [b"daybook/consortium/request/1\0", command.as_bytes()].concat();
    let signature = key(1).sign(&signed);
    use base64::Engine as _;
    let signature = base64::engine::general_purpose::URL_SAFE.encode(signature);
    outer.insert("signature", signature.into());
    let request = Request {
        text: canon(&value).into(),
    };
    assert_eq!(network.submit(request), Err(Code::WrongRoot));
    assert_eq!(network.book.pending_count(), 0);
}

/// 35
#[test]
fn only_participants_propose_and_the_group_is_the_ledgers_own() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2, 3], UNANIMOUS);
    let foreign = network.append(4, &["A"], &["{}"]);
    assert_eq!(network.propose(4, foreign), Err(Code::ForeignProposer));
    let unknown = network.append(1, &["nowhere"], &["{}"]);
    assert_eq!(network.propose(1, unknown), Err(Code::UnknownLedger));
    // A creation that leaves out its proposer, or names nobody, or a stranger, or somebody twice.
    for (members, code) in [
        (&[2, 3][..], Code::BadGroup),
        (&[1], Code::BadGroup),
        (&[1, 9], Code::UnknownMember),
        (&[1, 2, 2], Code::BadGroup),
    ] {
        let action = network.create(1, "B", members, UNANIMOUS);
        assert_eq!(network.propose(1, action), Err(code), "{members:?}");
    }
    for count in [0, 1, 4] {
        let action = network.create(1, "B", &[1, 2, 3], Policy::AtLeast(count));
        assert_eq!(network.propose(1, action), Err(Code::BadPolicy), "{count}");
    }
    // All participants of the ledger are asked, and nobody else.
    let entries = network.append(1, &["A"], &["{}"]);
    let proposal = network.propose(1, entries).unwrap();
    assert_eq!(network.endorse(4, &proposal), Err(Code::ForeignEndorser));
    assert_eq!(
        network.refuse(4, &proposal, "no"),
        Err(Code::ForeignEndorser)
    );
    network.endorse(2, &proposal).unwrap();
    assert_eq!(network.fate(&proposal), "open");
}

#[test]
fn the_participants_of_a_ledger_change_by_agreement_of_the_old_and_the_new_ones() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let regroup = |members: &[u8], policy| Action::Regroup {
        ledger: "A".to_owned(),
        participants: members.iter().map(|seed| did(*seed)).collect(),
        policy,
    };
    assert_eq!(
        network.propose(1, regroup(&[1, 2], UNANIMOUS)),
        Err(Code::NothingToDo)
    );
    assert_eq!(
        network.propose(3, regroup(&[1, 2, 3], UNANIMOUS)),
        Err(Code::ForeignProposer)
    );
    let proposal = network
        .propose(1, regroup(&[1, 2, 3], Policy::AtLeast(2)))
        .unwrap();
    network.endorse(3, &proposal).unwrap();
    assert_eq!(
        network.fate(&proposal),
        "open",
        "the old participants are not all there"
    );
    network.endorse(2, &proposal).unwrap();
    assert_eq!(network.fate(&proposal), "committed");
    assert_eq!(network.book.ledgers_of(did(3)).count(), 1);
    // From now on two are enough.
    let entries = network.append(3, &["A"], &["{}"]);
    let proposal = network.propose(3, entries).unwrap();
    network.endorse(1, &proposal).unwrap();
    assert_eq!(network.size("A"), 2);
    let leaving = network.propose(3, regroup(&[1, 2], UNANIMOUS)).unwrap();
    network.endorse(1, &leaving).unwrap();
    assert_eq!(network.book.ledgers_of(did(3)).count(), 0);
    assert!(verify_export(network.export("A").as_bytes(), &Keys::of(&network.book)).is_sound());
}

// --- Decisions --------------------------------------------------------------------------------------

/// 32
#[test]
fn forged_foreign_wrong_and_repeated_endorsements_are_refused() {
    let mut network = Network::new();
    let action = network.create(1, "A", &[1, 2, 3], UNANIMOUS);
    let proposal = network.propose(1, action).unwrap();
    let agreed = network.agreed(&proposal);
    let endorsement = |seed: u8, agreed| Body::Endorse {
        member: did(seed),
        proposal: proposal.id(),
        agreed,
    };
    // Signed with another member's key, which is sound by itself.
    assert_eq!(
        network.ask(&endorsement(2, agreed), &key(3)),
        Err(Code::ForeignKey)
    );
    // Signed by nobody, or changed after it was signed.
    let good = Request::sign(network.id(), &endorsement(2, agreed), &key(2));
    let text = std::str::from_utf8(&good.text).unwrap();
    let spoilt = text.replace(&did(2).to_string(), &did(3).to_string());
    assert_eq!(
        network.submit(Request {
            text: spoilt.into()
        }),
        Err(Code::BadSignature)
    );
    assert_eq!(
        network.ask(&endorsement(2, TreeHash([1; 32])), &key(2)),
        Err(Code::WrongRoot)
    );
    assert_eq!(network.endorse(4, &proposal), Err(Code::ForeignEndorser));
    assert_eq!(network.endorse(9, &proposal), Err(Code::UnknownMember));
    network.submit(good.clone()).unwrap();
    assert_eq!(network.submit(good.clone()), Err(Code::AlreadyEndorsed));
    assert_eq!(network.endorse(1, &proposal), Err(Code::AlreadyEndorsed));
    assert_eq!(
        network.endorse_as(2, proposal.id(), TreeHash([1; 32])),
        Err(Code::Equivocation)
    );
    assert_eq!(network.refuse(2, &proposal, "no"), Err(Code::Equivocation));
    assert_eq!(network.refuse(1, &proposal, "no"), Err(Code::Equivocation));
    network.endorse(3, &proposal).unwrap();
    assert_eq!(network.submit(good), Err(Code::Closed));
    let nowhere = TransactionId([7; 32]);
    assert_eq!(
        network.endorse_as(2, nowhere, agreed),
        Err(Code::UnknownProposal)
    );
    assert_eq!(network.size("A"), 1);
}

#[test]
fn a_refusal_that_leaves_too_few_ends_a_proposal_and_tells_why() {
    let mut network = Network::new();
    network.with_ledger("A", &ALL, Policy::AtLeast(3));
    network.with_ledger("B", &[1, 2], UNANIMOUS);
    let entries = network.append(1, &["B"], &["{}"]);
    let proposal = network.propose(1, entries).unwrap();
    assert_eq!(network.refuse(2, &proposal, ""), Err(Code::BadReason));
    let refusal = network.refuse(2, &proposal, "the seal is broken").unwrap();
    assert_eq!(network.fate(&proposal), "refused");
    let Body::Refuse { reason, .. } = refusal.command().unwrap().body() else {
        panic!("{refusal:?}");
    };
    assert_eq!(reason, "the seal is broken");

    // Three of five: two may refuse.
    let entries = network.append(1, &["A"], &["{}"]);
    let proposal = network.propose(1, entries).unwrap();
    network.refuse(2, &proposal, "no").unwrap();
    assert_eq!(
        network.refuse(2, &proposal, "no"),
        Err(Code::AlreadyRefused)
    );
    assert_eq!(network.endorse(2, &proposal), Err(Code::Equivocation));
    network.refuse(3, &proposal, "no").unwrap();
    assert_eq!(network.fate(&proposal), "open");
    let last = network.refuse(4, &proposal, "no").unwrap();
    let Some(Effect::Refused { by, .. }) = last.outcome_of(&proposal.id()) else {
        panic!("{last:?}");
    };
    assert_eq!(by.len(), 3);
    assert_eq!(network.size("A"), 1);
}

#[test]
fn only_its_proposer_withdraws_a_proposal() {
    let mut network = Network::new();
    let action = network.create(1, "A", &[1, 2], UNANIMOUS);
    let proposal = network.propose(1, action).unwrap();
    assert_eq!(network.withdraw(2, &proposal), Err(Code::NotTheProposer));
    network.withdraw(1, &proposal).unwrap();
    assert_eq!(network.fate(&proposal), "withdrawn");
    assert_eq!(network.withdraw(1, &proposal), Err(Code::Closed));
    assert_eq!(network.endorse(2, &proposal), Err(Code::Closed));
}

// --- Queues -----------------------------------------------------------------------------------------

#[test]
fn one_proposal_is_open_for_a_ledger_and_the_others_follow_in_order() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let mut proposals = Vec::new();
    for (seed, number) in [(1, "1"), (2, "2"), (1, "3")] {
        let entry = format!("{{\"no\":\"{number}\"}}");
        let action = network.append(seed, &["A"], &[&entry]);
        proposals.push(network.propose(seed, action).unwrap());
    }
    let fates = |network: &Network| -> Vec<_> {
        proposals
            .iter()
            .map(|proposal| network.fate(proposal))
            .collect()
    };
    assert_eq!(fates(&network), ["open", "waiting", "waiting"]);
    assert_eq!(proposals[2].effects(), [Effect::Queued { behind: 2 }]);
    assert_eq!(network.endorse(1, &proposals[1]), Err(Code::NotOpenYet));
    // What ends the first opens the second, by the same entry.
    let commit = network.endorse(2, &proposals[0]).unwrap();
    assert_eq!(fates(&network), ["committed", "open", "waiting"]);
    assert!(matches!(
        commit.effects(),
        [Effect::Committed { .. }, Effect::Opened { proposal: Some(id), .. }] if *id == proposals[1].id()
    ));
    network.refuse(1, &proposals[1], "twice").unwrap();
    assert_eq!(fates(&network), ["committed", "refused", "open"]);
    network.endorse(2, &proposals[2]).unwrap();
    assert_eq!(network.size("A"), 3);
    let texts = network.texts("A");
    assert!(texts[2].contains(r#""no":"3""#), "{texts:?}");
}

/// 36
#[test]
fn two_proposers_at_the_same_instant_are_both_served_in_one_order_a_hundred_times() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    for round in 0..100 {
        let entry = format!("{{\"no\":\"{round}\"}}");
        let (one, two) = (
            network.append(1, &["A"], &[&entry]),
            network.append(2, &["A"], &[&entry]),
        );
        let one = network.propose(1, one).unwrap();
        let two = network.propose(2, two).unwrap();
        network.endorse(2, &one).unwrap();
        network.endorse(1, &two).unwrap();
        assert_eq!(
            (network.fate(&one), network.fate(&two)),
            ("committed", "committed")
        );
    }
    assert_eq!(network.size("A"), 201);
}

/// 18
#[test]
fn several_ledgers_take_the_same_entries_or_none_does() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    network.with_ledger("B", &[1, 2, 3], Policy::AtLeast(2));
    network.with_ledger("C", &[1, 3], UNANIMOUS);
    let action = network.append(1, &["C", "A", "B"], &["{}", "{}"]);
    let proposal = network.propose(1, action).unwrap();
    network.endorse(2, &proposal).unwrap();
    assert_eq!(network.fate(&proposal), "open", "ledger C lacks member 3");
    let commit = network.endorse(3, &proposal).unwrap();
    let Some(Effect::Committed { states, .. }) = commit.outcome_of(&proposal.id()) else {
        panic!("{commit:?}");
    };
    let names: Vec<&str> = states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["A", "B", "C"]);
    assert!(["A", "B", "C"].iter().all(|name| network.size(name) == 3));
    for name in names {
        let file = network.export(name);
        let report = verify_export(file.as_bytes(), &Keys::of(&network.book));
        assert_eq!(report.findings, [], "{name}");
    }
    // A refusal in one ledger is one in all.
    let action = network.append(1, &["A", "B", "C"], &["{}"]);
    let proposal = network.propose(1, action).unwrap();
    network.endorse(2, &proposal).unwrap();
    network.refuse(3, &proposal, "no").unwrap();
    assert_eq!(network.fate(&proposal), "refused");
    assert!(["A", "B", "C"].iter().all(|name| network.size(name) == 3));
    // A proposer must take part in all of them.
    let action = network.append(2, &["A", "C"], &["{}"]);
    assert_eq!(network.propose(2, action), Err(Code::ForeignProposer));
    let action = network.append(1, &["A", "A"], &["{}"]);
    assert_eq!(network.propose(1, action), Err(Code::BadLedgerName));
}

/// 37
#[test]
fn a_commit_to_a_hundred_ledgers_with_one_busy_waits_for_it_and_changes_none() {
    let mut network = Network::new();
    let names: Vec<String> = (0..100).map(|number| format!("CONT-{number}")).collect();
    let create = Action::Create {
        ledgers: names.clone(),
        participants: vec![did(1), did(2)],
        policy: UNANIMOUS,
        batch: network.batch(1, &["{}"]),
    };
    let created = network.propose(1, create).unwrap();
    network.endorse(2, &created).unwrap();
    assert_eq!(network.book.ledgers().count(), 100);
    assert_eq!(&*network.book.ledgers().next().unwrap().name, "CONT-99");

    let busy = network.append(1, &["CONT-50"], &["{}"]);
    let busy = network.propose(1, busy).unwrap();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let action = network.append(2, &all, &["{}"]);
    let waiting = network.propose(2, action).unwrap();
    assert_eq!(network.fate(&waiting), "waiting");
    // A ledger that is free is blocked by who waits first, so that nobody waits for ever.
    let behind = network.append(1, &["CONT-1"], &["{}"]);
    let behind = network.propose(1, behind).unwrap();
    assert_eq!(network.fate(&behind), "waiting");
    network.wait(TTL);
    for proposal in [&busy, &waiting, &behind] {
        assert_eq!(network.fate(proposal), "expired");
    }
    assert!(all.iter().all(|name| network.size(name) == 1));
    // With the busy one done, the hundred are committed at once.
    let busy = network.append(1, &["CONT-50"], &["{}"]);
    let busy = network.propose(1, busy).unwrap();
    let action = network.append(2, &all, &["{}"]);
    let waiting = network.propose(2, action).unwrap();
    network.endorse(2, &busy).unwrap();
    assert_eq!(network.fate(&waiting), "open");
    network.endorse(1, &waiting).unwrap();
    assert_eq!(network.size("CONT-0"), 2);
    assert_eq!(network.size("CONT-50"), 3);
}

#[test]
fn what_waits_past_its_deadline_is_never_opened() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let mut proposals = Vec::new();
    for ttl in [1_000, 500, 5_000] {
        let action = network.append(1, &["A"], &["{}"]);
        let body = Body::Propose(Propose {
            member: did(1),
            request: format!("ttl-{ttl}"),
            deadline: BlockTime(network.now + ttl),
            action,
        });
        proposals.push(network.ask(&body, &key(1)).unwrap());
    }
    let expiries = network.wait(600);
    assert!(matches!(
        expiries[0].effects(),
        [Effect::Expired { was_open: false, missing, .. }] if missing.is_empty()
    ));
    let expiries = network.wait(500);
    assert!(matches!(
        expiries[0].effects(),
        [
            Effect::Expired { was_open: true, .. },
            Effect::Opened { .. }
        ]
    ));
    assert_eq!(network.fate(&proposals[2]), "open");
}

#[test]
fn a_queue_has_an_end() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    for _ in 0..QUEUE_MAX {
        let action = network.append(1, &["A"], &["{}"]);
        network.propose(1, action).unwrap();
    }
    let action = network.append(1, &["A"], &["{}"]);
    assert_eq!(network.propose(1, action), Err(Code::QueueFull));
}

// --- Requests ---------------------------------------------------------------------------------------

/// 20
#[test]
fn the_same_request_twice_is_one_proposal_before_and_after_its_end() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let action = network.append(1, &["A"], &[r#"{"no":"1"}"#]);
    let first = network.propose_as(1, "b7a1c0de", action).unwrap();
    network.wait(1_500);
    // Whoever asks again signs again, at another time and with another deadline.
    let again = network.append(1, &["A"], &[r#"{"no":"1"}"#]);
    assert_eq!(network.propose_as(1, "b7a1c0de", again).unwrap(), first);
    network.endorse(2, &first).unwrap();
    for _ in 0..5 {
        let again = network.append(1, &["A"], &[r#"{"no":"1"}"#]);
        assert_eq!(network.propose_as(1, "b7a1c0de", again).unwrap(), first);
        // Blocks pass, and the book forgets what history knows.
        let card = network.book.member(did(5)).unwrap().card.clone();
        let next = card.next(card.profile().clone(), &key(5));
        network
            .ask(&Body::Announce { card: next }, &key(5))
            .unwrap();
    }
    let other = network.append(1, &["A"], &[r#"{"no":"2"}"#]);
    assert_eq!(
        network.propose_as(1, "b7a1c0de", other),
        Err(Code::RequestReused)
    );
    let other = network.create(1, "B", &[1, 2], UNANIMOUS);
    assert_eq!(
        network.propose_as(1, "b7a1c0de", other),
        Err(Code::RequestReused)
    );
    // Another member may have chosen the same name.
    let own = network.append(2, &["A"], &[r#"{"no":"2"}"#]);
    assert!(network.propose_as(2, "b7a1c0de", own).is_ok());
    assert_eq!(network.size("A"), 2);
}

#[test]
fn requests_for_another_network_or_of_another_form_are_refused() {
    let mut network = Network::new();
    let body = Body::Withdraw {
        member: did(1),
        proposal: TransactionId([7; 32]),
    };
    let mut other = genesis();
    other.chain = "other".to_owned();
    let request = Request::sign(other.hash(), &body, &key(1));
    assert_eq!(network.submit(request), Err(Code::WrongNetwork));
    let good = Request::sign(network.id(), &body, &key(1));
    let good = std::str::from_utf8(&good.text).unwrap().to_owned();
    for bad in [
        "",
        "{}",
        "[]",
        "5",
        "null",
        r#"{"command":{},"signature":"","signer":""}"#,
        &good.replace("\"signer\"", "\"more\":1,\"signer\""),
        &good.replace("\"withdraw\"", "\"wish\""),
        &good.replace(
            "\"kind\":\"withdraw\",",
            "\"kind\":\"withdraw\",\"more\":1,",
        ),
        &good.replace(
            "\"kind\":\"withdraw\",",
            "\"kind\":\"withdraw\",\"kind\":\"withdraw\",",
        ),
        &good[..good.len() - 1],
    ] {
        let request = Request {
            text: bad.to_owned().into(),
        };
        assert_eq!(network.submit(request), Err(Code::Malformed), "{bad}");
    }
    let huge = Request {
        text: vec![b' '; REQUEST_BYTES_MAX + 1].into(),
    };
    assert_eq!(network.submit(huge), Err(Code::TooLarge));
    // Spaces and order do not matter: what is signed is the canonical text.
    let spaced = good.replace("\":", "\" : ").replace(",\"", ", \n\"");
    let spaced = Request {
        text: spaced.into(),
    };
    assert_eq!(network.submit(spaced), Err(Code::UnknownProposal));
}

#[test]
fn deadlines_are_ahead_and_not_too_far() {
    let mut network = Network::new();
    for (deadline, expected) in [
        (network.now, Err(Code::BadDeadline)),
        (
            network.now + 60_000 + DEADLINE_MS_DEFAULT,
            Err(Code::BadDeadline),
        ),
        (u64::MAX, Err(Code::BadDeadline)),
        (network.now + DEADLINE_MS_DEFAULT, Ok(())),
    ] {
        let body = Body::Propose(Propose {
            member: did(1),
            request: "r".to_owned(),
            deadline: BlockTime(deadline),
            action: network.create(1, "A", &[1, 2], UNANIMOUS),
        });
        assert_eq!(network.ask(&body, &key(1)).map(drop), expected);
    }
}

#[test]
fn entries_are_signed_by_their_proposer_and_now() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2], UNANIMOUS);
    let append = |entry: Object| Action::Append {
        ledgers: vec!["A".to_owned()],
        batch: Batch::new(&[entry]),
    };
    let bare = parse(r#"{"no":"1"}"#).as_object().unwrap().clone();
    let signed =
        |seconds: u64, seed: u8| sign_entry(bare.clone(), seconds, &key(seed), DEPTH_MAX).unwrap();
    let now = network.now / 1_000;
    let mut changed = signed(now, 1);
    changed.insert("no", Value::from("2"));
    for entry in [
        bare.clone(),
        changed,
        signed(now, 2),
        signed(now + CLOCK_AHEAD_MS_MAX / 1_000 + 60, 1),
        signed(now - CLOCK_BEHIND_MS_MAX / 1_000 - 60, 1),
        signed(u64::MAX, 1),
        signed(0, 1),
    ] {
        assert_eq!(
            network.propose(1, append(entry)),
            Err(Code::BadEntrySignature)
        );
    }
    assert!(network.propose(1, append(signed(now, 1))).is_ok());
}

/// 15 to 17
#[test]
fn a_strict_network_refuses_entries_that_are_no_documents() {
    let entry = |doc_type: &str| {
        format!(
            r#"{{"@type":"{}","@id":"1","no":"1","date":"01.03.26","cargo":"x","departure_station":"a",
                "arrival_station":"b","doc_type":"{doc_type}","ledger":{{"name":"A"}}}}"#,
            container::ISSUE_TRANSACTION
        )
    };
    for (documents, wish, nothing) in [
        (Documents::Strict, Err(Code::BadEntry), Err(Code::BadEntry)),
        (Documents::Compatible, Ok(()), Err(Code::BadEntry)),
        (Documents::Any, Ok(()), Ok(())),
    ] {
        for (text, expected) in [
            (entry("Wish"), wish),
            (r#"{"no":"1"}"#.to_owned(), nothing),
            (entry("\u{421}onnaissement"), Ok(())),
            (entry("Connaissement"), Ok(())),
        ] {
            let mut network = Network::with(Settings {
                documents,
                ..Settings::default()
            });
            let action = Action::Create {
                ledgers: vec!["A".to_owned()],
                participants: vec![did(1), did(2)],
                policy: UNANIMOUS,
                batch: network.batch(1, &[&text]),
            };
            assert_eq!(
                network.propose(1, action).map(drop),
                expected,
                "{documents:?} {text}"
            );
        }
    }
}

/// 19, 38
#[test]
fn a_ledger_may_have_any_name_of_up_to_512_characters() {
    let mut network = Network::new();
    let long = "я".repeat(LEDGER_NAME_CHARS_MAX);
    let names = [
        "test_x",
        "a\"b'c",
        "$(reboot)",
        "a;b",
        "a/b/../c",
        "a,b",
        "контейнер №7 \u{1f600}",
        "\u{0}\n",
        long.as_str(),
    ];
    for name in names {
        network.with_ledger(name, &[1, 2], UNANIMOUS);
        let entries = network.append(2, &[name], &["{}"]);
        let proposal = network.propose(2, entries).unwrap();
        network.endorse(1, &proposal).unwrap();
        assert_eq!(network.size(name), 2);
        let file = network.export(name);
        let report = verify_export(file.as_bytes(), &Keys::of(&network.book));
        assert_eq!((report.findings, report.ledger.as_str()), (vec![], name));
    }
    let restarted = Book::decode(&network.book.encode()).unwrap();
    assert_eq!(restarted.ledgers().count(), names.len());
    for bad in [String::new(), "я".repeat(LEDGER_NAME_CHARS_MAX + 1)] {
        let action = network.create(1, &bad, &[1, 2], UNANIMOUS);
        assert_eq!(network.propose(1, action), Err(Code::BadLedgerName));
    }
}

#[test]
fn a_proposal_has_bounds() {
    let mut network = Network::new();
    let create = |ledgers: Vec<String>, batch: Batch| Action::Create {
        ledgers,
        participants: vec![did(1), did(2)],
        policy: UNANIMOUS,
        batch,
    };
    let one = || vec!["A".to_owned()];
    let long = format!("{{\"no\":\"{}\"}}", "x".repeat(ENTRY_BYTES_MAX));
    let many = vec!["{}"; ENTRIES_PER_PROPOSAL_MAX + 1];
    let names = |count: usize| (0..count).map(|number| number.to_string()).collect();
    for (action, code) in [
        (create(one(), network.batch(1, &[&long])), Code::TooLarge),
        (create(one(), network.batch(1, &many)), Code::TooLarge),
        (create(one(), network.batch(1, &[])), Code::BadEntry),
        (
            create(
                names(LEDGERS_PER_PROPOSAL_MAX + 1),
                network.batch(1, &["{}"]),
            ),
            Code::TooLarge,
        ),
        (
            create(
                names(LEDGERS_PER_PROPOSAL_MAX),
                network.batch(
                    1,
                    &vec!["{}"; 1 + SEQUENCES_PER_PROPOSAL_MAX / LEDGERS_PER_PROPOSAL_MAX],
                ),
            ),
            Code::TooLarge,
        ),
        (
            create(Vec::new(), network.batch(1, &["{}"])),
            Code::BadLedgerName,
        ),
    ] {
        assert_eq!(network.propose(1, action), Err(code));
    }
    assert_eq!(network.book.pending_count(), 0);
}

// --- Evidence ---------------------------------------------------------------------------------------

/// 26
#[test]
fn an_exported_ledger_is_verified_by_the_file_and_the_keys_alone_and_any_change_is_found() {
    let mut network = Network::new();
    network.with_ledger("CONT-1", &[1, 2, 3], UNANIMOUS);
    for round in 0..3 {
        let entry = format!("{{\"no\":\"{round}\",\"cargo\":\"чай\"}}");
        let seed = 1 + round % 3;
        let action = network.append(seed, &["CONT-1"], &[&entry, "{}"]);
        let proposal = network.propose(seed, action).unwrap();
        for other in [1, 2, 3].into_iter().filter(|other| *other != seed) {
            network.endorse(other, &proposal).unwrap();
        }
    }
    let file = network.export("CONT-1");
    let keys = Keys::of(&network.book);
    let report = verify_export(file.as_bytes(), &keys);
    assert_eq!(report.findings, []);
    assert_eq!((report.size, report.agreements), (7, 4));
    assert_eq!(
        report.root,
        network
            .book
            .ledger("CONT-1")
            .unwrap()
            .frontier
            .root()
            .to_string()
    );
    assert_eq!(report.proposed.values().sum::<u64>(), 7);

    // A line less, twice, or elsewhere.
    let lines: Vec<&str> = file.lines().collect();
    for place in 0..lines.len() {
        let mut less = lines.clone();
        less.remove(place);
        let mut twice = lines.clone();
        twice.insert(place, lines[place]);
        let mut swapped = lines.clone();
        swapped.swap(place, (place + 1) % lines.len());
        for changed in [less, twice, swapped] {
            let changed = changed.join("\n") + "\n";
            assert!(
                !verify_export(changed.as_bytes(), &keys).is_sound(),
                "line {place}"
            );
        }
    }
    // A character changed: base64 and whole numbers of it show every one.
    for place in (0..file.len()).step_by(7) {
        let mut changed = file.clone().into_bytes();
        changed[place] = if changed[place] == b'1' { b'2' } else { b'1' };
        assert!(!verify_export(&changed, &keys).is_sound(), "byte {place}");
    }
    for end in [0, 1, file.len() / 2, file.len() - 1] {
        assert!(!verify_export(&file.as_bytes()[..end], &keys).is_sound());
    }
    // Other keys.
    let mut foreign = keys.clone();
    foreign
        .members
        .insert(did(2), BTreeSet::from([key(9).public_key()]));
    assert!(!verify_export(file.as_bytes(), &foreign).is_sound());
    assert!(!verify_export(file.as_bytes(), &Keys::default()).is_sound());
}

#[test]
fn an_export_without_enough_endorsements_is_found_out() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2, 3], UNANIMOUS);
    let file = network.export("A");
    let mut lines: Vec<Value> = file.lines().map(parse).collect();
    let last = lines.last_mut().unwrap();
    let Value::Object(line) = last else { panic!() };
    let Some(Value::Object(agreement)) = line.get_mut("agreement") else {
        panic!()
    };
    let Some(Value::Array(endorsements)) = agreement.get_mut("endorsements") else {
        panic!()
    };
    let dropped = endorsements.pop().unwrap();
    let text =
        |lines: &[Value]| -> String { lines.iter().map(|line| canon(line) + "\n").collect() };
    let report = verify_export(text(&lines).as_bytes(), &Keys::of(&network.book));
    assert_eq!(report.findings[0].code, "not_agreed");
    // Unless the one who is missing was removed.
    let text_of_missing = canon(&dropped).into();
    let missing = Command::from_stored(&Request {
        text: text_of_missing,
    });
    let mut keys = Keys::of(&network.book);
    keys.removed.insert(missing.unwrap().member().unwrap());
    assert!(verify_export(text(&lines).as_bytes(), &keys).is_sound());
}

/// 31
#[test]
fn replaying_the_entries_from_the_first_gives_the_same_book() {
    let mut network = Network::new();
    network.with_ledger("A", &ALL, Policy::AtLeast(3));
    for _ in 0..3 {
        let action = network.append(1, &["A"], &["{}"]);
        network.propose(1, action).unwrap();
    }
    network.wait(TTL);
    let mut replayed = Book::default();
    for (height, entry) in (1..).zip(&network.archive.all) {
        let read = Entry::read(entry.text().clone()).unwrap();
        replayed.record(&read, Height(height)).unwrap();
    }
    replayed.forget(Height(u64::MAX - 1));
    network.book.forget(Height(u64::MAX - 1));
    assert_eq!(replayed, network.book);
    assert_eq!(replayed.encode(), network.book.encode());
}

#[test]
fn an_entry_that_does_not_follow_changes_nothing() {
    let mut network = Network::new();
    let action = network.create(1, "A", &[1, 2], UNANIMOUS);
    let proposal = network.propose(1, action).unwrap();
    let before = network.book.clone();
    let mut other = Network::new();
    other.wait(60_000);
    let action = other.create(3, "A", &[3, 4], UNANIMOUS);
    let foreign = other.propose(3, action).unwrap();
    let later = other.endorse(4, &foreign).unwrap();
    let mut prover = Prover::new(&genesis());
    for entry in [&proposal, &foreign, &later] {
        assert!(
            network
                .book
                .verify(entry, &mut prover, &network.archive)
                .is_err()
        );
    }
    assert!(network.book.record(&later, Height(99)).is_err());
    assert_eq!(network.book, before);
    // Nor one whose signature was tampered with in the log.
    let text = std::str::from_utf8(later.text()).unwrap().to_owned();
    let tampered = text.replace("\"signature\":\"", "\"signature\":\"AAAA");
    assert!(Entry::read(tampered.into()).is_err());
}

#[test]
fn an_endorser_agrees_to_what_its_own_copy_comes_to_and_to_nothing_else() {
    let mut network = Network::new();
    let action = network.create(1, "A", &[1, 2, 3], UNANIMOUS);
    let proposal = network.propose(1, action).unwrap();
    let prover = network.prover.clone();
    let mut endorser = Endorser::new(did(2), EndorserRules::default(), prover.clone());
    let asked = network.book.asked(&proposal.id(), did(2)).unwrap();
    assert_eq!(network.book.questions(did(2)), std::slice::from_ref(&asked));
    assert_eq!(network.book.asked(&proposal.id(), did(1)), None);
    assert_eq!(endorser.judge(&asked, &network.book), Verdict::Endorse);

    // A question that was tampered with.
    let mut forged = asked.clone();
    forged.agreed = TreeHash([1; 32]);
    assert!(matches!(
        endorser.judge(&forged, &network.book),
        Verdict::Refuse(_)
    ));
    let mut forged = asked.clone();
    forged.states[0].uncommitted_size += 1;
    assert!(matches!(
        endorser.judge(&forged, &network.book),
        Verdict::Refuse(_)
    ));
    // Rules of its own.
    let strict = EndorserRules {
        groups: Some(vec![[did(1), did(2)].into()]),
        ..EndorserRules::default()
    };
    let mut strict = Endorser::new(did(2), strict, prover.clone());
    assert!(
        matches!(strict.judge(&asked, &network.book), Verdict::Refuse(reason) if reason.contains("group"))
    );
    let asking = EndorserRules {
        entries: Answer::Ask,
        ..EndorserRules::default()
    };
    let mut asking = Endorser::new(did(2), asking, prover.clone());
    assert_eq!(asking.judge(&asked, &network.book), Verdict::Ask);

    let request = endorser.endorse(&asked, &key(2));
    network.submit(request).unwrap();
    assert_eq!(network.book.questions(did(2)), []);
    let reason = "я".repeat(REASON_BYTES_MAX);
    let asked = network.book.asked(&proposal.id(), did(3)).unwrap();
    let third = Endorser::new(did(3), EndorserRules::default(), prover);
    network
        .submit(third.refuse(&asked, &reason, &key(3)))
        .unwrap();
    assert_eq!(network.fate(&proposal), "refused");
    // About members a person decides.
    let action = Action::Remove { subject: did(5) };
    let proposal = network.propose(1, action).unwrap();
    let asked = network.book.asked(&proposal.id(), did(2)).unwrap();
    assert_eq!(endorser.judge(&asked, &network.book), Verdict::Ask);
}

// --- Bytes ------------------------------------------------------------------------------------------

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
