//! A member at work: its mirror follows the log, its endorser answers, its users are served.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use daybook_ledger::{
    PublicKey, SigningKey,
    block::Genesis,
    consortium::{Did, EndorserRules, Policy, Prover},
};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle, time};
use tokio_rustls::TlsConnector;

use crate::{
    check::Check,
    disk::{DiskError, OwnFile},
    documents::{Documents, INCOMING},
    endorser::{self, Desk},
    fetch,
    health::{self, Health},
    mirror::{MIRROR_FILE, Mirror, MirrorError},
    network::Network,
    operation::{self, Operations},
    users::Users,
};

/// Entries that are fetched and recorded at once: readers of the book wait for no more.
const ENTRIES_AT_ONCE: usize = 64;
/// How often a node that does not answer is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How long the tasks of a stopping member may take to notice.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Who a member is.
pub struct Identity {
    /// Its name.
    pub did: Did,
    /// Its key.
    pub key: SigningKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.did)
    }
}

/// What a member is set to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it keeps what it knows.
    pub folder: PathBuf,
    /// The origin that its users reach it under, without a slash at its end: it stands in the addresses
    /// of documents.
    pub origin: String,
    /// Whether `X-Forwarded-Proto` is believed, because a proxy in front sets it.
    pub trust_forwarded: bool,
    /// With whom ledgers are shared unless the request says otherwise; `None` for all members.
    pub group: Option<Vec<Did>>,
    /// How many must agree unless the request says otherwise.
    pub policy: Policy,
    /// The members that a container passes, in order (section 6.1).
    pub route: Vec<Did>,
    /// Days from the first member of the route to each, as far as they are known.
    pub travel_days: Vec<(Did, i64)>,
    /// What the endorser decides by itself.
    pub rules: EndorserRules,
    /// The program that is asked about what the rules would endorse.
    pub check: Option<Check>,
    /// Seconds that a request may give itself at most.
    pub ttl_seconds_max: u64,
    /// Seconds that a token lives.
    pub token_seconds: u64,
    /// Bytes of one document.
    pub document_bytes_max: u64,
    /// Extensions of documents that are taken, in lower case; empty for all.
    pub document_types: Vec<String>,
    /// PEM file with the certificates that other members' gateways are trusted by; `None` for the public
    /// roots.
    pub ca_file: Option<PathBuf>,
    /// The clock, in milliseconds since 1970.
    pub clock: fn() -> u64,
}

impl Settings {
    /// The usual settings for a member whose folder and origin these are.
    pub fn new(folder: PathBuf, origin: String) -> Settings {
        Settings {
            folder,
            origin,
            trust_forwarded: false,
            group: None,
            policy: Policy::Unanimous,
            route: Vec::new(),
            travel_days: Vec::new(),
            rules: EndorserRules::default(),
            check: None,
            ttl_seconds_max: 600,
            token_seconds: 60 * 60,
            // A scanned bundle of papers.
            document_bytes_max: 64 << 20,
            document_types: Vec::new(),
            ca_file: None,
            clock: system_clock,
        }
    }
}

/// The system's clock, in milliseconds since 1970.
pub fn system_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// What only the member knows.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The folder.
    #[error("{0}: {1}")]
    Folder(String, io::Error),
    /// The certificates to trust.
    #[error("certificates to trust: {0}")]
    Trust(io::Error),
}

/// Why a member that was at work follows the log no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Its mirror cannot go on.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The network knows it by a newer key, and takes nothing that it signs.
    #[error(
        "its key was replaced by {0}: start it again with the new one, which `daybook member rotate` puts in its \
         place"
    )]
    KeyReplaced(PublicKey),
}

/// What all tasks of a member share.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) mirror: Mirror,
    pub(crate) own: Arc<OwnFile>,
    pub(crate) users: Users,
    pub(crate) documents: Documents,
    pub(crate) operations: Operations,
    pub(crate) desk: Desk,
    pub(crate) health: Health,
    pub(crate) trust: TlsConnector,
    prover: Prover,
    /// Counts what changed of what users read.
    news: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    ended: watch::Sender<Option<Ended>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.me())
    }
}

impl Shared {
    pub(crate) fn me(&self) -> Did {
        self.identity.did
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.settings.clock)()
    }

    pub(crate) fn prover(&self) -> Prover {
        self.prover.clone()
    }

    /// Tells whoever waits that something changed of what users read.
    pub(crate) fn tell(&self) {
        self.news
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Why the member no longer follows the log, if it does not.
    pub(crate) fn broken(&self) -> Option<String> {
        self.ended.borrow().as_ref().map(Ended::to_string)
    }

    /// With whom ledgers are shared unless a request says otherwise.
    pub(crate) fn group(&self) -> Vec<Did> {
        match &self.settings.group {
            Some(group) => group.clone(),
            None => {
                let book = self.mirror.book();
                let active = book.members().filter(|member| member.active);
                active.map(|member| member.card.did()).collect()
            }
        }
    }

    /// The `uid` that an address names, if it is an address of this member's documents.
    pub(crate) fn own_uid(&self, url: &str) -> Option<String> {
        let path = url.strip_prefix(self.settings.origin.as_str())?;
        let uid = path.strip_prefix("/content/")?;
        Some(uid.trim_end_matches('/').to_owned())
    }
}

/// A member that runs.
pub struct Member {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The file of what only the member knows.
const OWN_FILE: &str = "member.redb";

/// What is not copied out of a member's folder file by file: its store, which [`copy_store`] copies, the
/// mirror, which the log makes anew, and what is still being received.
pub const LEFT_OUT: [&str; 3] = [OWN_FILE, MIRROR_FILE, INCOMING];

/// Copies the store of a member that is not running; see [`Member::copy_store`].
///
/// # Errors
/// When it cannot be read or somebody uses it, or the copy cannot be written.
pub fn copy_store(folder: &Path, to: &Path) -> Result<(), DiskError> {
    let store = folder.join(OWN_FILE);
    if !store.exists() {
        return Ok(());
    }
    OwnFile::open(&store)?.copy(&to.join(OWN_FILE))
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({})", self.shared.me())
    }
}

impl Member {
    /// Opens a member's folder and begins to follow the network whose genesis this is. Must be called in
    /// a tokio runtime; opening blocks on the disk.
    ///
    /// # Errors
    /// When the folder cannot be used, or belongs to another network.
    pub fn start(
        identity: Identity,
        genesis: &Genesis,
        network: Arc<dyn Network>,
        settings: Settings,
    ) -> Result<Member, MemberError> {
        let folder = |error| MemberError::Folder(settings.folder.display().to_string(), error);
        fs::create_dir_all(&settings.folder).map_err(folder)?;
        let trust = fetch::trust(settings.ca_file.as_deref()).map_err(MemberError::Trust)?;
        let prover = Prover::new(genesis);
        let mirror = Mirror::open(&settings.folder, identity.did, prover.clone())?;
        let own = Arc::new(OwnFile::open(&settings.folder.join(OWN_FILE))?);
        let users = Users::new(
            users_file(&settings.folder),
            own.clone(),
            settings.token_seconds.saturating_mul(1_000),
        );
        let documents = Documents::open(
            settings.folder.join("documents"),
            own.clone(),
            settings.document_bytes_max,
            settings.document_types.clone(),
        )
        .map_err(folder)?;
        let shared = Arc::new(Shared {
            identity,
            network,
            mirror,
            own,
            users,
            documents,
            operations: Operations::default(),
            desk: Desk::default(),
            health: Health::default(),
            trust,
            prover,
            news: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            ended: watch::Sender::new(None),
            settings,
        });
        let tasks = vec![
            tokio::spawn(follow(shared.clone())),
            tokio::spawn(endorser::run(shared.clone())),
            tokio::spawn(health::listen(shared.clone())),
        ];
        operation::resume_all(&shared)?;
        Ok(Member {
            shared,
            tasks: Mutex::new(tasks),
        })
    }

    /// Its name.
    pub fn did(&self) -> Did {
        self.shared.me()
    }

    /// Copies its store into the folder `to`, as it is at this moment. The other files of its folder are
    /// copied as files, after this, but for those in [`LEFT_OUT`]: what the store names is there by then.
    ///
    /// # Errors
    /// When it cannot be read, or the copy cannot be written.
    pub fn copy_store(&self, to: &Path) -> Result<(), DiskError> {
        self.shared.own.copy(&to.join(OWN_FILE))
    }

    /// Counts what changed of what its users read: entries, outcomes, notices, questions to a person.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    /// Waits until it can no longer follow the log, and tells why.
    pub async fn failed(&self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        loop {
            if let Some(why) = ended.borrow_and_update().clone() {
                return why;
            }
            if ended.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops in good order: what is under way is taken up at the next start.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for mut task in tasks {
            if time::timeout(STOP_WITHIN, &mut task).await.is_err() {
                task.abort();
            }
        }
        let shared = self.shared.clone();
        if let Err(error) = blocking(move || shared.mirror.close()).await {
            tracing::error!(%error, "the mirror is read again at the next start");
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The file of a member's users in its folder.
pub fn users_file(folder: &Path) -> PathBuf {
    folder.join("users.json")
}

/// Feeds the mirror.
async fn follow(shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    tokio::select! {
        () = feed(&shared) => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn feed(shared: &Arc<Shared>) {
    let mut pause = RETRY_FIRST;
    loop {
        let after = shared.mirror.last();
        let entries = match shared.network.entries(after, ENTRIES_AT_ONCE).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "the log is asked for again");
                time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
                continue;
            }
        };
        pause = RETRY_FIRST;
        if entries.is_empty() {
            shared.network.grown(after).await;
            continue;
        }
        let applied = {
            let shared = shared.clone();
            blocking(move || {
                let applied = shared.mirror.apply(&entries);
                for logged in &entries {
                    shared.health.heard_in_log(&logged.entry);
                }
                applied
            })
            .await
        };
        shared.tell();
        let ended = match applied {
            Err(error) => Some(Ended::Mirror(error)),
            Ok(()) => replaced(shared).map(Ended::KeyReplaced),
        };
        if let Some(ended) = ended {
            tracing::error!(why = %ended, member = %shared.me(), "the member follows no longer");
            shared.ended.send_replace(Some(ended));
            return;
        }
    }
}

/// The key that the network knows a member by, if it is newer than the member's own: nothing that it signs is
/// taken. An older key than the member's is none: who reads the log anew comes to it.
fn replaced(shared: &Shared) -> Option<PublicKey> {
    let mine = shared.identity.key.public_key();
    let book = shared.mirror.book();
    let member = book.member(shared.me())?;
    let present = member.card.verkey();
    (present != mine && member.keys.contains(&mine)).then_some(present)
}

/// Runs something that blocks, away from the sockets.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Waits until a member is told to stop, or is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
