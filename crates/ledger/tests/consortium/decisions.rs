//! Endorsing, refusing and withdrawing.

use super::*;

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
