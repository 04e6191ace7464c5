//! A request is refused, or it is one canonical text; a book decides it without changing, and records
//! what it decided.
#![no_main]

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use daybook_fuzz::consortium::{NOW, Stage};
use daybook_ledger::{
    BlockTime, Height,
    consortium::{Command, Decision, Entry, History, IndexKey, Request},
};
use libfuzzer_sys::fuzz_target;

struct Nothing;

impl History for Nothing {
    fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
        None
    }
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::new(Stage::new());
}

fuzz_target!(|bytes: &[u8]| {
    STAGE.with_borrow_mut(|stage| {
        let request = Request {
            text: Bytes::copy_from_slice(bytes),
        };
        if let Ok(command) = stage.prover.prove(request.clone()) {
            let again = stage.prover.prove(command.to_request());
            assert_eq!(again.expect("it was proven").body(), command.body());
        }
        // Changed bytes are hardly ever signed, so the book is asked about what nobody signed too.
        let Ok(command) = Command::from_stored(&request) else {
            return;
        };
        let Ok(Decision::Entry(entry)) = stage.book.decide(&command, BlockTime(NOW), &Nothing)
        else {
            return;
        };
        assert_eq!(Entry::read(entry.text().clone()).as_ref(), Ok(&entry));
        let mut book = stage.book.clone();
        book.record(&entry, Height(2)).expect("it was decided");
        book.audit().expect("what was recorded breaks nothing");
    });
});
