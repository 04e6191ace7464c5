//! Looking at addresses, channels and records, and payouts.

use std::path::Path;

use daybook_client::tracker::{
    Address, AddressKind, ChannelFile, ChannelState, Listing, Order, Topic, Tracker,
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    args::{List, Payout, Status, Watch},
    connect, say_address, settled_json,
};
use crate::{failure::Failure, out::Out};

pub(super) async fn status(args: &Status, out: Out) -> Result<(), Failure> {
    let tracker = connect(&args.peer).await?;
    if args.what == "wallet" {
        return wallet(&tracker, &tracker.key().common_address(), out).await;
    }
    if let Ok(address) = Address::parse(&args.what) {
        if address.kind() == AddressKind::Common {
            return wallet(&tracker, &address, out).await;
        }
        say_address(&tracker.address_state(&address).await?, out);
        return Ok(());
    }
    let path = Path::new(&args.what);
    if !path.is_file() {
        let state = channel_word(tracker.channel_state(&args.what).await?);
        out.say(&json!({"channel": args.what, "state": state}), state);
        return Ok(());
    }
    let file = ChannelFile::load(path)?;
    let channel = file.contract().channel.to_string();
    let state = channel_word(tracker.channel_state(&channel).await?);
    let paid = file.paid();
    let mut json = settled_json("status", &channel, &paid);
    json["role"] = json!(file.role);
    json["state"] = state.into();
    json["timelock"] = json!(file.timelock);
    json["planned"] = file.contract().planned.into();
    json["parked"] = json!(file.parked());
    json["settled"] = file.settled.into();
    out.say(
        &json,
        &format!(
            "channel   {channel}, {state}\nreceipt   {} of {} quanta, {} tokens, {} bytes",
            paid.count,
            file.contract().planned,
            paid.tokens,
            paid.volume
        ),
    );
    Ok(())
}

async fn wallet(tracker: &Tracker, address: &Address, out: Out) -> Result<(), Failure> {
    let state = tracker.common_state(address).await?;
    out.say(
        &json!({
            "address": address.as_str(),
            "profit": state.profit.to_string(),
            "fact": state.own.fact.to_string(),
            "plan": state.own.plan.to_string(),
        }),
        &format!(
            "wallet    {address}\nearned    {}\nin open channels at most {}\npaid out  {}",
            state.own.fact, state.own.plan, state.profit
        ),
    );
    Ok(())
}

fn channel_word(state: ChannelState) -> &'static str {
    match state {
        ChannelState::Unknown => "unknown",
        ChannelState::Open => "open",
        ChannelState::Closed => "closed",
    }
}

pub(super) async fn payout(args: &Payout, out: Out) -> Result<(), Failure> {
    let tracker = connect(&args.peer).await?;
    let address = tracker.key().common_address();
    let amount = match args.amount {
        Some(amount) => amount,
        None => match tracker.common_state(&address).await?.own.fact {
            0 => return Err(Failure::refused(format!("{address} has earned nothing"))),
            all => all,
        },
    };
    let answer = tracker.pay_out(&address, &args.to, amount).await?;
    let mut json = json!({
        "event": "paid_out",
        "address": address.as_str(),
        "to": args.to.to_string(),
        "amount": amount.to_string(),
    });
    let mut text = format!("{amount} tokens paid to {}", args.to);
    // The transfer that moved the tokens, if the tracker names it.
    if let Some(id) = answer.get("txId").or_else(|| answer.get("transaction")) {
        json["transaction"] = id.clone();
        text.push_str(&format!(
            "\ntransaction  {}",
            id.as_str().unwrap_or_default()
        ));
    }
    out.say(&json, &text);
    Ok(())
}

pub(super) async fn list(args: &List, out: Out) -> Result<(), Failure> {
    let tracker = connect(&args.peer).await?;
    let listing = Listing {
        page_size: args.max.map(|max| max.clamp(1, 1_000)).or(Some(100)),
        order: match args.oldest_first {
            true => Order::OldestFirst,
            false => Order::NewestFirst,
        },
        tx_type: args.tx_type,
        channel: args.channel.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
    };
    let mut pages = tracker.list(&listing).await?;
    let mut left = args.max.unwrap_or(u64::MAX);
    while let Some(items) = pages.next().await? {
        for item in items {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            out.say(
                &serde_json::to_value(&item).expect("texts and numbers make JSON"),
                &format!(
                    "{}  type {:>3}  {:>10} tokens  {} -> {}  {}",
                    item.timestamp, item.tx_type, item.amount, item.from, item.to, item.contract_id
                ),
            );
        }
    }
    Ok(())
}

pub(super) async fn watch(args: &Watch, out: Out) -> Result<(), Failure> {
    let tracker = connect(&args.peer).await?;
    let mut topics: Vec<Topic> = args
        .topics
        .iter()
        .map(|text| match Address::parse(text) {
            Ok(address) => Topic::Address(address),
            Err(_) => Topic::Channel(text.clone()),
        })
        .collect();
    if topics.is_empty() {
        topics.push(Topic::Key(tracker.key().pem().to_owned()));
    }
    let mut subscription = tracker.subscribe(topics, args.from);
    // The first connection tells whether the address is right; later ones are tried again for ever.
    subscription.ready().await?;
    let mut events = 0;
    while args.max.is_none_or(|max| events < max) {
        let event = match args.until_idle {
            None => subscription.next().await,
            Some(idle) => match timeout(idle, subscription.next()).await {
                Ok(event) => event,
                Err(_) => break,
            },
        }?;
        events += 1;
        let json = json!({"event": event.event, "seq": event.seq, "data": event.data});
        out.line(&json.to_string());
    }
    Ok(())
}
