//! A member's gateway as an organisation's program uses it: HTTP and the command channel.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;

mod client;

mod accounts;
mod agreement;
mod documents;
mod health;
mod ledgers;
mod plans;
mod promises;
mod socket;

/// The page that says which test answers for which item of the protocol's checklist.
const PAGE: &str = include_str!("../../../../docs/protocols/consortium-ledgers.md");

#[test]
fn every_test_that_the_page_names_is_there_and_every_item_names_one() {
    let sources = [
        ("accounts", include_str!("accounts.rs")),
        ("agreement", include_str!("agreement.rs")),
        ("documents", include_str!("documents.rs")),
        ("health", include_str!("health.rs")),
        ("ledgers", include_str!("ledgers.rs")),
        ("plans", include_str!("plans.rs")),
        ("promises", include_str!("promises.rs")),
        ("socket", include_str!("socket.rs")),
    ];
    let table = PAGE.split("## What is tested").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut items = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let (item, tests) = row[2..].split_once(" | ").unwrap();
        let numbers = item.split(|c: char| !c.is_ascii_digit());
        items.extend(numbers.filter_map(|number| number.parse::<u8>().ok()));
        for test in tests.split('`').filter(|word| word.contains("::")) {
            let (module, name) = test.split_once("::").unwrap();
            let (_, source) = sources.iter().find(|(known, _)| *known == module).unwrap();
            assert!(source.contains(&format!("fn {name}(")), "{test}");
        }
    }
    items.sort_unstable();
    assert_eq!(items, Vec::from_iter(1..=22));
}
