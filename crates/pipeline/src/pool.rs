//! The room for transactions that are under way, bounded by count and by bytes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// The room. One per node.
pub(crate) struct Pool {
    transactions: AtomicUsize,
    bytes: AtomicUsize,
    transactions_max: usize,
    bytes_max: usize,
    waiting: AtomicUsize,
    closed: AtomicBool,
    room: Notify,
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
        Pool {
            transactions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            transactions_max,
            bytes_max,
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            room: Notify::new(),
        }
    }

    /// Takes room for one transaction of `bytes`, if there is some.
    pub(crate) fn try_enter(self: &Arc<Pool>, bytes: usize) -> Result<Permit, NoRoom> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(NoRoom::Closed);
        }
        let permit = Permit {
            pool: self.clone(),
            bytes,
        };
        let transactions = self.transactions.fetch_add(1, Ordering::SeqCst) + 1;
        let taken = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        // A transaction larger than the whole room may still enter an empty one.
        if transactions > self.transactions_max || (taken > self.bytes_max && transactions > 1) {
            return Err(NoRoom::Full);
        }
        Ok(permit)
    }

    /// Takes room for one transaction of `bytes`, waiting for it. `None` when the node stops.
    pub(crate) async fn enter(self: &Arc<Pool>, bytes: usize) -> Option<Permit> {
        loop {
            match self.try_enter(bytes) {
                Ok(permit) => return Some(permit),
                Err(NoRoom::Closed) => return None,
                Err(NoRoom::Full) => {}
            }
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            self.waiting.fetch_add(1, Ordering::SeqCst);
            // Room that came between the first try and the registration would otherwise be missed.
            let again = self.try_enter(bytes);
            if matches!(again, Err(NoRoom::Full)) {
                room.await;
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            match again {
                Ok(permit) => return Some(permit),
                Err(NoRoom::Closed) => return None,
                Err(NoRoom::Full) => {}
            }
        }
    }

    /// Refuses everybody from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.room.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Transactions and bytes under way.
    pub(crate) fn load(&self) -> (usize, usize) {
        (
            self.transactions.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.transactions.fetch_sub(1, Ordering::SeqCst);
        self.pool.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.pool.waiting.load(Ordering::SeqCst) > 0 {
            self.pool.room.notify_waiters();
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
