//! The development faucet: gives away a few units of the token to whoever asks (machines, section 10).
//! There is none unless the node was told so.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use daybook_ledger::{
    AssetId, Draft, OutputRef, Parser, PublicKey, Rules, SigningKey,
    condition::Condition,
    json::{Object, Value},
};
use daybook_pipeline::{Acknowledge, Door, Node, Outcome};
use daybook_wire::assets::Query;
use http::{Method, StatusCode};
use tokio::sync::Mutex;

use crate::{
    reply::{Reply, json, not_found},
    server::Gateway,
};

/// Units of one gift (section 10).
const GIFT: u64 = 50;
/// Units of a faucet's own token: more than anybody will ask for.
const FUND: u64 = 1_000_000_000_000;
/// Outputs of its own that it looks at for one gift: gifts leave it one, so more were given to it.
const COINS_MAX: usize = 100;

/// A faucet with its key. Clones are the same one.
#[derive(Clone)]
pub struct Faucet {
    inner: Arc<Inner>,
}

struct Inner {
    key: SigningKey,
    asset: AssetId,
    /// Gifts are made one after the other: each spends the change of the one before.
    turn: Mutex<()>,
}

impl fmt::Debug for Faucet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faucet({})", self.inner.asset)
    }
}

impl Faucet {
    /// A faucet that gives away what a key holds of an asset.
    pub fn of(asset: AssetId, key: SigningKey) -> Faucet {
        Faucet {
            inner: Arc::new(Inner {
                key,
                asset,
                turn: Mutex::new(()),
            }),
        }
    }

    /// Opens the faucet of a token of its own, held by a key; the first time, the token is created.
    ///
    /// # Errors
    /// Why the token could not be created, in words.
    pub async fn open(node: &Node, key: SigningKey) -> Result<Faucet, String> {
        // The same text every time, so there is one token for one key.
        let issue = Draft::create(Object::from_iter([
            ("kind", Value::from("daybook development token")),
            ("worth", Value::from("nothing")),
        ]))
        .output(FUND, &key)
        .sign(&[&key])
        .map_err(|error| error.to_string())?;
        let known = node
            .store()
            .transaction(&issue.id())
            .map_err(|error| error.to_string())?;
        if known.is_none() {
            let text = issue.canonical().clone();
            match node.submit(text, Acknowledge::Durable, Door::Classic).await {
                Outcome::Committed { .. } => {}
                Outcome::Rejected { rejection, .. } => return Err(rejection.message()),
                _ => return Err("the node takes no transactions".to_owned()),
            }
        }
        Ok(Faucet::of(issue.asset(), key))
    }

    /// The token.
    pub fn asset(&self) -> AssetId {
        self.inner.asset
    }

    /// Gives a gift; returns the transaction's id, height and index.
    async fn give(&self, node: &Node, to: PublicKey) -> Result<(String, u64, u32), String> {
        let _turn = self.inner.turn.lock().await;
        let (coins, held) = self.coins(node)?;
        if held < GIFT {
            let (asset, owner) = (self.inner.asset, self.inner.key.public_key());
            return Err(format!(
                "the faucet is empty; a TRANSFER of {asset} to {owner} fills it"
            ));
        }
        let mut draft = Draft::transfer(self.inner.asset);
        for coin in coins {
            draft = draft.spend(coin, &self.inner.key);
        }
        draft = draft.output(GIFT, to);
        if held > GIFT {
            draft = draft.output(held - GIFT, &self.inner.key);
        }
        let gift = draft
            .metadata(Object::from_iter([("kind", Value::from("gift"))]))
            .sign(&[&self.inner.key])
            .map_err(|error| error.to_string())?;
        let text = gift.canonical().clone();
        match node.submit(text, Acknowledge::Durable, Door::Classic).await {
            Outcome::Committed { id, position, .. } => {
                Ok((id.to_string(), position.height.0, position.index))
            }
            Outcome::Rejected { rejection, .. } => Err(rejection.message()),
            _ => Err("the node is busy; try again".to_owned()),
        }
    }

    /// Enough of its outputs for a gift, and what they hold.
    fn coins(&self, node: &Node) -> Result<(Vec<OutputRef>, u64), String> {
        let failed = |error: daybook_store::StoreError| {
            tracing::error!(%error, "the faucet cannot read the store");
            "the store could not be read".to_owned()
        };
        let (store, owner) = (node.store(), self.inner.key.public_key());
        let mut listed = Vec::new();
        store
            .outputs_of_key(&owner, Some(false), &mut |output| {
                listed.push(output);
                listed.len() < COINS_MAX
            })
            .map_err(failed)?;
        let own = Condition::of_key(&owner);
        let mut parser = Parser::new(Rules {
            key_names: false,
            language: false,
            ..Rules::default()
        });
        let (mut coins, mut held) = (Vec::new(), 0_u64);
        for output in listed {
            let Some((_, text)) = store.transaction(&output.transaction).map_err(failed)? else {
                continue;
            };
            let Ok(transaction) = parser.parse(text) else {
                continue;
            };
            let facts = transaction.outputs().get(output.index as usize);
            if let Some(facts) = facts
                && transaction.asset() == self.inner.asset
                && facts.condition == own
            {
                coins.push(output);
                held = held.saturating_add(facts.amount.units());
            }
            if held >= GIFT {
                break;
            }
        }
        Ok((coins, held))
    }
}

/// `GET /send_tokens` tells the token; `POST /send_tokens?address=KEY` gives. Both always with status
/// 200, as the faucet of the field did.
pub(crate) async fn answer(gateway: &Gateway, method: &Method, query: &str) -> Reply {
    let Some(faucet) = &gateway.settings.faucet else {
        return not_found();
    };
    let text = |text: &str| Value::from(text.to_owned());
    let mut said = vec![
        ("asset_id", Value::from(faucet.asset().to_string())),
        ("units", Value::from(GIFT)),
    ];
    if *method != Method::POST {
        said.push(("status", text("ok")));
        said.push(("message", text("POST /send_tokens?address=PUBLIC_KEY")));
        return told(said);
    }
    let query = Query::parse(query);
    let address = query.first("address").unwrap_or_default();
    let given = match address.parse::<PublicKey>() {
        Ok(key) => faucet.give(&gateway.node, key).await,
        Err(_) => Err("`address` is the public key of a wallet".to_owned()),
    };
    match given {
        Ok((id, height, index)) => {
            said.push(("status", text("ok")));
            said.push(("message", Value::from(format!("{GIFT} units are yours"))));
            said.push(("address", Value::from(address.to_owned())));
            said.push(("url", Value::from(format!("/api/v1/transactions/{id}"))));
            said.push(("transaction_id", Value::from(id)));
            said.push(("height", Value::from(height)));
            said.push(("index", Value::from(u64::from(index))));
        }
        Err(reason) => {
            said.push(("status", text("error")));
            said.push(("message", Value::from(reason)));
        }
    }
    told(said)
}

fn told(said: Vec<(&'static str, Value)>) -> Reply {
    let body = daybook_ledger::canonical::canon(&Value::Object(Object::from_iter(said)));
    json(StatusCode::OK, Bytes::from(body))
}
