//! What a request must be, and what bounds it.

use super::*;

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
    // With its signature, which holds what was signed, it is twice as long and more.
    let large = format!("{{\"no\":\"{}\"}}", "x".repeat(ENTRY_BYTES_MAX / 3));
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
            create(
                names(LEDGERS_PER_PROPOSAL_MAX),
                network.batch(1, &[&large, &large]),
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
