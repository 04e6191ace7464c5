//! Ordering at the provider (machines, section 7): what it answers is checked before it is believed.

use std::time::Duration;

use daybook_ledger::{AMOUNT_MAX, AssetId};
use http::{Method, StatusCode};

use crate::{
    Moment,
    address::Address,
    order::Provided,
    web::{Answer, Url, Web},
};

/// How long a provider may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// What a provider costs that states no price (section 7).
const VALUE_DEFAULT: u64 = 1;

/// Orders at the provider. The same `repeat_key` makes one order of it, however often it is sent.
pub(crate) async fn order(
    web: &Web,
    provider: &Url,
    asset: AssetId,
    repeat_key: &str,
) -> Result<Provided, String> {
    let headers = [
        ("content-type", "application/json"),
        ("accept", "text/plain"),
        ("idempotency-key", repeat_key),
    ];
    let answer = web
        .send(
            Method::POST,
            &provider.join("/orders/"),
            &headers,
            "{}",
            WITHIN,
        )
        .await
        .map_err(|error| error.to_string())?;
    let mut provided = read(&answer, asset)?;
    if provided.1.is_none() {
        let path = format!("/addresses/{}", provided.0.address);
        let named = web
            .send(Method::GET, &provider.join(&path), &[], "", WITHIN)
            .await
            .map_err(|error| error.to_string())?;
        provided.1 = named
            .json()
            .and_then(|named| named["public_key"].as_str()?.parse().ok());
    }
    let (partial, key) = provided;
    let public_key =
        key.ok_or("the provider does not tell which ledger key its address stands for")?;
    Ok(Provided {
        address: partial.address,
        public_key,
        value: partial.value,
        order_id: partial.order_id,
        expires: partial.expires,
    })
}

#[derive(Debug)]
struct Named {
    address: Address,
    value: u64,
    order_id: Option<String>,
    expires: Option<Moment>,
}

fn read(
    answer: &Answer,
    asset: AssetId,
) -> Result<(Named, Option<daybook_ledger::PublicKey>), String> {
    if answer.status != StatusCode::OK {
        return Err(format!(
            "the provider answered with status {}",
            answer.status.as_u16()
        ));
    }
    let text = std::str::from_utf8(&answer.body)
        .map_err(|_| "the provider's answer is no text".to_owned())?;
    let address: Address = text
        .trim()
        .parse()
        .map_err(|error| format!("the provider's answer is no address: {error}"))?;
    if answer
        .header("x-order-asset")
        .is_some_and(|other| other != asset.to_string())
    {
        return Err("the provider wants another token".to_owned());
    }
    let value = match answer.header("x-order-value") {
        None => VALUE_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|value| *value <= AMOUNT_MAX)
            .ok_or("the provider's price is no number of units")?,
    };
    let key = answer
        .header("x-order-public-key")
        .map(|text| text.parse().map_err(|_| "the provider's key is none"))
        .transpose()?;
    let named = Named {
        address,
        value,
        order_id: answer
            .header("x-order-id")
            .filter(|id| id.len() <= 64)
            .map(str::to_owned),
        expires: answer
            .header("x-order-expires")
            .and_then(|text| text.parse().ok())
            .map(|seconds: u64| Moment(seconds.saturating_mul(1000))),
    };
    Ok((named, key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::seed::Seed;

    fn asset() -> AssetId {
        "ab".repeat(32).parse().unwrap()
    }

    fn answer(body: &str, headers: &[(&'static str, &str)]) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
                .collect(),
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn an_answer_that_is_no_address_is_refused() {
        let sound = Seed::from_secret(b"provider").address(1);
        let mut wrong = sound.with_checksum();
        let last = if wrong.pop() == Some('A') { 'B' } else { 'A' };
        wrong.push(last);
        for body in [
            &sound.as_str()[..80],
            &sound.as_str().to_lowercase(),
            &wrong,
            "<html><body>nginx</body></html>",
            "",
        ] {
            read(&answer(body, &[]), asset()).unwrap_err();
        }
        let (named, key) = read(&answer(sound.as_str(), &[]), asset()).unwrap();
        assert_eq!((named.address, named.value, key), (sound.clone(), 1, None));
        let whole = sound.with_checksum();
        read(&answer(&whole, &[("x-order-value", "7")]), asset()).unwrap();
        for header in [
            ("x-order-value", "-1"),
            ("x-order-value", "9000000000000000001"),
            ("x-order-public-key", "nobody"),
            ("x-order-asset", "00"),
        ] {
            read(&answer(&whole, &[header]), asset()).unwrap_err();
        }
    }
}
