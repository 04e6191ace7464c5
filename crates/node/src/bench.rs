//! `daybook bench`: a load generator that knows the disk it runs on.

use std::{
    fs::OpenOptions,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use daybook_client::{
    Acknowledge, Answer, Client, Filter, Frame, From, Mode, Numbered, Stream, Submission,
};
use daybook_ledger::{
    AssetId, Draft, OutputRef, Parser, Rules, SigningKey,
    json::{Object, Value},
};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    cli::{Ack, Bench, Door},
    config::Config,
    failure::{Exit, Failure},
    keyfile, log,
    node::{LiveNode, blocking},
    out::{Out, short, thousands},
    remote,
    settings::Settings,
};

/// Chains of transfers that one connection works on in turn through the bulk doors: each transaction
/// spends the output of the one before it in its chain.
const CHAINS_PER_CLIENT: usize = 64;
/// Keys that sign; real clients are few compared with their transactions.
const KEYS: usize = 200;
/// Flushes of the disk probe.
const PROBES: usize = 200;
/// Bytes of one probe, as in the goals of the performance page.
const PROBE_BYTES: usize = 4096;
/// How long the stream may lag behind the last acknowledgement before the run counts as failed.
const STREAM_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at how far the signing is: more often than anybody can see.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// One connection's share of the work.
struct Share {
    creates: Vec<Bytes>,
    transfers: Vec<Bytes>,
}

/// What one connection saw.
#[derive(Default)]
struct Outcome {
    latencies: Vec<u64>,
    refused: u64,
    busy: u64,
}

pub(crate) async fn run(args: &Bench, out: Out) -> Result<(), Failure> {
    let folder = match &args.in_dir {
        Some(parent) => tempfile::Builder::new()
            .prefix("daybook-bench-")
            .tempdir_in(parent),
        None => tempfile::Builder::new().prefix("daybook-bench-").tempdir(),
    }
    .map_err(|e| Failure::system("a temporary directory", &e))?;
    let flush = probe(folder.path()).map_err(|e| Failure::system("the disk probe", &e))?;
    let (live, url) = match &args.url {
        Some(url) => (None, url.clone()),
        None => {
            let flags = [
                (
                    "data_dir".to_owned(),
                    folder.path().join("node").display().to_string(),
                ),
                ("listen".to_owned(), "127.0.0.1:0".to_owned()),
                ("streams_listen".to_owned(), "off".to_owned()),
                ("bus_listen".to_owned(), "off".to_owned()),
                ("chain".to_owned(), "bench".to_owned()),
            ];
            let config = Config::from_settings(&Settings::load(&flags, [], None)?)?;
            log::start(config.log_format, "warn")?;
            let live = LiveNode::start(&config).await?;
            let url = live.listening.http_url(live.listening.http);
            (
                Some(live),
                url.parse().expect("the node's own address is an address"),
            )
        }
    };
    let client = remote::builder(&url, &args.trust)?.build()?;
    let result = measure(args, &client, flush, out).await;
    if let Some(live) = live {
        live.stop().await?;
    }
    result
}

async fn measure(args: &Bench, client: &Client, flush: Vec<u64>, out: Out) -> Result<(), Failure> {
    let (clients, total) = (args.clients as usize, args.transactions as usize);
    // One after the other through the classic door, where a child waits for its parent.
    let chains = if args.door == Door::Post {
        1
    } else {
        CHAINS_PER_CLIENT
    };
    let mut progress = out.progress("signing");
    let signed = Arc::new(AtomicU64::new(0));
    let mut work = std::pin::pin!({
        let signed = signed.clone();
        blocking(move || sign(clients, chains, total, &signed))
    });
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    let shares = loop {
        tokio::select! {
            shares = &mut work => break shares??,
            _ = redraw.tick() => progress.set(signed.load(Ordering::Relaxed), total as u64),
        }
    };
    drop(progress);
    let transfers: usize = shares.iter().map(|share| share.transfers.len()).sum();
    let bytes: usize = shares
        .iter()
        .flat_map(|share| &share.transfers)
        .map(Bytes::len)
        .sum();
    for share in &shares {
        fill(client, &share.creates).await?;
    }

    let mut subscribers = JoinSet::new();
    for _ in 0..args.subscribers {
        let mut follow = client.follow(Stream::ValidTransactions, From::Now, Filter::default());
        follow.ready().await?;
        subscribers.spawn(async move {
            let mut delivered = 0_u64;
            while delivered < transfers as u64 {
                if let Frame::Transaction { .. } = follow.next().await?.frame {
                    delivered += 1;
                }
            }
            Ok::<_, daybook_client::Error>((delivered, follow.reconnects()))
        });
    }

    let began = Instant::now();
    let mut working = JoinSet::new();
    for share in shares {
        let client = client.clone();
        let (door, ack, window) = (args.door, args.ack, args.window as usize);
        working.spawn(async move {
            match door {
                Door::Batch => batch(&client, &share.transfers, ack, window).await,
                Door::Socket => socket(&client, &share.transfers, ack, window).await,
                Door::Post => post(&client, share.transfers).await,
            }
        });
    }
    let mut sum = Outcome::default();
    let mut progress = out.progress("submitting");
    while let Some(ended) = working.join_next().await {
        let outcome =
            ended.map_err(|e| Failure::new(Exit::System, format!("an internal error: {e}")))??;
        sum.latencies.extend(outcome.latencies);
        sum.refused += outcome.refused;
        sum.busy += outcome.busy;
        progress.set(sum.latencies.len() as u64, transfers as u64);
    }
    drop(progress);
    let seconds = began.elapsed().as_secs_f64();
    let failed = sum.refused + sum.busy;
    let (mut delivered, mut reconnects) = (0, 0);
    if failed == 0 {
        while !subscribers.is_empty() {
            let Ok(Some(ended)) = timeout(STREAM_WITHIN, subscribers.join_next()).await else {
                return Err(Failure::refused(
                    "a subscriber did not see every transaction",
                ));
            };
            let (seen, again) = ended
                .map_err(|e| Failure::new(Exit::System, format!("an internal error: {e}")))??;
            delivered += seen;
            reconnects += again;
        }
    }
    let streamed_seconds = began.elapsed().as_secs_f64();
    sum.latencies.sort_unstable();
    let rate = sum.latencies.len() as f64 / seconds;
    let latency = |share| percentile(&sum.latencies, share);
    let flush_at = |share| percentile(&flush, share);
    let delivery_rate = delivered as f64 / streamed_seconds;
    let door = match args.door {
        Door::Batch => "batch",
        Door::Post => "post",
        Door::Socket => "socket",
    };
    let acknowledged = if args.ack == Ack::Accepted && args.door != Door::Post {
        "accepted"
    } else {
        "durable"
    };
    out.say(
        &json!({
            "event": "bench",
            "door": door,
            "acknowledged": acknowledged,
            "clients": clients,
            "transactions": transfers,
            "bytes_per_transaction": bytes / transfers.max(1),
            "seconds": seconds,
            "transactions_per_second": rate,
            "latency_us": {
                "p50": latency(0.5).as_micros() as u64,
                "p90": latency(0.9).as_micros() as u64,
                "p99": latency(0.99).as_micros() as u64,
                "p999": latency(0.999).as_micros() as u64,
                "max": latency(1.0).as_micros() as u64,
            },
            "refused": sum.refused,
            "busy": sum.busy,
            "subscribers": args.subscribers,
            "deliveries": delivered,
            "deliveries_per_second": delivery_rate,
            "reconnects": reconnects,
            "flush_us": {
                "p50": flush_at(0.5).as_micros() as u64,
                "p99": flush_at(0.99).as_micros() as u64,
            },
        }),
        &format!(
            "{door}, {acknowledged}, {clients} connections: {} transfers of {} bytes in {seconds:.2} s\n\
             rate        {} per second\n\
             latency     p50 {}   p90 {}   p99 {}   p99.9 {}   max {}\n\
             stream      {} subscribers, {} deliveries, {} per second\n\
             disk        {PROBE_BYTES} bytes appended and flushed: p50 {}   p99 {}",
            thousands(transfers as u64),
            bytes / transfers.max(1),
            thousands(rate as u64),
            short(latency(0.5)),
            short(latency(0.9)),
            short(latency(0.99)),
            short(latency(0.999)),
            short(latency(1.0)),
            args.subscribers,
            thousands(delivered),
            thousands(delivery_rate as u64),
            short(flush_at(0.5)),
            short(flush_at(0.99)),
        ),
    );
    if failed > 0 {
        return Err(Failure::refused(format!(
            "{} transactions refused, {} not taken",
            sum.refused, sum.busy
        )));
    }
    Ok(())
}

/// Signs everything, on all cores.
fn sign(
    clients: usize,
    chains: usize,
    total: usize,
    signed: &AtomicU64,
) -> Result<Vec<Share>, Failure> {
    let keys: Vec<SigningKey> = (0..KEYS.min(clients * chains))
        .map(|_| keyfile::generate())
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let per_core = clients.div_ceil(cores);
    let all: Vec<usize> = (0..clients).collect();
    let results: Vec<Result<Vec<Share>, Failure>> = std::thread::scope(|scope| {
        let parts: Vec<_> = all
            .chunks(per_core)
            .map(|part| {
                let keys = &keys;
                scope.spawn(move || {
                    part.iter()
                        .map(|client| {
                            let count =
                                total / clients + usize::from(client % clients < total % clients);
                            sign_share(keys, *client, chains, count, signed)
                        })
                        .collect()
                })
            })
            .collect();
        parts
            .into_iter()
            .map(|part| {
                part.join()
                    .unwrap_or_else(|_| Err(Failure::new(Exit::System, "signing failed")))
            })
            .collect()
    });
    let mut shares = Vec::with_capacity(clients);
    for result in results {
        shares.extend(result?);
    }
    Ok(shares)
}

fn sign_share(
    keys: &[SigningKey],
    client: usize,
    chains: usize,
    count: usize,
    signed: &AtomicU64,
) -> Result<Share, Failure> {
    let refused = |e: daybook_ledger::DraftError| Failure::refused(e.to_string());
    let mut parser = Parser::new(Rules::default());
    let mut heads: Vec<(AssetId, OutputRef)> = Vec::with_capacity(chains);
    let key = |chain: usize| &keys[(client * chains + chain) % keys.len()];
    let mut share = Share {
        creates: Vec::new(),
        transfers: Vec::with_capacity(count),
    };
    for chain in 0..chains.min(count) {
        let data = Object::from_iter([
            ("kind", Value::from("bench")),
            ("chain", Value::from((client * chains + chain) as u64)),
        ]);
        let create = Draft::create(data)
            .output(1_000_000, key(chain))
            .metadata(Object::from_iter([(
                "run",
                Value::from(rand::random::<u64>()),
            )]))
            .sign_with(&mut parser, &[key(chain)])
            .map_err(refused)?;
        heads.push((create.asset(), create.output_ref(0)));
        share.creates.push(create.canonical().clone());
    }
    for number in 0..count {
        let chain = number % heads.len();
        let (asset, output) = heads[chain];
        let transfer = Draft::transfer(asset)
            .spend(output, key(chain))
            .output(1_000_000, key(chain))
            .sign_with(&mut parser, &[key(chain)])
            .map_err(refused)?;
        heads[chain].1 = transfer.output_ref(0);
        share.transfers.push(transfer.canonical().clone());
        signed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(share)
}

/// Commits what the transfers will spend.
async fn fill(client: &Client, creates: &[Bytes]) -> Result<(), Failure> {
    let outcome = batch(client, creates, Ack::Durable, creates.len().max(1)).await?;
    if outcome.refused + outcome.busy > 0 {
        return Err(Failure::refused(
            "the node refuses to create the assets of the bench",
        ));
    }
    Ok(())
}

async fn batch(
    client: &Client,
    transactions: &[Bytes],
    ack: Ack,
    window: usize,
) -> Result<Outcome, Failure> {
    let (mut sender, mut answers) = client.batch(acknowledge(ack)).await?;
    let clock = Clock::new(transactions.len(), window);
    let sending = async {
        for text in transactions {
            if !clock.try_enter() {
                // Nothing more goes out before an answer comes, so what is gathered has to go.
                sender.flush().await?;
                clock.enter().await;
            }
            clock.sent(sender.send(text).await?);
        }
        sender.finish().await
    };
    let answering = async {
        let mut outcome = Outcome::default();
        while let Some(numbered) = answers.next().await? {
            clock.answered(numbered, &mut outcome);
        }
        Ok::<_, daybook_client::Error>(outcome)
    };
    let (sent, outcome) = tokio::join!(sending, answering);
    sent?;
    Ok(outcome?)
}

async fn socket(
    client: &Client,
    transactions: &[Bytes],
    ack: Ack,
    window: usize,
) -> Result<Outcome, Failure> {
    let (mut sender, mut answers) = client.socket(acknowledge(ack)).await?;
    let clock = Clock::new(transactions.len(), window);
    let sending = async {
        for text in transactions {
            if !clock.try_enter() {
                sender.flush().await?;
                clock.enter().await;
            }
            clock.sent(sender.feed(text).await?);
        }
        sender.flush().await?;
        Ok::<_, daybook_client::Error>(sender)
    };
    let answering = async {
        let mut outcome = Outcome::default();
        for _ in 0..transactions.len() {
            match answers.next().await? {
                Some(numbered) => clock.answered(numbered, &mut outcome),
                None => {
                    return Err(daybook_client::Error::Protocol(
                        "the socket closed early".to_owned(),
                    ));
                }
            }
        }
        Ok::<_, daybook_client::Error>(outcome)
    };
    let (sent, outcome) = tokio::join!(sending, answering);
    sent?.close().await?;
    Ok(outcome?)
}

async fn post(client: &Client, transactions: Vec<Bytes>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    for text in transactions {
        let submission = Submission::from_text(text);
        let began = Instant::now();
        match client.post(&submission, Mode::Commit).await? {
            Answer::Accepted { .. } | Answer::Committed(_) => {
                outcome.latencies.push(nanos(began.elapsed()));
            }
            Answer::Refused { .. } => outcome.refused += 1,
            Answer::Busy { .. } | Answer::Stopped => outcome.busy += 1,
        }
    }
    Ok(outcome)
}

/// Times submissions that are answered out of order, a bounded number at a time.
struct Clock {
    began: Instant,
    sent: Vec<AtomicU64>,
    room: Semaphore,
}

impl Clock {
    fn new(count: usize, window: usize) -> Clock {
        Clock {
            began: Instant::now(),
            sent: (0..count).map(|_| AtomicU64::new(0)).collect(),
            room: Semaphore::new(window),
        }
    }

    fn try_enter(&self) -> bool {
        self.room
            .try_acquire()
            .map(|permit| permit.forget())
            .is_ok()
    }

    async fn enter(&self) {
        self.room
            .acquire()
            .await
            .expect("the semaphore is never closed")
            .forget();
    }

    fn sent(&self, number: u64) {
        self.sent[number as usize].store(nanos(self.began.elapsed()), Ordering::Relaxed);
    }

    fn answered(&self, numbered: Numbered, outcome: &mut Outcome) {
        self.room.add_permits(1);
        match numbered.answer {
            Answer::Accepted { .. } | Answer::Committed(_) => {
                let sent = self
                    .sent
                    .get(numbered.number as usize)
                    .map_or(0, |sent| sent.load(Ordering::Relaxed));
                outcome
                    .latencies
                    .push(nanos(self.began.elapsed()).saturating_sub(sent));
            }
            Answer::Refused { .. } => outcome.refused += 1,
            Answer::Busy { .. } | Answer::Stopped => outcome.busy += 1,
        }
    }
}

fn acknowledge(ack: Ack) -> Acknowledge {
    match ack {
        Ack::Accepted => Acknowledge::Accepted,
        Ack::Durable => Acknowledge::Durable,
    }
}

/// Appends and flushes, as the ledger does; answers sorted nanoseconds.
fn probe(folder: &Path) -> std::io::Result<Vec<u64>> {
    let path = folder.join("probe");
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&path)?;
    let piece = [0x5a; PROBE_BYTES];
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        file.write_all(&piece)?;
        file.sync_data()?;
        times.push(nanos(began.elapsed()));
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times)
}

fn percentile(sorted: &[u64], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    Duration::from_nanos(sorted.get(place).copied().unwrap_or(0))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_whole_range() {
        let sorted: Vec<u64> = (0..=100).collect();
        assert_eq!(percentile(&sorted, 0.5), Duration::from_nanos(50));
        assert_eq!(percentile(&sorted, 1.0), Duration::from_nanos(100));
        assert_eq!(percentile(&[], 0.99), Duration::ZERO);
    }
}
