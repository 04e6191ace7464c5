//! Files: uploaded, attached, given to who may read them (section 1.5).

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn documents_come_back_as_they_were_sent_and_attachments_must_match_them() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let reply = one.upload("Акт 7.PDF", b"hello world").await;
    assert_eq!(reply.status, 200);
    let document = reply.json();
    assert_eq!(document["md5"], "5eb63bbbe01eeed093cb22bb8f5acdc3");
    assert_eq!(document["filename"], "Акт 7.PDF");
    let url = document["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&one.url).unwrap().to_owned();
    assert!(path.starts_with("/content/") && path.ends_with(".pdf"));
    let back = one.get(&path).await;
    assert_eq!(
        (back.status, back.body.as_slice()),
        (200, &b"hello world"[..])
    );
    assert_eq!(back.header("x-content-type-options"), Some("nosniff"));
    assert!(
        back.header("content-disposition")
            .unwrap()
            .starts_with("attachment")
    );
    assert!(
        back.header("content-security-policy")
            .unwrap()
            .contains("sandbox")
    );
    let tag = back.header("etag").unwrap();
    let ranged = format!("{}Range: bytes=6-\r\n", one.login());
    let part = ask(&one.url, "GET", &path, &ranged, b"").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &b"world"[..]));
    assert_eq!(part.header("content-range"), Some("bytes 6-10/11"));
    let known = format!("{}If-None-Match: {tag}\r\n", one.login());
    assert_eq!(ask(&one.url, "GET", &path, &known, b"").await.status, 304);
    assert_eq!(ask(&one.url, "GET", &path, "", b"").await.status, 401);
    let missing = one.get("/content/00.pdf").await;
    assert_eq!((missing.status, missing.json()), (404, json!("Not Found")));
    let headers = format!(
        "{}Content-Type: multipart/form-data; boundary=B\r\n",
        one.login()
    );
    let none = ask(&one.url, "POST", "/upload", &headers, b"--B--\r\n").await;
    assert_eq!(
        (none.status, none.json()),
        (400, json!("Expected file value"))
    );
    let cut = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf";
    assert_eq!(
        ask(&one.url, "POST", "/upload", &headers, cut).await.status,
        400
    );

    assert!(is_done(&one.command(&creation("c", "CONT-1")).await));
    let with = |id: &str, url: &str, md5: &str| attaching(id, "CONT-1", url, md5);
    let md5 = document["md5"].as_str().unwrap();
    let wrong = one
        .command(&with("w", &url, "00000000000000000000000000000000"))
        .await;
    assert_eq!(code(&wrong), "request_error");
    let unknown = one
        .command(&with("v", &format!("{}/content/11.pdf", one.url), md5))
        .await;
    assert_eq!(code(&unknown), "request_error");
    let right = one.command(&with("r", &url, md5)).await;
    assert!(is_done(&right), "{right:?}");
    let newest = one.get("/ledgers/1/transactions/2").await.json();
    assert_eq!(
        newest["attachments"][0]["data"]["json"]["sha256"],
        document["sha256"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_ledger_reads_its_documents_and_nobody_else_does() {
    let (node, members, _dir) = network(3).await;
    let (one, two, three) = (&members[0], &members[1], &members[2]);
    let mut creating = creation("c", "CONT-1");
    creating["group"] = json!([did(1).to_string(), did(2).to_string()]);
    assert!(is_done(&one.command(&creating).await));
    let document = one.upload("a.pdf", b"a document").await.json();
    let url = document["url"].as_str().unwrap();
    let path = url.strip_prefix(&one.url).unwrap();
    let mut message = entry("i", json!("CONT-1"));
    message["~attach"] = json!([{"@id": "document-0", "mime_type": "application/pdf", "filename": "a.pdf",
        "data": {"json": {"url": url, "md5": document["md5"]}}}]);
    assert!(is_done(&one.command(&message).await));
    until("the other has the entry", async || {
        two.get("/ledgers/1/").await.json()["size"] == 2
    })
    .await;
    // An address that its signer does not vouch for is not asked.
    let unknown = two.get(path).await;
    assert_eq!(unknown.status, 502);
    assert!(
        unknown.detail().contains("endpoint"),
        "{}",
        unknown.detail()
    );
    announce(&node, 1, &one.url);
    until("the document is brought", async || {
        two.get(path).await.status == 200
    })
    .await;
    assert_eq!(two.get(path).await.body, b"a document");
    assert_eq!(three.get(path).await.status, 404);
    // A copy is kept: it is there when its owner is not.
    let kept = two.get(path).await;
    assert_eq!(
        kept.header("etag").unwrap(),
        format!("\"{}\"", document["sha256"].as_str().unwrap())
    );
    for wrong in [
        "Authorization: Member AAAA\r\n",
        "Authorization: Member \r\n",
    ] {
        assert_eq!(ask(&one.url, "GET", path, wrong, b"").await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_anothers_document_first_takes_nothing_from_it() {
    let (node, members, _dir) = network(3).await;
    let (one, two, three) = (&members[0], &members[1], &members[2]);
    assert!(is_done(&one.command(&creation("c", "CONT-1")).await));
    announce(&node, 1, &one.url);
    // Nobody listens there.
    announce(&node, 3, "http://127.0.0.1:1");
    let document = one.upload("a.pdf", b"a document").await.json();
    let (url, md5) = (
        document["url"].as_str().unwrap(),
        document["md5"].as_str().unwrap(),
    );
    let path = url.strip_prefix(&one.url).unwrap();
    let other = "00000000000000000000000000000000";
    let claimed = attaching(
        "first",
        "CONT-1",
        &format!("http://127.0.0.1:1{path}"),
        other,
    );
    assert!(is_done(&three.command(&claimed).await));
    assert!(is_done(
        &one.command(&attaching("second", "CONT-1", url, md5)).await
    ));
    until("both entries are here", async || {
        two.get("/ledgers/1/").await.json()["size"] == 3
    })
    .await;
    let several = two.get(path).await;
    assert_eq!(several.status, 409, "{}", several.json());
    let mut named: Vec<Value> = several.json()["members"].as_array().unwrap().clone();
    named.sort_by_key(|member| member["label"].as_str().unwrap().to_owned());
    assert_eq!(
        named,
        [1, 3].map(|seed| json!({
            "did": did(seed).to_string(),
            "label": format!("Member {seed}"),
            "url": format!("{path}?by={}", did(seed)),
        }))
    );
    let named = two.get(&format!("{path}?by={}", did(1))).await;
    assert_eq!(
        (named.status, named.body.as_slice()),
        (200, &b"a document"[..])
    );
    let nobody = two.get(&format!("{path}?by={}", did(3))).await;
    assert_eq!(nobody.status, 502);
    assert!(nobody.detail().contains("Member 3"), "{}", nobody.detail());
    assert_eq!(two.get(&format!("{path}?by=somebody")).await.status, 400);
    assert_eq!(two.get(&format!("{path}?by={}", did(2))).await.status, 404);
    // A copy that was brought is the other's, too, and a member's own document is its own.
    assert_eq!(two.get(path).await.status, 409);
    assert_eq!(one.get(path).await.body, b"a document");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refers_to_anothers_document_where_it_is_gives_it_no_second_owner() {
    let (node, members, _dir) = network(3).await;
    let (one, two, three) = (&members[0], &members[1], &members[2]);
    assert!(is_done(&one.command(&creation("c", "CONT-1")).await));
    announce(&node, 1, &one.url);
    announce(&node, 3, &three.url);
    let document = one.upload("a.pdf", b"a document").await.json();
    let (url, md5) = (
        document["url"].as_str().unwrap(),
        document["md5"].as_str().unwrap(),
    );
    for (member, id) in [(three, "first"), (one, "second")] {
        let message = attaching(id, "CONT-1", url, md5);
        assert!(is_done(&member.command(&message).await));
    }
    let path = url.strip_prefix(&one.url).unwrap();
    until("both entries are here", async || {
        two.get("/ledgers/1/").await.json()["size"] == 3
    })
    .await;
    let brought = two.get(path).await;
    assert_eq!(
        (brought.status, brought.body.as_slice()),
        (200, &b"a document"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_one_process_give_each_other_what_they_share_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(3);
    let url = house(&node, &[1, 2], dir.path()).await;
    let three = start(&node, 3, dir.path()).await;
    let [one, two] = [1, 2].map(|seed| basic(&format!("user{seed}"), PASSWORD));
    assert!(is_done(
        &command(&url, &one, &creation("c", "CONT-1")).await
    ));
    let document = upload(&url, &one, "a.pdf", b"a document").await.json();
    let address = document["url"].as_str().unwrap();
    let path = address.strip_prefix(&url).unwrap();
    // Before it is attached to anything it is nobody else's.
    assert_eq!(ask(&url, "GET", path, &two, b"").await.status, 404);
    let md5 = document["md5"].as_str().unwrap();
    let attached = attaching("i", "CONT-1", address, md5);
    assert!(is_done(&command(&url, &one, &attached).await));
    // No card tells where it is, and it is right here.
    let shared = ask(&url, "GET", path, &two, b"").await;
    assert_eq!(
        (shared.status, shared.body.as_slice()),
        (200, &b"a document"[..])
    );
    // Somebody elsewhere claims the name, too.
    announce(&node, 3, "http://127.0.0.1:1");
    let other = "00000000000000000000000000000000";
    let claimed = attaching("j", "CONT-1", &format!("http://127.0.0.1:1{path}"), other);
    assert!(is_done(&three.command(&claimed).await));
    until("the claim is here", async || {
        ask(&url, "GET", path, &two, b"").await.status == 409
    })
    .await;
    let by = format!("{path}?by={}", did(1));
    assert_eq!(ask(&url, "GET", &by, &two, b"").await.body, b"a document");
    assert_eq!(ask(&url, "GET", path, &one, b"").await.body, b"a document");
}

/// A connection that asked for a document, read the head of the answer and reads no more.
async fn stalled(member: &Running, path: &str) -> TcpStream {
    let host = member.url.strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // So that the document does not fit into what the kernel keeps for its reader.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(host.parse().unwrap()).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\n{}\r\n",
        member.login()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

#[test]
fn readers_that_stop_keep_nobody_waiting_and_one_caller_has_so_many_downloads() {
    /// Threads for work that blocks: fewer than readers that stop.
    const THREADS: usize = 4;
    /// Downloads of one caller.
    const OF_ONE_CALLER: usize = 16;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_, members, _dir) = network(2).await;
        let one = &members[0];
        add_user(one, "another", "another horse");
        let content = vec![7; 16 << 20];
        let document = one.upload("large.bin", &content).await.json();
        let path = document["url"].as_str().unwrap();
        let path = path.strip_prefix(&one.url).unwrap();
        let mut readers = Vec::new();
        for _ in 0..OF_ONE_CALLER {
            readers.push(stalled(one, path).await);
        }
        // Whoever asks meanwhile is answered.
        assert_eq!(one.get("/ledgers/").await.status, 200);
        for crowded in [path, "/ledgers/1/transactions/list_with_meta/"] {
            let refused = one.get(crowded).await;
            assert_eq!(refused.status, 429, "{crowded}");
            assert!(refused.header("retry-after").is_some());
        }
        let login = basic("another", "another horse");
        let whole = ask(&one.url, "GET", path, &login, b"").await;
        assert_eq!((whole.status, whole.body == content), (200, true));
        readers.clear();
        until("those who have left are forgotten", async || {
            let again = one.get(path).await;
            again.status == 200 && again.body == content
        })
        .await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_an_end_whatever_it_is_made_of() {
    let node = Node::new(2);
    let small = |settings: &mut daybook_member::Settings| settings.document_bytes_max = 1_000;
    let (members, _dir) = members_of(&node, 2, small).await;
    let one = &members[0];
    assert_eq!(one.upload("a", &[7; 1_000]).await.status, 200);
    let long = one.upload("a", &[7; 1_001]).await;
    assert_eq!(long.status, 413);
    let headers = format!(
        "{}Content-Type: multipart/form-data; boundary=B\r\n",
        one.login()
    );
    // Parts that nobody keeps, one after the other.
    let part = "--B\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n";
    let room = 1_000 + 16 * (8 << 10);
    let parts = part.repeat(room / part.len() + 1) + "--B--\r\n";
    let refused = ask(&one.url, "POST", "/upload", &headers, parts.as_bytes()).await;
    assert_eq!(refused.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_leaves_no_half_of_a_document() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    let host = one.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n{}\
         Content-Type: multipart/form-data; boundary=B\r\n\r\n\
         --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf of it",
        one.login()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let incoming = one.folder.join("documents").join("incoming");
    let count = || std::fs::read_dir(&incoming).unwrap().count();
    until("it is being received", async || count() == 1).await;
    drop(stream);
    until("nothing is left of it", async || count() == 0).await;
    assert_eq!(one.upload("x", b"whole").await.status, 200);
}
