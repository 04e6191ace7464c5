//! The story: what happens in the town, step by step, each with its id and its place in the log.

use std::time::Duration;

use daybook_client::{BookEvent, consortium::Outcome};
use daybook_ledger::TransactionId;
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    council::{ASKS, CONTAINER},
    text_of,
    town::{QUOTE, ROLES, Town},
    until,
};
use crate::failure::{Exit, Failure};

/// How long one act may take, on the slowest machine that is thought of.
const ACT_WITHIN: Duration = Duration::from_secs(90);
/// Seconds that a call over the bus may wait for its answer, for which others are asked.
const CALL_SECONDS: &str = "60";
/// Characters of an id that a line shows.
const ID_CHARS: usize = 12;

/// Plays all of it.
pub(super) async fn play(town: &mut Town) -> Result<(), Failure> {
    heading(town, "Two products are ordered, paid and made");
    for (place, role) in ROLES.iter().enumerate() {
        if let Some(product) = role.product {
            order(town, place, product).await?;
        }
    }
    heading(town, "A file is paid by the segment");
    download(town).await?;
    pay_out(town).await?;
    heading(town, "Three organisations agree on what a container holds");
    agree(town).await?;
    heading(town, "A service is asked over the bus");
    call(town).await
}

fn heading(town: &Town, text: &str) {
    if !town.out.json {
        town.out.line(&format!("\n{text}"));
    }
}

/// Says one step; `event` is what the ledger's own stream tells of it.
fn step(town: &Town, what: &str, event: Option<&BookEvent>, text: &str) {
    let id = event.map(|event| event.id.to_string());
    let position = event.map(|event| event.position.to_string());
    let short = match &id {
        Some(id) => format!("{}…", &id[..ID_CHARS]),
        None => String::new(),
    };
    town.out.say(
        &json!({
            "event": "step",
            "step": what,
            "id": id,
            "position": position,
            "kind": event.map(|event| &event.kind),
            "text": text,
        }),
        &format!(
            "  {:>7}  {short:<13}  {text}",
            position.as_deref().unwrap_or("")
        ),
    );
}

/// A customer orders at a robot and pays; the robot pays its provider and works.
async fn order(town: &mut Town, place: usize, product: &str) -> Result<(), Failure> {
    let role = &ROLES[place];
    let machine = town.machines[place].clone();
    let key = text_of(&town.folder.join("customer.key"));
    let (url, most) = (machine.to_string(), role.value.to_string());
    let args = [
        "order",
        &url,
        "--key",
        &key,
        "--product",
        product,
        "--max-value",
        &most,
        "--url",
        &town.url,
    ];
    let said = town
        .children
        .ask("daybook order", &args, ACT_WITHIN)
        .await?;
    let told = |event: &str| {
        said.iter()
            .find(|value| value["event"] == event)
            .ok_or_else(|| wrong(&format!("the order does not tell that it is {event}")))
    };
    let address = told("ordered")?["order"]["address"]
        .as_str()
        .unwrap_or_default();
    step(
        town,
        "ordered",
        None,
        &format!(
            "the customer orders a {product} at {}: {} to {}…",
            role.name,
            role.value,
            address.get(..ID_CHARS).unwrap_or_default()
        ),
    );
    let paid = told("paid")?;
    let payment = seen(town, &paid["id"]).await?;
    let place_told = format!("{}.{}", paid["height"], paid["index"]);
    if place_told != payment.position.to_string() {
        return Err(wrong(&format!(
            "the payment was acknowledged at {place_told}, and the stream has it at {}",
            payment.position
        )));
    }
    let order_id = paid["order_id"].as_str().unwrap_or_default();
    let done = town
        .ask(Method::GET, &machine.join(&format!("/orders/{order_id}")))
        .await?;
    if done["payments"][0]["transaction_id"] != paid["id"] {
        return Err(wrong("the robot was paid by another transaction"));
    }
    let text = format!("the customer pays {} {}", role.name, paid["value"]);
    step(town, "paid", Some(&payment), &text);
    if let Some(provider) = role.provider {
        let supply = &done["provider_order"];
        let payout = seen(town, &supply["transaction_id"]).await?;
        let supplier = &ROLES[provider];
        let text = format!("{} pays {} {}", role.name, supplier.name, supply["value"]);
        step(town, "provider_paid", Some(&payout), &text);
        let of = supply["order_id"].as_str().unwrap_or_default();
        let served = finished(town, provider, of).await?;
        let text = format!("{} delivers: {}", supplier.name, result(&served));
        step(town, "delivered", None, &text);
    }
    let text = format!("{} has worked: {}", role.name, result(&done));
    step(town, "made", None, &text);
    Ok(())
}

/// The order of a machine when it is over, which has to be well.
async fn finished(town: &Town, machine: usize, id: &str) -> Result<Value, Failure> {
    let url = town.machines[machine].join(&format!("/orders/{id}"));
    let over = until(ROLES[machine].name, ACT_WITHIN, async || {
        let order = town.ask(Method::GET, &url).await.ok()?;
        (order["status"].as_u64()? >= 3).then_some(order)
    })
    .await?;
    match over["status"].as_u64() {
        Some(3) => Ok(over),
        _ => Err(wrong(&format!(
            "an order of {} failed",
            ROLES[machine].name
        ))),
    }
}

fn result(order: &Value) -> &str {
    order["result"].as_str().unwrap_or("done")
}

/// A reader downloads the shop's file; a channel pays for it and is settled.
pub(super) async fn download(town: &mut Town) -> Result<(), Failure> {
    let Some((url, _)) = &town.shop else {
        return Err(wrong("there is no shop"));
    };
    let (url, copy) = (url.clone(), text_of(&town.folder.join("copy")));
    let args = ["channel", "fetch", &url, "--out", &copy];
    let peer = town.peer("reader.key");
    let args = [&args[..], &peer.each()].concat();
    let said = town
        .children
        .ask("daybook channel fetch", &args, ACT_WITHIN)
        .await?;
    let fetched = said.last().cloned().unwrap_or_default();
    let settled = match &mut town.shop {
        Some((_, said)) => timeout(ACT_WITHIN, said.event("settled")).await,
        None => Ok(None),
    };
    let settled = settled.ok().flatten();
    let settled = settled.ok_or_else(|| wrong("the shop does not settle"))?;
    let channel = settled["channel"].as_str().unwrap_or_default().to_owned();
    let about = |kind: &'static str| {
        let channel = channel.clone();
        move |event: &BookEvent| event.kind == kind && event.keys.contains(&channel)
    };
    let opened = town
        .witness()
        .find("the channel", about("tracker.open_transfer"))
        .await?;
    let closed = town
        .witness()
        .find("its settlement", about("tracker.close_transfer"))
        .await?;
    let text = format!(
        "a reader opens the channel {}…",
        &channel[..ID_CHARS.min(channel.len())]
    );
    step(town, "channel_opened", Some(&opened), &text);
    let text = format!(
        "{} bytes against {} receipts",
        fetched["bytes"], fetched["receipts"]
    );
    step(town, "downloaded", None, &text);
    if fetched["tokens"] != settled["tokens"] {
        return Err(wrong("payer and payee count other tokens"));
    }
    let text = format!("the shop settles the channel: {} tokens", settled["tokens"]);
    step(town, "channel_settled", Some(&closed), &text);
    Ok(())
}

/// What the shop earned becomes its owner's, as an ordinary output.
async fn pay_out(town: &mut Town) -> Result<(), Failure> {
    let owner = town.owner.to_string();
    let args = ["channel", "payout", "--to", &owner];
    let peer = town.peer("shop.key");
    let args = [&args[..], &peer.each()].concat();
    let said = town
        .children
        .ask("daybook channel payout", &args, ACT_WITHIN)
        .await?;
    let amount = said.last().cloned().unwrap_or_default()["amount"].clone();
    let payout = town
        .witness()
        .find("the payout", |event| event.kind == "tracker.payout")
        .await?;
    let transfer = seen(town, &payout.body["transaction"]).await?;
    let amount = amount.as_str().unwrap_or_default();
    let text = format!("the tracker pays {amount} tokens out of the shop's wallet");
    step(town, "payout", Some(&payout), &text);
    let text = format!("they are the owner's, by a transfer: {amount}");
    step(town, "payout_transfer", Some(&transfer), &text);
    Ok(())
}

/// Three organisations open the ledger of a container and add to it: one proposes, the others agree.
pub(super) async fn agree(town: &mut Town) -> Result<(), Failure> {
    let opened = town.council.open(0).await?;
    agree_on(town, 0, &opened, &format!("to open {CONTAINER}")).await?;
    let appended = town.council.append(1).await?;
    agree_on(town, 1, &appended, "to add a waybill").await?;
    town.council.read().await?;
    match town.council.ledger() {
        Some((2, _)) => Ok(()),
        other => Err(wrong(&format!("the ledger of {CONTAINER} is {other:?}"))),
    }
}

async fn agree_on(
    town: &mut Town,
    proposer: usize,
    proposal: &Outcome,
    what: &str,
) -> Result<(), Failure> {
    let event = recorded(town, proposal).await?;
    let text = format!("{} proposes {what}", town.council.name(proposer));
    step(town, "proposed", Some(&event), &text);
    let id = proposal.entry.id();
    // The member that is neither the proposer nor the one that people decide for agrees by itself.
    let sound = 1 - proposer;
    let event = endorsed(town, sound, id).await?;
    let text = format!("{} agrees", town.council.name(sound));
    step(town, "endorsed", Some(&event), &text);
    let node = town.node("")?;
    town.council.decide(&town.web, &node, id).await?;
    let event = endorsed(town, ASKS, id).await?;
    let effects = event.body["effects"].as_array();
    let committed = effects.is_some_and(|all| all.iter().any(|each| each["effect"] == "committed"));
    if !committed {
        return Err(wrong("all agreed, and nothing came of it"));
    }
    let name = town.council.name(ASKS);
    let text = format!("a person of {name} agrees, and with that it is so");
    step(town, "committed", Some(&event), &text);
    Ok(())
}

/// A member's word about a proposal, as the stream tells it.
async fn endorsed(
    town: &mut Town,
    member: usize,
    proposal: TransactionId,
) -> Result<BookEvent, Failure> {
    let (did, id) = (town.council.did(member), proposal.to_string());
    town.witness()
        .find("an endorsement", |event| {
            event.kind == "consortium.endorse"
                && event.body["member"] == did
                && event.body["proposal"] == id
        })
        .await
}

/// What the stream tells of an entry of the consortium's book, which must be what was answered.
async fn recorded(town: &mut Town, outcome: &Outcome) -> Result<BookEvent, Failure> {
    let event = town.witness().id(&outcome.entry.id()).await?;
    let told = (event.position.height, event.position.index);
    if told != (outcome.position.height, outcome.position.index) {
        return Err(wrong(&format!(
            "an entry was acknowledged at another place than {}",
            event.position
        )));
    }
    Ok(event)
}

/// A visitor asks over the bus, and the service answers.
async fn call(town: &mut Town) -> Result<(), Failure> {
    let key = text_of(&town.folder.join("bus.key"));
    let args = [
        "bus",
        "call",
        QUOTE,
        "{}",
        "--name",
        "visitor",
        "--key-file",
        &key,
        "--url",
        &town.bus_url,
        "--timeout",
        CALL_SECONDS,
    ];
    let said = town
        .children
        .ask("daybook bus call", &args, ACT_WITHIN)
        .await?;
    let answer = said.last().cloned().unwrap_or_default();
    let cheapest = ROLES
        .iter()
        .filter(|role| role.provider.is_none())
        .min_by_key(|role| role.value)
        .expect("the town has a provider");
    if answer["provider"] != cheapest.name || answer["price"] != cheapest.value {
        return Err(wrong(&format!("{QUOTE} is answered with {answer}")));
    }
    let text = format!(
        "{QUOTE}: {} sells energy for {}",
        cheapest.name, cheapest.value
    );
    step(town, "answered", None, &text);
    Ok(())
}

async fn seen(town: &mut Town, id: &Value) -> Result<BookEvent, Failure> {
    let id = id
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong("a transaction has no id"))?;
    town.witness().id(&id).await
}

pub(super) fn wrong(what: &str) -> Failure {
    Failure::new(Exit::Refused, format!("the story breaks off: {what}"))
}
