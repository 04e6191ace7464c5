//! The room for transactions that are under way, bounded by count and by bytes.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The room. One per node.
pub(crate) struct Pool {
    load: Mutex<Load>,
    transactions_max: usize,
    bytes_max: usize,
    room: Notify,
}

struct Load {
    transactions: usize,
    bytes: usize,
    waiting: usize,
    closed: bool,
}

/// A share of the room; given back when dropped.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    bytes: usize,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Closed,
}

impl Pool {
    pub(crate) fn new(transactions_max: usize, bytes_max: usize) -> Pool {
        let load = Load {
            transactions: 0,
            bytes: 0,
            waiting: 0,
            closed: false,
        };
        Pool {
            load: Mutex::new(load),
            transactions_max,
            bytes_max,
            room: Notify::new(),
        }
    }

    /// Takes room for one transaction of `bytes`, if there is some.
    pub(crate) fn try_enter(self: &Arc<Pool>, bytes: usize) -> Result<Permit, NoRoom> {
        self.enter_with(&mut self.load.lock(), bytes)
    }

    fn enter_with(self: &Arc<Pool>, load: &mut Load, bytes: usize) -> Result<Permit, NoRoom> {
        if load.closed {
            return Err(NoRoom::Closed);
        }
        // A transaction larger than the whole room may still enter an empty one.
        let fits = load.transactions < self.transactions_max
            && (load.transactions == 0 || load.bytes.saturating_add(bytes) <= self.bytes_max);
        if !fits {
            return Err(NoRoom::Full);
        }
        load.transactions += 1;
        load.bytes += bytes;
        Ok(Permit {
            pool: self.clone(),
            bytes,
        })
    }

    /// Takes room for one transaction of `bytes`, waiting for it. `None` when the node stops.
    pub(crate) async fn enter(self: &Arc<Pool>, bytes: usize) -> Option<Permit> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            {
                let mut load = self.load.lock();
                match self.enter_with(&mut load, bytes) {
                    Ok(permit) => return Some(permit),
                    Err(NoRoom::Closed) => return None,
                    Err(NoRoom::Full) => {}
                }
                // Under the lock, so that room given back from now on wakes this.
                room.as_mut().enable();
                load.waiting += 1;
            }
            let _waiting = Waiting(self);
            room.await;
        }
    }

    /// Refuses everybody from now on.
    pub(crate) fn close(&self) {
        self.load.lock().closed = true;
        self.room.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.load.lock().closed
    }

    /// Transactions and bytes under way.
    pub(crate) fn load(&self) -> (usize, usize) {
        let load = self.load.lock();
        (load.transactions, load.bytes)
    }
}

/// Counts one who waits, until it has room or gives up.
struct Waiting<'p>(&'p Pool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.load.lock().waiting -= 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.pool.load.lock();
        load.transactions -= 1;
        load.bytes -= self.bytes;
        if load.waiting > 0 {
            // One at a time: whoever gets in wakes the next by leaving.
            drop(load);
            self.pool.room.notify_one();
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
}
