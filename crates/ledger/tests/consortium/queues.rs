//! Proposals that wait for each other.

use super::*;

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
    let mut network = Network::unfounded();
    let members: Vec<u8> = (1..=QUEUE_SHARES as u8 + 1).collect();
    let body = Body::Found {
        members: members.iter().copied().map(card).collect(),
        settings: Settings {
            documents: Documents::Any,
            ..Settings::default()
        },
    };
    network.ask(&body, &validator()).unwrap();
    network.with_ledger("A", &members, UNANIMOUS);
    for seed in &members[1..] {
        for _ in 0..QUEUE_MAX / QUEUE_SHARES {
            let action = network.append(*seed, &["A"], &["{}"]);
            network.propose(*seed, action).unwrap();
        }
    }
    let action = network.append(1, &["A"], &["{}"]);
    assert_eq!(network.propose(1, action), Err(Code::QueueFull));
}

#[test]
fn one_member_cannot_fill_a_queue_and_keep_the_others_out() {
    let mut network = Network::new();
    network.with_ledger("A", &[1, 2, 3], Policy::AtLeast(2));
    network.with_ledger("B", &[1, 2], UNANIMOUS);
    for _ in 0..QUEUE_MAX / QUEUE_SHARES {
        let action = network.append(1, &["A"], &["{}"]);
        network.propose(1, action).unwrap();
    }
    let action = network.append(1, &["A"], &["{}"]);
    assert_eq!(network.propose(1, action), Err(Code::QueueFull));
    let action = network.append(1, &["A", "B"], &["{}"]);
    assert_eq!(network.propose(1, action), Err(Code::QueueFull));
    for seed in [2, 3] {
        let action = network.append(seed, &["A"], &["{}"]);
        network.propose(seed, action).unwrap();
    }
    let action = network.append(1, &["B"], &["{}"]);
    network.propose(1, action).unwrap();
}
