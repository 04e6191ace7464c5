//! `daybook channel serve`: a file, segment by segment, against receipts.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{self, SHA256};
use daybook_client::tracker::{
    ChannelFile, ChannelState, Error, HalfSigned, Payee, Price, Role, Tracker,
};
use rustix::fs::FlockOperation;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, OwnedMutexGuard, Semaphore, watch},
    task::JoinSet,
};

use super::{
    args::Serve,
    connect, durably,
    link::{FromPayee, FromPayer, Hello, LINE_TIMEOUT, Line, VERSION},
    price_text, settled_json,
};
use crate::{
    failure::{Exit, Failure},
    out::Out,
};

/// Payers at a time; each holds one segment in memory.
const CONNECTIONS_MAX: usize = 64;
/// Channels that are open at a time; each is a small file and a timer.
const CHANNELS_MAX: usize = 1024;
/// How long a stop waits for payers in the middle of a segment.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a close is asked for again when the tracker could not be reached.
const SETTLE_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long accepting rests after it failed, which it does when no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that are read at a time to hash the file.
const HASH_CHUNK_BYTES: usize = 1 << 20;

/// Everything that sessions share.
struct Shop {
    tracker: Tracker,
    file: Arc<File>,
    hello: Hello,
    price: Price,
    state: PathBuf,
    margin: Duration,
    /// Every channel that is not settled, by its name. Whoever works on one holds its lock.
    channels: Mutex<BTreeMap<String, Arc<Mutex<Payee>>>>,
    stopping: watch::Receiver<bool>,
    out: Out,
}

/// How a sale ends.
enum Ended {
    /// Everything was sent and paid.
    Done,
    /// The channel has no room, or its lock is near.
    Full,
    /// The payer broke the rules: the last good receipt counts.
    Cheated(String),
    /// The payer has gone, perhaps to come back.
    Gone(Failure),
}

pub(super) async fn run(args: &Serve, out: Out) -> Result<(), Failure> {
    let signals = |e: io::Error| Failure::system("signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let tracker = connect(&args.peer).await?;
    let _lock = lock(&args.state)?;
    let price = match (args.price, tracker.capabilities()) {
        (Some(price), _) => price,
        (None, Some(capabilities)) => capabilities.prices.income_min,
        (None, None) => return Err(Failure::usage("this tracker names no price: give --price")),
    };
    let to = match args.income {
        true => tracker.open_income().await?.address,
        false => tracker.key().common_address().to_string(),
    };
    let (stop, stopping) = watch::channel(false);
    let (file, bytes, sha256) = tokio::task::block_in_place(|| open(&args.file))?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let shop = Arc::new(Shop {
        hello: Hello {
            daybook_channel: VERSION,
            trackers: tracker
                .keys()
                .ids()
                .iter()
                .map(ToString::to_string)
                .collect(),
            pk: tracker.key().pem().to_owned(),
            to,
            price_tokens: price.amount,
            price_power: price.power,
            name: name.into_owned(),
            bytes,
            sha256,
            segment_bytes: args.segment_bytes,
        },
        tracker,
        file: Arc::new(file),
        price,
        state: args.state.clone(),
        margin: args.margin,
        channels: Mutex::default(),
        stopping,
        out,
    });
    shop.take_up_all().await?;
    let listener = TcpListener::bind(&args.listen)
        .await
        .map_err(|e| Failure::system(format!("cannot listen on {}", args.listen), &e))?;
    let address = listener
        .local_addr()
        .map_err(|e| Failure::system("listening", &e))?;
    out.say(
        &json!({
            "event": "serving",
            "url": format!("tcp://{address}"),
            "to": shop.hello.to,
            "price": price_text(&price),
            "bytes": bytes,
            "sha256": shop.hello.sha256,
        }),
        &format!(
            "serving   {} ({bytes} bytes) at tcp://{address}\nprice     {}\npaid to   {}",
            shop.hello.name,
            price_text(&price),
            shop.hello.to
        ),
    );
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Those that have ended make room in the set.
        while sessions.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            // Closing tells the payer to come again; a line might not even be read.
            continue;
        };
        let shop = shop.clone();
        sessions.spawn(async move {
            let _permit = permit;
            if let Err(failure) = shop.session(stream).await {
                tracing::debug!(%failure, %peer, "a session ended");
            }
        });
    }
    // Nobody waits on this channel but sessions.
    let _ = stop.send(true);
    let drained = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, drained).await.is_err() {
        sessions.shutdown().await;
    }
    let left: Vec<_> = shop.channels.lock().await.values().cloned().collect();
    for payee in left {
        shop.settle(&mut *payee.lock().await).await;
    }
    Ok(())
}

/// Opens the file, with its length and its hash.
fn open(path: &Path) -> Result<(File, u64, String), Failure> {
    let system = |e: io::Error| Failure::system(path.display(), &e);
    let mut file = File::open(path).map_err(system)?;
    let mut hash = digest::Context::new(&SHA256);
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk).map_err(system)? {
            0 => break,
            read => {
                hash.update(&chunk[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok((file, bytes, hex::encode(hash.finish())))
}

/// Takes the folder of channels for this process: two would settle each other's channels.
fn lock(folder: &Path) -> Result<File, Failure> {
    let system = |e: io::Error| Failure::system(folder.display(), &e);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(system)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join("lock"))
        .map_err(system)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(
            Exit::InUse,
            format!("another process uses {}", folder.display()),
        )),
        Err(error) => Err(system(error.into())),
    }
}

impl Shop {
    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// When a channel is settled at the latest, in milliseconds since 1970 by the tracker's clock.
    fn settle_by(&self, payee: &Payee) -> u64 {
        let margin = u64::try_from(self.margin.as_millis()).unwrap_or(u64::MAX);
        payee
            .file()
            .timelock
            .unwrap_or_default()
            .saturating_sub(margin)
    }

    /// How long until then.
    fn time_left(&self, payee: &Payee) -> Duration {
        Duration::from_millis(self.settle_by(payee).saturating_sub(self.tracker.now_ms()))
    }

    /// After a start: takes up every channel that an earlier run left open. Its best receipt is deposited
    /// at once, so that it counts whatever happens next.
    async fn take_up_all(self: &Arc<Self>) -> Result<(), Failure> {
        let system = |e: io::Error| Failure::system(self.state.display(), &e);
        for entry in fs::read_dir(&self.state).map_err(system)? {
            let path = entry.map_err(system)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let file = ChannelFile::load(&path)?;
            if file.role == Role::Payer || file.settled {
                continue;
            }
            let mut payee = Payee::load(&path)?;
            if *payee.file().half_signed().to_pk != *self.tracker.key().pem() {
                return Err(Failure::refused(format!(
                    "{} is the channel of another key",
                    path.display()
                )));
            }
            let channel = payee.file().contract().channel.to_string();
            if self.tracker.channel_state(&channel).await? == ChannelState::Unknown {
                forget(&payee)?;
                continue;
            }
            if payee.file().timelock.is_none() {
                // The tracker's answer was lost; asking again changes nothing.
                let opened = self.tracker.open_transfer(&payee.contract()).await?;
                payee.opened(opened.timelock)?;
            }
            self.park(&mut payee).await;
            self.keep(channel, payee).await;
        }
        Ok(())
    }

    /// Keeps a channel until it is settled, which is seen to even if nobody comes back for it.
    async fn keep(self: &Arc<Self>, channel: String, payee: Payee) -> Arc<Mutex<Payee>> {
        let left = self.time_left(&payee);
        let payee = Arc::new(Mutex::new(payee));
        self.channels.lock().await.insert(channel, payee.clone());
        let (shop, kept) = (self.clone(), payee.clone());
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            // A session in the middle of a segment gives the lock back by this time.
            shop.settle(&mut *kept.lock().await).await;
        });
        payee
    }

    async fn session(self: &Arc<Self>, stream: TcpStream) -> Result<(), Failure> {
        let mut line = Line::new(stream).map_err(|e| Failure::system("connection", &e))?;
        line.say(&FromPayee::Hello(self.hello.clone())).await?;
        let mut stopping = self.stopping.clone();
        loop {
            let word = tokio::select! {
                word = line.hear(LINE_TIMEOUT) => word?,
                _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
            };
            let taken = match word {
                FromPayer::Open { contract, offset } => {
                    self.open(&mut line, contract, offset).await
                }
                FromPayer::Resume { channel, receipt } => {
                    self.resume(&mut line, &channel, receipt).await
                }
                FromPayer::Receipt(_) => Err(Failure::refused("a receipt without a channel")),
            };
            let mut payee = match taken {
                Ok(payee) => payee,
                Err(failure) => {
                    let message = failure.to_string();
                    line.say(&FromPayee::Error { message }).await?;
                    return Err(failure);
                }
            };
            let ended = self.sell(&mut line, &mut payee).await;
            match ended {
                Ended::Done => line.say(&FromPayee::Done {}).await.unwrap_or_default(),
                Ended::Full => line.say(&FromPayee::Full {}).await.unwrap_or_default(),
                Ended::Cheated(message) => {
                    self.settle(&mut payee).await;
                    line.say(&FromPayee::Error { message }).await?;
                    return Ok(());
                }
                Ended::Gone(failure) => {
                    // It may never come back, and this process may not be there at the lock either.
                    self.park(&mut payee).await;
                    return Err(failure);
                }
            }
            self.settle(&mut payee).await;
            let paid = payee.file().paid();
            drop(payee);
            let (tokens, volume) = (paid.tokens, paid.volume);
            line.say(&FromPayee::Settled { tokens, volume }).await?;
            if self.is_stopping() {
                return Ok(());
            }
        }
    }

    async fn open(
        self: &Arc<Self>,
        line: &mut Line,
        contract: HalfSigned,
        offset: u64,
    ) -> Result<OwnedMutexGuard<Payee>, Failure> {
        let key = self.tracker.key();
        let ids = self.tracker.keys().ids();
        let agreement = Payee::read(key, &ids, &contract)?;
        let terms = &agreement.contract;
        if *terms.to != *self.hello.to {
            return Err(Failure::refused("another address is to be paid"));
        }
        if terms.price.compare(&self.price).is_lt() {
            return Err(Failure::refused(format!(
                "the price is {}",
                price_text(&self.price)
            )));
        }
        if offset > self.hello.bytes {
            return Err(Failure::refused("the file is shorter"));
        }
        let channel = terms.channel.to_string();
        if self.channels.lock().await.len() >= CHANNELS_MAX {
            return Err(Failure::refused("too many channels are open"));
        }
        // Names are chosen by payers; file names are not.
        let name = hex::encode(digest::digest(&SHA256, channel.as_bytes()));
        let path = self.state.join(format!("{name}.json"));
        let mut payee = durably(|| {
            let mut payee = Payee::accept(key, &ids, &contract, self.hello.segment_bytes, &path)?;
            payee.file_mut().note = json!({
                "offset": offset,
                "name": self.hello.name,
                "sha256": self.hello.sha256,
            });
            payee.file().save()?;
            Ok::<_, Error>(payee)
        })?;
        let opened = match self.tracker.open_transfer(&payee.contract()).await {
            Ok(opened) => opened,
            Err(error) => {
                // Refused or not, it is not begun. Anybody can ask for one with a key made up on the spot.
                durably(|| forget(&payee))?;
                return Err(error.into());
            }
        };
        durably(|| payee.opened(opened.timelock))?;
        let to_sign = payee.contract().to_sign;
        let payee = self.keep(channel.clone(), payee).await.lock_owned().await;
        self.out.say(
            &json!({"event": "opened", "channel": channel, "timelock": opened.timelock}),
            &format!("opened    {channel}"),
        );
        let timelock = opened.timelock;
        line.say(&FromPayee::Opened { to_sign, timelock }).await?;
        Ok(payee)
    }

    async fn resume(
        &self,
        line: &mut Line,
        channel: &str,
        receipt: Option<HalfSigned>,
    ) -> Result<OwnedMutexGuard<Payee>, Failure> {
        let known = self.channels.lock().await.get(channel).cloned();
        let unknown = || Failure::refused(format!("no channel {channel} is open here"));
        // A session whose payer broke the connection without a word may still hold it.
        let waited = tokio::time::timeout(LINE_TIMEOUT, known.ok_or_else(unknown)?.lock_owned());
        let mut payee = waited.await.map_err(|_| unknown())?;
        if payee.file().settled || payee.file().note["sha256"] != *self.hello.sha256 {
            return Err(unknown());
        }
        let before = payee.file().paid().volume;
        durably(|| match &receipt {
            // The payer signed for the segment that was on its way when the connection broke.
            Some(receipt) if payee.file().offered() > before && is_newer(&payee, receipt) => {
                payee.take(receipt).map(|_| ())
            }
            // It did not arrive, or not whole: it is sent again.
            _ => payee.withdraw(),
        })?;
        let word = FromPayee::Resumed {
            to_sign: payee.contract().to_sign,
            timelock: payee.file().timelock.unwrap_or_default(),
            volume: payee.file().paid().volume,
        };
        line.say(&word).await?;
        Ok(payee)
    }

    /// Sends segments against receipts.
    async fn sell(&self, line: &mut Line, payee: &mut Payee) -> Ended {
        let offset = payee.file().note["offset"].as_u64().unwrap_or_default();
        loop {
            let sent = payee.file().offered();
            let remaining = self.hello.bytes.saturating_sub(offset.saturating_add(sent));
            if remaining == 0 {
                return Ended::Done;
            }
            let left = self.time_left(payee);
            let bytes = remaining
                .min(payee.file().segment_bytes())
                .min(payee.room());
            if bytes == 0 || left.is_zero() || self.is_stopping() {
                return Ended::Full;
            }
            match self.segment(line, payee, offset + sent, bytes, left).await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    /// Sends one segment and takes the receipt for it.
    async fn segment(
        &self,
        line: &mut Line,
        payee: &mut Payee,
        from: u64,
        bytes: u64,
        left: Duration,
    ) -> Result<(), Ended> {
        let file = self.file.clone();
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let read = tokio::task::spawn_blocking(move || {
            let mut segment = vec![0; length];
            file.read_exact_at(&mut segment, from).map(|()| segment)
        });
        let gone = |what: &dyn std::fmt::Display| {
            Ended::Gone(Failure::new(
                Exit::System,
                format!("{}: {what}", self.hello.name),
            ))
        };
        let segment = match read.await {
            Ok(Ok(segment)) => segment,
            Ok(Err(error)) => return Err(gone(&error)),
            Err(error) => return Err(gone(&error)),
        };
        durably(|| payee.offer(bytes)).map_err(|error| match error {
            Error::Stop(_) => Ended::Full,
            other => Ended::Gone(other.into()),
        })?;
        let mut stopping = self.stopping.clone();
        let sent = async {
            line.say(&FromPayee::Segment { bytes }).await?;
            line.write_all(&segment).await
        };
        tokio::select! {
            sent = sent => sent.map_err(Ended::Gone)?,
            // In the middle of a segment nothing can be said that would be understood.
            _ = stopping.wait_for(|stopping| *stopping) => {
                return Err(Ended::Gone(Failure::refused("stopping")));
            }
        }
        let heard = tokio::select! {
            heard = line.hear(left.min(LINE_TIMEOUT)) => heard,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(Ended::Full),
        };
        let receipt = match heard {
            Ok(FromPayer::Receipt(receipt)) => receipt,
            Ok(_) => return Err(Ended::Cheated("a receipt is missing".to_owned())),
            Err(failure) if failure.exit == Exit::Refused => {
                return Err(Ended::Cheated(failure.message));
            }
            Err(failure) => return Err(Ended::Gone(failure)),
        };
        match durably(|| payee.take(&receipt)) {
            Ok(_) => {}
            Err(Error::Stop(stop)) => return Err(Ended::Cheated(stop.to_string())),
            Err(error) => return Err(Ended::Gone(error.into())),
        }
        if payee.file().parked().is_some() {
            // Who can read the log has seen the countersignature of the deposited receipt. It must never
            // be worth less than the newest by more than a segment.
            self.park(payee).await;
        }
        Ok(())
    }

    /// Deposits the newest receipt, to be executed at the lock should nobody settle before.
    async fn park(&self, payee: &mut Payee) {
        let paid = payee.file().paid();
        if payee.file().settled || payee.file().parked() >= Some(paid.count) {
            return;
        }
        let Some(best) = payee.best(self.tracker.key()) else {
            return;
        };
        match self.tracker.park(&best).await {
            Ok(()) => {
                let channel = &*payee.file().contract().channel;
                let json = settled_json("parked", channel, &paid);
                self.out.say(
                    &json,
                    &format!("deposited {} tokens of {channel}", paid.tokens),
                );
                if let Err(error) = durably(|| payee.parked()) {
                    tracing::error!(%error, "a deposit could not be noted");
                }
            }
            // Settling in time does as well.
            Err(error) => tracing::warn!(%error, "a receipt could not be deposited"),
        }
    }

    /// Closes a channel with its newest receipt, however often the connection breaks until the lock. What
    /// the tracker answers otherwise ends it only where it can never be closed: a receipt is money.
    async fn settle(&self, payee: &mut Payee) {
        if payee.file().settled {
            return;
        }
        let channel = payee.file().contract().channel.to_string();
        let paid = payee.file().paid();
        let timelock = payee.file().timelock.unwrap_or_default();
        let refused = match payee.best(self.tracker.key()) {
            // Nothing was paid: the channel ends by itself.
            None => None,
            Some(best) => loop {
                match self.tracker.close_transfer(&best).await {
                    Ok(()) => break None,
                    Err(error) if is_final(&error) => break Some(error),
                    Err(error) => {
                        let now = self.tracker.now_ms();
                        let near = now >= self.settle_by(payee) && !self.is_stopping();
                        if now >= timelock || !(error.is_transient() || near) {
                            break Some(error);
                        }
                        tracing::warn!(%error, channel, "settling again");
                        tokio::time::sleep(SETTLE_AGAIN_AFTER).await;
                    }
                }
            },
        };
        match refused {
            None => self.out.say(
                &settled_json("settled", &channel, &paid),
                &format!(
                    "settled   {channel}: {} tokens, {} bytes",
                    paid.tokens, paid.volume
                ),
            ),
            Some(error) => {
                let mut json = settled_json("not_settled", &channel, &paid);
                json["reason"] = error.to_string().into();
                json["parked"] = json!(payee.file().parked());
                self.out
                    .say(&json, &format!("not settled {channel}: {error}"));
                if !is_final(&error) {
                    // It is tried again near the lock, or after the next start. Until then the receipt is
                    // deposited, if the tracker takes it.
                    return self.park(payee).await;
                }
            }
        }
        if let Err(error) = durably(|| payee.settled()) {
            tracing::error!(%error, channel, "a close could not be noted");
        }
        self.channels.lock().await.remove(&channel);
    }
}

/// Whether the receipt is for the segment that has none yet.
fn is_newer(payee: &Payee, receipt: &HalfSigned) -> bool {
    payee
        .file()
        .newest_receipt()
        .is_none_or(|newest| newest.message != receipt.message)
}

/// Whether the tracker will never take a receipt of this channel: it is closed, past its lock, or was never
/// there.
fn is_final(error: &Error) -> bool {
    matches!(
        error.code(),
        Some("already_closed" | "expired" | "not_found" | "channel_conflict")
    )
}

/// Removes the file of a channel that was never opened: nothing was served for it.
fn forget(payee: &Payee) -> Result<(), Failure> {
    let path = payee.file().path();
    fs::remove_file(path).map_err(|e| Failure::system(path.display(), &e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_of_channels_is_for_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert_eq!(lock(folder.path()).unwrap_err().exit, Exit::InUse);
        drop(held);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn a_receipt_is_given_up_only_where_no_receipt_can_count_any_more() {
        let refused = |code: &str| Error::Refused {
            code: code.to_owned(),
            message: String::new(),
        };
        for code in ["already_closed", "expired", "not_found", "channel_conflict"] {
            assert!(is_final(&refused(code)), "{code}");
        }
        for error in [
            refused("rate_limited"),
            refused("internal"),
            refused("bad_signature"),
            refused(""),
            Error::Protocol("an answer of another version".to_owned()),
            Error::Impostor("another key".to_owned()),
            Error::Unknown("no answer".to_owned()),
        ] {
            assert!(!is_final(&error), "{error}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_length_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "abc").unwrap();
        let (_, bytes, sha256) = open(&path).unwrap();
        assert_eq!(bytes, 3);
        assert!(sha256.starts_with("ba7816bf8f01cfea"), "{sha256}");
    }
}
