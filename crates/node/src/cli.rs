//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Arg, ArgMatches, Args, Command, Parser, Subcommand, ValueEnum, ValueHint, value_parser,
};
use daybook_client::{Cursor, Endpoint};
use daybook_ledger::{AssetId, PublicKey, TransactionId};

pub(crate) use crate::channel::Channel;
pub(crate) use crate::ledger_command::Ledger;
use crate::{
    failure::Failure,
    keyfile,
    machine::MachineArgs,
    member::MemberCommand,
    order::Order,
    passphrase::Source,
    settings::{Kind, TABLE},
    user::UserCommand,
};

/// A ledger node in one program: assets of BigchainDB and Planetmint clients, payment channels, ledgers
/// that organisations share, a service bus and machines, on one durable log.
#[derive(Debug, Parser)]
#[command(
    name = "daybook",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done · 1 refused, or a check failed · 2 wrong usage or configuration · \
                  3 node not reachable or busy · 4 damaged data · 5 data directory in use · \
                  6 outcome unknown · 7 the operating system refused",
    after_long_help = "EXAMPLES:
  Start a node, with its data in ./daybook-data and a console at http://127.0.0.1:9984/console:
    daybook start

  See it at work, without leaving anything behind:
    daybook demo

  Create an asset and give 3 of its 10 units to somebody:
    daybook keys generate --out alice.key
    daybook tx create --key alice.key --data '{\"kind\":\"lamp\"}' --amount 10
    daybook tx transfer --key alice.key --asset ID --to PUBLIC_KEY:3

EXIT CODES:
  0  done
  1  refused, or a check failed
  2  wrong usage or configuration
  3  node not reachable or busy
  4  damaged data
  5  data directory in use
  6  something was sent and its outcome is unknown
  7  the operating system refused (disk full, permission, address in use)"
)]
pub(crate) struct Cli {
    /// Answer in JSON, one value per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a node
    Start(Start),
    /// Check the data of a node that is not running
    Check(Check),
    /// Make and show keys
    #[command(subcommand)]
    Keys(Keys),
    /// Make, submit and fetch transactions
    #[command(subcommand)]
    Tx(Tx),
    /// List the outputs that a key may spend, or has spent
    Outputs(Outputs),
    /// Follow what commits, one JSON event per line
    Stream(Stream),
    /// Follow every book of a node, one JSON event per line
    Events(Events),
    /// Be paid, and pay, for traffic by the segment
    #[command(subcommand)]
    Channel(Channel),
    /// Ledgers that organisations share: propose, read, prove, verify
    #[command(subcommand)]
    Ledger(Box<Ledger>),
    /// Measure a node
    Bench(Bench),
    /// Show the settings of a node
    #[command(subcommand)]
    Config(Config),
    /// Copy a node's data, while it runs or while it stands
    Backup(Backup),
    /// Make a data directory of a backup, after checking all of it
    Restore(Restore),
    /// An organisation in a consortium: its identity, its endorser and its gateway
    #[command(subcommand)]
    Member(MemberCommand),
    /// Who may use a member's gateway
    #[command(subcommand)]
    User(UserCommand),
    /// Run a machine that takes orders and is paid
    Machine(Box<MachineArgs>),
    /// Order at a machine and pay
    Order(Box<Order>),
    /// A town that trades: a node, robots, their providers, a shop, organisations, a service, and some money
    Demo(Demo),
    /// The service bus: its services and keys, and calls over it
    #[command(subcommand)]
    Bus(Bus),
    /// Print a completion script for a shell
    Completions(Completions),
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook start
  daybook start --data-dir /var/lib/daybook --listen 0.0.0.0:9984
  daybook start --listen 127.0.0.1:0 --streams-listen 127.0.0.1:0 --json    # free ports
  DAYBOOK_LOG_LEVEL=debug daybook start

Standard output says where the node listens. SIGTERM and SIGINT stop it in good order: no new
connections, waiting transactions are committed, the ledger is closed. A second Ctrl-C
ends it at once.")]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook check --data-dir /var/lib/daybook
  daybook check --signatures          # also every signature of every transaction
  daybook check --rebuild             # make state and indexes anew from the log of blocks")]
pub(crate) struct Check {
    /// Make everything that follows from the log of blocks anew
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// Check every signature of every transaction again
    #[arg(long)]
    pub(crate) signatures: bool,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a new key
    #[command(after_long_help = "EXAMPLES:
  daybook keys generate --out alice.key
  daybook keys generate --out alice.key --encrypt          # asks for a passphrase
  daybook keys generate --out alice.key --passphrase-file secret.txt
  daybook keys generate --kind rsa --out payer.key         # for payment channels
  daybook keys generate --show-secret     # no file; the private key is printed

A passphrase comes from --passphrase-file, from the variable DAYBOOK_KEY_PASSPHRASE or from the
terminal. With one, the private key in the file is encrypted.")]
    Generate {
        /// Write it to this new file, readable by you only
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
        /// What kind of key; the ledger's assets have ed25519 owners
        #[arg(long, value_enum, default_value_t = KeyKind::Ed25519)]
        kind: KeyKind,
        /// Encrypt the file; asks for a passphrase where none is given
        #[arg(long, requires = "out")]
        encrypt: bool,
        /// File whose first line is the passphrase to encrypt with
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "out")]
        passphrase_file: Option<PathBuf>,
        /// Print the private key
        #[arg(long, required_unless_present = "out")]
        show_secret: bool,
    },
    /// Show the public key of a key file
    Show {
        /// The key file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// File whose first line is the passphrase of the key file
        #[arg(long, env = "DAYBOOK_KEY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
        passphrase_file: Option<PathBuf>,
        /// Print the private key as well
        #[arg(long)]
        show_secret: bool,
    },
    /// Change the passphrase of a key file, give it one, or take it away
    #[command(after_long_help = "EXAMPLES:
  daybook keys passphrase alice.key                                    # asks for what it needs
  daybook keys passphrase alice.key --new-passphrase-file secret.txt
  daybook keys passphrase alice.key --passphrase-file secret.txt --remove

The old file stays until the new one is on disk.")]
    Passphrase {
        /// The key file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// File whose first line is the present passphrase
        #[arg(long, env = "DAYBOOK_KEY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
        passphrase_file: Option<PathBuf>,
        /// File whose first line is the new passphrase
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        new_passphrase_file: Option<PathBuf>,
        /// Write the private key in plain
        #[arg(long, conflicts_with = "new_passphrase_file")]
        remove: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    /// Ed25519
    Ed25519,
    /// RSA of 2048 bits
    Rsa,
    /// NIST P-256
    P256,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tx {
    /// Bring an asset into being
    #[command(after_long_help = "EXAMPLES:
  daybook tx create --key alice.key --data '{\"kind\":\"lamp\",\"serial\":\"LX-0001\"}'
  daybook tx create --key alice.key --data @lamp.json --amount 1000
  daybook tx create --key alice.key --to PUBLIC_KEY:5 --to PUBLIC_KEY:7
  daybook tx create --key alice.key --dry-run > signed.json")]
    Create {
        #[command(flatten)]
        key: KeyFlag,
        /// Data of the asset: JSON, or @FILE
        #[arg(long, value_name = "JSON")]
        data: Option<String>,
        /// Units, all for the creator
        #[arg(long, default_value_t = 1, conflicts_with = "to", value_parser = value_parser!(u64).range(1..=daybook_ledger::AMOUNT_MAX))]
        amount: u64,
        /// Owner and units of an output; may be repeated
        #[arg(long, value_name = "PUBLIC_KEY[:UNITS]")]
        to: Vec<Payment>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Move units of an asset; what is over goes back to the sender
    #[command(after_long_help = "EXAMPLES:
  daybook tx transfer --key alice.key --asset ID --to PUBLIC_KEY:3
  daybook tx transfer --key alice.key --asset ID --to BOB:3 --to CAROL:4 \\
      --metadata '{\"invoice\":\"7\"}'")]
    Transfer {
        #[command(flatten)]
        key: KeyFlag,
        /// The asset
        #[arg(long, value_name = "ID")]
        asset: AssetId,
        /// Owner and units of an output; may be repeated
        #[arg(long, value_name = "PUBLIC_KEY[:UNITS]", required = true)]
        to: Vec<Payment>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Fetch a transaction and its place
    Get {
        /// Its id
        id: TransactionId,
        #[command(flatten)]
        node: NodeFlags,
    },
    /// Submit signed transactions: one JSON object, or one per line
    #[command(after_long_help = "EXAMPLES:
  daybook tx submit signed.json
  daybook tx submit - < many.ndjson       # many lines go through the batch door")]
    Submit {
        /// A file, or - for standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        node: NodeFlags,
    },
}

/// A payee and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) key: PublicKey,
    pub(crate) units: u64,
}

impl std::str::FromStr for Payment {
    type Err = String;
    fn from_str(text: &str) -> Result<Payment, String> {
        let (key, units) = match text.split_once(':') {
            None => (text, 1),
            Some((key, units)) => (
                key,
                units
                    .parse()
                    .map_err(|_| format!("`{units}` is not a count of units"))?,
            ),
        };
        if daybook_ledger::Amount::new(units).is_none() {
            return Err(format!("units must be 1 to {}", daybook_ledger::AMOUNT_MAX));
        }
        Ok(Payment {
            key: key.parse().map_err(|e| format!("`{key}`: {e}"))?,
            units,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct KeyFlag {
    /// Key file of the signer
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: PathBuf,
    /// File whose first line is the passphrase of the key file
    #[arg(long, env = "DAYBOOK_KEY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl KeyFlag {
    /// The Ed25519 key of the file.
    pub(crate) fn read(&self) -> Result<daybook_ledger::SigningKey, Failure> {
        keyfile::read_with(&self.key, &Source::new(self.passphrase_file.as_deref()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Sending {
    /// Metadata of the transaction: JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Do not send: print the signed transaction
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook outputs PUBLIC_KEY
  daybook outputs alice.key --spent any")]
pub(crate) struct Outputs {
    /// A public key, or a key file
    pub(crate) key: String,
    /// Which outputs
    #[arg(long, value_enum, default_value_t = Spent::No)]
    pub(crate) spent: Spent,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spent {
    /// Unspent ones only
    No,
    /// Spent ones only
    Yes,
    /// All
    Any,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook stream                                  # from now on
  daybook stream --from 1 --asset ID              # the history of an asset, then live
  daybook stream valid_blocks --from 1 --until-idle 2
  daybook stream --show-cursor                    # each line also tells where to go on

Without --json or with it, each event is one JSON object per line. A broken connection is made again
by itself and nothing is lost or repeated.")]
pub(crate) struct Stream {
    /// Which stream
    #[arg(value_enum, default_value_t = StreamName::ValidTransactions)]
    pub(crate) stream: StreamName,
    /// Begin at this place: a height, or the cursor of an earlier event
    #[arg(long, value_name = "HEIGHT[.INDEX]")]
    pub(crate) from: Option<Cursor>,
    /// Only what concerns this key
    #[arg(long)]
    pub(crate) public_key: Option<PublicKey>,
    /// Only what concerns this asset
    #[arg(long, value_name = "ID")]
    pub(crate) asset: Option<AssetId>,
    /// Only this operation
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) operation: Option<OperationName>,
    /// End after this many events
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u64>,
    /// End when nothing came for this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) until_idle: Option<Duration>,
    /// Put each event into {"cursor": …, "event": …}
    #[arg(long)]
    pub(crate) show_cursor: bool,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook events                                  # from now on
  daybook events --from 0 --kind tracker          # the history of one book, then live
  daybook events --kind asset.transfer --key PUBLIC_KEY

Each event has a position. To go on behind it, give the same height and the index plus one to --from.
A broken connection is made again by itself and nothing is lost or repeated.")]
pub(crate) struct Events {
    /// Begin at this place: a height, or a height and an index
    #[arg(long, value_name = "HEIGHT[.INDEX]")]
    pub(crate) from: Option<Cursor>,
    /// Only this kind, such as asset.transfer, or this book, such as tracker; may be repeated
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
    /// Only what touches this public key, asset, address or channel; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Vec<String>,
    /// End after this many events
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u64>,
    /// End when nothing came for this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) until_idle: Option<Duration>,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum StreamName {
    /// Each committed transaction
    ValidTransactions,
    /// Each committed block
    ValidBlocks,
    /// Each transaction that was taken and then lost
    RejectedTransactions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum OperationName {
    Create,
    Transfer,
    Compose,
    Decompose,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook bench                                   # an own node in a temporary directory
  daybook bench --door post --clients 50
  daybook bench --url http://127.0.0.1:9984 --door batch --transactions 200000
  daybook bench --subscribers 1000

Transactions are signed before the clock starts. Every rate comes with the disk's own flush time,
measured in the same run.")]
pub(crate) struct Bench {
    /// How transactions go in
    #[arg(long, value_enum, default_value_t = Door::Batch)]
    pub(crate) door: Door,
    /// TRANSFERs to submit
    #[arg(long, default_value_t = 20_000, value_parser = value_parser!(u64).range(1..=50_000_000))]
    pub(crate) transactions: u64,
    /// Connections that submit
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u64).range(1..=10_000))]
    pub(crate) clients: u64,
    /// Submissions under way per connection
    #[arg(long, default_value_t = 2_000, value_parser = value_parser!(u64).range(1..=100_000))]
    pub(crate) window: u64,
    /// Connections that follow the stream meanwhile
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(0..=10_000))]
    pub(crate) subscribers: u64,
    /// Answer when the block is on disk, or when the transaction waits for it
    #[arg(long, value_enum, default_value_t = Ack::Durable)]
    pub(crate) ack: Ack,
    /// Measure this node; without it an own one is made in a temporary directory
    #[arg(long, env = "DAYBOOK_URL", value_name = "URL")]
    pub(crate) url: Option<Endpoint>,
    /// Where the own node's data goes; the disk below it is what is measured
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) in_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Door {
    /// POST /api/v1/transactions/batch
    Batch,
    /// One transaction per POST
    Post,
    /// The submitting socket
    Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ack {
    Accepted,
    Durable,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show each value and where it comes from
    #[command(after_long_help = "EXAMPLES:
  daybook config show
  daybook config show --data-dir /var/lib/daybook --json")]
    Show {
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Print a commented daybook.toml with every default
    Template,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook backup --data-dir /var/lib/daybook --to /backups/today
A running node makes the copy itself and goes on working. The copy holds the node's private keys.")]
pub(crate) struct Backup {
    /// A folder that does not exist yet
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook restore --from /backups/today --data-dir ./daybook-data")]
pub(crate) struct Restore {
    /// A folder that `daybook backup` made
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) from: PathBuf,
    /// Check every signature of every transaction as well
    #[arg(long)]
    pub(crate) signatures: bool,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
#[command(after_long_help = "EXAMPLES:
  daybook demo             # starts everything, says what to try, and runs until Ctrl-C
  daybook demo --auto      # plays the story by itself, and checks every balance at the end
  daybook demo --keep      # the data stay, to look at them afterwards

Usual ports are taken where they are free, and others where they are not. Nothing is looked up or
fetched from elsewhere.")]
pub(crate) struct Demo {
    /// Play the story, reckon, and end: with 0 only if every balance adds up
    #[arg(long)]
    pub(crate) auto: bool,
    /// Leave the data where they are at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Take free ports, not the usual ones
    #[arg(long)]
    pub(crate) free_ports: bool,
    /// Be the work of a machine: the order is on standard input
    #[arg(long, hide = true, conflicts_with_all = ["auto", "keep", "free_ports"])]
    pub(crate) work: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bus {
    /// Services that may connect, and their keys
    #[command(subcommand)]
    Service(BusService),
    /// Send a request and print the answer
    #[command(after_long_help = "EXAMPLES:
  daybook bus call ledger.head --key-file meter.key --name meter
  daybook bus call grid.read '{\"zone\":\"north\"}' --key-file meter.key --timeout 2
  echo '{}' | daybook bus call grid.read - --key-file meter.key --reply all

Prints the answer's data. A failed call exits with 1, a call without an answer in time with 3.")]
    Call(BusCall),
    /// Answer requests with the output of a command
    #[command(after_long_help = "EXAMPLES:
  daybook bus serve grid.read --queue workers --key-file grid.key -- jq '{kw: 41.5, zone: .zone}'
  daybook bus serve echo --key-file grid.key      # without a command, a request is its own answer

The command gets the request's data on standard input and answers with JSON on standard output; another
exit code than 0 is an error, with standard error as its message.")]
    Serve(BusServe),
    /// Print requests that match a name, one JSON object per line
    #[command(after_long_help = "EXAMPLES:
  daybook bus subscribe 'grid.>' --key-file meter.key
  daybook bus subscribe 'order.>' --key-file shop.key --durable
  daybook bus subscribe ledger.events --key-file meter.key --from 1 --kind asset.transfer
  daybook bus subscribe '_service.>' --key-file meter.key     # who comes and goes

With --durable each message is acknowledged once its line is written.")]
    Subscribe(BusSubscribe),
    /// List the services that are online
    Services(BusServices),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BusService {
    /// Allow a service; its new key is printed once
    #[command(after_long_help = "EXAMPLES:
  daybook bus service add meter
  daybook bus service add grid --subscribe 'grid.>' --publish 'ledger.*'
  daybook bus service add old --key-file - < key.txt      # a key that exists already")]
    Add(ServiceAdd),
    /// List services and what they may do
    List {
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Take keys away; their connections are closed at once
    Revoke {
        /// Name of a service, or the id of one of its keys
        name: String,
        #[command(flatten)]
        settings: SettingFlags,
    },
}

impl BusService {
    pub(crate) fn settings(&self) -> &SettingFlags {
        match self {
            BusService::Add(add) => &add.settings,
            BusService::List { settings } | BusService::Revoke { settings, .. } => settings,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServiceAdd {
    /// Its name, or a pattern of names: `*` for one part, `>` for the rest
    pub(crate) name: String,
    /// Pattern of names that it may request; may be repeated; without one, all
    #[arg(long, value_name = "PATTERN")]
    pub(crate) publish: Vec<String>,
    /// Pattern of names that it may listen to; may be repeated; without one, all
    #[arg(long, value_name = "PATTERN")]
    pub(crate) subscribe: Vec<String>,
    /// Requests per second in the long run
    #[arg(long, value_name = "NUMBER")]
    pub(crate) requests_per_second: Option<u32>,
    /// Unanswered deliveries at once
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_in_flight: Option<u32>,
    /// Take the key from this file, or from standard input for -, instead of making one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

/// Where the bus is.
#[derive(Debug, Args)]
pub(crate) struct Broker {
    /// Address of the bus
    #[arg(
        long,
        env = "DAYBOOK_BUS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9001"
    )]
    pub(crate) url: Endpoint,
}

/// How a command reaches the bus, and as whom.
#[derive(Debug, Args)]
pub(crate) struct BusFlags {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// Name of this service
    #[arg(long, env = "DAYBOOK_BUS_NAME", default_value = "daybook-cli")]
    pub(crate) name: String,
    /// File with the service's key; - reads it from standard input
    #[arg(long, env = "DAYBOOK_BUS_KEY_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: PathBuf,
    #[command(flatten)]
    pub(crate) authorities: Authorities,
}

#[derive(Debug, Args)]
pub(crate) struct BusCall {
    /// What is requested
    pub(crate) request: String,
    /// Its data: JSON, @FILE, or - for standard input
    #[arg(default_value = "{}")]
    pub(crate) data: String,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Who gets it: auto, one or all
    #[arg(long, value_parser = ["auto", "one", "all"])]
    pub(crate) delivery: Option<String>,
    /// Which answers count: first, all or none
    #[arg(long, value_parser = ["first", "all", "none"], default_value = "first")]
    pub(crate) reply: String,
    /// The request may be delivered twice if its receiver goes away
    #[arg(long)]
    pub(crate) retry: bool,
    /// The id of the request; the same id has one effect
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    #[command(flatten)]
    pub(crate) bus: BusFlags,
}

#[derive(Debug, Args)]
pub(crate) struct BusServe {
    /// What is answered: a name, or a pattern
    pub(crate) request: String,
    /// Share the work with all who name the same queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Requests answered at once
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=1_024))]
    pub(crate) at_once: u32,
    /// End after so many requests
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u64>,
    /// The command and its arguments
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) bus: BusFlags,
}

#[derive(Debug, Args)]
pub(crate) struct BusSubscribe {
    /// A name, or a pattern
    pub(crate) request: String,
    /// Share the messages with all who name the same queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Messages wait on the broker while nobody is there, until they are acknowledged
    #[arg(long)]
    pub(crate) durable: bool,
    /// ledger.events: begin at this height or position
    #[arg(long, value_name = "HEIGHT[.INDEX]")]
    pub(crate) from: Option<String>,
    /// ledger.events: only this kind; may be repeated
    #[arg(long)]
    pub(crate) kind: Vec<String>,
    /// ledger.events: only what touches this key, asset, address or channel; may be repeated
    #[arg(long)]
    pub(crate) key: Vec<String>,
    /// End after so many messages
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) bus: BusFlags,
}

#[derive(Debug, Args)]
pub(crate) struct BusServices {
    #[command(flatten)]
    pub(crate) broker: Broker,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Which node, and how to reach it.
#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    /// Address of the node
    #[arg(
        long,
        env = "DAYBOOK_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9984"
    )]
    pub(crate) url: Endpoint,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Seconds that a request may take, the wait for a block included
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// What is shown to a node and what is believed of it.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// File with the bearer token for writes
    #[arg(long, env = "DAYBOOK_TOKEN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) authorities: Authorities,
}

/// Whose certificates are believed.
#[derive(Debug, Args)]
pub(crate) struct Authorities {
    /// PEM file with the certificates to trust instead of the public roots
    #[arg(long, env = "DAYBOOK_CA_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
}

/// One flag for every setting in the table.
#[derive(Debug)]
pub(crate) struct SettingFlags {
    pub(crate) config: Option<PathBuf>,
    /// Setting name and text, as given.
    pub(crate) given: Vec<(String, String)>,
}

const CONFIG_FLAG: &str = "config";

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, clap::Error> {
        let given = TABLE
            .iter()
            .filter_map(|setting| {
                let text = matches.get_raw(setting.name)?.next_back()?;
                Some((setting.name.to_owned(), text.to_string_lossy().into_owned()))
            })
            .collect();
        let config = matches.get_one::<OsString>(CONFIG_FLAG).map(PathBuf::from);
        Ok(SettingFlags { config, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .env("DAYBOOK_CONFIG")
            .value_name("FILE")
            .value_parser(value_parser!(OsString))
            .value_hint(ValueHint::FilePath)
            .help("Read settings from this file instead of daybook.toml in the data directory");
        let command = command.arg(config).next_help_heading("Settings");
        TABLE.iter().fold(command, |command, setting| {
            let (value_name, hint) = match setting.kind {
                Kind::Path => ("PATH", ValueHint::AnyPath),
                Kind::Address => ("ADDRESS", ValueHint::Other),
                Kind::Switch => ("true|false", ValueHint::Other),
                Kind::Count => ("NUMBER", ValueHint::Other),
                Kind::List => ("ITEM,ITEM", ValueHint::Other),
                Kind::Text | Kind::Choice(_) => ("TEXT", ValueHint::Other),
            };
            let shown = setting.default.trim_matches('"');
            let default = if shown.is_empty() {
                String::new()
            } else {
                format!(" [default: {shown}]")
            };
            let flag = match setting.kind {
                // Named alone, a switch is on.
                Kind::Switch => Arg::new(setting.name)
                    .num_args(0..=1)
                    .default_missing_value("true"),
                _ => Arg::new(setting.name),
            };
            command.arg(
                flag.long(setting.flag())
                    .value_name(value_name)
                    .value_hint(hint)
                    // What follows a switch that is named alone is the next flag.
                    .allow_hyphen_values(setting.kind != Kind::Switch)
                    .hide_short_help(!setting.common)
                    .help(format!(
                        "{}{default} [env: {}]",
                        setting.doc,
                        setting.variable()
                    )),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag_of_start() {
        for setting in TABLE {
            let flag = format!("--{}=x", setting.flag());
            let cli = Cli::try_parse_from(["daybook", "start", &flag]).unwrap();
            let Verb::Start(start) = cli.command else {
                panic!("another command")
            };
            assert_eq!(
                start.settings.given,
                [(setting.name.to_owned(), "x".to_owned())]
            );
        }
    }

    #[test]
    fn a_payment_is_a_key_and_a_count_of_units() {
        let key = "n655MWeb71sJe7iSvp6svN7WJF5wkY3TYpcobjHt9P8";
        assert_eq!(key.parse::<Payment>().unwrap().units, 1);
        assert_eq!(format!("{key}:7").parse::<Payment>().unwrap().units, 7);
        for text in [
            "x",
            &format!("{key}:0"),
            &format!("{key}:-1"),
            &format!("{key}:"),
        ] {
            assert!(text.parse::<Payment>().is_err(), "{text}");
        }
    }
}
