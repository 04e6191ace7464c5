//! Receipts: payer and payee between the opening and the close (wallet tracker, section 11).
#![allow(clippy::unwrap_used)]

use daybook_ledger::tracker::{
    Address, AddressKind, Agreement, Payee, Payer, Settled, Stop, Suites, command,
};

mod tracker_common;
use tracker_common::*;

const SEGMENT: u64 = 10_000_000;

fn agreement(alice: &Peer, bob: &Peer, planned: u64) -> Agreement {
    let spend = Address::channel_end(AddressKind::Spend, "T", &alice.pem, 1);
    Agreement {
        contract: contract("c1", &spend, &Address::common(&bob.pem), planned),
        from_pk: alice.pem.clone(),
        to_pk: bob.pem.clone(),
        tracker: None,
    }
}

fn sides(planned: u64) -> (Peer, Peer, Payer, Payee) {
    let (alice, bob) = (Peer::ed25519(1), Peer::ed25519(2));
    let agreement = agreement(&alice, &bob, planned);
    let read = Agreement::read(&agreement.open_text()).unwrap();
    assert_eq!(read, agreement, "the payee reads what the payer wrote");
    let payer = Payer::new(agreement);
    let payee = Payee::new(read, Suites::default(), SEGMENT).unwrap();
    (alice, bob, payer, payee)
}

#[test]
fn a_payee_serves_one_segment_on_credit_and_the_next_against_a_receipt() {
    let (alice, _, mut payer, mut payee) = sides(1);
    let mut served = 0;
    for _ in 0..3 {
        payee.may_serve(SEGMENT).unwrap();
        payee.serve(SEGMENT);
        served += SEGMENT;
        assert_eq!(payee.may_serve(1), Err(Stop::Unpaid));
        let (settled, text) = payer.receipt(served).unwrap();
        assert_eq!(settled, settled_at(served));
        assert_eq!(payee.accept(&text, &alice.sign(&text)), Ok(settled));
    }
    // 30 of 33.5 million bytes: another whole segment is beyond the plan.
    assert_eq!(payee.may_serve(SEGMENT), Err(Stop::Full));
    payee.may_serve(3_000_000).unwrap();
    assert_eq!(payer.receipt(40_000_000), Err(Stop::Full));
    assert_eq!(payer.receipt(1), Err(Stop::Backwards));
    assert_eq!(payee.last().unwrap().settled, settled_at(served));
}

fn settled_at(volume: u64) -> Settled {
    settled(volume.div_ceil(1 << 25), volume)
}

#[test]
fn a_bad_receipt_is_refused_and_the_last_good_one_stays() {
    let (alice, bob, mut payer, mut payee) = sides(8);
    payee.serve(5);
    let (_, first) = payer.receipt(5).unwrap();
    payee.accept(&first, &alice.sign(&first)).unwrap();
    payee.serve(5);
    let good = payee.agreement().clone();
    let mut refused = |text: String, sign: String| {
        let stop = payee.accept(&text, &sign).unwrap_err();
        assert_eq!(payee.last().unwrap().text, first);
        stop
    };
    let signed = |text: &str| (text.to_owned(), alice.sign(text));
    let mut offer = |settled: Settled| {
        let (text, sign) = signed(&good.close_text(&settled));
        refused(text, sign)
    };
    assert_eq!(offer(settled(1, 9)), Stop::OtherVolume);
    assert_eq!(offer(settled(0, 0)), Stop::Backwards);
    assert_eq!(offer(settled(9, 10)), Stop::Inconsistent);
    assert_eq!(
        offer(Settled {
            tokens: 499,
            ..settled(1, 10)
        }),
        Stop::Inconsistent
    );
    assert_eq!(offer(settled(1, (1 << 25) + 1)), Stop::Inconsistent);
    let mut other = good.clone();
    other.contract.price.amount = 499;
    let (text, sign) = signed(&other.close_text(&Settled {
        tokens: 499,
        ..settled(1, 10)
    }));
    assert_eq!(refused(text, sign), Stop::OtherContract);
    let text = good.close_text(&settled(1, 10));
    let sign = bob.sign(&text);
    assert_eq!(refused(text.clone(), sign), Stop::Unsigned);
    assert_eq!(refused("{}".into(), String::new()), Stop::OtherContract);
    assert_eq!(
        refused(good.open_text(), String::new()),
        Stop::OtherContract
    );
    payee.accept(&text, &alice.sign(&text)).unwrap();
}

#[test]
fn a_payee_goes_on_after_a_restart_with_its_last_good_receipt() {
    let (alice, bob, mut payer, mut payee) = sides(8);
    payee.serve(7);
    let (settled, text) = payer.receipt(7).unwrap();
    let sign = alice.sign(&text);
    payee.accept(&text, &sign).unwrap();
    let agreement = payee.agreement().clone();
    let fresh = || Payee::new(agreement.clone(), Suites::default(), SEGMENT).unwrap();
    let resumed = fresh()
        .resume(9, Some((text.clone(), sign.clone())))
        .unwrap();
    assert_eq!(resumed.last(), payee.last());
    assert_eq!(resumed.served(), 9);
    assert!(fresh().resume(6, Some((text.clone(), sign))).is_err());
    assert!(fresh().resume(9, Some((text, bob.sign("x")))).is_err());
    let payer = Payer::resume(agreement, settled);
    assert_eq!(payer.last().volume, 7);
    assert_eq!(Agreement::settle_by(100_000, 1_000, 0), 90_000);
    assert_eq!(Agreement::settle_by(100_000, 5_000, 0), 85_000);
    assert_eq!(Agreement::settle_by(100_000, 0, 20_000), 80_000);
}

#[test]
fn the_last_receipt_with_the_payees_signature_closes_the_channel() {
    let mut world = World::new();
    let (alice, bob) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = (world.spend(&alice), world.income(&bob));
    let agreement = Agreement {
        contract: contract("c1", &spend, &income, 8),
        from_pk: alice.pem.clone(),
        to_pk: bob.pem.clone(),
        tracker: Some(world.tracker_id()),
    };
    let open = cosigned(command::OPEN_TRANSFER, agreement.open_text(), &alice, &bob);
    world.send(open).unwrap();
    let mut payer = Payer::new(agreement.clone());
    let mut payee = Payee::new(agreement, Suites::default(), SEGMENT).unwrap();
    for volume in [10_000_000, 20_000_000, 40_000_000] {
        payee.serve(volume - payee.served());
        let (_, text) = payer.receipt(volume).unwrap();
        payee.accept(&text, &alice.sign(&text)).unwrap();
    }
    let last = payee.last().unwrap();
    // Signed as a close, it may be deposited first.
    for code in [command::PARK, command::CLOSE_TRANSFER] {
        let request = cosigned(code, &*last.text, &alice, &bob);
        world.send(request).unwrap();
    }
    let state = world.state(&income).unwrap();
    assert_eq!((state.amount, state.volume), (1_000, 40_000_000));
}
