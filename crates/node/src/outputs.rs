//! `daybook outputs`.

use std::path::Path;

use daybook_client::{Client, reader};
use daybook_ledger::{OutputRef, PublicKey, Transaction};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::{
    cli::{Outputs, Spent},
    failure::Failure,
    keyfile,
    out::Out,
    remote,
};

/// Transactions that are fetched at the same time.
const FETCHES_MAX: usize = 16;

pub(crate) async fn run(args: &Outputs, out: Out) -> Result<(), Failure> {
    let client = remote::client(&args.node)?;
    let key: PublicKey = match args.key.parse() {
        Ok(key) => key,
        Err(_) if Path::new(&args.key).exists() => {
            // The public half stands there openly, whether or not the private one is encrypted.
            let (_, public, _) = keyfile::look(Path::new(&args.key))?;
            let wrong = |error| Failure::usage(format!("key file {}: {error}", args.key));
            public.parse().map_err(wrong)?
        }
        Err(error) => return Err(Failure::usage(format!("`{}`: {error}", args.key))),
    };
    let spent = match args.spent {
        Spent::No => Some(false),
        Spent::Yes => Some(true),
        Spent::Any => None,
    };
    let outputs = client.outputs(&key, spent).await?;
    let mut found = std::pin::pin!(fetch(&client, outputs));
    while let Some((output, transaction)) = found.try_next().await? {
        let facts = &transaction.outputs()[output.index as usize];
        out.say(
            &json!({
                "transaction_id": output.transaction.to_string(),
                "output_index": output.index,
                "asset_id": transaction.asset().to_string(),
                "amount": facts.amount.to_string(),
                "public_keys": facts.public_keys.iter().map(PublicKey::to_string).collect::<Vec<_>>(),
            }),
            &format!(
                "{}:{}  {:>20} of {}",
                output.transaction,
                output.index,
                facts.amount,
                transaction.asset()
            ),
        );
    }
    Ok(())
}

/// Fetches the transactions of outputs, in their order.
pub(crate) fn fetch(
    client: &Client,
    outputs: Vec<OutputRef>,
) -> impl futures_util::Stream<Item = Result<(OutputRef, Transaction), Failure>> {
    stream::iter(outputs)
        .map(move |output| async move {
            let text = client
                .transaction(&output.transaction)
                .await?
                .ok_or_else(|| {
                    Failure::refused(format!(
                        "the node lists {} and does not have it",
                        output.transaction
                    ))
                })?;
            let transaction = reader().parse(text).map_err(|e| {
                Failure::refused(format!("the node sent a wrong {}: {e}", output.transaction))
            })?;
            let sound = transaction.id() == output.transaction
                && (output.index as usize) < transaction.outputs().len();
            if !sound {
                return Err(Failure::refused(format!(
                    "the node sent another transaction than {}",
                    output.transaction
                )));
            }
            Ok((output, transaction))
        })
        .buffered(FETCHES_MAX)
}
