//! A stored text is one entry or none; a book takes it or names what it breaks, and stays sound.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use daybook_fuzz::Stage;
use daybook_ledger::{Height, tracker::Entry};
use libfuzzer_sys::fuzz_target;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::new);

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::read(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    assert_eq!(entry.text(), bytes);
    let mut names = 0;
    entry.index_keys(&mut |_| names += 1);
    if let Some(settings) = STAGE.book.settings() {
        for record in entry.records() {
            let item = record.listed(&record.listing(settings), "sign");
            assert!(item.parse::<daybook_ledger::json::Value>().is_ok());
        }
    }
    let mut book = STAGE.book.clone();
    if book.record(&entry, Height(2)).is_ok() {
        book.audit().expect("what was recorded breaks nothing");
    }
});
