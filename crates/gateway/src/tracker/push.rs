//! Push: events for subscribers (wallet tracker, section 17.4).
//!
//! One task follows the committed blocks and hands each record to whoever asked for it. What waits for
//! a slow reader is bounded; the log waits for nobody. Events that are records carry their sequence
//! number and can be had again with `fromSeq`; notices of limits and of locks that come near follow from
//! the state, carry the newest number, and cannot.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use daybook_ledger::{
    BlockTime,
    block::Entry,
    tracker::{
        self, Address, AddressKind, Book, Cause, Code, Fact, IndexKey, KeyHash, Record, Refusal,
        Topic, reply,
    },
};
use daybook_pipeline::{FollowError, Follower, Node, Published};
use daybook_store::{Order, Store};
use daybook_wire::{
    assets::append_text,
    tracker::{SignedData, event, lagged_event},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Tracker,
    answer::Caller,
    cursor::uuid,
    keys::Signer,
    listing::{ItemSigner, Records, is_narrow, record_in, unreadable},
    reads::{Nothing, ask},
    session::{EVENTS_WAITING_MAX, Session},
};
use crate::{
    rate::Share,
    server::{Phase, reached},
};

/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 16;

/// Topics of all subscriptions together: 200 bytes each.
pub(super) const TOPICS_TOTAL_MAX: usize = 1 << 19;

/// How long before a lock its owners are told (section 17.4).
const EXPIRING_MS: u64 = 30_000;

/// How often locks are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Locks that are told of in one look: more than that many objects do not end in one second of a tracker
/// within its bounds.
const EXPIRING_MAX: usize = 1 << 16;

/// Locks that are looked at under one hold of the book, which the next block waits for.
const EXPIRING_AT_ONCE: usize = 1_024;

/// Past records of one subscription: 8 bytes each. Who has missed more than that reads the listing.
const PAST_RECORDS_MAX: usize = 1 << 20;

/// Records behind the newest from which a subscription is live while it still gets them.
const NEARLY_LIVE: u64 = 256;

/// Past records that are read and signed at a time.
const PAST_RECORDS_AT_ONCE: usize = 64;

/// How long the follower rests when the store could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// All subscriptions.
#[derive(Default)]
pub(super) struct Pushes(Mutex<Subscriptions>);

#[derive(Default)]
struct Subscriptions {
    /// The newest record that was handed out.
    sequence: u64,
    by_name: HashMap<String, Arc<Subscription>>,
    by_topic: HashMap<TopicKey, Vec<Arc<Subscription>>>,
    topics: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TopicKey {
    Address(Box<str>),
    Channel(Box<str>),
    Owner(KeyHash),
}

struct Subscription {
    name: String,
    session: Arc<Session>,
    /// Whose key its events are signed with.
    signer: Signer,
    /// Who subscribed.
    caller: KeyHash,
    /// Records of others are shown, too.
    sees_all: bool,
    topics: Vec<TopicKey>,
    /// Its part of the topics that its network may have.
    _share: Share,
    is_over: AtomicBool,
    queue: Mutex<Queue>,
}

struct Queue {
    /// Live events, as long as earlier frames are still to be sent.
    held: Option<Vec<Bytes>>,
    /// The newest record that was sent.
    last: u64,
    has_lagged: bool,
}

/// Something to tell, and to whom.
struct Due {
    to: Vec<Arc<Subscription>>,
    sequence: u64,
    what: What,
}

enum What {
    Record(tracker::Entry, usize),
    Limit(Address),
    Expiring(Lock),
}

/// An open object whose lock comes near.
#[derive(Clone)]
struct Lock {
    name: Arc<str>,
    timelock: u64,
    is_channel: bool,
    owners: Vec<KeyHash>,
    addresses: Vec<Arc<str>>,
}

impl From<Topic> for TopicKey {
    fn from(topic: Topic) -> TopicKey {
        match topic {
            Topic::Address(address) => TopicKey::Address(address.into()),
            Topic::Channel(id) => TopicKey::Channel(id.into()),
            Topic::Owner(hash) => TopicKey::Owner(hash),
        }
    }
}

/// The topics of a record.
fn topics_of(record: &Record) -> impl Iterator<Item = TopicKey> {
    let paid = match &record.fact {
        Fact::Payout(paid) => Some(&paid.address),
        _ => None,
    };
    let addresses = [Some(&record.from), Some(&record.to), paid];
    let addresses = addresses
        .into_iter()
        .flatten()
        .filter(|one| !one.is_empty());
    let channel = record.channel().map(|channel| &channel.contract.channel);
    addresses
        .map(|address| TopicKey::Address((**address).into()))
        .chain(channel.map(|id| TopicKey::Channel((**id).into())))
        .chain(record.owners().map(TopicKey::Owner))
}

impl Pushes {
    /// What a subscriber asked for; answers its caller.
    pub(super) fn subscribe(
        self: &Arc<Pushes>,
        mut caller: Caller,
        owner: KeyHash,
        topics: Vec<Topic>,
        from: Option<u64>,
    ) {
        let session = caller.session.clone();
        let tracker = session.tracker.clone();
        let mut topics: Vec<TopicKey> = topics.into_iter().map(TopicKey::from).collect();
        let mut seen = std::collections::HashSet::new();
        topics.retain(|topic| seen.insert(topic.clone()));
        let foreign = |topic: &TopicKey| matches!(topic, TopicKey::Owner(hash) if *hash != owner);
        if !tracker.public_log && topics.iter().any(foreign) {
            return caller.refuse(Code::NotOwner, "what other keys do is not shown");
        }
        let Some(share) = tracker.topics.take(session.connection.peer, topics.len()) else {
            return caller.refuse(Code::RateLimited, "too many subscriptions of this network");
        };
        let subscription = Arc::new(Subscription {
            name: uuid(),
            session: session.clone(),
            signer: caller.signer(),
            caller: owner,
            sees_all: tracker.public_log,
            topics,
            _share: share,
            is_over: AtomicBool::new(false),
            queue: Mutex::new(Queue {
                held: Some(Vec::new()),
                last: from.unwrap_or_default(),
                has_lagged: false,
            }),
        });
        let sequence = {
            let mut all = self.0.lock();
            let mut own = session.subscribed.lock();
            if own.len() >= SUBSCRIPTIONS_MAX
                || all.topics + subscription.topics.len() > TOPICS_TOTAL_MAX
            {
                drop((all, own));
                return caller.refuse(Code::RateLimited, "too many subscriptions");
            }
            own.push(subscription.name.clone());
            all.topics += subscription.topics.len();
            let name = subscription.name.clone();
            all.by_name.insert(name, subscription.clone());
            if from.is_none() {
                subscription.queue.lock().last = all.sequence;
                all.listen(&subscription);
            }
            all.sequence
        };
        let mut message = b"{\"subId\":".to_vec();
        append_text(&mut message, &subscription.name);
        message.extend_from_slice(format!(",\"seq\":{sequence},\"pk\":").as_bytes());
        append_text(&mut message, tracker.keys.pem(caller.signer()));
        message.push(b'}');
        let message = String::from_utf8(message).expect("texts and numbers are text");
        let data = tracker.keys.signed(caller.signer(), &message);
        caller.reply(&data);
        drop(caller);
        match from {
            None => {
                if !subscription.release() {
                    self.remove(&subscription.name);
                }
            }
            Some(from) => {
                let pushes = self.clone();
                tracker.runtime.spawn(async move {
                    if !pushes.catch_up(&subscription, from).await {
                        pushes.remove(&subscription.name);
                    }
                });
            }
        }
        if session.is_gone() {
            self.leave(&session);
        }
    }

    /// Ends a subscription of a connection.
    pub(super) fn unsubscribe(&self, session: &Session, name: &str) -> Result<(), Refusal> {
        let mut own = session.subscribed.lock();
        let place = own.iter().position(|other| other == name);
        let place = place.ok_or_else(|| Refusal::new(Code::NotFound, "no such subscription"))?;
        own.swap_remove(place);
        drop(own);
        self.remove(name);
        Ok(())
    }

    /// Ends all subscriptions of a connection.
    pub(super) fn leave(&self, session: &Session) {
        let names = std::mem::take(&mut *session.subscribed.lock());
        for name in names {
            self.remove(&name);
        }
    }

    fn remove(&self, name: &str) {
        let mut all = self.0.lock();
        let Some(subscription) = all.by_name.remove(name) else {
            return;
        };
        subscription.is_over.store(true, Ordering::Relaxed);
        all.topics -= subscription.topics.len();
        for topic in &subscription.topics {
            if let Some(listeners) = all.by_topic.get_mut(topic) {
                listeners.retain(|other| !Arc::ptr_eq(other, &subscription));
                if listeners.is_empty() {
                    all.by_topic.remove(topic);
                }
            }
        }
        drop(all);
        let mut own = subscription.session.subscribed.lock();
        own.retain(|other| other != name);
    }

    /// Sends what happened after the record `from`, then goes live. False when it ends before.
    async fn catch_up(&self, subscription: &Arc<Subscription>, from: u64) -> bool {
        let mut from = from;
        loop {
            let to = {
                let mut all = self.0.lock();
                if all.sequence.saturating_sub(from) <= NEARLY_LIVE {
                    all.listen(subscription);
                }
                all.sequence
            };
            let is_live = to.saturating_sub(from) <= NEARLY_LIVE;
            if !subscription.replay(from, to).await {
                return false;
            }
            from = from.max(to);
            if is_live {
                break;
            }
        }
        // Limits are no records: whoever comes back hears how they stand.
        let addresses = subscription.topics.iter().filter_map(|topic| match topic {
            TopicKey::Address(address) => Address::parse(address).ok(),
            _ => None,
        });
        let limits: Vec<Due> = addresses
            .map(|address| Due {
                to: vec![subscription.clone()],
                sequence: from,
                what: What::Limit(address),
            })
            .collect();
        let session = subscription.session.clone();
        let told = tokio::task::spawn_blocking(move || {
            tell(&session.tracker, session.store(), session.now(), &limits);
        });
        if told.await.is_err() {
            return false;
        }
        subscription.release()
    }
}

impl Subscriptions {
    /// From now on the subscription gets what happens.
    fn listen(&mut self, subscription: &Arc<Subscription>) {
        if !self.by_name.contains_key(&subscription.name) {
            // It ended meanwhile.
            return;
        }
        for topic in &subscription.topics {
            let listeners = self.by_topic.entry(topic.clone()).or_default();
            if !listeners
                .iter()
                .any(|other| Arc::ptr_eq(other, subscription))
            {
                listeners.push(subscription.clone());
            }
        }
    }

    /// Who listens to any of the topics, each once.
    fn listeners(&self, topics: impl Iterator<Item = TopicKey>) -> Vec<Arc<Subscription>> {
        let mut found: Vec<Arc<Subscription>> = Vec::new();
        for topic in topics {
            for listener in self.by_topic.get(&topic).into_iter().flatten() {
                if !found.iter().any(|other| Arc::ptr_eq(other, listener)) {
                    found.push(listener.clone());
                }
            }
        }
        found
    }
}

impl Subscription {
    fn sees(&self, mut owners: impl Iterator<Item = KeyHash>) -> bool {
        self.sees_all || owners.any(|owner| owner == self.caller)
    }

    /// Hands over a live event. When there is no room the subscription has lagged, is told so once, and
    /// gets nothing more.
    fn deliver(&self, sequence: u64, frame: Bytes) {
        let mut queue = self.queue.lock();
        if queue.has_lagged {
            return;
        }
        let has_room = match &mut queue.held {
            Some(held) => {
                let has_room = held.len() < EVENTS_WAITING_MAX;
                if has_room {
                    held.push(frame);
                }
                has_room
            }
            None => self.session.offer(&[frame]),
        };
        if has_room {
            queue.last = queue.last.max(sequence);
        } else {
            queue.has_lagged = true;
            if queue.held.is_none() {
                self.tell_lagged(queue.last);
            }
        }
    }

    /// The past is sent: live events go their way. False when there were too many of them meanwhile.
    fn release(&self) -> bool {
        let mut queue = self.queue.lock();
        // At most one queue full more than the queue holds.
        self.session.extend(queue.held.take().unwrap_or_default());
        if queue.has_lagged {
            self.tell_lagged(queue.last);
        }
        !queue.has_lagged
    }

    fn tell_lagged(&self, last: u64) {
        let mut frame = Vec::new();
        lagged_event(&mut frame, &self.name, last);
        self.session.extend([frame.into()]);
    }

    /// Sends the records after `from` and up to `to`. False when nobody reads any more, or it cannot be.
    async fn replay(self: &Arc<Subscription>, from: u64, to: u64) -> bool {
        if from >= to {
            return true;
        }
        let own = self.clone();
        let found = self.read(move || own.past(from, to)).await;
        let past = match found {
            Some(Ok(past)) => past,
            Some(Err(_)) if !self.is_over() => {
                self.tell_lagged(from);
                return false;
            }
            Some(Err(_)) | None => return false,
        };
        let past = past.chunks(PAST_RECORDS_AT_ONCE).map(<[u64]>::to_vec);
        for numbers in past {
            let (own, last) = (self.clone(), numbers.last().copied().unwrap_or(to));
            let frames = match self.read(move || own.frames(&numbers)).await {
                Some(Ok(frames)) => frames,
                Some(Err(_)) => {
                    self.tell_lagged(self.queue.lock().last);
                    return false;
                }
                None => return false,
            };
            loop {
                if self.is_over() || !self.session.has_room().await {
                    return false;
                }
                if self.session.offer(&frames) {
                    break;
                }
            }
            let mut queue = self.queue.lock();
            queue.last = queue.last.max(last);
        }
        true
    }

    /// Nobody listens any more.
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.session.is_gone()
    }

    /// Reads the disk in turn, beside listings: of all subscriptions of a connection one at a time, and of
    /// all connections of a network so many. `None` when nobody listens any more.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (session, peer) = (&self.session, self.session.connection.peer);
        let _own = session.catching_up.acquire().await.ok()?;
        let turn = loop {
            if self.is_over() {
                return None;
            }
            // It waits for as long as it takes; a listing has a client that waits, too.
            if let Some(turn) = session.tracker.turns.take(peer).await {
                break turn;
            }
        };
        let result = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        result.await.ok()
    }

    /// The numbers of records after `from` and up to `to` that it may see, oldest first.
    fn past(self: &Arc<Subscription>, from: u64, to: u64) -> Result<Vec<u64>, Refusal> {
        let until = Instant::now() + self.session.gateway.settings.list_timeout;
        let own = self.clone();
        let is_wanted = move || Instant::now() < until && !own.is_over();
        let store = self.session.store().while_wanted(is_wanted.clone());
        let mut found = Vec::new();
        for topic in &self.topics {
            let (key, mut is_too_long) = (self.index_key(topic), false);
            store
                .tracker_entries(key, Order::NewestFirst, &mut |_, entry| {
                    let records = entry.records();
                    for record in records {
                        if record.seq > from
                            && record.seq <= to
                            && topics_of(record).any(|other| other == *topic)
                            && self.sees(record.owners())
                        {
                            found.push(record.seq);
                        }
                    }
                    is_too_long = found.len() > PAST_RECORDS_MAX;
                    let is_older = records.first().is_some_and(|record| record.seq <= from);
                    !is_older && !is_too_long
                })
                .map_err(|error| unreadable(&error))?;
            // What was not looked through to its end is not the past.
            if is_too_long || !is_wanted() {
                return Err(Refusal::new(Code::Lagged, "too far behind"));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The narrowest index that has all records of a topic that it may see: a wallet is in very many that
    /// are not its own.
    fn index_key<'t>(&self, topic: &'t TopicKey) -> IndexKey<'t> {
        match topic {
            TopicKey::Address(address) if !self.sees_all && !is_narrow(address) => {
                IndexKey::Owner(self.caller.0)
            }
            TopicKey::Address(name) | TopicKey::Channel(name) => IndexKey::Object(name),
            TopicKey::Owner(hash) => IndexKey::Owner(hash.0),
        }
    }

    fn frames(&self, numbers: &[u64]) -> Result<Vec<Bytes>, Refusal> {
        let (session, tracker) = (&self.session, &self.session.tracker);
        let settings = tracker.settings(session.store())?;
        let signing = ItemSigner::new(&tracker.keys, self.signer, settings, &tracker.signatures);
        let mut records = Records::new(session.store());
        let mut frames = Vec::with_capacity(numbers.len());
        for number in numbers {
            let entry = records.entry_of(*number)?;
            let record = record_in(&entry, *number)?;
            if let Some(kind) = reply::event_kind(record) {
                let message = record_message(kind, record, &signing);
                let data = tracker.keys.signed(self.signer, &message);
                frames.push(self.frame(kind, *number, &data));
            }
        }
        Ok(frames)
    }

    fn frame(&self, kind: &str, sequence: u64, data: &SignedData) -> Bytes {
        let mut out = Vec::new();
        event(&mut out, kind, &self.name, sequence, data);
        out.into()
    }
}

/// The text of a record's event.
fn record_message(kind: &str, record: &Record, signing: &ItemSigner<'_>) -> String {
    let cause = match &record.fact {
        Fact::CloseTransfer { cause, .. } => Some(*cause),
        Fact::CloseAddress(closing) => Some(closing.cause),
        _ => None,
    };
    let cause = match cause {
        None => "",
        Some(Cause::Peers) => ",\"cause\":\"peers\"",
        Some(Cause::Expiry) => ",\"cause\":\"expiry\"",
        Some(Cause::Parked) => ",\"cause\":\"parked\"",
    };
    format!(
        "{{\"event\":\"{kind}\",\"seq\":{}{cause},\"record\":{}}}",
        record.seq,
        signing.unsigned(record)
    )
}

impl Tracker {
    /// Where the task that tells subscribers begins.
    pub(super) fn following(&self, node: &Node) -> Follower {
        let follower = node.follow(node.head().next());
        // Blocks that commit in between are followed and left out by their numbers.
        self.pushes.0.lock().sequence = node.store().tracker(|book| book.sequence());
        follower
    }
}

/// Tells subscribers what happens, until the node stops.
pub(super) async fn run(
    node: Node,
    mut follower: Follower,
    mut phase: watch::Receiver<Phase>,
    tracker: Arc<Tracker>,
) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = node.now();
    loop {
        tokio::select! {
            next = follower.next() => match next {
                Ok(published) => pass_on(&tracker, &node, &published, looked).await,
                Err(FollowError::Stopped) => return,
                Err(FollowError::Store(error)) => {
                    tracing::error!(%error, "subscribers wait: the store could not be read");
                    sleep(READ_PAUSE).await;
                }
            },
            _ = look.tick() => {
                let now = node.now();
                if now > looked {
                    remind(&tracker, &node, looked, now).await;
                    looked = now;
                }
            }
            () = reached(&mut phase, Phase::Stopping) => return,
        }
    }
}

/// Tells what a block holds.
async fn pass_on(
    tracker: &Arc<Tracker>,
    node: &Node,
    published: &Arc<Published>,
    looked: BlockTime,
) {
    let mut due = Vec::new();
    {
        let mut all = tracker.pushes.0.lock();
        let mut touched: BTreeSet<Arc<str>> = BTreeSet::new();
        for entry in &published.block.block.entries {
            let Entry::Tracker(entry) = entry else {
                continue;
            };
            for (index, record) in entry.records().iter().enumerate() {
                if record.seq <= all.sequence {
                    continue;
                }
                all.sequence = record.seq;
                tracker.spends.follow(record);
                if all.by_topic.is_empty() {
                    continue;
                }
                let mut to = all.listeners(topics_of(record));
                to.retain(|listener| listener.sees(record.owners()));
                if !to.is_empty() && reply::event_kind(record).is_some() {
                    due.push(Due {
                        to,
                        sequence: record.seq,
                        what: What::Record((**entry).clone(), index),
                    });
                }
                if record.channel().is_some() {
                    touched.extend([record.from.clone(), record.to.clone()]);
                }
                if let Some(lock) = lock_of(record).filter(|lock| is_near(lock, looked)) {
                    due.extend(lock.due(&all));
                }
            }
        }
        for address in touched {
            let to = all.listeners([TopicKey::Address((*address).into())].into_iter());
            if !to.is_empty()
                && let Ok(address) = Address::parse(&address)
            {
                due.push(Due {
                    to,
                    sequence: all.sequence,
                    what: What::Limit(address),
                });
            }
        }
    }
    tell_all(tracker, node, due).await;
}

/// Tells of locks that came within half a minute.
async fn remind(tracker: &Arc<Tracker>, node: &Node, looked: BlockTime, now: BlockTime) {
    if tracker.pushes.0.lock().by_topic.is_empty() {
        return;
    }
    let (tracker, node) = (tracker.clone(), node.clone());
    // Looking at many locks takes time that belongs to nobody's socket. A panic there is told by its own
    // log.
    let _ = tokio::task::spawn_blocking(move || {
        let later = |time: BlockTime| BlockTime(time.0.saturating_add(EXPIRING_MS));
        let (mut after, until) = (later(looked), later(now));
        let (mut told, mut at_once) = (0, EXPIRING_AT_ONCE);
        while told < EXPIRING_MAX {
            let (locks, count, place) = node.store().tracker(|book| {
                let (locking, place) = piece(book.locking(after, until, at_once), at_once);
                let count = locking.len();
                let locks = locking.into_iter();
                let locks: Vec<Lock> = locks.filter_map(|one| Lock::of(book, one, now)).collect();
                (locks, count, place)
            });
            let due: Vec<Due> = {
                let all = tracker.pushes.0.lock();
                let due = locks.into_iter().filter_map(|lock| lock.due(&all));
                due.collect()
            };
            if !due.is_empty() {
                let now = node.now().max(node.store().tip().time);
                tell(&tracker, node.store(), now, &due);
            }
            told += count;
            match place {
                Place::End => break,
                Place::Behind(lock) => (after, at_once) = (BlockTime(lock), EXPIRING_AT_ONCE),
                Place::SameAgain => at_once *= 2,
            }
        }
    })
    .await;
}

/// Where a walk over locks goes on.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// That was all.
    End,
    /// Behind this lock.
    Behind(u64),
    /// From the same place on, with more at once: that many have the same lock.
    SameAgain,
}

/// What of `locking`, of which `at_once` were asked for, can be told: more may have the last one's lock,
/// which is told with them or not at all.
fn piece(mut locking: Vec<(u64, Arc<str>)>, at_once: usize) -> (Vec<(u64, Arc<str>)>, Place) {
    let Some((last, _)) = locking.last().filter(|_| locking.len() >= at_once) else {
        return (locking, Place::End);
    };
    let last = *last;
    if at_once >= EXPIRING_MAX {
        return (locking, Place::Behind(last));
    }
    locking.retain(|(lock, _)| *lock < last);
    match locking.last() {
        Some((lock, _)) => {
            let place = Place::Behind(*lock);
            (locking, place)
        }
        None => (locking, Place::SameAgain),
    }
}

/// The lock of what a record opened.
fn lock_of(record: &Record) -> Option<Lock> {
    match &record.fact {
        Fact::OpenAddress(opening) => Some(Lock {
            name: record.to.clone(),
            timelock: opening.timelock,
            is_channel: false,
            owners: vec![opening.owner],
            addresses: Vec::new(),
        }),
        Fact::OpenTransfer(channel) => Some(Lock {
            name: channel.contract.channel.clone(),
            timelock: channel.timelock,
            is_channel: true,
            owners: vec![channel.payer, channel.payee],
            addresses: vec![record.from.clone(), record.to.clone()],
        }),
        _ => None,
    }
}

/// Whether a lock is nearer than the looks at locks would find it.
fn is_near(lock: &Lock, looked: BlockTime) -> bool {
    lock.timelock <= looked.0.saturating_add(EXPIRING_MS)
}

impl Lock {
    /// The lock of what is open under a name.
    fn of(book: &Book, (timelock, name): (u64, Arc<str>), now: BlockTime) -> Option<Lock> {
        if let Some(channel) = book.open_channel(&name, now) {
            return Some(Lock {
                timelock,
                is_channel: true,
                owners: vec![channel.payer, channel.payee],
                addresses: vec![channel.contract.from.clone(), channel.contract.to.clone()],
                name,
            });
        }
        let address = Address::parse(&name).ok()?;
        let state = book.address_state(&address, now, &Nothing).ok()?;
        Some(Lock {
            timelock,
            is_channel: false,
            owners: vec![state.owner],
            addresses: Vec::new(),
            name,
        })
    }

    /// Who is to be told. State may be asked for by any key, and so may this.
    fn due(self, all: &Subscriptions) -> Option<Due> {
        let own = if self.is_channel {
            TopicKey::Channel((*self.name).into())
        } else {
            TopicKey::Address((*self.name).into())
        };
        let addresses = self.addresses.iter();
        let topics = addresses
            .map(|address| TopicKey::Address((**address).into()))
            .chain(self.owners.iter().copied().map(TopicKey::Owner))
            .chain([own.clone()]);
        let mut to = all.listeners(topics);
        to.retain(|listener| {
            listener.topics.contains(&own) || listener.sees(self.owners.iter().copied())
        });
        (!to.is_empty()).then(|| Due {
            to,
            sequence: all.sequence,
            what: What::Expiring(self),
        })
    }
}

async fn tell_all(tracker: &Arc<Tracker>, node: &Node, due: Vec<Due>) {
    if due.is_empty() {
        return;
    }
    let (tracker, node) = (tracker.clone(), node.clone());
    // Signing takes time that belongs to nobody's socket. A panic there is told by its own log.
    let _ = tokio::task::spawn_blocking(move || {
        let now = node.now().max(node.store().tip().time);
        tell(&tracker, node.store(), now, &due);
    })
    .await;
}

/// Signs what is due, once for each of the tracker's keys that is wanted, and hands it to subscribers.
fn tell(tracker: &Tracker, store: &Store, now: BlockTime, due: &[Due]) {
    let Ok(settings) = tracker.settings(store) else {
        return;
    };
    let signing = [Signer::Rsa, Signer::Ed25519].map(|signer| {
        ItemSigner::new(&tracker.keys, signer, settings.clone(), &tracker.signatures)
    });
    let mut lagged: Vec<Arc<Subscription>> = Vec::new();
    for one in due {
        let mut signed: [Option<(&'static str, SignedData)>; 2] = [None, None];
        for subscription in &one.to {
            let signer = subscription.signer;
            let place = &mut signed[signer as usize];
            if place.is_none() {
                let pem = tracker.keys.pem(signer);
                let text = one.text(store, now, &signing[signer as usize], pem);
                *place = text.map(|(kind, text)| (kind, tracker.keys.signed(signer, &text)));
            }
            let Some((kind, data)) = place else { break };
            let frame = subscription.frame(kind, one.sequence, data);
            subscription.deliver(one.sequence, frame);
            if subscription.queue.lock().has_lagged {
                lagged.push(subscription.clone());
            }
        }
    }
    for subscription in lagged {
        // While it is still sending the past it ends by itself.
        if subscription.queue.lock().held.is_none() {
            tracker.pushes.remove(&subscription.name);
        }
    }
}

impl Due {
    /// The kind and the text of the event; `None` when there is nothing to tell any more.
    fn text(
        &self,
        store: &Store,
        now: BlockTime,
        signing: &ItemSigner<'_>,
        pem: &str,
    ) -> Option<(&'static str, String)> {
        match &self.what {
            What::Record(entry, index) => {
                let record = entry.records().get(*index)?;
                let kind = reply::event_kind(record)?;
                Some((kind, record_message(kind, record, signing)))
            }
            What::Limit(address) if address.kind() == AddressKind::Common => None,
            What::Limit(address) => {
                let state = ask(store, |book, history| {
                    book.address_state(address, now, history)
                });
                let state = reply::address_state(&state.flatten().ok()?, pem);
                let text = format!(
                    "{{\"event\":\"address.limit\",\"seq\":{},{}",
                    self.sequence,
                    state.strip_prefix('{')?
                );
                Some(("address.limit", text))
            }
            What::Expiring(lock) => {
                let (kind, member) = if lock.is_channel {
                    ("channel.expiring", "channelId")
                } else {
                    ("address.expiring", "address")
                };
                let mut text = format!("{{\"event\":\"{kind}\",\"{member}\":").into_bytes();
                append_text(&mut text, &lock.name);
                text.extend_from_slice(
                    format!(",\"timelock\":{},\"pk\":", lock.timelock).as_bytes(),
                );
                append_text(&mut text, pem);
                text.push(b'}');
                Some((kind, String::from_utf8(text).ok()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks locks as `remind` does, and says how often the book was asked.
    fn walk(locks: &[u64], mut at_once: usize) -> (Vec<u64>, usize) {
        let (mut after, mut told, mut asked) = (0, Vec::new(), 0);
        let first = at_once;
        loop {
            let locking = locks.iter().filter(|lock| **lock > after).take(at_once);
            let locking = locking.map(|lock| (*lock, Arc::from(""))).collect();
            asked += 1;
            let (told_now, place) = piece(locking, at_once);
            told.extend(told_now.iter().map(|(lock, _)| *lock));
            match place {
                Place::End => return (told, asked),
                Place::Behind(lock) => (after, at_once) = (lock, first),
                Place::SameAgain => at_once *= 2,
            }
        }
    }

    #[test]
    fn locks_are_looked_at_in_pieces_and_each_is_told_once_though_many_are_the_same() {
        for locks in [
            &[][..],
            &[1],
            &[1, 2, 3, 4, 5, 6, 7],
            &[1, 2, 2, 2, 2, 2, 3],
            &[4, 4, 4, 4, 4, 4, 4, 4],
            &[1, 1, 2, 2, 3, 3],
        ] {
            for at_once in [1, 2, 3, 100] {
                let (told, asked) = walk(locks, at_once);
                assert_eq!(told, locks, "{at_once} at once");
                assert!(asked <= 2 * locks.len() + 1);
            }
        }
    }
}
