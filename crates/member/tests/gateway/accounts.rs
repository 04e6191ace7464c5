//! Who is let in, and what for (sections 1.1, 1.6 and 1.7).

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_credentials_or_wrong_ones_gets_nothing() {
    let (_, members, _dir) = network(2).await;
    let url = &members[0].url;
    let none = ask(url, "GET", "/ledgers/", "", b"").await;
    assert_eq!(none.status, 401);
    assert_eq!(none.header("www-authenticate"), Some("Basic realm=\"api\""));
    assert_eq!(
        none.detail(),
        "Authentication credentials were not provided."
    );
    for login in [
        basic("user1", "wrong horse"),
        // A user of another member.
        basic("user2", PASSWORD),
        "Authorization: Basic !!!\r\n".to_owned(),
        "Authorization: Bearer 00000000000000000000000000000000\r\n".to_owned(),
    ] {
        let denied = ask(url, "GET", "/ledgers/", &login, b"").await;
        assert_eq!(denied.status, 401, "{login}");
        assert_eq!(denied.detail(), "Invalid username/password.");
        let denied = ask(url, "POST", "/upload", &login, b"").await;
        assert_eq!(denied.status, 403);
        assert_eq!(denied.header("www-authenticate"), None);
    }
    assert_eq!(ask(url, "POST", "/upload/", "", b"").await.status, 403);
    for (method, path, status) in [
        ("GET", "/ledgers", 200),
        ("GET", "/ledgers.json", 200),
        ("HEAD", "/ledgers/", 200),
        ("OPTIONS", "/ledgers/", 200),
        ("POST", "/ledgers/", 405),
        ("GET", "/upload", 405),
        ("GET", "/ledgers/abc/", 404),
        ("GET", "/ledgers/7/", 404),
        ("GET", "/ledgers/abc/transactions/", 404),
        ("GET", "/ledgers/7/transactions/", 404),
        ("GET", "/ledgers/7/transactions/1/", 404),
        ("GET", "/ledgers/7/transactions/list_with_meta/", 404),
        ("GET", "/ledgers/?page=9", 404),
        ("GET", "/ledgers/?page=x", 404),
        ("GET", "/nothing/", 404),
        ("GET", "/uploads", 404),
        ("GET", "/operations/unknown/", 404),
        ("GET", "/gu-11/", 200),
        ("GET", "/gu-12/1/", 404),
        ("GET", "/transactions/", 404),
    ] {
        let reply = ask(url, method, path, &members[0].login(), b"").await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        if method == "HEAD" {
            assert!(reply.body.is_empty());
        } else {
            reply.json();
        }
    }
    let invalid = members[0].get("/ledgers/?page=9").await;
    assert_eq!(invalid.detail(), "Invalid page.");
    let options = ask(url, "OPTIONS", "/ledgers/", &members[0].login(), b"").await;
    for name in ["name", "description", "renders", "parses"] {
        assert!(options.json().get(name).is_some());
    }
    let refused = ask(url, "POST", "/ledgers/", &members[0].login(), b"").await;
    assert_eq!(refused.detail(), "Method \"POST\" not allowed.");
    assert!(refused.header("allow").unwrap().contains("GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_needs_its_token_for_what_changes_something() {
    let (_, members, _dir) = network(2).await;
    let url = &members[0].url;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let wrong = ask(url, "POST", "/auth/", form, b"login=user1&password=x").await;
    assert_eq!(
        (wrong.status, wrong.json()["success"].clone()),
        (400, json!(false))
    );
    let right = ask(
        url,
        "POST",
        "/auth/",
        form,
        b"login=user1&password=correct+horse",
    )
    .await;
    assert_eq!(right.status, 200, "{}", right.json());
    let value = |name: &str| {
        let cookies = right
            .headers
            .iter()
            .filter(|(header, _)| header == "set-cookie");
        let found = cookies.filter_map(|(_, cookie)| cookie.split(';').next()?.split_once('='));
        found
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1
            .to_owned()
    };
    let cookies = format!(
        "Cookie: sessionid={}; csrftoken={}\r\n",
        value("sessionid"),
        value("csrftoken")
    );
    let read = ask(url, "GET", "/ledgers/", &cookies, b"").await;
    assert_eq!(read.status, 200);
    let refused = ask(url, "POST", "/maintenance/allocate_token/", &cookies, b"").await;
    assert_eq!(refused.status, 403);
    assert!(refused.detail().starts_with("CSRF Failed: "));
    let with = format!("{cookies}X-CSRFToken: {}\r\n", value("csrftoken"));
    let taken = ask(url, "POST", "/maintenance/allocate_token/", &with, b"").await;
    assert_eq!(taken.json()["token"].as_str().unwrap().len(), 32);
    let elsewhere = format!("{form}Origin: https://elsewhere.example\r\n");
    let refused = ask(
        url,
        "POST",
        "/auth/",
        &elsewhere,
        b"login=user1&password=correct+horse",
    )
    .await;
    assert_eq!(refused.status, 403);
    ask(url, "POST", "/auth/logout/", &with, b"").await;
    assert_eq!(
        ask(url, "GET", "/ledgers/", &cookies, b"").await.status,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_no_token_and_no_user_and_decides_nothing() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let bearer = format!("Authorization: Bearer {}\r\n", one.token().await);
    for (method, path, status) in [
        ("GET", "/ledgers/", 200),
        ("GET", "/proposals/", 200),
        ("GET", "/maintenance/allocate_token/", 403),
        ("POST", "/maintenance/allocate_token/", 403),
        ("POST", "/user-create/", 403),
        ("POST", "/proposals/00/endorse/", 403),
        ("POST", "/proposals/00/refuse/", 403),
    ] {
        let reply = ask(&one.url, method, path, &bearer, b"").await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_passwords_has_to_wait_and_who_is_known_has_not() {
    /// Log-ins of one address that may fail at once, and seconds until one more may.
    const AT_ONCE: usize = 20;
    const AGAIN: u64 = 30;
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.store(daybook_member::system_clock(), Ordering::SeqCst);
    let node = Node::new(2);
    let stopped = |settings: &mut daybook_member::Settings| {
        settings.clock = || NOW.load(Ordering::SeqCst);
    };
    let (members, _dir) = members_of(&node, 2, stopped).await;
    let one = &members[0];
    add_user(one, "another", "another horse");
    assert_eq!(one.get("/ledgers/").await.status, 200);
    let guess = async |name: &str| {
        let login = basic(name, "wrong horse");
        ask(&one.url, "GET", "/ledgers/", &login, b"").await
    };
    for number in 0..AT_ONCE {
        // Whether there is such a user makes no difference.
        let name = ["user1", "another", "nobody"][number % 3];
        assert_eq!(guess(name).await.status, 401, "{number}");
    }
    for name in ["user1", "another", "nobody"] {
        let refused = guess(name).await;
        assert_eq!(refused.status, 429, "{name}");
        assert_eq!(refused.header("retry-after"), Some("30"));
        assert_eq!(
            refused.detail(),
            "Too many failed log-ins: try again later."
        );
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login = b"login=user1&password=wrong";
    let refused = ask(&one.url, "POST", "/auth/", form, login).await;
    assert_eq!(refused.status, 429);
    let wrong = basic("user1", "wrong horse");
    let refused = ask(&one.url, "POST", "/upload", &wrong, b"").await;
    assert_eq!(refused.status, 429);
    // A right password is not looked at either, unless it was right before.
    let right = basic("another", "another horse");
    let waits = ask(&one.url, "GET", "/ledgers/", &right, b"").await;
    assert_eq!(waits.status, 429);
    assert_eq!(one.get("/ledgers/").await.status, 200);
    NOW.fetch_add(AGAIN * 1_000, Ordering::SeqCst);
    let let_in = ask(&one.url, "GET", "/ledgers/", &right, b"").await;
    assert_eq!(let_in.status, 200);
    // It was no failure, so there is one left.
    assert_eq!(guess("user1").await.status, 401);
    assert_eq!(guess("user1").await.status, 429);
    // Another member's users are another's.
    assert_eq!(members[1].get("/ledgers/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_each_address_that_it_saw_is_one() {
    const AT_ONCE: usize = 20;
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.store(daybook_member::system_clock(), Ordering::SeqCst);
    for (trusted, expected) in [(true, 401), (false, 429)] {
        let node = Node::new(1);
        let proxied = |settings: &mut daybook_member::Settings| {
            settings.clock = || NOW.load(Ordering::SeqCst);
            settings.trust_forwarded = trusted;
        };
        let (members, _dir) = members_of(&node, 1, proxied).await;
        let guess = async |from: &str| {
            let login = basic("user1", "wrong horse");
            let headers = format!("{login}X-Forwarded-For: {from}\r\n");
            ask(&members[0].url, "GET", "/ledgers/", &headers, b"").await
        };
        for number in 0..AT_ONCE {
            // What a client adds itself stands before what the proxy saw.
            let from = format!("10.0.0.{number}, 192.0.2.1");
            assert_eq!(guess(&from).await.status, 401);
        }
        assert_eq!(guess("192.0.2.1").await.status, 429);
        let other = guess("192.0.2.1, 192.0.2.2").await;
        assert_eq!(other.status, expected, "{trusted}");
    }
}
