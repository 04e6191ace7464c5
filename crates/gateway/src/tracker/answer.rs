//! From what became of a request to its reply. Runs on the verifiers' threads, where signing is in
//! place and waiting is not.

use std::{sync::Arc, time::Instant};

use daybook_ledger::{
    BlockTime, Position,
    tracker::{
        Ask, Code, Entry, Fresh, Handshake, Key, KeyHash, Payload, Proven, Query, Refusal, Request,
        command, reply,
    },
};
use daybook_pipeline::{TrackerAnswer, TrackerCaller, Wake};
use daybook_store::Store;
use daybook_wire::tracker::{Envelope, SignedData, Timings, error_reply};

use super::{
    keys::Signer,
    limits::Place,
    listing::{self, ItemSigner},
    reads::ask,
    refused::{MessageHash, single_use},
    session::{Received, Session},
};
use crate::rate::{Share, network};

/// Waits for what became of one request, and answers it exactly once.
pub(super) struct Caller {
    pub(super) session: Arc<Session>,
    command: u64,
    correlation: String,
    signer: Signer,
    bytes: usize,
    received: Received,
    /// A repetition shall have the same bytes, so nothing of this time stands in the reply.
    is_repeatable: bool,
    /// What [`reply::recorded`] needs of the request, for commands.
    request: Option<Request>,
    /// The message of a command that is used up by a refusal.
    single_use: Option<MessageHash>,
    /// Room for a spend address.
    place: Option<Place>,
    /// Its part of what its network may have under way.
    share: Option<[Share; 2]>,
    /// Nanoseconds since 1970 when the signatures were known to be sound.
    proven: u64,
    /// Its reply waits until the session is woken for several.
    is_gathered: bool,
    is_answered: bool,
}

impl Caller {
    pub(super) fn new(
        session: Arc<Session>,
        command: u64,
        correlation: String,
        signer: Signer,
        bytes: usize,
        received: Received,
    ) -> Caller {
        Caller {
            session,
            command,
            correlation,
            signer,
            bytes,
            received,
            is_repeatable: false,
            request: None,
            single_use: None,
            place: None,
            share: None,
            proven: 0,
            is_gathered: false,
            is_answered: false,
        }
    }

    /// The caller of a signed request.
    pub(super) fn of(
        session: Arc<Session>,
        request: &Request,
        bytes: usize,
        received: Received,
    ) -> Caller {
        let signer = Signer::of(request);
        let correlation = request.correlation.clone();
        let mut caller = Caller::new(
            session,
            request.command,
            correlation,
            signer,
            bytes,
            received,
        );
        caller.single_use = single_use(request);
        caller.request = Some(Request {
            command: request.command,
            correlation: String::new(),
            idempotent: request.idempotent,
            payload: Payload::Single {
                // What two keys sign names a channel.
                message: match &request.payload {
                    Payload::Single { .. } => String::new(),
                    Payload::CoSigned { message, .. } => message.clone(),
                },
                pk: String::new(),
                sign: String::new(),
            },
        });
        caller
    }

    /// Whether the peer's network may have one more request under way.
    pub(super) fn begin(&mut self) -> bool {
        let peer = self.session.connection.peer;
        let under_way = &self.session.tracker.under_way;
        self.share = under_way.begin(peer, self.command, self.bytes);
        self.share.is_some()
    }

    /// What the same message was refused with before.
    pub(super) fn refused_before(&self) -> Option<Refusal> {
        let message = self.single_use.as_ref()?;
        let session = &self.session;
        session.tracker.refused.find(message, session.now())
    }

    /// Tells why the request is refused.
    pub(super) fn tell(mut self, refusal: &Refusal) {
        self.error(refusal);
    }

    /// Hands the request to the node.
    pub(super) fn ask(self, request: Request) {
        let session = self.session.clone();
        let node = &session.gateway.node;
        let bytes = self.bytes;
        if let Err(caller) = node.ask_tracker(request, bytes, Box::new(self)) {
            // A refusal is sent at once.
            let _ = caller.answer(TrackerAnswer::Refused(if node.is_ready() {
                Refusal::new(Code::RateLimited, "the node is busy: try again")
            } else {
                Refusal::internal("the node is stopping")
            }));
        }
    }

    /// Hands the request to the node if it repeats one that was done, and refuses it otherwise: a network that
    /// has all it may have still gets the reply that was lost (section 17.5).
    pub(super) fn ask_if_done(self, mut request: Request, why: &'static str) {
        let Some((signer, correlation)) = repeatable(&request) else {
            return self.refuse(Code::RateLimited, why);
        };
        // Only what is idempotent has no second effect, whatever the envelope says.
        request.idempotent = true;
        let session = self.session.clone();
        session.tracker.runtime.clone().spawn(async move {
            let Ok(_turn) = session.tracker.lookups.acquire().await else {
                return;
            };
            // A panic there drops the caller, which answers that the outcome is unknown.
            let _ = tokio::task::spawn_blocking(move || {
                let session = self.session.clone();
                let now = session.now();
                let done = ask(session.store(), |book, history| {
                    book.has_done(&signer, &correlation, now, history)
                });
                match done {
                    Ok(true) => self.ask(request),
                    Ok(false) => self.refuse(Code::RateLimited, why),
                    Err(_) => {
                        self.refuse(Code::RateLimited, "the log could not be read: try again")
                    }
                }
            })
            .await;
        });
    }

    /// Whether the peer's network may open another address now; what to tell it if not.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), &'static str> {
        let (session, tracker) = (&self.session, &self.session.tracker);
        let peer = session.connection.peer;
        if !matches!(self.command, command::OPEN_INCOME | command::OPEN_SPEND)
            || (tracker.limits.exempt_loopback && peer.to_canonical().is_loopback())
        {
            return Ok(());
        }
        if let Some(opens) = &tracker.opens
            && opens.take(peer, 1, now).is_err()
        {
            return Err("too many addresses opened from this network: slow down");
        }
        if self.command == command::OPEN_SPEND {
            let now = session.now();
            let store = session.store();
            let is_open = |address: &str| tracker.is_open(store, address, now);
            let grant = store.tracker(|book| book.settings().map(|settings| settings.spend_grant));
            let grant = grant.unwrap_or_default();
            self.place = Some(tracker.spends.place(peer, now, grant, is_open)?);
        }
        Ok(())
    }

    /// Refuses the request.
    pub(super) fn refuse(mut self, code: Code, why: &str) {
        self.error(&Refusal::new(code, why));
    }

    /// Answers command 65536, which nobody signs: its reply is signed at most once a second, whoever
    /// asks.
    pub(super) fn capabilities(mut self) {
        let tracker = self.session.tracker.clone();
        if let Some(data) = tracker.fresh_capabilities(self.session.now()) {
            return self.reply(&data);
        }
        tracker.runtime.clone().spawn_blocking(move || {
            match tracker.capabilities(self.session.store(), self.session.now()) {
                Ok(data) => self.reply(&data),
                Err(refusal) => self.error(&refusal),
            }
        });
    }

    fn handshake(mut self, handshake: &Handshake) {
        let (now, fresh) = (self.session.now(), handshake.fresh.as_ref());
        match self.admit_fresh(&handshake.signer, fresh, now) {
            Ok(()) => {
                let tracker = self.session.tracker.clone();
                self.reply(tracker.keys.handshake(self.signer));
            }
            Err(refusal) => self.error(&refusal),
        }
    }

    fn query(mut self, query: Query) {
        let session = self.session.clone();
        let (tracker, store) = (&session.tracker, session.store());
        let now = session.now();
        let pem = tracker.keys.pem(self.signer);
        if let Err(refusal) = self.admit_fresh(&query.signer, query.fresh.as_ref(), now) {
            return self.error(&refusal);
        }
        let message = match query.ask {
            Ask::Address(address) => ask(store, |book, history| {
                book.address_state(&address, now, history)
            })
            .flatten()
            .map(|state| reply::address_state(&state, pem)),
            Ask::Channel(id) => ask(store, |book, history| book.channel_state(&id, now, history))
                .map(|state| reply::channel_state(&id, state, pem)),
            Ask::Common(address) => ask(store, |book, history| {
                book.common_state(&address, now, history)
            })
            .flatten()
            .map(|state| reply::common_state(&address, &state, pem)),
            Ask::Touch { cursor } => tracker
                .cursors
                .touch(&cursor, &query.signer.hash(), now)
                .map(|_| reply::done(pem)),
            Ask::First(wanted) => {
                return self.list(move |caller, store, is_abandoned| {
                    let (session, owner) = (&caller.session, query.signer.hash());
                    let tracker = &session.tracker;
                    let public = tracker.public_log;
                    let frozen = listing::freeze(store, &wanted, owner, public, is_abandoned)?;
                    let network = network(session.connection.peer);
                    let now = session.now();
                    let kept = tracker.cursors.keep(owner, network, frozen.clone(), now)?;
                    let signing = caller.items()?;
                    let page = wanted.page.max(1);
                    let cursor = Some(&*kept);
                    listing::page(store, &signing, &frozen, page, cursor, is_abandoned)
                });
            }
            Ask::Next { cursor, page } => {
                return self.list(move |caller, store, is_abandoned| {
                    let (session, owner) = (&caller.session, query.signer.hash());
                    let frozen = session
                        .tracker
                        .cursors
                        .touch(&cursor, &owner, session.now())?;
                    let signing = caller.items()?;
                    listing::page(store, &signing, &frozen, page, None, is_abandoned)
                });
            }
            Ask::Subscribe { topics, from } => {
                let owner = query.signer.hash();
                return session.tracker.pushes.subscribe(self, owner, topics, from);
            }
            Ask::Unsubscribe { subscription } => tracker
                .pushes
                .unsubscribe(&session, &subscription)
                .map(|()| reply::done(pem)),
        };
        self.is_gathered = true;
        self.finish(message);
    }

    /// Version 2 messages count once, reads as well.
    fn admit_fresh(
        &self,
        signer: &Key,
        fresh: Option<&Fresh>,
        now: BlockTime,
    ) -> Result<(), Refusal> {
        let Some(fresh) = fresh else { return Ok(()) };
        let hash = signer.hash();
        let store = self.session.store();
        store.tracker(|book| book.admit(&hash, fresh, now))?;
        self.session.tracker.nonces.lock().admit(&hash, fresh, now)
    }

    fn items(&self) -> Result<ItemSigner<'_>, Refusal> {
        let tracker = &self.session.tracker;
        let settings = tracker.settings(self.session.store())?;
        Ok(ItemSigner::new(
            &tracker.keys,
            self.signer,
            settings,
            &tracker.signatures,
        ))
    }

    /// Answers with what `make` reads from the disk, on a thread that may wait: one at a time of each
    /// connection, when its turn comes, and not before the client has read what it asked for earlier. What
    /// takes too long, or is wanted no more, is given up.
    fn list(
        self,
        make: impl FnOnce(&Caller, &Store, &dyn Fn() -> bool) -> Result<String, Refusal>
        + Send
        + 'static,
    ) {
        let session = self.session.clone();
        session.tracker.runtime.clone().spawn(async move {
            let Ok(_own) = session.listing.acquire().await else {
                return;
            };
            if !session.has_read().await {
                return;
            }
            let peer = session.connection.peer;
            let Some(turn) = session.tracker.turns.take(peer).await else {
                return self.refuse(Code::RateLimited, "too many listings: try again");
            };
            let until = Instant::now() + session.gateway.settings.list_timeout;
            let is_wanted = {
                let session = session.clone();
                move || Instant::now() < until && !session.is_gone()
            };
            let store = session.store().while_wanted(is_wanted.clone());
            // A panic there drops the caller, which answers that the outcome is unknown.
            let _ = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let page = make(&self, &store, &|| !is_wanted());
                if Instant::now() < until {
                    self.finish(page);
                } else {
                    self.refuse(
                        Code::RateLimited,
                        "the listing takes too long: ask for less with `fields`",
                    );
                }
            })
            .await;
        });
    }

    fn recorded(mut self, entry: &Entry, position: Option<Position>) {
        self.is_repeatable = entry.is_idempotent();
        if let (Some(place), Some(_)) = (self.place.take(), position) {
            let opened = entry
                .records()
                .iter()
                .find_map(|record| match &record.fact {
                    daybook_ledger::tracker::Fact::OpenAddress(opening) => {
                        Some((record.to.clone(), opening.timelock, opening.amount))
                    }
                    _ => None,
                });
            if let Some((address, lock, tokens)) = opened {
                place.take(address, lock, tokens);
            }
        }
        let message = match &self.request {
            Some(request) => {
                let pem = self.session.tracker.keys.pem(self.signer);
                reply::recorded(request, entry, pem)
            }
            None => Err(Refusal::internal("an answer without a request")),
        };
        self.finish(message);
    }

    /// Signs and replies, or tells the error.
    pub(super) fn finish(mut self, message: Result<String, Refusal>) {
        match message {
            Ok(message) => {
                let data = self.session.tracker.keys.signed(self.signer, &message);
                self.reply(&data);
            }
            Err(refusal) => self.error(&refusal),
        }
    }

    /// Replies.
    pub(super) fn reply(&mut self, data: &SignedData) {
        let envelope = Envelope {
            command: self.command,
            correlation: &self.correlation,
        };
        let timings = self.timings().filter(|_| !self.is_repeatable);
        let mut out = Vec::new();
        daybook_wire::tracker::reply(&mut out, envelope, data, timings);
        self.send(&out);
        self.is_answered = true;
        let took = self.received.at.elapsed();
        self.session.tracker.meters.answered(self.command, took);
    }

    fn error(&mut self, refusal: &Refusal) {
        let mut out = Vec::new();
        error_reply(
            &mut out,
            Some(self.command),
            Some(&self.correlation),
            "",
            refusal.code.as_str(),
            &refusal.detail,
            self.timings(),
        );
        self.send(&out);
        self.is_answered = true;
        self.session.tracker.meters.refused(refusal.code);
    }

    fn send(&self, reply: &[u8]) {
        if self.is_gathered {
            self.session.gather_reply(reply);
        } else {
            self.session.reply(reply);
        }
    }

    fn timings(&self) -> Option<Timings> {
        Some(Timings {
            received: self.received.nanoseconds,
            proven: self.proven,
            handled: self.received.elapsed(),
        })
    }

    /// Whom events for this client are signed as.
    pub(super) fn signer(&self) -> Signer {
        self.signer
    }
}

/// Who signed a request that may be repeated, as far as it says so, and its token.
fn repeatable(request: &Request) -> Option<(KeyHash, String)> {
    let Payload::Single { message, pk, .. } = &request.payload else {
        return None;
    };
    // Messages of version 2 are idempotent by themselves; of version 1 they are the bare key.
    if !request.idempotent && !message.trim_start().starts_with('{') {
        return None;
    }
    let key = Key::read(pk).ok()?;
    Some((key.hash(), request.correlation.clone()))
}

impl TrackerCaller for Caller {
    fn answer(self: Box<Self>, answer: TrackerAnswer) -> Option<Arc<dyn Wake>> {
        let mut caller = *self;
        let session = caller.session.clone();
        match answer {
            TrackerAnswer::Refused(refusal) => {
                if let Some(message) = caller.single_use {
                    let refused = &session.tracker.refused;
                    refused.remember(message, &refusal, session.now());
                }
                caller.error(&refusal);
                return None;
            }
            TrackerAnswer::Recorded { entry, position } => {
                caller.proven = caller.received.elapsed();
                caller.is_gathered = true;
                caller.recorded(&entry, position);
            }
            TrackerAnswer::Query(proven) => {
                caller.proven = caller.received.elapsed();
                match *proven {
                    Proven::Handshake(handshake) => caller.handshake(&handshake),
                    Proven::Query(query) => caller.query(query),
                    Proven::Command(_) => {
                        caller.error(&Refusal::internal("a command was taken for a question"));
                    }
                }
            }
        }
        Some(session)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.is_answered {
            self.is_gathered = false;
            self.error(&Refusal::internal(
                "the node is stopping: the outcome is unknown",
            ));
        }
        self.session.settle(self.bytes);
    }
}
