//! The two ways from a member to the network: over a node's API, and inside the node itself.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use daybook_client::consortium::{ConsortiumClient, FollowedEntries, NoticesAfter, SubmitError};
use daybook_ledger::{Height, Position, consortium::Request};
use daybook_member::{
    Answer, Committed, Logged, Network, NotTaken, NoticeCursor, Notices, Relay, Unavailable,
    read_notices, system_clock,
};
use daybook_pipeline::{ConsortiumAnswer, Node};
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

/// How long one look for new entries waits before it gives the reader a turn.
const WAIT: Duration = Duration::from_secs(20);
/// How long a node may be out of reach before the log says so.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// How long a relay may take to answer: it waits for notices itself, for twenty seconds.
pub(crate) const NOTICES_TIMEOUT: Duration = Duration::from_secs(40);

/// A node elsewhere.
pub(crate) struct Remote {
    client: ConsortiumClient,
    /// The same node, with more patience.
    relay: ConsortiumClient,
    followed: Mutex<Option<Followed>>,
}

struct Followed {
    /// What was given last.
    after: Option<Position>,
    entries: FollowedEntries,
}

impl Remote {
    /// `relay` is a client of the same node whose timeout is [`NOTICES_TIMEOUT`].
    pub(crate) fn new(client: ConsortiumClient, relay: ConsortiumClient) -> Remote {
        Remote {
            client,
            relay,
            followed: Mutex::new(None),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({:?})", self.client.client())
    }
}

fn unavailable(error: impl fmt::Display) -> Unavailable {
    Unavailable(error.to_string())
}

/// The place behind one, from which a reader goes on.
fn behind(after: Option<Position>) -> Position {
    after.map_or(ConsortiumClient::BEGINNING, |after| Position {
        height: after.height,
        index: after.index.saturating_add(1),
    })
}

impl Network for Remote {
    fn submit(&self, request: Request) -> Answer<'_, Result<Committed, NotTaken>> {
        Box::pin(async move {
            match self.client.submit_once(&request).await {
                Ok(outcome) => Ok(Committed {
                    position: outcome.position,
                    entry: outcome.entry,
                }),
                Err(SubmitError::Refused(refusal)) => Err(NotTaken::Refused {
                    code: refusal.code.as_str().to_owned(),
                    detail: refusal.detail,
                }),
                Err(SubmitError::Unknown(error) | SubmitError::Failed(error)) => {
                    Err(unavailable(error).into())
                }
            }
        })
    }

    fn entries(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Logged>, Unavailable>> {
        Box::pin(async move {
            let mut followed = self.followed.lock().await;
            if followed
                .as_ref()
                .is_none_or(|followed| followed.after != after)
            {
                let entries = self.client.follow(behind(after));
                *followed = Some(Followed {
                    after,
                    entries: entries.give_up_after(GIVE_UP_AFTER),
                });
            }
            let Some(following) = followed.as_mut() else {
                return Ok(Vec::new());
            };
            let mut logged = Vec::new();
            while logged.len() < limit && (logged.is_empty() || !following.entries.is_caught_up()) {
                match timeout(WAIT, following.entries.next()).await {
                    Ok(Ok((position, _, entry))) => logged.push(Logged { position, entry }),
                    Ok(Err(error)) => {
                        *followed = None;
                        return Err(unavailable(error));
                    }
                    // Nothing is lost: waiting goes on where it was.
                    Err(_) => break,
                }
            }
            if let Some(last) = logged.last() {
                following.after = Some(last.position);
            }
            Ok(logged)
        })
    }

    fn grown(&self, _: Option<Position>) -> Answer<'_, ()> {
        // Looking for entries waits for them.
        Box::pin(std::future::ready(()))
    }

    fn post(&self, notice: Bytes) -> Answer<'_, Result<(), NotTaken>> {
        Box::pin(async move {
            match self.client.post_notice(notice).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(refused)) => Err(NotTaken::Refused {
                    code: refused.code,
                    detail: refused.message,
                }),
                Err(error) => Err(unavailable(error).into()),
            }
        })
    }

    fn notices(
        &self,
        after: NoticeCursor,
        shown: Bytes,
    ) -> Answer<'_, Result<Notices, Unavailable>> {
        Box::pin(async move {
            let after = NoticesAfter {
                kept: after.kept,
                epoch: &after.epoch,
                passing: after.passing,
                relay: &after.relay,
            };
            let fetched = self.relay.notices(after, &shown).await;
            let body = fetched.map_err(unavailable)?;
            read_notices(&body).ok_or_else(|| unavailable("the relay's answer is none"))
        })
    }
}

/// The node that the member runs in.
pub(crate) struct Local {
    node: Node,
    relay: Arc<Relay>,
    /// The height up to which the log was looked through.
    seen: Mutex<Height>,
}

impl Local {
    pub(crate) fn new(node: Node, relay: Arc<Relay>) -> Local {
        Local {
            node,
            relay,
            seen: Mutex::new(Height(0)),
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}

impl Network for Local {
    fn submit(&self, request: Request) -> Answer<'_, Result<Committed, NotTaken>> {
        Box::pin(async move {
            match self.node.ask_consortium(request).await {
                ConsortiumAnswer::Recorded {
                    entry, position, ..
                } => Ok(Committed { position, entry }),
                ConsortiumAnswer::Refused(refusal) => Err(NotTaken::Refused {
                    code: refusal.code.as_str().to_owned(),
                    detail: refusal.detail,
                }),
                ConsortiumAnswer::Busy => Err(unavailable("it is busy").into()),
                ConsortiumAnswer::Off => Err(unavailable("it serves no consortium's book").into()),
                ConsortiumAnswer::Stopped => Err(unavailable("it is stopping").into()),
            }
        })
    }

    fn entries(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Logged>, Unavailable>> {
        Box::pin(async move {
            // Noted before the look, so that nothing falls between the look and the wait.
            *self.seen.lock().await = self.node.head();
            let store = self.node.store().clone();
            let read = spawn_blocking(move || {
                let mut logged = Vec::new();
                store
                    .consortium_log(behind(after), &mut |position, entry| {
                        logged.push(Logged { position, entry });
                        logged.len() < limit
                    })
                    .map(|()| logged)
            });
            read.await.map_err(unavailable)?.map_err(unavailable)
        })
    }

    fn grown(&self, _: Option<Position>) -> Answer<'_, ()> {
        Box::pin(async move {
            let seen = *self.seen.lock().await;
            let mut follower = self.node.follow(seen.next());
            if timeout(WAIT, follower.next())
                .await
                .is_ok_and(|next| next.is_err())
            {
                // The node is stopping, and the member soon after it.
                tokio::time::sleep(GIVE_UP_AFTER).await;
            }
        })
    }

    fn post(&self, notice: Bytes) -> Answer<'_, Result<(), NotTaken>> {
        Box::pin(async move {
            let relay = self.relay.clone();
            let posted = spawn_blocking(move || relay.post(&notice, system_clock()));
            let posted = posted.await.map_err(unavailable)?;
            posted.map_err(|refused| NotTaken::Refused {
                code: refused.code.to_owned(),
                detail: refused.detail,
            })
        })
    }

    fn notices(
        &self,
        after: NoticeCursor,
        shown: Bytes,
    ) -> Answer<'_, Result<Notices, Unavailable>> {
        Box::pin(async move {
            let relay = self.relay.clone();
            let may = spawn_blocking(move || relay.may_read(&shown, system_clock()));
            if !may.await.map_err(unavailable)? {
                return Err(unavailable(
                    "this member is not one of the network yet, or no more",
                ));
            }
            self.relay.wait(&after).await;
            let relay = self.relay.clone();
            let fetched = spawn_blocking(move || relay.fetch(&after));
            fetched.await.map_err(unavailable)?.map_err(unavailable)
        })
    }
}
