//! What clients read: answers and items of listings.

use std::sync::Arc;

use daybook_ledger::{BlockTime, tracker::Address};

use crate::{MIB_100, pair, tracker_common::*};

#[test]
fn listing_items_have_the_members_that_their_signature_covers_in_order() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(3, MIB_100), &alice, &bob)
        .unwrap();
    let (_, entry) = world.log.entries.last().unwrap();
    let record = &entry.records()[0];
    let pem = world.tracker.pem.replace('\n', "\\n");
    let item = record.listing(world.book.settings().unwrap());
    assert_eq!(
        item,
        format!(
            "{{\"amount\":1500,\"contract_id\":\"c1\",\"from\":\"{spend}\",\"tx_id\":\"{}\",\
             \"parent_tx_id\":\"{}\",\"planned_quantum_count\":8,\"price_amount\":500,\
             \"price_quantum_power\":25,\"pk\":\"{pem}\",\"quantum_count\":3,\"status\":1,\
             \"timelock\":0,\"timestamp\":{START},\"to\":\"{income}\",\"tx_type\":16,\
             \"version\":\"\",\"volume\":100000000}}",
            record.id,
            record.parent_id(),
        )
    );
    let signed = record.listed(&item, "SIGN");
    assert!(
        signed
            .ends_with(",\"sign\":\"SIGN\",\"amount_str\":\"1500\",\"price_amount_str\":\"500\"}")
    );
    assert!(signed.parse::<daybook_ledger::json::Value>().is_ok());
    // Ids of one millisecond differ.
    let ids: std::collections::BTreeSet<Arc<str>> = world
        .log
        .entries
        .iter()
        .flat_map(|(_, entry)| entry.records().to_vec())
        .map(|record| record.id)
        .collect();
    assert_eq!(ids.len() as u64, world.records());
}

#[test]
fn answers_have_the_members_that_clients_read() {
    use daybook_ledger::tracker::{ChannelState, CommonState, Suites, reply};
    assert_eq!(reply::done("PEM"), "{\"pk\":\"PEM\"}");
    assert_eq!(
        reply::channel_state("c", ChannelState::Open, "PEM"),
        "{\"channelId\":\"c\",\"state\":2,\"pk\":\"PEM\"}"
    );
    let wallet = Address::common("B");
    let state = CommonState {
        fact: 1_500,
        plan: 6_000,
        profit: 7,
    };
    assert_eq!(
        reply::common_state(&wallet, &state, "PEM"),
        format!(
            "{{\"address\":\"{wallet}\",\"state\":{{\"profit\":\"7\",\
             \"own\":{{\"fact\":\"1500\",\"plan\":\"6000\"}},\
             \"foreign\":{{\"fact\":\"0\",\"plan\":\"0\"}}}},\"pk\":\"PEM\"}}"
        )
    );
    let world = World::new();
    let settings = world.book.settings().unwrap();
    let text = reply::capabilities(settings, &Suites::default(), 65_536, BlockTime(5));
    let value: daybook_ledger::json::Value = text.parse().unwrap();
    assert_eq!(number(&value, &["v"]), 2);
    assert_eq!(number(&value, &["limits", "frame"]), 65_536);
    assert_eq!(text_at(&value, &["prices", "incomeMin", "amount"]), "500");
    assert_eq!(member(&value, &["suites"]).as_array().unwrap().len(), 3);
    let own = world
        .book
        .common_state(&settings.wallet(), BlockTime(world.now), &world.log);
    assert_eq!(own.unwrap().fact, 100_000, "the tracker's own wallet");
}

fn text_at<'v>(value: &'v daybook_ledger::json::Value, path: &[&str]) -> &'v str {
    text(value, path)
}
