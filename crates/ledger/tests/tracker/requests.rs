//! Version 2 messages and idempotency.

use daybook_ledger::tracker::{Address, Proven, Request, command, draft};

use crate::{pair, tracker_common::*};

/// 46
#[test]
fn a_version_2_message_counts_once_for_its_command_tracker_and_time() {
    let mut world = World::new();
    let (alice, _, spend, _) = pair(&mut world);
    let send_as = |message: String, code: u64, correlation: &str| Request {
        correlation: correlation.into(),
        ..alice.request(code, message)
    };
    let get = draft::about_address(
        command::SPEND_STATE,
        &spend,
        &alice.pem,
        Some(&world.version2("q", 1)),
    );
    let as_query = world
        .prover
        .prove(send_as(get.clone(), command::SPEND_STATE, "q"));
    assert!(matches!(as_query, Ok(Proven::Query(_))));
    let as_close = send_as(get, command::CLOSE_SPEND, "q");
    assert_eq!(world.refused(as_close), "bad_message");
    let close = |world: &World, correlation, nonce| {
        let version = world.version2(correlation, nonce);
        draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&version))
    };
    let text = close(&world, "x", 1);
    let other_token = send_as(text.clone(), command::CLOSE_SPEND, "y");
    assert_eq!(world.refused(other_token), "bad_message");
    let mut elsewhere = world.version2("x", 1);
    elsewhere.tracker.0[0] ^= 1;
    let elsewhere =
        draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&elsewhere));
    let elsewhere = send_as(elsewhere, command::CLOSE_SPEND, "x");
    assert_eq!(world.refused(elsewhere), "bad_message");
    // Six minutes old, and six minutes ahead.
    world.wait(360_000);
    let old = send_as(text, command::CLOSE_SPEND, "x");
    assert_eq!(world.refused(old), "stale");
    let mut ahead = world.version2("x", 1);
    ahead.time_ms += 300_001;
    let ahead = draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&ahead));
    assert_eq!(
        world.refused(send_as(ahead, command::CLOSE_SPEND, "x")),
        "stale"
    );
    // A nonce counts once, for ten minutes.
    let open = |world: &World, correlation, nonce| {
        let version = world.version2(correlation, nonce);
        let text = draft::bare(command::OPEN_INCOME, &alice.pem, Some(&version));
        send_as(text, command::OPEN_INCOME, correlation)
    };
    let request = open(&world, "n1", 7);
    world.send(request).unwrap();
    let request = open(&world, "n2", 7);
    assert_eq!(world.refused(request), "replayed");
    world.wait(600_001);
    let request = open(&world, "n2", 7);
    world.send(request).unwrap();
}

/// 47
#[test]
fn an_idempotent_request_gets_its_first_answer_for_a_day() {
    let mut world = World::new();
    let alice = Peer::ed25519(1);
    let request = Request {
        idempotent: true,
        correlation: "open-7".into(),
        ..alice.request(command::OPEN_SPEND, &*alice.pem)
    };
    let first = world.send(request.clone()).unwrap();
    for _ in 0..4 {
        assert_eq!(world.send(request.clone()).unwrap(), first);
        world.wait(10);
    }
    assert_eq!(world.book.wallet(), 90_000, "no second grant");
    let other = Request {
        command: command::OPEN_INCOME,
        ..request.clone()
    };
    assert_eq!(world.refused(other), "corr_token_reuse");
    let legacy = Request {
        idempotent: false,
        ..request.clone()
    };
    assert_ne!(
        world.send(legacy).unwrap(),
        first,
        "legacy tokens mean nothing"
    );
    let bob = Peer::ed25519(2);
    let of_bob = Request {
        correlation: "open-7".into(),
        idempotent: true,
        ..bob.request(command::OPEN_SPEND, &*bob.pem)
    };
    world.send(of_bob).expect("tokens are each key's own");
    world.wait(24 * 3_600_000 - 40);
    assert_eq!(world.send(request.clone()).unwrap(), first);
    world.wait(1);
    assert_ne!(world.send(request).unwrap(), first);
}

#[test]
fn a_version_2_command_sent_again_is_answered_again_even_when_it_is_old() {
    let mut world = World::new();
    let alice = Peer::ed25519(1);
    let spend = world.spend(&alice);
    let version = world.version2("close", 3);
    let text = draft::about_address(command::CLOSE_SPEND, &spend, &alice.pem, Some(&version));
    let request = Request {
        correlation: "close".into(),
        ..alice.request(command::CLOSE_SPEND, text)
    };
    let first = world.send(request.clone()).unwrap();
    world.wait(3_600_000);
    assert_eq!(world.send(request).unwrap(), first);
}

#[test]
fn a_strict_tracker_takes_replayable_commands_in_version_2_only() {
    let mut world = World::with(|settings| settings.strict_v2 = true);
    let alice = Peer::ed25519(1);
    let open = alice.request(command::OPEN_SPEND, &*alice.pem);
    assert_eq!(world.refused(open), "bad_message");
    let version = world.version2("1", 1);
    let text = draft::bare(command::OPEN_SPEND, &alice.pem, Some(&version));
    let answer = world
        .send(alice.request(command::OPEN_SPEND, text))
        .unwrap();
    let spend = Address::parse(text_of(&answer)).unwrap();
    let close = close_address(&spend, &alice);
    assert_eq!(world.refused(close), "bad_message");
}

fn text_of(answer: &daybook_ledger::json::Value) -> &str {
    text(answer, &["address"])
}
