//! The web console: its files, what its pages read, and who may (docs/console.md).

use daybook_gateway::Settings;
use daybook_ledger::{Draft, Transaction, json::Object};
use serde_json::Value;

use crate::support::{Client, Subscriber, TestNode, alice, bob, create, sale};

fn data(node: &TestNode, question: &str) -> Value {
    let answer = node.get(&format!("/console/data/{question}"));
    assert_eq!(answer.status, 200, "{question}: {}", answer.text());
    answer.json()
}

fn status(node: &TestNode, question: &str) -> u16 {
    node.get(&format!("/console/data/{question}")).status
}

fn lamps(node: &TestNode, count: usize) -> Vec<Transaction> {
    (0..count)
        .map(|number| node.committed(create(&format!("console lamp {number}"), 1)))
        .collect()
}

/// The elements of a list read in pages of `limit`.
fn paged(node: &TestNode, question: &str, name: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut before = String::new();
    loop {
        let page = data(node, &format!("{question}limit={limit}{before}"));
        let elements = page[name].as_array().unwrap();
        assert!(elements.len() <= limit);
        all.extend(elements.iter().cloned());
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return all,
        }
    }
}

fn ids(entries: &[Value]) -> Vec<String> {
    let id = |entry: &Value| entry["id"].as_str().unwrap().to_owned();
    entries.iter().map(id).collect()
}

#[test]
fn the_page_and_its_files_are_served_with_a_strict_policy() {
    let node = TestNode::start();
    for (path, kind) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/", "text/html; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/pages/live.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let answer = node.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), kind, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("access-control-allow-origin"), "");
        if answer.header("cache-control") == "no-store" {
            // The page's policy names the machines of the moment: no browser keeps it.
            assert_eq!(path.trim_end_matches('/'), "/console");
            continue;
        }
        let tag = answer.header("etag");
        let again = node
            .client()
            .request("GET", path, &[("If-None-Match", tag)], b"");
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    for path in [
        "/console/nothing.js",
        "/console/../Cargo.toml",
        "/console//main.js",
        "//console//main.js",
    ] {
        assert_eq!(node.get(path).status, 404, "{path}");
    }
    assert_eq!(
        node.client().request("POST", "/console", &[], b"").status,
        405
    );
    assert_eq!(Client::to(node.streams).get("/console").status, 404);
}

#[test]
fn pages_of_other_origins_are_refused_whatever_the_protocol_allows() {
    let node = TestNode::start();
    let mut client = node.client();
    let host = client.host.clone();
    let own = format!("http://{host}");
    let mut ask = |path: &str, name: &str, value: &str| {
        client.request("GET", path, &[(name, value)], b"").status
    };
    for path in ["/console/data/node", "/console/main.js"] {
        assert_eq!(ask(path, "Origin", &own), 200);
        assert_eq!(ask(path, "Origin", "http://evil.example"), 403);
        assert_eq!(ask(path, "Origin", "null"), 403);
        assert_eq!(ask(path, "Sec-Fetch-Site", "same-origin"), 200);
        assert_eq!(ask(path, "Sec-Fetch-Site", "cross-site"), 403);
    }
    assert_eq!(
        ask("/console", "Sec-Fetch-Site", "cross-site"),
        200,
        "a link leads here"
    );
    let upgrade = |origin: &str| {
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("Origin", origin),
        ];
        let mut client = node.client();
        client.request("GET", "/console/live", &headers, b"").status
    };
    assert_eq!(
        upgrade(&format!("http://localhost:{}", node.api.port())),
        101
    );
    assert_eq!(upgrade("http://evil.example"), 403);
    assert_eq!(
        upgrade(&format!("http://localhost:{}", node.api.port() + 1)),
        403
    );
}

#[test]
fn the_live_stream_tells_each_block_once_and_goes_on_behind_any_of_them() {
    let node = TestNode::start();
    let first = lamps(&node, 3);
    let mut live = Subscriber::open(node.api, "/console/live?after=1").unwrap();
    for (height, lamp) in (2..).zip(&first[1..]) {
        let frame = live.json();
        assert_eq!(
            (&frame["height"], &frame["count"]),
            (&height.into(), &1.into())
        );
        assert_eq!(frame["kinds"]["asset.create"], 1);
        assert_eq!(frame["events"][0]["id"], lamp.id().to_string());
    }
    assert_eq!(live.json()["notice"], "caught_up");
    let fourth = node.committed(create("console lamp, the fourth", 1));
    let frame = live.json();
    assert_eq!(frame["events"][0]["id"], fourth.id().to_string());
    let heading = data(&node, "blocks/4");
    assert_eq!(
        (&frame["hash"], &frame["time"]),
        (&heading["hash"], &heading["time"])
    );
    let beyond = Subscriber::open(node.api, "/console/live?after=5");
    assert_eq!(beyond.map(|_| ()).unwrap_err().status, 400);
    let unknown = Subscriber::open(node.api, "/console/live?from=1");
    assert_eq!(unknown.map(|_| ()).unwrap_err().status, 400);
}

#[test]
fn lists_are_whole_in_pages_of_any_size_and_newest_first() {
    let node = TestNode::start();
    let mut wanted: Vec<String> = lamps(&node, 9)
        .iter()
        .map(|lamp| lamp.id().to_string())
        .collect();
    wanted.reverse();
    for limit in [1, 4, 100] {
        assert_eq!(ids(&paged(&node, "entries?", "entries", limit)), wanted);
        let kind = paged(&node, "entries?kind=asset.create&", "entries", limit);
        assert_eq!(ids(&kind), wanted);
        let owner = format!("entries?key={}&", alice().public_key());
        assert_eq!(ids(&paged(&node, &owner, "entries", limit)), wanted);
        let heights = paged(&node, "blocks?", "blocks", limit);
        let heights: Vec<u64> = heights
            .iter()
            .map(|block| block["height"].as_u64().unwrap())
            .collect();
        assert_eq!(heights, (1..=9).rev().collect::<Vec<_>>());
    }
    assert_eq!(
        paged(&node, "entries?kind=asset.transfer&", "entries", 3).len(),
        0
    );
}

#[test]
fn a_page_of_a_list_stays_what_it_is_while_the_ledger_grows() {
    let node = TestNode::start();
    lamps(&node, 6);
    let first = data(&node, "entries?limit=2");
    let next = first["next"].as_str().unwrap();
    let question = format!("entries?limit=2&before={next}");
    let second = data(&node, &question);
    node.committed(create("a newer lamp", 1));
    node.committed(create("the newest lamp", 1));
    assert_eq!(data(&node, &question), second);
}

#[test]
fn a_transaction_tells_where_it_came_from_and_where_it_went() {
    let node = TestNode::start();
    let lamp = node.committed(create("console lamp", 5));
    let sold = node.committed(sale(&lamp, 5, &alice(), &bob()));
    let back = node.committed(sale(&sold, 5, &bob(), &alice()));
    let told = data(&node, &format!("transactions/{}", sold.id()));
    assert_eq!(told["status"], "committed");
    assert_eq!(told["event"]["position"], "2.0");
    let (input, output) = (&told["inputs"][0], &told["outputs"][0]);
    assert_eq!(input["transaction"], lamp.id().to_string());
    assert_eq!(
        (&input["amount"], &input["index"]),
        (&"5".into(), &0.into())
    );
    assert_eq!(input["owners"][0], alice().public_key().to_string());
    assert_eq!(
        (&output["amount"], &output["spent"]),
        (&"5".into(), &true.into())
    );
    let went = data(&node, &format!("spenders/{}", sold.id()));
    assert_eq!(went["spenders"][0]["id"], back.id().to_string());
    assert_eq!(
        (&went["spenders"][0]["index"], &went["next"]),
        (&0.into(), &Value::Null)
    );
    let unspent = data(&node, &format!("spenders/{}", back.id()));
    assert_eq!(unspent["spenders"].as_array().unwrap().len(), 0);
    let held = data(&node, &format!("keys/{}", alice().public_key()));
    assert_eq!(held["holdings"][0]["amount"], "5");
    assert_eq!(
        (
            &held["complete"],
            &held["holdings"].as_array().unwrap().len()
        ),
        (&true.into(), &1)
    );
    let question = format!("outputs?key={}&", alice().public_key());
    let outputs = paged(&node, &question, "outputs", 1);
    let spent: Vec<bool> = outputs
        .iter()
        .map(|output| output["spent"].as_bool().unwrap())
        .collect();
    assert_eq!(spent, [false, true]);
    let history = paged(
        &node,
        &format!("entries?asset={}&", lamp.id()),
        "entries",
        2,
    );
    assert_eq!(
        ids(&history),
        [back.id(), sold.id(), lamp.id()].map(|id| id.to_string())
    );
}

#[test]
fn a_page_of_outputs_ends_early_where_transactions_are_large_and_misses_none() {
    let node = TestNode::start();
    let made: Vec<Transaction> = (0..8)
        .map(|number| {
            let data = Object::from_iter([("lamp", number.to_string())]);
            let draft = (0..200).fold(Draft::create(data), |draft, _| draft.output(1, &alice()));
            node.committed(draft.sign(&[&alice()]).unwrap())
        })
        .collect();
    let question = format!("outputs?key={}&limit=100", alice().public_key());
    let (mut seen, mut pages, mut before) = (Vec::new(), 0, String::new());
    loop {
        let page = data(&node, &format!("{question}{before}"));
        for output in page["outputs"].as_array().unwrap() {
            let id = output["transaction"].as_str().unwrap().to_owned();
            seen.push((id, output["index"].as_u64().unwrap()));
        }
        pages += 1;
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert!(pages > 1, "{pages}");
    let newest_first = made.iter().rev();
    let wanted: Vec<(String, u64)> = newest_first
        .flat_map(|made| (0..200).map(|index| (made.id().to_string(), index)))
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn search_tells_what_a_text_names() {
    let node = TestNode::start();
    let lamp = node.committed(create("a very bright lamp", 1));
    let kinds = |text: &str| -> Vec<String> {
        let hits = data(&node, &format!("search?q={text}"));
        let hits = hits["hits"].as_array().unwrap();
        hits.iter()
            .map(|hit| hit["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds(&lamp.id().to_string()), ["transaction", "asset"]);
    assert_eq!(
        kinds(&lamp.id().to_string().to_uppercase()),
        ["transaction", "asset"]
    );
    assert_eq!(kinds("1"), ["block"]);
    assert_eq!(kinds("1.0"), ["transaction"]);
    assert_eq!(kinds(&alice().public_key().to_string()), ["key"]);
    assert_eq!(kinds("bright"), ["asset-text"]);
    assert_eq!(kinds(&"0".repeat(64)), [""; 0]);
    assert_eq!(kinds("18446744073709551615.4294967295"), [""; 0]);
    assert_eq!(kinds("%20"), [""; 0]);
}

#[test]
fn bad_questions_are_refused_and_never_more() {
    let node = TestNode::start();
    lamps(&node, 1);
    for question in [
        "entries?limit=0",
        "entries?limit=101",
        "entries?limit=x",
        "entries?before=-1",
        "entries?before=1.99999999999",
        "entries?key=nobody",
        "entries?asset=1",
        "entries?key=a&asset=b",
        "entries?unknown=1",
        "blocks?before=x",
        "blocks/1?from=-1",
        "outputs",
        "outputs?key=%00",
        "object",
        "node?x=1",
        "search",
    ] {
        assert_eq!(status(&node, question), 400, "{question}");
    }
    for question in [
        "",
        "nothing",
        "blocks/0",
        "blocks/2",
        "blocks/x",
        "blocks/18446744073709551616",
        "transactions/1",
        "spenders/1",
        "keys/0",
        "object?name=nobody",
        "blocks/1/2/3",
    ] {
        assert_eq!(status(&node, question), 404, "{question}");
    }
    // Cursors from another ledger lead to the nearest place or to an empty page.
    for before in ["99999999.0", "18446744073709551615.4294967295"] {
        let page = data(&node, &format!("entries?before={before}"));
        assert_eq!(page["entries"].as_array().unwrap().len(), 1, "{before}");
    }
    assert_eq!(
        data(&node, "entries?before=0")["entries"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        data(&node, "blocks?before=0")["blocks"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_eq!(status(&node, &format!("search?q={}", "x".repeat(513))), 400);
}

#[test]
fn the_node_tells_about_itself_but_no_secret() {
    let node = TestNode::with(Settings {
        write_token: Some(daybook_gateway::Token::new("a secret of the operator")),
        ..Settings::default()
    });
    let answer = node.get("/console/data/node");
    let told = answer.json();
    assert_eq!(told["chain"], "gateway-test");
    assert_eq!((&told["height"], &told["ready"]), (&0.into(), &true.into()));
    assert_eq!(told["token_required"], true);
    assert_eq!(told["validators"].as_array().unwrap().len(), 1);
    assert!(!answer.text().contains("secret"));
}
