//! Exports, replays and endorsers that work things out again.

use super::*;

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
