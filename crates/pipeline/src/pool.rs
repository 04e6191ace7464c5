//! The room for transactions that are under way, bounded by count and by bytes.
//!
//! Whoever sends many waits in turn: a large transaction that needs much room is not passed by small
//! ones that need little. Whoever sends one is told at once whether there is room, and has a reserve to
//! itself, because bulk senders take all the rest as soon as it is free. What must not be late, because it
//! is worth nothing afterwards, has room beside all that.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The part of the room that those who wait leave to those who do not: one in so many.
const RESERVE: usize = 8;

/// The room that only what is urgent may take, beside all the rest: one in so many of it.
const URGENT: usize = 8;

/// The room. One per node.
pub(crate) struct Pool {
    load: Mutex<Load>,
    all: Room,
    reserve: Room,
    urgent: Room,
}

/// So many transactions and bytes of them.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    transactions: usize,
    bytes: usize,
}

struct Load {
    /// What is taken in all.
    taken: Room,
    /// The part of it that was taken past those who waited.
    passed: Room,
    /// What is taken of the room for what is urgent, which is not among the rest.
    urgent: Room,
    /// In the order in which they came.
    waiting: VecDeque<Waiter>,
    closed: bool,
}

struct Waiter {
    bytes: usize,
    granted: oneshot::Sender<Permit>,
}

/// A share of the room; given back when dropped.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    bytes: usize,
    way: Way,
}

/// Which room a permit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In turn, or while nobody waited.
    InTurn,
    /// Past those who waited.
    Passed,
    /// The room for what is urgent.
    Urgent,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Closed,
}

impl Room {
    fn add(&mut self, bytes: usize) {
        self.transactions += 1;
        self.bytes += bytes;
    }

    fn give_back(&mut self, bytes: usize) {
        self.transactions -= 1;
        self.bytes -= bytes;
    }

    /// What is left when `other` is taken away.
    fn without(self, other: Room) -> Room {
        Room {
            transactions: self.transactions - other.transactions,
            bytes: self.bytes - other.bytes,
        }
    }

    /// Whether a transaction of `bytes` fits beside `taken`. One that is larger than the whole room may
    /// enter an empty one.
    fn holds(self, taken: Room, bytes: usize) -> bool {
        taken.transactions < self.transactions
            && (taken.transactions == 0 || taken.bytes.saturating_add(bytes) <= self.bytes)
    }
}

impl Pool {
    pub(crate) fn new(transactions_max: usize, bytes_max: usize) -> Pool {
        let load = Load {
            taken: Room::default(),
            passed: Room::default(),
            urgent: Room::default(),
            waiting: VecDeque::new(),
            closed: false,
        };
        Pool {
            load: Mutex::new(load),
            all: Room {
                transactions: transactions_max,
                bytes: bytes_max,
            },
            reserve: Room {
                transactions: transactions_max / RESERVE,
                bytes: bytes_max / RESERVE,
            },
            urgent: Room {
                transactions: transactions_max / URGENT,
                bytes: bytes_max / URGENT,
            },
        }
    }

    /// What may be under way at once, but for what is urgent.
    pub(crate) fn capacity(&self) -> (usize, usize) {
        (self.all.transactions, self.all.bytes)
    }

    /// Takes room for one transaction of `bytes`, if there is some now. While others wait, that is room
    /// of the reserve.
    pub(crate) fn try_enter(self: &Arc<Pool>, bytes: usize) -> Result<Permit, NoRoom> {
        self.try_enter_into(&mut self.load.lock(), bytes)
    }

    /// The same, and where there is none, room for one of what is urgent.
    pub(crate) fn try_enter_urgent(self: &Arc<Pool>, bytes: usize) -> Result<Permit, NoRoom> {
        let mut load = self.load.lock();
        match self.try_enter_into(&mut load, bytes) {
            Err(NoRoom::Full) if self.urgent.holds(load.urgent, bytes) => {
                load.urgent.add(bytes);
                Ok(Permit {
                    pool: self.clone(),
                    bytes,
                    way: Way::Urgent,
                })
            }
            entered => entered,
        }
    }

    fn try_enter_into(self: &Arc<Pool>, load: &mut Load, bytes: usize) -> Result<Permit, NoRoom> {
        if load.closed {
            return Err(NoRoom::Closed);
        }
        let passes = !load.waiting.is_empty();
        let may_pass = load.passed.transactions < self.reserve.transactions
            && load.passed.bytes.saturating_add(bytes) <= self.reserve.bytes;
        if !self.all.holds(load.taken, bytes) || passes && !may_pass {
            return Err(NoRoom::Full);
        }
        let way = if passes { Way::Passed } else { Way::InTurn };
        Ok(self.admit(load, bytes, way))
    }

    /// Takes room for one transaction of `bytes` in turn, if nobody waits and there is some.
    pub(crate) fn try_enter_in_turn(self: &Arc<Pool>, bytes: usize) -> Result<Permit, NoRoom> {
        let mut load = self.load.lock();
        if load.closed {
            return Err(NoRoom::Closed);
        }
        if !load.waiting.is_empty() || !self.has_room_in_turn(&load, bytes) {
            return Err(NoRoom::Full);
        }
        Ok(self.admit(&mut load, bytes, Way::InTurn))
    }

    /// Takes room for one transaction of `bytes`, waiting for it behind those who came before. `None`
    /// when the node stops.
    pub(crate) async fn enter(self: &Arc<Pool>, bytes: usize) -> Option<Permit> {
        let mut turn = {
            let mut load = self.load.lock();
            if load.closed {
                return None;
            }
            if load.waiting.is_empty() && self.has_room_in_turn(&load, bytes) {
                return Some(self.admit(&mut load, bytes, Way::InTurn));
            }
            let (granted, permit) = oneshot::channel();
            load.waiting.push_back(Waiter { bytes, granted });
            Turn { pool: self, permit }
        };
        (&mut turn.permit).await.ok()
    }

    fn has_room_in_turn(&self, load: &Load, bytes: usize) -> bool {
        let room = self.all.without(self.reserve);
        room.holds(load.taken.without(load.passed), bytes)
    }

    fn admit(self: &Arc<Pool>, load: &mut Load, bytes: usize, way: Way) -> Permit {
        load.taken.add(bytes);
        if way == Way::Passed {
            load.passed.add(bytes);
        }
        Permit {
            pool: self.clone(),
            bytes,
            way,
        }
    }

    /// Lets those in who have been waiting longest.
    fn admit_waiting(self: &Arc<Pool>) {
        let mut granted = Vec::new();
        let mut load = self.load.lock();
        while let Some(first) = load.waiting.front() {
            if !first.granted.is_closed() && !self.has_room_in_turn(&load, first.bytes) {
                break;
            }
            let waiter = load.waiting.pop_front().expect("there is a first");
            if !waiter.granted.is_closed() {
                let permit = self.admit(&mut load, waiter.bytes, Way::InTurn);
                granted.push((waiter.granted, permit));
            }
        }
        drop(load);
        for (waiter, permit) in granted {
            // Who gave up meanwhile gives the permit back by this, which lets the next one in.
            drop(waiter.send(permit));
        }
    }

    /// Refuses everybody from now on.
    pub(crate) fn close(&self) {
        let mut load = self.load.lock();
        load.closed = true;
        // Their end of the channel tells them.
        load.waiting.clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.load.lock().closed
    }

    /// Transactions and bytes under way.
    pub(crate) fn load(&self) -> (usize, usize) {
        let load = self.load.lock();
        let (all, urgent) = (load.taken, load.urgent);
        (
            all.transactions + urgent.transactions,
            all.bytes + urgent.bytes,
        )
    }
}

/// A place among those who wait.
struct Turn<'p> {
    pool: &'p Arc<Pool>,
    permit: oneshot::Receiver<Permit>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permit.close();
        // One that came as this gave up goes back.
        drop(self.permit.try_recv());
        // Those behind may need less room than this one did.
        self.pool.admit_waiting();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.pool.load.lock();
        if self.way == Way::Urgent {
            load.urgent.give_back(self.bytes);
            // Nobody waits for this room.
            return;
        }
        load.taken.give_back(self.bytes);
        if self.way == Way::Passed {
            load.passed.give_back(self.bytes);
        }
        let awaited = !load.waiting.is_empty();
        drop(load);
        if awaited {
            self.pool.admit_waiting();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_bounded_by_count_and_by_bytes_and_comes_back() {
        let pool = Arc::new(Pool::new(2, 100));
        let first = pool.try_enter(60).ok();
        assert!(first.is_some());
        assert!(matches!(pool.try_enter(50), Err(NoRoom::Full)), "bytes");
        let second = pool.try_enter(40).ok();
        assert!(second.is_some());
        assert!(matches!(pool.try_enter(0), Err(NoRoom::Full)), "count");
        drop((first, second));
        assert_eq!(pool.load(), (0, 0));
        assert!(pool.try_enter(500).is_ok(), "alone, even a giant enters");
        pool.close();
        assert!(matches!(pool.try_enter(1), Err(NoRoom::Closed)));
    }

    #[test]
    fn what_is_urgent_has_room_when_all_the_rest_is_taken() {
        let pool = Arc::new(Pool::new(16, 1_600));
        let mut held: Vec<_> = (0..16).map(|_| pool.try_enter(100).ok()).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(matches!(pool.try_enter(1), Err(NoRoom::Full)));
        held.extend((0..2).map(|_| pool.try_enter_urgent(100).ok()));
        assert!(held.iter().all(Option::is_some), "an eighth beside it");
        assert!(matches!(pool.try_enter_urgent(1), Err(NoRoom::Full)));
        assert_eq!(pool.load(), (18, 1_800));
        held.swap_remove(0);
        assert!(
            matches!(pool.try_enter_urgent(100), Ok(permit) if permit.way == Way::InTurn),
            "it is the last resort"
        );
        assert!(
            pool.try_enter(100).is_ok(),
            "what is urgent takes no other room"
        );
        drop(held);
        assert_eq!(pool.load(), (0, 0));
        pool.close();
        assert!(matches!(pool.try_enter_urgent(1), Err(NoRoom::Closed)));
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_when_it_comes_or_hears_of_the_stop() {
        let pool = Arc::new(Pool::new(1, 100));
        let held = pool.try_enter(1).ok();
        let waiter = tokio::spawn({
            let pool = pool.clone();
            async move { pool.enter(1).await }
        });
        tokio::task::yield_now().await;
        drop(held);
        let held = waiter.await.expect("the waiter does not panic");
        assert!(held.is_some());
        let waiter = tokio::spawn({
            let pool = pool.clone();
            async move { pool.enter(1).await.is_none() }
        });
        tokio::task::yield_now().await;
        pool.close();
        assert!(waiter.await.expect("the waiter does not panic"));
    }

    /// Lets a task wait for room; polls it so that it stands in line when this returns.
    async fn wait(pool: &Arc<Pool>, bytes: usize) -> tokio::task::JoinHandle<Option<Permit>> {
        let pool = pool.clone();
        let before = pool.load.lock().waiting.len();
        let waiter = tokio::spawn({
            let pool = pool.clone();
            async move { pool.enter(bytes).await }
        });
        while pool.load.lock().waiting.len() == before {
            tokio::task::yield_now().await;
        }
        waiter
    }

    #[tokio::test]
    async fn a_large_transaction_is_not_passed_by_small_ones_that_came_later() {
        let pool = Arc::new(Pool::new(1_000, 800));
        let mut held: Vec<_> = (0..70).map(|_| pool.try_enter_in_turn(10).ok()).collect();
        assert!(
            held.iter().all(Option::is_some),
            "700 of 800 bytes, the rest is reserved"
        );
        let large = wait(&pool, 400).await;
        let small = wait(&pool, 10).await;
        assert!(
            matches!(pool.try_enter_in_turn(1), Err(NoRoom::Full)),
            "others wait"
        );
        for _ in 0..39 {
            held.pop();
            tokio::task::yield_now().await;
            assert!(!large.is_finished() && !small.is_finished());
        }
        held.pop();
        let large = large.await.expect("no panic");
        assert!(large.is_some(), "40 have left");
        assert!(!small.is_finished(), "what is left goes to who comes next");
        held.pop();
        assert!(small.await.expect("no panic").is_some());
    }

    #[tokio::test]
    async fn who_does_not_wait_has_a_reserve_and_no_more_while_others_do() {
        let pool = Arc::new(Pool::new(80, 8_000));
        let mut held: Vec<_> = (0..70).map(|_| pool.try_enter_in_turn(100).ok()).collect();
        assert!(held.iter().all(Option::is_some));
        let waiter = wait(&pool, 100).await;
        let mut passed: Vec<_> = (0..10).map(|_| pool.try_enter(100).ok()).collect();
        assert!(passed.iter().all(Option::is_some), "an eighth of the room");
        assert!(matches!(pool.try_enter(1), Err(NoRoom::Full)));
        passed.pop();
        assert!(
            !waiter.is_finished(),
            "the reserve is not for those who wait"
        );
        passed.push(pool.try_enter(100).ok());
        held.pop();
        assert!(waiter.await.expect("no panic").is_some());
        drop((held, passed));
        assert_eq!(pool.load(), (0, 0));
        assert_eq!(pool.load.lock().passed.transactions, 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_lets_those_behind_in() {
        let pool = Arc::new(Pool::new(80, 8_000));
        let held = pool.try_enter_in_turn(6_000).ok();
        let large = wait(&pool, 5_000).await;
        let small = wait(&pool, 500).await;
        large.abort();
        assert!(large.await.is_err());
        assert!(small.await.expect("no panic").is_some());
        drop(held);
        assert_eq!(pool.load(), (0, 0));
    }
}
