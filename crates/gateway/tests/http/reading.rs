//! Checklist items 43 to 51: reading.

use std::time::Duration;

use daybook_gateway::Settings;
use daybook_ledger::{Draft, SigningKey, Version, condition::Details, json::Object};
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, TestNode, alice, bob, create, sale, shared, value};

/// A key that only one test uses.
fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_seed(seed)
}

const MISSING: &str =
    "Missing required parameter in the JSON body or the post body or the query string";

#[test]
fn item_43_the_history_of_an_asset_comes_in_commit_order() {
    let node = shared();
    let lamp = node.committed(create("item 43", 1));
    let first = node.committed(sale(&lamp, 1, &alice(), &bob()));
    let second = node.committed(sale(&first, 1, &bob(), &alice()));
    let third = node.committed(sale(&second, 1, &alice(), &bob()));
    let id = lamp.id().to_string();
    let list = |query: &str| node.get(&format!("/api/v1/transactions?{query}")).json();
    let all = json!([value(&lamp), value(&first), value(&second), value(&third)]);
    assert_eq!(list(&format!("asset_id={id}")), all);
    assert_eq!(list(&format!("asset_ids={id}")), all);
    assert_eq!(list(&format!("asset_id={}", id.to_uppercase())), all);
    assert_eq!(list(&format!("asset_id={id}&whatever=1")), all);
    assert_eq!(
        list(&format!("asset_id={id}&operation=create")),
        json!([value(&lamp)])
    );
    assert_eq!(
        list(&format!("asset_id={id}&operation=TRANSFER")),
        json!([value(&first), value(&second), value(&third)])
    );
    assert_eq!(
        list(&format!("asset_id={id}&last_tx=true")),
        json!([value(&third)])
    );
    assert_eq!(list(&format!("asset_id={id}&last_tx=False")), all);
    assert_eq!(
        list(&format!("asset_id={id}&operation=CREATE&last_tx=True")),
        json!([value(&lamp)])
    );
    // A TRANSFER's id names no asset.
    assert_eq!(list(&format!("asset_id={}", first.id())), json!([]));
}

#[test]
fn several_assets_are_listed_together_in_commit_order() {
    let node = shared();
    let one = node.committed(create("several, one", 1));
    let two = node.committed(create("several, two", 1));
    let one_sold = node.committed(sale(&one, 1, &alice(), &bob()));
    let two_sold = node.committed(sale(&two, 1, &alice(), &bob()));
    let list = |query: String| node.get(&format!("/api/v1/transactions/?{query}")).json();
    let expected = json!([value(&one), value(&two), value(&one_sold), value(&two_sold)]);
    assert_eq!(
        list(format!("asset_ids={},{}", two.id(), one.id())),
        expected
    );
    assert_eq!(
        list(format!("asset_ids={}&asset_ids={}", one.id(), two.id())),
        expected
    );
    assert_eq!(
        list(format!("asset_ids={0},{0}%2C{1}", one.id(), two.id())),
        expected
    );
    assert_eq!(
        list(format!("asset_ids={},{}&last_tx=true", two.id(), one.id())),
        json!([value(&two_sold)])
    );
}

#[test]
fn item_44_bad_parameters_are_named() {
    let mut client = shared().client();
    let id = "a".repeat(64);
    let key = alice().public_key();
    let boolean = "Boolean value must be \"true\" or \"false\" (lowercase)";
    let operation = "Operation must be \"CREATE\" or \"TRANSFER\"";
    let limit = "invalid literal for int() with base 10: 'abc'";
    for (path, name, text) in [
        ("transactions".to_owned(), "asset_id", MISSING),
        (
            "transactions?asset_id=abc".to_owned(),
            "asset_id",
            "Invalid hash",
        ),
        (
            "transactions?asset_id=".to_owned(),
            "asset_id",
            "Invalid hash",
        ),
        (
            format!("transactions?asset_ids={id},x"),
            "asset_ids",
            "List contains invalid hash",
        ),
        (
            "transactions?asset_ids=".to_owned(),
            "asset_ids",
            "List contains invalid hash",
        ),
        (
            format!("transactions?asset_id={id}&operation=VOTE"),
            "operation",
            operation,
        ),
        (
            format!("transactions?asset_id={id}&last_tx=1"),
            "last_tx",
            boolean,
        ),
        ("outputs".to_owned(), "public_key", MISSING),
        (
            "outputs?public_key=abc".to_owned(),
            "public_key",
            "Invalid base58 ed25519 key",
        ),
        (
            format!("outputs?public_key={key}0"),
            "public_key",
            "Invalid base58 ed25519 key",
        ),
        (
            format!("outputs?public_key={key}&spent=yes"),
            "spent",
            boolean,
        ),
        ("blocks".to_owned(), "transaction_id", MISSING),
        ("assets".to_owned(), "search", MISSING),
        ("metadata".to_owned(), "search", MISSING),
        ("assets?search=x&limit=abc".to_owned(), "limit", limit),
        ("metadata?search=x&limit=abc".to_owned(), "limit", limit),
        ("assets/x?limit=abc".to_owned(), "limit", limit),
    ] {
        let answer = client.get(&format!("/api/v1/{path}"));
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (400, "BAD REQUEST"),
            "{path}"
        );
        assert_eq!(answer.json(), json!({"message": {name: text}}), "{path}");
    }
    for path in [
        "assets?search=x&limit=-1",
        "assets?search=x&limit=1.5",
        "assets?search=x&limit=",
    ] {
        assert_eq!(client.get(&format!("/api/v1/{path}")).status, 400, "{path}");
    }
}

#[test]
fn item_45_outputs_are_counted_before_and_after_a_transfer() {
    let node = shared();
    let carol = key("carol 45");
    let lamp = node.committed(
        Draft::create(Object::from_iter([("name", "item 45")]))
            .output(1, &carol)
            .sign(&[&carol])
            .unwrap(),
    );
    let list = |query: &str| {
        let path = format!("/api/v1/outputs?public_key={}{query}", carol.public_key());
        let answer = node.get(&path);
        assert_eq!(answer.status, 200);
        answer.json()
    };
    let own = json!([{"transaction_id": lamp.id().to_string(), "output_index": 0}]);
    for (query, expected) in [
        ("", &own),
        ("&spent=false", &own),
        ("&spent=False", &own),
        ("&spent=true", &json!([])),
        ("&spent=True", &json!([])),
    ] {
        assert_eq!(list(query), *expected, "before: {query}");
    }
    node.committed(sale(&lamp, 1, &carol, &bob()));
    for (query, expected) in [
        ("", &own),
        ("&spent=False", &json!([])),
        ("&spent=True", &own),
    ] {
        assert_eq!(list(query), *expected, "after: {query}");
    }
}

#[test]
fn item_46_outputs_are_found_by_any_key_in_a_nested_threshold() {
    let node = shared();
    let keys = ["a 46", "b 46", "c 46"].map(key);
    let [a, b, c] = [&keys[0], &keys[1], &keys[2]];
    let inner = Details::all_of(&[b.public_key(), c.public_key()]);
    let nested = Details::Threshold {
        threshold: 1,
        parts: vec![a.into(), inner],
    };
    let lamp = node.committed(
        Draft::create(Object::from_iter([("name", "item 46")]))
            .output(3, nested)
            .sign(&[a])
            .unwrap(),
    );
    for key in &keys {
        let list = node
            .get(&format!("/api/v1/outputs?public_key={}", key.public_key()))
            .json();
        assert_eq!(list[0]["transaction_id"], lamp.id().to_string());
    }
}

#[test]
fn item_47_strict_endpoints_name_unknown_parameters() {
    let key = alice().public_key();
    for (path, names) in [
        (format!("outputs?public_key={key}&x=1"), "x"),
        (format!("outputs?x=1&public_key={key}&y=2&x=3"), "x, y"),
        ("blocks?transaction_id=123&foo=1".to_owned(), "foo"),
    ] {
        let answer = shared().get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.json(),
            json!({"message": format!("Unknown arguments: {names}")})
        );
    }
}

#[test]
fn item_48_blocks_are_found_in_both_dialects() {
    let node = shared();
    let lamp = node.committed(create("item 48", 1));
    let id = lamp.id().to_string();
    let classic = node
        .get(&format!("/api/v1/blocks?transaction_id={id}"))
        .json();
    let height = classic[0].as_u64().unwrap();
    assert_eq!(classic, json!([height]));
    for unknown in ["", "123", &"b".repeat(64)] {
        let path = format!("/api/v1/blocks?transaction_id={unknown}");
        assert_eq!(node.get(&path).json(), json!([]));
        let v2 = Client::to(node.v2).get(&path);
        assert_eq!((v2.status, v2.message().as_str()), (404, "Not found"));
    }
    let block = node.get(&format!("/api/v1/blocks/{height}")).json();
    assert_eq!(block["height"], height);
    assert!(
        block["transactions"]
            .as_array()
            .unwrap()
            .contains(&value(&lamp))
    );
    assert!(
        block["transaction_ids"]
            .as_array()
            .unwrap()
            .contains(&json!(id))
    );
    let v2 = Client::to(node.v2)
        .get(&format!("/api/v1/blocks?transaction_id={id}"))
        .json();
    assert_eq!(v2["height"], height);
    assert_eq!(v2["app_hash"], block["app_hash"]);
    assert_eq!(v2["transaction_ids"], block["transaction_ids"]);
    for text in [
        "999999999",
        "-1",
        "abc",
        "99999999999999999999999",
        "1.0",
        "+1",
    ] {
        let answer = node.get(&format!("/api/v1/blocks/{text}"));
        assert_eq!(
            (answer.status, answer.message().as_str()),
            (404, "Not found"),
            "{text}"
        );
    }
}

#[test]
fn the_newest_block_is_the_tip_and_the_genesis_block_is_empty() {
    let node = TestNode::start();
    let empty = json!({"app_hash": "", "height": 0, "transactions": [], "transaction_ids": []});
    assert_eq!(node.get("/api/v1/blocks/0").json(), empty);
    assert_eq!(node.get("/api/v1/blocks/latest").json(), empty);
    let lamp = node.committed(create("latest", 1));
    let latest = node.get("/api/v1/blocks/latest/").json();
    let id = lamp.id().to_string();
    assert_eq!(latest["height"], 1);
    assert_eq!(latest["transactions"], json!([id]));
    assert_eq!(latest["transaction_ids"], json!([id]));
    assert_eq!(latest["app_hash"].as_str().unwrap().len(), 64);
    assert_eq!(node.get("/api/v1/blocks/0").json(), empty);
}

#[test]
fn item_49_text_search_finds_words_in_values() {
    let node = shared();
    let made = [
        "Hello Quixotic 1!",
        "quixotic, quixotic",
        "nothing of the kind",
    ]
    .map(|text| {
        let draft = Draft::create(Object::from_iter([("msg", text)])).metadata(Object::from_iter(
            [("deep", Object::from_iter([("note", text)]))],
        ));
        node.committed(draft.output(1, &alice()).sign(&[&alice()]).unwrap())
    });
    let ids = |answer: &Value| -> Vec<String> {
        let hits = answer.as_array().unwrap().iter();
        hits.map(|hit| hit["id"].as_str().unwrap().to_owned())
            .collect()
    };
    for (resource, member) in [("assets", "data"), ("metadata", "metadata")] {
        let answer = node
            .get(&format!("/api/v1/{resource}/?search=QUIXOTIC"))
            .json();
        let mut found = ids(&answer);
        found.sort();
        let mut expected = vec![made[0].id().to_string(), made[1].id().to_string()];
        expected.sort();
        assert_eq!(found, expected);
        assert!(answer[0][member].is_object());
        let limited = node
            .get(&format!("/api/v1/{resource}?search=quixotic&limit=1"))
            .json();
        assert_eq!(ids(&limited).len(), 1);
        let all = node
            .get(&format!("/api/v1/{resource}?search=quixotic&limit=0"))
            .json();
        assert_eq!(ids(&all).len(), 2);
        let nothing = node
            .get(&format!("/api/v1/{resource}?search=zzzzqq"))
            .json();
        assert_eq!(nothing, json!([]));
        let empty = node.get(&format!("/api/v1/{resource}?search="));
        assert_eq!(empty.status, 400);
        assert_eq!(empty.message(), "text_search cannot be empty");
    }
}

#[test]
fn item_50_exact_search_finds_strings() {
    let node = shared();
    let make = |data: &str, metadata: &str| {
        let draft = Draft::create(data).version(Version::V3).metadata(metadata);
        node.committed(draft.output(1, &alice()).sign(&[&alice()]).unwrap())
    };
    make("bafkreione50", "bafkreinote50");
    make("bafkreitwo50", "bafkreinote50");
    let get = |path: &str| node.get(&format!("/api/v1/{path}")).json();
    assert_eq!(
        get("assets/bafkreione50"),
        json!([{"data": "bafkreione50"}])
    );
    assert_eq!(
        get("assets//bafkreitwo50?limit=0"),
        json!([{"data": "bafkreitwo50"}])
    );
    assert_eq!(
        get("metadata/bafkreinote50/"),
        json!(["bafkreinote50", "bafkreinote50"])
    );
    assert_eq!(
        get("metadata/bafkreinote50?limit=1"),
        json!(["bafkreinote50"])
    );
    assert_eq!(get("assets/bafkreinobody"), json!([]));
    assert_eq!(get("assets/bafkreione5"), json!([]));
    assert_eq!(
        get("assets/bafkrei%6Fne50"),
        json!([{"data": "bafkreione50"}])
    );
}

#[test]
fn item_51_validators_have_padded_base64_keys_and_powers() {
    let answer = shared().get("/api/v1/validators").json();
    let key = answer[0]["public_key"].clone();
    assert_eq!(key["type"], "ed25519-base64");
    let text = key["value"].as_str().unwrap();
    assert!(text.len() == 44 && text.ends_with('='), "{text}");
    assert_eq!(answer[0]["voting_power"], 10);
    assert_eq!(answer.as_array().unwrap().len(), 1);
}

#[test]
fn ids_in_paths_are_compared_as_they_stand() {
    let lamp = shared().committed(create("ids in paths", 1));
    let upper = lamp.id().to_string().to_uppercase();
    for text in [
        upper.as_str(),
        "rubbish",
        "%00",
        "a%2Fb",
        &"a".repeat(5_000),
    ] {
        let answer = shared().get(&format!("/api/v1/transactions/{text}"));
        assert_eq!(
            (answer.status, answer.message().as_str()),
            (404, "Not found"),
            "{text}"
        );
    }
}

#[test]
fn long_lists_come_in_pieces_and_are_whole() {
    let node = TestNode::start();
    let dora = key("dora");
    let count: u64 = 3_000;
    let mut draft = Draft::create(Object::from_iter([("name", "a hoard")]));
    for amount in 1..=count / 2 {
        draft = draft.output(amount, &dora);
    }
    let first = node.committed(draft.sign(&[&dora]).unwrap());
    let second = node.committed(draft.metadata("again").sign(&[&dora]).unwrap());
    let answer = node.get(&format!("/api/v1/outputs?public_key={}", dora.public_key()));
    assert_eq!(answer.header("transfer-encoding"), "chunked");
    let expected: Vec<Value> = [first, second]
        .iter()
        .flat_map(|transaction| {
            (0..count / 2).map(|index| {
                json!({"transaction_id": transaction.id().to_string(), "output_index": index})
            })
        })
        .collect();
    assert_eq!(answer.json(), Value::Array(expected));
    // Large answers of blocks, too.
    let block = node.get("/api/v1/blocks/1");
    assert_eq!(block.header("transfer-encoding"), "chunked");
    assert_eq!(
        block.json()["transactions"][0]["outputs"]
            .as_array()
            .unwrap()
            .len(),
        1_500
    );
}

#[test]
fn a_reader_that_leaves_in_the_middle_of_a_list_disturbs_nobody() {
    let node = TestNode::start();
    let mut draft = Draft::create(Object::from_iter([("name", "much")]));
    for amount in 1..=1_500 {
        draft = draft.output(amount, &alice());
    }
    node.committed(draft.sign(&[&alice()]).unwrap());
    for _ in 0..100 {
        let mut client = node.client();
        client.send("GET", "/api/v1/blocks/1", &[], b"");
        client.head();
    }
    assert_eq!(node.get("/api/v1/blocks/1").status, 200);
}

/// An asset whose history is longer than all buffers between the node and a client that reads nothing.
fn long_history(node: &TestNode) -> String {
    let lamp = node.committed(create("a long history", 1));
    let page = "x".repeat(900 << 10);
    let mut last = lamp.clone();
    for _ in 0..10 {
        let sale = Draft::transfer(lamp.asset())
            .spend(last.output_ref(0), &alice())
            .output(1, &alice())
            .metadata(Object::from_iter([("page", page.as_str())]));
        last = node.committed(sale.sign(&[&alice()]).unwrap());
    }
    format!("/api/v1/transactions?asset_id={}", lamp.id())
}

#[test]
fn readers_that_take_nothing_do_not_keep_their_turns_from_others() {
    let node = TestNode::with(Settings {
        lists_per_address_max: 2,
        list_patience: Duration::from_millis(100),
        list_rate_min: 1 << 40,
        ..Settings::default()
    });
    let path = long_history(&node);
    let mut slow: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = Client::with_small_buffer(node.api);
            client.send("GET", &path, &[], b"");
            client
        })
        .collect();
    for client in &mut slow[..2] {
        assert_eq!(client.head().status, 200, "they have a turn");
    }
    // All turns of this address are taken, until those that read nothing are cut off.
    let answer = node.get(&path);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().as_array().unwrap().len(), 11);
}

#[test]
fn a_list_that_nobody_reads_waits_in_the_store_and_not_in_memory() {
    let node = TestNode::with(Settings {
        lists_per_address_max: 1,
        list_patience: PATIENCE,
        ..Settings::default()
    });
    let path = long_history(&node);
    let mut slow = Client::with_small_buffer(node.api);
    slow.send("GET", &path, &[], b"");
    assert_eq!(slow.head().status, 200);
    // Nobody has taken the list from the thread that makes it, so it still has the only turn.
    let answer = node.get(&path);
    assert_eq!(answer.status, 503, "{}", answer.message());
    let mut bytes = 0;
    while let Some(piece) = slow.chunk() {
        bytes += piece.len();
    }
    assert!(bytes > 10 * (900 << 10), "it is whole once it is read");
    assert_eq!(node.get(&path).status, 200);
}

#[test]
fn a_list_that_takes_too_long_is_broken_off_and_not_taken_for_whole() {
    let node = TestNode::with(Settings {
        list_timeout: Duration::ZERO,
        ..Settings::default()
    });
    let lamp = node.committed(create("late", 1));
    for path in [
        format!("/api/v1/transactions?asset_id={}", lamp.id()),
        format!("/api/v1/outputs?public_key={}", alice().public_key()),
        "/api/v1/assets?search=late".to_owned(),
    ] {
        let answer = node.get(&path);
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(node.get("/api/v1/blocks/1").status, 200, "a block is short");
}
