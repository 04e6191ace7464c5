//! The asset ledger's rules on stock crates, as the denominator of a ratio: serde_json values, one
//! ed25519-dalek verification per signature, the sha3 crate, and fjall on the commit path.
//!
//! Threads verify blocks of transactions; one committer looks the spent outputs up in the store,
//! decides, and writes each block as one durable batch.

mod commit;
mod corpus;
mod verify;

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    commit::Ledger,
    verify::{Verified, Verifier},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Transactions per block, and so per flush.
const BLOCK_TRANSACTIONS: usize = 1_000;

/// Threads that verify, one per core of the machine that the goals name.
const VERIFIERS: usize = 2;

/// Verified blocks that may wait for the committer: enough to keep it busy, and no backlog.
const BLOCKS_WAITING_MAX: usize = 8;

const USAGE: &str = "usage:
  daybook-baseline corpus COUNT FILE    write COUNT signed CREATEs, then COUNT TRANSFERs of them
  daybook-baseline run FILE DIRECTORY   verify and commit that file; prints one JSON line";

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["corpus", count, file] => count
            .parse()
            .map_err(|_| USAGE.into())
            .and_then(|count| corpus::write(count, Path::new(file))),
        ["run", file, directory] => run(Path::new(file), &PathBuf::from(directory)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path, directory: &Path) -> Outcome<()> {
    let text = fs::read(file)?;
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let creates = lines
        .iter()
        .take_while(|line| !contains(line, b"\"operation\":\"TRANSFER\""))
        .count();
    let (creates, transfers) = lines.split_at(creates);
    if creates.is_empty() || transfers.is_empty() {
        return Err("the corpus needs CREATEs, then TRANSFERs".into());
    }

    let validation = validation_only(transfers)?;
    let mut ledger = Ledger::create(directory)?;
    let created = commit_all(creates, &mut ledger)?;
    let transferred = commit_all(transfers, &mut ledger)?;
    let bytes: usize = transfers.iter().map(|line| line.len()).sum();
    println!(
        "{}",
        json!({
            "event": "baseline",
            "verifiers": VERIFIERS,
            "block_transactions": BLOCK_TRANSACTIONS,
            "bytes_per_transaction": bytes / transfers.len(),
            "creates": creates.len(),
            "creates_per_second": created.rate(creates.len()),
            "transactions": transfers.len(),
            "transactions_per_second": transferred.rate(transfers.len()),
            "validation_per_second_one_core": transfers.len() as f64 / validation.as_secs_f64(),
            "commit_us": {
                "p50": transferred.commit_at(0.5).as_micros() as u64,
                "p99": transferred.commit_at(0.99).as_micros() as u64,
            },
        })
    );
    Ok(())
}

/// Time that one thread needs to verify everything, without any store.
fn validation_only(lines: &[&[u8]]) -> Outcome<Duration> {
    let mut verifier = Verifier::default();
    let began = Instant::now();
    for line in lines {
        verifier.verify(line)?;
    }
    Ok(began.elapsed())
}

struct Measured {
    took: Duration,
    commits: Vec<Duration>,
}

impl Measured {
    fn rate(&self, count: usize) -> f64 {
        count as f64 / self.took.as_secs_f64()
    }

    fn commit_at(&self, share: f64) -> Duration {
        self.commits[((self.commits.len() - 1) as f64 * share) as usize]
    }
}

fn commit_all(lines: &[&[u8]], ledger: &mut Ledger) -> Outcome<Measured> {
    let blocks: Vec<&[&[u8]]> = lines.chunks(BLOCK_TRANSACTIONS).collect();
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::sync_channel::<(usize, Outcome<Vec<Verified>>)>(BLOCKS_WAITING_MAX);
    let mut commits = Vec::with_capacity(blocks.len());
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..VERIFIERS {
            let (send, next, blocks) = (send.clone(), &next, &blocks);
            scope.spawn(move || {
                let mut verifier = Verifier::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(block) = blocks.get(index) else {
                        break;
                    };
                    let verified = block.iter().map(|line| verifier.verify(line)).collect();
                    if send.send((index, verified)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        // Verifiers finish in any order; blocks are committed in theirs.
        let mut early = BTreeMap::new();
        for (index, verified) in receive {
            early.insert(index, verified?);
            while let Some(block) = early.remove(&commits.len()) {
                let flush = Instant::now();
                ledger.commit(&block, blocks[commits.len()])?;
                commits.push(flush.elapsed());
            }
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    })?;
    let took = began.elapsed();
    commits.sort_unstable();
    Ok(Measured { took, commits })
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}
