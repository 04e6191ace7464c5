//! Many submissions by one sender: outcomes are collected and taken in runs, so that a block of two
//! thousand wakes its sender once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    node::Shared,
    submission::{Acknowledge, Door, Outcome, Reply, Submission, Ticket},
};

/// Bytes of a refusal's reason that wait for a bulk sender: what it quotes from the transaction may be much
/// longer, and a sender that reads slowly has thousands of them waiting.
const DETAIL_BYTES_MAX: usize = 512;

/// The sending half: one sender of many transactions. Outcomes come back in any order, each with its
/// sender's tag.
pub struct Submitter {
    node: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    window: usize,
}

/// The other half of a [`Submitter`].
pub struct Outcomes {
    mailbox: Arc<Mailbox>,
}

struct Mailbox {
    letters: Mutex<Vec<(u64, Outcome)>>,
    /// Submissions whose outcome was not taken yet, plus one while the submitter lives.
    under_way: AtomicUsize,
    /// Nobody takes outcomes any more.
    abandoned: AtomicBool,
    arrived: Notify,
    taken: Notify,
}

/// One sender's claim on one outcome.
pub(crate) struct Slip {
    mailbox: Arc<Mailbox>,
    tag: u64,
    answered: bool,
}

pub(crate) fn pair(node: Arc<Shared>, window: usize) -> (Submitter, Outcomes) {
    let mailbox = Arc::new(Mailbox {
        letters: Mutex::new(Vec::new()),
        under_way: AtomicUsize::new(1),
        abandoned: AtomicBool::new(false),
        arrived: Notify::new(),
        taken: Notify::new(),
    });
    (
        Submitter {
            node,
            mailbox: mailbox.clone(),
            window,
        },
        Outcomes { mailbox },
    )
}

impl Submitter {
    /// Hands over one transaction; waits while as many as the window are under way or the pool is full.
    /// False when the node is stopping or the [`Outcomes`] are gone: the transaction was not taken.
    pub async fn submit(&self, tag: u64, text: Bytes, acknowledge: Acknowledge) -> bool {
        self.submit_all([(tag, text)], acknowledge).await
    }

    /// Hands over several transactions at once, in order: cheaper than one by one. False when the node
    /// is stopping: those from the first that found no room were not taken.
    pub async fn submit_all(
        &self,
        transactions: impl IntoIterator<Item = (u64, Bytes)>,
        acknowledge: Acknowledge,
    ) -> bool {
        let mut ready = Vec::new();
        let mut taken = true;
        for (tag, text) in transactions {
            if !self.has_room() {
                self.node.queue.push_all(ready.drain(..));
                if !self.wait_for_room().await {
                    return false;
                }
            }
            let permit = match self.node.pool.try_enter_in_turn(text.len()) {
                Ok(permit) => permit,
                Err(_) => {
                    // What is at hand must go before this waits: room comes only from its outcomes.
                    self.node.queue.push_all(ready.drain(..));
                    let Some(permit) = self.node.pool.enter(text.len()).await else {
                        taken = false;
                        break;
                    };
                    permit
                }
            };
            self.mailbox.under_way.fetch_add(1, Ordering::SeqCst);
            let slip = Slip {
                mailbox: self.mailbox.clone(),
                tag,
                answered: false,
            };
            let reply = Reply::Tagged(slip);
            let ticket = Ticket {
                acknowledge,
                door: Door::Bulk,
                reply,
                permit,
            };
            ready.push(Submission { text, ticket });
        }
        self.node.queue.push_all(ready);
        taken
    }

    fn has_room(&self) -> bool {
        self.mailbox.under_way.load(Ordering::SeqCst) <= self.window
    }

    async fn wait_for_room(&self) -> bool {
        loop {
            let taken = self.mailbox.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            if self.mailbox.abandoned.load(Ordering::SeqCst) {
                return false;
            }
            if self.has_room() {
                return true;
            }
            taken.await;
        }
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        self.mailbox.under_way.fetch_sub(1, Ordering::SeqCst);
        self.mailbox.arrived.notify_one();
    }
}

impl Outcomes {
    /// Waits for outcomes and appends all that are there to `into`. False when the submitter is gone
    /// and everything is answered.
    pub async fn next(&mut self, into: &mut Vec<(u64, Outcome)>) -> bool {
        loop {
            // `notify_one` keeps its permit for a receiver that is not listening yet.
            let arrived = self.mailbox.arrived.notified();
            let letters = std::mem::take(&mut *self.mailbox.letters.lock());
            if !letters.is_empty() {
                self.mailbox
                    .under_way
                    .fetch_sub(letters.len(), Ordering::SeqCst);
                self.mailbox.taken.notify_waiters();
                into.extend(letters);
                return true;
            }
            if self.mailbox.under_way.load(Ordering::SeqCst) == 0 {
                return false;
            }
            arrived.await;
        }
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        self.mailbox.abandoned.store(true, Ordering::SeqCst);
        self.mailbox.taken.notify_waiters();
    }
}

impl Slip {
    pub(crate) fn answer(mut self, outcome: Outcome) {
        self.put(outcome);
    }

    fn put(&mut self, mut outcome: Outcome) {
        self.answered = true;
        if let Outcome::Rejected { rejection, .. } = &mut outcome {
            shorten(&mut rejection.detail);
        }
        let mut letters = self.mailbox.letters.lock();
        letters.push((self.tag, outcome));
        if letters.len() == 1 {
            drop(letters);
            self.mailbox.arrived.notify_one();
        }
    }
}

/// Cuts a reason that is too long to wait.
fn shorten(detail: &mut String) {
    if detail.len() <= DETAIL_BYTES_MAX {
        return;
    }
    let mark = "\u{2026}";
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX - mark.len()));
    detail.push_str(mark);
    detail.shrink_to_fit();
}

impl Drop for Slip {
    /// A submission that is dropped unanswered fell victim to a stop: its sender hears that.
    fn drop(&mut self) {
        if !self.answered {
            self.put(Outcome::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_characters_and_says_so() {
        let mut short = "a reason".to_owned();
        shorten(&mut short);
        assert_eq!(short, "a reason");

        let mut whole = "x".repeat(DETAIL_BYTES_MAX);
        shorten(&mut whole);
        assert_eq!(whole, "x".repeat(DETAIL_BYTES_MAX));

        for before in 0..4 {
            let mut long = "x".repeat(before) + &"\u{1f4d3}".repeat(DETAIL_BYTES_MAX);
            shorten(&mut long);
            assert!(long.len() <= DETAIL_BYTES_MAX && long.len() > DETAIL_BYTES_MAX - 8);
            assert!(long.ends_with("\u{1f4d3}\u{2026}"));
        }
    }
}
