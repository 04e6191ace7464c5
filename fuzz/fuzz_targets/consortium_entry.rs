//! A stored text is one entry or none; a book takes it or names what it breaks, and stays sound.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use daybook_fuzz::consortium::Stage;
use daybook_ledger::{Height, consortium::Entry};
use libfuzzer_sys::fuzz_target;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::new);

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::read(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    assert_eq!(entry.text(), bytes);
    let mut names = 0;
    entry.index_keys(&mut |_| names += 1);
    let mut book = STAGE.book.clone();
    match book.record(&entry, Height(2)) {
        Ok(()) => book.audit().expect("what was recorded breaks nothing"),
        Err(_) => assert_eq!(book, STAGE.book),
    }
});
