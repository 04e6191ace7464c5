//! Plan documents (sections 1.4 and 2.5).

use serde_json::json;

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn plan_documents_reach_every_member_and_the_socket_closes() {
    let (_, members, _dir) = network(3).await;
    let sent = members[0].command(&plan("gu-11", "g")).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0]["progress"].clone(), sent[0]["done"].clone()),
        (json!(100), json!(true))
    );
    assert!(is_done(&members[0].command(&plan("gu-11", "g")).await));
    assert!(is_done(&members[1].command(&plan("gu-12", "g")).await));
    for member in &members {
        until("both have arrived", async || {
            let count = |list: Reply| list.json()["count"].as_u64().unwrap();
            count(member.get("/gu-11/").await) == 1 && count(member.get("/gu-12/").await) == 1
        })
        .await;
        let listed = member.get("/gu-11/").await.json()["results"][0].clone();
        assert_eq!(listed["decade"], "2");
        assert_eq!(listed["attachments"][0]["filename"], "p.pdf");
        assert!(member.get("/gu-12/1/").await.json().get("decade").is_none());
    }
    let mut long = plan("gu-11", "h");
    long["shipper"] = json!("x".repeat(129));
    assert_eq!(code(&members[0].command(&long).await), "request_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_send_plan_documents_and_make_users_for_those_who_may() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let plan = json!({"no": "1", "date": "d", "cargo_name": "c", "depart_station": "a", "arrival_station": "b",
        "month": "March", "year": "2026", "tonnage": "22", "shipper": "s", "decade": "2",
        "attachments": r#"[{"url":"u","md5":"m","filename":"f","mime_type":"t"}]"#});
    assert_eq!(
        ask(&one.url, "POST", "/create-gu11/", "", b"{}")
            .await
            .status,
        401
    );
    let sent = one.post("/create-gu12/", plan.to_string().as_bytes()).await;
    assert_eq!(sent.json(), json!({"success": true, "errors": null}));
    until("the other has it", async || {
        members[1].get("/gu-12/").await.json()["count"] == 1
    })
    .await;
    let listed = members[1].get("/gu-12/1").await.json();
    assert_eq!(
        listed["attachments"],
        json!([{"url": "u", "md5": "m", "filename": "f", "mime_type": "t"}])
    );
    let mut lacking = plan.clone();
    lacking["decade"] = json!("");
    lacking["shipper"] = json!("x".repeat(129));
    let refused = one
        .post("/create-gu12", lacking.to_string().as_bytes())
        .await
        .json();
    assert_eq!(refused["success"], false);
    assert!(refused["errors"]["decade"].is_string() && refused["errors"]["shipper"].is_string());

    let user = json!({"username": "new", "password": "quite long", "first_name": "New"});
    let made = one
        .post("/user-create/", user.to_string().as_bytes())
        .await
        .json();
    assert_eq!(
        made["account"],
        json!({"username": "new", "first_name": "New", "last_name": ""})
    );
    let again = one
        .post("/user-create/", user.to_string().as_bytes())
        .await
        .json();
    assert!(again["errors"]["username"].is_string(), "{again}");
    let headers = format!(
        "{}Content-Type: application/json\r\n",
        basic("new", "quite long")
    );
    let denied = ask(&one.url, "POST", "/user-create/", &headers, b"{}").await;
    assert_eq!(denied.status, 403);
    let short = json!({"username": "other", "password": "x", "first_name": "O"});
    let short = one
        .post("/user-create/", short.to_string().as_bytes())
        .await
        .json();
    assert!(short["errors"]["password"].is_string(), "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_documents_are_listed_in_pages_the_newest_first() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let mut form = json!({"no": "1", "date": "d", "cargo_name": "c", "depart_station": "a", "arrival_station": "b",
        "month": "March", "year": "2026", "tonnage": "22", "shipper": "s", "decade": "2"});
    for number in 1..=101 {
        form["no"] = json!(number.to_string());
        let sent = one.post("/create-gu11/", form.to_string().as_bytes()).await;
        assert_eq!(sent.json()["success"], true, "{}", sent.json());
    }
    until("all have arrived", async || {
        members[1].get("/gu-11/").await.json()["count"] == 101
    })
    .await;
    let first = members[1].get("/gu-11/").await.json();
    assert_eq!(first["results"].as_array().unwrap().len(), 100);
    assert_eq!(first["results"][0]["no"], "101");
    assert_eq!(first["next"], format!("{}/gu-11/?page=2", members[1].url));
    let last = members[1].get("/gu-11/?page=last").await.json();
    assert_eq!(last["results"].as_array().unwrap().len(), 1);
    assert_eq!(last["results"][0]["no"], "1");
    assert_eq!(members[1].get("/gu-12/").await.json()["count"], 0);
}
