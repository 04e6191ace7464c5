//! Bytes are a snapshot that is sound and written back as it was, or none.
#![no_main]

use daybook_ledger::consortium::Book;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(book) = Book::decode(bytes) {
        let again = book.encode();
        assert_eq!(Book::decode(&again), Ok(book));
    }
});
