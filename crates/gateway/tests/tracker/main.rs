//! The wallet tracker over real sockets. Names follow the conformance checklist of the protocol
//! (wallet tracker, section 18) where a test stands for one of its items.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod house;
mod listing;
mod privacy;
mod push;
mod replay;

use daybook_gateway::Rate;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use house::{Change, House, Peer, START_MS, check, contract, cosigned, settled, verify};

const MINUTE: u64 = 60_000;

/// A spend address of `payer` and an income address of `payee`.
fn addresses(client: &mut house::Client, payer: &Peer, payee: &Peer) -> (String, String) {
    let spend = client.told(4, &payer.bare());
    let income = client.told(2, &payee.bare());
    let address = |state: &Value| state["address"].as_str().unwrap().to_owned();
    (address(&spend), address(&income))
}

// Item 1.
#[test]
fn a_handshake_succeeds_with_and_without_a_final_newline() {
    let house = House::open();
    let mut client = house.connect();
    let mut peer = Peer::rsa();
    assert!(!peer.pem.ends_with('\n'));
    let message = client.told(1, &peer.bare());
    peer.pem.push('\n');
    assert_eq!(client.told(1, &peer.bare()), message);
}

// Items 2, 45 in part, and section 4.4.
#[test]
fn a_handshake_is_answered_with_the_key_of_the_same_suite() {
    let house = House::open();
    let mut client = house.connect();
    let (_, info) = house.get("/api/v1/tracker");
    for (peer, place) in [(Peer::rsa(), 0), (Peer::ed25519(1), 1)] {
        let reply = client.ask(1, &peer.bare());
        let pem = reply["data"]["message"].as_str().unwrap();
        assert_eq!(info["keys"][place]["pk"], pem);
        verify(pem, &reply["data"]);
    }
    assert_eq!(info["pem"], info["keys"][0]["pk"]);
}

// Item 4.
#[test]
fn a_message_that_was_written_anew_after_signing_is_refused() {
    let house = House::open();
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    let mut payload = peer.about(json!({"channelId": "c"}));
    assert_eq!(client.told(512, &payload)["state"], 1);
    let message = payload["message"].as_str().unwrap();
    let (head, tail) = message
        .trim_matches(['{', '}'])
        .split_once(",\"pk\"")
        .unwrap();
    payload["message"] = format!("{{\"pk\"{tail},{head}}}").into();
    assert_eq!(client.refused(512, &payload), "bad_signature");
}

// Item 5.
#[test]
fn a_message_about_another_key_is_refused() {
    let house = House::open();
    let mut client = house.connect();
    let (peer, other) = (Peer::ed25519(1), Peer::ed25519(2));
    for command in [1, 2, 4] {
        assert_eq!(
            client.refused(command, &peer.payload(&other.pem)),
            "bad_message"
        );
    }
    let message = json!({"channelId": "c", "pk": other.pem}).to_string();
    assert_eq!(client.refused(512, &peer.payload(&message)), "key_mismatch");
}

// Item 6.
#[test]
fn every_reply_echoes_its_token_byte_for_byte() {
    let house = House::open();
    let mut client = house.connect();
    let payload = Peer::ed25519(1).bare();
    let long = "я".repeat(512);
    for token in ["", "1", &long, "😀\u{0}\"\\\n\u{7f}"] {
        for command in [1, 3, 512] {
            let frame = json!({"cmd": command, "corrToken": token, "payload": payload});
            client.send(&frame.to_string());
            assert_eq!(client.reply()["corrToken"], token);
        }
    }
    client.send(&json!({"cmd": 1, "payload": payload}).to_string());
    assert_eq!(client.reply()["corrToken"], "");
}

// Item 7.
#[test]
fn what_is_no_json_comes_back_and_the_connection_stays() {
    let house = House::open();
    let mut client = house.connect();
    client.send("nonsense");
    let reply = client.reply();
    assert_eq!(
        (&reply["corrToken"], &reply["data"], &reply["code"]),
        (&json!(""), &json!("nonsense"), &json!("bad_json"))
    );
    assert!(
        reply["error"]
            .as_str()
            .unwrap()
            .starts_with("invalid message: ")
    );
    assert!(client.told(1, &Peer::ed25519(1).bare()).is_string());
}

// Item 8.
#[test]
fn an_unknown_command_is_named_in_its_error() {
    let house = House::open();
    let mut client = house.connect();
    client.send(r#"{"cmd":3,"corrToken":"x","payload":{}}"#);
    let reply = client.reply();
    assert_eq!(reply["error"], "invalid message command: 3");
    assert_eq!(
        (&reply["corrToken"], &reply["data"]),
        (&json!("x"), &json!("x"))
    );
    assert_eq!(
        (&reply["cmd"], &reply["code"]),
        (&json!(3), &json!("bad_command"))
    );
}

// Items 9 and 16.
#[test]
fn replies_carry_command_message_signature_and_times_that_never_fall() {
    let house = House::open();
    let mut client = house.connect();
    let peer = Peer::rsa();
    let pem = client.told(1, &peer.bare());
    let pem = pem.as_str().unwrap();
    let opened = client.ask(4, &peer.bare());
    let state: Value = serde_json::from_str(opened["data"]["message"].as_str().unwrap()).unwrap();
    let asked = client.ask(256, &peer.about(json!({"address": state["address"]})));
    for (command, reply) in [(4, opened), (256, asked)] {
        assert_eq!(reply["cmd"], command);
        verify(pem, &reply["data"]);
        let times = &reply["exData"];
        let time = |name: &str| times[name].as_u64().unwrap();
        assert!(time("beforeCreate") > START_MS * 1_000_000);
        assert!(time("beforeCreate") <= time("created") && time("created") <= time("handled"));
        let message: Value =
            serde_json::from_str(reply["data"]["message"].as_str().unwrap()).unwrap();
        assert_eq!(message["pk"], pem);
        // Blocks in one millisecond of the clock are a millisecond apart.
        let lock = message["timelock"].as_u64().unwrap();
        assert!(
            (0..1_000).contains(&(lock - house.now() - 30 * MINUTE)),
            "{lock}"
        );
        assert_eq!(message.get("lifetime").is_some(), command == 4);
    }
}

// Item 10, and the whole way of section 8.
#[test]
fn a_channel_opens_pays_and_closes_over_the_wire() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee) = (Peer::rsa(), Peer::ed25519(2));
    let (spend, income) = addresses(&mut client, &payer, &payee);
    assert!(spend.starts_with("0x0c") && income.starts_with("0x0d"));
    let terms = contract("first", &spend, &income, 8);
    let opened = client.told(8, &cosigned(&payer, &payee, terms.clone()));
    assert_eq!(opened["lifetime"], 5 * MINUTE);
    let about = |peer: &Peer, address: &str| peer.about(json!({"address": address}));
    assert_eq!(
        client.told(256, &about(&payee, &spend))["limit"]["amount"],
        "6000"
    );
    let receipt = cosigned(&payer, &payee, settled(terms, 3, 100_000_000));
    assert_eq!(client.told(16, &receipt).as_object().unwrap().len(), 1);
    let state = client.told(256, &about(&payer, &spend));
    assert_eq!(
        state["current"],
        json!({"amount": "8500", "quantumVolume": 100_663_296, "volume": 100_000_000})
    );
    assert_eq!(
        client.told(128, &about(&payer, &income))["current"]["amount"],
        "1500"
    );
    let channel = payer.about(json!({"channelId": "first"}));
    assert_eq!(client.told(512, &channel)["state"], 4);
    assert_eq!(client.refused(64, &about(&payee, &spend)), "not_owner");
    assert_eq!(client.refused(32, &about(&payer, &spend)), "bad_address");
    assert_eq!(
        client.told(64, &about(&payer, &spend))["state"]["amount"],
        "8500"
    );
    assert_eq!(
        client.told(32, &about(&payee, &income))["state"]["amount"],
        "1500"
    );
    assert_eq!(
        client.refused(256, &about(&payer, &spend)),
        "already_closed"
    );
    assert_eq!(house.wallet(), 100_000);
}

// Item 45.
#[test]
fn payer_and_payee_may_have_keys_of_different_suites() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::rsa());
    let pem = client.told(1, &payee.bare());
    let (spend, income) = addresses(&mut client, &payer, &payee);
    let terms = contract("mixed", &spend, &income, 2);
    let opened = client.ask(8, &cosigned(&payer, &payee, terms.clone()));
    verify(pem.as_str().unwrap(), &opened["data"]);
    client.told(16, &cosigned(&payer, &payee, settled(terms, 2, 1)));
}

// Item 30 as a client sees it, and items 31 and 23 in part.
#[test]
fn what_is_past_its_lock_is_told_as_closed_at_once() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = addresses(&mut client, &payer, &payee);
    let terms = contract("late", &spend, &income, 8);
    client.told(8, &cosigned(&payer, &payee, terms.clone()));
    house.pass(5 * MINUTE + 100);
    assert_eq!(
        client.told(512, &payer.about(json!({"channelId": "late"})))["state"],
        4
    );
    let state = client.told(256, &payer.about(json!({"address": spend})));
    assert_eq!(state["limit"]["amount"], "10000");
    let late = cosigned(&payer, &payee, settled(terms, 1, 1));
    assert_eq!(client.refused(16, &late), "expired");
}

// Item 44.
#[test]
fn a_request_whose_connection_is_gone_still_happens_once() {
    let house = House::open();
    let peer = Peer::ed25519(1);
    let before = house.sequence();
    for path in ["/", "/ws", "/tracker"] {
        let mut client = house.connect_to(path);
        client.send(&json!({"cmd": 2, "corrToken": "lost", "payload": peer.bare()}).to_string());
        // The node reads a frame before it hears of the end that follows it.
        drop(client);
    }
    house.recorded(before + 3);
    let listed = house.connect().told(1024, &peer.about(json!({})));
    assert_eq!(listed["_meta"]["totalCount"], 3);
}

// Item 42.
#[test]
fn a_thousand_connections_cannot_promise_more_than_an_address_has() {
    let house = House::with(Change {
        book: |book| book.open_transfers_max = 10_000,
        ..Change::default()
    });
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = addresses(&mut client, &payer, &payee);
    let mut clients: Vec<_> = (0..1_000).map(|_| house.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let terms = contract(&format!("c{number}"), &spend, &income, 1);
        let payload = cosigned(&payer, &payee, terms);
        client.send(&json!({"cmd": 8, "corrToken": "", "payload": payload}).to_string());
    }
    let opened = clients
        .iter_mut()
        .map(|client| client.reply())
        .filter(|reply| match reply.get("code") {
            None => true,
            Some(code) => {
                assert_eq!(code, "insufficient_limit");
                false
            }
        })
        .count();
    assert_eq!(opened, 20);
    let state = client.told(256, &payer.about(json!({"address": spend})));
    assert_eq!(state["limit"]["amount"], "0");
}

#[test]
fn a_binary_frame_closes_with_1003_and_a_long_one_with_1009() {
    let house = House::open();
    let mut client = house.connect();
    client.socket.send(Message::binary(vec![1])).unwrap();
    assert_eq!(client.close_code(), 1003);
    let mut client = house.connect();
    let _ = client
        .socket
        .send(Message::text("x".repeat((64 << 10) + 1)));
    assert_eq!(client.close_code(), 1009);
    let mut client = house.connect();
    client.send(&"x".repeat(64 << 10));
    assert_eq!(client.reply()["data"].as_str().unwrap().len(), 4_096);
}

#[test]
fn the_front_page_is_still_there_without_an_upgrade() {
    let house = House::open();
    assert_eq!(house.get("/").1["software"], "Planetmint");
    let (status, info) = house.get("/api/v1/tracker");
    assert_eq!(
        (status, &info["wallet"], &info["held"]),
        (200, &json!("100000"), &json!("100000"))
    );
    assert_eq!(info["prices"]["incomeMin"]["amount"], "500");
}

#[test]
fn capabilities_need_no_signature_and_have_one() {
    let house = House::open();
    let mut client = house.connect();
    client.send(r#"{"cmd":65536,"corrToken":"c","payload":{"v":[1,2]}}"#);
    let reply = client.reply();
    let told: Value = serde_json::from_str(reply["data"]["message"].as_str().unwrap()).unwrap();
    verify(told["keys"][0]["pk"].as_str().unwrap(), &reply["data"]);
    assert_eq!(told["v"], 2);
    assert_eq!(told["keys"][1]["suite"], "ed25519");
    assert_eq!(told["limits"]["frame"], 65_536);
}

#[test]
fn too_many_frames_are_refused_and_the_connection_stays() {
    let house = House::with(Change {
        gateway: |tracker| {
            tracker.limits.frames = Some(Rate {
                per_second: 0.001,
                burst: 3.0,
            });
        },
        ..Change::default()
    });
    let mut client = house.connect();
    let payload = Peer::ed25519(1).bare();
    for _ in 0..3 {
        client.told(1, &payload);
    }
    assert_eq!(client.refused(1, &payload), "rate_limited");
    assert_eq!(client.refused(65_536, &Value::Null), "rate_limited");
    assert!(house.connect().told(1, &payload).is_string());
}

#[test]
fn one_network_opens_so_many_addresses_and_no_more() {
    let house = House::with(Change {
        gateway: |tracker| {
            tracker.limits.exempt_loopback = false;
            tracker.limits.open_spends_per_network = 2;
            tracker.limits.opens = Some(Rate {
                per_second: 0.001,
                burst: 6.0,
            });
        },
        ..Change::default()
    });
    let mut client = house.connect();
    let peers: Vec<Peer> = (1..5).map(Peer::ed25519).collect();
    let first = client.told(4, &peers[0].bare());
    client.told(4, &peers[1].bare());
    assert_eq!(client.refused(4, &peers[2].bare()), "rate_limited");
    client.told(64, &peers[0].about(json!({"address": first["address"]})));
    client.told(4, &peers[2].bare());
    client.told(2, &peers[3].bare());
    client.told(2, &peers[3].bare());
    assert_eq!(client.refused(2, &peers[3].bare()), "rate_limited");
}

/// Pays so many quanta from a new spend address to `to` and closes it again; false when none is granted.
fn keeps(client: &mut house::Client, payer: &Peer, payee: &Peer, to: &str, count: u64) -> bool {
    let reply = client.ask(4, &payer.bare());
    if reply["code"] == "rate_limited" {
        return false;
    }
    let state: Value = serde_json::from_str(reply["data"]["message"].as_str().unwrap()).unwrap();
    let spend = state["address"].as_str().unwrap();
    let terms = contract(&format!("of {spend}"), spend, to, count);
    client.told(8, &cosigned(payer, payee, terms.clone()));
    client.told(16, &cosigned(payer, payee, settled(terms, count, 0)));
    client.told(64, &payer.about(json!({"address": spend})));
    // Whoever counts grants has heard of it when subscribers have.
    while client.event()["event"] != "address.closed" {}
    true
}

#[test]
fn a_stranger_cannot_carry_the_trackers_wallet_away() {
    let house = House::with(Change {
        gateway: |tracker| tracker.limits.exempt_loopback = false,
        ..Change::default()
    });
    let mut client = house.connect();
    let payee = Peer::ed25519(1);
    let wallet = daybook_ledger::tracker::Address::common(&payee.pem);
    let mut grants = 0;
    for seed in 2..20 {
        let payer = Peer::ed25519(seed);
        let own = json!({"topics": [{"pk": payer.pem}]});
        client.told(131_072, &payer.about(own));
        if !keeps(&mut client, &payer, &payee, wallet.as_str(), 20) {
            break;
        }
        grants += 1;
    }
    assert_eq!((grants, house.wallet()), (8, 20_000));
}

#[test]
fn a_network_that_gives_its_grants_back_is_not_bounded_by_the_day() {
    let house = House::with(Change {
        gateway: |tracker| {
            tracker.limits.exempt_loopback = false;
            tracker.limits.grants_per_network = Some(1);
        },
        ..Change::default()
    });
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::ed25519(2));
    for peer in [&payer, &payee] {
        client.told(131_072, &peer.about(json!({"topics": [{"pk": peer.pem}]})));
    }
    for _ in 0..5 {
        let income = client.told(2, &payee.bare());
        let income = income["address"].as_str().unwrap();
        assert!(keeps(&mut client, &payer, &payee, income, 20));
        // All of it is on the income address, which closes in the end.
        assert_eq!(client.refused(4, &payer.bare()), "rate_limited");
        client.told(32, &payee.about(json!({"address": income})));
        while client.event()["event"] != "address.closed" {}
    }
}

#[test]
fn whether_an_address_of_a_network_is_still_open_is_not_asked_of_the_disk() {
    let house = House::with(Change {
        gateway: |tracker| {
            tracker.limits.exempt_loopback = false;
            tracker.limits.open_spends_per_network = 2;
        },
        ..Change::default()
    });
    let mut client = house.connect();
    let peers: Vec<Peer> = (1..4).map(Peer::ed25519).collect();
    let first = client.told(4, &peers[0].bare());
    client.told(4, &peers[1].bare());
    client.told(64, &peers[0].about(json!({"address": first["address"]})));
    house.fail_reads(true);
    client.told(4, &peers[2].bare());
    house.fail_reads(false);
}

#[test]
fn frames_that_are_no_requests_count_as_well() {
    let pace = Change {
        gateway: |tracker| {
            tracker.limits.frames = Some(Rate {
                per_second: 0.001,
                burst: 3.0,
            });
        },
        ..Change::default()
    };
    let network = Change {
        node: |settings| {
            // The upgrade is a request, too.
            settings.rate = Some(Rate {
                per_second: 0.001,
                burst: 4.0,
            });
        },
        ..Change::default()
    };
    for change in [pace, network] {
        let house = House::with(change);
        let mut client = house.connect();
        let frames = [
            (r#"{"cmd":3,"corrToken":"x","payload":{}}"#, "bad_command"),
            ("nonsense", "bad_json"),
            (r#"{"cmd":65536,"corrToken":"x","payload":{"v":[1,2]}}"#, ""),
            ("nonsense", "rate_limited"),
            (
                r#"{"cmd":65536,"corrToken":"x","payload":{"v":[1,2]}}"#,
                "rate_limited",
            ),
            (r#"{"cmd":3,"corrToken":"x","payload":{}}"#, "rate_limited"),
        ];
        for (frame, code) in frames {
            client.send(frame);
            let reply = client.reply();
            assert_eq!(reply["code"].as_str().unwrap_or_default(), code, "{frame}");
        }
    }
}

#[test]
fn replies_of_many_requests_at_once_all_come() {
    let house = House::open();
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    let payload = peer.about(json!({"channelId": "none"}));
    const REQUESTS: usize = 2_000;
    let mut sender = house.connect();
    for number in 0..REQUESTS {
        sender.send(
            &json!({"cmd": 512, "corrToken": number.to_string(), "payload": payload}).to_string(),
        );
        if number % 100 == 0 {
            // Another connection is served meanwhile.
            assert_eq!(client.told(512, &payload)["state"], 1);
        }
    }
    let mut seen = vec![false; REQUESTS];
    for _ in 0..REQUESTS {
        let reply = sender.reply();
        let number: usize = reply["corrToken"].as_str().unwrap().parse().unwrap();
        assert!(!std::mem::replace(&mut seen[number], true));
    }
}

// Section 17.2, items 46 in part.
fn v2(house: &House, peer: &Peer, command: u64, nonce: u8, mut message: Value) -> Value {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let (_, info) = house.get("/api/v1/tracker");
    let mut id = [0; 32];
    for (place, byte) in id.iter_mut().enumerate() {
        let hex = &info["id"].as_str().unwrap()[2 * place..2 * place + 2];
        *byte = u8::from_str_radix(hex, 16).unwrap();
    }
    message["v"] = 2.into();
    message["cmd"] = command.into();
    message["tracker"] = BASE64_URL_SAFE_NO_PAD.encode(id).into();
    message["nonce"] = BASE64_URL_SAFE_NO_PAD.encode([nonce; 16]).into();
    if message.get("ts").is_none() {
        message["ts"] = house.now().into();
    }
    peer.about(message)
}

// Item 46.
#[test]
fn a_version_2_message_counts_once_for_one_command_and_for_five_minutes() {
    let house = House::open();
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    let opened = client.told(4, &peer.bare());
    let address = json!({"address": opened["address"], "corrToken": "x"});
    let mut ask = |command: u64, payload: &Value| {
        client.send(&json!({"cmd": command, "corrToken": "x", "payload": payload}).to_string());
        let reply = client.reply();
        reply
            .get("code")
            .map_or("ok", |code| code.as_str().unwrap())
            .to_owned()
    };
    let state = v2(&house, &peer, 256, 1, address.clone());
    assert_eq!(ask(64, &state), "bad_message");
    assert_eq!(ask(256, &state), "ok");
    assert_eq!(ask(256, &state), "replayed");
    let mut old = address.clone();
    old["ts"] = (house.now() - 6 * MINUTE).into();
    assert_eq!(ask(256, &v2(&house, &peer, 256, 2, old)), "stale");
    // A nonce that a command used is used for questions, too.
    assert_eq!(ask(64, &v2(&house, &peer, 64, 3, address.clone())), "ok");
    assert_eq!(ask(256, &v2(&house, &peer, 256, 3, address)), "replayed");
}

// Section 17.2: whoever has seen the frame of a refused command gets nothing by sending it later.
#[test]
fn a_version_2_command_that_was_refused_does_not_pass_later_and_one_of_version_1_does() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = addresses(&mut client, &payer, &payee);
    let terms = contract("c", &spend, &income, 1);
    client.told(8, &cosigned(&payer, &payee, terms.clone()));
    let address = json!({"address": spend, "corrToken": "x"});
    let seen = v2(&house, &payer, 64, 1, address.clone());
    let seen = json!({"cmd": 64, "corrToken": "x", "payload": seen}).to_string();
    let legacy = payer.about(json!({"address": spend}));
    client.send(&seen);
    let refused = client.reply();
    assert_eq!(refused["code"], "has_open_channels");
    assert_eq!(client.refused(64, &legacy), "has_open_channels");
    client.told(16, &cosigned(&payer, &payee, settled(terms, 1, 1)));
    let mut stranger = house.connect();
    stranger.send(&seen);
    let again = stranger.reply();
    assert_eq!(
        (&again["code"], &again["error"]),
        (&refused["code"], &refused["error"])
    );
    client.told(64, &legacy);
}

// Section 17.5: what makes a request idempotent is read from the message, not guessed from its bytes.
#[test]
fn a_repeated_version_2_request_has_the_same_bytes_however_it_is_written() {
    let house = House::open();
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    let opened = client.told(4, &peer.bare());
    let address = json!({"address": opened["address"], "corrToken": "x"});
    let plain = v2(&house, &peer, 64, 1, address);
    let message = plain["message"].as_str().unwrap();
    let written = peer.payload(&message.replace("\"nonce\"", "\"\\u006eonce\""));
    assert_ne!(written["message"], plain["message"]);
    let frame = json!({"cmd": 64, "corrToken": "x", "payload": written}).to_string();
    client.send(&frame);
    let first = client.text();
    assert!(
        first.contains("10000") && !first.contains("exData"),
        "{first}"
    );
    client.send(&frame);
    assert_eq!(client.text(), first);
}

// Item 49.
#[test]
fn the_best_parked_receipt_is_executed_at_the_lock() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee) = (Peer::ed25519(1), Peer::rsa());
    let (spend, income) = addresses(&mut client, &payer, &payee);
    let terms = contract("parked", &spend, &income, 8);
    client.told(8, &cosigned(&payer, &payee, terms.clone()));
    for count in [2, 5] {
        client.told(
            524_288,
            &cosigned(&payer, &payee, settled(terms.clone(), count, 1)),
        );
    }
    let lower = cosigned(&payer, &payee, settled(terms, 1, 1));
    assert_eq!(client.refused(524_288, &lower), "bad_count");
    house.pass(5 * MINUTE + 100);
    let state = client.told(128, &payee.about(json!({"address": income})));
    assert_eq!(state["current"]["amount"], "2500");
}

#[test]
fn a_signature_of_one_listing_item_is_over_the_item_without_it() {
    let house = House::open();
    let mut client = house.connect();
    let peer = Peer::rsa();
    client.told(2, &peer.bare());
    let listed = client.told(1024, &peer.about(json!({})));
    let item = &listed["items"][0];
    let members = [
        "amount",
        "contract_id",
        "from",
        "tx_id",
        "parent_tx_id",
        "planned_quantum_count",
        "price_amount",
        "price_quantum_power",
        "pk",
        "quantum_count",
        "status",
        "timelock",
        "timestamp",
        "to",
        "tx_type",
        "version",
        "volume",
    ];
    let unsigned: Vec<String> = members
        .iter()
        .map(|name| format!("\"{name}\":{}", item[name]))
        .collect();
    let unsigned = format!("{{{}}}", unsigned.join(","));
    check(
        item["pk"].as_str().unwrap(),
        &unsigned,
        item["sign"].as_str().unwrap(),
    );
    assert_eq!(item["price_amount_str"], "500");
}
