//! Idempotency and restarts (items 41 and 47, section 17.5).

use serde_json::{Value, json};

use crate::{
    MINUTE, addresses,
    house::{Change, House, Peer, contract, cosigned},
};

// Item 47.
#[test]
fn a_repeated_request_has_the_same_bytes_after_a_restart_and_no_second_effect() {
    for peer in [Peer::ed25519(1), Peer::rsa()] {
        let house = House::open();
        let frame = json!({"cmd": 4, "corrToken": "once", "idem": true, "payload": peer.bare()});
        let frame = frame.to_string();
        let mut client = house.connect();
        client.send(&frame);
        let first = client.text();
        assert!(
            first.contains("0x0c") && !first.contains("exData"),
            "{first}"
        );
        client.send(&frame);
        assert_eq!(client.text(), first);
        let house = house.restart();
        let mut client = house.connect();
        client.send(&frame);
        assert_eq!(client.text(), first);
        assert_eq!(house.wallet(), 90_000);
        // The same token for another payload.
        let other: Value =
            json!({"cmd": 2, "corrToken": "once", "idem": true, "payload": peer.bare()});
        client.send(&other.to_string());
        assert_eq!(client.reply()["code"], "corr_token_reuse");
    }
}

// Item 47, at the bounds of a network.
#[test]
fn a_reply_that_was_lost_is_given_again_to_a_network_that_has_all_it_may_have() {
    let house = House::with(Change {
        gateway: |tracker| {
            tracker.limits.exempt_loopback = false;
            tracker.limits.open_spends_per_network = 1;
        },
        ..Change::default()
    });
    let mut client = house.connect();
    let peer = Peer::rsa();
    let open = |token: &str, idem: bool| {
        json!({"cmd": 4, "corrToken": token, "idem": idem, "payload": peer.bare()}).to_string()
    };
    client.send(&open("once", true));
    let first = client.text();
    assert!(first.contains("0x0c"), "{first}");
    client.send(&open("once", true));
    assert_eq!(client.text(), first);
    // Another one is too much, and so is what only looks like a repetition.
    for frame in [
        open("twice", true),
        open("twice", false),
        open("once", false),
    ] {
        client.send(&frame);
        assert_eq!(client.reply()["code"], "rate_limited");
    }
    assert_eq!(house.wallet(), 90_000);
}

// Item 41, without the kill.
#[test]
fn a_restart_keeps_keys_and_state_and_applies_what_fell_due() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::ed25519(2));
    let pem = client.told(1, &payer.bare());
    let (spend, income) = addresses(&mut client, &payer, &payee);
    client.told(
        8,
        &cosigned(&payer, &payee, contract("c", &spend, &income, 8)),
    );
    let house = house.restart();
    let mut client = house.connect();
    assert_eq!(client.told(1, &payer.bare()), pem);
    let state = client.told(256, &payer.about(json!({"address": spend})));
    assert_eq!(state["limit"]["amount"], "6000");
    house.pass(31 * MINUTE);
    assert_eq!(
        client.refused(256, &payer.about(json!({"address": spend}))),
        "expired"
    );
    let house = house.restart();
    let mut client = house.connect();
    assert_eq!(
        client.told(512, &payer.about(json!({"channelId": "c"})))["state"],
        4
    );
    assert_eq!(house.wallet(), 100_000);
}
