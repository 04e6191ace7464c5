//! The ledger as the machine sees it: a follower that misses nothing, and questions by id.

use std::{collections::BTreeSet, time::Duration};

use daybook_client::{Client, Cursor, Error, Filter, Frame, From, Stream, Submission, reader};
use daybook_ledger::{
    AssetId, Height, OutputRef, Parser, PublicKey, Rules, Transaction, TransactionId,
    condition::Condition,
};
use futures_util::{StreamExt, TryStreamExt, stream, stream::FuturesOrdered};
use serde_json::Value;
use tokio::{sync::mpsc, time};

use crate::{
    agent::Input,
    machine::{Announcement, Event, Fate, Survey, Transfer},
    seed::Seed,
};

/// Transactions that are fetched at the same time.
const FETCHES_MAX: usize = 16;
/// Indexes without any output behind the last one that has some, before a first look at the ledger
/// ends, at least. Orders that nobody paid leave such gaps.
const GAP_MIN: u64 = 200;
/// The same as a multiple of the orders that may be open at once: a full house that expires unpaid, and
/// another one.
const GAP_HOUSES: u64 = 2;
/// Before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the ledger for ever: from the machine's place on, or from a first look at all its keys.
pub(crate) async fn follow(
    client: Client,
    asset: AssetId,
    seed: Seed,
    open_orders_max: usize,
    cursor: Option<Cursor>,
    poll: Duration,
    inputs: mpsc::Sender<Input>,
) {
    let survey = loop {
        let looked = async {
            if !client.is_ready().await? {
                return Err(Error::Busy {
                    message: "not ready".to_owned(),
                    retry_after: None,
                });
            }
            match cursor {
                Some(_) => Ok(None),
                None => survey(&client, asset, &seed, gap(open_orders_max))
                    .await
                    .map(Some),
            }
        };
        match looked.await {
            Ok(survey) => break survey,
            Err(error) => tracing::debug!(%error, "the ledger is not there yet"),
        }
        time::sleep(PAUSE).await;
    };
    drop(seed);
    let mut cursor = cursor
        .or(survey.as_ref().map(|survey| survey.cursor))
        .expect("one of the two");
    if inputs.send(Event::Ready(survey).into()).await.is_err() {
        return;
    }
    let mut health = Health::new(client.clone(), poll, inputs.clone());
    loop {
        match read(&client, asset, &mut cursor, &inputs, &mut health).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(%error, "the ledger's stream ended");
                health.set(false).await;
            }
        }
        time::sleep(poll).await;
    }
}

/// Passes on what commits; ends without an error when nobody listens any more.
async fn read(
    client: &Client,
    asset: AssetId,
    cursor: &mut Cursor,
    inputs: &mpsc::Sender<Input>,
    health: &mut Health,
) -> Result<(), Error> {
    let filter = Filter {
        asset: Some(asset),
        ..Filter::default()
    };
    let mut events = client.follow(Stream::ValidTransactions, From::Cursor(*cursor), filter);
    let mut fetching = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some((place, transfer)) = fetching.next() => {
                *cursor = place;
                health.set(true).await;
                let event = Event::Transfer(transfer);
                if inputs.send(event.into()).await.is_err() {
                    return Ok(());
                }
            }
            event = events.next(), if fetching.len() < FETCHES_MAX => {
                let event = event?;
                if let Frame::Transaction { id, .. } = event.frame {
                    fetching.push_back(async move {
                        (event.cursor, fetch(client, id, event.cursor).await)
                    });
                }
            }
            () = health.look() => {
                // The node tells how far it is even when nothing concerns this token.
                if let Some(place) = events.cursor().filter(|place| place > cursor)
                    && fetching.is_empty()
                {
                    *cursor = place;
                    if inputs.send(Event::Passed(place).into()).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Fetches a committed transaction, however long that takes: it is there.
async fn fetch(client: &Client, id: TransactionId, cursor: Cursor) -> Transfer {
    loop {
        match client.transaction(&id).await {
            Ok(Some(text)) => match reader().parse(text) {
                Ok(transaction) if transaction.id() == id => {
                    return transfer(&transaction, cursor);
                }
                Ok(_) => tracing::error!(%id, "the node sent another transaction"),
                Err(error) => tracing::error!(%id, %error, "the node sent a wrong transaction"),
            },
            Ok(None) => tracing::warn!(%id, "the node told of a transaction and does not have it"),
            Err(error) => tracing::debug!(%id, %error, "fetching again"),
        }
        time::sleep(PAUSE).await;
    }
}

fn transfer(transaction: &Transaction, cursor: Cursor) -> Transfer {
    let outputs = transaction.outputs().iter().zip(0_u32..);
    Transfer {
        id: transaction.id(),
        cursor,
        spends: transaction
            .inputs()
            .iter()
            .filter_map(|input| input.spends)
            .collect(),
        outputs: outputs
            .filter_map(|(output, index)| {
                let key = *output.public_keys.first()?;
                // What others must sign for as well is not ours to spend.
                (output.condition == Condition::of_key(&key))
                    .then(|| (index, key, output.amount.units()))
            })
            .collect(),
        payer: payer(transaction),
        names: transaction.metadata().and_then(|metadata| {
            let metadata: Value = serde_json::from_str(metadata).ok()?;
            metadata["address"].as_str().map(str::to_owned)
        }),
    }
}

/// The one key behind all inputs.
fn payer(transaction: &Transaction) -> Option<PublicKey> {
    let mut keys = BTreeSet::new();
    for input in transaction.inputs() {
        keys.extend(input.owners_before.iter().copied());
    }
    let key = keys.pop_first()?;
    keys.is_empty().then_some(key)
}

/// How many unused indexes in a row end the first look of a machine that takes so many orders at once.
fn gap(open_orders_max: usize) -> u64 {
    let open = u64::try_from(open_orders_max).unwrap_or(u64::MAX);
    open.saturating_mul(GAP_HOUSES).max(GAP_MIN)
}

/// Looks at all keys of a seed: what they hold, and which were used.
async fn survey(client: &Client, asset: AssetId, seed: &Seed, gap: u64) -> Result<Survey, Error> {
    // Before the look, so that what commits meanwhile is told by the stream.
    let cursor = Cursor {
        height: Height(client.latest_block().await?.height.0 + 1),
        index: 0,
    };
    let mut survey = Survey {
        index: 0,
        coins: Vec::new(),
        cursor,
    };
    let mut next = 0;
    while next <= survey.index.saturating_add(gap) {
        let last = survey.index.saturating_add(gap);
        let looks = stream::iter(next..=last).map(|index| {
            let key = seed.key(index).public_key();
            async move {
                let used = !client.outputs(&key, None).await?.is_empty();
                Ok::<_, Error>((index, key, used))
            }
        });
        let mut looks = looks.buffered(FETCHES_MAX);
        while let Some((index, key, used)) = looks.try_next().await? {
            if used {
                survey.index = index;
                for (output, units) in held(client, asset, &key).await? {
                    survey.coins.push((output, units, index));
                }
            }
        }
        next = last.saturating_add(1);
    }
    if survey.index > 0 {
        tracing::info!(
            index = survey.index,
            coins = survey.coins.len(),
            "the ledger knows this machine"
        );
    }
    Ok(survey)
}

/// The unspent outputs of a token that a key alone can spend.
pub(crate) async fn held(
    client: &Client,
    asset: AssetId,
    key: &PublicKey,
) -> Result<Vec<(OutputRef, u64)>, Error> {
    let own = Condition::of_key(key);
    let outputs = client.outputs(key, Some(false)).await?;
    let found: Vec<Option<(OutputRef, u64)>> = stream::iter(outputs)
        .map(|output| {
            let own = &own;
            async move {
                let text = client.transaction(&output.transaction).await?;
                let transaction = text.and_then(|text| reader().parse(text).ok());
                let transaction = transaction
                    .filter(|transaction| transaction.id() == output.transaction)
                    .ok_or_else(|| {
                        Error::Protocol(format!("no sound transaction {}", output.transaction))
                    })?;
                let facts = transaction.outputs().get(output.index as usize);
                Ok::<_, Error>(
                    facts
                        .filter(|facts| transaction.asset() == asset && facts.condition == *own)
                        .map(|facts| (output, facts.amount.units())),
                )
            }
        })
        .buffered(FETCHES_MAX)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// The transactions of a token that pay a key, as far as the stream books them.
pub(crate) async fn listed(
    client: &Client,
    asset: AssetId,
    key: &PublicKey,
) -> Result<Vec<TransactionId>, Error> {
    let outputs = client.outputs(key, None).await?;
    let ids: BTreeSet<TransactionId> = outputs.iter().map(|output| output.transaction).collect();
    let mut listed = Vec::new();
    for id in ids {
        let Some(text) = client.transaction(&id).await? else {
            continue;
        };
        if reader()
            .parse(text)
            .is_ok_and(|transaction| transaction.asset() == asset && units(&transaction, key) > 0)
        {
            listed.push(id);
        }
    }
    Ok(listed)
}

/// What a transaction pays to a key alone. Anybody can make an output that names the key beside another
/// one: such an output is not the key's to spend, and nothing waits for it.
fn units(transaction: &Transaction, key: &PublicKey) -> u128 {
    let own = Condition::of_key(key);
    let outputs = transaction.outputs().iter();
    outputs
        .filter(|output| output.condition == own)
        .map(|output| u128::from(output.amount.units()))
        .sum()
}

/// Submits a stored transaction and learns its fate.
pub(crate) async fn submit(client: &Client, text: String) -> Fate {
    match client.commit(&Submission::from_text(text)).await {
        daybook_client::Fate::Committed(_) => Fate::Committed,
        daybook_client::Fate::Refused(refusal) => Fate::Refused {
            class: refusal.class,
            message: refusal.message,
        },
        daybook_client::Fate::Unknown(error) => {
            tracing::warn!(%error, "a transaction's fate is not known yet");
            Fate::Unknown
        }
    }
}

/// Reads the signed transaction that a customer hands in, as far as it pays `key`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn announcement(
    text: &[u8],
    asset: AssetId,
    key: &PublicKey,
) -> Result<Announcement, String> {
    let transaction = Parser::new(Rules::default())
        .parse(bytes::Bytes::copy_from_slice(text))
        .map_err(|error| error.to_string())?;
    if transaction.asset() != asset {
        return Err(format!("it does not move the token {asset}"));
    }
    let units = u64::try_from(units(&transaction, key))
        .map_err(|_| "it pays more than there can be".to_owned())?;
    if units == 0 {
        return Err(format!("it pays nothing to {key}"));
    }
    Ok(Announcement {
        transaction: transaction.id(),
        text: String::from_utf8_lossy(transaction.canonical()).into_owned(),
        units,
        payer: payer(&transaction),
    })
}

/// Whether the ledger can be reached, looked at again and again.
struct Health {
    client: Client,
    tick: time::Interval,
    up: bool,
    inputs: mpsc::Sender<Input>,
}

impl Health {
    fn new(client: Client, poll: Duration, inputs: mpsc::Sender<Input>) -> Health {
        let mut tick = time::interval(poll);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        Health {
            client,
            tick,
            up: true,
            inputs,
        }
    }

    async fn look(&mut self) {
        self.tick.tick().await;
        let up = matches!(
            time::timeout(self.tick.period().max(PAUSE), self.client.is_ready()).await,
            Ok(Ok(true))
        );
        self.set(up).await;
    }

    async fn set(&mut self, up: bool) {
        if self.up != up {
            self.up = up;
            tracing::info!(up, "the ledger");
            let event = if up {
                Event::LedgerBack
            } else {
                Event::LedgerLost
            };
            // When nobody listens, the stream ends too.
            let _ = self.inputs.send(event.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::{Draft, SigningKey, condition::Details, json::Object};

    use super::*;

    #[test]
    fn only_outputs_that_a_key_alone_can_spend_pay_it() {
        let (own, other) = (
            SigningKey::from_seed([1; 32]),
            SigningKey::from_seed([2; 32]),
        );
        let keys = [own.public_key(), other.public_key()];
        let shared = |threshold| Details::threshold_of_keys(threshold, &keys);
        let issue = Draft::create(Object::from_iter([("kind", "token")]))
            .output(1, shared(1))
            .output(1, shared(2))
            .output(3, other.public_key())
            .output(4, own.public_key())
            .output(5, own.public_key())
            .sign(&[&other])
            .unwrap();
        assert_eq!(units(&issue, &own.public_key()), 9);
        assert_eq!(units(&issue, &other.public_key()), 3);
        let trap = Draft::create(Object::from_iter([("kind", "token")]))
            .output(1, shared(1))
            .sign(&[&other])
            .unwrap();
        assert!(trap.outputs()[0].public_keys.contains(&own.public_key()));
        assert_eq!(units(&trap, &own.public_key()), 0);
    }

    #[test]
    fn a_first_look_passes_over_a_full_house_of_unpaid_orders() {
        assert_eq!(gap(5), GAP_MIN);
        assert_eq!(gap(1_000), 2_000);
        assert!(gap(usize::MAX) >= GAP_MIN);
    }
}
