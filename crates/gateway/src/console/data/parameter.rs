//! Parameters of a question, out of its path and query.

use std::str::FromStr;

use daybook_ledger::{AssetId, Position, PublicKey};
use daybook_wire::{
    assets::{Query, Refusal},
    events,
};

use super::list::{PAGE_ELEMENTS, PAGE_ELEMENTS_MAX};

pub(super) fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn position(query: &Query<'_>, name: &'static str) -> Result<Option<Position>, Refusal> {
    query
        .first(name)
        .map(|text| events::position(name, text))
        .transpose()
}

pub(super) fn limit(query: &Query<'_>) -> Result<usize, Refusal> {
    match query.first("limit") {
        None => Ok(PAGE_ELEMENTS),
        Some(text) => number(text)
            .filter(|limit| (1..=PAGE_ELEMENTS_MAX).contains(limit))
            .ok_or(Refusal::parameter("limit", "1 to 100")),
    }
}

pub(super) fn public_key(name: &'static str, text: &str) -> Result<PublicKey, Refusal> {
    text.parse()
        .map_err(|_| Refusal::parameter(name, "A public key in base58"))
}

pub(super) fn asset_id(name: &'static str, text: &str) -> Result<AssetId, Refusal> {
    text.parse()
        .map_err(|_| Refusal::parameter(name, "64 hexadecimal digits"))
}
