//! What a stricter level takes, every other level takes; and an entry has one canonical text.
#![no_main]

use daybook_fuzz::consortium::object;
use daybook_ledger::consortium::{
    DEPTH_MAX, Documents, EntryText, METADATA, canon_object, check_entry, container,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut entry) = object(bytes) else {
        return;
    };
    let taken = |level| container::check(&entry, &["CONT-1"], level).is_ok();
    assert!(taken(Documents::Any));
    assert!(taken(Documents::Compatible) || !taken(Documents::Strict));
    let _ = check_entry(&entry, DEPTH_MAX);
    let text = EntryText::new(&entry);
    let committed = text.committed(7, Some("2026-03-01 09:15:27.004210"));
    let metadata = r#"{"seqNo":7,"txnTime":"2026-03-01 09:15:27.004210"}"#;
    entry.insert(METADATA, metadata.parse().expect("it is JSON"));
    assert_eq!(committed, canon_object(&entry));
});
