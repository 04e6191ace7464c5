//! Who answers: signed pings and pongs over the relay, and plan documents, which come the same way
//! (section 6.3).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use daybook_ledger::{
    BlockTime, PublicKey,
    consortium::{Did, Entry, time_text},
    json::{Object, Value},
};
use parking_lot::Mutex;
use tokio::{sync::watch, time};

use crate::{
    disk::{DiskError, PlanKind},
    json::{object, write},
    member::{Shared, blocking, stopped},
    message,
    network::{NoticeCursor, Notices},
    notice::{self, Notice},
    relay,
};

/// How long pongs are waited for.
const PONG_MS_MAX: u64 = 5_000;
/// How long the outcome of a check stands, so that asking is cheap.
const CACHED_MS: u64 = 10_000;
/// Between two pongs to one member: it asks less often, so that whoever has its key cannot make all others
/// talk.
const PONG_MS_BETWEEN: u64 = 5_000;
/// Bytes of a ping's id, which comes back in the pong: a time takes half of it.
const PING_ID_BYTES_MAX: usize = 64;
/// How often a relay that does not answer is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What is known of the others.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: Mutex<State>,
    /// Counts the pongs.
    pongs: watch::Sender<u64>,
    /// Held by whoever asks: others wait and find the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// When each member was last heard, in milliseconds since 1970.
    heard: BTreeMap<Did, u64>,
    /// When each member's ping was answered last.
    answered: BTreeMap<Did, u64>,
    /// The ping that waits for answers, when it was sent, and who answered when.
    ping: Option<(String, u64, BTreeMap<Did, u64>)>,
    outcome: Option<(u64, Outcome)>,
}

/// How a check went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    ping_id: String,
    /// Milliseconds to the answer of each member, or none.
    answers: BTreeMap<Did, Option<u64>>,
    /// Why nobody could be asked.
    failed: Option<String>,
}

impl Health {
    /// Notes that a member did something that stands in the log.
    pub(crate) fn heard_in_log(&self, entry: &Entry) {
        if let Some(member) = entry.command().and_then(|command| command.member()) {
            self.heard(member, entry.at().0);
        }
    }

    fn heard(&self, member: Did, at: u64) {
        let mut state = self.state.lock();
        let heard = state.heard.entry(member).or_default();
        *heard = (*heard).max(at);
    }

    /// Whether a ping is answered: there is one pong for each member in so much time.
    fn answers(&self, to: Did, now: u64) -> bool {
        let mut state = self.state.lock();
        let last = state.answered.get(&to).copied();
        // A clock that was set back counts anew.
        let due = last.is_none_or(|last| now < last || now - last >= PONG_MS_BETWEEN);
        if due {
            state.answered.insert(to, now);
        }
        due
    }

    fn pong(&self, from: Did, ping_id: &str, now: u64) {
        if let Some((waiting, _, answers)) = &mut self.state.lock().ping
            && waiting == ping_id
        {
            answers.entry(from).or_insert(now);
        }
        self.pongs.send_modify(|count| *count += 1);
    }
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        self.failed.is_none() && self.answers.values().all(Option::is_some)
    }

    /// The answer of `check_health`; who is missing is told to users only.
    pub(crate) fn to_value(&self, shared: &Shared, detailed: bool) -> Value {
        let missing: Vec<Did> = self
            .answers
            .iter()
            .filter(|(_, rtt)| rtt.is_none())
            .map(|(did, _)| *did)
            .collect();
        let heard = shared.health.state.lock().heard.clone();
        let last_heard = |did: &Did| heard.get(did).map(|at| time_text(BlockTime(*at)));
        let message = match (&self.failed, missing.as_slice()) {
            (Some(why), _) => format!("nobody could be asked: {why}"),
            (None, []) => "OK".to_owned(),
            (None, missing) if detailed => {
                let named = missing.iter().map(|did| {
                    let label = shared.mirror.label(*did);
                    match last_heard(did) {
                        Some(at) => format!("{label} ({did}), last heard {at}"),
                        None => format!("{label} ({did}), never heard"),
                    }
                });
                let named: Vec<String> = named.collect();
                format!("no answer from {}", named.join("; "))
            }
            (None, missing) => format!(
                "{} of {} members did not answer",
                missing.len(),
                self.answers.len()
            ),
        };
        let mut answer: Object = [
            ("success", Value::from(self.is_success())),
            ("ping_id", self.ping_id.as_str().into()),
            ("message", message.into()),
        ]
        .into_iter()
        .collect();
        if detailed {
            let mut participants = Object::new();
            for (did, rtt) in &self.answers {
                let mut about: Object = [
                    ("ok", Value::from(rtt.is_some())),
                    ("label", shared.mirror.label(*did).into()),
                    (
                        "last_heard",
                        last_heard(did).map_or(Value::Null, Value::from),
                    ),
                ]
                .into_iter()
                .collect();
                if let Some(rtt) = rtt {
                    about.insert("rtt_ms", (*rtt).into());
                }
                participants.insert(did.to_string(), Value::Object(about));
            }
            answer.insert("participants", Value::Object(participants));
        }
        Value::Object(answer)
    }
}

/// Asks all other members' endorsers, or takes the answer of a short time ago.
pub(crate) async fn check(shared: &Arc<Shared>) -> Outcome {
    let health = &shared.health;
    let _asking = health.asking.lock().await;
    let now = shared.now_ms();
    if let Some((at, outcome)) = &health.state.lock().outcome
        && now.saturating_sub(*at) < CACHED_MS
    {
        return outcome.clone();
    }
    let others: BTreeSet<Did> = {
        let book = shared.mirror.book();
        if book.member(shared.me()).is_none() {
            // Nobody to ask is not everybody answering.
            return Outcome {
                failed: Some("this member has not read of itself in the log yet".to_owned()),
                ..Outcome::default()
            };
        }
        let active = book.members().filter(|member| member.active);
        active.map(|member| member.card.did()).collect()
    };
    let me = shared.me();
    let others: BTreeSet<Did> = others.into_iter().filter(|did| *did != me).collect();
    let ping_id = time_text(BlockTime(now));
    health.state.lock().ping = Some((ping_id.clone(), now, BTreeMap::new()));
    let members = [("ping_id", Value::from(ping_id.as_str()))];
    let ping = notice::sign(
        shared.mirror.network(),
        me,
        "ping",
        members,
        now / 1_000,
        &shared.identity.key,
    );
    let mut pongs = health.pongs.subscribe();
    let mut outcome = Outcome {
        ping_id,
        ..Outcome::default()
    };
    match shared.network.post(ping).await {
        Err(error) => outcome.failed = Some(error.to_string()),
        Ok(()) => {
            let complete = async {
                loop {
                    pongs.borrow_and_update();
                    if let Some((_, _, answers)) = &health.state.lock().ping
                        && others.iter().all(|did| answers.contains_key(did))
                    {
                        return;
                    }
                    if pongs.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            let _ = time::timeout(Duration::from_millis(PONG_MS_MAX), complete).await;
        }
    }
    let answered = health.state.lock().ping.take();
    let answers = answered.map(|(_, _, answers)| answers).unwrap_or_default();
    for did in others {
        let rtt = answers.get(&did).map(|at| at.saturating_sub(now));
        outcome.answers.insert(did, rtt);
    }
    health.state.lock().outcome = Some((shared.now_ms(), outcome.clone()));
    outcome
}

/// Reads the relay: answers pings, counts pongs and keeps plan documents.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    tokio::select! {
        () = read(&shared) => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn read(shared: &Arc<Shared>) {
    let mut pause = RETRY_FIRST;
    let read = {
        let shared = shared.clone();
        blocking(move || shared.own.notices_read()).await
    };
    let (kept, epoch) = read.unwrap_or_else(|error| {
        tracing::error!(%error, "all notices are read again");
        (0, String::new())
    });
    let mut cursor = NoticeCursor {
        kept,
        epoch,
        ..NoticeCursor::default()
    };
    loop {
        let shown = relay::reading(
            shared.mirror.network(),
            shared.me(),
            shared.now_ms() / 1_000,
            &shared.identity.key,
        );
        let fetched = match shared.network.notices(cursor.clone(), shown).await {
            Ok(fetched) => fetched,
            Err(error) => {
                // Told once, and then only to who looks closely.
                match pause == RETRY_FIRST {
                    true => tracing::warn!(%error, "the relay is asked again"),
                    false => tracing::debug!(%error, "the relay is asked again"),
                }
                time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
                continue;
            }
        };
        match take_all(shared, &cursor, &fetched).await {
            Ok(()) => {
                pause = RETRY_FIRST;
                cursor = fetched.next;
            }
            Err(error) => {
                tracing::error!(%error, "notices could not be kept and are read again");
                time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
                // What passed by was taken.
                cursor.passing = fetched.next.passing;
                cursor.relay = fetched.next.relay;
            }
        }
    }
}

/// Takes what the relay had, and notes how far it was read.
async fn take_all(
    shared: &Arc<Shared>,
    before: &NoticeCursor,
    fetched: &Notices,
) -> Result<(), DiskError> {
    let mut taken = Ok(());
    for bytes in &fetched.notices {
        // One that could not be kept keeps no other away.
        let one = take(shared, bytes).await;
        taken = taken.and(one);
    }
    shared.tell();
    taken?;
    let next = &fetched.next;
    if (next.kept, &next.epoch) != (before.kept, &before.epoch) {
        let (shared, kept, epoch) = (shared.clone(), next.kept, next.epoch.clone());
        blocking(move || shared.own.set_notices_read(kept, &epoch)).await?;
    }
    Ok(())
}

/// Whether a key is a member's present one.
pub(crate) fn is_key_of(shared: &Shared, did: Did, key: &PublicKey, ever: bool) -> bool {
    let book = shared.mirror.book();
    book.member(did).is_some_and(|member| {
        let present = member.active && member.card.verkey() == *key;
        present || (ever && member.keys.contains(key))
    })
}

async fn take(shared: &Arc<Shared>, bytes: &[u8]) -> Result<(), DiskError> {
    // A plan document may have been signed with a key that was replaced since.
    let known = |did: Did, key: &PublicKey| is_key_of(shared, did, key, true);
    let notice = match Notice::open(bytes, shared.mirror.network(), &known) {
        Ok(notice) => notice,
        Err(error) => {
            tracing::debug!(%error, "a notice is passed over");
            return Ok(());
        }
    };
    let now = shared.now_ms();
    let me = shared.me();
    if notice.member != me && notice.is_fresh(now) {
        shared.health.heard(notice.member, now);
    }
    match notice.kind() {
        "ping" if notice.member != me && notice.is_fresh(now) => {
            let fits = notice.text("ping_id").len() <= PING_ID_BYTES_MAX;
            if !fits || !shared.health.answers(notice.member, now) {
                tracing::debug!(member = %notice.member, "a ping is not answered");
                return Ok(());
            }
            let members = [
                ("ping_id", Value::from(notice.text("ping_id"))),
                ("to", notice.member.to_string().into()),
            ];
            let pong = notice::sign(
                shared.mirror.network(),
                me,
                "pong",
                members,
                now / 1_000,
                &shared.identity.key,
            );
            if let Err(error) = shared.network.post(pong).await {
                tracing::debug!(%error, "a pong was not sent");
            }
        }
        "pong" if notice.text("to") == me.to_string() && notice.is_fresh(now) => {
            shared
                .health
                .pong(notice.member, notice.text("ping_id"), now);
        }
        "gu-11" => keep(shared, &notice, PlanKind::Gu11).await?,
        "gu-12" => keep(shared, &notice, PlanKind::Gu12).await?,
        _ => {}
    }
    Ok(())
}

async fn keep(shared: &Arc<Shared>, notice: &Notice, kind: PlanKind) -> Result<(), DiskError> {
    let Some(Value::Object(plan)) = notice.body.get("message") else {
        return Ok(());
    };
    // The sender checked it; whoever it is, it is checked again.
    if let Err(error) = message::check_plan(kind, plan) {
        tracing::warn!(error, member = %notice.member, "a plan document is not kept");
        return Ok(());
    }
    let name = format!("{}/{}/{}", notice.member, kind.name(), notice.text("id"));
    let text = write(&Value::Object(message::listed_plan(kind, plan)));
    let first = {
        let (shared, name, text) = (shared.clone(), name.clone(), text.clone());
        blocking(move || shared.own.add_plan(kind, &name, &text)).await?
    };
    // The relay takes no second one; another relay, or one that was restored, may have.
    if first.is_some_and(|first| first != text) {
        tracing::warn!(
            name,
            "another plan document has the name of one that is kept"
        );
    }
    Ok(())
}

/// The members whom a caller may see, for consoles.
pub(crate) fn members(shared: &Shared) -> Value {
    let heard = shared.health.state.lock().heard.clone();
    let book = shared.mirror.book();
    let members = book.members().map(|member| {
        let profile = member.card.profile();
        let last = heard.get(&member.card.did());
        object([
            ("did", member.card.did().to_string().into()),
            ("verkey", member.card.verkey().to_string().into()),
            ("label", profile.label.as_str().into()),
            ("organization", profile.organization.as_str().into()),
            ("url", profile.url.as_str().into()),
            ("logo", profile.logo.as_str().into()),
            ("icon", profile.icon.as_str().into()),
            ("active", member.active.into()),
            (
                "last_heard",
                last.map_or(Value::Null, |at| time_text(BlockTime(*at)).into()),
            ),
            ("is_self", (member.card.did() == shared.me()).into()),
        ])
    });
    Value::Array(members.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_pings_again_and_again_is_answered_once_in_a_while() {
        let health = Health::default();
        let (one, two) = (Did([1; 16]), Did([2; 16]));
        assert!(health.answers(one, 100_000));
        assert!(!health.answers(one, 100_000));
        assert!(!health.answers(one, 100_000 + PONG_MS_BETWEEN - 1));
        assert!(
            health.answers(two, 100_000),
            "others are not held back by it"
        );
        assert!(health.answers(one, 100_000 + PONG_MS_BETWEEN));
        assert!(health.answers(one, 50_000), "a clock was set back");
    }
}
