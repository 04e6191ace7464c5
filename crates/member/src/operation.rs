//! Operations: what a user asked for, on its way through the stages of agreement. An operation runs to
//! its own end whether or not anybody listens, is remembered under the client's `@id`, and is taken up
//! again after a crash (section 2.7).

use std::{
    collections::{HashMap, hash_map::Entry as Claim},
    sync::Arc,
    time::Duration,
};

use daybook_ledger::{
    BlockTime, TransactionId,
    consortium::{
        Action, Batch, Body, DEPTH_MAX, Did, ENTRY_SIGNATURE, Effect, Entry, Outcome, Policy,
        Progress, ProposalStatus, Propose, Request, sign_entry,
    },
    json::{Object, Value},
};
use parking_lot::Mutex;
use tokio::{sync::watch, time};

use crate::{
    disk::{DiskError, PlanKind},
    json::{count, member, object, own, text, text_or_null, write},
    member::{Shared, blocking, stopped},
    message::{self, Fault, Message, PROCESSING_ERROR, REQUEST_ERROR, Wanted, problem, progress},
    network::NotTaken,
    notice, relay,
};

/// How long after its deadline the outcome of an operation may take to arrive before the client is told
/// that it is not known yet, in milliseconds: a block, its way here, and a slow disk.
const GRACE_MS: u64 = 1_500;
/// How often a node that does not answer is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Operations under way at once: each holds its request in memory.
const RUNNING_MAX: usize = 1_024;

/// What an operation may be, as it is remembered.
const KINDS: [&str; 4] = [CREATE, ISSUE, PlanKind::Gu11.name(), PlanKind::Gu12.name()];
const CREATE: &str = "create";
const ISSUE: &str = "issue";

/// An operation that somebody may watch.
#[derive(Debug)]
pub(crate) struct Operation {
    id: String,
    /// Of the message that it was begun with.
    digest: String,
    events: Mutex<Vec<Happened>>,
    count: watch::Sender<usize>,
}

/// Something that happened to an operation.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) event: Value,
    /// Whether nothing follows for whoever listens.
    pub(crate) last: bool,
    /// Whether it is only true until the outcome is known.
    provisional: bool,
}

/// Operations under way.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<HashMap<String, Arc<Operation>>>);

/// What is remembered of an operation.
#[derive(Clone, Debug)]
struct Kept {
    id: String,
    kind: &'static str,
    digest: String,
    /// `ledger` of the final event.
    ledger: Value,
    request: String,
    deadline: u64,
}

impl Operation {
    fn new(id: &str, digest: &str) -> Arc<Operation> {
        Arc::new(Operation {
            id: id.to_owned(),
            digest: digest.to_owned(),
            events: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn tell(&self, event: Value, last: bool, provisional: bool) {
        let mut events = self.events.lock();
        events.push(Happened {
            event,
            last,
            provisional,
        });
        self.count.send_replace(events.len());
    }

    fn say(&self, value: Option<u64>, words: &str) {
        self.tell(progress(value, words), false, false);
    }

    fn finish(&self, report: Value) {
        self.tell(report, true, false);
    }

    /// The event number `at`, as soon as there is one, and the number of the next.
    pub(crate) async fn event(&self, at: usize) -> (Happened, usize) {
        let mut count = self.count.subscribe();
        let mut at = at;
        loop {
            {
                let events = self.events.lock();
                while let Some(happened) = events.get(at) {
                    at += 1;
                    // What was only true for a time is no news once something follows.
                    if !happened.provisional || at == events.len() {
                        return (happened.clone(), at);
                    }
                }
            }
            // The sender lives as long as this operation.
            let _ = count.wait_for(|count| *count > at).await;
        }
    }

    /// Everything so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.events.lock();
        events
            .iter()
            .map(|happened| happened.event.clone())
            .collect()
    }
}

impl Operations {
    pub(crate) fn running(&self, id: &str) -> Option<Arc<Operation>> {
        self.0.lock().get(id).cloned()
    }

    /// Makes room for an operation under a name that nothing under way has.
    ///
    /// # Errors
    /// What has it.
    fn claim(&self, operation: &Arc<Operation>) -> Result<(), Arc<Operation>> {
        match self.0.lock().entry(operation.id.clone()) {
            Claim::Occupied(first) => Err(first.get().clone()),
            Claim::Vacant(free) => {
                free.insert(operation.clone());
                Ok(())
            }
        }
    }

    /// Gives the name of an operation free again.
    fn release(&self, operation: &Operation) {
        self.0.lock().remove(&operation.id);
    }
}

impl Kept {
    /// Whether members are asked about it, as they are not about plan documents.
    fn is_proposed(&self) -> bool {
        matches!(self.kind, CREATE | ISSUE)
    }

    fn text(&self, report: Option<&Value>) -> String {
        write(&object([
            ("@id", self.id.as_str().into()),
            ("kind", self.kind.into()),
            ("digest", self.digest.as_str().into()),
            ("ledger", self.ledger.clone()),
            ("request", self.request.as_str().into()),
            ("deadline", self.deadline.into()),
            ("report", report.cloned().unwrap_or(Value::Null)),
        ]))
    }

    fn read(text_: &str) -> Option<(Kept, Option<Value>)> {
        let value = own(text_);
        let kept = Kept {
            id: text(&value, "@id").to_owned(),
            kind: KINDS
                .into_iter()
                .find(|kind| *kind == text(&value, "kind"))?,
            digest: text(&value, "digest").to_owned(),
            ledger: member(&value, "ledger")?.clone(),
            request: text(&value, "request").to_owned(),
            deadline: count(&value, "deadline"),
        };
        let report = member(&value, "report").filter(|report| !report.is_null());
        Some((kept, report.cloned()))
    }
}

/// Whether a report tells of a success.
pub(crate) fn is_success(report: &Value) -> bool {
    member(report, "done").is_some()
}

/// Begins what a message asks for, or finds the operation that it repeats.
///
/// Its name is claimed before anything is looked up, and is free again only once what is remembered of it is
/// on disk: whoever comes with the same name finds either the one or the other, and nothing is begun twice.
///
/// # Errors
/// Why it is not begun.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    message: Message,
    by: &str,
) -> Result<Arc<Operation>, Fault> {
    let operation = Operation::new(&message.id, &message.digest);
    if let Err(first) = shared.operations.claim(&operation) {
        // Two sockets with one `@id` at the same moment are one operation.
        return match first.digest == message.digest {
            true => Ok(first),
            false => Err(used_for_something_else(&message.id)),
        };
    }
    // A client that leaves meanwhile must not leave its claim behind.
    let starting = tokio::spawn({
        let (shared, by) = (shared.clone(), by.to_owned());
        async move {
            let begun = start(&shared, &operation, message, &by).await;
            if let Err(fault) = &begun {
                shared.operations.release(&operation);
                // Whoever asked for the same meanwhile watches this one.
                operation.finish(problem(fault.code, &fault.explain, "request", &[]));
            }
            begun.map(|()| operation)
        }
    });
    match starting.await {
        Ok(begun) => begun,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn used_for_something_else(id: &str) -> Fault {
    Fault {
        code: REQUEST_ERROR,
        explain: "this \"@id\" was used for something else: give every request its own".to_owned(),
        thread: Some(id.to_owned()),
    }
}

/// Starts an operation whose name is claimed, unless the name is known from before.
async fn start(
    shared: &Arc<Shared>,
    operation: &Arc<Operation>,
    message: Message,
    by: &str,
) -> Result<(), Fault> {
    let fault = |explain: String| Fault {
        code: REQUEST_ERROR,
        explain,
        thread: Some(operation.id.clone()),
    };
    let broken = |error: DiskError| {
        tracing::error!(%error, "an operation could not be begun");
        Fault {
            code: PROCESSING_ERROR,
            explain: "the member's store cannot be used".to_owned(),
            thread: Some(operation.id.clone()),
        }
    };
    let known = {
        let (shared, id) = (shared.clone(), message.id.clone());
        blocking(move || shared.own.operation(&id)).await
    };
    if let Some((kept, report)) = known.map_err(broken)?.as_deref().and_then(Kept::read) {
        if kept.digest != message.digest {
            return Err(used_for_something_else(&message.id));
        }
        match report {
            Some(report) => {
                // The only event of a plan document is its last.
                if kept.is_proposed() {
                    operation.say(Some(0), "this request was made before");
                    operation.say(Some(100), "its outcome is known");
                }
                shared.operations.release(operation);
                operation.finish(report);
            }
            // It is resumed at a start; between the two there is nothing to watch.
            None => go_on(shared, operation, kept),
        }
        return Ok(());
    }
    if shared.operations.0.lock().len() > RUNNING_MAX {
        return Err(fault(
            "too many operations are under way: try again later".to_owned(),
        ));
    }
    if let Wanted::Plan {
        kind,
        message: plan,
    } = message.wanted
    {
        let report = send_plan(shared, operation, kind, plan).await;
        shared.operations.release(operation);
        operation.finish(report);
        shared.tell();
        return Ok(());
    }
    let prepared = {
        let (shared, by) = (shared.clone(), by.to_owned());
        blocking(move || prepare(&shared, message, &by)).await
    };
    let kept = prepared.map_err(broken)?.map_err(fault)?;
    let recorded = {
        let (shared, kept) = (shared.clone(), kept.clone());
        blocking(move || shared.own.put_operation(&kept.id, &kept.text(None))).await
    };
    recorded.map_err(broken)?;
    operation.say(Some(0), "the request is sound");
    tokio::spawn(run(shared.clone(), operation.clone(), kept));
    Ok(())
}

/// Signs what is to be proposed. Blocks on the disk.
fn prepare(shared: &Shared, message: Message, by: &str) -> Result<Result<Kept, String>, DiskError> {
    let (me, key) = (shared.me(), &shared.identity.key);
    let now = shared.now_ms();
    let seconds = now / 1_000;
    let deadline = now
        .max(shared.mirror.time().0)
        .saturating_add(message.ttl_ms);
    let sign = |mut entry: Object| -> Result<Result<Object, String>, DiskError> {
        // A client's own signature covers the entry as it is; nothing may be added to it.
        let complete = entry.get(ENTRY_SIGNATURE).is_none();
        let is_own = |url: &str| shared.own_uid(url);
        if let Err(wrong) = shared.documents.check(&mut entry, &is_own, complete)? {
            return Ok(Err(wrong));
        }
        let signed = sign_entry(entry, seconds, key, DEPTH_MAX);
        Ok(signed.map_err(|error| format!("\"{ENTRY_SIGNATURE}\": {error}")))
    };
    let (kind, ledger, action) = match message.wanted {
        Wanted::Create {
            ledger,
            entries,
            group,
            policy,
        } => {
            let mut signed = Vec::new();
            for (place, entry) in (1..).zip(entries) {
                match sign(entry)? {
                    Ok(entry) => signed.push(entry),
                    Err(wrong) => return Ok(Err(format!("genesis entry {place}: {wrong}"))),
                }
            }
            let action = Action::Create {
                ledgers: vec![ledger.clone()],
                participants: group.unwrap_or_else(|| shared.group()),
                policy: policy.unwrap_or(shared.settings.policy),
                batch: Batch::new(&signed),
            };
            let ledger = object([("name", ledger.into())]);
            (CREATE, ledger, action)
        }
        Wanted::Issue {
            ledgers,
            name,
            entry,
        } => {
            let signed = match sign(entry)? {
                Ok(signed) => signed,
                Err(wrong) => return Ok(Err(wrong)),
            };
            let action = Action::Append {
                ledgers,
                batch: Batch::new(&[signed]),
            };
            (ISSUE, object([("name", name)]), action)
        }
        Wanted::Plan { .. } => return Ok(Err("a plan document is not proposed".to_owned())),
    };
    let body = Body::Propose(Propose {
        member: me,
        request: message.id.clone(),
        deadline: BlockTime(deadline),
        action,
    });
    let request = Request::sign(shared.mirror.network(), &body, key);
    tracing::info!(member = %me, user = by, id = message.id, kind, "a user proposes");
    Ok(Ok(Kept {
        id: message.id,
        kind,
        digest: message.digest,
        ledger,
        request: String::from_utf8_lossy(&request.text).into_owned(),
        deadline,
    }))
}

/// Takes up what was under way when the member stopped. Blocks on the disk.
pub(crate) fn resume_all(shared: &Arc<Shared>) -> Result<(), DiskError> {
    let open = shared
        .own
        .operations(|text| member(&own(text), "report").is_none_or(Value::is_null))?;
    for (kept, _) in open.iter().filter_map(|text| Kept::read(text)) {
        tracing::info!(id = kept.id, "taking up an operation");
        let operation = Operation::new(&kept.id, &kept.digest);
        if shared.operations.claim(&operation).is_ok() {
            go_on(shared, &operation, kept);
        }
    }
    Ok(())
}

/// Goes on with an operation whose name is claimed.
fn go_on(shared: &Arc<Shared>, operation: &Arc<Operation>, kept: Kept) {
    operation.say(Some(0), "the request was made before and is taken up again");
    tokio::spawn(run(shared.clone(), operation.clone(), kept));
}

/// Hands a proposal in, tells how it goes, and remembers how it ended.
async fn run(shared: Arc<Shared>, operation: Arc<Operation>, kept: Kept) {
    let mut stopping = shared.stopping();
    let report = tokio::select! {
        report = proposed(&shared, &operation, &kept) => report,
        // It is taken up at the next start.
        () = stopped(&mut stopping) => return,
    };
    let recorded = {
        let (shared, kept, report) = (shared.clone(), kept.clone(), report.clone());
        blocking(move || {
            shared
                .own
                .put_operation(&kept.id, &kept.text(Some(&report)))
        })
        .await
    };
    if let Err(error) = recorded {
        // The next start finds it out again.
        tracing::error!(%error, "an outcome could not be remembered");
    }
    operation.finish(report);
    shared.operations.release(&operation);
    shared.tell();
}

async fn proposed(shared: &Arc<Shared>, operation: &Arc<Operation>, kept: &Kept) -> Value {
    operation.say(Some(20), "signed; proposing it to the network");
    let request = Request {
        text: kept.request.clone().into(),
    };
    let mut pause = RETRY_FIRST;
    let mut told = false;
    let committed = loop {
        match shared.network.submit(request.clone()).await {
            Ok(committed) => break committed,
            Err(NotTaken::Refused { code, detail }) => {
                tracing::info!(id = kept.id, code, "a proposal was refused");
                return failed(operation, &detail, "proposing", &[]);
            }
            Err(NotTaken::Unavailable(error)) => {
                tracing::warn!(%error, id = kept.id, "the node is asked again");
                if !told && shared.now_ms() > kept.deadline.saturating_add(GRACE_MS) {
                    told = true;
                    not_known(operation, "proposing", "the node does not answer", &[]);
                }
            }
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    };
    let proposal = committed.entry.id();
    operation.say(
        Some(30),
        &format!("proposed, in block {}", committed.position.height),
    );
    let mut applied = shared.mirror.applied();
    let mut seen = Seen::default();
    loop {
        applied.borrow_and_update();
        let looked = {
            let (shared, operation, kept) = (shared.clone(), operation.clone(), kept.clone());
            blocking(move || {
                let report = look(&shared, &operation, &kept, proposal, &mut seen);
                (report, seen)
            })
            .await
        };
        seen = match looked {
            (Some(report), _) => return report,
            (None, seen) => seen,
        };
        let over = kept.deadline.saturating_add(GRACE_MS);
        let left = over.saturating_sub(shared.now_ms());
        let changed = time::timeout(Duration::from_millis(left.max(1)), applied.changed());
        if changed.await.is_err() {
            if !told {
                told = true;
                let progress = shared.mirror.book().progress(&proposal);
                let missing = progress.map_or(Vec::new(), |progress| progress.missing);
                let words = "the deadline has passed and the node has told no outcome";
                not_known(operation, "endorsing", words, &missing);
            }
            // Nothing but the log ends it now.
            if applied.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Tells how far a proposal has come; gives the report once it is decided. Blocks on the disk.
fn look(
    shared: &Shared,
    operation: &Operation,
    kept: &Kept,
    proposal: TransactionId,
    seen: &mut Seen,
) -> Option<Value> {
    match shared.mirror.outcome(&proposal)? {
        Outcome::Decided(entry) => Some(decided(shared, operation, kept, proposal, &entry, seen)),
        Outcome::Pending(progress) => {
            tell(shared, operation, &progress, seen);
            None
        }
    }
}

/// What was told about a proposal.
#[derive(Debug, Default)]
struct Seen {
    behind: Option<usize>,
    open: bool,
    said: Vec<Did>,
    endorsed: usize,
    needed: usize,
}

fn tell(shared: &Shared, operation: &Operation, progress: &Progress, seen: &mut Seen) {
    match &progress.status {
        ProposalStatus::Waiting { behind } => {
            if seen.behind != Some(*behind) {
                seen.behind = Some(*behind);
                operation.say(None, &format!("it waits for {behind} proposals before it"));
            }
            return;
        }
        ProposalStatus::Open { seats, .. } => {
            seen.needed = seats.iter().map(|seat| seat.needed).max().unwrap_or(0);
            if !seen.open {
                seen.open = true;
                let asked = progress.missing.len();
                operation.say(Some(40), &format!("{asked} members are asked"));
            }
        }
    }
    endorsements(shared, operation, &progress.endorsed, seen);
    for did in &progress.refused {
        if !seen.said.contains(did) {
            seen.said.push(*did);
            let reason = reason(shared, progress.entry.id(), *did);
            let label = shared.mirror.label(*did);
            operation.say(None, &format!("{label} ({did}) refused: {reason}"));
        }
    }
}

fn endorsements(shared: &Shared, operation: &Operation, endorsed: &[Did], seen: &mut Seen) {
    let needed = seen.needed.max(1);
    for did in endorsed {
        if seen.said.contains(did) {
            continue;
        }
        seen.said.push(*did);
        seen.endorsed += 1;
        let so_far = seen.endorsed.min(needed);
        let label = shared.mirror.label(*did);
        let value = 40 + 50 * so_far as u64 / needed as u64;
        let words = format!("endorsed by {label} ({did}): {} of {needed}", seen.endorsed);
        operation.say(Some(value), &words);
    }
}

fn reason(shared: &Shared, proposal: TransactionId, did: Did) -> String {
    let vote = shared.mirror.vote(proposal, did);
    match vote
        .as_ref()
        .and_then(Entry::command)
        .map(|command| command.body())
    {
        Some(Body::Refuse { reason, .. }) => reason.clone(),
        _ => "no reason was given".to_owned(),
    }
}

fn decided(
    shared: &Shared,
    operation: &Operation,
    kept: &Kept,
    proposal: TransactionId,
    entry: &Entry,
    seen: &mut Seen,
) -> Value {
    let names = |dids: &[Did]| {
        let named = dids
            .iter()
            .map(|did| format!("{} ({did})", shared.mirror.label(*did)));
        named.collect::<Vec<_>>().join(", ")
    };
    match entry.outcome_of(&proposal) {
        Some(Effect::Committed {
            endorsers, states, ..
        }) => {
            seen.needed = seen.needed.max(match seen.open {
                true => 0,
                false => endorsers.len(),
            });
            endorsements(shared, operation, endorsers, seen);
            operation.say(Some(100), "committed");
            let mut ledger = kept.ledger.as_object().cloned().unwrap_or_default();
            if kept.kind == CREATE
                && let Some(state) = states.first()
                && let Ok(Some(id)) = shared.mirror.ledger_named(&state.name)
            {
                ledger.insert("id", id.into());
            }
            message::done(Value::Object(ledger))
        }
        Some(Effect::Expired {
            was_open: true,
            missing,
            ..
        }) => {
            let explain = match missing.as_slice() {
                [] => "the proposal expired: too few members agreed".to_owned(),
                missing => format!(
                    "the proposal expired: {} did not answer in time",
                    names(missing)
                ),
            };
            failed(operation, &explain, "endorsing", missing)
        }
        Some(Effect::Expired { .. }) => {
            let explain = "the proposal expired before its turn came: others for the same ledger took too long";
            failed(operation, explain, "waiting", &[])
        }
        Some(Effect::Refused { by, .. }) => {
            let reasons = by.iter().map(|did| {
                let label = shared.mirror.label(*did);
                format!("{label} ({did}): {}", reason(shared, proposal, *did))
            });
            let reasons: Vec<String> = reasons.collect();
            let explain = format!("the proposal was refused by {}", reasons.join("; "));
            failed(operation, &explain, "endorsing", by)
        }
        Some(Effect::Withdrawn { .. }) => {
            failed(operation, "the proposal was withdrawn", "endorsing", &[])
        }
        Some(Effect::Dropped { detail, .. }) => failed(operation, detail, "waiting", &[]),
        _ => failed(operation, "the outcome is unknown", "endorsing", &[]),
    }
}

/// Tells of a failure as the original does: a message, then 100, then the report.
fn failed(operation: &Operation, explain: &str, stage: &str, participants: &[Did]) -> Value {
    if stage != "proposing" {
        operation.say(None, "nothing was committed");
        operation.say(Some(100), "the operation is over");
    }
    problem(PROCESSING_ERROR, explain, stage, participants)
}

fn not_known(operation: &Operation, stage: &str, words: &str, missing: &[Did]) {
    let explain = format!(
        "{words}: the outcome is not known yet; send the same request again, or ask for /operations/{}/",
        operation.id
    );
    let report = problem(PROCESSING_ERROR, &explain, stage, missing);
    operation.tell(report, true, true);
}

/// Sends a plan document to all members and keeps it (section 2.5); gives its only event. One that was not
/// sent is not remembered: the same may be tried again.
async fn send_plan(
    shared: &Arc<Shared>,
    operation: &Operation,
    kind: PlanKind,
    plan: Object,
) -> Value {
    let id = operation.id.clone();
    let name = format!("{}/{}/{id}", shared.me(), kind.name());
    let text = write(&Value::Object(message::listed_plan(kind, &plan)));
    let first = {
        let (shared, name) = (shared.clone(), name.clone());
        blocking(move || shared.own.plan_named(kind, &name)).await
    };
    // An earlier version remembered the document and not the request.
    if first.is_ok_and(|first| first.is_some_and(|first| first != text)) {
        return problem(
            REQUEST_ERROR,
            &used_for_something_else(&id).explain,
            "request",
            &[],
        );
    }
    let members = [
        ("id", Value::from(id.as_str())),
        ("message", Value::Object(plan)),
    ];
    let signed = notice::sign(
        shared.mirror.network(),
        shared.me(),
        kind.name(),
        members,
        shared.now_ms() / 1_000,
        &shared.identity.key,
    );
    match shared.network.post(signed).await {
        Ok(()) => {}
        // The relay knows of a document that this member's store does not know any more.
        Err(NotTaken::Refused { code, .. }) if code == relay::ID_REUSED => {
            return problem(
                REQUEST_ERROR,
                &used_for_something_else(&id).explain,
                "sending",
                &[],
            );
        }
        Err(error) => return problem(PROCESSING_ERROR, &error.to_string(), "sending", &[]),
    }
    let report = message::plan_done("sent to all members");
    let kept = Kept {
        kind: kind.name(),
        digest: operation.digest.clone(),
        ledger: Value::Null,
        request: String::new(),
        deadline: 0,
        id,
    };
    let kept = {
        let (shared, report) = (shared.clone(), report.clone());
        blocking(move || {
            shared.own.add_plan(kind, &name, &text)?;
            shared
                .own
                .put_operation(&kept.id, &kept.text(Some(&report)))
        })
        .await
    };
    match kept {
        Ok(()) => report,
        Err(error) => {
            // It comes back over the relay.
            tracing::error!(%error, "a plan document could not be kept");
            let explain = "it was sent and could not be kept here";
            problem(PROCESSING_ERROR, explain, "keeping", &[])
        }
    }
}

/// What is known of an operation (section 2.7).
pub(crate) fn describe(shared: &Shared, id: &str) -> Result<Option<Value>, DiskError> {
    let running = shared.operations.running(id);
    let kept = shared.own.operation(id)?;
    let Some((kept, report)) = kept.as_deref().and_then(Kept::read) else {
        return Ok(None);
    };
    let status = match &report {
        None => "running",
        Some(report) if is_success(report) => "done",
        Some(_) => "failed",
    };
    let proposal = shared.mirror.proposed(shared.me(), &kept.id);
    let proposal = proposal.map(|entry| entry.id().to_string());
    let events = running.map(|running| running.events()).unwrap_or_default();
    Ok(Some(object([
        ("@id", kept.id.into()),
        ("kind", kept.kind.into()),
        ("status", status.into()),
        ("ledger", kept.ledger),
        ("proposal", text_or_null(proposal.as_deref())),
        ("deadline", kept.deadline.into()),
        ("report", report.unwrap_or(Value::Null)),
        ("events", Value::Array(events)),
    ])))
}

/// The policy of settings, as it is written.
pub fn read_policy(text: &str) -> Option<Policy> {
    match text {
        "unanimous" => Some(Policy::Unanimous),
        count => count.parse().ok().map(Policy::AtLeast),
    }
}
