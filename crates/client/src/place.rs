//! Places in streams, and where a follower stands in one.

use std::{fmt, str::FromStr};

use daybook_ledger::Height;

use crate::{Client, Error};

/// Where a follower begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first block after the newest one of the moment.
    Now,
    /// With the first event of this height.
    Height(Height),
    /// Behind the last event that another follower of the same stream saw.
    Cursor(Cursor),
}

/// A place in a stream: what comes next is the first event at or behind it. Its text form
/// (`height.index`) can be stored and given to a later follower.
///
/// On `valid_transactions` the index is a transaction's place in its block, on
/// `rejected_transactions` it counts the events of the height, on `valid_blocks` it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The height.
    pub height: Height,
    /// The place at that height.
    pub index: u32,
}

/// The text is not a cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place in a stream is `height` or `height.index`")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.height.0, self.index)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;
    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let (height, index) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(height) || !digits(index) {
            return Err(NotACursor);
        }
        Ok(Cursor {
            height: Height(height.parse().map_err(|_| NotACursor)?),
            index: index.parse().map_err(|_| NotACursor)?,
        })
    }
}

/// Where a follower stands: what comes next, and what came last, to see after a break that the node still
/// tells the same story.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// What comes next. Known once the first connection was made.
    next: Option<Cursor>,
    /// The last event, by its place and its text or id. A connection that is made again begins with it.
    last: Option<(Cursor, String)>,
    /// The next event is the last one of an earlier connection, come again.
    repeats: bool,
}

impl Place {
    pub(crate) fn new(from: From) -> Place {
        Place {
            next: match from {
                From::Now => None,
                From::Height(height) => Some(Cursor { height, index: 0 }),
                From::Cursor(cursor) => Some(cursor),
            },
            ..Place::default()
        }
    }

    /// What comes next; `None` before the first connection of a follower that begins now.
    pub(crate) fn next(&self) -> Option<Cursor> {
        self.next
    }

    /// What comes next; for a follower that begins now, with the block after the newest. It is taken
    /// before the connection is made, so that one that breaks before the first event does not lose what
    /// was committed meanwhile.
    pub(crate) async fn or_head(&self, client: &Client) -> Result<Cursor, Error> {
        match self.next {
            Some(next) => Ok(next),
            None => Ok(Cursor {
                height: client.latest_block().await?.height.next(),
                index: 0,
            }),
        }
    }

    /// What a new connection is to begin with, so that the last event comes again, where there is one.
    pub(crate) fn resume(&self, next: Cursor) -> Cursor {
        self.last.as_ref().map_or(next, |(last, _)| *last)
    }

    /// A connection is made; `next` comes next on it, after the last event if that `repeats`.
    pub(crate) fn connected(&mut self, next: Cursor, repeats: bool) {
        self.next = Some(next);
        self.repeats = repeats && self.last.is_some();
    }

    /// Whether the event with this mark is the last one, come again.
    ///
    /// # Errors
    /// `Protocol` when another was to come again.
    pub(crate) fn is_repeated(&mut self, mark: &str) -> Result<bool, Error> {
        if !self.repeats {
            return Ok(false);
        }
        self.repeats = false;
        match &self.last {
            Some((_, last)) if last == mark => Ok(true),
            Some((place, _)) => Err(other_history("another event than before", *place)),
            None => Ok(false),
        }
    }

    /// An event came at `at`, and `next` comes next.
    ///
    /// # Errors
    /// `Protocol` when it lies before what was to come.
    pub(crate) fn passed(&mut self, at: Cursor, next: Cursor, mark: &str) -> Result<(), Error> {
        if let Some(expected) = self.next.filter(|expected| at < *expected) {
            return Err(Error::Protocol(format!(
                "an event at {at} where {expected} comes next"
            )));
        }
        self.next = Some(next);
        self.last = Some((at, mark.to_owned()));
        Ok(())
    }

    /// The node says that everything before `next` was delivered. True when that is further than was
    /// known.
    ///
    /// # Errors
    /// `Protocol` when the last event should have come again.
    pub(crate) fn caught_up(&mut self, next: Cursor) -> Result<bool, Error> {
        let passed = self.last.as_ref().filter(|(place, _)| *place < next);
        if self.repeats
            && let Some((place, _)) = passed
        {
            return Err(other_history("no event any more", *place));
        }
        if self.next.is_none_or(|known| known >= next) {
            return Ok(false);
        }
        self.next = Some(next);
        // The last event is kept to compare histories by as long as it is of the newest height. An older
        // one is not: a quiet stream would be read again from it.
        if passed.is_some_and(|(place, _)| place.height.0.saturating_add(1) < next.height.0) {
            self.last = None;
        }
        Ok(true)
    }
}

pub(crate) fn other_history(what: &str, at: Cursor) -> Error {
    Error::Protocol(format!("{what} at {at}: the node holds another history"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(height: u64, index: u32) -> Cursor {
        Cursor {
            height: Height(height),
            index,
        }
    }

    #[test]
    fn a_cursor_survives_its_text() {
        for text in ["0.0", "7.3", "18446744073709551615.4294967295"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert_eq!(
            "7".parse::<Cursor>().unwrap(),
            Cursor {
                height: Height(7),
                index: 0
            }
        );
        for text in ["", ".", "x", "7.", "-1", "+1", "7.3.1", "7:3"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }

    #[test]
    fn after_a_break_the_last_event_comes_again_and_is_not_told_twice() {
        let mut place = Place::new(From::Height(Height(5)));
        place.connected(at(5, 0), true);
        assert!(!place.is_repeated("a").unwrap());
        place.passed(at(5, 1), at(5, 2), "a").unwrap();
        assert_eq!(place.resume(at(5, 2)), at(5, 1));
        place.connected(at(5, 2), true);
        assert!(place.is_repeated("a").unwrap());
        assert!(!place.is_repeated("b").unwrap());
        place.passed(at(7, 0), at(7, 1), "b").unwrap();
        assert_eq!(place.next(), Some(at(7, 1)));
    }

    #[test]
    fn a_node_that_tells_another_story_is_found_out() {
        let stand = || {
            let mut place = Place::new(From::Height(Height(5)));
            place.connected(at(5, 0), true);
            place.passed(at(5, 1), at(5, 2), "a").unwrap();
            place.connected(at(5, 2), true);
            place
        };
        assert!(stand().is_repeated("b").is_err(), "another event");
        assert!(stand().caught_up(at(6, 0)).is_err(), "no event");
        let mut place = stand();
        assert!(place.is_repeated("a").unwrap());
        assert!(place.passed(at(5, 1), at(5, 2), "c").is_err(), "backwards");
    }

    #[test]
    fn a_quiet_stream_is_not_read_again_from_an_old_event() {
        let mut place = Place::new(From::Height(Height(5)));
        place.connected(at(5, 0), true);
        place.passed(at(5, 1), at(5, 2), "a").unwrap();
        assert!(place.caught_up(at(6, 0)).unwrap());
        assert_eq!(place.resume(at(6, 0)), at(5, 1), "of the newest height");
        assert!(place.caught_up(at(9, 0)).unwrap());
        assert!(!place.caught_up(at(9, 0)).unwrap());
        assert_eq!(place.resume(at(9, 0)), at(9, 0));
    }
}
