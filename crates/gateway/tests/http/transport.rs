//! Checklist items 1 to 10: transport and discovery.

use std::net::TcpStream;

use crate::support::{Client, Subscriber, alice, create, shared};

#[test]
fn item_01_the_root_names_api_docs_software_and_version() {
    let answer = shared().get("/");
    assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
    assert_eq!(answer.header("content-type"), "application/json");
    let json = answer.json();
    assert_eq!(json["software"], "Planetmint");
    assert!(json["docs"].as_str().unwrap().starts_with("https://"));
    assert!(json["version"].is_string());
    assert_eq!(json["api"]["v1"]["transactions"], "/api/v1/transactions/");
    assert_eq!(json["api"]["v1"]["validators"], "/api/v1/validators");
}

#[test]
fn item_02_the_api_root_is_the_same_with_and_without_a_slash() {
    let plain = shared().get("/api/v1").json();
    assert_eq!(plain, shared().get("/api/v1/").json());
    for name in ["assets", "blocks", "metadata", "outputs", "transactions"] {
        assert_eq!(plain[name], format!("/{name}/"));
    }
    assert_eq!(plain["validators"], "/validators");
    assert_eq!(plain["max_transaction_size"], 1 << 20);
}

#[test]
fn item_03_the_announced_streams_can_be_reached() {
    let json = shared().get("/api/v1").json();
    for (name, stream) in [
        ("streams", "valid_transactions"),
        ("streamedblocks", "valid_blocks"),
        ("streamedrejections", "rejected_transactions"),
    ] {
        let url = json[name].as_str().unwrap();
        let expected = format!(
            "ws://localhost:{}/api/v1/streams/{stream}",
            shared().streams.port()
        );
        assert_eq!(url, expected);
        Subscriber::open(shared().streams, &format!("/api/v1/streams/{stream}")).unwrap();
    }
}

#[test]
fn item_04_every_endpoint_answers_alike_with_and_without_a_trailing_slash() {
    let node = shared();
    let lamp = node.committed(create("item 04", 1));
    let (id, key) = (lamp.id(), alice().public_key());
    for (path, query) in [
        ("/api/v1/transactions", format!("?asset_id={id}")),
        (&format!("/api/v1/transactions/{id}"), String::new()),
        (&format!("/api/v1/transactions/{id}/status"), String::new()),
        ("/api/v1/transactions", String::new()),
        ("/api/v1/outputs", format!("?public_key={key}&spent=true")),
        ("/api/v1/blocks", format!("?transaction_id={id}")),
        ("/api/v1/blocks/1", String::new()),
        ("/api/v1/blocks/0", String::new()),
        ("/api/v1/blocks/999999999", String::new()),
        ("/api/v1/assets", "?search=nothing-has-this-word".to_owned()),
        ("/api/v1/metadata", String::new()),
        ("/api/v1/assets/nobody-wrote-this", String::new()),
        ("/api/v1/metadata/nobody-wrote-this", String::new()),
        ("/api/v1/validators", String::new()),
    ] {
        let mut client = node.client();
        let plain = client.get(&format!("{path}{query}"));
        let slash = client.get(&format!("{path}/{query}"));
        assert_eq!(
            (plain.status, plain.text()),
            (slash.status, slash.text()),
            "{path}{query}"
        );
    }
}

#[test]
fn item_05_a_doubled_slash_reaches_the_same_resource() {
    let answer = shared().get("/api/v1/assets//bafkreiabc?limit=0");
    assert_eq!((answer.status, answer.text().as_str()), (200, "[]"));
}

#[test]
fn item_06_an_unknown_path_answers_404_not_found_in_capitals_and_json() {
    for path in [
        "/api/wrong/x",
        "/api/v1/nope",
        "/api",
        "/x",
        "/api/v1/streams/other",
    ] {
        let answer = shared().get(path);
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (404, "NOT FOUND"),
            "{path}"
        );
        assert_eq!(answer.message(), "Not found");
    }
}

#[test]
fn item_07_a_preflight_allows_post_and_the_asked_headers() {
    let headers = [
        ("Origin", "http://app.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, x-app-id"),
    ];
    let answer = shared()
        .client()
        .request("OPTIONS", "/api/v1/transactions", &headers, b"");
    assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "content-type, x-app-id"
    );
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("allow"), "HEAD, GET, OPTIONS, POST");
}

#[test]
fn item_08_every_answer_carries_an_allowed_origin() {
    let mut client = shared().client();
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/api/v1"),
        ("GET", "/api/v1/nope"),
        ("GET", "/api/v1/outputs"),
        ("PUT", "/api/v1/transactions"),
        ("POST", "/api/v1/transactions"),
        ("POST", "/api/v1/transactions?mode=nope"),
        ("GET", "/api/v1/streams/valid_transactions"),
    ] {
        let answer = client.request(method, path, &[("Origin", "http://app.example")], b"");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "*",
            "{method} {path}"
        );
    }
}

#[test]
fn item_09_a_wrong_method_answers_405_and_says_which_are_right() {
    let mut client = shared().client();
    for (method, path, allow) in [
        ("PUT", "/api/v1/transactions", "HEAD, GET, OPTIONS, POST"),
        ("DELETE", "/api/v1/transactions/abc", "HEAD, GET, OPTIONS"),
        ("POST", "/api/v1/outputs", "HEAD, GET, OPTIONS"),
        ("GET", "/api/v1/transactions/batch", "OPTIONS, POST"),
        ("PATCH", "/", "HEAD, GET, OPTIONS"),
        ("POST", "/api/v1/streams/valid_blocks", "HEAD, GET, OPTIONS"),
    ] {
        let answer = client.request(method, path, &[], b"");
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (405, "METHOD NOT ALLOWED")
        );
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert!(answer.json()["message"].is_string());
    }
}

#[test]
fn item_10_a_body_is_json_whatever_its_content_type_says() {
    let lamp = create("item 10", 1);
    let headers = [
        ("Content-Type", "text/plain"),
        ("app_id", "x"),
        ("app_key", "y"),
    ];
    let answer =
        shared()
            .client()
            .request("POST", "/api/v1/transactions", &headers, lamp.canonical());
    assert_eq!((answer.status, answer.reason.as_str()), (202, "ACCEPTED"));
}

#[test]
fn head_works_wherever_get_does_and_has_no_body() {
    let mut client = shared().client();
    let get = client.get("/api/v1");
    let head = client.request("HEAD", "/api/v1", &[], b"");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    // The connection is still in step.
    assert_eq!(client.get("/api/v1").body, get.body);
}

#[test]
fn requests_can_be_pipelined_and_connections_kept() {
    let mut client = shared().client();
    for _ in 0..3 {
        client.send("GET", "/api/v1", &[], b"");
    }
    for _ in 0..3 {
        assert_eq!(client.answer(false).status, 200);
    }
}

#[test]
fn the_stream_listener_serves_nothing_but_streams() {
    for path in [
        "/",
        "/api/v1",
        "/api/v1/transactions",
        "/healthz",
        "/metrics",
    ] {
        assert_eq!(Client::to(shared().streams).get(path).status, 404, "{path}");
    }
}

#[test]
fn rubbish_instead_of_http_is_refused_and_closed() {
    for rubbish in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut client = shared().client();
        client.raw(rubbish);
        let stream: TcpStream = client.into_stream();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut &stream, &mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{answer:?}"
        );
    }
}

#[test]
fn a_request_is_answered_though_bytes_of_the_next_are_there_already() {
    // An empty line behind a request is passed over (RFC 9112, section 2.2).
    for behind in ["\r\n", "GET /api", "GET /api/v1 HTTP/1.1\r\nHo"] {
        let mut client = shared().client();
        let get = format!("GET /api/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n{behind}");
        client.raw(get.as_bytes());
        assert_eq!(client.answer(false).status, 200, "{behind:?}");
        let mut client = shared().client();
        let post = "POST /api/v1/transactions HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Length: 2\r\n\r\n{}";
        client.raw(format!("{post}{behind}").as_bytes());
        assert_eq!(client.answer(false).status, 400, "{behind:?}");
        let mut client = shared().client();
        let stream = "GET /api/v1/streams/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.raw(format!("{stream}{behind}").as_bytes());
        assert_eq!(client.head().status, 200, "{behind:?}");
        assert!(client.chunk().is_some(), "it says that it has begun");
    }
}

#[test]
fn pipelined_requests_are_all_answered_in_their_order() {
    let mut client = shared().client();
    let mut requests = String::new();
    for number in 0..300 {
        let path = if number % 2 == 0 {
            "/api/v1"
        } else {
            "/api/v1/nothing"
        };
        requests += &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    client.raw(requests.as_bytes());
    for number in 0..300 {
        let wanted = if number % 2 == 0 { 200 } else { 404 };
        assert_eq!(client.answer(false).status, wanted, "{number}");
    }
}
