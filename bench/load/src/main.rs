//! The load generator behind `just bench`: makes signed transactions, measures what the machine can do at
//! best, and drives a node as fast as one thread can, so that as much as possible of a small machine is left
//! to the node. Every command prints one line of JSON.

mod bus;
mod consortium;
mod corpus;
mod fan;
mod limits;
mod post;
mod stats;
mod tracker;
mod upload;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    about = "Load generator for Daybook's benchmarks; prints one line of JSON per measurement"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes signed CREATEs and rounds of TRANSFERs that spend them, one file each
    Corpus {
        /// Folder to write create.ndjson, transfer-1.ndjson, … into
        #[arg(long)]
        out: PathBuf,
        /// Transactions per file
        #[arg(long, default_value_t = 20_000)]
        transactions: usize,
        /// Distinct owners
        #[arg(long, default_value_t = 200)]
        keys: usize,
        /// Files of TRANSFERs, each spending the outputs of the one before
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Every so many-th TRANSFER carries a signature with one bit flipped; 0 for none
        #[arg(long, default_value_t = 0)]
        spoil_every: usize,
        /// Makes the corpus another one: ids never repeat between seeds
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Validates a file on one core: parse, ids, signatures in batches; nothing is stored
    Validate {
        /// Newline-delimited transactions
        file: PathBuf,
        /// Transactions per batch
        #[arg(long, default_value_t = 256)]
        batch: usize,
    },
    /// Appends and flushes 4 KiB at a time
    Disk {
        /// Folder on the disk to probe
        folder: PathBuf,
        /// Appends
        #[arg(long, default_value_t = 400)]
        appends: usize,
    },
    /// Uploads a file through the batch door and waits for every result
    Upload {
        /// Host and port
        #[arg(long)]
        node: String,
        /// Newline-delimited transactions
        file: PathBuf,
        /// Acknowledgement level: accepted or durable
        #[arg(long, default_value = "durable")]
        ack: String,
    },
    /// Posts a file with one request per transaction, answered after the commit
    Post {
        /// Host and port
        #[arg(long)]
        node: String,
        /// Newline-delimited transactions
        file: PathBuf,
        /// Connections, each with one request under way
        #[arg(long, default_value_t = 50)]
        connections: usize,
        /// At most so many transactions of the file
        #[arg(long, default_value_t = usize::MAX)]
        most: usize,
    },
    /// Subscribes many times to a stream and counts deliveries
    Subscribe {
        /// Host and port
        #[arg(long)]
        node: String,
        /// Path and query
        #[arg(long, default_value = "/api/v1/streams/valid_transactions")]
        path: String,
        /// Subscribers that read
        #[arg(long, default_value_t = 1_000)]
        subscribers: usize,
        /// Subscribers that never read
        #[arg(long, default_value_t = 0)]
        stuck: usize,
        /// Frames that every subscriber shall get
        #[arg(long)]
        frames: usize,
    },
    /// Asks the wallet tracker, with requests that were signed beforehand
    Tracker {
        /// Host and port
        #[arg(long)]
        node: String,
        /// 256 reads an address, 8 opens channels, 16 closes them
        #[arg(long)]
        command: u64,
        /// rsa, ed25519 or p256
        #[arg(long, default_value = "ed25519")]
        suite: String,
        /// Connections, each with a spend address of its own
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// Requests under way on each
        #[arg(long, default_value_t = 16)]
        window: usize,
        /// Requests in all
        #[arg(long, default_value_t = 20_000)]
        requests: usize,
        /// Requests per second; without it as many as are answered
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Calls over a service bus: callers that wait for each answer, workers that answer at once
    Bus {
        /// Host and port
        #[arg(long)]
        broker: String,
        /// bus or nats
        #[arg(long, default_value = "bus")]
        protocol: String,
        /// File with the key that services show
        #[arg(long)]
        key_file: Option<PathBuf>,
        /// Callers, each with one request under way
        #[arg(long, default_value_t = 50)]
        callers: usize,
        /// Workers, which share the requests
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// How long
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// The broker's process, whose processor time is told
        #[arg(long)]
        pid: Option<u32>,
    },
    /// Writes the cards of the members that `consortium` plays, for the node's settings
    ConsortiumCards {
        /// Folder to write 1.card to 5.card into
        #[arg(long)]
        out: PathBuf,
    },
    /// Proposes entries for ledgers of five members and endorses them, to the commit
    Consortium {
        /// Host and port
        #[arg(long)]
        node: String,
        /// Ledgers that there are
        #[arg(long, default_value_t = 10)]
        ledgers: usize,
        /// Operations in all
        #[arg(long, default_value_t = 2_000)]
        operations: usize,
        /// Operations under way at once
        #[arg(long, default_value_t = 8)]
        workers: usize,
    },
    /// Writes the same bytes to many sockets with plain writes: what `subscribe` is compared with
    Fan {
        /// Sockets
        #[arg(long, default_value_t = 1_000)]
        subscribers: usize,
        /// Bytes of one frame
        #[arg(long, default_value_t = 310)]
        frame_bytes: usize,
        /// Frames coalesced into one write
        #[arg(long)]
        frames_per_write: usize,
        /// Frames for every socket
        #[arg(long)]
        frames: usize,
    },
}

fn main() {
    match Arguments::parse().command {
        Command::Corpus {
            out,
            transactions,
            keys,
            rounds,
            spoil_every,
            seed,
        } => {
            corpus::write(
                &out,
                &corpus::Shape {
                    transactions,
                    keys,
                    rounds,
                    spoil_every,
                    seed,
                },
            );
        }
        Command::Validate { file, batch } => limits::validate(&file, batch),
        Command::Disk { folder, appends } => limits::disk(&folder, appends),
        Command::Upload { node, file, ack } => upload::run(&node, &file, &ack),
        Command::Post {
            node,
            file,
            connections,
            most,
        } => post::run(&node, &file, connections, most),
        Command::Subscribe {
            node,
            path,
            subscribers,
            stuck,
            frames,
        } => {
            fan::subscribe(&node, &path, subscribers, stuck, frames);
        }
        Command::Tracker {
            node,
            command,
            suite,
            connections,
            window,
            requests,
            rate,
        } => tracker::run(
            &node,
            &tracker::Shape {
                command,
                suite,
                connections,
                window,
                requests,
                rate,
            },
        ),
        Command::Bus {
            broker,
            protocol,
            key_file,
            callers,
            workers,
            seconds,
            pid,
        } => {
            let key = key_file.map(|file| std::fs::read_to_string(file).expect("a key"));
            bus::run(
                &broker,
                &bus::Shape {
                    protocol,
                    key: key.unwrap_or_default().trim().to_owned(),
                    callers,
                    workers,
                    seconds,
                    pid,
                },
            );
        }
        Command::ConsortiumCards { out } => consortium::cards(&out),
        Command::Consortium {
            node,
            ledgers,
            operations,
            workers,
        } => consortium::run(
            &node,
            &consortium::Shape {
                ledgers,
                operations,
                workers,
            },
        ),
        Command::Fan {
            subscribers,
            frame_bytes,
            frames_per_write,
            frames,
        } => {
            fan::raw(subscribers, frame_bytes, frames_per_write, frames);
        }
    }
}
