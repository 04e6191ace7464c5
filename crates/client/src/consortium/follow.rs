//! Following the consortium's book: pages of entries as long as there are any, then the node's event
//! stream tells when there are more. The pages are the truth; an event only wakes.

use std::{collections::VecDeque, fmt, time::Duration};

use daybook_ledger::{BlockTime, Position, consortium::Entry};

use super::{ConsortiumClient, PAGE_ENTRIES_MAX};
use crate::{Cursor, Error, EventFilter, Events, From, socket::Tries};

/// A follower of the consortium's book. Reconnects by itself; see [`FollowedEntries::next`].
pub struct FollowedEntries {
    client: ConsortiumClient,
    /// Where what is not read yet begins.
    next: Position,
    read: VecDeque<(Position, Entry)>,
    /// Everything that there was has been read; `events` tells of more.
    at_head: bool,
    events: Option<Events>,
    give_up_after: Option<Duration>,
}

impl fmt::Debug for FollowedEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowedEntries")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl FollowedEntries {
    pub(super) fn new(client: ConsortiumClient, from: Position) -> FollowedEntries {
        FollowedEntries {
            client,
            next: from,
            read: VecDeque::new(),
            at_head: false,
            events: None,
            give_up_after: None,
        }
    }

    /// Makes [`FollowedEntries::next`] fail when the node cannot be reached for this long. Without it a
    /// follower tries for ever.
    #[must_use]
    pub fn give_up_after(mut self, unreachable: Duration) -> FollowedEntries {
        self.give_up_after = Some(unreachable);
        self
    }

    /// Where to go on after what was given so far.
    pub fn cursor(&self) -> Position {
        self.read
            .front()
            .map_or(self.next, |(position, _)| *position)
    }

    /// Whether everything that the node had when it was last asked has been given.
    pub fn is_caught_up(&self) -> bool {
        self.at_head && self.read.is_empty()
    }

    /// The next entry with its place and the time of its block; waits when there is none yet. Each comes
    /// once, in the order of the log, across broken connections and restarts of the node. Cancel-safe.
    ///
    /// # Errors
    /// What trying again cannot mend, such as `NotFound`, `Unauthorised` and `Protocol`; and `Unreachable`
    /// or `Broken` after [`FollowedEntries::give_up_after`].
    pub async fn next(&mut self) -> Result<(Position, BlockTime, Entry), Error> {
        loop {
            if let Some((position, entry)) = self.read.pop_front() {
                return Ok((position, entry.at(), entry));
            }
            if self.at_head {
                self.wait().await?;
            } else {
                self.read_page().await?;
            }
        }
    }

    async fn read_page(&mut self) -> Result<(), Error> {
        let mut tries = Tries::within(self.give_up_after);
        loop {
            match self.client.entries(self.next, PAGE_ENTRIES_MAX).await {
                Ok(page) => {
                    self.next = page.next;
                    self.at_head = page.is_last;
                    self.read.extend(page.entries);
                    return Ok(());
                }
                Err(error) => tries.after(error, "the consortium's book").await?,
            }
        }
    }

    /// Waits for an event at or behind what comes next.
    async fn wait(&mut self) -> Result<(), Error> {
        let next = Cursor {
            height: self.next.height,
            index: self.next.index,
        };
        let events = self.events.get_or_insert_with(|| {
            let filter = EventFilter {
                kinds: vec!["consortium".to_owned()],
                keys: Vec::new(),
            };
            let events = self.client.client().events(From::Cursor(next), filter);
            match self.give_up_after {
                Some(limit) => events.give_up_after(limit),
                None => events,
            }
        });
        loop {
            let event = events.next().await?;
            if event.position >= next {
                self.at_head = false;
                return Ok(());
            }
        }
    }
}
