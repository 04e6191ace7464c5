//! The reckoning: who should hold what after the story, and who does, counted in the ledger itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use daybook_ledger::{AssetId, TransactionId};
use http::Method;
use serde_json::{Value, json};

use super::{
    council::CONTAINER,
    story::wrong,
    town::{FILM_BYTES, QUANTUM_BYTES, QUANTUM_PRICE, ROLES, Town},
};
use crate::{
    failure::Failure,
    out::{Out, thousands},
};

/// How long copies that follow the ledger by themselves may take to be where it is.
const AGREE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(100);

/// Unspent units of one token, by owner; who shares an output counts by all its keys together.
struct Holdings {
    created: u64,
    by_owner: BTreeMap<String, u64>,
    transactions: Vec<TransactionId>,
}

/// What was found.
pub(super) struct Books {
    lines: Vec<Line>,
    entries: usize,
    blocks: u64,
}

/// One balance: what the story says, and what the ledger says.
struct Line {
    who: String,
    told: u64,
    held: u64,
}

/// Counts everything. Machines and streams follow the ledger by themselves, each at its own pace, so
/// what does not add up is counted again until it does.
///
/// # Errors
/// The first balance that still does not add up.
pub(super) async fn reckon(town: &mut Town) -> Result<Books, Failure> {
    let deadline = tokio::time::Instant::now() + AGREE_WITHIN;
    loop {
        match count(town).await {
            Err(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            counted => return counted,
        }
    }
}

/// Counts everything once, as it stands.
async fn count(town: &mut Town) -> Result<Books, Failure> {
    let asset = town.asset.ok_or_else(|| wrong("there is no token"))?;
    let token = holdings(town, asset).await?;
    let mut lines = Vec::new();
    let mut spent = 0;
    for (place, role) in ROLES.iter().enumerate() {
        let sold = match (role.product, role.provider) {
            // Each robot made one product, and paid for its energy.
            (Some(_), Some(provider)) => {
                spent += role.value;
                role.value - ROLES[provider].value
            }
            _ => role.value,
        };
        let account = town.machines[place].join("/get_account_data");
        let account = town.ask(Method::GET, &account).await?;
        let keys: BTreeSet<&str> = account["inputs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|input| input["public_key"].as_str())
            .collect();
        let held = keys.iter().map(|key| token.of(key)).sum();
        if account["balance"].as_u64() != Some(held) {
            return Err(wrong(&format!(
                "{} says that it holds {}, and its keys hold {held}",
                role.name, account["balance"]
            )));
        }
        lines.push(Line {
            who: role.name.to_owned(),
            told: sold,
            held,
        });
    }
    lines.push(Line {
        who: "customer".to_owned(),
        told: town.gift - spent,
        held: token.of(&town.customer.to_string()),
    });

    let tracker = town
        .ask(Method::GET, &town.node("/api/v1/tracker")?)
        .await?;
    let currency = tracker["token"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| wrong("the tracker names no token"))?;
    let tokens = holdings(town, currency).await?;
    let earned = FILM_BYTES.div_ceil(QUANTUM_BYTES) * QUANTUM_PRICE;
    lines.push(Line {
        who: "shop's owner".to_owned(),
        told: earned,
        held: tokens.of(&town.owner.to_string()),
    });
    for (what, holdings) in [("tokens", &token), ("the tracker's tokens", &tokens)] {
        let held: u64 = holdings.by_owner.values().sum();
        if held != holdings.created {
            return Err(wrong(&format!(
                "{} of {what} were made, and {held} are held",
                holdings.created
            )));
        }
    }
    if let Some(line) = lines.iter().find(|line| line.told != line.held) {
        return Err(wrong(&format!(
            "{} should hold {}, and holds {}",
            line.who, line.told, line.held
        )));
    }
    // What the stream told of both tokens is what the API lists of them.
    for (asset, holdings) in [(asset, &token), (currency, &tokens)] {
        // Nobody has looked yet at what the stream told since the last step.
        for id in &holdings.transactions {
            town.witness().id(id).await?;
        }
        let asset = asset.to_string();
        let told = town
            .witness()
            .seen()
            .iter()
            .filter(|event| event.kind.starts_with("asset.") && event.body["asset"] == *asset)
            .count();
        let listed = holdings.transactions.len();
        if told != listed {
            return Err(wrong(&format!(
                "the stream told {told} transactions of {asset}, and the API lists {listed}"
            )));
        }
    }
    // The organisations' own copy of the ledger, against what the node serves.
    let ledger = town.node(&format!("/api/v1/consortium/ledgers/{CONTAINER}"))?;
    let served = town.ask(Method::GET, &ledger).await?;
    let (size, root) = town.council.ledger().unwrap_or_default();
    if served["size"] != size || served["root_hash"] != *root {
        return Err(wrong(&format!(
            "{CONTAINER} has {size} entries under {root} with its members, and {} under {} on the node",
            served["size"], served["root_hash"]
        )));
    }
    let latest = town.client.latest_block().await?;
    Ok(Books {
        lines,
        entries: town.witness().seen().len(),
        blocks: latest.height.0,
    })
}

impl Holdings {
    fn of(&self, key: &str) -> u64 {
        self.by_owner.get(key).copied().unwrap_or_default()
    }
}

/// Counts the unspent outputs of a token, from all its transactions.
async fn holdings(town: &Town, asset: AssetId) -> Result<Holdings, Failure> {
    let listed = town
        .client
        .transactions_of_asset(&asset, None, false)
        .await?;
    let mut unspent: BTreeMap<(String, u64), (String, u64)> = BTreeMap::new();
    let mut created = 0_u64;
    let mut transactions = Vec::with_capacity(listed.len());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for transaction in &listed {
        let id = text(&transaction["id"]).parse();
        transactions.push(id.map_err(|_| wrong("a transaction has no id"))?);
        for input in transaction["inputs"].as_array().into_iter().flatten() {
            let spends = &input["fulfills"];
            if let Some(index) = spends["output_index"].as_u64() {
                let output = (text(&spends["transaction_id"]), index);
                if unspent.remove(&output).is_none() {
                    return Err(wrong("an output is spent that there was not"));
                }
            }
        }
        let outputs = transaction["outputs"].as_array().into_iter().flatten();
        for (index, output) in outputs.enumerate() {
            let units: u64 = text(&output["amount"])
                .parse()
                .map_err(|_| wrong("an amount is no number"))?;
            if transaction["operation"] == "CREATE" {
                created = created
                    .checked_add(units)
                    .ok_or_else(|| wrong("more units than can be counted"))?;
            }
            let keys = output["public_keys"].as_array().into_iter().flatten();
            let owner = keys.map(text).collect::<Vec<_>>().join("+");
            unspent.insert((text(&transaction["id"]), index as u64), (owner, units));
        }
    }
    let mut by_owner: BTreeMap<String, u64> = BTreeMap::new();
    for (owner, units) in unspent.into_values() {
        let sum = by_owner.entry(owner).or_default();
        *sum = sum
            .checked_add(units)
            .ok_or_else(|| wrong("more units than can be counted"))?;
    }
    Ok(Holdings {
        created,
        by_owner,
        transactions,
    })
}

impl Books {
    pub(super) fn show(&self, out: Out, after: Duration) {
        if !out.json {
            out.line("\nThe books");
        }
        for line in &self.lines {
            out.say(
                &json!({"event": "balance", "who": line.who, "told": line.told, "held": line.held}),
                &format!("  {:<14}{:>7}", line.who, thousands(line.held)),
            );
        }
        out.say(
            &json!({
                "event": "sums",
                "ok": true,
                "entries": self.entries,
                "blocks": self.blocks,
                "seconds": after.as_secs_f64(),
            }),
            &format!(
                "\nEvery balance adds up: {} entries in {} blocks, {:.1} s.",
                self.entries,
                self.blocks,
                after.as_secs_f64()
            ),
        );
    }
}
