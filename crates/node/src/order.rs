//! `daybook order`: orders at a machine and pays.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueHint, value_parser};
use daybook_client::{Client, Fate, Submission};
use daybook_ledger::{
    AssetId, Draft, PublicKey, SigningKey, Transaction,
    condition::Condition,
    json::{Object, Value as LedgerValue},
};
use daybook_machine::{Url, Web, WebAnswer};
use futures_util::TryStreamExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cli::{KeyFlag, NodeFlags},
    failure::{Exit, Failure},
    out::Out,
    outputs, remote,
};

/// How long a machine may take to answer.
const WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at the order.
const LOOK: Duration = Duration::from_millis(200);
/// The tag that transfers of the field carry (machines, section 7).
const TAG: &str = "AKITA9MACHINE";

/// `daybook order`.
#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook order http://127.0.0.1:3001 --key alice.key
  daybook order http://127.0.0.1:3001 --key alice.key --product headphone --quantity 2 \\
      --max-value 10
  daybook order http://127.0.0.1:3001 --key alice.key --no-wait --json

The price is the machine's; more than --max-value is not paid. What is over goes back to the key.")]
pub(crate) struct Order {
    /// The machine's address
    machine: String,
    #[command(flatten)]
    key: KeyFlag,
    /// What is wanted; the machine's default where nothing is said
    #[arg(long)]
    product: Option<String>,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..=1_000_000))]
    quantity: u64,
    /// An own reference
    #[arg(long, value_name = "TEXT")]
    client_ref: Option<String>,
    /// Further data of the order, as JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The most that may be paid, in units of the token
    #[arg(long, value_name = "UNITS", default_value_t = 100)]
    max_value: u64,
    /// Where the token's id is not believed from the machine
    #[arg(long, value_name = "ID")]
    asset: Option<AssetId>,
    /// PEM file with the certificates to trust at the machine
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    machine_ca_file: Option<PathBuf>,
    /// Do not wait for the work: end when the payment is committed
    #[arg(long)]
    no_wait: bool,
    /// Seconds that the whole may take after the payment
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    within: u64,
    #[command(flatten)]
    node: NodeFlags,
}

pub(crate) async fn run(args: &Order, out: Out) -> Result<(), Failure> {
    let machine: Url = args
        .machine
        .parse()
        .map_err(|e| Failure::usage(format!("{e}")))?;
    let web =
        Web::new(args.machine_ca_file.as_deref()).map_err(|e| Failure::usage(e.to_string()))?;
    let key = args.key.read()?;
    let client = remote::client(&args.node)?;
    client.info().await?;

    let mut wanted = json!({"quantity": args.quantity});
    for (name, value) in [("product", &args.product), ("client_ref", &args.client_ref)] {
        if let Some(value) = value {
            wanted[name] = json!(value);
        }
    }
    wanted["refund_key"] = json!(key.public_key().to_string());
    if let Some(data) = &args.data {
        wanted["data"] =
            serde_json::from_str(data).map_err(|e| Failure::usage(format!("--data: {e}")))?;
    }
    let repeat_key: String = rand::random::<[u8; 16]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/vnd.machine.order+json"),
        ("idempotency-key", repeat_key.as_str()),
    ];
    let answer = web
        .send(
            Method::POST,
            &machine.join("/orders"),
            &headers,
            wanted.to_string(),
            WITHIN,
        )
        .await
        .map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?;
    let order = sound(&answer)?;
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    let missing = |what: &str| Failure::refused(format!("the machine's answer has no {what}"));
    let id = text("uuid").to_owned();
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-') {
        return Err(missing("name of the order"));
    }
    let to: PublicKey = text("public_key")
        .parse()
        .map_err(|_| missing("ledger key"))?;
    let value = order["value"].as_u64().ok_or_else(|| missing("price"))?;
    let told: Option<AssetId> = answer
        .header("x-order-asset")
        .and_then(|id| id.parse().ok());
    let asset = match (args.asset, told) {
        (Some(asset), Some(told)) if asset != told => {
            return Err(Failure::refused(format!(
                "the machine wants the token {told}"
            )));
        }
        (Some(asset), _) | (None, Some(asset)) => asset,
        (None, None) => return Err(missing("token")),
    };
    out.say(
        &json!({"event": "ordered", "order": order}),
        &format!(
            "ordered  {id}\nprice    {value}\naddress  {}",
            text("address")
        ),
    );
    if value > args.max_value {
        return Err(Failure::refused(format!(
            "the machine asks for {value}, and {} is the most that may be paid",
            args.max_value
        )));
    }

    // An output holds one unit at least; a machine without a price keeps it.
    let units = value.max(1);
    let metadata = Object::from_iter([
        ("tag", LedgerValue::from(TAG)),
        ("kind", LedgerValue::from("payment")),
        ("order_id", LedgerValue::from(id.clone())),
        ("address", LedgerValue::from(text("address"))),
    ]);
    let payment = pay(&client, &key, asset, to, units, metadata).await?;
    // The machine learns of it before it is final, and sends it on if this program ends here. That it
    // cannot be told is no reason not to pay; that it does not want the payment is.
    let announced = web
        .send(
            Method::POST,
            &machine.join(&format!("/orders/{id}/payment")),
            &[("content-type", "application/json")],
            payment.canonical().clone(),
            WITHIN,
        )
        .await;
    match announced {
        Ok(answer) => check_wanted(&answer)?,
        Err(error) => tracing::debug!(%error, "the machine was not told of the payment"),
    }
    let receipt = match client.commit(&Submission::from(&payment)).await {
        Fate::Committed(receipt) => receipt,
        Fate::Refused(refusal) => return Err(Failure::refused(format!("refused: {refusal}"))),
        Fate::Unknown(error) => return Err(error.into()),
    };
    out.say(
        &json!({
            "event": "paid",
            "order_id": id,
            "id": receipt.id.to_string(),
            "height": receipt.position.height.0,
            "index": receipt.position.index,
            "value": units,
        }),
        &format!(
            "paid     {units} with {}\n         block {}, index {}",
            receipt.id, receipt.position.height.0, receipt.position.index
        ),
    );
    if args.no_wait {
        return Ok(());
    }
    follow(&web, &machine.join(&format!("/orders/{id}")), args, out).await
}

/// Tells how the order goes until it is over.
async fn follow(web: &Web, url: &Url, args: &Order, out: Out) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(args.within);
    let mut last = String::new();
    loop {
        let looked = web.send(Method::GET, url, &[], "", WITHIN).await;
        // A machine that is being started again answers soon.
        if let Ok(answer) = looked {
            let order = sound(&answer)?;
            let stage = order["stage"].as_str().unwrap_or_default().to_owned();
            if stage != last {
                out.say(
                    &json!({"event": "order", "stage": stage, "order": order}),
                    &format!("now      {stage}"),
                );
                last = stage;
            }
            match order["status"].as_u64() {
                Some(3) => {
                    if let (false, Some(result)) = (out.json, order["result"].as_str()) {
                        out.line(&format!("result   {result}"));
                    }
                    return Ok(());
                }
                Some(4 | 5) => {
                    let reason = order["error"].as_str().unwrap_or("no reason was given");
                    return Err(Failure::refused(format!("the order failed: {reason}")));
                }
                _ => {}
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::Unknown,
                format!("the order is paid and not done yet; ask {url}"),
            ));
        }
        sleep(LOOK).await;
    }
}

/// The JSON of an answer that is no error.
fn sound(answer: &WebAnswer) -> Result<Value, Failure> {
    match answer.json() {
        Some(json) if answer.status.is_success() && json.is_object() => Ok(json),
        _ => Err(unwanted(answer)),
    }
}

/// Whether a machine that was handed a payment still wants it. An order that is over or paid would keep
/// the money. A machine that is out of order for a moment learns of the payment from the ledger.
fn check_wanted(answer: &WebAnswer) -> Result<(), Failure> {
    if answer.status.is_client_error() && answer.status != StatusCode::REQUEST_TIMEOUT {
        return Err(unwanted(answer));
    }
    Ok(())
}

fn unwanted(answer: &WebAnswer) -> Failure {
    let json = answer.json().unwrap_or(Value::Null);
    let reason = json["error"]["message"]
        .as_str()
        .unwrap_or("no reason was given");
    Failure::refused(format!(
        "the machine answered {}: {reason}",
        answer.status.as_u16()
    ))
}

/// Signs a transfer to a machine; what is over goes back.
async fn pay(
    client: &Client,
    key: &SigningKey,
    asset: AssetId,
    to: PublicKey,
    units: u64,
    metadata: Object,
) -> Result<Transaction, Failure> {
    let owner = key.public_key();
    let own = Condition::of_key(&owner);
    let mut draft = Draft::transfer(asset).metadata(metadata);
    let mut held: u128 = 0;
    let unspent = client.outputs(&owner, Some(false)).await?;
    let mut found = std::pin::pin!(outputs::fetch(client, unspent));
    while held < u128::from(units) {
        let Some((output, transaction)) = found.try_next().await? else {
            return Err(Failure::refused(format!(
                "{owner} holds {held} of the token {asset}, {units} are wanted"
            )));
        };
        let facts = &transaction.outputs()[output.index as usize];
        if transaction.asset() == asset && facts.condition == own {
            draft = draft.spend(output, key);
            held += u128::from(facts.amount.units());
        }
    }
    draft = draft.output(units, to);
    let mut over = held - u128::from(units);
    while over > 0 {
        let part = over.min(u128::from(daybook_ledger::AMOUNT_MAX));
        draft = draft.output(u64::try_from(part).expect("within an amount"), owner);
        over -= part;
    }
    draft
        .sign(&[key])
        .map_err(|e| Failure::refused(e.to_string()))
}
