//! Channels by hand: each step of payer and payee as a command of its own, over files and pipes.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use daybook_client::tracker::{
    Agreement, ChannelFile, Contract, Error, HalfSigned, Payee, Payer, Role, Tracker, Version,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    args::{Accept, Confirm, OfFile, Open, Pay, Take},
    connect, read_key, read_pem, settled_json,
};
use crate::{failure::Failure, keyfile, out::Out};

/// Bytes of a contract or a receipt in JSON at most: two keys of RSA-4096 and a signature take 4,000.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// Random bytes in a channel's name.
const NAME_BYTES: usize = 16;

/// What a payee answers to a contract.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    channel_id: String,
    to_sign: String,
    timelock: u64,
}

/// The agreement of this payer with `payee_pem`, for the tracker that it is connected to.
pub(super) fn agreement(tracker: &Tracker, contract: Contract, payee_pem: String) -> Agreement {
    Agreement {
        contract,
        from_pk: tracker.key().pem().to_owned(),
        to_pk: payee_pem,
        tracker: match tracker.version() {
            Version::V2 => tracker.keys().ids().first().copied(),
            Version::V1 => None,
        },
    }
}

/// A name that nobody else chooses.
pub(super) fn new_name() -> String {
    let mut name = [0; NAME_BYTES];
    aws_lc_rs::rand::fill(&mut name).expect("the operating system gives random bytes");
    hex::encode(name)
}

pub(super) async fn open(args: &Open, out: Out) -> Result<(), Failure> {
    let tracker = connect(&args.peer).await?;
    let contract = Contract {
        channel: args.channel.clone().unwrap_or_else(new_name).into(),
        from: args.from.text().clone(),
        to: args.to.text().clone(),
        price: args.price,
        planned: args.quanta,
    };
    let agreement = agreement(&tracker, contract, read_pem(&args.payee)?);
    let payer = Payer::propose(tracker.key(), agreement, &args.file)?;
    line(payer.file().half_signed(), out);
    Ok(())
}

pub(super) async fn accept(args: &Accept, out: Out) -> Result<(), Failure> {
    let open: HalfSigned = read(&args.contract)?;
    let tracker = connect(&args.peer).await?;
    let ids = tracker.keys().ids();
    let agreement = Payee::read(tracker.key(), &ids, &open)?;
    let price = agreement.contract.price;
    if args
        .price_min
        .is_some_and(|least| price.compare(&least).is_lt())
    {
        return Err(Failure::refused("the price is below the least accepted"));
    }
    if args
        .to
        .as_ref()
        .is_some_and(|to| *to.as_str() != *agreement.contract.to)
    {
        return Err(Failure::refused("another address is to be paid"));
    }
    let mut payee = match Payee::accept(tracker.key(), &ids, &open, args.segment_bytes, &args.file)
    {
        // The same contract again: its opening may have been asked for and not answered.
        Err(Error::File { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {
            let payee = Payee::load(&args.file)?;
            if *payee.file().half_signed() != open {
                return Err(Failure::refused(format!(
                    "{} is the file of another channel",
                    args.file.display()
                )));
            }
            payee
        }
        accepted => accepted?,
    };
    let opened = tracker.open_transfer(&payee.contract()).await?;
    payee.opened(opened.timelock)?;
    let accepted = Accepted {
        channel_id: agreement.contract.channel.to_string(),
        to_sign: payee.contract().to_sign,
        timelock: opened.timelock,
    };
    line(&accepted, out);
    Ok(())
}

pub(super) fn confirm(args: &Confirm, out: Out) -> Result<(), Failure> {
    let accepted: Accepted = read(&args.accepted)?;
    let mut payer = Payer::load(&args.file)?;
    if *payer.file().contract().channel != *accepted.channel_id {
        return Err(Failure::refused("this is about another channel"));
    }
    payer.opened(&accepted.to_sign, accepted.timelock)?;
    line(&accepted, out);
    Ok(())
}

pub(super) fn pay(args: &Pay, out: Out) -> Result<(), Failure> {
    let peer = keyfile::load_secret(
        &args.key.key,
        &crate::passphrase::Source::new(args.key.passphrase_file.as_deref()),
    )?;
    let key = super::peer_key(&args.key.key, &peer)?;
    let mut payer = Payer::load(&args.file)?;
    line(&payer.pay(&key, args.volume)?, out);
    Ok(())
}

pub(super) fn take(args: &Take, out: Out) -> Result<(), Failure> {
    let receipt: HalfSigned = read(&args.receipt)?;
    let mut payee = Payee::load(&args.file)?;
    let before = payee.file().offered();
    let more = args
        .served
        .checked_sub(before)
        .ok_or_else(|| Failure::refused(format!("{before} bytes were served before, not fewer")))?;
    if more > 0 {
        payee.offer(more)?;
    }
    let settled = payee.take(&receipt)?;
    let channel = payee.file().contract().channel.to_string();
    out.say(
        &settled_json("taken", &channel, &settled),
        &format!("{} tokens for {} bytes", settled.tokens, settled.volume),
    );
    Ok(())
}

pub(super) async fn settle(args: &OfFile, out: Out) -> Result<(), Failure> {
    let file = ChannelFile::load(&args.file)?;
    if file.role == Role::Payer {
        return Err(Failure::usage(
            "a payee settles; this is the file of a payer",
        ));
    }
    let mut payee = Payee::load(&args.file)?;
    let key = read_key(&args.peer)?;
    let best = payee
        .best(&key)
        .ok_or_else(|| Failure::refused("there is no receipt to settle with"))?;
    let tracker = super::connect_as(&args.peer, key).await?;
    tracker.close_transfer(&best).await?;
    payee.settled()?;
    let settled = payee.file().paid();
    let channel = payee.file().contract().channel.to_string();
    out.say(
        &settled_json("settled", &channel, &settled),
        &format!(
            "settled: {} tokens for {} bytes",
            settled.tokens, settled.volume
        ),
    );
    Ok(())
}

pub(super) async fn park(args: &OfFile, out: Out) -> Result<(), Failure> {
    let mut payee = Payee::load(&args.file)?;
    let key = read_key(&args.peer)?;
    let best = payee
        .best(&key)
        .ok_or_else(|| Failure::refused("there is no receipt to deposit"))?;
    let tracker = super::connect_as(&args.peer, key).await?;
    tracker.park(&best).await?;
    payee.parked()?;
    let settled = payee.file().paid();
    let channel = payee.file().contract().channel.to_string();
    out.say(
        &settled_json("parked", &channel, &settled),
        &format!(
            "deposited: {} tokens at the lock, unless settled before",
            settled.tokens
        ),
    );
    Ok(())
}

/// Prints what the other side reads: JSON, with and without `--json`.
fn line(value: &impl Serialize, out: Out) {
    out.line(&serde_json::to_string(value).expect("texts and numbers make JSON"));
}

/// Reads what the other side printed.
fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let mut text = String::new();
    let name = path.display();
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|e| Failure::system(name, &e))?),
    };
    input
        .take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Failure::system(path.display(), &e))?;
    serde_json::from_str(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}
