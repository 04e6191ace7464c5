//! The command line of `daybook channel`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueHint, value_parser};
use daybook_client::tracker::{Address, Price};
use daybook_ledger::PublicKey;

use crate::cli::{KeyFlag, NodeFlags, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// Open a spend address: the tracker moves tokens onto it
    #[command(name = "open-spend")]
    OpenSpend(PeerFlags),
    /// Open an income address
    #[command(name = "open-income")]
    OpenIncome(PeerFlags),
    /// As the payer: make and sign a contract, and print it for the payee
    Open(Open),
    /// As the payee: check a contract, sign it, and have the tracker open the channel
    Accept(Accept),
    /// As the payer: note what the payee's `accept` printed
    Confirm(Confirm),
    /// As the payer: sign a receipt over all bytes so far, and print it for the payee
    Pay(Pay),
    /// As the payee: check a receipt and keep it
    Take(Take),
    /// As the payee: close the channel with the newest receipt
    Settle(OfFile),
    /// As the payee: deposit the newest receipt, to be executed at the lock
    Park(OfFile),
    /// Close a spend or income address; what is on it goes back to the tracker
    Close {
        /// The address
        #[arg(value_parser = address)]
        address: Address,
        #[command(flatten)]
        peer: PeerFlags,
    },
    /// Show an address, a channel, or the file of one
    Status(Status),
    /// Pay what a wallet has earned to an owner of assets
    Payout(Payout),
    /// List the tracker's records that touch this key
    List(List),
    /// Follow what happens to an address, a channel or this key
    Watch(Watch),
    /// As the payee: serve a file, a receipt for every segment
    Serve(Serve),
    /// As the payer: download a file that is served so
    Fetch(Fetch),
}

/// Who acts, and through which node.
#[derive(Debug, Args)]
pub(crate) struct PeerFlags {
    #[command(flatten)]
    pub(crate) key: KeyFlag,
    /// File that remembers the keys of trackers [default: ~/.config/daybook/trackers.json]
    #[arg(long, env = "DAYBOOK_KNOWN_TRACKERS", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) known_trackers: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook channel open --key payer.key --from 0x0c… --to 0x0d… --payee payee.pem \\
      --price 500@25 --quanta 8 --file c1.json > contract.json
  daybook channel accept contract.json --key payee.key --file c1.json > accepted.json
  daybook channel confirm c1.json accepted.json

The contract is also in the file, where receipts will be.")]
pub(crate) struct Open {
    /// The payer's spend address
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) from: Address,
    /// The payee's income or common address
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) to: Address,
    /// The payee's public key: a PEM file or a key file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) payee: PathBuf,
    /// Tokens for each quantum, and the quantum as a power of two: 500@25 is 500 tokens for 32 MiB
    #[arg(long, value_name = "TOKENS@POWER", value_parser = price)]
    pub(crate) price: Price,
    /// The most quanta that may be bought
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..))]
    pub(crate) quanta: u64,
    /// Name of the channel; random unless given
    #[arg(long, value_name = "TEXT")]
    pub(crate) channel: Option<String>,
    /// New file to keep the channel in
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// What `open` printed: a file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) contract: PathBuf,
    /// The least price to accept
    #[arg(long, value_name = "TOKENS@POWER", value_parser = price)]
    pub(crate) price_min: Option<Price>,
    /// The address to be paid; another one in the contract is refused
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) to: Option<Address>,
    /// Bytes that may be served without a receipt
    #[arg(long, value_name = "BYTES", default_value_t = SEGMENT_BYTES_DEFAULT)]
    pub(crate) segment_bytes: u64,
    /// New file to keep the channel in
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// The channel's file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// What `accept` printed: a file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) accepted: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Pay {
    /// The channel's file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Bytes received in all
    #[arg(long, value_name = "BYTES")]
    pub(crate) volume: u64,
    #[command(flatten)]
    pub(crate) key: KeyFlag,
}

#[derive(Debug, Args)]
pub(crate) struct Take {
    /// The channel's file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// What `pay` printed: a file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) receipt: PathBuf,
    /// Bytes served in all, by this side's own count
    #[arg(long, value_name = "BYTES")]
    pub(crate) served: u64,
}

#[derive(Debug, Args)]
pub(crate) struct OfFile {
    /// The channel's file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook channel status 0x0c… --key payer.key
  daybook channel status c1.json --key payer.key
  daybook channel status wallet --key payee.key      # the wallet of this key")]
pub(crate) struct Status {
    /// An address, the id of a channel, its file, or `wallet`
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook channel payout --key payee.key --to PUBLIC_KEY
  daybook channel payout --key payee.key --to PUBLIC_KEY --amount 1500

The tokens arrive as an ordinary TRANSFER of the tracker's token asset.")]
pub(crate) struct Payout {
    /// The Ed25519 key that shall own the tokens
    #[arg(long, value_name = "PUBLIC_KEY")]
    pub(crate) to: PublicKey,
    /// How many; all that there are unless given
    #[arg(long, value_name = "TOKENS", value_parser = value_parser!(u64).range(1..))]
    pub(crate) amount: Option<u64>,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only of this type
    #[arg(long, value_name = "TX_TYPE")]
    pub(crate) tx_type: Option<u64>,
    /// Only of this channel
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,
    /// Only from this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,
    /// Only to this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<String>,
    /// The oldest first
    #[arg(long)]
    pub(crate) oldest_first: bool,
    /// End after this many records
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Addresses and channels; this key's own unless given
    pub(crate) topics: Vec<String>,
    /// Begin behind the record with this number
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<u64>,
    /// End after this many events
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u64>,
    /// End when nothing came for this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) until_idle: Option<Duration>,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

/// Bytes of a segment unless told otherwise: what the payee risks.
pub(crate) const SEGMENT_BYTES_DEFAULT: u64 = 1 << 20;
/// Bytes of a segment at most: one is held in memory on both sides.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook channel serve film.mkv --key payee.key --listen 0.0.0.0:9700
  daybook channel serve film.mkv --key payee.key --price 500@25 --segment-bytes 4194304

Whoever fetches signs a receipt for every segment; it is on disk before the next segment is sent. A
channel is settled when its download ends, and at the latest some seconds before its lock. After a
crash the same command takes up what is in --state: it deposits the best receipt of every open
channel, goes on when the payer comes back, and settles in time.")]
pub(crate) struct Serve {
    /// The file to serve
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9700")]
    pub(crate) listen: String,
    /// Folder where channels are kept
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "./daybook-channels")]
    pub(crate) state: PathBuf,
    /// The price; the tracker's least for income addresses unless given
    #[arg(long, value_name = "TOKENS@POWER", value_parser = price)]
    pub(crate) price: Option<Price>,
    /// Be paid to a new income address, whose tokens go back to the tracker, not to this key's wallet
    #[arg(long)]
    pub(crate) income: bool,
    /// Bytes of a segment: what is risked without a receipt
    #[arg(long, value_name = "BYTES", default_value_t = SEGMENT_BYTES_DEFAULT, value_parser = value_parser!(u64).range(1..=SEGMENT_BYTES_MAX))]
    pub(crate) segment_bytes: u64,
    /// Settle this many seconds before the lock: at least 10, and three times as long as the tracker took to
    /// open the channel
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) margin: Duration,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook channel fetch tcp://host:9700 --key payer.key --out film.mkv
  daybook channel fetch tcp://host:9700 --key payer.key --out film.mkv --price-max 500@25

A download that breaks off is taken up by the same command: FILE.part holds what came, FILE.channel
what was signed for it.")]
pub(crate) struct Fetch {
    /// Where it is served
    #[arg(value_name = "URL")]
    pub(crate) from: String,
    /// New file to write
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
    /// Pay from this spend address; a new one is opened unless given
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) spend: Option<Address>,
    /// The most to pay; the spend address's own price unless given
    #[arg(long, value_name = "TOKENS@POWER", value_parser = price)]
    pub(crate) price_max: Option<Price>,
    /// The most tokens to spend in all
    #[arg(long, value_name = "TOKENS")]
    pub(crate) tokens_max: Option<u64>,
    #[command(flatten)]
    pub(crate) peer: PeerFlags,
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|refusal| refusal.to_string())
}

fn price(text: &str) -> Result<Price, String> {
    let wrong = || "a price is TOKENS@POWER, such as 500@25".to_owned();
    let (amount, power) = text.split_once('@').ok_or_else(wrong)?;
    let power = u8::from_str(power).ok().filter(|power| *power <= 62);
    Ok(Price {
        amount: amount.parse().map_err(|_| wrong())?,
        power: power.ok_or_else(wrong)?,
    })
}
