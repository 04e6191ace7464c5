//! Whether the members answer (section 6.3).

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_names_who_does_not_answer() {
    /// Milliseconds that the members' clocks are ahead of the system's.
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    let node = Node::new(3);
    let later = |settings: &mut daybook_member::Settings| {
        settings.clock = || daybook_member::system_clock() + AHEAD.load(Ordering::SeqCst);
    };
    let (members, _dir) = members_of(&node, 3, later).await;
    for member in &members {
        until("it knows the members and hears them", async || {
            let known = member.get("/members/").await.json();
            known["results"].as_array().unwrap().len() == 3 && member.listens.load(Ordering::SeqCst)
        })
        .await;
    }
    let mut well = json!(null);
    until("all answer", async || {
        let reply = members[0].get("/maintenance/check_health/").await;
        well = reply.json();
        reply.status == 200
    })
    .await;
    assert_eq!(well["message"], "OK");
    assert_eq!(well["participants"].as_object().unwrap().len(), 2);
    until("the second has heard the third, too", async || {
        let known = members[1].get("/members/").await.json();
        let mut known = known["results"].as_array().unwrap().iter();
        known.any(|member| member["did"] == did(3).to_string() && member["last_heard"].is_string())
    })
    .await;
    members[2].down.store(true, Ordering::SeqCst);
    let ill = members[1].get("/maintenance/check_health").await;
    assert_eq!(ill.status, 503);
    let answer = ill.json();
    assert_eq!(answer["success"], false);
    assert!(answer["message"].as_str().unwrap().contains("Member 3"));
    let missing = &answer["participants"][did(3).to_string()];
    assert_eq!(missing["ok"], false);
    assert!(missing["last_heard"].is_string(), "{missing}");
    let probe = ask(
        &members[1].url,
        "GET",
        "/maintenance/check_health/",
        "",
        b"",
    )
    .await;
    assert_eq!(probe.status, 503);
    assert!(probe.json().get("participants").is_none());
    assert!(!probe.json()["message"].as_str().unwrap().contains("Member"));
    // Who comes back is heard, as soon as it is asked again.
    members[2].down.store(false, Ordering::SeqCst);
    until("all answer again", async || {
        AHEAD.fetch_add(11_000, Ordering::SeqCst);
        members[1].get("/maintenance/check_health/").await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_fails_before_the_member_has_read_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(2);
    node.down.store(true, Ordering::SeqCst);
    let one = start(&node, 1, dir.path()).await;
    let early = one.get("/maintenance/check_health/").await;
    assert_eq!(early.status, 503);
    let message = early.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("read of itself"), "{message}");
}
