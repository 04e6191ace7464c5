//! Ledgers and what is in them, as they are listed (sections 1.2 and 1.3).

use std::sync::atomic::{AtomicU64, Ordering};

use daybook_ledger::{
    BlockTime,
    consortium::{Documents, time_text},
};
use serde_json::{Value, json};

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_from_its_creation_to_every_members_list() {
    let (_, members, _dir) = network(3).await;
    let created = members[0].command(&creation("c1", "CONT-1")).await;
    assert!(is_done(&created), "{created:?}");
    let last = created.last().unwrap();
    assert_eq!(last["ledger"], json!({"name": "CONT-1", "id": 1}));
    assert!(last.get("progress").is_none() && last.get("message").is_none());
    let progress = values(&created);
    assert!(progress.is_sorted() && progress[0] == 0 && progress.last() == Some(&100));
    for event in &created {
        assert_eq!(event["@id"].as_str().unwrap().len(), 32);
        assert_eq!(event["~thread"]["thid"], "c1");
    }
    let words: Vec<&str> = created
        .iter()
        .filter_map(|event| event["message"].as_str())
        .collect();
    for label in ["Member 1", "Member 2", "Member 3"] {
        assert!(
            words
                .iter()
                .any(|words| words.contains("endorsed by") && words.contains(label))
        );
    }
    // It is there at once, on the member that made it.
    let ledger = members[0].get("/ledgers/1/").await;
    assert_eq!(ledger.status, 200);
    assert_eq!(ledger.json()["metadata"]["actor"]["label"], "SELF");
    let issued = members[1].command(&entry("i1", json!("CONT-1"))).await;
    assert!(is_done(&issued), "{issued:?}");
    assert_eq!(issued.last().unwrap()["ledger"], json!({"name": "CONT-1"}));
    let mut roots = Vec::new();
    for member in &members {
        until("both entries are here", async || {
            member.get("/ledgers/1/transactions").await.json()["count"] == 2
        })
        .await;
        let list = member.get("/ledgers/1/transactions/").await.json();
        let newest = &list["results"][0];
        assert_eq!(newest["seq_no"], 2);
        assert_eq!(newest["metadata"]["seqNo"], 2);
        assert!(newest["metadata"]["txnTime"].is_string());
        assert!(newest["txn"].get("txnMetadata").is_none());
        assert_eq!(newest["txn"]["cargo"], "Арбузы");
        assert_eq!(newest["attachments"], json!([]));
        assert_eq!(newest["signer_label"], "Organisation 2");
        assert_eq!(newest["signer_icon"], "/icons/2.png");
        assert_eq!(newest["status"], "in_way");
        assert_eq!(newest["date"], "01.03.26");
        assert_eq!(list["results"][1]["status"], "started");
        roots.push(member.get("/ledgers/1").await.json()["root_hash"].clone());
        let meta = member.get("/ledgers/1/transactions/list_with_meta").await;
        assert_eq!(meta.status, 200);
        assert_eq!(meta.json()["results"].as_array().unwrap().len(), 2);
        assert!(meta.json()["days_in_way"].is_i64());
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{roots:?}");
    let other = members[1].get("/ledgers/1/").await.json();
    assert_eq!(other["metadata"]["actor"]["label"], "Member 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_of_a_hundred() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    for number in 0..213 {
        let events = one
            .command(&creation(&format!("c{number}"), &format!("test_{number}")))
            .await;
        assert!(is_done(&events), "{events:?}");
    }
    let two = one.get("/ledgers/?page=2").await.json();
    assert_eq!(two["results"].as_array().unwrap().len(), 100);
    assert_eq!(two["count"], 213);
    assert_eq!(two["next"], format!("{}/ledgers/?page=3", one.url));
    assert_eq!(two["previous"], format!("{}/ledgers/", one.url));
    assert_eq!(two["results"][0]["name"], "test_112");
    let last = one.get("/ledgers/?page=last").await.json();
    assert_eq!(last["results"].as_array().unwrap().len(), 13);
    assert_eq!(last["next"], Value::Null);
    assert_eq!(one.get("/ledgers/?page=9").await.status, 404);
    let found = one.get("/ledgers/?name_prefix=test_&page=2").await.json();
    assert_eq!(found["results"], two["results"]);
    assert_eq!(
        found["next"],
        format!("{}/ledgers/?name_prefix=test_&page=3", one.url)
    );
    let changed = one.get("/ledgers/?since=13&page=2").await.json();
    assert_eq!(
        (&changed["count"], &changed["next"]),
        (&json!(200), &Value::Null)
    );
    assert_eq!(changed["results"], two["results"]);
    let meta = one.get("/ledgers/list_with_meta/").await.json();
    assert_eq!(meta["results"][0]["status"], "started");
    assert_eq!(meta["results"][0]["size"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_ledgers_may_be_anything_and_do_nothing() {
    let (_, members, _dir) = network(2).await;
    for (number, name) in [
        "'; DROP TABLE ledgers; --".to_owned(),
        "$(touch never) `id` a/b, \"c\" ..".to_owned(),
        "контейнер-№1".to_owned(),
        "я".repeat(512),
    ]
    .into_iter()
    .enumerate()
    {
        let events = members[0]
            .command(&creation(&format!("c{number}"), &name))
            .await;
        assert!(is_done(&events), "{events:?}");
        let id = events.last().unwrap()["ledger"]["id"].as_u64().unwrap();
        assert_eq!(
            members[0].get(&format!("/ledgers/{id}")).await.json()["name"],
            json!(name)
        );
    }
    let long = members[0]
        .command(&creation("long", &"я".repeat(513)))
        .await;
    assert_eq!(code(&long), "request_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_listed_by_its_name_and_what_the_others_know_it_by() {
    let (_, members, _dir) = network(2).await;
    for name in ["first", "second"] {
        assert!(is_done(&members[0].command(&creation(name, name)).await));
    }
    until("both are there", async || {
        members[1].get("/ledgers/").await.json()["count"] == 2
    })
    .await;
    let list = members[1].get("/ledgers/").await.json();
    assert_eq!(
        (&list["next"], &list["previous"]),
        (&Value::Null, &Value::Null)
    );
    let names: Vec<&Value> = list["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ledger| &ledger["name"])
        .collect();
    assert_eq!(names, ["second", "first"]);
    let ledger = &list["results"][0];
    assert!(ledger["id"].is_u64());
    let metadata = &ledger["metadata"];
    assert_eq!(
        metadata["actor"],
        json!({"label": "Member 1", "did": did(1).to_string()})
    );
    let time = metadata["local_timestamp_utc"].as_str().unwrap();
    assert_eq!((time.len(), &time[4..5], &time[10..11]), (26, "-", " "));
    let mut participants: Vec<&str> = metadata["participants"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    participants.sort_unstable();
    let mut expected = [did(1).to_string(), did(2).to_string()];
    expected.sort_unstable();
    assert_eq!(participants, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_asks_for_what_changed_since_and_for_a_ledger_by_its_name() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    for name in ["A-1", "A-2", "B/1"] {
        assert!(is_done(&one.command(&creation(name, name)).await));
    }
    let found = async |query: &str| {
        let list = one.get(&format!("/ledgers/{query}")).await.json();
        let rows = list["results"].as_array().unwrap().clone();
        assert_eq!(list["count"], rows.len(), "{query}");
        let names = rows
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("").await, "B/1 A-2 A-1");
    for (query, expected) in [
        ("?name=A-1", "A-1"),
        ("?name=B%2F1", "B/1"),
        ("?name=A", ""),
        ("?name_prefix=A", "A-2 A-1"),
        ("?name_prefix=A-2", "A-2"),
        ("?name_prefix=C", ""),
        ("?name_prefix=A&name=B%2F1", ""),
        ("?since=0", "B/1 A-2 A-1"),
        ("?since=2000-01-01", "B/1 A-2 A-1"),
        ("?since=9999-01-01", ""),
        ("list_with_meta/?name=A-2", "A-2"),
    ] {
        assert_eq!(found(query).await, expected, "{query}");
    }
    let newest = one.get("/ledgers/").await.json()["results"][0].clone();
    let since = newest["changed"].as_u64().unwrap();
    assert_eq!(found(&format!("?since={since}")).await, "");
    assert!(is_done(&one.command(&entry("i", json!("A-1"))).await));
    assert_eq!(found(&format!("?since={since}")).await, "A-1");
    assert_eq!(found(&format!("?since={since}&name_prefix=A")).await, "A-1");
    assert_eq!(found(&format!("?since={since}&name=A-2")).await, "");
    // What changed last comes first.
    assert_eq!(found("?since=0").await, "A-1 B/1 A-2");
    assert_eq!(found("?since=0&name_prefix=A").await, "A-1 A-2");
    let ledger = one.get("/ledgers/1/").await.json();
    assert!(ledger["changed"].as_u64().unwrap() > since);
    let time = ledger["changed_timestamp_utc"].as_str().unwrap();
    for time in [
        time.replace(' ', "%20"),
        time.replace(' ', "+"),
        time.replace(' ', "T"),
    ] {
        let names = found(&format!("?since={time}")).await;
        assert!(names.starts_with("A-1"), "{time}: {names}");
    }
    // The entries of one ledger, by their sequence numbers.
    let numbers = async |query: &str| {
        let list = one.get(&format!("/ledgers/1/transactions/{query}")).await;
        let list = list.json();
        let rows = list["results"].as_array().unwrap().clone();
        assert_eq!(list["count"], rows.len(), "{query}");
        let numbers = rows.iter().map(|row| row["seq_no"].as_u64().unwrap());
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers("?since=0").await, [2, 1]);
    assert_eq!(numbers("?since=1").await, [2]);
    assert_eq!(numbers("?since=2").await, [0; 0]);
    assert_eq!(numbers("?since=99").await, [0; 0]);
    for wrong in [
        "/ledgers/?since=yesterday",
        "/ledgers/?since=-1",
        // It would hide whatever comes for a long time.
        "/ledgers/?since=1000",
        "/ledgers/?since=",
        "/ledgers/?name=%ff",
        "/ledgers/1/transactions/?since=x",
    ] {
        let refused = one.get(wrong).await;
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(!refused.detail().is_empty());
    }
    assert_eq!(one.get("/ledgers/?name=A-1&page=2").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_on_the_way_are_counted_from_dates_of_both_lengths_and_end_with_the_route() {
    // The members' clocks stand still, so that no midnight comes in between.
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.store(daybook_member::system_clock(), Ordering::SeqCst);
    let date = |days_ago: u64, digits_of_year: usize| {
        let ms = NOW.load(Ordering::SeqCst) - days_ago * 24 * 60 * 60 * 1_000;
        let day = time_text(BlockTime(ms));
        format!(
            "{}.{}.{}",
            &day[8..10],
            &day[5..7],
            &day[4 - digits_of_year..4]
        )
    };
    let settings = ConsortiumSettings {
        documents: Documents::Compatible,
        ..ConsortiumSettings::default()
    };
    let node = Node::with(3, settings);
    let standing = |settings: &mut daybook_member::Settings| {
        settings.clock = || NOW.load(Ordering::SeqCst);
    };
    let (members, _dir) = members_of(&node, 3, standing).await;
    let create = async |name: &str, first: &str| {
        let mut message = creation(name, name);
        message["genesis"][0]["date"] = json!(first);
        let events = members[0].command(&message).await;
        assert!(is_done(&events), "{events:?}");
        events.last().unwrap()["ledger"]["id"].as_u64().unwrap()
    };
    let issue = async |seed: usize, id: &str, ledger: &str, day: &str| {
        let mut message = entry(id, json!(ledger));
        message["date"] = json!(day);
        let events = members[seed - 1].command(&message).await;
        assert!(is_done(&events), "{events:?}");
    };
    // As each member sees them once it has all entries, over every door.
    let seen = async |ledger: u64, size: usize| {
        let mut days = Vec::new();
        for member in &members {
            let path = format!("/ledgers/{ledger}/transactions/list_with_meta");
            let mut last = json!(null);
            until("all entries are here", async || {
                let reply = member.get(&path).await;
                last = match reply.status {
                    200 => reply.json(),
                    _ => return false,
                };
                last["results"].as_array().unwrap().len() == size
            })
            .await;
            let numbers: Vec<_> = last["results"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["seq_no"].as_u64().unwrap())
                .collect();
            assert!(
                numbers.is_sorted_by(|one, other| one > other),
                "{numbers:?}"
            );
            assert_eq!(member.get(&format!("{path}/")).await.json(), last);
            assert_eq!(member.post(&path, b"").await.json(), last);
            assert_eq!(member.post(&format!("{path}/"), b"").await.json(), last);
            days.push((
                last["days_in_way"].clone(),
                last["approaching_days"].clone(),
            ));
        }
        days
    };
    let none = Value::Null;
    // Two digits of a year, and then four. Who comes next on the route knows how long it may take.
    let way = create("WAY", &date(12, 2)).await;
    let days = json!(12);
    assert_eq!(
        seen(way, 1).await,
        [
            (days.clone(), none.clone()),
            (days.clone(), json!(-2)),
            (days.clone(), none.clone()),
        ]
    );
    issue(2, "w2", "WAY", &date(8, 4)).await;
    let on_its_way = (days, none.clone());
    assert_eq!(seen(way, 2).await, [(); 3].map(|()| on_its_way.clone()));
    issue(3, "w3", "WAY", &date(1, 2)).await;
    let arrived = (json!(-1), none.clone());
    assert_eq!(seen(way, 3).await, [(); 3].map(|()| arrived.clone()));
    // Four digits first; and what is no date at the beginning or at the end.
    let long = create("LONG", &date(13, 4)).await;
    assert_eq!(seen(long, 1).await[0].0, json!(13));
    issue(2, "l2", "LONG", "tomorrow").await;
    let unknown = (none.clone(), none);
    assert_eq!(seen(long, 2).await, [(); 3].map(|()| unknown.clone()));
    for (name, day) in [
        ("US", "03/01/2024"),
        ("ISO", "2024-03-01"),
        ("NO", "30.02.24"),
    ] {
        let ledger = create(name, day).await;
        assert_eq!(
            seen(ledger, 1).await,
            [(); 3].map(|()| unknown.clone()),
            "{day}"
        );
    }
}
