//! A batch gives for each of its texts what reading that text alone gives, wherever it stands among the
//! others: their hashes share vector lanes.
#![no_main]

use std::cell::RefCell;

use bytes::Bytes;
use daybook_fuzz::with_its_id;
use daybook_ledger::{Parser, Rules};
use libfuzzer_sys::fuzz_target;

/// Texts of one batch: several times the lanes of the widest vectors.
const TEXTS_MAX: usize = 64;

thread_local! {
    static PARSERS: RefCell<[Parser; 2]> =
        RefCell::new([(); 2].map(|()| Parser::new(Rules::default())));
}

fuzz_target!(|bytes: &[u8]| {
    let mut texts = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        texts.push(Bytes::copy_from_slice(line));
        // Changed bytes hardly ever have the id that goes with them, so that much is put right.
        texts.extend(with_its_id(line).map(Bytes::from));
    }
    // The same ones in other lanes and beside other lengths.
    for turn in 1..texts.len().min(8) {
        texts.extend_from_within(turn..);
        if texts.len() >= TEXTS_MAX {
            break;
        }
    }
    texts.truncate(TEXTS_MAX);
    PARSERS.with_borrow_mut(|[batches, singles]| {
        let read = batches.parse_batch(texts.clone());
        assert_eq!(read.len(), texts.len(), "one result for each text");
        for (text, read) in texts.into_iter().zip(read) {
            match (read, singles.parse(text)) {
                (Ok(read), Ok(alone)) => assert_eq!(format!("{read:?}"), format!("{alone:?}")),
                (Err(read), Err(alone)) => assert_eq!(read, alone),
                (read, alone) => panic!("the batch differs: {read:?} {alone:?}"),
            }
        }
    });
});
