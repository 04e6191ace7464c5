//! Whatever is read as JSON has one canonical text, which reads back as the same value.
#![no_main]

use daybook_ledger::{canonical::canon, json::Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(value) = Value::parse(text, 128) else {
        return;
    };
    let canonical = canon(&value);
    let again = Value::parse(canonical.as_bytes(), 128).expect("canonical text is JSON");
    assert_eq!(canon(&again), canonical);
    assert_eq!(again, value);
    // Quoting never fails and stays short.
    assert!(value.quoted().chars().count() <= daybook_ledger::json::QUOTE_CHARS_MAX + 1);
});
