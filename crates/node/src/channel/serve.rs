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
    Agreement, ChannelFile, ChannelState, Error, HalfSigned, Payee, Price, Role, Tracker,
};
use rustix::fs::FlockOperation;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, OwnedMutexGuard, Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
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
/// How long after the lock, as far as it is known here, a close is still asked for when no answer comes:
/// the lock may be later by as long as an answer was on its way.
const LOCK_DOUBT: Duration = Duration::from_secs(30);
/// The longest that a channel is left open, whatever its lock: far above the minutes that one lasts.
const CHANNEL_TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a transfer channel lives with a tracker that does not say: as long as with the first ones.
const TRANSFER_LIFETIME: Duration = Duration::from_secs(300);
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
    /// The income addresses that are open, the newest last; `None` when the wallet is paid.
    incomes: Option<Mutex<Vec<Income>>>,
    /// How long a transfer channel lives at most.
    transfer_lifetime: Duration,
    /// Every channel that is not settled, by its name. Whoever works on one holds its lock, and waits for
    /// no payer beyond the time at which it is to be settled.
    channels: Mutex<BTreeMap<String, Arc<Mutex<Sale>>>>,
    stopping: watch::Receiver<bool>,
    out: Out,
}

/// A channel that is not settled.
struct Sale {
    payee: Payee,
    deadline: Deadline,
}

/// When a channel ends, by a clock that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    /// When it is settled at the latest.
    settle: Instant,
    /// When it locks, or a little before.
    lock: Instant,
}

impl Deadline {
    /// Of a channel that locks when `left` has passed since `from`, with a tracker that took `round_trip`
    /// to answer (section 11, rule 6).
    fn new(from: Instant, left: Duration, round_trip: Duration, margin: Duration) -> Deadline {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let left = left.min(CHANNEL_TIME_MAX);
        let settle = Agreement::settle_by(ms(left), ms(round_trip), ms(margin));
        Deadline {
            settle: from + Duration::from_millis(settle),
            lock: from + left,
        }
    }

    fn is_near(&self) -> bool {
        Instant::now() >= self.settle
    }
}

/// An income address that payers are told to pay.
struct Income {
    address: String,
    lifetime: Duration,
    lock: Instant,
}

impl Income {
    /// Whether a channel that is opened now can live as long as channels do. Of an address that lives hardly
    /// longer itself, the first half must do.
    fn serves(&self, now: Instant, transfer_lifetime: Duration) -> bool {
        now + transfer_lifetime.min(self.lifetime / 2) <= self.lock
    }
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
    let lifetime = tracker
        .capabilities()
        .and_then(|it| it.transfer_lifetime_ms);
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
            to: tracker.key().common_address().to_string(),
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
        incomes: args.income.then(Mutex::default),
        transfer_lifetime: lifetime.map_or(TRANSFER_LIFETIME, Duration::from_millis),
        channels: Mutex::default(),
        stopping,
        out,
    });
    shop.take_up_all().await?;
    let to = shop.to().await?;
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
            "to": to,
            "price": price_text(&price),
            "bytes": bytes,
            "sha256": shop.hello.sha256,
        }),
        &format!(
            "serving   {} ({bytes} bytes) at tcp://{address}\nprice     {}\npaid to   {}",
            shop.hello.name,
            price_text(&price),
            to
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
    for sale in left {
        shop.settle(&mut *sale.lock().await).await;
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

    /// The address to be paid by channels that are opened now.
    async fn to(&self) -> Result<String, Failure> {
        let Some(incomes) = &self.incomes else {
            return Ok(self.hello.to.clone());
        };
        // Held while another one is opened: one is enough for all who come meanwhile.
        let mut incomes = incomes.lock().await;
        let asked = Instant::now();
        incomes.retain(|income| income.lock > asked);
        if let Some(newest) = incomes.last()
            && newest.serves(asked, self.transfer_lifetime)
        {
            return Ok(newest.address.clone());
        }
        match self.tracker.open_income().await {
            Ok(state) => {
                let left = state.lifetime.map(Duration::from_millis);
                let left = left.unwrap_or_else(|| self.tracker.time_left(state.timelock));
                let lifetime = left.min(CHANNEL_TIME_MAX);
                incomes.push(Income {
                    address: state.address.clone(),
                    lifetime,
                    lock: asked + lifetime,
                });
                Ok(state.address)
            }
            Err(error) => match incomes.last() {
                Some(newest) => {
                    tracing::warn!(%error, "no other income address could be opened yet");
                    Ok(newest.address.clone())
                }
                None => Err(error.into()),
            },
        }
    }

    /// Whether a channel may pay this address: the wallet, or an income address that is still open. A payer
    /// may have been told before another one was opened.
    async fn is_paid_to(&self, to: &str) -> bool {
        match &self.incomes {
            None => *to == *self.hello.to,
            Some(incomes) => {
                let now = Instant::now();
                let incomes = incomes.lock().await;
                let mut open = incomes.iter().filter(|income| income.lock > now);
                open.any(|income| *to == *income.address)
            }
        }
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
            if let Some(id) = file.agreement().tracker
                && !self.tracker.keys().ids().contains(&id)
            {
                // Asked about it, this one would say that it was never there.
                return Err(Failure::refused(format!(
                    "{} is a channel of another tracker, {id}: give its --url, or another --state",
                    path.display()
                )));
            }
            let mut payee = Payee::load(&path)?;
            if *payee.file().half_signed().to_pk != *self.tracker.key().pem() {
                return Err(Failure::refused(format!(
                    "{} is the channel of another key",
                    path.display()
                )));
            }
            let channel = payee.file().contract().channel.to_string();
            let asked = Instant::now();
            let state = self.tracker.channel_state(&channel).await?;
            let round_trip = asked.elapsed();
            if state == ChannelState::Unknown {
                if payee.file().newest_receipt().is_none() {
                    forget(&payee)?;
                    continue;
                }
                // This tracker may have lost it, or be another one: the receipt is worth what it says as soon
                // as the right one is back.
                let paid = payee.file().paid();
                let mut json = settled_json("not_settled", &channel, &paid);
                json["reason"] = "the tracker does not know the channel".into();
                let text = format!(
                    "not settled {channel}: the tracker does not know it; {} stays",
                    path.display()
                );
                self.out.say(&json, &text);
                continue;
            }
            let timelock = match payee.file().timelock {
                Some(timelock) => timelock,
                None => {
                    // The tracker's answer was lost; asking again changes nothing.
                    let opened = self.tracker.open_transfer(&payee.contract()).await?;
                    payee.opened(opened.timelock)?;
                    opened.timelock
                }
            };
            let left = self.tracker.time_left(timelock);
            let mut sale = Sale {
                payee,
                deadline: Deadline::new(Instant::now(), left, round_trip, self.margin),
            };
            self.park(&mut sale).await;
            self.keep(channel, sale).await;
        }
        Ok(())
    }

    /// Keeps a channel until it is settled, which is seen to even if nobody comes back for it.
    async fn keep(self: &Arc<Self>, channel: String, sale: Sale) -> Arc<Mutex<Sale>> {
        let settle = sale.deadline.settle;
        let sale = Arc::new(Mutex::new(sale));
        self.channels.lock().await.insert(channel, sale.clone());
        let (shop, kept) = (self.clone(), sale.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(settle).await;
            // A session in the middle of a segment gives the lock back by this time.
            shop.settle(&mut *kept.lock().await).await;
        });
        sale
    }

    async fn session(self: &Arc<Self>, stream: TcpStream) -> Result<(), Failure> {
        let mut line = Line::new(stream).map_err(|e| Failure::system("connection", &e))?;
        let hello = Hello {
            to: self.to().await?,
            ..self.hello.clone()
        };
        line.say(&FromPayee::Hello(hello)).await?;
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
            let mut sale = match taken {
                Ok(sale) => sale,
                Err(failure) => {
                    let message = failure.to_string();
                    line.end_by(None);
                    line.say(&FromPayee::Error { message }).await?;
                    return Err(failure);
                }
            };
            let ended = self.sell(&mut line, &mut sale).await;
            line.end_by(None);
            let last = match ended {
                Ended::Done => FromPayee::Done {},
                Ended::Full => FromPayee::Full {},
                Ended::Cheated(message) => {
                    self.settle(&mut sale).await;
                    drop(sale);
                    line.say(&FromPayee::Error { message }).await?;
                    return Ok(());
                }
                Ended::Gone(failure) => {
                    if sale.deadline.is_near() {
                        self.settle(&mut sale).await;
                    } else {
                        // It may never come back, and this process may not be there at the lock either.
                        self.park_in_time(&mut sale).await;
                    }
                    return Err(failure);
                }
            };
            // At the same time: a payer that does not listen holds nothing up, and one that does need not
            // wait for the tracker.
            let settling = async {
                let mut sale = sale;
                self.settle(&mut sale).await;
                sale.payee.file().paid()
            };
            let (paid, said) = tokio::join!(settling, line.say(&last));
            said?;
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
    ) -> Result<OwnedMutexGuard<Sale>, Failure> {
        let key = self.tracker.key();
        let ids = self.tracker.keys().ids();
        let agreement = Payee::read(key, &ids, &contract)?;
        let terms = &agreement.contract;
        if !self.is_paid_to(&terms.to).await {
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
        let asked = Instant::now();
        let opened = match self.tracker.open_transfer(&payee.contract()).await {
            Ok(opened) => opened,
            Err(error) => {
                // Refused or not, it is not begun. Anybody can ask for one with a key made up on the spot.
                durably(|| forget(&payee))?;
                return Err(error.into());
            }
        };
        let round_trip = asked.elapsed();
        // It was opened after it was asked for, so it locks no earlier than this.
        let deadline = match opened.lifetime.map(Duration::from_millis) {
            Some(lifetime) => Deadline::new(asked, lifetime, round_trip, self.margin),
            None => {
                let left = self.tracker.time_left(opened.timelock);
                Deadline::new(Instant::now(), left, round_trip, self.margin)
            }
        };
        durably(|| payee.opened(opened.timelock))?;
        let to_sign = payee.contract().to_sign;
        let sale = self.keep(channel.clone(), Sale { payee, deadline }).await;
        let sale = sale.lock_owned().await;
        line.end_by(Some(sale.deadline.settle));
        self.out.say(
            &json!({"event": "opened", "channel": channel, "timelock": opened.timelock}),
            &format!("opened    {channel}"),
        );
        let timelock = opened.timelock;
        line.say(&FromPayee::Opened { to_sign, timelock }).await?;
        Ok(sale)
    }

    async fn resume(
        &self,
        line: &mut Line,
        channel: &str,
        receipt: Option<HalfSigned>,
    ) -> Result<OwnedMutexGuard<Sale>, Failure> {
        let known = self.channels.lock().await.get(channel).cloned();
        let unknown = || Failure::refused(format!("no channel {channel} is open here"));
        // A session whose payer broke the connection without a word may still hold it.
        let waited = timeout(LINE_TIMEOUT, known.ok_or_else(unknown)?.lock_owned());
        let mut sale = waited.await.map_err(|_| unknown())?;
        line.end_by(Some(sale.deadline.settle));
        let payee = &mut sale.payee;
        if payee.file().settled || payee.file().note["sha256"] != *self.hello.sha256 {
            return Err(unknown());
        }
        let before = payee.file().paid().volume;
        durably(|| match &receipt {
            // The payer signed for the segment that was on its way when the connection broke.
            Some(receipt) if payee.file().offered() > before && is_newer(payee, receipt) => {
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
        Ok(sale)
    }

    /// Sends segments against receipts.
    async fn sell(&self, line: &mut Line, sale: &mut Sale) -> Ended {
        let offset = sale.payee.file().note["offset"].as_u64();
        let offset = offset.unwrap_or_default();
        loop {
            let sent = sale.payee.file().offered();
            let remaining = self.hello.bytes.saturating_sub(offset.saturating_add(sent));
            if remaining == 0 {
                return Ended::Done;
            }
            let bytes = remaining
                .min(sale.payee.file().segment_bytes())
                .min(sale.payee.room());
            if bytes == 0 || sale.deadline.is_near() || self.is_stopping() {
                return Ended::Full;
            }
            match self.segment(line, sale, offset + sent, bytes).await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    /// Sends one segment and takes the receipt for it. Neither lasts beyond the time at which the channel is
    /// to be settled: the line ends by then.
    async fn segment(
        &self,
        line: &mut Line,
        sale: &mut Sale,
        from: u64,
        bytes: u64,
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
        durably(|| sale.payee.offer(bytes)).map_err(|error| match error {
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
            heard = line.hear(LINE_TIMEOUT) => heard,
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
        match durably(|| sale.payee.take(&receipt)) {
            Ok(_) => {}
            Err(Error::Stop(stop)) => return Err(Ended::Cheated(stop.to_string())),
            Err(error) => return Err(Ended::Gone(error.into())),
        }
        if sale.payee.file().parked().is_some() {
            // Who can read the log has seen the countersignature of the deposited receipt. It must never
            // be worth less than the newest by more than a segment.
            self.park_in_time(sale).await;
        }
        Ok(())
    }

    /// The same as [`Shop::park`], unless it is time to settle before the tracker answers.
    async fn park_in_time(&self, sale: &mut Sale) {
        let settle = sale.deadline.settle;
        if timeout_at(settle, self.park(sale)).await.is_err() {
            tracing::warn!("a receipt could not be deposited in time");
        }
    }

    /// Deposits the newest receipt, to be executed at the lock should nobody settle before.
    async fn park(&self, sale: &mut Sale) {
        let payee = &mut sale.payee;
        let paid = payee.file().paid();
        if payee.file().settled || payee.file().parked() >= Some(paid.count) {
            return;
        }
        let Some(best) = payee.best(self.tracker.key()) else {
            return;
        };
        match self.tracker.park(&best).await {
            Ok(()) => {
                if let Err(error) = durably(|| payee.parked()) {
                    tracing::error!(%error, "a deposit could not be noted");
                }
                let channel = &*payee.file().contract().channel;
                self.out.say(
                    &settled_json("parked", channel, &paid),
                    &format!("deposited {} tokens of {channel}", paid.tokens),
                );
            }
            // Settling in time does as well.
            Err(error) => tracing::warn!(%error, "a receipt could not be deposited"),
        }
    }

    /// Closes a channel with its newest receipt, however often the connection breaks until the lock. What
    /// the tracker answers otherwise ends it only where it can never be closed: a receipt is money.
    async fn settle(&self, sale: &mut Sale) {
        if sale.payee.file().settled {
            return;
        }
        let channel = sale.payee.file().contract().channel.to_string();
        let paid = sale.payee.file().paid();
        let refused = match sale.payee.best(self.tracker.key()) {
            // Nothing was paid: the channel ends by itself.
            None => None,
            Some(best) => loop {
                match self.tracker.close_transfer(&best).await {
                    Ok(()) => break None,
                    Err(error) if is_final(&error) || is_unknown(&error) => break Some(error),
                    Err(error) => {
                        let is_over = Instant::now() >= sale.deadline.lock + LOCK_DOUBT;
                        let is_near = sale.deadline.is_near() && !self.is_stopping();
                        if is_over || !(error.is_transient() || is_near) {
                            break Some(error);
                        }
                        tracing::warn!(%error, channel, "settling again");
                        tokio::time::sleep(SETTLE_AGAIN_AFTER).await;
                    }
                }
            },
        };
        let (json, line) = match &refused {
            None => (
                settled_json("settled", &channel, &paid),
                format!(
                    "settled   {channel}: {} tokens, {} bytes",
                    paid.tokens, paid.volume
                ),
            ),
            Some(error) => {
                let mut json = settled_json("not_settled", &channel, &paid);
                json["reason"] = error.to_string().into();
                json["parked"] = json!(sale.payee.file().parked());
                (json, format!("not settled {channel}: {error}"))
            }
        };
        if refused.is_some_and(|error| !is_final(&error)) {
            self.out.say(&json, &line);
            // It is tried again near the lock, or after the next start. Until then the receipt is
            // deposited, if the tracker takes it.
            self.park(sale).await;
            if sale.deadline.is_near() {
                // The file stays: what it holds was not paid.
                self.channels.lock().await.remove(&channel);
            }
            return;
        }
        // It is told when it is noted.
        if let Err(error) = durably(|| sale.payee.settled()) {
            tracing::error!(%error, channel, "a close could not be noted");
        }
        self.out.say(&json, &line);
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

/// Whether the tracker will never take a receipt of this channel: it is closed, or past its lock.
fn is_final(error: &Error) -> bool {
    matches!(
        error.code(),
        Some("already_closed" | "expired" | "channel_conflict")
    )
}

/// Whether the tracker does not know the channel. One that is restored from an older copy may know it again
/// one day, so nothing is thrown away for it.
fn is_unknown(error: &Error) -> bool {
    error.code() == Some("not_found")
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
        for code in ["already_closed", "expired", "channel_conflict"] {
            assert!(is_final(&refused(code)), "{code}");
        }
        for error in [
            refused("not_found"),
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

    #[tokio::test]
    async fn a_channel_is_settled_before_its_lock_by_ten_seconds_or_three_round_trips() {
        let asked = Instant::now();
        let seconds = Duration::from_secs;
        let settle = |round_trip, margin| {
            let deadline = Deadline::new(asked, seconds(300), seconds(round_trip), seconds(margin));
            assert_eq!(deadline.lock, asked + seconds(300));
            deadline.settle - asked
        };
        assert_eq!(settle(0, 10), seconds(290));
        assert_eq!(settle(0, 0), seconds(290));
        assert_eq!(settle(0, 60), seconds(240));
        // The answer took long: reckoned from the question, there is less time than it says.
        assert_eq!(settle(12, 10), seconds(264));
        let short = Deadline::new(asked, seconds(5), seconds(0), seconds(10));
        assert_eq!(short.settle, asked, "too short for anything to be served");
        let for_ever = Deadline::new(asked, Duration::MAX, Duration::MAX, Duration::MAX);
        assert_eq!(for_ever.settle, asked);
    }

    #[tokio::test]
    async fn an_income_address_is_told_to_payers_only_while_a_whole_channel_fits_into_its_life() {
        let opened = Instant::now();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let income = |lifetime| Income {
            address: "0x0d".to_owned(),
            lifetime,
            lock: opened + lifetime,
        };
        let stock = income(minutes(30));
        assert!(stock.serves(opened + minutes(25), minutes(5)));
        assert!(!stock.serves(opened + minutes(26), minutes(5)));
        // One that lives no longer than a channel is not replaced as soon as it is there.
        let short = income(minutes(4));
        assert!(short.serves(opened + minutes(2), minutes(5)));
        assert!(!short.serves(opened + minutes(3), minutes(5)));
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
