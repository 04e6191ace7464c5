//! Limits, secrets, origins, TLS, health and stopping.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use daybook_gateway::{Origins, Rate, Settings, Token, tls_config};
use daybook_ledger::{Draft, json::Object};
use metrics_exporter_prometheus::PrometheusBuilder;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Answer, Client, PATIENCE, Subscriber, TestNode, alice, alone, create, shared, value,
};

const POST: &str = "/api/v1/transactions?mode=commit";
const BATCH: &str = "/api/v1/transactions/batch";
const SUBMIT: &str = "/api/v1/transactions/submit";
const STREAM: &str = "/api/v1/streams/valid_transactions";

#[test]
fn writing_needs_the_token_where_one_is_set_and_reading_does_not() {
    let node = TestNode::with(Settings {
        write_token: Some(Token::new("open sesame")),
        ..Settings::default()
    });
    let lamp = create("token", 1);
    let mut client = node.client();
    for (headers, path) in [
        (vec![], POST),
        (vec![("Authorization", "Bearer wrong")], POST),
        (vec![("Authorization", "Bearer open sesam")], POST),
        (vec![("Authorization", "Basic open sesame")], POST),
        (vec![("Authorization", "Bearer")], BATCH),
        (vec![], BATCH),
    ] {
        let answer = client.request("POST", path, &headers, lamp.canonical());
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (401, "UNAUTHORIZED"),
            "{headers:?}"
        );
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
        assert_eq!(answer.json()["status"], 401);
    }
    assert_eq!(client.get(SUBMIT).status, 401);
    assert_eq!(client.request("OPTIONS", POST, &[], b"").status, 200);
    for path in ["/api/v1", "/api/v1/blocks/latest", "/healthz"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    node.subscribe(STREAM);
    let shown = [("authorization", "bearer  open sesame ")];
    let answer = client.request("POST", POST, &shown, lamp.canonical());
    assert_eq!((answer.status, answer.json()), (202, value(&lamp)));
}

#[test]
fn a_token_is_never_shown() {
    let settings = Settings {
        write_token: Some(Token::new("open sesame")),
        ..Settings::default()
    };
    assert!(!format!("{settings:?}").contains("sesame"));
}

#[test]
fn pages_of_other_origins_are_refused_where_a_list_is_set() {
    let node = TestNode::with(Settings {
        allowed_origins: Origins::List(vec!["https://app.example".to_owned()]),
        ..Settings::default()
    });
    let lamp = create("origins", 1);
    let mut client = node.client();
    let evil = [("Origin", "https://evil.example")];
    let good = [("Origin", "https://app.example")];
    // Reading is not refused, but no browser shows the answer to the page.
    let answer = client.request("GET", "/api/v1", &evil, b"");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, "")
    );
    let answer = client.request("GET", "/api/v1", &good, b"");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert_eq!(answer.header("vary"), "origin");
    for (method, path) in [
        ("POST", POST),
        ("POST", BATCH),
        ("GET", SUBMIT),
        ("GET", STREAM),
        ("OPTIONS", POST),
    ] {
        let answer = client.request(method, path, &evil, lamp.canonical());
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (403, "FORBIDDEN"),
            "{method} {path}"
        );
    }
    assert_eq!(client.request("OPTIONS", POST, &good, b"").status, 200);
    assert_eq!(
        client.request("POST", POST, &good, lamp.canonical()).status,
        202
    );
    // Programs that are no browsers name no origin.
    assert_eq!(
        client
            .request("POST", POST, &[], create("origins 2", 1).canonical())
            .status,
        202
    );
    assert_eq!(
        client
            .request("POST", POST, &[("Origin", "null")], b"{}")
            .status,
        403
    );
}

#[test]
fn pages_of_any_origin_may_read_write_and_follow_by_default_as_stock_browser_clients_do() {
    let node = TestNode::start();
    let lamp = create("any origin", 1);
    let mut client = node.client();
    let page = ("Origin", "https://app.example");
    let asks = [
        page,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    let preflight = client.request("OPTIONS", POST, &asks, b"");
    let posted = client.request("POST", POST, &[page], lamp.canonical());
    let read = client.request("GET", "/api/v1", &[page], b"");
    for (answer, status) in [(preflight, 200), (posted, 202), (read, 200)] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        // Browsers that ask before a page reaches into the local machine go on asking.
        assert_eq!(answer.header("access-control-allow-private-network"), "");
        // Nothing that a browser keeps for the node is sent along, or could be.
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    for path in [STREAM, SUBMIT] {
        let upgrade = [
            page,
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answer = node.client().request("GET", path, &upgrade, b"");
        assert_eq!(answer.status, 101, "{path}");
    }
}

#[test]
fn a_name_that_was_bound_to_loopback_by_somebody_else_is_not_served() {
    let node = TestNode::with(Settings {
        allowed_hosts: vec!["ledger.example".to_owned()],
        ..Settings::default()
    });
    let mut client = node.client();
    for host in [
        "evil.example",
        "evil.example:9984",
        "localhost.evil.example",
    ] {
        for path in ["/", "/api/v1/nope", "/metrics"] {
            let answer = client.request("GET", path, &[("Host", host)], b"");
            assert_eq!(
                (answer.status, answer.reason.as_str()),
                (421, "MISDIRECTED REQUEST")
            );
        }
    }
    for host in ["localhost", "127.0.0.1:9984", "[::1]:1", "ledger.example"] {
        assert_eq!(
            client.request("GET", "/", &[("Host", host)], b"").status,
            200,
            "{host}"
        );
    }
}

#[test]
fn one_address_is_held_to_its_rate() {
    let node = TestNode::with(Settings {
        rate: Some(Rate {
            per_second: 0.01,
            burst: 3.0,
        }),
        ..Settings::default()
    });
    let mut client = node.client();
    for _ in 0..3 {
        assert_eq!(client.get("/api/v1").status, 200);
    }
    let answer = client.get("/api/v1");
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (429, "TOO MANY REQUESTS")
    );
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 50);
    assert_eq!(answer.json()["status"], 429);
}

#[test]
fn connections_above_the_limit_are_told_to_come_again() {
    let node = TestNode::with(Settings {
        connections_max: 3,
        ..Settings::default()
    });
    let mut held: Vec<Client> = (0..2).map(|_| node.client()).collect();
    held.iter_mut()
        .for_each(|client| assert_eq!(client.get("/healthz").status, 200));
    // Streams count, too.
    let _subscriber = node.subscribe(STREAM);
    let mut refused = node.client();
    let answer = refused.answer(false);
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (503, "SERVICE UNAVAILABLE")
    );
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.message(), "Too many connections");
    assert!(refused.is_closed());
    drop(held);
    // Places are given back.
    while Client::to(node.api).stream_is_refused() {}
}

#[test]
fn a_head_that_comes_too_slowly_and_a_connection_without_a_request_are_closed() {
    let node = TestNode::with(Settings {
        header_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    });
    let mut slow = node.client();
    slow.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let mut idle = node.client();
    assert_eq!(idle.get("/healthz").status, 200);
    let mut silent = node.client();
    for client in [&mut slow, &mut idle, &mut silent] {
        assert!(client.is_closed());
    }
}

#[test]
fn a_body_that_comes_too_slowly_is_given_up() {
    let node = TestNode::with(Settings {
        body_timeout: Duration::from_millis(100),
        ..Settings::default()
    });
    let mut client = node.client();
    client.raw(
        b"POST /api/v1/transactions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    );
    let answer = client.answer(false);
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (408, "REQUEST TIMEOUT")
    );
    let mut client = node.client();
    client.raw(b"POST /api/v1/transactions/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(client.is_closed());
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off() {
    let node = TestNode::with(Settings {
        stall_timeout: Duration::from_millis(100),
        connections_max: 1,
        ..Settings::default()
    });
    let mut draft = Draft::create(Object::from_iter([("name", "much")]));
    for amount in 1..=1_500 {
        draft = draft.output(amount, &alice());
    }
    node.committed(draft.sign(&[&alice()]).unwrap());
    while node.client().stream_is_refused() {}
    // Far more than two sockets hold; the only place is free again when the node has given up.
    let mut stuck = node.client();
    for _ in 0..100 {
        stuck.send("GET", "/api/v1/blocks/1", &[], b"");
    }
    while node.client().stream_is_refused() {}
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let target = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(100_000)
    );
    let headers = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X-A: b\r\n".repeat(500)
    );
    for head in [target, headers] {
        let mut client = shared().client();
        client.raw(head.as_bytes());
        let mut answer = Vec::new();
        // What the node has not read when it hangs up may cost the client the answer.
        let _ = client.into_stream().read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{answer:?}"
        );
    }
}

#[test]
fn health_and_readiness_are_told_apart() {
    let node = TestNode::start();
    assert_eq!(node.get("/healthz").json()["status"], "ok");
    assert_eq!(node.get("/readyz").json()["status"], "ready");
    assert_eq!(
        node.get("/healthz").header("access-control-allow-origin"),
        ""
    );
}

#[test]
fn a_full_pool_says_when_to_come_again() {
    let node = TestNode::with_options(Settings::default(), None, |options| {
        options.pool_transactions_max = 0;
    });
    let answer = node.commit(&create("full", 1));
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (503, "SERVICE UNAVAILABLE")
    );
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["status"], 503);
}

#[test]
fn metrics_count_requests_by_route_and_status() {
    let _turn = alone();
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    let node = TestNode::with(Settings {
        metrics: Some(handle),
        ..Settings::default()
    });
    node.get("/api/v1/blocks/1");
    node.get("/nowhere");
    let _subscriber = node.subscribe(STREAM);
    let answer = node.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain"));
    let text = answer.text();
    for expected in [
        "daybook_gateway_requests_total{route=\"/api/v1/blocks/{height}\",status=\"404\"}",
        "daybook_gateway_requests_total{route=\"unknown\",status=\"404\"}",
        "daybook_gateway_request_seconds",
        "daybook_gateway_connections",
        "daybook_gateway_subscribers",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    // What it tells, it explains.
    for meter in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = meter.split(' ').next().unwrap_or_default();
        let help = format!("# HELP {name} ");
        assert!(text.contains(&help), "{name} has no help in\n{text}");
    }
    assert_eq!(shared().get("/metrics").status, 404);
}

#[test]
fn tls_serves_the_same_api_and_streams() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let config = tls_config(certificate.as_bytes(), key.as_bytes()).unwrap();
    let node = TestNode::with_tls(Settings::default(), Some(config));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = Arc::new(
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    );
    let connect = || {
        let stream = TcpStream::connect(node.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let client =
            ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(client, stream)
    };
    let mut stream = connect();
    let lamp = create("tls", 1);
    let head = format!(
        "POST {POST} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        lamp.canonical().len()
    );
    stream
        .write_all(&[head.as_bytes(), lamp.canonical()].concat())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 ACCEPTED\r\n"), "{answer}");
    let url = format!("wss://localhost{STREAM}?from=1");
    let (mut socket, _) = tokio_tungstenite::tungstenite::client(url, connect()).unwrap();
    let frame = socket.read().unwrap().into_text().unwrap();
    assert!(frame.contains(&lamp.id().to_string()));
    // Plain text at a TLS port is not answered.
    let mut plain = Client::to(node.api);
    plain.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    plain.into_stream().read_to_end(&mut Vec::new()).ok();
    assert!(tls_config(b"", key.as_bytes()).is_err());
    assert!(tls_config(certificate.as_bytes(), b"nonsense").is_err());
}

#[test]
fn a_stop_finishes_what_is_under_way_and_accepts_nothing_new() {
    let mut node = TestNode::start();
    let mut idle = node.client();
    assert_eq!(idle.get("/healthz").status, 200);
    let mut busy = node.client();
    let lamp = create("stop", 1);
    let text = lamp.canonical();
    let head = format!(
        "POST {POST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        text.len()
    );
    busy.raw(head.as_bytes());
    // The node has begun to read the body.
    assert_eq!(busy.head().status, 100);
    let api = node.api;
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| node.stop_gateway());
        assert!(idle.is_closed());
        busy.raw(text);
        let answer = busy.answer(false);
        assert_eq!(answer.status, 202);
        assert!(busy.is_closed());
        stopping.join().unwrap();
    });
    assert!(TcpStream::connect(api).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut node = TestNode::with(Settings {
        shutdown_timeout: Duration::from_millis(100),
        ..Settings::default()
    });
    let mut busy = node.client();
    busy.raw(b"POST /api/v1/transactions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(busy.head().status, 100);
    node.stop_gateway();
    assert!(busy.is_closed());
}

#[test]
fn a_client_that_only_half_closes_is_still_answered() {
    let mut client = shared().client();
    client.send("GET", "/api/v1", &[], b"");
    let stream = client.into_stream();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
}

impl Client {
    fn stream_is_refused(mut self) -> bool {
        self.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let Answer { status, .. } = self.answer(false);
        status == 503
    }
}

#[test]
fn a_submitting_page_of_another_origin_gets_no_socket() {
    let node = TestNode::with(Settings {
        allowed_origins: Origins::List(Vec::new()),
        ..Settings::default()
    });
    // No origin, no browser: this one may.
    Subscriber::open(node.api, SUBMIT).unwrap();
    let headers = [
        ("Origin", "https://evil.example"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(
        node.client().request("GET", SUBMIT, &headers, b"").status,
        403
    );
}

/// A frame of a client, masked with zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0xff];
    frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn bodies_of_all_connections_share_one_room_and_hear_when_it_is_taken() {
    // The smallest room: two long bodies, and short ones beside them.
    let node = TestNode::with(Settings {
        buffer_bytes_max: 0,
        ..Settings::default()
    });
    let long = vec![b'x'; 1 << 20];
    let (text_begins, text_ends) = (0x01, 0x80);
    let mut unfinished: Vec<Subscriber> = (0..2)
        .map(|_| {
            let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
            let begin = masked(text_begins, &long[1..]);
            socket.0.get_mut().write_all(&begin).unwrap();
            // Each answer says that what came before its question was read.
            for question in ["one", "two"] {
                socket.0.send(Message::Ping(question.into())).unwrap();
                assert_eq!(socket.0.read().unwrap(), Message::Pong(question.into()));
            }
            socket
        })
        .collect();
    let answer = node.post("commit", &long);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.message(), "The node is busy: try again");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(node.commit(&create("short", 1)).status, 202);
    // A batch says so of the one line that it has no room for.
    let (short, other) = (create("a line", 1), create("another", 1));
    let lines = [short.canonical(), &long[..], other.canonical()].join(&b"\n"[..]);
    let answers = node.client().request("POST", BATCH, &[], &lines).text();
    let lines: Vec<&str> = answers.lines().collect();
    assert!(lines[0].contains("\"committed\"") && lines[2].contains("\"committed\""));
    assert!(lines[1].contains("\"busy\""), "{}", lines[1]);
    // And so does a socket, which ends there: it cannot know how its message would have begun.
    let mut third = Subscriber::open(node.api, SUBMIT).unwrap();
    let written = third
        .0
        .get_mut()
        .write_all(&masked(text_begins, &long[1..]));
    // A socket that is closed while it is written to may lose the word of why.
    let code = loop {
        match third.0.read() {
            Ok(Message::Close(frame)) => break frame.map(|frame| u16::from(frame.code)),
            Ok(_) => {}
            Err(_) => break None,
        }
    };
    assert!(code.is_none_or(|code| code == 1013), "{code:?} {written:?}");
    // What is finished is answered and makes room.
    for socket in &mut unfinished {
        socket
            .0
            .get_mut()
            .write_all(&masked(text_ends, b"x"))
            .unwrap();
        assert_eq!(socket.json()["status"], "rejected");
        socket.0.send(Message::Ping("three".into())).unwrap();
        assert_eq!(socket.0.read().unwrap(), Message::Pong("three".into()));
    }
    let began = std::time::Instant::now();
    while node.post("commit", &long).status != 400 {
        assert!(began.elapsed() < PATIENCE, "there is room again");
    }
}
