//! What payer and payee say to each other: one JSON value per line, and behind a `segment` its bytes
//! (docs/channels.md).

use std::{io, time::Duration};

use daybook_client::tracker::{HalfSigned, Price};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout_at},
};

use crate::failure::{Exit, Failure};

/// The version of this protocol.
pub(super) const VERSION: u32 = 1;
/// Bytes of a line at most: the longest is a contract with two keys of RSA-4096.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How long the other side may think about a line.
pub(super) const LINE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a segment may be on its way before the other side counts as gone.
const SEGMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// What a payee says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromPayee {
    /// The first word.
    Hello(Hello),
    /// The channel is open; what follows are segments.
    Opened { to_sign: String, timelock: u64 },
    /// The channel is taken up again: so much of it is receipted.
    Resumed {
        to_sign: String,
        timelock: u64,
        volume: u64,
    },
    /// So many bytes follow the line.
    Segment { bytes: u64 },
    /// The channel is used up or near its lock: open another one.
    Full {},
    /// Everything was sent.
    Done {},
    /// The channel is closed; what it paid.
    Settled { tokens: u64, volume: u64 },
    /// It ends here.
    Error { message: String },
}

/// What is served, to whom to pay, and how much.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version of this protocol.
    pub(super) daybook_channel: u32,
    /// The hashes of the tracker's keys, in hexadecimal.
    pub(super) trackers: Vec<String>,
    /// The payee's PEM.
    pub(super) pk: String,
    /// The address to pay.
    pub(super) to: String,
    /// Tokens for each quantum.
    pub(super) price_tokens: u64,
    /// The quantum: two to this power, in bytes.
    pub(super) price_power: u8,
    /// Name of the file.
    pub(super) name: String,
    /// Its bytes.
    pub(super) bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub(super) sha256: String,
    /// Bytes of a segment at most.
    pub(super) segment_bytes: u64,
}

impl Hello {
    pub(super) fn price(&self) -> Price {
        Price {
            amount: self.price_tokens,
            power: self.price_power,
        }
    }
}

/// What a payer says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromPayer {
    /// Opens a channel, for the file from `offset` on.
    Open { contract: HalfSigned, offset: u64 },
    /// Goes on with a channel; `receipt` is the newest that the payer signed.
    Resume {
        channel: String,
        receipt: Option<HalfSigned>,
    },
    /// For everything that came through the channel.
    Receipt(HalfSigned),
}

/// One end of the connection.
pub(super) struct Line {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// Whatever is said or heard is given up then.
    until: Option<Instant>,
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> io::Result<Line> {
        // A line is whole when it is written; waiting for more only delays it.
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Line {
            read: BufReader::new(read),
            write,
            until: None,
        })
    }

    /// From now on nothing is waited for beyond `until`: a word that is cut off then is not understood, so
    /// the connection is of no use afterwards.
    pub(super) fn end_by(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// The end of one word that may take as long as `patience`.
    fn by(&self, patience: Duration) -> Instant {
        let by = Instant::now() + patience;
        self.until.map_or(by, |until| until.min(by))
    }

    pub(super) async fn say(&mut self, word: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(word).expect("texts and numbers make JSON");
        line.push(b'\n');
        self.write_all(&line).await
    }

    /// Sends bytes as they are.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match timeout_at(self.by(SEGMENT_TIMEOUT), self.write.write_all(bytes)).await {
            Ok(written) => written.map_err(|error| broken(&error)),
            Err(_) => Err(silent()),
        }
    }

    /// The next line; waits for it as long as `patience`.
    pub(super) async fn hear<T: DeserializeOwned>(
        &mut self,
        patience: Duration,
    ) -> Result<T, Failure> {
        let by = self.by(patience);
        let mut line = Vec::new();
        let mut bounded = (&mut self.read).take(LINE_BYTES_MAX);
        match timeout_at(by, bounded.read_until(b'\n', &mut line)).await {
            Err(_) => return Err(silent()),
            Ok(Err(error)) => return Err(broken(&error)),
            Ok(Ok(0)) => return Err(broken(&"the other side has gone")),
            Ok(Ok(_)) if line.last() != Some(&b'\n') => {
                return Err(broken(&"a line that is cut off or too long"));
            }
            Ok(Ok(_)) => {}
        }
        serde_json::from_slice(&line)
            .map_err(|error| Failure::refused(format!("the other side says nonsense: {error}")))
    }

    /// Reads exactly so many bytes into `into`.
    pub(super) async fn read_exact(&mut self, into: &mut [u8]) -> Result<(), Failure> {
        match timeout_at(self.by(SEGMENT_TIMEOUT), self.read.read_exact(into)).await {
            Ok(read) => read.map(|_| ()).map_err(|error| broken(&error)),
            Err(_) => Err(silent()),
        }
    }
}

fn broken(reason: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Unreachable, format!("the connection broke: {reason}"))
}

fn silent() -> Failure {
    Failure::new(Exit::Unreachable, "the other side is silent")
}
