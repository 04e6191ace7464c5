//! `daybook channel fetch`: a download that pays segment by segment.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use daybook_client::tracker::{Address, Contract, Payer, Price, Tracker};
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    args::{Fetch, SEGMENT_BYTES_MAX},
    connect, durably, hand,
    link::{FromPayee, FromPayer, Hello, LINE_TIMEOUT, Line, VERSION},
    price_text,
};
use crate::{
    failure::{Exit, Failure},
    out::Out,
};

/// How long a connection to the payee may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the payee may take to open or to close a channel with the tracker.
const TRACKER_TIMEOUT: Duration = Duration::from_secs(120);

/// A download under way.
struct Download<'d> {
    args: &'d Fetch,
    tracker: Tracker,
    line: Line,
    hello: Hello,
    part: File,
    part_path: PathBuf,
    channel_path: PathBuf,
    /// A spend address that this download opened, to be closed at its end.
    own_spend: Option<Address>,
    tokens: u64,
    receipts: u64,
    channels: u64,
}

/// How the words of one channel end.
enum Ended {
    /// All bytes are here.
    Done,
    /// Another channel is needed.
    Full,
}

pub(super) async fn run(args: &Fetch, out: Out) -> Result<(), Failure> {
    let place = args
        .from
        .strip_prefix("tcp://")
        .ok_or_else(|| Failure::usage(format!("`{}` is not tcp://HOST:PORT", args.from)))?;
    if args.out.exists() {
        return Err(Failure::refused(format!(
            "{} exists already",
            args.out.display()
        )));
    }
    let beside = |extension: &str| {
        let mut name = args.out.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let tracker = connect(&args.peer).await?;
    let unreachable = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("cannot reach {place}: {reason}"))
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"no answer")),
    };
    let mut line = Line::new(stream).map_err(|e| unreachable(&e))?;
    let hello = match line.hear(LINE_TIMEOUT).await? {
        FromPayee::Hello(hello) => hello,
        FromPayee::Error { message } => return Err(Failure::refused(message)),
        _ => return Err(Failure::refused("the payee does not say hello")),
    };
    check(&hello, &tracker)?;
    let part_path = beside(".part");
    let part = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&part_path)
        .map_err(|e| Failure::system(part_path.display(), &e))?;
    let mut download = Download {
        args,
        tracker,
        line,
        hello,
        part,
        part_path,
        channel_path: beside(".channel"),
        own_spend: None,
        tokens: 0,
        receipts: 0,
        channels: 0,
    };
    download.run().await?;
    download.finish(out).await
}

/// What must fit before anything is signed.
fn check(hello: &Hello, tracker: &Tracker) -> Result<(), Failure> {
    if hello.daybook_channel != VERSION {
        return Err(Failure::refused("the payee speaks another version"));
    }
    let own = tracker.keys().ids();
    if !own
        .iter()
        .any(|id| hello.trackers.contains(&id.to_string()))
    {
        return Err(Failure::refused("the payee uses another tracker"));
    }
    if hello.segment_bytes == 0 || hello.segment_bytes > SEGMENT_BYTES_MAX {
        return Err(Failure::refused("the payee's segments are too large"));
    }
    Ok(())
}

impl Download<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut position = 0;
        if self.channel_path.exists() {
            let mut payer = Payer::load(&self.channel_path)?;
            if payer.file().note["sha256"] != *self.hello.sha256 {
                return Err(Failure::refused(format!(
                    "{} belongs to another file; remove it to begin anew",
                    self.channel_path.display()
                )));
            }
            if payer.file().note["own_spend"] == true {
                self.own_spend = Address::parse(&payer.file().contract().from).ok();
            }
            self.tokens = payer.file().note["tokens"].as_u64().unwrap_or_default();
            if payer.file().settled {
                // The note is from before it; the end that adds it up may have been the end of the process.
                self.tokens += payer.file().paid().tokens;
            }
            position = position_of(&payer);
            if !payer.file().settled && self.resume(&mut payer).await? {
                let ended = self.segments(&mut payer).await?;
                self.close(&mut payer, &ended).await?;
                position = position_of(&payer);
                if matches!(ended, Ended::Done) {
                    return Ok(());
                }
            }
        }
        loop {
            if self.channels > 0 {
                // The payee may want to be paid elsewhere by now: its address lives for half an hour.
                self.connect_again().await?;
            }
            let mut payer = self.open(position).await?;
            let ended = self.segments(&mut payer).await?;
            self.close(&mut payer, &ended).await?;
            position = position_of(&payer);
            if matches!(ended, Ended::Done) {
                return Ok(());
            }
        }
    }

    /// Takes up a channel; false when the payee has none of it any more.
    async fn resume(&mut self, payer: &mut Payer) -> Result<bool, Failure> {
        let word = FromPayer::Resume {
            channel: payer.file().contract().channel.to_string(),
            receipt: payer.file().newest_receipt(),
        };
        self.line.say(&word).await?;
        match self.line.hear(TRACKER_TIMEOUT).await? {
            FromPayee::Resumed {
                to_sign,
                timelock,
                volume,
            } if volume == payer.file().paid().volume => {
                durably(|| payer.opened(&to_sign, timelock))?;
                self.channels += 1;
                Ok(true)
            }
            FromPayee::Resumed { volume, .. } => Err(Failure::refused(format!(
                "the payee has a receipt for {volume} bytes of this channel, this side for {}",
                payer.file().paid().volume
            ))),
            FromPayee::Error { message } => {
                // It is settled, or was never opened: what was paid is paid.
                tracing::info!(message, "the channel is gone; opening another one");
                durably(|| payer.settled())?;
                self.tokens += payer.file().paid().tokens;
                self.connect_again().await?;
                Ok(false)
            }
            _ => Err(nonsense()),
        }
    }

    /// A payee that refuses ends the connection.
    async fn connect_again(&mut self) -> Result<(), Failure> {
        let place = self.args.from.strip_prefix("tcp://").unwrap_or_default();
        let stream = TcpStream::connect(place)
            .await
            .map_err(|e| Failure::new(Exit::Unreachable, format!("cannot reach {place}: {e}")))?;
        self.line = Line::new(stream).map_err(|e| Failure::system("connection", &e))?;
        match self.line.hear(LINE_TIMEOUT).await? {
            FromPayee::Hello(hello) if hello.sha256 == self.hello.sha256 => {
                check(&hello, &self.tracker)?;
                self.hello = hello;
                Ok(())
            }
            FromPayee::Hello(_) => Err(Failure::refused("the payee serves another file now")),
            _ => Err(nonsense()),
        }
    }

    /// Opens a channel for the rest of the file, or for as much as there are tokens for.
    async fn open(&mut self, position: u64) -> Result<Payer, Failure> {
        let price = self.hello.price();
        let wanted = price.quanta(self.hello.bytes - position).max(1);
        let (spend, planned) = self.spend_address(&price, wanted).await?;
        let contract = Contract {
            channel: hand::new_name().into(),
            from: spend.text().clone(),
            to: self.hello.to.as_str().into(),
            price,
            planned,
        };
        // The file of a channel that is over makes room for the next one's.
        match fs::remove_file(&self.channel_path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::system(self.channel_path.display(), &e));
            }
            _ => {}
        }
        let agreement = hand::agreement(&self.tracker, contract, self.hello.pk.clone());
        let note = json!({
            "offset": position,
            "sha256": self.hello.sha256,
            "own_spend": self.own_spend.as_ref() == Some(&spend),
            "tokens": self.tokens,
        });
        let mut payer = durably(|| {
            let mut payer = Payer::propose(self.tracker.key(), agreement, &self.channel_path)?;
            payer.file_mut().note = note;
            payer.file().save().map(|()| payer)
        })?;
        let word = FromPayer::Open {
            contract: payer.file().half_signed().clone(),
            offset: position,
        };
        self.line.say(&word).await?;
        match self.line.hear(TRACKER_TIMEOUT).await? {
            FromPayee::Opened { to_sign, timelock } => {
                durably(|| payer.opened(&to_sign, timelock))?;
                self.channels += 1;
                Ok(payer)
            }
            FromPayee::Error { message } => {
                durably(|| payer.settled())?;
                Err(Failure::refused(format!("the payee refuses: {message}")))
            }
            _ => Err(nonsense()),
        }
    }

    /// An address to pay from, and how many quanta it can pay.
    async fn spend_address(
        &mut self,
        price: &Price,
        wanted: u64,
    ) -> Result<(Address, u64), Failure> {
        let budget = match self.args.tokens_max {
            None => u64::MAX,
            Some(max) => max.saturating_sub(self.tokens),
        };
        // A price of nothing is paid by anything.
        let affordable = |tokens: u64| match price.amount {
            0 => wanted,
            amount => (tokens.min(budget) / amount).min(wanted),
        };
        if affordable(u64::MAX) == 0 {
            return Err(Failure::refused("--tokens-max is used up"));
        }
        let given = self.args.spend.clone();
        if let Some(address) = given.clone().or_else(|| self.own_spend.clone()) {
            match self.tracker.address_state(&address).await {
                Ok(state) => {
                    self.check_price(price, &state.price)?;
                    match affordable(state.limit.amount) {
                        0 if given.is_some() => {
                            return Err(Failure::refused(format!(
                                "{address} has only {} tokens left",
                                state.limit.amount
                            )));
                        }
                        0 => self.close_spend().await,
                        planned => return Ok((address, planned)),
                    }
                }
                Err(error) if given.is_some() || error.code().is_none() => return Err(error.into()),
                // It is locked or closed; another one is opened.
                Err(_) => {}
            }
        }
        let state = self.tracker.open_spend().await?;
        let address = Address::parse(&state.address)
            .map_err(|e| Failure::refused(format!("the tracker's address: {e}")))?;
        self.own_spend = Some(address.clone());
        self.check_price(price, &state.price)?;
        match affordable(state.limit.amount) {
            0 => Err(Failure::refused(format!(
                "{} tokens do not buy a quantum at {}",
                state.limit.amount,
                price_text(price)
            ))),
            planned => Ok((address, planned)),
        }
    }

    fn check_price(&self, price: &Price, own: &Price) -> Result<(), Failure> {
        let most = self.args.price_max.as_ref().unwrap_or(own);
        if price.compare(most).is_gt() {
            return Err(Failure::refused(format!(
                "the payee wants {}, more than {}",
                price_text(price),
                price_text(most)
            )));
        }
        Ok(())
    }

    /// Takes segments and pays for each. What was paid for is on disk before the receipt leaves.
    async fn segments(&mut self, payer: &mut Payer) -> Result<Ended, Failure> {
        loop {
            let bytes = match self.line.hear(LINE_TIMEOUT).await? {
                FromPayee::Segment { bytes } => bytes,
                FromPayee::Done {} => return Ok(Ended::Done),
                FromPayee::Full {} => return Ok(Ended::Full),
                FromPayee::Error { message } => return Err(Failure::refused(message)),
                _ => return Err(nonsense()),
            };
            let position = position_of(payer);
            let rest = self.hello.bytes.saturating_sub(position);
            if bytes == 0 || bytes > self.hello.segment_bytes || bytes > rest {
                return Err(Failure::refused("the payee sends other bytes than agreed"));
            }
            payer
                .may_take(bytes)
                .map_err(|stop| Failure::refused(stop.to_string()))?;
            let mut segment = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
            self.line.read_exact(&mut segment).await?;
            let volume = payer.file().paid().volume + bytes;
            let receipt = durably(|| {
                let system = |e: io::Error| Failure::system(self.part_path.display(), &e);
                self.part.write_all_at(&segment, position).map_err(system)?;
                self.part.sync_data().map_err(system)?;
                Ok::<_, Failure>(payer.pay(self.tracker.key(), volume)?)
            })?;
            self.receipts += 1;
            self.line.say(&FromPayer::Receipt(receipt)).await?;
        }
    }

    /// Waits until the payee has closed the channel.
    async fn close(&mut self, payer: &mut Payer, ended: &Ended) -> Result<(), Failure> {
        if matches!(ended, Ended::Done) && position_of(payer) != self.hello.bytes {
            return Err(Failure::refused(
                "the payee ends before the end of the file",
            ));
        }
        match self.line.hear(TRACKER_TIMEOUT).await {
            Ok(FromPayee::Settled { .. }) => {}
            Ok(_) => return Err(nonsense()),
            // The bytes are here and the receipt is there: what the payee does with it is its affair.
            Err(failure) if matches!(ended, Ended::Done) => {
                tracing::warn!(%failure, "not settled yet")
            }
            Err(failure) => return Err(failure),
        }
        durably(|| payer.settled())?;
        self.tokens += payer.file().paid().tokens;
        Ok(())
    }

    /// Gives what is left on the own spend address back. It expires anyway.
    async fn close_spend(&mut self) {
        if let Some(address) = self.own_spend.take()
            && let Err(error) = self.tracker.close_address(&address).await
        {
            tracing::debug!(%error, %address, "the spend address stays open until its lock");
        }
    }

    async fn finish(mut self, out: Out) -> Result<(), Failure> {
        let (hash, length) = durably(|| hash(&self.part))
            .map_err(|e| Failure::system(self.part_path.display(), &e))?;
        self.close_spend().await;
        if hash != self.hello.sha256 || length != self.hello.bytes {
            return Err(Failure::refused(format!(
                "the bytes in {} are not those that were promised",
                self.part_path.display()
            )));
        }
        let system = |path: &Path, e: &io::Error| Failure::system(path.display(), e);
        // A link, unlike a renaming, never replaces what somebody made meanwhile.
        fs::hard_link(&self.part_path, &self.args.out).map_err(|e| system(&self.args.out, &e))?;
        for path in [&self.part_path, &self.channel_path] {
            fs::remove_file(path).map_err(|e| system(path, &e))?;
        }
        out.say(
            &json!({
                "event": "fetched",
                "name": self.hello.name,
                "bytes": self.hello.bytes,
                "sha256": self.hello.sha256,
                "tokens": self.tokens,
                "receipts": self.receipts,
                "channels": self.channels,
            }),
            &format!(
                "fetched   {} bytes for {} tokens, {} receipts",
                self.hello.bytes, self.tokens, self.receipts
            ),
        );
        Ok(())
    }
}

/// How much of the file is here and paid for.
fn position_of(payer: &Payer) -> u64 {
    let offset = payer.file().note["offset"].as_u64().unwrap_or_default();
    offset.saturating_add(payer.file().paid().volume)
}

fn hash(file: &File) -> io::Result<(String, u64)> {
    use aws_lc_rs::digest::{Context, SHA256};
    const CHUNK_BYTES: usize = 1 << 20;
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut length = 0;
    loop {
        match file.read_at(&mut chunk, length)? {
            0 => return Ok((hex::encode(hash.finish()), length)),
            read => {
                hash.update(&chunk[..read]);
                length += read as u64;
            }
        }
    }
}

fn nonsense() -> Failure {
    Failure::refused("the payee says something out of turn")
}
