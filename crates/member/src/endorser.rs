//! The endorser: answers, in the member's name, what the network asks.
//!
//! It works every question out again on the member's own copy of the book. What it decides is on disk
//! before it is signed, so that after any crash it says the same again and never the opposite.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use daybook_ledger::{
    BlockTime, TransactionId,
    consortium::{Action, Asked, Endorser, Entry, Verdict},
    json::Value,
};
use parking_lot::Mutex;
use tokio::time;

use crate::{
    check::Said,
    disk::DiskError,
    json::{object, own, own_object, text, write},
    member::{Shared, blocking, stopped},
    network::NotTaken,
};

/// How often a node that does not answer, or a check that gave no answer, is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Checks that run at once.
const CHECKS_MAX: usize = 4;

/// Why nothing is signed about a proposal of which another outcome was endorsed.
pub(crate) const OTHER_OUTCOME: &str = "this member endorsed another outcome of this proposal before and signs no second one: the node's log is \
     not what it was";

/// What waits for a person, by proposal.
#[derive(Debug)]
pub(crate) struct Desk {
    waiting: Mutex<BTreeMap<TransactionId, Waiting>>,
    checks: tokio::sync::Semaphore,
}

#[derive(Clone, Debug)]
struct Waiting {
    asked: Asked,
    /// Why a person is asked.
    why: String,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Endorse,
    Refuse(String),
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            waiting: Mutex::default(),
            checks: tokio::sync::Semaphore::new(CHECKS_MAX),
        }
    }
}

/// Follows the mirror and answers what it is asked, until the member stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    tokio::select! {
        () = follow(shared) => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn follow(shared: Arc<Shared>) {
    let mut applied = shared.mirror.applied();
    let mut begun: BTreeSet<TransactionId> = BTreeSet::new();
    // What was open when the member stopped, and then what comes.
    shared.mirror.take_turns();
    let mut questions = shared.mirror.questions();
    loop {
        for asked in questions {
            // Who reads the log anew meets questions whose time is over.
            let over = |deadline: BlockTime| deadline.0 <= shared.now_ms();
            let propose = asked.entry.propose();
            if propose.is_some_and(|propose| !over(propose.deadline))
                && begun.insert(asked.entry.id())
            {
                tokio::spawn(answer(shared.clone(), asked));
            }
        }
        if applied.changed().await.is_err() {
            return;
        }
        applied.borrow_and_update();
        let turns = shared.mirror.take_turns();
        for proposal in &turns.closed {
            begun.remove(proposal);
            shared.desk.waiting.lock().remove(proposal);
        }
        let opened = turns.opened.iter();
        questions = opened
            .filter_map(|proposal| shared.mirror.asked(proposal))
            .collect();
    }
}

/// Answers one question, as far as no person is needed.
async fn answer(shared: Arc<Shared>, asked: Asked) {
    let mut stopping = shared.stopping();
    tokio::select! {
        () = decide(&shared, &asked) => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn decide(shared: &Arc<Shared>, asked: &Asked) {
    let id = asked.entry.id();
    let known = {
        let shared = shared.clone();
        blocking(move || shared.own.vote(&id.0)).await
    };
    match known {
        Ok(Some(vote)) => match read(&vote, asked) {
            Some(choice) => return say(shared, asked, &choice).await,
            None => {
                tracing::error!(proposal = %id, "{OTHER_OUTCOME}");
                return wait(shared, asked, OTHER_OUTCOME.to_owned());
            }
        },
        Ok(None) => {}
        Err(error) => return tracing::error!(%error, "the endorser stays silent"),
    }
    let choice = match judge(shared, asked).await {
        Verdict::Refuse(reason) => Choice::Refuse(reason),
        Verdict::Ask => {
            let why = "the rules of this member ask a person".to_owned();
            return wait(shared, asked, why);
        }
        Verdict::Endorse => match ask_program(shared, asked).await {
            None | Some(Said::Yes) => Choice::Endorse,
            Some(Said::No(reason)) => Choice::Refuse(reason),
            Some(Said::Nothing(why)) => {
                tracing::warn!(proposal = %id, why, "the check gave no answer: a person is asked");
                return wait(shared, asked, format!("the check gave no answer: {why}"));
            }
        },
    };
    match stand(shared, asked, choice).await {
        Ok(_) => {}
        // A person decided meanwhile, about what this was asked before.
        Err(NotAsked::Otherwise | NotAsked::Unknown) => {
            tracing::error!(proposal = %id, "{OTHER_OUTCOME}");
        }
        Err(NotAsked::Disk(error)) => {
            tracing::error!(%error, proposal = %id, "the endorser stays silent");
        }
    }
}

/// Works a question out again: proves signatures and hashes entries, away from the sockets.
async fn judge(shared: &Arc<Shared>, asked: &Asked) -> Verdict {
    let (shared, asked) = (shared.clone(), asked.clone());
    let judging = move || {
        let book = shared.mirror.book();
        endorser(&shared).judge(&asked, &book)
    };
    blocking(judging).await
}

fn endorser(shared: &Shared) -> Endorser {
    Endorser::new(shared.me(), shared.settings.rules.clone(), shared.prover())
}

async fn ask_program(shared: &Shared, asked: &Asked) -> Option<Said> {
    let check = shared.settings.check.as_ref()?;
    let proposal = write(&describe(shared, asked, None));
    let Ok(_turn) = shared.desk.checks.acquire().await else {
        return Some(Said::Nothing("the member is stopping".to_owned()));
    };
    Some(check.ask(&proposal).await)
}

fn wait(shared: &Shared, asked: &Asked, why: String) {
    let waiting = Waiting {
        asked: asked.clone(),
        why,
    };
    shared.desk.waiting.lock().insert(asked.entry.id(), waiting);
    shared.tell();
}

/// Records a choice, then signs it, then submits it. What was recorded before stands.
async fn stand(shared: &Arc<Shared>, asked: &Asked, choice: Choice) -> Result<Choice, NotAsked> {
    let id = asked.entry.id();
    let record = match &choice {
        Choice::Endorse => object([
            ("vote", "endorse".into()),
            ("agreed", asked.agreed.to_string().into()),
        ]),
        Choice::Refuse(reason) => object([
            ("vote", "refuse".into()),
            ("reason", reason.as_str().into()),
        ]),
    };
    let stands = {
        let (shared, text) = (shared.clone(), write(&record));
        let decided = blocking(move || shared.own.decide_vote(&id.0, &text)).await;
        decided.map_err(NotAsked::Disk)?
    };
    let stands = read(&stands, asked).ok_or(NotAsked::Otherwise)?;
    shared.desk.waiting.lock().remove(&id);
    let saying = {
        let (shared, asked, choice) = (shared.clone(), asked.clone(), stands.clone());
        async move {
            let mut stopping = shared.stopping();
            tokio::select! {
                () = say(&shared, &asked, &choice) => {}
                () = stopped(&mut stopping) => {}
            }
        }
    };
    tokio::spawn(saying);
    Ok(stands)
}

/// A choice that was recorded; `None` when it was to endorse another outcome than the one that is asked about,
/// which only a log that is not what it was leads to. A member signs one outcome of a proposal and no other.
fn read(vote: &str, asked: &Asked) -> Option<Choice> {
    let vote = own(vote);
    match text(&vote, "vote") {
        "endorse" => (text(&vote, "agreed") == asked.agreed.to_string()).then_some(Choice::Endorse),
        _ => Some(Choice::Refuse(text(&vote, "reason").to_owned())),
    }
}

/// Signs what was decided and hands it in until the network has it or asks no more.
async fn say(shared: &Arc<Shared>, asked: &Asked, choice: &Choice) {
    let id = asked.entry.id();
    let endorser = endorser(shared);
    let key = &shared.identity.key;
    let request = match choice {
        Choice::Endorse => endorser.endorse(asked, key),
        Choice::Refuse(reason) => endorser.refuse(asked, reason, key),
    };
    let mut pause = RETRY_FIRST;
    loop {
        match shared.network.submit(request.clone()).await {
            Ok(_) => return,
            Err(NotTaken::Refused { code, detail }) => {
                // It was decided meanwhile, or this very answer came before and its receipt was lost.
                tracing::debug!(proposal = %id, code, detail, "an answer was not needed");
                return;
            }
            Err(NotTaken::Unavailable(error)) => {
                tracing::warn!(%error, proposal = %id, "the node is asked again");
            }
        }
        if shared.mirror.book().asked(&id, shared.me()).is_none() {
            return;
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

/// Why a person's word is not taken.
#[derive(Debug)]
pub(crate) enum NotAsked {
    /// Nobody is asked about this proposal.
    Unknown,
    /// Another outcome of it was endorsed before.
    Otherwise,
    /// The store.
    Disk(DiskError),
}

/// Takes a person's word; gives what stands, which is the opposite when that was decided before.
pub(crate) async fn decide_by_hand(
    shared: &Arc<Shared>,
    proposal: TransactionId,
    choice: Choice,
) -> Result<Choice, NotAsked> {
    // Somebody may decide before the endorser comes to it, too.
    let asked = shared.mirror.book().asked(&proposal, shared.me());
    let asked = asked.ok_or(NotAsked::Unknown)?;
    if choice == Choice::Endorse {
        // A person may agree to what is sound, not to what is not.
        if let Verdict::Refuse(reason) = judge(shared, &asked).await {
            return stand(shared, &asked, Choice::Refuse(reason)).await;
        }
    }
    stand(shared, &asked, choice).await
}

/// What waits for a person.
pub(crate) fn waiting(shared: &Shared) -> Value {
    let waiting: Vec<Waiting> = {
        let mut waiting = shared.desk.waiting.lock();
        // What was decided while the endorser was about to ask a person is no question any more.
        waiting.retain(|proposal, _| shared.mirror.asked(proposal).is_some());
        waiting.values().cloned().collect()
    };
    let described = waiting
        .iter()
        .map(|waiting| describe(shared, &waiting.asked, Some(&waiting.why)));
    Value::Array(described.collect())
}

/// A question as programs and people read it.
fn describe(shared: &Shared, asked: &Asked, why: Option<&str>) -> Value {
    let entry: &Entry = &asked.entry;
    let mut about = vec![("proposal", Value::from(entry.id().to_string()))];
    if let Some(propose) = entry.propose() {
        let ledgers = propose.action.ledgers().iter();
        let batch = propose.action.batch();
        let entries = batch.map_or(&[][..], |batch| batch.entries());
        let entries = entries
            .iter()
            .map(|entry| Value::Object(own_object(entry.bare())));
        about.extend([
            ("kind", propose.action.kind().into()),
            ("proposer", propose.member.to_string().into()),
            ("label", shared.mirror.label(propose.member).into()),
            ("request", propose.request.as_str().into()),
            ("deadline", propose.deadline.0.into()),
            (
                "ledgers",
                Value::Array(ledgers.map(|name| name.as_str().into()).collect()),
            ),
            ("entries", Value::Array(entries.collect())),
        ]);
        if let Action::Create {
            participants,
            policy,
            ..
        }
        | Action::Regroup {
            participants,
            policy,
            ..
        } = &propose.action
        {
            let participants = participants.iter().map(|did| did.to_string().into());
            about.push(("participants", Value::Array(participants.collect())));
            about.push(("policy", policy.to_string().into()));
        }
        if let Action::Admit { card } = &propose.action {
            about.push(("card", Value::Object(card.to_object())));
        }
        if let Action::Remove { subject } = &propose.action {
            about.push(("subject", subject.to_string().into()));
        }
    }
    let states = asked
        .states
        .iter()
        .map(|state| Value::Object(state.to_object()));
    about.push(("states", Value::Array(states.collect())));
    about.push(("since", asked.since.0.into()));
    if let Some(why) = why {
        about.push(("why", why.into()));
    }
    Value::Object(about.into_iter().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::consortium::TreeHash;

    use super::*;

    #[test]
    fn an_endorsement_of_another_outcome_is_not_used_for_this_one() {
        let asked = |leaf: &str| Asked {
            entry: Entry::read(
                r#"{"at":7,"book":"consortium","effects":[],"kind":"expiry"}"#.into(),
            )
            .unwrap(),
            since: BlockTime(7),
            agreed: TreeHash::leaf(leaf),
            states: Vec::new(),
        };
        let (one, other) = (asked("one"), asked("other"));
        let endorsed = write(&object([
            ("vote", "endorse".into()),
            ("agreed", one.agreed.to_string().into()),
        ]));
        assert_eq!(read(&endorsed, &one), Some(Choice::Endorse));
        assert_eq!(read(&endorsed, &other), None);
        // What does not name what was agreed on was not written by this program.
        assert_eq!(read(r#"{"vote":"endorse"}"#, &one), None);
        let refused = r#"{"vote":"refuse","reason":"no"}"#;
        let no = Some(Choice::Refuse("no".to_owned()));
        assert_eq!(
            (read(refused, &one), read(refused, &other)),
            (no.clone(), no)
        );
    }
}
