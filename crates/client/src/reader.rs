//! Transactions as a node holds them.

use daybook_ledger::{Limits, Parser, Rules};

/// A parser for what a node holds or may take: its rules may be looser than the defaults, and it is
/// the one to decide.
pub fn reader() -> Parser {
    Parser::new(Rules {
        key_names: false,
        language: false,
        all_owners_sign: false,
        limits: Limits {
            transaction_bytes_max: usize::MAX,
            ..Limits::default()
        },
    })
}
