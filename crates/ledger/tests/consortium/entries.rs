//! Creating ledgers and appending to them.

use super::*;

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
