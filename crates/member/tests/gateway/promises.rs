//! What members promise each other, whatever happens in between: a request is one operation, a notice reaches
//! everybody, and a key that was replaced speaks no more.

use daybook_ledger::consortium::{Body, Profile};
use daybook_member::Ended;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{client::*, common::*};

/// A plan document with a number.
fn numbered(id: &str, no: &str) -> Value {
    let mut message = plan("gu-11", id);
    message["no"] = json!(no);
    message
}

async fn plans(member: &Running) -> u64 {
    let list = member.get("/gu-11/").await.json();
    list["count"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_stands_for_one_request_of_whatever_kind() {
    let (node, members, _dir) = network(2).await;
    let (one, two) = (&members[0], &members[1]);
    let issue = |id: &str, no: &str| {
        let mut message = entry(id, json!("CONT-1"));
        message["no"] = json!(no);
        message
    };
    let asked = [
        numbered("p", "1"),
        creation("c", "CONT-1"),
        issue("i", "WB-2"),
    ];
    for message in &asked {
        assert!(is_done(&one.command(message).await), "{message}");
    }
    let known = one.get("/operations/p/").await.json();
    assert_eq!(
        (&known["kind"], &known["status"]),
        (&json!("gu-11"), &json!("done"))
    );
    let mut other_policy = creation("c", "CONT-1");
    other_policy["policy"] = json!({"at_least": 2});
    for other in [
        numbered("p", "2"),
        plan("gu-12", "p"),
        numbered("i", "1"),
        creation("c", "CONT-2"),
        other_policy,
        creation("p", "CONT-2"),
        issue("i", "WB-3"),
        issue("p", "WB-3"),
    ] {
        let refused = one.command(&other).await;
        assert_eq!(code(&refused), "request_error", "{refused:?}");
        let explain = refused[0]["explain"].as_str().unwrap();
        assert!(explain.contains("used for something else"), "{explain}");
    }
    // The same again is what it was.
    for message in &asked {
        assert!(is_done(&one.command(message).await), "{message}");
    }
    until("the document is there", async || plans(two).await == 1).await;
    assert_eq!(two.get("/gu-12/").await.json()["count"], 0);
    assert_eq!(plans(one).await, 1);
    assert_eq!(node.tree("CONT-1").unwrap().1, 2);
    assert_eq!(node.entries_of("propose"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_lost_lets_no_second_document_through_under_a_used_id() {
    let (node, mut members, dir) = network(2).await;
    let one = members.remove(0);
    assert!(is_done(&one.command(&numbered("p", "1")).await));
    let folder = one.folder.clone();
    one.stop().await;
    std::fs::remove_file(folder.join("member.redb")).unwrap();
    // The relay knows of it: whatever comes first, the document itself or its sender's second one.
    let one = start(&node, 1, dir.path()).await;
    let refused = one.command(&numbered("p", "2")).await;
    assert_eq!(code(&refused), "request_error", "{refused:?}");
    until("it is back", async || plans(&one).await == 1).await;
    assert_eq!(one.get("/gu-11/1/").await.json()["no"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_while_its_first_one_ends_is_not_begun_again() {
    /// Sockets that say the same at the same moment, and how often.
    const SOCKETS: usize = 8;
    const ROUNDS: usize = 10;
    let (node, members, _dir) = network(2).await;
    let one = &members[0];
    assert!(is_done(&one.command(&creation("c", "CONT-1")).await));
    for round in 0..ROUNDS {
        let message = entry(&format!("i{round}"), json!("CONT-1"));
        let before = node.submissions_by(1);
        let ends = (0..SOCKETS).map(|_| async {
            // One after the other, so that some come when the first is about to end.
            let first = one.command(&message).await;
            let again = one.command(&message).await;
            is_done(&first) && is_done(&again)
        });
        assert!(join_all(ends).await.into_iter().all(|done| done));
        assert_eq!(node.submissions_by(1), before + 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_restored_hides_nothing_from_a_member_that_was_ahead() {
    let (node, mut members, dir) = network(2).await;
    let (two, one) = (members.remove(1), members.remove(0));
    let send = async |id: &str| assert!(is_done(&one.command(&numbered(id, id)).await));
    send("a").await;
    until("the first is there", async || plans(&two).await == 1).await;
    node.back_up_relay();
    send("b").await;
    until("the second is there", async || plans(&two).await == 2).await;
    node.restore_relay();
    // It gets the number that the second one had.
    send("c").await;
    until("the third is there", async || plans(&two).await == 3).await;
    // A member that is away meanwhile gets it, too, and what it has it does not get twice.
    two.stop().await;
    node.restore_relay();
    send("d").await;
    let two = start(&node, 2, dir.path()).await;
    until("the fourth is there", async || plans(&two).await == 4).await;
    let kept = two.get("/gu-11/").await.json();
    let numbers = kept["results"].as_array().unwrap().iter();
    assert!(numbers.map(|plan| &plan["no"]).eq(["d", "c", "b", "a"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_key_was_replaced_says_so_and_ends() {
    let (node, members, _dir) = network(2).await;
    let profile = Profile {
        label: "Member 1".to_owned(),
        ..Profile::default()
    };
    let card = card(1).next(profile, &key(101));
    node.ask(&Body::Announce { card }, 1).unwrap();
    let one = &members[0];
    let ended = timeout(PATIENCE, one.member().failed()).await.unwrap();
    assert_eq!(ended, Ended::KeyReplaced(key(101).public_key()));
    let health = one.get("/maintenance/check_health/").await;
    assert_eq!(health.status, 503);
    let message = health.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("its key was replaced"), "{message}");
}
