//! `daybook member`: an organisation's identity, and its endorser and gateway as a process of their own
//! or inside a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand, ValueHint};
use daybook_client::consortium::ConsortiumClient;
use daybook_gateway::{Guest, GuestAnswer};
use daybook_ledger::{
    block::Genesis,
    consortium::{Answer as Rule, Book, Card, Did, Profile, canon_object},
};
use daybook_member::{
    Check, DiskError, Ended, Hosted, Identity, Member, MemberError, Peer, Relay, Settings,
    copy_relay, read_policy, tls_config,
};
use daybook_pipeline::Node;
use http::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    backup,
    cli::NodeFlags,
    config::LogFormat,
    consortium::read_card,
    failure::{Exit, Failure},
    keyfile, log,
    member_card::{self, ChangeCard, Rotate},
    member_network::{Local, NOTICES_TIMEOUT, Remote},
    node::blocking,
    out::Out,
    passphrase::Source,
    remote,
};

/// Bytes of a file with a member's settings at most.
const CONDUCT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a certificate or a genesis at most.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// How long a check may take unless it is said otherwise.
const CHECK_SECONDS_DEFAULT: u64 = 10;
/// The name of a member's key file, its card, its settings and the network's genesis in its folder.
pub(crate) const KEY: &str = "member.key";
pub(crate) const CARD: &str = "card.json";
const CONDUCT: &str = "member.json";
const GENESIS: &str = "genesis.bin";
/// What the relay of a node keeps, beside its members' folders.
const RELAY: &str = "relay.redb";

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Make an organisation's identity: its key, its DID and the card that the others know it by
    #[command(after_long_help = "EXAMPLES:
  daybook member init --label 'Port One' --organization 'Port One Ltd.'
  daybook member init --label 'Port One' --encrypt --data-dir /var/lib/port-one

The card is public: whoever runs the node names it in consortium.members. The key is not: it stands
beside it, encrypted with --encrypt, and never leaves this machine.")]
    Init(Box<Init>),
    /// Run a member's endorser and gateway against a node
    #[command(after_long_help = "EXAMPLES:
  daybook member run --url http://127.0.0.1:9984
  daybook member run --url https://node.example --listen 0.0.0.0:8443 \\
      --tls-cert c.pem --tls-key k.pem --origin https://member.example
  daybook member run --check ./allowed.sh     # exit 0 endorses; else the first line is the reason
  daybook member run --ask                    # people decide, at /proposals/

What the flags do not say is read from member.json in the member's folder.")]
    Run(Box<Run>),
    /// Change what the others read of a member: its label, where its gateway is, its icon
    #[command(after_long_help = "EXAMPLES:
  daybook member card --endpoint https://member.example --url http://127.0.0.1:9984
  daybook member card --label 'Port One' --icon ''      # a text that is empty is taken away

What is not named stays as it is. The new card stands in the network's log and in card.json.")]
    Card(Box<ChangeCard>),
    /// Give a member a new key
    #[command(after_long_help = "EXAMPLES:
  daybook member rotate --url http://127.0.0.1:9984

The new key is made and on disk, encrypted if the old one is, before the network learns of it; the old
one is kept as retired-….key. A call that was interrupted is called again. A member that runs stops when
it reads that its key was replaced: start it again. It stays the same member, with the same DID.")]
    Rotate(Box<Rotate>),
    /// List the members whose identities are here
    List(Where),
    /// Show a member's DID, key and card
    Show {
        /// Which member, when there are several
        #[arg(value_name = "DID")]
        member: Option<Did>,
        #[command(flatten)]
        place: Where,
    },
}

/// Where members live.
#[derive(Clone, Debug, Args)]
pub(crate) struct Where {
    /// The directory with the members' folders
    #[arg(
        long,
        env = "DAYBOOK_DATA_DIR",
        value_name = "DIR",
        default_value = "./daybook-data",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// A short name
    #[arg(long)]
    label: String,
    /// The organisation's full name
    #[arg(long, default_value = "")]
    organization: String,
    /// Where its gateway is reached
    #[arg(long, value_name = "URL", default_value = "")]
    endpoint: String,
    /// Its page
    #[arg(long, value_name = "URL", default_value = "")]
    page: String,
    /// Where its logo is found
    #[arg(long, value_name = "URL", default_value = "")]
    logo: String,
    /// Where its icon is found
    #[arg(long, value_name = "URL", default_value = "")]
    icon: String,
    /// Take the key from this file instead of making one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// Encrypt the key file with a passphrase
    #[arg(long)]
    encrypt: bool,
    /// File whose first line is the passphrase
    #[arg(long, env = "DAYBOOK_KEY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Which member, when there are several
    #[arg(long, value_name = "DID")]
    member: Option<Did>,
    /// Address of the gateway; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// PEM file with the certificates of the gateway
    #[arg(long, value_name = "FILE", requires = "tls_key", value_hint = ValueHint::FilePath)]
    tls_cert: Option<PathBuf>,
    /// PEM file with the key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_hint = ValueHint::FilePath)]
    tls_key: Option<PathBuf>,
    /// What users reach the gateway under; by default the address that it listens on
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// Believe X-Forwarded-Proto: a proxy in front sets it
    #[arg(long)]
    trust_forwarded: bool,
    /// How many must agree to a new ledger: `unanimous`, or a number
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// A program that decides about what is sound: exit code 0 endorses
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::ExecutablePath, conflicts_with = "ask")]
    check: Option<PathBuf>,
    /// Let people decide about what is sound
    #[arg(long)]
    ask: bool,
    /// File whose first line is the passphrase of the key file
    #[arg(long, env = "DAYBOOK_KEY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    /// What the log says: error, warn, info, debug or trace
    #[arg(long, env = "DAYBOOK_LOG_LEVEL", default_value = "info")]
    log_level: String,
    #[command(flatten)]
    node: NodeFlags,
    #[command(flatten)]
    place: Where,
}

/// A member's settings, as `member.json` in its folder holds them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Conduct {
    /// What users reach the gateway under.
    origin: Option<String>,
    /// Whether `X-Forwarded-Proto` is believed.
    trust_forwarded: bool,
    /// With whom ledgers are shared unless a request says otherwise: DIDs.
    group: Option<Vec<String>>,
    /// `unanimous`, or how many.
    policy: Option<String>,
    /// The members that a container passes, in order.
    route: Vec<String>,
    /// Days from the first of them to each.
    travel_days: BTreeMap<String, i64>,
    /// Groups within which new ledgers are endorsed; without it any.
    share_with: Option<Vec<Vec<String>>>,
    /// Whether people decide about entries.
    ask: bool,
    /// A program and its arguments that decide.
    check: Vec<String>,
    /// Seconds that it may take.
    check_seconds: Option<u64>,
    /// The largest `time_to_live`, in seconds.
    time_to_live_seconds_max: Option<u64>,
    /// Seconds that a token lives.
    token_seconds: Option<u64>,
    /// Bytes of one document.
    document_bytes_max: Option<u64>,
    /// Extensions of documents that are taken; without any all.
    document_types: Vec<String>,
}

pub(crate) fn run(command: &MemberCommand, out: Out) -> Result<(), Failure> {
    match command {
        MemberCommand::Init(args) => init(args, out),
        MemberCommand::Run(args) => block_on(serve(args, out)),
        MemberCommand::Card(args) => block_on(member_card::change(args, out)),
        MemberCommand::Rotate(args) => block_on(member_card::rotate(args, out)),
        MemberCommand::List(place) => {
            for (did, folder) in folders(&place.data_dir)? {
                show(did, &folder, out)?;
            }
            Ok(())
        }
        MemberCommand::Show { member, place } => {
            let (did, folder) = chosen(&place.data_dir, *member)?;
            show(did, &folder, out)
        }
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("member")
        .build()
        .map_err(|e| Failure::system("starting threads", &e))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

fn init(args: &Init, out: Out) -> Result<(), Failure> {
    let source = Source::new(args.passphrase_file.as_deref());
    let key = match &args.key {
        Some(path) => keyfile::read_with(path, &source)?,
        None => keyfile::generate(),
    };
    let profile = Profile {
        label: args.label.clone(),
        organization: args.organization.clone(),
        endpoint: args.endpoint.clone(),
        url: args.page.clone(),
        logo: args.logo.clone(),
        icon: args.icon.clone(),
    };
    let card = Card::first(profile, &key);
    // What the others would refuse is not written.
    Card::read(&card.to_object().into()).map_err(|refusal| Failure::usage(refusal.detail))?;
    let folder = members_folder(&args.place.data_dir).join(card.did().to_string());
    make_folder(&folder)?;
    let key_path = folder.join(KEY);
    let passphrase = match args.encrypt {
        true => Some(source.to_make(&key_path)?),
        false => None,
    };
    keyfile::write(&key_path, &key, passphrase.as_ref())?;
    let card_path = folder.join(CARD);
    let text = canon_object(&card.to_object()) + "\n";
    keyfile::write_new(&card_path, text.as_bytes(), 0o644)
        .map_err(|e| Failure::system(card_path.display(), &e))?;
    show(card.did(), &folder, out)
}

fn show(did: Did, folder: &Path, out: Out) -> Result<(), Failure> {
    let card_path = folder.join(CARD);
    let card = read_card(&card_path)?;
    let (_, _, encrypted) = keyfile::look(&folder.join(KEY))?;
    let profile = card.profile();
    out.say(
        &json!({
            "did": did.to_string(),
            "verkey": card.verkey().to_string(),
            "label": profile.label,
            "organization": profile.organization,
            "card": card_path,
            "encrypted": encrypted,
        }),
        &format!(
            "did     {did}\nverkey  {}\nlabel   {}\ncard    {}",
            card.verkey(),
            profile.label,
            card_path.display()
        ),
    );
    Ok(())
}

/// Where the members of a data directory live.
pub(crate) fn members_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("members")
}

/// The members whose identities are in a data directory.
pub(crate) fn folders(data_dir: &Path) -> Result<Vec<(Did, PathBuf)>, Failure> {
    let folder = members_folder(data_dir);
    let system = |e: io::Error| Failure::system(folder.display(), &e);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(system)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(system)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(did) = name.and_then(|name| name.parse().ok())
            && path.join(KEY).is_file()
        {
            found.push((did, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Copies what the members of a data directory keep into the data directory `into`: the stores as they are
/// at this moment, by those who have them open, and then every other file.
pub(crate) fn back_up(
    data_dir: &Path,
    into: &Path,
    running: Option<&House>,
) -> Result<(), Failure> {
    let failed = |error: DiskError| Failure::new(Exit::Damaged, error.to_string());
    for (did, folder) in folders(data_dir)? {
        let to = members_folder(into).join(did.to_string());
        backup::make_dir(&to)?;
        running
            .and_then(|house| house.copy_store(did, &to))
            .unwrap_or_else(|| daybook_member::copy_store(&folder, &to))
            .map_err(failed)?;
        backup::copy_tree(&folder, &to, &daybook_member::LEFT_OUT)?;
    }
    let from = members_folder(data_dir).join(RELAY);
    if !from.exists() {
        return Ok(());
    }
    let to = members_folder(into);
    backup::make_dir(&to)?;
    match running {
        Some(house) => house.relay.copy_store(&to.join(RELAY)),
        // Only a node opens it, and none is running.
        None => copy_relay(&from, &to.join(RELAY)),
    }
    .map_err(failed)
}

/// The member that is meant.
pub(crate) fn chosen(data_dir: &Path, wanted: Option<Did>) -> Result<(Did, PathBuf), Failure> {
    let mut found = folders(data_dir)?;
    found.retain(|(did, _)| wanted.is_none_or(|wanted| wanted == *did));
    let place = data_dir.display();
    match (found.pop(), found.is_empty(), wanted) {
        (Some(one), true, _) => Ok(one),
        (None, _, Some(did)) => Err(Failure::usage(format!("{place} has no member {did}"))),
        (None, _, None) => Err(Failure::usage(format!(
            "{place} has no member: make one with `daybook member init`"
        ))),
        (Some(_), false, _) => Err(Failure::usage(format!(
            "{place} has several members: say which one"
        ))),
    }
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    crate::datadir::DataDir::new(path).make()
}

fn identity(did: Did, folder: &Path, source: &Source) -> Result<Identity, Failure> {
    let key = keyfile::read_with(&folder.join(KEY), source)?;
    Ok(Identity { did, key })
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let system = |e: io::Error| Failure::system(path.display(), &e);
    if fs::metadata(path).map_err(system)?.len() > bytes_max {
        return Err(Failure::usage(format!("{}: too long", path.display())));
    }
    fs::read(path).map_err(system)
}

fn conduct(folder: &Path) -> Result<Conduct, Failure> {
    let path = folder.join(CONDUCT);
    if !path.exists() {
        return Ok(Conduct::default());
    }
    let text = read_bounded(&path, CONDUCT_BYTES_MAX)?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn dids(texts: &[String], about: &str) -> Result<Vec<Did>, Failure> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|error| Failure::usage(format!("{about}: `{text}`: {error}")))
    };
    texts.iter().map(parse).collect()
}

/// What a member is set to.
fn settings(folder: &Path, conduct: &Conduct, origin: String) -> Result<Settings, Failure> {
    let origin = conduct.origin.clone().unwrap_or(origin);
    let is_origin = origin
        .split_once("://")
        .is_some_and(|(scheme, host)| matches!(scheme, "http" | "https") && !host.is_empty());
    if !is_origin {
        return Err(Failure::usage(format!(
            "origin `{origin}` must be an address such as https://member.example"
        )));
    }
    let mut settings = Settings::new(folder.to_owned(), origin.trim_end_matches('/').to_owned());
    settings.trust_forwarded = conduct.trust_forwarded;
    settings.group = match &conduct.group {
        Some(group) => Some(dids(group, "group")?),
        None => None,
    };
    if let Some(policy) = &conduct.policy {
        settings.policy = read_policy(policy).ok_or_else(|| {
            Failure::usage(format!("policy `{policy}` is not `unanimous` or a number"))
        })?;
    }
    settings.route = dids(&conduct.route, "route")?;
    for (did, days) in &conduct.travel_days {
        let did = dids(std::slice::from_ref(did), "travel_days")?;
        settings
            .travel_days
            .extend(did.into_iter().map(|did| (did, *days)));
    }
    if let Some(groups) = &conduct.share_with {
        let groups = groups.iter().map(|group| {
            let group = dids(group, "share_with")?;
            Ok(group.into_iter().collect::<BTreeSet<Did>>())
        });
        settings.rules.groups = Some(groups.collect::<Result<_, Failure>>()?);
    }
    if conduct.ask {
        settings.rules.entries = Rule::Ask;
    }
    if let Some((program, arguments)) = conduct.check.split_first() {
        let seconds = conduct.check_seconds.unwrap_or(CHECK_SECONDS_DEFAULT);
        settings.check = Some(Check {
            program: program.into(),
            arguments: arguments.to_vec(),
            within: Duration::from_secs(seconds),
        });
    }
    if let Some(seconds) = conduct.time_to_live_seconds_max {
        settings.ttl_seconds_max = seconds.max(1);
    }
    if let Some(seconds) = conduct.token_seconds {
        settings.token_seconds = seconds;
    }
    if let Some(bytes) = conduct.document_bytes_max {
        settings.document_bytes_max = bytes;
    }
    let types = conduct.document_types.iter();
    settings.document_types = types.map(|end| end.to_lowercase()).collect();
    Ok(settings)
}

fn failed(error: MemberError) -> Failure {
    let exit = match &error {
        MemberError::Mirror(_) | MemberError::Disk(_) => Exit::Damaged,
        MemberError::Folder(..) => Exit::System,
        MemberError::Trust(_) => Exit::Usage,
    };
    Failure::new(exit, error.to_string())
}

async fn serve(args: &Run, out: Out) -> Result<(), Failure> {
    log::start(LogFormat::Auto, &args.log_level)?;
    let system = |e: io::Error| Failure::system("signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let (did, folder) = chosen(&args.place.data_dir, args.member)?;
    let client = ConsortiumClient::new(remote::client(&args.node)?);
    member_card::finish_if_known(&client, did, &folder).await?;
    let identity = identity(did, &folder, &Source::new(args.passphrase_file.as_deref()))?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => {
            let chain = read_bounded(chain, PEM_BYTES_MAX)?;
            let key = zeroize::Zeroizing::new(read_bounded(key, PEM_BYTES_MAX)?);
            let config = tls_config(&chain, &key);
            Some(config.map_err(|e| Failure::usage(format!("the gateway's certificate: {e}")))?)
        }
        _ => None,
    };
    let socket = TcpListener::bind(args.listen)
        .await
        .map_err(|e| Failure::system(format!("cannot listen on {}", args.listen), &e))?;
    let address = socket
        .local_addr()
        .map_err(|e| Failure::system(args.listen, &e))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let mut conduct = conduct(&folder)?;
    conduct.origin = args.origin.clone().or(conduct.origin);
    conduct.policy = args.policy.clone().or(conduct.policy);
    conduct.trust_forwarded |= args.trust_forwarded;
    conduct.ask |= args.ask;
    if let Some(check) = &args.check {
        conduct.check = vec![check.to_string_lossy().into_owned()];
    }
    let mut settings = settings(&folder, &conduct, url.clone())?;
    settings
        .ca_file
        .clone_from(&args.node.trust.authorities.ca_file);
    let patient = remote::builder(&args.node.url, &args.node.trust)?
        .timeout(NOTICES_TIMEOUT)
        .build()?;
    let genesis = genesis(&client, &folder).await?;
    let network = Arc::new(Remote::new(client, ConsortiumClient::new(patient)));
    let member = blocking(move || Member::start(identity, &genesis, network, settings));
    let hosted = Arc::new(Hosted::new(vec![member.await?.map_err(failed)?], None));
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(daybook_member::serve(socket, tls, hosted.clone(), async {
        // Dropped or sent, it means the same.
        let _ = stopping.await;
    }));
    out.say(
        &json!({
            "event": "listening",
            "http": url,
            "did": did.to_string(),
            "pid": std::process::id(),
        }),
        &format!("member   {did}\nhttp     {url}"),
    );
    let member = &hosted.members()[0];
    let failure = tokio::select! {
        why = member.failed() => {
            let exit = match &why {
                Ended::Mirror(_) => Exit::Damaged,
                Ended::KeyReplaced(_) => Exit::Refused,
            };
            Some(Failure::new(exit, format!("the member stops: {why}")))
        }
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match &failure {
        None => tracing::info!("stopping"),
        Some(failure) => tracing::error!(%failure, "stopping"),
    }
    let _ = stop.send(());
    hosted.stop().await;
    let _ = serving.await;
    failure.map_or(Ok(()), Err)
}

/// How the network began. What the node says is kept and must stay the same; when it cannot be asked,
/// what was kept is enough.
async fn genesis(client: &ConsortiumClient, folder: &Path) -> Result<Genesis, Failure> {
    let path = folder.join(GENESIS);
    let kept = match path.exists() {
        true => {
            let bytes = read_bounded(&path, PEM_BYTES_MAX)?;
            Some(Genesis::from_bytes(&bytes).map_err(|error| {
                Failure::new(Exit::Damaged, format!("{}: {error}", path.display()))
            })?)
        }
        false => None,
    };
    match (client.network().await, kept) {
        (Ok(told), Some(kept)) if told.network != kept.hash() => Err(Failure::refused(format!(
            "the node is of network {}, and this member of network {}",
            told.network,
            kept.hash()
        ))),
        (Ok(_), Some(kept)) => Ok(kept),
        (Ok(told), None) => {
            keyfile::write_new(&path, &told.genesis.to_bytes(), 0o644)
                .map_err(|e| Failure::system(path.display(), &e))?;
            tracing::info!(network = %told.network, "this member is of this network from now on");
            Ok(told.genesis)
        }
        (Err(error), Some(kept)) => {
            tracing::warn!(%error, "the node cannot be asked yet");
            Ok(kept)
        }
        (Err(error), None) => Err(error.into()),
    }
}

/// The members that a node hosts, and the relay for those elsewhere.
#[derive(Debug)]
pub(crate) struct House {
    hosted: Arc<Hosted>,
    relay: Arc<Relay>,
}

impl Guest for House {
    fn takes(&self, path: &str) -> bool {
        self.hosted.takes(path)
    }

    fn answer(&self, request: Request<Incoming>, peer: IpAddr, secure: bool) -> GuestAnswer<'_> {
        let peer = Peer {
            address: peer,
            secure,
        };
        Box::pin(self.hosted.answer(request, peer))
    }
}

impl House {
    /// Starts every member whose identity is in the data directory.
    pub(crate) async fn open(
        data_dir: &Path,
        node: &Node,
        origin: &str,
        source: &Source,
    ) -> Result<House, Failure> {
        let genesis = node.store().genesis().clone();
        let store = node.store().clone();
        let is_key_of = move |did: Did, key: &daybook_ledger::PublicKey| {
            store.consortium(|book| {
                let member = book.member(did);
                member.is_some_and(|member| member.active && member.card.verkey() == *key)
            })
        };
        let path = members_folder(data_dir).join(RELAY);
        let network = genesis.hash();
        let relay = blocking(move || Relay::open(&path, network, Box::new(is_key_of)));
        let relay = relay.await?;
        let relay =
            Arc::new(relay.map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?);
        let mut members = Vec::new();
        for (did, folder) in folders(data_dir)? {
            let present = |book: &Book| book.member(did).map(|member| member.card.clone());
            if let Some(present) = node.store().consortium(present) {
                member_card::finish(&folder, &present)?;
            }
            let identity = identity(did, &folder, source)?;
            let settings = settings(&folder, &conduct(&folder)?, origin.to_owned())?;
            let network = Arc::new(Local::new(node.clone(), relay.clone()));
            let genesis = genesis.clone();
            let member = blocking(move || Member::start(identity, &genesis, network, settings));
            members.push(member.await?.map_err(failed)?);
            tracing::info!(%did, "a member lives here");
        }
        let hosted = Arc::new(Hosted::new(members, Some(relay.clone())));
        Ok(House { hosted, relay })
    }

    /// Copies the store of a member into the folder `to`, if that member runs here.
    fn copy_store(&self, did: Did, to: &Path) -> Option<Result<(), DiskError>> {
        let members = self.hosted.members();
        let member = members.iter().find(|member| member.did() == did)?;
        Some(member.copy_store(to))
    }

    /// Stops all members.
    pub(crate) async fn stop(&self) {
        self.hosted.stop().await;
    }
}
