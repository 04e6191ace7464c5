//! What the members agree on, and what becomes of it when some are away.

use std::{sync::atomic::Ordering, time::Duration};

use daybook_ledger::consortium::{Action, Answer, Body, Outcome, Policy, ProposalStatus, Propose};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn unanimity_names_who_is_missing_and_a_quorum_goes_on_without() {
    let (node, members, _dir) = network(3).await;
    let mut quorum = creation("q", "QUORUM");
    quorum["policy"] = json!({"at_least": 2});
    assert!(is_done(&members[0].command(&quorum).await));
    assert!(is_done(&members[0].command(&creation("u", "ALL")).await));
    members[2].down.store(true, Ordering::SeqCst);
    assert!(is_done(
        &members[0].command(&entry("q1", json!("QUORUM"))).await
    ));
    let expired = async |id: &str, ledger: Value| {
        let mut message = entry(id, ledger);
        message["time_to_live"] = json!(600);
        let passing = async {
            until("all but one have endorsed it", async || {
                matches!(node.outcome(id), Some(Outcome::Pending(progress))
                    if progress.endorsed.len() == 2 && progress.missing == [did(3)])
            })
            .await;
            node.pass(Duration::from_secs(601));
        };
        tokio::join!(members[0].command(&message), passing).0
    };
    let events = expired("u1", json!("ALL")).await;
    assert_eq!(code(&events), "request_processing_error", "{events:?}");
    let report = events.last().unwrap();
    assert_eq!(report["participants"], json!([did(3).to_string()]));
    assert_eq!(report["stage"], "endorsing");
    let explain = report["explain"].as_str().unwrap();
    assert!(
        explain.contains("Member 3") && explain.contains("expired"),
        "{explain}"
    );
    assert_eq!(values(&events).last(), Some(&100));
    // Several ledgers at once: all or none.
    let both = expired("both", json!(["ALL", "QUORUM"])).await;
    assert!(!is_done(&both));
    assert_eq!(node.tree("QUORUM").unwrap().1, 2);
    assert_eq!(node.pending(), 0);
    members[2].down.store(false, Ordering::SeqCst);
    let both = entry("both-again", json!(["ALL", "QUORUM"]));
    let events = members[0].command(&both).await;
    assert!(is_done(&events), "{events:?}");
    assert_eq!(
        events.last().unwrap()["ledger"]["name"],
        json!(["ALL", "QUORUM"])
    );
    for name in ["ALL", "QUORUM"] {
        let id = match name {
            "QUORUM" => 1,
            _ => 2,
        };
        until("the member has caught up", async || {
            let mirrored = members[2].get(&format!("/ledgers/{id}/")).await.json();
            mirrored["root_hash"] == json!(node.tree(name).unwrap().0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_a_ledger_gets_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(3);
    let mut members = Vec::new();
    for seed in 1..=3 {
        let willing = |settings: &mut daybook_member::Settings| {
            settings.rules.members = Answer::Endorse;
        };
        members.push(start_with(&node, seed, dir.path(), willing).await);
    }
    assert!(is_done(&members[0].command(&creation("c", "CONT-1")).await));
    let regroup = async |request: &str, seeds: &[u8]| {
        let body = Body::Propose(Propose {
            member: did(1),
            request: request.to_owned(),
            deadline: daybook_ledger::BlockTime(daybook_member::system_clock() + 300_000),
            action: Action::Regroup {
                ledger: "CONT-1".to_owned(),
                participants: seeds.iter().map(|seed| did(*seed)).collect(),
                policy: Policy::Unanimous,
            },
        });
        node.ask(&body, 1).unwrap();
        until("it is agreed", async || {
            matches!(node.outcome(request), Some(Outcome::Decided(_)))
        })
        .await;
    };
    regroup("without", &[1, 2]).await;
    for id in ["missed-1", "missed-2"] {
        assert!(is_done(
            &members[0].command(&entry(id, json!("CONT-1"))).await
        ));
    }
    regroup("with", &[1, 2, 3]).await;
    assert!(is_done(
        &members[0].command(&entry("seen", json!("CONT-1"))).await
    ));
    until("everything is there", async || {
        let list = members[2].get("/ledgers/1/transactions/").await.json();
        let rows = list["results"].as_array().unwrap().iter();
        rows.map(|row| row["seq_no"].as_u64().unwrap())
            .eq([4, 3, 2, 1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_or_a_program_may_refuse_with_a_reason_that_the_proposer_reads() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(3);
    let one = start(&node, 1, dir.path()).await;
    let by_hand = start_with(&node, 2, dir.path(), |settings| {
        settings.rules.entries = Answer::Ask;
    })
    .await;
    let _program = start_with(&node, 3, dir.path(), |settings| {
        settings.check = Some(daybook_member::Check {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".to_owned(),
                "grep -q Dynamite || exit 0; echo no explosives; exit 1".to_owned(),
            ],
            within: Duration::from_secs(60),
        });
    })
    .await;
    let mut creating = creation("c", "CONT-1");
    creating["genesis"][0]["cargo"] = json!("Dynamite");
    creating["time_to_live"] = json!(600);
    let refused = one.command(&creating).await;
    let report = refused.last().unwrap();
    assert_eq!(report["problem-code"], "request_processing_error");
    assert!(
        report["explain"]
            .as_str()
            .unwrap()
            .contains("no explosives"),
        "{report}"
    );
    assert_eq!(report["participants"], json!([did(3).to_string()]));
    // What is sound waits for a person.
    let asking = async { one.command(&creation("d", "CONT-2")).await };
    let deciding = async {
        let mut id = String::new();
        until("a person is asked", async || {
            let waiting = by_hand.get("/proposals/").await.json();
            match waiting["results"].get(0) {
                Some(first) if first["ledgers"] == json!(["CONT-2"]) => {
                    id = first["proposal"].as_str().unwrap().to_owned();
                    assert_eq!(first["entries"][0]["cargo"], "Арбузы");
                    true
                }
                _ => false,
            }
        })
        .await;
        let no_reason = by_hand
            .post(&format!("/proposals/{id}/refuse"), b"{}")
            .await;
        assert_eq!(no_reason.status, 400);
        let said = by_hand
            .post(&format!("/proposals/{id}/endorse/"), b"")
            .await;
        assert_eq!(
            (said.status, said.json()["decision"].clone()),
            (200, json!("endorsed"))
        );
    };
    let (done, ()) = tokio::join!(asking, deciding);
    assert!(is_done(&done), "{done:?}");
    assert_eq!(by_hand.post("/proposals/00/endorse", b"").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_starts_again_takes_up_what_it_had_begun_and_says_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    let one = start(&node, 1, dir.path()).await;
    let two = start(&node, 2, dir.path()).await;
    two.down.store(true, Ordering::SeqCst);
    let mut socket = one.socket(&one.token().await).await.unwrap();
    let mut message = creation("c", "CONT-1");
    message["time_to_live"] = json!(300);
    socket
        .send(Message::text(message.to_string()))
        .await
        .unwrap();
    until("it is proposed", async || node.entries_of("propose") == 1).await;
    drop(socket);
    one.stop().await;
    two.down.store(false, Ordering::SeqCst);
    until("it is committed", async || node.tree("CONT-1").is_some()).await;
    let one = start(&node, 1, dir.path()).await;
    until("its outcome is known", async || {
        one.get("/operations/c/").await.json()["status"] == "done"
    })
    .await;
    assert_eq!(node.entries_of("propose"), 1);
    // A mirror that is gone is made again from the log, the same as before.
    let before = one.get("/ledgers/1/").await.json();
    let transactions = one.get("/ledgers/1/transactions/").await.json()["results"].clone();
    let folder = one.folder.clone();
    one.stop().await;
    std::fs::remove_file(folder.join("mirror.redb")).unwrap();
    let one = start(&node, 1, dir.path()).await;
    until("the mirror is made again", async || {
        one.get("/ledgers/1/").await.status == 200
    })
    .await;
    assert_eq!(one.get("/ledgers/1/").await.json(), before);
    assert_eq!(
        one.get("/ledgers/1/transactions/").await.json()["results"],
        transactions
    );
    assert!(is_done(&one.command(&message).await));
    assert_eq!(node.entries_of("propose"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_for_a_hundred_ledgers_changes_none_when_one_of_them_is_busy() {
    let (node, members, _dir) = network(2).await;
    let names: Vec<String> = (0..100).map(|number| format!("CONT-{number}")).collect();
    for name in &names {
        assert!(is_done(&members[0].command(&creation(name, name)).await));
    }
    let proposed = node.entries_of("propose");
    members[1].down.store(true, Ordering::SeqCst);
    // One of them waits for an answer that does not come.
    let mut socket = members[0].socket(&members[0].token().await).await.unwrap();
    let mut busy = entry("busy", json!("CONT-57"));
    busy["time_to_live"] = json!(600);
    socket.send(Message::text(busy.to_string())).await.unwrap();
    until("it is proposed", async || {
        node.entries_of("propose") == proposed + 1
    })
    .await;
    let mut all = entry("all", json!(names));
    all["time_to_live"] = json!(300);
    let passing = async {
        until("it waits for the other", async || {
            matches!(node.outcome("all"), Some(Outcome::Pending(progress))
                if matches!(progress.status, ProposalStatus::Waiting { .. }))
        })
        .await;
        node.pass(Duration::from_secs(301));
    };
    let (events, ()) = tokio::join!(members[0].command(&all), passing);
    assert_eq!(code(&events), "request_processing_error");
    assert_eq!(events.last().unwrap()["stage"], "waiting");
    for name in &names {
        assert_eq!(node.tree(name).unwrap().1, 1, "{name}");
    }
    members[1].down.store(false, Ordering::SeqCst);
    assert!(is_done(&crate::client::events(&mut socket).await));
    let mut again = entry("again", json!(names));
    again["time_to_live"] = json!(600);
    assert!(is_done(&members[0].command(&again).await));
    for name in &names {
        assert_eq!(
            node.tree(name).unwrap().1,
            if name == "CONT-57" { 3 } else { 2 }
        );
    }
}
