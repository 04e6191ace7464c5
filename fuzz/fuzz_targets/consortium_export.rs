//! Whatever a file holds, its check comes to an end, and no other ledger is found sound.
#![no_main]

use std::sync::LazyLock;

use daybook_fuzz::consortium::Stage;
use daybook_ledger::consortium::{FINDINGS_MAX, verify_export};
use libfuzzer_sys::fuzz_target;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::new);

fuzz_target!(|bytes: &[u8]| {
    let report = verify_export(bytes, &STAGE.keys);
    assert!(report.findings.len() <= FINDINGS_MAX);
    if report.is_sound() {
        // Nobody can sign for the members; a beginning of the ledger is what remains.
        assert!(report.size <= 2 && report.ledger == "CONT-1");
    }
});
