//! Files whose bytes are kept beside the tests: a format that changes by accident fails here.

use std::{fmt::Write, path::Path};

/// Compares bytes with a kept dump. With `DAYBOOK_GOLDEN=write` the dump is written instead: for a
/// format that changes on purpose, together with its version.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let dumped = dump(bytes);
    if std::env::var_os("DAYBOOK_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &dumped).expect("the dump can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        dumped,
        kept,
        "{} is not what is written now",
        path.display()
    );
}

/// Sixteen bytes a line with their offset; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = format!("length {}\n", bytes.len());
    for (line, bytes) in bytes.chunks(16).enumerate() {
        if bytes.iter().any(|byte| *byte != 0) {
            write!(text, "{:06x} ", line * 16).expect("a string takes all text");
            for byte in bytes {
                write!(text, " {byte:02x}").expect("a string takes all text");
            }
            text.push('\n');
        }
    }
    text
}
