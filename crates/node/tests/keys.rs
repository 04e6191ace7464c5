//! Encrypted key files, told as stories about the real binary.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{Node, daybook, daybook_with};

/// The passphrase of every key of these tests.
const PASSPHRASE: &str = "correct horse battery staple";

/// A file with the passphrase in it.
fn passphrase_file(folder: &Path) -> String {
    let path = folder.join("passphrase");
    fs::write(&path, format!("{PASSPHRASE}\n")).unwrap();
    path.display().to_string()
}

#[test]
fn an_encrypted_key_signs_with_its_passphrase_and_with_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let right = passphrase_file(folder.path());
    let key = folder.path().join("alice.key").display().to_string();
    let made = daybook(&[
        "--json",
        "keys",
        "generate",
        "--out",
        &key,
        "--passphrase-file",
        &right,
    ]);
    let made = made.ok().one();
    assert_eq!(made["encrypted"], true);
    let shown = daybook(&["--json", "keys", "show", &key]).ok().one();
    assert_eq!(shown, made, "the public half needs no passphrase");
    let create = |environment: &[(&str, &str)]| {
        let create = ["tx", "create", "--key", &key, "--data", "{}", "--dry-run"];
        daybook_with(&create, environment)
    };
    create(&[("DAYBOOK_KEY_PASSPHRASE", PASSPHRASE)]).ok();
    create(&[("DAYBOOK_KEY_PASSPHRASE_FILE", &right)]).ok();
    let refused = create(&[("DAYBOOK_KEY_PASSPHRASE", "another")]);
    assert_eq!(refused.exit, 1);
    assert!(
        refused.complaint().contains("wrong passphrase"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("another"), "{refused:?}");
}

#[test]
fn a_node_encrypts_the_keys_of_its_first_start_and_needs_the_passphrase_ever_after() {
    let folder = tempfile::tempdir().unwrap();
    let right = passphrase_file(folder.path());
    let dir = folder.path().join("data");
    let node = Node::start_with(&dir, &["--key-passphrase-file", &right]);
    assert_eq!(node.stop().code(), Some(0));
    let text = fs::read_to_string(dir.join("node.key")).unwrap();
    assert!(
        text.contains("argon2id") && !text.contains("private_key"),
        "{text}"
    );
    let wrong = folder.path().join("wrong").display().to_string();
    fs::write(&wrong, "another\n").unwrap();
    let dir_text = dir.display().to_string();
    let start = [
        "start",
        "--data-dir",
        &dir_text,
        "--key-passphrase-file",
        &wrong,
    ];
    let refused = daybook(&start);
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.stderr.contains("wrong passphrase"), "{refused:?}");
    assert!(!refused.stderr.contains("another\n"), "{refused:?}");
    let node = Node::start_with(&dir, &["--key-passphrase-file", &right]);
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_passphrase_is_given_to_a_plain_key_and_taken_away_again() {
    let folder = tempfile::tempdir().unwrap();
    let right = passphrase_file(folder.path());
    let key = folder.path().join("k").display().to_string();
    let made = daybook(&["--json", "keys", "generate", "--kind", "rsa", "--out", &key]);
    let made = made.ok().one();
    let before = fs::read_to_string(&key).unwrap();
    daybook(&["keys", "passphrase", &key, "--new-passphrase-file", &right]).ok();
    let shown = daybook(&["--json", "keys", "show", &key]).ok().one();
    assert_eq!(shown["encrypted"], true);
    assert_eq!(shown["public_key"], made["public_key"]);
    daybook(&[
        "keys",
        "passphrase",
        &key,
        "--passphrase-file",
        &right,
        "--remove",
    ])
    .ok();
    assert_eq!(fs::read_to_string(&key).unwrap(), before);
}
