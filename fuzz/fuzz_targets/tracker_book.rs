//! Bytes are one sound book or none.
#![no_main]

use daybook_ledger::tracker::Book;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(book) = Book::decode(bytes) {
        assert_eq!(book.encode(), bytes);
        book.audit().expect("decoding audits");
    }
});
