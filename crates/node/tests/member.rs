//! What a member's organisation does with its identity, and what members tell each other through a real node.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use common::{Node, binary, daybook, get, post};
use daybook_client::{
    Error,
    consortium::{ConsortiumClient, NoticesAfter},
};
use daybook_ledger::{
    SigningKey,
    consortium::{Card, Did, Profile, SignatureObject, canon, canon_object},
    json::Object,
};
use serde_json::Value;

/// An organisation's identity in a data directory of its own.
struct Organisation {
    data_dir: String,
    did: String,
    verkey: String,
    folder: PathBuf,
}

impl Organisation {
    fn make(data_dir: &Path, label: &str, more: &[&str]) -> Organisation {
        let data_dir = data_dir.display().to_string();
        let init = ["--json", "member", "init", "--data-dir", &data_dir];
        let made = daybook(&[&init[..], &["--label", label], more].concat())
            .ok()
            .one();
        let did = made["did"].as_str().unwrap().to_owned();
        Organisation {
            folder: Path::new(&data_dir).join("members").join(&did),
            verkey: made["verkey"].as_str().unwrap().to_owned(),
            data_dir,
            did,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn card(&self) -> String {
        self.file("card.json").display().to_string()
    }

    fn say(&self, node: &Node, words: &[&str]) -> common::Answer {
        let place = ["--data-dir", &self.data_dir, "--url", node.url()];
        daybook(&[&["--json", "member"], words, &place].concat())
    }

    fn rotate(&self, node: &Node) -> Value {
        self.say(node, &["rotate"]).ok().one()
    }

    fn shown(&self) -> Value {
        let show = ["--json", "member", "show", "--data-dir", &self.data_dir];
        daybook(&show).ok().one()
    }

    /// What the network knows of it.
    fn known(&self, node: &Node) -> Value {
        get(&format!(
            "{}/api/v1/consortium/members/{}",
            node.url(),
            self.did
        ))
    }

    /// Puts the files back as they were before the last step of a rotation: it was stopped when the network had
    /// taken it and nothing was written down.
    fn undo_the_last_step(&self, retired: &Value, card: &[u8]) {
        fs::rename(self.file("member.key"), self.file("member.next.key")).unwrap();
        fs::rename(retired.as_str().unwrap(), self.file("member.key")).unwrap();
        fs::write(self.file("card.json"), card).unwrap();
    }

    fn run(&self, node: &Node) -> Running {
        let mut child = binary()
            .args(["--json", "member", "run", "--listen", "127.0.0.1:0"])
            .args(["--data-dir", &self.data_dir, "--url", node.url()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("listening"), "{line}");
        Running(child)
    }
}

/// A member's process; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(data_dir: &Path, members: &[&Organisation]) -> Node {
    let cards: Vec<String> = members.iter().map(|member| member.card()).collect();
    let cards = cards.join(",");
    let flags = [
        &["--consortium-members", &cards][..],
        &[
            "--consortium-documents",
            "any",
            "--tracker-enabled",
            "false",
        ],
    ];
    Node::start_with(data_dir, &flags.concat())
}

#[test]
fn a_member_gets_a_new_key_and_stays_the_same_member() {
    let folder = tempfile::tempdir().unwrap();
    let one = Organisation::make(&folder.path().join("one"), "Port One", &[]);
    let two = Organisation::make(&folder.path().join("two"), "Rail", &[]);
    let node = start(&folder.path().join("node"), &[&one, &two]);
    let mut running = one.run(&node);
    let rotated = one.rotate(&node);
    assert_eq!(rotated["did"], one.did);
    assert_ne!(rotated["verkey"], one.verkey);
    assert_eq!(one.shown()["verkey"], rotated["verkey"]);
    assert!(!one.file("member.next.key").exists());
    let known = one.known(&node);
    assert_eq!(known["verkey"], rotated["verkey"]);
    assert_eq!(
        known["keys"],
        serde_json::json!([one.verkey, rotated["verkey"]])
    );
    assert_eq!(known["card"]["label"], "Port One");
    let mode = fs::metadata(one.file("member.key")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // Who runs with the old key ends, and says why.
    let mut log = String::new();
    let stderr = running.0.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    assert!(log.contains("its key was replaced"), "{log}");
    let _again = one.run(&node);
    // The old key says nothing any more, the new one does.
    let propose = |key: &str, ledger: &str| {
        let create = ["ledger", "create", ledger, "--url", node.url(), "--no-wait"];
        let who = ["--key", key, "--as", &one.did, "--participant", &two.did];
        daybook(&[&create[..], &who, &["--entry", r#"{"no":"1"}"#]].concat())
    };
    let retired = rotated["retired"].as_str().unwrap();
    let refused = propose(retired, "A");
    assert_eq!(refused.exit, 1);
    assert!(refused.complaint().contains("foreign_key"), "{refused:?}");
    propose(&one.file("member.key").display().to_string(), "A").ok();
}

#[test]
fn a_rotation_that_was_stopped_at_any_step_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let one = Organisation::make(&folder.path().join("one"), "Port One", &[]);
    let other = Organisation::make(&folder.path().join("other"), "Other", &[]);
    let node = start(&folder.path().join("node"), &[&one]);
    // The new key was on disk, and nobody had heard of it.
    fs::copy(other.file("member.key"), one.file("member.next.key")).unwrap();
    let card = fs::read(one.file("card.json")).unwrap();
    let rotated = one.rotate(&node);
    assert_eq!(rotated["verkey"], other.verkey);
    // The network had taken it, and nothing was written down: by the next call.
    one.undo_the_last_step(&rotated["retired"], &card);
    assert_eq!(one.shown()["verkey"], one.verkey);
    assert_eq!(one.rotate(&node)["verkey"], other.verkey);
    assert_eq!(one.shown()["verkey"], other.verkey);
    // Or by the member's next start.
    one.undo_the_last_step(&rotated["retired"], &card);
    drop(one.run(&node));
    assert_eq!(one.shown()["verkey"], other.verkey);
    assert!(!one.file("member.next.key").exists());
    let keys = one.known(&node)["keys"].as_array().unwrap().len();
    assert_eq!(keys, 2, "it was one rotation");
}

#[test]
fn a_node_puts_the_new_key_of_a_member_that_lives_on_it_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("node");
    let one = Organisation::make(&home, "Port One", &[]);
    let card = fs::read(one.file("card.json")).unwrap();
    let node = start(&home, &[&one]);
    let rotated = one.rotate(&node);
    one.undo_the_last_step(&rotated["retired"], &card);
    assert_eq!(node.stop().code(), Some(0));
    let node = Node::start(&home);
    assert_eq!(one.shown()["verkey"], rotated["verkey"]);
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_new_key_is_encrypted_as_the_old_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = folder.path().join("passphrase");
    fs::write(&passphrase, "correct horse battery").unwrap();
    let passphrase = passphrase.display().to_string();
    let with = ["--passphrase-file", &passphrase];
    let encrypt = [&["--encrypt"], &with[..]].concat();
    let one = Organisation::make(&folder.path().join("one"), "Port One", &encrypt);
    let node = start(&folder.path().join("node"), &[&one]);
    let rotated = one
        .say(&node, &[&["rotate"], &with[..]].concat())
        .ok()
        .one();
    let shown = one.shown();
    assert_eq!(shown["verkey"], rotated["verkey"]);
    assert_eq!(shown["encrypted"], true);
    let file = fs::read_to_string(one.file("member.key")).unwrap();
    assert!(!file.contains("private_key"), "{file}");
    // It opens with the same passphrase: the next rotation signs with it.
    one.say(&node, &[&["rotate"], &with[..]].concat()).ok();
}

#[test]
fn a_card_changes_in_what_is_named_and_in_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--organization", "Port One Ltd.", "--icon", "/icon.png"];
    let one = Organisation::make(&folder.path().join("one"), "Port One", &more);
    let node = start(&folder.path().join("node"), &[&one]);
    let endpoint = ["card", "--endpoint", "https://one.example", "--icon", ""];
    let changed = one.say(&node, &endpoint).ok().one();
    assert_eq!(
        (&changed["revision"], &changed["verkey"]),
        (&1.into(), &one.verkey.clone().into())
    );
    let card = one.known(&node)["card"].clone();
    assert_eq!(card["endpoint"], "https://one.example");
    assert_eq!(
        (&card["label"], &card["icon"]),
        (&"Port One".into(), &"".into())
    );
    assert_eq!(card["organization"], "Port One Ltd.");
    let written: Value = serde_json::from_slice(&fs::read(one.file("card.json")).unwrap()).unwrap();
    assert_eq!(written, card);
    // The same once more is no change.
    assert_eq!(one.say(&node, &endpoint).ok().one()["revision"], 1);
    assert_eq!(one.say(&node, &["card"]).exit, 2, "nothing is named");
    assert_eq!(one.say(&node, &["card", "--label", ""]).exit, 2);
    assert_eq!(one.known(&node)["card"]["label"], "Port One");
}

#[test]
fn a_member_that_the_network_does_not_know_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let one = Organisation::make(&folder.path().join("one"), "Port One", &[]);
    let other = Organisation::make(&folder.path().join("other"), "Other", &[]);
    let node = start(&folder.path().join("node"), &[&one]);
    let refused = other.say(&node, &["rotate"]);
    assert_eq!(refused.exit, 1);
    assert!(refused.complaint().contains("does not know"), "{refused:?}");
    assert!(!other.file("member.next.key").exists());
    // Nor does one whose key is another than the network knows.
    fs::copy(other.file("member.key"), one.file("member.key")).unwrap();
    let refused = one.say(&node, &["rotate"]);
    assert_eq!(refused.exit, 1);
    assert!(
        refused.complaint().contains("holds another key"),
        "{refused:?}"
    );
}

/// A notice as docs/protocols/consortium-node.md describes it.
fn notice(network: &str, kind: &str, more: &[(&str, &str)], key: &SigningKey) -> Bytes {
    let did = Did::of(&key.public_key()).to_string();
    let mut body = Object::from_iter([
        ("notice", "daybook/consortium/notice/1"),
        ("network", network),
        ("member", &did),
        ("kind", kind),
    ]);
    for (name, text) in more {
        body.insert(*name, (*text).into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let signed = SignatureObject::sign(&body.into(), now.as_secs(), key);
    canon(&signed.to_value()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_are_taken_from_members_and_given_to_members_as_they_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let (key, stranger) = (
        SigningKey::from_seed([1; 32]),
        SigningKey::from_seed([2; 32]),
    );
    let profile = Profile {
        label: "Port One".to_owned(),
        ..Profile::default()
    };
    let card = folder.path().join("card");
    fs::write(&card, canon_object(&Card::first(profile, &key).to_object())).unwrap();
    let card = card.display().to_string();
    let node = Node::start_with(
        &folder.path().join("node"),
        &["--consortium-members", &card, "--tracker-enabled", "false"],
    );
    let client = ConsortiumClient::new(node.client());
    let network = client.network().await.unwrap().network.to_string();
    let signed = |kind: &str, more: &[(&str, &str)]| notice(&network, kind, more, &key);
    let code = async |notice: Bytes| match client.post_notice(notice).await.unwrap() {
        Ok(()) => "taken".to_owned(),
        Err(refused) => refused.code,
    };
    let shown = signed("read-notices", &[]);
    let begin = client
        .notices(NoticesAfter::default(), &shown)
        .await
        .unwrap();
    let begin: Value = serde_json::from_slice(&begin).unwrap();
    assert_eq!(begin["notices"], serde_json::json!([]));

    assert_eq!(code(signed("ping", &[("ping_id", "p")])).await, "taken");
    let plan = |no: &str| signed("gu-11", &[("id", "a"), ("message", no)]);
    assert_eq!(code(plan("1")).await, "taken");
    assert_eq!(code(plan("1")).await, "taken");
    assert_eq!(code(plan("2")).await, "id_reused");
    let long = "x".repeat(2_048);
    assert_eq!(
        code(signed("ping", &[("ping_id", &long)])).await,
        "too_large"
    );
    assert_eq!(
        code(notice(&network, "ping", &[], &stranger)).await,
        "malformed"
    );
    assert_eq!(code(notice("0000", "ping", &[], &key)).await, "malformed");
    assert_eq!(code(signed("read-notices", &[])).await, "malformed");
    assert_eq!(code(Bytes::from(vec![b'1'; 131_073])).await, "too_large");

    let after = NoticesAfter {
        relay: begin["relay"].as_str().unwrap(),
        epoch: begin["epoch"].as_str().unwrap(),
        ..NoticesAfter::default()
    };
    let fetched = client.notices(after, &shown).await.unwrap();
    let fetched: Value = serde_json::from_slice(&fetched).unwrap();
    assert_eq!(fetched["notices"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&fetched["kept"], &fetched["passing"]),
        (&1.into(), &1.into())
    );
    for shown in [
        Bytes::new(),
        signed("ping", &[]),
        notice(&network, "read-notices", &[], &stranger),
    ] {
        let refused = client.notices(NoticesAfter::default(), &shown).await;
        assert!(
            matches!(refused, Err(Error::Unauthorised(_))),
            "{refused:?}"
        );
    }

    // The served description names what was answered.
    let path = "/api/v1/consortium/notices";
    let served = get(&format!("{}/api/v1/openapi.json", node.url()));
    let url = format!("{}{path}", node.url());
    for (method, answer, code) in [
        ("get", get(&url), "not_a_member"),
        ("post", post(&url), "malformed"),
    ] {
        assert_eq!(answer["code"], code, "{answer}");
        let responses = &served["paths"][path][method]["responses"];
        let status = answer["status"].to_string();
        let schema = &responses[&status]["content"]["application/json"]["schema"];
        let about = schema["$ref"].as_str().unwrap_or_default();
        assert!(
            about.ends_with("/ConsortiumRefusal"),
            "{method} {status}: {responses}"
        );
    }
    let answer = &served["paths"][path]["get"]["responses"]["200"];
    let schema = &answer["content"]["application/json"]["schema"];
    for name in schema["required"].as_array().unwrap() {
        assert!(fetched.get(name.as_str().unwrap()).is_some(), "{name}");
    }
}
