//! Founding, admitting, changing and removing members.

use super::*;

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
