//! The command line, told as stories about the real binary.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use common::{Node, binary, daybook, daybook_with, files_below, get};
use daybook_client::{Acknowledge, Filter, From, Stream};
use daybook_ledger::Height;
use serde_json::Value;
use tokio::time::timeout;

/// How long a follower is waited for before a test counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key file for somebody; answers its path and public key.
fn owner(folder: &Path, name: &str) -> (String, String) {
    let path = folder.join(name).display().to_string();
    let made = daybook(&["--json", "keys", "generate", "--out", &path])
        .ok()
        .one();
    (path, made["public_key"].as_str().unwrap().to_owned())
}

/// Creates an asset; answers its id.
#[track_caller]
fn create(node: &Node, key: &str, amount: &str) -> String {
    let made = daybook(&[
        "--json",
        "tx",
        "create",
        "--key",
        key,
        "--url",
        node.url(),
        "--amount",
        amount,
        "--data",
        r#"{"kind":"lamp"}"#,
    ]);
    made.ok().one()["asset_id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn transfer(node: &Node, key: &str, asset: &str, to: &str) -> Value {
    daybook(&[
        "--json",
        "tx",
        "transfer",
        "--key",
        key,
        "--url",
        node.url(),
        "--asset",
        asset,
        "--to",
        to,
    ])
    .ok()
    .one()
}

#[test]
fn a_first_start_makes_a_data_directory_for_its_owner_only_and_says_where_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let node = Node::start_with(&dir, &["--chain", "testnet"]);
    assert_eq!(node.listening["chain"], "testnet");
    assert_eq!(node.listening["height"], 0);
    assert!(node.url().starts_with("http://127.0.0.1:") && !node.url().ends_with(":0"));
    assert!(
        node.listening["streams"]
            .as_str()
            .unwrap()
            .starts_with("ws://127.0.0.1:")
    );
    let mode = |path: &str| fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("node.key"), 0o600);
    assert_eq!(mode("control.sock"), 0o600);
    assert!(
        fs::read_to_string(dir.join("daybook.toml"))
            .unwrap()
            .contains("#listen = ")
    );
}

#[test]
fn addresses_are_printed_for_people_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = binary()
        .args([
            "start",
            "--listen",
            "127.0.0.1:0",
            "--bus-listen",
            "off",
            "--streams-listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = [const { String::new() }; 4];
    for line in &mut lines {
        std::io::BufRead::read_line(&mut said, line).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        lines[0].starts_with("chain    daybook, height 0"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("http     http://127.0.0.1:"),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("streams  ws://127.0.0.1:"),
        "{lines:?}"
    );
    assert!(lines[3].ends_with("/console\n"), "{lines:?}");
}

#[test]
fn a_second_start_on_the_same_data_is_refused_and_told_where_the_first_one_listens() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let dir = folder.path().display().to_string();
    let second = daybook(&["start", "--data-dir", &dir, "--listen", "127.0.0.1:0"]);
    second.fails(5, "another node");
    assert!(second.complaint().contains(node.url()), "{second:?}");
    for verb in [vec!["check"], vec!["restore", "--from", "/nowhere"]] {
        let refused = daybook(&[&verb[..], &["--data-dir", &dir]].concat());
        assert_ne!(refused.exit, 0, "{refused:?}");
    }
}

#[test]
fn an_address_in_use_is_told_and_leaves_the_ledger_alone() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("a"));
    let other = folder.path().join("b").display().to_string();
    let second = daybook(&["start", "--data-dir", &other, "--listen", node.address()]);
    second.fails(7, "cannot listen on");
}

#[test]
fn a_node_told_to_stop_closes_its_ledger_and_goes_on_later_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let dir = folder.path().join("data");
    let node = Node::start(&dir);
    create(&node, &alice, "3");
    create(&node, &alice, "4");
    assert_eq!(node.stop().code(), Some(0));
    assert!(!dir.join("control.sock").exists());
    let node = Node::start(&dir);
    assert_eq!(node.listening["height"], 2);
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_clients_that_never_end() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(&folder.path().join("data"), &["--stop-seconds", "2"]);
    let client = node.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A batch without an end, a socket without a word, a follower without a reader, and a request
    // without a second line.
    let batch = runtime
        .block_on(client.batch(Acknowledge::Durable))
        .unwrap();
    let socket = runtime
        .block_on(client.socket(Acknowledge::Durable))
        .unwrap();
    let mut follow = client.follow(Stream::ValidBlocks, From::Now, Filter::default());
    runtime.block_on(follow.ready()).unwrap();
    let mut half = std::net::TcpStream::connect(node.address()).unwrap();
    std::io::Write::write_all(&mut half, b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(node.stop().code(), Some(0));
    drop((batch, socket, half));
}

#[test]
fn settings_come_from_flags_over_environment_over_file_over_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    fs::write(
        folder.path().join("daybook.toml"),
        "stop_seconds = 7\n[log]\nlevel = \"warn\"\n",
    )
    .unwrap();
    let shown = daybook_with(
        &[
            "--json",
            "config",
            "show",
            "--data-dir",
            &dir,
            "--chain",
            "x",
        ],
        &[("DAYBOOK_LOG_LEVEL", "debug")],
    )
    .ok();
    let find = |name: &str| {
        shown
            .json()
            .into_iter()
            .find(|s| s["setting"] == name)
            .unwrap()
    };
    assert_eq!(find("chain")["value"], "x");
    assert_eq!(find("chain")["origin"], "flag --chain");
    assert_eq!(find("log.level")["value"], "debug");
    assert_eq!(find("log.level")["origin"], "environment DAYBOOK_LOG_LEVEL");
    assert_eq!(find("stop_seconds")["value"], 7);
    assert!(
        find("stop_seconds")["origin"]
            .as_str()
            .unwrap()
            .ends_with("/daybook.toml")
    );
    assert_eq!(find("listen")["origin"], "default");
}

#[test]
fn unknown_settings_are_refused_by_name_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("my.toml");
    fs::write(&config, "[limits]\nconections = 5\n").unwrap();
    let dir = folder.path().join("data");
    let refused = daybook(&[
        "start",
        "--data-dir",
        dir.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ]);
    assert_eq!(refused.exit, 2);
    assert!(
        refused
            .complaint()
            .contains("unknown setting `limits.conections`"),
        "{refused:?}"
    );
    assert!(
        refused
            .complaint()
            .contains("did you mean `limits.connections`?"),
        "{refused:?}"
    );
    assert!(!dir.exists());
    let refused = daybook_with(&["config", "show"], &[("DAYBOOK_LISTN", "x")]);
    refused.fails(2, "`DAYBOOK_LISTN`");
    assert_eq!(daybook(&["start", "--no-such-flag"]).exit, 2);
}

#[test]
fn a_token_cannot_be_given_as_a_value() {
    let flags = daybook(&["start", "--help"]).ok().stdout;
    assert!(flags.contains("--token-file") && !flags.contains("--token "));
    assert_eq!(
        daybook_with(&["config", "show"], &[("DAYBOOK_TOKEN", "secret")]).exit,
        2
    );
}

#[test]
fn a_private_key_is_shown_only_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (path, public) = owner(folder.path(), "alice.key");
    let shown = daybook(&["keys", "show", &path]).ok();
    assert_eq!(shown.stdout.trim(), public);
    let secret = daybook(&["--json", "keys", "show", &path, "--show-secret"])
        .ok()
        .one();
    let private = secret["private_key"].as_str().unwrap().to_owned();
    assert!(fs::read_to_string(&path).unwrap().contains(&private));
    assert!(!shown.stdout.contains(&private) && !shown.stderr.contains(&private));
    assert_eq!(
        daybook(&["keys", "generate", "--out", &path]).exit,
        1,
        "never overwritten"
    );
    assert_eq!(
        daybook(&["keys", "generate"]).exit,
        2,
        "a key that nobody gets to see"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = daybook(&["keys", "show", &path]);
    refused.fails(1, "everybody may read it");
}

#[test]
fn an_asset_is_created_divided_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, alice_key) = owner(folder.path(), "alice.key");
    let (bob, bob_key) = owner(folder.path(), "bob.key");
    let node = Node::start(&folder.path().join("data"));
    let asset = create(&node, &alice, "10");

    let sent = transfer(&node, &alice, &asset, &format!("{bob_key}:3"));
    assert_eq!(
        (sent["height"].as_u64(), sent["index"].as_u64()),
        (Some(2), Some(0))
    );
    let amounts = |key: &str| -> Vec<String> {
        let listed = daybook(&["--json", "outputs", key, "--url", node.url()]).ok();
        listed
            .json()
            .iter()
            .map(|o| o["amount"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(amounts(&alice), ["7"], "the change comes back");
    assert_eq!(amounts(&bob_key), ["3"]);
    transfer(&node, &alice, &asset, &format!("{bob_key}:2"));
    transfer(&node, &bob, &asset, &format!("{alice_key}:4"));
    assert_eq!(amounts(&bob), ["1"], "two outputs were merged");
    let all = daybook(&[
        "--json",
        "outputs",
        &bob,
        "--spent",
        "any",
        "--url",
        node.url(),
    ])
    .ok();
    assert_eq!(all.json().len(), 3);

    let got = daybook(&[
        "--json",
        "tx",
        "get",
        sent["id"].as_str().unwrap(),
        "--url",
        node.url(),
    ]);
    let got = got.ok().one();
    assert_eq!(got["transaction"]["asset"]["id"], asset.as_str());
    assert_eq!(got["height"], 2);

    let refused = daybook(&[
        "tx",
        "transfer",
        "--key",
        &bob,
        "--asset",
        &asset,
        "--to",
        &format!("{alice_key}:2"),
        "--url",
        node.url(),
    ]);
    refused.fails(1, "holds 1 of asset");
}

#[test]
fn a_signed_transaction_can_be_kept_and_submitted_later_and_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let dry = daybook(&[
        "tx",
        "create",
        "--key",
        &alice,
        "--dry-run",
        "--data",
        r#"{"a":1}"#,
    ])
    .ok();
    let signed: Value = serde_json::from_str(&dry.stdout).unwrap();
    let file = folder.path().join("signed.json");
    fs::write(&file, serde_json::to_string_pretty(&signed).unwrap()).unwrap();
    let node = Node::start(&folder.path().join("data"));
    let submit = || {
        daybook(&[
            "--json",
            "tx",
            "submit",
            file.to_str().unwrap(),
            "--url",
            node.url(),
        ])
        .ok()
        .one()
    };
    let (first, second) = (submit(), submit());
    assert_eq!(first["id"], signed["id"]);
    assert_eq!(
        (&first["repeated"], &second["repeated"]),
        (&false.into(), &true.into())
    );
    assert_eq!(
        (&first["height"], &first["index"]),
        (&second["height"], &second["index"])
    );
}

#[test]
fn many_transactions_go_in_by_the_line_and_each_line_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let mut lines = String::new();
    for number in 0..5 {
        let data = format!(r#"{{"number":{number}}}"#);
        lines += &daybook(&[
            "tx",
            "create",
            "--key",
            &alice,
            "--dry-run",
            "--data",
            &data,
        ])
        .ok()
        .stdout;
    }
    let first = lines.lines().next().unwrap().to_owned();
    let broken = first.replace("\"number\":0", "\"number\":9");
    lines += &format!("{broken}\n{first}\n");
    let file = folder.path().join("many.ndjson");
    fs::write(&file, lines).unwrap();
    let node = Node::start(&folder.path().join("data"));
    let answer = daybook(&[
        "--json",
        "tx",
        "submit",
        file.to_str().unwrap(),
        "--url",
        node.url(),
    ]);
    answer.fails(1, "1 of 7 transactions refused");
    let answers = answer.json();
    let committed = answers.iter().filter(|a| a["event"] == "committed").count();
    let refused: Vec<_> = answers.iter().filter(|a| a["event"] == "refused").collect();
    assert_eq!((committed, refused.len()), (6, 1));
    assert_eq!(
        (&refused[0]["line"], &refused[0]["class"]),
        (&5.into(), &"InvalidHash".into())
    );
    assert_eq!(
        answers.iter().filter(|a| a["repeated"] == true).count(),
        1,
        "a line sent twice"
    );
}

#[test]
fn what_a_node_refuses_and_a_node_that_is_not_there_have_exit_codes_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let node = Node::start(&folder.path().join("data"));
    let unknown = "0".repeat(64);
    let missing = daybook(&["tx", "get", &unknown, "--url", node.url()]);
    assert_eq!(missing.exit, 1);
    let refused = daybook(&[
        "--json",
        "tx",
        "create",
        "--key",
        &alice,
        "--url",
        node.url(),
        "--data",
        r#"{"a.b":1}"#,
    ]);
    refused.fails(1, "ValidationError");
    let error: Value = serde_json::from_str(refused.complaint()).unwrap();
    assert_eq!(
        (&error["event"], &error["exit"]),
        (&"error".into(), &1.into())
    );
    let url = node.url().to_owned();
    node.kill();
    let gone = daybook(&["tx", "get", &unknown, "--url", &url]);
    assert_eq!(gone.exit, 3, "{gone:?}");
    let gone = daybook(&["stream", "--url", &url, "--timeout", "0.2"]);
    assert_eq!(gone.exit, 3, "{gone:?}");
    let gone = daybook(&["tx", "create", "--key", &alice, "--url", &url]);
    assert_eq!(gone.exit, 3, "at once, not after trying for long: {gone:?}");
}

#[test]
fn a_sound_ledger_passes_the_check_with_and_without_signatures_and_after_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, alice_key) = owner(folder.path(), "alice.key");
    let dir = folder.path().join("data");
    let node = Node::start(&dir);
    let asset = create(&node, &alice, "5");
    transfer(&node, &alice, &asset, &format!("{alice_key}:2"));
    node.stop();
    let dir = dir.display().to_string();
    for more in [
        &[][..],
        &["--signatures"],
        &["--rebuild"],
        &["--rebuild", "--signatures"],
    ] {
        let found = daybook(&[&["--json", "check", "--data-dir", &dir], more].concat())
            .ok()
            .one();
        assert_eq!(found["ok"], true, "{found}");
        assert_eq!(
            (&found["height"], &found["transactions"]),
            (&2.into(), &2.into()),
            "{found}"
        );
    }
    let node = Node::start(Path::new(&dir));
    assert_eq!(
        node.listening["height"], 2,
        "a rebuilt ledger is the same ledger"
    );
    transfer(&node, &alice, &asset, &format!("{alice_key}:1"));
}

#[test]
fn a_damaged_ledger_is_found_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let dir = folder.path().join("data");
    let node = Node::start(&dir);
    create(&node, &alice, "5");
    create(&node, &alice, "6");
    node.stop();
    // One bit in the middle of the first transaction's text.
    let log = files_below(&dir.join("ledger/log"))
        .into_iter()
        .find(|path| fs::read(path).unwrap().windows(4).any(|w| w == b"lamp"))
        .unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let place = bytes.windows(4).position(|w| w == b"lamp").unwrap();
    bytes[place] ^= 1;
    fs::write(&log, bytes).unwrap();
    let dir = dir.display().to_string();
    let found = daybook(&["check", "--data-dir", &dir]);
    assert_eq!(found.exit, 4, "{found:?}");
    assert!(found.stderr.contains("damaged"), "{found:?}");
}

#[test]
fn a_folder_that_no_node_ever_used_is_not_checked_or_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    assert_eq!(daybook(&["check", "--data-dir", &dir]).exit, 1);
    assert_eq!(
        daybook(&["backup", "--data-dir", &dir, "--to", "/nowhere/x"]).exit,
        1
    );
    assert!(
        files_below(folder.path()).is_empty(),
        "and nothing is made in it"
    );
}

#[test]
fn a_backup_of_a_running_node_restores_to_the_same_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (alice, alice_key) = owner(folder.path(), "alice.key");
    let (dir, to, restored) = (path("data"), path("backup"), path("restored"));
    let node = Node::start(Path::new(&dir));
    let asset = create(&node, &alice, "5");
    let made = daybook(&["--json", "backup", "--data-dir", &dir, "--to", &to])
        .ok()
        .one();
    assert_eq!(made["height"], 1);
    assert_eq!(
        daybook(&["backup", "--data-dir", &dir, "--to", &to]).exit,
        1,
        "never overwritten"
    );
    transfer(&node, &alice, &asset, &format!("{alice_key}:2"));
    node.stop();

    let back = daybook(&["--json", "restore", "--from", &to, "--data-dir", &restored])
        .ok()
        .one();
    assert_eq!((&back["height"], &back["hash"]), (&1.into(), &made["hash"]));
    daybook(&["check", "--data-dir", &restored, "--signatures"]).ok();
    let again = daybook(&["restore", "--from", &to, "--data-dir", &restored]);
    assert_eq!(again.exit, 1, "a restore never overwrites: {again:?}");
    let node = Node::start(Path::new(&restored));
    assert_eq!(node.listening["height"], 1);
    transfer(&node, &alice, &asset, &format!("{alice_key}:1"));

    // The same without a running node.
    let (to, restored) = (path("backup2"), path("restored2"));
    let made = daybook(&["--json", "backup", "--data-dir", &dir, "--to", &to])
        .ok()
        .one();
    assert_eq!(made["height"], 2);
    daybook(&["restore", "--from", &to, "--data-dir", &restored]).ok();
}

#[test]
fn a_backup_holds_the_members_that_live_on_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let dir = path("data");
    let init = ["--json", "member", "init", "--label", "Port One"];
    let made = daybook(&[&init[..], &["--data-dir", &dir]].concat())
        .ok()
        .one();
    let home = Path::new("members").join(made["did"].as_str().unwrap());
    let node = Node::start(Path::new(&dir));
    let documents = Path::new(&dir).join(&home).join("documents");
    fs::write(documents.join("whole"), b"a waybill").unwrap();
    fs::write(documents.join("incoming/half"), b"a way").unwrap();
    // By the node that runs and has their stores open, and by the command when none does.
    let backup = |to: &str| daybook(&["backup", "--data-dir", &dir, "--to", to]).ok();
    backup(&path("while running"));
    assert_eq!(node.stop().code(), Some(0));
    backup(&path("while standing"));
    for to in ["while running", "while standing"] {
        let restored = path(&format!("restored from {to}"));
        daybook(&["restore", "--from", &path(to), "--data-dir", &restored]).ok();
        let home = Path::new(&restored).join(&home);
        assert_eq!(
            fs::read(home.join("documents/whole")).unwrap(),
            b"a waybill"
        );
        assert!(!home.join("documents/incoming").exists());
        assert!(home.join("member.redb").exists() && !home.join("mirror.redb").exists());
        let shown = daybook(&["--json", "member", "show", "--data-dir", &restored])
            .ok()
            .one();
        assert_eq!(shown["verkey"], made["verkey"]);
        let node = Node::start(Path::new(&restored));
        assert!(home.join("mirror.redb").exists(), "it is made anew");
        assert_eq!(node.stop().code(), Some(0));
    }
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (alice, _) = owner(folder.path(), "alice.key");
    let (dir, to, restored) = (path("data"), path("backup"), path("restored"));
    let node = Node::start(Path::new(&dir));
    create(&node, &alice, "5");
    daybook(&["backup", "--data-dir", &dir, "--to", &to]).ok();
    let victim = files_below(&Path::new(&to).join("ledger"))
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&victim, bytes).unwrap();
    let refused = daybook(&["restore", "--from", &to, "--data-dir", &restored]);
    assert_eq!(refused.exit, 4, "{refused:?}");
    assert!(
        !Path::new(&restored).exists(),
        "nothing half restored is left behind"
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        3,
        "alice.key, data, backup"
    );
}

#[test]
fn the_bench_measures_every_door_on_a_node_of_its_own() {
    for door in ["batch", "post", "socket"] {
        let small = ["--transactions", "60", "--clients", "2", "--window", "10"];
        let args = [&["--json", "bench", "--door", door][..], &small].concat();
        let found = daybook(&args).ok().one();
        assert_eq!(
            (&found["door"], &found["transactions"]),
            (&door.into(), &60.into())
        );
        assert_eq!(
            found["deliveries"], 60,
            "the subscriber saw every transaction"
        );
        assert!(found["transactions_per_second"].as_f64().unwrap() > 0.0);
        assert!(found["flush_us"]["p50"].is_u64() && found["latency_us"]["p99"].is_u64());
    }
}

#[test]
fn tls_and_a_token_guard_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (alice, alice_key) = owner(folder.path(), "alice.key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(path("cert.pem"), certificate.cert.pem()).unwrap();
    fs::write(path("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    fs::write(path("token"), "open-sesame\n").unwrap();
    let (cert, key, token) = (path("cert.pem"), path("key.pem"), path("token"));
    let flags = [
        "--tls-certificate-file",
        &cert,
        "--tls-key-file",
        &key,
        "--token-file",
        &token,
    ];
    let node = Node::start_with(&folder.path().join("data"), &flags);
    assert!(node.url().starts_with("https://"));
    assert!(
        node.listening["streams"]
            .as_str()
            .unwrap()
            .starts_with("wss://")
    );

    let create = |more: &[&str]| {
        let base = [
            "--json",
            "tx",
            "create",
            "--key",
            &alice,
            "--url",
            node.url(),
        ];
        daybook(&[&base[..], more].concat())
    };
    let strange = create(&["--token-file", &token]);
    assert_eq!(
        strange.exit, 3,
        "an unknown certificate is not believed: {strange:?}"
    );
    assert!(
        strange.complaint().contains("no trusted connection"),
        "{strange:?}"
    );
    let bare = create(&["--ca-file", &cert]);
    bare.fails(1, "refuses the token");
    fs::write(path("wrong"), "open-says-me").unwrap();
    assert_eq!(
        create(&["--ca-file", &cert, "--token-file", &path("wrong")]).exit,
        1
    );
    let made = create(&["--ca-file", &cert, "--token-file", &token]).ok();
    assert!(!made.stdout.contains("open-sesame") && !made.stderr.contains("open-sesame"));
    // Reading and following need no token.
    let seen = daybook(&[
        "outputs",
        &alice_key,
        "--url",
        node.url(),
        "--ca-file",
        &cert,
    ])
    .ok();
    assert_eq!(seen.stdout.lines().count(), 1);
    let args = [
        "stream",
        "--from",
        "1",
        "--max",
        "1",
        "--url",
        node.url(),
        "--ca-file",
        &cert,
    ];
    assert_eq!(daybook(&args).ok().json().len(), 1);
}

#[test]
fn a_stream_can_be_taken_up_at_the_cursor_of_any_event() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, alice_key) = owner(folder.path(), "alice.key");
    let node = Node::start(&folder.path().join("data"));
    let asset = create(&node, &alice, "9");
    for _ in 0..3 {
        transfer(&node, &alice, &asset, &format!("{alice_key}:1"));
    }
    create(&node, &alice, "1");
    let stream = |more: &[&str]| -> Vec<Value> {
        let base = ["stream", "--show-cursor", "--url", node.url()];
        daybook(&[&base[..], more].concat()).ok().json()
    };
    let all = stream(&["--from", "1", "--max", "5"]);
    assert_eq!(all.len(), 5);
    for (seen, event) in all.iter().enumerate() {
        let cursor = event["cursor"].as_str().unwrap();
        let rest = (4 - seen).to_string();
        if rest != "0" {
            assert_eq!(stream(&["--from", cursor, "--max", &rest]), all[seen + 1..]);
        }
    }
    let moves = stream(&[
        "--from",
        "1",
        "--asset",
        &asset,
        "--operation",
        "transfer",
        "--max",
        "3",
    ]);
    assert_eq!(moves, all[1..4]);
}

#[test]
fn a_follower_lives_through_a_restart_of_the_node_without_gap_or_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let dir = folder.path().join("data");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut node = Node::start(&dir);
    let address = node.address().to_owned();
    let client = node.client();
    for stream in [Stream::ValidTransactions, Stream::ValidBlocks] {
        let mut follow = client.follow(stream, From::Height(Height(1)), Filter::default());
        let mut heights = Vec::new();
        let known = client.clone();
        let before = runtime.block_on(async { known.latest_block().await.unwrap().height.0 });
        for round in 0..3 {
            create(&node, &alice, &(before + round + 1).to_string());
            while heights.len() as u64 <= before + round {
                let next = async { timeout(PATIENCE, follow.next()).await };
                let event = runtime.block_on(next).unwrap().unwrap();
                heights.push(event.frame.height().0);
            }
            // Once in good order, once by force.
            if round % 2 == 0 {
                assert_eq!(node.stop().code(), Some(0));
            } else {
                node.kill();
            }
            node = Node::start_with(&dir, &["--listen", &address]);
        }
        assert!(heights.iter().copied().eq(1..=before + 3), "{heights:?}");
        assert!(follow.reconnects() >= 2);
    }
}

#[test]
fn one_node_answers_in_both_dialects_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let node = Node::start_with(
        &folder.path().join("data"),
        &["--also-listen", "127.0.0.1:0=v2"],
    );
    let id = create(&node, &alice, "1");
    let also = &node.listening["also"][0];
    assert_eq!(also["dialect"], "v2");
    let get = |url: &str| get(&format!("{url}/api/v1/blocks?transaction_id={id}"));
    assert_eq!(get(node.url()), serde_json::json!([1]));
    assert_eq!(get(also["http"].as_str().unwrap())["height"], 1);
}

#[test]
fn a_node_that_cannot_write_ends_by_itself_and_loses_nothing_that_it_acknowledged() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let folder = tempfile::tempdir().unwrap();
    let (alice, _) = owner(folder.path(), "alice.key");
    let dir = folder.path().join("data");
    let node = Node::start(&dir);
    let kept = create(&node, &alice, "1");
    // From here on no file may be written beyond its first byte.
    let full = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    prlimit(Some(node.pid()), Resource::Fsize, full).unwrap();
    let lost = daybook(&[
        "tx",
        "create",
        "--key",
        &alice,
        "--amount",
        "2",
        "--url",
        node.url(),
        "--timeout",
        "1",
    ]);
    assert!(
        [3, 6].contains(&lost.exit),
        "neither committed nor refused: {lost:?}"
    );
    assert_eq!(node.ended().code(), Some(7));
    let node = Node::start(&dir);
    assert_eq!(node.listening["height"], 1);
    daybook(&["tx", "get", &kept, "--url", node.url()]).ok();
    create(&node, &alice, "2");
}

#[test]
fn the_shell_is_served() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            daybook(&["completions", shell])
                .ok()
                .stdout
                .contains("daybook")
        );
    }
    let help = daybook(&["--help"]).ok().stdout;
    for word in ["EXAMPLES", "EXIT CODES", "start", "backup", "demo"] {
        assert!(help.contains(word), "{word}");
    }
    let template = daybook(&["config", "template"]).ok().stdout;
    assert!(template.contains("[limits]") && template.contains("#body_bytes = 1048576"));
}
