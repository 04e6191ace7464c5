//! Both lanes agree on every text, and what was taken reads back from the store.
#![no_main]

use std::cell::RefCell;

use bytes::Bytes;
use daybook_fuzz::with_its_id;
use daybook_ledger::{Parser, Rules};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static PARSER: RefCell<Parser> = RefCell::new(Parser::new(Rules::default()));
}

fuzz_target!(|bytes: &[u8]| {
    PARSER.with_borrow_mut(|parser| {
        check(parser, bytes);
        // Changed bytes hardly ever have the id that goes with them, so that much is put right.
        if let Some(text) = with_its_id(bytes) {
            check(parser, text.as_bytes());
        }
        let _ = parser.parse_stored(Bytes::copy_from_slice(bytes));
    });
});

fn check(parser: &mut Parser, text: &[u8]) {
    let read = parser.parse(Bytes::copy_from_slice(text));
    match (read, parser.parse_by_value(text)) {
        (Ok(fast), Ok(slow)) => {
            assert_eq!(format!("{fast:?}"), format!("{slow:?}"));
            let stored = parser
                .parse_stored(fast.canonical().clone())
                .expect("it was taken");
            assert_eq!(stored.id(), fast.id());
            assert_eq!(stored.outputs().len(), fast.outputs().len());
            let _ = (fast.asset_data().count(), fast.metadata());
        }
        (Err(fast), Err(slow)) => assert_eq!(fast, slow),
        (fast, slow) => panic!("the lanes differ: {fast:?} {slow:?}"),
    }
}
